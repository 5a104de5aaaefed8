"""file → model     safetensors that describe their model; encoders handed on, with a report of every key.

A checkpoint is one safetensors file: weights under the released key names and, in its header, the arguments
that rebuild the model. Nothing is unpickled, so opening a stranger's file runs none of its code. A file is
there complete or not at all, because it is written beside its place and moved there in one step.
"""

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from s4d_lib.models import DualModalMAE, S4DClassifier, Size

MODELS = {model.__name__: model for model in (DualModalMAE, S4DClassifier)}
FORMAT = "s4d_lib checkpoint 1"


class BadCheckpoint(ValueError):
    """A file that cannot be used as a checkpoint; the message names the file, what it is, and what to do."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path, self.reason = path, reason


@dataclass(frozen=True)
class KeyReport:
    """What became of every key when an encoder was loaded."""

    path: Path
    matched: tuple[str, ...]     # model keys taken from the file
    missing: tuple[str, ...]     # model keys the file has not: still at their initial values
    dropped: dict[str, str]      # file keys without a place in the model → why
    notes: tuple[str, ...] = ()  # differences between the two models that no shape shows

    def __str__(self) -> str:
        lines = [f"{self.path.name}: {len(self.matched)} tensors matched, {len(self.missing)} missing, "
                 f"{len(self.dropped)} dropped"]
        lines += [f"  missing  {keys}: not in the file, starts fresh" for keys in _summary(self.missing)]
        for reason in dict.fromkeys(self.dropped.values()):
            same = (key for key, why in self.dropped.items() if why == reason)
            lines += [f"  dropped  {keys}: {reason}" for keys in _summary(same)]
        return "\n".join([*lines, *(f"  note     {note}" for note in self.notes)])


def save_model(path: str | Path, model: nn.Module, metadata: dict[str, Any] | None = None) -> Path:
    """Write weights, the arguments that rebuild the model and JSON-able `metadata`, in one step."""
    kind = type(model).__name__
    if kind not in MODELS:
        raise TypeError(f"save_model writes {' and '.join(MODELS)}, got {kind}; unwrap the model first "
                        "(accelerator.unwrap_model)")
    header = {"format": FORMAT, "model": kind, "config": json.dumps(model.config),
              "metadata": json.dumps(metadata or {})}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, save(tensors, metadata=header))
    return path


def load_model(path: str | Path) -> DualModalMAE | S4DClassifier:
    """Rebuild the model that `save_model` wrote, on the CPU and in evaluation mode."""
    path = Path(path)
    tensors, header = _read(path)
    kind = _own_model(path, header)
    if kind is None:
        raise BadCheckpoint(path, "it holds weights but not the arguments of a model",
                            "build the model yourself and use load_encoder")
    config = json.loads(header["config"])
    model = MODELS[kind](**{**config, "size": Size(**config["size"])})
    _check_shapes(path, tensors, model.state_dict())
    odd = set(tensors) ^ set(model.state_dict())
    if odd:
        raise BadCheckpoint(path, f"{len(odd)} tensors do not fit its own description, first {min(odd)}",
                            "write it again")
    model.load_state_dict(tensors)
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The `metadata` that was given to `save_model`, without reading the weights."""
    with _open(Path(path)) as file:
        return json.loads((file.metadata() or {}).get("metadata", "{}"))


def load_encoder(classifier: S4DClassifier, path: str | Path) -> KeyReport:
    """Copy a pretrained encoder into a classifier, in place; return what became of every key.

    Reads files that `save_model` wrote and bare safetensors in the released layout, with or without the
    prefix `encoder.`. Heads and `fc_norm` stay as they are, and so do experts that the file lacks. An encoder
    that would load only in part raises BadCheckpoint: it would look like a poor idea and not like a bug.
    """
    path = Path(path)
    tensors, header = _read(path)
    model = classifier.state_dict()
    names = {key: key.removeprefix("encoder.") for key in tensors}
    dropped = {key: reason for key, name in names.items() if (reason := _no_place(name, model))}
    found = {name: tensors[key] for key, name in names.items() if key not in dropped}
    missing = tuple(name for name in model if name not in found)
    _refuse_partial_encoder(path, missing, dropped)
    _check_shapes(path, found, model)
    classifier.load_state_dict(found, strict=False)
    report = KeyReport(path, tuple(found), missing, dropped, _size_notes(path, header, classifier.size))
    return report


