"""How names that others chose appear in our lines: whatever they hold, a line stays one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["counted", "file_names", "listed", "one_line", "public_name", "reason"]

# Queries, fragments, and how players and librtmp append options.
_AFTER_PATH = re.compile(r"([?#|;&\s]).*", re.DOTALL)
_ASSIGNED = re.compile(r"[^/]*=.*", re.DOTALL)


def one_line(text: str) -> str:
    """`text` with everything that has no place in a line (breaks, bidi marks, lone surrogates) replaced."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """As "1 label" and "2 labels"; `many` where the plural is another than `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def listed(names: Iterable[str]) -> str:
    """The names, quoted, as in "'a', 'b'"; "none" where there are none."""
    return ", ".join(repr(name) for name in names) or "none"


def file_names(labels: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """A name for each label without an ending: its letters and digits, a number where two would be one.

    Args:
        taken: names that others have.
    """
    names = list(taken)
    known = len(names)
    for label in labels:
        slug = re.sub(r"\W+", "-", label.casefold()).strip("-")[:40] or "label"
        name, number = slug, 2
        while name in names:
            name, number = f"{slug}-{number}", number + 1
        names.append(name)
    return names[known:]


def reason(error: OSError | ValueError) -> str:
    """What the system says of a file, without number and path: "No such file or directory"."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def public_name(url: str) -> str:
    """A URL with nothing secret in it, for logs and results; what is none comes back as it is.

    Scheme, host and path stay. Everything before the last "@" goes, the host too where that "@" may be of a path or of
    a password with a "/"; all of it where it may be of a query. Queries, and whatever else may follow a path, become
    "..."; so does a part of the path with a "=" in it, where some cameras want user and password.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    before, _, after = rest.rpartition("@")
    if _AFTER_PATH.search(before):
        shown = "..."
    else:
        shown = ("...@" if "/" in before else "") + _ASSIGNED.sub("...", _AFTER_PATH.sub(r"\1...", after))
    return f"{scheme.rpartition('@')[2]}://{shown}"
