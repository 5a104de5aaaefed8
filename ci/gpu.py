"""card → results     what only a GPU can tell, stage by stage; a stopped run goes on. Called by ci/gpu.sh.

    checks     every training stage in float32 and bfloat16: loss and gradient of the GPU beside those of the CPU
    resume     a training that is killed and goes on, beside one that was left alone
    together   two trainings on one card at a time, beside one alone
    costs      seconds and memory of the steps that `s4d cost` speaks of
    bench      `s4d bench --device cuda`

Each stage leaves `<stage>.json` under $OUT, else runs/gpu; what is there is not done again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 6.0
ASK_AGAIN = 75  # what a call leaves with when stages are left
# (loss, relative; cosine of the gradients). Float32 without TF32 differs by the order of sums. bfloat16 keeps 8 bits
# of each product, and experts may be chosen otherwise where two are nearly equal.
TOLERANCE = {"no": (1e-4, 0.9999), "bf16": (3e-2, 0.98)}


class Later(Exception):
    """The time of this call is over; the next one goes on here."""


class Call:
    """One call of the command: where results go, which device, how much time is left."""

    def __init__(self, out: Path, device: str, minutes: float) -> None:
        self.out, self.device, self.ends = out, device, time.monotonic() + 60 * minutes
        out.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        return self.ends - time.monotonic()

    def run(self, words: list[str], log: str, **environment: str) -> int:
        """A command of this library, stopped when the time is over; its words go to a file."""
        with open(self.out / log, "a") as file:
            process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
                                       env=os.environ | environment)
            try:
                return process.wait(max(1.0, self.left()))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # a training saves what it has
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                raise Later from None


# --- checks ----------------------------------------------------------------------------------------------------------


def checks(call: Call) -> dict:
    """Stage and precision → how far the device is from the CPU; every one is written when it is known."""
    sys.path.insert(0, str(ROOT / "ci" / "tests"))
    import torch
    from fake_stages import STAGES, batch_of, job_of, landmark_batch, landmark_job

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    place = call.out / "checks.part.json"
    found = json.loads(place.read_text()) if place.exists() else {}
    cases = {"landmark network, image": (landmark_job, lambda: landmark_batch(8))}
    for stage, configure in STAGES.items():
        config = configure("nano")
        quiet = {"dropout": 0.0, "sdl": False} if hasattr(config, "dropout") else {}
        quiet |= {"router": "quiet"} if getattr(config, "expert_blocks", ()) else {}  # devices draw other noise
        config = config.model_copy(update=quiet)
        for m in config.modalities:
            cases[f"{stage}, {m}"] = (partial(job_of, config), partial(batch_of, config, m, 8))
    for case, (make, batch) in cases.items():
        for precision, (loss_within, cosine_above) in TOLERANCE.items():
            name = f"{case}, {precision}"
            if name in found or (make is landmark_job and precision == "bf16"):  # that one is trained in float32 alone
                continue
            if call.left() < 20:
                raise Later
            torch.manual_seed(0)
            loss, cosine = compared(make()[0], batch(), call.device, precision)
            holds = loss <= loss_within and cosine >= cosine_above
            found[name] = {"loss_differs": loss, "gradient_cosine": cosine, "holds": holds}
            place.write_text(json.dumps(found, indent=1))
            far = "" if holds else "   TOO FAR"
            print(f"  {name}: loss differs by {loss:.1e}, cosine {cosine:.6f}{far}", flush=True)
    return found


def compared(job: object, batch: dict, device: str, precision: str) -> tuple[float, float]:
    """Relative difference of the losses and cosine of the gradients: the CPU in float32, the device in `precision`."""
    import numpy as np
    import torch

    if "label" in batch:
        batch["label"] = torch.arange(len(batch["x"])) % 7
    prepared = job.prepare(batch, np.random.default_rng(0))
    modality = "clip" if batch["x"].ndim == 5 else "image"

    def pass_on(place: str, half: bool) -> tuple[float, torch.Tensor]:
        job.model.to(place).train().zero_grad()
        moved = {key: value.to(place) for key, value in prepared.items() if isinstance(value, torch.Tensor)}
        with torch.autocast(place, torch.bfloat16, enabled=half):
            loss = job.loss(job.model, modality, moved)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in job.model.parameters() if p.grad is not None])
        return float(loss.detach()), gradient.double().cpu()

    (ours, one), (theirs, other) = pass_on("cpu", False), pass_on(device, precision == "bf16")
    return abs(ours - theirs) / abs(ours), float(torch.cosine_similarity(one, other, dim=0))


# --- trainings -------------------------------------------------------------------------------------------------------


def settings(call: Call, name: str, seed: int = 0, epochs: int = 20) -> Path:
    """The file of a short training on drawn faces, which are drawn once."""
    faces = call.out / "faces"
    if not (faces / "done").exists():
        shutil.rmtree(faces, ignore_errors=True)
        words = ["-m", "s4d_lib.cli", "faces", str(faces), "--stills", "0", "--clips", "40", "--size", "48"]
        if call.run([*words, "--frames", "mp4"], "faces.log"):
            raise RuntimeError(f"{call.out / 'faces.log'}: the faces were not drawn")
        (faces / "done").touch()
    device = "auto" if call.device == "cuda" else "cpu"
    said = {"stage": "finetune", "mode": "dfer", "name": name, "clips": str(faces / "clips"), "frames": "clip_mp4",
            "size": "nano", "epochs": epochs, "warmup_epochs": 0, "batch_clips": 8, "stride": 2, "seed": seed,
            "device": device, "checkpoint_minutes": 0.01, "augment_clips": "FLIPS", "cache": True}
    file = call.out / f"{name}.yaml"
    file.write_text(json.dumps(said))  # JSON is YAML
    return file


def losses(root: Path) -> list[float]:
    (log,) = root.glob("*/metrics.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    return [entry["loss"] for entry in entries if "loss" in entry]


def trained(call: Call, file: Path, root: Path) -> list[float]:
    """Train, or go on, to the end; the losses of its steps."""
    if call.run(["-m", "s4d_lib.cli", "train", str(file)], f"{root.name}.log", S4D_RUNS=str(root)):
        raise RuntimeError(f"{call.out / root.name}.log: the training failed")
    return losses(root)


def furthest(one: list[float], other: list[float]) -> float:
    """Largest relative difference of two rows of losses; infinite where one is longer."""
    if len(one) != len(other) or not one:
        return float("inf")
    return max(abs(a - b) / abs(a) for a, b in zip(one, other))


def resume(call: Call) -> dict:
    """A run that is killed (SIGKILL) after its first checkpoint and goes on, beside the same run left alone."""
    file, alone, killed = settings(call, "resume"), call.out / "alone", call.out / "killed"
    shutil.rmtree(killed, ignore_errors=True)
    with open(call.out / "killed.log", "a") as log:
        process = subprocess.Popen([sys.executable, "-m", "s4d_lib.cli", "train", str(file)], cwd=ROOT, stdout=log,
                                   stderr=subprocess.STDOUT, env=os.environ | {"S4D_RUNS": str(killed)})
    while process.poll() is None and not list(killed.glob("*/checkpoint.safetensors")):
        time.sleep(0.02)
        if call.left() < 5:
            process.kill()
            process.wait()
            raise Later
    died = process.poll() is None
    process.kill()
    process.wait()
    one, other = trained(call, file, alone), trained(call, file, killed)
    return {"killed_in_time": died, "steps": len(one), "furthest_loss": furthest(one, other),
            "holds": died and furthest(one, other) <= (0.0 if call.device == "cpu" else 1e-3)}


def together(call: Call) -> dict:
    """Two trainings side by side on one device, and one of them alone: the same losses, and what the company costs."""
    files = [settings(call, f"together{seed}", seed, epochs=10) for seed in (0, 1)]
    began = time.monotonic()
    one = trained(call, files[0], call.out / "by_itself")
    alone = time.monotonic() - began
    roots = [call.out / f"side{seed}" for seed in (0, 1)]
    began = time.monotonic()
    with open(call.out / "together.log", "a") as log:
        both = [subprocess.Popen([sys.executable, "-m", "s4d_lib.cli", "train", str(file)], cwd=ROOT, stdout=log,
                                 stderr=subprocess.STDOUT, env=os.environ | {"S4D_RUNS": str(root)})
                for file, root in zip(files, roots)]
        codes = [process.wait() for process in both]
    if any(codes):
        raise RuntimeError(f"{call.out / 'together.log'}: a training failed")
    far = furthest(one, losses(roots[0]))
    return {"seconds_alone": alone, "seconds_together": time.monotonic() - began, "furthest_loss": far,
            "holds": far <= (0.0 if call.device == "cpu" else 1e-3)}


# --- measurements ----------------------------------------------------------------------------------------------------


def costs(call: Call) -> dict:
    """The table of `s4d cost`, with this card's seconds."""
    table = call.out / "step_costs.json"
    if not table.exists():
        shutil.copyfile(ROOT / "chapters" / "results" / "step_costs.json", table)
    code = call.run(["ci/benchmarks/step_costs.py", "cuda", "--out", str(table)], "costs.log")
    return {"table": table.name, "holds": code == 0}


