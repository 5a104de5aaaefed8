"""model → routes     which expert gets which token, by modality, class, place and time, each beside its floor.

`observe` runs a model with experts and keeps what every router decided. The other functions are counts over that:
shares, entropies, information. A map of shares has structure before anything is learned, so information comes with
what shuffled labels give. What the decisions do to the answers is in `rerouting.py`. Derived in chapter 09.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from s4d_lib.analysis.measuring import measuring
from s4d_lib.errors import Refused
from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.layers.tokens import Grid

Axis = Literal["time", "height", "width"]


@dataclass(frozen=True)
class Routes:
    """What the routers decided for every token of some samples of one modality; arrays `[b blocks n e]`.

    probabilities  softmax of the router's logits over all experts, noise included where there was noise
    weights        the gate of each expert; 0 where it was not chosen or was full
    chosen         True for the k experts that the router chose
    dropped        True where a chosen expert was full
    """

    blocks: tuple[int, ...]
    grid: Grid
    probabilities: np.ndarray
    weights: np.ndarray
    chosen: np.ndarray
    dropped: np.ndarray

    @property
    def experts(self) -> int:
        return self.chosen.shape[-1]

    def at_slot(self, slot: int) -> Routes:
        """The tokens of one time slot alone: slot 0 of a clip has the positions of an image."""
        t, h, w = self.grid
        if not 0 <= slot < t:
            raise ValueError(f"these samples have time slots 0 to {t - 1}, got {slot}")
        cut = slice(slot * h * w, (slot + 1) * h * w)
        parts = (getattr(self, name)[:, :, cut] for name in ("probabilities", "weights", "chosen", "dropped"))
        return Routes(self.blocks, (1, h, w), *parts)


def expert_layers(model: nn.Module) -> dict[int, MixtureOfAdapterExperts]:
    """Block number → its mixture of experts; ValueError if the model has none."""
    found = {i: part for i, block in enumerate(model.blocks) for part in block.modules()
             if isinstance(part, MixtureOfAdapterExperts)}
    if not found:
        raise Refused("this model has no block with experts; build it with moae_blocks=")
    return found


def observe(model: nn.Module, x: Tensor, conditions: Literal["evaluation", "training"] = "evaluation",
            batch: int = 64, seed: int = 0) -> Routes:
    """Images `[b 3 h w]` or clips `[b 3 t h w]`, ready for the model → their routes.

    conditions="training" gives the routers the noise and the capacity they have while training, without dropout: what
    is dropped then depends on the order of the samples and on `batch`. The model comes back as it was.
    """
    if conditions not in ("evaluation", "training"):
        raise ValueError(f"conditions must be 'evaluation' or 'training', got {conditions!r}")
    layers, rows, device = expert_layers(model), [], next(model.parameters()).device
    with measuring(model, seed), torch.no_grad(), RouterLogits(layers) as logits:
        for moae in layers.values():
            moae.train(conditions == "training")
        for part in x.split(batch):
            model(part.to(device))
            rows.append([_decided(moae, logits[block]) for block, moae in layers.items()])
    batches = [[torch.stack(field, 1) for field in zip(*decided)] for decided in rows]  # blocks lie side by side
    fields = [torch.cat(field).cpu().numpy() for field in zip(*batches)]
    grid = model.size.grid if x.ndim == 5 else model.size.image_grid
    return Routes(tuple(layers), tuple(grid), *fields)


class RouterLogits(dict):
    """Inside its `with`: block → the logits `[b n e]` of that block's router in the last forward pass."""

    def __init__(self, layers: dict[int, MixtureOfAdapterExperts]) -> None:
        super().__init__()
        self.layers = layers

    def __enter__(self) -> RouterLogits:
        self.handles = [moae.router.register_forward_hook(self._keep(block)) for block, moae in self.layers.items()]
        return self

    def __exit__(self, *failure: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, block: int):
        def hook(router: nn.Module, arguments: tuple, outcome: tuple[Tensor, Tensor, Tensor]) -> None:
            self[block] = outcome[2].detach()
        return hook


def dense_weights(moae: MixtureOfAdapterExperts) -> Tensor:
    """Gates of the last forward pass as weights over all experts, `[b n e]`: 0 where not chosen or not served."""
    gates, indices, dropped = moae.routing
    weights = gates.new_zeros(*indices.shape[:2], len(moae.experts))
    return weights.scatter(-1, indices, gates.masked_fill(dropped, 0))


