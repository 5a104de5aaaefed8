"""generator → global generators     chance lent to libraries that draw from the global generators only."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def borrowed_generators(rng: np.random.Generator) -> Iterator:
    """Seed the global generators that timm and torchvision draw from, and put them back afterwards.

    Yields a function that restarts all of them at the same point.
    """
    seed = int(rng.integers(2**32))
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def restart() -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for the GPU from a worker

    try:
        restart()
        yield restart
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])
