"""What a folder or a model holds, as dictionaries that tests compare."""

from pathlib import Path

import torch


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file under a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shapes(model: torch.nn.Module) -> dict[str, list[int]]:
    """The shape of every tensor of a model, by its key."""
    return {key: list(value.shape) for key, value in model.state_dict().items()}
