"""samples → readings     clips read twice: frame by frame with a static head, and as clips with a dynamic one.

`correlation.py` compares the two readings. One network with two heads may do both, or two networks one each; samples
come from any reader of `datasets/readers.py`, drawn or real. Derived in chapter 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from s4d_lib.checkpoints.cards import NUMBERED
from s4d_lib.datasets.labels import canonical, schema_named
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused
from s4d_lib.progress import Progress
from s4d_lib.synthetic_faces.geometry import ACTION_UNITS

Tracks = Sequence[np.ndarray]  # one array a clip, first axis frames: [t c] probabilities or [t u] action units
POOLS = ("mean", "vote", "surest", "last")


@dataclass(frozen=True)
class Readings:
    """n clips, each read frame by frame with the static head and as a clip with the dynamic one.

    static   n × [t c]   probabilities on frames     dynamic  [n c]   on the clip, mean of its test views
    frames   n × [t]     which frames those were     labels   [n]     −1 where the label is none of `classes`
    people   [n]         who is shown (or the clip itself where nobody said)
    Classes are those that both heads know, in the dynamic head's order; probabilities sum to 1 over them.
    """

    classes: tuple[str, ...]
    static: list[np.ndarray]
    dynamic: np.ndarray
    frames: list[np.ndarray]
    labels: np.ndarray
    people: np.ndarray
    ids: list[str]


def read_twice(samples: Sequence[Sample], static: Any, dynamic: Any = None, every: int = 1,
               progress: bool = True) -> Readings:
    """Both readings of a list of clips. `static`, `dynamic`: of `open_model`; one with two heads serves for both.

    Every `every`-th frame is read as a still. Frames are prepared as in evaluation (`clips.EVAL`); no temperature.
    ValueError where there is no clip, where a network lacks the head that it is asked for, and where the heads share
    fewer than two classes; unreadable media raise what `frames.open_frames` raises.
    """
    import torch

    dynamic = dynamic or static
    for reader, head, what in ((static, "image", "frame by frame"), (dynamic, "video", "as clips")):
        if head not in reader.card.classes:
            raise Refused(f"{reader.card.name} cannot read {what}: it has no head {head!r}, only "
                          f"{', '.join(map(repr, reader.card.classes))}; name a second network for that")
    if not samples:
        raise Refused("there is no clip to read: the list is empty")
    classes, columns = shared_classes(static.card.classes["image"], dynamic.card.classes["video"])
    found: dict[str, list] = {"static": [], "dynamic": [], "frames": []}
    with torch.inference_mode(), Progress(len(samples), "reading twice", silent=not progress) as bar:
        for sample in samples:
            frames, pictures, clips = _both_inputs(sample, static.card, dynamic.card, every)
            for name, model, x in (("static", static.model, pictures), ("dynamic", dynamic.model, clips)):
                device = next(model.parameters()).device
                parts = [model(part.to(device)).float().softmax(-1).cpu() for part in x.split(64)]
                found[name].append(_renormalised(torch.cat(parts).double().numpy()[:, columns[name]]))
            found["frames"].append(frames)
            bar.update(1)
    labels = [_label_among(sample, classes) for sample in samples]
    people = np.unique([sample.group or f"clip {sample.id}" for sample in samples], return_inverse=True)[1]
    return Readings(classes, found["static"], np.stack([views.mean(0) for views in found["dynamic"]]), found["frames"],
                    np.array(labels), people, [sample.id for sample in samples])


def shared_classes(static: Sequence[str], dynamic: Sequence[str]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Classes that two heads share, in the dynamic order, and the columns of both where they stand.

    ValueError for heads whose classes are only numbered (`checkpoints.cards.NUMBERED`), and for fewer than two shared
    classes.
    """
    for head, names in (("image", static), ("video", dynamic)):
        if any(NUMBERED.fullmatch(name) for name in names):
            raise Refused(f"heads meet by the names of their classes, and the file does not say in which order the "
                          f"{len(names)} of its head {head!r} stand: open_model(path, schema={{{head!r}: …}})")
    place = {canonical(name) or name: column for column, name in enumerate(static)}
    both = [(name, place[canonical(name) or name], column) for column, name in enumerate(dynamic)
            if (canonical(name) or name) in place]
    if len(both) < 2:
        raise Refused(f"the heads share {len(both)} classes ({', '.join(static)} | {', '.join(dynamic)}); two are "
                      "the least that can agree. Name the class orders: open_model(path, schema={...})")
    names, left, right = zip(*both)
    return names, {"static": np.array(left), "dynamic": np.array(right)}


