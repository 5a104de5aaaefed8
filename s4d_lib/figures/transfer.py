"""contrasts → figure     how far methods differ, which factors matter, where the sign turns, what foretells it.

Each function takes contrasts (metrics.Contrast, or its as_dict() from a record), effects or a surface
(metrics/effects.py) and returns a plotly figure with alt text; palette and frame are those of base.py. Filled marks are
decided, hollow ones are not; blue is above zero, orange-red below. Derived in chapter 08.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib.errors import require
from s4d_lib.figures.base import PALETTE, mark_zero, new_figure
from s4d_lib.figures.intervals import TICKS, Look, Row, draw_gaps, draw_intervals
from s4d_lib.metrics.contrasts import MATERIAL, TOLD, verdict

if TYPE_CHECKING:
    import plotly.graph_objects as go

DIVERGING = [[0.0, "#D55E00"], [0.25, "#F0B27A"], [0.5, "#FFFFFF"], [0.75, "#7FB8DA"], [1.0, "#0072B2"]]
SERIES = (("joint", "circle"), ("moae", "diamond"), ("clip", "square"), ("scratch", "cross"), ("image", "triangle-up"))

FOREST = {group: Look({"size": 12, "color": PALETTE[colour], "symbol": symbol,
                       "line": {"width": 2, "color": PALETTE[colour]}},
                      lines=((10, 0.4), (2, 1.0)), colour=PALETTE[colour])
          for group, colour, symbol in (("above", "clip", "circle"), ("below", "scratch", "circle"),
                                        ("open", "floor", "circle-open"))}


def _plain(found: Any) -> Any:
    """A contrast, whether it is one or a record's dict of one."""
    return SimpleNamespace(**found) if isinstance(found, Mapping) else found


def _zero(figure: Any, **place: int) -> None:
    """The line at zero, and the band in which a difference is called immaterial."""
    figure.add_vrect(x0=-MATERIAL, x1=MATERIAL, fillcolor=PALETTE["hidden"], opacity=0.25, line_width=0, layer="below",
                     **place)
    mark_zero(figure, **place)


def draw_forest(contrasts: Mapping[str, Any], title: str, adjusted: Mapping[str, float] | None = None,
                unit: str = "percentage points") -> go.Figure:
    """One row a contrast: 95 % bootstrap interval as a bar, t interval over seeds as a line, seeds as ticks, verdict.

    adjusted  Holm's p by name: then the verdicts follow it, while the intervals stay uncorrected
    """
    words = {name: TOLD[verdict(_plain(one), (adjusted or {}).get(name))] for name, one in contrasts.items()}
    alt = (f"Dot plot of differences in {unit} with 95 % intervals beside a line at zero and a band of plus and minus "
           f"{MATERIAL:g}: " + "; ".join(f"{name}: {_plain(one).value:+.1f}, {words[name]}"
                                          for name, one in contrasts.items()))
    rows = []
    for name, one in contrasts.items():
        found, decided = _plain(one), words[name] in ("below", "above")
        interval, wide = (ends if np.isfinite(ends).all() else None
                          for ends in ((found.low, found.high), (found.t_low, found.t_high)))
        rows.append(Row(name, found.value, *(interval or (None, None)), seeds=found.values, wide=wide,
                        group="open" if not decided else "above" if found.value > 0 else "below"))
    figure = draw_intervals(rows, title, unit, alt, FOREST, width=820, height=140 + 44 * len(rows),
                            ticks=TICKS | {"size": 16})
    _zero(figure)
    for name, word in words.items():
        figure.add_annotation(x=1.01, xref="paper", y=name, text=word, showarrow=False, xanchor="left")
    figure.update_layout(margin={"r": 170})
    return figure


def draw_methods(contrasts: Mapping[str, Any], baseline: str, title: str,
                 adjusted: Mapping[str, float] | None = None, metric: str = "WAR") -> go.Figure:
    """Methods against one baseline, best first: name → contrast (method - baseline)."""
    ordered = dict(sorted(contrasts.items(), key=lambda item: -_plain(item[1]).value))
    return draw_forest(ordered, title, adjusted, f"{metric} minus that of {baseline}, percentage points")


def draw_effects(effects: Sequence[Any], title: str, unit: str = "percentage points from low to high") -> go.Figure:
    """Effects of a two-level design: thick interval over seeds, thin one that counts interactions as noise as well."""
    rows = {}
    for one in effects:
        one = _plain(one)
        wide = (one.wide_low, one.wide_high) if np.isfinite(one.wide_low) else (one.low, one.high)
        rows[one.name] = {"value": one.value, "low": one.low, "high": one.high,
                          "wide_low": min(one.low, wide[0]), "wide_high": max(one.high, wide[1])}
    figure = draw_gaps(rows, title, unit)
    ends = min(row["wide_low"] for row in rows.values()), max(row["wide_high"] for row in rows.values())
    room = 0.05 * (ends[1] - ends[0])
    figure.update_xaxes(range=[min(ends[0], 0) - room, max(ends[1], 0) + room])
    figure.update_layout(meta={"alt": f"Dot plot of effects ({unit}), two intervals each, beside a line at zero: "
                               + ", ".join(f"{name} {row['value']:+.1f}" for name, row in rows.items())})
    return figure


