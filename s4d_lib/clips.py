"""frames → clip     which frames, how they vary, and in what range the model sees them.

Three steps, each usable alone: choose positions (`train_indices`, `pretrain_indices`, `centre_indices`,
`test_views`), vary the pictures (`augment`), mix a batch (`MixupCutmix`). Chance comes only from the numpy
generator passed in: the same generator state gives the same clip, and the global generators are left as
they were found.

    frames uint8 [t h w 3]  →  augment  →  clip float32 [3 t size size], ImageNet-normalised RGB

Derived in chapter 02.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from s4d_lib.errors import Refused

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# -------------------------------------------------------------------------------- which frames


def train_indices(n_frames: int, clip_frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Positions of one random training clip (released `ft/datasets/kinetics.py:588-604`).

    A window of clip_frames * stride frames is placed at random and cut into equal steps from its first to
    its last frame, so the step is window / (clip_frames - 1), a little over `stride`. A shorter video is
    read once in steps of about `stride`, then its last frame is held.
    """
    _check_sampling(n_frames, clip_frames, stride)
    window = clip_frames * stride
    if n_frames <= window:
        return _short_clip(n_frames, clip_frames, stride)
    return _window(int(rng.integers(window, n_frames)), clip_frames, stride)


def centre_indices(n_frames: int, clip_frames: int, stride: int) -> list[int]:
    """Positions of the middle training clip: `train_indices` with chance taken out, for validation."""
    _check_sampling(n_frames, clip_frames, stride)
    window = clip_frames * stride
    if n_frames <= window:
        return _short_clip(n_frames, clip_frames, stride)
    return _window(window + (n_frames - window) // 2, clip_frames, stride)


def pretrain_indices(n_frames: int, clip_frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Positions of one pretraining clip, in exact steps (released `pt/data/path_dataset.py:452-487`).

    The start is random; a video shorter than clip_frames * stride starts at 0 and repeats the last position
    that it reaches.
    """
    _check_sampling(n_frames, clip_frames, stride)
    room = n_frames - clip_frames * stride
    start = int(rng.integers(0, room + 1)) if room > 0 else 0
    last = start + (n_frames - 1 - start) // stride * stride
    return [min(start + stride * i, last) for i in range(clip_frames)]


def test_views(n_frames: int, clip_frames: int, stride: int, segments: int = 2) -> list[list[int]]:
    """Positions of the test clips: `segments` windows spread evenly over every stride-th frame.

    Two segments are the first and the last window; one segment is the middle one. Short videos repeat their
    last strided frame, and all their segments are equal.
    """
    _check_sampling(n_frames, clip_frames, stride)
    if segments < 1:
        raise Refused(f"segments must be at least 1, got {segments}")
    strided = list(range(0, n_frames, stride))
    strided += strided[-1:] * (clip_frames - len(strided))
    room = len(strided) - clip_frames
    starts = [room // 2] if segments == 1 else [s * room // (segments - 1) for s in range(segments)]
    return [strided[start : start + clip_frames] for start in starts]


test_views.__test__ = False  # its name makes pytest take it for a test


def _window(end: int, clip_frames: int, stride: int) -> list[int]:
    positions = np.linspace(end - clip_frames * stride, end, num=clip_frames)
    return np.minimum(positions, end - 1).astype(int).tolist()


def _short_clip(n_frames: int, clip_frames: int, stride: int) -> list[int]:
    seen = n_frames // stride
    positions = np.concatenate([np.linspace(0, n_frames, num=seen), np.full(clip_frames - seen, n_frames)])
    return np.minimum(positions, n_frames - 1).astype(int).tolist()


def _check_sampling(n_frames: int, clip_frames: int, stride: int) -> None:
    for name, value in (("n_frames", n_frames), ("clip_frames", clip_frames), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def spread_indices(length: int, count: int) -> list[int]:
    """`count` positions from the first to the last of `length`, as evenly as whole numbers allow."""
    if length < 1 or count < 1:
        raise ValueError(f"length and count must be at least 1, got {length} and {count}")
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()


# -------------------------------------------------------------------------------- value range


def normalise(x: Tensor, axis: int = 1) -> Tensor:
    """Values in [0, 1] to ImageNet-normalised values; `axis` holds the 3 channels ([b 3 ...] by default)."""
    mean, std = _per_channel(x, axis)
    return (x - mean) / std


def denormalise(x: Tensor, axis: int = 1) -> Tensor:
    """The inverse of `normalise`: back to [0, 1], for showing."""
    mean, std = _per_channel(x, axis)
    return x * std + mean


def _per_channel(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    if x.shape[axis] != 3:
        raise ValueError(f"axis {axis} of {list(x.shape)} does not hold 3 channels; name the one that does")
    shape = [1] * x.ndim
    shape[axis] = 3
    return x.new_tensor(IMAGENET_MEAN).view(shape), x.new_tensor(IMAGENET_STD).view(shape)


# -------------------------------------------------------------------------------- variation


@dataclass(frozen=True)
class AugmentRecipe:
    """How a clip is varied; every drawn number is shared by all its frames.

    Order: window, resize, RandAugment (or after the flip), crop, flip, black erasing, normalisation, noise.
    """

    window: tuple[float, float, float, float] | None = None  # top, left, height, width to keep, as fractions
    resize: float | None = None  # edge before the crop, in output edges; None: as stored
    keep_aspect: bool = False  # resize the shorter edge instead of both
    crop_scale: tuple[float, float] | None = None  # area of the random crop; None: a crop of the output size
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the random crop
    shift: float = 0.0  # farthest move of the crop, in frame edges; outside, edge pixels are repeated
    flip: float = 0.0  # probability
    randaugment: str | None = None  # timm's notation
    randaugment_last: bool = False  # after crop and flip instead of before
    erase: float = 0.0  # probability of erasing one box of 2 % to 1/3 of the area
    erase_mode: Literal["noise", "black"] = "noise"  # normal noise after, or zeros before normalisation
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise Refused(f"{name} must be a probability, got {getattr(self, name)}")
        for name, known in (("erase_mode", ("noise", "black")), ("interpolation", ("bilinear", "bicubic"))):
            if getattr(self, name) not in known:
                choices = " or ".join(map(repr, known))
                raise Refused(f"{name} must be {choices}, got {getattr(self, name)!r}")


PAPER_CLIP_TRAIN = AugmentRecipe(
    resize=1.0,
    randaugment="rand-m7-n4-mstd0.5-inc1",
    crop_scale=(0.08, 1.0),
    flip=0.5,
    erase=0.25,
)
PAPER_STILL_TRAIN = AugmentRecipe(
    resize=1.2,
    flip=0.5,
    randaugment="rand-m9-n2-mstd0.5-inc1",
    randaugment_last=True,
    erase=0.25,
    erase_mode="black",
)
PAPER_CLIP_PRETRAIN = AugmentRecipe(resize=1.2, keep_aspect=True, crop_scale=(0.08, 1.0))
PAPER_STILL_PRETRAIN = AugmentRecipe(crop_scale=(0.2, 1.0), flip=0.5, interpolation="bicubic")
LIGHT = AugmentRecipe(crop_scale=(0.7, 1.0), crop_ratio=(0.9, 1 / 0.9), shift=0.05, flip=0.5)
MOVES = AugmentRecipe(resize=1.0, shift=0.04, flip=0.5)  # for runs too short to learn more variety than this
FLIPS = AugmentRecipe(resize=1.0, flip=0.5)  # no frame in more than two forms, so that features can be remembered
EVAL = AugmentRecipe(resize=1.0)
RECIPES: dict[str, AugmentRecipe] = {  # by the names that configurations use
    "PAPER_CLIP_TRAIN": PAPER_CLIP_TRAIN, "PAPER_STILL_TRAIN": PAPER_STILL_TRAIN,
    "PAPER_CLIP_PRETRAIN": PAPER_CLIP_PRETRAIN, "PAPER_STILL_PRETRAIN": PAPER_STILL_PRETRAIN, "LIGHT": LIGHT,
    "MOVES": MOVES, "FLIPS": FLIPS, "EVAL": EVAL,
}


def augment(frames: Tensor, recipe: AugmentRecipe, size: int, rng: np.random.Generator) -> Tensor:
    """Vary frames uint8 [t h w 3] by `recipe` into one clip float32 [3 t size size], ImageNet-normalised.

    The released loader crops normalised floats without antialiasing; this crops bytes with it, which
    differs by rounding when enlarging and is cleaner when shrinking. ValueError for frames of another type
    or shape.
    """
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.numel():
        raise ValueError(f"frames must be uint8 [t h w 3], got {frames.dtype} {list(frames.shape)}")
    x = rearrange(frames, "t h w c -> t c h w")
    if recipe.window:
        x = _keep_window(x, recipe.window)
    if recipe.resize:
        x = _resize(x, round(recipe.resize * size), recipe)
    if recipe.randaugment and not recipe.randaugment_last:
        x = _rand_augment(x, recipe.randaugment, rng)
    x = _crop(x, size, recipe, rng)
    if recipe.flip and rng.random() < recipe.flip:
        x = x.flip(-1)
    if recipe.randaugment and recipe.randaugment_last:
        x = _rand_augment(x, recipe.randaugment, rng)
    box = _erase_box(x, rng) if recipe.erase and rng.random() < recipe.erase else None
    x = rearrange(x, "t c h w -> c t h w").to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    if box and recipe.erase_mode == "black":
        x[..., box[0], box[1]] = 0.0
    x = _normalise_bytes_(x)
    if box and recipe.erase_mode == "noise":
        hole = x[..., box[0], box[1]]
        x[..., box[0], box[1]] = torch.from_numpy(rng.standard_normal(hole.shape, dtype=np.float32))
    return x


def _normalise_bytes_(x: Tensor) -> Tensor:
    """`normalise(x / 255, axis=0)` in place, in two passes over the memory instead of four."""
    mean, std = _per_channel(x, 0)
    return x.sub_(mean * 255).div_(std * 255)


def _keep_window(x: Tensor, window: tuple[float, float, float, float]) -> Tensor:
    height, width = x.shape[-2:]
    top, left = round(window[0] * height), round(window[1] * width)
    return x[..., top : top + round(window[2] * height), left : left + round(window[3] * width)]


def _resize(x: Tensor, edge: int, recipe: AugmentRecipe) -> Tensor:
    height, width = x.shape[-2:]
    scale = edge / min(height, width)
    target = [round(height * scale), round(width * scale)] if recipe.keep_aspect else [edge, edge]
    return _resample(x, target, recipe.interpolation)


def _resample(x: Tensor, target: list[int], interpolation: str) -> Tensor:
    if list(x.shape[-2:]) == target:
        return x
    from torchvision.transforms.v2 import InterpolationMode, functional

    return functional.resize(x, target, InterpolationMode(interpolation), antialias=True)


def _crop(x: Tensor, size: int, recipe: AugmentRecipe, rng: np.random.Generator) -> Tensor:
    """A random box, the same in every frame, resampled to the output size."""
    height, width = x.shape[-2:]
    if recipe.crop_scale:
        from torchvision.transforms.v2 import RandomResizedCrop

        with _borrowed_generators(rng):
            scale, ratio = list(recipe.crop_scale), list(recipe.crop_ratio)
            top, left, box_height, box_width = RandomResizedCrop.get_params(x, scale, ratio)
    else:
        box_height, box_width = min(size, height), min(size, width)
        top = int(rng.integers(height - box_height + 1))
        left = int(rng.integers(width - box_width + 1))
    reach = round(recipe.shift * min(height, width))
    if reach:
        down, right = rng.integers(-reach, reach + 1, size=2).tolist()
        top, left = top + down, left + right
    x = _cut(x, top, left, box_height, box_width)
    return _resample(x, [size, size], recipe.interpolation)


def _cut(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A box of the picture; where it leaves the picture, the nearest pixel is repeated."""
    inside = top >= 0 and left >= 0 and top + height <= x.shape[-2] and left + width <= x.shape[-1]
    if inside:
        return x[..., top : top + height, left : left + width]
    rows = torch.arange(top, top + height).clamp_(0, x.shape[-2] - 1)
    columns = torch.arange(left, left + width).clamp_(0, x.shape[-1] - 1)
    return x.index_select(-2, rows).index_select(-1, columns)


def _erase_box(x: Tensor, rng: np.random.Generator) -> tuple[slice, slice]:
    from torchvision.transforms.v2 import RandomErasing

    with _borrowed_generators(rng):
        top, left, height, width, _ = RandomErasing.get_params(x, (0.02, 1 / 3), (0.3, 1 / 0.3), value=[0.0])
    return slice(top, top + height), slice(left, left + width)


def _rand_augment(x: Tensor, notation: str, rng: np.random.Generator) -> Tensor:
    """timm's RandAugment on every frame; restarting its generators gives each frame the same operations."""
    from PIL import Image

    operations = _rand_augment_operations(notation)
    frames = []
    with _borrowed_generators(rng) as restart:
        for picture in rearrange(x, "t c h w -> t h w c").numpy():
            restart()
            frames.append(np.asarray(operations(Image.fromarray(picture))))
    return rearrange(torch.from_numpy(np.stack(frames)), "t h w c -> t c h w")


@lru_cache
def _rand_augment_operations(notation: str):
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(notation, {"interpolation": Image.Resampling.BICUBIC})


@contextmanager
def _borrowed_generators(rng: np.random.Generator) -> Iterator:
    """Seed the global generators that timm and torchvision draw from, and put them back afterwards.

    Yields a function that restarts all of them at the same point.
    """
    seed = int(rng.integers(2**32))
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def restart() -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for the GPU from a worker

    try:
        restart()
        yield restart
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


# -------------------------------------------------------------------------------- batch mixing


class MixupCutmix:
    """Mix every sample with its partner in the reversed batch, pictures and targets alike.

    One λ and, for CutMix, one box for the whole batch and all frames; λ is corrected to the area that was
    really pasted. Targets are smoothed: 1 - s + s/classes on, s/classes off. Defaults are S4D's.
    """

    def __init__(
        self,
        classes: int,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        prob: float = 1.0,
        switch: float = 0.5,
        smoothing: float = 0.1,
    ):
        from timm.data import Mixup

        self.classes = classes
        self._mix = Mixup(mixup, cutmix, None, prob, switch, "batch", True, smoothing, classes)

    def __call__(self, x: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """x float [b c h w] or [b c t h w] and integer labels [b] to mixed x and targets float [b classes].

        The input is left as it was. In an odd batch the middle sample is its own partner.
        """
        batch = len(x)
        if x.ndim not in (4, 5) or labels.shape != (batch,):
            shapes = f"{list(x.shape)} and {list(labels.shape)}"
            raise Refused(f"x must be [b c h w] or [b c t h w] and labels [b], got {shapes}")
        # On an accelerator the host would wait here; there a wrong label stops in the kernel that looks it up.
        if labels.device.type == "cpu" and (labels.min() < 0 or labels.max() >= self.classes):
            raise ValueError(f"labels must lie in 0..{self.classes - 1}, got {labels.tolist()}")
        middle, odd = batch // 2, batch % 2
        # timm wants an even batch, and mixes in place: a copy, with the middle sample of an odd batch twice.
        order = [*range(middle + odd), *range(middle, batch)]
        with _borrowed_generators(rng):
            pictures, targets = self._mix(x[order].flatten(1, -3), labels[order])
        if odd:
            kept = [i for i in range(batch + 1) if i != middle]
            pictures, targets = pictures[kept], targets[kept]
        return pictures.view(x.shape), targets
