"""tensors → network     the numbers of a network, from its tensors, its file's statements and its caller.

A published file says little about its network: widths and depths can be read from shapes, the number of attention
heads and the input size cannot. They come from the caller, from a position table or the training script's `args` if
the file holds them, or from what the authors publish, in this order; the report names what was assumed.
"""

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from s4d_lib.checkpoints.layouts import LAYOUTS
from s4d_lib.checkpoints.stated import is_number, position_tokens, statements
from s4d_lib.models.s2d import S2D_SIZES
from s4d_lib.models.sizes import SIZES, Size
from s4d_lib.weights.containers import BadCheckpoint, Contents

EXPERT = re.compile(r"blocks\.(\d+)\.moe_layer\.experts\.(\d+)\.")
CHANNELS_PER_HEAD = 64  # in the published models of this family, except for
HEADS = {1280: 16, 640: 8}  # the huge ones (VideoMAE, MAE, the port) and VideoMAE's decoder of the huge one


@dataclass(frozen=True)
class Hints:
    """What a caller knows about a network and its file does not say; None is read from the file or assumed."""

    image_size: int | None = None     # edge of the input in pixels
    frames: int | None = None         # frames of a clip
    heads: int | None = None          # attention heads
    decoder_heads: int | None = None
    top_k: int | None = None          # experts per token
    capacity_factor: float | None = None
    behaviour: str = "clean"          # see layers/adapters.py
    container: str | None = None      # dictionary of the file that holds the weights
    allow: tuple[str, ...] = ()       # what may be let go, see allowance.py


