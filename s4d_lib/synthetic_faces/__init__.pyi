# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .recipes import RECIPES as RECIPES, FaceRecipe as FaceRecipe
from .motion import (
    ALWAYS as ALWAYS,
    EMOTIONS as EMOTIONS,
    KINDS as KINDS,
    NEUTRAL as NEUTRAL,
    PROTOTYPES as PROTOTYPES,
    blinks as blinks,
    drift as drift,
    expression as expression,
    resting_face as resting_face,
    script_clip as script_clip,
    smooth_step as smooth_step,
    speech as speech,
)
from .people import SKIN as SKIN, View as View, sample_people as sample_people, sample_views as sample_views
from .geometry import ACTION_UNITS as ACTION_UNITS, AU_INDEX as AU_INDEX
from .renderer import render as render
from .drawing import make_clips as make_clips, make_stills as make_stills
from .folders import write_faces as write_faces
from .landmark_faces import (
    REGIONS as REGIONS,
    DrawnFaces as DrawnFaces,
    Faces as Faces,
    StoredFaces as StoredFaces,
    Variation as Variation,
)
