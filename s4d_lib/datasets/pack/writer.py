"""folder → shards     frame folders or videos as WebDataset tar files, or as small mp4 files, with a manifest.

    pack("data/DFEW", "data/dfew-packed", "dfew", frames="clip_jpg_256")

    OUT/manifest.json               what was asked for, every file with its sha256, counts, errors; written last
    OUT/shard-000000.tar            members as `frames/shards.py` describes them; readable by WebDataset
    OUT/shard-000000.index.json     where each member lies
    OUT/clips/<id>.mp4              with format="mp4" instead of tar files; part-000000.index.json describes them

A clip is packed once, however many folds name it; its JSON says which. Without `size` the bytes of jpg, png and mp4
files are kept. With `size` the shorter edge of each frame becomes `size` px (never enlarged, bicubic with antialiasing)
and frames are stored as png, so that what is read back is what was shrunk; a `quality` stores jpg instead, smaller and
not lossless. The sample then carries `pixels`, the sha256 of the frames as they decode, for
`datasets.verify(deep=True)`.

Equal input and options give equal bytes: members are in natural order, without times or owners. A run that was stopped
goes on where it was (`state.py` says what is kept); two runs never write into one folder. The tar files are
written with Python's tarfile: the names are all that WebDataset asks for, so its package is needed neither here nor for
reading.

Derived in chapter 02.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from s4d_lib.datasets.doctor.census import read_census
from s4d_lib.datasets.doctor.diagnosis import NAMES
from s4d_lib.datasets.doctor.inventory import picture_size
from s4d_lib.datasets.folders import LAYOUTS
from s4d_lib.datasets.groups import groups_of
from s4d_lib.datasets.labels import ReaderNote, schema_named
from s4d_lib.datasets.list_form import NAMES as WORDS
from s4d_lib.datasets.list_form import ListForm
from s4d_lib.datasets.lists import RowError
from s4d_lib.datasets.pack.state import (
    DISK,
    held,
    known_parts,
    may_be_kept,
    remove_leftovers,
    source_sha256,
    write_json,
)
from s4d_lib.datasets.packed import FORMAT, pixels_sha256
from s4d_lib.datasets.protocols import PROTOCOLS
from s4d_lib.datasets.readers import folds_of, read_dataset
from s4d_lib.datasets.samples import Sample
from s4d_lib.datasets.tables import Table
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.frames.backends import Folder
from s4d_lib.frames.endings import IMAGE_SUFFIXES
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.shards import decode, index_path, key_of
from s4d_lib.frames.writer import write_mp4
from s4d_lib.progress import Progress
from s4d_lib.text import natural_order

FPS = 25.0  # of an mp4 made from frames, which carry no rate
PART = 256  # mp4 files described by one index
Members = list[list]  # [split, fold or None], one per list that names the clip


class Item(NamedTuple):
    """One clip or still to be packed, and the splits and folds that name it."""

    key: str
    sample: Sample
    members: Members


@dataclass(frozen=True)
class Packed:
    """What a run of `pack` left: the manifest, and how many shards an earlier run had finished."""

    folder: Path
    manifest: dict[str, Any]
    kept: int
    notes: tuple[str, ...] = ()  # what the reader had to conclude

    @property
    def errors(self) -> list[str]:
        return self.manifest["errors"]


def pack(
    source: str | Path, out: str | Path, dataset: str, split: str | None = None, fold: int | None = None,
    size: int | None = None, format: Literal["tar", "mp4"] = "tar", shard_mb: float = 256, quality: int | None = None,
    jobs: int = 2, progress: bool = False, **options: Any,
) -> Packed:
    """Pack one split and fold, or all that are there; `options` are those of the data set's reader (see the module).

    quality   with tar and `size`: 1 to 95, jpg instead of png. With mp4: the H.264 crf, 0 to 51, 12 if not given
    ValueError for a bad request or if `out` holds a pack of something else. What cannot be read is left out and listed
    in `.errors`.
    """
    source, out, name = Path(source), Path(out), NAMES.get(dataset, dataset)
    _check(name, size, format, shard_mb, quality)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", ReaderNote)
        items, errors = collect(source, name, split, fold, options)
    if format == "mp4" and any(item.sample.kind == "image" for item in items):
        raise Refused(f"{source}: stills cannot be packed as mp4; pack them as tar")
    request = _request(name, items, dict(split=split, fold=fold, size=size, format=format, shard_mb=shard_mb,
                                         quality=quality, **options))
    known = known_parts(out, request)
    writer = _Writer(out, size, format, quality, int(shard_mb * 2**20), jobs)
    parts, start, kept = [], 0, 0
    with held(out), Progress(len(items), "packing", silent=not progress) as bar:
        remove_leftovers(out)
        while start < len(items):
            part = known.get(start)
            if part and may_be_kept(out, part, writer.name(len(parts)),
                                    [item.sample.path for item in items[start : part["stop"]]]):
                kept += 1
            else:
                part = writer.part(len(parts), items, start, bar)
            parts.append(part)
            if bar.done < part["stop"]:
                bar.update(part["stop"] - bar.done)
            start = part["stop"]
            write_json(out / "manifest.json", _manifest(request, parts, items, errors, start == len(items)))
    notes = tuple(sorted({str(note.message) for note in noted}))
    return Packed(out, _manifest(request, parts, items, errors, True), kept, notes)


def _check(name: str, size: int | None, format: str, shard_mb: float, quality: int | None) -> None:
    if name not in LAYOUTS:
        raise Refused(f"no data set is called {name!r}; there are {', '.join(LAYOUTS)}")
    if format not in ("tar", "mp4"):
        raise Refused(f"format must be tar or mp4, got {format!r}")
    if size is not None and size < 8:
        raise Refused(f"size must be at least 8 px, got {size}")
    if shard_mb <= 0:
        raise Refused(f"shard_mb must be above 0, got {shard_mb}")
    if quality is not None and format == "tar" and (size is None or not 1 <= quality <= 95):
        raise Refused(f"quality {quality} of tar needs a size and lies between 1 and 95")
    if quality is not None and format == "mp4" and not 0 <= quality <= 51:
        raise Refused(f"quality of mp4 is the crf of H.264, 0 to 51, got {quality}")


# -------------------------------------------------------------------------------- what is packed


def collect(
    source: Path, dataset: str, split: str | None, fold: int | None, options: Mapping[str, Any]
) -> tuple[list[Item], list[str]]:
    """(every sample once, in natural order, with the lists that name it; what the readers refused)."""
    found: dict[str, Item] = {}
    errors: list[RowError] = []
    if "groups" not in options and (people := groups_of(source)) is not None:
        options = {**options, "groups": people}
    for part, number in _lists(source, dataset, split, fold, options):
        kept: list[RowError] = []
        for sample in read_dataset(source, dataset, part, number, **options, errors=kept):
            item = found.setdefault(sample.id, Item(key_of(sample.id), sample, []))
            if (item.sample.path, item.sample.label) != (sample.path, sample.label):
                kept.append(RowError(f"{source}: {sample.id!r} has label {item.sample.label} in one list and "
                                     f"{sample.label} in another", "label"))
            else:
                item.members.append([part, number])
        errors += kept
    if not found:
        raise Refused(f"{source}: no sample can be packed" + (f", such as {errors[0]}" if errors else ""))
    order = sorted(found.values(), key=lambda item: natural_order(item.key))
    return order, sorted({str(error) for error in errors})


def said_form(options: Mapping[str, Any]) -> ListForm:
    """What the options of a reader say on how its lists are written."""
    return ListForm.of({word: options[word] for word in WORDS if word in options})


def _lists(
    source: Path, dataset: str, split: str | None, fold: int | None, options: Mapping[str, Any]
) -> list[tuple[str | None, int | None]]:
    """(split, fold) of every list to be read, as the reader is asked for them."""
    if dataset == "voxceleb2":
        return [("train", None)]
    form = said_form(options)
    schema = ",".join(form.classes) or options.get("schema")
    folded = bool(folds_of(dataset, source, form))
    census, _ = read_census(source, dataset, lambda kind, example: None, fold, schema, form, options.get("frames"))
    if dataset == "table" and not folded and {one.split for one in census.listings} == {"train"} and (
            "{split}" not in (form.listing or "") and "split" not in Table(census.listings[0].path, form, False).at):
        return [(split, None)]  # one list, of which no row says its split
    found = [(one.split, one.fold if folded else None) for one in census.listings if split in (None, one.split)]
    return found or [(split or "train", fold if folded else None)]  # whose reader says what is missing


def _request(dataset: str, items: Sequence[Item], options: dict[str, Any]) -> dict[str, Any]:
    rows = [[item.key, item.sample.label, item.sample.kind, item.sample.group, item.members] for item in items]
    schema = schema_named(items[0].sample.schema)
    request = {
        "dataset": dataset, "schema": schema.name, "classes": list(schema.classes), "options": options,
        "protocols": [name for name, p in PROTOCOLS.items() if p.dataset == dataset and p.schema == schema.name],
        "samples_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }
    return json.loads(json.dumps(request, default=str))


def _manifest(request: dict, parts: list[dict], items: Sequence[Item], errors: list[str], complete: bool) -> dict:
    stop = parts[-1]["stop"] if parts else 0
    failed = [error for part in parts for error in part["errors"]]
    kinds = sorted({suffix for part in parts for suffix in part["source_files"]})
    counts = {"asked": len(items), "packed": stop - len(failed), "failed": len(failed), "refused": len(errors)}
    return {"format": FORMAT, "complete": complete, "request": request, "counts": counts, "source_files": kinds,
            "lossless": all(part["lossless"] for part in parts), "parts": parts, "errors": errors + failed}


# -------------------------------------------------------------------------------- writing


class _Writer:
    """Writes one part after the other: a tar file and its index, or some mp4 files and theirs."""

    def __init__(self, out: Path, size: int | None, format: str, quality: int | None, limit: int, jobs: int):
        self.out, self.size, self.format, self.quality, self.limit, self.jobs = out, size, format, quality, limit, jobs

    def name(self, number: int) -> str:
        return f"shard-{number:06d}.tar" if self.format == "tar" else f"part-{number:06d}"

    def part(self, number: int, items: Sequence[Item], start: int, bar: Progress) -> dict[str, Any]:
        """Write the part that begins with item `start`; returns its entry in the manifest."""
        index, errors, suffixes = {}, [], set()
        path, hidden = self.out / self.name(number), self.out / f".{self.name(number)}.part"
        files, lossless, stop = {}, True, start
        with open(hidden, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for item, encoded in self._encoded(items, start):
                stop += 1
                bar.update(1)
                if isinstance(encoded, str):
                    errors.append(encoded)
                else:
                    told, media, suffix, kept = encoded
                    suffixes.add(suffix)
                    lossless = lossless and kept
                    place = self._add_file if self.format == "mp4" else _add_members
                    index[item.key] = {"sample": told, "members": place(tar, item.key, told, media, files)}
                if (tar.offset if self.format == "tar" else 1 + len(files)) >= self._full():
                    break
        if self.format == "tar" and index:
            os.replace(hidden, path)
            files[path.name] = sha256_of(path)
        else:
            hidden.unlink()
        told = index_path(path)
        write_json(told, index)
        files[told.name] = sha256_of(told)
        return {"name": path.name, "start": start, "stop": stop, "samples": len(index), "files": files,
                "source_files": sorted(suffixes), "lossless": lossless, "errors": errors,
                "source_sha256": source_sha256([item.sample.path for item in items[start:stop]])}

    def _full(self) -> int:
        return self.limit if self.format == "tar" else PART

    def _encoded(self, items: Sequence[Item], start: int) -> Iterator[tuple[Item, tuple | str]]:
        """Items from `start` on with their members, a few of them encoded ahead."""
        ahead: deque = deque()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for position in range(start, len(items)):
                    ahead.append((items[position], pool.submit(self._encode, items[position])))
                    if len(ahead) > 2 * self.jobs:
                        item, task = ahead.popleft()
                        yield item, task.result()
                while ahead:
                    item, task = ahead.popleft()
                    yield item, task.result()
            finally:
                for _, task in ahead:
                    task.cancel()

    def _encode(self, item: Item) -> tuple[dict, list[tuple[str, bytes]], str, bool] | str:
        """(JSON of the sample, (ending, bytes) of its members, ending of the source, whether lossless), or an error."""
        try:
            if self.size is None and self.format == "tar":
                told, media, suffix = _verbatim(item.sample)
                return _described(item, told), media, suffix, True
            return self._shrunk(item)
        except (ValueError, OSError) as error:
            if getattr(error, "errno", None) in DISK:
                raise  # the disk is full, which is not the fault of this sample
            return f"{item.key}: {error}"

    def _shrunk(self, item: Item) -> tuple[dict, list[tuple[str, bytes]], str, bool]:
        with open_frames(item.sample.path) as reader:
            frames, fps = reader.read(range(len(reader))).numpy(), reader.fps
            suffix = "folder" if item.sample.path.is_dir() else item.sample.path.suffix.lower()
        if self.size is not None:
            frames = shrink(frames, self.size, even=self.format == "mp4")
        told = {"frames": len(frames), "height": frames.shape[1], "width": frames.shape[2], "fps": fps}
        if self.format == "mp4":
            place = self.out / "clips" / f"{item.key}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_mp4(place, frames, fps or FPS, 12 if self.quality is None else self.quality, reproducible=True)
            return _described(item, told | {"fps": fps or FPS}), [("mp4", b"")], suffix, False
        ending = "png" if self.quality is None else "jpg"
        media = [(f"{i:06d}.{ending}", _picture(frame, self.quality)) for i, frame in enumerate(frames)]
        if self.quality is not None:  # what is read back is no longer what was shrunk
            frames = np.stack([decode(data) for _, data in media])
        return _described(item, told | {"pixels": pixels_sha256(frames)}), media, suffix, self.quality is None

    def _add_file(self, tar: object, key: str, told: dict, media: list, files: dict[str, str]) -> Members:
        name = f"clips/{key}.mp4"
        files[name] = sha256_of(self.out / name)
        return [["mp4", 0, (self.out / name).stat().st_size]]


def _add_members(tar: tarfile.TarFile, key: str, told: dict, media: list[tuple[str, bytes]], files: dict) -> Members:
    """Add a sample to the shard; returns [ending, offset, bytes] of its members, the JSON first."""
    members = []
    for ending, data in [("json", json.dumps(told, sort_keys=True).encode()), *media]:
        header = tarfile.TarInfo(f"{key}.{ending}")  # time 0, owner 0
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
        members.append([ending, tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data)])
    return members


def _described(item: Item, told: dict[str, Any]) -> dict[str, Any]:
    sample, schema = item.sample, schema_named(item.sample.schema)
    return {"id": sample.id, "label": sample.label, "class": schema.classes[sample.label], "schema": schema.name,
            "kind": sample.kind, "group": sample.group, "members": item.members} | told


def _verbatim(sample: Sample) -> tuple[dict[str, Any], list[tuple[str, bytes]], str]:
    """The bytes of a sample's files as they are. UnreadableMedia where they would not be read back."""
    path = sample.path
    with open_frames(path) as reader:
        length, fps, (height, width) = len(reader), reader.fps, reader.size
        if reader.fps:  # a film: one that is damaged is listed now, and not met in the third epoch
            reader.check()
    told = {"frames": length, "height": height, "width": width, "fps": fps}
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        return told, [(path.suffix.lower()[1:], path.read_bytes())], path.suffix.lower()
    files = Folder(path).files if path.is_dir() else [path]
    for file in files:
        found = picture_size(str(file), decode=False)
        if isinstance(found, str):
            raise UnreadableMedia(file, found)
        if found != picture_size(str(files[0]), decode=False):
            raise UnreadableMedia(file, f"it is {found[0]}x{found[1]} px, the first frame {height}x{width} px")
    suffixes = [file.suffix.lower()[1:] for file in files]
    endings = [f"{i:06d}.{suffix}" for i, suffix in enumerate(suffixes)] if path.is_dir() else suffixes
    return told, [(ending, file.read_bytes()) for ending, file in zip(endings, files)], f".{suffixes[0]}"


def shrink(frames: np.ndarray, size: int, even: bool = False) -> np.ndarray:
    """Frames uint8 [t h w 3] with their shorter edge at `size` px, the aspect kept; smaller ones stay as they are.

    `even` rounds both edges down to even numbers, which H.264 needs.
    """
    from PIL import Image

    height, width = frames.shape[1:3]
    scale = min(1.0, size / min(height, width))
    wanted = [max(1, round(edge * scale)) for edge in (height, width)]
    if even:
        wanted = [max(2, edge // 2 * 2) for edge in wanted]
    if wanted == [height, width]:
        return frames
    resized = [Image.fromarray(f).resize(wanted[::-1], Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(picture) for picture in resized])


def _picture(frame: np.ndarray, quality: int | None) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    if quality is None:
        Image.fromarray(frame).save(file, "PNG", compress_level=6)
    else:
        Image.fromarray(frame).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()
