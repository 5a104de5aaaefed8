"""label file → classes     the class order of every data set the book reads.

Derived in chapter 01.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSchema:
    """The classes of one data set in the order of its label files; the position is the label."""

    name: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def label(self, text: str, where: str) -> int:
        """The label written as `text`; ValueError naming `where` if it is not one of this schema's."""
        try:
            label = int(text)
        except ValueError:
            raise ValueError(f"{where}: label {text!r} is not a whole number") from None
        if not 0 <= label < len(self):
            hint = "; a list that counts from 1 needs 1 subtracted" if label == len(self) else ""
            known = f"0..{len(self) - 1} ({self.name}: {', '.join(self.classes)}{hint})"
            raise ValueError(f"{where}: label {label} is not in {known}")
        return label


# Orders of the label files that S4D and S2D ship (S4D `ft/utils/loss.py:9-60`, S2D
# `FERV39K/Annotation`, `MAFW/anno`). Other systems number the same classes differently. Spellings
# (happy, Happiness) are made equal.
SCHEMAS: dict[str, LabelSchema] = {
    name: LabelSchema(name, tuple(classes.split()))
    for name, classes in {
        "dfew": "Happiness Sadness Neutral Anger Surprise Disgust Fear",
        "ferv39k": "Anger Disgust Fear Happiness Neutral Sadness Surprise",
        "mafw": "Anger Anxiety Contempt Disappointment Disgust Fear Happiness Helplessness Neutral Sadness "
        "Surprise",
        "affectnet7": "Neutral Happiness Sadness Surprise Fear Disgust Anger",
        "affectnet8": "Neutral Happiness Sadness Surprise Fear Disgust Anger Contempt",
        "rafdb": "Surprise Fear Disgust Happiness Sadness Anger Neutral",
        "ferplus": "Neutral Happiness Surprise Sadness Anger Disgust Fear Contempt",
        "sfew2": "Neutral Surprise Disgust Happiness Sadness Anger Fear",
    }.items()
}
