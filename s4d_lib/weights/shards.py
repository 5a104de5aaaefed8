"""folder → tensors     checkpoints in parts: a folder of shards with its index, and the `config.json` beside weights.

An index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) says which shard holds which tensor:

    {"metadata": {...}, "weight_map": {"blocks.0.norm1.weight": "model-00001-of-00002.safetensors", ...}}

All of it must hold: every shard is there, every tensor is in the shard that the index names and in no other. One shard
by itself is refused, because what it holds may well look like a smaller network.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from s4d_lib.weights.contents import BadCheckpoint, Contents

INDEX = ".index.json"
CONFIG = "config.json"
WHOLE = ("model.safetensors", "pytorch_model.bin")  # names under which one file is all there is
ORDER = tuple(name + end for name in WHOLE for end in ("", INDEX))  # the first that is there counts, as on the Hub
WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")
PART = re.compile(r"-(\d+)-of-(\d+)(?=\.)")


def read_folder(path: Path, read: Callable[[Path], Contents]) -> Contents:
    """The tensors of a folder, or of an index file: all its shards, or its one file of weights.

    `read` reads a single file. FileNotFoundError where there are no weights, or several files and no index;
    BadCheckpoint where an index is damaged, leads out of its folder, or tells another story than its shards.
    """
    folder = path if path.is_dir() else path.parent
    file = path if not path.is_dir() else next((folder / name for name in ORDER if (folder / name).is_file()), None)
    if file is None:
        found = sorted(one for one in folder.iterdir() if one.name.endswith(INDEX)) or sorted(
            one for one in folder.iterdir() if one.suffix in WEIGHTS and one.is_file())
        file = _one(folder, found)
    if file.name.endswith(INDEX):
        contents = _read_shards(file, read)
    else:
        refuse_a_single_shard(file)
        contents = read(file)
    return replace(contents, config=_config_in(folder))


def refuse_a_single_shard(path: Path) -> None:
    """BadCheckpoint for a file that is one part of several, by its name or by an index that lies beside it."""
    remedy = f"give its folder, {path.parent}, with the index and all parts"
    if (part := PART.search(path.name)) and int(part[2]) > 1:
        raise BadCheckpoint(path, f"it is part {int(part[1])} of {int(part[2])} and no whole network", remedy)
    for index in sorted(path.parent.glob(f"*{INDEX}")) if path.is_file() else ():
        try:
            names = set(_weight_map(index).values())
        except BadCheckpoint:  # the neighbour's trouble; whoever opens the folder is told
            continue
        if path.name in names and len(names) > 1:
            raise BadCheckpoint(path, f"it is one of {len(names)} parts that {index.name} lists", remedy)


def stated_config(path: Path) -> dict[str, Any]:
    """`config.json` beside a file whose name says that it is all there is of its folder; {} for others."""
    return _config_in(path.parent) if path.name in WHOLE else {}


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON dictionary; BadCheckpoint where the file is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(path, f"this {what} is no JSON ({type(error).__name__})", "download it again") from error
    if not isinstance(found, dict):
        raise BadCheckpoint(path, f"this {what} is a {type(found).__name__} and no dictionary", "download it again")
    return found


def _config_in(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    return read_json(path, "configuration") if path.is_file() else {}


def _one(folder: Path, found: list[Path]) -> Path:
    if not found:
        raise FileNotFoundError(f"{folder}: is a folder and no checkpoint file, and holds none; check the path")
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:4])
        raise FileNotFoundError(f"{folder}: is a folder with {len(found)} files of weights ({names}) and does not say "
                                "which counts; name one of them, or add the index if they are parts of one network")
    return found[0]


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor → name of its shard; a plain name in the folder of the index."""
    names = read_json(index, "index").get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise BadCheckpoint(index, "its weight_map does not say which tensor is in which shard", "download it again")
    for key, name in names.items():
        # A link inside the folder may lead elsewhere: the cache of the Hub is made of such links.
        if not name or name in (".", "..") or re.search(r"[/\\\0]|^[A-Za-z]:", name):
            raise BadCheckpoint(index, f"it sends {key} to {name!r}, which is no file of its own folder",
                                "do not use it, and fetch it anew from its authors")
    return names


def _read_shards(index: Path, read: Callable[[Path], Contents]) -> Contents:
    where = _weight_map(index)
    shards = list(dict.fromkeys(where.values()))
    _refuse_missing(index, shards)
    parts = [read(index.parent / name) for name in shards]
    held = {name: set(part.tensors) for name, part in zip(shards, parts)}
    for key, name in where.items():
        if key not in held[name]:
            elsewhere = next((other for other in shards if key in held[other]), None)
            found = f"it is in {elsewhere}" if elsewhere else "it is in no shard"
            raise BadCheckpoint(index, f"it says that {key} is in {name}, and {found}", "download the folder again")
    counts = Counter(key for keys in held.values() for key in keys)
    if twice := sorted(key for key, count in counts.items() if count > 1):
        raise BadCheckpoint(index, f"{twice[0]} is in more than one shard", "download the folder again")
    if strange := sorted(counts.keys() - where.keys()):
        raise BadCheckpoint(index, f"its shards hold {strange[0]}, which it does not list", "download the folder again")
    tensors = {key: parts[shards.index(name)].tensors[key] for key, name in where.items()}
    return Contents(index.parent, tensors, {}, parts[0].container,
                    {key: value for part in parts for key, value in part.settings.items()},
                    {key: value for part in parts for key, value in part.skipped.items()},
                    files=(index, *(index.parent / name for name in shards)))


def _refuse_missing(index: Path, shards: list[str]) -> None:
    if absent := [name for name in shards if not (index.parent / name).is_file()]:
        raise BadCheckpoint(index, f"{len(absent)} of its {len(shards)} shards are not there, first {absent[0]}",
                            "download them into the same folder")
    for name in shards:
        if (part := PART.search(name)) and int(part[2]) != len(shards):
            raise BadCheckpoint(index, f"{name} is one of {int(part[2])} parts, and it lists {len(shards)}",
                                "download the folder again")
