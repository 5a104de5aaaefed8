"""list → rows     text and CSV lists as rows, and a data folder that nothing read may leave.

Every iterator yields rows one at a time, so a list of a million clips costs no more memory than its samples. A row that
is not of the list's form is a RowError with file and line; `bad` raises it, or keeps it and lets the reading go on.

`DataRoot` turns the names of a list into paths. It refuses absolute names, `..`, drive letters and, unless
`links="follow"` is said, symbolic links that lead out of the folder. The folder itself may be a link, and the clips may
lie in another place that the caller, never a list, names by its absolute path. Backslashes of lists made on Windows are
read as separators.

Derived in chapter 02.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Literal, NamedTuple

from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES

ASSUMED = (".mp4", ".avi")  # endings that are looked for where a list names a video without one
CHUNK = 1 << 16


class Row(NamedTuple):
    """One line of a list: where it stands, what it names, its label as written (None: unlabelled), group and frames."""

    line: int
    name: str
    label: str | None
    group: str | None = None
    frames: int | None = None  # how many the list says that a clip has


class RowError(Refused):
    """One bad row; `.kind` is "row", "name", "link", "duplicate", "label", "missing" or "group"."""

    def __init__(self, message: str, kind: str):
        super().__init__(message)
        self.kind = kind


def refuse(error: Exception) -> None:
    """What iterators do with a bad row unless told otherwise."""
    raise error


Bad = Callable[[RowError], None]


# -------------------------------------------------------------------------------- inside the folder


class DataRoot:
    """A data folder; names become paths inside it. FileNotFoundError if there is no such folder."""

    def __init__(self, path: str | Path, links: Literal["inside", "follow"] = "inside"):
        if links not in ("inside", "follow"):
            raise Refused(f"links must be 'inside' or 'follow', got {links!r}")
        self.path, self.links = Path(path), links
        if not self.path.is_dir():
            raise FileNotFoundError(f"{self.path}: no such folder; name the folder that holds lists and clips")
        self._real = [os.path.realpath(self.path)]
        self._checked: set[str] = set()

    def folder(self, name: str, what: str = "folder of clips") -> Path:
        """A folder below the root, checked, or any that is named by its absolute path and then counts as a root too.

        The error lists the folders that are there.
        """
        if name == ".":
            return self.path
        if os.path.isabs(name):
            found = Path(name)
            self._real.append(os.path.realpath(found))
        else:
            found = self.path / clean(name, f"{self.path}")
            self.check(found, f"{self.path}", frames=False)
        if not found.is_dir():
            beside = [p.name for p in sorted(found.parent.glob("*")) if p.is_dir()][:8] if found.parent.is_dir() else []
            raise FileNotFoundError(f"{found}: no such {what}; folders beside it: {', '.join(beside) or 'none'}")
        return found

    def listing(self, *names: str, arrays: bool = False) -> Path:
        """The first of these lists that exists, checked; the error names the first and what lies beside it.

        With `arrays` a folder of small arrays is a list as well.
        """
        for name in names:
            found = self.path / clean(name, f"{self.path}")
            if os.path.isfile(found) or (arrays and os.path.isdir(found)):
                self.check(found, f"{self.path}")
                return found
        first = self.path / names[0]
        beside = sorted(p.name for p in first.parent.glob(f"*{first.suffix}"))[:5]
        others = f"; also looked for {', '.join(names[1:])}" if names[1:] else ""
        raise FileNotFoundError(f"{first}: no such list; lists found beside it: {', '.join(beside) or 'none'}{others}")

    def check(self, path: Path, where: str, frames: bool = True) -> None:
        """RowError if a link leads from `path`, a folder on the way to it or a frame in it out of the root.

        Also if a frame is a pipe or a device: opening one can wait for ever.
        """
        if self.links == "follow":
            return
        parent = os.path.dirname(path)
        if parent not in self._checked:
            self._require_inside(parent, where)
            self._checked.add(parent)
        if os.path.islink(path):
            self._require_inside(path, where)
        if frames and os.path.isdir(path):
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        self._require_inside(entry.path, where)
                    elif not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                        raise RowError(f"{where}: {entry.path} is not a file; remove it", "missing")

    def _require_inside(self, path: str | Path, where: str) -> None:
        real = os.path.realpath(path)
        if not any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in self._real):
            raise RowError(
                f"{where}: {path} is a link that leads out of {self.path}; copy the files, name the folder of clips by "
                "its absolute path with frames=, or trust the link with links='follow'", "link")


def clean(name: str, where: str) -> str:
    """A relative name with plain separators; RowError for one that leads out of a folder, or to nothing."""
    parts = PureWindowsPath(name)  # also understands forward slashes
    if not parts.parts or parts.drive or parts.root or ".." in parts.parts or "\0" in name:
        raise RowError(f"{where}: {name!r} is not a name inside the data folder", "name")
    return "/".join(parts.parts)


# -------------------------------------------------------------------------------- text


def encoding_of(path: Path, others: Sequence[str] = ()) -> str:
    """The encoding of a text file: what its byte order mark says, else UTF-8, else the first of `others` that fits.

    ValueError if none does. The file is read once in pieces.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    marked = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if b"\0" in start and not marked:
        raise Refused(f"{path}: holds zero bytes: UTF-16 without its mark, or no text; save the list as UTF-8")
    for encoding in ("utf-16",) if marked else ("utf-8-sig", *others):
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            with open(path, "rb") as file:
                while piece := file.read(CHUNK):
                    decoder.decode(piece)
                decoder.decode(b"", final=True)
            return encoding
        except UnicodeDecodeError:
            continue
    said = "UTF-16, as its mark says" if marked else " or ".join(("UTF-8", *others))
    raise Refused(f"{path}: the text is not {said}; save the list as UTF-8")


