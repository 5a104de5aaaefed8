"""model ↔ Hub     save_pretrained, from_pretrained, push_to_hub, and the model card they write.

A folder holds `model.safetensors` (a checkpoint as `weights.save_model` writes it, which describes its model by
itself), the same description as `config.json` for people and the Hub, and a card, `README.md`. What a model knows
of its origin lies in its `metadata` and travels along: `source`, `source_sha256` and `licence` of a converted file
reach the card.
"""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, errors, hf_hub_download

from s4d_lib.weights.files import AnotherModel, read_metadata, rebuild, save_model

WEIGHTS, CONFIG = "model.safetensors", "config.json"
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
S4D, S2D = ("2409.06154", "Static for Dynamic (S4D)"), ("2312.05447", "From Static to Dynamic (S2D)")
# class → (paper, what it is)
KINDS = {
    "S4DClassifier": (S4D, "A classifier of apparent facial expressions in images and in short videos: one vision "
                           "transformer for both, with a linear head for each."),
    "DualModalMAE": (S4D, "A masked autoencoder of face images and face videos: it sees a few patches and predicts "
                          "the others. It is a starting point for training and names no expression."),
    "DualModalEncoder": (S4D, "The encoder of a masked autoencoder of images and videos: pixels in, one latent vector "
                              "per patch out. It is a starting point for training and names no expression."),
    "S2DClassifier": (S2D, "A classifier of apparent facial expressions in short videos: an image transformer with "
                           "landmark prompts and temporal adapters."),
}
BEHAVIOURS = {
    "clean": "noise and expert capacity act while training only, so a prediction depends on its own sample alone",
    "reference": "as in the released code, router noise and expert capacity act at test time too, so a prediction "
                 "depends on chance and on the other samples of its batch",
}


class HubModel(PyTorchModelHubMixin, library_name="s4d_lib", tags=["facial-expression-recognition"]):
    """Gives a model of this library `from_pretrained`, `save_pretrained` and `push_to_hub`.

    The model needs a JSON-able `config` with which `type(model)(**model.config)` rebuilds it.
    """

    config: dict[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the weights' origin, JSON-able; it is written with them."""
        return self.__dict__.setdefault("_origin", {})

    @metadata.setter
    def metadata(self, known: dict[str, Any]) -> None:
        self.__dict__["_origin"] = dict(known)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, *, force_download: bool = False,
                        token: str | bool | None = None, cache_dir: str | Path | None = None,
                        local_files_only: bool = False, revision: str | None = None, map_location: str = "cpu",
                        **changes: Any) -> "HubModel":
        """The model in a folder, or in a Hub repository `owner/name`, in evaluation mode.

        `changes` replace arguments that the checkpoint describes (`checkpoints.load_model`).
        """
        place = str(pretrained_model_name_or_path)
        if Path(place).is_dir():
            path = Path(place) / WEIGHTS
            if not path.is_file():
                raise FileNotFoundError(f"{place}: this folder holds no {WEIGHTS}; give the folder that "
                                        "save_pretrained wrote")
        else:
            path = _download(place, force_download=force_download, token=token, cache_dir=cache_dir,
                             local_files_only=local_files_only, revision=revision)
        try:
            model = rebuild(path, [cls], **changes)
        except AnotherModel as error:
            raise TypeError(f"{place}: it holds a {error.model} and not a {cls.__name__}; use "
                            f"{error.model}.from_pretrained") from error
        known = read_metadata(path)
        # Under "missing" save_model leaves tensors out; once the model is here they exist, and may get trained.
        if known.pop("missing", None):
            known["note"] = "some tensors were not in the source and started fresh"
        model.metadata = known
        return model.to(map_location)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory / WEIGHTS, self, self.metadata)
        described = {"model": type(self).__name__, **self.config}
        (save_directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n")

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """The card of this model. `facts` go over `metadata`, such as `licence=` or `source=`."""
        kind, known = type(self).__name__, {**self.metadata, **facts}
        (arxiv, paper), what = KINDS[kind]
        classifies = kind.endswith("Classifier")
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        data.tags = sorted({*(data.tags or ()), f"arxiv:{arxiv}"})
        if classifies:
            data.pipeline_tag = "video-classification"
        sections = {
            "": f"{what} Paper: [{paper}](https://arxiv.org/abs/{arxiv}).{_behaviour(self.config)}",
            "Input": _input(self.config, kind), "Output": _output(self.config, known, kind),
            "Load": f"```python\nfrom {_face(type(self))} import {kind}\n\n"
                    f"model = {kind}.from_pretrained(\"folder or owner/name\")\n```",
            "Where the weights come from": _origin(known),
            "Use and limits": _limits(classifies),
        }
        body = "\n".join(f"## {title}\n\n{text}\n" if title else f"# {kind}\n\n{text}\n"
                         for title, text in sections.items())
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _face(kind: type) -> str:
    """The module that a reader imports a class from: a package or file of ours, not a file inside a package."""
    return ".".join(kind.__module__.split(".")[:2])


def _download(name: str, **how: Any) -> Path:
    """The weights of a Hub repository, in the local cache."""
    if not REPO_ID.fullmatch(name):
        raise FileNotFoundError(f"{name}: there is no such folder, and a Hub repository is named owner/name")
    try:
        return Path(hf_hub_download(name, WEIGHTS, **how))
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, errors.HFValidationError,
            errors.OfflineModeIsEnabled) as error:
        raise FileNotFoundError(f"{name}: there is no such folder, and no {WEIGHTS} could be had from a Hub repository "
                                f"of that name ({type(error).__name__}); check the name, the network and the access "
                                "rights") from error


