"""metrics/calibration.py: temperature against PyTorch's softmax, thresholds against a search by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4d_lib.metrics.calibration import apply_temperature, fit_abstention, fit_temperature, selective


def overconfident(n: int = 4000, classes: int = 5, sharpness: float = 3.0, seed: int = 0):
    """Labels drawn from softmax(z), reported as softmax(sharpness · z): the right temperature is the sharpness."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes))
    p = torch.from_numpy(z).softmax(-1).numpy()
    labels = np.array([rng.choice(classes, p=row) for row in p])
    return torch.from_numpy(sharpness * z).softmax(-1).numpy(), labels


def test_on_one_view_it_is_the_softmax_of_divided_logits():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    for temperature in (0.5, 1.0, 2.5):
        np.testing.assert_allclose(apply_temperature(logits.softmax(-1).numpy(), temperature),
                                   (logits / temperature).softmax(-1).numpy(), rtol=1e-9)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        apply_temperature(np.ones((1, 2)) / 2, 0)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(sharpness):
    p, labels = overconfident(sharpness=sharpness)
    assert fit_temperature(p, labels) == pytest.approx(sharpness, rel=0.12)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 999), n=st.integers(10, 60), target=st.sampled_from([0.5, 0.8, 0.95]))
def test_the_threshold_is_the_lowest_that_keeps_its_promise(seed, n, target):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), size=n).round(2)  # rounding makes ties
    labels = rng.integers(0, 3, size=n)
    found = fit_abstention(p, labels, target)
    tried = {0.0: selective(p, labels, 0.0)} | {c: selective(p, labels, c) for c in np.unique(p.max(-1))}
    keeping = [c for c, s in tried.items() if s["accuracy"] >= target and s["coverage"] >= 0.1]
    if keeping:
        assert selective(p, labels, found) == tried[min(keeping)]
    else:
        best = max(s["accuracy"] for s in tried.values() if s["coverage"] >= 0.1)
        assert selective(p, labels, found)["accuracy"] == best


def test_a_perfect_network_always_answers_and_a_sure_but_wrong_one_is_reported():
    p = np.eye(3)[[0, 1, 2, 1]] * 0.9 + 0.1 / 3
    assert fit_abstention(p, np.array([0, 1, 2, 1])) == 0.0
    assert selective(p, np.array([1, 2, 0, 0]), 0.5) == {"coverage": 1.0, "accuracy": 0.0, "accuracy_without": 0.0}
    assert selective(p, np.array([0, 1, 2, 1]), 0.99) == {"coverage": 0.0, "accuracy": 0.0, "accuracy_without": 1.0}
