"""metrics/held_out.py: answers of all folds together, their interval against a slow oracle and against known truth."""

import json
import random

import numpy as np
import pytest

from s4d_lib.metrics.held_out import HeldOut, pooled

CLASSES = 5


def world(rng: np.random.Generator, people: int, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(person, label, answer) of every clip. People differ in how many clips they have and how well they are read."""
    skill = np.clip(0.6 + spread * rng.uniform(-0.35, 0.35, people), 0, 1)
    person = np.repeat(np.arange(people), rng.integers(2, 20, people))
    labels = rng.choice(CLASSES, size=len(person), p=[0.4, 0.25, 0.2, 0.1, 0.05])
    right = rng.random(len(person)) < skill[person] - 0.05 * labels
    return person, labels, np.where(right, labels, (labels + rng.integers(1, CLASSES, len(person))) % CLASSES)


def folds_of(person, labels, answers, folds: int = 5, named: bool = True) -> list[HeldOut]:
    ids = np.array([f"clip {n}" for n in range(len(person))])
    return [HeldOut.of(labels[at], answers[at], ids[at].tolist(), [f"p{p}" if named else None for p in person[at]])
            for at in (person % folds == fold for fold in range(folds))]


def scores(clips: list[tuple[int, int]]) -> tuple[float, float]:
    """WAR and UAR of (label, answer), counted one by one."""
    recalls = []
    for c in {label for label, _ in clips}:
        said = [answer for label, answer in clips if label == c]
        recalls.append(said.count(c) / len(said))
    return 100 * sum(label == answer for label, answer in clips) / len(clips), 100 * sum(recalls) / len(recalls)


def test_values_and_ends_are_those_of_a_bootstrap_that_draws_people_one_by_one():
    person, labels, answers = world(np.random.default_rng(1), 40)
    found = pooled([folds_of(person, labels, answers)])
    clips = [[(int(l), int(a)) for q, l, a in zip(person, labels, answers) if q == p] for p in range(40)]
    assert (found.war.value, found.uar.value) == pytest.approx(scores([c for of in clips for c in of]))
    draw = random.Random(2)
    drawn = np.array([scores([c for of in draw.choices(clips, k=40) for c in of]) for _ in range(2000)])
    for place, interval in enumerate((found.war, found.uar)):
        low, high = np.percentile(drawn[:, place], [2.5, 97.5])
        width = high - low
        assert abs(interval.low - low) < 0.12 * width and abs(interval.high - high) < 0.12 * width
        assert interval.high - interval.low > width, "a little wider, for there are 40 people and not infinitely many"
    assert (found.people, found.samples, found.alone, found.seeds) == (40, len(person), 0, 1)


def test_the_interval_holds_the_truth_in_95_of_100_worlds_and_one_over_clips_does_not():
    """Worlds of 8 to 40 people."""
    rng = np.random.default_rng(3)
    person, labels, answers = world(rng, 40_000)
    truth = scores(list(zip(labels.tolist(), answers.tolist())))
    held = {"people": np.zeros(2), "clips": np.zeros(2)}
    tries = 150
    for number in range(tries):
        one = world(rng, (8, 20, 40)[number % 3])
        for name, named in (("people", True), ("clips", False)):
            if not named and number % 3:
                continue
            found = pooled([folds_of(*one, named=named)], draws=300, seed=number)
            held[name] += [found.war.low <= truth[0] <= found.war.high, found.uar.low <= truth[1] <= found.uar.high]
    assert (held["people"] >= 0.9 * tries).all() and (held["people"] <= 0.99 * tries).all(), held
    assert held["clips"][0] < 0.88 * tries / 3, "clips of one person are not independent"


def test_how_people_are_dealt_out_over_folds_changes_nothing():
    """Leave one person out, five folds or one: the same answers, the same interval."""
    person, labels, answers = world(np.random.default_rng(4), 12)
    by_person, five, one = (pooled([folds_of(person, labels, answers, n)], draws=300) for n in (12, 5, 1))
    assert (by_person.war, by_person.uar) == (five.war, five.uar) == (one.war, one.uar)


def test_seeds_are_averaged_inside_a_draw():
    person, labels, answers = world(np.random.default_rng(5), 20)
    first, wrong = folds_of(person, labels, answers), folds_of(person, labels, (labels + 1) % CLASSES)
    alone, both = pooled([first], draws=400), pooled([first, wrong], draws=400)
    assert both.war.value == pytest.approx(alone.war.value / 2) and both.seeds == 2
    assert both.war.high == pytest.approx(alone.war.high / 2), "the same people are drawn for both"


def test_clips_and_people_in_several_folds_are_counted():
    one = HeldOut.of([0, 1, 1], [0, 1, 0], ["a", "b", "c"], ["anna", "bert", None])
    two = HeldOut.of([0, 1], [0, 0], ["c", "d"], [None, "anna"])
    found = pooled([[one, two]])
    assert (found.repeated, found.shared, found.alone, found.people, found.samples) == (1, 2, 2, 3, 5)
    lone = pooled([[HeldOut.of([0, 1], [0, 0], ["a", "b"], ["anna", "anna"])]])
    assert lone.war.value == 50.0 and np.isnan(lone.war.low) and lone.people == 1
    with pytest.raises(ValueError, match="no held-out answers"):
        pooled([])


def test_a_record_keeps_them_without_a_name():
    one = HeldOut.of([0, 6, 3], [0, 6, 6], ["a/1", "b/2", "\udcff"], ["Anna", None, "Anna"])
    kept = json.loads(json.dumps(one.as_dict()))
    again = HeldOut.from_dict(kept)
    for part in ("labels", "answers", "ids", "people"):
        assert np.array_equal(getattr(again, part), getattr(one, part))
    assert again.alone == 1 and len(set(one.people.tolist())) == 2 and "Anna" not in json.dumps(kept)
    for broken in ({**kept, "ids": "AAAA"}, {"labels": ""}, {**kept, "people": None}, {**kept, "ids": ""}):
        with pytest.raises(ValueError, match="held-out answers"):
            HeldOut.from_dict(broken)
    with pytest.raises(ValueError, match="2 labels, 1 answers"):
        HeldOut.of([0, 1], [0], ["a", "b"], [None, None])


def test_a_fine_tuned_run_records_what_it_said_of_the_test(monkeypatch):
    from pathlib import Path
    from types import SimpleNamespace

    from s4d_lib.datasets.labels import schema_named
    from s4d_lib.datasets.samples import Sample
    from s4d_lib.training import scoring

    said = np.eye(7)[[0, 3, 6]]
    monkeypatch.setattr(scoring, "views", lambda *_: None)
    monkeypatch.setattr(scoring, "probabilities", lambda *_: (said, np.array([0, 3, 5])))
    test = [Sample(f"{n}", Path(f"{n}"), 0, "clip", group) for n, group in enumerate(("anna", "anna", None))]
    config = SimpleNamespace(modalities=("clip",), schema=lambda _: schema_named("dfew"))
    kept = scoring.score_test(config, None, {"clip": test}).scores["test_clip"]["held_out"]
    found = HeldOut.from_dict(kept)
    assert found.labels.tolist() == [0, 3, 5] and found.answers.tolist() == [0, 3, 6] and found.alone == 1
    assert found.people[0] == found.people[1] != found.people[2]
