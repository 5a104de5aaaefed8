"""released keys ↔ our keys     the layouts in which S4D, S2D and their ancestors publish weights, both ways.

A layout knows how to be recognised, which of our models holds it, and where each of its keys goes. Most keys keep
their names, because our models use the released ones. Two conversions change tensors, and both are exact:

    qkv.bias [3d]          → q_bias [d], v_bias [d]. The third in the middle belongs to the keys; one vector added
                             to all keys shifts every score of a query equally and cancels in the softmax.
    kernel [d 3 p p]       → kernel [d 3 u p p], each of the u frames with 1/u of it. On a tubelet of u equal
                             frames, which is what an image becomes, the sum is the picture's own embedding.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from einops import repeat
from torch import Tensor

from s4d_lib.checkpoints import names
from s4d_lib.checkpoints.names import BadTensor, NoPlace
from s4d_lib.weights.containers import describe_keys

# The patch embedding, by which a network is found; what stands before it belongs to a wrapper.
ANCHOR = re.compile(r"(?P<prefix>(?:.*?\.)??)(?:patch_embed\.proj\.(?:1\.)?|"
                    r"(?:encoder\.)?patch_embedding\.projection\.|(?:videomae\.)?embeddings\.patch_embeddings\.projection\.)weight$")


@dataclass(frozen=True)
class Placed:
    """Tensors under new keys, and what became of every old one."""

    tensors: dict[str, Tensor]
    source: dict[str, tuple[str, ...]]                     # new key → the old keys that it came from
    dropped: dict[str, str] = field(default_factory=dict)  # old keys that found no place → why
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyLayout:
    """One way in which weights of this family are published."""

    says: str                               # whose weights these are
    model: str                              # our class that holds them
    rename: Callable[[str], str]            # file key → our key; NoPlace for one without a counterpart
    restore: Callable[[str], str]           # our key → file key; NoPlace likewise
    fused_bias: bool = False                # attention has one qkv.bias
    flat_kernel: bool = False               # the patch embedding is 2-D
    thirds: bool = False                    # queries, keys and values have a kernel each
    flat_only: bool = False                 # its readers know the flat positions alone
    image_size: int = 160                   # what the published models read, when a file does not say
    licence: str = "S4D is released under Apache-2.0"
    container: str = "model"                # dictionary in which the authors keep the weights; "" for none


CC_BY_NC = "its authors release code and weights under CC-BY-NC-4.0: no commercial use"
MARLIN_LICENCE = "MARLIN: its page on the Hub says `cc`, one version of its package Apache; ask its authors which"
LAYOUTS = {
    "s4d": KeyLayout("S4D fine-tuned (vitmoe_*_patch16_160), with or without experts", "S4DClassifier", names.keep,
                     names.keep),
    "s4d_pretrain": KeyLayout("S4D dual-modal pretraining", "DualModalMAE", names.keep, names.keep),
    "videomae_pretrain": KeyLayout("VideoMAE pretraining, equal to S4D's in every key and shape", "DualModalMAE",
                                   names.keep, names.keep, image_size=224, licence=f"VideoMAE: {CC_BY_NC}"),
    "videomae": KeyLayout("VideoMAE fine-tuned", "S4DClassifier", names.videomae, names.to_videomae, image_size=224,
                          licence=f"VideoMAE: {CC_BY_NC}"),
    "encoder": KeyLayout("a bare video encoder in the naming of S4D and VideoMAE", "DualModalEncoder",
                         names.encoder_only, names.keep, licence="not known: ask those who published the file"),
    "omnimae": KeyLayout("OmniMAE pretraining (vit*_pretrain.torch)", "DualModalEncoder", names.omnimae,
                         names.to_omnimae, fused_bias=True, image_size=224, licence=f"OmniMAE: {CC_BY_NC}",
                         container=""),
    "mae": KeyLayout("MAE image models, pretrained or fine-tuned", "DualModalEncoder", names.encoder_only, names.keep,
                     fused_bias=True, flat_kernel=True, image_size=224, licence=f"MAE: {CC_BY_NC}"),
    "marlin": KeyLayout("MARLIN, the whole autoencoder (*.full.pt)", "DualModalMAE", names.marlin, names.to_marlin,
                        image_size=224, licence=MARLIN_LICENCE, container="", flat_only=True),
    "marlin_encoder": KeyLayout("MARLIN, the encoder (*.encoder.pt)", "DualModalEncoder", names.marlin_encoder,
                                names.to_marlin, image_size=224, licence=MARLIN_LICENCE, container="",
                                flat_only=True),
    "s2d": KeyLayout("S2D, or the image model that it starts from", "S2DClassifier", names.s2d, names.to_s2d,
                     image_size=224, licence="S2D is released under Apache-2.0"),
    "landmarks": KeyLayout("MobileFaceNet with 68 landmarks, as S2D uses it", "LandmarkNet", names.keep, names.keep,
                           image_size=112, licence="not known: ask those who published the file",
                           container="state_dict"),
    "hf_videomae": KeyLayout("VideoMAE fine-tuned, as transformers keeps it", "S4DClassifier", names.port,
                             names.to_port, thirds=True, image_size=224, licence=f"VideoMAE: {CC_BY_NC}",
                             flat_only=True),
    "hf_videomae_pretrain": KeyLayout("VideoMAE pretraining, as transformers keeps it", "DualModalMAE",
                                      names.port_pretrain, names.to_port, thirds=True, image_size=224,
                                      licence=f"VideoMAE: {CC_BY_NC}", flat_only=True),
    "hf_videomae_encoder": KeyLayout("VideoMAE without head or decoder, as transformers keeps it", "DualModalEncoder",
                                     names.port_encoder, names.to_port_encoder, thirds=True, image_size=224,
                                     licence=f"VideoMAE: {CC_BY_NC}", flat_only=True),
}


def strip_wrappers(keys: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """File keys → the same without the prefixes of wrappers (`module.`, `backbone.`, …), and notes on what went.

    Raises BadTensor when two keys become one.
    """
    names, notes = {key: key for key in keys}, []
    for prefix in _wrappers(keys):
        held = [key for key, name in names.items() if name.startswith(prefix)]
        names |= {key: names[key].removeprefix(prefix) for key in held}
        notes.append(f"prefix {prefix!r} removed from {len(held)} keys")
    seen: dict[str, str] = {}
    for key, name in names.items():
        if name in seen:
            raise BadTensor(f"{seen[name]} and {key} would both become {name}")
        seen[name] = key
    return names, tuple(notes)


def _wrappers(keys: list[str]) -> list[str]:
    """Prefixes around the network: in front of all keys, or in front of the patch embedding."""
    anchors = [match["prefix"] for key in keys if (match := ANCHOR.match(key))]
    landmark = [key.removesuffix("conv2_dw.conv.weight") for key in keys if key.endswith("conv2_dw.conv.weight")]
    prefix = min(anchors or landmark or [""], key=len)
    decoder = any(key.startswith(prefix.removesuffix("encoder.") + "decoder.") for key in keys)
    if prefix.endswith("encoder.") and decoder:  # a whole autoencoder: `encoder.` is part of its names
        prefix = prefix.removesuffix("encoder.")
    outer = ""  # what stands before every key, heads included, comes off first
    while (first := prefix.removeprefix(outer).partition(".")[0]) and all(
            key.startswith(f"{outer}{first}.") for key in keys):
        outer += f"{first}."
    return [part for part in (outer, prefix.removeprefix(outer)) if part]


def recognise(tensors: dict[str, Tensor], container: tuple[str, ...] = (), beside: tuple[str, ...] = ()) -> str:
    """Name of the layout that these tensors (without wrapper prefixes) are in.

    `beside` lists what else the container held: S4D's pretraining writes `steps`, VideoMAE's does not, and nothing
    else tells the two apart. Raises BadTensor with the first keys when it is none of LAYOUTS.
    """
    kernel = next((tensors[key] for key in tensors if ANCHOR.match(key)), None)
    if "conv2_dw.conv.weight" in tensors:
        return "landmarks"
    if kernel is not None and kernel.ndim == 5 and any(key.endswith("attention.query.weight") for key in tensors):
        if any(key.startswith("decoder.decoder_layers.") for key in tensors):
            return "hf_videomae_pretrain"
        return "hf_videomae" if "classifier.weight" in tensors else "hf_videomae_encoder"
    if kernel is not None and any(key.endswith("patch_embedding.projection.weight") for key in tensors):
        return "marlin" if any(key.startswith("decoder.") for key in tensors) else "marlin_encoder"
    if kernel is None or kernel.ndim not in (4, 5) or not any(".attn." in key for key in tensors):
        raise BadTensor(f"it is in none of the layouts {', '.join(LAYOUTS)}; it holds {describe_keys(tensors)}")
    if kernel.ndim == 4:
        s2d = any(key.startswith(("prompt_blocks.", "patch_embed_prompt.", "temporal_embedding")) for key in tensors)
        return "s2d" if s2d else "mae"
    if "encoder.patch_embed.proj.weight" in tensors:
        return "s4d_pretrain" if "steps" in beside or "args" not in beside else "videomae_pretrain"
    if any(key.endswith("attn.qkv.bias") for key in tensors):
        return "omnimae"
    if "head.weight" in tensors:
        return "videomae"
    return "s4d" if any(key.startswith("head.") or ".moe_layer." in key for key in tensors) else "encoder"


def to_ours(name: str, tensors: dict[str, Tensor], tubelet: int = 2) -> Placed:
    """File tensors without wrapper prefixes → our tensors in layout `name`; every file key is accounted for."""
    layout, notes = LAYOUTS[name], []

    def convert(key: str, place: str, tensor: Tensor) -> dict[str, Tensor]:
        if layout.fused_bias and place.endswith("attn.qkv.bias"):
            stem = place.removesuffix("qkv.bias")
            query, _, value = tensor.chunk(3)
            return {f"{stem}q_bias": query.clone(), f"{stem}v_bias": value.clone()}
        if layout.flat_kernel and place == "patch_embed.proj.weight":
            if tensor.ndim != 4:
                raise BadTensor(f"{key} is {list(tensor.shape)}, and the kernel of an image model has four axes")
            return {place: repeat(tensor / tubelet, "d c p q -> d c u p q", u=tubelet)}
        return {place: tensor}

    if layout.fused_bias:
        notes.append("qkv.bias gave q_bias and v_bias; its third for the keys cancels in the softmax and was left out")
    if layout.flat_kernel:
        notes.append(f"the 2-D patch kernel became {tubelet} frames of 1/{tubelet} each: equal on an image")
    placed = _place_all(tensors, layout.rename, convert, notes)
    return _join_thirds(placed) if layout.thirds else placed


def to_released(name: str, tensors: dict[str, Tensor]) -> Placed:
    """Our tensors → layout `name`: the way back. What the layout cannot hold is dropped with its reason."""
    layout, notes = LAYOUTS[name], []

    def convert(key: str, place: str, tensor: Tensor) -> dict[str, Tensor]:
        if layout.fused_bias and place.endswith("attn.q_bias"):
            value = tensors[key.replace("q_bias", "v_bias")]
            return {place.replace("q_bias", "qkv.bias"): torch.cat([tensor, torch.zeros_like(tensor), value])}
        if layout.fused_bias and place.endswith("attn.v_bias"):
            return {}
        if layout.flat_kernel and place == "patch_embed.proj.weight":
            return {place: tensor.sum(dim=2)}
        if layout.thirds and key.endswith("attn.qkv.weight"):
            return {names.to_third(place, n): part.clone() for n, part in enumerate(tensor.chunk(3))}
        return {place: tensor}

    if layout.fused_bias:
        notes.append("qkv.bias has zeros for the keys, whose bias cancels in the softmax")
    if layout.flat_kernel:
        notes.append("the tubelet kernel was summed over its frames: equal on an image, blind to motion")
    return _place_all(tensors, layout.restore, convert, notes)


def _place_all(tensors: dict[str, Tensor], rename: Callable[[str], str],
               convert: Callable[[str, str, Tensor], dict[str, Tensor]], notes: list[str]) -> Placed:
    placed = Placed({}, {}, {}, tuple(notes))
    for key, tensor in tensors.items():
        try:
            name = rename(key)
        except NoPlace as reason:
            placed.dropped[key] = str(reason)
            continue
        new = convert(key, name, tensor)
        if twice := new.keys() & placed.tensors.keys():
            raise BadTensor(f"{placed.source[min(twice)][0]} and {key} would both become {min(twice)}")
        placed.tensors.update(new)
        placed.source.update(dict.fromkeys(new, (key,)))
    return placed


def _join_thirds(placed: Placed) -> Placed:
    """Kernels of queries, keys and values become one; biases that no block has become zeros, which is exact."""
    tensors, source = {}, {}
    for name, tensor in placed.tensors.items():
        stem, third, number = name.partition("#")
        if number not in ("", "0"):
            continue
        if third:
            parts = [f"{stem}#{n}" for n in range(3)]
            if absent := [part for part in parts if part not in placed.tensors]:
                raise BadTensor(f"{placed.source[name][0]} has no partner for {stem} (part {absent[0][-1]} of 0 to 2)")
            if any(placed.tensors[part].shape != tensor.shape for part in parts):
                raise BadTensor(f"{placed.source[name][0]} and its partners differ in shape")
            tensors[stem] = torch.cat([placed.tensors[part] for part in parts])
            source[stem] = tuple(placed.source[part][0] for part in parts)
        else:
            tensors[name], source[name] = tensor, placed.source[name]
    if alone := sorted(name for name in placed.tensors if name.endswith(("#1", "#2")) and name[:-2] not in tensors):
        raise BadTensor(f"{placed.source[alone[0]][0]} has no partner for {alone[0][:-2]} (part 0 of 0 to 2)")
    notes = [*placed.notes, "kernels of queries, keys and values were put into one"]
    if not any(name.endswith(("q_bias", "v_bias")) for name in tensors):
        for name in [name for name in tensors if name.endswith("attn.qkv.weight")]:
            zero, stem = tensors[name].new_zeros(len(tensors[name]) // 3), name.removesuffix("qkv.weight")
            tensors |= {f"{stem}q_bias": zero, f"{stem}v_bias": zero.clone()}
            source |= {f"{stem}q_bias": (), f"{stem}v_bias": ()}
        notes.append("queries and values have no bias in the file: zeros here, which is the same")
    return Placed(tensors, source, placed.dropped, tuple(notes))
