"""What a training costs: operations against arithmetic by hand, steps against the plan, and which number is which."""

from dataclasses import replace

import pytest

from s4d_lib.records import read_record
from s4d_lib.training import costs
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.cost_tables import TRAININGS, as_lines, cell, configuration, cost_table
from s4d_lib.training.costs import GPUS, KINDS, STEP_COSTS, UTILISATION, estimate, kind_of, steps_of
from s4d_lib.training.step_counts import Counted, count_step, make_step, saved_bytes
from s4d_lib.training.tiers import FINETUNE, PRETRAIN

TINY = FinetuneConfig(name="t", mode="dfer", size="tiny")


def by_hand(tokens: int, d: int, depth: int, mlp: int = 4) -> float:
    """Forward operations of a transformer: products with 4 + 2·mlp square matrices, and two of tokens with tokens."""
    return depth * (2 * tokens * (4 + 2 * mlp) * d**2 + 2 * 2 * tokens**2 * d)


@pytest.mark.parametrize(("modality", "tokens"), [("clip", 4 * 36), ("image", 36)])
def test_counted_operations_of_fine_tuning_are_those_of_the_arithmetic(modality, tokens):
    config = TINY if modality == "clip" else TINY.model_copy(update={"mode": "sfer"})
    # An image's tubelet holds one frame twice, and their weights are added before they meet the pixels.
    embedding, head = 2 * tokens * 3 * (2 if modality == "clip" else 1) * 8 * 8 * 128, 2 * 128 * 7
    # Backward is two products for each of forward, but for the picture, which needs no gradient.
    wanted = 3 * (by_hand(tokens, 128, 4) + head) + 2 * embedding
    assert count_step(config, modality).tflop == pytest.approx(wanted / 1e12, rel=0.01)


def test_masking_takes_away_what_the_encoder_does_not_see():
    """The control of the same count: hide less, and a pretraining step costs more."""
    most, less = (count_step(PretrainConfig(name="p", size="tiny", mask_clips=share), "clip") for share in (0.9, 0.5))
    assert most.tflop < less.tflop and most.saved_mb < less.saved_mb
    visible, decoded = round(0.5 * 144), 144
    wanted = 3 * (by_hand(visible, 128, 4) + by_hand(decoded, 64, 2))  # beside embedding and the two small projections
    assert wanted / 1e12 < less.tflop < 1.35 * wanted / 1e12


def test_kept_tensors_grow_with_the_batch_and_parameters_are_not_among_them():
    sizes = [saved_bytes(*make_step(TINY, "clip", batch)) for batch in (1, 2, 3)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.02)
    assert count_step(TINY, "clip").saved_mb == pytest.approx((sizes[1] - sizes[0]) / 1e6, rel=0.02)


@pytest.mark.slow
def test_a_frozen_model_s_parameters_are_told_from_those_that_train():
    whole = count_step(FinetuneConfig(name="s", mode="dfer", system="s2d", size="tiny", freeze=False), "clip")
    frozen = count_step(FinetuneConfig(name="s", mode="dfer", system="s2d", size="tiny"), "clip")
    assert frozen.parameters == whole.parameters and frozen.trained < whole.trained


# ------------------------------------------------------------------------------------------------- steps and hours


def test_steps_are_those_of_the_plan():
    joint = FinetuneConfig(name="j", mode="joint", epochs=7, batch_clips=8, batch_stills=16, validation=0.2)
    assert steps_of(joint, {"clip": 100, "image": 200}) == {"clip": (7 * 10, 8), "image": (7 * 5, 16)}  # half of them
    alone = joint.model_copy(update={"mode": "sfer"})
    assert steps_of(alone, {"image": 200}) == {"image": (7 * 10, 16)}
    pretraining = PretrainConfig(name="p", epochs=7, batch_clips=8, batch_stills=16, replicate=4)
    assert steps_of(pretraining, {"clip": 100, "image": 200}) == {"clip": (7 * 3, 32), "image": (7 * 13, 16)}


@pytest.fixture
def known(monkeypatch):
    """A record in which a clip step is 1 TFLOP and 100 MB a sample; returns it, to be changed."""
    said = {"size": "base", "gpus": {}, "reading": {"finetune": {"clip": 0.0, "image": 0.0}},
            "steps": {"plain clip": {"tflop": 1.0, "saved_mb": 100.0, "parameters": 10**8, "trained": 10**8}}}
    monkeypatch.setattr(costs, "measured_costs", lambda: said)
    return said


BASE = FinetuneConfig(name="b", mode="dfer", epochs=10, batch_clips=10, validation=0.5, validate_every=10, workers=4)


def test_hours_are_operations_over_the_assumed_share_of_the_peak(known):
    found = estimate(BASE, {"clip": 2000}, GPUS["a100"], {"clip": 300})
    passes = 10 * 1000 + (1000 + 2 * 300) / 3  # training, one validation, and the test in two views
    assert found.petaflop == pytest.approx(passes / 1000)
    assert found.hours == pytest.approx(passes / (312 * UTILISATION) / 3600)
    assert (found.updates, found.basis, found.bound) == (1000, "counted", "computing")
    assert estimate(BASE, {"clip": 2000}, GPUS["h100"]).hours < found.hours


