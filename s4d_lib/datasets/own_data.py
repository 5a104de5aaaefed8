"""data set, folder, fold → settings     what a chapter reads when it is pointed at data of your own.

    s4d book 07 --tier full -p dataset=dfew -p data_root=/data --sweep fold=1,2,3,4,5

Nothing is read or drawn here: names and folders are looked at, and what a training needs to know about them comes back
as changes to its configuration. Explained in chapter 07 and appendix c.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s4d_lib.datasets.folders import LAYOUTS, PARTS, as_class_folders, fold_count, list_names, list_places
from s4d_lib.datasets.labels import FOLDS
from s4d_lib.datasets.list_form import NAMES, USUAL, ListForm, form_of
from s4d_lib.datasets.protocols import PROTOCOLS
from s4d_lib.datasets.readers import READERS, folds_of
from s4d_lib.errors import Refused

DRAWN = "drawn"  # the name of our own faces, of a tier's size
_STILLS = (*(name for name, layout in LAYOUTS.items() if layout.kind == "image"), "sfew2")
STILL_READERS = (*_STILLS, "table", "folders", "packed")
CLIP_READERS = tuple(name for name in READERS if name not in (*_STILLS, "voxceleb2"))


Words = Mapping[str, Any] | None


def data_settings(
    tier: str, dataset: str = DRAWN, data_root: str = "", fold: int | None = 1, still_dataset: str = "",
    lists: Words = None, still_lists: Words = None,
) -> dict[str, dict[str, Any]]:
    """What `training.finetuning` is to be told for each modality: "clip" always, "image" where there are stills.

    dataset        layout of the clips, a name in CLIP_READERS, or "drawn"
    data_root      the folder of the data set, or the one above that has it under its name
    fold           the test fold; 1 for a data set that has one split
    still_dataset  layout of the stills in `data_root`, a name in STILL_READERS; "" means drawn stills beside drawn
                   clips, and none beside your own
    lists          how the lists of the clips are written, in the words of `list_form.py`: {"listing": "labels.tsv"}
    still_lists    the same of the stills

    At the full tier the frames of a clip lie as far apart as the paper has them on that data set. ValueError for a name
    or a fold that is not known, FileNotFoundError, with the folders that would fit, where the lists are not there.
    """
    for name, given, known in (("dataset", dataset, CLIP_READERS), ("still_dataset", still_dataset, STILL_READERS)):
        if given not in (DRAWN, *known, *([""] if name == "still_dataset" else [])):
            raise Refused(f"{name} must be {DRAWN!r} or one of {', '.join(known)}, got {given!r}")
    for given, words in ((dataset, lists), (still_dataset or DRAWN, still_lists)):
        if words and given == DRAWN:
            raise Refused(f"{words!r} is said of lists of your own: name their data set")
    stills = still_dataset or (DRAWN if dataset == DRAWN else "")
    if {dataset, stills} <= {DRAWN, ""}:
        if data_root:
            raise Refused(f"data_root={data_root!r} is for data of your own: say which with dataset=, such as dfew")
    elif not data_root:
        raise Refused(f"dataset={dataset!r}, still_dataset={still_dataset!r}: say where they lie with data_root=")
    form = ListForm() if dataset == DRAWN else form_of(dataset, lists)
    found = {"clip": {} if dataset == DRAWN else _settings(tier, "clips", dataset, Path(data_root), form)}
    found["clip"]["fold"] = _checked_fold(dataset, fold, found["clip"], form)
    if stills:
        found["image"] = {} if stills == DRAWN else _settings(tier, "stills", stills, Path(data_root),
                                                              form_of(stills, still_lists))
    return found


def pretraining_settings(tier: str, dataset: str = DRAWN, data_root: str = "", still_dataset: str = "",
                         lists: Words = None, still_lists: Words = None) -> dict[str, Any]:
    """What `training.pretraining` is to be told, as `data_settings` says it; nothing for drawn faces.

    Labels are not read, so that the clips may also be "voxceleb2" (the folder that holds `mp4`). Without stills beside
    clips of your own the pretraining has one modality.
    """
    if dataset == "voxceleb2":
        if not data_root:
            raise Refused("dataset='voxceleb2': say where it lies with data_root=")
        clips = _settings(tier, "clips", dataset, Path(data_root), form_of(dataset, lists))
        own = still_dataset not in ("", DRAWN)
        beside = data_settings(tier, DRAWN, data_root, 1, still_dataset, None, still_lists) if own else {}
        found = {"clip": clips} | ({"image": beside.get("image", {})} if still_dataset else {})
    else:
        found = data_settings(tier, dataset, data_root, None, still_dataset, lists, still_lists)
        found["clip"].pop("fold")
    return found.get("image", {}) | found["clip"] | ({} if "image" in found else {"modalities": ("clip",)})


def configuration(name: str, root: str, modality: str, reading: dict[str, Any]) -> dict[str, Any]:
    """What a training is told to read a data set as `reading` tells `read_dataset`, as settings of a configuration."""
    part = "stills" if modality == "image" else "clips"
    stage = {"stage": "pretrain", "modalities": [modality]} if name == "voxceleb2" else {
        "stage": "finetune", "mode": "sfer" if modality == "image" else "dfer"}
    lists = {word: value for word, value in reading.items() if word in NAMES}
    told = {f"{part}_schema": reading.get("schema"), f"{part}_lists": lists or None,
            "stills_frames" if part == "stills" else "frames": reading.get("frames")}
    return stage | {"name": _plain(Path(root).resolve().name) or name, part: root, f"{part}_as": name} | {
        field: value for field, value in told.items() if value is not None}


def chapter_words(training: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with which chapter 07 trains on what `configuration` names: own stills beside drawn clips."""
    part = "clips" if "clips" in training else "stills"
    named = {"dataset": training["clips_as"]} if part == "clips" else {"still_dataset": training["stills_as"]}
    known = {"stage", "mode", "name", "fold", part, f"{part}_as", f"{part}_lists"}
    settings = {field: value for field, value in training.items() if field not in known}
    told = {"data_root": training[part], "fold": training.get("fold"),
            "lists" if part == "clips" else "still_lists": training.get(f"{part}_lists"), "settings": settings}
    return named | {name: value for name, value in told.items() if value not in (None, {})}


