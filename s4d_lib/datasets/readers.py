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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from s4d_lib.datasets.arrays import npy_rows
from s4d_lib.datasets.folders import (
    LAYOUTS,
    FolderLayout,
    checked_fold_of,
    fold_count,
    folder_rows,
    list_names,
    rows_of,
    split_folder,
)
from s4d_lib.datasets.labels import SCHEMAS, ReaderNote, schema_named
from s4d_lib.datasets.list_form import NAMES, ListForm, form_of, words_of
from s4d_lib.datasets.lists import DataRoot, Row, RowError, word_rows
from s4d_lib.datasets.named_files import named_rows
from s4d_lib.datasets.packed import packed_folds, read_packed_split
from s4d_lib.datasets.rows import (
    Errors,
    Groups,
    Links,
    Reading,
    Split,
    checked_split,
    clip_finder,
    without_ending,
)
from s4d_lib.datasets.samples import Sample
from s4d_lib.datasets.still_readers import read_affectnet, read_ferplus, read_rafdb
from s4d_lib.datasets.tables import Table
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import VIDEO_SUFFIXES
from s4d_lib.text import natural_order

# -------------------------------------------------------------------------------- clips


def read_dfew(
    root: str | Path, split: Split, fold: int = 1, frames: str = "clip_jpg", pattern: str | None = None,
    schema: str = "dfew", groups: Groups = None, links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Clips of one DFEW split and fold; ids stay text, so 00001 keeps its zeros.

    `frames` is the folder under `root` that holds the clips (S4D `clip_jpg_256`, which is the official `Clip/jpg_256`;
    S2D `Clip/clip_224x224_16f`) and `pattern` the name of one, as in "{id}.mp4" or "{id}"; by default a video named by
    the id, or else a folder. An id written without its zeros finds the clip that has them. The official lists count
    labels from 1: `base=1`.
    """
    form = form_of("dfew", words)
    checked = checked_fold_of(LAYOUTS["dfew"], fold, form)
    reading = Reading(DataRoot(root, links), schema, form.base, groups, errors)
    path = reading.data.listing(*list_names(LAYOUTS["dfew"], checked_split(split, form.says_splits), checked, form))
    rows = rows_of(LAYOUTS["dfew"], path, split, reading.bad, form, fold)
    return reading.samples(rows, path, clip_finder(reading.data.folder(frames), pattern), "clip")


def read_ferv39k(
    root: str | Path, split: Split, frames: str = "2_ClipsforFaceCrop", schema: str = "ferv39k", groups: Groups = None,
    links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Clips of one FERV39K split; the id is the path in the list, as in Crime/Angry/0063.

    The middle folder names the expression, so every label is checked against it: a list that was written in another
    class order is refused.
    """
    form = form_of("ferv39k", words)
    reading = Reading(DataRoot(root, links), schema, form.base, groups, errors)
    path = reading.data.listing(*list_names(LAYOUTS["ferv39k"], checked_split(split, form.says_splits), 1, form))
    rows = rows_of(LAYOUTS["ferv39k"], path, split, reading.bad, form)

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
    schema: str | None = None, groups: Groups = None, links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Clips of one MAFW split and fold; the id is the clip's number without .mp4, as in 03747.

    `compound` reads the 43 classes of the compound lists ("anger_disgust", the order of the words does not matter),
    which hold words alone. The captioned lists give the same samples; their sentences are passed over.
    """
    name = "mafw_compound" if compound else "mafw"
    form, layout = form_of(name, words), LAYOUTS[name]
    checked = checked_fold_of(layout, fold, form)
    reading = Reading(DataRoot(root, links), schema or name, form.base, groups, errors)
    path = reading.data.listing(*list_names(layout, checked_split(split, form.says_splits), checked, form))
    rows = rows_of(layout, path, split, reading.bad, form, fold)
    return reading.samples(rows, path, clip_finder(reading.data.folder(frames)), "clip")


def read_named(
    name: str, root: str | Path, split: Split, fold: int = 1, frames: str | None = None, groups: Groups = None,
    links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Films whose names say their class and person: CREMA-D, RAVDESS (`named_files.py` has the forms and the folds).

    The group is the person. Without `frames` the first of the layout's folders that is there is walked.
    """
    layout, form = LAYOUTS[name], form_of(name, words)
    checked_fold_of(layout, fold, form)
    reading = Reading(data := DataRoot(root, links), layout.schema, None, groups, errors)
    place = frames or next(name for name in layout.frames if (data.path / name).is_dir())
    folder = data.folder(place)
    rows = named_rows(folder, layout.by_name, checked_split(split), fold, form.folds or layout.folds)
    return reading.samples(rows, folder, folder.joinpath, "clip")


_VOX_NAME = re.compile(r"(?:^|.*/)(id\d+/[^/]+/[^/]+)$")


def read_voxceleb2(
    root: str | Path, split: Split = "train", frames: str = "mp4", groups: Groups = None, links: Links = "inside",
    errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Unlabelled clips; the id is id08423/oEx3CRfDXMQ/00048 and the group is the speaker, id08423.

    `listing` names a text list (`<root>/id…/…/….mp4 0`, as MAE-DFER's info_clean.csv) or a .npy array; whatever stands
    before id… is the place that the list was written at, and is replaced by `root`/`frames`. Without it the folder is
    walked, for which `split` plays no part. Labels are 0 of the schema "unlabelled".
    """
    listing = form_of("voxceleb2", words).listing
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
    errors: Errors = None, **words: Any,
) -> list[Sample]:
    """<root>/<split>/<Class>/<file>: images, videos or folders of frames; the class folder's name is the label.

    The id is that whole name, because names are used again in every split.

    A folder may be called by a number, which counts as `base` says. The split's folder is found in its usual spellings
    (train, Train, val, Train_Aligned_Faces), or as `splits` calls it. Files of other types are counted in a ReaderNote.
    """
    form = form_of("folders", words)
    reading = Reading(DataRoot(root, links), schema_named(schema), form.base, groups, errors)
    data = reading.data
    called = split_folder(data.path, checked_split(split, validation=True), form) or form.split(split)
    folder, other = data.folder(called, "folder of a split"), []
    found = reading.samples(folder_rows(folder, data, other), folder.parent, lambda name: data.path / name)
    if other:
        warnings.warn(ReaderNote(f"{folder}: {len(other)} files that are neither pictures nor videos are not read, "
                                 f"such as {other[0].name}"), stacklevel=2)
    return found


def read_table(
    root: str | Path, split: Split | None = None, fold: int | None = None, schema: str | None = None,
    frames: str = ".", groups: Groups = None, links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """Rows of a CSV, TSV or Parquet table with columns path, label and, where wanted, split, fold, subject.

    `columns` names them where the table calls them otherwise: {"path": "subDirectory_filePath"}. `subject` becomes
    the group. `fold` is the fold in which a row is tested: split="test", fold=2 takes the rows of fold 2 and
    split="train" all others, unless a split column decides too (`tables.py`). Further columns are not looked at. A list
    without a header, `<path> <label>` or `<path> <frames> <label>`, is a table too. The class order, `schema` or
    `classes`, must be said; "unlabelled" needs no label.
    """
    form, data = form_of("table", words), DataRoot(root, links)
    number = 1 if fold is None else fold
    path = data.listing(*list_names(LAYOUTS["table"], split or "train", number, form))
    if schema is None:
        raise Refused(f"{path}: a table does not say its class order; say schema=, one of {', '.join(SCHEMAS)}, or "
                      "classes of your own")
    reading = Reading(data, schema, form.base, groups, errors)
    table = Table(path, form, schema_named(schema) is not SCHEMAS["unlabelled"])

    def rows() -> Iterator[Row]:
        for row in table.rows(split, fold, reading.bad):
            try:
                yield row._replace(name=form.stripped(row.name), group=row.group if groups is None else None)
            except Refused as error:
                reading.bad(RowError(f"{path}:{row.line}: {error}", "name"))

    folder = data.folder(frames)
    return reading.samples(rows(), path, lambda name: _of_table(folder, name))


def _of_table(folder: Path, name: str) -> Path:
    """The file of a row; a clip that is listed without its ending, or with one that it does not have, is found."""
    path = folder / name
    return path if os.path.exists(path) else next(
        (place for place in (clip_finder(folder)(name), clip_finder(folder)(without_ending(name)))
         if os.path.exists(place)), path)


def folds_of(name: str, root: str | Path, form: ListForm | None = None) -> tuple[int, ...]:
    """The folds that a data set can be read by; () for one that has no folds, of which there is one split.

    A table is asked for its column of folds, a packed folder for those of its manifest; nothing else is read.
    """
    form = form or ListForm()
    if name == "packed":
        return packed_folds(Path(root))
    if name == "table":
        if "{fold}" in (form.listing or ""):
            return tuple(range(1, (form.folds or 1) + 1))
        path = DataRoot(root, "follow").listing(*list_names(LAYOUTS["table"], "train", 1, form))
        return tuple(Table(path, form, labelled=False).parts(lambda error: None)[1])
    layout = LAYOUTS[name]
    return tuple(range(1, fold_count(layout, form) + 1)) if layout.folds > 1 else ()


def read_laid_out(
    layout: FolderLayout, root: str | Path, split: Split, fold: int = 1, frames: str | None = None,
    schema: str | None = None, groups: Groups = None, links: Links = "inside", errors: Errors = None, **words: Any,
) -> list[Sample]:
    """The samples of a data set that its layout alone describes: one more entry of `datasets.folders.LAYOUTS`, no code.

    The list is the first of the layout's names that is there, or `listing`; the files lie in the first of its folders
    that is there, or in `frames`, under the id or one of its aliases.
    """
    form = ListForm.of(words)
    base = layout.base if form.base is None else form.base
    reading = Reading(data := DataRoot(root, links), schema or layout.schema, base, groups, errors)
    if split not in layout.splits and not (split == "validation" and form.says_splits):
        raise Refused(f"{root}: split must be {' or '.join(map(repr, layout.splits))}, got {split!r}")
    checked_fold_of(layout, fold, form)
    path = data.listing(*list_names(layout, split, fold, form))
    place = frames or next((name for name in layout.frames if (data.path / name).is_dir()), layout.frames[0])
    folder = data.folder(place)
    find = folder.joinpath if layout.kind == "image" else clip_finder(folder)

    def locate(id: str) -> Path:
        places = [find(alias) for alias in layout.alias(id)]
        return next((place for place in places if os.path.exists(place)), places[0])

    return reading.samples(rows_of(layout, path, split, reading.bad, form, fold), path, locate, layout.kind)


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
    "folders": read_class_folders,
    "table": read_table,
}


def _reader_of(name: str, layout: FolderLayout) -> Callable[..., list[Sample]]:
    if name in _OWN:
        return _OWN[name]
    if layout.by_name is not None:
        return partial(read_named, name)
    return partial(read_laid_out, layout) if layout.names else partial(read_class_folders, schema=layout.schema)


READERS: dict[str, Callable[..., list[Sample]]] = {
    name: _reader_of(name, layout) for name, layout in LAYOUTS.items()} | {"packed": read_packed_split}


def options_of(name: str) -> dict[str, Any]:
    """What a reader of READERS takes beside folder and split, and its defaults; ValueError for another name.

    Readers spell their options out, because no two layouts take the same ones; here alone their signatures are read.
    Of the words on lists (`list_form.py`) it takes those that it uses.
    """
    if name not in READERS:
        raise Refused(f"no reader is called {name!r}; there are {', '.join(READERS)}")
    taken = inspect.signature(READERS[name]).parameters
    used = words_of(name)
    return {option: known.default for option, known in taken.items()
            if option not in ("layout", "name", "root", "split", "words")} | {
        word: getattr(ListForm(), word) for word in NAMES if word in used}


def read_dataset(root: str | Path, name: str, split: Split, fold: int | None = None, **options) -> list[Sample]:
    """The samples of a data set by its plain name in READERS; `options` are those of its reader.

    ValueError for a name, an option or a fold that it does not have.
    """
    known = options_of(name)
    if fold is not None:
        options["fold"] = fold
    if unknown := [option for option in options if option not in known]:
        raise Refused(f"the reader {name!r} has no {', '.join(unknown)}; it takes {', '.join(known)}")
    if classes := ListForm(classes=options.pop("classes", None) or ()).classes:
        if options.get("schema") is not None:
            raise Refused(f"schema={options['schema']!r} and classes={', '.join(classes)}: say one of the two")
        options["schema"] = ",".join(classes)
    return READERS[name](root, split, **options)
