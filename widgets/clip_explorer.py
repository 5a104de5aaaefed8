"""length, stride, rule → frames     clip_explorer: which 16 frames of a video does a model see, and which twice?

Positions are those of `clips/positions.py`, looked up and not computed again. Belongs to chapter 02.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from widgets.explorer import Explorer, dial, front, settle, sheet
from widgets.portraits import portraits, units_of

FRAMES, FPS, SIDE = 16, 25.0, 48
LENGTHS = [8, 12, 16, 20, 24, 32, 40, 48, 64, 80]
STRIDES = [1, 2, 4]
DRAWS = [0, 1, 2]
RULES = {"centre": "training rule, middle", "train": "training rule, random start",
         "pretrain": "pretraining, random start",
         "first": "test, first view of two", "last": "test, last view of two"}


class ClipExplorer(Explorer):
    """Which frames each rule takes. `ClipExplorer(length=20, stride=4)`."""

    name = "clip_explorer"
    title = "Sixteen frames of a video"
    question = "Which frames does each rule take, and what happens when the video is too short?"
    _esm = front("clip_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """The positions of every rule, and a drawn video of 80 frames in which a face smiles and is then surprised."""
        table = {f"{rule} {length} {stride} {draw}": positions(rule, length, stride, draw)
                 for rule in RULES for length in LENGTHS for stride in STRIDES for draw in DRAWS}
        return {"dials": [dial("rule", "Rule", list(RULES), "centre", kind="choice", labels=list(RULES.values()),
                               wide=True),
                          dial("length", "Video", LENGTHS, 20, unit=" frames"),
                          dial("stride", "Stride", STRIDES, 4),
                          dial("draw", "Draw", DRAWS, 0, labels=[str(draw + 1) for draw in DRAWS])],
                "table": table, "fps": FPS, "random": ["train", "pretrain"], "sheet": sheet(video(), 10, 75)}

    def draw(self) -> Any:
        return draw_clip(self.dials)


def positions(rule: str, length: int, stride: int, draw: int) -> list[int]:
    """The 16 positions that a rule takes from a video of `length` frames."""
    from s4d_lib import clips

    if rule in ("first", "last"):
        return clips.test_views(length, FRAMES, stride)[0 if rule == "first" else -1]
    if rule == "centre":
        return clips.centre_indices(length, FRAMES, stride)
    return getattr(clips, f"{rule}_indices")(length, FRAMES, stride, np.random.default_rng(draw))


def video() -> np.ndarray:
    """The longest video, u8 `[80 h w 3]`; a shorter one is its beginning."""
    from s4d_lib.synthetic_faces import smooth_step

    t = np.arange(max(LENGTHS)) / FPS
    smile = smooth_step((t - 0.2) / 0.4) * (1 - smooth_step((t - 1.2) / 0.4))
    surprise = smooth_step((t - 1.6) / 0.3) * (1 - smooth_step((t - 2.7) / 0.4))
    units = smile[:, None] * units_of("Happiness") + surprise[:, None] * units_of("Surprise")
    return portraits([12] * len(t), units, SIDE, 0.18 * np.sin(2.2 * t))[0]


def facts(taken: list[int]) -> dict[str, int]:
    """How many different frames, how many repeats, and the frames from the first to the last taken."""
    return {"different": len(set(taken)), "repeats": len(taken) - len(set(taken)), "span": max(taken) - min(taken) + 1}


def draw_clip(dials: dict[str, Any]) -> Any:
    """All rules at the length and stride of the dials, one row each; a number says how often a frame is taken."""
    from s4d_lib.figures import draw_frames_taken

    dials = settle("clip_explorer", dials)
    rules = {name: positions(rule, dials["length"], dials["stride"], dials["draw"]) for rule, name in RULES.items()}
    return draw_frames_taken(rules, dials["length"], f"16 of {dials['length']} frames at stride {dials['stride']}")
