# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .positions import (
    centre_indices as centre_indices,
    pretrain_indices as pretrain_indices,
    spread_indices as spread_indices,
    test_views as test_views,
    train_indices as train_indices,
)
from .value_range import (
    IMAGENET_MEAN as IMAGENET_MEAN,
    IMAGENET_STD as IMAGENET_STD,
    denormalise as denormalise,
    normalise as normalise,
)
from .recipes import (
    EVAL as EVAL,
    FLIPS as FLIPS,
    LIGHT as LIGHT,
    MOVES as MOVES,
    PAPER_CLIP_PRETRAIN as PAPER_CLIP_PRETRAIN,
    PAPER_CLIP_TRAIN as PAPER_CLIP_TRAIN,
    PAPER_STILL_PRETRAIN as PAPER_STILL_PRETRAIN,
    PAPER_STILL_TRAIN as PAPER_STILL_TRAIN,
    RECIPES as RECIPES,
    AugmentRecipe as AugmentRecipe,
)
from .variation import augment as augment
from .mixing import MixupCutmix as MixupCutmix
