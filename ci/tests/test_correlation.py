"""analysis/correlation.py, analysis/levels.py, analysis/two_readings.py: by loops, other libraries, known answers."""

import base64
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from s4d_lib.analysis.correlation import (
    agreement,
    answer_tables,
    cohen_kappa,
    foreign_tracks,
    kappa_beyond_label,
    pairs_correlation,
    shared_units,
    transfer_matrix,
    unit_evidence,
)
from s4d_lib.analysis.levels import LEVELS, deviations, recall_levels
from s4d_lib.analysis.two_readings import POOLS, drawn_units, pool_frames, read_twice, shared_classes
from s4d_lib.figures.correlation import draw_recalls, draw_signed_matrix, draw_two_readings
from s4d_lib.lab.reading import matrix_of, recalls_of
from s4d_lib.synthetic_faces.geometry import ACTION_UNITS

C = 4
NAMES = ("Happiness", "Sadness", "Anger", "Fear")


def one_hot(answers: np.ndarray, classes: int = C) -> np.ndarray:
    return np.eye(classes)[answers]


def two_readers(n: int, right: float, together: float, seed: int = 0) -> tuple:
    """Labels, people and answers [n] of two readers: each right with `right`; of the clips, a share `together` gets
    one and the same answer from both, the others are answered independently."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(C, size=n)
    answers = [np.where(rng.random(n) < right, labels, rng.integers(C, size=n)) for _ in range(2)]
    answers[1] = np.where(rng.random(n) < together, answers[0], answers[1])
    return labels, np.arange(n) // 4, answers


# --- agreement -------------------------------------------------------------------------------------------------------


def test_kappa_is_that_of_scikit_learn_with_every_clip_counting_once():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(1)
    frames = [rng.integers(C, size=rng.integers(2, 7)) for _ in range(30)]
    clips = rng.integers(C, size=30)
    tables = answer_tables(frames, clips, C)
    np.testing.assert_allclose(tables.sum((1, 2)), 1)
    weights = np.concatenate([np.full(len(f), 1 / len(f)) for f in frames])
    repeated = np.concatenate([np.full(len(f), clip) for f, clip in zip(frames, clips)])
    wanted = cohen_kappa_score(np.concatenate(frames), repeated, sample_weight=weights)
    assert cohen_kappa(tables.sum(0)) == pytest.approx(wanted)
    found = agreement([one_hot(f) for f in frames], one_hot(clips), NAMES, np.arange(30), draws=50)
    assert found.kappa.value == pytest.approx(wanted) and found.beyond_label is None
    for k, name in enumerate(NAMES):
        single = cohen_kappa_score(np.concatenate(frames) == k, repeated == k, sample_weight=weights)
        assert found.per_class[name].value == pytest.approx(single)


def test_perfect_agreement_is_one_and_a_constant_reader_has_none():
    answers = np.arange(12) % C
    found = agreement([one_hot(a)[None] for a in answers], one_hot(answers), NAMES, np.arange(12), answers, draws=20)
    assert found.observed.value == 100 and found.kappa.value == 1
    assert np.isnan(cohen_kappa(np.diag([5.0, 0, 0])))
    assert cohen_kappa(np.array([[5.0, 5.0], [0, 0]])) == 0


def test_beyond_label_by_a_loop_over_pairs_of_people():
    labels, people, (a, b) = two_readers(60, 0.6, 0.3)
    chance = 0.0
    for y in range(C):
        here = np.flatnonzero(labels == y)
        pairs = [a[i] == b[j] for i in here for j in here if people[i] != people[j]]
        chance += len(here) / 60 * np.mean(pairs)
    tables = answer_tables(a[:, None], b, C)
    found = kappa_beyond_label(tables, labels, people, draws=100)
    assert found.value == pytest.approx(((a == b).mean() - chance) / (1 - chance))
    alone = kappa_beyond_label(tables, np.where(np.arange(60) == 0, 0, labels % 3 + 1), people, draws=20)
    rest = kappa_beyond_label(tables[1:], labels[1:] % 3 + 1, people[1:], draws=20)
    assert alone.value == pytest.approx(rest.value), "a label of one person has no chance to compare with"


def test_intervals_beyond_the_label_lie_around_their_value():
    """Draws that hold a person twice must not make chance look larger."""
    miss, high = 0, []
    for seed in range(40):
        labels, people, (a, b) = two_readers(80, 0.7, 0.0, seed)
        found = kappa_beyond_label(answer_tables(a[:, None], b, C), labels, people, 200)
        miss += not found.low <= 0 <= found.high
        high.append((found.low + found.high) / 2 - found.value)
    assert miss <= 6 and abs(np.mean(high)) < 0.02


def test_two_good_readers_who_err_apart_agree_in_kappa_and_not_beyond_the_label():
    labels, people, (a, b) = two_readers(4000, 0.8, 0.0)
    found = agreement(one_hot(a)[:, None], one_hot(b), NAMES, people, labels, draws=200)
    assert found.kappa.value > 0.5, "both are mostly right"
    assert abs(found.beyond_label.value) < 0.05 and found.beyond_label.low < 0.02
    labels, people, (a, b) = two_readers(4000, 0.8, 0.5)
    assert agreement(one_hot(a)[:, None], one_hot(b), NAMES, people, labels, draws=200).beyond_label.low > 0.3


def test_unknown_labels_take_no_part_beyond_the_label():
    labels, people, (a, b) = two_readers(80, 0.7, 0.2)
    marked = np.where(np.arange(80) < 40, labels, -1)
    full = agreement(one_hot(a)[:, None], one_hot(b), NAMES, people, marked, draws=20)
    part = agreement(one_hot(a)[:40, None], one_hot(b)[:40], NAMES, people[:40], labels[:40], draws=20)
    assert full.beyond_label.value == part.beyond_label.value


def test_forgetting_people_makes_intervals_too_narrow():
    labels, _, (a, b) = two_readers(60, 0.6, 0.2)
    a, b, labels = (np.repeat(x, 6) for x in (a, b, labels))  # six equal clips of every person
    width = {}
    for name, people in (("people", np.repeat(np.arange(60), 6)), ("clips", np.arange(360))):
        kappa = agreement(one_hot(a)[:, None], one_hot(b), NAMES, people, draws=400).kappa
        width[name] = kappa.high - kappa.low
    assert width["people"] > 1.8 * width["clips"]


# --- recalls over runs -----------------------------------------------------------------------------------------------


def test_levels_add_up_to_the_pooled_cross_product():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12, 5))
    setting = np.repeat([2, 0, 1], 4)
    parts = [deviations(values, setting) for values in (x, y)]
    total = 0.0
    for level in LEVELS:
        left, right = (part[level] for part in parts)
        total += (left * right).sum() * x.size / left.size
    assert total == pytest.approx(((x - x.mean()) * (y - y.mean())).sum())


def test_levels_of_opposite_sign_are_told_apart():
    rng = np.random.default_rng(3)
    ease, level = rng.normal(size=7) * 20, np.repeat(rng.normal(size=8) * 5, 3)[:, None]
    noise = rng.normal(size=(24, 7))
    found = recall_levels(ease + level + noise, ease - level + noise, np.repeat(np.arange(8), 3), draws=300)
    assert found["pooled"]["r"] > 0.8, "the easy classes hide everything else"
    assert found["classes"]["r"] > 0.95 and found["classes"]["p"] < 0.01
    assert found["settings"]["high"] < -0.9 and found["settings"]["n"] == 8
    assert found["class in seed"]["low"] > 0.9 and found["class in seed"]["n"] == 24


def test_unrelated_runs_are_seldom_called_related():
    rng = np.random.default_rng(5)
    low = dict.fromkeys(LEVELS, 0)
    for _ in range(60):
        x, y = rng.normal(size=(2, 24, 5))
        found = recall_levels(x, y, np.repeat(np.arange(8), 3), draws=200)
        for level in LEVELS:
            low[level] += found[level]["p"] < 0.05
    assert max(low.values()) <= 8, f"60 tests at 5 %: {low}"


def test_levels_without_variation_and_odd_shapes():
    x, y = np.random.default_rng(5).normal(size=(2, 40, 7))
    one = recall_levels(x[:3], y[:3], [0, 0, 0], draws=50)
    assert one["settings"]["r"] is None and one["class in setting"]["r"] is None
    with pytest.raises(ValueError, match="runs classes"):
        recall_levels(x, y[:, :3], np.zeros(40))


def test_runs_of_one_seed_are_one_unit():
    """Five settings that repeat the noise of their seeds hold no more than the seeds do."""
    rng, called = np.random.default_rng(0), {"as one": 0, "apart": 0}
    for _ in range(40):
        x, y = (np.tile(rng.normal(size=(8, 5)), (5, 1)) + 0.1 * rng.normal(size=(40, 5)) for _ in range(2))
        settings, seeds = np.repeat(np.arange(5), 8), np.tile(np.arange(8), 5)
        one = recall_levels(x, y, settings, seeds, draws=200)["class in seed"]
        assert one["n"] == 8
        called["as one"] += one["p"] < 0.05
        called["apart"] += recall_levels(x, y, settings, draws=200)["class in seed"]["p"] < 0.05
    assert called["as one"] <= 6 < 12 < called["apart"], called
    with pytest.raises(ValueError, match="not everywhere"):
        recall_levels(x[1:], y[1:], settings[1:], seeds[1:])


# --- transfer between emotions ---------------------------------------------------------------------------------------


def lab_record(seeds: int = 4, clips: int = 240) -> SimpleNamespace:
    """A record in which leaving out a class costs that class a third of its right answers, and no other class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(C, size=clips)
    good = [np.where(rng.random(clips) < 0.9, labels, (labels + 1) % C) for _ in range(seeds)]

    def coded(rows: list[np.ndarray]) -> list[str]:
        return [base64.b64encode(row.astype(np.uint8).tobytes()).decode() for row in rows]

    numbers = list(range(100, 100 + seeds))
    still = [[10.0 * k + s for k in range(7)] for s in range(seeds)]  # in AffectNet's order, as the still head's
    clip = [[float(k)] * C for k in range(seeds)]
    methods = {"joint": {"seeds": numbers, "answers": coded(good), "image_recall": still, "recall": clip},
               "random_labels": {"seeds": numbers, "image_recall": still, "recall": clip},
               "merged": {"seeds": numbers, "image_recall": [row[:4] for row in still], "recall": clip},
               "dfer": {"seeds": numbers, "answers": coded(good), "recall": clip}}
    for k, name in ((0, "happy"), (2, "anger")):
        worse = [np.where((labels == k) & (rng.random(clips) < 1 / 3), (labels + 1) % C, row) for row in good]
        methods[f"without_{name}"] = {"seeds": numbers[::-1][:-1], "answers": coded(worse[::-1][:-1])}
    test = {"classes": list(NAMES), "labels": labels.tolist(), "people": (np.arange(clips) // 4).tolist()}
    cells = {"a": {"factors": {}, "test": "t", "methods": methods}}
    return SimpleNamespace(name="made_up", results={"tests": {"t": test}, "cells": cells})


def test_matrix_finds_the_class_that_was_left_out_and_pairs_seeds_by_number():
    found = matrix_of(lab_record())
    assert found.rows == ("Happiness", "Anger") and found.classes == NAMES and found.value.shape == (2, C)
    assert found.value[0, 0] < -20 and found.value[1, 2] < -20, "the diagonal carries the loss"
    off = np.ones((2, C), bool)
    off[0, 0] = off[1, 2] = False
    assert not found.value[off].any(), "seeds paired by position instead of number would move other classes"
    assert found.own_minus_others.high < 0 and found.over_seeds.high < 0 and found.others.value == 0
    empty = lab_record()
    for name in ("without_happy", "without_anger"):
        del empty.results["cells"]["a"]["methods"][name]
    with pytest.raises(ValueError, match="leaves out a class"):
        matrix_of(empty)


def test_matrix_by_a_loop():
    rng = np.random.default_rng(2)
    labels, base = rng.integers(C, size=60), rng.integers(C, size=(3, 60))
    other = {name: rng.integers(C, size=(3, 60)) for name in NAMES}
    found = transfer_matrix(other, base, labels, np.arange(60) // 3, NAMES, draws=50)
    for i, name in enumerate(NAMES):
        for k in range(C):
            here = labels == k
            by_seed = [(other[name][s][here] == k).mean() - (base[s][here] == k).mean() for s in range(3)]
            assert found.value[i, k] == pytest.approx(100 * np.mean(by_seed))
    own = np.diag(found.value).mean()
    assert found.own.value == pytest.approx(own)
    assert found.own_minus_others.value == pytest.approx(own - found.value[~np.eye(C, dtype=bool)].mean())


def test_recalls_come_from_the_runs_that_scored_both_tasks():
    record = lab_record()
    still, clip, settings, seeds, classes = recalls_of(record)
    assert classes == NAMES and still.shape == clip.shape == (4, C) and set(settings) == {"a, joint"}
    assert seeds == [100, 101, 102, 103] and len(recalls_of(record, ["dfer"])[0]) == 0
    assert still[1].tolist() == [11, 21, 61, 41], "Happiness, Sadness, Anger, Fear stand at 1, 2, 6, 4 in AffectNet"
    assert clip[:, 2].tolist() == [0, 1, 2, 3]


def test_pairs_correlation_permutes_classes():
    names = ("Happiness", "Sadness", "Neutral", "Anger", "Surprise", "Disgust", "Fear")
    likeness = shared_units(names)
    assert np.isnan(likeness[2]).all() and likeness[4, 6] > likeness[0, 4], "Surprise is nearer to Fear"
    found = pairs_correlation(3 - 2 * np.nan_to_num(likeness), likeness)
    assert found["r"] == pytest.approx(-1) and found["classes"] == 6 and found["p"] <= 2 / 720 + 1e-9
    rng = np.random.default_rng(0)
    chance = [pairs_correlation(rng.normal(size=(7, 7)), likeness)["p"] for _ in range(20)]
    assert sum(p < 0.05 for p in chance) <= 4


# --- evidence over time ----------------------------------------------------------------------------------------------


def test_evidence_is_spearman_within_clips():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    evidence = [rng.random((t, 2)) for t in (6, 9, 12)]
    units = [rng.random((len(p), 3)) for p in evidence]
    units[1][:, 2] = 0.3                                      # never moves there
    found = unit_evidence(evidence, units, np.arange(3), draws=50)
    for k in range(2):
        for u in range(3):
            rho = [spearmanr(p[:, k], v[:, u])[0] for i, (p, v) in enumerate(zip(evidence, units)) if (i, u) != (1, 2)]
            assert found.value[k, u] == pytest.approx(np.mean(rho))
    assert found.clips.tolist() == [3, 3, 2]


def test_persons_and_resting_faces_do_not_correlate_but_motion_does():
    rng = np.random.default_rng(6)
    rest = rng.random(80)
    units = [np.column_stack([np.linspace(0, 1, 10), np.full(10, r), rng.random(10)]) for r in rest]
    evidence = [np.column_stack([u[:, 0] ** 3 + r, rng.random(10)]) for u, r in zip(units, rest)]
    found = unit_evidence(evidence, units, np.arange(80), draws=200)
    assert found.value[0, 0] == pytest.approx(1) and np.isnan(found.value[0, 1]) and found.clips[1] == 0
    assert found.low[0, 2] < 0 < found.high[0, 2] and abs(found.value[1, 0]) < 0.15


def test_foreign_tracks_keep_label_and_length_and_take_another_person():
    tracks = [np.full((3 + i, 2), float(i)) for i in range(6)]
    labels, people = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 3, 4])
    found = foreign_tracks(tracks, labels, people)
    assert [len(t) for t in found] == [len(t) for t in tracks]
    taken = [int(t[0, 0]) for t in found]
    assert taken[0] == taken[1] == 2 and taken[2] in (0, 1) and taken[3:5] == [4, 3] and taken[5] != 5


# --- two readings ----------------------------------------------------------------------------------------------------


def test_pools():
    p = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.0, 0.9, 0.1], [0.2, 0.3, 0.5]])
    assert {rule: pool_frames([p], rule).item() for rule in POOLS} == {"mean": 1, "vote": 0, "surest": 1, "last": 2}


