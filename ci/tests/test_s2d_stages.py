"""Both stages of S2D on face files from disk: what trains, what the image stage hands on, what a record says."""

import json
import shutil

import pytest
import torch
from pydantic import ValidationError
from s2d_runs import config

from s4d_lib.checkpoints.layouts import to_released
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.checkpoints.s2d_weights import load_image_model
from s4d_lib.datasets.labels import SCHEMAS, canonical
from s4d_lib.errors import Refused
from s4d_lib.models import landmark_memory
from s4d_lib.models.autoencoder import DualModalMAE
from s4d_lib.models.landmark_net import LandmarkNet
from s4d_lib.models.s2d import S2D_SIZES, S2DClassifier
from s4d_lib.models.sizes import resolve_size
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.data import read_samples
from s4d_lib.training.runs import train
from s4d_lib.training.s2d import build_s2d, s2d_job
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import save_model


def test_the_video_stage_trains_what_the_released_one_trains():
    """At base size: 9.7 % of the parameters, part by part (counts of the released model)."""
    wanted = FinetuneConfig(name="s", mode="dfer", system="s2d", size="base", landmarks="random")
    with torch.device("meta"):
        model = build_s2d(wanted)
    names = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}

    def count(*parts: str) -> int:
        return sum(n for name, n in names.items() if name.startswith(parts))

    temporal = sum(n for name, n in names.items() if ".TMA." in name)
    assert {"TMA": temporal, "MCP": count("prompt_blocks") - temporal, "embedding": count("patch_embed_prompt"),
            "norms": count("prompt_norms"), "time": count("temporal_embedding"), "last norm": count("ln_post"),
            "head": count("head")} == {"TMA": 8_891_136, "MCP": 230_604, "embedding": 99_072, "norms": 18_432,
                                       "time": 12_288, "last norm": 1_536, "head": 5_383}
    everything = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("landmark_net."))
    assert (sum(names.values()), everything) == (9_258_451, 95_055_571)


def test_the_optimiser_holds_the_trained_parameters_and_no_others(faces):
    for freeze, frozen in ((None, True), (False, False)):
        wanted = config(faces, freeze=freeze, layer_decay=1.0)
        model = build_s2d(wanted)
        job, _ = s2d_job(wanted, model, {"clip": read_samples(wanted, "clip", "train")}, {"clip": 7})
        held = {id(p) for group in job.groups for p in group["params"]}
        names = {name for name, p in model.named_parameters() if id(p) in held}
        assert not any(name.startswith(("landmark_net.", "pos_embed")) for name in names)
        assert any(name.startswith("blocks.") for name in names) != frozen
        assert {"cls_token", "patch_embed.proj.weight"} & names == (set() if frozen else
                                                                    {"cls_token", "patch_embed.proj.weight"})
        free = {id(p) for group in job.groups if group["weight_decay"] == 0 for p in group["params"]}
        assert id(model.temporal_embedding) in free and id(model.prompt_blocks[0].conv1x1.weight) not in free


@pytest.mark.trains
def test_training_clips_leaves_the_image_model_as_it_was(stages):
    image, video = (run.model().state_dict() for run in stages)
    still = [key for key in image if key.startswith(("blocks.", "patch_embed.", "cls_token", "pos_embed",
                                                     "landmark_net."))]
    assert len(still) > 100 and all(torch.equal(image[key], video[key]) for key in still), "not a bit moved"
    for key in ("prompt_blocks.0.conv1x1.weight", "prompt_norms.0.weight", "ln_post.weight", "head.fc_cls.weight"):
        assert not torch.equal(image[key], video[key]), f"{key} goes on learning"
    new = set(video) - set(image)
    assert {key.split(".")[0] for key in new} == {"temporal_embedding", "prompt_blocks"} and set(image) <= set(video)
    assert video["prompt_blocks.3.TMA.S_Adapter.D_fc2.weight"].abs().sum() > 0, "the adapter has left its zero"
    assert all(".TMA." in key or key == "temporal_embedding" for key in new)


