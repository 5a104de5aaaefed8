"""predictions → page     one self-contained HTML file: what the model said about every file, over time.

A page fetches nothing and says so to the browser (its content security policy). It holds plotly once, if there is a
clip to draw; what is drawn is drawn when it comes into view. Everything that came with a file or a model (names,
notes, class names) is escaped. Its size is bounded: many files share a fixed number of points, pictures and rows.

Derived in chapter 12.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from s4d_lib import __version__
from s4d_lib.errors import Refused
from s4d_lib.figures import COLOURS
from s4d_lib.files import write_text
from s4d_lib.timelines import ABOUT, NO_FACE, SAYS, SHIPPED_KNOWS, WHOLE, Answer, Prediction, Thumbnail

POINTS, PICTURES, ROWS = 10_000, 800, 2_000      # of a page; one file gets at most the following
FILE_POINTS, FILE_PICTURES, FILE_ROWS = 1_500, 16, 500
PATTERNS = ("", "/", "x", ".", "-", "|")            # classes beyond the eight colours get one of these as well
LEFT, RIGHT = 52, 14                                # margins of the plot in pixels; the filmstrip has the same


def write_page(path: str | Path, predictions: Sequence[Prediction], title: str = "Apparent expressions") -> Path:
    """Write the page of some predictions, whole or not at all. ValueError for none."""
    return write_text(path, page(predictions, title))


def page(predictions: Sequence[Prediction], title: str = "Apparent expressions") -> str:
    """The page as text."""
    if not predictions:
        raise Refused("a page needs at least one prediction")
    share = max(1, len(predictions))
    parts = [_head(predictions, title)]
    if len(predictions) > 1:
        parts.append(_overview(predictions))
    parts += [_file(number, one, share) for number, one in enumerate(predictions)]
    drawn = any(one.windows is not None for one in predictions)
    scripts = f"<script>{_plotly()}</script>\n<script>{SCRIPT}</script>" if drawn else ""
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; '
            'style-src \'unsafe-inline\'; script-src \'unsafe-inline\'">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="generator" content="s4d_lib {__version__}">\n<title>{_e(title)}</title>\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + f"\n</main>\n{scripts}\n"
            "</body>\n</html>\n")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _e(text: object) -> str:
    return escape(str(text))


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


# ------------------------------------------------------------------------------------------------ head and overview


def _head(predictions: Sequence[Prediction], title: str) -> str:
    card = predictions[0].card
    about = [ABOUT, SHIPPED_KNOWS if card.shipped else
             "How often it is right on faces like these is not known before it is measured on them."]
    schemas = "; ".join(f"{task}: {card.schema(task)} ({', '.join(names)})" for task, names in card.classes.items())
    facts = {"Model": card.name, "Trained on": card.trained_on, "Licence of the weights": card.licence,
             "Label schema": schemas, "Reads": f"{card.frames} pictures of {card.image_size[0]} × "
                                               f"{card.image_size[1]} px for a clip, at stride {predictions[0].stride}"}
    facts = facts | ({"Note": "; ".join(card.notes)} if card.notes else {})
    listed = "".join(f"<dt>{_e(word)}</dt><dd>{_e(fact)}</dd>" for word, fact in facts.items())
    return (f"<header>\n<h1>{_e(title)}</h1>\n<p class=about>{' '.join(map(_e, about))}</p>\n<dl>{listed}</dl>\n"
            "</header>")


def _overview(predictions: Sequence[Prediction]) -> str:
    rows = []
    for number, one in enumerate(predictions):
        cells = [f'<a href="#file-{number}">{_e(_name(one))}</a>', _short(one.answer),
                 _short(one.answers.get(WHOLE)), "" if one.face is None else _percent(one.face),
                 _e(one.remark)]
        state = ' class="bad"' if not one.whole else ""
        rows.append(f"<tr{state}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    bad = sum(bool(one.error) for one in predictions)
    failed = f", {bad} of them could not be read" if bad else ""
    heads = "".join(f'<th scope="col">{word}</th>' for word in
                    ("file", "two views, or image", "whole video", "frames with a face", "note"))
    return (f"<section>\n<h2>{len(predictions)} files{failed}</h2>\n<div class=scroll><table class=brief>\n"
            f"<thead><tr>{heads}</tr></thead>\n<tbody>{''.join(rows)}</tbody>\n</table></div>\n</section>")


def _name(one: Prediction) -> str:
    return Path(one.path).name or one.path


def _short(answer: Answer | None) -> str:
    if answer is None:
        return ""
    likely = f"{_e(answer.best)} {_percent(answer.confidence)}"
    return f"<b>{likely}</b>" if not answer.abstained else \
        f'<span class=unsure title="{_e(answer.reason)}">no answer ({likely})</span>'


# ------------------------------------------------------------------------------------------------ one file


def _file(number: int, one: Prediction, files: int) -> str:
    body = [f'<h2 id="file-{number}">{_e(_name(one))}</h2>', f"<p class=path>{_e(one.path)}</p>"]
    if one.error:
        body.append(f"<p class=error role=alert><b>Not read.</b> {_e(one.error.removeprefix(f'{one.path}: '))}</p>")
        return "<section>\n" + "\n".join(body) + "\n</section>"
    facts = [one.kind]
    if one.kind == "clip":
        facts += [f"{one.frames} frames", f"{one.duration:.2f} s", f"{one.fps:.4g} frames a second"]
    seen = f", seen in {_percent(one.face)} of the frames read" if one.face and one.kind == "clip" else ""
    facts.append(one.crop + seen)
    body.append(f"<p>{_e(' · '.join(facts))}</p>")
    if one.damage:
        body.append(f"<p class=error><b>Read in part.</b> {_e(one.damage)}.</p>")
    if one.kind == "image":
        body.append(_strip(one.thumbnails, number, None, _name(one)))
    body.append(_answers(one))
    if one.windows is not None:
        pictures = max(4, min(FILE_PICTURES, PICTURES // files))
        plot, caption = _plot(number, one, max(50, min(FILE_POINTS, POINTS // files)))
        body += [plot, _strip(_spread(one.thumbnails, pictures), number, one.duration, _name(one)), caption,
                 _table(one, max(10, min(FILE_ROWS, ROWS // files)))]
    notes = [note for note in one.notes if note not in one.card.notes]
    if notes:
        body.append("<ul class=notes>" + "".join(f"<li>{_e(note)}</li>" for note in notes) + "</ul>")
    return "<section>\n" + "\n".join(body) + "\n</section>"


def _answers(one: Prediction) -> str:
    """A block for each answer: what it is, the label, a bar for each class."""
    blocks = []
    for answer in one.answers.values():
        label = f"<b>{_e(answer.label)}</b> {_percent(answer.confidence)}" if answer.label else \
            f"<b>no answer</b> ({_e(answer.reason)}; likeliest {_e(answer.best)})"
        bars = "".join(
            f'<div class=bar><span>{_e(name)}</span><i style="width:{100 * p:.1f}%;background:{_colour(i, name)}"></i>'
            f"<span class=number>{_percent(p)}</span></div>"
            for i, (name, p) in enumerate(zip(answer.classes, answer.probabilities)))
        blocks.append(f'<div class=answer><h3>{_e(answer.what)}</h3><p>{label}</p>{bars}'
                      f"<p class=small>{_e(SAYS[answer.what])}</p></div>")
    return f"<div class=answers>{''.join(blocks)}</div>"


def _strip(thumbnails: Sequence[Thumbnail], number: int, duration: float | None, name: str) -> str:
    """A filmstrip under the time axis, or the one picture of an image."""
    pictures = []
    for thumbnail in thumbnails:
        source = "data:image/jpeg;base64," + base64.b64encode(thumbnail.jpeg).decode()
        if duration is None:
            return f'<img class=still src="{source}" alt="{_e(name)}, made small">'
        at = min(1.0, max(0.0, thumbnail.second / duration)) if duration else 0.0
        pictures.append(f'<img src="{source}" alt="frame at {thumbnail.second:.2f} s" title="{thumbnail.second:.2f} s" '
                        f'data-t="{thumbnail.second:.4f}" style="left:{100 * at:.2f}%;transform:translateX('
                        f'{-100 * at:.2f}%);max-width:{100 / max(len(thumbnails), 4):.2f}%">')
    return f'<div class=strip id="strip-{number}" role=group aria-label="frames of the clip in order of time">' \
        f'<div>{"".join(pictures)}</div></div>' if pictures else ""


def _spread(thumbnails: Sequence[Thumbnail], count: int) -> list[Thumbnail]:
    if len(thumbnails) <= count:
        return list(thumbnails)
    return [thumbnails[i] for i in np.linspace(0, len(thumbnails) - 1, count).round().astype(int)]


def _table(one: Prediction, rows: int) -> str:
    """The windows in numbers, folded away."""
    w = one.windows
    shown = range(min(len(w), rows))
    head = ["seconds", "frames", "answer", "confidence", "face", *one.classes]
    lines = []
    for i in shown:
        reason = w.reasons[i]
        cells = [f"{w.start[i]:.2f}–{w.end[i]:.2f}", f"{w.start_frame[i]}–{w.end_frame[i]}",
                 f"no answer: {reason}" if reason else one.classes[int(w.probabilities[i].argmax())],
                 _percent(w.confidence[i]), "" if np.isnan(w.face[i]) else _percent(w.face[i]),
                 *map(_percent, w.probabilities[i])]
        lines.append("<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in cells) + "</tr>")
    cut = len(shown) < len(w)
    more = f"<p class=small>The first {len(shown)} of {len(w)}; the CSV report has all.</p>" if cut else ""
    heads = "".join(f'<th scope="col">{_e(word)}</th>' for word in head)
    return (f"<details><summary>{len(w)} window{'s' * (len(w) > 1)} in numbers</summary>{more}<div class=scroll><table>"
            f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div></details>")


# ------------------------------------------------------------------------------------------------ the plot


def _plot(number: int, one: Prediction, points: int) -> tuple[str, str]:
    """The place where the plot will be drawn with what is drawn there, and its caption."""
    data, spoken, mean_of = _traces(one, points)
    # "<" would end the script element or open a comment in it.
    drawing = json.dumps({"data": data, "layout": _layout(one.duration)}, allow_nan=False).replace("<", "\\u003c")
    remark = f" Each point is the mean of {mean_of} windows." if mean_of > 1 else ""
    return (f'<div class=plot id="plot-{number}" role=img aria-label="{_e(spoken)}" data-strip="strip-{number}">'
            "</div>\n"
            f'<script type="application/json" id="plot-{number}-data">{drawing}</script>\n'
            "<noscript><p>The timeline needs JavaScript; the numbers are in the table below.</p></noscript>",
            f'<p class=small>Smoothed probabilities, stacked; below them the answer, with gaps where there is none. '
            f"Hatched: no answer, or no face.{remark}</p>")


def _traces(one: Prediction, points: int) -> tuple[list[dict[str, Any]], str, int]:
    """What plotly draws, what a screen reader says, and how many windows one point stands for."""
    w, mean_of = one.windows, -(-len(one.windows) // points)
    first = range(0, len(w), mean_of)
    p = np.stack([w.smoothed[i : i + mean_of].mean(0) for i in first])
    middle = np.array([w.middle[i : i + mean_of].mean() for i in first])
    reasons = [_common(w.smoothed_reasons[i : i + mean_of]) for i in first]
    edges = [float(w.start[0]), *((middle[1:] + middle[:-1]) / 2).tolist(), float(one.duration)]
    best = p.argmax(1)
    # The first and last value reach to the ends of the clip, where no window has its middle.
    x, y = [edges[0], *middle.tolist(), edges[-1]], np.concatenate([p[:1], p, p[-1:]])
    data: list[dict[str, Any]] = []
    for i, name in enumerate(one.classes):
        pattern = {"shape": PATTERNS[_pattern(i, name)], "fillmode": "overlay"}
        data.append({"type": "scatter", "mode": "lines", "stackgroup": "p", "name": _e(name), "x": _round(x, 3),
                     "y": _round(y[:, i], 4), "line": {"width": 0.6, "color": _colour(i, name)},
                     "fillcolor": _colour(i, name), "fillpattern": pattern, "hovertemplate": "%{y:.0%}"})
    for text, shape, chosen in (("no answer", "/", [bool(r) and r != NO_FACE for r in reasons]),
                                (NO_FACE, "x", [r == NO_FACE for r in reasons])):
        if any(chosen):
            data.append({"type": "scatter", "mode": "lines", "name": text, "x": _round(edges, 3),
                         "y": [*map(int, chosen), 0], "fill": "tozeroy", "hoverinfo": "skip",
                         "line": {"width": 0, "shape": "hv", "color": "#666"}, "fillcolor": "rgba(128,128,128,0.25)",
                         "fillpattern": {"shape": shape, "fgcolor": "#222", "bgcolor": "rgba(255,255,255,0.45)",
                                         "size": 8, "solidity": 0.2}})
    count = len(one.classes)
    data.append({
        "type": "heatmap", "yaxis": "y2", "x": _round(edges, 3), "y": [0, 1], "showscale": False, "zmin": -0.5,
        "zmax": count - 0.5, "z": [[None if reason else int(b) for b, reason in zip(best, reasons)]],
        "colorscale": [[k / count, _colour(i, name)] for i, name in enumerate(one.classes) for k in (i, i + 1)],
        "customdata": [[_e(f"no answer: {reason}" if reason else one.classes[b]) for b, reason in zip(best, reasons)]],
        "hoverongaps": True, "hovertemplate": "%{customdata}<extra>answer</extra>"})
    return data, _spoken(one, best, reasons), mean_of


def _common(reasons: Sequence[str]) -> str:
    """The reason of several windows: none where half of them or more have an answer."""
    given = [reason for reason in reasons if reason]
    return max(given, key=given.count) if 2 * len(given) > len(reasons) else ""


def _spoken(one: Prediction, best: np.ndarray, reasons: Sequence[str]) -> str:
    answered = [one.classes[b] for b, reason in zip(best, reasons) if not reason]
    shares = {name: answered.count(name) / len(reasons) for name in dict.fromkeys(answered)}
    parts = [f"{name} {_percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])]
    silent = 1 - len(answered) / len(reasons)
    parts += [f"no answer {_percent(silent)}"] if silent else []
    return f"Timeline of {one.duration:.1f} seconds; likeliest class by share of time: {', '.join(parts)}"


def _layout(duration: float) -> dict[str, Any]:
    return {
        "height": 340, "margin": {"l": LEFT, "r": RIGHT, "t": 8, "b": 52}, "hovermode": "x unified",
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"size": 14},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "xaxis": {"title": {"text": "seconds", "standoff": 6}, "range": [0, round(duration, 3)], "anchor": "y2",
                  "zeroline": False},
        "yaxis": {"range": [0, 1], "tickformat": ".0%", "domain": [0.16, 1], "fixedrange": True, "zeroline": False},
        "yaxis2": {"domain": [0, 0.1], "range": [0, 1], "showticklabels": False, "ticks": "", "fixedrange": True,
                   "showgrid": False, "zeroline": False},
    }


def _round(values: Iterable[float], digits: int) -> list[float]:
    return np.round(np.asarray(list(values), dtype=float), digits).tolist()


def _place(i: int, name: str) -> int:
    """The place of a class among the colours: its own if it has one, else by number after them."""
    return list(COLOURS).index(name) if name in COLOURS else len(COLOURS) + i


def _colour(i: int, name: str) -> str:
    return list(COLOURS.values())[_place(i, name) % len(COLOURS)]


def _pattern(i: int, name: str) -> int:
    return _place(i, name) // len(COLOURS) % len(PATTERNS)


STYLE = """
:root { color-scheme: light dark; --fg: #1a1a1a; --dim: #555; --bg: #fff; --soft: #f3f4f6; --line: #d5d8dc;
  --bad: #a11; --link: #0a58a6 }
@media (prefers-color-scheme: dark) { :root { --fg: #ececec; --dim: #b3b3b3; --bg: #16181b; --soft: #23262b;
  --line: #3c4148; --bad: #ff9a8d; --link: #8cc4ff } }
body { margin: 0; background: var(--bg); color: var(--fg); font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.6rem; margin: .5rem 0 } h2 { font-size: 1.2rem; margin: 0; overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 0 } a { color: var(--link) }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
section { border-top: 1px solid var(--line); padding: 1.2rem 0 } section p { margin: .3rem 0 }
.about { font-size: 1.05rem; background: var(--soft); padding: .7rem 1rem; border-left: 4px solid var(--link) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem } dt { color: var(--dim) } dd { margin: 0 }
.path, .small, .notes { color: var(--dim); font-size: .875rem } .path { overflow-wrap: anywhere }
.brief td { white-space: nowrap } .brief td:first-child, .brief td:last-child { white-space: normal; min-width: 9rem }
.error, .bad td { color: var(--bad) } .unsure { color: var(--dim) }
.answers { display: flex; flex-wrap: wrap; gap: 1rem; margin: .7rem 0 }
.answer { flex: 1 1 18rem; background: var(--soft); padding: .6rem .9rem; border-radius: 6px }
.bar { display: grid; grid-template-columns: 8.5rem 1fr 3.2rem; align-items: center; gap: .5rem; font-size: .875rem }
.bar i { height: .7rem; border-radius: 2px; min-width: 1px } .bar .number { text-align: right }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere } summary { cursor: pointer; margin: .5rem 0 }
.plot { min-height: 340px } .strip { padding: 0 14px 0 52px; overflow: hidden }
.strip div { position: relative; height: 64px } .strip img { position: absolute; top: 0; max-height: 64px }
.still { max-height: 128px; border-radius: 4px; margin: .4rem 0 }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .4rem } }
"""

SCRIPT = """
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function colours() {
    var css = getComputedStyle(document.documentElement);
    var fg = css.getPropertyValue("--fg").trim(), line = css.getPropertyValue("--line").trim();
    var soft = css.getPropertyValue("--soft").trim();
    return {"font.color": fg, "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.linecolor": line,
            "hoverlabel.bgcolor": soft, "hoverlabel.font.color": fg};
  }
  function place(plot) {  // the filmstrip follows the time axis when somebody zooms
    var strip = document.getElementById(plot.dataset.strip), range = plot.layout.xaxis.range;
    if (!strip) return;
    strip.querySelectorAll("img").forEach(function (img) {
      var at = (Number(img.dataset.t) - range[0]) / (range[1] - range[0]);
      img.style.left = 100 * at + "%";
      img.style.transform = "translateX(" + -100 * Math.min(1, Math.max(0, at)) + "%)";
      img.style.visibility = at < 0 || at > 1 ? "hidden" : "visible";
    });
  }
  function draw(plot) {
    if (plot.dataset.drawn) return;
    plot.dataset.drawn = "1";
    var spec = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    Plotly.newPlot(plot, spec.data, spec.layout, {responsive: true, displaylogo: false,
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"]}).then(function () {
        Plotly.relayout(plot, colours());
        plot.on("plotly_relayout", function () { place(plot); });
      });
  }
  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  var seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) { draw(entry.target); seen.unobserve(entry.target); }
    });
  }, {rootMargin: "400px"});
  plots.forEach(function (plot) { seen.observe(plot); });
  window.addEventListener("beforeprint", function () { plots.forEach(draw); });
  dark.addEventListener("change", function () {
    plots.forEach(function (plot) { if (plot.dataset.drawn) Plotly.relayout(plot, colours()); });
  });
})();
"""
