"""file → frames     decoded frames kept in memory, shared by all data sets of a process, up to a number of bytes.

A grid of small runs reads the same clips again and again; decoding them once a process halves its time. The least
recently used go first. `S4D_CACHE_GB` sets the limit (4). Nothing here changes what a sample is.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

from torch import Tensor

Key = tuple[str, str, int, int]


class FrameCache:
    """Frames uint8 `[t h w 3]` by file; a file that was written anew is another file."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self.kept: OrderedDict[Key, Tensor] = OrderedDict()

    def get(self, path: Path, how: str = "") -> Tensor | None:
        """The frames of a file as they were put under `how`, the name of what was done to them."""
        found = self.kept.get(key := _key(path, how))
        if found is not None:
            self.kept.move_to_end(key)
        return found

    def put(self, path: Path, frames: Tensor, how: str = "") -> None:
        key = _key(path, how)
        self.used += frames.nbytes - (self.kept[key].nbytes if key in self.kept else 0)
        self.kept[key] = frames
        while self.used > self.limit and self.kept:
            self.used -= self.kept.popitem(last=False)[1].nbytes


def _key(path: Path, how: str) -> Key:
    try:
        status = os.stat(path)
    except OSError:  # a clip inside a shard is as new as its shard
        status = os.stat(os.fspath(path).rpartition("#")[0])
    return str(path), how, status.st_mtime_ns, status.st_size


SHARED = FrameCache(int(float(os.environ.get("S4D_CACHE_GB", 4)) * 1e9))
