"""measures → figure     agreement of gradients by block with ceiling and control, and what foretells the transfer.

Both take what `measures.py` and `foretelling.py` return or a record holds; palette and frame are those of figures.py.
Derived in chapter 08.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s4d_lib.figures import PALETTE, _figure

# line → (pair or task of `measures.agreement`, colour, symbol, dash)
LINES = {"stills with clips": ("image | clip", "joint", "circle", "solid"),
         "ceiling: clips with clips": ("clip", "clip", "square", "dash"),
         "ceiling: stills with stills": ("image", "image", "diamond", "dot"),
         "control: clips with labels dealt anew": ("clip | random", "floor", "x", "dashdot")}


def draw_agreement(found: Mapping[str, Any], title: str):
    """What `measures.agreement` returned: cosines in every group of weights with 95 % intervals over draws."""
    groups = list(found["within"]["clip"])
    rows = {name: [found["between"][where][group]["cosine"] for group in groups] if "|" in where else
            [found["within"][where][group] for group in groups] for name, (where, *_) in LINES.items()}
    alt = "Cosines of gradients by group of weights, mean over groups: " + ", ".join(
        f"{name} {sum(value for value, _, _ in row) / len(row):+.2f}" for name, row in rows.items())
    figure = _figure(title, "", "cosine of two gradients", alt, width=760, height=420)
    for place, (name, row) in enumerate(rows.items()):
        _, colour, symbol, dash = LINES[name]
        value, low, high = ([one[k] for one in row] for k in range(3))
        reach = None if None in low + high else {
            "type": "data", "symmetric": False, "array": [h - v for v, h in zip(value, high)],
            "arrayminus": [v - l for v, l in zip(value, low)], "color": PALETTE[colour]}
        figure.add_scatter(x=[i + 0.09 * (place - 1.5) for i in range(len(groups))], y=value, name=name, error_y=reach,
                           mode="markers+lines", line={"color": PALETTE[colour], "width": 1, "dash": dash},
                           marker={"size": 9, "symbol": symbol, "color": PALETTE[colour]})
    figure.add_hline(y=0, line={"color": PALETTE["visible"], "width": 1})
    figure.update_xaxes(tickvals=list(range(len(groups))), ticktext=groups)
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    return figure


def draw_foretelling(found: Mapping[str, Any], title: str):
    """What `foretelling.rank_correlations` returned: each measure's rank correlation with its interval over cells.

    The grey band holds what the best of all measures reaches by chance in nineteen tables of twenty. Filled marks lie
    outside it and have an interval without 0.
    """
    ordered = dict(sorted(found["rho"].items(), key=lambda item: -abs(item[1]["value"])))
    told = {name: tells(row, found["chance"]) for name, row in ordered.items()}
    alt = (f"Dot plot of rank correlations beside a band of chance of ±{found['chance']:.2f}; beyond it: "
           + (", ".join(f"{name} {ordered[name]['value']:+.2f}" for name in ordered if told[name]) or "none"))
    figure = _figure(title, "Spearman's ρ over cells", "", alt, width=760, height=130 + 30 * len(ordered))
    figure.add_vrect(x0=-found["chance"], x1=found["chance"], fillcolor=PALETTE["hidden"], opacity=0.3, line_width=0)
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    for name, row in ordered.items():
        colour = PALETTE["clip" if told[name] else "floor"]
        figure.add_scatter(
            x=[row["value"]], y=[name], mode="markers", showlegend=False,
            error_x={"type": "data", "symmetric": False, "array": [row["high"] - row["value"]],
                     "arrayminus": [row["value"] - row["low"]], "color": colour},
            marker={"size": 11, "color": colour, "symbol": "circle" if told[name] else "circle-open"})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[-1.05, 1.05])
    return figure


def tells(row: Mapping[str, float], chance: float) -> bool:
    """Whether a measure foretells: beyond the best of all by chance, and an interval without 0."""
    return abs(row["value"]) > chance and not row["low"] <= 0 <= row["high"]
