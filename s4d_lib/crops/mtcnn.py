"""frames → boxes     MTCNN: three small networks in a cascade, for a whole batch of frames at a time.

MTCNN (Zhang et al. 2016, arXiv 1604.02878) is what the authors of S4D cropped MAFW with. The first network scores every
place at many scales, the second and third look closer at what is left. The trained networks are those of the package
`mtcnn` (MIT, 1.9 MB). Only its three weight files are read, after their checksum: its own code needs TensorFlow. The
networks and the cascade here are written for PyTorch and treat a whole batch of frames at once. Their training data
(WIDER FACE, CelebA) were given for research. Derived in chapter 02.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s4d_lib.crops.faces import DetectorMissing, Faces, from_size_on, require_package

BATCH = 16          # frames that pass through the networks together
CANDIDATES = 300    # places a frame may send from one network to the next; crowds have fewer faces
WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


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
        require_package("mtcnn", "faces")
        self.min_face, self.longest, self.surround, self.scores = min_face, longest, surround, scores
        self.name = f"mtcnn {importlib.metadata.version('mtcnn')}{from_size_on(min_face)}"

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
    require_package("lz4", "faces")
    require_package("joblib", "faces")
    import joblib

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
