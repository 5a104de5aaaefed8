"""Measured rate of the face renderer on one processor thread, in frames a second, at several sizes.

    python ci/benchmarks/render_faces.py [repeats]

Prints the median and the range over the repeats (default 5) for one batch of the default recipe's views and random
action units. `busy` divides by processor time, which other programs on the machine disturb less than `wall` time.
"""

import statistics
import sys
import time

import numpy as np
import torch

from s4d_lib.synthetic_faces.geometry import ACTION_UNITS
from s4d_lib.synthetic_faces.people import sample_people, sample_views
from s4d_lib.synthetic_faces.recipes import RECIPES
from s4d_lib.synthetic_faces.renderer import CHUNK, render

FRAMES = 4 * CHUNK


def main() -> None:
    repeats = max(5, int(sys.argv[1])) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    face = sample_people(rng, FRAMES) | sample_views(rng, FRAMES, RECIPES["default"].clip.view)
    units = torch.from_numpy(rng.uniform(0, 0.5, (FRAMES, len(ACTION_UNITS))).astype(np.float32))
    print(f"{FRAMES} frames, one thread, {repeats} repeats: median (lowest–highest) frames a second")
    for size in (48, 64, 96):
        render(face, units, size)
        wall, busy = [], []
        for _ in range(repeats):
            started, worked = time.perf_counter(), time.process_time()
            render(face, units, size)
            wall.append(FRAMES / (time.perf_counter() - started))
            busy.append(FRAMES / (time.process_time() - worked))
        shown = "   ".join(f"{name} {statistics.median(rates):4.0f} ({min(rates):.0f}–{max(rates):.0f})"
                           for name, rates in (("wall", wall), ("busy", busy)))
        print(f"{size:3d} px   {shown}")


if __name__ == "__main__":
    main()
