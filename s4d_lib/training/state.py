"""run ↔ files     what a training leaves behind at every moment: a checkpoint of whole steps and a line for each step.

Both are written so that a kill at any moment leaves something to go on from. The checkpoint says nothing of how many
processes made it: any other number goes on from it. Derived in chapter 06.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from s4d_lib import distributed
from s4d_lib.errors import Refused
from s4d_lib.files import replacing, write_atomically
from s4d_lib.training.steps import full, part_like

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3
    from torch.amp import GradScaler
    from torch.optim import Optimizer


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


class MetricsLog:
    """metrics.jsonl: one line a step. Lines after the checkpoint that a run resumes from are cut, none stands twice."""

    def __init__(self, path: Path, update: int, writes: bool = True, validated: Collection[int] | None = None) -> None:
        """`writes`: False in a process that leaves the file to another.

        `validated`: the updates whose validation the checkpoint knows; others are done again, their lines are cut.
        """
        self.path, self.waiting, self.writes = path, [], writes
        if not writes:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    said = json.loads(line)
                    known = "loss" in said or validated is None or said["update"] in validated
                    if said["update"] <= update and known:
                        kept.append(line)
                except ValueError:  # the line that was being written when the run was killed
                    break
        write_atomically(path, "".join(line + "\n" for line in kept))

    def add(self, **values: float | str) -> None:
        if not self.writes:
            return
        self.waiting.append(json.dumps(values))
        if len(self.waiting) >= 50:
            self.flush()

    def flush(self) -> None:
        with self.path.open("a") as file:
            file.writelines(line + "\n" for line in self.waiting)
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
    with replacing(folder / "checkpoint.safetensors") as part:
        save_file(tensors, part, metadata=header)


def load_state(folder: Path, fingerprint: str, model: nn.Module, averaged: ModelEmaV3 | None, optimizer: Optimizer,
               scaler: GradScaler | None, keep: dict[str, nn.Module] | None = None) -> Progressed | None:
    """Put a checkpoint back, or return None when the folder holds none. ValueError when it is another run's.

    RuntimeError when it lacks a part of `keep`: a run that goes on without what it had learned would be another run.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        header = file.metadata()
        if header["fingerprint"] != fingerprint:
            raise Refused(f"{path}: this checkpoint belongs to another configuration; give the run another folder")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
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
    state = {index: {key: part_like(value, listed[index]) for key, value in values.items()}
             for index, values in state.items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if scaler:
        scaler.load_state_dict(json.loads(header["scaler"]))
    return Progressed(**json.loads(header["progress"]))


def reached(folder: Path) -> int | None:
    """The step at which a folder's checkpoint stands; None where there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["progress"])["update"]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
