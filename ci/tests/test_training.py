"""The loop and the stages on face files from disk: every mode, resuming, averaging, accumulation, bad files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from broken_runs import interrupted
from pydantic import ValidationError

from s4d_lib.checkpoints.cards import open_model
from s4d_lib.frames.reader import UnreadableMedia
from s4d_lib.training import fitting
from s4d_lib.training import loop as training
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.divergence import Diverged
from s4d_lib.training.loop import Loop
from s4d_lib.training.runs import train
from s4d_lib.training.state import Progressed, reached
from s4d_lib.weights.files import read_metadata


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def common(faces, **more):
    return {"size": "tiny", "stills": str(faces / "stills"), "clips": str(faces / "clips"), "frames": "clip_mp4",
            "stride": 2, "augment_stills": "LIGHT", "augment_clips": "LIGHT", "batch_stills": 12, "batch_clips": 6,
            "epochs": 2, "warmup_epochs": 0.2, "device": "cpu", "lr": 1e-3} | more


def pretraining(faces, **more):
    settings = {"name": "p", "mask_stills": 0.75, "mask_clips": 0.9, "replicate": 2}
    return PretrainConfig(**settings | common(faces) | more)


def finetuning(faces, mode="dfer", **more):
    settings = {"name": "f", "mode": mode, "pool": "positions", "validation": 0.2}
    return FinetuneConfig(**settings | common(faces) | more)


def weights(run):
    return run.model().state_dict()


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.trains
def test_pretraining_reads_files_and_leaves_a_record(faces, runs):
    run = train(pretraining(faces), runs)
    assert run.record.kind == "pretrain"
    assert {use.name for use in run.record.data} == {"easy (stills)", "easy (clips)"}
    assert all(use.sha256 and use.counts["train"] > 0 for use in run.record.data)
    assert np.isfinite(run.losses()[:, 1]).all()
    assert len(run.losses()) == run.record.results["updates"]
    assert read_metadata(run.weights)["config"]["mask_clips"] == 0.9
    assert not (run.folder / "checkpoint.safetensors").exists(), "a finished run leaves nothing to resume"
    assert str(faces) not in (run.folder / "record.json").read_text(), "a record names data by content, not by place"


@pytest.mark.trains
@pytest.mark.parametrize("modality", ["image", "clip"])
def test_pretraining_on_one_modality(faces, runs, modality):
    run = train(pretraining(faces, modalities=(modality,), epochs=1), runs)
    assert len(run.losses(modality)) == len(run.losses()) > 0


@pytest.mark.trains
@pytest.mark.parametrize("mode", ["sfer", "dfer", "joint", "moae"])
def test_every_mode_trains_validates_and_tests(faces, runs, mode):
    config = finetuning(faces, mode)
    run = train(config, runs)
    modalities = {"sfer": ["image"], "dfer": ["clip"]}.get(mode, ["image", "clip"])
    for modality in modalities:
        found = run.record.results[f"test_{modality}"]
        assert found["count"] == len(read_samples(config, modality, "test"))
        assert len(run.losses(modality)) > 0
    keys = list(weights(run))
    assert any("moe_layer" in key for key in keys) == (mode == "moae")
    assert {key.split(".")[1] for key in keys if key.startswith("head")} == \
        {{"image": "image", "clip": "video"}[m] for m in modalities}
    assert run.record.results["chosen_epoch"] in (1, 2)
    card = open_model(run.weights).card  # whoever opens the file later has nothing else that tells it
    assert card.stride == config.stride and not card.notes
    drawn = config.init in (None, "shipped")
    assert card.trained_on.startswith("drawn faces only: ") == drawn and all(
        f"({ {'image': 'stills', 'clip': 'clips'}[m]})" in card.trained_on for m in modalities)
    assert card.schemas == {{"image": "image", "clip": "video"}[m]: config.schema(m).name for m in modalities}


@pytest.mark.trains
def test_a_file_says_that_its_network_knows_local_contrast_only(faces, runs):
    run = train(finetuning(faces, "dfer", local_contrast=True, epochs=1), runs)
    (note,) = open_model(run.weights).card.notes
    assert "local contrast" in note and "mean little" in note


@pytest.mark.trains
def test_a_finished_run_is_loaded_and_a_changed_one_is_not(faces, runs):
    first = train(finetuning(faces, epochs=1), runs)
    stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert train(finetuning(faces, epochs=1), runs).folder == first.folder
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert train(finetuning(faces, epochs=1, seed=1), runs).folder != first.folder
    moved = runs.parent / "elsewhere"
    shutil.copytree(faces, moved)
    assert train(finetuning(moved, epochs=1), runs).folder == first.folder, "same data in another place is the same run"


@pytest.mark.trains
@pytest.mark.parametrize("mode", ["pretrain", "moae"])
def test_resuming_mid_epoch_gives_the_same_numbers(faces, runs, monkeypatch, mode):
    config = pretraining(faces) if mode == "pretrain" else finetuning(faces, mode, dropout=0.1, ema=0.9)
    whole = train(config, runs / "whole")
    total = whole.record.results["updates"]
    broken = interrupted(monkeypatch, config, runs / "broken", after=total // 2 + 1)
    assert same(weights(whole), weights(broken))
    assert np.array_equal(whole.losses(), broken.losses()), "no step is lost or stands twice in the log"
    strip = lambda run: {k: v for k, v in run.record.results.items()}  # noqa: E731
    assert strip(whole) == strip(broken)


@pytest.mark.trains
@pytest.mark.spawns
def test_sigkill_from_outside_loses_nothing_that_was_checkpointed(faces, runs, tmp_path):
    """The real thing: the command in a process of its own, killed without warning, started again."""
    config = pretraining(faces, checkpoint_minutes=1e-6, epochs=3)
    whole = train(config, runs / "whole")
    settings = tmp_path / "config.yaml"
    settings.write_text(config.model_dump_json())  # JSON is YAML
    command = [sys.executable, "-m", "s4d_lib.cli", "train", str(settings)]
    place = {**os.environ, "S4D_RUNS": str(runs / "killed"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = runs / "killed" / whole.folder.name / "checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.05)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert checkpoint.exists() and not (checkpoint.parent / "record.json").exists(), "it was killed midway"
    subprocess.run(command, env=place, check=True, capture_output=True)
    again = train(config, runs / "killed")
    assert np.array_equal(whole.losses(), again.losses()) and same(weights(whole), weights(again))


@pytest.mark.trains
def test_bf16_changes_rounding_and_little_else(faces, runs):
    exact, rounded = (train(finetuning(faces, epochs=1, precision=p), runs).losses()[:, 1] for p in ("no", "bf16"))
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(exact, rounded, rtol=0.1)


def test_a_kill_that_leaves_half_a_line_in_the_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"update": i, "loss": 1.0}) for i in (1, 2, 3)]
    path.write_text("\n".join(lines) + '\n{"update": 4, "lo')
    training.MetricsLog(path, update=2)
    assert [json.loads(line)["update"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_validation_that_the_checkpoint_does_not_know_is_cut_from_the_log(tmp_path):
    """Killed after the last step of an epoch was saved and its validation logged: it will be validated again."""
    path = tmp_path / "metrics.jsonl"
    lines = [{"update": 1, "loss": 2.0}, {"update": 1, "clip_war": 10.0}, {"update": 2, "loss": 1.0},
             {"update": 2, "clip_war": 20.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    training.MetricsLog(path, update=2, validated={1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == lines[:3]


def failing_once(config, runs, monkeypatch, name):
    """Train, let one function of the loop's job fail the second time it is called, and train again."""
    inner, calls = getattr(fitting, name), []

    def failing(*args):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("no space left")
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(fitting, name, failing)
        with pytest.raises(OSError, match="no space"):
            train(config, runs)
    return train(config, runs)


