"""counts → findings     what the doctor can find, how bad each finding is, what to do about it, and how it is printed.

A finding has a level: *error*, where training would stop or a test would be leaked; *warning*, where a number would
not be comparable with a published one; *note*. Names that come from disk or lists are printed with their control
characters spelled out.

Derived in chapter 02.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TextIO

from s4d_lib.text import natural_order, printable

Level = Literal["error", "warning", "note"]
_EXTRACT = "Extract or fetch the data again, name another folder with --frames, or shorten the list"
_BROKEN = "Fetch or extract it again, or take its row out of the lists"
_LOOK = "Look at both; if one is made from the other, take it out of one of the two"
_NO_CHOICE = "Nothing, or correct the lists: a training as printed above cuts a validation set off the training list"
_LEAK = "Take it out of one of the two: a model that has seen it cannot be tested on it"

# kind → (level, what it means, remedy), in the order in which findings are listed
KINDS: dict[str, tuple[Level, str, str]] = {
    "no list": ("error", "no list of the data set was found", "Name the folder that holds the lists, or --listing"),
    "unreadable list": ("error", "a list cannot be read to its end", "Restore it, or save it as the message says"),
    "list missing": ("warning", "a split or fold has no list", "Fetch it; folds that are missing change the mean"),
    "bad row": ("error", "rows are not of the list's form", "Correct the rows; the readers refuse them"),
    "name outside the folder": ("error", "rows name something outside the data folder", "Correct the rows"),
    "id twice": ("error", "one list names a clip twice", "Keep one of the rows"),
    "label outside the schema": ("error", "labels are none of the classes", "Name the --schema or --base of the list"),
    "lists count differently": (
        "error", "some lists count labels from 0, others from 1", "Bring them to one, or read each with its base"),
    "lists count from 1": (
        "warning", "labels count from 1", "Read them with base=1 (--base 1 here): the reader refuses to guess"),
    "counting unclear": (
        "warning", "no label is 0 and none is the number of classes", "Say base=0 or base=1 (--base here)"),
    "label against the name": (
        "error", "the label is another expression than the folder says", "Use the class order that the list has"),
    "without a group": ("error", "groups.csv does not say who is shown", "Add them to groups.csv, or take it away"),
    "two labels": ("warning", "lists give a clip different labels", "Use the lists of one source"),
    "in train and test": ("error", "a fold tests on what it has trained on", _LEAK),
    "group in train and test": ("error", "a fold tests on people it has trained on", "Split by group"),
    "shared with validation": (
        "warning", "clips of the validation split are trained on or tested too", _NO_CHOICE),
    "group shared with validation": (
        "warning", "people of the validation split are trained on or tested too", _NO_CHOICE),
    "test folds overlap": ("warning", "clips are tested in several folds", "Use the published lists: means of folds "
                           "count such clips twice"),
    "group in several test folds": ("warning", "people are tested in several folds",
                                    "Split by group: else a fold trains on people whom it tests"),
    "never tested": ("warning", "clips are in no test fold", "Use the published lists"),
    "counts differ": ("warning", "lists are not those of the published numbers", "Fetch the published lists, or report "
                      "the number as one of other lists"),
    "no frames folder": ("error", "no folder holds what the lists name", "Extract the data, or name their folder with "
                         "--frames: by its absolute path where it lies elsewhere"),
    "missing": ("error", "listed, but not there", _EXTRACT),
    "no frames": ("error", "clip folders without a frame", _BROKEN),
    "empty file": ("error", "files of 0 bytes", _BROKEN),
    "unreadable": ("error", "files that cannot be read", _BROKEN),
    "mixed sizes": ("error", "frames of one clip differ in size", "Extract the clip again; such a clip cannot be read"),
    "link out of the folder": (
        "error", "links lead out of the data folder and were not followed",
        "Copy the files, or trust them with links='follow' in the reader"),
    "same content in train and test": ("error", "two ids with the same frames, one trained on and one tested", _LEAK),
    "same content under two people": (
        "warning", "two ids with the same frames, said to be of two people",
        "Correct the people: a split by group would train on what it tests"),
    "same content": ("warning", "two ids with the same frames", "Keep one of them, or its label counts twice"),
    "near copies in train and test": (
        "warning", "two ids whose frames are nearly the same, one trained on and one tested", _LOOK),
    "near copies under two people": (
        "warning", "two ids whose frames are nearly the same, said to be of two people", _LOOK),
    "too few frames": ("warning", "clips have fewer frames than the flavour promises",
                       "Extract them again; else the last frame is held, where some loaders repeat the first"),
    "almost still": ("warning", "clips so short that two different frames cannot be taken from them",
                     "Extract them again, or leave them out"),
    "mixed file types": ("warning", "png and jpg frames together",
                         "Keep one type: released loaders look for one ending only, and see a part of the frames"),
    "order of names": ("warning", "frame numbers without leading zeros",
                       "Pad the numbers: here frames are ordered by number, in the released loaders as text"),
    "gap in the frames": ("warning", "frame numbers are not contiguous",
                          "Extract the clip again, unless frames without a face were left out on purpose"),
    "name against the frames": ("warning", "the folder is not what its name says",
                                "Trust the frames, and find out where the folder came from"),
    "no published protocol": ("warning", "the frames are those of no published protocol",
                              "Fetch the flavour that the number was made with, or say in the report which was used"),
    "shorter than the window": ("note", "clips shorter than the protocol's window", "Nothing: the rule is applied"),
    "frames not as listed": ("warning", "clips have another number of frames than the list says",
                             "Fetch the frames that the list was written for, or the list of these frames"),
    "several sizes": ("note", "clips differ in size", "Nothing: frames are brought to one square size"),
    "twice": ("note", "a clip is there as a video and as frames", "Nothing: the video is read"),
    "without a row": ("note", "on disk, but in no list", "Nothing, if the lists are whole: they leave clips out"),
    "left out by the reader": ("note", "what the reader leaves out", "Nothing"),
    "folds by name": ("note", "folds that are words, counted in their order", "Nothing: fold= takes the number"),
    "Chinese captions": ("note", "lists with captions in GB 18030", "Nothing: they are read as such"),
    "near copies not looked for": ("note", "equal pixels were", "Install it and look again"),
    "walked": ("note", "there is no list; all that was found is taken", "Nothing"),
}
_OF_PATHS = ("unreadable list", "bad row", "name outside the folder", "left out by the reader", "unreadable",
             "link out of the folder")  # kinds whose examples are messages that begin with a path
LONGEST = 300  # characters of one example
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One thing found: how often, where for example, what it means and what to do."""

    kind: str
    level: Level
    count: int
    meaning: str
    examples: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({'; '.join(printable(text, LONGEST) for text in self.examples)}{more})" if self.examples else ""
        return f"{self.level}: {self.kind}: {self.count:,}, {self.meaning}{shown}. {self.remedy}."


