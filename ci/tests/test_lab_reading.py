"""lab/reading.py on a record made up in the laboratory's format, whose differences are known."""

import base64

import numpy as np
import pytest

from s4d_lib.lab import reading
from s4d_lib.lab.cells import Cell
from s4d_lib.lab.reading import converged, family, grid, has, methods_of, pair, recalls, resolve, screening_effects
from s4d_lib.metrics.contrasts import contrast
from s4d_lib.records import Record

LABELS = np.tile(np.arange(4), 30)             # 120 clips, 30 people
PEOPLE = np.repeat(np.arange(30), 4)
ORDER = (np.arange(120) % 3 == 0).astype(int)


def row(right: float, seeds=(0, 1), updates: int = 100, validation: float | None = None) -> dict:
    """A method that is right on the first clips, one more or less by seed."""
    answers = []
    for seed in seeds:
        count = round(120 * right / 100) + seed % 2
        answers.append(np.where(np.arange(120) < count, LABELS, (LABELS + 1) % 4).astype(np.uint8))
    war = [100 * float((one == LABELS).mean()) for one in answers]
    return {"seeds": list(seeds), "war": war, "uar": war, "updates": [updates] * len(seeds),
            "validation_war": [right if validation is None else validation] * len(seeds),
            "answers": [base64.b64encode(one.tobytes()).decode() for one in answers]}


def entry(factors: Cell, **methods: dict) -> dict:
    from dataclasses import asdict

    return {"factors": asdict(factors), "test": "t", "methods": methods}


def record(cells: dict, **more) -> Record:
    test = {"labels": LABELS.tolist(), "people": PEOPLE.tolist(), "order_dependent": ORDER.tolist(),
            "classes": ["a", "b", "c", "d"]}
    return Record(name="made_up", kind="study", headline="", wall_seconds=0, peak_memory_mb=0,
                  results={"tests": {"t": test}, "cells": cells} | more)


def one_cell(**more: dict) -> Record:
    methods = {"dfer": row(50), "dfer_x3": row(60, updates=300), "dfer_x6": row(59.5, updates=600),
               "dfer_same_compute": row(55, updates=150), "joint": row(58), "moae_clean": row(58)}
    return record({"here": entry(Cell(ratio=4), **methods | more)})


def test_clips_alone_are_taken_at_the_length_that_validation_prefers():
    assert converged(one_cell(), "here") == ("dfer_x3", True), "its longer neighbour is within a point"
    lonely = one_cell(dfer_x3=row(60, updates=300), dfer_x6=row(64, updates=600))
    assert converged(lonely, "here") == ("dfer_x6", False), "still rising"
    chosen = one_cell(dfer=row(10, validation=99.0))
    assert converged(chosen, "here")[0] == "dfer", "by validation, whatever the test score"


def test_equal_compute_is_found_by_length_and_not_by_name():
    assert resolve(one_cell(), "here", "same_compute") == "dfer_x3", "four steps of stills cost two of clips"
    cheap = record({"here": entry(Cell(ratio=1), dfer=row(50), dfer_x2=row(51, updates=150), joint=row(50))})
    assert resolve(cheap, "here", "same_compute") == "dfer_x2"
    assert not has(record({"here": entry(Cell(), joint=row(50))}), "here", "joint", "same_compute")


def test_a_pair_is_paired_by_seed():
    made = one_cell(joint=row(58, seeds=(2, 1, 0)), dfer=row(50, seeds=(1, 0, 5)))
    found = pair(made, "here", "joint", "dfer", draws=200)
    assert len(found.values) == 2 and found.value == pytest.approx(100 * (70 - 60) / 120)
    assert reading.values(made, "here", "joint", "dfer") == pytest.approx(found.values)
    halves = [pair(made, "here", "joint", "dfer", clips=kind, draws=200).value for kind in ("order", "plain")]
    share = ORDER.mean()
    assert share * halves[0] + (1 - share) * halves[1] == pytest.approx(found.value)
    with pytest.raises(ValueError, match="no seed in common"):
        pair(one_cell(joint=row(58, seeds=(7,))), "here", "joint", "dfer")
    with pytest.raises(ValueError, match="has no cagrad"):
        pair(made, "here", "cagrad", "dfer")


def test_a_pair_is_the_contrast_of_the_rows_that_share_a_seed():
    made = one_cell(joint=row(58, seeds=(7, 8, 9)), dfer=row(50, seeds=(9, 7, 5)))
    joint, dfer = (methods_of(made, "here")[name].answers() for name in ("joint", "dfer"))
    for clips, subset in (("all", None), ("order", ORDER == 1), ("plain", ORDER == 0)):
        by_hand = contrast(joint[[0, 2]], dfer[[1, 0]], LABELS, PEOPLE, subset=subset, draws=100)
        assert pair(made, "here", "joint", "dfer", clips=clips, draws=100) == by_hand


def test_a_study_without_a_record_is_named_with_the_command_that_makes_it():
    with pytest.warns(reading.NotRecorded, match="no_such_study: no record yet; `s4d study no_such"):
        assert reading.recorded("no_such_study") is None
    assert reading.recorded("transfer_long").name == "transfer_long"


