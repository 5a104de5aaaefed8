"""frames → points, features     MediaPipe's face mesh, a landmark network that has seen photographs, as an eye for S2D.

    mesh = FaceMesh()                    # the file that `s4d fetch face_mesh` got, run by LiteRT
    points, seen = mesh.points(frames)   # normalised frames [n 3 h w] → [n 468 2], and how sure it is of a face [n]
    model.use_landmarks(mesh)            # S2D's prompter gets features [n 128 14 14], made of the points

The network (Kartynnik et al., arXiv 1907.06724) wants a face that was cut out with some room around it, upright, as
`crops.FaceCropper` cuts it. It is not ours and was not trained here: `weights/wheels.py` says whose it is and on which
terms.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s4d_lib.clips import denormalise
from s4d_lib.errors import Refused, require
from s4d_lib.weights.wheels import FACE_MESH, WHEELS, kept

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

EDGE, POINTS, GRID = 192, 468, 14
# Points of the mesh that lie on contours, by part; left and right are those of the picture. Together as many as S2D
# reads channels: 128.
PARTS = {
    "lips": (0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270,
             291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415),
    "left eye": (7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246),
    "right eye": (249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466),
    "left brow": (46, 52, 53, 55, 63, 65, 66, 70, 105, 107),
    "right brow": (276, 282, 283, 285, 293, 295, 296, 300, 334, 336),
    "outline": (10, 21, 54, 58, 67, 93, 103, 109, 127, 132, 136, 148, 149, 150, 152, 162, 172, 176, 234, 251, 284, 288,
                297, 323, 332, 338, 356, 361, 365, 377, 378, 379, 389, 397, 400, 454),
}
CONTOURS = tuple(point for part in PARTS.values() for point in part)
SPREAD = 1.0    # places of the grid: a point between two of them is told by both
HEIGHT = 27.0   # so that a map is about as loud as one of the shipped network on drawn faces (root mean square 3.5)
SEEN = 0.5      # below, no face is taken to be there and the maps are empty


class FaceMesh:
    """Normalised frames `[n 3 h w]` → features `[n 128 14 14]`: for each point on a contour a bell where it lies.

    Frames of any size are squared to 192 px by resizing, as the prompter's own network does with 112. It holds a path
    and no weights, so that it can be copied and sent to other processes with the model. Refused where the file was not
    fetched, and where the package ai-edge-litert is absent.
    """

    def __init__(self) -> None:
        require("ai_edge_litert", "photographs", "MediaPipe's face mesh")
        self.path = kept(WHEELS[FACE_MESH])

    def __call__(self, frames: Tensor) -> Tensor:
        """Normalised frames `[n 3 h w]` → features `[n 128 14 14]`; 0 everywhere where no face is seen."""
        points, seen = self._ask(frames)
        return (bells(points[:, list(CONTOURS)]) * (seen >= SEEN).view(-1, 1, 1, 1)).to(frames)

    def points(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised frames `[n 3 h w]` → x and y of 468 points `[n 468 2]`, 0 … 1 from the centre of the first pixel
        to that of the last, and the chance that there is a face at all `[n]`. Points may lie outside the picture, and
        where no face is seen they mean nothing."""
        points, seen = self._ask(frames)
        size = torch.tensor([frames.shape[3], frames.shape[2]])
        return (points * size - 0.5) / (size - 1), seen

    def _ask(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Points as shares of the edges of the picture `[n 468 2]`, chance of a face `[n]`; on the CPU."""
        if frames.ndim != 4 or frames.shape[1] != 3:
            raise ValueError(f"the face mesh reads frames [n 3 h w], got shape {list(frames.shape)}; fold the time of "
                             "a clip into the batch")
        run = _interpreter(self.path)
        (wanted,), (where, whether) = run.get_input_details(), run.get_output_details()
        pictures = F.interpolate(denormalise(frames.detach().cpu().float()), (EDGE, EDGE), mode="bilinear",
                                 antialias=True).clamp(0, 1)
        points, seen = [], []
        for picture in pictures.permute(0, 2, 3, 1).contiguous().numpy():
            run.set_tensor(wanted["index"], picture[None])
            run.invoke()
            points.append(run.get_tensor(where["index"]).reshape(POINTS, 3)[:, :2] / EDGE)
            seen.append(float(run.get_tensor(whether["index"]).item()))
        found = np.stack(points) if points else np.zeros((0, POINTS, 2), np.float32)
        return torch.from_numpy(found).float(), torch.tensor(seen).sigmoid()


def bells(points: Tensor) -> Tensor:
    """Points `[n c 2]` as shares of the edges → maps `[n c 14 14]`, each highest where its point lies."""
    centres = (torch.arange(GRID) + 0.5) / GRID
    across, down = (torch.exp(-((centres - points[..., axis, None]) * GRID / SPREAD) ** 2 / 2) for axis in (0, 1))
    return HEIGHT * down[..., :, None] * across[..., None, :]


@lru_cache(maxsize=1)
def _interpreter(path: Path) -> Interpreter:
    """The network of a file, once a process."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        run = Interpreter(model_path=str(path), num_threads=1)
        run.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise Refused(f"{path}: LiteRT cannot run it ({error}); remove it and say `s4d fetch face_mesh`") from error
    sizes = [detail["shape"].prod() for detail in (*run.get_input_details(), *run.get_output_details())]
    if sizes != [EDGE * EDGE * 3, POINTS * 3, 1]:
        raise Refused(f"{path}: holds another network than the face mesh; remove it and say `s4d fetch face_mesh`")
    return run
