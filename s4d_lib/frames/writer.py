"""frames → video     H.264 files, written at once or chunk by chunk. Derived in chapter 02."""

from __future__ import annotations

import os
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.files import replacing
from s4d_lib.frames.pictures import reformat


class Mp4Writer:
    """H.264 (libx264, yuv420p) in an mp4 file, frames added as they come; `close` when all are there.

    `reproducible` gives equal bytes for equal frames on every processor and beside other threads; otherwise x264 now
    and then decides otherwise (seen in its macroblock tree).
    """

    def __init__(self, path: Path, fps: float, crf: int = 12, reproducible: bool = False) -> None:
        import av

        self.path, self.fps = path, fps
        self.options = {"crf": str(crf), "threads": "1"} | (
            {"x264-params": "cpu-independent=1"} if reproducible else {})
        self.container, self.stream = av.open(str(path), "w", format="mp4"), None
        self.picture = av.VideoFrame.from_ndarray

    def add(self, frames: Tensor | np.ndarray) -> None:
        """uint8 [t h w 3], all of one size; Refused for an odd height or width, which yuv420p cannot halve."""
        for picture in np.ascontiguousarray(frames):
            if self.stream is None:
                self._begin(*picture.shape[:2])
            self.container.mux(self.stream.encode(reformat(self.picture(picture, format="rgb24"), "yuv420p")))

    def _begin(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise Refused(f"{self.path}: H.264 needs an even height and width, got {height}x{width} px")
        self.stream = self.container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        self.stream.options = self.options

    def close(self) -> None:
        """Write what is still held back, and the index without which no player reads the file."""
        if self.stream is not None:
            self.container.mux(self.stream.encode())
        self.container.close()


def write_mp4(
    path: str | os.PathLike, frames: Tensor | np.ndarray, fps: float, crf: int = 12, reproducible: bool = False
) -> None:
    """Write uint8 [t h w 3] as H.264 at `fps` frames a second, whole or not at all; crf 12 looks lossless.

    Refused for frames of another type or shape, or of odd height or width. `reproducible`: see `Mp4Writer`.
    """
    pictures = np.ascontiguousarray(frames)
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures):
        raise Refused(f"{path}: frames must be uint8 [t h w 3], got {pictures.dtype} {[*pictures.shape]}")
    height, width = pictures.shape[1:3]
    if height % 2 or width % 2:
        raise Refused(f"{path}: H.264 needs an even height and width, got {height}x{width} px")
    with replacing(path) as part, closing(Mp4Writer(part, fps, crf, reproducible)) as writer:
        writer.add(pictures)
