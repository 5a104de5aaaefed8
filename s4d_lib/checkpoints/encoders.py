"""file → encoder     pretrained encoders handed on, from files of ours and of others, with a report of every key.

Files of ours describe their model (`weights/files.py`). Files that others published are read here too, as far as they
hold an encoder; whole models are rebuilt from them in `convert.py`.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from s4d_lib.checkpoints.allowance import Allowance
from s4d_lib.checkpoints.layouts import LAYOUTS, Placed, recognise, strip_wrappers, to_ours
from s4d_lib.checkpoints.loading import MODELS
from s4d_lib.checkpoints.names import RECONSTRUCTION, TRUNK, UNKNOWN, BadTensor
from s4d_lib.errors import Refused
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size, resolve_size
from s4d_lib.weights.containers import BadCheckpoint, Contents, read_contents
from s4d_lib.weights.files import check_shapes, config_of, own_model, summarise_keys


@dataclass(frozen=True)
class KeyReport:
    """What became of every key when weights were loaded or converted.

    Every key of the file is in `taken` or in `dropped`, every key of the model in `matched` or in `missing`.
    """

    path: Path
    matched: tuple[str, ...]     # model keys taken from the file
    missing: tuple[str, ...]     # model keys the file has not: still at their initial values
    dropped: dict[str, str]      # file keys without a place in the model → why
    notes: tuple[str, ...] = ()  # differences between the two models that no shape shows, conversions
    taken: tuple[str, ...] = ()  # file keys that were used
    layout: str = ""             # one of LAYOUTS; empty for a file of our own

    def __str__(self) -> str:
        kind = f" ({self.layout}: {LAYOUTS[self.layout].says})" if self.layout else ""
        lines = [f"{self.path.name}{kind}: {len(self.matched)} tensors matched, {len(self.missing)} missing, "
                 f"{len(self.dropped)} dropped"]
        lines += [f"  missing  {keys}: not in the file, starts fresh" for keys in summarise_keys(self.missing)]
        for reason in dict.fromkeys(self.dropped.values()):
            same = (key for key, why in self.dropped.items() if why == reason)
            lines += [f"  dropped  {keys}: {reason}" for keys in summarise_keys(same)]
        return "\n".join([*lines, *(f"  note     {note}" for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """The report as plain dictionaries and lists, as it stands in the header of a converted file."""
        return {**asdict(self), "path": self.path.name}


def load_encoder(classifier: S4DClassifier, path: str | Path, layout: str | None = None) -> KeyReport:
    """Copy a pretrained encoder into a classifier, in place; return what became of every key.

    Reads files that `save_model` wrote and any published file in one of `checkpoints.layouts.LAYOUTS`; `layout` names
    it where the keys do not tell. Heads and `fc_norm` stay as they are, and so do experts that the file lacks. An
    encoder that would load only in part raises BadCheckpoint: it would look like a poor idea and not like a bug.
    """
    contents = read_contents(path)
    path, model = contents.path, classifier.state_dict()
    layout, placed = place(contents, layout, classifier.size.tubelet)
    placed = replace(placed, tensors={key.removeprefix("encoder."): value for key, value in placed.tensors.items()},
                     source={key.removeprefix("encoder."): old for key, old in placed.source.items()})
    homeless = {key: reason for key in placed.tensors if (reason := _no_place(key, model))}
    found = {key: value for key, value in placed.tensors.items() if key not in homeless}
    missing = tuple(name for name in model if name not in found)
    _refuse_partial_encoder(path, missing, [old for key in homeless for old in placed.source[key]])
    check_shapes(path, found, model)
    notes = (*placed.notes, *_size_notes(path, contents.header, classifier.size))
    report = report_keys(contents, layout, placed, homeless, missing, notes)
    Allowance(path).refuse_unplaced(report.dropped)
    classifier.load_state_dict(found, strict=False)
    return report


def place(contents: Contents, layout: str | None = None, tubelet: int = 2) -> tuple[str, Placed]:
    """Tensors of any file under our keys, and the name of its layout ("" for a file of our own).

    `source` and `dropped` of what is returned name keys as the file does.
    """
    path = contents.path
    if layout is not None and layout not in LAYOUTS:
        raise Refused(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if own_model(path, contents.header, MODELS):
        return "", Placed(contents.tensors, {key: (key,) for key in contents.tensors})
    try:
        names, notes = strip_wrappers(list(contents.tensors))
        bare = {name: contents.tensors[key] for key, name in names.items()}
        layout = layout or recognise(bare, tuple(contents.skipped))
        placed = to_ours(layout, bare, tubelet)
    except BadTensor as error:
        raise BadCheckpoint(path, str(error), "check that this is the right file") from error
    original = {name: key for key, name in names.items()}
    return layout, replace(placed, source={ours: tuple(original[name] for name in held)
                                           for ours, held in placed.source.items()},
                           dropped={original[name]: reason for name, reason in placed.dropped.items()},
                           notes=notes + placed.notes)


def report_keys(contents: Contents, layout: str, placed: Placed, homeless: dict[str, str], missing: Iterable[str],
                notes: Iterable[str]) -> KeyReport:
    """Account for every key: `homeless` are our names that the model has no place for → why."""
    kept = [key for key in placed.tensors if key not in homeless]
    taken = dict.fromkeys(old for key in kept for old in placed.source[key])
    dropped = {old: reason for key, reason in homeless.items() for old in placed.source[key] if old not in taken}
    return KeyReport(contents.path, tuple(kept), tuple(missing), {**placed.dropped, **dropped},
                     tuple(notes), tuple(taken), layout)


def _no_place(name: str, model: dict[str, Tensor]) -> str | None:
    """Why a tensor of the file does not enter the classifier, None when it does."""
    if name.startswith(("decoder.", "encoder_to_decoder.")) or name == "mask_token":
        return RECONSTRUCTION
    if name.startswith("norm."):
        return "the classifier pools first and then applies its own fc_norm"
    if name.startswith(("fc_norm.", "head.")):
        return "heads belong to their own task"
    if name not in model:
        return "the model has no such expert" if ".moe_layer." in name else UNKNOWN
    return None


def _refuse_partial_encoder(path: Path, missing: Iterable[str], dropped: Iterable[str]) -> None:
    def trunk(key: str) -> bool:
        return bool(TRUNK.match(key.removeprefix("encoder."))) and ".moe_layer." not in key

    absent = [key for key in missing if trunk(key)]
    if absent:
        raise BadCheckpoint(path, f"{len(absent)} encoder tensors of the model are not in it, first "
                            f"{absent[0]}", "use a file in the released layout and of the same depth")
    homeless = [key for key in dropped if trunk(key)]
    if homeless:
        raise BadCheckpoint(path, f"{len(homeless)} of its encoder tensors have no place in the model, first "
                            f"{homeless[0]}", "build the classifier in the Size that was pretrained")


def size_of(path: Path, header: dict[str, str]) -> Size:
    """The size of the model in a file of ours; BadCheckpoint where its header does not say or makes no sense."""
    try:
        return resolve_size(config_of(path, header)["size"])
    except (LookupError, TypeError, ZeroDivisionError, ValueError) as error:
        if isinstance(error, BadCheckpoint):
            raise
        raise BadCheckpoint(path, f"its header describes no possible size ({error})", "fetch it anew") from error


def _size_notes(path: Path, header: dict[str, str], size: Size) -> tuple[str, ...]:
    if own_model(path, header, MODELS) is None:
        return ("the file does not say for which input size and positions it was trained",)
    theirs = size_of(path, header)
    return tuple(f"{name} is {getattr(theirs, name)} in the file and {getattr(size, name)} in the model"
                 for name in ("image_size", "frames", "heads", "positions")
                 if getattr(theirs, name) != getattr(size, name))
