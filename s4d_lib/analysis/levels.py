"""recalls → levels     per-class recalls of two tasks over many runs, correlated level by level.

Do networks that know a class well on stills know it well in motion? Pooled over runs the question has no answer: easy
classes, good settings and lucky seeds mix in one number. Derived in chapter 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np

from s4d_lib.metrics.resampling import picks
from s4d_lib.metrics.scores import percentile_interval

LEVELS = ("classes", "settings", "class in setting", "seeds", "class in seed")


def recall_levels(still: np.ndarray, clip: np.ndarray, settings: Sequence, seeds: Sequence | None = None,
                  draws: int = 5000, seed: int = 0) -> dict[str, dict]:
    """Recalls [r c] of the two tasks in the same r runs → correlation at each level, and pooled over all of them.

    Each recall is a sum of five deviations: classes (some are easier everywhere), settings (some runs are better at
    everything), class in setting (what a setting does to one class beyond both), and the last two again for seeds
    within a setting. Per level: `r` (Pearson), `n` independent units, `p` of a permutation test (units of one task
    dealt anew), and from 5 units on, but for classes, `low`, `high` from resampling units, which with ten units covers
    some 5 to 10 points less than 95 %: decide by p. `r` is None where a level does not vary.

    settings  [r]  what is compared; settings should not share training data, or their number flatters
    seeds     [r]  runs of one seed in several settings share weights and labelled clips, so they are one unit; every
                   setting needs the same seeds then. None: every run stands for itself, and is dealt in its setting
    With equally many runs a setting the cross products of the levels add up to the pooled one.
    """
    still, clip = np.asarray(still, float), np.asarray(clip, float)
    if still.shape != clip.shape or still.ndim != 2 or len(settings) != len(still):
        raise ValueError(f"recalls of stills {still.shape} and clips {clip.shape} must be [runs classes] of the same "
                         f"{len(settings)} runs")
    setting = _numbered(settings)
    together = None if seeds is None else _by_seed(setting, _numbered(seeds))
    parts = [deviations(values, setting) for values in (still, clip)]
    correlations = {"pooled": {"r": _pearson(still - still.mean(), clip - clip.mean()), "n": still.size}}
    for level in LEVELS:
        x, y = (part[level].T if level == "classes" else part[level] for part in parts)  # [units …]
        groups = np.zeros(len(x), int)
        if "seed" in level and together is not None:
            x, y = (values[together].reshape(len(together), -1) for values in (x, y))
            groups = np.zeros(len(x), int)
        elif "seed" in level:
            groups = setting
        row = correlations[level] = {"r": _pearson(x, y), "n": len(x)}
        if row["r"] is None:
            continue
        row["p"] = _permutation_p(x @ y.T, groups, draws, seed)
        if level != "classes" and len(x) >= 5:
            taken = picks(len(x), draws, np.random.default_rng(seed))
            xx, yy, xy = ((a * b).sum(1)[taken].sum(1) for a, b in ((x, x), (y, y), (x, y)))
            drawn = percentile_interval(row["r"], xy / np.sqrt(np.maximum(xx * yy, 1e-300)))
            row |= {"low": drawn.low, "high": drawn.high}
    return correlations


def deviations(values: np.ndarray, setting: np.ndarray) -> dict[str, np.ndarray]:
    """Recalls [r c] and the number [r] of each run's setting → level → deviations [units c]; c is 1 for whole runs."""
    means = np.stack([values[setting == s].mean(0) for s in np.unique(setting)])  # [settings c]
    rest = values - means[np.unique(setting, return_inverse=True)[1]]
    classes = means.mean(0, keepdims=True) - means.mean()
    whole, whole_rest = means.mean(1, keepdims=True) - means.mean(), rest.mean(1, keepdims=True)
    return {"classes": classes, "settings": whole, "class in setting": means - means.mean() - classes - whole,
            "seeds": whole_rest, "class in seed": rest - whole_rest}


def _numbered(names: Sequence) -> np.ndarray:
    return np.unique(np.array([str(name) for name in names]), return_inverse=True)[1]


def _by_seed(setting: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Places of runs [seeds settings]; ValueError where a setting lacks one."""
    shape = seed.max() + 1, setting.max() + 1
    if len(set(zip(seed.tolist(), setting.tolist()))) != len(seed) or len(seed) != shape[0] * shape[1]:
        raise ValueError(f"{len(seed)} runs are not {shape[0]} seeds in each of {shape[1]} settings; leave out what is "
                         "not everywhere, or give no seeds")
    return np.lexsort((setting, seed)).reshape(shape)


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size > 1e-9 else None


@cache
def orders_of(n: int) -> np.ndarray:
    """All orders of up to 7 things, 5000 random ones of more; the first is the true one."""
    if n <= 7:
        return np.array(list(permutations(range(n))))
    rng = np.random.default_rng(0)
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(4_999))])


def _permutation_p(products: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> float:
    """Two-sided: share of pairings within groups [n] whose sum of products [n n] is as far from 0 as the true one."""
    n = len(products)
    if (groups == groups[0]).all() and n <= 7:
        orders = orders_of(n)
    else:
        orders = np.empty((draws + 1, n), int)
        keys = np.random.default_rng(seed).random((draws, n)) + groups  # sorted: group by group, at random within
        orders[0], orders[1:, np.argsort(groups, kind="stable")] = np.arange(n), np.argsort(keys, axis=1)
    strength = np.abs(products[np.arange(n), orders].sum(1))
    return float((strength >= strength[0] * (1 - 1e-9)).mean())
