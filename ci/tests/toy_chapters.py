"""words → toy chapters     cheap chapters that end well, fail, sleep or train, for the tests of the runner."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from s4d_lib.batch import job

HEADER = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
PARAMETERS = 'tier = "smoke"  # how much\ncount = 3  # of what'
RECORD = """
import json, os, pathlib
record = {"headline": f"{count * 2} at {tier}", "results": {"count": count}}
pathlib.Path(os.environ["S4D_CHAPTER_OUT"], "record.json").write_text(json.dumps(record))
"""
SLEEP = """
import os, pathlib, subprocess, time
child = subprocess.Popen(["sleep", "600"])
note = pathlib.Path(os.environ["S4D_CHAPTER_OUT"], "children")
note.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
note.with_suffix(".new").rename(note)
time.sleep(600)
"""


def write_chapter(folder: Path, name: str, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    """A chapter: title, parameters cell, then one code cell per source."""
    cells = [f"```{{code-cell}} ipython3\n{source.strip()}\n```\n" for source in sources]
    if parameters is not None:
        cells.insert(0, f"```{{code-cell}} ipython3\n:tags: [parameters]\n\n{parameters}\n```\n")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.md"
    path.write_text(f"{HEADER}# {name}\n\n" + "\n".join(cells))
    return path


def start_runner(chapters: Path, out: Path, *words: str) -> subprocess.Popen:
    """`s4d book` in a process of its own; what it says on its two channels comes out of `communicate()`."""
    command = [sys.executable, "-m", "s4d_lib.cli", "book", "--chapters", str(chapters), "--out", str(out), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, runner: subprocess.Popen) -> str:
    """The content of a file that a running chapter is going to write."""
    while not path.exists():
        assert runner.poll() is None, runner.communicate()
        time.sleep(0.05)
    return path.read_text()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def processes_of(folder: Path) -> list[str]:
    """Command lines that name a folder, ours left out."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words and process.info["pid"] != os.getpid():
            found.append(words)
    return found


def stub_worker(monkeypatch, folder: Path, body: str) -> None:
    """A worker that starts in no time: `folder`, `request` and `record(headline, **results)` are at its hand."""
    path = folder / "worker.py"
    path.write_text(f"""
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
request = json.loads((folder / "request.json").read_text())
def record(headline, **results):
    (folder / "record.json").write_text(json.dumps({{"headline": headline, "results": results}}))
{body}
""")
    monkeypatch.setattr(job, "WORKER", (sys.executable, "-S", str(path)))
