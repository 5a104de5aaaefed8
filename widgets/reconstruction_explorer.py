"""mask ratio → what comes back     reconstruction_explorer: how much is rebuilt, and how much is lent?

The shipped encoder and decoder, on drawn people they have never seen. Belongs to chapters 05 and 06.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, cells, dial, front, recorded, settle, sheet, with_alt

RATIOS = [0.3, 0.5, 0.75, 0.9, 0.95]
KINDS = ["random", "tube", "frame"]
FACES = [0, 1, 2]
SHOWN = {"lent": "un-normalised with the true mean and spread", "raw": "the raw prediction, normalised",
         "means": "no network: the true means alone"}
SEED, SLOTS = 41, 4  # of people in no training set; time slots of a clip of 8 frames


class ReconstructionExplorer(Explorer):
    """What the shipped masked autoencoder makes of hidden tokens. `ReconstructionExplorer(ratio=0.95, shown="raw")`."""

    name = "reconstruction_explorer"
    title = "What comes back from a few tokens"
    question = "How much can be hidden, and how much of the picture is lent by the truth?"
    _esm = front("reconstruction_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Reconstructions of three stills and three clips under every mask, and the share of the gap that is closed."""
        frames, states = [], {}
        for what in ("image", "clip"):
            for face in FACES:
                inputs = None
                for kind in KINDS if what == "clip" else KINDS[:1]:
                    for ratio in RATIOS:
                        found = rebuild(what, face, kind, ratio)
                        if inputs is None:
                            inputs = len(frames)
                            frames += list(found["input"])
                        key, place = f"{what} {face} {kind} {ratio}", len(frames)
                        for shown in SHOWN:
                            frames += list(found[shown])
                        states[key] = {"input": inputs, "place": place, "closed": round(found["closed"], 4),
                                       "mask": base64.b64encode(np.packbits(found["mask"]).tobytes()).decode()}
        return {"dials": [dial("what", "Input", ["image", "clip"], "image", kind="choice",
                               labels=["an image", "a clip"]),
                          dial("kind", "Mask", KINDS, "random", kind="choice"),
                          dial("ratio", "Hidden share", RATIOS, 0.75, labels=[f"{100 * r:g} %" for r in RATIOS]),
                          dial("face", "Face", FACES, 0, labels=[str(face + 1) for face in FACES]),
                          dial("shown", "What is shown", list(SHOWN), "lent", kind="choice",
                               labels=list(SHOWN.values()), wide=True),
                          dial("paste", "Keep visible tokens", [False, True], True, kind="flag")],
                "states": states, "order": list(SHOWN), "grid": [SLOTS, 6, 6], "sheet": sheet(frames, 24, 62)}

    def draw(self) -> Image.Image:
        return draw_reconstruction(self.dials)


@lru_cache
def inputs(what: str, face: int) -> Any:
    """A normalised still `[1 3 h w]` or clip `[1 3 t h w]` of the size of the shipped model."""
    import torch
    from einops import rearrange

    from s4d_lib.clips import centre_indices, normalise
    from s4d_lib.synthetic_faces import RECIPES, make_clips, make_stills

    recipe = replace(RECIPES["default"], size=48)
    if what == "image":
        still = make_stills(recipe, 48, SEED).frames[3 + 5 * face]
        return normalise(rearrange(still.float() / 255, "h w c -> 1 c h w"))
    clip = make_clips(recipe, 4 * (face + 1), SEED).frames[4 * face]
    chosen = clip[torch.tensor(centre_indices(len(clip), 2 * SLOTS, 2))]
    return normalise(rearrange(chosen.float() / 255, "t h w c -> 1 c t h w"))


@lru_cache
def shipped() -> Any:
    """The masked autoencoder that comes with the library."""
    from s4d_lib.checkpoints import load_model
    from s4d_lib.weights import SHIPPED

    return load_model(SHIPPED["encoder"])


def rebuild(what: str, face: int, kind: str, ratio: float) -> dict[str, Any]:
    """input, lent, raw, means: u8 `[slots h w 3]`, first frame of every slot; mask bool `[n]`; closed: the share of
    what predicting zero leaves open that the prediction closes, over hidden tokens.
    """
    import torch
    from einops import rearrange

    from s4d_lib.layers import masking, paste_prediction, unpatchify

    model = shipped()
    s, x = model.size, inputs(what, face)
    source = torch.Generator().manual_seed(100 + face)
    mask = getattr(masking, f"{kind}_mask")(1, s.image_grid if what == "image" else s.grid, ratio, source)
    with torch.no_grad():
        guess, truth = model(x, mask).prediction, model.patches(x)

    def pictures(values: Any) -> np.ndarray:
        slots = rearrange(values[0], "c t h w -> t h w c")[:: s.tubelet]
        return (255 * slots.clamp(0, 1)).round().to(torch.uint8).numpy()

    def pasted(prediction: Any, where: Any) -> np.ndarray:
        return pictures(paste_prediction(x, prediction, where, s.patch, s.tubelet, model.target_epsilon))

    everywhere, nothing = torch.ones_like(mask), torch.zeros_like(guess)
    raw = unpatchify(rearrange(0.5 + guess / 5, "b n (s c) -> b n c s", c=3), s.height, s.width, s.patch, s.tubelet)
    left, open_ = ((value - truth)[mask].square().sum() for value in (guess, nothing))
    return {"input": pasted(guess, torch.zeros_like(mask)), "lent": pasted(guess, everywhere), "raw": pictures(raw),
            "means": pasted(nothing, everywhere), "mask": mask[0].numpy(), "closed": float(1 - left / open_)}


def draw_reconstruction(dials: dict[str, Any]) -> Image.Image:
    """Input, what the encoder sees and the reconstruction at some dials, one below the other."""
    dials = settle("reconstruction_explorer", dials)
    kept = recorded("reconstruction_explorer")
    still = dials["what"] == "image"
    kind, slots = ("random", 1) if still else (dials["kind"], SLOTS)
    state = kept["states"][f"{dials['what']} {dials['face']} {kind} {dials['ratio']}"]
    frames = cells(kept["sheet"])
    real = frames[state["input"] :][:slots]
    made = frames[state["place"] + slots * list(SHOWN).index(dials["shown"]) :][:slots]
    count = slots * 36
    hidden = np.unpackbits(np.frombuffer(base64.b64decode(state["mask"]), np.uint8))[:count].astype(bool)
    tiles = hidden.reshape(slots, 6, 6).repeat(8, 1).repeat(8, 2)[..., None]
    rows = [real, np.where(tiles, 176, real), np.where(tiles, made, real) if dials["paste"] else made]
    page = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=int(still))
    picture = Image.fromarray(page.astype(np.uint8))
    return with_alt(picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC),
                    f"A drawn {dials['what']}, the same with {100 * dials['ratio']:g} % of its tokens hidden ({kind} "
                    f"mask), and its reconstruction ({SHOWN[dials['shown']]}): {100 * state['closed']:.0f} % of what "
                    "predicting nothing leaves open is closed.")
