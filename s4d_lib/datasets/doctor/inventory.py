"""folder → inventory     every clip folder, video and picture below a folder looked at once: how many, large and whole.

One `os.scandir` per folder, several folders at a time. By default the headers of four frames are read, the first, last,
smallest and largest file, since broken frames stand out by their bytes; `deep` reads those of all, decodes the first,
middle and last, and keeps their print (`prints.py`). A file that ends early is decoded either way. A link that leads
out of the root is noted and not followed.
Clips come in no particular order.

Derived in chapter 02.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from s4d_lib.datasets.doctor.prints import Print, print_of
from s4d_lib.datasets.lists import ASSUMED
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.frames.impostors import START, impostor, kind_of
from s4d_lib.frames.index import require_whole
from s4d_lib.frames.pictures import open_picture, read_image, unknown_picture
from s4d_lib.text import natural_order

BATCH = 64  # folders per task: fewer would cost more in handing over than in looking
_KEPT = 3  # examples kept per clip


class Clip(NamedTuple):
    """What one look at a clip folder, video or picture found."""

    name: str  # below the frames folder, with forward slashes; of a video or picture with its ending
    kind: str  # folder, video, image; "link": not followed
    frames: int | None = None  # None: a video that was not opened
    suffixes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()  # (height, width) px of the frames that were looked at
    empty: int = 0  # files of 0 bytes
    examples: tuple[str, ...] = ()  # of these
    bad: tuple[str, ...] = ()  # "<file>: <reason>" of what cannot be read
    outside: tuple[str, ...] = ()  # links that lead out of the root
    gap: str = ""  # "00004 after 00002" where frame numbers are not contiguous
    misordered: str = ""  # a name that sorts elsewhere as text than as a number
    inner: str = ""  # a folder inside a clip folder
    print: Print | None = None  # of the first, middle and last frame, if they can be read


class Looked(NamedTuple):
    """What one folder gave: clips, and folders still to be looked at as (path, name, depth)."""

    clips: list[Clip]
    below: list[tuple[str, str, int]]


class Looker:
    """Looks at one folder at a time; holds what all looks share."""

    def __init__(
        self, root: Path, kind: str | None, depth: int, deep: bool, open_video: Callable[[str], bool],
        listed: Container[str] = (), near: bool = False,
    ):
        """`kind` clip, image or None (a folder is a clip if it is `listed`); folders are entered down to `depth`.

        `near`: prints are to tell near copies too.
        """
        self.real = os.path.realpath(root).rstrip(os.sep) + os.sep
        self.kind, self.depth, self.deep, self.open_video, self.listed = kind, depth, deep, open_video, listed
        self.near = near
        self._linked: set[str] = set()

    def look(self, path: str, name: str, depth: int) -> Looked:
        """Everything directly in this folder."""
        clips, below, frames, outside, inner, odd = [], [], [], [], "", []
        try:
            with os.scandir(path) as entries:
                listed = list(entries)
        except OSError as error:
            return Looked([Clip(name, "folder", 0, bad=(f"{name}: {error.strerror}",))], [])
        for entry in listed:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            inside = f"{name}/{entry.name}" if name else entry.name
            if entry.is_symlink() and not self._stays(entry):
                outside.append(inside)
                continue
            try:
                mode = entry.stat()  # through links; on most systems the one question per file
            except OSError:
                mode = None
            if mode is not None and stat.S_ISDIR(mode.st_mode):
                if depth < self.depth and self._enter(entry):
                    below.append((entry.path, inside, depth + 1))
                inner = inner or entry.name
                odd += [f"{inside}: a folder, not a picture"] * entry.name.lower().endswith(IMAGE_SUFFIXES)
            elif mode is not None and not stat.S_ISREG(mode.st_mode):
                odd.append(f"{inside}: not a file")  # a pipe, whose reader would wait for ever
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                frames.append((entry.name, mode.st_size if mode else 0))
            elif entry.name.lower().endswith(VIDEO_SUFFIXES) and self.kind != "image":
                clips.append(self._video(entry.path, inside, mode.st_size if mode else 0))
        if self._is_clip(name, depth, frames, below or clips):
            clips.append(self._folder(path, name, frames, outside, inner, odd))
        else:
            clips.extend(self._image(path, f"{name}/{file}" if name else file, size) for file, size in frames)
            clips.extend(Clip(link, "link", outside=(link,)) for link in outside)
        return Looked(clips, below)

    def _is_clip(self, name: str, depth: int, frames: list, other: list) -> bool:
        """Whether a folder is one clip: it holds frames, or nothing at the depth where clips are."""
        if self.kind is None:
            return name in self.listed
        return self.kind == "clip" and depth > 0 and (bool(frames) or (depth == self.depth and not other))

    def _stays(self, entry: os.DirEntry) -> bool:
        return (os.path.realpath(entry.path) + os.sep).startswith(self.real)

    def _enter(self, entry: os.DirEntry) -> bool:
        """A linked folder is entered once, so that a link upwards does not go round."""
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        again = real in self._linked
        self._linked.add(real)
        return not again or self.kind != "image"

    def _folder(self, path: str, name: str, frames: list[tuple[str, int]], outside: list[str], inner: str,
                bad: list[str]) -> Clip:
        frames.sort(key=lambda frame: natural_order(frame[0]))
        names = [frame for frame, _ in frames]
        empty = [frame for frame, size in frames if not size]
        full = [frame for frame in frames if frame[1]]
        looked = [n for n, _ in (full if self.deep or len(full) < 5 else _standing_out(full))]
        sizes = {}
        for place, frame in enumerate(looked):
            found = picture_size(os.path.join(path, frame), decode=self.deep and place in (0, len(looked) - 1))
            if isinstance(found, str):
                bad.append(f"{name}/{frame}: {found}")
            else:
                sizes[found] = None
        told = [os.path.join(path, looked[place]) for place in _three(len(looked))] if looked else []
        return Clip(
            name, "folder", len(frames), tuple(sorted({os.path.splitext(n)[1].lower() for n in names})), tuple(sizes),
            len(empty), tuple(f"{name}/{n}" for n in empty[:_KEPT]), tuple(bad),
            tuple(outside), _gap(names), _misordered(names), inner, self._print(told, len(frames)))

    def _image(self, folder: str, name: str, size: int) -> Clip:
        path, suffix = os.path.join(folder, name.rpartition("/")[2]), (os.path.splitext(name)[1].lower(),)
        if not size:
            return Clip(name, "image", 1, suffix, empty=1, examples=(name,))
        found = picture_size(path, self.deep)
        if isinstance(found, str):
            return Clip(name, "image", 1, suffix, bad=(f"{name}: {found}",))
        return Clip(name, "image", 1, suffix, (found,), print=self._print([path], 1))

    def _video(self, path: str, name: str, size: int) -> Clip:
        suffix = (os.path.splitext(name)[1].lower(),)
        if not size:
            return Clip(name, "video", None, suffix, empty=1, examples=(name,))
        found = video_header(path)
        if found:
            return Clip(name, "video", None, suffix, bad=(f"{name}: {found}",))
        if not (self.deep or self.open_video(name)):
            return Clip(name, "video", None, suffix)
        from s4d_lib.frames.reader import UnreadableMedia, open_frames

        try:
            with open_frames(path) as reader:
                frames, pixels, shown = len(reader), reader.size, None
                if self.deep:
                    reader.check()
                    shown = print_of(list(reader.read(_three(frames)).numpy()), frames, self.near)
        except UnreadableMedia as error:
            return Clip(name, "video", None, suffix, bad=(f"{name}: {error.reason}",))
        return Clip(name, "video", frames, suffix, (pixels,), print=shown)

    def _print(self, paths: Sequence[str], frames: int) -> Print | None:
        """Of pictures, in a deep look; None where one of them cannot be read, which is said elsewhere."""
        if not self.deep or not paths:
            return None
        try:
            return print_of([read_image(Path(path)) for path in paths], frames, self.near)
        except Exception:  # as in `picture_size`
            return None


def inventory(looker: Looker, folder: Path, jobs: int) -> Iterator[Clip]:
    """Every clip below `folder`. A bounded number of folders is in the air at any time."""
    waiting, running = deque([(str(folder), "", 0)]), set()
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            while waiting and len(running) < 4 * jobs:
                # Few folders are dealt out one by one, many in batches.
                size = max(1, min(BATCH, len(waiting) // (2 * jobs)))
                batch = [waiting.popleft() for _ in range(size)]
                running.add(pool.submit(lambda batch=batch: [looker.look(*one) for one in batch]))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for task in done:
                for looked in task.result():
                    waiting.extend(looked.below)
                    yield from looked.clips


def sampled(total: int, wanted: int = 64) -> Callable[[str], bool]:
    """A choice of about `wanted` of `total` names that depends on the names alone."""
    every = max(1, total // wanted)
    return lambda name: zlib.crc32(name.encode(errors="surrogateescape")) % every == 0


def _standing_out(frames: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The first, last, smallest and largest of (name, bytes), in their order."""
    by_size = range(len(frames))
    chosen = {0, len(frames) - 1, min(by_size, key=lambda i: frames[i][1]), max(by_size, key=lambda i: frames[i][1])}
    return [frames[i] for i in sorted(chosen)]


