"""The house: faces that define nothing and list their files, arrows that lead down, no private name in another file."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "s4d_lib"
FACES = sorted(path.parent for path in LIBRARY.rglob("__init__.py") if path.parent != LIBRARY)
FILES = sorted(LIBRARY.rglob("*.py"))
named = pytest.mark.parametrize("face", FACES, ids=lambda path: str(path.relative_to(LIBRARY)))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def handed_on(face: Path) -> Iterator[tuple[str, str]]:
    """(file, name) of everything that a face hands on, as its stub says."""
    stub = face / "__init__.pyi"
    for node in ast.parse(stub.read_text()).body if stub.exists() else ():
        assert isinstance(node, ast.ImportFrom) and node.level == 1, f"{stub} holds imports from its own files only"
        for name in node.names:
            assert name.asname == name.name, f"{stub}: `{name.name} as {name.name}` marks a name as handed on"
            yield node.module, name.name


def test_the_first_line_of_every_file_is_its_arrow():
    lines = {path: path.read_text().split("\n")[0] for path in FILES}
    assert [path for path, line in lines.items() if not re.match(r'"""[^→↔]+ [→↔] .+ {5}.*', line)] == []


@named
def test_a_face_defines_nothing_and_lists_its_files(face):
    tree = ast.parse((face / "__init__.py").read_text())
    rest = [ast.unparse(node) for node in tree.body[1:]]
    lazily = ["import lazy_loader", "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)"]
    assert rest in ([], lazily)
    listed = re.findall(r"^    (\w+)/? {2,}\S", ast.get_docstring(tree, clean=False), re.MULTILINE)
    there = {path.stem for path in face.glob("*.py")} | {path.parent.name for path in face.glob("*/__init__.py")}
    assert sorted(listed) == sorted(there - {"__init__", "__main__"})


@named
def test_what_a_face_hands_on_is_there_and_is_no_file_of_it(face):
    module, files = importlib.import_module(dotted(face / "__init__.py")), {path.stem for path in face.glob("*.py")}
    pairs = list(handed_on(face))
    names = [name for _, name in pairs]
    assert len(names) == len(set(names)) and not set(names) & files, "a name must not hide a file of the wing"
    for file, name in pairs:
        found = getattr(module, name)
        assert found is getattr(importlib.import_module(f"{dotted(face / '__init__.py')}.{file}"), name)


def test_every_public_function_and_class_that_is_handed_on_says_what_it_is():
    silent = []
    for face in FACES:
        for file, name in handed_on(face):
            tree = ast.parse((face / f"{file}.py").read_text())
            [node] = [node for node in tree.body if getattr(node, "name", name) == name and _defines(node, name)]
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not ast.get_docstring(node):
                silent.append(f"{face.name}.{name}")
    assert silent == []


def _defines(node: ast.stmt, name: str) -> bool:
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    words = {word.id for target in targets if target and not isinstance(target, ast.Attribute)
             for word in ast.walk(target) if isinstance(word, ast.Name)}
    return getattr(node, "name", None) == name or isinstance(node, (ast.Assign, ast.AnnAssign)) and name in words


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


HEAVY = ("torch", "timm", "numpy", "pandas", "plotly", "PIL", "scipy", "sklearn", "pydantic", "papermill")


@pytest.mark.spawns
def test_no_face_imports_anything_heavy():
    faces = [dotted(face / "__init__.py") for face in FACES]
    code = f"import sys, {', '.join(faces)}\nprint([name for name in {HEAVY} if name in sys.modules])"
    assert fresh(code) == "[]"
    assert fresh(code.replace("import sys", "import sys, s4d_lib.layers.losses")) != "[]", "the control: a file does"


@pytest.mark.spawns
def test_commands_and_the_book_runner_start_without_torch():
    files = [dotted(path) for path in FILES if path.relative_to(LIBRARY).parts[0] in ("cli", "batch")
             and path.stem != "__main__"]
    assert len(files) > 15
    assert fresh(f"import sys, {', '.join(files)}\nprint('torch' in sys.modules)") == "False"


def crossings(text: str) -> list[str]:
    """Private names that a file takes from another file of the library: `from x import _y`, or `x._y`."""
    tree, modules, found = ast.parse(text), set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "s4d_lib":
            modules |= {name.asname or name.name for name in node.names}
            found += [name.name for name in node.names if re.match(r"_[^_]", name.name)]
    return found + [f"{node.value.id}.{node.attr}" for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name) and node.value.id in modules and re.match(r"_[^_]", node.attr)]


def test_no_private_name_crosses_a_file():
    ours = [*FILES, *(ROOT / "widgets").glob("*.py"), *(ROOT / "ci").glob("*.py")]
    assert {str(path): found for path in ours if (found := crossings(path.read_text()))} == {}
    assert crossings("from s4d_lib.layers import masking\nmasking._ranks(3)\nfrom s4d_lib.clips import _cut") == [
        "_cut", "masking._ranks"], "the control: both ways are seen"


SPEAKERS = {"progress.py", "batch/worker.py", "datasets/doctor/findings.py"}  # beside cli: a program, a printed report


def test_the_library_returns_and_only_a_few_files_print():
    speaking = {str(path.relative_to(LIBRARY)) for path in FILES for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"}
    assert {name for name in speaking if not name.startswith("cli/")} == SPEAKERS


@pytest.mark.skipif(sys.version_info < (3, 11), reason="grimp needs Python 3.11")
def test_the_picture_of_the_house_is_drawn_from_the_imports():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    drawn = page.partition(house.BEGIN)[2].partition(house.END)[0]
    assert drawn == house.picture(), "python ci/house.py --write"


def test_arrows_that_follow_from_others_are_left_out():
    pairs = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "d")}
    assert house.shortest(pairs) == {("a", "b"), ("b", "c"), ("c", "d")}
