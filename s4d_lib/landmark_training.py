"""faces → landmarks     the small landmark network, trained on faces whose 68 points are exact because they were drawn.

    run = train_landmarks(LandmarkConfig(name="landmarks"))     # trains, goes on, or loads
    run.record.results["test"]["nme"]                           # percent, over all points and by region

The training of S2D's landmark network is not part of its code. Layout and 128×14×14 features are those of
`landmarks.LandmarkNet`; data, variation, loss and schedule are our own. Points are in picture units: (0, 0) is the
centre of the first pixel, (1, 1) that of the last one, so that resizing corner to corner leaves them as they are.
Drawn faces are not photographs: nothing here says how the network does on those. Derived in chapter 11.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from s4d_lib import records
from s4d_lib.checkpoints import MODELS, save_model
from s4d_lib.clips import normalise
from s4d_lib.face_people import View
from s4d_lib.face_renderer import RENDERER_VERSION
from s4d_lib.landmarks import LANDMARK_PIXELS, Bottleneck, ConvNorm, LandmarkNet, PointHead, ResidualBottlenecks
from s4d_lib.plans import Mixed, Step, steady_plan
from s4d_lib.runs import SHIPPED, Run, runs_root
from s4d_lib.synthetic_faces import RECIPES, STILL_CHUNK, FaceRecipe, StillRecipe, make_stills
from s4d_lib.training import Job, Loop, Progressed, run_job

POINTS = 68
REGIONS = {"jaw": slice(0, 17), "brows": slice(17, 27), "nose": slice(27, 36), "eyes": slice(36, 48),
           "mouth": slice(48, 68)}
# Which point of a face its mirror image calls number i, iBUG 300-W order. Each row is one curve, read backwards.
MIRROR = (*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
          *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40,
          *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1))
PARTS = ("train", "validation", "test")
SEEDS = 1_000_000  # of one part; the first million is left to the data sets of the book
SHIPPED_LANDMARKS = SHIPPED.with_name("small_landmarks.safetensors")
# Wider than the stills and clips of the book in every dial, so that both lie inside what was learned.
RECIPE = FaceRecipe("landmarks", size=LANDMARK_PIXELS, still=StillRecipe(
    prior=(1.0,) * 7, intensity=(0.2, 1.15), look_alikes=0.3, view=View(grey=0.0, blur=(0.0, 0.8), noise=(0.0, 0.02))))


class Variation(BaseModel):
    """How a face is varied in training: first the window that is cut out, then its colours and sharpness."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    zoom: tuple[float, float] = Field((0.85, 1.15), description="size of the face over its size before; >1 crops")
    shift: float = Field(0.06, ge=0, description="largest shift along each axis, as a share of the picture")
    turn: float = Field(0.15, ge=0, description="largest turn in the plane, radians")
    flip: float = Field(0.5, ge=0, le=1, description="share of mirrored faces")
    grey: float = Field(0.2, ge=0, le=1, description="share without colour")
    blur: float = Field(0.5, ge=0, le=1, description="share blurred, by a random amount up to two 3×3 binomials")


