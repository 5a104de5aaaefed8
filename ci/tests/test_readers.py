"""folder → samples: every data set's own files, written here byte for byte as they are in circulation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import s4d_lib.datasets.lists as lists
from s4d_lib.datasets.folders import LAYOUTS, FolderLayout
from s4d_lib.datasets.labels import SCHEMAS, ReaderNote
from s4d_lib.datasets.lists import RowError, encoding_of, word_rows
from s4d_lib.datasets.pack.writer import pack
from s4d_lib.datasets.packed import read_packed
from s4d_lib.datasets.readers import (
    READERS,
    read_class_folders,
    read_dataset,
    read_dfew,
    read_ferv39k,
    read_laid_out,
    read_mafw,
    read_table,
    read_voxceleb2,
)
from s4d_lib.datasets.still_readers import read_affectnet, read_ferplus, read_rafdb
from s4d_lib.frames.endings import VIDEO_SUFFIXES
from s4d_lib.frames.reader import open_frames
from s4d_lib.frames.streams import find_media
from s4d_lib.frames.writer import write_mp4

BOM = "\ufeff"


def write(path: Path, text: str | bytes, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def picture(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (grey, grey, grey)).save(path)
    return path


def clip(folder: Path, suffix: str = ".png", frames: int = 12, pad: int = 1) -> Path:
    """A frame folder whose frame n is grey n * 10, named 1.png, 2.png, … 12.png: padding is not to be relied on."""
    for number in range(1, frames + 1):
        picture(folder / f"{number:0{pad}d}{suffix}", number * 10)
    return folder


def shown(path: Path) -> list[int]:
    with open_frames(path) as reader:
        return [round(float(frame.float().mean()) / 10) for frame in reader.read(range(len(reader)))]


def facts(samples) -> list[tuple]:
    return [(sample.id, sample.label, sample.group) for sample in samples]


# -------------------------------------------------------------------------------- DFEW


@pytest.fixture
def dfew(tmp_path) -> Path:
    for id in ("00001", "02522", "16372"):
        clip(tmp_path / "clip_jpg_256" / id, ".jpg")
    for id in ("00001", "02522"):
        clip(tmp_path / "Clip" / "clip_224x224_16f" / id, ".jpg", frames=16, pad=5)
    write(tmp_path / "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv", "video_name,label\n02522,5\n00001,0\n")
    write(tmp_path / "EmoLabel_DataSplit/train(single-labeled)/set_3.csv", "video_name,label\r\n1,1\r\n2522,7\r\n")
    return tmp_path


def test_dfew_as_s4d_ships_it(dfew):
    samples = read_dfew(dfew, "train", fold=2, frames="clip_jpg_256")
    assert facts(samples) == [("02522", 5, None), ("00001", 0, None)]
    assert {sample.schema for sample in samples} == {"dfew"} and samples[0].path == dfew / "clip_jpg_256" / "02522"
    assert shown(samples[0].path) == list(range(1, 13)), "10.jpg comes after 9.jpg"
    other = read_dataset(dfew, "dfew", "train", fold=2, frames="Clip/clip_224x224_16f")
    assert [len(shown(sample.path)) for sample in other] == [16, 16]


def test_dfew_official_list_counts_from_one_and_drops_zeros(dfew):
    with pytest.raises(ValueError, match=r"set_3\.csv:3: label 7 is not in 0\.\.6 .*read it with base=1"):
        read_dfew(dfew, "train", fold=3, frames="clip_jpg_256")
    samples = read_dfew(dfew, "train", fold=3, frames="clip_jpg_256", base=1)
    assert facts(samples) == [("1", 0, None), ("2522", 6, None)]
    assert [sample.path.name for sample in samples] == ["00001", "02522"]


def test_dfew_frames_that_are_not_there_name_those_that_are(dfew):
    with pytest.raises(FileNotFoundError, match=r"clip_jpg: no such folder of clips; .*, clip_jpg_256"):
        read_dfew(dfew, "train", fold=2)
    for fold in (0, "1/../2", True - 1):
        with pytest.raises(ValueError, match="fold must be a whole number"):
            read_dfew(dfew, "train", fold=fold, frames="clip_jpg_256")
    with pytest.raises(ValueError, match=r"pattern 'x\.mp4' must hold \{id\}"):
        read_dfew(dfew, "train", fold=2, frames="clip_jpg_256", pattern="x.mp4")


# -------------------------------------------------------------------------------- FERV39K


@pytest.fixture
def ferv39k(tmp_path) -> Path:
    for name in ("Crime/Angry/0063", "Crime/Happy/0001", "School/Sad/0010"):
        clip(tmp_path / "2_ClipsforFaceCrop" / name, ".jpg", frames=3)
    return tmp_path


def test_ferv39k(ferv39k):
    write(ferv39k / "Annotation/train.csv", "path,id\nCrime/Angry/0063,0\nCrime/Happy/0001,3\nSchool\\Sad\\0010,5\n")
    samples = read_ferv39k(ferv39k, "train")
    labels = {sample.id: sample.label for sample in samples}
    assert labels == {"Crime/Angry/0063": 0, "Crime/Happy/0001": 3, "School/Sad/0010": 5}
    assert samples[2].path == ferv39k / "2_ClipsforFaceCrop/School/Sad/0010" and shown(samples[2].path) == [1, 2, 3]


def test_ferv39k_official_list_of_words(ferv39k):
    write(ferv39k / "4_setups/All_scenes/test_All.csv", "Crime/Angry/0063 Angry\r\nSchool/Sad/0010 Sad\r\n")
    assert facts(read_ferv39k(ferv39k, "test")) == [("Crime/Angry/0063", 0, None), ("School/Sad/0010", 5, None)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Crime/Happy/0001,0\nCrime/Angry/0063,3\n", r":2: label 0 is Anger in ferv39k, .*Happy; .*'mae-dfer/ferv39k'"),
        ("Crime/Happy/0001,4\nCrime/Angry/0063,1\n", r":2: label 4 is Neutral in ferv39k, .* Happy; .*try base=1"),
    ],
)
def test_ferv39k_labels_are_checked_against_the_folder(ferv39k, rows, message):
    write(ferv39k / "Annotation/train.csv", "path,id\n" + rows)
    with pytest.raises(ValueError, match=message):
        read_ferv39k(ferv39k, "train")
    option = {"base": 1} if "base" in message else {"schema": "mae-dfer/ferv39k"}
    samples = read_ferv39k(ferv39k, "train", **option)
    assert [SCHEMAS[s.schema].classes[s.label] for s in samples] == ["Happiness", "Anger"]


# -------------------------------------------------------------------------------- MAFW


@pytest.fixture
def mafw(tmp_path) -> Path:
    for id in ("03747", "00025"):
        clip(tmp_path / "frames_crop_align_224" / id, ".png")
    return tmp_path


def test_mafw_csv_with_png_frames(mafw):
    write(mafw / "anno/single/no_caption/set_4/test.csv", BOM + "video_name,labels\n03747,0\n00025,10\n")
    samples = read_mafw(mafw, "test", fold=4)
    assert facts(samples) == [("03747", 0, None), ("00025", 10, None)] and samples[0].schema == "mafw"
    assert shown(samples[0].path) == list(range(1, 13))


@pytest.mark.parametrize("place", ["anno", "split"])
def test_mafw_original_words(mafw, place):
    write(mafw / place / "single/no_caption/set_1/train.txt", "03747.mp4 anger\r\n00025.mp4 surprise\r\n")
    assert facts(read_mafw(mafw, "train")) == [("03747", 0, None), ("00025", 10, None)]
    deviating = read_mafw(mafw, "train", schema="mae-dfer/mafw")
    assert [sample.label for sample in deviating] == [0, 6], "words need no translation"


CAPTIONS = (
    "03747.mp4\tanger\t一个男人大声讲话。紧皱眉头。\tA man talks loudly, frowning.\r\n"
    "00025.mp4\thelplessness_sadness\t一位女士叹气。\t A woman \"sighs\". \r\n"
)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "utf-8-sig", "utf-16"])
def test_captioned_lists_and_compound_labels(mafw, encoding):
    path = write(mafw / "anno/compound/with_caption/set_1/train.txt", CAPTIONS, encoding)
    assert facts(read_mafw(mafw, "train", compound=True)) == [
        ("03747", 0, None), ("00025", SCHEMAS["mafw_compound"].word("sadness_helplessness"), None)]
    assert read_dataset(mafw, "mafw_compound", "train", fold=1)[0].schema == "mafw_compound"
    with pytest.raises(ValueError, match=r"train\.txt:2: label 'helplessness_sadness' .* schema='mafw_compound'"):
        read_mafw(mafw, "train", schema="mafw", listing=str(path.relative_to(mafw)))
    write(path, "03747.mp4\tanger\tone\n")
    with pytest.raises(ValueError, match=r"train\.txt:1: expected 4 fields between tabs, got '03747"):
        read_mafw(mafw, "train", compound=True)


# -------------------------------------------------------------------------------- AffectNet, RAF-DB, FERPlus


@pytest.fixture
def affectnet(tmp_path) -> Path:
    for number in range(3):
        picture(tmp_path / f"Manually_Annotated_Images/{number}/h{number}_aligned/face_det_000000.bmp", number)
    return tmp_path


def names(count: int = 3) -> list[str]:
    return [f"{number}/h{number}_aligned/face_det_000000.bmp" for number in range(count)]


def test_affectnet_lists_of_seven_and_eight(affectnet):
    write(affectnet / "train_affectnet8.txt", BOM + "".join(f"{n} {7 - i}\r\n" for i, n in enumerate(names())))
    with pytest.warns(ReaderNote, match="read as counting from 0"):
        samples = read_dataset(affectnet, "affectnet8", "train")
    assert [(s.id, s.label, s.schema, s.kind) for s in samples] == [
        (name, 7 - i, "affectnet8", "image") for i, name in enumerate(names())]
    with pytest.raises(ValueError, match=r"affectnet8\.txt:1: label 7 is not in 0\.\.6"):
        read_affectnet(affectnet, "train", listing="train_affectnet8.txt")


def test_affectnet_arrays(affectnet):
    np.save(affectnet / "paths.npy", np.array([f"/dev/shm/Images/{name}" for name in names()]))
    np.save(affectnet / "labels.npy", np.array([0, 6, 3], dtype=np.int16))
    arrays = {"listing": "paths.npy", "labels": "labels.npy"}
    samples = read_affectnet(affectnet, "train", strip="/dev/shm/Images", **arrays)
    assert facts(samples) == [(name, label, None) for name, label in zip(names(), (0, 6, 3))]
    with pytest.raises(ValueError, match=r"paths\.npy:1: '/dev/shm/.*' is not a name inside the data folder"):
        read_affectnet(affectnet, "train", **arrays)
    with pytest.raises(ValueError, match=r"paths\.npy: an array of paths needs labels="):
        read_affectnet(affectnet, "train", listing="paths.npy")
    np.save(affectnet / "labels.npy", np.array([0, 6]))
    with pytest.raises(ValueError, match=r"paths\.npy: 3 names, but .*labels\.npy holds 2 labels"):
        read_affectnet(affectnet, "train", **arrays)


class Trap:
    """What unpickling would run."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_arrays_of_objects_run_nothing(affectnet, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.save(affectnet / "paths.npy", np.array([Trap(), Trap()], dtype=object), allow_pickle=True)
    np.save(affectnet / "labels.npy", np.array([0, 1]))
    with pytest.raises(ValueError, match=r"paths\.npy: the array holds Python objects; .*np\.save\(path"):
        read_affectnet(affectnet, "train", listing="paths.npy", labels="labels.npy")
    assert not (tmp_path / "unpickled").exists()
    write(affectnet / "paths.npy", b"not an array")
    with pytest.raises(ValueError, match=r"paths\.npy: "):
        read_affectnet(affectnet, "train", listing="paths.npy", labels="labels.npy")
    np.save(affectnet / "paths.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"expected a list of text, got float64 \[2, 2\]"):
        read_affectnet(affectnet, "train", listing="paths.npy", labels="labels.npy")


@pytest.mark.parametrize("inside", ["", "basic/"])
def test_rafdb_counts_from_one_and_keeps_both_splits_in_one_list(tmp_path, inside):
    for name in ("train_00001", "train_00002", "test_0001"):
        picture(tmp_path / f"{inside}Image/aligned/{name}_aligned.jpg")
        picture(tmp_path / f"{inside}Image/original/{name}.jpg")
    listing = write(tmp_path / f"{inside}EmoLabel/list_patition_label.txt",
                    "train_00001.jpg 5\ntrain_00002.jpg 7\ntest_0001.jpg 1\n")  # fmt: skip
    samples = read_rafdb(tmp_path, "train")
    assert facts(samples) == [("train_00001.jpg", 4, None), ("train_00002.jpg", 6, None)]
    assert SCHEMAS["rafdb"].classes[4] == "Sadness" and samples[0].path.name == "train_00001_aligned.jpg"
    assert read_rafdb(tmp_path, "test", frames="Image/original")[0].path.name == "test_0001.jpg"
    write(listing, "train_00001.jpg 0\nval_1.jpg 3\n")
    with pytest.raises(ValueError, match=r"label\.txt:1: label 0 is not in 1\.\.7"):
        read_rafdb(tmp_path, "train")
    errors = []
    with pytest.raises(ValueError, match="none of its 2 rows begins with test_"):
        read_rafdb(tmp_path, "test", errors=errors)
    assert "begins with neither train_ nor test_" in str(errors[0])


FERPLUS = """Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF
Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0
Training,fer0000003.png,4,0,0,4,1,0,0,0,1,0
Training,fer0000006.png,2,0,0,8,0,0,0,0,0,0
Training,,0,0,0,0,0,0,0,0,0,10
PublicTest,fer0028638.png,0,0,0,0,0,0,0,10,0,0
PrivateTest,fer0032220.png,0,0,0,0,0,0,0,1,9,0
"""


def test_ferplus_votes_become_one_class_a_picture(tmp_path):
    write(tmp_path / "fer2013new.csv", FERPLUS)
    for name in ("FER2013Train/fer0000000", "FER2013Train/fer0000006", "FER2013Valid/fer0028638"):
        picture(tmp_path / "images" / f"{name}.png")
    with pytest.warns(ReaderNote, match="2 pictures of Training have no leading class and are left out"):
        samples = read_ferplus(tmp_path, "train", frames="images")
    assert facts(samples) == [("FER2013Train/fer0000000.png", 0, None), ("FER2013Train/fer0000006.png", 3, None)]
    assert read_ferplus(tmp_path, "validation", frames="images")[0].label == SCHEMAS["ferplus"].word("Contempt")
    write(tmp_path / "labels.txt", "FER2013Train/fer0000006.png sadness\n")
    assert read_ferplus(tmp_path, "train", frames="images", listing="labels.txt")[0].label == 3
    write(tmp_path / "fer2013new.csv", FERPLUS.replace("4,0,0,1,3", "4,0,0,-1,3"))
    with pytest.raises(ValueError, match=r"fer2013new\.csv:2: votes must be whole numbers"):
        read_ferplus(tmp_path, "train", frames="images")


# -------------------------------------------------------------------------------- a layout without a reader


def test_a_layout_alone_reads_what_the_readers_with_code_read(dfew, mafw, affectnet):
    """The oracle is every reader that was written out: the entry in LAYOUTS alone gives the same samples."""
    write(dfew / "EmoLabel_DataSplit/train(single-labeled)/set_3.csv", "video_name,label\n1,0\n2522,5\n")
    write(mafw / "anno/single/no_caption/set_4/test.csv", "video_name,labels\n03747,0\n00025,10\n")
    write(affectnet / "train_affectnet7_2w.txt", "".join(f"{n} {6 - 3 * i}\n" for i, n in enumerate(names())))
    picture(affectnet / "Image/aligned/train_00001_aligned.jpg")
    write(affectnet / "EmoLabel/list_patition_label.txt", "train_00001.jpg 5\ntest_00001.jpg 5\n")
    asked = [("dfew", "train", 2, {"frames": "clip_jpg_256"}), ("dfew", "train", 3, {"frames": "clip_jpg_256"}),
             ("mafw", "test", 4, {}), ("affectnet7", "train", None, {}), ("rafdb", "train", None, {})]
    for name, split, fold, options in asked:
        by_layout = read_laid_out(LAYOUTS[name], dfew, split, fold or 1)
        assert by_layout == read_dataset(dfew, name, split, fold, **options) and by_layout, name


def test_what_a_layout_does_not_have_is_refused(dfew):
    ours = FolderLayout("dfew", "clip", ("{split}.txt",), ("frames", "clip_jpg_256"))
    write(dfew / "train.txt", "2522 fear\n1 0\n")
    samples = read_laid_out(ours, dfew, "train")
    assert facts(samples) == [("2522", 6, None), ("1", 0, None)], "a list of words is what a layout takes by default"
    assert samples[0].path == dfew / "clip_jpg_256/02522", "the first of its folders that is there"
    with pytest.raises(FileNotFoundError, match=r"test\.txt: no such list; lists found beside it: train\.txt"):
        read_laid_out(ours, dfew, "test")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        read_laid_out(ours, dfew, "validation")
    with pytest.raises(ValueError, match="fold=2, but there is one"):
        read_laid_out(ours, dfew, "train", fold=2)
    with pytest.raises(FileNotFoundError, match="frames: no such folder of clips"):
        read_laid_out(FolderLayout("dfew", "clip", ("{split}.txt",), ("frames",)), dfew, "train")


# -------------------------------------------------------------------------------- VoxCeleb2, class folders


def test_voxceleb2_walk_list_and_array(tmp_path):
    ids = ["id00012/21Uxsk56VDQ/00002", "id00012/21Uxsk56VDQ/00010", "id08423/oEx3CRfDXMQ/00048"]
    for id in ids:
        write(tmp_path / "mp4" / f"{id}.mp4", b"video")
    expected = [(id, 0, id.split("/")[0]) for id in ids]
    walked = read_voxceleb2(tmp_path)
    assert sorted(facts(walked)) == expected and {s.schema for s in walked} == {"unlabelled"}
    assert walked[0].path == tmp_path / "mp4" / "id00012/21Uxsk56VDQ/00002.mp4"
    write(tmp_path / "info_clean.csv", "".join(f"/home/somebody/VoxCeleb2/dev/{id}.mp4 0\n" for id in ids))
    assert facts(read_voxceleb2(tmp_path, listing="info_clean.csv")) == expected
    np.save(tmp_path / "voxceleb2_videopaths_train.npy", np.array([f"{id}.mp4" for id in ids]))
    assert facts(read_dataset(tmp_path, "voxceleb2", "train", listing="voxceleb2_videopaths_train.npy")) == expected
    write(tmp_path / "info_clean.csv", f"{ids[0]}.mp4 3\n")
    with pytest.raises(ValueError, match=r"info_clean\.csv:1: label 3 is not in 0\.\.0 \(unlabelled"):
        read_voxceleb2(tmp_path, listing="info_clean.csv")


def test_voxceleb2_walk_and_links(tmp_path):
    write(tmp_path / "elsewhere/21U/00001.mp4", b"video")
    write(tmp_path / "data/mp4/id1/a/00001.mp4", b"video")
    (tmp_path / "data/mp4/id2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="id2 is a link to a folder; trust it with links='follow'"):
        read_voxceleb2(tmp_path / "data")
    assert len(read_voxceleb2(tmp_path / "data", links="follow")) == 2
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "data/mp4")
    with pytest.raises(ValueError, match="read already"):
        read_voxceleb2(tmp_path / "data", links="follow")


@pytest.mark.parametrize("suffix", [".m4v", ".mov"])
def test_a_video_that_can_be_predicted_can_be_read_as_data(tmp_path, suffix):
    """Once two lists of endings differed: `s4d predict` took a .m4v that readers passed over."""
    film = tmp_path / "sfew" / "train" / "Happy" / f"film{suffix}"
    film.parent.mkdir(parents=True)
    write_mp4(film.with_suffix(".mp4"), np.full((5, 48, 64, 3), 80, np.uint8), 10)
    film.with_suffix(".mp4").rename(film)
    assert find_media([tmp_path]).media == [film]
    (found,) = read_class_folders(tmp_path / "sfew", "train", "sfew2")
    assert found.path == film and found.kind == "clip" and shown(found.path) == [8] * 5
    pack(tmp_path / "sfew", tmp_path / "packed", "sfew2", split="train")
    (again,) = read_packed(tmp_path / "packed", "train")
    assert again.kind == "clip" and shown(again.path) == [8] * 5


def test_every_ending_that_is_predicted_is_read_and_no_other(tmp_path):
    happy = tmp_path / "train" / "Happy"
    happy.mkdir(parents=True)
    for suffix in (*VIDEO_SUFFIXES, ".txt"):
        (happy / f"film{suffix}").write_bytes(b"x")
    with pytest.warns(ReaderNote, match="1 files that are neither pictures nor videos are not read, such as film.txt"):
        found = read_class_folders(tmp_path, "train", "sfew2")
    assert {sample.path for sample in found} == set(find_media([tmp_path]).media)
    assert len(found) == len(VIDEO_SUFFIXES)


def test_caer_and_sfew_class_folders(tmp_path):
    for name in ("Anger/10.avi", "Anger/9.avi", "Happy/1.avi"):
        write(tmp_path / "caer/train" / name, b"video")
    write(tmp_path / "caer/train/Anger/.DS_Store", b"")
    samples = read_dataset(tmp_path / "caer", "caer", "train")
    assert facts(samples) == [
        ("train/Anger/9.avi", 0, None), ("train/Anger/10.avi", 0, None), ("train/Happy/1.avi", 3, None)]
    assert {sample.kind for sample in samples} == {"clip"}
    picture(tmp_path / "sfew/Val/Angry/film_0001.png")
    write(tmp_path / "sfew/Val/Angry/notes.txt", "x")
    with pytest.warns(ReaderNote, match=r"1 files that are neither pictures nor videos .* notes\.txt"):
        (still,) = read_dataset(tmp_path / "sfew", "sfew2", "validation")
    assert (still.label, still.kind, still.schema) == (5, "image", "sfew2")
    clip(tmp_path / "frames/test/Sad/0001")
    (folder,) = read_class_folders(tmp_path / "frames", "test", "dfew")
    assert folder.kind == "clip" and shown(folder.path) == list(range(1, 13))
    picture(tmp_path / "sfew/Val/Bored/1.png")
    with pytest.raises(ValueError, match=r"Bored/1\.png: label 'Bored' is not a whole number and not a class of sfew2"):
        read_class_folders(tmp_path / "sfew", "validation", "sfew2")
    with pytest.raises(FileNotFoundError, match=r"test: no such folder of a split; folders beside it: Val"):
        read_dataset(tmp_path / "sfew", "sfew2", "test")


# -------------------------------------------------------------------------------- tables

TABLE = [
    ("a.png", "Happy", "1", "train", "Ada"),
    ("b.png", "sadness", "2", "train", "Bo"),
    ("c.png", "6", "1", "val", "Cy"),
    ("d.png", "0", "2", "test", "Di"),
]
COLUMNS = ["path", "label", "fold", "split", "subject"]


@pytest.fixture
def table(tmp_path) -> Path:
    for name, *_ in TABLE:
        picture(tmp_path / "pictures" / name)
    return tmp_path


def csv_of(columns: list[str], rows=TABLE, end: str = "\n", comma: str = ",") -> str:
    picked = [[dict(zip(COLUMNS, row))[name] for name in columns] for row in rows]
    return "".join(comma.join(f'"{value}"' for value in line) + end for line in [columns, *picked])


def test_table_columns_are_found_by_name(table):
    write(table / "labels.csv", BOM + csv_of(["subject", "path", "split", "label"], end="\r\n"))
    samples = read_table(table, "train", schema="dfew", frames="pictures")
    assert facts(samples) == [("a.png", 0, "Ada"), ("b.png", 1, "Bo")] and samples[0].kind == "image"
    assert facts(read_table(table, "validation", schema="dfew", frames="pictures", base=0)) == [("c.png", 6, "Cy")]
    assert len(read_table(table, schema="dfew", frames="pictures")) == 4
    write(table / "labels.tsv", csv_of(["path", "label"], comma="\t"))
    assert len(read_table(table, listing="labels.tsv", schema="dfew", frames="pictures")) == 4
    renamed = csv_of(["path", "label"]).replace('"path"', '"file"')
    write(table / "other.csv", renamed)
    options = {"schema": "dfew", "frames": "pictures", "columns": {"path": "file"}}
    assert len(read_dataset(table, "table", None, listing="other.csv", **options)) == 4


def test_table_folds_say_where_a_row_is_tested(table):
    write(table / "labels.csv", csv_of(["path", "label", "fold"]))
    options = {"schema": "dfew", "frames": "pictures"}
    assert [s.id for s in read_table(table, "test", 1, **options)] == ["a.png", "c.png"]
    assert [s.id for s in read_table(table, "train", 1, **options)] == ["b.png", "d.png"]
    with pytest.raises(ValueError, match="fold=1 needs split='train' or split='test'"):
        read_table(table, None, 1, **options)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,label\na.png,0\n", {"schema": None}, "a table does not say its class order; say schema=, one of dfew"),
        ("file,label\na.png,0\n", {}, r"labels\.csv:1: no column path; the table has file, label"),
        ("path,label\na.png,0\n", {"split": "train"}, "no column split"),
        ("", {}, "no column path, label; the table has none"),
        ('path,label\n"a.png,0\n', {}, r"labels\.csv:2: not a CSV row"),
        ("path,label,subject\na.png,0,\n", {}, r"labels\.csv:2: no subject"),
        ("path,label\na.png,0,9\n", {}, r"labels\.csv:2: expected path,label, got 'a\.png,0,9'"),
        ("path,label\nb.png,0\n./b.png,1\n", {}, r"labels\.csv:3: 'b\.png' is already on line 2"),
        (b"path,label\na\xff\xfe.png,0\n", {}, r"labels\.csv: the text is not UTF-8; save the list as UTF-8"),
    ],
)
def test_tables_that_are_wrong(table, text, options, message):
    write(table / "labels.csv", text)
    with pytest.raises(ValueError, match=message):
        read_table(table, **({"schema": "dfew", "frames": "pictures"} | options))