def test_measured_steps_take_the_place_of_the_division_and_are_called_so(known):
    known["gpus"]["NVIDIA H200"] = {"plain clip": {"seconds_per_sample": 0.5, "batch": 16}}
    found = estimate(BASE, {"clip": 2000}, GPUS["h200"])
    assert found.basis == "measured" and found.hours == pytest.approx((10_000 + 1000 / 3) * 0.5 / 3600)
    assert estimate(BASE, {"clip": 2000}, GPUS["h100"]).basis == "counted"  # the control: another type
    assert cell(found, 1).startswith("1.4 hᵐ") and "hᵐ" not in cell(replace(found, basis="counted"), 1)


def test_a_step_lasts_as_long_as_its_reading_where_that_is_longer(known):
    known["reading"]["finetune"]["clip"] = 40.0  # of one thread
    slow, quick = (estimate(BASE, {"clip": 2000}, GPUS["a100"], workers=n) for n in (4, 10**6))
    assert slow.bound == "reading" and slow.hours == pytest.approx(1000 * 10 * 40 / 4 / 3600, rel=0.01)
    assert quick.bound == "computing" and quick.hours < slow.hours
    assert estimate(BASE.model_copy(update={"cache": True}), {"clip": 2000}, GPUS["a100"]).bound == "computing"


def test_memory_is_made_to_fit_with_micro_batches_or_said_not_to(known):
    fits = estimate(BASE, {"clip": 2000}, GPUS["a100"])
    assert fits.accumulate == 1 and fits.memory_gb == pytest.approx(1.5 + 1.6 + 10 * 0.1)
    small = replace(GPUS["a100"], memory_gb=3.5)
    split = estimate(BASE, {"clip": 2000}, small)
    assert split.accumulate == 4 and split.memory_gb <= 3.5 and "÷4" in cell(split, 1)
    none = estimate(BASE, {"clip": 2000}, replace(small, memory_gb=3.0))
    assert none.accumulate == 0 and "does not fit" in cell(none, 1)


def test_another_shape_than_the_recorded_is_counted_anew(known, monkeypatch):
    counted = []
    monkeypatch.setattr(costs, "_counted_now", lambda config, m: counted.append(config.size) or Counted(2, 1, 1, 1))
    assert costs.counted(BASE, "clip").tflop == 1.0 and not counted
    assert costs.counted(BASE.model_copy(update={"size": "small"}), "clip").tflop == 2 and counted == ["small"]


def test_an_unknown_length_is_asked_for(known):
    with pytest.raises(ValueError, match="how many training samples there are of clip"):
        estimate(BASE, {"image": 5}, GPUS["a100"])


# ------------------------------------------------------------------------------------------------- record and table


def test_the_committed_record_has_every_kind_of_step():
    said = read_record(STEP_COSTS).results
    assert set(said["steps"]) == {name for name, _, _ in KINDS} and said["size"] == "base"
    for name, config, modality in KINDS:
        assert kind_of(config, modality) == name
        assert said["steps"][name]["tflop"] > 0 and said["steps"][name]["cpu"]["seconds_per_sample"] > 0
    assert {stage: set(kinds) for stage, kinds in said["reading"].items()} == dict.fromkeys(
        ("drawing", "pretrain", "finetune"), {"image", "clip"})


def test_every_training_of_the_full_tier_has_a_cost_without_counting_or_drawing(monkeypatch):
    monkeypatch.setattr(costs, "_counted_now", lambda *_: pytest.fail("the full tier's steps are in the record"))
    table = cost_table()
    assert set(table["rows"]) == set(TRAININGS)
    for name, row in table["rows"].items():
        config = configuration(name, "full")
        settings = PRETRAIN["full"] if name == "pretraining" else FINETUNE["full"]
        assert config.precision == settings["precision"]
        assert all(found.hours > 0 and found.memory_gb > 1 for found in row["gpus"].values())
        assert row["gpus"]["h200"].hours <= row["gpus"]["a100"].hours
    assert len(as_lines(table)) == 2 + len(TRAININGS) + 2


def test_the_command_knows_published_counts(s4d):
    code, said, wrong = s4d("cost", "dfer", "--dataset", "dfew", "--gpu", "a100", "--runs", "5")
    assert (code, wrong) == (0, "") and "| dfer | – | 9,356 | 100 |" in said and "Hours of 5 runs" in said


@pytest.mark.parametrize(("words", "told"), [
    ("sfr", "no cost is known of 'sfr'; there are: pretraining, sfer, dfer, joint, moae, s2d_sfer, s2d_dfer"),
    ("--gpu b100", "no cost is known of 'b100'; there are: rtx4090, a100, h100, h200"),
    ("--tier mid", "unknown tier 'mid'; the tiers are smoke, laptop, full"),
    ("dfer --dataset caer", "how many clips 'caer' has is not known here; give --clips (and --stills)"),
    ("pretraining --dataset dfew",
     "pretraining has no labelled data set: give --stills and --clips, or name other trainings"),
])
def test_what_nobody_knows_is_refused_in_one_sentence(words, told, s4d):
    assert s4d("cost", *words.split()) == (2, "", f"s4d: {told}\n")
