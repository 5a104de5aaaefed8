# What this wing hands on. A name is imported, and its file run, when somebody asks for it.

from .faces import DetectorMissing as DetectorMissing
from .detectors import open_detector as open_detector
from .cropper import FaceCropper as FaceCropper
