"""losses → gradients     what each task asks of the shared weights, and whether two tasks ask for the same.

A cosine between the gradients of two tasks is unreadable by itself: two batches of one task do not reach 1 either.
`conflict` therefore measures every cosine beside its ceiling, the cosine of two independent batches of the same task.
What the steps and the losses do is in `interference.py`, what can be done about it in `training/remedies.py`. Derived
in chapter 08.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.analysis.measuring import measuring
from s4d_lib.errors import Refused
from s4d_lib.metrics.scores import Interval, over_seeds

Batch = tuple[Tensor, Tensor]                              # input, target
Loss = Callable[[nn.Module, str, Tensor, Tensor], Tensor]  # model, task, input, target → scalar
Grouping = Literal["block", "all"]


def classification_loss(model: nn.Module, task: str, x: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of labels `[b]` or class probabilities `[b classes]`; the rank of `x` chooses the head.

    The balance loss of the experts is no task's own and stays out; a loss of your own may add it.
    """
    return F.cross_entropy(model(x).float(), target)


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of several tasks at the same weights, float32.

    flat      task → group → gradient `[p]` of the group's parameters, flattened and joined in the order of `members`
    members   group → names of its parameters            shapes   name → shape
    losses    task → loss, in nats for cross-entropy
    """

    flat: dict[str, dict[str, Tensor]]
    members: dict[str, tuple[str, ...]]
    shapes: dict[str, torch.Size]
    losses: dict[str, float]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.flat)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.members)

    def matrix(self, group: str) -> Tensor:
        """The Jacobian `[tasks p]` of one group."""
        return torch.stack([gradients[group] for gradients in self.flat.values()])

    def named(self, task: str) -> dict[str, Tensor]:
        """One task's gradient by parameter name, each in the parameter's shape."""
        return {name: part.view(self.shapes[name])
                for group, names in self.members.items()
                for name, part in zip(names, self.flat[task][group].split([self.shapes[n].numel() for n in names]))}


def shared_parameters(model: nn.Module, groups: Grouping = "block") -> dict[str, dict[str, nn.Parameter]]:
    """Group → name → parameter, of everything that the tasks share and that is trained: all but the heads.

    "block" is the grouping of layer decay (`model.group_matcher`), named embed, block 0 …, norm; the experts and the
    router of a block are groups of their own, "block 2 experts" and "block 2 router". "all" is one group, "shared".
    """
    from timm.models import group_parameters

    shared = {name: p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("head.")}
    if not shared:
        raise Refused("no parameter outside the heads is trained, so the tasks share nothing to disagree about")
    if groups == "all":
        return {"shared": shared}
    if groups != "block":
        raise ValueError(f"groups must be 'block' or 'all', got {groups!r}")
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in shared.items():
        found.setdefault(_group_name(name, layers[name], max(layers.values())), {})[name] = parameter
    return found


def _group_name(name: str, layer: int, last: int) -> str:
    group = {0: "embed", last: "norm"}.get(layer, f"block {layer - 1}")
    part = next((kind for key, kind in ((".experts.", " experts"), (".router.", " router")) if key in name), "")
    return group + part


def task_gradients(model: nn.Module, batches: Mapping[str, Batch], groups: Grouping = "block",
                   loss: Loss = classification_loss, seed: int = 0, chunk: int | None = None) -> TaskGradients:
    """The gradient of every task's loss on the shared parameters, one forward and one backward pass a task.

    batches: task → (images `[b 3 h w]` or clips `[b 3 t h w]`, target). `chunk` samples go through the network at a
    time, which bounds the memory of large batches and leaves the gradient of a mean over samples as it is. A parameter
    that a loss does not reach (an expert that nobody chose) has gradient 0. No `.grad` is read or written, and the
    caller's chance does not move. Raises FloatingPointError when a loss is not finite.
    """
    grouped = shared_parameters(model, groups)
    parameters = {name: p for members in grouped.values() for name, p in members.items()}
    flat: dict[str, dict[str, Tensor]] = {}
    losses: dict[str, float] = {}
    with measuring(model, seed):
        for task, (x, target) in batches.items():
            gradient = {name: torch.zeros_like(p) for name, p in parameters.items()}
            losses[task] = 0.0
            for part, wanted in zip(x.split(chunk or len(x)), target.split(chunk or len(x))):
                value = loss(model, task, part, wanted) * (len(part) / len(x))
                if not torch.isfinite(value):
                    raise FloatingPointError(f"the loss of task {task!r} is {value.item()}; "
                                             "a gradient of it says nothing")
                found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
                for name, g in zip(parameters, found):
                    if g is not None:
                        gradient[name] += g.detach()
                losses[task] += float(value.detach())
            flat[task] = {group: torch.cat([gradient[name].flatten().float() for name in members])
                          for group, members in grouped.items()}
    return TaskGradients(flat, {group: tuple(members) for group, members in grouped.items()},
                         {name: p.shape for name, p in parameters.items()}, losses)


# --- two gradients ---------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Gradients a and b of one group, compared. nan where one of them is 0.

    cosine      a·b / |a||b|, from -1 to 1
    ratio       |a| / |b|
    similarity  2|a||b| / (|a|² + |b|²), 1 for equal lengths (Yu et al. 2020, PCGrad, definition 2)
    opposed     share of the coordinates, among those where both are not 0, whose signs differ; 0.5 by chance
    """

    cosine: float
    ratio: float
    similarity: float
    opposed: float


