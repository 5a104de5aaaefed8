"""gradients → steps     what shared optimiser state does to a task's step, and what a step of one task does to another.

Two tasks that never meet in a gradient still meet in Adam's running averages: a step of clips is scaled by what stills
left there. And a gradient is not a step: affinity looks one step ahead and measures losses. Derived in chapters 08
and 10.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from s4d_lib.analysis.gradients import (
    Batch,
    Loss,
    TaskGradients,
    classification_loss,
    compare,
    shared_parameters,
    task_gradients,
)
from s4d_lib.analysis.measuring import measuring
from s4d_lib.metrics.scores import Interval, over_seeds


class Moment(NamedTuple):
    """Adam's state of one parameter: running means of gradient and squared gradient, and steps taken."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


Moments = dict[str, Moment]  # parameter name → state


def moments(optimizer: Optimizer, model: nn.Module) -> Moments:
    """Copies of an Adam or AdamW optimiser's state by parameter name; zeros where it has none yet."""
    found = {}
    for members in shared_parameters(model, "all").values():
        for name, p in members.items():
            state = optimizer.state.get(p, {})
            zero = torch.zeros_like(p)
            found[name] = Moment(state.get("exp_avg", zero).detach().clone(),
                                 state.get("exp_avg_sq", zero).detach().clone(), int(state.get("step", 0)))
    return found


def adam_step(gradient: Tensor, state: Moment, lr: float, betas: tuple[float, float], eps: float,
              squares: Moment | None = None) -> Tensor:
    """The change of a parameter in Adam's next step, weight decay left out: -lr · m̂ / (√v̂ + ε).

    Kingma and Ba 2015, algorithm 1; the same in AdamW (Loshchilov and Hutter 2019), whose decay does not pass through
    the state. Shape of the parameter. With `squares` the mean square, and its bias correction, come from there.
    """
    squares = state if squares is None else squares
    m = betas[0] * state.exp_avg + (1 - betas[0]) * gradient
    v = betas[1] * squares.exp_avg_sq + (1 - betas[1]) * gradient.square()
    m, v = m / (1 - betas[0] ** (state.step + 1)), v / (1 - betas[1] ** (squares.step + 1))
    return -lr * m / (v.sqrt() + eps)


class Interference(NamedTuple):
    """A task's next step with the shared state against the one with its own state, in one group of parameters.

    cosine   between the two steps: 1, the shared state does not turn it      size    |shared| / |own|
    first    cosine if only the mean gradient were shared                     second  if only the mean square were
    """

    cosine: float
    size: float
    first: float
    second: float


def adam_interference(optimizer: Optimizer, model: nn.Module, gradients: TaskGradients,
                      own: Mapping[str, Moments]) -> dict[str, dict[str, Interference]]:
    """Task → group → what sharing Adam's state does to the step that this gradient asks for.

    optimizer: Adam or AdamW of joint training. own: task → the state it would have alone, from `moments` of a
    single-task run's optimiser. Each parameter moves at its own learning rate, so layer decay
    counts in groups that span layers. Weight decay is the same on both sides and left out.
    """
    shared, settings = moments(optimizer, model), _settings(optimizer, model)
    found: dict[str, dict[str, Interference]] = {}
    for task in gradients.tasks:
        named, alone = gradients.named(task), own[task]
        if missing := shared.keys() - alone.keys():
            raise ValueError(f"the state of task {task!r} lacks {sorted(missing)[0]}; make it from the same model")

        def step(means: Moments, squares: Moments, names: tuple[str, ...],
                 named: dict[str, Tensor] = named) -> Tensor:
            return torch.cat([adam_step(named[n], means[n], *settings[n], squares[n]).flatten() for n in names])

        found[task] = {}
        for group, names in gradients.members.items():
            own_step = step(alone, alone, names)
            both, first, second = (compare(step(means, squares, names), own_step)
                                   for means, squares in ((shared, shared), (shared, alone), (alone, shared)))
            found[task][group] = Interference(both.cosine, both.ratio, first.cosine, second.cosine)
    return found