def picture_size(path: str, decode: bool) -> tuple[int, int] | str:
    """(height, width) px from the header of a picture; text says why it cannot be read.

    It is decoded if asked, and where it does not end as a whole jpg or png does.
    """
    import PIL.Image

    try:
        if other := impostor(Path(path)):
            return other.reason
        with open_picture(path) as image:
            if decode or not _ends(path, image.format):
                image.load()
            return image.size[1], image.size[0]
    except PIL.UnidentifiedImageError:
        return unknown_picture(Path(path))
    except Exception as error:  # damaged files raise whatever their decoder came upon
        return (str(error) or type(error).__name__).splitlines()[0].replace(path, os.path.basename(path))


def _ends(path: str, format: str | None) -> bool:
    """Whether the last bytes are those of a whole file of this format."""
    if format not in ("JPEG", "PNG"):
        return True
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 16))
        tail = file.read()
    return tail.endswith(b"\xff\xd9") if format == "JPEG" else b"IEND" in tail


def video_header(path: str) -> str:
    """Why the start or the length of a video file is wrong, or nothing."""
    try:
        if other := impostor(Path(path)):
            return other.reason
        with open(path, "rb") as file:
            if path.lower().endswith((".mp4", ".mov")) and kind_of(file.read(START))[0] != "film":
                return "not an MP4 file"
        require_whole(Path(path))
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def _three(count: int) -> list[int]:
    """The places of the first, middle and last of `count`; a clip is always told by three."""
    return [0, (count - 1) // 2, count - 1]


def _gap(names: Sequence[str]) -> str:
    """Where the last number in the names jumps; names without one have no gaps."""
    numbers = [found[-1] for found in (re.findall(r"\d+", os.path.splitext(name)[0]) for name in names) if found]
    for before, after in zip(numbers, numbers[1:]):
        if int(after) not in (int(before), int(before) + 1):  # equal: 00030.jpg beside 00030.png
            return f"{after} after {before}"
    return ""


def _misordered(names: Sequence[str]) -> str:
    """The first name that text order puts elsewhere than numeric order."""
    return next((a for a, b in zip(names, sorted(names)) if a != b), "")


# -------------------------------------------------------------------------------- which folder holds the frames


def frame_folders(root: Path, usual: Sequence[str], names: Sequence[str]) -> list[tuple[str, int]]:
    """(folder below root, how many of `names` are in it), the fullest first; usual places win where equal.

    All folders up to two levels deep are asked, and narrow ones a level further, so that one that was renamed, or
    extracted into another of its name, is found too.
    """
    places = [name for name in usual if (root / name).is_dir()] + [n for n in _folders(root) if n not in usual]
    found = [(place, sum(_is_there(root / place, name) for name in names)) for place in places]
    full = sorted((one for one in found if one[1]), key=lambda one: -one[1])  # stable: the usual order remains
    return full or [(place, 0) for place, _ in found if place in usual]


def _folders(root: Path, most: int = 200) -> Iterator[str]:
    for place in _inside(root, most):
        yield place
        for name in _inside(root / place, most):
            yield f"{place}/{name}"
            yield from (f"{place}/{name}/{below}" for below in _inside(root / place / name, 10))


def _inside(folder: Path, most: int) -> list[str]:
    """Names of the folders in a folder; none if there are too many for it to be a place of places."""
    found: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "__MACOSX")):
                    found.append(entry.name)
                    if len(found) > most:
                        return []
    except OSError:
        return []
    return sorted(found)


def _is_there(folder: Path, name: str) -> bool:
    return any(os.path.lexists(f"{folder}/{name}{suffix}") for suffix in ("", *ASSUMED))


def spread(names: Iterable[str], total: int, wanted: int = 25) -> list[str]:
    """About `wanted` of the names, spread over all of them."""
    every = max(1, total // wanted)
    return [name for place, name in enumerate(names) if place % every == 0]
