"""rows → figure     one dot a row with its interval, drawn by one function for scores, differences, gaps and effects.

`draw_intervals` knows how a row looks; every other draw_* here, and those for contrasts, sweeps and routes in their own
files, turn a record into rows. A row without an interval (one seed has none) is a dot without a bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from s4d_lib.errors import Refused
from s4d_lib.figures.base import PALETTE, colour_in, error_bars, mark_zero, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

ONE_SEED = "one seed, no interval"
TICKS = {"size": 7, "symbol": "line-ns-open", "color": PALETTE["floor"]}  # marks of single seeds


@dataclass(frozen=True)
class Row:
    """A row of an interval figure, in the unit of its axis; ValueError if one end of the interval is None.

    group   rows of a group look alike, and share a place in the legend where there is one
    note    shown when pointed at, and said at the end of the alt text
    seeds   the single values, drawn as ticks behind the dot
    wide    a second, more careful interval, for groups that draw theirs as lines
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    group: str = ""
    note: str = ""
    seeds: Sequence[float] = ()
    wide: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise Refused(f"row {self.label!r} has one end of its interval only: low {self.low}, high {self.high}; "
                          "give both, or None for both where there is no interval")


@dataclass(frozen=True)
class Look:
    """How the rows of a group are drawn: a plotly marker, and what an interval is.

    bars    settings of the error bars besides their length
    lines   (width, opacity) of the interval and of the wide one, which are then lines of `colour` and no error bars
    """

    marker: Mapping[str, Any]
    bars: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[tuple[float, float], ...] = ()
    colour: str = PALETTE["visible"]


def draw_intervals(rows: Sequence[Row], title: str, axis: str, alt: str, looks: Mapping[str, Look], *,
                   legend: bool = False, apart: float = 0.0, zero: bool = False, width: int = 640,
                   height: int | None = None, ticks: Mapping[str, Any] = TICKS) -> go.Figure:
    """Rows from top to bottom, each a dot and its interval along a horizontal axis; rows of one label share a line.

    looks   group → how its rows are drawn. KeyError for a group without one
    legend  one trace a group, named in a legend, instead of one trace a row; `apart` moves the groups of a line apart
    zero    whether the line at zero, where a difference decides, is drawn
    """
    alt += "".join(f"; {row.label}: {row.note}" for row in rows if row.note)
    labels = list(dict.fromkeys(row.label for row in rows))
    figure = new_figure(title, axis, "", alt, width=width, height=height or 120 + 36 * len(labels))
    for row in () if legend else rows:
        _draw_behind(figure, row, looks[row.group], ticks)
        _draw_dots(figure, [row], [row.label], looks[row.group], showlegend=False)
    groups = list(dict.fromkeys(row.group for row in rows)) if legend else []
    for place, group in enumerate(groups):
        members = [row for row in rows if row.group == group]
        shift = apart * (place - (len(groups) - 1) / 2)
        places = [labels.index(row.label) + shift if apart else row.label for row in members]
        _draw_dots(figure, members, places, looks[group], name=group)
    if zero:
        mark_zero(figure)
    figure.update_yaxes(autorange="reversed")
    if legend and apart:
        figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels)
    return figure


def _draw_dots(figure: go.Figure, rows: Sequence[Row], places: Sequence[str | float], look: Look, **trace: Any) -> None:
    """One trace of dots, with error bars unless intervals are lines."""
    value = [row.value for row in rows]
    reach = None if look.lines else error_bars(value, [row.low for row in rows], [row.high for row in rows],
                                               **look.bars)
    if any(row.note for row in rows):
        trace |= {"text": [row.note for row in rows], "hoverinfo": "x+y+text"}
    figure.add_scatter(x=value, y=list(places), mode="markers", marker=dict(look.marker), error_x=reach, **trace)


def _draw_behind(figure: go.Figure, row: Row, look: Look, ticks: Mapping[str, Any]) -> None:
    """What lies behind a dot: the ticks of single seeds, and intervals that are lines."""
    if len(row.seeds):
        figure.add_scatter(x=list(row.seeds), y=[row.label] * len(row.seeds), mode="markers", showlegend=False,
                           marker=dict(ticks))
    interval = None if row.low is None else (row.low, row.high)
    for ends, (width, opacity) in zip((interval, row.wide), look.lines):
        if ends is not None:
            figure.add_scatter(x=list(ends), y=[row.label] * 2, mode="lines", showlegend=False, hoverinfo="x",
                               opacity=opacity, line={"color": look.colour, "width": width})


def draw_scores(rows: Mapping[str, Mapping[str, Any]], title: str, metric: str = "uar") -> go.Figure:
    """One dot with its interval for every row: name → {"value", "low", "high"} in percent; one seed has no interval."""
    alt = f"Dot plot of {metric.upper()} in percent with 95 % intervals for " + ", ".join(rows)
    return _draw_named(rows, title, f"{metric.upper()} (%)", alt, ONE_SEED)


