"""Chapters → runs: killed kernels, no memory, full disks, time-outs, stopped and killed runners, each told as it is."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_chapters import RECORD, SLEEP, is_alive, processes_of, start_runner, stub_worker, wait_for, write_chapter

from s4d_lib.batch import runner as batch
from s4d_lib.batch.causes import DISK_FULL, KERNEL_DIED, judge
from s4d_lib.batch.runner import plan_runs, run_book
from s4d_lib.batch.status import RunLock, is_running, look_back, read_status, write_status
from s4d_lib.files import Locked

# A training as ours is: at an interrupt it finishes its step and leaves a checkpoint; the next call goes on from there.
TRAIN = """
import os, pathlib, time
home = pathlib.Path(os.environ["S4D_RUNS"], "training")
home.mkdir(parents=True, exist_ok=True)
saved = home / "checkpoint"
step = int(saved.read_text()) if saved.exists() else 0
resumed_at = step
try:
    while step < 200 and not (resumed_at and step >= resumed_at + 3):
        step += 1
        (home / "began").write_text(str(step))
        time.sleep(0.05)
finally:
    saved.write_text(str(step))
count = 100 if resumed_at else 0
"""


@pytest.fixture(scope="module", autouse=True)
def same_library():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_library_hashes", lambda _: {"x.py": "this library"})
        yield


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Chapters that end badly in their own ways, and one that ends well, in one call."""
    chapters = tmp_path_factory.mktemp("faults") / "chapters"
    leave = "import subprocess\nsubprocess.Popen(['sleep', '600'], start_new_session=True)"
    write_chapter(chapters, "01_killed", leave, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", RECORD)
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\nbytearray(2**33)"
    write_chapter(chapters, "02_greedy", limit, RECORD)
    write_chapter(chapters, "03_full", "open('/dev/full', 'w').write('x' * 10**6)", RECORD)
    write_chapter(chapters, "04_good", RECORD)
    write_chapter(chapters, "05_leaves", "import os\nos._exit(7)", RECORD)
    runs = run_book(chapters, chapters.parent / "runs", jobs=2)
    return {run.chapter[3:]: run for run in runs}


@pytest.mark.spawns
@pytest.mark.parametrize(
    ("chapter", "status", "cause", "words"),
    [("killed", "failed", "kernel killed", "SIGKILL in cell 4 of 5"),
     ("greedy", "failed", "out of memory", "MemoryError"),
     ("full", "failed", "disk full", "No space left on device"), ("good", "done", "", ""),
     ("leaves", "failed", "kernel killed", "exit code 7")],
)
def test_each_end_is_told_as_what_it_is(ended, chapter, status, cause, words):
    run = ended[chapter]
    assert (run.status, run.cause) == (status, cause) and words in run.reason
    assert read_status(run.folder)["cause"] == cause


@pytest.mark.spawns
def test_what_a_killed_kernel_had_started_does_not_go_on(ended):
    """A trainer whose notebook is gone would write into the run that the next call resumes."""
    assert all(ended["killed"].folder not in words for words in environments())


@pytest.mark.spawns
def test_memory_and_the_last_cell_are_noted_for_every_run(ended):
    for run in ended.values():
        assert 20 < run.peak_memory_mb < 3000 and run.cells in (3, 4, 5), run
    assert ended["killed"].cell == 4 and ended["good"].cell == 3


def environments() -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            found.append(process.environ().get("S4D_CHAPTER_OUT", ""))
        except (psutil.Error, OSError):
            continue
    return found


# ------------------------------------------------------------------------------------------- what an exit code means


@pytest.mark.parametrize(
    ("kernel_exit", "kills", "cause", "words"),
    [(-9, 1, "out of memory", "OOM killer"), (-9, 0, "kernel killed", "SIGKILL"), (-11, 1, "kernel killed", "SIGSEGV"),
     (None, 0, "kernel killed", "ended")],
)
def test_a_killed_kernel_is_out_of_memory_only_if_the_system_says_so(tmp_path, kernel_exit, kills, cause, words):
    (run,) = a_run(tmp_path)
    Path(run.folder, "outcome.json").write_text(json.dumps(
        {"error": "DeadKernelError", "says": "Kernel died", "kernel_exit": kernel_exit}))
    status, found, reason = judge(run, KERNEL_DIED, kills)
    assert (status, found) == ("failed", cause) and words in reason


@pytest.mark.parametrize(
    ("error", "says", "cause"),
    [("OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB", "out of memory"),
     ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "out of memory"),
     ("SafetensorError", "I/O error: No space left on device (os error 28)", "disk full"),
     ("ValueError", "no space for another word in this list", "error")],
)
def test_errors_that_mean_no_memory_or_no_room_are_known_by_their_words(tmp_path, error, says, cause):
    (run,) = a_run(tmp_path)
    Path(run.folder, "outcome.json").write_text(json.dumps({"error": error, "says": says}))
    assert judge(run, 1) == ("failed", cause, f"{error}: {says}")


def test_the_worker_killed_itself_and_a_full_disk_without_any_outcome_are_told_from_the_exit_code(tmp_path):
    (run,) = a_run(tmp_path)
    assert judge(run, -9, 0)[1] == "killed" and judge(run, -9, 2)[1] == "out of memory"
    assert judge(run, DISK_FULL)[1] == "disk full"


def a_run(folder: Path):
    write_chapter(folder / "chapters", "01_one", RECORD)
    runs = plan_runs(folder / "chapters", folder / "runs", "smoke")
    for run in runs:
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        Path(run.folder, "log.txt").write_text("")
    return runs


# ---------------------------------------------------------------------------------------------------------- full disk