def test_an_unlabelled_table(table):
    write(table / "labels.csv", "path\na.png\n")
    (sample,) = read_table(table, schema="unlabelled", frames="pictures")
    assert (sample.label, sample.schema) == (0, "unlabelled")


def test_parquet_reads_as_csv_does(table):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {name: [row[i] for row in TABLE] for i, name in enumerate(COLUMNS)}
    columns["label"] = [0.0, 1.0, 6.0, 0.0]  # whole numbers that a missing value elsewhere has turned into floats
    parquet.write_table(arrow.table(columns), table / "labels.parquet", row_group_size=1)
    write(table / "labels.csv", csv_of(COLUMNS))
    options = {"split": "train", "schema": "dfew", "frames": "pictures"}
    assert read_table(table, listing="labels.parquet", **options) == read_table(table, **options)
    write(table / "labels.parquet", b"PAR1 but no table")
    with pytest.raises(ValueError, match=r"labels\.parquet: not a readable Parquet file"):
        read_table(table, listing="labels.parquet", **options)


def test_parquet_without_its_library_names_it(table, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    write(table / "labels.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"needs pyarrow; pip install 's4d-book\[parquet\]', or save the table as CSV"):
        read_table(table, listing="labels.parquet", schema="dfew")


# -------------------------------------------------------------------------------- inside the folder


@pytest.mark.parametrize("name", [
    "../secret.png", "a/../../secret.png", "/etc/passwd", "C:/x.png", "C:x.png", "\\\\h\\x", "..\\secret.png", ".",
    "x\0.png",
])  # fmt: skip
def test_names_that_lead_out_are_refused_with_their_line(table, name):
    picture(table.parent / "secret.png")
    write(table / "train_affectnet7.txt", f"a.png 0\n{name} 1\n")
    with pytest.raises(ValueError, match=r"affectnet7\.txt:2: .* is not a name inside the data folder"):
        read_affectnet(table, "train", frames="pictures")


def test_options_cannot_lead_out_either(table):
    write(table / "labels.csv", "path,label\na.png,0\n")
    for option in ({"frames": "../pictures"}, {"frames": "C:/pictures"}, {"listing": "../labels.csv"},
                   {"listing": "/x.csv"}):
        with pytest.raises(ValueError, match="is not a name inside the data folder"):
            read_table(table, schema="dfew", **option)


def test_clips_in_another_place_are_named_by_an_absolute_path(dfew, tmp_path_factory):
    """As with lists inside a code repository and frames on another disk."""
    disk = tmp_path_factory.mktemp("disk")
    (dfew / "clip_jpg_256").rename(disk / "jpg_256")
    samples = read_dfew(dfew, "train", 2, frames=str(disk / "jpg_256"))
    assert [s.path for s in samples] == [disk / "jpg_256/02522", disk / "jpg_256/00001"]
    (disk / "jpg_256/00001").rename(disk / "00001")
    (disk / "jpg_256/00001").symlink_to(disk / "00001")
    with pytest.raises(RowError, match="is a link that leads out"):
        read_dfew(dfew, "train", 2, frames=str(disk / "jpg_256"))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_dfew(dfew, "train", 2, frames=str(disk / "jpg_512"))


def test_one_clip_in_two_spellings_is_there_twice(dfew):
    listing = "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv"
    write(dfew / listing, "video_name,label\n02522,5\n2522,5\n")
    with pytest.raises(RowError, match="'2522' is already on line 2"):
        read_dfew(dfew, "train", 2, frames="clip_jpg_256")
    (dfew / "clip_jpg_256/02522").rename(dfew / "clip_jpg_256/2522")
    write(dfew / listing, "video_name,label\n02522,5\n00001,0\n")
    assert read_dfew(dfew, "train", 2, frames="clip_jpg_256")[0].path.name == "2522"


@pytest.mark.parametrize(("text", "words"), [
    ("video_name,label\nvideo_name,label\n00001,0\n", "the header stands here again"),
    ("video_name,label\n00001,0\n".encode("utf-16-le"), "holds zero bytes"),
    ("video_name,label\n00001,0\n".encode("utf-16")[:-1], "the text is not UTF-16"),
    ("video_name,label\n00001,0\n" + "a" * 5000 + ",1\n", r"1 of 2 files are missing: \S+aaa\.\.\.aaa"),
    ("video_name,label\n00001,0\n\x1b[31mred,1\n", r"1 of 2 files are missing: \S+/\\x1b\[31mred"),
])  # fmt: skip
def test_odd_lists_are_one_clear_error(dfew, text, words):
    write(dfew / "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv", text)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as raised:
        read_dfew(dfew, "train", 2, frames="clip_jpg_256")
    assert "train_set_2.csv" in str(raised.value) and len(str(raised.value)) < 700


def test_rows_of_commas_alone_are_blank_lines(dfew):
    write(dfew / "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv", "video_name,label\n00001,0\n,\n  \n , \n")
    assert len(read_dfew(dfew, "train", 2, frames="clip_jpg_256")) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_pipes_are_refused_before_anything_waits_for_them(dfew):
    os.mkfifo(dfew / "clip_jpg_256/02522/13.jpg")
    with pytest.raises(RowError, match="13.jpg is not a file"):
        read_dfew(dfew, "train", 2, frames="clip_jpg_256")


@pytest.mark.parametrize("what", ["clip", "frame", "frames folder", "list"])
def test_links_out_of_the_root(tmp_path, what):
    root, outside = tmp_path / "root", tmp_path / "root_of_others"  # a name that begins like the root's
    clip(outside / "00001")
    clip(root / "clip_jpg" / "00002")
    listing = "annotation/train(single-labeled)/train_set_1.csv"
    write(root / listing, "video_name,label\n00002,0\n00001,1\n")
    clip(root / "clip_jpg" / "00001")
    if what == "clip":
        (root / "clip_jpg" / "00001").rename(tmp_path / "moved")
        (root / "clip_jpg" / "00001").symlink_to(outside / "00001")
    elif what == "frame":
        (root / "clip_jpg" / "00001" / "3.png").unlink()
        (root / "clip_jpg" / "00001" / "3.png").symlink_to(outside / "00001" / "3.png")
    elif what == "frames folder":
        (root / "clip_jpg").rename(tmp_path / "moved")
        (root / "clip_jpg").symlink_to(tmp_path / "moved")
    else:
        (root / listing).rename(tmp_path / "list.csv")
        (root / listing).symlink_to(tmp_path / "list.csv")
    line = r"train_set_1\.csv:3: " if what in ("clip", "frame") else ""
    with pytest.raises(ValueError, match=line + r".* is a link that leads out of .*root; .*links='follow'"):
        read_dfew(root, "train")
    followed = read_dfew(root, "train", links="follow")
    assert [len(shown(sample.path)) for sample in followed] == [12, 12]


def test_links_that_stay_inside_and_a_root_that_is_a_link(tmp_path):
    write(tmp_path / "real/annotation/train(single-labeled)/train_set_1.csv", "video_name,label\n00002,0\n00001,1\n")
    clip(tmp_path / "real/archive/00001")
    clip(tmp_path / "real/clip_jpg/00002")
    (tmp_path / "real/clip_jpg/00001").symlink_to(tmp_path / "real/archive/00001")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    samples = read_dfew(tmp_path / "link", "train")
    assert [sample.path.parent for sample in samples] == [tmp_path / "link/clip_jpg"] * 2
    with pytest.raises(ValueError, match="links must be 'inside' or 'follow', got 'yes'"):
        read_dfew(tmp_path / "link", "train", links="yes")
    with pytest.raises(FileNotFoundError, match="nothing: no such folder; name the folder"):
        read_dfew(tmp_path / "nothing", "train")


# -------------------------------------------------------------------------------- what all share


def test_collected_errors_name_every_bad_row_and_keep_the_good_ones(dfew):
    text = "video_name,label\n02522,5\n00001\n../x,1\n00001,9\n02522,0\n99999,2\n16372,0\n"
    write(dfew / "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv", text)
    errors: list[RowError] = []
    samples = read_dfew(dfew, "train", fold=2, frames="clip_jpg_256", errors=errors)
    assert facts(samples) == [("02522", 5, None), ("16372", 0, None)]
    assert [error.kind for error in errors] == ["row", "name", "label", "duplicate", "missing"]
    assert all(f"train_set_2.csv:{line}:" in str(error) for line, error in zip(range(3, 8), errors))
    with pytest.raises(RowError, match=r"train_set_2\.csv:3"):
        read_dfew(dfew, "train", fold=2, frames="clip_jpg_256")


def test_collected_errors_leave_no_sample_with_a_label_that_was_counted_wrongly(dfew):
    listing = dfew / "EmoLabel_DataSplit/train(single-labeled)/train_set_2.csv"
    for rows, kept in (("02522,7\n00001,1\n", []), ("02522,7\n00001,0\n", [("00001", 0, None)])):
        write(listing, f"video_name,label\n{rows}")
        errors: list[RowError] = []
        assert facts(read_dfew(dfew, "train", fold=2, frames="clip_jpg_256", errors=errors)) == kept
        assert [error.kind for error in errors] == ["label"]


def test_read_dataset_refuses_what_a_reader_does_not_take(table):
    with pytest.raises(ValueError, match=r"no reader is called 'fer2013'; there are dfew, ferv39k, mafw"):
        read_dataset(table, "fer2013", "train")
    with pytest.raises(ValueError, match=r"the reader 'ferv39k' has no fold; it takes frames, schema"):
        read_dataset(table, "ferv39k", "train", fold=2)
    with pytest.raises(ValueError, match=r"the reader 'dfew' has no frame; it takes fold, frames"):
        read_dataset(table, "dfew", "train", frame="clip_jpg")
    for name in sorted(set(READERS) - {"table", "folders"}):
        with pytest.raises((ValueError, FileNotFoundError)):
            read_dataset(table, name, "all")


def test_long_lists_are_read_piece_by_piece(tmp_path, monkeypatch):
    path = write(tmp_path / "list.txt", "".join(f"folder/{number:07d}.png {number % 7}\n" for number in range(20000)))
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("the whole list was read at once"))
    rows = word_rows(path)
    assert next(rows) == (1, "folder/0000000.png", "0", None, None)
    assert sum(1 for _ in rows) == 19999


def test_an_encoding_that_is_cut_at_a_piece_boundary_is_still_found(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "CHUNK", 5)
    for text, encoding in (("00025.mp4 anger 一个男人", "gb18030"), ("00025.mp4 anger 一个男人", "utf-8")):
        found = encoding_of(write(tmp_path / encoding, text, encoding), ("gb18030",))
        assert (tmp_path / encoding).read_text(found) == text