def draw_measures(rows: Mapping[str, Mapping[str, Any]], title: str, axis: str) -> go.Figure:
    """A dot a row with its interval where it has one: name → {"value", "low", "high"}, in the unit of `axis`."""
    mixed = any(one.get("low") is not None for one in rows.values())
    return _draw_named(rows, title, axis, f"Dot plot of {axis} for " + ", ".join(rows), "no interval" if mixed else "")


def _draw_named(rows: Mapping[str, Mapping[str, Any]], title: str, axis: str, alt: str, without: str) -> go.Figure:
    """Rows in the colour of what their name speaks of; `without` is the note of those that have no interval."""
    drawn = [Row(name, one["value"], one.get("low"), one.get("high"), group=name,
                 note=without if one.get("low") is None else "") for name, one in rows.items()]
    looks = {name: Look({"size": 10, "color": colour_in(name)}) for name in rows}
    return draw_intervals(drawn, title, axis, alt, looks)


def draw_differences(rows: Mapping[str, Mapping[str, Any]], title: str, unit: str = "percentage points") -> go.Figure:
    """Differences with their interval and the single seeds: name → {"value", "low", "high", "values"}.

    The line at zero is the decision line. A difference from one seed has no interval (low and high None).
    """
    alt = "Dot plot of differences with 95 % intervals and single seeds beside a line at zero, for " + ", ".join(rows)
    drawn = [Row(name, row["value"], row["low"], row["high"], seeds=row["values"],
                 note=ONE_SEED if row["low"] is None else "") for name, row in rows.items()]
    return draw_intervals(drawn, title, unit, alt, {"": Look({"size": 11, "color": PALETTE["visible"]})}, zero=True,
                          width=720, height=130 + 44 * len(rows))


def draw_gaps(rows: Mapping[str, Mapping[str, float]], title: str, unit: str = "percentage points") -> go.Figure:
    """Differences between groups: a thick 95 % interval, and a thin one that allows for how many were looked at.

    `rows[name]` is {"value", "low", "high", "wide_low", "wide_high"}; hollow where the thin interval holds zero.
    """
    alt = "Dot plot of differences between groups beside a line at zero, two intervals each, for " + ", ".join(rows)
    looks = {group: Look({"size": 11, "symbol": symbol, "color": PALETTE["visible"], "line": {"width": 2}},
                         lines=((5, 1.0), (1, 1.0)), colour=PALETTE[colour])
             for group, symbol, colour in (("clear", "circle", "visible"), ("open", "circle-open", "floor"))}
    drawn = [Row(name, row["value"], row["low"], row["high"], wide=(row["wide_low"], row["wide_high"]),
                 group="clear" if row["wide_low"] > 0 or row["wide_high"] < 0 else "open")
             for name, row in rows.items()]
    return draw_intervals(drawn, title, unit, alt, looks, zero=True, width=720, height=130 + 34 * len(rows))


def draw_protocol_effects(rows: Mapping[str, Mapping[str, Mapping[str, float]]], title: str) -> go.Figure:
    """Paired differences to a reference, two dots a row: name → {"war", "uar"} → {"value", "low", "high"}."""
    alt = "Dot plot of differences in WAR and UAR with 95 % intervals beside a line at zero, for " + ", ".join(rows)
    looks = {metric: Look({"size": 8, "symbol": symbol, "color": PALETTE[colour]}, bars={"thickness": 1.2})
             for metric, symbol, colour in (("WAR", "circle", "visible"), ("UAR", "diamond", "pretrained"))}
    drawn = [Row(name, group=metric, **{key: row[metric.lower()][key] for key in ("value", "low", "high")})
             for metric in looks for name, row in rows.items()]
    return draw_intervals(drawn, title, "percentage points", alt, looks, legend=True, apart=0.24, zero=True, width=760,
                          height=140 + 30 * len(rows))


def draw_masked_losses(losses: Mapping[str, Mapping[str, float]], title: str) -> go.Figure:
    """Masked loss on held-out stills and clips, a row a predictor: name → {"image": loss, "clip": loss}."""
    alt = "Dot plot of the masked loss on held-out stills and clips for " + ", ".join(losses)
    looks = {f"on {modality}s": Look({"size": 11, "symbol": symbol, "color": PALETTE[modality]})
             for modality, symbol in (("image", "circle"), ("clip", "square"))}
    drawn = [Row(name, row[modality], group=f"on {modality}s") for modality in ("image", "clip")
             for name, row in losses.items()]
    return draw_intervals(drawn, title, "masked loss (lower is better)", alt, looks, legend=True, width=720,
                          height=150 + 40 * len(losses))
