"""metrics.jsonl → curves: every number once, also while a run trains, and a clear word without TensorBoard."""

import json
import sys

import pytest

from s4d_lib.cli.training import curves
from s4d_lib.training.curves import read_curves, to_tensorboard

STEPS = [{"update": i, "epoch": (i - 1) // 2, "modality": "image" if i % 2 else "clip", "loss": 3.0 / i, "lr": 0.1 * i}
         for i in (1, 2, 3)]
VALIDATED = {"update": 2, "epoch": 1, "clip_war": 41.0}


class Writer:
    """What the test sees of a SummaryWriter."""

    written: list[tuple[str, float, int]] = []

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add_scalar(self, name, value, update):
        Writer.written.append((name, value, update))

    def flush(self):
        pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of three steps, its last line half written; TensorBoard is a list."""
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    Writer.written = []
    folder = tmp_path / "dfer-0123"
    folder.mkdir()
    lines = [STEPS[0], STEPS[1], VALIDATED, STEPS[2]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"update": 4, "lo')
    return folder


def test_every_number_of_every_step_is_a_point_and_half_a_line_is_none(run):
    points, lines = read_curves(run)
    assert ("loss/image", 1, 3.0) in points and ("loss/clip", 2, 1.5) in points and ("clip_war", 2, 41.0) in points
    assert lines == 4 and len(points) == 7
    assert not [name for name, _, _ in points if name.startswith(("epoch", "update"))]


def test_a_second_call_writes_what_is_new_and_nothing_twice(run, tmp_path):
    assert to_tensorboard(run, tmp_path / "events") == 7
    assert to_tensorboard(run, tmp_path / "events") == 0
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text + 'ss": 0.5}\n' + json.dumps({"update": 4, "clip_uar": 30.0}) + "\n")
    assert to_tensorboard(run, tmp_path / "events") == 2
    assert Writer.written[-2:] == [("loss", 0.5, 4), ("clip_uar", 30.0, 4)]
    (run / "metrics.jsonl").write_text("")  # a killed run goes on: its last lines are cut, and come again
    assert to_tensorboard(run, tmp_path / "events") == 0


def test_following_ends_when_the_run_has_its_record(run, tmp_path):
    text, turns = (run / "metrics.jsonl").read_text(), []

    def train_on():
        turns.append(len(Writer.written))
        (run / "metrics.jsonl").write_text(text + 'ss": 0.5}\n' + json.dumps({"update": 5, "loss": 0.4}) + "\n")
        if len(turns) == 2:
            (run / "record.json").write_text("{}")

    assert to_tensorboard(run, tmp_path / "events", follow=True, pause=train_on) == 9
    assert turns == [7, 9], "the lines that came in between were written before the next pause"


def test_the_real_writer_s_file_reads_back_as_it_was_written(run, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    to_tensorboard(run, tmp_path / "events")
    read = EventAccumulator(str(tmp_path / "events" / run.name))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss/image")] == [(1, 3.0), (3, 1.0)]
    assert read.Scalars("clip_war")[0].value == 41.0


def test_what_is_missing_is_said(tmp_path, run, monkeypatch):
    with pytest.raises(ValueError, match=r"holds no metrics\.jsonl"):
        to_tensorboard(tmp_path, tmp_path / "events")
    assert not (tmp_path / "events").exists()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 's4d-book\[curves\]'"):
        curves(run, tmp_path / "events")
