"""Which results are equal to the bit: by workers, threads, processes and the order of a batch.

    python ci/benchmarks/determinism.py [--out FILE]

Trains a nano classifier for one epoch of drawn clips under each condition and compares losses and weights with those of
one worker-less process on one thread; answers are compared for batches in another order and of another size. The table
says "equal" where every bit is, else the largest difference. About two minutes on one core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from s4d_lib.checkpoints.loading import load_model

BASE = {"stage": "finetune", "mode": "dfer", "name": "run", "frames": "clip_mp4", "size": "nano", "epochs": 1,
        "warmup_epochs": 0, "batch_clips": 8, "stride": 2, "device": "cpu", "augment_clips": "LIGHT"}
CONDITIONS: dict[str, tuple[dict, int, int]] = {  # settings, threads, processes
    "again": ({}, 1, 1), "2 workers": ({"workers": 2}, 1, 1), "2 threads": ({}, 2, 1), "2 processes": ({}, 1, 2),
    "2 micro-batches": ({"accumulate": 2}, 1, 1), "frames kept in memory": ({"cache": True}, 1, 1),
}


def trained(folder: Path, name: str, change: dict, threads: int, processes: int) -> tuple[list[float], Path]:
    """Losses of every step and the folder of a run in a process of its own."""
    root, file = folder / name, folder / f"{name}.yaml"
    file.write_text(json.dumps(BASE | {"clips": str(folder / "faces" / "clips")} | change))  # JSON is YAML
    words = [sys.executable, "-m", "s4d_lib.cli", "train", str(file), "--processes", str(processes)]
    subprocess.run(words, check=True, capture_output=True,
                   env=os.environ | {"S4D_RUNS": str(root), "OMP_NUM_THREADS": str(threads)})
    (log,) = root.glob("*/metrics.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry], log.parent


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def answers(run: Path) -> dict[str, float]:
    """Largest difference of the probabilities of the same clips, asked in other company."""
    model = load_model(run / "model.safetensors").eval()
    size = model.size
    x = torch.randn(8, 3, size.frames, size.height, size.width, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = model(x).softmax(-1)
        return {"answers, batch in another order": float((model(x[order]).softmax(-1) - whole[order]).abs().max()),
                "answers, one clip at a time": float((torch.cat([model(one[None]) for one in x]).softmax(-1)
                                                      - whole).abs().max())}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "s4d_lib.cli", "faces", str(folder / "faces"), "--stills", "0", "--clips",
                        "40", "--size", "48", "--frames", "mp4"], check=True, capture_output=True)
        losses, run = trained(folder, "first", {}, 1, 1)
        weights, found = load_model(run / "model.safetensors").state_dict(), {}
        for condition, (change, threads, processes) in CONDITIONS.items():
            theirs, other = trained(folder, condition.replace(" ", "_"), change, threads, processes)
            found[condition] = {"loss": max(abs(a - b) for a, b in zip(losses, theirs, strict=True)),
                                "weights": furthest(weights, load_model(other / "model.safetensors").state_dict())}
            print(condition, found[condition], flush=True)
        found |= {name: {"probability": value} for name, value in answers(run).items()}
    for condition, far in found.items():
        said = ", ".join(f"{what} {'equal' if value == 0 else f'{value:.1e}'}" for what, value in far.items())
        print(f"| {condition} | {said} |")
    if asked.out:
        asked.out.write_text(json.dumps({"torch": torch.__version__, "steps": len(losses), "found": found}, indent=1))


if __name__ == "__main__":
    main()