class Reader:
    """Reads a network's numbers from its tensors; every guess becomes a note."""

    def __init__(self, contents: Contents, layout: str, tensors: dict[str, Tensor], hints: Hints) -> None:
        self.contents, self.layout, self.tensors, self.hints = contents, layout, tensors, hints
        self.notes: list[str] = []
        self.stated = {word: said for word, said in statements(contents).items() if is_number(word, said.value)}

    def shape(self, key: str) -> torch.Size:
        """Shape of a tensor that must be there."""
        if key not in self.tensors:
            raise BadCheckpoint(self.contents.path, f"as {self.layout} it must hold {key}, and does not",
                                "name its layout with --as, or check that the file is complete")
        return self.tensors[key].shape

    def depth(self, prefix: str = "") -> int:
        """Number of blocks; a gap in their numbers is an error."""
        found = re.compile(rf"{re.escape(prefix)}blocks\.(\d+)\.")
        numbers = {int(match[1]) for key in self.tensors if (match := found.match(key))}
        gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
        if gaps:
            raise BadCheckpoint(self.contents.path, f"it has no {prefix}blocks.{gaps[0]}, but later ones",
                                "check that the file is complete")
        return len(numbers)

    def heads(self, dim: int, name: str = "heads") -> int:
        """Attention heads: told by the caller or the file, or as in the published models of that width."""
        told = getattr(self.hints, name)
        if told is None and name in self.stated:
            self.notes.append(f"{name}: {self.stated[name].value}, from {self.stated[name].where}")
            return int(self.stated[name].value)
        if told is None and dim % CHANNELS_PER_HEAD:
            raise BadCheckpoint(self.contents.path, f"its width of {dim} does not tell the number of attention heads",
                                f"say it with --{name.replace('_', '-')}")
        if told is None:
            told = HEADS.get(dim, dim // CHANNELS_PER_HEAD)
            self.notes.append(f"{name}: {told}, " + (f"as in the published models of width {dim}" if dim in HEADS else
                                                     f"one per {CHANNELS_PER_HEAD} channels"))
        return told

    def setting(self, name: str, default: Any) -> Any:
        """A number that no shape shows: from the caller, from what the file states, or the published models."""
        told = getattr(self.hints, name)
        if told is not None:
            return told
        if name in self.stated:
            self.notes.append(f"{name}: {self.stated[name].value}, from {self.stated[name].where}")
            return self.stated[name].value
        self.notes.append(f"{name}: {default}, as published; the file does not say")
        return default

    def side(self, tokens: int | None, patch: int) -> int | tuple[int, int]:
        """Edge of the input: stated, from the length of a position table, or as `setting` finds it."""
        unsaid = self.hints.image_size is None and "image_size" not in self.stated
        if tokens and unsaid and (side := round(tokens**0.5)) ** 2 == tokens:
            self.notes.append(f"image_size: {side * patch}, from the position table")
            return side * patch
        side = self.setting("image_size", LAYOUTS[self.layout].image_size)
        return side if isinstance(side, tuple) else int(side)

    def size(self, prefix: str = "") -> Size:
        """Size of a video encoder; widths and depths from shapes."""
        dim, _, tubelet, patch, _ = self.shape(f"{prefix}patch_embed.proj.weight")
        depth = self.depth(prefix)
        named = next((size for size in SIZES.values() if (size.dim, size.depth) == (dim, depth)), None)
        heads = self.heads(dim)
        frames = int(self.setting("frames", 16))
        mlp_ratio = self.shape(f"{prefix}blocks.0.mlp.fc1.weight")[0] / dim
        decoder = (named.decoder_dim, named.decoder_depth, named.decoder_heads) if named else (heads, 1, 1)
        return Size(self.side(self._places(frames // tubelet), patch), frames, patch, tubelet, dim, depth, heads,
                    *decoder, mlp_ratio=mlp_ratio)

    def _places(self, slots: int) -> int | None:
        tokens = position_tokens(self.contents, self.layout)
        return tokens if tokens is None or self.layout == "mae" else tokens // slots


def _describe_autoencoder(read: Reader) -> tuple[dict[str, Any], list[str]]:
    decoder_dim = read.shape("encoder_to_decoder.weight")[0]
    size = replace(read.size("encoder."), decoder_dim=decoder_dim, decoder_depth=read.depth("decoder."),
                   decoder_heads=read.heads(decoder_dim, "decoder_heads"))
    return {"size": asdict(size)}, read.notes


def _describe_encoder(read: Reader) -> tuple[dict[str, Any], list[str]]:
    return {"size": asdict(read.size())}, read.notes


def _describe_classifier(read: Reader) -> tuple[dict[str, Any], list[str]]:
    classes = {task: len(read.tensors[key]) for task in ("image", "video")
               if (key := f"head.{task}.weight") in read.tensors}
    config: dict[str, Any] = {"size": asdict(read.size()), "classes": classes or None,
                              "behaviour": read.hints.behaviour}
    experts = [(int(match[1]), int(match[2])) for key in read.tensors if (match := EXPERT.match(key))]
    if experts:
        config |= {"moae_blocks": sorted({block for block, _ in experts}),
                   "experts": 1 + max(expert for _, expert in experts), "top_k": int(read.setting("top_k", 2)),
                   "capacity_factor": float(read.setting("capacity_factor", 1.0))}
    return config, read.notes


def _describe_s2d(read: Reader) -> tuple[dict[str, Any], list[str]]:
    dim, _, patch, _ = read.shape("patch_embed.proj.weight")
    config = {"dim": dim, "patch": patch, "depth": read.depth(),
              "mlp_ratio": read.shape("blocks.0.mlp.fc1.weight")[0] / dim,
              "image_size": read.side(read.shape("pos_embed")[1] - 1, patch)}
    told = {"frames": ("temporal_embedding", 1), "landmark_channels": ("patch_embed_prompt.proj.weight", 1),
            "prompt_dim": ("prompt_blocks.0.conv0_0.weight", 0), "num_classes": ("head.fc_cls.weight", 0)}
    config |= {name: read.tensors[key].shape[axis] for name, (key, axis) in told.items() if key in read.tensors}
    ours = [name for name, size in S2D_SIZES.items() if (size["dim"], size["depth"]) == (dim, config["depth"])]
    # No shape shows heads, and those of the small sizes are not as published.
    if ours and read.hints.heads is None and "heads" not in read.stated:
        config |= {key: S2D_SIZES[ours[0]][key] for key in ("heads", "temporal_heads")}
        read.notes.append(f"heads: {config['heads']}, of the temporal adapters {config['temporal_heads']}, as in the "
                          f"size {ours[0]!r}")
    else:
        config["heads"] = read.heads(dim)
    if (key := "prompt_blocks.0.TMA.S_Adapter.D_fc1.weight") in read.tensors:
        config["adapter_ratio"] = read.tensors[key].shape[0] / dim
    elif "patch_embed_prompt.proj.weight" in read.tensors:
        config |= {"temporal": False, "frames": 1}
        read.notes.append("it has prompts and no temporal adapters: the image stage of S2D")
    if key in read.tensors and "prompt_blocks.0.conv0_0.weight" not in read.tensors:
        config["prompts"] = False
    return config, read.notes


DESCRIBE = {"DualModalMAE": _describe_autoencoder, "DualModalEncoder": _describe_encoder,
            "S4DClassifier": _describe_classifier, "S2DClassifier": _describe_s2d,
            "LandmarkNet": lambda read: ({}, read.notes)}
