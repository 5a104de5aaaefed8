"""answers → contrasts     how far two methods differ, how sure that is, and what a family of such answers decides.

    found = contrast(answers_a, answers_b, labels, people)            # a - b in points; int [seeds clips] each
    found.value, (found.low, found.high), (found.t_low, found.t_high), found.p
    adjusted = holm({"H1": found.p, ...})                             # name → adjusted p
    verdict(found, adjusted["H1"])                                    # below | above | equivalent | undecided
    lab.pair(record, cell, "joint", "dfer")                   # the same from a record of the laboratory
    level(answers, labels, people)                                    # one method's score with its interval
    recall_differences(answers_a, answers_b, labels, people, classes) # one contrast a class
    difference(found, other), combination(contrasts, weights)         # a contrast of contrasts
    detectable(spread, seeds)                                         # what so many seeds can see
    verdict_table([Claim(...), ...]), repair(...)                     # words for the chapters
    metrics.effects.main_effects, aliases, fit_surface, spearman              # over cells: see effects.py

Rules: `chapters/results/protocol_transfer.yaml`, `statistics` and `definitions`. Seeds and test people are crossed, not
nested: every seed's model sees the same people, and a draw takes its people once for all seeds and both methods. Two
intervals are offered; points are percentage points, and equal `seed` means equal people in every draw.

    crossed  seeds and people are both drawn with replacement (Owen 2007, "The pigeonhole bootstrap", Annals of Applied
             Statistics 1). Counts the noise of a run on a person three times: safe, and up to √3 too wide.
    added    the people part of a draw, shrunk to what the seeds agree on (their covariance over draws of people), plus
             the seed part, its spread / √seeds times a t variate: each source of noise counts once.

Measured on drawn answers of 200 people, 500 tries (ci/tests/test_contrasts.py draws fewer): `added` held the truth in
93 to 97 % of tries at 2, 3, 5 and 10 seeds, `crossed` in 90 to 100 %, from 5 seeds on in 97 to 100. Without a true
difference 3 to 7 % were decided by `added`, 0 to 3 % by `crossed`; of true differences of 2 points (10 seeds, spread 2)
70 % and 46 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s4d_lib.errors import Refused, require
from s4d_lib.metrics.resampling import resampling
from s4d_lib.metrics.scores import Interval, over_seeds

ALPHA = 0.05
INTERVAL = "added"  # what the protocol names
LEAST_SEEDS = 5
MATERIAL = 1.0  # points: smaller differences are called no material difference
TOLD = {"below": "below", "above": "above", "equivalent": "no material difference", "undecided": "undecided"}


@dataclass(frozen=True)
class Contrast:
    """Method a minus method b in points. Bootstrap: over seeds and people; t: over seeds, the test set fixed."""

    value: float
    low: float  # 95 % bootstrap
    high: float
    low90: float
    high90: float
    t_low: float  # 95 % Student t over seeds
    t_high: float
    p_bootstrap: float
    p_t: float
    values: list[float]  # one a seed
    draws: np.ndarray = field(repr=False, compare=False)  # [draws] bootstrap values
    drawn: np.ndarray = field(repr=False, compare=False)  # [draws seeds] every seed's value on the people of a draw
    rule: tuple[str, str, int]  # interval, over, seed

    @property
    def p(self) -> float:
        """The larger of the two tests' p: a difference must stand over new seeds and over new people."""
        return max(self.p_bootstrap, self.p_t)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds, for `detectable`."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record, without the draws."""
        names = ("value", "low", "high", "low90", "high90", "t_low", "t_high", "p", "p_bootstrap", "p_t", "values")
        return {name: getattr(self, name) for name in names} | dict(zip(("interval", "over", "seed"), self.rule))


