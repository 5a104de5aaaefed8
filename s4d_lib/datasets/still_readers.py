"""folder → samples     readers of the image data sets: AffectNet, RAF-DB, FERPlus. `readers.py` has the formats.

Derived in chapter 02.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from s4d_lib.datasets.labels import LabelSchema, ReaderNote, schema_named
from s4d_lib.datasets.lists import Bad, DataRoot, Row, RowError, csv_dicts, npy_rows, require_columns, word_rows
from s4d_lib.datasets.rows import Base, Errors, Groups, Links, Reading, Split, checked_split
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused


def read_affectnet(
    root: str | Path, split: Split, schema: str = "affectnet7", listing: str | None = None, groups: Groups = None,
    base: Base = None, labels: str | None = None, strip: str = "", frames: str = "Manually_Annotated_Images",
    links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Stills of one AffectNet split; the id is the relative path in the list.

    `listing` names a list under `root` other than `<split>_<schema>.txt` and the released `<split>_<schema>_2w.txt`,
    or a .npy array of paths, for which `labels` names the array of labels. `strip` is taken
    off the start of the names: arrays in circulation hold the paths of the machine that wrote them.
    """
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    data = reading.data
    usual = [f"{checked_split(split)}_{schema}{end}.txt" for end in ("", "_2w")]
    path = data.listing(*([listing] if listing else usual))
    if path.suffix == ".npy":
        if labels is None:
            raise Refused(f"{path}: an array of paths needs labels=, the array of labels beside it")
        rows: Iterable[Row] = npy_rows(path, data.listing(labels))
    else:
        rows = word_rows(path, bad=reading.bad)
    rows = (row._replace(name=row.name.removeprefix(strip).lstrip("/") if strip else row.name) for row in rows)
    folder = data.folder(frames, "folder of images") if (data.path / frames).exists() else data.path / frames
    return reading.samples(rows, path, lambda name: folder / name, "image")


def read_rafdb(
    root: str | Path, split: Split, frames: str = "Image/aligned", schema: str = "rafdb", groups: Groups = None,
    base: Base = 1, listing: str | None = None, links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Stills of one RAF-DB split (basic emotions), as its list and folders are widely described.

    One list holds both splits, told apart by the start of the names; labels count from 1. train_00001.jpg of the list
    is train_00001_aligned.jpg among the aligned pictures; `frames="Image/original"` reads the others.
    """
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    data = reading.data
    name = "EmoLabel/list_patition_label.txt"
    path = data.listing(*([listing] if listing else [name, f"basic/{name}"]))
    inside = "basic/" if not (data.path / frames).exists() and (data.path / "basic" / frames).exists() else ""
    folder = data.folder(inside + frames, "folder of images")

    def locate(name: str) -> Path:
        plain = folder / name
        return plain if plain.exists() else plain.with_name(f"{plain.stem}_aligned{plain.suffix}")

    checked_split(split)
    return reading.samples(rafdb_rows(path, split, reading.bad), path, locate, "image")


FERPLUS = {"train": ("Training", "FER2013Train"), "validation": ("PublicTest", "FER2013Valid"),
            "test": ("PrivateTest", "FER2013Test")}


def rafdb_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    """Rows of one split; the name of a picture says which it is in. `bad` takes those that name none."""
    for row in word_rows(path, "train_00001.jpg 5", bad):
        part = row.name.split("_")[0]
        if part not in ("train", "test"):
            bad(RowError(f"{path}:{row.line}: {row.name!r} begins with neither train_ nor test_", "row"))
        elif part == split:
            yield row


def read_ferplus(
    root: str | Path, split: Split, frames: str = ".", schema: str = "ferplus", groups: Groups = None,
    base: Base = None, listing: str = "fer2013new.csv", links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Stills of one FERPlus split: FER2013Train, FER2013Valid, FER2013Test below `frames`, as they are widely laid out.

    From the votes in fer2013new.csv the class with the most of the ten votes is taken. A picture is left out, and
    counted in a ReaderNote, if two lead or if "unknown" or "not a face" does; papers differ here, so counts do too. A
    `listing` that ends in .txt holds `<relative path> <label>` for the split instead.
    """
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    data = reading.data
    usage, part = FERPLUS[checked_split(split, validation=True)]
    path, folder = data.listing(listing), data.path if frames == "." else data.folder(frames, "folder of images")
    if path.suffix == ".txt":
        rows = word_rows(path, bad=reading.bad)
    else:
        rows = (row._replace(name=f"{part}/{row.name}") for row in voted(path, schema_named(schema), usage))
    return reading.samples(rows, path, lambda name: folder / name, "image")


def voted(path: Path, schema: LabelSchema, usage: str) -> Iterator[Row]:
    lines = csv_dicts(path)
    header = next(lines)[1]
    require_columns(path, header, ("Usage", "Image name", "unknown", "NF"))
    columns = [name for name in header if schema.word(name) is not None] + ["unknown", "NF"]
    left_out = 0
    for line, row in lines:
        if row["Usage"] != usage:
            continue
        if not all(row[name].isdecimal() for name in columns):
            raise RowError(f"{path}:{line}: votes must be whole numbers", "row")
        votes = {name: int(row[name]) for name in columns}
        first = max(votes, key=votes.get)
        tied = list(votes.values()).count(votes[first]) > 1
        if tied or first in ("unknown", "NF") or not row["Image name"]:
            left_out += 1
        else:
            yield Row(line, row["Image name"], first)
    if left_out:
        warnings.warn(ReaderNote(f"{path}: {left_out} pictures of {usage} have no leading class and are left out"),
                      stacklevel=2)
