"""frames → faces     the same face in every frame: followed, turned upright, cut out at one size.

    crops = FaceCropper().crop(frames, size=224)            # frames u8 [t h w 3] → crops.frames u8 [t 224 224 3]
    for crops in FaceCropper().stream(chunks, size=224):    # the same, part by part, in constant memory

The detector looks at every k-th frame; in between, boxes and landmarks run in straight lines. The largest face that is
surely one is followed by overlap of boxes, so that a passer-by who comes nearer does not take over. Boxes and
landmarks are averaged over a few frames to both sides, which keeps crops still without trailing behind a movement.

Where the eyes come to lie is said in `alignment.py`.

The authors of S4D turned MAFW crops about the middle of the box after cutting, resized them without keeping their
shape, and left out frames without a detection (released `ft/process/mtcnn.py`); here nothing is left out in silence.

Derived in chapter 02.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s4d_lib.crops.alignment import ALIGN, cut_square, eye_places, square_of, to_crop, whole_square
from s4d_lib.crops.detectors import open_detector
from s4d_lib.crops.faces import Detector, Faces
from s4d_lib.errors import Refused

MISSING = ("hold", "skip", "full", "raise")
# What was done with a frame: the first two show a face that was seen, the rest do not.
STATES = ("found", "between", "held", "repeated", "whole", "skipped")
CUT = 35  # grey levels by which two coarse pictures differ, on average, where a new shot has begun
FOUND, BETWEEN, HELD, REPEATED, WHOLE, SKIPPED = range(len(STATES))


class MissingFace(Refused):
    """A frame shows no face and the policy is "raise"; the message has the frame and the remedies."""


@dataclass(frozen=True)
class Crops:
    """What became of t frames. Row i of all but `frames` and `index` belongs to frame `first` + i.

    frames      uint8 [n size size 3]; n = t, or fewer where frames were skipped
    index       int64 [n], the frame each picture was cut from or stands for
    found       bool [t], the face was seen here, or in the frames looked at before and after
    boxes       float32 [t 4], x0 y0 x1 y1 in pixels of the frame, before smoothing; nan without a face
    landmarks   float32 [t 5 2], eyes, nose, mouth corners (left of the picture first); nan without a face
    scores      float32 [t], of the detector; nan where it did not look or did not find
    squares     float32 [t 4], what was cut: centre x, centre y, edge, clockwise turn in radians; nan if nothing was
    states      int64 [t], positions in STATES
    """

    frames: Tensor
    index: Tensor
    found: Tensor
    boxes: Tensor
    landmarks: Tensor
    scores: Tensor
    squares: Tensor
    states: Tensor
    policy: str
    detector: str
    first: int = 0

    def __len__(self) -> int:
        return len(self.found)

    @property
    def share(self) -> float:
        """Share of frames in which the face was seen; 0 for no frames."""
        return int(self.found.sum()) / len(self) if len(self) else 0.0

    @property
    def first_missing(self) -> int | None:
        """The first frame in which the face was not seen."""
        missing = (~self.found).nonzero()
        return self.first + int(missing[0, 0]) if len(missing) else None

    @property
    def counts(self) -> dict[str, int]:
        """Frames by what was done with them, every one of STATES."""
        return dict(zip(STATES, torch.bincount(self.states, minlength=len(STATES)).tolist()))

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each way in which frames without a face were filled."""
        words = {"held": "face lost, cut where it was last", "repeated": "no face, the last crop repeated",
                 "whole": "no face, the middle of the frame taken", "skipped": "no face, left out"}
        notes = []
        for state, text in words.items():
            at = (self.states == STATES.index(state)).nonzero()[:, 0]
            if len(at):
                notes.append(f"{len(at)} of {len(self)} frames: {text} (first: frame {self.first + int(at[0])})")
        return tuple(notes)

    def place(self, points: Tensor) -> Tensor:
        """Points [t k 2] in pixels of the frames → pixels of the crops; nan where nothing was cut."""
        return to_crop(points, self.squares, self.frames.shape[1])

    @staticmethod
    def join(parts: Iterable[Crops]) -> Crops:
        """The parts of one stream as one. ValueError for none."""
        parts = list(parts)
        if not parts:
            raise Refused("no frames were given")
        rest = {"policy": parts[0].policy, "detector": parts[0].detector, "first": parts[0].first}
        return Crops(**{f.name: rest[f.name] if f.name in rest else torch.cat([getattr(p, f.name) for p in parts])
                        for f in fields(Crops)})


