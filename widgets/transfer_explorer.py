"""dials → recorded differences     transfer_explorer: when do stills help the clips, and when do they hurt?

Every dot is a cell of the transfer laboratory that was trained and recorded; nothing is interpolated. A dial narrows
the cells to one of its settings. Belongs to chapter 08.
"""

from __future__ import annotations

import math
from typing import Any

from widgets.explorer import Explorer, dial, front, recorded, settle

STUDIES = {"transfer_screening": "screening", "transfer_map": "map", "transfer_map_unclipped": "map without clipping",
           "transfer_dials": "one dial at a time",
           "transfer_methods": "methods", "transfer_confirmatory": "confirmation", "transfer_long": "long training",
           "transfer_harm": "harm made, no clipping"}
PAIRS = {"joint": ("joint training − clips alone, equal clip updates", "joint", "dfer"),
         "compute": ("joint training − clips alone, equal compute", "joint", "same_compute"),
         "moae": ("experts (MoAE) − clips alone, equal clip updates", "moae_clean", "dfer"),
         "repair": ("experts (MoAE) − joint training", "moae_clean", "joint")}
DIALS = {"clips": "Training clips", "sequence": "Clips that need their order", "init": "Start",
         "ratio": "Stills per clip", "noise": "Label noise of the stills", "shift": "Look of the stills",
         "weight": "Weight of the still loss", "schema": "Classes of the stills", "size": "Size of the model"}
ANY = "any"


class TransferExplorer(Explorer):
    """Recorded differences in DFER WAR under the dials of chapter 08. `TransferExplorer(noise="heavy")`."""

    name = "transfer_explorer"
    title = "When does joint training hurt the clips?"
    question = "Which dials move the difference, and is any recorded cell clearly below zero?"
    _esm = front("transfer_explorer")

    @classmethod
    def sources(cls) -> list[str]:
        from s4d_lib.files import RESULTS

        return [name for name in STUDIES if (RESULTS / f"{name}.json").exists()]

    @classmethod
    def record(cls) -> dict[str, Any]:
        """The differences of every recorded cell, and the main effects; studies not yet run are absent."""
        from s4d_lib.lab import screening_effects
        from s4d_lib.records import results

        found = {name: results(name) for name in cls.sources()}
        cells = [row for name, record in found.items() for row in study_cells(record, STUDIES[name])]
        settings = {key: sorted({cell["factors"][key] for cell in cells if key in cell["factors"]}, key=_order)
                    for key in DIALS}
        effects = {}
        if "transfer_screening" in found:
            for key, (_, one, other) in PAIRS.items():
                effects[key] = [{"name": one_.name, "value": _number(one_.value), "low": _number(one_.low),
                                 "high": _number(one_.high)}
                                for one_ in screening_effects(found["transfer_screening"], one, other)]
        return {"dials": [dial("pair", "Difference", list(PAIRS), "joint", kind="choice",
                               labels=[title for title, *_ in PAIRS.values()], wide=True),
                          *(dial(key, label, [ANY, *map(_word, settings[key])], ANY, kind="choice")
                            for key, label in DIALS.items() if len(settings[key]) > 1)],
                "cells": [cell | {"factors": {k: _word(v) for k, v in cell["factors"].items()}} for cell in cells],
                "effects": effects, "names": DIALS, "studies": [STUDIES[name] for name in found]}

    def draw(self) -> Any:
        return draw_transfer(self.dials)


def study_cells(record: Any, study: str) -> list[dict[str, Any]]:
    """The cells of one record that hold a pair: study, factors, and by pair the mean, its interval and the seeds."""
    from s4d_lib.lab import LabRecord, has, pair, values

    rows = []
    for name, cell in LabRecord.of(record).cells.items():
        differences = {}
        for key, (_, one, other) in PAIRS.items():
            if not has(record, name, one, other):
                continue
            seeds = values(record, name, one, other)
            row = {"value": round(float(seeds.mean()), 2), "seeds": len(seeds), "low": None, "high": None}
            if len(seeds) > 1:
                judged = pair(record, name, one, other, draws=2000)
                row |= {"low": _number(judged.low), "high": _number(judged.high)}
            differences[key] = row
        if differences:
            rows.append({"study": study, "factors": cell.factors, "differences": differences})
    return rows


def _number(value: float) -> float | None:
    return round(float(value), 2) if math.isfinite(value) else None


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, float | int) else (1, 0, str(value))


def matching(dials: dict[str, Any], cells: list[dict[str, Any]]) -> list[bool]:
    """Whether each cell holds the pair and agrees with every dial that is not "any"."""
    asked = {key: value for key, value in dials.items() if key in DIALS and value != ANY}
    return [dials["pair"] in cell["differences"]
            and all(cell["factors"].get(key) == value for key, value in asked.items()) for cell in cells]


def summary(dials: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the matching cells: how many, how many below zero, the mean, the lowest and the highest difference."""
    found = [cell["differences"][dials["pair"]]["value"]
             for cell, ok in zip(cells, matching(dials, cells)) if ok]
    if not found:
        return {"count": 0, "below": 0, "mean": None, "low": None, "high": None}
    return {"count": len(found), "below": sum(value < 0 for value in found), "mean": sum(found) / len(found),
            "low": min(found), "high": max(found)}


def draw_transfer(dials: dict[str, Any]) -> Any:
    """The explorer's dots at some dials: one row a study, cells that agree with the dials filled."""
    from s4d_lib.figures import PALETTE, new_figure

    dials = settle("transfer_explorer", dials)
    kept = recorded("transfer_explorer")
    told = summary(dials, kept["cells"])
    words = "no recorded cell matches"
    if told["count"]:
        words = f"{told['count']} cells match, {told['below']} below zero, mean {told['mean']:+.1f} points"
    figure = new_figure(PAIRS[dials["pair"]][0], "DFER WAR, points", "",
                        f"Dots of the recorded differences beside a line at zero; {words}",
                        height=150 + 45 * len(kept["studies"]))
    for ok in (False, True):
        rows = [cell for cell, one in zip(kept["cells"], matching(dials, kept["cells"]))
                if one == ok and dials["pair"] in cell["differences"]]
        figure.add_scatter(x=[cell["differences"][dials["pair"]]["value"] for cell in rows],
                           y=[cell["study"] for cell in rows], mode="markers", name="matches" if ok else "other cells",
                           marker={"size": 11, "symbol": "circle" if ok else "circle-open",
                                   "color": PALETTE["clip" if ok else "hidden"]})
    figure.add_vline(x=0, line={"color": PALETTE["scratch"], "width": 2, "dash": "dash"})
    figure.update_yaxes(autorange="reversed")
    return figure
