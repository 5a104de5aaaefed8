"""checkpoints/names.py, checkpoints/port.py: VideoMAE as `transformers` keeps it, MARLIN and timm, read and written.

The oracles share nothing with the library: timm's blocks (published.py), recorded outputs of the released code, timm's
own models, and `transformers` itself where it is installed.
"""

import json
from pathlib import Path

import published
import pytest
import torch
from published import DIM, FRAMES, SIDE
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from s4d_lib.checkpoints.convert import Hints, convert, load_released
from s4d_lib.checkpoints.encoders import load_encoder
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.errors import Refused
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import read_metadata, save_model

IMAGE = torch.linspace(-1, 1, 2 * 3 * SIDE * SIDE).view(2, 3, SIDE, SIDE)
CLIP = torch.linspace(-2, 1, 2 * 3 * FRAMES * SIDE * SIDE).sin().view(2, 3, FRAMES, SIDE, SIDE)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CONFIG = {"architectures": ["VideoMAEForVideoClassification"], "model_type": "videomae", "hidden_size": DIM,
          "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 4 * DIM, "num_frames": FRAMES,
          "tubelet_size": 2, "image_size": SIDE, "patch_size": 8, "qkv_bias": True, "use_mean_pooling": True,
          "num_labels": 9}


def ported(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VideoMAE's own names → the port's, by the order in which the port's documentation lists a layer."""
    out = {}
    for key, value in state.items():
        decoder = key.startswith("decoder.blocks.")
        bare = key.removeprefix("encoder.").removeprefix("decoder.") if "blocks." in key else key
        if bare.startswith("blocks."):
            _, number, rest = bare.split(".", 2)
            layer = f"{'decoder.decoder_layers' if decoder else 'videomae.encoder.layer'}.{number}."
            if rest == "attn.qkv.weight":
                for name, part in zip(("query", "key", "value"), value.chunk(3)):
                    out[f"{layer}attention.attention.{name}.weight"] = part.clone()
                continue
            kind = rest.rpartition(".")[2]
            out[layer + {"attn.q_bias": "attention.attention.q_bias", "attn.v_bias": "attention.attention.v_bias",
                         f"attn.proj.{kind}": f"attention.output.dense.{kind}", f"norm1.{kind}":
                         f"layernorm_before.{kind}", f"norm2.{kind}": f"layernorm_after.{kind}", f"mlp.fc1.{kind}":
                         f"intermediate.dense.{kind}", f"mlp.fc2.{kind}": f"output.dense.{kind}"}[rest]] = value
        elif "patch_embed" in key:
            out[f"videomae.embeddings.patch_embeddings.projection.{key.rpartition('.')[2]}"] = value
        elif key.startswith("encoder.norm."):
            out[f"videomae.layernorm.{key.rpartition('.')[2]}"] = value
        else:
            out[key.replace("head.", "classifier.") if key.startswith("head.") else key] = value
    return out


def folder(path: Path, tensors: dict[str, torch.Tensor], config: dict | None) -> Path:
    path.mkdir()
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path / "model.safetensors",
              {"format": "pt"})
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    return path


@torch.no_grad()
def test_the_port_of_videomae_answers_as_its_blocks_do_and_goes_back_bit_for_bit(tmp_path):
    state, plain = published.videomae_finetuned()
    names = {str(n): f"action {n}" for n in range(9)}
    source = folder(tmp_path / "hub", ported(state), CONFIG | {"id2label": names})
    report = convert(source, tmp_path / "out.safetensors")
    model = load_model(tmp_path / "out.safetensors")
    assert report.layout == "hf_videomae" and report.missing == () and report.dropped == {}
    assert sorted(report.taken) == sorted(ported(state))
    assert (model.size.heads, model.size.frames, model.size.image_size) == (2, FRAMES, SIDE)
    torch.testing.assert_close(model(CLIP), published.videomae_logits(state, plain, CLIP), **CLOSE)
    assert read_metadata(tmp_path / "out.safetensors")["class_names"] == {"video": list(names.values())}

    convert(tmp_path / "out.safetensors", tmp_path / "back")
    again, before = load_file(tmp_path / "back" / "model.safetensors"), ported(state)
    assert again.keys() == before.keys() and all(torch.equal(again[key], before[key]) for key in before)
    said = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {key: said[key] for key in CONFIG} == CONFIG and said["id2label"] == names


