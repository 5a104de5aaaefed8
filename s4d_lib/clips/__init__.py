"""frames → clip     which frames, how they vary, and in what range the model sees them.

Three steps, each usable alone: choose positions, vary the pictures, mix a batch. Chance comes only from the numpy
generator passed in: the same generator state gives the same clip, and the global generators are left as they were
found. Derived in chapter 02.

    positions     which frames a clip is made of, by the released rules.
    value_range   in what range a model sees pixels: ImageNet's mean and spread of each channel.
    recipes       how a clip may be varied: the papers' recipes, and those for small networks.
    chances       what a recipe decides for each clip, as numbers, for many clips at once.
    generators    chance lent to libraries that draw from the global generators only.
    variation     a recipe applied to the frames of one clip, every drawn number shared by all of them.
    batches       the same recipe applied to many clips at once, where faces lie in memory.
    mixing        mixup and CutMix of every sample with its partner, pictures and targets alike.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
