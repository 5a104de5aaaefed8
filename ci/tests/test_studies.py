"""Grids over cells and seeds: what they train, load, sum up and compare; runs on data sets of other layouts."""

import numpy as np
import pytest

from s4d_lib.lab.grid import paired, run_grid, scores, study_record, summarise
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.runs import Run
from s4d_lib.training.tiers import finetuning


@pytest.fixture(scope="module")
def grid(faces, tmp_path_factory):
    own = {"stills": str(faces / "stills"), "clips": str(faces / "clips"), "epochs": 1, "init": None,
           "batch_clips": 8, "batch_stills": 16, "warmup_epochs": 0.2}
    cells = {mode: finetuning("smoke", mode, **own) for mode in ("dfer", "joint")}
    root = tmp_path_factory.mktemp("runs")
    return cells, root, run_grid(cells, (0, 1), jobs=2, root=root)


@pytest.mark.trains
def test_a_grid_is_every_cell_with_every_seed_and_loads_what_is_there(grid):
    cells, root, found = grid
    assert {name: [run.record.seeds for run in runs] for name, runs in found.items()} == \
        {"dfer": [[0], [1]], "joint": [[0], [1]]}
    assert len([one for one in root.iterdir() if not one.name.startswith(".")]) == 4
    again = run_grid(cells, (0, 1), jobs=1, root=root)
    assert [run.folder for run in again["joint"]] == [run.folder for run in found["joint"]]


@pytest.mark.trains
def test_two_processes_give_what_one_gives(grid, tmp_path):
    cells, _, found = grid
    alone = run_grid({"dfer": cells["dfer"]}, (1,), jobs=1, root=tmp_path)["dfer"][0]
    np.testing.assert_allclose(alone.losses(), found["dfer"][1].losses(), rtol=1e-4)


def with_scores(*wars: float) -> list[Run]:
    record = {"test_clip": {"war": {"value": 0.0}, "uar": {"value": 0.0}}}

    class Fake:
        def __init__(self, war: float) -> None:
            self.results = {**record, "test_clip": {"war": {"value": war}, "uar": {"value": war / 2}}, "updates": 3}
            self.wall_seconds = 2.0

    return [Run(None, Fake(war)) for war in wars]


def test_paired_difference_is_taken_seed_by_seed():
    """The seeds vary by 20 points and the difference by none: only pairing sees it."""
    grid = {"a": with_scores(30.0, 40.0, 50.0), "b": with_scores(28.0, 38.0, 48.0)}
    difference = paired(grid, "a", "b")
    assert difference["values"] == [2.0, 2.0, 2.0] and difference["low"] == difference["high"] == 2.0
    unpaired = summarise(grid)
    assert unpaired["a"]["clip_war"]["low"] < unpaired["b"]["clip_war"]["high"], "the control: intervals overlap widely"
    assert scores(grid["a"], metric="uar") == [15.0, 20.0, 25.0]


def test_one_seed_has_no_interval():
    assert summarise({"a": with_scores(30.0)})["a"]["clip_war"]["low"] is None


def told(config: FinetuneConfig, war: float, validation: float) -> Run:
    """A run that was not trained: its record says these numbers."""
    from s4d_lib.records import Record

    score = {"war": {"value": war}, "uar": {"value": war - 1}}
    return Run(None, Record(name=config.name, kind="finetune", headline="", seeds=[config.seed], wall_seconds=2,
                            peak_memory_mb=1, config=config.model_dump(mode="json"), results={
        "updates": 3, "history": [{"clip_uar": 0.0, "clip_war": 0.0}, {"clip_uar": validation, "clip_war": validation}],
        **{f"test_{modality}": score for modality in config.modalities}}))


FLOORS = {"pixel_ridge": {"war": {"value": 20.0}, "uar": {"value": 19.0}}}


def test_each_arm_of_few_labels_keeps_the_rate_that_validates_better_whatever_it_tests(monkeypatch):
    from s4d_lib.lab import studies

    seen = []

    def grid(cells, seeds, jobs):
        seen.append({name: (config.lr, config.init, config.train_clips) for name, config in cells.items()})
        return {name: [told(config.model_copy(update={"seed": seed}), 100 * config.lr * 10 + seed,  # tests: higher rate
                            -config.lr if config.init else config.lr) for seed in seeds]  # validates: lower, higher
                for name, config in cells.items()}

    monkeypatch.setattr(studies, "run_grid", grid)
    monkeypatch.setattr(studies, "floor_scores", lambda config: FLOORS)
    record = studies.few_labels("laptop", (0, 1), 1)
    low, high = studies.LEARNING_RATES
    assert seen == [{f"pretrained {low:g}": (low, "shipped", 400), f"pretrained {high:g}": (high, "shipped", 400)},
                    {f"scratch {low:g}": (low, None, 400), f"scratch {high:g}": (high, None, 400)}]
    assert record.results["learning_rate"] == {"pretrained": low, "scratch": high}
    assert record.results["pretrained_minus_scratch_war"]["values"] == pytest.approx([1000 * (low - high)] * 2)
    assert "pixel ridge WAR 20.0 UAR 19.0" in record.headline and record.seeds == [0, 1]


