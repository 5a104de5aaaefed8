"""run → process     one chapter at work: its process, its memory, its end.

A worker (`worker.py`) in a session of its own runs the chapter; the kernel is its child. We watch from outside,
judge from exit codes, the record and what the system counted, and see to it that nothing of a run outlives it.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from s4d_lib.batch.causes import judge, oom_kills, read_outcome
from s4d_lib.batch.status import ChapterRun, RunLock, read_progress, write_status

WORKER = (sys.executable, "-m", "s4d_lib.batch.worker")
GRACE = 20.0  # seconds that a training has to finish its step and write its checkpoint


class Job:
    """A run that has been started. `poll()` until it says True; then `run` tells how it ended."""

    def __init__(self, run: ChapterRun, chapters: Path, out: Path, limit: float) -> None:
        """Starts it. Locked when somebody else is at work in its folder; OSError for what the disk refuses."""
        self.run, self.limit, self.began = run, limit, time.monotonic()
        self.lock = RunLock(run.folder)
        self.lock.take()
        self.kills_before = oom_kills()
        self._next_look = 0.0
        try:
            end_leftovers(run.folder)
            self.process = self._start(Path(chapters).resolve(), Path(out).resolve())
        except BaseException:
            self.lock.give_back()
            raise

    def _start(self, chapters: Path, out: Path) -> subprocess.Popen:
        run, folder = self.run, Path(self.run.folder)
        left = "chapter.ipynb", "source.ipynb", "record.json", "log.txt", "progress.json", "outcome.json"
        for path in (*(folder / name for name in left), *folder.glob(".*.tmp")):  # those: of a writer that was killed
            path.unlink(missing_ok=True)
        run.status, run.started = "running", datetime.now(timezone.utc).isoformat(timespec="seconds")
        run.host, run.pid, run.cause, run.reason = socket.gethostname(), os.getpid(), "", ""
        write_status(run)
        request = {"chapter": str(chapters / f"{run.chapter}.md"), "parameters": run.changed,
                   "cwd": str(chapters)}
        (folder / "request.json").write_text(json.dumps(request))
        environment = {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **os.environ}
        environment |= {"S4D_RUNS": str(out), "S4D_CHAPTER_OUT": run.folder}
        if run.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = run.gpus
        with open(folder / "log.txt", "wb") as log:  # its own session: we, not the terminal, pass Ctrl-C on
            return subprocess.Popen([*WORKER, run.folder], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                    env=environment, start_new_session=True,
                                    preexec_fn=_before_the_worker if os.name == "posix" else None)

    def poll(self) -> bool:
        """Look at the run; True when it is over, by itself or because its time was up. Then its status is written."""
        self.run.seconds = round(time.monotonic() - self.began, 1)
        ended = self.process.poll() is not None
        if not ended and self.run.seconds >= self.limit:
            end_jobs([self])
            self._look()
            self._close("timed out", "time-out", f"took more than {self.limit:g} s")
        elif ended:
            self._look()
            self._close(*judge(self.run, self.process.returncode, oom_kills() - self.kills_before))
        elif time.monotonic() >= self._next_look:
            self._look()
            self._next_look = time.monotonic() + 1.0
        return self.run.status != "running"

    def interrupted(self, cause: str) -> None:
        """Write down that the run, which `end_jobs` has ended, was stopped from outside, such as by SIGTERM."""
        self.run.seconds = round(time.monotonic() - self.began, 1)
        self._look()
        self._close("interrupted", cause, f"stopped by {cause}; --resume goes on with it")

    def _look(self) -> None:
        for name, number in read_progress(self.run.folder).items():
            setattr(self.run, name, number)
        memory = sum(_resident(process) for process in _family(self.process.pid))
        self.run.peak_memory_mb = round(max(self.run.peak_memory_mb, memory / 1e6), 1)
        self.lock.beat()

    def _close(self, status: str, cause: str, reason: str) -> None:
        run = self.run
        run.status, run.cause, run.reason, run.return_code = status, cause, reason, self.process.poll()
        largest = read_outcome(run).get("largest_process_mb", 0.0)
        run.peak_memory_mb = round(max(run.peak_memory_mb, largest), 1)
        end_leftovers(run.folder)
        if not write_status(run):
            run.status, run.cause = "failed", "disk full"
            run.reason = "the disk is too full to write down how it ended; make room and use --resume"
        self.lock.give_back()


def end_jobs(jobs: Sequence[Job], grace: float | None = None, hurry: Callable[[], bool] = lambda: False) -> None:
    """End workers, kernels and the kernels' children, all jobs at once.

    First an interrupt to the kernels, at which a training finishes its step and writes its checkpoint; after `grace`
    seconds, or when `hurry()` says so, force.
    """
    import psutil

    families = {job: _family(job.process.pid) for job in jobs}
    for job, family in families.items():
        if (Path(job.run.folder) / "progress.json").exists():  # else no cell has begun, and there is nothing to save
            for process in family[1:]:  # not the worker, which writes down what its kernel says at the end
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGINT)
        else:
            job.process.terminate()
    _wait(jobs, GRACE if grace is None else grace, hurry)
    for job in jobs:
        job.process.terminate()
    _wait(jobs, 5.0, hurry)
    for job, family in families.items():
        if job.process.poll() is None:
            job.process.kill()
            job.process.wait()
        _, survivors = psutil.wait_procs(family[1:], timeout=1)
        for survivor in survivors:
            with contextlib.suppress(psutil.Error):
                survivor.kill()


def _wait(jobs: Sequence[Job], seconds: float, hurry: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while any(job.process.poll() is None for job in jobs) and time.monotonic() < until and not hurry():
        time.sleep(0.05)


def _before_the_worker() -> None:
    """In the new process: end with the runner, and leave a scheduler's warning to it.

    On Linux the system kills the worker when its parent is gone, however that ended, and the kernel then ends by
    itself; a runner that was killed would otherwise leave chapters behind that write into the folders of the next one.
    SIGUSR2, with which Slurm warns every process of a job, would by default kill kernel and training before they save;
    a signal that is ignored here stays ignored in all that comes from this process. For the same reason SIGINT, which
    asks a training to save itself, must not be ignored: a shell script that starts `s4d book … &` has it so.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _family(pid: int) -> list:
    """The process and all that come from it, itself first; empty when it is gone."""
    import psutil

    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def _resident(process) -> int:
    import psutil

    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def end_leftovers(folder: str) -> list[int]:
    """Kill what earlier runs in this folder left running, such as a trainer whose kernel was killed; their numbers.

    They carry the folder in their environment, which every process hands on to those it starts. Only called by the
    holder of the folder's lock.
    """
    import psutil

    ended = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("S4D_CHAPTER_OUT") == folder:
                process.kill()
                ended.append(process.pid)
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return ended
