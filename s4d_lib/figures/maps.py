"""counts, shares → figure     what lies on a grid: confusions, routing, action units, tokens, and shares of classes.

Each function takes plain numbers and returns a plotly figure, or a PIL picture where a picture is what is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from s4d_lib.errors import require
from s4d_lib.figures.base import EXPERT_COLOURS, PALETTE, colour_in, new_figure

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from PIL import Image


def draw_confusion(confusion: list[list[int]], classes: tuple[str, ...], title: str) -> go.Figure:
    """Row-normalised confusion matrix: rows are labels, columns predictions, in percent."""
    counts = np.asarray(confusion, dtype=float)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure(title, "predicted", "labelled", "Heat map of the confusion matrix in percent of each label",
                        width=520, height=460)
    figure.add_heatmap(z=share, x=list(classes), y=list(classes), colorscale="Blues", zmin=0, zmax=100,
                       text=np.round(share).astype(int), texttemplate="%{text}", colorbar={"title": "%"})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_served(served: dict[str, np.ndarray], title: str) -> go.Figure:
    """What became of every (expert, token) pair, in batch order: name → int `[experts tokens]`, one panel a name.

    0: not sent there, 1: sent there and dropped, 2: served.
    """
    require("plotly", "figures", "a figure")
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


def draw_routing(shares: dict[str, np.ndarray], blocks: list[int], title: str) -> go.Figure:
    """Share of all choices that fall on each expert: modality → `[blocks experts]`, one panel a modality."""
    require("plotly", "figures", "a figure")
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


def draw_action_units(seconds: np.ndarray, units: dict[str, np.ndarray], title: str) -> go.Figure:
    """Intensity of action units over a clip, one row each: `units[name]` is `[t]`, 0 = absent, 1 = clearly marked."""
    figure = new_figure(title, "seconds", "", "Heat map of action-unit intensity over time for " + ", ".join(units),
                        height=140 + 26 * len(units))
    figure.add_heatmap(z=np.stack(list(units.values())).round(3), x=np.round(seconds, 3), y=list(units), zmin=0, zmax=1,
                       colorscale="Blues", colorbar={"title": "intensity"})
    figure.update_yaxes(autorange="reversed")
    return figure


def draw_grid_maps(maps: dict[str, np.ndarray], title: str, unit: str = "") -> go.Figure:
    """Values on the token grid, one row of pictures a map, time slots left to right: `maps[name]` is `[t h w]`.

    Each map has its own scale, from its least to its greatest value.
    """
    require("plotly", "figures", "a figure")
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


def draw_expert_map(picture: np.ndarray, experts: np.ndarray, scale: int = 4) -> Image.Image:
    """A picture u8 `[h w 3]` beside itself tinted by the expert of every patch, int `[rows columns]`: a PIL picture."""
    from PIL import Image, ImageColor

    palette = np.array([ImageColor.getrgb(colour) for colour in EXPERT_COLOURS], dtype=float)
    height, width = picture.shape[:2]
    rows, columns = np.asarray(experts).shape
    tint = palette[np.asarray(experts) % len(palette)].repeat(height // rows, 0).repeat(width // columns, 1)
    both = np.concatenate([picture, (0.5 * picture + 0.5 * tint)], axis=1).astype(np.uint8)
    return Image.fromarray(both).resize((2 * width * scale, height * scale), Image.Resampling.NEAREST)


def draw_class_shares(counts: dict[str, dict[str, int]], title: str) -> go.Figure:
    """How a label list is divided over its classes, in percent: `counts[list][class]`, lists named by modality."""
    figure = new_figure(title, "", "share of the list (%)", "Bar chart of class shares for " + " and ".join(counts))
    for name, classes in counts.items():
        total = sum(classes.values())
        colour = colour_in(name, "floor")
        figure.add_bar(x=list(classes), y=[100 * n / total for n in classes.values()], name=name,
                       marker={"color": colour, "pattern": {"shape": "/" if colour == PALETTE["image"] else ""}})
    return figure
