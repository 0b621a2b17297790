"""The table of bad input: every case, and how many each row promises."""

from __future__ import annotations

from bad_images.arrays import array_cases
from bad_images.case import Case
from bad_images.files import file_cases
from bad_images.persons import person_cases

__all__ = ["CASES", "PROMISED"]

# Row -> how many cases it promises at least.
PROMISED = {
    "not an image": 12,
    "dtype": 14,
    "rank": 5,
    "channels": 10,
    "size": 13,
    "memory": 10,
    "content": 6,
    "persons": 16,
    "masks": 40,
    "BoxMasks": 20,
    "encoded": 282,
}

CASES: tuple[Case, ...] = (*array_cases(), *person_cases(), *file_cases())
