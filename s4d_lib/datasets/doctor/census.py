"""lists → counts     every list of a data set read to its end, whatever is wrong in it: who is named where, how often.

The readers (`datasets/readers.py`) stop at the first bad row, because a training must. Here bad rows are counted and
the reading goes on, and a list is read although its clips are not there. `datasets.folders.LAYOUTS` says which lists a
data set has and how they are read.

Derived in chapter 02.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from s4d_lib.datasets.folders import (
    LAYOUTS,
    FolderLayout,
    as_class_folders,
    fold_count,
    folder_rows,
    list_names,
    rows_of,
    split_folder,
)
from s4d_lib.datasets.groups import groups_of
from s4d_lib.datasets.labels import LabelSchema, ReaderNote, schema_named
from s4d_lib.datasets.list_form import SPLITS, USUAL, ListForm
from s4d_lib.datasets.lists import Bad, DataRoot, Row, RowError, clean, encoding_of
from s4d_lib.datasets.named_files import named_rows
from s4d_lib.datasets.own_validation import has_validation
from s4d_lib.datasets.tables import Table
from s4d_lib.errors import Refused

Note = Callable[[str, str], None]  # (kind of finding, example)


@dataclass
class Listing:
    """One list as it was read: rows, labels as written with their line, and what else the names tell."""

    path: Path
    split: str
    fold: int
    rows: int = 0
    read: bool = True  # to its end; counts of one that was not are of no list
    labels: Counter = field(default_factory=Counter)  # label as written → rows
    first: dict[str, int] = field(default_factory=dict)  # label as written → line of its first row
    told: Counter = field(default_factory=Counter)  # (label as written, expression in the name) → rows
    told_first: dict[tuple[str, str], str] = field(default_factory=dict)

    def counting(self, schema: LabelSchema) -> Literal[0, 1] | None:
        """What the numbers of this list count from: 0 if one is 0, else 1 if one is n, else unknown."""
        numbers = {int(text) for text in self.labels if schema.word(text) is None and _is_number(text)}
        return 0 if 0 in numbers else 1 if len(schema) in numbers else None

    def has_numbers(self, schema: LabelSchema) -> bool:
        """Whether some label is a number and not a class name."""
        return any(schema.word(text) is None and _is_number(text) for text in self.labels)

    def per_class(self, schema: LabelSchema, base: int) -> tuple[list[int], Counter]:
        """(rows per class, rows of every label that is none of the schema's, as written)."""
        counts, outside = [0] * len(schema), Counter()
        for text, rows in self.labels.items():
            label = _label(text, schema, base)
            if label is None:
                outside[text] += rows
            else:
                counts[label] += rows
        return counts, outside

    def disagreeing(self, schema: LabelSchema, base: int) -> Iterator[tuple[int, str]]:
        """(rows, example) of labels that are not the expression in the name of their clip."""
        for (text, word), rows in self.told.items():
            label, told = _label(text, schema, base), schema.word(word)
            if label is not None and told not in (None, label):
                yield rows, f"{self.told_first[text, word]} is listed as {schema.classes[label]}"


class Census:
    """What all lists together say: `members[id]` has a bit per (fold, split) that names the id, see `bit`."""

    def __init__(self, dataset: str, schema: LabelSchema):
        self.dataset, self.schema = dataset, schema
        self.listings: list[Listing] = []
        self.members: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        self.group_of: dict[str, str] = {}  # id → group
        self.told_groups: dict[str, str] | None = None  # id → group of groups.csv, which counts in place of the lists'
        self.outside: list[str] = []  # names that lead out of the folder
        self.frames: dict[str, int] = {}  # id → how many frames a list says that it has
        self._labels: dict[str, str] = {}
        self._several: set[str] = set()  # ids with more than one label

    def add(self, listing: Listing, rows: Iterator[Row], layout: FolderLayout, note: Note) -> None:
        """Read one list to its end. Rows that name no clip are noted and left out."""
        bit = bit_of(listing.fold, listing.split)
        self.listings.append(listing)
        for row in rows:
            try:
                name = clean(row.name, f"{listing.path}:{row.line}")
                id = layout.whole(name)
            except RowError as error:
                note("name outside the folder", str(error))
                self.outside.append(row.name)
                continue
            listing.rows += 1
            held = self.members.get(id, 0)
            if held & bit:
                note("id twice", f"{listing.path.name}:{row.line} {id}")
            self.members[id] = held | bit
            if row.frames is not None:
                self.frames[id] = row.frames
            group = row.group if self.told_groups is None else self.told_groups.get(name)
            if group is not None:
                self.groups[group] = self.groups.get(group, 0) | bit
                self.group_of[id] = group
            elif self.told_groups is not None:
                note("without a group", id)
            if row.label is not None:
                self._count(listing, row, id, layout, note)

    def _count(self, listing: Listing, row: Row, id: str, layout: FolderLayout, note: Note) -> None:
        text = row.label.strip()
        listing.labels[text] += 1
        listing.first.setdefault(text, row.line)
        if (word := layout.told(id)) is not None:
            listing.told[text, word] += 1
            listing.told_first.setdefault((text, word), id)
        if self._labels.setdefault(id, text) != text and id not in self._several:
            self._several.add(id)
            note("two labels", f"{id} ({' and '.join(sorted((self._labels[id], text)))})")

    def base(self, given: int | None = None) -> tuple[int, set[int]]:
        """(what the numbers count from, what the lists say when each is asked alone)."""
        said = {listing.counting(self.schema) for listing in self.listings} - {None}
        return (given if given is not None else 1 if said == {1} else 0), said


def bit_of(fold: int, split: str) -> int:
    """The bit of (fold, split) in a mask of memberships."""
    return 1 << (len(SPLITS) * fold + SPLITS.index(split))


def _is_number(text: str) -> bool:
    return text.lstrip("+-").isdecimal() and len(text) < 10


def _label(text: str, schema: LabelSchema, base: int) -> int | None:
    label = schema.word(text)
    if label is None and _is_number(text) and 0 <= int(text) - base < len(schema):
        label = int(text) - base
    return label


def read_census(
    root: Path, dataset: str, note: Note, fold: int | None = None, schema: str | None = None,
    form: ListForm = USUAL, frames: str | None = None,
) -> tuple[Census, FolderLayout]:
    """All lists of a data set, or those of one fold. ValueError for a table without a schema or columns.

    `form` says how they are written (`datasets/list_form.py`), `frames` where films lie that are known by their names.
    """
    data, layout = DataRoot(root, links="follow"), LAYOUTS[dataset]
    if schema is None and layout.schema is None:
        raise Refused(f"{root}: {'a table' if dataset == 'table' else 'class folders'} does not say its class order; "
                      "say its schema, as in --schema dfew, or your own classes, as in --classes pain,no_pain")
    census = Census(dataset, schema_named(schema or layout.schema))
    try:
        census.told_groups = groups_of(data.path)
    except (ValueError, OSError) as error:
        note("unreadable list", str(error))
    if dataset == "table":
        found = _table_lists(data, form, fold, census.schema.name != "unlabelled", note)
    elif layout.by_name is not None:
        found = _named_films(data, layout, form, fold, frames)
    elif as_class_folders(layout, data.path, form):
        found = _class_folders(data, form, note)
    else:
        found = _named_lists(data, dataset, form, fold, note)
    for one, rows in found:
        bad, before = [], len(census.outside)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", ReaderNote)
            try:
                census.add(one, rows(bad.append), layout, note)
                if not one.rows and not bad and len(census.outside) == before:
                    note("unreadable list", f"{one.path}: the list has no rows")
                one.read = bool(one.rows)
            except (ValueError, OSError) as error:  # an unreadable list: pickled, cut short, another header
                one.read = False
                note("unreadable list", str(error))
        for error in bad:
            note("bad row", str(error))
        for message in notes:
            note("left out by the reader", str(message.message))
    return census, layout


Found = Iterator[tuple[Listing, Callable[[Bad], Iterator[Row]]]]


def _named_lists(data: DataRoot, dataset: str, form: ListForm, fold: int | None, note: Note) -> Found:
    layout = LAYOUTS[dataset]
    folds = [fold] if fold is not None else range(1, fold_count(layout, form) + 1)
    seen: dict[Path, bool] = {}
    for number in folds:
        for split in SPLITS if has_validation(dataset, data.path, form, number) else layout.splits:
            names = [clean(name, "--listing") for name in list_names(layout, split, number, form)]
            path = next((data.path / name for name in names if (data.path / name).is_file()
                         or (layout.arrays and (data.path / name).is_dir())), None)
            if path is None:
                note("list missing", names[0])
                continue
            if not os.path.realpath(path).startswith(os.path.realpath(data.path) + os.sep):
                note("link out of the folder", str(path.relative_to(data.path)))
                continue
            if not seen.setdefault(path, False) and path.suffix == ".txt" and _is_chinese(path):
                note("Chinese captions", str(path.relative_to(data.path)))
            seen[path] = True
            named = [data.path / clean(name, "--labels") for name in form.label_names(split, number)]
            labels = next((place for place in named if place.is_file()), named[0] if named else None)

            def rows(bad: Bad, path: Path = path, split: str = split, number: int = number, labels: Path | None = labels
                     ) -> Iterator[Row]:
                return rows_of(layout, path, split, bad, form, number, labels)

            yield Listing(path, split, number), rows


def _is_chinese(path: Path) -> bool:
    try:
        return encoding_of(path, ("gb18030",)) == "gb18030"
    except ValueError:
        return False


def _named_films(data: DataRoot, layout: FolderLayout, form: ListForm, fold: int | None, frames: str | None) -> Found:
    """The folds into which the people of a data set are dealt whose films are named by what they show."""
    folds = form.folds or layout.folds
    place = data.folder(frames or next(name for name in layout.frames if (data.path / name).is_dir()))
    for number in [fold] if fold is not None else range(1, folds + 1):
        for split in layout.splits:
            yield Listing(place, split, number), lambda bad, split=split, number=number: named_rows(
                place, layout.by_name, split, number, folds)


def _class_folders(data: DataRoot, form: ListForm, note: Note) -> Found:
    """<split>/<Class>/<file>; the id keeps the split, since names are used again in every split."""
    for split in SPLITS:
        called = split_folder(data.path, split, form)
        if called is None:
            continue

        def rows(bad: Bad, folder: Path = data.path / called) -> Iterator[Row]:
            other: list[Path] = []
            yield from folder_rows(folder, data, other)
            if other:
                note("left out by the reader", f"{folder.name}: {len(other)} files that are neither pictures nor "
                     f"videos, such as {other[0].name}")

        yield Listing(data.path / called, split, 1), rows
    if not any(split_folder(data.path, split, form) for split in SPLITS):
        return  # no split at all: what the doctor says of a folder without lists
    for split in ("train", "test"):
        if split_folder(data.path, split, form) is None:
            called = split_folder(data.path, "validation", form)
            beside = f"; say --splits {split}={called} to take that for it" if called else ""
            note("list missing", f"a folder of the split {split}, such as {form.split(split)}{beside}")


def _table_lists(data: DataRoot, form: ListForm, fold: int | None, labelled: bool, note: Note) -> Found:
    """The splits and folds of a table, each as the reader reads it."""
    folds = range(1, (form.folds or 1) + 1) if "{fold}" in (form.listing or "") else (1,)
    parts = SPLITS if "{split}" in (form.listing or "") else ("train",)
    found = False
    for number in folds:
        for part in parts:
            names = [clean(name, "--listing") for name in list_names(LAYOUTS["table"], part, number, form)]
            path = next((data.path / name for name in names if (data.path / name).is_file()), None)
            if path is None:
                if part != "validation":
                    note("list missing", names[0])
                continue
            found = True
            yield from _table_parts(Table(path, form, labelled), part, number, len(parts) > 1, fold, note)
    if not found:
        data.listing(*list_names(LAYOUTS["table"], "train", 1, form))  # says what lies there


def _table_parts(table: Table, part: str, number: int, by_file: bool, fold: int | None, note: Note) -> Found:
    splits, folds = table.parts(lambda error: note("bad row", str(error)))
    for name, number_of in table.named_folds.items():
        note("folds by name", f"{number_of}: {name}")
    if not by_file and not folds and not {"train", "test"} <= set(splits):
        missing = [split for split in ("train", "test") if split not in splits] if splits else ["test"]
        note("list missing", f"{table.path.name}: {'no row is of the split ' + ' or '.join(missing) if splits else ''}"
             f"{'' if splits else 'no column says the split or the fold of a row'}")
    for here in folds or [number]:
        if fold is not None and here != fold:
            continue
        for split in [part] if by_file else splits or (("train", "test") if folds else ("train",)):
            asked = split if splits or folds or by_file else None

            def rows(bad: Bad, split: str | None = asked, here: int = here) -> Iterator[Row]:
                for row in table.rows(split, here if folds else None, bad):
                    try:
                        yield row._replace(name=table.form.stripped(row.name))
                    except Refused as error:
                        bad(RowError(f"{table.path}:{row.line}: {error}", "name"))

            yield Listing(table.path, split, here), rows
