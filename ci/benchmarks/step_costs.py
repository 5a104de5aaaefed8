"""What one training step costs, and what reading one sample costs: chapters/results/step_costs.json.

    python ci/benchmarks/step_costs.py [cpu|cuda] [--out FILE]

On a CPU it counts operations and kept memory of every kind of step at the paper's size, times the steps on one thread,
and times reading and varying a sample of 160 pixels (drawn now). On a GPU it adds measured seconds and memory of the
same steps at the paper's batches to the record that is there; `s4d cost` then prefers them. About ten minutes and 8 GB.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.readers import read_dfew
from s4d_lib.datasets.still_readers import read_affectnet
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, read_record, write_record
from s4d_lib.synthetic_faces.folders import write_faces
from s4d_lib.synthetic_faces.recipes import RECIPES
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig, geometry
from s4d_lib.training.costs import KINDS, STEP_COSTS, kind_of
from s4d_lib.training.data import views
from s4d_lib.training.step_counts import count_step, time_step

SIZE = 160
BATCH = {"cpu": {"image": 8, "clip": 2}, "cuda": {"image": 64, "clip": 16}}  # so many that AdamW is a small part


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("device", nargs="?", default="cpu", choices=["cpu", "cuda"])
    words.add_argument("--out", type=Path, default=STEP_COSTS)
    asked = words.parse_args()
    torch.set_num_threads(1)
    (on_cpu if asked.device == "cpu" else on_gpu)(asked.out)


def on_cpu(out: Path) -> None:
    """Count and time what the record lacks; a stopped benchmark goes on."""
    record = read_record(out) if out.exists() else empty()
    steps = dict(record.results["steps"])
    for name, config, modality in KINDS:
        assert kind_of(config, modality) == name
        if name not in steps:
            started = time.monotonic()
            measured = time_step(config, modality, 1 if name == "s2d clip" else BATCH["cpu"][modality], repeats=2)
            steps[name] = asdict(count_step(config, modality)) | {"cpu": measured}
            record = saved(out, record, {"steps": steps}, started)
    if not record.results["reading"]:
        saved(out, record, {"reading": reading()}, time.monotonic())


def empty() -> Record:
    nothing = {"size": "base", "steps": {}, "reading": {}, "gpus": {}}
    return Record(name="step_costs", kind="benchmark", headline="nothing yet", tier="full", seeds=[0],
                  code=code_state(), device=device_state(), results=nothing, wall_seconds=0.0, peak_memory_mb=0.0)


def saved(out: Path, record: Record, found: dict, started: float) -> Record:
    """The record with what was found, written."""
    results = record.results | found
    rates = [step["tflop"] * 1000 / step["cpu"]["seconds_per_sample"] for step in results["steps"].values()]
    headline = (f"{len(rates)} kinds of step, base size: {min(rates):.0f} to {max(rates):.0f} GFLOP/s on one CPU thread"
                + "".join(f"; measured on {name}" for name in results["gpus"]))
    record = record.model_copy(update={
        "results": results, "headline": headline, "wall_seconds": record.wall_seconds + time.monotonic() - started,
        "peak_memory_mb": max(record.peak_memory_mb, peak_memory_mb())})
    print(f"{write_record(out, record)}: {headline}", flush=True)
    return record


def reading() -> dict[str, dict[str, float]]:
    """Processor seconds to decode and vary one sample as training does, by kind of training and of sample; and to draw.
    """
    recipe = replace(RECIPES["default"], size=SIZE)
    clips = 4 * recipe.clip.clips_per_identity + 1  # the fewest that make five folds
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        found["drawing"] = {}
        for modality, asked in (("image", (48, 0)), ("clip", (0, clips))):
            began = time.process_time()
            write_faces(Path(folder, modality), recipe, *asked, 0, progress=False, frames=("mp4",))
            found["drawing"][modality] = (time.process_time() - began) / sum(asked)
        samples = {"image": read_affectnet(Path(folder, "image/stills"), "train"),
                   "clip": read_dfew(Path(folder, "clip/clips"), "train", frames="clip_mp4")}
        for name, config, sampling in (("pretrain", PretrainConfig(name="p"), "pretrain"),
                                       ("finetune", FinetuneConfig(name="f", mode="joint"), "train")):
            found[name] = {}
            for modality, listed in samples.items():
                replicate = config.replicate if (name, modality) == ("pretrain", "clip") else 1
                found[name][modality] = read_seconds(views(config, listed, sampling, 0, replicate=replicate))
    assert geometry(PretrainConfig(name="p"))[0] == SIZE
    return found


def read_seconds(dataset: FaceDataset) -> float:
    seconds = []
    for i in range(min(8, len(dataset))):
        began = time.process_time()
        dataset[i]
        seconds.append(time.process_time() - began)
    return median(seconds[1:])


def on_gpu(out: Path) -> None:
    record, name = read_record(out), device_state("cuda")["name"]
    started, measured = time.monotonic(), {}
    for kind, config, modality in KINDS:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        measured[kind] = time_step(config, modality, BATCH["cuda"][modality], "cuda", repeats=10)
        record = saved(out, record, {"gpus": record.results["gpus"] | {name: measured}}, started)
        started = time.monotonic()


if __name__ == "__main__":
    main()
