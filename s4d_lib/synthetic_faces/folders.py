"""recipe → folder     writes the face laboratory to disk in the layouts of AffectNet (stills) and DFEW (clips).

    write_faces(Path("data/faces"), "default", stills=300, clips=120, seed=0)

    OUT/card.json                                              what was asked for, and a hash of what came out
    OUT/frames.sha256                                          a line for each frame file, as `sha256sum` writes it
    OUT/stills/Manually_Annotated_Images/<folder>/<hash>_aligned/face_det_000000.png
    OUT/stills/train_affectnet7.txt, test_affectnet7.txt       `<relative path> <label>`, AffectNet-7 order
    OUT/clips/clip_mp4/<id>.mp4, OUT/clips/clip_jpg/<id>/<00001…>.jpg
    OUT/clips/annotation/<split>(single-labeled)/<split>_set_{1..5}.csv      `video_name,label`, DFEW order
    OUT/stills/groups.csv, OUT/clips/groups.csv                `id,group`: who is shown
    OUT/stills/truth.npz, OUT/clips/truth.npz                exact ground truth; clip i has rows offsets[i]:offsets[i+1]

Lists carry the annotator's label, mistakes included, as real lists do; the scripted emotion is in truth.npz. All clips
of one drawn person are in one test fold, so nobody is in a training and its test list.

The folder appears whole or not at all: it is built beside its place and renamed at the end. Asking again for the same
returns the card; two writers at once both end well; what a killed writer leaves is removed by
the next one.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import shutil
import socket
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from s4d_lib import __version__
from s4d_lib.datasets.labels import FOLDS, SCHEMAS
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.frames.writer import write_mp4
from s4d_lib.progress import Progress
from s4d_lib.synthetic_faces.drawing import Clips, Stills, iter_clips, iter_stills
from s4d_lib.synthetic_faces.geometry import ACTION_UNITS
from s4d_lib.synthetic_faces.motion import EMOTIONS, KINDS
from s4d_lib.synthetic_faces.recipes import RECIPES, FaceRecipe
from s4d_lib.synthetic_faces.renderer import RENDERER_VERSION

SILENT = 3600.0  # seconds without a sign of life after which a writer on another machine counts as killed
FRAME_KINDS = ("mp4", "jpg")
SUMS = "frames.sha256"
LICENCE = "CC0-1.0. Drawn by a program; nobody depicted exists, no photograph was used."
AFFECTNET = [SCHEMAS["affectnet7"].classes.index(name) for name in EMOTIONS]


def write_faces(out: Path, recipe: str | FaceRecipe, stills: int, clips: int, seed: int = 0, progress: bool = True,
                frames: tuple[str, ...] = FRAME_KINDS) -> dict:
    """Write `stills` images and `clips` videos of a recipe below `out`; returns the card (see the module).

    recipe   a FaceRecipe, or the name of one in RECIPES
    frames   how clips are stored: "mp4" (H.264, crf 10), "jpg" (quality 95) or both
    Memory stays constant however many are asked for. ValueError for a bad request; FileExistsError if `out` already
    holds something else.
    """
    out = Path(out)
    recipe = _named(recipe)
    _check(recipe, stills, clips, frames)
    request = json.loads(json.dumps({"recipe": asdict(recipe), "stills": stills, "clips": clips, "seed": seed,
                                     "frames": sorted(frames), "renderer": RENDERER_VERSION}))
    if card := _existing(out, request):
        return card
    _remove_leftovers(out)
    part = out.parent / f".{out.name}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex}.part"
    part.mkdir(parents=True)
    try:
        with Progress(stills + clips, "drawing faces", silent=not progress) as bar:

            def done(count: int) -> None:
                os.utime(part)  # a sign of life for writers on other machines
                bar.update(count)

            card = _build(part, recipe, stills, clips, seed, frames, done)
        card = {"request": request} | card | {"frames_sha256": _write_sums(part)}
        (part / "card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        return _publish(part, out, card)
    except OSError as error:
        if error.filename is None and error.errno is not None:  # as of a full disk: which of them is not said
            raise OSError(error.errno, f"{out}: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_leftovers(out: Path) -> None:
    """Delete what killed writers of this folder left, here or on another machine that shares the storage."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for part in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
        if not _is_at_work(part, part.name.removeprefix(f".{out.name}.")):
            shutil.rmtree(part, ignore_errors=True)