def test_four_modes_compares_what_its_protocol_says(monkeypatch):
    from s4d_lib.lab import studies

    wars = {"dfer": 30.0, "sfer": 10.0, "joint": 33.0, "moae": 34.0, "dfer with experts": 31.0,
            "dfer, joint's compute": 35.0}
    shapes = {}

    def grid(cells, seeds, jobs):
        shapes.update({name: (config.mode, config.epochs, config.train_clips) for name, config in cells.items()})
        return {name: [told(config, wars[name], 0.0) for _ in seeds] for name, config in cells.items()}

    monkeypatch.setattr(studies, "run_grid", grid)
    monkeypatch.setattr(studies, "floor_scores", lambda config: FLOORS)
    found = studies.four_modes("laptop", (0,), 1).results["paired"]
    assert found["joint minus dfer, war"]["value"] == 3
    assert found["joint minus dfer, joint's compute, uar"]["value"] == -2
    epochs = shapes["dfer"][1]
    assert shapes["dfer, joint's compute"] == ("dfer", round(1.7 * epochs), 400), "more time, the same labels"
    assert shapes["moae"] == ("moae", epochs, 400) and shapes["dfer with experts"][:2] == ("dfer", epochs)


@pytest.mark.trains
def test_a_study_record_says_what_it_ran(grid):
    _, _, found = grid
    record = study_record("s", "h", found, {"extra": 1}, tier="smoke", protocol={"budget": "equal"})
    assert record.results["extra"] == 1 and record.seeds == [0, 1]
    assert record.config["joint"]["mode"] == "joint" and record.config["dfer"]["epochs"] == 1
    assert record.wall_seconds == pytest.approx(sum(r.record.wall_seconds for runs in found.values() for r in runs))


@pytest.mark.trains
@pytest.mark.parametrize("layout", ["ferv39k", "table", "packed"])
def test_a_run_reads_other_data_sets_and_says_how_its_protocol_differs(tmp_path, layout):
    from PIL import Image

    from s4d_lib.datasets.labels import SCHEMAS
    from s4d_lib.training.configs import FinetuneConfig
    from s4d_lib.training.runs import train

    classes, rng = SCHEMAS["ferv39k"].classes, np.random.default_rng(0)
    folder_of = {"Anger": "Angry", "Happiness": "Happy", "Sadness": "Sad"}
    rows = {"train": [], "test": []}
    for number in range(28):
        label, split = number % 7, "train" if number < 21 else "test"
        id = f"Crime/{folder_of.get(classes[label], classes[label])}/{number:04}"
        place = tmp_path / ("2_ClipsforFaceCrop" if layout != "table" else ".") / id
        place.mkdir(parents=True)
        for frame in range(9):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{frame}.jpg")
        rows[split].append((id, label))
    if layout != "table":
        (tmp_path / "Annotation").mkdir()
        for split, listed in rows.items():
            lines = "".join(f"{id},{label}\n" for id, label in listed)
            (tmp_path / "Annotation" / f"{split}.csv").write_text(f"path,id\n{lines}")
    else:
        lines = "".join(f"{id},{classes[label]},{split}\n" for split, listed in rows.items() for id, label in listed)
        (tmp_path / "labels.csv").write_text(f"path,label,split\n{lines}")
    folder = tmp_path
    if layout == "packed":
        from s4d_lib.datasets.pack.writer import pack

        folder = tmp_path / "packed"
        pack(tmp_path, folder, "ferv39k")
    config = FinetuneConfig(name="other", mode="dfer", size="tiny", clips=str(folder), clips_as=layout, stride=1,
                            clips_schema="ferv39k", epochs=1, warmup_epochs=0, batch_clips=7, validation=0.34,
                            augment_clips="LIGHT", mixup=0, cutmix=0)
    record = train(config, tmp_path / "runs").record
    assert record.results["test_clip"]["count"] == 7 and list(record.results["test_clip"]["recall"]) == list(classes)
    protocol = record.protocol["clip"]
    assert protocol["schema"] == "ferv39k" and protocol["classes"] == list(classes) and protocol["stride"] == 1
    if layout == "ferv39k":
        assert protocol["published"] == "s4d/ferv39k"
        assert any("16 (s4d/ferv39k), but 8 (this run)" in said for said in protocol["differences"])
    else:
        assert protocol["published"] is None
    assert not record.data[0].skipped


def test_a_leak_stops_a_training_before_it_starts(tmp_path):
    from PIL import Image

    from s4d_lib.training.runs import train

    annotation = tmp_path / "annotation"
    for split, ids in (("train", range(1, 22)), ("test", range(21, 29))):  # 00021 is in both
        folder = annotation / f"{split}(single-labeled)"
        folder.mkdir(parents=True)
        rows = "".join(f"{number:05},{number % 7}\n" for number in ids)
        (folder / f"{split}_set_1.csv").write_text(f"video_name,label\n{rows}")
        for number in ids:
            place = tmp_path / "clip_jpg" / f"{number:05}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(place / "1.jpg")
    config = FinetuneConfig(name="leak", mode="dfer", size="tiny", clips=str(tmp_path), epochs=1, warmup_epochs=0)
    with pytest.raises(ValueError, match="00021.*training was not started") as refused:
        train(config, tmp_path / "runs")
    assert str(tmp_path) in str(refused.value)


def test_a_layout_without_a_label_order_asks_for_one():
    config = FinetuneConfig(name="t", mode="dfer", clips="x", clips_as="table")
    with pytest.raises(ValueError, match="'table' fixes no label order: say clips_schema="):
        config.schema("clip")
    assert config.model_copy(update={"clips_schema": "mafw"}).schema("clip").name == "mafw"
