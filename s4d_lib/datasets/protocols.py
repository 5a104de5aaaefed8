"""paper × data set → protocol     how a published number was made, as data: frames, sampling, folds, views, rules.

A protocol says what must be equal before two numbers may be compared. `compare` says in words what differs; a field
that is not known is None, and is said to be unknown and never filled in. `EXPECTED` holds the counts of the split
files that S4D and S2D ship, for telling whether a folder holds the data those numbers stand on.

Every value carries the released file and line that it was read in (`ft/` is S4D's finetune folder), or the thread in
which an author answered. Derived in chapter 02.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from s4d_lib.datasets.labels import SCHEMAS, schema_named
from s4d_lib.errors import Refused

_SHORT = (
    "at most clip_frames × stride frames: n // stride positions from 0 to n in equal steps, then the last frame is held"
)
_SHORT_TEST = "every stride-th frame, the last of them repeated until clip_frames"


@dataclass(frozen=True)
class Protocol:
    """How one paper trains and tests on one data set; None: not known."""

    name: str
    paper: str
    dataset: str
    schema: str | None = None  # class order, a name in datasets.SCHEMAS or classes of one's own between commas
    frames: str | None = None  # folder of the frame flavour, as the released scripts call it
    frame_files: str | None = None
    clip_frames: int | None = None
    stride: int | None = None  # frames between two frames of a clip (released: sr)
    short_clip: str | None = None
    short_clip_test: str | None = None
    image_size: int | None = None  # px, square; the aspect ratio is not kept
    folds: int | None = None
    test_views: str | None = None
    metric: str | None = None
    epoch_rule: str | None = None
    oversampling: str | None = None
    source: Mapping[str, str] = field(default_factory=dict)  # field → where it was read

    @property
    def span(self) -> int | None:
        """Frames that one clip covers."""
        return None if self.clip_frames is None or self.stride is None else self.clip_frames * self.stride

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The class names in the order of the labels."""
        return None if self.schema is None else schema_named(self.schema).classes

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record; the classes are written out, since a name alone explains nothing later."""
        return asdict(self) | {"span": self.span, "classes": list(self.classes) if self.classes else None,
                               "source": dict(self.source)}


_VIDEO = {
    "clip_frames": 16, "short_clip": _SHORT, "short_clip_test": _SHORT_TEST,
    "metric": "WAR (accuracy) and UAR (mean recall), %; folds are averaged",
}
_VIDEO_SOURCE = {
    "clip_frames": "ft/run.sh, ft/scripts/*/ft_moe_*.sh", "short_clip": "ft/datasets/kinetics.py:588-604",
    "short_clip_test": "ft/datasets/kinetics.py:543-604",
    "metric": "ft/engine_for_finetuning.py:193-194,368-436; fold means checked against the S2D README",
    "frame_files": "ft/datasets/kinetics.py:543-604",
    "test_views": "ft/datasets/kinetics.py:360-364,449-464; ft/engine_for_finetuning.py:368-436",
    "epoch_rule": "ft/run_class_finetuning.py:287-301,713-910; ft/datasets/datasets.py:204-206",
}
_S4D_SOURCE = _VIDEO_SOURCE | dict.fromkeys(
    ("stride", "frames", "image_size", "folds", "oversampling"), "ft/run.sh, ft/scripts/*/ft_moe_*.sh"
) | {"oversampling": "ft/run_class_finetuning.py:272-274 (images only; videos: plain shuffle)"}
_S2D_SOURCE = _VIDEO_SOURCE | dict.fromkeys(
    ("clip_frames", "stride", "image_size", "oversampling"), "S2D scripts/*.sh, run_class_finetuning.py (argparse)"
) | {"folds": "S2D README", "metric": "S2D README", "test_views": "S2D scripts/*.sh",
     "epoch_rule": "datasets.py:204-206 (the same package as S4D's)"}
_S4D_RULES = {
    "test_views": "2 temporal × 2 spatial, mean softmax; the spatial ones are equal, since frames are squared first",
    "epoch_rule": "last and best epoch are tested; best by accuracy on the test list, which serves as validation",
}
_S2D_RULES = {
    "test_views": "2 temporal × 2 spatial; for the 16-frame DFEW clips at stride 1 all four are the same",
    "epoch_rule": "the test list serves as validation; which epoch is reported is not known",
}
_S4D = "S4D = UniLearn (arXiv 2409.06154)"
_S2D = "S2D (arXiv 2312.05447)"
_S2D_SAMPLER = "none; a second published row oversamples rare classes (--use_bds)"


def _protocols() -> dict[str, Protocol]:
    s4d = {"paper": _S4D, "image_size": 160, "oversampling": "none for videos", **_VIDEO, **_S4D_RULES}
    s2d = {"paper": _S2D, "image_size": 224, "stride": 1, "oversampling": _S2D_SAMPLER, **_VIDEO, **_S2D_RULES}
    order = {"schema": "ft/utils/loss.py:9-60"}
    ferv = {"schema": "S2D data/FERV39K/Annotation/label_index.txt"}
    mafw = {"schema": "S2D data/MAFW/anno/single/no_caption/id_to_calss.txt",
            "frame_files": "ft/datasets/datasets.py:286"}
    dfew_16 = {"frames": "S2D issue #14 (author)"}
    return {
        p.name: p
        for p in (
            Protocol("s4d/dfew", dataset="dfew", schema="dfew", frames="clip_jpg_256", frame_files=".jpg", stride=4,
                     folds=5, source=_S4D_SOURCE | order, **s4d),
            Protocol("s4d/ferv39k", dataset="ferv39k", schema="ferv39k", frames="2_ClipsforFaceCrop",
                     frame_files=".jpg", stride=1, folds=1, source=_S4D_SOURCE | ferv, **s4d),
            Protocol("s4d/mafw", dataset="mafw", schema="mafw", frames="frames_crop_align_224", frame_files=".png",
                     stride=4, folds=5, source=_S4D_SOURCE | mafw, **s4d),
            Protocol("s4d/affectnet7", paper=_S4D, dataset="affectnet7", schema="affectnet7",
                     frames="Manually_Annotated_Images", image_size=160, folds=1,
                     oversampling="weights 1/class count with replacement, on two or more GPUs; on one, neither "
                     "balancing nor shuffling",
                     source={"schema": "ft/utils/loss.py:9-60, ft/s4d/sfer/dataset.py:111-123, S4D issue #4",
                             "frames": "test_affectnet7_2w.txt", "image_size": "ft/s4d/sfer/__init__.py:24-34",
                             "folds": "test_affectnet7_2w.txt (3,267 images)",
                             "oversampling": "ft/run_class_finetuning.py:272-274, ft/s4d/data/torch_dataset.py:71-93"}),
            Protocol("s2d/dfew", dataset="dfew", schema="dfew", frames="Clip/clip_224x224_16f", frame_files=".jpg",
                     folds=5, source=_S2D_SOURCE | order | dfew_16, **s2d),
            Protocol("s2d/ferv39k", dataset="ferv39k", schema="ferv39k", frame_files=".jpg", folds=1,
                     source=_S2D_SOURCE | ferv, **s2d),
            Protocol("s2d/mafw", dataset="mafw", schema="mafw", frame_files=".png", folds=5,
                     source=_S2D_SOURCE | mafw, **s2d),
            Protocol("mae-dfer/ferv39k", paper="MAE-DFER", dataset="ferv39k", schema="mae-dfer/ferv39k",
                     source={"schema": "MAE-DFER preprocess/ferv39k.py"}),
            Protocol("mae-dfer/mafw", paper="MAE-DFER", dataset="mafw", schema="mae-dfer/mafw",
                     source={"schema": "MAE-DFER preprocess/mafw.py"}),
        )
    }


PROTOCOLS: dict[str, Protocol] = _protocols()


def compare(protocol: Protocol, other: Protocol | Mapping[str, Any]) -> list[str]:
    """What differs, one sentence a field; empty if nothing that is known differs and nothing is unknown.

    `other` may be the protocol of a record (`as_dict`); a field it lacks counts as unknown. ValueError for one it names
    that no protocol has.
    """
    mine, theirs = protocol.as_dict(), other.as_dict() if isinstance(other, Protocol) else dict(other)
    if strange := sorted(set(theirs) - set(mine)):
        raise Refused(f"a protocol has no {', '.join(strange)}; its fields are {', '.join(mine)}")
    here, there = protocol.name, theirs.get("name") or "the other"
    said = []
    for key in [f.name for f in fields(Protocol)] + ["span", "classes"]:
        a, b = mine[key], theirs.get(key)
        if key in ("name", "source", "paper", "classes") or a == b or (key == "schema" and b is not None):
            continue
        if a is None or b is None:
            known, unknown = (f"{b} ({there})", here) if a is None else (f"{a} ({here})", there)
            said.append(f"{_WORDS[key]}: {known}, not known for {unknown}")
        else:
            said.append(f"{_WORDS[key]}: {a} ({here}), but {b} ({there})")
    return said + _compare_classes(mine, theirs, here, there)


_WORDS = {f.name: f.name.replace("_", " ") for f in fields(Protocol)} | {
    "dataset": "data set", "schema": "class order", "frames": "frame flavour", "span": "frames a clip covers",
    "short_clip": "short clips in training", "short_clip_test": "short clips in the test",
}


def _compare_classes(mine: dict, theirs: dict, here: str, there: str) -> list[str]:
    a, b = mine["classes"], theirs.get("classes")
    if b is None and theirs.get("schema") in SCHEMAS:
        b = list(SCHEMAS[theirs["schema"]].classes)
    if a is None or b is None or a == b:
        return []
    if sorted(a) == sorted(b):
        moved = ", ".join(f"{i} is {x} in {here} and {y} in {there}" for i, (x, y) in enumerate(zip(a, b)) if x != y)
        return [f"class order: the same classes in another order, so labels and outputs must be translated ({moved})"]
    only = [f"{', '.join(sorted(set(p) - set(q)))} only in {where}" for p, q, where in ((a, b, here), (b, a, there))
            if set(p) - set(q)]
    return [f"classes: {'; '.join(only)}"]


# -------------------------------------------------------------------------------- counts


@dataclass(frozen=True)
class FoldCounts:
    """Samples of one fold; per class in the order of the data set's schema, () where it is not known."""

    train: int | None
    test: int
    train_per_class: tuple[int, ...] = ()
    test_per_class: tuple[int, ...] = ()


