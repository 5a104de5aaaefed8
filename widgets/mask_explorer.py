"""kind, ratio → visible tokens     mask_explorer: what does a mask leave, and what can be copied from neighbours?

Grids are those of the paper's input: 8 × 10 × 10 tokens of a clip of 16 frames at 160 × 160, 1 × 10 × 10 of an image.
Belongs to chapter 04.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, cells, dial, front, recorded, settle, sheet, with_alt

GRIDS = {"clip": (8, 10, 10), "image": (1, 10, 10)}
RATIOS = [0.3, 0.5, 0.75, 0.8, 0.9, 0.95]
KINDS = ["random", "frame", "tube"]
SEEDS = [0, 1, 2]
SIDE, STILL = 80, 8  # pixels of a recorded frame; the place of the still after the eight slots


class MaskExplorer(Explorer):
    """Masks of every kind over a clip or an image. `MaskExplorer(kind="tube", ratio=0.9)`."""

    name = "mask_explorer"
    title = "What a mask leaves"
    question = "Which kind of mask makes a hidden token hard to copy from the slot before or after?"
    _esm = front("mask_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Exact masks of `layers/masking.py`, one bit a token, and the frames they lie on."""
        import torch

        from s4d_lib.synthetic_faces import RECIPES, make_clips

        recipe = replace(RECIPES["default"], size=SIDE)
        clip = make_clips(recipe, 4, 5).frames[1]
        frames = clip[np.linspace(0, len(clip) - 1, GRIDS["clip"][0]).round().astype(int)]
        masks = {}
        for what, kind, ratio, seed in ((a, b, c, d) for a in GRIDS for b in KINDS for c in RATIOS for d in SEEDS):
            if what == "clip" or kind == "random":
                hidden = draw_hidden(what, kind, ratio, seed)
                masks[f"{what} {kind} {ratio} {seed}"] = base64.b64encode(np.packbits(hidden).tobytes()).decode()
        return {"dials": [dial("what", "Input", list(GRIDS), "clip", kind="choice", labels=["a clip", "an image"]),
                          dial("kind", "Mask", KINDS, "tube", kind="choice"),
                          dial("ratio", "Hidden share", RATIOS, 0.9, labels=[f"{100 * r:g} %" for r in RATIOS]),
                          dial("seed", "Draw", SEEDS, 0, labels=[str(s + 1) for s in SEEDS]),
                          dial("copies", "Mark what can be copied", [False, True], True, kind="flag")],
                "grids": GRIDS, "masks": masks, "still": STILL,
                "sheet": sheet(torch.cat([frames, frames[-3:-2]]), columns=3)}

    def draw(self) -> Image.Image:
        return draw_mask(self.dials)


def draw_hidden(what: str, kind: str, ratio: float, seed: int) -> np.ndarray:
    """A mask of the library: bool `[n]`, True = hidden."""
    import torch

    from s4d_lib.layers import masking

    source = torch.Generator().manual_seed(seed)
    return getattr(masking, f"{kind}_mask")(1, GRIDS[what], ratio, source)[0].numpy()


def copyable(hidden: np.ndarray, grid: tuple[int, int, int]) -> int:
    """Hidden tokens that are visible at the same place in the slot before or after."""
    slots = hidden.reshape(grid[0], -1)
    shown = np.zeros_like(slots)
    shown[1:] |= ~slots[:-1]
    shown[:-1] |= ~slots[1:]
    return int((slots & shown).sum())


def draw_mask(dials: dict[str, Any]) -> Image.Image:
    """The explorer's picture at some dials, hidden tokens grey: time slots left to right."""
    import torch

    from s4d_lib.figures import filmstrip, hide_tubelets

    dials = settle("mask_explorer", dials)
    what, grid = dials["what"], GRIDS[dials["what"]]
    kind = dials["kind"] if what == "clip" else "random"
    hidden = draw_hidden(what, kind, dials["ratio"], dials["seed"])
    frames = cells(recorded("mask_explorer")["sheet"])
    frames = torch.from_numpy(frames[:STILL] if what == "clip" else frames[STILL:].copy())
    told = f"{int((~hidden).sum())} of {len(hidden)} tokens stay visible, {int(hidden.sum())} are hidden"
    if what == "clip":
        told += f"; {copyable(hidden, grid)} of the hidden ones are visible one slot earlier or later"
    painted = hide_tubelets(frames, torch.from_numpy(hidden), grid)
    return with_alt(filmstrip(painted, len(painted), 1 if what == "clip" else 3),
                    f"A drawn {what} under a {kind} mask of ratio {dials['ratio']}: {told}.")
