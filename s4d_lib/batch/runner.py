"""chapters → runs     every chapter of the book, headless, through Papermill; sweeps, GPU slots, resume.

A chapter is a MyST text file in the chapters folder. For each run the runner writes a folder

    <out>/book/<tier>/<chapter>[@<swept parameters>]/
        chapter.ipynb (executed)  log.txt  record.json  status.json      and what the worker was asked and said

and beside them, at the end, table.txt, table.json and table.html. The chapter's last code cell writes `record.json`,
through `records.chapter_record`, into the folder that the environment variable S4D_CHAPTER_OUT names. What
can be refused is refused before anything starts (`plan_runs`); every state is written by us (`status.py`), from
exit codes and records (`causes.py`). Explained in appendix c.
"""

import contextlib
import hashlib
import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from s4d_lib.batch.chapters import (
    ChapterError,
    Value,
    chapter_parameters,
    code_cells,
    find_chapters,
    merge_parameters,
)
from s4d_lib.batch.job import Job, end_jobs
from s4d_lib.batch.slots import disk_is_full, gpu_slots
from s4d_lib.batch.status import ChapterRun, finished_before, is_running, look_back, point_label, write_status
from s4d_lib.batch.table import write_tables
from s4d_lib.batch.view import View
from s4d_lib.batch.words import write_plan
from s4d_lib.errors import require
from s4d_lib.files import PACKAGE, Locked, is_disk_full

TIERS = ("smoke", "laptop", "full")
TIMEOUT = {"smoke": 600, "laptop": 3600, "full": 86400}  # seconds that one chapter may take


class Interrupted(KeyboardInterrupt):
    """The runner was told to stop. `runs` says how far each came, `number` is the signal."""

    def __init__(self, number: int, runs: list[ChapterRun]) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.runs = number, runs


# ----------------------------------------------------------------------------------------------------- plan


def plan_runs(
    chapters: Path,
    out: Path,
    tier: str,
    names: Sequence[str] = (),
    given: Mapping[str, Value] | None = None,
    points: Sequence[Mapping[str, Value]] = ({},),
) -> list[ChapterRun]:
    """One waiting run per chapter and point of a sweep, in book order. What can be refused is refused here.

    Every selected chapter must know every `given` and every swept parameter. A chapter without a `tier` parameter
    runs as it stands. A run's fingerprint changes with the chapter's text, its parameters, any file of the library or
    the widgets, any record that chapters read, and the lists of a data set of one's own.
    """
    if tier not in TIERS:
        raise ChapterError(f"unknown tier {tier!r}; the tiers are {', '.join(TIERS)}")
    given = given or {}
    texts = {path: path.read_text() for path in find_chapters(chapters, names)}
    cells = {path: code_cells(text) for path, text in texts.items()}
    defaults = {path: chapter_parameters(cells[path], path.stem) for path in texts}
    _refuse_unknown_to_some(defaults, [*given, *(name for point in points[:1] for name in point)])
    wanted = []
    for path in texts:
        for point in points:
            both = sorted(given.keys() & point.keys())
            if both:
                raise ChapterError(f"parameter {both[0]!r} is both set and swept; give it once")
            asked = {**({"tier": tier} if "tier" in defaults[path] else {}), **given, **point}
            wanted.append((path, point, merge_parameters(defaults[path], asked, path.stem)))

    library, records = _library_hashes(Path(chapters)), _record_hashes(Path(chapters))
    runs = []
    for path, point, parameters in wanted:
        made_from = {"chapter": _hash(texts[path].encode()), "library": library, "records": records}
        if lists := _own_lists(tier, parameters):
            made_from["data"] = lists
        folder = f"{path.stem}@{point_label(point)}" if point else path.stem
        runs.append(
            ChapterRun(
                chapter=path.stem,
                tier=tier,
                folder=str((Path(out) / "book" / tier / folder).resolve()),
                parameters=parameters,
                changed={name: value for name, value in parameters.items() if value != defaults[path][name]},
                point=dict(point),
                expects_record=bool(cells[path]),
                made_from=made_from,
                fingerprint=_hash(json.dumps([made_from, tier, parameters], sort_keys=True).encode(), 64),
            )
        )
    return runs


def _refuse_unknown_to_some(defaults: Mapping[Path, Mapping], names: Sequence[str]) -> None:
    """Say which chapters do know a parameter that others of the selected ones do not."""
    for name in names:
        with_it = [path.stem for path, known in defaults.items() if name in known]
        if with_it and len(with_it) < len(defaults):
            without = next(path.stem for path, known in defaults.items() if name not in known)
            raise ChapterError(f"{without} has no parameter {name!r}; name the chapters that have it: "
                               f"{' '.join(with_it)}")


def _library_hashes(chapters: Path) -> dict[str, str]:
    """File → hash, of everything that a chapter may import."""
    return _hashes(PACKAGE, "**/*") | _hashes(chapters.parent / "widgets", "**/*")


def _own_lists(tier: str, parameters: Mapping) -> str | None:
    """Content hash of the lists of a data set of one's own that a run reads; a place that cannot be it is refused."""
    asked = [parameters.get(name, "") for name in ("dataset", "data_root", "still_dataset")]
    if not {"dataset", "data_root"} <= parameters.keys() or not any(word not in ("", "drawn") for word in asked):
        return None
    from s4d_lib.datasets.own_data import lists_hash  # seconds of import, for those runs alone

    return lists_hash(tier, *asked, parameters.get("fold"), parameters.get("lists"), parameters.get("still_lists"))


