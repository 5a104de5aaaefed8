"""The Python side of the explorers: dials, recorded states, stills and what they say."""

import json
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("anywidget")

import widgets
from widgets import EXPLORERS, __main__, explorer
from widgets.explorer import alt_of, cells, dial, outdated, recorded, settle, sheet, still

pytestmark = pytest.mark.slow  # the whole file: left out between two edits

KINDS = list(EXPLORERS)


def kind(name: str):
    return getattr(widgets, name)


def test_committed_front_ends_are_what_their_sources_give():
    assert __main__.main(["--check"]) == 0


def test_check_notices_an_edited_front_end(monkeypatch, capsys):
    real = __main__.bundle
    monkeypatch.setattr(__main__, "bundle", lambda *given: real(*given) + "// edited")
    assert __main__.main(["--check", "mask_explorer"]) == 1
    assert "python -m widgets --code mask_explorer" in capsys.readouterr().out


def test_newer_and_new_records_are_noticed():
    kept = {"made_from": {"one": "a", "two": "b"}}
    assert outdated(kept, {"one": "a", "two": "b"}) == []
    assert outdated(kept, {"one": "a", "two": "c", "three": "d"}) == ["two", "three"]


def test_unknown_word_on_the_command_line_is_named(capsys):
    assert __main__.main(["mask_explorr"]) == 2
    assert "mask_explorr" in capsys.readouterr().out


def test_too_many_states_are_refused():
    with pytest.raises(ValueError, match="500000"):
        __main__.bundle(kind("MaskExplorer"), {"dials": [], "much": "x" * 500_000})


@pytest.mark.parametrize("name", KINDS)
def test_states_fit_a_page(name):
    kept = json.dumps(recorded(EXPLORERS[name]), ensure_ascii=False, separators=(",", ":")).encode()
    assert 1000 < len(kept) <= __main__.LIMIT


@pytest.mark.parametrize("name", KINDS)
def test_an_explorer_is_one_module_that_imports_nothing(name):
    text = (explorer.HERE / f"{EXPLORERS[name]}.mjs").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("const RECORDED"))
    assert "export default explorer(" in code
    assert "import " not in code.replace("`import", "") and "fetch(" not in code
    assert "http" not in code.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", KINDS)
def test_stills_have_alt_text_and_weigh_little(name):
    shown = kind(name)()
    view, _ = shown._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in view
    drawn = shown.draw()
    assert len(alt_of(drawn)) > 60
    assert view["text/plain"] == alt_of(drawn)
    kept = still(drawn)
    assert len(json.dumps(kept)) < 150_000
    if isinstance(drawn, Image.Image):
        assert 'alt="' in view["text/html"] and "data:image/png" in view["text/html"]
    else:
        assert view["application/vnd.plotly.v1+json"]["layout"]["meta"]["alt"]


DRAWS = {"FaceExplorer": "draw_face", "ClipExplorer": "draw_clip", "MaskExplorer": "draw_mask",
         "ReconstructionExplorer": "draw_reconstruction", "AttentionExplorer": "draw_attention",
         "TransferExplorer": "draw_transfer", "RouterExplorer": "draw_router", "LandmarkExplorer": "draw_landmarks",
         "ProtocolExplorer": "draw_protocol", "PredictionExplorer": "draw_prediction"}
# Dials that matter only beside others: a draw has nothing to choose from in a short video, a still has one kind of mask
# and a clip one head.
BESIDE = {("ClipExplorer", "draw"): {"length": 80, "stride": 1}, ("ReconstructionExplorer", "kind"): {"what": "clip"},
          ("AttentionExplorer", "head"): {"what": "image"}}
# Dials of the page alone, and why the plain-Python twin does not follow them.
PAGE_ALONE = {("ClipExplorer", "rule"): "the twin draws all rules, a row each",
              ("MaskExplorer", "copies"): "the twin counts what can be copied and marks nothing",
              ("LandmarkExplorer", "face"): "the twin always shows the face",
              ("LandmarkExplorer", "paths"): "the twin draws points, no ways",
              ("ProtocolExplorer", "choice"): "the twin draws all choices of the family",
              ("ProtocolExplorer", "rule"): "the curve over epochs is drawn by the page",
              ("PredictionExplorer", "window"): "the hand at one window is drawn by the page"}


def content(drawn) -> bytes:
    """What is seen: pixels of a picture, everything of a figure."""
    return drawn.convert("RGB").tobytes() if isinstance(drawn, Image.Image) else drawn.to_json().encode()


@pytest.mark.parametrize("name", KINDS)
def test_the_ends_of_every_dial_are_drawn_and_differ(name):
    """The first and the last setting of each dial, the others at their start or where they let it matter."""
    draw = getattr(import_module(f"widgets.{EXPLORERS[name]}"), DRAWS[name])
    dials = recorded(EXPLORERS[name])["dials"]
    for spec in dials:
        key = (name, spec["key"])
        first, last = (content(draw({spec["key"]: spec["options"][end], **BESIDE.get(key, {})})) for end in (0, -1))
        assert (first == last) == (key in PAGE_ALONE), f"{key}: {PAGE_ALONE.get(key, 'its ends look the same')}"
    assert content(kind(name)().draw()) == content(draw({spec["key"]: spec["value"] for spec in dials}))


def test_exceptions_name_dials_that_there_are():
    there = {(name, spec["key"]) for name in KINDS for spec in recorded(EXPLORERS[name])["dials"]}
    assert set(PAGE_ALONE) | set(BESIDE) <= there and list(DRAWS) == KINDS


def test_dials_are_checked_and_completed():
    dials = settle("mask_explorer", {"kind": "tube"})
    assert dials == {"what": "clip", "kind": "tube", "ratio": 0.9, "seed": 0, "copies": True}
    with pytest.raises(ValueError, match="did you mean 'ratio'"):
        settle("mask_explorer", {"ration": 0.9})
    with pytest.raises(ValueError, match=r"has no 0\.91; it has 0\.3"):
        settle("mask_explorer", {"ratio": 0.91})
    with pytest.raises(ValueError, match="not among its options"):
        dial("x", "X", [1, 2], 3)


def test_a_kernel_answers_for_exactly_the_dials_it_was_given():
    shown = kind("FaceExplorer")(live=True, au4=1, time=0)
    assert shown.shown["dials"] == shown.dials
    before = cells(shown.shown["sheet"])
    shown.dials = shown.dials | {"au26": 1}
    after = cells(shown.shown["sheet"])
    assert shown.shown["dials"]["au26"] == 1
    assert np.abs(before[0].astype(int) - after[0]).mean() > 1  # the jaw drops
    assert kind("FaceExplorer")().shown == {}  # and without `live` no kernel is asked


def test_a_sheet_gives_its_frames_back():
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (5, 1, 1, 3), np.uint8), 24, 1).repeat(16, 2)  # 24 high, 16 wide, flat
    found = cells(sheet(frames, columns=3, quality=95))
    assert found.shape == frames.shape
    assert np.abs(found.astype(int) - frames).mean() < 6


def test_unknown_explorer_is_named():
    with pytest.raises(AttributeError, match="MaskExplorer"):
        _ = widgets.MusckExplorer
