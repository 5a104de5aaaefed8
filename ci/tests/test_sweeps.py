"""Runs → sweep record: the grid, two workers, and means and intervals against numbers worked out by hand."""

import json
import math
import statistics

import numpy as np
import pytest
from scipy.stats import t
from toy_chapters import RECORD, stub_worker, write_chapter

from s4d_lib.batch import job, runner
from s4d_lib.batch.chapters import ChapterError
from s4d_lib.batch.runner import run_book
from s4d_lib.batch.sweeps import as_text, collect, confusions, numbers, summarise, write_sweep
from s4d_lib.batch.words import read_sweeps
from s4d_lib.figures.sweeps import draw_sweep
from s4d_lib.metrics.held_out import HeldOut, pooled
from s4d_lib.metrics.scores import told, uar, war

PARAMETERS = "tier = 'smoke'\nfold = 1\nseed = 0\nmethod = 'joint'"
SCORES = {1: 60.0, 2: 64.0, 3: 50.0}


@pytest.fixture(autouse=True)
def same_library(monkeypatch):
    monkeypatch.setattr(runner, "_library_hashes", lambda _: {"x.py": "this library"})


def said(status="done", uar=None, confusion=None, cause="", **point) -> dict:
    """A status as a run leaves it."""
    results = {} if uar is None else {"test_clip": {"uar": {"value": uar, "low": 0.0, "high": 99.0}, "count": 7}}
    if confusion:
        results["test_clip"]["confusion"] = confusion
    return {"chapter": "07_toy", "tier": "full", "point": point, "parameters": {"lr": 0.1, **point}, "status": status,
            "cause": cause, "results": results, "seconds": 10.0, "peak_memory_mb": 100.0 + 10 * point.get("seed", 0),
            "made_from": {"chapter": "a"}}


def folds_and_seeds() -> list[dict]:
    return [said(uar=SCORES[fold] + seed, fold=fold, seed=seed) for fold in (1, 2, 3) for seed in (0, 1)]


# -------------------------------------------------------------------------------------------------------------- running


@pytest.mark.spawns
def test_twelve_runs_on_two_workers_two_at_a_time_each_on_its_own_device(tmp_path, monkeypatch):
    write_chapter(tmp_path / "chapters", "07_toy", RECORD, parameters=PARAMETERS)
    stub_worker(monkeypatch, tmp_path, """
at = request["parameters"]
fold, seed, device = at.get("fold", 1), at.get("seed", 0), os.environ["CUDA_VISIBLE_DEVICES"]
mine = folder.parent / f"at-work-{fold}-{seed}-on-{device}"
mine.touch()
until = time.time() + 60
while fold == 1 and seed < 2 and time.time() < until:  # the first two wait for each other: only together can they go on
    if (folder.parent / f"07_toy@fold=1,seed={1 - seed}" / "status.json").exists():
        break
    time.sleep(0.02)
at_work = [path.name.split("-")[-1] for path in folder.parent.glob("at-work-*")]
record("fine", uar=50 + fold, at_work=at_work, device=device, met=time.time() < until)
mine.unlink()
""")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("s4d_lib.batch.slots.nvidia_smi", lambda _: None)
    points = read_sweeps(["fold=1,2,3,4", "seed=0,1,2"])
    runs = run_book(tmp_path / "chapters", tmp_path / "runs", points=points, gpus="3,5")
    assert [run.status for run in runs] == ["done"] * 12
    assert [(run.point["fold"], run.point["seed"]) for run in runs] == [(f, s) for f in (1, 2, 3, 4) for s in (0, 1, 2)]
    assert len({run.folder for run in runs}) == 12
    assert all(run.results["met"] for run in runs)
    for run in runs:  # never more than two at work, never two on one device
        assert len(run.results["at_work"]) == len(set(run.results["at_work"])) <= 2, run.results
    assert {run.results["device"] for run in runs} == {"3", "5"}

    row = collect(tmp_path / "runs" / "book" / "smoke", "07_toy").results["rows"]
    assert len(row) == 1 and row[0]["runs"] == 12 and row[0]["missing"] == []
    assert row[0]["metrics"]["uar"]["value"] == pytest.approx(52.5)

    monkeypatch.setattr(job, "WORKER", ("false",))
    (tmp_path / "runs/book/smoke/07_toy@fold=2,seed=1/record.json").unlink()
    again = run_book(tmp_path / "chapters", tmp_path / "runs", points=points, gpus="3,5", resume=True)
    assert [run.point for run in again if run.status == "failed"] == [{"fold": 2, "seed": 1}]
    assert sum(run.status == "kept" for run in again) == 11


