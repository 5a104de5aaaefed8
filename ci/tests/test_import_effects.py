"""Importing a file of the library changes nothing but timm's list of models: as written, and as seen from outside."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "s4d_lib"
FILES = sorted(path for path in LIBRARY.rglob("*.py") if path.stem != "__main__")
ALLOWED = {"__init__.py": ["register_with_timm()"], "registry.py": ["register()"]}  # what these two files are there for


def at_import(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a file is imported; not those of `if TYPE_CHECKING` and `if __name__ == …`."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test).partition(" ")[0] in ("TYPE_CHECKING", "__name__"):
            continue
        yield node
        if not isinstance(node, ast.FunctionDef):
            yield from at_import([part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)])


def root(node: ast.expr) -> str:
    """The name at the left end of `a.b[c](d).e`."""
    while not isinstance(node, ast.Name):
        node = getattr(node, "value", None) or getattr(node, "func", None)
        if node is None:
            return ""
    return node.id


def effects(text: str) -> list[str]:
    """Statements that change something which is there already: a table after its expression, another file's object."""
    statements = list(at_import(ast.parse(text).body))
    own = {node.id for statement in statements if isinstance(statement, (ast.Assign, ast.AnnAssign))
           for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {statement.name for statement in statements if isinstance(statement, (ast.FunctionDef, ast.ClassDef))}
    found = []
    for statement in statements:
        if isinstance(statement, (ast.AugAssign, ast.Delete, ast.Global)):
            found.append(statement)
        elif isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant):
            call = statement.value
            method = isinstance(call, ast.Call) and not isinstance(call.func, ast.Name) and root(call) in own
            tables = isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("append", "update", "extend")
            found += [] if method and not tables else [statement]
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found += [statement for target in targets if isinstance(target, ast.Subscript)
                      or isinstance(target, ast.Attribute) and root(target) not in own]
    return [ast.unparse(statement) for statement in found]


def test_no_file_changes_anything_when_it_is_imported():
    found = {str(path.relative_to(LIBRARY)): changed for path in FILES if (changed := effects(path.read_text()))}
    assert found == ALLOWED


@pytest.mark.parametrize("line", [
    "METHODS = {}\nMETHODS |= {'joint': 1}", "SOURCES = {}\nSOURCES['packed'] = print", "NAMES = []\nNAMES.append('a')",
    "import os\nos.register_at_fork(before=print)", "import torch\ntorch.backends.cudnn.benchmark = True",
    "from timm.models import register_model\nregister_model(print)", "import os\nif True:\n    os.environ['A'] = '1'",
    "import atexit\nclass Reader:\n    atexit.register(print)"])
def test_the_control_such_lines_are_seen(line):
    assert effects(line) == [line.split("\n")[-1].strip()]
    assert effects(f"{line.partition(chr(10))[0]}\ndef later():\n    {line.split(chr(10))[-1].strip()}") == []


WATCH = """
import atexit, gc, hashlib, importlib, json, os, random, signal, sys, threading, warnings
theirs, ours = json.loads(sys.argv[1])
for name in theirs:
    importlib.import_module(name)
import numpy, timm, torch

def state():
    numbers = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return {
        "finders": [str(finder) for finder in sys.meta_path], "path": list(sys.path), "environment": dict(os.environ),
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "at exit": atexit._ncallbacks(), "threads": threading.active_count(), "errors": str(sys.excepthook),
        "garbage": [gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()], "warnings": len(warnings.filters),
        "torch": [str(torch.get_default_dtype()), torch.get_num_threads(), torch.is_grad_enabled()],
        "random": hashlib.sha256(str(numbers).encode()).hexdigest(), "at fork": len(forks),
        "models": len(timm.list_models("s?d_vit*"))}

forks, register = [], os.register_at_fork
os.register_at_fork = lambda **hooks: (forks.append(hooks), register(**hooks))
before = state()
for name in ours:
    importlib.import_module(name)
after = state()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


@pytest.mark.spawns
def test_the_process_is_what_it_was_when_all_files_are_imported():
    """Other people's packages come first, so that what they do is not held against us."""
    theirs = set()
    for path in FILES:
        for node in at_import(ast.parse(path.read_text()).body):
            if isinstance(node, ast.ImportFrom):
                theirs.add(node.module)
            elif isinstance(node, ast.Import):
                theirs |= {name.name for name in node.names}
    theirs = sorted(name for name in theirs if name.partition(".")[0] not in ("s4d_lib", "__future__"))
    ours = [".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts) for path in FILES]
    ours = [name.removesuffix(".__init__") for name in ours]
    done = subprocess.run([sys.executable, "-c", WATCH, json.dumps([theirs, ours])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"models": [0, 8]}, "the control: timm's list has changed"
