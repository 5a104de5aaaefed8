"""expression, turn → 68 points     landmark_explorer: what moves landmarks more, an expression or a turn of the head?

The points are exact: they lie on the curves that were drawn. Belongs to chapter 11.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, dial, front, settle, sheet, with_alt
from widgets.portraits import EXPRESSIONS, pack_points, portraits, units_of

SIDE, PEOPLE = 72, (0, 12)
SHARES = [0.0, 0.5, 1.0]
TURNS = [-0.3, -0.15, 0.0, 0.15, 0.3]  # radians
PARTS = {"jaw": (0, 17), "brows": (17, 27), "nose": (27, 36), "eyes": (36, 48), "mouth": (48, 68)}  # iBUG order


class LandmarkExplorer(Explorer):
    """Landmarks of a drawn face against those at rest. `LandmarkExplorer(pattern="Fear", turn=0.3)`."""

    name = "landmark_explorer"
    title = "What 68 points say"
    question = "What moves the points more, an expression or a turn of the head?"
    _esm = front("landmark_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Every expression at rest, half and full, in five turns of the head, on two people."""
        rows = [(person, units_of(pattern) * share, turn) for person in PEOPLE for turn in TURNS
                for pattern, share in [("Happiness", 0.0), *((p, s) for p in EXPRESSIONS for s in SHARES[1:])]]
        frames, points = portraits([row[0] for row in rows], np.stack([row[1] for row in rows]), SIDE,
                                   [row[2] for row in rows])
        return {"dials": [dial("person", "Person", [0, 1], 0, labels=["first", "second"]),
                          dial("pattern", "Expression", list(EXPRESSIONS), "Surprise", kind="choice",
                               labels=[f"apparent {name.lower()}" for name in EXPRESSIONS]),
                          dial("share", "Intensity", SHARES, 1.0, labels=[f"{100 * share:.0f} %" for share in SHARES]),
                          dial("turn", "Turn of the head", TURNS, 0.15,
                               labels=[f"{np.degrees(turn):+.0f}°" if turn else "0°" for turn in TURNS]),
                          dial("face", "Show the face", [False, True], True, kind="flag"),
                          dial("paths", "Show the way", [False, True], True, kind="flag")],
                "patterns": list(EXPRESSIONS), "shares": SHARES, "turns": TURNS, "parts": PARTS,
                "sheet": sheet(frames, 1 + 2 * len(EXPRESSIONS), 75), "points": pack_points(points, SIDE)}

    def draw(self) -> Image.Image:
        return draw_landmarks(self.dials)


def landmarks(dials: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frame u8 `[h w 3]`, its points `[68 2]`, those of the face at rest, looking ahead), in shares of the side."""
    person, side = PEOPLE[dials["person"]], 3 * SIDE
    units = np.stack([units_of(dials["pattern"]) * dials["share"], np.zeros_like(units_of("AU 1"))])
    frames, points = portraits([person, person], units, side, [dials["turn"], 0.0])
    return frames[0], *((points + 0.5) / side)


def movement(points: np.ndarray, rest: np.ndarray) -> dict[str, float]:
    """How far the points of each part moved on average, in percent of the distance between the eyes at rest."""
    between = np.linalg.norm(rest[36:42].mean(0) - rest[42:48].mean(0))
    moved = 100 * np.linalg.norm(points - rest, axis=1) / between
    return {part: float(moved[first:last].mean()) for part, (first, last) in PARTS.items()}


def draw_landmarks(dials: dict[str, Any]) -> Image.Image:
    """The explorer's face with its points at some dials."""
    import torch

    from s4d_lib.figures import mark_landmarks

    dials = settle("landmark_explorer", dials)
    frame, points, rest = landmarks(dials)
    marked = mark_landmarks(torch.from_numpy(frame)[None], torch.from_numpy(points * len(frame) - 0.5)[None], 1)
    told = ", ".join(f"{part} {value:.0f} %" for part, value in movement(points, rest).items())
    return with_alt(Image.fromarray(marked[0].numpy()),
                    f"A drawn face with 68 landmarks, apparent {dials['pattern'].lower()} at "
                    f"{100 * dials['share']:.0f} %, turned by {np.degrees(dials['turn']):.0f}°. Mean movement in "
                    f"percent of the distance between the eyes: {told}.")
