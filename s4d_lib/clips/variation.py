"""frames → varied clip     a recipe applied to the frames of one clip, every drawn number shared by all of them.

    frames uint8 [t h w 3]  →  augment  →  clip float32 [3 t size size], ImageNet-normalised RGB

Derived in chapter 02.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from s4d_lib.clips.chances import CHANCES, Drawn, draw, window_box
from s4d_lib.clips.generators import borrowed_generators
from s4d_lib.clips.recipes import AugmentRecipe
from s4d_lib.clips.value_range import per_channel


def augment(frames: Tensor, recipe: AugmentRecipe, size: int, rng: np.random.Generator) -> Tensor:
    """Vary frames uint8 [t h w 3] by `recipe` into one clip float32 [3 t size size], ImageNet-normalised.

    The released loader crops normalised floats without antialiasing; this crops bytes with it, which
    differs by rounding when enlarging and is cleaner when shrinking. ValueError for frames of another type
    or shape.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.numel():
        raise ValueError(f"frames must be uint8 [t h w 3], got {frames.dtype} {list(frames.shape)}")
    return vary(frames, recipe, size, draw(recipe, *frames.shape[1:3], size, rng.random((1, CHANCES))))


def vary(frames: Tensor, recipe: AugmentRecipe, size: int, drawn: Drawn, number: int = 0) -> Tensor:
    """`augment` as it was drawn for clip `number`."""
    x = rearrange(frames, "t h w c -> t c h w")
    seed, of_noise = drawn.seeds[number].tolist()
    if recipe.window:
        top, left, height, width = window_box(recipe.window, *x.shape[-2:])
        x = x[..., top : top + height, left : left + width]
    x = _resample(x, list(drawn.edges), recipe.interpolation)
    if recipe.randaugment and not recipe.randaugment_last:
        x = _rand_augment(x, recipe.randaugment, np.random.default_rng(seed))
    x = _resample(_cut(x, *drawn.box[number].tolist()), [size, size], recipe.interpolation)
    if drawn.flip[number]:
        x = x.flip(-1)
    if recipe.randaugment and recipe.randaugment_last:
        x = _rand_augment(x, recipe.randaugment, np.random.default_rng(seed))
    x = rearrange(x, "t c h w -> c t h w").to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    hole = hole_of(drawn, number)
    if recipe.erase_mode == "black":
        x[hole] = 0.0
    x = _normalise_bytes_(x)
    if recipe.erase_mode == "noise":
        x[hole] = noise(x[hole].shape, of_noise)
    return x


def hole_of(drawn: Drawn, number: int) -> tuple:
    """What is erased of clip `number`, as an index into `[3 t h w]`."""
    top, left, height, width = drawn.hole[number].tolist()
    return ..., slice(top, top + height), slice(left, left + width)


def noise(shape: torch.Size, seed: int) -> Tensor:
    """Normal noise float32 that only its seed decides."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(shape), dtype=np.float32))


def _normalise_bytes_(x: Tensor) -> Tensor:
    """`normalise(x / 255, axis=0)` in place, in two passes over the memory instead of four."""
    mean, std = per_channel(x, 0)
    return x.sub_(mean * 255).div_(std * 255)


def _resample(x: Tensor, target: list[int], interpolation: str) -> Tensor:
    if list(x.shape[-2:]) == target:
        return x
    from torchvision.transforms.v2 import InterpolationMode, functional

    return functional.resize(x, target, InterpolationMode(interpolation), antialias=True)


def _cut(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A box of the picture; where it leaves the picture, the nearest pixel is repeated."""
    inside = top >= 0 and left >= 0 and top + height <= x.shape[-2] and left + width <= x.shape[-1]
    if inside:
        return x[..., top : top + height, left : left + width]
    rows = torch.arange(top, top + height).clamp_(0, x.shape[-2] - 1)
    columns = torch.arange(left, left + width).clamp_(0, x.shape[-1] - 1)
    return x.index_select(-2, rows).index_select(-1, columns)


def _rand_augment(x: Tensor, notation: str, rng: np.random.Generator) -> Tensor:
    """timm's RandAugment on every frame; restarting its generators gives each frame the same operations."""
    from PIL import Image

    operations = _rand_augment_operations(notation)
    frames = []
    with borrowed_generators(rng) as restart:
        for picture in rearrange(x, "t c h w -> t h w c").numpy():
            restart()
            frames.append(np.asarray(operations(Image.fromarray(picture))))
    return rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> t c h w")


@lru_cache
def _rand_augment_operations(notation: str):
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(notation, {"interpolation": Image.Resampling.BICUBIC})
