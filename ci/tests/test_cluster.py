"""Runs → cluster: submitit's local executor stands for Slurm; what sbatch would be given is read from its text."""

import json
import os
import signal
import time
from copy import deepcopy
from pathlib import Path

import pytest
from toy_chapters import RECORD, is_alive, stub_worker, write_chapter

from s4d_lib.batch import cluster, runner
from s4d_lib.batch import job as batch_jobs
from s4d_lib.batch.chapters import ChapterError
from s4d_lib.batch.runner import Interrupted, plan_runs, run_book
from s4d_lib.batch.status import read_status, write_status
from s4d_lib.batch.view import View
from s4d_lib.batch.words import read_sweeps
from s4d_lib.files import Locked

submitit = pytest.importorskip("submitit")

PARAMETERS = "tier = 'smoke'\nfold = 1\nseed = 0"
# The worker of these tests trains in steps; an interrupt leaves a checkpoint, and a later start goes on from it.
TRAIN = """
saved = folder.parent / (folder.name + ".checkpoint")
step = int(saved.read_text()) if saved.exists() else 0
began_at = step
(folder / "progress.json").write_text(json.dumps({"cell": 2, "cells": 3}))
import subprocess
kernel = subprocess.Popen([sys.executable, "-S", "-c", f'''
import signal, time
from pathlib import Path
step = {step}
try:
    while step < 6 or {step} == 0:
        step += 1
        Path({str(folder / "began")!r}).write_text(str(step))
        time.sleep(0.1)
finally:
    Path({str(saved)!r}).write_text(str(step))
'''])
code = kernel.wait()
if code:
    sys.exit(1)
record("trained", began_at=began_at, step=int(saved.read_text()))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Jobs are processes of their own: the stub worker reaches them through a file that Python reads at its start."""
    monkeypatch.setattr(runner, "_library_hashes", lambda _: {"x.py": "this library"})
    monkeypatch.setattr(cluster, "LATE", 0.5)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"""
import sys
if "submitit" in " ".join(sys.orig_argv):
    import s4d_lib.batch.cluster, s4d_lib.batch.job
    s4d_lib.batch.job.WORKER = (sys.executable, "-S", {str(tmp_path / "worker.py")!r})
    s4d_lib.batch.cluster.STALE_BEAT = 1.0
""")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
    write_chapter(tmp_path / "chapters", "07_toy", RECORD, parameters=PARAMETERS)


@pytest.mark.spawns
def test_a_sweep_runs_as_jobs_and_is_told_like_any_other(tmp_path, monkeypatch):
    stub_worker(monkeypatch, tmp_path, """
if request["parameters"].get("seed") == 2:
    sys.exit(28)
record("fine", seed=request["parameters"].get("seed", 0), job=os.environ["SUBMITIT_LOCAL_JOB_ID"])
""")
    points = read_sweeps(["seed=0,1,2"])
    runs = run_book(tmp_path / "chapters", tmp_path / "runs", points=points, jobs=2, cluster="local")
    assert [(run.status, run.cause) for run in runs] == [("done", ""), ("done", ""), ("failed", "disk full")]
    assert [run.results["seed"] for run in runs[:2]] == [0, 1] and len({run.results["job"] for run in runs[:2]}) == 2
    assert runs[0].job == runs[0].results["job"] == (Path(runs[0].folder) / "job").read_text()
    assert len(json.loads((tmp_path / "runs/book/smoke/table.json").read_text())["runs"]) == 3


@pytest.mark.spawns
def test_a_preempted_job_saves_its_training_is_requeued_and_goes_on(tmp_path, monkeypatch):
    stub_worker(monkeypatch, tmp_path, TRAIN)
    (run,) = plan_runs(tmp_path / "chapters", tmp_path / "runs", "smoke")
    executor = cluster.make_executor("local", tmp_path / "logs", 600, 1, {})
    job = executor.submit(cluster.ChapterJob(deepcopy(run), str(tmp_path / "chapters"), str(tmp_path / "runs"), 600))
    began = Path(run.folder) / "began"
    until = time.monotonic() + 120
    while not began.exists() and time.monotonic() < until:
        time.sleep(0.05)
    task = next(child for child in children(int(job.job_id)) if "submitit" in " ".join(child.cmdline()))
    for process in [task, *task.children(recursive=True)]:  # Slurm signals every process of the job, not just the first
        process.send_signal(signal.SIGUSR2)
    seen = set()
    while not job.done() and time.monotonic() < until:
        seen.add((read_status(run.folder)["status"], read_status(run.folder)["cause"]))
        time.sleep(0.02)
    assert job.result() == "done" and ("interrupted", "preempted") in seen
    said = read_status(run.folder)
    assert said["status"] == "done" and said["results"]["step"] >= 6
    assert 0 < said["results"]["began_at"] <= said["results"]["step"]


@pytest.mark.spawns
def test_a_training_saves_itself_under_a_shell_that_ignores_interrupts(tmp_path, monkeypatch):
    """`s4d book … &` in a script: SIGINT arrives ignored, and stays so in every child unless it is put back."""
    stub_worker(monkeypatch, tmp_path, TRAIN)
    (run,) = plan_runs(tmp_path / "chapters", tmp_path / "runs", "smoke")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = batch_jobs.Job(run, tmp_path / "chapters", tmp_path / "runs", 60)
        began = Path(run.folder) / "began"
        while not began.exists():
            assert not job.poll()
            time.sleep(0.02)
        batch_jobs.end_jobs([job])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (Path(run.folder).parent / "07_toy.checkpoint").exists()


