"""`s4d bench`: intervals against another library, the textbook against ours, and a slow-down that must be seen."""

import itertools
import math
import time
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom, quantile_test
from typer.testing import CliRunner

from s4d_lib.bench import chores, memory, networks, parts
from s4d_lib.bench.baselines import TEXTBOOK, available, load_script
from s4d_lib.bench.measuring import headline, measure, measure_row
from s4d_lib.bench.networks import Task, differences
from s4d_lib.bench.rows import Row, Settings, all_rows, chosen
from s4d_lib.bench.tables import as_markdown, between, cells_of
from s4d_lib.bench.timing import Clock, median_between, ratios, take_turns
from s4d_lib.cli.app import app
from s4d_lib.errors import Refused
from s4d_lib.figures import draw_bench
from s4d_lib.layers.tokens import position_table
from s4d_lib.models.sizes import resolve_size
from s4d_lib.records import Record, read_record

NANO = Task("finetune", "clip", "nano", 2)
QUICK = Settings("nano", precisions=("no",), repeats=3, quick=True)

# ------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("count", [6, 9, 10, 15, 16, 31])
def test_the_interval_of_a_median_is_scipy_s(count):
    values = np.random.default_rng(count).lognormal(size=count)
    found, theirs = median_between(values), quantile_test(values, q=0, p=0.5).confidence_interval(0.95)
    assert found.value == np.median(values)
    # Theirs may be lopsided by one place where the binomial allows it; ours is even, and never narrower than 95 %.
    assert found.low <= theirs.low and found.high >= theirs.high
    k = sorted(values).index(found.low) + 1
    assert found.high == sorted(values)[-k]
    assert found.coverage == pytest.approx(1 - 2 * binom.cdf(k - 1, count, 0.5)) and found.coverage >= 0.95
    assert 1 - 2 * binom.cdf(k, count, 0.5) < 0.95, "one place further in it must cover less"


def test_it_covers_the_true_median_as_often_as_it_says():
    """The control of the same draws: the interval one place further in does not."""
    rng, covered, narrower = np.random.default_rng(0), 0, 0
    draws = np.sort(rng.exponential(size=(4000, 9)), axis=1)
    for row in draws:
        found = median_between(row)
        covered += found.low <= math.log(2) <= found.high
        narrower += row[2] <= math.log(2) <= row[6]
    assert covered / len(draws) == pytest.approx(found.coverage, abs=0.01) and found.coverage >= 0.95
    assert narrower / len(draws) < 0.93


def test_few_turns_say_how_little_they_know():
    found = median_between([3.0, 1.0, 2.0])
    assert (found.value, found.low, found.high, found.coverage) == (2.0, 1.0, 3.0, 0.75)
    assert median_between([1.0]).coverage == 0
    with pytest.raises(ValueError, match="needs values"):
        median_between([])


def test_ratios_are_of_one_turn():
    """A machine that slows down for everybody changes no ratio; medians divided by each other would not know."""
    noise = [1, 5, 1, 1, 9, 1, 7, 1, 1]
    found = ratios([2.0 * n for n in noise], [1.0 * n for n in noise])
    assert (found.value, found.low, found.high) == (2, 2, 2)


# ------------------------------------------------------------------------------------------------- turns


def test_every_way_begins_as_often_as_the_others():
    order = []
    ways = {name: partial(order.append, name) for name in "abc"}
    clock = iter(itertools.count())
    times = take_turns(ways, 3, lambda call: (call(), next(clock))[1], warm=3)
    assert [order[i] for i in range(0, 18, 3)] == list("abcabc")
    assert sorted(order) == sorted("abc" * 6)
    assert all(len(spent) == 3 for spent in times.values()) and min(sum(times.values(), [])) == 9, "warm turns counted"


def sleeping(seconds):
    return partial(time.sleep, seconds)


def test_a_planted_slow_down_is_seen():
    row = Row("planted", {"ours": partial(sleeping, 0.002), "same": partial(sleeping, 0.002),
                          "slower": partial(sleeping, 0.006)}, "naps", memory=False)
    found = measure_row(row, replace(QUICK, repeats=9))["ways"]
    assert found["slower"]["ratio"]["low"] > 1.5
    assert found["same"]["ratio"]["low"] < 1.2
    said = headline({"planted": {"rivals": True, "ways": {**found, "same": {"ratio": {"low": 0.9, "high": 1.1}}}}})
    assert "ours faster in 1, slower in 0, undecided in 1" in said


def test_processor_time_does_not_count_naps_and_counts_children():
    assert Clock(kind="cpu")(sleeping(0.05)) < 0.04 <= Clock()(sleeping(0.05))


# ------------------------------------------------------------------------------------------------- equality

STAGES = [("pretrain", "image", False), ("pretrain", "clip", False), ("finetune", "image", False),
          ("finetune", "clip", False), ("finetune", "clip", True), ("finetune", "image", True),
          ("predict", "clip", False), ("predict", "clip", True)]


