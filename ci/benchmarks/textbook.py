"""weights of ours → the same networks, written plainly     what `s4d bench` sets beside the library.

A masked autoencoder and a classifier of pictures and clips with optional experts, as one would write them in plain
PyTorch in an afternoon: fused attention, tokens gathered before the encoder, head and loss on hidden tokens only, a
loop over experts with a mask each. Names of parameters are ours, so that our weights load and answers can be compared
number by number. Nothing of `s4d_lib` is imported, so that no change there can make this slower or faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sinusoid(index: Tensor, dim: int) -> Tensor:
    """Positions `[n]` → `[n d]`, sine in even columns and cosine in odd ones."""
    column = torch.arange(dim, dtype=torch.float64)
    angle = index.double()[:, None] / 10000 ** (2 * torch.div(column, 2, rounding_mode="floor") / dim)
    table = angle.cos()
    table[:, 0::2] = angle[:, 0::2].sin()
    return table


def positions(size: Mapping[str, Any], dim: int) -> Tensor:
    """Of the tokens of a clip, time first: `[n d]`."""
    t, s = size["frames"] // size["tubelet"], size["image_size"] // size["patch"]
    if size["positions"] == "flat":
        return sinusoid(torch.arange(t * s * s), dim).float()
    side = 2 * (dim // 6)
    axes = torch.meshgrid(torch.arange(t), torch.arange(s), torch.arange(s), indexing="ij")
    return torch.cat([sinusoid(axis.flatten(), width)
                      for axis, width in zip(axes, (dim - 2 * side, side, side))], dim=1).float()


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class MLP(nn.Module):
    """Two layers with GELU: a block's, and, narrow, an expert."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Router(nn.Module):
    def __init__(self, dim: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.topkroute_linear, self.noise_linear = nn.Linear(dim, experts), nn.Linear(dim, experts)
        self.top_k = top_k

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):  # in half precision the choice would be arbitrary
            z = z.float()
            logits = self.topkroute_linear(z)
            if self.training:
                logits = logits + torch.randn_like(logits) * F.softplus(self.noise_linear(z))
        best, chosen = logits.topk(self.top_k, dim=-1)
        return best.softmax(dim=-1), chosen, logits


