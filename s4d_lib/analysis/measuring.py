"""model → reliance     what every measurement of a trained classifier shares: still surroundings, one form of result.

Inside `with measuring(model):` a measurement leaves the model as it was; `Reliance` says what a change of the input or
of the routing does to its answers on the same samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn

from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.metrics.scores import Interval


@contextmanager
def measuring(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Evaluation mode, gradients on, full precision and a seeded chance; on leaving, everything is as it was.

    Restored are the mode of every module, the chance of the caller and what the routers recorded last. Evaluation
    mode, so that a gradient belongs to its batch alone: without dropout, and in clean behaviour without router noise
    and full experts. Reference behaviour keeps its noise, drawn from `seed`.
    """
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    records = [(m, m.routing, m.balance_loss) for m in model.modules() if isinstance(m, MixtureOfAdapterExperts)]
    devices = [device] if device.type == "cuda" else []
    model.eval()
    try:
        with (torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad(),
              torch.autocast(device.type, enabled=False)):
            torch.manual_seed(seed)
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for moae, routing, balance in records:
            moae.routing, moae.balance_loss = routing, balance


@dataclass(frozen=True)
class Reliance:
    """A changed classifier, or a changed input, against the same samples unchanged; 95 % bootstrap intervals.

    accuracy    points of WAR; below 0 the model needed what was taken away
    confidence  points of the probability of the true class
    switched    percent of samples whose answer changes
    """

    accuracy: Interval
    confidence: Interval
    switched: Interval

    def as_dict(self) -> dict:
        return asdict(self)
