"""clip → maps     what every prompter of S2D looks at, what it writes, what the adapters add; and S2D without them.

    maps = prompt_maps(model, clips[:1])        # one clip
    with without(model, "prompts"):             # or "time", or both
        logits = model(clips)

`without` silences parts of a trained model; a model that was trained without them is another model. Derived in chapter
11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from s4d_lib.errors import Refused
from s4d_lib.models.s2d import S2DClassifier

PARTS = ("prompts", "time")


@dataclass(frozen=True)
class PromptMaps:
    """Maps of one clip, each `[blocks t gh gw]`; all but `fovea` are lengths of vectors over their channels.

    fovea       share of the fovea's attention on each place, mean over its channels: sums to 1 in each frame
    image       what the fovea lets through of the image       landmarks   what comes of the prompt before
    prompt      what is written onto the image tokens          tokens      the image tokens that it is written onto
    adapter     what the temporal adapter adds; zeros in an image model
    """

    fovea: np.ndarray
    image: np.ndarray
    landmarks: np.ndarray
    prompt: np.ndarray
    tokens: np.ndarray
    adapter: np.ndarray

    def loudness(self, part: str = "prompt") -> np.ndarray:
        """Length of what a part adds over the length of the tokens it is added to, one number a block `[blocks]`."""
        return (getattr(self, part).mean((1, 2, 3)) / self.tokens.mean((1, 2, 3))).round(6)


@torch.no_grad()
def prompt_maps(model: S2DClassifier, clip: Tensor, landmarks: Tensor | None = None) -> PromptMaps:
    """Read one clip `[1 3 t h w]` (or still, by an image model) in evaluation mode and keep what passes by.

    ValueError for several clips, or for a model without prompts.
    """
    if len(clip) != 1 or not model.prompts:
        raise Refused(f"prompt_maps reads one clip with a model that has prompts, got {len(clip)} clips and "
                      f"prompts={model.prompts}")
    kept: dict[str, list[Tensor]] = {name: [] for name in PromptMaps.__dataclass_fields__}

    def see_fovea(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        g = inputs[0]
        kept["fovea"].append((module.smooth * g).flatten(2).softmax(-1).view_as(g).mean(1))
        kept["image"].append(output.norm(dim=1))

    def see_prompter(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        kept["prompt"].append(_on_grid(output.norm(dim=-1), model.grid))
        if not model.temporal:
            kept["adapter"].append(torch.zeros_like(kept["prompt"][-1]))

    hooks = []
    for i, block in enumerate(model.prompt_blocks):
        hooks += [block.fovea.register_forward_hook(see_fovea), block.register_forward_hook(see_prompter),
                  block.conv0_1.register_forward_hook(lambda m, i, out: kept["landmarks"].append(out.norm(dim=1))),
                  model.blocks[i].register_forward_pre_hook(
                      lambda m, inputs: kept["tokens"].append(_on_grid(inputs[0][:, 1:].norm(dim=-1), model.grid)))]
        if model.temporal:
            hooks.append(block.TMA.register_forward_hook(
                lambda m, i, out: kept["adapter"].append(_on_grid(out.norm(dim=-1), model.grid))))
    was_training = model.training
    try:
        model.eval()(clip, landmarks)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return PromptMaps(**{name: torch.stack(maps).double().numpy() for name, maps in kept.items()})


def _on_grid(values: Tensor, grid: tuple[int, int]) -> Tensor:
    return rearrange(values, "t (h w) -> t h w", h=grid[0], w=grid[1])


@contextmanager
def without(model: S2DClassifier, *parts: str, blocks: Sequence[int] | None = None) -> Iterator[S2DClassifier]:
    """Silence "prompts", "time" (the temporal adapters) or both meanwhile: they add nothing, in all or some blocks."""
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"parts are {' and '.join(PARTS)}, got {part!r}")
    chosen = [model.prompt_blocks[i] for i in (range(len(model.prompt_blocks)) if blocks is None else blocks)]
    silent = [block for block in chosen if "prompts" in parts] + [block.TMA for block in chosen if "time" in parts]
    hooks = [module.register_forward_hook(lambda m, i, output: torch.zeros_like(output)) for module in silent]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
