"""readings → correlation     how far what is said of single frames goes with what is said of the clip (SFER ↔ DFER).

The paper announces a "systematic correlation analysis" of the two tasks (arXiv 2409.06154v2, abstract), whose method is
in no source that we could read; the released code holds none. Ours has four parts that take plain arrays, three here:

    agreement        the static head on frames and the dynamic head on clips: Cohen's kappa, over all and class by class
    transfer_matrix  one class left out of the stills → change of every class's recall on clips
    unit_evidence    the static head's probability over time beside the intensity of action units
    levels.py        per-class recalls of both tasks over seeds and settings, correlated level by level

`analysis.read_twice` makes the arrays from a model and samples, drawn or real; only the last part needs a truth
about action units. Intervals resample people (and seeds where there are several), at 95 %. Derived in chapter 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4d_lib.analysis.levels import orders_of
from s4d_lib.analysis.two_readings import Tracks
from s4d_lib.errors import require
from s4d_lib.metrics.resampling import resampled_sums, resampling
from s4d_lib.metrics.scores import Interval, over_seeds, percentile_interval

# --- 1: agreement ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """observed, chance: percent. The kappas are 1 for perfect agreement and 0 for what the answers' shares alone give.

    observed      frames that name the clip's answer, every clip counting once
    chance        the same if frames and clips had the same shares of answers and nothing else in common
    kappa         (observed − chance) / (1 − chance), Cohen 1960
    beyond_label  the same, chance being how often frames name the answer of other people's clips with the same label:
                  agreement that two readers, each right as often as these and erring apart, would not have
    per_class     kappa of one class against the rest
    """

    observed: Interval
    chance: Interval
    kappa: Interval
    beyond_label: Interval | None
    per_class: dict[str, Interval]


def agreement(static: Tracks, dynamic: np.ndarray, classes: Sequence[str], people: np.ndarray,
              labels: np.ndarray | None = None, draws: int = 2000, seed: int = 0) -> Agreement:
    """Static probabilities n × [t c] beside dynamic ones [n c]; intervals over people, for this pair of networks.

    Labels [n] below 0 take no part in `beyond_label`.
    """
    c = len(classes)
    tables = answer_tables([p.argmax(1) for p in static], np.asarray(dynamic).argmax(1), c)
    stack = resampled_sums(tables, people, draws, seed)
    point, beyond = tables.sum(0), None
    if labels is not None:
        known = labels >= 0
        beyond = kappa_beyond_label(tables[known], labels[known], people[known], draws, seed)
    single, singles = cohen_kappa(against_rest(point)), cohen_kappa(against_rest(stack))
    return Agreement(
        percentile_interval(100 * _observed(point), 100 * _observed(stack)),
        percentile_interval(100 * _chance(point), 100 * _chance(stack)),
        percentile_interval(cohen_kappa(point), cohen_kappa(stack)), beyond,
        {name: percentile_interval(single[k], singles[:, k]) for k, name in enumerate(classes)})


def answer_tables(static: Sequence[np.ndarray], dynamic: np.ndarray, classes: int) -> np.ndarray:
    """Answers on frames n × [t] and on clips [n] → [n c c]: share of the frames (row), at its answer (column)."""
    tables = np.zeros((len(static), classes, classes))
    for table, frames, answer in zip(tables, static, dynamic):
        table[:, answer] = np.bincount(frames, minlength=classes) / len(frames)
    return tables


def _observed(tables: np.ndarray) -> np.ndarray:
    return np.trace(tables, axis1=-2, axis2=-1) / tables.sum((-2, -1))


def _chance(tables: np.ndarray) -> np.ndarray:
    return (tables.sum(-1) * tables.sum(-2)).sum(-1) / tables.sum((-2, -1)) ** 2


def cohen_kappa(tables: np.ndarray) -> np.ndarray:
    """Tables of two readers' answers [… c c] → kappa […]; nan where both always say the same one thing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_observed(tables) - _chance(tables)) / (1 - _chance(tables))


def against_rest(tables: np.ndarray) -> np.ndarray:
    """Tables [… c c] → [… c 2 2], each class against all others."""
    both = np.diagonal(tables, axis1=-2, axis2=-1)
    row, column, total = tables.sum(-1), tables.sum(-2), tables.sum((-2, -1))[..., None]
    cells = np.stack([both, row - both, column - both, total - row - column + both], -1)
    return cells.reshape(*both.shape, 2, 2)


