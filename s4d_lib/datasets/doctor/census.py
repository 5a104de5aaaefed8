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

from s4d_lib.datasets.folders import LAYOUTS, SPLITS, FolderLayout
from s4d_lib.datasets.labels import LabelSchema, ReaderNote, schema_named
from s4d_lib.datasets.lists import Bad, DataRoot, Row, RowError, clean, encoding_of, require_columns, table_dicts
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.text import natural_order

_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation", "dev"), "test": ("test",)}
Note = Callable[[str, str], None]  # (kind of finding, example)


@dataclass
class Listing:
    """One list as it was read: rows, labels as written with their line, and what else the names tell."""

    path: Path
    split: str
    fold: int
    rows: int = 0
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
        self._labels: dict[str, str] = {}
        self._several: set[str] = set()  # ids with more than one label

    def add(self, listing: Listing, rows: Iterator[Row], layout: FolderLayout, note: Note) -> None:
        """Read one list to its end. Rows that name no clip are noted and left out."""
        bit = bit_of(listing.fold, listing.split)
        self.listings.append(listing)
        for row in rows:
            try:
                id = layout.whole(clean(row.name, f"{listing.path}:{row.line}"))
            except RowError as error:
                note("name outside the folder", str(error))
                continue
            listing.rows += 1
            held = self.members.get(id, 0)
            if held & bit:
                note("id twice", f"{listing.path.name}:{row.line} {id}")
            self.members[id] = held | bit
            if row.group is not None:
                self.groups[row.group] = self.groups.get(row.group, 0) | bit
                self.group_of[id] = row.group
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
    listing: str | None = None,
) -> tuple[Census, FolderLayout]:
    """All lists of a data set, or those of one fold. ValueError for a table without a schema or columns."""
    data, layout = DataRoot(root, links="follow"), LAYOUTS[dataset]
    if schema is None and layout.schema is None:
        raise Refused(f"{root}: a table does not say its class order; say its schema, as in --schema dfew")
    census = Census(dataset, schema_named(schema or layout.schema))
    found = _table_lists(data, listing, fold, note) if dataset == "table" else (
        _class_folders(data) if not layout.names else _named_lists(data, layout, listing, fold, note))
    for one, rows in found:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", ReaderNote)
            try:
                census.add(one, rows(lambda error: note("bad row", str(error))), layout, note)
                if not one.rows:
                    note("unreadable list", f"{one.path}: the list has no rows")
            except (ValueError, OSError) as error:  # an unreadable list: pickled, cut short, another header
                note("unreadable list", str(error))
        for message in notes:
            note("left out by the reader", str(message.message))
    return census, layout


Found = Iterator[tuple[Listing, Callable[[Bad], Iterator[Row]]]]


def _named_lists(data: DataRoot, layout: FolderLayout, listing: str | None, fold: int | None, note: Note) -> Found:
    folds = [fold] if fold is not None else range(1, layout.folds + 1)
    seen: dict[Path, bool] = {}
    for number in folds:
        for split in layout.splits:
            names = [n.replace("{split}", split).replace("{fold}", str(number)) for n in
                     ([listing] if listing else layout.names)]
            path = next((data.path / clean(n, "--listing") for n in names if (data.path / n).is_file()), None)
            if path is None:
                note("list missing", names[0])
                continue
            if not os.path.realpath(path).startswith(os.path.realpath(data.path) + os.sep):
                note("link out of the folder", str(path.relative_to(data.path)))
                continue
            if not seen.setdefault(path, False) and path.suffix == ".txt" and _is_chinese(path):
                note("Chinese captions", str(path.relative_to(data.path)))
            seen[path] = True
            yield Listing(path, split, number), lambda bad, path=path, split=split: layout.rows(path, split, bad)


def _is_chinese(path: Path) -> bool:
    try:
        return encoding_of(path, ("gb18030",)) == "gb18030"
    except ValueError:
        return False


def _class_folders(data: DataRoot) -> Found:
    """<split>/<Class>/<file>; the id keeps the split, since names are used again in every split."""
    here = {p.name.lower().removesuffix("_aligned_faces"): p for p in sorted(data.path.iterdir()) if p.is_dir()}
    for split, words in _FOLDERS.items():
        folder = next((here[name] for name in words if name in here), None)
        if folder is None:
            continue

        def rows(bad: Bad, folder: Path = folder) -> Iterator[Row]:
            for place in sorted((p for p in folder.iterdir() if p.is_dir()), key=lambda p: natural_order(p.name)):
                if place.name.startswith((".", "__")):
                    continue
                with os.scandir(place) as entries:
                    names = [e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
                             or e.is_dir()]
                for name in sorted(names, key=natural_order):
                    yield Row(0, f"{folder.name}/{place.name}/{name}", place.name)

        yield Listing(folder, split, 1), rows


def _table_lists(data: DataRoot, listing: str | None, fold: int | None, note: Note) -> Found:
    """The splits and folds of a table, with the meaning that `datasets.readers.read_table` gives its columns."""
    path = data.listing(listing or "labels.csv")
    lines = table_dicts(path, lambda error: None)
    header = next(lines)[1]
    require_columns(path, header, ["path", "label"])
    splits, folds = set(), set()
    for line, row in lines:
        splits.add(_split_of(row.get("split", "train")))
        folds.add(row.get("fold", "1"))
        if _split_of(row.get("split", "train")) not in SPLITS or not row.get("fold", "1").isdecimal():
            note("bad row", f"{path}:{line}: split {row.get('split')!r}, fold {row.get('fold')!r} is none")
    by_split, by_fold = "split" in header, "fold" in header
    numbers = sorted((f for f in folds if f.isdecimal()), key=int) if by_fold else ["1"]
    for number in numbers:
        if fold is not None and int(number) != fold:
            continue
        for split in SPLITS if by_split else ("train", "test") if by_fold else ("train",):
            if by_split and split not in splits:
                continue

            def rows(bad: Bad, split: str = split, number: str = number) -> Iterator[Row]:
                lines = table_dicts(path, bad)
                next(lines)
                for line, row in lines:
                    if by_split and _split_of(row["split"]) != split:
                        continue
                    here = not by_fold or row["fold"] == number
                    if here if by_split or not by_fold else here == (split == "test"):
                        yield Row(line, row["path"], row["label"], row.get("subject") or None)

            yield Listing(path, split, int(number)), rows


def _split_of(text: str) -> str:
    name = text.strip().lower()
    spelled = next((split for split, words in _FOLDERS.items() if name in words), name)
    return {"training": "train", "testing": "test"}.get(spelled, spelled)
