"""exit → cause     what it means that a chapter's process has ended: done, an error, no memory, no disk, or killed.

The witnesses are the exit code of the worker, what it wrote down last, the record, and the system's own count of
processes that it killed for want of memory.
"""

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from s4d_lib.batch.status import ChapterRun, read_record

CELL_ERROR, KERNEL_DIED, DISK_FULL = 1, 3, 28  # exit codes of worker.py; 0 is a chapter that ran through
NO_MEMORY = re.compile(r"MemoryError|out of memory|can't allocate memory|cannot allocate memory|not enough memory"
                       r"|unable to allocate|bad_alloc", re.IGNORECASE)
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded|os error 28", re.IGNORECASE)


def judge(run: ChapterRun, return_code: int, kills: int = 0) -> tuple[str, str, str]:
    """(status, cause, reason) of a run whose worker has ended, from exit code, outcome and record.

    kills  how many processes the system has killed for want of memory meanwhile
    """
    outcome, error = read_outcome(run), _last_error(run, return_code)
    if return_code == 0:
        try:
            read_record(run)
        except OSError:
            return "failed", "no record", "it ran through, but no cell wrote its record (chapter_record)"
        except (ValueError, KeyError, TypeError) as wrong:
            return "failed", "no record", f"its record.json cannot be used: {wrong!r}"
        return "done", "", ""
    if return_code == KERNEL_DIED or return_code < 0:
        which = "the kernel" if return_code == KERNEL_DIED else "the process of the chapter"
        number = outcome.get("kernel_exit") if return_code == KERNEL_DIED else return_code
        how = f"was ended by {_signal_name(-number)}" if number and number < 0 else f"ended (exit code {number})"
        at = f" in cell {run.cell} of {run.cells}" if run.cell else ""
        if number == -signal.SIGKILL and kills:
            return "failed", "out of memory", f"{which} was killed{at}: the system had run out of memory (OOM killer)"
        what = "kernel killed" if return_code == KERNEL_DIED else "killed"
        seen = "; DeadKernelError" if return_code == KERNEL_DIED else f"; exit code {return_code}"
        return "failed", what, f"{which} {how}{at}, and not by this runner{seen}"
    if return_code == DISK_FULL or NO_SPACE.search(error):
        return "failed", "disk full", error
    if NO_MEMORY.search(error):
        return "failed", "out of memory", error
    return "failed", "error", error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_outcome(run: ChapterRun) -> dict:
    try:
        return json.loads((Path(run.folder) / "outcome.json").read_text())
    except (OSError, ValueError):
        return {}


def _last_error(run: ChapterRun, return_code: int) -> str:
    """The exception and what it says: from the worker, else from the line of the log that ends its last traceback."""
    outcome = read_outcome(run)
    if outcome.get("error"):
        return f"{outcome['error']}: {outcome['says']}".strip().rstrip(":")
    try:
        log = (Path(run.folder) / "log.txt").read_text(errors="replace")
    except OSError:
        log = ""
    log = re.sub(r"\x1b\[[0-9;]*m", "", log)  # the kernel colours its tracebacks
    log = log[log.rfind("Traceback (most recent call last)") :]
    named = re.findall(r"^(?:\w+\.)*([A-Z]\w+(?:: .*)?)$", log, flags=re.MULTILINE)
    return named[-1].strip() if named else f"exit code {return_code}, and the log names no error"


def oom_kills() -> int:
    """How many processes the system has killed for want of memory: in our control group, else on the machine."""
    for path, pattern in _oom_counters():
        with contextlib.suppress(OSError):
            found = re.search(pattern, Path(path).read_text(), flags=re.MULTILINE)
            if found:
                return int(found[1])
    return 0


def _oom_counters() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, names, group = line.split(":", 2)
            if number == "0" and group != "/":
                yield f"/sys/fs/cgroup{group}/memory.events", r"^oom_kill (\d+)"
            elif "memory" in names.split(","):
                yield f"/sys/fs/cgroup/memory{group}/memory.oom_control", r"^oom_kill (\d+)"
    yield "/sys/fs/cgroup/memory.events", r"^oom_kill (\d+)"
    yield "/proc/vmstat", r"^oom_kill (\d+)"
