"""configs × seeds → grid     the same cells over several seeds, each a resumable run, and what they say together.

A cell is a configuration under a name; a grid trains every cell with every seed, two one-thread processes at a time
where that pays. Stopping and starting again trains only what is missing. Derived in chapters 07 and 08.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from s4d_lib.files import runs_root
from s4d_lib.metrics.scores import over_seeds
from s4d_lib.progress import Progress
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.runs import Run, train

Grid = dict[str, list[Run]]  # cell → one run a seed


def run_grid(cells: dict[str, FinetuneConfig], seeds: Sequence[int] | None, jobs: int = 1,
             root: Path | None = None) -> Grid:
    """Train or load every cell with every seed, or with its own if `seeds` is None.

    One failing run stops the grid; what finished stays on disk. Several jobs train one process each.
    """
    wanted = [(name, config.model_copy(update={"seed": seed})) for name, config in cells.items()
              for seed in seeds or (config.seed,)]
    root = root or runs_root()
    runs: dict[tuple[str, int], Run] = {}
    with Progress(len(wanted), "grid") as bar:
        if jobs == 1:
            for name, config in wanted:
                runs[name, config.seed] = train(config, root)
                bar.update()
        else:
            # spawn: a forked child would inherit the parent's threads and video readers in an unusable state
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
                waiting = {pool.submit(train, config, root, processes=1): (name, config.seed)
                           for name, config in wanted}
                for done in as_completed(waiting):
                    runs[waiting[done]] = done.result()
                    bar.update()
    return {name: [runs[name, seed] for seed in seeds or (config.seed,)] for name, config in cells.items()}


def one_thread() -> None:
    """What every process of a pool begins with: several at a time pay only if each keeps to one thread."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def scores(runs: list[Run], modality: str = "clip", metric: str = "war") -> list[float]:
    """One test score a seed, in percent."""
    return [run.record.results[f"test_{modality}"][metric]["value"] for run in runs]


def summarise(grid: Grid) -> dict[str, dict]:
    """Cell → test WAR and UAR of every task it has: values over seeds and their mean with a 95 % t interval."""
    table: dict[str, dict] = {}
    for name, runs in grid.items():
        table[name] = {"seconds": float(np.mean([run.record.wall_seconds for run in runs])),
                       "updates": [run.record.results["updates"] for run in runs]}
        for modality in ("clip", "image"):
            if f"test_{modality}" in runs[0].record.results:
                table[name] |= {f"{modality}_{metric}": _spread(scores(runs, modality, metric))
                                for metric in ("war", "uar")}
    return table


def paired(grid: Grid, one: str, other: str, modality: str = "clip", metric: str = "war") -> dict:
    """`one` minus `other`, seed by seed: the seeds share samples, so the difference is steadier than the scores."""
    return _spread([a - b for a, b in zip(scores(grid[one], modality, metric), scores(grid[other], modality, metric))])


def _spread(values: list[float]) -> dict:
    """Values over seeds, their mean and its 95 % t interval, None where one seed has none."""
    if len(values) == 1:  # one seed has no spread, and JSON has no infinity
        return {"values": values, "value": values[0], "low": None, "high": None}
    return {"values": values, **asdict(over_seeds(values))}


def study_record(name: str, headline: str, grid: Grid, outcome: dict, *, tier: str, protocol: dict) -> Record:
    """One record for a grid: configurations once, results over seeds, cost summed over all runs."""
    runs = [run for cell in grid.values() for run in cell]
    return Record(
        name=name, kind="study", headline=headline, tier=tier, protocol=protocol, data=runs[0].record.data,
        config={cell: several[0].record.config for cell, several in grid.items()}, results=summarise(grid) | outcome,
        seeds=[run.record.seeds[0] for run in next(iter(grid.values()))], code=code_state(), device=device_state(),
        wall_seconds=sum(run.record.wall_seconds for run in runs), peak_memory_mb=max(
            [peak_memory_mb()] + [run.record.peak_memory_mb for run in runs]),
    )
