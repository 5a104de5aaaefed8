"""Every training step and every inference of the library, base and large, on a device that gives nothing back."""

import pytest
import torch
from fake_accelerator import FakeAccelerator
from fake_dtypes import Dtypes, fake_cpu
from fake_stages import (
    ALLOWED,
    ANSWERS,
    STAGES,
    NoOptimizer,
    Stepper,
    answering,
    batch_of,
    finetuning,
    job_of,
    landmark_batch,
    landmark_job,
    optimizer_of,
    specks,
    take_step,
)

LARGE = [stage for stage in STAGES if not stage.startswith("s2d")]  # S2D was published in one size


def on_accelerator(stage: str, size: str, modalities: tuple[str, ...], optimise: bool) -> None:
    """One training step a modality, then the answer to one window of each, as `s4d predict` asks for it."""
    config = STAGES[stage](size)
    with FakeAccelerator() as device:
        job, loop = job_of(config)
        for part in (job.model, *job.keep.values()):
            part.to(device.name)
        if job.begin_epoch is not None:
            job.begin_epoch(loop.epochs - 1)
        optimizer = optimizer_of(job) if optimise else NoOptimizer()
        for modality in modalities:
            batch = batch_of(config, modality)
            with device.step(ALLOWED):
                take_step(job, loop, modality, batch, Stepper(device.name), optimizer)
        if stage != "pretraining":
            job.model.eval()
            for modality in config.modalities:
                with device.step(ANSWERS):
                    answering(job.model, device.name)(batch_of(config, modality, 1)["x"][0])


@pytest.mark.parametrize("stage", STAGES)
def test_base(stage: str) -> None:
    on_accelerator(stage, "base", STAGES[stage]("base").modalities, optimise=stage == "fine-tuning")


@pytest.mark.parametrize("stage", LARGE)
def test_large(stage: str) -> None:
    """Clips only: stills take the same way, and base has gone it with both."""
    on_accelerator(stage, "large", ("clip",), optimise=False)


@pytest.mark.parametrize("training", [True, False])
def test_landmark_network(training: bool) -> None:
    """The released width: a step, and the features that S2D reads."""
    with FakeAccelerator() as device:
        job, loop = landmark_job()
        net = job.model.to(device.name)
        with device.step(ALLOWED):
            if training:
                take_step(job, loop, "image", landmark_batch(), Stepper(device.name), NoOptimizer())
            else:
                net.eval().features(torch.rand(2, 3, 224, 224, device=device.name))


@pytest.mark.parametrize("stage", ["pretraining", "fine-tuning with experts", "s2d video model"])
def test_dtypes(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under bfloat16 autocast. Dtypes do not know sizes, so one block stands for all; other stages are parts."""
    specks(monkeypatch)
    config = STAGES[stage]("speck")
    if stage == "fine-tuning with experts":
        config = config.model_copy(update={"moae_blocks": (0,)})
    with fake_cpu():
        job, loop = job_of(config)
        if job.begin_epoch is not None:
            job.begin_epoch(loop.epochs - 1)
        optimizer = optimizer_of(job)
        for modality in config.modalities:
            with Dtypes():
                take_step(job, loop, modality, batch_of(config, modality), Stepper("cpu", torch.bfloat16), optimizer)
        kept = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, torch.Tensor)]
        held = [*job.model.parameters(), *(p.grad for p in job.model.parameters() if p.grad is not None), *kept]
        assert {x.dtype for x in held} == {torch.float32}
        if stage != "pretraining":
            job.model.eval()
            with Dtypes(ANSWERS), torch.autocast("cpu", torch.bfloat16):
                for modality in config.modalities:
                    answering(job.model, "cpu")(batch_of(config, modality, 1)["x"][0])


OPTIONS = {
    "router quiet": {"mode": "moae", "router": "quiet"}, "router frozen": {"mode": "moae", "router": "frozen"},
    "router uniform": {"mode": "moae", "router": "uniform"},
    "router task": {"mode": "moae", "router": "task", "experts": 2},
    "reference": {"mode": "moae", "behaviour": "reference"}, "no capacity": {"mode": "moae", "capacity_factor": 9.0},
    "settings": {"mode": "joint", "pool": "positions", "dropout": 0.5, "shuffle_stills": True, "clip_norm": 1.0,
                 "optimizer_states": "separate", "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0},
    "micro-batches": {"mode": "joint", "accumulate": 2},
    "s2d as released": {"mode": "dfer", "system": "s2d", "landmarks": "random", "sdl": True, "behaviour": "reference",
                        "sdl_update_every": 1, "tma_init": "released"},
    "s2d without prompts": {"mode": "dfer", "system": "s2d", "prompts": False, "freeze": False},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("recompute", [False, True])
def test_options(option: str, recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that take other ways through the code; experts by capacity, as on a GPU when they are many."""
    if recompute and option not in ("reference", "s2d without prompts"):
        pytest.skip("recomputing is one way for all settings")
    specks(monkeypatch)
    monkeypatch.setattr("s4d_lib.layers.mixing.DENSE_ELSEWHERE", 0)
    asked = OPTIONS[option]
    config = finetuning("speck", **({"moae_blocks": (0,)} if asked["mode"] == "moae" else {}) | asked)
    allowed = ALLOWED | {"training/loop.py::_backward": config.accumulate}
    with FakeAccelerator() as device:
        job, loop = job_of(config)
        for part in (job.model, *job.keep.values()):
            part.to(device.name)
        if job.begin_epoch is not None:
            job.begin_epoch(loop.epochs - 1)
        job.model.set_grad_checkpointing(recompute)
        for modality in config.modalities:
            with device.step(allowed):
                take_step(job, loop, modality, batch_of(config, modality), Stepper(device.name), optimizer_of(job))
