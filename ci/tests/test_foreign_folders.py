"""Folders that are not ours: the doctor's line trains two steps, its other line runs the first cells of a chapter."""

import io
import shlex
from pathlib import Path

import pytest
import yaml
from foreign_folders import FOREIGN, TEST, TRAIN, Foreign, film, folder, still, text, written

from s4d_lib.batch.chapters import chapter_parameters, code_cells
from s4d_lib.batch.words import read_settings
from s4d_lib.datasets.doctor.diagnosis import Diagnosis, diagnose
from s4d_lib.datasets.doctor.findings import print_report
from s4d_lib.datasets.pack.writer import pack
from s4d_lib.datasets.readers import read_dataset
from s4d_lib.errors import Refused
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.content import data_use
from s4d_lib.training.data import read_samples, split_data
from s4d_lib.training.runs import train

pytestmark = pytest.mark.slow
CHAPTER = Path(__file__).resolve().parents[2] / "chapters/07_single_task_baselines.md"
QUICK = {"size": "nano", "epochs": 2, "warmup_epochs": 0, "batch_clips": 12, "batch_stills": 8, "stride": 1, "mixup": 0,
         "cutmix": 0, "validation": 0.3, "device": "cpu"}
HELD = {"videomae": (14, 7, 14), "own_folds": (26, None, 9), "leave_one_subject_out": (28, None, 7),
        "crema_d": (26, None, 9), "ravdess": (26, None, 9), "affectnet_csv": (16, None, 10)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(name) → where the data folder of that name begins; it is written once."""
    root = tmp_path_factory.mktemp("foreign")

    def make(name: str) -> Path:
        if not (root / name).exists():
            if name == "parquet":
                pytest.importorskip("pyarrow")
            (root / name).mkdir()
            FOREIGN[name].make(root / name)
        return root / name / FOREIGN[name].place

    return make


def looked_at(place: Path, one: Foreign, **more) -> Diagnosis:
    told = {word: int(value) if word == "base" else value for word, value in one.told.items()}
    return diagnose(place, one.layout, **told | more)


def printed(diagnosis: Diagnosis) -> dict[str, str]:
    """The lines of a report that begin with "to": what to do, and how."""
    out = io.StringIO()
    print_report(diagnosis, out)
    return dict(line.split(": ", 1) for line in out.getvalue().splitlines() if line.startswith("to "))


def kinds(diagnosis: Diagnosis) -> dict[str, int]:
    return {one.kind: one.count for one in diagnosis.findings}


@pytest.mark.trains
@pytest.mark.parametrize("name", FOREIGN)
def test_the_line_of_the_doctor_trains(made, tmp_path, name):
    """Doctor, line, training, model: counts as they were written, a head that answers with the classes of the lists."""
    found = looked_at(made(name), FOREIGN[name])
    assert found.frames.found == found.frames.listed and "error" not in {one.level for one in found.findings}
    settings = yaml.safe_load(printed(found)["to train on it, in the file of `s4d train`"])
    config = FinetuneConfig(**settings | QUICK)
    run = train(config, tmp_path)
    learned, chosen_on, tested = HELD.get(name, (len(TRAIN), None, len(TEST)))
    (data,) = run.record.data
    assert data.counts["test"] == tested and data.counts["train"] + data.counts["validation"] == learned + (
        chosen_on or 0)
    assert chosen_on in (None, data.counts["validation"]) and run.record.results["updates"] >= 2
    classes = config.schema(config.primary).classes
    assert run.model().num_classes == len(classes)
    labels = {s.label for s in read_samples(config, config.primary, "train")}
    assert labels <= set(range(len(classes))) and len(labels) > 2


@pytest.mark.parametrize("name", [name for name in FOREIGN])
def test_the_other_line_runs_the_first_cells_of_a_chapter(made, name, monkeypatch, capsys):
    """What chapter 07 is told is what the training is told: same settings, same samples."""
    from s4d_lib.training import tiers

    monkeypatch.setattr(tiers, "prepare_data", lambda *_: Path("drawn"))
    found = looked_at(made(name), FOREIGN[name])
    command = shlex.split(printed(found)["to run a chapter on it"])
    assert command[:3] == ["s4d", "book", "07"] and set(command[3::2]) == {"-p"}
    cells = code_cells(CHAPTER.read_text())
    given = chapter_parameters(cells, "07") | read_settings(command[4::2])
    monkeypatch.setattr("s4d_lib.training.data_use", lambda config, m: type("Use", (), {"name": m}))
    exec(cells[1]["source"], given)
    part = "image" if "still_dataset=" in "".join(command) else "clip"
    trained = FinetuneConfig(**found.training)
    for split in ("train", "test"):
        assert read_samples(given["configs"][part], part, split) == read_samples(trained, part, split)


# ------------------------------------------------------------------------------- a validation split of one's own


def three_lists(root: Path, validation: str = "val", tested=TEST) -> dict:
    """Lists of films in VideoMAE's form; `tested` are the numbers of the validation list."""
    FOREIGN["videomae"].make(root)
    (root / "val.csv").unlink()
    text(root / f"{validation}.csv", [f"/scratch/others/clips/{n:03d}.mp4 {n % 7}" for n in tested])
    return {"listing": "{split}.csv", "strip": "/scratch/others/", "schema": "dfew", "base": 0}


def of_folders(root: Path, called: str) -> None:
    for split, numbers in (("train", TRAIN[:14]), (called, TRAIN[14:]), ("test", TEST)):
        for n in numbers:
            still(root / split / ("No", "Yes")[n % 2] / f"{n}.png", n)


def of_column(root: Path, called: str) -> None:
    rows = [("path", "label", "split")]
    for n in (*TRAIN, *TEST):
        folder(root / f"k{n}", n)
        rows.append((f"k{n}", ("No", "Yes")[n % 2], called if n in TRAIN[14:] else "train" if n in TRAIN else "test"))
    (root / "labels.csv").write_text(written(rows))


def of_dfew(root: Path, called: str) -> None:
    for split, numbers in (("train", TRAIN[:14]), (called, TRAIN[14:]), ("test", TEST)):
        for n in numbers:
            folder(root / f"clip_jpg/{n:05d}", n)
        text(root / f"lists/{split}.txt", [f"{n:05d} {n % 7}" for n in numbers])


@pytest.mark.parametrize("called", ["val", "valid", "validation", "dev"])
@pytest.mark.parametrize("make, layout, told", [
    (of_folders, "folders", {"classes": "No,Yes"}), (of_column, "table", {"classes": "No,Yes"}),
    (of_dfew, "dfew", {"listing": "lists/{split}.txt"}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_listed_validation_split_is_what_a_training_chooses_on(tmp_path, make, layout, told, called, capsys):
    make(tmp_path, called)
    found = diagnose(tmp_path, layout, **told)
    assert [one.split for one in found.lists] == ["train", "validation", "test"] and found.exit_code < 2
    config = FinetuneConfig(**found.training)
    split = split_data(config)
    (counts,) = split.counts.values()
    assert counts == {"train": 14, "validation": 7, "test": 14}
    assert "the epoch is chosen on the validation split" in capsys.readouterr().out
    cut = config.model_copy(update={"validation_from": "train", "validation": 0.25})
    (counts,) = split_data(cut).counts.values()  # control: as it was before, of the training list alone
    assert sum(counts.values()) == 28 and counts["validation"] in (3, 4)
    one, other = (data_use(c, c.primary).lists for c in (config, cut))
    assert one != other


def test_the_mark_of_a_run_sees_the_validation_list(tmp_path):
    """A label of the validation list changes what the run is; of one that is not read it changes nothing."""
    of_dfew(tmp_path, "val")
    config = FinetuneConfig(**diagnose(tmp_path, "dfew", listing="lists/{split}.txt").training)
    cut = config.model_copy(update={"validation_from": "train"})
    before = [data_use(one, "clip").lists for one in (config, cut)]
    path = tmp_path / "lists/val.txt"
    path.write_text(path.read_text().replace("00014 0", "00014 1"))
    after = [data_use(one, "clip").lists for one in (config, cut)]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_validation_split_that_is_said_and_not_there_is_refused(tmp_path):
    FOREIGN["tabs"].make(tmp_path)
    config = FinetuneConfig(**looked_at(tmp_path, FOREIGN["tabs"]).training, validation_from="list")
    with pytest.raises(Refused, match="has no validation split; name it in clips_lists"):
        split_data(config)


@pytest.mark.parametrize("numbers, other", [(TEST, "test"), (TRAIN[:7], "training")])
def test_a_validation_list_that_is_tested_or_trained_on_is_refused_and_the_line_says_what_to_do(tmp_path, numbers,
                                                                                             other):
    """Lists of VideoMAE often hold the test list twice; the doctor says so, and its line trains."""
    told = three_lists(tmp_path, tested=numbers)
    found = diagnose(tmp_path, "table", **told)
    assert kinds(found)["shared with validation"] == len(numbers) and found.exit_code == 1
    assert "in train and test" not in kinds(found) and found.training["validation_from"] == "train"
    assert sum(split_data(FinetuneConfig(**found.training)).counts["clip"].values()) == 14 + len(TEST)
    blind = {key: value for key, value in found.training.items() if key != "validation_from"}
    with pytest.raises(Refused, match=f"the listed validation split and the {other} list.*validation_from: train"):
        split_data(FinetuneConfig(**blind))


def test_people_of_the_validation_split_are_not_trained_on(tmp_path):
    of_column(tmp_path, "dev")
    (tmp_path / "groups.csv").write_text("id,person\n" + "".join(f"k{n},p{n % 14}\n" for n in TRAIN)
                                         + "".join(f"k{n},t{n}\n" for n in TEST))
    found = diagnose(tmp_path, "table", classes="No,Yes")
    assert kinds(found) == {"group shared with validation": 7}
    with pytest.raises(Refused, match="group in both sets: 7"):
        split_data(FinetuneConfig(**found.training | {"validation_from": "list"}))


# ------------------------------------------------------------------------------- people


def test_the_doctor_and_packing_read_who_is_shown_in_groups_csv(tmp_path):
    """A person in training and test is seen in groups.csv as in a column of the table; the control has no such file."""
    of_column(tmp_path / "data", "train")
    place = tmp_path / "data"
    assert kinds(diagnose(place, "table", classes="No,Yes")) == {}
    rows = [f"k{n},p{n // 4}" for n in (*TRAIN, *TEST)]  # person 5 is in both
    text(place / "groups.csv", ["id,person", *rows])
    found = diagnose(place, "table", classes="No,Yes")
    assert kinds(found) == {"group in train and test": 1} and found.findings[0].examples == ("p5, fold 1",)
    with pytest.raises(Refused, match="group in both sets"):
        split_data(FinetuneConfig(**found.training))
    pack(place, tmp_path / "out", "table", classes="No,Yes")
    assert {s.group for s in read_dataset(tmp_path / "out", "packed", "test")} == {f"p{n // 4}" for n in TEST}
    text(place / "groups.csv", ["id,person", *rows[:-2]])
    found = diagnose(place, "table", classes="No,Yes")
    assert kinds(found)["without a group"] == 2 and found.exit_code == 2


def test_ids_of_groups_csv_are_those_of_the_reader(tmp_path):
    """DFEW writes a clip 1, 00001 or 00001.mp4; who is shown is found under the spelling of its list."""
    for n in TRAIN:
        film(tmp_path / f"clip_mp4/{n:05d}.mp4", n)
    for split, numbers in (("train", TRAIN[:14]), ("test", TRAIN[14:])):
        text(tmp_path / f"annotation/{split}(single-labeled)/set_1.csv",
             ["video_name,label", *(f"{n},{n % 7}" for n in numbers)])
    text(tmp_path / "groups.csv", ["id,person", *(f"{n}.mp4,p{n % 14}" for n in TRAIN)])
    found = kinds(diagnose(tmp_path, "dfew", 1))
    assert found["group in train and test"] == 7 and "without a group" not in found


# ------------------------------------------------------------------------------- folds that are words


def test_people_are_folds_by_their_names(made):
    """Every subject is left out once, in the order of the names, and nobody is on both sides."""
    one = FOREIGN["leave_one_subject_out"]
    found = looked_at(made("leave_one_subject_out"), one)
    assert found.folds == (1, 2, 3, 4, 5) and kinds(found) == {"folds by name": 5}
    for fold in found.folds:
        config = FinetuneConfig(**found.training, fold=fold)
        learned, tested = ({s.group for s in read_samples(config, "clip", split)} for split in ("train", "test"))
        assert tested == {f"sub{fold:02d}"} and not learned & tested
    with pytest.raises(Refused, match=r"fold=6.*has the folds 1, 2, 3, 4, 5"):
        read_samples(FinetuneConfig(**found.training, fold=6), "clip", "train")


@pytest.mark.parametrize("words, folds", [
    (["b", "a", "s10", "s2"], {"a": 1, "b": 2, "s2": 3, "s10": 4}), (["1", "a", "2", "3"], {}), (["train", "test"], {}),
])
def test_words_are_folds_where_no_number_is_one_and_they_are_no_splits(tmp_path, words, folds):
    from s4d_lib.datasets.tables import Table

    path = tmp_path / "labels.csv"
    path.write_text(written([("path", "label", "fold"), *((f"k{i}", 0, word) for i, word in enumerate(words))]))
    assert Table(path).named_folds == folds


