"""modality → encoder     what pretraining on stills, on clips or on both is worth later: the study of chapter 06.

Arms: masked pretraining on stills alone, on clips alone, on both, and none. A step holds 1024 tokens whatever its
modality (64 stills of 16, or 16 clips of 64), and every arm has the same number of steps; what they cost in seconds
stands in the record.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from s4d_lib.lab.cells import READING, Cell, faces, run_config
from s4d_lib.lab.grid import run_grid
from s4d_lib.lab.laboratory import plan
from s4d_lib.lab.records import lab_record
from s4d_lib.records import Record
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.runs import Run, train
from s4d_lib.weights.files import SHIPPED

ARMS: dict[str, tuple[str, ...]] = {"dual": ("image", "clip"), "image": ("image",), "clip": ("clip",)}
UNLABELLED_SEED = 20
# tier → (stills, clips, epochs of both): 150 steps of each modality an epoch at laptop tier
PRETRAINING = {"smoke": (300, 300, 1), "laptop": (12_000, 3000, 10), "full": (60_000, 15_000, 20)}


def pretraining(arm: str, seed: int, tier: str = "laptop") -> PretrainConfig:
    """One arm: the same number of steps for one modality as for two, masks and rates from the prototypes."""
    from s4d_lib.files import data_root
    from s4d_lib.synthetic_faces.folders import write_faces

    stills, clips, epochs = PRETRAINING[tier]
    folder = data_root() / f"lab-unlabelled-{stills}-{clips}-seed{UNLABELLED_SEED}"
    recipe = faces(Cell(shift="none"))  # nobody labels these, so noise is no question; the clips' own camera
    write_faces(folder, replace(recipe, name="lab, unlabelled"), stills, clips, UNLABELLED_SEED, frames=("mp4",))
    length = epochs * (2 if len(ARMS[arm]) == 1 else 1)
    return PretrainConfig(
        name=f"lab_pretrain_{arm}", tier=tier, size="nano", stills=str(folder / "stills"), clips=str(folder / "clips"),
        modalities=ARMS[arm], frames="clip_mp4", stride=2, cache=True, epochs=length, warmup_epochs=length / 20,
        batch_stills=64, batch_clips=16, mask_stills=0.6, mask_clips=0.8, target_epsilon=1e-2, replicate=1, lr=3e-3,
        clip_norm=2.0, seed=seed, **READING)


def lab_encoder(tier: str = "laptop", seeds: Sequence[int] = (0,), jobs: int = 1) -> Record:
    """Put the laboratory's encoder in its place: the dual arm, first seed."""
    run = train(pretraining("dual", seeds[0], tier))
    shutil.copyfile(run.weights, SHIPPED["nano_encoder"])
    return run.record


def pretraining_arms(tier: str = "laptop", seeds: Sequence[int] = (0, 1), jobs: int = 2) -> Record:
    """Scratch, stills, clips, both → fine-tuning on clips and on stills with few and many labels.

    Every pretraining seed meets three fine-tuning seeds, which draw the labels, so an arm has six runs a budget. The
    spread over them mixes both kinds of chance; the record keeps which is which.
    """
    arms = run_grid({f"{arm} {seed}": pretraining(arm, seed, tier) for arm in ARMS for seed in seeds}, None, jobs)
    wanted: dict[str, FinetuneConfig] = {}
    rows: list[tuple[Cell, str, int]] = []
    for labels in BUDGETS:
        for arm in (*ARMS, "scratch"):
            for number in range(TUNING_SEEDS * len(seeds)):
                init = None if arm == "scratch" else arms[f"{arm} {seeds[number // TUNING_SEEDS]}"][0].weights
                for task in ("dfer", "sfer"):
                    cell = Cell(clips=labels, init="random")
                    rows.append((cell, f"{task} from {arm}", FIRST_SEED + number))
                    wanted[f"{len(rows)}"] = fine_tuning(cell, task, FIRST_SEED + number, init, tier)
    grid = run_grid(wanted, None, jobs)
    runs: dict[tuple[Cell, str, int], Run] = {row: grid[f"{i + 1}"][0] for i, row in enumerate(rows)}
    cost = {arm: [arms[f"{arm} {seed}"][0].record.wall_seconds for seed in seeds] for arm in ARMS}
    losses = {arm: [arms[f"{arm} {seed}"][0].record.results["loss_last_tenth"] for seed in seeds] for arm in ARMS}
    return lab_record("pretraining_arms", f"{len(runs)} fine-tunings of {len(arms)} pretrained encoders", runs,
                      plan("pretraining_arms"), tier, pretraining={
                          "seconds": cost, "loss_last_tenth": losses,
                          "steps": arms[f"dual {seeds[0]}"][0].record.results["updates"]})


BUDGETS = (100, 400, 1600)  # labelled samples
FIRST_SEED, TUNING_SEEDS = 300, 3


def fine_tuning(cell: Cell, task: str, seed: int, init: Path | None, tier: str) -> FinetuneConfig:
    """One of the study's runs: clips ("dfer") or stills ("sfer") alone, with the cell's number of labels."""
    more = {"train_stills": cell.clips, "train_clips": None} if task == "sfer" else {}
    return run_config(cell, task, seed, tier, init=str(init) if init else None, **more)


def recorded_run(cell: Cell, method: str, seed: int, tier: str) -> FinetuneConfig:
    """The configuration behind "dfer from image" and a seed of the record; trains or loads its encoder."""
    task, arm = method.split(" from ")
    encoder = None if arm == "scratch" else train(pretraining(arm, (seed - FIRST_SEED) // TUNING_SEEDS, tier)).weights
    return fine_tuning(cell, task, seed, encoder, tier)

