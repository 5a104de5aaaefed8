"""files → hashes     the sha256 of every frame file: read once, then known by its size, time and inode.

Hashing a data set takes as long as reading it, so what was found is kept in one text file for each data folder, beside
the runs and never in the data, which may be read-only. A file whose size, time of change and inode are as they were is
not read again; `verify` reads all. Derived in chapter 06.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from s4d_lib.errors import Refused
from s4d_lib.files import runs_root, sha256_of, waited_for, write_atomically
from s4d_lib.progress import Progress, say

FRESH = 2.0     # seconds: a file changed so shortly before it was hashed may change again within one tick of its clock
KEEP = 120.0    # seconds between two savings of what was hashed so far
UNREADABLE = "unreadable"
CHUNK = 256     # files between two looks at the clock
MANY = 2560     # files that take long enough to say so, and to wait for whoever reads them already

State = tuple[str, str, str, float]  # path, name under which it is known, size with time and inode, time in seconds


class FrameHashes:
    """What is known of the files below one data folder.

        with FrameHashes(Path("data/dfew")) as known:
            hashes = known.of(paths)
    """

    def __init__(self, root: Path, verify: bool = False, runs: Path | None = None) -> None:
        """`verify`: read every file again. `runs`: beside which runs it is kept, those of `runs_root` if None."""
        self.root, self.verify = os.path.abspath(root), verify
        self.cache = cache_of(root, runs)
        self.changed: list[str] = []  # files that hold something else although size, time and inode are as they were
        self._known: dict[str, str] = {}  # JSON of a path → "size mtime inode sha256"
        self._new = 0

    def __enter__(self) -> FrameHashes:
        self._known = _read(self.cache)
        return self

    def __exit__(self, *_: object) -> None:
        self._save()

    def of(self, paths: Iterable[str], label: str = "hashing frames") -> list[str]:
        """The sha256 of every file, in order; `UNREADABLE` for one that cannot be read, which is no matter of ours."""
        states = [(path, *self._state(path)) for path in paths]
        found = self._recalled(states)
        if found.count(None) < MANY:
            return self._filled(states, found, label)
        with self._alone():  # of several runs that begin together one reads the frames, and the others what it found
            self._known |= _read(self.cache)
            found = self._filled(states, self._recalled(states), label)
            self._save()
            return found

    def _recalled(self, states: list[State]) -> list[str | None]:
        return [None if self.verify else _known_hash(self._known.get(key), state) for _, key, state, _ in states]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as held:
            with suppress(OSError):  # where nothing can be written nobody waits, and nothing is kept
                held.enter_context(waited_for(self.cache.with_suffix(".lock"), lambda: say(
                    f"{self.root}: another process is hashing these frames; waiting for it")))
            yield

    def _filled(self, states: list[State], found: list[str | None], label: str) -> list[str]:
        """What was found, with the files that nobody knows read now."""
        unknown = [i for i, one in enumerate(found) if one is None]
        if not unknown:
            return found
        with Progress(len(unknown), label, silent=len(unknown) < MANY) as bar, \
                ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
            saved = time.monotonic()
            for start in range(0, len(unknown), CHUNK):
                some = unknown[start : start + CHUNK]
                begun = time.time()
                for i, digest in zip(some, pool.map(_hash, (states[i][0] for i in some))):
                    self._learn(*states[i], digest, begun)
                    found[i] = digest
                bar.update(len(some))
                if time.monotonic() - saved > KEEP:
                    self._save()
                    saved = time.monotonic()
        return found

    def _state(self, path: str) -> tuple[str, str, float]:
        """Under what a file is known, what it looks like, and when it was changed, in seconds."""
        inside = path.startswith(self.root + os.sep)
        key = json.dumps(path[len(self.root) + 1 :] if inside else path)
        try:
            stat = os.stat(path)
        except OSError:
            return key, UNREADABLE, 0.0
        return key, f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino} ", stat.st_mtime

    def _learn(self, path: str, key: str, state: str, changed: float, digest: str, begun: float) -> None:
        before = _known_hash(self._known.get(key), state)
        if before not in (None, digest):
            self.changed.append(path)
        if 0 <= begun - changed < FRESH or digest == UNREADABLE:
            self._new += self._known.pop(key, None) is not None
        elif before != digest:
            self._known[key] = state + digest
            self._new += 1

    def _save(self) -> None:
        """Write what is known; where that cannot be, say so: the frames are then hashed again the next time."""
        if not self._new:
            return
        body = "".join(f"{key}\t{value}\n" for key, value in self._known.items()).encode()
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.cache, body + f"{hashlib.sha256(body).hexdigest()}\n".encode())
            self._new = 0
        except OSError as error:
            say(f"{self.cache}: hashes of frames cannot be kept ({error.strerror or error}); they are taken each time")


def cache_of(root: Path, runs: Path | None = None) -> Path:
    """Where the hashes of a data folder are kept: beside the runs, one file a folder, by its path."""
    place = os.path.abspath(root)
    mark = hashlib.sha256(os.fsencode(place)).hexdigest()[:12]
    return (runs or runs_root()) / ".hashes" / f"{Path(place).name[:40]}-{mark}.txt"


def _read(cache: Path) -> dict[str, str]:
    """What was kept; nothing where there is none, or where it is damaged, which is said."""
    try:
        content = cache.read_bytes()
    except OSError:
        return {}
    body, seal = content[:-65], content[-65:]
    if hashlib.sha256(body).hexdigest().encode() + b"\n" != seal:
        say(f"{cache}: damaged; the frames are hashed again")
        return {}
    return dict(line.split("\t", 1) for line in body.decode().splitlines())


def _known_hash(kept: str | None, state: str) -> str | None:
    return kept[len(state) :] if kept is not None and kept.startswith(state) else None


def _hash(path: str) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return UNREADABLE


def listed(sums: Path) -> dict[str, str]:
    """A file as `sha256sum` writes it (`<hash>  <path>` a line) → path → hash. Refused where it is none."""
    found = {}
    for number, line in enumerate(sums.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        digest, mark, path = line.partition("  ")
        if not mark or len(digest) != 64:
            raise Refused(f"{sums}:{number}: not a line of `sha256sum`; draw the faces again")
        found[path] = digest
    return found