def bench(call: Call) -> dict:
    """`s4d bench` on this card; its own record goes on where it was stopped."""
    if not (ROOT / "s4d_lib" / "cli" / "bench.py").exists():
        return {"holds": True, "left_out": "this version has no s4d bench"}
    words = ["-m", "s4d_lib.cli", "bench", "--device", "cuda", "--json", str(call.out / "bench_cuda.json")]
    return {"record": "bench_cuda.json", "holds": call.run(words, "bench.log") == 0}


STAGES: dict[str, Callable[[Call], dict]] = {
    "checks": checks, "resume": resume, "together": together, "costs": costs, "bench": bench}
ON_CPU = ("checks", "resume", "together")
TO_COMMIT = {
    "costs": "cp {out}/step_costs.json chapters/results/step_costs.json",
    "bench": "cp {out}/bench_cuda.json chapters/results/bench_cuda.json",
    "checks": "cp {out}/checks.json chapters/results/gpu_checks.json",
}


def missing() -> list[str]:
    """What the library needs beside PyTorch and this Python lacks, as pip would be asked for it."""
    listed = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)[1]
    needed = re.findall(r'^\s*"([^"]+)"', listed, re.M)
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "ci" / "constraints.txt").read_text(), re.M))
    found = []
    for line in needed:
        name = re.split(r"[><=;\s\[]", line)[0]
        if name == "decord" and os.uname().machine not in ("x86_64", "AMD64"):
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name}=={pins[name]}" if name in pins else name)
    return found


