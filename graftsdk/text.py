"""How names that others chose appear in our lines: whatever they hold, a line stays one line."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["counted", "listed", "one_line", "reason"]


def one_line(text: str) -> str:
    """`text` with everything that has no place in a line (breaks, bidi marks, lone surrogates) replaced."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """As "1 label" and "2 labels"; `many` where the plural is another than `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def listed(names: Iterable[str]) -> str:
    """The names, quoted, as in "'a', 'b'"; "none" where there are none."""
    return ", ".join(repr(name) for name in names) or "none"


def reason(error: OSError | ValueError) -> str:
    """What the system says of a file, without number and path: "No such file or directory"."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
