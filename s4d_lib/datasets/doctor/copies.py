"""prints, lists → findings     which clips and pictures show the same frames, and whether a split or person parts them.

Equal pixels, as they are or mirrored, are always told. Near copies are looked for between what some fold keeps apart,
training, validation and test, and between two people: there they spoil a score. Nearly equal frames inside one
split are common, such as two cuts of one scene, and harmless.

Derived in chapter 02.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from s4d_lib.datasets.doctor.census import Census
from s4d_lib.datasets.doctor.findings import Tally
from s4d_lib.datasets.doctor.leaks import folds_of, leaking
from s4d_lib.datasets.doctor.prints import Print, near_pairs
from s4d_lib.errors import Refused, require
from s4d_lib.progress import Progress
from s4d_lib.text import natural_order


def judge_copies(prints: Mapping[str, Print], census: Census, note: Tally, progress: bool = False) -> None:
    """Note every pair of ids whose frames are the same, or nearly, with their splits or people."""
    found = _Copies(prints, census, note)
    found.tell_same()
    found.tell_near(progress)


class _Copies:
    """Prints beside what the lists say of their ids."""

    def __init__(self, prints: Mapping[str, Print], census: Census, note: Tally):
        self.ids = sorted(prints, key=natural_order)
        self.prints = [prints[id] for id in self.ids]
        self.masks = [census.members.get(id, 0) for id in self.ids]
        self.people = [census.group_of.get(id) for id in self.ids]
        self.folds, self.note = folds_of(census), note

    def tell_same(self) -> None:
        """A finding for every id that has the pixels of an earlier one: beside the one that makes it worst."""
        before: dict[bytes, dict[int, list[int]]] = {}  # digest → mask → places, of two people at most
        for place, one in enumerate(self.prints):
            earlier = [(other, False) for places in before.get(one.exact, {}).values() for other in places]
            if one.mirrored != one.exact:
                earlier += [(other, True) for places in before.get(one.mirrored, {}).values() for other in places]
            if earlier:
                worst = max(earlier, key=lambda found: (self._leak(found[0], place), self._parted(found[0], place)))
                self._tell("same content", worst[0], place, worst[1])
            kept = before.setdefault(one.exact, {}).setdefault(self.masks[place], [])
            if not kept or len(kept) == 1 and self._parted(kept[0], place):
                kept.append(place)

    def tell_near(self, progress: bool) -> None:
        """A finding for every pair that is kept apart and nearly, but not exactly, equal; without imagehash, a note."""
        if not any(one.small for one in self.prints):
            return
        kinds = sorted(set(self.masks))
        kind = np.array([kinds.index(mask) for mask in self.masks], dtype=int)
        split = np.array([[leaking(a, b, self.folds) is not None for b in kinds] for a in kinds])
        numbers = {person: number for number, person in enumerate(dict.fromkeys(self.people)) if person is not None}
        person = np.array([numbers.get(one, -1) for one in self.people])

        def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            other = (person[a][:, None] != person[b]) & (person[a] >= 0)[:, None] & (person[b] >= 0)
            return split[kind[a][:, None], kind[b]] | other

        if not (split.any() or len(numbers) > 1):
            return
        try:
            require("imagehash", "lab", "looking for copies that were encoded again, resized or cropped")
        except Refused as missing:
            self.note("near copies not looked for", str(missing))
            return
        with Progress(len(self.ids), "looking for near copies", silent=not progress) as bar:
            for a, b, mirrored in sorted(near_pairs(self.prints, apart, kind, bar.update)):
                if self.prints[a].exact not in (self.prints[b].exact, self.prints[b].mirrored):
                    self._tell("near copies", a, b, mirrored)

    def _leak(self, a: int, b: int) -> bool:
        return leaking(self.masks[a], self.masks[b], self.folds) is not None

    def _parted(self, a: int, b: int) -> bool:
        """Whether two people are named."""
        return None not in (self.people[a], self.people[b]) and self.people[a] != self.people[b]

    def _tell(self, kind: str, a: int, b: int, mirrored: bool) -> None:
        end = ", mirrored" * mirrored
        if leak := leaking(self.masks[a], self.masks[b], self.folds):
            self.note(f"{kind} in train and test",
                      f"{self.ids[a]} ({leak.split}) and {self.ids[b]} ({leak.other}), fold {leak.fold}{end}")
        elif self._parted(a, b):
            self.note(f"{kind} under two people",
                      f"{self.ids[a]} (of {self.people[a]}) and {self.ids[b]} (of {self.people[b]}){end}")
        else:
            self.note(kind, f"{self.ids[a]} and {self.ids[b]}{end}")
