"""config, samples → weights     the two stages as acts: read the data, fit, score, and say what came out.

Derived in chapters 06 and 07.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from s4d_lib import distributed
from s4d_lib.checkpoints.encoders import load_encoder
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.errors import Refused
from s4d_lib.files import replacing, save_tensors, sha256_of, write_atomically
from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.progress import say
from s4d_lib.records import DataUse, Record
from s4d_lib.training.configs import HEAD, FinetuneConfig, PretrainConfig
from s4d_lib.training.content import trained_on
from s4d_lib.training.data import Split, pretraining_samples, split_data, views
from s4d_lib.training.fingerprints import finetune_headline, init_path, run_record
from s4d_lib.training.jobs import finetune_job, pretrain_job
from s4d_lib.training.loop import run_job
from s4d_lib.training.s2d import build_s2d, describe_s2d, s2d_job
from s4d_lib.training.scoring import score_test, validation_scores
from s4d_lib.training.state import Progressed, read_losses
from s4d_lib.weights.files import save_model


def pretrain(config: PretrainConfig, data: dict[str, DataUse], folder: Path, mark: str) -> Record | None:
    """Pretrain in a run's folder; the record, or None in a process that is not the first of several."""
    samples, skipped = pretraining_samples(config)
    job, loop = pretrain_job(config, samples)
    where = run_job(job, loop, folder, mark)
    if not distributed.is_first():
        return None
    save_model(folder / "model.safetensors", job.model, {"config": config.model_dump(exclude={"stills", "clips"})})
    losses = {m: _tail_loss(folder, m) for m in config.modalities}
    headline = "masked loss " + ", ".join(f"{m} {value:.3f}" for m, value in losses.items())
    return run_record(config, "pretrain", f"{headline} after {where.update} steps", where, {
        "loss_last_tenth": losses, "updates": where.update,
    }, data, {m: {"train": len(s)} for m, s in samples.items()}, skipped)


def _tail_loss(folder: Path, modality: str) -> float:
    """Mean loss over the last tenth of the steps of one modality; 1.0 is what predicting the mean scores."""
    losses = read_losses(folder, modality)[:, 1]
    return float(losses[-max(1, len(losses) // 10) :].mean())


def finetune(config: FinetuneConfig, data: dict[str, DataUse], folder: Path, mark: str) -> Record | None:
    """Fine-tune in a run's folder; the record, or None in a process that is not the first of several."""
    split = split_data(config)
    fitted = fit(config, split, folder, mark)
    tested = score_test(config, fitted.model, split.test)
    if not distributed.is_first():
        return None
    with replacing(folder / "predictions.npz") as part, open(part, "wb") as file:  # by a path savez would add .npz
        np.savez(file, **tested.answers)
    where = fitted.where
    outcome = {"history": where.history, "chosen_epoch": where.best_epoch, "updates": where.update} | tested.scores
    return run_record(config, "finetune", finetune_headline(config, outcome), where, outcome, data, split.counts,
                      split.skipped)


@dataclass(frozen=True)
class Fitted:
    """A model with the weights of the chosen epoch, as they were saved, and the way of its training."""

    model: nn.Module
    where: Progressed


def fit(config: FinetuneConfig, split: Split, folder: Path, mark: str) -> Fitted:
    """Train to the end or go on, choose the epoch, and leave `model.safetensors` in the folder."""
    model = build_classifier(config, folder / "encoder_report.txt" if distributed.is_first() else None)
    classes = {m: len(config.schema(m)) for m in config.modalities}
    make = s2d_job if config.system == "s2d" else finetune_job
    job, loop = make(config, model, split.train, classes)
    chosen_on = split.test if config.epoch_rule == "best_on_test" else split.validation
    sets = {m: views(config, samples, "centre", 0) for m, samples in chosen_on.items()}
    job.validate = lambda network: validation_scores(config, network, sets)
    job.selects = None if config.epoch_rule == "last" else f"{config.primary}_{config.select}"
    about = _description(config)
    job.save_best = lambda network: save_model(folder / "model.safetensors", network, about)
    where = run_job(job, loop, folder, mark)
    if distributed.is_first():
        for name, part in job.keep.items():
            save_tensors(folder / f"{name}.safetensors", {k: value.cpu() for k, value in part.state_dict().items()})
    _require_chosen(folder / "model.safetensors", where)
    chosen = load_model(folder / "model.safetensors").to(next(job.model.parameters()).device)
    if isinstance(chosen, S2DClassifier):
        chosen.use_memory(config.landmark_memory)
    return Fitted(chosen, where)


def _require_chosen(weights: Path, where: Progressed) -> None:
    """Refused where the weights of the chosen epoch are not those that were written at its end."""
    if distributed.is_first() and sha256_of(weights) != where.best_sha256:
        raise Refused(f"{weights}: not the weights that epoch {where.best_epoch} of this run ended with; train it anew "
                      "with retrain (`s4d train --retrain`)")


def _description(config: FinetuneConfig) -> dict:
    """What the file of a trained model says of it."""
    about = {"schemas": {HEAD[m]: config.schema(m).name for m in config.modalities}, "stride": config.stride,
             "trained_on": trained_on(config)}
    about |= {"local_contrast": True} if config.local_contrast else {}
    return about | (describe_s2d(config) if config.system == "s2d" else {})


def build_classifier(config: FinetuneConfig, report_to: Path | None = None) -> S4DClassifier | S2DClassifier:
    """The model of a configuration, with the pretrained encoder in place when one is named.

    One line is printed about what was loaded; the fate of every key goes to `report_to`.
    """
    if config.system == "s2d":
        return build_s2d(config, config.init and init_path(config.init), report_to)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        classes = {HEAD[m]: len(config.schema(m)) for m in config.modalities}
        model = S4DClassifier(config.size, classes, config.expert_blocks, config.experts, config.top_k,
                              config.capacity_factor, config.behaviour, config.pool, config.dropout, config.router)
        with torch.no_grad():  # the models' own spread is 0.02 at every width, which makes narrow experts quiet
            for moae in (part for part in model.modules() if isinstance(part, MixtureOfAdapterExperts)):
                for layer in (layer for expert in moae.experts for layer in (expert.fc1, expert.fc2)):
                    layer.weight.mul_(config.expert_spread / 0.02)
    if config.init:
        report = str(load_encoder(model, init_path(config.init)))
        say(report.splitlines()[0])
        if report_to:
            write_atomically(report_to, report + "\n")
    return model
