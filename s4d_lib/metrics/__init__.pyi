# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .scores import (
    Interval as Interval,
    Scores as Scores,
    confusion_matrix as confusion_matrix,
    expected_calibration_error as expected_calibration_error,
    over_seeds as over_seeds,
    percentile_interval as percentile_interval,
    score as score,
    told as told,
    uar as uar,
    war as war,
)
from .resampling import paired_bootstrap as paired_bootstrap, picks as picks
from .held_out import HeldOut as HeldOut, Pooled as Pooled, pooled as pooled
from .contrasts import (
    Claim as Claim,
    Contrast as Contrast,
    contrast as contrast,
    detectable as detectable,
    phrase as phrase,
    recall_differences as recall_differences,
    repair as repair,
    verdict as verdict,
    verdict_table as verdict_table,
)
from .effects import Effect as Effect, Surface as Surface, spearman as spearman
from .calibration import (
    apply_temperature as apply_temperature,
    fit_abstention as fit_abstention,
    selective as selective,
)