def draw_map(surfaces: Mapping[str, Any], cells: Mapping[str, tuple], x: str, y: str, title: str) -> go.Figure:
    """Smooth fits over two factors side by side; solid: where the sign turns, dashed: the 95 % band of that line.

    surfaces  name → metrics.Surface;   cells  name → (x, y, value), each `[cells]`, drawn as dots on the same scale
    """
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(surfaces), subplot_titles=list(surfaces), shared_yaxes=True,
                           horizontal_spacing=0.06)
    reach = max(float(np.abs(values).max()) for values in
                [surface.value for surface in surfaces.values()] + [np.asarray(one[2]) for one in cells.values()])
    scale = {"colorscale": DIVERGING, "cmin": -reach, "cmax": reach}
    for column, (name, surface) in enumerate(surfaces.items(), 1):
        places = [np.log10(axis) if flag else axis for axis, flag in zip((surface.x, surface.y), surface.log)]
        where = {"row": 1, "col": column}
        figure.add_heatmap(x=places[0], y=places[1], z=surface.value.round(2), colorscale=DIVERGING, zmin=-reach,
                           zmax=reach, showscale=column == len(surfaces), colorbar={"title": "points"}, **where)
        for values, width, dash in ((surface.value, 3, "solid"), (surface.low, 1.5, "dash"),
                                    (surface.high, 1.5, "dash")):
            if values.min() < 0 < values.max():
                figure.add_contour(x=places[0], y=places[1], z=values, hoverinfo="skip", showscale=False,
                                   showlegend=False, contours={"start": 0, "end": 0, "size": 1, "coloring": "none"},
                                   line={"color": PALETTE["visible"], "width": width, "dash": dash}, **where)
        if name in cells:
            points = [np.asarray(axis, dtype=float) for axis in cells[name][:2]]
            shown = [np.log10(axis) if flag else axis for axis, flag in zip(points, surface.log)]
            figure.add_scatter(x=shown[0], y=shown[1], mode="markers", showlegend=False, name=name,
                               text=[f"{value:+.1f}" for value in cells[name][2]], hoverinfo="text",
                               marker={"size": 13, "color": cells[name][2], **scale,
                                       "line": {"width": 1.5, "color": PALETTE["visible"]}}, **where)
            for axes, at, told in ((figure.update_xaxes, shown[0], points[0]), (figure.update_yaxes, shown[1],
                                                                                points[1])):
                ticks = dict(zip(at.tolist(), told))
                axes(tickvals=list(ticks), ticktext=[f"{value:g}" for value in ticks.values()], **where)
        figure.update_xaxes(title=x, **where)
    figure.update_yaxes(title=y, row=1, col=1)
    figure.update_layout(title=title, width=420 + 400 * (len(surfaces) - 1), height=430, template="plotly_white",
                         meta={"alt": _map_words(surfaces, x, y)})
    return figure


def _map_words(surfaces: Mapping[str, Any], x: str, y: str) -> str:
    """What a map shows, in words: least and greatest value, and on how much of it the sign is sure."""
    told = [f"{name}: from {one.value.min():+.1f} to {one.value.max():+.1f} points, above zero beyond doubt on "
            f"{100 * (one.low > 0).mean():.0f} % and below on {100 * (one.high < 0).mean():.0f} % of the map"
            for name, one in surfaces.items()]
    return f"Colour maps over {x} and {y}, with the line where the sign turns: " + "; ".join(told)


def draw_per_class(groups: Mapping[str, Mapping[str, Any]], title: str) -> go.Figure:
    """Differences in recall: method → class → contrast, one mark a method, beside a line at zero."""
    classes = list(dict.fromkeys(name for rows in groups.values() for name in rows))
    alt = "Dot plot of differences in recall by class, for " + "; ".join(
        f"{method}: " + ", ".join(f"{name} {_plain(one).value:+.1f}" for name, one in rows.items())
        for method, rows in groups.items())
    looks = {method: Look({"size": 10, "symbol": symbol, "color": PALETTE[key]})
             for method, (key, symbol) in zip(groups, itertools.cycle(SERIES))}
    rows = [Row(name, one.value, one.low, one.high, method) for method, contrasts in groups.items()
            for name, one in zip(contrasts, map(_plain, contrasts.values()))]
    figure = draw_intervals(rows, title, "recall, percentage points", alt, looks, legend=True, apart=0.2, width=760,
                            height=140 + (24 + 14 * len(groups)) * len(classes))
    _zero(figure)
    figure.update_traces(showlegend=True)
    return figure


def draw_prediction(measure: Sequence[float], transfer: Sequence[float], names: Sequence[str], found: Any,
                    x: str, title: str, y: str = "transfer, percentage points") -> go.Figure:
    """A measure of every cell against the transfer measured there; `found` is their `metrics.effects.Correlation`."""
    found = _plain(found)
    told = (f"Spearman {found.value:+.2f}, 95 % {found.low:+.2f} to {found.high:+.2f}, p {found.p:.3f}, "
            f"{found.count} cells")
    figure = new_figure(f"{title}<br><sup>{told}</sup>", x, y, f"Scatter plot of {y} against {x}: {told}", height=420)
    colours = [PALETTE["clip" if value > 0 else "scratch"] for value in transfer]
    figure.add_scatter(x=list(measure), y=list(transfer), mode="markers", text=list(names), hoverinfo="text+x+y",
                       marker={"size": 11, "color": colours, "symbol": ["circle" if value > 0 else "diamond"
                                                                         for value in transfer]})
    figure.add_hline(y=0, line={"color": PALETTE["floor"], "width": 1, "dash": "dash"})
    figure.update_layout(margin={"t": 80})
    return figure
