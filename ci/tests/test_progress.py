"""Progress in a log: few lines, the last one with the whole count; nothing half-said after an error."""

import pytest

from s4d_lib.progress import Progress


def test_a_log_gets_a_first_and_a_last_line_and_few_between(capsys):
    with Progress(1000, "training", every_seconds=60) as bar:
        for _ in range(1000):
            bar.update(loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("training 1/1000  loss 0.250") and lines[-1].startswith("training 1000/1000")


def test_a_resumed_run_counts_from_where_it_was(capsys):
    with Progress(10, "training", done=7) as bar:
        bar.update(3)
    assert "training 10/10" in capsys.readouterr().err


def test_an_error_is_not_followed_by_a_line_that_looks_like_success(capsys):
    with pytest.raises(RuntimeError), Progress(10, "training"):
        raise RuntimeError
    assert capsys.readouterr().err == ""