@pytest.mark.spawns
def test_points_that_never_ran_are_missing_and_not_forgotten(tmp_path, monkeypatch):
    write_chapter(tmp_path / "chapters", "07_toy", RECORD, parameters=PARAMETERS)
    stub_worker(monkeypatch, tmp_path, """
if request["parameters"].get("seed", 0) == 1:
    sys.exit(28)
record("fine", uar=50.0)
""")
    monkeypatch.setattr(runner, "disk_is_full", lambda _: True)
    points = read_sweeps(["seed=0,1,2"])
    runs = run_book(tmp_path / "chapters", tmp_path / "runs", points=points, jobs=1)
    assert [run.ended_as for run in runs] == ["done", "disk full", "waiting"]
    record = collect(tmp_path / "runs" / "book" / "smoke", "07_toy")
    assert record.results["rows"][0]["missing"] == [{"seed": 1}, {"seed": 2}]
    assert [point["status"] for point in record.results["points"]] == ["done", "disk full", "not run"]
    assert "1 of 3 points" in record.headline


# ---------------------------------------------------------------------------------------------------------- statistics


def answered(fold: int, seed: int = 0, method: str = "", people: int = 6, named: bool = True) -> HeldOut:
    """What a run said of the clips of its fold: 14 clips of every person, read better or worse person by person."""
    rng = np.random.default_rng([fold, seed, len(method)])
    labels, person = np.arange(14 * people) % 7, np.arange(14 * people) // 14
    right = rng.random(len(labels)) < np.linspace(0.2, 0.9, people)[person]
    return HeldOut.of(labels, np.where(right, labels, (labels + 1) % 7), [f"{fold}/{n}" for n in range(len(labels))],
                      [f"{fold}/{p}" if named else None for p in person])


def held_out(fold: int, seed: int = 0, named: bool = True) -> dict:
    """A status with the scores and the answers of a run."""
    one = answered(fold, seed, named=named)
    confusion = np.zeros((7, 7), int)
    np.add.at(confusion, (one.labels, one.answers), 1)
    run = said(uar=float(uar(confusion)), confusion=confusion.tolist(), fold=fold, seed=seed)
    run["results"]["test_clip"]["held_out"] = one.as_dict()
    return run


def test_folds_together_have_one_interval_over_people_and_their_spread_beside_it():
    runs = [held_out(fold, seed) for fold in (1, 2, 3) for seed in (0, 1)]
    record = summarise(runs)
    row = record.results["rows"][0]
    found, each = row["metrics"]["test_clip.uar"], [run["results"]["test_clip"]["uar"]["value"] for run in runs]
    folds = [statistics.mean(pair) for pair in zip(each[::2], each[1::2])]
    expected = pooled([[answered(fold, seed) for fold in (1, 2, 3)] for seed in (0, 1)]).uar
    assert (found["value"], found["low"], found["high"]) == (expected.value, expected.low, expected.high)
    assert (found["n"], found["unit"], row["unit"]) == (18, "person", "person")
    assert found["folds"]["mean"] == pytest.approx(statistics.mean(folds))
    assert found["folds"]["sd"] == pytest.approx(statistics.stdev(folds))
    assert (found["folds"]["least"], found["folds"]["most"], found["folds"]["n"]) == (min(folds), max(folds), 3)
    half = t.ppf(0.975, 2) * statistics.stdev(folds) / math.sqrt(3)
    assert abs((found["high"] - found["low"]) / (2 * half) - 1) > 0.1, "the folds' spread is not used"
    text = as_text(record)
    assert "| 18 people |" in text and "95 % by drawing from 18 people" in text and "makes no interval" in text
    assert record.headline.endswith(f"test_clip.uar {told(found)}")


