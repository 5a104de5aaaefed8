"""file → pictures     one class for each library that can decode; `reader.py` chooses among them.

Every class opens its file when it is made and then offers `length`, `fps`, `size()`, `read()` and
`close()`. It gets positions that are sorted, distinct and inside the file, and returns uint8 [t h w 3];
anything it cannot do is an exception, which `frames.FrameReader` turns into an error that names the file.

Two decoders may disagree about *which* frame has position 7, and a wrong frame looks like a right one.
Where a container stores no display times (AVI, transport streams, raw H.264), decord and torchcodec were
seen to return neighbours without a word, and seeking in PyAV does the same. Such files are decoded from
their start by PyAV, and the other two refuse them. All three take a file that was cut off between two
frames for a shorter video; `require_whole` does not.

Derived in chapter 02.
"""

from __future__ import annotations

import importlib.util
import os
import re
import struct
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.text import natural_order

if TYPE_CHECKING:
    import av

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".mts",
                  ".m2ts", ".3gp", ".ogv", ".gif", ".vob", ".asf", ".dv", ".mxf", ".h264", ".hevc", ".mjpeg")
QUICKTIME_BOXES = tuple(b"ftyp moov mdat free skip wide moof sidx styp mfra uuid meta".split())
MODULE_OF = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}


class Source(Protocol):
    """What a back end offers once a file is open; `read` gets sorted distinct positions inside `length`."""

    length: int
    fps: float | None

    def size(self) -> tuple[int, int]: ...
    def read(self, indices: list[int]) -> np.ndarray: ...
    def close(self) -> None: ...


def _stores_display_times(path: Path) -> bool:
    """Whether the first bytes are those of an MP4, QuickTime, Matroska or WebM file, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(8)
    return start[:4] == b"\x1aE\xdf\xa3" or start[4:] in QUICKTIME_BOXES


def require_whole(path: Path) -> None:
    """ValueError if an MP4 or QuickTime file ends before its own boxes do, as after a broken copy."""
    length, start = path.stat().st_size, 0
    with open(path, "rb") as file:
        while start + 8 <= length:
            file.seek(start)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:  # the true size follows in eight bytes
                size = int.from_bytes(header[8:], "big")
            if size < 8 or kind not in QUICKTIME_BOXES:  # the last box, bytes after it, or another container
                return
            start += size
    if start > length:
        raise Refused(f"the file is cut short: {length} of at least {start} bytes")


def _require_display_times(path: Path) -> None:
    if not _stores_display_times(path):
        raise Refused("only MP4, QuickTime and Matroska files give it exact frames; pyav reads the others")


def _require_plain_turns(path: Path) -> None:
    """ValueError for a file that is to be shown mirrored, or a Matroska file that is to be turned: decord gives the
    first upside down and the second lying, and neither with a word.
    """
    with open(path, "rb") as file:
        if file.read(4) == b"\x1aE\xdf\xa3":
            odd = b"\x76\x70" in file.read(1 << 16)  # the name of Projection; by chance in others, which costs speed
        else:
            odd = any(a * d - b * c < 0 for a, b, c, d in _track_matrices(file))
    if odd:
        raise Refused("it is to be shown turned or mirrored in a way that decord ignores; pyav reads it")


def _track_matrices(file: BinaryIO) -> Iterator[tuple[int, int, int, int]]:
    """a, b, c, d of the display matrix in each track header of an MP4 or QuickTime file."""
    start = 0
    while len(header := (file.seek(start), file.read(16))[1]) >= 8:
        size, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if kind == b"moov":
            movie = file.read(min(size, 1 << 26))
            for found in re.finditer(b"tkhd", movie):
                at = found.end() + (52 if movie[found.end():found.end() + 1] == b"\1" else 40)
                if at + 20 <= len(movie):
                    a, b, _, c, d = struct.unpack_from(">5i", movie, at)
                    yield a, b, c, d
        if size < 8:
            return
        start += size


class Decord:
    """decord, one thread: more threads in a worker only compete with the other workers."""

    def __init__(self, path: Path):
        import decord

        _require_display_times(path)
        _require_plain_turns(path)
        decord.logging.set_level(decord.logging.FATAL)  # the exception says it; the log would say it again
        self.video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        self.length, self.fps = len(self.video), float(self.video.get_avg_fps())

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def read(self, indices: list[int]) -> np.ndarray:
        return self.video.get_batch(indices).asnumpy()

    def close(self) -> None:
        self.video = None


class PyAV:
    """Seek to the key frame before the wanted one, decode forward; positions come from the packets' times."""

    def __init__(self, path: Path):
        self.path = path
        self.going: tuple[Iterator | None, int, av.VideoFrame | None] = (None, -1, None)
        self._open()
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps = float(rate) if rate else None
        packets = [p for p in self.container.demux(self.stream) if p.size and not p.is_discard]
        if any(p.is_corrupt for p in packets):
            raise Refused("it ends in the middle of a frame")
        self.times = sorted(p.pts for p in packets if p.pts is not None)
        self.timed = _stores_display_times(path) and len(set(self.times)) == len(packets)
        if self.timed:
            self.length = len(packets)
            self.keys = sorted(self._position(p.pts) for p in packets if p.is_keyframe)
        else:  # the only way to count these frames is to decode them
            self.length, self.keys = sum(1 for _ in self._decode_from(0)), []

    def _open(self) -> None:
        self.container = open_container(self.path)
        self.stream = moving_pictures(self.container)
        self.stream.codec_context.thread_count = 1  # a thread pool in a forked worker can wait for ever

    def _position(self, time: int) -> int:
        return bisect_right(self.times, time) - 1

    def _decode_from(self, key: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """(position, frame) in display order, from the key frame at position `key` where seeking can be
        trusted.
        """
        if self.timed:
            self.container.seek(self.times[key], stream=self.stream)
            packets = (p for p in self.container.demux(self.stream) if not repeats_picture(p))
            yield from ((self._position(f.pts), f) for packet in packets for f in packet.decode())
        else:
            self.container.close()
            self._open()
            packets = (p for p in self.container.demux(self.stream) if not repeats_picture(p))
            yield from enumerate(frame for packet in packets for frame in packet.decode())

    def _key_before(self, index: int) -> int:
        before = bisect_right(self.keys, index) - 1
        return self.keys[before] if before >= 0 else 0

    def read(self, indices: list[int]) -> np.ndarray:
        pictures, (frames, reached, frame) = [], self.going
        self.going = None, -1, None  # after an error, start again
        for wanted in indices:
            key = self._key_before(wanted)
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
            pictures.append(upright(frame))
        self.going = frames, reached, frame  # who reads on from here need not decode the same frames again
        return np.stack(pictures)

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def close(self) -> None:
        self.going = None, -1, None
        self.container.close()


def open_container(path: Path) -> av.container.InputContainer:
    """A video file, opened by PyAV. A name like http:a.mp4 is a file and not an address, and a play list that calls
    itself a video does not reach the network.
    """
    import av

    return av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})


