"""How the cost of a step grows: with clips, tokens, picture size, experts and workers, each as a power.

    python ci/benchmarks/costs_by_size.py [--size tiny] [--repeats 9] [--threads 1] [--clock cpu] [--device cpu]
                                          [--out FILE]

Seconds of a fine-tuning step (of one layer for experts, of reading a batch for workers) at several values of one dial,
the others held still. Values take turns, and in every turn a line is laid through log seconds over log value: its slope
is the exponent of that turn. Exponents are medians over turns with the interval of the sign test. 1 is linear; a dial
with a fixed part beside it stays below. Writes `chapters/results/costs_by_size.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from s4d_lib.bench.chores import loading_data
from s4d_lib.bench.networks import Task, make
from s4d_lib.bench.parts import Mixing, layer_call
from s4d_lib.bench.timing import Call, Clock, median_between, take_turns
from s4d_lib.files import RESULTS
from s4d_lib.models.sizes import Size, resolve_size
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record

CLIPS, SLOTS, EXPERTS, WORKERS = (1, 2, 4, 8), (1, 2, 4, 8), (2, 4, 8, 16), (0, 1, 2)
SIDES = (0.4, 0.6, 0.8, 1.0)  # of the size's own, in whole patches


def dials(size: Size, device: str) -> dict[str, dict[int, Call]]:
    """Dial → value → what is timed at it."""
    step = Task("finetune", "clip", size, 2, "no", device)
    tokens = size.grid[0] * size.grid[1] * size.grid[2]
    longer = {n: replace(size, frames=size.tubelet * n) for n in SLOTS}
    wider = {n: replace(size, image_size=size.patch * n) for n in sorted({round(s * size.grid[1]) for s in SIDES})}
    return {
        "clips": {n: make("ours", replace(step, batch=n)) for n in CLIPS},
        "tokens": {n * size.grid[1] * size.grid[2]: make("ours", replace(step, size=one))
                   for n, one in longer.items()},
        "picture side": {one.height: make("ours", replace(step, size=one)) for one in wider.values()},
        "experts": {n: layer_call("ours", Mixing(size.dim, n, 2, 4 * tokens, "no", device)) for n in EXPERTS},
    }


def workers(size: str) -> dict[int, Call]:
    """Reading and varying the same batches with so many worker processes; 0 is this process."""
    data, step = loading_data(Task("finetune", "clip", size, 4))
    return {n: partial(_read, data, step, n) for n in WORKERS}


def _read(data: object, step: object, count: int) -> None:
    from s4d_lib.training.plans import collate, keys

    loader = torch.utils.data.DataLoader(data, batch_sampler=keys([step] * 8, 0), num_workers=count, collate_fn=collate)
    for _ in loader:
        pass


def exponent(values: Sequence[float], seconds: np.ndarray) -> dict[str, float]:
    """Slopes of log seconds `[values turns]` over log values, one a turn → their median and its interval."""
    x = np.log(np.asarray(values, float))
    x = x - x.mean()
    slopes = x @ np.log(seconds) / (x @ x)
    return median_between(slopes).as_dict()


def grown(calls: Mapping[int, Call], repeats: int, clock: Clock, fitted: bool) -> dict[str, object]:
    """Seconds at every value of one dial, and the exponent."""
    times = take_turns({str(value): call for value, call in calls.items()}, repeats, clock)
    found: dict[str, object] = {"seconds": {value: median_between(spent).as_dict() for value, spent in times.items()}}
    return found | ({"exponent": exponent(list(calls), np.array(list(times.values())))} if fitted else {})


def main(words: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--size", default="tiny")
    asked.add_argument("--repeats", type=int, default=9)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    asked.add_argument("--device", default="cpu")
    asked.add_argument("--without-workers", action="store_true")
    asked.add_argument("--out", type=Path, default=RESULTS / "costs_by_size.json")
    given, started = asked.parse_args(words), time.monotonic()
    torch.set_num_threads(given.threads)
    size, clock, found = resolve_size(given.size), Clock(given.device, given.clock), {}
    for name, calls in dials(size, given.device).items():
        found[name] = grown(calls, given.repeats, clock, True)
        power = found[name]["exponent"]
        print(f"{name}: seconds grow with power {power['value']:.2f} [{power['low']:.2f}, {power['high']:.2f}]",
              flush=True)
    if not given.without_workers:  # processes share the machine's cores, so no power is laid through them
        found["workers"] = grown(workers(given.size), given.repeats, Clock(kind="wall"), False)
    said = "; ".join(f"{name} {one['exponent']['value']:.2f}" for name, one in found.items() if "exponent" in one)
    record = Record(
        name="costs_by_size", kind="benchmark", headline=f"exponents of the cost of a {given.size} step: {said}",
        config={"size": asdict(size), "repeats": given.repeats, "threads": given.threads, "clock": given.clock},
        protocol={"how": __doc__}, results=found, code=code_state(), device=device_state(given.device),
        wall_seconds=time.monotonic() - started, peak_memory_mb=peak_memory_mb(given.device))
    print(f"{write_record(given.out, record)}: {record.headline}")


if __name__ == "__main__":
    main()
