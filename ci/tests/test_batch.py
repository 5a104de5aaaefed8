"""Chapters → runs: order, parameters, refusal before the start, honest status, resume, and nothing left running."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_chapters import RECORD, SLEEP, processes_of, write_chapter

from s4d_lib.batch import runner, worker
from s4d_lib.batch.causes import CELL_ERROR, judge
from s4d_lib.batch.chapters import ChapterError, chapter_parameters, find_chapters, merge_parameters
from s4d_lib.batch.runner import plan_runs, run_book
from s4d_lib.batch.status import finished_before, write_status
from s4d_lib.batch.table import print_table
from s4d_lib.cli import app

LIBRARY = runner._library_hashes


def cell(source: str, *tags: str) -> dict:
    return {"source": source, "metadata": {"tags": list(tags)}}


@pytest.fixture(scope="module", autouse=True)
def same_library():
    """Between two plans of one test nobody's edit of a library file may count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_library_hashes", lambda _: {"x.py": "this library"})
        yield


# ------------------------------------------------------------------------------------------------------- chapters


def test_book_order_is_index_numbers_letters(tmp_path):
    for name in ("b_data", "02_two", "index", "10_ten", "a_notation", "01_one"):
        write_chapter(tmp_path, name)
    stems = [path.stem for path in find_chapters(tmp_path)]
    assert stems == ["index", "01_one", "02_two", "10_ten", "a_notation", "b_data"]
    assert [path.stem for path in find_chapters(tmp_path, ["10", "chapters/01_one.md"])] == ["01_one", "10_ten"]


@pytest.mark.parametrize("name", ["03", "0", "one"])
def test_a_name_must_fit_one_chapter(tmp_path, name):
    write_chapter(tmp_path, "01_one")
    with pytest.raises(ChapterError, match="01_one"):
        find_chapters(tmp_path, [name])


def test_a_folder_without_chapters_is_refused(tmp_path):
    with pytest.raises(ChapterError, match="holds no chapter"):
        find_chapters(tmp_path)


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(st.from_regex(r"[a-z]{2,6}_", fullmatch=True), literals, max_size=4))
def test_any_literal_survives_the_parameters_cell(values):
    source = "\n".join(f"{name} = {value!r}  # why" for name, value in values.items())
    assert chapter_parameters([cell("x = 1"), cell(source, "parameters")], "c") == values


def test_annotated_parameters_are_read():
    assert chapter_parameters([cell("epochs: int = -2", "parameters")], "c") == {"epochs": -2}


@pytest.mark.parametrize("source", ["b = 2 * a", "a: int", "import os", "a = b = 1", "a, b = 1, 2", "a = [len('x')]"])
def test_what_is_not_a_literal_is_refused_and_quoted(source):
    with pytest.raises(ChapterError, match="name = literal") as error:
        chapter_parameters([cell(f"a = 1\n{source}", "parameters")], "07_moae")
    assert "07_moae" in str(error.value) and f"`{source}`" in str(error.value)


def test_two_parameters_cells_and_broken_python_are_refused():
    with pytest.raises(ChapterError, match="2 cells"):
        chapter_parameters([cell("a = 1", "parameters"), cell("b = 1", "parameters")], "c")
    with pytest.raises(ChapterError, match="not Python"):
        chapter_parameters([cell("a = = 1", "parameters")], "c")


def test_given_parameters_must_be_known_and_of_the_same_type():
    defaults = {"epochs": 3, "lr": 0.1, "name": None, "flip": True}
    assert merge_parameters(defaults, {"lr": 1, "name": "x"}, "c") == {"epochs": 3, "lr": 1, "name": "x", "flip": True}
    with pytest.raises(ChapterError, match="unknown parameter 'epoch'.*epochs, lr"):
        merge_parameters(defaults, {"epoch": 3}, "c")
    for wrong in ({"epochs": "3"}, {"epochs": 3.0}, {"flip": 1}, {"epochs": True}):
        with pytest.raises(ChapterError, match="not"):
            merge_parameters(defaults, wrong, "c")


# ----------------------------------------------------------------------------------------------------------- plan


def test_everything_is_refused_before_anything_starts(tmp_path, monkeypatch):
    write_chapter(tmp_path, "01_good", RECORD)
    write_chapter(tmp_path, "02_derived", RECORD, parameters="a = 1\nb = a * 2")
    monkeypatch.setattr(runner, "Job", lambda *_: pytest.fail("a chapter was started"))
    for arguments in ({}, {"tier": "huge"}, {"given": {"nope": 1}}, {"names": ["99"]}, {"jobs": 0}):
        with pytest.raises(ChapterError):
            run_book(tmp_path, tmp_path / "runs", **arguments)
    assert not (tmp_path / "runs").exists()


