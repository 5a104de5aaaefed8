"""How much of a small network's training step is the network: the laboratory's steps beside their bare arithmetic.

    python ci/benchmarks/small_steps.py [--steps 30] [--repeats 9] [--rows "nano clips" …]

A row trains through the loop of `s4d train` (reading, variation, mixing, seeds, clipping, schedule, log and all) on
drawn faces that lie in memory. Between its epochs an equal network takes as many steps on batches that are ready:
forward, backward, update. One thread, CPU seconds, both in turn. JSON: milliseconds a step, and the median of the
ratios loop / bare with its range from the lower to the upper 95 % bound (order statistics).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s4d_lib.lab.cells import Cell, run_config
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.data import Split, split_data
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.jobs import finetune_job
from s4d_lib.training.loop import Job, Loop, run_job
from s4d_lib.training.tiers import finetuning

NANO = {"clips": "dfer", "stills": "sfer", "joint": "joint"}  # methods of the laboratory, faces of 48 pixels
TINY = {"clips": "dfer", "stills": "sfer"}                    # modes, faces of 64 pixels, which are resampled
ROWS = [f"nano {kind}" for kind in NANO] + [f"tiny {kind}" for kind in TINY]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--steps", type=int, default=30, help="of each kind in turn")
    words.add_argument("--repeats", type=int, default=9)
    words.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    asked = words.parse_args()
    torch.set_num_threads(1)
    print(json.dumps({name: step_ratio(name, asked.steps, asked.repeats) for name in asked.rows}, indent=1))


def step_ratio(row: str, steps: int = 30, repeats: int = 9) -> dict[str, Any]:
    """One row: `{"loop_ms", "bare_ms", "ratio", "low", "high", "ratios"}`; the first two turns are not counted."""
    size, kind = row.split()
    changes = {"clip_steps": steps, "epochs": repeats + 2, "warmup_epochs": 1}
    config = (run_config(Cell(clips=160), NANO[kind], 0, "smoke", **changes) if size == "nano" else
              finetuning("smoke", TINY[kind], **changes))
    split = split_data(config)
    job, loop = _job(config, split)
    bare, spent, marks = _bare(config, split), {"loop": [], "bare": []}, []

    def turn(_: int | None = None) -> None:
        """Called between two epochs: the loop's clock stands while the bare steps are taken."""
        if marks:
            spent["loop"].append(time.process_time() - marks.pop())
            spent["bare"].append(_seconds(bare))
        marks.append(time.process_time())

    job.begin_epoch = turn
    with tempfile.TemporaryDirectory() as folder:
        run_job(job, loop, Path(folder), "bench")
    return _summary(spent["loop"][1:], spent["bare"][1:], len(job.plan(0)))


def _job(config: FinetuneConfig, split: Split) -> tuple[Job, Loop]:
    classes = {m: len(config.schema(m)) for m in config.modalities}
    return finetune_job(config, build_classifier(config), split.train, classes)


def _bare(config: FinetuneConfig, split: Split) -> Callable[[], None]:
    """The steps of an epoch on batches that are prepared already."""
    job, loop = _job(config, split)
    rng = np.random.default_rng(0)
    ready = [(step.modality, job.prepare(job.data[step.modality, 0, step.indices], rng)) for step in job.plan(0)]
    optimizer = torch.optim.AdamW(job.groups, lr=loop.lr, betas=job.betas, fused=True)
    job.model.train()

    def steps() -> None:
        for modality, batch in ready:
            job.loss(job.model, modality, batch).backward()
            optimizer.step()
            optimizer.zero_grad()

    return steps


def _seconds(act: Callable[[], None]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def _summary(loop: list[float], bare: list[float], steps: int) -> dict[str, Any]:
    ratios = sorted(a / b for a, b in zip(loop, bare))
    # Ranks between which the median lies in 95 of 100 samples, by the binomial distribution.
    cut = max(0, int(np.floor((len(ratios) - 1.96 * np.sqrt(len(ratios))) / 2)))
    return {"loop_ms": 1e3 * statistics.median(loop) / steps, "bare_ms": 1e3 * statistics.median(bare) / steps,
            "ratio": statistics.median(ratios), "low": ratios[cut], "high": ratios[-1 - cut], "ratios": ratios}


if __name__ == "__main__":
    main()
