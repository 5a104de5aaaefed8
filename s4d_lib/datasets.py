"""folder → records     readers of data-set folders, splits, and the tensors a model is fed.

A reader turns the lists of a data set into `Sample`s: an id, a path that exists, a label checked against
the set's own class order. `FaceDataset` turns samples into tensors; what item i of epoch e holds depends on
(seed, e, i) and on nothing else — not on the number of workers, the order of reading or what was read
before.

    DFEW        <root>/annotation/{train,test}(single-labeled)/{train,test}_set_<fold>.csv    video_name,label
                <root>/<frames>/<video_name>/*.jpg   or   <root>/<frames>/<video_name>.mp4
    AffectNet   <root>/{train,test}_affectnet7.txt    <relative path> <label>
                <root>/Manually_Annotated_Images/<relative path>

The released loader skips folders whose directory entry is small, swaps a broken sample for a random other
one and ends XX a broken sample is an error that
names it.

Derived in chapter 01.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4d_lib.clips import AugmentRecipe, augment, centre_indices, pretrain_indices, test_views, train_indices
from s4d_lib.frames import UnreadableMedia, open_frames
from s4d_lib.labels import SCHEMAS, LabelSchema


@dataclass(frozen=True)
class Sample:
    """One labelled file of a data set; `group` (such as the person shown) must not be split across sets."""

    id: str
    path: Path
    label: int
    kind: Literal["image", "clip"]
    group: str | None = None


# -------------------------------------------------------------------------------- readers


def read_dfew(
    root: str | Path,
    split: Literal["train", "test"],
    fold: int = 1,
    frames: str = "clip_jpg",
    pattern: str | None = None,
    schema: str = "dfew",
    groups: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Clips of one DFEW split and fold; ids stay text, so 00001 keeps its zeros.

    `frames` is the folder under `root` that holds the clips and `pattern` the name of one, as in "{id}.mp4"
    or "{id}"; by default a folder named by the id, or else an mp4 file. `groups` maps ids to groups.
    FileNotFoundError for a missing list or clips, ValueError for bad rows or ids that lead out of the
    folder.
    """
    root = Path(root)
    listing = root / "annotation" / f"{_split(split)}(single-labeled)" / f"{split}_set_{fold}.csv"
    rows = _csv_rows(listing, ("video_name", "label"))
    folder = root / frames
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of clips; frames= names one under {root}")

    def locate(id: str) -> Path:
        if pattern:
            return folder / pattern.format(id=id)
        video = folder / f"{id}.mp4"
        return video if video.is_file() else folder / id

    return _samples(rows, listing, SCHEMAS[schema], "clip", locate, groups)


