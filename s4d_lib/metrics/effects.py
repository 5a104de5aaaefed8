"""cells → effects     what each factor of the transfer laboratory does, where the sign turns, what goes with what.

    main_effects(levels, values, names)   a two-level design ±1 `[cells factors]`: effects with intervals and aliases
    aliases(levels, names)                what that design cannot tell apart
    fit_surface(x, y, values)             a dense grid over two factors: smooth fit, its zero line and the band of it
    spearman(x, y)                        rank correlation over cells, with interval and p

The values are contrasts of cells (contrasts.py), in points. All of this is exploratory: it chooses cells and draws
maps, the confirmatory contrasts decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s4d_lib.errors import Refused, require
from s4d_lib.metrics.resampling import picks
from s4d_lib.metrics.scores import percentile_interval


@dataclass(frozen=True)
class Effect:
    """What going from a factor's low to its high level adds, averaged over the other factors of the design.

    low, high            95 % t interval over seeds, for these cells
    wide_low, wide_high  95 % t interval that counts what the main effects leave unexplained between cells
                         (interactions among them) as noise; infinite where no degree of freedom is left
    """

    name: str
    value: float
    low: float
    high: float
    wide_low: float
    wide_high: float
    aliases: list[str]


def main_effects(levels: np.ndarray, values: np.ndarray, names: Sequence[str], shared: Sequence | None = None,
                 people_draws: np.ndarray | None = None) -> list[Effect]:
    """A two-level design ±1 `[cells factors]` and a value of every cell and seed `[cells seeds]` → effects, by size.

    shared        a key per cell; cells of one key share runs (the same dfer baseline), so their noise is common
    people_draws  `[cells draws]`, contrasts drawn over="people" with one seed: adds the doubt of the test people

    A seed is a block: what it does to all cells alike leaves the effects alone. The noise is pooled over cells, in
    two strata where runs are shared (between and within keys), as in a split-plot design.
    """
    require("scipy", "lab")
    from scipy.stats import t

    levels, values = np.asarray(levels, dtype=float), np.asarray(values, dtype=float)
    cells, seeds = values.shape
    design = np.column_stack([np.ones(cells), levels])
    if len(levels) != cells or np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(f"{len(levels)} cells and {cells} rows of values; or factors that cannot be told apart")
    weights = 2 * np.linalg.pinv(design)[1:]  # from -1 to +1 is two units
    mean = values.mean(1)
    left, free = mean - design @ np.linalg.pinv(design) @ mean, cells - design.shape[1]
    rest = np.sqrt((left**2).sum() / free) if free else np.inf
    known = aliases(levels, names)
    effects = []
    for name, weight in zip(names, weights):
        parts = _noise(values, weight, np.arange(cells) if shared is None else shared)
        if people_draws is not None:
            parts.append((np.var(weight @ np.asarray(people_draws)), np.inf))
        total = sum(one for one, _ in parts)
        degrees = total**2 / max(sum(one**2 / n for one, n in parts), 1e-300)  # Welch and Satterthwaite
        near = (t.ppf(0.975, degrees) * np.sqrt(total) if total else 0.0) if seeds > 1 else np.inf
        far = t.ppf(0.975, free) * rest * np.linalg.norm(weight) if free else np.inf
        value = weight @ mean
        effects.append(Effect(name, *(float(value + reach) for reach in (0, -near, near, -far, far)), known[name]))
    return sorted(effects, key=lambda one: -abs(one.value))


def _noise(values: np.ndarray, weight: np.ndarray, keys: Sequence) -> list[tuple[float, float]]:
    """Seed noise of `weight @ values.mean(1)`: (variance, degrees of freedom), between keys and within them."""
    group, sizes = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)[1:]
    cells, seeds = values.shape
    if len(set(sizes)) > 1:
        raise ValueError("every shared run must serve the same number of cells")
    together = (group[:, None] == group) / sizes[0]  # [cells cells]: the mean of a cell's key
    left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    parts = []
    for matrix, free in ((together, len(sizes) - 1), (np.eye(cells) - together, cells - len(sizes))):
        degrees = free * (seeds - 1)
        if degrees > 0:
            variance = ((matrix @ left) ** 2).sum() / degrees  # of a cell, as far as this stratum goes
            parts.append((((matrix @ weight) ** 2).sum() * variance / seeds, degrees))
    return parts


def aliases(levels: np.ndarray, names: Sequence[str], order: int = 3) -> dict[str, list[str]]:
    """Design ±1 `[cells factors]` → what cannot be told apart: effect → the other products with ± the same column.

    Keys are the main effects, then the first of every group of two-factor interactions; products of up to `order`.
    """
    from itertools import combinations

    chosen = [one for size in range(1, order + 1) for one in combinations(range(len(names)), size)]
    columns = np.stack([np.asarray(levels, dtype=int)[:, list(one)].prod(1) for one in chosen])
    words, agreement = ["×".join(names[i] for i in one) for one in chosen], columns @ columns.T
    groups: dict[str, list[str]] = {}
    placed: set[int] = set()
    for row, one in enumerate(chosen):
        if len(one) > 2 or (len(one) == 2 and row in placed):
            continue
        same = [other for other in np.flatnonzero(np.abs(agreement[row]) == len(levels)) if other != row]
        groups[words[row]] = [("" if agreement[row, other] > 0 else "-") + words[other] for other in same]
        placed.update(same)
    return groups


@dataclass(frozen=True)
class Surface:
    """A quadratic fit over two factors. Zero lines of `low` and `high` bound the band of the zero line of `value`."""

    x: np.ndarray  # [nx]
    y: np.ndarray  # [ny]
    value: np.ndarray  # [ny nx], points
    low: np.ndarray  # 95 % bootstrap at every place
    high: np.ndarray
    spread: float  # standard deviation of what the fit leaves of the cells
    explained: float  # share of the variance between cells
    log: tuple[bool, bool]  # which of x and y was fitted in logs


def fit_surface(x: np.ndarray, y: np.ndarray, values: np.ndarray, people_draws: np.ndarray | None = None,
                log: tuple[bool, bool] = (True, True), size: int = 41, draws: int = 2000, seed: int = 0) -> Surface:
    """Factors `[cells]` and values `[cells]` or `[cells seeds]` → least squares quadratic, in log factors if `log`.

    The band resamples the residuals of the cells (seed noise and lack of fit), each divided by √(1 - leverage) and
    stretched from the normal to the t quantile of cells - 6 degrees of freedom. It adds the test people where
    `people_draws` `[cells n]` (contrasts drawn over="people" with one seed) is given: one test set serves all cells,
    so its luck moves the whole map.
    """
    require("scipy", "lab")
    from scipy.stats import norm, t

    values = np.asarray(values, dtype=float)
    values = values.mean(1) if values.ndim == 2 else values
    axes = [np.asarray(axis, dtype=float) for axis in (x, y)]
    if len(values) <= 6 or any(len(set(axis)) < 3 or flag and axis.min() <= 0 for axis, flag in zip(axes, log)):
        raise Refused("a quadratic in two factors needs more than six cells, three levels a factor, logs above 0")
    scales = [np.log(axis) if flag else axis for axis, flag in zip(axes, log)]
    ranges = [(axis.min(), axis.max()) for axis in scales]

    def terms(u: np.ndarray, v: np.ndarray) -> np.ndarray:  # each factor from -1 to 1
        u, v = (2 * (axis - low) / (high - low) - 1 for axis, (low, high) in zip((u, v), ranges))
        return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], -1)

    design = terms(*scales)
    solve = np.linalg.pinv(design)
    fitted = design @ solve @ values
    leverage = np.minimum(np.einsum("ij,ji->i", design, solve), 0.99)
    few = t.ppf(0.975, len(values) - 6) / norm.ppf(0.975)
    left = few * (values - fitted) / np.sqrt(1 - leverage)
    rng = np.random.default_rng(seed)
    stack = fitted + rng.choice(left - left.mean(), (draws, len(values)))
    if people_draws is not None:
        people = np.asarray(people_draws).T
        stack = stack + (people - people.mean(0))[rng.integers(len(people), size=draws)]
    axes = [np.linspace(*ends, size) for ends in ranges]
    grid = terms(*np.meshgrid(*axes))  # [ny nx 6]
    low, high = np.percentile(grid @ (solve @ stack.T), [2.5, 97.5], axis=-1)
    rest, total = ((values - fitted) ** 2).sum(), ((values - values.mean()) ** 2).sum()
    return Surface(*(np.exp(axis) if flag else axis for axis, flag in zip(axes, log)), grid @ solve @ values, low, high,
                   float(np.sqrt(rest / (len(values) - 6))), float(1 - rest / total) if total else 1.0, log)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation over cells: 95 % bootstrap over cells, p by permutation."""

    value: float
    low: float
    high: float
    p: float
    count: int


