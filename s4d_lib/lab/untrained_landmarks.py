"""faces → landmark network     the control of S2D's prompts: the shipped layout and loudness, and nothing learned.

Weights are as drawn; only the batch norms have seen faces, so that features are as loud as a trained network's. Without
that an untrained network is three orders of magnitude quieter, and a classifier that ignores it would say nothing about
landmarks. What is left is a fixed bank of random filters on a finer grid than the tokens'. Derived in chapter 11.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from s4d_lib.clips import normalise
from s4d_lib.models.landmark_net import LandmarkNet, load_landmarks
from s4d_lib.synthetic_faces.landmark_faces import COARSE, RECIPE, DrawnFaces
from s4d_lib.weights.files import save_model

BATCHES, BATCH = 4, 64
SEED = 0  # of the weights; one control network, as there is one shipped network


def untrained_landmarks(file: Path) -> Path:
    """The file of the control network, written when it is not there; `load_landmarks(file)` reads it.

    Its faces are those of the laboratory's kind, 48 px and through `frames/local_contrast.py`, of people in no other
    set.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(file, settled(unsettled()), {"units": "none: untrained", "data": "drawn faces, batch norms only"})
    return file


def unsettled() -> LandmarkNet:
    """The shipped layout with the weights of `SEED` and batch norms that have seen nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return LandmarkNet(load_landmarks().width)


@torch.no_grad()
def settled(net: LandmarkNet) -> LandmarkNet:
    """`net` with batch norms that hold the plain mean over `BATCHES` batches of faces, in evaluation mode."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a plain mean over everything seen
    faces = DrawnFaces(BATCHES * BATCH, "validation", seed=9, recipe=replace(RECIPE, size=COARSE), contrast=True)
    net.train()
    for start in range(0, len(faces), BATCH):
        x = torch.stack([faces[i]["x"] for i in range(start, start + BATCH)])
        net(normalise(x / 255, axis=1))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return net.eval()
