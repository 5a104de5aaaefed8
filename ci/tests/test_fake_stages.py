"""Every training step and every inference of the library, base and large, on a device that gives nothing back."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from fake_accelerator import FakeAccelerator, Waits
from fake_dtypes import Dtypes, fake_cpu
from fake_stages import (
    ALLOWED,
    ANSWERS,
    STAGES,
    NoOptimizer,
    Stepper,
    answering,
    batch_of,
    job_of,
    landmark_batch,
    landmark_job,
    optimizer_of,
    take_step,
)
from torch._subclasses.fake_tensor import DynamicOutputShapeException

# A stage that waits for the device today, and where; an entry that is no longer true fails.
WAITING = {"fine-tuning with experts": "layers/adapters.py::MixtureOfAdapterExperts._dispatch"}
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


def outcome(stage: str) -> AbstractContextManager:
    """No error, or the one that is known."""
    return pytest.raises(Waits, match=WAITING[stage]) if stage in WAITING else nullcontext()


@pytest.mark.parametrize("stage", STAGES)
def test_base(stage: str) -> None:
    with outcome(stage):
        on_accelerator(stage, "base", STAGES[stage]("base").modalities, optimise=stage == "fine-tuning")


@pytest.mark.parametrize("stage", LARGE)
def test_large(stage: str) -> None:
    """Clips only: stills take the same way, and base has gone it with both."""
    with outcome(stage):
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


@pytest.mark.parametrize("stage", STAGES)
def test_dtypes(stage: str) -> None:
    """Under bfloat16 autocast; the rules of dtypes do not know sizes, so nano stands for all."""
    config = STAGES[stage]("nano")
    with fake_cpu(), nullcontext() if stage not in WAITING else pytest.raises(DynamicOutputShapeException):
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