def contrast(answers_a: np.ndarray, answers_b: np.ndarray, labels: np.ndarray, people: np.ndarray, metric: str = "war",
             subset: np.ndarray | None = None, draws: int = 10_000, seed: int = 0, over: str = "both",
             interval: str = INTERVAL) -> Contrast:
    """Two methods' answers int `[seeds clips]`, row by row of the same seed → a minus b.

    labels, people  int `[clips]`; the person of a clip is what is resampled
    subset          bool `[clips]`: score these clips alone (people are drawn from the whole test set all the same)
    over            both | people | seeds: what a draw takes anew; the verdicts of the protocol need both
    interval        crossed | added, see above
    One seed gives a bootstrap over people and an infinite t interval: it is never decided.
    """
    answers_a, answers_b = np.atleast_2d(answers_a), np.atleast_2d(answers_b)
    if answers_a.shape != answers_b.shape:
        raise ValueError(f"answers of shape {answers_a.shape} and {answers_b.shape}: a contrast is paired by seed, so "
                         "give both methods' rows for the same seeds (lab.pair takes the common ones)")
    labels = np.asarray(labels)
    gained = (answers_a == labels).astype(float) - (answers_b == labels)
    return _summarise(*_people_draws(gained, labels, people, metric, subset, draws, seed), (interval, over, seed))


def level(answers: np.ndarray, labels: np.ndarray, people: np.ndarray, metric: str = "war",
          subset: np.ndarray | None = None, draws: int = 10_000, seed: int = 0, interval: str = INTERVAL) -> Interval:
    """One method's mean score over seeds in percent with its 95 % bootstrap interval over seeds and people."""
    correct = (np.atleast_2d(answers) == np.asarray(labels)).astype(float)
    score = _summarise(*_people_draws(correct, labels, people, metric, subset, draws, seed), (interval, "both", seed))
    return Interval(score.value, score.low, score.high)


