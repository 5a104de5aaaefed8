"""frames → features     whatever may stand where S2D's landmark network stands: the interface, and one other eye.

    model.use_landmarks(FilterBank())       # any function of frames [n 3 h w] → features [n c gh gw] will do

The prompter asks for a map and not for points, so a network for another set of points, a segmenter or a filter can take
the place of MobileFaceNet. A reader that S2D is to be compared with has to hand on as many channels. Derived in
chapter 11.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.clips import denormalise
from s4d_lib.models.landmark_net import to_landmark_size

GRID = 14                                # places along each axis, as MobileFaceNet's stage has them
WAVELENGTHS = (4.0, 6.0, 9.0, 14.0)      # pixels of 112: from the rim of an eye to a whole brow
DIRECTIONS = 8


class LandmarkReader(Protocol):
    """What `S2DClassifier.use_landmarks` takes; an object with a method `features` of this kind will do as well."""

    def __call__(self, frames: Tensor) -> Tensor:
        """ImageNet-normalised frames `[n 3 h w]` → features `[n c gh gw]`, any grid, c as the model was built for."""
        ...


class FilterBank(nn.Module):
    """Gabor filters, fixed: 4 wavelengths × 8 directions × even and odd × lighter and darker → `[n 128 14 14]`.

    A control that has seen no face and learned nothing, with as many channels as MobileFaceNet. What S2D gains with
    landmarks and not with this comes from knowing faces; what it gains with both comes from having a second view.
    """

    def __init__(self) -> None:
        super().__init__()
        for number, wavelength in enumerate(WAVELENGTHS):
            self.register_buffer(f"filters_{number}", gabor(wavelength, DIRECTIONS), persistent=False)

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """Normalised frames `[n 3 h w]` → answers `[n 128 14 14]`, all ≥ 0, of about one size at every wavelength."""
        grey = denormalise(to_landmark_size(frames)).mean(1, keepdim=True)
        maps = []
        for number in range(len(WAVELENGTHS)):
            filters = getattr(self, f"filters_{number}").to(grey.dtype)
            margin = filters.shape[-1] // 2
            # The edge is repeated: a black frame around the picture would be the strongest edge in it.
            answer = F.conv2d(F.pad(grey, [margin] * 4, mode="replicate"), filters)
            maps += [F.adaptive_avg_pool2d(part.relu(), GRID) for part in (answer, -answer)]
        return torch.cat(maps, 1)


def gabor(wavelength: float, directions: int) -> Tensor:
    """Even filters and then odd ones `[2·directions 1 k k]`: waves under a bell of half a wavelength's spread.

    Each has mean 0, so flat skin gives no answer, and a sum of sizes of 1.
    """
    spread, reach = wavelength / 2, math.ceil(1.5 * wavelength)
    axis = torch.arange(-reach, reach + 1.0)
    y, x = axis[:, None], axis
    bell = torch.exp(-(x * x + y * y) / (2 * spread**2))
    found = []
    for phase in (torch.cos, torch.sin):
        for turn in range(directions):
            angle = math.pi * turn / directions
            wave = bell * phase(2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle)))
            wave = wave - bell * (wave.sum() / bell.sum())
            found.append(wave / wave.abs().sum())
    return torch.stack(found)[:, None]
