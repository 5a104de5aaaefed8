"""file → frames     one reader for videos, frame folders and images: frame indices in, bytes out.

`open_frames(path).read([0, 4, 8])` gives uint8 [t h w 3] whichever library decodes the file. Which frames a
clip uses is decided elsewhere (`clips/positions.py`); here a frame is its position among the pictures that a player
shows (`index.py`) and nothing else. A back end that might number a file otherwise refuses it:

    pyav         the default: reads every container and codec by our own index, and tells of damage
    decord       when asked for, and where its index is provably ours (most plain MP4, MOV and MKV files)
    torchcodec   likewise; an extra that needs the FFmpeg libraries of the system
    folder       a directory of jpg or png files, numeric names in numeric order
    image        one picture: a clip of length one
    packed       a clip inside a tar file (`shards.py`)

`ci/frame_matrix.py` holds them to what ffmpeg shows of a hundred films, whatever the order of reading.

A reader opens its file at the first question, in the process that asks. A reader that was pickled, or
inherited through `fork`, opens the file again instead of sharing a decoder whose threads stayed behind in
the parent.

Where several back ends read an 8-bit film they give the same bytes; for 10-bit video the libraries round differently.

Derived in chapter 02.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.frames.backends import MODULE_OF, SOURCES, Source, installed_backends
from s4d_lib.frames.endings import IMAGE_SUFFIXES
from s4d_lib.frames.impostors import impostor
from s4d_lib.frames.index import require_whole
from s4d_lib.frames.shards import is_packed, open_packed

OPENERS: dict[str, Callable[[Path], Source]] = SOURCES | {"packed": open_packed}
LEAVE_OUT = ", or list every such file with find_unreadable() and leave them out"
REPLACE = "Fetch or extract it again"


class UnreadableMedia(Refused):
    """A video, frame folder or image that gives no frames; the message names path, reason and remedy.

    `.path` and `.reason` keep the parts. Built from one text alone it keeps that text: this is how a data
    loader rebuilds in the parent an error that was raised in a worker.
    """

    def __init__(self, path: str | os.PathLike, reason: str = "", remedy: str = REPLACE + LEAVE_OUT):
        super().__init__(os.fspath(path), reason, remedy)
        self.path, self.reason, self.remedy = Path(path), reason, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. {self.remedy}." if self.reason else self.args[0]


class FrameReader:
    """Frames of one file by position; made by `open_frames`, used as a context manager.

    `len(reader)` counts frames, `.fps` is the average rate (None for folders and images), `.size` is (h, w)
    in pixels, `.backend` names what decodes, `.notes` what should be known about the pictures (after the first
    `read`): that they were stretched to square pixels, or stand as they are though interlaced.
    """

    def __init__(self, path: Path, backend: str, length: int | None = None, closed: bool = False):
        self.path, self.backend, self._length, self._closed = path, backend, length, closed
        self._source: Source | None = None
        _OPEN.add(self)

    def __reduce__(self) -> tuple:
        """Without the decoder: a copy in another process opens the file again."""
        return type(self), (self.path, self.backend, self._length, self._closed)

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._ask(lambda source: source.length)

    @property
    def fps(self) -> float | None:
        return self._ask(lambda source: source.fps)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._ask(lambda source: source.size())
        return int(height), int(width)

    @property
    def notes(self) -> list[str]:
        return self._ask(lambda source: list(source.notes))

    def read(self, indices: Sequence[int]) -> Tensor:
        """Frames at these positions, in this order, repeats allowed: uint8 [t h w 3].

        IndexError for a position outside the file, ValueError for an empty list, UnreadableMedia where
        decoding fails.
        """
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not wanted.size:
            raise ValueError(f"{self.path}: no frame index given")
        length = len(self)
        outside = wanted[(wanted < 0) | (wanted >= length)]
        if outside.size:
            raise IndexError(f"{self.path}: no frame {outside[0]}, it has {length} (0 to {length - 1})")
        # Each frame once and forwards: what no back end gets wrong and every one does fastest.
        once, place = np.unique(wanted, return_inverse=True)
        frames = self._ask(lambda source: source.read(once.tolist()))
        in_order = once.size == wanted.size and (place == np.arange(once.size)).all()
        return torch.from_numpy(frames if in_order else frames[place])

    def check(self, chunk: int = 64) -> None:
        """Decode every frame once, `chunk` at a time; UnreadableMedia at the first that is damaged or missing."""
        for start in range(0, len(self), chunk):  # a long video need not fit in memory
            self.read(range(start, min(start + chunk, len(self))))

    def close(self) -> None:
        """Free the decoder now; the reader cannot be used afterwards."""
        if self._source is not None:
            self._source.close()
        self._source, self._closed = None, True

    def _ask(self, question: Callable[[Source], Any]) -> Any:
        """Put a question to the open source; whatever its library raises becomes an UnreadableMedia."""
        if self._closed:
            raise ValueError(f"{self.path}: this reader is closed")
        try:
            return question(self._open())
        except UnreadableMedia:
            raise
        except Exception as error:
            if isinstance(error, MemoryError) and not _of_ffmpeg(error):
                raise
            raise UnreadableMedia(self.path, f"{self.backend}: {_first_line(error)}") from error

    def _open(self) -> Source:
        if self._source is None:
            if self.backend != "packed" and self.path.is_file() and (other := impostor(self.path)):
                raise UnreadableMedia(self.path, other.reason, other.remedy + LEAVE_OUT)
            if self.backend in MODULE_OF:
                require_whole(self.path)
            if self.backend not in ("folder", "image"):
                _heed_forks()
            source = OPENERS[self.backend](self.path)
            if source.length == 0:
                raise Refused("it holds no frames")
            if self._length not in (None, source.length):
                raise Refused(f"it announced {self._length} frames, {source.length} can be found")
            self._source, self._length = source, source.length
        return self._source


def _of_ffmpeg(error: Exception) -> bool:
    """Whether an error is PyAV's own: its MemoryError means a table that asks for too much, and says nothing about
    the memory of this machine.
    """
    return type(error).__module__.partition(".")[0] == "av"


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", text.splitlines()[0]).rstrip(".")  # decord's own source line


_OPEN: weakref.WeakSet[FrameReader] = weakref.WeakSet()
_INHERITED: list[Source] = []


def _disown_after_fork() -> None:
    """In a forked child: forget the parent's decoders without freeing them, which could wait for its
    threads. Nor are those freed that the parent has dropped and its garbage collector has not seen yet.
    """
    gc.freeze()
    for reader in list(_OPEN):
        if reader._source is not None:
            _INHERITED.append(reader._source)
            reader._source = None
    _collect_again()


_COLLECTED = [True]  # whether garbage was collected when the fork began


def _collect_later() -> None:
    _COLLECTED[0] = gc.isenabled()
    gc.disable()  # or garbage could be freed in the child before it has been told not to


def _collect_again() -> None:
    if _COLLECTED[0]:
        gc.enable()


_FIRST_DECODER = threading.Lock()  # whoever opens the first decoder takes it, and nobody gives it back


def _heed_forks() -> None:
    """Before the first decoder of this process is opened, and only then: from here on a fork needs care."""
    # Not a lock that is waited for: a child forked at this moment would wait for ever.
    if _FIRST_DECODER.acquire(blocking=False) and hasattr(os, "register_at_fork"):  # Windows cannot fork
        os.register_at_fork(before=_collect_later, after_in_parent=_collect_again, after_in_child=_disown_after_fork)


def open_frames(path: str | os.PathLike, backend: str = "auto") -> FrameReader:
    """A reader for a video file, a directory of images or one image.

    `backend` is "auto", one of `installed_backends()`, "folder" or "image". UnreadableMedia if there is
    nothing to open, ValueError for a back end that does not exist or is not installed. The file itself is
    opened at first use.
    """
    path = Path(path)
    if is_packed(path):
        return FrameReader(path, "packed")
    if not path.exists():
        raise UnreadableMedia(path, "no such file or directory", "Check the data root and the list of names")
    if not path.is_file() and not path.is_dir():
        raise UnreadableMedia(path, "it is neither a file nor a directory", "Save it as a file first")
    if path.is_file() and path.stat().st_size == 0:
        raise UnreadableMedia(path, "the file is empty (0 bytes)")
    if backend == "auto":
        kind = "folder" if path.is_dir() else "image" if path.suffix.lower() in IMAGE_SUFFIXES else "pyav"
        return FrameReader(path, kind)
    if backend not in OPENERS:
        raise Refused(f"no back end is called {backend!r}; there are {', '.join(('auto', *OPENERS))}")
    installed = installed_backends()
    if backend in MODULE_OF and backend not in installed:
        remedy = "; pip install 's4d-book[torchcodec]'" if backend == "torchcodec" else ""
        raise Refused(f"back end {backend!r} is not installed; installed here: {', '.join(installed)}{remedy}")
    return FrameReader(path, backend)
