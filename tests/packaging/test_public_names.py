"""Every module says what it offers, and everything that is offered exists and is described."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

import graftsdk

PUBLIC_PACKAGES = ("graft", "plan", "preprocess", "segment", "engines", "models", "export")
# Pairs whose names say it all: a document's dictionary and back.
SELF_EXPLAINING = {"to_dict", "from_dict"}


def module_names() -> list[str]:
    """All modules of the package, without those that start with an underscore; graftsdk.export is found as well."""
    found = ["graftsdk", "graftsdk.export"]
    for package in found[:]:
        paths = importlib.import_module(package).__path__
        found += [info.name for info in pkgutil.walk_packages(paths, f"{package}.")]
    return sorted({name for name in found if not any(part.startswith("_") for part in name.split("."))})


def described(value: object) -> bool:
    """Constants and aliases need no docstring; what is generated for a dataclass counts as none."""
    if inspect.isclass(value):
        own = value.__doc__ or ""
        return bool(own.strip()) and not own.startswith(f"{value.__name__}(")
    if inspect.isroutine(value):
        return bool((value.__doc__ or "").strip())
    return True


def undescribed_methods(owner: type) -> list[str]:
    """Public methods and properties of our own classes that say nothing; an override inherits its base's words."""
    return [
        f"{owner.__qualname__}.{name}"
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and name not in SELF_EXPLAINING
        and (inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod)))
        and not inspect.getdoc(getattr(owner, name))
    ]


def offered(module: ModuleType) -> list[str]:
    names = module.__all__
    assert len(names) == len(set(names)), f"{module.__name__}.__all__ names something twice"
    return list(names)


@pytest.mark.parametrize("name", module_names())
def test_module_says_what_it_offers(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    missing = [each for each in offered(module) if not hasattr(module, each)]
    assert not missing, f"{name}.__all__ names {missing}, which do not exist"
    silent = [each for each in offered(module) if not described(getattr(module, each))]
    assert not silent, f"{name} offers {silent} without a docstring"


@pytest.mark.parametrize("name", ["graftsdk", *(f"graftsdk.{package}" for package in PUBLIC_PACKAGES)])
def test_public_classes_describe_their_methods(name: str) -> None:
    module = importlib.import_module(name)
    classes = [value for each in offered(module) if inspect.isclass(value := getattr(module, each))]
    silent = [method for owner in classes for method in undescribed_methods(owner)]
    assert not silent, f"no docstring: {silent}"


@pytest.mark.parametrize("package", PUBLIC_PACKAGES)
def test_public_package_offers_something(package: str) -> None:
    assert offered(importlib.import_module(f"graftsdk.{package}"))


@pytest.mark.parametrize("name", graftsdk.__all__)
def test_lazy_name_resolves(name: str) -> None:
    assert getattr(graftsdk, name) is not None
    assert name in dir(graftsdk)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        graftsdk.nothing_of_the_kind  # noqa: B018  reading it is the act under test


def test_checks_find_what_they_look_for() -> None:
    class Silent:
        def speak(self) -> None: ...

    class Loud:
        """It does."""

        def speak(self) -> None:
            """Say it."""

        def to_dict(self) -> None: ...

    assert not described(Silent) and described(Loud)
    assert [name.split(".")[-1] for name in undescribed_methods(Silent)] == ["speak"]
    assert not undescribed_methods(Loud)