def _no_place(name: str, model: dict[str, Tensor]) -> str | None:
    """Why a tensor of the file does not enter the classifier, None when it does."""
    if name.startswith(("decoder.", "encoder_to_decoder.")) or name == "mask_token":
        return "serves reconstruction only"
    if name.startswith("norm."):
        return "the classifier pools first and then applies its own fc_norm"
    if name.startswith(("fc_norm.", "head.")):
        return "heads belong to their own task"
    if name not in model:
        return "the model has no such expert" if ".moe_layer." in name else "unknown to the model"
    return None


def _refuse_partial_encoder(path: Path, missing: Iterable[str], dropped: Iterable[str]) -> None:
    trunk = re.compile(r"(encoder\.)?(patch_embed|blocks)\.(?!.*moe_layer)")
    absent = [key for key in missing if trunk.match(key)]
    if absent:
        raise BadCheckpoint(path, f"{len(absent)} encoder tensors of the model are not in it, first "
                            f"{absent[0]}", "use a file in the released layout and of the same depth")
    homeless = [key for key in dropped if trunk.match(key)]
    if homeless:
        raise BadCheckpoint(path, f"{len(homeless)} of its encoder tensors have no place in the model, first "
                            f"{homeless[0]}", "build the classifier in the Size that was pretrained")


def _size_notes(path: Path, header: dict[str, str], size: Size) -> tuple[str, ...]:
    if _own_model(path, header) is None:
        return ("the file does not say for which input size and positions it was trained",)
    theirs = json.loads(header["config"])["size"]
    return tuple(f"{name} is {theirs[name]} in the file and {getattr(size, name)} in the model"
                 for name in ("image_size", "frames", "heads", "positions")
                 if theirs[name] != getattr(size, name))


def _own_model(path: Path, header: dict[str, str]) -> str | None:
    """Name of the model in a file of ours, None for other safetensors files."""
    if "format" not in header or "model" not in header:
        return None
    if header["format"] != FORMAT or header["model"] not in MODELS:
        raise BadCheckpoint(path, f"it holds a {header['model']} as {header['format']!r}, and this s4d_lib "
                            f"reads {' and '.join(MODELS)} as {FORMAT!r}", "use the version that wrote it")
    return header["model"]


def _check_shapes(path: Path, tensors: dict[str, Tensor], model: dict[str, Tensor]) -> None:
    differ = [key for key, tensor in tensors.items() if key in model and tensor.shape != model[key].shape]
    wrong = [f"{key} is {list(tensors[key].shape)} in the file and {list(model[key].shape)} in the model"
             for key in sorted(differ, key=lambda key: -model[key].ndim)]  # kernels say more than biases
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadCheckpoint(path, wrong[0] + more, "build the model in the Size that the file was trained in")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _open(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}


def _open(path: Path) -> safe_open:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint file; check the path or train it first")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise BadCheckpoint(path, *_diagnose(path, error)) from error


def _diagnose(path: Path, error: SafetensorError) -> tuple[str, str]:
    """What a file that is not safetensors really is, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "the file is empty", "download or write it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer and not the weights it points to", "run `git lfs pull`"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page saved as a checkpoint", "download the file itself, logged in if need be"
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "it is a pickled PyTorch file, which can run code when opened", "convert it to safetensors"
    size = path.stat().st_size
    return f"it is not a complete safetensors file ({size} bytes; {error})", "download or write it again"


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _summary(keys: Iterable[str]) -> list[str]:
    """Hundreds of keys in a few phrases: numbers become *, the last word is cut, equals are counted."""
    patterns = Counter(re.sub(r"\.\d+(?=\.)", ".*", key).rpartition(".")[0] or key for key in keys)
    return [f"{pattern} ({count})" for pattern, count in patterns.items()]
