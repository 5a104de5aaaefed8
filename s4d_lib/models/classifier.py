"""image or clip → logits     S4DClassifier: one encoder, with or without experts, and a head for each task.

It reads images `[b 3 h w]` and clips `[b 3 t h w]`. State-dict keys and shapes equal those of the released S4D
checkpoints, so weights load by name. It has the manners of a timm model (`forward_features`, `forward_head`,
`reset_classifier` ...); `registry.py` gives it names there. Derived in chapters 06 and 09.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from s4d_lib.distributed import RowDropout
from s4d_lib.errors import Refused
from s4d_lib.layers.adapters import MixtureOfAdapterExperts, Routing
from s4d_lib.layers.encoder import Encoder, MoAEBlock, TransformerBlock, layer_norm
from s4d_lib.layers.heads import POOLS, TASK_OF_RANK, TaskHeads, pool_latents, task_of
from s4d_lib.models.sizes import Size, resolve_size, stem
from s4d_lib.weights.hub import HubModel


class S4DClassifier(Encoder, HubModel):
    """Image and video expression classifier: the pretrained encoder, optional MoAE blocks, one head per task.

    `moae_blocks` lists the blocks with experts, counted from 0, or is "last_half" (the paper: 6–11 of 12). With none
    this is the plain joint-training baseline. `classes` maps "image" and "video" to class counts; with none, `{}`, the
    model returns features. `layers/adapters.py` explains `behaviour` and `router`, `layers/heads.py` `pool`.
    """

    def __init__(self, size: str | Size | Mapping[str, Any], classes: dict[str, int] | None = None,
                 moae_blocks: Sequence[int] | str = (), experts: int = 8, top_k: int = 2,
                 capacity_factor: float = 1.0, behaviour: str = "clean", pool: str = "mean",
                 dropout: float = 0.0, router: str = "learned") -> None:
        s = resolve_size(size)
        classes = {"image": 7, "video": 7} if classes is None else dict(classes)
        _check_pool(pool)
        moae = _moae_blocks(moae_blocks, s.depth)
        blocks = [
            MoAEBlock(s.dim, s.heads, s.mlp_ratio,
                      MixtureOfAdapterExperts(s.dim, experts, top_k, capacity_factor, behaviour, router,
                                              s.grid[1] * s.grid[2]))
            if i in moae else TransformerBlock(s.dim, s.heads, s.mlp_ratio)
            for i in range(s.depth)
        ]
        super().__init__(*stem(s), blocks, norm=nn.Identity())  # the norm comes after pooling
        self.size, self.places, self.num_features = s, s.grid[1] * s.grid[2], s.dim
        self.config: dict[str, Any] = {
            "size": asdict(s), "classes": classes, "moae_blocks": list(moae), "experts": experts,
            "top_k": top_k, "capacity_factor": capacity_factor, "behaviour": behaviour, "pool": pool,
            "dropout": dropout,
        }
        if router != "learned":  # a control of chapter 09; files of the method itself stay as they were
            self.config["router"] = router
        self.fc_norm = layer_norm(s.dim)
        self.dropout = RowDropout(dropout)
        self.head = TaskHeads(self.head_hidden_size, classes)
        self.apply(_truncated_normal)
        self._shrink_heads()

    def forward(self, x: Tensor) -> Tensor:
        """Images `[b 3 h w]` → logits of the image head; clips `[b 3 t h w]` → logits of the video head."""
        return self.forward_head(self.forward_features(x), task=TASK_OF_RANK[x.ndim])

    def forward_features(self, x: Tensor) -> Tensor:
        """Images or clips → the latents of all tokens, `[b n d]`: unpooled, before the norm."""
        return self.encode(x)

    def forward_head(self, latents: Tensor, pre_logits: bool = False, task: str | None = None) -> Tensor:
        """Latents `[b n d]` → logits `[b classes]` of the head for `task`, "image" or "video".

        Without `task` the number of tokens decides (`layers.heads.task_of`). With `pre_logits`, or without heads, what
        comes out is what a head reads: the features after dropout.
        """
        features = self.dropout(self._pool(latents))
        if pre_logits or not self.head:
            return features
        return self.head(features, task or task_of(latents.shape[1], self.places, self.size.grid[0], list(self.head)))

    def features(self, x: Tensor) -> Tensor:
        """What the heads read, before dropout: `[b d]` with pool="mean", `[b (h w d)]` with pool="positions"."""
        return self._pool(self.encode(x))

    @property
    def pool(self) -> str:
        return self.config["pool"]

    @property
    def head_hidden_size(self) -> int:
        """Length of the vector that the heads read."""
        return self.num_features * (self.places if self.pool == "positions" else 1)

    @property
    def num_classes(self) -> int | dict[str, int]:
        """Classes of each head: one number if they agree, 0 without heads, else the classes of each task."""
        counts = set(self.config["classes"].values()) or {0}
        return counts.pop() if len(counts) == 1 else dict(self.config["classes"])

    def get_classifier(self) -> TaskHeads:
        return self.head

    def reset_classifier(self, num_classes: int | dict[str, int], global_pool: str | None = None) -> None:
        """Fresh heads. A number goes to every task it has, or to both if it has none; 0 leaves no head.

        `global_pool` is a name of `layers.heads.POOLS`, or timm's "avg" for "mean".
        """
        pool = self.pool if global_pool is None else {"avg": "mean"}.get(global_pool, global_pool)
        _check_pool(pool)
        if isinstance(num_classes, int):
            tasks = self.config["classes"] or TASK_OF_RANK.values()
            num_classes = dict.fromkeys(tasks, num_classes) if num_classes else {}
        features = self.num_features * (self.places if pool == "positions" else 1)
        heads = TaskHeads(features, num_classes).to(self.fc_norm.weight.device, self.fc_norm.weight.dtype)
        self.head = heads.apply(_truncated_normal)
        self.config.update(classes=dict(num_classes), pool=pool)
        self._shrink_heads()

    def balance_loss(self) -> Tensor:
        """Sum of the routers' balance losses in the last forward pass; 0 without experts."""
        losses = [moae.balance_loss for moae in self._moae()]
        return torch.stack(losses).sum() if losses else self.positions.new_zeros(())

    def routing(self) -> list[Routing]:
        """Gates, chosen experts and dropped pairs of the last forward pass, one entry per MoAE block."""
        return [moae.routing for moae in self._moae()]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for timm's layer decay: embedding 0, block i with its experts i + 1, norm and heads last."""
        return {"stem": r"^patch_embed", "blocks": [(r"^blocks\.(\d+)", None)]}

    def no_weight_decay(self) -> set[str]:
        """Matrices without weight decay: none. Biases and norms are vectors, which timm exempts by itself."""
        return set()

    def _pool(self, latents: Tensor) -> Tensor:
        return pool_latents(latents, self.fc_norm, self.places, self.pool)

    def _shrink_heads(self) -> None:
        if self.pool == "positions":
            # The sum runs over h·w times as many terms; this keeps the first logits as small as the paper's.
            for head in self.head.values():
                nn.init.trunc_normal_(head.weight, std=0.02 / self.places**0.5)

    def _moae(self) -> list[MixtureOfAdapterExperts]:
        experts = [block.moe_layer for block in self.blocks if isinstance(block, MoAEBlock)]
        if any(moae.routing is None for moae in experts):
            raise RuntimeError("routing and balance_loss describe the last forward pass; run the model first")
        return experts


def _check_pool(pool: str) -> None:
    if pool not in POOLS:
        raise Refused(f"pool must be one of {POOLS}, got {pool!r}")


def _moae_blocks(blocks: Sequence[int] | str, depth: int) -> tuple[int, ...]:
    if blocks == "last_half":
        return tuple(range(depth // 2, depth))
    if isinstance(blocks, str) or not all(isinstance(i, int) and 0 <= i < depth for i in blocks):
        raise Refused(f"moae_blocks is 'last_half' or block numbers from 0 to {depth - 1}, got {blocks!r}")
    return tuple(sorted(set(blocks)))


def _truncated_normal(module: nn.Module) -> None:
    # Also overwrites every initialisation a part made for itself, as in the released model
    # (`finetune/s4d/videomae.py:606`): experts and routers start as small random maps, not at zero.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
