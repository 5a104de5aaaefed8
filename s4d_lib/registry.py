"""name → model     what `timm.create_model` knows of this library: its models under timm's kind of names.

    import s4d_lib, timm
    model = timm.create_model("s4d_vit_base_patch16_160", num_classes=11, img_size=(192, 128), num_frames=8)

`import s4d_lib` has this file imported as soon as timm is, before or after it, and the file registers the models. The
published shape is the default: experts in the released blocks. Weights are converted from the released files
(`s4d convert`) and given as `checkpoint_path=`; only the tiny encoder comes with the library.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from inspect import signature
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, is_model, register_model, resolve_pretrained_cfg
from torch import nn

from s4d_lib.errors import Refused
from s4d_lib.weights.files import SHIPPED

# Models are imported when one is built: they import timm themselves, and this file runs while timm's import ends.

# Of every size, also of the large one with its 24: released finetune/run_class_finetuning.py:441 has a fixed 12.
RELEASED_BLOCKS = tuple(range(6, 12))
# timm's word → ours. "size", whose fields these are, is what the name of a model stands for.
SIZE_WORDS = {"img_size": "image_size", "num_frames": "frames", "patch_size": "patch", "tubelet_size": "tubelet"}
WORDS = {"num_classes": "classes", "drop_rate": "dropout", "global_pool": "pool"}


def s4d_vit_tiny_patch8_48(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The library's own 0.8 M model for a CPU. `pretrained=True` starts from the encoder that is shipped."""
    from s4d_lib.checkpoints.encoders import load_encoder

    model = _s4d("s4d_vit_tiny_patch8_48", False, "tiny", {"moae_blocks": "last_half"}, kwargs)
    if pretrained:
        load_encoder(model, model.pretrained_cfg.get("file") or SHIPPED["encoder"])
    return model


