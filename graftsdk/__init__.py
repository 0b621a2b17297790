"""graftsdk: one shared trunk, any number of separately trained one-label branches, one plan.

`import graftsdk` loads the standard library only; the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftsdk.attribute import Attribute
    from graftsdk.engines import share_threads
    from graftsdk.errors import GraftError
    from graftsdk.prediction import Person, Prediction
    from graftsdk.predictor import Predictor
    from graftsdk.sheet import contact_sheet, save_contact_sheet
    from graftsdk.stream import Stream

__all__ = [
    "Attribute",
    "GraftError",
    "Person",
    "Prediction",
    "Predictor",
    "Stream",
    "__version__",
    "contact_sheet",
    "save_contact_sheet",
    "share_threads",
]

__version__ = "0.1.0"

_HOMES = {
    "Attribute": "graftsdk.attribute",
    "GraftError": "graftsdk.errors",
    "Person": "graftsdk.prediction",
    "Prediction": "graftsdk.prediction",
    "Predictor": "graftsdk.predictor",
    "Stream": "graftsdk.stream",
    "contact_sheet": "graftsdk.sheet",
    "save_contact_sheet": "graftsdk.sheet",
    "share_threads": "graftsdk.engines",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graftsdk' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
