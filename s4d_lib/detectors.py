"""frames → boxes     where the faces are: MTCNN from a package that brings its weights, or a model file you have.

    detector = open_detector("mtcnn")
    faces = detector(frames)[0]          # frames u8 [b h w 3]; boxes [n 4], landmarks [n 5 2], scores [n]

A detector is anything with a `name` that can be called like this; `crops.FaceCropper` takes your own as well.

MTCNN (Zhang et al. 2016, arXiv 1604.02878) is what the authors of S4D cropped MAFW with. Three small networks look
at a picture: the first scores every place at many scales, the second and third look closer at what is left. The
trained networks are those of the package `mtcnn` (MIT, 1.9 MB). Only its three weight files are read, after their
checksum: its own code needs TensorFlow. The networks and the cascade here are written for PyTorch and treat a whole
batch of frames at once. Their training data (WIDER FACE, CelebA) were given for research.

Coordinates are (x, y) in pixels of the frame that was given, pixel centres at whole numbers. The eye called left is
the one on the left of the picture.

Derived in chapter 02.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.errors import Refused

LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
DETECTORS = ("mtcnn", "yunet", "mediapipe")
BATCH = 16          # frames that pass through the networks together
CANDIDATES = 300    # places a frame may send from one network to the next; crowds have fewer faces
WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


class Faces(NamedTuple):
    """The faces of one frame, best score first: float32 boxes [n 4] as x0 y0 x1 y1, landmarks [n 5 2] in the order of
    LANDMARKS (nan where a detector does not give one), scores [n] in 0 … 1."""

    boxes: Tensor
    landmarks: Tensor
    scores: Tensor


class Detector(Protocol):
    """What `crops.FaceCropper` needs: a name for records, and frames uint8 [b h w 3] → one `Faces` for each.

    An attribute `sure` may say from which score on a face is surely one; 0.9 if it is absent.
    """

    name: str

    def __call__(self, frames: Tensor) -> list[Faces]: ...


class DetectorMissing(Refused):
    """A detector cannot be used because a package or its model file is not there; the message says what to install."""


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


def _require(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise DetectorMissing(f"face detection needs the package {package!r}, which is not installed: {extra}")


def _from(min_face: float | None) -> str:
    return "" if min_face is None else f", faces from {min_face:g} px"


# ------------------------------------------------------------------------------------------------ MTCNN


class Mtcnn:
    """The three networks of MTCNN on a batch of frames; loaded once a process, at the first call.

    min_face    smallest face looked for, pixels of the frame; None = a tenth of its shorter side. Below 20 px of the
                picture the networks see, nothing is looked for.
    longest     larger frames are shrunk to this longer side first, so that the networks see no more of 4K
    surround    black laid around the frame, as a share of its shorter side: a face that fills the frame is found
                because there is something around it
    scores      least score to pass the first, second and third network
    """

    sure = 0.8

    def __init__(self, min_face: float | None = None, longest: int = 640, surround: float = 0.15,
                 scores: tuple[float, float, float] = (0.6, 0.7, 0.7)) -> None:
        _require("mtcnn", "pip install 's4d-book[faces]'")
        self.min_face, self.longest, self.surround, self.scores = min_face, longest, surround, scores
        self.name = f"mtcnn {importlib.metadata.version('mtcnn')}{_from(min_face)}"

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> list[Faces]:
        """Frames uint8 [b h w 3] → the faces of each. ValueError for frames of another type or shape."""
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"a detector reads frames uint8 [b h w 3], got {frames.dtype} {[*frames.shape]}")
        return [faces for part in frames.split(BATCH) for faces in self._detect(part)]

    def _detect(self, frames: Tensor) -> list[Faces]:
        pnet, rnet, onet = _networks()
        height, width = frames.shape[1:3]
        shrink = min(1.0, self.longest / max(height, width))
        pictures = frames.movedim(3, 1)
        if shrink < 1:
            pictures = F.interpolate(pictures, (round(height * shrink), round(width * shrink)), mode="bilinear",
                                     antialias=True)
        shrink_y, shrink_x = (new / old for new, old in zip(pictures.shape[2:], (height, width)))
        black = round(self.surround * min(pictures.shape[2:]))
        pictures = (F.pad(pictures, (black,) * 4).float() - 127.5) / 128
        smallest = max(20.0, min(height, width) / 10 * shrink if self.min_face is None else self.min_face * shrink)
        levels = _halvings(pictures)

        frame, boxes = _propose(pnet, pictures, smallest, self.scores[0])
        moves, chances = rnet(_cut(levels, frame, boxes, 24))
        frame, boxes, score = _keep(frame, _moved(boxes, moves), chances, self.scores[1], 0.7)
        boxes = _square(boxes)
        moves, points, chances = onet(_cut(levels, frame, boxes, 48))
        corner, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        points = corner + side * points.view(-1, 2, 5).mT
        frame, boxes, score, points = _keep(frame, _moved(boxes, moves), chances, self.scores[2], 0.7, points, True)

        # Edges of the shrunk picture → pixel centres of the frame. Rounded: the last bits depend on the batch.
        grow = torch.tensor([1 / shrink_x, 1 / shrink_y])
        boxes = (((boxes - black) * grow.repeat(2) - 0.5) * 100).round() / 100
        points = (((points - black) * grow - 0.5) * 100).round() / 100
        score = (score * 1e4).round() / 1e4
        return [Faces(boxes[frame == i], points[frame == i], score[frame == i]) for i in range(len(frames))]


class _Stage(nn.Module):
    """One network: convolutions with PReLU, some followed by pooling, then its outputs (weights of the package:
    height, width, channels in, channels out)."""

    def __init__(self, weights: list[np.ndarray], pools: tuple[int, ...]) -> None:
        super().__init__()
        w = [torch.from_numpy(np.ascontiguousarray(array)) for array in weights]
        self.body = nn.Sequential()
        for layer, pool in enumerate(pools):
            kernel, bias, slope = w[3 * layer:3 * layer + 3]
            self.body.append(_Conv(kernel.permute(3, 2, 0, 1), bias, slope))
            if pool:
                self.body.append(nn.MaxPool2d(pool, 2, ceil_mode=True))
        rest = w[3 * len(pools):]
        self.hidden = None
        if rest[0].ndim == 2:  # the second and third network end in full connections over (x, y, channel)
            inside = rest[0].shape[0] // 9
            self.hidden = _Conv(rest[0].view(3, 3, inside, -1).permute(3, 2, 1, 0), rest[1], rest[2])
            rest = rest[3:]
        self.outputs = [(kernel.reshape(-1, kernel.shape[-1]).mT[:, :, None, None], bias)
                        for kernel, bias in zip(rest[::2], rest[1::2])]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures [b 3 h w] → box moves, landmarks (third network only) and the chance of a face; [b c] where the
        network sees one place, else [b c h w]."""
        x = self.body(x)
        if self.hidden is not None:
            x = self.hidden(x)
        *rest, classes = (F.conv2d(x, kernel, bias) for kernel, bias in self.outputs)
        found = [*rest, classes.softmax(1)[:, 1:]]
        return found if self.hidden is None else [value.flatten(1) for value in found]


