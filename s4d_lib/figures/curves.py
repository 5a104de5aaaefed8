"""record → figure     curves over steps, epochs, layers and time; one palette, alt text.

Each function takes plain numbers or a record and returns a plotly figure. Dots with intervals are in
intervals.py, what lies on a grid in maps.py, the palette in base.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib.figures.base import COLOURS, DASH, MASKS, PALETTE, error_bars, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over `window` steps, shorter at the start: `[n]` → `[n]`."""
    total = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (total[ends] - total[starts]) / (ends - starts)


def draw_losses(curves: dict[str, np.ndarray], title: str, window: int = 20) -> go.Figure:
    """Training loss against updates, one line a modality; `curves[name]` is `[steps 2]` of (update, loss)."""
    alt = "Line plot of the training loss over updates for " + " and ".join(curves)
    figure = new_figure(title, "update", f"loss (mean of {window} steps)", alt)
    for name, curve in curves.items():
        figure.add_scatter(x=curve[:, 0], y=smooth(curve[:, 1], window), name=name, mode="lines",
                           line={"color": PALETTE.get(name, "#222222"), "dash": DASH.get(name, "solid")})
    return figure


def draw_layer_scales(scales: dict[str, float], title: str) -> go.Figure:
    """The share of the learning rate that each layer gets: layer → scale in (0, 1]."""
    figure = new_figure(title, "", "share of the learning rate",
                        "Bar chart of the share of the learning rate of each layer, rising from input to heads")
    figure.add_bar(x=list(scales), y=list(scales.values()), marker={"color": PALETTE["visible"]},
                   text=[f"{scale:.3f}" for scale in scales.values()], textposition="outside")
    figure.update_yaxes(range=[0, 1.12])
    return figure


def draw_epoch_choice(curves: dict[str, dict[int, float]], title: str) -> go.Figure:
    """One line a set of samples, epoch → WAR in percent, with a ring at the first highest epoch."""
    alt = "Line plot of WAR over epochs on " + " and ".join(curves) + "; a ring marks the highest epoch of each line"
    figure = new_figure(title, "epoch", "WAR (%)", alt)
    for name, colour, dash in zip(curves, (PALETTE["clip"], PALETTE["scratch"]), ("solid", "dash")):
        values = curves[name]
        best = max(values, key=values.get)
        figure.add_scatter(x=list(values), y=list(values.values()), name=name, mode="lines+markers",
                           line={"color": colour, "dash": dash})
        figure.add_scatter(x=[best], y=[values[best]], mode="markers", showlegend=False,
                           marker={"size": 18, "symbol": "circle-open", "color": colour, "line": {"width": 2}})
    figure.update_xaxes(dtick=1)
    return figure


def draw_masks(curves: dict[str, dict[float, dict]], title: str, y: str, reference: float | None = None) -> go.Figure:
    """Something measured under each kind of mask: `curves[mask][hidden share]` is {"value", "low", "high"}.

    Ends None: no interval. reference: what a horizontal line marks.
    """
    figure = new_figure(title, "hidden share of the tokens (%)", y, f"Line plot of {y} for masks " + ", ".join(curves))
    for name, points in curves.items():
        colour, dash, symbol = MASKS[name.split()[0]]
        value, low, high = ([point[key] for point in points.values()] for key in ("value", "low", "high"))
        figure.add_scatter(x=[100 * share for share in points], y=value, name=name, mode="lines+markers",
                           line={"color": colour, "dash": dash}, marker={"symbol": symbol, "size": 8},
                           error_y=error_bars(value, low, high))
    if reference is not None:
        figure.add_hline(y=reference, line={"color": PALETTE["floor"], "dash": "dash"},
                         annotation_text="knows nothing but the mean")
    return figure


def draw_target_sizes(spreads: np.ndarray, epsilons: dict[str, float], title: str) -> go.Figure:
    """How large the target of a tubelet is: its mean square s²/(s²+ε) against the spread s, over a histogram of s."""
    alt = "Mean square of the normalised target against the spread of a tubelet for " + " and ".join(epsilons)
    figure = new_figure(title, "standard deviation of a tubelet's pixels, in [0, 1]", "mean square of its target", alt)
    counts, edges = np.histogram(np.log10(np.maximum(spreads, 1e-4)), bins=40)
    centres = 10 ** ((edges[1:] + edges[:-1]) / 2)
    figure.add_scatter(x=centres, y=counts / counts.max(), name="how many tubelets", fill="tozeroy", mode="none",
                       fillcolor=PALETTE["hidden"], line_shape="hvh")
    s = np.geomspace(centres[0], centres[-1], 100)
    for (name, epsilon), key, dash in zip(epsilons.items(), ("scratch", "clip"), ("solid", "dash")):
        figure.add_scatter(x=s, y=s**2 / (s**2 + epsilon), name=name, mode="lines",
                           line={"color": PALETTE[key], "dash": dash})
    figure.update_xaxes(type="log")
    return figure


