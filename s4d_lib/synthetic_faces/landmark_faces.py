"""recipe → faces     stills with 68 exact points, drawn or stored, and how picture and points are varied together.

Points are in picture units: (0, 0) is the centre of the first pixel and (1, 1) that of the last one, so that resizing
corner to corner leaves them as they are. Order of points: iBUG 300-W, as the face laboratory draws them. Derived in
chapter 11.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from s4d_lib.errors import Refused
from s4d_lib.frames.local_contrast import local_contrast
from s4d_lib.synthetic_faces.drawing import STILL_CHUNK, make_stills
from s4d_lib.synthetic_faces.people import View
from s4d_lib.synthetic_faces.recipes import FaceRecipe, StillRecipe

REGIONS = {"jaw": slice(0, 17), "brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48),
           "mouth": slice(48, 68)}
# Which point of a face its mirror image calls number i, iBUG 300-W order. Each row is one curve, read backwards.
MIRROR = (*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
          *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40,
          *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1))
PICTURES = "Manually_Annotated_Images"  # the folder of a stored set, as in AffectNet
PARTS = ("train", "validation", "test")
SEEDS = 1_000_000  # of one part; the first million is left to the data sets of the book
# Wider than the stills and clips of the book in every dial, so that both lie inside what was learned.
# 112 px is what the landmark network reads (`models.landmark_net.LANDMARK_PIXELS`).
RECIPE = FaceRecipe("landmarks", size=112, still=StillRecipe(
    prior=(1.0,) * 7, intensity=(0.2, 1.15), look_alikes=0.3, view=View(grey=0.0, blur=(0.0, 0.8), noise=(0.0, 0.02))))
COARSE = 48  # pixels: the size at which the book's small models read faces


class Variation(BaseModel):
    """How a face is varied in training: the window that is cut out, then colours and sharpness, then the size."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    zoom: tuple[float, float] = Field((0.85, 1.2), description="size of the face over its size before; >1 crops")
    shift: float = Field(0.06, ge=0, description="largest shift along each axis, as a share of the picture")
    turn: float = Field(0.15, ge=0, description="largest turn in the plane, radians")
    flip: float = Field(0.5, ge=0, le=1, description="share of mirrored faces")
    grey: float = Field(0.2, ge=0, le=1, description="share without colour")
    blur: float = Field(0.3, ge=0, le=1, description="share blurred, by a random amount up to two 3×3 binomials")
    coarse: float = Field(0.5, ge=0, le=1, description=f"share that has been through {COARSE} px")
    contrast: float = Field(0.5, ge=0, le=1, description="share of these that is read through frames/local_contrast.py")


class DrawnFaces(Dataset):
    """Stills of a recipe, drawn when first asked for and kept (38 kB each at 112 px).

    Items: `x` u8 `[3 h w]`, `points` f32 `[68 2]` in picture units, `yaw` in radians. Two parts (see `PARTS`) or two
    seeds never show the same person. `contrast` reads every face through `local_contrast`.
    """

    replicate = 1

    def __init__(self, people: int, part: str = "train", seed: int = 0, recipe: FaceRecipe = RECIPE,
                 contrast: bool = False) -> None:
        self.people, self.recipe, self.contrast = people, recipe, contrast
        self.seed = (seed * len(PARTS) + PARTS.index(part) + 1) * SEEDS
        self._kept: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.people

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        # The loop also says the epoch, which changes no face.
        chunk, row = divmod(key[1] if isinstance(key, tuple) else key, STILL_CHUNK)
        if chunk not in self._kept:
            stills = make_stills(self.recipe, STILL_CHUNK, self.seed + chunk)
            frames = local_contrast(stills.frames) if self.contrast else stills.frames
            self._kept[chunk] = {"x": rearrange(frames, "n h w c -> n c h w").contiguous(),
                                 "points": _units(stills.landmarks, frames), "yaw": stills.poses[:, 0]}
        return {name: values[row] for name, values in self._kept[chunk].items()}


class StoredFaces(Dataset):
    """The stills that `folders.py` wrote, with the points of their truth.npz; items as in `DrawnFaces`.

    The test part is the folder's test list. Every tenth face of the training list is for validation; each still shows
    another person, so no person is in two parts. ValueError when a part would be empty.
    """

    replicate = 1

    def __init__(self, folder: str | Path, part: str = "train") -> None:
        self.folder = Path(folder)
        listed = self.folder / f"{'test' if part == 'test' else 'train'}_affectnet7.txt"
        ids = [line.rsplit(" ", 1)[0] for line in listed.read_text(encoding="utf-8").splitlines()]
        if part != "test":
            ids = [name for i, name in enumerate(ids) if (i % 10 == 9) == (part == "validation")]
        if not ids:
            raise Refused(f"{listed}: no face is left for {part}; draw more stills")
        with np.load(self.folder / "truth.npz") as truth:
            row = {name: i for i, name in enumerate(truth["ids"].tolist())}
            kept = [row[name] for name in ids]
            self.ids, self.points = ids, torch.from_numpy(truth["landmarks"][kept])
            self.yaws = torch.from_numpy(truth["poses"][kept, 0])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        i = key[1] if isinstance(key, tuple) else key
        with Image.open(self.folder / PICTURES / self.ids[i]) as picture:
            frame = torch.from_numpy(np.array(picture.convert("RGB")))
        return {"x": frame.permute(2, 0, 1), "points": _units(self.points[i], frame[None]), "yaw": self.yaws[i]}


