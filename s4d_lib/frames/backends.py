"""file → pictures     one class for each library that can decode; `reader.py` chooses among them.

Every class opens its file when it is made and then offers `length`, `fps`, `notes`, `size()`, `read()` and
`close()`. It gets positions that are sorted, distinct and inside the file, and returns uint8 [t h w 3];
anything it cannot do is an exception, which `frames.FrameReader` turns into an error that names the file.

Two decoders may disagree about *which* frame has position 7, and a wrong frame looks like a right one. `index.py`
defines it; PyAV reads by that index. decord and torchcodec make their own, so they are given a film only after PyAV
has taken its packets apart and found that every index must be the same; this also keeps decord, which ends the
whole process over some damaged tables, away from them. Neither tells of pictures that the decoder had to guess:
PyAV does, and refuses them.

Derived in chapter 02.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES
from s4d_lib.frames.index import index_film, moving_pictures, open_container, repeats_picture
from s4d_lib.frames.pictures import aspect_of, display_matrix, read_image, remarks, shown
from s4d_lib.text import natural_order

if TYPE_CHECKING:
    import av

MODULE_OF = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}


class Source(Protocol):
    """What a back end offers once a file is open; `read` gets sorted distinct positions inside `length`."""

    length: int
    fps: float | None
    notes: list[str]  # what a reader should know about the pictures; complete after the first `read`

    def size(self) -> tuple[int, int]: ...
    def read(self, indices: list[int]) -> np.ndarray: ...
    def close(self) -> None: ...


class PyAV:
    """Seek to the key frame before the wanted one, decode forward; positions come from `index.py`.

    A picture that the decoder marks as damaged is an error, and so is every picture after it up to the next key frame,
    which is built on it.
    """

    def __init__(self, path: Path):
        self.path, self.notes = path, []
        self.damaged: set[int] = set()  # positions that the decoder marked, among those decoded so far
        self.going: tuple[Iterator | None, int, av.VideoFrame | None] = (None, -1, None)
        self._open()
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps = float(rate) if rate else None
        self.index = index_film(self.container, self.stream)
        self.keys = set(self.index.keys)
        if self.index.timed:
            self.length = len(self.index.times)
        else:  # the only way to count these frames is to decode them
            self.length = sum(1 for _ in self._decode_from(0))

    def _open(self) -> None:
        self.container = open_container(self.path)
        self.stream = moving_pictures(self.container)
        self.stream.codec_context.thread_count = 1  # a thread pool in a forked worker can wait for ever
        self.aspect = aspect_of(self.stream)

    def _decode_from(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(position, frame) in display order, from the key frame at position `key` where seeking can be
        trusted.
        """
        if self.index.timed:
            self.container.seek(self.index.times[key], stream=self.stream)
        else:
            self.container.close()
            self._open()
        packets = (p for p in self.container.demux(self.stream) if not repeats_picture(p))
        for count, frame in enumerate(frame for packet in packets for frame in packet.decode()):
            position = self.index.position(frame.pts) if self.index.timed else count
            if frame.is_corrupt:
                self.damaged.add(position)
            elif frame.key_frame:
                self.keys.add(position)
            yield position, frame

    def read(self, indices: list[int]) -> np.ndarray:
        pictures, (frames, reached, frame) = [], self.going
        self.going = None, -1, None  # after an error, start again
        for wanted in indices:
            key = self.index.key_before(wanted)
            if frames is None or wanted < reached or key > reached:
                frames = self._decode_from(key)
                reached, frame = next(frames, (self.length, None))
                if reached > wanted:  # the container's own index overshot
                    frames = self._decode_from(0)
                    reached, frame = next(frames, (self.length, None))
            while reached < wanted:
                reached, frame = next(frames, (self.length, None))
            if reached > wanted:
                raise Refused(f"frame {wanted} of {self.length} cannot be decoded")
            self._refuse_damage(wanted)
            if not self.notes:
                self.notes = remarks(frame, self.aspect)
            pictures.append(shown(frame, self.aspect))
        self.going = frames, reached, frame  # who reads on from here need not decode the same frames again
        return np.stack(pictures)

    def _refuse_damage(self, wanted: int) -> None:
        if not self.damaged:
            return
        key = max((k for k in self.keys if k <= wanted), default=0)
        at = sorted(p for p in self.damaged if key <= p <= wanted)
        if at:
            on = "" if at[-1] == wanted else f", and frame {wanted} is built on it"
            raise Refused(f"frame {at[-1]} of {self.length} is damaged: parts of it were guessed by the decoder{on}")

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def close(self) -> None:
        self.going = None, -1, None
        self.container.close()


