"""latents → latents     bottleneck adapter, noisy top-k router, mixture of adapter experts (MoAE).

Each token is sent to its k best of e small networks; their answers are added, weighted by the router's gates.
Two behaviours exist, because the released code and sound use of it differ:

    reference   Router noise at all times. Each expert serves the first C tokens of the flattened batch, at
                test time too. Balance loss on raw noisy logits. A prediction depends on chance and on the
                other samples of its batch.
    clean       Noise and capacity while training only, balance loss on probabilities. A prediction depends
                on its own sample alone.

Derived in chapter 09.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.distributed import draw, gather_rows, own_rows, shared
from s4d_lib.errors import Refused
from s4d_lib.layers.losses import load_balance_loss
from s4d_lib.layers.mixing import mix, ranks

BEHAVIOURS = ("clean", "reference")
# learned: the paper's; quiet: without noise; frozen: with its random first weights; the other two are controls
# without a choice: "task" sends stills to expert 0 and clips to expert 1, "uniform" everything to everyone equally.
ROUTERS = ("learned", "quiet", "frozen", "task", "uniform")


class Routing(NamedTuple):
    """What a router decided in the last forward pass, cut from the graph; each `[b n k]`."""

    gates: Tensor    # weights of the chosen experts, summing to 1 over k
    indices: Tensor  # the chosen experts, best first
    dropped: Tensor  # True where the expert was full and did not serve the token


class Adapter(nn.Module):
    """Two-layer bottleneck `[... d]` → `[... d]`: hidden width int(d/4), GELU, no skip connection.

    The block's residual path runs around it, so the expert needs none of its own (released
    `finetune/s4d/videomae.py:38-60, 241-252`).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = int(0.25 * dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class NoisyTopKRouter(nn.Module):
    """Chooses k of e experts for each token (arXiv 2409.06154; released `finetune/s4d/videomae.py:114-155`).

    H = W_r z + ε ⊙ softplus(W_n z), ε ~ N(0, I); the k largest of H are kept and softmaxed among themselves.
    """

    def __init__(self, dim: int, experts: int, top_k: int, behaviour: str, noise: bool = True) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise Refused(f"top_k must be from 1 to the number of experts ({experts}), got {top_k}")
        self.topkroute_linear = nn.Linear(dim, experts)
        self.noise_linear = nn.Linear(dim, experts)
        self.top_k, self.behaviour, self.noise = top_k, behaviour, noise

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[b n d]` → gates `[b n k]`, experts `[b n k]`, logits `[b n e]`, in float32."""
        # Half precision makes neighbouring logits equal and the choice arbitrary, so autocast stops here.
        noisy = self.noise and (self.training or self.behaviour == "reference")
        with _without_autocast(z.device.type):
            logits, *spread = _linear_float32(z, self.topkroute_linear, *[self.noise_linear] * noisy)
            if noisy:
                noise = draw(lambda n: torch.randn_like(logits.new_empty(n, *logits.shape[1:])), len(logits))
                logits = logits + noise * F.softplus(spread[0])
        best, indices = logits.topk(self.top_k, dim=-1)
        return best.softmax(dim=-1), indices, logits


class FixedRouter(nn.Module):
    """A router that chooses nothing, as a control: by task (one adapter a task), or everyone equally (capacity).

    `places` is the number of tokens of a still; any other number is a clip.
    """

    def __init__(self, kind: str, experts: int, places: int | None) -> None:
        super().__init__()
        if kind == "task" and (experts != 2 or places is None):
            raise Refused("router 'task' has one expert a task: set experts=2")
        self.kind, self.experts, self.places = kind, experts, places
        self.top_k = 1 if kind == "task" else experts

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[b n d]` → gates `[b n k]`, experts `[b n k]`, logits `[b n e]` (all 0)."""
        only = torch.tensor([int(z.shape[1] != self.places)])
        chosen = only if self.kind == "task" else torch.arange(self.experts)
        indices = chosen.to(z.device).expand(*z.shape[:2], self.top_k)
        gates = torch.full(indices.shape, 1 / self.top_k, device=z.device)
        return gates, indices, torch.zeros(*z.shape[:2], self.experts, device=z.device)


class MixtureOfAdapterExperts(nn.Module):
    """MoAE: `[b n d]` → `[b n d]`, the gated sum of each token's k experts (arXiv 2409.06154).

    Where capacity applies, an expert serves at most C = int(b·n·k/e · capacity_factor) tokens, first come in
    flattened order. A token that finds an expert full gets nothing from it, and its gate is not given to
    another (released `finetune/s4d/videomae.py:254-287`). `capacity_factor=math.inf` never drops.
    """

    def __init__(self, dim: int, experts: int = 8, top_k: int = 2, capacity_factor: float = 1.0,
                 behaviour: str = "clean", router: str = "learned", places: int | None = None) -> None:
        super().__init__()
        if router not in ROUTERS:
            raise Refused(f"router must be one of {ROUTERS}, got {router!r}")
        if behaviour not in BEHAVIOURS:
            raise ValueError(f"behaviour must be one of {BEHAVIOURS}, got {behaviour!r}")
        if not capacity_factor > 0:
            raise Refused(f"capacity_factor must be positive, got {capacity_factor}")
        fixed = router in ("task", "uniform")
        self.router = (FixedRouter(router, experts, places) if fixed else
                       NoisyTopKRouter(dim, experts, top_k, behaviour, noise=router == "learned"))
        if router == "frozen":
            self.router.requires_grad_(False)
        self.experts = nn.ModuleList(Adapter(dim) for _ in range(experts))
        self.capacity_factor, self.behaviour = capacity_factor, behaviour
        self.routing: Routing | None = None      # of the last forward pass
        self.balance_loss: Tensor | None = None  # of the last forward pass, with its graph

    def forward(self, z: Tensor) -> Tensor:
        gates, indices, logits = self.router(z)
        learns = isinstance(self.router, NoisyTopKRouter)
        # Where several processes share a batch: how often each of its samples chose each expert, [batch e].
        chosen = gather_rows(F.one_hot(indices, len(self.experts)).sum(dim=(1, 2))) if shared() else None
        balance = load_balance_loss(logits, indices, self.behaviour, chosen) if learns else z.new_zeros(())
        tokens, asked = z.flatten(0, 1), indices.flatten(0, 1)
        whole = (z if chosen is None else chosen).shape[0] * z.shape[1]  # `len` would fix the size of an exported batch
        room, rank, dropped = self.capacity(whole), None, None
        if room >= whole:
            room = None
        else:
            rank = ranks(asked, len(self.experts))
            dropped = rank >= (room if chosen is None else self._served(chosen, room)[asked])
        mixed = mix(self.experts, tokens, gates.flatten(0, 1), asked, rank, dropped, room)
        if not torch.compiler.is_exporting():  # an exported graph answers and remembers nothing
            refused = torch.zeros_like(indices, dtype=torch.bool) if dropped is None else dropped.view_as(indices)
            self.routing, self.balance_loss = Routing(gates.detach(), indices, refused), balance
        return mixed.view_as(z)

    def capacity(self, tokens: int) -> int:
        """How many of a batch's b·n tokens one expert may serve."""
        limited = self.training or self.behaviour == "reference"
        if not limited or math.isinf(self.capacity_factor) or isinstance(self.router, FixedRouter):
            return tokens
        return int(tokens * self.router.top_k / len(self.experts) * self.capacity_factor)

    def _served(self, chosen: Tensor, room: int) -> Tensor:
        """How many of this process's tokens each expert serves, `[e]`, so that the first of the whole batch are served.

        chosen `[batch e]` as in `forward`; room: how many of the batch's tokens one expert may serve.
        """
        before = chosen.cumsum(dim=0) - chosen
        return own_rows(torch.minimum((room - before).clamp(min=0), chosen)).sum(dim=0)

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the model (an average of weights, a worker's replica) must not drag the last graph along.
        return {**self.__dict__, "routing": None, "balance_loss": None}


def _without_autocast(device: str) -> AbstractContextManager:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _linear_float32(z: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """What each layer makes of z, in one product: they are a few columns wide, and reading z is what takes time."""
    weight, bias = (torch.cat([getattr(layer, part).float() for layer in layers]) for part in ("weight", "bias"))
    return F.linear(z.float(), weight, bias).chunk(len(layers), dim=-1)
