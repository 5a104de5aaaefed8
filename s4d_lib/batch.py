"""chapters → runs     every chapter of the book, headless, through Papermill.

A chapter is a MyST text file in the chapters folder. For each one the runner writes a folder

    <out>/book/<tier>/<chapter>/    chapter.ipynb (executed)  log.txt  record.json  status.json

in a process of its own, with one thread, in the chapters folder. The chapter's last code cell writes
`record.json`, through `s4d_lib.records.chapter_record`, into the folder that the environment variable
S4D_CHAPTER_OUT names. The runner writes `status.json` from the exit code and the presence of that record.
It never asks the executed notebook, whose metadata calls a killed cell "completed".
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from s4d_lib.chapters import ChapterError, Value, chapter_parameters, find_chapters, merge_parameters, read_chapter

TIERS = ("smoke", "laptop", "full")
TIMEOUT = {"smoke": 600, "laptop": 3600, "full": 86400}  # seconds that one chapter may take
SUCCESS = ("done", "kept")


@dataclass
class ChapterRun:
    """One chapter at one tier: what was asked for, and how it ended.

    `status` is "waiting", "running", "done", "kept" (an earlier run of the same chapter, library and
    parameters had finished), "failed", "timed out" or "interrupted".
    """

    chapter: str
    tier: str
    folder: str
    parameters: dict[str, Value]  # all of them, defaults included
    expects_record: bool  # false for a chapter without code
    fingerprint: str
    status: str = "waiting"
    reason: str = ""
    headline: str = ""
    started: str = ""
    seconds: float = 0.0
    return_code: int | None = None
    results: dict = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.status in SUCCESS


# ----------------------------------------------------------------------------------------------------- plan


def plan_runs(
    chapters: Path,
    out: Path,
    tier: str,
    names: Sequence[str] = (),
    given: Mapping[str, Value] | None = None,
) -> list[ChapterRun]:
    """One waiting run per chapter, in book order. What can be refused is refused here, before any starts.

    Every selected chapter must know every `given` parameter. A chapter without a `tier` parameter runs as
    it stands.
    """
    if tier not in TIERS:
        raise ChapterError(f"unknown tier {tier!r}; the tiers are {', '.join(TIERS)}")
    library = _library_hash()
    runs = []
    for path in find_chapters(chapters, names):
        cells = read_chapter(path).cells
        defaults = chapter_parameters(cells, path.stem)
        asked = {**(given or {}), **({"tier": tier} if "tier" in defaults else {})}
        parameters = merge_parameters(defaults, asked, path.stem)
        request = json.dumps([library, tier, parameters], sort_keys=True).encode()
        runs.append(
            ChapterRun(
                chapter=path.stem,
                tier=tier,
                folder=str((Path(out) / "book" / tier / path.stem).resolve()),
                parameters=parameters,
                expects_record=any(cell.cell_type == "code" for cell in cells),
                fingerprint=hashlib.sha256(request + path.read_bytes()).hexdigest(),
            )
        )
    return runs


def _library_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def finished_before(run: ChapterRun) -> bool:
    """Whether the folder holds a finished run of the same chapter, library and parameters; takes it over."""
    try:
        before = json.loads((Path(run.folder) / "status.json").read_text())
        if (before["status"], before["fingerprint"]) != ("done", run.fingerprint):
            return False
        _read_record(run)
    except (OSError, ValueError, KeyError):
        return False
    run.status, run.seconds, run.started = "kept", before["seconds"], before["started"]
    return True


# ------------------------------------------------------------------------------------------------ execution


def run_book(
    chapters: Path,
    out: Path,
    tier: str = "smoke",
    names: Sequence[str] = (),
    given: Mapping[str, Value] | None = None,
    jobs: int = 2,
    timeout: float | None = None,
    resume: bool = False,
) -> list[ChapterRun]:
    """Run the chapters, `jobs` at a time, and return what became of each, in book order.

    `out` is the root of all runs; the chapters see it as S4D_RUNS. A chapter that takes longer than
    `timeout` seconds is ended. An interrupt (Ctrl-C or SIGTERM) ends the running chapters with their
    kernels, marks them "interrupted", and is raised again as KeyboardInterrupt.
    """
    from rich.console import Console

    if jobs < 1:
        raise ChapterError(f"jobs must be at least 1, not {jobs}")
    runs = plan_runs(chapters, out, tier, names, given)
    waiting = [run for run in runs if not (resume and finished_before(run))]
    running: list[tuple[ChapterRun, subprocess.Popen, float]] = []
    restarted: set[str] = set()
    limit = timeout if timeout is not None else TIMEOUT[tier]
    console = Console(stderr=True, highlight=False)
    with console.status("starting"), _signals_interrupt(), _ended_on_interrupt(running):
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                running.append((run, _start(run, Path(chapters), Path(out)), time.monotonic()))
                console.print(f"{run.chapter}: started")
            time.sleep(0.1)
            for item in list(running):
                run, process, started = item
                run.seconds = round(time.monotonic() - started, 1)
                if process.poll() is not None or run.seconds >= limit:
                    running.remove(item)
                    if _never_started(run, process) and run.chapter not in restarted:
                        restarted.add(run.chapter)
                        waiting.insert(0, run)
                        continue
                    _finish(run, process, limit)
                    console.print(f"{run.chapter}: {run.status} after {run.seconds:.0f} s")
    return runs


def _start(run: ChapterRun, chapters: Path, out: Path) -> subprocess.Popen:
    import nbformat
    import yaml

    folder = Path(run.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in ("chapter.ipynb", "record.json", "log.txt"):
        (folder / left_over).unlink(missing_ok=True)
    run.status, run.started = "running", datetime.now(timezone.utc).isoformat(timespec="seconds")
    _write_status(run)

    notebook = read_chapter(chapters / f"{run.chapter}.md")
    nbformat.write(notebook, folder / "source.ipynb")
    command = [sys.executable, "-m", "papermill", str(folder / "source.ipynb"), str(folder / "chapter.ipynb")]
    command += ["--kernel", "python3", "--language", "python", "--cwd", str(chapters.resolve())]
    command += ["--log-output", "--no-progress-bar"]
    defaults = chapter_parameters(notebook.cells, run.chapter)
    changed = {name: value for name, value in run.parameters.items() if value != defaults[name]}
    if changed:
        (folder / "parameters.yaml").write_text(yaml.safe_dump(changed))
        command += ["--parameters_file", str(folder / "parameters.yaml")]

    environment = {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **os.environ}
    environment |= {"S4D_RUNS": str(out.resolve()), "S4D_CHAPTER_OUT": run.folder}
    with open(folder / "log.txt", "wb") as log:  # its own session: we, not the terminal, pass Ctrl-C on
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True,
                                preexec_fn=_die_with_the_runner if sys.platform == "linux" else None)


def _die_with_the_runner() -> None:
    """Ask Linux to kill this process when its parent is gone, however that ended; the kernel then ends by itself.

    Otherwise a runner that was killed would leave chapters behind that write into the folders of the next one.
    """
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG



def _never_started(run: ChapterRun, process: subprocess.Popen) -> bool:
    """Whether the kernel died before its first cell, as it does when two kernels are given the same port at once.

    jupyter_client looks for free ports and lets them go again before the kernel takes them (papermill#511): rare, and
    nothing has run yet, so the chapter is simply started once more.
    """
    log = (Path(run.folder) / "log.txt").read_text(errors="replace")
    return bool(process.poll()) and "Kernel died before replying to kernel_info" in log


def _finish(run: ChapterRun, process: subprocess.Popen, limit: float) -> None:
    """Decide how a run ended, from its exit code and its record, and write it down."""
    run.return_code = process.poll()
    if run.return_code is None:
        _end(process)
        run.status, run.reason = "timed out", f"took more than {limit:g} s"
    elif run.return_code != 0:
        run.status, run.reason = "failed", _last_error(run)
    else:
        try:
            _read_record(run)
            run.status = "done"
        except OSError:
            run.status, run.reason = "failed", "it ran through, but no cell wrote its record (chapter_record)"
        except (ValueError, KeyError, TypeError) as error:
            run.status, run.reason = "failed", f"its record.json cannot be used: {error!r}"
    _write_status(run)


def _end(process: subprocess.Popen, grace: float = 5.0) -> None:
    """End a Papermill process, its kernel and the kernel's children: politely, after `grace` s by force."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, survivors = psutil.wait_procs(family, timeout=1)
    for survivor in survivors:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()


@contextlib.contextmanager
def _ended_on_interrupt(running: list[tuple[ChapterRun, subprocess.Popen, float]]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        for run, process, _ in running:
            _end(process)
            run.status, run.reason = "interrupted", "ended from outside"
            _write_status(run)
        raise


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM, with which schedulers stop a program, take the path of Ctrl-C, which is switched on."""
    stops = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, signal.default_int_handler) for number in stops}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --------------------------------------------------------------------------------------------------- report


def _read_record(run: ChapterRun) -> None:
    path = Path(run.folder) / "record.json"
    if not run.expects_record and not path.exists():
        run.headline = "text only"
        return
    record = json.loads(path.read_text())
    run.headline, run.results = str(record["headline"]), dict(record["results"])


def _write_status(run: ChapterRun) -> None:
    path = Path(run.folder) / "status.json"
    path.with_suffix(".new").write_text(json.dumps(asdict(run), indent=1))
    path.with_suffix(".new").replace(path)  # whoever reads it, whenever we are killed, finds a whole file


def _last_error(run: ChapterRun) -> str:
    """The line of the log that ends its last traceback: the exception and what it says."""
    log = (Path(run.folder) / "log.txt").read_text(errors="replace")
    log = re.sub(r"\x1b\[[0-9;]*m", "", log)  # the kernel colours its tracebacks
    log = log[log.rfind("Traceback (most recent call last)") :]
    named = re.findall(r"^(?:\w+\.)*([A-Z]\w+(?:: .*)?)$", log, flags=re.MULTILINE)
    return named[-1].strip() if named else f"exit code {run.return_code}, and the log names no error"


def print_table(runs: Sequence[ChapterRun]) -> None:
    """Print chapter, status, seconds and what was measured; below it, where to read about what failed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"The book at the {runs[0].tier} tier", title_justify="left")
    table.add_column("chapter", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("what was measured", overflow="fold")
    for run in runs:
        status = Text(run.status, style="green" if run.succeeded else "red")
        measured = Text(run.headline if run.succeeded else run.reason)
        table.add_row(run.chapter, status, f"{run.seconds:.0f}", measured)
    console = Console(highlight=False)
    console.print(table)
    for run in runs:
        if not run.succeeded:
            console.print(f"{run.chapter}: {run.status}; read {Path(run.folder) / 'log.txt'}", soft_wrap=True)
