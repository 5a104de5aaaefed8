"""weights/files.py, checkpoints/: round trips, files in disguise, and reports that hide nothing."""

import math
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s4d_lib.checkpoints.encoders import load_encoder
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.layers.masking import random_mask
from s4d_lib.models.autoencoder import DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.landmark_net import LandmarkNet
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import SHIPPED, AnotherModel, read_metadata, rebuild, save_model

SIZE = Size(15, 8, 5, 2, dim=24, depth=4, heads=2, decoder_dim=18, decoder_depth=1, decoder_heads=3)
CLIP = torch.linspace(-1, 1, 2 * 3 * 8 * 15 * 15).view(2, 3, 8, 15, 15)


def other(**changes) -> Size:
    return Size(**{**vars(SIZE), **changes})


@pytest.fixture
def mae(tmp_path) -> tuple[DualModalMAE, Path]:
    torch.manual_seed(0)
    model = DualModalMAE(SIZE)
    return model, save_model(tmp_path / "runs" / "mae.safetensors", model, {"epoch": 3})


@pytest.mark.parametrize("arguments", [
    {},
    {"classes": {"video": 11}, "moae_blocks": (1, 3), "experts": 5, "top_k": 1, "capacity_factor": math.inf,
     "behaviour": "reference", "pool": "positions", "dropout": 0.25},
])
def test_a_classifier_comes_back_as_it_was(tmp_path, arguments):
    torch.manual_seed(0)
    model = S4DClassifier(SIZE, **arguments).eval()
    path = save_model(tmp_path / "model.safetensors", model, {"uar": 0.5, "fold": 2})
    twin = load_model(path)
    assert isinstance(twin, S4DClassifier) and twin.config == model.config and not twin.training
    assert {key: value.tolist() for key, value in twin.state_dict().items()} == {
        key: value.tolist() for key, value in model.state_dict().items()}
    for forward in (model, twin):
        torch.manual_seed(1)  # the reference behaviour is noisy
        forward.logits = forward(CLIP)
    assert torch.equal(model.logits, twin.logits)
    assert read_metadata(path) == {"uar": 0.5, "fold": 2}


def test_an_autoencoder_comes_back_as_it_was(mae):
    model, path = mae
    twin = load_model(path)
    mask = random_mask(2, SIZE.grid, 0.6, torch.Generator().manual_seed(0))
    assert isinstance(twin, DualModalMAE) and torch.equal(twin(CLIP, mask).loss, model(CLIP, mask).loss)