@dataclass(frozen=True)
class ListReport:
    """One list: its rows per class beside the published ones."""

    path: str
    split: str
    fold: int
    rows: int
    base: int | None  # None: class names, no numbers
    per_class: tuple[int, ...]
    published: str  # "equal", "not known", or what differs


@dataclass(frozen=True)
class FrameReport:
    """The frames that the lists name, in numbers."""

    folder: str | None = None
    flavour: str = "none found"
    others: tuple[str, ...] = ()  # folders that hold the clips too
    listed: int = 0
    found: int = 0
    kinds: dict[str, int] = field(default_factory=dict)  # folder, video, image
    suffixes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # "height×width", the most frequent
    lengths: dict[str, float] = field(default_factory=dict)  # least, median, most frames of a clip


@dataclass(frozen=True)
class ProtocolReport:
    """Whether this folder is the one a protocol was run on, as far as can be seen."""

    name: str
    matches: bool
    differences: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  # in what it is unlike the protocol that the folder is nearest to


@dataclass(frozen=True)
class Diagnosis:
    """All of it; `exit_code` is 2 with an error, 1 with a warning, else 0."""

    root: str
    dataset: str
    schema: str
    deep: bool
    lists: tuple[ListReport, ...]
    frames: FrameReport
    protocols: tuple[ProtocolReport, ...]
    findings: tuple[Finding, ...]
    reading: dict[str, Any] | None = None  # what to tell the reader, beside split and fold; None: nothing to be read
    training: dict[str, Any] | None = None  # the same as a configuration says it
    chapter: dict[str, Any] | None = None  # the same as parameters of chapter 07
    folds: tuple[int, ...] = ()  # that the reader is to be asked for; () where there is one split

    @property
    def exit_code(self) -> int:
        levels = {finding.level for finding in self.findings}
        return 2 if "error" in levels else 1 if "warning" in levels else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"exit_code": self.exit_code}


