"""Contrasts of two methods: against slow loops, known cases, drawn truths, and controls that break a rule."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from s4d_lib.metrics.contrasts import (
    Claim,
    _people_draws,
    combination,
    contrast,
    detectable,
    difference,
    equivalent,
    holm,
    level,
    phrase,
    recall_differences,
    repair,
    verdict,
    verdict_table,
)
from s4d_lib.metrics.scores import confusion_matrix, uar, war

SCORE = {"war": war, "uar": uar}


def answers(seeds=4, people=30, clips=4, skill=(0.7, 0.6), classes=5, seed=0):
    """Two methods' answers `[seeds clips]` with labels and people."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, people * clips)
    found = [np.where(rng.random((seeds, len(labels))) < one, labels, rng.integers(0, classes, (seeds, len(labels))))
             for one in skill]
    return *found, labels, np.repeat(np.arange(people), clips)


def drawn_truth(rng, seeds, by_seed, by_person, mean, people=60, clips=2, apart=0.3):
    """Differences of hits -1, 0, 1 `[seeds clips]` around a true mean, with people `[clips]`."""
    chance = mean + rng.normal(0, by_seed, (seeds, 1)) + np.repeat(rng.normal(0, by_person, people), clips)
    u, chance = rng.random((seeds, people * clips)), np.clip(chance, -apart, apart)
    return np.where(u < (apart + chance) / 2, 1, np.where(u < apart, -1, 0)), np.repeat(np.arange(people), clips)


def as_answers(gained):
    """Answers of two methods, all labels 0, whose hits differ by `gained`."""
    return (gained < 0).astype(int), (gained > 0).astype(int), np.zeros(gained.shape[1], int)


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["war", "uar"])
def test_value_and_t_are_those_of_the_scores(metric):
    a, b, labels, people = answers()
    scores = [[SCORE[metric](confusion_matrix(labels, row, 5)) for row in rows] for rows in (a, b)]
    found = contrast(a, b, labels, people, metric, draws=200)
    assert found.values == pytest.approx(np.subtract(*scores).tolist())
    known = stats.ttest_rel(*scores)
    assert found.p_t == pytest.approx(known.pvalue)
    assert (found.t_low, found.t_high) == pytest.approx(tuple(known.confidence_interval()))
    assert found.spread == pytest.approx(np.std(np.subtract(*scores), ddof=1))


@pytest.mark.parametrize("metric", ["war", "uar"])
def test_a_draw_is_the_score_of_the_clips_it_repeats(metric):
    """The oracle: write out the clips of every drawn person, score each seed, average over the drawn seeds."""
    a, b, labels, people = answers(seeds=3, people=8, clips=3, classes=4)
    people = people * 7 + 3  # any integers name people
    found = contrast(a, b, labels, people, metric, draws=25, seed=5, interval="crossed")
    by_person, by_seed = (np.random.default_rng([5, stream]) for stream in (0, 1))
    times = by_person.multinomial(8, np.full(8, 1 / 8), size=25)
    seeds = by_seed.multinomial(3, np.full(3, 1 / 3), size=25)
    for draw in range(25):
        clips = [i for place, person in enumerate(np.unique(people)) for _ in range(times[draw, place])
                 for i in np.flatnonzero(people == person)]
        total = 0.0
        for s in range(3):
            scores = [SCORE[metric](confusion_matrix(labels[clips], rows[s][clips], 4)) for rows in (a, b)]
            total += seeds[draw, s] / 3 * (scores[0] - scores[1])
        assert found.draws[draw] == pytest.approx(total)


