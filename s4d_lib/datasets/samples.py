"""samples → parts     what a sample is, checks before training, and splits.

A reader (`readers.py`) turns the lists of a data set into `Sample`s: an id, a path that exists, a label checked against
the set's own class order. `check_samples` looks for what spoils a training before it starts. `face_dataset.py`
turns samples into tensors.

The released loader skips folders whose directory entry is small, swaps a broken sample for a random other one and ends
the process on any other error (`ft/datasets/kinetics.py:391-395,559-561`). Here a broken sample is an error that names
it.

Derived in chapter 01.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from s4d_lib.datasets.labels import MARK, schema_named, translate
from s4d_lib.datasets.lists import frame_files
from s4d_lib.errors import Refused
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.shards import count_frames, is_packed
from s4d_lib.progress import Progress


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled file of a data set.

    `group` (such as the person shown) must not be split across sets. `schema` names the class order of `label`; None
    says that nobody stated it.
    """

    id: str
    path: Path
    label: int
    kind: Literal["image", "clip"]
    group: str | None = None
    schema: str | None = None


def check_one_schema(samples: Iterable[Sample]) -> str | None:
    """The schema that all samples share; ValueError if there are several, None counting as one."""
    seen: dict[str | None, Sample] = {}
    for sample in samples:
        seen.setdefault(sample.schema, sample)
    if len(seen) > 1:
        named = ", ".join(f"{schema or 'none stated'} (such as {sample.id})" for schema, sample in seen.items())
        raise Refused(
            f"samples of different class orders: {named}. The same number means another expression in each: bring them "
            "into one with translate_samples(samples, target)")
    return next(iter(seen), None)


def translate_samples(
    samples: Sequence[Sample], target: str, missing: Literal["raise", "drop"] = "raise"
) -> tuple[list[Sample], Counter[str]]:
    """(samples with labels of `target`, how many of each class were dropped because `target` has no such class).

    Nothing is dropped unless `missing="drop"` says so: otherwise a class without a counterpart is a ValueError.
    """
    if missing not in ("raise", "drop"):
        raise Refused(f"missing must be 'raise' or 'drop', got {missing!r}")
    source = check_one_schema(samples)
    if samples and source is None:
        raise Refused("the samples carry no schema, so their labels cannot be translated; build them with schema=")
    if not samples:
        return [], Counter()
    labels = translate([s.label for s in samples], source, target, "raise" if missing == "raise" else "mark").tolist()
    classes = schema_named(source).classes
    dropped = Counter(classes[s.label] for s, label in zip(samples, labels) if label == MARK)
    kept = [replace(s, label=label, schema=target) for s, label in zip(samples, labels) if label != MARK]
    return kept, dropped


@dataclass(frozen=True)
class Problem:
    """Something wrong with a list of samples: how often, where for example, and what to do."""

    kind: str
    count: int
    examples: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        return f"{self.kind}: {self.count}, such as {', '.join(self.examples)}{more}. {self.remedy}."


# kind → remedy, in the order in which problems are listed
ADVICE = {
    "no such file": "Check the data root and that everything was extracted, or shorten the list",
    "empty file": "Fetch or extract it again; a file of 0 bytes holds no picture",
    "empty frame": "Extract the clip again; a frame of 0 bytes cannot be read",
    "no frames": "Extract the clip again, or leave it out",
    "too few frames": "Read another frame flavour, or accept that the last frame is repeated",
    "unreadable": "Fetch or extract it again, or leave it out",
    "id twice": "Keep one of the rows",
    "same file under two ids": "Keep one of them, or its label counts twice",
    "label outside the schema": "Name the schema or the base that the list was written for",
    "several schemas": "Bring them into one with translate_samples(samples, target)",
    "id in both sets": "Take it out of one: a model that has seen it cannot be tested on it",
    "file in both sets": "Take it out of one: a model that has seen it cannot be tested on it",
    "group in both sets": "Split by group, so that nobody is in training and test",
}


def check_samples(
    samples: Sequence[Sample], against: Sequence[Sample] = (), min_frames: int = 1, videos: bool = False,
    examples: int = 5, progress: bool = False,
) -> list[Problem]:
    """What is wrong with `samples` before they are trained on, and what they share with `against` (the test set).

    Frame folders are counted; videos only with `videos=True`, which opens every one. A clip with fewer than
    `min_frames` frames is reported. Two names are the same file if they lead to the same place on disk, through links
    too. Costs one look at every file, and no decoding.
    """
    found: dict[str, list] = {}

    def note(kind: str, example: str) -> None:
        entry = found.setdefault(kind, [0, []])
        entry[0] += 1
        if len(entry[1]) < examples:
            entry[1].append(example)

    ids, files, schemas = set(), {}, {}
    with Progress(len(samples), "checking", silent=not progress) as bar:
        for sample in samples:
            if sample.id in ids:
                note("id twice", sample.id)
            ids.add(sample.id)
            place = _check_file(sample, min_frames, videos, note)
            if place is not None and files.setdefault(place, sample.id) != sample.id:
                note("same file under two ids", f"{sample.id} and {files[place]}")
            if sample.schema is not None and not 0 <= sample.label < len(schema_named(sample.schema)):
                note("label outside the schema", f"{sample.id} ({sample.label} of {sample.schema})")
            schemas.setdefault(sample.schema, sample.id)
            bar.update(1)
    groups = {sample.group for sample in samples} - {None}
    for other in against:
        schemas.setdefault(other.schema, other.id)
        if other.id in ids:
            note("id in both sets", other.id)
        elif (place := _place(other.path)) in files and place is not None:
            note("file in both sets", f"{other.id} and {files[place]}")
        if other.group in groups:
            note("group in both sets", f"{other.group} ({other.id})")
    if len(schemas) > 1:
        for schema, id in schemas.items():
            note("several schemas", f"{schema or 'none stated'} ({id})")
    return [Problem(kind, found[kind][0], tuple(found[kind][1]), remedy) for kind, remedy in ADVICE.items()
            if kind in found]


