"""stage → one step on the fake accelerator: every training step and every inference of the library, as it runs them.

A stage is a job of `training/jobs.py`, `training/s2d.py` or `lab/landmark_training.py`, whose samples are names alone;
the step is the own update of `training/loop.py`. Batches have two rows, enough for every mean over rows and for mixing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from s4d_lib.datasets.samples import Sample
from s4d_lib.models.landmark_net import LANDMARK_PIXELS, POINTS
from s4d_lib.models.s2d import S2D_SIZES
from s4d_lib.models.sizes import SIZES, Size
from s4d_lib.training import loop as training_loop
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig, geometry
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.jobs import finetune_job, pretrain_job
from s4d_lib.training.loop import Job, Loop
from s4d_lib.training.plans import Step
from s4d_lib.training.s2d import s2d_job

if TYPE_CHECKING:
    import pytest

ROWS = 2
# What may wait for the device in one step of one row of calls, and why.
ALLOWED = {
    "training/loop.py::_backward": 1,   # the loss: a step is not taken on NaN
    "training/loop.py::_update": 1,     # the gradient's norm, likewise
}
ANSWERS = {
    "predict/video.py::_Queue.flush": 1,         # the answers leave the device
    "training/scoring.py::probabilities": 1,
}


def finetuning(size: str, mode: str, **settings: Any) -> FinetuneConfig:
    return FinetuneConfig(name="fake", size=size, mode=mode, **settings)


def specks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size "speck" of both systems: nano with one block, so that a step is short."""
    fields = {field.name: getattr(SIZES["nano"], field.name) for field in dataclasses.fields(Size)}
    monkeypatch.setitem(SIZES, "speck", Size(**fields | {"depth": 1, "decoder_depth": 1}))
    monkeypatch.setitem(S2D_SIZES, "speck", S2D_SIZES["nano"] | {"depth": 1})


STAGES: dict[str, Callable[[str], Config]] = {
    "pretraining": lambda size: PretrainConfig(name="fake", size=size),
    "fine-tuning": lambda size: finetuning(size, "joint"),
    "fine-tuning with experts": lambda size: finetuning(size, "moae"),
    "s2d image model": lambda size: finetuning(size, "sfer", system="s2d", landmarks="random"),
    # With self-distillation, whose queues are read and filled in the step.
    "s2d video model": lambda size: finetuning(size, "dfer", system="s2d", landmarks="random", sdl=True),
}


def names(modality: str, schema: str | None, count: int = 2 * ROWS) -> list[Sample]:
    """Samples that nobody will read."""
    return [Sample(f"{i}", Path(f"{modality}{i}"), i % 2, modality, schema=schema) for i in range(count)]


def job_of(config: Config) -> tuple[Job, Loop]:
    """The job of a configuration on samples that are names alone."""
    if isinstance(config, PretrainConfig):
        return pretrain_job(config, {m: names(m, None) for m in config.modalities})
    samples = {m: names(m, config.schema(m).name) for m in config.modalities}
    classes = {m: len(config.schema(m)) for m in config.modalities}
    make = s2d_job if config.system == "s2d" else finetune_job
    return make(config, build_classifier(config), samples, classes)


def batch_of(config: Config, modality: str, rows: int = ROWS) -> dict[str, Tensor]:
    """A batch as the loader hands it over, on the CPU."""
    side, frames = geometry(config)
    rows = max(rows, getattr(config, "replicate", 1))  # the views of one clip come together
    h, w = (side, side) if isinstance(side, int) else side
    return {"x": torch.randn((rows, 3, h, w) if modality == "image" else (rows, 3, frames, h, w)),
            "label": torch.zeros(rows, dtype=torch.long), "index": torch.arange(rows)}


class Stepper:
    """What the loop asks of Accelerate and of an optimiser, without either: no state, no device but the one given."""

    scaler = None
    param_groups: list = []

    def __init__(self, device: str, precision: torch.dtype | None = None) -> None:
        self.device, self.precision = torch.device(device), precision

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, self.precision) if self.precision else nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Iterator[nn.Parameter], norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, norm)


class NoOptimizer:
    """An optimiser that takes no step, where another size has taken it."""

    def step(self) -> None:
        pass

    def zero_grad(self) -> None:
        pass


def optimizer_of(job: Job) -> torch.optim.Optimizer:
    """As the loop makes it."""
    return training_loop.adamw(job.groups, 1e-3, job.betas, job.separate, plain=False)


def take_step(job: Job, loop: Loop, modality: str, batch: dict, stepper: Stepper, optimizer: Any) -> float:
    """The loop's own update on one batch."""
    rows = len(batch["x"]) // getattr(job.data.parts[modality], "replicate", 1)
    step = Step(modality, tuple(range(rows)))
    weights = list(job.model.parameters())
    return training_loop._update(job, loop, stepper, job.model, weights, optimizer, [(step, batch)], 0)


def answering(model: nn.Module, device: str) -> Callable[[Tensor], None]:
    """`s4d predict`'s own way from one window to its probabilities."""
    from s4d_lib.predict.video import _Queue

    queue = _Queue(SimpleNamespace(model=model), SimpleNamespace(device=torch.device(device), batch=1, precision="no"))
    return lambda x: queue.add(x, lambda row: None)


def landmark_job() -> tuple[Job, Loop]:
    """The landmark network of the released width, on faces that are noise."""
    from s4d_lib.lab import landmark_training as lab

    faces = Noise(4)
    with mock.patch.object(lab, "faces_for", lambda config, part: faces):
        return lab.landmark_job(lab.LandmarkConfig(width=1.0, ema=None), Path("unused"))


def landmark_batch(rows: int = ROWS) -> dict[str, Tensor]:
    """A batch of noise as the loader hands faces over."""
    return default_collate([Noise(rows)[i] for i in range(rows)])


class Noise:
    """Faces as `DrawnFaces` hands them over."""

    replicate = 1

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": torch.randint(0, 256, (3, LANDMARK_PIXELS, LANDMARK_PIXELS), dtype=torch.uint8),
                "points": torch.rand(POINTS, 2), "yaw": torch.zeros(())}
