"""metrics.jsonl → curves     what a run writes down at every step, for TensorBoard and what reads its files.

The training writes one line a step whether anybody watches or not; following a run reads that file and never touches
the training. Trackio and others import TensorBoard's files. Explained in appendix c.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from s4d_lib.errors import Refused, require

Point = tuple[str, int, float]  # name, update, value
NOT_CURVES = ("update", "epoch", "modality")


def read_curves(folder: Path | str, after: int = 0) -> tuple[list[Point], int]:
    """(every number of a run's metrics.jsonl from line `after` on, lines read so far); names end in the modality.

    A last line that is being written is left for the next reading. A run that goes on after a kill cuts its last lines
    and writes the same again, so that a line, once read, is never another. ValueError where there is no such file.
    """
    path = Path(folder) / "metrics.jsonl"
    if not path.exists():
        raise Refused(f"{folder} holds no metrics.jsonl; name the folder of a run, as `s4d train` prints it")
    points, lines = [], 0
    for lines, said in enumerate(_whole_lines(path), 1):
        if lines > after:
            end = f"/{said['modality']}" if "modality" in said else ""
            points += [(name + end, said["update"], float(value)) for name, value in said.items()
                       if name not in NOT_CURVES and isinstance(value, int | float)]
    return points, max(lines, after)


def _whole_lines(path: Path) -> Iterator[dict]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def to_tensorboard(folder: Path | str, out: Path | str, follow: bool = False, pause: Callable[[], None] | None = None
                   ) -> int:
    """Write a run's curves as TensorBoard events below `out`; returns how many numbers.

    With `follow`, go on until the run has its record, looking again after every `pause` (5 seconds). What was written
    by an earlier call is not written again. ValueError, with the remedy, without TensorBoard.
    """
    require("tensorboard", "curves", "--tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    folder, events = Path(folder), Path(out) / Path(folder).name
    read_curves(folder)  # refuses what is no run before anything is written
    mark = events / "written.json"
    lines = json.loads(mark.read_text())["lines"] if mark.exists() else 0
    count = 0
    with SummaryWriter(events) as writer:
        while True:
            finished = (folder / "record.json").exists()  # asked first: what was written before it is read below
            points, lines = read_curves(folder, lines)
            for name, update, value in points:
                writer.add_scalar(name, value, update)
            writer.flush()
            count += len(points)
            mark.write_text(json.dumps({"lines": lines}))
            if finished or not follow:
                return count
            (pause or (lambda: time.sleep(5)))()
