"""Tiers: every configuration that a name builds, what must hold of it, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from s4d_lib.training import tiers
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.tiers import FINETUNE, LABELLED, PRETRAIN, UNLABELLED, finetuning, pretraining, s2d

TIERS = ("smoke", "laptop", "full")
STAGES = {"pretraining": pretraining} | {
    mode: lambda tier, mode=mode, **changes: finetuning(tier, mode, **changes)
    for mode in ("sfer", "dfer", "joint", "moae")} | {
    f"s2d {mode}": lambda tier, mode=mode, **changes: s2d(tier, mode, **changes) for mode in ("sfer", "dfer")}


@pytest.fixture
def no_drawing(monkeypatch):
    """Folders are named and nothing is drawn."""
    monkeypatch.setattr(tiers, "prepare_data", lambda tier, kind="labelled": Path("drawn") / tier / kind)


def steps(config, faces: tiers.Faces) -> dict[str, float]:
    """Steps of a whole training, by modality, on as many faces as the tier draws."""
    kept = 1 - getattr(config, "validation", 0)
    sizes = {"image": (faces.stills, config.batch_stills), "clip": (faces.clips, config.batch_clips)}
    return {modality: config.epochs * kept * count / batch for modality, (count, batch) in sizes.items()
            if modality in config.modalities}


@pytest.mark.parametrize("stage", STAGES)
def test_every_tier_of_every_stage_can_be_trained(stage, no_drawing):
    before: dict[str, float] = {}
    for tier in TIERS:
        config = STAGES[stage](tier)
        kind, faces = (("unlabelled", UNLABELLED) if stage == "pretraining" else ("labelled", LABELLED))
        assert config.tier == tier and config.stage == ("pretrain" if stage == "pretraining" else "finetune")
        for modality, folder in (("image", "stills"), ("clip", "clips")):
            if modality in config.modalities:
                assert Path(getattr(config, folder)) == Path("drawn", tier, kind, folder)
        assert 0 < config.warmup_epochs < config.epochs, "there are epochs after the warm-up"
        now = steps(config, faces[tier])
        assert set(now) == set(config.modalities) and min(now.values()) >= config.epochs, "a batch is not an epoch"
        assert all(now[modality] > before.get(modality, 0) for modality in now), f"{tier} trains longer: {before} {now}"
        before = now
        with pytest.raises(ValidationError, match="epoch\n  Extra inputs are not permitted"):
            STAGES[stage](tier, epoch=3)


@pytest.mark.parametrize("tier", TIERS)
def test_s2d_keeps_its_image_model_and_trains_its_video_model_from_it(tier, no_drawing):
    image, video = s2d(tier, "sfer"), s2d(tier, "dfer", init="image.safetensors")
    assert (image.system, image.modalities, image.frozen) == ("s2d", ("image",), False)
    assert (video.system, video.modalities, video.frozen, video.init) == ("s2d", ("clip",), True, "image.safetensors")
    assert image.size == video.size and image.landmarks == video.landmarks == "shipped"
    assert finetuning(tier, "dfer").system == "s4d", "control: the same mode without S2D"


def test_unknown_names_are_refused_before_a_face_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("S4D_DATA", str(tmp_path))
    for build in STAGES.values():
        with pytest.raises(ValueError, match="tier must be one of smoke, laptop, full, got 'huge'"):
            build("huge")
    with pytest.raises(ValidationError, match="'sfer', 'dfer', 'joint' or 'moae'"):
        finetuning("smoke", "famo", stills="s", clips="c")
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_both_in_the_labelled_and_the_unlabelled_faces():
    for tier in ("laptop", "full"):
        assert LABELLED[tier].seed != UNLABELLED[tier].seed


def test_the_full_tier_is_the_released_recipe():
    """The numbers of the released pretrain/omnivision/config and finetune/run.sh, for two GPUs taken as one process."""
    pretrain = PretrainConfig(name="p", stills="s", clips="c", **PRETRAIN["full"])
    assert (pretrain.epochs, pretrain.lr, pretrain.betas, pretrain.batch_stills) == (100, 1.2e-3, (0.9, 0.95), 384)
    assert pretrain.batch_clips * pretrain.replicate == 384
    assert (pretrain.mask_stills, pretrain.mask_clips, pretrain.target_epsilon) == (0.90, 0.95, 1e-6)
    tuning = FinetuneConfig(name="f", mode="moae", stills="s", clips="c", **FINETUNE["full"])
    assert (tuning.batch_clips, tuning.batch_stills, tuning.lr, tuning.final_lr) == (32, 64, 4e-5, 1.25e-7)
    assert (tuning.layer_decay, tuning.share_stills, tuning.experts, tuning.top_k) == (0.75, 0.5, 8, 2)
    assert (tuning.pool, tuning.mixup, tuning.cutmix, tuning.smoothing) == ("mean", 0.8, 1.0, 0.1)
