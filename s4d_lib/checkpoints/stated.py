"""file → statements     what a file says of its network, in `args` or `config.json`, held against its tensors.

Training scripts keep their argument list in the checkpoint, folders of `transformers` and `timm` a `config.json`. What
no shape shows (heads, frames) is taken from there; what a shape shows must agree.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from s4d_lib.weights.containers import Contents

# Our word → the words of configurations and argument lists.
WORDS = {
    "dim": ("hidden_size", "embed_dim", "encoder_embed_dim", "num_features"),
    "depth": ("num_hidden_layers", "depth", "encoder_depth", "num_layers"),
    "heads": ("num_attention_heads", "num_heads", "encoder_num_heads"),
    "mlp": ("intermediate_size",),
    "image_size": ("input_size", "img_size", "image_size"),
    "frames": ("num_frames", "n_frames", "clip_frames"),
    "tubelet": ("tubelet_size",),
    "patch": ("patch_size",),
    "channels": ("num_channels", "in_chans"),
    "experts": ("num_experts",),
    "decoder_dim": ("decoder_hidden_size", "decoder_embed_dim"),
    "decoder_depth": ("decoder_num_hidden_layers", "decoder_depth"),
    "decoder_heads": ("decoder_num_attention_heads", "decoder_num_heads"),
    "decoder_mlp": ("decoder_intermediate_size",),
    "top_k": ("top_k",),
    "capacity_factor": ("capacity_factor",),
}
NAMED = {"tiny": (192, 12), "small": (384, 12), "base": (768, 12), "large": (1024, 24), "huge": (1280, 32)}
REAL = {"capacity_factor"}  # every other word is a whole number
CONFIG = "config.json"


class Statement(NamedTuple):
    """A number that a file states, and where."""

    value: Any
    where: str  # "num_frames in config.json"


def statements(contents: Contents) -> dict[str, Statement]:
    """Our word → what the file states; `config.json` goes before `args`."""
    found: dict[str, Statement] = {}
    config = dict(contents.config)
    timm = config.get("pretrained_cfg")
    if isinstance(timm, dict) and isinstance(timm.get("input_size"), list) and len(timm["input_size"]) == 3:
        config.setdefault("input_size", timm["input_size"][1:])
    if isinstance(config.get("architecture"), str):
        config.setdefault("model", config["architecture"])
    for source, where in ((config, "{} in " + CONFIG), (contents.settings, "the training script's {}")):
        for word, names in WORDS.items():
            for name in names:
                if word not in found and (value := source.get(name)) is not None and not isinstance(value, str):
                    found[word] = Statement(_square(value), where.format(name))
        for word, value in _of_name(source.get("model")).items():
            found.setdefault(word, Statement(value, where.format(f"model {source['model']!r}")))
    return found


def _square(value: Any) -> Any:
    """[16, 16] → 16; an oblong pair stays a tuple."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value[0] if value[0] == value[1] else tuple(value)
    return value


def _of_name(model: Any) -> dict[str, int]:
    """Width and depth in a name such as `vit_base_patch16_224`; nothing in others."""
    named = r"(?:^|_)(tiny|small|base|large|huge)_patch(\d+)(?!\w*_\d+x\d)"
    if not isinstance(model, str) or not (size := re.search(named, model)):
        return {}
    dim, depth = NAMED[size[1]]
    return {"dim": dim, "depth": depth, "patch": int(size[2])}


