"""system → settings     what makes a fine-tuning one of S2D: prompts, adapters, self-distillation.

One of the groups that a fine-tuning's configuration is made of. S2D's image model is mode sfer, its video model mode
dfer with `init` = the image model's weights. Derived in chapter 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, model_validator

from s4d_lib.errors import Refused
from s4d_lib.training.later import later
from s4d_lib.weights.wheels import FACE_MESH


class S2DSettings(BaseModel):
    """The settings of S2D, a part of `FinetuneConfig`."""

    if TYPE_CHECKING:  # of the configuration that this is a part of
        mode: str
        size: str
        pool: str
        moae_blocks: tuple[int, ...] | None
        behaviour: str
        epochs: int

    system: Literal["s4d", "s2d"] = later("s4d")
    prompts: bool = later(True, description="False: the image transformer, or the video adapters, without landmarks")
    tma_init: Literal["released", "zero"] = later("zero", description="how the temporal adapters start, see s2d.py")
    freeze: bool | None = later(None, description="train only what S2D adds; None: in mode dfer")
    landmarks: str | None = later("shipped", description="weights of the landmark network, 'random' as a control, or "
                                  "'face_mesh', what `s4d fetch face_mesh` got")
    landmark_memory: str | None = later(
        None, description="folder that models.landmark_memory.remember filled; its features are rounded: another run"
    )
    sdl: bool = later(False, description="self-distillation from emotion anchors; its variant is `behaviour`")
    sdl_slots: int = later(16, ge=1, description="anchors kept of each class")
    sdl_neighbours: int = later(2, ge=1, description="anchors of each class that make a target")
    sdl_update_every: int | None = later(None, ge=1, description="epochs; None: 1, in reference 100 as released")

    @property
    def frozen(self) -> bool:
        """Whether S2D's image model stays as it is."""
        return self.system == "s2d" and (self.mode == "dfer" if self.freeze is None else self.freeze)

    @model_validator(mode="after")
    def _possible_system(self) -> S2DSettings:
        if self.system == "s2d":
            self._possible_s2d()
        elif self.sdl or self.freeze:
            raise Refused("sdl and freeze belong to system='s2d'")
        elif self.landmark_memory is not None:
            raise Refused("landmark_memory belongs to system='s2d': no other network asks for landmarks")
        return self

    def _possible_s2d(self) -> None:
        from s4d_lib.models.s2d import S2D_SIZES

        if self.mode not in ("sfer", "dfer"):
            raise Refused(f"S2D has an image model (mode sfer) and a video model (mode dfer), not {self.mode!r}")
        if self.size not in S2D_SIZES:
            raise Refused(f"size of S2D must be one of {', '.join(S2D_SIZES)}, got {self.size!r}")
        if self.pool != "mean" or self.moae_blocks:
            raise Refused("S2D reads class tokens and has no experts: pool='mean' and no moae_blocks")
        if self.prompts and self.landmarks is None:
            raise Refused("prompts are made of landmark features: name a landmark network, or set prompts=False")
        if self.landmarks == FACE_MESH and self.landmark_memory is not None:
            raise Refused("landmark_memory keeps the features of a landmark network, and the face mesh has none: leave "
                          "it out")
        if self.sdl_slots < self.sdl_neighbours:
            raise Refused(f"sdl_slots={self.sdl_slots} cannot give sdl_neighbours={self.sdl_neighbours}")
        if self.sdl and self.behaviour == "clean" and self.epochs < 2:
            raise Refused("self-distillation begins after the first fifth of a run: epochs must be at least 2")
