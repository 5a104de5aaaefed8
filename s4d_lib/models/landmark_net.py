"""frame → points, features     the landmark network, which says where brows, eyes and mouth are.

S2D turns a still-image model into a video model without touching its weights: this network, frozen, sees each frame,
and what it sees reaches the image tokens through a prompter (`layers/prompts.py`; arXiv 2312.05447). Attributes are
named after the released state-dict keys (`conv2_dw`, `output_layer`), so that weights load by name.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.errors import Refused
from s4d_lib.weights.files import SHIPPED, AnotherModel, rebuild

LANDMARK_PIXELS = 112   # height and width of a frame the landmark network reads
LANDMARK_CHANNELS = 128  # channels of the features it hands to the prompter
POINTS = 68             # of a face, in the order of iBUG 300-W


class LandmarkNet(nn.Module):
    """MobileFaceNet: a frame → 68 facial points (released `landmark/mobilefacenet.py`; 1,007,248 parameters).

    Frames are ImageNet-normalised, because S2D feeds it what the trunk sees (released
    `engine_for_finetuning.py:82`). Weights start random; points mean something once weights are loaded:
    `load_landmarks()` has those of `lab/landmark_training.py`.

    `width` multiplies the channels, rounded to eights; 1 is the released layout. The tapped stage hands on
    128 channels at every width, because the prompter reads them: only what lies between narrows.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        if not 0 < width <= 1:
            raise Refused(f"width must be above 0 and at most 1, the released layout; got {width}")

        def c(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        self.width = width
        self.config: dict[str, Any] = {} if width == 1 else {"width": width}
        self.conv1 = ConvNorm(3, c(64), kernel=3, stride=2)
        self.conv2_dw = ConvNorm(c(64), c(64), kernel=3, groups=c(64))
        self.conv_23 = Bottleneck(c(64), c(64), c(128), stride=2)
        self.conv_3 = ResidualBottlenecks(c(64), c(128), depth=4)
        self.conv_34 = Bottleneck(c(64), LANDMARK_CHANNELS, c(256), stride=2)
        self.conv_4 = ResidualBottlenecks(LANDMARK_CHANNELS, c(256), depth=6)
        self.conv_45 = Bottleneck(LANDMARK_CHANNELS, c(128), c(512), stride=2)
        self.conv_5 = ResidualBottlenecks(c(128), c(256), depth=2)
        self.conv_6_sep = ConvNorm(c(128), c(512))
        self.output_layer = PointHead(c(512), POINTS)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `[b 3 h w]` → coordinates of 68 points `[b 136]`, in the scale of the weights that were loaded."""
        x = self.conv_5(self.conv_45(self.features(frames)))
        return self.output_layer(self.conv_6_sep(x))

    def features(self, frames: Tensor) -> Tensor:
        """Frames `[b 3 h w]` → features `[b 128 14 14]` of the stage the prompter taps (released
        `landmark/backbone.py:54-64`). Any size is resized to 112×112, corner to corner."""
        frames = to_landmark_size(frames)
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(frames))))
        return self.conv_4(self.conv_34(x))


def to_landmark_size(frames: Tensor) -> Tensor:
    """Frames `[b 3 h w]` of any size → `[b 3 112 112]`, corner to corner; ValueError for other shapes."""
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"the landmark network reads frames [b 3 h w], got shape {tuple(frames.shape)}; "
                         "fold the time of a clip into the batch")
    size = (LANDMARK_PIXELS, LANDMARK_PIXELS)
    if tuple(frames.shape[-2:]) == size:
        return frames
    return F.interpolate(frames, size, mode="bilinear", align_corners=True)


def load_landmarks(file: str | Path = "shipped") -> LandmarkNet:
    """The landmark network of a file, frozen and in evaluation mode; "shipped" is the one that comes with the library.

    That one has `width` 1/4 and was trained on drawn faces only (`lab/landmark_training.py`); its 136 numbers are x and
    y of each point, from 0 to 1 corner to corner. TypeError when the file holds another model.
    """
    try:
        return rebuild(SHIPPED["landmarks"] if file == "shipped" else file, [LandmarkNet]).requires_grad_(False)
    except AnotherModel as error:
        raise TypeError(f"{file} holds a {error.model} and not a LandmarkNet") from error


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, unless `linear`, one PReLU slope per channel."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1,
                 padding: int | None = None, linear: bool = False) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside)
        self.prelu = nn.Identity() if linear else Slopes(outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))


class Slopes(nn.PReLU):
    """`nn.PReLU`, written so that its gradient takes a quarter of the time on a CPU (a third of a training step)."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # autocast makes x narrow and leaves the weight as it is
            return torch.lerp(x.relu(), x, self.weight.to(x.dtype)[:, None, None])
        return super().forward(x)


class Bottleneck(nn.Module):
    """Widen with 1×1, mix neighbours channel by channel with 3×3, narrow with a linear 1×1."""

    def __init__(self, inside: int, outside: int, wide: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = ConvNorm(inside, wide)
        self.conv_dw = ConvNorm(wide, wide, kernel=3, stride=stride, groups=wide)
        self.project = ConvNorm(wide, outside, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.conv_dw(self.conv(x)))


class ResidualBottlenecks(nn.Module):
    """`depth` bottlenecks of one width, each added to its input."""

    def __init__(self, dim: int, wide: int, depth: int) -> None:
        super().__init__()
        self.model = nn.ModuleList(Bottleneck(dim, dim, wide) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for bottleneck in self.model:
            x = x + bottleneck(x)
        return x


class PointHead(nn.Module):
    """Features `[b c 7 7]` → coordinates `[b (points 2)]`: one 7×7 filter per channel, then a linear map."""

    def __init__(self, channels: int, points: int) -> None:
        super().__init__()
        self.conv_6_dw = ConvNorm(channels, channels, kernel=7, groups=channels, padding=0, linear=True)
        self.linear = nn.Linear(channels, 2 * points, bias=False)
        self.bn = nn.BatchNorm1d(2 * points)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(self.conv_6_dw(x).flatten(1)))
