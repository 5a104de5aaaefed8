"""decoded picture → [h w 3]     how a picture is to be shown: upright, its pixels square, in red, green and blue.

The only place where rotation, mirroring, pixel aspect, colour range and depth are dealt with, for films and for picture
files, for training and for prediction alike; what was done, and what was left as it is, is said in remarks.

Derived in chapter 02.
"""

from __future__ import annotations

import importlib.util
import struct
import warnings
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.frames.endings import HEIC_SUFFIXES, PICTURE_FORMATS

if TYPE_CHECKING:
    import av
    import PIL.Image

MOST_PIXELS = 1 << 27  # of one picture: 400 MB as bytes; a few bytes of a file can announce any size


def require_bearable(width: int, height: int) -> None:
    """Refused for a picture too large to be held, before it is decoded."""
    if width * height > MOST_PIXELS:
        raise Refused(f"its pictures are {width}x{height} px, and more than {MOST_PIXELS // 10**6} million pixels are "
                      "not read; make it smaller first")


# ------------------------------------------------------------------------------------------- pictures of films


def aspect_of(stream: av.VideoStream) -> Fraction:
    """Width of a pixel over its height; 1 where the file says nothing, nearly that, or nonsense."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 0.1 < aspect < 10 and abs(aspect - 1) > 0.02 else Fraction(1)


def shown(frame: av.VideoFrame, aspect: Fraction = Fraction(1)) -> np.ndarray:
    """A PyAV frame as uint8 [h w 3]: its pixels made square, then turned by quarters and mirrored as the recording
    says it should be shown.
    """
    width = None if aspect == 1 else max(1, round(frame.width * aspect))
    picture = reformat(frame, "rgb24", width).to_ndarray()
    a, b, c, d = display_matrix(frame)  # a pixel (x, y) goes to (a x + c y, b x + d y)
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d of a frame's display matrix; (1, 0, 0, 1) where it has none."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    return a, b, c, d


def reformat(frame: av.VideoFrame, pixels: str, width: int | None = None) -> av.VideoFrame:
    """The frame in another pixel format or width, by one thread: by default PyAV starts a pool of threads for every
    frame, which took some sixty times longer for small ones. An older PyAV knows no `threads`, and is merely slower.
    """
    try:
        return frame.reformat(width=width, format=pixels, threads=1)
    except TypeError:
        return frame.reformat(width=width, format=pixels)


def remarks(frame: av.VideoFrame, aspect: Fraction) -> list[str]:
    """What a reader of a film should know about its pictures, by the first of them."""
    said = []
    if aspect != 1:
        said.append(f"its pixels are not square ({aspect.numerator}:{aspect.denominator}), pictures are stretched to "
                    "what a player shows")
    if frame.interlaced_frame:
        said.append("interlaced, and read as it is: movements show combs")
    if frame.color_trc in (16, 18):  # SMPTE 2084 and HLG
        said.append("high dynamic range, shown without tone mapping: paler than a player shows it")
    return said


# --------------------------------------------------------------------------------------------- picture files


def open_picture(file: Path | str | object) -> PIL.Image.Image:
    """A picture file (or bytes of one), opened by Pillow and not decoded yet. Refused for one of another format than
    `PICTURE_FORMATS`, or too large; OSError as Pillow and `open` raise it.
    """
    import PIL.Image

    _learn_heic()
    with warnings.catch_warnings():  # our own bound holds for every format
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        image = PIL.Image.open(file, formats=[name for name in PICTURE_FORMATS if name in _known()])
    try:
        require_bearable(*image.size)
    except Refused:
        image.close()
        raise
    return image


def _known() -> set[str]:
    import PIL.Image

    PIL.Image.init()
    return set(PIL.Image.OPEN)


def _learn_heic() -> None:
    """Let Pillow read HEIC where the package for it is installed."""
    import PIL.Image

    if "HEIF" not in PIL.Image.OPEN and importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()


def read_image(path: Path) -> np.ndarray:
    """One picture as uint8 [h w 3]; a camera's orientation tag is applied, transparency dropped.

    `path` may also be an open file with a `name`. Refused where it is no picture that can be read.
    """
    import PIL.Image
    import PIL.ImageOps

    try:
        with open_picture(path) as image:
            picture = PIL.ImageOps.exif_transpose(image)
            if picture.mode == "I" or picture.mode.startswith("I;16"):  # grey of 16 bits, which convert() clips
                picture = PIL.Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
            if "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return np.array(picture.convert("RGB"))
    except PIL.UnidentifiedImageError as error:
        raise Refused(f"{path.name} {unknown_picture(path)}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever its decoder came upon (PNG: SyntaxError, TIFF: any)
        raise Refused(f"{path.name} is not a readable image ({error})") from error


def unknown_picture(path: Path) -> str:
    """Why Pillow does not know a picture, as the end of a sentence about it."""
    if str(getattr(path, "name", path)).lower().endswith(HEIC_SUFFIXES) and not importlib.util.find_spec("pillow_heif"):
        return "is a HEIC picture; pip install 's4d-book[heic]' reads them, or save it as JPEG"
    return f"is not a readable image (its bytes are none of {', '.join(PICTURE_FORMATS)})"
