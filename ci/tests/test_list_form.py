"""Lists as people have them: said in one form, by every route; what the doctor prints is what a training reads."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from s4d_lib.datasets.doctor.diagnosis import diagnose
from s4d_lib.datasets.doctor.findings import print_report
from s4d_lib.datasets.folders import LAYOUTS
from s4d_lib.datasets.labels import SCHEMAS, ReaderNote
from s4d_lib.datasets.list_form import ListForm
from s4d_lib.datasets.own_data import data_settings, pretraining_settings
from s4d_lib.datasets.readers import READERS, options_of, read_dataset
from s4d_lib.frames.writer import write_mp4
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.data import groups_of, pretraining_samples, read_samples, split_data, validates_on_list

pytestmark = pytest.mark.slow  # together a minute: left out between two edits


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (value % 256, 90, 40)).save(path)


def clip(path: Path, frames: int = 3, name: str = "{n:05d}.jpg") -> None:
    for n in range(1, frames + 1):
        picture(path / name.format(n=n, id=path.name), n)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    write_mp4(path, np.zeros((3, 32, 32, 3), np.uint8), 25)
    return path.read_bytes()


# ------------------------------------------------------------------------------- every layout, as it lies on a disk
# name → what makes it in an empty folder; gives what the doctor has to be told

COUNT = 28  # samples of each part: four of each of seven classes


def parts(folds: int = 1):
    """(split, numbers) of one fold."""
    return (("train", range(COUNT)), ("test", range(COUNT, 2 * COUNT)))


def dfew(root: Path, base: int = 1) -> dict:
    for number in range(2 * COUNT):
        clip(root / "clip_jpg_256" / f"{number:05d}")
    for fold in range(1, 6):
        for split, numbers in parts():
            rows = "".join(f"{n:05d},{n % 7 + base}\n" for n in numbers)
            write(root / f"EmoLabel_DataSplit/{split}(single-labeled)/{split}_set_{fold}.csv",
                  f"video_name,label\n{rows}")
    return {}


def dfew_of_its_repository(root: Path) -> dict:
    for number in range(2 * COUNT):
        clip(root / "data" / f"{number:05d}", name="{id}_{n:05d}.jpg")
    for fold in range(1, 6):
        for split, numbers in parts():
            rows = "".join(f"{n},{n % 7 + 1}\n" for n in numbers)
            write(root / f"label/single_{split}set_{fold}.csv", f"video_name,label\n{rows}")
    return {}


def peers(root: Path, prefix: str = "/data/of/others/DFEW/Frames/", name: str = "annotation/DFEW_set_1_{split}.txt",
          frames: str = " 3", base: int = 1) -> dict:
    for number in range(2 * COUNT):
        clip(root / "Frames" / f"{number:05d}")
    for split, numbers in parts():
        write(root / name.format(split=split), "".join(f"{prefix}{n:05d}{frames} {n % 7 + base}\n" for n in numbers))
    return {"strip": prefix, "folds": 1}


def videomae(root: Path) -> dict:
    return peers(root, "../DFEW/", "{split}.csv", "", 0) | {"listing": "{split}.csv"}


def ferv39k(root: Path) -> dict:
    words = SCHEMAS["ferv39k"].classes
    for split, numbers in parts():
        rows = "path,id\n"
        for n in numbers:
            clip(root / f"2_ClipsforFaceCrop/Crime/{words[n % 7]}/{n:04d}")
            rows += f"Crime/{words[n % 7]}/{n:04d},{n % 7}\n"
        write(root / f"Annotation/{split}.csv", rows)
    return {}


def mafw(root: Path, kind: str = "single") -> dict:
    words = SCHEMAS["mafw" if kind == "single" else "mafw_compound"].classes
    for number in range(2 * COUNT):
        clip(root / "frames" / f"{number:05d}", name="{n:05d}.png")
    for fold in range(1, 6):
        for split, numbers in parts():
            write(root / f"split/{kind}/no_caption/set_{fold}/{split}.txt",
                  "".join(f"{n:05d}.mp4 {words[n % 4]}\n" for n in numbers))
    return {}


def affectnet(root: Path, classes: int = 7) -> dict:
    for split, numbers in parts():
        for n in numbers:
            picture(root / f"Manually_Annotated_Images/{n % 3}/{n}.jpg", n)
        write(root / f"{split}_affectnet{classes}.txt", "".join(f"{n % 3}/{n}.jpg {n % classes}\n" for n in numbers))
    return {}


def affectnet_csv(root: Path) -> dict:
    for split, numbers in (("training", range(33)), ("validation", range(33, 66))):
        rows = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence\n"
        for n in numbers:
            picture(root / f"Manually_Annotated_Images/{n % 3}/{n}.jpg", n)
            rows += f"{n % 3}/{n}.jpg,0,0,9,9,1;2;3,{n % 11},0.1\n"
        write(root / f"{split}.csv", rows)
    return {}


def affectnet_arrays(root: Path) -> dict:
    for split, numbers in (("train_set", range(32)), ("val_set", range(32, 64))):
        for n in numbers:
            picture(root / split / "images" / f"{n}.png", n)
            (root / split / "annotations").mkdir(exist_ok=True)
            np.save(root / split / "annotations" / f"{n}_exp.npy", str(n % 8))
            np.save(root / split / "annotations" / f"{n}_lnd.npy", np.zeros(136))
    return {}


def affectnet_two_arrays(root: Path) -> dict:
    affectnet(root)
    for split, numbers in parts():
        np.save(root / f"{split}_paths.npy", np.array([f"/dev/shm/{n % 3}/{n}.jpg" for n in numbers]))
        np.save(root / f"{split}_labels.npy", np.array([n % 7 for n in numbers]))
    return {"listing": "{split}_paths.npy", "labels": "{split}_labels.npy", "strip": "/dev/shm/"}


def rafdb(root: Path) -> dict:
    rows = ""
    for split, numbers in parts():
        for n in numbers:
            picture(root / f"Image/aligned/{split}_{n:05d}_aligned.jpg", n)
            rows += f"{split}_{n:05d}.jpg\t{n % 7 + 1}\n"
    write(root / "EmoLabel/list_patition_label.txt", rows)
    return {}


def rafdb_folders(root: Path) -> dict:
    for split in ("train", "valid", "test"):
        for n in range(COUNT):
            picture(root / split / str(n % 7 + 1) / f"{split}_{n:05d}_aligned.jpg", n)
    return {}


def rafdb_csv(root: Path) -> dict:
    rafdb_folders(root)
    for split in ("train", "test"):
        write(root / f"{split}_labels.csv", "image;label\n" + "".join(
            f"{split}_{n:05d}_aligned.jpg;{n % 7 + 1}\n" for n in range(COUNT)))
    return {"listing": "{split}_labels.csv", "columns": {"path": "image"}}


def ferplus(root: Path) -> dict:
    words = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
    rows = "Usage,Image name," + ",".join(words) + "\n"
    for usage, part in (("Training", "FER2013Train"), ("PublicTest", "FER2013Valid"), ("PrivateTest", "FER2013Test")):
        for n in range(COUNT):
            picture(root / part / f"fer{n:07d}.png", n)
            rows += f"{usage},fer{n:07d}.png," + ",".join("10" if i == n % 7 else "0" for i in range(10)) + "\n"
    write(root / "fer2013new.csv", rows)
    return {}


def class_folders(root: Path, schema: str = "caer") -> dict:
    for split in ("train", "test"):
        for n in range(COUNT):
            clip(root / split / SCHEMAS[schema].classes[n % 7] / f"{n:04d}")
    return {}


def sfew(root: Path) -> dict:
    for split in ("Train", "Val"):
        for n in range(COUNT):
            picture(root / f"{split}_Aligned_Faces/{SCHEMAS['sfew2'].classes[n % 7]}/{split}{n}.png", n)
    return {"splits": {"test": "Val_Aligned_Faces"}}


def voxceleb2(root: Path, film: bytes) -> dict:
    for n in range(3):
        (root / f"mp4/id0{n}/abc").mkdir(parents=True)
        (root / f"mp4/id0{n}/abc/00001.mp4").write_bytes(film)
    return {}


def crema_d(root: Path, film: bytes) -> dict:
    (root / "VideoFlash").mkdir()
    for n in range(40):
        word = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")[n % 6]
        (root / f"VideoFlash/{1001 + n // 2}_DFA_{word}_XX.flv").write_bytes(film)
    return {}


def ravdess(root: Path, film: bytes) -> dict:
    for n in range(40):
        (root / f"Actor_{n // 4 + 1:02d}").mkdir(exist_ok=True)
        for modality in ("01", "02"):  # the same film with and without its sound
            name = f"{modality}-01-0{n % 8 + 1}-01-01-01-{n // 4 + 1:02d}.mp4"
            (root / f"Actor_{n // 4 + 1:02d}" / name).write_bytes(film)
    (root / "Actor_01/03-01-01-01-01-01-01.wav").write_bytes(b"sound")
    return {}


def table(root: Path, header: str, row, name: str = "labels.csv", comma: str = ",") -> dict:
    rows = [header.replace(",", comma)]
    for n in range(2 * COUNT):
        clip(root / "clips" / f"{n:05d}")
        rows.append(comma.join(map(str, row(n))))
    write(root / name, "\n".join(rows) + "\n")
    return {"schema": "dfew"}


def table_folds(root: Path, folds: int = 5, first: int = 1) -> dict:
    return table(root, "path,label,fold,subject", lambda n: (f"clips/{n:05d}", n % 7, n % folds + first, n % folds))


def table_splits(root: Path) -> dict:
    return table(root, "path,label,split", lambda n: (f"clips/{n:05d}", n % 7, ("train", "testing", "valid")[n % 3]))


def table_tsv(root: Path) -> dict:
    return table(root, "video,emotion,fold", lambda n: (f"clips/{n:05d}", n % 7, n % 3 + 1), "labels.tsv", "\t") | {
        "columns": {"path": "video", "label": "emotion"}}


def own_classes(root: Path) -> dict:
    table(root, "path,label,split", lambda n: (f"clips/{n:05d}", ("pain", "no_pain")[n % 2],
                                               "test" if n % 4 > 1 else "train"))
    return {"classes": ["pain", "no_pain"]}


WAYS = [  # (layout, how it lies on the disk, how many of the training and of the test it holds)
    ("dfew", dfew, (28, 28)), ("dfew", dfew_of_its_repository, (28, 28)), ("dfew", peers, (28, 28)),
    ("dfew", videomae, (28, 28)), ("ferv39k", ferv39k, (28, 28)), ("mafw", mafw, (28, 28)),
    ("mafw_compound", lambda root: mafw(root, "compound"), (28, 28)), ("affectnet7", affectnet, (28, 28)),
    ("affectnet8", lambda root: affectnet(root, 8), (28, 28)), ("affectnet8", affectnet_csv, (24, 24)),
    ("affectnet7", affectnet_csv, (21, 21)), ("affectnet8", affectnet_arrays, (32, 32)),
    ("affectnet7", affectnet_two_arrays, (28, 28)), ("rafdb", rafdb, (28, 28)), ("rafdb", rafdb_folders, (28, 28)),
    ("rafdb", rafdb_csv, (28, 28)), ("ferplus", ferplus, (28, 28)), ("caer", class_folders, (28, 28)),
    ("sfew2", sfew, (28, 28)), ("voxceleb2", voxceleb2, (3, None)), ("crema_d", crema_d, (32, 8)),
    ("ravdess", ravdess, (32, 8)), ("folders", lambda root: rafdb_folders(root) | {"schema": "rafdb", "base": 1},
                                    (28, 28)),
    ("table", table_folds, (44, 12)), ("table", table_splits, (19, 19)), ("table", table_tsv, (37, 19)),
    ("table", own_classes, (28, 28)),
    ("table", lambda root: videomae(root) | {"strip": "../DFEW/", "folds": None, "frames": "Frames", "schema": "dfew"},
     (28, 28)),
]


def made(root: Path, make, film: bytes) -> dict:
    asks = make.__code__.co_varnames[: make.__code__.co_argcount]
    return make(root, film) if "film" in asks else make(root)


def printed(diagnosis) -> tuple[str, dict]:
    """The two lines that the doctor prints: the call that reads, the settings that train."""
    out = io.StringIO()
    print_report(diagnosis, out)
    lines = dict(line.split(": ", 1) for line in out.getvalue().splitlines() if line.startswith("to "))
    return lines["to read it"], yaml.safe_load(lines["to train on it, in the file of `s4d train`"])


def test_every_layout_is_among_the_ways():
    assert {name for name, _, _ in WAYS} == set(LAYOUTS) == set(READERS) - {"packed"}


@pytest.mark.parametrize("name, make, counts", WAYS, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(WAYS)])
def test_the_line_that_the_doctor_prints_reads_and_trains(tmp_path, film, name, make, counts):
    told = made(tmp_path, make, film)
    found = diagnose(tmp_path, name, **{word: value for word, value in told.items() if value is not None})
    errors = [str(one) for one in found.findings if one.level == "error"]
    assert not errors and found.frames.found == found.frames.listed
    call, settings = printed(found)
    here = {split: eval(call, {"read_dataset": read_dataset, "split": split, "fold": 1})
            for split in ("train", "test")[: 1 + (counts[1] is not None)]}
    if settings["stage"] == "pretrain":
        samples, _ = pretraining_samples(PretrainConfig(**settings))
        assert len(samples["clip"]) == counts[0] == len(here["train"])
        return
    config = FinetuneConfig(**settings)
    split = split_data(config)
    (count,) = split.counts.values()
    cut = 0 if validates_on_list(config, config.primary) else count["validation"]
    assert (count["train"] + cut, count["test"]) == counts
    assert len({sample.label for sample in split.test[config.primary]}) > 1
    assert [len(here[part]) for part in ("train", "test")] == list(counts)


def test_control_without_what_is_printed_the_line_reads_nothing(tmp_path):
    """The words of the line carry the reading: without them the same data set is not read at all."""
    found = diagnose(tmp_path, "dfew", **peers(tmp_path))
    _, settings = printed(found)
    for lacking in ("clips_lists", "frames"):
        config = FinetuneConfig(**{key: value for key, value in settings.items() if key != lacking})
        with pytest.raises((ValueError, FileNotFoundError)):
            read_samples(config, "clip", "train")


# ------------------------------------------------------------------------------- folds


@pytest.mark.parametrize("folds, first", [(5, 1), (10, 1), (4, 0)])
def test_every_fold_of_a_table_is_another_split_for_every_route(tmp_path, folds, first):
    """The oracle deals the rows out by hand; doctor, training, chapters and the reader must all agree with it."""
    table_folds(tmp_path, folds, first)
    found = diagnose(tmp_path, "table", schema="dfew")
    for fold in range(first, first + folds):
        right = {f"clips/{n:05d}" for n in range(2 * COUNT) if n % folds + first == fold}
        settings = data_settings("smoke", "table", str(tmp_path), fold, lists={"base": 0})["clip"]
        config = FinetuneConfig(name="x", mode="dfer", **settings | {"clips_schema": "dfew", "frames": "clip_jpg"})
        test, train = ({s.id for s in read_samples(config, "clip", split)} for split in ("test", "train"))
        assert test == right and not train & test and len(train | test) == 2 * COUNT
        assert right == {s.id for s in read_dataset(tmp_path, "table", "test", fold, schema="dfew")}
        assert [one.rows for one in found.lists if (one.split, one.fold) == ("test", fold)] == [len(right)]
    assert {one.fold for one in found.lists} == set(range(first, first + folds))


def test_a_fold_is_never_ignored(tmp_path, film):
    table_splits(tmp_path / "splits")
    table_folds(tmp_path / "folds")
    (tmp_path / "crema_d").mkdir()
    crema_d(tmp_path / "crema_d", film)
    config = {"name": "x", "mode": "dfer", "clips_schema": "dfew"}
    for folder, layout, fold, words in (
            ("splits", "table", 2, "has no folds"), ("folds", "table", 6, "has the folds 1, 2"),
            ("crema_d", "crema_d", 6, "has the folds 1, 2")):
        asked = config | {"clips": str(tmp_path / folder), "clips_as": layout, "fold": fold}
        asked |= {"clips_schema": None} if layout == "crema_d" else {}
        with pytest.raises(ValueError, match=f"fold={fold}.*{words}"):
            read_samples(FinetuneConfig(**asked), "clip", "test")
    with pytest.raises(ValueError, match="fold=6: table has folds 1 to 5"):
        data_settings("smoke", "table", str(tmp_path / "folds"), 6)
    with pytest.raises(ValueError, match=r"no row is of fold 6; its folds are 1, 2, 3, 4, 5"):
        read_dataset(tmp_path / "folds", "table", "test", 6, schema="dfew")
    more = FinetuneConfig(name="x", mode="dfer", clips=str(tmp_path / "crema_d"), clips_as="crema_d", fold=6,
                          clips_lists={"folds": 10})
    assert {s.group for s in read_samples(more, "clip", "test")} == {"1006", "1016"}


def test_people_are_dealt_out_so_that_nobody_is_trained_and_tested_on(tmp_path, film):
    ravdess(tmp_path, film)
    tested = []
    for fold in range(1, 6):
        train, test = (read_dataset(tmp_path, "ravdess", split, fold) for split in ("train", "test"))
        assert not {s.group for s in train} & {s.group for s in test}
        assert all(Path(s.id).name.startswith("01-") for s in train + test), "the film with its sound, once"
        tested += [s.id for s in test]
        labels = {Path(s.id).name[6:8]: SCHEMAS["ravdess"].classes[s.label] for s in train + test}
        assert labels["02"] == "Calm" and labels["06"] == "Fear" and labels["08"] == "Surprise"
    assert len(tested) == len(set(tested)) == 40


# ------------------------------------------------------------------------------- what is said, and what has no use


def test_a_word_that_the_reader_does_not_use_is_refused_by_every_route(tmp_path):
    class_folders(tmp_path)
    table = {"listing": "x.csv"}
    for route in (
        lambda: diagnose(tmp_path, "caer", **table), lambda: read_dataset(tmp_path, "caer", "train", **table),
        lambda: FinetuneConfig(name="x", mode="dfer", clips=str(tmp_path), clips_as="caer", clips_lists=table),
        lambda: data_settings("smoke", "caer", str(tmp_path), lists=table),
        lambda: pretraining_settings("smoke", "caer", str(tmp_path), lists=table),
    ):
        with pytest.raises(ValueError, match="listing"):
            route()
    for name in READERS:
        assert set(options_of(name)) & {"listing", "base", "folds"} <= set(
            ListForm().__dataclass_fields__), "one name for one thing"


@pytest.mark.parametrize("words, message", [
    ({"base": 2}, "base must be 0, 1 or None"), ({"base": True}, "base must be"), ({"folds": 0}, "folds must be"),
    ({"columns": "path"}, "said as path=NAME"), ({"columns": {"picture": "a"}}, "there is no picture"),
    ({"splits": {"dev": "x"}}, "there is no dev"), ({"classes": "pain"}, "at least two different"),
    ({"classes": ["a", "A"]}, "at least two different"), ({"classes": "a,1"}, "must be words, not '1'"),
    ({"lists": 1}, "lists cannot be said; there are listing"), ({"columns": {"path": ""}}, "is said to be nothing"),
    ({"strip": 3}, "strip must be text"), ("labels.csv", "how lists are written is said in"),
    ({"columns": 7}, "columns must say NAME"),
])
def test_a_form_that_cannot_be_meant_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        ListForm.of(words)
    with pytest.raises(ValueError, match=message):
        FinetuneConfig(name="x", mode="dfer", clips_as="table", clips_lists=words)


def test_a_form_is_the_same_in_text_in_a_file_and_as_it_is_said_again():
    text = ListForm(columns="path=image,label=2", splits="test=valid", classes="pain, no_pain", strip="/a")
    plain = ListForm.of({"columns": {"path": "image", "label": 2}, "splits": {"test": "valid"},
                         "classes": ["pain", "no_pain"], "strip": "/a"})
    assert text == plain == ListForm.of(json.loads(json.dumps(plain.said()))) and hash(text) == hash(plain)
    config = FinetuneConfig(name="x", mode="dfer", clips_as="table", clips_lists=plain)
    assert FinetuneConfig(**config.model_dump(mode="json")) == config
    assert config.schema("clip").classes == ("pain", "no_pain")


def test_what_is_said_twice_is_refused(tmp_path):
    for more in ({"label_base": 0, "clips_lists": {"base": 1}},
                 {"clips_schema": "dfew", "clips_lists": {"classes": ["a", "b"]}}):
        with pytest.raises(ValueError, match="say one of the two"):
            FinetuneConfig(name="x", mode="dfer", clips_as="table", **more)
    with pytest.raises(ValueError, match="say one of the two"):
        read_dataset(tmp_path, "table", "train", schema="dfew", classes=["a", "b"])


def test_the_marks_of_runs_before_lists_could_be_said_stay():
    from s4d_lib.training.later import later_fields

    assert {"clips_lists", "stills_lists", "stills_frames"} <= later_fields(FinetuneConfig)


# ------------------------------------------------------------------------------- rows as people write them


def test_frames_that_are_not_as_listed_are_said(tmp_path):
    told = peers(tmp_path)
    (tmp_path / "Frames/00003/00002.jpg").unlink()
    with pytest.warns(ReaderNote, match=r"1 clips have another number of frames .*00003: 3 listed, 2 there"):
        read_dataset(tmp_path, "dfew", "train", frames="Frames", strip=told["strip"], base=1)
    found = {one.kind: one.examples for one in diagnose(tmp_path, "dfew", **told).findings}
    assert found["frames not as listed"] == ("00003 (3 listed, 2 there)",)


def test_names_of_another_machine_are_answered_with_what_to_take_off(tmp_path):
    told = peers(tmp_path)
    found = diagnose(tmp_path, "dfew")
    outside = next(one for one in found.findings if one.kind == "name outside the folder")
    assert f"--strip {told['strip']}" in outside.remedy
    assert {one.published for one in found.lists} == {"not read"}, "no count of a list that was not read"
    assert not any("no rows" in str(one) for one in found.findings)
    with pytest.raises(ValueError, match=r"does not begin with strip='/elsewhere/'"):
        read_dataset(tmp_path, "dfew", "train", frames="Frames", strip="/elsewhere/")


@pytest.mark.parametrize("rows, columns, right", [
    ("train_1.jpg 5 1\ntrain_2.jpg 7 2\ntest_1.jpg 1 1\n", None, "two fields follow the name"),
    ("train_1.jpg 5 1\ntrain_2.jpg 7 2\ntest_1.jpg 1 1\n", "path=1,label=2", [4, 6]),
    ("train_1.jpg,5,1\ntrain_2.jpg,7,2\ntest_1.jpg,1,2\n", "path=1,label=2", [4, 6]),
    ("train_1.jpg\t5\r\ntrain_2.jpg\t7\r\ntest_1.jpg\t1\r\n\r\n", None, [4, 6]),
    ("train_1.jpg   5  \ntrain_2.jpg  7\ntest_1.jpg 1\n\n\n", None, [4, 6]),
])
def test_a_third_column_tabs_and_blanks(tmp_path, rows, columns, right):
    for name in ("train_1", "train_2", "test_1"):
        picture(tmp_path / f"Image/aligned/{name}_aligned.jpg")
    write(tmp_path / "EmoLabel/list_patition_label.txt", rows)
    words = {"columns": columns} if columns else {}
    if isinstance(right, str):
        with pytest.raises(ValueError, match=right):
            read_dataset(tmp_path, "rafdb", "train", **words)
    else:
        assert [s.label for s in read_dataset(tmp_path, "rafdb", "train", **words)] == right


def test_ids_that_kept_their_ending_and_groups_with_blank_lines(tmp_path):
    for number in (1, 2):
        clip(tmp_path / "clip_jpg" / f"{number:05d}")
    write(tmp_path / "annotation/train(single-labeled)/train_set_1.csv", "video_name,label\n00001.mp4,0\n2.mp4,1\n")
    write(tmp_path / "groups.csv", "video_name,group\n00001.mp4,Ada\n\n2.mp4,Bo\n\n")
    config = FinetuneConfig(name="x", mode="dfer", clips=str(tmp_path))
    assert [(s.id, s.group) for s in read_samples(config, "clip", "train")] == [("00001", "Ada"), ("2", "Bo")]
    for text, words in (("video_name,group\n00001\n", r"groups\.csv:2: expected video_name,group"),
                        ("video_name,group\n00001,\n", r"groups\.csv:2: expected an id and its group"),
                        ("video_name\n00001\n", r"groups\.csv:1: expected two columns"),
                        ("a,b\n1,x\n1,y\n", r"groups\.csv:3: '1' has group 'y' here and 'x' above")):
        write(tmp_path / "groups.csv", text)
        with pytest.raises(ValueError, match=words):
            groups_of(tmp_path)


def test_quoted_text_is_never_altered(tmp_path, monkeypatch):
    """A folder's own name stands in a row: the message quotes the row as it is."""
    monkeypatch.chdir(tmp_path)
    write(Path("D/labels.csv"), "path,label\n../D/secret/2,0\n")
    found = diagnose("D", "table", schema="dfew")
    (outside,) = [one for one in found.findings if one.kind == "name outside the folder"]
    assert "'../D/secret/2'" in outside.examples[0] and outside.examples[0].startswith("labels.csv:2")


