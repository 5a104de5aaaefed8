"""stages → record     S2D in the laboratory: what prompts, start, freezing and SDL are worth, and S4D beside it.

    s4d study s2d_stages        s4d study s2d_sdl        s4d study s2d_landmarks

The plan is chapters/results/protocol_s2d.yaml. Every arm of S2D is two runs, an image model on stills and a video model
on clips; S4D sees the same samples in one. Training is resumable, and both records hold what every run said about every
test clip, so `lab.pair` and `family` read them. Derived in chapter 11.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from s4d_lib.clips import EVAL, augment
from s4d_lib.files import RESULTS
from s4d_lib.frames.local_contrast import local_contrast
from s4d_lib.frames.reader import open_frames
from s4d_lib.lab.cells import Cell, run_config
from s4d_lib.lab.grid import run_grid
from s4d_lib.lab.landmark_training import untrained_landmarks
from s4d_lib.lab.records import lab_record
from s4d_lib.models import landmark_memory
from s4d_lib.models.landmark_net import load_landmarks
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.records import Record, fingerprint
from s4d_lib.training.configs import FinetuneConfig, geometry
from s4d_lib.training.content import data_use
from s4d_lib.training.data import read_samples, training_split, views
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.runs import Run
from s4d_lib.training.s2d import describe_s2d
from s4d_lib.weights.files import SHIPPED, save_model

PROTOCOL = RESULTS / "protocol_s2d.yaml"
CELLS = {"smoke": Cell(clips=150)}  # other tiers: the centre of the laboratory, 400 labelled clips
SEEDS = tuple(range(260, 265))
TUNING_SEEDS = (160,)
RATES = (1.5e-3, 3e-3, 6e-3)  # tried for both systems; the image models keep the laboratory's rate
# Frames come in two forms only, so that landmark features can be looked up; the same for every arm.
READ = {"augment_stills": "FLIPS", "augment_clips": "FLIPS", "validate_every": 2}
S2D: dict[str, Any] = {"system": "s2d", "pool": "mean"} | READ

IMAGE: dict[str, dict[str, Any]] = {  # stage 1: arm → what it changes
    "image": {}, "image_plain": {"prompts": False}, "image_untrained": {"landmarks": "untrained"}}
# stage 2: arm → (the image model that it starts from, what it changes); released: no layer decay
VIDEO: dict[str, tuple[str, dict[str, Any]]] = {
    "s2d": ("image", {}),
    "s2d_no_prompts": ("image_plain", {"prompts": False}),
    "s2d_untrained": ("image_untrained", {"landmarks": "untrained"}),  # prompts from random filters
    "s2d_no_stills": ("encoder", {}),                       # from the pretrained encoder, without stage 1
    "s2d_released_start": ("image", {"tma_init": "released"}),
    "s2d_loud_start": ("loud", {"tma_init": "released"}),  # the same, as loud as it is at the paper's width
    "s2d_unfrozen": ("image", {"freeze": False, "layer_decay": 0.75}),
    "s2d_sdl": ("image", {"sdl": True}),
    "s2d_reference": ("image", {"behaviour": "reference"}),  # a fresh head, as released; no SDL, as for DFEW and MAFW
    "s2d_sdl_shipped": ("image", {"behaviour": "reference", "sdl": True}),  # as for FERV39K: a queue of noise
}
S4D = {"s4d": "moae_clean", "clips": "dfer"}  # methods of the laboratory; "s4d_long": as long as S2D takes in compute
STAGES = ("s2d", "s2d_no_prompts", "s2d_no_stills", "s2d_released_start", "s2d_loud_start", "s2d_unfrozen")
PROMPTED = ("image", "image_untrained", "s2d", "s2d_untrained")
DISTILLED = ("s2d", "s2d_sdl", "s2d_reference", "s2d_sdl_shipped")


# --- configurations ------------------------------------------------------------------------------------------------


def cell(tier: str) -> Cell:
    return CELLS.get(tier, Cell())


def image_config(arm: str, seed: int, tier: str = "laptop", **changes: Any) -> FinetuneConfig:
    """Stage 1: the image transformer on stills, from the laboratory's encoder."""
    config = run_config(cell(tier), "sfer", seed, tier, "confirm", **S2D | _filed(IMAGE[arm]) | changes)
    return config.model_copy(update={"name": f"s2d_{arm}"})


