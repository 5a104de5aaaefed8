"""run ↔ files     what a training leaves behind at every moment: a checkpoint of whole steps and a line for each step.

Both are written so that a kill at any moment leaves something to go on from. The checkpoint says nothing of how many
processes made it: any other number goes on from it. It carries a checksum of all that it holds: a run that went on
from a damaged one would end in other numbers without a word. Derived in chapter 06.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from s4d_lib import distributed
from s4d_lib.errors import Refused
from s4d_lib.files import save_tensors, write_atomically
from s4d_lib.training.steps import full, part_like

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3
    from torch.amp import GradScaler
    from torch.optim import Optimizer


CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Progressed:
    """Where a run stands; what a checkpoint keeps beside tensors."""

    epoch: int = 0
    step: int = 0                    # steps done in this epoch
    update: int = 0                  # steps done in all
    best: float = -math.inf
    best_epoch: int = -1
    best_sha256: str = ""            # of the file that the best weights were written to
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


class MetricsLog:
    """metrics.jsonl: one line a step. Lines after the checkpoint that a run resumes from are cut, none stands twice."""

    def __init__(self, path: Path, update: int, writes: bool = True, validated: Collection[int] | None = None) -> None:
        """`writes`: False in a process that leaves the file to another.

        `validated`: the updates whose validation the checkpoint knows; others are done again, their lines are cut. It
        is what a run gives, and then a step that the checkpoint has done and the file does not know is Refused.
        """
        self.path, self.waiting, self.writes = path, [], writes
        if not writes:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                try:
                    said = json.loads(line)
                    known = "loss" in said or validated is None or said["update"] in validated
                    if said["update"] <= update and known:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):  # what was being written when the run was killed
                    break
        steps = sum("loss" in json.loads(line) for line in kept)
        if validated is not None and steps != update:
            raise Refused(f"{path}: {steps} of the {update} steps that {CHECKPOINT} has done stand in it; remove both, "
                          "and the same call trains from the beginning")
        write_atomically(path, "".join(line + "\n" for line in kept))

    def add(self, **values: float | str) -> None:
        if not self.writes:
            return
        self.waiting.append(json.dumps(values))
        if len(self.waiting) >= 50:
            self.flush()

    def flush(self) -> None:
        try:
            with self.path.open("a") as file:
                file.writelines(line + "\n" for line in self.waiting)
        except OSError as error:  # a full disk does not say which file
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.waiting = []


def read_losses(folder: Path, modality: str | None = None) -> np.ndarray:
    """(update, loss) of every step in a run's metrics.jsonl `[steps 2]`, of one modality or of both."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    kept = [(line["update"], line["loss"]) for line in lines
            if "loss" in line and modality in (None, line["modality"])]
    return np.array(kept).reshape(-1, 2)


def save_state(folder: Path, fingerprint: str, model: nn.Module, averaged: ModelEmaV3 | None, optimizer: Optimizer,
               scaler: GradScaler | None, where: Progressed, keep: dict[str, nn.Module] | None = None) -> None:
    """checkpoint.safetensors: weights, their average, optimiser state and `keep` in one file, replaced in one step.

    Rank 0 writes it. Where each rank holds a part of every weight, all of them must call this.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"ema.{name}": value for name, value in averaged.module.state_dict().items()}
    for part, module in (keep or {}).items():
        tensors |= {f"keep.{part}.{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors = {name: full(value).contiguous() for name, value in tensors.items()}
    if not distributed.is_first():
        return
    header = {"fingerprint": fingerprint, "progress": json.dumps(vars(where)),
              "scaler": json.dumps(scaler.state_dict() if scaler else None)}
    save_tensors(folder / CHECKPOINT, tensors, header | {"sha256": checksum(tensors, header)})


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """The sha256 of names, types, shapes and bytes of tensors on the CPU, and of what else a checkpoint says."""
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """A checkpoint's file. Refused where it cannot be read as one."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(_damaged(path, f"{type(error).__name__}: {error}")) from error


def _damaged(path: Path, what: str) -> str:
    return f"{path}: this checkpoint is damaged ({what}); remove it, and the same call trains from the beginning"


def _read(path: Path, fingerprint: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a checkpoint. Refused where it is damaged, or belongs to another run."""
    with _opened(path) as file:
        header = dict(file.metadata() or {})
        found = header.pop("sha256", None)
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if found is None:
        raise Refused(_damaged(path, "it carries no checksum, as those of earlier versions do not"))
    if checksum(tensors, header) != found:
        raise Refused(_damaged(path, "its checksum differs"))
    if header["fingerprint"] != fingerprint:
        raise Refused(f"{path}: this checkpoint belongs to another configuration; give the run another folder")
    return header, tensors


def load_state(folder: Path, fingerprint: str, model: nn.Module, averaged: ModelEmaV3 | None, optimizer: Optimizer,
               scaler: GradScaler | None, keep: dict[str, nn.Module] | None = None) -> Progressed | None:
    """Put a checkpoint back, or return None when the folder holds none. Refused when it is damaged, or another run's.

    RuntimeError when it lacks a part of `keep`: a run that goes on without what it had learned would be another run.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    header, tensors = _read(path, fingerprint)
    weights = dict(model.named_parameters())
    model.load_state_dict({name: part_like(value, weights.get(name, value))
                           for name, value in _under("model.", tensors).items()})
    if averaged is not None:
        averaged.module.load_state_dict(_under("ema.", tensors))
    for part, module in (keep or {}).items():
        module.load_state_dict(_under(f"keep.{part}.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    state = {index: {key: _laid_out_as(part_like(value, listed[index]), listed[index]) for key, value in values.items()}
             for index, values in state.items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if scaler:
        scaler.load_state_dict(json.loads(header["scaler"]))
    return Progressed(**json.loads(header["progress"]))


def _laid_out_as(value: Tensor, weight: Tensor) -> Tensor:
    """The value in the weight's order in memory: the fused step goes through both as they lie, not by their indices."""
    if hasattr(weight, "full_tensor") or value.shape != weight.shape or value.stride() == weight.stride():
        return value
    return torch.empty_like(weight, dtype=value.dtype).copy_(value)


def reached(folder: Path) -> int | None:
    """The step at which a folder's checkpoint stands; None where there is none that can be read."""
    path = folder / CHECKPOINT
    try:
        with _opened(path) as file:
            return json.loads((file.metadata() or {})["progress"])["update"]
    except (OSError, Refused):
        return None


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
