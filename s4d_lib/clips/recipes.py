"""name → recipe     how a clip may be varied: the papers' recipes, and those for small networks.

Derived in chapter 02.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s4d_lib.errors import Refused


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
