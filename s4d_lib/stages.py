"""config → job     what pretraining and fine-tuning are: their settings, their steps, their losses.

`PretrainConfig` and `FinetuneConfig` hold every number that changes a result, under the names the papers use; a field
that is unknown or of the wrong type is refused with its name. The defaults are the released recipes at base size
(arXiv 2409.06154; numbers in pretrain/omnivision/config and finetune/run.sh); `tiers.py` holds the small ones.
Derived in chapters 06, 07, 08 and 09.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from s4d_lib import clips as clip_module
from s4d_lib.clips import MixupCutmix
from s4d_lib.datasets import FaceDataset, Sample, few_labels, split_validation
from s4d_lib.errors import Refused
from s4d_lib.labels import LabelSchema, schema_named
from s4d_lib.losses import soft_target_cross_entropy
from s4d_lib.masking import random_mask
from s4d_lib.plans import Mixed, Step, epoch_plan, steady_plan
from s4d_lib.ranks import draw
from s4d_lib.readers import READERS
from s4d_lib.training import Job, Loop

Modality = Literal["image", "clip"]


class Config(BaseModel):
    """What both stages share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$", description="names the run folder")
    tier: Literal["smoke", "laptop", "full"] | None = None
    size: str = "base"
    stills: str | None = Field(None, description="folder of the image data set")
    clips: str | None = Field(None, description="folder of the video data set")
    stills_as: str = Field("affectnet7", description="its layout, a name in readers.READERS")
    clips_as: str = Field("dfew", description="its layout, a name in readers.READERS")
    stills_schema: str | None = Field(None, description="label order, where the layout fixes none")
    clips_schema: str | None = Field(None, description="the same for the video data set")
    label_base: Literal[0, 1] | None = Field(None, description="what the video list counts its labels from")
    frames: str = Field("clip_jpg", description="folder inside `clips` that holds frame folders or videos")
    stride: int = Field(4, ge=1, description="frames between two frames of a clip (released: sr)")
    on_unreadable: Literal["raise", "skip"] = "raise"
    cache: bool = Field(False, description="keep decoded frames in memory")
    local_contrast: bool = Field(False, description="read frames through local_contrast.py")
    augment_stills: str = "PAPER_STILL_TRAIN"
    augment_clips: str = "PAPER_CLIP_TRAIN"
    epochs: int = Field(100, ge=1)
    batch_stills: int = Field(64, ge=1)
    batch_clips: int = Field(32, ge=1)
    lr: float = Field(4e-5, gt=0, description="peak learning rate")
    final_lr: float = Field(0.0, ge=0)
    warmup_epochs: float = Field(5.0, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    clip_norm: float | None = None
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulate: int = Field(1, ge=1, description="micro-batches a step is split into, over all processes")
    ema: float | None = Field(None, gt=0, lt=1)
    workers: int = Field(0, ge=0)
    device: Literal["auto", "cpu"] = "auto"
    checkpoint_minutes: float = Field(5.0, gt=0)

    @model_validator(mode="after")
    def _known_recipes(self) -> Config:
        for name in (self.augment_stills, self.augment_clips):
            if not isinstance(getattr(clip_module, name, None), clip_module.AugmentRecipe):
                raise Refused(f"{name!r} is not an AugmentRecipe of s4d_lib.clips")
        for name in (self.stills_as, self.clips_as):
            if name not in READERS:
                raise Refused(f"no reader is called {name!r}; there are {', '.join(READERS)}")
        if self.warmup_epochs > self.epochs:
            raise Refused(f"warmup_epochs={self.warmup_epochs} is more than epochs={self.epochs}")
        return self

    def schema(self, modality: str) -> LabelSchema:
        """Class order of one modality: that of its layout, or the one that is named."""
        named, layout = ((self.stills_schema, self.stills_as) if modality == "image" else
                         (self.clips_schema, self.clips_as))
        if named is None and layout in ("table", "folders", "packed"):
            field = "stills_schema" if modality == "image" else "clips_schema"
            raise Refused(f"the layout {layout!r} fixes no label order: say {field}=, such as dfew")
        if modality == "image" and getattr(self, "still_labels", None) == "merged":
            return schema_named("coarse4")
        return schema_named(named or ("unlabelled" if layout == "voxceleb2" else layout))

    def loop(self, **more: object) -> Loop:
        return Loop(
            epochs=self.epochs, lr=self.lr, final_lr=self.final_lr, warmup_epochs=self.warmup_epochs, seed=self.seed,
            precision=self.precision, accumulate=self.accumulate, clip_norm=self.clip_norm, ema=self.ema,
            workers=self.workers, device=self.device, checkpoint_minutes=self.checkpoint_minutes, **more,
        )


class PretrainConfig(Config):
    """Dual-modal masked pretraining (arXiv 2409.06154 §3; released videomae_base_vox2_affectnet.yaml)."""

    stage: Literal["pretrain"] = "pretrain"
    modalities: tuple[Modality, ...] = ("image", "clip")
    mask_stills: float = Field(0.90, gt=0, lt=1, description="hidden share of an image's tokens")
    mask_clips: float = Field(0.95, gt=0, lt=1, description="hidden share of a clip's tokens")
    replicate: int = Field(4, ge=1, description="views made of one decoded clip; 1/replicate of the clips an epoch")
    target_epsilon: float = Field(1e-6, gt=0, description="added to the variance of a target tubelet")
    augment_stills: str = "PAPER_STILL_PRETRAIN"
    augment_clips: str = "PAPER_CLIP_PRETRAIN"
    batch_stills: int = Field(384, ge=1)
    batch_clips: int = Field(96, ge=1)
    lr: float = Field(1.2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)


class FinetuneConfig(Config):
    """Fine-tuning for static (SFER) and dynamic (DFER) expression recognition (released finetune/run.sh)."""

    stage: Literal["finetune"] = "finetune"
    mode: Literal["sfer", "dfer", "joint", "moae"] = Field(
        description="sfer: stills alone; dfer: clips alone; joint: both, one shared network; moae: both, with experts"
    )
    init: str | None = Field(None, description="pretrained checkpoint, or 'shipped'; None: random weights")
    fold: int = Field(1, ge=1, le=5)
    validation: float = Field(0.1, gt=0, lt=1, description="share of the training list kept for choosing the epoch")
    split_seed: int = Field(0, description="the same validation samples and few labels for every training seed")
    epoch_rule: Literal["best_on_validation", "last", "best_on_test"] = Field(
        "best_on_validation", description="best_on_test is what the released code does; it is recorded as such"
    )
    select: Literal["war", "uar"] = Field("war", description="the validation score that chooses the epoch")
    validate_every: int = Field(1, ge=1)
    train_clips: int | None = Field(None, ge=1, description="few-label run: keep this many labelled clips")
    train_stills: int | None = Field(None, ge=1)
    share_stills: float = Field(0.5, gt=0, le=1, description="released sfer_data_rate: part of the image batches")
    share_clips: float = Field(1.0, gt=0, le=1, description="released dfer_data_rate")
    balance: tuple[Modality, ...] = ()
    pool: Literal["mean", "positions"] = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    moae_blocks: tuple[int, ...] | None = Field(None, description="None: the last half in mode moae, else none")
    experts: int = Field(8, ge=1)
    top_k: int = Field(2, ge=1)
    capacity_factor: float = Field(1.0, gt=0)
    behaviour: Literal["clean", "reference"] = Field("clean", description="of the experts, or of S2D's SDL")
    balance_coeff: float = Field(1e-3, ge=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    smoothing: float = Field(0.1, ge=0, lt=1)
    final_lr: float = Field(1.25e-7, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    # The dials of the transfer laboratory (chapter 08). At their defaults nothing of the recipe above changes.
    clip_steps: int | None = Field(None, ge=1, description="an epoch is so many steps of the primary task, not a pass")
    still_ratio: float = Field(1.0, gt=0, description="with clip_steps: still steps a clip step")
    still_weight: float = Field(1.0, ge=0, description="of the loss of stills beside that of clips")
    still_labels: Literal["listed", "merged", "random"] = Field(
        "listed", description="merged: four coarse classes; random: the same labels, dealt out by chance (control)"
    )
    shuffle_stills: bool = Field(False, description="control: the patches of every still in a random order")
    leave_out: str | None = Field(None, description="class of the stills that is not trained on")
    optimizer_states: Literal["shared", "separate"] = Field("shared", description="separate: AdamW moments a task")
    remedy: str | None = Field(None, description="a name in remedies.REMEDIES: both tasks in each step")
    router: Literal["learned", "quiet", "frozen", "task", "uniform"] = "learned"  # adapters.ROUTERS
    expert_spread: float = Field(0.02, gt=0, description="standard deviation of the experts' first weights")
    # S2D (chapter 11). Its image model is mode sfer, its video model mode dfer with `init` = the image model's weights.
    system: Literal["s4d", "s2d"] = "s4d"
    prompts: bool = Field(True, description="False: the image transformer, or the video adapters, without landmarks")
    tma_init: Literal["released", "zero"] = Field("zero", description="how the temporal adapters start, see s2d.py")
    freeze: bool | None = Field(None, description="train only what S2D adds; None: in mode dfer")
    landmarks: str | None = Field("shipped", description="weights of the landmark network, or 'random' as a control")
    sdl: bool = Field(False, description="self-distillation from emotion anchors; its variant is `behaviour`")
    sdl_slots: int = Field(16, ge=1, description="anchors kept of each class")
    sdl_neighbours: int = Field(2, ge=1, description="anchors of each class that make a target")
    sdl_update_every: int | None = Field(None, ge=1, description="epochs; None: 1, in reference 100 as released")

    @model_validator(mode="after")
    def _possible(self) -> FinetuneConfig:
        both = len(self.modalities) == 2
        if self.remedy is not None and (not both or self.clip_steps is None):
            raise Refused(f"remedy={self.remedy!r} combines two tasks: mode joint or moae, and clip_steps")
        if self.remedy is not None and self.accumulate != 1:
            raise Refused("a remedy needs whole batches: accumulate=1")
        if self.remedy is not None and self.optimizer_states == "separate":
            raise Refused("a remedy makes one step of both tasks; separate optimiser states cannot be kept")
        if self.system == "s2d":
            self._possible_s2d()
        elif self.sdl or self.freeze:
            raise Refused("sdl and freeze belong to system='s2d'")
        return self

    def _possible_s2d(self) -> None:
        from s4d_lib.s2d import SIZES

        if self.mode not in ("sfer", "dfer"):
            raise Refused(f"S2D has an image model (mode sfer) and a video model (mode dfer), not {self.mode!r}")
        if self.size not in SIZES:
            raise Refused(f"size of S2D must be one of {', '.join(SIZES)}, got {self.size!r}")
        if self.pool != "mean" or self.moae_blocks:
            raise Refused("S2D reads class tokens and has no experts: pool='mean' and no moae_blocks")
        if self.prompts and self.landmarks is None:
            raise Refused("prompts are made of landmark features: name a landmark network, or set prompts=False")
        if self.sdl_slots < self.sdl_neighbours:
            raise Refused(f"sdl_slots={self.sdl_slots} cannot give sdl_neighbours={self.sdl_neighbours}")
        if self.sdl and self.behaviour == "clean" and self.epochs < 2:
            raise Refused("self-distillation begins after the first fifth of a run: epochs must be at least 2")

    @property
    def frozen(self) -> bool:
        """Whether S2D's image model stays as it is."""
        return self.system == "s2d" and (self.mode == "dfer" if self.freeze is None else self.freeze)

    @property
    def modalities(self) -> tuple[str, ...]:
        return {"sfer": ("image",), "dfer": ("clip",)}.get(self.mode, ("image", "clip"))

    @property
    def primary(self) -> str:
        """The modality whose validation score chooses the epoch."""
        return "image" if self.mode == "sfer" else "clip"

    @property
    def expert_blocks(self) -> tuple[int, ...] | str:
        if self.moae_blocks is not None:
            return self.moae_blocks
        return "last_half" if self.mode == "moae" else ()


def stays_alone(config: Config) -> str:
    """Why this configuration trains in one process only; empty where it can be shared out."""
    if getattr(config, "remedy", None) is not None:
        return "a remedy weighs the gradients of whole batches"
    if getattr(config, "sdl", False) and config.behaviour == "reference" and config.sdl_update_every:
        return "the released queues of emotion anchors would differ between processes"
    return ""


HEAD = {"image": "image", "clip": "video"}  # modality → released name of its head


def geometry(config: Config) -> tuple[int | tuple[int, int], int]:
    """What the network of a configuration reads: side, or height and width, of a picture; frames of a clip."""
    if getattr(config, "system", "s4d") == "s2d":
        from s4d_lib.s2d import SIZES as S2D_SIZES

        return S2D_SIZES[config.size]["image_size"], S2D_SIZES[config.size]["frames"]
    from s4d_lib.models import resolve_size

    size = resolve_size(config.size)
    return size.image_size, size.frames


def views(config: Config, samples: list[Sample], sampling: str, seed: int, **more: object) -> FaceDataset:
    """Samples of one kind as the stage reads them: varied in training, squared and centred in evaluation."""
    training = sampling in ("train", "pretrain")
    recipe = config.augment_stills if samples[0].kind == "image" else config.augment_clips
    side, frames = geometry(config)
    return FaceDataset(
        samples, getattr(clip_module, recipe) if training else clip_module.EVAL, side, frames,
        config.stride, sampling, seed, cache=config.cache, contrast=config.local_contrast, **more,
    )


def pretrain_job(config: PretrainConfig, samples: dict[str, list[Sample]]) -> tuple[Job, Loop]:
    """The released pretraining: one modality a step, random masks, pixels of hidden tubelets as the target."""
    from timm.optim import param_groups_weight_decay

    from s4d_lib.models import DualModalMAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = DualModalMAE(config.size, target_epsilon=config.target_epsilon)
    parts = {m: views(config, samples[m], "pretrain", config.seed, replicate=config.replicate if m == "clip" else 1)
             for m in config.modalities}
    grids = {"image": model.size.image_grid, "clip": model.size.grid}
    ratios = {"image": config.mask_stills, "clip": config.mask_clips}

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        modality = "clip" if batch["x"].ndim == 5 else "image"
        mask = draw(lambda n: random_mask(n, grids[modality], ratios[modality]), len(batch["x"]))
        return {"x": batch["x"], "mask": mask.to(batch["x"].device)}

    def loss(network: nn.Module, modality: str, batch: dict) -> Tensor:
        return network(batch["x"], batch["mask"]).loss

    job = Job(
        model=model, groups=param_groups_weight_decay(model, config.weight_decay), betas=config.betas,
        plan=_plan(config, parts, {"image": 1.0, "clip": 1.0 / config.replicate}, drop_last=False),
        data=Mixed(parts), prepare=prepare, loss=loss, label="pretraining", mixes=False,
    )
    return job, config.loop(start_lr=1e-6, warmup_in_cosine=True)


def finetune_job(config: FinetuneConfig, model: nn.Module, samples: dict[str, list[Sample]],
                 classes: dict[str, int]) -> tuple[Job, Loop]:
    """The released fine-tuning: steps of stills and steps of clips shuffled together, soft-target cross-entropy.

    The balance loss is really added here (the released loop drops it silently, engine_for_finetuning.py:75-79), unless
    `behaviour="reference"` asks for the released arithmetic.
    """
    from timm.optim import param_groups_layer_decay

    parts = {m: views(config, samples[m], "train", config.seed) for m in config.modalities}
    mixing = {m: MixupCutmix(classes[m], config.mixup, config.cutmix, float(config.mixup + config.cutmix > 0),
                             smoothing=config.smoothing) for m in config.modalities}
    weigh = config.balance_coeff if config.behaviour == "clean" else 0.0
    part_of_loss = {"image": config.still_weight if len(config.modalities) == 2 else 1.0, "clip": 1.0}

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        modality = "clip" if batch["x"].ndim == 5 else "image"
        x, target = mixing[modality](batch["x"], batch["label"], rng)
        if modality == "image" and config.shuffle_stills:
            x = shuffle_patches(x, model.size.patch)
        return {"x": x, "target": target}

    def loss(network: nn.Module, modality: str, batch: dict) -> Tensor:
        task = soft_target_cross_entropy(network(batch["x"]), batch["target"])
        return part_of_loss[modality] * task + weigh * model.balance_loss()

    combiner, groups = None, param_groups_layer_decay(model, config.weight_decay, layer_decay=config.layer_decay)
    if config.remedy is not None:
        from s4d_lib.remedies import Combiner

        combiner = Combiner(config.remedy, 2)
        if own := [p for p in combiner.parameters() if p.requires_grad]:
            groups.append({"params": own, "weight_decay": 0.0, "lr_scale": 1.0})
    job = Job(
        model=model, groups=groups, betas=config.betas, plan=finetune_plan(config, parts), data=Mixed(parts),
        prepare=prepare, loss=loss, label=f"fine-tuning ({config.mode})", combiner=combiner,
        separate=config.optimizer_states == "separate",
    )
    return job, config.loop(validate_every=config.validate_every)


def shuffle_patches(x: Tensor, patch: int) -> Tensor:
    """Images `[b 3 h w]` with their patches in another random order for each: all the colours, no face."""
    (h, w), b = (side // patch for side in x.shape[-2:]), len(x)
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) c p q", p=patch, q=patch)
    order = torch.rand(b, h * w, device=x.device).argsort(1)
    patches = patches[torch.arange(b, device=x.device)[:, None], order]
    return rearrange(patches, "b (h w) c p q -> b c (h p) (w q)", h=h, w=w)


def finetune_plan(config: FinetuneConfig, parts: dict[str, FaceDataset]) -> Callable[[int], list[Step]]:
    """Epoch → steps: a pass through the data with shares (released), or a fixed number of steps (`clip_steps`)."""
    both = len(config.modalities) == 2  # a single task sees all of its data in every epoch
    if config.clip_steps is None:
        share = {"image": config.share_stills if both else 1.0, "clip": config.share_clips if both else 1.0}
        return _plan(config, parts, share, drop_last=True, balance=config.balance)
    paired = config.remedy is not None
    stills = config.clip_steps if paired or not both else round(config.still_ratio * config.clip_steps)
    labels = {m: np.array([sample.label for sample in part.samples]) for m, part in parts.items()}
    # In a joint step the ratio makes the batch of stills larger, not more frequent: the same stills a clip.
    batch = {"image": round(config.batch_stills * (config.still_ratio if paired else 1)), "clip": config.batch_clips}
    counts = {"image": stills, "clip": config.clip_steps}
    return lambda epoch: steady_plan(labels, batch, counts, config.seed, epoch, config.balance, paired)


def _plan(config: Config, parts: dict[str, FaceDataset], share: dict[str, float], drop_last: bool,
          balance: tuple[str, ...] = ()) -> Callable[[int], list[Step]]:
    labels = {m: np.array([sample.label for sample in part.samples]) for m, part in parts.items()}
    batch = {"image": config.batch_stills, "clip": config.batch_clips}
    return lambda epoch: epoch_plan(labels, batch, share, config.seed, epoch, drop_last, balance)


def training_split(config: FinetuneConfig, modality: str, listed: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) of one modality: validation is cut off first, then the few labels are drawn from the rest."""
    listed = _relabelled(config, modality, listed)
    train, validation = split_validation(listed, config.validation, config.split_seed)
    count = config.train_clips if modality == "clip" else config.train_stills
    return (few_labels(train, count, config.split_seed) if count else train), validation


def _relabelled(config: FinetuneConfig, modality: str, listed: list[Sample]) -> list[Sample]:
    """What the controls of chapter 08 do to the stills: labels by chance, or one class left out."""
    if modality == "clip":
        return listed
    if config.still_labels == "random":
        order = np.random.default_rng(config.split_seed).permutation(len(listed))
        listed = [replace(sample, label=listed[i].label) for sample, i in zip(listed, order)]
    if config.leave_out is not None:
        without = config.schema("image").label(config.leave_out, "leave_out")
        listed = [sample for sample in listed if sample.label != without]
    return listed


COARSE = {"Happiness": "Positive", "Surprise": "Surprise", "Neutral": "Neutral"}  # all others: Negative


def merge_classes(samples: list[Sample]) -> list[Sample]:
    """Samples under four coarse classes (schema `coarse4`): what a still set with another idea of labels looks like."""
    coarse, fine = schema_named("coarse4"), schema_named(samples[0].schema)
    to = [coarse.classes.index(COARSE.get(name, "Negative")) for name in fine.classes]
    return [replace(sample, label=to[sample.label], schema=coarse.name) for sample in samples]
