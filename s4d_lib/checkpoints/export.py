"""model file → graphs     a classifier or an encoder as .pt2 and ONNX, which need no s4d_lib to answer, and a card.

One graph for images and one for clips, since a graph reads one shape; the batch stays open. Both take float32 pixels,
normalised as `export.json` beside them says, and give logits, or latents for an encoder. Every graph is read back and
asked before its file takes its place. Experts are computed densely (`layers/mixing.py`): e/k times their arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from s4d_lib.checkpoints.cards import UNKNOWN, open_model
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.clips import IMAGENET_MEAN, IMAGENET_STD
from s4d_lib.errors import Refused, require
from s4d_lib.files import replacing, require_writable, sha256_of, write_atomically
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.weights.files import SHIPPED, read_metadata

FORMATS = ("pt2", "onnx")
TASKS = ("image", "video")
CARD = "export.json"
TOLERANCE = 1e-4  # of the largest answer, or of 1 where that is larger; measured: about 1e-7 for logits
TRACED, ASKED = 2, (1, 3)  # samples in the batch that is traced, and in those that the graph is asked about


def export_model(source: str | Path | None, folder: str | Path, formats: Iterable[str] = FORMATS,
                 tasks: Iterable[str] | None = None, behaviour: str | None = None,
                 schema: Mapping[str, str] | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write `image.pt2`, `video.pt2`, `image.onnx`, `video.onnx` and `export.json` into a folder; returns the card.

    source      a file of ours with a classifier, an encoder or an autoencoder, whose encoder is meant; a folder that
                `save_pretrained` wrote; None: the classifier that comes with the library
    tasks       image, video; every one that the model has a head for, if not given
    behaviour   "clean": how experts answer in the graph, where the file says "reference"
    schema      task → label order, where the file does not tell, as `open_model` takes it

    Refused for another kind of model, for experts that draw noise, for a file that is there already, and where what
    writes ONNX is not installed.
    """
    path, folder = _file(source), Path(folder)
    formats, model = _known(formats, FORMATS, "format"), _load(path, behaviour)
    tasks = _known(_possible(model) if tasks is None else tasks, _possible(model), "head or input")
    if "onnx" in formats:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "export", "ONNX")
    files = [folder / f"{task}.{form}" for task in tasks for form in formats]
    card = _card(path, model, schema)
    if there := [file for file in (*files, folder / CARD) if file.exists() and not overwrite]:
        raise Refused(f"{there[0]} is there already; name another folder, or overwrite it")
    require_writable(folder / CARD)
    for task in tasks:
        card["graphs"] |= _write(_network(model), task, _shape(model, task), folder, formats)
    write_atomically(folder / CARD, json.dumps(card, indent=2) + "\n")
    return card


# ------------------------------------------------------------------------------------------------- what is exported


def _file(source: str | Path | None) -> Path:
    path = SHIPPED["classifier"] if source is None else Path(source)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such model file; give a .safetensors file of this library, or "
                                "the folder that save_pretrained wrote")
    return path


def _known(wanted: Iterable[str], known: Sequence[str], what: str) -> list[str]:
    wanted = list(dict.fromkeys(wanted))
    if not wanted or (strange := [word for word in wanted if word not in known]):
        raise Refused(f"there is no {what} {strange[0]!r}; there are {', '.join(known)}" if wanted else
                      f"name at least one {what} of {', '.join(known)}")
    return wanted


def _load(path: Path, behaviour: str | None) -> nn.Module:
    model = load_model(path)
    if not isinstance(model, S4DClassifier | DualModalEncoder | DualModalMAE):
        raise Refused(f"{path} holds a {type(model).__name__}; what is exported are S4DClassifier, DualModalEncoder "
                      "and the encoder of DualModalMAE")
    if behaviour not in (None, "clean"):
        raise Refused(f"behaviour must be clean to be exported, got {behaviour!r}")
    if model.config.get("moae_blocks") and model.config["behaviour"] == "reference":
        if behaviour is None:
            raise Refused(f"{path}: its experts behave as in the released code, so that an answer depends on noise "
                          "that is drawn and on the other samples of its batch, which no graph with an open batch "
                          "repeats; export it with behaviour clean (--behaviour clean), whose answers are its own")
        model = load_model(path, behaviour="clean")
    model.metadata = read_metadata(path)
    return model.eval()