def draw_plan(epochs: list[list[str]], title: str) -> go.Figure:
    """The modality of every step, one row an epoch: a list of "image" and "clip" for each."""
    alt = "Strips of coloured ticks: which steps of each epoch hold stills and which hold clips"
    figure = new_figure(title, "step", "", alt, width=760, height=130 + 50 * len(epochs))
    for modality, symbol in (("image", "line-ns-open"), ("clip", "square")):
        places = [(step, f"epoch {epoch}") for epoch, kinds in enumerate(epochs)
                  for step, kind in enumerate(kinds) if kind == modality]
        figure.add_scatter(x=[step for step, _ in places], y=[row for _, row in places], name=modality, mode="markers",
                           marker={"size": 11, "symbol": symbol, "color": PALETTE[modality], "line": {"width": 3}})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_frames_taken(rules: dict[str, list[int]], length: int, title: str) -> go.Figure:
    """Which of a clip's `length` frames each rule takes, one row a rule; a number says how often, if not once."""
    alt = f"Dots on a line of {length} frames, one row a rule: " + ", ".join(rules)
    figure = new_figure(title, "frame", "", alt, width=760, height=130 + 34 * len(rules))
    for name, positions in rules.items():
        taken, times = np.unique(positions, return_counts=True)
        figure.add_scatter(x=[0, length - 1], y=[name] * 2, mode="lines", showlegend=False,
                           line={"color": PALETTE["hidden"], "width": 1})
        figure.add_scatter(x=taken, y=[name] * len(taken), mode="markers+text", showlegend=False,
                           text=[f"×{n}" if n > 1 else "" for n in times], textposition="top center",
                           marker={"size": 7, "color": PALETTE["clip"]})
    figure.update_yaxes(range=[len(rules) - 0.5, -0.8])  # downwards, with room for a number above the first row
    return figure


def draw_timeline(found: Any, title: str, truth: tuple[np.ndarray, list[str]] | None = None) -> go.Figure:
    """A `Prediction` of a clip over time: smoothed probabilities, filmstrip, answer and, if known, the truth.

    truth   edges in seconds `[n + 1]` and the `n` class names between them. Gaps in the answer: there is none.
    """
    import base64


    w, end = found.windows, found.duration
    figure = new_figure(title, "seconds", "", f"Stacked probabilities of {', '.join(found.classes)} over {end:.0f} "
                        "seconds, a filmstrip, and bands for the answer" + (" and the truth" if truth else ""),
                        860, 470)
    x = np.concatenate([[0.0], w.middle, [end]]).round(3)
    p = np.concatenate([w.smoothed[:1], w.smoothed, w.smoothed[-1:]]).round(4)
    for i, name in enumerate(found.classes):
        figure.add_scatter(x=x, y=p[:, i], name=name, stackgroup="p", mode="lines",
                           line={"width": 0.5, "color": COLOURS.get(name, PALETTE["floor"])})
    between = np.concatenate([[0.0], (w.middle[1:] + w.middle[:-1]) / 2, [end]])
    given = ["" if reason else found.classes[k] for reason, k in zip(w.smoothed_reasons, w.smoothed.argmax(1))]
    bands = {"answer": (between, given)} | ({"truth": truth} if truth else {})
    for band, (edges, names) in bands.items():
        for name in dict.fromkeys(filter(None, names)):
            at = [k for k, other in enumerate(names) if other == name]
            figure.add_bar(x=[edges[k + 1] - edges[k] for k in at], base=[edges[k] for k in at], y=[band] * len(at),
                           orientation="h", yaxis="y2", showlegend=False, hovertemplate=f"{name}<extra>{band}</extra>",
                           marker={"color": COLOURS.get(name, PALETTE["floor"]), "line": {"width": 0}})
    count = len(found.thumbnails)
    for thumbnail in found.thumbnails:  # the left edge of the first and the right edge of the last end with the axis
        figure.add_layout_image(source="data:image/jpeg;base64," + base64.b64encode(thumbnail.jpeg).decode(),
                                x=thumbnail.second / end * (1 - 1 / count), y=0.36, xref="paper", yref="paper",
                                sizing="contain", sizex=1 / count, sizey=0.14, xanchor="left", yanchor="top")
    figure.update_layout(barmode="overlay", yaxis={"domain": [0.40, 1], "range": [0, 1], "title": "probability"},
                         yaxis2={"domain": [0, 0.19], "autorange": "reversed", "anchor": "x"},
                         xaxis={"range": [0, end], "anchor": "y2"}, bargap=0.25)
    return figure