@pytest.mark.trains
def test_without_freezing_the_image_model_learns_too(faces, stages, tmp_path):
    moved = train(config(faces, init=str(stages[0].weights), freeze=False), tmp_path).model().state_dict()
    before = stages[0].model().state_dict()
    assert not torch.equal(moved["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
    assert not torch.equal(moved["patch_embed.proj.weight"], before["patch_embed.proj.weight"])
    assert all(torch.equal(moved[key], before[key]) for key in before if key.startswith(("landmark_net.", "pos_e")))


@pytest.mark.trains
def test_records_say_what_was_trained_and_from_what(faces, stages):
    for run, task, mode in zip(stages, ("image", "clip"), ("sfer", "dfer")):
        assert run.record.headline.startswith(f"S2D {mode}: {mode.upper()} WAR")
        assert run.record.results[f"test_{task}"]["count"] == len(read_samples(config(faces, mode), task, "test"))
        text = (run.folder / "record.json").read_text()
        assert str(faces) not in text and str(stages[0].folder) not in text
    assert stages[1].record.config["init"].startswith("model.safetensors (")
    assert stages[1].record.protocol["clip"]["published"] == "s2d/dfew"
    report = (stages[1].folder / "encoder_report.txt").read_text()
    assert "missing  temporal_embedding" in report and "missing  prompt_blocks.*.TMA" in report
    assert "missing  landmark_net" not in report


def two_models(faces, tmp_path, **more) -> tuple[S2DClassifier, S2DClassifier, object]:
    """A trained-looking image model for AffectNet's order of classes and the video model for DFEW's made from it."""
    image = build_s2d(config(faces, "sfer"))
    torch.manual_seed(1)
    for name, parameter in image.named_parameters():
        if not name.startswith("landmark_net."):
            parameter.data += 0.1 * torch.randn_like(parameter)
    path = save_model(tmp_path / "image.safetensors", image, {"schemas": {"image": "affectnet7"}})
    wanted = config(faces, **more)
    video = build_s2d(wanted, path, tmp_path / "report.txt")
    return image.eval(), video.eval(), (tmp_path / "report.txt").read_text()


@torch.no_grad()
def test_a_clip_of_one_picture_is_read_as_the_picture_was(faces, tmp_path):
    """With a zero start the video model is the image model frame by frame, its head in the new order of classes."""
    still = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    clip = still.unsqueeze(2).expand(-1, -1, 8, -1, -1)
    image, video, _ = two_models(faces, tmp_path)
    theirs, ours = ([canonical(name) for name in SCHEMAS[schema].classes] for schema in ("affectnet7", "dfew"))
    assert theirs != ours and sorted(theirs) == sorted(ours)
    answers = image(still)
    torch.testing.assert_close(video(clip), answers[:, [theirs.index(name) for name in ours]])
    assert torch.equal(image(still), image(still.unsqueeze(2))), "a still is a clip of one frame"
    _, drawn, _ = two_models(faces, tmp_path, tma_init="released")
    for block in drawn.prompt_blocks:  # at this width a map of std 0.02 is a whisper: the tenth of a thousandth
        for parameter in block.TMA.parameters():
            parameter.mul_(20)
    assert not torch.allclose(drawn(clip), video(clip), atol=1e-2), "control: an adapter that is not at zero shows"
    _, fresh, report = two_models(faces, tmp_path, behaviour="reference")
    assert not torch.allclose(fresh(clip), video(clip), atol=1e-2) and "fresh, as released" in report
    torch.testing.assert_close(fresh.features(clip), video.features(clip), msg="only the head is lost")
    _, other, report = two_models(faces, tmp_path, clips_as="dfew", clips_schema="mafw")
    assert other.num_classes == 11 and "starts fresh: its classes are Neutral, Happiness" in report


@torch.no_grad()
def test_an_encoder_of_clips_becomes_an_image_model(faces, tmp_path):
    """Blocks, kernel, positions and last norm compute what the encoder computes; only the class token is new."""
    size = resolve_size("nano")
    torch.manual_seed(0)
    encoder = DualModalMAE(size).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    path = save_model(tmp_path / "mae.safetensors", encoder)
    image = build_s2d(config(faces, "sfer", prompts=False), path, tmp_path / "report.txt").eval()
    picture = torch.randn(2, 3, 48, 48)
    tokens = image.patch_embed(picture) + image.pos_embed[:, 1:]
    for block in image.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(image.ln_post(tokens), encoder.encoder.encode(picture), rtol=1e-4, atol=1e-4)
    report = (tmp_path / "report.txt").read_text()
    assert "missing  cls_token" in report and "pos_embed: the separable formula" in report
    assert "decoder" in report and "serves reconstruction only" in report
    # The same weights as an image MAE would publish them.
    trunk = {key.removeprefix("encoder."): value for key, value in encoder.state_dict().items() if key.startswith("enc")
             and "to_decoder" not in key}
    published = to_released("mae", trunk).tensors | {"cls_token": torch.full((1, 1, 64), 3.0), "head.weight":
                                                     torch.zeros(5, 64), "pos_embed": torch.randn(1, 17, 64)}
    torch.save({"model": published}, tmp_path / "mae.pth")
    other = S2DClassifier(**S2D_SIZES["nano"] | {"frames": 1}, temporal=False, prompts=False)
    report = load_image_model(other, tmp_path / "mae.pth")
    assert report.layout == "mae" and "head.weight" in report.dropped and (other.cls_token == 3).all()
    assert torch.equal(other.pos_embed, published["pos_embed"])
    assert torch.equal(other.blocks[2].mlp.fc1.weight, image.blocks[2].mlp.fc1.weight)
    assert set(report.taken) | set(report.dropped) == set(published)


@pytest.mark.trains
def test_half_an_image_model_is_refused(stages, tmp_path):
    deeper = S2DClassifier(**S2D_SIZES["nano"] | {"depth": 5}, landmark_net=0.25)
    with pytest.raises(BadCheckpoint, match=r"tensors of the image model are not in it, first blocks\.4"):
        load_image_model(deeper, stages[0].weights)
    with pytest.raises(BadCheckpoint, match=r"\[64, 3, 12, 12\] in the file and \[128, 3, 8, 8\] in the model"):
        load_image_model(S2DClassifier(**S2D_SIZES["tiny"]), stages[0].weights)


@pytest.mark.parametrize("change, absent, present", [
    ({"prompts": False}, ["conv0_0", "patch_embed_prompt", "landmark_net", "fovea"], ["TMA", "temporal_embedding"]),
    ({"mode": "sfer"}, ["TMA", "temporal_embedding"], ["conv0_0", "fovea", "prompt_norms"]),
    ({"mode": "sfer", "prompts": False}, ["prompt", "TMA", "temporal", "landmark_net"], ["cls_token", "ln_post"]),
])
def test_what_is_switched_off_is_not_there(faces, change, absent, present):
    model = build_s2d(config(faces, **change)).eval()
    keys = list(model.state_dict())
    assert not [key for key in keys if any(word in key for word in absent)]
    assert all(any(word in key for key in keys) for word in present)
    rebuilt = S2DClassifier(**json.loads(json.dumps(model.config)))
    assert list(rebuilt.state_dict()) == keys
    x = torch.randn(2, 3, *([8] if model.frames == 8 else []), 48, 48)
    with torch.no_grad():
        assert model(x).shape == (2, 7)
        if not model.prompts:
            with pytest.raises(ValueError, match="no use for landmarks"):
                model(x, torch.zeros(2, 128, 14, 14))


@torch.no_grad()
def test_landmark_features_may_come_from_anywhere(faces, tmp_path):
    model = build_s2d(config(faces)).eval()
    clip = torch.randn(2, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))
    asked = []

    def reader(frames: torch.Tensor) -> torch.Tensor:
        asked.append(frames.shape)
        return frames.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 128, 5, 7)

    own = model(clip)
    other = model.use_landmarks(reader)(clip)
    assert asked == [(16, 3, 48, 48)] and not torch.allclose(own, other, atol=1e-5)
    frames = clip.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(other, model(clip, reader(frames)))
    assert not any("reader" in key for key in model.state_dict())
    assert torch.equal(model.use_landmarks(None)(clip), own)


