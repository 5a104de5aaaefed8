"""tokens → visible     random, frame and tube masks with exact counts.

A mask is bool `[b n]`, True = hidden. Every sample of a batch hides the same number of tokens, so that the
visible ones still form a rectangle `[b v d]` and the encoder needs no padding. Derived in chapter 04.
"""

import torch
from einops import repeat
from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.layers.tokens import Grid


def random_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide int(ratio·n) tokens anywhere in space and time: bool `[b n]`, on the generator's device.

    The paper hides 90 of an image's 100 tokens and 760 of a clip's 800 this way (arXiv 2409.06154; released
    `pretrain/omnivision/data/transforms/mask_image_modeling.py:94-123`).
    """
    t, h, w = grid
    return _hide(batch, t * h * w, ratio, generator, what="tokens")


def frame_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide int(ratio·t) whole time slots, every place in them: bool `[b n]`."""
    t, h, w = grid
    slots = _hide(batch, t, ratio, generator, what="time slots")
    return repeat(slots, "b t -> b (t h w)", h=h, w=w)


def tube_mask(batch: int, grid: Grid, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide int(ratio·h·w) places, the same ones in every time slot: bool `[b n]`."""
    t, h, w = grid
    places = _hide(batch, h * w, ratio, generator, what="places")
    return repeat(places, "b s -> b (t s)", t=t)


def visible_index(mask: Tensor) -> Tensor:
    """Indices of the visible tokens, ascending: bool `[b n]` → int64 `[b v]`.

    Raises ValueError when samples hide different numbers of tokens, or all of them.
    """
    return split_index(mask)[0]


def split_index(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the visible and of the hidden tokens, each ascending: bool `[b n]` → int64 `[b v]`, `[b n-v]`.

    Raises ValueError when samples hide different numbers of tokens, or all of them.
    """
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError(f"a mask is bool [b n], True = hidden; got {mask.dtype} {tuple(mask.shape)}")
    counts = (~mask).sum(dim=1)
    fewest, most = counts.aminmax()
    if fewest != most:
        raise Refused(f"every sample must show the same number of tokens, got {fewest} to {most}")
    if fewest == 0:
        raise Refused("the mask hides every token and leaves nothing to read; lower the mask ratio")
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, :fewest], order[:, fewest:]


def _hide(batch: int, cells: int, ratio: float, generator: torch.Generator | None, what: str) -> Tensor:
    if not 0 <= ratio < 1:
        raise Refused(f"mask ratio must be in [0, 1), got {ratio}")
    hidden = int(ratio * cells)
    if hidden == 0 and ratio > 0:
        raise Refused(f"a ratio of {ratio} hides int({ratio}·{cells}) = 0 of {cells} {what}; "
                      "raise the ratio, or use random_mask, which counts single tokens")
    device = generator.device if generator is not None else None
    # Ranks of random scores are a permutation, so every sample hides the exact count, ties included.
    ranks = torch.rand(batch, cells, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    return ranks < hidden
