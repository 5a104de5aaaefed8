"""runs → cluster     the same runs as Slurm jobs, through submitit: arrays for sweeps, requeue with resume.

A job runs one chapter as the local runner does and writes the same status into the same folder, which must lie on
storage that all nodes share. When the scheduler preempts a job or its time is up, the training inside saves itself,
submitit puts the job back into the queue, and the next start goes on from the checkpoint. The runner that submitted
only watches: it may be stopped, and the same command with --resume finds its jobs again. Explained in appendix c.
"""

import contextlib
import math
import signal
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from s4d_lib.batch.chapters import ChapterError, Value, did_you_mean
from s4d_lib.batch.job import Job, end_jobs
from s4d_lib.batch.status import STALE_BEAT, ChapterRun, finished_before, read_progress, read_status, write_status
from s4d_lib.batch.view import View
from s4d_lib.errors import require
from s4d_lib.files import Locked

CLUSTERS = ("slurm", "local")
SHARED = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node")  # of submitit; its own name the rest
TOLD = ("status", "cause", "reason", "headline", "started", "return_code", "cell", "cells", "seconds", "peak_memory_mb",
        "host", "results")  # what a node tells about a run
LATE = 30.0  # seconds that a last word may take
ENDED = ("done", "failed", "timed out")  # an interrupted run may be in the queue again
LOST = {"OUT_OF_MEMORY": "out of memory", "TIMEOUT": "time-out", "NODE_FAIL": "node failed", "CANCELLED": "cancelled",
        "PREEMPTED": "preempted", "BOOT_FAIL": "node failed", "DEADLINE": "time-out"}


@dataclass
class ChapterJob:
    """What runs on a node: one chapter. Callable, and able to go on after a preemption, as submitit wants it."""

    run: ChapterRun
    chapters: str
    out: str
    limit: float

    def __call__(self) -> str:
        """Returns the status. A run that an earlier start of this job had finished is kept."""
        if finished_before(self.run):
            return "done"
        fresh = deepcopy(self)
        with _term_noticed() as told:
            self.at_work = self._start()
            self.fresh = fresh
            while not self.at_work.poll() and not told:
                time.sleep(0.2)
            if told and self.run.status == "running":
                end_jobs([self.at_work])
                self.at_work.interrupted("SIGTERM")
            if told:  # a preemption, if the user signal or the end follows; submitit does the rest in its handler
                time.sleep(STALE_BEAT)
        return self.run.status

    def _start(self) -> Job:
        """After a node was lost, its lock may outlive it for as long as the file server waits for a sign of life."""
        until = time.monotonic() + 2 * STALE_BEAT
        while True:
            try:
                return Job(self.run, Path(self.chapters), Path(self.out), self.limit)
            except Locked:
                if time.monotonic() > until:
                    raise
                time.sleep(2.0)

    def checkpoint(self) -> Any:
        """Called by submitit when the job is preempted or its time is up: save, and say how to go on."""
        from submitit.helpers import DelayedSubmission

        if self.run.status == "running":
            end_jobs([self.at_work])
            self.at_work.interrupted("preempted")
        return DelayedSubmission(self.fresh)

    def __getstate__(self) -> dict:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@contextlib.contextmanager
def _term_noticed():
    """Schedulers send SIGTERM to every process of a job first; submitit only logs it, which would lose the training."""
    told: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        yield told
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, before)


def make_executor(cluster: str, folder: Path, limit: float, jobs: int, settings: Mapping[str, Value]):
    """A submitit executor. ChapterError where submitit is missing, or refuses a setting.

    settings  submitit's shared ones (gpus_per_node=1, nodes, cpus_per_task, mem_gb, timeout_min) or the scheduler's own
              (partition="gpu", account, constraint, qos …)
    """
    if cluster not in CLUSTERS:
        near = did_you_mean(cluster, CLUSTERS)
        raise ChapterError(f"unknown cluster {cluster!r}{near}; there are: {', '.join(CLUSTERS)}")
    require("submitit", "cluster", "--cluster", ChapterError)
    import submitit

    kind = submitit.SlurmExecutor if cluster == "slurm" else submitit.LocalExecutor
    known = kind._valid_parameters()
    for name in settings:
        if name not in SHARED and name not in known:
            raise ChapterError(f"--cluster-set: unknown setting {name!r}{did_you_mean(name, [*SHARED, *known])}; "
                               f"there are: {', '.join([*SHARED, *sorted(known)])}")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        own = {name if name in SHARED else f"{cluster}_{name}": value for name, value in settings.items()}
        if cluster == "slurm":
            watcher = submitit.SlurmJob.watcher  # its own would ask the scheduler every ten minutes only
            submitit.SlurmJob.watcher = type(watcher)(delay_s=int(LATE))
            own = {"slurm_array_parallelism": jobs, **own}
        # a quarter of an hour more than the chapter may take, so that the runner's own time-out comes first
        minutes = math.ceil(limit / 60) + 15
        executor.update_parameters(**{"name": "s4d-book", "timeout_min": minutes, "tasks_per_node": 1, **own})
    except (AssertionError, NameError, ValueError, RuntimeError) as error:
        raise ChapterError(f"submitit refuses: {' '.join(str(error).split())}") from error
    return executor