def video_config(arm: str, seed: int, init: Path, tier: str = "laptop", **changes: Any) -> FinetuneConfig:
    """Stage 2: prompts and adapters on clips, from an image model's weights."""
    wanted = {"layer_decay": 1.0} | S2D | _filed(VIDEO[arm][1]) | {"init": str(init)} | changes
    config = run_config(cell(tier), "dfer", seed, tier, "confirm", **wanted)
    return config.model_copy(update={"name": arm if arm.startswith("s2d") else f"s2d_{arm}"})


def _filed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's changes with the untrained landmark network as the file it is kept in."""
    untrained = changes.get("landmarks") == "untrained"
    return {**changes, "landmarks": str(untrained_landmarks(_features() / "untrained.safetensors"))} if untrained \
        else dict(changes)


def s4d_config(arm: str, seed: int, tier: str = "laptop", **changes: Any) -> FinetuneConfig:
    """S4D on the same samples, read in the same way; "s4d_long" trains as many epochs as `same_compute` says."""
    if arm == "s4d_long":
        epochs = same_compute(tier)
        changes = {"epochs": epochs, "warmup_epochs": epochs / 10} | changes
    config = run_config(cell(tier), S4D.get(arm, "moae_clean"), seed, tier, "confirm", **READ | changes)
    return config.model_copy(update={"name": f"beside_{arm}"})


# The released temporal adapters start with weights of spread 0.02 at width 768. What a linear map puts out grows with
# the root of its width, so at width 64 the same spread moves an answer by a ten-thousandth and says little.
RELEASED_WIDTH = 768


def loud_start(image: Run, seed: int, tier: str = "laptop") -> Path:
    """An image model's weights with temporal adapters as loud as released ones are at the paper's width: a file."""
    config = video_config("s2d_loud_start", seed, image.weights, tier)
    model = build_classifier(config)
    factor = (RELEASED_WIDTH / model.num_features) ** 0.5
    with torch.no_grad():
        for block in model.prompt_blocks:
            for layer in (part for part in block.TMA.modules() if isinstance(part, nn.Linear)):
                layer.weight.mul_(factor)
    return save_model(image.folder / "loud_start.safetensors", model, describe_s2d(config))


# --- what arms cost ------------------------------------------------------------------------------------------------


def step_work(config: FinetuneConfig, modality: str) -> dict[str, float]:
    """Multiply-accumulates, in millions, of one training step forward and back: {"model", "landmarks"}."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = build_classifier(config.model_copy(update={"init": None})).train()
    side, frames = geometry(config)
    count = config.batch_stills if modality == "image" else config.batch_clips
    x = torch.randn(count, 3, *(() if modality == "image" else (frames,)), side, side)
    more, landmarks = (), 0.0
    if isinstance(model, S2DClassifier) and model.prompts:
        folded = torch.randn(count * model.frames, 3, side, side)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            features = landmark_memory.ask(model.landmark_net, folded, model.grid)
        more, landmarks = (features,), counter.get_total_flops() / 2e6
    # Fused attention on a CPU is not counted; as matrix products it is.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, *more).square().mean().backward()
    return {"model": counter.get_total_flops() / 2e6, "landmarks": landmarks}


def run_work(config: FinetuneConfig) -> dict[str, float]:
    """Multiply-accumulates, in thousand millions, of a whole training run."""
    steps = config.epochs * config.clip_steps
    work = [step_work(config, modality) for modality in config.modalities]
    return {part: steps * sum(one[part] for one in work) / 1e3 for part in ("model", "landmarks")}


def same_compute(tier: str = "laptop") -> int:
    """Epochs of S4D that cost what both stages of S2D cost, the landmark network left out.

    At the paper's size that network is a hundredth of the work; beside a network this small it is most of it, and S4D
    would be given many times the training for nothing that either system does.
    """
    spent = sum(run_work(config)["model"] for config in (image_config("image", 0, tier),
                                                         video_config("s2d", 0, SHIPPED["nano_encoder"], tier)))
    one = s4d_config("s4d", 0, tier)
    return max(1, round(one.epochs * spent / run_work(one)["model"]))


def sizes(config: FinetuneConfig) -> dict[str, int]:
    """Parameters of a run's model: {"trained", "kept", "landmarks"}; what is kept is frozen."""
    model = build_classifier(config.model_copy(update={"init": None}))
    counts = {"trained": 0, "kept": 0, "landmarks": 0}
    for name, parameter in model.named_parameters():
        part = "landmarks" if name.startswith("landmark_net.") else "trained" if parameter.requires_grad else "kept"
        counts[part] += parameter.numel()
    return counts


