"""words → book     `s4d book`: which chapters, with which parameters, where and how many at a time."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

Words = list[str] | None


def book(
    chapter: Annotated[Words, typer.Argument(help="Chapters, such as 06; all if none is named.")] = None,
    tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "smoke",
    set_: Annotated[Words, typer.Option("-p", "--set", help="name=value, for every chapter that is named.")] = None,
    sweep: Annotated[Words, typer.Option(help="name=a,b,c: one run a value; several make a grid.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; one a GPU, or 2 without --gpus.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Devices to share out over the runs: 0,1 or none.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds a chapter may take.")] = None,
    resume: Annotated[bool, typer.Option(help="Keep what finished with the same chapter and library.")] = False,
    cluster: Annotated[str | None, typer.Option(help="slurm, or local to try the same here; needs submitit.")] = None,
    cluster_set: Annotated[Words, typer.Option(help="partition=gpu, gpus_per_node=1, nodes=1, mem_gb=64 ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all runs; else $S4D_RUNS, else runs.")] = None,
    chapters: Annotated[Path, typer.Option(help="Folder that holds the chapters.")] = Path("chapters"),
) -> None:
    """Run the book headless: data, every chapter through Papermill, then a table of what was measured.

    Exit code 0: every run succeeded; 1: one did not; 2: refused before anything started; 130 or 143: stopped.
    """
    from s4d_lib.batch.chapters import ChapterError
    from s4d_lib.batch.runner import Interrupted, plan_runs, run_book
    from s4d_lib.batch.slots import gpu_slots
    from s4d_lib.batch.table import print_table
    from s4d_lib.batch.words import read_settings, read_sweeps

    out = out or Path(os.environ.get("S4D_RUNS", "runs"))
    given, points = read_settings(set_ or []), read_sweeps(sweep or [])
    for words in (given, *points):
        if words.get("data_root"):
            words["data_root"] = own_folder(words["data_root"])
    gpu_slots(jobs, gpus)
    settings = read_settings(cluster_set or [], "--cluster-set")
    if bool(settings) and not cluster or cluster and gpus:
        raise ChapterError("--cluster-set belongs to --cluster, and --gpus to a run without it "
                           "(there say --cluster-set gpus_per_node=1)")
    plan = plan_runs(chapters, out, tier, chapter or [], given, points)  # refuses before anything is written
    if any(needs_data(chapters / f"{run.chapter}.md", run.parameters) for run in plan):
        from s4d_lib.training.tiers import prepare_data

        prepare_data(tier)
    try:
        runs = run_book(chapters, out, tier, chapter or [], given, jobs, timeout, resume, points, gpus,
                        cluster, settings)
    except Interrupted as stop:
        print_table(stop.runs)
        on = f" Their jobs go on in the cluster: {jobs_of(stop.runs)}." if cluster else ""
        print(f"s4d: stopped by {stop}; the same command with --resume keeps what had finished.{on}", file=sys.stderr)
        raise typer.Exit(128 + stop.number) from None
    print_table(runs)
    for name in dict.fromkeys(run.chapter for run in runs if run.point):
        from s4d_lib.batch.sweeps import as_text, write_sweep

        record, paths = write_sweep(out / "book" / tier, name, list(points[0]))
        print(f"\n{record.headline}\n\n{as_text(record)}\n\n{paths[0]}")
    if not all(run.succeeded for run in runs):
        raise typer.Exit(1)


def jobs_of(runs: list) -> str:
    """The numbers of the jobs that have not ended, for scancel."""
    return " ".join(run.job for run in runs if run.job and run.status in ("queued", "running")) or "none is left"


def needs_data(chapter: Path, parameters: Mapping) -> bool:
    """Whether a run reads the tier's faces, which are then drawn once, before several runs want them."""
    own = parameters.get("dataset", "drawn") != "drawn" and parameters.get("still_dataset", "") != "drawn"
    return not own and re.search(r"s4d_lib.*\btiers\b", chapter.read_text()) is not None


def own_folder(data_root: object) -> str:
    """The folder of a `data_root=` as an absolute path, since chapters run in their own folder."""
    from s4d_lib.batch.chapters import ChapterError

    if not isinstance(data_root, str) or not Path(data_root).is_dir():
        raise ChapterError(f"data_root={data_root}: there is no such folder")
    return str(Path(data_root).resolve())
