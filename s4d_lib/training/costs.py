"""config → hours, memory     what a training costs on a GPU: measured where it was, counted where it was not.

A step's operations are counted (`step_counts.py`) and divided by a published peak and an assumed utilisation; reading a
sample is measured on a CPU thread; a step takes the longer of the two, since workers read while the GPU computes.
Where `ci/benchmarks/step_costs.py` has measured a GPU, its seconds take the place of the division. Every estimate says
which it is. Explained in appendix c; `s4d cost` prints it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

from s4d_lib.errors import Refused
from s4d_lib.files import RESULTS
from s4d_lib.records import read_record
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig
from s4d_lib.training.jobs import finetune_plan, pass_plan
from s4d_lib.training.step_counts import Counted, count_step

STEP_COSTS = RESULTS / "step_costs.json"
UTILISATION = 0.3  # assumed share of the peak that a training reaches; transformers of this size: 0.2 to 0.4
BYTES_PER_PARAMETER = 16  # trained: float32 weight, gradient and AdamW's two moments; a frozen one takes 4
OVERHEAD_MB = 1500  # context of the GPU, its libraries and the allocator's losses; assumed


@dataclass(frozen=True)
class Gpu:
    """A type of GPU: peak of dense bf16 products as its maker publishes it, and its memory."""

    name: str
    tflops: float
    memory_gb: float
    source: str
    measured_as: str = ""  # its name in the record of measured steps


GPUS: dict[str, Gpu] = {
    "rtx4090": Gpu("RTX 4090", 165.2, 24, "NVIDIA Ada architecture whitepaper, bf16 with fp32 accumulation",
                   "NVIDIA GeForce RTX 4090"),
    "a100": Gpu("A100 80 GB", 312, 80, "NVIDIA A100 data sheet, bf16 without sparsity", "NVIDIA A100-SXM4-80GB"),
    "h100": Gpu("H100 SXM", 989, 80, "NVIDIA H100 data sheet, half of the bf16 figure with sparsity",
                "NVIDIA H100 80GB HBM3"),
    "h200": Gpu("H200", 989, 141, "NVIDIA H200 data sheet, half of the bf16 figure with sparsity", "NVIDIA H200"),
}

# The kinds of step that are recorded, each with a configuration that makes it.
KINDS: tuple[tuple[str, Config, str], ...] = tuple(
    (f"{name} {modality}", config, modality)
    for name, config in (("pretrain", PretrainConfig(name="pretrain")),
                         ("plain", FinetuneConfig(name="joint", mode="joint")),
                         ("moae", FinetuneConfig(name="moae", mode="moae")))
    for modality in ("image", "clip")
) + (("s2d image", FinetuneConfig(name="s2d", mode="sfer", system="s2d"), "image"),
     ("s2d clip", FinetuneConfig(name="s2d", mode="dfer", system="s2d"), "clip"))


@dataclass(frozen=True)
class Cost:
    """What one training takes on one GPU. `basis` says where the hours come from."""

    updates: int
    petaflop: float      # of training and evaluation together
    hours: float
    memory_gb: float     # of one step, at `accumulate` micro-batches
    accumulate: int      # the fewest with which it fits; 0: it does not fit with one sample at a time
    bound: str           # "reading" where most of the time goes to steps that wait for their samples, or "computing"
    basis: str           # "measured" or "counted"


def kind_of(config: Config, modality: str) -> str:
    """Which kind of step a configuration takes: pretrain, plain, moae or s2d, and of which modality."""
    if isinstance(config, PretrainConfig):
        return f"pretrain {modality}"
    if config.system == "s2d":
        return f"s2d {modality}"
    return f"{'moae' if config.expert_blocks else 'plain'} {modality}"


def steps_of(config: Config, samples: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Modality → (steps of the whole training, samples that pass through the network in one).

    samples   modality → length of its training list; what fine-tuning sets aside for validation is taken off here
    """
    tuning = isinstance(config, FinetuneConfig)
    left = {m: samples[m] - (round(config.validation * samples[m]) if tuning else 0) for m in config.modalities}
    parts = {m: SimpleNamespace(samples=[SimpleNamespace(label=0)] * count) for m, count in left.items()}
    plan = (finetune_plan(config, parts) if tuning else
            pass_plan(config, parts, {"image": 1.0, "clip": 1.0 / config.replicate}, drop_last=False))
    a_epoch = Counter(step.modality for step in plan(0))
    batch = {"image": config.batch_stills, "clip": config.batch_clips * (1 if tuning else config.replicate)}
    return {m: (config.epochs * a_epoch[m], batch[m]) for m in config.modalities}


