"""Data folders of other people with drawn faces in them, each as its set or its peers write it: list, names, endings.

`FOREIGN` says of each what `s4d doctor` is to be told, and nothing of how it is read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.frames.writer import write_mp4
from s4d_lib.synthetic_faces import RECIPES, make_clips

TRAIN, TEST, EDGE, LENGTH = range(21), range(21, 35), 32, 5
BOTH = (("train", TRAIN), ("test", TEST))


@cache
def faces() -> np.ndarray:
    """u8 [35 LENGTH EDGE EDGE 3]: a drawn person a clip."""
    drawn = make_clips(replace(RECIPES["easy"], size=EDGE), len(TRAIN) + len(TEST), 19)
    return np.stack([np.asarray(clip)[:: max(1, len(clip) // LENGTH)][:LENGTH] for clip in drawn.frames])


def still(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(faces()[n, 2]).save(path)


def folder(path: Path, n: int, name: str = "{k:05d}.jpg") -> None:
    path.mkdir(parents=True, exist_ok=True)
    for k, frame in enumerate(faces()[n], 1):
        Image.fromarray(frame).save(path / name.format(k=k, id=path.name))


def film(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path.with_suffix(".mp4"), faces()[n], 25)
    path.with_suffix(".mp4").rename(path)


def text(path: Path, lines: Iterator[str] | list[str], end: str = "\n", encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((end.join(lines) + end).encode(encoding))


# ------------------------------------------------------------------------------- clips


def dfew_of_its_repository(root: Path) -> None:
    for n in (*TRAIN, *TEST):
        folder(root / f"single_label/data/{n + 1:05d}", n, "{id}_{k:05d}.jpg")
    for fold in range(1, 6):
        for split, numbers in BOTH:
            text(root / f"single_label/label/single_{split}set_{fold}.csv",
                 ["video_name,label", *(f"{n + 1},{n % 7 + 1}" for n in numbers)], "\r\n")


def ferv39k_setups(root: Path) -> None:
    words = SCHEMAS["ferv39k"].classes
    for split, numbers in BOTH:
        names = [f"{('Action', 'Crime')[n % 2]}/{words[n % 7]}/{n:04d}" for n in numbers]
        for n, name in zip(numbers, names):
            film(root / f"0_7_LabelClips/{name}.mp4", n)
        text(root / f"4_setups/All_scenes/{split}_All.csv", [f"{name} {name.split('/')[1]}" for name in names])


def mafw_captions(root: Path) -> None:
    words = SCHEMAS["mafw"].classes
    for n in (*TRAIN, *TEST):
        film(root / f"data/clips/{n:05d}.mp4", n)
    for fold in range(1, 6):
        for split, numbers in BOTH:
            text(root / f"anno/single/with_caption/set_{fold}/{split}.txt",
                 [f"{n:05d}.mp4\t{words[n % 7].lower()}\t他皱着眉头\tThe brow is lowered." for n in numbers],
                 encoding="gb18030")


def dfer_clip(root: Path) -> None:
    words = SCHEMAS["ferv39k"].classes
    for split, numbers in BOTH:
        for n in numbers:
            folder(root / f"2_ClipsforFaceCrop/Daily/{words[n % 7]}/{n:04d}", n)
        text(root / f"annotation/FERV39k_{split}.txt",
             [f"/home/others/FERV39k/2_ClipsforFaceCrop/Daily/{words[n % 7]}/{n:04d} {LENGTH} {n % 7}"
              for n in numbers])


def videomae(root: Path) -> None:
    """Three lists of films, one of them a validation set of one's own."""
    for split, numbers in (("train", TRAIN[:14]), ("val", TRAIN[14:]), ("test", TEST)):
        for n in numbers:
            film(root / f"clips/{n:03d}.mp4", n)
        text(root / f"{split}.csv", [f"/scratch/others/clips/{n:03d}.mp4 {n % 7}" for n in numbers])


def own_folds(root: Path) -> None:
    rows = ["datei;klasse;lauf;kind"]
    for n in (*TRAIN, *TEST):
        folder(root / f"clips/k{n:02d}", n)
        rows.append(f"clips/k{n:02d};{('Schmerz', 'kein Schmerz', 'unklar')[n % 3]};{n // 3 % 4 + 1};kind {n // 3}")
    text(root / "tabelle.csv", rows, "\r\n", "utf-8-sig")


