"""Write every chapter's .ipynb anew from its .md: run at the smoke tier, with outputs fit to commit.

    python ci/execute_chapters.py [CHAPTER...]

The cells come from the .md, the outputs from our own runner. Nothing else of the run is kept: no
times, no widget state, no paths of this machine.
"""

import hashlib
import sys
from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from s4d_lib.batch.chapters import read_chapter
from s4d_lib.batch.runner import run_book
from s4d_lib.batch.table import print_table
from s4d_lib.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def pair_notebook(text: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The cells of `text` with the outputs of `executed`, a run of the same cells without parameters.

    Raises ValueError when the two do not have the same cells.
    """
    if [cell.source for cell in text.cells] != [cell.source for cell in executed.cells]:
        raise ValueError("the executed notebook has other cells than the text; run it without parameters")
    cells, seen = [], Counter()
    for cell, ran in zip(text.cells, executed.cells):
        metadata = {key: cell.metadata[key] for key in ("tags", "label", "alt", "caption") if key in cell.metadata}
        fingerprint = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[fingerprint] += 1  # two equal cells still need two ids
        new = NotebookNode(
            id=f"{fingerprint}-{seen[fingerprint]}",
            cell_type=cell.cell_type,
            metadata=NotebookNode(metadata),
            source=cell.source,
        )
        if cell.cell_type == "code":
            new.execution_count, new.outputs = ran.execution_count, clean_outputs(ran.outputs)
        cells.append(new)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=nbformat.from_dict(METADATA))
    nbformat.validate(notebook)
    return notebook


def clean_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs without widget views (dead without their state) or machine paths; adjacent prints made one."""
    cleaned: list[NotebookNode] = []
    for output in (nbformat.from_dict(output) for output in outputs):
        if "data" in output:
            output.data.pop(WIDGET_VIEW, None)
            for mime, shown in output.data.items():
                output.data[mime] = _without_machine(shown) if isinstance(shown, str) else shown
            output.metadata = NotebookNode()
        if "text" in output:
            output.text = _without_machine(output.text)
        before = cleaned[-1] if cleaned else {}
        if output.output_type == "stream" and output.name == before.get("name"):
            before.text += output.text
        else:
            cleaned.append(output)
    return cleaned


def _without_machine(text: str) -> str:
    return text.replace(f"{ROOT}/", "").replace(str(ROOT), ".").replace(str(Path.home()), "~")


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """A committed notebook, whole or not at all: killed, or on a full disk, the one before stands."""
    write_atomically(path, nbformat.writes(notebook) + "\n")


def main(names: list[str]) -> int:
    from s4d_lib.training.tiers import prepare_data

    prepare_data("smoke")
    chapters = ROOT / "chapters"
    runs = run_book(chapters, ROOT / "runs", tier="smoke", names=names)
    print_table(runs)
    for run in runs:
        if run.succeeded:
            executed = nbformat.read(Path(run.folder) / "chapter.ipynb", as_version=4)
            notebook = pair_notebook(read_chapter(chapters / f"{run.chapter}.md"), executed)
            write_notebook(chapters / f"{run.chapter}.ipynb", notebook)
    return 0 if all(run.succeeded for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