def test_subsets_are_scored_alone_and_share_the_people_of_a_draw():
    a, b, labels, people = answers(seeds=3)
    order = np.arange(len(labels)) % 4 == 0
    part = contrast(a, b, labels, people, subset=order, draws=100, interval="crossed")
    assert part.values == pytest.approx([100 * ((x == labels)[order].mean() - (y == labels)[order].mean())
                                         for x, y in zip(a, b)])
    rest, whole = (contrast(a, b, labels, people, subset=s, draws=100, interval="crossed") for s in (~order, None))
    assert 0.25 * part.draws + 0.75 * rest.draws == pytest.approx(whole.draws)  # one clip in four, of every person
    twice = combination([part, rest], [0.25, 0.75])
    assert (twice.low, twice.high) == pytest.approx((whole.low, whole.high))
    assert difference(part, rest).value == pytest.approx(part.value - rest.value)


def test_a_subset_that_some_draws_miss_still_has_an_interval():
    a, b, labels, people = answers(people=20)
    one_person = people == 3
    found = contrast(a, b, labels, people, subset=one_person, draws=400)
    assert np.isnan(found.draws).any() and np.isfinite([found.low, found.high, found.p]).all()
    with pytest.raises(ValueError, match="holds no clip"):
        contrast(a, b, labels, people, subset=people < 0)


def test_recalls_are_those_of_the_confusion_matrix():
    a, b, labels, people = answers(classes=4)
    found = recall_differences(a, b, labels, people, ("w", "x", "y", "z", "never"), draws=50)
    assert list(found) == ["w", "x", "y", "z"]
    tables = [sum(confusion_matrix(labels, row, 4) for row in rows) for rows in (a, b)]
    recall = [100 * np.diag(table) / table.sum(1) for table in tables]
    assert [one.value for one in found.values()] == pytest.approx((recall[0] - recall[1]).tolist())


@pytest.mark.parametrize("interval", ["crossed", "added"])
def test_swapping_the_methods_turns_the_sign(interval):
    a, b, labels, people = answers()
    one, other = (contrast(*pair, labels, people, draws=500, interval=interval) for pair in ((a, b), (b, a)))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low)) and one.p == pytest.approx(other.p)
    order = np.random.default_rng(0).permutation(len(labels))
    moved = contrast(a[:, order], b[:, order], labels[order], people[order], draws=500, interval=interval)
    assert (moved.low, moved.high) == pytest.approx((one.low, one.high))


# --- the intervals ---------------------------------------------------------------------------------------------------


def test_people_alone_give_the_width_of_a_proportion():
    """One clip a person, one seed: the bootstrap's standard error is √(p (1 - p) / n)."""
    hits = np.repeat([[1, 0]], [300, 100], axis=1)
    found = contrast(1 - hits, np.ones_like(hits), np.zeros(400, int), np.arange(400), draws=4000)
    assert found.value == 75.0
    assert found.draws.std() == pytest.approx(100 * np.sqrt(0.75 * 0.25 / 400), rel=0.05)
    assert found.t_high == np.inf and found.p == 1.0 and verdict(found) == "undecided"


def test_ignoring_people_makes_intervals_too_narrow():
    """The control: nine clips of a person that succeed or fail together are one observation, not nine."""
    rng = np.random.default_rng(1)
    labels, people = np.zeros(900, int), np.repeat(np.arange(100), 9)
    a, b = (np.repeat(rng.random((1, 100)) < 0.4, 9, axis=1).astype(int).repeat(3, 0) for _ in range(2))
    right, wrong = (contrast(a, b, labels, who, draws=1000) for who in (people, np.arange(900)))
    assert (right.high - right.low) / (wrong.high - wrong.low) == pytest.approx(3, rel=0.15)


def test_crossed_counts_the_noise_of_a_run_on_a_person_three_times_and_added_once():
    rng, found = np.random.default_rng(2), []
    for i in range(30):
        gained, people = drawn_truth(rng, 20, 0, 0, 0, people=100, clips=1)
        found.append([contrast(*as_answers(gained), people, draws=500, seed=i, interval=kind).draws.var()
                      for kind in ("crossed", "added")])
    truth = 0.3 / (20 * 100) * 1e4  # variance of the mean difference, points²: 30 % of the clips differ by ±1
    assert np.mean(found, 0) / truth == pytest.approx([3, 1.3], rel=0.15)  # 19/17 of t, and a covariance cut at 0