def _is_at_work(part: Path, name: str) -> bool:
    """Whether the writer of `<machine>.<process>.<number>.part` lives; of another machine, whether it said so lately.

    A process number means nothing on another machine: there only the time of the folder counts, which a writer renews
    every few seconds, by the clock of the machine that holds the files.
    """
    machine, _, number = name.partition(".")
    if machine == _machine():
        try:
            os.kill(int(number.split(".")[0]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # alive under another user
            return True
        return True
    try:
        with tempfile.TemporaryFile(dir=part.parent) as clock:
            return os.fstat(clock.fileno()).st_mtime - part.stat().st_mtime < SILENT
    except FileNotFoundError:  # finished, or removed by another writer
        return True


def _machine() -> str:
    """The name of this machine, without what a file name should not hold."""
    return re.sub(r"[^\w-]", "-", socket.gethostname()) or "unnamed"


def _named(recipe: str | FaceRecipe) -> FaceRecipe:
    if isinstance(recipe, FaceRecipe):
        return recipe
    if recipe not in RECIPES:
        raise Refused(f"recipe {recipe!r} is not known; choose one of {sorted(RECIPES)} or pass a FaceRecipe")
    return RECIPES[recipe]


def _check(recipe: FaceRecipe, stills: int, clips: int, frames: tuple[str, ...]) -> None:
    if stills < 0 or clips < 0 or stills + clips == 0:
        raise Refused(f"asked for {stills} stills and {clips} clips; give counts from 0 on, not both 0")
    if not frames or set(frames) - set(FRAME_KINDS):
        raise Refused(f"frames is {frames!r}; choose one or both of {FRAME_KINDS}")
    if recipe.size % 2:
        raise Refused(f"size is {recipe.size} px; H.264 needs an even size")
    people = -(-clips // recipe.clip.clips_per_identity)
    if 0 < people < FOLDS:
        least = (FOLDS - 1) * recipe.clip.clips_per_identity + 1
        raise Refused(f"{clips} clips show {people} people, but {FOLDS} test folds without shared people need "
                      f"{FOLDS}: ask for at least {least} clips, or lower clips_per_identity")
    if clips > 99_999:
        raise Refused(f"{clips} clips do not fit DFEW's five-digit ids; write several folders with other seeds")


def _existing(out: Path, request: dict) -> dict | None:
    """The card of a folder that already answers this request; None if the place is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    path = out / "card.json"
    if not path.is_file():
        raise FileExistsError(f"{out} exists and holds no card.json; choose another folder or remove it")
    card = json.loads(path.read_text(encoding="utf-8"))
    held = card.get("request", {})
    if held != request:
        other = [f"{key}: {held.get(key)} there, {value} asked" for key, value in request.items()
                 if held.get(key) != value]
        raise FileExistsError(f"{out} holds other faces ({'; '.join(other)[:600]}); choose another folder or remove it")
    return card


def _publish(part: Path, out: Path, card: dict) -> dict:
    """Give the finished folder its name, unless another writer of the same request was first."""
    try:
        os.rename(part, out)
    except OSError:
        first = _existing(out, card["request"])
        if first is None:
            raise
        return first
    return card


def _build(part: Path, recipe: FaceRecipe, stills: int, clips: int, seed: int, frames: tuple[str, ...],
           done: Callable[[int], None]) -> dict:
    digest = hashlib.sha256()
    if stills:
        _write_stills(part / "stills", recipe, stills, seed, digest, done)
    if clips:
        _write_clips(part / "clips", recipe, clips, seed, frames, digest, done)
    return {"name": recipe.name, "stills": stills, "clips": clips, "seed": seed, "size": recipe.size,
            "fps": recipe.clip.fps, "classes": list(EMOTIONS), "content_sha256": digest.hexdigest(),
            "library": __version__, "licence": LICENCE}


def _write_sums(out: Path) -> str:
    """frames.sha256: what every frame file holds, so that a changed one shows; returns the hash of this list."""
    frames = [path for path in out.glob("*/*/**/*") if path.suffix in (".png", ".jpg", ".mp4")]
    lines = sorted(f"{path.relative_to(out).as_posix()}\n{sha256_of(path)}" for path in frames)
    text = "".join("{1}  {0}\n".format(*line.split("\n")) for line in lines)
    (out / SUMS).write_text(text, encoding="utf-8", newline="\n")
    return sha256_of(out / SUMS)


def _write_stills(folder: Path, recipe: FaceRecipe, count: int, seed: int, digest: hashlib._Hash,
                  done: Callable[[int], None]) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    groups: list[str] = []  # who is shown, so that a validation split can keep one person on one side
    with Truth(folder) as truth:
        for chunk in iter_stills(recipe, count, seed):
            digest.update(chunk.frames.numpy())
            paths = [_still_path(seed, int(number)) for number in chunk.identities]
            for number, path, frame, label in zip(chunk.identities.tolist(), paths, chunk.frames.numpy(),
                                                  chunk.labels.tolist()):
                place = folder / "Manually_Annotated_Images" / path
                place.parent.mkdir(parents=True)
                Image.fromarray(frame).save(place, compress_level=3)
                # Every still shows another person, so every fifth one can be set aside for the test list.
                groups.append(f"{path},{number}")
                lists["test" if number % FOLDS == FOLDS - 1 else "train"].append(f"{path} {AFFECTNET[label]}")
            _still_truth(truth, chunk, paths)
            done(len(chunk))
    for split, lines in lists.items():
        _write_list(folder / f"{split}_affectnet7.txt", lines, digest)
    _write_list(folder / "groups.csv", ["id,group", *groups], digest)


def _still_path(seed: int, number: int) -> str:
    name = hashlib.sha256(f"{seed}/{number}".encode()).hexdigest()[:56]
    return f"{number // 100 + 1}/{name}_aligned/face_det_000000.png"


def _still_truth(truth: Truth, chunk: Stills, paths: list[str]) -> None:
    truth.add(ids=np.array(paths, dtype="U96"), labels=chunk.labels, emotions=chunk.emotions,
              identities=chunk.identities, look_alike=chunk.look_alike, action_units=chunk.action_units,
              landmarks=chunk.landmarks, poses=chunk.poses)


def _write_clips(folder: Path, recipe: FaceRecipe, count: int, seed: int, frames: tuple[str, ...],
                 digest: hashlib._Hash, done: Callable[[int], None]) -> None:
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    groups: list[str] = []
    for kind in frames:
        (folder / f"clip_{kind}").mkdir(parents=True)
    number = 0
    with Truth(folder) as truth:
        truth.add(offsets=np.zeros(1, dtype=np.int64))
        for chunk in iter_clips(recipe, count, seed):
            names = [f"{number + 1 + position:05d}" for position in range(len(chunk))]
            for name, pixels in zip(names, chunk.frames):
                digest.update(pixels.numpy())
                if "mp4" in frames:
                    write_mp4(folder / "clip_mp4" / f"{name}.mp4", pixels, recipe.clip.fps, crf=10, reproducible=True)
                if "jpg" in frames:
                    _write_jpgs(folder / "clip_jpg" / name, pixels)
            for name, label, person in zip(names, chunk.labels.tolist(), chunk.identities.tolist()):
                folds[person % FOLDS].append(f"{name},{label}")
                groups.append(f"{name},{person}")
            _clip_truth(truth, chunk, names)
            number += len(chunk)
            done(len(chunk))
    _write_list(folder / "groups.csv", ["id,group", *groups], digest)
    for fold, tested in enumerate(folds, 1):
        trained = sorted(line for other in folds if other is not tested for line in other)
        for split, lines in (("train", trained), ("test", tested)):
            path = folder / "annotation" / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv"
            _write_list(path, ["video_name,label", *lines], digest)


def _write_jpgs(folder: Path, pixels: Tensor) -> None:
    folder.mkdir()
    for number, frame in enumerate(pixels.numpy(), 1):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=95)


def _clip_truth(truth: Truth, chunk: Clips, names: list[str]) -> None:
    lengths = [len(pixels) for pixels in chunk.frames]
    truth.add(ids=np.array(names), labels=chunk.labels, emotions=chunk.emotions, others=chunk.others,
              identities=chunk.identities, kinds=chunk.kinds, segments=chunk.segments,
              offsets=truth.rows("action_units") + np.cumsum(lengths))
    for name in ("action_units", "landmarks", "poses", "presence"):
        truth.add(**{name: np.concatenate([one.numpy() for one in getattr(chunk, name)])})


def _write_list(path: Path, lines: list[str], digest: hashlib._Hash) -> None:
    text = "".join(f"{line}\n" for line in lines)
    digest.update(text.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


class Truth:
    """Collects arrays chunk by chunk into `folder/truth.npz` without ever holding them all.

    Each array grows in a scratch file; leaving the `with` block packs them. Names of classes, clip kinds and action
    units are stored beside them as text and number arrays, so the file explains itself and loads without pickle.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.scratch = folder / "truth.npz", folder / ".truth"
        self._count: dict[str, int] = {}
        self._kind: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}

    def __enter__(self) -> Truth:
        self.scratch.mkdir()
        self.add(action_unit_names=np.array(ACTION_UNITS), emotion_names=np.array(EMOTIONS), kind_names=np.array(KINDS))
        return self

    def rows(self, name: str) -> int:
        return self._count.get(name, 0)

    def add(self, **arrays: Tensor | np.ndarray) -> None:
        """Append rows to the named arrays."""
        for name, rows in arrays.items():
            rows = np.ascontiguousarray(rows)
            known = self._kind.setdefault(name, (rows.dtype, rows.shape[1:]))
            if known != (rows.dtype, rows.shape[1:]):
                raise ValueError(f"truth {name!r}: rows {rows.dtype} {rows.shape[1:]} do not continue {known}")
            self._count[name] = self.rows(name) + len(rows)
            with open(self.scratch / name, "ab") as file:
                file.write(rows.tobytes())

    def __exit__(self, error: type | None, *_: object) -> None:
        if error is None:
            with zipfile.ZipFile(self.path, "w", zipfile.ZIP_STORED) as archive:
                for name, (dtype, row) in self._kind.items():
                    header = io.BytesIO()
                    np.lib.format.write_array_header_1_0(header, {
                        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
                        "shape": (self.rows(name), *row)})
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as packed:
                        packed.write(header.getvalue())
                        with open(self.scratch / name, "rb") as file:
                            shutil.copyfileobj(file, packed)
            shutil.rmtree(self.scratch)
