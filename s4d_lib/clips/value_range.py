"""[0, 1] ↔ normalised     in what range a model sees pixels: ImageNet's mean and spread of each channel."""

from __future__ import annotations

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(x: Tensor, axis: int = 1) -> Tensor:
    """Values in [0, 1] to ImageNet-normalised values; `axis` holds the 3 channels ([b 3 ...] by default)."""
    mean, std = per_channel(x, axis)
    return (x - mean) / std


def denormalise(x: Tensor, axis: int = 1) -> Tensor:
    """The inverse of `normalise`: back to [0, 1], for showing."""
    mean, std = per_channel(x, axis)
    return x * std + mean


def per_channel(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    if x.shape[axis] != 3:
        raise ValueError(f"axis {axis} of {list(x.shape)} does not hold 3 channels; name the one that does")
    shape = [1] * x.ndim
    shape[axis] = 3
    return x.new_tensor(IMAGENET_MEAN).view(shape), x.new_tensor(IMAGENET_STD).view(shape)
