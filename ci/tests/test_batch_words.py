"""Words → points, slots, tables: what stands after -p, --sweep and --gpus, and what is refused with a suggestion."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from toy_chapters import RECORD, write_chapter

from s4d_lib.batch import slots as batch_slots
from s4d_lib.batch.chapters import (
    ChapterError,
    chapter_parameters,
    code_cells,
    find_chapters,
    merge_parameters,
    read_chapter,
)
from s4d_lib.batch.runner import plan_runs
from s4d_lib.batch.slots import gpu_slots
from s4d_lib.batch.status import point_label
from s4d_lib.batch.table import print_table, write_tables
from s4d_lib.batch.view import View
from s4d_lib.batch.words import read_setting, read_settings, read_sweeps, read_value

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"

# ------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("word", "value"),
    [("3", 3), ("1e-3", 0.001), ("-2.5", -2.5), ("true", True), ("True", True), ("smoke", "smoke"), ("null", None),
     ("[0, 1]", [0, 1]), ("'3'", "3"), ("a b", "a b"), ("{a: 1}", {"a": 1}), ("/data/DFEW", "/data/DFEW"), ("", None)],
)
def test_a_value_is_python_or_else_yaml(word, value):
    found = read_value(word)
    assert found == value and type(found) is type(value)


@example('\'"')
@example("\\")
@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans()
       | st.lists(st.integers() | st.text(max_size=3)))
def test_what_python_prints_of_a_value_is_read_back(value):
    assert read_value(repr(value)) == value
    assert read_sweeps([f"x={value!r},'another'"])[0] == {"x": value}


@pytest.mark.parametrize("word", ["lr", "=3", "a b=3", "3=a"])
def test_a_setting_needs_a_name_and_a_value(word):
    with pytest.raises(ChapterError, match="takes name=value"):
        read_setting(word)


def test_a_name_twice_is_refused():
    assert read_settings(["a=1", "b=x=y"]) == {"a": 1, "b": "x=y"}
    for refused in (lambda: read_settings(["a=1", "a=2"]), lambda: read_sweeps(["a=1,2", "a=3"])):
        with pytest.raises(ChapterError, match="a is given twice"):
            refused()


def test_sweeps_span_every_combination_the_last_axis_first():
    assert read_sweeps([]) == [{}]
    points = read_sweeps(["fold=1,2,3", "lr=1e-3,0.01"])
    assert len(points) == 6 and points[:3] == [{"fold": 1, "lr": 0.001}, {"fold": 1, "lr": 0.01},
                                               {"fold": 2, "lr": 0.001}]
    assert read_sweeps(["ratios=[0.5,0.9],[0.75]"]) == [{"ratios": [0.5, 0.9]}, {"ratios": [0.75]}]


@pytest.mark.parametrize(("sweep", "said"), [("fold=1,,2", "value 2 is empty"), ("fold=1,2,1", "1 is there twice"),
                                             ("fold=", "value 1 is empty"), ("a=" + ",".join(map(str, range(10_001))),
                                                                             "at most 10,000")])
def test_a_sweep_with_holes_doubles_or_far_too_many_points_is_refused(sweep, said):
    with pytest.raises(ChapterError, match=said):
        read_sweeps([sweep])


def test_a_point_names_a_folder_whatever_its_values_are():
    assert point_label({"fold": 1, "lr": 0.001, "name": "a-b"}) == "fold=1,lr=0.001,name=a-b"
    odd = [point_label({"x": value}) for value in ("a/b", "a b", "ä" * 30, [1, 2], [1, 3], "..\0")]
    assert len(set(odd)) == 6 and all(set(label) <= set("x=0123456789abcdef") for label in odd)


# --------------------------------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"sedes": [1]}, "unknown parameter 'sedes', did you mean 'seeds'"),
     ({"zzz": 1}, "unknown parameter 'zzz'; it has"),
     ({"seeds": 1}, r"say seeds='\[1\]'"), ({"seeds": ["0"]}, "not"), ({"name": 5}, "say name='\"5\"'"),
     ({"epochs": 3.0}, "say epochs=3"), ({"epochs": [3]}, "say epochs=3"), ({"flip": 1}, "flip=true or flip=false")],
)
def test_a_wrong_name_or_type_is_answered_with_a_suggestion(asked, said):
    defaults = {"epochs": 3, "seeds": [0, 1], "name": "x", "flip": True}
    with pytest.raises(ChapterError, match=said):
        merge_parameters(defaults, asked, "07")
    assert merge_parameters(defaults, {"seeds": [], "name": "5"}, "07") == defaults | {"seeds": [], "name": "5"}


def test_a_parameter_of_some_chapters_names_those_that_have_it(tmp_path):
    write_chapter(tmp_path, "01_a", RECORD)
    write_chapter(tmp_path, "02_b", RECORD, parameters="fold = 1")
    with pytest.raises(ChapterError, match="01_a has no parameter 'fold'; name the chapters that have it: 02_b"):
        plan_runs(tmp_path, tmp_path, "smoke", given={"fold": 2})
    with pytest.raises(ChapterError, match="name the chapters that have it: 02_b"):
        plan_runs(tmp_path, tmp_path, "smoke", points=read_sweeps(["fold=1,2"]))
    with pytest.raises(ChapterError, match="both set and swept"):
        plan_runs(tmp_path, tmp_path, "smoke", ["02"], {"fold": 2}, read_sweeps(["fold=1,2"]))


@pytest.mark.spawns
def test_the_refusal_imports_nothing_heavy(tmp_path):
    """A wrong name costs a second because neither torch nor the notebook tools are imported to find it."""
    write_chapter(tmp_path / "chapters", "01_a", RECORD)
    program = """
