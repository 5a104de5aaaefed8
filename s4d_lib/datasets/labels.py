"""label file → classes     the class order of every data set the book reads, and explicit maps between them.

A label is a position in a `LabelSchema`, and the same number means another expression in every data set. Labels are
read from numbers or from words ("Happy", "happiness"); two data sets meet only through `translate`, by class name.

**Counting from 0 or from 1.** Files of both kinds are in circulation (the official DFEW and RAF-DB lists count from 1,
the lists that S4D ships from 0). There is one rule, applied to a whole list by `LabelReader`:

    base= said          the list is read as said, and refused where a label does not fit
    a label 0 found     it counts from 0
    no 0, but an n      (n classes) it cannot count from 0: refused, with `base=1` as the remedy
    neither 0 nor n     both would fit: read as counting from 0, and `ReaderNote` says so as a warning

Derived in chapter 01.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s4d_lib.datasets.list_form import own_classes
from s4d_lib.errors import Refused

# Spellings found in label files and folder names, beside the class names themselves; upper and lower case are equal.
ALIASES = {
    "Anger": "angry", "Anxiety": "anxious", "Contempt": "contemptuous", "Disappointment": "disappointed",
    "Disgust": "disgusted", "Fear": "fearful", "Happiness": "happy", "Helplessness": "helpless",
    "Neutral": "neutrality", "Sadness": "sad", "Surprise": "surprised",
}
_NAME_OF = {name.lower(): name for name in ALIASES} | {alias: name for name, alias in ALIASES.items()}
FOLDS = 5   # of drawn clips, as of the video sets that have folds
MARK = -1  # what `translate(..., missing="mark")` puts in place of a label without a counterpart


class ReaderNote(UserWarning):
    """Something a reader had to conclude or leave out; what it says belongs into the record of a run."""


@dataclass(frozen=True)
class LabelSchema:
    """The classes of one data set in the order of its label files; the position is the label."""

    name: str
    classes: tuple[str, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.classes)

    def __str__(self) -> str:
        return f"{self.name}: {', '.join(self.classes)}"

    def label(self, text: str, where: str, base: Literal[0, 1] = 0) -> int:
        """The label (from 0) written as `text`, a word or a number that counts from `base`.

        ValueError naming `where` if it is not one of this schema's.
        """
        found = self.word(text)
        if found is not None:
            return found
        number = self.number(text, where)
        if not base <= number < len(self) + base:
            hint = "; a list that counts from 1 is read with base=1" if base == 0 and number == len(self) else ""
            raise Refused(f"{where}: label {number} is not in {base}..{len(self) - 1 + base} ({self}{hint})")
        return number - base

    def number(self, text: str, where: str) -> int:
        """The whole number written as `text`; ValueError if it is none, and no class name either."""
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            more = "; a compound label is read with schema='mafw_compound'" if "_" in text and canonical(text) else ""
            text = text if len(text) < 80 else f"{text[:80]}…"
            raise Refused(f"{where}: label {text!r} is not a whole number and not a class of {self}{more}")
        return int(text)

    def word(self, text: str) -> int | None:
        """The label of a class name in any of its known spellings, or None."""
        if text in self.classes:
            return self.classes.index(text)
        if text.casefold() in (same := [name.casefold() for name in self.classes]):
            return same.index(text.casefold())
        name = canonical(text)
        return next((i for i, known in enumerate(self.classes) if name and canonical(known) == name), None)


def canonical(text: str) -> str | None:
    """The common name of an expression word ("Happy" → "Happiness"), or None.

    Words of a compound label ("sadness_helplessness") are put into alphabetical order: their order means nothing.
    """
    names = [_NAME_OF.get(word) for word in text.strip().lower().split("_")]
    return "_".join(sorted(names)) if all(names) else None


_STILLS = "S4D ft/utils/loss.py:9-60, ft/s4d/sfer/dataset.py:111-123"
_COMPOUND = (
    "anger_disgust anxiety_helplessness fear_surprise happiness_contempt disgust_contempt sadness_anxiety "
    "anger_surprise fear_anxiety fear_sadness helplessness_disappointment surprise_anxiety happiness_surprise "
    "sadness_helplessness_disappointment fear_surprise_anxiety sadness_helplessness anger_sadness "
    "sadness_disappointment anger_anxiety anger_helplessness disgust_helplessness sadness_surprise "
    "anxiety_helplessness_disappointment sadness_anxiety_helplessness disgust_disappointment disgust_anxiety "
    "anger_disgust_contempt disgust_surprise disgust_sadness fear_sadness_anxiety anger_disgust_anxiety "
    "disgust_anxiety_helplessness disgust_helplessness_disappointment"
)
_MAE_DFER_MAFW = (
    "Anger Disgust Fear Happiness Neutral Sadness Surprise Contempt Anxiety Helplessness Disappointment"
)

# Spellings (happy, Happiness) are made equal. A name with a stroke is the order that another system trains with on the
# same data: its numbers are not those of the plain name, and neither are the outputs of its models.
SCHEMAS: dict[str, LabelSchema] = {
    name: LabelSchema(name, tuple(classes.split()), source)
    for name, classes, source in (
        ("dfew", "Happiness Sadness Neutral Anger Surprise Disgust Fear", "S4D ft/utils/loss.py:9-60"),
        ("ferv39k", "Anger Disgust Fear Happiness Neutral Sadness Surprise", "S2D FERV39K/Annotation/label_index.txt"),
        ("mafw", "Anger Anxiety Contempt Disappointment Disgust Fear Happiness Helplessness Neutral Sadness Surprise",
         "S2D MAFW/anno/single/no_caption/id_to_calss.txt"),
        ("mafw_compound", f"{_MAE_DFER_MAFW} {_COMPOUND}",
         "words of S2D MAFW/anno/compound/no_caption/set_1/test.txt; the files hold no numbers, the order is theirs"),
        ("affectnet7", "Neutral Happiness Sadness Surprise Fear Disgust Anger", f"{_STILLS}, S4D issue #4"),
        ("affectnet8", "Neutral Happiness Sadness Surprise Fear Disgust Anger Contempt",
         f"{_STILLS}; copies in another order exist (S4D issue #4), which one is unknown"),
        ("rafdb", "Surprise Fear Disgust Happiness Sadness Anger Neutral", _STILLS),
        ("ferplus", "Neutral Happiness Surprise Sadness Anger Disgust Fear Contempt",
         _STILLS),
        ("sfew2", "Neutral Surprise Disgust Happiness Sadness Anger Fear", _STILLS),
        ("caer", "Anger Disgust Fear Happiness Neutral Sadness Surprise",
         "inferred: class folders in alphabetical order, as folder loaders number them"),
        ("mae-dfer/ferv39k", "Happiness Sadness Neutral Anger Surprise Disgust Fear", "MAE-DFER preprocess/ferv39k.py"),
        ("mae-dfer/mafw", _MAE_DFER_MAFW, "MAE-DFER preprocess/mafw.py"),
        ("coarse4", "Positive Negative Surprise Neutral", "ours, for chapter 08: four coarse classes beside seven"),
        ("fine11", "Smile Laughter Sadness Grief Surprise Shock Annoyance Anger Neutral Disgust Fear",
         "ours, for chapter 08: four of seven classes told apart by how strong they look"),
        ("crema_d", "Anger Disgust Fear Happiness Neutral Sadness", "the codes of its file names, in their order"),
        ("ravdess", "Neutral Calm Happiness Sadness Anger Fear Disgust Surprise",
         "the codes 01 to 08 of its file names"),
        ("unlabelled", "Unlabelled", "pretraining lists carry a dummy label 0"),
    )
}


def schema_named(name: str | LabelSchema) -> LabelSchema:
    """The schema of that name; names of one's own between commas are one too. ValueError listing the known ones."""
    if isinstance(name, LabelSchema):
        return name
    if "," in name:
        classes = own_classes(word.strip() for word in name.split(","))
        return LabelSchema(",".join(classes), classes, "classes of one's own")
    if name not in SCHEMAS:
        raise Refused(f"no label schema is called {name!r}; there are {', '.join(SCHEMAS)}. Classes of your own are "
                      "said as classes, in the order of their labels")
    return SCHEMAS[name]


