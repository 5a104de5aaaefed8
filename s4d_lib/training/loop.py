"""model → run     one loop for every stage on Accelerate: schedule, precision, checkpoints, exact resume.

The loop knows nothing about faces. A `Job` tells it the model, the parameter groups, the steps of an epoch, the loss of
a step and, if there is one, a validation. Everything random in a step is seeded by (seed, number of the step), so a run
that was killed and started again ends in the same numbers as one that was not. Derived in chapters 06 and 07.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from s4d_lib import distributed
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.precision import device_of, refuse_precision
from s4d_lib.progress import Progress
from s4d_lib.training.divergence import Diverged, NotFinite, blamed, gradient_norm, is_finite, keep, tell
from s4d_lib.training.optimizers import adamw, unwrapped
from s4d_lib.training.plans import Mixed, Step, keys, seed_torch, seeded
from s4d_lib.training.state import MetricsLog, Progressed, load_state, reached, save_state
from s4d_lib.training.steps import LossOf, Part, StepShare, full, meeting, shard
from s4d_lib.training.stopping import Held, between_steps

if TYPE_CHECKING:
    from accelerate import Accelerator
    from timm.scheduler import CosineLRScheduler
    from timm.utils import ModelEmaV3
    from torch.optim import Optimizer

    from s4d_lib.training.remedies import Combiner


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
    """What the loop runs.

    `prepare(batch, rng)` makes of a batch what the loss reads; `loss(model, modality, batch)` is the mean loss, a
    scalar, of one micro-batch of it.
    """

    model: nn.Module
    groups: list[dict]               # parameter groups; `lr_scale` in a group scales its learning rate
    betas: tuple[float, float]
    plan: Callable[[int], list[Step]]
    data: Mixed
    prepare: Callable[[dict, np.random.Generator], dict]
    loss: Callable[[nn.Module, str, dict], Tensor]
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    selects: str | None = None       # the validation value that chooses the epoch (larger is better); None: last
    save_best: Callable[[nn.Module], Path | None] | None = None  # returns the file it wrote
    label: str = "training"
    combiner: Combiner | None = None  # a remedy: two neighbouring steps become one, their gradients combined by it
    heads: Mapping[str, Sequence[nn.Parameter]] = field(default_factory=dict)  # modality → what it alone trains, for it
    separate: bool = False           # AdamW keeps a state for each modality
    begin_epoch: Callable[[int], None] | None = None  # called with the epoch's number, also after resuming inside it
    after_step: Callable[[nn.Module, str, dict], None] | None = None  # called with what the step was taken on
    observe: Callable[[], dict[str, float]] | None = None  # what a validation writes down beside its own values
    keep: dict[str, nn.Module] = field(default_factory=dict)  # what a run learns beside the model; checkpointed with it
    mixes: bool = True               # whether `prepare` looks across samples, so that it needs the whole batch


def run_job(job: Job, loop: Loop, folder: Path, fingerprint: str) -> Progressed:
    """Train until done, starting from the folder's checkpoint when there is one. Interrupting keeps what was done."""
    training = _Training(job, loop, folder, fingerprint)
    with between_steps() as stop:
        try:
            with Progress(training.total, job.label, training.where.update, silent=not distributed.is_first()) as bar:
                while training.where.epoch < loop.epochs:
                    training.epoch(bar, stop)
                training.agreed = True
                training.refuse_unsound()
        finally:  # an interrupt, an error in the data and the regular end all leave a checkpoint of whole steps
            training.save()
        distributed.barrier()
    job.model = training.whole_model() if training.averaged is None else job.model
    return training.where


