"""value → values of all processes     who we are among several, and what a layer needs to compute a share of a batch.

A step is decided for the whole batch: its samples, its masks and mixing, its noise. Each process (rank) then computes
its rows of it (`training/steps.py`). Random numbers are drawn for the whole batch and cut to the own rows, and what
looks across samples, such as the capacity of an expert, is told about the others' rows by `gather_rows`. So the number
of processes changes rounding and the time it takes, nothing else. Derived in appendix c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

METHOD = "S4D_METHOD"             # environment: "ddp", which is the default, or "fsdp"
PATIENCE = timedelta(minutes=30)  # how long a rank waits for the others, who may be writing a large checkpoint


def size() -> int:
    """How many processes train together: what torchrun or `training/launch.py` has put into the environment, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    return int(os.environ["RANK"]) if size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and speaks: rank 0, or the only one."""
    return rank() == 0


def sharded() -> bool:
    """Whether each rank holds a part of every weight, and not all of them."""
    return size() > 1 and os.environ.get(METHOD) == "fsdp"


def state() -> dict[str, int | str]:
    """For a record: how many processes, and whether each held all weights."""
    return {"processes": size()} | ({"method": "fsdp" if sharded() else "ddp"} if size() > 1 else {})


def begin(cpu: bool) -> None:
    """Meet the other processes: gloo on CPUs, NCCL on GPUs."""
    from accelerate import PartialState

    PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=PATIENCE)


def end() -> None:
    dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process has come here."""
    if size() > 1:
        dist.barrier()


def total(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Sums over the ranks, the same on each, in float64."""
    if size() == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return summed.tolist()


def gathered(value: Any) -> list[Any]:
    """Any picklable value of each rank, in rank order, on each rank."""
    if size() == 1:
        return [value]
    values = [None] * size()
    dist.all_gather_object(values, value)
    return values


# --- one batch on several ranks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """While a rank computes: its `rows` in the whole batch, and the rows that each rank hands in when they gather.

    A borrowed row is in `rows` and in no one's `layout`, so that it counts for the one it belongs to.
    """

    rows: tuple[int, ...]
    layout: tuple[tuple[int, ...], ...]
    whole: int


_current: Share | None = None


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """What is computed inside belongs to this share of a batch; None: to a whole batch."""
    global _current  # the models ask for it deep inside a forward pass, in backward threads too
    before, _current = _current, share
    try:
        yield
    finally:
        _current = before


def shared() -> bool:
    """Whether what is computed now is a share of a batch, whose other rows other ranks compute."""
    return _current is not None


def draw(make: Callable[[int], Tensor], rows: int) -> Tensor:
    """`make(n)` draws n rows of random numbers; here are those of the own rows, whoever computes the others."""
    if _current is None:
        return make(rows)
    if rows != len(_current.rows):
        raise ValueError(f"{rows} rows were asked for, but this rank's share of the batch has {len(_current.rows)}")
    drawn = make(_current.whole)
    return drawn[torch.tensor(_current.rows, device=drawn.device)]


def gather_rows(x: Tensor) -> Tensor:
    """Own rows `[b …]` → the rows of the whole batch in its order, on each rank; no gradient flows through.

    Outside a share that is x itself. Every rank of the share must call it.
    """
    if _current is None:
        return x
    mine = _current.layout[rank()]
    own = x.detach()[: len(mine)]
    longest = max(map(len, _current.layout))
    padded = torch.cat([own, own.new_zeros(longest - len(own), *own.shape[1:])])  # all_gather wants equal shapes
    parts = [torch.empty_like(padded) for _ in _current.layout]
    dist.all_gather(parts, padded.contiguous())
    whole = own.new_empty(_current.whole, *own.shape[1:])
    for part, rows in zip(parts, _current.layout):
        whole[list(rows)] = part[: len(rows)]
    return whole


def own_rows(whole: Tensor) -> Tensor:
    """Rows of the whole batch → those of this rank."""
    return whole if _current is None else whole[torch.tensor(_current.rows, device=whole.device)]


class RowDropout(nn.Dropout):
    """`nn.Dropout` on `[b …]` that hides the same numbers of a sample however the batch is shared out."""

    def forward(self, x: Tensor) -> Tensor:
        if _current is None or not self.training or self.p == 0:
            return super().forward(x)
        return x * draw(lambda n: F.dropout(x.new_ones(n, *x.shape[1:]), self.p), len(x))
