"""The checkers, checked: each passes on what is sound and names what is broken, one broken thing at a time."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml
from check_environment import check_conda, check_installed, check_pins
from check_pairs import CHECKS, check_contents, check_folder, read_pair
from execute_chapters import pair_notebook, write_notebook

from s4d_lib.batch.chapters import read_chapter

ROOT = Path(__file__).resolve().parents[2]
TEXT = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Masking

A sentence.

```{code-cell} ipython3
:tags: [parameters]

tier = "smoke"  # how much
```

Another sentence.

```{code-cell} ipython3
:tags: [nbval-check-output]
:label: visible

print(10)
```
"""


def executed(text: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What Papermill would have left: counts, an output in two pieces, run times, widget state, machine paths."""
    ran = nbformat.from_dict(text)
    for count, cell in enumerate((cell for cell in ran.cells if cell.cell_type == "code"), 1):
        cell.execution_count, cell.metadata["papermill"] = count, {"duration": 0.5}
    ran.cells[-1].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="1"),
        nbformat.v4.new_output("stream", name="stdout", text=f"0 from {ROOT}/data and {Path.home()}/cache\n"),
        nbformat.v4.new_output(
            "display_data",
            data={"text/plain": "IntSlider()", "application/vnd.jupyter.widget-view+json": {"model_id": "x"}},
        ),
    ]
    ran.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": "x" * 1000}}
    ran.metadata["papermill"] = {"input_path": str(ROOT)}
    return ran


@pytest.fixture
def pair(tmp_path):
    """A sound pair on disk: (chapters folder, notebook as written)."""
    chapters = tmp_path / "chapters"
    chapters.mkdir()
    (chapters / "04_masking.md").write_text(TEXT)
    text = read_chapter(chapters / "04_masking.md")
    notebook = pair_notebook(text, executed(text))
    nbformat.write(notebook, chapters / "04_masking.ipynb")
    return chapters, notebook


# ---------------------------------------------------------------------------------------------------------- pairs


def test_what_execute_chapters_writes_is_sound_and_reproducible(pair):
    chapters, notebook = pair
    assert list(check_folder(chapters)) == []
    assert notebook.cells[-1].outputs[0].text == "10 from data and ~/cache\n"
    assert list(notebook.cells[-1].outputs[1].data) == ["text/plain"]
    text = read_chapter(chapters / "04_masking.md")
    assert nbformat.writes(pair_notebook(text, executed(text))) == nbformat.writes(notebook)


def test_equal_cells_get_different_ids(pair):
    text = read_chapter(pair[0] / "04_masking.md")
    text.cells += [nbformat.v4.new_markdown_cell("Again."), nbformat.v4.new_markdown_cell("Again.")]
    ids = [cell.id for cell in pair_notebook(text, executed(text)).cells]
    assert len(set(ids)) == len(ids)


def test_a_run_with_injected_parameters_is_no_pair(pair):
    text = read_chapter(pair[0] / "04_masking.md")
    ran = executed(text)
    ran.cells.insert(2, nbformat.v4.new_code_cell("tier = 'laptop'"))
    with pytest.raises(ValueError, match="without parameters"):
        pair_notebook(text, ran)


def _show(notebook, **data):
    """Give cell 2 an output; `image_png=` is of type image/png."""
    data = {mime.replace("_", "/"): shown for mime, shown in data.items()}
    notebook.cells[1].outputs.append(nbformat.v4.new_output("display_data", data=data))


def _error():
    return nbformat.v4.new_output("error", ename="ValueError", evalue="the lamp is off", traceback=[])


BROKEN = {  # what is done to the notebook → the check that must see it, and its words
    "source": (lambda nb: nb.cells[-1].update(source="print(11)"), "same_cells", "cell 4 .*another source"),
    "type": (lambda nb: nb.cells[2].update(cell_type="raw"), "same_cells", "cell 3 .*another type"),
    "tag lost": (lambda nb: nb.cells[1].metadata.pop("tags"), "same_cells", "cell 2 .*another tags"),
    "label": (lambda nb: nb.cells[3].metadata.update(label="hidden"), "same_cells", "cell 4 .*another label"),
    "cell added": (lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("More.")), "same_cells", ".*4 cells.* 5"),
    "not run": (lambda nb: nb.cells[3].update(execution_count=None), "executed_in_order", r"cell 4 .*\[None\]"),
    "out of order": (lambda nb: nb.cells[1].update(execution_count=3), "executed_in_order", r"cell 2 .*\[3\]"),
    "output lost": (lambda nb: nb.cells[3].update(outputs=[]), "outputs_are_checked", "cell 4 .*has no output"),
    "error": (lambda nb: nb.cells[1].outputs.append(_error()), "no_errors", "cell 2 ended in ValueError: the lamp"),
    "video": (lambda nb: _show(nb, video_mp4="AAAA"), "showable_outputs", "cell 2 .*type video/mp4"),
    "path": (lambda nb: _show(nb, text_plain="at\n/home/ada/x.py\nend"), "no_machine_paths", ".*'/home/ada/x.py'"),
    "warning": (lambda nb: _show(nb, text_html="lib/site-packages/a.py:1: W"), "no_machine_paths", "cell 2 prints"),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), "plain_metadata", ".*notebook metadata 'widgets'"),
    "times": (lambda nb: nb.cells[0].metadata.update(execution={}), "plain_metadata", "cell 1 .*metadata 'execution'"),
    "formats": (lambda nb: nb.metadata.update(jupytext={"formats": "py"}), "plain_metadata", ".*jupytext.formats"),
    "kernel": (lambda nb: nb.metadata.kernelspec.update(name="mine"), "plain_metadata", ".*does not name the kernel"),
    "size": (lambda nb: _show(nb, image_png="A" * 1_000_000), "small_enough", ".*the limit is 1,000,000"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_one_broken_thing_in_the_notebook_gives_one_complaint(pair, what):
    chapters, notebook = pair
    break_it, check, words = BROKEN[what]
    break_it(notebook)
    nbformat.write(notebook, chapters / "04_masking.ipynb")
    assert complaining(chapters) == [check]
    (complaint,) = check_folder(chapters)
    assert re.match("04_masking: " + words, complaint), complaint


def complaining(chapters: Path) -> list[str]:
    """Names of the checks that find something wrong with the pair."""
    chapter = read_pair(chapters / "04_masking.md")
    return [check.__name__ for check in CHECKS if list(check(chapter))]


BROKEN_TEXT = {  # the .ipynb is written from it, so that only the one check can see it
    "tag": ("[parameters]", "[parameters, hide-imput]", "known_tags", "unknown tag 'hide-imput'"),
    "parameter": ('tier = "smoke"', "tier = str(1)", "literal_parameters", "`tier = str(1)` in the parameters cell"),
    "no check": ("[nbval-check-output]", "[hide-input]", "outputs_are_checked", "no cell is tagged nbval-check-output"),
    "header": ("jupytext:\n", "title: Masks\njupytext:\n", "plain_metadata", "header key 'title'"),
}


@pytest.mark.parametrize("what", BROKEN_TEXT)
def test_one_broken_thing_in_the_text_gives_one_complaint(pair, what):
    chapters, _ = pair
    before, after, check, words = BROKEN_TEXT[what]
    assert before in TEXT
    (chapters / "04_masking.md").write_text(TEXT.replace(before, after))
    text = read_chapter(chapters / "04_masking.md")
    nbformat.write(pair_notebook(text, executed(text)), chapters / "04_masking.ipynb")
    assert complaining(chapters) == [check]
    (complaint,) = check_folder(chapters)
    assert words in complaint


def test_every_check_is_broken_at_least_once():
    covered = {check for _, check, _ in BROKEN.values()} | {check for _, _, check, _ in BROKEN_TEXT.values()}
    assert covered == {check.__name__ for check in CHECKS}


def test_an_expected_error_may_be_stored(pair):
    chapters, _ = pair
    (chapters / "04_masking.md").write_text(TEXT.replace("[parameters]", "[parameters, raises-exception]"))
    text = read_chapter(chapters / "04_masking.md")
    notebook = pair_notebook(text, executed(text))
    notebook.cells[1].outputs.append(_error())
    nbformat.write(notebook, chapters / "04_masking.ipynb")
    assert list(check_folder(chapters)) == []


def test_half_a_pair_is_found_on_either_side(pair):
    chapters, _ = pair
    (chapters / "04_masking.ipynb").rename(chapters / "05_other.ipynb")
    complaints = list(check_folder(chapters))
    assert ["there is no 04_masking.ipynb" in complaints[0], "there is no 05_other.md" in complaints[1]] == [True, True]


@pytest.mark.parametrize("content", [
    b"", b"{", b"not JSON", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'{"nbformat": 4}', b"[" * 100_000,
    b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
    b'{"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
    b'{"cells": [], "metadata": {}, "nbformat": 99, "nbformat_minor": 5}',
], ids=range(13))
def test_what_is_no_notebook_is_named_and_the_other_pairs_are_checked(pair, content):
    chapters, notebook = pair
    (chapters / "05_other.md").write_text(TEXT)
    notebook.cells[-1].outputs.clear()
    nbformat.write(notebook, chapters / "05_other.ipynb")
    (chapters / "04_masking.ipynb").write_bytes(content)
    named, other = check_folder(chapters)
    assert named.startswith("04_masking.ipynb: not a notebook (") and "execute_chapters.py 04_masking" in named
    assert other.startswith("05_other: cell 4")


def test_a_text_that_is_not_utf_8_is_named(pair):
    chapters, _ = pair
    (chapters / "04_masking.md").write_bytes(TEXT.encode() + b"caf\xe9")
    (complaint,) = check_folder(chapters)
    assert complaint.startswith("04_masking.md: not UTF-8")


def test_a_notebook_is_written_whole_or_not_at_all(pair, monkeypatch):
    chapters, notebook = pair
    path = chapters / "04_masking.ipynb"
    before = path.read_bytes()
    write_notebook(path, notebook)
    assert path.read_bytes() == before
    monkeypatch.setattr(Path, "write_bytes", lambda _, content: open("/dev/full", "wb", buffering=0).write(content))
    with pytest.raises(OSError, match="04_masking.ipynb"):
        write_notebook(path, nbformat.v4.new_notebook())
    assert path.read_bytes() == before and len(list(chapters.iterdir())) == 2


@pytest.mark.parametrize(
    ("files", "sound"),
    [
        (["chapters/index.ipynb", "chapters/04_masking.ipynb"], True),
        (["chapters/04_masking.ipynb", "chapters/index.ipynb"], False),
        (["chapters/index.ipynb"], False),
        (["chapters/index.ipynb", "chapters/04_masking.md"], False),
    ],
)
def test_the_table_of_contents_lists_the_chapters_in_order(pair, files, sound):
    chapters, _ = pair
    (chapters / "index.md").write_text(TEXT)
    toc = [{"file": "README.md"}, {"title": "Part", "children": [{"file": file} for file in files]}]
    (chapters.parent / "myst.yml").write_text(yaml.safe_dump({"project": {"toc": toc}}))
    assert (list(check_contents(chapters, chapters.parent / "myst.yml")) == []) is sound


# ---------------------------------------------------------------------------------------------------- environment


def test_our_environment_file_is_sound():
    assert list(check_conda((ROOT / "environment.yml").read_text())) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("dependencies:", "dependencies: [", "no list of dependencies"),
        ("dependencies:", "packages:", "no list of dependencies"),
        ("python=3.11", "python=>=3.11=", "is not a conda match spec"),
        ("- -e .[all]", "- -e .", "the pip section is"),
        ("- -c ci/constraints.txt", "- torch", "the pip section is"),
    ],
)
def test_a_broken_environment_file_is_named(before, after, words):
    text = (ROOT / "environment.yml").read_text()
    assert before in text
    (complaint,) = check_conda(text.replace(before, after))
    assert words in complaint


def test_pins_cover_what_is_named_and_nothing_else():
    named = ["torch>=2.8", "s4d-book[dev]; extra == 'all'", "PyYAML>=6"]
    assert list(check_pins(named, "# why\ntorch==2.13.0\npyyaml==6.0.3; python_version >= '3.11'\n")) == []
    assert "no version of pyyaml" in "".join(check_pins(named, "torch==2.13.0"))
    assert "pins timm" in "".join(check_pins(named, "torch==2.13.0\npyyaml==6.0\ntimm==1.0"))
    assert "torch==2.7" in "".join(check_pins(named, "torch==2.7\npyyaml==6.0"))
    assert "pyyaml>=6" in "".join(check_pins(named, "torch==2.13.0\npyyaml>=6"))


def test_installed_versions_are_compared_with_the_pins():
    assert list(check_installed((ROOT / "ci" / "constraints.txt").read_text())) == []
    (complaint,) = check_installed("numpy==0.1\nnot-installed-anywhere==1\nscipy==0.1; python_version < '3'\n")
    assert complaint.startswith("numpy ")


# -------------------------------------------------------------------------------------------------------- scripts

FAKE_PYTHON = """#!/usr/bin/env bash
# Stands in for Python: makes a venv out of copies of itself and notes what it is asked to do.
note() { echo "$*" >> "$FAKE_LOG"; }
case "$*" in
    --version) echo "Python 3.99" ;;
    "-m venv "*) note venv; mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo "VIRTUAL_ENV=$3" > "$3/bin/activate" ;;
    "-m pip install"*|"-m pip --"*|*"pip install"*) note install; [[ -z "${FAKE_KILL:-}" ]] || kill -9 $PPID
        echo "WARNING: Location x is ignored"; echo "the words of pip"; exit "${FAKE_FAILS:-0}" ;;
    *sysconfig*) mkdir -p "$FAKE_PACKAGES"; echo "$FAKE_PACKAGES" ;;
    *"import torchvision") note torchvision; [[ -z "${FAKE_BROKEN_TORCHVISION:-}" ]] ;;
    *) exit 0 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with the real environment script and a stand-in for Python; call it to run the script."""
    root = tmp_path / "a checkout"
    (root / "ci").mkdir(parents=True)
    for name in ("environment.sh", "constraints.txt", "torchvision_cpu_shim.py"):
        shutil.copy(ROOT / "ci" / name, root / "ci" / name)
    shutil.copy(ROOT / "pyproject.toml", root)
    python = tmp_path / "fake_python"
    python.write_text(FAKE_PYTHON)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    log = tmp_path / "log"

    def run(**settings: str) -> tuple[int, list[str], str]:
        """(exit code, what Python was asked to do, everything printed)"""
        log.write_text("")
        environment = {**os.environ, "S4D_PYTHON": str(python), "FAKE_LOG": str(log), **settings}
        environment["FAKE_PACKAGES"] = str(root / ".venv" / "packages")
        done = subprocess.run(
            ["bash", str(root / "ci" / "environment.sh")], env=environment, capture_output=True, text=True
        )
        return done.returncode, log.read_text().split(), done.stdout + done.stderr

    run.root = root
    return run


def test_the_environment_is_made_once(checkout):
    code, asked, said = checkout()
    assert (code, asked) == (0, ["venv", "install", "torchvision"]) and "ready after" in said
    assert checkout() == (0, [], "")


@pytest.mark.parametrize("changed", ["pyproject.toml", "ci/constraints.txt"])
def test_the_environment_follows_the_files_it_is_made_from(checkout, changed):
    checkout()
    with open(checkout.root / changed, "a") as file:
        file.write("# one more line\n")
    assert checkout()[:2] == (0, ["install", "torchvision"])
    assert checkout()[:2] == (0, [])


def test_an_installation_cut_short_is_made_again(checkout):
    code, asked, _ = checkout(FAKE_KILL="1")
    assert code != 0 and asked == ["venv", "install"]
    (checkout.root / ".venv" / "half_a_package").touch()
    code, asked, said = checkout()
    assert (code, asked) == (0, ["venv", "install", "torchvision"]) and "cut short" in said
    assert not (checkout.root / ".venv" / "half_a_package").exists()
    assert checkout()[:2] == (0, [])


def test_a_failed_installation_says_what_to_do_and_is_repaired(checkout):
    code, _, said = checkout(FAKE_FAILS="1")
    assert code == 1 and "the words of pip" in said and "is ignored" not in said and "run this again" in said
    assert checkout()[:2] == (0, ["venv", "install", "torchvision"])


def test_an_environment_made_by_hand_is_brought_up_to_date_not_thrown_away(checkout):
    checkout()
    (checkout.root / ".venv" / ".made-from").unlink()
    assert checkout()[:2] == (0, ["install", "torchvision"])


def test_a_moved_environment_is_made_again(checkout):
    checkout()
    (checkout.root / ".venv" / "bin" / "activate").write_text("VIRTUAL_ENV=/elsewhere/.venv")
    (checkout.root / ".venv" / ".made-from").write_text("elsewhere")
    code, asked, said = checkout()
    assert (code, asked) == (0, ["venv", "install", "torchvision"]) and "moved" in said


def test_the_shim_is_added_only_where_torchvision_cannot_be_imported(checkout):
    packages = checkout.root / ".venv" / "packages"
    checkout()
    assert not list(packages.iterdir())
    (checkout.root / ".venv" / ".made-from").unlink()
    code, _, said = checkout(FAKE_BROKEN_TORCHVISION="1")
    assert code == 0 and "adding the shim" in said
    assert {path.name for path in packages.iterdir()} == {"torchvision_cpu_shim.pth", "torchvision_cpu_shim.py"}
    (checkout.root / ".venv" / ".made-from").unlink()
    assert checkout()[0] == 0 and not list(packages.iterdir())


def test_no_python_is_a_clear_error(checkout):
    code, asked, said = checkout(S4D_PYTHON="/bin/false")
    assert code == 1 and asked == [] and "no Python 3.10 or newer" in said and "S4D_PYTHON=" in said


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "ci").glob("*.sh")))
def test_scripts_parse_and_stop_at_the_first_failure(script):
    path = ROOT / "ci" / script
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert "set -euo pipefail" in path.read_text()
