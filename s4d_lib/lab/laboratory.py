"""cells, methods, seeds → runs     the transfer laboratory at work: hundreds of small runs, and floors beside them.

`run_lab` trains what a study plans or loads what is there; the dials and methods are in `cells.py`, the record of
what the runs said in `records.py`. Derived in chapter 08.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from s4d_lib.analysis.floors import floors
from s4d_lib.files import RESULTS
from s4d_lib.lab.cells import Cell, run_config
from s4d_lib.lab.grid import run_grid
from s4d_lib.metrics.scores import Scores
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.runs import Run

PROTOCOL = RESULTS / "protocol_transfer.yaml"


def run_lab(wanted: Iterable[tuple[Cell, str, int]], tier: str = "laptop", phase: str = "explore", jobs: int = 2,
            root: Path | None = None, **changes: Any) -> dict[tuple[Cell, str, int], Run]:
    """Train or load (cell, method, seed) runs, `jobs` one-thread processes at a time; what finished stays on disk."""
    wanted = list(dict.fromkeys(wanted))
    configs = {f"{number}": run_config(cell, method, seed, tier, phase, **changes)
               for number, (cell, method, seed) in enumerate(wanted)}
    grid = run_grid(configs, None, jobs, root)
    return {one: grid[f"{number}"][0] for number, one in enumerate(wanted)}


def lab_floors(cell: Cell, tier: str, phase: str, seed: int) -> dict[str, Scores]:
    """Majority, pixel ridge and random encoder on the samples of one seed of a cell."""
    config = run_config(cell, "dfer", seed, tier, phase)
    train, validation = training_split(config, "clip", read_samples(config, "clip", "train"))
    split = {"train": train, "validation": validation, "test": read_samples(config, "clip", "test")}
    return floors(split, config.schema("clip").classes, config.size, config.stride)


def plan(part: str) -> dict:
    """The part of the committed protocol that a study follows, with its version."""
    import yaml

    text = yaml.safe_load(PROTOCOL.read_text())
    return {"version": text["version"], "file": f"chapters/results/{PROTOCOL.name}", part: text[part]}
