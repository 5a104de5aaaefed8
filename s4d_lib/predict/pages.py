"""predictions → page     one self-contained HTML file: what the model said about every file, over time.

A page fetches nothing and says so to the browser (its content security policy). It holds plotly once, if there is a
clip to draw; what is drawn is drawn when it comes into view. Everything that came with a file or a model (names,
notes, class names) is escaped. Its size is bounded: many files share a fixed number of points, pictures and rows.

Derived in chapter 12.
"""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape  # for plotly, which reads some HTML in names; the template escapes for itself
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib import __version__
from s4d_lib.checkpoints.cards import AnswerCard
from s4d_lib.errors import Refused
from s4d_lib.figures.base import COLOURS
from s4d_lib.files import write_text
from s4d_lib.predict.timelines import ABOUT, NO_FACE, SAYS, SHIPPED_KNOWS, WHOLE, Answer, Prediction, best_of
from s4d_lib.templating import fill

if TYPE_CHECKING:
    from markupsafe import Markup

POINTS, PICTURES, ROWS = 10_000, 800, 2_000      # of a page; one file gets at most the following
FILE_POINTS, FILE_PICTURES, FILE_ROWS = 1_500, 16, 500
PATTERNS = ("", "/", "x", ".", "-", "|")            # classes beyond the eight colours get one of these as well
LEFT, RIGHT = 52, 14                                # margins of the plot in pixels; .strip in page.css has the same
HERE = "s4d_lib.predict"                          # where page.html.jinja, page.css and page.js lie


def write_page(path: str | Path, predictions: Sequence[Prediction], title: str = "Apparent expressions") -> Path:
    """Write the page of some predictions, whole or not at all. ValueError for none."""
    return write_text(path, page(predictions, title))


def page(predictions: Sequence[Prediction], title: str = "Apparent expressions") -> str:
    """The page as text. ValueError for no predictions."""
    if not predictions:
        raise Refused("a page needs at least one prediction")
    entries = [_entry(one, len(predictions)) for one in predictions]
    plotly = _plotly() if any(entry.plot for entry in entries) else ""
    return fill(HERE, "page.html.jinja", title=title, version=__version__, about=_about(predictions[0].card),
                facts=_facts(predictions[0]), entries=entries, plotly=plotly, says=SAYS, percent=_percent,
                colour=_colour, zip=zip)


def _plotly() -> Markup:
    """Its script, or nothing where it is not installed; the template then gives the timeline in words."""
    from markupsafe import Markup

    if importlib.util.find_spec("plotly") is None:
        return Markup("")
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if np.isfinite(value) else "not a number"


def _about(card: AnswerCard) -> list[str]:
    unknown = "How often it is right on faces like these is not known before it is measured on them."
    return [ABOUT, f"{card.opening[0].upper()}{card.opening[1:]}.", SHIPPED_KNOWS if card.shipped else unknown]


def _facts(one: Prediction) -> dict[str, str]:
    """What the head of the page says about the model."""
    card, (height, width) = one.card, one.card.image_size
    schemas = [f"{task}: {card.schema(task)} ({', '.join(names)})" for task, names in card.classes.items()]
    facts = {"Model": card.name, "Trained on": card.trained_on, "Licence of the weights": card.licence,
             "Label schema": "; ".join(schemas),
             "Reads": f"{card.frames} pictures of {height} × {width} px for a clip, at stride {one.stride}"}
    return facts | ({"Note": "; ".join(card.notes)} if card.notes else {})


# ------------------------------------------------------------------------------------------------ one file


@dataclass(frozen=True)
class Entry:
    """One file as the template shows it; a file that was not read has a name and an error, and nothing else."""

    one: Prediction
    name: str
    facts: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    plot: Plot | None = None
    table: Table | None = None

    @property
    def whole(self) -> Answer | None:
        """The answer for the whole video."""
        return self.one.answers.get(WHOLE)

    @property
    def notes(self) -> list[str]:
        """What is to be said of this file and not of the model."""
        return [note for note in self.one.notes if note not in self.one.card.notes]


@dataclass(frozen=True)
class Picture:
    """A thumbnail that stands in the page itself."""

    source: str    # data URL
    second: float
    at: float      # percent of the way along the time axis