# --- landmark features, once for all runs --------------------------------------------------------------------------


def frames_of(config: FinetuneConfig) -> Iterator[Tensor]:
    """Every frame that a run will meet, as its model sees it: `[n 3 h w]`, training frames in both mirrorings."""
    modality, (side, _) = config.primary, geometry(config)
    listed = read_samples(config, modality, "train")
    train, validation = training_split(config, modality, listed)
    for sample in train:
        with open_frames(sample.path) as reader:
            read = reader.read(range(len(reader)))
        read = local_contrast(read) if config.local_contrast else torch.as_tensor(read)
        frames = augment(read, EVAL, side, np.random.default_rng(0)).transpose(0, 1)  # EVAL draws nothing
        yield torch.cat([frames, frames.flip(-1)])
    for samples, sampling in ((validation, "centre"), (read_samples(config, modality, "test"),
                                                       "centre" if modality == "image" else "test")):
        seen = views(config, samples, sampling, 0)
        for index in range(len(samples)):
            x = seen[index]["x"]  # [3 h w], [3 t h w] or [views 3 t h w]
            yield x[None] if x.ndim == 3 else rearrange(x, "... c t h w -> (... t) c h w")


def remember_faces(configs: Iterable[FinetuneConfig]) -> Path:
    """Landmark features of every frame of these runs, asked for once and kept beside the drawn faces.

    A list that is done leaves a mark, so that the next call need not decode it again to learn that all is known.
    """
    folder = _features()
    for config in configs:
        net, grid = load_landmarks(config.landmarks), build_classifier(config.model_copy(update={"init": None})).grid
        read = (data_use(config, config.primary).sha256, config.size, config.stride, config.local_contrast,
                config.validation, config.split_seed, config.train_clips, config.train_stills)
        done = folder / f"done-{fingerprint([landmark_memory.fingerprint(net), grid, read])}"
        if not done.exists():
            landmark_memory.remember(net, frames_of(config), grid, folder)
            done.touch()
    return folder


def _features() -> Path:
    from s4d_lib.files import data_root

    return data_root() / "landmark-features"


# --- studies -------------------------------------------------------------------------------------------------------

Runs = dict[tuple[Cell, str, int], Run]


def train_arms(arms: Sequence[str], seeds: Sequence[int], tier: str, jobs: int, rates: Mapping[str, float]) -> Runs:
    """Image models first, then video models from them and S4D beside them; `rates` of "s2d" and "s4d"."""
    parents = {"loud": "image", **{arm: arm for arm in IMAGE}}
    needed = dict.fromkeys(parents[one] for one in (*arms, *(VIDEO[arm][0] for arm in arms if arm in VIDEO))
                           if one in parents)
    stills = [(arm, seed) for seed in seeds for arm in needed]
    first = {one: image_config(*one, tier) for one in stills}
    later = {(arm, seed): video_config(arm, seed, SHIPPED["nano_encoder"], tier)
             for seed in seeds for arm in arms if arm in VIDEO}
    memory = remember_faces([c for (arm, _), c in (first | later).items()  # every landmark network once a seed
                             if arm in ("image", "image_untrained", "s2d", "s2d_untrained")])
    images = _grid(_with_memory(first, memory), jobs)
    wanted = {}
    for arm, seed in ((arm, seed) for seed in seeds for arm in arms if arm not in IMAGE):
        if arm in VIDEO:
            wanted[arm, seed] = video_config(arm, seed, _init(VIDEO[arm][0], images, seed, tier), tier,
                                             lr=rates["s2d"])
        else:
            wanted[arm, seed] = s4d_config(arm, seed, tier, lr=rates["s4d"])
    runs = images | _grid(_with_memory(wanted, memory), jobs)
    return {(cell(tier), arm, seed): run for (arm, seed), run in runs.items()}


def _with_memory(configs: Mapping[tuple[str, int], FinetuneConfig], folder: Path
                 ) -> dict[tuple[str, int], FinetuneConfig]:
    """The configurations, those that ask for landmarks with the folder of what is remembered."""
    return {one: config.model_copy(update={"landmark_memory": str(folder)}) if config.system == "s2d" and config.prompts
            else config for one, config in configs.items()}


def _init(parent: str, images: Mapping[tuple[str, int], Run], seed: int, tier: str) -> Path:
    if parent == "encoder":
        return SHIPPED["nano_encoder"]
    return loud_start(images["image", seed], seed, tier) if parent == "loud" else images[parent, seed].weights


