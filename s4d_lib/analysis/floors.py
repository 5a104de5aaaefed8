"""samples → floors     what almost nothing scores: majority class, pixel ridge, random-encoder probe.

A model means something only above these. All three see the same training, validation and test samples as the model
beside which they are printed, and everything about them is chosen on the validation samples. Derived in chapter 07.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from s4d_lib.clips import EVAL, denormalise
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.samples import Sample
from s4d_lib.errors import require
from s4d_lib.metrics.scores import Scores, score
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import resolve_size

ALPHAS = (10.0, 100.0, 1e3, 1e4, 1e5)  # ridge penalties to choose from, on standardised features
Split = dict[str, list[Sample]]        # "train", "validation", "test"


def floors(split: Split, classes: tuple[str, ...], size: str = "tiny", stride: int = 4,
           seed: int = 0) -> dict[str, Scores]:
    """The three floors on one split: {"majority", "pixel_ridge", "random_encoder"} → scores on `split["test"]`."""
    features = {name: read_features(samples, size, stride, seed) for name, samples in split.items()}
    labels = {name: np.array([sample.label for sample in samples]) for name, samples in split.items()}
    majority = np.zeros((len(labels["test"]), len(classes)))
    majority[:, np.bincount(labels["train"]).argmax()] = 1.0
    *pixels, probe = ({name: found[i] for name, found in features.items()} for i in range(4))
    return {
        "majority": score(majority, labels["test"], classes),
        "pixel_ridge": score(ridge(pixels, labels, len(classes)), labels["test"], classes),
        "random_encoder": score(ridge([probe], labels, len(classes)), labels["test"], classes),
    }


def read_pictures(samples: list[Sample], size: str, stride: int) -> Tensor:
    """All samples as the model reads them in evaluation: `[n 3 t h w]`, stills with t = 1."""
    shape = resolve_size(size)
    dataset = FaceDataset(samples, EVAL, shape.image_size, shape.frames, stride, "centre")
    pictures = torch.stack([dataset[i]["x"] for i in range(len(dataset))])
    return pictures if pictures.ndim == 5 else pictures.unsqueeze(2)


def read_features(samples: list[Sample], size: str, stride: int, seed: int, batch: int = 64) -> list[Tensor]:
    """What the floors see of the samples: three views of the pixels, then the random encoder's, each `[n f]`.

    Read a batch at a time: at the paper's size the pictures of one DFEW fold would fill 50 GB.
    """
    model, parts = random_encoder(size, seed), []
    for i in range(0, len(samples), batch):
        x = read_pictures(samples[i : i + batch], size, stride)
        parts.append([*(view(x) for view in (grey_mean, grey_in_time, grey_contrast)), random_features(x, model)])
    return [torch.cat(part) for part in zip(*parts)]


def grey_mean(x: Tensor) -> Tensor:
    """Grey levels, averaged over time and 2×2 pixels: `[n 3 t h w]` → `[n f]`."""
    return F.avg_pool2d(denormalise(x).mean((1, 2)).unsqueeze(1), 2).flatten(1)


def grey_in_time(x: Tensor) -> Tensor:
    """The same in four parts of the clip, so that a linear model can see order."""
    parts = min(4, x.shape[2])
    grey = rearrange(denormalise(x).mean(1), "n (p t) h w -> n p t h w", p=parts).mean(2)
    return F.avg_pool2d(grey, 4 if parts > 1 else 2).flatten(1)


def grey_contrast(x: Tensor, window: int = 9) -> Tensor:
    """Grey levels relative to their neighbourhood's mean and spread, averaged over time and 2×2 pixels.

    Not the pictures of `frames/local_contrast.py`, which are bytes that a network is fed: these features mirror the
    picture at its edge and are not rounded, and every floor in the records was measured with them.
    """
    def blur(z: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(z, [window // 2] * 4, mode="reflect"), window, 1)

    grey = rearrange(denormalise(x).mean(1), "n t h w -> (n t) 1 h w")
    detail = grey - blur(grey)
    detail = detail / (blur(blur(detail**2).sqrt()) + 0.03)
    return F.avg_pool2d(rearrange(detail, "(n t) 1 h w -> n t h w", n=len(x)).mean(1, keepdim=True), 2).flatten(1)


def random_encoder(size: str, seed: int) -> S4DClassifier:
    """An encoder that was never trained, on a GPU where there is one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = S4DClassifier(size, pool="positions").eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def random_features(x: Tensor, model: S4DClassifier) -> Tensor:
    """What the encoder makes of the pictures, places kept: what the architecture gives for nothing."""
    x = x.squeeze(2) if x.shape[2] == 1 else x
    device = next(model.parameters()).device
    return torch.cat([model.features(part.to(device)).cpu() for part in x.split(64)])


def ridge(candidates: list[dict[str, Tensor]], labels: dict[str, np.ndarray], classes: int) -> np.ndarray:
    """Best of several feature sets and penalties on validation → one-hot test predictions `[n classes]`.

    Features are {"train", "validation", "test"} → `[n f]`; every feature is standardised on the training samples.
    """
    require("sklearn", "lab")
    from sklearn.linear_model import RidgeClassifier

    best, best_war = None, -1.0
    for features in candidates:
        mean, spread = features["train"].mean(0), features["train"].std(0) + 1e-3
        scaled = {name: ((x - mean) / spread).numpy() for name, x in features.items()}
        for alpha in ALPHAS:
            model = RidgeClassifier(alpha=alpha).fit(scaled["train"], labels["train"])
            war = (model.predict(scaled["validation"]) == labels["validation"]).mean()
            if war > best_war:
                best, best_war = model.predict(scaled["test"]), war
    return np.eye(classes)[best]
