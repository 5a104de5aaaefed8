# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .gradients import Batch as Batch, Between as Between, Conflict as Conflict, conflict as conflict
from .interference import Moments as Moments
from .routing import (
    Routes as Routes,
    branch_size as branch_size,
    entropy as entropy,
    expert_layers as expert_layers,
    expert_load as expert_load,
    observe as observe,
    summary as summary,
    token_groups as token_groups,
)
from .rerouting import (
    Decision as Decision,
    Rule as Rule,
    effects as effects,
    rerouted as rerouted,
    unchanged as unchanged,
)
from .prompt_maps import without as without
from .two_readings import (
    POOLS as POOLS,
    drawn_units as drawn_units,
    pool_frames as pool_frames,
    read_twice as read_twice,
)
from .correlation import (
    TransferMatrix as TransferMatrix,
    agreement as agreement,
    answer_tables as answer_tables,
    cohen_kappa as cohen_kappa,
    foreign_tracks as foreign_tracks,
    pairs_correlation as pairs_correlation,
    rank_correlation as rank_correlation,
    shared_units as shared_units,
    unit_evidence as unit_evidence,
)
from .levels import LEVELS as LEVELS, deviations as deviations, recall_levels as recall_levels
