"""The studies of chapter 11: arms are what their names say, both systems see the same, costs are counted."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from s4d_lib.checkpoints.loading import load_model
from s4d_lib.lab import cells, reading, s2d_studies
from s4d_lib.lab.cells import Scale
from s4d_lib.lab.landmark_training import unsettled
from s4d_lib.lab.records import LabRecord
from s4d_lib.lab.s2d_studies import (
    IMAGE,
    PROTOCOL,
    VIDEO,
    frames_of,
    image_config,
    loud_start,
    plan,
    run_work,
    s4d_config,
    same_compute,
    sizes,
    step_work,
    train_arms,
    video_config,
)
from s4d_lib.models import landmark_memory
from s4d_lib.models.landmark_net import load_landmarks
from s4d_lib.training.data import read_samples, training_split, views
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.s2d import describe_s2d
from s4d_lib.weights.files import SHIPPED, save_model

pytestmark = pytest.mark.slow  # the whole file: left out between two edits

ENCODER = SHIPPED["nano_encoder"]
TINY = Scale(60, 60, 2, 2, 4, 6)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s2d_lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S4D_DATA", str(folder / "data"))
        patch.setenv("S4D_RUNS", str(folder / "runs"))
        patch.setitem(cells.SCALES, "smoke", TINY)
        patch.setitem(s2d_studies.CELLS, "smoke", cells.Cell(clips=20))
        yield folder


# --- arms ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_arm_changes_what_it_says_and_nothing_else(lab):
    base = video_config("s2d", 3, ENCODER, "smoke").model_dump()
    assert {key: base[key] for key in ("system", "mode", "prompts", "tma_init", "sdl", "freeze")} == {
        "system": "s2d", "mode": "dfer", "prompts": True, "tma_init": "zero", "sdl": False, "freeze": None}
    for arm, (_, change) in VIDEO.items():
        found = video_config(arm, 3, ENCODER, "smoke").model_dump()
        named = set() if arm == "s2d" else {"name"}
        assert {key for key in base if found[key] != base[key]} == set(change) | named, arm
    plain, prompted = (image_config(arm, 3, "smoke").model_dump() for arm in ("image_plain", "image"))
    assert {key for key in plain if plain[key] != prompted[key]} == {"name", "prompts"}
    assert prompted["mode"] == "sfer" and prompted["init"] == str(ENCODER)


@pytest.mark.slow
def test_both_systems_read_the_same_samples_in_the_same_way(lab):
    ours, other = video_config("s2d", 3, ENCODER, "smoke"), s4d_config("s4d", 3, "smoke")
    stills = image_config("image", 3, "smoke")
    for modality, one in (("clip", ours), ("image", stills)):
        split = [[[s.id for s in part] for part in training_split(c, modality, read_samples(c, modality, "train"))]
                 for c in (one, other)]
        assert split[0] == split[1] and len(split[0][0]) > len(split[0][1]) > 0
        assert step_count(one, modality) == step_count(other, modality)
        x = [views(c, read_samples(c, modality, "train"), "train", 3)[(1, 5)]["x"] for c in (one, other)]
        assert torch.equal(*x)
    assert s4d_config("s4d_long", 3, "smoke").epochs == same_compute("smoke")


def step_count(config, modality):
    return config.epochs * config.clip_steps, config.batch_stills if modality == "image" else config.batch_clips


def test_the_protocol_names_the_arms_and_the_numbers_that_the_code_has():
    protocol = yaml.safe_load(PROTOCOL.read_text())
    arms = set(IMAGE) | set(VIDEO) | {"clips", "s4d", "s4d_long"}
    told = {name: set(protocol[name]["arms"]) for name in s2d_studies.S2D_STUDIES}
    assert told["s2d_stages"] == {"image", "image_plain"} | set(s2d_studies.STAGES) | {"clips", "s4d", "s4d_long"}
    assert told["s2d_sdl"] == set(s2d_studies.DISTILLED) and told["s2d_landmarks"] == set(s2d_studies.PROMPTED)
    assert set.union(*told.values()) == arms
    for hypothesis in protocol["hypotheses"].values():
        one, other = hypothesis["contrast"].split(" - ")
        assert any({one, other} <= found for found in told.values()), hypothesis
    families = [set(protocol[name]["family"]) for name in told]
    assert set.union(*families) == set(protocol["hypotheses"]) and not set.intersection(*families)
    seeds = f"{s2d_studies.SEEDS[0]} to {s2d_studies.SEEDS[-1]}"
    assert len(s2d_studies.SEEDS) >= 5 and all(protocol[name]["seeds"].startswith(seeds) for name in told)
    assert not set(s2d_studies.SEEDS) & set(s2d_studies.TUNING_SEEDS)
    rates = [float(rate) for rate in re.findall(r"[\d.]+e-3", protocol["budgets"]["tuning"])]
    assert tuple(rates[:3]) == s2d_studies.RATES and rates[3:] == [cells.LEARNING_RATE]
    assert plan("s2d_sdl")["version"] == protocol["version"]


@pytest.mark.slow
def test_the_protocols_numbers_are_counted(lab, monkeypatch):
    monkeypatch.setitem(cells.SCALES, "laptop", Scale(60, 60, 30, 8))  # the steps of the laptop, few faces
    monkeypatch.setitem(s2d_studies.CELLS, "laptop", cells.Cell(clips=20))
    image, video, other = image_config("image", 0), video_config("s2d", 0, ENCODER), s4d_config("s4d", 0)
    unfrozen = video_config("s2d_unfrozen", 0, ENCODER)
    counted = [sizes(one)["trained"] for one in (image, video, unfrozen, other)] + [sizes(image)["landmarks"]]
    budgets = yaml.safe_load(PROTOCOL.read_text())["budgets"]
    assert set(counted) == {int(number.replace(",", "")) for number in re.findall(r"\d+,\d+", budgets["parameters"])}
    work = [run_work(one) for one in (image, video, other, s4d_config("s4d_long", 0))]
    spent = [round(work[0]["model"] + work[1]["model"]), round(work[0]["landmarks"] + work[1]["landmarks"]),
             round(work[2]["model"]), round(work[3]["model"]), same_compute()]
    told = [int(number) for number in re.findall(r"\d+", budgets["compute"].replace("S2D", "").replace("S4D", "")
                                                 .replace("s4d", ""))]
    # Counted when the protocol was fixed; since then a still is embedded once and small experts are computed together.
    assert sorted(spent) == pytest.approx(sorted(told), rel=0.015) and same_compute() in told


# --- costs -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_work_is_counted_forward_and_back_and_landmarks_apart(lab):
    video, unfrozen = (video_config(arm, 0, ENCODER, "smoke") for arm in ("s2d", "s2d_unfrozen"))
    one, free = step_work(video, "clip"), step_work(unfrozen, "clip")
    assert one["landmarks"] == free["landmarks"] > one["model"], "beside a network this small landmarks are most of it"
    assert one["model"] < free["model"], "frozen weights need no gradient of their own"
    twice = step_work(video.model_copy(update={"batch_clips": 2 * video.batch_clips}), "clip")
    assert twice == pytest.approx({part: 2 * value for part, value in one.items()})
    assert step_work(video_config("s2d_no_prompts", 0, ENCODER, "smoke"), "clip")["landmarks"] == 0
    # one frame through the patch embedding: counted by hand
    image = image_config("image_plain", 0, "smoke")
    dim, tokens, batch = 64, 16, TINY.batch_stills
    embedding = 2 * batch * tokens * dim * 3 * 12 * 12  # forward, and back to the weights
    blocks = 4 * 3 * batch * ((tokens + 1) * 12 * dim * dim + 2 * (tokens + 1) ** 2 * dim)  # forward and twice back
    assert step_work(image, "image")["model"] == pytest.approx((embedding + blocks) / 1e6, rel=0.005)


@pytest.mark.slow
def test_the_longer_s4d_costs_what_s2d_costs(lab):
    both = sum(run_work(one)["model"] for one in (image_config("image", 0, "smoke"),
                                                   video_config("s2d", 0, ENCODER, "smoke")))
    one = s4d_config("s4d", 0, "smoke")
    an_epoch = run_work(one)["model"] / one.epochs
    assert abs(same_compute("smoke") * an_epoch - both) <= an_epoch / 2


# --- landmark features -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["image", "clip"])
def test_every_frame_that_training_and_testing_meet_is_remembered(lab, modality):
    config = (image_config("image", 3, "smoke") if modality == "image" else video_config("s2d", 3, ENCODER, "smoke"))
    marks = np.concatenate([landmark_memory.frame_marks(frames) for frames in frames_of(config)])
    train, validation = training_split(config, modality, read_samples(config, modality, "train"))

    def met(recipe):
        found = views(config.model_copy(update={"augment_stills": recipe, "augment_clips": recipe}), train, "train", 3)
        seen = [found[(epoch, index)]["x"] for epoch in range(3) for index in range(0, len(train), 3)]
        return np.concatenate([landmark_memory.frame_marks(folded(x)) for x in seen])

    assert np.isin(met("FLIPS"), marks).all()
    assert not np.isin(met("MOVES"), marks).all(), "control: faces that are moved are met for the first time"
    tested = views(config, read_samples(config, modality, "test"), "centre" if modality == "image" else "test", 0)
    for one in [views(config, validation, "centre", 0)[0], tested[0]]:
        assert np.isin(landmark_memory.frame_marks(folded(one["x"])), marks).all()


def test_faces_are_remembered_once(lab, monkeypatch):
    config, asked = video_config("s2d", 3, ENCODER, "smoke"), []
    monkeypatch.setattr(s2d_studies, "frames_of", lambda one: asked.append(one) or iter([torch.zeros(2, 3, 48, 48)]))
    other = config.model_copy(update={"split_seed": 77})
    folder = s2d_studies.remember_faces([config, config, other])
    assert asked in ([config, other], [other]), "a list that is done is not read again; another list is"
    kept = next(folder.glob("*-4x4"))
    assert (kept / "index.npz").exists() and len(list(folder.glob("done-*"))) >= 2


def folded(x):
    """Stills `[3 h w]`, clips `[3 t h w]` or views of one → frames `[n 3 h w]`."""
    return x[None] if x.ndim == 3 else x.movedim(-3, -4).reshape(-1, 3, *x.shape[-2:])


# --- the loud start --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_loud_start_is_the_image_model_and_loud_adapters(lab, tmp_path):
    config = image_config("image", 3, "smoke")
    image = build_classifier(config)
    weights = save_model(tmp_path / "model.safetensors", image, describe_s2d(config))
    run = SimpleNamespace(folder=tmp_path, weights=weights)
    built = {arm: build_classifier(video_config(arm, 3, weights if arm == "s2d_released_start" else
                                                     loud_start(run, 3, "smoke"), "smoke"))
             for arm in ("s2d_released_start", "s2d_loud_start")}
    released, loud = (model.state_dict() for model in built.values())
    for key, value in loud.items():
        if ".TMA." in key and value.ndim == 2:
            torch.testing.assert_close(value, released[key] * (768 / 64) ** 0.5)
        else:
            assert torch.equal(value, released[key]), key
    for key, value in load_model(weights).state_dict().items():  # clips list the same classes in another order
        both = (loud[key], value) if not key.startswith("head.") else (loud[key].sort(0).values, value.sort(0).values)
        assert torch.equal(*both), key
    assert loud["prompt_blocks.1.TMA.T_Adapter.D_fc1.weight"].std() == pytest.approx(0.0693, rel=0.1)


def test_the_untrained_landmark_network_is_as_loud_as_the_shipped_one(lab):
    config = video_config("s2d_untrained", 3, ENCODER, "smoke")
    control, shipped = load_landmarks(config.landmarks), load_landmarks()
    frames = next(frames_of(config))
    loud, quiet, usual = (landmark_memory.ask(net.eval(), frames, (4, 4)).std()
                          for net in (control, unsettled(), shipped))
    assert 0.1 < loud / usual < 10 and quiet / usual < 0.01, "control: batch norms that saw no face keep it silent"
    for key, value in unsettled().state_dict().items():  # nothing but the batch norms' statistics differs
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(control.state_dict()[key], value), key
    assert image_config("image_untrained", 3, "smoke").landmarks == config.landmarks, "one network for both stages"


# --- a study from end to end -----------------------------------------------------------------------------------------


@pytest.mark.trains
def test_arms_are_trained_recorded_and_read(lab, monkeypatch):
    monkeypatch.setattr(s2d_studies, "RATES", (3e-3,))
    record = s2d_studies.s2d_sdl("smoke", (3,), 1)
    (cell, here), = LabRecord.of(record).cells.items()
    assert set(here.methods) == {"image", *s2d_studies.DISTILLED}
    found = reading.family(record, {"sdl": (cell, "s2d_sdl", "s2d")})
    assert found["sdl"].word == "undecided", "one seed decides nothing"
    shipped, intended = (record.results["queues"][arm] for arm in ("s2d_sdl_shipped", "s2d_sdl"))
    assert len(shipped) == 1 and all(line["sdl_pushed"] == 0 for run in shipped for line in run)
    assert all(run[-1]["sdl_pushed"] > 0 for run in intended), "control: a schedule that updates pushes"
    assert record.results["arms"]["s2d"]["parameters"]["trained"] == 38_027
    assert record.protocol["s2d_sdl"]["family"] == ["D", "N"]
    again = train_arms(("s2d",), (3,), "smoke", 1, record.results["rates"])
    run = next(run for (_, arm, _), run in again.items() if arm == "s2d")
    war = run.record.results["test_clip"]["war"]["value"]
    assert war == here.methods["s2d"].war[0], "a finished run is loaded, not trained"
