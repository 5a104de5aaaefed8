"""fingerprints: every run that was ever recorded is found again, whatever settings were added since."""

import json

import pytest
from recorded_marks import STAND_IN, WRITTEN, mark_of, real, recorded

from s4d_lib.run_records import run_mark

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
