"""file → image model     what S2D starts from: its own image stage, an image MAE, or the book's dual-modal encoder.

Every key is accounted for in a `KeyReport`, as in `checkpoints.load_encoder`. An encoder of clips becomes one of
images by `checkpoints.layouts.to_released("mae", …)`: its kernel summed over time, which is exact on equal frames.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from s4d_lib.checkpoints.allowance import Allowance
from s4d_lib.checkpoints.encoders import KeyReport, place, size_of
from s4d_lib.checkpoints.layouts import recognise, strip_wrappers, to_ours, to_released
from s4d_lib.checkpoints.loading import MODELS
from s4d_lib.checkpoints.names import RECONSTRUCTION, TRUNK, UNKNOWN, BadTensor
from s4d_lib.datasets.labels import SCHEMAS, canonical
from s4d_lib.layers.tokens import position_table
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.weights.containers import BadCheckpoint, Contents, read_contents
from s4d_lib.weights.files import check_shapes, metadata_of, own_model

HEAD_KEYS = ("head.fc_cls.weight", "head.fc_cls.bias")
NO_HEAD = "the head starts fresh"
OTHER_LANDMARKS = "not the landmark network of this model, which stays"


def load_image_model(model: S2DClassifier, path: str | Path, classes: Sequence[str] | None = None) -> KeyReport:
    """Put what a file knows of the image model into `model`, in place; return what became of every key.

    `classes` names the model's classes in order: if the file's head has the same classes by name, its rows are put into
    that order and kept; None leaves the head fresh. The model keeps the landmark network that it has; a file with
    another one is reported so. BadCheckpoint where the transformer would load in part, or in another shape.
    """
    contents = read_contents(path)
    tensors, source, dropped, notes, layout = _image_tensors(contents, model)
    state, found = model.state_dict(), {}
    for key, tensor in tensors.items():
        reason = _no_place(key, tensor, state)
        if reason is None:
            found[key] = tensor
        else:
            dropped |= dict.fromkeys(source[key], reason)
    inside = [old for key in tensors if key not in found and TRUNK.match(key) for old in source[key]]
    Allowance(contents.path).refuse_unplaced(dropped | dict.fromkeys(inside, UNKNOWN))
    _sort_head(contents, model, found, source, dropped, classes)
    if OTHER_LANDMARKS in dropped.values():
        notes.append("the prompts in this file were trained on the features of another landmark network")
    missing = tuple(key for key in state if key not in found and not key.startswith("landmark_net."))
    absent = [key for key in missing if TRUNK.match(key)]
    if absent:
        raise BadCheckpoint(contents.path, f"{len(absent)} tensors of the image model are not in it, first {absent[0]}",
                            "use a file of the same depth, or build the model in the size that the file was trained in")
    check_shapes(contents.path, found, state)
    model.load_state_dict(found, strict=False)
    taken = tuple(dict.fromkeys(old for key in found for old in source[key]))
    return KeyReport(contents.path, tuple(found), missing, dropped, tuple(notes), taken, layout)


Read = tuple[dict[str, Tensor], dict[str, tuple[str, ...]], dict[str, str], list[str], str]


def _image_tensors(contents: Contents, model: S2DClassifier) -> Read:
    """Tensors under S2D's names, the file keys of each, dropped file keys → why, notes, layout."""
    path, kind = contents.path, own_model(contents.path, contents.header, MODELS)
    if kind == "S2DClassifier":
        return dict(contents.tensors), {key: (key,) for key in contents.tensors}, {}, [], ""
    try:
        if kind is None:
            names, notes = strip_wrappers(list(contents.tensors))
            bare = {name: contents.tensors[key] for key, name in names.items()}
            layout = recognise(bare, tuple(contents.skipped))
            if layout in ("s2d", "mae"):  # an image transformer: nothing to convert
                original = {name: key for key, name in names.items()}
                placed = to_ours("s2d", bare)
                source = {key: tuple(original[old] for old in held) for key, held in placed.source.items()}
                dropped = {original[key]: why for key, why in placed.dropped.items()}
                return placed.tensors, source, dropped, [*notes, *placed.notes], layout
        return _from_clips(contents, model)
    except BadTensor as error:
        raise BadCheckpoint(path, str(error), "check that this is the right file") from error


