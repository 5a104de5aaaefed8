"""probabilities → answers     what a model said about one file: windows, a smoothed timeline, answers.

A `Prediction` is plain numbers and words. An answer is given where two things hold: a face was seen (unless nobody
looked for one), and the largest probability reaches a threshold; otherwise there is a reason and no label. The
probabilities are there in both cases.

Derived in chapter 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib.checkpoints.cards import AnswerCard
from s4d_lib.errors import Refused, require
from s4d_lib.metrics.calibration import apply_temperature

if TYPE_CHECKING:
    import pandas as pd


TWO_VIEWS, WHOLE, STILL = "two views", "whole video", "image"
SAYS = {
    TWO_VIEWS: "mean of the first and the last window: the two temporal views of the papers' test protocol",
    WHOLE: "mean of all windows that show a face; of all windows where no face was looked for or found",
    STILL: "the image head on the whole picture or on its largest face",
}
ABOUT = "A label names an apparent expression: what a face looks like to annotators, and not what a person feels."
SHIPPED_KNOWS = ("The model that comes with the library has seen synthetic, drawn faces only: about photographs and "
                 "films of people its answers say nothing reliable.")
NO_FACE = "no face"
NO_NUMBER = "the model's answer is not a number (NaN)"
THUMBNAILS = 16  # pictures in a filmstrip


@dataclass(frozen=True)
class Answer:
    """One answer about a file. `label` is None where the model abstains; `best` names the likeliest class anyway."""

    what: str                  # a key of SAYS
    classes: tuple[str, ...]
    probabilities: np.ndarray  # [c], calibrated; nan where the model's answer is not a number
    reason: str = ""           # why there is no answer

    @property
    def best(self) -> str:
        return best_of(self.classes, self.probabilities)

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())

    @property
    def abstained(self) -> bool:
        return bool(self.reason)

    @property
    def label(self) -> str | None:
        return None if self.reason else self.best

    def as_dict(self) -> dict[str, Any]:
        return {"what": self.what, "says": SAYS[self.what], "label": self.label, "best": self.best,
                "confidence": _rounded(self.confidence), "abstained": self.abstained, "reason": self.reason,
                "probabilities": _by_class(self.classes, self.probabilities)}


@dataclass(frozen=True)
class Windows:
    """What the model said about every window of a clip, in order of time; calibrated, one row a window."""

    start_frame: np.ndarray    # int [w], position of the first frame in the video
    end_frame: np.ndarray      # int [w], of the last, which belongs to the window
    start: np.ndarray          # float [w], seconds at which the first frame is shown
    end: np.ndarray            # float [w], and at which the last one is taken away
    probabilities: np.ndarray  # [w c]
    smoothed: np.ndarray       # [w c], `smooth_in_time` of them
    face: np.ndarray           # [w], share of the window's frames with a face; nan where nobody looked
    reasons: tuple[str, ...]   # why a window has no answer, "" where it has one
    smoothed_reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start)

    @property
    def middle(self) -> np.ndarray:
        """Seconds [w]: where a window stands on the timeline."""
        return (self.start + self.end) / 2

    @property
    def confidence(self) -> np.ndarray:
        return self.probabilities.max(1)

    @property
    def abstained(self) -> np.ndarray:
        return np.array([bool(reason) for reason in self.reasons])


@dataclass(frozen=True)
class Thumbnail:
    """A small picture of a video at a time: the filmstrip of a page."""

    second: float
    jpeg: bytes


@dataclass
class Prediction:
    """Everything that is known about one file. Where `error` is set, there is nothing else but the notes."""

    path: str
    kind: str                                       # "image" or "clip"
    card: AnswerCard = field(repr=False)
    fps: float | None = None                        # average rate of a clip
    frames: int = 0                                 # frames of the whole clip, not only those that were read
    duration: float | None = None                   # seconds
    stride: int = 1                                 # frames between two that are read
    crop: str = ""                                  # what the model was shown, in words
    computed_in: str = "float32"                    # the numbers in which the model computed
    face: float | None = None                       # share of the frames read in which a face was seen
    windows: Windows | None = field(default=None, repr=False)
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damage: str = ""                                # what part of the file could not be read
    error: str = ""                                 # why there is no prediction
    thumbnails: list[Thumbnail] = field(default_factory=list, repr=False)

    @property
    def task(self) -> str:
        return "image" if self.kind == "image" else "video"

    @property
    def schema(self) -> str:
        return self.card.schema(self.task)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.card.classes.get(self.task, ())

    @property
    def whole(self) -> bool:
        """Whether the file was read, and read to its end."""
        return not (self.error or self.damage)

    @property
    def remark(self) -> str:
        """What somebody who reads one line about this file should know: its error, its damage, its first own note."""
        own = [note for note in self.notes if note not in self.card.notes]
        return next(filter(None, (self.error, self.damage, *own)), "").removeprefix(f"{self.path}: ")

    @property
    def answer(self) -> Answer | None:
        """The answer by the papers' protocol: two views of a clip, or the image. None after an error."""
        return self.answers.get(TWO_VIEWS) or self.answers.get(STILL)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON-able numbers and words, without the thumbnails."""
        return {
            "path": self.path, "kind": self.kind, "error": self.error or None, "damage": self.damage or None,
            "notes": self.notes, "schema": self.schema, "classes": list(self.classes),
            "fps": _rounded(self.fps), "frames": self.frames, "duration": _rounded(self.duration),
            "stride": self.stride, "crop": self.crop, "face_share": _rounded(self.face),
            "computed_in": self.computed_in,
            "answers": {name: answer.as_dict() for name, answer in self.answers.items()},
            "windows": [{name: None if value != value else value for name, value in row.items()  # nan is not itself
                         if name not in ("path", "kind", "part")} for row in self.rows(answers=False)],
        }

    def to_frame(self, answers: bool = True) -> pd.DataFrame:
        """`rows` as a table."""
        require("pandas", "tables", "a table")
        import pandas as pd

        rows = self.rows(answers)
        return pd.DataFrame(rows, columns=None if rows else ["path", "kind", "part"])

    def rows(self, answers: bool = True) -> list[dict[str, Any]]:
        """A row for each answer (with `answers`) and each window, or one with the error; columns carry names.

        `p <class>` are calibrated probabilities, `smooth <class>` the same on the timeline; six digits after the point.
        """
        head = {"path": self.path, "kind": self.kind}
        rows: list[dict[str, Any]] = [
            {**head, "part": answer.what, "start_s": 0.0 if self.duration else None, "end_s": self.duration,
             "face_share": self.face, **_told(answer.reason, answer.best, answer.confidence),
             **_columns("p", self.classes, answer.probabilities)}
            for answer in (self.answers.values() if answers else ())]
        for i in range(len(self.windows) if self.windows else 0):
            w = self.windows
            best = best_of(self.classes, w.probabilities[i])
            rows.append({**head, "part": f"window {i}", "start_s": float(w.start[i]), "end_s": float(w.end[i]),
                         "start_frame": int(w.start_frame[i]), "end_frame": int(w.end_frame[i]),
                         "face_share": float(w.face[i]), **_told(w.reasons[i], best, float(w.confidence[i])),
                         **_columns("p", self.classes, w.probabilities[i]),
                         **_columns("smooth", self.classes, w.smoothed[i])})
        if answers and (self.error or not rows):
            rows.append(head | {"part": "error"})
        for row in rows if answers else ():
            row["note"] = "; ".join(filter(None, (self.error, self.damage, *self.notes)))
        return [{name: float(np.round(value, 6)) if isinstance(value, float) else value for name, value in row.items()}
                for row in rows]


def _told(reason: str, best: str, confidence: float) -> dict[str, Any]:
    return {"answer": "" if reason else best, "best": best, "confidence": confidence, "abstained": bool(reason),
            "reason": reason}


def _columns(word: str, classes: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {f"{word} {name}": float(value) for name, value in zip(classes, values)}


def _by_class(classes: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in zip(classes, values)}


def _rounded(value: float | None) -> float | None:
    """Six digits after the point; None also for what is not a number, which JSON does not know."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def best_of(classes: Sequence[str], probabilities: np.ndarray) -> str:
    """The likeliest class; "" where probabilities `[c]` are not numbers, among which nothing is the largest."""
    return classes[int(probabilities.argmax())] if np.isfinite(probabilities).all() else ""


