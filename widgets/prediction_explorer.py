"""moment, smoothing, threshold → answer     prediction_explorer: what does a clip classifier say over time?

A drawn film whose every moment is known, read by the shipped classifier. Belongs to chapter 12.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from widgets.explorer import Explorer, dial, front, recorded, settle, sheet
from widgets.portraits import portraits, units_of

FPS, SIDE, PERSON = 12.5, 64, 17
ORDER = ("Surprise", "Happiness", "Anger", "Fear")
REST, RISE, HOLD = 1.2, 0.4, 1.6
REACHES = [0.0, 0.5, 1.0, 2.0, 4.0]
THRESHOLDS = [0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
HOP = 0.16  # seconds from one window to the next: every picture that is read


class PredictionExplorer(Explorer):
    """Probabilities of a drawn film over time. `PredictionExplorer(smooth=2.0, threshold=0.6)`."""

    name = "prediction_explorer"
    title = "A timeline and its silences"
    question = "What do smoothing and a threshold buy, and what do they cost?"
    _esm = front("prediction_explorer")

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Calibrated probabilities of every window, smoothed in five ways, the truth, and frames of the film."""
        from s4d_lib.figures import COLOURS
        from s4d_lib.predict import smooth_in_time

        frames, truth = film()
        found = read(frames)
        middle, classes = found.windows.middle, list(found.classes)
        shown = np.clip(np.round(middle * FPS).astype(int), 0, len(frames) - 1)
        smoothed = {str(reach): np.round(100 * smooth_in_time(found.windows.probabilities, middle, reach), 1).tolist()
                    for reach in REACHES}
        return {"dials": [dial("window", "Moment", list(range(len(middle))), len(middle) // 8,
                               labels=[f"{second:.2f} s" for second in middle]),
                          dial("smooth", "Smoothing", REACHES, 1.0,
                               labels=[f"{reach:g} s" for reach in REACHES]),
                          dial("threshold", "Silent below", THRESHOLDS, 0.4,
                               labels=[f"{100 * t:.0f} %" for t in THRESHOLDS])],
                "classes": classes, "colours": {name: COLOURS[name] for name in classes},
                "seconds": middle.round(3).tolist(), "duration": round(float(found.duration), 3),
                "smoothed": smoothed, "truth": [truth[k] for k in shown], "sheet": sheet(frames[shown], 10, 70)}

    def draw(self) -> Any:
        return draw_prediction(self.dials)


def film() -> tuple[np.ndarray, list[str]]:
    """Frames u8 `[t h w 3]` of one person's four expressions with rests between, and what is shown in each frame."""
    from s4d_lib.synthetic_faces import smooth_step

    length = HOLD + 2 * RISE
    t = np.arange(round((REST + len(ORDER) * (length + REST)) * FPS)) / FPS
    units, truth = 0.0, np.full(len(t), "Neutral", dtype=object)
    for k, name in enumerate(ORDER):
        start = REST + k * (length + REST)
        share = smooth_step((t - start) / RISE) * (1 - smooth_step((t - start - length + RISE) / RISE))
        units = units + share[:, None] * units_of(name)
        truth[share >= 0.5] = name
    return portraits([PERSON] * len(t), units, SIDE, 0.1 * np.sin(1.3 * t))[0], truth.tolist()


def read(frames: np.ndarray) -> Any:
    """The shipped classifier's `predict.timelines.Prediction` of a film."""
    from s4d_lib.frames import write_mp4
    from s4d_lib.predict import predict_one

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, frames, FPS)
        return predict_one(path, None, crop="none", hop=HOP, smooth=0.0, abstain=0.0, thumbnails=0)


def facts(dials: dict[str, Any], kept: dict[str, Any]) -> dict[str, float]:
    """Share of the windows with an answer, and of those the share that is right."""
    p = np.asarray(kept["smoothed"][str(dials["smooth"])])
    given = p.max(1) >= 100 * dials["threshold"]
    right = np.array(kept["classes"])[p.argmax(1)] == np.array(kept["truth"])
    return {"answered": float(given.mean()), "right": float(right[given].mean()) if given.any() else 0.0}


def draw_prediction(dials: dict[str, Any]) -> Any:
    """Stacked probabilities over time with the answer and the truth below, at some dials."""
    from s4d_lib.figures import COLOURS, PALETTE, new_figure

    dials = settle("prediction_explorer", dials)
    kept = recorded("prediction_explorer")
    told, p = facts(dials, kept), np.asarray(kept["smoothed"][str(dials["smooth"])])
    figure = new_figure(f"Smoothed over {dials['smooth']:g} s, silent below {100 * dials['threshold']:.0f} %",
                        "seconds", "probability (%)",
                        f"Stacked probabilities of {len(kept['classes'])} apparent expressions over "
                        f"{kept['duration']:.0f} seconds of a drawn film, answer and truth below; "
                        f"{100 * told['answered']:.0f} % of the windows answered, {100 * told['right']:.0f} % of "
                        "these right", 760, 420)
    for column, name in enumerate(kept["classes"]):
        figure.add_scatter(x=kept["seconds"], y=p[:, column], name=name, stackgroup="p", mode="lines",
                           line={"width": 0.5, "color": COLOURS.get(name, PALETTE["floor"])})
    answers = [kept["classes"][row.argmax()] if row.max() >= 100 * dials["threshold"] else "" for row in p]
    for y, names in ((-8, answers), (-18, kept["truth"])):
        for name in dict.fromkeys(filter(None, names)):
            figure.add_scatter(x=[s for s, other in zip(kept["seconds"], names) if other == name],
                               y=[y for other in names if other == name], mode="markers", showlegend=False,
                               marker={"symbol": "square", "size": 6, "color": COLOURS.get(name, PALETTE["floor"])})
    figure.update_yaxes(range=[-24, 100], tickvals=[-18, -8, 0, 50, 100],
                        ticktext=["truth", "answer", "0", "50", "100"])
    return figure
