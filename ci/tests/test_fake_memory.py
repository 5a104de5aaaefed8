"""Predicted peak memory of a step, from fake tensors, beside what PyTorch's allocator was asked for on this CPU."""

import gc

import pytest
import torch
from fake_dtypes import Held, fake_cpu
from fake_stages import STAGES, NoOptimizer, Stepper, batch_of, job_of, take_step
from torch import Tensor

from s4d_lib.training.configs import Config
from s4d_lib.training.costs import counted

ROWS = 8
STEPS = [("pretraining", "image", None), ("fine-tuning with experts", "clip", torch.bfloat16)]


def predicted(config: Config, modality: str, precision: torch.dtype | None, rows: int = ROWS) -> int:
    """Bytes that a step holds at most beside weights and batch; nothing is allocated."""
    with fake_cpu():
        job, loop = job_of(config)
        batch, stepper = batch_of(config, modality, rows), Stepper("cpu", precision)
        with Held([*job.model.parameters(), *job.model.buffers(), *batch.values()]) as held:
            take_step(job, loop, modality, batch, stepper, NoOptimizer())
    return held.peak


def measured(config: Config, modality: str, precision: torch.dtype | None) -> int:
    """The same from the allocator's own record."""
    job, loop = job_of(config)
    batch, stepper = batch_of(config, modality, ROWS), Stepper("cpu", precision)
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        take_step(job, loop, modality, batch, stepper, NoOptimizer())
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize(("stage", "modality", "precision"), STEPS)
def test_predicted_beside_measured(stage: str, modality: str, precision: torch.dtype | None) -> None:
    config = STAGES[stage]("nano")
    a, b = predicted(config, modality, precision), measured(config, modality, precision)
    assert a == pytest.approx(b, rel=0.15), f"predicted {a / 1e6:.1f} MB, measured {b / 1e6:.1f} MB"


def test_cost_of_a_sample() -> None:
    """`s4d cost` counts what is kept for the backward pass; the peak is that and the tensors of the moment."""
    config = STAGES["fine-tuning"]("nano")
    more = (predicted(config, "clip", torch.bfloat16, 16) - predicted(config, "clip", torch.bfloat16, 8)) / 8
    assert 1.0 < more / 1e6 / counted(config, "clip").saved_mb < 1.6


def test_control_nothing_kept() -> None:
    """Without a graph a step holds a part of that: the count sees what autograd keeps."""
    config = STAGES["fine-tuning"]("nano")
    with fake_cpu():
        job, _ = job_of(config)
        x: Tensor = batch_of(config, "clip", ROWS)["x"]
        with Held([*job.model.parameters(), x]) as held, torch.no_grad():
            job.model(x)
    assert held.peak < predicted(config, "clip", None) / 3
