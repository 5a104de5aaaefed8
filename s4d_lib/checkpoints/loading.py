"""file → any model     all models that this library saves, and `load_model`, which rebuilds whichever it is."""

from pathlib import Path
from typing import Any

from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.landmark_net import LandmarkNet
from s4d_lib.models.photograph_classifier import PhotographClassifier
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.weights.files import rebuild

Model = DualModalMAE | S4DClassifier | DualModalEncoder | S2DClassifier | LandmarkNet | PhotographClassifier
MODELS = {kind.__name__: kind for kind in (DualModalMAE, S4DClassifier, DualModalEncoder, S2DClassifier, LandmarkNet,
                                           PhotographClassifier)}


def load_model(path: str | Path, **changes: Any) -> Model:
    """Rebuild the model that `save_model` wrote, on the CPU and in evaluation mode.

    `changes` replace arguments that the file describes: `load_model(path, behaviour="reference")`. Of keys that
    the file names as missing the initial values are used, with a warning. BadCheckpoint where the file holds no model
    of ours, or contradicts itself.
    """
    return rebuild(path, MODELS.values(), **changes)