def compare(a: Tensor, b: Tensor) -> Pair:
    """Two gradients `[p]`, compared in double precision."""
    a, b = a.double(), b.double()
    length_a, length_b = float(a.norm()), float(b.norm())
    if length_a == 0 or length_b == 0:
        return Pair(math.nan, math.nan, math.nan, math.nan)
    signs = a.sign() * b.sign()
    meeting = int((signs != 0).sum())
    return Pair(
        cosine=float((a / length_a) @ (b / length_b)), ratio=length_a / length_b,
        # Written with the ratio, because squares of small gradients may underflow.
        similarity=2 / (length_a / length_b + length_b / length_a),
        opposed=float((signs < 0).sum()) / meeting if meeting else math.nan,
    )


@dataclass(frozen=True)
class Between:
    """Two tasks in one group: means over draws with 95 % t intervals, the fields of `Pair`.

    corrected: the cosine that the full data would give, mean a·b / sqrt(mean a·a' mean b·b') over independent batches
    (Spearman 1904, correction for attenuation); None unless both ceilings are clearly above 0.
    """

    cosine: Interval
    ratio: Interval
    similarity: Interval
    opposed: Interval
    corrected: float | None


@dataclass(frozen=True)
class Conflict:
    """within: task → group → ceiling, the cosine of two of its batches. between: (task, task) → group → Between."""

    draws: int
    within: dict[str, dict[str, Interval]]
    between: dict[tuple[str, str], dict[str, Between]]

    def as_dict(self) -> dict:
        """For a record: plain numbers, None where there is none, pairs of tasks as "one | other"."""
        return {"draws": self.draws,
                "within": {task: {group: _plain(vars(found)) for group, found in by_group.items()}
                           for task, by_group in self.within.items()},
                "between": {" | ".join(pair): {group: _plain(vars(found)) for group, found in by_group.items()}
                            for pair, by_group in self.between.items()}}


def conflict(model: nn.Module, batches: Mapping[str, Sequence[Batch]], groups: Grouping = "block",
             loss: Loss = classification_loss, seed: int = 0, chunk: int | None = None) -> Conflict:
    """How far the tasks agree, beside how far each agrees with itself: split-half, one value a draw.

    batches: task → 2·draws batches that share no sample; draw r has the batches 2r and 2r+1 of every task. The ceiling
    of a task is cos(a₀, a₁); the cosine between tasks is the mean of cos(a₀, b₁) and cos(a₁, b₀). Batches of the same
    number never meet, so a control that shares its pictures with a task (random labels, the same task twice) is
    treated as any other, and a task against itself gives exactly its ceiling.

    Choose batches so large that the ceilings leave 0: at the sizes that training uses they often do not, and then no
    cosine between tasks says anything. Lengths hold the noise of a batch too, so ratios belong to training's sizes.
    Intervals cover the draws, not another training seed. Cost: 2·draws·tasks backward passes, and the gradients of two
    batches a task in memory.
    """
    counts = {task: len(several) for task, several in batches.items()}
    draws, odd = divmod(next(iter(counts.values()), 0), 2)
    if len(set(counts.values())) != 1 or odd or not draws:
        raise ValueError(f"every task needs the same even number of batches, two for each draw, got {counts}")
    within: dict[str, dict[str, list[float]]] = {}
    between: dict[tuple[str, str], dict[str, list[_Draw]]] = {}
    for draw in range(draws):
        halves = [task_gradients(model, {task: batches[task][2 * draw + half] for task in batches}, groups, loss,
                                 seed + 2 * draw + half, chunk) for half in (0, 1)]
        for group in halves[0].groups:
            vectors = {task: [half.flat[task][group].double() for half in halves] for task in batches}
            for task, (a0, a1) in vectors.items():
                within.setdefault(task, {}).setdefault(group, []).append(compare(a0, a1).cosine)
            for one, other in combinations(batches, 2):
                between.setdefault((one, other), {}).setdefault(group, []).append(
                    _cross(vectors[one], vectors[other]))
    ceilings = {task: {group: over_seeds(cosines) for group, cosines in by_group.items()}
                for task, by_group in within.items()}

    def agreement(pair: tuple[str, str], group: str) -> Between:
        return _over_draws(between[pair][group], [ceilings[task][group] for task in pair])

    return Conflict(draws, ceilings, {pair: {group: agreement(pair, group) for group in by_group}
                                      for pair, by_group in between.items()})


class _Draw(NamedTuple):
    pair: Pair
    ab: float  # mean dot product between the tasks, batches of different number
    aa: float
    bb: float


def _cross(a: list[Tensor], b: list[Tensor]) -> _Draw:
    pairs = [compare(a[0], b[1]), compare(a[1], b[0])]
    mean = [sum(values) / 2 for values in zip(*pairs)]
    ratio = math.sqrt(pairs[0].ratio * pairs[1].ratio)
    dots = float(a[0] @ b[1] + a[1] @ b[0]) / 2, float(a[0] @ a[1]), float(b[0] @ b[1])
    return _Draw(Pair(*mean)._replace(ratio=ratio), *dots)


def _over_draws(draws: list[_Draw], ceilings: list[Interval]) -> Between:
    pairs = Pair(*(list(values) for values in zip(*(draw.pair for draw in draws))))
    logs = over_seeds([math.log(value) for value in pairs.ratio])
    ab, aa, bb = (sum(values) / len(draws) for values in list(zip(*draws))[1:])
    clear = all(ceiling.low > 0 for ceiling in ceilings) and min(aa, bb) > 0  # one draw has no interval, so no proof
    return Between(
        cosine=over_seeds(pairs.cosine), similarity=over_seeds(pairs.similarity), opposed=over_seeds(pairs.opposed),
        ratio=Interval(*(_exp(value) for value in vars(logs).values())),
        corrected=ab / math.sqrt(aa * bb) if clear else None,
    )


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)


def _plain(values: dict) -> dict:
    """Intervals as dictionaries; JSON has no infinity and no nan."""
    return {key: _plain(vars(value)) if isinstance(value, Interval) else
            None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