def _people_draws(hits: np.ndarray, labels: np.ndarray, people: np.ndarray, metric: str, subset: np.ndarray | None,
                  draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits, or differences of them, `[seeds clips]` → scores of seeds `[seeds]`, and on drawn people `[draws seeds]`.

    WAR is the rate over all clips, UAR the mean of the rates of the classes; both are rates of groups of clips, and
    both are linear in the hits once the people are drawn, so differences need no other code than scores.
    """
    if metric not in ("war", "uar"):
        raise Refused(f"metric {metric!r}: choose war or uar")
    labels, person = np.asarray(labels), np.unique(np.asarray(people), return_inverse=True)[1]
    if not hits.shape[1] == len(labels) == len(person):
        raise ValueError(f"{hits.shape[1]} answers, {len(labels)} labels and {len(person)} people: give one a clip")
    keep = np.ones(len(labels), bool) if subset is None else np.asarray(subset, dtype=bool)
    if not keep.any():
        raise Refused("the subset holds no clip")
    group = np.zeros(len(labels), int) if metric == "war" else np.unique(labels, return_inverse=True)[1]
    seeds, count, groups = len(hits), person.max() + 1, group.max() + 1
    place = person[keep] * groups + group[keep]
    support = np.bincount(place, minlength=count * groups).reshape(count, groups).astype(float)
    table = np.stack([np.bincount(place, row[keep], count * groups) for row in hits], 1)  # [people·groups seeds]
    table = table.reshape(count, groups * seeds)

    def rates(weights: np.ndarray) -> np.ndarray:  # [n people] → [n seeds], in percent
        right, there = (weights @ table).reshape(-1, groups, seeds), weights @ support
        rate = np.divide(right, there[..., None], out=np.zeros(right.shape), where=there[..., None] > 0)
        with np.errstate(invalid="ignore"):  # a draw without one clip of the subset has no score
            return 100 * rate.sum(1) / (there > 0).sum(1, keepdims=True)

    rng = np.random.default_rng([seed, 0])
    parts = [rates(resampling(count, min(1000, draws - at), rng)) for at in range(0, draws, 1000)]  # for memory
    return rates(np.ones((1, count)))[0], np.concatenate(parts)


def _combine(values: np.ndarray, drawn: np.ndarray, rule: tuple[str, str, int]) -> np.ndarray:
    """Every seed's value `[seeds]`, and on drawn people `[draws seeds]` → the bootstrap values of a rule `[draws]`."""
    interval, over, seed = rule
    if interval not in ("crossed", "added") or over not in ("both", "people", "seeds"):
        raise Refused(f"interval {interval!r} over {over!r}: choose crossed or added, over both, people or seeds")
    (draws, n), rng = drawn.shape, np.random.default_rng([seed, 1])  # its own stream: people do not depend on seeds
    if over == "people" or n == 1:
        return drawn.mean(1)
    if interval == "crossed" or over == "seeds":
        return ((values if over == "seeds" else drawn) * resampling(n, draws, rng) / n).sum(1)
    known = drawn[~np.isnan(drawn).any(1)]
    total = np.cov(known.T)
    agreed = max(0.0, (total.sum() - np.trace(total)) / (n * (n - 1)))
    shrink = np.sqrt(agreed / total.mean()) if agreed > 0 else 0.0
    # A t variate times spread / √n, written over the seeds: contrasts of one rule can then be added draw by draw.
    normal = rng.standard_normal((draws, n)) @ (values - values.mean()) / np.sqrt(n * (n - 1))
    noise = normal / np.sqrt(rng.chisquare(n - 1, draws) / (n - 1))
    return values.mean() + shrink * (drawn.mean(1) - values.mean()) + noise


def _summarise(values: np.ndarray, drawn: np.ndarray, rule: tuple[str, str, int]) -> Contrast:
    """Values of the seeds, on the test people and on drawn ones → intervals and p."""
    require("scipy", "lab")
    from scipy.stats import t

    stack, n = _combine(values, drawn, rule), len(values)
    low, low90, high90, high = np.nanpercentile(stack, [2.5, 5, 95, 97.5])
    over, error = over_seeds(values), values.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
    ratio = abs(values.mean()) / error if error > 0 else (np.inf if values.mean() else 0.0)
    p_t = float(2 * t.sf(ratio, n - 1)) if n > 1 else 1.0
    known = stack[~np.isnan(stack)]
    # A draw at 0 speaks for both signs; the 1 is the sample itself, so that p is never 0.
    tail = min((known <= 0).sum(), (known >= 0).sum())
    p_bootstrap = float(min(1.0, 2 * (1 + tail) / (1 + len(known))))
    return Contrast(over.value, float(low), float(high), float(low90), float(high90), over.low, over.high,
                    p_bootstrap, p_t, values.tolist(), stack, drawn, rule)


def difference(first: Contrast, second: Contrast) -> Contrast:
    """A contrast of contrasts (is the gain larger on plain clips?), over the same seeds, test people and rule."""
    return combination([first, second], [1, -1])


def combination(contrasts: Sequence[Contrast], weights: Sequence[float]) -> Contrast:
    """Weighted sum of contrasts over the same seeds, test people and rule, with intervals of its own."""
    if len({(one.drawn.shape, one.rule) for one in contrasts}) > 1:
        raise Refused("the contrasts need the same seeds, the same number of draws and the same rule")
    values, drawn = (sum(w * np.asarray(part) for w, part in zip(weights, parts))
                     for parts in zip(*((one.values, one.drawn) for one in contrasts)))
    return _summarise(values, drawn, contrasts[0].rule)


def recall_differences(answers_a: np.ndarray, answers_b: np.ndarray, labels: np.ndarray, people: np.ndarray,
                       classes: Sequence[str], draws: int = 10_000, seed: int = 0,
                       interval: str = INTERVAL) -> dict[str, Contrast]:
    """The contrast of the recall of every class that occurs: name → Contrast (uncorrected for their number)."""
    labels = np.asarray(labels)
    return {name: contrast(answers_a, answers_b, labels, people, "war", labels == k, draws, seed, "both", interval)
            for k, name in enumerate(classes) if (labels == k).any()}


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's (1979) step-down adjustment: name → p, to be compared with 5 % whatever the number of names."""
    adjusted, worst = {}, 0.0
    for place, name in enumerate(sorted(p, key=p.__getitem__)):
        worst = max(worst, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p}


def verdict(found: Contrast, p_adjusted: float | None = None) -> str:
    """below | above | equivalent | undecided, by the protocol's rules.

    Decided (below, above): both intervals exclude 0 and, in a family, Holm's p is at most 5 %. A sign that is decided
    is told even where the difference is immaterial. Otherwise equivalent if the 90 % interval lies
    within ±1 point, else undecided: an interval that covers 0 is never "no effect". Fewer than five seeds decide
    nothing: two that happen to differ equally have a spread of 0, which a t interval takes for certainty.
    """
    if len(found.values) < LEAST_SEEDS:
        return "undecided"
    sure = p_adjusted is None or p_adjusted <= ALPHA
    if sure and found.high < 0 and found.t_high < 0:
        return "below"
    if sure and found.low > 0 and found.t_low > 0:
        return "above"
    return "equivalent" if equivalent(found) else "undecided"


def equivalent(found: Contrast) -> bool:
    """No material difference: the 90 % interval (two one-sided tests at 5 %) lies within ±1 point."""
    return -MATERIAL < found.low90 and found.high90 < MATERIAL


def detectable(spread: float, seeds: int, alpha: float = ALPHA, power: float = 0.8) -> float:
    """The true difference that a two-sided t test over `seeds` pairs finds with the given power.

    spread  standard deviation over seeds of the paired difference; about 2.8 spread / √seeds for many seeds
    """
    require("scipy", "lab")
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    if seeds < 2:
        return float("inf")
    edge = t.ppf(1 - alpha / 2, seeds - 1)

    def lacking(shift: float) -> float:  # the far tail adds nothing where scipy cannot say it
        return power - nct.sf(edge, seeds - 1, shift) - np.nan_to_num(nct.cdf(-edge, seeds - 1, shift))

    top = 1.0
    while lacking(top) > 0:
        top *= 2
    return float(spread / np.sqrt(seeds) * brentq(lacking, 0, top))


def repair(harm: str, gain: str, rest: Contrast, over_capacity: str | None = None) -> str:
    """What MoAE repairs in a cell, by the protocol's `repair`: words from verdicts.

    harm  verdict of joint - dfer_converged       gain           verdict of moae_clean - joint
    rest  contrast moae_clean - dfer_converged    over_capacity  verdict of moae_clean - joint_wide

    Where the plan measures harm at equal clip steps, dfer stands in both for dfer_converged.
    """
    if harm != "below":
        return "not testable here: no negative transfer to repair"
    if gain != "above":
        return {"below": "no repair: MoAE is below joint training", "equivalent": "no repair: no material difference",
                "undecided": "undecided"}[gain]
    words = "full repair" if min(rest.low, rest.t_low) > -MATERIAL else "partial repair"
    if over_capacity is None:
        return words + "; whether it is more than capacity was not tested"
    return words + (", MoAE's own" if over_capacity == "above" else " by capacity: not above joint_wide")


@dataclass(frozen=True)
class Claim:
    """A row of a chapter's verdict table. No contrast: not testable here (`why` says it)."""

    claim: str
    conditions: str
    expected: str  # the verdict that would reproduce the claim: below | above | equivalent; "" for a question of ours
    found: Contrast | None = None
    p_adjusted: float | None = None
    why: str = ""


def phrase(found: Contrast) -> str:
    """A contrast in words: value, crossed bootstrap interval, t interval, p."""
    return (f"{found.value:+.1f} points, 95 % {found.low:+.1f} to {found.high:+.1f} over seeds and people "
            f"(t over {len(found.values)} seeds {found.t_low:+.1f} to {found.t_high:+.1f}; p {found.p:.4f})")


def verdict_table(claims: Sequence[Claim]) -> list[dict[str, str]]:
    """Claims → rows of the protocol's table: paper's claim, our conditions, measured, verdict."""
    rows = []
    for one in claims:
        if one.found is None:
            measured, word = one.why or "not measured", "not testable here"
        else:
            sign = verdict(one.found, one.p_adjusted)
            other = f"different ({TOLD[sign]})" if one.expected else TOLD[sign]
            word = {one.expected: "reproduced", "undecided": "undecided"}.get(sign, other)
            measured = phrase(one.found) + (f"; Holm {one.p_adjusted:.4f}" if one.p_adjusted is not None else "")
            if sign in ("below", "above") and equivalent(one.found):
                word += ", no material difference"
        rows.append({"paper's claim": one.claim, "our conditions": one.conditions, "measured": measured,
                     "verdict": word})
    return rows