def test_the_fingerprint_follows_chapter_parameters_tier_and_library(tmp_path, monkeypatch):
    path = write_chapter(tmp_path, "01_good", RECORD)

    def fingerprint(tier="smoke", **parameters):
        return plan_runs(tmp_path, tmp_path, tier, given=parameters)[0].fingerprint

    before = fingerprint()
    assert fingerprint() == before == fingerprint(count=3)
    assert len({before, fingerprint(count=4), fingerprint("laptop")}) == 3
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_library_hashes", lambda _: {"x.py": "another library"})
        assert fingerprint() != before
    path.write_text(path.read_text() + "\nOne more word.\n")
    assert fingerprint() != before


def test_the_library_hash_follows_names_and_content_of_its_files(tmp_path, monkeypatch):
    """Of files in folders of any depth too: a library that is not hashed whole keeps stale chapters in silence."""
    some = {"batch/runner.py", "files.py", "weights/tiny_s4d_classifier.safetensors"}
    assert some <= LIBRARY(tmp_path / "chapters").keys()
    monkeypatch.setattr(runner, "PACKAGE", tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tiny.safetensors").write_bytes(b"\x00")
    seen = [LIBRARY(tmp_path / "chapters")]
    (tmp_path / "weights" / "tiny.safetensors").write_bytes(b"\x01")
    seen.append(LIBRARY(tmp_path / "chapters"))
    (tmp_path / "weights" / "tiny.safetensors").rename(tmp_path / "weights" / "small.safetensors")
    seen.append(LIBRARY(tmp_path / "chapters"))
    (tmp_path / "wing" / "deep").mkdir(parents=True)
    (tmp_path / "wing" / "deep" / "code.py").write_text("x = 1")
    seen.append(LIBRARY(tmp_path / "chapters"))
    (tmp_path / "wing" / "deep" / "code.py").write_text("x = 2")
    seen.append(LIBRARY(tmp_path / "chapters"))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "batch.pyc").write_bytes(b"\x00")
    assert len({str(one) for one in seen}) == 5 and LIBRARY(tmp_path / "chapters") == seen[-1]


def test_the_tier_reaches_the_parameters_of_chapters_that_have_one(tmp_path):
    write_chapter(tmp_path, "01_with", RECORD)
    write_chapter(tmp_path, "02_without", "1", parameters="count = 3")
    runs = plan_runs(tmp_path, tmp_path / "out", "laptop")
    assert [run.parameters for run in runs] == [{"tier": "laptop", "count": 3}, {"count": 3}]
    assert runs[0].folder == str(tmp_path / "out" / "book" / "laptop" / "01_with")


