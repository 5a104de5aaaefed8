"""loss → refusal     a training whose numbers are no longer finite: what happened, on which files, what is saved.

NaN spreads through every weight in one step and is never an answer, so the loop looks before it steps. Derived in
chapter 06.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from s4d_lib import distributed
from s4d_lib.errors import Refused
from s4d_lib.files import write_atomically

TOLD = "diverged.json"
FEW = 4  # files of a batch that the sentence names; the file names all


class Diverged(Refused):
    """A training, or a trained network, whose numbers are not finite; the message names files and what is saved."""


class NotFinite(ArithmeticError):
    """A step that must not be taken; the message says what of it is not finite."""


def is_finite(model: nn.Module) -> bool:
    """Whether every weight is a finite number."""
    return all(bool(torch.isfinite(weight).all()) for weight in model.parameters())


def gradient_norm(weights: Iterable[nn.Parameter]) -> Tensor | float:
    """The norm of all their gradients together; 0 where there is none, or where a rank holds parts of them."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return 0.0 if distributed.sharded() or not gradients else torch.nn.utils.get_total_norm(gradients)


def tell(folder: Path, what: str, update: int, lr: float, batch: Mapping[str, Sequence[str]],
         stands: int | None) -> Diverged:
    """The error to raise; rank 0 leaves the whole of it in `diverged.json`.

    batch: modality → files of the step. stands: the step at which the checkpoint stands or will, None without one.
    """
    files = [name for names in batch.values() for name in names]
    more = f" and {len(files) - FEW} more, listed in {folder / TOLD}" if len(files) > FEW else ""
    of = f" on {', '.join(files[:FEW])}{more}" if files else ""
    kept = ("no checkpoint was written before" if stands is None else
            f"the state after {stands} steps is saved in {folder / 'checkpoint.safetensors'}")
    if distributed.is_first():
        write_atomically(folder / TOLD, json.dumps({"what": what, "step": update, "lr": lr, "batch": dict(batch),
                                                    "checkpoint_step": stands}, indent=1) + "\n")
    return Diverged(f"training diverged at step {update} (learning rate {lr:.3g}): {what}{of}; {kept}. Lower lr, set "
                    "clip_norm, use precision 'no' or 'bf16', or look at these files")