import sys
sys.argv = ["s4d", "book", "-p", "cuont=1", "--sweep", "count=1,2", "--gpus", "none"]
from s4d_lib.cli import app
try:
    app.main()
except SystemExit as end:
    print(end.code, [m for m in ("torch", "jupytext", "nbformat", "papermill", "plotly") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 []\n" and "did you mean 'count'" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "chapters"]


@pytest.mark.parametrize("path", find_chapters(CHAPTERS), ids=lambda path: path.stem)
def test_our_reader_of_code_cells_finds_what_jupytext_finds(path):
    slow = [(cell.source.rstrip(), cell.metadata.get("tags", [])) for cell in read_chapter(path).cells
            if cell.cell_type == "code"]
    assert [(cell["source"].rstrip(), cell["metadata"]["tags"]) for cell in code_cells(path.read_text())] == slow


def test_our_reader_and_jupytext_agree_on_odd_notation(tmp_path):
    text = write_chapter(tmp_path, "01_a", RECORD).read_text() + """
````{note}
```{code-cell} ipython3
not = "a cell"
```
````

```python
also = "not a cell"
```

```{code-cell} ipython3
---
tags: [parameters, hide-input]
label: x
---

x = 1

text = '''
``
'''
```

```{code-cell}
```
"""
    (tmp_path / "02_b.md").write_text(text)
    slow = [(cell.source, cell.metadata.get("tags", [])) for cell in read_chapter(tmp_path / "02_b.md").cells
            if cell.cell_type == "code"]
    assert [(cell["source"], cell["metadata"]["tags"]) for cell in code_cells(text)] == slow
    assert len(slow) == 4 and chapter_parameters(code_cells(text)[2:], "b")["x"] == 1


# --------------------------------------------------------------------------------------------------------------- slots


@pytest.mark.parametrize(
    ("jobs", "gpus", "slots"),
    [(None, None, [None, None]), (3, None, [None] * 3), (None, "none", ["", ""]), (None, "0,1,5", ["0", "1", "5"]),
     (1, "0,1,2", ["0,1,2"]), (2, "0,1,2,3,4", ["0,1,2", "3,4"]), (3, "1,0", ["1", "0", "1"]),
     (3, "0,1,2,3,4,5,6,7", ["0,1,2", "3,4,5", "6,7"]),
     (1, "GPU-aa, MIG-bb", ["GPU-aa,MIG-bb"])],
)
def test_devices_are_shared_out_over_the_jobs(monkeypatch, jobs, gpus, slots):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(batch_slots, "nvidia_smi", lambda _: None)
    assert gpu_slots(jobs, gpus) == slots


@pytest.mark.parametrize(("gpus", "said"), [("0,0", "twice"), ("0,,1", "takes device numbers"), ("", "takes"),
                                            ("0,7", "no device '7' here; there are: 0, GPU-aa, 1, GPU-bb")])
def test_devices_named_twice_or_not_there_are_refused(monkeypatch, gpus, said):
    """A run on a device that is not there would train on the CPU and say nothing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(batch_slots, "nvidia_smi", lambda _: [["0", "GPU-aa"], ["1", "GPU-bb"]])
    with pytest.raises(ChapterError, match=said):
        gpu_slots(None, gpus)


def test_what_a_scheduler_hid_cannot_be_taken(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert gpu_slots(None, "5") == ["5"]
    with pytest.raises(ChapterError, match="there are: 4, 5"):
        gpu_slots(None, "0")


def test_the_driver_is_asked_by_its_own_program(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = "--query-gpu=index,uuid" ] || exit 3\necho "0, GPU-aa"\necho "1, GPU-bb"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert batch_slots.nvidia_smi("index,uuid") == [["0", "GPU-aa"], ["1", "GPU-bb"]]
    assert batch_slots.nvidia_smi("nonsense") is None


# -------------------------------------------------------------------------------------------------------------- tables


def test_the_table_is_written_as_text_json_and_a_page_that_can_be_published(tmp_path):
    write_chapter(tmp_path / "chapters", "01_a", RECORD)
    runs = plan_runs(tmp_path / "chapters", tmp_path, "smoke", points=read_sweeps(["count=1,2,3"]))
    runs[0].status, runs[0].headline, runs[0].seconds, runs[0].peak_memory_mb = "done", "UAR <50>", 61.4, 1234.5
    runs[1].status, runs[1].cause, runs[1].reason = "failed", "disk full", f"OSError: {runs[1].folder}/x: no room"
    written = write_tables(runs, tmp_path / "tables")
    assert [path.name for path in written] == ["table.txt", "table.json", "table.html"]
    text, rows, page = written[0].read_text(), json.loads(written[1].read_text())["runs"], written[2].read_text()
    assert [(row["point"]["count"], row["status"], row["cause"]) for row in rows] == [
        (1, "done", ""), (2, "failed", "disk full"), (3, "waiting", "")]
    assert rows[0]["seconds"] == 61.4 and rows[0]["peak_memory_mb"] == 1234.5
    for words in (text, page):
        assert "disk full" in words and "01_a@count=3" in words
    assert "UAR &lt;50&gt;" in page and "<script" not in page and "http" not in page
    for words in (text, page, json.dumps(rows)):
        assert str(tmp_path) not in words


def test_what_is_printed_says_where_to_read_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write_chapter(tmp_path / "chapters", "01_a", RECORD)
    (run,) = plan_runs(tmp_path / "chapters", tmp_path, "smoke")
    run.status, run.cause, run.reason = "failed", "error", "ValueError: [red]lamp[/red]"
    print_table([run])
    printed = capsys.readouterr().out
    assert "[red]lamp[/red]" in printed and f"01_a: failed; read {run.folder}/log.txt" in printed
    assert "1 runs: 1 failed" in printed


def test_progress_is_a_table_in_a_terminal_and_now_and_then_a_line_in_a_log(tmp_path):
    write_chapter(tmp_path / "chapters", "01_a", RECORD)
    runs = plan_runs(tmp_path / "chapters", tmp_path, "smoke", points=read_sweeps(["count=1,2,3"]))
    runs[0].status, runs[0].cell, runs[0].cells, runs[0].seconds, runs[0].gpus = "running", 4, 9, 12.0, "5"
    runs[1].status, runs[1].cause = "failed", "disk full"
    for terminal in (True, False):
        said = io.StringIO()
        with View(runs, every=0.0) as view:
            if view._live:  # the tests may be run in a terminal
                view._live.stop()
            view.console = Console(file=said, force_terminal=terminal, width=100, color_system=None)
            view._live = None
            if terminal:
                view.console.print(view._table(runs[:1], 1))
            else:
                view.show(runs[:1], 1)
        assert "1 of 3 ended, 1 of them not well; 1 waiting" in said.getvalue()
        assert ("4/9" if terminal else "01_a@count=1: cell 4 of 9, 12 s") in said.getvalue()
    quiet = io.StringIO()
    view = View(runs, every=600.0)
    view.console = Console(file=quiet, force_terminal=False)
    view.show(runs[:1], 1)
    assert quiet.getvalue() == ""
