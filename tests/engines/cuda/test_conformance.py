"""Every case of conformance.py over every kind of device; those that cannot be opened here are skipped, with why."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftsdk.engines.cuda.probe import KINDS

_spec = importlib.util.spec_from_file_location("graft_conformance", Path(__file__).with_name("conformance.py"))
assert _spec is not None and _spec.loader is not None
conformance = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(conformance)

problem = cache(conformance.available)


@pytest.mark.parametrize("case", conformance.CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize(
    "kind", ["host", *(pytest.param(kind, marks=pytest.mark.gpu) for kind in KINDS if kind != "host")]
)
def test_conformance(kind: str, case: Callable[..., None], rng: np.random.Generator) -> None:
    reason = problem(kind)
    if reason is not None:
        pytest.skip(reason)
    wanted: dict[str, Any] = {"rng": rng, "kind": kind}
    parameters = inspect.signature(case).parameters
    if "device" not in parameters:
        case(**{name: wanted[name] for name in parameters})
        return
    with conformance.open_kind(kind) as device:
        if case in conformance.CAPTURES and not device.can_capture:
            pytest.skip(f"{kind} captures no graphs")
        if case is conformance.capture_is_refused_where_there_is_none and device.can_capture:
            pytest.skip(f"{kind} captures graphs")
        case(**{name: {**wanted, "device": device}[name] for name in parameters})


def test_the_suite_names_every_case_it_has() -> None:
    cases = {
        function.__name__
        for function in vars(conformance).values()
        if inspect.isfunction(function)
        and function.__module__ == conformance.__name__
        and {"device", "kind"} & set(list(inspect.signature(function).parameters)[:1])
        and function.__name__ not in {"available", "open_kind", "kernel_image", "upload", "download"}
    }
    assert cases == {case.__name__ for case in conformance.CASES}
