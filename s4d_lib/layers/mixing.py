"""tokens, gates → mixture     what each token's experts answer, added up by its gates: three ways to the same numbers.

    loop     Pairs of token and expert sorted by expert, one expert after another. It computes what was asked for and
             nothing else, but the host must know how many tokens each expert has, so it waits for the device.
    dense    Every expert answers every token, in two large products; the gates of experts that were not chosen are 0.
             e/k times the arithmetic in the fewest operations.
    padded   Where an expert may serve C tokens, it has C places, empty or not: two batched products of e·C rows.

The shapes of the last two do not depend on the routing, so that nothing waits for the device and a whole model compiles
and exports as one graph. In all of them an expert's gate weighs its hidden layer, a quarter as wide as its answer:
gate · (W₂ h + b₂) = W₂ (gate · h) + gate · b₂.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Which way is fastest, by the rows that it computes times d², the arithmetic of a row up to a constant. On a CPU
# (one thread, float32, forward and backward, d from 64 to 768, 72 to 6400 tokens) the loop's Python and its small
# products cost 1.2 to 1.7 times as much as `dense` below the first number and as `padded` below the second; above
# them the arithmetic saved outweighs that. For other devices the first is where the additional products of `dense`
# take as long as the launches of `padded`, some 100 µs at 3e14 operations a second: counted, not measured.
DENSE = {"cpu": 2e7}
DENSE_ELSEWHERE = 2e10
PADDED_ON_CPU = 1e8


def ranks(indices: Tensor, experts: int) -> Tensor:
    """Chosen experts `[n k]` → how many earlier tokens chose the same one, `[n k]`: a token's place in its queue."""
    to = indices.t()
    chosen = to.new_zeros(experts, to.shape[1]).scatter(0, to, 1)
    return (chosen.cumsum(dim=1) - chosen).gather(0, to).t()  # along rows, where a GPU can share a sum out


def way(device: torch.device, tokens: int, dim: int, experts: int, places: int | None) -> str:
    """loop, dense or padded, for experts that serve at most `places` of the tokens; None: all of them."""
    waits = device.type == "cpu" and not torch.compiler.is_compiling()  # where it costs nothing to count on the host
    if places is None and not waits:
        return "dense"  # before any look at the number of tokens, which an exported graph leaves open
    limited, row = places is not None and 0 < places < tokens, dim * dim
    if experts * tokens * row <= DENSE.get(device.type, DENSE_ELSEWHERE):
        return "dense"
    if limited and (not waits or experts * places * row <= PADDED_ON_CPU):
        return "padded"
    return "loop" if waits else "dense"


def mix(experts: Sequence[nn.Module], z: Tensor, gates: Tensor, indices: Tensor, rank: Tensor | None = None,
        dropped: Tensor | None = None, places: int | None = None) -> Tensor:
    """Tokens `[n d]`, gates and chosen experts `[n k]`, distinct for each token → Σ gate · expert(z), `[n d]`.

    dropped   bool `[n k]`: pairs that are not served; None: all are
    places    the most tokens that an expert serves; None: any number
    rank      `ranks(indices)`, needed with places
    """
    if dropped is not None:
        gates = gates.masked_fill(dropped, 0)
    chosen = way(z.device, *z.shape, len(experts), places)
    if chosen == "loop":
        return _loop(experts, z, gates, indices, dropped)
    weights = gates.new_zeros(z.shape[0], len(experts)).scatter(1, indices, gates)  # [n e]
    mixed = (_dense(experts, z, weights) if chosen == "dense" else
             _padded(experts, z, gates, indices, rank, dropped, places))
    biases = torch.stack([expert.fc2.bias for expert in experts])
    return mixed + weights.to(mixed.dtype) @ biases.to(mixed.dtype)


def _dense(experts: Sequence[nn.Module], z: Tensor, weights: Tensor) -> Tensor:
    inner = torch.cat([expert.fc1.weight for expert in experts])         # [(e h) d]
    outer = torch.cat([expert.fc2.weight for expert in experts], dim=1)  # [d (e h)]
    hidden = F.gelu(F.linear(z, inner, torch.cat([expert.fc1.bias for expert in experts])))
    hidden = hidden.unflatten(-1, (len(experts), -1)) * weights[..., None].to(hidden.dtype)
    return F.linear(hidden.flatten(1), outer).to(z.dtype)


def _padded(experts: Sequence[nn.Module], z: Tensor, gates: Tensor, indices: Tensor, rank: Tensor, dropped: Tensor,
            places: int) -> Tensor:
    rows, k = len(experts) * places, indices.shape[1]
    # The place of a pair among all; pairs that are not served share one more, which is cut off again.
    place = (indices * places + rank).masked_fill(dropped, rows).flatten()
    pair = torch.arange(place.shape[0], device=z.device)
    tokens = torch.zeros(rows + 1, dtype=torch.long, device=z.device).scatter(0, place, pair // k)[:rows]
    gate = gates.new_zeros(rows + 1).scatter(0, place, gates.flatten())[:rows]
    # An empty place answers token 0 with a gate of 0.
    asked = z.index_select(0, tokens).unflatten(0, (len(experts), places))
    inner, outer = (torch.stack([getattr(expert, layer).weight for expert in experts]).transpose(1, 2)
                    for layer in ("fc1", "fc2"))
    hidden = F.gelu(torch.baddbmm(torch.stack([expert.fc1.bias for expert in experts])[:, None], asked, inner))
    hidden = hidden * gate.view(len(experts), places, 1).to(hidden.dtype)
    return torch.zeros_like(z).index_add(0, tokens, torch.bmm(hidden, outer).flatten(0, 1).to(z.dtype))


def _loop(experts: Sequence[nn.Module], z: Tensor, gates: Tensor, indices: Tensor, dropped: Tensor | None) -> Tensor:
    to = (indices if dropped is None else indices.masked_fill(dropped, len(experts))).flatten()
    counts = torch.bincount(to, minlength=len(experts)).tolist()[: len(experts)]
    # Stable, so that an expert reads its tokens in their order; those of nobody come last and are left out.
    order = to.argsort(stable=True)[: sum(counts)]
    tokens = order // indices.shape[1]
    asked = z.index_select(0, tokens).split(counts)
    hidden = F.gelu(torch.cat([expert.fc1(part) for expert, part in zip(experts, asked, strict=True)]))
    gate = gates.flatten()[order].to(hidden.dtype)
    hidden = hidden * gate[:, None]
    mixed = torch.zeros_like(z)
    for expert, part, own, weight in zip(experts, *(x.split(counts) for x in (hidden, tokens, gate)), strict=True):
        answer = torch.addr(F.linear(part, expert.fc2.weight), weight, expert.fc2.bias.to(weight.dtype))
        mixed.index_add_(0, own, answer.to(z.dtype))
    return mixed
