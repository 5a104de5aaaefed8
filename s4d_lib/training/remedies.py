"""gradients → gradient     what is done about conflict: ways to weigh the tasks, one table, one step.

Everything here ends in one weight a task: the shared weights move along Σ wᵢ gᵢ. Scalarisations choose w from losses
alone, aggregations from the inner products of the gradients. The algorithms are TorchJD's where it can run them with
torch alone; two solvers, for CAGrad and UPGrad, are ours. Tuned constant weights ("weighted") are the baseline that
the others have to beat: Kurin et al. 2022 and Xin et al. 2022 found that most do not. Derived in chapter 08.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any, Literal

import torch
from torch import Tensor, nn

from s4d_lib.errors import Refused, require

Kind = Literal["scalarisation", "aggregation"]


@dataclass(frozen=True)
class Remedy:
    """One row of the table.

    make    (tasks, **settings) → (TorchJD scalariser or weighting, factor); the factor makes every method give the
            plain sum for tasks that do not differ, so that one learning rate means the same for all
    What a training loop owes it besides `backward` and a place in the optimiser for its parameters:
    looks_again   after_step(losses of the same batches after the step): one more forward pass a task
    by_epochs     end_epoch()
    forgets       what it remembers is in no state dict of TorchJD: a stopped run of it starts from the beginning
    """

    kind: Kind
    source: str
    make: Callable[..., tuple[nn.Module, float]]
    looks_again: bool = False
    by_epochs: bool = False
    forgets: bool = False


def _scalariser(name: str, factor: Callable[[int], float], sized: bool) -> Callable[..., tuple[nn.Module, float]]:
    def make(tasks: int, **settings: Any) -> tuple[nn.Module, float]:
        require("torchjd", "lab", "this remedy")
        from torchjd import scalarization

        made = getattr(scalarization, name)
        return made(tasks, **settings) if sized else made(**settings), factor(tasks)

    return make


def _weighted(tasks: int, weights: Sequence[float] | None = None) -> tuple[nn.Module, float]:
    require("torchjd", "lab", "this remedy")
    from torchjd.scalarization import Constant

    weights = [1.0] * tasks if weights is None else list(weights)
    if len(weights) != tasks or min(weights) < 0:
        raise Refused(f"weights must be {tasks} numbers, none below 0, got {weights}")
    return Constant(torch.tensor(weights)), 1.0


def _weighting(name: str, factor: Callable[[int], float]) -> Callable[..., tuple[nn.Module, float]]:
    def make(tasks: int, **settings: Any) -> tuple[nn.Module, float]:
        require("torchjd", "lab", "this remedy")
        from torchjd import aggregation

        return getattr(aggregation, f"{name}Weighting")(**settings), factor(tasks)

    return make


def _upgrad(tasks: int) -> tuple[nn.Module, float]:
    require("torchjd", "lab", "this remedy")
    from torchjd.aggregation import UPGradWeighting

    return UPGradWeighting(torch.ones(tasks, dtype=torch.float64), projector=_projector()), 1.0


def _aligned(tasks: int, **settings: Any) -> tuple[nn.Module, float]:
    require("torchjd", "lab", "this remedy")
    from torchjd.aggregation import AlignedMTLWeighting

    return AlignedMTLWeighting(torch.ones(tasks, dtype=torch.float64), **settings), 1.0


def _cagrad(tasks: int, c: float = 0.4) -> tuple[nn.Module, float]:
    if tasks != 2:
        raise Refused(f"CAGrad is solved in closed form here, for two tasks; got {tasks}")
    if not 0 <= c < 1:
        raise Refused(f"c must be from 0 to below 1, got {c}; from 1 on CAGrad may follow one task alone")
    return _CAGradPair(c), 2 / (1 + c)


REMEDIES: dict[str, Remedy] = {
    "sum": Remedy("scalarisation", "plain joint training", _weighted),
    "weighted": Remedy("scalarisation", "constant weights, to be tuned (Kurin et al. 2022, Xin et al. 2022)",
                       _weighted),
    "uncertainty": Remedy("scalarisation", "Kendall et al. 2018: Σ ½ exp(-sᵢ) Lᵢ + ½ sᵢ",
                          _scalariser("UW", lambda m: 2.0, True), forgets=True),
    "dwa": Remedy("scalarisation", "Liu, Johns and Davison 2019, dynamic weight average",
                  _scalariser("DWA", lambda m: 1.0, False), by_epochs=True, forgets=True),
    "famo": Remedy("scalarisation", "Liu et al. 2023, FAMO", _scalariser("FAMO", float, True),
                   looks_again=True, forgets=True),
    "pcgrad": Remedy("aggregation", "Yu et al. 2020, algorithm 1", _weighting("PCGrad", lambda m: 1.0)),
    "gradvac": Remedy("aggregation", "Wang et al. 2021; its targets are running means",
                      _weighting("GradVac", lambda m: 1.0), forgets=True),
    "cagrad": Remedy("aggregation", "Liu et al. 2021, algorithm 1, divided by 1 + c", _cagrad),
    "mgda": Remedy("aggregation", "Désidéri 2012; Sener and Koltun 2018", _weighting("MGDA", float)),
    "imtl_g": Remedy("aggregation", "Liu et al. 2021 (IMTL-G), generalised in Quinton and Rey 2024",
                     _weighting("IMTLG", float)),
    "aligned_mtl": Remedy("aggregation", "Senushkin et al. 2023, algorithm 1", _aligned),
    "upgrad": Remedy("aggregation", "Quinton and Rey 2024 (Jacobian descent)", _upgrad),
}


class Combiner(nn.Module):
    """A remedy for a number of tasks, with whatever it learns or remembers (state_dict holds what TorchJD registers).

    Cost beside plain joint training on the same two batches:
      scalarisations   one backward pass of one scalar, no more memory
      aggregations     one backward pass a task, each through that task's own graph, so the same arithmetic as the
                       plain sum when tasks have inputs of their own; `tasks` copies of the shared gradient in memory
      famo             one forward pass a task more, after the step
    """

    def __init__(self, method: str, tasks: int, **settings: Any) -> None:
        super().__init__()
        if method not in REMEDIES:
            raise Refused(f"method must be one of {', '.join(REMEDIES)}, got {method!r}")
        if method == "sum" and settings:
            raise Refused("the plain sum has no settings; 'weighted' takes weights")
        self.method, self.kind, self.tasks = method, REMEDIES[method].kind, tasks
        self.rule, self.factor = REMEDIES[method].make(tasks, **settings)

    @property
    def looks_again(self) -> bool:
        """Whether `after_step` wants the losses of the same batches after the step."""
        return REMEDIES[self.method].looks_again

    @property
    def forgets(self) -> bool:
        """Whether it remembers what no state dict holds."""
        return REMEDIES[self.method].forgets

    def scalar(self, losses: Tensor) -> Tensor:
        """Losses `[m]` → the one loss to differentiate. Scalarisations only."""
        return self.factor * self.rule(losses)

    def weights(self, jacobian: Tensor | None = None, losses: Tensor | None = None) -> Tensor:
        """The weight of each task's gradient, `[m]`, float64: from the Jacobian `[m p]` or from the losses `[m]`."""
        if self.kind == "aggregation":
            if jacobian is None:
                raise ValueError(f"{self.method} reads gradients; give it the Jacobian [tasks p]")
            jacobian = jacobian.detach()
            # TorchJD shuffles tasks with the global generator; for the caller's chance nothing may have happened.
            with torch.random.fork_rng(devices=[]):
                return self.factor * self.rule((jacobian @ jacobian.T).cpu().double())
        if losses is None:
            raise ValueError(f"{self.method} reads losses; give it their values [tasks]")
        with torch.enable_grad():
            values = losses.detach().clone().requires_grad_()
            return torch.autograd.grad(self.scalar(values), values)[0].double().cpu()

    def after_step(self, losses: Tensor) -> None:
        """FAMO learns from the losses `[m]` of the same batches after the optimiser's step; others ignore them."""
        if self.looks_again:
            self.rule.update(losses.detach())

    def end_epoch(self) -> None:
        """DWA compares epochs; others do not."""
        if REMEDIES[self.method].by_epochs:
            self.rule.step()


