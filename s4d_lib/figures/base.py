"""title, axes → figure     the ground of every drawing: one palette, one frame, error bars.

A colour means one thing through the whole book, and never carries it alone: a dash or a mark goes with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from s4d_lib.errors import require

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
MASKS = {"random": ("#117733", "solid", "circle"), "frame": ("#882255", "dash", "square"),
         "tube": ("#999933", "dot", "diamond")}  # colour, line, marker of each kind of mask
EXPERT_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


def new_figure(title: str, x: str, y: str, alt: str, width: int = 640, height: int = 360) -> go.Figure:
    """An empty figure in the frame of the book; `alt` says in words what will be drawn, for those who hear the page."""
    require("plotly", "figures", "a figure")
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, width=width, height=height, template="plotly_white",
                         margin={"l": 60, "r": 20, "t": 50, "b": 50}, meta={"alt": alt})
    return figure


def colour_in(name: str, otherwise: str = "visible") -> str:
    """The colour of what a name speaks of: "clip" in "DFER, clips alone" gives that of clips."""
    return PALETTE[next((key for key in PALETTE if key in name.lower()), otherwise)]


def error_bars(value: Sequence[float], low: Sequence[float | None], high: Sequence[float | None],
               **more: Any) -> dict[str, Any] | None:
    """Error bars from ends `[n]` around values `[n]`, as plotly wants them; no bar where an end is None, None if none.

    more: further settings of plotly's error bars, such as "thickness".
    """
    ends = [(h - v, v - l) if l is not None and h is not None else (None, None) for v, l, h in zip(value, low, high)]
    if all(above is None for above, _ in ends):
        return None
    return {"type": "data", "symmetric": False, "array": [above for above, _ in ends],
            "arrayminus": [below for _, below in ends], **more}


def mark_zero(figure: go.Figure, **place: int) -> None:
    """The decision line: a dashed line up from zero."""
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"}, **place)
