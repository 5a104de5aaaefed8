"""name → network     what stands beside ours: the textbook and transformers, where they are at hand.

The textbook lies in the repository (`ci/benchmarks/textbook.py`) and is for benchmarks alone; an installed library has
none and says so. `transformers` is an optional extra. Both get what ours gets: the same inputs, autocast, AdamW.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.files import PACKAGE
from s4d_lib.models.sizes import Size, resolve_size

TEXTBOOK = PACKAGE.parent / "ci/benchmarks/textbook.py"


def available() -> dict[str, str]:
    """Baseline → its version, or why it is not at hand."""
    return {"textbook": "ci/benchmarks/textbook.py" if TEXTBOOK.exists() else
            "missing: an installed library has none; run from a clone of the repository",
            "transformers": version("transformers") if importlib.util.find_spec("transformers") else
            "missing: pip install 's4d-book[transformers]'"}


def at_hand(name: str) -> bool:
    return not available()[name].startswith("missing")


@cache
def load_script(path: Path) -> ModuleType:
    """A benchmark of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"s4d_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def textbook_twin(ours: nn.Module) -> nn.Module:
    """The textbook's network with the weights of an autoencoder, a classifier or a MoAE layer of ours: the same
    tensors, so that none is held twice once ours is gone."""
    from s4d_lib.models.autoencoder import DualModalMAE
    from s4d_lib.models.classifier import S4DClassifier

    book = load_script(TEXTBOOK)
    if isinstance(ours, DualModalMAE):
        twin = book.TextbookMAE(asdict(ours.size), ours.target_epsilon)
    elif isinstance(ours, S4DClassifier):
        c = ours.config
        twin = book.TextbookClassifier(c["size"], c["classes"], tuple(c["moae_blocks"]), c["experts"], c["top_k"],
                                       c["capacity_factor"])
    else:
        dim = ours.experts[0].fc1.in_features
        twin = book.Experts(dim, len(ours.experts), ours.router.top_k, ours.capacity_factor)
    state = {name: value.detach().clone() for name, value in ours.state_dict().items()}
    twin.load_state_dict(state, assign=True)
    return twin.train(ours.training).to(next(ours.parameters()).device)


class HuggingFace(nn.Module):
    """VideoMAE of transformers in one of our sizes, for clips: what it reads and answers in our order of axes."""

    def __init__(self, size: str | Size, classes: int | None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEForVideoClassification

        s = resolve_size(size)
        config = VideoMAEConfig(
            image_size=s.height, patch_size=s.patch, num_frames=s.frames, tubelet_size=s.tubelet, hidden_size=s.dim,
            num_hidden_layers=s.depth, num_attention_heads=s.heads, intermediate_size=int(s.dim * s.mlp_ratio),
            decoder_hidden_size=s.decoder_dim, decoder_num_hidden_layers=s.decoder_depth,
            decoder_num_attention_heads=s.decoder_heads, decoder_intermediate_size=int(s.decoder_dim * s.mlp_ratio),
            num_labels=classes or 2, attn_implementation="sdpa")
        self.network = VideoMAEForVideoClassification(config) if classes else VideoMAEForPreTraining(config)
        self.dtype = dtype
        if dtype is not None:
            self.network.to(dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = x.transpose(1, 2)
        x = x if self.dtype is None else x.to(self.dtype)
        if mask is None:
            return self.network(x).logits
        return self.network(x, bool_masked_pos=mask).loss


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """What a baseline's training minimises: cross-entropy with class probabilities."""
    return F.cross_entropy(logits.float(), target)
