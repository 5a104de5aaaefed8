"""Every draw_* shows the numbers it was given: traces, ends of intervals, words and axes against values by hand.

A case lists all that its figure may show, so a row that is dropped, doubled or moved is a difference. The files
test_pictures, test_sweeps, test_s2d_figures, test_landmark_figures and test_transfer_figures hold what needs more than
a table.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace as Plain
from typing import Any

import numpy as np
import pytest

import s4d_lib
from s4d_lib.figures import correlation, curves, intervals, maps, measures, routing, s2d, sweeps, transfer
from s4d_lib.figures.base import DASH, EXPERT_COLOURS, PALETTE, colour_in, error_bars
from s4d_lib.figures.intervals import ONE_SEED, Look, Row, draw_intervals

NUMBERS = ("x", "y", "z", "text", "name")  # what a case must list wherever a trace has it


@dataclass
class Case:
    """A drawing of known numbers and everything that it may show."""

    draw: Callable[[], Any]
    traces: list[dict[str, Any]]
    words: tuple[str, ...]  # in the alt text
    axes: tuple[str, str] = ("", "")
    ticks: dict[str, list[str]] = field(default_factory=dict)  # axis → its words, where numbers stand for them


def plain(value: Any) -> Any:
    """Lists of numbers and words; nan is None."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value


def seen(trace: Any) -> dict[str, Any]:
    """Everything of a trace that tells a number or a word, with intervals as their two ends."""
    found = {key: plain(trace[key]) for key in NUMBERS if key in trace and trace[key] is not None}
    for axis in "xy":
        bars = trace[f"error_{axis}"] if f"error_{axis}" in trace else None
        if bars is not None and bars.array is not None:
            ends = [(None, None) if up is None else (middle - down, middle + up)
                    for middle, down, up in zip(found[axis], plain(bars.arrayminus), plain(bars.array))]
            found["low"], found["high"] = map(list, zip(*ends))
    return found


