"""file ↔ tensors     safetensors that describe their model, written whole and rebuilt; the four that ship.

A checkpoint of ours is one safetensors file: weights under the released key names and, in its header, the class and the
arguments that rebuild the model. It is there complete or not at all, because it is written beside its place and
moved there in one step. Which models there are is not known here: whoever rebuilds one says what it may be.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

import s4d_lib
from s4d_lib.files import write_atomically
from s4d_lib.weights.containers import BadCheckpoint, open_safetensors, read_contents, read_file

M = TypeVar("M", bound=nn.Module)
FORMAT = "s4d_lib checkpoint 1"
FOLDER = Path(s4d_lib.__path__[0]) / "weights"
# The weights that come with the library; each was trained on drawn faces only, and chapters/results says how.
SHIPPED = {
    "encoder": FOLDER / "tiny_dual_modal_mae.safetensors",       # the tiny autoencoder: where init="shipped" starts
    "nano_encoder": FOLDER / "nano_dual_modal_mae.safetensors",  # the nano one: where the laboratory starts
    "classifier": FOLDER / "tiny_s4d_classifier.safetensors",    # what `s4d predict` opens
    "landmarks": FOLDER / "landmark_net.safetensors",            # S2D's landmark network, a quarter as wide as released
}


EDITED = "its header was changed or damaged: write the file again, or fetch it anew"
COUNTS = {"depth", "decoder_depth", "experts"}  # how many parts a model is made of
LARGEST_TABLE = 10**8  # numbers that a model computes for itself; position tables of large models have some 10⁷


class AnotherModel(BadCheckpoint):
    """A file of ours with a model that was not asked for; `model` is the name of its class."""

    def __init__(self, path: Path, reason: str, remedy: str, model: str) -> None:
        super().__init__(path, reason, remedy)
        self.model = model


def save_model(path: str | Path, model: nn.Module, metadata: dict[str, Any] | None = None) -> Path:
    """Write weights, the arguments that rebuild the model and JSON-able `metadata`, in one step.

    The model needs a JSON-able `config` with which `type(model)(**model.config)` rebuilds it; TypeError without. Keys
    listed under `metadata["missing"]` are left out: a file holds what was trained and nothing at random.
    """
    kind = type(model).__name__
    if "config" not in vars(model):  # of its own: wrappers hand on the attributes of what they wrap
        raise TypeError(f"save_model writes models with a config that rebuilds them, got {kind}; unwrap the model "
                        "first (accelerator.unwrap_model)")
    header = {"format": FORMAT, "model": kind, "config": json.dumps(model.config),
              "metadata": json.dumps(metadata or {})}
    absent = set((metadata or {}).get("missing", ()))
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()
               if key not in absent}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, metadata=header))
    return path


def rebuild(path: str | Path, kinds: Iterable[type[M]], **changes: Any) -> M:
    """The model that `save_model` wrote, if it is one of `kinds`, on the CPU and in evaluation mode.

    `changes` replace arguments that the file describes. Of keys that the file names as missing the initial values are
    used, with a warning. AnotherModel where the file holds a model of another class, BadCheckpoint where it holds none
    or contradicts itself.
    """
    known = {kind.__name__: kind for kind in kinds}
    contents = read_contents(path) if Path(path).is_dir() else read_file(Path(path))  # ours need no config.json
    path, tensors = contents.path, contents.tensors
    name = own_model(path, contents.header, known)
    if name is None:
        raise BadCheckpoint(path, "it holds weights but not the arguments of a model",
                            "convert it with `s4d convert`, or build the model and use load_encoder")
    config, missing = _describe(path, contents.header)
    with _blaming(path):
        _check_description(path, known[name], config, tensors, missing)
    model = known[name](**{**config, **changes})
    check_shapes(path, tensors, model.state_dict())
    _check_keys(path, tensors, model.state_dict(), missing)
    if missing:
        warnings.warn(f"{path.name} has no {', '.join(summarise_keys(sorted(missing)))}: fresh values, to be trained",
                      stacklevel=3)
    model.load_state_dict(tensors, strict=not missing)
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The `metadata` that was given to `save_model`, without reading the weights."""
    with open_safetensors(Path(path)) as file:
        return metadata_of(Path(path), file.metadata() or {})


def metadata_of(path: Path, header: dict[str, str]) -> dict[str, Any]:
    """The `metadata` in the header of a file of ours; {} where it has none."""
    return _json_of(path, header, "metadata") if "metadata" in header else {}


def config_of(path: Path, header: dict[str, str]) -> dict[str, Any]:
    """The arguments that rebuild the model of a file of ours, from its header."""
    return _json_of(path, header, "config")


