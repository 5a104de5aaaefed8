"""folder → diagnosis     what a data folder holds, which published protocol it is, and what is wrong with it.

    diagnose("data/DFEW", "dfew").findings

Readers stop at the first problem (`datasets/readers.py`); here all are counted, and `findings.py` says how bad each is.
The lists are read by `census.py`, the frames by `inventory.py`. Nothing is followed out of the folder, or out of a
folder of frames that is named by its absolute path, and no pickled array is read. Without lists,
`datasets/folders.py` says where to look nearby.

Derived in chapter 02.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from s4d_lib.datasets.doctor.census import Census, read_census
from s4d_lib.datasets.doctor.copies import judge_copies
from s4d_lib.datasets.doctor.findings import Diagnosis, FrameReport, Level, ListReport, ProtocolReport, Tally
from s4d_lib.datasets.doctor.inventory import Clip, Looker, frame_folders, inventory, sampled, spread
from s4d_lib.datasets.doctor.leaks import judge_folds
from s4d_lib.datasets.doctor.prints import Print
from s4d_lib.datasets.doctor.said import advise_missing, advise_strip, modality_of, own_schema, reading_of
from s4d_lib.datasets.folders import LAYOUTS, FolderLayout, fold_count, list_places
from s4d_lib.datasets.labels import LabelSchema
from s4d_lib.datasets.list_form import form_of
from s4d_lib.datasets.lists import ASSUMED
from s4d_lib.datasets.own_data import chapter_words, configuration
from s4d_lib.datasets.protocols import EXPECTED, PROTOCOLS, Expected, Protocol, compare
from s4d_lib.datasets.readers import folds_of
from s4d_lib.errors import Refused
from s4d_lib.frames.endings import IMAGE_SUFFIXES
from s4d_lib.progress import Progress

NAMES = {"raf-db": "rafdb", "sfew": "sfew2", "mafw-compound": "mafw_compound", "crema-d": "crema_d"}  # of `--as`


def diagnose(
    root: str | Path, dataset: str, fold: int | None = None, frames: str | None = None, deep: bool = False,
    schema: str | None = None, jobs: int = 8, examples: int = 5, progress: bool = False, **words: Any,
) -> Diagnosis:
    """Look at the lists and frames of a data set (`--as`) below `root`.

    `fold` looks at the lists of one fold; `frames` names the folder of clips instead of searching for it, by its
    absolute path where it lies elsewhere; `deep` decodes the first, middle and last frame of every clip and
    finds copies. `schema` and `words` say what the reader would be told of the lists (`datasets/list_form.py`).
    FileNotFoundError if there is no such folder, ValueError for a data set or option that is not known, or that its
    reader does not use.
    """
    name = NAMES.get(dataset, dataset)
    if name not in LAYOUTS:
        raise Refused(f"no data set is called {dataset!r}; there are {', '.join(LAYOUTS)}")
    if jobs < 1:
        raise Refused(f"jobs must be at least 1, got {jobs}")
    form = form_of(name, words)
    base, listing = form.base, form.listing
    schema = own_schema(name, schema, form)
    root, note = Path(root), Tally(examples, f"{root}{os.sep}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; name the folder that holds lists and clips")
    if frames is not None:
        frames = os.path.normpath(frames)
        if not (os.path.isabs(frames) and os.path.isdir(frames)) and not _inside(root, frames):
            raise Refused(f"--frames {frames}: no such folder inside {root}; one elsewhere needs its absolute path")
    census, layout = read_census(root, name, note, fold, schema, form, frames)
    if fold is not None and not census.listings and name == "table":
        raise Refused(f"{root}: no row is of fold {fold}")
    advise_strip(census, form, note)
    walked = name == "voxceleb2" and not census.listings
    if not census.listings:
        _say_where_lists_are(root, layout, listing, walked, note)
    lists = _judge_lists(root, census, layout.base if base is None else base, note)
    judge_folds(census, fold_count(layout, form) if fold is None else 1, note)
    looked = Frames(census, layout, PROTOCOLS.values(), note)
    if census.members or walked:
        looked.look(root, frames, deep, jobs, walked, progress)
        advise_missing(census, form, note)
    report = looked.report()
    judged = [_judge_protocol(p, report, lists, census.schema) for p in looked.protocols]
    nearest = min(judged, key=lambda one: len(_of_frames(one)), default=None)
    protocols = tuple(_beside(one, nearest) for one in judged)
    looked.judge(nearest, report)
    levels: dict[str, Level] = {"gap in the frames": "note"} if name.startswith("mafw") else {}
    reading = reading_of(census, report, lists, frames, schema, form)
    training = None if reading is None else configuration(name, str(root), modality_of(layout, report), reading)
    tuned = training is not None and "mode" in training
    if tuned:
        _complete(training, {one.fold for one in lists}, note)
    return Diagnosis(str(root), name, census.schema.name, deep, lists, report, protocols, note.findings(levels),
                     reading, training, chapter_words(training) if tuned else None,
                     () if reading is None else folds_of(name, root, form))


def _say_where_lists_are(root: Path, layout: Any, listing: str | None, walked: bool, note: Tally) -> None:
    """One finding in place of one for every list; none where a data set has no lists and its folders were walked."""
    note.count.pop("list missing", None)
    if walked:
        return
    note("no list", "; ".join(layout.names[:3]) or "train, val, test", 1)
    if places := list_places(root, (listing,) if listing else layout.names or ("{split}",)):
        note.remedies["no list"] = f"They seem to be in {'; '.join(places)}: name that folder"


def _complete(training: dict[str, Any], folds: set[int], note: Tally) -> None:
    """What a fine-tuning on these lists must say beside how they are read: which fold, and whose validation samples."""
    if 1 not in folds:
        training["fold"] = min(folds)
    if any(note.count[kind] for kind in ("shared with validation", "group shared with validation")):
        training["validation_from"] = "train"


def _inside(root: Path, frames: str) -> bool:
    place = (root / frames).resolve()
    return place.is_dir() and place.is_relative_to(root.resolve())


# -------------------------------------------------------------------------------- lists


def _judge_lists(root: Path, census: Census, base: int | None, note: Tally) -> tuple[ListReport, ...]:
    schema, reports = census.schema, []
    counted, found = census.base(base)
    numbers = [listing for listing in census.listings if listing.has_numbers(schema)]
    if len(found) > 1:
        note.count.pop("two labels", None)  # which follows
        counting = [listing.counting(schema) for listing in numbers]
        rare = 0 if counting.count(0) < counting.count(1) else 1
        for listing in numbers:
            if listing.counting(schema) == rare:
                note("lists count differently", f"{listing.path.name} from {rare}, others from {1 - rare}")
    elif found == {1} and base is None:
        note("lists count from 1", numbers[0].path.name, len(numbers))
    elif not found and base is None and numbers:
        note("counting unclear", numbers[0].path.name, len(numbers))
    expected = EXPECTED.get(census.dataset) if schema.name == census.dataset else None
    for listing in census.listings:
        own = listing.counting(schema) if len(found) > 1 and base is None else counted
        per_class, outside = listing.per_class(schema, counted if own is None else own)
        for text, rows in outside.items():
            note("label outside the schema", f"{listing.path.name}:{listing.first[text]} {text!r}", rows)
        for rows, example in listing.disagreeing(schema, counted):
            note("label against the name", example, rows)
        published = _against(expected, listing.split, listing.fold, listing.rows, per_class, schema)
        published = published if listing.read else "not read"
        if published not in ("equal", "not known", "not read"):
            first, *more = published.split(", ")
            more = f" and {len(more)} more" * bool(more)
            note("counts differ", f"{listing.split}, fold {listing.fold}: {first}{more}")
        reports.append(ListReport(
            str(listing.path.relative_to(root)), listing.split, listing.fold,
            listing.rows, own if listing in numbers else None, tuple(per_class), published))
    return tuple(reports)


def _against(
    expected: Expected | None, split: str, fold: int, rows: int, per_class: list[int], schema: LabelSchema
) -> str:
    """ "equal", "not known", or in what a list differs from the published counts."""
    counts = expected.folds.get(fold) if expected else None
    total = getattr(counts, split, None)
    if total is None:
        return "not known"
    differ = [f"{rows:,} rows instead of {total:,}"] if rows != total else []
    classes = getattr(counts, f"{split}_per_class")
    differ += [f"{name} {n:,} instead of {m:,}" for name, n, m in zip(schema.classes, per_class, classes) if n != m]
    return ", ".join(differ) or "equal"


# -------------------------------------------------------------------------------- frames


class Frames:
    """What the frames of all clips are together; notes what is wrong with each."""

    def __init__(self, census: Census, layout: FolderLayout, protocols: Iterable[Protocol], note: Tally):
        self.census, self.layout, self.note = census, layout, note
        self.protocols = [p for p in protocols if p.dataset == census.dataset]
        self.folder, self.others = None, ()
        self.kinds, self.suffixes, self.sizes, self.lengths = Counter(), Counter(), Counter(), Counter()
        self.seen: dict[str, str] = {}  # id → kind
        self.prints: dict[str, Print] = {}
        self.short = Tally(note.most)
        self.listed = len(census.members)

    def look(self, root: Path, frames: str | None, deep: bool, jobs: int, walked: bool, progress: bool) -> None:
        """Find the folder of clips, look at all of them and note those that are listed and not there."""
        layout, ids = self.layout, self.census.members
        names = [alias for id in spread(ids, len(ids)) for alias in layout.alias(id)]
        places = [(frames, 1)] if frames else frame_folders(root, layout.frames, names)
        if places:
            self.folder = places[0][0]
            self.others = tuple(place for place, hits in places[1:] if hits)
            named = {alias: id for id in ids for alias in reversed(layout.alias(id))}
            kind = layout.kind or (None if any("." in id for id in ids) else "clip")
            depth = max((id.count("/") for id in ids), default=2) + (kind != "image")
            looker = Looker(self._root_of_frames(root), kind, depth, deep, sampled(len(ids) or 1000), named,
                            bool(ids))
            with Progress(len(ids), "looking at clips", silent=not progress) as bar:
                for clip in inventory(looker, root / self.folder, jobs):
                    if (id := clip.name if walked and clip.kind != "link" else _id_of(clip.name, named)) is not None:
                        self._one(id, clip)
                        bar.update(1)
                    elif clip.kind == "link":
                        self.note("link out of the folder", clip.name)
                    else:
                        self.note("without a row", clip.name)
            judge_copies(self.prints, self.census, self.note, progress)
        if not self.seen and (ids or not places):
            self.note("no frames folder", "looked for " + "; ".join(layout.frames[:3]))
        if walked:
            self.note("walked", self.folder or "", len(self.seen))
            self.listed = len(self.seen)
        for id in ids:
            if id not in self.seen:
                self.note("missing", id)

    def _root_of_frames(self, root: Path) -> Path:
        """What links may not lead out of; a folder of frames that is itself such a link is noted, and looked at."""
        folder = root / self.folder
        if os.path.isabs(self.folder):
            return folder
        real = Path(os.path.realpath(folder))
        if real.is_relative_to(os.path.realpath(root)):
            return root
        self.note("link out of the folder", self.folder)
        self.note.remedies["link out of the folder"] = (
            f"Name the folder of clips itself: --frames {real}, and frames= in the reader; or copy the files")
        return real

    def _one(self, id: str, clip: Clip) -> None:
        note = self.note
        if id in self.seen and "link" not in (clip.kind, self.seen[id]):
            note("twice", id)
        self.seen[id] = clip.kind
        for link in clip.outside:
            note("link out of the folder", link)
        if clip.kind == "link":
            return
        self.kinds[clip.kind] += 1
        self.suffixes.update(clip.suffixes)
        self.sizes.update(clip.sizes[:1])
        if clip.empty:
            note("empty file", clip.examples[0], clip.empty)
        for reason in clip.bad:
            note("unreadable", reason)
        if clip.frames == 0 and not clip.bad and not clip.outside:
            note("no frames", clip.name + (f" (but a folder, {clip.inner})" if clip.inner else ""))
        if len(clip.sizes) > 1:
            note("mixed sizes", f"{clip.name} ({' and '.join(_size(s) for s in clip.sizes[:2])} px)")
        if len(clip.suffixes) > 1:
            note("mixed file types", f"{clip.name} ({' and '.join(clip.suffixes)})")
        if clip.misordered:
            note("order of names", f"{clip.name}/{clip.misordered}")
        elif clip.gap:
            note("gap in the frames", f"{clip.name} ({clip.gap})")
        if clip.kind == "folder" and (listed := self.census.frames.get(id)) not in (None, clip.frames):
            note("frames not as listed", f"{clip.name} ({listed:,} listed, {clip.frames:,} there)")
        if clip.frames and clip.kind != "image":
            self.lengths[clip.frames] += 1
            self._length(clip)
        if clip.print is not None and (clip.kind == "video" or id not in self.prints):  # of two, the video is read
            self.prints[id] = clip.print

    def _length(self, clip: Clip) -> None:
        for protocol in self.protocols:
            if protocol.span is None:
                continue
            if clip.frames < 2 * protocol.stride:
                self.short(f"almost still {protocol.name}", f"{clip.name} ({clip.frames})")
            elif clip.frames < protocol.span:
                self.short(f"short {protocol.name}", f"{clip.name} ({clip.frames})")
        if clip.frames < 16:
            self.short("few", f"{clip.name} ({clip.frames} of 16)")

    def report(self) -> FrameReport:
        """The numbers of what was looked at."""
        lengths = sorted(self.lengths.elements())
        told = {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]} if lengths else {}
        return FrameReport(
            self.folder, self._flavour(), self.others, self.listed, len(self.seen), dict(self.kinds),
            dict(self.suffixes.most_common()), {_size(s): n for s, n in self.sizes.most_common(6)}, told)

    def _flavour(self) -> str:
        if not self.kinds:
            return "none found"
        kind = self.kinds.most_common(1)[0][0]
        if kind == "image":
            return "images"
        clips = self.lengths.total()
        aligned = clips and max(self.lengths) >= 16 and (
            self.lengths[16] >= 0.95 * clips or (max(self.lengths) == 16 and self.lengths[16] >= 0.5 * clips))
        rate = "16 aligned frames" if aligned else "original-rate frames"
        return rate if kind == "folder" else f"video, {rate}" if clips else "video"

    def judge(self, nearest: ProtocolReport | None, report: FrameReport) -> None:
        """Note what the frames are for the nearest protocol."""
        note, aligned = self.note, "16 aligned frames" in report.flavour
        if len(self.sizes) > 1:
            note("several sizes", ", ".join(report.sizes), len(self.sizes))
        pictures = {suffix: clips for suffix, clips in self.suffixes.items() if suffix in IMAGE_SUFFIXES}
        if len(pictures) > 1 and not note.count["mixed file types"]:
            for suffix, clips in pictures.items():
                note("mixed file types", f"{suffix} in {clips:,} clips")
        if "16f" in (self.folder or "") and self.lengths and not aligned:
            note("name against the frames", f"{self.folder}: clips of {report.lengths['least']} to "
                 f"{report.lengths['most']} frames")
        edge = _edge(self.folder)
        if edge and self.sizes and (usual := self.sizes.most_common(1)[0][0]) != (edge, edge):
            note("name against the frames", f"{self.folder}: {_size(usual)} px")
        if aligned:
            self._take("few", "too few frames")
        if not self.kinds or nearest is None:
            return
        for difference in _of_frames(nearest):
            note("no published protocol", f"{nearest.name}: {difference}")
        if not _of_frames(nearest):
            self._take(f"almost still {nearest.name}", "almost still")
            if not aligned:
                rule = PROTOCOLS[nearest.name]
                note.remedies["shorter than the window"] = (
                    f"Nothing: {rule.name} has a rule for clips under {rule.span} frames. In training, "
                    f"{rule.short_clip}; in the test, {rule.short_clip_test}")
                self._take(f"short {nearest.name}", "shorter than the window")

    def _take(self, kept: str, kind: str) -> None:
        for example in self.short.examples.get(kept, ()):
            self.note(kind, example, 0)
        self.note.count[kind] += self.short.count[kept]


def _id_of(name: str, named: dict[str, str]) -> str | None:
    """The id of a file or folder; a video may be listed without its ending."""
    if name in named:
        return named[name]
    stem, dot, suffix = name.rpartition(".")
    return named.get(stem) if f"{dot}{suffix}".lower() in ASSUMED else None


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _edge(folder: str | None) -> int | None:
    """The edge in pixels that the name of a folder of frames tells."""
    found = re.findall(r"(?<!\d)(112|160|224|256)(?!\d)", (folder or "").rpartition("/")[2])
    return int(found[0]) if found else None


def _judge_protocol(p: Protocol, frames: FrameReport, lists: tuple[ListReport, ...], schema: LabelSchema
                    ) -> ProtocolReport:
    differ, unknown = [], []
    if p.schema not in (None, schema.name):
        differ.append(f"class order: {p.schema}, these lists are in that of {schema.name}; translate the labels")
    if p.frames is None:
        unknown.append("which frames it read")
    elif frames.lengths:
        wanted = "16 aligned frames" if "16f" in p.frames else "original-rate frames"
        if wanted not in frames.flavour:
            differ.append(f"frames: {wanted} ({p.frames}), these are {frames.flavour}")
    if p.frame_files and frames.suffixes and (found := next(iter(frames.suffixes))) != p.frame_files:
        differ.append(f"frames: {p.frame_files} files, these are {found}")
    edge = _edge(p.frames)
    if edge and frames.sizes and (found := next(iter(frames.sizes))) != f"{edge}×{edge}":
        differ.append(f"frames: {edge}×{edge} px, these are {found} px")
    wrong = [report for report in lists if report.published not in ("equal", "not known", "not read")]
    if wrong:
        differ.append(f"lists: {len(wrong)} of {len(lists)} differ from the published ones")
    if not frames.kinds:
        unknown.append("the frames: none were found")
    return ProtocolReport(p.name, not differ and bool(frames.kinds), tuple(differ), tuple(unknown))


def _beside(report: ProtocolReport, nearest: ProtocolReport) -> ProtocolReport:
    """With what its settings are beside those of the protocol that the folder is nearest to."""
    if report is nearest:
        return report
    return replace(report, settings=tuple(compare(PROTOCOLS[nearest.name], PROTOCOLS[report.name])))


def _of_frames(report: ProtocolReport) -> list[str]:
    return [text for text in report.differences if not text.startswith("lists:")]
