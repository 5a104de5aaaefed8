"""Drawn values against slow loops over the same draws: published intervals hang on how a generator is used."""

import numpy as np
import pytest

from s4d_lib.metrics.resampling import group_sums, paired_bootstrap, picks, resampled_sums, resampling
from s4d_lib.metrics.scores import percentile_interval


def test_counts_are_a_multinomial_draw_and_sum_to_the_number_of_things():
    found = resampling(5, 40, np.random.default_rng(3))
    assert np.array_equal(found, np.random.default_rng(3).multinomial(5, np.full(5, 0.2), size=40))
    assert found.dtype == float and (found.sum(1) == 5).all()


def test_picks_are_places():
    found = picks(5, 40, np.random.default_rng(3))
    assert np.array_equal(found, np.random.default_rng(3).integers(5, size=(40, 5)))
    assert set(found.ravel().tolist()) == {0, 1, 2, 3, 4}


def test_groups_are_summed_in_sorted_order_whatever_they_are_called():
    values = np.arange(12.0).reshape(4, 3)
    found = group_sums(values, np.array(["b", "a", "b", "a"]))
    assert np.array_equal(found, [values[1] + values[3], values[0] + values[2]])


def test_a_drawn_sum_takes_every_group_as_often_as_it_was_drawn():
    rng = np.random.default_rng(0)
    values, people = rng.normal(size=(20, 2, 3)), rng.integers(0, 6, 20)
    found = resampled_sums(values, people, draws=15, seed=4)
    count = len(set(people.tolist()))
    times = np.random.default_rng(4).multinomial(count, np.full(count, 1 / count), size=15)
    for drawn, row in zip(found, times):
        by_hand = sum(n * values[people == person].sum(0) for n, person in zip(row, np.unique(people)))
        np.testing.assert_allclose(drawn, by_hand, atol=1e-12)


@pytest.mark.parametrize("groups", [None, np.array([5, 5, 2, 2, 2, 9, 9, 0, 0, 0, 0, 1])])
def test_the_paired_bootstrap_gives_the_numbers_that_the_records_hold(groups):
    """Bit for bit the bootstrap of the committed records: means of drawn groups, ends at 2.5 and 97.5 percent."""
    values = np.random.default_rng(1).normal(size=(12, 3))
    kind = np.arange(12) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = np.bincount(kind).astype(np.float64)
    sums = np.stack([np.bincount(kind, column) for column in values.T], axis=1)
    times = np.random.default_rng(8).multinomial(len(size), np.full(len(size), 1 / len(size)), size=300)
    low, high = np.percentile((times @ sums) / (times @ size)[:, None], [2.5, 97.5], axis=0)
    found = paired_bootstrap(values, groups, draws=300, seed=8)
    assert [(one.value, one.low, one.high) for one in found] == list(zip(values.mean(0), low, high))


def test_bootstrap_resamples_whole_groups():
    values = np.repeat(np.array([[0.0, 1.0], [10.0, 1.0]]), 50, axis=0)  # two people, fifty clips each
    clips, people = paired_bootstrap(values)[0], paired_bootstrap(values, np.repeat(np.arange(2), 50))[0]
    assert clips.value == people.value == 5
    assert (people.low, people.high) == (0, 10), "two people are two observations"
    standard = 5 / 10 * 1.96  # a coin of ±5, a hundred clips
    assert clips.high - clips.value == pytest.approx(standard, rel=0.15)
    assert paired_bootstrap(values)[1].low == paired_bootstrap(values)[1].high == 1


def test_an_interval_of_drawn_values_leaves_out_draws_without_one():
    drawn = np.array([np.nan, *np.arange(101.0), np.nan])
    found = percentile_interval(50, drawn)
    assert (found.value, found.low, found.high) == (50, 2.5, 97.5)
    assert np.isnan(percentile_interval(1, np.full(3, np.nan)).low)
