"""What half precision changes in the shipped classifier's answers: chapters/results/half_precision.json.

    python ci/benchmarks/half_precision.py [samples] [out.json]

So many drawn stills and clips of people whom it has not seen (default 1000 each; the recipe it was trained on, another
seed) are read in float32 and in bfloat16, as `s4d predict --precision` reads them. Counted is how often both name the
same expression, with Wilson's 95 % interval, and by how much the largest probability moves.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from s4d_lib.checkpoints.loading import load_model
from s4d_lib.clips import EVAL, augment, centre_indices
from s4d_lib.files import RESULTS
from s4d_lib.precision import COMPUTES_IN, computing, halved
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb, write_record
from s4d_lib.synthetic_faces.drawing import iter_clips, iter_stills
from s4d_lib.synthetic_faces.recipes import RECIPES
from s4d_lib.training.tiers import LABELLED
from s4d_lib.weights.files import SHIPPED

SEED = 20_000  # people of no other set
RECIPE = RECIPES[LABELLED["laptop"].recipe]


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else RESULTS / "half_precision.json"
    torch.set_num_threads(1)
    started, model = time.perf_counter(), load_model(SHIPPED["classifier"]).eval()
    twin, found = halved(model, "bf16"), {}
    side, stride = model.size.image_size, 2  # the shipped classifier reads every second frame
    for kind, batches in (("still", stills(count, side)), ("clip", clips(count, side, model.size.frames, stride))):
        answers = [[softmax(one, x, precision) for one, precision in ((model, "no"), (twin, "bf16"))] for x in batches]
        found[kind] = compared(*(torch.cat(side) for side in zip(*answers)))
    headline = "; ".join(f"{kind}s: top-1 equal on {row['equal']} of {row['samples']}" for kind, row in found.items())
    print(headline)
    write_record(out, Record(
        name=out.stem, kind="benchmark", headline=headline, tier="laptop", seeds=[SEED],
        config={"samples": count, "model": SHIPPED["classifier"].name}, protocol={"how": __doc__}, results=found,
        code=code_state(), device=device_state() | {"computed_in": [COMPUTES_IN["no"], COMPUTES_IN["bf16"]]},
        wall_seconds=time.perf_counter() - started, peak_memory_mb=peak_memory_mb("cpu")))


def stills(count: int, side: int) -> Iterator[Tensor]:
    for chunk in iter_stills(RECIPE, count, SEED):
        yield torch.stack([seen(frame[None], side)[:, 0] for frame in chunk.frames])


def clips(count: int, side: int, frames: int, stride: int) -> Iterator[Tensor]:
    for chunk in iter_clips(RECIPE, count, SEED):
        yield torch.stack([seen(clip[centre_indices(len(clip), frames, stride)], side) for clip in chunk.frames])


def seen(frames: Tensor, side: int) -> Tensor:
    """Frames [t h w 3] as the model reads them, [3 t h w]."""
    return augment(frames, EVAL, side, np.random.default_rng(0))


@torch.inference_mode()
def softmax(model: nn.Module, x: Tensor, precision: str) -> Tensor:
    with computing(precision, "cpu"):
        return model(x).float().softmax(-1)


def compared(plain: Tensor, half: Tensor) -> dict[str, float | int | list[float]]:
    equal = int((plain.argmax(1) == half.argmax(1)).sum())
    interval = binomtest(equal, len(plain)).proportion_ci(method="wilson")
    moved = (plain.max(1).values - half.max(1).values).abs()
    return {"samples": len(plain), "equal": equal, "share": equal / len(plain), "interval": [*interval],
            "largest_probability_moves": {"median": float(moved.median()), "most": float(moved.max())}}


if __name__ == "__main__":
    main()
