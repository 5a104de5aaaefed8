"""routes → figure     every draw_* of the MoAE inspector: shares, places, information, effects, dials.

The rules are those of `base.py`: plain numbers in, one palette, alt text; an expert has one colour and its
number. Derived in chapter 09.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from s4d_lib.errors import require
from s4d_lib.figures.base import DASH, EXPERT_COLOURS, PALETTE, new_figure
from s4d_lib.figures.intervals import Look, Row, draw_intervals
from s4d_lib.layers.tokens import Grid

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from PIL import Image

MODALITY = {"clip": ("DFER", "square"), "image": ("SFER", "circle")}  # what a modality's answers are called, its marker


def draw_loads(loads: Mapping[str, np.ndarray], rows: Sequence[str], title: str) -> go.Figure:
    """Share of choices on each expert by group, one panel a name: `loads[name]` is `[rows e]`; nan stays white."""
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(loads), subplot_titles=list(loads), shared_yaxes=True,
                           horizontal_spacing=0.04)
    for column, share in enumerate(loads.values(), 1):
        share = 100 * np.asarray(share, dtype=float)
        text = [["" if np.isnan(value) else f"{value:.0f}" for value in row] for row in share]
        figure.add_heatmap(z=share, x=[str(e) for e in range(share.shape[1])], y=list(rows), zmin=0, zmax=100,
                           colorscale="Blues", text=text, texttemplate="%{text}", showscale=column == len(loads),
                           colorbar={"title": "% of choices"}, row=1, col=column)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_xaxes(title="expert", dtick=1)
    figure.update_layout(title=title, width=760, height=170 + 32 * len(rows), template="plotly_white",
                         meta={"alt": f"Heat maps of the share of choices on each expert by {', '.join(rows)}; panels: "
                               + ", ".join(loads)})
    return figure


def draw_places(load: np.ndarray, grid: Grid, blocks: Sequence[int], title: str) -> go.Figure:
    """The most chosen expert of every place, `load` `[n blocks e]`: a row a block, time slots left to right.

    Faint where the first expert is hardly ahead of an even share, strong where it takes all.
    """
    require("plotly", "figures", "a figure")
    from plotly.subplots import make_subplots

    load, (t, h, w) = np.asarray(load), grid
    e = load.shape[-1]
    figure = make_subplots(rows=len(blocks), cols=1, subplot_titles=[f"block {b}" for b in blocks],
                           vertical_spacing=0.35 / len(blocks))
    for row in range(len(blocks)):
        best, share = load[:, row].argmax(-1), load[:, row].max(-1)
        strip = _strip(best.astype(float), t, h, w)
        sure = _strip(np.clip((share - 1 / e) / (1 - 1 / e), 0, 1), t, h, w)
        for expert in range(e):  # one layer an expert: its colour, faded by how sure the choice is
            colour = EXPERT_COLOURS[expert % len(EXPERT_COLOURS)]
            figure.add_heatmap(z=np.where(strip == expert, 0.25 + 0.75 * sure, np.nan), zmin=0, zmax=1, xgap=1, ygap=1,
                               colorscale=[[0, "#FFFFFF"], [1, colour]], showscale=False, row=row + 1, col=1,
                               text=np.where(strip == expert, f"{expert}", ""), texttemplate="%{text}",
                               hovertemplate=f"expert {expert}<extra></extra>")
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_yaxes(showticklabels=False, autorange="reversed", showgrid=False)
    figure.update_layout(title=title, width=760, height=100 + 130 * len(blocks), template="plotly_white",
                         margin={"l": 20, "r": 20, "t": 80, "b": 20},
                         meta={"alt": f"Maps of the most chosen of {e} experts at each place of {t} time slots, a row "
                               "a block; the number names the expert, strength of colour how sure the choice is"})
    return figure


def _strip(values: np.ndarray, t: int, h: int, w: int) -> np.ndarray:
    """`[(t h w)]` → `[h (t (w 1))]`: the slots side by side with an empty column between them."""
    slots = np.concatenate([values.reshape(t, h, w), np.full((t, h, 1), np.nan)], axis=2)
    return slots.transpose(1, 0, 2).reshape(h, -1)[:, :-1]


def draw_information(rows: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> go.Figure:
    """What an expert says about a label, in bits, beside what shuffled labels give: question → rows a block."""
    alt = "Dot plot of mutual information in bits beside the range of shuffled labels: " + ", ".join(rows)
    figure = new_figure(title, "bits", "", alt, width=760, height=130 + 34 * sum(map(len, rows.values())))
    for name, found in rows.items():
        for row in found:
            y, clear = f"{name}, block {row['block']}", row["bits"] > row["high"]
            figure.add_scatter(x=[0, row["high"]], y=[y, y], mode="lines", showlegend=False,
                               line={"color": PALETTE["hidden"], "width": 9})
            marker = {"size": 11, "color": PALETTE["moae"], "symbol": "circle" if clear else "circle-open",
                      "line": {"width": 2, "color": PALETTE["moae"]}}
            figure.add_scatter(x=[row["bits"]], y=[y], mode="markers", showlegend=False, marker=marker)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(rangemode="tozero")
    return figure


def draw_effects(effects: Mapping[str, Mapping[str, Mapping[str, float]]], title: str,
                 unit: str = "points of WAR") -> go.Figure:
    """Changes against the model as it is: modality → rule → {"value", "low", "high"}, beside a line at zero."""
    rules = dict.fromkeys(rule for found in effects.values() for rule in found)
    alt = f"Dot plot of changes in {unit} with 95 % intervals for " + ", ".join(rules)
    looks = {task: Look({"size": 9, "symbol": symbol, "color": PALETTE[modality]}, bars={"thickness": 1.5})
             for modality, (task, symbol) in MODALITY.items()}
    drawn = [Row(rule, row["value"], row["low"], row["high"], MODALITY[modality][0])
             for modality, found in effects.items() for rule, row in found.items()]
    return draw_intervals(drawn, title, unit, alt, looks, legend=True, apart=0.26, zero=True, width=760,
                          height=140 + 30 * len(rules))


def draw_dial(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x: str, y: str,
              marks: Mapping[str, float] | None = None) -> go.Figure:
    """What a dial does: name → (settings, values), one line each; `marks` names settings with a vertical line."""
    figure = new_figure(title, x, y, f"Line plot of {y} against {x} for " + ", ".join(curves))
    keys = ("clip", "image", "moae", "joint", "scratch", "floor")
    for place, (name, (settings, values)) in enumerate(curves.items()):
        key = next((k for k in ("clip", "image") if k in name), keys[place % len(keys)])
        figure.add_scatter(x=list(settings), y=list(values), name=name, mode="lines+markers",
                           marker={"symbol": place, "size": 8},
                           line={"color": PALETTE[key], "dash": DASH.get(key, "solid")})
    for name, setting in (marks or {}).items():
        figure.add_vline(x=setting, line={"color": PALETTE["floor"], "dash": "dot"}, annotation_text=name)
    return figure


def draw_clip_map(frames: np.ndarray, experts: np.ndarray, scale: int = 3) -> Image.Image:
    """A clip's frames `u8 [t h w 3]`, one a time slot, above the same frames tinted by the expert of every patch.

    experts: ints `[blocks t rows columns]`, a row of pictures each. Returns a PIL picture.
    """
    from PIL import Image, ImageColor

    palette = np.array([ImageColor.getrgb(colour) for colour in EXPERT_COLOURS], dtype=float)
    t, height, width = frames.shape[:3]
    rows = [np.concatenate(list(frames), axis=1)]
    for block in np.asarray(experts):
        patch = height // block.shape[1], width // block.shape[2]
        tint = palette[block % len(palette)].repeat(patch[0], 1).repeat(patch[1], 2)
        rows.append(np.concatenate(list(0.5 * frames + 0.5 * tint), axis=1))
    both = np.concatenate(rows, axis=0).astype(np.uint8)
    return Image.fromarray(both).resize((t * width * scale, len(rows) * height * scale), Image.Resampling.NEAREST)
