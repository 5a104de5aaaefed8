"""file → file     published weights into models of ours and safetensors, and back into the published layout.

Whatever would make another network of it is refused (`allowance.py`); the report names what was assumed
(`describe.py`) and what became of every key.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from s4d_lib import __version__
from s4d_lib.checkpoints.allowance import Allowance
from s4d_lib.checkpoints.describe import DESCRIBE, Hints, Reader
from s4d_lib.checkpoints.encoders import KeyReport, place, report_keys, size_of
from s4d_lib.checkpoints.layouts import LAYOUTS, Placed, to_released
from s4d_lib.checkpoints.loading import MODELS, Model
from s4d_lib.checkpoints.names import TRUNK, UNKNOWN, BadTensor
from s4d_lib.checkpoints.port import port_config
from s4d_lib.checkpoints.stated import class_names, disagreements, remarks
from s4d_lib.errors import Refused
from s4d_lib.files import require_writable, sha256_of, write_atomically
from s4d_lib.layers.tokens import position_table
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint, Contents, open_safetensors, read_contents
from s4d_lib.weights.files import LARGEST_TABLE, check_shapes, config_of, metadata_of, own_model, save_model

PICKLED = (".pth", ".pt", ".tar", ".torch", ".bin")
LARGEST_WEIGHT = 1e6    # no trained network comes near; one damaged bit of an exponent does
FAR = 1e-2              # a position table further from the formula was learnt, or is another formula


def load_released(path: str | Path, layout: str | None = None, hints: Hints | None = None) -> tuple[Model, KeyReport]:
    """Rebuild the network of a published file, in evaluation mode, with a report of every key.

    `layout` is one of `checkpoints.layouts.LAYOUTS`; by default the keys decide. What the file lacks stays at its
    initial value and stands under `missing`. Raises BadCheckpoint where the file is no checkpoint, where an encoder is
    incomplete, or where a tensor has another shape than its neighbours imply.
    """
    hints = hints or Hints()
    return _load(read_contents(path, hints.container), layout, hints)


def _load(contents: Contents, layout: str | None, hints: Hints) -> tuple[Model, KeyReport]:
    path, allowance = contents.path, Allowance(contents.path, hints.allow)
    layout, placed = place(contents, layout)
    if not layout:
        raise BadCheckpoint(path, "it is a file of this library already", "open it with load_model")
    kind = LAYOUTS[layout].model
    try:
        config, notes = DESCRIBE[kind](Reader(contents, layout, placed.tensors, hints))
        if said := disagreements(contents, kind, layout, config, placed.tensors):
            allowance.refuse_unplaced(placed.dropped)  # first, for they may be why: registers lengthen a position table
            notes += allowance.refuse(said)
        _refuse_endless(path, config)
        model = MODELS[kind](**config)
    except (ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(path, f"as {layout} it describes no possible network ({error})",
                            "check the file, or say more with --as, --heads, --image-size or --frames") from error
    state = model.state_dict()
    check_shapes(path, placed.tensors, state)
    homeless = {key: UNKNOWN for key in placed.tensors if key not in state}
    report = report_keys(contents, layout, placed, homeless, [key for key in state if key not in placed.tensors], ())
    allowance.refuse_unplaced(report.dropped)
    _refuse_partial(path, kind, report.missing, placed.tensors)
    notes += allowance.refuse(_absurd(contents.tensors))
    tables = _compare_positions(contents, placed, model)
    if not LAYOUTS[layout].flat_kernel:  # an image model's table is another one, and is left behind by design
        notes += allowance.refuse({key: f"{key} differs from the formula by up to {far:.1g}, and the encoder has no "
                                   "other positions" for key, far in tables.items() if far > FAR})
    notes += [f"{key} differs from the formula by at most {far:.1g}" for key, far in tables.items()]
    allowance.check()
    model.load_state_dict({key: value for key, value in placed.tensors.items() if key in state}, strict=False)
    notes = [*placed.notes, *notes, *remarks(contents, layout), *_precision(contents.tensors)]
    notes += [f"{key} was left in the file: {what}" for key, what in contents.skipped.items()]
    if names := class_names(contents.config, (config.get("classes") or {}).get("video")):
        model.metadata["class_names"] = {"video": names}
    return model.eval(), replace(report, notes=tuple(notes))


def convert(source: str | Path, target: str | Path, layout: str | None = None, hints: Hints | None = None,
            overwrite: bool = False) -> KeyReport:
    """Published file → `target`, a safetensors file of ours; or a file of ours → `target` in a published layout.

    `source` may be a folder: one file of weights, or shards with their index, and `config.json` if there is one. Ours
    keep source name, sha256, licence note and key report in their header (`read_metadata`). The way back writes
    pickled weights for .pth and its like, bare tensors for .safetensors, a folder for the port of `transformers`.
    `target` is there complete or not at all, and an existing one is kept unless `overwrite`. OSError names `target`
    where it cannot be written.
    """
    source, target, hints = Path(source), Path(target), hints or Hints()
    if layout is not None and layout not in LAYOUTS:
        raise Refused(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if source.exists() and target.exists() and source.samefile(target):
        raise Refused(f"{target} is the source itself; name another file to write")
    if target.exists() and not overwrite and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target} is there already; name another file, or overwrite it with --overwrite")
    if kind := _kind_of_ours(source):
        if hints.allow:
            raise Refused(f"{source} is a file of this library, which needs no --allow")
        return _restore(source, target, layout, kind)
    if target.suffix != ".safetensors":
        raise Refused(f"{target}: weights are converted to safetensors; give the target the suffix .safetensors")
    contents = read_contents(source, hints.container)
    model, report = _load(contents, layout, hints)
    require_writable(target)
    known = {"source": source.resolve().name, **_sums(contents.files), "layout": report.layout,
             "licence": LAYOUTS[report.layout].licence, "converted_by": f"s4d_lib {__version__}",
             "missing": list(report.missing), "report": report.as_json()}
    with naming(target):
        save_model(target, model, {**getattr(model, "metadata", {}), **known})
    return report


def _sums(files: tuple[Path, ...]) -> dict[str, Any]:
    """sha256 and bytes of the source; of several files the sum of the list that `sha256sum` prints."""
    sums = {file.name: sha256_of(file) for file in files}
    size = sum(file.stat().st_size for file in files)
    if len(sums) == 1:
        return {"source_sha256": next(iter(sums.values())), "source_bytes": size}
    listed = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    return {"source_sha256": hashlib.sha256(listed.encode()).hexdigest(), "source_bytes": size, "source_files": sums}


def _restore(source: Path, target: Path, layout: str | None, kind: str) -> KeyReport:
    """A file of ours → a published layout: the one it came from, or the first that holds such a model."""
    contents = read_contents(source)
    config, known = config_of(source, contents.header), metadata_of(source, contents.header)
    fitting = [name for name, one in LAYOUTS.items() if one.model == kind]
    layout = layout or known.get("layout") or fitting[0]
    if layout not in fitting:
        raise Refused(f"{source} holds a {kind}, which can be written as {', '.join(fitting)}, not as {layout}")
    flat = config.get("size", {}).get("positions", "flat") == "flat" if isinstance(config.get("size"), dict) else True
    if LAYOUTS[layout].flat_only and not flat:
        raise Refused(f"{source} cannot be written as {layout}: its positions are separable, and those who read that "
                      "layout count them in one row")
    folder = LAYOUTS[layout].thirds
    if folder and target.suffix in (".safetensors", *PICKLED):
        raise Refused(f"{target}: {layout} is a folder with config.json; name a folder")
    if not folder and target.suffix not in (".safetensors", *PICKLED):
        raise Refused(f"{target}: its suffix decides how it is written; use .safetensors or {', '.join(PICKLED)}")
    try:
        placed = to_released(layout, contents.tensors)
        described = port_config(kind, size_of(source, contents.header), config, known) if folder else None
    except BadTensor as error:
        raise Refused(f"{source} cannot be written as {layout}: {error}") from error
    tensors = {key: value.contiguous() for key, value in placed.tensors.items()}
    _write(target, layout, tensors, described, source)
    notes = placed.notes if flat else (*placed.notes, "its positions are separable, and readers of that layout may "
                                       "count them in one row")
    taken = tuple(key for key in contents.tensors if key not in placed.dropped)
    return KeyReport(source, tuple(tensors), (), placed.dropped, notes, taken, layout)


def _write(target: Path, layout: str, tensors: dict[str, Tensor], described: dict[str, Any] | None,
           source: Path) -> None:
    require_writable(target / "config.json" if described else target)
    with naming(target):
        if described:  # the weights last: a folder without them is no checkpoint
            write_atomically(target / "config.json", json.dumps(described, indent=2) + "\n")
            write_atomically(target / "model.safetensors", save(tensors, metadata={"format": "pt"}))
        elif target.suffix == ".safetensors":
            write_atomically(target, save(tensors, metadata={"layout": layout, "source": source.name}))
        else:
            buffer = io.BytesIO()
            torch.save({LAYOUTS[layout].container: tensors} if LAYOUTS[layout].container else tensors, buffer)
            write_atomically(target, buffer.getvalue())


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """An OSError that says which file could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{target}: cannot be written ({error.strerror or error}); nothing of it is there") from error