class _Conv(nn.Module):
    def __init__(self, kernel: Tensor, bias: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.kernel, self.bias, self.slope = kernel.contiguous(), bias, slope.flatten()

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(F.conv2d(x, self.kernel, self.bias), self.slope)


@lru_cache(maxsize=1)
def _networks() -> tuple[_Stage, _Stage, _Stage]:
    """The networks of the installed package. DetectorMissing if its weights are not those known here: they are
    pickled arrays, and nothing else is to be unpickled."""
    import joblib

    _require("lz4", "pip install 's4d-book[faces]'")
    folder = Path(importlib.util.find_spec("mtcnn").submodule_search_locations[0]) / "assets" / "weights"
    arrays = {}
    for name, known in WEIGHTS.items():
        path = folder / f"{name}.lz4"
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != known:
            raise DetectorMissing(f"{path.name}: not the weights of mtcnn 1.0.0; "
                                  "pip install --force-reinstall mtcnn==1.0.0")
        arrays[name] = joblib.load(path)
    return (_Stage(arrays["pnet"], (2, 0, 0)), _Stage(arrays["rnet"], (3, 3, 0)), _Stage(arrays["onet"], (3, 3, 2, 0)))


def _propose(pnet: _Stage, pictures: Tensor, smallest: float, least: float) -> tuple[Tensor, Tensor]:
    """First network at every scale: frame [n] and square box [n 4] of each place that may be a face.

    It sees 12 px at a time in steps of 2 px; pictures are shrunk until the face looked for is 12 px large.
    """
    height, width = pictures.shape[2:]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    scale = 12 / smallest
    while min(height, width) * scale >= 12:
        size = (round(height * scale), round(width * scale))
        moves, chances = pnet(F.interpolate(pictures, size, mode="bilinear", antialias=True))
        frame, _, row, column = (chances >= least).nonzero(as_tuple=True)
        corner = torch.stack([column, row], 1) * 2.0
        steps = torch.tensor([width / size[1], height / size[0]])
        boxes = torch.cat([corner, corner + 12], 1) * steps.repeat(2)
        chance = chances[frame, 0, row, column]
        found.append(_keep(frame, boxes, chance, least, 0.5, moves[frame, :, row, column]))
        scale *= 0.709  # half the area a step
    if not found:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    frame, boxes, score, moves = (torch.cat(parts) for parts in zip(*found))
    frame, boxes, score, moves = _keep(frame, boxes, score, least, 0.7, moves)
    return frame, _square(_moved(boxes, moves))


def _keep(frame: Tensor, boxes: Tensor, chances: Tensor, least: float, overlap: float, more: Tensor | None = None,
          of_smaller: bool = False) -> tuple[Tensor, ...]:
    """Of the boxes that score enough, the best of each group that overlaps; sorted by frame, best first."""
    score = chances.flatten()
    order = (score >= least).nonzero()[:, 0]
    order = order[score[order].argsort(descending=True, stable=True)]
    kept: list[int] = []
    for number in frame[order].unique().tolist():
        mine = order[frame[order] == number]
        kept += mine[_distinct(boxes[mine].numpy(), overlap, of_smaller)[:CANDIDATES]].tolist()
    values = (frame, boxes, score) if more is None else (frame, boxes, score, more)
    return tuple(value[kept] for value in values)


def _distinct(boxes: np.ndarray, overlap: float, of_smaller: bool) -> list[int]:
    """Positions of boxes [n 4], best first, that share less than `overlap` with a better one: of their union, or of
    the smaller of both."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left, kept = np.arange(len(boxes)), []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        whole = np.minimum(area[best], area[left]) if of_smaller else area[best] + area[left] - shared
        left = left[shared <= overlap * whole]
    return kept


def _moved(boxes: Tensor, moves: Tensor) -> Tensor:
    """Boxes with each edge moved by a share of the box."""
    side = boxes[:, 2:] - boxes[:, :2]
    return boxes + moves * side.repeat(1, 2)


def _square(boxes: Tensor) -> Tensor:
    """The square around the same centre with the longer side."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
    return torch.cat([centre - side / 2, centre + side / 2], 1)


def _halvings(pictures: Tensor) -> list[Tensor]:
    """The pictures [b 3 h w] at 1, 1/2, 1/4, … of their size."""
    levels = [pictures]
    while min(levels[-1].shape[2:]) >= 48:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _cut(levels: list[Tensor], frame: Tensor, boxes: Tensor, edge: int) -> Tensor:
    """Boxes [n 4] of the frames they belong to as pictures [n 3 edge edge]; black outside the frame.

    Each is sampled from the halving in which it has at least `edge` px, so that no detail is skipped.
    """
    cut = boxes.new_zeros(len(boxes), 3, edge, edge)
    side = boxes[:, 2] - boxes[:, 0]
    level = (side / edge).clamp(min=1).log2().floor().long().clamp(max=len(levels) - 1)
    at = (torch.arange(edge) + 0.5) / edge
    for number in level.unique().tolist():
        picture = levels[number] + 1  # zero is what lies outside, and black is −1
        whole = torch.tensor(picture.shape[:1:-1]) * 2.0**number  # its width and height in pixels of the first level
        for one in frame[level == number].unique().tolist():
            mine = ((level == number) & (frame == one)).nonzero()[:, 0]
            low, size = boxes[mine, None, :2], (boxes[mine, None, 2:] - boxes[mine, None, :2])
            x, y = ((low + size * at[None, :, None]) / whole * 2 - 1).unbind(-1)  # each [m edge], −1 … 1 over the frame
            grid = torch.stack([x[:, None, :].expand(-1, edge, -1), y[:, :, None].expand(-1, -1, edge)], -1)
            sampled = F.grid_sample(picture[one:one + 1], grid.reshape(1, -1, edge, 2), align_corners=False)
            cut[mine] = sampled[0].view(3, -1, edge, edge).movedim(1, 0) - 1
    return cut


# ------------------------------------------------------------------------------------- your own model file


class YuNet:
    """OpenCV's YuNet with a model file of yours (`face_detection_yunet_….onnx`); needs the package opencv-python or
    opencv-python-headless with `cv2.FaceDetectorYN`."""

    sure = 0.8

    def __init__(self, model: Path, min_face: float | None = None, least: float = 0.6) -> None:
        _require("cv2", "pip install opencv-python-headless")
        import cv2

        self.min_face, self.name = min_face, f"yunet {model.name} (opencv {cv2.__version__}){_from(min_face)}"
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
            found.append(_sorted(boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], smallest))
        return found


class MediaPipe:
    """MediaPipe's face detector with a model file of yours (`blaze_face_short_range.tflite`); needs the package
    mediapipe. It gives eyes and nose; the mouth corners are nan."""

    sure = 0.7

    def __init__(self, model: Path, min_face: float | None = None, least: float = 0.5) -> None:
        _require("mediapipe", "pip install mediapipe")
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self.package, self.min_face = mediapipe, min_face
        self.name = f"mediapipe {mediapipe.__version__} {model.name}{_from(min_face)}"
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
            found.append(_sorted(torch.tensor(boxes).float().view(-1, 4), torch.tensor(points).float().view(-1, 5, 2),
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


def _sorted(boxes: Tensor, landmarks: Tensor, scores: Tensor, smallest: float) -> Faces:
    """Best score first, without the faces whose longer side is below `smallest` px."""
    order = scores.argsort(descending=True, stable=True)
    order = order[(boxes[order, 2:] - boxes[order, :2]).amax(1) >= smallest]
    return Faces(boxes[order], landmarks[order], scores[order].clamp(0, 1))
