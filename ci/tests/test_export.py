"""checkpoints/export.py: graphs answer as the model does, for any batch, and their card says how to ask."""

import importlib.util
import json

import pytest
import torch
from typer.testing import CliRunner

from s4d_lib.checkpoints import export as exporting
from s4d_lib.checkpoints.export import CARD, export_model
from s4d_lib.cli import app as command
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.files import SHIPPED, save_model

SIZE = Size(image_size=(8, 12), frames=4, patch=4, tubelet=2, dim=24, depth=1, heads=2, decoder_dim=8, decoder_depth=1,
            decoder_heads=2, positions="separable")
SHAPES = {"image": (3, 8, 12), "video": (3, 4, 8, 12)}
FOR_ONNX = all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime")))
needs_onnx = pytest.mark.skipif(not FOR_ONNX, reason="onnx, onnxscript or onnxruntime is absent: the extra `export`")


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Large weights, so that every part shows in the answers."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def classifier(**more) -> S4DClassifier:
    settings = {"moae_blocks": (0,), "experts": 5, "top_k": 2, "capacity_factor": 0.5} | more
    return lively(S4DClassifier(SIZE, {"image": 8, "video": 7}, **settings))


def saved(tmp_path, model, **metadata):
    return save_model(tmp_path / "model.safetensors", model, metadata)


@torch.no_grad()
def same(model, task, answer):
    """Batches other than the one that was traced, and numbers far from those that were tried."""
    for count in (1, 2, 5):
        x = 3 * torch.randn(count, *SHAPES[task])
        torch.testing.assert_close(answer(x), model(x), rtol=1e-5, atol=1e-5)


MODELS = {
    "experts": (lambda: classifier(), "video", [7]),
    "one expert a task": (lambda: classifier(experts=2, top_k=1, router="task", pool="positions"), "image", [8]),
    "encoder": (lambda: lively(DualModalEncoder(SIZE)), "image", [6, 24]),
    "autoencoder": (lambda: lively(DualModalMAE(SIZE)), "video", [12, 24]),
}


@pytest.mark.parametrize("name", [*MODELS][1:])  # experts: below, where the file says reference
def test_a_pt2_answers_as_the_model(tmp_path, name):
    make, task, output = MODELS[name]
    model = make()
    card = export_model(saved(tmp_path, model), tmp_path / "out", ["pt2"], [task])
    graph = torch.export.load(tmp_path / "out" / f"{task}.pt2").module()
    network = model.encoder if name == "autoencoder" else model
    same(network, task, graph)
    said = card["graphs"][f"{task}.pt2"]
    assert said["output"]["shape"] == ["batch", *output] and said["input"]["shape"] == ["batch", *SHAPES[task]]
    assert said["sha256"] == sha256_of(tmp_path / "out" / f"{task}.pt2")
    with pytest.raises(Exception, match="size|shape|[Gg]uard"):  # another frame is not answered in silence
        graph(torch.zeros(2, *SHAPES[task][:-1], 16))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["experts", "encoder"])
def test_an_onnx_answers_as_the_model(tmp_path, name):
    onnxruntime = pytest.importorskip("onnxruntime")
    make, task, _ = MODELS[name]
    model = make()
    card = export_model(saved(tmp_path, model), tmp_path / "out", ["onnx"], [task])
    session = onnxruntime.InferenceSession(tmp_path / "out" / f"{task}.onnx", providers=["CPUExecutionProvider"])
    said = card["graphs"][f"{task}.onnx"]
    same(model, task, lambda x: torch.from_numpy(session.run([said["output"]["name"]], {"pixels": x.numpy()})[0]))


def test_the_card_says_how_to_ask_and_whose_weights_they_are(tmp_path):
    known = {"licence": "CC-BY-4.0", "trained_on": "pictures of ours", "class_names": {"image": list("abcdefgh")},
             "stride": 3}
    # Without experts the released behaviour has no noise to draw.
    path = saved(tmp_path, model := classifier(moae_blocks=(), behaviour="reference"), **known)
    export_model(path, tmp_path / "out", ["pt2"], ["image"], schema={"video": "dfew"})
    same(model, "image", torch.export.load(tmp_path / "out" / "image.pt2").module())
    card = json.loads((tmp_path / "out" / CARD).read_text())
    assert card["weights"] == {"file": "model.safetensors", "sha256": sha256_of(path), "licence": "CC-BY-4.0",
                               "trained_on": "pictures of ours"}
    assert card["answers"]["classes"]["image"] == list("abcdefgh") and card["answers"]["stride"] == 3
    assert card["answers"]["classes"]["video"][0] == "Happiness" and card["model"]["size"]["frames"] == 4
    assert card["pixels"]["mean"] == [0.485, 0.456, 0.406] and card["pixels"]["colours"] == "RGB"
    assert list(card["graphs"]) == ["image.pt2"], "what was asked for"


