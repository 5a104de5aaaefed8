"""frames → features     what the frozen landmark network said of a frame, kept, so that nobody asks it twice.

    remember(net, batches, grid, folder)             # frames float [n 3 h w] exactly as the model will see them
    recall(net, frames, grid, folder)                # from memory where the frame is known, else from the network

At the sizes a CPU trains, the frames of a clip cost the landmark network more than the clip costs the classifier. The
network never learns, and a training that only mirrors its frames meets the same pictures again and again, so its
features can be looked up by the bytes of a frame. At the paper's size they are a hundredth of the work.
Derived in chapter 11.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.errors import Refused
from s4d_lib.files import replacing

_fingerprints: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


class Kept(NamedTuple):
    """A memory: marks of frames in rising order `[n]`, the row of each `[n]`, features `[n c gh gw]` left on disk."""

    marks: np.ndarray
    rows: np.ndarray
    features: np.ndarray


def recall(net: nn.Module, frames: Tensor, grid: tuple[int, int], folder: Path | None = None) -> Tensor:
    """Frames `[n 3 h w]` → landmark features on the token grid `[n c gh gw]`, float32.

    Without a folder these are the network's own features, resized bilinearly. With one they are rounded to half
    precision whether a frame was found or not: a result must not depend on what happened to be remembered, so that a
    run is known by having a memory, whatever lies in it. The setting `landmark_memory` names the folder.
    """
    if folder is None:
        return ask(net, frames, grid)
    kept = _open(_place(folder, net, grid))
    if kept is None:
        return ask(net, frames, grid).half().float()
    marks = frame_marks(frames)
    place = np.searchsorted(kept.marks, marks).clip(max=len(kept.marks) - 1)
    found = kept.marks[place] == marks
    out = torch.empty(len(frames), *kept.features.shape[1:])
    out[found] = torch.from_numpy(kept.features[kept.rows[place[found]]].astype(np.float32))
    if not found.all():
        out[~found] = ask(net, frames[torch.from_numpy(~found)], grid).half().float().cpu()
    return out.to(frames.device)


@torch.no_grad()
def ask(net: nn.Module, frames: Tensor, grid: tuple[int, int]) -> Tensor:
    """The network itself: frames `[n 3 h w]` → features `[n c gh gw]` on the token grid."""
    features = net.features(frames)
    if tuple(features.shape[-2:]) == tuple(grid):
        return features
    return F.interpolate(features, grid, mode="bilinear", align_corners=False)


def frame_marks(frames: Tensor) -> np.ndarray:
    """Frames `[n …]` → uint64 `[n]`, equal for equal bytes; no two of a hundred thousand frames meet by chance."""
    rows = frames.detach().cpu().float().contiguous().numpy()
    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows],
                    dtype=np.uint64)


def fingerprint(net: nn.Module) -> str:
    """16 hexadecimal digits of a network's weights; a frozen network is read once."""
    if net not in _fingerprints:
        digest = hashlib.sha256()
        for name, value in sorted(net.state_dict().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        _fingerprints[net] = digest.hexdigest()[:16]
    return _fingerprints[net]


def remember(net: nn.Module, batches: Iterable[Tensor], grid: tuple[int, int], folder: Path) -> Path:
    """Ask about every frame of every batch `[n 3 h w]` once and keep the answers below `folder`; returns the place.

    Frames that are known are not asked again, so a longer list may be added to a shorter one. One process at a time; a
    call that is stopped leaves what was there before.
    """
    place = _place(folder, net, grid)
    place.mkdir(parents=True, exist_ok=True)
    kept = _open(place)
    marks, rows = ([], []) if kept is None else (kept.marks.tolist(), kept.rows.tolist())
    known, shape = set(marks), None if kept is None else kept.features.shape[1:]
    with open(place / "features.f16", "ab") as file:
        if shape is not None:
            file.truncate(2 * len(rows) * int(np.prod(shape)))  # what a stopped call wrote after the index
        else:
            file.truncate(0)
        for batch in batches:
            new = []
            for number, mark in enumerate(frame_marks(batch).tolist()):
                if mark not in known:
                    known.add(mark)
                    marks.append(mark)
                    rows.append(len(rows))
                    new.append(number)
            if new:
                answers = ask(net, batch[new], grid)
                shape = answers.shape[1:]
                file.write(answers.half().cpu().contiguous().numpy().tobytes())
    if shape is not None and (kept is None or len(rows) > len(kept.rows)):
        order = np.argsort(np.array(marks, np.uint64))
        with replacing(place / "index.npz") as part, open(part, "wb") as file:  # last: without it there is no memory
            np.savez(file, marks=np.array(marks, np.uint64)[order], rows=np.array(rows)[order], shape=np.array(shape),
                     sha256=np.array(_sha256(place / "features.f16", 2 * len(rows) * int(np.prod(shape)))))
    _open.cache_clear()
    return place


@lru_cache(maxsize=4)
def _open(place: Path) -> Kept | None:
    if not (place / "index.npz").exists():
        return None
    path = place / "features.f16"
    with np.load(place / "index.npz") as index:
        marks, rows, shape = (index[name] for name in ("marks", "rows", "shape"))
        known = str(index["sha256"]) if "sha256" in index else None  # memories of earlier versions have none
    size = 2 * len(rows) * int(np.prod(shape))
    if not path.is_file() or path.stat().st_size < size or known not in (None, _sha256(path, size)):
        raise Refused(f"{path}: not the features that index.npz beside it is of; delete {place}, and ask the "
                      "network again")
    return Kept(marks, rows, np.memmap(path, np.float16, "r", shape=(len(rows), *shape.tolist())))


def _sha256(path: Path, size: int) -> str:
    """Of the first `size` bytes: behind them may stand what a stopped call wrote."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while size > 0 and (piece := file.read(min(size, 1 << 20))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def _place(folder: Path, net: nn.Module, grid: tuple[int, int]) -> Path:
    return folder / f"{fingerprint(net)}-{grid[0]}x{grid[1]}"