def _record_hashes(chapters: Path) -> dict[str, str]:
    """The same of the records that chapters read, but for tables of what running the book has cost."""
    return {name: found for name, found in _hashes(chapters / "results", "*.*").items() if not name.startswith("book_")}


def _hashes(folder: Path, pattern: str) -> dict[str, str]:
    return {str(path.relative_to(folder)): _hash(path.read_bytes()) for path in sorted(folder.glob(pattern))
            if path.is_file() and "__pycache__" not in path.parts}


def _hash(content: bytes, digits: int = 16) -> str:
    return hashlib.sha256(content).hexdigest()[:digits]


# ------------------------------------------------------------------------------------------------ execution


def run_book(
    chapters: Path,
    out: Path,
    tier: str = "smoke",
    names: Sequence[str] = (),
    given: Mapping[str, Value] | None = None,
    jobs: int | None = None,
    timeout: float | None = None,
    resume: bool = False,
    points: Sequence[Mapping[str, Value]] = ({},),
    gpus: str | None = None,
    cluster: str | None = None,
    cluster_settings: Mapping[str, Value] | None = None,
) -> list[ChapterRun]:
    """Run the chapters, `jobs` at a time, and return what became of each, in book order.

    `out` is the root of all runs; the chapters see it as S4D_RUNS. A chapter that takes longer than `timeout` seconds
    is ended. With `resume`, what an earlier call finished from the same chapter, library and parameters is kept. SIGINT
    (Ctrl-C), SIGTERM and SIGHUP end the running chapters, at the end of a training step where one is training, and are
    raised as Interrupted. With `cluster` (slurm, or local, which tries the same on this machine) every run is a job of
    its own, and those go on when we are stopped. ChapterError for what can be refused before the first chapter starts.
    """
    require("papermill", "book", "running chapters", ChapterError)
    slots = gpu_slots(jobs, gpus)
    runs = plan_runs(chapters, out, tier, names, given, points)
    limit = timeout or TIMEOUT[tier]
    executor = None
    if cluster:
        from s4d_lib.batch.cluster import make_executor

        at_a_time = jobs or (256 if cluster == "slurm" else 2)
        logs = Path(out) / "book" / tier / "cluster"
        executor = make_executor(cluster, logs, limit, at_a_time, cluster_settings or {})
    busy = [run for run in runs if is_running(run.folder)]
    if busy and not (cluster and resume):  # there they are found again
        raise Locked(f"another runner is at work on {', '.join(run.name for run in busy)} in "
                     f"{Path(out) / 'book' / tier}; wait for it, or give another --out")
    for chapter in {run.chapter for run in runs if run.point}:
        write_plan(Path(out) / "book" / tier, chapter, points)
    with View(runs) as view:
        waiting = _waiting(runs, resume, bool(cluster), view)
        with _signals() as stops:
            if executor is None:
                _run_all(waiting, slots, Path(chapters), Path(out), limit, view, stops)
            else:
                from s4d_lib.batch.cluster import run_jobs

                run_jobs(waiting, executor, cluster, Path(chapters), Path(out), limit, at_a_time, view, stops)
            if stops:
                write_tables(runs, Path(out) / "book" / tier)
                raise Interrupted(stops[0], runs)
    write_tables(runs, Path(out) / "book" / tier)
    return runs


def _waiting(runs: Sequence[ChapterRun], resume: bool, on_cluster: bool, view: View) -> list[ChapterRun]:
    """The runs that are to be made, and a word about those that an earlier runner left behind."""
    waiting: list[ChapterRun] = []
    before: dict[str, list[str]] = {}
    for run in runs:
        said = look_back(run)
        if resume and finished_before(run):
            continue
        if said and not on_cluster:
            before.setdefault(said, []).append(run.name)
        waiting.append(run)
    for said, those in before.items():
        more = f" and {len(those) - 1} more" if len(those) > 1 else ""
        view.note(f"{those[0]}{more}: {said}; runs again")
    return waiting


def _run_all(waiting: list[ChapterRun], slots: list[str | None], chapters: Path, out: Path,
             limit: float, view: View, stops: list[int]) -> None:
    free, running = list(slots), []
    while (waiting or running) and not stops:
        while waiting and free and not stops:
            run = waiting.pop(0)
            run.gpus = free.pop(0)
            try:
                running.append(Job(run, chapters, out, limit))
                view.started(run)
            except (OSError, Locked) as error:
                free.append(run.gpus)
                _could_not_start(run, error, view)
        for job in [job for job in running if job.poll()]:
            running.remove(job)
            free.append(job.run.gpus)
            view.ended(job.run)
            if job.run.cause == "disk full" and disk_is_full(out):
                for run in waiting:
                    run.reason = "not started: the disk is full; make room and use --resume"
                waiting.clear()
        view.show([job.run for job in running], len(waiting))
        time.sleep(0.1)
    end_jobs(running, hurry=lambda: len(stops) > 1)  # a second signal does not wait for trainings to save themselves
    for job in running:
        job.interrupted(signal.Signals(stops[0]).name)
        view.ended(job.run)


def _could_not_start(run: ChapterRun, error: Exception, view: View) -> None:
    run.status, run.cause, run.reason = "failed", "not started", str(error)
    if is_disk_full(error):
        run.cause = "disk full"
    if not isinstance(error, Locked):  # then the folder is somebody else's
        write_status(run)
    view.ended(run)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect what we are told to stop by, instead of being torn out of a half-written file; outside the main thread,
    where Python delivers no signals, nothing is collected."""
    stops: list[int] = []
    wanted = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    previous = {}
    with contextlib.suppress(ValueError):
        previous = {number: signal.signal(number, lambda number, _: stops.append(number)) for number in wanted}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