@pytest.mark.parametrize(("stage", "modality", "experts"), STAGES)
def test_the_textbook_is_ours(stage, modality, experts):
    found = differences(Task(stage, modality, "nano", 3, experts=experts))
    scale = found.pop("scale", 1)
    assert found.pop("gradient", 0) < 1e-5 * max(1, scale) and all(value < 1e-5 for value in found.values())


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_positions_of_other_sizes_are_ours(size):
    s = resolve_size(size)
    theirs = load_script(TEXTBOOK).positions(asdict(s), s.dim)
    torch.testing.assert_close(theirs, position_table(s.grid, s.dim, s.positions), atol=1e-6, rtol=0)


def test_a_changed_weight_is_a_difference(monkeypatch):
    """The control: networks that are not equal do not look so."""
    def nudged(model, twin=networks.textbook_twin):
        found = twin(model)
        with torch.no_grad():
            found.blocks[-1].mlp.fc2.bias[0] += 0.01
        return found

    monkeypatch.setattr(networks, "textbook_twin", nudged)
    assert differences(NANO)["answer"] > 1e-4


@pytest.mark.parametrize("mixing", [parts.Mixing(32, 8, 2, 64), parts.Mixing(32, 4, 1, 37), parts.Mixing(32, 4, 4, 16)])
def test_the_layer_of_experts_is_the_textbook_s(mixing):
    assert max(parts.layer_differences(mixing).values()) < 1e-5


def test_a_test_of_several_looks_gives_the_same_probabilities():
    task = Task("predict", "clip", "nano", 2)
    ours, plain = (parts.looks_call(way, task)() for way in ("ours", "textbook"))
    np.testing.assert_allclose(ours[0], plain.numpy(), atol=1e-6)


def test_operations_are_those_of_the_arithmetic():
    """Fine-tuning a nano clip: forward counted by hand, backward twice that, but for the picture."""
    tokens, d, depth = 4 * 16, 64, 4
    forward = depth * (24 * tokens * d**2 + 4 * tokens**2 * d) + 2 * d * networks.CLASSES
    embedding = 2 * tokens * 3 * 2 * 12 * 12 * d
    assert networks.operations(NANO) == pytest.approx(2 * (3 * forward + 2 * embedding) / 1e12, rel=0.01)


# ------------------------------------------------------------------------------------------------- memory


def holding(megabytes):
    def call():
        torch.ones(megabytes * 250_000)

    return call


@pytest.mark.spawns
def test_memory_is_that_of_one_way_alone():
    """A large way before a small one leaves no trace, although this process has held more by then."""
    kept = torch.ones(300 * 250_000)
    large, small, none = (memory.fresh_peak_mb(partial(_made, holding, mb)) for mb in (200, 40, 1))
    assert large > 190 and 35 < small < large / 2 and none < 30, (large, small, none)
    assert memory.fresh_peak_mb(partial(_ends, 7)) is None
    del kept


def _made(kind, megabytes):
    return kind(megabytes)


def _ends(code):
    import os

    os._exit(code)


# ------------------------------------------------------------------------------------------------- rows and record


def test_a_row_without_rivals_is_told_and_not_drawn():
    ratio = {"value": 1.1, "low": 1.05, "high": 1.2, "coverage": 0.96}
    way = {"seconds": 0.5, "per_second": 4.0}
    rows = {"inference": {"rivals": True, "unit": "clips", "ways": {
        "ours": way, "textbook": way | {"ratio": ratio}, "another": way | {"ratio": ratio | {"low": 0.9}}}},
        "reading": {"rivals": False, "unit": "clips", "ways": {"ours": way, "decord": way | {"ratio": ratio}}},
        "broken": {"error": "planted | with a bar"}}
    figure = draw_bench(rows, "how fast")
    assert {trace.name for trace in figure.data} == {"textbook", "another"}
    assert "2 comparisons" in figure.layout.meta["alt"] and "1 lie right" in figure.layout.meta["alt"]
    assert figure.layout.shapes[0].x0 == 1
    record = empty_record(rows)
    assert [cells[0] for cells in cells_of(record)] == ["inference", "", "reading", "broken"]
    assert {line.count(" | ") for line in as_markdown(record)} == {8}
    with pytest.raises(Refused, match="clone"):
        draw_bench({"reading": rows["reading"]}, "nothing to compare")


def empty_record(rows):
    return Record(name="bench", kind="benchmark", headline=headline(rows), results={"rows": rows}, wall_seconds=0,
                  peak_memory_mb=0)


def test_rows_are_asked_for_by_words():
    rows = all_rows(Settings())
    assert len({row.name for row in rows}) == len(rows)
    names = [row.name for row in chosen(rows, ["clips experts bf16", "import"])]
    assert names == ["fine-tuning clips with experts batch 2 bf16", "import s4d_lib"]
    with pytest.raises(Refused, match="'clips fp8'.*bf16"):
        chosen(rows, ["clips fp8"])
    for word in ("pretraining", "MoAE", "looks", "decode", "loader", "detection", "predict", "import", "checkpoint"):
        assert chosen(rows, [word]), word


