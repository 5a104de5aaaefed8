"""sweep record → figure     every point of a sweep as a dot, every row as its mean with its interval.

Palette and frame are those of figures.py. Explained in appendix c.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from s4d_lib.errors import Refused
from s4d_lib.figures import PALETTE, _figure
from s4d_lib.metrics import told
from s4d_lib.records import Record


def draw_sweep(record: Record, metric: str = "", title: str = ""):
    """One line a setting: hollow dots are runs, the filled mark is the mean over folds or seeds with its interval.

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
    figure = _figure(title or f"{record.name}: {metric}", metric, "",
                     f"Dot plot of {metric} by setting, mean with 95 % interval over "
                     f"{' and '.join(averaged) or 'runs'}. {spoken}", height=140 + 44 * len(rows))
    for name, row in zip(names, rows):
        values = [point[metric] for point in results["points"]
                  if point.get(metric) is not None and _matches(point["point"], row["setting"], averaged)]
        figure.add_scatter(x=values, y=[name] * len(values), mode="markers", name="runs", showlegend=name == names[0],
                           marker={"symbol": "circle-open", "size": 8, "color": PALETTE["visible"]})
        found = row["metrics"][metric]
        arms = {} if found["low"] is None else {"error_x": {
            "type": "data", "symmetric": False, "array": [found["high"] - found["value"]],
            "arrayminus": [found["value"] - found["low"]]}}
        figure.add_scatter(x=[found["value"]], y=[name], mode="markers", name="mean", showlegend=name == names[0],
                           marker={"symbol": "diamond", "size": 11, "color": PALETTE["clip"]}, **arms)
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _name(setting: Mapping) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items()) or "all runs"


def _matches(point: Mapping, setting: Mapping, averaged: list[str]) -> bool:
    plain = {name: value if isinstance(value, str | int | float | bool) else json.dumps(value)
             for name, value in point.items() if name not in averaged}
    return plain == dict(setting)
