"""lists → findings     what a fold trains on and tests on: clips and people in both, in several test folds, in none.

Membership is a mask with a bit per fold and split (`datasets.doctor.census.bit_of`), whatever the number of folds.

Derived in chapter 02.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

from s4d_lib.datasets.doctor.census import Census, bit_of
from s4d_lib.datasets.doctor.findings import Tally
from s4d_lib.datasets.list_form import SPLITS


class Leak(NamedTuple):
    """A fold in which one thing is in `split` and another in `other`."""

    fold: int
    split: str
    other: str


def judge_folds(census: Census, folds: int, note: Tally) -> None:
    """Leaks inside a fold, and test folds that overlap or, of a set published in `folds`, leave clips out."""
    present = folds_of(census)
    tested = sorted({listing.fold for listing in census.listings if listing.split == "test"})
    tests = sum(bit_of(fold, "test") for fold in tested)
    for id, mask in census.members.items():
        if leak := leaking(mask, mask, present):
            note(_kind(leak), f"{id}, fold {leak.fold}")
        if (mask & tests).bit_count() > 1:
            note("test folds overlap", f"{id}, {_folds(mask, tested)}")
        elif 1 < folds == len(tested) and not mask & tests:
            note("never tested", id)
    for group, mask in census.groups.items():
        if leak := leaking(mask, mask, present):
            note(f"group {_kind(leak)}", f"{group}, fold {leak.fold}")
        elif (mask & tests).bit_count() > 1:  # lists of test folds alone
            note("group in several test folds", f"{group}, {_folds(mask, tested)}")


def folds_of(census: Census) -> list[int]:
    """The folds that have a list."""
    return sorted({listing.fold for listing in census.listings})


def leaking(a: int, b: int, folds: list[int]) -> Leak | None:
    """The first fold in which one mask is in one split and the other in another; training and test come first."""
    for pairs in (_SCORED, _CHOSEN):
        for fold in folds:
            for one, other in pairs:
                if a & bit_of(fold, one) and b & bit_of(fold, other):
                    return Leak(fold, one, other)
    return None


_SCORED = (("train", "test"), ("test", "train"))
_CHOSEN = tuple(pair for pair in permutations(SPLITS, 2) if "validation" in pair)


def _kind(leak: Leak) -> str:
    return "shared with validation" if "validation" in leak[1:] else "in train and test"


def _folds(mask: int, tested: list[int]) -> str:
    *rest, last = (str(fold) for fold in tested if mask & bit_of(fold, "test"))
    return f"folds {', '.join(rest)} and {last}"
