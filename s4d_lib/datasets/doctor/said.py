"""what was found → what to say     the words with which a reader and a training read what the doctor looked at.

Derived in chapter 02.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from s4d_lib.datasets.doctor.census import Census
from s4d_lib.datasets.doctor.findings import FrameReport, ListReport, Tally
from s4d_lib.datasets.folders import FolderLayout
from s4d_lib.datasets.list_form import ListForm
from s4d_lib.datasets.readers import options_of
from s4d_lib.errors import Refused


def own_schema(name: str, schema: str | None, form: ListForm) -> str | None:
    """The class order that was said, by a name or as classes. ValueError for both, or where the layout fixes it."""
    if schema is not None and form.classes:
        raise Refused(f"schema={schema!r} and classes={', '.join(form.classes)}: say one of the two")
    if schema is not None and "schema" not in options_of(name):
        raise Refused(f"the layout {name!r} fixes its labels itself: leave out schema={schema!r}")
    return ",".join(form.classes) or schema


def modality_of(layout: FolderLayout, report: FrameReport) -> str:
    """Whether what was found are stills or clips."""
    most = max(report.kinds, key=report.kinds.get, default="video")
    return "image" if (layout.kind or ("image" if most == "image" else "clip")) == "image" else "clip"


def advise_strip(census: Census, form: ListForm, note: Tally) -> None:
    """Where names lead out of the folder alike, they are those of another machine: say what to take off."""
    names = [name.replace("\\", "/") for name in census.outside]
    before = os.path.commonprefix([name.rpartition("/")[0] + "/" for name in names]).rpartition("/")[0]
    if before and not form.strip:
        note.remedies["name outside the folder"] = (
            f"If they are the paths of another machine, take their start off: --strip {shlex.quote(before + '/')}")


def advise_missing(census: Census, form: ListForm, note: Tally) -> None:
    """Where nothing that is listed is there, the names may begin with a folder that is not here: say so."""
    before = os.path.commonprefix([f"{id.rpartition('/')[0]}/" for id in census.members]).rpartition("/")[0]
    if before and not form.strip and note.count["missing"] == len(census.members):
        note.remedies["missing"] = (
            "Extract or fetch the data, name another folder with --frames, or take off what the names begin with: "
            f"--strip {shlex.quote(before + '/')}")


def reading_of(
    census: Census, report: FrameReport, lists: tuple[ListReport, ...], frames: str | None, schema: str | None,
    form: ListForm,
) -> dict[str, Any] | None:
    """What the reader is to be told so that it reads what was looked at; None where it would find nothing."""
    if not report.found or not (lists or census.dataset == "voxceleb2"):
        return None
    _, bases = census.base()  # what a list shows; where none does, the reader says so again
    told = {"frames": frames or report.folder, "schema": None if form.classes else schema} | form.said()
    told.setdefault("base", bases.pop() if len(bases) == 1 else None)
    listing = form.listing
    if census.dataset == "voxceleb2" and lists:
        told["listing"] = listing or lists[0].path
    taken = options_of(census.dataset)
    return {name: value for name, value in told.items()
            if value is not None and name in taken and value != taken[name]}
