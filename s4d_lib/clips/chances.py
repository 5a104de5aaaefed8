"""chances → boxes, flips     what a recipe decides for each clip, as numbers, for many clips at once.

A clip is varied by 50 numbers in [0, 1), so that whoever has the numbers, a generator or a table, gets the same clip.
Derived in chapter 02.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s4d_lib.clips.recipes import AugmentRecipe

CHANCES = 50  # numbers in [0, 1) that decide how one clip is varied


def chances_of(seed: int, *numbers: np.ndarray, count: int = CHANCES) -> np.ndarray:
    """Numbers in [0, 1) `[... count]` that depend on the seed and on what stands at their place in `numbers` `[...]`.

    A table instead of a generator: whichever process asks for whichever part of it, in whatever order, gets the same.
    Each row is a stream of SplitMix64 (Steele, Lea and Flood 2014), begun where the mixed numbers lead.
    """
    state = _mixed(np.array(seed, np.uint64) + _STEP)
    for number in numbers:
        state = _mixed(state + (np.asarray(number).astype(np.uint64) + np.uint64(1)) * _STEP)
    rows = state[..., None] + np.arange(1, count + 1, dtype=np.uint64) * _STEP
    return (_mixed(rows) >> np.uint64(11)) * 2.0**-53


_STEP = np.array(0x9E3779B97F4A7C15, np.uint64)  # of SplitMix64: 2^64 over the golden ratio, odd


def _mixed(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.array([factor], np.uint64)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Drawn:
    """What chance decided for b clips of one frame size; boxes are (top, left, height, width) `[b 4]`, in pixels.

    `box` lies in the frame `edges` (height, width), as it is after window and resize, and may leave it by a shift;
    `hole` lies in the output, and has no height where nothing is erased. `seeds` `[b 2]`: of RandAugment, of noise.
    """

    edges: tuple[int, int]
    box: np.ndarray
    flip: np.ndarray
    hole: np.ndarray
    seeds: np.ndarray


def draw(recipe: AugmentRecipe, height: int, width: int, size: int, chances: np.ndarray) -> Drawn:
    """`chances` `[b CHANCES]` in [0, 1) → how b clips of frames height × width are varied into `size` × `size`."""
    if recipe.window:
        (_, _, height, width) = window_box(recipe.window, height, width)
    if recipe.resize:
        height, width = _resized(recipe, height, width, size)
    if recipe.crop_scale:
        box = _random_boxes(height, width, recipe.crop_scale, recipe.crop_ratio, chances[:, :22])
    else:
        sides = np.array([min(size, height), min(size, width)])
        corner = (chances[:, 20:22] * (np.array([height, width]) - sides + 1)).astype(int)
        box = np.concatenate([corner, np.broadcast_to(sides, corner.shape)], 1)
    reach = round(recipe.shift * min(height, width))
    box[:, :2] += (chances[:, 22:24] * (2 * reach + 1)).astype(int) - reach
    hole = _random_boxes(size, size, (0.02, 1 / 3), (0.3, 1 / 0.3), chances[:, 25:47], strict=True)
    hole[chances[:, 47] >= recipe.erase] = 0
    return Drawn((height, width), box, chances[:, 24] < recipe.flip, hole, (chances[:, 48:50] * 2**32).astype(np.int64))


def _random_boxes(height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float],
                  chances: np.ndarray, strict: bool = False) -> np.ndarray:
    """Boxes `[b 4]` as torchvision draws them for RandomResizedCrop and, `strict`, for RandomErasing.

    Of ten draws of area and of width / height (uniform in its logarithm) the first that fits counts; strict: that is
    smaller than the picture. Where none fits, the largest middle crop of an allowed shape, or, strict, no box.
    """
    area = height * width * (scale[0] + chances[:, :10] * (scale[1] - scale[0]))
    shape = np.exp(np.log(ratio[0]) + chances[:, 10:20] * (np.log(ratio[1]) - np.log(ratio[0])))
    sides = np.rint(np.sqrt(np.stack([area / shape, area * shape], 2))).astype(int)  # height, width
    most = np.array([height - strict, width - strict])
    fits = ((sides <= most) & (sides > 0)).all(2)
    first = sides[np.arange(len(sides)), fits.argmax(1)]
    corner = (chances[:, 20:22] * (np.array([height, width]) - first + 1)).astype(int)
    largest = np.array([min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))]) * (not strict)
    middle = (np.array([height, width]) - largest) // 2
    found = np.where(fits.any(1)[:, None], np.concatenate([corner, first], 1), np.concatenate([middle, largest]))
    return found


def window_box(window: tuple[float, float, float, float], height: int, width: int) -> tuple[int, int, int, int]:
    top, left = round(window[0] * height), round(window[1] * width)
    return (top, left, min(round(window[2] * height), height - top), min(round(window[3] * width), width - left))


def _resized(recipe: AugmentRecipe, height: int, width: int, size: int) -> tuple[int, int]:
    edge = round(recipe.resize * size)
    scale = edge / min(height, width)
    return (round(height * scale), round(width * scale)) if recipe.keep_aspect else (edge, edge)