class _Training:
    """One job on its way: model, optimiser, log and place, and what is done to them step by step."""

    def __init__(self, job: Job, loop: Loop, folder: Path, fingerprint: str) -> None:
        self.job, self.loop, self.folder, self.fingerprint = job, loop, folder, fingerprint
        self.accelerator = _accelerator(loop)
        network, self.plain = self._spread() if distributed.size() > 1 else (job.model, None)
        optimizer = adamw(job.groups, loop.lr, job.betas, job.separate,
                          plain=distributed.sharded() or loop.precision == "fp16")
        self.total = sum(len(job.plan(epoch)) for epoch in range(loop.epochs))
        self.scheduler = _scheduler(optimizer, loop, self.total)
        self.torn = False  # between the optimiser's step and the count of it: weights that belong to no whole step
        optimizer.register_step_pre_hook(lambda *_: setattr(self, "torn", True))
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer) if self.plain is None else (
            network, self.accelerator.prepare(optimizer))
        self.weights = list(self.model.parameters())  # finding them takes as long as clipping them
        if self.accelerator.scaler is None:
            self.optimizer = unwrapped(self.optimizer)  # Accelerate's adds nothing then, and looks for packages
        self.averaged = _averaged(job.model, loop)
        for part in job.keep.values():
            part.to(self.accelerator.device)
        found = load_state(folder, fingerprint, job.model, self.averaged, self.optimizer, self.accelerator.scaler,
                           job.keep)
        self.where = found or Progressed()
        self.log = MetricsLog(folder / "metrics.jsonl", self.where.update, distributed.is_first(),
                              {entry["update"] for entry in self.where.history})
        self.saved = self.started = time.monotonic()
        self.before = self.where.seconds
        self.agreed = False  # all ranks are at the same place

    def _spread(self) -> tuple[nn.Module, nn.Module | None]:
        """What several processes call, and, where each holds a part of the weights, a model for whole ones."""
        job, network = self.job, LossOf(self.job.model, self.job.loss)
        if any(isinstance(part, _BatchNorm) and part.training for part in network.train().modules()):
            raise Refused("batch norm would see a share of every batch; train this model in one process")
        if not distributed.sharded():
            return network, None
        if self.loop.ema is not None or job.after_step is not None or self.loop.precision == "fp16":
            raise Refused("an average of weights (ema), emotion anchors (sdl) and precision fp16 need whole weights "
                          "in every process: use method ddp, or bf16 in place of fp16")
        names = {p: name for name, p in job.model.named_parameters()}
        plain = copy.deepcopy(job.model)
        network.to(self.accelerator.device)
        shard(network, self.accelerator.device)
        now = dict(job.model.named_parameters())
        for group in job.groups:
            group["params"] = [now[names[p]] for p in group["params"]]
        return network, plain

    def whole_model(self) -> nn.Module:
        """The model with all of its weights, to validate and to save; where they are in parts, a copy."""
        if self.averaged is not None:
            return self.averaged.module
        if self.plain is None:
            return self.job.model
        self.plain.load_state_dict({name: full(value) for name, value in self.job.model.state_dict().items()})
        return self.plain.to(self.accelerator.device)

    def epoch(self, bar: Progress, stop: Held) -> None:
        """The steps of this epoch that are still to come, and its validation."""
        job, loop, where = self.job, self.loop, self.where
        if job.begin_epoch is not None:
            job.begin_epoch(where.epoch)
        steps = job.plan(where.epoch)[where.step :]
        for group in _together(zip(steps, _loader(job, loop, steps, where.epoch)), job):
            self.scheduler.step_update(where.update)
            try:
                loss = _update(job, loop, self.accelerator, self.model, self.weights, self.optimizer, group,
                               where.update)
            except NotFinite as error:
                raise self._diverged(str(error), group) from None
            if self.averaged is not None:
                self.averaged.update(job.model, step=where.update)
            where.step, where.update = where.step + len(group), where.update + 1
            self.torn = False
            modality = "+".join(step.modality for step, _ in group)
            self.log.add(update=where.update, epoch=where.epoch, modality=modality, loss=loss,
                         lr=scheduler_lr(self.optimizer))
            bar.update(loss=loss)
            self._pause(stop)
        if job.combiner is not None:
            job.combiner.end_epoch()
        _validate(job, loop, self.whole_model, where, self.log)
        where.epoch, where.step = where.epoch + 1, 0

    def _pause(self, stop: Held) -> None:
        """Between two steps: stop if any process was asked to, and write a checkpoint when it is time."""
        due = time.monotonic() - self.saved > 60 * self.loop.checkpoint_minutes
        asked, due = distributed.total([stop.asked, due and distributed.is_first()], self.accelerator.device)
        self.agreed = bool(asked)
        if asked:
            stop()
        if due:
            self.agreed = True
            self.refuse_unsound()
            self.save()
            self.agreed, self.saved = False, time.monotonic()

    def _saves(self) -> bool:
        forgetful = self.job.combiner is not None and self.job.combiner.forgets
        lost = self.torn or forgetful or (self.plain is not None and not self.agreed)
        return not lost and (self.plain is not None or is_finite(self.job.model))

    def refuse_unsound(self) -> None:
        """Diverged where a weight is no longer finite although every loss was."""
        if self.plain is None and not is_finite(self.job.model):
            raise self._diverged("weights are no longer finite", [])

    def _diverged(self, what: str, group: list[tuple[Step, dict]]) -> Diverged:
        """What the run says when it cannot go on; all ranks come to it at the same step."""
        self.agreed = True
        batch = {step.modality: _names(self.job, step) for step, _ in group}
        loaded = {step.modality: loaded for step, loaded in group} if distributed.size() == 1 else {}
        keep(self.folder, self.job.model, self.job.keep, loaded)
        return tell(self.folder, blamed(what, batch, loaded), self.where.update, scheduler_lr(self.optimizer), batch,
                    self.where.update if self._saves() else reached(self.folder), self.where.epoch)

    def save(self) -> None:
        """A checkpoint, unless the last step was applied by half, or weights lie in parts that others may have lost.

        Then the one before stands; as where weights are no longer finite, from which nobody could go on.
        """
        if not self._saves():
            return
        self.where.seconds = self.before + time.monotonic() - self.started
        if distributed.is_first():
            self.log.flush()
        save_state(self.folder, self.fingerprint, self.job.model, self.averaged, self.optimizer,
                   self.accelerator.scaler, self.where, self.job.keep)