@torch.no_grad()
def test_heads_come_from_the_configuration(tmp_path):
    """No shape shows them, and the port's small model has 16 where 64 channels a head would make 6."""
    state, plain = published.videomae_finetuned()
    said, _ = load_released(folder(tmp_path / "four", ported(state), CONFIG | {"num_attention_heads": 4}))
    assumed, report = load_released(folder(tmp_path / "none", ported(state), None), hints=Hints(SIDE, FRAMES))
    assert said.size.heads == 4 and assumed.size.heads == 2
    assert any("heads: 2, one per 64 channels" in note for note in report.notes)
    right = published.videomae_logits(state, plain, CLIP)
    torch.testing.assert_close(assumed(CLIP), right, **CLOSE)
    assert not torch.allclose(said(CLIP), right, atol=1e-2), "control: heads make a difference"


@torch.no_grad()
@pytest.mark.parametrize("names", [{"attention.q_bias": "attention.query.bias", "attention.v_bias":
                                    "attention.value.bias"}, {}])
def test_newer_names_key_biases_and_bare_models_are_read(tmp_path, names):
    state, plain = published.videomae_finetuned()
    port = {key.removeprefix("videomae."): value for key, value in ported(state).items()
            if key.startswith("videomae.")}
    for old, new in names.items():
        port = {key.replace(old, new): value for key, value in port.items()}
    port |= {f"encoder.layer.{n}.attention.attention.key.bias": torch.ones(DIM) for n in range(3)}
    model, report = load_released(folder(tmp_path / "hub", port, CONFIG | {"architectures": ["VideoMAEModel"]}))
    assert isinstance(model, DualModalEncoder) and report.layout == "hf_videomae_encoder"
    assert set(report.dropped) == {key for key in port if key.endswith("key.bias")}
    assert report.missing == ("norm.weight", "norm.bias") and any("not normalised" in note for note in report.notes)
    torch.testing.assert_close(model(CLIP), F.layer_norm(plain.latents(CLIP), (DIM,), eps=1e-6), **CLOSE)


@torch.no_grad()
def test_a_port_without_biases_has_zeros(tmp_path):
    state, _ = published.videomae_finetuned()
    zero = {key: torch.zeros_like(value) if key.endswith(("q_bias", "v_bias")) else value
            for key, value in state.items()}
    bare = {key: value for key, value in ported(state).items() if not key.endswith(("q_bias", "v_bias"))}
    model, _ = load_released(folder(tmp_path / "bare", bare, CONFIG | {"qkv_bias": False}))
    same, _ = load_released(folder(tmp_path / "zero", ported(zero), CONFIG))
    assert torch.equal(model(CLIP), same(CLIP))
    with pytest.raises(BadCheckpoint, match=r"bias of queries and values.*--allow qv_bias"):
        load_released(folder(tmp_path / "lost", bare, CONFIG))


@torch.no_grad()
@pytest.mark.parametrize("family", ["port", "marlin"])
@pytest.mark.parametrize("task", ["video", "image"])
def test_an_autoencoder_predicts_as_the_released_one(tmp_path, family, task):
    """Recorded outputs of the released code; S4D's pretraining and VideoMAE's are one network."""
    state, arrays = published.reference("s4d_pretrain_tiny.npz")
    named = ported(state) if family == "port" else as_marlin(state)
    source = folder(tmp_path / "hub", named, None)
    report = convert(source, tmp_path / "out.safetensors", None, Hints(48, 16, heads=4, decoder_heads=2))
    model = load_model(tmp_path / "out.safetensors")
    assert report.layout == {"port": "hf_videomae_pretrain", "marlin": "marlin"}[family]
    assert isinstance(model, DualModalMAE) and report.missing == () and report.dropped == {}
    output = model(arrays[task], arrays[f"{task}_mask"].bool())
    torch.testing.assert_close(output.prediction, arrays[f"expect.{task}_prediction"], **CLOSE)
    back = tmp_path / ("back" if family == "port" else "back.safetensors")
    convert(tmp_path / "out.safetensors", back)
    again = load_file(back / "model.safetensors" if family == "port" else back)
    assert again.keys() == named.keys() and all(torch.equal(again[key], named[key]) for key in named)


