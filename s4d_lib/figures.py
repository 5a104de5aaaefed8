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
# The same colours for classes: one class has one colour whatever its place in a schema.
COLOURS = {"Neutral": "#999999", "Happiness": "#E69F00", "Surprise": "#56B4E9", "Anger": "#D55E00",
           "Sadness": "#0072B2", "Fear": "#CC79A7", "Disgust": "#009E73", "Contempt": "#F0E442"}
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


def draw_epoch_choice(curves: dict[str, dict[int, float]], title: str):
    """One line a set of samples, epoch → WAR in percent, with a ring at the first highest epoch."""
    alt = "Line plot of WAR over epochs on " + " and ".join(curves) + "; a ring marks the highest epoch of each line"
    figure = _figure(title, "epoch", "WAR (%)", alt)
    for name, colour, dash in zip(curves, (PALETTE["clip"], PALETTE["scratch"]), ("solid", "dash")):
        values = curves[name]
        best = max(values, key=values.get)
        figure.add_scatter(x=list(values), y=list(values.values()), name=name, mode="lines+markers",
                           line={"color": colour, "dash": dash})
        figure.add_scatter(x=[best], y=[values[best]], mode="markers", showlegend=False,
                           marker={"size": 18, "symbol": "circle-open", "color": colour, "line": {"width": 2}})
    figure.update_xaxes(dtick=1)
    return figure


