"""words → form     how the lists of a data folder are written, said once and in the same words everywhere.

    listing   another list than those of the layout; may hold {split} and {fold}
    labels    the array of labels beside a .npy array of names
    columns   what its columns are called, or their numbers from 1: {"path": "image", "label": "expression"}
    strip     what is taken off the start of every name: lists in circulation hold the paths of another machine
    base      what numeric labels count from, 0 or 1; None: the list shows it (`labels.py` has the rule)
    splits    what the data set calls its splits: {"test": "valid"}; a column, a folder or {split} is asked for that
    folds     how many folds there are
    classes   class names of one's own in the order of their labels

A configuration has them in `clips_lists:` and `stills_lists:`, the commands as options (`--listing`, `--columns
path=image,label=expression`), `read_dataset` as keywords, the chapters in `lists`. A reader says which it uses
(`readers.WORDS`); one that it does not use is refused.

Derived in chapter 02.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from s4d_lib.errors import Refused

COLUMNS = ("path", "label", "split", "fold", "subject", "frames")
SPLITS = ("train", "validation", "test")
VALIDATION = ("validation", "val", "valid", "dev")  # what data sets call that split


@dataclass(frozen=True)
class ListForm:
    """How lists are written, where that is not as the layout has it. ValueError for a value that cannot be meant."""

    listing: str | None = None
    labels: str | None = None
    columns: tuple[tuple[str, str | int], ...] = ()
    strip: str = ""
    base: Literal[0, 1] | None = None
    splits: tuple[tuple[str, str], ...] = ()
    folds: int | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("columns", COLUMNS), ("splits", SPLITS)):
            object.__setattr__(self, name, _pairs(name, getattr(self, name), known))
        words = self.classes
        words = words.split(",") if isinstance(words, str) else words or ()
        object.__setattr__(self, "classes", tuple(str(word).strip() for word in words))
        if self.classes:
            own_classes(self.classes)
        if self.base not in (None, 0, 1) or isinstance(self.base, bool):
            raise Refused(f"base must be 0, 1 or None, got {self.base!r}")
        if self.folds is not None and (type(self.folds) is not int or self.folds < 1):
            raise Refused(f"folds must be a whole number from 1 on, got {self.folds!r}")
        for name in ("listing", "labels", "strip"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise Refused(f"{name} must be text, got {getattr(self, name)!r}")
        object.__setattr__(self, "strip", self.strip or "")
        object.__setattr__(self, "listing", self.listing or None)
        object.__setattr__(self, "labels", self.labels or None)

    @classmethod
    def of(cls, words: ListForm | Mapping[str, Any] | None) -> ListForm:
        """A form from its words. ValueError for a word that is none."""
        if isinstance(words, ListForm):
            return words
        if not isinstance(words, (Mapping, type(None))):
            raise Refused(f"how lists are written is said in {', '.join(NAMES)}; got {words!r}")
        if strange := [word for word in words or {} if word not in NAMES]:
            raise Refused(f"of lists, {', '.join(map(str, strange))} cannot be said; there are {', '.join(NAMES)}")
        return cls(**words or {})

    def said(self) -> dict[str, Any]:
        """The words that are not left to the layout, as `of` and a configuration file take them."""
        found = {field.name: getattr(self, field.name) for field in fields(self)
                 if getattr(self, field.name) != field.default}
        plain = {"columns": dict, "splits": dict, "classes": list}
        return {name: plain.get(name, lambda value: value)(value) for name, value in found.items()}

    def column(self, name: str) -> str | int | None:
        """What a column is called, or which it is; None where nothing was said."""
        return dict(self.columns).get(name)

    def split(self, split: str) -> str:
        """What the data set calls a split."""
        return dict(self.splits).get(split, split)

    def called(self, split: str) -> tuple[str, ...]:
        """What a list of a split may be called: as it was said, else a validation split by any of its usual names."""
        if split != "validation" or split in dict(self.splits):
            return (self.split(split),)
        taken = {name for _, name in self.splits}
        return tuple(name for name in VALIDATION if name not in taken)

    @property
    def says_splits(self) -> bool:
        """Whether what was said tells the splits apart, so that there may be a validation split among them."""
        return "{split}" in (self.listing or "") or self.column("split") is not None

    def names(self, patterns: Iterable[str], split: str, fold: int) -> list[str]:
        """The names of the lists of a split and fold: that of `listing`, or those that the layout knows."""
        return self._filled([self.listing] if self.listing else patterns, split, fold)

    def label_names(self, split: str, fold: int) -> list[str]:
        """The names that the array of labels of a split and fold may have; none where no such array was said."""
        return self._filled([self.labels] if self.labels else [], split, fold)

    def _filled(self, patterns: Iterable[str], split: str, fold: int) -> list[str]:
        return list(dict.fromkeys(name.replace("{split}", called).replace("{fold}", str(fold))
                                  for name in patterns for called in self.called(split)))

    def stripped(self, name: str) -> str:
        """A listed name without what is to be taken off. ValueError (`Refused`) where it does not begin so."""
        if not self.strip:
            return name
        plain, off = name.replace("\\", "/"), self.strip.replace("\\", "/")
        if not plain.startswith(off):
            raise Refused(f"{name!r} does not begin with strip={self.strip!r}")
        return plain[len(off):].lstrip("/")


NAMES = tuple(field.name for field in fields(ListForm))
_LISTED = ("listing", "columns", "strip", "base", "splits", "classes")
_USED: dict[str, tuple[str, ...]] = {  # reader → the words that it uses; the others take those of _LISTED
    "dfew": (*_LISTED, "folds"),
    "mafw": (*_LISTED, "folds"),
    "mafw_compound": (*_LISTED, "folds"),
    "affectnet7": (*_LISTED, "labels"),
    "affectnet8": (*_LISTED, "labels"),
    "table": (*_LISTED, "folds"),
    "folders": ("base", "splits", "classes"),
    "sfew2": ("base", "splits"),
    "caer": ("base", "splits"),
    "crema_d": ("folds",),
    "ravdess": ("folds",),
    "voxceleb2": ("listing",),
    "packed": (),
}


def words_of(name: str) -> tuple[str, ...]:
    """The words on lists that the reader of a data set uses."""
    return _USED.get(name, _LISTED)


def form_of(name: str, words: ListForm | Mapping[str, Any] | None) -> ListForm:
    """A form for the reader of that name. ValueError for a word that is none, or that it does not use."""
    form = ListForm.of(words)
    if unused := [word for word in form.said() if word not in words_of(name)]:
        told = ", ".join(f"{word}={form.said()[word]!r}" for word in unused)
        used = ", ".join(words_of(name)) or "none of these words"
        raise Refused(f"the layout {name!r} has no use for {told}; it uses {used}")
    return form


def _pairs(word: str, given: Any, known: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Pairs from a mapping, pairs or the text `a=b,c=d`; a number that is written as text becomes one."""
    if isinstance(given, str):
        parts = [part.partition("=") for part in given.split(",") if part.strip()]
        if any(not equal for _, equal, _ in parts):
            raise Refused(f"{word} is said as {next(iter(known))}=NAME,…, got {given!r}")
        given = {key.strip(): value.strip() for key, _, value in parts}
    try:
        pairs = dict(given or {})
    except (TypeError, ValueError):
        raise Refused(f"{word} must say NAME for some of {', '.join(known)}, got {given!r}") from None
    if strange := [key for key in pairs if key not in known]:
        raise Refused(f"{word}: there is no {', '.join(map(str, strange))}; there are {', '.join(known)}")
    if empty := [key for key, value in pairs.items() if isinstance(value, bool) or not str(value).strip()]:
        raise Refused(f"{word}: {', '.join(empty)} is said to be nothing")
    numbers = word == "columns"
    return tuple(sorted((key, int(value) if numbers and str(value).isdecimal() and len(str(value)) < 4 else
                         value if numbers else str(value)) for key, value in pairs.items()))


def own_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """Class names of one's own, checked: at least two, none twice, none empty, a number or with a comma."""
    names = tuple(classes)
    if len(names) < 2 or len({name.casefold() for name in names}) < len(names):
        raise Refused(f"classes must be at least two different names, got {', '.join(names)}")
    if wrong := [name for name in names if not name.strip() or "," in name or name.lstrip("+-").isdecimal()]:
        raise Refused(f"classes must be words, not {wrong[0]!r}: labels that are numbers count into them")
    return names


USUAL = ListForm()