def test_without_people_clips_are_drawn_and_the_table_says_so():
    record = summarise([held_out(fold, named=False) for fold in (1, 2)])
    found = record.results["rows"][0]["metrics"]["test_clip.uar"]
    named = summarise([held_out(fold) for fold in (1, 2)]).results["rows"][0]["metrics"]["test_clip.uar"]
    assert (found["unit"], found["n"], found["value"]) == ("clip", 168, named["value"])
    assert found["high"] - found["low"] < named["high"] - named["low"]
    assert "nobody says who is shown" in as_text(record) and "| 168 clips |" in as_text(record)


def test_people_and_clips_in_several_folds_are_told():
    runs = [held_out(1), held_out(2)]
    runs[1]["results"]["test_clip"]["held_out"] = runs[0]["results"]["test_clip"]["held_out"]
    text = as_text(summarise(runs))
    assert "84 clips of test_clip are in the test of several folds" in text and "6 people of test_clip are in" in text


def test_folds_that_left_no_answers_or_are_not_all_there_have_a_spread_and_no_interval():
    found = summarise(folds_and_seeds()).results["rows"][0]["metrics"]["test_clip.uar"]
    folds = [60.5, 64.5, 50.5]
    assert (found["value"], found["low"], found["high"], found["n"]) == (pytest.approx(58.5), None, None, 3)
    assert found["folds"]["sd"] == pytest.approx(statistics.stdev(folds))
    assert found["folds"]["sd_within"] == pytest.approx(math.sqrt(0.5))
    assert "58.50 (mean of folds, no interval)" in as_text(summarise(folds_and_seeds()))
    one_missing = [held_out(1), said("failed", fold=2, seed=0), held_out(3)]
    row = summarise(one_missing).results["rows"][0]
    assert row["metrics"]["test_clip.uar"]["low"] is None and row["pooled"] == {} and row["unit"] == "fold"


def test_without_folds_seeds_are_the_units_and_one_run_has_no_interval():
    row = summarise([said(uar=60.0 + seed, seed=seed) for seed in (0, 1, 4)]).results["rows"][0]
    assert row["unit"] == "run" and row["metrics"]["test_clip.uar"]["n"] == 3
    alone = summarise([said(uar=60.0, seed=0)]).results["rows"][0]["metrics"]["test_clip.uar"]
    assert alone["value"] == 60.0 and alone["low"] is None and alone["high"] is None


def test_other_axes_make_rows_and_missing_points_are_named():
    points = [said(uar=60.0 + seed, method=method, seed=seed) for method in ("joint", "moae") for seed in (0, 1, 2)]
    points[4] = said("failed", cause="out of memory", method="moae", seed=1)
    points += [said("timed out", cause="time-out", method="late", seed=seed) for seed in (0, 1, 2)]
    record = summarise(points)
    assert [(row["setting"]["method"], row["runs"]) for row in record.results["rows"]] == [
        ("joint", 3), ("moae", 2), ("late", 0)]
    assert record.results["rows"][1]["missing"] == [{"method": "moae", "seed": 1}]
    assert record.results["rows"][2]["metrics"] == {} and len(record.results["rows"][2]["missing"]) == 3
    assert record.headline.startswith("5 of 9 points of 07_toy: test_clip.uar 61.00")
    assert record.config == {"lr": 0.1} and record.seeds == [0, 1, 2] and record.wall_seconds == 90.0
    table = as_text(record)
    assert "| joint | 61.00 [" in table and "| late | – | 0 runs | 3 |" in table


