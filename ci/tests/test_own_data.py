"""Names and folders → settings: chapters that read a data set of your own, by fold; refusals that say what to do."""

import shutil
from pathlib import Path

import pytest
from toy_chapters import RECORD, write_chapter

from s4d_lib.batch import runner, table
from s4d_lib.batch.chapters import chapter_parameters, code_cells
from s4d_lib.batch.status import look_back, write_status
from s4d_lib.cli import book
from s4d_lib.datasets.own_data import data_folder, data_settings, pretraining_settings
from s4d_lib.training import tiers
from s4d_lib.training.data import read_samples
from s4d_lib.training.tiers import finetuning, pretraining

CHAPTER = Path(__file__).resolve().parents[2] / "chapters" / "07_single_task_baselines.md"


@pytest.fixture(scope="module")
def own(faces, tmp_path_factory) -> Path:
    """A folder of data sets: drawn clips as DFEW lies on disk, drawn stills as AffectNet does, and no card of ours."""
    root = tmp_path_factory.mktemp("own")
    shutil.copytree(faces / "clips", root / "DFEW")
    shutil.copytree(faces / "stills", root / "AffectNet-7")
    (root / "DFEW" / "groups.csv").unlink()  # the real one does not say who is shown
    return root


@pytest.fixture
def nothing_is_drawn(monkeypatch):
    def refuse(*_):
        raise AssertionError("faces were about to be drawn for data of one's own")

    monkeypatch.setattr(tiers, "prepare_data", refuse)


def test_drawn_faces_are_the_default_and_change_nothing_but_the_fold():
    assert data_settings("smoke") == {"clip": {"fold": 1}, "image": {}}
    assert data_settings("full", fold=3) == {"clip": {"fold": 3}, "image": {}}


def test_every_fold_of_a_data_set_is_read_from_its_own_lists(own, nothing_is_drawn):
    tested = []
    for fold in (1, 2, 3, 4, 5):
        (modality, found), = data_settings("smoke", "dfew", str(own), fold).items()
        config = finetuning("smoke", "dfer", **found)
        train, test = (read_samples(config, modality, split) for split in ("train", "test"))
        listed = (own / "DFEW/annotation/test(single-labeled)" / f"test_set_{fold}.csv").read_text().split()[1:]
        assert sorted(f"{sample.id},{sample.label}" for sample in test) == sorted(listed)
        assert len(train) + len(test) == 40 and not {s.id for s in train} & {s.id for s in test}
        tested += [sample.id for sample in test]
    assert len(set(tested)) == 40  # the five test folds together are the data set


def test_the_folder_may_be_the_data_set_or_the_one_above_under_any_spelling(own):
    for root in (own, own / "DFEW"):
        assert data_folder(root, "dfew") == own / "DFEW"
    assert data_folder(own, "affectnet7") == own / "AffectNet-7"
    found = data_settings("smoke", "dfew", str(own), 2, "affectnet7")
    assert found["image"] == {"stills": str(own / "AffectNet-7"), "stills_as": "affectnet7"}
    assert found["clip"]["frames"] == "clip_mp4", "the flavour of frames that is there"
    assert set(data_settings("smoke", "dfew", str(own))) == {"clip"}, "no stills beside clips unless they are named"
    assert data_settings("smoke", "dfew", str(own), still_dataset="drawn")["image"] == {}


def test_pretraining_reads_without_labels_and_folds(own, nothing_is_drawn, faces):
    assert pretraining_settings("smoke") == {}
    found = pretraining_settings("smoke", "dfew", str(own), "affectnet7")
    config = pretraining("smoke", **found)
    assert config.modalities == ("image", "clip")
    assert len(read_samples(config, "clip", "train")) == len(read_samples(finetuning("smoke", "dfer", **data_settings(
        "smoke", "dfew", str(own))["clip"]), "clip", "train"))
    alone = pretraining("smoke", **pretraining_settings("smoke", "dfew", str(own)))  # the control: no stills named
    assert alone.modalities == ("clip",) and alone.stills is None
    spoken = own / "VoxCeleb2" / "mp4" / "id00017" / "a1B"
    spoken.mkdir(parents=True)
    shutil.copy(next((faces / "clips/clip_mp4").iterdir()), spoken / "00001.mp4")
    found = pretraining_settings("smoke", "voxceleb2", str(own), "affectnet7")
    (sample,) = read_samples(pretraining("smoke", **found), "clip", "train")
    assert (sample.id, sample.group) == ("id00017/a1B/00001", "id00017")
    assert found["stills_as"] == "affectnet7"
    with pytest.raises(ValueError, match="say where it lies"):
        pretraining_settings("smoke", "voxceleb2")


