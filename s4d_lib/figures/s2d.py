"""S2D → figure     drawings of chapter 11: prompter maps on faces, what is frozen, anchor queues, schedules, targets.

Each function takes plain arrays and returns a plotly figure with alt text, or a PIL picture where a picture is what is
shown; palette and frame are those of `base.py`. Contrasts are drawn by `figures.draw_forest`. Derived
in chapter 11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from s4d_lib.errors import require
from s4d_lib.figures.base import DASH, PALETTE, new_figure
from s4d_lib.figures.pictures import stack

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from s4d_lib.models.self_distillation import AnchorSchedule

GLOW = np.array([213.0, 94.0, 0.0])  # Okabe–Ito vermilion; nothing on a grey face has it


def draw_prompt_maps(frames: np.ndarray, maps: Mapping[str, np.ndarray], scale: int = 2) -> Image.Image:
    """Faces u8 `[t h w 3]`, and below them one row a map `[t gh gw]`: the stronger the orange, the larger.

    The rows share one scale, from zero to the largest value of all, so that a row that is dark is weak; give maps of
    one kind. Names stand above their rows.
    """
    largest = max(float(np.max(values)) for values in maps.values()) or 1.0
    rows = {"frames": _strip(frames, scale)}
    for name, values in maps.items():
        rows[name] = _strip(glow(frames, np.asarray(values) / largest), scale)
    return stack(rows)


def glow(frames: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Frames u8 `[t h w 3]`, dimmed to grey, with `[t gh gw]` from 0 to 1 laid over them: u8 `[t h w 3]`."""
    t, height, width = frames.shape[:3]
    rows, columns = strength.shape[1:]
    if len(strength) != t or height % rows or width % columns:
        raise ValueError(f"{list(strength.shape)} does not lie on frames of {list(frames.shape)}")
    over = np.clip(strength, 0, 1).repeat(height // rows, 1).repeat(width // columns, 2)[..., None]
    grey = frames.mean(-1, keepdims=True).repeat(3, -1)
    return (0.75 * (1 - over) * grey + over * GLOW).round().astype(np.uint8)


def _strip(frames: np.ndarray, scale: int) -> Image.Image:
    t, height, width = frames.shape[:3]
    line = frames.transpose(1, 0, 2, 3).reshape(height, t * width, 3)
    return Image.fromarray(line).resize((t * width * scale, height * scale), Image.Resampling.NEAREST)


def draw_parts(parts: Mapping[str, Mapping[str, int]], title: str) -> go.Figure:
    """What is trained and what is frozen: part → {"trained": n, "kept": n}, one bar a part, on a log axis."""
    trained = sum(one.get("trained", 0) for one in parts.values())
    total = sum(sum(one.values()) for one in parts.values())
    alt = (f"Bars of parameters by part, {trained:,} of {total:,} trained: "
           + ", ".join(f"{name} {'trained' if one.get('trained') else 'frozen'} {sum(one.values()):,}"
                       for name, one in parts.items()))
    figure = new_figure(title, "parameters", "", alt, width=760, height=130 + 34 * len(parts))
    for state, colour, pattern in (("trained", PALETTE["clip"], ""), ("kept", PALETTE["hidden"], "/")):
        names = [name for name, one in parts.items() if one.get(state)]
        figure.add_bar(x=[parts[name][state] for name in names], y=names, orientation="h",
                       name="frozen" if state == "kept" else state, text=[f"{parts[name][state]:,}" for name in names],
                       textposition="outside", marker={"color": colour, "pattern": {"shape": pattern}})
    figure.update_xaxes(type="log", range=[0, np.log10(total) + 0.7])
    figure.update_yaxes(categoryorder="array", categoryarray=list(parts), autorange="reversed")
    figure.update_layout(barmode="overlay", margin={"l": 170}, showlegend=True)
    return figure


def draw_queues(queues: Mapping[str, np.ndarray], classes: Sequence[str], title: str) -> go.Figure:
    """Anchor queues, one panel a moment: `queues[name]` is `[classes slots]`, oldest anchor left, nan an empty slot.

    A value is the probability that an anchor gave to the class of its queue: light is unsure, dark is sure.
    """
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(queues), subplot_titles=list(queues), shared_yaxes=True,
                           horizontal_spacing=0.03)
    told = []
    for column, (name, values) in enumerate(queues.items(), 1):
        values = np.asarray(values, dtype=float)
        full = ~np.isnan(values)
        told.append(f"{name}: {int(full.sum())} of {values.size} slots filled"
                    + (f", own class {np.nanmean(values):.2f} on average" if full.any() else ""))
        figure.add_heatmap(z=[[None if np.isnan(v) else round(float(v), 3) for v in row] for row in values],
                           y=list(classes), zmin=0, zmax=1, colorscale="Blues", xgap=2, ygap=2, row=1, col=column,
                           showscale=column == len(queues), colorbar={"title": "own class"}, hoverongaps=False)
        figure.update_xaxes(title="slot, oldest first", showticklabels=False, row=1, col=column)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(title=title, width=200 + 260 * len(queues), height=150 + 26 * len(classes),
                         template="plotly_white", plot_bgcolor="#F4F4F4", margin={"t": 80},
                         meta={"alt": "Grids of anchors by class and slot. " + "; ".join(told)})
    return figure