def estimate(config: Config, samples: Mapping[str, int], gpu: Gpu, tested: Mapping[str, int] | None = None,
             workers: int | None = None) -> Cost:
    """Hours and memory of one training on one GPU.

    samples   modality → length of its training list
    tested    modality → length of its test list, read once with every view
    workers   processes that read; those of the configuration, at least 1, if not given
    ValueError if a list that the configuration needs has no length.
    """
    if missing := [m for m in config.modalities if not samples.get(m)]:
        raise Refused(f"{config.name}: say how many training samples there are of {' and '.join(missing)}")
    workers = max(1, config.workers if workers is None else workers)
    steps, basis = steps_of(config, samples), set()
    lasting = waiting = operations = 0.0
    for m, (count, batch) in steps.items():
        each = counted(config, m)
        seconds, how = _compute_seconds(config, m, each, gpu)
        passes = count * batch + _evaluated(config, samples, tested or {}, m) / 3  # forward alone: a third of a step
        load = _reading_seconds(config, m) * batch / _views(config, m) / workers
        lasting += count * max(load, batch * seconds) + (passes - count * batch) * seconds
        waiting += count * load if load > batch * seconds else 0.0
        operations += passes * each.tflop
        basis.add(how)
    memory, accumulate = _memory(config, steps, gpu)
    return Cost(sum(count for count, _ in steps.values()), operations / 1000, lasting / 3600, memory, accumulate,
                "reading" if waiting > lasting / 2 else "computing",
                "measured" if basis == {"measured"} else "counted")


def counted(config: Config, modality: str) -> Counted:
    """Operations and memory of one sample: from the record where it has this kind of step, else counted now."""
    said, name = measured_costs(), kind_of(config, modality)
    standard = next((other for kind, other, _ in KINDS if kind == name), None)
    shapes = ("size", "experts", "top_k", "capacity_factor", "mask_stills", "mask_clips", "prompts", "freeze", "pool",
              "moae_blocks", "router")
    if said and standard and all(getattr(config, key, None) == getattr(standard, key, None) for key in shapes):
        return Counted(**{key: said["steps"][name][key] for key in Counted.__annotations__})
    same = {"name": "counted", "seed": 0, "stills": None, "clips": None, "init": None}  # one count serves them all
    return _counted_now(config.model_copy(update=same), modality)


@cache
def _counted_now(config: Config, modality: str) -> Counted:
    return count_step(config, modality)


@cache
def measured_costs() -> dict:
    return read_record(STEP_COSTS).results if STEP_COSTS.exists() else {}


def _compute_seconds(config: Config, modality: str, each: Counted, gpu: Gpu) -> tuple[float, str]:
    measured = measured_costs().get("gpus", {}).get(gpu.measured_as, {}).get(kind_of(config, modality))
    if measured and config.size == measured_costs()["size"]:
        return measured["seconds_per_sample"], "measured"
    return each.tflop / (gpu.tflops * UTILISATION), "counted"


def _reading_seconds(config: Config, modality: str) -> float:
    """Of one thread, to decode and vary one sample; measured at 160 pixels, and taken as it is for other sizes."""
    stage = "pretrain" if isinstance(config, PretrainConfig) else "finetune"
    return 0.0 if config.cache else measured_costs().get("reading", {}).get(stage, {}).get(modality, 0.0)


def _views(config: Config, modality: str) -> int:
    return config.replicate if isinstance(config, PretrainConfig) and modality == "clip" else 1


def _evaluated(config: Config, samples: Mapping[str, int], tested: Mapping[str, int], modality: str) -> float:
    """Samples that pass forward only: validation after its epochs, and the test once, clips in two views."""
    if isinstance(config, PretrainConfig):
        return 0.0
    often = -(-config.epochs // config.validate_every)
    return (often * config.validation * samples[modality]
            + tested.get(modality, 0) * (2 if modality == "clip" else 1))


def _memory(config: Config, steps: Mapping[str, tuple[int, int]], gpu: Gpu) -> tuple[float, int]:
    """(GB of one step, accumulate): micro-batches are halved until the step fits."""
    each = {m: counted(config, m) for m in steps}
    fixed = OVERHEAD_MB + max((BYTES_PER_PARAMETER * one.trained + 4 * (one.parameters - one.trained)) / 1e6
                              for one in each.values())
    accumulate = config.accumulate
    while True:
        step = fixed + max(one.saved_mb * -(-steps[m][1] // accumulate) for m, one in each.items())
        if step <= 1000 * gpu.memory_gb:
            return step / 1000, accumulate
        if accumulate >= max(batch for _, batch in steps.values()):
            return step / 1000, 0
        accumulate *= 2