def test_only_the_full_tier_takes_the_stride_of_the_paper(own):
    assert "stride" not in data_settings("smoke", "dfew", str(own))["clip"]
    assert data_settings("full", "dfew", str(own))["clip"]["stride"] == 4
    (own / "FERV39K" / "Annotation").mkdir(parents=True)
    (own / "FERV39K" / "Annotation" / "train.csv").write_text("path,id\n")
    assert data_settings("full", "ferv39k", str(own))["clip"]["stride"] == 1  # the control: another data set, another


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [({"dataset": "dfw"}, ValueError, "dataset must be 'drawn' or one of dfew, "),
     ({"still_dataset": "afectnet7"}, ValueError, "still_dataset must be"),
     ({"dataset": "dfew", "fold": 6}, ValueError, "dfew has folds 1 to 5"),
     ({"dataset": "ferv39k", "fold": 2}, FileNotFoundError, "no lists of ferv39k here, such as Annotation/train.csv"),
     ({"data_root": ""}, ValueError, "say where they lie with data_root="),
     ({"data_root": "gone"}, FileNotFoundError, "data_root=gone: there is no such folder"),
     ({"dataset": "drawn"}, ValueError, "say which with dataset="),
     ({"dataset": "mafw"}, FileNotFoundError, "s4d doctor"), ({"fold": 0}, ValueError, "fold=0")],
)
def test_what_does_not_fit_is_refused_with_a_remedy(faces, tmp_path, asked, error, words):
    root = tmp_path / "there"
    shutil.copytree(faces / "clips" / "annotation", root / "dfew" / "annotation")
    given = {"tier": "smoke", "dataset": "dfew", "data_root": str(root)} | asked
    with pytest.raises(error, match=words):
        data_settings(**given)


def test_lists_that_lie_elsewhere_near_are_named(own):
    (own / "DFEW" / "far").mkdir()
    with pytest.raises(FileNotFoundError, match=r"there are some in .*DFEW"):
        data_folder(own / "DFEW" / "far", "dfew")


# ------------------------------------------------------------------------------------------------- in a chapter


def test_the_first_cells_of_chapter_07_read_what_its_parameters_name(own, nothing_is_drawn, capsys):
    cells = code_cells(CHAPTER.read_text())
    given = {"dataset": "dfew", "data_root": str(own), "fold": 4, "settings": {"epochs": 7}}
    found = chapter_parameters(cells, "07") | given
    exec(cells[1]["source"], found)
    assert set(found["configs"]) == {"clip"} and found["configs"]["clip"].epochs == 7
    assert "DFER: DFEW, 7 classes, test fold 4" in capsys.readouterr().out
    exec(cells[1]["source"], found | {"still_dataset": "affectnet7"})
    assert "SFER: AffectNet-7, 7 classes" in capsys.readouterr().out


def test_the_live_half_of_chapter_10_reads_clips_of_ones_own(own, nothing_is_drawn, capsys):
    """Up to the first figure: the test list of the fold, read twice, without anything that only a renderer knows."""
    cells = code_cells((CHAPTER.parent / "10_what_static_teaches_dynamic.md").read_text())
    assert not book.needs_data(CHAPTER.parent / "10_what_static_teaches_dynamic.md", {}), "it draws its own"
    found = chapter_parameters(cells, "10") | {"dataset": "dfew", "data_root": str(own), "fold": 4}
    until = next(i for i, cell in enumerate(cells) if "draw_two_readings(at" in cell["source"])
    for cell in cells[1 : until + 1]:
        exec(cell["source"].replace("draw_two_readings(at", "figure = draw_two_readings(at"), found)
    said = capsys.readouterr().out
    listed = (own / "DFEW/annotation/test(single-labeled)/test_set_4.csv").read_text().split()[1:]
    assert sorted(found["found"].ids) == sorted(line.split(",")[0] for line in listed)
    assert f"of the {len(listed)} test clips of dfew, fold 4" in said and "nobody says who is shown" in said
    assert found["units"] is None and found["figure"].layout.xaxis.title.text == "frame"


