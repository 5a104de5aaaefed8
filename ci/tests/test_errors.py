"""Mistakes → one sentence and exit code 2; defects → a traceback, wherever in the library they stand."""

import ast
import errno
import json
import sys

import pytest

from s4d_lib.cli import app
from s4d_lib.errors import Refused
from s4d_lib.files import PACKAGE
from s4d_lib.training import curves


def in_a_folder_below(statement: str):
    """A function of a file s4d_lib/wing/deep.py that does this, whatever it is given."""
    space: dict = {}
    exec(compile(f"def act(*_, **__):\n    {statement}", str(PACKAGE / "wing" / "deep.py"), "exec"),
         {"Refused": Refused, "json": json}, space)
    return space["act"]


def s4d(monkeypatch, act) -> None:
    """`s4d curves`, whose work is done by `act`."""
    monkeypatch.setattr(curves, "to_tensorboard", act)
    monkeypatch.setattr(sys, "argv", ["s4d", "curves", "run", "--tensorboard", "events"])
    app.main()


@pytest.mark.parametrize(("statement", "said"), [
    ("raise Refused('run: holds no steps;\\n   train it first')", "s4d: run: holds no steps; train it first\n"),
    ("raise Refused('bad \\x1b[31mname')", "s4d: bad \\x1b[31mname\n"),
    ("open('no such file')", f"s4d: [Errno {errno.ENOENT}] No such file or directory: 'no such file'\n"),
])
def test_a_mistake_is_one_sentence_from_any_folder_of_the_library(monkeypatch, capsys, statement, said):
    with pytest.raises(SystemExit) as left:
        s4d(monkeypatch, in_a_folder_below(statement))
    assert left.value.code == 2 and capsys.readouterr() == ("", said)


@pytest.mark.parametrize("statement", [
    "raise ValueError('an impossible state')",  # what the library finds wrong with itself
    "int('a')",                                 # what Python finds wrong with a call of ours
    "json.loads('{')",                          # what another package does
])
def test_a_defect_keeps_its_traceback(monkeypatch, capsys, statement):
    with pytest.raises(ValueError) as error:
        s4d(monkeypatch, in_a_folder_below(statement))
    assert not isinstance(error.value, Refused) and capsys.readouterr().err == ""
    assert str(PACKAGE / "wing" / "deep.py") in [str(entry.path) for entry in error.traceback]


def test_every_error_of_our_own_about_input_is_a_refusal():
    bases = {node.name: [base.id for base in node.bases if isinstance(base, ast.Name)] for path in PACKAGE.rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)}
    assert [name for name, of in bases.items() if "ValueError" in of] == ["Refused"]
    assert {"BadCheckpoint", "ChapterError", "InvalidRecord", "UnreadableMedia"} <= {
        name for name, of in bases.items() if "Refused" in of}
