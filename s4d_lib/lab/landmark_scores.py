"""points → errors     how far found landmarks lie from true ones: by region and by turn of the head, beside floors.

Distances count in percent of the distance between the outer corners of the eyes (normalised mean error, NME). Two
floors see the same faces: the mean face, which looks at nothing, and a ridge regression from pixels. Derived in
chapter 11.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from s4d_lib.clips import normalise
from s4d_lib.metrics.resampling import picks
from s4d_lib.metrics.scores import percentile_interval
from s4d_lib.models.landmark_net import POINTS, to_landmark_size
from s4d_lib.synthetic_faces.drawing import STILL_CHUNK
from s4d_lib.synthetic_faces.landmark_faces import REGIONS

YAW_EDGES = (0, 5, 10, 20, 31)  # degrees away from the camera; the laboratory turns no head further than 30
ALPHAS = (10.0, 100.0, 1e3, 1e4, 1e5)  # ridge penalties to choose from, on standardised pixels
RIDGE_PIXELS = 28


class Located(NamedTuple):
    """Found and true points `[n 68 2]` in picture units, and how far each head is turned, radians `[n]`."""

    found: Tensor
    true: Tensor
    yaw: Tensor


def point_errors(found: Tensor, true: Tensor, norm: str = "interocular") -> Tensor:
    """Distance of every point from its place `[n 68]`, as a share of the size of its face.

    found, true   `[n 68 2]` in any unit that both axes share
    norm          "interocular": between the outer corners of the eyes (300-W, Sagonas et al. 2016);
                  "box": √(width · height) of the true points, which a turned head does not shrink as much
    """
    if found.shape != true.shape or true.shape[1:] != (POINTS, 2):
        raise ValueError(f"points must both be [n {POINTS} 2], got {list(found.shape)} and {list(true.shape)}")
    if norm == "interocular":
        size = (true[:, 36] - true[:, 45]).norm(dim=-1)
    elif norm == "box":
        size = (true.amax(1) - true.amin(1)).prod(-1).sqrt()
    else:
        raise ValueError(f"norm is {norm!r}; choose interocular or box")
    return (found - true).norm(dim=-1) / size[:, None]


def normalised_mean_error(found: Tensor, true: Tensor, norm: str = "interocular") -> dict[str, float]:
    """Mean of `point_errors` in percent: over all points ("all") and over each of `REGIONS`."""
    errors = 100 * point_errors(found, true, norm)
    return {"all": float(errors.mean())} | {name: float(errors[:, part].mean()) for name, part in REGIONS.items()}


def error_by_yaw(located: Located, norm: str = "interocular") -> list[dict[str, float]]:
    """NME in bins of |yaw| between `YAW_EDGES` degrees: from, to, faces and, where there are any, the error."""
    by_face = 100 * point_errors(located.found, located.true, norm).mean(1)
    turned, rows = located.yaw.abs().rad2deg(), []
    for low, high in zip(YAW_EDGES, YAW_EDGES[1:]):
        inside = (turned >= low) & (turned < high)
        rows.append({"from": low, "to": high, "faces": int(inside.sum()),
                     "nme": float(by_face[inside].mean()) if inside.any() else None})
    return rows


def movements(points: Tensor) -> dict[str, Tensor]:
    """Three distances that expressions change, `[n]` each, in distances of the outer eye corners.

    mouth open: between the inner lips; mouth wide: between its corners; brows up: middle of each brow over its eye.
    """
    size = (points[:, 36] - points[:, 45]).norm(dim=-1)

    def apart(one: slice | int, other: slice | int) -> Tensor:
        first, second = (points[:, part].reshape(len(points), -1, 2).mean(1) for part in (one, other))
        return (first - second).norm(dim=-1) / size

    return {"mouth open": apart(62, 66), "mouth wide": apart(48, 54),
            "brows up": (apart(slice(17, 22), slice(36, 42)) + apart(slice(22, 27), slice(42, 48))) / 2}


def following(located: Located) -> dict[str, dict[str, float | None]]:
    """How found `movements` follow true ones: correlation, and the slope of found over true (1: nothing is damped).

    A small error alone could hide a network that draws everybody's mean face in the right place.
    """
    told = {}
    for name, true in movements(located.true.double()).items():
        found = movements(located.found.double())[name]
        x, y = true - true.mean(), found - found.mean()
        same = float((y**2).sum()) < 1e-12  # the mean face moves nothing
        told[name] = {"correlation": None if same else float((x * y).sum() / (x.norm() * y.norm())),
                      "slope": float((x * y).sum() / (x**2).sum())}
    return told


@torch.inference_mode()
def locate(net: nn.Module, faces: Dataset, batch: int = STILL_CHUNK) -> Located:
    """What a network makes of all faces, on the CPU; `net` ends in evaluation mode."""
    found, true, yaw, device = [], [], [], next(net.eval().parameters()).device
    for items in DataLoader(faces, batch_size=batch):
        x = normalise(items["x"].to(device).float() / 255)
        found.append(net(x).unflatten(1, (POINTS, 2)).float().cpu())
        true.append(items["points"])
        yaw.append(items["yaw"])
    return Located(torch.cat(found), torch.cat(true), torch.cat(yaw))


def report(located: Located, draws: int = 1000) -> dict:
    """NME by region and by yaw, a 95 % bootstrap interval over faces, the share of faces above 8 %, the first faces."""
    by_face = 100 * point_errors(located.found, located.true).mean(1).double().numpy()
    drawn = by_face[picks(len(by_face), draws, np.random.default_rng(0))].mean(1)
    interval = percentile_interval(by_face.mean(), drawn)
    return {"nme": normalised_mean_error(located.found, located.true), "low": interval.low, "high": interval.high,
            "above_8_percent": float((by_face > 8).mean()), "faces": len(by_face), "by_yaw": error_by_yaw(located),
            "nme_of_box": normalised_mean_error(located.found, located.true, "box")["all"],
            "following": following(located),
            "first_faces": [round(float(value), 3) for value in by_face[:12]]}


# --- floors ----------------------------------------------------------------------------------------------------------


def floor_points(train: Dataset, validation: Dataset, test: Dataset) -> dict[str, Located]:
    """What the mean face and a ridge on pixels say about `test`: {"mean_face", "pixel_ridge"} → Located.

    The ridge reads standardised grey pixels, `RIDGE_PIXELS` a side; its penalty is chosen on `validation`.
    """
    sets = {name: _pixels(faces) for name, faces in
            (("train", train), ("validation", validation), ("test", test))}
    x, points, _ = sets["train"]
    mean_face = points.mean(0)
    spread, centre = x.std(0) + 1e-3, x.mean(0)
    values, vectors = torch.linalg.eigh((scaled := (x - centre) / spread).mT @ scaled)
    projected = vectors.mT @ (scaled.mT @ (points - mean_face))
    best, best_error = None, float("inf")
    for alpha in ALPHAS:
        weights = vectors @ (projected / (values.clamp_min(0)[:, None] + alpha))

        def read(name: str, weights: Tensor = weights) -> Tensor:
            return ((sets[name][0] - centre) / spread @ weights + mean_face).float().unflatten(1, (POINTS, 2))

        error = normalised_mean_error(read("validation"), sets["validation"][1].float().unflatten(1, (POINTS, 2)))
        if error["all"] < best_error:
            best, best_error = read("test"), error["all"]
    _, flat, yaw = sets["test"]
    true = flat.float().unflatten(1, (POINTS, 2))
    same = mean_face.float().unflatten(0, (POINTS, 2)).expand_as(true)
    return {"mean_face": Located(same, true, yaw), "pixel_ridge": Located(best, true, yaw)}


def _pixels(faces: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Grey pixels `[n p]`, points `[n 136]` (both float64) and yaw `[n]` of all faces."""
    pixels, points, yaw = [], [], []
    for items in DataLoader(faces, batch_size=STILL_CHUNK):
        grey = to_landmark_size(items["x"].float() / 255).mean(1, keepdim=True)
        pixels.append(F.adaptive_avg_pool2d(grey, RIDGE_PIXELS).flatten(1).double())
        points.append(items["points"].flatten(1).double())
        yaw.append(items["yaw"])
    return torch.cat(pixels), torch.cat(points), torch.cat(yaw)
