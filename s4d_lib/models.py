"""parts → model     DualModalMAE, its encoder and S4DClassifier in named sizes.

Both read images `[b 3 h w]` and clips `[b 3 t h w]` through one encoder. State-dict keys and shapes equal
those of the released S4D checkpoints, so weights load by name. The classifier has the manners of a timm model
(`forward_features`, `forward_head`, `reset_classifier` ...); `registry.py` gives it names there. Derived in chapters
06 and 09.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s4d_lib.adapters import MixtureOfAdapterExperts, Routing
from s4d_lib.decoder import RELEASED_EPSILON, Decoder, normalised_target, paste_prediction, place_mask_tokens
from s4d_lib.encoder import Encoder, MoAEBlock, TransformerBlock, layer_norm
from s4d_lib.errors import Refused
from s4d_lib.heads import POOLS, TASK_OF_RANK, TaskHeads, pool_latents, task_of
from s4d_lib.hub import HubModel
from s4d_lib.losses import masked_mse
from s4d_lib.ranks import RowDropout
from s4d_lib.tokens import POSITIONS, Grid, TubeletEmbed, height_width, position_table


@dataclass(frozen=True)
class Size:
    """Every number that shapes the models. Lengths in pixels, frames or channels.

    Positions are computed for the grid that these numbers make, so any picture size, frame count, patch or tubelet
    is a model of its own, and weights pass between models that differ in picture size and frame count only.
    """

    image_size: int | tuple[int, int]  # side of the input, or its (height, width); a square is kept as its side
    frames: int              # frames of a clip
    patch: int               # height and width of a tubelet
    tubelet: int             # frames of a tubelet
    dim: int                 # encoder width d
    depth: int               # encoder blocks
    heads: int               # attention heads
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    mlp_ratio: float = 4.0   # width of the dense network over d
    positions: str = "flat"  # "flat" (the paper) or "separable"

    def __post_init__(self) -> None:
        height, width = height_width(self.image_size)
        # One spelling of each size, or equal models would have unequal descriptions after a trip through JSON.
        object.__setattr__(self, "image_size", height if height == width else (height, width))
        for whole, part in (("image_size", "patch"), ("frames", "tubelet"), ("dim", "heads"),
                            ("decoder_dim", "decoder_heads")):
            a, b = getattr(self, whole), getattr(self, part)
            if any(side % b for side in (a if isinstance(a, tuple) else (a,))):
                raise Refused(f"{whole} must be a multiple of {part}, got {a} and {b}")
        if self.positions not in POSITIONS:
            raise Refused(f"positions must be one of {POSITIONS}, got {self.positions!r}")

    @property
    def height(self) -> int:
        return height_width(self.image_size)[0]

    @property
    def width(self) -> int:
        return height_width(self.image_size)[1]

    @property
    def grid(self) -> Grid:
        """Tokens of a clip along time, height and width."""
        return self.frames // self.tubelet, self.height // self.patch, self.width // self.patch

    @property
    def image_grid(self) -> Grid:
        """Tokens of an image: one time slot."""
        return 1, *self.grid[1:]

    @property
    def pixels(self) -> int:
        """Numbers in one tubelet: what the decoder predicts for each token."""
        return 3 * self.tubelet * self.patch**2


# small, base and large are the released 160-pixel models (`finetune/s4d/videomae.py:740-763`,
# `pretrain/omnivision/models/videomae_pretraining.py:460-582`); tiny and nano are ours,
# for a CPU: tiny is what the book ships, nano what the transfer laboratory trains hundreds of times,
# in two more widths where width is the question.
_PAPER = {"image_size": 160, "frames": 16, "patch": 16, "tubelet": 2, "decoder_depth": 4}
SIZES = {
    "tiny": Size(image_size=48, frames=8, patch=8, tubelet=2, dim=128, depth=4, heads=4,
                 decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=64, depth=4, heads=4,
                 decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano_narrow": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=32, depth=4, heads=4,
                        decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "nano_wide": Size(image_size=48, frames=8, patch=12, tubelet=2, dim=128, depth=4, heads=4,
                      decoder_dim=64, decoder_depth=2, decoder_heads=2, positions="separable"),
    "small": Size(dim=384, depth=12, heads=6, decoder_dim=192, decoder_heads=3, **_PAPER),
    "base": Size(dim=768, depth=12, heads=12, decoder_dim=384, decoder_heads=6, **_PAPER),
    "large": Size(dim=1024, depth=24, heads=16, decoder_dim=512, decoder_heads=8, **_PAPER),
}


def resolve_size(size: str | Size | Mapping[str, Any]) -> Size:
    """A Size, the name of one in SIZES, or its fields as they stand in a checkpoint."""
    if isinstance(size, Size):
        return size
    if isinstance(size, Mapping):
        return Size(**size)
    if size not in SIZES:
        raise Refused(f"size must be one of {', '.join(SIZES)} or a Size, got {size!r}")
    return SIZES[size]


class MAEOutput(NamedTuple):
    prediction: Tensor  # [b n p] normalised pixels of all tokens
    loss: Tensor        # scalar, over hidden tokens


class DualModalEncoder(Encoder, HubModel):
    """The pretrained half of a DualModalMAE by itself: images and clips → normalised latents `[b n d]`.

    Its keys are those of `DualModalMAE.encoder`. Encoders that others published (MAE, OmniMAE) become one of these.
    """

    def __init__(self, size: str | Size | Mapping[str, Any]) -> None:
        s = resolve_size(size)
        super().__init__(*_stem(s), _plain_blocks(s), layer_norm(s.dim))
        self.size = s
        self.config: dict[str, Any] = {"size": asdict(s)}
        self.apply(_xavier)


class DualModalMAE(nn.Module, HubModel):
    """Masked autoencoder of images and clips (arXiv 2409.06154): hide most tubelets, predict their pixels.

    One encoder, one decoder and one mask token serve both modalities; a batch holds one of them.
    `target_epsilon` is explained in `decoder.normalised_target`.
    """

    def __init__(self, size: str | Size | Mapping[str, Any], target_epsilon: float = RELEASED_EPSILON) -> None:
        super().__init__()
        self.size = s = resolve_size(size)
        self.target_epsilon = target_epsilon
        self.config: dict[str, Any] = {"size": asdict(s), "target_epsilon": target_epsilon}
        blocks = _plain_blocks(s)
        positions = position_table(s.grid, s.decoder_dim, s.positions)
        # Not a DualModalEncoder: that one draws its weights at once, and the seeds of recorded runs would then
        # give other weights than they did.
        self.encoder = Encoder(*_stem(s), blocks, layer_norm(s.dim))
        self.decoder = Decoder(positions, s.decoder_depth, s.decoder_heads, s.mlp_ratio, s.pixels)
        for part in (self.encoder, self.decoder):
            part.apply(_xavier)
        # The released initialisation stops here: the bridge keeps PyTorch's default.
        self.encoder_to_decoder = nn.Linear(s.dim, s.decoder_dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, s.decoder_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> MAEOutput:
        """Images `[b 3 h w]` or clips `[b 3 t h w]`, ImageNet-normalised; mask bool `[b n]`, True = hidden.

        The mask must hide the same number of tokens in every sample, as the functions of `masking.py` do.
        """
        visible = self.encoder_to_decoder(self.encoder(x, mask))
        prediction = self.decoder(place_mask_tokens(visible, self.mask_token, mask))
        return MAEOutput(prediction, masked_mse(prediction, self.patches(x), mask))

    def patches(self, x: Tensor) -> Tensor:
        """The target of every token: pixels normalised per tubelet and channel, `[b n p]`."""
        return normalised_target(x, self.size.patch, self.size.tubelet, self.target_epsilon)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Hidden tubelets as predicted, visible ones as they are: pixels in [0, 1], `[b 3 t h w]`.

        An image comes back as a clip of one tubelet. What the picture flatters: `decoder.paste_prediction`.
        """
        s, prediction = self.size, self(x, mask).prediction
        return paste_prediction(x, prediction, mask, s.patch, s.tubelet, self.target_epsilon)

    def no_weight_decay(self) -> set[str]:
        """Matrices without weight decay: none, the released recipe decays the mask token too."""
        return set()


