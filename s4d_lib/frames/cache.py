"""file → frames     decoded frames kept in memory, shared by all data sets of a process, up to a number of bytes.

A grid of small runs reads the same clips again and again; decoding them once a process halves its time. Frames lie one
after another in blocks, so that those of a whole batch are taken by one indexing. The least recently used block goes
first. `S4D_CACHE_GB` sets the limit (4). Nothing here changes what a sample is.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

Key = tuple[str, str, int, int]


class Place(NamedTuple):
    """Where the frames of a file lie: `length` of them from `start` on in the block of a number."""

    block: int
    start: int
    length: int


@dataclass
class _Block:
    """Frames of one shape, uint8 `[n c h w]`, of which `filled` are taken. The system gives memory as it is filled."""

    frames: Tensor
    filled: int = 0
    keys: list[Key] = field(default_factory=list)


class FrameCache:
    """Frames uint8 by file; a file that was written anew is another file. A copy in another process begins empty."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self.places: dict[Key, Place] = {}
        self.blocks: OrderedDict[int, _Block] = OrderedDict()
        self.open: dict[tuple[int, ...], int] = {}  # shape of a frame → the block that is being filled
        self.count = 0                              # of blocks so far: no number is given twice

    def __getstate__(self) -> dict:
        return vars(FrameCache(self.limit)) | {"count": self.count}

    def find(self, path: Path, how: str = "") -> Place | None:
        """Where the frames of a file lie as they were put under `how`, the name of what was done to them."""
        return self.places.get(_key(path, how))

    def block(self, number: int) -> Tensor | None:
        """The frames `[n c h w]` of a block, used now; None where it was let go. Whoever holds it may go on reading."""
        if number not in self.blocks:
            return None
        self.blocks.move_to_end(number)
        return self.blocks[number].frames

    def put(self, path: Path, frames: Tensor, how: str = "") -> tuple[Place, Tensor]:
        """Keep frames uint8 `[t h w c]`; where they lie, and the block, which is let go if it is too large."""
        key, shape = _key(path, how), (frames.shape[3], *frames.shape[1:3])
        number = self.open.get(shape)
        block = self.blocks.get(number)
        if block is None or block.filled + len(frames) > len(block.frames):
            number, block = self._begin(shape, len(frames))
        start, end = block.filled, block.filled + len(frames)
        block.frames[start:end] = frames.permute(0, 3, 1, 2)
        block.filled, self.used = end, self.used + frames.nbytes
        block.keys.append(key)
        place = self.places[key] = Place(number, start, len(frames))
        self.blocks.move_to_end(number)
        while self.used > self.limit and self.blocks:
            self._let_go()
        return place, block.frames

    def _begin(self, shape: tuple[int, ...], at_least: int) -> tuple[int, _Block]:
        a_frame = max(1, shape[0] * shape[1] * shape[2])
        most = min(BLOCK, self.limit // 16) // a_frame
        self.open[shape] = self.count
        with torch.inference_mode(False):  # a block that a validation begins is filled by training too
            self.blocks[self.count] = block = _Block(torch.empty(max(at_least, most), *shape, dtype=torch.uint8))
        self.count += 1
        return self.open[shape], block

    def _let_go(self) -> None:
        number, block = self.blocks.popitem(last=False)
        self.used -= block.frames[: block.filled].nbytes
        for key in block.keys:
            if key in self.places and self.places[key].block == number:
                del self.places[key]


BLOCK = 2**25  # bytes


def _key(path: Path, how: str) -> Key:
    try:
        status = os.stat(path)
    except OSError:  # a clip inside a shard is as new as its shard
        status = os.stat(os.fspath(path).rpartition("#")[0])
    return str(path), how, status.st_mtime_ns, status.st_size


SHARED = FrameCache(int(float(os.environ.get("S4D_CACHE_GB", 4)) * 1e9))
