"""The typed view of a laboratory record: every committed one reads through it, and says what its JSON says."""

import base64
from dataclasses import asdict

import numpy as np
import pytest

from s4d_lib.files import RESULTS
from s4d_lib.lab.cells import Cell
from s4d_lib.lab.records import LabRecord, MethodRuns, encode
from s4d_lib.lab.rerun import rerun
from s4d_lib.records import Record, read_record


def committed() -> list[str]:
    return sorted(path.stem for path in RESULTS.glob("*.json") if '"methods": {' in path.read_text())


def test_the_committed_records_are_those_of_the_laboratory():
    assert {"transfer_screening", "transfer_harm", "s2d_stages", "routing_inspection", "pretraining_arms",
            "emotion_transfer"} <= set(committed())


@pytest.mark.parametrize("name", committed())
def test_a_committed_record_says_through_the_view_what_its_json_says(name):
    record = read_record(RESULTS / f"{name}.json")
    lab, kept = LabRecord.of(record), record.results["cells"]
    assert list(lab.cells) == list(kept)
    for cell, here in lab.cells.items():
        assert here.cell() == Cell(**kept[cell]["factors"]) and here.cell().name == cell
        assert list(here.methods) == list(kept[cell]["methods"])
        for method, runs in here.methods.items():
            row = kept[cell]["methods"][method]
            assert {"coded_answers" if key == "answers" else key for key in row} == set(runs.metrics)
            assert all(runs.each(key) == value for key, value in row.items() if key != "answers")
            assert {len(runs.each(key)) for key in runs.metrics} == {len(runs.seeds)}, "one entry a seed"
            if runs.coded_answers is None:
                continue
            predicted = runs.answers()
            assert predicted.shape == (len(runs.seeds), len(here.test.labels)) and predicted.dtype == np.int64
            if runs.war is not None:  # a rule of routing_inspection has answers alone
                assert runs.war == pytest.approx(list(100 * (predicted == here.test.labels).mean(1)))
    assert all(cell in lab.cells for cell in lab.alone.values())


# --- made up ---------------------------------------------------------------------------------------------------------


def small() -> Record:
    rows = [np.array([0, 1, 2]), np.array([2, 1, 0])]
    methods = {"joint": {"seeds": [7, 3], "war": [100.0, 33.3], "answers": [encode(row) for row in rows]}}
    test = {"labels": [0, 1, 2], "people": [0, 0, 1], "classes": ["a", "b", "c"], "order_dependent": [0, 1, 1]}
    cells = {"centre": {"factors": asdict(Cell()), "test": "t", "methods": methods}}
    return Record(name="small", kind="study", headline="", wall_seconds=0, peak_memory_mb=0,
                  results={"tests": {"t": test}, "cells": cells})


def test_answers_are_chosen_and_ordered_by_seed():
    runs = LabRecord.of(small()).cell("centre").methods["joint"]
    assert runs.answers().tolist() == [[0, 1, 2], [2, 1, 0]]
    assert runs.answers([3, 7]).tolist() == [[2, 1, 0], [0, 1, 2]] and runs.answers([3]).tolist() == [[2, 1, 0]]


def test_answers_are_one_byte_a_clip():
    assert base64.b64decode(encode(np.array([0, 6, 255]))) == b"\x00\x06\xff"


def test_what_is_not_there_is_named():
    lab = LabRecord.of(small())
    runs = lab.cell("centre").methods["joint"]
    with pytest.raises(ValueError, match="joint of cell 'centre' has no image_war; it has seeds, war, coded_answers"):
        runs.each("image_war")
    with pytest.raises(ValueError, match="has no coded_answers"):
        MethodRuns("centre", "sfer", [1]).answers()
    with pytest.raises(ValueError, match="small has no cell 'here'; it has 'centre'"):
        lab.cell("here")


def test_a_key_that_nobody_knows_and_a_record_of_another_kind_are_refused():
    unknown = small()
    unknown.results["cells"]["centre"]["methods"]["joint"]["wra"] = [1.0, 2.0]
    with pytest.raises(TypeError, match="wra"):
        _ = LabRecord.of(unknown).cells
    other = small().model_copy(update={"results": {"cells": {}}})
    with pytest.raises(ValueError, match="small is no record of the transfer laboratory"):
        LabRecord.of(other)
    with pytest.raises(ValueError, match="holds no cell that can be trained again"):
        rerun(other)
