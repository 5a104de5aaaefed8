"""folder → folders     where the lists of a data set lie when they are not in the folder that was named.

The folder that holds them is often one too high, one too low, or spelled with other capitals. Only names are looked at:
those of folders up to three levels below, and of the lists themselves one and two levels above.

Derived in chapter 02.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST = 4000  # folders asked in all


def list_places(root: Path, names: Sequence[str], wanted: int = 3) -> list[str]:
    """Advice, one sentence part for each of the first `wanted` folders at and near `root` that hold one of the lists.

    `names` are those of `census.FolderLayout`, with {split} and {fold}.
    """
    files = [name.replace("{split}", split).replace("{fold}", "1") for name in names for split in ("train", "test")]
    found = []
    for folder in _near(root):
        spelled = next((there for file in files if (there := _spelled(folder, file))), None)
        if spelled is None:
            continue
        right = spelled in files
        if folder != root or not right:
            found.append(f"{folder}" + ("" if right else f" ({spelled}: rename it, capitals matter)"))
        if len(found) == wanted:
            break
    return found


def _near(root: Path) -> Iterator[Path]:
    yield root
    above = root.resolve()
    yield from above.parents[:2]
    level, asked = [root], 0
    for _ in range(3):
        level = [below for folder in level for below in _folders(folder)]
        for folder in level:
            yield folder
            asked += 1
            if asked == MOST:
                return


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; none if there are so many that they are clips."""
    try:
        with os.scandir(folder) as entries:
            found = [entry.path for entry in entries if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
                     and not entry.is_symlink()]  # fmt: skip
    except OSError:
        return []
    return [Path(path) for path in sorted(found)] if len(found) <= 60 else []


def _spelled(folder: Path, name: str) -> str | None:
    """The path below `folder` that equals `name` but for capitals, as it is spelled there."""
    spelled: list[str] = []
    for part in name.split("/"):
        try:
            here = os.listdir(folder)
        except OSError:
            return None
        match = part if part in here else next((one for one in sorted(here) if one.lower() == part.lower()), None)
        if match is None:
            return None
        spelled.append(match)
        folder = folder / match
    return "/".join(spelled)
