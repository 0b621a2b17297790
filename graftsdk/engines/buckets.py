"""Batch buckets: the few batch sizes that a compiled engine is run at, and how rows are put into them.

A GPU engine runs at the sizes of its optimisation profiles only: each has its own buffers and its own CUDA graph.
Rows that do not fill a bucket are padded; what the padding gives is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graftsdk.engines.record import Profile
from graftsdk.errors import EngineIncompatible, InputError

__all__ = ["Profile", "bucket_sizes", "profile_for", "smallest_bucket"]


def bucket_sizes(graphs: Sequence[Sequence[Profile]], asked: Iterable[int] | None = None) -> tuple[int, ...]:
    """The sizes at which all graphs can run together, ascending: those that some profile is tuned for or ends at.

    Args:
        graphs: the profiles of each graph.
        asked: take these sizes instead of the profiles' own.

    Raises:
        InputError: a size that is asked for is no positive integer, or none is asked for.
        EngineIncompatible: a size that is asked for does not fit, or the graphs have none in common.
    """
    if asked is None:
        own = {size for profiles in graphs for profile in profiles for size in (profile.best, profile.most)}
        fitting = sorted(size for size in own if _fits(size, graphs))
        if not fitting:
            raise EngineIncompatible(
                f"batch: expected engines with a batch size in common, found {_shown(graphs)}; build them again with "
                f"one --batch"
            )
        return tuple(fitting)
    wanted = tuple(asked)
    if not wanted or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in wanted):
        raise InputError(f"buckets: expected positive integers, found {wanted!r:.80}")
    refused = sorted(size for size in set(wanted) if not _fits(size, graphs))
    if refused:
        raise EngineIncompatible(
            f"buckets: expected sizes within the engines' profiles ({_shown(graphs)}), found {refused}; take others or "
            f"build the engines with --batch {','.join(map(str, sorted(set(wanted))))}"
        )
    return tuple(sorted(set(wanted)))


def smallest_bucket(rows: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending `sizes` that holds `rows`; the largest where none does."""
    return next((size for size in sizes if size >= rows), sizes[-1])


def profile_for(profiles: Sequence[Profile], size: int) -> int:
    """Index of the profile to run `size` rows under: one tuned for just that, else the narrowest that admits it."""
    fitting = [index for index, profile in enumerate(profiles) if profile.least <= size <= profile.most]
    return min(
        fitting, key=lambda index: (profiles[index].best != size, profiles[index].most - profiles[index].least, index)
    )


def _fits(size: int, graphs: Sequence[Sequence[Profile]]) -> bool:
    return all(any(profile.least <= size <= profile.most for profile in profiles) for profiles in graphs)


def _shown(graphs: Sequence[Sequence[Profile]]) -> str:
    found = {", ".join(f"{each.least} to {each.most}" for each in profiles) for profiles in graphs}
    return "; ".join(sorted(found)) or "none"