class LandmarkConfig(BaseModel):
    """Every number that changes the network that comes out; the defaults suit one CPU core for about an hour."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field("landmarks", pattern=r"^[\w.-]+$")
    tier: Literal["smoke", "laptop"] | None = None
    width: float = Field(0.25, gt=0, le=1, description="channels over those of the released layout; the tap keeps 128")
    folder: str | None = Field(None, description="a `stills` folder of face_files.py; None: draw while training")
    people: int = Field(48_000, ge=1, description="different faces drawn for training")
    test_people: int = Field(480, ge=1)
    variation: Variation = Variation()
    epochs: int = Field(20, ge=1)
    steps: int = Field(150, ge=1, description="updates in an epoch")
    batch: int = Field(STILL_CHUNK, ge=2, description="faces in a step; a multiple of the chunk they are drawn in")
    lr: float = Field(3e-3, gt=0)
    warmup_epochs: float = Field(0.5, ge=0)
    ema: float | None = Field(0.998, gt=0, lt=1)
    validate_every: int = Field(2, ge=1)
    seed: int = 0
    data_seed: int = Field(0, ge=0)
    workers: int = Field(0, ge=0)
    device: Literal["auto", "cpu"] = "auto"


class NarrowLandmarkNet(LandmarkNet):
    """`LandmarkNet` with `width` times its channels, rounded to eights; at width 1 keys and shapes are the released.

    The tapped stage keeps its 128 channels at every width, because the prompter reads them: only the bottlenecks inside
    narrow. Strides stay, so 112 px give 14×14. About 0.21 M parameters at width 1/4, 1.0 M at width 1.
    """

    def __init__(self, width: float = 0.25) -> None:
        super().__init__()
        def c(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        self.config = {"width": width}
        self.conv1 = ConvNorm(3, c(64), kernel=3, stride=2)
        self.conv2_dw = ConvNorm(c(64), c(64), kernel=3, groups=c(64))
        self.conv_23 = Bottleneck(c(64), c(64), c(128), stride=2)
        self.conv_3 = ResidualBottlenecks(c(64), c(128), depth=4)
        self.conv_34 = Bottleneck(c(64), 128, c(256), stride=2)
        self.conv_4 = ResidualBottlenecks(128, c(256), depth=6)
        self.conv_45 = Bottleneck(128, c(128), c(512), stride=2)
        self.conv_5 = ResidualBottlenecks(c(128), c(256), depth=2)
        self.conv_6_sep = ConvNorm(c(128), c(512))
        self.output_layer = PointHead(c(512), POINTS)

    def train(self, mode: bool = True) -> NarrowLandmarkNet:
        """As ever, but the norm behind the last layer is a fixed scale and offset while training too.

        With batch statistics the mean over a batch of every predicted coordinate would be that norm's offset,
        whatever the faces: an error as large as the batch's own mean position, which nothing could learn away.
        """
        super().train(mode)
        self.output_layer.bn.eval()
        return self

    @torch.no_grad()
    def start_at(self, points: Tensor) -> None:
        """Begin at the mean of points `[n 68 2]`, spread as they are spread, and not at zero."""
        last = self.output_layer.bn
        last.bias.copy_(points.flatten(1).mean(0))
        last.weight.copy_(points.flatten(1).std(0))


# Files name their model's class; whoever has imported this module can read and write files of this one.
MODELS.setdefault(NarrowLandmarkNet.__name__, NarrowLandmarkNet)


class DrawnFaces(Dataset):
    """Stills of `RECIPE`, drawn when they are asked for: `x` u8 `[3 h w]`, `points` f32 `[68 2]` in picture units.

    The last chunk is kept, so going through the numbers in order draws each face once and memory stays constant.
    Two parts (see `PARTS`) or two seeds never show the same person.
    """

    replicate = 1

    def __init__(self, people: int, part: str = "train", seed: int = 0, recipe: FaceRecipe = RECIPE) -> None:
        self.people, self.recipe = people, recipe
        self.seed = (seed * len(PARTS) + PARTS.index(part) + 1) * SEEDS
        self._kept: tuple[int, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self.people

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        # The loop also says the epoch, which changes no face.
        chunk, row = divmod(key[1] if isinstance(key, tuple) else key, STILL_CHUNK)
        if self._kept is None or self._kept[0] != chunk:
            stills = make_stills(self.recipe, STILL_CHUNK, self.seed + chunk)
            self._kept = chunk, rearrange(stills.frames, "n h w c -> n c h w"), _units(stills.landmarks, stills.frames)
        return {"x": self._kept[1][row], "points": self._kept[2][row]}


class StoredFaces(Dataset):
    """The stills that `face_files.py` wrote, with the points of their truth.npz; items as in `DrawnFaces`.

    The test part is the folder's test list. Every tenth face of the training list is for validation; each still shows
    another person, so no person is in two parts.
    """

    replicate = 1

    def __init__(self, folder: str | Path, part: str = "train") -> None:
        self.folder = Path(folder)
        listed = self.folder / f"{'test' if part == 'test' else 'train'}_affectnet7.txt"
        ids = [line.rsplit(" ", 1)[0] for line in listed.read_text(encoding="utf-8").splitlines()]
        if part != "test":
            ids = [name for i, name in enumerate(ids) if (i % 10 == 9) == (part == "validation")]
        if not ids:
            raise ValueError(f"{listed}: no face is left for {part}; draw more stills")
        with np.load(self.folder / "truth.npz") as truth:
            row = {name: i for i, name in enumerate(truth["ids"].tolist())}
            self.ids, self.points = ids, torch.from_numpy(truth["landmarks"][[row[name] for name in ids]])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        i = key[1] if isinstance(key, tuple) else key
        with Image.open(self.folder / "Manually_Annotated_Images" / self.ids[i]) as picture:
            frame = torch.from_numpy(np.array(picture.convert("RGB")))
        return {"x": frame.permute(2, 0, 1), "points": _units(self.points[i], frame[None])}


def _units(points: Tensor, frames: Tensor) -> Tensor:
    """Pixels (x, y), centres at integers, of frames `[n h w c]` → picture units."""
    return points / (points.new_tensor([frames.shape[2], frames.shape[1]]) - 1)


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
    moved = (torch.linalg.solve(maps[:, :, :2], away.mT).mT + 1) / 2
    return torch.where(flipped[:, None, None], moved[:, list(MIRROR)], moved)


def vary(frames: Tensor, points: Tensor, rng: np.random.Generator, v: Variation) -> tuple[Tensor, Tensor]:
    """Square frames `[b 3 h h]` in [0, 1] and points `[b 68 2]` → the same, varied together."""
    if frames.shape[-1] != frames.shape[-2]:
        raise ValueError(f"frames must be square, or a turn would shear them; got {tuple(frames.shape)}")
    maps, flipped = (value.to(frames.device) for value in draw_windows(len(frames), rng, v))
    grid = F.affine_grid(maps, list(frames.shape), align_corners=True)  # the corners are pixel centres, as in _units
    frames = F.grid_sample(frames, grid, padding_mode="border", align_corners=True)
    weight = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)     # luma of Rec. ITU-R BT.601
    chance = frames.new_tensor(rng.random((3, len(frames), 1, 1, 1)))
    grey, amount = (chance[0] < v.grey).float(), (chance[1] < v.blur) * chance[2]
    frames = torch.lerp(frames, (frames * weight).sum(1, keepdim=True).expand_as(frames), grey)
    return torch.lerp(frames, _soft(_soft(frames)), amount), move_points(points, maps, flipped)


def _soft(frames: Tensor) -> Tensor:
    """One 3×3 binomial filter: symmetric, so nothing moves."""
    kernel = frames.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(3, 1, 3, 3) / 16
    return F.conv2d(F.pad(frames, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)


def wing_loss(error: Tensor, reach: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Mean Wing loss of errors in pixels, any shape: w·ln(1 + |e|/ε) up to w, |e| beyond, joined without a step.

    Feng et al., "Wing Loss for Robust Facial Landmark Localisation", CVPR 2018 (arXiv 1711.06753), with its w and ε.
    Small errors keep a large gradient, and a far point does not outweigh all others.
    """
    size, step = error.abs(), reach - reach * np.log1p(reach / curvature)
    return torch.where(size < reach, reach * torch.log1p(size / curvature), size - step).mean()