def tabs(root: Path) -> None:
    rows = ["subject\temotion\tvideo\tsplit"]
    for n in (*TRAIN, *TEST):
        film(root / f"videos/v{n}.avi", n)
        rows.append(f"p{n:02d}\t{SCHEMAS['dfew'].classes[n % 7]}\tvideos/v{n}.avi\t{'TRAIN' if n in TRAIN else 'TEST'}")
    text(root / "labels.tsv", rows)


def parquet(root: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for n in (*TRAIN, *TEST):
        film(root / f"videos/v{n}.mp4", n)
    every = [*TRAIN, *TEST]
    pyarrow.parquet.write_table(pyarrow.table({
        "path": [f"videos/v{n}" for n in every], "label": [n % 7 for n in every],
        "split": ["train" if n in TRAIN else "test" for n in every]}), root / "labels.parquet")


def leave_one_subject_out(root: Path) -> None:
    rows = ["Subject,Filename,Emotion"]
    for n in (*TRAIN, *TEST):
        folder(root / f"Cropped/sub{n // 7 + 1:02d}/EP{n:02d}", n, "img{k}.jpg")
        rows.append(f"sub{n // 7 + 1:02d},sub{n // 7 + 1:02d}/EP{n:02d},{('positive', 'negative', 'surprise')[n % 3]}")
    text(root / "coding.csv", rows)


def crema_d(root: Path) -> None:
    for n in (*TRAIN, *TEST):
        code = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")[n % 6]
        film(root / f"CREMA-D/VideoFlash/{1001 + n // 3}_{('IEO', 'DFA')[n % 2]}_{code}_XX.flv", n)
        text(root / f"CREMA-D/AudioWAV/{1001 + n // 3}_IEO_{code}_XX.wav", ["sound"])


def ravdess(root: Path) -> None:
    for n in (*TRAIN, *TEST):
        actor = n // 3 + 1
        film(root / f"Video_Speech_Actor_{actor:02d}/Actor_{actor:02d}/02-01-0{n % 8 + 1}-01-01-01-{actor:02d}.mp4", n)


# ------------------------------------------------------------------------------- stills


def rafdb_folders(root: Path) -> None:
    for split, numbers in BOTH:
        for n in numbers:
            still(root / f"DATASET/{split}/{n % 7 + 1}/{split}_{n:05d}_aligned.jpg", n)


def affectnet_csv(root: Path) -> None:
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    for split, numbers in (("training", TRAIN), ("validation", TEST)):
        for n in numbers:
            still(root / f"Manually_Annotated/Manually_Annotated_Images/{n % 5}/{n:032x}.jpg", n)
        text(root / f"Manually_Annotated_file_lists/{split}.csv", [head, *(
            f"{n % 5}/{n:032x}.jpg,0,0,{EDGE},{EDGE},1.0;2.0,{n % 11},-2,-2" for n in numbers)])


@dataclass(frozen=True)
class Foreign:
    """A folder: what makes it, its `--as`, what else the doctor is told, and where in the folder it begins."""

    make: Callable[[Path], None]
    layout: str
    told: dict[str, str] = field(default_factory=dict)
    place: str = "."


FOREIGN = {one.make.__name__: one for one in (
    Foreign(dfew_of_its_repository, "dfew"),
    Foreign(ferv39k_setups, "ferv39k"),
    Foreign(mafw_captions, "mafw"),
    Foreign(dfer_clip, "ferv39k", {"strip": "/home/others/FERV39k/2_ClipsforFaceCrop/"}),
    Foreign(videomae, "table", {"listing": "{split}.csv", "strip": "/scratch/others/", "schema": "dfew",
                                "splits": "validation=val", "base": "0"}),
    Foreign(own_folds, "table", {"listing": "tabelle.csv", "columns": "path=datei,label=klasse,fold=lauf,subject=kind",
                                 "classes": "kein Schmerz,Schmerz,unklar"}),
    Foreign(tabs, "table", {"columns": "path=video,label=emotion", "schema": "dfew"}),
    Foreign(parquet, "table", {"schema": "dfew", "base": "0"}),
    Foreign(leave_one_subject_out, "table", {
        "listing": "coding.csv", "columns": "path=Filename,label=Emotion,fold=Subject,subject=Subject",
        "classes": "negative,positive,surprise", "frames": "Cropped"}),
    Foreign(crema_d, "crema-d", {}, "CREMA-D"),
    Foreign(ravdess, "ravdess"),
    Foreign(rafdb_folders, "raf-db", {}, "DATASET"),
    Foreign(affectnet_csv, "affectnet8"),
)}


def written(rows: list[tuple]) -> str:
    """Rows as a CSV file holds them."""
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()
