"""What is imported is declared, and what a plain installation brings is enough to predict and to train."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
USERS = sorted(EXTRAS.keys() - {"dev", "site", "all"})  # what a refusal of the library may name
# What each part of the repository may import beside the core: of the extras, all that belongs to its users.
PARTS = {"s4d_lib": USERS, "widgets": ["notebooks"], "chapters": ["notebooks", "faces"], "ci": ["all", "parquet"]}
NOT_ALWAYS_HERE = {"cv2": ["opencv-python-headless"]}  # the other packages are imported under their own names
DISTRIBUTIONS = packages_distributions()


def declared(extras: list[str]) -> set[str]:
    """Distributions of the core and of some extras, and of the extras that these name."""
    found, waiting = set(), [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    while waiting:
        requirement = Requirement(waiting.pop())
        if canonicalize_name(requirement.name) == "s4d-book":
            waiting += [line for extra in requirement.extras for line in EXTRAS[extra]]
        else:
            found.add(canonicalize_name(requirement.name))
    return found


def imported(text: str) -> set[str]:
    """Top-level modules that a text imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def texts(part: str) -> Iterator[tuple[Path, str]]:
    if part == "chapters":
        for path in (ROOT / part).glob("*.ipynb"):
            cells = json.loads(path.read_text())["cells"]
            yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    else:
        for path in (ROOT / part).rglob("*.py"):
            yield path, path.read_text()


def undeclared(names: set[str], extras: list[str]) -> set[str]:
    """Those of the modules that are not Python's and stand in no distribution that is declared."""
    known = declared(extras)
    return {name for name in names - sys.stdlib_module_names if not origins(name) & known}


def origins(name: str) -> set[str]:
    """The distributions a module may come from: its own name, and those that hold it here."""
    return {canonicalize_name(one) for one in (name, *DISTRIBUTIONS.get(name, NOT_ALWAYS_HERE.get(name, [])))}


@pytest.mark.parametrize("part", PARTS)
def test_what_is_imported_is_declared(part):
    files = dict(texts(part))
    ours = {"s4d_lib", "widgets", *(path.stem for path in files if part == "ci")}
    found = {str(path.relative_to(ROOT)): rest for path, text in files.items()
             if (rest := undeclared(imported(text) - ours, PARTS[part]))}
    assert len(files) > 5 and found == {}


def test_the_search_finds_what_is_not_declared():
    text = "import os, torch\nimport yaml.nodes\ndef f():\n    from scipy.stats import t\n    import nothing.like_it\n"
    assert undeclared(imported(text), []) == {"scipy", "nothing"}
    assert undeclared(imported(text), ["lab"]) == undeclared(imported(text), ["notebooks"]) == {"nothing"}


def test_the_library_imports_all_that_a_plain_installation_brings():
    names = {name for _, text in texts("s4d_lib") for name in imported(text)}
    assert declared([]) - set().union(*map(origins, names)) == set()


# ------------------------------------------------------------------------------------------------ the core alone