def counted(calls, name, seconds=0.0):
    def make():
        calls.append(name)
        if seconds < 0:
            raise RuntimeError("planted")
        return sleeping(seconds)

    return make


def test_a_stopped_benchmark_goes_on_and_a_failed_row_is_tried_again(tmp_path):
    calls, path = [], tmp_path / "bench.json"
    rows = [Row(name, {"ours": counted(calls, name, -1 if name == "bad" else 0)}, "naps", memory=False)
            for name in ("one", "bad", "two")]
    found = measure(rows[:2], QUICK, path)
    assert "RuntimeError: planted" in found.results["rows"]["bad"]["error"] and "1 rows failed" in found.headline
    rows[1] = replace(rows[1], ways={"ours": counted(calls, "bad")})
    measure(rows, QUICK, path)
    assert calls == ["one", "bad", "bad", "two"] and set(read_record(path).results["rows"]) == {"one", "bad", "two"}
    with pytest.raises(Refused, match="repeats 3, now 4.*--anew"):
        measure(rows, replace(QUICK, repeats=4), path)
    measure(rows[:1], replace(QUICK, repeats=4), path, anew=True)
    assert set(read_record(path).results["rows"]) == {"one"}


def test_a_benchmark_beside_the_library_can_be_a_row(monkeypatch, tmp_path):
    path = tmp_path / "planted_steps.py"
    path.write_text("def step_ratio(kind, repeats):\n"
                    "    return {'loop_ms': 12.0, 'bare_ms': 10.0, 'ratios': [1.2] * repeats}\n")
    monkeypatch.setattr(chores, "SMALL_STEPS", path)
    [row] = chosen(all_rows(replace(QUICK, quick=False)), ["small nano joint"])
    ways = measure_row(row, QUICK)["ways"]
    assert ways["ours"]["seconds"] == 0.012 and ways["its arithmetic"]["ratio"]["value"] == pytest.approx(1 / 1.2)
    monkeypatch.setattr(chores, "SMALL_STEPS", tmp_path / "none.py")
    with pytest.raises(Refused):
        chosen(all_rows(replace(QUICK, quick=False)), ["small nano joint"])


@pytest.mark.spawns
def test_the_command_measures_writes_and_prints(tmp_path):
    path = tmp_path / "bench.json"
    words = ["bench", "--quick", "--threads", "1", "--precision", "no", "--rows", "inference stills", "--rows",
             "decode", "--json", str(path)]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    record = read_record(path)
    row = record.results["rows"]["inference stills batch 2 float32"]
    assert row["differences"]["answer"] < 1e-5 and row["tflop"] > 0 and row["matmul_gflops"] > 0
    ours, textbook = row["ways"]["ours"], row["ways"]["textbook"]
    assert len(ours["times"]) == 3 and 0 < ours["of_matmul"]["value"] < 2 and 5 < ours["peak_mb"] < 400
    assert between(textbook["ratio"]) in said.output.replace("\n", " ") and record.kind == "benchmark"
    assert any(cells[0].startswith("decode") for cells in cells_of(record))
    before = path.read_bytes()
    CliRunner().invoke(app, words)
    assert path.read_bytes() == before, "what is there is not measured again"


def test_wrong_words_are_refused(tmp_path):
    for words in (["--clock", "sun"], ["--precision", "fp8"], ["--rows", "nothing"], ["--size", "huge"]):
        with pytest.raises(Refused):
            CliRunner().invoke(app, ["bench", "--quick", *words], catch_exceptions=False)


def test_without_the_repository_ours_is_measured_alone(monkeypatch, tmp_path):
    from s4d_lib.bench import baselines

    monkeypatch.setattr(baselines, "TEXTBOOK", tmp_path / "none.py")
    assert "missing" in available()["textbook"] and "repository" in available()["textbook"]
    assert "textbook" not in networks.ways_of(NANO)
    [row] = chosen(all_rows(QUICK), ["inference clips"])
    assert "differences" not in measure_row(replace(row, memory=False), QUICK)


# ------------------------------------------------------------------------------------------------- growth


def test_exponents_of_costs_are_slopes():
    """Exact powers give their exponent whatever slows a whole turn; with a fixed part beside it, less than that."""
    costs_by_size = load_script(TEXTBOOK.with_name("costs_by_size.py"))
    values, slow = [1, 2, 4, 8], np.array([1, 3, 1, 1, 2, 1, 5, 1, 1])
    found = costs_by_size.exponent(values, np.outer(np.power(values, 1.7), slow))
    assert [found[key] for key in ("value", "low", "high")] == pytest.approx([1.7] * 3)
    assert costs_by_size.exponent(values, np.outer(4 + np.power(values, 1.7), slow))["value"] < 1.2
