"""file → file     published weights into models of ours and safetensors, and back into the published layout.

A published file says little about its network: widths and depths can be read from shapes, the number of attention
heads and the input size cannot. They come from the caller, from a position table or the training script's `args` if
the file holds them, or from what the authors publish, in this order; the report names what was assumed.
"""

import io
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from s4d_lib import __version__
from s4d_lib.checkpoints.encoders import KeyReport, place, report_keys
from s4d_lib.checkpoints.layouts import LAYOUTS, TRUNK, UNKNOWN, BadTensor, Placed, to_released
from s4d_lib.checkpoints.loading import MODELS, Model
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of, write_atomically
from s4d_lib.layers.tokens import position_table
from s4d_lib.models.s2d import S2D_SIZES
from s4d_lib.models.sizes import SIZES, Size
from s4d_lib.weights.containers import BadCheckpoint, Contents, open_safetensors, read_contents
from s4d_lib.weights.files import check_shapes, own_model, read_metadata, save_model

EXPERT = re.compile(r"blocks\.(\d+)\.moe_layer\.experts\.(\d+)\.")
# Names of a setting in the argument lists of these training scripts.
ARGUMENTS = {"image_size": ("input_size", "img_size"), "frames": ("num_frames",), "top_k": ("top_k",),
             "capacity_factor": ("capacity_factor",)}
CHANNELS_PER_HEAD = 64  # in every published model of this family
PICKLED = (".pth", ".pt", ".tar", ".torch", ".bin")


@dataclass(frozen=True)
class Hints:
    """What a caller knows about a network and its file does not say; None is read from the file or assumed."""

    image_size: int | None = None     # edge of the input in pixels
    frames: int | None = None         # frames of a clip
    heads: int | None = None          # attention heads
    decoder_heads: int | None = None
    top_k: int | None = None          # experts per token
    capacity_factor: float | None = None
    behaviour: str = "clean"          # see layers/adapters.py
    container: str | None = None      # dictionary of the file that holds the weights


def load_released(path: str | Path, layout: str | None = None, hints: Hints | None = None) -> tuple[Model, KeyReport]:
    """Rebuild the network of a published file, in evaluation mode, with a report of every key.

    `layout` is one of `checkpoints.layouts.LAYOUTS`; by default the keys decide. What the file lacks stays at its
    initial value and stands under `missing`. Raises BadCheckpoint where the file is no checkpoint, where an encoder is
    incomplete, or where a tensor has another shape than its neighbours imply.
    """
    hints = hints or Hints()
    contents = read_contents(path, hints.container)
    path = contents.path
    layout, placed = place(contents, layout)
    if not layout:
        raise BadCheckpoint(path, "it is a file of this library already", "open it with load_model")
    kind = LAYOUTS[layout].model
    try:
        config, notes = DESCRIBE[kind](_Reader(contents, layout, placed.tensors, hints))
        model = MODELS[kind](**config)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(path, f"as {layout} it describes no possible network ({error})",
                            "check the file, or say more with --as, --heads, --image-size or --frames") from error
    state = model.state_dict()
    check_shapes(path, placed.tensors, state)
    homeless = {key: UNKNOWN for key in placed.tensors if key not in state}
    missing = [key for key in state if key not in placed.tensors]
    _refuse_partial(path, kind, missing)
    model.load_state_dict({key: value for key, value in placed.tensors.items() if key in state}, strict=False)
    notes = [*placed.notes, *notes, *_compare_positions(contents, placed, model)]
    notes += [f"{key} was left in the file: {what}" for key, what in contents.skipped.items()]
    return model.eval(), report_keys(contents, layout, placed, homeless, missing, notes)