def require_sure(path: Path) -> None:
    """Refused where a decoder other than PyAV might number the frames of a film otherwise, or show them otherwise."""
    with open_container(path) as container:
        stream = moving_pictures(container)
        reason = index_film(container, stream).unsure
        if reason:
            raise Refused(f"{reason}; pyav reads it")
        container.seek(0)
        stream.codec_context.thread_count = 1
        first = next(container.decode(stream), None)
        if first is None:
            raise Refused("it holds no frames")
        a, b, c, d = display_matrix(first)
        turned = (b or c or a < 0) and container.format.name.startswith("matroska")
        if turned or a * d - b * c < 0:
            raise Refused("it is to be shown turned or mirrored in a way that only pyav heeds")
        if aspect_of(stream) != Fraction(1) or first.interlaced_frame:
            raise Refused("its pixels are not square, or its lines interlaced, and only pyav heeds that")


class Decord:
    """decord, one thread: more threads in a worker only compete with the other workers."""

    def __init__(self, path: Path):
        import decord

        require_sure(path)
        decord.logging.set_level(decord.logging.FATAL)  # the exception says it; the log would say it again
        self.video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        self.length, self.fps, self.notes = len(self.video), float(self.video.get_avg_fps()), []

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def read(self, indices: list[int]) -> np.ndarray:
        return self.video.get_batch(indices).asnumpy()

    def close(self) -> None:
        self.video = None


class TorchCodec:
    """torchcodec in "exact" mode, which reads the whole index first; "approximate" may return a neighbour."""

    def __init__(self, path: Path):
        from torchcodec.decoders import VideoDecoder

        require_sure(path)
        self.video = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        self.length, about = len(self.video), self.video.metadata
        self.fps, self.notes = self.length / (about.duration_seconds_from_header or about.duration_seconds), []

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def read(self, indices: list[int]) -> np.ndarray:
        return self.video.get_frames_at(indices=indices).data.numpy()

    def close(self) -> None:
        self.video = None


class Folder:
    """Image files as frames; numbers in names are compared as numbers, so that 2.jpg comes before 10.jpg."""

    fps, notes = None, ()

    def __init__(self, path: Path):
        names = [n for n in os.listdir(path) if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith(".")]
        if not names:
            raise Refused(f"no image in this directory (looked for {', '.join(IMAGE_SUFFIXES)})")
        self.files = [path / name for name in sorted(names, key=natural_order)]
        self.length = len(self.files)

    def size(self) -> tuple[int, int]:
        return read_image(self.files[0]).shape[:2]

    def read(self, indices: list[int]) -> np.ndarray:
        pictures = [read_image(self.files[i]) for i in indices]
        first_name, first = self.files[indices[0]].name, pictures[0]
        for i, picture in zip(indices, pictures):
            if picture.shape != first.shape:
                sizes = [f"{height}x{width} px" for height, width, _ in (picture.shape, first.shape)]
                raise Refused(f"{self.files[i].name} is {sizes[0]}, {first_name} is {sizes[1]}")
        return np.stack(pictures)

    def close(self) -> None:
        self.files = []


class Image(Folder):
    """One picture, read as a folder that holds nothing else."""

    def __init__(self, path: Path):
        self.files, self.length = [path], 1


SOURCES: dict[str, Callable[[Path], Source]] = {
    "pyav": PyAV,
    "decord": Decord,
    "torchcodec": TorchCodec,
    "folder": Folder,
    "image": Image,
}


def installed_backends() -> list[str]:
    """Names of the video back ends whose library is installed."""
    return [name for name, module in MODULE_OF.items() if importlib.util.find_spec(module)]
