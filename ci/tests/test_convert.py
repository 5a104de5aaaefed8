"""checkpoints/convert.py, checkpoints/layouts.py: published files in, equal outputs out, and back; no key is lost."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import published
import pytest
import torch
from published import DIM, FRAMES, SIDE
from safetensors.torch import load_file, save_file

from s4d_lib.checkpoints.convert import Hints, convert, load_released
from s4d_lib.checkpoints.encoders import load_encoder
from s4d_lib.checkpoints.layouts import LAYOUTS
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.cli import app
from s4d_lib.files import sha256_of
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import read_metadata, save_model

SMALL = Hints(image_size=SIDE, frames=FRAMES)
IMAGE = torch.linspace(-1, 1, 2 * 3 * SIDE * SIDE).view(2, 3, SIDE, SIDE)
CLIP = torch.linspace(-2, 1, 2 * 3 * FRAMES * SIDE * SIDE).sin().view(2, 3, FRAMES, SIDE, SIDE)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def account(report, contents: dict[str, torch.Tensor], model: torch.nn.Module) -> None:
    """Every key of the file is taken or dropped, every key of the model matched or missing; none twice."""
    assert sorted([*report.taken, *report.dropped]) == sorted(contents)
    assert sorted([*report.matched, *report.missing]) == sorted(model.state_dict())


def converted(tmp_path: Path, source: Path, layout: str | None = None, hints: Hints = SMALL):
    """Convert a file, reload the result as a reader would, and give model and report."""
    report = convert(source, tmp_path / "out.safetensors", layout, hints)
    return load_model(tmp_path / "out.safetensors"), report


@pytest.mark.parametrize("capacity_factor", [0.5, 1.0, 100.0])
@torch.no_grad()
def test_a_fine_tuned_s4d_answers_as_released(tmp_path, capacity_factor):
    state, arrays = published.reference("s4d_finetune_tiny.npz")
    content = published.script_container(state, top_k=2, capacity_factor=capacity_factor, input_size=48, num_frames=6)
    source = saved(tmp_path / "checkpoint-best.pth", content)
    model, report = converted(tmp_path, source, hints=Hints(heads=4, behaviour="reference"))
    account(report, state, model)
    assert report.layout == "s4d" and report.dropped == {} and report.missing == ()
    for task in ("video", "image"):
        expected = arrays[f"expect.cf{capacity_factor}.{task}_logits"]
        torch.testing.assert_close(model(arrays[task]), expected, **CLOSE)
    assert any("optimizer was left in the file: dictionary of 2" in note for note in report.notes)
    assert any("frames: 6, from the training script's num_frames" in note for note in report.notes)


@pytest.mark.parametrize("task", ["video", "image"])
@torch.no_grad()
def test_a_pretrained_s4d_answers_as_released(tmp_path, task):
    state, arrays = published.reference("s4d_pretrain_tiny.npz")
    container = {"model": state, "optimizer": {}, "epoch": 99, "loss": 0.5, "steps": {}, "scaler": {}}
    source = saved(tmp_path / "checkpoint_100.pt", container)
    model, report = converted(tmp_path, source, hints=Hints(48, 16, heads=4, decoder_heads=2))
    account(report, state, model)
    assert report.layout == "s4d_pretrain" and len(report.matched) == len(state)
    output = model(arrays[task], arrays[f"{task}_mask"].bool())
    torch.testing.assert_close(output.prediction, arrays[f"expect.{task}_prediction"], **CLOSE)
    torch.testing.assert_close(output.loss, arrays[f"expect.{task}_loss"], **CLOSE)


@torch.no_grad()
def test_s2d_answers_as_released(tmp_path):
    state, arrays = published.reference("s2d_tiny.npz")
    source = saved(tmp_path / "s2d.pth", {"model_state_dict": {f"module.{key}": value for key, value in state.items()}})
    model, report = converted(tmp_path, source, hints=Hints(heads=4))
    account(report, {f"module.{key}": value for key, value in state.items()}, model)
    assert report.layout == "s2d" and report.missing == ()
    torch.testing.assert_close(model(arrays["clip"], arrays["landmarks"]), arrays["expect.logits"], **CLOSE)
    back = convert(tmp_path / "out.safetensors", tmp_path / "back.pth")
    assert back.dropped == {}
    again = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


@torch.no_grad()
def test_the_landmark_network_answers_as_released(tmp_path):
    state = published.landmark_state()
    source = saved(tmp_path / "mobilefacenet_model_best.pth.tar", {"state_dict": state, "epoch": 9, "best_acc1": 0.1})
    model, report = converted(tmp_path, source)
    account(report, state, model)
    face = torch.from_numpy(np.random.default_rng(published.zlib.crc32(b"face")).standard_normal((2, 3, 112, 112)))
    expected = np.load(published.DATA / "mobilefacenet_expect.npz")["landmarks"]
    np.testing.assert_allclose(model(face.float()).numpy(), expected, rtol=1e-4, atol=1e-5)
    convert(tmp_path / "out.safetensors", tmp_path / "back.pth.tar")
    assert torch.load(tmp_path / "back.pth.tar", weights_only=True)["state_dict"].keys() == state.keys()


@torch.no_grad()
def test_a_fine_tuned_videomae_answers_as_its_blocks_do(tmp_path):
    state, plain = published.videomae_finetuned()
    for block in plain.blocks:  # what the keys' bias is does not matter: here it is what timm drew
        assert block.attn.qkv.bias[DIM: 2 * DIM].abs().max() > 0
    model, report = converted(tmp_path, saved(tmp_path / "k400.pth", published.script_container({"module": 0} | state)))
    account(report, state, model)
    assert report.layout == "videomae" and model.config["classes"] == {"video": 9}
    torch.testing.assert_close(model(CLIP), published.videomae_logits(state, plain, CLIP), **CLOSE)
    convert(tmp_path / "out.safetensors", tmp_path / "back.pth")
    again = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


@torch.no_grad()
def test_omnimae_becomes_the_same_encoder(tmp_path):
    state, plain = published.omnimae()
    model, report = converted(tmp_path, saved(tmp_path / "vitb_pretrain.torch", state), hints=Hints(frames=FRAMES))
    account(report, state, model)
    assert report.layout == "omnimae" and isinstance(model, DualModalEncoder)
    torch.testing.assert_close(model(CLIP), plain.norm(plain.latents(CLIP)), **CLOSE)
    twice = IMAGE[:, :, None].expand(-1, -1, 2, -1, -1)
    torch.testing.assert_close(model(IMAGE), plain.norm(plain.latents(twice)), **CLOSE)
    assert any("pos_embed differs from the formula by at most" in note for note in report.notes)
    assert any("image_size: 32, from the position table" in note for note in report.notes)
    convert(tmp_path / "out.safetensors", tmp_path / "back.pth")
    again = torch.load(tmp_path / "back.pth", weights_only=True)
    for key in again:
        third = slice(DIM, 2 * DIM) if key.endswith("qkv.bias") else slice(0)
        assert (again[key][third] == 0).all()
        again[key][third] = state[key][third]
        assert torch.equal(again[key], state[key]), key


@pytest.mark.parametrize("decoder", [True, False])
@torch.no_grad()
def test_an_image_mae_becomes_the_same_encoder_of_images(tmp_path, decoder):
    state, plain = published.mae(decoder)
    model, report = converted(tmp_path, saved(tmp_path / "mae.pth", {"model": state}), hints=Hints(frames=FRAMES))
    account(report, state, model)
    assert report.layout == "mae" and model.size.image_size == 32
    torch.testing.assert_close(model(IMAGE), plain.norm(plain.latents(IMAGE)), **CLOSE)
    # Control: with the whole kernel on both frames the picture would enter twice.
    model.patch_embed.proj.weight *= 2
    assert not torch.allclose(model(IMAGE), plain.norm(plain.latents(IMAGE)), atol=1e-2)
    assert "no class token" in report.dropped["cls_token"]
    convert(tmp_path / "out.safetensors", tmp_path / "back.pth")
    again = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert torch.equal(again["patch_embed.proj.weight"], state["patch_embed.proj.weight"])


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.module.", "_orig_mod."])
@pytest.mark.parametrize("wrapped", ["all", "encoder"])
@pytest.mark.parametrize("container", ["model", "module", "state_dict", "model_state_dict", None])
def test_any_container_and_any_prefix(tmp_path, prefix, wrapped, container):
    state, _ = published.videomae_finetuned()
    keys = {key: prefix + key if wrapped == "all" or not key.startswith("head") else key for key in state}
    named = {keys[key]: value for key, value in state.items()}
    source = saved(tmp_path / "any.pth", {container: named, "epoch": 1} if container else named)
    model, report = load_released(source, hints=SMALL)
    account(report, named, model)
    assert report.layout == "videomae" and report.dropped == {}
    assert torch.equal(model.head["video"].weight, state["head.weight"])
    assert any(f"prefix {prefix!r} removed" in note for note in report.notes)


def test_the_wrapped_autoencoder_keeps_its_own_prefix(tmp_path):
    state, _ = published.reference("s4d_pretrain_tiny.npz")
    source = saved(tmp_path / "ddp.pth", {"model": {f"module.{key}": value for key, value in state.items()}})
    model, report = load_released(source, hints=Hints(48, 16, heads=4, decoder_heads=2))
    assert isinstance(model, DualModalMAE) and report.dropped == {} and report.missing == ()
    loaded = model.state_dict()
    assert loaded.keys() == state.keys(), "`module.` is gone and `encoder.` is kept"
    assert [key for key in state if not torch.equal(loaded[key], state[key])] == []


@pytest.mark.parametrize("make, layout", [
    (published.videomae_finetuned, "videomae"), (published.omnimae, "omnimae"), (published.mae, "mae")])
def test_an_encoder_goes_straight_into_a_classifier(tmp_path, make, layout):
    state, plain = make()
    size = Size(SIDE, FRAMES, 8, 2, DIM, 3, 2, decoder_dim=2, decoder_depth=1, decoder_heads=1)
    classifier = S4DClassifier(size, moae_blocks=(2,), experts=3)
    state = {f"module.{key}": value for key, value in state.items()}
    report = load_encoder(classifier, saved(tmp_path / "file.pth", {"model": state}))
    account(report, state, classifier)
    assert report.layout == layout
    assert torch.equal(classifier.blocks[1].mlp.fc1.weight, plain.blocks[1].mlp.fc1.weight)
    assert all("moe_layer" in key or key.startswith(("head.", "fc_norm.")) for key in report.missing)


def test_what_a_file_lacks_is_listed_and_not_invented(tmp_path):
    state, _ = published.mae()
    source = saved(tmp_path / "mae.pth", state)
    report = convert(source, tmp_path / "s2d.safetensors", "s2d")
    assert "cls_token" in report.matched and "ln_post.weight" in report.matched
    assert {"temporal_embedding", "head.fc_cls.weight", "prompt_blocks.0.fovea.smooth"} <= set(report.missing)
    assert not set(report.missing) & load_file(tmp_path / "s2d.safetensors").keys()
    with pytest.warns(UserWarning, match=r"has no .*temporal_embedding.*fresh values"):
        model = load_model(tmp_path / "s2d.safetensors")
    assert torch.equal(model.cls_token, state["cls_token"])


def test_the_header_tells_where_weights_come_from(tmp_path):
    state, _ = published.mae()
    source = saved(tmp_path / "mae.pth", state)
    convert(source, tmp_path / "out.safetensors", hints=Hints(frames=FRAMES))
    metadata = read_metadata(tmp_path / "out.safetensors")
    assert metadata["source"] == "mae.pth" and metadata["source_sha256"] == sha256_of(source)
    assert metadata["source_bytes"] == source.stat().st_size and "CC-BY-NC" in metadata["licence"]
    assert set(metadata["report"]["dropped"]) | set(metadata["report"]["taken"]) == state.keys()


def test_layouts_that_do_not_fit_are_refused(tmp_path):
    state, _ = published.reference("s4d_finetune_tiny.npz")
    source = saved(tmp_path / "s4d.pth", {"model": state})
    convert(source, tmp_path / "s4d.safetensors", hints=Hints(48, 6, heads=4))
    with pytest.raises(ValueError, match="cannot be written as videomae: it has experts"):
        convert(tmp_path / "s4d.safetensors", tmp_path / "back.pth", "videomae")
    with pytest.raises(ValueError, match="S4DClassifier, which can be written as s4d, videomae, hf_videomae, not as"):
        convert(tmp_path / "s4d.safetensors", tmp_path / "back.pth", "mae")
    with pytest.raises(FileExistsError, match="--overwrite"):
        convert(source, tmp_path / "s4d.safetensors")
    with pytest.raises(ValueError, match="the source itself"):
        convert(source, source, overwrite=True)
    with pytest.raises(ValueError, match="suffix .safetensors"):
        convert(source, tmp_path / "out.pth")
    with pytest.raises(ValueError, match="layout must be one of s4d, "):
        convert(source, tmp_path / "out.safetensors", "clip")
    with pytest.raises(BadCheckpoint, match="describes no possible network|must hold"):
        convert(source, tmp_path / "out.safetensors", "s2d")
    with pytest.raises(BadCheckpoint, match="width of 48 does not tell .* heads; say it with --heads"):
        convert(source, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists() and not (tmp_path / "back.pth").exists()


@pytest.mark.parametrize("mutate, said", [
    (lambda s: s.pop("blocks.1.attn.q_bias"), r"1 tensors of its network are not in it, first blocks\.1\.attn\.q_bias"),
    (lambda s: [s.pop(key) for key in list(s) if key.startswith("blocks.1.")], r"it has no blocks\.1, but later ones"),
    (lambda s: s.pop("patch_embed.proj.weight"), "none of the layouts"),
    (lambda s: s.update({"blocks.2.mlp.fc1.weight": torch.zeros(7, DIM)}),
     r"blocks\.2\.mlp\.fc1\.weight is \[7, 128\] in the file and \[512, 128\] in the model"),
    (lambda s: s.update({"blocks.0.norm1.bias": torch.full((DIM,), torch.nan)}), r"blocks\.0\.norm1\.bias holds NaN"),
    (lambda s: s.update({"module.head.weight": s["head.weight"]}), None),
    (lambda s: s.update({"blocks.0.attn.rotary": torch.zeros(3)}), r"no place .*--allow attn\.rotary"),
    (lambda s: s.clear(), "no tensors|none of the layouts"),
])
def test_a_mutated_file_is_refused_or_told_apart(tmp_path, mutate, said):
    state, _ = published.videomae_finetuned()
    mutate(state)
    source = saved(tmp_path / "mutated.pth", {"model": state})
    if said is None:  # an extra key changes nothing and is named
        model, report = load_released(source, hints=SMALL)
        account(report, state, model)
        assert len(report.dropped) == 1 and "unknown" in next(iter(report.dropped.values()))
    else:
        with pytest.raises(BadCheckpoint, match=said) as refused:
            load_released(source, hints=SMALL)
        assert str(source) in str(refused.value)


def test_two_keys_that_would_become_one_are_named(tmp_path):
    state, _ = published.videomae_finetuned()
    state = {f"backbone.{key}": value for key, value in state.items()} | {"blocks.0.norm1.bias": torch.zeros(DIM)}
    with pytest.raises(BadCheckpoint, match=r"blocks\.0\.norm1\.bias would both become|would both become blocks\.0"):
        load_released(saved(tmp_path / "twice.pth", state), hints=SMALL)


def test_half_precision_and_bare_safetensors_are_read(tmp_path):
    state, _ = published.videomae_finetuned()
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    model, report = converted(tmp_path, tmp_path / "half.safetensors")
    assert report.missing == () and model.head["video"].weight.dtype == torch.float32
    torch.testing.assert_close(model.head["video"].weight, state["head.weight"], rtol=1e-3, atol=1e-3)


@pytest.mark.spawns
def test_every_layout_is_exercised_here_and_named_in_the_help():
    here = Path(__file__)
    text = here.read_text() + Path(published.__file__).read_text() + (here.parent / "test_ports.py").read_text()
    assert all(name in text for name in LAYOUTS)
    said = subprocess.run([sys.executable, "-m", "s4d_lib.cli", "convert", "--help"], capture_output=True, text=True,
                          env={**__import__("os").environ, "COLUMNS": "200"}).stdout
    assert all(name in said for name in LAYOUTS)


def test_the_command_converts_reports_and_refuses(tmp_path, monkeypatch, capsys):
    state, _ = published.mae()
    source = saved(tmp_path / "mae.pth", {"model": state})

    def s4d(*words: object) -> tuple[int, str, str]:
        """(exit code, what is printed, what is said of an error)"""
        monkeypatch.setattr(sys, "argv", ["s4d", "convert", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return ended.value.code or 0, *capsys.readouterr()

    code, out, err = s4d(source, tmp_path / "mae.safetensors", "--frames", 6)
    assert code == 0, err
    assert "mae.pth (mae: MAE image models" in out and "dropped  cls_token (1)" in out and "CC-BY-NC-4.0" in out
    code, _, err = s4d(source, tmp_path / "mae.safetensors")
    assert code == 2 and err.startswith("s4d: ") and "--overwrite" in err
    page = tmp_path / "page.pth"
    page.write_text("<!DOCTYPE html><html>Sign in</html>")
    code, _, err = s4d(page, tmp_path / "page.safetensors")
    assert code == 2 and "it is a web page saved as a checkpoint" in err and len(err.splitlines()) == 1


def test_a_file_of_ours_returns_to_the_layout_it_came_from(tmp_path):
    torch.manual_seed(0)
    model = DualModalMAE(Size(32, 4, 8, 2, 64, 2, 1, decoder_dim=64, decoder_depth=1, decoder_heads=1))
    path = save_model(tmp_path / "mae.safetensors", model)
    assert convert(path, tmp_path / "one.pt").layout == "s4d_pretrain"
    twin, report = load_released(tmp_path / "one.pt", hints=Hints(32, 4))
    assert report.layout == "s4d_pretrain" and twin.config == model.config
    assert convert(path, tmp_path / "two.safetensors", "videomae_pretrain").layout == "videomae_pretrain"
    assert load_file(tmp_path / "two.safetensors").keys() == model.state_dict().keys()