def spearman(x: Sequence[float], y: Sequence[float], draws: int = 10_000, seed: int = 0) -> Correlation:
    """Two measures of the same cells `[cells]` → rank correlation. Cells where either is nan are left out."""
    require("scipy", "lab")
    from scipy.stats import rankdata

    pair = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    pair = pair[:, ~np.isnan(pair).any(0)]
    count = pair.shape[1]
    if count < 4:
        raise Refused(f"{count} cells are too few for a rank correlation with an interval")

    def correlate(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # rows of cells → one number a row
        a, b = (rankdata(one, axis=-1) - (count + 1) / 2 for one in (a, b))
        scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
        return np.divide((a * b).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)

    rng = np.random.default_rng(seed)
    chosen = picks(count, draws, rng)
    value = float(correlate(pair[0][None], pair[1][None])[0])
    if np.isnan(value):  # a measure that is the same everywhere goes with nothing
        return Correlation(value, value, value, 1.0, count)
    drawn = percentile_interval(value, correlate(pair[0][chosen], pair[1][chosen]))
    shuffled = correlate(pair[0][None], rng.permuted(np.tile(pair[1], (draws, 1)), axis=1))
    p = (1 + (np.abs(shuffled) >= abs(value) - 1e-12).sum()) / (1 + draws)
    return Correlation(value, drawn.low, drawn.high, float(p), count)