class S4DClassifier(Encoder, HubModel):
    """Image and video expression classifier: the pretrained encoder, optional MoAE blocks, one head per task.

    `moae_blocks` lists the blocks with experts, counted from 0, or is "last_half" (the paper: 6–11 of 12).
    With none this is the plain joint-training baseline. `classes` maps "image" and "video" to class counts; with
    none, `{}`, the model returns features. `adapters.py` explains `behaviour` and `router`, `heads.py` `pool`.
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
        super().__init__(*_stem(s), blocks, norm=nn.Identity())  # the norm comes after pooling
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

        Without `task` the number of tokens decides (`heads.task_of`). With `pre_logits`, or without heads, what
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

        `global_pool` is a name of `heads.POOLS`, or timm's "avg" for "mean".
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


def _stem(size: Size) -> tuple[TubeletEmbed, Tensor]:
    embed = TubeletEmbed(size.image_size, size.frames, size.patch, size.tubelet, size.dim)
    return embed, position_table(size.grid, size.dim, size.positions)


def _plain_blocks(size: Size) -> list[TransformerBlock]:
    return [TransformerBlock(size.dim, size.heads, size.mlp_ratio) for _ in range(size.depth)]


def _check_pool(pool: str) -> None:
    if pool not in POOLS:
        raise Refused(f"pool must be one of {POOLS}, got {pool!r}")


def _moae_blocks(blocks: Sequence[int] | str, depth: int) -> tuple[int, ...]:
    if blocks == "last_half":
        return tuple(range(depth // 2, depth))
    if isinstance(blocks, str) or not all(isinstance(i, int) and 0 <= i < depth for i in blocks):
        raise Refused(f"moae_blocks is 'last_half' or block numbers from 0 to {depth - 1}, got {blocks!r}")
    return tuple(sorted(set(blocks)))


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _truncated_normal(module: nn.Module) -> None:
    # Also overwrites every initialisation a part made for itself, as in the released model
    # (`finetune/s4d/videomae.py:606`): experts and routers start as small random maps, not at zero.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