@dataclass(frozen=True)
class FaceCropper:
    """How faces are followed and cut.

    detector    any `crops.faces.Detector`; None = MTCNN, opened at first use
    every       the detector looks at frames 0, k, 2k, … and at the last one
    margin      added around the face, as a share of its box; ≥ 0
    align       "eyes" (a similarity that puts both eyes where the module says), "points" (the one that fits five
                points best: turns with the nose, but an opening mouth moves the crop) or "box" (no turn)
    missing     frames without a face: "hold" repeats the last crop (before the first one: as "full"), "skip" leaves
                them out, "full" takes the middle square of the frame, "raise" raises MissingFace
    smooth      frames averaged to either side; 0 = none
    patience    a face that is lost stays where it was for this many frames, or until the picture as a whole changes as
                it does at a cut; then it is missing, and the largest face is looked for again
    confident   least score of a face to start with; None = what the detector calls sure, 0.9 if it does not say
    overlap     least intersection over union with the box before, to be the same face
    """

    detector: Detector | None = None
    every: int = 3
    margin: float = 0.3
    align: str = "eyes"
    missing: str = "hold"
    smooth: int = 3
    patience: int = 10
    confident: float | None = None
    overlap: float = 0.2
    _opened: list[Detector] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, allowed in (("align", ALIGN), ("missing", MISSING)):
            if getattr(self, name) not in allowed:
                raise Refused(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        for name, least, most in (("every", 1, 1e6), ("margin", 0, 10), ("smooth", 0, 1000), ("patience", 0, 1e6),
                                  ("confident", 0, 1), ("overlap", 0, 1)):
            value = getattr(self, name)
            if not (least <= value <= most if value is not None else name == "confident"):
                raise Refused(f"{name} is {getattr(self, name)}; it must be from {least:g} to {most:g}")

    @property
    def eyes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where align="eyes" puts the left and the right eye: (x, y) as shares of the edge."""
        return eye_places(self.margin)

    @property
    def sure(self) -> float:
        """Least score of a face to start with."""
        return getattr(self.find, "sure", 0.9) if self.confident is None else self.confident

    def as_dict(self) -> dict[str, object]:
        """The settings and the detector's name, for records."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("detector", "_opened")}
        return kept | {"confident": self.sure, "detector": self.find.name}

    @property
    def find(self) -> Detector:
        """The detector, opened at the first question."""
        if not self._opened:
            self._opened.append(self.detector or open_detector())
        return self._opened[0]

    def crop(self, frames: Tensor | np.ndarray, size: int = 224) -> Crops:
        """Frames uint8 [t h w 3] of one shot → its faces, `size` px high and wide. A picture is one frame.

        ValueError for frames of another type or shape, none, or a size below 1; MissingFace under "raise".
        """
        return Crops.join(self.stream([frames], size))

    def stream(self, chunks: Iterable[Tensor | np.ndarray], size: int = 224) -> Iterator[Crops]:
        """Chunks uint8 [t h w 3] of one shot, of any lengths → its faces in parts of other lengths, in order.

        Joined, the parts are what `crop` gives for the whole; a frame is answered once the `every` + `smooth` frames
        after it are known, and no more than these and one chunk are held. Errors as `crop`.
        """
        if size < 1:
            raise Refused(f"size is {size} px; crops need at least 1 px")
        run = _Run(self, size)
        for chunk in chunks:
            if (part := run.take(torch.as_tensor(chunk))) is not None:
                yield part
        if (part := run.finish()) is not None:
            yield part


# ------------------------------------------------------------------------------------------------ one run


class _Run:
    """One pass over the frames of one shot.

    `rows` holds, for the frames from `base` on, box and landmarks [14], score, track and whether the face was seen;
    `waiting` the frames from `done` on, which still need rows of the frames after them.
    """

    def __init__(self, cropper: FaceCropper, size: int) -> None:
        self.cropper, self.size = cropper, size
        self.waiting: deque[Tensor] = deque()
        self.rows: deque[tuple[np.ndarray, float, int, int]] = deque()
        self.base = self.done = self.taken = 0
        self.shape: torch.Size | None = None
        self.face: np.ndarray | None = None     # box and landmarks of the face that is followed
        self.seen = self.track = -1             # where it was seen last, and the number of its track
        self.last: Tensor | None = None         # last crop of a face
        self.scene: np.ndarray | None = None    # coarse picture of the frame where the face was seen last

    @property
    def known(self) -> int:
        return self.base + len(self.rows)

    def take(self, chunk: Tensor) -> Crops | None:
        """The next frames → the crops that they complete."""
        if chunk.dtype != torch.uint8 or chunk.ndim != 4 or chunk.shape[-1] != 3 or not len(chunk):
            raise ValueError(f"frames must be uint8 [t h w 3] with t ≥ 1, got {chunk.dtype} {[*chunk.shape]}")
        self.shape = self.shape or chunk.shape[1:]
        if self.shape != chunk.shape[1:]:
            raise ValueError(f"frame {self.taken} is {[*chunk.shape[1:]]} and those before are {[*self.shape]}; "
                             "frames of one shot have one size")
        start, every = self.taken, self.cropper.every
        self.taken += len(chunk)
        self.waiting.extend(chunk)
        looked = list(range(-(-start // every) * every, self.taken, every))
        if looked:
            pictures = chunk[[frame - start for frame in looked]]
            for frame, picture, faces in zip(looked, pictures, self.cropper.find(pictures)):
                self._look(frame, faces, _coarse(picture))
        return self._emit(self.known - self.cropper.smooth)

    def finish(self) -> Crops | None:
        """The crops that are left once no frame follows."""
        if self.taken > self.known:
            self._look(self.taken - 1, self.cropper.find(self.waiting[-1][None])[0], _coarse(self.waiting[-1]))
        return self._emit(self.taken)

    def _look(self, frame: int, faces: Faces, scene: np.ndarray) -> None:
        """Rows for all frames up to this one, at which the detector has looked."""
        before, before_seen, track = self.face, self.seen, self.track
        score = self._follow(frame, faces, scene)
        moving = before is not None and score is not None and track == self.track and before_seen == self.known - 1
        for between in range(self.known, frame):
            if moving:
                share = (between - before_seen) / (frame - before_seen)
                self.rows.append(((1 - share) * before + share * self.face, math.nan, track, BETWEEN))
            else:
                self._lost(between, before, before_seen, track)
        if score is None:
            self._lost(frame, before if self.face is not None else None, before_seen, track)
        else:
            self.rows.append((self.face, score, self.track, FOUND))

    def _lost(self, frame: int, face: np.ndarray | None, seen: int, track: int) -> None:
        if face is not None and frame - seen <= self.cropper.patience:
            self.rows.append((face, math.nan, track, HELD))
        else:
            self.rows.append((np.full(14, np.nan), math.nan, -1, SKIPPED))

    def _follow(self, frame: int, faces: Faces, scene: np.ndarray) -> float | None:
        """Choose among the faces of a frame; the score of the one that is followed, None if there is none."""
        boxes, scores = faces.boxes.numpy(), faces.scores.numpy()
        chosen = None
        if self.face is not None and len(boxes):
            shared = _overlap(self.face[:4], boxes)
            chosen = int(shared.argmax()) if shared.max() >= max(self.cropper.overlap, 1e-9) else None
        cut = self.scene is not None and np.abs(scene - self.scene).mean() > CUT
        if chosen is None and (self.face is None or cut or frame - self.seen > self.cropper.patience):
            self.face = None
            sure = np.flatnonzero(scores >= self.cropper.sure)
            if sure.size:
                chosen = int(sure[np.prod(boxes[sure, 2:] - boxes[sure, :2], axis=1).argmax()])
                self.track += 1
        if chosen is None:
            return None
        self.face = np.concatenate([boxes[chosen], faces.landmarks[chosen].numpy().ravel()]).astype(np.float64)
        self.seen, self.scene = frame, scene
        return float(scores[chosen])

    def _emit(self, end: int) -> Crops | None:
        """Crops of the frames from `done` to `end`."""
        if end <= self.done:
            return None
        first, pictures, index, squares, states = self.done, [], [], [], []
        for frame in range(first, end):
            picture, square, state = self._cut(frame, self.waiting.popleft())
            squares.append(square)
            states.append(state)
            if picture is not None:
                pictures.append(picture)
                index.append(frame)
        rows = [self.rows[frame - self.base] for frame in range(first, end)]
        self.done = end
        while self.base < end - self.cropper.smooth:
            self.rows.popleft()
            self.base += 1
        values = torch.from_numpy(np.stack([row[0] for row in rows]).astype(np.float32))
        return Crops(
            torch.stack(pictures) if pictures else torch.zeros(0, self.size, self.size, 3, dtype=torch.uint8),
            torch.tensor(index, dtype=torch.long), torch.tensor([state <= BETWEEN for state in states]), values[:, :4],
            values[:, 4:].view(-1, 5, 2), torch.tensor([row[1] for row in rows]), torch.tensor(squares),
            torch.tensor(states), self.cropper.missing, self.cropper.find.name, first)

    def _cut(self, frame: int, pixels: Tensor) -> tuple[Tensor | None, tuple[float, ...], int]:
        """Picture (None = skipped), square and state of one frame."""
        state, nothing = self.rows[frame - self.base][3], (math.nan,) * 4
        if state != SKIPPED:
            values = self._smoothed(frame)
            square = square_of(values[:4], values[4:].reshape(5, 2), self.cropper.align, self.cropper.margin)
            self.last = cut_square(pixels, square, self.size)
            return self.last, square, state
        if self.cropper.missing == "raise":
            raise MissingFace(f"frame {frame} shows no face (looked for every {self.cropper.every} frames); "
                              "choose missing = hold, skip or full, or another detector")
        if self.cropper.missing == "skip":
            return None, nothing, SKIPPED
        if self.cropper.missing == "hold" and self.last is not None:
            return self.last, nothing, REPEATED
        square = whole_square(*pixels.shape[:2])
        return cut_square(pixels, square, self.size), square, WHOLE

    def _smoothed(self, frame: int) -> np.ndarray:
        """Mean of the rows around, nearer ones weighing more. As many to the left as to the right, so that a steady
        movement is left where it is."""
        here = frame - self.base
        track, reach = self.rows[here][2], 0
        while (reach < min(self.cropper.smooth, here, len(self.rows) - 1 - here)
               and self.rows[here - reach - 1][2] == track == self.rows[here + reach + 1][2]):
            reach += 1
        weights = [reach + 1 - abs(step) for step in range(-reach, reach + 1)]
        return np.average([self.rows[here + step][0] for step in range(-reach, reach + 1)], axis=0, weights=weights)


def _coarse(picture: Tensor) -> np.ndarray:
    """A frame uint8 [h w 3] as 8 × 8 grey levels."""
    grey = F.interpolate(picture[::2, ::2].float().mean(2)[None, None], (8, 8), mode="area")
    return grey[0, 0].numpy()


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with boxes [n 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return shared / np.maximum(np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) - shared, 1e-9)