def test_rows_of_no_split_and_lists_without_rows_are_told_apart(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "labels.csv", "path,label,split\na.png,0,train\n")
    with pytest.raises(ValueError, match="none of its 1 rows is of split 'test'; there are train"):
        read_dataset(tmp_path, "table", "test", schema="dfew")
    write(tmp_path / "labels.csv", "path,label,split\n")
    with pytest.raises(ValueError, match="the list has no rows"):
        read_dataset(tmp_path, "table", "test", schema="dfew")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 60, b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n",
                                     b"\x93NUMPY\x01\x00v\x00" + b"'''" + b" " * 115, b"", b"\x80\x04."])
def test_arrays_that_are_none_are_named(tmp_path, content):
    affectnet_two_arrays(tmp_path)
    (tmp_path / "train_paths.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"train_paths\.npy: "):
        read_dataset(tmp_path, "affectnet7", "train", listing="{split}_paths.npy", labels="{split}_labels.npy")


@pytest.mark.parametrize("cell", ["1" * 5000, "x" * 140_000])
def test_a_cell_of_any_length_is_named_by_file_and_line(tmp_path, cell):
    picture(tmp_path / "a.png")
    for row in (f"{cell},0", f"a.png,{cell}"):
        write(tmp_path / "labels.csv", f"path,label,split\n{row},train\na.png,0,test\n")
        with pytest.raises((ValueError, FileNotFoundError), match=r"labels\.csv") as caught:
            read_dataset(tmp_path, "table", "train", schema="dfew")
        assert len(str(caught.value)) < 1000
        found = diagnose(tmp_path, "table", schema="dfew")
        assert found.exit_code == 2 and any("labels.csv" in str(one) or "missing" in str(one) for one in found.findings)


def test_a_table_may_be_parted_by_semicolons_and_begin_with_a_blank_line(tmp_path):
    picture(tmp_path / "a.png")
    write(tmp_path / "labels.csv", "\npath;label;split\na.png;3;train\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReaderNote)
        assert [s.label for s in read_dataset(tmp_path, "table", "train", schema="dfew")] == [3]


# ------------------------------------------------------------------------------- the commands


@pytest.mark.trains
def test_what_the_doctor_prints_trains_on_classes_of_ones_own(tmp_path, s4d, monkeypatch):
    """Doctor, training, model: the classes that were said are those that the model answers with."""
    from s4d_lib.checkpoints.cards import open_model

    monkeypatch.setenv("S4D_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    own_classes(tmp_path / "data")
    code, said, _ = s4d("doctor", "data", "--as", "table", "--classes", "pain,no_pain")
    assert code == 0 and said.rstrip().endswith("fine")
    line = next(line for line in said.splitlines() if line.startswith("to train on it")).split(": ", 1)[1]
    settings = json.loads(line) | {"size": "nano", "epochs": 1, "warmup_epochs": 0, "batch_clips": 8, "stride": 1,
                                   "mixup": 0, "cutmix": 0, "device": "cpu"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    code, said, error = s4d("train", "config.yaml")
    assert code == 0, error
    weights = Path(said.split(":")[0]) / "model.safetensors"
    assert open_model(weights).card.classes == {"video": ("pain", "no_pain")}
    code, said, error = s4d("train", "config.yaml", "--listing", "gone.csv")
    assert code == 2 and "gone.csv" in error


@pytest.mark.parametrize("words, message", [
    (("--of", "clips"), "say what is to be said"), (("--base", "1"), "say with --of which"),
    (("--of", "films", "--base", "1"), "--of must be clips or stills"), (("--columns", "path"), "said as path=NAME"),
    (("--of", "clips", "--labels", "x.npy"), "no use for labels='x.npy'"),
])
def test_words_on_lists_at_the_command_line_of_train(tmp_path, s4d, words, message):
    (tmp_path / "both.yaml").write_text("{stage: finetune, mode: joint, name: x, clips: a, stills: b}")
    code, _, error = s4d("train", tmp_path / "both.yaml", *words)
    assert code == 2 and message in error.replace("\n", " ")


def test_pack_takes_the_same_words(tmp_path, s4d):
    table_tsv(tmp_path / "data")
    words = ("--as", "table", "--schema", "dfew", "--columns", "path=video,label=emotion", "--base", 0)
    code, said, error = s4d("pack", tmp_path / "data", tmp_path / "out", *words)
    assert code == 0 and "56 samples" in said, error
    for fold in (1, 2, 3):
        here, packed = ([(s.id, s.label) for s in read_dataset(*what, "test", fold, **more)] for what, more in (
            ((tmp_path / "data", "table"), {"schema": "dfew", "columns": {"path": "video", "label": "emotion"}}),
            ((tmp_path / "out", "packed"), {})))
        assert here == packed


@pytest.mark.parametrize("words, message", [
    (("few_labels", "--listing", "x.csv"), "say with --dataset"), (("few_labels", "--fold", "2"), "say with --dataset"),
    (("transfer_screening", "--dataset", "table", "--data-root", "d"), "is about drawn faces"),
    (("few_labels", "--dataset", "table", "--data-root", "data"), "say with --out"),
    (("few_labels", "--dataset", "table", "--data-root", "data", "--out", "o", "--fold", "9", "--columns",
      "path=video"), "has folds 1 to 3"),
    (("few_labels", "--dataset", "caer", "--data-root", "data", "--out", "o", "--listing", "x"), "has no use for"),
])
def test_a_study_takes_clips_of_ones_own_or_says_why_not(tmp_path, s4d, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    table_tsv(tmp_path / "data")
    code, _, error = s4d("study", *words)
    assert code == 2 and message in error.replace("\n", " "), error


def test_a_study_on_clips_of_ones_own_fine_tunes_on_them(tmp_path, monkeypatch):
    from s4d_lib.training import tiers

    monkeypatch.setattr(tiers, "prepare_data", lambda *_: tmp_path / "drawn")
    table_tsv(tmp_path / "data")
    settings = data_settings("smoke", "table", str(tmp_path / "data"), 2, lists={"columns": {"path": "video"}})["clip"]
    with tiers.on_own_clips(settings):
        inside, stills = tiers.finetuning("smoke", "joint"), tiers.finetuning("smoke", "sfer")
    outside = tiers.finetuning("smoke", "joint")
    assert (inside.clips, inside.clips_as, inside.fold) == (str(tmp_path / "data"), "table", 2)
    assert inside.stills == stills.stills == str(tmp_path / "drawn/stills") and outside.clips_as == "dfew"


def test_a_split_that_is_not_there_is_never_called_fine(tmp_path):
    """Training needs both: a folder of one that is called otherwise is named, and the word that reads it works."""
    for split in ("training", "dev"):
        for n in range(COUNT):
            picture(tmp_path / split / ("pain", "no pain")[n % 2] / f"{split}{n}.png", n)
    found = diagnose(tmp_path, "folders", classes="pain,no pain")
    assert found.exit_code == 1 and "--splits test=dev" in str(found.findings[0])
    mended = diagnose(tmp_path, "folders", classes="pain,no pain", splits="test=dev")
    assert mended.exit_code == 0
    split = split_data(FinetuneConfig(**printed(mended)[1]))
    assert split.counts["image"]["test"] == COUNT and {s.label for s in split.test["image"]} == {0, 1}


def test_names_with_a_folder_that_is_not_here_are_answered_with_what_to_take_off(tmp_path):
    peers(tmp_path, "DFEW/Frames/")
    found = {one.kind: one for one in diagnose(tmp_path, "dfew", folds=1).findings}
    assert "--strip DFEW/Frames/" in found["missing"].remedy
    assert "missing" not in {one.kind for one in diagnose(tmp_path, "dfew", folds=1, strip="DFEW/Frames/").findings}


@pytest.mark.parametrize("file, change, words", [
    ("manifest.json", lambda text: "[" * 100_000, "manifest.json: not a manifest"),
    ("manifest.json", lambda text: text.replace('"lossless"', '"lossles"'), "a part lacks lossless"),
    ("shard-000000.index.json", lambda text: "[" * 100_000, r"index\.json"),
    ("shard-000000.index.json", lambda text: text.replace('"members": [["train"', '"member": [["train"'),
     "lacks members"),
    ("shard-000000.index.json", lambda text: text.replace('"sample"', '"samples"'), "not a readable index"),
])
def test_a_packed_list_that_was_damaged_is_named(tmp_path, file, change, words):
    from s4d_lib.datasets.pack.writer import pack

    table_splits(tmp_path / "data")
    pack(tmp_path / "data", tmp_path / "out", "table", schema="dfew")
    path = tmp_path / "out" / file
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(ValueError, match=words):
        read_dataset(tmp_path / "out", "packed", "train")


def test_the_first_cells_of_chapter_07_read_lists_as_they_are_said(tmp_path, monkeypatch, capsys):
    from s4d_lib.batch.chapters import chapter_parameters, code_cells
    from s4d_lib.training import tiers

    table_tsv(tmp_path)
    monkeypatch.setattr(tiers, "prepare_data", lambda *_: pytest.fail("faces were about to be drawn"))
    chapter = Path(__file__).resolve().parents[2] / "chapters" / "07_single_task_baselines.md"
    cells = code_cells(chapter.read_text())
    given = {"dataset": "table", "data_root": str(tmp_path), "fold": 3, "settings": {"clips_schema": "dfew"},
             "lists": {"columns": {"path": "video", "label": "emotion"}, "base": 0}}
    found = chapter_parameters(cells, "07") | given
    exec(cells[1]["source"], found)
    config = found["configs"]["clip"]
    assert config.fold == 3 and config.lists("clip").base == 0
    assert {s.id for s in read_samples(config, "clip", "test")} == {f"clips/{n:05d}" for n in range(2, 2 * COUNT, 3)}
