"""A slow S2D, one clip, frame and place at a time in double precision, and the small model it is compared with."""

import torch
from torch.nn import functional as F

from s4d_lib.models.s2d import S2DClassifier

# Axes of different sizes, so that none can stand in for another.
SMALL = {"num_classes": 5, "image_size": (10, 15), "frames": 4, "patch": 5, "dim": 24, "depth": 3, "heads": 2,
         "mlp_ratio": 1.5, "landmark_channels": 7, "prompt_dim": 9, "adapter_ratio": 0.5, "temporal_heads": 3}


def scrambled(seed: int = 0, **changes) -> S2DClassifier:
    """A small model in which every parameter matters."""
    model = S2DClassifier(**SMALL | changes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("landmark_net."):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(clips: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(clips, 3, 4, 10, 15, generator=generator),
            torch.randn(clips * 4, 7, 2, 3, generator=generator))


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def slow_attention(w: dict, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    """Self-attention of one sequence `[s d]`."""
    qkv = x @ w[f"{name}.qkv.weight"].T + w.get(f"{name}.qkv.bias", 0)
    q, k, v = qkv.chunk(3, dim=1)
    parts = []
    for a, b, c in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1)):
        parts.append((a @ b.T / a.shape[1] ** 0.5).softmax(1) @ c)
    return torch.cat(parts, 1) @ w[f"{name}.proj.weight"].T + w[f"{name}.proj.bias"]


def slow_norm(w: dict, name: str, x: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + epsilon).sqrt()
    return centred / spread * w[f"{name}.weight"] + w[f"{name}.bias"]


def slow_linear(w: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ w[f"{name}.weight"].flatten(1).T + w[f"{name}.bias"]


def slow_patches(w: dict, name: str, picture: torch.Tensor, patch: int) -> torch.Tensor:
    rows = [slow_linear(w, name, picture[:, y: y + patch, x: x + patch].reshape(1, -1))
            for y in range(0, picture.shape[1], patch) for x in range(0, picture.shape[2], patch)]
    return torch.cat(rows)


def slow_adapter(w: dict, name: str, x: torch.Tensor, heads: int) -> torch.Tensor:
    """Tokens of one clip `[t n d]`, one place after the other."""
    answer = torch.zeros_like(x)
    for place in range(x.shape[1]):
        y = F.gelu(slow_linear(w, f"{name}.T_Adapter.D_fc1", x[:, place]))
        y = slow_linear(w, f"{name}.T_Adapter.D_fc2", slow_attention(w, f"{name}.T_Adapter.attn", y, heads))
        y = F.gelu(slow_linear(w, f"{name}.S_Adapter.D_fc1", slow_norm(w, f"{name}.norm", y, 1e-5)))
        answer[:, place] = slow_linear(w, f"{name}.S_Adapter.D_fc2", y)
    return answer


def slow_features(w: dict, clip: torch.Tensor, landmarks: torch.Tensor, patch: int, heads: int,
                  temporal_heads: int, depth: int) -> torch.Tensor:
    """One clip `[3 t h w]` and its landmark features `[t c gh gw]` → `[d]`, frame by frame, in double precision."""
    patches = torch.stack([slow_patches(w, "patch_embed.proj", frame, patch) for frame in clip.unbind(1)])
    told = torch.stack([slow_patches(w, "patch_embed_prompt.proj", features, 1) for features in landmarks])
    frames = range(len(patches))
    for i in range(depth):
        name, norm = f"prompt_blocks.{i}", f"prompt_norms.{0 if i == 0 else i - 1}"
        seen = slow_norm(w, norm, patches)
        for t in frames:
            g = slow_linear(w, f"{name}.conv0_0", seen[t])
            g = (w[f"{name}.fovea.smooth"] * g).softmax(0) * g
            g = g + slow_linear(w, f"{name}.conv0_1", slow_norm(w, "prompt_norms.0", told[t]))
            told[t] = slow_linear(w, f"{name}.conv1x1", g)
        patches = patches + told + slow_adapter(w, f"{name}.TMA", seen, temporal_heads)
        if i == 0:
            cls = [w["cls_token"][0] + w["pos_embed"][0, :1] + w["temporal_embedding"][0, t] for t in frames]
            patches = torch.stack([patches[t] + w["pos_embed"][0, 1:] + w["temporal_embedding"][0, t] for t in frames])
        for t in frames:
            x, block = torch.cat([cls[t], patches[t]]), f"blocks.{i}"
            x = x + slow_attention(w, f"{block}.attn", slow_norm(w, f"{block}.norm1", x), heads)
            hidden = F.gelu(slow_linear(w, f"{block}.mlp.fc1", slow_norm(w, f"{block}.norm2", x)))
            x = x + slow_linear(w, f"{block}.mlp.fc2", hidden)
            cls[t], patches[t] = x[:1], x[1:]
    return slow_norm(w, "ln_post", torch.cat(cls)).mean(0)
