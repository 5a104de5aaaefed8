"""precision, device → what is computed in     which numbers a training computes with, and which it cannot.

Accelerate takes float16 on a CPU without a word and computes in float32. A run says what it did, so what a device
cannot do is refused before anything is read. Derived in chapter 06.
"""

from __future__ import annotations

import torch

from s4d_lib.errors import Refused

COMPUTES_IN = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}  # under autocast; weights stay float32


def device_of(asked: str) -> str:
    """"cuda" or "cpu", of the setting `device`."""
    return "cuda" if asked == "auto" and torch.cuda.is_available() else "cpu"


def refuse_precision(precision: str, asked: str) -> None:
    """Refused where the device that would be taken cannot train in this precision."""
    device = device_of(asked)
    if precision == "fp16" and device == "cpu":
        raise Refused("precision: fp16 needs a GPU, and this would train on a CPU, in float32; set precision: 'bf16', "
                      "which a CPU has, or 'no'")
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise Refused(f"precision: bf16 is not in {torch.cuda.get_device_name()}; set precision: 'fp16' or 'no'")