Faces = DrawnFaces | StoredFaces


def _units(points: Tensor, frames: Tensor) -> Tensor:
    """Pixels (x, y), centres at integers, of frames `[n h w c]` → picture units."""
    return points / (points.new_tensor([frames.shape[2], frames.shape[1]]) - 1)


# --- variation -------------------------------------------------------------------------------------------------------


def draw_windows(count: int, rng: np.random.Generator, v: Variation) -> tuple[Tensor, Tensor]:
    """Maps `[b 2 3]` from the varied picture to the given one, both from −1 to 1, and who is mirrored (bool `[b]`)."""
    zoom, turn = rng.uniform(*v.zoom, count), rng.uniform(-v.turn, v.turn, count)
    flipped = rng.random(count) < v.flip
    side = np.where(flipped, -1.0, 1.0)
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    shift = rng.uniform(-2 * v.shift, 2 * v.shift, (2, count))  # a picture is 2 wide here
    maps = rearrange(np.array([[side * cos, -sin, shift[0]], [side * sin, cos, shift[1]]]), "r c b -> b r c")
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(flipped)


def move_points(points: Tensor, maps: Tensor, flipped: Tensor) -> Tensor:
    """Points `[b 68 2]` in picture units → where and under which number they are in the varied picture.

    A mirrored left eye is a right eye: positions move through the inverse map, and numbers through `MIRROR`.
    """
    away = (2 * points - 1) - maps[:, None, :, 2]
    # A turn and a zoom can be undone; `solve` would ask the device whether that is so, and wait.
    moved = (torch.linalg.solve_ex(maps[:, :, :2], away.mT).result.mT + 1) / 2
    return torch.where(flipped[:, None, None], moved[:, list(MIRROR)], moved)


def vary(frames: Tensor, points: Tensor, rng: np.random.Generator, v: Variation) -> tuple[Tensor, Tensor]:
    """Square frames `[b 3 h h]` in [0, 1] and points `[b 68 2]` → the same, varied together."""
    if frames.shape[-1] != frames.shape[-2]:
        raise ValueError(f"frames must be square, or a turn would shear them; got {tuple(frames.shape)}")
    maps, flipped = (value.to(frames.device) for value in draw_windows(len(frames), rng, v))
    grid = F.affine_grid(maps, list(frames.shape), align_corners=True)  # the corners are pixel centres, as in _units
    frames = F.grid_sample(frames, grid, padding_mode="border", align_corners=True)
    weight = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)     # luma of Rec. ITU-R BT.601
    chance = rng.random((5, len(frames)), dtype=np.float32)

    def rows(chosen: np.ndarray) -> Tensor:
        """Numbers of the chosen frames: a mask on an accelerator would have to be counted there, and waited for."""
        return torch.from_numpy(np.flatnonzero(chosen)).to(frames.device)

    grey, blurred, coarse = rows(chance[0] < v.grey), rows(chance[1] < v.blur), chance[3] < v.coarse
    frames[grey] = (frames[grey] * weight).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    amount = torch.from_numpy(chance[2, chance[1] < v.blur]).to(frames.device).view(-1, 1, 1, 1)
    frames[blurred] = torch.lerp(frames[blurred], _soft(_soft(frames[blurred])), amount)
    for read_as_contrast in (False, True):
        some = rows(coarse & ((chance[4] < v.contrast) == read_as_contrast))
        frames[some] = through_coarse(frames[some], read_as_contrast)
    return frames, move_points(points, maps, flipped)


def through_coarse(frames: Tensor, contrast: bool) -> Tensor:
    """Frames `[b 3 h h]` in [0, 1] as a small model's reader hands them on, back in their own size.

    Down to `COARSE` pixels, with `contrast` through `local_contrast`, and up again. Corner to corner, so points stay.
    """
    size = tuple(frames.shape[-2:])
    if size[0] > COARSE:  # soften first: corner to corner, interpolation has no antialiasing
        frames = F.interpolate(_soft(frames), (COARSE, COARSE), mode="bilinear", align_corners=True)
    if contrast:
        pictures = (255 * frames).round().to(torch.uint8).permute(0, 2, 3, 1)
        frames = local_contrast(pictures).permute(0, 3, 1, 2).to(frames) / 255
    return F.interpolate(frames, size, mode="bilinear", align_corners=True)


def _soft(frames: Tensor) -> Tensor:
    """One 3×3 binomial filter: symmetric, so nothing moves."""
    for axis in (-1, -2):
        n = frames.shape[axis]
        before, after = frames.narrow(axis, 0, n - 1), frames.narrow(axis, 1, n - 1)
        pairs = (before + after) / 2  # the edge pixels stand for what lies beyond them
        pairs = torch.cat([frames.narrow(axis, 0, 1), pairs, frames.narrow(axis, n - 1, 1)], axis)
        frames = (pairs.narrow(axis, 0, n) + pairs.narrow(axis, 1, n)) / 2
    return frames
