"""released key → our key     the names of one tensor in each layout; `layouts.py` knows what tensors they name.

Most keys keep their names, because our models use the released ones. A name that ends in `#0`, `#1`, `#2` is a third
of a tensor: queries, keys and values that others keep apart.
"""

import re

from s4d_lib.errors import Refused

RECONSTRUCTION = "serves reconstruction only"
NO_PLACE = {"cls_token": "this encoder has no class token", "pos_embed": "positions are a formula here"}
UNKNOWN = "unknown to this layout"
OWN_FILE = "the landmark network has a file of its own"
KEY_BIAS = "one bias for all keys shifts every score of a query equally and cancels in the softmax"
TRUNK = re.compile(r"(patch_embed\.proj|blocks\.\d+)\.")  # what makes an encoder


class BadTensor(Refused):
    """Tensors that contradict the layout which they are said to be in."""


class NoPlace(Refused):
    """The reason why a key has no counterpart."""


def keep(key: str) -> str:
    return key


def encoder_only(key: str) -> str:
    if key.startswith(("decoder", "mask_token", "encoder_to_decoder.")):
        raise NoPlace(RECONSTRUCTION)
    if key in NO_PLACE:
        raise NoPlace(NO_PLACE[key])
    if key.startswith(("head.", "fc_norm.")):
        raise NoPlace("a head of another task, on features that this encoder does not have")
    if not key.startswith("norm.") and not TRUNK.match(key):
        raise NoPlace(UNKNOWN)
    return key


def omnimae(key: str) -> str:
    if key.startswith("head"):
        raise NoPlace(RECONSTRUCTION)
    return encoder_only(key.removeprefix("trunk.").replace("patch_embed.proj.1.", "patch_embed.proj."))


def to_omnimae(key: str) -> str:
    return "trunk." + key.replace("patch_embed.proj.", "patch_embed.proj.1.")


def videomae(key: str) -> str:
    if re.fullmatch(r"head\.(weight|bias)", key):
        return key.replace("head.", "head.video.")
    if key.startswith("norm."):
        raise NoPlace("the classifier pools first and then applies its own fc_norm")
    if key in NO_PLACE:
        raise NoPlace(NO_PLACE[key])
    return key


def to_videomae(key: str) -> str:
    if key.startswith("head.image"):
        raise NoPlace("VideoMAE has one head, and it is the video head")
    if ".moe_layer." in key:
        raise BadTensor("it has experts, and without them it would be another network")
    return key.replace("head.video.", "head.")


def s2d(key: str) -> str:
    if "landmark" in key:
        raise NoPlace(OWN_FILE)
    if key.startswith("norm."):
        return key.replace("norm.", "ln_post.", 1)
    if key.startswith(("head.", "fc_norm.")) and not key.startswith("head.fc_cls."):
        raise NoPlace("the head of the image stage, which S2D leaves behind")
    if key.startswith(("decoder", "mask_token")):
        raise NoPlace(RECONSTRUCTION)
    return key


def to_s2d(key: str) -> str:
    if key.startswith("landmark_net."):
        raise NoPlace(OWN_FILE)
    return key


# ------------------------------------------------------------------------------- VideoMAE as `transformers` names it

PORT_BLOCK = {
    "attention.attention.query.weight": "attn.qkv.weight#0", "attention.attention.key.weight": "attn.qkv.weight#1",
    "attention.attention.value.weight": "attn.qkv.weight#2", "attention.attention.q_bias": "attn.q_bias",
    "attention.attention.v_bias": "attn.v_bias", "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias", "intermediate.dense.weight": "mlp.fc1.weight",
    "intermediate.dense.bias": "mlp.fc1.bias", "output.dense.weight": "mlp.fc2.weight",
    "output.dense.bias": "mlp.fc2.bias", "layernorm_before.weight": "norm1.weight", "layernorm_before.bias":
    "norm1.bias", "layernorm_after.weight": "norm2.weight", "layernorm_after.bias": "norm2.bias"}
OUR_BLOCK = {ours: port for port, ours in PORT_BLOCK.items()}
NEWER = {"attention.attention.query.bias": "attention.attention.q_bias",  # since version 5, in memory
         "attention.attention.value.bias": "attention.attention.v_bias"}
