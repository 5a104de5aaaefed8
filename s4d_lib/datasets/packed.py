"""shards → samples     what `datasets/pack/writer.py` wrote, read back: samples for FaceDataset, checksums on demand.

    read_packed("data/dfew-packed", "test", fold=2)
    verify("data/dfew-packed")

The samples have the ids, labels, groups, kinds and schema that they had before. Nothing is extracted; names from the
manifest, the indices and the tar files are checked before they become a path, and links are refused.

Derived in chapter 02.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from s4d_lib.datasets.labels import schema_named
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.frames.reader import open_frames
from s4d_lib.frames.shards import SHARD, index_path, packed_path, read_index
from s4d_lib.text import natural_order

FORMAT = 1  # of the manifest; changes when a reader of today could not read it
_OF_A_PART = ("name", "files", "start", "stop", "samples", "lossless", "source_files", "errors")
_OF_A_SAMPLE = ("id", "label", "kind", "group", "schema", "members")
_PART = re.compile(r"part-\d{6}")
_FILE = re.compile(r"shard-\d{6}\.tar|(shard|part)-\d{6}\.index\.json|clips(/[A-Za-z0-9_~%-]+)+\.mp4")


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a packed folder, its names checked. FileNotFoundError, or ValueError if it is not of its form."""
    path = root / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest; name a folder that `s4d pack` has written")
    try:
        manifest = json.loads(path.read_text(encoding="ascii"))
        if manifest["format"] != FORMAT:
            raise Refused(f"format {manifest['format']!r}, this library reads {FORMAT}")
        for part in manifest["parts"]:
            if lacking := [key for key in _OF_A_PART if key not in part]:
                raise Refused(f"a part lacks {', '.join(lacking)}")
            for name in (part["name"], *part["files"]):
                if not (_FILE.fullmatch(name) or _PART.fullmatch(name)) or os.path.islink(root / name):
                    raise Refused(f"{name!r} is a link, or not the name of a packed file")
            if not (type(part["start"]) is type(part["stop"]) is int and part["start"] < part["stop"]):
                raise Refused(f"{part['name']}: it has no start and stop")
        bounds = [0, *(part["stop"] for part in manifest["parts"])]
        if bounds[:-1] != [part["start"] for part in manifest["parts"]]:
            raise Refused("its parts do not follow each other")
        if manifest["complete"] and bounds[-1] != manifest["counts"]["asked"]:
            raise Refused(f"its parts hold {bounds[-1]} of {manifest['counts']['asked']} samples")
        manifest["request"]["dataset"], manifest["errors"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise Refused(f"{path}: not a manifest of packed files ({told}); pack the folder again") from error
    return manifest


def read_packed(root: str | Path, split: str | None = None, fold: int | None = None) -> list[Sample]:
    """The samples of a packed folder: all, or those that a list of `split` and `fold` names.

    ValueError for a folder that was not finished, a split or fold that it does not have, or a damaged index.
    """
    root = Path(root)
    manifest = read_manifest(root)
    if not manifest["complete"]:
        raise Refused(f"{root}: packing was stopped; run the same `s4d pack` again, which goes on where it was")
    samples, seen = [], set()
    for part in manifest["parts"]:
        for key, told in _indexed(root, part):
            members = {(name, number) for name, number in told["members"]}
            seen |= members
            if any(split in (None, name) and fold in (None, number) for name, number in members):
                samples.append(_sample(root, part["name"], key, told))
    if not samples:
        held = sorted({f"{name}" + f" {number}" * (number is not None) for name, number in seen}, key=natural_order)
        raise Refused(f"{root}: no sample of split {split!r} and fold {fold!r}; packed are {', '.join(held)}")
    return samples


def read_packed_split(
    root: str | Path, split: str, fold: int = 1, schema: str | None = None, groups: Mapping[str, str] | None = None
) -> list[Sample]:
    """The samples of one split and fold, as the reader "packed" of `datasets.READERS` gives them.

    Fold 1 of a data set without folds is its only split. The class order is that of the manifest; ValueError if
    `schema` names another. `groups` (id → group) takes the place of the packed groups.
    """
    if split not in ("train", "validation", "test") or not isinstance(fold, int) or fold < 0:
        raise Refused(f"split must be train, validation or test, fold a number from 0 on; got {split!r}, {fold!r}")
    root = Path(root)
    samples = read_packed(root, split, None if fold == 1 and not packed_folds(root) else fold)
    held = samples[0].schema
    if schema not in (None, held):
        raise Refused(f"{root}: packed with the labels of {held}, not of {schema}; say schema={held!r}, or bring "
                      f"the samples into the other with translate_samples(samples, {schema!r})")
    if groups is None:
        return samples
    if lost := [sample.id for sample in samples if sample.id not in groups]:
        raise Refused(f"{root}: {len(lost)} ids have no group, such as {lost[0]!r}; groups= must name one for each")
    return [replace(sample, group=groups[sample.id]) for sample in samples]


def packed_splits(root: Path) -> set[tuple[str | None, int | None]]:
    """(split, fold) of every list that named a packed sample; None for a fold of a data set without folds."""
    return {(name, number) for part in read_manifest(root)["parts"] for _, told in _indexed(root, part)
            for name, number in told["members"]}


def packed_folds(root: Path) -> tuple[int, ...]:
    """The folds of a packed folder; () where its data set has none."""
    return tuple(sorted({number for _, number in packed_splits(root)} - {None}))


def _indexed(root: Path, part: Mapping[str, Any]) -> Iterator[tuple[str, dict]]:
    shard = root / part["name"]
    for key, entry in read_index(index_path(shard)).items():
        told = entry["sample"]
        if lacking := [name for name in _OF_A_SAMPLE if name not in told]:
            raise Refused(f"{index_path(shard)}: {key!r} lacks {', '.join(lacking)}; pack the folder again")
        if not all(isinstance(one, list) and len(one) == 2 for one in told["members"]):
            raise Refused(f"{index_path(shard)}: {key!r} does not say which lists name it; pack the folder again")
        yield key, told


def _sample(root: Path, part: str, key: str, told: Mapping[str, Any]) -> Sample:
    shard = root / part
    path = packed_path(shard, key) if SHARD.fullmatch(part) else root / "clips" / f"{key}.mp4"
    label, schema = told["label"], schema_named(told["schema"])
    if type(label) is not int or not 0 <= label < len(schema) or told["kind"] not in ("clip", "image"):
        raise Refused(f"{index_path(shard)}: {key!r} has label {label!r} and kind {told['kind']!r}; pack it again")
    return Sample(told["id"], path, label, told["kind"], told["group"], schema.name)


# -------------------------------------------------------------------------------- checks


def verify(root: str | Path, deep: bool = False) -> list[str]:
    """What is wrong with a packed folder, one sentence each; nothing if all checksums hold.

    Every file is read once, and every tar member compared with the index. `deep` also decodes the frames of samples
    that were shrunk and compares them with what they were when they were packed.
    """
    root = Path(root)
    manifest, found = read_manifest(root), []
    if not manifest["complete"]:
        found.append("packing was stopped; run the same `s4d pack` again")
    for part in manifest["parts"]:
        wrong = [f"{name}: {_state(root / name, known)}" for name, known in part["files"].items()]
        wrong = [text for text in wrong if not text.endswith(": ok")]
        if not wrong and SHARD.fullmatch(part["name"]) and part["name"] in part["files"]:
            wrong += _members(root / part["name"])
        if not wrong and sum(1 for _ in _indexed(root, part)) != part["samples"]:
            wrong.append(f"{part['name']}: {part['samples']} samples in the manifest, another number in the index")
        if deep and not wrong:
            wrong += [f"{part['name']}: {key}: frames decode to other values than were packed"
                      for key, told in _indexed(root, part)
                      if "pixels" in told and _pixels(_sample(root, part["name"], key, told)) != told["pixels"]]
        found += wrong
    return found


def _state(path: Path, known: str) -> str:
    return "missing" if not path.is_file() else "ok" if sha256_of(path) == known else "the checksum differs"


def _members(shard: Path) -> list[str]:
    """In what the members of a shard differ from its index."""
    index = read_index(index_path(shard), shard.stat().st_size)
    wanted = {f"{key}.{ending}": (start, size) for key, entry in index.items() for ending, start, size in
              entry["members"]}
    with tarfile.open(shard, "r:") as tar:
        wrong = [f"{shard.name}: member {member.name!r} is not what the index says" for member in tar
                 if not member.isreg() or wanted.pop(member.name, None) != (member.offset_data, member.size)]
    return wrong + [f"{shard.name}: member {name!r} is missing" for name in wanted]


def _pixels(sample: Sample) -> str:
    with open_frames(sample.path) as reader:
        return pixels_sha256(reader.read(range(len(reader))).numpy())


def is_whole(out: Path, part: Mapping[str, Any]) -> bool:
    """Whether every file of a part is there with the bytes that were written."""
    return all(_state(out / name, known) == "ok" for name, known in part["files"].items())


def pixels_sha256(frames: np.ndarray) -> str:
    """The sha256 of frames uint8 [t h w 3]: of their shape and values."""
    return hashlib.sha256(str(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()
