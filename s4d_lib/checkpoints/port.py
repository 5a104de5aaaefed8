"""our model → config.json     a folder that `transformers` opens as VideoMAE: the configuration beside the weights."""

from collections.abc import Mapping
from typing import Any

from s4d_lib.checkpoints.names import BadTensor
from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.models.sizes import Size

ARCHITECTURES = {"S4DClassifier": "VideoMAEForVideoClassification", "DualModalMAE": "VideoMAEForPreTraining",
                 "DualModalEncoder": "VideoMAEModel"}


def port_config(kind: str, size: Size, config: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the port for a model of class `kind` with these arguments; `known` is its metadata.

    BadTensor where the port has no such model: it pools by the mean, and has one head. Its `fc_norm` and the norm of
    its decoder add 1e-5 to a variance where ours add 1e-6, whatever the configuration says.
    """
    image = size.image_size if isinstance(size.image_size, int) else list(size.image_size)
    described = {
        "architectures": [ARCHITECTURES[kind]], "model_type": "videomae", "hidden_size": size.dim,
        "num_hidden_layers": size.depth, "num_attention_heads": size.heads,
        "intermediate_size": int(size.dim * size.mlp_ratio), "image_size": image, "patch_size": size.patch,
        "num_frames": size.frames, "tubelet_size": size.tubelet, "num_channels": 3, "hidden_act": "gelu",
        "layer_norm_eps": 1e-6, "qkv_bias": True, "use_mean_pooling": kind == "S4DClassifier",
        "decoder_hidden_size": size.decoder_dim, "decoder_num_hidden_layers": size.decoder_depth,
        "decoder_num_attention_heads": size.decoder_heads,
        "decoder_intermediate_size": int(size.decoder_dim * size.mlp_ratio), "norm_pix_loss": True}
    if kind != "S4DClassifier":
        return described
    if config.get("pool", "mean") != "mean":
        raise BadTensor("its head reads every place by itself, and the port's reads the mean")
    classes = _of(config, "classes")
    if not classes or "head.video.weight" in (known.get("missing") or ()):
        raise BadTensor("it has no video head, which is the one that the port has")
    names = _names(known, classes)
    return described | {"num_labels": classes, "id2label": {str(n): name for n, name in enumerate(names)},
                        "label2id": {name: n for n, name in enumerate(names)}}


def _names(known: Mapping[str, Any], classes: int) -> list[str]:
    """Names of the video classes as far as the metadata tells; the port's own numbers otherwise."""
    for names in (_of(known, "class_names"), getattr(SCHEMAS.get(str(_of(known, "schemas"))), "classes", None)):
        if isinstance(names, (list, tuple)) and len(set(map(str, names))) == classes:
            return [str(name) for name in names]
    return [f"LABEL_{number}" for number in range(classes)]


def _of(known: Mapping[str, Any], key: str) -> Any:
    found = known.get(key)
    return found.get("video") if isinstance(found, Mapping) else None
