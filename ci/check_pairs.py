"""Check that every chapter is a sound pair: the .md, which people edit, and the .ipynb with its outputs.

    python ci/check_pairs.py [CHAPTERS]

Each check looks at one chapter and yields what is wrong with it, in words that name the cell. File times
are never asked: after a git clone they mean nothing.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from s4d_lib.batch.chapters import ChapterError, chapter_parameters, find_chapters, read_chapter

TAGS = {
    "parameters",
    "hide-input",
    "hide-output",
    "hide-cell",
    "remove-input",
    "remove-output",
    "remove-cell",
    "nbval-check-output",
    "nbval-ignore-output",
    "raises-exception",
}
MIME_TYPES = {
    "text/plain",
    "text/html",
    "text/markdown",
    "text/latex",
    "image/png",
    "image/jpeg",
    "image/svg+xml",
    "application/json",
    "application/vnd.plotly.v1+json",
}
NOTEBOOK_METADATA = {"kernelspec", "language_info", "jupytext"}
OPTIONS = ("label", "alt", "caption")  # alt: what a picture among the outputs shows, read out by the site
CELL_METADATA = {"tags", *OPTIONS}
LARGEST = 1_000_000  # bytes; above it pages load slowly and GitHub stops rendering
ROOT = Path(__file__).resolve().parent.parent
OF_ONE_MACHINE = re.compile(
    rf"{re.escape(str(ROOT))}|site-packages|(?<![\w.])/(?:home|Users|root|tmp|opt|mnt)/|\b[A-Z]:\\+Users"
)
REMEDY = "python ci/execute_chapters.py {name} writes the .ipynb anew from the .md"


@dataclass
class Chapter:
    """One pair as it lies on disk."""

    name: str
    text: NotebookNode  # from the .md: cells without outputs
    notebook: NotebookNode  # from the .ipynb
    size: int  # of the .ipynb, in bytes

    def code(self) -> Iterator[tuple[int, NotebookNode]]:
        """The notebook's code cells, each with its number counted from 1 over all cells."""
        for number, cell in enumerate(self.notebook.cells, 1):
            if cell.cell_type == "code":
                yield number, cell


