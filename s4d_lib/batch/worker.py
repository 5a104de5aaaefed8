"""chapter → executed notebook     one chapter through Papermill, in a process of its own.

    python -m s4d_lib.batch.worker FOLDER

reads FOLDER/request.json (chapter, parameters, working folder), executes the chapter and leaves FOLDER/chapter.ipynb,
with FOLDER/progress.json telling the cell it is at and FOLDER/outcome.json how it ended. The exit code says it too, for
the case that the disk is too full for a file: 0 ran through, 1 an error in a cell, 3 the kernel died, 28 the disk is
full. Whoever started this process decides what that means; it never judges itself.
"""

import json
import logging
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from s4d_lib.batch.causes import CELL_ERROR, DISK_FULL, KERNEL_DIED, NO_SPACE
from s4d_lib.batch.chapters import read_chapter
from s4d_lib.files import is_disk_full, write_atomically


class _Kernel(AsyncKernelManager):
    """A kernel that leaves its exit code behind: Papermill only says that it died."""

    exit_code: int | None = None

    async def _async_is_alive(self) -> bool:
        alive = await super()._async_is_alive()
        process = getattr(self.provisioner, "process", None)
        if not alive and process is not None:
            _Kernel.exit_code = process.poll()
        return alive

    is_alive = _async_is_alive


def execute(folder: Path) -> int:
    """Run the requested chapter; returns the exit code."""
    request = json.loads((folder / "request.json").read_text())
    outcome: dict[str, Any] = {}
    try:
        notebook = read_chapter(Path(request["chapter"]))
        nbformat.write(notebook, folder / "source.ipynb")
        cells = len(notebook.cells) + bool(request["parameters"])  # Papermill adds a cell for them
        _through_papermill(folder, request, cells)
        code = 0
    except PapermillExecutionError as error:  # its cell number is that of the prompt; ours counts all cells
        outcome |= {"error": error.ename, "says": str(error.evalue)}
        code = DISK_FULL if NO_SPACE.search(f"{error.evalue}") else CELL_ERROR
    except DeadKernelError:
        outcome |= {"error": "DeadKernelError", "says": "Kernel died", "kernel_exit": _Kernel.exit_code}
        code = KERNEL_DIED
    except Exception as error:  # not of a cell, but of starting the kernel or of writing the notebook down
        outcome |= {"error": type(error).__name__, "says": str(error)}
        code = DISK_FULL if is_disk_full(error) else CELL_ERROR
        traceback.print_exc()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    _leave(folder / "outcome.json", outcome | {"exit": code, "largest_process_mb": largest / 1e6})
    return code


def _through_papermill(folder: Path, request: dict, cells: int) -> None:
    def at(cell: dict, cell_index: int, **_: Any) -> None:
        _leave(folder / "progress.json", {"cell": cell_index + 1, "cells": cells})

    def run() -> None:
        papermill.execute_notebook(
            folder / "source.ipynb", folder / "chapter.ipynb", request["parameters"], kernel_name="python3",
            language="python", cwd=request["cwd"], log_output=True, progress_bar=False, on_cell_start=at,
            kernel_manager_class=_Kernel)

    try:
        run()
    except RuntimeError as error:
        # jupyter_client looks for free ports and lets them go before the kernel takes them (papermill#511): when two
        # kernels get the same one, this one dies before its first cell. Nothing has run, so it is started once more.
        if "Kernel died before replying to kernel_info" not in str(error) or (folder / "progress.json").exists():
            raise
        print("the kernel did not come up; starting it once more", file=sys.stderr)
        run()


def _leave(path: Path, words: dict) -> None:
    """Write a small file whole. Without room for it the run goes on: the exit code says the same."""
    try:
        write_atomically(path, json.dumps(words))
    except OSError as error:
        print(f"{path.name} was not written: {error}", file=sys.stderr)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    sys.exit(execute(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
