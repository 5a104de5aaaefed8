# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .base import COLOURS as COLOURS, EXPERT_COLOURS as EXPERT_COLOURS, PALETTE as PALETTE, new_figure as new_figure
from .curves import (
    draw_epoch_choice as draw_epoch_choice,
    draw_frames_taken as draw_frames_taken,
    draw_layer_scales as draw_layer_scales,
    draw_losses as draw_losses,
    draw_masks as draw_masks,
    draw_plan as draw_plan,
    draw_target_sizes as draw_target_sizes,
    draw_timeline as draw_timeline,
)
from .intervals import (
    draw_differences as draw_differences,
    draw_gaps as draw_gaps,
    draw_masked_losses as draw_masked_losses,
    draw_measures as draw_measures,
    draw_protocol_effects as draw_protocol_effects,
    draw_scores as draw_scores,
)
from .maps import (
    draw_action_units as draw_action_units,
    draw_class_shares as draw_class_shares,
    draw_confusion as draw_confusion,
    draw_expert_map as draw_expert_map,
    draw_grid_maps as draw_grid_maps,
    draw_routing as draw_routing,
    draw_served as draw_served,
)
from .measures import draw_agreement as draw_agreement, draw_foretelling as draw_foretelling, tells as tells
from .transfer import (
    draw_forest as draw_forest,
    draw_map as draw_map,
    draw_methods as draw_methods,
    draw_per_class as draw_per_class,
    draw_prediction as draw_prediction,
)
from .correlation import (
    draw_recalls as draw_recalls,
    draw_signed_matrix as draw_signed_matrix,
    draw_two_readings as draw_two_readings,
)
from .routing import (
    draw_clip_map as draw_clip_map,
    draw_dial as draw_dial,
    draw_effects as draw_effects,
    draw_information as draw_information,
    draw_loads as draw_loads,
    draw_places as draw_places,
)
from .landmarks import (
    draw_feature_maps as draw_feature_maps,
    draw_points as draw_points,
    draw_region_errors as draw_region_errors,
    telling_channels as telling_channels,
)
from .s2d import (
    draw_loudness as draw_loudness,
    draw_parts as draw_parts,
    draw_prompt_maps as draw_prompt_maps,
    draw_queues as draw_queues,
    draw_schedule as draw_schedule,
    draw_targets as draw_targets,
    queue_state as queue_state,
)
from .speed import draw_bench as draw_bench
from .sweeps import draw_sweep as draw_sweep
from .pictures import (
    contact_sheet as contact_sheet,
    filmstrip as filmstrip,
    hide_tubelets as hide_tubelets,
    mark_landmarks as mark_landmarks,
    rule_tubelets as rule_tubelets,
    sheet as sheet,
    stack as stack,
    to_frames as to_frames,
)