def _behaviour(config: dict[str, Any]) -> str:
    if not config.get("moae_blocks"):
        return ""
    blocks = ", ".join(map(str, config["moae_blocks"]))
    return (f" Blocks {blocks} (from 0) hold {config['experts']} adapter experts each, of which a token uses "
            f"{config['top_k']}. Behaviour `{config['behaviour']}`: {BEHAVIOURS[config['behaviour']]}.")


def _input(config: dict[str, Any], kind: str) -> str:
    from s4d_lib.layers.tokens import height_width

    size = config.get("size", config)
    height, width = height_width(size["image_size"])
    images = "" if kind == "S2DClassifier" and size["frames"] > 1 else f"Images `[b 3 {height} {width}]` or "
    clips = f"clips `[b 3 {size['frames']} {height} {width}]`"
    text = (f"{images}{clips}, height before width: RGB faces, cropped and aligned as in the training data, in [0, 1] "
            "and then normalised with ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, "
            "0.225).")
    if kind == "S2DClassifier" and not config["landmark_net"] and config.get("prompts", True):
        text += " It also needs the landmark features of every frame (`models.LandmarkNet` of s4d_lib)."
    return text[0].upper() + text[1:]


def _output(config: dict[str, Any], known: dict[str, Any], kind: str) -> str:
    if not kind.endswith("Classifier"):
        return "Latents, or predicted pixels; no classes."
    classes = config.get("classes", {"image" if config.get("frames") == 1 else "video": config.get("num_classes")})
    names = known.get("class_names") or {}
    lines = [f"- {task}: {count} classes" + (f" ({', '.join(names[task])})" if task in names else "")
             for task, count in classes.items()]
    unnamed = "" if set(names) >= set(classes) else ("\n\nThe order of the classes is that of the data set it was "
                                                     "trained on.")
    return "\n".join(["Logits.", "", *lines]) + unnamed if classes else "Features; it has no head."


def _origin(known: dict[str, Any]) -> str:
    lines = [f"- {label}: {known[key]}" for key, label in (
        ("provenance", "Provenance"), ("source", "Converted from"), ("source_sha256", "SHA-256 of that file"),
        ("layout", "Layout"), ("converted_by", "Converted by"), ("note", "Note"), ("licence", "Licence"),
    ) if known.get(key)]
    if known.get("config"):
        lines.append(f"- Training run: `{known['config'].get('name', 'unnamed')}`, stage "
                     f"{known['config'].get('stage', 'unknown')}")
    if not known.get("licence"):
        lines.append("- Licence: not recorded here. Weights may carry the terms of the data and of the weights they "
                     "started from; state them before you share this.")
    return "\n".join(lines)


def _limits(classifies: bool) -> str:
    about = ("A prediction names an *apparent* expression, what a picture looks like to annotators, and not what a "
             "person feels. Do not use it to judge people.") if classifies else (
             "It was made for research on facial expressions; what is built on it can name *apparent* expressions "
             "only, and not what a person feels. Do not use it to judge people.")
    return (f"{about} It knows the faces it was trained on: the tiny model that comes with the library has seen drawn "
            "faces alone and was never measured on photographs. Measure it on your own data, for every group of people "
            "in it, before you rely on it.")
