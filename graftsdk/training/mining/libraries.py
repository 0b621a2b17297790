"""The libraries that mining is built on, asked for before hours of work rather than after them."""

from __future__ import annotations

from importlib import import_module

from graftsdk.errors import MissingDependency

__all__ = ["needed"]


def needed(*modules: str) -> None:
    """Import them. Raises MissingDependency: one is not installed; gives the install line."""
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise MissingDependency(f"mining needs {error.name}: pip install 'graftsdk[train]'") from error