def tags_of(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def same_cells(chapter: Chapter) -> Iterator[str]:
    """Type, source, tags and options of every cell are equal in the two files."""

    def essence(cell: NotebookNode) -> tuple:
        kept = cell.metadata
        return cell.cell_type, cell.source.rstrip(), sorted(tags_of(cell)), *(kept.get(name) for name in OPTIONS)

    text = [essence(cell) for cell in chapter.text.cells]
    notebook = [essence(cell) for cell in chapter.notebook.cells]
    for number, (ours, theirs) in enumerate(zip(text, notebook), 1):
        if ours != theirs:
            parts = zip(("type", "source", "tags", *OPTIONS), ours, theirs)
            part = next(what for what, a, b in parts if a != b)
            first = (ours[1].splitlines() or [""])[0]
            yield f"cell {number} ({first[:50]!r}) has another {part} in the .md than in the .ipynb"
            return
    if len(text) != len(notebook):
        yield f"the .md has {len(text)} cells, the .ipynb {len(notebook)}"


def known_tags(chapter: Chapter) -> Iterator[str]:
    """A tag outside the vocabulary is a typing mistake that would silently do nothing."""
    for number, cell in enumerate(chapter.text.cells, 1):
        for tag in tags_of(cell):
            if tag not in TAGS:
                yield f"cell {number} has the unknown tag {tag!r}; known are {', '.join(sorted(TAGS))}"


def literal_parameters(chapter: Chapter) -> Iterator[str]:
    try:
        chapter_parameters(chapter.text.cells, "the .md")
    except ChapterError as error:
        yield str(error)


def executed_in_order(chapter: Chapter) -> Iterator[str]:
    for expected, (number, cell) in enumerate(chapter.code(), 1):
        if cell.execution_count != expected:
            yield f"cell {number} was executed as [{cell.execution_count}], not as [{expected}]"
            return


def outputs_are_checked(chapter: Chapter) -> Iterator[str]:
    """Some cell lets nbval compare its output; each cell that asks for it has an output to compare."""
    checked = [(number, cell) for number, cell in chapter.code() if "nbval-check-output" in tags_of(cell)]
    for number, cell in checked:
        if not cell.outputs:
            yield f"cell {number} is tagged nbval-check-output but has no output"
    if not checked and any(True for _ in chapter.code()):
        yield "no cell is tagged nbval-check-output; tag one that prints exact integers or shapes"


def no_errors(chapter: Chapter) -> Iterator[str]:
    for number, cell in chapter.code():
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags_of(cell):
                yield f"cell {number} ended in {output.ename}: {output.evalue[:80]}"


def showable_outputs(chapter: Chapter) -> Iterator[str]:
    """Outputs are text, tables, images and plotly figures: what the site and GitHub show without a kernel."""
    for number, cell in chapter.code():
        for output in cell.outputs:
            for mime in sorted(set(output.get("data", {})) - MIME_TYPES):
                yield f"cell {number} has an output of type {mime}, which a page without a kernel cannot show"


def no_machine_paths(chapter: Chapter) -> Iterator[str]:
    """No output names a folder of the machine it was made on; a Python warning does so too."""
    for number, cell in chapter.code():
        for output in cell.outputs:
            shown = [output.get("text", ""), *output.get("data", {}).values()]
            for text in (text for text in shown if isinstance(text, str)):
                if found := OF_ONE_MACHINE.search(text):
                    line = text[: found.end()].splitlines()[-1] + text[found.end() :].split("\n")[0]
                    yield f"cell {number} prints a path of one machine: {line.strip()[:100]!r}"


def plain_metadata(chapter: Chapter) -> Iterator[str]:
    """No widget state (megabytes), run times or pairing rules in the notebook; they belong in no commit."""
    metadata = chapter.notebook.metadata
    for key in sorted(set(metadata) - NOTEBOOK_METADATA):
        yield f"the .ipynb has notebook metadata {key!r}"
    for key in sorted(set(chapter.text.metadata) - NOTEBOOK_METADATA):
        yield f"the .md has the header key {key!r}, which a save in JupyterLab would drop; write it into the text"
    for side, notebook in ((".md", chapter.text), (".ipynb", chapter.notebook)):
        if "formats" in notebook.metadata.get("jupytext", {}):
            yield f"the {side} sets jupytext.formats, which overrules jupytext.toml"
    for side, notebook in ((".md", chapter.text), (".ipynb", chapter.notebook)):
        if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
            yield f"the {side} does not name the kernel python3 in its kernelspec"
    for number, cell in enumerate(chapter.notebook.cells, 1):
        for key in sorted(set(cell.metadata) - CELL_METADATA):
            yield f"cell {number} of the .ipynb has cell metadata {key!r}"


def small_enough(chapter: Chapter) -> Iterator[str]:
    if chapter.size > LARGEST:
        yield f"the .ipynb has {chapter.size:,} bytes; the limit is {LARGEST:,}"


CHECKS: list[Callable[[Chapter], Iterator[str]]] = [
    same_cells,
    known_tags,
    literal_parameters,
    executed_in_order,
    outputs_are_checked,
    no_errors,
    showable_outputs,
    no_machine_paths,
    plain_metadata,
    small_enough,
]


def read_pair(path: Path) -> Chapter:
    """The chapter whose .md is named. ChapterError, with its name, where one of the two files cannot be read."""
    pair = path.with_suffix(".ipynb")
    try:
        text = read_chapter(path)
    except UnicodeDecodeError as error:
        raise ChapterError(f"{path.name}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return Chapter(path.stem, text, read_notebook(pair), pair.stat().st_size)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook in format 4. ChapterError where a file is none: no JSON, cut, of another form, not UTF-8."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        return notebook
    except Exception as error:  # nbformat's own errors, and whatever else odd JSON leads it into
        what = "it is not JSON" if isinstance(error, nbformat.reader.NotJSONError) else str(error).split("\n")[0][:120]
        remedy = REMEDY.format(name=path.stem)
        raise ChapterError(f"{path.name}: not a notebook ({type(error).__name__}: {what}); {remedy}") from error


def check_folder(chapters: Path) -> Iterator[str]:
    """All that is wrong with the chapters in a folder, one line each."""
    stems = {path.stem for path in chapters.glob("*.ipynb")}
    for path in find_chapters(chapters):
        if path.stem not in stems:
            yield f"{path.name}: there is no {path.stem}.ipynb; {REMEDY.format(name=path.stem)}"
            continue
        try:
            chapter = read_pair(path)
        except ChapterError as error:  # the other chapters are looked at all the same
            yield str(error)
            continue
        for check in CHECKS:
            for problem in check(chapter):
                yield f"{path.stem}: {problem}"
    for stem in sorted(stems - {path.stem for path in chapters.glob("*.md")}):
        yield f"{stem}.ipynb: there is no {stem}.md; the .md is the source"


def check_contents(chapters: Path, myst: Path) -> Iterator[str]:
    """The site's table of contents lists every chapter's .ipynb, once, in book order."""
    toc = yaml.safe_load(myst.read_text())["project"]["toc"]
    listed = [file for file in _files(toc) if file.startswith(f"{chapters.name}/")]
    wanted = [f"{chapters.name}/{path.stem}.ipynb" for path in find_chapters(chapters)]
    if listed != wanted:
        yield f"{myst.name}: its toc lists {listed}; in book order the chapters are {wanted}"


def _files(entries: list[dict]) -> Iterator[str]:
    for entry in entries:
        if "file" in entry:
            yield entry["file"]
        yield from _files(entry.get("children", []))


def main(arguments: list[str]) -> int:
    chapters = Path(arguments[0]) if arguments else ROOT / "chapters"
    try:
        problems = [*check_folder(chapters), *check_contents(chapters, chapters.resolve().parent / "myst.yml")]
    except ChapterError as error:
        problems = [str(error)]
    for problem in problems:
        print(problem)
    if problems:
        return 1
    print(f"{len(find_chapters(chapters))} chapters: every pair is equal, executed in order and clean")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
