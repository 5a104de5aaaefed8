"""gradients → steps     AdamW, in one pass over the weights, and one that keeps its moments apart for each task.

In joint training with one modality a step, AdamW's moments mix the gradients of both tasks: a step of clips is scaled
by what stills did before it. `TaskAdamW` removes that channel and nothing else; it is a control of chapter 08.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer


class TaskAdamW(torch.optim.AdamW):
    """AdamW with one state for each task; set `.task` before a step. Derived in chapter 08.

    With a single task it is AdamW. Bias correction counts the steps of the task, not of both.
    """

    task: str = ""

    def step(self, closure: Any = None) -> Any:
        if not self.task:
            raise RuntimeError("set .task before a step: whose moments should it use?")
        everything = {p: dict(values) for p, values in self.state.items()}
        for p, values in everything.items():  # AdamW sees the moments of this task only
            self.state[p] = {key.split(".", 1)[1]: value for key, value in values.items()
                             if key.startswith(f"{self.task}.")}
        loss = super().step(closure)
        for p, values in self.state.items():
            mine = {f"{self.task}.{key}": value for key, value in values.items()}
            # PyTorch looks for a plain "step" when a state is loaded; nothing here reads it. A copy, because a
            # checkpoint refuses two names for one memory. The other task's head was not stepped: it has no count here.
            step = {"step": values["step"].clone()} if mine else {}
            self.state[p] = everything.get(p, {}) | mine | step
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for values in self.state.values():  # PyTorch keeps the count of steps on the CPU; it knows it by its plain name
            values |= {key: value.cpu().float() for key, value in values.items() if key.endswith(".step")}


def adamw(groups: list[dict], lr: float, betas: tuple[float, float], separate: bool, plain: bool) -> torch.optim.AdamW:
    """AdamW over parameter groups; `separate` keeps a state for each modality.

    PyTorch's fused kernel reads and writes every number once; one operation after another takes about four times as
    long on a CPU, as much as a fifth of a small step. `plain` is for what the kernel does not take: parts of weights
    (fsdp), and float16, whose scaler has to skip a step from outside.
    """
    if separate:
        return TaskAdamW(groups, lr=lr, betas=betas)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=not plain)


def unwrapped(optimizer: Any) -> Optimizer:
    """The optimiser inside what Accelerate has wrapped around it."""
    return getattr(optimizer, "optimizer", optimizer)