def _from_clips(contents: Contents, model: S2DClassifier) -> Read:
    """An encoder of images and clips, ours or published, as an image transformer."""
    layout, placed = place(contents)
    trunk: dict[str, Tensor] = {}
    source: dict[str, tuple[str, ...]] = {}
    dropped = dict(placed.dropped)
    for key, tensor in placed.tensors.items():
        name, olds = key.removeprefix("encoder."), placed.source[key]
        if ".moe_layer." in name:
            dropped |= dict.fromkeys(olds, "S2D has no experts")
        elif TRUNK.match(name) or name.startswith("norm."):
            trunk[name] = tensor
            image = re.sub(r"^norm\.", "ln_post.", re.sub(r"\b[qv]_bias$", "qkv.bias", name))
            source[image] = (*source.get(image, ()), *olds)
        else:
            inner = key.startswith(("decoder", "mask_token", "encoder_to"))
            dropped |= dict.fromkeys(olds, RECONSTRUCTION if inner else NO_HEAD)
    released = to_released("mae", trunk)
    tensors = to_ours("s2d", released.tensors).tensors
    kind = "flat"
    notes = [*placed.notes, *released.notes]
    if contents.header.get("config"):
        size = size_of(contents.path, contents.header)
        kind = size.positions
        if size.heads != model.config["heads"]:
            notes.append(f"heads is {size.heads} in the file and {model.config['heads']} in the model")
    table = position_table((1, *model.grid), model.config["dim"], kind)
    tensors["pos_embed"] = torch.cat([torch.zeros(1, table.shape[1]), table])[None]
    source["pos_embed"] = ()
    notes.append(f"pos_embed: the {kind} formula that the encoder was trained with; zero for the class token")
    return tensors, source, dropped, notes, layout


def _no_place(key: str, tensor: Tensor, state: dict[str, Tensor]) -> str | None:
    if key.startswith("landmark_net.") and not (key in state and torch.equal(tensor, state[key])):
        return OTHER_LANDMARKS
    if key in state:
        return None
    if ".TMA." in key or key == "temporal_embedding":
        return "the image model knows no time"
    return "this model has no such part"


def _sort_head(contents: Contents, model: S2DClassifier, found: dict[str, Tensor],
               source: dict[str, tuple[str, ...]], dropped: dict[str, str], classes: Sequence[str] | None) -> None:
    """Keep the file's head, its rows in the order of `classes`, or drop it with the reason."""
    if HEAD_KEYS[0] not in found:
        return
    theirs = _classes_of(contents)
    ours = [canonical(name) or name for name in classes or ()]
    if sorted(theirs) == sorted(ours) and len(theirs) == len(found[HEAD_KEYS[0]]):
        rows = [theirs.index(name) for name in ours]
        found |= {key: found[key][rows] for key in HEAD_KEYS}
        return
    why = f"{NO_HEAD}, as released" if classes is None else f"{NO_HEAD}: its classes are " + (
        ", ".join(theirs) if theirs else "not named in the file")
    for key in HEAD_KEYS:
        del found[key]
        dropped |= dict.fromkeys(source[key], why)


def _classes_of(contents: Contents) -> list[str]:
    """Canonical names of the classes of the one head of a file of ours, in order; empty where it does not say."""
    known = metadata_of(contents.path, contents.header)
    named = [names for names in (known.get("class_names") or {}).values()]
    named += [SCHEMAS[name].classes for name in (known.get("schemas") or {}).values() if name in SCHEMAS]
    return [canonical(name) or name for name in named[0]] if named else []
