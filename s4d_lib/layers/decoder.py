"""latents → pixels     mask tokens, light decoder, normalised-pixel target.

The decoder gets the full sequence back: visible latents at their own places and one learned mask token at all
others. It answers with pixels, each tubelet relative to its own mean and spread. Derived in chapter 05.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from s4d_lib.clips import IMAGENET_STD, denormalise
from s4d_lib.layers.encoder import TransformerBlock, layer_norm
from s4d_lib.layers.masking import visible_index
from s4d_lib.layers.tokens import cut_tubelets, pad_image_to_tubelet

RELEASED_EPSILON = 1e-6


class Decoder(nn.Module):
    """Narrow transformer and a linear map to the p pixels of a tubelet: `[b n d]` → `[b n p]`.

    It predicts all tokens, visible ones too, as released
    (`pretrain/omnivision/models/videomae_pretraining.py:410-456`); the loss reads the hidden ones.
    """

    def __init__(self, positions: Tensor, depth: int, heads: int, mlp_ratio: float, pixels: int) -> None:
        super().__init__()
        dim = positions.shape[1]
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = layer_norm(dim)
        self.head = nn.Linear(dim, pixels)

    def forward(self, tokens: Tensor, index: Tensor | None = None, answers: int | None = None) -> Tensor:
        """With `index`, int64 `[b n]`, token i stands at place index[i]; else they stand in order.

        With `answers`, only the last so many tokens are painted: `[b answers p]`.
        """
        tokens = tokens + (self.positions[: tokens.shape[1]] if index is None else self.positions[index])
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens if answers is None else tokens[:, -answers:]))


def place_mask_tokens(visible: Tensor, mask_token: Tensor, mask: Tensor) -> Tensor:
    """Visible latents `[b v d]` in their own places, the mask token `[1 1 d]` in all others: `[b n d]`."""
    index = repeat(visible_index(mask), "b v -> b v d", d=visible.shape[-1])
    full = mask_token.to(visible.dtype).expand(*mask.shape, -1)
    return full.scatter(1, index, visible)


def patchify(pixels: Tensor, patch: int, tubelet: int) -> Tensor:
    """Cut clips `[b c t h w]` or images `[b c h w]` into tubelets `[b n c s]`, s = tubelet·patch².

    Tubelets are in token order; within one, s runs over frame, row, column. An image fills one with copies.
    """
    if pixels.ndim == 4:
        pixels = pad_image_to_tubelet(pixels, tubelet)
    return rearrange(pixels, "b c (t u) (h p) (w q) -> b (t h w) c (u p q)", u=tubelet, p=patch, q=patch)


def unpatchify(tubelets: Tensor, height: int, width: int, patch: int, tubelet: int) -> Tensor:
    """The way back: tubelets `[b n c s]` → clips `[b c t h w]` of height × width pixels."""
    return rearrange(tubelets, "b (t h w) c (u p q) -> b c (t u) (h p) (w q)",
                     h=height // patch, w=width // patch, u=tubelet, p=patch, q=patch)


def normalised_target(x: Tensor, patch: int, tubelet: int, epsilon: float = RELEASED_EPSILON,
                      index: Tensor | None = None) -> Tensor:
    """What the decoder must predict: ImageNet-normalised input → `[b n p]`, channel fastest, p = s·c.

    Each colour channel of each tubelet is brought to mean 0 and variance 1, so that the loss asks for
    structure and not for brightness (released `pretrain/omnivision/losses/mae_loss.py:57-136`). `epsilon` is
    added to the variance of pixels in [0, 1]: what varies far less than √epsilon, as the noise of a flat
    background does, is not blown up to full size. With `index`, int64 `[b v]`, only of these tokens: `[b v p]`.
    """
    boxes = cut_tubelets(x.float(), patch, tubelet, index).flatten(3)
    copies = tubelet if x.ndim == 4 else 1  # the frames of an image's tubelet are equal: one is looked at
    centred = boxes - boxes.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) * (copies / (copies * boxes.shape[-1] - 1))
    # A pixel in [0, 1] is σ·x + µ: its mean cancels, its variance is σ²·var(x), so ε moves to the scale of x.
    least = boxes.new_tensor([epsilon / std**2 for std in IMAGENET_STD])[:, None]
    return repeat(centred / (variance + least).sqrt(), "b n c s -> b n (u s c)", u=copies)


def paste_prediction(x: Tensor, prediction: Tensor, mask: Tensor, patch: int, tubelet: int,
                     epsilon: float = RELEASED_EPSILON) -> Tensor:
    """Picture of a reconstruction: hidden tubelets predicted, visible ones original; `[b 3 t h w]` in [0, 1].

    A prediction `[b n p]` says nothing about brightness and contrast, so each hidden tubelet borrows its true
    mean and spread: the picture flatters the model. An image comes back as a clip of `tubelet` frames.
    """
    tubelets = patchify(denormalise(x.float()), patch, tubelet)
    mean, spread = _mean_and_spread(tubelets, epsilon)
    painted = rearrange(prediction.float(), "b n (s c) -> b n c s", c=tubelets.shape[2]) * spread + mean
    tubelets = torch.where(mask[:, :, None, None], painted, tubelets)
    return unpatchify(tubelets, *x.shape[-2:], patch, tubelet).clamp(0, 1)


def _mean_and_spread(tubelets: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Mean and √(unbiased variance + ε) of each channel of each tubelet: `[b n c s]` → two `[b n c 1]`."""
    mean = tubelets.mean(dim=-1, keepdim=True)
    # Two plain reductions run three times faster on a CPU than torch.var_mean.
    variance = (tubelets - mean).square().sum(dim=-1, keepdim=True) / (tubelets.shape[-1] - 1)
    return mean, (variance + epsilon).sqrt()
