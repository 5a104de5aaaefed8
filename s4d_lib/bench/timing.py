"""ways → ratios     who is faster and how sure that is: ways take turns, ratios of one turn, an exact interval.

Other work on a machine slows what runs beside it. So the ways of a row take turns, each turn beginning with another,
and only times of one turn are divided by each other. The interval of the median of these ratios is that of the sign
test: it supposes nothing but that turns are alike, and has at least the coverage that it says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

Call = Callable[[], Any]
MATMUL = ((800, 768), (768, 3072))  # tokens of a clip through the first layer of a base block


@dataclass(frozen=True)
class Between:
    """A median with an interval; `coverage` is the chance that it holds the true median, where turns are alike."""

    value: float
    low: float
    high: float
    coverage: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def median_between(values: Sequence[float], least: float = 0.95) -> Between:
    """Median of `[n]` values and the narrowest pair of them, equally far from both ends, that covers it `least` often.

    The median lies below the k-th smallest of n values with the chance of fewer than k heads in n tosses, and as often
    above the k-th largest. Fewer than six values cannot reach 95 %; their range is given, with what it covers.
    """
    ordered, n = sorted(map(float, values)), len(values)
    if not n:
        raise ValueError("a median needs values")

    def covers(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, heads) for heads in range(k)) / 2**n

    k = max((k for k in range(1, (n + 1) // 2 + 1) if covers(k) >= least), default=1)
    return Between(median(ordered), ordered[k - 1], ordered[n - k], max(covers(k), 0.0))


class Clock:
    """Seconds of one call on a device; what a GPU was given before is waited for, and is not counted.

    kind: "wall", or "cpu" for the processor time of all threads, which other programs on the machine disturb less; on
    one thread it is what the call costs. A GPU is timed by its own events.
    """

    def __init__(self, device: str = "cpu", kind: str = "wall") -> None:
        self.device, self.kind = device, "events" if device.startswith("cuda") else kind

    def __call__(self, call: Call) -> float:
        if self.kind == "events":
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            begun.record()
            call()
            ended.record()
            torch.cuda.synchronize()
            return begun.elapsed_time(ended) / 1e3
        read = processor_seconds if self.kind == "cpu" else time.perf_counter
        started = read()
        call()
        return read() - started


def processor_seconds() -> float:
    """Of all threads of this process, and of the child processes that have ended."""
    try:
        from resource import RUSAGE_CHILDREN, getrusage
    except ImportError:  # Windows
        return time.process_time()
    children = getrusage(RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def take_turns(ways: Mapping[str, Call], repeats: int, clock: Callable[[Call], float], warm: int = 1,
               told: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Seconds of every way in every turn, `repeats` each; `warm` turns before that are not counted.

    Turn i begins with way i, so that none always follows the same other. `told` is called after every turn.
    """
    names, times = list(ways), {name: [] for name in ways}
    for turn in range(warm + repeats):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            spent = clock(ways[name])
            if turn >= warm:
                times[name].append(spent)
        told()
    return times


def ratios(other: Sequence[float], ours: Sequence[float]) -> Between:
    """other / ours turn by turn: above 1 where ours is faster."""
    return median_between([a / b for a, b in zip(other, ours, strict=True)])


def matmul(device: str, precision: str) -> tuple[Call, float]:
    """A call that multiplies `[800 768]` by `[768 3072]` several times, and its operations in TFLOP.

    It stands for what the machine reaches at best in a transformer of base size; precision is "no" or "bf16". The
    second matrix lies in memory as the weight of a linear layer does: without bf16 instructions the other way round is
    ten times slower.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    (tokens, width), (_, wide) = MATMUL
    a, weight = (torch.randn(shape, device=device).to(dtype) for shape in ((tokens, width), (wide, width)))
    times = 200 if device.startswith("cuda") else 2

    def call() -> None:
        for _ in range(times):
            a @ weight.T

    return call, times * 2 * tokens * width * wide / 1e12


def bf16_is_fast(device: str) -> bool:
    """Whether products in bf16 are not slower here than those in float32 by half; else a step would take minutes."""
    if device.startswith("cuda"):
        return True
    spent = {precision: min(take_turns({"": matmul(device, precision)[0]}, 2, Clock(kind="cpu"))[""])
             for precision in ("no", "bf16")}
    return spent["bf16"] < 1.5 * spent["no"]