def _together(steps: Iterable[tuple[Step, dict]], job: Job) -> Iterator[list[tuple[Step, dict]]]:
    """(step, batch) pairs in groups that make one optimiser step: one, or one of each task under a remedy."""
    waiting: list[tuple[Step, dict]] = []
    for one in steps:
        waiting.append(one)
        if len(waiting) == (2 if job.combiner is not None else 1):
            yield waiting
            waiting = []


def _update(job: Job, loop: Loop, accelerator: Accelerator, model: nn.Module, weights: list[nn.Parameter],
            optimizer: Optimizer, group: list[tuple[Step, dict]], update: int) -> float:
    """One optimiser step; returns its loss (the sum over tasks under a remedy)."""
    if not job.model.training:  # after a validation, which may know nothing of what is wrapped around the model
        model.train()           # walks through all layers, so not every time
    with seeded(loop.seed, update) as rng:
        shares = [_share(job, loop, step) for step, _ in group]
        ready = [(step.modality, share.prepare({name: _to(value, accelerator.device) for name, value in batch.items()},
                                               lambda whole: job.prepare(whole, rng)))
                 for share, (step, batch) in zip(shares, group)]
        if job.combiner is None:
            total = _backward(job, loop, accelerator, model, ready[0][0], shares[0].parts(ready[0][1]), update)
        else:
            total = _combined_backward(job, accelerator, model, ready)
        if not math.isfinite(total):
            raise NotFinite(f"the loss became {total}")
        norm = gradient_norm(weights) if loop.clip_norm is None else _clipped(accelerator, weights, loop.clip_norm)
        # In float16 such a step is left out and the next one scaled down; parts of gradients are not looked at.
        if accelerator.scaler is None and not distributed.sharded() and not math.isfinite(float(norm)):
            raise NotFinite(f"the gradient became {float(norm)} at a loss of {total:.4g}")
        if job.separate:
            unwrapped(optimizer).task = ready[0][0]
        optimizer.step()
        optimizer.zero_grad()
        if job.after_step is not None:  # still inside the step's random numbers, or a resumed run would draw others
            for share, (modality, batch) in zip(shares, ready):
                of_step, batch = share.own(batch)
                with accelerator.autocast(), distributed.sharing(of_step):
                    job.after_step(job.model, modality, batch)
        if job.combiner is not None and job.combiner.looks_again:  # it learns from the losses after the step
            with torch.no_grad():
                job.combiner.after_step(torch.stack([job.loss(model, m, batch) for m, batch in ready]))
    return total


def _clipped(accelerator: Accelerator, weights: list[nn.Parameter], most: float) -> Tensor:
    """Clip the gradients to a norm; what it was before."""
    if accelerator.scaler is not None or distributed.sharded():  # scaled, or in parts: Accelerate knows how
        return accelerator.clip_grad_norm_(weights, most)
    return torch.nn.utils.clip_grad_norm_(weights, most)


