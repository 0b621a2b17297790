"""How often a plan is right about drawn people whom no training saw: `python examples/held_out.py PLAN [COUNT]`.

Draws COUNT scenes (default 200) of a seed of their own, asks about everybody by the true mask, then about those whom
the plan's own segmenter finds, and counts. "Always the same" is what the most frequent answer would reach if it were
given for everybody; balanced is the mean over the classes of what is right among their people, of which such an answer
reaches a half, or of three classes a third.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from graftsdk import Prediction, Predictor
from graftsdk.training.labels.annotated import AnnotatedSet
from graftsdk.training.labels.questions import read_questions
from graftsdk.training.labels.told import attribute_table
from graftsdk.training.synthetic import DrawnPerson, DrawnScene, draw_scene, is_crowd
from graftsdk.training.synthetic.attributes import sample_persona

SEED = 2027  # the segmenter learnt from seed 1, trunk and branches from seed 3
LABELS = Path(__file__).with_name("demo_labels.toml")

Truth = dict[str, str | None]  # label -> class; None where the person is of no class


def picture(scene: DrawnScene) -> np.ndarray:
    """uint8[H, W, 3], BGR: as the scene's camera stores it."""
    stored = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, scene.quality])[1]
    return cv2.imdecode(stored, cv2.IMREAD_COLOR)


def truths(people: Sequence[DrawnPerson]) -> list[Truth]:
    """What is true of each, by the expressions of demo_labels.toml, also for labels that the plan does not have."""
    names, values = attribute_table([*(person.attributes for person in people), *_others()], "scenes")
    who = tuple(map(str, range(len(values))))
    table = AnnotatedSet("scenes", tuple(map(Path, who)), who, who, who, who, None, names, values)
    found: list[Truth] = [{} for _ in people]
    for question in read_questions(LABELS):
        targets = question.targets(table)[: len(people)].tolist()
        for truth, target in zip(found, targets, strict=True):
            truth[question.label] = question.classes[target] if target >= 0 else None
    return found


@cache
def _others() -> tuple[dict[str, str | bool | float], ...]:
    """Attributes of people who are on no picture, so many that every value occurs."""
    rng = np.random.default_rng(0)
    return tuple(sample_persona(rng).labels for _ in range(300))


def match(prediction: Prediction, masks: np.ndarray) -> list[int | None]:
    """For each person of the prediction the true mask, bool[N, H, W], that overlaps it by half or more; else None."""
    found: list[int | None] = []
    for person in prediction:
        mask = person.mask
        shares = [(mask & other).sum() / (mask | other).sum() for other in masks]
        best = int(np.argmax(shares)) if shares else 0
        found.append(best if shares and shares[best] >= 0.5 else None)
    return found


def main(plan: str, count: int = 200) -> None:
    answers: dict[str, dict[str, list[tuple[str, str]]]] = {"mask": defaultdict(list), "found": defaultdict(list)}
    people = seen = strangers = 0
    with Predictor(plan) as predictor:
        for index in range(count):
            scene = draw_scene(SEED, index)
            asked = [person for person in scene.persons if not is_crowd(person)]
            if not asked:
                continue
            image, truth = picture(scene), truths(asked)
            masks = np.stack([person.mask for person in asked])
            whole, by_itself = predictor.predict(image, masks=masks), predictor.predict(image)
            partners = match(by_itself, masks)
            people += len(asked)
            seen += len({partner for partner in partners if partner is not None})
            strangers += partners.count(None)
            for way, prediction, of in (("mask", whole, range(len(asked))), ("found", by_itself, partners)):
                for person, partner in zip(prediction, of, strict=True):
                    for label, true in ({} if partner is None else truth[partner]).items():
                        if true is not None and label in person:
                            answers[way][label].append((true, person[label].name))
    print(f"{count} scenes, {people} people; the segmenter found {seen} of them, and {strangers} that are nobody")
    print("label               always the same   right (balanced), true masks   right (balanced), found")
    for label, pairs in answers["mask"].items():
        most = Counter(true for true, _ in pairs).most_common(1)[0][1] / len(pairs)
        told = [f"{right(p):.1%} ({balanced(p):.1%})" for p in (pairs, answers["found"][label])]
        print(f"{label:20}{most:15.1%}   {told[0]:>28}   {told[1]:>23}")


def right(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(true == said for true, said in pairs) / len(pairs) if pairs else float("nan")


def balanced(pairs: Sequence[tuple[str, str]]) -> float:
    classes = {true for true, _ in pairs}
    return float(np.mean([right([pair for pair in pairs if pair[0] == name]) for name in classes] or [float("nan")]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
