"""file → contents     what a checkpoint holds: tensors and what stands beside them; and the refusal of a file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from s4d_lib.errors import Refused


class BadCheckpoint(Refused):
    """A file that cannot be used as a checkpoint; the message names the file, what it is, and what to do."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class Contents:
    """What a checkpoint file, or a folder of its parts, holds beside its bytes."""

    path: Path
    tensors: dict[str, Tensor]                       # by the key of the file
    header: dict[str, str] = field(default_factory=dict)    # text metadata of a safetensors file
    container: tuple[str, ...] = ()                  # dictionary keys that led to the tensors
    settings: dict[str, Any] = field(default_factory=dict)  # numbers and words of `args`, if the file has one
    skipped: dict[str, str] = field(default_factory=dict)   # what is beside the tensors → what it is
    config: dict[str, Any] = field(default_factory=dict)    # `config.json` beside the file, where there is one
    files: tuple[Path, ...] = ()                     # what the tensors were read from, in order
