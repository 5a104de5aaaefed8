"""rows → samples     what all readers share: labels, names, groups and files of a list, checked row by row.

Derived in chapter 02.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s4d_lib.datasets.labels import LabelReader, LabelSchema, ReaderNote, schema_named
from s4d_lib.datasets.lists import ASSUMED, Bad, DataRoot, Row, RowError, clean, frame_files, refuse
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.text import printable

Split = Literal["train", "validation", "test"]
Links = Literal["inside", "follow"]
Base = Literal[0, 1] | None
Kind = Literal["image", "clip"]
Groups = Mapping[str, str] | None
Errors = list[RowError] | None


def checked_split(split: str, validation: bool = False) -> str:
    """`split` itself; ValueError unless it is train, test or, where a data set has it, validation."""
    known = ("train", "validation", "test") if validation else ("train", "test")
    if split not in known:
        words = " or ".join(map(repr, known))
        raise Refused(f"split must be {words}, got {split!r}; split_validation() makes a validation set")
    return split


def checked_fold(fold: int) -> int:
    """`fold` itself; ValueError unless it is a whole number from 1 on: it becomes part of a file name."""
    if not isinstance(fold, int) or fold < 1:
        raise Refused(f"fold must be a whole number from 1 on, got {fold!r}")
    return fold


def clip_finder(folder: Path, pattern: str | None = None) -> Callable[[str], Path]:
    """Name → path of a clip in `folder`: by `pattern`, else a video file, else a folder of frames."""
    if pattern is not None and "{id}" not in pattern:
        raise Refused(f"pattern {pattern!r} must hold {{id}}, as in '{{id}}.mp4'")

    def locate(name: str) -> Path:
        if pattern:
            return folder / clean(pattern.replace("{id}", name), "pattern")
        for id in spellings(name):
            for suffix in ASSUMED:
                for found in (f"{folder}{os.sep}{id}{suffix}", f"{folder}{os.sep}{id}{suffix.upper()}"):
                    if os.path.isfile(found):
                        return Path(found)
            if os.path.isdir(folder / id):
                return folder / id
        return folder / name

    return locate


def without_ending(name: str) -> str:
    """A clip's name without the ending of a video, which some lists give it."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in VIDEO_SUFFIXES else name


def spellings(name: str) -> tuple[str, ...]:
    """A clip's name as listed, then, for a number, with its five digits and without the zeros."""
    return tuple(dict.fromkeys((name, name.zfill(5), name.lstrip("0") or "0"))) if name.isdecimal() else (name,)


@dataclass(frozen=True)
class Reading:
    """What a reader is told of a list beside the words of its own layout, and how the rows become samples.

    data      the folder, and whether links may lead out of it
    schema    the class order of the labels
    base      what numeric labels count from; None: the list shows it (`labels.py`)
    groups    id → group, in place of the groups that the rows name
    errors    takes the bad rows; None: the first one is raised
    """

    data: DataRoot
    schema: str | LabelSchema
    base: Base = None
    groups: Groups = None
    errors: Errors = None

    @property
    def bad(self) -> Bad:
        """What is done with a bad row: raised, or kept in `errors`."""
        return refuse if self.errors is None else self.errors.append

    def samples(
        self, rows: Iterable[Row], listing: Path, locate: Callable[[str], Path], kind: Kind | None = None,
        agree: Callable[[str, int, str], None] = lambda name, label, where: None,
    ) -> list[Sample]:
        """Checked samples, row by row.

        `locate` gives the path of a name, `kind` None decides by its ending, `agree` may refuse a name and label
        together. FileNotFoundError reports all missing files at once; RowError for any other bad row, unless `errors`
        collects them.
        """
        labels = LabelReader(schema_named(self.schema), str(listing), self.base)
        seen: dict[str, int] = {}  # file → line: 2 and 00002 may be the same clip
        samples: list[Sample] = []
        count, missing, uneven = 0, [], []

        def sample_of(row: Row, where: str) -> Sample:
            id = clean(row.name, where)
            path = locate(id)
            if (place := str(path)) in seen:
                again = f"is already on line {seen[place]}" if row.line else "is there twice"
                raise RowError(f"{where}: {id!r} {again}", "duplicate")
            seen[place] = row.line
            group = self.groups.get(id) if self.groups is not None else row.group
            if self.groups is not None and group is None:
                raise RowError(f"{where}: {id!r} has no group; groups= must name one for every id", "group")
            label = _label(labels, row.label, where)
            agree(id, label, where)
            self.data.check(path, where)
            if not (os.path.isfile(path) or os.path.isdir(path)):
                if self.errors is not None:
                    raise RowError(f"{where}: {path} is missing", "missing")
                missing.append(path)
            elif row.frames is not None and (found := frame_count(path)) not in (None, row.frames):
                uneven.append(f"{where} {id}: {row.frames:,} listed, {found:,} there")
            what = kind or ("image" if path.suffix.lower() in IMAGE_SUFFIXES else "clip")
            return Sample(id, path, label, what, group, labels.schema.name)

        before = len(self.errors) if self.errors is not None else 0
        for row in rows:
            count += 1
            try:
                samples.append(sample_of(row, f"{listing}:{row.line}" if row.line else f"{listing / row.name}"))
            except RowError as error:
                self.bad(error)
        if not count and (self.errors is None or len(self.errors) == before):
            raise Refused(f"{listing}: the list has no rows" if listing.is_file() else f"{listing}: no files")
        if uneven:
            warnings.warn(ReaderNote(f"{listing}: {len(uneven):,} clips have another number of frames than the list "
                                     f"says, such as {'; '.join(uneven[:3])}; read as they are there"), stacklevel=2)
        samples = self._in_range(samples, labels)
        if missing:
            shown = ", ".join(printable(str(path), 200) for path in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise FileNotFoundError(
                f"{listing}: {len(missing)} of {len(samples)} files are missing: {shown}. "
                "Check the data root and that everything was extracted, or shorten the list")
        return samples

    def _in_range(self, samples: list[Sample], labels: LabelReader) -> list[Sample]:
        """The samples that were labelled rightly, now that the whole list is known."""
        try:
            labels.finish()
        except ValueError as error:
            self.bad(RowError(str(error), "label"))
            # Without a 0 every label of the list was counted from 1, so none of them was read rightly.
            return [sample for sample in samples if labels.zeros and sample.label < len(labels.schema)]
        return samples


def frame_count(path: Path) -> int | None:
    """The frames of a folder of frames; None for a video, which would have to be decoded."""
    return sum(1 for _ in frame_files(path)) if os.path.isdir(path) else None


def _label(reader: LabelReader, text: str | None, where: str) -> int:
    if text is None:
        return 0
    try:
        return reader.read(text, where)
    except ValueError as error:
        raise RowError(str(error), "label") from None
