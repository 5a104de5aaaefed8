"""config → one step     what a training step of a configuration is made of: operations, memory, seconds.

A step here is forward pass, loss, backward pass and AdamW on random pictures of the right shape. Operations are counted
by PyTorch's own counter, kept tensors by autograd's hooks, seconds by a clock; `costs.py` makes hours of them.
Explained in appendix c.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from s4d_lib.layers.losses import soft_target_cross_entropy
from s4d_lib.layers.masking import random_mask, split_index
from s4d_lib.training.configs import Config, PretrainConfig, geometry
from s4d_lib.training.optimizers import adamw


@dataclass(frozen=True)
class Counted:
    """One sample of one step: what it takes whatever the machine."""

    tflop: float       # forward and backward, a multiplication and an addition being two
    saved_mb: float    # tensors kept from forward to backward under bf16 autocast and fused attention, MB of 10⁶ bytes
    parameters: int
    trained: int       # of these


def make_step(config: Config, modality: str, batch: int, device: str = "cpu") -> tuple[nn.Module, Callable[[], Tensor]]:
    """The model of a configuration with random weights, and a forward pass with loss on `batch` random samples."""
    side, frames = geometry(config)
    h, w = (side, side) if isinstance(side, int) else side
    x = torch.rand((batch, 3, h, w) if modality == "image" else (batch, 3, frames, h, w), device=device)
    if isinstance(config, PretrainConfig):
        from s4d_lib.models.autoencoder import DualModalMAE

        model = DualModalMAE(config.size).to(device).train()
        grid, ratio = ((model.size.image_grid, config.mask_stills) if modality == "image" else
                        (model.size.grid, config.mask_clips))
        visible, hidden = (index.to(device) for index in split_index(random_mask(batch, grid, ratio)))
        return model, lambda: model.loss(x, visible, hidden)
    from s4d_lib.training.fitting import build_classifier

    model = build_classifier(config.model_copy(update={"init": None})).to(device).train()
    target = torch.full((batch, len(config.schema(modality))), 1 / len(config.schema(modality)), device=device)
    balance = getattr(model, "balance_loss", None)

    def loss() -> Tensor:
        task = soft_target_cross_entropy(model(x), target)
        return task + config.balance_coeff * balance() if balance and config.expert_blocks else task

    return model, loss


def count_step(config: Config, modality: str) -> Counted:
    """What one sample costs, counted on this machine's processor in a few seconds; nothing is timed."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, loss = make_step(config, modality, 1)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted
        loss().backward()
    one, two = (saved_bytes(*make_step(config, modality, batch)) for batch in (1, 2))
    sizes = [p.numel() for p in model.parameters()], [p.numel() for p in model.parameters() if p.requires_grad]
    return Counted(counter.get_total_flops() / 1e12, (two - one) / 1e6, sum(sizes[0]), sum(sizes[1]))


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass beside the parameters, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, or its place could be given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), \
            torch.autocast("cpu", dtype=torch.bfloat16):
        out = loss()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del out
    return total


def time_step(config: Config, modality: str, batch: int, device: str = "cpu", repeats: int = 3) -> dict[str, float]:
    """Measured seconds of one whole step: processor time of one thread on a CPU, wall time on a GPU (bf16 autocast).

    Also "peak_mb" on a GPU: the most that its allocator held.
    """
    model, loss = make_step(config, modality, batch, device)
    optimizer = adamw([{"params": [p for p in model.parameters() if p.requires_grad]}], 1e-5, (0.9, 0.95), False, False)
    gpu = device.startswith("cuda")
    seconds = []
    for _ in range(1 + repeats):  # the first allocates
        started = _clock(gpu)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=gpu):
            total = loss()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(_clock(gpu) - started)
    found = {"batch": batch, "seconds_per_sample": median(seconds[1:]) / batch}
    return found | ({"peak_mb": torch.cuda.max_memory_allocated() / 1e6} if gpu else {})


def _clock(gpu: bool) -> float:
    if not gpu:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
