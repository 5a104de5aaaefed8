"""words → calls     the `s4d` command: draw faces, look after data, train, convert, predict, run the book.

Every command imports what it needs when it is called, so that `s4d --help` answers at once. What this library refuses
(an unknown recipe, an unreadable video, a wrong configuration) and what the system does (a file that is not there, a
full disk) is printed in one sentence, with exit code 2; any other error keeps its traceback, because it is a defect and
not an answer.
"""

import sys
from typing import Annotated

import typer

from s4d_lib import __version__
from s4d_lib.cli.bench import bench
from s4d_lib.cli.book import book
from s4d_lib.cli.cost import cost
from s4d_lib.cli.data import crop, data, doctor, faces, pack
from s4d_lib.cli.export import export
from s4d_lib.cli.models import convert, fetch, predict
from s4d_lib.cli.training import curves, rerun, study, train
from s4d_lib.errors import Refused

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point of the `s4d` command."""
    try:
        app()
    except (ValueError, OSError) as error:
        if not isinstance(error, Refused | OSError) and not _is_of_pydantic(error):
            raise
        print(f"s4d: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _is_of_pydantic(error: Exception) -> bool:
    """Whether pydantic raised the error, on behalf of a configuration."""
    return type(error).__module__.startswith("pydantic")


def _one_line(error: Exception) -> str:
    if _is_of_pydantic(error):
        found = [f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}" for item in error.errors()]
        return f"{error.title}: {'; '.join(found)}"
    from s4d_lib.text import printable

    return printable(" ".join(str(error).split()))  # names from lists and files may hold what steers a terminal


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"s4d {__version__}")
        raise typer.Exit


@app.callback()
def s4d(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Static for Dynamic: facial expression recognition in images and videos."""


for command in (faces, data, train, study, rerun, book, cost, bench, curves, convert, export, fetch, crop, predict,
                doctor, pack):
    app.command()(command)
