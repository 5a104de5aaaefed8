"""Numbers that are not finite: the run stops and names the files, and its folder is enough to take the step again."""

import json
import math

import pytest
import torch
from test_training import finetuning, pretraining

from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.errors import Refused
from s4d_lib.layers import heads
from s4d_lib.models import classifier
from s4d_lib.training.divergence import Diverged, blamed
from s4d_lib.training.replay import replay
from s4d_lib.training.runs import train

SMALL = {"size": "nano", "epochs": 1, "warmup_epochs": 0.0}


def stopped(runs, name):
    (told,) = runs.glob(f"{name}-*/diverged.json")
    return told.parent, json.loads(told.read_text())


@pytest.mark.trains
@pytest.mark.parametrize("make", [pretraining, finetuning])
def test_data(faces, tmp_path, monkeypatch, make):
    """One clip brings NaN: its file is named, not its whole batch; and the saved step gives the same again."""
    whole = FaceDataset.batch

    def with_a_hole(self, indices, epoch=0):
        found = whole(self, indices, epoch)
        if 3 in indices and found["x"].ndim > 4:
            found["x"][list(indices).index(3)].view(-1)[5] = math.nan
        return found

    monkeypatch.setattr(FaceDataset, "batch", with_a_hole)
    config = make(faces, modalities=("clip",), **SMALL) if make is pretraining else make(faces, **SMALL)
    with pytest.raises(Diverged, match=r"the data of \S+\.mp4 is not finite, and the loss became nan.*replay\("):
        train(config, tmp_path)
    folder, told = stopped(tmp_path, config.name)
    monkeypatch.undo()
    again = replay(folder)
    assert math.isnan(again.losses["clip"]) and again.step == told["step"]
    assert again.first or make is pretraining, "a hole that the mask hides is in the target, and no part reads it"
    assert len(again.files["clip"]) == 6


@pytest.mark.trains
def test_loss_and_the_part_that_made_it(faces, tmp_path, monkeypatch):
    """A part that overflows in the third step is named, and the weights are those before the step."""
    pool, calls = heads.pool_latents, []

    def overflowing(latents, norm, *rest):
        calls.append(1)
        return pool(latents, norm, *rest) * (math.inf if len(calls) > 2 else 1)

    monkeypatch.setattr(classifier, "pool_latents", overflowing)
    with pytest.raises(Diverged, match=r"step 2 .*: the loss became nan on"):
        train(finetuning(faces, **SMALL), tmp_path)
    folder, told = stopped(tmp_path, "f")
    assert told["what"].startswith("the loss became"), "no file is to blame"
    assert replay(folder).first.startswith("dropout"), "the first module that reads what overflowed"
    monkeypatch.undo()
    mended = replay(folder)
    assert math.isfinite(mended.losses["clip"]) and math.isfinite(mended.gradient_norm) and not mended.first


@pytest.mark.trains
def test_the_same_numbers(faces, tmp_path, monkeypatch):
    """Loss and gradient of the replayed step are those that the run saw, mixing and masks included."""
    from s4d_lib.training import loop

    seen = []

    def norm(model):
        found = whole(model)
        seen.append(float(found))
        return math.nan if len(seen) == 2 else found

    whole = loop.gradient_norm
    monkeypatch.setattr(loop, "gradient_norm", norm)
    with pytest.raises(Diverged, match="the gradient became nan at a loss of"):
        train(finetuning(faces, **SMALL), tmp_path)
    folder, told = stopped(tmp_path, "f")
    again = replay(folder)
    assert again.gradient_norm == pytest.approx(seen[1], rel=1e-5)
    assert f"at a loss of {again.losses['clip']:.4g}" in told["what"]


def test_blame_follows_the_rows_of_a_file():
    """Two views of each file: rows 2 and 3 are the second file's."""
    x = torch.zeros(6, 3, 4)
    assert blamed("so", {"clip": ["a", "b", "c"]}, {"clip": {"x": x, "label": torch.zeros(6)}}) == "so"
    x[3, 0, 0] = math.inf
    said = blamed("so", {"clip": ["a", "b", "c"]}, {"clip": {"x": x}})
    assert said == "the data of b is not finite, and so"


def test_a_folder_without_a_step_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"config\.json: not there"):
        replay(tmp_path)
