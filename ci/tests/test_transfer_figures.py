"""Figures of the transfer laboratory: what is drawn is what was measured, and the alt text says it."""

import itertools

import numpy as np
import pytest

from s4d_lib.figures.transfer import (
    DIVERGING,
    draw_effects,
    draw_forest,
    draw_map,
    draw_methods,
    draw_per_class,
    draw_prediction,
)
from s4d_lib.metrics.contrasts import contrast, holm, recall_differences
from s4d_lib.metrics.effects import fit_surface, main_effects, spearman

CLASSES = ("Happiness", "Sadness", "Anger")


@pytest.fixture(scope="module")
def runs():
    rng = np.random.default_rng(0)
    labels, people = rng.integers(0, 3, 400), np.arange(400) // 4
    skill = {"dfer": 0.5, "gain": 0.8, "loss": 0.2, "same": 0.5}
    return {name: np.where(rng.random((5, 400)) < one, labels, (labels + 1) % 3) for name, one in skill.items()}, \
        labels, people


@pytest.fixture(scope="module")
def contrasts(runs):
    answers, labels, people = runs
    return {name: contrast(one, answers["dfer"], labels, people, draws=300)
            for name, one in answers.items() if name != "dfer"}


def alt(figure):
    return figure.layout.meta["alt"]


def points(figure):
    """Row → value of every large dot."""
    return {trace.y[0]: trace.x[0] for trace in figure.data if trace.mode == "markers" and trace.marker.size == 12}


def test_forest_shows_values_intervals_seeds_and_verdicts(contrasts):
    figure = draw_forest(contrasts, "title")
    assert points(figure) == {name: one.value for name, one in contrasts.items()}
    bars = {trace.y[0]: tuple(trace.x) for trace in figure.data if trace.mode == "lines" and trace.line.width == 10}
    assert bars == {name: (one.low, one.high) for name, one in contrasts.items()}
    lines = {trace.y[0]: tuple(trace.x) for trace in figure.data if trace.mode == "lines" and trace.line.width == 2}
    assert lines == {name: (one.t_low, one.t_high) for name, one in contrasts.items()}
    assert [note.text for note in figure.layout.annotations] == ["above", "below", "undecided"]
    symbols = [trace.marker.symbol for trace in figure.data if trace.mode == "markers" and trace.marker.size == 12]
    assert symbols == ["circle", "circle", "circle-open"]
    assert "gain: +" in alt(figure) and "below" in alt(figure)


def test_forest_of_a_record_is_the_same(contrasts):
    assert draw_forest({name: one.as_dict() for name, one in contrasts.items()}, "t") == draw_forest(contrasts, "t")


def test_holm_can_take_a_verdict_away(contrasts):
    figure = draw_forest(contrasts, "t", {name: 1.0 for name in contrasts})
    assert {note.text for note in figure.layout.annotations} == {"undecided"}
    assert draw_forest(contrasts, "t", holm({n: one.p for n, one in contrasts.items()})) == draw_forest(contrasts, "t")


def test_one_seed_draws_no_infinite_line(runs):
    answers, labels, people = runs
    one = contrast(answers["gain"][:1], answers["dfer"][:1], labels, people, draws=100)
    figure = draw_forest({"one seed": one}, "t")
    assert all(np.isfinite(np.array(trace.x, float)).all() for trace in figure.data)


def test_methods_stand_best_first(contrasts):
    figure = draw_methods(contrasts, "tuned weights", "t")
    assert list(points(figure)) == ["gain", "same", "loss"]
    assert "tuned weights" in figure.layout.xaxis.title.text


def test_effects_have_both_intervals():
    levels = np.array(list(itertools.product((-1, 1), repeat=3)))
    effects = main_effects(levels, np.random.default_rng(0).normal(levels[:, :1] * 3.0, 0.3, (8, 3)), ["a", "b", "c"])
    figure = draw_effects(effects, "t")
    assert figure.data[2].y == ("a",) and figure.data[2].x[0] == effects[0].value
    low, high = figure.layout.xaxis.range
    assert low < min(one.wide_low for one in effects) and max(one.wide_high for one in effects) < high
    assert "a +" in alt(figure)


def test_map_is_symmetric_about_zero_and_draws_the_turn():
    x, y = (axis.ravel() for axis in np.meshgrid([100, 200, 400, 800, 1600], [0.1, 0.2, 0.4, 0.8]))
    rng = np.random.default_rng(0)
    found = {name: np.log(400 / x) * 3 + shift + rng.normal(0, 0.5, 20) for name, shift in
             (("joint - dfer", 0), ("moae - dfer", 9))}
    surfaces = {name: fit_surface(x, y, values, size=15, draws=100) for name, values in found.items()}
    figure = draw_map(surfaces, {name: (x, y, values) for name, values in found.items()}, "clips", "share", "t")
    heat = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heat) == 2 and all(trace.zmin == -trace.zmax for trace in heat)
    assert DIVERGING[2] == [0.5, "#FFFFFF"]
    turning = [trace for trace in figure.data if trace.type == "contour"]
    assert [trace.line.dash for trace in turning if trace.xaxis == "x"] == ["solid", "dash", "dash"]
    assert all(trace.contours.start == trace.contours.end == 0 for trace in turning)
    dots = [trace for trace in figure.data if trace.type == "scatter"]
    assert np.array(dots[0].x) == pytest.approx(np.log10(x)) and np.array(dots[0].marker.color) == pytest.approx(
        found["joint - dfer"])
    assert figure.layout.xaxis.ticktext == ("100", "200", "400", "800", "1600")
    assert "joint - dfer: from -" in alt(figure)


def test_map_of_a_plain_axis_keeps_its_numbers():
    x, y = (axis.ravel() for axis in np.meshgrid([100, 200, 400], [0.0, 0.2, 0.4]))
    surface = fit_surface(x, y, x * 0.01 + y, log=(True, False), size=5, draws=20)
    figure = draw_map({"one": surface}, {}, "clips", "noise", "t")
    assert np.array(figure.data[0].y) == pytest.approx(np.linspace(0, 0.4, 5))


def test_per_class_has_a_mark_a_class_and_method(runs):
    answers, labels, people = runs
    groups = {name: recall_differences(answers[name], answers["dfer"], labels, people, CLASSES, draws=100)
              for name in ("gain", "loss")}
    figure = draw_per_class(groups, "t")
    for trace, (name, rows) in zip(figure.data, groups.items()):
        assert trace.name == name and list(trace.x) == [one.value for one in rows.values()]
        assert [round(place) for place in trace.y] == [0, 1, 2]
    assert figure.layout.yaxis.ticktext == CLASSES and "Sadness" in alt(figure)


def test_prediction_tells_the_correlation():
    x, y = np.arange(8.0), np.array([-3.0, -1, -2, 0.5, 1, 2, 4, 3])
    figure = draw_prediction(x, y, [f"cell {i}" for i in range(8)], spearman(x, y, draws=200), "cosine", "t")
    assert "Spearman +0.9" in alt(figure) and "8 cells" in figure.layout.title.text
    assert figure.data[0].marker.symbol[0] != figure.data[0].marker.symbol[-1]  # colour never carries meaning alone