def closure(lines: list[str]) -> set[str]:
    """Distributions that pip installs for these requirements here, among those that are installed."""
    found: set[tuple[str, frozenset]] = set()
    waiting = [Requirement(line) for line in lines]
    while waiting:
        one = waiting.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in found:
            continue
        try:
            rest = [Requirement(line) for line in requires(one.name) or []]
        except PackageNotFoundError:
            continue  # for another system, or another Python
        found.add(key)
        waiting += [line for line in rest if line.marker is None or any(
            line.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """alone(program, *words) -> a Python to which nothing is installed but the core, at work on a program."""
    core = closure(PROJECT["dependencies"])
    absent = sorted(module for module, names in DISTRIBUTIONS.items() if module != "s4d_lib" and module != "widgets"
                    and not {canonicalize_name(name) for name in names} & core)
    before = f"""
import sys
from importlib.machinery import PathFinder

absent = set({absent})


class CoreAlone(PathFinder):
    \"\"\"Finds no module of a package that is not of the core, as if it had never been installed.\"\"\"

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)


sys.meta_path[:] = [CoreAlone if finder is PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, {str(ROOT)!r})
"""

    def run(program: str, *words: object) -> str:
        done = subprocess.run([sys.executable, "-c", before + program, *map(str, words)], capture_output=True,
                              text=True, cwd=tmp_path_factory.mktemp("elsewhere"))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.spawns
def test_every_file_of_the_core_is_imported_without_the_extras(alone):
    files = [path for path in (ROOT / "s4d_lib").rglob("*.py") if path.stem != "__main__"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    names.remove("s4d_lib.batch.worker")  # what runs a chapter, in a process of its own
    assert len(names) > 150
    said = alone("import importlib\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
                 "print(sorted(absent & {name.partition('.')[0] for name in sys.modules}))", *names)
    assert said.strip() == "[]"
    control = "try:\n    import s4d_lib.batch.worker\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    assert alone(control).strip() in ("nbformat", "papermill"), "a package of an extra is not found"


@pytest.mark.spawns
def test_the_core_predicts(alone, videos, tmp_path):
    outs = [tmp_path / f"said.{kind}" for kind in ("csv", "json", "html")]
    words = [word for out in outs for word in (f"--{out.suffix[1:]}", out)]
    program = "from s4d_lib.cli.app import main\nmain()"
    assert "cfr.mp4" in alone(program, "predict", videos["cfr"], "--no-crop", *words)
    table, document, page = (out.read_text() for out in outs)
    (file,) = json.loads(document)["files"]
    assert table.startswith("path,kind,part") and table.count(",window ") == len(file["windows"]) > 0
    assert "Timeline of 1.2 seconds" in page and "pip install 's4d-book[figures]'" in page, "said in words"
    assert 'class="plot"' not in page and "Plotly" not in page


@pytest.mark.spawns
@pytest.mark.trains
def test_the_core_trains(alone, faces, tmp_path):
    program = """
from pathlib import Path
from s4d_lib.training import FinetuneConfig, PretrainConfig, train

faces, runs = map(Path, sys.argv[1:])
given = {"size": "tiny", "stills": str(faces / "stills"), "clips": str(faces / "clips"), "frames": "clip_mp4",
         "stride": 2, "augment_stills": "LIGHT", "augment_clips": "LIGHT", "batch_stills": 12, "batch_clips": 6,
         "epochs": 1, "warmup_epochs": 0.2, "device": "cpu", "lr": 1e-3}
before = train(PretrainConfig(name="p", mask_stills=0.75, mask_clips=0.9, replicate=2, **given), runs)
run = train(FinetuneConfig(name="f", mode="moae", pool="positions", validation=0.2, init=str(before.weights), **given),
            runs)
print(run.record.results["test_clip"]["count"])
"""
    assert int(alone(program, faces, tmp_path).split()[-1]) > 0


MISSING = [  # what is asked for, and the extra that the refusal names
    ("from s4d_lib.metrics.scores import over_seeds; over_seeds([1.0, 2.0])", "lab"),
    ("from s4d_lib.metrics.calibration import fit_temperature; fit_temperature(None, None)", "lab"),
    ("from s4d_lib.metrics.contrasts import detectable; detectable(1.0, 3)", "lab"),
    ("from s4d_lib.metrics.effects import spearman; spearman([1, 2], [1, 2])", "lab"),
    ("from s4d_lib.analysis.correlation import rank_correlation; rank_correlation(None, None)", "lab"),
    ("from s4d_lib.analysis.floors import ridge; ridge([], {}, 7)", "lab"),
    ("from s4d_lib.training.remedies import _upgrad; _upgrad(2)", "lab"),
    ("from s4d_lib.figures.base import new_figure; new_figure('a', 'b', 'c', 'd')", "figures"),
    ("from s4d_lib.predict.timelines import Prediction; Prediction.to_frame(None)", "tables"),
    ("from s4d_lib.crops.mtcnn import Mtcnn; Mtcnn()", "faces"),
    ("from s4d_lib.crops.detectors import YuNet; YuNet(None)", "yunet"),
    ("from s4d_lib.crops.detectors import MediaPipe; MediaPipe(None)", "mediapipe"),
    ("from s4d_lib.models.photograph_classifier import read_keras; read_keras('x.hdf5')", "photographs"),
    ("from s4d_lib.models.face_mesh import FaceMesh; FaceMesh()", "photographs"),
    ("from s4d_lib.frames import open_frames; open_frames(sys.argv[1], 'torchcodec')", "torchcodec"),
    ("from s4d_lib.frames.pictures import unknown_picture; raise Refused(unknown_picture('a.heic'))", "heic"),
    ("from s4d_lib.datasets.arrays import _parquet_dicts; list(_parquet_dicts('x.parquet'))", "parquet"),
    ("from s4d_lib.weights.files import SHIPPED; from s4d_lib.checkpoints.export import export_model; "
     "export_model(SHIPPED['classifier'], 'graphs', formats=['onnx'])", "export"),
    ("from s4d_lib.training.curves import to_tensorboard; to_tensorboard('run', 'events')", "curves"),
    ("from s4d_lib.batch.runner import run_book; run_book('chapters', 'out')", "book"),
    ("from s4d_lib.batch.cluster import make_executor; make_executor('local', 'out', 1, 1, {})", "cluster"),
]


@pytest.mark.spawns
def test_what_needs_an_extra_names_it(alone, videos):
    program = f"""
from s4d_lib.errors import Refused
for call, extra in {MISSING}:
    try:
        exec(call)
    except Refused as refused:
        assert f"pip install 's4d-book[{{extra}}]'" in str(refused), (call, str(refused))
        print(extra)
    else:
        raise SystemExit(f"{{call}}: was not refused")
"""
    named = {*USERS} - {"notebooks", "transformers"}  # the second is for a test alone
    assert set(alone(program, videos["cfr"]).split()) == {extra for _, extra in MISSING} == named
