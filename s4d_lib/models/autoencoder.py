"""clip → reconstruction     DualModalMAE and its encoder: what masked pretraining trains.

Both read images `[b 3 h w]` and clips `[b 3 t h w]` through one encoder. State-dict keys and shapes equal those of the
released S4D checkpoints, so weights load by name. Derived in chapter 06.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.layers.decoder import RELEASED_EPSILON, Decoder, normalised_target, paste_prediction, place_mask_tokens
from s4d_lib.layers.encoder import Encoder, layer_norm
from s4d_lib.layers.losses import masked_mse
from s4d_lib.layers.tokens import position_table
from s4d_lib.models.sizes import Size, plain_blocks, resolve_size, stem
from s4d_lib.weights.hub import HubModel


class MAEOutput(NamedTuple):
    prediction: Tensor  # [b n p] normalised pixels of all tokens
    loss: Tensor        # scalar, over hidden tokens


class DualModalEncoder(Encoder, HubModel):
    """The pretrained half of a DualModalMAE by itself: images and clips → normalised latents `[b n d]`.

    Its keys are those of `DualModalMAE.encoder`. Encoders that others published (MAE, OmniMAE) become one of these.
    """

    def __init__(self, size: str | Size | Mapping[str, Any]) -> None:
        s = resolve_size(size)
        super().__init__(*stem(s), plain_blocks(s), layer_norm(s.dim))
        self.size = s
        self.config: dict[str, Any] = {"size": asdict(s)}
        self.apply(_xavier)


class DualModalMAE(nn.Module, HubModel):
    """Masked autoencoder of images and clips (arXiv 2409.06154): hide most tubelets, predict their pixels.

    One encoder, one decoder and one mask token serve both modalities; a batch holds one of them.
    `target_epsilon` is explained in `layers.normalised_target`.
    """

    def __init__(self, size: str | Size | Mapping[str, Any], target_epsilon: float = RELEASED_EPSILON) -> None:
        super().__init__()
        self.size = s = resolve_size(size)
        self.target_epsilon = target_epsilon
        self.config: dict[str, Any] = {"size": asdict(s), "target_epsilon": target_epsilon}
        blocks = plain_blocks(s)
        positions = position_table(s.grid, s.decoder_dim, s.positions)
        # Not a DualModalEncoder: that one draws its weights at once, and the seeds of recorded runs would then
        # give other weights than they did.
        self.encoder = Encoder(*stem(s), blocks, layer_norm(s.dim))
        self.decoder = Decoder(positions, s.decoder_depth, s.decoder_heads, s.mlp_ratio, s.pixels)
        for part in (self.encoder, self.decoder):
            part.apply(_xavier)
        # The released initialisation stops here: the bridge keeps PyTorch's default.
        self.encoder_to_decoder = nn.Linear(s.dim, s.decoder_dim, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, s.decoder_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)

    def forward(self, x: Tensor, mask: Tensor) -> MAEOutput:
        """Images `[b 3 h w]` or clips `[b 3 t h w]`, ImageNet-normalised; mask bool `[b n]`, True = hidden.

        The mask must hide the same number of tokens in every sample, as the functions of `layers/masking.py` do.
        """
        visible = self.encoder_to_decoder(self.encoder(x, mask))
        prediction = self.decoder(place_mask_tokens(visible, self.mask_token, mask))
        return MAEOutput(prediction, masked_mse(prediction, self.patches(x), mask))

    def loss(self, x: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """The loss of `forward` for training: the tokens `hidden`, int64 `[b h]`, painted from `visible`, `[b v]`.

        Both come from `layers.split_index`. Visible tokens are not painted; they come first in the decoder and hidden
        ones after them, since its blocks do not mind the order of tokens that carry their positions. `hidden` may leave
        some of the hidden tokens out, which the decoder then neither sees nor paints: less time, a noisier loss (the
        idea is VideoMAE V2's, arXiv 2303.16727).
        """
        latents = self.encoder_to_decoder(self.encoder(x, visible=visible))
        tokens = torch.cat([latents, self.mask_token.to(latents.dtype).expand(*hidden.shape, -1)], dim=1)
        prediction = self.decoder(tokens, torch.cat([visible, hidden], dim=1), hidden.shape[1])
        target = normalised_target(x, self.size.patch, self.size.tubelet, self.target_epsilon, hidden)
        return F.mse_loss(prediction.float(), target)

    def patches(self, x: Tensor) -> Tensor:
        """The target of every token: pixels normalised per tubelet and channel, `[b n p]`."""
        return normalised_target(x, self.size.patch, self.size.tubelet, self.target_epsilon)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, mask: Tensor) -> Tensor:
        """Hidden tubelets as predicted, visible ones as they are: pixels in [0, 1], `[b 3 t h w]`.

        An image comes back as a clip of one tubelet. What the picture flatters: `layers.paste_prediction`.
        """
        s, prediction = self.size, self(x, mask).prediction
        return paste_prediction(x, prediction, mask, s.patch, s.tubelet, self.target_epsilon)

    def no_weight_decay(self) -> set[str]:
        """Matrices without weight decay: none, the released recipe decays the mask token too."""
        return set()


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
