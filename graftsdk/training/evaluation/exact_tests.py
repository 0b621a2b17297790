"""Tests by a fair coin: exact, two-sided, without a normal approximation."""

from __future__ import annotations

from graftsdk.errors import InputError, MissingDependency

__all__ = ["mcnemar", "sign_test"]


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of McNemar's test: images that one head alone decided right are a fair coin's throws.

    To pool labels, add up their counts. 1.0 where the heads never differ.
    """
    return _coin(only_first, only_second)


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p that as many labels would go one way if either were as likely; ties are left out."""
    return _coin(wins, losses)


def _coin(heads: int, tails: int) -> float:
    if min(heads, tails) < 0:
        raise InputError(f"expected counts of 0 and more, found {heads} and {tails}")
    if not heads + tails:
        return 1.0
    try:
        from scipy.stats import binomtest
    except ModuleNotFoundError as error:
        raise MissingDependency(f"evaluation needs {error.name}: pip install 'graftsdk[train]'") from error
    return float(binomtest(heads, heads + tails).pvalue)