def _place(path: Path) -> tuple[int, int, str] | None:
    shard, _, key = os.fspath(path).rpartition("#") if is_packed(path) else (path, "", "")
    try:
        status = os.stat(shard)
    except OSError:
        return None
    return status.st_dev, status.st_ino, key


def _check_file(
    sample: Sample, min_frames: int, videos: bool, note: Callable[[str, str], None]
) -> tuple[int, int, str] | None:
    """Note what is wrong with the file of a sample; returns its place on disk."""
    if (place := _place(sample.path)) is None:
        note("no such file", str(sample.path))
        return None
    count: int | None = None
    if is_packed(sample.path):
        try:
            count = count_frames(sample.path)
        except ValueError as error:
            note("unreadable", f"{sample.path} ({error})")
    elif sample.path.is_dir():
        count = 0
        for count, frame in enumerate(frame_files(sample.path), 1):  # noqa: B007 (used below)
            if not os.path.exists(frame.path) or frame.stat().st_size == 0:
                note("empty frame", frame.path)
        if not count:
            note("no frames", str(sample.path))
    elif not sample.path.stat().st_size:
        note("empty file", str(sample.path))
    elif videos and sample.kind == "clip":
        try:
            with open_frames(sample.path) as reader:
                count = len(reader)
        except UnreadableMedia as error:
            note("unreadable", f"{sample.path} ({error.reason})")
    if count and sample.kind == "clip" and count < min_frames:
        note("too few frames", f"{sample.id} ({count} of {min_frames})")
    return place


def split_validation(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) with about `fraction` of the samples in validation, the same for the same seed.

    With groups, no group is in both, and among 64 random divisions the one nearest the set's class
    proportions is taken. Without, every class is divided in proportion and keeps at least one training
    sample.
    """
    if not 0 < fraction < 1:
        raise Refused(f"fraction must lie between 0 and 1, got {fraction}")
    grouped = sum(sample.group is not None for sample in samples)
    if grouped not in (0, len(samples)):
        raise Refused(f"{grouped} of {len(samples)} samples have a group; give one to all or to none")
    labels = np.array([sample.label for sample in samples])
    if grouped:
        chosen = _grouped_validation(labels, [sample.group for sample in samples], fraction, seed)
    else:
        order, rank, count = _proportional_order(labels, seed)
        order = order[(rank < count - 1)[order]]
        chosen = set(order[: round(fraction * len(samples))].tolist())
    if not chosen:
        raise Refused(f"fraction {fraction} of {len(samples)} samples leaves no validation sample")
    train = [sample for i, sample in enumerate(samples) if i not in chosen]
    return train, [samples[i] for i in sorted(chosen)]


def _grouped_validation(labels: np.ndarray, groups: list[str], fraction: float, seed: int) -> set[int]:
    """Places of the validation samples. Divides as scikit-learn's GroupShuffleSplit does, which is drawn alike."""
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise Refused("all samples are in one group, which cannot be on both sides of a split")
    count = int(np.ceil(fraction * len(names)))
    if count == len(names):
        raise Refused(f"fraction {fraction} of {len(names)} groups leaves none to train on")
    wanted, rng = fraction * np.bincount(labels), np.random.RandomState(seed)
    held_out = [np.flatnonzero(np.isin(group, rng.permutation(len(names))[:count])) for _ in range(64)]
    distance = [np.abs(np.bincount(labels[v], minlength=len(wanted)) - wanted).sum() for v in held_out]
    return set(held_out[int(np.argmin(distance))].tolist())


def few_labels(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` samples in the set's class proportions, at least one of each class, in their original order.

    With one seed a smaller choice is part of a larger one, so that a label-efficiency curve adds labels.
    """
    labels = np.array([sample.label for sample in samples])
    classes = len(set(labels.tolist()))
    if not classes <= count <= len(samples):
        raise Refused(f"count must lie between {classes} (one per class) and {len(samples)}, got {count}")
    order, rank, _ = _proportional_order(labels, seed)
    firsts_first = np.concatenate([order[rank[order] == 0], order[rank[order] > 0]])
    return [samples[i] for i in sorted(firsts_first[:count].tolist())]


def _proportional_order(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order, rank, count): an order in which every prefix has nearly the class proportions of the whole.

    Inside its class a sample has a random rank r of n; sorting by (r + 1/2) / n deals the classes out evenly.
    """
    rng = np.random.default_rng(seed)
    rank, count = np.zeros(len(labels)), np.zeros(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members], count[members] = rng.permutation(len(members)), len(members)
    return np.lexsort((labels, (rank + 0.5) / count)), rank, count