def smooth_in_time(values: np.ndarray, seconds: np.ndarray, reach: float,
                   weight: np.ndarray | None = None) -> np.ndarray:
    """Weighted mean over neighbours in time: `[w c]` at times `[w]` (rising) → `[w c]`.

    The kernel is a triangle, 1 − |Δt| / reach, in seconds: windows `reach` or more away do not count, and neither
    the frame rate nor the density of windows changes its width. `weight` `[w]` counts a window less or, at 0, not at
    all, as what is not a number never does; where nothing counts, the window keeps its own value. reach 0 changes
    nothing.
    """
    if reach < 0:
        raise Refused(f"smooth is {reach} s; it must be 0 or more")
    values, seconds = np.asarray(values, dtype=float), np.asarray(seconds, dtype=float)
    if reach == 0 or not len(values):
        return values.copy()
    weight = np.ones(len(values)) if weight is None else np.asarray(weight, dtype=float)
    numbers = np.isfinite(values).all(1)
    weight, counted = np.where(numbers, weight, 0.0), np.where(numbers[:, None], values, 0.0)  # 0 times nan is nan
    first = np.searchsorted(seconds, seconds - reach, side="left")
    last = np.searchsorted(seconds, seconds + reach, side="right")
    smoothed = values.copy()
    for i, (a, b) in enumerate(zip(first, last)):
        kernel = weight[a:b] * np.clip(1 - np.abs(seconds[a:b] - seconds[i]) / reach, 0, None)
        if kernel.sum() > 0:
            smoothed[i] = kernel @ counted[a:b] / kernel.sum()
    return smoothed


