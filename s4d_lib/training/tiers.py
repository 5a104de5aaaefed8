"""tier → data and budgets     what smoke, laptop and full mean, decided in one place.

smoke (two CPU cores, at most 90 s a chapter), laptop (CPU, minutes) and full (a GPU, the papers' sizes and schedule).
The first two run the tiny model on drawn faces; the third takes the released recipe as it is, on drawn faces or on the
data sets a lab holds (`stills=`, `clips=`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s4d_lib.errors import Refused
from s4d_lib.files import data_root
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig

if TYPE_CHECKING:
    from s4d_lib.training.launch import Launch
    from s4d_lib.training.runs import Run


@dataclass(frozen=True)
class Faces:
    """How many drawn faces a tier uses, and how large they are."""

    stills: int
    clips: int
    seed: int
    recipe: str = "default"
    size: int = 64
    frames: tuple[str, ...] = ("mp4", "jpg")


# Seeds differ, so nobody in the unlabelled set is in the labelled one.
LABELLED = {"smoke": Faces(300, 120, 0), "laptop": Faces(3000, 2500, 0, frames=("mp4",)),
            "full": Faces(20_000, 12_000, 0, size=160, frames=("mp4",))}
UNLABELLED = {"smoke": LABELLED["smoke"], "laptop": Faces(12_000, 3000, 1, frames=("mp4",)),
              "full": Faces(100_000, 40_000, 1, size=160, frames=("mp4",))}

NEEDED = {"sfer": ("stills",), "dfer": ("clips",)}  # mode → what it reads; the others read both

_TINY: dict[str, Any] = {"size": "tiny", "frames": "clip_mp4", "stride": 2, "augment_stills": "LIGHT",
                         "augment_clips": "LIGHT", "cache": True}
PRETRAIN: dict[str, dict[str, Any]] = {
    "smoke": _TINY | {"epochs": 2, "batch_stills": 32, "batch_clips": 8, "mask_stills": 0.75, "mask_clips": 0.9,
                      "target_epsilon": 1e-3, "replicate": 2, "lr": 1e-3, "warmup_epochs": 0.2, "clip_norm": 2.0},
    "laptop": _TINY | {"epochs": 60, "batch_stills": 64, "batch_clips": 16, "mask_stills": 0.75, "mask_clips": 0.9,
                       "target_epsilon": 1e-3, "replicate": 2, "lr": 2e-3, "warmup_epochs": 3.0, "clip_norm": 2.0},
    "full": {"size": "base", "frames": "clip_mp4", "precision": "bf16", "workers": 8},
}
_TINY_TUNING: dict[str, Any] = _TINY | {
    "init": "shipped", "pool": "positions", "dropout": 0.1, "weight_decay": 0.05, "clip_norm": 1.0, "mixup": 0.0,
    "cutmix": 0.0, "experts": 4, "capacity_factor": 1.5, "batch_clips": 24, "batch_stills": 48, "lr": 2e-3,
    "final_lr": 0.0,
}
FINETUNE: dict[str, dict[str, Any]] = {
    "smoke": _TINY_TUNING | {"epochs": 5, "warmup_epochs": 0.5, "validation": 0.2, "batch_clips": 16,
                             "batch_stills": 32, "lr": 1e-3},
    "laptop": _TINY_TUNING | {"epochs": 30, "warmup_epochs": 3.0, "validate_every": 3},
    "full": {"frames": "clip_mp4", "precision": "bf16", "workers": 8},
}


_OWN_CLIPS: ContextVar[dict[str, Any] | None] = ContextVar("own clips", default=None)


@contextmanager
def on_own_clips(settings: dict[str, Any]) -> Iterator[None]:
    """Fine-tunings that are asked for meanwhile read these clips (`datasets.data_settings`), no drawn ones."""
    token = _OWN_CLIPS.set(settings)
    try:
        yield
    finally:
        _OWN_CLIPS.reset(token)


def prepare_data(tier: str, kind: str = "labelled") -> Path:
    """The folder of a tier's faces, drawn now if it is not there; `kind` is "labelled" or "unlabelled"."""
    from s4d_lib.synthetic_faces.folders import write_faces
    from s4d_lib.synthetic_faces.recipes import RECIPES

    tiers = {"labelled": LABELLED, "unlabelled": UNLABELLED}[kind]
    if tier not in tiers:
        raise Refused(f"tier must be one of {', '.join(tiers)}, got {tier!r}")
    faces = tiers[tier]
    folder = data_root() / f"{faces.recipe}-{faces.size}px-{faces.stills}-{faces.clips}-seed{faces.seed}"
    write_faces(folder, replace(RECIPES[faces.recipe], size=faces.size), faces.stills, faces.clips, faces.seed,
                frames=faces.frames)
    return folder


