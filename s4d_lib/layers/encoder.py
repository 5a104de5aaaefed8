"""visible → latents     the shared ViT (timm blocks).

In pretraining the encoder sees visible tokens only: with 95 % of a clip hidden it runs on 40 tokens, not 800.
The same class is the trunk of the classifier, which sees all of them. Derived in chapter 05.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial

import torch
from timm.models.beit import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.layers.masking import visible_index
from s4d_lib.layers.tokens import TubeletEmbed

layer_norm = partial(nn.LayerNorm, eps=1e-6)  # the released models' epsilon, a tenth of PyTorch's default


class TransformerBlock(Block):
    """Pre-norm block `[b n d]` → `[b n d]`: timm's BEiT block, whose keys equal the released ones.

    Attention is global over space and time. Queries and values have a bias and keys have none, because one
    vector added to all keys shifts every score of a query equally and cancels in the softmax.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__(dim, heads, qkv_bias=True, mlp_ratio=mlp_ratio, norm_layer=layer_norm)


class MoAEBlock(TransformerBlock):
    """The same block with experts beside its dense network: out = y + FFN(z) + MoAE(z), z = LN₂(y).

    Both branches read the same normalised tokens and share one residual (arXiv 2409.06154; released
    `finetune/s4d/videomae.py:327-372`).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, moae: MixtureOfAdapterExperts) -> None:
        super().__init__(dim, heads, mlp_ratio)
        self.moe_layer = moae

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.attn(self.norm1(x))
        z = self.norm2(y)
        return y + self.mlp(z) + self.moe_layer(z)


class Encoder(nn.Module):
    """Tubelet embedding, fixed positions `[n d]`, transformer blocks and a last norm."""

    def __init__(self, patch_embed: TubeletEmbed, positions: Tensor, blocks: Iterable[nn.Module],
                 norm: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed
        # Positions are a formula and no parameter: they stay out of the state dict, as in the released files.
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.grad_checkpointing = False

    def encode(self, x: Tensor, mask: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """Clips `[b 3 t h w]` or images `[b 3 h w]`, mask bool `[b n]`, True = hidden → latents `[b v d]`.

        Visible tokens keep their order and their own positions. Without a mask v = n. `visible`, int64 `[b v]`, names
        the visible tokens in place of a mask: to count them on an accelerator is to wait for it.
        """
        if mask is not None:
            count = self.patch_embed.count(x)
            if mask.shape != (len(x), count):
                raise ValueError(f"this input has [b n] = {[len(x), count]} tokens, but the mask is "
                                 f"{list(mask.shape)}; make it with this input's token grid")
            visible = visible_index(mask)
        tokens = self.patch_embed(x, visible)
        # An image is time slot 0.
        tokens = tokens + (self.positions[: tokens.shape[1]] if visible is None else self.positions[visible])
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = _recomputed(block, tokens) if recompute else block(tokens)
        return self.norm(tokens)

    def forward(self, x: Tensor, mask: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        return self.encode(x, mask, visible)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations: less memory, more time.

        Outputs and gradients stay the same, the routers' noise included.
        """
        self.grad_checkpointing = enable


def _recomputed(block: nn.Module, tokens: Tensor) -> Tensor:
    """The block's output, its activations computed again whenever a gradient needs them."""
    # preserve_rng_state (the default) draws the same router noise again, so the same experts are chosen.
    return checkpoint(block, tokens, use_reentrant=False, context_fn=lambda: (nullcontext(), _KeepRecords(block)))


class _KeepRecords:
    """What the experts of a block recorded in the forward pass outlives a recomputation.

    A recomputed balance loss would have the same value, but its graph ends at the block's input and would hold
    every activation that recomputing was meant to spare. Entered once per backward pass, so no generator.
    """

    def __init__(self, block: nn.Module) -> None:
        self.experts = [part for part in block.modules() if isinstance(part, MixtureOfAdapterExperts)]

    def __enter__(self) -> None:
        self.records = [(part.routing, part.balance_loss) for part in self.experts]

    def __exit__(self, *failure: object) -> None:
        for part, record in zip(self.experts, self.records, strict=True):
            part.routing, part.balance_loss = record
        del self.records
