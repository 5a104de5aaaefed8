"""record → figure     every draw_* in the book; one palette; alt text.

Each function takes plain numbers or a record and returns a plotly figure (or a PIL picture, where a picture is what is
shown). A colour means one thing through the whole book.
"""

from __future__ import annotations

import numpy as np

# Okabe–Ito colours, distinguishable in all common forms of colour blindness.
PALETTE = {
    "image": "#E69F00",
    "clip": "#0072B2",
    "joint": "#009E73",
    "moae": "#CC79A7",
    "hidden": "#B0B0B0",
    "visible": "#222222",
    "floor": "#7F7F7F",
    "scratch": "#D55E00",
    "pretrained": "#56B4E9",
}
DASH = {"image": "solid", "clip": "dash", "joint": "dot", "moae": "dashdot"}  # colour never carries meaning alone


def _figure(title: str, x: str, y: str, alt: str, width: int = 640, height: int = 360):
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, width=width, height=height, template="plotly_white",
                         margin={"l": 60, "r": 20, "t": 50, "b": 50}, meta={"alt": alt})
    return figure


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over `window` steps, shorter at the start: `[n]` → `[n]`."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def draw_losses(curves: dict[str, np.ndarray], title: str, window: int = 20):
    """Training loss against updates, one line a modality; `curves[name]` is `[steps 2]` of (update, loss)."""
    alt = "Line plot of the training loss over updates for " + " and ".join(curves)
    figure = _figure(title, "update", f"loss (mean of {window} steps)", alt)
    for name, curve in curves.items():
        figure.add_scatter(x=curve[:, 0], y=smooth(curve[:, 1], window), name=name, mode="lines",
                           line={"color": PALETTE.get(name, "#222222"), "dash": DASH.get(name, "solid")})
    return figure


def draw_scores(rows: dict[str, dict], title: str, metric: str = "uar"):
    """One dot with its interval for every row: name → {"value", "low", "high"} in percent."""
    alt = f"Dot plot of {metric.upper()} in percent with 95 % intervals for " + ", ".join(rows)
    figure = _figure(title, f"{metric.upper()} (%)", "", alt, height=120 + 36 * len(rows))
    for name, interval in rows.items():
        key = next((k for k in PALETTE if k in name.lower()), "visible")
        figure.add_scatter(x=[interval["value"]], y=[name], mode="markers", showlegend=False,
                           marker={"size": 10, "color": PALETTE[key]},
                           error_x={"type": "data", "symmetric": False, "array": [interval["high"] - interval["value"]],
                                    "arrayminus": [interval["value"] - interval["low"]]})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_confusion(confusion: list[list[int]], classes: tuple[str, ...], title: str):
    """Row-normalised confusion matrix: rows are labels, columns predictions, in percent."""
    counts = np.asarray(confusion, dtype=float)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = _figure(title, "predicted", "labelled", "Heat map of the confusion matrix in percent of each label",
                     width=520, height=460)
    figure.add_heatmap(z=share, x=list(classes), y=list(classes), colorscale="Blues", zmin=0, zmax=100,
                       text=np.round(share).astype(int), texttemplate="%{text}", colorbar={"title": "%"})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_layer_scales(scales: dict[str, float], title: str):
    """The share of the learning rate that each layer gets: layer → scale in (0, 1]."""
    figure = _figure(title, "", "share of the learning rate",
                     "Bar chart of the share of the learning rate of each layer, rising from input to heads")
    figure.add_bar(x=list(scales), y=list(scales.values()), marker={"color": PALETTE["visible"]},
                   text=[f"{scale:.3f}" for scale in scales.values()], textposition="outside")
    figure.update_yaxes(range=[0, 1.12])
    return figure


def draw_epoch_choice(curves: dict[str, list[float]], title: str):
    """One line a set of samples, WAR of every epoch in percent, with a ring at the first highest epoch."""
    alt = "Line plot of WAR over epochs on " + " and ".join(curves) + "; a ring marks the highest epoch of each line"
    figure = _figure(title, "epoch", "WAR (%)", alt)
    for name, colour, dash in zip(curves, (PALETTE["clip"], PALETTE["scratch"]), ("solid", "dash")):
        values = list(curves[name])
        best = int(np.argmax(values))
        figure.add_scatter(x=list(range(len(values))), y=values, name=name, mode="lines+markers",
                           line={"color": colour, "dash": dash})
        figure.add_scatter(x=[best], y=[values[best]], mode="markers", showlegend=False,
                           marker={"size": 18, "symbol": "circle-open", "color": colour, "line": {"width": 2}})
    figure.update_xaxes(dtick=1)
    return figure