# ------------------------------------------------------------------------------------------------------ execution


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """One real run of chapters that end in three ways."""
    root = tmp_path_factory.mktemp("book")
    chapters = root / "chapters"
    write_chapter(chapters, "01_good", "print('words before')", RECORD)
    write_chapter(chapters, "02_fails", "raise ValueError('the lamp is off')", RECORD)
    write_chapter(chapters, "03_killed", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", RECORD)
    runs = run_book(chapters, root / "runs", tier="laptop", jobs=2)
    return chapters, root / "runs", {run.chapter: run for run in runs}


@pytest.mark.spawns
def test_a_run_says_what_it_measured_or_why_not(book):
    _, _, runs = book
    assert [(name, run.status) for name, run in runs.items()] == [
        ("01_good", "done"),
        ("02_fails", "failed"),
        ("03_killed", "failed"),
    ]
    assert runs["01_good"].headline == "6 at laptop" and runs["01_good"].results == {"count": 3}
    assert runs["02_fails"].reason == "ValueError: the lamp is off"
    assert "DeadKernelError" in runs["03_killed"].reason


@pytest.mark.parametrize(
    ("returncode", "record", "status", "words"),
    [
        (0, '{"headline": "all well", "results": {}}', "done", ""),
        (1, '{"headline": "all well", "results": {}}', "failed", "exit code 1"),
        (-9, None, "failed", "exit code -9"),
        (0, None, "failed", "no cell wrote its record"),
        (0, '{"title": "all well", "results": {}}', "failed", "headline"),
        (0, '{"headline": "all we', "failed", "cannot be used"),
        (0, "[]", "failed", "cannot be used"),
    ],
)
def test_status_comes_from_exit_code_and_record_together(tmp_path, returncode, record, status, words):
    write_chapter(tmp_path, "01_good", RECORD)
    (run,) = plan_runs(tmp_path, tmp_path, "smoke")
    Path(run.folder).mkdir(parents=True)
    Path(run.folder, "log.txt").write_text("Executing Cell 1\n")
    if record is not None:
        Path(run.folder, "record.json").write_text(record)
    run.status, run.cause, run.reason = judge(run, returncode)
    assert run.status == status and words in run.reason
    assert write_status(run) and json.loads(Path(run.folder, "status.json").read_text())["status"] == status
    assert finished_before(run) is (status == "done")


def test_a_chapter_without_code_needs_no_record(tmp_path):
    write_chapter(tmp_path, "index", parameters=None)
    (run,) = plan_runs(tmp_path, tmp_path, "smoke")
    Path(run.folder).mkdir(parents=True)
    assert judge(run, 0) == ("done", "", "") and run.headline == "text only"


@pytest.mark.spawns
def test_the_folder_holds_the_executed_chapter_its_log_and_its_status(book):
    _, out, runs = book
    folder = out / "book" / "laptop" / "01_good"
    assert "words before" in (folder / "log.txt").read_text()
    executed = json.loads((folder / "chapter.ipynb").read_text())
    assert any("injected-parameters" in cell["metadata"].get("tags", []) for cell in executed["cells"])
    for name, run in runs.items():
        status = json.loads((out / "book" / "laptop" / name / "status.json").read_text())
        assert (status["status"], status["fingerprint"]) == (run.status, run.fingerprint)
    killed = json.loads((out / "book" / "laptop" / "03_killed" / "status.json").read_text())
    assert killed["return_code"] != 0


@pytest.mark.spawns
def test_the_table_names_every_chapter_and_where_to_read_on(book, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_table(list(book[2].values()))
    printed = capsys.readouterr().out
    for words in ("01_good", "6 at laptop", "ValueError: the lamp is off", "02_fails: failed; read"):
        assert words in printed


@pytest.mark.spawns
def test_resume_keeps_what_finished_and_only_that(book, monkeypatch):
    chapters, out, runs = book

    def kept(**changes):
        plan = plan_runs(chapters, out, "laptop", given=changes, names=["01", "02", "03"])
        return [run.chapter for run in plan if finished_before(run)]

    assert kept() == ["01_good"]
    assert kept(count=5) == []
    monkeypatch.setattr(runner, "Job", lambda *_: pytest.fail("a finished chapter was started again"))
    again = run_book(chapters, out, tier="laptop", names=["01"], resume=True)
    assert [(run.status, run.seconds) for run in again] == [("kept", runs[run.chapter].seconds) for run in again]
    with pytest.raises(pytest.fail.Exception):  # without resume the same call starts it
        run_book(chapters, out, tier="laptop", names=["01"])


@pytest.mark.spawns
def test_a_chapter_that_takes_too_long_is_ended(tmp_path):
    write_chapter(tmp_path / "chapters", "01_sleeps", SLEEP, RECORD)
    (run,) = run_book(tmp_path / "chapters", tmp_path / "runs", timeout=1)
    assert run.status == "timed out" and "1 s" in run.reason
    assert processes_of(tmp_path) == []


@pytest.mark.spawns
def test_the_reason_is_the_exception_that_ended_the_chapter_not_its_cause(tmp_path):
    cause = """
        from s4d_lib.frames import UnreadableMedia
        try:
            raise ValueError("cut short")
        except ValueError as error:
            raise UnreadableMedia("clips/00033.mp4", "broken") from error
    """
    write_chapter(tmp_path / "chapters", "01_broken", textwrap.dedent(cause), RECORD)
    (run,) = run_book(tmp_path / "chapters", tmp_path / "runs")
    assert run.status == "failed" and run.reason.startswith("UnreadableMedia: clips/00033.mp4: broken")


@pytest.mark.parametrize(("losses", "code"), [(1, 0), (2, CELL_ERROR)])
def test_a_kernel_that_lost_its_port_is_started_once_more_and_not_for_ever(tmp_path, monkeypatch, losses, code):
    chapter, lives = write_chapter(tmp_path, "01_fine", RECORD), []

    def losing(*_, **__):
        lives.append(1)
        if len(lives) <= losses:
            raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(worker.papermill, "execute_notebook", losing)
    (tmp_path / "request.json").write_text(json.dumps({"chapter": str(chapter), "parameters": {}, "cwd": "."}))
    assert (worker.execute(tmp_path), len(lives)) == (code, 2)


# ------------------------------------------------------------------------------------------------------------ cli


def run_cli(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "s4d_lib.cli", *words], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["faces", "out", "--recipe", "nope"], "unknown recipe 'nope'"),
        (["train", "missing.yaml"], "missing.yaml: there is no such file"),
        (["train", "list.yaml"], "must set stage"),
        (["train", "unknown.yaml"], "sise"),
        (["data", "--tier", "huge"], "unknown tier 'huge'"),
        (["book", "99"], "holds no chapter"),
    ],
)
def test_what_we_refuse_is_said_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "list.yaml").write_text("- pretrain\n")
    (tmp_path / "unknown.yaml").write_text("stage: pretrain\nname: x\nsise: tiny\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["s4d", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == ""
    assert err.startswith("s4d: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.spawns
def test_a_refusal_is_the_same_to_a_shell(tmp_path):
    done = run_cli("data", "--tier", "huge", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("s4d: unknown tier 'huge'") and done.stderr.count("\n") == 1


def test_a_defect_keeps_its_traceback(monkeypatch):
    def defect():
        raise ValueError("raised outside the library")

    monkeypatch.setattr(app, "app", defect)
    with pytest.raises(ValueError, match="outside the library"):
        app.main()


@pytest.mark.spawns
def test_help_does_not_import_what_only_commands_need(tmp_path):
    probe = "import sys, s4d_lib.cli; print([m for m in ('torch', 'numpy', 'papermill') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert run_cli("--version", cwd=tmp_path).stdout.startswith("s4d 0.")
