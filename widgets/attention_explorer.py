"""token → where it looks     attention_explorer: what does a token of the shipped encoder look at, block by block?

Attention says what was mixed, not why an answer was given. Belongs to chapter 06.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, cells, dial, front, recorded, settle, sheet, with_alt

SLOTS, ROWS, COLUMNS, HEADS = 4, 6, 6, 4
STEPS = 255


class AttentionExplorer(Explorer):
    """Attention of one token of a still or a clip. `AttentionExplorer(block=3, row=4, column=2)`."""

    name = "attention_explorer"
    title = "Where a token looks"
    question = "Does a token look at itself, at its place in other slots, or at other parts of the face?"
    _esm = front("attention_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Attention of all tokens in all blocks: four heads and their mean for a still, the mean for a clip."""
        from widgets.reconstruction_explorer import inputs

        maps, frames = {}, []
        for what in ("image", "clip"):
            x = inputs(what, 0)
            frames += list(_pictures(x))
            for block, heads in enumerate(attention(x)):  # [heads n n]
                kept = {"mean": heads.mean(0)}
                if what == "image":
                    kept |= {str(k + 1): one for k, one in enumerate(heads)}
                for head, rows in kept.items():
                    maps[f"{what} {block} {head}"] = _pack(rows)
        return {"dials": [dial("what", "Input", ["image", "clip"], "clip", kind="choice",
                               labels=["an image", "a clip"]),
                          dial("block", "Block", [0, 1, 2, 3], 0),
                          dial("head", "Head", ["mean", "1", "2", "3", "4"], "mean", kind="choice",
                               labels=["mean of four", "1", "2", "3", "4"]),
                          dial("slot", "Token: slot", [0, 1, 2, 3], 1, labels=["1", "2", "3", "4"]),
                          dial("row", "Token: row", list(range(ROWS)), 3, labels=[str(k + 1) for k in range(ROWS)]),
                          dial("column", "Token: column", list(range(COLUMNS)), 2,
                               labels=[str(k + 1) for k in range(COLUMNS)])],
                "maps": maps, "grid": [SLOTS, ROWS, COLUMNS], "sheet": sheet(frames, 5, 85)}

    def draw(self) -> Image.Image:
        return draw_attention(self.dials)


def _pack(rows: np.ndarray) -> str:
    """Attention `[n n]` → base64, a byte a value in steps of the row's highest."""
    steps = np.round(STEPS * rows / rows.max(-1, keepdims=True)).astype(np.uint8)
    return base64.b64encode(steps.tobytes()).decode()


def _pictures(x: Any) -> np.ndarray:
    """u8 `[slots h w 3]`: the first frame of every slot."""
    from s4d_lib.figures import to_frames

    return to_frames(x[0])[:: 2 if x.ndim == 5 else 1].numpy()


def attention(x: Any) -> list[np.ndarray]:
    """Softmax attention of every block of the shipped encoder on one input: a list of `[heads n n]`, rows sum to 1."""
    import torch

    from s4d_lib.checkpoints import load_model
    from s4d_lib.weights import SHIPPED

    encoder, found = load_model(SHIPPED["encoder"]).encoder, []

    for block in encoder.blocks:  # a model of our own, so nothing has to be put back
        block.attn.fused_attn = False  # the fused kernel never forms the shares
        block.attn.attn_drop.register_forward_hook(lambda part, given, shares: found.append(shares[0].numpy()))
    with torch.no_grad():
        encoder.eval()(x)
    return found


def state(dials: dict[str, Any], kept: dict[str, Any]) -> np.ndarray:
    """Shares of the chosen token's attention `[slots rows columns]`, as recorded; they sum to 1."""
    still = dials["what"] == "image"
    n = ROWS * COLUMNS * (1 if still else SLOTS)
    packed = kept["maps"][f"{dials['what']} {dials['block']} {dials['head'] if still else 'mean'}"]
    rows = np.frombuffer(base64.b64decode(packed), np.uint8).reshape(n, n)
    token = (0 if still else dials["slot"]) * ROWS * COLUMNS + dials["row"] * COLUMNS + dials["column"]
    return (rows[token] / rows[token].sum()).reshape(-1, ROWS, COLUMNS)


def draw_attention(dials: dict[str, Any]) -> Image.Image:
    """The explorer's frames at some dials, dark where the token does not look, a frame round the token."""
    from PIL import ImageDraw

    from s4d_lib.figures import PALETTE

    dials = settle("attention_explorer", dials)
    kept = recorded("attention_explorer")
    still, shares = dials["what"] == "image", state(dials, kept)
    frames = cells(kept["sheet"])[:1] if still else cells(kept["sheet"])[1:]
    light = 0.15 + 0.85 * shares / shares.max()
    scale = 4
    page = (frames * light.repeat(8, 1).repeat(8, 2)[..., None]).astype(np.uint8)
    picture = Image.fromarray(np.concatenate(list(page), axis=1))
    picture = picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)
    slot = 0 if still else dials["slot"]
    x, y, p = scale * (48 * slot + 8 * dials["column"]), scale * 8 * dials["row"], 8 * scale
    ImageDraw.Draw(picture).rectangle([x, y, x + p, y + p], outline=PALETTE["image"], width=3)
    own = shares[slot, dials["row"], dials["column"]]
    return with_alt(picture, f"A drawn {dials['what']} dimmed where the token in row {dials['row'] + 1}, column "
                    f"{dials['column'] + 1} does not look in block {dials['block']}; {100 * own:.0f} % of its "
                    f"attention is on itself and {100 * shares[slot].sum():.0f} % on its own slot.")
