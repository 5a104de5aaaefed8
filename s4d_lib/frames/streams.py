"""file → chunks     a video of any length from its first frame to its last, a bounded number of frames at a time.

`open_frames` answers "frame 7, please" and knows how many there are. Here nobody asks and nobody counts: the file is
decoded once, forwards, by PyAV, and what has been handed out is forgotten. A clip of two hours costs the memory of a
clip of two seconds.

Times come from the container, so that a variable frame rate stays variable; zero is where a player starts the file.
Recordings made with a turned phone stand upright, deep colour is brought to 8 bits. A file that ends early or holds
damaged packets gives what can be decoded, and `Stream.damage` says what is wrong: training refuses such a file
(`reader.py`), because a shorter clip would pass for a whole one, but who asks about one file wants what is there.

Derived in chapter 12.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.frames.impostors import impostor
from s4d_lib.frames.index import moving_pictures, open_container, repeats_picture, require_whole
from s4d_lib.frames.pictures import aspect_of, open_picture, remarks, shown
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.text import natural_order

if TYPE_CHECKING:
    import av

FASTEST = 1000.0  # frames a second; some containers announce the tick of their clock instead
CHUNK_FRAMES, CHUNK_BYTES = 32, 64 << 20  # the smaller of the two bounds what is held
FOLDER_FPS = 25.0  # frame folders carry no times
REMEDY = "Fetch it again, or convert it with another program"
UNSEEN_TAIL = 0.5  # seconds that pictures may end before the file's announced end without remark
GAP = 1.0          # seconds without a picture, and more than five pictures long, that are worth a remark


class Chunk(NamedTuple):
    """Some frames of a stream, in display order."""

    frames: np.ndarray   # uint8 [t h w 3]
    index: np.ndarray    # int [t], position of each in the whole video
    seconds: np.ndarray  # float [t], when each is shown


class Stream:
    """One pass over every `step`-th frame of a video or frame folder; made by `iter_frames`.

    Iterating yields a `Chunk` at a time. `count`, `end` (seconds) and `damage` (one sentence, or nothing) are right
    once the iteration has ended.
    """

    def __init__(self, path: Path, step: int, chunk: int) -> None:
        if step < 1 or chunk < 1:
            raise Refused(f"step and chunk must be at least 1, got {step} and {chunk}")
        self.path, self.step, self.chunk = path, step, chunk
        self.fps: float | None = None
        self.count, self.end, self.damage = 0, 0.0, ""
        self.notes: list[str] = []
        self._reached, self._gaps = 0.0, []

    def __iter__(self) -> Iterator[Chunk]:
        """Chunks of at most `chunk` frames of one size. UnreadableMedia if there is no frame at all."""
        self.count, self.end, self.damage, self.notes = 0, 0.0, "", []
        self._reached, self._gaps = 0.0, []  # seconds of sound or pictures that are there; where pictures are missing
        frames = self._folder() if self.path.is_dir() else self._video()
        held: list[tuple[np.ndarray, int, float]] = []
        for item in frames:
            full = held and (len(held) >= min(self.chunk, max(1, CHUNK_BYTES // held[0][0].nbytes)))
            if full or (held and held[0][0].shape != item[0].shape):  # some streams change size on the way
                yield _chunk(held)
                held = []
            held.append(item)
        if held:
            yield _chunk(held)

    def _folder(self) -> Iterator[tuple[np.ndarray, int, float]]:
        self.fps = FOLDER_FPS
        self.notes.append(f"a folder of frames has no frame rate: {FOLDER_FPS:g} a second assumed")
        with open_frames(self.path, "folder") as reader:
            length = len(reader)
            for index in range(0, length, self.step):
                yield reader.read([index])[0].numpy(), index, index / self.fps
        self.count, self.end = length, length / self.fps

    def _video(self) -> Iterator[tuple[np.ndarray, int, float]]:
        import av

        open_frames(self.path)  # says what is missing or empty
        if other := impostor(self.path):
            raise UnreadableMedia(self.path, other.reason, other.remedy)
        try:
            with open_container(self.path) as container:
                stream = moving_pictures(container)
                stream.thread_type = "AUTO"
                rates = (stream.average_rate, stream.guessed_rate)
                self.fps = next((float(rate) for rate in rates if rate and rate <= FASTEST), FOLDER_FPS)
                self._aspect = aspect_of(stream)
                if (count := len(container.streams.video)) > 1:
                    self.notes.append(f"{count} video streams, pictures are those of stream {stream.index}")
                zero = (container.start_time or 0) / 1e6
                yield from self._decoded(container, stream, zero)
                self._compare(container, stream)
        except (av.error.FFmpegError, ValueError) as error:
            if isinstance(error, UnreadableMedia):
                raise
            reason = str(getattr(error, "strerror", None) or error).strip().splitlines()[0].rstrip(".")
            try:
                require_whole(self.path)
            except ValueError as cut:
                reason = str(cut)
            raise UnreadableMedia(self.path, reason, REMEDY) from error

    def _decoded(self, container: av.container.InputContainer, stream: av.VideoStream,
                 zero: float) -> Iterator[tuple[np.ndarray, int, float]]:
        last = first = None
        for frame in self._frames(container, stream):
            second = frame.time - zero if frame.time is not None else self.count / self.fps
            if last is not None and second <= last:  # raw streams count wrong or not at all
                second = last + 1 / self.fps
            if last is not None and second - last > max(GAP, 5 / self.fps):
                self._gaps.append((last, second))
            if last is None:
                first = second
                self.notes += remarks(frame, self._aspect)
            last, index = second, self.count
            self.count, self.end = index + 1, second + 1 / self.fps
            if index % self.step == 0:
                yield shown(frame, self._aspect), index, second
        if not self.count:
            raise Refused(self.damage or "it holds no frames")
        if self.count > 1 and not 0.95 < (measured := (self.count - 1) / (last - first)) / self.fps < 1.05:
            self.fps = measured

    def _frames(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """Every frame that decodes; packets that do not are counted in `damage`."""
        import av

        # Sound is taken apart as well, undecoded: it tells a film that ends before its music from one cut short.
        lost = torn = guessed = 0
        packets = container.demux(stream, *container.streams.audio)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError as error:  # the rest of the file cannot be taken apart
                self.damage = f"reading stopped after {self.end:.1f} s ({error.strerror})"
                return
            if packet.pts is not None and packet.time_base:
                self._reached = max(self._reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            # `packet.stream_index` of the packets that ask for what a decoder still holds is 0, whatever their stream.
            if packet.stream.index != stream.index or repeats_picture(packet):
                continue
            torn += packet.is_corrupt
            try:
                for frame in packet.decode():
                    guessed += frame.is_corrupt
                    yield frame
            except av.error.FFmpegError:
                lost += 1
        found = ((lost, "damaged packet{s} could not be decoded"), (torn, "packet{s} marked as torn"),
                 (guessed, "picture{s} guessed in part by the decoder"))
        self.damage = ", ".join(f"{n} {what.format(s='s' * (n > 1))}" for n, what in found if n)

    def _compare(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        """What the file announces, beside what was found in it."""
        try:
            require_whole(self.path)
            cut = False
        except ValueError:
            cut = True
        zero, announced = (container.start_time or 0) / 1e6, (container.duration or 0) / 1e6
        slack = max(UNSEEN_TAIL, 0.02 * announced)
        if cut or announced - (self._reached - zero) > slack:
            self.damage = f"the file is cut short: its pictures end after {self.end:.1f} s" + (
                f" of {announced:.1f} s" if announced > self.end else "")
        elif announced - self.end > slack:
            self.notes.append(f"its pictures end after {self.end:.1f} s, its sound after {announced:.1f} s")
        if self._gaps:
            longest = max(self._gaps, key=lambda gap: gap[1] - gap[0])
            self.notes.append(f"{len(self._gaps)} gap{'s' * (len(self._gaps) > 1)} without pictures, the longest from "
                              f"{longest[0]:.1f} to {longest[1]:.1f} s")


def _chunk(held: Sequence[tuple[np.ndarray, int, float]]) -> Chunk:
    pictures, index, seconds = zip(*held)
    return Chunk(np.stack(pictures), np.array(index), np.array(seconds))


def iter_frames(path: str | os.PathLike, step: int = 1, chunk: int = CHUNK_FRAMES) -> Stream:
    """Every `step`-th frame of a video, in chunks of at most `chunk` frames and 64 MB.

    ValueError for a step or chunk below 1. UnreadableMedia while iterating, where nothing can be decoded; what ends
    too early or is damaged in places sets `Stream.damage` instead.
    """
    return Stream(Path(path), step, chunk)


class Found(NamedTuple):
    """What `find_media` found."""

    media: list[Path]
    refused: dict[Path, str]  # path → why it is not read
    others: int               # files in the folders that are no media
    given: tuple[str, ...]    # what was asked for


def is_image(path: Path) -> bool:
    """Whether a file is read as a still, by its suffix."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def pictures_in(path: Path) -> int:
    """How many pictures a readable image file plays one after the other; 1 for a still."""
    with open_picture(path) as image:  # the second picture of a phone's JPEG is a copy for other screens
        return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def find_media(paths: Sequence[str | os.PathLike], frame_folders: bool = False) -> Found:
    """Files as they are named; folders by the videos and images in them, recursively, in natural order, each once.

    With `frame_folders` a folder that holds images stands for one clip. Hidden files and the number of files that are
    no media are left out; a link that leads out of its folder is refused, with the reason.
    """
    media, refused, others, empty = [], {}, 0, {}
    if "" in map(os.fspath, paths):
        raise Refused("a path is empty; name a file or folder (. is the current one)")
    for given in map(Path, paths):
        if not given.is_dir():
            media.append(given)
            continue
        before = len(media) + len(refused)
        for folder, below, names in os.walk(given):
            below[:] = sorted((name for name in below if not name.startswith(".")), key=natural_order)
            files = [Path(folder, name) for name in sorted(names, key=natural_order) if not name.startswith(".")]
            images = [path for path in files if is_image(path)]
            if frame_folders and images:
                media.append(Path(folder))
                files = [path for path in files if path not in set(images)]
            for path in files:
                if path.suffix.lower() not in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES):
                    others += 1
                elif not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(given)):
                    refused[path] = "a link that leads out of its folder; name its target to have it read"
                else:
                    media.append(path)
        if len(media) + len(refused) == before:
            empty[given] = "no video or image is in this folder"
    if media or refused:  # where nothing is found anywhere, the caller says so
        refused |= empty
    return Found(list(dict.fromkeys(media)), refused, others, tuple(map(str, paths)))
