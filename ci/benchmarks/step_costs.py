"""What one training step costs, and what reading one sample costs: chapters/results/step_costs.json.

    python ci/benchmarks/step_costs.py [cpu|cuda] [--out FILE]

On a CPU it counts operations and kept memory of every kind of step at the paper's size, times the steps on one thread,
and times reading and varying a sample of 160 pixels (drawn now). On a GPU it adds measured seconds and memory of the
same steps at the paper's batches to the record that is there; `s4d cost` then prefers them. About five minutes each.
"""

import argparse
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from s4d_lib.costs import KINDS, STEP_COSTS, kind_of
from s4d_lib.datasets import FaceDataset
from s4d_lib.face_files import write_faces
from s4d_lib.readers import read_affectnet, read_dfew
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, read_record, write_record
from s4d_lib.stages import FinetuneConfig, PretrainConfig, geometry, views
from s4d_lib.step_counts import count_step, time_step
from s4d_lib.synthetic_faces import RECIPES

SIZE = 160
BATCH = {"cpu": {"image": 8, "clip": 2}, "cuda": {"image": 64, "clip": 16}}  # so many that AdamW is a small part


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("device", nargs="?", default="cpu", choices=["cpu", "cuda"])
    words.add_argument("--out", type=Path, default=STEP_COSTS)
    asked = words.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    record = on_cpu() if asked.device == "cpu" else on_gpu(read_record(asked.out))
    record = record.model_copy(update={"wall_seconds": record.wall_seconds + time.monotonic() - started})
    print(f"{write_record(asked.out, record)}: {record.headline}")


def on_cpu() -> Record:
    steps = {}
    for name, config, modality in KINDS:
        assert kind_of(config, modality) == name
        steps[name] = asdict(count_step(config, modality)) | {"cpu": time_step(config, modality, BATCH["cpu"][modality],
                                                                                    repeats=2)}
        print(f"{name:16} {steps[name]}", flush=True)
    rates = [found["tflop"] * 1000 / found["cpu"]["seconds_per_sample"] for found in steps.values()]
    headline = f"{len(steps)} kinds of step, base size: {min(rates):.0f} to {max(rates):.0f} GFLOP/s on one CPU thread"
    return Record(name="step_costs", kind="benchmark", headline=headline, tier="full", seeds=[0], code=code_state(),
                  device=device_state(), results={"size": "base", "steps": steps, "reading": reading(), "gpus": {}},
                  wall_seconds=0.0, peak_memory_mb=peak_memory_mb())


def reading() -> dict[str, dict[str, float]]:
    """Processor seconds to decode and vary one sample as training does, by kind of training and of sample."""
    recipe = replace(RECIPES["default"], size=SIZE)
    clips = 4 * recipe.clip.clips_per_identity + 1  # the fewest that make five folds
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_faces(Path(folder, "faces"), recipe, 12, clips, 0, progress=False, frames=("mp4",))
        samples = {"image": read_affectnet(Path(folder, "faces/stills"), "train"),
                   "clip": read_dfew(Path(folder, "faces/clips"), "train", frames="clip_mp4")}
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


def on_gpu(record: Record) -> Record:
    device = device_state("cuda")
    measured = {}
    for name, config, modality in KINDS:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        measured[name] = time_step(config, modality, BATCH["cuda"][modality], "cuda", repeats=10)
        print(f"{name:16} {measured[name]}", flush=True)
    gpus = record.results["gpus"] | {device["name"]: measured}
    return record.model_copy(update={"results": record.results | {"gpus": gpus}})


if __name__ == "__main__":
    main()