def s4d_vit_tiny_patch16_160(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-Ti in the papers' geometry; ours, nobody has published such weights."""
    from s4d_lib.models.sizes import SIZES

    size = replace(SIZES["small"], dim=192, heads=3, decoder_dim=96)
    return _s4d("s4d_vit_tiny_patch16_160", pretrained, size, {"moae_blocks": RELEASED_BLOCKS}, kwargs)


def s4d_vit_small_patch16_160(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S4D on ViT-S (released constructor `finetune/s4d/videomae.py:740-763`)."""
    return _s4d("s4d_vit_small_patch16_160", pretrained, "small", {"moae_blocks": RELEASED_BLOCKS}, kwargs)


def s4d_vit_base_patch16_160(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S4D as published (arXiv 2409.06154), on ViT-B."""
    return _s4d("s4d_vit_base_patch16_160", pretrained, "base", {"moae_blocks": RELEASED_BLOCKS}, kwargs)


def s4d_vit_large_patch16_160(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S4D on ViT-L, whose experts stand where the released command line puts them: blocks 6 to 11 of 24."""
    return _s4d("s4d_vit_large_patch16_160", pretrained, "large", {"moae_blocks": RELEASED_BLOCKS}, kwargs)


def unilearn_vit_base_patch16_160(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniLearn: the first version of S4D's paper (arXiv 2409.06154v1), the same network under its earlier name.

    Shared with `s4d_vit_base_patch16_160`: architecture, keys, training, headline numbers; the authors' package was
    renamed with its model file unchanged. The second version adds how the method is explained and an analysis of how
    the two tasks correlate. UniLearn has neither code nor weights of its own (github.com/MSA-LMC/UniLearn is a
    README; chapter 13).
    """
    return _s4d("unilearn_vit_base_patch16_160", pretrained, "base", {"moae_blocks": RELEASED_BLOCKS}, kwargs)


def s2d_vit_tiny_patch8_48(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S2D in the library's own size for a CPU; ours, nobody has published such weights."""
    return _s2d("s2d_vit_tiny_patch8_48", pretrained, "tiny", kwargs)


def s2d_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S2D on ViT-S in the published geometry; ours, nobody has published such weights."""
    return _s2d("s2d_vit_small_patch16_224", pretrained, "small", kwargs)


def s2d_vit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """S2D as published (arXiv 2312.05447). It reads clips with landmark features, or has `landmark_net=True`."""
    return _s2d("s2d_vit_base_patch16_224", pretrained, "base", kwargs)


ENTRIES: tuple[Callable[..., nn.Module], ...] = (
    s4d_vit_tiny_patch8_48, s4d_vit_tiny_patch16_160, s4d_vit_small_patch16_160, s4d_vit_base_patch16_160,
    s4d_vit_large_patch16_160, unilearn_vit_base_patch16_160, s2d_vit_tiny_patch8_48, s2d_vit_small_patch16_224,
    s2d_vit_base_patch16_224,
)


def _cfg(side: int, classifier: tuple[str, ...] | str, paper: str, **more: Any) -> PretrainedCfg:
    # The whole face picture is resized and nothing cropped away, as clips.EVAL does.
    return PretrainedCfg(
        input_size=(3, side, side), fixed_input_size=True, crop_pct=1.0, interpolation="bilinear", num_classes=7,
        first_conv="patch_embed.proj", classifier=classifier, paper_ids=f"arXiv:{paper}", **more)


_S4D_HEADS = ("head.image", "head.video")
default_cfgs = generate_default_cfgs({  # register_model looks for this name
    "s4d_vit_tiny_patch8_48": _cfg(48, _S4D_HEADS, "2409.06154", file=str(SHIPPED["encoder"]), custom_load=True,
                                   license="apache-2.0", notes=("encoder only, pretrained on drawn faces",)),
    **{f"s4d_vit_{size}_patch16_160": _cfg(160, _S4D_HEADS, "2409.06154")
       for size in ("tiny", "small", "base", "large")},
    "unilearn_vit_base_patch16_160": _cfg(160, _S4D_HEADS, "2409.06154v1",
                                          notes=("the same network as s4d_vit_base_patch16_160",)),
    "s2d_vit_tiny_patch8_48": _cfg(48, "head.fc_cls", "2312.05447"),
    **{f"s2d_vit_{size}_patch16_224": _cfg(224, "head.fc_cls", "2312.05447") for size in ("small", "base")},
})


def register() -> None:
    """Make the models known to timm, those that are not yet."""
    for entry in ENTRIES:
        if not is_model(entry.__name__):
            register_model(entry)


def _s4d(name: str, pretrained: bool, size: Any, defaults: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    from s4d_lib.models.classifier import S4DClassifier
    from s4d_lib.models.sizes import Size, resolve_size

    _no_weights(name, pretrained)
    timm_side, given = _split(kwargs)
    size_fields = {field.name for field in fields(Size)}
    words = {**SIZE_WORDS, **WORDS}
    given = _translate(name, given, words, (_arguments(S4DClassifier) | size_fields) - {"size"})
    classes = given.pop("classes", 7)
    if isinstance(classes, int):
        classes = dict.fromkeys(("image", "video"), classes) if classes else {}
    if "pool" in given:
        given["pool"] = {"avg": "mean"}.get(given["pool"], given["pool"])
    size = replace(resolve_size(size), **{key: given.pop(key) for key in size_fields & set(given)})
    model = S4DClassifier(size, classes, **{**defaults, **given})
    return _finish(model, name, timm_side, model.size.image_size)


def _s2d(name: str, pretrained: bool, size: str, kwargs: dict[str, Any]) -> nn.Module:
    from s4d_lib.models.s2d import S2D_SIZES, S2DClassifier

    _no_weights(name, pretrained)
    timm_side, given = _split(kwargs)
    words = {"img_size": "image_size", "num_frames": "frames", "patch_size": "patch", "drop_rate": "dropout"}
    given = _translate(name, given, words, _arguments(S2DClassifier))
    model = S2DClassifier(**S2D_SIZES[size] | given)
    return _finish(model, name, timm_side, model.config["image_size"])


def _no_weights(name: str, pretrained: bool) -> None:
    if pretrained:
        raise Refused(f"no weights of {name} come with this library, so pretrained=True is not possible; convert a "
                      "released file with `s4d convert` and pass it as checkpoint_path=, or use "
                      "s4d_vit_tiny_patch8_48")


def _split(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What timm's machinery passes to every entry point, and what is meant for the model."""
    machinery = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    return ({key: kwargs[key] for key in machinery if key in kwargs},
            {key: value for key, value in kwargs.items() if key not in machinery})


def _arguments(model: type) -> set[str]:
    return set(signature(model.__init__).parameters) - {"self"}


def _translate(name: str, given: dict[str, Any], words: dict[str, str], known: set[str]) -> dict[str, Any]:
    """Arguments under the model's own names. Raises TypeError for unknown ones and for one given twice."""
    given = dict(given)
    if given.pop("in_chans", 3) != 3:
        raise TypeError(f"{name} reads 3 colour channels, in_chans cannot be changed")
    unknown = set(given) - set(words) - known
    if unknown:
        raise TypeError(f"{name} does not know {', '.join(sorted(unknown))}; it knows "
                        f"{', '.join(sorted(set(words) | known))}")
    twice = [f"{word} and {ours}" for word, ours in words.items() if word in given and ours in given]
    if twice:
        raise TypeError(f"{name}: {', '.join(twice)} are two names of one argument; give one of them")
    return {words.get(key, key): value for key, value in given.items()}


def _finish(model: nn.Module, name: str, timm_side: dict[str, Any], image_size: int | tuple[int, int]) -> nn.Module:
    """Leave on the model what timm's data and training code reads there."""
    from s4d_lib.layers.tokens import height_width

    sources = timm_side.get("pretrained_cfg"), timm_side.get("pretrained_cfg_overlay")
    cfg = resolve_pretrained_cfg(name, *sources).to_dict()
    cfg["input_size"] = (3, *height_width(image_size))  # of a frame, as the model was built
    if isinstance(model.num_classes, int):
        cfg["num_classes"] = model.num_classes
    model.pretrained_cfg = model.default_cfg = cfg
    return model


register()
