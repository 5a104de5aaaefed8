"""parts → model     S2DClassifier: an image model for faces, taught to read clips by prompts and adapters.

A ViT reads each frame by itself. Before every block a prompter writes landmark features onto the image tokens and
an adapter mixes each place over time (`layers/prompts.py`); only these new parts, the last norm and the head are
trained (arXiv 2312.05447). State-dict keys and shapes equal those of the released S2D checkpoints.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from s4d_lib.distributed import RowDropout
from s4d_lib.errors import Refused
from s4d_lib.layers.encoder import layer_norm
from s4d_lib.layers.prompts import Prompter
from s4d_lib.layers.tokens import cut_tubelets, sincos_positions
from s4d_lib.models.face_mesh import FaceMesh
from s4d_lib.models.landmark_memory import recall
from s4d_lib.models.landmark_net import LANDMARK_CHANNELS, LandmarkNet
from s4d_lib.models.landmark_readers import LandmarkReader
from s4d_lib.weights.hub import HubModel
from s4d_lib.weights.wheels import FACE_MESH

TMA_INITS = ("released", "zero")
# base is the released model; small is ViT-S in its geometry; tiny and nano, for a CPU, read the same pictures and
# frames as the S4D models of that name, so that both systems can be trained on one set of clips.
S2D_SIZES: dict[str, dict[str, Any]] = {
    "nano": {"image_size": 48, "frames": 8, "patch": 12, "dim": 64, "depth": 4, "heads": 4, "temporal_heads": 4},
    "tiny": {"image_size": 48, "frames": 8, "patch": 8, "dim": 128, "depth": 4, "heads": 4, "temporal_heads": 4},
    "small": {"image_size": 224, "frames": 16, "patch": 16, "dim": 384, "depth": 12, "heads": 6, "temporal_heads": 8},
    "base": {"image_size": 224, "frames": 16, "patch": 16, "dim": 768, "depth": 12, "heads": 12, "temporal_heads": 8},
}
# Parameters whose name holds one of these are trained (released `run_class_finetuning.py:377-381`, whose list also
# has names that no parameter bears, and "Adapter", which stands inside `prompt_blocks` only).
TRAINABLE = ("temporal_embedding", "ln_post", "head", "prompt")


class FrameEmbed(nn.Module):
    """Frames `[b c h w]` → tokens `[b (h w) d]`: one linear map of each patch."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, frames: Tensor) -> Tensor:
        boxes = cut_tubelets(frames, self.proj.kernel_size[0], 1)
        return F.linear(boxes.flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class S2DClassifier(nn.Module, HubModel):
    """Clip classifier on a frozen image model (arXiv 2312.05447; released `model_finetuning.py`).

    `image_size` is a side or (height, width). `landmark_net=True` makes the landmark network part of the model,
    frozen and always in evaluation mode, a number one of that width (`models.LandmarkNet`); with "face_mesh" the model
    reads through `models.FaceMesh`, which is no part of its file; otherwise landmark features are an input, or those of
    a function (`use_landmarks`). `adapter_ratio` is the adapters' hidden width over `dim`.

    Without `temporal` there is neither a temporal adapter nor an embedding of time: with `frames=1` the image model
    that S2D starts from, which reads stills too. Without `prompts` there is no prompter and no use for landmarks.

    `tma_init`: "released" draws the temporal adapters with std 0.02 like every linear layer, so that they disturb
    the image model from the first step: an initialiser of the whole model overwrites the zeros they were meant to
    start from (`model_finetuning.py:85, 213-215, 418-419`). "zero" starts their last layer at zero, so that frames
    are first read one by one. Not both up-projections: then no weight of the adapter would ever get a gradient.
    """

    def __init__(self, num_classes: int = 7, image_size: int | Sequence[int] = 224, frames: int = 16, patch: int = 16,
                 dim: int = 768, depth: int = 12, heads: int = 12, mlp_ratio: float = 4.0,
                 landmark_channels: int = LANDMARK_CHANNELS, prompt_dim: int = 8, adapter_ratio: float = 0.25,
                 temporal_heads: int = 8, dropout: float = 0.5, landmark_net: bool | float | str = False,
                 tma_init: str = "released", temporal: bool = True, prompts: bool = True) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.config: dict[str, Any] = {
            "num_classes": num_classes, "image_size": height if height == width else (height, width),
            "frames": frames, "patch": patch, "dim": dim, "depth": depth, "heads": heads, "mlp_ratio": mlp_ratio,
            "landmark_channels": landmark_channels, "prompt_dim": prompt_dim, "adapter_ratio": adapter_ratio,
            "temporal_heads": temporal_heads, "dropout": dropout, "landmark_net": landmark_net,
            "tma_init": tma_init,
        }
        if not (temporal and prompts):  # files of the method itself stay as they were
            self.config |= {"temporal": temporal, "prompts": prompts}
        hidden = int(adapter_ratio * dim)
        _check_config(height, width, hidden, **self.config)
        self.temporal, self.prompts = temporal, prompts
        self._memory: Path | None = None
        self.image_size, self.frames, self.grid = (height, width), frames, (height // patch, width // patch)
        self.num_classes, self.num_features, self.landmark_channels = num_classes, dim, landmark_channels
        self.grad_checkpointing = False

        # Positions are a parameter only because the released file has them: they are never trained.
        self.pos_embed = nn.Parameter(_positions(self.grid, dim), requires_grad=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if temporal:
            self.temporal_embedding = nn.Parameter(torch.zeros(1, frames, dim))
        self.patch_embed = FrameEmbed(3, dim, patch)
        if prompts:
            self.patch_embed_prompt = FrameEmbed(landmark_channels, dim, patch=1)
        added = depth if prompts or temporal else 0
        self.prompt_blocks = nn.ModuleList(
            Prompter(dim, prompt_dim, hidden, temporal_heads, prompts, temporal) for _ in range(added))
        self.prompt_norms = nn.ModuleList(layer_norm(dim) for _ in range(added))
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=layer_norm) for _ in range(depth))
        self.ln_post = layer_norm(dim)
        self.dropout = RowDropout(dropout)
        self.head = nn.ModuleDict({"fc_cls": _linear_head(dim, num_classes)})
        self._initialise(tma_init)
        self.landmark_net = None if landmark_net == FACE_MESH else _landmark_net(landmark_net)
        self.__dict__["_mesh"] = FaceMesh() if landmark_net == FACE_MESH else None
        self.use_landmarks(None)

    def forward(self, clip: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Clips `[b 3 t h w]`, ImageNet-normalised → logits `[b classes]`; with `frames=1` stills `[b 3 h w]`, too.

        `landmarks`: features of every frame, `[(b t) c gh gw]` (all frames of the first clip, then of the second)
        or `[b t c gh gw]`. A model with its own landmark network needs none, and computes them if none are given.
        Features on another grid than the tokens' are resized bilinearly.
        """
        return self.forward_head(self.forward_features(clip, landmarks))

    def features(self, clip: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """What the head reads, `[b d]`: after dropout while training (released `model_finetuning.py:175-195`)."""
        return self.forward_head(self.forward_features(clip, landmarks), pre_logits=True)

    def forward_features(self, clip: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Clips and landmark features as in `forward` → normalised latents `[b t (1+n) d]`, class token first."""
        frames = self._fold(clip)
        prompt = self._first_prompt(frames, landmarks)
        # The first prompter acts on bare patches, before class token and positions.
        patches, prompt = self._prompt(0, self.patch_embed(frames), prompt)
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        if self.temporal:
            x = x + repeat(self.temporal_embedding, "1 t d -> (b t) 1 d", b=len(clip))
        for i in range(len(self.blocks)):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x, prompt = checkpoint(partial(self._layer, i), x, prompt, use_reentrant=False)
            else:
                x, prompt = self._layer(i, x, prompt)
        return rearrange(self.ln_post(x), "(b t) n d -> b t n d", t=self.frames)

    def forward_head(self, latents: Tensor, pre_logits: bool = False) -> Tensor:
        """Latents `[b t (1+n) d]` → logits `[b classes]`, or with `pre_logits` what the head reads, `[b d]`."""
        features = self.dropout(latents[:, :, 0].mean(dim=1))
        return features if pre_logits else self.head["fc_cls"](features)

    def use_landmarks(self, reader: LandmarkReader | None) -> "S2DClassifier":
        """Take landmark features from any function of frames `[n 3 h w]` → `[n c gh gw]`. Returns self.

        c is `landmark_channels`; a grid other than the tokens' is resized. Whatever the function has learned is not
        part of the model, its files and its moves between devices. None: back to the model's own network or face mesh.
        """
        # A module set in the usual way would enter the state dict.
        self.__dict__["_reader"] = self._mesh if reader is None else reader
        return self

    def use_memory(self, folder: str | Path | None) -> "S2DClassifier":
        """Take what `models.landmark_memory.remember` kept in place of asking the landmark network. Returns self.

        Where and whether it is used is no part of the model and its files. None: ask the network.
        """
        self._memory = None if folder is None else Path(folder)
        return self

    def _layer(self, i: int, x: Tensor, prompt: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Block i with its prompter: tokens `[(b t) (1+n) d]`, prompt `[(b t) n d]` → the same."""
        if i:
            patches, prompt = self._prompt(i, x[:, 1:], prompt)
            x = torch.cat([x[:, :1], patches], dim=1)
        return self.blocks[i](x), prompt

    def _prompt(self, i: int, patches: Tensor, prompt: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.prompt_blocks:
            return patches, prompt
        # The released numbering of the norms, odd as it is (`model_finetuning.py:502-504`): block i reads the image
        # through norm i-1 (block 0 through norm 0) and the prompt always through norm 0. The last norm is never
        # used. Prompt and adapter both read the patches as they were before either is added.
        x = self.prompt_norms[max(i - 1, 0)](patches)
        prompter = self.prompt_blocks[i]
        if self.prompts:
            prompt = prompter(x, self.prompt_norms[0](prompt), self.grid)
            patches = patches + prompt
        return (patches + prompter.TMA(x, self.frames) if self.temporal else patches), prompt

    def _fold(self, clip: Tensor) -> Tensor:
        """Clips `[b 3 t h w]` → frames `[(b t) 3 h w]`, or ValueError."""
        if clip.ndim == 4 and self.frames == 1:
            clip = clip.unsqueeze(2)
        if clip.ndim != 5 or clip.shape[1] != 3:
            raise ValueError(f"expected clips [b 3 t h w], got shape {tuple(clip.shape)}; repeat a still image "
                             f"{self.frames} times to make it a clip")
        if clip.shape[2] != self.frames:
            raise ValueError(f"this model reads clips of {self.frames} frames, got {clip.shape[2]}; "
                             f"sample {self.frames} frames or build the model with frames={clip.shape[2]}")
        if tuple(clip.shape[-2:]) != self.image_size:
            raise ValueError(f"this model reads {self.image_size[0]}×{self.image_size[1]} pixels, got "
                             f"{clip.shape[-2]}×{clip.shape[-1]}; resize the frames or build the model with "
                             "another image_size")
        return rearrange(clip, "b c t h w -> (b t) c h w")

    def _first_prompt(self, frames: Tensor, landmarks: Tensor | None) -> Tensor | None:
        if self.prompts:
            return self.patch_embed_prompt(self._landmark_features(frames, landmarks))
        if landmarks is not None:
            raise Refused("this model was built without prompts, so it has no use for landmarks; leave them out")
        return None

    def _landmark_features(self, frames: Tensor, landmarks: Tensor | None) -> Tensor:
        """Frames `[(b t) 3 h w]` and features as in `forward` → features `[(b t) c gh gw]` on the token grid."""
        if landmarks is None:
            if self._reader is None and self.landmark_net is None:
                raise Refused("landmarks are missing and this model has no landmark network; pass "
                              "LandmarkNet().features(frames), or build the model with landmark_net=True")
            with torch.no_grad():
                landmarks = (recall(self.landmark_net, frames, self.grid, self._memory) if self._reader is None else
                             getattr(self._reader, "features", self._reader)(frames))
        clips = len(frames) // self.frames
        if landmarks.ndim == 5 and landmarks.shape[:2] == (clips, self.frames):
            landmarks = landmarks.flatten(0, 1)
        if landmarks.ndim != 4 or landmarks.shape[:2] != (len(frames), self.landmark_channels):
            c = self.landmark_channels
            raise ValueError(f"landmarks of {clips} clips must be [(b t) c gh gw] = [{len(frames)} {c} gh gw] or "
                             f"[b t c gh gw] = [{clips} {self.frames} {c} gh gw], got {list(landmarks.shape)}")
        if tuple(landmarks.shape[-2:]) == self.grid:
            return landmarks
        return F.interpolate(landmarks, self.grid, mode="bilinear", align_corners=False)

    def freeze_image_model(self) -> "S2DClassifier":
        """Train only what S2D adds (`TRAINABLE`), a tenth of the parameters; everything else stops. Returns self."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.partition(".")[0] != "landmark_net" and any(v in name for v in TRAINABLE)
        return self

    def train(self, mode: bool = True) -> "S2DClassifier":
        """As ever, but the landmark network stays in evaluation mode: its batch norms must not learn clips."""
        super().train(mode)
        if self.landmark_net is not None:
            self.landmark_net.eval()
        return self

    def get_classifier(self) -> nn.Module:
        return self.head["fc_cls"]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for `num_classes` classes; with 0 the model returns what the head reads."""
        if global_pool not in (None, "token"):
            raise Refused(f"S2D pools class tokens only, so global_pool must be None or 'token', "
                          f"got {global_pool!r}")
        old = self.cls_token
        head = _linear_head(self.num_features, num_classes).to(old.device, old.dtype)
        head.apply(_truncated_normal)
        self.head["fc_cls"] = head
        self.num_classes = self.config["num_classes"] = num_classes

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for timm's layer decay: embeddings 0, block i with its prompter i + 1, last norm and head last.

        Our grouping: the released recipe has no layer decay and asks the model for a method it lacks.
        """
        return {"stem": r"^cls_token|^pos_embed|^temporal_embedding|^patch_embed|^landmark_net",
                "blocks": [(r"^blocks\.(\d+)", None), (r"^prompt_(?:blocks|norms)\.(\d+)", None)]}

    def no_weight_decay(self) -> set[str]:
        """Matrices without weight decay, as timm has it for positions and class token."""
        return {"cls_token", "pos_embed", "temporal_embedding"}

    def _initialise(self, tma_init: str) -> None:
        for prompter in self.prompt_blocks if self.prompts else ():
            for conv in (prompter.conv0_0, prompter.conv0_1, prompter.conv1x1):
                nn.init.xavier_uniform_(conv.weight)
        self.apply(_truncated_normal)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        if tma_init == "zero" and self.temporal:
            for prompter in self.prompt_blocks:
                nn.init.zeros_(prompter.TMA.S_Adapter.D_fc2.weight)


def _check_config(height: int, width: int, hidden: int, *, patch: int, dim: int, heads: int, temporal_heads: int,
                  tma_init: str, landmark_net: bool | float | str, prompts: bool = True, **_: Any) -> None:
    for whole, number, part, divisor in (
        ("image height", height, "patch", patch), ("image width", width, "patch", patch),
        ("dim", dim, "heads", heads), ("adapter_ratio · dim", hidden, "temporal_heads", temporal_heads),
    ):
        if number % divisor or number < 1:
            raise Refused(f"{whole} must be a positive multiple of {part}, got {number} and {divisor}")
    if tma_init not in TMA_INITS:
        raise Refused(f"tma_init must be one of {TMA_INITS}, got {tma_init!r}")
    if landmark_net and not prompts:
        raise Refused("a model without prompts has no use for a landmark network; leave out landmark_net")
    if isinstance(landmark_net, str) and landmark_net != FACE_MESH:
        raise Refused(f"landmark_net must be True, a width or {FACE_MESH!r}, got {landmark_net!r}")


def _positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Positions `[1 (1+n) d]` to start from: zero for the class token, sinusoids of row and column for patches.

    Released files bring their own table; this one gives a model without them a sense of place.
    """
    row, column = torch.cartesian_prod(*(torch.arange(side) for side in grid)).unbind(1)
    half = dim // 2
    table = torch.cat([sincos_positions(row, half), sincos_positions(column, dim - half)], dim=1)
    return F.pad(table, (0, 0, 1, 0)).float()[None]


def _landmark_net(wanted: bool | float) -> LandmarkNet | None:
    """A frozen landmark network of the released width (True) or of another, or None."""
    if not wanted:
        return None
    return (LandmarkNet() if wanted is True else LandmarkNet(wanted)).requires_grad_(False).eval()


def _linear_head(dim: int, num_classes: int) -> nn.Module:
    return nn.Linear(dim, num_classes) if num_classes else nn.Identity()


def _truncated_normal(module: nn.Module) -> None:
    # Runs over the whole model and so overwrites the adapters' own initialisation, as in the released one.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