def lists_hash(tier: str, dataset: str, data_root: str, still_dataset: str, fold: int | None,
               lists: Words = None, still_lists: Words = None) -> str:
    """Content hash of every list of the named data sets, all folds, so that a run can be told from one on other lists.

    Raises what `data_settings` (without a fold: `pretraining_settings`) raises, before anything is run.
    """
    if fold is None:
        pretraining_settings(tier, dataset, data_root, still_dataset, lists, still_lists)
    else:
        data_settings(tier, dataset, data_root, fold, still_dataset, lists, still_lists)
    digest = hashlib.sha256()
    for name, words in ((dataset, lists), (still_dataset, still_lists)):
        if name in LAYOUTS:
            form, layout = form_of(name, words), LAYOUTS[name]
            folder = data_folder(Path(data_root), name, form)
            digest.update(repr(form.said()).encode() if words else b"")
            listed = {found for split in layout.splits for fold in range(1, fold_count(layout, form) + 1)
                      for found in list_names(layout, split, fold, form)} | ({form.labels} - {None})
            for file in sorted(listed | {"groups.csv"}):
                if (folder / file).is_file():
                    digest.update(f"{name}/{file}\0".encode() + (folder / file).read_bytes())
    return digest.hexdigest()[:16]


def data_folder(root: Path, name: str, form: ListForm = USUAL) -> Path:
    """The folder that holds a data set's lists: `root`, or one in it that is called like the data set."""
    if not root.is_dir():
        raise FileNotFoundError(f"data_root={root}: there is no such folder")
    below = [path for path in sorted(root.iterdir()) if path.is_dir() and _plain(path.name) == _plain(name)]
    names = LAYOUTS[name].names if name in LAYOUTS and name != "voxceleb2" else ()
    names = (form.listing,) if form.listing else names
    if not names:  # a data set without lists: its folders are its labels, or its speakers
        return below[0] if below else root
    for folder in (root, *below):
        if any((folder / _first(listed, form)).exists() for listed in names) or (
                name in LAYOUTS and as_class_folders(LAYOUTS[name], folder, form)):
            return folder
    near = list_places(root, names)
    raise FileNotFoundError(f"data_root={root}: no lists of {name} here, such as {_first(names[0], form)}"
                            + (f"; there are some in {' or '.join(near)}" if near else "")
                            + f". `s4d doctor {root} --as {name.replace('_', '-')}` says more")


def _settings(tier: str, part: str, name: str, root: Path, form: ListForm) -> dict[str, Any]:
    folder = data_folder(root, name, form)
    found: dict[str, Any] = {part: str(folder), f"{part}_as": name} | (
        {f"{part}_lists": form.said()} if form.said() else {})
    if part == "clips":
        here = [frames for frames in LAYOUTS[name].frames if (folder / frames).is_dir()] if name in LAYOUTS else []
        if here and here[0] != ".":
            found["frames"] = here[0]
        elif name in PROTOCOLS_OF:
            found["frames"] = PROTOCOLS_OF[name].frames  # the reader says that it is missing, and what lies beside it
        else:
            found["frames"] = "clip_jpg"  # the default, by which a layout without a choice of frames is left alone
        if tier == "full" and name in PROTOCOLS_OF:
            found["stride"] = PROTOCOLS_OF[name].stride
    return found


PROTOCOLS_OF = {protocol.dataset: protocol for name, protocol in PROTOCOLS.items() if name.startswith("s4d/")}


def _checked_fold(dataset: str, fold: int | None, settings: dict[str, Any], form: ListForm) -> int | None:
    """`fold` itself; ValueError unless the data set has it. None asks for none."""
    if fold is None:
        return None
    there = tuple(range(1, FOLDS + 1)) if dataset == DRAWN else folds_of(dataset, settings["clips"], form)
    if fold not in (there or (1,)):
        each = "one split: fold=1" if not there else f"folds {', '.join(map(str, there))}"
        if there and there == tuple(range(there[0], there[-1] + 1)):
            each = f"folds {there[0]} to {there[-1]}"
        raise Refused(f"fold={fold}: {dataset} has {each}")
    return fold


def _first(name: str, form: ListForm) -> str:
    name = name.replace("{split}", form.split("train")).replace("{fold}", "1")
    for word, called in PARTS.items():
        name = name.replace(word, called["train"])
    return name


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
