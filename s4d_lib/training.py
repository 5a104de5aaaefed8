"""model → run     one loop for every stage on Accelerate: schedule, precision, checkpoints, exact resume.

The loop knows nothing about faces. A `Job` tells it the model, the parameter groups, the steps of an epoch, the loss of
a step and, if there is one, a validation. Everything random in a step is seeded by (seed, number of the step), so a run
that was killed and started again ends in the same numbers as one that was not. Derived in chapters 06 and 07.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from s4d_lib.optimizers import TaskAdamW, unwrapped
from s4d_lib.plans import Mixed, Step, collate, keys, seeded
from s4d_lib.progress import Progress

if TYPE_CHECKING:
    from s4d_lib.remedies import Combiner


# What these remedies remember is in no state dict of TorchJD: a stopped run of theirs starts from the beginning.
UNSAVED = ("uncertainty", "famo", "dwa", "gradvac")


@dataclass
class Loop:
    """The settings of the loop itself, in updates and seconds."""

    epochs: int
    lr: float                        # peak learning rate
    warmup_epochs: float = 0.0
    start_lr: float = 0.0            # where the warm-up begins
    final_lr: float = 0.0            # where the cosine ends
    warmup_in_cosine: bool = False   # True: the cosine runs from step 0 and the warm-up replaces its beginning
    seed: int = 0
    precision: str = "no"            # "no", "bf16" or "fp16", as in Accelerate
    accumulate: int = 1              # micro-batches a step is split into: same step, less memory
    clip_norm: float | None = None
    ema: float | None = None         # decay of an averaged copy of the weights
    workers: int = 0
    device: str = "auto"             # "auto" or "cpu"
    checkpoint_minutes: float = 5.0
    validate_every: int = 1          # epochs


@dataclass
class Job:
    """What the loop runs. `loss(model, modality, batch, rng, part)` returns the loss of one micro-batch."""

    model: nn.Module
    groups: list[dict]               # parameter groups; `lr_scale` in a group scales its learning rate
    betas: tuple[float, float]
    plan: Callable[[int], list[Step]]
    data: Mixed
    prepare: Callable[[dict, np.random.Generator], dict]
    loss: Callable[[nn.Module, str, dict], Tensor]
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    selects: str | None = None       # the validation value that chooses the epoch (larger is better); None: last
    save_best: Callable[[nn.Module], None] | None = None
    label: str = "training"
    combiner: Combiner | None = None  # a remedy: two neighbouring steps become one, their gradients combined by it
    separate: bool = False           # AdamW keeps a state for each modality
    begin_epoch: Callable[[int], None] | None = None  # called with the epoch's number, also after resuming inside it
    after_step: Callable[[nn.Module, str, dict], None] | None = None  # called with what the step was taken on
    observe: Callable[[], dict[str, float]] | None = None  # what a validation writes down beside its own values
    keep: dict[str, nn.Module] = field(default_factory=dict)  # what a run learns beside the model; checkpointed with it


@dataclass
class Progressed:
    """Where a run stands; what a checkpoint keeps beside tensors."""

    epoch: int = 0
    step: int = 0                    # steps done in this epoch
    update: int = 0                  # steps done in all
    best: float = -math.inf
    best_epoch: int = -1
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


def run_job(job: Job, loop: Loop, folder: Path, fingerprint: str) -> Progressed:
    """Train until done, starting from the folder's checkpoint when there is one. Interrupting keeps what was done."""
    accelerator = _accelerator(loop)
    kind = TaskAdamW if job.separate else torch.optim.AdamW
    optimizer = kind(job.groups, lr=loop.lr, betas=job.betas)
    total = sum(len(job.plan(epoch)) for epoch in range(loop.epochs))
    scheduler = _scheduler(optimizer, loop, total)
    model, optimizer = accelerator.prepare(job.model, optimizer)
    averaged = _averaged(job.model, loop)
    for part in job.keep.values():
        part.to(accelerator.device)
    where = load_state(folder, fingerprint, job.model, averaged, optimizer, accelerator.scaler, job.keep)
    where = where or Progressed()
    log = MetricsLog(folder / "metrics.jsonl", where.update)
    saved = started = time.monotonic()
    before = where.seconds

    def save() -> None:
        if job.combiner is not None and job.combiner.method in UNSAVED:
            return
        where.seconds = before + time.monotonic() - started
        log.flush()
        save_state(folder, fingerprint, job.model, averaged, optimizer, accelerator.scaler, where, job.keep)

    try:
        with Progress(total, job.label, done=where.update) as bar, between_steps() as stop_here:
            while where.epoch < loop.epochs:
                if job.begin_epoch is not None:
                    job.begin_epoch(where.epoch)
                steps = job.plan(where.epoch)[where.step :]
                for group in _together(zip(steps, _loader(job, loop, steps, where.epoch)), job):
                    scheduler.step_update(where.update)
                    loss = _update(job, loop, accelerator, model, optimizer, group, where.update)
                    if averaged is not None:
                        averaged.update(job.model, step=where.update)
                    where.step, where.update = where.step + len(group), where.update + 1
                    modality = "+".join(step.modality for step, _ in group)
                    log.add(update=where.update, epoch=where.epoch, modality=modality, loss=loss,
                            lr=scheduler_lr(optimizer))
                    bar.update(loss=loss)
                    stop_here()
                    if time.monotonic() - saved > 60 * loop.checkpoint_minutes:
                        save()
                        saved = time.monotonic()
                where.epoch, where.step = where.epoch + 1, 0
                if job.combiner is not None:
                    job.combiner.end_epoch()
                _validate(job, loop, averaged.module if averaged is not None else job.model, where, log)
        where.seconds = before + time.monotonic() - started
    finally:  # an interrupt, an error in the data and the regular end all leave a checkpoint of whole steps
        save()
    return where


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back until the caller asks, so that no step is left half applied.

    A second signal acts at once. Outside the main thread, where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hold(number: int, _frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    def stop_here() -> None:
        if caught:
            raise KeyboardInterrupt("stopped after a whole step; start the same run again to go on")

    for number in before:
        signal.signal(number, hold)
    try:
        yield stop_here
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _together(steps: Iterable[tuple[Step, dict]], job: Job) -> Iterator[list[tuple[Step, dict]]]:
    """(step, batch) pairs in groups that make one optimiser step: one, or one of each task under a remedy."""
    waiting: list[tuple[Step, dict]] = []
    for one in steps:
        waiting.append(one)
        if len(waiting) == (2 if job.combiner is not None else 1):
            yield waiting
            waiting = []


def _update(job: Job, loop: Loop, accelerator, model: nn.Module, optimizer, group: list[tuple[Step, dict]],
            update: int) -> float:
    """One optimiser step; returns its loss (the sum over tasks under a remedy)."""
    model.train()
    with seeded(loop.seed, update) as rng:
        ready = [(step.modality, job.prepare({name: _to(value, accelerator.device) for name, value in batch.items()},
                                             rng)) for step, batch in group]
        if job.combiner is None:
            total = _backward(job, loop, accelerator, model, *ready[0])
        else:
            total = _combined_backward(job, accelerator, model, ready)
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss became {total} at step {update} (epoch samples {group[0][0].indices[:4]} …, "
                f"{ready[0][0]}); lower the learning rate, or use precision 'no' or 'bf16'"
            )
        if loop.clip_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), loop.clip_norm)
        if job.separate:
            unwrapped(optimizer).task = ready[0][0]
        optimizer.step()
        optimizer.zero_grad()
        if job.after_step is not None:  # still inside the step's random numbers, or a resumed run would draw others
            with accelerator.autocast():
                for modality, batch in ready:
                    job.after_step(job.model, modality, batch)
        if job.combiner is not None and job.combiner.method == "famo":  # it learns from the losses after the step
            with torch.no_grad():
                job.combiner.after_step(torch.stack([job.loss(model, m, batch) for m, batch in ready]))
    return total


