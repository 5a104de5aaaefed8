"""predictions → page: self-contained, escaped, complete, bounded; read back with the standard library's parser."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from s4d_lib.checkpoints.cards import read_card
from s4d_lib.figures.base import COLOURS
from s4d_lib.predict.pages import page, write_page
from s4d_lib.predict.timelines import NO_NUMBER, STILL, Judge, Prediction, Thumbnail, judge_clip

HOSTILE = "<img src=x onerror=alert(1)>.mp4"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Parsed(HTMLParser):
    """Elements with their attributes, the text outside of scripts and styles, scripts by id, and open elements."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.scripts, self.open = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script":
            self.scripts[attrs.get("id", f"script {len(self.scripts)}")] = data
        elif tag != "style":
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def card():
    known = {"schemas": {"image": "affectnet7", "video": "dfew"}, "stride": 2, "licence": "CC0 <b>licence</b>",
             "trained_on": "nothing & nobody"}
    return read_card("model <i>name</i>", {"image": 7, "video": 7}, 8, (48, 48), known)


def jpeg(seed=0, size=(96, 54)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1] // 6, size[0] // 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def clip(card, path="clip.mp4", windows=30, face=None, abstain=0.0, thumbnails=16, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.dirichlet(np.ones(7), windows)
    start = np.arange(windows) * 0.5
    spans = {"start_frame": np.arange(windows) * 12, "end_frame": np.arange(windows) * 12 + 24,
             "start": start, "end": start + 1}
    face = np.full(windows, np.nan) if face is None else np.asarray(face, float)
    found = Prediction(path, "clip", card, 25.0, 12 * windows + 24, float(start[-1] + 1), 2, "largest face", 0.5)
    found.windows, found.answers = judge_clip(Judge(card.classes["video"], 1.0, abstain), spans, raw, face, 0.0)
    found.thumbnails = [Thumbnail(t, jpeg(i)) for i, t in enumerate(np.linspace(0, found.duration - 0.04, thumbnails))]
    return found


def still(card, path="still.png"):
    found = Prediction(path, "image", card, frames=1, crop="whole frame", thumbnails=[Thumbnail(0.0, jpeg())])
    found.answers = {STILL: Judge(card.classes["image"]).answer(STILL, np.eye(7)[:1])}
    return found


