"""frames → picture     filmstrips, masks, tubelet grids and landmarks, drawn with Pillow.

Each function takes frames u8 [t h w 3] (RGB). Those that paint on them return frames and those that lay them out return
a picture, so they chain: hide, rule, lay out. Pictures have 256 colours: a third of the bytes in a committed notebook,
and no difference to the eye. Derived in chapters 01, 03 and 04.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange, repeat
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from s4d_lib.clips import denormalise, spread_indices
from s4d_lib.figures.base import PALETTE
from s4d_lib.layers.tokens import Grid


def to_frames(x: Tensor) -> Tensor:
    """What a model reads, back as pictures: normalised `[3 t h w]` or `[3 h w]` → u8 `[t h w 3]`."""
    if x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim != 4:
        raise ValueError(f"expected [3 h w] or [3 t h w], got {list(x.shape)}; index the batch first")
    return rearrange((denormalise(x, axis=0).clamp(0, 1) * 255).round().to(torch.uint8), "c t h w -> t h w c")


def contact_sheet(frames: Tensor, columns: int = 8, scale: int = 1, labels: list[str] | None = None) -> Image.Image:
    """Frames u8 [n h w 3] side by side, enlarged `scale` times, each under its label."""
    count, height, width, _ = frames.shape
    head = 12 if labels else 0
    cell_w, cell_h = width * scale + 2, height * scale + head + 2
    sheet = Image.new("RGB", (min(columns, count) * cell_w, -(-count // columns) * cell_h), "white")
    pen = ImageDraw.Draw(sheet)
    for number, frame in enumerate(frames.numpy()):
        x, y = number % columns * cell_w, number // columns * cell_h
        picture = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        sheet.paste(picture, (x, y + head))
        if labels:
            pen.text((x + 1, y), labels[number], fill="black")
    return sheet


def sheet(frames: Tensor, columns: int = 8, scale: int = 1, labels: list[str] | None = None) -> Image.Image:
    """Frames in rows of `columns`, enlarged `scale` times, each under its label."""
    return contact_sheet(frames, columns, scale, labels).quantize(256)


def filmstrip(frames: Tensor, count: int = 8, scale: int = 2, fps: float | None = None) -> Image.Image:
    """A clip from left to right: `count` frames from first to last, under their times if `fps` is known."""
    shown = spread_indices(len(frames), count)
    labels = [f"{i / fps:.2f} s" for i in shown] if fps else None
    return sheet(frames[shown], columns=len(shown), scale=scale, labels=labels)


def stack(rows: dict[str, Image.Image]) -> Image.Image:
    """Pictures below each other, each under its name, left edges in line."""
    head = 14
    width = max(picture.width for picture in rows.values())
    page = Image.new("RGB", (width, sum(picture.height + head for picture in rows.values())), "white")
    pen, y = ImageDraw.Draw(page), 0
    for name, picture in rows.items():
        pen.text((1, y + 1), name, fill=PALETTE["visible"])
        page.paste(picture, (0, y + head))
        y += picture.height + head
    return page.quantize(256)


def hide_tubelets(frames: Tensor, mask: Tensor, grid: Grid) -> Tensor:
    """Hidden tubelets painted grey: frames `[t h w 3]`, mask bool `[n]`, True = hidden, in token order.

    `grid` counts tokens along time, height and width; it must divide the frames. ValueError otherwise.
    """
    u, p, q = _tubelet(frames, grid)
    if mask.shape != (grid[0] * grid[1] * grid[2],):
        raise ValueError(f"a grid of {grid} needs one mask value a token, the mask is {list(mask.shape)}")
    hidden = repeat(mask.view(grid), "t h w -> (t u) (h p) (w q) 1", u=u, p=p, q=q)
    return torch.where(hidden, _colour("hidden"), frames)


def rule_tubelets(frames: Tensor, grid: Grid, scale: int = 4, chosen: tuple[int, int, int] | None = None) -> Tensor:
    """Frames enlarged `scale` times with the borders of the tubelets on them.

    `chosen` (time slot, row, column) gets a thick frame in the colour of clips, in each of its frames.
    """
    u, p, q = _tubelet(frames, grid)
    ruled = []
    for number, frame in enumerate(frames.numpy()):
        picture = _enlarged(frame, scale, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(picture)
        for row in range(1, grid[1]):
            pen.line([(0, row * p * scale), (picture.width, row * p * scale)], fill="white")
        for column in range(1, grid[2]):
            pen.line([(column * q * scale, 0), (column * q * scale, picture.height)], fill="white")
        if chosen and number // u == chosen[0]:
            x, y = chosen[2] * q * scale, chosen[1] * p * scale
            pen.rectangle([x, y, x + q * scale, y + p * scale], outline=PALETTE["clip"], width=3)
        ruled.append(np.asarray(picture))
    return torch.from_numpy(np.stack(ruled))


def mark_landmarks(frames: Tensor, landmarks: Tensor, scale: int = 4) -> Tensor:
    """Frames enlarged `scale` times with a dot on each landmark `[t k 2]`, (x, y) in pixels of the small frame."""
    if landmarks.shape[0] != len(frames) or landmarks.shape[-1] != 2:
        raise ValueError(f"landmarks must be [{len(frames)} k 2], one set a frame, got {list(landmarks.shape)}")
    marked = []
    for frame, points in zip(frames.numpy(), landmarks.tolist()):
        picture = _enlarged(frame, scale, Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for x, y in points:
            # Whole numbers name centres of small pixels, each of which is now a block of scale × scale.
            x, y = (x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5
            pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill=PALETTE["pretrained"])
        marked.append(np.asarray(picture))
    return torch.from_numpy(np.stack(marked))


def _tubelet(frames: Tensor, grid: Grid) -> tuple[int, int, int]:
    """Frames, rows and columns of one tubelet."""
    if any(length % cells for length, cells in zip(frames.shape[:3], grid)):
        raise ValueError(f"frames {list(frames.shape)} cannot be cut into {grid} tubelets (time, height, width)")
    return tuple(length // cells for length, cells in zip(frames.shape[:3], grid))


def _enlarged(frame: np.ndarray, scale: int, how: Image.Resampling) -> Image.Image:
    return Image.fromarray(frame).resize((frame.shape[1] * scale, frame.shape[0] * scale), how)


def _colour(name: str) -> Tensor:
    return torch.tensor(ImageColor.getrgb(PALETTE[name]), dtype=torch.uint8)
