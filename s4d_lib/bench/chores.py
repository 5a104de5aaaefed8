"""settings → rows     rows of what surrounds a model: reading, detecting, predicting, importing, saving.

Here the other ways are no rivals but parts or bounds: other back ends, decoding alone, a file without a checksum. What
is read is drawn when a row is measured, and removed with the process.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s4d_lib.bench.baselines import load_script
from s4d_lib.bench.networks import Task, make, our_network
from s4d_lib.bench.timing import Call, median_between
from s4d_lib.clips import centre_indices
from s4d_lib.files import PACKAGE
from s4d_lib.frames.backends import installed_backends
from s4d_lib.models.sizes import resolve_size

FILMS = ((64, 64, 24), (160, 160, 75), (224, 224, 150), (720, 1280, 150))  # height, width, frames
CLIP, STRIDE, FPS = 16, 4, 25
FACES = 16       # stills of a detection


@cache
def scratch() -> Path:
    """A folder of this process, gone with it."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


# --------------------------------------------------------------------------------------------------- film → clip


def film_of_noise(height: int, width: int, count: int) -> Path:
    """A picture of coarse noise that travels, H.264 with a key picture at least every 250 frames."""
    from s4d_lib.frames.writer import write_mp4

    path = scratch() / f"{width}x{height}_{count}.mp4"
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        picture = np.kron(noise, np.ones((8, 8, 1), np.uint8))
        write_mp4(path, np.stack([np.roll(picture, 3 * i, 1) for i in range(count)]), FPS)
    return path


def reading_call(backend: str, size: tuple[int, int, int]) -> Call:
    """Open a film, read 16 frames of every fourth, close."""
    return partial(_read, film_of_noise(*size), backend)


def _read(path: Path, backend: str) -> None:
    from s4d_lib.frames import backends
    from s4d_lib.frames.reader import open_frames

    check = backends.require_sure
    if backend == "decord, unchecked":  # without the look at packets that says whether its index can be trusted
        backend, backends.require_sure = "decord", lambda path: None
    try:
        with open_frames(path, backend) as reader:
            reader.read(centre_indices(len(reader), CLIP, STRIDE))
    finally:
        backends.require_sure = check


def reading_ways(size: tuple[int, int, int]) -> dict[str, Any]:
    """The default back end, and every other that is installed."""
    names = {"ours": "auto"} | {name: name for name in installed_backends() if name != "pyav"}
    names |= {"decord, unchecked": "decord, unchecked"} if "decord" in names else {}
    return {way: partial(reading_call, backend, size) for way, backend in names.items()}


# --------------------------------------------------------------------------------------------------- loader and step


def loading_call(task: Task) -> Call:
    """Read, decode, vary and collate a batch of drawn clips as a training does, in this process."""
    return partial(_load, *loading_data(task))


def loading_data(task: Task) -> tuple[Any, Any]:
    """Drawn clips as a training reads them, and a step of `task.batch` of them."""
    from s4d_lib.datasets.readers import read_dfew
    from s4d_lib.synthetic_faces.folders import write_faces
    from s4d_lib.synthetic_faces.recipes import RECIPES
    from s4d_lib.training.configs import FinetuneConfig
    from s4d_lib.training.data import views
    from s4d_lib.training.plans import Mixed, Step

    side = resolve_size(task.size).height
    recipe, folder = replace(RECIPES["default"], size=side), scratch() / f"faces_{side}"
    clips = 4 * recipe.clip.clips_per_identity + 1  # the fewest that make five folds
    write_faces(folder, recipe, 0, clips, 0, progress=False, frames=("mp4",))
    config = FinetuneConfig(name="bench", mode="dfer", size=task.size)
    samples = read_dfew(folder / "clips", "train", frames="clip_mp4")
    data = Mixed({"clip": views(config, samples, "train", 0)})
    return data, Step("clip", tuple(i % len(samples) for i in range(task.batch)))


def _load(data: Any, step: Any) -> None:
    from s4d_lib.training.plans import collate, keys

    loader = torch.utils.data.DataLoader(data, batch_sampler=keys([step], 0), collate_fn=collate)
    for _ in loader:
        pass


def loading_ways(task: Task) -> dict[str, Any]:
    """Loading a batch with one process, and the step that it is loaded for."""
    return {"ours": partial(loading_call, task), "the step": partial(make, "ours", task)}


SMALL_STEPS = PACKAGE.parent / "ci/benchmarks/small_steps.py"


