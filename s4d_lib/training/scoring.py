"""model, samples → probabilities, scores     what a model says of the samples it was not trained on.

Derived in chapter 07.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from s4d_lib import distributed
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.metrics.held_out import HeldOut
from s4d_lib.metrics.scores import score
from s4d_lib.training.configs import Config, FinetuneConfig
from s4d_lib.training.data import Samples, views
from s4d_lib.training.divergence import Diverged
from s4d_lib.training.plans import Batches

TEST_SAMPLING = {"image": "centre", "clip": "test"}  # the whole picture; two temporal views


@dataclass(frozen=True)
class Tested:
    """A run's scores on its test samples (`test_image`, `test_clip`), and the answers that they were made of."""

    scores: dict[str, dict]
    answers: dict[str, np.ndarray]


def score_test(config: FinetuneConfig, model: nn.Module, test: Samples) -> Tested:
    """Every test sample once; the answers of modality m are `m_probabilities` `[n classes]`, `m_labels`, `m_ids` and
    `m_people`, each `[n]`."""
    scores, answers = {}, {}
    for m in config.modalities:
        found, labels = probabilities(model, views(config, test[m], TEST_SAMPLING[m], 0), config)
        said = HeldOut.of(labels, found.argmax(1), [s.id for s in test[m]], [s.group for s in test[m]])
        scores[f"test_{m}"] = score(found, labels, config.schema(m).classes).as_dict() | {"held_out": said.as_dict()}
        answers |= {f"{m}_probabilities": found, f"{m}_labels": labels,
                    f"{m}_ids": np.array([sample.id for sample in test[m]]),
                    f"{m}_people": np.array([sample.group or sample.id for sample in test[m]])}
    return Tested(scores, answers)


def validation_scores(config: FinetuneConfig, network: nn.Module, sets: dict[str, FaceDataset]) -> dict[str, float]:
    """WAR and UAR of every modality in `sets`, in percent, such as {"clip_war": 43.0, "clip_uar": 41.2}."""
    values = {}
    for modality, dataset in sets.items():
        found, labels = probabilities(network, dataset, config)
        scores = score(found, labels, config.schema(modality).classes)
        values |= {f"{modality}_war": scores.war.value, f"{modality}_uar": scores.uar.value}
    return values


@torch.inference_mode()
def probabilities(model: nn.Module, dataset: FaceDataset, config: Config, batch: int = 64
                  ) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities `[n classes]` and labels `[n]`; several views of a clip count by their mean softmax.

    Several processes take the batches in turn, each sample once, and all get all answers.
    """
    if distributed.size() > 1 and getattr(config, "behaviour", "clean") == "clean":
        batch = max(1, min(batch, -(-len(dataset) // distributed.size())))  # no batch mates matter, so all can be busy
    batches = [range(i, min(i + batch, len(dataset))) for i in range(0, len(dataset), batch)]
    batches = batches[distributed.rank() :: distributed.size()]
    device = next(model.parameters()).device
    model.eval()
    found = []
    for own, items in zip(batches, DataLoader(Batches(dataset), None, sampler=batches, num_workers=config.workers)):
        softmax = model(items["x"].to(device)).float().softmax(-1).cpu()
        found.append((own.start, softmax.unflatten(0, (-1, items["views"])).mean(1), items["label"]))
    found = sorted((part for parts in distributed.gathered(found) for part in parts), key=lambda part: part[0])
    _, softmaxes, labels = zip(*found)
    answers = torch.cat(softmaxes).double()
    if bad := (~torch.isfinite(answers).all(1)).nonzero()[:, 0].tolist():
        raise Diverged(f"{config.name}: for {len(bad)} of {len(answers)} samples the network's answer is not a number, "
                       f"such as {dataset.samples[bad[0]].path}; it has diverged: lower lr, or set clip_norm")
    return answers.numpy(), torch.cat(labels).numpy()
