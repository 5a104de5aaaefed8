"""file → frames     videos, frame folders, pictures and shards as frames by number, and frames as a video.

    endings           which endings are pictures and which are films: one table for the whole library.
    impostors         a file that is not what its name says, told by its first bytes, with what to do about it.
    pictures          how a decoded picture is to be shown: upright, its pixels square, in red, green and blue.
    index             which pictures of a film are shown, in which order, and whether other decoders count them alike.
    backends          one class for each library that can decode; `reader.py` chooses among them.
    reader            one reader for videos, frame folders and images: frame indices in, bytes out.
    streams           a video of any length from its first frame to its last, a bounded number of frames at a time.
    shards            clips inside tar files: found by an index, read in place, with the bytes that were packed.
    cache             decoded frames kept in memory, shared by all data sets of a process, up to a number of bytes.
    local_contrast    local contrast: what is left of a face when light, skin colour and camera are divided out.
    writer            H.264 files, written at once or chunk by chunk. Derived in chapter 02.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
