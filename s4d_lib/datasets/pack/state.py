"""folder → state     what a stopped or finished run of `writer.py` left behind, and the folder held while one writes.

A part of an earlier run is kept if the request is the same, its files have their checksums, nothing in it failed, and
the files that it was made from still have their names and lengths. Content that changed at equal length is not seen.

Derived in chapter 02.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from s4d_lib.datasets.packed import is_whole, read_manifest
from s4d_lib.errors import Refused
from s4d_lib.files import Lock, write_atomically

# what a disk refuses, whichever sample is being written
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)


@contextmanager
def held(out: Path) -> Iterator[None]:
    """`out`, made and held by this run alone; what the disk refuses is one OSError that names the folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Lock(out, "another run is packing into this folder; wait for it or name another"):
            yield
    except OSError as error:
        told = f"writing stopped ({error.strerror or error}); once that is mended the same command goes on where it was"
        raise OSError(f"{out}: {told}") from error


def source_sha256(paths: Sequence[Path]) -> str:
    """The sha256 of the names and lengths of these files and of the files in these folders."""
    digest = hashlib.sha256()
    for path in paths:
        found: Any = None
        with suppress(OSError):
            if path.is_dir():
                with os.scandir(path) as entries:
                    found = sorted((os.fsencode(entry.name).hex(), entry.stat().st_size) for entry in entries)
            else:
                found = path.stat().st_size
        digest.update(json.dumps(found).encode() + b"\n")
    return digest.hexdigest()


def may_be_kept(out: Path, part: dict, name: str, paths: Sequence[Path]) -> bool:
    """Whether a part of an earlier run holds what this run would write from `paths`."""
    return (part["name"] == name and not part["errors"] and part.get("source_sha256") == source_sha256(paths)
            and is_whole(out, part))


def known_parts(out: Path, request: dict) -> dict[int, dict]:
    """start → part of an earlier run of the same request. ValueError if `out` holds something else."""
    path = out / "manifest.json"
    if not path.is_file():
        others = [p.name for p in out.iterdir() if not p.name.startswith((".", "shard-", "part-", "clips"))
                  ] if out.is_dir() else []
        if others:
            raise Refused(f"{out}: the folder holds {others[0]} and no manifest.json; name another folder")
        return {}
    held = read_manifest(out)
    if held.get("request") != request:
        keys = [key for key in request if held.get("request", {}).get(key) != request[key]]
        raise Refused(f"{out}: holds a pack of another request ({', '.join(keys)} differ); name another folder")
    return {part["start"]: part for part in held["parts"]}


def remove_leftovers(out: Path) -> None:
    """Remove what a killed run was writing."""
    for path in (*out.glob(".*.part"), *out.glob(".*.tmp"), *out.glob("clips/**/.*.tmp")):
        path.unlink()


def write_json(path: Path, value: Any) -> None:
    """JSON that appears whole or not at all."""
    write_atomically(path, json.dumps(value, indent=None if "index" in path.name else 1) + "\n")
