"""person, action units, turn → pictures     the drawn faces of the explorers, all in one calm view.

Nobody here exists. A pattern is an apparent expression (the units that its prototype always has) or one single unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PEOPLE = (0, 12, 5)  # seeds of `sample_people`: three faces of different age and skin
UNITS = {1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
         7: "lid tightener", 9: "nose wrinkler", 12: "lip corner puller", 15: "lip corner depressor",
         20: "lip stretcher", 25: "lips part", 26: "jaw drop"}  # names after Ekman & Friesen 1978
EXPRESSIONS = ("Happiness", "Sadness", "Anger", "Surprise", "Disgust", "Fear")
PATTERNS = [*EXPRESSIONS, *(f"AU {unit}" for unit in UNITS)]
PATTERN_NAMES = [*(f"apparent {name.lower()}" for name in EXPRESSIONS),
                 *(f"AU {unit}, {name}" for unit, name in UNITS.items())]


def units_of(pattern: str) -> np.ndarray:
    """Action units `[u]` of a pattern at its apex."""
    from s4d_lib.synthetic_faces import ACTION_UNITS, ALWAYS, AU_INDEX, EMOTIONS

    if pattern in EMOTIONS:
        return ALWAYS[EMOTIONS.index(pattern)].copy()
    row = np.zeros(len(ACTION_UNITS))
    row[AU_INDEX[int(pattern.removeprefix("AU "))]] = 1.0
    return row


def portraits(people: Sequence[int], units: np.ndarray, size: int, yaw: Sequence[float] | float = 0.0) -> tuple:
    """Faces of some people, one each row of units `[n u]` → frames u8 `[n h w 3]`, landmarks f32 `[n 68 2]` in pixels.

    yaw: turn of the head in radians, positive towards the viewer's right.
    """
    import torch

    from s4d_lib.synthetic_faces import View, render, sample_people, sample_views

    calm = View(scale=(1.12, 1.12), shift=0.0, centre_y=-0.08, roll=0.0, yaw=0.0, pitch=0.0, gaze=0.0, light=0.4,
                blur=(0.0, 0.0), noise=(0.0, 0.0), occlusion=0.0)
    rows: list[dict[str, Any]] = []
    for seed in people:
        rng = np.random.default_rng(seed)
        rows.append(sample_people(rng, 1) | sample_views(rng, 1, calm))
    face = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    face["yaw"] = torch.as_tensor(np.broadcast_to(np.asarray(yaw, np.float32), (len(rows),)).copy())
    frames, landmarks = render(face, torch.from_numpy(np.asarray(units, np.float32)), size)
    return frames.numpy(), landmarks.numpy()


def pack_points(landmarks: np.ndarray, size: int) -> str:
    """Landmarks `[n 68 2]` in pixels as base64, one byte a coordinate in steps of size / 255 from the edge."""
    import base64

    steps = np.clip(np.round((landmarks + 0.5) / size * 255), 0, 255).astype(np.uint8)
    return base64.b64encode(steps.tobytes()).decode()
