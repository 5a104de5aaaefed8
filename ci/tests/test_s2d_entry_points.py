"""A trained S2D model behind every door: one command, predict, Hub, timm, and the layout its authors publish."""

import json

import pytest
import timm
import torch
from typer.testing import CliRunner

from s4d_lib.checkpoints.cards import open_model
from s4d_lib.checkpoints.convert import convert, load_released
from s4d_lib.cli.app import app
from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.models.s2d import S2D_SIZES, S2DClassifier
from s4d_lib.predict.video import predict_one
from s4d_lib.training import tiers
from s4d_lib.training.tiers import train_s2d

pytestmark = pytest.mark.trains


def test_both_stages_from_one_command(faces, tmp_path, monkeypatch):
    folders = {"stills": str(faces / "stills"), "clips": str(faces / "clips")}
    quick = {"size": "nano", "init": None, "landmarks": "random", "epochs": 1, "warmup_epochs": 0.0}
    monkeypatch.setattr(tiers, "_folders", lambda *_: folders)
    monkeypatch.setitem(tiers.S2D, "smoke", {mode: tiers.S2D["smoke"][mode] | quick for mode in ("sfer", "dfer")})
    monkeypatch.setenv("S4D_RUNS", str(tmp_path))
    said = CliRunner().invoke(app, ["train", "s2d", "--tier", "smoke"])
    assert said.exit_code == 0, said.output
    lines = [line for line in said.output.splitlines() if ": S2D " in line]
    assert "S2D sfer: SFER WAR" in lines[0] and "S2D dfer: DFER WAR" in lines[1] and len(lines) == 2
    image, video = train_s2d("smoke")
    assert [str(run.folder) for run in (image, video)] == [line.partition(": ")[0] for line in lines], "loaded"
    assert json.loads((video.folder / "config.json").read_text())["init"] == str(image.weights)


def test_a_trained_model_predicts(stages, faces):
    clip = sorted((faces / "clips" / "clip_mp4").rglob("*.mp4"))[0]
    found = predict_one(clip, stages[1].weights, crop="none")
    assert found.answer.label in SCHEMAS["dfew"].classes and found.card.stride == 2
    still = sorted(path for path in (faces / "stills").rglob("*") if path.suffix in (".png", ".jpg"))[0]
    found = predict_one(still, stages[0].weights, crop="none")
    assert found.answer.label in SCHEMAS["affectnet7"].classes and found.kind == "image"
    with pytest.raises(ValueError, match="no head for images"):
        predict_one(still, stages[1].weights, crop="none")
    with pytest.raises(ValueError, match="no landmark network of its own"):
        open_model(S2DClassifier(**S2D_SIZES["nano"]))
    assert open_model(S2DClassifier(**S2D_SIZES["nano"], prompts=False)).card.classes.keys() == {"video"}


@torch.no_grad()
def test_a_trained_model_goes_to_the_hub_and_to_timm(stages, tmp_path):
    for number, run in enumerate(stages):
        model = run.model()
        x = torch.randn(2, 3, *([8] if number else []), 48, 48, generator=torch.Generator().manual_seed(0))
        model.metadata = {"schemas": {"video": "dfew"}}
        model.save_pretrained(tmp_path / str(number))
        again = S2DClassifier.from_pretrained(tmp_path / str(number))
        assert torch.equal(again(x), model(x)) and again.config == model.config
        card = (tmp_path / str(number) / "README.md").read_text()
        assert ("Images `[b 3 48 48]`" in card) == (not number) and "landmark features of every frame" not in card
    built = timm.create_model("s2d_vit_tiny_patch8_48", **S2D_SIZES["nano"], landmark_net=0.25,
                              checkpoint_path=str(stages[1].weights)).eval()
    torch.testing.assert_close(built(x), model(x))


@torch.no_grad()
def test_a_trained_model_is_written_as_the_authors_publish_and_read_back(stages, tmp_path):
    for number, run in enumerate(stages):
        report = convert(run.weights, tmp_path / f"{number}.pth")
        assert report.layout == "s2d"
        assert {reason for reason in report.dropped.values()} == {"the landmark network has a file of its own"}
        back, report = load_released(tmp_path / f"{number}.pth")
        model, frames = run.model(), 8 if number else 1
        x = torch.randn(2, 3, frames, 48, 48, generator=torch.Generator().manual_seed(0))
        landmarks = model.landmark_net.features(x.transpose(1, 2).flatten(0, 1))
        torch.testing.assert_close(back(x, landmarks), model(x))
        assert report.missing == () and any("as in the size 'nano'" in note for note in report.notes)
