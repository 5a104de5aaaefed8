"""files → files     the face in every video and picture below a folder, cut out, with a manifest of what was found.

    report = crop_files(Path("videos"), Path("faces"), size=224)

A video becomes an mp4, or a folder of jpg frames if the target has no suffix; a folder of frames becomes another one or
an mp4; a picture stays a picture. A folder of videos and frame folders is walked, and relative names are kept. Each
target appears whole or not at all. `crops.csv` lists what became of each file; asked again, finished targets are kept.
A file that cannot be read, or shows no face at all, gets its error in the manifest, and the rest goes on.

Sound and uneven frame times are not carried over: an mp4 has the mean rate of its source (25 where there is none).
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from s4d_lib import __version__
from s4d_lib.clips import spread_indices
from s4d_lib.crops.cropper import HELD, REPEATED, SKIPPED, STATES, WHOLE, FaceCropper
from s4d_lib.crops.preview import Preview
from s4d_lib.errors import Refused
from s4d_lib.files import replacing
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.frames.reader import FrameReader, open_frames
from s4d_lib.frames.writer import Mp4Writer
from s4d_lib.progress import Progress
from s4d_lib.records import fingerprint
from s4d_lib.text import no_formula

MANIFEST = "crops.csv"
COLUMNS = ("file", "frames", "found", "share", "held", "repeated", "whole", "skipped", "first_missing", "size",
           "detector", "version", "settings", "error")
CHUNK_BYTES = 48_000_000    # of frames read at a time
TILES = 24                  # of a preview, at most


class NoFace(Refused):
    """A file in which no frame shows a face."""


@dataclass(frozen=True)
class Item:
    """One thing to crop: its path, where it goes, and its name in the manifest."""

    source: Path
    target: Path
    name: str


@dataclass
class Report:
    """What `crop_files` did: a manifest row for each file of this request, how many of them were kept, and notes."""

    rows: list[dict[str, str]] = field(default_factory=list)
    kept: int = 0
    notes: list[str] = field(default_factory=list)
    manifest: Path | None = None

    @property
    def failed(self) -> list[dict[str, str]]:
        return [row for row in self.rows if row["error"]]

    def __str__(self) -> str:
        frames, found = (sum(int(row[key] or 0) for row in self.rows) for key in ("frames", "found"))
        done = len(self.rows) - len(self.failed)
        seen = f"; the face was seen in {found:,} of {frames:,} frames" if frames else ""
        return f"{done} of {len(self.rows)} files cropped ({self.kept} were there already){seen}; {self.manifest}"


def crop_files(source: Path | str, out: Path | str, size: int = 224, cropper: FaceCropper | None = None,
               images: bool = False, preview: Path | str | None = None, progress: bool = True) -> Report:
    """Crop a video, picture, folder of frames, or folder of these; see the module.

    images     every picture stands for itself; otherwise a folder that holds pictures is one clip
    preview    a picture to write: frames with box and eyes beside their crops
    ValueError for a request that makes no sense, or targets made with other settings; a bad file does not stop the
    rest. OSError where targets cannot be written.
    """
    source, out, cropper = Path(source), Path(out), cropper or FaceCropper()
    if preview is not None and Path(preview).suffix.lower() not in IMAGE_SUFFIXES:
        raise Refused(f"{preview}: a preview is a picture; name it .jpg or .png")
    items, alone = plan(source, out, images)
    if size < 16 or (size % 2 and any(item.target.suffix == ".mp4" for item in items)):
        raise Refused(f"size is {size} px; crops need at least 16 px, and an even number for video")
    settings = fingerprint(cropper.as_dict() | {"size": size})
    manifest = Manifest(out.with_name(f"{out.name}.{MANIFEST}") if alone else out / MANIFEST)
    manifest.check(items, settings)
    report, sheet = Report(manifest=manifest.path), Preview()
    chosen = set(spread_indices(len(items), TILES)) if preview and items else set()
    with Progress(len(items), "cropping faces", silent=alone or not progress) as bar:
        for number, item in enumerate(items):
            row = manifest.rows.get(item.name)
            if row and not row["error"] and item.target.exists():
                report.kept += 1
            else:
                tiles = (TILES // 2 if alone else 1) if number in chosen else 0
                row = _one(item, size, cropper, settings, manifest, sheet, tiles, progress and alone, report)
            report.rows.append(row)
            bar.update(1)
    manifest.tidy()
    if preview and sheet.tiles:
        sheet.save(Path(preview))
    elif preview:
        report.notes.append(f"{preview}: no preview, no file was cropped now")
    return report


# ------------------------------------------------------------------------------------------------ what to do


def plan(source: Path, out: Path, images: bool = False) -> tuple[list[Item], bool]:
    """The things to crop in the order of their names, and whether there is just one thing and not a folder of them.

    ValueError where a path is missing, nothing can be cropped, a target lies in its source, two things would share a
    target, or a folder of frames also holds something else.
    """
    if not source.exists():
        raise Refused(f"{source}: no such file or directory")
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents:
        raise Refused(f"{out}: lies in {source}; choose a place outside of it")
    if source.is_file():
        return [Item(source, _target(source, out, source.suffix.lower() in IMAGE_SUFFIXES), source.name)], True
    found = {path.relative_to(source): kind for path, kind in _walk(source, images)}
    if not found:
        raise Refused(f"{source}: holds no video and no picture ({', '.join((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))})")
    if list(found) == [Path(".")]:
        return [Item(source, _target(source, out, False), source.resolve().name)], True
    for path, kind in found.items():
        others = [other for other in found if path in other.parents] if kind == "frames" else []
        if others:
            raise Refused(f"{source / path}: holds pictures beside {others[0]}, so it is no folder of frames; move "
                          "one of them away, or take every picture by itself (--images)")
    items, taken = [], {}
    for path, kind in sorted(found.items()):
        target = out / (path.with_suffix(".mp4") if kind == "video" else path)
        if (first := taken.setdefault(target, path)) != path:
            raise Refused(f"{source / first} and {source / path}: both would become {target}; rename one")
        items.append(Item(source / path, target, path.as_posix()))
    return items, False


def _target(source: Path, out: Path, picture: bool) -> Path:
    if picture and out.suffix.lower() not in IMAGE_SUFFIXES:
        raise Refused(f"{out}: {source} is a picture; name the target .png or .jpg")
    if not picture and out.suffix.lower() not in (".mp4", ""):
        raise Refused(f"{out}: {source} becomes a video (name it .mp4) or a folder of frames (no suffix)")
    return out


def _walk(root: Path, images: bool) -> Iterator[tuple[Path, str]]:
    """Videos, pictures or folders of frames below a folder. ValueError for links that lead out of it."""
    inside = root.resolve()
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        pictures = False
        for name in sorted(files):
            path = Path(folder) / name
            suffix = path.suffix.lower()
            if name.startswith(".") or suffix not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
                continue
            if path.is_symlink() and inside not in Path(os.path.realpath(path)).parents:
                raise Refused(f"{path}: is a link that leads out of {root}; replace it by a file")
            if suffix in VIDEO_SUFFIXES:
                yield path, "video"
            elif images:
                yield path, "image"
            else:
                pictures = True
        if pictures:
            yield Path(folder), "frames"


class Manifest:
    """`crops.csv`: one row a file, the last one counts. A row is written just before its target appears, so a target
    with a row is finished and a target without one is not ours."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, {}
        if not path.exists():
            return
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.reader(file)
            if (head := next(reader, None)) is not None and tuple(head) != COLUMNS:
                raise Refused(f"{path}: its columns are not those of a manifest of crops; move it away")
            try:
                for values in reader:
                    if len(values) == len(COLUMNS):  # a row that a killed writer cut short is made again
                        name = values[0].removeprefix("./")
                        self.rows[name] = dict(zip(COLUMNS, [name, *values[1:]]))
            except csv.Error as error:
                raise Refused(f"{path}:{reader.line_num}: not a row of a manifest ({error}); move it away") from error

    def check(self, items: list[Item], settings: str) -> None:
        """ValueError if a target that is there was made with other settings."""
        for item in items:
            row = self.rows.get(item.name)
            if row and not row["error"] and row["settings"] != settings and item.target.exists():
                raise Refused(f"{item.target}: was cropped with other settings ({row['detector']}, "
                              f"{row['size']} px, {row['settings']} in {self.path.name}); choose another place")
        self.tidy()

    def add(self, row: dict[str, str]) -> None:
        self.rows[row["file"]] = row
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(COLUMNS)
            writer.writerow([no_formula(row[name]) for name in COLUMNS])

    def tidy(self) -> None:
        """Write the file again with one row a file, in order."""
        if not self.rows:
            return
        with (replacing(self.path) as part,
              open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([no_formula(row[name]) for name in COLUMNS] for _, row in sorted(self.rows.items()))


# ------------------------------------------------------------------------------------------------ one file


def _one(item: Item, size: int, cropper: FaceCropper, settings: str, manifest: Manifest, sheet: Preview, tiles: int,
         progress: bool, report: Report) -> dict[str, str]:
    """Crop one thing and note it; an error becomes the row's error."""
    row = dict.fromkeys(COLUMNS, "") | {"file": item.name, "size": str(size), "detector": cropper.find.name,
                                        "version": __version__, "settings": settings}
    part = item.target.with_name(f"{_part_of(item.target)}{os.getpid()}.part")
    try:
        if item.target.exists():
            raise Refused(f"{item.target} is there and {manifest.path.name} does not know it; move it away")
        _remove_leftovers(item.target)
        with open_frames(item.source) as reader:
            counted = _write(reader, part, item, size, cropper, sheet, tiles, progress)
            report.notes += [f"{item.name}: {note}" for note in reader.notes]
        row |= counted
        report.notes += [f"{item.name}: {name} for {row[name]} of {row['frames']} frames"
                         for name in ("held", "repeated", "whole", "skipped") if row[name] != "0"]
        manifest.add(row)
        os.replace(part, item.target)
    except OSError as error:
        raise OSError(f"{item.target}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        words = " ".join(str(error).split())
        row["error"] = words if str(item.source) in words else f"{item.source}: {words}"
        manifest.add(row)
    finally:
        _remove(part)
    return row


def _write(reader: FrameReader, part: Path, item: Item, size: int, cropper: FaceCropper, sheet: Preview, tiles: int,
           progress: bool) -> dict[str, str]:
    """Stream one thing into its part file; what the manifest says about it. NoFace if there is none to show."""
    length = len(reader)
    wanted = set(spread_indices(length, tiles) if tiles > 1 else [length // 2] if tiles else [])
    originals: dict[int, Tensor] = {}

    def chunks() -> Iterator[Tensor]:
        height, width = reader.size
        step = int(min(max(CHUNK_BYTES // (height * width * 3), 1), 32))
        for start in range(0, length, step):
            chunk = reader.read(range(start, min(start + step, length)))
            originals.update({at: chunk[at - start].clone() for at in wanted & set(range(start, start + len(chunk)))})
            yield chunk

    counts, first_missing, writer, pending = np.zeros(len(STATES), int), None, None, []
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Progress(length, "cropping frames", silent=not progress) as bar:
            for crops in cropper.stream(chunks(), size):
                writer = writer or _writer(part, item.target, reader.fps)
                writer.add(crops.frames)
                counts += np.fromiter(crops.counts.values(), int)
                first_missing = crops.first_missing if first_missing is None else first_missing
                pending += [(originals.pop(at), crops, at) for at in sorted(originals) if at < crops.first + len(crops)]
                bar.update(len(crops))
    finally:
        if writer:
            writer.close()
    found = int(counts[:HELD].sum())
    if not found and cropper.missing != "full":
        raise NoFace(f"{item.source}: no face was found in {length} frames; lower the smallest face (--min-face), try "
                     "another detector, or take the middle of the frame (--missing full)")
    for original, crops, at in pending:
        sheet.add(original, crops, at, f"{item.name} {at}")
    return {"frames": str(length), "found": str(found), "share": f"{found / length:.4f}",
            "first_missing": "" if first_missing is None else str(first_missing),
            **{STATES[state]: str(counts[state]) for state in (HELD, REPEATED, WHOLE, SKIPPED)}}


def _remove(part: Path) -> None:
    """Delete a part file or a part folder, as far as it is there."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _part_of(target: Path) -> str:
    """How part files of a target begin: its name, cut where adding to it would make it too long for a file system."""
    return f".{os.fsdecode(os.fsencode(target.name)[:160])}."


def _remove_leftovers(target: Path) -> None:
    """Delete what killed runs left of this target: their process number is in the name and no longer alive."""
    if not target.parent.is_dir():
        return
    start, end = _part_of(target), ".part"
    for name in os.listdir(target.parent):
        number = name[len(start):-len(end)] if name.startswith(start) and name.endswith(end) else ""
        if not number.isdigit():
            continue
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            part = target.parent / name
            _remove(part)
        except PermissionError:  # alive under another user
            continue


class _Pictures:
    """jpg frames 00001.jpg, 00002.jpg, … in a folder, or the one picture that a picture becomes."""

    def __init__(self, part: Path, target: Path) -> None:
        self.part, self.count = part, 0
        self.kind = Image.registered_extensions()[target.suffix.lower()] if target.suffix else None
        if not target.suffix:
            part.mkdir()

    def add(self, frames: Tensor) -> None:
        for frame in frames.numpy():
            self.count += 1
            place = self.part if self.kind else self.part / f"{self.count:05d}.jpg"
            Image.fromarray(frame).save(place, self.kind or "JPEG", quality=95)

    def close(self) -> None:
        pass


def _writer(part: Path, target: Path, fps: float | None) -> Mp4Writer | _Pictures:
    return Mp4Writer(part, fps or 25) if target.suffix.lower() == ".mp4" else _Pictures(part, target)
