"""folder, form → bool     whether the lists of a data set hold a validation split, on which a training then chooses.

Nothing but lists and names of folders is read. Derived in chapter 02.
"""

from __future__ import annotations

from pathlib import Path

from s4d_lib.datasets.folders import LAYOUTS, FolderLayout, as_class_folders, list_names, split_folder
from s4d_lib.datasets.list_form import USUAL, ListForm
from s4d_lib.datasets.lists import clean
from s4d_lib.datasets.packed import packed_splits
from s4d_lib.datasets.tables import Table


def has_validation(name: str, root: str | Path, form: ListForm = USUAL, fold: int | None = None) -> bool:
    """Whether the data set can be asked for split="validation" of this fold; False where its lists are not there.

    A published validation split (FERPlus), a folder val or valid among class folders, a list that {split} in `listing`
    finds, rows that a column of splits calls so, or samples that were packed as such.
    """
    root = Path(root)
    if name == "packed":
        return ("validation", fold) in packed_splits(root) or ("validation", None) in packed_splits(root)
    layout = LAYOUTS[name]
    if not root.is_dir() or layout.by_name is not None:
        return False
    if as_class_folders(layout, root, form):
        return split_folder(root, "validation", form) is not None
    if "{split}" in (form.listing or ""):
        return _list_of(layout, root, "validation", form, fold) is not None
    if name == "table" or form.column("split") is not None:
        path = _list_of(layout, root, "train", form, fold)
        return path is not None and Table(path, form, labelled=False).has("validation", fold)
    return "validation" in layout.splits and _list_of(layout, root, "validation", form, fold) is not None


def _list_of(layout: FolderLayout, root: Path, split: str, form: ListForm, fold: int | None) -> Path | None:
    names = (clean(name, f"{root}") for name in list_names(layout, split, 1 if fold is None else fold, form))
    return next((root / name for name in names if (root / name).is_file()), None)
