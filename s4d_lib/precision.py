"""device → precision     which numbers a device computes in fast, and which it cannot.

Names are Accelerate's: "no" (float32), "bf16", "fp16". Accelerate takes float16 on a CPU without a word and computes in
float32, and PyTorch computes bfloat16 on any CPU, many times slower than float32 where the processor has no
instructions for it. So what a device cannot do is refused before anything is read, and "auto" is what it does fast.
Derived in chapter 06.
"""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn

from s4d_lib.errors import Refused

COMPUTES_IN = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}  # under autocast; weights stay float32
WORTH = 1.2  # how many times faster than float32 another precision must be on a CPU, to be worth its rounding


def device_of(asked: str) -> str:
    """"cuda" or "cpu", of the setting `device`."""
    return "cuda" if asked == "auto" and torch.cuda.is_available() else "cpu"


def refuse_precision(precision: str, asked: str) -> None:
    """Refused where the device that would be taken cannot train in this precision."""
    device = device_of(asked)
    if precision == "fp16" and device == "cpu":
        raise Refused("precision: fp16 needs a GPU, and this would train on a CPU, in float32; set precision: 'bf16', "
                      "which a CPU has, or 'no'")
    if precision == "bf16" and device == "cuda" and not _gpu_has_bf16():
        raise Refused(f"precision: bf16 is not in {torch.cuda.get_device_name()}; set precision: 'fp16' or 'no'")


def fastest(device: str) -> str:
    """What "auto" stands for on "cuda" or "cpu": bf16, or fp16 where a GPU lacks it; on a CPU what a product says."""
    if device.startswith("cuda"):
        return "bf16" if _gpu_has_bf16() else "fp16"
    return "bf16" if bf16_gain() >= WORTH else "no"


@cache
def bf16_gain() -> float:
    """How many times faster one matrix product is on this CPU in bfloat16 than in float32; measured in milliseconds."""
    spent = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(64, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
        a @ b  # the first one chooses its kernel
        spent[dtype] = min(_seconds(a, b) for _ in range(5))
    return spent[torch.float32] / spent[torch.bfloat16]


def computing(precision: str, device: str) -> AbstractContextManager:
    """The context in which a network answers in a precision."""
    if precision == "no":
        return nullcontext()
    return torch.autocast(device.split(":")[0], dtype=getattr(torch, COMPUTES_IN[precision]))


def halved(model: nn.Module, precision: str) -> nn.Module:
    """A copy for inference whose linear maps hold their weights in a precision, so that no forward pass casts them.

    To be run inside `computing`. Norms, positions and routers stay as they are: they compute in float32 anyway.
    """
    twin = copy.deepcopy(model)
    for name, part in twin.named_modules():
        if isinstance(part, nn.Linear) and "router" not in name:
            part.to(getattr(torch, COMPUTES_IN[precision]))
    return twin


def _seconds(a: torch.Tensor, b: torch.Tensor) -> float:
    began = time.perf_counter()
    a @ b
    return time.perf_counter() - began


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
