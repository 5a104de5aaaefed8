"""name → numbers     every number that shapes the models, and the named sizes of the papers and of a laptop.

A `Size` says how wide, deep and large a model is and what it reads; `resolve_size` takes a name, a `Size` or its
fields. What every model begins with, the tubelet embedding and the plain blocks, is made here too. Derived in chapter
06.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.layers.encoder import TransformerBlock
from s4d_lib.layers.tokens import POSITIONS, Grid, TubeletEmbed, height_width, position_table


@dataclass(frozen=True)
class Size:
    """Every number that shapes the models. Lengths in pixels, frames or channels.

    Positions are computed for the grid that these numbers make, so any picture size, frame count, patch or tubelet
    is a model of its own, and weights pass between models that differ in picture size and frame count only.
    """

    image_size: int | tuple[int, int]  # side of the input, or its (height, width); a square is kept as its side
    frames: int              # frames of a clip
    patch: int               # height and width of a tubelet
    tubelet: int             # frames of a tubelet
    dim: int                 # encoder width d
    depth: int               # encoder blocks
    heads: int               # attention heads
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    mlp_ratio: float = 4.0   # width of the dense network over d
    positions: str = "flat"  # "flat" (the paper) or "separable"

    def __post_init__(self) -> None:
        height, width = height_width(self.image_size)
        # One spelling of each size, or equal models would have unequal descriptions after a trip through JSON.
        object.__setattr__(self, "image_size", height if height == width else (height, width))
        for whole, part in (("image_size", "patch"), ("frames", "tubelet"), ("dim", "heads"),
                            ("decoder_dim", "decoder_heads")):
            a, b = getattr(self, whole), getattr(self, part)
            if any(side % b for side in (a if isinstance(a, tuple) else (a,))):
                raise Refused(f"{whole} must be a multiple of {part}, got {a} and {b}")
        if self.positions not in POSITIONS:
            raise Refused(f"positions must be one of {POSITIONS}, got {self.positions!r}")

    @property
    def height(self) -> int:
        return height_width(self.image_size)[0]

    @property
    def width(self) -> int:
        return height_width(self.image_size)[1]

    @property
    def grid(self) -> Grid:
        """Tokens of a clip along time, height and width."""
        return self.frames // self.tubelet, self.height // self.patch, self.width // self.patch

    @property
    def image_grid(self) -> Grid:
        """Tokens of an image: one time slot."""
        return 1, *self.grid[1:]

    @property
    def pixels(self) -> int:
        """Numbers in one tubelet: what the decoder predicts for each token."""
        return 3 * self.tubelet * self.patch**2


# small, base and large are the released 160-pixel models (`finetune/s4d/videomae.py:740-763`,
# `pretrain/omnivision/models/videomae_pretraining.py:460-582`); tiny and nano are ours,
# for a CPU: tiny is what the book ships, nano what the transfer laboratory trains hundreds of times,
# in two more widths where width is the question.
_PAPER = {"image_size": 160, "frames": 16, "patch": 16, "tubelet": 2, "decoder_depth": 4}
SIZES = {
    "tiny": Size(image_size=48, frames=8, patch=8, tubelet=2, dim=128, depth=4, heads=4,
                 decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=64, depth=4, heads=4,
                 decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano_narrow": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=32, depth=4, heads=4,
                        decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano_wide": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=128, depth=4, heads=4,
                      decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "small": Size(dim=384, depth=12, heads=6, decoder_dim=192, decoder_heads=3, **_PAPER),
    "base": Size(dim=768, depth=12, heads=12, decoder_dim=384, decoder_heads=6, **_PAPER),
    "large": Size(dim=1024, depth=24, heads=16, decoder_dim=512, decoder_heads=8, **_PAPER),
}


def resolve_size(size: str | Size | Mapping[str, Any]) -> Size:
    """A Size, the name of one in SIZES, or its fields as they stand in a checkpoint."""
    if isinstance(size, Size):
        return size
    if isinstance(size, Mapping):
        return Size(**size)
    if size not in SIZES:
        raise Refused(f"size must be one of {', '.join(SIZES)} or a Size, got {size!r}")
    return SIZES[size]


def stem(size: Size) -> tuple[TubeletEmbed, Tensor]:
    """Tubelet embedding and position table `[n d]`, fresh: what an encoder of this size begins with."""
    embed = TubeletEmbed(size.image_size, size.frames, size.patch, size.tubelet, size.dim)
    return embed, position_table(size.grid, size.dim, size.positions)


def plain_blocks(size: Size) -> list[TransformerBlock]:
    """Its transformer blocks, fresh and without experts."""
    return [TransformerBlock(size.dim, size.heads, size.mlp_ratio) for _ in range(size.depth)]
