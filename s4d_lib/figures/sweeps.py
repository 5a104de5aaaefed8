"""sweep record → figure     every point of a sweep as a dot, every row as its score with its interval.

Palette and frame are those of base.py. Explained in appendix c.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from s4d_lib.errors import Refused
from s4d_lib.figures.base import PALETTE
from s4d_lib.figures.intervals import Look, Row, draw_intervals
from s4d_lib.metrics.scores import told
from s4d_lib.records import Record

if TYPE_CHECKING:
    import plotly.graph_objects as go

RUN = {"symbol": "circle-open", "size": 8, "color": PALETTE["visible"]}
MEAN = Look({"symbol": "diamond", "size": 11, "color": PALETTE["clip"]})


def draw_sweep(record: Record, metric: str = "", title: str = "") -> go.Figure:
    """One line a setting: hollow dots are runs, the filled mark is the score of all with its interval.

    metric   one of the record's; without it the first that ends in uar, else the first. ValueError for another.
    """
    results = record.results
    for name in results["metrics"] if not metric else ():
        metric = name if not metric or (name.lower().endswith("uar") and not metric.lower().endswith("uar")) else metric
    if metric not in results["metrics"]:
        raise Refused(f"the sweep has no {metric!r}; it has: {', '.join(results['metrics'])}")
    averaged = results["averaged"]
    rows = [row for row in results["rows"] if metric in row["metrics"]]
    names = [_name(row["setting"]) for row in rows]
    spoken = "; ".join(f"{name}: {told(row['metrics'][metric])}" for name, row in zip(names, rows))
    together = f"all of {' and '.join(averaged) or 'its runs'} together"
    alt = f"Dot plot of {metric} by setting: {together}, with 95 % interval. {spoken}"
    drawn = []
    for name, row in zip(names, rows):
        runs = [point[metric] for point in results["points"]
                if point.get(metric) is not None and _matches(point["point"], row["setting"], averaged)]
        found = row["metrics"][metric]
        drawn.append(Row(name, found["value"], found["low"], found["high"], seeds=runs))
    figure = draw_intervals(drawn, title or f"{record.name}: {metric}", metric, alt, {"": MEAN}, ticks=RUN,
                            height=140 + 44 * len(rows))
    for name, symbol in (("runs", RUN["symbol"]), ("together", MEAN.marker["symbol"])):
        for place, trace in enumerate(figure.select_traces({"marker.symbol": symbol})):
            trace.update(name=name, showlegend=place == 0)
    figure.update_yaxes(type="category")
    return figure


def _name(setting: Mapping) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items()) or "all runs"


def _matches(point: Mapping, setting: Mapping, averaged: list[str]) -> bool:
    plain = {name: value if isinstance(value, str | int | float | bool) else json.dumps(value)
             for name, value in point.items() if name not in averaged}
    return plain == dict(setting)