@dataclass(frozen=True)
class Plot:
    """A timeline: what plotly draws, what a screen reader says, and how many windows one point stands for."""

    drawing: dict[str, Any]
    spoken: str
    mean_of: int


@dataclass(frozen=True)
class Table:
    """The windows in numbers: the first rows of so many."""

    head: list[str]
    rows: list[list[str]]
    count: int


def _entry(one: Prediction, files: int) -> Entry:
    """One of so many files, among which what a page may hold is shared out."""
    name = Path(one.path).name or one.path
    if one.error:
        return Entry(one, name)
    if one.windows is None:
        return Entry(one, name, _file_facts(one), _pictures(one, 1))
    points = max(50, min(FILE_POINTS, POINTS // files))
    pictures = max(4, min(FILE_PICTURES, PICTURES // files))
    rows = max(10, min(FILE_ROWS, ROWS // files))
    return Entry(one, name, _file_facts(one), _pictures(one, pictures), _plot(one, points), _table(one, rows))


def _file_facts(one: Prediction) -> list[str]:
    if one.kind != "clip":
        return [one.kind, one.crop]
    seen = f", seen in {_percent(one.face)} of the frames read" if one.face else ""
    return [one.kind, f"{one.frames} frames", f"{one.duration:.2f} s", f"{one.fps:.4g} frames a second",
            one.crop + seen]


def _pictures(one: Prediction, count: int) -> list[Picture]:
    """At most so many of the thumbnails, evenly spread over time."""
    shown = one.thumbnails
    if len(shown) > count:
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, count).round().astype(int)]
    pictures = []
    for thumbnail in shown:
        source = "data:image/jpeg;base64," + base64.b64encode(thumbnail.jpeg).decode()
        share = thumbnail.second / one.duration if one.duration else 0.0
        pictures.append(Picture(source, thumbnail.second, 100 * min(1.0, max(0.0, share))))
    return pictures


def _table(one: Prediction, rows: int) -> Table:
    head = ["seconds", "frames", "answer", "confidence", "face", *one.classes]
    return Table(head, [_row(one, i) for i in range(min(len(one.windows), rows))], len(one.windows))


def _row(one: Prediction, i: int) -> list[str]:
    w = one.windows
    answer = f"no answer: {w.reasons[i]}" if w.reasons[i] else best_of(one.classes, w.probabilities[i])
    face = "" if np.isnan(w.face[i]) else _percent(w.face[i])
    return [f"{w.start[i]:.2f}–{w.end[i]:.2f}", f"{w.start_frame[i]}–{w.end_frame[i]}", answer,
            _percent(w.confidence[i]), face, *map(_percent, w.probabilities[i])]


# ------------------------------------------------------------------------------------------------ the plot


@dataclass(frozen=True)
class _Points:
    """A timeline made coarser: n points, each the mean of some windows."""

    p: np.ndarray       # [n c]
    middle: np.ndarray  # [n], seconds
    edges: list[float]  # [n + 1], seconds: between two points, and the ends of the clip
    reasons: list[str]  # [n], "" where there is an answer

    @property
    def best(self) -> np.ndarray:
        """Likeliest class [n]."""
        return self.p.argmax(1)


def _plot(one: Prediction, most: int) -> Plot:
    """The timeline of a clip with at most so many points."""
    mean_of = -(-len(one.windows) // most)
    points = _points(one, mean_of)
    traces = [*_areas(one.classes, points), *_shades(points), _ribbon(one.classes, points)]
    return Plot({"data": traces, "layout": _layout(one.duration)}, _spoken(one, points), mean_of)


def _points(one: Prediction, mean_of: int) -> _Points:
    w = one.windows
    pieces = [slice(i, i + mean_of) for i in range(0, len(w), mean_of)]
    p = np.stack([_mean(w.smoothed[piece]) for piece in pieces])
    middle = np.array([w.middle[piece].mean() for piece in pieces])
    edges = [float(w.start[0]), *((middle[1:] + middle[:-1]) / 2).tolist(), float(one.duration)]
    return _Points(p, middle, edges, [_common(w.smoothed_reasons[piece]) for piece in pieces])


def _mean(rows: np.ndarray) -> np.ndarray:
    """Mean of those rows `[n c]` that are numbers; nan where none is."""
    numbers = np.isfinite(rows).all(1)
    return rows[numbers].mean(0) if numbers.any() else np.full(rows.shape[1], np.nan)


def _areas(classes: Sequence[str], points: _Points) -> Iterator[dict[str, Any]]:
    """The probabilities, stacked."""
    # The first and last value reach to the ends of the clip, where no window has its middle.
    x = _round([points.edges[0], *points.middle, points.edges[-1]], 3)
    y = np.concatenate([points.p[:1], points.p, points.p[-1:]])
    for i, name in enumerate(classes):
        colour, pattern = _colour(i, name), {"shape": PATTERNS[_pattern(i, name)], "fillmode": "overlay"}
        yield {"type": "scatter", "mode": "lines", "stackgroup": "p", "name": escape(name), "x": x,
               "y": _round(y[:, i], 4), "line": {"width": 0.6, "color": colour}, "fillcolor": colour,
               "fillpattern": pattern, "hovertemplate": "%{y:.0%}"}


def _shades(points: _Points) -> Iterator[dict[str, Any]]:
    """Hatching where there is no answer, and another where there is no face."""
    faceless = [reason == NO_FACE for reason in points.reasons]
    unsure = [bool(reason) and reason != NO_FACE for reason in points.reasons]
    for name, shape, chosen in (("no answer", "/", unsure), (NO_FACE, "x", faceless)):
        if any(chosen):
            hatching = {"shape": shape, "fgcolor": "#222", "bgcolor": "rgba(255,255,255,0.45)", "size": 8,
                        "solidity": 0.2}
            yield {"type": "scatter", "mode": "lines", "name": name, "x": _round(points.edges, 3),
                   "y": [*map(int, chosen), 0], "fill": "tozeroy", "hoverinfo": "skip",
                   "line": {"width": 0, "shape": "hv", "color": "#666"}, "fillcolor": "rgba(128,128,128,0.25)",
                   "fillpattern": hatching}


def _ribbon(classes: Sequence[str], points: _Points) -> dict[str, Any]:
    """The answer below the probabilities, with gaps where there is none."""
    count, scale = len(classes), []
    for i, name in enumerate(classes):  # one colour from a class's lower end to its upper
        scale += [[i / count, _colour(i, name)], [(i + 1) / count, _colour(i, name)]]
    numbers: list[int | None] = []
    words = []
    for best, reason in zip(points.best, points.reasons):
        numbers.append(None if reason else int(best))
        words.append(escape(f"no answer: {reason}" if reason else classes[best]))
    return {"type": "heatmap", "yaxis": "y2", "x": _round(points.edges, 3), "y": [0, 1], "showscale": False,
            "zmin": -0.5, "zmax": count - 0.5, "z": [numbers], "colorscale": scale, "customdata": [words],
            "hoverongaps": True, "hovertemplate": "%{customdata}<extra>answer</extra>"}


def _common(reasons: Sequence[str]) -> str:
    """The reason of several windows: none where half of them or more have an answer."""
    given = [reason for reason in reasons if reason]
    return max(given, key=given.count) if 2 * len(given) > len(reasons) else ""


def _spoken(one: Prediction, points: _Points) -> str:
    answered = [one.classes[best] for best, reason in zip(points.best, points.reasons) if not reason]
    shares = {name: answered.count(name) / len(points.reasons) for name in dict.fromkeys(answered)}
    parts = [f"{name} {_percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])]
    silent = 1 - len(answered) / len(points.reasons)
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


def _round(values: Iterable[float], digits: int) -> list[float | None]:
    """Rounded values; None, which plotly leaves out, for what is not a number."""
    rounded = np.round(np.asarray(list(values), dtype=float), digits).tolist()
    return [value if value == value else None for value in rounded]


def _place(i: int, name: str) -> int:
    """The place of a class among the colours: its own if it has one, else by number after them."""
    return list(COLOURS).index(name) if name in COLOURS else len(COLOURS) + i


def _colour(i: int, name: str) -> str:
    return list(COLOURS.values())[_place(i, name) % len(COLOURS)]


def _pattern(i: int, name: str) -> int:
    return _place(i, name) // len(COLOURS) % len(PATTERNS)
