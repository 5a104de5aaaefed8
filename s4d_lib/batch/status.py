"""run ↔ status.json     how far a run of a chapter has come, written by the runner and believed after any crash.

The file is replaced whole, so that whoever reads it, whenever its writer was killed, finds one state or the next. A run
that says "running" while nobody holds its lock was left behind by a runner that was killed. Nothing here asks the
executed notebook, whose metadata calls a cell "completed" whose kernel was killed.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from s4d_lib.batch.chapters import Value
from s4d_lib.files import Lock, Locked, is_disk_full, is_locked, write_atomically

SUCCESS = ("done", "kept")
STALE_BEAT = 60.0  # seconds without a sign of life after which a run of another machine counts as left behind


@dataclass
class ChapterRun:
    """One chapter at one tier with one set of parameters: what was asked for, and how it ended.

    `status` is "waiting", "queued" (at a cluster), "running", "done", "kept" (an earlier run of the same chapter,
    library and parameters had finished), "failed", "timed out" or "interrupted". `cause` says what kind of failure or
    interrupt it was, such as "out of memory" or "SIGTERM"; `reason` says it in a sentence.
    """

    chapter: str
    tier: str
    folder: str
    parameters: dict[str, Value]  # all of them, defaults included
    expects_record: bool  # false for a chapter without code
    fingerprint: str
    changed: dict[str, Value] = field(default_factory=dict)  # those that differ from the chapter's defaults
    point: dict[str, Value] = field(default_factory=dict)  # the swept parameters, empty outside a sweep
    made_from: dict[str, str | dict] = field(default_factory=dict)  # content hashes that the fingerprint sums up
    status: str = "waiting"
    cause: str = ""
    reason: str = ""
    headline: str = ""
    started: str = ""
    seconds: float = 0.0
    return_code: int | None = None
    cell: int = 0  # the one being executed or executed last, from 1
    cells: int = 0
    peak_memory_mb: float = 0.0  # resident memory of all processes of the run, MB of 10⁶ bytes
    gpus: str | None = None  # CUDA_VISIBLE_DEVICES of the run; None: as the runner's own
    host: str = ""
    pid: int = 0  # of the runner
    job: str = ""  # of the cluster, if one ran it
    results: dict = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.status in SUCCESS

    @property
    def name(self) -> str:
        """The chapter, and the point of the sweep if it is one."""
        return Path(self.folder).name

    @property
    def ended_as(self) -> str:
        """One or two words for the table: what kind of failure or interrupt it was, else the status."""
        if self.status == "interrupted" and self.cause:
            return f"interrupted ({self.cause})"
        return self.cause if self.status == "failed" and self.cause not in ("", "error") else self.status


def point_label(point: Mapping[str, Value]) -> str:
    """`fold=1,seed=2`, fit for the name of a folder; a value that is not, or is long, is named by its hash."""
    words = []
    for name, value in point.items():
        text = str(value)
        plain = len(text) <= 24 and all(c.isalnum() or c in "._+-" for c in text)
        words.append(f"{name}={text if plain else hashlib.sha256(repr(value).encode()).hexdigest()[:8]}")
    return ",".join(words)


# ------------------------------------------------------------------------------------------------- read and write


def write_status(run: ChapterRun) -> bool:
    """Write it atomically; False when the disk is full, in which case the file says what it said before."""
    path = Path(run.folder) / "status.json"
    try:
        write_atomically(path, json.dumps(asdict(run), indent=1))
    except OSError as error:
        if not is_disk_full(error):
            raise
        return False
    return True


def read_status(folder: str | Path) -> dict:
    """What the folder's status.json says; empty where there is none, or none that can be used."""
    try:
        said = json.loads((Path(folder) / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and "status" in said else {}


def read_progress(folder: str | Path) -> dict[str, int]:
    """Where the worker is, or was last: "cell", from 1, of so many "cells". Empty before the first."""
    try:
        said = json.loads((Path(folder) / "progress.json").read_text())
        return {"cell": said["cell"], "cells": said["cells"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_record(run: ChapterRun) -> None:
    """Take headline and results from the record that the chapter wrote; OSError or ValueError without a usable one."""
    path = Path(run.folder) / "record.json"
    if not run.expects_record and not path.exists():
        run.headline = "text only"
        return
    record = json.loads(path.read_text())
    run.headline, run.results = str(record["headline"]), dict(record["results"])


# ---------------------------------------------------------------------------------------------- what was there before


def finished_before(run: ChapterRun) -> bool:
    """Whether the folder holds a finished run of the same chapter, library and parameters; takes it over."""
    before = read_status(run.folder)
    if (before.get("status"), before.get("fingerprint")) != ("done", run.fingerprint):
        return False
    try:
        read_record(run)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    run.status = "kept"
    for name in ("seconds", "started", "cell", "cells", "peak_memory_mb", "gpus", "host", "job", "return_code"):
        setattr(run, name, before.get(name, getattr(run, name)))
    return True


def look_back(run: ChapterRun) -> str:
    """One sentence about an earlier run in this folder that cannot be kept; empty where there is nothing to say."""
    before = read_status(run.folder)
    status = before.get("status")
    if status == "queued":
        return "waiting at a cluster when the runner was stopped"
    if status == "running":
        reached = read_progress(run.folder)
        at = f" at cell {reached['cell']} of {reached['cells']}" if reached else ""
        return (f"left behind{at} by a runner that was killed without warning (process {before.get('pid')} on "
                f"{before.get('host')})")
    if status in ("failed", "timed out", "interrupted"):
        return f"{status} before: {(status == 'failed' and before.get('reason')) or before.get('cause') or status}"
    if status == "done" and before.get("fingerprint") != run.fingerprint:
        return f"stale: {'; '.join(_differences(before, run)) or 'it was made by an older runner'}"
    if status == "done":
        return "finished before, but the record is gone or broken"
    return ""


def _differences(before: Mapping, run: ChapterRun) -> Iterator[str]:
    """What a finished run was made from that is different now, in words."""
    then, now = before.get("made_from", {}), run.made_from
    if then and then.get("chapter") != now.get("chapter"):
        yield "the chapter's text has changed"
    if then and then.get("data") != now.get("data"):
        yield "the lists of the data have changed"
    for part in ("library", "records"):
        old, new = then.get(part, {}), now.get(part, {})
        if then and old != new:
            files = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            more = f" and {len(files) - 4} more" if len(files) > 4 else ""
            yield f"the {part} changed ({', '.join(files[:4])}{more})"
    old = before.get("parameters", {})
    for name in sorted(old.keys() | run.parameters.keys()):
        if old.get(name) != run.parameters.get(name):
            yield f"{name} was {old.get(name)!r} and is {run.parameters.get(name)!r}"


# ------------------------------------------------------------------------------------------------- one at a time


class RunLock(Lock):
    """The right to write into a run's folder, which says by whom it is held."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(Path(folder) / "lock")

    def take(self) -> None:
        """Raises Locked when somebody else has it."""
        try:
            super().take()
        except Locked:
            folder = self.path.parent
            raise Locked(f"{folder.name}: {_who(folder)} is at work in {folder}; wait for it, or give another "
                         "--out") from None

    def beat(self) -> None:
        """A sign of life, for runners on other machines: some shared file systems keep locks to one machine."""
        with contextlib.suppress(OSError):
            os.utime(self.path)


def is_running(folder: str | Path) -> bool:
    """Whether a runner, here or on another machine, is at work in the folder now."""
    folder, said = Path(folder), read_status(folder)
    path = folder / "lock"
    if not path.exists():
        return False
    if is_locked(path):
        return True
    elsewhere = said.get("status") == "running" and said.get("host") != socket.gethostname()
    return elsewhere and _now_there(folder) - path.stat().st_mtime < STALE_BEAT


def _now_there(folder: Path) -> float:
    """The time by the clock of the machine that holds the files, which need not be ours."""
    probe = folder / f".clock-{os.getpid()}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now


def _who(folder: Path) -> str:
    said = read_status(folder)
    return f"process {said['pid']} on {said['host']}" if said.get("pid") else "another runner"
