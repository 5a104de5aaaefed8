"""runs → record     what hundreds of small runs said, kept in one record, and the typed way to read it back.

    lab_record(name, headline, runs, plan)            what every run said about every test clip, as JSON
    LabRecord.of(record).cells[cell].methods[name]    its seeds, scores and answers, under names instead of keys

Every published interval can be computed again from the answers. Derived in chapter 08.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.lab.cells import CLASSES, Cell, data_folders
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb
from s4d_lib.training.runs import Run

# --- writing -------------------------------------------------------------------------------------------------------


def lab_record(name: str, headline: str, runs: Mapping[tuple[Cell, str, int], Run], protocol: dict,
               tier: str = "laptop", phase: str = "explore", **more: Any) -> Record:
    """What every run said about every test clip, by cell and method; `LabRecord` reads it."""
    cells: dict[str, dict] = {}
    commits = sorted({str(run.record.code["commit"]) for run in runs.values()})  # that the runs were trained under
    tests: dict[str, dict] = {}
    for (cell, method, _), run in runs.items():
        test = f"sequence={cell.sequence:g}"
        entry = cells.setdefault(cell.name, {"factors": asdict(cell), "test": test, "methods": {}})
        row = entry["methods"].setdefault(method, {})
        for key, value in _row(run).items():
            row.setdefault(key, []).append(value)
        if test not in tests and "test_clip" in run.record.results:
            tests[test] = _test(run, Path(data_folders(cell, tier, phase)["clips"]))
    data = {repr(use): use for run in runs.values() for use in run.record.data}  # every set that some run has read
    return Record(
        name=name, kind="study", headline=headline, tier=tier, protocol=protocol, data=list(data.values()),
        config={f"{cell.name}: {method}": run.record.config for (cell, method, _), run in runs.items()},
        results={"tests": tests, "cells": cells, "commits": commits, **more},
        seeds=sorted({seed for _, _, seed in runs}),
        code=code_state(), device=device_state(), wall_seconds=sum(r.record.wall_seconds for r in runs.values()),
        peak_memory_mb=max([peak_memory_mb()] + [r.record.peak_memory_mb for r in runs.values()]))


def _row(run: Run) -> dict[str, Any]:
    """One run's entry in each list of `MethodRuns`."""
    scores, history = run.record.results, run.record.results["history"]
    row: dict[str, Any] = {"seeds": run.record.seeds[0], "updates": scores["updates"],
                           "seconds": round(run.record.wall_seconds, 1), "chosen_epoch": scores["chosen_epoch"]}
    saved = np.load(run.folder / "predictions.npz")
    for modality, prefix in (("clip", ""), ("image", "image_")):
        if f"test_{modality}" in scores:
            row |= {f"{prefix}{metric}": scores[f"test_{modality}"][metric]["value"] for metric in ("war", "uar")}
            row[f"{prefix}recall"] = [round(100 * c, 2) for c in _recall(saved, modality)]
            row[f"{prefix}validation_curve"] = [round(line[f"{modality}_war"], 2) for line in history]
    if "test_clip" in scores:
        row["validation_war"] = max(row["validation_curve"])
        row["answers"] = encode(saved["clip_probabilities"].argmax(1))
    return row


def _recall(saved: Any, modality: str) -> list[float]:
    predicted, labels = saved[f"{modality}_probabilities"].argmax(1), saved[f"{modality}_labels"]
    return [float((predicted[labels == c] == c).mean()) if (labels == c).any() else 0.0
            for c in range(saved[f"{modality}_probabilities"].shape[1])]


def _test(run: Run, folder: Path) -> dict[str, Any]:
    """The test clips of a drawn set, with what the truth beside them knows."""
    saved = np.load(run.folder / "predictions.npz")
    with np.load(folder / "truth.npz") as truth:
        kind = dict(zip(truth["ids"].tolist(), truth["kind_names"][truth["kinds"]].tolist()))
    return {"labels": saved["clip_labels"].tolist(), "classes": list(CLASSES),
            "people": np.unique(saved["clip_people"], return_inverse=True)[1].tolist(),
            "order_dependent": [int(kind[id] == "sequence") for id in saved["clip_ids"].tolist()]}


def encode(answers: np.ndarray) -> str:
    """Predicted classes `[clips]`, 0 to 255, as the text that a record keeps; `MethodRuns.answers` reads it."""
    return base64.b64encode(answers.astype(np.uint8).tobytes()).decode()


