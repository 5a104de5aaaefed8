"""file → chapter     which chapters there are, their cells, and the parameters that a run may set."""

import ast
import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from s4d_lib.errors import Refused

Value = bool | int | float | str | list | dict | tuple | None


class ChapterError(Refused):
    """A chapter, or a request about chapters, that cannot be run as it stands."""


def read_chapter(path: Path):
    """The chapter's text file as a notebook without outputs (nbformat NotebookNode)."""
    import jupytext

    return jupytext.read(path, fmt="md:myst")


def code_cells(text: str) -> list[dict]:
    """The code cells of a chapter's text, as `read_chapter` finds them: `{"source": …, "metadata": {"tags": […]}}`.

    What can be refused about a run stands in these cells, and jupytext, which reads the whole notation, takes seconds
    to import. A test holds the two readers against each other over every chapter.
    """
    cells: list[dict] = []
    inside: list[str] | None = None
    ticks = ""
    for line in text.splitlines():
        if not ticks:
            fence = re.match(r"(`{3,})(\{code-cell\})?", line)
            if fence:
                ticks, inside = fence[1], [] if fence[2] else None
        elif re.fullmatch(f"{ticks}`*\\s*", line):
            if inside is not None:
                cells.append(_code_cell(inside))
            ticks, inside = "", None
        elif inside is not None:
            inside.append(line)
    return cells


def _code_cell(lines: list[str]) -> dict:
    """Options first, as `:name: value` lines or as YAML between two `---`; then perhaps an empty line; then code."""
    import yaml

    options: dict = {}
    if lines and lines[0].strip() == "---":
        end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), len(lines) - 1)
        options, lines = yaml.safe_load("\n".join(lines[1:end])) or {}, lines[end + 1 :]
    else:
        while lines and (option := re.match(r":([\w-]+):(.*)", lines[0])):
            options[option[1]], lines = yaml.safe_load(option[2]), lines[1:]
    tags = options.get("tags") or []
    return {"source": "\n".join(lines).strip("\n"), "metadata": {"tags": [tags] if isinstance(tags, str) else tags}}


def find_chapters(chapters: Path, names: Sequence[str] = ()) -> list[Path]:
    """The chapters' text files in book order: index, numbered chapters, lettered appendices.

    `names` keeps only those; "04", "04_masking" and "chapters/04_masking.md" name the same chapter. Raises
    ChapterError when there is no chapter at all, or when a name fits none or several.
    """
    found = sorted(Path(chapters).glob("*.md"), key=_book_order)
    if not found:
        raise ChapterError(f"{chapters} holds no chapter (*.md); run from the repository root")
    if not names:
        return found
    wanted = set()
    for name in names:
        stem = Path(name).stem
        fitting = [path for path in found if path.stem == stem or path.stem.startswith(stem + "_")]
        if len(fitting) != 1:
            known = ", ".join(path.stem for path in found)
            raise ChapterError(f"{name!r} fits {len(fitting)} chapters; there are: {known}")
        wanted.add(fitting[0])
    return [path for path in found if path in wanted]


def _book_order(path: Path) -> tuple[int, str]:
    return (0 if path.stem == "index" else 1 if path.stem[0].isdigit() else 2, path.stem)


def chapter_parameters(cells: Sequence[Mapping], chapter: str) -> dict[str, Value]:
    """The names and default values in the cell tagged `parameters`; empty where there is none.

    Only `name = literal` and `name: type = literal` may stand there: Papermill sets parameters in a second
    cell, after this one, so a value computed here would be computed from the defaults. Raises ChapterError
    quoting the line.
    """
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) > 1:
        raise ChapterError(f"{chapter}: {len(tagged)} cells are tagged 'parameters'; keep one")
    source = tagged[0]["source"] if tagged else ""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ChapterError(f"{chapter}: the parameters cell is not Python: {error}") from error
    return dict(_literal_assignment(statement, source, chapter) for statement in statements)


def _literal_assignment(statement: ast.stmt, source: str, chapter: str) -> tuple[str, Value]:
    targets = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets = [statement.target]
    if len(targets) == 1 and isinstance(targets[0], ast.Name):
        with contextlib.suppress(ValueError, TypeError):
            return targets[0].id, ast.literal_eval(statement.value)
    raise ChapterError(
        f"{chapter}: `{ast.get_source_segment(source, statement)}` in the parameters cell is not `name = literal`. "
        "Compute it in the next cell, so that a parameter given from outside reaches it."
    )


def merge_parameters(
    defaults: Mapping[str, Value], given: Mapping[str, Value], chapter: str
) -> dict[str, Value]:
    """Defaults with the given values on top; ChapterError, with a suggestion, for an unknown name or another type."""
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ChapterError(f"{chapter}: unknown parameter {name!r}{did_you_mean(name, defaults)}; it has: {known}")
        default = defaults[name]
        if not _fits(value, default):
            raise ChapterError(f"{chapter}: parameter {name!r} is {type(default).__name__} ({default!r}), "
                               f"not {value!r}{_of_its_kind(name, value, default)}")
    return {**defaults, **given}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`", did you mean 'seeds'?"`, or nothing where no known name is like it."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _fits(value: Value, default: Value) -> bool:
    """Whether a value may stand in for a default: same type; a whole number for a float; a list of its elements."""
    if default is None or (isinstance(default, float) and type(value) is int):
        return True
    if type(value) is not type(default):
        return False
    if isinstance(default, list) and default and len({type(item) for item in default}) == 1:
        return all(_fits(item, default[0]) for item in value)
    return True


def _of_its_kind(name: str, value: Value, default: Value) -> str:
    """How to say the same value in the type that the parameter has, where there is a way."""
    if isinstance(default, str):
        return f"; for the text, say {name}='\"{value}\"'"
    if isinstance(default, list) and not isinstance(value, list) and _fits([value], default):
        return f"; for a list of one, say {name}='[{value!r}]'"
    if isinstance(value, list) and len(value) == 1 and _fits(value[0], default):
        return f"; for the one value, say {name}={value[0]!r}"
    if type(default) is int and isinstance(value, float) and value == int(value):
        return f"; for the whole number, say {name}={int(value)}"
    if isinstance(default, bool):
        return f"; say {name}=true or {name}=false"
    return ""
