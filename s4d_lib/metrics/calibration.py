"""probabilities → confidence     a temperature, and a confidence below which no answer is given.

Both are fitted on validation samples and never on the test fold. A network that is right less often than its largest
probability says is too sure; one number repairs the average (Guo et al. 2017). What remains unsure is better left open
than answered: the threshold is where the answers that are still given are right as often as asked for.
"""

import numpy as np

from s4d_lib.errors import Refused, require

TARGET_ACCURACY = 0.8  # of the answers that are given
LEAST_COVERAGE = 0.1   # a threshold that silences more than nine in ten is no use


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `[… c]` → p^(1/T), normalised; T > 1 makes them less sure, the largest stays the largest.

    For one view this is the softmax of logits / T. It also works on a mean over views, whose logits do not exist.
    """
    if not temperature > 0:
        raise Refused(f"temperature must be positive, got {temperature}")
    tempered = np.log(np.clip(probabilities, 1e-12, 1.0)) / temperature
    tempered = np.exp(tempered - tempered.max(-1, keepdims=True))
    return tempered / tempered.sum(-1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature from 1/20 to 20 with the least negative log likelihood on `[n c]` and labels `[n]`."""
    require("scipy", "lab")
    from scipy.optimize import minimize_scalar

    def surprise(log_temperature: float) -> float:
        tempered = apply_temperature(probabilities, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(tempered[np.arange(len(labels)), labels], 1e-12, 1.0)).mean())

    found = minimize_scalar(surprise, bounds=(-np.log(20.0), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def fit_abstention(probabilities: np.ndarray, labels: np.ndarray, target: float = TARGET_ACCURACY) -> float:
    """The lowest confidence from which on at least `target` of the answers are right; 0 answers always.

    Where no threshold reaches the target while a tenth of the samples still get an answer, the one with the best
    accuracy among those is returned.
    """
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    accuracy = accuracy[np.append(np.diff(confidence[order]) < 0, True)]  # ties are answered together
    levels = np.unique(confidence)[::-1]
    enough = np.array([(confidence >= level).mean() >= LEAST_COVERAGE for level in levels])
    reaching = np.flatnonzero((accuracy >= target) & enough)
    best = reaching[-1] if len(reaching) else np.flatnonzero(enough)[np.argmax(accuracy[enough])]
    return 0.0 if best == len(levels) - 1 else float(levels[best])


def selective(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """How many samples get an answer at a threshold, and how many of these answers are right; shares in [0, 1]."""
    given = probabilities.max(-1) >= threshold
    right = probabilities.argmax(-1) == labels
    return {"coverage": float(given.mean()), "accuracy": float(right[given].mean()) if given.any() else 0.0,
            "accuracy_without": float(right.mean())}
