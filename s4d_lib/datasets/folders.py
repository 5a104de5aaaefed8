"""data set → folders, lists     where the published data sets keep their lists and clips, in every known spelling.

`LAYOUTS` says which lists a data set has and how their rows are read, with the parsers of the readers: enough for the
doctor, for packing and, where a data set has no reader of its own, for `datasets.readers.read_laid_out`. `list_places`
looks for lists that do not lie in the folder that was named: it is often one too high, one too low, or spelled with
other capitals. Derived in chapter 02.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from s4d_lib.datasets.arrays import npy_rows
from s4d_lib.datasets.labels import canonical, schema_named
from s4d_lib.datasets.list_form import SPLITS, USUAL, VALIDATION, ListForm
from s4d_lib.datasets.lists import (
    Bad,
    DataRoot,
    Row,
    RowError,
    clip_rows,
    csv_dicts,
    csv_rows,
    is_plain,
    tab_rows,
    word_rows,
)
from s4d_lib.datasets.named_files import Told, crema_d, ravdess
from s4d_lib.datasets.rows import checked_fold, spellings, without_ending
from s4d_lib.datasets.still_rows import FERPLUS, affectnet_rows, of_split, rafdb_rows, voted
from s4d_lib.datasets.tables import Table
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.text import natural_order


def _word_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    return word_rows(path, bad=bad)


@dataclass(frozen=True)
class FolderLayout:
    """Where the lists and frames of a data set usually are; without lists, class folders are its labels."""

    schema: str | None  # its class order, a name in datasets.SCHEMAS
    kind: Literal["clip", "image"] | None = None  # None: both
    names: tuple[str, ...] = ()  # of its lists, the likeliest first; they hold {split}, {fold} and words of PARTS
    frames: tuple[str, ...] = (".",)  # folders in which its clips or images may lie
    rows: Callable[[Path, str, Bad], Iterator[Row]] = _word_rows  # how a list is read
    folds: int = 1
    splits: tuple[str, ...] = ("train", "test")
    base: Literal[0, 1] | None = None
    alias: Callable[[str], tuple[str, ...]] = lambda id: (id,)  # id → names of its file or folder below `frames`
    whole: Callable[[str], str] = lambda id: id  # an id as listed → the one spelling by which it is known here
    told: Callable[[str], str | None] = lambda id: None  # id → the expression its name tells
    plain: Callable[[str], str] = lambda name: name  # a name as listed → the id
    by_name: Callable[[str], Told | None] | None = None  # file name → what it says, of a data set without lists
    by_folder: bool = False  # also known as class folders, where none of its lists is there

    @property
    def arrays(self) -> bool:
        """Whether one of its lists may be a folder of small arrays."""
        return any(name.endswith("/annotations") for name in self.names)

    @property
    def class_folders(self) -> bool:
        """Whether folders are the labels of this data set, and nothing else."""
        return not self.names and self.by_name is None


def _ferv39k_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    with_header = next(csv_dicts(path), (1, {}))[1].keys() == {"path", "id"}
    words = "All_scenes" in path.parts or path.name.endswith("_All.csv")
    return word_rows(path, bad=bad) if words and not with_header else csv_rows(path, ("path", "id"), bad)


def _mafw_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    if path.suffix == ".csv":
        return csv_rows(path, ("video_name", "labels"), bad)
    if "with_caption" in path.parts:
        return (Row(line, fields[0], fields[1]) for line, fields in tab_rows(path, 4, ("gb18030",), bad))
    return word_rows(path, "<clip>.mp4 <word>", bad)


def _ferplus_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    if path.suffix == ".txt":
        return word_rows(path, bad=bad)
    usage, part = FERPLUS[split]
    return (row._replace(name=f"{part}/{row.name}") for row in voted(path, schema_named("ferplus"), usage))


def _vox_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    rows = npy_rows(path, None) if path.suffix == ".npy" else word_rows(path, bad=bad)
    for row in rows:
        parts = row.name.replace("\\", "/").split("/")
        start = next((i for i, part in enumerate(parts) if part.startswith("id") and part[2:].isdecimal()), 0)
        name = "/".join(parts[start:]).removesuffix(".mp4")
        yield Row(row.line, name, None, parts[start])


def _padded(id: str) -> str:
    return id.zfill(5) if id.isdecimal() else id


def _aligned(id: str) -> tuple[str, ...]:
    stem, dot, suffix = id.rpartition(".")
    return id, f"{stem}_aligned{dot}{suffix}"


def _affectnet(classes: int) -> Callable[[Path, str, Bad], Iterator[Row]]:
    return lambda path, split, bad: affectnet_rows(path, split, bad, classes)


def _scene(id: str) -> str | None:
    parts = id.split("/")
    return parts[-2] if len(parts) > 1 and canonical(parts[-2]) else None


def _mafw(kind: str) -> tuple[str, ...]:
    return tuple(f"{place}/{kind}/{caption}/set_{{fold}}/{{split}}.{suffix}"
                 for caption, suffix in (("no_caption", "csv"), ("no_caption", "txt"), ("with_caption", "txt"))
                 for place in ("anno", "split"))


PARTS = {"{part}": {"train": "training", "test": "validation"},  # of AffectNet, whose test list is its validation list
         "{set}": {"train": "train_set", "test": "val_set"}}
_DFEW = tuple(f"{place}/{{split}}(single-labeled)/{name}.csv" for place in ("annotation", "EmoLabel_DataSplit")
              for name in ("{split}_set_{fold}", "set_{fold}")) + (
    "label/single_{split}set_{fold}.csv", "single_label/label/single_{split}set_{fold}.csv",
    "annotation/DFEW_set_{fold}_{split}.txt", "DFEW_set_{fold}_{split}.txt")
_FERV39K = ("Annotation/{split}.csv", "4_setups/All_scenes/{split}_All.csv",
            "annotation/FERV39K_{split}.txt", "annotation/FERV39k_{split}.txt", "FERV39K_{split}.txt")
_MAFW_FRAMES = ("frames_crop_align_224", "frames_crop_aligned", "frames_crop_align", "frames", "clips", "data/clips")
_AFFECT = ("Manually_Annotated_Images", ".", "Manually_Annotated/Manually_Annotated_Images")
_AFFECT_LISTS = ("{part}.csv", "Manually_Annotated_file_lists/{part}.csv", "{set}/annotations")
LAYOUTS: dict[str, FolderLayout] = {
    "dfew": FolderLayout("dfew", "clip", _DFEW, ("clip_jpg_256", "clip_jpg", "Clip/jpg_256", "Clip/clip_224x224_16f",
                         "clip_224x224_16f", "Clip/clip_224x224", "clip_mp4", "Clip/original", "data",
                         "single_label/data", "Frames"),
                         lambda path, split, bad: csv_rows(path, ("video_name", "label"), bad), folds=5,
                         alias=spellings, whole=_padded, plain=without_ending),
    "ferv39k": FolderLayout("ferv39k", "clip", _FERV39K, ("2_ClipsforFaceCrop", "0_7_LabelClips"), _ferv39k_rows,
                            told=_scene),
    "mafw": FolderLayout("mafw", "clip", _mafw("single") + ("annotation/MAFW_set_{fold}_{split}_faces.txt",
                         "annotation/MAFW_set_{fold}_{split}.txt"), _MAFW_FRAMES, _mafw_rows, 5, alias=spellings,
                         whole=_padded, plain=without_ending),
    "mafw_compound": FolderLayout("mafw_compound", "clip", _mafw("compound"), _MAFW_FRAMES, _mafw_rows, 5,
                                  alias=spellings, whole=_padded, plain=without_ending),
    "affectnet7": FolderLayout("affectnet7", "image", ("{split}_affectnet7.txt", "{split}_affectnet7_2w.txt",
                               *_AFFECT_LISTS), _AFFECT, _affectnet(7)),
    "affectnet8": FolderLayout("affectnet8", "image", ("{split}_affectnet8.txt", "{split}_affectnet8_2w.txt",
                               *_AFFECT_LISTS), _AFFECT, _affectnet(8)),
    "rafdb": FolderLayout("rafdb", "image",
                          ("EmoLabel/list_patition_label.txt", "basic/EmoLabel/list_patition_label.txt"),
                          ("Image/aligned", "basic/Image/aligned", "Image/original", "basic/Image/original", ".",
                           "{split}"),
                          rafdb_rows, base=1, alias=_aligned, by_folder=True),
    "ferplus": FolderLayout("ferplus", "image", ("fer2013new.csv",), (".",), _ferplus_rows, splits=SPLITS),
    "sfew2": FolderLayout("sfew2"),
    "voxceleb2": FolderLayout("unlabelled", "clip", ("info_clean.csv", "voxceleb2_videopaths_train.npy"), ("mp4",),
                              _vox_rows, splits=("train",)),
    "crema_d": FolderLayout("crema_d", "clip", frames=("VideoFlash", "video", "."), folds=5, by_name=crema_d),
    "ravdess": FolderLayout("ravdess", "clip", frames=(".",), folds=5, by_name=ravdess),
    "folders": FolderLayout(None),
    "caer": FolderLayout("caer"),
    "table": FolderLayout(None, None, ("labels.csv", "labels.tsv", "labels.parquet")),
}
OF_FRAMES = ("dfew", "ferv39k", "mafw", "mafw_compound")  # whose peers list `<path> <frames> <label>`


# -------------------------------------------------------------------------------- from a form to rows


def list_names(layout: FolderLayout, split: str, fold: int, form: ListForm = USUAL) -> list[str]:
    """The names below the data folder that the list of a split and fold may have."""
    names = form.names(layout.names, split, fold)
    for word, called in PARTS.items():
        names = [name.replace(word, called.get(split, split)) for name in names]
    return names


def fold_count(layout: FolderLayout, form: ListForm = USUAL) -> int:
    """How many folds there are: as said, or as the layout has; one where a single list was named for all of them."""
    if form.listing and "{fold}" not in form.listing and form.column("fold") is None:
        return 1
    return form.folds or layout.folds


def checked_fold_of(layout: FolderLayout, fold: int, form: ListForm = USUAL) -> int:
    """`fold` itself; ValueError unless it is one of the folds that there are."""
    folds = fold_count(layout, form)
    if checked_fold(fold) > folds:
        raise Refused(f"fold={fold}, but there {f'are {folds} folds' if folds > 1 else 'is one'}; say folds= where "
                      "there are more, and {fold} in listing where it names one of their lists")
    return fold


def rows_of(layout: FolderLayout, path: Path, split: str, bad: Bad, form: ListForm = USUAL,
            fold: int | None = None, labels: Path | None = None) -> Iterator[Row]:
    """The rows of one list: by its columns where they are said, else as the layout has them, or as its peers do.

    A list of clips without a header, of any layout, holds `<path> <label>` or `<path> <frames> <label>`. `labels` is
    the array beside a .npy array of names.
    """
    inside = split_folder(path.parent, split, form) if layout.by_folder and form.listing else None
    for row in _as_written(layout, path, split, bad, form, fold, labels):
        try:
            name = layout.plain(form.stripped(row.name))
            if inside and row.label and (path.parent / inside / row.label).is_dir():
                name = f"{inside}/{row.label}/{name}"  # a list beside class folders names the files alone
            yield row._replace(name=name)
        except Refused as error:
            bad(RowError(f"{path}:{row.line}: {error}", "name"))


def _as_written(layout: FolderLayout, path: Path, split: str, bad: Bad, form: ListForm, fold: int | None,
                labels: Path | None) -> Iterator[Row]:
    if path.suffix == ".npy" and layout.schema != "unlabelled":
        if labels is None:
            raise Refused(f"{path}: an array of paths needs labels=, the array of labels beside it")
        return npy_rows(path, labels)
    if form.columns or path.suffix.lower() in (".parquet", ".tsv"):
        table = Table(path, form)
        rows = table.rows(split if "split" in table.at else None, fold if "fold" in table.at else None, bad)
        named = layout.by_folder and "split" not in table.at and "{split}" not in (form.listing or "")
        return of_split(path, rows, split, bad) if named else rows
    if layout.kind == "clip" and layout.schema != "unlabelled" and not path.is_dir() and (
            "with_caption" not in path.parts and is_plain(path)):
        return clip_rows(path, bad)
    return layout.rows(path, split, bad)


def split_folder(root: Path, split: str, form: ListForm = USUAL) -> str | None:
    """The folder of a split of class folders, in its usual spellings: train, Train, valid, Train_Aligned_Faces."""
    here = {p.name.lower().removesuffix("_aligned_faces"): p.name for p in sorted(root.iterdir()) if p.is_dir()}
    said = dict(form.splits).get(split)
    if said is not None:
        return said if (root / said).is_dir() else here.get(said.lower().removesuffix("_aligned_faces"))
    words = VALIDATION if split == "validation" else (split, f"{split}ing", f"{split}_set")
    taken = {name.lower().removesuffix("_aligned_faces") for _, name in form.splits}
    return next((here[word] for word in words if word in here and word not in taken), None)


LITTER = (".", "thumbs.db", "desktop.ini", "__macosx")  # what file managers leave in folders


def folder_rows(folder: Path, data: DataRoot, other: list[Path]) -> Iterator[Row]:
    """Rows of <folder>/<Class>/<file>: pictures, videos and folders of frames. `other` takes files that are none.

    The name keeps the folder, which is the split's: sets such as CAER use their names again in every split.
    """
    for place in sorted(folder.iterdir(), key=lambda p: natural_order(p.name)):
        if place.name.lower().startswith(LITTER):
            continue
        if not place.is_dir():
            other.append(place)
            continue
        data.check(place, str(folder))
        for file in sorted(place.iterdir(), key=lambda p: natural_order(p.name)):
            if file.name.lower().startswith(LITTER):
                continue
            if file.is_dir() or file.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
                yield Row(0, f"{folder.name}/{place.name}/{file.name}", place.name)
            else:
                other.append(file)


def as_class_folders(layout: FolderLayout, root: Path, form: ListForm = USUAL) -> bool:
    """Whether a data set that may come either way lies in class folders here: none of its lists is there."""
    if layout.class_folders or not layout.by_folder or form.listing:
        return layout.class_folders
    lists = any((root / name).exists() for split in layout.splits for name in list_names(layout, split, 1))
    return not lists and any(split_folder(root, split, form) for split in SPLITS)


MOST = 4000  # folders asked in all


def list_places(root: Path, names: Sequence[str], wanted: int = 3) -> list[str]:
    """Advice, one sentence part for each of the first `wanted` folders at and near `root` that hold one of the lists.

    `names` are those of a `FolderLayout`, with {split} and {fold}.
    """
    files = [name.replace("{split}", split).replace("{fold}", "1").replace("{part}", PARTS["{part}"][split])
             .replace("{set}", PARTS["{set}"][split]) for name in names for split in ("train", "test")]
    found = []
    for folder in _near(root):
        spelled = next((there for file in files if (there := _spelled(folder, file))), None)
        if spelled is None:
            continue
        right = spelled in files
        if folder != root or not right:
            found.append(f"{folder}" + ("" if right else f" ({spelled}: rename it, capitals matter)"))
        if len(found) == wanted:
            break
    return found


def _near(root: Path) -> Iterator[Path]:
    yield root
    above = root.resolve()
    yield from above.parents[:2]
    level, asked = [root], 0
    for _ in range(3):
        level = [below for folder in level for below in _folders(folder)]
        for folder in level:
            yield folder
            asked += 1
            if asked == MOST:
                return


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; none if there are so many that they are clips."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
                     and not entry.is_symlink()]
    except OSError:
        return []
    return [Path(path) for path in sorted(found)] if len(found) <= 60 else []


def _spelled(folder: Path, name: str) -> str | None:
    """The path below `folder` that equals `name` but for capitals, as it is spelled there."""
    spelled: list[str] = []
    for part in name.split("/"):
        try:
            here = os.listdir(folder)
        except OSError:
            return None
        match = part if part in here else next((one for one in sorted(here) if one.lower() == part.lower()), None)
        if match is None:
            return None
        spelled.append(match)
        folder = folder / match
    return "/".join(spelled)