def _decided(moae: MixtureOfAdapterExperts, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, indices, dropped = moae.routing
    none = torch.zeros_like(logits, dtype=torch.bool)
    return (logits.softmax(-1), dense_weights(moae), none.scatter(-1, indices, True),
            none.scatter(-1, indices, dropped))


@torch.no_grad()
def branch_size(model: nn.Module, x: Tensor, batch: int = 64) -> dict[int, float]:
    """Block → mean length of what its experts add to a token, over the length of what the dense network adds.

    A branch of a hundredth cannot move an answer far, however it is routed.
    """
    layers, device, ratios = expert_layers(model), next(model.parameters()).device, {}
    added: dict[tuple[int, str], Tensor] = {}

    def keep(block: int, part: str):
        return lambda module, arguments, outcome: added.update({(block, part): outcome.norm(dim=-1)})

    handles = [module.register_forward_hook(keep(block, part)) for block, moae in layers.items()
               for part, module in (("experts", moae), ("dense", model.blocks[block].mlp))]
    try:
        with measuring(model), torch.no_grad():
            for part in x.split(batch):
                model(part.to(device))
                for block in layers:
                    ratio = added[block, "experts"] / added[block, "dense"].clamp(min=1e-12)
                    ratios.setdefault(block, []).append(ratio.flatten().double().cpu())
    finally:
        for handle in handles:
            handle.remove()
    return {block: float(torch.cat(found).mean()) for block, found in ratios.items()}


# --- shares --------------------------------------------------------------------------------------------------------


def expert_load(routes: Routes, groups: np.ndarray | None = None, count: int | None = None,
                of: Literal["choices", "gates"] = "choices") -> np.ndarray:
    """Share of all choices, or of all gate mass, on each expert: `[blocks e]`, rows sum to 1.

    With `groups`, ints `[b]` (such as labels) or `[b n]` or `[1 n]` (such as `token_groups`), one such table for each
    of `count` groups, `[groups blocks e]`; nan where a group has no token.
    """
    if of not in ("choices", "gates"):
        raise ValueError(f"of must be 'choices' or 'gates', got {of!r}")
    values = (routes.chosen if of == "choices" else routes.weights).astype(np.float64)  # [b blocks n e]
    b, blocks, n, e = values.shape
    if groups is None:
        return _shares(values.sum((0, 2)))
    groups = np.asarray(groups)
    groups = np.broadcast_to(groups[:, None] if groups.ndim == 1 else groups, (b, n))
    count = int(groups.max()) + 1 if count is None else count
    table = np.zeros((count, blocks, e))
    np.add.at(table, groups.ravel(), values.transpose(0, 2, 1, 3).reshape(b * n, blocks, e))
    return _shares(table)


def token_groups(grid: Grid, axis: Axis | None = None) -> np.ndarray:
    """The time slot, row or column of every token, or (None) its own number: ints `[1 n]` for `expert_load`."""
    if axis is None:
        return np.arange(int(np.prod(grid)))[None]
    place = ("time", "height", "width").index(axis)
    return np.indices(grid)[place].reshape(1, -1)


def sample_load(routes: Routes) -> np.ndarray:
    """Share of each sample's choices on each expert, `[b 1 blocks e]`: every sample counts alike, long or short."""
    return _shares(routes.chosen.sum(2).astype(np.float64))[:, None]


def token_load(routes: Routes) -> np.ndarray:
    """Share of each token's choices on each expert, `[b n blocks e]`."""
    return _shares(routes.chosen.transpose(0, 2, 1, 3).astype(np.float64))


def _shares(table: np.ndarray) -> np.ndarray:
    total = table.sum(-1, keepdims=True)
    return np.divide(table, total, out=np.full(table.shape, np.nan), where=total > 0)


# --- entropies -----------------------------------------------------------------------------------------------------


def entropy(shares: np.ndarray) -> np.ndarray:
    """Entropy in bits of distributions `[... e]`: 0 for one expert, log2 e for an even spread."""
    p = np.asarray(shares, dtype=np.float64)
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1) + 0.0