class Experts(nn.Module):
    """`[b n d]` → `[b n d]`: expert after expert, each on the tokens that chose it, first come up to its capacity."""

    def __init__(self, dim: int, experts: int = 8, top_k: int = 2, capacity_factor: float = 1.0) -> None:
        super().__init__()
        self.router = Router(dim, experts, top_k)
        self.experts = nn.ModuleList(MLP(dim, dim // 4) for _ in range(experts))
        self.capacity_factor, self.balance = capacity_factor, None

    def forward(self, z: Tensor) -> Tensor:
        gates, chosen, logits = self.router(z)
        self.balance = self.load_balance(logits, chosen)
        tokens, gates, chosen = z.flatten(0, 1), gates.flatten(0, 1), chosen.flatten(0, 1)
        most = int(len(tokens) * self.router.top_k / len(self.experts) * self.capacity_factor)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            token, choice = (chosen == number).nonzero(as_tuple=True)
            if self.training:
                token, choice = token[:most], choice[:most]
            answer = gates[token, choice, None] * expert(tokens[token])
            mixed.index_add_(0, token, answer.to(mixed.dtype))
        return mixed.view_as(z)

    def load_balance(self, logits: Tensor, chosen: Tensor) -> Tensor:
        share = F.one_hot(chosen, len(self.experts)).sum(dim=2).float().mean(dim=(0, 1))
        return len(self.experts) * (share * logits.softmax(dim=-1).mean(dim=(0, 1))).sum()


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float, moe: Experts | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads), MLP(dim, int(dim * mlp_ratio))
        if moe is not None:
            self.moe_layer = moe
        self.mixes = moe is not None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        z = self.norm2(x)
        return x + self.mlp(z) + self.moe_layer(z) if self.mixes else x + self.mlp(z)


class Embed(nn.Module):
    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        kernel = (size["tubelet"], size["patch"], size["patch"])
        self.tubelet, self.proj = size["tubelet"], nn.Conv3d(3, size["dim"], kernel, stride=kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(as_clip(x, self.tubelet)).flatten(2).transpose(1, 2)


def as_clip(x: Tensor, tubelet: int) -> Tensor:
    """A picture fills one tubelet with copies; a clip stays as it is."""
    return x if x.ndim == 5 else x[:, :, None].expand(-1, -1, tubelet, -1, -1)


class Encoder(nn.Module):
    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        self.patch_embed = Embed(size)
        self.register_buffer("positions", positions(size, size["dim"]), persistent=False)
        self.blocks = nn.ModuleList(Block(size["dim"], size["heads"], size["mlp_ratio"]) for _ in range(size["depth"]))
        self.norm = nn.LayerNorm(size["dim"], eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.positions[: x.shape[1]]
        x = x[~mask].view(len(x), -1, x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    def __init__(self, size: Mapping[str, Any]) -> None:
        super().__init__()
        dim, pixels = size["decoder_dim"], 3 * size["tubelet"] * size["patch"] ** 2
        self.register_buffer("positions", positions(size, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, size["decoder_heads"], size["mlp_ratio"])
                                    for _ in range(size["decoder_depth"]))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, pixels)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[mask].view(len(x), -1, x.shape[-1])))


class TextbookMAE(nn.Module):
    """Pictures `[b 3 h w]` or clips `[b 3 t h w]` and a mask bool `[b n]` → loss, pixels of hidden tokens `[b m p]`."""

    def __init__(self, size: Mapping[str, Any], epsilon: float = 1e-6) -> None:
        super().__init__()
        self.size, self.epsilon = size, epsilon
        self.encoder, self.decoder = Encoder(size), Decoder(size)
        self.encoder_to_decoder = nn.Linear(size["dim"], size["decoder_dim"], bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, size["decoder_dim"]))
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        visible = self.encoder_to_decoder(self.encoder(x, mask))
        tokens = self.mask_token.to(visible.dtype).expand(*mask.shape, -1).clone()
        tokens[~mask] = visible.flatten(0, 1)
        prediction = self.decoder(tokens, mask)
        return F.mse_loss(prediction.float(), self.target(x, mask)), prediction

    @torch.no_grad()
    def target(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pixels of hidden tubelets, each channel with mean 0 and variance 1: `[b m p]`, channel fastest."""
        p, u = self.size["patch"], self.size["tubelet"]
        x = as_clip(x, u) * self.std + self.mean
        b, c, t, h, w = x.shape
        x = x.view(b, c, t // u, u, h // p, p, w // p, p).permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4, 6).flatten(1, 3)
        x = x[mask].view(b, -1, u * p * p, c)
        variance, mean = torch.var_mean(x, dim=2, keepdim=True)
        return ((x - mean) / (variance + self.epsilon).sqrt()).flatten(2)


class TextbookClassifier(nn.Module):
    """Pictures or clips → logits `[b classes]` of the head for pictures or for clips."""

    def __init__(self, size: Mapping[str, Any], classes: Mapping[str, int], moae_blocks: tuple[int, ...] = (),
                 experts: int = 8, top_k: int = 2, capacity_factor: float = 1.0) -> None:
        super().__init__()
        dim = size["dim"]
        self.patch_embed = Embed(size)
        self.register_buffer("positions", positions(size, dim), persistent=False)
        self.blocks = nn.ModuleList(
            Block(dim, size["heads"], size["mlp_ratio"],
                  Experts(dim, experts, top_k, capacity_factor) if i in moae_blocks else None)
            for i in range(size["depth"]))
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.ModuleDict({task: nn.Linear(dim, count) for task, count in classes.items()})

    def forward(self, x: Tensor) -> Tensor:
        task = "image" if x.ndim == 4 else "video"
        x = self.patch_embed(x)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head[task](self.fc_norm(x.mean(dim=1)))

    def balance_loss(self) -> Tensor | float:
        return sum(block.moe_layer.balance for block in self.blocks if block.mixes)
