"""frames → faces     where the faces are, followed, turned upright and cut out.

    faces        what a face detector is, and what it answers.
    mtcnn        MTCNN: three small networks in a cascade, for a whole batch of frames at a time.
    detectors    where the faces are: MTCNN from a package that brings its weights, or a model file you have.
    alignment    where a face is cut out, and the cutting.
    cropper      the same face in every frame: followed, turned upright, cut out at one size.
    folders      the face in every video and picture below a folder, cut out, with a manifest of what was found.
    preview      what was found and what was cut, side by side, to look through before trusting it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
