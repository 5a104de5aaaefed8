"""file name → label, person     data sets without lists: CREMA-D and RAVDESS say all in the names of their files.

    CREMA-D     1001_DFA_ANG_XX.flv             actor _ sentence _ emotion _ level
    RAVDESS     02-01-06-01-02-01-12.mp4        modality - channel - emotion - intensity - statement - take - actor

Neither has published splits. Here people are dealt out to the folds in the order of their numbers: of k folds, fold 1
tests the first, the (k+1)th … person, so that nobody is trained and tested on. Of RAVDESS the recordings that show a
face are read: sound alone (modality 03) is not, and of a film with sound (01) and its copy without (02) the one that is
there, or the one with sound. Derived in chapter 02.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from s4d_lib.datasets.lists import Row
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import VIDEO_SUFFIXES
from s4d_lib.text import natural_order


class Told(NamedTuple):
    """What a file's name says: class, person, what copies of the recording have in common, which copy it is."""

    label: str
    person: str
    recording: str
    rank: int = 0


_CREMAD = re.compile(r"(\d{4})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_([A-Z]{2}|X)")
_CREMAD_WORDS = {"ANG": "Anger", "DIS": "Disgust", "FEA": "Fear", "HAP": "Happiness", "NEU": "Neutral",
                 "SAD": "Sadness"}
_RAVDESS = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
_RAVDESS_WORDS = ("Neutral", "Calm", "Happiness", "Sadness", "Anger", "Fear", "Disgust", "Surprise")


def crema_d(stem: str) -> Told | None:
    """What the name of a CREMA-D file says; None if it is none."""
    found = _CREMAD.fullmatch(stem)
    return Told(_CREMAD_WORDS[found[3]], found[1], stem) if found else None


def ravdess(stem: str) -> Told | None:
    """What the name of a RAVDESS film says; None for sound alone and for other files."""
    found = _RAVDESS.fullmatch(stem)
    if found is None or found[1] == "03":
        return None
    return Told(_RAVDESS_WORDS[int(found[3]) - 1], found[7], stem[3:], int(found[1]))


def named_rows(folder: Path, told: Callable[[str], Told | None], split: str, fold: int, folds: int) -> Iterator[Row]:
    """The films below a folder whose names are of the form, of one split and fold; group is the person.

    A folder of frames counts like a film. ValueError if there is none, FileNotFoundError if there is no such folder.
    """
    films: dict[str, tuple[int, str, Told]] = {}
    for place, inside, files in os.walk(folder):
        inside.sort(key=natural_order)
        for name in sorted([*files, *inside], key=natural_order):
            stem, dot, suffix = name.rpartition(".")
            if name in inside:
                stem = name
            elif f"{dot}{suffix}".lower() not in VIDEO_SUFFIXES:
                continue
            if (said := told(stem)) is None:
                continue
            relative = os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
            held = films.get(said.recording)
            if held is None or said.rank < held[0]:
                films[said.recording] = (said.rank, relative, said)
        inside[:] = [name for name in inside if told(name) is None]
    if not films:
        raise Refused(f"{folder}: no film is named as the data set names its own")
    people = sorted({said.person for _, _, said in films.values()}, key=natural_order)
    tested = {person for i, person in enumerate(people) if i % folds == fold - 1}
    for _, name, said in films.values():
        if (said.person in tested) == (split == "test"):
            yield Row(0, name, said.label, said.person)