@dataclass(frozen=True)
class Judge:
    """Turns raw probabilities of one task into calibrated ones, and decides which are answers."""

    classes: tuple[str, ...]
    temperature: float = 1.0
    abstain_below: float = 0.0   # confidence that an answer needs
    needs_face: bool = True      # no answer where a face was looked for and not seen

    def calibrate(self, probabilities: np.ndarray) -> np.ndarray:
        """Of raw ones `[… c]`; nan where they are not numbers, infinite ones among them."""
        raw = np.asarray(probabilities, dtype=float)
        return apply_temperature(np.where(np.isfinite(raw).all(-1, keepdims=True), raw, np.nan), self.temperature)

    def reason(self, probabilities: np.ndarray, no_face: str = "") -> str:
        """Why calibrated probabilities `[c]` are no answer; "" if they are one."""
        confidence = float(probabilities.max())
        if not np.isfinite(probabilities).all():
            return NO_NUMBER
        if no_face and self.needs_face:
            return no_face
        if confidence < self.abstain_below:
            return f"confidence {confidence:.2f} below {self.abstain_below:.2f}"
        return ""

    def answer(self, what: str, raw: np.ndarray, no_face: str = "") -> Answer:
        """Mean of raw probabilities `[n c]`, calibrated."""
        mean = self.calibrate(np.mean(raw, axis=0))
        return Answer(what, self.classes, mean, self.reason(mean, no_face))


def judge_clip(judge: Judge, spans: dict[str, np.ndarray], raw: np.ndarray, face: np.ndarray,
               smooth: float) -> tuple[Windows, dict[str, Answer]]:
    """Windows and answers from raw probabilities `[w c]` and the share of frames with a face `[w]` (nan: not asked).

    `spans` holds the four first fields of `Windows`. Windows without a face count neither on the timeline of their
    neighbours nor in the answer for the whole video, as long as there are others; windows whose answer is not a number
    never do. The two views are the first and the last window as they are; if one of them shows no face, there is no
    answer.
    """
    blind = face == 0  # nan is not
    numbers = np.isfinite(raw).all(1)
    counted = numbers & ~blind if (numbers & ~blind).any() else numbers if numbers.any() else np.ones(len(blind), bool)
    calibrated = judge.calibrate(raw)
    middle = (spans["start"] + spans["end"]) / 2
    smoothed = smooth_in_time(calibrated, middle, smooth, counted)
    words = [NO_FACE if none else "" for none in blind]
    windows = Windows(**spans, probabilities=calibrated, smoothed=smoothed, face=face,
                      reasons=tuple(map(judge.reason, calibrated, words)),
                      smoothed_reasons=tuple(NO_NUMBER if not number else judge.reason(p, word)
                                             for number, p, word in zip(numbers, smoothed, words)))
    missing = [name for name, at in (("first", 0), ("last", -1)) if blind[at]]
    ends = f"{NO_FACE} in the {' and '.join(missing)} window" if missing and not blind.all() else \
        NO_FACE if missing else ""
    return windows, {TWO_VIEWS: judge.answer(TWO_VIEWS, raw[[0, -1]], ends),
                     WHOLE: judge.answer(WHOLE, raw[counted], NO_FACE if blind.all() else "")}
