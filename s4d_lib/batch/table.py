"""runs → table     what became of every run: for a terminal, as text, JSON and HTML.

The files hold no path and no name of a machine, so a table can be published as it is.
"""

import io
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from s4d_lib.batch.status import ChapterRun
from s4d_lib.files import is_disk_full, write_atomically
from s4d_lib.templating import fill

COLUMNS = ("run", "status", "seconds", "peak MB", "what was measured, or what went wrong")
NUMBERS = ("seconds", "peak MB")
HERE = "s4d_lib.batch"  # where table.html.jinja lies


def row(run: ChapterRun) -> dict:
    """One run as a row that can be published."""
    words = run.headline if run.succeeded else run.reason.replace(str(Path(run.folder).parent) + "/", "")
    return {"run": run.name, "chapter": run.chapter, "point": run.point, "tier": run.tier, "status": run.status,
            "cause": run.cause, "seconds": run.seconds, "peak_memory_mb": run.peak_memory_mb, "started": run.started,
            "gpus": None if run.gpus is None else len(run.gpus.split(",")) if run.gpus else 0,
            "words": words, "fingerprint": run.fingerprint[:16]}


def print_table(runs: Sequence[ChapterRun], console=None) -> None:
    """Print run, status, seconds, memory and what was measured; below it, where to read about what failed."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_title(runs), title_justify="left")
    table.add_column("run" if any(run.point for run in runs) else "chapter", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("what was measured", overflow="fold")
    for run in runs:
        status = Text(run.ended_as, style="green" if run.succeeded else "red")
        memory = f"{run.peak_memory_mb:,.0f}" if run.peak_memory_mb else ""
        table.add_row(run.name, status, f"{run.seconds:.0f}", memory, Text(row(run)["words"]))
    console = console or Console(highlight=False)
    console.print(table)
    console.print(summary(runs), markup=False)
    for run in runs:
        if not run.succeeded and run.status != "waiting":
            where = f"{run.name}: {run.ended_as}; read {Path(run.folder) / 'log.txt'}"
            console.print(where, soft_wrap=True, markup=False)


def summary(runs: Sequence[ChapterRun]) -> str:
    """One line: how many runs ended how, and what they cost."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.ended_as] = counts.get(run.ended_as, 0) + 1
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{len(runs)} runs: {told}; {sum(run.seconds for run in runs) / 60:.1f} minutes of runs in all"


def write_tables(runs: Sequence[ChapterRun], folder: Path) -> list[Path]:
    """Write table.txt, table.json and table.html; a disk that is too full for them is no reason to fail."""
    from rich.console import Console

    text = io.StringIO()
    print_table(runs, Console(file=text, width=160, highlight=False, color_system=None))
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = {
        "table.txt": "\n".join(line for line in text.getvalue().splitlines() if "; read " not in line) + "\n",
        "table.json": json.dumps({"made": made, "runs": [row(run) for run in runs]}, indent=1) + "\n",
        "table.html": as_html(runs, made),
    }
    written = []
    for name, words in content.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            written.append(write_atomically(folder / name, words))
        except OSError as error:
            if not is_disk_full(error):
                raise
    return written


def as_html(runs: Sequence[ChapterRun], made: str) -> str:
    """The table as a page of its own, without scripts and without anything from elsewhere."""
    return fill(HERE, "table.html.jinja", title=_title(runs), summary=summary(runs), made=made, runs=runs, row=row,
                columns=COLUMNS, numbers=NUMBERS)


def _title(runs: Sequence[ChapterRun]) -> str:
    return f"The book at the {runs[0].tier} tier"