def test_confusions_of_all_folds_are_pooled_for_the_seeds_that_have_them_all():
    matrices = {(1, 0): [[3, 1], [0, 2]], (2, 0): [[1, 4], [2, 9]], (1, 1): [[0, 4], [0, 2]], (2, 1): [[5, 0], [0, 11]]}
    points = [said(uar=50.0, confusion=matrix, fold=fold, seed=seed) for (fold, seed), matrix in matrices.items()]
    found = summarise(points).results["rows"][0]["pooled"]["test_clip"]
    sums = [np.array([[4, 5], [2, 11]]), np.array([[5, 4], [0, 13]])]
    assert found["war"] == pytest.approx(statistics.mean(war(m) for m in sums))
    assert found["uar"] == pytest.approx(statistics.mean(uar(m) for m in sums)) and found["seeds"] == 2
    points[3] = said("failed", fold=2, seed=1)
    half = summarise(points).results["rows"][0]["pooled"]["test_clip"]
    assert half["seeds"] == 1 and half["war"] == pytest.approx(war(sums[0]))


def test_points_made_by_different_versions_are_called_so():
    points = folds_and_seeds()
    assert "versions" not in summarise(points).headline
    points[2]["made_from"] = {"chapter": "b"}
    assert "made by 2 versions" in summarise(points).headline


def test_numbers_and_confusions_are_found_at_any_depth():
    results = {"a": {"uar": {"value": 61, "low": 1}, "confusion": [[1]], "deep": {"x": 2.5}}, "n": 3, "flag": True,
               "nan": float("nan"), "list": [1, 2], "text": "5"}
    assert dict(numbers(results)) == {"a.uar": 61.0, "a.deep.x": 2.5, "n": 3.0}
    assert list(confusions(results)) == [("a", [[1]])]


def test_which_sweep_is_meant_must_be_clear(tmp_path):
    for point in ({"fold": 1, "seed": 0}, {"fold": 2, "seed": 0}, {"seed": 0}, {"seed": 1}):
        folder = tmp_path / f"07_toy@{','.join(f'{k}={v}' for k, v in point.items())}"
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps(said(uar=50.0, **point)))
    with pytest.raises(ChapterError, match="There are: fold, seed; seed"):
        collect(tmp_path, "07_toy")
    assert len(collect(tmp_path, "07_toy", axes=["seed"]).results["points"]) == 2
    assert len(collect(tmp_path, "07_toy", axes=["fold", "seed"], over=["seed"]).results["rows"]) == 2
    with pytest.raises(ChapterError, match="There are: none"):
        collect(tmp_path, "08_other")
    with pytest.raises(ChapterError, match="have the same parameters"):
        summarise([said(uar=1.0, fold=1), said(uar=1.0, seed=1)])


# --------------------------------------------------------------------------------------------------------- for readers


def test_the_figure_shows_every_run_and_says_its_numbers(tmp_path):
    record = summarise(folds_and_seeds() + [said("failed", fold=3, seed=2)])
    figure = draw_sweep(record)
    runs, mean = figure.data
    assert sorted(runs.x) == [50.0, 51.0, 60.0, 61.0, 64.0, 65.0] and list(mean.x) == [58.5]
    assert "58.50 (" in figure.layout.meta["alt"] and "fold and seed" in figure.layout.meta["alt"]
    with pytest.raises(ValueError, match="has no 'war'"):
        draw_sweep(record, "war")
    nothing = summarise([said("failed", fold=1)])
    assert nothing.headline == "0 of 1 points of 07_toy"


def test_a_sweep_is_left_as_record_table_and_page(tmp_path):
    for one in folds_and_seeds():
        folder = tmp_path / f"07_toy@fold={one['point']['fold']},seed={one['point']['seed']}"
        folder.mkdir()
        (folder / "status.json").write_text(json.dumps(one))
    record, paths = write_sweep(tmp_path, "07_toy")
    assert [path.name for path in paths] == [f"sweep_07_toy@fold,seed.{kind}" for kind in ("json", "md", "html")]
    assert json.loads(paths[0].read_text())["headline"] == record.headline
    assert "58.50 (mean of folds" in paths[1].read_text() and "http" not in paths[2].read_text().split("<body")[0]