def draw_block_cosines(cosines: dict[str, np.ndarray], title: str):
    """Mean cosine of pairs of gradients in every block with its spread; `cosines[name]` is `[pairs blocks]`."""
    colours = [PALETTE[key] for key in ("joint", "clip", "image", "floor", "moae")]
    alt = "Dots with standard deviations: cosine of two gradients in each shared block, for " + ", ".join(cosines)
    figure = _figure(title, "block", "cosine of two gradients", alt, width=720, height=400)
    for place, (name, values) in enumerate(cosines.items()):
        values = np.asarray(values)
        colour = colours[place % len(colours)]
        figure.add_scatter(x=np.arange(values.shape[1]) + 0.07 * (place - 2), y=values.mean(0), name=name,
                           mode="markers+lines", line={"color": colour, "width": 1},
                           marker={"size": 9, "symbol": place, "color": colour},
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
    """What became of every (expert, token) pair, in batch order: name → int `[experts tokens]`, one panel a name.

    0: not sent there, 1: sent there and dropped, 2: served.
    """
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


MASKS = {"random": ("#117733", "solid", "circle"), "frame": ("#882255", "dash", "square"),
         "tube": ("#999933", "dot", "diamond")}  # colour, line, marker of each kind of mask


def draw_class_shares(counts: dict[str, dict[str, int]], title: str):
    """How a label list is divided over its classes, in percent: `counts[list][class]`, lists named by modality."""
    figure = _figure(title, "", "share of the list (%)", "Bar chart of class shares for " + " and ".join(counts))
    for name, classes in counts.items():
        total = sum(classes.values())
        key = next((k for k in PALETTE if k in name.lower()), "floor")
        figure.add_bar(x=list(classes), y=[100 * n / total for n in classes.values()], name=name,
                       marker={"color": PALETTE[key], "pattern": {"shape": "/" if key == "image" else ""}})
    return figure


def draw_action_units(seconds: np.ndarray, units: dict[str, np.ndarray], title: str):
    """Intensity of action units over a clip, one row each: `units[name]` is `[t]`, 0 = absent, 1 = clearly marked."""
    figure = _figure(title, "seconds", "", "Heat map of action-unit intensity over time for " + ", ".join(units),
                     height=140 + 26 * len(units))
    figure.add_heatmap(z=np.stack(list(units.values())).round(3), x=np.round(seconds, 3), y=list(units), zmin=0, zmax=1,
                       colorscale="Blues", colorbar={"title": "intensity"})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_grid_maps(maps: dict[str, np.ndarray], title: str, unit: str = ""):
    """Values on the token grid, one row of pictures a map, time slots left to right: `maps[name]` is `[t h w]`.

    Each map has its own scale, from its least to its greatest value.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(maps), cols=1, subplot_titles=list(maps), vertical_spacing=0.16)
    for row, (name, values) in enumerate(maps.items(), 1):
        gap = np.full((*values.shape[:2], 1), np.nan)  # a white column between time slots
        strip = np.concatenate([values, gap], axis=2).transpose(1, 0, 2).reshape(values.shape[1], -1)[:, :-1]
        bar = {"title": unit, "len": 0.8 / len(maps), "y": 1 - (row - 0.5) / len(maps)}
        figure.add_heatmap(z=np.round(strip, 3), colorscale="Viridis", row=row, col=1, colorbar=bar, name=name)
    figure.update_yaxes(autorange="reversed", showticklabels=False)
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_xaxes(title="time slots, left to right", row=len(maps), col=1)
    figure.update_layout(title=title, width=760, height=90 + 150 * len(maps), template="plotly_white",
                         margin={"l": 20, "r": 20, "t": 80, "b": 40},
                         meta={"alt": "Heat maps over the token grid: " + ", ".join(maps)})
    return figure


def draw_measures(rows: dict[str, dict], title: str, axis: str):
    """A dot a row with its interval where it has one: name → {"value", "low", "high"}, in the unit of `axis`."""
    figure = _figure(title, axis, "", f"Dot plot of {axis} for " + ", ".join(rows), height=120 + 36 * len(rows))
    for name, one in rows.items():
        known = one.get("low") is not None
        reach = {"type": "data", "symmetric": False, "array": [one["high"] - one["value"]],
                 "arrayminus": [one["value"] - one["low"]]} if known else None
        key = next((k for k in PALETTE if k in name.lower()), "visible")
        figure.add_scatter(x=[one["value"]], y=[name], mode="markers", showlegend=False, error_x=reach,
                           marker={"size": 10, "color": PALETTE[key]})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_masks(curves: dict[str, dict[float, dict]], title: str, y: str, reference: float | None = None):
    """Something measured under each kind of mask: `curves[mask][hidden share]` is {"value", "low", "high"}."""
    figure = _figure(title, "hidden share of the tokens (%)", y, f"Line plot of {y} for masks " + ", ".join(curves))
    for name, points in curves.items():
        colour, dash, symbol = MASKS[name.split()[0]]
        value, low, high = (np.array([point[key] for point in points.values()]) for key in ("value", "low", "high"))
        figure.add_scatter(x=[100 * share for share in points], y=value, name=name, mode="lines+markers",
                           line={"color": colour, "dash": dash}, marker={"symbol": symbol, "size": 8},
                           error_y={"type": "data", "symmetric": False, "array": high - value,
                                    "arrayminus": value - low})
    if reference is not None:
        figure.add_hline(y=reference, line={"color": PALETTE["floor"], "dash": "dash"},
                         annotation_text="knows nothing but the mean")
    return figure


def draw_target_sizes(spreads: np.ndarray, epsilons: dict[str, float], title: str):
    """How large the target of a tubelet is: its mean square s²/(s²+ε) against the spread s, over a histogram of s."""
    alt = "Mean square of the normalised target against the spread of a tubelet for " + " and ".join(epsilons)
    figure = _figure(title, "standard deviation of a tubelet's pixels, in [0, 1]", "mean square of its target", alt)
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


def draw_masked_losses(losses: dict[str, dict[str, float]], title: str):
    """Masked loss on held-out stills and clips, a row a predictor: name → {"image": loss, "clip": loss}."""
    alt = "Dot plot of the masked loss on held-out stills and clips for " + ", ".join(losses)
    figure = _figure(title, "masked loss (lower is better)", "", alt, width=720, height=150 + 40 * len(losses))
    for modality, symbol in (("image", "circle"), ("clip", "square")):
        figure.add_scatter(x=[row[modality] for row in losses.values()], y=list(losses), name=f"on {modality}s",
                           mode="markers", marker={"size": 11, "symbol": symbol, "color": PALETTE[modality]})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_plan(epochs: list[list[str]], title: str):
    """The modality of every step, one row an epoch: a list of "image" and "clip" for each."""
    alt = "Strips of coloured ticks: which steps of each epoch hold stills and which hold clips"
    figure = _figure(title, "step", "", alt, width=760, height=130 + 50 * len(epochs))
    for modality, symbol in (("image", "line-ns-open"), ("clip", "square")):
        places = [(step, f"epoch {epoch}") for epoch, kinds in enumerate(epochs)
                  for step, kind in enumerate(kinds) if kind == modality]
        figure.add_scatter(x=[step for step, _ in places], y=[row for _, row in places], name=modality, mode="markers",
                           marker={"size": 11, "symbol": symbol, "color": PALETTE[modality], "line": {"width": 3}})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_gaps(rows: dict[str, dict], title: str, unit: str = "percentage points"):
    """Differences between groups: a thick 95 % interval, and a thin one that allows for how many were looked at.

    `rows[name]` is {"value", "low", "high", "wide_low", "wide_high"}; hollow where the thin interval holds zero.
    """
    alt = "Dot plot of differences between groups beside a line at zero, two intervals each, for " + ", ".join(rows)
    figure = _figure(title, unit, "", alt, width=720, height=130 + 34 * len(rows))
    for name, row in rows.items():
        clear = row["wide_low"] > 0 or row["wide_high"] < 0
        for low, high, width in (("wide_low", "wide_high", 1), ("low", "high", 5)):
            figure.add_scatter(x=[row[low], row[high]], y=[name, name], mode="lines", showlegend=False,
                               line={"color": PALETTE["visible" if clear else "floor"], "width": width})
        figure.add_scatter(x=[row["value"]], y=[name], mode="markers", showlegend=False,
                           marker={"size": 11, "symbol": "circle" if clear else "circle-open",
                                   "color": PALETTE["visible"], "line": {"width": 2}})
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    figure.update_yaxes(autorange="reversed")
    return figure


EXPERT_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


def draw_expert_map(picture: np.ndarray, experts: np.ndarray, scale: int = 4):
    """A picture u8 `[h w 3]` beside itself tinted by the expert of every patch, int `[rows columns]`: a PIL picture."""
    from PIL import Image, ImageColor

    palette = np.array([ImageColor.getrgb(colour) for colour in EXPERT_COLOURS], dtype=float)
    height, width = picture.shape[:2]
    rows, columns = np.asarray(experts).shape
    tint = palette[np.asarray(experts) % len(palette)].repeat(height // rows, 0).repeat(width // columns, 1)
    both = np.concatenate([picture, (0.5 * picture + 0.5 * tint)], axis=1).astype(np.uint8)
    return Image.fromarray(both).resize((2 * width * scale, height * scale), Image.Resampling.NEAREST)


def draw_frames_taken(rules: dict[str, list[int]], length: int, title: str):
    """Which of a clip's `length` frames each rule takes, one row a rule; a number says how often, if not once."""
    alt = f"Dots on a line of {length} frames, one row a rule: " + ", ".join(rules)
    figure = _figure(title, "frame", "", alt, width=760, height=130 + 34 * len(rules))
    for name, positions in rules.items():
        taken, times = np.unique(positions, return_counts=True)
        figure.add_scatter(x=[0, length - 1], y=[name] * 2, mode="lines", showlegend=False,
                           line={"color": PALETTE["hidden"], "width": 1})
        figure.add_scatter(x=taken, y=[name] * len(taken), mode="markers+text", showlegend=False,
                           text=[f"×{n}" if n > 1 else "" for n in times], textposition="top center",
                           marker={"size": 7, "color": PALETTE["clip"]})
    figure.update_yaxes(range=[len(rules) - 0.5, -0.8])  # downwards, with room for a number above the first row
    return figure


def draw_protocol_effects(rows: dict[str, dict[str, dict]], title: str):
    """Paired differences to a reference, two dots a row: name → {"war", "uar"} → {"value", "low", "high"}."""
    alt = "Dot plot of differences in WAR and UAR with 95 % intervals beside a line at zero, for " + ", ".join(rows)
    figure = _figure(title, "percentage points", "", alt, width=760, height=140 + 30 * len(rows))
    for place, (metric, key, symbol) in enumerate((("war", "visible", "circle"), ("uar", "pretrained", "diamond"))):
        found = [row[metric] for row in rows.values()]
        reach = {"type": "data", "symmetric": False, "array": [one["high"] - one["value"] for one in found],
                 "arrayminus": [one["value"] - one["low"] for one in found], "thickness": 1.2}
        figure.add_scatter(x=[one["value"] for one in found], y=np.arange(len(rows)) + 0.24 * place - 0.12,
                           name=metric.upper(), mode="markers", error_x=reach,
                           marker={"size": 8, "symbol": symbol, "color": PALETTE[key]})
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(rows))), ticktext=list(rows))
    return figure


def draw_timeline(found, title: str, truth: tuple[np.ndarray, list[str]] | None = None):
    """A `timelines.Prediction` of a clip over time: smoothed probabilities, filmstrip, answer and, if known, the truth.

    truth   edges in seconds `[n + 1]` and the `n` class names between them. Gaps in the answer: there is none.
    """
    import base64

    w, end = found.windows, found.duration
    figure = _figure(title, "seconds", "", f"Stacked probabilities of {', '.join(found.classes)} over {end:.0f} "
                     "seconds, a filmstrip, and bands for the answer" + (" and the truth" if truth else ""), 860, 470)
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