def point_errors(predicted: Tensor, true: Tensor, norm: str = "interocular") -> Tensor:
    """Distance of every point from its place `[n 68]`, as a share of the size of its face.

    predicted, true   `[n 68 2]` in any unit that both axes share
    norm              "interocular": between the outer corners of the eyes (300-W, Sagonas et al. 2016);
                      "box": √(width · height) of the true points, which a turned head does not shrink as much
    """
    if predicted.shape != true.shape or true.shape[1:] != (POINTS, 2):
        raise ValueError(f"points must both be [n {POINTS} 2], got {list(predicted.shape)} and {list(true.shape)}")
    if norm == "interocular":
        size = (true[:, 36] - true[:, 45]).norm(dim=-1)
    elif norm == "box":
        size = (true.amax(1) - true.amin(1)).prod(-1).sqrt()
    else:
        raise ValueError(f"norm is {norm!r}; choose interocular or box")
    return (predicted - true).norm(dim=-1) / size[:, None]


def normalised_mean_error(predicted: Tensor, true: Tensor, norm: str = "interocular") -> dict[str, float]:
    """Mean of `point_errors` in percent: over all points ("all") and over each of `REGIONS`."""
    errors = 100 * point_errors(predicted, true, norm)
    return {"all": float(errors.mean())} | {name: float(errors[:, part].mean()) for name, part in REGIONS.items()}