def test_the_released_behaviour_is_refused_and_clean_is_another_answer(tmp_path):
    model = classifier(behaviour="reference")
    path = saved(tmp_path, model)
    with pytest.raises(Refused, match="noise.*other samples.*--behaviour clean"):
        export_model(path, tmp_path / "out", ["pt2"])
    assert not (tmp_path / "out").exists()
    export_model(path, tmp_path / "out", ["pt2"], ["video"], behaviour="clean")
    graph = torch.export.load(tmp_path / "out" / "video.pt2").module()
    clean = lively(S4DClassifier(**{**model.config, "behaviour": "clean"}))
    same(clean, "video", graph)
    with torch.no_grad():
        x = torch.randn(4, *SHAPES["video"])
        assert not torch.allclose(model(x), graph(x), atol=1e-3), "control: the released behaviour answers otherwise"


def test_what_cannot_be_exported_is_refused_with_a_remedy(tmp_path, monkeypatch):
    path, out = saved(tmp_path, classifier()), tmp_path / "out"
    for wanted, said in (({"formats": ["tflite"]}, "no format 'tflite'; there are pt2, onnx"),
                         ({"formats": []}, "at least one format"), ({"tasks": ["audio"]}, "no head or input 'audio'"),
                         ({"behaviour": "reference"}, "behaviour must be clean"),
                         ({"schema": {"video": "affectnet8"}}, "has 8 classes and the video head 7")):
        with pytest.raises(Refused, match=said):
            export_model(path, out, **{"formats": ["pt2"], **wanted})
    with pytest.raises(Refused, match="LandmarkNet; what is exported"):
        export_model(SHIPPED["landmarks"], out)
    one_head = save_model(tmp_path / "one.safetensors", lively(S4DClassifier(SIZE, {"video": 7})))
    with pytest.raises(Refused, match="no head or input 'image'; there are video"):
        export_model(one_head, out, ["pt2"], ["image"])
    with pytest.raises(Refused, match="no head to give a schema"):
        export_model(save_model(tmp_path / "e.safetensors", DualModalEncoder(SIZE)), out, ["pt2"],
                     schema={"video": "dfew"})
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        export_model(tmp_path / "nothing.safetensors", out)
    assert not out.exists(), "nothing was written"
    (out / CARD).parent.mkdir()
    (out / "video.pt2").write_text("mine")
    with pytest.raises(Refused, match="video.pt2 is there already"):
        export_model(path, out, ["pt2"])
    assert (out / "video.pt2").read_text() == "mine" and [file.name for file in out.iterdir()] == ["video.pt2"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"ONNX needs the package 'onnx'.*s4d-book\[export\]"):
        export_model(path, out, ["onnx"])


def test_a_graph_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    written = exporting._pt2
    monkeypatch.setattr(exporting, "_pt2", lambda *given: lambda x: written(*given)(x) + 1e-2)
    with pytest.raises(RuntimeError, match="answers otherwise than the model, by 0.01"):
        export_model(saved(tmp_path, classifier(moae_blocks=())), tmp_path / "out", ["pt2"], ["image"])
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command(tmp_path):
    words = ["export", str(saved(tmp_path, classifier(moae_blocks=()))), str(tmp_path / "out"), "--format", "pt2"]
    said = CliRunner().invoke(command.app, [*words, "--task", "image", "--schema", "image=affectnet8"])
    assert said.exit_code == 0, said.output
    assert "image.pt2" in said.output and "Licence of the weights: not recorded" in said.output
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [CARD, "image.pt2"]
    again = CliRunner().invoke(command.app, words)
    assert again.exit_code and "is there already" in str(again.exception)
