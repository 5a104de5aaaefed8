"""folder → samples     one reader for every data set that the papers use, and for tables and class folders of your own.

    DFEW        annotation|EmoLabel_DataSplit/<split>(single-labeled)/[<split>_]set_<fold>.csv     video_name,label
                <frames>/<video_name>/*.jpg|*.png   or   <frames>/<video_name>.mp4
    FERV39K     Annotation/<split>.csv                        path,id          <Scene>/<Emotion>/<clip>,<id>
                4_setups/All_scenes/<split>_All.csv           no header        <Scene>/<Emotion>/<clip> <word>
    MAFW        anno|split/single/no_caption/set_<fold>/<split>.csv            video_name,labels
                … /<split>.txt   `03747.mp4 anger`;   with_caption: tabs, Chinese (GB 18030) and English captions
                … /compound/…    `00025.mp4 anger_disgust`
    AffectNet   <split>_affectnet7.txt                        `<relative path> <label>`; or two .npy arrays
                Manually_Annotated_Images/<relative path>
    RAF-DB      [basic/]EmoLabel/list_patition_label.txt      `train_00001.jpg 5`, counting from 1
    FERPlus     fer2013new.csv                                votes of ten annotators; or `<relative path> <label>`
    SFEW        Train|Val/<Class>/*.png
    VoxCeleb2   info_clean.csv, a .npy list, or a walk of     mp4/<id>/<ytid>/<n>.mp4; unlabelled, group = id
    CAER        <split>/<Class>/*.avi|*.png
    table       CSV or Parquet with columns path,label[,fold,split,subject]
    packed      what `s4d pack` wrote; labels in the class order of its manifest

Formats of RAF-DB, FERPlus, SFEW and CAER are the widely used conventions: the released code reads none of them.

Every reader also takes `groups` (id → group), `base` (0 or 1: what numeric labels count from; `labels.py` has the
rule), `links` ("follow" trusts links that lead out of the folder; `datasets.lists.DataRoot`) and `errors`: a list that
collects bad rows as RowErrors instead of raising the first, so that they can be counted; the samples are then the good
rows. FileNotFoundError for missing lists, folders and clips, ValueError for bad rows, each with file, line and remedy.

Derived in chapter 02.
"""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from s4d_lib.datasets.folders import LAYOUTS, FolderLayout
from s4d_lib.datasets.labels import SCHEMAS, ReaderNote, schema_named
from s4d_lib.datasets.lists import (
    DataRoot,
    Row,
    RowError,
    csv_dicts,
    csv_rows,
    npy_rows,
    require_columns,
    tab_rows,
    table_dicts,
    word_rows,
)
from s4d_lib.datasets.packed import read_packed_split
from s4d_lib.datasets.rows import (
    Base,
    Errors,
    Groups,
    Links,
    Reading,
    Split,
    checked_fold,
    checked_split,
    clip_finder,
)
from s4d_lib.datasets.samples import Sample
from s4d_lib.datasets.still_readers import read_affectnet, read_ferplus, read_rafdb
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.text import natural_order

_VALIDATION = ("val", "valid", "validation", "dev")

_LITTER = (".", "thumbs.db", "desktop.ini", "__macosx")  # what file managers leave in folders


# -------------------------------------------------------------------------------- clips


