"""Methods and cells → configurations: each one as it was when the first records were made, and no name misspelt."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from s4d_lib.lab import cells
from s4d_lib.lab.cells import METHODS, Cell, Method, config_on, run_config
from s4d_lib.training.configs import FinetuneConfig

# Made by the code that trained the recorded runs: one configuration whole, of the others what differs from it.
FROZEN = json.loads((Path(__file__).parent / "data" / "lab_configs.json").read_text())
CELLS = {cell.name: cell for cell in (
    Cell(), Cell(clips=1600, ratio=8), Cell(init="random", size="nano_wide"), Cell(schema="merged"),
    Cell(schema="split"), Cell(clips=1800, weight=8, noise="heavy", sequence=0.8, shift="none"))}


def folders(cell: Cell) -> dict[str, str]:
    more = {"stills_as": "table", "stills_schema": "fine11"} if cell.schema == "split" else {}
    return {"stills": "faces/stills", "clips": "faces/clips"} | more


def plain(config: FinetuneConfig) -> dict:
    """A configuration as JSON keeps it, the pretrained encoder by its file's name."""
    values = config.model_dump(mode="json")
    return values | {"init": values["init"] and Path(values["init"]).name}


def expected(differences: dict) -> dict:
    """A frozen configuration; a field that came later stands at its default, or older runs would not be found."""
    later = {name: field.get_default() for name, field in FinetuneConfig.model_fields.items()
             if name not in FROZEN["base"]}
    later = FinetuneConfig.model_construct(**later).model_dump(mode="json", include=set(later))
    return later | FROZEN["base"] | differences


@pytest.mark.parametrize("which", FROZEN["differences"])
def test_every_method_gives_the_configuration_of_the_recorded_runs(which):
    tier, name = which.split(": ")
    rows = FROZEN["differences"][which]
    assert tier == "full" or set(rows) == set(METHODS)
    for method, differences in rows.items():
        found = config_on(folders(CELLS[name]), CELLS[name], method, 7, tier)
        assert plain(found) == expected(differences), method


def test_what_a_caller_changes_comes_last():
    found = config_on(folders(Cell()), Cell(), "joint", 8, clip_norm=None, lr=6e-3)
    assert plain(found) == expected(FROZEN["changed"])
    lighter = config_on(folders(Cell()), Cell(), "joint_light", 8, still_weight=0.5)
    assert lighter.still_weight == 0.5, "the caller's word counts, not the method's"


def test_a_misspelt_setting_is_found_where_the_method_is_written():
    with pytest.raises(TypeError, match="capacity"):
        Method(mode="moae", capacity=1.5)
    assert {one.name for one in fields(Method)} - {"longer"} <= set(FinetuneConfig.model_fields)


def test_a_method_names_only_what_it_changes():
    assert METHODS["joint_x10"].settings() == {"mode": "joint"} and METHODS["joint_x10"].longer == 10
    assert METHODS["no_balance"].settings()["balance_coeff"] == 0.0, "nought is a setting, None is none"


def test_an_unknown_method_is_refused_before_anything_is_drawn(monkeypatch):
    monkeypatch.setattr(cells, "data_folders", lambda *_: pytest.fail("faces were drawn for a run that cannot be"))
    with pytest.raises(ValueError, match="method must be one of dfer, .* got 'majority'"):
        run_config(Cell(), "majority", 0)
