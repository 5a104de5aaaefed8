"""What a clip costs from every back end: open the film, read 16 frames of every fourth, close.

    python ci/benchmarks/read_clips.py [repeats] [out.json]

The rows "decode" of `s4d bench` in a record of their own, `chapters/results/read_clips.json`: drawn films of four
sizes, written by this library (H.264, a key picture at least every 250 frames), one thread each, back ends in turns;
ratios are of the times of one turn over pyav's, medians over the repeats (default 15) with their quartiles. `decord,
unchecked` is decord without the look at packets that says whether its index can be trusted: what that look costs.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from s4d_lib.bench.chores import CLIP, FILMS, STRIDE, reading_ways
from s4d_lib.bench.timing import Clock, take_turns
from s4d_lib.files import RESULTS
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record


def main() -> None:
    repeats = max(5, int(sys.argv[1])) if len(sys.argv) > 1 else 15
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else RESULTS / "read_clips.json"
    torch.set_num_threads(1)
    started = time.perf_counter()
    found = {f"{width}x{height}, {count} frames": compare((height, width, count), repeats)
             for height, width, count in FILMS}
    lines = [f"{name}: " + ", ".join(f"{way} {row['ms']:.1f} ms" for way, row in rows.items())
             for name, rows in found.items()]
    print("\n".join(lines))
    write_record(out, Record(
        name=out.stem, kind="benchmark", headline="; ".join(lines), config={"repeats": repeats, "frames": CLIP,
        "stride": STRIDE, "threads": 1}, protocol={"how": __doc__}, results=found, code=code_state(),
        device=device_state(), wall_seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb("cpu")))


def compare(film: tuple[int, int, int], repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each back end, and its time over pyav's in the same turn: median and quartiles."""
    ways = {"pyav" if way == "ours" else way: make() for way, make in reading_ways(film).items()}
    times = take_turns(ways, repeats, Clock())
    ratios = {way: np.percentile(np.divide(spent, times["pyav"]), (25, 50, 75)) for way, spent in times.items()}
    return {way: {"ms": float(1e3 * np.median(spent)), "ratio": float(ratios[way][1]),
                  "quartiles": [float(ratios[way][0]), float(ratios[way][2])]} for way, spent in times.items()}


if __name__ == "__main__":
    main()
