"""config → job     what pretraining and fine-tuning are: their models, their steps, their losses.

Derived in chapters 06, 07, 08 and 09.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from s4d_lib.clips import MixupCutmix
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.samples import Sample
from s4d_lib.distributed import draw
from s4d_lib.layers.losses import soft_target_cross_entropy
from s4d_lib.layers.masking import random_mask, split_index
from s4d_lib.layers.tokens import Grid
from s4d_lib.training.configs import HEAD, Config, FinetuneConfig, PretrainConfig
from s4d_lib.training.data import views
from s4d_lib.training.loop import Job, Loop
from s4d_lib.training.plans import Mixed, Step, epoch_plan, steady_plan


def pretrain_job(config: PretrainConfig, samples: dict[str, list[Sample]]) -> tuple[Job, Loop]:
    """The released pretraining: one modality a step, random masks, pixels of hidden tubelets as the target."""
    from timm.optim import param_groups_weight_decay

    from s4d_lib.models.autoencoder import DualModalMAE

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = DualModalMAE(config.size, target_epsilon=config.target_epsilon)
    parts = {m: views(config, samples[m], "pretrain", config.seed, replicate=config.replicate if m == "clip" else 1)
             for m in config.modalities}
    grids = {"image": model.size.image_grid, "clip": model.size.grid}
    ratios = {"image": config.mask_stills, "clip": config.mask_clips}

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        modality = "clip" if batch["x"].ndim == 5 else "image"
        # Counted here, where the mask is made: how many tokens are visible is a shape, and the device need not tell it.
        visible, hidden = hidden_places(len(batch["x"]), grids[modality], ratios[modality], config.decoder_share)
        to = {"device": batch["x"].device, "non_blocking": True}
        return {"x": batch["x"], "visible": visible.to(**to), "hidden": hidden.to(**to)}

    def loss(network: nn.Module, modality: str, batch: dict) -> Tensor:
        return network.loss(batch["x"], batch["visible"], batch["hidden"])

    job = Job(
        model=model, groups=param_groups_weight_decay(model, config.weight_decay), betas=config.betas,
        plan=pass_plan(config, parts, {"image": 1.0, "clip": 1.0 / config.replicate}, drop_last=False),
        data=Mixed(parts), prepare=prepare, loss=loss, label="pretraining", mixes=False,
    )
    return job, config.loop(start_lr=1e-6, warmup_in_cosine=True)


def hidden_places(rows: int, grid: Grid, ratio: float, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """A random mask's visible tokens and the hidden ones that are painted, int64 `[b v]` and `[b h]`.

    `share` below 1 paints that part of the hidden tokens, at least one, drawn anew for each sample.
    """
    visible, hidden = split_index(draw(lambda n: random_mask(n, grid, ratio), rows))
    if share < 1:
        order = draw(lambda n: torch.rand(n, hidden.shape[1]), rows).argsort(dim=1)
        hidden = hidden.gather(1, order[:, : max(1, int(share * hidden.shape[1]))])
    return visible, hidden


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
    heads: dict[str, list[nn.Parameter]] = {}
    if config.remedy is not None:
        from s4d_lib.training.remedies import Combiner

        combiner, heads = Combiner(config.remedy, 2), {m: list(model.head[HEAD[m]].parameters()) for m in HEAD}
        if own := [p for p in combiner.parameters() if p.requires_grad]:
            groups.append({"params": own, "weight_decay": 0.0, "lr_scale": 1.0})
    job = Job(
        model=model, groups=groups, betas=config.betas, plan=finetune_plan(config, parts), data=Mixed(parts),
        prepare=prepare, loss=loss, label=f"fine-tuning ({config.mode})", combiner=combiner,
        heads=heads, separate=config.optimizer_states == "separate",
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
        return pass_plan(config, parts, share, drop_last=True, balance=config.balance)
    paired = config.remedy is not None
    stills = config.clip_steps if paired or not both else round(config.still_ratio * config.clip_steps)
    labels = {m: np.array([sample.label for sample in part.samples]) for m, part in parts.items()}
    # In a joint step the ratio makes the batch of stills larger, not more frequent: the same stills a clip.
    batch = {"image": round(config.batch_stills * (config.still_ratio if paired else 1)), "clip": config.batch_clips}
    counts = {"image": stills, "clip": config.clip_steps}
    return lambda epoch: steady_plan(labels, batch, counts, config.seed, epoch, config.balance, paired)


def pass_plan(config: Config, parts: dict[str, FaceDataset], share: dict[str, float], drop_last: bool,
          balance: tuple[str, ...] = ()) -> Callable[[int], list[Step]]:
    labels = {m: np.array([sample.label for sample in part.samples]) for m, part in parts.items()}
    batch = {"image": config.batch_stills, "clip": config.batch_clips}
    return lambda epoch: epoch_plan(labels, batch, share, config.seed, epoch, drop_last, balance)
