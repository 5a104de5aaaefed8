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

from s4d_lib.datasets.labels import canonical, schema_named
from s4d_lib.datasets.lists import Bad, Row, csv_dicts, csv_rows, npy_rows, tab_rows, word_rows
from s4d_lib.datasets.rows import spellings
from s4d_lib.datasets.still_readers import FERPLUS, rafdb_rows, voted

SPLITS = ("train", "validation", "test")


def _word_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    return word_rows(path, bad=bad)


@dataclass(frozen=True)
class FolderLayout:
    """Where the lists and frames of a data set usually are; without lists, class folders are its labels."""

    schema: str | None  # its class order, a name in datasets.SCHEMAS
    kind: Literal["clip", "image"] | None = None  # None: both
    names: tuple[str, ...] = ()  # of its lists, the likeliest first; they hold {split} and {fold}
    frames: tuple[str, ...] = (".",)  # folders in which its clips or images may lie
    rows: Callable[[Path, str, Bad], Iterator[Row]] = _word_rows  # how a list is read
    folds: int = 1
    splits: tuple[str, ...] = ("train", "test")
    base: Literal[0, 1] | None = None
    alias: Callable[[str], tuple[str, ...]] = lambda id: (id,)  # id → names of its file or folder below `frames`
    whole: Callable[[str], str] = lambda id: id  # an id as listed → the one spelling by which it is known here
    told: Callable[[str], str | None] = lambda id: None  # id → the expression its name tells


def _ferv39k_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    with_header = next(csv_dicts(path), (1, {}))[1].keys() == {"path", "id"}
    words = "All_scenes" in path.parts or path.name.endswith("_All.csv")
    return word_rows(path, bad=bad) if words and not with_header else csv_rows(path, ("path", "id"), bad)


def _mafw_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
    if path.suffix == ".csv":
        rows: Iterator[Row] = csv_rows(path, ("video_name", "labels"), bad)
    elif "with_caption" in path.parts:
        rows = (Row(line, fields[0], fields[1]) for line, fields in tab_rows(path, 4, ("gb18030",), bad))
    else:
        rows = word_rows(path, "<clip>.mp4 <word>", bad)
    return (row._replace(name=row.name.removesuffix(".mp4")) for row in rows)


def _ferplus_rows(path: Path, split: str, bad: Bad) -> Iterator[Row]:
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


def _scene(id: str) -> str | None:
    parts = id.split("/")
    return parts[-2] if len(parts) > 1 and canonical(parts[-2]) else None


def _mafw(kind: str) -> tuple[str, ...]:
    return tuple(f"{place}/{kind}/{caption}/set_{{fold}}/{{split}}.{suffix}"
                 for caption, suffix in (("no_caption", "csv"), ("no_caption", "txt"), ("with_caption", "txt"))
                 for place in ("anno", "split"))


_DFEW = tuple(f"{place}/{{split}}(single-labeled)/{name}.csv" for place in ("annotation", "EmoLabel_DataSplit")
              for name in ("{split}_set_{fold}", "set_{fold}"))
_MAFW_FRAMES = ("frames_crop_align_224", "frames_crop_aligned", "frames_crop_align", "frames", "clips", "data/clips")
_AFFECT = ("Manually_Annotated_Images",)
LAYOUTS: dict[str, FolderLayout] = {
    "dfew": FolderLayout("dfew", "clip", _DFEW, ("clip_jpg_256", "clip_jpg", "Clip/jpg_256", "Clip/clip_224x224_16f",
                         "clip_224x224_16f", "Clip/clip_224x224", "clip_mp4", "Clip/original"),
                         lambda path, split, bad: csv_rows(path, ("video_name", "label"), bad), folds=5,
                         alias=spellings, whole=_padded),
    "ferv39k": FolderLayout("ferv39k", "clip", ("Annotation/{split}.csv", "4_setups/All_scenes/{split}_All.csv"),
                            ("2_ClipsforFaceCrop", "0_7_LabelClips"), _ferv39k_rows, told=_scene),
    "mafw": FolderLayout("mafw", "clip", _mafw("single"), _MAFW_FRAMES, _mafw_rows, 5, alias=spellings, whole=_padded),
    "mafw_compound": FolderLayout("mafw_compound", "clip", _mafw("compound"), _MAFW_FRAMES, _mafw_rows, 5,
                                  alias=spellings, whole=_padded),
    "affectnet7": FolderLayout("affectnet7", "image", ("{split}_affectnet7.txt", "{split}_affectnet7_2w.txt"), _AFFECT),
    "affectnet8": FolderLayout("affectnet8", "image", ("{split}_affectnet8.txt",), _AFFECT),
    "rafdb": FolderLayout("rafdb", "image",
                          ("EmoLabel/list_patition_label.txt", "basic/EmoLabel/list_patition_label.txt"),
                          ("Image/aligned", "basic/Image/aligned", "Image/original", "basic/Image/original"),
                          rafdb_rows, base=1, alias=_aligned),
    "ferplus": FolderLayout("ferplus", "image", ("fer2013new.csv",), (".",), _ferplus_rows, splits=SPLITS),
    "sfew2": FolderLayout("sfew2"),
    "voxceleb2": FolderLayout("unlabelled", "clip", ("info_clean.csv", "voxceleb2_videopaths_train.npy"), ("mp4",),
                              _vox_rows, splits=("train",)),
    "caer": FolderLayout("caer"),
    "table": FolderLayout(None, None, ("labels.csv",)),
}


MOST = 4000  # folders asked in all


def list_places(root: Path, names: Sequence[str], wanted: int = 3) -> list[str]:
    """Advice, one sentence part for each of the first `wanted` folders at and near `root` that hold one of the lists.

    `names` are those of a `FolderLayout`, with {split} and {fold}.
    """
    files = [name.replace("{split}", split).replace("{fold}", "1") for name in names for split in ("train", "test")]
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
