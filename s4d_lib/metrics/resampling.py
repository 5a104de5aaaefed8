"""values → drawn values     the bootstraps of the book: things, or whole groups of them, drawn with replacement.

Two forms of one draw: how often each thing is in it (`resampling`, for sums as one matrix product) or which things it
holds (`picks`, where order or ranks matter). They use chance differently, so a number keeps the form it was made with.
Groups, such as the people of clips, are drawn whole. Scores of clips alone need neither: `metrics.scores.bootstrap`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from s4d_lib.metrics.scores import Interval


def resampling(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` things occurs in a draw of `count` with replacement: float `[draws count]`."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)


def picks(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Which of `count` things a draw of `count` with replacement takes: int `[draws count]`."""
    return rng.integers(count, size=(draws, count))


def group_sums(values: np.ndarray, groups: ArrayLike) -> np.ndarray:
    """Values `[n …]` and the group of each `[n]` → sums `[groups …]`, groups in sorted order."""
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.zeros((member.max() + 1, *values.shape[1:]))
    np.add.at(sums, member, values)
    return sums


def resampled_sums(values: np.ndarray, groups: ArrayLike, draws: int, seed: int) -> np.ndarray:
    """Sums of values `[n …]` over drawn groups: `[draws …]`."""
    sums = group_sums(values, groups)
    drawn = resampling(len(sums), draws, np.random.default_rng(seed))
    return (drawn @ sums.reshape(len(sums), -1)).reshape(draws, *values.shape[1:])


def paired_bootstrap(values: np.ndarray, groups: ArrayLike | None = None, draws: int = 2000, seed: int = 0,
                     ) -> list[Interval]:
    """Means of the columns of values `[n k]` with 95 % percentile intervals; drawn are rows, or groups of them."""
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    sums, size = resampled_sums(values, groups, draws, seed), resampled_sums(np.ones(len(values)), groups, draws, seed)
    low, high = np.percentile(sums / size[:, None], [2.5, 97.5], axis=0)
    return [Interval(float(m), float(l), float(h)) for m, l, h in zip(values.mean(0), low, high)]
