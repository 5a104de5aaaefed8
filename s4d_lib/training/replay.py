"""diverged run → the step again     the step that a training did not take, taken once more and looked into.

    from s4d_lib.training.replay import replay
    print(replay("runs/dfer-0123456789abcdef"))

It needs the folder of the run alone: what `training.divergence.keep` left there are the weights before the step, the
batch as it was loaded and what was learned beside the model. Random numbers are those of the step, which its number
decides, so on the same kind of device the same numbers come out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import Refused
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig
from s4d_lib.training.divergence import KEPT, TOLD, gradient_norm
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.jobs import finetune_job, pretrain_job
from s4d_lib.training.loop import Job
from s4d_lib.training.plans import seeded
from s4d_lib.training.s2d import s2d_job


@dataclass(frozen=True)
class Replayed:
    """One step again: modality → loss, the norm of its gradients, and the first part that gave no finite number."""

    step: int
    losses: dict[str, float]
    gradient_norm: float
    first: str                     # name of a module of the model; empty where all of them gave numbers
    files: dict[str, list[str]]

    def __str__(self) -> str:
        where = f"; the first to give no finite number is {self.first}" if self.first else ""
        said = ", ".join(f"{modality} {value:.6g}" for modality, value in self.losses.items())
        return f"step {self.step}: loss {said}, gradient {self.gradient_norm:.6g}{where}"


def replay(folder: str | Path, device: str = "cpu") -> Replayed:
    """The step that ended the run in `folder`. Refused where it keeps none."""
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("config.json", TOLD, KEPT):
        if not (folder / name).is_file():
            raise Refused(f"{folder / name}: not there; a run of `s4d train` in one process leaves it when a step "
                          "is not finite")
    said = json.loads((folder / TOLD).read_text())
    settings = json.loads((folder / "config.json").read_text())
    config = (PretrainConfig if settings["stage"] == "pretrain" else FinetuneConfig).model_validate(settings)
    job, kept = _job(config), load_file(folder / KEPT)
    job.model.load_state_dict(_below("model.", kept))
    for name, part in job.keep.items():
        part.load_state_dict(_below(f"keep.{name}.", kept))
    for part in (job.model, *job.keep.values()):
        part.to(device).train()
    if job.begin_epoch is not None:
        job.begin_epoch(said["epoch"])
    first: list[str] = []
    hooks = [part.register_forward_hook(_watch(name, first)) for name, part in job.model.named_modules() if name]
    losses = {}
    with seeded(config.seed, said["step"]) as rng:
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(config.precision)
        for modality in said["batch"]:
            batch = {name: value.to(device) for name, value in _below(f"batch.{modality}.", kept).items()}
            prepared = job.prepare(batch, rng)
            with torch.autocast(device.partition(":")[0], half, enabled=half is not None):
                loss = job.loss(job.model, modality, prepared)
            loss.backward()
            losses[modality] = float(loss.detach())
    for hook in hooks:
        hook.remove()
    norm = float(gradient_norm(list(job.model.parameters())))
    return Replayed(said["step"], losses, norm, first[0] if first else "", said["batch"])


def _job(config: Config) -> Job:
    """The job of a configuration on samples that are names alone: what is read was kept."""
    config = config.model_copy(update={"init": None} if isinstance(config, FinetuneConfig) else {})
    named = {m: [Sample("0", Path(m), 0, m, schema=None if isinstance(config, PretrainConfig) else
                        config.schema(m).name)] for m in config.modalities}
    if isinstance(config, PretrainConfig):
        return pretrain_job(config, named)[0]
    classes = {m: len(config.schema(m)) for m in config.modalities}
    make = s2d_job if config.system == "s2d" else finetune_job
    return make(config, build_classifier(config), named, classes)[0]


def _below(prefix: str, kept: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}


def _watch(name: str, first: list[str]) -> object:
    def look(part: nn.Module, given: tuple, answer: object) -> None:
        if not first and isinstance(answer, Tensor) and not torch.isfinite(answer).all():
            first.append(name)

    return look
