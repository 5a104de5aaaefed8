"""list → rows     lists of the image data sets: RAF-DB's one list, FERPlus' votes, AffectNet's tables and arrays.

AffectNet's csv and arrays number its classes 0 to 7 and, in the csv, three that are no expression: 8 (none), 9
(uncertain) and 10 (no face). Rows of these, and of Contempt where seven classes are asked for, are left out and counted
in a ReaderNote. Derived in chapter 02.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from s4d_lib.datasets.arrays import one_value
from s4d_lib.datasets.labels import SCHEMAS, LabelSchema, ReaderNote
from s4d_lib.datasets.lists import Bad, Row, RowError, csv_dicts, require_columns, word_rows
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES
from s4d_lib.text import natural_order

FERPLUS = {"train": ("Training", "FER2013Train"), "validation": ("PublicTest", "FER2013Valid"),
           "test": ("PrivateTest", "FER2013Test")}
AFFECTNET = ("subDirectory_filePath", "expression")
NO_EXPRESSION = {8: "None", 9: "Uncertain", 10: "No face"}


def rafdb_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    """Rows of one split of RAF-DB's list; the name of a picture says which it is in."""
    return of_split(path, word_rows(path, "train_00001.jpg 5", bad), split, bad)


def of_split(path: Path, rows: Iterable[Row], split: str, bad: Bad) -> Iterator[Row]:
    """The rows whose names begin with train_ or test_, as asked. `bad` takes those that begin with neither."""
    count, refused, kept = 0, 0, 0
    for row in rows:
        count += 1
        part = row.name.replace("\\", "/").rpartition("/")[2].split("_")[0]
        if part not in ("train", "test"):
            refused += 1
            bad(RowError(f"{path}:{row.line}: {row.name!r} begins with neither train_ nor test_", "row"))
        elif part == split:
            kept += 1
            yield row
    if count > refused and not kept:
        raise Refused(f"{path}: none of its {count:,} rows begins with {split}_; where there is a list for each split, "
                      "name them with {split} in listing")


def voted(path: Path, schema: LabelSchema, usage: str) -> Iterator[Row]:
    """Rows of one part of FERPlus: the class with the most of ten votes; a picture without one is left out."""
    lines = csv_dicts(path)
    header = next(lines)[1]
    require_columns(path, header, ("Usage", "Image name", "unknown", "NF"))
    columns = [name for name in header if schema.word(name) is not None] + ["unknown", "NF"]
    count = left_out = kept = 0
    for line, row in lines:
        count += 1
        if row["Usage"] != usage:
            continue
        if not all(row[name].isdecimal() and len(row[name]) < 10 for name in columns):
            raise RowError(f"{path}:{line}: votes must be whole numbers", "row")
        votes = {name: int(row[name]) for name in columns}
        first = max(votes, key=votes.get)
        tied = list(votes.values()).count(votes[first]) > 1
        if tied or first in ("unknown", "NF") or not row["Image name"]:
            left_out += 1
        else:
            kept += 1
            yield Row(line, row["Image name"], first)
    if left_out:
        warnings.warn(ReaderNote(f"{path}: {left_out} pictures of {usage} have no leading class and are left out"),
                      stacklevel=2)
    if count and not kept:
        raise Refused(f"{path}: none of its {count:,} rows is a picture of {usage} with a leading class")


# -------------------------------------------------------------------------------- AffectNet


def affectnet_rows(path: Path, split: str, bad: Bad, classes: int = 7) -> Iterator[Row]:
    """Rows of an AffectNet list, csv or folder of arrays, with the labels below `classes`."""
    if path.is_dir():
        return without_expression(path, _array_rows(path, bad), classes)
    if path.suffix.lower() == ".csv":
        return without_expression(path, _csv_rows(path, bad), classes)
    return word_rows(path, bad=bad)


def _csv_rows(path: Path, bad: Bad) -> Iterator[Row]:
    """Rows of training.csv or validation.csv; copies of the latter without a header are in circulation."""
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        first = next(csv.reader(file), [])
    named = AFFECTNET[0] in (name.strip().lstrip("\ufeff") for name in first)
    columns = [f"{i}" for i in range(len(first))]
    lines = csv_dicts(path, ",", bad, None if named else columns)
    require_columns(path, next(lines)[1], AFFECTNET if named else ("0", "6"))
    name, label = AFFECTNET if named else ("0", "6")
    for line, row in lines:
        yield Row(line, row[name], row[label])


def _array_rows(path: Path, bad: Bad) -> Iterator[Row]:
    """Rows of <set>/annotations, AffectNet since 2021: <n>_exp.npy holds the label of <set>/images/<n>."""
    images = path.parent / "images"
    pictures: dict[str, str] = {}
    if images.is_dir():
        with os.scandir(images) as entries:
            pictures = {entry.name.rpartition(".")[0]: entry.name for entry in entries
                        if entry.name.lower().endswith(IMAGE_SUFFIXES)}
    for name in sorted((one for one in os.listdir(path) if one.endswith("_exp.npy")), key=natural_order):
        number = name.removesuffix("_exp.npy")
        try:
            label = one_value(path / name)
        except RowError as error:
            bad(error)
            continue
        yield Row(0, f"{path.parent.name}/images/{pictures.get(number, f'{number}.jpg')}", label)


def without_expression(path: Path, rows: Iterable[Row], classes: int) -> Iterator[Row]:
    """The rows whose label is one of the first `classes`; the others that AffectNet has are counted in a ReaderNote."""
    names = dict(enumerate(SCHEMAS["affectnet8"].classes)) | NO_EXPRESSION
    left: Counter[int] = Counter()
    for row in rows:
        number = int(row.label) if row.label is not None and row.label.isdecimal() and len(row.label) < 3 else -1
        if classes <= number <= 10:
            left[number] += 1
        else:
            yield row
    if left:
        told = ", ".join(f"{count:,} of {number} ({names[number]})" for number, count in sorted(left.items()))
        warnings.warn(ReaderNote(f"{path}: left out, as labels that are none of the {classes} classes: {told}"),
                      stacklevel=2)
