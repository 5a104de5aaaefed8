"""config → model, job     S2D's two stages: an image model on stills, then prompts and adapters on clips; with SDL.

Stage 1 (mode sfer) trains an image transformer with landmark prompts on stills. Its code is not released: this follows
the paper ("ViT and MCPs only", arXiv 2312.05447) and its authors' word that the temporal modules are removed. Stage 2
(mode dfer) starts from its weights, adds time, and trains only what S2D adds (released
`run_class_finetuning.py:377-381`). Both run through `loop.py`; `fitting.py` calls what stands here. Derived in
chapter 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s4d_lib.checkpoints.s2d_weights import load_image_model
from s4d_lib.clips import MixupCutmix
from s4d_lib.datasets.samples import Sample
from s4d_lib.distributed import gather_rows
from s4d_lib.layers.losses import soft_target_cross_entropy
from s4d_lib.models.landmark_net import LandmarkNet, load_landmarks
from s4d_lib.models.s2d import S2D_SIZES, S2DClassifier
from s4d_lib.models.self_distillation import RELEASED_UPDATE, AnchorSchedule, EmotionAnchors, collect, read
from s4d_lib.progress import say
from s4d_lib.training.configs import HEAD, FinetuneConfig
from s4d_lib.training.data import views
from s4d_lib.training.jobs import finetune_plan, shuffle_patches
from s4d_lib.training.loop import Job, Loop
from s4d_lib.training.plans import Mixed
from s4d_lib.weights.wheels import FACE_MESH

UNTRAINED = 0.25  # width of the landmark network of landmarks="random": that of the shipped one


def build_s2d(config: FinetuneConfig, init: Path | None = None, report_to: Path | None = None) -> S2DClassifier:
    """The model of a configuration: landmark network loaded, image model from `init`, frozen where it should be.

    One line is printed about what was loaded; the fate of every key goes to `report_to`.
    """
    mesh = config.prompts and config.landmarks == FACE_MESH
    landmarks = _landmarks(config.landmarks) if config.prompts and not mesh else None
    schema = config.schema(config.primary)
    shape = S2D_SIZES[config.size] | {"num_classes": len(schema), "dropout": config.dropout,
                                      "prompts": config.prompts, "tma_init": config.tma_init}
    if config.mode == "sfer":
        shape |= {"frames": 1, "temporal": False}
    if landmarks is not None:
        shape["landmark_net"] = True if landmarks.width == 1 else landmarks.width
    elif mesh:
        shape["landmark_net"] = FACE_MESH
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = S2DClassifier(**shape)
    if landmarks is not None:
        model.landmark_net.load_state_dict(landmarks.state_dict())
    model.use_memory(config.landmark_memory)
    if init is not None:
        # As released, the head of the image stage never reaches the video stage: its key has another name there.
        report = load_image_model(model, init, schema.classes if config.behaviour == "clean" else None)
        say(str(report).splitlines()[0])
        if report_to:
            report_to.write_text(f"{report}\n")
    return model.freeze_image_model() if config.frozen else model


def _landmarks(file: str) -> LandmarkNet:
    """The network of a file; "random" is an untrained one, the same in both stages and for every seed."""
    if file != "random":
        return load_landmarks(file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LandmarkNet(UNTRAINED)


def describe_s2d(config: FinetuneConfig) -> dict[str, Any]:
    """What a trained model's file says of it, for `checkpoints/cards.py`, the Hub and the next stage."""
    task = HEAD[config.primary]
    return {"schemas": {task: config.schema(config.primary).name}, "stride": config.stride,
            "config": {"name": config.name, "stage": f"S2D {'image' if config.mode == 'sfer' else 'video'} model"}}


def s2d_job(config: FinetuneConfig, model: S2DClassifier, samples: dict[str, list[Sample]],
            classes: dict[str, int]) -> tuple[Job, Loop]:
    """Soft-target cross-entropy on one modality; with `sdl` the loss of the emotion anchors is added."""
    from timm.optim import param_groups_layer_decay

    modality = config.primary
    parts = {modality: views(config, samples[modality], "train", config.seed)}
    mixing = MixupCutmix(classes[modality], config.mixup, config.cutmix, float(config.mixup + config.cutmix > 0),
                         smoothing=config.smoothing)
    distil = Distillation(config, model, [sample.label for sample in samples[modality]]) if config.sdl else None

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        x, target = mixing(batch["x"], batch["label"], rng)
        if modality == "image" and config.shuffle_stills:
            x = shuffle_patches(x, model.config["patch"])
        # A second copy of the input only where a step will read it again.
        again = {"plain": batch["x"], "label": batch["label"]} if distil and distil.collecting else {}
        return {"x": x, "target": target} | again

    def loss(network: nn.Module, modality: str, batch: dict) -> Tensor:
        if distil:
            return distil.loss(network, batch["x"], batch["target"])
        return soft_target_cross_entropy(network(batch["x"]), batch["target"])

    groups = param_groups_layer_decay(model, config.weight_decay, no_weight_decay_list=model.no_weight_decay(),
                                      layer_decay=config.layer_decay)
    hooks = {} if distil is None else {"begin_epoch": distil.begin, "after_step": distil.after, "observe": distil.state,
                                       "keep": {"sdl": distil.anchors}}
    stage = "image" if config.mode == "sfer" else "video"
    job = Job(model=model, groups=groups, betas=config.betas, plan=finetune_plan(config, parts), data=Mixed(parts),
              prepare=prepare, loss=loss, label=f"S2D, {stage} model", **hooks)
    return job, config.loop(validate_every=config.validate_every)


class Distillation:
    """SDL inside a training: which epoch it is, the anchors, and the three moments of a step that concern them.

    In `reference` the released schedule never updates the queues, unless `sdl_update_every` says otherwise.
    """

    def __init__(self, config: FinetuneConfig, model: S2DClassifier, labels: Sequence[int]) -> None:
        every = config.sdl_update_every or (RELEASED_UPDATE if config.behaviour == "reference" else 1)
        self.schedule = AnchorSchedule(config.epochs, every, behaviour=config.behaviour)
        self.anchors = EmotionAnchors(model.num_classes, model.num_features, config.sdl_slots, config.sdl_neighbours,
                                      config.behaviour, sorted(set(labels)), gather_rows, config.seed)
        self.epoch = 0

    def begin(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def collecting(self) -> bool:
        return self.schedule.updates(self.epoch)

    def loss(self, network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the task plus the weighted loss of the anchors, on one micro-batch."""
        logits, features = read(network, x, behaviour=self.anchors.behaviour)
        weight = self.schedule.weight(self.epoch)
        return soft_target_cross_entropy(logits, target) + self.anchors.loss(logits, features, weight)

    def after(self, model: nn.Module, modality: str, batch: dict) -> None:
        # Loss, step, then push, as released: in its own step a sample is never its own anchor.
        if self.collecting:
            collect(self.anchors, model, batch["label"], batch["plain"])

    def state(self) -> dict[str, float]:
        """What the queues hold: numbers of the anchors alone, so a resumed run says the same."""
        kept = [self.anchors.anchors(label)[1][:, label] for label in self.anchors.present]
        own = torch.cat(kept)
        return {"sdl_anchors": float(self.anchors.filled.sum()), "sdl_pushed": float(self.anchors.pushed.sum()),
                "sdl_own_class": float(own.mean()) if len(own) else 0.0,
                "sdl_weight": self.schedule.weight(self.epoch)}
