"""rows → record     every row measured once, kept at once, and left out when it is there already.

A benchmark takes an hour or more. So every row is written down when it is done; stopped, the same call goes on with the
rows that are missing. A record of other settings or of another commit is not mixed with: it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from s4d_lib.bench.baselines import available
from s4d_lib.bench.memory import allocated_peak_mb, fresh_peak_mb
from s4d_lib.bench.rows import Row, Settings
from s4d_lib.bench.timing import Clock, matmul, median_between, ratios, take_turns
from s4d_lib.errors import Refused
from s4d_lib.progress import Progress
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, read_record, write_record

NOT_SLOWER = 0.97  # the lower end of a ratio's interval from which ours counts as not slower
MACHINE = "matmul"  # the way beside the others that stands for what the machine can do
PROTOCOL = {
    "turns": "ways take turns, each turn beginning with another; one turn before them is not counted, three on a GPU",
    "ratio": "time of the other / time of ours in the same turn; median with the interval of the sign test (95 % from "
             "six turns on; of fewer their range, whose coverage is said)",
    "of_matmul": "operations of a call / its time / the rate of [800 768] × [768 3072] products in the same turn, in "
                 "the row's precision; operations are those of the leaner of ours and the textbook",
    "peak_mb": "most memory above that before the network was made, over two calls: of a fresh process on a CPU, of "
               "PyTorch's allocator on a GPU",
    "differences": "ours from the textbook with equal weights, largest absolute differences; two samples at most",
}


def measure(rows: Sequence[Row], settings: Settings, path: Path | None = None, anew: bool = False) -> Record:
    """Measure what the record at `path` lacks, and return it whole. A row that fails is kept with its error, and tried
    again by the next call."""
    torch.set_num_threads(settings.threads)
    record = _begun(settings, path, anew)
    waiting = [row for row in rows if "error" in record.results["rows"].get(row.name, {"error": "not measured"})]
    with Progress(len(rows), "rows", len(rows) - len(waiting)) as bar:
        for row in waiting:
            started = time.monotonic()
            bar.update(0, note=f"  {row.name}")
            try:
                found = measure_row(row, settings, lambda row=row: bar.update(0, note=f"  {row.name}"))
            except Exception as error:  # of others' code too; what is measured elsewhere must not be lost with it
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            record = _with(record, row.name, found, time.monotonic() - started)
            if path is not None:
                write_record(path, record)
            bar.update(1)
    return record


def measure_row(row: Row, settings: Settings, told: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """One row: times, ratios, memory, operations and differences, ready for JSON; `told` is called after every turn."""
    if row.whole is not None:
        return row.whole(settings)
    repeats = min(settings.repeats, row.repeats or settings.repeats)
    memory = {name: _memory(make, settings) for name, make in row.ways.items()} if row.memory else {}
    differs = row.compare() if row.compare and "textbook" in row.ways else {}
    tflop = row.operations() if row.operations else None
    calls = {name: make() for name, make in row.ways.items()}
    if row.precision is not None:
        calls[MACHINE], machine_tflop = matmul(settings.device, row.precision)
    times = take_turns(calls, repeats, Clock(settings.device, settings.clock),
                       warm=3 if settings.device.startswith("cuda") else 1, told=told)
    found: dict[str, Any] = {"unit": row.unit, "amount": row.amount, "repeats": repeats,
                             "rivals": row.rivals, "ways": {}}
    rates = [machine_tflop / spent for spent in times.pop(MACHINE)] if row.precision is not None else []
    if rates:
        found["matmul_gflops"] = 1e3 * median(rates)
    for name, spent in times.items():
        found["ways"][name] = _way(spent, row.amount, tflop, rates) | (
            {"peak_mb": memory[name]} if name in memory else {}) | (
            {"ratio": ratios(spent, times["ours"]).as_dict()} if name != "ours" else {})
    if tflop is not None:
        found["tflop"] = tflop
    if differs:
        found["differences"] = differs
    return found


def _way(spent: list[float], amount: float, tflop: float | None, rates: list[float]) -> dict[str, Any]:
    between = median_between(spent)
    told = {"seconds": between.value, "low": between.low, "high": between.high, "per_second": amount / between.value,
            "times": [round(one, 6) for one in spent]}
    if tflop is not None and rates:
        told["of_matmul"] = median_between([tflop / one / rate for one, rate in zip(spent, rates)]).as_dict()
    return told


def _memory(make: Any, settings: Settings) -> float | None:
    if settings.device.startswith("cuda"):
        return allocated_peak_mb(make)
    return fresh_peak_mb(make, threads=settings.threads)


def _begun(settings: Settings, path: Path | None, anew: bool) -> Record:
    """The record to go on with, or an empty one."""
    config = asdict(settings) | {"precisions": list(settings.precisions), "baselines": available()}
    code = code_state()
    empty = Record(name="bench", kind="benchmark", headline="nothing yet", config=config, protocol=PROTOCOL,
                   results={"rows": {}}, code=code, device=device_state(settings.device), wall_seconds=0,
                   peak_memory_mb=peak_memory_mb(settings.device))
    if path is None or anew or not path.exists():
        return empty
    found = read_record(path)
    for what, before, now in (("settings", found.config, config),
                              ("commit", found.code.get("commit"), code["commit"])):
        if before != now:
            raise Refused(f"{path}: was measured with another {what} ({_apart(before, now)}); name another file, or "
                          "measure everything anew with --anew")
    return found


def _apart(before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return "; ".join(f"{key} {before.get(key)}, now {value}" for key, value in now.items()
                         if before.get(key) != value) or "it had other names"
    return f"{before}, now {now}"


def _with(record: Record, name: str, found: dict[str, Any], seconds: float) -> Record:
    rows = record.results["rows"] | {name: found}
    return record.model_copy(update={
        "results": record.results | {"rows": rows}, "headline": headline(rows),
        "wall_seconds": record.wall_seconds + seconds,
        "peak_memory_mb": max(record.peak_memory_mb, peak_memory_mb(record.config["device"]))})


def headline(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: how many rows, and how many of them are slower than a baseline for sure."""
    paired = [way["ratio"] for row in rows.values() if row.get("rivals") for way in row["ways"].values()
              if "ratio" in way]
    slower, faster, enough = sum(r["high"] < 1 for r in paired), sum(r["low"] > 1 for r in paired), sum(
        r["low"] >= NOT_SLOWER for r in paired)
    failed = sum("error" in row for row in rows.values())
    said = (f"{len(rows)} rows, {len(paired)} comparisons with other implementations: ours faster in {faster}, slower "
            f"in {slower}, undecided in {len(paired) - faster - slower}; not slower by 3 % for sure in {enough}")
    return said + (f"; {failed} rows failed" if failed else "")