@pytest.mark.spawns
def test_a_worker_that_did_not_ignore_the_warning_would_lose_its_training(tmp_path, monkeypatch):
    """The control of the test above: without what is done before the worker, the warning itself ends it."""
    stub_worker(monkeypatch, tmp_path, TRAIN)
    monkeypatch.setattr(batch_jobs, "_before_the_worker", lambda: None)
    (run,) = plan_runs(tmp_path / "chapters", tmp_path / "runs", "smoke")
    job = batch_jobs.Job(run, tmp_path / "chapters", tmp_path / "runs", 60)
    began = Path(run.folder) / "began"
    while not began.exists():
        assert not job.poll()
        time.sleep(0.02)
    for process in [job.process.pid, *(child.pid for child in children(job.process.pid))]:
        os.kill(process, signal.SIGUSR2)
    while not job.poll():
        time.sleep(0.02)
    assert run.cause == "killed" and "SIGUSR2" in run.reason
    assert not (Path(run.folder).parent / "07_toy.checkpoint").exists()


@pytest.mark.spawns
def test_a_stopped_runner_leaves_its_jobs_and_the_next_finds_them_again(tmp_path, monkeypatch):
    stub_worker(monkeypatch, tmp_path, TRAIN.replace("step < 6 or {step} == 0", "step < 40"))
    out, said = tmp_path / "runs", []
    began = out / "book" / "smoke" / "07_toy" / "began"

    def stop_when_it_trains(self, *_):
        if began.exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(View, "show", stop_when_it_trains)
        with pytest.raises(Interrupted) as stop:
            run_book(tmp_path / "chapters", out, cluster="local")
    (left,) = stop.value.runs
    assert left.status == "running" and is_alive(int(left.job))
    with pytest.raises(Locked, match="another runner is at work"):
        run_book(tmp_path / "chapters", out, cluster="local")

    monkeypatch.setattr(View, "note", lambda _, text: said.append(text))
    (run,) = run_book(tmp_path / "chapters", out, cluster="local", resume=True)
    assert run.status == "done" and run.job == left.job and run.results["began_at"] == 0
    assert f"07_toy: found again as job {left.job}" in said


@pytest.mark.spawns
def test_a_job_that_ends_without_a_word_is_lost_and_not_done(tmp_path):
    class Gone:
        job_id, state = "12_0", "OUT_OF_MEMORY"

        def done(self) -> bool:
            return True

    (run,) = plan_runs(tmp_path / "chapters", tmp_path / "runs", "smoke")
    Path(run.folder).mkdir(parents=True)
    run.status, run.job, gone = "running", "12_0", {}
    write_status(run)
    assert not cluster._has_ended(run, Gone(), gone)  # its last word may be under way
    time.sleep(0.6)
    assert cluster._has_ended(run, Gone(), gone)
    assert (run.status, run.cause) == ("failed", "out of memory") and "12_0" in run.reason
    run.status = "done"
    write_status(run)
    again = deepcopy(run)
    again.status = "queued"
    assert cluster._has_ended(again, Gone(), {}) and again.status == "done"


def test_what_slurm_is_given(tmp_path, monkeypatch):
    """An array of as many jobs as runs, so many at a time, with our settings and a warning before the end."""
    given = []

    def sbatch(self, command, *_, **__):
        given.append(self._make_submission_file_text(command, "uid"))
        return submitit.SlurmJob(folder=self.folder, job_id="77", tasks=[0])

    monkeypatch.setattr("submitit.slurm.slurm.shutil.which", lambda _: "/usr/bin/sbatch")
    monkeypatch.setattr(submitit.SlurmExecutor, "_submit_command", sbatch)
    runs = plan_runs(tmp_path / "chapters", tmp_path / "runs", "smoke", points=read_sweeps(["fold=1,2,3"]))
    executor = cluster.make_executor("slurm", tmp_path / "logs", 3600, 2, {"partition": "gpu", "gpus_per_node": 1})
    watched = cluster._submit(runs, executor, tmp_path / "chapters", tmp_path / "runs", 3600, View(runs))
    assert [run.job for run, _ in watched] == ["77_0", "77_1", "77_2"]
    assert [read_status(run.folder)["status"] for run in runs] == ["queued"] * 3
    (text,) = given
    for line in ("--array=0-2%2", "--partition=gpu", "--gpus-per-node=1", "--time=75", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in text, text


@pytest.mark.parametrize(("name", "settings", "said"), [
    ("slrum", {}, "did you mean 'slurm'"), ("slurm", {"partiton": "gpu"}, "did you mean 'partition'"),
    ("local", {"gpus_per_node": "one"}, "submitit refuses"), ("local", {"nodes": 4}, "submitit refuses"),
])
def test_wrong_clusters_and_settings_are_refused_before_any_job(tmp_path, monkeypatch, name, settings, said):
    monkeypatch.setattr("submitit.slurm.slurm.shutil.which", lambda _: "/usr/bin/sbatch")
    with pytest.raises(ChapterError, match=said):
        run_book(tmp_path / "chapters", tmp_path / "runs", cluster=name, cluster_settings=settings)
    assert not (tmp_path / "runs" / "book" / "smoke" / "07_toy").exists()


def children(pid: int) -> list:
    import psutil

    return psutil.Process(pid).children(recursive=True)
