"""logits → soft targets     emotion anchors: queues of earlier answers, and the targets that similar ones give (SDL).

For every class a queue keeps the last features and class probabilities of training samples with that label. A sample's
soft target is the mean answer of the most similar anchors of every class, weighted by cosine; a growing weight adds the
binary cross-entropy with it to the task's loss (arXiv 2312.05447). `AnchorSchedule` says when, `EmotionAnchors` holds
the queues and computes targets and loss, `read` and `collect` connect them with a model. Derived in chapter 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.errors import Refused

BEHAVIOURS = ("clean", "reference")
SILENT = 20                  # the released loss and queue rest up to and including this epoch of PUBLISHED
PUBLISHED = 100              # epochs of the released plan, whose numbers the three constants here are
RELEASED_RAMP = ((30, 0.0), (50, 0.01), (60, 0.1), (80, 0.5), (math.inf, 1.0))  # (before this epoch, weight)
RELEASED_UPDATE = 100        # epochs between updates in the one released script that switches the loss on (FERV39K)


@dataclass(frozen=True)
class AnchorSchedule:
    """When the loss counts, how much, and when the queues are filled: a pure function of the epoch (from 0).

    `epochs` is the length of the run; the released plan of 100 epochs is stretched to it. `update_every` is in epochs.

    clean      the queues are filled in the first epoch after the silent fifth and every `update_every` from there on,
               so no setting leaves them empty
    reference  filled where the epoch of the released plan divides by `update_every`, after the silent fifth. With the
               released 100 that is never (`SDL.py`, `engine_for_finetuning.py:149-154`, FERV39K script).
    """

    epochs: int = PUBLISHED
    update_every: int = 1
    ramp: tuple[tuple[float, float], ...] = RELEASED_RAMP
    behaviour: str = "clean"

    def __post_init__(self) -> None:
        _known(self.behaviour)
        if self.epochs < 1 or self.update_every < 1:
            raise Refused(f"epochs and update_every count from 1, got {self.epochs} and {self.update_every}")
        ends = [end for end, _ in self.ramp]
        if not ends or ends[-1] != math.inf or ends != sorted(set(ends)) or min(w for _, w in self.ramp) < 0:
            raise Refused(f"ramp must be (before epoch, weight) pairs in rising order, the last before infinity, no "
                          f"weight below 0; got {self.ramp}")
        if self.behaviour == "clean" and self.first >= self.epochs:
            raise Refused(f"a run of {self.epochs} epochs ends before self-distillation begins; use at least 2")

    @classmethod
    def released(cls, epochs: int = PUBLISHED) -> AnchorSchedule:
        """As the released FERV39K script sets it: the queues are never filled."""
        return cls(epochs, RELEASED_UPDATE, behaviour="reference")

    def position(self, epoch: int) -> int:
        """The epoch of the released plan that this epoch stands for."""
        return epoch * PUBLISHED // self.epochs

    @property
    def first(self) -> int:
        """First epoch that is not silent; in a run of one epoch it is past the end."""
        return -(-(SILENT + 1) * self.epochs // PUBLISHED)

    def weight(self, epoch: int) -> float:
        """Factor of the loss in this epoch; 0 where it is off."""
        if epoch < self.first:
            return 0.0
        return next(weight for end, weight in self.ramp if self.position(epoch) < end)

    def updates(self, epoch: int) -> bool:
        """Whether the steps of this epoch fill the queues."""
        if epoch < self.first:
            return False
        counted = self.position(epoch) if self.behaviour == "reference" else epoch - self.first
        return counted % self.update_every == 0


class SoftTargets(NamedTuple):
    """Targets `[b classes]`, and whether each sample has one, bool `[b]` (without: a row of zeros)."""

    values: Tensor
    known: Tensor


def gather_ranks(x: Tensor) -> Tensor:
    """Rows `[n …]` of this rank → the rows of all ranks in rank order, the same on each; in one process x itself.

    Ranks may hold different numbers of rows, as at the end of an epoch.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return x
    ranks = distributed.get_world_size()
    counts = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(ranks)]
    distributed.all_gather(counts, torch.tensor([len(x)], device=x.device))
    longest = max(int(count) for count in counts)
    padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])])  # all_gather wants equal shapes
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts)])


