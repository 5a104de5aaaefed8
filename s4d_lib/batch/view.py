"""runs → progress     how far every run is, while they run: a table in a terminal, lines in a log.

A terminal gets one row a run at work, redrawn in place. A log gets a line when a run starts, when it ends, and every
half minute one about all that are at work.
"""

import sys
import time
from collections.abc import Sequence

from s4d_lib.batch.status import ChapterRun

EVERY = 30.0  # seconds between two lines about the same run in a log


class View:
    """`with View(runs) as view:`, then `started`, `ended` and `show` as things happen."""

    def __init__(self, runs: Sequence[ChapterRun], every: float = EVERY) -> None:
        from rich.console import Console

        self.runs, self.every, self._next = runs, every, time.monotonic() + every
        self.console = Console(stderr=True, highlight=False)
        self._live = None

    def __enter__(self) -> "View":
        if sys.stderr.isatty():  # rich would also draw where FORCE_COLOR is set, as it is in every notebook
            from rich.live import Live

            self._live = Live(console=self.console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def started(self, run: ChapterRun) -> None:
        self.note(f"{run.name}: started" + (f" on GPU {run.gpus}" if run.gpus else ""))

    def ended(self, run: ChapterRun) -> None:
        memory = f", {run.peak_memory_mb:,.0f} MB" if run.peak_memory_mb else ""
        self.note(f"{run.name}: {run.ended_as} after {run.seconds:.0f} s{memory}")

    def show(self, at_work: Sequence[ChapterRun], waiting: int) -> None:
        """Bring the table up to date; in a log, say it once every `every` seconds."""
        if self._live:
            self._live.update(self._table(at_work, waiting))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + self.every
            for run in at_work:
                self.note(f"{run.name}: {where(run)}")
            self.note(self.summary(waiting))

    def summary(self, waiting: int) -> str:
        ended = [run for run in self.runs if run.status not in ("waiting", "queued", "running")]
        failed = sum(not run.succeeded for run in ended)
        return f"{len(ended)} of {len(self.runs)} ended, {failed} of them not well; {waiting} waiting"

    def _table(self, at_work: Sequence[ChapterRun], waiting: int):
        from rich.table import Table

        table = Table(title=self.summary(waiting), title_justify="left")
        table.add_column("at work", no_wrap=True)
        for name in ("cell", "seconds", "MB", "GPU"):
            table.add_column(name, justify="right", no_wrap=True)
        for run in at_work:
            cell = f"{run.cell}/{run.cells}" if run.cells else "starting" if run.status == "running" else run.status
            table.add_row(run.name, cell, f"{run.seconds:.0f}", f"{run.peak_memory_mb:,.0f}", run.gpus or "")
        return table


def where(run: ChapterRun) -> str:
    """How far one run is, in words."""
    if run.status != "running":
        return run.status
    at = f"cell {run.cell} of {run.cells}" if run.cells else "starting"
    return f"{at}, {run.seconds:.0f} s, {run.peak_memory_mb:,.0f} MB"