def _json_of(path: Path, header: dict[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(header[key])
    except (ValueError, LookupError, RecursionError) as error:
        raise BadCheckpoint(path, f"the {key!r} in its header is missing or no JSON ({type(error).__name__})",
                            EDITED) from error
    if not isinstance(found, dict):
        raise BadCheckpoint(path, f"the {key!r} in its header is a {type(found).__name__} and no dictionary", EDITED)
    return found


def _describe(path: Path, header: dict[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The arguments of the model, and the keys that the file says it has not."""
    config, missing = config_of(path, header), metadata_of(path, header).get("missing") or []
    if not isinstance(missing, list) or not all(isinstance(key, str) for key in missing):
        raise BadCheckpoint(path, f"the 'missing' in its header is {str(missing)[:60]} and no list of names", EDITED)
    return config, set(missing)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """What goes wrong while a model is made as a file describes it, told as what the file's header is: edited."""
    try:
        yield
    except BadCheckpoint:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
            MemoryError) as error:
        said = str(error).split("\n")[0][:160] or type(error).__name__
        raise BadCheckpoint(path, f"its header describes no possible model ({said})", EDITED) from error


def _check_description(path: Path, kind: type[nn.Module], config: dict[str, Any], tensors: dict[str, Tensor],
                       missing: set[str]) -> None:
    """Compare the described model with the tensors before any of it takes memory.

    Numbers of parts are bounded by the tensors that are there, and the model is made without storage first.
    """
    for name, value in _numbers_in(config):
        if name in COUNTS and value > max(len(tensors), 256):
            raise BadCheckpoint(path, f"its header says {name} {value:,}, and it holds {len(tensors)} tensors", EDITED)
    with torch.device("meta"):
        model = kind(**config)
    state = model.state_dict()
    check_shapes(path, tensors, state)
    _check_keys(path, tensors, state, missing)
    computed = {key: buffer.numel() for key, buffer in model.named_buffers() if key not in state}
    if computed and (most := max(computed, key=computed.__getitem__)) and computed[most] > LARGEST_TABLE:
        raise BadCheckpoint(path, f"its header asks for {computed[most]:,} numbers of {most}", EDITED)


def _numbers_in(config: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(config, dict):
        for key, value in config.items():
            yield from _numbers_in(value, str(key))
    elif isinstance(config, (int, float)):
        yield name, config


def _check_keys(path: Path, tensors: dict[str, Tensor], state: dict[str, Tensor], missing: set[str]) -> None:
    if odd := set(tensors) ^ (set(state) - missing):
        raise BadCheckpoint(path, f"{len(odd)} tensors do not fit its own description, first {min(odd)}",
                            "write it again")


def own_model(path: Path, header: dict[str, str], kinds: Iterable[str]) -> str | None:
    """Class name of the model in a file of ours, None for other safetensors files.

    AnotherModel where it is none of `kinds`, BadCheckpoint where the file is in a form that we do not know.
    """
    if "format" not in header or "model" not in header:
        return None
    model, form, kinds = header["model"], header["format"], tuple(kinds)
    what = f"it holds a {model} as {form!r}, and this s4d_lib reads {', '.join(kinds)} as {FORMAT!r}"
    if form != FORMAT:
        raise BadCheckpoint(path, what, "use the version that wrote it")
    if model not in kinds:
        raise AnotherModel(path, what, "use the version that wrote it", model)
    return model


def check_shapes(path: Path, tensors: dict[str, Tensor], model: dict[str, Tensor]) -> None:
    """Refuse tensors of a file whose shape is not the model's, and integers or flags where the model has numbers."""
    differ = [key for key, tensor in tensors.items() if key in model and tensor.shape != model[key].shape]
    wrong = [f"{key} is {list(tensors[key].shape)} in the file and {list(model[key].shape)} in the model"
             for key in sorted(differ, key=lambda key: -model[key].ndim)]  # kernels say more than biases
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadCheckpoint(path, wrong[0] + more, "build the model in the Size that the file was trained in")
    for key, tensor in tensors.items():
        if key in model and model[key].is_floating_point() and not tensor.is_floating_point():
            raise BadCheckpoint(path, f"{key} is {str(tensor.dtype).removeprefix('torch.')}, and this weight is a real "
                                "number", "undo the quantisation, and save it as float32")


def summarise_keys(keys: Iterable[str]) -> list[str]:
    """Hundreds of keys in a few phrases: numbers become *, the last word is cut, equals are counted."""
    keys = list(keys)
    patterns = [re.sub(r"\.\d+(?=\.)", ".*", key).rpartition(".")[0] or key for key in keys]
    counts, first = Counter(patterns), dict(zip(reversed(patterns), reversed(keys)))
    return [f"{pattern if count > 1 else first[pattern]} ({count})" for pattern, count in counts.items()]
