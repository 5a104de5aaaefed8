"""record → figure     how fast one way is beside others: ratios with their intervals, a line at one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from s4d_lib.errors import Refused
from s4d_lib.figures.base import PALETTE
from s4d_lib.figures.intervals import Look, Row, draw_intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

LOOKS = {"textbook": ("circle", "visible"), "transformers": ("diamond", "pretrained")}


def draw_bench(rows: Mapping[str, Mapping[str, Any]], title: str) -> go.Figure:
    """Time of other implementations over ours: `rows` of the record of `s4d bench`, those that have rivals.

    Right of the line at one ours is faster. A row that failed or has nobody beside it is left out; Refused where none
    is left.
    """
    drawn = [Row(name, way["ratio"]["value"], way["ratio"]["low"], way["ratio"]["high"], group=other)
             for name, row in rows.items() if row.get("rivals")
             for other, way in row["ways"].items() if "ratio" in way]
    if not drawn:
        raise Refused("no row of this benchmark has another implementation beside ours; run it from a clone of the "
                      "repository")
    looks = {other: Look({"size": 9, "symbol": symbol, "color": PALETTE[colour]}, bars={"thickness": 1.4})
             for other in dict.fromkeys(row.group for row in drawn)
             for symbol, colour in [LOOKS.get(other, ("square", "floor"))]}
    alt = (f"Dot plot of times over ours with 95 % intervals beside a line at one, for {len(drawn)} comparisons; "
           f"{sum(row.low > 1 for row in drawn)} lie right of it with the whole interval, "
           f"{sum(row.high < 1 for row in drawn)} left of it")
    count = len({row.label for row in drawn})
    figure = draw_intervals(drawn, title, "time of the other / time of ours", alt, looks, legend=True, apart=0.26,
                            width=820, height=150 + 26 * count)
    figure.add_vline(x=1, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    return figure
