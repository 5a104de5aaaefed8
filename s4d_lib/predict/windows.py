"""frames → windows     a stream of frames as the model reads it: faces cut out, squared, a window at a time.

Everything here looks at a stream once, forwards, and holds a bounded part of it; nobody knows how long it will be.

Derived in chapter 12.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from s4d_lib.clips import EVAL, augment, normalise
from s4d_lib.errors import Refused
from s4d_lib.frames.streams import Chunk
from s4d_lib.predict.timelines import Thumbnail

THUMBNAIL_EDGE = 96  # pixels of the longer side


class Cut(Protocol):
    """Faces of some frames, `crops.cropper.Crops` for one: a picture for every frame, in order."""

    frames: Tensor  # uint8 [t size size 3]
    found: Tensor   # bool [t], whether a face was seen


class Cropper(Protocol):
    """Whatever follows a face through a stream, `crops.FaceCropper` for one. Frames of one size only."""

    def stream(self, chunks: Iterable[np.ndarray], size: int) -> Iterator[Cut]: ...


class Picture(NamedTuple):
    """One frame as the model reads it."""

    index: int     # position in the video
    second: float
    pixels: Tensor  # float32 [3 h w], normalised
    face: float    # 1 a face was seen, 0 none was, nan nobody looked


class Window(NamedTuple):
    pictures: tuple[Picture, ...]  # as many as the model reads; the last may be repeated
    real: int                      # how many of them are not repetitions


class Shown:
    """The pictures of a stream of chunks, and how many of them show a face.

    Without a cropper whole frames are squared by resizing. `look` is called with every chunk as it is decoded.
    """

    def __init__(self, cropper: Cropper | None, size: tuple[int, int], look: Callable[[Chunk], None]) -> None:
        self.cropper, self.size, self.look = cropper, size, look
        self.faces = self.looked = 0

    def pictures(self, chunks: Iterable[Chunk]) -> Iterator[Picture]:
        """Every frame of the chunks, in order. ValueError for a cropper that leaves frames out."""
        # A cropper follows a face through frames of one size; where the size changes, it starts again.
        for _, run in groupby(chunks, key=lambda chunk: chunk.frames.shape[1:]):
            show = self._whole if self.cropper is None else self._cut
            yield from show(run)

    def _whole(self, run: Iterable[Chunk]) -> Iterator[Picture]:
        for chunk in run:
            self.look(chunk)
            x = to_input(torch.from_numpy(chunk.frames), self.size)
            for i in range(len(chunk.index)):
                yield Picture(int(chunk.index[i]), float(chunk.seconds[i]), x[:, i], float("nan"))

    def _cut(self, run: Iterable[Chunk]) -> Iterator[Picture]:
        places: deque[tuple[int, float]] = deque()  # of frames that the cropper has and has not answered yet

        def frames() -> Iterator[np.ndarray]:
            for chunk in run:
                self.look(chunk)
                places.extend(zip(chunk.index.tolist(), chunk.seconds.tolist()))
                yield chunk.frames

        for cut in self.cropper.stream(frames(), max(self.size)):
            if len(cut.frames) != len(cut.found):
                raise Refused("the cropper left frames out, and a window needs a picture for every frame, as "
                              "FaceCropper(missing=\"hold\") gives")
            x = to_input(torch.as_tensor(cut.frames), self.size)
            self.looked += len(cut.found)
            self.faces += int(cut.found.sum())
            for i, face in enumerate(cut.found.tolist()):
                yield Picture(*places.popleft(), x[:, i], float(face))


def sliding_windows(pictures: Iterable[Picture], length: int, hop: float | None = None) -> Iterator[Window]:
    """Windows of `length` pictures over a stream of them, holding no more than one window.

    A window starts at the first picture and then at the first one that is `hop` seconds or more after it, twice `hop`
    and so on; without `hop`, at every (length // 2)-th. The last window ends with the last picture. A stream shorter
    than one window repeats its last picture, as the released test loader does (`clips.test_views`).
    """
    held: deque[Picture] = deque(maxlen=length)
    count, emitted, due = 0, -1, None
    for picture in pictures:
        held.append(picture)
        count += 1
        start, second = count - length, held[0].second
        if start < 0:
            continue
        if due is None:
            due = second
        if (start % max(1, length // 2) == 0) if hop is None else second >= due - 1e-6:
            emitted = start
            yield Window(tuple(held), length)
            while hop is not None and due <= second + 1e-6:
                due += hop * max(1, (second - due) // hop)
    if count and (emitted < 0 or emitted != count - length):
        real = len(held)
        yield Window((*held, *[held[-1]] * (length - real)), real)


def to_input(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames uint8 [t h w 3] → float32 [3 t *size], squared and normalised as for the protocol's test views."""
    if size[0] == size[1]:
        return augment(frames, EVAL, size[0], np.random.default_rng(0))  # nothing is drawn from it
    from torchvision.transforms.v2 import functional

    resized = functional.resize(rearrange(frames, "t h w c -> t c h w"), list(size), antialias=True)
    return normalise(rearrange(resized, "t c h w -> c t h w").float() / 255, axis=0)


class Filmstrip:
    """A fixed number of small pictures spread over a stream whose length nobody knows.

    Every k-th frame is kept; whenever there are four times as many as wanted, every second one goes and k doubles.
    In the end there are at least twice as many as wanted, of which those nearest to equal distances are chosen.
    """

    def __init__(self, wanted: int) -> None:
        self.wanted, self.every, self.count = wanted, 1, 0
        self.kept: list[Thumbnail] = []

    def look(self, chunk: Chunk) -> None:
        if not self.wanted:
            return
        for frame, second in zip(chunk.frames, chunk.seconds):
            if self.count % self.every == 0:
                if len(self.kept) == 4 * self.wanted:
                    self.kept, self.every = self.kept[::2], 2 * self.every
                if self.count % self.every == 0:
                    self.kept.append(Thumbnail(float(second), _small_jpeg(frame)))
            self.count += 1

    def chosen(self) -> list[Thumbnail]:
        from s4d_lib.clips import spread_indices

        return [self.kept[i] for i in spread_indices(len(self.kept), self.wanted)] if self.kept else []


def _small_jpeg(frame: np.ndarray) -> bytes:
    from PIL import Image

    picture, buffer = Image.fromarray(frame), io.BytesIO()
    picture.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE))
    picture.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
