"""logits → numbers     WAR, UAR, per-class recall, confusion, calibration, intervals over clips and over seeds.

WAR (weighted average recall) is accuracy; UAR (unweighted average recall) is the mean of the per-class recalls
(released finetune/s4d/engine_for_finetuning.py:193). A class that never occurs in the labels has no recall: it is
left out of the mean and named in `Scores.absent`, where the released code returns nan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from s4d_lib.errors import Refused, require


@dataclass(frozen=True)
class Interval:
    """A statistic with a two-sided interval, both in percent."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """What one model scored on one set of samples. Percentages; `calibration_error` is a probability gap in [0, 1]."""

    count: int
    war: Interval
    uar: Interval
    recall: dict[str, float]
    absent: list[str]
    confusion: list[list[int]]
    calibration_error: float

    def as_dict(self) -> dict:
        return asdict(self)


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Labels and predictions `[n]` in 0 … classes-1 → counts `[classes classes]`, rows are the labels."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    for name, values in (("label", labels), ("prediction", predictions)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            bad = values[(values < 0) | (values >= classes)][0]
            raise Refused(f"{name} {bad} is outside 0 … {classes - 1}; check the label schema of the data set")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def war(confusion: np.ndarray) -> float:
    """Weighted average recall (accuracy) in percent of a confusion matrix, or of a stack `[… c c]` of them."""
    return 100.0 * np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def uar(confusion: np.ndarray) -> float:
    """Unweighted average recall in percent over the classes that occur in the labels."""
    support = confusion.sum(-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = np.divide(hits, support, out=np.zeros(support.shape), where=support > 0)
    return 100.0 * recall.sum(-1) / np.maximum((support > 0).sum(-1), 1)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins (Guo et al. 2017), in [0, 1]."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[bin_of == b].mean() - correct[bin_of == b].mean()) * (bin_of == b).mean()
        for b in range(bins)
        if (bin_of == b).any()
    ]
    return float(sum(gaps))


def bootstrap(
    labels: np.ndarray, predictions: np.ndarray, classes: int, draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95 % percentile intervals of WAR and UAR over a resampling of the clips.

    They say how far the score could move with another test set of the same kind, not with another training seed.
    """
    point = confusion_matrix(labels, predictions, classes)
    rng = np.random.default_rng(seed)
    # A resampled set of clips is a multinomial draw over the confusion cells: no need to touch single clips.
    stack = rng.multinomial(len(labels), point.ravel() / point.sum(), size=draws).reshape(draws, classes, classes)
    return {name: percentile_interval(statistic(point), statistic(stack))
            for name, statistic in (("war", war), ("uar", uar))}


def percentile_interval(value: float, drawn: np.ndarray) -> Interval:
    """A value with the 95 % percentile interval of its drawn values `[draws]`; draws without a value are left out."""
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def score(probabilities: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Scores:
    """Class probabilities `[n classes]` and labels `[n]` → every number the book reports about them."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if len(labels) == 0:
        raise Refused("there is nothing to score: the set of labels is empty")
    if probabilities.shape != (len(labels), len(classes)):
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, expected ({len(labels)}, {len(classes)}): "
            "one row a sample, one column a class"
        )
    predictions = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predictions, len(classes))
    intervals = bootstrap(labels, predictions, len(classes))
    support = confusion.sum(1)
    return Scores(
        count=len(labels),
        war=intervals["war"],
        uar=intervals["uar"],
        recall={name: 100.0 * float(confusion[i, i] / support[i]) for i, name in enumerate(classes) if support[i]},
        absent=[name for i, name in enumerate(classes) if not support[i]],
        confusion=confusion.tolist(),
        calibration_error=expected_calibration_error(probabilities, labels),
    )


def over_seeds(values: list[float]) -> Interval:
    """Mean of one number a seed with its 95 % Student-t interval; a single seed has an infinite one."""
    require("scipy", "lab")
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("-inf"), float("inf"))
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def told(found: Mapping) -> str:
    """The words of a value with its interval: `61.2 [59.8, 62.6]`; where `low` is None `61.2 (one run)`, or `why`."""
    if found["low"] is None:
        return f"{found['value']:.2f} ({found.get('why', 'one run')})"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