class Tally:
    """Counts per kind, with the first few examples in natural order, whichever order they come in."""

    def __init__(self, examples: int = 5, root: str = ""):
        """`root` is the folder that the report names once: the path of a list is shown without it."""
        self.most, self.root, self.count, self.examples = examples, root, Counter(), {}
        self.remedies: dict[str, str] = {}  # kind → what to do here, in place of the general advice

    def __call__(self, kind: str, example: str = "", count: int = 1) -> None:
        self.count[kind] += count
        kept = self.examples.setdefault(kind, [])
        if kind in _OF_PATHS:  # a message begins with the path of its list; what it quotes stays as it is
            example = example.removeprefix(self.root)
        if example and (len(kept) < self.most or natural_order(example) < natural_order(kept[-1])):
            kept.append(example)
            kept.sort(key=natural_order)
            del kept[self.most:]

    def findings(self, levels: dict[str, Level]) -> tuple[Finding, ...]:
        """A finding per kind that was counted, the worst first."""
        found = [Finding(kind, levels.get(kind, level), self.count[kind], meaning, tuple(self.examples[kind]),
                         self.remedies.get(kind, remedy))
                 for kind, (level, meaning, remedy) in KINDS.items() if self.count[kind]]
        return tuple(sorted(found, key=lambda finding: _ORDER[finding.level]))


# -------------------------------------------------------------------------------- the report as text


def _settings(protocol: ProtocolReport) -> list[str]:
    """How its settings differ; those that are not known on one side are named in one line."""
    known = [text for text in protocol.settings if ", not known for " not in text]
    unknown = [text.partition(":")[0] for text in protocol.settings if text not in known]
    return known + ([f"cannot be compared, not known for one of the two: {', '.join(unknown)}"] if unknown else [])


def print_report(diagnosis: Diagnosis, file: TextIO | None = None) -> None:
    """Tables on a terminal, plain lines into a file or pipe."""
    file = file or sys.stdout
    say: Callable[[str], object] = lambda text: print(printable(text), file=file)  # noqa: E731
    frames = diagnosis.frames
    say(f"{diagnosis.root} as {diagnosis.dataset}")
    say(f"frames: {frames.folder or 'no folder'}, {frames.flavour}; {frames.found:,} of {frames.listed:,} listed found")
    for title, counts in (("files", frames.suffixes), ("px", frames.sizes), ("frames per clip", frames.lengths)):
        if counts:
            say(f"  {title}: {', '.join(f'{key} {value:,}' for key, value in counts.items())}")
    if frames.others:
        say(f"  the clips are also in {', '.join(frames.others)} (look there with --frames)")
    for protocol in diagnosis.protocols:
        unknown = f" (not known: {'; '.join(protocol.unknown)})" if protocol.unknown else ""
        told = "matches" if protocol.matches else f"differs: {'; '.join(protocol.differences) or 'cannot be told'}"
        say(f"protocol {protocol.name}: {told}{unknown}")
        for text in _settings(protocol) if frames.found else ():
            say(f"  {text}")
    columns = ("list", "split", "fold", "rows", "from", "per class", "published")
    if diagnosis.reading is not None:
        told = "".join(f", {name}={value!r}" for name, value in diagnosis.reading.items())
        say(f"to read it: read_dataset({diagnosis.root!r}, {diagnosis.dataset!r}, split"
            f"{', fold' if diagnosis.folds else ''}{told})")
    if diagnosis.training is not None:
        say(f"to train on it, in the file of `s4d train`: {json.dumps(diagnosis.training, ensure_ascii=False)}")
    if diagnosis.chapter is not None:
        told = [f"{name}={json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}"
                for name, value in diagnosis.chapter.items()]
        say(f"to run a chapter on it: s4d book 07 {' '.join(f'-p {shlex.quote(word)}' for word in told)}")
    rows = [(r.path, r.split, str(r.fold), f"{r.rows:,}", "words" if r.base is None else str(r.base),
             " ".join(map(str, r.per_class)), r.published) for r in diagnosis.lists]
    found = [(f.level, f.kind, f"{f.count:,}", f.meaning, "; ".join(printable(text, LONGEST) for text in f.examples),
              f.remedy) for f in diagnosis.findings]
    if file.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        headings = ("level", "finding", "count", "meaning", "such as", "what to do")
        for names, lines in ((columns, rows), (headings, found)):
            table = Table(*names)
            for line in lines:
                table.add_row(*(Text(printable(cell)) for cell in line))
            Console(file=file).print(table)
    else:
        for line in rows:
            say("list " + " | ".join(line))
        for finding in diagnosis.findings:
            say(str(finding))
    say({0: "fine", 1: "there are warnings", 2: "there are errors"}[diagnosis.exit_code])
