"""frames → boxes     where the faces are: MTCNN from a package that brings its weights, or a model file you have.

    detector = open_detector("mtcnn")
    faces = detector(frames)[0]          # frames u8 [b h w 3]; boxes [n 4], landmarks [n 5 2], scores [n]

A detector is anything with a `name` that can be called like this; `crops.FaceCropper` takes your own as well.

Coordinates are (x, y) in pixels of the frame that was given, pixel centres at whole numbers. The eye called left is
the one on the left of the picture.

Derived in chapter 02.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s4d_lib.crops.faces import Detector, DetectorMissing, Faces, best_first, from_size_on, require_package
from s4d_lib.crops.mtcnn import Mtcnn
from s4d_lib.errors import Refused

DETECTORS = ("mtcnn", "yunet", "mediapipe")


def open_detector(name: str = "mtcnn", model: str | Path | None = None, min_face: float | None = None) -> Detector:
    """A detector by name. "yunet" and "mediapipe" need `model`, the path of their model file.

    `min_face` is the smallest face looked for, in pixels of the frame; None = a tenth of the frame's shorter side.
    ValueError for another name, a model that "mtcnn" has no use for or a `min_face` below 1; DetectorMissing if a
    package or the model file is absent.
    """
    if name not in DETECTORS:
        raise Refused(f"no detector is called {name!r}; there are {', '.join(DETECTORS)}")
    if min_face is not None and not min_face >= 1:
        raise Refused(f"min_face is {min_face}; give the smallest face in pixels, at least 1, or none")
    if name == "mtcnn":
        if model is not None:
            raise Refused(f"{model}: mtcnn brings its own weights; choose yunet or mediapipe to use a model file")
        return Mtcnn(min_face)
    if model is None or not Path(model).is_file():
        raise DetectorMissing(f"{name} needs its model file, and {model or 'none'} is not one; name the file "
                              "(--model), or choose mtcnn, which brings its own weights")
    return YuNet(Path(model), min_face) if name == "yunet" else MediaPipe(Path(model), min_face)


class YuNet:
    """OpenCV's YuNet with a model file of yours (`face_detection_yunet_….onnx`); needs the package opencv-python or
    opencv-python-headless with `cv2.FaceDetectorYN`."""

    sure = 0.8

    def __init__(self, model: Path, min_face: float | None = None, least: float = 0.6) -> None:
        require_package("cv2", "yunet")
        import cv2

        self.min_face, self.name = min_face, f"yunet {model.name} (opencv {cv2.__version__}){from_size_on(min_face)}"
        with _reading(model, "YuNet"):
            self.network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), least)

    def __call__(self, frames: Tensor) -> list[Faces]:
        height, width = frames.shape[1:3]
        self.network.setInputSize((width, height))
        smallest = min(height, width) / 10 if self.min_face is None else self.min_face
        found = []
        for frame in frames.numpy():
            rows = self.network.detect(np.ascontiguousarray(frame[..., ::-1]))[1]  # it reads blue, green, red
            rows = torch.from_numpy(np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows, np.float32))
            boxes = torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
            found.append(best_first(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], smallest))
        return found


class MediaPipe:
    """MediaPipe's face detector with a model file of yours (`blaze_face_short_range.tflite`); needs the package
    mediapipe. It gives eyes and nose; the mouth corners are nan."""

    sure = 0.7

    def __init__(self, model: Path, min_face: float | None = None, least: float = 0.5) -> None:
        require_package("mediapipe", "mediapipe")
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self.package, self.min_face = mediapipe, min_face
        self.name = f"mediapipe {mediapipe.__version__} {model.name}{from_size_on(min_face)}"
        with _reading(model, "MediaPipe's face detector"):
            self.network = vision.FaceDetector.create_from_options(vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_path=str(model)), min_detection_confidence=least))

    def __call__(self, frames: Tensor) -> list[Faces]:
        height, width = frames.shape[1:3]
        smallest = min(height, width) / 10 if self.min_face is None else self.min_face
        found = []
        for frame in frames.numpy():
            picture = self.package.Image(image_format=self.package.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            seen = self.network.detect(picture).detections
            box = [d.bounding_box for d in seen]
            boxes = [[b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height] for b in box]
            points = [[[k.x * width - 0.5, k.y * height - 0.5] for k in d.keypoints[:3]] + [[np.nan] * 2] * 2
                      for d in seen]
            scores = [d.categories[0].score for d in seen]
            found.append(best_first(torch.tensor(boxes).float().view(-1, 4),
                                    torch.tensor(points).float().view(-1, 5, 2),
                                    torch.tensor(scores).float().view(-1), smallest))
        return found


@contextmanager
def _reading(model: Path, whose: str) -> Iterator[None]:
    """ValueError, naming the file, for whatever a package raises when it cannot read a model."""
    try:
        yield
    except Exception as error:
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refused(f"{model}: is no model that {whose} can read ({words})") from error
