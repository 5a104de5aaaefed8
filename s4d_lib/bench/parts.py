"""dials → rows     parts of the models by themselves: the experts' layer over its dials, several looks at each clip.

A layer of experts is timed forwards and backwards on random tokens. Several looks are what a test does: every clip as
views × crops, a mean softmax for each clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from s4d_lib.bench.baselines import at_hand, textbook_twin
from s4d_lib.bench.networks import NETWORKS, Task, inputs, ways_of
from s4d_lib.bench.timing import Call

BALANCE = 1e-3
LOOKS = 2 * 3  # temporal views × spatial crops


@dataclass(frozen=True)
class Mixing:
    """One layer of experts in training, and what it is given."""

    dim: int
    experts: int
    top_k: int
    tokens: int
    precision: str = "no"
    device: str = "cpu"

    @property
    def name(self) -> str:
        return f"{self.experts} experts top-{self.top_k} {self.tokens} tokens"


def mixings(dim: int, device: str, precision: str, quick: bool) -> list[Mixing]:
    """The paper's layer, and each of its dials alone."""
    usual, tokens = (800, (200, 3200)) if not device.startswith("cuda") else (4096, (512, 65536))
    if quick:
        usual, tokens = 200, ()
    dials = [(8, 2, usual), (4, 2, usual), (16, 2, usual), (8, 1, usual), (8, 4, usual), *((8, 2, n) for n in tokens)]
    return [Mixing(dim, *dial, precision, device) for dial in (dials[:1] if quick else dials)]


def our_layer(mixing: Mixing) -> nn.Module:
    from s4d_lib.layers.adapters import MixtureOfAdapterExperts

    torch.manual_seed(0)
    return MixtureOfAdapterExperts(mixing.dim, mixing.experts, mixing.top_k).to(mixing.device)


def layer_call(way: str, mixing: Mixing) -> Call:
    layer = our_layer(mixing)
    layer = layer if way == "ours" else textbook_twin(layer)
    draw = torch.Generator().manual_seed(0)
    z = torch.randn((1, mixing.tokens, mixing.dim), generator=draw).to(mixing.device).requires_grad_()
    return partial(_mix, way, layer, mixing, z)


def _mix(way: str, layer: nn.Module, mixing: Mixing, z: Tensor) -> Tensor:
    layer.zero_grad()
    z.grad = None
    with torch.autocast(mixing.device.split(":")[0], dtype=torch.bfloat16, enabled=mixing.precision == "bf16"):
        mixed = layer(z)
        balance = layer.balance_loss if way == "ours" else layer.balance
    (mixed.float().square().mean() + BALANCE * balance).backward()
    return mixed.detach()


def layer_ways(mixing: Mixing) -> dict[str, partial]:
    return {way: partial(layer_call, way, mixing) for way in ["ours"] + ["textbook"] * at_hand("textbook")}


def layer_differences(mixing: Mixing) -> dict[str, float]:
    """Largest absolute differences of the mixture, and of the gradient with respect to the tokens."""
    answers, gradients = [], []
    for way in ("ours", "textbook"):
        call = layer_call(way, mixing)
        torch.manual_seed(1)  # the router's noise
        answers.append(call().float())
        gradients.append(call.args[-1].grad)
    return {"answer": float((answers[0] - answers[1]).abs().max()),
            "gradient": float((gradients[0] - gradients[1]).abs().max())}


# ------------------------------------------------------------------------------------------------------ several looks


class _Looks(torch.utils.data.Dataset):
    """Clips in memory as test views: every item `[looks 3 t h w]`, its label 0."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.samples = x, []

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict:
        return {"x": self.x[index], "label": 0, "index": index}


def looks_call(way: str, task: Task) -> Call:
    """`task.batch` clips, each seen LOOKS times: class probabilities `[b classes]`."""
    network = NETWORKS[way](task)
    looks = torch.stack([inputs(task)["x"]] * LOOKS, dim=1).cpu()
    if way != "ours":
        return partial(_plain_looks, network, looks, task.device)
    from s4d_lib.training.configs import FinetuneConfig
    from s4d_lib.training.scoring import probabilities

    return partial(probabilities, network, _Looks(looks), FinetuneConfig(name="bench", mode="dfer"), task.batch)


@torch.inference_mode()
def _plain_looks(network: nn.Module, looks: Tensor, device: str) -> Tensor:
    logits = network(looks.flatten(0, 1).to(device))
    return logits.float().softmax(-1).view(*looks.shape[:2], -1).mean(1).cpu()


def looks_ways(task: Task) -> dict[str, partial]:
    return {way: partial(looks_call, way, task) for way in ways_of(task)}