def test_a_status_that_finds_no_room_leaves_the_one_before(tmp_path, monkeypatch):
    (run,) = a_run(tmp_path)
    assert write_status(run)
    run.status = "done"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda _, content: open("/dev/full", "wb", buffering=0).write(content))
        assert not write_status(run) and read_status(run.folder)["status"] == "waiting"
    assert {path.name for path in Path(run.folder).iterdir()} == {"log.txt", "status.json"}
    assert write_status(run) and read_status(run.folder)["status"] == "done"


@pytest.mark.spawns
def test_on_a_disk_without_room_nothing_more_is_started(tmp_path, monkeypatch):
    for name in ("01_a", "02_b", "03_c"):
        write_chapter(tmp_path / "chapters", name, RECORD)
    stub_worker(monkeypatch, tmp_path, "sys.exit(28)")
    runs = run_book(tmp_path / "chapters", tmp_path / "runs", jobs=1)
    assert [run.cause for run in runs] == ["disk full"] * 3  # room is left, so that the others had their try
    monkeypatch.setattr(batch, "disk_is_full", lambda _: True)
    runs = run_book(tmp_path / "chapters", tmp_path / "runs", jobs=1)
    assert [run.status for run in runs] == ["failed", "waiting", "waiting"] and "not started" in runs[2].reason


# --------------------------------------------------------------------------------------------- time-outs and interrupts


@pytest.mark.spawns
def test_a_chapter_that_takes_too_long_is_ended_with_all_it_started(tmp_path):
    write_chapter(tmp_path / "chapters", "01_sleeps", SLEEP, RECORD)
    (run,) = run_book(tmp_path / "chapters", tmp_path / "runs", timeout=1)
    assert (run.status, run.cause) == ("timed out", "time-out") and "1 s" in run.reason
    assert processes_of(tmp_path) == []


@pytest.mark.spawns
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_runner_lets_a_training_save_itself_and_resume_goes_on(tmp_path, number, code):
    chapters, out = tmp_path / "chapters", tmp_path / "runs"
    write_chapter(chapters, "01_good", RECORD)
    write_chapter(chapters, "02_trains", TRAIN, RECORD)
    runner = start_runner(chapters, out, "--jobs", "1")
    wait_for(out / "training" / "began", runner)
    runner.send_signal(number)
    said, notes = runner.communicate()
    assert runner.returncode == code and f"stopped by {number.name}" in notes
    assert "01_good" in said and f"interrupted ({number.name})" in said
    folder = out / "book" / "smoke"
    assert [read_status(folder / name)["status"] for name in ("01_good", "02_trains")] == ["done", "interrupted"]
    assert 0 < int((out / "training" / "checkpoint").read_text()) < 200
    assert [row["status"] for row in json.loads((folder / "table.json").read_text())["runs"]] == ["done", "interrupted"]
    assert processes_of(tmp_path) == []
    if number == signal.SIGINT:
        return
    runner = start_runner(chapters, out, "--resume")
    said, notes = runner.communicate()
    assert runner.returncode == 0 and "200 at smoke" in said, notes  # the training went on from its checkpoint
    assert "interrupted before" in notes and read_status(folder / "01_good")["status"] == "done"
    assert "kept" in said


@pytest.mark.spawns
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_after_a_killed_runner_the_next_start_says_so_and_ends_what_is_left(tmp_path):
    chapters, out = tmp_path / "chapters", tmp_path / "runs"
    write_chapter(chapters, "01_good", RECORD)
    write_chapter(chapters, "02_sleeps", SLEEP.replace("time.sleep(600)", "time.sleep(600 * (count == 3))"), RECORD)
    runner = start_runner(chapters, out, "--jobs", "1")
    folder = out / "book" / "smoke" / "02_sleeps"
    kernel, child = map(int, wait_for(folder / "children", runner).split())
    assert is_running(folder)

    second = start_runner(chapters, out)  # two runners in one folder would write over each other
    _, refused = second.communicate()
    assert second.returncode == 2 and "another runner is at work on 02_sleeps" in refused

    runner.kill()
    runner.communicate()
    until = time.monotonic() + 60
    while (is_alive(kernel) or processes_of(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(kernel) and processes_of(tmp_path) == []  # the kernel ends by itself, its own child does not
    assert read_status(folder)["status"] == "running" and not is_running(folder)
    assert is_alive(child)

    runner = start_runner(chapters, out, "--resume", "-p", "count=4")
    said, notes = runner.communicate()
    assert runner.returncode == 0, notes
    assert "02_sleeps: left behind at cell 3 of 4 by a runner that was killed without warning" in notes
    assert "01_good: stale: " in notes and "count was 3 and is 4" in notes
    assert not is_alive(child)


@pytest.mark.spawns
def test_a_lock_is_held_once_and_given_back_by_the_end_of_its_holder(tmp_path):
    lock = RunLock(tmp_path)
    lock.take()
    assert is_running(tmp_path)
    with pytest.raises(Locked, match="is at work"):
        RunLock(tmp_path).take()
    lock.give_back()
    assert not is_running(tmp_path)
    program = f"import time; from s4d_lib.batch.status import RunLock; l = RunLock({str(tmp_path)!r}); l.take(); " \
              "print('taken', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "taken\n" and is_running(tmp_path)
    holder.kill()
    holder.wait()
    assert not is_running(tmp_path)


def test_a_run_of_another_machine_counts_as_alive_while_it_gives_signs_of_life(tmp_path):
    (run,) = a_run(tmp_path)
    run.status, run.host, run.pid = "running", "a-node-elsewhere", 7
    write_status(run)
    Path(run.folder, "lock").touch()
    assert is_running(run.folder)
    past = time.time() - 120
    os.utime(Path(run.folder, "lock"), (past, past))
    assert not is_running(run.folder)
    assert "process 7 on a-node-elsewhere" in look_back(run)