def kappa_beyond_label(tables: np.ndarray, labels: np.ndarray, people: np.ndarray, draws: int = 2000,
                       seed: int = 0) -> Interval:
    """Tables [n c c] → kappa whose chance is the agreement of frames and clips of two people with one label.

    Pairs of one person with itself are taken out, also where a draw holds that person twice: they would make chance
    look larger. A label that one person alone shows has no such pair and is left out.
    """
    person, c = np.unique(people, return_inverse=True)[1], tables.shape[-1]
    split = np.zeros((person.max() + 1, c, c, c))  # [g y c c]
    np.add.at(split, (person, labels), tables)
    frames, clips, size = split.sum(-1), split.sum(-2), split.sum((-2, -1))  # [g y c], [g y c], [g y]
    same, within = np.trace(split, axis1=-2, axis2=-1), (frames * clips).sum(-1)

    def kappa(weights: np.ndarray) -> np.ndarray:  # [n g], how often each person is there
        a, b = (np.tensordot(weights, part, 1) for part in (frames, clips))
        pairs = (weights @ size) ** 2 - weights**2 @ size**2
        there = pairs > 0.5
        rate = np.divide((a * b).sum(-1) - weights**2 @ within, pairs, out=np.zeros(pairs.shape), where=there)
        count = np.where(there, weights @ size, 0)
        with np.errstate(invalid="ignore", divide="ignore"):  # nan where chance alone is perfect
            chance = (rate * count).sum(-1) / count.sum(-1)
            return (np.where(there, weights @ same, 0).sum(-1) / count.sum(-1) - chance) / (1 - chance)

    drawn = resampling(len(split), draws, np.random.default_rng(seed))
    return percentile_interval(kappa(np.ones((1, len(split))))[0], kappa(drawn))


# --- 2: transfer from one emotion to another -------------------------------------------------------------------------


@dataclass(frozen=True)
class TransferMatrix:
    """Points of recall on clips that change when one class is left out of the stills: row: left out, column: recall of.

    value, low, high  [rows c]; the summaries are means over classes on themselves (`own`) and over all other pairs
    over_seeds        t interval of own_minus_others with the test clips fixed: both must exclude 0 to decide anything
    """

    rows: tuple[str, ...]
    classes: tuple[str, ...]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own: Interval
    others: Interval
    own_minus_others: Interval
    over_seeds: Interval


def transfer_matrix(left_out: Mapping[str, np.ndarray], baseline: np.ndarray, labels: np.ndarray, people: np.ndarray,
                    classes: Sequence[str], draws: int = 2000, seed: int = 0) -> TransferMatrix:
    """Answers [s n] of s seeds on n test clips, per class left out and with all of them, seeds paired by position.

    Crossed bootstrap over seeds and people (`metrics/contrasts.py`), with the same draws for every cell of the matrix.
    Classes without a test clip are left out of the columns.
    """
    from s4d_lib.metrics.contrasts import recall_differences

    changes = {name: recall_differences(answers, baseline, labels, people, classes, draws, seed)
               for name, answers in left_out.items()}
    columns = tuple(next(iter(changes.values())))
    cells = [[row[column] for column in columns] for row in changes.values()]
    bounds = np.array([[(cell.value, cell.low, cell.high) for cell in row] for row in cells])  # [rows c 3]
    value, low, high = bounds.transpose(2, 0, 1)
    stack = np.array([[cell.draws for cell in row] for row in cells])   # [rows c draws]
    seeds = np.array([[cell.values for cell in row] for row in cells])  # [rows c seeds]
    own = np.array([[row == column for column in columns] for row in changes])
    drawn, point = (stack[own].mean(0), stack[~own].mean(0)), (value[own].mean(), value[~own].mean())
    return TransferMatrix(tuple(changes), columns, value, low, high, percentile_interval(point[0], drawn[0]),
                          percentile_interval(point[1], drawn[1]),
                          percentile_interval(point[0] - point[1], drawn[0] - drawn[1]),
                          over_seeds(list(seeds[own].mean(0) - seeds[~own].mean(0))))