def read_affectnet(
    root: str | Path,
    split: Literal["train", "test"],
    schema: str = "affectnet7",
    listing: str | None = None,
    groups: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Stills of one AffectNet split; the id is the relative path in the list.

    `listing` names a list under `root` other than `<split>_<schema>.txt`, such as the released
    test_affectnet7_2w.txt. `groups` maps ids to groups. Errors as in `read_dfew`.
    """
    root = Path(root)
    path = root / (listing or f"{_split(split)}_{schema}.txt")
    rows = []
    for number, line in enumerate(_text_lines(path), 1):
        if line.strip():
            id, space, label = line.strip().rpartition(" ")
            if not space:
                raise ValueError(f"{path}:{number}: expected `<relative path> <label>`, got {line.strip()!r}")
            rows.append((number, id.strip(), label))
    folder = root / "Manually_Annotated_Images"
    return _samples(rows, path, SCHEMAS[schema], "image", lambda id: folder / id, groups)


def _split(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}; split_validation() makes a third")
    return split


def _text_lines(path: Path) -> list[str]:
    if not path.is_file():
        beside = ", ".join(sorted(p.name for p in path.parent.glob(f"*{path.suffix}"))[:5])
        raise FileNotFoundError(f"{path}: no such list; lists found beside it: {beside or 'none'}")
    return path.read_text(encoding="utf-8-sig").splitlines()


def _csv_rows(path: Path, columns: tuple[str, str]) -> list[tuple[int, str, str]]:
    """(line number, id, label) of every row, all as text."""
    lines = _text_lines(path)
    header = tuple(name.strip() for name in lines[0].split(",")) if lines else ()
    if header != columns:
        raise ValueError(f"{path}:1: expected the header {','.join(columns)}, got {','.join(header)!r}")
    rows = []
    for number, row in enumerate(csv.reader(lines[1:]), 2):
        if len(row) not in (0, 2):
            raise ValueError(f"{path}:{number}: expected {','.join(columns)}, got {','.join(row)!r}")
        if row:
            rows.append((number, row[0].strip(), row[1].strip()))
    return rows


def _samples(
    rows: list[tuple[int, str, str]],
    listing: Path,
    schema: LabelSchema,
    kind: Literal["image", "clip"],
    locate: Callable[[str], Path],
    groups: Mapping[str, str] | None,
) -> list[Sample]:
    """Checked samples; all missing files are reported together."""
    if not rows:
        raise ValueError(f"{listing}: the list has no rows")
    seen: dict[str, int] = {}
    samples = []
    for number, id, text in rows:
        where = f"{listing}:{number}"
        parts = PureWindowsPath(id)  # also understands forward slashes
        if not parts.parts or parts.drive or parts.root or ".." in parts.parts:
            raise ValueError(f"{where}: {id!r} is not a name inside the data folder")
        if id in seen:
            raise ValueError(f"{where}: {id!r} is already on line {seen[id]}")
        seen[id] = number
        group = groups.get(id) if groups is not None else None
        if groups is not None and group is None:
            raise ValueError(f"{where}: {id!r} has no group; groups= must name one for every id")
        samples.append(Sample(id, locate(id), schema.label(text, where), kind, group))
    missing = [sample.path for sample in samples if not sample.path.exists()]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise FileNotFoundError(
            f"{listing}: {len(missing)} of {len(samples)} files are missing: {shown}. "
            "Check the data root and that everything was extracted, or shorten the list"
        )
    return samples


# -------------------------------------------------------------------------------- splits


def split_validation(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) with about `fraction` of the samples in validation, the same for the same seed.

    With groups, no group is in both, and among 64 random divisions the one nearest the set's class
    proportions is taken. Without, every class is divided in proportion and keeps at least one training
    sample.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    grouped = sum(sample.group is not None for sample in samples)
    if grouped not in (0, len(samples)):
        raise ValueError(f"{grouped} of {len(samples)} samples have a group; give one to all or to none")
    labels = np.array([sample.label for sample in samples])
    if grouped:
        chosen = _grouped_validation(labels, [sample.group for sample in samples], fraction, seed)
    else:
        order, rank, count = _proportional_order(labels, seed)
        order = order[(rank < count - 1)[order]]
        chosen = set(order[: round(fraction * len(samples))].tolist())
    if not chosen:
        raise ValueError(f"fraction {fraction} of {len(samples)} samples leaves no validation sample")
    train = [sample for i, sample in enumerate(samples) if i not in chosen]
    return train, [samples[i] for i in sorted(chosen)]


def _grouped_validation(labels: np.ndarray, groups: list[str], fraction: float, seed: int) -> set[int]:
    from sklearn.model_selection import GroupShuffleSplit

    if len(set(groups)) < 2:
        raise ValueError("all samples are in one group, which cannot be on both sides of a split")
    wanted = fraction * np.bincount(labels)
    divide = GroupShuffleSplit(n_splits=64, test_size=fraction, random_state=seed)
    held_out = [validation for _, validation in divide.split(labels, groups=groups)]
    distance = [np.abs(np.bincount(labels[v], minlength=len(wanted)) - wanted).sum() for v in held_out]
    return set(held_out[int(np.argmin(distance))].tolist())


def few_labels(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """`count` samples in the set's class proportions, at least one of each class, in their original order.

    With one seed a smaller choice is part of a larger one, so that a label-efficiency curve adds labels.
    """
    labels = np.array([sample.label for sample in samples])
    classes = len(set(labels.tolist()))
    if not classes <= count <= len(samples):
        raise ValueError(f"count must lie between {classes} (one per class) and {len(samples)}, got {count}")
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


# -------------------------------------------------------------------------------- records


class FaceDataset(Dataset):
    """Samples as tensors: {"x": float32, "label": int, "index": int}, all of one kind.

    An item is asked for by (epoch, index), or by index alone for epoch 0; a sampler that yields pairs gives
    every epoch its own crops. `x` is [3 h w] for stills and [3 t h w] for clips, with a leading axis of
    views for `sampling="test"` and of `replicate` independent variations of the same decoded frames when
    that is above 1.

    `cache=True` keeps every decoded file as bytes (a 20-frame 64 px clip takes 250 kB). It pays off with
    `num_workers=0`, or with persistent workers, each of which fills a cache of its own.

    A file that cannot be read raises UnreadableMedia with its path. `on_error="drop"` reads every file once
    at the start instead, warns, leaves the unreadable ones out and lists them in `.unreadable`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: AugmentRecipe,
        size: int,
        clip_frames: int = 16,
        stride: int = 4,
        sampling: Literal["train", "pretrain", "centre", "test"] = "train",
        seed: int = 0,
        replicate: int = 1,
        cache: bool = False,
        on_error: Literal["raise", "drop"] = "raise",
    ):
        kinds = sorted({sample.kind for sample in samples})
        if len(kinds) != 1:
            raise ValueError(f"a FaceDataset holds stills or clips and at least one, got {kinds}")
        if sampling not in ("train", "pretrain", "centre", "test"):
            raise ValueError(f"sampling must be 'train', 'pretrain', 'centre' or 'test', got {sampling!r}")
        if on_error not in ("raise", "drop"):
            raise ValueError(f"on_error must be 'raise' or 'drop', got {on_error!r}")
        if replicate < 1 or (replicate > 1 and sampling == "test"):
            raise ValueError(f"replicate must be at least 1, and 1 for test views; got {replicate}")
        self.samples, self.kind, self.unreadable = list(samples), kinds[0], []
        self.recipe, self.size, self.clip_frames, self.stride = recipe, size, clip_frames, stride
        self.sampling, self.seed, self.replicate = sampling, seed, replicate
        self._cache: dict[int, Tensor] | None = {} if cache else None
        if on_error == "drop":
            self._drop_unreadable()

    def _drop_unreadable(self) -> None:
        self.unreadable = find_unreadable(self.samples)
        bad = {error.path for error in self.unreadable}
        if bad:
            self.samples = [sample for sample in self.samples if sample.path not in bad]
            if not self.samples:
                raise self.unreadable[0]
            listed = "\n  ".join(map(str, self.unreadable))
            warnings.warn(f"{len(bad)} unreadable files left out:\n  {listed}", stacklevel=3)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, epoch, index])
        views = self._views(index, rng)
        clips = [augment(view, self.recipe, self.size, rng) for view in views for _ in range(self.replicate)]
        if self.kind == "image":
            clips = [clip[:, 0] for clip in clips]
        several = self.sampling == "test" or self.replicate > 1
        x = torch.stack(clips) if several else clips[0]
        return {"x": x, "label": self.samples[index].label, "index": index}

    def _views(self, index: int, rng: np.random.Generator) -> list[Tensor]:
        """The chosen frames uint8 [t h w 3] of each view; one view unless sampling is "test"."""
        if self._cache is not None and index in self._cache:
            frames = self._cache[index]
            return [frames[positions] for positions in self._positions(len(frames), rng)]
        with open_frames(self.samples[index].path) as reader:
            if self._cache is None:
                return [reader.read(positions) for positions in self._positions(len(reader), rng)]
            self._cache[index] = reader.read(range(len(reader)))
        return self._views(index, rng)

    def _positions(self, n_frames: int, rng: np.random.Generator) -> list[list[int]]:
        if self.kind == "image":
            return [[0]]
        if self.sampling == "test":
            return test_views(n_frames, self.clip_frames, self.stride)
        if self.sampling == "centre":
            return [centre_indices(n_frames, self.clip_frames, self.stride)]
        choose = train_indices if self.sampling == "train" else pretrain_indices
        return [choose(n_frames, self.clip_frames, self.stride, rng)]


def find_unreadable(samples: Iterable[Sample], progress: bool = True) -> list[UnreadableMedia]:
    """Read every frame of every sample once and list the errors; costs an epoch of full decoding."""
    from tqdm import tqdm

    found = []
    for sample in tqdm(samples, desc="reading", unit="file", disable=not progress):
        error = _reading_error(sample.path)
        if error:
            found.append(error)
    return found


def _reading_error(path: Path, chunk: int = 64) -> UnreadableMedia | None:
    try:
        with open_frames(path) as reader:
            for start in range(0, len(reader), chunk):  # a long video need not fit in memory
                reader.read(range(start, min(start + chunk, len(reader))))
    except UnreadableMedia as error:
        return error
    return None