def run_jobs(waiting: Sequence[ChapterRun], executor: Any, cluster: str, chapters: Path, out: Path,
             limit: float, jobs: int, view: View, stops: Sequence[int], every: float = 2.0) -> None:
    """Submit what is waiting, or find the jobs again that were submitted before, and watch until all have ended.

    Returns early when something stands in `stops`; the jobs go on without us.
    """
    watched: list[tuple[ChapterRun, Any]] = []
    queue: list[ChapterRun] = []
    gone: dict[str, float] = {}
    for run in waiting:
        job = _submitted_before(run, cluster, executor.folder)
        if job is None:
            queue.append(run)
        else:
            run.job = job.job_id
            watched.append((run, job))
            view.note(f"{run.name}: found again as job {job.job_id}")
    if cluster == "slurm" and queue:
        watched += _submit(queue, executor, chapters, out, limit, view)
        queue = []
    while (watched or queue) and not stops:
        while queue and len(watched) < jobs:  # the local executor knows no arrays: it would start all at once
            watched += _submit([queue.pop(0)], executor, chapters, out, limit, view)
        for item in list(watched):
            if _has_ended(*item, gone):
                watched.remove(item)
                view.ended(item[0])
        view.show([run for run, _ in watched], len(queue))
        time.sleep(every if watched else 0)


def _submit(queue: Sequence[ChapterRun], executor: Any, chapters: Path, out: Path, limit: float,
            view: View) -> list[tuple[ChapterRun, Any]]:
    for run in queue:  # before a node can say anything else
        run.status, run.cause, run.reason = "queued", "", ""
        Path(run.folder).mkdir(parents=True, exist_ok=True)
        write_status(run)
    jobs = executor.submit_array([ChapterJob(deepcopy(run), str(chapters.resolve()), str(out.resolve()), limit)
                                  for run in queue])
    for run, job in zip(queue, jobs):
        run.job = str(job.job_id)
        (Path(run.folder) / "job").write_text(run.job)
        view.note(f"{run.name}: submitted as job {run.job}")
    return list(zip(queue, jobs))


def _has_ended(run: ChapterRun, job: Any, gone: dict[str, float]) -> bool:
    """Bring the run up to date from what its node has written; True when nothing more will come.

    gone  when each job was first seen to have ended without a last word, which may reach us late over shared storage
    """
    over = job.done()  # asked first: what the node wrote before its end is there then
    said = read_status(run.folder)
    if said.get("fingerprint") == run.fingerprint and said["status"] != "queued":
        for name in TOLD:
            setattr(run, name, said[name])
        if run.status == "running":
            for name, number in read_progress(run.folder).items():
                setattr(run, name, number)
    if run.status in ENDED or (over and run.status == "interrupted"):
        return True
    if not over or time.monotonic() < gone.setdefault(run.folder, time.monotonic() + LATE):
        return False
    state = str(job.state).split()[0]  # Slurm says "CANCELLED by 1000"
    run.status, run.cause = "failed", LOST.get(state, "job lost")
    run.reason = f"job {run.job} ended ({state}) before the chapter did; its log lies in the folder cluster beside it"
    write_status(run)
    return True


class _LocalAgain:
    """A job of the local executor that another runner started: its number is that of a process on this machine."""

    state = "UNKNOWN"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id

    def done(self) -> bool:
        import psutil

        return not psutil.pid_exists(int(self.job_id))


def _submitted_before(run: ChapterRun, cluster: str, folder: Path) -> Any:
    """The job that a stopped runner had submitted for exactly this run, if it has not ended."""
    said = read_status(run.folder)
    marker = Path(run.folder) / "job"
    if said.get("status") not in ("queued", "running", "interrupted") or said.get("fingerprint") != run.fingerprint:
        return None
    if not marker.exists():
        return None
    import submitit

    job_id = marker.read_text().strip()
    job = submitit.SlurmJob(folder=folder, job_id=job_id) if cluster == "slurm" else _LocalAgain(job_id)
    return None if job.done() else job