@dataclass(frozen=True)
class Expected:
    """The counts of a data set's published split files; fold 1 of one fold is the single split."""

    schema: str
    folds: Mapping[int, FoldCounts]
    total: int | None = None
    disjoint: bool = False  # whether the test folds were seen to be disjoint and to cover the data set
    source: str = ""
    note: str = ""


EXPECTED: dict[str, Expected] = {
    "dfew": Expected(
        "dfew",
        {
            1: FoldCounts(9356, 2341, (1956, 1515, 2135, 1738, 1175, 116, 721), (489, 379, 534, 435, 294, 29, 181)),
            2: FoldCounts(9356, 2341, (), (489, 379, 534, 435, 294, 29, 181)),
            3: FoldCounts(9357, 2340, (), (489, 379, 534, 435, 294, 29, 180)),
            4: FoldCounts(9358, 2339, (), (489, 379, 534, 434, 294, 29, 180)),
            5: FoldCounts(9361, 2336, (), (489, 378, 533, 434, 293, 29, 180)),
        },
        total=11697, disjoint=True, source="the split files that S2D ships (single-labelled clips)",
    ),
    "ferv39k": Expected(
        "ferv39k",
        {1: FoldCounts(31088, 7847, (5906, 1833, 1680, 5854, 7790, 5523, 2502),
                       (1487, 467, 431, 1473, 1958, 1393, 638))},
        total=38935, source="the split files that S2D ships", note="22 scenes",
    ),
    "mafw": Expected(
        "mafw",
        {
            1: FoldCounts(7333, 1839, (), (278, 184, 48, 37, 128, 125, 249, 53, 228, 294, 215)),
            2: FoldCounts(7335, 1837),
            3: FoldCounts(7339, 1833),
            4: FoldCounts(7340, 1832),
            5: FoldCounts(7341, 1831),
        },
        total=9172, disjoint=True, source="the split files that S2D ships (single labels)",
        note="an extra random split of 7337 and 1835 clips ships too and is unused by the scripts",
    ),
    "affectnet7": Expected(
        "affectnet7",
        {1: FoldCounts(None, 3267, (), (471, 457, 473, 458, 469, 469, 470))},
        source="test_affectnet7_2w.txt that S4D ships",
        note="3,267 test images, not the nominal 3,500; how many rows its training list has is not known",
    ),
}
