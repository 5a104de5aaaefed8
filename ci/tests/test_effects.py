"""Effects over cells: planted effects, known aliases, drawn truths, and controls that ignore what runs share."""

import itertools

import numpy as np
import pytest
from scipy import stats

from s4d_lib.metrics.effects import aliases, fit_surface, main_effects, spearman

NAMES = ["clips", "sequence", "init", "ratio", "noise", "shift", "weight", "schema"]


def screening():
    """The protocol's 2^(8-4) design of resolution IV and, per cell, which dfer baseline serves it."""
    c, s, i, r = np.array(list(itertools.product((-1, 1), repeat=4))).T
    levels = np.column_stack([c, s, i, r, s * i * r, c * i * r, c * s * i, c * s * r])
    return levels, 4 * (c > 0) + 2 * (s > 0) + (i > 0)


def grid(steps=5):
    x, y = (axis.ravel() for axis in np.meshgrid(np.geomspace(100, 1600, steps), np.geomspace(0.05, 0.8, steps)))
    return x, y


# --- a two-level design ----------------------------------------------------------------------------------------------


def test_planted_effects_are_found_and_sorted():
    levels, _ = screening()
    planted = np.array([5.0, -3, 0, 1, 0, 0, 2, 0])
    values = (4 + levels @ planted / 2)[:, None] + [0.0, 10, -10]  # what a seed does to all cells is no effect
    found = main_effects(levels, values, NAMES)
    assert [one.name for one in found[:4]] == ["clips", "sequence", "weight", "ratio"]
    assert {one.name: one.value for one in found} == pytest.approx(dict(zip(NAMES, planted)), abs=1e-9)
    assert all(one.high - one.low < 1e-9 and one.wide_high - one.wide_low < 1e-9 for one in found)


def test_an_effect_is_the_mean_of_the_high_half_minus_the_low_half():
    levels, _ = screening()
    values = np.random.default_rng(0).normal(size=(16, 3))
    for one in main_effects(levels, values, NAMES):
        column = levels[:, NAMES.index(one.name)]
        assert one.value == pytest.approx(values[column > 0].mean() - values[column < 0].mean())


def test_interaction_widens_the_wide_interval_alone():
    levels, _ = screening()
    values = (4 * levels[:, 0] * levels[:, 1])[:, None] + np.random.default_rng(0).normal(0, 0.1, (16, 3))
    for one in main_effects(levels, values, NAMES):
        assert one.high - one.low < 0.4 and one.wide_high - one.wide_low > 3


@pytest.mark.parametrize("told", [True, False])
def test_intervals_over_seeds_allow_for_shared_baselines(told):
    """A baseline that serves two cells doubles the noise of effects between baselines; the control does not know."""
    levels, keys = screening()
    rng, covered = np.random.default_rng(1), {name: 0 for name in NAMES}
    for _ in range(300):
        values = rng.normal(0, 0.5, (16, 3)) - rng.normal(0, 2, (8, 3))[keys] + rng.normal(0, 3, 3)
        for one in main_effects(levels, values, NAMES, keys if told else None):
            covered[one.name] += one.low <= 0 <= one.high
    between = np.array([covered[name] for name in ("clips", "sequence", "init", "weight")]) / 300  # weight = c×s×i
    within = np.array([covered[name] for name in ("ratio", "noise", "shift", "schema")]) / 300
    if told:
        assert ((0.9 <= between) & (between <= 0.99)).all() and ((0.9 <= within) & (within <= 0.99)).all()
    else:
        assert (between < 0.89).all() and (within > 0.99).all()


def test_people_who_move_a_factor_widen_its_interval():
    levels, _ = screening()
    rng = np.random.default_rng(0)
    values, people = rng.normal(0, 0.5, (16, 3)), rng.normal(0, 1, 500)
    near, far = (dict((one.name, one.high - one.low) for one in main_effects(levels, values, NAMES, None, draws))
                 for draws in (None, levels[:, :1] * people))
    assert far["clips"] == pytest.approx(2 * 1.96 * 2, rel=0.1)  # the effect is twice the coefficient
    assert all(far[name] == pytest.approx(near[name]) for name in NAMES[1:])


def test_one_seed_and_no_freedom_have_infinite_intervals():
    levels = np.array(list(itertools.product((-1, 1), repeat=2)))
    one = main_effects(levels, np.array([[1.0], [2], [3], [5]]), ["a", "b"])[0]
    assert (one.low, one.high) == (-np.inf, np.inf) and np.isfinite(one.wide_low)
    full = main_effects(levels[:3], np.random.default_rng(0).normal(size=(3, 2)), ["a", "b"])[0]
    assert np.isinf(full.wide_high) and np.isfinite(full.high)
    with pytest.raises(ValueError, match="told apart"):
        main_effects(levels[:, [0, 0]], np.zeros((4, 2)), ["a", "a again"])
    with pytest.raises(ValueError, match="same number of cells"):
        main_effects(levels, np.zeros((4, 2)), ["a", "b"], [0, 0, 0, 1])