def shared_units(classes: Sequence[str]) -> np.ndarray:
    """How alike two drawn prototypes are: cosine of their expected action units [c c]; nan for Neutral."""
    from s4d_lib.synthetic_faces.motion import ALWAYS, CHANCE, EMOTIONS, SOMETIMES

    rows = (ALWAYS + CHANCE * SOMETIMES)[[EMOTIONS.index(name) for name in classes]]
    size = np.linalg.norm(rows, axis=1)
    with np.errstate(invalid="ignore"):
        return rows @ rows.T / np.outer(size, size)


def pairs_correlation(matrix: np.ndarray, likeness: np.ndarray) -> dict[str, float]:
    """Pearson r of two square matrices [c c] over pairs of different classes, and its permutation p (Mantel 1967).

    Pairs share classes and are no independent samples, so whole classes are permuted. Classes that are nan in
    `likeness` are left out.
    """
    kept = ~np.isnan(np.diagonal(likeness))
    matrix, likeness = matrix[kept][:, kept], likeness[kept][:, kept]
    apart = ~np.eye(len(matrix), dtype=bool)
    x, y = matrix - matrix[apart].mean(), likeness[apart] - likeness[apart].mean()
    values = np.array([x[order][:, order][apart] @ y for order in orders_of(len(x))])
    return {"r": float(values[0] / np.sqrt((x[apart] @ x[apart]) * (y @ y))), "classes": int(kept.sum()),
            "p": float((np.abs(values) >= abs(values[0]) * (1 - 1e-9)).mean())}


# --- 3: evidence over time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitEvidence:
    """Mean over clips of the rank correlation in time: value, low, high [c u]; `clips` [u] in which a unit moves."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clips: np.ndarray


def unit_evidence(evidence: Tracks, units: Tracks, people: np.ndarray, least: float = 0.1, draws: int = 2000,
                  seed: int = 0) -> UnitEvidence:
    """Evidence n × [t c] and action units n × [t u] on the same frames → Spearman within each clip, mean over clips.

    Within a clip the person, the light and the resting face stay the same, so only what moves can correlate. A unit
    counts in the clips where it moves by at least `least` (1 is clearly marked). nan where it never does.
    """
    values = np.stack([rank_correlation(p, u) for p, u in zip(evidence, units)])  # [n c u]
    still = np.stack([np.ptp(u, axis=0) < least for u in units])  # [n u]
    values[np.broadcast_to(still[:, None], values.shape)] = np.nan
    known = ~np.isnan(values)
    stack = resampled_sums(np.stack([np.nan_to_num(values), known], 1), people, draws, seed)  # [draws 2 c u]
    with np.errstate(invalid="ignore", divide="ignore"):
        point = np.nan_to_num(values).sum(0) / known.sum(0)
        low, high = np.nanpercentile(np.where(known.any(0), stack[:, 0] / stack[:, 1], 0), [2.5, 97.5], axis=0)
    nowhere = ~known.any(0)
    low[nowhere] = high[nowhere] = np.nan
    return UnitEvidence(point, low, high, (~still).sum(0))


def rank_correlation(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Spearman's rho of every column of p [t c] with every column of u [t u]; nan where one does not move."""
    require("scipy", "lab")
    from scipy.stats import rankdata

    p, u = ((ranks := rankdata(values, axis=0)) - ranks.mean(0) for values in (p, u))
    with np.errstate(invalid="ignore", divide="ignore"):
        return p.T @ u / np.sqrt(np.outer((p * p).sum(0), (u * u).sum(0)))


def foreign_tracks(tracks: Tracks, labels: np.ndarray, people: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """A control: for every clip the track [t u] of another person's clip with the same label, stretched to its length.

    What still correlates is the common course of such clips (rise, apex, fall), not this face. A clip whose label
    nobody else has keeps a track of any other person.
    """
    rng, out = np.random.default_rng(seed), []
    for own, label, person in zip(tracks, labels, people):
        others = np.flatnonzero((labels == label) & (people != person))
        others = others if len(others) else np.flatnonzero(people != person)
        other = tracks[rng.choice(others)]
        at = np.linspace(0, len(other) - 1, len(own))
        out.append(np.stack([np.interp(at, np.arange(len(other)), column) for column in other.T], axis=1))
    return out