def summary(routes: Routes) -> list[dict[str, float]]:
    """One row a block, for tables and records.

    router_bits        mean entropy of the router's probabilities for one token: how undecided it is
    load_bits          entropy of the load over all tokens: how evenly the experts are used
    effective_experts  2 ** load_bits: e if all are used alike, k if the same k serve everybody
    largest_share      the share of choices on the busiest expert
    top_gate           mean gate of a token's best expert, 1/k … 1
    dropped            share of choices that found their expert full
    """
    rows = []
    for place, block in enumerate(routes.blocks):
        chosen, weights, dropped = (part[:, place] for part in (routes.chosen, routes.weights, routes.dropped))
        load = _shares(chosen.sum((0, 1)).astype(np.float64))
        gates = weights.max(-1)[weights.sum(-1) > 0]  # a token whose experts are all full has no gate to speak of
        rows.append({
            "block": int(block), "router_bits": float(entropy(routes.probabilities[:, place]).mean()),
            "load_bits": float(entropy(load)), "effective_experts": float(2 ** entropy(load)),
            "largest_share": float(load.max()), "top_gate": float(gates.mean()) if len(gates) else 0.0,
            "dropped": float(dropped.sum() / chosen.sum()),
        })
    return rows


# --- information ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Information:
    """Bits that the expert of a choice says about a label, in one block, beside what shuffled labels give.

    bits       plug-in estimate, never below 0 even for labels that mean nothing
    floor      its mean over shuffled labels        high   95th percentile over shuffled labels
    p          share of shuffles that reach it, the true labels counted as one
    ceiling    entropy of the label in bits: what the expert would say if it gave the label away
    """

    block: int
    bits: float
    floor: float
    high: float
    p: float
    ceiling: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def expert_information(load: np.ndarray, labels: np.ndarray, blocks: tuple[int, ...],
                       people: np.ndarray | None = None, draws: int = 500, seed: int = 0) -> list[Information]:
    """Mutual information of expert and label, one entry a block.

    load: `sample_load` or `token_load`, `[b places blocks e]`; with several places it is the mean over them of the
    information at one place, so that "this expert likes mouths" does not count as "it likes happy ones". labels:
    ints `[b]`; a sample counts once whatever its length.
    people `[b]`: a person's samples resemble each other. Labels that vary within people are shuffled within each;
    labels that never do (such as the modality, where nobody is in both) move with the whole person.
    """
    load, labels = np.asarray(load, dtype=np.float64), np.asarray(labels)
    if load.ndim != 4 or len(load) != len(labels) or load.shape[2] != len(blocks):
        raise ValueError(f"load has shape {load.shape}; expected [b places blocks e] with b = {len(labels)} labels "
                         f"and {len(blocks)} blocks")
    kinds, labels = np.unique(labels, return_inverse=True)
    people = np.arange(len(labels)) if people is None else np.unique(np.asarray(people), return_inverse=True)[1]
    flat = load.reshape(len(load), -1)
    bits = _bits(flat, labels, len(kinds), load.shape[1:])
    rng = np.random.default_rng(seed)
    null = np.stack([_bits(flat, _shuffled(labels, people, rng), len(kinds), load.shape[1:]) for _ in range(draws)])
    high = np.percentile(null, 95, axis=0)
    p = (1 + (null >= bits - 1e-12).sum(0)) / (1 + draws)
    ceiling = float(entropy(np.bincount(labels) / len(labels)))
    return [Information(int(block), float(bits[i]), float(null[:, i].mean()), float(high[i]), float(p[i]), ceiling)
            for i, block in enumerate(blocks)]


def _bits(flat: np.ndarray, labels: np.ndarray, kinds: int, shape: tuple[int, ...]) -> np.ndarray:
    """I(e; label) = H(e) - Σ_g w_g H(e | g), at every place and then averaged: `[blocks]`."""
    member = np.eye(kinds)[labels].T                                   # [groups b]
    size = member.sum(1)
    within = ((member @ flat) / np.maximum(size, 1)[:, None]).reshape(kinds, *shape)  # [groups places blocks e]
    share = size / size.sum()
    whole = np.tensordot(share, within, 1)
    return (entropy(whole) - np.tensordot(share, entropy(within), 1)).mean(0)


def _shuffled(labels: np.ndarray, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.lexsort((rng.random(len(labels)), people))
    if (labels[order][1:] != labels[order][:-1])[people[order][1:] == people[order][:-1]].any():
        out = np.empty_like(labels)
        out[np.lexsort((np.arange(len(labels)), people))] = labels[order]  # within each person
        return out
    first = np.unique(people, return_index=True)[1]
    return rng.permutation(labels[first])[people]
