"""SDL inside a training of S2D: when the queues fill, what that changes, as shipped, and resuming to the last bit."""

import numpy as np
import pytest
import torch
from broken_runs import interrupted
from s2d_runs import config
from safetensors.torch import load_file

from s4d_lib.training import loop, s2d
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.runs import train
from s4d_lib.training.s2d import Distillation, build_s2d

pytestmark = pytest.mark.trains

SDL = {"sdl": True, "prompts": False, "epochs": 5, "sdl_slots": 3, "dropout": 0.2, "landmarks": None}


def history(run, key: str) -> list[float]:
    return [line[key] for line in run.record.results["history"]]


def test_the_clean_schedule_fills_the_queues_and_the_loss_counts(faces, tmp_path):
    """Fails when the queue update is disabled: what was pushed is counted, and the run without it is another one."""
    run = train(config(faces, **SDL), tmp_path)
    steps = run.record.results["updates"] // 5
    assert history(run, "sdl_pushed") == [0, 0, 6 * steps, 12 * steps, 18 * steps], "from epoch 2 on, every step"
    assert history(run, "sdl_weight") == [0, 0, 0.01, 0.5, 1.0]
    queues = load_file(run.folder / "sdl.safetensors")
    assert queues["features"].shape == (7, 3, 64) and queues["pushed"].sum() == 18 * steps
    filled = queues["pushed"].clamp(max=3)
    sums = queues["outputs"].sum(-1)
    assert all((sums[c, : filled[c]] - 1).abs().max() < 1e-5 for c in range(7) if filled[c]), "probabilities"
    assert not any("sdl" in key or "anchor" in key for key in run.model().state_dict()), "the model stays its own"
    off = train(config(faces, **SDL | {"sdl": False}), tmp_path)
    assert np.array_equal(run.losses()[: 2 * steps], off.losses()[: 2 * steps]), "equal while it is silent"
    assert not np.array_equal(run.losses()[3 * steps :], off.losses()[3 * steps :])


def test_control_without_the_update_the_run_is_another_one(faces, tmp_path, monkeypatch):
    run = train(config(faces, **SDL), tmp_path / "updated")
    monkeypatch.setattr(s2d, "collect", lambda *_: None)
    stuck = train(config(faces, **SDL), tmp_path / "stuck")
    assert history(stuck, "sdl_pushed") == [0] * 5 and history(run, "sdl_pushed")[-1] > 0
    assert not np.array_equal(run.losses(), stuck.losses())
    off = train(config(faces, **SDL | {"sdl": False}), tmp_path / "off")
    assert np.array_equal(stuck.losses(), off.losses()), "an empty queue distils nothing"


def test_as_shipped_the_queue_is_never_updated(faces, tmp_path):
    shipped = SDL | {"behaviour": "reference"}
    run = train(config(faces, **shipped), tmp_path)
    assert history(run, "sdl_pushed") == [0] * 5 and history(run, "sdl_weight")[-1] == 1.0, "and yet its loss is on"
    model = build_s2d(config(faces, **shipped))
    labels = [s.label for s in training_split(config(faces, **shipped), "clip",
                                              read_samples(config(faces), "clip", "train"))[0]]
    start = Distillation(config(faces, **shipped), model, labels).anchors.state_dict()
    kept = load_file(run.folder / "sdl.safetensors")
    assert all(torch.equal(kept[key], start[key]) for key in start), "the noise it began with, to the last bit"
    moving = train(config(faces, **shipped, sdl_update_every=1), tmp_path)
    assert history(moving, "sdl_pushed")[-1] > 0, "control: the number 100 is what keeps it still"


@pytest.mark.parametrize("behaviour", ["clean", "reference"])
def test_resuming_keeps_the_queue_bit_for_bit(faces, tmp_path, monkeypatch, behaviour):
    wanted = config(faces, **SDL, behaviour=behaviour, sdl_update_every=1, ema=0.9)
    whole = train(wanted, tmp_path / "whole")
    updates = whole.record.results["updates"]
    resumed = interrupted(monkeypatch, wanted, tmp_path / "stopped", updates - updates // 5 - 1)  # inside an epoch
    assert np.array_equal(whole.losses(), resumed.losses())
    queue, again = (load_file(run.folder / "sdl.safetensors") for run in (whole, resumed))
    assert all(torch.equal(queue[key], again[key]) for key in queue) and queue["pushed"].sum() > 0
    one, other = whole.model().state_dict(), resumed.model().state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert whole.record.results["history"] == resumed.record.results["history"]


def test_control_a_queue_that_is_not_kept_gives_another_run(faces, tmp_path, monkeypatch):
    wanted = config(faces, **SDL)
    whole = train(wanted, tmp_path / "whole")
    load, save = loop.load_state, loop.save_state
    monkeypatch.setattr(loop, "load_state", lambda *args: load(*args[:-1]))
    monkeypatch.setattr(loop, "save_state", lambda *args: save(*args[:-1]))
    updates = whole.record.results["updates"]
    forgot = interrupted(monkeypatch, wanted, tmp_path / "stopped", updates - updates // 5 - 1)
    assert not np.array_equal(whole.losses(), forgot.losses())


def test_a_checkpoint_without_the_queue_is_refused(faces, tmp_path, monkeypatch):
    save = loop.save_state
    monkeypatch.setattr(loop, "save_state", lambda *args: save(*args[:-1]))
    with pytest.raises(RuntimeError, match="Missing key"):
        interrupted(monkeypatch, config(faces, **SDL), tmp_path, 3)


def test_sdl_survives_divided_batches(faces, tmp_path):
    """Micro-batches carry their share of what the second pass reads: the same anchors, the same losses."""
    still = SDL | {"dropout": 0.0, "mixup": 0.0, "cutmix": 0.0}
    whole, parts = (train(config(faces, **still, accumulate=n), tmp_path) for n in (1, 3))
    np.testing.assert_allclose(whole.losses(), parts.losses(), rtol=1e-3)
    queue, again = (load_file(run.folder / "sdl.safetensors") for run in (whole, parts))
    assert torch.equal(queue["pushed"], again["pushed"])
    torch.testing.assert_close(queue["features"], again["features"], rtol=1e-2, atol=1e-2)