def _possible(model: nn.Module) -> list[str]:
    """The tasks that a model can be asked about: those of its heads, or both inputs where it has none."""
    heads = model.config.get("classes")
    return [task for task in TASKS if not heads or task in heads]


def _network(model: nn.Module) -> nn.Module:
    return model.encoder if isinstance(model, DualModalMAE) else model


def _shape(model: nn.Module, task: str) -> tuple[int, ...]:
    size = model.size
    return (3, *([size.frames] if task == "video" else []), size.height, size.width)


def _card(path: Path, model: nn.Module, schema: Mapping[str, str] | None) -> dict[str, Any]:
    """What somebody needs who has the graphs and not this library."""
    import torch

    from s4d_lib import __version__

    known = model.metadata
    card = {
        "made_by": {"s4d_lib": __version__, "torch": torch.__version__},
        "weights": {"file": path.name, "sha256": sha256_of(path), "licence": str(known.get("licence") or UNKNOWN),
                    "trained_on": str(known.get("trained_on") or UNKNOWN)},
        "model": {"kind": type(model).__name__, **model.config},
        "pixels": {"colours": "RGB", "from": [0, 1], "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD),
                   "axes": "batch, colour, frame (of clips), height, width"},
    }
    if model.config.get("classes"):
        answers = open_model(model, schema).card.as_dict()
        card["answers"] = answers | {"name": path.stem}
    elif schema:
        raise Refused(f"{path} has no head to give a schema to")
    return card | {"graphs": {}}


# ------------------------------------------------------------------------------------------------- graphs


def _write(network: nn.Module, task: str, shape: tuple[int, ...], folder: Path,
           formats: Sequence[str]) -> dict[str, dict[str, Any]]:
    """File name → its description, for each format of one task."""
    import torch

    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(count, *shape, generator=draw) for count in ASKED]
    described = {}
    with torch.no_grad():
        expected = [network(x) for x in batches]
        program = torch.export.export(network, (torch.zeros(TRACED, *shape),),
                                      dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        given = "logits" if expected[0].ndim == 2 else "latents"
        for form in formats:
            path = folder / f"{task}.{form}"
            with replacing(path) as part:
                ask = (_pt2 if form == "pt2" else _onnx)(program, part, given)
                difference = max(_difference(ask(x), y, path) for x, y in zip(batches, expected, strict=True))
            described[path.name] = {
                "task": task, "bytes": path.stat().st_size, "sha256": sha256_of(path), "difference": difference,
                "input": {"name": "pixels", "shape": ["batch", *shape], "dtype": "float32"},
                "output": {"name": given, "shape": ["batch", *expected[0].shape[1:]], "dtype": "float32"}}
    return described


def _difference(answer: Tensor, expected: Tensor, path: Path) -> float:
    most = float((answer - expected).abs().max())
    if not most <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RuntimeError(f"{path}: the graph answers otherwise than the model, by {most:.2g}; it was not kept")
    return most


def _pt2(program: Any, part: Path, given: str) -> Callable[[Tensor], Tensor]:
    import torch

    with open(part, "wb") as file:
        torch.export.save(program, file)
    with open(part, "rb") as file:
        return torch.export.load(file).module()


def _onnx(program: Any, part: Path, given: str) -> Callable[[Tensor], Tensor]:
    import onnxruntime
    import torch

    made = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["pixels"], output_names=[given])
    made.save(part, external_data=False)
    session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"pixels": x.numpy()})[0])