def test_shared_classes_meet_by_name():
    names, columns = shared_classes(("neutral", "Happy", "Anger"), ("Happiness", "Contempt", "angry"))
    assert names == ("Happiness", "angry")
    assert columns["static"].tolist() == [1, 2] and columns["dynamic"].tolist() == [0, 2]
    with pytest.raises(ValueError, match="two are the least"):
        shared_classes(("Fear", "Anger"), ("Happiness", "angry"))


def test_numbered_classes_never_meet():
    """Class 0 of one order is another expression than class 0 of another, so numbers must not be taken for names."""
    with pytest.raises(ValueError, match="the 2 of its head 'video' stand"):
        shared_classes(("Happiness", "Anger"), ("class 0", "class 1"))
    with pytest.raises(ValueError, match="the 2 of its head 'image' stand"):
        shared_classes(("class 0", "class 1"), ("class 0", "class 1"))


class Bright(nn.Module):
    """A still's logits are its mean colour; a clip's those of its last picture: both readings can be told by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sharp * (x if x.ndim == 4 else x[:, :, -1]).mean((-2, -1))


def test_read_twice_reads_drawn_clips_as_any_others(tmp_path: Path):
    from dataclasses import replace

    from s4d_lib.datasets.readers import read_dataset
    from s4d_lib.synthetic_faces.folders import write_faces
    from s4d_lib.synthetic_faces.recipes import RECIPES

    recipe = RECIPES["easy"]
    write_faces(tmp_path / "faces", replace(recipe, clip=replace(recipe.clip, frames=(12, 16), clips_per_identity=1)),
                stills=0, clips=5, seed=3, progress=False, frames=("mp4",))
    clips = tmp_path / "faces" / "clips"
    samples = read_dataset(clips, "dfew", "train", frames="clip_mp4", fold=1)
    classes = {"image": ("Anger", "Fear", "Happiness"), "video": ("Happiness", "Sadness", "Anger")}
    card = SimpleNamespace(classes=classes, image_size=(32, 32), frames=4, stride=2)
    found = read_twice(samples, SimpleNamespace(model=Bright(), card=card), every=2, progress=False)
    assert found.classes == ("Happiness", "Anger") and found.dynamic.shape == (len(samples), 2)
    for p, frames, units in zip(found.static, found.frames, drawn_units(clips / "truth.npz", found)):
        assert p.shape == (len(frames), 2) and len(units) == len(frames) and (np.diff(frames) == 2).all()
        np.testing.assert_allclose(p.sum(1), 1)
    names = ("Happiness", "Sadness", "Neutral", "Anger", "Surprise", "Disgust", "Fear")
    for label, sample in zip(found.labels, samples):
        assert label == {"Happiness": 0, "Anger": 1}.get(names[sample.label], -1)


@pytest.mark.parametrize("heads, samples, message", [
    ({"video": ("Anger", "Fear")}, [1], "lone cannot read frame by frame: it has no head 'image', only 'video'"),
    ({"image": ("Anger", "Fear")}, [1], "lone cannot read as clips: it has no head 'video', only 'image'"),
    ({"image": ("Anger", "Fear"), "video": ("Anger", "Fear")}, [], "there is no clip to read"),
])
def test_read_twice_says_what_it_lacks(heads: dict, samples: list, message: str):
    with pytest.raises(ValueError, match=message):
        read_twice(samples, SimpleNamespace(card=SimpleNamespace(name="lone", classes=heads)))


def test_action_units_of_ones_own_clips(tmp_path: Path):
    """Any .npz in the layout of our truth serves; what does not fit is named with its file."""
    course = np.arange(5 * len(ACTION_UNITS), dtype=float).reshape(5, -1)  # clip b: rows 0, 1; clip a: rows 2 to 4
    whole = {"ids": np.array(["b", "a"]), "offsets": np.array([0, 2, 5]), "action_units": course}
    read = SimpleNamespace(ids=["a", "b"], frames=[np.array([0, 2]), np.array([1])])
    file = tmp_path / "units.npz"
    np.savez(file, **whole)
    first, second = drawn_units(file, read)
    np.testing.assert_array_equal(first, course[[2, 4]])
    np.testing.assert_array_equal(second, course[[1]])
    for change, message in (({"ids": np.array(["b", "c"])}, "has no clip 'a'; its first is 'b'"),
                            ({"offsets": np.array([0, 3, 5])}, "2 rows for clip 'a', of which frame 2 was read"),
                            ({"action_units": course[:, 1:]}, r"action_units must be \[frames"),
                            ({"offsets": None}, "holds no offsets")):
        np.savez(file, **{key: value for key, value in (whole | change).items() if value is not None})
        with pytest.raises(ValueError, match=f"units.npz: .*{message}"):
            drawn_units(file, read)


def test_figures_have_alt_text_and_marks():
    found = draw_signed_matrix(np.array([[1.0, np.nan], [-2.0, 0.0]]), ["a", "b"], ["c", "d"], "t", unit="points",
                               marked=np.array([[True, False], [False, False]]))
    assert "points" in found.layout.meta["alt"] and len(found.layout.shapes) == 1 and found.data[0].zmax == 2
    t = np.arange(4) / 10
    assert "below" in draw_two_readings(t, {"Anger": t}, {"AU 4": t}, "t").layout.meta["alt"]
    alone = draw_two_readings(t, {"Anger": t}, {}, "t", "frame")
    assert "below" not in alone.layout.meta["alt"] and alone.layout.xaxis.title.text == "frame"
    assert len(draw_recalls(np.ones((3, 2)), np.ones((3, 2)), ("Anger", "Fear"), "t").data) == 4