def moving_pictures(container: av.container.InputContainer) -> av.VideoStream:
    """The stream that a player shows: the default one, or the first; the cover of a song is none.

    ValueError where there is none.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise Refused("it has no video stream")
    return max(streams, key=lambda s: bool(s.disposition & Disposition.default))  # the first of equals


def repeats_picture(packet: av.Packet) -> bool:
    """Whether a packet says no more than "the same again" (Theora, AVI): no bytes, but a time. PyAV would take it for
    the end of the stream."""
    return not packet.size and packet.dts is not None


def in_format(frame: av.VideoFrame, pixels: str) -> av.VideoFrame:
    """The frame in another pixel format, by one thread: by default PyAV starts a pool of threads for every frame, which
    took some sixty times longer for small ones. An older PyAV knows no `threads`, and is merely slower.
    """
    try:
        return frame.reformat(format=pixels, threads=1)
    except TypeError:
        return frame.reformat(format=pixels)


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A PyAV frame as [h w 3], turned by quarters and mirrored as the recording says it should be shown."""
    from av.sidedata.sidedata import Type

    picture = in_format(frame, "rgb24").to_ndarray()
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return picture
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))  # a pixel (x, y) goes to (a x + c y, b x + d y)
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class TorchCodec:
    """torchcodec in "exact" mode, which reads the whole index first; "approximate" may return a neighbour."""

    def __init__(self, path: Path):
        from torchcodec.decoders import VideoDecoder

        _require_display_times(path)
        self.video = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        self.length, about = len(self.video), self.video.metadata
        self.fps = self.length / (about.duration_seconds_from_header or about.duration_seconds)

    def size(self) -> tuple[int, int]:
        return self.read([0]).shape[1:3]

    def read(self, indices: list[int]) -> np.ndarray:
        return self.video.get_frames_at(indices=indices).data.numpy()

    def close(self) -> None:
        self.video = None


class Folder:
    """Image files as frames; numbers in names are compared as numbers, so that 2.jpg comes before 10.jpg."""

    fps = None

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
    "decord": Decord,
    "pyav": PyAV,
    "torchcodec": TorchCodec,
    "folder": Folder,
    "image": Image,
}


def read_image(path: Path) -> np.ndarray:
    """One picture as [h w 3]; a camera's orientation tag is applied, transparency dropped."""
    import PIL.Image
    import PIL.ImageOps

    try:
        with warnings.catch_warnings():  # Pillow warns of 90 megapixels and refuses 180
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                picture = PIL.ImageOps.exif_transpose(image)
                if picture.mode == "I" or picture.mode.startswith("I;16"):  # grey of 16 bits, which convert() clips
                    picture = PIL.Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
                if "transparency" in picture.info:
                    picture = picture.convert("RGBA")
                return np.array(picture.convert("RGB"))
    # PIL reports broken PNG chunks as SyntaxError.
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise Refused(f"{path.name} is not a readable image ({error})") from error


def installed_backends() -> list[str]:
    """Names of the video back ends whose library is installed."""
    return [name for name, module in MODULE_OF.items() if importlib.util.find_spec(module)]
