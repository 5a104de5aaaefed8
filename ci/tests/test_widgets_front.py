"""The front ends in node: every dial moved against a stub model, and their arithmetic against the Python side."""

import base64
import json
import shutil
import subprocess
from itertools import product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("anywidget")
if not shutil.which("node"):
    pytest.skip("node is not installed", allow_module_level=True)

from widgets import EXPLORERS
from widgets.explorer import HERE, recorded, settle

pytestmark = pytest.mark.spawns

JS = Path(__file__).parent / "js"


def drive(path: Path) -> dict:
    done = subprocess.run(["node", JS / "explorers.mjs", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def call(explorer: str, name: str, calls: list[list]) -> list:
    """What an export of a front end returns for each list of arguments."""
    done = subprocess.run(["node", JS / "call.mjs", HERE / f"{explorer}.mjs"], capture_output=True, text=True,
                          input=json.dumps({"name": name, "calls": calls}), check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def settings(explorer: str, **varied: list) -> list[dict]:
    """Complete dials for all combinations of some."""
    return [settle(explorer, dict(zip(varied, values))) for values in product(*varied.values())]


@pytest.mark.parametrize("name", EXPLORERS.values())
def test_every_dial_moves_and_says_so(name):
    found = drive(HERE / f"{name}.mjs")
    assert found["moved"] == found["able"] >= 3, "a dial changes nothing"


@pytest.mark.parametrize(("broken", "whole"), [
    ("h(\"label\", { for: `x${id}` }", "h(\"label\", { for: id }"),          # a control without its label
    ("", "  model.off?.(\"change:dials\", heard);"),                        # listeners that stay
    ("model.on(\"change:nothing\", heard);", "model.on(\"change:dials\", heard);"),  # a kernel that is not heard
    ("\"aria-label\", \"\"", "\"aria-label\", drawn.alt"),                  # a picture without alt text
])
def test_the_drive_notices(broken, whole, tmp_path):
    text = (HERE / "mask_explorer.mjs").read_text(encoding="utf-8")
    assert whole in text
    path = tmp_path / "broken.mjs"
    path.write_text(text.replace(whole, broken), encoding="utf-8")
    done = subprocess.run(["node", JS / "explorers.mjs", path], capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_masks_are_those_of_the_library_and_counts_agree():
    from widgets.mask_explorer import GRIDS, KINDS, RATIOS, copyable, draw_hidden

    kept = recorded("mask_explorer")
    asked = settings("mask_explorer", kind=KINDS, ratio=RATIOS, seed=[0, 2])
    masks = call("mask_explorer", "mask", [[dials, kept] for dials in asked])
    for dials, found in zip(asked, masks):
        assert found == draw_hidden("clip", dials["kind"], dials["ratio"], dials["seed"]).tolist()
    counts = call("mask_explorer", "counts", [[mask, GRIDS["clip"]] for mask in masks])
    for dials, mask, found in zip(asked, masks, counts):
        assert found["copyable"] == copyable(np.array(mask), GRIDS["clip"])
        assert found["hidden"] == sum(mask)
        if dials["kind"] == "tube":
            assert found["copyable"] == 0, "a tube leaves nothing to copy in time"
    assert max(found["copyable"] for found in counts) > 100  # and the other masks do


def test_copyable_on_a_grid_of_different_sides():
    from widgets.mask_explorer import copyable

    hidden = np.ones((3, 2, 5), bool)
    hidden[1, 0, 4] = False  # seen in the middle slot: its place is copyable in both others
    assert copyable(hidden.ravel(), (3, 2, 5)) == 2
    assert call("mask_explorer", "counts", [[hidden.ravel().tolist(), [3, 2, 5]]])[0]["copyable"] == 2


def test_recorded_faces_are_found_where_they_were_put():
    from widgets.face_explorer import recorded_place
    from widgets.portraits import PATTERNS

    kept = recorded("face_explorer")
    asked = settings("face_explorer", person=[0, 2], pattern=PATTERNS[::5], intensity=[0.0, 0.5, 1.0], time=[0, 4, 9])
    shares = [[dials["intensity"], dials["intensity"] * kept["presence"][dials["time"]]] for dials in asked]
    found = call("face_explorer", "place", [[dials, kept, share] for dials, two in zip(asked, shares) for share in two])
    assert found == [place for dials in asked for place in recorded_place(dials)]
    assert len(set(found)) > 20


def test_recorded_landmarks_are_within_a_step_of_the_drawn_ones():
    from widgets.landmark_explorer import landmarks, movement

    kept = recorded("landmark_explorer")
    asked = settings("landmark_explorer", person=[0, 1], share=[0.0, 1.0], turn=[-0.3, 0.15])
    places = call("landmark_explorer", "place", [[dials, kept] for dials in asked])
    points = call("landmark_explorer", "pointsOf", [[kept["points"], place] for place in places])
    for dials, found in zip(asked, points):
        _, exact, rest = landmarks(dials)
        assert np.abs(np.array(found) - exact).max() < 1.5 / 255
        told = call("landmark_explorer", "movement", [[exact.tolist(), rest.tolist(), kept["parts"]]])[0]
        assert told == pytest.approx(movement(exact, rest), rel=1e-4)  # float32 against double


def test_clip_facts_agree():
    from widgets.clip_explorer import LENGTHS, RULES, STRIDES, facts, positions

    asked = [(rule, length, stride, 1) for rule in RULES for length in LENGTHS for stride in STRIDES]
    taken = [positions(*one) for one in asked]
    kept = recorded("clip_explorer")
    assert [kept["table"][" ".join(map(str, one))] for one in asked] == taken
    assert call("clip_explorer", "facts", [[one] for one in taken]) == [facts(one) for one in taken]


def test_transfer_summaries_agree():
    from widgets.transfer_explorer import PAIRS, summary

    kept = recorded("transfer_explorer")
    varied = {spec["key"]: spec["options"] for spec in kept["dials"] if spec["key"] in ("noise", "shift")}
    asked = settings("transfer_explorer", pair=list(PAIRS), **varied)
    for dials, found in zip(asked, call("transfer_explorer", "summary", [[dials, kept] for dials in asked])):
        assert found == pytest.approx(summary(dials, kept["cells"]))


def test_dots_of_a_swarm_do_not_overlap():
    places = np.sort(np.random.default_rng(0).uniform(0, 60, 25)).tolist()
    levels = call("transfer_explorer", "swarm", [[places, 13]])[0]
    for i in range(25):
        for j in range(i):
            assert levels[i] != levels[j] or abs(places[i] - places[j]) >= 13


def test_router_states_agree():
    from widgets.router_explorer import state

    kept = recorded("router_explorer")
    asked = settings("router_explorer", modality=["clip", "image"], block=kept["blocks"], label=["all", "Fear"])
    for dials, found in zip(asked, call("router_explorer", "state", [[dials, kept] for dials in asked])):
        here, every, places = state(dials, kept)
        assert found["here"] == here.tolist() and found["every"] == every.tolist()
        assert np.array(found["places"]).shape == (places.size // places.shape[-1], places.shape[-1])
        assert (np.array(found["places"]).reshape(places.shape) == places).all()


def test_attention_shares_agree_and_sum_to_one():
    from widgets.attention_explorer import state

    kept = recorded("attention_explorer")
    asked = settings("attention_explorer", what=["image", "clip"], block=[0, 3], slot=[0, 3], row=[0, 4], column=[5])
    for dials, found in zip(asked, call("attention_explorer", "state", [[dials, kept] for dials in asked])):
        shares = state(dials, kept)
        assert np.array(found["shares"]) == pytest.approx(shares.ravel(), abs=1e-9)
        assert shares.sum() == pytest.approx(1)


def test_protocol_choices_and_epochs_agree():
    from widgets.protocol_explorer import FAMILIES, RULES, chosen, epoch_of

    kept = recorded("protocol_explorer")
    asked = settings("protocol_explorer", metric=["war", "uar"], family=list(FAMILIES), choice=[0, 3], rule=list(RULES))
    names = call("protocol_explorer", "chosen", [[dials, kept] for dials in asked])
    epochs = call("protocol_explorer", "epochOf", [[dials, kept] for dials in asked])
    for dials, name, epoch in zip(asked, names, epochs):
        assert (name["name"], name["score"]) == chosen(dials, kept)[:2]
        assert epoch == epoch_of(dials, kept)
    assert sum(map(len, kept["groups"].values())) == len(kept["effects"])


def test_prediction_facts_agree():
    from widgets.prediction_explorer import REACHES, THRESHOLDS, facts

    kept = recorded("prediction_explorer")
    asked = settings("prediction_explorer", smooth=REACHES, threshold=THRESHOLDS)
    for dials, found in zip(asked, call("prediction_explorer", "facts", [[dials, kept] for dials in asked])):
        assert {key: found[key] for key in ("answered", "right")} == pytest.approx(facts(dials, kept))


def test_reconstruction_masks_are_read_as_they_were_packed():
    kept = recorded("reconstruction_explorer")
    for key in ("image 0 random 0.75", "clip 2 tube 0.9"):
        packed = kept["states"][key]["mask"]
        count = 36 if key.startswith("image") else 144
        hidden = np.unpackbits(np.frombuffer(base64.b64decode(packed), np.uint8))[:count].astype(bool)
        assert call("reconstruction_explorer", "hiddenOf", [[packed, count]])[0] == hidden.tolist()
        assert 0 < hidden.sum() <= float(key.split()[-1]) * count
