"""Progress where it is read: few lines in a log, a bar in a terminal, one line in a notebook, all of it in a relay.

The terminal is a pseudo-terminal, the notebook a kernel of Jupyter's own.
"""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from jupyter_client.manager import start_new_kernel

from s4d_lib.progress import RELAY, RELAYED, Progress

TRAIN = """
from s4d_lib.progress import Progress
with Progress(4, "training", done=1) as bar:
    for _ in range(3):
        bar.update(loss=0.25)
"""
BROKEN = TRAIN + "        raise RuntimeError"

# ------------------------------------------------------------------------------------------------------------- a log


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


def test_words_stand_in_the_place_of_values(capsys):
    with Progress(2, "cropping") as bar:
        bar.update(note="  a.mp4", loss=0.25)
    assert "cropping 1/2  a.mp4" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- a terminal


def in_a_terminal(program: str) -> tuple[int, str, str]:
    """Exit code, standard output and what a program wrote to a terminal, which its standard error is."""
    above, below = pty.openpty()
    fcntl.ioctl(below, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # lines and columns: a new one has none
    environment = {name: value for name, value in os.environ.items() if name != RELAY}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=below, text=True,
                          env=environment) as process:
        os.close(below)
        shown = b""
        while part := read_terminal(above):
            shown += part
        said = process.stdout.read()
    os.close(above)
    return process.returncode, said, shown.decode()


def read_terminal(above: int) -> bytes:
    try:
        return os.read(above, 65536)
    except OSError:  # Linux says so when nobody holds the other side any more
        return b""


def test_a_terminal_gets_one_bar_that_is_drawn_over():
    code, said, shown = in_a_terminal(TRAIN)
    assert code == 0 and said == ""
    states = [state for state in re.split(r"[\r\n]+", shown) if state.strip()]
    assert states[0].startswith("training:  25%") and "1/4" in states[0], "a resumed run begins where it was"
    assert states[-1].startswith("training: 100%") and "4/4" in states[-1] and "loss 0.250" in states[-1]
    assert shown.rstrip("\r\n").count("\n") == 0, "a bar is one line"


def test_a_bar_that_an_error_ends_stays_where_it_was():
    code, _, shown = in_a_terminal(BROKEN)
    bar, _, trace = shown.partition("Traceback")
    assert code == 1 and "RuntimeError" in trace
    assert "2/4" in bar and "4/4" not in bar


# -------------------------------------------------------------------------------------------------------- a notebook


@pytest.fixture(scope="module")
def run_cell():
    """`run_cell(source)` → the messages with which a kernel shows something, in their order."""
    manager, client = start_new_kernel(env={name: value for name, value in os.environ.items() if name != RELAY})

    def run(source: str) -> list[dict]:
        messages: list[dict] = []
        client.execute_interactive(source, timeout=60, output_hook=messages.append)
        return [message for message in messages if message["msg_type"] not in ("status", "execute_input")]

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def lines_of(messages: list[dict]) -> list[str]:
    """The states of the one line that a cell shows; each replaces the one before."""
    shown = [message["content"] for message in messages if message["msg_type"].endswith("display_data")]
    assert len({content["transient"]["display_id"] for content in shown}) == 1, "one output, replaced in place"
    assert all(set(content["data"]) == {"text/plain"} for content in shown), "words, and no widget"
    return [content["data"]["text/plain"] for content in shown]


def test_a_notebook_gets_one_line_that_ends_without_a_time(run_cell):
    messages = run_cell(TRAIN)
    kinds = [message["msg_type"] for message in messages]
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"}, "nothing on the two channels"
    first, *between, last = lines_of(messages)
    assert re.fullmatch(r"training 1/4  \d+ s", first)
    assert between and all(re.fullmatch(r"training \d/4  loss 0\.250  \d+ s", line) for line in between)
    assert last == "training 4/4  loss 0.250", "what is stored is the same in every run"


def test_a_line_that_an_error_ends_stays_where_it_was(run_cell):
    messages = run_cell(BROKEN)
    assert messages[-1]["msg_type"] == "error" and messages[-1]["content"]["ename"] == "RuntimeError"
    assert lines_of(messages)[-1] == "training 2/4  loss 0.250"


# ----------------------------------------------------------------------------------------------------------- a relay


def test_a_relay_says_to_another_process_what_was_counted(capsys, monkeypatch):
    monkeypatch.setenv(RELAY, "1")
    with Progress(1000, "training", done=7) as bar:
        for _ in range(993):
            bar.update(loss=0.25)
    out, err = capsys.readouterr()
    lines = out.removesuffix("\n").split("\n")  # splitlines() would split at the mark, too
    assert err == "" and all(line.startswith(RELAYED) for line in lines)
    told = [json.loads(line.removeprefix(RELAYED)) for line in lines]
    assert told[0] == ["training", 8, 1000, "  loss 0.250"]
    assert told[-1] == ["training", 1000, 1000, "  loss 0.250"]
    assert len(told) < 100, "now and then, not with every step"


@pytest.mark.parametrize("relayed", [False, True])
def test_the_silent_process_of_several_counts_and_says_nothing(capsys, monkeypatch, relayed):
    if relayed:
        monkeypatch.setenv(RELAY, "1")
    with Progress(3, "training", silent=True) as bar:
        bar.update(3, loss=0.25)
    assert bar.done == 3 and capsys.readouterr() == ("", "")
