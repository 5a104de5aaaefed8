"""folder → shards     clips in WebDataset shards or small videos, with checksums, resumable.

    state     what a stopped or finished run of `writer.py` left behind, and the folder held while one writes.
    writer    frame folders or videos as WebDataset tar files, or as small mp4 files, with a manifest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
