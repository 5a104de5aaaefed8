"""fingerprints: every run that was ever recorded is found again, whatever settings were added since."""

import json

import pytest
from pydantic import Field, ValidationError
from recorded_marks import STAND_IN, WRITTEN, mark_of, real, recorded

from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.fingerprints import run_mark, run_record
from s4d_lib.training.later import later, later_fields, unused
from s4d_lib.training.state import Progressed

KNOWN = json.loads(WRITTEN.read_text())


def test_every_recorded_configuration_keeps_its_fingerprint(tmp_path):
    found = recorded(tmp_path)
    assert len(found) > 100, "the records hold the configurations of the book's runs"
    assert {place: mark for place, mark in found.items() if KNOWN.get(place, mark) != mark} == {}
    assert found.keys() & KNOWN.keys() == {place for place in KNOWN if "/" in place}


def test_whole_configurations_keep_their_fingerprints(tmp_path):
    found = {name: mark_of(config) for name, config in real(tmp_path).items()}
    assert found == {name: KNOWN[name] for name in found}


@pytest.mark.parametrize("change", [{"seed": 1}, {"experts": 4}, {"remedy": "pcgrad", "clip_steps": 3}])
def test_control_a_changed_setting_has_another(tmp_path, change):
    config = real(tmp_path)["moae from the shipped encoder"]
    changed = type(config)(**config.model_dump() | change)
    assert run_mark(changed, STAND_IN) != run_mark(config, STAND_IN)
    assert mark_of(changed) not in KNOWN.values()


# --- settings that come later ----------------------------------------------------------------------------------------

# The settings that runs had before any was marked as later. This list is closed: nothing is ever added to it.
FIRST_OF_BOTH = set("""name tier size stills clips frames stride on_unreadable cache augment_stills augment_clips epochs
    batch_stills batch_clips lr final_lr warmup_epochs weight_decay clip_norm seed precision accumulate ema workers
    device checkpoint_minutes stage betas""".split())
FIRST = {
    PretrainConfig: FIRST_OF_BOTH | set("modalities mask_stills mask_clips replicate target_epsilon".split()),
    FinetuneConfig: FIRST_OF_BOTH | set("""mode init fold validation split_seed epoch_rule select validate_every
        train_clips train_stills share_stills share_clips balance pool dropout moae_blocks experts top_k capacity_factor
        behaviour balance_coeff layer_decay mixup cutmix smoothing""".split()),
}


def refuse_unmarked(config: type, first: set[str]) -> None:
    """AssertionError, with what to do, for a setting that would make every earlier run unfindable."""
    unmarked = set(config.model_fields) - later_fields(config)
    forgotten = sorted(unmarked - first)
    assert not forgotten, (
        f"{config.__name__}.{', '.join(forgotten)} changes the fingerprint of every run before it, so that none would "
        "be found again; write later(default, …) of later.py in place of Field(default, …)")
    assert unmarked == first, f"{config.__name__} has lost {sorted(first - unmarked)}, which every fingerprint covers"


@pytest.mark.parametrize("config", [PretrainConfig, FinetuneConfig])
def test_every_setting_of_the_first_runs_counts_and_every_other_is_marked(config):
    refuse_unmarked(config, FIRST[config])


@pytest.mark.parametrize("stage, name", [(PretrainConfig, "pretraining"), (FinetuneConfig, "s2d, shipped landmarks")])
def test_a_new_setting_at_its_default_keeps_the_fingerprint(tmp_path, stage, name):
    class Marked(stage):
        patience: int = later(3, ge=1)

    class Forgotten(stage):
        patience: int = Field(3, ge=1)

    settings = real(tmp_path)[name].model_dump()
    assert mark_of(Marked(**settings)) == KNOWN[name] != mark_of(Marked(**settings, patience=4))
    refuse_unmarked(Marked, FIRST[stage])
    assert mark_of(Forgotten(**settings)) != KNOWN[name], "control: this is what the mark is for"
    with pytest.raises(AssertionError, match="patience changes the fingerprint of every run before it.*write later"):
        refuse_unmarked(Forgotten, FIRST[stage])


def test_a_mark_is_a_default_and_its_limits(tmp_path):
    class Marked(FinetuneConfig):
        patience: int = later(3, ge=1, description="epochs")

    assert unused(Marked(name="x", mode="dfer")) >= {"patience", "remedy", "landmarks"}
    assert "patience" not in unused(Marked(name="x", mode="dfer", patience=5))
    with pytest.raises(ValidationError, match="patience"):
        Marked(name="x", mode="dfer", patience=0)


def test_where_remembered_landmarks_lie_plays_no_part_but_that_there_are_any(tmp_path):
    config = real(tmp_path)["s2d, remembered landmarks"]
    moved = config.model_copy(update={"landmark_memory": "/elsewhere"})
    asked = config.model_copy(update={"landmark_memory": None})
    assert mark_of(moved) == mark_of(config) != mark_of(asked) == KNOWN["s2d, shipped landmarks"]
    assert run_record(moved, "finetune", "", Progressed(), {}, {}, {}, {}).config["landmark_memory"] == "elsewhere"
