# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .sizes import SIZES as SIZES, Size as Size, resolve_size as resolve_size
from .autoencoder import DualModalEncoder as DualModalEncoder, DualModalMAE as DualModalMAE
from .classifier import S4DClassifier as S4DClassifier
from .landmark_net import LandmarkNet as LandmarkNet, load_landmarks as load_landmarks
from .landmark_readers import FilterBank as FilterBank, LandmarkReader as LandmarkReader
from .face_mesh import FaceMesh as FaceMesh
from .landmark_memory import ask as ask
from .self_distillation import (
    AnchorSchedule as AnchorSchedule,
    EmotionAnchors as EmotionAnchors,
    collect as collect,
    read as read,
)
from .s2d import S2D_SIZES as S2D_SIZES, S2DClassifier as S2DClassifier
