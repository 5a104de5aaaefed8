"""CONTRIBUTING.md: every recipe is applied to a copy of the repository and run there. CHANGELOG.md: names are there."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from s4d_lib.files import data_root

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", GUIDE.partition("## Five recipes")[2], re.M | re.S))


def block(recipe: str, language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", RECIPES[recipe], re.M | re.S)
    return found


@pytest.fixture
def tree(tmp_path) -> Path:
    """What git tracks, as it lies here, in a folder of its own."""
    copy = tmp_path / "copy"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


def run(commands: str, tree: Path) -> tuple[int, str]:
    """(exit code, what was printed) of a recipe's commands in a copy, with the Python that runs the tests."""
    environment = os.environ | {
        "PYTHONPATH": str(tree), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "S4D_RUNS": str(tree / "runs"), "S4D_DATA": str(data_root().resolve()), "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=tree, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)  # fmt: skip
    return done.returncode, done.stdout


def apply(patch: str, tree: Path) -> subprocess.CompletedProcess:
    """`git apply` in a folder that is no repository."""
    return subprocess.run(["git", "apply", "-"], cwd=tree, input=patch, capture_output=True, text=True,
                          env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tree.parent)})  # fmt: skip


def test_there_are_five_recipes_of_one_patch_and_one_block_of_commands():
    assert list(RECIPES) == ["A data set", "A model size", "A study", "A chapter", "An explorer"]
    for recipe in RECIPES:
        assert block(recipe, "diff") and block(recipe, "bash").count("# prints: ") == 1


@pytest.mark.trains
@pytest.mark.spawns
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_does_what_it_says(recipe, tree):
    patch, commands = block(recipe, "diff"), block(recipe, "bash")
    done = apply(patch, tree)
    assert done.returncode == 0, f"the patch no longer fits; bring CONTRIBUTING.md up to date\n{done.stderr}"
    code, printed = run(commands, tree)
    assert code == 0 and re.search(r"# prints: (.+)", commands)[1] in printed, printed


@pytest.mark.spawns
@pytest.mark.parametrize("recipe", RECIPES)
def test_without_its_patch_a_recipe_fails(recipe, tree):
    """The control: it is the patch that makes the last commands work."""
    first = {"A data set": "s4d doctor", "An explorer": "python -m widgets patch_explorer"}.get(recipe)
    commands = block(recipe, "bash")
    commands = next(line for line in commands.splitlines() if line.startswith(first)) if first else commands
    code, printed = run("mkdir -p demo/clips\n" + commands, tree)
    assert code != 0 and re.search("ourlab|micro|two_strides|e_counting|patch_explorer", printed), printed


def test_the_imports_are_those_of_the_copy(tree):
    code, printed = run("python -c 'import s4d_lib, widgets; print(s4d_lib.__file__, widgets.__file__)'", tree)
    assert code == 0 and printed.split() == [str(tree / "s4d_lib/__init__.py"), str(tree / "widgets/__init__.py")]


# -------------------------------------------------------------------------------- CHANGELOG.md

CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
MOVES = CHANGES.partition("### What others import")[2].partition("#### Gone")[0]
NAMES = ROOT / "ci/tests/data/public_names.txt"


def told(cell: str) -> tuple[str, list[str]]:
    """(module, names) of a cell such as "`cards`: `Reader`, `ModelCard`"."""
    module, *names = re.findall(r"`([\w.]+)`", cell)
    return module, names


def moves() -> list[tuple[str, tuple[str, list[str]], tuple[str, list[str]], list[str]]]:
    """(wing of the heading, before, now, names of the face) of every row of the table."""
    rows = []
    for wing, table in re.findall(r"^#### (.+?)\n(.*?)(?=^#### |\Z)", MOVES, re.M | re.S):
        cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
        rows += [(wing.strip("`"), told(before), told(now), re.findall(r"`(\w+)`", face))
                 for before, now, face in cells]
    return rows


def test_every_new_name_of_the_changelog_is_there():
    found = moves()
    assert len(found) > 150
    for wing, (_, names), (module, renamed), handed in found:
        home = importlib.import_module(f"s4d_lib.{module}")
        assert [name for name in renamed or names if not hasattr(home, name)] == [], module
        face = importlib.import_module(wing) if handed else None
        assert [name for name in handed if getattr(face, name) is not getattr(home, name)] == [], wing


def test_every_old_module_of_the_changelog_is_gone_or_a_wing_now():
    for _, (module, names), (new, _), _ in moves():
        spec = importlib.util.find_spec(f"s4d_lib.{module}")
        kept = module in ("clips", "records", "progress", "registry") and names  # they stay, and lost a name
        assert spec is None or spec.submodule_search_locations or kept, f"s4d_lib.{module}, which became {new}"


def test_a_name_that_is_gone_is_not_where_its_module_went():
    homes = {module: new for _, (module, names), (new, _), _ in moves() if not names}
    listed = CHANGES.partition("#### Gone")[2].partition("Also gone")[0]
    gone = [(module, re.findall(r"`(\w+)`", names))
            for module, names in re.findall(r"`(\w+)`: ((?:`\w+`(?:, )?)+)", listed)]
    assert len(gone) > 8
    for module, names in gone:
        home = importlib.import_module(f"s4d_lib.{homes.get(module, module)}")
        assert [name for name in names if hasattr(home, name)] == [], module


def handed_on() -> list[str]:
    """Every name of every face: s4d_lib.layers.random_mask."""
    faces = [".".join(stub.parent.relative_to(ROOT).parts) for stub in (ROOT / "s4d_lib").rglob("__init__.pyi")]
    return sorted(f"{face}.{name}" for face in faces for name in importlib.import_module(face).__all__)


def test_public_names_are_those_that_people_were_promised():
    kept = [line for line in NAMES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    here = handed_on()
    gone, new = sorted(set(kept) - set(here)), sorted(set(here) - set(kept))
    assert gone == [], "people import these: say in CHANGELOG.md what to use instead, then take them out of the list"
    assert new == [] and kept == here, f"write the new names into {NAMES.name}, so that they are kept from now on"


def test_the_readme_leads_here():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(CONTRIBUTING.md)" in readme and "(CHANGELOG.md)" in readme and "(CHANGELOG.md)" in GUIDE
