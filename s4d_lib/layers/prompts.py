"""tokens, landmarks → tokens     S2D's two additions to an image transformer: a prompter (MCP) and an adapter (TMA).

A prompter writes what a landmark network says of a face, through eight channels, onto the image tokens; an adapter
lets each place of the face look at itself in the other frames (arXiv 2312.05447). Attributes are named after the
released state-dict keys (`TMA`, `D_fc1`, `conv0_0`), so that weights load by name.
"""

import torch
from einops import rearrange
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

FOVEA_SCALE = 10.0  # where the learnable sharpness λ of the fovea starts


class Fovea(nn.Module):
    """Keeps of each channel what stands out in space: softmax over all places of λ·g, times g itself.

    g is `[b c h w]`; λ is learned and starts at 10 (arXiv 2312.05447; released `model_finetuning.py:60`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(torch.full((1,), FOVEA_SCALE))

    def forward(self, g: Tensor) -> Tensor:
        return (self.smooth * g).flatten(2).softmax(dim=-1).view_as(g) * g


class Prompter(nn.Module):
    """MCP: normalised image tokens and prompt → next prompt; it also holds its block's temporal adapter.

    p = W(fovea(U x) + V a), with U and V to `prompt_dim` channels and W back (arXiv 2312.05447; released
    `model_finetuning.py:197-230`). The image is sharpened, the landmarks are not. Without `prompts` or `temporal` that
    half is absent, keys and all.
    """

    def __init__(self, dim: int, prompt_dim: int, hidden: int, temporal_heads: int, prompts: bool = True,
                 temporal: bool = True) -> None:
        super().__init__()
        if prompts:
            self.conv0_0 = nn.Conv2d(dim, prompt_dim, 1)
            self.conv0_1 = nn.Conv2d(dim, prompt_dim, 1)
            self.conv1x1 = nn.Conv2d(prompt_dim, dim, 1)
            self.fovea = Fovea()
        if temporal:
            self.TMA = TemporalAdapter(dim, hidden, temporal_heads)

    def forward(self, x: Tensor, prompt: Tensor, grid: tuple[int, int]) -> Tensor:
        """Image tokens and prompt, both normalised and `[(b t) (h w) d]` → prompt `[(b t) (h w) d]`."""
        shape = {"h": grid[0], "w": grid[1]}
        x, prompt = (rearrange(v, "b (h w) d -> b d h w", **shape) for v in (x, prompt))
        mixed = self.conv1x1(self.fovea(self.conv0_0(x)) + self.conv0_1(prompt))
        return rearrange(mixed, "b d h w -> b (h w) d")


class TemporalAdapter(nn.Module):
    """TMA: each place of the picture attends to itself in the other frames (released
    `model_finetuning.py:70-131`).

    Bottleneck with attention over time, LayerNorm, bottleneck without. Neither has a skip connection; the
    classifier adds the result to its tokens.
    """

    def __init__(self, dim: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.T_Adapter = BottleneckAdapter(dim, hidden, heads)
        self.norm = nn.LayerNorm(dim)  # PyTorch's epsilon 1e-5 here, unlike every norm of the trunk
        self.S_Adapter = BottleneckAdapter(dim, hidden)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Normalised tokens `[(b t) n d]` of clips of `frames` frames → `[(b t) n d]`."""
        places = x.shape[1]
        x = rearrange(x, "(b t) n d -> (b n) t d", t=frames)
        x = self.S_Adapter(self.norm(self.T_Adapter(x)))
        return rearrange(x, "(b n) t d -> (b t) n d", n=places)


class BottleneckAdapter(nn.Module):
    """Two-layer bottleneck `[... s d]` → `[... s d]`, no skip; with `heads`, attention over s in the middle."""

    def __init__(self, dim: int, hidden: int, heads: int | None = None) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(dim, hidden)
        self.attn = Attention(hidden, heads) if heads else nn.Identity()
        self.D_fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.D_fc2(self.attn(F.gelu(self.D_fc1(x))))