def _backward(job: Job, loop: Loop, accelerator, model: nn.Module, modality: str, batch: dict) -> float:
    """Gradients of one batch, split into `accumulate` micro-batches; returns its loss."""
    total, count = 0.0, len(batch["x"])
    for part in _split(batch, loop.accumulate):
        weight = len(part["x"]) / count
        with accelerator.autocast():
            loss = job.loss(model, modality, part) * weight
        accelerator.backward(loss)
        total += float(loss.detach())
    return total


def _combined_backward(job: Job, accelerator, model: nn.Module, ready: list[tuple[str, dict]]) -> float:
    """Gradients of one batch of each task, combined by the job's remedy; returns the sum of the losses."""
    from s4d_lib.remedies import backward

    with accelerator.autocast():
        losses = {modality: job.loss(model, modality, batch) for modality, batch in ready}
    own = {"image": "head.image.", "clip": "head.video."}
    heads = {m: [p for name, p in job.model.named_parameters() if name.startswith(own[m])] for m in losses}
    shared = [p for name, p in job.model.named_parameters() if p.requires_grad and not name.startswith("head.")]
    total = float(sum(loss.detach() for loss in losses.values()))
    if math.isfinite(total):
        backward(losses, shared, heads, job.combiner)
    return total


def _split(batch: dict, parts: int) -> list[dict]:
    chunks = {name: value.chunk(parts) for name, value in batch.items() if isinstance(value, Tensor)}
    return [dict(zip(chunks, values)) for values in zip(*chunks.values())]