@pytest.mark.trains
@pytest.mark.parametrize("name", ["validation_scores", "save_model"])
def test_a_validation_that_fails_is_done_again(faces, runs, monkeypatch, name):
    """Neither an error in validating nor a full disk while the best weights are written loses an epoch's score."""
    config = finetuning(faces, epochs=3, epoch_rule="last")
    whole = train(config, runs / "whole")
    again = failing_once(config, runs / "again", monkeypatch, name)
    assert whole.record.results == again.record.results and same(weights(whole), weights(again))
    lines = (again.folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 4 * 3 + 3


@pytest.mark.trains
def test_a_step_that_was_applied_by_half_is_not_saved(faces, runs, monkeypatch):
    """An error after the optimiser's step, before it is counted: the checkpoint before it stands."""
    config = finetuning(faces, epochs=2, ema=0.9, checkpoint_minutes=1e-6)
    whole = train(config, runs / "whole")
    from timm.utils import ModelEmaV3

    inner, calls = ModelEmaV3.update, []

    def failing(self, *args, **named):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return inner(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(ModelEmaV3, "update", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(config, runs / "half")
    assert reached(next((runs / "half").glob("f-*"))) == 2
    again = train(config, runs / "half")
    assert np.array_equal(whole.losses(), again.losses()) and same(weights(whole), weights(again))


def test_interrupt_waits_for_the_end_of_the_step():
    done = []
    with pytest.raises(KeyboardInterrupt), training.between_steps() as stop_here:
        for i in range(3):
            signal.raise_signal(signal.SIGINT)
            done.append(i)  # the rest of the step still happens
            stop_here()
    assert done == [0]


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    training.save_state(tmp_path, "one", model, None, optimizer, None, Progressed())
    with pytest.raises(ValueError, match="another configuration"):
        training.load_state(tmp_path, "other", model, None, optimizer, None)


@pytest.mark.trains
def test_accumulation_does_not_change_a_step(faces, runs):
    """Without dropout, mixing or experts a step split in three is the same step."""
    plain = {"epochs": 1, "mixup": 0.0, "cutmix": 0.0}
    one = train(finetuning(faces, **plain), runs)
    three = train(finetuning(faces, accumulate=3, **plain), runs)
    assert one.folder != three.folder
    np.testing.assert_allclose(one.losses()[:, 1], three.losses()[:, 1], rtol=1e-4)


@pytest.mark.trains
def test_workers_do_not_change_a_run(faces, runs):
    config = finetuning(faces, epochs=1)
    here = train(config, runs / "0")
    there = train(config.model_copy(update={"workers": 2}), runs / "2")
    assert same(weights(here), weights(there))


@pytest.mark.trains
def test_seed_changes_a_run_and_data_order_is_not_the_models_doing(faces, runs):
    one, other = (train(finetuning(faces, epochs=1, seed=seed), runs) for seed in (0, 1))
    assert not same(weights(one), weights(other))


def test_learning_rate_schedule_follows_the_two_recipes():
    """Fine-tuning: 0 → peak, then a cosine from the end of the warm-up. Pretraining: the cosine counts from step 0."""
    for in_cosine, at_end_of_warmup in ((False, 1.0), (True, 0.5 * (1 + np.cos(0.05 * np.pi)))):
        parameter = torch.nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.AdamW([{"params": [parameter], "lr_scale": 0.5}], lr=2e-3)
        loop = Loop(epochs=100, lr=2e-3, warmup_epochs=5, start_lr=0.0, final_lr=1e-5, warmup_in_cosine=in_cosine)
        scheduler = training._scheduler(optimizer, loop, total=1000)
        rates = []
        for update in range(1001):
            scheduler.step_update(update)
            rates.append(optimizer.param_groups[0]["lr"])
        assert rates[0] == 0.0
        np.testing.assert_allclose(rates[25], 0.5 * 1e-3, rtol=1e-6)  # half-way up, times lr_scale
        np.testing.assert_allclose(rates[50], 1e-3 * at_end_of_warmup, rtol=1e-2)
        np.testing.assert_allclose(rates[1000], 0.5 * 1e-5, rtol=1e-2)


@pytest.mark.trains
def test_balance_loss_is_really_added_and_reference_leaves_it_out(faces, runs):
    """The clean loss rises by about coefficient × top-k × routers; the released one does not rise."""
    moae = {"epochs": 1, "experts": 4}
    clean, heavy = (train(finetuning(faces, "moae", balance_coeff=c, **moae), runs).losses()[0, 1] for c in (0.0, 1.0))
    assert 2.0 * 2 * 0.9 < heavy - clean < 2.0 * 2 * 1.5  # two routers, top-2: each balance loss is about 2
    zero, one = (train(finetuning(faces, "moae", behaviour="reference", balance_coeff=c, **moae), runs).losses()[0, 1]
                 for c in (0.0, 1.0))
    assert zero == one


def test_validation_and_few_labels_come_from_the_training_list_alone(faces):
    config = finetuning(faces, train_clips=14)
    listed, test = read_samples(config, "clip", "train"), read_samples(config, "clip", "test")
    train_set, validation = training_split(config, "clip", listed)
    ids = [{sample.id for sample in part} for part in (train_set, validation, test)]
    assert len(train_set) == 14 and not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    people = [{sample.group for sample in part} for part in (train_set, validation, test)]
    assert None not in people[0] and not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert training_split(config.model_copy(update={"seed": 5}), "clip", listed) == (train_set, validation)


@pytest.mark.trains
def test_a_corrupt_video_stops_the_run_by_name_or_is_skipped_and_counted(faces, tmp_path, runs):
    broken = tmp_path / "broken"
    shutil.copytree(faces, broken)
    victim = read_samples(finetuning(broken), "clip", "train")[0]
    victim.path.write_bytes(victim.path.read_bytes()[:200])
    with pytest.raises(UnreadableMedia, match=victim.path.name):
        train(finetuning(broken, validation=0.01), runs)
    run = train(finetuning(broken, on_unreadable="skip", epochs=1), runs)
    assert [use.skipped for use in run.record.data][0][0].startswith(victim.id)


@pytest.mark.parametrize(
    "change, words",
    [({"mod": "dfer"}, "mod"), ({"mode": "both"}, "mode"), ({"lr": -1.0}, "lr"), ({"augment_clips": "WILD"}, "WILD"),
     ({"warmup_epochs": 9.0}, "warmup_epochs"), ({"experts": "many"}, "experts")],
)
def test_a_wrong_setting_is_refused_by_name(faces, change, words):
    with pytest.raises(ValidationError, match=words):
        finetuning(faces, **change)


def test_a_missing_folder_is_named(faces, runs):
    with pytest.raises(ValueError, match="set clips="):
        train(finetuning(faces, clips=None), runs)


@pytest.mark.trains
def test_a_loss_that_explodes_stops_the_run(faces, runs, monkeypatch):
    import s4d_lib.training.jobs as stages

    monkeypatch.setattr(stages, "soft_target_cross_entropy", lambda logits, _: logits.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"step 0 \(learning rate .*loss became nan on .*\.mp4.*after 0 steps is saved"):
        train(finetuning(faces), runs)
    (told,) = runs.glob("f-*/diverged.json")
    assert len(json.loads(told.read_text())["batch"]["clip"]) == 6, "all files of the batch"
    assert reached(told.parent) == 0
