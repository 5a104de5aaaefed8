"""file → chapter     which chapters there are, their cells, and the parameters that a run may set."""

import ast
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = bool | int | float | str | list | dict | tuple | None


class ChapterError(ValueError):
    """A chapter, or a request about chapters, that cannot be run as it stands."""


def read_chapter(path: Path):
    """The chapter's text file as a notebook without outputs (nbformat NotebookNode)."""
    import jupytext

    return jupytext.read(path, fmt="md:myst")


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
    """Defaults with the given values on top; ChapterError for an unknown name or a value of another type."""
    for name, value in given.items():
        if name not in defaults:
            known = ", ".join(defaults) or "none"
            raise ChapterError(f"{chapter}: unknown parameter {name!r}; it has: {known}")
        default = defaults[name]
        whole_number_for_float = isinstance(default, float) and type(value) is int
        if default is not None and type(value) is not type(default) and not whole_number_for_float:
            kind = type(default).__name__
            raise ChapterError(f"{chapter}: parameter {name!r} is {kind} ({default!r}), not {value!r}")
    return {**defaults, **given}
