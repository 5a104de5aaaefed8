"""The page of published weights: every command can be typed, every layout exists, and it says what the table says."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from weights_page import AFTERWARDS, UNSAID, command, read_table, source_of, weights_page

from s4d_lib.checkpoints.layouts import LAYOUTS
from s4d_lib.checkpoints.loading import MODELS
from s4d_lib.cli.app import app

TABLE = Path(__file__).resolve().parents[2] / "chapters" / "published_weights.yaml"
FILES = [file for family in read_table(TABLE) for file in family["files"]]
READ = [file for file in FILES if "layout" in file]


def parsed(line: str) -> dict[str, object]:
    """What the command line makes of it; a usage error where it makes nothing."""
    program, name, *words = shlex.split(line)
    convert = typer.main.get_command(app).commands[name]
    assert program == "s4d"
    return convert.make_context(name, words).params


@pytest.mark.parametrize("file", READ, ids=source_of)
def test_every_command_can_be_typed_and_names_a_layout(file):
    line = command(file)
    words = parsed(line)
    assert str(words["source"]) == source_of(file) and words["target"].suffix == ".safetensors"
    assert words["as_"] == file["layout"] in LAYOUTS
    assert line in weights_page(TABLE)
    assert not re.search(r"[\s,{}]", source_of(file)), "a name that can be typed as it stands"


def test_a_command_that_cannot_be_typed_is_noticed():
    with pytest.raises(Exception, match="(?i)no such option"):
        parsed("s4d convert a.pth a.safetensors --layout mae")


def test_the_table_says_the_same_of_every_file():
    known = {"name", "unnamed", "local", "folder", "at", "layout", "stated", "note", "why"}
    for file in FILES:
        assert set(file) <= known and ("layout" in file) != ("why" in file), file
        assert not file.get("unnamed") or "layout" not in file or "local" in file, "a name of ours where there is none"
        assert str(file.get("at", "https://")).startswith("https://")
    assert {file["layout"] for file in READ} >= {"s4d_pretrain", "s2d", "landmarks", "mae", "omnimae", "videomae",
                                                 "marlin", "videomae_pretrain", "hf_videomae", "hf_videomae_pretrain"}
    assert len({command(file).split()[3] for file in READ}) == len(READ), "no two commands write one file"


def test_the_page_says_what_is_not_known():
    page = weights_page(TABLE)
    assert set(AFTERWARDS) == set(MODELS) - {"PhotographClassifier"}  # which is fetched, not converted
    rows = [line for line in page.splitlines() if line.startswith("| ") and "| size |" not in line]
    assert len(rows) == len(FILES) and all(row.count("|") == 5 for row in rows)
    assert sum(UNSAID in row for row in rows) == sum("stated" not in file for file in FILES)
    assert "None of these files could be tried" in page and "cannot be read: a convolutional network" in page
