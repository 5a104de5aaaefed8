"""name → recipe     how faces are drawn: class shares, cameras, label noise, how clips unfold.

`RECIPES` has the two of the book, easy and default; a recipe is data, and everything that changes a picture is in it.
Derived in chapter 01.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s4d_lib.synthetic_faces.people import View

DFEW_PRIOR = (0.20, 0.17, 0.22, 0.17, 0.12, 0.04, 0.08)      # rounded from DFEW's single-label clips
STILL_PRIOR = (0.22, 0.14, 0.18, 0.14, 0.12, 0.10, 0.10)     # stills are collected by keyword: more even


@dataclass(frozen=True)
class StillRecipe:
    """Dials of the still images.

    prior        class shares, order of EMOTIONS         intensity    (low, high) of the expression's apex
    label_noise  share of labels drawn at random         look_alikes  share of talking/resting faces labelled by looks
    rest         strength of the resting-face bias       view         crop, pose, light and picture quality
    """

    prior: tuple[float, ...] = STILL_PRIOR
    intensity: tuple[float, float] = (0.65, 1.1)
    label_noise: float = 0.05
    look_alikes: float = 0.15
    rest: float = 0.3
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class ClipRecipe:
    """Dials of the clips.

    sequence   share of clips A → B labelled B (needs order)      flash   share with a brief other expression
    talk       share that speaks (1.5 × that if neutral)          polite  share of neutral clips with a social smile
    frames     (fewest, most) frames                              fps     frames per second
    clips_per_identity  clips in a row that show the same person; the other dials as in StillRecipe
    """

    prior: tuple[float, ...] = DFEW_PRIOR
    intensity: tuple[float, float] = (0.65, 1.05)
    label_noise: float = 0.0
    sequence: float = 0.35
    flash: float = 0.15
    talk: float = 0.5
    polite: float = 0.4
    rest: float = 0.4
    frames: tuple[int, int] = (16, 24)
    fps: float = 12.5
    clips_per_identity: int = 4
    view: View = field(default_factory=View)


@dataclass(frozen=True)
class FaceRecipe:
    """A whole laboratory: `size` in pixels (even, for H.264), how stills and how clips are made."""

    name: str
    size: int = 64
    still: StillRecipe = field(default_factory=StillRecipe)
    clip: ClipRecipe = field(default_factory=ClipRecipe)


_ALIGNED = View(scale=(1.30, 1.38), shift=0.012, centre_y=-0.20, roll=0.03, yaw=0.08, pitch=0.05, gaze=0.15,
                light=0.4, blur=(0.0, 0.3), noise=(0.0, 0.01), occlusion=0.0, drift=0.4)
# Stills come from a photo archive, clips from films: other crops, cleaner pictures, a good share in grey. Both are as
# loose as a face detector's box, which is what takes ridge regression on pixels from 80 % to below 40 %.
_PHOTOS = View(scale=(1.05, 1.25), shift=0.03, centre_y=-0.10, roll=0.06, yaw=0.13, pitch=0.07, light=0.5, grey=0.30,
               blur=(0.0, 0.5), noise=(0.0, 0.012), occlusion=0.03)
_FILMS = View(scale=(1.12, 1.32), shift=0.035, centre_y=-0.14, roll=0.07, yaw=0.16, pitch=0.085, light=0.8,
              blur=(0.1, 0.8), noise=(0.005, 0.02), occlusion=0.04, drift=0.6)
RECIPES = {
    "easy": FaceRecipe("easy",
                       still=StillRecipe(label_noise=0.0, look_alikes=0.0, rest=0.15, intensity=(0.8, 1.1),
                                         view=_ALIGNED),
                       clip=ClipRecipe(sequence=0.0, flash=0.0, talk=0.2, polite=0.0, rest=0.15, intensity=(0.8, 1.1),
                                       view=_ALIGNED)),
    "default": FaceRecipe("default", still=StillRecipe(view=_PHOTOS), clip=ClipRecipe(view=_FILMS)),
}
