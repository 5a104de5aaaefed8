"""predictions → text     what was said of every file as a table, as CSV, as JSON and in a terminal.

Cells that begin like a formula are disarmed, and control characters of file names never reach a terminal. Derived in
chapter 12.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from s4d_lib.predict.timelines import ABOUT, SAYS, SHIPPED_KNOWS, WHOLE, Answer, Prediction
from s4d_lib.text import no_formula


def to_csv(predictions: Sequence[Prediction]) -> str:
    """All files in one table: a row for each answer, window and error."""
    rows = [row for one in predictions for row in one.rows()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = row | {"path": no_formula(row["path"])}
        writer.writerow([_cell(cells.get(name)) for name in columns])
    return text.getvalue()


def _cell(value: str | float | None) -> str | float | None:
    """Text disarmed, nothing for nan, and frame numbers like all other numbers with a point."""
    if isinstance(value, str):
        return no_formula(value, "'")
    if value is None or value != value:
        return None
    return value if isinstance(value, bool) else float(value)


def to_json(predictions: Sequence[Prediction]) -> str:
    """All files with the model's card."""
    return json.dumps({
        "format": "s4d predictions 1", "about": ABOUT, "model": predictions[0].card.as_dict() if predictions else None,
        "files": [p.as_dict() for p in predictions],
    }, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def print_table(predictions: Sequence[Prediction]) -> None:
    """Print a row a file, and below it what the labels are, what the model was trained on, and its licence."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from s4d_lib.text import printable

    times = Counter(one.remark for one in predictions if one.whole and one.remark)
    often = {remark for remark, count in times.items() if count > 2}  # said once below the table
    card, clips = predictions[0].card, any(one.kind == "clip" for one in predictions)
    folders = {Path(one.path).parent for one in predictions}
    root = Path(os.path.commonpath(folders)) if len(predictions) > 1 and len({f.anchor for f in folders}) == 1 else None
    table = Table(title=f"in {root}" if root and root.name else None, title_justify="left")
    for name in ("file", "two views, or image", *(["whole video"] if clips else []), "faces", "note"):
        table.add_column(name, overflow="fold", justify="right" if name == "faces" else "left")
    for one in predictions:
        answers = [one.answer, *([one.answers.get(WHOLE)] if clips else [])]
        name = str(Path(one.path).relative_to(root)) if root else one.path
        remark = "" if one.remark in often else printable(one.remark)
        cells = [Text(printable(name)), *map(Text, map(_spelled, answers)),
                 Text("" if one.face is None else f"{100 * one.face:.0f} %"), Text(remark)]
        table.add_row(*cells, style="" if one.whole else "red")
    console = Console(highlight=False, markup=False)
    console.print(table)
    for remark in sorted(often):
        console.print(f"{times[remark]} of {len(predictions)} files: {printable(remark)}", soft_wrap=True)
    for what in dict.fromkeys(what for one in predictions for what in one.answers):
        console.print(f"{what}: {SAYS[what]}", soft_wrap=True)
    for task in dict.fromkeys(one.task for one in predictions if one.classes):
        console.print(f"{task} labels ({card.schema(task)}): {', '.join(card.classes[task])}", soft_wrap=True)
    for note in card.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"model {card.name}, trained on: {card.trained_on}; licence of the weights: {card.licence}; "
                  f"computed in {predictions[0].computed_in}", soft_wrap=True)
    console.print(" ".join([ABOUT, *([SHIPPED_KNOWS] if card.shipped else [])]), soft_wrap=True)


def _spelled(answer: Answer | None) -> str:
    if answer is None:
        return ""
    if answer.label:
        return f"{answer.best} {answer.confidence:.2f}"
    return f"none: {answer.reason}" + (f" ({answer.best})" if answer.best else "")