def test_added_is_the_t_interval_where_seeds_are_all_the_noise():
    """Every clip of a run alike and every person alike: nothing but the run varies."""
    share = np.array([10, 14, 9, 16])
    a = (np.arange(100) % 20 >= share[:, None]).astype(int)
    found = contrast(a, np.ones_like(a), np.zeros(100, int), np.repeat(np.arange(5), 20), draws=20_000,
                     interval="added")
    assert (found.low, found.high) == pytest.approx((found.t_low, found.t_high), rel=0.05)


@pytest.mark.parametrize(("interval", "seeds", "least", "most"), [("added", 3, 0.89, 0.99), ("added", 8, 0.89, 0.99),
                                                                  ("crossed", 8, 0.95, 1.0)])
def test_intervals_cover_a_drawn_truth(interval, seeds, least, most):
    rng = np.random.default_rng(3)
    covered, decided = 0, 0
    for i in range(200):
        gained, people = drawn_truth(rng, seeds, 0.02, 0.1, 0.0)
        a, b, labels = as_answers(gained)
        found = contrast(a, b, labels, people, draws=300, seed=i, interval=interval)
        covered += found.low <= 0 <= found.high
        decided += verdict(found) != "undecided"
    assert least <= covered / 200 <= most
    assert decided / 200 <= 0.1


def test_t_alone_is_sure_of_what_only_these_people_show():
    """The control for the agreement rule: people differ, seeds hardly do; t over seeds decides far too often."""
    rng, by_t, by_rule = np.random.default_rng(4), 0, 0
    for i in range(100):
        gained, people = drawn_truth(rng, 10, 0, 0.3, 0.0, people=40, clips=4)
        found = contrast(*as_answers(gained), people, draws=300, seed=i)
        by_t += found.p_t < 0.05
        by_rule += found.p < 0.05
    assert by_t > 25 and by_rule <= 10


def test_level_lies_around_the_mean_score():
    a, _, labels, people = answers()
    found = level(a, labels, people, draws=500)
    assert found.value == pytest.approx(100 * (a == labels).mean()) and found.low < found.value < found.high


# --- the decisions ---------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == pytest.approx({"a": 1.0, "b": 1.0})
    assert list(holm({"z": 0.2, "a": 0.1})) == ["z", "a"]


def at(value, near, wide=None, t=None):
    """A contrast with chosen reach of its 90 %, 95 % and t intervals."""
    a, b, labels, people = answers(seeds=5, people=3)
    wide, t = wide or 1.2 * near, t or 1.2 * near
    return replace(contrast(a, b, labels, people, draws=10), value=value, low90=value - near, high90=value + near,
                   low=value - wide, high=value + wide, t_low=value - t, t_high=value + t)


@pytest.mark.parametrize(("found", "p", "word"), [
    (at(-3, 1), None, "below"), (at(3, 1), 0.04, "above"), (at(3, 1), 0.06, "undecided"),
    (at(-3, 1, t=4), None, "undecided"),      # the t interval does not agree
    (at(-3, 1, wide=4), None, "undecided"),   # the bootstrap does not
    (at(0.2, 0.7), None, "equivalent"), (at(0.2, 0.9), None, "undecided"),
    (at(0.5, 0.3), None, "above"),            # decided and immaterial: the sign is told
    (at(0.5, 0.3), 0.2, "equivalent"), (at(0, 5), None, "undecided")])
def test_verdicts(found, p, word):
    assert verdict(found, p) == word


def test_fewer_than_five_seeds_decide_nothing():
    labels, people = np.zeros(40, int), np.arange(40)
    right, wrong = np.zeros((4, 40), int), np.ones((4, 40), int)
    few = contrast(right, wrong, labels, people, draws=50)
    assert few.low == few.high == 100 and verdict(few) == "undecided"
    assert verdict(contrast(right[[0, 1, 2, 3, 0]], wrong[[0, 1, 2, 3, 0]], labels, people, draws=50)) == "above"