def read_dfew(
    root: str | Path, split: Split, fold: int = 1, frames: str = "clip_jpg", pattern: str | None = None,
    schema: str = "dfew", groups: Groups = None, base: Base = None, listing: str | None = None,
    links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Clips of one DFEW split and fold; ids stay text, so 00001 keeps its zeros.

    `frames` is the folder under `root` that holds the clips (S4D `clip_jpg_256`, which is the official `Clip/jpg_256`;
    S2D `Clip/clip_224x224_16f`) and `pattern` the name of one, as in "{id}.mp4" or "{id}"; by default a video named by
    the id, or else a folder. An id written without its zeros finds the clip that has them. The official lists count
    labels from 1: `base=1`.
    """
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    part = f"{checked_split(split)}(single-labeled)"
    named = [listing] if listing else [
        f"annotation/{part}/{split}_set_{checked_fold(fold)}.csv", f"EmoLabel_DataSplit/{part}/{split}_set_{fold}.csv",
        f"EmoLabel_DataSplit/{part}/set_{fold}.csv"]
    path = reading.data.listing(*named)
    rows = csv_rows(path, ("video_name", "label"), reading.bad)
    return reading.samples(rows, path, clip_finder(reading.data.folder(frames), pattern), "clip")


def read_ferv39k(
    root: str | Path, split: Split, frames: str = "2_ClipsforFaceCrop", schema: str = "ferv39k", groups: Groups = None,
    base: Base = None, listing: str | None = None, links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Clips of one FERV39K split; the id is the path in the list, as in Crime/Angry/0063.

    The middle folder names the expression, so every label is checked against it: a list that was written in another
    class order is refused.
    """
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    path = reading.data.listing(
        *([listing] if listing else [f"Annotation/{checked_split(split)}.csv", f"4_setups/All_scenes/{split}_All.csv"]))
    with_header = next(csv_dicts(path), (1, {}))[1].keys() == {"path", "id"}
    words = "All_scenes" in path.parts or path.name.endswith("_All.csv")
    rows = (word_rows(path, bad=reading.bad) if words and not with_header else
            csv_rows(path, ("path", "id"), reading.bad))

    def agree(name: str, label: int, where: str) -> None:
        classes, parts = schema_named(schema), name.split("/")
        told = classes.word(parts[-2]) if len(parts) > 1 else None
        if told not in (None, label):
            others = [s.name for s in SCHEMAS.values() if s.name != classes.name and label < len(s)
                      and set(s.classes) == set(classes.classes) and s.word(parts[-2]) == label]
            remedy = ["base=1"] * (told == label - 1) + [f"schema={other!r}" for other in others]
            read = classes.classes[label] if label < len(classes) else "no class"
            raise RowError(
                f"{where}: label {label} is {read} in {classes.name}, but the folder says {parts[-2]}; the list counts "
                f"in another way: try {' or '.join(remedy) or 'another list'}", "label")

    return reading.samples(rows, path, clip_finder(reading.data.folder(frames)), "clip", agree)


def read_mafw(
    root: str | Path, split: Split, fold: int = 1, frames: str = "frames_crop_align_224", compound: bool = False,
    schema: str | None = None, groups: Groups = None, base: Base = None, listing: str | None = None,
    links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Clips of one MAFW split and fold; the id is the clip's number without .mp4, as in 03747.

    `compound` reads the 43 classes of the compound lists ("anger_disgust", the order of the words does not matter),
    which hold words alone. The captioned lists give the same samples; their sentences are passed over.
    """
    schema = schema or ("mafw_compound" if compound else "mafw")
    reading = Reading(DataRoot(root, links), schema, base, groups, errors)
    path = reading.data.listing(*([listing] if listing else _mafw_lists(checked_split(split), fold, compound)))
    if path.suffix == ".csv":
        rows: Iterable[Row] = csv_rows(path, ("video_name", "labels"), reading.bad)
    elif "with_caption" in path.parts:
        rows = (Row(line, fields[0], fields[1]) for line, fields in tab_rows(path, 4, ("gb18030",), reading.bad))
    else:
        rows = word_rows(path, "<clip>.mp4 <word>", reading.bad)
    rows = (row._replace(name=row.name.removesuffix(".mp4")) for row in rows)
    return reading.samples(rows, path, clip_finder(reading.data.folder(frames)), "clip")


def _mafw_lists(split: str, fold: int, compound: bool) -> list[str]:
    kind = "compound" if compound else "single"
    return [f"{place}/{kind}/{caption}/set_{checked_fold(fold)}/{split}.{suffix}"
            for caption, suffix in (("no_caption", "csv"), ("no_caption", "txt"), ("with_caption", "txt"))
            for place in ("anno", "split")]


_VOX_NAME = re.compile(r"(?:^|.*/)(id\d+/[^/]+/[^/]+)$")


def read_voxceleb2(
    root: str | Path, split: Split = "train", listing: str | None = None, frames: str = "mp4", groups: Groups = None,
    links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Unlabelled clips; the id is id08423/oEx3CRfDXMQ/00048 and the group is the speaker, id08423.

    `listing` names a text list (`<root>/id…/…/….mp4 0`, as MAE-DFER's info_clean.csv) or a .npy array; whatever stands
    before id… is the place that the list was written at, and is replaced by `root`/`frames`. Without it the folder is
    walked, for which `split` plays no part. Labels are 0 of the schema "unlabelled".
    """
    reading = Reading(DataRoot(root, links), "unlabelled", 0, groups, errors)
    folder = reading.data.folder(frames)
    if listing is None:
        path, names = folder, _walk(folder, links)
    else:
        path = reading.data.listing(listing)
        names = npy_rows(path, None) if path.suffix == ".npy" else word_rows(path, bad=reading.bad)

    def rows() -> Iterator[Row]:
        for row in names:
            found = _VOX_NAME.match(row.name.replace("\\", "/"))
            name = found[1].removesuffix(".mp4") if found else row.name
            yield Row(row.line, name, row.label, name.split("/")[0] if groups is None else None)

    return reading.samples(rows(), path, clip_finder(folder), "clip")


def _walk(folder: Path, links: str) -> Iterator[Row]:
    entered = {os.path.realpath(folder)}
    for place, inside, files in os.walk(folder, followlinks=True):
        inside.sort(key=natural_order)
        for name in inside:
            if os.path.islink(path := os.path.join(place, name)):
                if links != "follow":
                    raise RowError(f"{path} is a link to a folder; trust it with links='follow'", "link")
                if (real := os.path.realpath(path)) in entered:
                    raise RowError(f"{path} is a link to a folder that is read already; remove it", "link")
                entered.add(real)
        for name in sorted(files, key=natural_order):
            if name.lower().endswith(VIDEO_SUFFIXES):
                yield Row(0, os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/"), None)


# -------------------------------------------------------------------------------- folders and tables


def read_class_folders(
    root: str | Path, split: Split, schema: str, groups: Groups = None, links: Links = "inside",
    errors: Errors = None,
) -> list[Sample]:
    """<root>/<split>/<Class>/<file>: images, videos or folders of frames; the folder's name is the label.

    The split's folder is found in its usual spellings (train, Train, val, Train_Aligned_Faces). Files of other types
    are counted in a ReaderNote.
    """
    reading = Reading(DataRoot(root, links), schema_named(schema), None, groups, errors)
    data = reading.data
    wanted = _VALIDATION if checked_split(split, validation=True) == "validation" else (split,)
    here = {p.name.lower().removesuffix("_aligned_faces"): p.name for p in sorted(data.path.iterdir()) if p.is_dir()}
    name = next((here[spelling] for spelling in wanted if spelling in here), split)
    folder, other = data.folder(name, "folder of a split"), []

    def rows() -> Iterator[Row]:
        for place in sorted(folder.iterdir(), key=lambda p: natural_order(p.name)):
            if place.name.lower().startswith(_LITTER) or not place.is_dir():
                other.extend([place] * (not place.name.lower().startswith(_LITTER)))
                continue
            data.check(place, str(folder))
            for file in sorted(place.iterdir(), key=lambda p: natural_order(p.name)):
                if file.is_dir() or file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
                    yield Row(0, f"{place.name}/{file.name}", place.name)
                elif not file.name.lower().startswith(_LITTER):
                    other.append(file)

    found = reading.samples(rows(), folder, lambda name: folder / name)
    if other:
        warnings.warn(ReaderNote(f"{folder}: {len(other)} files that are neither pictures nor videos are not read, "
                                 f"such as {other[0].name}"), stacklevel=2)
    return found


def read_table(
    root: str | Path, split: Split | None = None, fold: int | None = None, listing: str = "labels.csv",
    schema: str | None = None, columns: Mapping[str, str] | None = None, frames: str = ".", groups: Groups = None,
    base: Base = None, links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """Rows of a CSV, TSV or Parquet table with columns path, label and, where wanted, split, fold, subject.

    `columns` names them where the table calls them otherwise: {"path": "subDirectory_filePath"}. `subject` becomes
    the group. `fold` is the fold in which a row is tested: split="test", fold=2 takes the rows of fold 2 and
    split="train" all others, unless a split column decides too. Further columns are not looked at. `schema` must be
    said; "unlabelled" needs no label.
    """
    data = DataRoot(root, links)
    path = data.listing(listing)
    if schema is None:
        raise Refused(f"{path}: a table does not say its class order; say schema=, one of {', '.join(SCHEMAS)}")
    reading = Reading(data, schema, base, groups, errors)
    named = {key: key for key in ("path", "label", "split", "fold", "subject")} | dict(columns or {})
    lines = table_dicts(path, reading.bad)
    header = next(lines)[1]
    labelled = schema_named(schema) is not SCHEMAS["unlabelled"]
    by_split = split is not None and (named["split"] in header or fold is None)
    require_columns(path, header, [named["path"]] + [named["label"]] * labelled + [named["split"]] * by_split
                    + [named["fold"]] * (fold is not None))
    if fold is not None and split is None:
        raise Refused(f"{path}: fold={fold} needs split='train' or split='test'")
    grouped = named["subject"] in header and groups is None

    def rows() -> Iterator[Row]:
        for line, row in lines:
            if by_split and _same_split(row[named["split"]]) != _same_split(split):
                continue
            if fold is not None and not by_split and (row[named["fold"]] == str(fold)) != (split == "test"):
                continue
            if fold is not None and by_split and row[named["fold"]] != str(fold):
                continue
            group = row[named["subject"]] if grouped else None
            if group == "":
                reading.bad(RowError(f"{path}:{line}: no subject; name one in every row or drop the column", "group"))
                continue
            yield Row(line, row[named["path"]], row[named["label"]] if labelled else None, group)

    folder = data.path if frames == "." else data.folder(frames)
    return reading.samples(rows(), path, lambda name: folder / name)


def read_laid_out(
    layout: FolderLayout, root: str | Path, split: Split, fold: int = 1, frames: str | None = None,
    schema: str | None = None, groups: Groups = None, base: Base = None, listing: str | None = None,
    links: Links = "inside", errors: Errors = None,
) -> list[Sample]:
    """The samples of a data set that its layout alone describes: one more entry of `datasets.folders.LAYOUTS`, no code.

    The list is the first of the layout's names that is there, or `listing`; the files lie in the first of its folders
    that is there, or in `frames`, under the id or one of its aliases.
    """
    base = layout.base if base is None else base
    reading = Reading(data := DataRoot(root, links), schema or layout.schema, base, groups, errors)
    if split not in layout.splits:
        raise Refused(f"{root}: split must be {' or '.join(map(repr, layout.splits))}, got {split!r}")
    if checked_fold(fold) > layout.folds:
        raise Refused(f"{root}: fold={fold}, but there {f'are {layout.folds} folds' if layout.folds > 1 else 'is one'}")
    names = [name.replace("{split}", split).replace("{fold}", str(fold)) for name in layout.names]
    path = data.listing(*([listing] if listing else names))
    place = frames or next((name for name in layout.frames if (data.path / name).is_dir()), layout.frames[0])
    folder = data.path if place == "." else data.folder(place)
    find = folder.joinpath if layout.kind == "image" else clip_finder(folder)

    def locate(id: str) -> Path:
        places = [find(alias) for alias in layout.alias(id)]
        return next((place for place in places if place.exists()), places[0])

    return reading.samples(layout.rows(path, split, reading.bad), path, locate, layout.kind)


def _same_split(text: str) -> str:
    name = text.strip().lower()
    return "validation" if name in _VALIDATION else {"training": "train", "testing": "test"}.get(name, name)


_OWN: dict[str, Callable[..., list[Sample]]] = {  # what a layout alone cannot say
    "dfew": read_dfew,
    "ferv39k": read_ferv39k,
    "mafw": read_mafw,
    "mafw_compound": partial(read_mafw, compound=True),
    "affectnet7": read_affectnet,
    "affectnet8": partial(read_affectnet, schema="affectnet8"),
    "rafdb": read_rafdb,
    "ferplus": read_ferplus,
    "voxceleb2": read_voxceleb2,
}


def _reader_of(name: str, layout: FolderLayout) -> Callable[..., list[Sample]]:
    if not layout.names:
        return partial(read_class_folders, schema=layout.schema)
    return _OWN.get(name, partial(read_laid_out, layout))


READERS: dict[str, Callable[..., list[Sample]]] = {
    name: _reader_of(name, layout) for name, layout in LAYOUTS.items() if name != "table"
} | {"folders": read_class_folders, "table": read_table, "packed": read_packed_split}


def options_of(name: str) -> dict[str, Any]:
    """What a reader of READERS takes beside folder and split, and its defaults; ValueError for another name.

    Readers spell their options out, because no two layouts take the same ones; here alone their signatures are read.
    """
    if name not in READERS:
        raise Refused(f"no reader is called {name!r}; there are {', '.join(READERS)}")
    taken = inspect.signature(READERS[name]).parameters
    return {option: known.default for option, known in taken.items() if option not in ("root", "split")}


def read_dataset(root: str | Path, name: str, split: Split, fold: int | None = None, **options) -> list[Sample]:
    """The samples of a data set by its plain name in READERS; `options` are those of its reader.

    ValueError for a name, an option or a fold that it does not have.
    """
    known = options_of(name)
    if fold is not None:
        options["fold"] = fold
    if unknown := [option for option in options if option not in known]:
        raise Refused(f"the reader {name!r} has no {', '.join(unknown)}; it takes {', '.join(known)}")
    return READERS[name](root, split, **options)