@pytest.fixture
def toys(tmp_path, monkeypatch) -> tuple[Path, list]:
    """A chapter with the parameters of chapter 07, and what was drawn for its runs."""
    drawn: list[str] = []
    monkeypatch.setattr(runner, "_library_hashes", lambda _: {})
    monkeypatch.setattr(tiers, "prepare_data", drawn.append)
    parameters = 'tier = "smoke"\ncount = 3\ndataset = "drawn"\nstill_dataset = ""\ndata_root = ""\nfold = 1'
    write_chapter(tmp_path / "chapters", "01_toy", "from s4d_lib.training import tiers", RECORD, parameters=parameters)
    return tmp_path, drawn


@pytest.fixture
def planned(toys, monkeypatch, s4d):
    """`planned("-p", "fold=2")` → the runs that `s4d book` plans, and how it ends; nothing is run."""
    seen: list = []

    def run_book(chapters, out, tier, names, given, jobs, timeout, resume, points, *_):
        seen.extend(runner.plan_runs(chapters, out, tier, names, given, points))
        return []

    monkeypatch.setattr(runner, "run_book", run_book)
    monkeypatch.setattr(table, "print_table", lambda _: None)
    monkeypatch.chdir(toys[0])

    def plan(*words: object) -> tuple[list, tuple[int, str, str]]:
        seen.clear()
        ended = s4d("book", "01", "--out", "runs", *words)
        return [*seen], ended

    return plan


def test_a_sweep_over_folds_of_ones_own_draws_no_faces_and_knows_the_folder_from_anywhere(toys, own, planned):
    (toys[0] / "mine").symlink_to(own)
    runs, ended = planned("-p", "dataset=dfew", "-p", "data_root=mine", "--sweep", "fold=1,2,3,4,5")
    assert ended == (0, "", "")
    assert [run.parameters["fold"] for run in runs] == [1, 2, 3, 4, 5] and toys[1] == []
    assert {run.parameters["data_root"] for run in runs} == {str(own.resolve())}  # chapters run in their own folder
    planned()
    assert toys[1] == ["smoke"]  # the control: without a data set of one's own the faces are drawn, once


def test_a_finished_run_is_stale_once_a_list_of_the_data_has_changed(toys, faces, planned):
    home = toys[0] / "DFEW"
    shutil.copytree(faces / "clips" / "annotation", home / "annotation")
    words = ("-p", "dataset=dfew", "-p", f"data_root={home}", "--sweep", "fold=1,2")
    before, _ = planned(*words)
    again, _ = planned(*words)
    assert [run.fingerprint for run in again] == [run.fingerprint for run in before]
    assert before[0].made_from == before[1].made_from  # every fold is of the same version of the data
    other = home / "annotation/test(single-labeled)/test_set_2.csv"
    other.write_text(other.read_text().rsplit("\n", 2)[0] + "\n")
    changed, _ = planned(*words)
    assert changed[0].fingerprint != before[0].fingerprint
    Path(changed[0].folder).mkdir(parents=True)
    before[0].status = "done"
    write_status(before[0])
    assert look_back(changed[0]) == "stale: the lists of the data have changed"


@pytest.mark.parametrize(("dataset", "fold", "told"), [
    ("dfew", 6, "dfew has folds 1 to 5"), ("mafw", 1, "no lists of mafw here")])
def test_a_fold_that_the_data_set_has_not_is_refused_before_anything_starts(dataset, fold, told, toys, own, planned):
    runs, (code, said, refusal) = planned("-p", f"dataset={dataset}", "-p", f"data_root={own}", "-p", f"fold={fold}")
    assert not runs and toys[1] == [] and not (toys[0] / "runs").exists()
    assert (code, said) == (2, "") and told in refusal and refusal.startswith("s4d: ") and refusal.count("\n") == 1


def test_a_folder_that_is_not_there_is_refused_before_anything_starts(toys, planned):
    runs, ended = planned("-p", "dataset=dfew", "-p", "data_root=nowhere")
    assert not runs and not (toys[0] / "runs").exists()
    assert ended == (2, "", "s4d: data_root=nowhere: there is no such folder\n")
    assert book.needs_data(toys[0] / "chapters" / "01_toy.md", {"dataset": "dfew", "still_dataset": "drawn"})
