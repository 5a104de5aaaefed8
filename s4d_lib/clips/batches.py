"""frames in memory → varied clips     a recipe applied to many clips at once, as `vary` would do it one by one.

Cropping, resizing and flipping are linear maps of rows and of columns. Where no pixel is resampled they only choose
rows and columns, and the clips equal those of `vary` to the bit; else they are two products with a matrix a clip, and
differ from torchvision's arithmetic on bytes by its rounding (at most 3 of 255). Derived in chapter 02.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from s4d_lib.clips.chances import Drawn, window_box
from s4d_lib.clips.recipes import AugmentRecipe
from s4d_lib.clips.value_range import IMAGENET_MEAN, IMAGENET_STD
from s4d_lib.clips.variation import hole_of, noise, vary


def vary_many(frames: Tensor, numbers: np.ndarray, recipe: AugmentRecipe, size: int, drawn: Drawn) -> Tensor:
    """Frames uint8 `[n c h w]` (c 3, or 1 where all channels are equal) and `numbers` `[b t]` of those that make each
    clip → clips float32 `[b 3 t size size]`, ImageNet-normalised, clip i varied as number i of `drawn`.

    RandAugment works on one picture after another, and so do clips of a recipe that has it.
    """
    if recipe.randaugment:
        films = (frames[torch.from_numpy(row)].permute(0, 2, 3, 1).expand(-1, -1, -1, 3) for row in numbers)
        return torch.stack([vary(film, recipe, size, drawn, i) for i, film in enumerate(films)])
    box = window_box(recipe.window, *frames.shape[-2:]) if recipe.window else (0, 0, *frames.shape[-2:])
    kept = drawn.edges == box[2:] and (drawn.box[:, 2:] == size).all()
    x = (_chosen if kept else _resampled)(frames, numbers, recipe, size, drawn, box)
    return _finished(x, recipe, drawn)


def _chosen(frames: Tensor, numbers: np.ndarray, recipe: AugmentRecipe, size: int, drawn: Drawn,
            window: tuple[int, int, int, int]) -> Tensor:
    """Clips uint8 `[b t c size size]` whose pixels are rows and columns of the frames as they are."""
    _, channels, h, w = frames.shape
    rows, columns = ((drawn.box[:, axis, None] + np.arange(size)).clip(0, drawn.edges[axis] - 1) + window[axis]
                     for axis in (0, 1))
    columns[drawn.flip] = columns[drawn.flip, ::-1]
    planes = numbers[:, :, None] * channels + np.arange(channels)
    wanted = planes[..., None] * h + rows[:, None, None]
    x = frames.view(-1, w).index_select(0, torch.from_numpy(wanted.reshape(-1))).view(len(numbers), -1, w)
    if w != size or (columns != np.arange(w)).any():
        x = x.gather(2, torch.from_numpy(columns)[:, None].expand(-1, x.shape[1], -1))
    return x.view(*numbers.shape, channels, size, size)


def _resampled(frames: Tensor, numbers: np.ndarray, recipe: AugmentRecipe, size: int, drawn: Drawn,
               window: tuple[int, int, int, int]) -> Tensor:
    """Clips float32 `[b t c size size]`, whole numbers 0 … 255, whose boxes are resized with antialiasing."""
    _, channels, h, w = frames.shape
    x = frames.view(len(frames), -1).index_select(0, torch.from_numpy(numbers.reshape(-1)))
    x = x.view(len(numbers), -1, h, w)
    x = x[..., window[0] : window[0] + window[2], window[1] : window[1] + window[3]].float()
    maps = []
    for axis in (0, 1):
        edge, start, length = drawn.edges[axis], drawn.box[:, axis], drawn.box[:, 2 + axis]
        to_box = _resizing(start, length, size, edge, recipe.interpolation)
        if edge != window[2 + axis]:
            whole = np.array([window[2 + axis]])
            to_box = to_box @ _resizing(0 * whole, whole, edge, window[2 + axis], recipe.interpolation)
        maps.append(to_box)
    flip = torch.from_numpy(drawn.flip)[:, None, None]
    columns = torch.where(flip, maps[1].flip(1), maps[1])
    x = torch.bmm(x.flatten(1, 2), columns.transpose(1, 2)).view(len(numbers), -1, window[2], size)
    x = maps[0][:, None] @ x
    return x.round_().clamp_(0, 255).view(*numbers.shape, channels, size, size)


def _resizing(start: np.ndarray, length: np.ndarray, size: int, edge: int, interpolation: str) -> Tensor:
    """Maps float32 `[b size edge]` from an axis of `edge` pixels to boxes of it `[b]`, resized to `size` pixels.

    As Pillow and PyTorch resize with antialiasing: a triangle, or a cubic (a = -1/2), as wide as an output pixel but
    never narrower than an input pixel, cut off at the box. Where a box leaves the picture, its edge pixel is repeated.
    """
    begin, sides = torch.from_numpy(start)[:, None], torch.from_numpy(length)[:, None, None]
    inside = torch.arange(int(length.max()))
    scale = sides / size
    far = (inside + 0.5 - (torch.arange(size)[:, None] + 0.5) * scale).abs() / scale.clamp_min(1)
    if interpolation == "bilinear":
        weight = (1 - far).clamp_min(0)
    else:
        near, outer = (1.5 * far - 2.5) * far**2 + 1, ((-0.5 * far + 2.5) * far - 4) * far + 2
        weight = torch.where(far < 1, near, torch.where(far < 2, outer, 0.0))
    weight = torch.where(inside < sides, weight, 0.0)
    weight = weight / weight.sum(2, keepdim=True)
    place = (begin + inside).clamp(0, edge - 1)[:, None].expand_as(weight)
    return torch.zeros(len(length), size, edge).scatter_add_(2, place, weight)


def _finished(x: Tensor, recipe: AugmentRecipe, drawn: Drawn) -> Tensor:
    """Clips `[b t c size size]` of values 0 … 255 → normalised `[b 3 t size size]`, with what is erased erased."""
    batch, t, channels, *size = x.shape
    clips = torch.empty(batch, 3, t, *size)
    erased = np.flatnonzero(drawn.hole[:, 2]).tolist()
    if recipe.erase_mode == "black" and erased:
        x = x.clone()
        for i in erased:
            x[i][hole_of(drawn, i)] = 0
    scale = (torch.tensor([IMAGENET_MEAN, IMAGENET_STD]) * 255).T.tolist()  # rounded as `normalise` rounds
    for channel, (mean, std) in enumerate(scale):
        torch.sub(x[:, :, channel if channels == 3 else 0], mean, out=clips[:, channel]).div_(std)
    if recipe.erase_mode == "noise":
        for i in erased:
            hole = clips[i][hole_of(drawn, i)]
            hole.copy_(noise(hole.shape, int(drawn.seeds[i, 1])))
    return clips