def draw_block_cosines(cosines: dict[str, np.ndarray], title: str):
    """Mean cosine of pairs of gradients in every block with its spread; `cosines[name]` is `[pairs blocks]`."""
    colours = [PALETTE[key] for key in ("joint", "clip", "image", "floor")]
    alt = "Dots with standard deviations: cosine of two gradients in each shared block, for " + ", ".join(cosines)
    figure = _figure(title, "block", "cosine of two gradients", alt, width=720, height=400)
    for place, (name, values) in enumerate(cosines.items()):
        values = np.asarray(values)
        figure.add_scatter(x=np.arange(values.shape[1]) + 0.08 * (place - 1.5), y=values.mean(0), name=name,
                           mode="markers+lines", line={"color": colours[place % 4], "width": 1},
                           marker={"size": 9, "symbol": place, "color": colours[place % 4]},
                           error_y={"type": "data", "array": values.std(0)})
    figure.add_hline(y=0, line={"color": PALETTE["visible"], "width": 1})
    figure.update_xaxes(dtick=1)
    return figure


def draw_differences(rows: dict[str, dict], title: str, unit: str = "percentage points"):
    """Differences with their interval and the single seeds: name → {"value", "low", "high", "values"}.

    The line at zero is the decision line. A difference from one seed has no interval (low and high None).
    """
    alt = "Dot plot of differences with 95 % intervals and single seeds beside a line at zero, for " + ", ".join(rows)
    figure = _figure(title, unit, "", alt, width=720, height=130 + 44 * len(rows))
    for name, row in rows.items():
        spread = None if row["low"] is None else {
            "type": "data", "symmetric": False, "array": [row["high"] - row["value"]],
            "arrayminus": [row["value"] - row["low"]]}
        figure.add_scatter(x=row["values"], y=[name] * len(row["values"]), mode="markers", showlegend=False,
                           marker={"size": 7, "symbol": "line-ns-open", "color": PALETTE["floor"]})
        figure.add_scatter(x=[row["value"]], y=[name], mode="markers", showlegend=False, error_x=spread,
                           marker={"size": 11, "color": PALETTE["visible"]})
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_served(served: dict[str, np.ndarray], title: str):
    """Which tokens every expert served, in batch order: name → bool `[experts tokens]`, one panel a name."""
    from plotly.subplots import make_subplots

    alt = "Grids of experts by tokens for " + " and ".join(served) + "; dark: served, grey: sent there and dropped"
    figure = make_subplots(rows=len(served), cols=1, subplot_titles=list(served), vertical_spacing=0.25)
    colours = [[0.0, "#FFFFFF"], [0.34, "#FFFFFF"], [0.34, PALETTE["hidden"]], [0.67, PALETTE["hidden"]],
               [0.67, PALETTE["moae"]], [1.0, PALETTE["moae"]]]
    for row, grid in enumerate(served.values(), 1):
        figure.add_heatmap(z=np.asarray(grid, dtype=int), colorscale=colours, zmin=0, zmax=2, row=row, col=1,
                           xgap=1, ygap=1, showscale=False)
        figure.update_yaxes(title="expert", dtick=1, row=row, col=1)
    figure.update_xaxes(title="token, in batch order", row=len(served), col=1)
    figure.update_layout(title=title, width=720, height=130 + 150 * len(served), template="plotly_white",
                         meta={"alt": alt})
    return figure


def draw_routing(shares: dict[str, np.ndarray], blocks: list[int], title: str):
    """Share of all choices that fall on each expert: modality → `[blocks experts]`, one panel a modality."""
    from plotly.subplots import make_subplots

    alt = "Heat maps of the share of tokens each expert receives in each block, for " + " and ".join(shares)
    figure = make_subplots(rows=1, cols=len(shares), subplot_titles=list(shares), shared_yaxes=True)
    for column, share in enumerate(shares.values(), 1):
        share = 100 * np.asarray(share)
        figure.add_heatmap(z=share, x=[f"expert {e}" for e in range(share.shape[1])],
                           y=[f"block {block}" for block in blocks], zmin=0, zmax=100, colorscale="Blues",
                           text=np.round(share).astype(int), texttemplate="%{text}", showscale=column == len(shares),
                           colorbar={"title": "% of choices"}, row=1, col=column)
    figure.update_layout(title=title, width=760, height=150 + 70 * len(blocks), template="plotly_white",
                         meta={"alt": alt})
    return figure