def test_the_primary_family_is_the_plan_s_and_is_judged_once():
    """Five contrasts of two records, Holm over all five: the smallest p is multiplied by five and by nothing else."""
    seeds = tuple(range(6))
    clips = entry(Cell(), dfer=row(50, seeds), dfer_x3=row(58, seeds, 300), dfer_x10=row(70, seeds, 1000))
    headline = record({"here": entry(Cell(ratio=4), joint=row(60, seeds), moae_clean=row(61, seeds)), "alone": clips},
                      alone={"here": "alone"})
    long = record({"there": entry(Cell(ratio=2), joint_x10=row(80, seeds), moae_clean_x10=row(80, seeds)),
                   "alone": entry(Cell(), dfer_x10=row(75, seeds, 1000))}, alone={"there": "alone"})
    found = reading.primary(headline, long)
    assert {name: round(one.found.value, 1) for name, one in found.items()} == {
        "here: joint - same_compute": 1.7, "here: joint - converged": -10.0, "here: moae_clean - joint": 0.8,
        "there: joint_x10 - dfer_x10": 5.0, "there: moae_clean_x10 - joint_x10": 0.0}
    raw = {name: one.found.p for name, one in found.items()}
    least = min(raw, key=raw.__getitem__)
    assert found[least].p == pytest.approx(min(1, 5 * raw[least]))
    assert found["there: moae_clean_x10 - joint_x10"].word == "equivalent"


def test_harm_and_cheap_answers_are_two_families():
    seeds, names = tuple(range(6)), ("joint_light", "joint_clipped", "joint_wide", "adapters", "moae_reference")
    others = {name: row(47 + k, seeds) for k, name in enumerate(names)}
    made = record({"bad": entry(Cell(noise="heavy"), joint=row(40, seeds), moae_clean=row(43, seeds), **others),
                   "right": entry(Cell(), joint=row(49, seeds)), "alone": entry(Cell(), dfer=row(50, seeds))},
                  alone={"bad": "alone", "right": "alone"})
    cell, asked, cheap = reading.harm(made)
    assert cell == "bad" and set(cheap) == set(names)
    assert {name: one.word for name, one in asked.items()} == {"joint - dfer": "below", "moae_clean - joint": "above"}
    for judged, count in ((asked, 2), (cheap, 5)):
        raw = min(one.found.p for one in judged.values())
        assert min(one.p for one in judged.values()) == pytest.approx(min(1, count * raw))
    missing = record({"bad": made.results["cells"]["bad"]}, alone={"bad": "alone"})
    with pytest.raises(ValueError, match="has no dfer"):  # a family of the plan is judged whole or not at all
        reading.harm(missing)


def test_recall_by_class_adds_up():
    found = recalls(one_cell(), "here", "joint", "dfer", draws=200)
    assert np.mean([one.value for one in found.values()]) == pytest.approx(
        pair(one_cell(), "here", "joint", "dfer", "uar", draws=200).value)


def test_runs_of_clips_alone_serve_several_cells():
    cells = {"alone": entry(Cell(), dfer=row(50)), "one": entry(Cell(noise="none"), joint=row(55)),
             "two": entry(Cell(noise="heavy"), joint=row(45))}
    made = record(cells, alone={"one": "alone", "two": "alone"})
    assert methods_of(made, "one")["dfer"].cell == "alone"
    assert pair(made, "one", "joint", "dfer", draws=100).value == pytest.approx(5)
    assert pair(made, "two", "joint", "dfer", draws=100).value == pytest.approx(-5)


def test_a_family_is_judged_together():
    made = one_cell()
    alone = family(made, {"one": ("here", "joint", "dfer")})
    several = family(made, {"one": ("here", "joint", "dfer"), "two": ("here", "moae_clean", "joint"),
                            "absent": ("here", "upgrad", "joint")})
    assert list(several) == ["one", "two"] and several["one"].p >= alone["one"].p
    assert several["two"].word == "undecided" and several["two"].found.value == 0  # two seeds decide nothing


def test_effects_and_grids_from_a_record():
    from itertools import product

    cells, levels, design = {"alone": entry(Cell(), dfer=row(50))}, [], []
    for clips, ratio in product((-1, 1), repeat=2):
        name = f"{clips} {ratio}"
        design.append(name)
        levels.append([clips, ratio])
        dials = Cell(clips=200 if clips < 0 else 800, ratio=1 if ratio < 0 else 4)
        cells[name] = entry(dials, joint=row(50 + 5 * clips))
    made = record(cells, design=design, grid=design, levels=levels, factors={"clips": [200, 800], "ratio": [1, 4]},
                  alone=dict.fromkeys(design, "alone"))
    effects = {one.name: one.value for one in screening_effects(made, "joint", "dfer")}
    assert effects["clips"] == pytest.approx(10) and effects["ratio"] == pytest.approx(0)
    x, y, found = grid(made, ("clips", "ratio"), "joint", "dfer")
    assert x.tolist() == [200, 200, 800, 800] and y.tolist() == [1, 4, 1, 4]
    assert found.mean(1) == pytest.approx([-5, -5, 5, 5])