def _grid(configs: Mapping[tuple[str, int], FinetuneConfig], jobs: int) -> dict[tuple[str, int], Run]:
    grid = run_grid({f"{number}": config for number, config in enumerate(configs.values())}, None, jobs)
    return {one: grid[f"{number}"][0] for number, one in enumerate(configs)}


def tune(tier: str, jobs: int) -> tuple[dict[str, float], dict[str, dict]]:
    """The learning rate of S2D's video stage and of S4D, from the same three, by validation WAR on another seed."""
    scores: dict[str, dict[float, float]] = {"s2d": {}, "s4d": {}}
    for rate in RATES:
        runs = train_arms(("s2d", "s4d"), TUNING_SEEDS, tier, jobs, dict.fromkeys(scores, rate))
        for system in scores:
            curves = [max(line["clip_war"] for line in run.record.results["history"])
                      for (_, arm, _), run in runs.items() if arm == system]
            scores[system][rate] = float(np.mean(curves))
    chosen = {system: max(tried, key=tried.__getitem__) for system, tried in scores.items()}
    return chosen, {system: {f"{rate:g}": score for rate, score in tried.items()} for system, tried in scores.items()}


def s2d_stages(tier: str = "laptop", seeds: Sequence[int] = SEEDS, jobs: int = 2) -> Record:
    """S2D's two stages with one thing changed at a time, and S4D on the same samples and at the same compute."""
    rates, tried = tune(tier, jobs)
    arms = ("image", "image_plain", *STAGES, "clips", "s4d", "s4d_long")
    return _record("s2d_stages", f"{len(arms)} arms, {len(seeds)} seeds", arms, seeds, tier, jobs, rates, tried)


def s2d_sdl(tier: str = "laptop", seeds: Sequence[int] = SEEDS, jobs: int = 2) -> Record:
    """Self-distillation off, as intended and as shipped; the two plain arms are those of `s2d_stages`."""
    rates, tried = tune(tier, jobs)
    headline = f"SDL off, intended and as shipped; {len(seeds)} seeds"
    return _record("s2d_sdl", headline, ("image", *DISTILLED), seeds, tier, jobs, rates, tried)


def s2d_landmarks(tier: str = "laptop", seeds: Sequence[int] = SEEDS, jobs: int = 2) -> Record:
    """Are the prompts' gains those of landmarks? The same prompts from an untrained network of the same layout."""
    rates, tried = tune(tier, jobs)
    headline = f"prompts from a trained and from an untrained landmark network; {len(seeds)} seeds"
    return _record("s2d_landmarks", headline, PROMPTED, seeds, tier, jobs, rates, tried)


def _record(name: str, headline: str, arms: Sequence[str], seeds: Sequence[int], tier: str, jobs: int,
            rates: Mapping[str, float], tried: Mapping[str, dict]) -> Record:
    runs = train_arms(arms, seeds, tier, jobs, rates)
    first = {arm: run for (_, arm, seed), run in runs.items() if seed == seeds[0]}
    shapes = {arm: {"parameters": sizes(config), "work": run_work(config), "steps": run.record.results["updates"]}
              for arm, run in first.items() for config in [_config(run)]}
    queues = {arm: [_queue(run) for (_, one, _), run in runs.items() if one == arm] for arm in first if "sdl" in arm}
    return lab_record(name, headline, runs, plan(name), tier, "confirm", arms=shapes, queues=queues, rates=dict(rates),
                      tuning={"seeds": list(TUNING_SEEDS), "validation_war": dict(tried)})


def _config(run: Run) -> FinetuneConfig:
    return FinetuneConfig.model_validate_json((run.folder / "config.json").read_text())


def _queue(run: Run) -> list[dict[str, float]]:
    """What the validation lines of a run say of its queues, epoch by epoch."""
    return [{key: value for key, value in line.items() if key.startswith("sdl_") or key == "epoch"}
            for line in run.record.results["history"]]


def plan(study: str) -> dict[str, Any]:
    """The part of the committed protocol that a study follows, with its version."""
    import yaml

    text = yaml.safe_load(PROTOCOL.read_text())
    return {"version": text["version"], "file": f"chapters/results/{PROTOCOL.name}", study: text[study],
            "statistics": text["statistics"]}


S2D_STUDIES = {study.__name__: study for study in (s2d_stages, s2d_sdl, s2d_landmarks)}
