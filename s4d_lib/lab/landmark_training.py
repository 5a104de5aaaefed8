"""faces → landmarks     the small landmark network, trained on faces whose 68 points are exact because they were drawn.

    run = train_landmarks(LandmarkConfig())                     # trains, goes on, or loads
    run.record.results["test"]["nme"]                           # percent, over all points and by region
    untrained_landmarks(file)                                   # the control: the same network, nothing learned

The training of S2D's landmark network is not part of its code. Layout and 128×14×14 features are those of
`models.LandmarkNet`; data, variation, loss and schedule are our own, fixed before the run (`PROTOCOL`). Drawn
faces are not photographs: nothing here says how the network does on those. Derived in chapter 11.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from s4d_lib import records
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.clips import normalise
from s4d_lib.datasets.samples import Sample
from s4d_lib.files import runs_root, sha256_of
from s4d_lib.lab.landmark_scores import floor_points, locate, normalised_mean_error, report
from s4d_lib.models.landmark_net import LANDMARK_PIXELS, LandmarkNet, load_landmarks
from s4d_lib.synthetic_faces.drawing import STILL_CHUNK
from s4d_lib.synthetic_faces.landmark_faces import (
    COARSE,
    PICTURES,
    RECIPE,
    DrawnFaces,
    Faces,
    StoredFaces,
    Variation,
    draw_windows,
    move_points,
    vary,
)
from s4d_lib.synthetic_faces.recipes import RECIPES
from s4d_lib.synthetic_faces.renderer import RENDERER_VERSION
from s4d_lib.training.content import folder_use
from s4d_lib.training.fingerprints import of_data
from s4d_lib.training.loop import Job, Loop, run_job
from s4d_lib.training.plans import Mixed, steady_plan
from s4d_lib.training.runs import Run, finished, leave
from s4d_lib.training.state import Progressed
from s4d_lib.weights.files import SHIPPED, save_model

# Written before the run whose record ships; every number of it is in `LandmarkConfig`.
PROTOCOL = {
    "people": "training, validation and test faces show different people",
    "epoch_rule": "last; no setting is chosen on test faces, which are looked at once",
    "error": "normalised mean error: mean distance of 68 points over the distance of the outer eye corners, percent",
    "weights": "float16, as shipped: the error is that of the shipped file",
    "floors": "mean face; ridge on 28×28 grey pixels, penalty chosen on validation faces; fitted for each condition",
    "conditions": {"test": "the recipe it was trained on, 112 px, not varied", "book": "the book's stills, 64 px",
                   "laboratory": "tight faces of the transfer laboratory, 48 px, read through local_contrast.py"},
}
BETAS = (0.9, 0.999)
SPREAD_FACES = 2 * STILL_CHUNK  # from which the output begins


class LandmarkConfig(BaseModel):
    """Every number that changes the network that comes out; the defaults suit one CPU core for half an hour."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field("landmark_net", pattern=r"^[\w.-]+$")
    tier: Literal["smoke", "laptop", "full"] | None = None
    width: float = Field(0.25, gt=0, le=1, description="channels over those of the released layout; the tap keeps 128")
    folder: str | None = Field(None, description="a `stills` folder of synthetic_faces/folders.py; None: draw faces")
    people: int = Field(9600, ge=1, description="different faces drawn for training")
    validation_people: int = Field(480, ge=1)
    test_people: int = Field(960, ge=1)
    floor_people: int = Field(4800, ge=1, description="most training faces that the floors are fitted to")
    variation: Variation = Variation()
    epochs: int = Field(18, ge=1)
    steps: int = Field(120, ge=1, description="updates in an epoch")
    batch: int = Field(48, ge=2, description="faces in a step")
    lr: float = Field(3e-3, gt=0)
    warmup_epochs: float = Field(0.5, ge=0)
    ema: float | None = Field(0.998, gt=0, lt=1)
    validate_every: int = Field(2, ge=1)
    seed: int = 0
    data_seed: int = Field(0, ge=0)
    workers: int = Field(0, ge=0)
    device: Literal["auto", "cpu"] = "auto"


