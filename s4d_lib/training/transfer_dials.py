"""two tasks → dials     what the transfer laboratory turns: how much of which task, and what is done about conflict.

One of the groups that a fine-tuning's configuration is made of. At their defaults nothing of the released recipe
changes. Derived in chapter 08.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, model_validator

from s4d_lib.errors import Refused
from s4d_lib.training.later import later


class TransferDials(BaseModel):
    """The dials of the transfer laboratory, a part of `FinetuneConfig`."""

    if TYPE_CHECKING:  # of the configuration that this is a part of
        accumulate: int
        modalities: tuple[str, ...]

    clip_steps: int | None = later(None, ge=1, description="an epoch is so many steps of the primary task, not a pass")
    still_ratio: float = later(1.0, gt=0, description="with clip_steps: still steps a clip step")
    still_weight: float = later(1.0, ge=0, description="of the loss of stills beside that of clips")
    still_labels: Literal["listed", "merged", "random"] = later(
        "listed", description="merged: four coarse classes; random: the same labels, dealt out by chance (control)"
    )
    shuffle_stills: bool = later(False, description="control: the patches of every still in a random order")
    leave_out: str | None = later(None, description="class of the stills that is not trained on")
    optimizer_states: Literal["shared", "separate"] = later("shared", description="separate: AdamW moments a task")
    remedy: str | None = later(None, description="a name in training.remedies.REMEDIES: both tasks in each step")
    router: Literal["learned", "quiet", "frozen", "task", "uniform"] = later("learned")  # layers.adapters.ROUTERS
    expert_spread: float = later(0.02, gt=0, description="standard deviation of the experts' first weights")

    @model_validator(mode="after")
    def _possible_remedy(self) -> TransferDials:
        if self.remedy is not None and (len(self.modalities) != 2 or self.clip_steps is None):
            raise Refused(f"remedy={self.remedy!r} combines two tasks: mode joint or moae, and clip_steps")
        if self.remedy is not None and self.accumulate != 1:
            raise Refused("a remedy needs whole batches: accumulate=1")
        if self.remedy is not None and self.optimizer_states == "separate":
            raise Refused("a remedy makes one step of both tasks; separate optimiser states cannot be kept")
        return self
