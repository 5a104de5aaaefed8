"""landmarks → square → pixels     where a face is cut out, and the cutting.

A face is cut as a square of the frame that may be turned: centre x, centre y, edge in pixels, clockwise turn in
radians. With align="eyes" and margin m, the eyes come to lie at

    x = 0.5 ∓ 0.19 / (1 + m)        y = 0.5 − 0.13 / (1 + m)        as shares of the edge, from the left and upper edge

so both are level, 0.38 / (1 + m) apart, and a margin of 0 cuts about where an upright box ends. Margin 0.3 frames a
face about as the drawn faces of this book are framed. Share f of an edge of n pixels is pixel f·n − 0.5: coordinates
are (x, y) with pixel centres at whole numbers, boxes are x0 y0 x1 y1.

Derived in chapter 02.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ALIGN = ("eyes", "points", "box")
EYES_APART, EYES_ABOVE = 0.38, 0.13     # of the edge at margin 0: measured on boxes of the default detector
# Five points at margin 0, shares of the edge: round numbers between those of photographs and of drawn faces.
FIVE_POINTS = np.array([[0.31, 0.37], [0.69, 0.37], [0.5, 0.60], [0.345, 0.76], [0.655, 0.76]])
PROFILE = 0.7       # in profile the eyes close up; the scale never goes below this share of what the box says
FINEST = 8          # samples along an output pixel, at most


def eye_places(margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where align="eyes" puts the left and the right eye: (x, y) as shares of the edge."""
    apart, y = EYES_APART / 2 / (1 + margin), 0.5 - EYES_ABOVE / (1 + margin)
    return (0.5 - apart, y), (0.5 + apart, y)


def square_of(box: np.ndarray, points: np.ndarray, align: str = "eyes",
              margin: float = 0.3) -> tuple[float, float, float, float]:
    """The square to cut for a box [4] and landmarks [5 2]: centre x, centre y, edge, clockwise turn.

    Where the landmarks that `align` needs are nan, fewer of them decide: eyes instead of points, the box instead of
    eyes. In a face turned so far that its eyes close up, the box sets the scale and the eyes lie closer together.
    """
    centre, longer = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max())
    turn = 0.0
    if align == "points" and np.isfinite(points).all():
        centre, longer, turn = _fit(points)
    elif align != "box" and np.isfinite(points[:2]).all():
        across = points[1] - points[0]
        turn = math.atan2(across[1], across[0])
        longer = max(float(np.hypot(*across)) / EYES_APART, PROFILE * longer)
        centre = points[:2].mean(0) + EYES_ABOVE * longer * np.array([-math.sin(turn), math.cos(turn)])
    return float(centre[0]), float(centre[1]), max(longer * (1 + margin), 1.0), turn


def _fit(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Centre, edge and turn of the square in which five points lie closest to FIVE_POINTS (least squares; as complex
    numbers a similarity is one product)."""
    model, seen = (p[:, 0] + 1j * p[:, 1] for p in (FIVE_POINTS, points))
    offset = model - model.mean()
    ratio = (offset.conj() * (seen - seen.mean())).sum() / (offset.conj() * offset).real.sum()
    middle = seen.mean() + ratio * (0.5 + 0.5j - model.mean())
    return np.array([middle.real, middle.imag]), float(abs(ratio)), float(np.angle(ratio))


def whole_square(height: int, width: int) -> tuple[float, float, float, float]:
    """The largest upright square in the middle of a frame."""
    return (width - 1) / 2, (height - 1) / 2, float(min(height, width)), 0.0


def to_crop(points: Tensor, squares: Tensor, size: int) -> Tensor:
    """Points [... k 2] in pixels of frames → pixels of the crops cut there; squares [... 4]."""
    x, y, edge, turn = squares.unsqueeze(-2).unbind(-1)
    right, down = points[..., 0] - x, points[..., 1] - y
    along = torch.stack([turn.cos() * right + turn.sin() * down, turn.cos() * down - turn.sin() * right], -1)
    return (along / edge[..., None] + 0.5) * size - 0.5


def cut_square(frame: Tensor, square: tuple[float, float, float, float], size: int) -> Tensor:
    """A frame uint8 [h w 3] at a square (centre x, centre y, edge, clockwise turn) → uint8 [size size 3].

    Bilinear; where the square is larger than the crop, each pixel is the mean of several samples, so that no detail
    is skipped. Beyond the frame its outermost pixels go on.
    """
    x, y, edge, turn = square
    fine = min(FINEST, max(1, math.ceil(edge / size - 1e-6)))
    at = ((torch.arange(size * fine) + 0.5) / (size * fine) - 0.5) * edge
    across, down = at[None, :], at[:, None]
    px = x + math.cos(turn) * across - math.sin(turn) * down
    py = y + math.sin(turn) * across + math.cos(turn) * down
    (x0, x1), (y0, y1) = (_within(p, length) for p, length in ((px, frame.shape[1]), (py, frame.shape[0])))
    part = frame[y0:y1, x0:x1].movedim(2, 0)[None].float()
    grid = torch.stack([(px - x0) / max(x1 - x0 - 1, 1), (py - y0) / max(y1 - y0 - 1, 1)], -1) * 2 - 1
    picture = F.grid_sample(part, grid[None], padding_mode="border", align_corners=True)
    return F.avg_pool2d(picture, fine)[0].movedim(0, 2).round().to(torch.uint8)


def _within(at: Tensor, length: int) -> tuple[int, int]:
    """The stretch of pixels that positions along one axis need."""
    low = min(max(math.floor(float(at.min())), 0), length - 1)
    return low, max(min(math.ceil(float(at.max())) + 1, length), low + 1)
