"""block, modality, class → experts     router_explorer: who routes where, and does it depend on what is shown?

Shares are those of the recorded inspection of chapter 09, seed by seed. The tint names the expert that most samples
choose at a place; the face below it is only there to see which place that is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, cells, dial, front, recorded, settle, sheet, with_alt

MODALITIES = ("clip", "image")
SIDE = 64


class RouterExplorer(Explorer):
    """Which expert gets which place, block by block. `RouterExplorer(modality="image", block=3)`."""

    name = "router_explorer"
    title = "Who routes where"
    question = "Do the experts divide faces by place, by modality or by apparent expression?"
    _esm = front("router_explorer")

    @classmethod
    def sources(cls) -> list[str]:
        return ["routing_inspection"]

    @classmethod
    def record(cls) -> dict[str, Any]:
        """The committed inspection, and a face of every class as still and as the slots of a clip."""
        from s4d_lib.records import results
        from s4d_lib.synthetic_faces import EMOTIONS

        record = results("routing_inspection")
        found, seeds = record.results["inspections"], list(record.seeds)
        grids = {"clip": found[0]["grid"], "image": [1, *found[0]["grid"][1:]]}
        runs = [{"load": {m: {key: one["load"][m][key] for key in ("all", "class")} for m in MODALITIES},
                 "places": {m: np.round(one["places"][m], 3).tolist() for m in MODALITIES},
                 "information": {key: [{k: round(row[k], 4) for k in ("bits", "high")}
                                       for row in one["information"][key]]
                                 for key in ("modality", "class, clips", "class, images")}} for one in found]
        return {"dials": [dial("modality", "Shown", list(MODALITIES), "clip", kind="choice",
                               labels=["clips", "stills"]),
                          dial("block", "Block", found[0]["blocks"], found[0]["blocks"][-1]),
                          dial("label", "Apparent expression", ["all", *EMOTIONS], "all", kind="choice"),
                          dial("seed", "Training run", list(range(len(seeds))), 0,
                               labels=[f"seed {seed}" for seed in seeds]),
                          dial("tint", "Tint by expert", [False, True], True, kind="flag")],
                "blocks": found[0]["blocks"], "grids": grids, "classes": list(EMOTIONS), "runs": runs,
                "sheet": sheet(example_faces(grids["clip"][0]), columns=1 + grids["clip"][0])}

    def draw(self) -> Image.Image:
        return draw_router(self.dials)


def example_faces(slots: int) -> np.ndarray:
    """A row a class: one still, then the slots of one clip; u8 `[classes·(1 + slots) h w 3]`."""
    from s4d_lib.synthetic_faces import EMOTIONS, RECIPES, make_clips, make_stills

    recipe = replace(RECIPES["easy"], size=SIDE)
    stills, clips = make_stills(recipe, 48, 3), make_clips(recipe, 20, 3)
    rows = []
    for label in range(len(EMOTIONS)):
        rows.append(stills.frames[(stills.emotions == label).nonzero()[0, 0]].numpy())
        clip = clips.frames[int((clips.emotions == label).nonzero()[0, 0])]
        rows += list(clip[np.linspace(0, len(clip) - 1, slots).round().astype(int)].numpy())
    return np.stack(rows)


def state(dials: dict[str, Any], kept: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share of choices on each expert `[e]`, the same over all classes `[e]`, shares by place `[t h w e]`)."""
    run, m, block = kept["runs"][dials["seed"]], dials["modality"], kept["blocks"].index(dials["block"])
    every = np.asarray(run["load"][m]["all"])[block]
    here = every if dials["label"] == "all" else np.asarray(
        run["load"][m]["class"])[kept["classes"].index(dials["label"]), block]
    return here, every, np.asarray(run["places"][m])[:, block].reshape(*kept["grids"][m], -1)


def draw_router(dials: dict[str, Any]) -> Image.Image:
    """The explorer's faces at some dials, every place tinted by its most chosen expert."""
    from s4d_lib.figures import draw_expert_map

    dials = settle("router_explorer", dials)
    kept = recorded("router_explorer")
    here, _, places = state(dials, kept)
    slots = kept["grids"]["clip"][0]
    row = (kept["classes"].index(dials["label"]) if dials["label"] != "all" else 0) * (1 + slots)
    faces = cells(kept["sheet"])[row : row + 1 + slots]
    shown = faces[1:] if dials["modality"] == "clip" else faces[:1]
    parts = [np.asarray(draw_expert_map(face, best, 2).convert("RGB"))[:, SIDE * 2 * dials["tint"] :][:, : SIDE * 2]
             for face, best in zip(shown, places.argmax(-1))]
    what = "clips" if dials["modality"] == "clip" else "stills"
    shares = ", ".join(f"expert {e} {100 * share:.0f} %" for e, share in enumerate(here))
    return with_alt(Image.fromarray(np.concatenate(parts, axis=1)),
                    f"Drawn faces tinted by the most chosen expert of each place in block {dials['block']} on {what}, "
                    f"apparent expression: {dials['label']}. Share of choices: {shares}.")
