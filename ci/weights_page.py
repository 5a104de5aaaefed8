"""Write the page "Published weights" of the site from chapters/published_weights.yaml; ci/api_pages.py calls it.

The table says where a file is and which layout it has; what it becomes, and what that can do, is the same for all files
of a layout and stands here once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

UNSAID = "not stated by the authors"
# class of the model → what can be done with it here
AFTERWARDS = {
    "S4DClassifier": "answers with the classes of its head (`s4d predict --model`, with `--schema` where the file "
                     "names no order), or hands its encoder to a training (`init:`)",
    "DualModalMAE": "reconstructs hidden patches, and is what a fine-tuning starts from (`init:`)",
    "DualModalEncoder": "latents of pictures and clips; a fine-tuning starts from it (`init:`)",
    "S2DClassifier": "answers with the classes of its head once it has a landmark network, or is what a training of "
                     "S2D starts from",
    "LandmarkNet": "68 points of a face, and the features that S2D's prompts read (`landmarks=` of chapter 11)",
}
HEAD = """\
---
title: Published weights
description: Every published file of S4D, S2D and their ancestors, where it is, and the command that reads it.
---

(published-weights)=
# Published weights

Where the weights of these methods are, under which licence, and the one command that turns each into a model of this
library. Names and addresses are their authors'. **None of these files could be tried where this book is made**: the
layouts were tested on small files with the same names and shapes, on recorded outputs of the released code, and the
port of VideoMAE against `transformers` itself. A file that holds more than its layout knows, or less, is refused with
the name of the tensor.

What a file becomes decides what it can do afterwards:
"""


def read_table(path: Path) -> list[dict[str, Any]]:
    """The families of the table."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["families"]


def source_of(file: Mapping[str, Any]) -> str:
    """What a reader types for a file: its name, that of its folder, or one of ours where its authors give none."""
    return file.get("folder") or file.get("local") or file["name"]


def command(file: Mapping[str, Any]) -> str:
    """The one command that converts a file."""
    stem = source_of(file).split("+")[0]
    for ending in (".pth.tar", ".pth", ".pt", ".torch"):
        stem = stem.removesuffix(ending)
    return f"s4d convert {source_of(file)} {stem}.safetensors --as {file['layout']}"


def weights_page(table: Path) -> str:
    """The page as Markdown."""
    from s4d_lib.checkpoints.layouts import LAYOUTS

    families, models = read_table(table), {name: layout.model for name, layout in LAYOUTS.items()}
    lines = [*HEAD.splitlines(), "", *(f"- `{kind}`: {what}." for kind, what in AFTERWARDS.items())]
    for family in families:
        lines += ["", f"## {family['name']}", "", f"{family['about']} Page: <{family['page']}>. "
                  f"Licence: {family.get('licence', UNSAID)}.", "",
                  "| file | size | becomes | what to know |", "|---|---|---|---|"]
        lines += [_row(file, models) for file in family["files"]]
        if commands := [command(file) for file in family["files"] if "layout" in file]:
            lines += ["", "```bash", *commands, "```"]
    return "\n".join([*lines, ""])


def _row(file: Mapping[str, Any], models: Mapping[str, str]) -> str:
    name = file["name"] if file.get("unnamed") else f"`{file['name']}`"
    named = " (the file's name is not stated)" if file.get("unnamed") else ""
    place = f"[{name}]({file['at']})" if "at" in file else name
    becomes = f"`{models[file['layout']]}`" if "layout" in file else "nothing here"
    note = file.get("note") or (f"cannot be read: {file['why']}" if "why" in file else "")
    return f"| {place}{named} | {file.get('stated', UNSAID)} | {becomes} | {note} |"
