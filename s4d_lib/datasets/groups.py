"""groups.csv → people     who is shown, where the lists do not say it: a file of one's own beside them, id and group.

Derived in chapter 02.
"""

from __future__ import annotations

from pathlib import Path

from s4d_lib.datasets.lists import csv_dicts
from s4d_lib.datasets.rows import without_ending
from s4d_lib.errors import Refused


def groups_of(folder: Path) -> dict[str, str] | None:
    """id → group of `groups.csv` beside the lists; None where there is none. ValueError for a row that names no group.

    Blank lines are passed over; an id that was written with its ending is found without it too.
    """
    path = folder / "groups.csv"
    if not path.exists():
        return None
    groups: dict[str, str] = {}
    lines = csv_dicts(path)
    header = list(next(lines)[1])
    if len(header) != 2:
        raise Refused(f"{path}:1: expected two columns, the id and the group, got {', '.join(header) or 'none'}")
    for number, row in lines:
        id, group = row.values()
        if not id or not group:
            raise Refused(f"{path}:{number}: expected an id and its group, got {','.join(row.values())!r}")
        if groups.setdefault(id, group) != group:
            raise Refused(f"{path}:{number}: {id!r} has group {group!r} here and {groups[id]!r} above")
    return {without_ending(id): group for id, group in groups.items()} | groups