class LabelReader:
    """Labels of one list, read one by one; `finish()` says whether the way they were counted holds (see the module)."""

    def __init__(self, schema: LabelSchema, listing: str, base: Literal[0, 1] | None = None):
        if base not in (None, 0, 1):
            raise Refused(f"base must be 0, 1 or None, got {base!r}")
        self.schema, self.listing, self.base = schema, listing, base
        self._numbers = self.zeros = 0
        self._last: str | None = None  # where the first label n stands, n being the number of classes

    def read(self, text: str, where: str) -> int:
        """One label; ValueError naming `where`."""
        if self.base is not None or self.schema.word(text) is not None:
            return self.schema.label(text, where, self.base or 0)
        number = self.schema.number(text, where)
        if number == len(self.schema):
            self._last = self._last or where  # an error, but which one is known only at the end of the list
            return number
        label = self.schema.label(text, where)
        self._numbers, self.zeros = self._numbers + 1, self.zeros + (number == 0)
        return label

    def finish(self) -> None:
        """ValueError or ReaderNote where the numbers of the list leave no or two ways of counting."""
        n = len(self.schema)
        if self._last:
            beside = f"{self.zeros} of its labels are 0" if self.zeros else "no label of this list is 0"
            remedy = "correct the list" if self.zeros else "so it counts from 1: read it with base=1"
            raise Refused(f"{self._last}: label {n} is not in 0..{n - 1} ({self.schema}); {beside}, {remedy}")
        if self._numbers and not self.zeros:
            warnings.warn(ReaderNote(
                f"{self.listing}: no label is 0 and none is {n}, so counting from 0 and from 1 would both fit; read as "
                "counting from 0. Say base=0 or base=1"), stacklevel=2)


