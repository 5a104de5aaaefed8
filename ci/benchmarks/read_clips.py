"""What a clip costs from every back end: open the film, read 16 frames of every fourth, close.

    python ci/benchmarks/read_clips.py [repeats] [out.json]

Drawn films of four sizes, written by this library (H.264, a key picture at least every 250 frames), one thread each.
Back ends take turns, so that the machine's other work meets all of them alike; ratios are of the times of one turn,
medians over the repeats (default 15) with their quartiles. `decord, unchecked` is decord without the look at packets
that says whether its index can be trusted: what that look costs. Writes `chapters/results/read_clips.json`.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from s4d_lib.clips import centre_indices
from s4d_lib.files import RESULTS
from s4d_lib.frames import backends, installed_backends, open_frames, write_mp4
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record

SIZES = ((64, 64, 24), (160, 160, 75), (224, 224, 150), (720, 1280, 150))  # height, width, frames
FRAMES, STRIDE = 16, 4


def main() -> None:
    repeats = max(5, int(sys.argv[1])) if len(sys.argv) > 1 else 15
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else RESULTS / "read_clips.json"
    started, found = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for height, width, count in SIZES:
            path = Path(folder) / f"{height}.mp4"
            write_mp4(path, drawn(height, width, count), 25)
            found[f"{width}x{height}, {count} frames"] = compare(ways(path), repeats)
    lines = [f"{name}: " + ", ".join(f"{way} {row['ms']:.1f} ms" for way, row in rows.items())
             for name, rows in found.items()]
    print("\n".join(lines))
    write_record(out, Record(
        name=out.stem, kind="benchmark", headline="; ".join(lines), config={"repeats": repeats, "frames": FRAMES,
        "stride": STRIDE, "threads": 1}, protocol={"how": __doc__}, results=found, code=code_state(),
        device=device_state(), wall_seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb("cpu")))


def drawn(height: int, width: int, count: int) -> np.ndarray:
    """A picture of coarse noise that travels, uint8 [t h w 3]."""
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    picture = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    return np.stack([np.roll(picture, 3 * i, 1) for i in range(count)])


def ways(path: Path) -> dict[str, Callable[[], None]]:
    def clip(backend: str) -> None:
        with open_frames(path, backend) as reader:
            reader.read(centre_indices(len(reader), FRAMES, STRIDE))

    def unchecked() -> None:
        check, backends.require_sure = backends.require_sure, lambda path: None
        try:
            clip("decord")
        finally:
            backends.require_sure = check

    named = {name: lambda name=name: clip(name) for name in installed_backends()}
    return named | ({"decord, unchecked": unchecked} if "decord" in named else {})


def compare(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each way, and its time over pyav's in the same turn: median and quartiles."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):  # the first warms up
        for way, do in ways.items():
            begun = time.perf_counter()
            do()
            if turn:
                times[way].append(1e3 * (time.perf_counter() - begun))
    ratios = {way: np.percentile(np.divide(spent, times["pyav"]), (25, 50, 75)) for way, spent in times.items()}
    return {way: {"ms": float(np.median(spent)), "ratio": float(ratios[way][1]),
                  "quartiles": [float(ratios[way][0]), float(ratios[way][2])]} for way, spent in times.items()}


if __name__ == "__main__":
    main()