class EmotionAnchors(nn.Module):
    """SDL: a first-in first-out queue of `slots` anchors a class, soft targets from them, and the loss.

    `features` `[classes slots d]` and `outputs` `[classes slots classes]` (probabilities), both float32, and `pushed`
    `[classes]`, how many anchors ever came, are buffers: `state_dict` keeps all there is, so a resumed queue goes on
    where it stood. `gather` is called on what each rank pushes, so that every rank keeps the same queues.

    behaviour
      clean      Queues start empty and give no target until each class of `present` (None: all classes) holds
                 `neighbours` anchors. A negative cosine counts as 0, so a target is a mixture of probabilities.
      reference  Queues start full of uniform noise, features and outputs alike; cosines count with their sign, so a
                 target may leave 0 to 1; ranks share nothing (released `SDL.py`).
    """

    def __init__(self, num_classes: int, dim: int, slots: int = 16, neighbours: int = 2, behaviour: str = "clean",
                 present: Sequence[int] | None = None, gather: Callable[[Tensor], Tensor] = gather_ranks,
                 seed: int = 0) -> None:
        super().__init__()
        _known(behaviour)
        if min(num_classes, dim, neighbours) < 1 or slots < neighbours:
            raise Refused(f"num_classes, dim and neighbours must be at least 1 and slots at least neighbours; got "
                          f"{num_classes}, {dim}, {neighbours} and {slots}")
        present = list(range(num_classes)) if present is None else sorted(set(present))
        if not present or present[0] < 0 or present[-1] >= num_classes:
            raise Refused(f"present must name classes from 0 to {num_classes - 1}, got {present}")
        self.num_classes, self.dim, self.slots, self.neighbours = num_classes, dim, slots, neighbours
        self.behaviour, self.present, self.gather = behaviour, present, gather
        noise = torch.Generator().manual_seed(seed)
        start = torch.zeros if behaviour == "clean" else lambda *shape: torch.rand(*shape, generator=noise)
        self.register_buffer("features", start(num_classes, slots, dim))
        self.register_buffer("outputs", start(num_classes, slots, num_classes))
        self.register_buffer("pushed", torch.zeros(num_classes, dtype=torch.long))

    @property
    def filled(self) -> Tensor:
        """Anchors that each class holds, `[classes]`; noise counts."""
        return self.pushed.clamp(max=self.slots) if self.behaviour == "clean" else self.pushed * 0 + self.slots

    @property
    def ready(self) -> bool:
        """Whether every class that must be present holds enough anchors for a target."""
        return bool(self._enough())

    def _enough(self) -> Tensor:
        """`ready` where the queues are, so that nobody waits for the device."""
        return (self.filled[self.present] >= self.neighbours).all()

    def anchors(self, label: int) -> tuple[Tensor, Tensor]:
        """Features `[s d]` and outputs `[s classes]` of one class, oldest first; s is at most `slots`."""
        slots = torch.arange(self.slots, device=self.pushed.device)
        oldest = (self.pushed[label] + slots) % self.slots  # the next slot to be written over comes first
        oldest = oldest[-int(self.filled[label]):] if self.filled[label] else oldest[:0]
        return self.features[label, oldest], self.outputs[label, oldest]

    @torch.no_grad()
    def nearest(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[b d]` → cosine and slot of the most similar anchors of each class, both `[b classes neighbours]`.

        Where a class holds fewer, the cosine is -inf.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [b {self.dim}], got {list(features.shape)}")
        # Half precision would tie and reorder anchors whose cosines differ in the third digit.
        with _full_precision(features):
            cosine = torch.einsum("b d, c s d -> b c s", F.normalize(features.float(), dim=-1),
                                  F.normalize(self.features, dim=-1))
        empty = torch.arange(self.slots, device=cosine.device) >= self.filled[:, None]
        return tuple(cosine.masked_fill(empty, -math.inf).topk(self.neighbours, dim=-1))

    @torch.no_grad()
    def targets(self, features: Tensor) -> SoftTargets:
        """Features `[b d]` → Σ s·P / Σ s over the nearest anchors of all classes, s their cosine, P their outputs.

        No gradient flows through a target.
        """
        s, slot = self.nearest(features)
        clean = self.behaviour == "clean"
        s = s.clamp(min=0.0) if clean else s
        classes = torch.arange(self.num_classes, device=slot.device)[None, :, None]
        with _full_precision(features):
            summed = torch.einsum("b c k, b c k o -> b o", s, self.outputs[classes, slot])
        total = s.sum(dim=(1, 2))
        known = (total > 0) & self._enough() if clean else torch.ones_like(total, dtype=torch.bool)
        values = torch.where(known[:, None], summed / torch.where(known, total, 1.0)[:, None], 0.0)
        return SoftTargets(values, known)

    def loss(self, logits: Tensor, features: Tensor, weight: float) -> Tensor:
        """Weight times the binary cross-entropy of logits `[b classes]` with the soft targets of features `[b d]`.

        Mean over samples and classes (released `utils/loss.py`); a sample without a target counts as 0, so the parts
        of a divided batch add up to the whole. `weight` is `AnchorSchedule.weight(epoch)`; at 0 nothing is computed.
        """
        if logits.shape != (len(features), self.num_classes):
            raise ValueError(f"logits must be [{len(features)} {self.num_classes}], got {list(logits.shape)}")
        if weight == 0:
            return logits.new_zeros((), dtype=torch.float32)
        targets = self.targets(features)
        each = F.binary_cross_entropy_with_logits(logits.float(), targets.values, reduction="none")
        return weight * (each * targets.known[:, None]).mean()

    @torch.no_grad()
    def push(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Append samples to the queues of their labels, in the order of the batch; the oldest anchors leave.

        features `[b d]`, logits `[b classes]` (kept as probabilities), integer labels `[b]`.
        """
        if features.shape != (len(labels), self.dim) or logits.shape != (len(labels), self.num_classes):
            raise ValueError(f"features, logits and labels must be [b {self.dim}], [b {self.num_classes}] and [b], got "
                             f"{list(features.shape)}, {list(logits.shape)} and {list(labels.shape)}")
        rows = features.float(), logits.float().softmax(dim=-1), labels.long()
        if self.behaviour == "clean":
            rows = tuple(self.gather(row.contiguous()) for row in rows)
        features, outputs, labels = rows
        seen = len(labels) and labels.device.type == "cpu"  # an accelerator would be waited for
        if seen and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"labels must lie in 0..{self.num_classes - 1}, got {labels.tolist()}")
        own = F.one_hot(labels, self.num_classes)
        turn = (own.cumsum(dim=0) - own).gather(1, labels[:, None])[:, 0]  # which of its class in this batch, from 0
        slot = (self.pushed[labels] + turn) % self.slots
        # Of more than `slots` samples of a class the last stay. Two writes to one slot come in no certain order, so the
        # others go to a place beyond the queue, which is cut off: no shape depends on how many they are.
        stays = turn >= own.sum(dim=0)[labels] - self.slots
        slot = torch.where(stays, slot, self.slots)
        for kept, rows in ((self.features, features), (self.outputs, outputs)):
            room = F.pad(kept, (0, 0, 0, 1))
            room[labels, slot] = rows
            kept.copy_(room[:, :-1])
        self.pushed += own.sum(dim=0)

    def extra_repr(self) -> str:
        return (f"{self.num_classes} classes × {self.slots} slots of width {self.dim}, neighbours={self.neighbours}, "
                f"behaviour={self.behaviour!r}")


def read(model: nn.Module, *inputs: Any, behaviour: str = "clean") -> tuple[Tensor, Tensor]:
    """One pass of a model such as `S2DClassifier` → its logits `[b classes]`, and features `[b d]` for the anchors.

    The logits are those of `model(*inputs)`. The features are, in `clean`, the pooled latents before dropout: half of
    a vector at random resembles no anchor. In `reference` they are what the head read, after dropout while training
    (released `model_finetuning.py:175-195`).
    """
    _known(behaviour)
    latents = model.forward_features(*inputs)
    if behaviour == "reference":
        features = model.forward_head(latents, pre_logits=True)
        return model.get_classifier()(features), features
    with _evaluating(model.dropout):
        features = model.forward_head(latents, pre_logits=True)
    return model.get_classifier()(model.dropout(features)), features


@torch.no_grad()
def collect(anchors: EmotionAnchors, model: nn.Module, labels: Tensor, *inputs: Any) -> None:
    """Read a batch that was not mixed once more, after the step, and push it under its labels `[b]`.

    In `clean` the model is in evaluation mode meanwhile; in `reference` it stays as it is, which is training mode with
    dropout (released `engine_for_finetuning.py:149-154`).
    """
    with _evaluating(model) if anchors.behaviour == "clean" else nullcontext():
        logits, features = read(model, *inputs, behaviour=anchors.behaviour)
    anchors.push(features, logits, labels)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode; afterwards each part is as it was, frozen ones too, which `train` would wake."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def _full_precision(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _known(behaviour: str) -> None:
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"behaviour must be one of {BEHAVIOURS}, got {behaviour!r}")