def test_equivalent_is_an_interval_within_a_point():
    assert equivalent(at(0.5, 0.3)) and not equivalent(at(0.5, 0.6))


def test_equal_methods_differ_by_nothing():
    a, _, labels, people = answers(seeds=5)
    for interval in ("crossed", "added"):
        found = contrast(a, a, labels, people, draws=50, interval=interval)
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1) and verdict(found) == "equivalent"


def test_detectable_differences():
    assert detectable(1, 10) == pytest.approx(0.996, abs=0.002)  # the textbook d of a paired t test, n = 10, 80 %
    assert detectable(2.7, 10) == pytest.approx(2.7, abs=0.05)   # the protocol's power statement
    assert detectable(1, 10_000) * 100 == pytest.approx(2.8, abs=0.01)
    assert detectable(1, 1) == np.inf and detectable(1, 2) > detectable(1, 3) > detectable(1, 5)
    rng, shift = np.random.default_rng(0), detectable(1, 5)
    found = stats.ttest_1samp(rng.normal(shift, 1, (4000, 5)), 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_repair_in_words():
    rest, lost = at(0.5, 0.5), at(-2, 1)
    assert repair("undecided", "above", rest).startswith("not testable here")
    assert repair("below", "above", rest, "above") == "full repair, MoAE's own"
    assert repair("below", "above", lost, "equivalent").startswith("partial repair by capacity")
    assert repair("below", "above", lost).endswith("was not tested")
    assert repair("below", "undecided", rest) == "undecided"
    assert repair("below", "below", rest).startswith("no repair")


def test_verdict_table():
    rows = verdict_table([Claim("harm", "here", "below", at(-3, 1)), Claim("harm", "here", "below", at(3, 1), 0.01),
                          Claim("harm", "here", "below", at(0.1, 0.5)), Claim("harm", "here", "below", at(0, 5)),
                          Claim("gain", "here", "above", at(0.5, 0.3)),
                          Claim("repair", "here", "above", why="no harm"),
                          Claim("ours", "here", "", at(-3, 1)), Claim("ours", "here", "", at(0, 5))])
    assert [row["verdict"] for row in rows] == [
        "reproduced", "different (above)", "different (no material difference)", "undecided",
        "reproduced, no material difference", "not testable here", "below", "undecided"]
    assert set(rows[0]) == {"paper's claim", "our conditions", "measured", "verdict"}
    assert rows[1]["measured"].endswith("Holm 0.0100") and rows[5]["measured"] == "no harm"
    assert phrase(at(-3, 1)).startswith("-3.0 points")


# --- what comes in ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_paired_is_refused():
    a, b, labels, people = answers()
    with pytest.raises(ValueError, match="paired by seed"):
        contrast(a, b[:2], labels, people)
    with pytest.raises(ValueError, match="give one a clip"):
        contrast(a, b, labels, people[:-1])
    with pytest.raises(ValueError, match="choose war or uar"):
        contrast(a, b, labels, people, "f1")
    with pytest.raises(ValueError, match="choose crossed or added"):
        contrast(a, b, labels, people, draws=10, interval="nested")
    with pytest.raises(ValueError, match="same seeds"):
        difference(contrast(a, b, labels, people, draws=10), contrast(a[:2], b[:2], labels, people, draws=10))


def test_a_contrast_for_a_record_is_plain():
    import json

    a, b, labels, people = answers()
    kept = json.loads(json.dumps(contrast(a, b, labels, people, draws=50).as_dict()))
    assert kept["interval"] == "added" and len(kept["values"]) == 4 and "draws" not in kept


def test_memory_is_taken_in_parts_without_changing_a_draw():
    a, b, labels, people = answers()
    hits = (a == labels).astype(float)
    many, few = (_people_draws(hits, labels, people, "uar", None, n, 0)[1] for n in (2300, 1000))
    assert many.shape == (2300, 4) and many[:1000] == pytest.approx(few)
