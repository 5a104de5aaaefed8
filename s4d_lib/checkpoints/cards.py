"""checkpoint → reader     a model that answers, and what its file says about how to ask and how far to trust it.

The metadata of a classifier (`save_model(path, model, metadata)`) may hold

    schemas         {"image": "affectnet7", "video": "dfew"}   the label order of each head, by name
    class_names     {"video": ["Anger", ...]}                  or spelled out, which goes before the name
    stride          2                                          frames between two frames of a clip
    fps             12.5                                       rate of the clips it was trained on
    temperature     {"image": 1.3, "video": 1.2} or one number; above 1 the answers become less sure
    abstain_below   {"image": 0.45, ...} or one number         confidence that an answer needs
    trained_on      "drawn faces only: ..."                    one sentence
    licence         "Apache-2.0"
    local_contrast  true                                       trained on frames read through `frames/local_contrast.py`
    framing         {"align": "box", "margin": 0.1}            how faces are cut for it, as `crops.FaceCropper` does
    not_ours        "not ours: trained on ... by ..."          said wherever its answers are shown

and nothing of it must be there: the defaults are the released stride of 4, temperature 1, an answer at any
confidence, and classes that are numbers ("class 0").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from s4d_lib.crops.alignment import ALIGN
from s4d_lib.datasets.labels import SCHEMAS, schema_named
from s4d_lib.errors import Refused
from s4d_lib.text import printable

RELEASED_STRIDE = 4  # the sampling rate of the released scripts, finetune/run.sh
UNKNOWN = "not recorded in the file"
TASKS = ("image", "video")
MARK = " (not ours)"
DRAWN = "drawn faces only"  # how `trained_on` begins where no photograph was seen
NUMBERED = re.compile(r"class \d+")  # names of classes whose order no file tells


@dataclass(frozen=True)
class AnswerCard:
    """How to ask a model and how to read its answers; a task is "image" or "video"."""

    name: str
    classes: dict[str, tuple[str, ...]]                        # task → class names
    schemas: dict[str, str] = field(default_factory=dict)      # task → name of its label schema
    stride: int = RELEASED_STRIDE
    temperature: dict[str, float] = field(default_factory=dict)
    abstain_below: dict[str, float] = field(default_factory=dict)
    trained_on: str = UNKNOWN
    licence: str = UNKNOWN
    frames: int = 16
    image_size: tuple[int, int] = (160, 160)                   # height, width
    fps: float | None = None
    notes: tuple[str, ...] = ()
    shipped: bool = False                                      # the model that comes with the library
    framing: dict[str, Any] = field(default_factory=dict)      # arguments of `crops.FaceCropper`
    not_ours: str = ""                                         # whose it is, and on which terms

    def schema(self, task: str) -> str:
        return self.schemas.get(task, "unknown")

    @property
    def opening(self) -> str:
        """What somebody should know before the first answer: on what the network was trained, as its file says."""
        if self.not_ours:
            return f"model {self.name.removesuffix(MARK)} is {self.not_ours}"
        if self.trained_on.startswith(DRAWN):
            what = self.trained_on.removeprefix(DRAWN).strip(" :")
            return (f"model {self.name}: trained on drawn faces (synthetic), not on photographs"
                    f"{f': {what}' if what else ''}")
        unknown = self.trained_on == UNKNOWN
        return f"model {self.name}: {'on what it was trained is' if unknown else 'trained on'} {self.trained_on}"

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "schemas": {task: self.schema(task) for task in self.classes},
                "classes": {task: list(names) for task, names in self.classes.items()}, "stride": self.stride,
                "fps": self.fps, "frames": self.frames, "image_size": list(self.image_size),
                "temperature": self.temperature, "abstain_below": self.abstain_below,
                "opening": self.opening, "trained_on": self.trained_on, "not_ours": self.not_ours or None,
                "licence": self.licence, "notes": list(self.notes)}


@dataclass(frozen=True)
class OpenedModel:
    """A classifier in evaluation mode and its card."""

    model: Any
    card: AnswerCard


def open_model(model: Any = None, schema: Mapping[str, str] | None = None) -> OpenedModel:
    """The model that comes with the library, a file, a folder that `save_pretrained` wrote, or a model in memory.

    A `str` that is a key of `checkpoints.photographs.MODELS` ("fer") is the model of others that was fetched under that
    name; "./fer" is a file or a folder.

    `schema` names the label order of a head where the file does not: {"video": "dfew"}. ValueError for a schema
    whose number of classes is not the head's, for a model that names no expression, and for metadata that cannot be
    meant; FileNotFoundError where there is no file. A file as the authors released it is answered with the command
    that converts it.
    """
    from s4d_lib.checkpoints import photographs
    from s4d_lib.weights.files import SHIPPED

    shipped = False
    if isinstance(model, str) and model in photographs.MODELS:
        model = photographs.named_model(model)
    if model is None or isinstance(model, (str, Path)):
        path = SHIPPED["classifier"] if model is None else Path(model)
        if path.is_dir():
            path = path / "model.safetensors"
        shipped = path.resolve() == SHIPPED["classifier"].resolve()
        loaded, known, name = _load(path, shipped)
    else:
        loaded, known, name = model, getattr(model, "metadata", {}), type(model).__name__
    heads, frames, size = _describe(loaded, name)
    card = read_card(name, heads, frames, size, known, schema, _behaviour(loaded))
    return OpenedModel(loaded.eval(), replace(card, shipped=shipped))


def _load(path: Path, shipped: bool) -> tuple[Any, dict[str, Any], str]:
    from s4d_lib.checkpoints.loading import load_model
    from s4d_lib.weights.files import read_metadata

    if not path.is_file():
        what = "the weights that should come with the library are missing; install it again or name a file " \
            "with --model" if shipped else "there is no such model file; give a .safetensors file of this library, " \
            "or the folder that save_pretrained wrote"
        raise FileNotFoundError(f"{path}: {what}")
    model = load_model(path)
    name = path.parent.name if path.name == "model.safetensors" and path.parent.name else path.stem
    return model, read_metadata(path), name


def _describe(model: Any, name: str) -> tuple[dict[str, int], int, tuple[int, int]]:
    """Classes of each head, frames of a clip, (height, width)."""
    kind, config = type(model).__name__, getattr(model, "config", {})
    if kind == "S4DClassifier" and config["classes"]:
        return dict(config["classes"]), model.size.frames, (model.size.height, model.size.width)
    if kind == "S2DClassifier" and config["num_classes"]:
        if model.prompts and not config["landmark_net"]:
            raise Refused(f"{name}: this S2DClassifier has no landmark network of its own, and a video does not "
                          "bring landmark features along; build it with landmark_net=True")
        task = "image" if model.frames == 1 else "video"  # its image stage reads stills
        return {task: config["num_classes"]}, model.frames, tuple(model.image_size)
    if kind == "PhotographClassifier":
        from s4d_lib.models.photograph_classifier import EDGE, WORDS

        return dict.fromkeys(TASKS, len(WORDS)), 1, (EDGE, EDGE)
    raise Refused(f"{name} holds a {kind} without heads, which names no expression; fine-tune it first, or give a "
                  "fine-tuned S4DClassifier or S2DClassifier")


def _behaviour(model: Any) -> tuple[str, ...]:
    config = getattr(model, "config", {})
    if type(model).__name__ == "PhotographClassifier":
        return ("it reads single pictures: of a clip each by itself, so that no movement is seen, and the two views "
                "are two pictures; its confidence was not calibrated here",)
    if config.get("moae_blocks") and config.get("behaviour") == "reference":
        return ("this model repeats the released arithmetic: its answers depend on chance and on what shares a batch",)
    return ()


def read_card(name: str, heads: Mapping[str, int], frames: int, image_size: tuple[int, int],
              known: Mapping[str, Any], schema: Mapping[str, str] | None = None,
              notes: tuple[str, ...] = ()) -> AnswerCard:
    """The card of a model with these heads (task → number of classes) from its metadata and from `schema`."""
    not_ours = printable(str(known.get("not_ours") or ""), 600)
    if not_ours:
        name, notes = name + MARK, (not_ours, *notes)
    given = dict(schema or {})
    if strange := sorted(set(given) - set(heads)):
        raise Refused(f"{name} has no {strange[0]} head to give a schema to; it has {', '.join(heads)}")
    recorded = {task: text for task, text in _mapping(name, known, "schemas").items() if task in heads}
    schemas, classes, remarks = {}, {}, list(notes)
    for task, count in heads.items():
        spelled = _mapping(name, known, "class_names").get(task)
        if task in given or (task in recorded and not spelled):
            schemas[task] = given.get(task, recorded.get(task))
            classes[task] = _classes(name, task, schemas[task], count)
        elif spelled:
            if not isinstance(spelled, (list, tuple)):
                raise Refused(f"{name}: its metadata sets class_names of {task} to {spelled!r}; it must be a list")
            schemas[task] = recorded.get(task, "its own")
            classes[task] = tuple(map(str, spelled))
            if len(classes[task]) != count:
                raise Refused(f"{name}: class_names lists {len(classes[task])} {task} classes, the head has {count}")
        else:
            classes[task] = tuple(f"class {i}" for i in range(count))
            remarks.append(f"the file does not say in which order its {count} {task} classes stand: they are "
                           f"numbered; name the order with schema {task}=…")
        if task in given and recorded.get(task, given[task]) != given[task]:
            remarks.append(f"read as {given[task]}, although the file says {recorded[task]} for {task}")
    stride = known.get("stride", RELEASED_STRIDE)
    if not isinstance(stride, int) or isinstance(stride, bool) or stride < 1:
        raise Refused(f"{name}: its metadata sets stride to {stride!r}; it must be a whole number above 0")
    if "stride" not in known and "video" in heads:
        remarks.append(f"the file does not say at which stride it was trained: {RELEASED_STRIDE} as released")
    if known.get("local_contrast"):
        remarks.append("it was trained on frames read through local contrast, which readers of this library do not "
                       "apply: its answers on plain frames mean little")
    fps = known.get("fps")
    if fps is not None and not (isinstance(fps, (int, float)) and 0 < fps < 10_000):
        raise Refused(f"{name}: its metadata sets fps to {fps!r}; it must be frames a second")
    return AnswerCard(
        name, classes, schemas, stride, _numbers(name, known, "temperature", heads, 0.05, 20.0),
        _numbers(name, known, "abstain_below", heads, 0.0, 1.0), str(known.get("trained_on") or UNKNOWN),
        str(known.get("licence") or UNKNOWN), frames, image_size, fps, tuple(remarks),
        framing=_framing(name, known), not_ours=not_ours)


def _classes(name: str, task: str, schema: str, count: int) -> tuple[str, ...]:
    if not isinstance(schema, str):
        raise Refused(f"{name}: no label schema is called {schema!r}; there are {', '.join(SCHEMAS)}")
    try:
        named = schema_named(schema)
    except Refused as error:
        raise Refused(f"{name}: {error}") from None
    if len(named) != count:
        fitting = [key for key, one in SCHEMAS.items() if len(one.classes) == count]
        raise Refused(f"{name}: schema {schema} has {len(named)} classes and the {task} head "
                      f"{count}; with {count} there are {', '.join(fitting) or 'none'}")
    return named.classes


def _mapping(name: str, known: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = known.get(key) or {}
    if not isinstance(value, Mapping):
        raise Refused(f"{name}: its metadata sets {key} to {value!r}; it must map {' and '.join(TASKS)} to values")
    return value


def _framing(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    framing = dict(_mapping(name, known, "framing"))
    margin = framing.get("margin", 0.0)
    possible = isinstance(margin, (int, float)) and not isinstance(margin, bool) and 0 <= margin <= 10
    if set(framing) - {"align", "margin"} or framing.get("align", "eyes") not in ALIGN or not possible:
        raise Refused(f"{name}: its metadata sets framing to {framing!r}; it may set align to one of "
                      f"{', '.join(ALIGN)} and margin to a number from 0 to 10")
    return framing


def _numbers(name: str, known: Mapping[str, Any], key: str, heads: Mapping[str, int], low: float,
             high: float) -> dict[str, float]:
    """A number for each task that has one, checked; one number alone is meant for every task."""
    value = known.get(key)
    found = dict.fromkeys(heads, value) if isinstance(value, (int, float)) else _mapping(name, known, key)
    for task, number in found.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high:
            raise Refused(f"{name}: its metadata sets {key} of {task} to {number!r}; it must lie between {low:g} "
                          f"and {high:g}")
    return {task: float(number) for task, number in found.items() if task in heads}