def _both_inputs(sample: Sample, still: Any, clip: Any, every: int) -> tuple:
    """Frame numbers [t], pictures [t 3 h w] for the static head, test views [v 3 t h w] for the dynamic one."""
    import torch

    from s4d_lib.clips import EVAL, augment, test_views
    from s4d_lib.frames.reader import open_frames

    with open_frames(sample.path) as media:
        frames = media.read(range(len(media)))
    chance = np.random.default_rng(0)  # evaluation leaves nothing to it
    taken = np.arange(0, len(frames), every)
    pictures = augment(frames[taken], EVAL, still.image_size[0], chance).transpose(0, 1)
    views = [augment(frames[view], EVAL, clip.image_size[0], chance)
             for view in test_views(len(frames), clip.frames, clip.stride)]
    return taken, pictures, torch.stack(views)


def _label_among(sample: Sample, classes: tuple[str, ...]) -> int:
    names = [canonical(name) or name for name in classes]
    own = schema_named(sample.schema).classes[sample.label] if sample.schema else classes[sample.label]
    own = canonical(own) or own
    return names.index(own) if own in names else -1


def _renormalised(p: np.ndarray) -> np.ndarray:
    return p / p.sum(-1, keepdims=True)


def drawn_units(truth: Path | str, readings: Readings) -> list[np.ndarray]:
    """The true action units n × [t u] on the frames that were read, from a `truth.npz` that `write_faces` left.

    So may be any .npz with ids [n], offsets [n + 1] and action_units [frames u], one row a frame, in the order of
    `synthetic_faces.ACTION_UNITS`. ValueError, with the file, for one without these, or without a clip or a frame.
    """
    with np.load(truth, allow_pickle=False) as held:
        if lacking := {"ids", "offsets", "action_units"} - set(held.files):
            raise Refused(f"{truth}: holds no {', '.join(sorted(lacking))}")
        place = {str(name): row for row, name in enumerate(held["ids"])}
        offsets, units = held["offsets"], held["action_units"]
    if units.ndim != 2 or units.shape[1] != len(ACTION_UNITS):
        raise Refused(f"{truth}: action_units must be [frames {len(ACTION_UNITS)}], not {list(units.shape)}")
    found = []
    for name, frames in zip(readings.ids, readings.frames):
        if name not in place:
            raise Refused(f"{truth}: has no clip {name!r}; its first is {next(iter(place), None)!r}")
        course = units[offsets[place[name]] : offsets[place[name] + 1]]
        if frames[-1] >= len(course):
            raise Refused(f"{truth}: {len(course)} rows for clip {name!r}, of which frame {frames[-1]} was read")
        found.append(course[frames])
    return found


def pool_frames(static: Tracks, rule: Literal["mean", "vote", "surest", "last"]) -> np.ndarray:
    """What the frames of a clip say together, without any sense of order: n × [t c] → answers [n].

    mean: of the probabilities; vote: of the answers; surest: the frame of the largest probability; last: the last
    """
    of = {"mean": lambda p: p.mean(0).argmax(), "vote": lambda p: np.bincount(p.argmax(1)).argmax(),
          "surest": lambda p: p[p.max(1).argmax()].argmax(), "last": lambda p: p[-1].argmax()}[rule]
    return np.array([of(p) for p in static])