def pretraining(tier: str, name: str = "pretraining", **changes: Any) -> PretrainConfig:
    """The tier's pretraining on its unlabelled faces; keyword arguments change single settings."""
    needed = tuple({"image": "stills", "clip": "clips"}[m] for m in changes.get("modalities", ("image", "clip")))
    return PretrainConfig(**{"name": name, "tier": tier} | _folders(tier, "unlabelled", changes, needed)
                          | PRETRAIN[tier] | changes)


def finetuning(tier: str, mode: str, name: str | None = None, **changes: Any) -> FinetuneConfig:
    """The tier's fine-tuning on its labelled faces; keyword arguments change single settings."""
    changes = ((_OWN_CLIPS.get() or {}) if mode != "sfer" else {}) | changes
    return FinetuneConfig(**{"name": name or mode, "mode": mode, "tier": tier}
                          | _folders(tier, "labelled", changes, NEEDED.get(mode, ("stills", "clips")))
                          | FINETUNE[tier] | changes)


# Stage 1 trains the whole image model, stage 2 only what S2D adds: hence the two learning rates. Full is the released
# recipe of stage 2 (scripts/*.sh); that of stage 1 is not known and taken to be the same.
_S2D_SMALL: dict[str, Any] = {key: value for key, value in _TINY_TUNING.items() if key not in (
    "pool", "experts", "capacity_factor", "init")} | {"layer_decay": 1.0}
S2D: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"sfer": _S2D_SMALL | {"epochs": 4, "warmup_epochs": 0.4, "validation": 0.2, "batch_stills": 32,
                                    "init": "shipped"},
              "dfer": _S2D_SMALL | {"epochs": 4, "warmup_epochs": 0.4, "validation": 0.2, "batch_clips": 16}},
    "laptop": {"sfer": _S2D_SMALL | {"epochs": 15, "warmup_epochs": 1.5, "validate_every": 3, "init": "shipped"},
               "dfer": _S2D_SMALL | {"epochs": 30, "warmup_epochs": 3.0, "validate_every": 3}},
    "full": dict.fromkeys(("sfer", "dfer"), {
        "frames": "clip_mp4", "precision": "bf16", "workers": 8, "stride": 1, "batch_stills": 64, "batch_clips": 16,
        "lr": 2e-5, "final_lr": 6.25e-10, "warmup_epochs": 2.0, "layer_decay": 1.0, "dropout": 0.5}),
}


def s2d(tier: str, mode: str, name: str | None = None, **changes: Any) -> FinetuneConfig:
    """One stage of S2D on the tier's labelled faces: "sfer" the image model, "dfer" the video model (with `init=`)."""
    return FinetuneConfig(**{"name": name or f"s2d_{mode}", "mode": mode, "system": "s2d", "tier": tier}
                          | _folders(tier, "labelled", changes, NEEDED.get(mode, ("stills", "clips")))
                          | S2D[tier][mode] | changes)


def train_s2d(tier: str = "smoke", root: Path | None = None, retrain: bool = False,
              processes: int | Launch | None = None, verify: bool = False, **changes: Any) -> tuple[Run, Run]:
    """Both stages on a tier's drawn faces: the image model on stills, then the video model that starts from it.

    `changes` are settings of both stages, such as seed or prompts; `init` is where the image model starts. Each
    stage is a run of its own, resumable, and loaded when it is there already unless `retrain`. `processes` and
    `verify` are those of `train`.
    """
    from s4d_lib.training.runs import train

    image = train(s2d(tier, "sfer", **changes), root, retrain, processes, verify)
    video = s2d(tier, "dfer", **changes | {"init": str(image.weights)})
    return image, train(video, root, retrain, processes, verify)


def _folders(tier: str, kind: str, changes: dict[str, Any], needed: tuple[str, ...] = ("stills", "clips")
             ) -> dict[str, str]:
    if all(part in changes for part in needed):  # a lab's own data: nothing to draw
        return {}
    folder = prepare_data(tier, kind)
    return {part: str(folder / part) for part in ("stills", "clips")}