def wing_loss(error: Tensor, reach: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Mean Wing loss of errors in pixels, any shape: w·ln(1 + |e|/ε) up to w, |e| beyond, joined without a step.

    Feng et al., "Wing Loss for Robust Facial Landmark Localisation", CVPR 2018 (arXiv 1711.06753), with its w and ε.
    Small errors keep a large gradient, and a far point does not outweigh all others.
    """
    size, step = error.abs(), reach - reach * np.log1p(reach / curvature)
    return torch.where(size < reach, reach * torch.log1p(size / curvature), size - step).mean()


def hold_output(net: LandmarkNet) -> LandmarkNet:
    """Both norms of the last part become fixed scales and offsets, in training too. Returns `net`.

    Both see one value per channel and face. With batch statistics either would fix the mean over a batch of every
    predicted coordinate, whatever the faces: an error that nothing could learn away.
    """
    net.output_layer.eval()
    return net


@torch.no_grad()
def start_at(net: LandmarkNet, points: Tensor) -> LandmarkNet:
    """The output begins at the mean of points `[n 68 2]`, spread as they are spread, and not at zero. Returns `net`."""
    last = net.output_layer.bn
    last.bias.copy_(points.flatten(1).mean(0))
    last.weight.copy_(points.flatten(1).std(0))
    return net


def faces_for(config: LandmarkConfig, part: str) -> Faces:
    """The faces of one part: drawn, or from the folder of the configuration."""
    if config.folder is not None:
        return StoredFaces(config.folder, part)
    people = {"train": config.people, "validation": config.validation_people, "test": config.test_people}
    return DrawnFaces(people[part], part, config.data_seed)


def landmark_job(config: LandmarkConfig, weights: Path) -> tuple[Job, Loop]:
    """The job that `training.run_job` runs; after each validation the network is written to `weights`."""
    faces, validation = faces_for(config, "train"), faces_for(config, "validation")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = LandmarkNet(config.width)
    some = torch.stack([faces[i]["points"] for i in range(min(SPREAD_FACES, len(faces)))])
    windows = draw_windows(len(some), np.random.default_rng(config.seed), config.variation)
    start_at(net, move_points(some, *windows)).to(memory_format=torch.channels_last)  # a third faster on a CPU

    def prepare(batch: dict, rng: np.random.Generator) -> dict:
        x, points = vary(batch["x"].float() / 255, batch["points"], rng, config.variation)
        return {"x": normalise(x).contiguous(memory_format=torch.channels_last), "points": points}

    def loss(model: nn.Module, _: str, batch: dict) -> Tensor:
        hold_output(model)
        error = model(batch["x"]).float() - batch["points"].flatten(1)
        return wing_loss(error * (LANDMARK_PIXELS - 1))

    def plan(epoch: int) -> list:
        return steady_plan({"image": np.zeros(len(faces))}, {"image": config.batch}, {"image": config.steps},
                           config.seed, epoch)

    # No weight decay: the faces are as many as one cares to draw.
    groups = [{"params": list(net.parameters()), "weight_decay": 0.0, "lr_scale": 1.0}]
    job = Job(model=net, betas=BETAS, plan=plan, groups=groups, data=Mixed({"image": faces}), prepare=prepare,
              loss=loss, label="landmarks",
              validate=lambda model: {"nme": normalised_mean_error(*locate(model, validation)[:2])["all"]},
              save_best=lambda model: save_model(weights, model, {"units": "x, y of each point, 0 to 1"}))
    loop = Loop(epochs=config.epochs, lr=config.lr, warmup_epochs=config.warmup_epochs, seed=config.seed,
                ema=config.ema, workers=config.workers, device=config.device, validate_every=config.validate_every)
    return job, loop


def train_landmarks(config: LandmarkConfig, root: Path | None = None) -> Run:
    """Train, go on, or load: folder, files and manners are those of `training.train`. `.record` is the Record.

    The last epoch counts. Test people are looked at once, when training is over, with the weights in half precision
    that `half.safetensors` holds.
    """
    data = _data_use(config, root)
    mark = records.fingerprint([config.model_dump(exclude={"folder", "workers", "device"}), of_data(data)])
    folder = (root or runs_root()) / f"{config.name}-{mark}"
    if run := finished(folder, mark):
        return run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=1))
    job, loop = landmark_job(config, folder / "model.safetensors")
    where = run_job(job, loop, folder, mark)
    save_half(folder / "model.safetensors", folder / "half.safetensors")
    leave(folder, _record(config, data, folder, where), mark)
    return finished(folder, mark)


def save_half(weights: Path, target: Path) -> Path:
    """The network of a file once more, in half precision and so half as large; `load_model` gives float32 back."""
    net = copy.deepcopy(load_model(weights)).half()
    return save_model(target, net, {"units": "x, y of each point, 0 to 1", "data": "drawn faces"})


def conditions(config: LandmarkConfig, part: str) -> dict[str, Faces]:
    """Faces of one part under every condition of `PROTOCOL`; of a stored folder only its own."""
    if config.folder is not None:
        return {"test": faces_for(config, part)}
    from s4d_lib.lab.cells import Cell, faces

    count = {"train": min(config.floor_people, config.people), "validation": config.validation_people,
             "test": config.test_people}[part]
    tight = replace(faces(Cell(shift="none")), name="laboratory")
    return {"test": DrawnFaces(count, part, config.data_seed),
            "book": DrawnFaces(count, part, config.data_seed, RECIPES["default"]),
            "laboratory": DrawnFaces(count, part, config.data_seed, tight, contrast=True)}


def _record(config: LandmarkConfig, data: records.DataUse, folder: Path, where: Progressed) -> records.Record:
    shipped = folder / "half.safetensors"
    net = load_model(shipped)
    train, validation, test = (conditions(config, part) for part in ("train", "validation", "test"))
    outcome: dict = {"history": where.history, "updates": where.update, "faces_seen": where.update * config.batch,
                     "parameters": sum(p.numel() for p in net.parameters()), "file_bytes": shipped.stat().st_size,
                     "file_sha256": hashlib.sha256(shipped.read_bytes()).hexdigest()}
    for name, faces in test.items():
        outcome[name] = report(locate(net, faces)) | {"floors": {
            floor: report(located) for floor, located in floor_points(train[name], validation[name], faces).items()}}
    outcome["validation"] = {precision: normalised_mean_error(*locate(network, validation["test"])[:2])["all"]
                             for precision, network in (("float16", net), ("float32", load_model(
                                 folder / "model.safetensors")))}
    nme = {name: round(value, 2) for name, value in outcome["test"]["nme"].items()}
    floors = ", ".join(f"{name.replace('_', ' ')} {floor['nme']['all']:.1f}"
                       for name, floor in outcome["test"]["floors"].items())
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    return records.Record(
        name=config.name, kind="study", results=outcome, tier=config.tier, seeds=[config.seed], protocol=PROTOCOL,
        headline=(f"NME {nme.pop('all')} % on {len(test['test'])} unseen drawn people ("
                  + ", ".join(f"{name} {value}" for name, value in nme.items()) + f"); {floors}"),
        config=config.model_dump(mode="json", exclude={"folder"}), device=records.device_state(device),
        code=records.code_state(), wall_seconds=where.seconds, peak_memory_mb=records.peak_memory_mb(device),
        data=[data.model_copy(update={"counts": {part: len(faces_for(config, part))
                                                 for part in ("train", "validation", "test")}})])


def _data_use(config: LandmarkConfig, root: Path | None) -> records.DataUse:
    if config.folder is not None:
        parts = [StoredFaces(config.folder, part) for part in ("train", "validation", "test")]
        folder, ids = Path(config.folder), [faces.ids for faces in parts]
        samples = [Sample(name, folder / PICTURES / name, 0, "image") for part in ids for name in part]
        return folder_use(folder, samples, records.fingerprint([ids, sha256_of(folder / "truth.npz")]), runs=root)
    asked = [RECIPE, config.data_seed, RENDERER_VERSION]  # what decides every drawn byte
    return records.DataUse(name=f"{RECIPE.name} (drawn while training)", sha256=records.fingerprint(asked))


SMOKE = {"width": 0.125, "people": 96, "validation_people": 48, "test_people": 48, "floor_people": 96, "epochs": 2,
         "steps": 4, "batch": 24}
FULL = {"width": 1.0, "people": 48_000, "epochs": 60, "steps": 500}


def landmark_net(tier: str = "laptop", seeds: Sequence[int] = (0,), jobs: int = 1) -> records.Record:
    """Train the landmark network that the library ships, and at laptop tier put it in its place; one seed."""
    changes = {"smoke": SMOKE, "laptop": {}, "full": FULL}[tier]
    run = train_landmarks(LandmarkConfig(tier=tier, seed=seeds[0], **changes))
    if tier == "laptop":
        SHIPPED["landmarks"].parent.mkdir(exist_ok=True)
        shutil.copyfile(run.folder / "half.safetensors", SHIPPED["landmarks"])
    return run.record


# --- the control of S2D's prompts ------------------------------------------------------------------------------------

# The shipped layout and loudness, and nothing learned. Weights are as drawn; only the batch norms have seen faces, so
# that features are as loud as a trained network's. Without that an untrained network is three orders of magnitude
# quieter, and a classifier that ignores it would say nothing about landmarks. What is left is a fixed bank of random
# filters on a finer grid than the tokens'.
SETTLING_BATCHES, SETTLING_BATCH = 4, 64
CONTROL_SEED = 0  # of the weights; one control network, as there is one shipped network


def untrained_landmarks(file: Path) -> Path:
    """The file of the control network, written when it is not there; `load_landmarks(file)` reads it.

    Its faces are those of the laboratory's kind, 48 px and through `frames/local_contrast.py`, of people in no other
    set.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(file, settled(unsettled()), {"units": "none: untrained", "data": "drawn faces, batch norms only"})
    return file


def unsettled() -> LandmarkNet:
    """The shipped layout with the weights of `CONTROL_SEED` and batch norms that have seen nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(CONTROL_SEED)
        return LandmarkNet(load_landmarks().width)


@torch.no_grad()
def settled(net: LandmarkNet) -> LandmarkNet:
    """`net` with batch norms that hold the plain mean over `SETTLING_BATCHES` batches of faces, in evaluation mode."""
    norms = [part for part in net.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a plain mean over everything seen
    count, recipe = SETTLING_BATCHES * SETTLING_BATCH, replace(RECIPE, size=COARSE)
    faces = DrawnFaces(count, "validation", seed=9, recipe=recipe, contrast=True)
    net.train()
    for start in range(0, len(faces), SETTLING_BATCH):
        x = torch.stack([faces[i]["x"] for i in range(start, start + SETTLING_BATCH)])
        net(normalise(x / 255, axis=1))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return net.eval()