def as_marlin(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights as MARLIN's package names them."""
    words = (("encoder.patch_embed.proj", "encoder.patch_embedding.projection"), ("mlp.fc1", "mlp.layers.0.linear"),
             ("mlp.fc2", "mlp.layers.1.linear"), ("encoder_to_decoder", "enc_dec_proj"))
    out = {}
    for key, value in state.items():
        for ours, theirs in words:
            key = key.replace(ours, theirs)
        out["decoder.mask_token" if key == "mask_token" else key] = value
    return out


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "marlin.", "module."])
def test_the_encoder_of_marlin(tmp_path, prefix):
    plain = published.PlainEncoder(axes=3)
    state = {f"{prefix}{key}": value for key, value in as_marlin(
        {f"encoder.{key}": value for key, value in plain.split().items()}).items()}
    state[f"{prefix}encoder.pos_embedding.emb"] = published.sinusoid(3 * 4 * 4)[None]
    torch.save(state, tmp_path / "marlin_vit_base_ytf.encoder.pt")
    model, report = load_released(tmp_path / "marlin_vit_base_ytf.encoder.pt", hints=Hints(frames=FRAMES))
    assert report.layout == "marlin_encoder" and model.size.image_size == SIDE
    torch.testing.assert_close(model(CLIP), plain.norm(plain.latents(CLIP)), **CLOSE)
    assert any("pixels in [0, 1]" in note for note in report.notes)
    classifier = S4DClassifier(Size(SIDE, FRAMES, 8, 2, DIM, 3, 2, decoder_dim=2, decoder_depth=1, decoder_heads=1))
    assert load_encoder(classifier, tmp_path / "marlin_vit_base_ytf.encoder.pt").layout == "marlin_encoder"
    state[f"{prefix}encoder.pos_embedding.emb"] += 0.5 * torch.randn(1, 48, DIM)
    torch.save(state, tmp_path / "learnt.pt")
    with pytest.raises(BadCheckpoint, match=r"pos_embedding\.emb differs from the formula.*--allow"):
        load_released(tmp_path / "learnt.pt", hints=Hints(frames=FRAMES))


@pytest.mark.parametrize("stated, said, word", [
    ({"hidden_act": "relu"}, "our blocks use gelu", "hidden_act"),
    ({"num_labels": 400}, "names 400 classes", "num_labels"),
    ({"use_mean_pooling": False}, "reads the first token", "use_mean_pooling"),
    ({"model_type": "timesformer"}, "the tensors are VideoMAE's", "model_type"),
    ({"num_hidden_layers": 12}, "says 12 blocks", "depth"), ({"tubelet_size": 4}, "tubelet 4", "tubelet"),
    ({"architectures": ["VideoMAEForPreTraining"]}, "no tensor is its decoder's", "architectures"),
    ({"id2label": {"0": "a", "1": "b"}}, "names 2 classes", "num_labels"), ({"num_frames": None}, None, None),
])
def test_a_configuration_that_is_not_the_tensors_is_refused(tmp_path, stated, said, word):
    source = folder(tmp_path / "hub", ported(published.videomae_finetuned()[0]), CONFIG | stated)
    if said:
        with pytest.raises(BadCheckpoint, match=said):
            load_released(source)
    _, report = load_released(source, hints=Hints(allow=(word,)) if said else None)
    assert any(note.startswith(f"let go ({word})") for note in report.notes) == bool(said)


@pytest.mark.parametrize("key", ["attention.attention.query.weight", "attention.attention.value.weight",
                                 "attention.attention.q_bias", "layernorm_after.bias"])
def test_a_layer_of_the_port_that_lost_a_part_is_refused(tmp_path, key):
    state = ported(published.videomae_finetuned()[0])
    del state[f"videomae.encoder.layer.1.{key}"]
    with pytest.raises(BadCheckpoint, match="has no partner|are not in it, first blocks.1"):
        load_released(folder(tmp_path / "hub", state, CONFIG))


