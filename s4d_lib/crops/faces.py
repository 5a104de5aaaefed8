"""frames → boxes     what a face detector is, and what it answers.

`detectors.py` has those that come with a package or as a file; whoever has another gives an object of this form to
`FaceCropper`. Derived in chapter 02.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from s4d_lib.errors import Refused, require


class Faces(NamedTuple):
    """The faces of one frame, best score first.

    boxes float32 [n 4] as x0 y0 x1 y1, scores [n] in 0 … 1, landmarks [n 5 2]: left eye, right eye, nose, left and
    right mouth corner, nan where a detector does not give one
    """

    boxes: Tensor
    landmarks: Tensor
    scores: Tensor


class Detector(Protocol):
    """What `crops.FaceCropper` needs: a name for records, and frames uint8 [b h w 3] → one `Faces` for each.

    An attribute `sure` may say from which score on a face is surely one; 0.9 if it is absent.
    """

    name: str

    def __call__(self, frames: Tensor) -> list[Faces]: ...


class DetectorMissing(Refused):
    """A detector cannot be used because a package or its model file is not there; the message says what to install."""


def require_package(package: str, extra: str) -> None:
    """DetectorMissing, with what to install, where a package is not there."""
    require(package, extra, "face detection", DetectorMissing)


def from_size_on(min_face: float | None) -> str:
    """The smallest face that is looked for, as a part of a detector's name in records."""
    return "" if min_face is None else f", faces from {min_face:g} px"


def best_first(boxes: Tensor, landmarks: Tensor, scores: Tensor, smallest: float) -> Faces:
    """Best score first, without the faces whose longer side is below `smallest` px."""
    order = scores.argsort(descending=True, stable=True)
    order = order[(boxes[order, 2:] - boxes[order, :2]).amax(1) >= smallest]
    return Faces(boxes[order], landmarks[order], scores[order].clamp(0, 1))
