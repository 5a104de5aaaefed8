# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .cells import (
    ABLATIONS as ABLATIONS,
    CLASSES as CLASSES,
    METHODS as METHODS,
    SCALES as SCALES,
    Cell as Cell,
    run_config as run_config,
)
from .laboratory import run_lab as run_lab
from .records import LabRecord as LabRecord
from .reading import (
    NEAR as NEAR,
    converged as converged,
    family as family,
    harm as harm,
    has as has,
    lengths as lengths,
    matrix_of as matrix_of,
    methods_of as methods_of,
    pair as pair,
    primary as primary,
    recalls as recalls,
    recalls_of as recalls_of,
    recorded as recorded,
    resolve as resolve,
    screening_effects as screening_effects,
    surface as surface,
    values as values,
)
from .studies import floor_scores as floor_scores
from .routing_study import inspection as inspection, probe as probe, rules_for as rules_for
from .measures import EARLY as EARLY, gradient_agreement as gradient_agreement, lab_probe as lab_probe
