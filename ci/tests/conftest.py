"""Shared fixtures: tiny videos whose every frame carries its own number, so that a wrong frame shows."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import nbval.kernel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

HEIGHT, WIDTH, COUNT = 48, 64, 30


def _start_kernel_again(start=nbval.kernel.start_new_kernel):
    """nbval starts kernels in several processes at once; now and then two are given the same free port and one dies
    before its first cell (papermill#511). Nothing has run then, so it is started once more."""

    def starting(*words, **named):
        try:
            return start(*words, **named)
        except RuntimeError:
            return start(*words, **named)

    return starting


nbval.kernel.start_new_kernel = _start_kernel_again()


# A busy machine is no fault of a test: how long an example takes to draw or to run is not judged.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


# Files that wait for browsers and processes take minutes; begun last, one would keep a single worker busy at the end.
LONG_FIRST = ("browser", "spawns", "notebook", "trains", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files in the order of the longest kind of test that they hold; the tests of a file stay as they stand."""
    kinds: dict[Path, int] = {}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()} | ({"notebook"} if item.path.suffix == ".ipynb" else set())
        rank = next((i for i, kind in enumerate(LONG_FIRST) if kind in marks), len(LONG_FIRST))
        kinds[item.path] = min(rank, kinds.get(item.path, rank))
    items.sort(key=lambda item: kinds[item.path])


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame [h w 3] with seven bits of `number` as bright or dark blocks over a picture that moves."""
    frame = np.full((height, width, 3), 40, np.uint8)
    for bit in range(7):
        if number >> bit & 1:
            frame[4:20, 2 + 8 * bit : 8 + 8 * bit] = 230
    frame[24:, :, 0] = np.arange(width) * 3 % 256
    frame[24:, :, 1] = number * 5 % 256
    return frame


def _read_number(frame: np.ndarray | torch.Tensor) -> int:
    frame = np.asarray(frame)
    return sum((frame[8:16, 4 + 8 * bit : 6 + 8 * bit].mean() > 135) << bit for bit in range(7))


def _write_numbered(
    path: Path, times_ms: list[int], codec: str = "libx264", gop: int | None = None, **format: str
) -> Path:
    """Numbered frames shown at the given times; `format` goes to the container (such as movflags)."""
    tick = Fraction(1, 1000)
    with av.open(str(path), "w", options=format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = tick
        if codec == "libx264":
            stream.options = {"crf": "12"}
        if gop:
            stream.codec_context.gop_size = gop
        for number, time in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(_numbered_frame(number), format="rgb24")
            frame.pts, frame.time_base = time, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def numbered_frame():
    """numbered_frame(number) -> uint8 [48 64 3]."""
    return _numbered_frame


@pytest.fixture(scope="session")
def read_number():
    """read_number(frame) -> the number drawn in it."""
    return _read_number


@pytest.fixture(scope="session")
def write_numbered():
    """write_numbered(path, times_ms, gop=...) -> path of a video whose frame i carries the number i."""
    return _write_numbered


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> dict[str, Path]:
    """Videos of 30 numbered frames 48x64: constant rate, variable rate, late start, short GOP, Matroska."""
    root = tmp_path_factory.mktemp("videos")
    steady = [40 * i for i in range(COUNT)]
    uneven = np.cumsum([0] + [20, 80, 40, 33, 100] * 6)[:COUNT].tolist()
    return {
        "cfr": _write_numbered(root / "cfr.mp4", steady),
        "vfr": _write_numbered(root / "vfr.mp4", uneven),
        "late": _write_numbered(root / "late.mp4", [2000 + time for time in steady]),
        "keys": _write_numbered(root / "keys.mp4", steady, gop=7),
        "mkv": _write_numbered(root / "vfr.mkv", uneven, gop=7),
        "front": _write_numbered(root / "front.mp4", steady, gop=7, movflags="faststart"),
    }


@pytest.fixture
def s4d(monkeypatch, capsys):
    """s4d("cost", "dfer") -> exit code, standard output and standard error of the command, as its user gets them."""
    from s4d_lib.cli import app

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["s4d", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def frame_folder(tmp_path):
    """frame_folder(names) -> a folder of pictures; file k, in the order given, carries the number k."""

    def make(names: list[str], folder: str = "frames") -> Path:
        root = tmp_path / folder
        root.mkdir(parents=True)
        for number, name in enumerate(names):
            Image.fromarray(_numbered_frame(number)).save(root / name)
        return root

    return make


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """One folder for all workers of pytest-xdist, for what is dear to make and never written to."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"


@pytest.fixture(scope="session")
def faces(shared) -> Path:
    """A small set of easy drawn faces on disk in the real layouts: 60 stills, 40 clips of ten people."""
    from s4d_lib.synthetic_faces.folders import write_faces

    write_faces(shared / "easy", "easy", stills=60, clips=40, seed=3, progress=False, frames=("mp4",))
    return shared / "easy"


@pytest.fixture(scope="session")
def stages(faces, shared):
    """An S2D image model on stills and the video model that starts from it, both with landmarks.

    A worker that comes second waits for the first and loads its models.
    """
    from s2d_runs import config

    from s4d_lib.training.runs import train

    image = train(config(faces, "sfer"), shared / "stages")
    return image, train(config(faces, "dfer", init=str(image.weights)), shared / "stages")


@pytest.fixture
def clips() -> torch.Tensor:
    """Seven clips `[7 3 6 8 16]` for the model of small_moae.py."""
    from small_moae import some_clips

    return some_clips()


@pytest.fixture
def images() -> torch.Tensor:
    """Nine images `[9 3 8 16]` for the model of small_moae.py."""
    from small_moae import some_images

    return some_images()
