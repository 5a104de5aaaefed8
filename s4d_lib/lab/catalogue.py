"""name → study     every recorded study of the book, for `s4d study`; a study is (tier, seeds, jobs) → record."""

from __future__ import annotations

from collections.abc import Callable

from s4d_lib.lab.landmark_training import landmark_net
from s4d_lib.lab.pretraining_arms import lab_encoder, pretraining_arms
from s4d_lib.lab.s2d_studies import S2D_STUDIES
from s4d_lib.lab.studies import STUDIES
from s4d_lib.lab.transfer_studies import TRANSFER_STUDIES
from s4d_lib.records import Record

ALL_STUDIES: dict[str, Callable[..., Record]] = STUDIES | TRANSFER_STUDIES | S2D_STUDIES | {
    study.__name__: study for study in (lab_encoder, pretraining_arms, landmark_net)}