@pytest.mark.trains
def test_the_landmark_network_counts_by_content(faces, tmp_path):
    torch.manual_seed(5)
    first = save_model(tmp_path / "a.safetensors", LandmarkNet(0.25))
    torch.manual_seed(6)
    other = save_model(tmp_path / "b.safetensors", LandmarkNet(0.25))
    moved = tmp_path / "moved" / "c.safetensors"
    moved.parent.mkdir()
    shutil.copyfile(first, moved)
    few = {"train_stills": 16, "batch_stills": 8}
    run, twin, third = (train(config(faces, "sfer", landmarks=str(path), **few), tmp_path / "runs")
                        for path in (first, moved, other))
    assert run.folder == twin.folder != third.folder, "the same network in another place is the same run"
    stem = "landmark_net.conv1.conv.weight"
    assert torch.equal(run.model().state_dict()[stem], load_model(first).state_dict()["conv1.conv.weight"])
    assert not torch.equal(third.model().state_dict()[stem], run.model().state_dict()[stem])
    assert str(tmp_path) not in (run.folder / "record.json").read_text()
    _, report = two_files(faces, tmp_path, other, first)
    assert "trained on the features of another landmark network" in report
    _, report = two_files(faces, tmp_path, other, other)
    assert "another landmark network" not in report


