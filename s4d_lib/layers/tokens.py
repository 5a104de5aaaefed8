"""clip → tokens     image as one tubelet, tubelet embedding, positions.

A clip is cut into tubelets: boxes of `tubelet` frames by `patch` × `patch` pixels. One linear map turns each
box into a token, and a fixed sinusoid tells the token where its box sits. An image goes through the very same
map as a one-tubelet clip of identical frames, which is what lets one network read both.

Derived in chapter 03.
"""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.errors import Refused

Grid = tuple[int, int, int]  # tokens along time, height and width
POSITIONS = ("flat", "separable")


def height_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of a picture given as one side or as both, as in `Size.image_size`."""
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise Refused(f"image_size is one number of pixels or (height, width), got {image_size!r}")
    return sides[0], sides[1]


def pad_image_to_tubelet(image: Tensor, tubelet: int = 2) -> Tensor:
    """Repeat an image in time until it fills one tubelet: `[b c h w]` → `[b c t h w]`, t = `tubelet`.

    Source: arXiv 2409.06154, released `finetune/s4d/videomae.py:411-435`.
    """
    if image.ndim != 4:
        raise ValueError(f"an image batch is [b c h w], but this tensor has shape {tuple(image.shape)}")
    return repeat(image, "b c h w -> b c t h w", t=tubelet)


def cut_tubelets(x: Tensor, patch: int, tubelet: int, index: Tensor | None = None) -> Tensor:
    """Cut clips `[b c t h w]` or images `[b c h w]` into boxes `[b n c u p q]` in token order, u = tubelet frames.

    An image has one frame, u = 1: all frames of its tubelet are copies. With `index`, int64 `[b v]`, only the boxes of
    these numbers are copied out, the others are not touched.
    """
    clip, u = (x, tubelet) if x.ndim == 5 else (x[:, :, None], 1)
    boxes = rearrange(clip, "b c (t u) (h p) (w q) -> b t h w c u p q", u=u, p=patch, q=patch)  # a view: nothing moves
    if index is None:
        return boxes.flatten(1, 3)
    sample = torch.arange(len(x), device=x.device)[:, None]
    return boxes[(sample, *torch.unravel_index(index, boxes.shape[1:4]))]


class TubeletEmbed(nn.Module):
    """Linear map of each tubelet to one token: a 3-D convolution whose kernel equals its stride.

    Tokens are in raster order: time, then height, then width. `image_size` is a side or (height, width). Source:
    released `finetune/s4d/videomae.py:438-465`, which reads squares only. The weights are a convolution's, under the
    released names; computed is one matrix product, which leaves out the tubelets that nobody reads.
    """

    def __init__(self, image_size: int | tuple[int, int], frames: int, patch: int, tubelet: int, dim: int) -> None:
        super().__init__()
        self.height, self.width = height_width(image_size)
        self.frames, self.tubelet = frames, tubelet
        kernel = (tubelet, patch, patch)
        self.proj = nn.Conv3d(3, dim, kernel_size=kernel, stride=kernel)

    def forward(self, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """Clips `[b 3 t h w]` or images `[b 3 h w]`, ImageNet-normalised → tokens `[b n d]`.

        With `visible`, int64 `[b v]`, only the tokens of these numbers: `[b v d]`. Raises ValueError when the rank,
        channels, frame count or picture size is not what the model reads.
        """
        self._check(x)
        # Equal frames meet equal pixels: an image's weights are summed over the frames of the tubelet first.
        weight = self.proj.weight if x.ndim == 5 else self.proj.weight.sum(dim=2)
        boxes = cut_tubelets(x, self.proj.kernel_size[1], self.tubelet, visible)
        return F.linear(boxes.flatten(2), weight.flatten(1), self.proj.bias)

    def count(self, x: Tensor) -> int:
        """How many tokens this input makes."""
        self._check(x)
        slots = 1 if x.ndim == 4 else x.shape[2] // self.tubelet
        return slots * (x.shape[-2] // self.proj.kernel_size[1]) * (x.shape[-1] // self.proj.kernel_size[2])

    def _check(self, x: Tensor) -> None:
        if x.ndim not in (4, 5):
            raise ValueError(f"expected images [b 3 h w] or clips [b 3 t h w], got shape {tuple(x.shape)}")
        if x.shape[1] != 3:
            raise ValueError(f"expected 3 colour channels on axis 1, got shape {tuple(x.shape)}; "
                             "a frame array [t h w 3] becomes a clip in clips.augment")
        if x.ndim == 5 and x.shape[2] != self.frames:
            raise ValueError(f"this model reads clips of {self.frames} frames, got {x.shape[2]}; "
                             f"sample {self.frames} frames or build the model in another Size")
        if tuple(x.shape[-2:]) != (self.height, self.width):
            raise ValueError(f"this model reads {self.height}×{self.width} pixels, got "
                             f"{x.shape[-2]}×{x.shape[-1]} (height × width); resize the frames or build it in "
                             "another Size")


def sincos_positions(index: Tensor, dim: int) -> Tensor:
    """Fixed sinusoid of a 1-D coordinate: `[n]` → float64 `[n d]`, sine in even columns, cosine in odd ones.

    angle(p, j) = p / 10000^(2⌊j/2⌋/d). Computed in float64 as released
    (`finetune/s4d/videomae.py:471-482`): near p = 799 a float32 angle is already off in its fifth digit.
    """
    column = torch.arange(dim, dtype=torch.float64)
    angle = index[:, None] / 10000.0 ** (2 * (column // 2) / dim)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def position_table(grid: Grid, dim: int, kind: str) -> Tensor:
    """Positions of every token of a clip, float32 `[n d]`; an image uses the first h·w rows (time slot 0).

    `flat` (the paper) is one sinusoid over the flattened index, so a token and its neighbour below differ by
    w steps. `separable` gives time, height and width a sinusoid each, side by side.
    """
    t, h, w = grid
    if kind == "flat":
        return sincos_positions(torch.arange(t * h * w), dim).float()
    spatial = dim // 6 * 2  # an even width per axis; time takes what is left over
    place = torch.cartesian_prod(torch.arange(t), torch.arange(h), torch.arange(w))
    widths = (dim - 2 * spatial, spatial, spatial)
    return torch.cat([sincos_positions(place[:, i], width) for i, width in enumerate(widths)], dim=1).float()