def timm_model(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(**{"img_size": SIDE, "patch_size": 8, "embed_dim": DIM, "depth": 3, "num_heads": 2,
                                 "num_classes": 0, **changes}).eval()
    for name, value in model.named_parameters():
        if name != "pos_embed":
            torch.nn.init.normal_(value, 0.5 if value.ndim == 1 else 0.0, 0.1)
    return model


TIMM = {"architecture": "vit_ours", "num_classes": 0, "num_features": DIM, "global_pool": "token",
        "pretrained_cfg": {"input_size": [3, SIDE, SIDE], "mean": [0.485, 0.456, 0.406]}}


@torch.no_grad()
def test_a_vit_of_timm_is_read_with_its_configuration(tmp_path):
    model = timm_model(class_token=False, global_pool="avg", fc_norm=False)
    model.pos_embed.data = published.sinusoid(16)[None]
    ours, report = load_released(folder(tmp_path / "hub", model.state_dict(), TIMM), hints=Hints(frames=FRAMES))
    assert report.layout == "mae" and ours.size.image_size == SIDE
    torch.testing.assert_close(ours(IMAGE), model.forward_features(IMAGE), **CLOSE)
    published_one = timm_model()  # as timm keeps MAE's: with a class token, which finds no place and is named
    _, report = load_released(folder(tmp_path / "mae", published_one.state_dict(), TIMM), hints=Hints(frames=FRAMES))
    assert set(report.dropped) == {"cls_token", "pos_embed"}
    with pytest.raises(BadCheckpoint, match=r"num_features in config.json says dim 64, .* have dim 128"):
        load_released(folder(tmp_path / "other", model.state_dict(), TIMM | {"num_features": 64}))


@pytest.mark.parametrize("changes, key", [
    ({"init_values": 0.1}, "blocks.0.ls1.gamma"), ({"qk_norm": True}, "blocks.0.attn.q_norm.weight"),
    ({"reg_tokens": 4}, "reg_token"), ({"pre_norm": True}, "norm_pre.weight"),
])
def test_what_timm_adds_to_a_vit_is_refused(tmp_path, changes, key):
    with pytest.raises(BadCheckpoint, match=rf"have no place in this model.*{key}"):
        load_released(folder(tmp_path / "hub", timm_model(**changes).state_dict(), TIMM), hints=Hints(frames=FRAMES))


def test_what_the_port_cannot_hold_is_refused(tmp_path):
    size = Size(SIDE, 4, 8, 2, 32, 2, 2, decoder_dim=16, decoder_depth=1, decoder_heads=1)
    torch.manual_seed(0)
    for model, said in (
            (S4DClassifier(size, {"video": 3}, moae_blocks=(1,), experts=3), "it has experts"),
            (S4DClassifier(size, {"image": 3}), "no video head"),
            (S4DClassifier(size, {"video": 3}, pool="positions"), "every place by itself"),
            (S4DClassifier(Size(**{**vars(size), "positions": "separable"})), "positions are separable")):
        path = save_model(tmp_path / "ours.safetensors", model)
        with pytest.raises(Refused, match=said):
            convert(path, tmp_path / "folder", "hf_videomae")
    save_model(path, S4DClassifier(size, {"video": 3}))
    with pytest.raises(Refused, match="hf_videomae is a folder with config.json; name a folder"):
        convert(path, tmp_path / "out.safetensors", "hf_videomae")
    (tmp_path / "folder").mkdir(exist_ok=True)
    (tmp_path / "folder" / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="--overwrite"):
        convert(path, tmp_path / "folder", "hf_videomae")
    convert(path, tmp_path / "folder", "hf_videomae", overwrite=True)
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == [
        "config.json", "mine.txt", "model.safetensors"]


# `transformers` itself -----------------------------------------------------------------------------------------------

SMALL = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "num_labels": 7,
         "image_size": 32, "patch_size": 8, "num_frames": 4, "decoder_hidden_size": 24, "decoder_num_hidden_layers": 1,
         "decoder_num_attention_heads": 2, "decoder_intermediate_size": 48}


@torch.no_grad()
@pytest.mark.parametrize("name, pooling", [("VideoMAEForVideoClassification", True), ("VideoMAEForPreTraining", False),
                                           ("VideoMAEModel", False)])
def test_transformers_and_this_library_agree_both_ways(tmp_path, name, pooling):
    transformers = pytest.importorskip("transformers", reason="the optional extra `transformers` is not installed")
    torch.manual_seed(0)
    theirs = getattr(transformers, name)(transformers.VideoMAEConfig(**SMALL, use_mean_pooling=pooling)).eval()
    for value in theirs.parameters():
        torch.nn.init.normal_(value, 0.5 if value.ndim == 1 else 0.0, 0.1)
    clip = CLIP[:, :, :4]
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[:, ::2] = True

    def of_theirs(model) -> torch.Tensor:
        if name == "VideoMAEForPreTraining":
            return model(clip.transpose(1, 2), mask).logits
        out = model(clip.transpose(1, 2))
        return out.logits if name.endswith("Classification") else out.last_hidden_state

    theirs.save_pretrained(tmp_path / "theirs")
    report = convert(tmp_path / "theirs", tmp_path / "ours.safetensors")
    assert report.missing == () and report.dropped == {}
    ours = load_model(tmp_path / "ours.safetensors")
    answer = ours(clip, mask).prediction[mask].view(2, 16, -1) if name == "VideoMAEForPreTraining" else ours(clip)
    torch.testing.assert_close(answer, of_theirs(theirs), **CLOSE)

    convert(tmp_path / "ours.safetensors", tmp_path / "back")
    back, told = getattr(transformers, name).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told.values()), told
    torch.testing.assert_close(of_theirs(back.eval()), answer, **CLOSE)
