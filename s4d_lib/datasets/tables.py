"""list → rows by column     a list whose columns are named, counted or plain: which row is of which split and fold.

A table has a header (CSV, TSV, Parquet), or columns that are told by their number, or is one of the plain lists
`<path> <label>` and `<path> <frames> <label>`. Readers, the doctor and packing all ask here, so that none of them takes
a row for another split or fold than the others do:

    split column               rows of that split
    fold column                the fold in which a row is tested; the other folds' rows are trained on. Where folds are
                               words, as the names of people, they are counted from 1 in the order of the words
    both                       rows of that split in that fold
    neither                    one list, unless `listing` names one for every {split} and {fold}

Derived in chapter 02.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from s4d_lib.datasets.arrays import table_dicts
from s4d_lib.datasets.list_form import COLUMNS, SPLITS, USUAL, VALIDATION, ListForm
from s4d_lib.datasets.lists import (
    Bad,
    Row,
    RowError,
    clip_rows,
    csv_dicts,
    is_plain,
    refuse,
    require_columns,
    short,
    text_lines,
)
from s4d_lib.errors import Refused
from s4d_lib.text import natural_order

_SPELLED = {"training": "train", "testing": "test"} | dict.fromkeys(VALIDATION, "validation")


def split_named(text: str, form: ListForm = USUAL) -> str:
    """The split, train, validation or test, that a word of a data set means; the word itself if none."""
    word = text.strip().lower()
    said = next((split for split, name in form.splits if name.strip().lower() == word), None)
    meant = _SPELLED.get(word, word)
    return said or (meant if meant not in dict(form.splits) else word)


def fold_named(text: str) -> int | None:
    """The number of a fold as a table writes it: 3, 03 or 3.0; None for anything else."""
    found = re.fullmatch(r"\+?0*([0-9]{1,6})(\.0*)?", text.strip())
    return int(found[1]) if found else None


class Table:
    """One list with columns. ValueError if it lacks one that was named, or that every table has."""

    def __init__(self, path: Path, form: ListForm = USUAL, labelled: bool = True):
        self.path, self.form = path, form
        self.plain = (path.suffix.lower() != ".parquet" and not self._by_number() and is_plain(path))
        header = ["path", "frames", "label"] if self.plain else list(self._header())
        said = {name: str(column) for name, column in form.columns}
        if self.plain and said:
            raise Refused(f"{path}:1: a list without a header has no names of columns; say their numbers, as in "
                          "columns path=1,label=2")
        require_columns(path, dict.fromkeys(header), [said.get("path", "path")]
                        + [said.get("label", "label")] * labelled + list(said.values()))
        self.at = {name: said.get(name, name) for name in COLUMNS if said.get(name, name) in header
                   and (name != "frames" or name in said or self.plain)}
        if not labelled:
            self.at.pop("label", None)

    def _by_number(self) -> bool:
        return any(isinstance(column, int) for _, column in self.form.columns)

    def _header(self) -> dict[str, str]:
        return next(self._lines(refuse), (1, {}))[1]

    def _lines(self, bad: Bad) -> Iterator[tuple[int, dict[str, str]]]:
        """The header, then every row by the names of its columns."""
        if self.path.suffix.lower() == ".parquet" or not self._by_number():
            yield from table_dicts(self.path, bad)
            return
        _, line = next(text_lines(self.path), (0, ""))
        if "," in line or ";" in line:
            width = next((len(row) for row in _fields(self.path)), 0)
            yield from csv_dicts(self.path, bad=bad, header=[str(i + 1) for i in range(width)])
            return
        width = len(line.split("\t") if "\t" in line else line.split())
        yield 1, {str(i + 1): "" for i in range(width)}
        for number, line in text_lines(self.path):
            fields = line.split("\t") if "\t" in line else line.split()
            if len(fields) == width:
                yield number, {str(i + 1): field.strip() for i, field in enumerate(fields)}
            else:
                bad(RowError(f"{self.path}:{number}: expected {width} fields, got {short(line.strip())}", "row"))

    def dicts(self, bad: Bad = refuse) -> Iterator[tuple[int, dict[str, str]]]:
        """(line, {path, label, split, fold, subject, frames: text}) of every row; only what there is a column for."""
        if self.plain:
            for row in clip_rows(self.path, bad):
                yield row.line, {"path": row.name, "label": row.label, "frames": str(row.frames or "")}
            return
        lines = self._lines(bad)
        next(lines)
        for line, row in lines:
            yield line, {name: row[column] for name, column in self.at.items()}

    @cached_property
    def named_folds(self) -> dict[str, int]:
        """Name → number of the folds, where the column of folds holds words and no number, and not those of splits."""
        if "fold" not in self.at:
            return {}
        words = {row["fold"].strip() for _, row in self.dicts(lambda error: None)} - {""}
        if any(fold_named(word) is not None for word in words) or {split_named(word) for word in words} <= set(SPLITS):
            return {}
        return {word: number for number, word in enumerate(sorted(words, key=natural_order), 1)}

    def fold_of(self, row: dict[str, str]) -> int | None:
        """The number of a row's fold, 1 where no column says it; None for a fold that is none."""
        text = row.get("fold", "1")
        return self.named_folds.get(text.strip()) if self.named_folds else fold_named(text)

    def parts(self, bad: Bad = refuse) -> tuple[list[str], list[int]]:
        """(splits in order, folds in order) that its columns name; a row that names none is a bad row."""
        splits, folds = set(), set()
        for line, row in self.dicts(lambda error: None):
            split, fold = split_named(row.get("split", "train"), self.form), self.fold_of(row)
            if split not in SPLITS or fold is None:
                bad(RowError(f"{self.path}:{line}: split {short(row.get('split', ''))}, fold "
                             f"{short(row.get('fold', ''))} is none; say what they are called with splits, or correct "
                             "the row", "row"))
            else:
                splits.add(split)
                folds.add(fold)
        return ([split for split in SPLITS if split in splits] if "split" in self.at else [],
                sorted(folds) if "fold" in self.at else [])

    def has(self, split: str, fold: int | None = None) -> bool:
        """Whether the columns call some row one of this split (and fold, where there are folds)."""
        by_fold = fold is not None and "fold" in self.at
        return "split" in self.at and any(
            split_named(row["split"], self.form) == split and (not by_fold or self.fold_of(row) == fold)
            for _, row in self.dicts(lambda error: None))

    def rows(self, split: str | None, fold: int | None, bad: Bad = refuse) -> Iterator[Row]:
        """The rows of one split and fold (None: of all). ValueError where there is none, or no such fold."""
        listing = self.form.listing or ""
        by_split = split is not None and "{split}" not in listing and ("split" in self.at or fold is None)
        by_fold = fold is not None and "{fold}" not in listing
        column = dict(self.form.columns)
        require_columns(self.path, dict.fromkeys(self.at), [column.get("split", "split")] * (
            by_split and "split" not in self.at) + [column.get("fold", "fold")] * (by_fold and "fold" not in self.at))
        if by_fold and split is None:
            raise Refused(f"{self.path}: fold={fold} needs split='train' or split='test'")
        if by_fold and not by_split and split == "validation":
            raise Refused(f"{self.path}: a column of folds names no validation split; ask for 'train' or 'test'")
        count = kept = 0
        seen: set[tuple[str, int | None]] = set()
        for line, row in self.dicts(bad):
            count += 1
            here = split_named(row["split"], self.form) if by_split else split, self.fold_of(row)
            seen.add(here)
            if (by_split and here[0] != split) or (by_fold and here[1] is None):
                continue
            if by_fold and (here[1] == fold) != (by_split or split == "test"):
                continue
            kept += 1
            if row.get("subject") == "":
                bad(RowError(f"{self.path}:{line}: no subject; name one in every row or drop the column", "group"))
                continue
            yield Row(line, row["path"], row.get("label"), row.get("subject"),
                      int(row["frames"]) if re.fullmatch("[0-9]{1,9}", row.get("frames", "")) else None)
        folds = sorted({number for _, number in seen if number is not None})
        if by_fold and count and fold not in folds:
            there = ", ".join(map(str, folds)) or "none"
            raise Refused(f"{self.path}: no row is of fold {fold}; its folds are {there}")
        if by_fold and self.form.folds is not None and len(folds) != self.form.folds:
            raise Refused(f"{self.path}: folds={self.form.folds}, but the column has {len(folds)}")
        if count and not kept:
            raise Refused(f"{self.path}: none of its {count:,} rows is of split {split!r}"
                          + f" and fold {fold}" * by_fold + f"; there are {', '.join(sorted({s for s, _ in seen}))}")


def _fields(path: Path) -> Iterator[list[str]]:
    import csv

    from s4d_lib.datasets.lists import delimiter_of, encoding_of

    with open(path, encoding=encoding_of(path), newline="") as file:
        yield from csv.reader(file, delimiter=delimiter_of(path))
