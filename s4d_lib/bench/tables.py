"""record → text     the rows of a benchmark as a table for a terminal or for a page.

    ours 1.52 s (1.32 clips/s), 0.88 of the matmul rate, 3.1 GB; beside the textbook 1.04 [1.02, 1.07]
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from s4d_lib.records import Record

COLUMNS = ("row", "ours", "a second", "of matmul", "peak", "other", "other/ours", "its peak", "differs by")


def print_record(record: Record, console: Console | None = None) -> None:
    """The table, what was left out, and the headline."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=150)  # a file has no edge
    table = Table(*COLUMNS, header_style="bold")
    for cells in cells_of(record):
        table.add_row(*cells)
    console.print(table)
    for name, state in record.config.get("baselines", {}).items():
        if state.startswith("missing"):
            console.print(f"{name}: {state}", markup=False)
    console.print(record.headline, markup=False)


def cells_of(record: Record) -> list[tuple[str, ...]]:
    """A line a comparison, as in COLUMNS; what is ours stands in the first line of its row."""
    lines = []
    for name, row in record.results["rows"].items():
        if "error" in row:
            lines.append((name, row["error"][:60], *[""] * 7))
            continue
        ours, others = row["ways"]["ours"], {n: way for n, way in row["ways"].items() if n != "ours"}
        first = (name, seconds(ours["seconds"]), f"{ours['per_second']:.3g} {row['unit']}", _share(ours),
                 _memory(ours))
        differs = _differs(row.get("differences"))
        for place, (other, way) in enumerate(others.items() or [("", {})]):
            ratio = way.get("ratio")
            mine = first if place == 0 else ("",) * len(first)
            lines.append((*mine, other, between(ratio) if ratio else "", _memory(way),
                          differs if other == "textbook" else ""))
    return lines


def as_markdown(record: Record) -> list[str]:
    """The same as lines of a Markdown table."""
    rule = ["---" if name in ("row", "other", "differs by") else "---:" for name in COLUMNS]
    return ["| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
            for cells in (COLUMNS, rule, *cells_of(record))]


def between(ratio: dict[str, float]) -> str:
    """ "1.04 [1.02, 1.07]" """
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"


def _share(way: dict[str, Any]) -> str:
    return f"{way['of_matmul']['value']:.2f}" if "of_matmul" in way else ""


def _memory(way: dict[str, Any]) -> str:
    mb = way.get("peak_mb")
    return "" if mb is None else f"{mb / 1e3:.2f} GB" if mb >= 1e3 else f"{mb:.0f} MB"


def _differs(found: dict[str, float] | None) -> str:
    if not found:
        return ""
    name, value = max(((n, v) for n, v in found.items() if n != "scale"), key=lambda pair: pair[1])
    return f"{name} {value:.0e}" if value else "0"