def convert(source: str | Path, target: str | Path, layout: str | None = None, hints: Hints | None = None,
            overwrite: bool = False) -> KeyReport:
    """Published file → `target`, a safetensors file of ours; or a file of ours → `target` in a published layout.

    Ours keep source name, sha256, licence note and key report in their header (`read_metadata`). The way back
    writes pickled weights for .pth and its like, bare tensors for .safetensors. `target` is there complete or not
    at all, and an existing one is kept unless `overwrite`.
    """
    source, target = Path(source), Path(target)
    if layout is not None and layout not in LAYOUTS:
        raise Refused(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if source.exists() and target.exists() and source.samefile(target):
        raise Refused(f"{target} is the source itself; name another file to write")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; name another file, or overwrite it with --overwrite")
    if kind := _kind_of_ours(source):
        return _restore(source, target, layout, kind)
    if target.suffix != ".safetensors":
        raise Refused(f"{target}: weights are converted to safetensors; give the target the suffix .safetensors")
    model, report = load_released(source, layout, hints)
    save_model(target, model, {
        "source": source.name, "source_sha256": sha256_of(source), "source_bytes": source.stat().st_size,
        "layout": report.layout, "licence": LAYOUTS[report.layout].licence,
        "converted_by": f"s4d_lib {__version__}", "missing": list(report.missing), "report": report.as_json()})
    return report


def _restore(source: Path, target: Path, layout: str | None, kind: str) -> KeyReport:
    """A file of ours → a published layout: the one it came from, or the first that holds such a model."""
    fitting = [name for name, one in LAYOUTS.items() if one.model == kind]
    layout = layout or read_metadata(source).get("layout") or fitting[0]
    if layout not in fitting:
        raise Refused(f"{source} holds a {kind}, which can be written as {', '.join(fitting)}, not as {layout}")
    if target.suffix not in (".safetensors", *PICKLED):
        raise Refused(f"{target}: its suffix decides how it is written; use .safetensors or {', '.join(PICKLED)}")
    contents = read_contents(source)
    try:
        placed = to_released(layout, contents.tensors)
    except BadTensor as error:
        raise Refused(f"{source} cannot be written as {layout}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.contiguous() for key, value in placed.tensors.items()}
    if target.suffix == ".safetensors":
        content = save(tensors, metadata={"layout": layout, "source": source.name})
    else:
        buffer = io.BytesIO()
        torch.save({LAYOUTS[layout].container: tensors} if LAYOUTS[layout].container else tensors, buffer)
        content = buffer.getvalue()
    write_atomically(target, content)
    taken = tuple(key for key in contents.tensors if key not in placed.dropped)
    return KeyReport(source, tuple(tensors), (), placed.dropped, placed.notes, taken, layout)


def _kind_of_ours(source: Path) -> str | None:
    """Class name of the model in a file of ours; None for a published file, whatever it is."""
    if source.suffix != ".safetensors":
        return None
    with open_safetensors(source) as file:
        return own_model(source, file.metadata() or {}, MODELS)


class _Reader:
    """Reads a network's numbers from its tensors; every guess becomes a note."""

    def __init__(self, contents: Contents, layout: str, tensors: dict[str, Tensor], hints: Hints) -> None:
        self.contents, self.layout, self.tensors, self.hints = contents, layout, tensors, hints
        self.notes: list[str] = []

    def shape(self, key: str) -> torch.Size:
        """Shape of a tensor that must be there."""
        if key not in self.tensors:
            raise BadCheckpoint(self.contents.path, f"as {self.layout} it must hold {key}, and does not",
                                "name its layout with --as, or check that the file is complete")
        return self.tensors[key].shape

    def depth(self, prefix: str = "") -> int:
        """Number of blocks; a gap in their numbers is an error."""
        found = re.compile(rf"{re.escape(prefix)}blocks\.(\d+)\.")
        numbers = {int(match[1]) for key in self.tensors if (match := found.match(key))}
        gaps = sorted(set(range(max(numbers, default=-1) + 1)) - numbers)
        if gaps:
            raise BadCheckpoint(self.contents.path, f"it has no {prefix}blocks.{gaps[0]}, but later ones",
                                "check that the file is complete")
        return len(numbers)

    def heads(self, dim: int, name: str = "heads") -> int:
        """Attention heads: told by the caller, or one per 64 channels as in every published model."""
        told = getattr(self.hints, name)
        if told is None and dim % CHANNELS_PER_HEAD:
            raise BadCheckpoint(self.contents.path, f"its width of {dim} does not tell the number of attention heads",
                                f"say it with --{name.replace('_', '-')}")
        if told is None:
            self.notes.append(f"{name}: {dim // CHANNELS_PER_HEAD}, one per {CHANNELS_PER_HEAD} channels")
        return told or dim // CHANNELS_PER_HEAD

    def setting(self, name: str, default: Any) -> Any:
        """A number that no shape shows: from the caller, the script's arguments, or the published models."""
        told = getattr(self.hints, name)
        if told is not None:
            return told
        for argument in ARGUMENTS[name]:
            value = self.contents.settings.get(argument)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                self.notes.append(f"{name}: {value}, from the training script's {argument}")
                return value
        self.notes.append(f"{name}: {default}, as published; the file does not say")
        return default

    def side(self, tokens: int | None, patch: int) -> int:
        """Edge of the input: from the length of a position table, or as `setting` finds it."""
        if tokens and self.hints.image_size is None and (side := round(tokens**0.5)) ** 2 == tokens:
            self.notes.append(f"image_size: {side * patch}, from the position table")
            return side * patch
        return int(self.setting("image_size", LAYOUTS[self.layout].image_size))

    def size(self, prefix: str = "") -> Size:
        """Size of a video encoder; widths and depths from shapes."""
        dim, _, tubelet, patch, _ = self.shape(f"{prefix}patch_embed.proj.weight")
        depth = self.depth(prefix)
        named = next((size for size in SIZES.values() if (size.dim, size.depth) == (dim, depth)), None)
        heads = self.heads(dim)
        frames = int(self.setting("frames", 16))
        mlp_ratio = self.shape(f"{prefix}blocks.0.mlp.fc1.weight")[0] / dim
        decoder = (named.decoder_dim, named.decoder_depth, named.decoder_heads) if named else (heads, 1, 1)
        return Size(self.side(self._places(frames // tubelet), patch), frames, patch, tubelet, dim, depth, heads,
                    *decoder, mlp_ratio=mlp_ratio)

    def _places(self, slots: int) -> int | None:
        table = next((value for key, value in self.contents.tensors.items()
                      if key.endswith("pos_embed") and "decoder" not in key and value.ndim == 3), None)
        if table is None:
            return None
        return table.shape[1] - 1 if self.layout == "mae" else table.shape[1] // slots


def _describe_autoencoder(read: _Reader) -> tuple[dict[str, Any], list[str]]:
    decoder_dim = read.shape("encoder_to_decoder.weight")[0]
    size = replace(read.size("encoder."), decoder_dim=decoder_dim, decoder_depth=read.depth("decoder."),
                   decoder_heads=read.heads(decoder_dim, "decoder_heads"))
    return {"size": asdict(size)}, read.notes


def _describe_encoder(read: _Reader) -> tuple[dict[str, Any], list[str]]:
    return {"size": asdict(read.size())}, read.notes


def _describe_classifier(read: _Reader) -> tuple[dict[str, Any], list[str]]:
    classes = {task: len(read.tensors[key]) for task in ("image", "video")
               if (key := f"head.{task}.weight") in read.tensors}
    config: dict[str, Any] = {"size": asdict(read.size()), "classes": classes or None,
                              "behaviour": read.hints.behaviour}
    experts = [(int(match[1]), int(match[2])) for key in read.tensors if (match := EXPERT.match(key))]
    if experts:
        config |= {"moae_blocks": sorted({block for block, _ in experts}),
                   "experts": 1 + max(expert for _, expert in experts), "top_k": int(read.setting("top_k", 2)),
                   "capacity_factor": float(read.setting("capacity_factor", 1.0))}
    return config, read.notes


def _describe_s2d(read: _Reader) -> tuple[dict[str, Any], list[str]]:
    dim, _, patch, _ = read.shape("patch_embed.proj.weight")
    config = {"dim": dim, "patch": patch, "depth": read.depth(),
              "mlp_ratio": read.shape("blocks.0.mlp.fc1.weight")[0] / dim,
              "image_size": read.side(read.shape("pos_embed")[1] - 1, patch)}
    told = {"frames": ("temporal_embedding", 1), "landmark_channels": ("patch_embed_prompt.proj.weight", 1),
            "prompt_dim": ("prompt_blocks.0.conv0_0.weight", 0), "num_classes": ("head.fc_cls.weight", 0)}
    config |= {name: read.tensors[key].shape[axis] for name, (key, axis) in told.items() if key in read.tensors}
    ours = [name for name, size in S2D_SIZES.items() if (size["dim"], size["depth"]) == (dim, config["depth"])]
    if ours and read.hints.heads is None:  # no shape shows heads, and those of the small sizes are not as published
        config |= {key: S2D_SIZES[ours[0]][key] for key in ("heads", "temporal_heads")}
        read.notes.append(f"heads: {config['heads']}, of the temporal adapters {config['temporal_heads']}, as in the "
                          f"size {ours[0]!r}")
    else:
        config["heads"] = read.heads(dim)
    if (key := "prompt_blocks.0.TMA.S_Adapter.D_fc1.weight") in read.tensors:
        config["adapter_ratio"] = read.tensors[key].shape[0] / dim
    elif "patch_embed_prompt.proj.weight" in read.tensors:
        config |= {"temporal": False, "frames": 1}
        read.notes.append("it has prompts and no temporal adapters: the image stage of S2D")
    if key in read.tensors and "prompt_blocks.0.conv0_0.weight" not in read.tensors:
        config["prompts"] = False
    return config, read.notes


DESCRIBE = {"DualModalMAE": _describe_autoencoder, "DualModalEncoder": _describe_encoder,
            "S4DClassifier": _describe_classifier, "S2DClassifier": _describe_s2d,
            "LandmarkNet": lambda read: ({}, read.notes)}


def _refuse_partial(path: Path, kind: str, missing: list[str]) -> None:
    """An encoder in part, or a frozen network in part, would compute something else and look alike."""
    if kind == "LandmarkNet":
        holes = [key for key in missing if not key.endswith("num_batches_tracked")]
    else:
        holes = [key for key in missing if TRUNK.match(key.removeprefix("encoder.")) and ".moe_layer." not in key]
    if holes:
        raise BadCheckpoint(path, f"{len(holes)} tensors of its network are not in it, first {holes[0]}",
                            "download it again, or name its layout with --as")


def _compare_positions(contents: Contents, placed: Placed, model: Model) -> list[str]:
    """Whether a position table that found no place says what our formula says."""
    notes = []
    for key in placed.dropped:
        table = contents.tensors[key]
        if key.endswith("pos_embed") and "decoder" not in key and hasattr(model, "positions"):
            ours = position_table(model.size.grid, model.size.dim, model.size.positions)
            if table.shape[1:] == ours.shape:
                notes.append(f"{key} differs from the formula by at most {(table[0].float() - ours).abs().max():.1g}")
    return notes