def text_lines(path: Path, others: Sequence[str] = ()) -> Iterator[tuple[int, str]]:
    """(line number, text) of the lines that are not blank, whatever ends them."""
    with open(path, encoding=encoding_of(path, others)) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip("\r\n")


def word_rows(path: Path, form: str = "<relative path> <label>", bad: Bad = refuse) -> Iterator[Row]:
    """Rows of a list without a header: a name, which may hold spaces, a blank or a tab, and a label.

    A picture's name with two fields behind it is a bad row: which of the two is the label, the list does not say.
    """
    for number, line in text_lines(path):
        name, label = _last_word(line)
        if not name:
            bad(RowError(f"{path}:{number}: expected `{form}`, got {short(line.strip())}", "row"))
        elif _TWO_MORE.search(name):
            bad(RowError(f"{path}:{number}: expected `{form}`, got {short(line.strip())}: two fields follow the name, "
                         "and which is the label is not said; say it as columns path=1,label=2", "row"))
        else:
            yield Row(number, name, label)


_TWO_MORE = re.compile(rf"\.(?:{'|'.join(ending[1:] for ending in IMAGE_SUFFIXES)})\s+[^/\\]\S*$", re.IGNORECASE)


def _last_word(line: str) -> tuple[str, str]:
    parts = line.strip().replace("\t", " ").rsplit(None, 1)
    return (line.strip()[: len(parts[0])].strip(), parts[1]) if len(parts) == 2 else ("", "")


def clip_rows(path: Path, bad: Bad = refuse) -> Iterator[Row]:
    """Rows of a list of clips without a header: `<path> <frames> <label>` or `<path> <label>`, as most of its rows.

    The first is how DFER-CLIP, Former-DFER and MMA-DFER write theirs and VideoMAE those of frame folders; the second
    VideoMAE's lists of videos and MAE-DFER's.
    """
    counted = rows = 0
    for _, line in text_lines(path):
        rows += 1
        counted += _frames_of(_last_word(line)[0]) is not None
    if counted * 2 <= rows:
        yield from word_rows(path, "<path> <label>", bad)
        return
    for number, line in text_lines(path):
        name, label = _last_word(line)
        if (frames := _frames_of(name)) is None:
            bad(RowError(f"{path}:{number}: expected `<path> <frames> <label>`, got {short(line.strip())}", "row"))
        else:
            yield Row(number, _last_word(name)[0], label, frames=frames)


def _frames_of(text: str) -> int | None:
    """The number behind the name in what stands before a label; None where there is none."""
    name, number = _last_word(text)
    return int(number) if name and re.fullmatch("[0-9]{1,9}", number) else None