def _validate(job: Job, loop: Loop, model: nn.Module, where: Progressed, log: MetricsLog) -> None:
    if job.validate is None or (where.epoch % loop.validate_every and where.epoch != loop.epochs):
        return
    values = job.validate(model) | (job.observe() if job.observe is not None else {})
    where.history.append({"epoch": where.epoch, "update": where.update, **values})
    log.add(update=where.update, epoch=where.epoch, **values)
    if job.selects is None or values[job.selects] > where.best:
        where.best, where.best_epoch = values.get(job.selects, math.nan), where.epoch
        job.save_best(model)


def _accelerator(loop: Loop):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # precision is global there; a second run in one process may want another
    accelerator = Accelerator(mixed_precision=loop.precision, cpu=loop.device == "cpu" or not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        raise RuntimeError("this loop trains in one process; start it without a distributed launcher")
    return accelerator


def _scheduler(optimizer, loop: Loop, total: int):
    from timm.scheduler import CosineLRScheduler

    warmup = round(total * loop.warmup_epochs / loop.epochs)
    prefix = not loop.warmup_in_cosine
    return CosineLRScheduler(
        optimizer, t_initial=total - warmup if prefix else total, lr_min=loop.final_lr, warmup_t=warmup,
        warmup_lr_init=loop.start_lr, warmup_prefix=prefix, t_in_epochs=False,
    )


def scheduler_lr(optimizer) -> float:
    """The learning rate of the least scaled group: the one the schedule speaks of."""
    return max(group["lr"] for group in optimizer.param_groups)


def _averaged(model: nn.Module, loop: Loop):
    if loop.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=loop.ema, use_warmup=True)


def _loader(job: Job, loop: Loop, steps: list[Step], epoch: int) -> DataLoader:
    return DataLoader(job.data, batch_sampler=keys(steps, epoch), num_workers=loop.workers, collate_fn=collate)


def _to(value, device: torch.device):
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


# --- what a killed run leaves behind ------------------------------------------------------------------------------


class MetricsLog:
    """metrics.jsonl: one line a step. Lines after the checkpoint that a run resumes from are cut, none stands twice."""

    def __init__(self, path: Path, update: int) -> None:
        self.path, self.waiting = path, []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["update"] <= update:
                        kept.append(line)
                except ValueError:  # the line that was being written when the run was killed
                    break
        _replace(path, "".join(line + "\n" for line in kept).encode())

    def add(self, **values: float | str) -> None:
        self.waiting.append(json.dumps(values))
        if len(self.waiting) >= 50:
            self.flush()

    def flush(self) -> None:
        with self.path.open("a") as file:
            file.writelines(line + "\n" for line in self.waiting)
        self.waiting = []


def save_state(folder: Path, fingerprint: str, model: nn.Module, averaged, optimizer, scaler, where: Progressed,
               keep: dict[str, nn.Module] | None = None) -> None:
    """checkpoint.safetensors: weights, their average, optimiser state and `keep` in one file, replaced in one step."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"ema.{name}": value for name, value in averaged.module.state_dict().items()}
    for part, module in (keep or {}).items():
        tensors |= {f"keep.{part}.{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"fingerprint": fingerprint, "progress": json.dumps(vars(where)),
              "scaler": json.dumps(scaler.state_dict() if scaler else None)}
    target = folder / "checkpoint.safetensors"
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    save_file(tensors, temporary, metadata=header)
    os.replace(temporary, target)


def load_state(folder: Path, fingerprint: str, model: nn.Module, averaged, optimizer, scaler,
               keep: dict[str, nn.Module] | None = None) -> Progressed | None:
    """Put a checkpoint back, or return None when the folder holds none. ValueError when it is another run's.

    RuntimeError when it lacks a part of `keep`: a run that goes on without what it had learned would be another run.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        header = file.metadata()
        if header["fingerprint"] != fingerprint:
            raise ValueError(f"{path}: this checkpoint belongs to another configuration; give the run another folder")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    model.load_state_dict(_under("model.", tensors))
    if averaged is not None:
        averaged.module.load_state_dict(_under("ema.", tensors))
    for part, module in (keep or {}).items():
        module.load_state_dict(_under(f"keep.{part}.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if scaler:
        scaler.load_state_dict(json.loads(header["scaler"]))
    return Progressed(**json.loads(header["progress"]))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
