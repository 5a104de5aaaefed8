"""folder → samples     readers of the image data sets: AffectNet, RAF-DB, FERPlus. `readers.py` has the formats.

Derived in chapter 02.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from s4d_lib.datasets.folders import LAYOUTS, as_class_folders, folder_rows, list_names, rows_of, split_folder
from s4d_lib.datasets.list_form import form_of
from s4d_lib.datasets.lists import DataRoot
from s4d_lib.datasets.rows import Errors, Groups, Links, Reading, Split, checked_split
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused


def read_affectnet(
    root: str | Path, split: Split, schema: str = "affectnet7", groups: Groups = None,
    frames: str | None = None, links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Stills of one AffectNet split; the id is the relative path in the list.

    Its lists, in the order in which they are looked for: `<split>_<schema>.txt` and the released
    `<split>_<schema>_2w.txt`; training.csv and validation.csv, the full tables; <set>/annotations, one small array a
    picture, as it is handed out since 2021 (the test is its validation set; `still_rows.py`). `listing` names another,
    or a .npy array of paths, for which `labels` names the array of labels. `frames` is the folder of the pictures,
    Manually_Annotated_Images unless the list tells its own.
    """
    name = schema if schema in ("affectnet7", "affectnet8") else "affectnet7"
    form, layout = form_of(name, words), LAYOUTS[name]
    reading = Reading(DataRoot(root, links), schema, form.base, groups, errors)
    data = reading.data
    path = data.listing(*list_names(layout, checked_split(split, form.says_splits), 1, form), arrays=True)
    labels = data.listing(*form.label_names(split, 1)) if form.labels else None
    if labels is not None and path.suffix != ".npy":
        raise Refused(f"{path}: labels={form.labels!r} is for an array of names; this list holds its labels")
    rows = rows_of(layout, path, split, reading.bad, form, labels=labels)
    if path.is_dir():
        place = "."
    else:
        place = next((one for one in layout.frames if one != "." and (data.path / one).exists()), layout.frames[0])
    place = frames or place
    folder = data.folder(place, "folder of images") if (data.path / place).exists() else data.path / place
    return reading.samples(rows, path, lambda name: folder / name, "image")


def read_rafdb(
    root: str | Path, split: Split, frames: str | None = None, schema: str = "rafdb", groups: Groups = None,
    links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Stills of one RAF-DB split (basic emotions), as its list and folders are widely described.

    One list holds both splits, told apart by the start of the names; labels count from 1. train_00001.jpg of the list
    is train_00001_aligned.jpg among the aligned pictures; `frames="Image/original"` reads the others. Copies in class
    folders, <split>/<1 … 7>/train_00001_aligned.jpg, are read where the list is not there.
    """
    form, layout = form_of("rafdb", words), LAYOUTS["rafdb"]
    base = layout.base if form.base is None else form.base
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    data = reading.data
    if as_class_folders(layout, data.path, form):
        if frames not in (None, ".") or form.columns or form.strip:
            raise Refused(f"{root}: RAF-DB in class folders has no use for frames, columns and strip; leave them out, "
                          "or name its list with listing")
        called = split_folder(data.path, checked_split(split, validation=True), form) or form.split(split)
        folder = data.folder(called, "folder of a split")
        return reading.samples(folder_rows(folder, data, []), data.path, lambda name: data.path / name, "image")
    checked_split(split, validation=bool(form.listing) or form.says_splits)
    path = data.listing(*list_names(layout, split, 1, form))
    place = frames or next((one for one in layout.frames if (data.path / one).is_dir()), layout.frames[0])
    inside = "basic/" if not (data.path / place).exists() and (data.path / "basic" / place).exists() else ""
    folder = data.folder(inside + place, "folder of images")

    def locate(name: str) -> Path:
        places = [folder / alias for alias in layout.alias(name)]
        return next((place for place in places if os.path.exists(place)), places["_aligned" not in name])

    return reading.samples(rows_of(layout, path, split, reading.bad, form), path, locate, "image")


def read_ferplus(
    root: str | Path, split: Split, frames: str = ".", schema: str = "ferplus", groups: Groups = None,
    links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Stills of one FERPlus split: FER2013Train, FER2013Valid, FER2013Test below `frames`, as they are widely laid out.

    From the votes in fer2013new.csv the class with the most of the ten votes is taken. A picture is left out, and
    counted in a ReaderNote, if two lead or if "unknown" or "not a face" does; papers differ here, so counts do too. A
    `listing` that ends in .txt holds `<relative path> <label>` for the split instead.
    """
    form, layout = form_of("ferplus", words), LAYOUTS["ferplus"]
    reading = Reading(DataRoot(root, links), schema, form.base, groups, errors)
    path = reading.data.listing(*list_names(layout, checked_split(split, validation=True), 1, form))
    folder = reading.data.folder(frames, "folder of images")
    return reading.samples(rows_of(layout, path, split, reading.bad, form), path, lambda name: folder / name, "image")