def combine(jacobian: Tensor, method: str | Combiner, losses: Tensor | None = None) -> Tensor:
    """Task gradients `[m p]` → the gradient `[p]` that the shared weights get under a remedy.

    Scalarisations need the loss values `[m]` as well. A name makes a fresh remedy; hand a `Combiner` over to keep what
    it learns.
    """
    combiner = method if isinstance(method, Combiner) else Combiner(method, len(jacobian))
    return combiner.weights(jacobian, losses).to(jacobian) @ jacobian


def backward(losses: Mapping[str, Tensor], shared: Sequence[nn.Parameter], heads: Mapping[str, Sequence[nn.Parameter]],
             method: str | Combiner) -> dict[str, float]:
    """Fill `.grad` for one joint step, as `loss.backward()` does, adding to what is there; returns task → weight.

    losses: task → scalar with its graph; every task has a graph of its own, which is freed. Aggregations: the shared
    parameters get the combined gradient, each head its own task's gradient, unweighted. Scalarisations are one loss,
    as published, and weigh the heads as well; their own parameters (uncertainty) get a gradient too. Gradients are
    combined in float32 or wider.
    """
    combiner = method if isinstance(method, Combiner) else Combiner(method, len(losses))
    if combiner.kind == "scalarisation":
        values = torch.stack(list(losses.values()))
        weights = combiner.scalar(values)
        found = dict(zip(losses, torch.autograd.grad(weights, values, retain_graph=True)[0].tolist()))
        weights.backward()
        return found
    rows = []
    for task, loss in losses.items():
        own = list(heads[task])
        gradients = torch.autograd.grad(loss, [*shared, *own], allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten().to(
            torch.promote_types(p.dtype, torch.float32)) for p, g in zip(shared, gradients)]))
        for p, g in zip(own, gradients[len(shared):]):
            _add(p, g)
    jacobian = torch.stack(rows)
    weights = combiner.weights(jacobian)
    for p, part in zip(shared, (weights.to(jacobian) @ jacobian).split([p.numel() for p in shared])):
        _add(p, part.view_as(p).to(p.dtype))
    return dict(zip(losses, weights.tolist()))