def test_a_page_fetches_nothing_and_closes_what_it_opens(card):
    text = page([clip(card), still(card)])
    parsed = Parsed(text)
    assert parsed.open == [] and text.startswith("<!doctype html>")
    for tag, attrs in parsed.elements:
        for key in ("src", "href", "srcset", "action", "data"):
            assert key not in attrs or attrs[key].startswith(("data:", "#")), f"<{tag} {key}={attrs[key]}>"
    policy = next(meta["content"] for meta in parsed.all("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy and "http" not in policy
    assert text.count("plotly.js v") == 1, "plotly stands in the page once"
    assert "<style>" in text and "@import" not in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("windows", [slice(None), slice(3, 20), slice(5, 6)], ids=["all", "many", "one"])
def test_what_is_not_a_number_is_a_gap_and_has_its_reason(card, windows):
    one = clip(card)
    raw = one.windows.probabilities.copy()
    raw[windows] = np.nan
    spans = {name: getattr(one.windows, name) for name in ("start_frame", "end_frame", "start", "end")}
    one.windows, one.answers = judge_clip(Judge(card.classes["video"]), spans, raw, one.windows.face, 0.0)
    picture = still(card)
    picture.answers = {STILL: Judge(card.classes["image"]).answer(STILL, np.full((1, 7), np.nan))}
    text = page([one, picture])
    assert "the model&#39;s answer is not a number (NaN)" in text or NO_NUMBER in text
    assert not re.search(r"\bnan\b|NaN[,\]]|width:nan", text.split("plotly.js v")[0])
    drawings = [json.loads(body) for name, body in Parsed(text).scripts.items() if body.lstrip().startswith('{"data"')]
    assert all("Infinity" not in json.dumps(drawing) for drawing in drawings)


def test_names_from_files_and_models_are_text(card, tmp_path):
    one = clip(card, f"/in/{HOSTILE}")
    one.notes.append("a </script><script>alert(2)</script> note")
    bad = Prediction(f"/in/{HOSTILE}", "clip", card, error=f"/in/{HOSTILE}: <b>broken</b>")
    path = write_page(tmp_path / "x.html", [one, bad])
    parsed = Parsed(path.read_text())
    assert not [attrs for _, attrs in parsed.elements if any(key.startswith("on") for key in attrs)]
    assert {img["src"][:10] for img in parsed.all("img")} == {"data:image"}
    assert not parsed.all("b") or "broken" not in parsed.scripts.values()
    text = "".join(parsed.text)
    for words in (HOSTILE, "<b>broken</b>", "model <i>name</i>", "CC0 <b>licence</b>", "nothing & nobody",
                  "a </script><script>alert(2)</script> note"):
        assert words in text, words
    assert len(parsed.all("script")) == 3, "the drawing, plotly and our own few lines"
    assert list(tmp_path.iterdir()) == [path]


def test_hostile_class_names_reach_neither_the_page_nor_the_plot():
    names = ["</script><img src=x onerror=alert(3)>", "<b>b</b>"]
    card = read_card("m", {"video": 2}, 8, (48, 48), {"class_names": {"video": names}, "stride": 1})
    found = Prediction("a.mp4", "clip", card, 25.0, 30, 1.0, 1, "whole frame")
    spans = {"start_frame": np.array([0]), "end_frame": np.array([24]), "start": np.zeros(1), "end": np.ones(1)}
    found.windows, found.answers = judge_clip(Judge(tuple(names)), spans, np.array([[0.7, 0.3]]), np.array([1.0]), 0)
    parsed = Parsed(page([found]))
    drawing = json.loads(parsed.scripts["plot-0-data"])
    assert drawing["data"][0]["name"].startswith("&lt;/script&gt;"), "plotly reads some HTML in names"
    assert not [attrs for _, attrs in parsed.elements if "onerror" in attrs]


def test_what_stands_on_the_page(card):
    text = "".join(Parsed(page([clip(card), still(card)])).text)
    for words in ("apparent expression", "not what a person feels", "affectnet7", "dfew", "30 windows in numbers",
                  "two views", "whole video", "first and the last window", "2 files"):
        assert words in text, words
    assert "drawn faces" not in text, "control: this model does not come with the library"
    from dataclasses import replace

    assert "synthetic, drawn faces only" in "".join(Parsed(page([clip(replace(card, shipped=True))])).text)


def test_the_plot_holds_the_smoothed_timeline(card):
    face = np.ones(30)
    face[10:14] = 0
    one = clip(card, face=face, abstain=0.4)
    parsed = Parsed(page([one]))
    drawing = json.loads(parsed.scripts["plot-0-data"])
    areas = [trace for trace in drawing["data"] if trace.get("stackgroup")]
    assert [trace["name"] for trace in areas] == list(card.classes["video"])
    assert [trace["fillcolor"] for trace in areas] == [COLOURS[name] for name in card.classes["video"]]
    assert np.allclose(np.array([trace["y"] for trace in areas])[:, 1:-1], one.windows.smoothed.T, atol=1e-4)
    assert np.allclose(areas[0]["x"][1:-1], one.windows.middle, atol=1e-3)
    assert (areas[0]["x"][0], areas[0]["x"][-1]) == (0, one.duration)
    shades = {trace["name"]: trace["y"][:-1] for trace in drawing["data"] if trace.get("fill") == "tozeroy"}
    reasons = one.windows.smoothed_reasons
    assert shades["no face"] == [int(reason == "no face") for reason in reasons] and sum(shades["no face"]) == 4
    assert shades["no answer"] == [int(reason.startswith("confidence")) for reason in reasons]
    ribbon = next(trace for trace in drawing["data"] if trace["type"] == "heatmap")["z"][0]
    best = one.windows.smoothed.argmax(1)
    assert ribbon == [None if reason else int(b) for b, reason in zip(best, reasons)]
    label = next(div for div in parsed.all("div") if div.get("class") == "plot")["aria-label"]
    assert "15.5 seconds" in label and "no answer" in label


def test_filmstrip_stands_under_the_time_axis_and_is_described(card):
    one = clip(card)
    images = Parsed(page([one])).all("img")
    assert len(images) == 16 and all(image["alt"].startswith("frame at ") for image in images)
    left = [float(re.search(r"left:([\d.]+)%", image["style"])[1]) for image in images]
    assert np.allclose(left, [100 * t.second / one.duration for t in one.thumbnails], atol=0.01)
    parsed = Parsed(page([still(card)]))
    assert [image["alt"] for image in parsed.all("img")] == ["still.png, made small"]
    assert not parsed.scripts and len(page([still(card)])) < 20_000, "no clip, no plotly"


def test_errors_and_damage_are_listed(card):
    bad = Prediction("/x/bad.mp4", "clip", card, error="/x/bad.mp4: it is empty")
    part = clip(card, "/x/part.mp4")
    part.damage = "the file is cut short"
    parsed = Parsed(page([bad, part, still(card)]))
    text = "".join(parsed.text)
    assert "3 files, 1 of them could not be read" in text and text.count("it is empty") == 2
    assert text.count("the file is cut short") == 2
    links = [a["href"].removeprefix("#") for a in parsed.all("a")]
    assert links == [h["id"] for h in parsed.all("h2") if "id" in h] and len(links) == 3


def test_many_and_long_files_stay_small(card):
    plotly = len(page([clip(card, windows=2)]))
    many = page([clip(card, f"{i}.mp4", windows=300, seed=i) for i in range(200)])
    assert len(many) < 10e6 and len(Parsed(many).all("img")) == 200 * 4
    long = page([clip(card, windows=22_500)])
    parsed = Parsed(long)
    assert len(long) - plotly < 1e6
    assert "Each point is the mean of 15 windows" in "".join(parsed.text)
    assert "first 500 of 22500" in "".join(parsed.text) and len(parsed.all("tr")) == 501


def test_a_page_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one prediction"):
        page([])