def go(call: Call, stages: list[str]) -> int:
    """Run what is left; 0 when everything was done and holds, 1 where something does not, ASK_AGAIN when time is up."""
    for name in stages:
        done = call.out / f"{name}.json"
        if done.exists():
            print(f"{name}: done before", flush=True)
            continue
        print(f"{name}: {(STAGES[name].__doc__ or name).splitlines()[0]}", flush=True)
        try:
            found = STAGES[name](call)
        except Later:
            print(f"{name}: time is up; call this again and it goes on here")
            return ASK_AGAIN
        done.write_text(json.dumps(found, indent=1) + "\n")
    results = {name: json.loads((call.out / f"{name}.json").read_text()) for name in stages}
    wrong = [name for name, found in results.items() if not found.get("holds", all(
        isinstance(one, dict) and one["holds"] for one in found.values()))]
    print(f"does not hold: {', '.join(wrong)}" if wrong else f"all of it holds: {', '.join(stages)}")
    return int(bool(wrong))


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, about in (("--dry", "rehearse the checks on the CPU, and say what would be run"),
                        ("--rehearse", "rehearse the trainings on the CPU, too"),
                        ("--wheels", "print what is missing beside PyTorch")):
        words.add_argument(name, action="store_true", help=about)
    words.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or ROOT / "runs" / "gpu"))
    words.add_argument("--minutes", type=float, default=MINUTES, help="after which this call ends; no rehearsal does")
    asked = words.parse_args()
    lacking = missing()
    if asked.wheels or lacking:
        print("\n".join(lacking) if lacking else "nothing is missing")
        if not asked.wheels:
            print("are missing beside PyTorch: put their wheels into wheels/, or install them; nothing is fetched here",
                  file=sys.stderr)
        return 0 if asked.wheels else 2
    import torch

    dry = asked.dry or asked.rehearse
    if not dry and not torch.cuda.is_available():
        print("PyTorch finds no GPU here; bash ci/gpu.sh --dry rehearses on the CPU", file=sys.stderr)
        return 2
    call = Call(asked.out / "dry" if dry else asked.out, "cpu" if dry else "cuda", 60.0 if dry else asked.minutes)
    if dry:
        for part in (call.out / f"{name}{end}" for name in STAGES for end in (".json", ".part.json")):
            part.unlink(missing_ok=True)
    code = go(call, list(ON_CPU if asked.rehearse else ("checks",)) if dry else list(STAGES))
    if dry:
        print(f"on a GPU: {', '.join(STAGES)}, each at most once; then it prints what to commit:")
    if dry or code == 0:
        print("\n".join(f"  {line.format(out=asked.out)}" for line in TO_COMMIT.values()))
    return code


if __name__ == "__main__":
    sys.exit(main())