def test_aliases_of_the_screening_design():
    levels, _ = screening()
    found = aliases(levels, NAMES, 2)
    assert all(found[name] == [] for name in NAMES)  # resolution IV: main effects clear of two-factor interactions
    pairs = {name: same for name, same in found.items() if "×" in name}
    assert len(pairs) == 7 and all(len(same) == 3 for same in pairs.values())  # 28 interactions in 7 groups of 4
    assert found["clips×sequence"] == ["init×weight", "ratio×schema", "noise×shift"]
    assert "clips×sequence×init" in aliases(levels, NAMES)["weight"]


def test_a_negative_alias_is_told():
    a, b = np.array(list(itertools.product((-1, 1), repeat=2))).T
    assert aliases(np.column_stack([a, b, -a * b]), ["a", "b", "c"], 2) == {
        "a": ["-b×c"], "b": ["-a×c"], "c": ["-a×b"]}


# --- a dense grid ----------------------------------------------------------------------------------------------------


def test_a_quadratic_in_logs_is_fitted_exactly():
    x, y = grid()
    rule = lambda x, y: 3 - 2 * np.log(x) + np.log(y) ** 2 + 0.5 * np.log(x) * np.log(y)  # noqa: E731
    found = fit_surface(x, y, rule(x, y), draws=50)
    assert found.value == pytest.approx(rule(found.x[None], found.y[:, None]))
    assert found.high - found.low == pytest.approx(0, abs=1e-8)
    assert found.explained == pytest.approx(1) and found.spread == pytest.approx(0, abs=1e-9)
    assert (found.x[0], found.x[-1]) == pytest.approx((100, 1600))


@pytest.mark.parametrize("levels", [(5, 5), (3, 4)])
def test_the_band_holds_the_true_line_of_zero(levels):
    """The true sign turns at x = 400, whatever y: the band must hold the truth there in most drawn maps."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.geomspace(100, 1600, levels[0]), np.geomspace(0.1, 8, levels[1])))
    rng, held = np.random.default_rng(0), 0
    for i in range(100):
        values = (4 * np.log(400 / x))[:, None] + rng.normal(0, 2, (len(x), 2))
        found = fit_surface(x, y, values, draws=200, seed=i, size=21)
        assert found.x[10] == pytest.approx(400)
        held += found.low[7, 10] <= 0 <= found.high[7, 10]
    assert held >= 89


def test_luck_of_the_test_people_moves_the_whole_map():
    x, y = grid()
    values, rng = np.random.default_rng(0).normal(0, 1, (25, 2)), np.random.default_rng(1)
    people = np.tile(rng.normal(5, 3, 400), (25, 1))  # one test set: the same for all cells; its mean is no news
    plain, told = (fit_surface(x, y, values, draw, size=11) for draw in (None, people))
    assert told.value == pytest.approx(plain.value)
    assert np.median(told.high - told.low) == pytest.approx(2 * 1.96 * 3, rel=0.2)
    assert np.median(plain.high - plain.low) < 4


def test_what_cannot_be_fitted_is_refused():
    x, y = grid(3)
    assert fit_surface(x, y - 0.05, x, log=(True, False), draws=10).log == (True, False)
    for bad in ((x[:6], y[:6], x[:6]), (x, y - 0.05, x), (np.ones(9), y, x)):
        with pytest.raises(ValueError, match="more than six"):
            fit_surface(*bad)


# --- rank correlation ------------------------------------------------------------------------------------------------


def test_spearman_is_scipys():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 16).astype(float)  # with ties
    y = x + rng.normal(0, 2, 16)
    found, known = spearman(x, y, draws=4000), stats.spearmanr(x, y)
    assert found.value == pytest.approx(known.statistic)
    assert found.p == pytest.approx(known.pvalue, abs=0.02)
    assert found.low < found.value < found.high and found.count == 16
    mirrored = spearman(x, -y, draws=4000)
    assert (mirrored.value, mirrored.low) == pytest.approx((-found.value, -found.high))


def test_spearman_leaves_out_what_is_not_measured():
    x = np.array([1.0, 2, 3, 4, 5, np.nan, 7])
    found = spearman(x, x**3, draws=200)
    assert found.count == 6 and found.value == pytest.approx(1) and found.p < 0.05
    with pytest.raises(ValueError, match="too few"):
        spearman(x[:3], x[:3])
    assert np.isnan(spearman(np.ones(6), np.arange(6), draws=50).value)


def test_spearman_of_nothing_is_seldom_sure():
    rng = np.random.default_rng(0)
    sure = sum(spearman(*rng.normal(size=(2, 12)), draws=300, seed=i).p < 0.05 for i in range(200))
    assert sure <= 20
