"""Published checkpoint layouts at small size, from timm and the inventories, apart from the library's own code."""

import argparse
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

DATA = Path(__file__).parent / "data"
DIM, DEPTH, HEADS, PATCH, TUBELET, SIDE, FRAMES = 128, 3, 2, 8, 2, 32, 6  # a grid of 3 × 4 × 4 tokens


class PlainEncoder(nn.Module):
    """timm's ViT blocks without class token: what every published encoder of this family computes."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        torch.manual_seed(7)
        kernel = (PATCH, PATCH) if axes == 2 else (TUBELET, PATCH, PATCH)
        self.proj = (nn.Conv2d if axes == 2 else nn.Conv3d)(3, DIM, kernel, kernel)
        self.blocks = nn.ModuleList(Block(DIM, HEADS, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
                                    for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM, eps=1e-6)
        for value in self.parameters():  # away from zeros and ones, so that every tensor counts
            nn.init.normal_(value, mean=0.5 if value.ndim == 1 else 0.0, std=0.1)

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """`[b 3 (t) h w]` → `[b n d]` before the last norm, with 1-D sinusoid positions."""
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        tokens = tokens + sinusoid(tokens.shape[1])
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def fused(self) -> dict[str, torch.Tensor]:
        """Weights under MAE's names."""
        return {key.replace("proj.", "patch_embed.proj.") if key.startswith("proj") else key: value.detach().clone()
                for key, value in self.state_dict().items()}

    def split(self) -> dict[str, torch.Tensor]:
        """Weights under VideoMAE's names, which have a bias for queries and values alone."""
        state = {}
        for key, value in self.fused().items():
            if key.endswith("qkv.bias"):
                q, _, v = value.chunk(3)
                state |= {key.replace("qkv.bias", "q_bias"): q.clone(), key.replace("qkv.bias", "v_bias"): v.clone()}
            else:
                state[key] = value
        return state


def sinusoid(n: int) -> torch.Tensor:
    """Positions `[n d]`, number by number."""
    return torch.tensor([[np.sin(p / 10000 ** (j / DIM)) if j % 2 == 0 else np.cos(p / 10000 ** ((j - 1) / DIM))
                          for j in range(DIM)] for p in range(n)], dtype=torch.float32)


def videomae_finetuned(classes: int = 9) -> tuple[dict[str, torch.Tensor], PlainEncoder]:
    plain = PlainEncoder(axes=3)
    state = {key: value for key, value in plain.split().items() if not key.startswith("norm.")}
    state |= {"fc_norm.weight": torch.randn(DIM), "fc_norm.bias": torch.randn(DIM),
              "head.weight": torch.randn(classes, DIM), "head.bias": torch.randn(classes)}
    return state, plain


def videomae_logits(state: dict[str, torch.Tensor], plain: PlainEncoder, clip: torch.Tensor) -> torch.Tensor:
    pooled = F.layer_norm(plain.latents(clip).mean(1), (DIM,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6)
    return pooled @ state["head.weight"].T + state["head.bias"]


def omnimae() -> tuple[dict[str, torch.Tensor], PlainEncoder]:
    plain, n = PlainEncoder(axes=3), 3 * 4 * 4
    state = {f"trunk.{key.replace('embed.proj.', 'embed.proj.1.')}": value for key, value in plain.fused().items()}
    state |= {"trunk.mask_token": torch.randn(1, DIM), "trunk.pos_embed": sinusoid(n)[None],
              "trunk.decoder.pos_embed": sinusoid(n)[None], "trunk.decoder.decoder_embed.weight": torch.randn(64, DIM),
              "trunk.decoder.decoder_blocks.0.attn.qkv.weight": torch.randn(192, 64),
              "trunk.decoder.norm.weight": torch.randn(64), "head.weight": torch.randn(384, 64)}
    return state, plain


def mae(decoder: bool = True) -> tuple[dict[str, torch.Tensor], PlainEncoder]:
    plain = PlainEncoder(axes=2)
    state = {**plain.fused(), "cls_token": torch.randn(1, 1, DIM), "pos_embed": torch.randn(1, 17, DIM)}
    if decoder:
        state |= {"mask_token": torch.randn(1, 1, 64), "decoder_embed.weight": torch.randn(64, DIM),
                  "decoder_pos_embed": torch.randn(1, 17, 64), "decoder_blocks.0.mlp.fc1.bias": torch.randn(256),
                  "decoder_norm.weight": torch.randn(64), "decoder_pred.weight": torch.randn(192, 64)}
    else:
        state |= {"fc_norm.weight": torch.randn(DIM), "head.weight": torch.randn(10, DIM)}
    return state, plain


def reference(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Released weights and everything else of one npz file."""
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / name).items()}
    state = {key.removeprefix("state."): value for key, value in arrays.items() if key.startswith("state.")}
    return state, {key: value.float() for key, value in arrays.items() if not key.startswith("state.")}


def landmark_state() -> dict[str, torch.Tensor]:
    """MobileFaceNet weights made by the rule of the reference outputs."""
    state = {}
    for key, shape in json.loads((DATA / "mobilefacenet_keys.json").read_text()).items():
        x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
        if key.endswith("num_batches_tracked"):
            x = np.zeros(shape, np.int64)
        elif key.endswith("running_var"):
            x = 1 + 0.1 * abs(x)
        elif key.endswith(("running_mean", "bias")):
            x = 0.05 * x
        elif len(shape) >= 2:
            x = x / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
        elif "prelu" in key:
            x = 0.25 + 0.05 * x
        else:
            x = 1 + 0.1 * x
        state[key] = torch.from_numpy(np.asarray(x))
    return state


def script_container(state: dict[str, torch.Tensor], **settings: object) -> dict[str, object]:
    """What a fine-tuning script saves: weights, optimiser state, epoch, and its argparse.Namespace."""
    parameter = nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2)
    optimiser.step()
    args = argparse.Namespace(data_path=Path("data/DFEW"), device=torch.device("cpu"), best=np.float64(0.5),
                              nb_classes=11, **settings)
    return {"model": state, "optimizer": optimiser.state_dict(), "epoch": 3, "scaler": None, "args": args}