# --- reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method in one cell: lists with one entry a seed, None where these runs say nothing.

    Scores are percent of the test samples: `war`, `uar` and `recall` (one a class) of clips, `image_…` of stills.
    A validation curve holds the WAR of every epoch, `validation_war` its best.
    """

    cell: str
    name: str
    seeds: list[int]
    updates: list[int] | None = None
    seconds: list[float] | None = None
    chosen_epoch: list[int] | None = None
    war: list[float] | None = None
    uar: list[float] | None = None
    recall: list[list[float]] | None = None
    validation_curve: list[list[float]] | None = None
    validation_war: list[float] | None = None
    image_war: list[float] | None = None
    image_uar: list[float] | None = None
    image_recall: list[list[float]] | None = None
    image_validation_curve: list[list[float]] | None = None
    coded_answers: list[str] | None = None  # key "answers", see `encode`; read them with `answers()`

    @property
    def metrics(self) -> list[str]:
        """Names of the lists that these runs have."""
        return [one.name for one in fields(self)[2:] if getattr(self, one.name) is not None]

    def each(self, metric: str) -> list:
        """One value a seed of a metric by its name, such as "war"; ValueError where these runs do not have it."""
        if metric not in self.metrics:
            raise Refused(f"{self.name} of cell {self.cell!r} has no {metric}; it has {', '.join(self.metrics)}")
        return getattr(self, metric)

    def answers(self, seeds: Sequence[int] | None = None) -> np.ndarray:
        """The class predicted for every test clip, int64 `[seeds clips]`; `seeds` chooses and orders the rows."""
        rows = np.stack([np.frombuffer(base64.b64decode(text), np.uint8) for text in self.each("coded_answers")])
        kept = rows if seeds is None else rows[[self.seeds.index(seed) for seed in seeds]]
        return kept.astype(np.int64)


@dataclass(frozen=True)
class TestClips:
    """The test clips of a cell, int `[clips]`: labels (numbers of `classes`), people, whether a label needs order."""

    __test__ = False  # for pytest: the clips of a test list, not a test
    labels: np.ndarray
    people: np.ndarray
    classes: tuple[str, ...]
    order_dependent: np.ndarray | None = None


@dataclass(frozen=True)
class CellRuns:
    """One cell of a record: its dials, its test clips (None where no run scored clips) and its methods."""

    name: str
    factors: dict[str, Any]
    test: TestClips | None
    methods: dict[str, MethodRuns]

    def cell(self) -> Cell:
        """The dials as a `Cell`."""
        return Cell(**self.factors)


@dataclass(frozen=True)
class LabRecord:
    """A record of the laboratory by names: `cells` in the record's order, `alone` as `reading.py` explains it."""

    name: str
    results: Mapping[str, Any]

    @staticmethod
    def fits(record: Record) -> bool:
        """Whether a record is one of the laboratory: cells, and the test clips that their answers are about."""
        return {"cells", "tests"} <= set(record.results)

    @classmethod
    def of(cls, record: Record) -> LabRecord:
        """The view of a record; nothing is copied. ValueError for a record of another kind."""
        if not cls.fits(record):
            raise Refused(f"{record.name} is no record of the transfer laboratory: it keeps no cells with answers")
        return cls(record.name, record.results)

    @property
    def alone(self) -> dict[str, str]:
        """Cell → the cell that keeps the runs of clips alone for it; empty where each keeps its own."""
        return self.results.get("alone", {})

    @cached_property
    def cells(self) -> dict[str, CellRuns]:
        tests = {name: _test_clips(kept) for name, kept in self.results["tests"].items()}
        return {name: CellRuns(name, kept["factors"], tests.get(kept["test"]),
                               {method: _runs(name, method, row) for method, row in kept["methods"].items()})
                for name, kept in self.results["cells"].items()}

    def cell(self, name: str) -> CellRuns:
        """One cell; ValueError with the names that there are."""
        if name not in self.cells:
            raise Refused(f"{self.name} has no cell {name!r}; it has {', '.join(map(repr, self.cells))}")
        return self.cells[name]


def _test_clips(kept: Mapping[str, Any]) -> TestClips:
    order = kept.get("order_dependent")
    return TestClips(np.array(kept["labels"]), np.array(kept["people"]), tuple(kept["classes"]),
                     None if order is None else np.array(order))


def _runs(cell: str, method: str, row: Mapping[str, Any]) -> MethodRuns:
    known = {"coded_answers" if key == "answers" else key: value for key, value in row.items()}
    return MethodRuns(cell, method, **known)
