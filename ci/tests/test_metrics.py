"""WAR, UAR, confusion and intervals, against scikit-learn and against known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, recall_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from s4d_lib.metrics.scores import bootstrap, confusion_matrix, expected_calibration_error, over_seeds, score, uar, war

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs)
def test_agrees_with_scikit_learn(found):
    labels, predictions = np.array(found).T
    matrix = confusion_matrix(labels, predictions, 5)
    assert np.array_equal(matrix, sklearn_confusion(labels, predictions, labels=range(5)))
    assert war(matrix) == pytest.approx(100 * accuracy_score(labels, predictions))
    present = sorted(set(labels.tolist()))
    expected = 100 * recall_score(labels, predictions, labels=present, average="macro", zero_division=0)
    assert uar(matrix) == pytest.approx(expected)


@given(pairs, st.permutations(range(5)))
def test_renaming_the_classes_changes_no_score(found, names):
    labels, predictions = np.array(found).T
    renamed = np.array(names)
    one = confusion_matrix(labels, predictions, 5)
    other = confusion_matrix(renamed[labels], renamed[predictions], 5)
    assert war(one) == pytest.approx(war(other)) and uar(one) == pytest.approx(uar(other))


def test_majority_class_looks_good_on_war_and_bad_on_uar():
    labels = np.array([0] * 6 + [1] * 2 + [2] * 2)
    matrix = confusion_matrix(labels, np.zeros(10, int), 3)
    assert war(matrix) == 60.0
    assert uar(matrix) == pytest.approx(100 / 3)


def test_absent_class_is_named_and_left_out_of_uar():
    probabilities = np.eye(3)[[0, 0, 1, 2]]
    found = score(probabilities, np.array([0, 0, 1, 1]), ("a", "b", "c"))
    assert found.absent == ["c"]
    assert found.uar.value == pytest.approx(75.0)  # (1 + 1/2) / 2: the mean over three would be 50
    assert set(found.recall) == {"a", "b"}


def test_interval_covers_the_score_and_narrows_with_more_clips():
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 800):
        labels = rng.integers(0, 3, n)
        predictions = np.where(rng.random(n) < 0.7, labels, (labels + 1) % 3)
        interval = bootstrap(labels, predictions, 3)["war"]
        assert interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2  # 16 times the clips: about a quarter of the width


def test_interval_has_the_binomial_width():
    labels = np.zeros(400, int)
    predictions = np.array([0] * 300 + [1] * 100)
    interval = bootstrap(labels, predictions, 2, draws=4000)["war"]
    assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(100 * np.sqrt(0.75 * 0.25 / 400), rel=0.08)


def test_calibration_error_of_a_boastful_model():
    labels = np.array([0, 1] * 50)
    sure = np.tile([1.0, 0.0], (100, 1))  # always certain, right half the time
    assert expected_calibration_error(sure, labels) == pytest.approx(0.5)
    modest = np.tile([0.501, 0.499], (100, 1))
    assert expected_calibration_error(modest, labels) < 0.01


def test_over_seeds_is_the_t_interval():
    interval = over_seeds([1.0, 2.0, 3.0])
    assert interval.value == 2.0
    assert interval.high - 2.0 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)  # t(0.975, 2) = 4.3027, sd = 1
    assert over_seeds([5.0]).high == float("inf")


@pytest.mark.parametrize(
    "probabilities, labels, words",
    [
        (np.zeros((0, 3)), [], "nothing to score"),
        (np.eye(3), [0, 1], "shape"),
        (np.eye(3), [0, 1, 3], "label 3 is outside 0 … 2"),
        (np.eye(3), [0, 1, -1], "label -1"),
    ],
)
def test_bad_input_is_named(probabilities, labels, words):
    with pytest.raises(ValueError, match=words):
        score(probabilities, np.array(labels, int), ("a", "b", "c"))