class Wrapper(torch.nn.Module):
    """As `torch.compile` wraps a model: what it has not itself, it asks the model for."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name: str):
        return super().__getattr__(name) if name in ("model", "_modules") else getattr(self.model, name)


def test_only_a_bare_model_is_saved(tmp_path):
    """A wrapper has no arguments of its own, even where it hands on the attributes of what it wraps."""
    open_wrapper = Wrapper(DualModalMAE(SIZE))
    assert open_wrapper.config == DualModalMAE(SIZE).config
    for wrapped in (torch.nn.Sequential(DualModalMAE(SIZE)), open_wrapper):
        with pytest.raises(TypeError, match=f"got {type(wrapped).__name__}; unwrap the model first"):
            save_model(tmp_path / "model.safetensors", wrapped)
    assert list(tmp_path.iterdir()) == []


class Halves(torch.nn.Linear):
    """A model that the library does not know."""

    def __init__(self, width: int) -> None:
        super().__init__(2 * width, width)
        self.config = {"width": width}


def test_whoever_rebuilds_a_model_says_what_it_may_be(mae, tmp_path):
    _, path = mae
    strange = save_model(tmp_path / "halves.safetensors", Halves(3))
    assert torch.equal(rebuild(strange, [DualModalMAE, Halves]).weight, rebuild(strange, [Halves]).weight)
    with pytest.raises(AnotherModel, match="it holds a Halves .* reads DualModalMAE as") as caught:
        rebuild(strange, [DualModalMAE])
    assert caught.value.model == "Halves" and isinstance(caught.value, BadCheckpoint)
    for read in (load_model, lambda file: load_encoder(S4DClassifier(SIZE), file)):  # they know the library's models
        with pytest.raises(AnotherModel, match="use the version that wrote it"):
            read(strange)
    assert isinstance(rebuild(path, [DualModalMAE]), DualModalMAE)


def test_what_ships_is_one_table():
    """The file of every name is there, and no file lies beside them that the table does not name."""
    [folder] = {path.parent for path in SHIPPED.values()}
    assert sorted(SHIPPED.values()) == sorted(folder.glob("*.safetensors")) and folder.parent.name == "s4d_lib"
    kinds = {name: type(load_model(path)) for name, path in SHIPPED.items()}
    assert kinds == {"encoder": DualModalMAE, "nano_encoder": DualModalMAE, "classifier": S4DClassifier,
                     "landmarks": LandmarkNet}
    assert load_model(SHIPPED["encoder"]).size.dim > load_model(SHIPPED["nano_encoder"]).size.dim


def test_an_interrupted_write_leaves_the_old_file(mae, monkeypatch):
    model, path = mae
    before = path.read_bytes()

    def no_power(*_):
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", no_power)
    with pytest.raises(OSError, match="power cut"):
        save_model(path, DualModalMAE(SIZE))
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path], "no half-written file is left"


def test_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("content"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    save_model(tmp_path / "model.safetensors", DualModalMAE(SIZE))
    assert order == ["content", "name"]


def test_readers_never_see_half_a_file(mae):
    model, path = mae
    writers = [threading.Thread(target=lambda: [save_model(path, model) for _ in range(8)]) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert read_metadata(path) in ({}, {"epoch": 3})
        load_model(path)
    assert list(path.parent.iterdir()) == [path]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 345\n"
HTML = b"\n<!DOCTYPE html><html><title>Sign in</title></html>" + b" " * 400


@pytest.mark.parametrize("content, said", [
    (b"", "the file is empty"),
    (LFS, "git lfs pull"),
    (HTML, "web page"),
    (b"PK\x03\x04" + b"\0" * 200, "PyTorch file"),
    (b"\x80\x02}q\x00." + b"\0" * 200, "PyTorch file"),
    (b"not weights at all, just text in a file", "not a complete safetensors file \\(39 bytes"),
])
@pytest.mark.parametrize("read", [load_model, read_metadata, lambda p: load_encoder(S4DClassifier(SIZE), p)])
def test_a_file_that_is_not_a_checkpoint_says_what_it_is(tmp_path, content, said, read):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value) and caught.value.path == path


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.999])
def test_a_truncated_safetensors_file_is_refused(mae, share):
    _, path = mae
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadCheckpoint, match="not a complete safetensors file"):
        load_model(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        load_model(tmp_path / "nowhere.safetensors")


def test_weights_without_arguments_are_no_model(tmp_path):
    path = tmp_path / "bare.safetensors"
    save_file(DualModalMAE(SIZE).state_dict(), path)
    with pytest.raises(BadCheckpoint, match="use load_encoder"):
        load_model(path)
    assert read_metadata(path) == {}


def test_a_file_that_contradicts_itself_is_refused(tmp_path):
    model = DualModalMAE(SIZE)
    model.config["size"]["depth"] = 3
    path = save_model(tmp_path / "model.safetensors", model)
    with pytest.raises(BadCheckpoint, match="do not fit its own description"):
        load_model(path)
    model.config["size"].update(depth=4, decoder_dim=12)
    save_model(path, model)
    with pytest.raises(BadCheckpoint, match=r"\[1, 1, 18\] in the file and \[1, 1, 12\] in the model"):
        load_model(path)


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "future.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "s4d_lib checkpoint 9", "model": "S4DClassifier"})
    with pytest.raises(BadCheckpoint, match="'s4d_lib checkpoint 9'.*use the version that wrote it"):
        load_model(path)


@pytest.mark.parametrize("layout", ["ours", "released", "stripped"])
def test_a_pretrained_encoder_arrives_whole(mae, tmp_path, layout):
    model, path = mae
    if layout != "ours":
        path = tmp_path / "bare.safetensors"
        state = model.state_dict()
        if layout == "stripped":
            state = {key.removeprefix("encoder."): value for key, value in state.items() if "encoder." in key}
        save_file(state, path)
    torch.manual_seed(1)
    classifier = S4DClassifier(SIZE, moae_blocks=(3,), experts=5)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    report = load_encoder(classifier, path)

    after = classifier.state_dict()
    expected = {key for key in after if key.startswith(("patch_embed.", "blocks.")) and "moe_layer" not in key}
    assert set(report.matched) == expected
    assert set(report.matched) | set(report.missing) == set(after), "every key of the model is accounted for"
    for key in after:
        source = model.state_dict().get(f"encoder.{key}") if key in expected else before[key]
        assert torch.equal(after[key], source), key
    if layout != "stripped":
        taken = {f"encoder.{key}" for key in report.matched}
        assert taken | set(report.dropped) == set(model.state_dict()), "every key of the file is accounted for"
        assert report.dropped["encoder.norm.weight"].startswith("the classifier pools first")
        assert report.dropped["mask_token"] == report.dropped["decoder.head.bias"] == "serves reconstruction only"
    assert (report.notes == ()) == (layout == "ours")
    # What the classifier now computes before pooling is what the autoencoder encoded.
    plain = S4DClassifier(SIZE)
    load_encoder(plain, path)
    torch.testing.assert_close(model.encoder.norm(plain.encode(CLIP)), model.encoder(CLIP))


def test_the_report_is_short_and_names_every_group(mae):
    _, path = mae
    text = str(load_encoder(S4DClassifier(SIZE, moae_blocks=(2, 3), experts=5), path))
    for phrase in ("54 tensors matched", "missing  blocks.*.moe_layer.experts.*.fc1 (20)", "missing  head.image (2)",
                   "dropped  decoder.blocks.*.attn (", "dropped  mask_token (1): serves reconstruction only"):
        assert phrase in text, text
    assert len(text.splitlines()) < 25


def test_what_shapes_do_not_show_is_noted(mae):
    _, path = mae
    report = load_encoder(S4DClassifier(other(image_size=20, heads=3, positions="separable")), path)
    assert report.notes == ("image_size is 15 in the file and 20 in the model",
                            "heads is 2 in the file and 3 in the model",
                            "positions is flat in the file and separable in the model")
    assert report.notes[2] in str(report)


@pytest.mark.parametrize("size, said", [
    (other(dim=36), r"\[24, 3, 2, 5, 5\] in the file and \[36, 3, 2, 5, 5\] in the model \(and "),
    (other(depth=5), "13 encoder tensors of the model are not in it, first blocks.4"),
    (other(depth=3), "13 of its encoder tensors have no place in the model, first encoder.blocks.3"),
])
def test_an_encoder_of_another_shape_is_refused_and_changes_nothing(mae, size, said):
    _, path = mae
    classifier = S4DClassifier(size)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    with pytest.raises(BadCheckpoint, match=said):
        load_encoder(classifier, path)
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())


def test_experts_travel_between_classifiers_but_heads_do_not(tmp_path):
    torch.manual_seed(0)
    source = S4DClassifier(SIZE, {"video": 9}, moae_blocks=(1, 3), experts=5)
    path = save_model(tmp_path / "source.safetensors", source)
    same = S4DClassifier(SIZE, {"video": 9}, moae_blocks=(1, 3), experts=5)
    report = load_encoder(same, path)
    assert report.missing == ("fc_norm.weight", "fc_norm.bias", "head.video.weight", "head.video.bias")
    assert set(report.dropped) == set(report.missing)
    assert torch.equal(same.blocks[3].moe_layer.experts[4].fc1.weight,
                       source.blocks[3].moe_layer.experts[4].fc1.weight)
    report = load_encoder(S4DClassifier(SIZE, moae_blocks=(3,), experts=5), path)
    gone = [key for key, reason in report.dropped.items() if reason == "the model has no such expert"]
    assert gone and all(key.startswith("blocks.1.moe_layer.") for key in gone)
    with pytest.raises(BadCheckpoint, match=r"router.*\[5, 24\] in the file and \[4, 24\] in the model"):
        load_encoder(S4DClassifier(SIZE, moae_blocks=(1, 3), experts=4), path)


def test_weights_of_something_else_are_refused(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(BadCheckpoint, match="it is in none of the layouts s4d, .*; it holds conv1.weight"):
        load_encoder(S4DClassifier(SIZE), path)
