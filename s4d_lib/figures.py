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
