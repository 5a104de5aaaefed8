"""folder → diagnosis: one broken thing at a time gives exactly that finding; published counts are recognised."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4d_lib.cli import app
from s4d_lib.datasets.doctor.diagnosis import diagnose
from s4d_lib.datasets.doctor.findings import KINDS, print_report
from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.datasets.protocols import EXPECTED, Expected, FoldCounts
from s4d_lib.datasets.readers import read_dataset
from s4d_lib.frames.writer import write_mp4
from s4d_lib.text import printable

pytestmark = pytest.mark.slow  # the whole file: left out between two edits

CLIPS, FRAMES = 10, 66
IDS = [f"{number:05d}" for number in range(1, CLIPS + 1)]
LABELS = {id: place % 7 for place, id in enumerate(IDS)}


def jpg(colour: int = 0, size: tuple[int, int] = (256, 256), kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 80, 200 - colour)).save(file, kind)
    return file.getvalue()


def dfew_list(root: Path, split: str, fold: int) -> Path:
    return root / "annotation" / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv"


def write_lists(root: Path, labels: dict[str, int], fold_of: dict[str, int]) -> None:
    for fold in range(1, 6):
        for split in ("train", "test"):
            path = dfew_list(root, split, fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{id},{label}\n" for id, label in labels.items() if (fold_of[id] == fold) == (split == "test")]
            path.write_text("video_name,label\n" + "".join(rows))


def write_clip(folder: Path, frames: int, first: int, size: tuple[int, int] = (256, 256)) -> None:
    folder.mkdir(parents=True)
    plain = jpg(1, size)
    for number in range(1, frames + 1):
        (folder / f"{number:05d}.jpg").write_bytes(jpg(20 * first, size) if number == 1 else plain)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """DFEW as S4D reads it: ten clips of 66 frames of 256 px, two of them tested in each of five folds."""
    root = tmp_path_factory.mktemp("dfew")
    write_lists(root, LABELS, {id: place % 5 + 1 for place, id in enumerate(IDS)})
    for place, id in enumerate(IDS):
        write_clip(root / "clip_jpg_256" / id, FRAMES, place)
    return root


@pytest.fixture
def dfew(source, tmp_path, monkeypatch) -> Path:
    """A copy that a test may break; the published counts are out of the way."""
    monkeypatch.delitem(EXPECTED, "dfew")
    return Path(shutil.copytree(source, tmp_path / "dfew"))


def found(root: Path, dataset: str = "dfew", **options) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    diagnosis = diagnose(root, dataset, jobs=2, **options)
    json.dumps(diagnosis.as_dict())
    levels = {finding.level for finding in diagnosis.findings}
    assert diagnosis.exit_code == (2 if "error" in levels else 1 if "warning" in levels else 0)
    return {f.kind: (f.level, f.count, f.examples) for f in diagnosis.findings}


# -------------------------------------------------------------------------------- a clean folder


@pytest.mark.parametrize("deep", [False, True])
def test_a_clean_folder_is_fine(source, monkeypatch, deep):
    tested = {fold: Counter(LABELS[id] for id in IDS[fold - 1 :: 5]) for fold in range(1, 6)}
    counts = {fold: FoldCounts(8, 2, (), tuple(tested[fold][label] for label in range(7))) for fold in tested}
    monkeypatch.setitem(EXPECTED, "dfew", Expected("dfew", counts))
    diagnosis = diagnose(source, "dfew", deep=deep)
    assert (diagnosis.findings, diagnosis.exit_code) == ((), 0)
    assert {report.published for report in diagnosis.lists} == {"equal"}
    assert {report.base for report in diagnosis.lists} == {0}
    frames = diagnosis.frames
    assert (frames.folder, frames.flavour, frames.found) == ("clip_jpg_256", "original-rate frames", 10)
    assert (frames.sizes, frames.suffixes) == ({"256×256": 10}, {".jpg": 10})
    assert frames.lengths == {"least": 66, "median": 66, "most": 66}
    ours, other = diagnosis.protocols
    assert (ours.name, ours.matches, ours.differences) == ("s4d/dfew", True, ())
    assert (other.name, other.matches) == ("s2d/dfew", False) and "16 aligned frames" in other.differences[0]
    assert any(text.startswith("stride: 4 (s4d/dfew), but 1") for text in other.settings)


def test_the_doctor_reads_what_the_reader_reads(dfew):
    diagnosis = diagnose(dfew, "dfew")
    for report in diagnosis.lists:
        samples = read_dataset(dfew, "dfew", report.split, report.fold, frames="clip_jpg_256", base=0)
        counts = Counter(sample.label for sample in samples)
        assert report.per_class == tuple(counts[label] for label in range(7)) and report.rows == len(samples)


# -------------------------------------------------------------------------------- one broken thing at a time


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def everywhere(root: Path, old: str, new: str) -> None:
    for path in root.glob("annotation/*/*.csv"):
        path.write_text(path.read_text().replace(old, new))


def empty_frame(root):
    (root / "clip_jpg_256/00003/00010.jpg").write_bytes(b"")


def garbage(root):
    (root / "clip_jpg_256/00003/00066.jpg").write_bytes(b"no picture")


def gap(root):
    (root / "clip_jpg_256/00004/00010.jpg").unlink()


def unpadded(root):
    for path in (root / "clip_jpg_256/00004").iterdir():
        path.rename(path.with_name(f"{int(path.stem)}.jpg"))


def mixed_sizes(root):
    (root / "clip_jpg_256/00002/00066.jpg").write_bytes(jpg(3, (128, 256)))


def mixed_types(root):
    (root / "clip_jpg_256/00002/00040.jpg").unlink()
    (root / "clip_jpg_256/00002/00040.png").write_bytes(jpg(3, kind="PNG"))


def missing(root):
    shutil.rmtree(root / "clip_jpg_256/00007")


def no_frames(root):
    for path in (root / "clip_jpg_256/00007").iterdir():
        path.unlink()


def orphan(root):
    shutil.copytree(root / "clip_jpg_256/00007", root / "clip_jpg_256/16372")


def twice(root):
    edit(dfew_list(root, "train", 1), "00002,1\n", "00002,1\n00002,1\n")


def strange_label(root):
    everywhere(root, "00003,2", "00003,9")


def two_labels(root):
    edit(dfew_list(root, "train", 1), "00003,2", "00003,4")


def leak(root):
    edit(dfew_list(root, "train", 1), "00002,1\n", "00002,1\n00001,0\n")


def overlap(root):
    edit(dfew_list(root, "train", 2), "00001,0\n", "")
    edit(dfew_list(root, "test", 2), "label\n", "label\n00001,0\n")


def untested(root):
    edit(dfew_list(root, "test", 1), "00001,0\n", "")


def no_list(root):
    dfew_list(root, "test", 5).unlink()


def bad_row(root):
    edit(dfew_list(root, "train", 1), "00002,1\n", "00002,1\n00099\n")


def name_outside(root):
    edit(dfew_list(root, "train", 1), "00002,1\n", "00002,1\n../../etc/passwd,1\n")


def wrong_header(root):
    edit(dfew_list(root, "train", 1), "video_name,label", "path,id")


def linked_frame(root):
    (root.parent / "elsewhere.jpg").write_bytes(jpg())
    (root / "clip_jpg_256/00005/00010.jpg").unlink()
    (root / "clip_jpg_256/00005/00010.jpg").symlink_to(root.parent / "elsewhere.jpg")


def linked_clip(root):
    (root / "clip_jpg_256/00005").rename(root.parent / "00005")
    (root / "clip_jpg_256/00005").symlink_to(root.parent / "00005")


def shorten(root, keep):
    for path in (root / "clip_jpg_256/00006").iterdir():
        if int(path.stem) > keep:
            path.unlink()


def other_name(root):
    (root / "clip_jpg_256").rename(root / "jpg_224")


def one_based(root):
    write_lists(root, {id: label + 1 for id, label in LABELS.items()}, {id: i % 5 + 1 for i, id in enumerate(IDS)})


def one_list_one_based(root):
    path = dfew_list(root, "train", 1)
    edit(path, path.read_text(), "video_name,label\n" + "".join(
        f"{id},{label + 1}\n" for place, (id, label) in enumerate(LABELS.items()) if place % 5))  # fmt: skip


@pytest.mark.parametrize(("break_it", "kind", "count", "example"), [
    (empty_frame, "empty file", 1, "00003/00010.jpg"),
    (garbage, "unreadable", 1, "00003/00066.jpg: is not a readable image"),
    (gap, "gap in the frames", 1, "00004 (00011 after 00009)"),
    (unpadded, "order of names", 1, "00004/2.jpg"),
    (mixed_sizes, "mixed sizes", 1, "00002 (256×256 and 256×128 px)"),
    (mixed_types, "mixed file types", 1, "00002 (.jpg and .png)"),
    (missing, "missing", 1, "00007"),
    (no_frames, "no frames", 1, "00007"),
    (orphan, "without a row", 1, "16372"),
    (twice, "id twice", 1, "train_set_1.csv:3 00002"),
    (strange_label, "label outside the schema", 5, "'9'"),
    (two_labels, "two labels", 1, "00003 (2 and 4)"),
    (leak, "in train and test", 1, "00001, fold 1"),
    (overlap, "test folds overlap", 1, "00001"),
    (untested, "never tested", 1, "00001"),
    (no_list, "list missing", 1, "test_set_5.csv"),
    (bad_row, "bad row", 1, "train_set_1.csv:3: expected video_name,label, got '00099'"),
    (name_outside, "name outside the folder", 1, "'../../etc/passwd'"),
    (wrong_header, "unreadable list", 1, "expected the header video_name,label"),
    (linked_frame, "link out of the folder", 1, "00005/00010.jpg"),
    (linked_clip, "link out of the folder", 1, "00005"),
    (lambda root: shorten(root, 20), "shorter than the window", 1, "00006 (20)"),
    (lambda root: shorten(root, 7), "almost still", 1, "00006 (7)"),
    (other_name, "name against the frames", 1, "jpg_224: 256×256 px"),
    (one_based, "lists count from 1", 10, "train_set_1.csv"),
    (one_list_one_based, "lists count differently", 1, "train_set_1.csv from 1, others from 0"),
])  # fmt: skip
def test_one_broken_thing_is_one_finding(dfew, break_it, kind, count, example):
    break_it(dfew)
    findings = found(dfew)
    if break_it is linked_frame:  # the frame is not followed, so it is missing from its clip too
        assert findings.pop("gap in the frames")[1] == 1
    assert list(findings) == [kind]
    level, number, examples = findings[kind]
    assert (level, number) == (KINDS[kind][0], count)
    assert any(example in text for text in examples), examples


def test_the_rule_for_short_clips_is_said(dfew):
    shorten(dfew, 20)
    (finding,) = diagnose(dfew, "dfew").findings
    assert "under 64 frames" in finding.remedy and "the last frame is held" in finding.remedy


def test_the_base_can_be_said(dfew):
    one_based(dfew)
    assert found(dfew, base=1) == {}
    with pytest.raises(ValueError, match="base=1"):  # which is what the doctor said
        read_dataset(dfew, "dfew", "train", 1, frames="clip_jpg_256")


def test_neither_0_nor_7_leaves_the_base_open(dfew):
    everywhere(dfew, ",0\n", ",1\n")
    assert list(found(dfew)) == ["counting unclear"]
    assert found(dfew, base=0) == {}


def test_examples_are_few_and_counts_are_not(dfew):
    for path in (dfew / "clip_jpg_256/00003").iterdir():
        path.write_bytes(b"")
    for id in IDS[:8]:
        (dfew / "clip_jpg_256" / id / "00002.jpg").write_bytes(b"")
    level, count, examples = found(dfew)["empty file"]
    assert (level, count) == ("error", FRAMES + 7)
    assert len(examples) == 5 and examples[0] == "00001/00002.jpg"
    assert len(found(dfew, examples=2)["empty file"][2]) == 2


def test_deep_decodes_and_compares(dfew):
    frame = dfew / "clip_jpg_256/00002/00066.jpg"
    frame.write_bytes(frame.read_bytes()[:-200])
    assert list(found(dfew)) == list(found(dfew, deep=True)) == ["unreadable"], "its header is whole, its end is not"
    frame.write_bytes((dfew / "clip_jpg_256/00002/00065.jpg").read_bytes())
    shutil.rmtree(dfew / "clip_jpg_256/00002")
    shutil.copytree(dfew / "clip_jpg_256/00001", dfew / "clip_jpg_256/00002")
    assert found(dfew) == {}
    assert found(dfew, deep=True) == {"same content in train and test": (
        "error", 1, ("00001 (test) and 00002 (train), fold 1",))}
    shutil.rmtree(dfew / "clip_jpg_256/00002")
    write_clip(dfew / "clip_jpg_256/00002", FRAMES, 1)
    shutil.rmtree(dfew / "clip_jpg_256/00006")
    shutil.copytree(dfew / "clip_jpg_256/00001", dfew / "clip_jpg_256/00006")  # always tested together
    assert found(dfew, deep=True) == {"same content": ("warning", 1, ("00001 and 00006",))}


# -------------------------------------------------------------------------------- flavours


def test_the_16_frame_flavour_is_that_of_s2d(dfew):
    shutil.rmtree(dfew / "clip_jpg_256")
    for place, id in enumerate(IDS):
        write_clip(dfew / "Clip/clip_224x224_16f" / id, 16, place, (224, 224))
    diagnosis = diagnose(dfew, "dfew")
    assert diagnosis.findings == () and diagnosis.frames.flavour == "16 aligned frames"
    assert {p.name: p.matches for p in diagnosis.protocols} == {"s4d/dfew": False, "s2d/dfew": True}
    (dfew / "Clip/clip_224x224_16f/00004/00016.jpg").unlink()
    assert found(dfew) == {"too few frames": ("warning", 1, ("00004 (15 of 16)",))}


def test_a_folder_that_only_says_16_frames(dfew):
    (dfew / "clip_jpg_256").rename(dfew / "clip_16f")
    kind, = found(dfew)
    assert kind == "name against the frames"


def test_frames_of_no_protocol(dfew):
    shutil.rmtree(dfew / "clip_jpg_256")
    for place, id in enumerate(IDS):
        write_clip(dfew / "clip_jpg" / id, FRAMES, place, (96, 96))
    findings = found(dfew)
    assert list(findings) == ["no published protocol"]
    assert findings["no published protocol"][2] == ("s4d/dfew: frames: 256×256 px, these are 96×96 px",)


def test_videos_and_frames_side_by_side(dfew):
    (dfew / "clip_mp4").mkdir()
    for place, id in enumerate(IDS):
        frames = np.full((20, 64, 64, 3), 20 * place, np.uint8)
        write_mp4(dfew / "clip_mp4" / f"{id}.mp4", frames, 25)
    assert diagnose(dfew, "dfew").frames.others == ("clip_mp4",)
    diagnosis = diagnose(dfew, "dfew", frames="clip_mp4")
    assert diagnosis.frames.flavour == "video, original-rate frames"
    assert diagnosis.frames.lengths["median"] == 20 and diagnosis.frames.sizes == {"64×64": 10}
    video = dfew / "clip_mp4/00003.mp4"
    video.write_bytes(video.read_bytes()[:-30])
    (dfew / "clip_mp4/00004.mp4").write_bytes(b"")
    (dfew / "clip_mp4/00005.mp4").write_bytes(b"<html>access denied</html>")
    findings = found(dfew, frames="clip_mp4")
    assert findings["empty file"] == ("error", 1, ("00004.mp4",))
    assert findings["unreadable"][1] == 2 and "cut short" in findings["unreadable"][2][0]
    with pytest.raises(ValueError, match="no such folder inside"):
        diagnose(dfew, "dfew", frames="..")


# -------------------------------------------------------------------------------- published counts


def test_the_published_dfew_lists_are_recognised(tmp_path):
    """Lists of exactly the published size, in mixed order, and not one frame."""
    test = {fold: counts.test_per_class for fold, counts in EXPECTED["dfew"].folds.items()}
    rows = [(label, fold) for fold, counts in test.items() for label, count in enumerate(counts) for _ in range(count)]
    random.Random(3).shuffle(rows)
    assert len(rows) == 11697
    ids = [f"{number:05d}" for number in range(1, len(rows) + 1)]
    labels, folds = ({id: row[i] for id, row in zip(ids, rows)} for i in (0, 1))
    write_lists(tmp_path, labels, folds)
    diagnosis = diagnose(tmp_path, "dfew")
    assert {report.published for report in diagnosis.lists} == {"equal"} and len(diagnosis.lists) == 10
    findings = {f.kind: (f.level, f.count) for f in diagnosis.findings}
    assert findings == {"no frames folder": ("error", 1), "missing": ("error", 11697)}
    assert diagnosis.lists[0].per_class == (1956, 1515, 2135, 1738, 1175, 116, 721)
    path = dfew_list(tmp_path, "test", 4)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    findings = found(tmp_path, fold=4)
    level, count, (example,) = findings["counts differ"]
    assert (level, count) == ("warning", 1) and "test, fold 4: 2,338 rows instead of 2,339" in example


def test_the_published_ferv39k_lists_are_recognised(tmp_path):
    folds = EXPECTED["ferv39k"].folds[1]
    words = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
    (tmp_path / "Annotation").mkdir()
    number = iter(range(100_000))
    for split in ("train", "test"):
        rows = [f"Crime/{words[label]}/{next(number):05d},{label}\n"
                for label, count in enumerate(getattr(folds, f"{split}_per_class")) for _ in range(count)]  # fmt: skip
        (tmp_path / f"Annotation/{split}.csv").write_text("path,id\n" + "".join(rows))
    diagnosis = diagnose(tmp_path, "ferv39k")
    assert [report.published for report in diagnosis.lists] == ["equal", "equal"]
    assert {f.kind: f.count for f in diagnosis.findings} == {"no frames folder": 1, "missing": 38935}


# -------------------------------------------------------------------------------- the other data sets


def write(root: Path, name: str, data: bytes | str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def test_raf_db_counts_from_1_by_itself(tmp_path):
    rows = "".join(f"{split}_{n:05d}.jpg {n}\n" for split in ("train", "test") for n in range(1, 8))
    write(tmp_path, "EmoLabel/list_patition_label.txt", rows)
    for split in ("train", "test"):
        for n in range(1, 8):
            write(tmp_path, f"Image/aligned/{split}_{n:05d}_aligned.jpg", jpg(n, (100, 100)))
    diagnosis = diagnose(tmp_path, "raf-db")
    assert diagnosis.findings == () and diagnosis.frames.found == 14
    assert [report.per_class for report in diagnosis.lists] == [(1,) * 7] * 2
    (tmp_path / "Image/aligned/test_00003_aligned.jpg").write_bytes(b"")
    write(tmp_path, "Image/aligned/test_00008_aligned.jpg", jpg(9, (100, 100)))
    assert found(tmp_path, "raf-db") == {"empty file": ("error", 1, ("test_00003_aligned.jpg",)),
                                         "without a row": ("note", 1, ("test_00008_aligned.jpg",))}  # fmt: skip


def test_affectnet_layout(tmp_path, monkeypatch):
    monkeypatch.delitem(EXPECTED, "affectnet7")
    for split, numbers in (("train", (1, 2)), ("test", (3, 4))):
        rows = ""
        for n in numbers:
            name = f"68{n}/cfa{n}_aligned/face_det_000000.bmp"
            write(tmp_path, f"Manually_Annotated_Images/{name}", jpg(n, (160, 160), "BMP"))
            rows += f"{name} {n - numbers[0]}\n"
        write(tmp_path, f"{split}_affectnet7_2w.txt", rows)
    assert found(tmp_path, "affectnet7") == {}
    path = tmp_path / "test_affectnet7_2w.txt"
    path.write_text(path.read_text() + "681/cfa1_aligned/face_det_000000.bmp 0\n")
    assert found(tmp_path, "affectnet7") == {
        "in train and test": ("error", 1, ("681/cfa1_aligned/face_det_000000.bmp, fold 1",))}


def test_class_folders(tmp_path):
    for split in ("Train", "Val"):
        for n, name in enumerate(("Happy", "Angry")):
            write(tmp_path, f"{split}/{name}/a_{n}.png", jpg(n + 9 * (split == "Val"), (64, 48), "PNG"))
    (alone,) = found(tmp_path, "sfew", deep=True).items()
    assert alone == ("list missing", ("warning", 1, (
        "a folder of the split test, such as test; say --splits test=Val to take that for it",)))
    assert found(tmp_path, "sfew", deep=True, splits={"test": "Val"}) == {}
    write(tmp_path, "Val/Joyful/b.png", jpg(5, (64, 48), "PNG"))
    assert found(tmp_path, "sfew")["label outside the schema"][2] == ("Val:0 'Joyful'",)


def test_voxceleb2_is_walked_or_read_from_a_list(tmp_path):
    for name in ("id08423/oEx/00001", "id08423/oEx/00002", "id00012/Abc/00001"):
        (tmp_path / "mp4" / name).parent.mkdir(parents=True, exist_ok=True)
        write_mp4(tmp_path / "mp4" / f"{name}.mp4", np.zeros((3, 32, 32, 3), np.uint8), 25)
    assert found(tmp_path, "voxceleb2") == {"walked": ("note", 3, ("mp4",))}
    write(tmp_path, "info_clean.csv", "/data/vox/id08423/oEx/00001.mp4 0\nid00012/Abc/00009.mp4 0\n")
    assert found(tmp_path, "voxceleb2") == {
        "missing": ("error", 1, ("id00012/Abc/00009",)),
        "without a row": ("note", 2, ("id00012/Abc/00001.mp4", "id08423/oEx/00002.mp4"))}  # fmt: skip


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_a_pickled_array_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mp4").mkdir()
    np.save(tmp_path / "voxceleb2_videopaths_train.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    findings = found(tmp_path, "voxceleb2")
    assert findings["unreadable list"][1] == 1 and "Python objects" in findings["unreadable list"][2][0]
    assert not (tmp_path / "trapped").exists()
    with open(tmp_path / "voxceleb2_videopaths_train.npy", "rb") as file:  # the control: reading it would have
        np.lib.format.read_magic(file), np.lib.format.read_array_header_1_0(file), pickle.load(file)
    assert (tmp_path / "trapped").exists()


def test_ferv39k_folders_tell_the_class_order(tmp_path, monkeypatch):
    monkeypatch.delitem(EXPECTED, "ferv39k")
    order = SCHEMAS["mae-dfer/ferv39k"]
    words = ("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear")
    for split in ("train", "test"):
        rows = "".join(f"Crime/{word}/{n}{split},{order.word(word)}\n" for n, word in enumerate(words))
        write(tmp_path, f"Annotation/{split}.csv", "path,id\n" + rows)
        for n, word in enumerate(words):
            for frame in range(1, 18):
                write(tmp_path, f"2_ClipsforFaceCrop/Crime/{word}/{n}{split}/{frame:03d}.jpg", jpg(n))
    assert list(found(tmp_path, "ferv39k")) == ["label against the name"]
    assert found(tmp_path, "ferv39k", schema="mae-dfer/ferv39k") == {}


def test_mafw_pictures_captions_and_gaps(tmp_path, monkeypatch):
    monkeypatch.delitem(EXPECTED, "mafw")
    for fold in range(1, 6):
        for split, ids in (("train", [i for i in range(1, 6) if i != fold]), ("test", [fold])):
            rows = "".join(f"{i:05d}.mp4\tanger\t一个男人\ta man\n" for i in ids)
            write(tmp_path, f"anno/single/with_caption/set_{fold}/{split}.txt", rows.encode("gb18030"))
    for clip in range(1, 6):
        for frame in [n for n in range(1, 68) if (clip, n) != (3, 30)]:
            write(tmp_path, f"frames_crop_align_224/{clip:05d}/{frame:04d}.png", jpg(clip, (224, 224), "PNG"))
    findings = found(tmp_path, "mafw")
    assert findings == {"gap in the frames": ("note", 1, ("00003 (0031 after 0029)",)),
                        "Chinese captions": ("note", 10, findings["Chinese captions"][2])}  # fmt: skip
    assert diagnose(tmp_path, "mafw").lists[0].base is None, "words"


def test_tables_and_people_on_both_sides(tmp_path):
    table = "path,label,fold,subject\n" + "".join(f"faces/{n}.png,{n % 7},{n % 2 + 1},p{n}\n" for n in range(14))
    write(tmp_path, "labels.csv", table)
    for n in range(14):
        write(tmp_path, f"faces/{n}.png", jpg(n, (32, 24), "PNG"))
    assert found(tmp_path, "table", schema="rafdb") == {}
    write(tmp_path, "labels.csv", table.replace("p3\n", "p4\n"))
    assert found(tmp_path, "table", schema="rafdb") == {"group in train and test": ("error", 1, ("p4, fold 1",))}
    write(tmp_path, "labels.csv", table.replace("13.png,6,2,", "13.png,6,second,"))
    assert found(tmp_path, "table", schema="rafdb")["bad row"][1] == 1
    with pytest.raises(ValueError, match="class order"):
        diagnose(tmp_path, "table")


def test_a_table_of_clips_and_videos_by_split(tmp_path):
    rows = "clips/a,0,train\nclips/deep/b,3,val\nvideos/c.mp4,6,Testing\n"
    write(tmp_path, "labels.csv", "path,label,split\n" + rows)
    for place, name in enumerate(("clips/a", "clips/deep/b")):
        write_clip(tmp_path / name, 4, place, (40, 32))
    (tmp_path / "videos").mkdir()
    write_mp4(tmp_path / "videos/c.mp4", np.zeros((3, 32, 40, 3), np.uint8), 25)
    diagnosis = diagnose(tmp_path, "table", schema="rafdb", deep=True)
    assert diagnosis.findings == () and diagnosis.frames.kinds == {"folder": 2, "video": 1}
    assert {(report.split, report.rows) for report in diagnosis.lists} == {("train", 1), ("validation", 1), ("test", 1)}
    write(tmp_path, "labels.csv", "path,label,split\n" + rows + "clips/a,0,extra\n")
    assert found(tmp_path, "table", schema="rafdb")["bad row"][1] == 1


def test_ferplus_votes(tmp_path):
    columns = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    rows = [("Training", "FER2013Train", "9,1,0,0,0,0,0,0,0,0"), ("Training", "FER2013Train", "5,5,0,0,0,0,0,0,0,0"),
            ("PublicTest", "FER2013Valid", "0,0,8,0,0,0,2,0,0,0"),
            ("PrivateTest", "FER2013Test", "0,0,0,0,0,0,0,9,0,1")]  # fmt: skip
    text = f"Usage,Image name,{columns}\n"
    for number, (usage, part, votes) in enumerate(rows):
        text += f"{usage},fer{number:07d}.png,{votes}\n"
        write(tmp_path, f"{part}/fer{number:07d}.png", jpg(number, (48, 48), "PNG"))
    write(tmp_path, "fer2013new.csv", text)
    diagnosis = diagnose(tmp_path, "ferplus")
    assert {f.kind: (f.level, f.count) for f in diagnosis.findings} == {
        "without a row": ("note", 1), "left out by the reader": ("note", 1)}  # fmt: skip
    assert [report.per_class.index(1) for report in diagnosis.lists] == [0, 2, 7]


# -------------------------------------------------------------------------------- command and text


def command(monkeypatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["s4d", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        app.main()
    return left.value.code


def test_command_exit_codes_json_and_plain_text(dfew, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "doctor", dfew, "--as", "dfew", "--json", tmp_path / "out.json") == 0
    said = capsys.readouterr().out
    assert "protocol s4d/dfew: matches" in said and "\x1b" not in said and "─" not in said
    assert json.loads((tmp_path / "out.json").read_text())["exit_code"] == 0
    gap(dfew)
    assert command(monkeypatch, "doctor", dfew, "--as", "dfew") == 1
    assert "warning: gap in the frames: 1, " in capsys.readouterr().out
    missing(dfew)
    assert command(monkeypatch, "doctor", dfew, "--as", "dfew", "--jobs", "1") == 2
    assert command(monkeypatch, "doctor", dfew / "nowhere", "--as", "dfew") == 2
    assert "no such folder" in capsys.readouterr().err
    assert command(monkeypatch, "doctor", dfew, "--as", "fer2013") == 2
    assert "there are dfew, ferv39k" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_hostile_names_are_printed_spelled_out(dfew):
    assert printable("a\x1b[2Jb\n\u202e\udcff é") == "a\\x1b[2Jb\\n\\u202e\\udcff é"
    edit(dfew_list(dfew, "train", 1), "00002,1\n", "00002,1\n\x1b[31mred[bold],1\n")
    (dfew / "clip_jpg_256" / "\x1b]0;title\x07").mkdir()
    diagnosis = diagnose(dfew, "dfew")
    for file in (io.StringIO(), Terminal()):
        print_report(diagnosis, file)
        assert "\x1b]0" not in file.getvalue() and "\x1b[31mred" not in file.getvalue()
        assert "\\x1b" in file.getvalue()
    assert "─" in file.getvalue(), "a terminal gets tables"


def test_what_a_message_quotes_is_never_altered(tmp_path, monkeypatch, capsys):
    """The folder's name begins the path of a list, which is cut, and stands in rows and ids, which are not."""
    monkeypatch.chdir(tmp_path)
    root = Path("D")
    rows = ["../D/secret/2,1,train", "D/clip,1,train", "gone D/1,nine D/2,train", "D/D/x,1"]
    write(root, "labels.csv", "\n".join(["path,label,split", *rows, ""]))
    findings = {f.kind: f.examples for f in diagnose(root, "table", schema="rafdb").findings}
    assert findings["missing"] == ("D/clip", "gone D/1")
    (outside,) = findings["name outside the folder"]
    assert outside.startswith("labels.csv:2: ") and "'../D/secret/2'" in outside
    assert findings["label outside the schema"] == ("labels.csv:4 'nine D/2'",)
    (bad,) = findings["bad row"]
    assert bad.startswith("labels.csv:5: ") and "D/D/x" in bad


@pytest.mark.skipif(os.name == "nt", reason="folders are written to differently")
def test_a_report_that_cannot_be_written_is_named_before_anything_is_looked_at(dfew, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr("s4d_lib.datasets.doctor.diagnosis.diagnose", None)
    assert command(monkeypatch, "doctor", dfew, "--as", "dfew", "--json", tmp_path / "file" / "out.json") == 2
    assert f"{tmp_path / 'file' / 'out.json'}: cannot be written" in capsys.readouterr().err


def test_a_disk_that_fills_up_is_told_with_the_file(dfew, tmp_path, monkeypatch, capsys):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("s4d_lib.files.write_atomically", full)
    assert command(monkeypatch, "doctor", dfew, "--as", "dfew", "--json", tmp_path / "out.json") == 2
    assert f"{tmp_path / 'out.json'}: cannot be written (No space left on device)" in capsys.readouterr().err
