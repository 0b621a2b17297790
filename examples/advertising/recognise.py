"""Snapshots in, people out: by a plan in this process, or by a running `graftsdk serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx
import numpy as np
from passengers import Seen
from schema import Classes

from graftsdk import Attribute, Predictor
from graftsdk.errors import GraftError, InputError, Overloaded


class Recogniser(Protocol):
    classes: Classes  # of all labels

    async def people(self, jpeg: bytes, labels: Sequence[str]) -> list[Seen]:
        """With answers of these labels at least.

        Raises GraftError: InputError where it is the picture's fault, Overloaded where it is too much.
        """

    async def close(self) -> None: ...


class InProcess:
    """Snapshots of many lifts are decoded ahead and share batches."""

    def __init__(self, plan: Path, in_flight: int) -> None:
        self._predictor = Predictor(plan)
        self._batcher = self._predictor.batcher(queue=in_flight)
        manifest = self._predictor.plan.manifest
        found = {label: manifest.find(label) for label in self._predictor.labels}
        self.classes = {label: entry[1].document.classes for label, entry in found.items() if entry}

    async def people(self, jpeg: bytes, labels: Sequence[str]) -> list[Seen]:
        prediction = await self._batcher.apredict(jpeg, labels=_asked(labels, self.classes), timeout=10.0)
        return [Seen(p.box, 1.0 if p.score is None else p.score, p.attributes) for p in prediction]

    async def close(self) -> None:
        self._batcher.close(timeout=5.0)
        self._predictor.close()


class OverHTTP:
    """`graftsdk serve PLAN` somewhere: its address, and its key where it asks for one."""

    def __init__(self, address: str, key: str | None = None) -> None:
        headers = {"X-API-Key": key} if key else {}
        # No proxy of the environment: snapshots go to the service and nowhere else.
        self._client = httpx.AsyncClient(base_url=address, headers=headers, timeout=10.0, trust_env=False)
        try:
            answer = httpx.get(f"{address.rstrip('/')}/v1/plan", headers=headers, timeout=10.0, trust_env=False)
            answer.raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputError(f"--service: expected `graftsdk serve` at {address}, found: {error}") from error
        plan = answer.json()
        if plan.get("harvest"):
            raise InputError(
                f"--service: expected a service that keeps no pictures, found one at {address} that was started with "
                "--harvest; each lift's screen says that none is kept: start it without"
            )
        self.classes = {each["label"]: tuple(each["classes"]) for each in plan["labels"]}

    async def people(self, jpeg: bytes, labels: Sequence[str]) -> list[Seen]:
        query = {"labels": ",".join(_asked(labels, self.classes)), "masks": "none"}
        try:
            answer = await self._client.post(
                "/v1/predict", params=query, content=jpeg, headers={"Content-Type": "image/jpeg"}
            )
        except httpx.HTTPError as error:
            raise ServiceFailed(f"the service does not answer: {type(error).__name__}") from error
        if answer.status_code == 503:
            raise Overloaded("the service has too much to do")
        if answer.status_code != 200:
            code = answer.json().get("code", "") if "json" in answer.headers.get("content-type", "") else ""
            of_the_picture = answer.status_code in (413, 422) and code != "unknown_label"
            raise (InputError if of_the_picture else ServiceFailed)(
                f"the service refused: {answer.status_code} {code}".rstrip()
            )
        return [_seen(person) for person in answer.json()["persons"]]

    async def close(self) -> None:
        await self._client.aclose()


class ServiceFailed(GraftError):
    """The service does not answer, or refuses what is not the picture's fault: a key, a label, an error of its own."""


def _asked(labels: Sequence[str], classes: Classes) -> list[str]:
    """One label at the least: a plan answers no fewer, and rules that count passengers ask about none."""
    return list(labels) or [next(iter(classes))]


def _seen(person: dict) -> Seen:
    attributes = {
        label: Attribute(label, tuple(found["scores"]), found["scores"], found["thresholds"])
        for label, found in person["attributes"].items()
    }
    score = person["score"]
    return Seen(np.array(person["box"], np.float32), 1.0 if score is None else score, attributes)
