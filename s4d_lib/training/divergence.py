"""loss → refusal     a training whose numbers are no longer finite: what happened, on which files, what is saved.

NaN spreads through every weight in one step and is never an answer, so the loop looks before it steps. What it looks at
is the loss and the norm of the gradients; only when one of them is no number does it look at the data, which reaches
both. The weights before the step and the batch as it was loaded stay in the run's folder: `training/replay.py` takes
the step again. Derived in chapter 06.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from s4d_lib import distributed
from s4d_lib.errors import Refused
from s4d_lib.files import save_tensors, write_atomically

TOLD = "diverged.json"
KEPT = "diverged.safetensors"  # `model.<name>` and `batch.<modality>.<name>`
FEW = 4  # files of a batch that the sentence names; the file names all


class Diverged(Refused):
    """A training, or a trained network, whose numbers are not finite; the message names files and what is saved."""


class NotFinite(ArithmeticError):
    """A step that must not be taken; the message says what of it is not finite."""


def is_finite(model: nn.Module) -> bool:
    """Whether every weight is a finite number."""
    weights = [torch.isfinite(weight).all() for weight in model.parameters()]
    return not weights or bool(torch.stack(weights).all())  # an accelerator is asked once


def gradient_norm(weights: Iterable[nn.Parameter]) -> Tensor | float:
    """The norm of all their gradients together; 0 where there is none, or where a rank holds parts of them."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return 0.0 if distributed.sharded() or not gradients else torch.nn.utils.get_total_norm(gradients)


def blamed(what: str, files: Mapping[str, Sequence[str]], loaded: Mapping[str, Mapping[str, object]]) -> str:
    """What happened, and which files had brought numbers that are not finite, if any had.

    files: modality → those of the step. loaded: modality → the batch as it was loaded, rows of a file together.
    """
    guilty = []
    for modality, batch in loaded.items():
        for value in batch.values():
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim and len(files[modality]):
                sound = torch.isfinite(value.flatten(1) if value.ndim > 1 else value[:, None]).all(1).tolist()
                views = max(1, len(sound) // len(files[modality]))
                guilty += [files[modality][min(row // views, len(files[modality]) - 1)]
                           for row, whole in enumerate(sound) if not whole]
    return f"the data of {', '.join(dict.fromkeys(guilty))} is not finite, and {what}" if guilty else what


def keep(folder: Path, model: nn.Module, beside: Mapping[str, nn.Module],
         loaded: Mapping[str, Mapping[str, object]]) -> None:
    """Leave the weights before the step, what is learned beside the model and the batch in `KEPT`, to be replayed.

    Without a batch nothing is left, and what an earlier step had left goes.
    """
    if not loaded:
        (folder / KEPT).unlink(missing_ok=True)
        return
    kept = {f"model.{name}": value.detach().cpu() for name, value in model.state_dict().items()}
    kept |= {f"keep.{part}.{name}": value.cpu() for part, module in beside.items()
             for name, value in module.state_dict().items()}
    kept |= {f"batch.{modality}.{name}": value.cpu() for modality, batch in loaded.items()
             for name, value in batch.items() if isinstance(value, Tensor)}
    save_tensors(folder / KEPT, {name: value.clone().contiguous() for name, value in kept.items()})


def tell(folder: Path, what: str, update: int, lr: float, batch: Mapping[str, Sequence[str]],
         stands: int | None, epoch: int = 0) -> Diverged:
    """The error to raise; rank 0 leaves the whole of it in `diverged.json`.

    batch: modality → files of the step. stands: the step at which the checkpoint stands or will, None without one.
    """
    files = [name for names in batch.values() for name in names]
    more = f" and {len(files) - FEW} more, listed in {folder / TOLD}" if len(files) > FEW else ""
    of = f" on {', '.join(files[:FEW])}{more}" if files else ""
    kept = ("no checkpoint was written before" if stands is None else
            f"the state after {stands} steps is saved in {folder / 'checkpoint.safetensors'}")
    again = (f". Take the step again: from s4d_lib.training.replay import replay; print(replay({str(folder)!r}))"
             if (folder / KEPT).exists() else "")
    if distributed.is_first():
        told = {"what": what, "step": update, "epoch": epoch, "lr": lr, "batch": dict(batch), "checkpoint_step": stands}
        write_atomically(folder / TOLD, json.dumps(told, indent=1) + "\n")
    return Diverged(f"training diverged at step {update} (learning rate {lr:.3g}): {what}{of}; {kept}. Lower lr, set "
                    f"clip_norm, use precision 'no' or 'bf16', or look at these files{again}")
