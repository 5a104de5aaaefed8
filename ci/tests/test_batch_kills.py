"""Kills at chance moments, of the runner and of a kernel that trains: nothing lost, nothing called done that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_chapters import is_alive, processes_of, start_runner, wait_for, write_chapter

from s4d_lib.batch.status import read_status

pytestmark = [pytest.mark.spawns, pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child that its parent was killed")]

# The runner with a worker that starts in no time, works a little, and leaves a record of what its point is worth.
RUNNER = """
import sys
from s4d_lib.batch import job, runner
runner._library_hashes = lambda _: {}
job.WORKER = (sys.executable, "-S", sys.argv.pop(1))
from s4d_lib.cli.app import main
main()
"""
WORKER = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
at = {"fold": 1, "seed": 0} | json.loads((folder / "request.json").read_text())["parameters"]
with open(folder.parent.parent / "begun", "a") as file:
    file.write(f"{at['fold']},{at['seed']} ")
time.sleep(0.25)
record = {"headline": "fine", "results": {"uar": 50 + at["fold"] + 0.5 * at["seed"]}}
(folder / "record.json").write_text(json.dumps(record))
"""
SWEEP = ("--sweep", "fold=1,2,3,4", "--sweep", "seed=0,1,2", "--jobs", "2")


def start(home: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-c", RUNNER, str(home / "worker.py"), "book", "--chapters", str(home / "chapters"),
               "--out", str(home / "runs"), *SWEEP, *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_sweep_whose_runner_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    for name in ("whole", "killed"):
        write_chapter(tmp_path / name / "chapters", "07_toy", "1", parameters="fold = 1\nseed = 0")
        (tmp_path / name / "worker.py").write_text(WORKER)
    runner = start(tmp_path / "whole")
    assert runner.wait() == 0, runner.communicate()
    chance, home = random.Random(7), tmp_path / "killed"
    folder, begun = home / "runs" / "book" / "smoke", home / "runs" / "book" / "begun"
    for turn in range(4):
        before = begun.read_text() if turn else ""
        runner = start(home, *["--resume"] * bool(turn))
        while runner.poll() is None and (not begun.exists() or begun.read_text() == before):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.6))
        runner.kill()
        runner.communicate()
        for path in folder.glob("07_toy@*/status.json"):
            said = read_status(path.parent)
            assert said, f"{path} was left half written"
            if said["status"] == "done":  # whatever the moment: done means that the record is there, and whole
                at = said["point"]
                assert json.loads((path.parent / "record.json").read_text())["results"] == said["results"]
                assert said["results"] == {"uar": 50 + at["fold"] + 0.5 * at["seed"]}
    done = {path.parent.name for path in folder.glob("07_toy@*/status.json")
            if read_status(path.parent)["status"] == "done"}
    last = start(home, "--resume")
    _, notes = last.communicate()
    assert last.returncode == 0, notes
    table = {row["run"]: row["status"] for row in json.loads((folder / "table.json").read_text())["runs"]}
    assert len(table) == 12 and done <= {run for run, status in table.items() if status == "kept"}
    sweeps = (tmp_path / name / "runs/book/smoke/sweep_07_toy@fold,seed.json" for name in ("killed", "whole"))
    found, wanted = (json.loads(path.read_text())["results"] for path in sweeps)
    assert found["rows"] == wanted["rows"] and len(found["points"]) == 12
    assert processes_of(tmp_path) == []


TRAINS = """
import os, pathlib
from s4d_lib.training import runs
from s4d_lib.training.configs import FinetuneConfig
pathlib.Path(os.environ["S4D_RUNS"], "kernel").write_text(str(os.getpid()))
config = FinetuneConfig(name="toy", mode="dfer", size="tiny", clips=clips, frames="clip_mp4", stride=2, epochs=4,
                        warmup_epochs=0.2, batch_clips=6, validation=0.2, augment_clips="LIGHT", device="cpu", lr=1e-3,
                        checkpoint_minutes=1e-6)
run = runs.train(config)
"""
LEAVES = """
import json
from safetensors.numpy import load_file
weights = sum(float(abs(value).sum()) for value in load_file(run.weights).values())
results = {"test": run.record.results["test_clip"], "weights": weights, "losses": run.losses().tolist()}
record = {"headline": "trained", "results": results}
pathlib.Path(os.environ["S4D_CHAPTER_OUT"], "record.json").write_text(json.dumps(record))
"""


@pytest.mark.trains
@pytest.mark.parametrize("victim", ["kernel", "runner"])
def test_a_training_killed_with_its_kernel_or_its_runner_goes_on_to_the_same_numbers(tmp_path, faces, victim, whole):
    home = tmp_path / "runs"
    chapters = trains(tmp_path, faces)
    runner = start_runner(chapters, home)
    kernel = int(wait_for(home / "kernel", runner))
    while not list(home.glob("toy-*/checkpoint.safetensors")):
        assert runner.poll() is None, runner.communicate()
        time.sleep(0.02)
    time.sleep(random.Random(victim).uniform(0, 0.3))
    if victim == "kernel":
        os.kill(kernel, signal.SIGKILL)
    else:
        runner.kill()
    said, _ = runner.communicate()
    folder = home / "book" / "smoke" / "01_trains"
    if victim == "kernel":
        assert runner.returncode == 1 and "kernel killed" in said
        assert read_status(folder)["cause"] == "kernel killed"
    until = time.monotonic() + 60
    while is_alive(kernel) and time.monotonic() < until:
        time.sleep(0.05)
    assert not list(home.glob("toy-*/record.json")), "it was killed midway"
    steps = len(next(home.glob("toy-*/metrics.jsonl")).read_text().splitlines())
    runner = start_runner(chapters, home, "--resume")
    _, notes = runner.communicate()
    assert runner.returncode == 0, notes
    assert 0 < steps < len(whole["losses"]) and read_status(folder)["results"] == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory, faces) -> dict:
    """What the same chapter leaves when nobody kills anything."""
    home = tmp_path_factory.mktemp("whole")
    runner = start_runner(trains(home, faces), home / "runs")
    _, notes = runner.communicate()
    assert runner.returncode == 0, notes
    return read_status(home / "runs" / "book" / "smoke" / "01_trains")["results"]


def trains(folder: Path, faces: Path) -> Path:
    parameters = f'tier = "smoke"\nclips = "{faces / "clips"}"'
    return write_chapter(folder / "chapters", "01_trains", TRAINS, LEAVES, parameters=parameters).parent
