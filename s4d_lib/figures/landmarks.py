"""landmarks → figure     points on faces, errors by region, what the prompter is handed.

Numbers come from the record `landmark_net`; palette and frame are those of base.py. Derived in chapter 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from s4d_lib.errors import Refused
from s4d_lib.figures.base import PALETTE
from s4d_lib.figures.intervals import Look, Row, draw_intervals
from s4d_lib.figures.pictures import sheet
from s4d_lib.synthetic_faces.landmark_faces import REGIONS

if TYPE_CHECKING:
    import plotly.graph_objects as go

# mark of a figure → (key in a condition's "floors", None for the network itself; colour, symbol)
LINES = {"landmark network": (None, "clip", "circle"), "ridge on pixels": ("pixel_ridge", "scratch", "square-open"),
         "mean face": ("mean_face", "floor", "x")}
ABOVE, BELOW = "#5E3C99", "#E66101"  # the ends of PuOr, as in correlation.py


def draw_points(frames: Tensor, found: Tensor, true: Tensor | None = None, labels: Sequence[str] | None = None,
                scale: int = 3, columns: int = 6) -> Image.Image:
    """Faces u8 `[n h w 3]` with found points, and where given true ones, `[n k 2]` in picture units.

    Found: a blue dot. True: a white ring. An orange line joins the two where they lie apart.
    """
    for points in (found, found if true is None else true):
        if points.ndim != 3 or len(points) != len(frames) or points.shape[-1] != 2:
            raise ValueError(f"points must be [{len(frames)} k 2], one set a face, got {list(points.shape)}")
    drawn = []
    for number, frame in enumerate(frames.numpy()):
        height, width = (side * scale for side in frame.shape[:2])
        picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
        here = _pixels(found[number], frame.shape, scale)
        there = here if true is None else _pixels(true[number], frame.shape, scale)
        pen = ImageDraw.Draw(picture)
        for (x, y), (u, v) in zip(here, there):
            pen.line([x, y, u, v], fill=PALETTE["image"], width=2)
            if true is not None:
                pen.ellipse([u - 3, v - 3, u + 3, v + 3], outline="white")
        for x, y in here:
            pen.ellipse([x - 1.6, y - 1.6, x + 1.6, y + 1.6], fill=PALETTE["pretrained"])
        drawn.append(torch.from_numpy(np.array(picture)))
    return sheet(torch.stack(drawn), columns, 1, None if labels is None else list(labels))


def _pixels(points: Tensor, shape: Sequence[int], scale: int) -> list[list[float]]:
    """Picture units → pixels of the enlarged picture, in which a small pixel is a block."""
    size = points.new_tensor([shape[1], shape[0]]) - 1
    return ((points * size + 0.5) * scale - 0.5).tolist()


def draw_region_errors(found: Mapping[str, Any], title: str) -> go.Figure:
    """One condition of the record, such as `results["test"]`: error of each part of the face beside its floors."""
    names = ["all", *REGIONS]
    alt = "Dot plot of the normalised mean error in percent: " + "; ".join(
        f"{line} " + ", ".join(f"{name} {_nme(found, key)[name]:.1f}" for name in names)
        for line, (key, *_) in LINES.items())
    looks = {line: Look({"size": 11, "symbol": symbol, "line": {"width": 2}, "color": PALETTE[colour]})
             for line, (_, colour, symbol) in LINES.items()}
    rows = [Row(name, round(_nme(found, key)[name], 2), group=line) for line, (key, *_) in LINES.items()
            for name in names]
    figure = draw_intervals(rows, title, "normalised mean error (% of the distance between the outer eye corners)", alt,
                            looks, legend=True, width=720, height=360)
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": -0.22})
    return figure


def _nme(found: Mapping[str, Any], key: str | None) -> Mapping[str, float]:
    return (found if key is None else found["floors"][key])["nme"]


def telling_channels(features: Tensor, count: int) -> list[int]:
    """Of features `[n c gh gw]` of several faces, the channels that differ most between faces, most first."""
    if len(features) < 2:
        raise Refused("channels are told apart by how they differ between faces; give features of at least two")
    spread = (features / features.flatten(2).std(-1).mean(0).clamp_min(1e-6)[:, None, None]).std(0).mean((1, 2))
    return spread.argsort(descending=True, stable=True)[:count].tolist()


def draw_feature_maps(frames: Tensor, features: Tensor, channels: Sequence[int], scale: int = 1) -> Image.Image:
    """Faces u8 `[n h w 3]` down, channels of features `[n c gh gw]` across, painted over the grey face.

    Purple: above the median of the channel over these faces. Orange: below. The strongest hundredth is opaque.
    """
    if features.ndim != 4 or len(features) != len(frames):
        raise ValueError(f"features must be [{len(frames)} c gh gw], one map a face, got {list(features.shape)}")
    grey = 130 + 0.45 * frames.float().mean(-1, keepdim=True).expand(-1, -1, -1, 3)  # pale, or colours drown in it
    signed = features[:, list(channels)].float()
    signed = signed - signed.transpose(0, 1).flatten(1).median(1).values[:, None, None]
    sizes = signed.abs().transpose(0, 1).flatten(1)
    full = torch.maximum(sizes.quantile(0.99, dim=1), sizes.amax(1) / 4)
    signed = signed / full.clamp_min(1e-12)[:, None, None]
    signed = F.interpolate(signed, tuple(frames.shape[1:3]), mode="bilinear", align_corners=True)
    above, below = (torch.tensor(ImageColor.getrgb(colour), dtype=torch.float32) for colour in (ABOVE, BELOW))
    cells = []
    for face in range(len(frames)):
        cells.append(frames[face])
        for value in signed[face]:
            colour = torch.where((value > 0)[..., None], above, below)
            painted = torch.lerp(grey[face], colour, value.abs().clamp(0, 1)[..., None])
            cells.append(painted.round().to(torch.uint8))
    labels = ["", *(f"channel {c}" for c in channels)] + [""] * (len(cells) - len(channels) - 1)
    return sheet(torch.stack(cells), len(channels) + 1, scale, labels)
