"""file ↔ tensors     any weight file opened without running it; ours, the Hub's, and the four that ship.

    contents      what a checkpoint holds, and the refusal of one.
    shards        folders of shards with their index, and the config.json beside weights.
    containers    any checkpoint file, opened without running anything that it holds.
    files         safetensors that describe their model, written whole and rebuilt; the four that ship.
    wheels        one file out of a package of others, fetched on request, pinned by its hash, and kept.
    hub           save_pretrained, from_pretrained, push_to_hub, and the model card they write.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