def _kind_of_ours(source: Path) -> str | None:
    """Class name of the model in a file or folder of ours; None for a published one, whatever it is."""
    if source.is_dir():
        source = source / "model.safetensors"
    if source.suffix != ".safetensors" or not source.is_file():
        return None
    with open_safetensors(source) as file:
        return own_model(source, file.metadata() or {}, MODELS)


def _refuse_partial(path: Path, kind: str, missing: Iterable[str], tensors: dict[str, Tensor]) -> None:
    """An encoder in part, or a frozen network in part, would compute something else and look alike.

    So would a network of which one block lacks what other blocks have, a head without its norm, half a decoder.
    """
    kept = {_numberless(key) for key in tensors}
    headed = any(key.startswith("head.") for key in tensors)
    holes = [key for key in missing if not key.endswith("num_batches_tracked") and (
        kind in ("LandmarkNet", "DualModalMAE") or _numberless(key) in kept
        or (TRUNK.match(key) and ".moe_layer." not in key)
        or (kind == "S4DClassifier" and headed and key.startswith(("fc_norm.", "head."))))]
    if holes:
        raise BadCheckpoint(path, f"{len(holes)} tensors of its network are not in it, first {holes[0]}",
                            "download it again, or name its layout with --as")


def _numberless(key: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", key)


def _refuse_endless(path: Path, config: dict[str, Any]) -> None:
    """A stated picture or clip length without bounds would ask for positions without bounds."""
    if "size" in config and (size := Size(**config["size"])):
        numbers = size.grid[0] * size.grid[1] * size.grid[2] * size.dim
        if numbers > LARGEST_TABLE:
            raise BadCheckpoint(path, f"{size.frames} frames of {size.height}×{size.width} pixels would need "
                                f"{numbers:,} numbers for their positions", "say what it reads with --frames, "
                                "--image-size")


def _absurd(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Key → what is wrong, for weights that are finite and no trained network's."""
    return {key: f"{key} holds {tensor.abs().max():.1g}, and no trained network does" for key, tensor in tensors.items()
            if tensor.is_floating_point() and tensor.numel() and tensor.abs().max() > LARGEST_WEIGHT
            and not key.endswith("running_var")}


def _precision(tensors: dict[str, Tensor]) -> list[str]:
    """A note for every precision other than ours."""
    kinds = {tensor.dtype for tensor in tensors.values()}
    notes = [f"some tensors are {str(kind).removeprefix('torch.')} in the file, and float32 here: nothing is lost"
             for kind in (torch.float16, torch.bfloat16) if kind in kinds]
    if torch.float64 in kinds:
        notes.append("some tensors are float64 in the file, and were rounded to float32, to 7 digits")
    return notes


def _compare_positions(contents: Contents, placed: Placed, model: Model) -> dict[str, float]:
    """Position tables that found no place → how far they are from what our formula says."""
    far = {}
    for key in placed.dropped:
        table = contents.tensors[key]
        if key.endswith(("pos_embed", "pos_embedding.emb")) and "decoder" not in key and hasattr(model, "size"):
            ours = position_table(model.size.grid, model.size.dim, model.size.positions)
            if table.shape[1:] == ours.shape:
                far[key] = float((table[0].float() - ours).abs().max())
    return far