def is_plain(path: Path) -> bool:
    """Whether a text list has no header: its first line is parted by blanks or by one tab, not by commas."""
    if path.suffix.lower() == ".tsv":
        return False
    try:
        _, line = next(text_lines(path), (0, ""))
    except Refused:
        return False  # who reads it says what is wrong
    if "," in line or ";" in line or line.count("\t") > 2:
        return False
    return bool(_last_word(line)[0]) and not {"path", "label", "video_name", "subject"} & set(
        line.lower().replace('"', "").split())


def tab_rows(
    path: Path, columns: int, others: Sequence[str] = (), bad: Bad = refuse
) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a tab-separated list without a header."""
    for number, line in text_lines(path, others):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) == columns:
            yield number, fields
        else:
            bad(RowError(f"{path}:{number}: expected {columns} fields between tabs, got {short(line)}", "row"))


def csv_dicts(
    path: Path, delimiter: str | None = None, bad: Bad = refuse, header: list[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """First (1, {name: ""} of the header), then (line number, {column: text}) of every row; quotes are understood.

    Columns are parted by `delimiter`, else as the first line is: by tabs or semicolons where it has no comma. A list
    without a header is given one.
    """
    delimiter = delimiter or delimiter_of(path)
    with open(path, encoding=encoding_of(path), newline="") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        if header is not None:
            yield 1, dict.fromkeys(header, "")
        while True:
            try:
                row = next(lines, None)
            except csv.Error as error:
                wrong = RowError(f"{path}:{lines.line_num}: not a CSV row ({error})", "row")
                if header is None:
                    raise wrong from None
                bad(wrong)
                continue
            if row is None:
                break
            if header is None and not any(field.strip() for field in row):
                continue
            if header is None:
                header = [name.strip() for name in row]
                if twice := [name for name in header if name and header.count(name) > 1]:
                    raise RowError(f"{path}:{lines.line_num}: two columns are called {short(twice[0])}", "row")
                yield 1, dict.fromkeys(header, "")
            elif not any(field.strip() for field in row):  # spreadsheets end in rows of commas alone
                continue
            elif len(row) == len(header):
                yield lines.line_num, dict(zip(header, (field.strip() for field in row)))
            else:
                found = f"expected {short(delimiter.join(header))[1:-1]}, got {short(delimiter.join(row))}"
                bad(RowError(f"{path}:{lines.line_num}: {found}", "row"))
        if header is None:
            yield 1, {}


def delimiter_of(path: Path) -> str:
    """What parts the columns of a CSV file, by its first line."""
    _, line = next(text_lines(path), (0, ""))
    return "," if "," in line else "\t" if "\t" in line else ";" if ";" in line else ","


def csv_rows(path: Path, columns: tuple[str, str], bad: Bad = refuse) -> Iterator[Row]:
    """Rows of a CSV list whose header is exactly `columns`: the name and the label."""
    lines = csv_dicts(path, bad=bad)
    _, header = next(lines)
    if tuple(header) != columns:
        raise RowError(f"{path}:1: expected the header {','.join(columns)}, got {short(','.join(header))}; where its "
                       f"columns are called otherwise, say columns path=…,label=…", "row")
    for number, row in lines:
        if tuple(row.values()) == columns:
            bad(RowError(f"{path}:{number}: the header stands here again; take the line out", "row"))
        else:
            yield Row(number, row[columns[0]], row[columns[1]])


def frame_files(folder: str | Path) -> Iterator[os.DirEntry]:
    """The image files of a frame folder, in no order: no hidden ones, but broken links, which are missing files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            named = entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".")
            if named and (entry.is_file() or entry.is_symlink()):
                yield entry


def require_columns(path: Path, header: Mapping[str, str], columns: Iterable[str]) -> None:
    """ValueError naming the columns that a table lacks and those it has."""
    if lacking := [name for name in columns if name not in header]:
        raise Refused(f"{path}:1: no column {', '.join(map(str, lacking))}; the table has "
                      f"{short(', '.join(header))[1:-1] or 'none'}; say columns where it calls them otherwise, by "
                      "their numbers (path=1,label=2) where it has no header")


def short(text: str) -> str:
    """Text of a list as a message quotes it: whole, or its beginning."""
    return repr(text if len(text) <= 120 else text[:117] + "...")
