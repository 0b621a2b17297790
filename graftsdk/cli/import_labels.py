"""`graftsdk import peta|pa100k|rap|scenes`: fully annotated sets cut into sub-datasets of one label each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from graftsdk.cli.output import HelpFormatter, print_json, print_table
from graftsdk.text import counted, one_line

__all__ = ["SOURCES", "configure_labels", "run_labels"]

# Source -> what it is, and whether it has a split of its own.
SOURCES = {
    "peta": ("PETA: SUBSET/archive/{Label.txt, images}", False),
    "pa100k": ("PA-100K: annotation.mat and data/, with its own split", True),
    "rap": ("RAP, version 1 or 2: RAP_annotation/RAP_annotation.mat and RAP_dataset/", False),
    "scenes": ("drawn scenes, as graftsdk scenes writes them: annotations/instances_scenes.json and scenes/", False),
}

_EPILOG = """\
labels.toml names the labels; expressions know the set's attributes, and, or, not and parentheses:
  [labels.backpack]
  positive = "carryingBackpack"            # whatever is not positive is negative, unless negative = "..." says more
  [labels.age]                             # the order of the network's outputs
  classes = {{ young = "personalLess15 or personalLess30", old = "personalLarger60" }}
An image of no class or of two is left out. A name that is no identifier stands in quotes: '"Age18-60" or AgeOver60'.

TARGET holds LABEL/{{train,val,test}}/CLASS/ and LABEL/identities.csv, card.json with counts and digest, and graft.toml
where classes are not no and yes. A person is in train or val of one label only, the rarest label chooses first, its
negatives come from the cameras of its positives; test keeps all labels of its people.

example:
  graftsdk import {name} {folder} labels --labels labels.toml --licence "research only"
"""

_SCENES = """
Every person who is no crowd is cut out, a PNG whose alpha is the mask, as graftsdk crop does. An attribute of yes and
no keeps its name (hat); a text gives one for each value (age_child, role_suit, lookalike_hat_helmet) and, where it may
be empty, one for whether it says anything (lookalike_hat); whole numbers one for each (yaw_bin_3). People of one scene
are on the same side of a split.
"""


def configure_labels(sources: Any) -> None:
    """Add a command for each set to the subparsers of `graftsdk import`."""
    for name, (summary, has_split) in SOURCES.items():
        command: argparse.ArgumentParser = sources.add_parser(name, help=f"labels from {summary}")
        command.formatter_class = HelpFormatter
        command.description = (
            f"Cut a fully annotated set into sub-datasets of one label each. {summary}. Needs [train]."
        )
        command.epilog = _EPILOG.format(name=name, folder=name.upper()) + (_SCENES if name == "scenes" else "")
        add = command.add_argument
        add("folder", metavar="FOLDER", help="of the set")
        add("target", metavar="TARGET", help="a new or empty folder")
        add("--labels", required=True, metavar="FILE", help="the labels, .toml; see below")
        add("--negatives", type=float, default=3.0, metavar="X", help="of each other class for one positive; default 3")
        if not has_split:
            add("--test-share", type=float, default=0.2, metavar="X", help="of the people; default 0.2")
            add("--val-share", type=float, default=0.1, metavar="X", help="of the people not in test; default 0.1")
        if name not in ("pa100k", "scenes"):
            add("--per-person", type=int, metavar="N", help="at most so many images of one person; default: all")
        add("--seed", type=int, default=0, metavar="N", help="another seed, other people; default 0")
        add("--licence", default="not stated", metavar="TEXT", help="of the images, for card.json")
        if name != "scenes":
            add("--link", action="store_true", help="hard links in place of copies")
        add("--json", action="store_true", help="print card.json")


def run_labels(args: argparse.Namespace) -> int:
    """Write the sub-datasets; exit code 0."""
    from graftsdk.training.labels.cutting import CutOptions
    from graftsdk.training.labels.import_labels import import_labels
    from graftsdk.training.labels.questions import read_questions

    questions = read_questions(args.labels)
    said = ("test_share", "val_share", "per_person")  # where the source has such an option
    more = {name: getattr(args, name) for name in said if hasattr(args, name)}
    options = CutOptions(seed=args.seed, negatives=args.negatives, **more)
    progress = sys.stderr.isatty() and not args.json
    with ExitStack() as stack:
        if args.source == "scenes":
            from graftsdk.training.labels.scenes import cut_scenes

            images = stack.enter_context(cut_scenes(args.folder, args.target, questions, progress=progress))
        else:
            images = _reader(args.source)(args.folder)
        card = import_labels(
            images,
            questions,
            args.target,
            options,
            licence=args.licence,
            link=getattr(args, "link", False),  # cut pictures go when all is written
            progress=progress,
        )
    if args.json:
        print_json(card)
        return 0
    rows = [["label", "classes", "train", "val", "test", "people"]]
    for name, entry in card["labels"].items():
        counts = [" / ".join(map(str, entry["images"][split])) for split in ("train", "val", "test")]
        people = " / ".join(str(sum(entry["identities"][split])) for split in ("train", "val", "test"))
        rows.append([name, " / ".join(entry["classes"]), *counts, people])
    print_table(rows)
    for note in card["notes"]:
        print(f"note: {one_line(note)}")
    annotated = sum(sum(entry["images"][split]) for entry in card["labels"].values() for split in ("train", "val"))
    print(
        f"{one_line(args.target)}: {counted(len(questions), 'label')}, {annotated} annotated images in train and val, "
        f"of {card['images_in_source']} in {card['source']}"
    )
    return 0


def _reader(source: str) -> Callable[[str], Any]:
    if source == "peta":
        from graftsdk.training.labels.peta import read_peta

        return read_peta
    if source == "pa100k":
        from graftsdk.training.labels.pa100k import read_pa100k

        return read_pa100k
    from graftsdk.training.labels.rap import read_rap

    return read_rap
