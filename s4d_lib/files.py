"""content → file     what lies where, and files that are whole: paths, one way to write, one lock, one hash.

Whoever reads a file that is written here finds the old one or the new one, whenever the writer was killed. What a
killed writer leaves is hidden, and `leftovers(folder)` finds it.

Environment variables of this library. The first five are the user's, the others pass between its own processes:

    S4D_RUNS          where runs go (`runs` in the current folder)
    S4D_DATA          where drawn faces are kept (`data` beside the chapters)
    S4D_PHOTO_MODELS  where fetched models of others are kept (`~/.cache/s4d`)
    S4D_CACHE_GB      memory for frames that are read again, GB of 10⁹ bytes (4)            frames/cache.py
    S4D_CHAPTER_OUT   where a chapter leaves its record; set by `s4d book` for each chapter   records.py
    S4D_METHOD        how the ranks of a training share the model: "ddp" or "fsdp"            distributed.py
    S4D_RELAY         set where another process shows our progress                            progress.py
    S4D_ABOVE         the process above, without which a launcher or rank stops               training/launch.py
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from s4d_lib.errors import Refused

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = Path(__file__).resolve().parent  # of the library; whatever depends on where its files lie starts here
RESULTS = PACKAGE.parent / "chapters" / "results"  # the records committed with the book
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def runs_root() -> Path:
    """Where runs go: $S4D_RUNS, or `runs` in the current folder."""
    return Path(os.environ.get("S4D_RUNS", "runs"))


def data_root() -> Path:
    """Where drawn faces are kept: $S4D_DATA, or `data` beside the chapters folder."""
    return Path(os.environ.get("S4D_DATA", PACKAGE.parent / "data"))


def models_root() -> Path:
    """Where models of others are kept that were fetched on request: $S4D_PHOTO_MODELS, or ~/.cache/s4d."""
    place = os.environ.get("S4D_PHOTO_MODELS")
    return Path(place) if place else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s4d"


# ------------------------------------------------------------------------------------------------- whole files


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to: it takes that place when the block ends well, and is gone when it does not.

        with replacing(path) as part:
            part.write_bytes(content)

    Many may write to the same `path` at once: the last one counts.
    """
    path = Path(path)
    name = os.fsdecode(os.fsencode(path.name)[:160])  # what is added must not make it too long for a file system
    part = path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(part, path)
    except OSError as error:  # the system names the part, or on a full disk nothing at all
        if error.filename != str(part) and not (error.filename is None and error.errno in _NO_ROOM):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """What killed writers left in a folder: of `replacing`, and of safetensors, which has a part of its own.

    Whoever deletes it makes sure that nobody is writing there.
    """
    return [*folder.glob(".*.tmp"), *folder.glob(".tmp" + 6 * "[0-9A-Za-z]")]


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write a safetensors file whole or not at all. OSError, with the path, where the system refuses."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as part:
        try:
            save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:  # the system's error is in its words alone
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    return Path(path)


def write_atomically(path: str | Path, content: bytes | str) -> Path:
    """Write a file whole or not at all; text is written as UTF-8. The folder must be there."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write a report whole or not at all; the folder is made if it is not there. OSError where that cannot be."""
    path = Path(path)
    require_writable(path)
    try:
        return write_atomically(path, text)
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error})") from error


def require_writable(path: Path) -> None:
    """Make the folder of a report and try to write there: better before hours of reading than after. OSError."""
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error}); name another place") from error


def is_disk_full(error: BaseException) -> bool:
    """Whether there was no room, on the disk or in the user's share of it."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------- one at a time


class Locked(Refused):
    """Somebody else is at work there."""


class Lock:
    """The right to work somewhere; the system takes it back when its holder ends, however that happens.

    `path` is the file that stands for it, made with its folder if need be and never removed, or a folder, which Windows
    cannot lock. Where the file system knows no locks, nobody is refused. `refusal` says why, and what to do instead.
    """

    def __init__(self, path: str | Path, refusal: str = "another process is at work; wait for it") -> None:
        self.path, self.refusal = Path(path), refusal
        self._file: int | None = None

    def take(self) -> None:
        """Raises Locked when somebody else has it, at once; OSError where the file cannot be made."""
        if not self.path.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        elif os.name != "nt":
            file = os.open(self.path, os.O_RDONLY)
        else:
            return
        if not _is_ours(file):
            os.close(file)
            raise Locked(f"{self.path}: {self.refusal}")
        self._file = file

    def give_back(self) -> None:
        """Let others have it; nothing happens where it is not held."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Lock:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


@contextmanager
def waited_for(path: str | Path, tell: Callable[[], None]) -> Iterator[None]:
    """The lock of a file, waited for; `tell` is called once where somebody else has it."""
    lock, told = Lock(path), False
    while True:
        try:
            lock.take()
            break
        except Locked:
            if not told:
                tell()
            told = True
            time.sleep(0.5)
    try:
        yield
    finally:
        lock.give_back()


def is_locked(path: str | Path) -> bool:
    """Whether anybody on this machine, or we ourselves, holds the lock of this file now."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _is_ours(file)
    finally:
        os.close(file)


def _is_ours(file: int) -> bool:
    """Lock an open file without waiting; True also where the file system knows no such locks."""
    from filelock import lock_descriptor

    try:
        return lock_descriptor(file, blocking=False)
    except OSError:
        return True
