"""pattern, intensity, time → face     face_explorer: what does a still show that one frame of a clip may not?

Beside each other the still recipe, which shows an expression at its apex, and the moving recipe, in which it rises,
holds and fades within a second. Belongs to chapter 01.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from widgets.explorer import Explorer, dial, front, recorded, settle, sheet, with_alt
from widgets.portraits import PATTERN_NAMES, PATTERNS, PEOPLE, UNITS, pack_points, portraits, units_of

SIDE, STEPS, FPS, FRAMES = 80, 6, 12.5, 14
TIMES = np.arange(FRAMES) / FPS


def presence(seconds: np.ndarray) -> np.ndarray:
    """Share of its apex that the expression of the moving recipe has at some times: it rises, holds and fades."""
    from s4d_lib.synthetic_faces import smooth_step

    return smooth_step((seconds - 0.15) / 0.3) * (1 - smooth_step((seconds - 0.7) / 0.3))


class FaceExplorer(Explorer):
    """Action units of a drawn face, still and moving. `FaceExplorer(live=True)` mixes units and draws new people."""

    name = "face_explorer"
    title = "A still and a moving face"
    question = "What does a still show that a single frame of a clip may not?"
    _esm = front("face_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Every pattern in sixths of its apex on three people, with the 68 landmarks."""
        rows = [np.zeros_like(units_of("AU 1"))]
        rows += [units_of(pattern) * step / STEPS for pattern in PATTERNS for step in range(1, STEPS + 1)]
        frames, points = portraits(np.repeat(PEOPLE, len(rows)), np.tile(rows, (len(PEOPLE), 1)), SIDE)
        shares = [round(step / STEPS, 4) for step in range(STEPS + 1)]
        return {"dials": [dial("person", "Person", list(range(len(PEOPLE))), 0, labels=["first", "second", "third"]),
                          dial("pattern", "Pattern", PATTERNS, "Happiness", kind="choice", labels=PATTERN_NAMES,
                               wide=True),
                          dial("intensity", "Apex", shares, 1.0,
                               labels=[f"{100 * share:.0f} %" for share in shares]),
                          dial("time", "Moment", list(range(FRAMES)), 3,
                               labels=[f"{second:.2f} s" for second in TIMES]),
                          dial("landmarks", "Show the 68 landmarks", [False, True], False, kind="flag"),
                          dial("someone", "Another person", list(range(41)), 0, live=True,
                               labels=["none", *(str(n) for n in range(1, 41))]),
                          *(dial(f"au{unit}", f"+ AU {unit}, {name}", [0, 0.25, 0.5, 0.75, 1], 0, live=True)
                            for unit, name in UNITS.items())],
                "sheet": sheet(frames, columns=len(rows), quality=72), "points": pack_points(points, SIDE),
                "steps": STEPS, "patterns": PATTERNS, "presence": presence(TIMES).round(4).tolist(), "fps": FPS}

    def compute(self, dials: dict[str, Any]) -> dict[str, Any]:
        frames, points = faces(dials)
        return {"sheet": sheet(frames, 2, 90), "points": pack_points(points, SIDE * 2)}

    def draw(self) -> Image.Image:
        return draw_face(self.dials)


def faces(dials: dict[str, Any], side: int = SIDE * 2) -> tuple[np.ndarray, np.ndarray]:
    """The still and the frame of the clip at some dials, drawn exactly: u8 `[2 h w 3]`, landmarks `[2 68 2]`."""
    from s4d_lib.synthetic_faces import AU_INDEX

    units = units_of(dials["pattern"]) * dials["intensity"]
    for unit in UNITS:
        units[AU_INDEX[unit]] = min(1.25, units[AU_INDEX[unit]] + dials[f"au{unit}"])
    person = 1000 + dials["someone"] if dials["someone"] else PEOPLE[dials["person"]]
    share = presence(TIMES)[dials["time"]]
    return portraits([person, person], np.stack([units, units * share]), side)


def draw_face(dials: dict[str, Any]) -> Image.Image:
    """The explorer's picture at some dials: the still at its apex beside one frame of the clip."""
    import torch

    from s4d_lib.figures import mark_landmarks
    from s4d_lib.figures import sheet as laid_out

    dials = settle("face_explorer", dials)
    frames, points = (torch.from_numpy(one) for one in faces(dials))
    if dials["landmarks"]:
        frames = mark_landmarks(frames, points, 1)
    name = PATTERN_NAMES[PATTERNS.index(dials["pattern"])]
    share, second = presence(TIMES)[dials["time"]], TIMES[dials["time"]]
    return with_alt(laid_out(frames, 2, 1, ["still: the apex", f"clip at {second:.2f} s"]),
                    f"A drawn face twice, {name} at {100 * dials['intensity']:.0f} %: as a still at its apex and as "
                    f"the frame at {second:.2f} s of a clip, where {100 * share:.0f} % of the apex is there.")


def recorded_place(dials: dict[str, Any]) -> tuple[int, int]:
    """Places on the recorded sheet of the still and of the frame of the clip, as the front end finds them."""
    kept = recorded("face_explorer")
    row = dials["person"] * (1 + len(PATTERNS) * STEPS)
    def place(share: float) -> int:
        step = int(share * STEPS + 0.5)  # halves round up, as in the front end
        return row if step == 0 else row + 1 + PATTERNS.index(dials["pattern"]) * STEPS + step - 1

    return place(dials["intensity"]), place(dials["intensity"] * kept["presence"][dials["time"]])
