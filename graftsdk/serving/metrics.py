"""`Metrics`: what Prometheus reads. Names of labels come from the plan that serves, so no caller can add a series."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from graftsdk.attribute import Attribute
from graftsdk.plan import BranchDocument
from graftsdk.prediction import Prediction
from graftsdk.reloading import Reload
from graftsdk.serving.drift import Drift
from graftsdk.shared_batch import BatchRecord

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_STAGES = ("decode", "segment", "crop", "engine")
_MOST_REASONS = 64  # codes of problems; there are about thirty


class Metrics:
    """Counts and times of one service, in a registry of its own.

    Args:
        documents: label -> its branch's document. What is said of other labels and classes is not counted.
        waiting: gives the number of images in the queue.
        digest: of the plan that serves.
    """

    def __init__(self, documents: Mapping[str, BranchDocument], waiting: Callable[[], int], digest: str) -> None:
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._requests = self._counter("requests", "Requests that were answered.", ("route", "status"))
        self._seconds = self._histogram("request_seconds", "From a request's head to its answer.", _SECONDS, ("route",))
        self._images = self._histogram("batch_images", "Images that shared a batch.", _SIZES)
        self._crops = self._histogram("batch_crops", "Crops that shared a batch.", _SIZES)
        self._stages = self._histogram("stage_seconds", "Of one image, stage by stage.", _SECONDS, ("stage",))
        self._waited = self._histogram("queue_seconds", "That a batch's oldest image waited.", _SECONDS)
        self._refused = self._counter("refused", "Requests that got a problem instead of a result.", ("reason",))
        self._reasons: set[str] = set()
        self._persons = self._counter("persons", "Persons that were found.")
        self._held = self._counter("label_positive", "Persons of whom a class holds.", ("label", "value"))
        self._judged = self._counter("label_persons", "Persons who were judged.", ("label",))
        self._drift = Gauge(
            "graftsdk_label_psi",
            "Scores of live traffic against the plan's validation data: below 0.1 nothing moved, above 0.25 much did.",
            ("label",),
            registry=self._registry,
        )
        self._shadowed = self._counter("shadow_persons", "Persons that the shadow plan judged too.", ("label",))
        self._disagreed = self._counter("shadow_disagreements", "Whom it judged otherwise.", ("label",))
        self._left_out = self._counter("shadow_left_out", "Images that it did not compare.", ("reason",))
        self._reloads = self._counter("reloads", "Plans that were tried while it ran.", ("result",))
        self._plan = Gauge("graftsdk_plan_info", "The plan that serves.", ("digest",), registry=self._registry)
        gauge = Gauge("graftsdk_queue_images", "Images that wait.", registry=self._registry)
        gauge.set_function(lambda: float(waiting()))
        self._classes: dict[str, tuple[str, ...]] = {}
        self.follow(documents, digest)

    def follow(self, documents: Mapping[str, BranchDocument], digest: str) -> None:
        """Another plan serves: its labels, its validation data. Series of labels that it lacks end."""
        classes = {label: document.classes for label, document in documents.items()}
        with self._lock:
            for label, before in self._classes.items():
                if classes.get(label) != before:
                    self._forget(label, before)
            self._classes = classes
            self._labels = Drift(documents)
            self._drift.clear()
            self._plan.clear()
            self._plan.labels(digest).set(1)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is the pattern of its path, or "other"."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request got a problem: its code."""
        with self._lock:
            if reason not in self._reasons and len(self._reasons) >= _MOST_REASONS:
                reason = "other"
            self._reasons.add(reason)
        self._refused.labels(reason).inc()

    def batch(self, record: BatchRecord) -> None:
        """A batch was computed."""
        self._images.observe(record.images)
        self._crops.observe(record.crops)
        self._waited.observe(record.waited_s)

    def prediction(self, prediction: Prediction) -> None:
        """An image was answered."""
        for stage in _STAGES:
            if stage in prediction.timings:
                self._stages.labels(stage).observe(prediction.timings[stage] / 1e3)
        self.persons(person.attributes for person in prediction)

    def persons(self, judged: Iterable[Mapping[str, Attribute]]) -> None:
        """Persons were judged: of each, label -> attribute."""
        with self._lock:
            for attributes in judged:
                self._persons.inc()
                for label, attribute in attributes.items():
                    if self._classes.get(label) != attribute.classes:  # decided by a plan that has been replaced since
                        continue
                    self._judged.labels(label).inc()
                    for name in _holds(attribute):
                        self._held.labels(label, name).inc()
                    self._labels.add(label, attribute.scores)

    def shadow(self, label: str, agreed: bool) -> None:
        """A person's label was decided by both plans."""
        with self._lock:
            if label in self._classes:
                self._shadowed.labels(label).inc()
                self._disagreed.labels(label).inc(0 if agreed else 1)

    def shadow_left_out(self, reason: str) -> None:
        """An image was not compared by the shadow: "busy", "failed", or "profile"."""
        self._left_out.labels(reason).inc()

    def reloaded(self, done: Reload | None) -> None:
        """A plan was tried: it serves, or was refused (None)."""
        self._reloads.labels("refused" if done is None else "done").inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        with self._lock:
            for label, value in self._labels.values().items():
                self._drift.labels(label).set(value)
        return generate_latest(self._registry)

    def _forget(self, label: str, classes: tuple[str, ...]) -> None:
        """No series of this label any more; those that never were are no error."""
        own = [(counter, (label,)) for counter in (self._judged, self._shadowed, self._disagreed)]
        for counter, values in [*own, *((self._held, (label, name)) for name in classes)]:
            with suppress(KeyError):  # older releases of the client raise it
                counter.remove(*values)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"graftsdk_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(f"graftsdk_{name}", text, labels, buckets=bounds, registry=self._registry)


def _holds(attribute: Attribute) -> tuple[str, ...]:
    """The classes that hold: of two the last one, if it does; of more the one decided on."""
    if len(attribute.classes) == 2:
        return (attribute.classes[1],) if attribute.present else ()
    return (attribute.name,)