def _settings(optimizer: Optimizer, model: nn.Module) -> dict[str, tuple[float, tuple[float, float], float]]:
    """Parameter name → learning rate, betas, ε as `adam_step` takes them."""
    by_parameter = {}
    for group in optimizer.param_groups:
        if "betas" not in group or group.get("amsgrad") or group.get("maximize"):
            raise ValueError("the optimiser must be Adam or AdamW without amsgrad and maximize; its step is computed "
                             "here from exp_avg and exp_avg_sq")
        by_parameter |= {p: (float(group["lr"]), tuple(group["betas"]), group["eps"]) for p in group["params"]}
    names = shared_parameters(model, "all")["shared"]
    if missing := [name for name, p in names.items() if p not in by_parameter]:
        raise ValueError(f"{missing[0]} is not among the optimiser's parameters; give the optimiser of this model")
    return {name: by_parameter[p] for name, p in names.items()}


# --- one step ahead --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affinity:
    """values: (i, j) → relative fall of task j's loss after a step of task i; above 0, i helps j."""

    draws: int
    values: dict[tuple[str, str], Interval]

    def as_dict(self) -> dict:
        """For a record: "i → j", None where one draw has no interval."""
        return {"draws": self.draws, "values": {
            " → ".join(pair): {k: v if math.isfinite(v) else None for k, v in asdict(found).items()}
            for pair, found in self.values.items()}}


def affinity(model: nn.Module, batches: Mapping[str, Sequence[Batch]], lr: float | None = None,
             optimizer: Optimizer | None = None, loss: Loss = classification_loss, seed: int = 0) -> Affinity:
    """One-step lookahead: 1 - L_j(θ + step of i) / L_j(θ), the step on shared weights only (Fifty et al. 2021, TAG).

    batches: task → 2·draws batches that share no sample; draw r steps on batch 2r and looks at batch 2r+1, so that a
    task's affinity for itself is no memory of its batch. The step is -lr · gradient, or with an optimiser the Adam
    step from its present state, at the optimiser's learning rates (`lr` then replaces the largest of them and scales
    the others alike). The weights come back bit for bit, also after an error. Intervals: 95 % t over draws.
    Cost a draw: `tasks` backward passes and tasks·(tasks + 1) forward passes.
    """
    if lr is None and optimizer is None:
        raise ValueError("affinity needs a learning rate, or an optimiser that has one")
    counts = {len(several) for several in batches.values()}
    if len(counts) != 1 or min(counts) < 2 or min(counts) % 2:
        raise ValueError("every task needs the same even number of batches, two for each draw, got "
                         f"{ {task: len(several) for task, several in batches.items()} }")
    draws = min(counts) // 2
    parameters = shared_parameters(model, "all")["shared"]
    before = {name: p.detach().clone() for name, p in parameters.items()}
    values: dict[tuple[str, str], list[float]] = {(i, j): [] for i in batches for j in batches}
    try:
        for draw in range(draws):
            probe = {task: several[2 * draw + 1] for task, several in batches.items()}
            gradients = task_gradients(model, {t: several[2 * draw] for t, several in batches.items()}, "all", loss,
                                       seed + draw)
            start = _losses(model, probe, loss, seed + draw)
            steps = {task: _step(gradients.named(task), model, lr, optimizer) for task in batches}
            for i, change in steps.items():
                _place(parameters, {name: before[name] + change[name].to(before[name].dtype) for name in before})
                for j, after in _losses(model, probe, loss, seed + draw).items():
                    values[i, j].append(1 - after / start[j])
                _place(parameters, before)
    finally:
        _place(parameters, before)
    return Affinity(draws, {pair: over_seeds(found) for pair, found in values.items()})


def _step(gradient: dict[str, Tensor], model: nn.Module, lr: float | None,
          optimizer: Optimizer | None) -> dict[str, Tensor]:
    if optimizer is None:
        return {name: -lr * g for name, g in gradient.items()}
    settings, states = _settings(optimizer, model), moments(optimizer, model)
    largest = max(rate for rate, _, _ in settings.values())
    scale = 1.0 if lr is None else lr / largest
    return {name: scale * adam_step(g, states[name], *settings[name]) for name, g in gradient.items()}


def _losses(model: nn.Module, batches: dict[str, Batch], loss: Loss, seed: int) -> dict[str, float]:
    found = {}
    for task, (x, target) in batches.items():
        with measuring(model, seed), torch.no_grad():  # the same router noise before and after the step
            found[task] = float(loss(model, task, x, target))
    return found


@torch.no_grad()
def _place(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, p in parameters.items():
        p.copy_(values[name])