def queue_state(outputs: np.ndarray, filled: np.ndarray, pushed: np.ndarray) -> np.ndarray:
    """Queues as `draw_queues` takes them: outputs `[classes slots classes]`, anchors held and ever pushed `[classes]`.

    Row c holds what its anchors say of class c, oldest first; empty slots are nan.
    """
    classes, slots = outputs.shape[:2]
    state = np.full((classes, slots), np.nan)
    for c in range(classes):
        count = int(filled[c])
        order = (int(pushed[c]) + np.arange(slots)) % slots  # the slot that is written over next holds the oldest
        state[c, :count] = outputs[c, order[slots - count:], c]
    return state


def draw_schedule(schedules: Mapping[str, AnchorSchedule], title: str) -> go.Figure:
    """Weight of the self-distillation loss over epochs; a mark at the bottom wherever a schedule fills the queues."""
    alt = "Step lines of the loss weight over epochs; " + "; ".join(
        f"{name}: queues are filled in {sum(map(one.updates, range(one.epochs)))} of {one.epochs} epochs"
        for name, one in schedules.items())
    figure = new_figure(title, "epoch", "weight of the loss", alt, width=760)
    for place, (name, one) in enumerate(schedules.items()):
        epochs, key = list(range(one.epochs)), ("clip", "image", "joint", "moae")[place % 4]
        figure.add_scatter(x=epochs, y=[one.weight(epoch) for epoch in epochs], name=name, mode="lines",
                           line={"shape": "hv", "color": PALETTE[key], "dash": DASH[key]})
        when = [epoch for epoch in epochs if one.updates(epoch)]
        figure.add_scatter(x=when, y=[-0.06 - 0.05 * place] * len(when), name=f"{name}: queue filled", mode="markers",
                           marker={"symbol": "line-ns-open", "size": 8, "color": PALETTE[key]})
    return figure


def draw_targets(targets: Mapping[str, np.ndarray], classes: Sequence[str], labels: Sequence[str],
                 title: str) -> go.Figure:
    """Soft targets side by side: `targets[name]` is `[samples classes]`, one row a sample, named by its label."""
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(targets), subplot_titles=list(targets), shared_yaxes=True,
                           horizontal_spacing=0.03)
    rows = [f"{number + 1} {label}" for number, label in enumerate(labels)]
    told = []
    for column, (name, values) in enumerate(targets.items(), 1):
        values = np.asarray(values, dtype=float)
        told.append(f"{name}: {values.min():.2f} to {values.max():.2f}, a row sums to {values.sum(1).mean():.2f}")
        figure.add_heatmap(z=values.round(3), x=list(classes), y=rows, zmin=0, zmax=1, colorscale="Blues",
                           text=values.round(2), texttemplate="%{text}", showscale=column == len(targets), row=1,
                           col=column)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(title=title, width=220 + 420 * len(targets), height=160 + 26 * len(rows),
                         template="plotly_white", meta={"alt": "Heat maps of soft targets. " + "; ".join(told)})
    return figure


def draw_loudness(rows: Mapping[str, Sequence[float]], title: str) -> go.Figure:
    """What a part adds to the tokens of every block, in percent of their length; one line a name."""
    alt = "Lines over blocks: " + "; ".join(f"{name} {', '.join(f'{100 * v:.0f} %' for v in values)}"
                                            for name, values in rows.items())
    figure = new_figure(title, "block", "added, % of the tokens' length", alt)
    for place, (name, values) in enumerate(rows.items()):
        key = ("clip", "image", "joint", "moae")[place % 4]
        figure.add_scatter(x=list(range(len(values))), y=[100 * v for v in values], name=name, mode="lines+markers",
                           line={"color": PALETTE[key], "dash": DASH[key]}, marker={"symbol": place})
    figure.update_xaxes(dtick=1)
    figure.update_yaxes(rangemode="tozero")
    return figure