# -------------------------------------------------------------------------------- between schemas


def counterparts(source: str | LabelSchema, target: str | LabelSchema) -> tuple[int | None, ...]:
    """For every label of `source` the label of `target` with the same class name, or None."""
    target = schema_named(target)
    return tuple(target.word(name) for name in schema_named(source).classes)


def translate(
    labels: Iterable[int], source: str | LabelSchema, target: str | LabelSchema,
    missing: Literal["raise", "mark"] = "raise",
) -> np.ndarray:
    """Labels of `source` as labels of `target`, by class name: int64, as many as were given.

    A label whose class the target does not have is a ValueError that names and counts it, or MARK (-1) with
    `missing="mark"`; `datasets.translate_samples` drops and counts them.
    """
    source, target = schema_named(source), schema_named(target)
    if missing not in ("raise", "mark"):
        raise Refused(f"missing must be 'raise' or 'mark', got {missing!r}")
    given = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels))
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers, got {given.dtype}")
    given = given.astype(np.int64)
    outside = given[(given < 0) | (given >= len(source))]
    if outside.size:
        raise Refused(f"label {outside.flat[0]} is not in 0..{len(source) - 1} ({source})")
    table = np.array([MARK if label is None else label for label in counterparts(source, target)])
    found = table[given]
    if missing == "raise" and (found == MARK).any():
        lost = np.bincount(given[found == MARK], minlength=len(source))
        named = ", ".join(f"{source.classes[i]} ({lost[i]})" for i in np.flatnonzero(lost))
        raise Refused(
            f"{source.name} labels without a class in {target.name}: {named}. Leave those samples out "
            "(translate_samples(..., missing='drop')), or train on the source's own classes")
    return found
