"""checkpoints/allowance.py, checkpoints/stated.py, weights/shards.py: what would load as another network is refused.

Every case has its control: the same file without the change is read.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import published
import pytest
import torch
from published import DIM, FRAMES, SIDE
from safetensors.torch import load_file, save_file

from s4d_lib.checkpoints.convert import Hints, convert, load_released
from s4d_lib.checkpoints.encoders import load_encoder
from s4d_lib.checkpoints.s2d_weights import load_image_model
from s4d_lib.cli import app
from s4d_lib.errors import Refused
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint, read_contents
from s4d_lib.weights.files import read_metadata

pytestmark = pytest.mark.slow  # together a minute: left out between two edits

SMALL = Hints(image_size=SIDE, frames=FRAMES)
SIZE = Size(SIDE, FRAMES, 8, 2, DIM, 3, 2, decoder_dim=2, decoder_depth=1, decoder_heads=1)


STATE = published.videomae_finetuned()[0]


def saved(path: Path, state: dict, **args: object) -> Path:
    torch.save({"model": state, "args": argparse.Namespace(**args)} if args else {"model": state}, path)
    return path


def videomae(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    return STATE | more


# Tensors without a place ---------------------------------------------------------------------------------------------

INSIDE = ["blocks.1.gamma_1", "blocks.0.ls1.gamma", "blocks.2.ls2.lambda1", "blocks.0.attn.q_norm.weight",
          "blocks.0.attn.relative_position_bias_table", "blocks.1.norm1_1.bias", "blocks.0.attn.k_bias",
          "blocks.2.mlp.norm.weight", "blocks.0.adapter.down.weight", "temporal_blocks.0.norm.weight"]
BEFORE = ["register_tokens", "reg_token", "rel_pos_bias.relative_position_bias_table", "norm_pre.weight",
          "temporal_embedding", "patch_embed.norm.weight", "dist_token", "prompt_tokens"]


@pytest.mark.parametrize("key", INSIDE + BEFORE)
def test_a_tensor_without_a_place_is_refused_unless_it_is_named(tmp_path, key):
    path = saved(tmp_path / "file.pth", videomae(**{key: torch.ones(DIM)}))
    with pytest.raises(BadCheckpoint, match=rf"1 tensors .* have no place .*{key.rpartition('.')[2]}.*--allow"):
        load_released(path, hints=SMALL)
    for allow in (key, key.rpartition(".")[2], "*" + key[3:]):
        _, report = load_released(path, hints=Hints(SIDE, FRAMES, allow=(allow,)))
        assert list(report.dropped) == [key]
    with pytest.raises(BadCheckpoint, match="no place|knows nothing"):
        load_encoder(S4DClassifier(SIZE), path)
    _, report = load_released(saved(path, videomae()), hints=SMALL)
    assert report.dropped == {}, "control"


@pytest.mark.parametrize("key", ["mask_token", "decoder_pred.weight", "teacher.head.weight", "projector.0.weight"])
def test_what_comes_after_the_encoder_is_dropped_and_named(tmp_path, key):
    _, report = load_released(saved(tmp_path / "file.pth", videomae(**{key: torch.ones(DIM)})), hints=SMALL)
    assert list(report.dropped) == [key]


def test_a_name_that_lets_nothing_go_is_refused(tmp_path):
    path = saved(tmp_path / "file.pth", videomae(**{"blocks.0.gamma_1": torch.ones(DIM)}))
    with pytest.raises(BadCheckpoint, match="blocks.0.gamma_1"):
        load_released(path, hints=Hints(SIDE, FRAMES, allow=("gamma_2",)))
    with pytest.raises(Refused, match="nothing called 'gamma_2' was in the way"):
        load_released(path, hints=Hints(SIDE, FRAMES, allow=("gamma_1", "gamma_2")))


def test_an_image_model_with_layer_scale_does_not_become_s2d(tmp_path):
    state, _ = published.mae()
    model = S2DClassifier(7, image_size=SIDE, frames=4, patch=8, dim=DIM, depth=3, heads=2)
    load_image_model(model, saved(tmp_path / "plain.pth", state))
    scaled = state | {f"blocks.{n}.ls1.gamma": torch.full((DIM,), 0.1) for n in range(3)}
    with pytest.raises(BadCheckpoint, match=r"3 tensors in its blocks have no place"):
        load_image_model(model, saved(tmp_path / "scaled.pth", scaled))


# What is missing -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("gone, said", [
    ("blocks.1.", r"it has no blocks\.1, but later ones"), ("blocks.1.mlp.", "4 tensors of its network are not in it"),
    ("fc_norm.", r"first fc_norm\.weight"), ("head.bias", r"first head\.video\.bias"),
    ("blocks.2.norm2.bias", r"first blocks\.2\.norm2\.bias"),
])
def test_a_network_in_part_is_refused(tmp_path, gone, said):
    state = {key: value for key, value in videomae().items() if not key.startswith(gone)}
    with pytest.raises(BadCheckpoint, match=said):
        load_released(saved(tmp_path / "part.pth", state), hints=SMALL)


@pytest.mark.parametrize("gone", ["blocks.1.moe_layer.experts.2.", "blocks.2.moe_layer.router.noise_linear.bias",
                                  "blocks.1.moe_layer.experts.0.fc1.bias"])
def test_an_expert_or_a_router_that_is_lost_is_noticed(tmp_path, gone):
    torch.manual_seed(0)
    model = S4DClassifier(SIZE, {"image": 3, "video": 4}, moae_blocks=(1, 2), experts=3)
    path = saved(tmp_path / "s4d.pth", model.state_dict())
    load_released(path, hints=SMALL)
    with pytest.raises(BadCheckpoint, match="of its network are not in it, first blocks.*moe_layer"):
        load_released(saved(path, {key: value for key, value in model.state_dict().items()
                                   if not key.startswith(gone)}), hints=SMALL)


@pytest.mark.parametrize("gone", ["mask_token", "decoder.head.weight", "decoder.blocks.0.norm1.bias",
                                  "encoder.norm.weight"])
def test_an_autoencoder_in_part_is_refused(tmp_path, gone):
    state, _ = published.reference("s4d_pretrain_tiny.npz")
    hints = Hints(48, 16, heads=4, decoder_heads=2)
    load_released(saved(tmp_path / "whole.pth", state), hints=hints)
    del state[gone]
    with pytest.raises(BadCheckpoint, match=gone):
        load_released(saved(tmp_path / "part.pth", state), hints=hints)


# What a file says of itself ------------------------------------------------------------------------------------------

SAID = [({"depth": 12}, r"depth.* says 12 blocks, and the tensors have 3 blocks", "depth"),
        ({"num_hidden_layers": 2}, "says 2 blocks", "depth"), ({"hidden_size": 64}, "says dim 64", "dim"),
        ({"embed_dim": 768}, "says dim 768", "dim"), ({"patch_size": 16}, "patch 16", "patch"),
        ({"tubelet_size": 4}, "tubelet 4", "tubelet"), ({"intermediate_size": 99}, "mlp 99", "mlp"),
        ({"model": "vit_base_patch16_224"}, "model 'vit_base_patch16_224'.* says dim 768", "*"),
        ({"num_channels": 1}, "channels 1", "channels"),
        ({"num_frames": float("inf")}, "is inf, which no network can have", "frames"),
        ({"num_frames": -16}, "is -16, which no network", "frames"), ({"num_frames": 5.5}, "is 5.5", "frames"),
        ({"num_frames": float("nan")}, "is nan", "frames"), ({"input_size": 0}, "is 0", "image_size")]


@pytest.mark.parametrize("stated, said, word", SAID)
@pytest.mark.parametrize("where", ["args", "config.json"])
def test_a_statement_that_the_tensors_contradict_is_refused(tmp_path, stated, said, word, where):
    if where == "args":
        path = saved(tmp_path / "file.pth", videomae(), **stated)
    else:
        path = tmp_path
        save_file(videomae(), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(BadCheckpoint, match=said) as refused:
        load_released(path, hints=SMALL)
    assert str(path) in str(refused.value)
    _, report = load_released(path, hints=Hints(SIDE, FRAMES, allow=(word,)))
    assert any(note.startswith("let go (") for note in report.notes)


def test_names_of_models_are_read_where_they_say_a_size(tmp_path):
    for name in ("vitmoe_base_patch16_160", "pretrain_videomae_large_patch16_224", "s2d_small_patch16_224"):
        with pytest.raises(BadCheckpoint, match=f"model '{name}' says dim"):
            load_released(saved(tmp_path / "file.pth", videomae(), model=name), hints=SMALL)
    for name in ("resnet50", "ours", "vit_small_patch16_36x1_224", 7):
        load_released(saved(tmp_path / "file.pth", videomae(), model=name), hints=SMALL)


def test_heads_of_the_huge_models_are_not_those_of_their_width(tmp_path):
    """VideoMAE's and MAE's huge models have 16 heads of 80 channels; every other published one has 64 a head."""
    for dim, heads in ((1280, 16), (640, 8), (256, 4)):
        plain = S4DClassifier(Size(16, 4, 8, 2, dim, 1, 1, decoder_dim=2, decoder_depth=1, decoder_heads=1,
                                   mlp_ratio=0.1), {"video": 2})
        model, _ = load_released(saved(tmp_path / "file.pth", plain.state_dict()), hints=Hints(16, 4))
        assert model.size.heads == heads


def test_a_statement_that_holds_is_used(tmp_path):
    path = saved(tmp_path / "file.pth", videomae(), num_frames=FRAMES, input_size=SIDE, tubelet_size=2, depth=3,
                 embed_dim=DIM, patch_size=(8, 8), num_heads=4)
    model, report = load_released(path)
    assert (model.size.frames, model.size.image_size, model.size.heads) == (FRAMES, SIDE, 4)
    assert "heads: 4, from the training script's num_heads" in report.notes


def test_the_last_blocks_are_missed_where_the_file_says_how_many(tmp_path):
    state = {key: value for key, value in videomae().items() if not key.startswith("blocks.2.")}
    model, _ = load_released(saved(tmp_path / "silent.pth", state), hints=SMALL)
    assert model.size.depth == 2, "control: the tensors alone cannot tell"
    with pytest.raises(BadCheckpoint, match="depth says 3 blocks, and the tensors have 2 blocks"):
        load_released(saved(tmp_path / "said.pth", state, depth=3), hints=SMALL)


def test_pictures_and_frames_must_fit_the_position_table(tmp_path):
    state, _ = published.omnimae()
    assert load_released(saved(tmp_path / "file.pth", state, num_frames=FRAMES, input_size=SIDE))[0].size.image_size
    with pytest.raises(BadCheckpoint, match="num_frames|input_size makes 128 tokens, and the position table has 48"):
        load_released(saved(tmp_path / "file.pth", state, num_frames=16, input_size=SIDE))
    with pytest.raises(BadCheckpoint, match="input_size makes 192 tokens"):
        load_released(saved(tmp_path / "file.pth", state, num_frames=FRAMES, input_size=64))


def test_a_stated_size_without_bounds_takes_no_memory(tmp_path):
    with pytest.raises(BadCheckpoint, match="numbers for their positions"):
        load_released(saved(tmp_path / "file.pth", videomae(), num_frames=2 * 10**9, input_size=SIDE))


# Numbers -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("change, said", [
    (lambda x: x.to(torch.complex64), "is complex64"), (lambda x: x > 0, "is bool"), (lambda x: x.int(), "is int32"),
    (lambda x: (100 * x).to(torch.int8), "is int8"), (lambda x: x.to(torch.float8_e4m3fn), "is float8_e4m3fn"),
    (lambda x: x.to_sparse(), "is sparse_coo"), (lambda x: x * 0 + 1e30, "holds 1e"),
    (lambda x: x[:1, :1].expand(10**6, 10**6), "claims 1,000,000,000,000 numbers"),
    (lambda x: x.to("meta"), "meta|unusual"),
])
def test_what_is_no_plain_real_number_is_refused(tmp_path, change, said):
    state = videomae()
    key = "blocks.1.attn.proj.weight"
    path = saved(tmp_path / "file.pth", state | {key: change(state[key])})
    with pytest.raises(BadCheckpoint, match=said):
        load_released(path, hints=SMALL)


def test_other_precisions_are_noted(tmp_path):
    for kind, said in ((torch.float64, "rounded to float32"), (torch.bfloat16, "nothing is lost")):
        state = {key: value.to(kind) for key, value in videomae().items()}
        _, report = load_released(saved(tmp_path / "file.pth", state), hints=SMALL)
        assert any(said in note for note in report.notes)
    _, report = load_released(saved(tmp_path / "file.pth", videomae()), hints=SMALL)
    assert not any("float32" in note for note in report.notes), "control"
    huge = videomae() | {"head.bias": torch.full((9,), 1e300, dtype=torch.float64)}  # infinity in float32
    with pytest.raises(BadCheckpoint, match="head.bias holds 1e"):
        load_released(saved(tmp_path / "file.pth", huge), hints=SMALL)


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    loop: dict = {"epoch": 1}
    loop["model"] = loop
    pair: dict = {"state_dict": {}}
    pair["state_dict"]["model"] = pair
    for number, content in enumerate((loop, pair)):
        torch.save(content, tmp_path / f"{number}.pth")
        with pytest.raises(BadCheckpoint, match="holds itself"):
            read_contents(tmp_path / f"{number}.pth")


# Shards --------------------------------------------------------------------------------------------------------------

def sharded(path: Path, state: dict[str, torch.Tensor], suffix: str = ".safetensors") -> dict[str, str]:
    """Two shards and their index; → the map."""
    path.mkdir()
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names = [f"{stem}-{n:05d}-of-00002{suffix}" for n in (1, 2)]
    where = {key: names[index >= 16] for index, key in enumerate(state)}
    for name in names:
        part = {key: state[key].clone() for key, shard in where.items() if shard == name}
        (save_file if suffix == ".safetensors" else torch.save)(part, path / name)
    write_index(path, where, f"{stem}{suffix}.index.json")
    return where


def write_index(path: Path, where: object, name: str = "model.safetensors.index.json") -> None:
    (path / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_folder_of_shards_is_one_file(tmp_path, suffix):
    state = videomae()
    where = sharded(tmp_path / "shards", state, suffix)
    report = convert(tmp_path / "shards", tmp_path / "out.safetensors", None, SMALL)
    convert(saved(tmp_path / "one.pth", state), tmp_path / "one.safetensors", None, SMALL)
    ours, one = (load_file(tmp_path / name) for name in ("out.safetensors", "one.safetensors"))
    assert ours.keys() == one.keys() and all(torch.equal(ours[key], one[key]) for key in ours)
    assert sorted(report.taken) == sorted(where)
    known = read_metadata(tmp_path / "out.safetensors")
    assert known["source"] == "shards" and len(known["source_files"]) == 3 and len(known["source_sha256"]) == 64
    index = next((tmp_path / "shards").glob("*.index.json"))
    assert read_contents(index).tensors.keys() == state.keys()


@pytest.mark.parametrize("rename", ["model-00001-of-00002.safetensors", "first.safetensors"])
def test_one_shard_is_no_network(tmp_path, rename):
    where = sharded(tmp_path / "shards", videomae())
    old = min(where.values())
    (tmp_path / "shards" / old).rename(tmp_path / "shards" / rename)
    write_index(tmp_path / "shards", {key: rename if name == old else name for key, name in where.items()})
    with pytest.raises(BadCheckpoint, match=r"part 1 of 2|one of 2 parts") as refused:
        load_released(tmp_path / "shards" / rename, hints=SMALL)
    assert f"give its folder, {tmp_path / 'shards'}" in str(refused.value)


@pytest.mark.parametrize("change, said", [
    (lambda f, w: (f / max(w.values())).unlink(), "1 of its 2 shards are not there, first model-00002"),
    (lambda f, w: write_index(f, w | {"head.weight": min(w.values())}), "is in model-00001.*, and it is in"),
    (lambda f, w: write_index(f, w | {"extra": min(w.values())}), "extra is in .*and it is in no shard"),
    (lambda f, w: write_index(f, {k: v for k, v in w.items() if k != "head.bias"}), "head.bias, which it does not"),
    (lambda f, w: write_index(f, w | {"head.bias": "../secret.safetensors"}), "no file of its own folder"),
    (lambda f, w: write_index(f, w | {"head.bias": "/etc/passwd"}), "no file of its own folder"),
    (lambda f, w: write_index(f, w | {"head.bias": "sub\\x.safetensors"}), "no file of its own folder"),
    (lambda f, w: write_index(f, {k: v for k, v in w.items() if v == min(w.values())}), "of 2 parts, and it lists 1"),
    (lambda f, w: write_index(f, {"head.bias": 3}), "does not say which tensor"),
    (lambda f, w: write_index(f, []), "does not say which tensor"),
    (lambda f, w: (f / "model.safetensors.index.json").write_text("[" * 100_000), "is no JSON"),
    (lambda f, w: (f / "model.safetensors.index.json").write_text("{"), "is no JSON"),
    (lambda f, w: (f / "model.safetensors.index.json").write_bytes(b"\xff\xfe\x00"), "is no JSON"),
    (lambda f, w: (f / "config.json").write_text("[1]"), "is a list and no dictionary"),
    (lambda f, w: (f / max(w.values())).write_bytes(b"<html><body>404"), "web page"),
    (lambda f, w: save_file(load_file(f / max(w.values())) | {next(iter(w)): torch.ones(1)}, f / max(w.values())),
     "is in more than one shard"),
])
def test_an_index_and_its_shards_tell_one_story(tmp_path, change, said):
    where = sharded(tmp_path / "shards", videomae())
    assert load_released(tmp_path / "shards", hints=SMALL)[1].missing == (), "control"
    change(tmp_path / "shards", where)
    with pytest.raises(BadCheckpoint, match=said) as refused:
        load_released(tmp_path / "shards", hints=SMALL)
    assert str(tmp_path / "shards") in str(refused.value)


def test_what_counts_among_several_is_what_counts_on_the_hub(tmp_path):
    """The whole file before shards, safetensors before pickles; what a trainer leaves beside them is not asked."""
    sharded(tmp_path / "hub", videomae(), ".bin")
    torch.save({"lr": 0.1}, tmp_path / "hub" / "training_args.bin")
    assert read_contents(tmp_path / "hub").files[0].name == "pytorch_model.bin.index.json"
    save_file(videomae(), tmp_path / "hub" / "model.safetensors")
    assert [file.name for file in read_contents(tmp_path / "hub").files] == ["model.safetensors"]


def test_a_folder_that_does_not_say_which_file_counts(tmp_path):
    for name in ("a.pth", "b.pth"):
        saved(tmp_path / name, videomae())
    with pytest.raises(FileNotFoundError, match=r"is a folder with 2 files of weights \(a.pth, b.pth\)"):
        read_contents(tmp_path)
    (tmp_path / "b.pth").unlink()
    assert read_contents(tmp_path).tensors.keys() == videomae().keys()


# The command ---------------------------------------------------------------------------------------------------------

def s4d(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["s4d", "convert", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code or 0, *capsys.readouterr()


def test_the_command_lets_go_what_is_named(tmp_path, monkeypatch, capsys):
    path = saved(tmp_path / "file.pth", videomae(**{"blocks.0.gamma_1": torch.ones(DIM)}), depth=12)
    options = (path, tmp_path / "out.safetensors", "--image-size", SIDE, "--frames", FRAMES)
    code, _, err = s4d(monkeypatch, capsys, *options)
    assert code == 2 and "--allow" in err and not (tmp_path / "out.safetensors").exists()
    code, out, err = s4d(monkeypatch, capsys, *options, "--allow", "gamma_1", "--allow", "depth")
    assert code == 0, err
    assert "dropped  blocks.0.gamma_1 (1)" in out and "let go (depth)" in out


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(30, "Read-only file system")])
@pytest.mark.parametrize("back", [False, True])
def test_a_disk_that_takes_nothing_names_the_file(tmp_path, monkeypatch, capsys, error, back):
    source, target = saved(tmp_path / "file.pth", videomae()), tmp_path / "out.safetensors"
    if back:
        convert(source, tmp_path / "ours.safetensors", None, SMALL)
        source, target = tmp_path / "ours.safetensors", tmp_path / "out.pth"

    def full(*_):
        raise error

    monkeypatch.setattr(os, "replace", full)
    code, _, err = s4d(monkeypatch, capsys, source, target, *([] if back else ["--image-size", SIDE]))
    assert code == 2 and f"{target}: cannot be written ({error.strerror})" in err and not target.exists()
    assert not list(tmp_path.glob(".*"))