def _backward(job: Job, loop: Loop, accelerator: Accelerator, model: nn.Module, modality: str,
              parts: list[Part], update: int) -> float:
    """Gradients of one batch, micro-batch by micro-batch; returns its loss over all processes."""
    total = 0.0
    for i, part in enumerate(parts):
        if part.number:  # random numbers of its own, whichever process computes it
            seed_torch(int(np.random.SeedSequence([loop.seed, update, part.number]).generate_state(1)[0]))
        # Gradients meet once a step, after the last micro-batch.
        with distributed.sharing(part.share), meeting(model, last=i + 1 == len(parts)):
            with accelerator.autocast():
                loss = (job.loss(model, modality, part.batch) if distributed.size() == 1 else
                        model(modality, part.batch)) * part.weight
            accelerator.backward(loss * distributed.size())  # the mean over processes is taken where a sum is due
        total += float(loss.detach())
    return distributed.total([total], accelerator.device)[0]


def _combined_backward(job: Job, accelerator: Accelerator, model: nn.Module, ready: list[tuple[str, dict]]) -> float:
    """Gradients of one batch of each task, combined by the job's remedy; returns the sum of the losses."""
    from s4d_lib.training.remedies import backward

    with accelerator.autocast():
        losses = {modality: job.loss(model, modality, batch) for modality, batch in ready}
    own = {id(p) for head in job.heads.values() for p in head}
    shared = [p for p in job.model.parameters() if p.requires_grad and id(p) not in own]
    total = float(sum(loss.detach() for loss in losses.values()))
    if math.isfinite(total):
        backward(losses, shared, job.heads, job.combiner)
    return total


def _validate(job: Job, loop: Loop, whole_model: Callable[[], nn.Module], where: Progressed, log: MetricsLog) -> None:
    """At the end of an epoch. A stop inside it leaves no trace but a file: the resumed run validates again."""
    epoch = where.epoch + 1
    if job.validate is None or (epoch % loop.validate_every and epoch != loop.epochs):
        return
    model = whole_model()
    values = job.validate(model) | (job.observe() if job.observe is not None else {})
    best = job.selects is None or values[job.selects] > where.best
    if best and distributed.is_first():
        written = job.save_best(model)
        where.best_sha256 = sha256_of(written) if written is not None else ""
    if best:
        where.best, where.best_epoch = values.get(job.selects, math.nan), epoch
    where.history.append({"epoch": epoch, "update": where.update, **values})
    log.add(update=where.update, epoch=epoch, **values)


def _names(job: Job, step: Step) -> list[str]:
    """The files of a step, or their numbers where its data has none."""
    samples = getattr(job.data.parts[step.modality], "samples", None)
    return [str(samples[i].path) if samples else f"sample {i}" for i in step.indices]


def _share(job: Job, loop: Loop, step: Step) -> StepShare:
    part = job.data.parts[step.modality]
    return StepShare(len(step.indices), getattr(part, "replicate", 1), loop.accumulate, job.mixes)


def _accelerator(loop: Loop) -> Accelerator:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    refuse_precision(loop.precision, loop.device)
    AcceleratorState._reset_state()  # precision is global there; a second run in one process may want another
    # A step of stills leaves the head of clips without a gradient, which is no mistake.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(mixed_precision=loop.precision, cpu=device_of(loop.device) == "cpu",
                              kwargs_handlers=[unused])
    if accelerator.num_processes != distributed.size():
        raise RuntimeError(f"{accelerator.num_processes} processes were found where {distributed.size()} were "
                           "started; start them with train(…, processes=N), `s4d train --processes N` or torchrun")
    return accelerator


def _scheduler(optimizer: Optimizer, loop: Loop, total: int) -> CosineLRScheduler:
    from timm.scheduler import CosineLRScheduler

    warmup = min(round(total * loop.warmup_epochs / loop.epochs), total - 1)  # timm wants a step after it
    prefix = not loop.warmup_in_cosine
    return CosineLRScheduler(
        optimizer, t_initial=total - warmup if prefix else total, lr_min=loop.final_lr, warmup_t=warmup,
        warmup_lr_init=loop.start_lr, warmup_prefix=prefix, t_in_epochs=False)


def scheduler_lr(optimizer: Optimizer) -> float:
    """The learning rate of the least scaled group: the one the schedule speaks of."""
    return max(group["lr"] for group in optimizer.param_groups)


def _averaged(model: nn.Module, loop: Loop) -> ModelEmaV3 | None:
    if loop.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=loop.ema, use_warmup=True)


def _loader(job: Job, loop: Loop, steps: list[Step], epoch: int) -> DataLoader:
    if distributed.size() > 1:
        steps = [Step(step.modality, tuple(step.indices[i] for i in _share(job, loop, step).loads)) for step in steps]
    return DataLoader(job.data, batch_size=None, sampler=keys(steps, epoch), num_workers=loop.workers)


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