@torch.inference_mode()
def locate(net: nn.Module, faces: Dataset, batch: int = STILL_CHUNK) -> tuple[Tensor, Tensor]:
    """Predicted and true points `[n 68 2]` of all faces, in picture units, on the CPU; `net` ends in evaluation mode."""
    found, true, device = [], [], next(net.eval().parameters()).device
    for items in DataLoader(faces, batch_size=batch):
        x = normalise(items["x"].to(device).float() / 255)
        found.append(net(x).unflatten(1, (POINTS, 2)).float().cpu())
        true.append(items["points"])
    return torch.cat(found), torch.cat(true)


def faces_for(config: LandmarkConfig, part: str) -> DrawnFaces | StoredFaces:
    """The faces of one part: drawn, or from the folder of the configuration."""
    if config.folder is not None:
        return StoredFaces(config.folder, part)
    people = {"train": config.people, "validation": 2 * STILL_CHUNK, "test": config.test_people}
    return DrawnFaces(people[part], part, config.data_seed)


def landmark_job(config: LandmarkConfig, weights: Path) -> tuple[Job, Loop]:
    """The job that `training.run_job` runs; after each validation the network is written to `weights`."""
    faces, validation = faces_for(config, "train"), faces_for(config, "validation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = NarrowLandmarkNet(config.width)
    some = _some_points(faces)
    net.start_at(move_points(some, *draw_windows(len(some), np.random.default_rng(config.seed), config.variation)))

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        x, points = vary(batch["x"].float() / 255, batch["points"], rng, config.variation)
        return {"x": normalise(x), "points": points}

    def loss(model: nn.Module, _: str, batch: dict) -> Tensor:
        error = model(batch["x"]).float() - batch["points"].flatten(1)
        return wing_loss(error * (LANDMARK_PIXELS - 1))

    job = Job(model=net, betas=(0.9, 0.999), plan=lambda epoch: _plan(config, faces, epoch),
              groups=[{"params": list(net.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}],
              data=Mixed({"image": faces}), prepare=prepare, loss=loss, label="landmarks",
              validate=lambda model: {"nme": normalised_mean_error(*locate(model, validation))["all"]},
              save_best=lambda model: save_model(weights, model, {"units": "0 to 1, corner to corner"}))
    loop = Loop(epochs=config.epochs, lr=config.lr, warmup_epochs=config.warmup_epochs, seed=config.seed,
                ema=config.ema, workers=config.workers, device=config.device, validate_every=config.validate_every)
    return job, loop


def _plan(config: LandmarkConfig, faces: DrawnFaces | StoredFaces, epoch: int) -> list[Step]:
    # Stored faces in random order; drawn ones by number: they are strangers already, and a chunk is drawn whole.
    if isinstance(faces, StoredFaces):
        return steady_plan({"image": np.zeros(len(faces))}, {"image": config.batch}, {"image": config.steps},
                           config.seed, epoch)
    numbers = (np.arange(config.steps * config.batch) + epoch * config.steps * config.batch) % len(faces)
    return [Step("image", tuple(row)) for row in numbers.reshape(config.steps, -1).tolist()]


def _some_points(faces: DrawnFaces | StoredFaces) -> Tensor:
    return torch.stack([faces[i]["points"] for i in range(min(2 * STILL_CHUNK, len(faces)))])


def train_landmarks(config: LandmarkConfig, root: Path | None = None) -> Run:
    """Train, go on, or load: the folder, its files and its manners are those of `runs.train`. `.record` is the Record.

    The last epoch counts, no epoch is chosen. Test people are looked at once, when training is over.
    """
    data = _data_use(config)
    mark = records.fingerprint([config.model_dump(exclude={"folder", "workers", "device"}),
                                data.model_dump()])
    folder = (root or runs_root()) / f"{config.name}-{mark}"
    if (folder / "record.json").exists():
        return Run(folder, records.read_record(folder / "record.json"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=1))
    job, loop = landmark_job(config, folder / "model.safetensors")
    where = run_job(job, loop, folder, mark)
    records.write_record(folder / "record.json", _record(config, data, Run(folder, None), where))
    for left_over in (folder / "checkpoint.safetensors", *folder.glob(".*.tmp")):
        left_over.unlink(missing_ok=True)
    return Run(folder, records.read_record(folder / "record.json"))


def _data_use(config: LandmarkConfig) -> records.DataUse:
    if config.folder is not None:
        card = json.loads((Path(config.folder).parent / "card.json").read_text())
        return records.DataUse(name=f"{card['name']} (stills)", sha256=card["content_sha256"])
    asked = [RECIPE, config.data_seed, RENDERER_VERSION]  # what decides every drawn byte
    return records.DataUse(name=f"{RECIPE.name} (drawn while training)", sha256=records.fingerprint(asked))


def _record(config: LandmarkConfig, data: records.DataUse, run: Run, where: Progressed) -> records.Record:
    net, train_set, test = run.model(), faces_for(config, "train"), faces_for(config, "test")
    predicted, true = locate(net, test)
    mean_face = _some_points(train_set).mean(0).expand_as(true)
    outcome = {"test": _scores(predicted, true), "mean_face": normalised_mean_error(mean_face, true),
               "history": where.history, "updates": where.update, "file_bytes": run.weights.stat().st_size,
               "parameters": sum(p.numel() for p in net.parameters())}
    if config.folder is None:  # what the rest of the book reads, at 64 px
        faces = DrawnFaces(config.test_people, "test", config.data_seed, RECIPES["default"])
        outcome["book"] = _scores(*locate(net, faces))
    nme = {name: round(value, 2) for name, value in outcome["test"]["nme"].items()}
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    return records.Record(
        name=config.name, kind="study", tier=config.tier, seeds=[config.seed], results=outcome, code=records.code_state(),
        headline=(f"NME {nme.pop('all')} % of the distance between the outer eye corners on {len(true)} unseen drawn "
                  f"people {nme}; the mean face: {outcome['mean_face']['all']:.1f} %"),
        config=config.model_dump(mode="json", exclude={"folder"}), device=records.device_state(device),
        protocol={"norm": "interocular", "epoch_rule": "last", "test": "people of their own, unvaried, one look"},
        data=[data.model_copy(update={"counts": {"train": len(train_set), "test": len(test)}})],
        wall_seconds=where.seconds, peak_memory_mb=records.peak_memory_mb(device))


def _scores(predicted: Tensor, true: Tensor, draws: int = 1000) -> dict:
    """NME by region, a 95 % bootstrap interval over faces, and the share of faces above 8 %."""
    by_face = 100 * point_errors(predicted, true).mean(1).double().numpy()
    rows = np.random.default_rng(0).integers(0, len(by_face), (draws, len(by_face)))
    low, high = np.percentile(by_face[rows].mean(1), [2.5, 97.5])
    return {"nme": normalised_mean_error(predicted, true), "low": float(low), "high": float(high),
            "above_8_percent": float((by_face > 8).mean()), "faces": len(by_face)}


def shipped_landmarks(tier: str = "laptop", seeds: Sequence[int] = (0,), jobs: int = 1) -> records.Record:
    """Train the landmark network that the library ships and put it in its place; one seed, one process."""
    small = {"width": 0.125, "people": 96, "test_people": 48, "epochs": 2, "steps": 4, "batch": 24}
    settings = {"name": "shipped_landmarks", "tier": tier, "seed": seeds[0]} | (small if tier == "smoke" else {})
    run = train_landmarks(LandmarkConfig(**settings))
    shutil.copyfile(run.weights, SHIPPED_LANDMARKS)
    return run.record
