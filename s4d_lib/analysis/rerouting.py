"""routes → effect     what the answers of a trained model owe to its routing: silence, swap, fix or randomise it.

A rule takes the weights that the routers gave and returns others; inside `with rerouted(model, rule):` the model mixes
its experts by those. Experts and everything else stay as they were trained, so an effect belongs to the routing of
this model; what a model would have learned with another routing is a question for training runs (record
`router_ablations`). Derived in chapter 09.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from s4d_lib.analysis.measuring import Reliance, measuring
from s4d_lib.analysis.routing import RouterLogits, Routes, dense_weights, expert_layers
from s4d_lib.errors import Refused
from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.metrics.resampling import paired_bootstrap


class Decision(NamedTuple):
    """What the routers of one block decided for a batch."""

    block: int
    weights: Tensor  # [b n e] gates over all experts, 0 where not chosen or not served
    logits: Tensor   # [b n e]
    top_k: int


Rule = Callable[[Decision], Tensor]  # → weights [b n e]


@contextmanager
def rerouted(model: nn.Module, rule: Rule, blocks: Sequence[int] | None = None) -> Iterator[nn.Module]:
    """The model with its experts mixed by the weights that `rule` returns, in `blocks` (None: all that have experts).

    Later blocks see what the changed ones put out, and their own routers answer to that. `model.routing()` keeps
    telling what the routers wanted. Capacity does not apply to the new weights.
    """
    layers = expert_layers(model)
    unknown = sorted(set(layers if blocks is None else blocks) - set(layers))
    if unknown:
        raise Refused(f"blocks {unknown} have no experts; those with experts are {list(layers)}")
    with ExitStack() as stack:
        logits = stack.enter_context(RouterLogits(layers))
        for block, moae in layers.items():
            if blocks is None or block in blocks:
                stack.callback(moae.register_forward_hook(_remix(block, rule, logits)).remove)
        yield model


def _remix(block: int, rule: Rule, logits: RouterLogits):
    def hook(moae: MixtureOfAdapterExperts, arguments: tuple, mixed: Tensor) -> Tensor:
        decision = Decision(block, dense_weights(moae), logits[block], moae.router.top_k)
        return mix(moae, arguments[0], rule(decision)).to(mixed.dtype)
    return hook


def mix(moae: MixtureOfAdapterExperts, z: Tensor, weights: Tensor) -> Tensor:
    """Tokens `[b n d]`, weights `[b n e]` → Σ_e weights_e · expert_e(z), every expert on every token."""
    out = torch.zeros_like(z)
    for e, expert in enumerate(moae.experts):
        if weights[..., e].any():
            out = out + weights[..., e, None].to(z.dtype) * expert(z)
    return out


# --- rules ---------------------------------------------------------------------------------------------------------


def unchanged(decision: Decision) -> Tensor:
    """The control of all rules: the answers of the model as it is."""
    return decision.weights


def no_experts(decision: Decision) -> Tensor:
    """The whole branch is silent: the dense network alone."""
    return torch.zeros_like(decision.weights)


def uniform(decision: Decision) -> Tensor:
    """Every expert answers every token, all with weight 1/e."""
    return torch.full_like(decision.weights, 1 / decision.weights.shape[-1])


def equal_gates(decision: Decision) -> Tensor:
    """The chosen experts stay and share the weight alike: what the size of the gates is worth."""
    chosen = (decision.weights > 0).to(decision.weights.dtype)
    return chosen * decision.weights.sum(-1, keepdim=True) / chosen.sum(-1, keepdim=True).clamp(min=1)


def silent(expert: int, instead: Literal["nothing", "next"] = "nothing") -> Rule:
    """One expert ablated. "nothing": its answers are missing; "next": the router takes the next best instead."""
    if instead not in ("nothing", "next"):
        raise ValueError(f"instead must be 'nothing' or 'next', got {instead!r}")

    def rule(decision: Decision) -> Tensor:
        hole = torch.zeros(decision.weights.shape[-1], dtype=torch.bool, device=decision.weights.device)
        hole[expert] = True
        if instead == "nothing" or len(hole) == decision.top_k:
            return decision.weights.masked_fill(hole, 0)
        best, indices = decision.logits.masked_fill(hole, -torch.inf).topk(decision.top_k, dim=-1)
        return torch.zeros_like(decision.weights).scatter(-1, indices, best.softmax(-1))
    return rule


def only(expert: int) -> Rule:
    """All tokens go to one expert, with weight 1."""
    def rule(decision: Decision) -> Tensor:
        weights = torch.zeros_like(decision.weights)
        weights[..., expert] = 1
        return weights
    return rule


def random_experts(seed: int = 0) -> Rule:
    """Each token keeps its gates and gets other experts by lot, anew for every token and block."""
    rng = torch.Generator().manual_seed(seed)

    def rule(decision: Decision) -> Tensor:
        order = torch.rand(decision.weights.shape, generator=rng).argsort(-1).to(decision.weights.device)
        return decision.weights.gather(-1, order)
    return rule


def fixed(routes: Routes, by_place: bool = False) -> Rule:
    """Gates fixed to their mean over the samples of `routes`: the router no longer looks at the token.

    by_place keeps the mean of each place apart, so that routing by position stays and routing by content goes. A clip
    that is routed by images uses the place in the picture for all its time slots; an image uses a clip's first slot.
    """
    t, h, w = routes.grid
    mean = routes.weights.mean(0)  # [blocks n e]
    table = torch.from_numpy(mean if by_place else np.broadcast_to(mean.mean(1, keepdims=True), mean.shape).copy())

    def rule(decision: Decision) -> Tensor:
        rows = table[routes.blocks.index(decision.block)].to(decision.weights)
        return _on_slots(rows[None], h * w, decision.weights).expand_as(decision.weights)
    return rule


def borrowed(donors: Routes, seed: int = 0) -> Rule:
    """Every sample takes the weights that another sample got, token by token at the same place, in all blocks.

    donors: routes of samples other than the ones that are answered. Of the other modality, this swaps the routing of
    stills and clips; of the same modality, it is the control that says what any foreign routing costs. Time slots meet
    as in `fixed`.
    """
    rng = np.random.default_rng(seed)
    weights, (_, h, w) = torch.from_numpy(donors.weights), donors.grid
    who: list[Tensor] = []

    def rule(decision: Decision) -> Tensor:
        if decision.block == donors.blocks[0] or not who:  # one donor a sample for the whole pass
            who[:] = [torch.from_numpy(rng.integers(len(weights), size=len(decision.weights)))]
        rows = weights[who[0], donors.blocks.index(decision.block)].to(decision.weights)
        return _on_slots(rows, h * w, decision.weights)
    return rule


def _on_slots(rows: Tensor, places: int, like: Tensor) -> Tensor:
    """Weights `[b n' e]` of one token grid on the n tokens of another with the same places in a slot."""
    if like.shape[1] % places:
        raise ValueError(f"{like.shape[1]} tokens cannot be cut into slots of {places} places")
    have, want = rows.shape[1] // places, like.shape[1] // places
    rows = rows.unflatten(1, (have, places))
    slots = torch.arange(want, device=rows.device).clamp(max=have - 1)
    return rows[:, slots].flatten(1, 2)


def standard_rules(model: nn.Module, own: Routes, other: Routes | None = None, seed: int = 0) -> dict[str, Rule]:
    """Name → rule, all that the book tries, in order. own and other: routes of training or validation samples of the
    modality that is answered and of the other one.
    """
    experts = range(own.experts)
    rules: dict[str, Rule] = {
        "unchanged": unchanged, "no experts": no_experts, "equal gates": equal_gates,
        "mean gates by place": fixed(own, by_place=True), "mean gates": fixed(own), "uniform": uniform,
        "random experts": random_experts(seed), "routed like another of its kind": borrowed(own, seed),
    }
    if other is not None:
        rules |= {"routed like the other modality": borrowed(other, seed),
                  "mean gates of the other modality": fixed(other)}
    rules |= {f"expert {e} silent": silent(e) for e in experts}
    rules |= {f"expert {e} silent, next best instead": silent(e, "next") for e in experts}
    rules |= {f"expert {e} only": only(e) for e in experts}
    return rules


# --- effects -------------------------------------------------------------------------------------------------------


def probabilities(model: nn.Module, x: Tensor, rule: Rule | None = None, views: int = 1, batch: int = 64,
                  blocks: Sequence[int] | None = None) -> np.ndarray:
    """Class probabilities `[n classes]` under a rule (None: as the model is), in evaluation mode.

    With `views`, x holds that many views of a sample in succession, `[(n views) ...]`, and their mean counts.
    """
    device = next(model.parameters()).device
    with measuring(model), torch.no_grad(), nullcontext() if rule is None else rerouted(model, rule, blocks):
        given = torch.cat([model(part.to(device)).double().softmax(-1).cpu() for part in x.split(batch * views)])
    return given.unflatten(0, (-1, views)).mean(1).numpy()


def effects(model: nn.Module, x: Tensor, labels: np.ndarray, rules: Mapping[str, Rule],
            people: np.ndarray | None = None, views: int = 1, batch: int = 64,
            blocks: Sequence[int] | None = None, draws: int = 2000, seed: int = 0) -> dict[str, Reliance]:
    """Rule name → its effect on the answers to x `[(n views) ...]` with labels `[n]`.

    people `[n]`: what is resampled together; None: samples. The intervals hold for this model: another training seed
    gives another one, so a statement about the method needs `answers_under` of several seeds.
    """
    labels = np.asarray(labels)
    if len(x) != len(labels) * views or (people is not None and len(people) != len(labels)):
        raise ValueError(f"{len(x)} inputs in {views} views, {len(labels)} labels and "
                         f"{len(labels) if people is None else len(people)} people do not belong together")
    truth = probabilities(model, x, None, views, batch)
    groups = None if people is None else torch.as_tensor(np.unique(np.asarray(people), return_inverse=True)[1])
    reliance = {}
    for name, rule in rules.items():
        changed = probabilities(model, x, rule, views, batch, blocks)
        reliance[name] = Reliance(*paired_bootstrap(100 * _differences(changed, truth, labels), groups, draws, seed))
    return reliance


def answers_under(model: nn.Module, x: Tensor, rules: Mapping[str, Rule], views: int = 1, batch: int = 64,
            ) -> dict[str, np.ndarray]:
    """Rule name → predicted class of every sample, uint8 `[n]`: what a study keeps of each seed."""
    return {name: probabilities(model, x, rule, views, batch).argmax(1).astype(np.uint8)
            for name, rule in rules.items()}


def _differences(changed: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Per sample: change of correct, change of confidence, switched: `[n 3]`."""
    row = np.arange(len(labels))
    one, other = changed.argmax(1), truth.argmax(1)
    return np.stack([(one == labels).astype(float) - (other == labels), changed[row, labels] - truth[row, labels],
                     one != other], axis=1).astype(float)
