"""films × ways to read → right, wrong or refused     every route to a frame, held to what ffmpeg shows.

    python ci/frame_matrix.py            print the table
    python ci/frame_matrix.py --write    keep it as chapters/results/frame_matrix.json as well

Needs an ffmpeg program: the one of the imageio-ffmpeg package (with the tests' requirements). "right" is: as many
frames, the same pixels to within a rounding of the colours, and each frame bit for bit the same whether it is read
forwards, backwards, in random order, or alone by a reader that was just opened. "refused" is an error that names the
file and a reason; it is counted as right nowhere. About two minutes on one core.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "chapters" / "results" / "frame_matrix.json"
ROUNDING = 0.5  # levels of 255, mean over a picture: 10-bit and interlaced colours are rounded otherwise
sys.path[:0] = [str(ROOT), str(ROOT / "ci")]

from numbered_films import make  # noqa: E402  (beside this file)


def reader_route(backend: str, every: int = 1) -> Callable[[Path, np.ndarray], str]:
    """A back end, sequentially, then each `every`-th frame in random order, backwards and by a new reader."""
    from s4d_lib.frames import open_frames

    def route(path: Path, truth: np.ndarray) -> str:
        with open_frames(path, backend) as reader:
            if len(reader) != len(truth):
                return f"wrong: {len(reader)} frames of {len(truth)}"
            frames = reader.read(range(len(reader))).numpy()
        if flaw := differs(frames, truth):
            return flaw
        some = list(range(0, len(truth), every))
        for name, order in (("in random order", random.Random(0).sample(some, len(some))), ("backwards", some[::-1])):
            with open_frames(path, backend) as reader:
                odd = sum((reader.read([i])[0].numpy() != frames[i]).any() for i in order)
            if odd:
                return f"wrong: {odd} of {len(order)} frames {name}"
        odd = 0
        for i in some[::3]:
            with open_frames(path, backend) as reader:
                odd += (reader.read([i])[0].numpy() != frames[i]).any()
        return f"wrong: {odd} of {len(some[::3])} frames read alone" if odd else "right"

    return route


def stream_route(step: int) -> Callable[[Path, np.ndarray], str]:
    """The film in one pass, as prediction reads it."""
    from s4d_lib.frames.streams import iter_frames

    def route(path: Path, truth: np.ndarray) -> str:
        stream = iter_frames(path, step)
        chunks = list(stream)
        if stream.count != len(truth):
            return f"wrong: {stream.count} frames of {len(truth)}"
        index = np.concatenate([chunk.index for chunk in chunks])
        if index.tolist() != list(range(0, len(truth), step)):
            return "wrong: other positions"
        return differs(np.concatenate([chunk.frames for chunk in chunks]), truth[::step]) or (
            f"wrong: called damaged ({stream.damage})" if stream.damage else "right")

    return route


def differs(frames: np.ndarray, truth: np.ndarray) -> str:
    """What is wrong with frames [t h w 3], or nothing."""
    if frames.shape != truth.shape:
        return f"wrong: {frames.shape[2]}x{frames.shape[1]} px instead of {truth.shape[2]}x{truth.shape[1]}"
    far = np.abs(frames.astype(np.int16) - truth).mean((1, 2, 3)) > ROUNDING
    return f"wrong: {far.sum()} of {len(truth)} frames, the first is {far.argmax()}" if far.any() else ""


def routes(every: int = 1) -> dict[str, Callable[[Path, np.ndarray], str]]:
    from s4d_lib.frames import installed_backends

    return {name: reader_route(name, every) for name in installed_backends()} | {
        "stream": stream_route(1), "stream, every 7th": stream_route(7)}


def judge(route: Callable[[Path, np.ndarray], str], path: Path, truth: np.ndarray) -> str:
    """"right", "wrong: ..." or "refused: ..."."""
    from s4d_lib.frames import UnreadableMedia

    try:
        return route(path, truth)
    except UnreadableMedia as error:
        return f"refused: {error.reason}"


def main() -> int:
    import imageio_ffmpeg
    from tqdm import tqdm

    from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record

    started = time.perf_counter()
    table: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path, truth in tqdm(make(imageio_ffmpeg.get_ffmpeg_exe(), Path(folder)).items(), unit="film"):
            table[path.name] = {"frames": str(len(truth))} | {
                name: judge(route, path, truth) for name, route in routes().items()}
    for name, row in table.items():
        print(f"{name:24}" + " ".join(f"{word.split(':')[0]:>18}" for word in row.values()))
    counts = {route: dict(Counter(row[route].split(":")[0] for row in table.values())) for route in routes()}
    print(f"\n{len(table)} films: {json.dumps(counts)}")
    if "--write" in sys.argv:
        write_record(RECORD, Record(
            name=RECORD.stem, kind="benchmark",
            headline=f"{len(table)} films: {counts['pyav']['right']} read rightly by default, "
            f"{counts.get('decord', {}).get('right', 0)} by decord, which is not given the others",
            protocol={"truth": "ffmpeg -fps_mode passthrough, by the ffmpeg of imageio-ffmpeg", "right": __doc__},
            results={"films": table, "counts": counts}, code=code_state(), device=device_state(),
            wall_seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb("cpu")))
    return int(any("wrong" in count for count in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