PORT_OUTSIDE = {
    "videomae.embeddings.patch_embeddings.projection.": "patch_embed.proj.", "videomae.layernorm.": "norm.",
    "fc_norm.": "fc_norm.", "classifier.": "head.video.", "decoder.norm.": "decoder.norm.",
    "decoder.head.": "decoder.head.", "encoder_to_decoder.": "encoder_to_decoder.", "mask_token": "mask_token"}


def port(key: str) -> str:
    """A key of `VideoMAEForVideoClassification` or `VideoMAEModel` → our classifier's or encoder's."""
    if key.startswith(("embeddings.", "encoder.layer.", "layernorm.")):  # VideoMAEModel by itself
        key = f"videomae.{key}"
    if key.endswith("embeddings.position_embeddings"):
        raise NoPlace(NO_PLACE["pos_embed"])
    if block := re.fullmatch(r"(videomae\.encoder\.layer|decoder\.decoder_layers)\.(\d+)\.(.+)", key):
        if block[3] == "attention.attention.key.bias":
            raise NoPlace(KEY_BIAS)
        stem = "blocks" if block[1].startswith("videomae") else "decoder.blocks"
        name = PORT_BLOCK.get(NEWER.get(block[3], block[3]))
        return f"{stem}.{block[2]}.{name}" if name else key
    for theirs, ours in PORT_OUTSIDE.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def port_encoder(key: str) -> str:
    """The same for an encoder by itself, taken from any of the three classes."""
    name = port(key)
    if name.startswith("head.video."):
        raise NoPlace("a head of another task, on features that this encoder does not have")
    return encoder_only(name) if name != key else key


def port_pretrain(key: str) -> str:
    """A key of `VideoMAEForPreTraining` → our autoencoder's."""
    name = port(key)
    return f"encoder.{name}" if name.startswith(("patch_embed.", "blocks.", "norm.")) else name


def to_port(key: str) -> str:
    """Our classifier's, encoder's or autoencoder's key → the port's; the joined kernel gives that of the queries."""
    if key.startswith("head.image"):
        raise NoPlace("the port has one head, and it is the video head")
    if ".moe_layer." in key:
        raise BadTensor("it has experts, and without them it would be another network")
    key = key.removeprefix("encoder.")
    if block := re.fullmatch(r"(decoder\.)?blocks\.(\d+)\.(.+)", key):
        stem = "decoder.decoder_layers" if block[1] else "videomae.encoder.layer"
        return f"{stem}.{block[2]}.{OUR_BLOCK.get(block[3]) or OUR_BLOCK[block[3] + '#0']}"
    theirs, ours = next(pair for pair in PORT_OUTSIDE.items() if key.startswith(pair[1]))
    return theirs + key.removeprefix(ours)


def to_third(key: str, number: int) -> str:
    """The port's key of the first, second or third part of the kernel for queries, keys and values."""
    return key.removesuffix("#0").replace(".query.", f".{('query', 'key', 'value')[number]}.")


def to_port_encoder(key: str) -> str:
    """The same for `VideoMAEModel`, which has no prefix."""
    return to_port(key).removeprefix("videomae.")


# ------------------------------------------------------------------------------------------------------------ MARLIN

MARLIN = (("patch_embedding.projection.", "patch_embed.proj."), ("enc_dec_proj.", "encoder_to_decoder."),
          (".mlp.layers.0.linear.", ".mlp.fc1."), (".mlp.layers.1.linear.", ".mlp.fc2."))


def marlin(key: str) -> str:
    """A key of MARLIN's whole autoencoder → our autoencoder's."""
    if key.endswith("pos_embedding.emb"):
        raise NoPlace(NO_PLACE["pos_embed"])
    if key == "decoder.mask_token":
        return "mask_token"
    for theirs, ours in MARLIN:
        key = key.replace(theirs, ours)
    return key


def marlin_encoder(key: str) -> str:
    """A key of MARLIN's encoder file → our encoder's."""
    return encoder_only(marlin(key).removeprefix("encoder."))


def to_marlin(key: str) -> str:
    """Our autoencoder's or encoder's key → MARLIN's."""
    if key == "mask_token":
        return "decoder.mask_token"
    for theirs, ours in MARLIN:
        key = key.replace(ours, theirs)
    return key if key.startswith(("encoder.", "decoder.", "enc_dec_proj.")) else f"encoder.{key}"