def _add(parameter: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is not None:
        parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient


# --- two small solvers: TorchJD hands these to cvxpy and to quadprog (GPL), which the book does not install ----------


class _CAGradPair(nn.Module):
    """CAGrad's dual for two tasks in closed form: min over w in [0, 1] of g_w·g₀ + c|g₀||g_w|.

    g_w = w g₁ + (1 - w) g₂ and g₀ is the mean: a convex function of one number. Gramian `[2 2]` → weights `[2]`, so
    that Σ is g₀ + c|g₀| g_w / |g_w|.
    """

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, gramian: Tensor) -> Tensor:
        (aa, ab), (_, bb) = gramian.tolist()
        slope = (aa - bb) / 2                               # of g_w·g₀ in w
        radius = self.c * math.sqrt(max(aa + 2 * ab + bb, 0.0)) / 2
        width = max(aa - 2 * ab + bb, 0.0)                  # |g₁ - g₂|²; |g_w|² = width (w - w₀)² + rest
        if width <= 1e-15 * (aa + bb):                      # the same gradient twice: any w
            return gramian.new_tensor([0.5, 0.5]) * (1 + self.c)
        centre = (bb - ab) / width
        rest = max(bb - width * centre**2, 0.0)
        # Zero derivative: slope + radius·width·u / √(width u² + rest) = 0 with u = w - w₀
        steep = radius**2 * width - slope**2
        u = -slope * math.sqrt(rest / (width * steep)) if steep > 0 else -math.copysign(math.inf, slope)
        w = min(max(centre + u, 0.0), 1.0)
        length = math.sqrt(max(width * (w - centre) ** 2 + rest, 0.0))
        if length <= 1e-12 * math.sqrt(aa + bb):            # opposed so that they cancel: nothing helps both
            return torch.zeros_like(gramian[0])
        return gramian.new_tensor([0.5 + radius / length * w, 0.5 + radius / length * (1 - w)])


def _projector() -> Any:
    """A TorchJD projector onto the dual cone that tries every active set: exact, and quick for a few tasks."""
    require("torchjd", "lab", "this remedy")
    from torchjd.linalg import DualConeProjector

    class Enumerating(DualConeProjector):
        """min over v ≥ u of v·Gv; U `[m m]`, G `[m m]` → weights `[m m]` (Quinton and Rey 2024, proposition 1)."""

        def __call__(self, U: Tensor, G: Tensor) -> Tensor:
            return torch.stack([_least(u, G) for u in U])

    return Enumerating()


def _least(u: Tensor, gramian: Tensor) -> Tensor:
    m = len(u)
    best, lowest = u, float(u @ gramian @ u)  # v = u is always allowed
    for free in chain.from_iterable(combinations(range(m), k) for k in range(1, m + 1)):
        free, fixed = list(free), [i for i in range(m) if i not in free]
        v = u.clone()
        v[free] = -torch.linalg.pinv(gramian[free][:, free]) @ (gramian[free][:, fixed] @ u[fixed])
        value = float(v @ gramian @ v)
        if bool((v[free] >= u[free] - 1e-12 * u.abs().max()).all()) and value < lowest:
            best, lowest = v, value
    return best