def two_files(faces, tmp_path, before, after) -> tuple[S2DClassifier, str]:
    """A video model with one landmark network, from an image model with another."""
    image = save_model(tmp_path / "image.safetensors", build_s2d(config(faces, "sfer", landmarks=str(before))))
    video = build_s2d(config(faces, landmarks=str(after)), image, tmp_path / "report.txt")
    stem = "conv1.conv.weight"
    assert torch.equal(video.landmark_net.state_dict()[stem], load_model(after).state_dict()[stem])
    return video, (tmp_path / "report.txt").read_text()


@pytest.mark.parametrize("change, words", [
    ({"mode": "joint"}, "an image model .mode sfer. and a video model"), ({"size": "large"}, "size of S2D must be one"),
    ({"pool": "positions"}, "pool='mean'"), ({"moae_blocks": (2,)}, "no moae_blocks"),
    ({"landmarks": None}, "name a landmark network, or set prompts=False"), ({"sdl": True}, "must be at least 2"),
    ({"sdl_slots": 2, "sdl_neighbours": 3}, "cannot give sdl_neighbours=3"), ({"tma_init": "ones"}, "tma_init"),
    ({"system": "s4d", "sdl": True}, "belong to system='s2d'"), ({"system": "s4d", "freeze": True}, "belong to system"),
])
def test_impossible_settings_are_named(faces, change, words):
    with pytest.raises(ValidationError, match=words):
        config(faces, **change)


def test_a_missing_landmark_file_is_named(faces, tmp_path):
    with pytest.raises(Refused, match="nowhere.safetensors is not there"):
        train(config(faces, landmarks="nowhere.safetensors"), tmp_path)


@torch.no_grad()
def test_a_model_of_a_configuration_with_a_memory_reads_what_is_kept_there(faces, tmp_path):
    plain = build_s2d(config(faces)).eval()
    clip = torch.randn(1, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))
    frames = clip[0].transpose(0, 1)
    landmark_memory.remember(plain.landmark_net, [frames], plain.grid, tmp_path)
    reads = build_s2d(config(faces, landmark_memory=str(tmp_path))).eval()
    torch.manual_seed(1)
    for name, parameter in plain.named_parameters():
        if not name.startswith("landmark_net."):
            parameter.add_(0.1 * torch.randn_like(parameter))
    reads.load_state_dict(plain.state_dict())
    kept = landmark_memory.ask(plain.landmark_net, frames, plain.grid).half().float()
    assert torch.equal(reads(clip), plain(clip, kept))
    assert not torch.equal(reads(clip), plain(clip)), "control: what is kept is rounded, or equality is idle"
    assert torch.equal(reads.use_memory(None)(clip), plain(clip))


def test_a_memory_belongs_to_s2d(faces):
    with pytest.raises(ValidationError, match="landmark_memory belongs to system='s2d'"):
        FinetuneConfig(name="x", mode="dfer", landmark_memory="here")
