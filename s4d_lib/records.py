"""run ↔ record     a few kB of JSON: what was run, on which data, under which protocol, and what came out.

Figures, tables and prose of the book read records and nothing else. A record holds no machine path and no picture.
`chapters/results/` keeps the committed ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from s4d_lib.errors import Refused
from s4d_lib.files import PACKAGE, RESULTS, write_atomically


class DataUse(BaseModel):
    """One data set a run has read, named by its content and not by where it lay.

    Of faces drawn by this library `drawn` says from what: two machines may round a pixel differently, and then differ
    in `sha256` although they drew the same. What was recorded before the mark saw the data has neither `lists` nor it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    sha256: str | None = Field(None, description="of every frame")
    lists: str | None = Field(None, description="sha256 of what the lists say: ids, labels, groups, splits")
    drawn: dict[str, Any] | None = Field(None, description="recipe, seed and renderer of drawn faces")
    counts: dict[str, int] = Field(default_factory=dict)
    skipped: list[str] = Field(default_factory=list)


class Finished(BaseModel):
    """What makes a record that of a finished run: its mark, and checksums of all that the run left."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mark: str
    files: dict[str, str] = Field(description="name of a file of the run → its sha256")
    record: str = Field(description="checksum of the record without this part")


class Record(BaseModel):
    """One run, or one study over several runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[1] = 1
    name: str
    kind: Literal["pretrain", "finetune", "study", "chapter", "benchmark"]
    headline: str = Field(description="one sentence with the main numbers, shown in tables of runs")
    tier: Literal["smoke", "laptop", "full"] | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    data: list[DataUse] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    results: dict[str, Any] = Field(default_factory=dict)
    code: dict[str, Any] = Field(default_factory=dict)
    device: dict[str, Any] = Field(default_factory=dict)
    wall_seconds: float = Field(ge=0)
    peak_memory_mb: float = Field(ge=0)
    run: Finished | None = Field(None, description="of a run; a study or a chapter has none")

    def checksum(self) -> str:
        """Of everything but `run`; the same before a record was written and after it was read."""
        return fingerprint(json.loads(json.dumps(self.model_dump(exclude={"run"}), allow_nan=False)))


class InvalidRecord(Refused):
    """A record file that is not a record; the message names the file, the field and the remedy."""


def write_record(path: Path | str, record: Record) -> Path:
    """Write atomically: a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = record.model_dump(exclude={"run"} if record.run is None else None)
    return write_atomically(path, json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: Path | str) -> Record:
    """Read and validate; raises `InvalidRecord` with the file and the first thing wrong in it."""
    path = Path(path)
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidRecord(f"{path}: there is no such record; run the experiment that writes it") from None
    except OSError as error:
        raise InvalidRecord(f"{path}: cannot be read ({error.strerror or error}); run it again") from error
    except ValueError as error:
        first = str(error).split("\n")
        raise InvalidRecord(f"{path}: not a valid record ({' '.join(first[1:3]) or first[0]}); run it again") from error


def results(name: str) -> Record:
    """A record committed with the book: `results("shipped_encoder")` reads chapters/results/shipped_encoder.json."""
    return read_record(RESULTS / f"{name}.json")


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that change whenever the JSON form of `value` changes."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code_state() -> dict[str, Any]:
    """Versions of what a result depends on, the commit, and whether the tree differed from it."""
    packages = {}
    for package in ("torch", "torchvision", "timm", "accelerate", "numpy", "decord", "av", "scikit-learn"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    return {"commit": _git("rev-parse", "HEAD"), "modified": bool(_git("status", "--porcelain", "--", ".")),
            "python": platform.python_version(), "packages": packages}


def device_state(device: str = "cpu") -> dict[str, Any]:
    """The machine in words that matter for time and numerics."""
    import torch

    state = {"type": device, "threads": torch.get_num_threads(), "machine": platform.machine()}
    if device.startswith("cuda"):
        state |= {"name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()}
    return state


def peak_memory_mb(device: str = "cpu") -> float:
    """Largest memory so far: of the process on a CPU, of the allocator on a GPU, in MB of 10⁶ bytes."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def chapter_record(name: str, headline: str, outcome: dict[str, Any], *, tier: str, wall_seconds: float) -> Record:
    """The record a chapter ends in. The batch runner asks for it through S4D_CHAPTER_OUT; a reader just sees it."""
    record = Record(
        name=name, kind="chapter", tier=tier, headline=headline, results=outcome, code=code_state(),
        device=device_state(), wall_seconds=wall_seconds, peak_memory_mb=peak_memory_mb(),
    )
    folder = os.environ.get("S4D_CHAPTER_OUT")
    if folder:
        write_record(Path(folder) / "record.json", record)
    return record


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