def small_kinds() -> list[str]:
    """Steps of the laboratory's networks, where the benchmark that knows them is at hand."""
    return ["nano clips", "nano stills", "nano joint", "tiny clips", "tiny stills"] if SMALL_STEPS.exists() else []


def small_steps(kind: str, settings: Any) -> dict[str, Any]:
    """A step through the loop of a training, reading and all, beside its bare arithmetic; in processor time."""
    module = load_script(SMALL_STEPS)
    found = module.step_ratio(kind, repeats=settings.repeats)
    times = {"ours": found["loop_ms"] / 1e3, "its arithmetic": found["bare_ms"] / 1e3}
    ways = {name: {"seconds": spent, "per_second": 1 / spent} for name, spent in times.items()}
    ways["its arithmetic"]["ratio"] = median_between([1 / ratio for ratio in found["ratios"]]).as_dict()
    return {"unit": "steps", "amount": 1, "repeats": len(found["ratios"]), "rivals": False, "ways": ways}


# --------------------------------------------------------------------------------------------------- faces, whole films


def detecting_call(side: int) -> Call:
    """The default detector on drawn stills."""
    from s4d_lib.crops.detectors import open_detector
    from s4d_lib.synthetic_faces.drawing import iter_stills
    from s4d_lib.synthetic_faces.recipes import RECIPES

    stills = next(iter(iter_stills(replace(RECIPES["default"], size=side), FACES, 77)))
    return partial(open_detector("mtcnn"), stills.frames)


def film_of_faces(minutes: float, side: int = 160) -> Path:
    """One person, drawn for some seconds at 25 frames a second and repeated to the length asked for."""
    from s4d_lib.frames.writer import Mp4Writer
    from s4d_lib.synthetic_faces.drawing import iter_clips
    from s4d_lib.synthetic_faces.recipes import RECIPES

    path = scratch() / f"faces_{minutes:g}.mp4"
    if not path.exists():
        clips = next(iter(iter_clips(replace(RECIPES["default"], size=side), 4, 0)))
        shown, left = torch.cat(clips.frames), round(minutes * 60 * FPS)
        writer = Mp4Writer(path, FPS)
        while left > 0:
            writer.add(shown[:left])
            left -= len(shown)
        writer.close()
    return path


def predicting_call(way: str, minutes: float, device: str) -> Call:
    """`s4d predict` on the film with the shipped classifier and faces found; or its frames decoded and no more."""
    path = film_of_faces(minutes)
    if way == "decoding alone":
        return partial(_decode, path)
    from s4d_lib.predict.video import predict

    return partial(predict, [path], device=device)


def _decode(path: Path) -> None:
    from s4d_lib.frames.streams import iter_frames

    for _ in iter_frames(path):
        pass


def predicting_ways(minutes: float, device: str) -> dict[str, Any]:
    return {way: partial(predicting_call, way, minutes, device) for way in ("ours", "decoding alone")}


# --------------------------------------------------------------------------------------------------- import, files


def importing_call(statement: str) -> Call:
    """A new Python that runs one statement."""
    return partial(subprocess.run, [sys.executable, "-c", statement], check=True, capture_output=True)


def importing_ways() -> dict[str, Any]:
    said = {"ours": "import s4d_lib", "import torch": "import torch", "Python alone": "pass"}
    return {way: partial(importing_call, statement) for way, statement in said.items()}


def checkpoint_call(what: str, way: str, size: str) -> Call:
    """Save or load an autoencoder with the state of its AdamW: a run's checkpoint, or torch's without a checksum."""
    from s4d_lib.training.state import Progressed, load_state, save_state

    model = our_network(Task("pretrain", "image", size, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()
    folder = scratch() / "checkpoint"
    folder.mkdir(exist_ok=True)
    if way == "ours":
        save = partial(save_state, folder, "bench", model, None, optimizer, None, Progressed())
        load = partial(load_state, folder, "bench", model, None, optimizer, None)
    else:
        save = partial(_torch_save, folder / "torch.pt", model, optimizer)
        load = partial(_torch_load, folder / "torch.pt", model, optimizer)
    if what == "load":
        save()
    return save if what == "save" else load


def _torch_save(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


def _torch_load(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    found = torch.load(path, weights_only=True)
    model.load_state_dict(found["model"])
    optimizer.load_state_dict(found["optimizer"])


def checkpoint_ways(what: str, size: str) -> dict[str, Any]:
    return {way: partial(checkpoint_call, what, way, size) for way in ("ours", f"torch.{what}")}