def same(one: Any, other: Any) -> bool:
    """Equal, numbers to nine digits."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == pytest.approx(other, rel=1e-9, abs=1e-12)
    return one == other


def wrong(figure: Any, case: Case) -> list[str]:
    """Where a figure is not what its case says."""
    drawn = [seen(trace) for trace in figure.data]
    faults = [] if len(drawn) == len(case.traces) else [f"{len(drawn)} traces instead of {len(case.traces)}"]
    for number, (there, wanted, trace) in enumerate(zip(drawn, case.traces, figure.data)):
        marker, line = (trace.to_plotly_json().get(part, {}) for part in ("marker", "line"))
        looks = {"colour": marker.get("color", line.get("color")), "symbol": marker.get("symbol"),
                 "dash": line.get("dash")}
        there |= {key: plain(look) for key, look in looks.items() if key in wanted}
        faults += [f"trace {number}: {key} is {there.get(key)} instead of {wanted.get(key)}"
                   for key in sorted(there.keys() | wanted.keys()) if not same(there.get(key), wanted.get(key))]
    faults += [f"the alt text lacks {word!r}: {figure.layout.meta['alt']}" for word in case.words
               if word not in figure.layout.meta["alt"]]
    axes = tuple(figure.layout[axis].title.text or "" for axis in ("xaxis", "yaxis"))
    faults += [] if axes == case.axes else [f"axes {axes} instead of {case.axes}"]
    faults += [f"ticks of {axis} are {figure.layout[axis].ticktext}" for axis, words in case.ticks.items()
               if list(figure.layout[axis].ticktext) != words]
    return faults + ([] if figure.layout.title.text.startswith("title") else [f"title {figure.layout.title.text!r}"])


def interval(value: float, low: float | None, high: float | None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, **more}


KNOWN, LONE = interval(60.0, 55.0, 67.0), interval(50.0, None, None)
BLUE, RED, GREY, BLACK = (PALETTE[name] for name in ("clip", "scratch", "floor", "visible"))


def contrast_of(value: float, low: float, high: float, seeds: list[float],
                t: tuple[float, float] | None = None) -> Plain:
    t_low, t_high = t or (low, high)
    return Plain(value=value, low=low, high=high, t_low=t_low, t_high=t_high, low90=low, high90=high, values=seeds)


def a_film() -> Plain:
    """Two windows of a second each, the second without an answer."""
    windows = Plain(middle=np.array([0.5, 1.5]), smoothed=np.array([[0.75, 0.25], [0.5, 0.5]]),
                    smoothed_reasons=["", "unsure"])
    return Plain(windows=windows, duration=2.0, classes=("Anger", "Fear"),
                 thumbnails=[Plain(second=0.0, jpeg=b"one"), Plain(second=2.0, jpeg=b"two")])


SWEEP = Plain(name="sweep", results={
    "metrics": ["war", "uar"], "averaged": ["seed"],
    "rows": [{"setting": {"lr": 1}, "metrics": {"uar": interval(3.0, 2.0, 5.0)}},
             {"setting": {"lr": 2}, "metrics": {"uar": interval(7.0, None, None)}}],
    "points": [{"point": {"lr": 1, "seed": 0}, "uar": 2.5}, {"point": {"lr": 1, "seed": 1}, "uar": 3.5},
               {"point": {"lr": 2, "seed": 0}, "uar": 7.0}, {"point": {"lr": 2, "seed": 1}, "uar": None}]})

CASES = {
    # ------------------------------------------------------------------------------------------------ curves
    "losses": Case(
        lambda: curves.draw_losses({"image": np.array([[0, 4.0], [1, 2], [2, 0]]), "clip": np.array([[5, 1.0]])},
                                    "title", window=2),
        [{"name": "image", "x": [0, 1, 2], "y": [4, 3, 1], "colour": PALETTE["image"], "dash": DASH["image"]},
         {"name": "clip", "x": [5], "y": [1], "colour": BLUE, "dash": DASH["clip"]}],
        ("loss over updates for image and clip",), ("update", "loss (mean of 2 steps)")),
    "layer scales": Case(
        lambda: curves.draw_layer_scales({"input": 0.25, "head": 1.0}, "title"),
        [{"x": ["input", "head"], "y": [0.25, 1.0], "text": ["0.250", "1.000"]}], ("learning rate of each layer",),
        ("", "share of the learning rate")),
    "epoch choice: the first of the highest": Case(
        lambda: curves.draw_epoch_choice({"validation": {1: 50.0, 2: 60.0, 3: 60.0}, "test": {1: 70.0, 2: 1.0}},
                                          "title"),
        [{"name": "validation", "x": [1, 2, 3], "y": [50, 60, 60], "colour": BLUE}, {"x": [2], "y": [60]},
         {"name": "test", "x": [1, 2], "y": [70, 1], "colour": RED}, {"x": [1], "y": [70]}],
        ("WAR over epochs on validation and test",), ("epoch", "WAR (%)")),
    "masks, one point of a single seed": Case(
        lambda: curves.draw_masks({"tube": {0.5: interval(3.0, 1.0, 8.0), 0.75: interval(2.0, None, None)},
                                    "random": {0.5: interval(1.0, None, None)}}, "title", "error"),
        [{"name": "tube", "x": [50, 75], "y": [3, 2], "low": [1, None], "high": [8, None], "symbol": "diamond"},
         {"name": "random", "x": [50], "y": [1], "symbol": "circle"}],
        ("error for masks tube, random",), ("hidden share of the tokens (%)", "error")),
    "plan": Case(
        lambda: curves.draw_plan([["image", "clip", "clip"], ["clip", "image"]], "title"),
        [{"name": "image", "x": [0, 1], "y": ["epoch 0", "epoch 1"], "colour": PALETTE["image"]},
         {"name": "clip", "x": [1, 2, 0], "y": ["epoch 0", "epoch 0", "epoch 1"], "colour": BLUE}],
        ("which steps of each epoch hold stills",), ("step", "")),
    "frames taken, one of them twice": Case(
        lambda: curves.draw_frames_taken({"ends": [0, 4], "late": [3, 3, 4]}, 5, "title"),
        [{"x": [0, 4], "y": ["ends"] * 2}, {"x": [0, 4], "y": ["ends"] * 2, "text": ["", ""]},
         {"x": [0, 4], "y": ["late"] * 2}, {"x": [3, 4], "y": ["late"] * 2, "text": ["×2", ""]}],
        ("line of 5 frames", "ends, late"), ("frame", "")),
    "timeline": Case(
        lambda: curves.draw_timeline(a_film(), "title", (np.array([0.0, 1.25, 2.0]), ["Fear", "Anger"])),
        [{"name": "Anger", "x": [0, 0.5, 1.5, 2], "y": [0.75, 0.75, 0.5, 0.5]},
         {"name": "Fear", "x": [0, 0.5, 1.5, 2], "y": [0.25, 0.25, 0.5, 0.5]},
         {"x": [1.0], "y": ["answer"]}, {"x": [1.25], "y": ["truth"]}, {"x": [0.75], "y": ["truth"]}],
        ("Anger, Fear over 2 seconds", "and the truth"), ("seconds", "probability")),
    # ------------------------------------------------------------------------------------------------ grids
    "confusion, one class without a sample": Case(
        lambda: maps.draw_confusion([[3, 1], [0, 0]], ("a", "b"), "title"),
        [{"x": ["a", "b"], "y": ["a", "b"], "z": [[75, 25], [0, 0]], "text": [[75, 25], [0, 0]]}],
        ("confusion matrix in percent",), ("predicted", "labelled")),
    "served": Case(
        lambda: maps.draw_served({"before": np.array([[0, 1, 2]]), "after": np.array([[2, 2, 0]])}, "title"),
        [{"z": [[0, 1, 2]]}, {"z": [[2, 2, 0]]}], ("tokens for before and after",), ("", "expert")),
    "routing": Case(
        lambda: maps.draw_routing({"clip": np.array([[0.25, 0.75]]), "image": np.array([[1.0, 0.0]])}, [7],
                                         "title"),
        [{"x": ["expert 0", "expert 1"], "y": ["block 7"], "z": [[25, 75]], "text": [[25, 75]]},
         {"x": ["expert 0", "expert 1"], "y": ["block 7"], "z": [[100, 0]], "text": [[100, 0]]}],
        ("for clip and image",)),
    "action units": Case(
        lambda: maps.draw_action_units(np.array([0.0, 0.5]), {"AU 1": np.array([0.25, 1]),
                                                                     "AU 12": np.array([0, 0.125])}, "title"),
        [{"x": [0, 0.5], "y": ["AU 1", "AU 12"], "z": [[0.25, 1], [0, 0.125]]}], ("AU 1, AU 12",), ("seconds", "")),
    "grid maps": Case(
        lambda: maps.draw_grid_maps({"one": np.arange(8.0).reshape(2, 2, 2)}, "title"),
        [{"name": "one", "z": [[0, 1, None, 4, 5], [2, 3, None, 6, 7]]}], ("token grid: one",),
        ("time slots, left to right", "")),
    "class shares": Case(
        lambda: maps.draw_class_shares({"image: stills": {"a": 1, "b": 3}, "other": {"a": 2, "b": 0}}, "title"),
        [{"name": "image: stills", "x": ["a", "b"], "y": [25, 75], "colour": PALETTE["image"]},
         {"name": "other", "x": ["a", "b"], "y": [100, 0], "colour": GREY}],
        ("class shares for image: stills and other",), ("", "share of the list (%)")),
    # ------------------------------------------------------------------------------------------------ intervals
    "scores, one of a single seed": Case(
        lambda: intervals.draw_scores({"clips alone": KNOWN, "guess": LONE}, "title"),
        [{"x": [60], "y": ["clips alone"], "low": [55], "high": [67], "colour": BLUE},
         {"x": [50], "y": ["guess"], "text": [ONE_SEED], "colour": BLACK}],
        ("UAR in percent with 95 % intervals for clips alone, guess", f"guess: {ONE_SEED}"), ("UAR (%)", "")),
    "measures, none with an interval": Case(
        lambda: intervals.draw_measures({"joint": {"value": 0.0}, "b": LONE}, "title", "tokens"),
        [{"x": [0], "y": ["joint"], "colour": PALETTE["joint"]}, {"x": [50], "y": ["b"]}],
        ("Dot plot of tokens for joint, b",), ("tokens", "")),
    "measures, some with an interval": Case(
        lambda: intervals.draw_measures({"a": KNOWN, "b": LONE}, "title", "seconds"),
        [{"x": [60], "y": ["a"], "low": [55], "high": [67]}, {"x": [50], "y": ["b"], "text": ["no interval"]}],
        ("; b: no interval",), ("seconds", "")),
    "differences, one of a single seed": Case(
        lambda: intervals.draw_differences({"a": interval(2.0, -1.0, 6.0, values=[1.0, 3.0]),
                                                   "b": interval(4.0, None, None, values=[4.0])}, "title"),
        [{"x": [1, 3], "y": ["a", "a"]}, {"x": [2], "y": ["a"], "low": [-1], "high": [6]},
         {"x": [4], "y": ["b"]}, {"x": [4], "y": ["b"], "text": [ONE_SEED]}],
        ("line at zero, for a, b", f"b: {ONE_SEED}"), ("percentage points", "")),
    "gaps": Case(
        lambda: intervals.draw_gaps({"clear": interval(3.0, 2.0, 5.0, wide_low=1.0, wide_high=6.0),
                                            "open": interval(-2.0, -3.0, -1.0, wide_low=-4.0, wide_high=0.5)}, "title"),
        [{"x": [2, 5], "y": ["clear"] * 2, "colour": BLACK}, {"x": [1, 6], "y": ["clear"] * 2, "colour": BLACK},
         {"x": [3], "y": ["clear"], "symbol": "circle"},
         {"x": [-3, -1], "y": ["open"] * 2, "colour": GREY}, {"x": [-4, 0.5], "y": ["open"] * 2, "colour": GREY},
         {"x": [-2], "y": ["open"], "symbol": "circle-open"}],
        ("two intervals each, for clear, open",), ("percentage points", "")),
    "effects of a protocol": Case(
        lambda: intervals.draw_protocol_effects(
            {"crop": {"war": interval(1.0, 0.0, 3.0), "uar": interval(-1.0, -2.0, 1.0)},
             "views": {"war": interval(0.5, None, None), "uar": interval(4.0, 3.0, 6.0)}}, "title"),
        [{"name": "WAR", "x": [1, 0.5], "y": [-0.12, 0.88], "low": [0, None], "high": [3, None], "symbol": "circle"},
         {"name": "UAR", "x": [-1, 4], "y": [0.12, 1.12], "low": [-2, 3], "high": [1, 6], "symbol": "diamond"}],
        ("WAR and UAR", "for crop, views"), ("percentage points", ""), {"yaxis": ["crop", "views"]}),
    "masked losses": Case(
        lambda: intervals.draw_masked_losses({"mean": {"image": 1.0, "clip": 0.5},
                                                     "model": {"image": 0.25, "clip": 0.125}}, "title"),
        [{"name": "on images", "x": [1, 0.25], "y": ["mean", "model"], "colour": PALETTE["image"]},
         {"name": "on clips", "x": [0.5, 0.125], "y": ["mean", "model"], "colour": BLUE}],
        ("for mean, model",), ("masked loss (lower is better)", "")),
    "a sweep, one setting with one run": Case(
        lambda: sweeps.draw_sweep(SWEEP, title="title"),
        [{"name": "runs", "x": [2.5, 3.5], "y": ["lr=1"] * 2}, {"name": "together", "x": [3], "y": ["lr=1"], "low": [2],
                                                               "high": [5]},
         {"name": "runs", "x": [7], "y": ["lr=2"]}, {"name": "together", "x": [7], "y": ["lr=2"]}],
        ("uar by setting", "all of seed together", "lr=1: 3.00 [2.00, 5.00]", "lr=2: 7.00 (one run)"), ("uar", "")),
    "routing effects": Case(
        lambda: routing.draw_effects({"clip": {"off": interval(-2.0, -3.0, 0.0), "even": LONE},
                                              "image": {"even": KNOWN}}, "title"),
        [{"name": "DFER", "x": [-2, 50], "y": [-0.13, 0.87], "low": [-3, None], "high": [0, None], "symbol": "square"},
         {"name": "SFER", "x": [60], "y": [1.13], "low": [55], "high": [67], "symbol": "circle"}],
        ("points of WAR", "for off, even"), ("points of WAR", ""), {"yaxis": ["off", "even"]}),
    "a forest: above, undecided, and few seeds without a t interval": Case(
        lambda: transfer.draw_forest(
            {"up": contrast_of(3.0, 2.0, 4.0, [3, 3, 2, 4, 3], (1.0, 5.0)),
             "open": contrast_of(-3.0, -9.0, 3.0, [-5, -1, -3, -3, -3]),
             "one": contrast_of(2.0, 1.5, 2.5, [2.0], (-np.inf, np.inf))}, "title"),
        [{"x": [3, 3, 2, 4, 3], "y": ["up"] * 5}, {"x": [2, 4], "y": ["up"] * 2, "colour": BLUE},
         {"x": [1, 5], "y": ["up"] * 2}, {"x": [3], "y": ["up"], "symbol": "circle", "colour": BLUE},
         {"x": [-5, -1, -3, -3, -3], "y": ["open"] * 5}, {"x": [-9, 3], "y": ["open"] * 2, "colour": GREY},
         {"x": [-9, 3], "y": ["open"] * 2}, {"x": [-3], "y": ["open"], "symbol": "circle-open", "colour": GREY},
         {"x": [2], "y": ["one"]}, {"x": [1.5, 2.5], "y": ["one"] * 2}, {"x": [2], "y": ["one"]}],
        ("up: +3.0, above; open: -3.0, undecided; one: +2.0, undecided",), ("percentage points", "")),
    "methods, best first": Case(
        lambda: transfer.draw_methods({"low": contrast_of(-1.0, -2.0, 0.5, [-1.0]),
                                               "high": contrast_of(1.0, 0.0, 2.0, [1.0])}, "base", "title"),
        [trace for name, value, ends in (("high", 1, [0, 2]), ("low", -1, [-2, 0.5]))
         for trace in ({"x": [value], "y": [name]}, {"x": ends, "y": [name] * 2}, {"x": ends, "y": [name] * 2},
                       {"x": [value], "y": [name]})],
        ("high: +1.0",), ("WAR minus that of base, percentage points", "")),
    "main effects, one without a wide interval": Case(
        lambda: transfer.draw_effects(
            [Plain(name="a", value=2.0, low=1.0, high=3.0, wide_low=0.5, wide_high=4.0),
             Plain(name="b", value=0.0, low=-1.0, high=1.0, wide_low=-np.inf, wide_high=np.inf)], "title", "points"),
        [{"x": [1, 3], "y": ["a"] * 2}, {"x": [0.5, 4], "y": ["a"] * 2}, {"x": [2], "y": ["a"], "symbol": "circle"},
         {"x": [-1, 1], "y": ["b"] * 2}, {"x": [-1, 1], "y": ["b"] * 2}, {"x": [0], "y": ["b"],
                                                                          "symbol": "circle-open"}],
        ("a +2.0, b +0.0",), ("points", "")),
    "differences by class": Case(
        lambda: transfer.draw_per_class(
            {"joint": {"Anger": contrast_of(1.0, 0.0, 3.0, [1.0]), "Fear": contrast_of(2.0, 1.0, 4.0, [2.0])},
             "moae": {"Fear": contrast_of(-1.0, -2.0, 0.0, [-1.0])}}, "title"),
        [{"name": "joint", "x": [1, 2], "y": [-0.1, 0.9], "low": [0, 1], "high": [3, 4], "symbol": "circle"},
         {"name": "moae", "x": [-1], "y": [1.1], "low": [-2], "high": [0], "symbol": "diamond"}],
        ("joint: Anger +1.0, Fear +2.0; moae: Fear -1.0",), ("recall, percentage points", ""),
        {"yaxis": ["Anger", "Fear"]}),
    "what foretells beside chance": Case(
        lambda: measures.draw_foretelling(
            {"chance": 0.5, "rho": {"weak": interval(0.4, 0.1, 0.6), "strong": interval(-0.9, -1.0, -0.6)}}, "title"),
        [{"x": [-0.9], "y": ["strong"], "low": [-1], "high": [-0.6], "symbol": "circle", "colour": BLUE},
         {"x": [0.4], "y": ["weak"], "low": [0.1], "high": [0.6], "symbol": "circle-open", "colour": GREY}],
        ("band of chance of ±0.50; beyond it: strong -0.90",), ("Spearman's ρ over cells", "")),
    # ------------------------------------------------------------------------------------------------ the rest
    "agreement, one draw without an interval": Case(
        lambda: measures.draw_agreement(
            {"within": {"clip": {"stem": (0.5, 0.25, 1.0), "head": (0.75, None, None)},
                        "image": {"stem": (1.0, 0.5, 1.5), "head": (1.0, 0.5, 1.5)}},
             "between": {pair: {"stem": {"cosine": (0.0, -0.5, 0.25)}, "head": {"cosine": (0.5, 0.25, 0.75)}}
                         for pair in ("image | clip", "clip | random")}}, "title"),
        [{"name": name, "x": [shift, 1 + shift], "y": value, "low": low, "high": high}
         for name, shift, value, low, high in (
          ("stills with clips", -0.135, [0, 0.5], [-0.5, 0.25], [0.25, 0.75]),
          ("ceiling: clips with clips", -0.045, [0.5, 0.75], [0.25, None], [1, None]),
          ("ceiling: stills with stills", 0.045, [1, 1], [0.5, 0.5], [1.5, 1.5]),
          ("control: clips with labels dealt anew", 0.135, [0, 0.5], [-0.5, 0.25], [0.25, 0.75]))],
        ("stills with clips +0.25, ceiling: clips with clips +0.62",), ("", "cosine of two gradients"),
        {"xaxis": ["stem", "head"]}),
    "what foretells, cell by cell": Case(
        lambda: transfer.draw_prediction([0.1, 0.2], [-1.0, 2.0], ["p", "q"],
                                                 Plain(value=0.5, low=0.25, high=0.75, p=0.04, count=2), "cosine",
                                                 "title"),
        [{"x": [0.1, 0.2], "y": [-1, 2], "text": ["p", "q"], "colour": [RED, BLUE]}],
        ("Spearman +0.50, 95 % +0.25 to +0.75, p 0.040, 2 cells",), ("cosine", "transfer, percentage points")),
    "two readings": Case(
        lambda: correlation.draw_two_readings(np.array([0.0, 0.5]), {"Anger": np.array([0.25, 1])},
                                                      {"AU 4": np.array([1, 0.5])}, "title"),
        [{"name": "Anger", "x": [0, 0.5], "y": [0.25, 1]}, {"name": "AU 4", "x": [0, 0.5], "y": [1, 0.5]}],
        ("single frames are taken for (Anger)", "intensity of AU 4"), ("", "probability")),
    "recalls": Case(
        lambda: correlation.draw_recalls(np.array([[10.0, 20], [30, 40]]), np.array([[1.0, 2], [5, 8]]),
                                                 ("Anger", "Fear"), "title"),
        [{"x": [10, 30], "y": [1, 5]}, {"name": "Anger", "x": [20], "y": [3]}, {"x": [20, 40], "y": [2, 8]},
         {"name": "Fear", "x": [30], "y": [5]}],
        ("for Anger, Fear",), ("recall on stills (%)", "recall on clips (%)")),
    "signed matrix": Case(
        lambda: correlation.draw_signed_matrix(np.array([[1.25, np.nan], [-2.0, -0.001]]), ["a", "b"],
                                                       ["c", "d"], "title", "from", "to", "points"),
        [{"x": ["c", "d"], "y": ["a", "b"], "z": [[1.25, None], [-2, -0.001]], "text": [["1.2", ""], ["-2.0", "0.0"]]}],
        ("points for a, b by c, d",), ("from", "to")),
    "loads, an empty group": Case(
        lambda: routing.draw_loads({"block 0": np.array([[0.25, 0.75], [np.nan, np.nan]])}, ["a", "b"],
                                           "title"),
        [{"x": ["0", "1"], "y": ["a", "b"], "z": [[25, 75], [None, None]], "text": [["25", "75"], ["", ""]]}],
        ("by a, b; panels: block 0",), ("expert", "")),
    "places": Case(  # three places of one slot: sure of expert 1, even, sure of expert 0
        lambda: routing.draw_places(np.array([[[0.0, 1]], [[0.5, 0.5]], [[1.0, 0]]]), (1, 1, 3), [4], "title"),
        [{"z": [[None, 0.25, 1]], "text": [["", "0", "0"]]}, {"z": [[1, None, None]], "text": [["1", "", ""]]}],
        ("most chosen of 2 experts at each place of 1 time slots",)),
    "information": Case(
        lambda: routing.draw_information({"class": [{"block": 0, "bits": 0.5, "high": 0.25},
                                                            {"block": 2, "bits": 0.125, "high": 0.25}]}, "title"),
        [{"x": [0, 0.25], "y": ["class, block 0"] * 2}, {"x": [0.5], "y": ["class, block 0"], "symbol": "circle"},
         {"x": [0, 0.25], "y": ["class, block 2"] * 2}, {"x": [0.125], "y": ["class, block 2"],
                                                         "symbol": "circle-open"}],
        ("shuffled labels: class",), ("bits", "")),
    "dial": Case(
        lambda: routing.draw_dial({"clips": ([1, 2], [3.0, 4.0])}, "title", "factor", "loss", {"ours": 1.5}),
        [{"name": "clips", "x": [1, 2], "y": [3, 4], "colour": BLUE, "dash": DASH["clip"]}],
        ("loss against factor for clips",), ("factor", "loss")),
    "targets": Case(
        lambda: s2d.draw_targets({"soft": np.array([[0.25, 0.75]])}, ["a", "b"], ["b"], "title"),
        [{"x": ["a", "b"], "y": ["1 b"], "z": [[0.25, 0.75]], "text": [[0.25, 0.75]]}],
        ("soft: 0.25 to 0.75, a row sums to 1.00",)),
    "loudness": Case(
        lambda: s2d.draw_loudness({"prompt": [0.1, 0.25]}, "title"),
        [{"name": "prompt", "x": [0, 1], "y": [10, 25]}], ("prompt 10 %, 25 %",),
        ("block", "added, % of the tokens' length")),
}
INTERVALS = ("scores", "measures", "differences", "gaps", "effects of", "masked losses", "a sweep", "routing effects",
             "a forest", "methods", "main effects", "what foretells beside")  # cases drawn by draw_intervals begin so


@pytest.mark.parametrize("name", CASES)
def test_a_figure_shows_what_it_was_given(name):
    assert wrong(CASES[name].draw(), CASES[name]) == []


@pytest.mark.parametrize("name", CASES)
def test_a_dropped_row_is_noticed(name):
    """Control: the same figure without its last trace, or with the last place of its first trace gone."""
    figure = CASES[name].draw()
    figure.data = figure.data[:-1]
    assert wrong(figure, CASES[name])
    figure = CASES[name].draw()
    key = "y" if figure.data[0].y is not None else "z"
    figure.data[0][key] = list(figure.data[0][key])[:-1]
    assert wrong(figure, CASES[name])


def test_an_interval_that_is_mirrored_is_noticed():
    """Control: bars of the right lengths on the wrong sides."""
    case = CASES["scores, one of a single seed"]
    figure = case.draw()
    bars = figure.data[0].error_x
    bars.array, bars.arrayminus = bars.arrayminus, bars.array
    assert any("high is [65" in fault for fault in wrong(figure, case))


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(INTERVALS)])
def test_a_drawing_that_drops_its_last_row_fails(name, monkeypatch):
    """Control: the same drawing through a `draw_intervals` that leaves the last row out."""
    for module in (intervals, measures, routing, sweeps, transfer):
        monkeypatch.setattr(module, "draw_intervals", lambda rows, *more, **named: draw_intervals(rows[:-1], *more,
                                                                                                  **named))
    assert wrong(CASES[name].draw(), CASES[name])


# --- one function for every interval ---------------------------------------------------------------------------------


def test_half_an_interval_is_refused_by_name():
    with pytest.raises(ValueError, match="row 'a' has one end of its interval only: low 1.0, high None"):
        Row("a", 2.0, low=1.0)
    with pytest.raises(KeyError, match="stray"):
        draw_intervals([Row("a", 1.0, group="stray")], "t", "x", "alt", {"": Look({"color": BLACK})})


def test_lines_without_an_interval_draw_the_dot_alone():
    look = Look({"color": BLACK}, lines=((5, 1.0), (1, 1.0)))
    figure = draw_intervals([Row("a", 1.0, note=ONE_SEED)], "t", "x", "alt", {"": look}, zero=True)
    assert [trace.mode for trace in figure.data] == ["markers"] and figure.data[0].text == (ONE_SEED,)
    assert figure.layout.meta["alt"] == f"alt; a: {ONE_SEED}"
    assert figure.layout.shapes[0].x0 == figure.layout.shapes[0].x1 == 0, "the line at zero"


def test_groups_of_a_line_lie_evenly_about_it():
    rows = [Row("a", 1.0, group=group) for group in "pqr"]
    figure = draw_intervals(rows, "t", "x", "alt", dict.fromkeys("pqr", Look({"color": BLACK})), legend=True, apart=0.2)
    assert [trace.y[0] for trace in figure.data] == pytest.approx([-0.2, 0, 0.2])


def test_error_bars_reach_from_the_value_to_its_ends():
    bars = error_bars([3.0, 1.0], [1.0, None], [8.0, None], thickness=2)
    assert (bars["array"], bars["arrayminus"], bars["thickness"]) == ([5.0, None], [2.0, None], 2)
    assert error_bars([1.0], [None], [None]) is None


def test_a_name_has_the_colour_of_what_it_speaks_of():
    assert colour_in("DFER, Clips alone") == PALETTE["clip"] and colour_in("nothing known") == PALETTE["visible"]
    assert colour_in("nothing known", "floor") == PALETTE["floor"]


# --- what is no table of numbers -------------------------------------------------------------------------------------


def test_target_sizes_are_a_half_where_the_spread_is_the_root_of_epsilon():
    figure = curves.draw_target_sizes(np.geomspace(1e-3, 1, 500), {"small": 1e-4, "large": 1e-2}, "title")
    histogram, small, large = figure.data
    assert (small.name, large.name) == ("small", "large") and max(histogram.y) == 1
    for trace, root in ((small, 0.01), (large, 0.1)):
        assert np.interp(root, trace.x, trace.y) == pytest.approx(0.5, abs=0.01)
    assert "for small and large" in figure.layout.meta["alt"] and figure.layout.xaxis.type == "log"


def test_patches_are_tinted_half_by_the_colour_of_their_expert():
    from PIL import ImageColor

    picture = np.full((4, 6, 3), 100, np.uint8)
    drawn = np.asarray(maps.draw_expert_map(picture, np.array([[0, 1, 2], [8, 3, 4]]), scale=1))
    assert drawn.shape == (4, 12, 3) and (drawn[:, :6] == 100).all(), "the picture itself stands on the left"
    for row, column, expert in ((0, 1, 1), (1, 0, 0), (1, 2, 4)):  # expert 8 has the colour of expert 0 again
        tint = 50 + np.array(ImageColor.getrgb(EXPERT_COLOURS[expert])) / 2
        block = drawn[2 * row : 2 * row + 2, 6 + 2 * column : 8 + 2 * column]
        assert (block == tint.astype(np.uint8)).all()


def test_a_clip_map_has_a_row_a_block_below_the_frames():
    frames = np.stack([np.full((2, 4, 3), value, np.uint8) for value in (0, 200)])
    experts = np.array([[[[0, 1]], [[2, 3]]], [[[4, 4]], [[4, 4]]]])  # [blocks t rows columns]
    drawn = np.asarray(routing.draw_clip_map(frames, experts, scale=1))
    assert drawn.shape == (3 * 2, 2 * 4, 3)
    assert (drawn[:2, :4] == 0).all() and (drawn[:2, 4:] == 200).all()
    mixed = (100 + np.array([0xF0, 0xE4, 0x42]) / 2).astype(np.uint8)  # the second frame under expert 3
    assert (drawn[2:4, 6:] == mixed).all() and not (drawn[4:] == mixed).all(-1).any()


# --- nothing is drawn unseen -----------------------------------------------------------------------------------------


def names_of(files: list[Path], kind: type) -> set[str]:
    """Names that begin with draw_ of definitions at the top (ast.FunctionDef) or of calls anywhere (ast.Call)."""
    found = set()
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if kind is ast.FunctionDef:
            found |= {node.name for node in tree.body if isinstance(node, kind)}
        else:
            called = [node.func for node in ast.walk(tree) if isinstance(node, kind)]
            found |= {getattr(one, "attr", getattr(one, "id", "")) for one in called}
    return {name for name in found if name.startswith("draw_")}


def test_every_drawing_is_called_by_a_test():
    figure_files = [path for path in Path(s4d_lib.__file__).parent.rglob("*.py")
                    if "figure" in f"{path.parent.name}/{path.name}"]
    drawings = names_of(figure_files, ast.FunctionDef)
    called = names_of(list(Path(__file__).parent.glob("test_*.py")), ast.Call)
    assert len(drawings) > 40 and drawings - called == set()
