"""layers/encoder.py against attention written out, and the promise that hidden pixels cannot be seen."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.layers.encoder import Encoder, MoAEBlock, TransformerBlock, layer_norm
from s4d_lib.layers.masking import random_mask
from s4d_lib.layers.tokens import TubeletEmbed, position_table

GRID, DIM, HEADS = (4, 3, 3), 24, 2


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    blocks = [TransformerBlock(DIM, HEADS) for _ in range(3)]
    made = Encoder(TubeletEmbed(15, 8, 5, 2, DIM), position_table(GRID, DIM, "flat"), blocks, layer_norm(DIM))
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)  # or a forgotten bias would go unnoticed
    return made


def written_out_block(block: TransformerBlock, x: torch.Tensor) -> torch.Tensor:
    """The block with every sum visible (pre-norm, biases on q and v, exact GELU, eps 1e-6)."""
    def norm(layer, v):
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * layer.weight + layer.bias

    z = norm(block.norm1, x)
    w = block.attn.qkv.weight.view(3, HEADS, DIM // HEADS, DIM)
    out = []
    for h in range(HEADS):
        part = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
        q = z @ w[0, h].T + block.attn.q_bias[part]
        k = z @ w[1, h].T
        v = z @ w[2, h].T + block.attn.v_bias[part]
        score = (q * (DIM // HEADS) ** -0.5) @ k.transpose(1, 2)
        out.append(score.exp() / score.exp().sum(-1, keepdim=True) @ v)
    y = x + torch.cat(out, -1) @ block.attn.proj.weight.T + block.attn.proj.bias
    z = norm(block.norm2, y)
    hidden = z @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return y + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias


def test_the_block_is_the_papers_block(encoder):
    x = torch.randn(2, 5, DIM)
    torch.testing.assert_close(encoder.blocks[0](x), written_out_block(encoder.blocks[0], x),
                               rtol=1e-4, atol=1e-5)


def test_hidden_pixels_cannot_be_seen(encoder):
    clip, mask = torch.randn(2, 3, 8, 15, 15), random_mask(2, GRID, 0.7, torch.Generator().manual_seed(0))
    latents = encoder(clip, mask)
    assert latents.shape == (2, 11, DIM)
    hidden = mask.view(2, 1, *GRID).repeat_interleave(2, 2).repeat_interleave(5, 3).repeat_interleave(5, 4)
    torch.testing.assert_close(encoder(torch.where(hidden, 9.0, clip), mask), latents, rtol=0, atol=0)
    # Control: a visible pixel does matter.
    assert not torch.allclose(encoder(torch.where(hidden, clip, 9.0), mask), latents)


@pytest.mark.parametrize("shape, grid", [((2, 3, 8, 15, 15), GRID), ((2, 3, 15, 15), (1, 3, 3))])
def test_visible_tokens_keep_their_own_positions(encoder, shape, grid):
    x, mask = torch.randn(shape), random_mask(2, grid, 0.5, torch.Generator().manual_seed(1))
    tokens = encoder.patch_embed(x) + encoder.positions[: mask.shape[1]]
    kept = torch.stack([sample[~hidden] for sample, hidden in zip(tokens, mask, strict=True)])
    misplaced = torch.stack([sample[~hidden] for sample, hidden in
                             zip(encoder.patch_embed(x), mask, strict=True)])
    misplaced = misplaced + encoder.positions[: misplaced.shape[1]]
    for block in encoder.blocks:
        kept, misplaced = block(kept), block(misplaced)
    torch.testing.assert_close(encoder(x, mask), encoder.norm(kept))
    # Control: numbering the visible tokens 0, 1, 2 … would be another network.
    assert not torch.allclose(encoder.norm(misplaced), encoder.norm(kept), atol=1e-2)


def test_an_image_is_read_at_time_slot_zero(encoder):
    image = torch.randn(2, 3, 15, 15)
    tokens = encoder.patch_embed(image) + encoder.positions[:9]
    for block in encoder.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(encoder(image), encoder.norm(tokens))


def test_positions_are_not_saved_but_move_with_the_model(encoder):
    assert "positions" not in encoder.state_dict()
    assert encoder.to("meta").positions.device.type == "meta"


def test_a_mask_of_another_grid_is_refused(encoder):
    with pytest.raises(ValueError, match=r"\[2, 9\] tokens, but the mask is \[2, 36\]"):
        encoder(torch.randn(2, 3, 15, 15), random_mask(2, GRID, 0.5))


def test_experts_stand_beside_the_dense_network():
    torch.manual_seed(0)
    block = MoAEBlock(DIM, HEADS, 4.0, MixtureOfAdapterExperts(DIM, experts=5, top_k=2)).eval()
    x = torch.randn(3, 7, DIM)
    y = x + block.attn(block.norm1(x))
    z = F.layer_norm(y, (DIM,), block.norm2.weight, block.norm2.bias, 1e-6)
    torch.testing.assert_close(block(x), y + block.mlp(z) + block.moe_layer(z))
    # Control: experts after the dense network, with a residual of their own, are another block.
    after = y + block.mlp(z)
    assert not torch.allclose(block(x), after + block.moe_layer(block.norm2(after)), atol=1e-3)


def test_half_precision_keeps_a_float32_residual(encoder):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = encoder(torch.randn(1, 3, 8, 15, 15))
    assert latents.dtype == torch.float32 and latents.isfinite().all()
