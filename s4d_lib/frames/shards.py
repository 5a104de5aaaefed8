"""shard → clip     clips inside tar files: found by an index, read in place, with the bytes that were packed.

A packed sample has a path like `shard-000002.tar#Crime/Angry/0063`, and `frames.open_frames` reads it as it reads a
folder. The tar files follow the naming of WebDataset: a sample is the members that share a name up to its first dot,

    Crime/Angry/0063.json    label, membership in splits and folds, frames
    Crime/Angry/0063.000000.jpg, 0063.000001.jpg, ...    or 0063.jpg of a still, or 0063.mp4

Beside each lies `shard-000002.index.json`, {key: {"sample": the same JSON, "members": [[ending, offset, bytes], ...]}},
so that one clip is read without going through the others. A picture is decoded from its bytes by the code that reads
picture files. A video is copied into a temporary file for as long as it is open, because the decoders want one; it is
decoded as it would be from disk.

Derived in chapter 02.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.frames.backends import Folder, PyAV
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.frames.index import require_whole
from s4d_lib.frames.pictures import read_image

SHARD = re.compile(r"shard-\d{6}\.tar")
_MARK = ".tar#"
_KEY = re.compile(r"[A-Za-z0-9_~%-]+(/[A-Za-z0-9_~%-]+)*")  # no dot, so neither `..` nor an ending
_ENDING = re.compile(r"([0-9]{6}\.)?[a-z0-9]{1,8}")
Entry = tuple[str, int, int]  # ending of the member's name, offset of its bytes, their number


def key_of(id: str) -> str:
    """The name of a sample in a shard: its id with dots and everything unusual percent-encoded, slashes kept."""
    return quote(id, safe="/", errors="surrogateescape").replace(".", "%2E")


def packed_path(shard: Path, key: str) -> Path:
    """The path that stands for one sample of a shard."""
    return Path(f"{shard}#{key}")


def is_packed(path: str | os.PathLike) -> bool:
    """Whether a path stands for a sample of a shard that exists."""
    shard, mark, key = os.fspath(path).rpartition(_MARK)
    return bool(mark and key) and os.path.isfile(f"{shard}.tar")


def index_path(shard: Path) -> Path:
    """The index that belongs to a shard."""
    return shard.with_suffix(".index.json")


def read_index(path: Path, length: int | None = None) -> dict[str, dict]:
    """key → {"sample": ..., "members": ...}. ValueError if it is not of its form or points beyond `length` bytes."""
    try:
        found = json.loads(path.read_text(encoding="ascii"))
        for key, entry in found.items():
            members = [_member(*member, length) for member in entry["members"]]
            if not _KEY.fullmatch(key) or not isinstance(entry["sample"], dict) or not all(members):
                raise Refused(f"the entry of {key!r} is not of the form that was packed")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Refused(f"{path}: not a readable index ({error}); pack the folder again") from error
    return found


def _member(ending: str, start: int, size: int, length: int | None) -> bool:
    inside = type(start) is type(size) is int and 0 <= start <= start + size
    return inside and (length is None or start + size <= length) and bool(_ENDING.fullmatch(ending))


@lru_cache(maxsize=256)
def _members(shard: str, length: int, _changed: int) -> dict[str, list[Entry]]:
    return {key: entry["members"] for key, entry in read_index(index_path(Path(shard)), length).items()}


def _entries(path: Path) -> tuple[Path, list[Entry]]:
    stem, _, key = os.fspath(path).rpartition(_MARK)
    shard, key = Path(f"{stem}.tar"), key.replace("\\", "/")
    status = os.stat(shard)
    index = _members(str(shard), status.st_size, status.st_mtime_ns)
    if key not in index:
        raise Refused(f"{shard.name} holds no sample {key!r}")
    return shard, [tuple(entry) for entry in index[key]]


def count_frames(path: Path) -> int | None:
    """The pictures of a packed sample, None of a video, which is not opened. ValueError if there is no such sample."""
    endings = [ending.rpartition(".")[2] for ending, _, _ in _entries(path)[1] if ending != "json"]
    return len(endings) if all(f".{ending}" in IMAGE_SUFFIXES for ending in endings) else None


def _at(file: io.BufferedReader, start: int, size: int) -> bytes:
    file.seek(start)
    found = file.read(size)
    if len(found) != size:
        raise Refused(f"the shard ends after {start + len(found)} bytes, {start + size} were expected")
    return found


class _Picture(io.BytesIO):
    """The bytes of a frame under the name of its member."""

    def __init__(self, name: str, data: bytes):
        super().__init__(data)
        self.name = name


def decode(data: bytes) -> np.ndarray:
    """A picture's bytes as uint8 [h w 3], as `Folder` would read them from a file."""
    return read_image(_Picture("a picture", data))


class _Pictures:
    """Frames of a packed clip by position; each is read when it is asked for."""

    def __init__(self, shard: Path, entries: list[Entry]):
        self.shard, self.entries = shard, entries

    def __getitem__(self, position: int) -> _Picture:
        ending, start, size = self.entries[position]
        with open(self.shard, "rb") as file:
            return _Picture(f"{self.shard.name}/{ending}", _at(file, start, size))


class _PackedFrames(Folder):
    """Pictures in a shard, read by `Folder` as if they were files: equal bytes give equal frames."""

    def __init__(self, shard: Path, entries: list[Entry]):
        self.files, self.length = _Pictures(shard, entries), len(entries)


class _PackedVideo:
    """A video in a shard, decoded from a temporary file that is removed when the source is closed."""

    def __init__(self, shard: Path, entry: Entry):
        ending, start, size = entry
        handle, name = tempfile.mkstemp(prefix="s4d-", suffix=f".{ending}")
        self.copy, self._owner = Path(name), os.getpid()
        try:
            with open(shard, "rb") as source, os.fdopen(handle, "wb") as target:
                target.write(_at(source, start, size))
            require_whole(self.copy)
            self.source = PyAV(self.copy)
            self.length, self.fps = self.source.length, self.source.fps
        except BaseException:
            self.copy.unlink(missing_ok=True)
            raise

    @property
    def notes(self) -> list[str]:
        return self.source.notes

    def size(self) -> tuple[int, int]:
        return self.source.size()

    def read(self, indices: list[int]) -> np.ndarray:
        return self.source.read(indices)

    def close(self) -> None:
        self.source.close()
        self.__del__()

    def __del__(self) -> None:
        if os.getpid() == self._owner:  # a forked child inherits the object, not the file
            self.copy.unlink(missing_ok=True)


def open_packed(path: Path) -> _PackedFrames | _PackedVideo:
    """The frames of a packed sample. ValueError if the shard or its index is damaged."""
    shard, entries = _entries(path)
    media = [entry for entry in entries if entry[0] != "json"]
    if len(media) == 1 and media[0][0] in {suffix[1:] for suffix in VIDEO_SUFFIXES}:
        return _PackedVideo(shard, media[0])
    if any(f".{ending.rpartition('.')[2]}" not in IMAGE_SUFFIXES for ending, _, _ in media):
        raise Refused(f"{shard.name}: a member is neither a picture nor a video")
    return _PackedFrames(shard, media)