def is_number(word: str, value: Any) -> bool:
    """Whether a stated value can be meant: above 0, whole where it counts something."""
    if word == "image_size" and isinstance(value, tuple):
        return all(is_number(word, side) for side in value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return False
    return word in REAL or (math.isfinite(value) and value == int(value))


def disagreements(contents: Contents, kind: str, layout: str, described: Mapping[str, Any],
                  placed: Mapping[str, Tensor]) -> dict[str, str]:
    """Our word → a sentence, for every statement that the tensors contradict or that no network can be meant by."""
    size = described.get("size", described)
    held = {word: size[word] for word in ("dim", "depth", "patch", "tubelet") if word in size}
    if kind == "DualModalMAE":
        held |= {word: size[word] for word in ("decoder_dim", "decoder_depth")}
        held["decoder_mlp"] = _length(placed, "decoder.blocks.0.mlp.fc1.bias")
    held["mlp"] = _length(placed, "blocks.0.mlp.fc1.bias", "encoder.blocks.0.mlp.fc1.bias")
    held["channels"] = 3
    if kind == "S2DClassifier" and "temporal_embedding" in placed:  # it has a row for each frame
        held["frames"] = described["frames"]
    if described.get("moae_blocks"):
        held["experts"] = described["experts"]
    found, said = {}, statements(contents)
    for word, (value, where) in said.items():
        if not is_number(word, value):
            found[word] = f"{where} is {str(value)[:40]}, which no network can have"
        elif held.get(word) is not None and value != held[word]:
            found[word] = f"{where} says {_says(word, value)}, and the tensors have {_says(word, held[word])}"
    if kind != "LandmarkNet" and (sentence := _table(contents, layout, size, said)):
        found.setdefault("image_size", sentence)
    if "hf_videomae" in layout and contents.config:
        found |= _port(contents.config, kind, layout, described, contents.tensors)
    return found


def _says(word: str, value: Any) -> str:
    return {"depth": f"{value} blocks", "decoder_depth": f"{value} decoder blocks"}.get(word, f"{word} {value}")


def _length(tensors: Mapping[str, Tensor], *keys: str) -> int | None:
    return next((len(tensors[key]) for key in keys if key in tensors), None)


def position_tokens(contents: Contents, layout: str) -> int | None:
    """Tokens of the file's position table, without a class token; None where it has none."""
    table = next((value for key, value in contents.tensors.items() if value.ndim == 3 and "decoder" not in key
                  and key.endswith(("pos_embed", "pos_embedding.emb", "position_embeddings"))), None)
    if table is None:
        return None
    return table.shape[1] - (layout in ("mae", "s2d") and any(key.endswith("cls_token") for key in contents.tensors))


def _table(contents: Contents, layout: str, size: Mapping[str, Any], said: Mapping[str, Statement]) -> str | None:
    """Whether a stated picture size and frame count make as many tokens as the position table has rows."""
    tokens = position_tokens(contents, layout)
    side = said["image_size"].value if "image_size" in said else None
    if tokens is None or not is_number("image_size", side):
        return None
    height, width = side if isinstance(side, tuple) else (side, side)
    slots = 1
    if layout not in ("mae", "s2d"):
        stated = said["frames"].value if "frames" in said and is_number("frames", said["frames"].value) else None
        slots = (stated or size["frames"]) // size["tubelet"]
    wanted = int(slots * (height // size["patch"]) * (width // size["patch"]))
    if wanted == tokens:
        return None
    return f"{said['image_size'].where} makes {wanted} tokens, and the position table has {tokens}"


def _port(config: Mapping[str, Any], kind: str, layout: str, described: Mapping[str, Any],
          tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a VideoMAE configuration of `transformers` may say that our models do not do."""
    found = {}
    if config.get("model_type", "videomae") != "videomae":
        found["model_type"] = f"model_type in {CONFIG} is {config['model_type']!r}, and the tensors are VideoMAE's"
    if config.get("hidden_act", "gelu") not in ("gelu", "gelu_python"):
        found["hidden_act"] = f"hidden_act in {CONFIG} is {config['hidden_act']!r}, and our blocks use gelu"
    if kind == "S4DClassifier" and config.get("use_mean_pooling") is False:
        found["use_mean_pooling"] = (f"use_mean_pooling in {CONFIG} is false: its head reads the first token, and ours "
                                     "reads the mean")
    biased = any(key.endswith(("q_bias", "query.bias")) for key in tensors)
    stated = config.get("qkv_bias", config.get("qv_bias", True))
    if isinstance(stated, bool) and stated != biased:
        found["qv_bias"] = f"{CONFIG} says {'a' if stated else 'no'} bias of queries and values, the tensors another"
    for name, part in (("VideoMAEForVideoClassification", "classifier"), ("VideoMAEForPreTraining", "decoder")):
        if config.get("architectures") == [name] and not any(f"{part}." in key for key in tensors):
            found["architectures"] = f"architectures in {CONFIG} says {name}, and no tensor is its {part}'s"
    names = config.get("id2label")
    count = len(names) if isinstance(names, dict) else config.get("num_labels")
    classes = (described.get("classes") or {}).get("video")
    if layout == "hf_videomae" and count is not None and classes is not None and count != classes:
        found["num_labels"] = f"{CONFIG} names {count} classes, and the head has {classes}"
    return found


def remarks(contents: Contents, layout: str) -> list[str]:
    """What of a layout or of its configuration changes outputs a little, or asks for other pixels."""
    notes = []
    if layout.startswith("marlin"):
        notes.append("its authors feed it pixels in [0, 1], without ImageNet's normalisation, which readers of this "
                     "library apply; its norms add 1e-5 to a variance, ours 1e-6")
    epsilon = contents.config.get("layer_norm_eps")
    if "hf_videomae" in layout and epsilon not in (None, 1e-6):
        notes.append(f"layer_norm_eps is {epsilon} in {CONFIG} and 1e-6 here, as VideoMAE's authors have it")
    if layout == "hf_videomae_pretrain" and contents.config.get("norm_pix_loss") is False:
        notes.append(f"norm_pix_loss in {CONFIG} is false: it predicts plain pixels, and our loss normalised ones")
    if layout == "hf_videomae_encoder" and contents.config.get("use_mean_pooling") is True:
        notes.append("its last latents are not normalised; ours are, by a norm that starts as 1 and 0")
    return notes


def class_names(config: Mapping[str, Any], classes: int | None) -> list[str] | None:
    """The classes that a configuration names in `id2label`, in order; None where it numbers them, or not all."""
    names = config.get("id2label")
    if not isinstance(names, dict) or classes is None:
        return None
    listed = [names.get(str(number)) for number in range(classes)]
    plain = all(isinstance(name, str) and not re.fullmatch(r"LABEL_\d+", name) for name in listed)
    return listed if plain and len(names) == classes else None
