"""config → data use     what data a run is of: every label, group and frame of it, by content and not by place.

Lists are read as the training reads them. Faces that this library drew are known by recipe, seed and renderer, as long
as their frames are those of their card; of every other folder each frame file is hashed (`hashes.py`). Derived in
chapter 06.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s4d_lib.checkpoints.cards import DRAWN
from s4d_lib.datasets.lists import frame_files
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.frames.shards import index_path, is_packed
from s4d_lib.progress import say
from s4d_lib.records import DataUse, fingerprint
from s4d_lib.synthetic_faces.folders import SUMS
from s4d_lib.training.configs import Config, FinetuneConfig
from s4d_lib.training.data import data_folder, read_samples, validates_on_list
from s4d_lib.training.hashes import FrameHashes, listed
from s4d_lib.weights.wheels import FACE_MESH


def data_use(config: Config, modality: str, verify: bool = False, runs: Path | None = None) -> DataUse:
    """What a stage reads of one modality. `verify` hashes every frame again, whatever is remembered beside the runs.

    Refused where a list cannot be read. A frame that cannot be read counts as that: what then happens is a setting.
    """
    folder = data_folder(config, modality)
    splits = ["train", "test"] if isinstance(config, FinetuneConfig) else ["train"]
    splits += ["validation"] * validates_on_list(config, modality)
    lists, samples = hashlib.sha256(), {}
    for split in splits:
        for sample in read_samples(config, modality, split):
            lists.update(_line(split, sample.id, str(sample.label), sample.kind, sample.group, sample.schema))
            samples.setdefault((sample.id, sample.path), sample)
    return folder_use(folder, list(samples.values()), lists.hexdigest(), verify, runs)


def folder_use(folder: Path, samples: Sequence[Sample], lists: str, verify: bool = False,
               runs: Path | None = None) -> DataUse:
    """The same of any samples of a folder; `lists` is the hash of what was said of them."""
    files = list(dict.fromkeys(file for sample in samples for file in _files_of(sample)))  # a shard holds many samples
    with FrameHashes(folder, verify, runs) as known:
        hashes = known.of([path for _, _, path in files], f"hashing the frames of {folder.name}")
    if known.changed:
        say(f"{folder}: {len(known.changed)} files hold something else although their size, time and inode are as they "
            f"were, such as {known.changed[0]}; what is trained now is another run")
    place, card = read_card(folder)
    name = folder.name if card is None else f"{card['name']} ({folder.name})"
    if card is not None and (drawn := _as_drawn(place, card, [path for _, _, path in files], hashes)):
        return DataUse(name=name, sha256=card["content_sha256"], lists=lists, drawn=drawn)
    digest = hashlib.sha256()
    for (owner, part, _), found in zip(files, hashes):
        digest.update(_line(owner, part, found))
    return DataUse(name=name, sha256=digest.hexdigest(), lists=lists)


def trained_on(config: FinetuneConfig) -> str:
    """What the file of a trained model says of its data: drawn faces, whose card tells, or names of folders.

    "drawn faces only" is said where nothing else had a part in it: no weights of unknown origin, no network of others.
    """
    names, drawn = [], config.init in (None, "shipped")
    for modality in config.modalities:
        folder = data_folder(config, modality)
        (_, card), layout = read_card(folder), config.stills_as if modality == "image" else config.clips_as
        names.append(f"{card['name']} ({folder.name})" if card else f"{folder.name} (read as {layout})")
        drawn &= card is not None and "recipe" in card.get("request", {})
    names += [] if config.init in (None, "shipped") else [f"starting from the weights in {Path(config.init).name}"]
    if config.system == "s2d" and config.prompts and config.landmarks not in ("shipped", "random"):
        mesh = config.landmarks == FACE_MESH
        names.append("with landmarks of " + ("MediaPipe's face mesh" if mesh else Path(config.landmarks).name))
        drawn = False
    return f"{f'{DRAWN}: ' if drawn else ''}{', '.join(names)}"


def _files_of(sample: Sample) -> Iterator[tuple[str, str, str]]:
    """(owner, name, path) of every file with frames of a sample; only the path says anything of the place."""
    path = os.fspath(sample.path)
    if is_packed(path):
        shard = Path(path.rpartition("#")[0])
        yield from (("", part.name, str(part)) for part in (shard, index_path(shard)))
    elif os.path.isdir(path):
        yield from sorted((sample.id, entry.name, entry.path) for entry in frame_files(path))
    else:
        yield sample.id, os.path.splitext(path)[1].lower(), path


def _line(*words: str | None) -> bytes:
    return (json.dumps(words) + "\n").encode()


def read_card(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """The card of drawn faces and where it lies, in a folder or above it; None where there is none.

    Refused where a card of that name cannot be read as one.
    """
    for place in (folder, folder.parent):
        path = place / "card.json"
        if path.is_file():
            try:
                card = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(card["name"], str) or not isinstance(card["content_sha256"], str):
                    raise TypeError("name and content_sha256 must be words")
                return place, card
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise Refused(f"{path}: not the card of drawn faces ({type(error).__name__}: {error}); draw them again "
                              "with `s4d faces`, or remove the card if these are other faces") from error
    return folder, None


def _as_drawn(place: Path, card: dict[str, Any], paths: Sequence[str], hashes: Sequence[str]) -> dict | None:
    """From what faces were drawn; None, and a word about it, where their frames are no longer those of the card."""
    request = card.get("request")
    if not isinstance(request, dict) or "renderer" not in request or "frames_sha256" not in card:
        return None  # of an earlier version: nothing says what its files held
    sums = place / SUMS
    if not sums.is_file() or sha256_of(sums) != card["frames_sha256"]:
        say(f"{sums}: missing, or not the list that card.json was written with; every frame counts by its hash")
        return None
    known, above = listed(sums), os.fspath(place) + os.sep
    other = [path for path, found in zip(paths, hashes) if known.get(path.removeprefix(above)) != found]
    if other:
        say(f"{place}: {len(other)} frames are not those that were drawn, such as {other[0]}; this counts as another "
            "data set, in which every frame counts by its hash")
        return None
    return {"recipe": fingerprint(request), "seed": request.get("seed"), "renderer": request["renderer"]}
