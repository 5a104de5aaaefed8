"""record → run     one run of a recorded study of the transfer laboratory, trained again and set beside its record.

    s4d rerun transfer_confirmatory                                   # a run picked by chance
    s4d rerun transfer_screening --cell "clips=1600 ratio=4" --method joint --seed 101

On the machine of the record the answers should be equal; on another, rounding moves a few of them, and the score should
lie within the spread of the seeds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.lab.cells import METHODS, SCALES, run_config
from s4d_lib.lab.pretraining_arms import ARMS, recorded_run
from s4d_lib.lab.records import CellRuns, LabRecord
from s4d_lib.records import DataUse, Record
from s4d_lib.training.runs import train

FROM_ENCODERS = tuple(f"dfer from {arm}" for arm in (*ARMS, "scratch"))  # methods of pretraining_arms


@dataclass(frozen=True)
class Again:
    """One run beside its record: WAR in percent, and the share of test clips that got the same answer."""

    cell: str
    method: str
    seed: int
    recorded: float
    found: float
    same_answers: float
    spread: tuple[float, float]  # lowest and highest recorded WAR over the seeds of this cell and method
    note: str = ""               # in what the data differs from that of the record

    def __str__(self) -> str:
        return self.note + (f"{self.cell}: {self.method}, seed {self.seed}: recorded WAR {self.recorded:.1f}, now "
                f"{self.found:.1f}; {self.same_answers:.1f} % of the answers are the same (seeds of this cell: "
                f"{self.spread[0]:.1f} to {self.spread[1]:.1f})")


def rerun(record: Record, cell: str | None = None, method: str | None = None, seed: int | None = None,
          root: Path | None = None, chance: random.Random | None = None) -> Again:
    """Train one recorded run again; what is not named is picked by `chance`. ValueError names what there is."""
    chance = chance or random.Random()
    cells = LabRecord.of(record).cells if LabRecord.fits(record) else {}
    cell = _pick(cell, [name for name, kept in cells.items() if _repeatable(kept)], "cell", chance)
    method = _pick(method, _repeatable(cells[cell]), "method", chance)
    before = cells[cell].methods[method]
    seed = _pick(seed, before.seeds, "seed", chance)
    dials = cells[cell].cell()
    if method in FROM_ENCODERS:
        wanted = recorded_run(dials, method, seed, record.tier)
    else:
        changes = _clipping(record, cell, method) | _tuned(record, method)
        wanted = run_config(dials, _known(method), seed, record.tier, _phase(record), **changes)
    run = train(wanted, root, retrain=True)
    predicted = np.load(run.folder / "predictions.npz")["clip_probabilities"].argmax(1)
    answers, place = before.answers(), before.seeds.index(seed)
    scores = 100 * (answers == cells[cell].test.labels).mean(1)
    return Again(cell, method, seed, float(scores[place]), run.record.results["test_clip"]["war"]["value"],
                 float(100 * (predicted == answers[place]).mean()), (float(scores.min()), float(scores.max())),
                 _difference(record.data, run.record.data))


def _difference(recorded: list[DataUse], now: list[DataUse]) -> str:
    """That drawn frames are not to a pixel those of the record: other machines round otherwise. No reason to refuse."""
    before = {use.name: use.sha256 for use in recorded}
    other = [use.name for use in now if before.get(use.name, use.sha256) != use.sha256]
    return f"note: frames of {', '.join(other)} differ from those of the record\n" if other else ""


def _pick(wanted: Any, known: list, what: str, chance: random.Random) -> Any:
    if not known:
        raise Refused(f"this record holds no {what} that can be trained again from it alone")
    if wanted is None:
        return chance.choice(known)
    if wanted not in known:
        raise Refused(f"no {what} {wanted!r} in this record; there are: {', '.join(map(str, known))}")
    return wanted


def _known(method: str) -> str:
    return method.removesuffix("_untuned")


def _repeatable(cell: CellRuns) -> list[str]:
    return [name for name, runs in cell.methods.items()
            if (_known(name) in METHODS or name in FROM_ENCODERS) and "coded_answers" in runs.metrics]


def _clipping(record: Record, cell: str, method: str) -> dict[str, float | None]:
    """Two studies train without clipping; the record says so, not the cell. Older records keep it by method alone."""
    recorded = record.config.get(f"{cell}: {method}", record.config.get(method, {}))
    return {"clip_norm": recorded["clip_norm"]} if "clip_norm" in recorded else {}


def _phase(record: Record) -> str:
    """Which faces the study drew: the seed of its plan says it."""
    part = next(value for value in record.protocol.values() if isinstance(value, dict))
    return next(name for name, seed in SCALES[record.tier].seeds.items() if seed == part["faces_seed"])


def _tuned(record: Record, method: str) -> dict[str, float]:
    """The setting that tuning chose for a method, if the study tuned it."""
    tried = record.results.get("tuning", {}).get(method)
    if tried is None:
        return {}
    return {tried["dial"]: float(max(tried["validation_war"], key=tried["validation_war"].__getitem__))}
