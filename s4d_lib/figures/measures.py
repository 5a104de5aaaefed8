"""measures → figure     agreement of gradients by block with ceiling and control, and what foretells the transfer.

Both take what `lab/measures.py` and `lab/foretelling.py` return or a record holds; palette and frame are those of
base.py. Derived in chapter 08.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from s4d_lib.figures.base import PALETTE, error_bars, mark_zero, new_figure
from s4d_lib.figures.intervals import Look, Row, draw_intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

# line → (pair or task of `lab.gradient_agreement`, colour, symbol, dash)
LINES = {"stills with clips": ("image | clip", "joint", "circle", "solid"),
         "ceiling: clips with clips": ("clip", "clip", "square", "dash"),
         "ceiling: stills with stills": ("image", "image", "diamond", "dot"),
         "control: clips with labels dealt anew": ("clip | random", "floor", "x", "dashdot")}


def draw_agreement(found: Mapping[str, Any], title: str) -> go.Figure:
    """What `lab.gradient_agreement` returned: cosines in every group of weights with 95 % intervals over draws."""
    groups = list(found["within"]["clip"])
    rows = {name: [found["between"][where][group]["cosine"] for group in groups] if "|" in where else
            [found["within"][where][group] for group in groups] for name, (where, *_) in LINES.items()}
    alt = "Cosines of gradients by group of weights, mean over groups: " + ", ".join(
        f"{name} {sum(value for value, _, _ in row) / len(row):+.2f}" for name, row in rows.items())
    figure = new_figure(title, "", "cosine of two gradients", alt, width=760, height=420)
    for place, (name, row) in enumerate(rows.items()):
        _, colour, symbol, dash = LINES[name]
        value, low, high = ([one[k] for one in row] for k in range(3))
        figure.add_scatter(x=[i + 0.09 * (place - 1.5) for i in range(len(groups))], y=value, name=name,
                           error_y=error_bars(value, low, high, color=PALETTE[colour]), mode="markers+lines",
                           line={"color": PALETTE[colour], "width": 1, "dash": dash},
                           marker={"size": 9, "symbol": symbol, "color": PALETTE[colour]})
    figure.add_hline(y=0, line={"color": PALETTE["visible"], "width": 1})
    figure.update_xaxes(tickvals=list(range(len(groups))), ticktext=groups)
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    return figure


def draw_foretelling(found: Mapping[str, Any], title: str) -> go.Figure:
    """What `lab.foretelling.rank_correlations` returned: each measure's rank correlation with its interval over cells.

    The grey band holds what the best of all measures reaches by chance in nineteen tables of twenty. Filled marks lie
    outside it and have an interval without 0.
    """
    ordered = dict(sorted(found["rho"].items(), key=lambda item: -abs(item[1]["value"])))
    told = {name: tells(row, found["chance"]) for name, row in ordered.items()}
    alt = (f"Dot plot of rank correlations beside a band of chance of ±{found['chance']:.2f}; beyond it: "
           + (", ".join(f"{name} {ordered[name]['value']:+.2f}" for name in ordered if told[name]) or "none"))
    looks = {group: Look({"size": 11, "color": PALETTE[colour], "symbol": symbol}, bars={"color": PALETTE[colour]})
             for group, colour, symbol in (("filled", "clip", "circle"), ("hollow", "floor", "circle-open"))}
    rows = [Row(name, row["value"], row["low"], row["high"], "filled" if told[name] else "hollow")
            for name, row in ordered.items()]
    figure = draw_intervals(rows, title, "Spearman's ρ over cells", alt, looks, width=760,
                            height=130 + 30 * len(rows))
    figure.add_vrect(x0=-found["chance"], x1=found["chance"], fillcolor=PALETTE["hidden"], opacity=0.3, line_width=0)
    mark_zero(figure)
    figure.update_xaxes(range=[-1.05, 1.05])
    return figure


def tells(row: Mapping[str, float], chance: float) -> bool:
    """Whether a measure foretells: beyond the best of all by chance, and an interval without 0."""
    return abs(row["value"]) > chance and not row["low"] <= 0 <= row["high"]
