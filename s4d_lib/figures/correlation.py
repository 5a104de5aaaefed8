"""correlation → figure     drawings of chapter 10: two readings of a clip, recalls of two tasks, signed matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from s4d_lib.errors import require
from s4d_lib.figures.base import COLOURS, PALETTE, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go

SIGNED = "PuOr"  # purple above 0, orange below: distinguishable in all common forms of colour blindness
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star")


def draw_two_readings(seconds: np.ndarray, evidence: dict[str, np.ndarray], units: dict[str, np.ndarray], title: str,
                      axis: str = "seconds") -> go.Figure:
    """Above: probabilities of classes on single frames; below: true action units. All `[t]`, over seconds `[t]`.

    Without units the upper plot stands alone. axis: what `seconds` are, where they are something else.
    """
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    taken = f"what single frames are taken for ({', '.join(evidence)})"
    alt = f"Two line plots over time: above, {taken}; below, the intensity of {', '.join(units)}" if units else \
        f"Line plot over time: {taken}"
    rows = 2 if units else 1
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.08,
                           row_heights=[0.55, 0.45] if units else None)
    for name, symbol in zip(evidence, SYMBOLS):
        figure.add_scatter(x=seconds, y=np.round(evidence[name], 3), name=name, mode="lines+markers", row=1, col=1,
                           line={"color": COLOURS.get(name, PALETTE["floor"])}, marker={"symbol": symbol, "size": 6})
    greys = ("#222222", "#555555", "#7F7F7F", "#A0A0A0")
    for place, (name, values) in enumerate(units.items()):
        figure.add_scatter(x=seconds, y=np.round(values, 3), name=name, mode="lines", row=2, col=1, line={
            "color": greys[place % 4], "dash": ("solid", "dash", "dot", "dashdot", "longdash")[place % 5]})
    figure.update_yaxes(title="probability", range=[0, 1], row=1, col=1)
    if units:
        figure.update_yaxes(title="intensity", row=2, col=1)
    figure.update_xaxes(title=axis, row=rows, col=1)
    figure.update_layout(title=title, width=760, height=460 if units else 300, template="plotly_white",
                         meta={"alt": alt}, margin={"l": 60, "r": 20, "t": 50, "b": 50})
    return figure


def draw_recalls(still: np.ndarray, clip: np.ndarray, classes: Sequence[str], title: str) -> go.Figure:
    """Recall on stills beside recall on clips, `[r c]` in percent: small marks are runs, large ones class means."""
    alt = f"Scatter of recall on stills against recall on clips, one mark a run and class, for {', '.join(classes)}"
    figure = new_figure(title, "recall on stills (%)", "recall on clips (%)", alt, width=640, height=460)
    for k, name in enumerate(classes):
        colour, symbol = COLOURS.get(name, PALETTE["floor"]), SYMBOLS[k % len(SYMBOLS)]
        figure.add_scatter(x=np.round(still[:, k], 2), y=np.round(clip[:, k], 2), mode="markers", showlegend=False,
                           marker={"size": 5, "symbol": symbol, "color": colour, "opacity": 0.5})
        figure.add_scatter(x=[round(float(still[:, k].mean()), 2)], y=[round(float(clip[:, k].mean()), 2)], name=name,
                           mode="markers", marker={"size": 15, "symbol": symbol, "color": colour,
                                                   "line": {"width": 2, "color": PALETTE["visible"]}})
    return figure


def draw_signed_matrix(value: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str, x: str = "",
                       y: str = "", unit: str = "", marked: np.ndarray | None = None, limit: float | None = None,
                       digits: int = 1, note: str = "") -> go.Figure:
    """Values `[r c]` around 0 as a heat map with numbers; cells of the bool matrix `marked` are framed.

    limit   where the colours end; the largest absolute value by default. note   what a frame means, for the alt text.
    """
    value = np.asarray(value, dtype=float)
    limit = limit or float(np.nanmax(np.abs(value))) or 1.0
    text = [["" if np.isnan(v) else f"{round(v, digits) + 0.0:.{digits}f}" for v in row] for row in value]
    alt = f"Heat map of {unit} for {', '.join(rows)} by {', '.join(columns)}, purple above 0, orange below. {note}"
    figure = new_figure(title, x, y, alt, width=200 + max(44 * len(columns), 380), height=150 + 40 * len(rows))
    figure.add_heatmap(z=np.round(value, 3), x=list(columns), y=list(rows), zmin=-limit, zmax=limit, colorscale=SIGNED,
                       text=text, texttemplate="%{text}", xgap=1, ygap=1, colorbar={"title": unit})
    for i, k in np.argwhere(np.zeros(value.shape, bool) if marked is None else marked):
        figure.add_shape(type="rect", x0=k - 0.47, x1=k + 0.47, y0=i - 0.47, y1=i + 0.47,
                         line={"color": PALETTE["visible"], "width": 2})
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(type="category")
    return figure
