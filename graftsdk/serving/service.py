"""`Service`: a predictor, its batcher and those who watch them, behind every route. No HTTP in here."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from graftsdk.attribute import decisions
from graftsdk.engines import default_threads
from graftsdk.engines.golden import check_golden, log_golden
from graftsdk.errors import GraftError, InputError, NonFiniteOutput
from graftsdk.plan import Plan
from graftsdk.prediction import Prediction
from graftsdk.predictor import Predictor
from graftsdk.preprocess import golden_crops
from graftsdk.scores import Thresholds, resolve_thresholds
from graftsdk.serving.answers import Crops, attributes_of, cut_out, documents_of, json_bytes, label_of
from graftsdk.serving.logs import note, noted
from graftsdk.serving.problems import ClientGone, Problem, problem_of
from graftsdk.serving.settings import ServeSettings
from graftsdk.serving.tracing import Tracing
from graftsdk.shared_batch import CropScores, too_late

if TYPE_CHECKING:
    from graftsdk.serving.harvest import Harvest
    from graftsdk.serving.metrics import Metrics
    from graftsdk.serving.profiles import Profiles
    from graftsdk.serving.shadow import Shadow
    from graftsdk.serving.watch import PlanWatcher

__all__ = ["Service", "until_gone"]

_log = logging.getLogger("graftsdk.serving")
T = TypeVar("T")


class Service:
    """What the routes call. Its methods belong to one event loop; `start` before the first, `stop` after the last.

    Args:
        predictor: closed by `stop`, and so are `watcher`, `shadow` and `harvest`.
        settings: its limits.
        metrics, profiles, watcher, shadow, harvest: None where nobody asked for them.

    Attributes:
        ready: the golden crops were computed, and no stop was asked for.
        failed: why it did not start, or None.
        cut: how many requests were still unanswered when the time for a graceful stop was over.
    """

    def __init__(
        self,
        predictor: Predictor,
        settings: ServeSettings,
        *,
        metrics: Metrics | None = None,
        profiles: Profiles | None = None,
        watcher: PlanWatcher | None = None,
        shadow: Shadow | None = None,
        harvest: Harvest | None = None,
    ) -> None:
        self.predictor = predictor
        self.settings = settings
        self.metrics = metrics
        self.profiles = profiles
        self.watcher = watcher
        self.shadow = shadow
        self.harvest = harvest
        self._tracing = Tracing()
        self.ready = False
        self.failed: GraftError | None = None
        self.cut = 0
        self.batcher = predictor.batcher(
            max_batch=settings.max_batch, max_wait_ms=settings.max_wait_ms, queue=settings.queue
        )
        if metrics is not None:
            self.batcher.observe = metrics.batch
        # Decoding crops, writing JSON: work that would hold up the event loop, and that takes memory by the thread.
        self._workers: Executor = ThreadPoolExecutor(max(2, default_threads()), "graftsdk-serve")

    async def start(self) -> None:
        """Compute the golden crops as a request would; from then on it is ready.

        Raises:
            GraftError: the engine does not work.
        """
        plan = self.predictor.plan
        crops = golden_crops(plan.manifest.crop)
        try:
            found = await self.batcher.arun(crops)
            changes = check_golden(lambda *_: found, plan.manifest, crops, decisions, self.predictor.labels)
        except GraftError as error:
            self.failed = error
            raise
        log_golden(changes)
        self.ready = True

    async def stop(self) -> None:
        """Finish what was accepted, then let go of everything."""
        self.ready = False
        loop = asyncio.get_running_loop()
        if self.watcher is not None:  # first: no reload while the predictor closes
            await loop.run_in_executor(None, self.watcher.close)
        await loop.run_in_executor(None, self.batcher.close)
        for each in (self.shadow, self.harvest):
            if each is not None:
                await loop.run_in_executor(None, each.close)
        await loop.run_in_executor(None, self.predictor.close)
        self._workers.shutdown(wait=True)

    # -----------------------------------------------------------------------------------------------------------------
    async def predict(
        self, data: bytes, labels: Sequence[str] | None, profile: str | None, *, masks: bool, request_id: str
    ) -> bytes:
        """The JSON of an image's prediction, UTF-8.

        Raises:
            Problem: an unknown label or profile. GraftError: as `Predictor.predict`, and Overloaded.
        """
        until = time.monotonic() + self.settings.seconds
        self._check_labels(labels)
        thresholds = self._thresholds(profile, self.predictor.plan, self.predictor.labels)
        prediction = await self.batcher.apredict(
            data, labels=labels, thresholds=thresholds, timeout=self.settings.seconds
        )
        note(persons=len(prediction), plan=prediction.plan, timings=prediction.timings)
        return await self.work(partial(self._told, prediction, profile, masks, request_id), until)

    async def crops(
        self, pictures: Sequence[tuple[str, bytes]], labels: Sequence[str] | None, profile: str | None, request_id: str
    ) -> bytes:
        """The JSON of pictures of one person each, UTF-8; one that cannot be used has its problem at its place.

        Raises:
            Problem: an unknown label or profile. GraftError: the engine's errors, and Overloaded.
        """
        until = time.monotonic() + self.settings.seconds
        self._check_labels(labels)
        self._thresholds(profile, self.predictor.plan, self.predictor.labels)  # before anything is computed
        refused: dict[int, InputError] = {}
        cut = partial(cut_out, [data for _, data in pictures], refused)
        scores = await self.batcher.arun(cut, labels, timeout=self.settings.seconds)
        note(persons=len(pictures) - len(refused), plan=scores.plan.digest)
        names = [name for name, _ in pictures]
        return await self.work(lambda _: self._told_crops(names, refused, scores, profile, request_id), until)

    async def infer(self, crops: Crops, labels: Sequence[str] | None) -> CropScores:
        """Label -> float32[N, C], of all labels where none are named.

        Raises:
            Problem: crops that no network takes. GraftError: the engine's errors, and Overloaded.
        """
        try:
            return await self.batcher.arun(crops, labels, timeout=self.settings.seconds)
        except NonFiniteOutput as error:  # of numbers that the client chose
            detail = "crops: expected values as mask_crop makes them, found such that a score is no number"
            raise Problem(422, "crops", detail) from error

    # -----------------------------------------------------------------------------------------------------------------
    def description(self) -> dict[str, Any]:
        """The plan that answers, as JSON types: what `GET /v1/plan` tells."""
        plan = self.predictor.plan
        manifest = plan.manifest
        segmenter = manifest.segmenter
        return {
            "digest": plan.digest,
            "version": _version(),
            "labels": [label_of(document) for document in documents_of(plan, self.predictor.labels).values()],
            "crop": manifest.crop.to_dict(),
            "segmenter": None if segmenter is None else segmenter.to_dict(),
            "profiles": list(self.profiles.names) if self.profiles is not None else [],
            "harvest": self.harvest is not None,
        }

    def refused(self) -> str | None:
        """Why the last plan file that was tried does not serve, without its path; None where the newest one does."""
        text: str | None = None if self.watcher is None else self.watcher.refused
        path = self.predictor.plan.path
        if text is None or path is None:
            return text
        for name in (os.path.abspath(path), str(path)):  # an error names the one that was opened
            text = text.replace(name, "plan")
        return text[:500]

    def count_cut(self) -> None:
        """Note that a request was accepted and will not be answered."""
        self.cut += 1

    def answered(self, method: str, route: str, status: int, seconds: float, request_id: str) -> None:
        """Note that a request is done: in the metrics, as a span, as a line of the log without image or query."""
        known = dict(noted())
        timings, parent = known.pop("timings", {}), known.pop("traceparent", None)
        self._tracing.request(method, route, status, seconds, request_id, timings, parent)
        if self.metrics is not None:
            self.metrics.request(route, status, seconds)
            if "code" in known:
                self.metrics.refused(known["code"])
        _log.info(
            "%s %s %d %.1f ms %s",
            method,
            route,
            status,
            1e3 * seconds,
            request_id,
            extra={
                "id": request_id,
                "method": method,
                "route": route,
                "status": status,
                "ms": round(1e3 * seconds, 1),
                **known,
            },
        )

    def _check_labels(self, labels: Sequence[str] | None) -> None:
        known = self.predictor.labels
        if labels is not None and (len(set(labels)) != len(labels) or any(label not in known for label in labels)):
            raise Problem(
                422, "unknown_label", "labels: expected some of those of GET /v1/plan, each once, found others"
            )

    def _thresholds(self, profile: str | None, plan: Plan, labels: Iterable[str]) -> Thresholds | None:
        """A profile's, as far as they are of these labels of a plan: it may be another than the file was read for."""
        profiles = self.profiles
        if profile is None:
            return None
        if profiles is None or profile not in profiles.names:
            raise Problem(422, "unknown_profile", "profile: expected one of those of GET /v1/plan, found another")
        return profiles.fitting(documents_of(plan, labels)).thresholds(profile)

    def _told(
        self,
        prediction: Prediction,
        profile: str | None,
        masks: bool,
        request_id: str,
        wanted: Callable[[], bool] = lambda: True,
    ) -> bytes:
        limit = self.settings.max_persons
        if len(prediction) > limit:
            prediction = replace(prediction, persons=prediction.persons[:limit], truncated=True)
        found = {"id": request_id, "profile": profile, **replace(prediction, persons=()).to_dict()}
        del found["source"]
        for person in prediction:
            if not wanted():  # the masks of a crowd in a large image take their time
                return b""
            found["persons"].append(person.to_dict(masks))
        if self.metrics is not None:
            self.metrics.prediction(prediction)
        if self.shadow is not None:
            self.shadow.offer(prediction, profile)
        if self.harvest is not None:
            self.harvest.offer(prediction)
        return json_bytes(found)

    def _told_crops(
        self,
        names: Sequence[str],
        refused: Mapping[int, InputError],
        scores: CropScores,
        profile: str | None,
        request_id: str,
    ) -> bytes:
        documents = documents_of(scores.plan, scores)
        thresholds = resolve_thresholds(documents, self._thresholds(profile, scores.plan, scores))
        judged = attributes_of(documents, scores, thresholds, len(names) - len(refused))
        if self.metrics is not None:
            self.metrics.persons(judged)
        rows = iter(judged)
        told: list[dict[str, Any]] = []
        for place, name in enumerate(names):
            if place in refused:
                told.append({"name": name, "error": problem_of(refused[place]).document(request_id)})
            else:
                attributes = {label: attribute.to_dict() for label, attribute in next(rows).items()}
                told.append({"name": name, "attributes": attributes})
        return json_bytes({"id": request_id, "plan": scores.plan.digest, "profile": profile, "crops": told})

    async def work(self, call: Callable[[Callable[[], bool]], T], until: float) -> T:
        """What `call` gives, in a worker; it is handed what tells whether anybody still waits.

        Raises:
            Overloaded: it is later than `until`.
        """
        over = threading.Event()
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._workers, call, lambda: not over.is_set())
        except TimeoutError:
            raise too_late(self.settings.seconds) from None
        finally:
            over.set()


async def until_gone(work: Awaitable[T], receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> T:
    """What `work` gives; where the client goes away first, the work is dropped.

    Raises:
        ClientGone: it went.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return await working
        raise ClientGone
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working, gone})  # a cancelled task lets go of its work when it runs next


async def _disconnected(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _version() -> str:
    import graftsdk

    return graftsdk.__version__
