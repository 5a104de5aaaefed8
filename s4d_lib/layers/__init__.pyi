# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .tokens import (
    Grid as Grid,
    TubeletEmbed as TubeletEmbed,
    height_width as height_width,
    pad_image_to_tubelet as pad_image_to_tubelet,
    position_table as position_table,
    sincos_positions as sincos_positions,
)
from .masking import (
    frame_mask as frame_mask,
    random_mask as random_mask,
    split_index as split_index,
    tube_mask as tube_mask,
    visible_index as visible_index,
)
from .encoder import Encoder as Encoder, MoAEBlock as MoAEBlock, TransformerBlock as TransformerBlock
from .decoder import (
    Decoder as Decoder,
    normalised_target as normalised_target,
    paste_prediction as paste_prediction,
    patchify as patchify,
    unpatchify as unpatchify,
)
from .adapters import (
    Adapter as Adapter,
    MixtureOfAdapterExperts as MixtureOfAdapterExperts,
    NoisyTopKRouter as NoisyTopKRouter,
    Routing as Routing,
)
from .prompts import Fovea as Fovea, Prompter as Prompter, TemporalAdapter as TemporalAdapter
from .heads import TaskHeads as TaskHeads
from .losses import load_balance_loss as load_balance_loss, masked_mse as masked_mse
