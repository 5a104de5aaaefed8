"""rows → ranks     which process computes which samples of a step, and how several processes act as one.

A step is decided for the whole batch: its samples, its masks and mixing, its noise. Each process (rank) then computes
its rows of it. Random numbers are drawn for the whole batch and cut to the own rows, sums over samples are weighted by
the share of rows, and what looks across samples, such as the capacity of an expert, is told about the others' rows by
`gather_rows`. So the number of processes changes rounding and the time it takes, nothing else. Derived in appendix c.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

METHOD = "S4D_METHOD"             # environment: "ddp", which is the default, or "fsdp"
PATIENCE = timedelta(minutes=30)  # how long a rank waits for the others, who may be writing a large checkpoint


def size() -> int:
    """How many processes train together: what torchrun or `launch.py` has put into the environment, else 1."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def rank() -> int:
    return int(os.environ["RANK"]) if size() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and speaks: rank 0, or the only one."""
    return rank() == 0


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


# --- who computes what -----------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A micro-batch as one rank sees it: its own `rows` of the step, and of which `chunk` of the step they are.

    `layout` holds the rows of every rank that shares the chunk, itself among them. `number` counts the chunks of a
    step. A rank for which no row is left computes one that belongs to another, with weight 0: some collective
    operations need everyone.
    """

    rows: range
    chunk: range
    layout: tuple[range, ...]
    number: int

    @property
    def computed(self) -> range:
        return self.rows or range(self.chunk.start, self.chunk.start + 1)


def pieces(count: int, accumulate: int, rank: int, ranks: int) -> list[Piece]:
    """The micro-batches of one rank for a step of `count` rows that is split into `accumulate` chunks.

    Chunks are consecutive rows, as equal as `Tensor.chunk` makes them. Where the ranks can be served with whole chunks
    they are, in turn; else every chunk is shared out. Both give the same sums. All ranks get lists of equal length.
    """
    length = -(-count // accumulate)
    chunks = [range(start, min(start + length, count)) for start in range(0, count, length)]
    if ranks > 1 and accumulate % ranks:
        shared = [_shares(chunk, ranks) for chunk in chunks]
        return [Piece(shares[rank], chunk, shares, i) for i, (chunk, shares) in enumerate(zip(chunks, shared))]
    found = []
    for i in range(rank, -(-len(chunks) // ranks) * ranks, ranks):
        chunk = chunks[i] if i < len(chunks) else chunks[0]
        rows = chunk if i < len(chunks) else chunk[:0]
        found.append(Piece(rows, chunk, (chunk,), i if i < len(chunks) else 0))
    return found


def _shares(chunk: range, ranks: int) -> tuple[range, ...]:
    edges = [chunk.start + len(chunk) * r // ranks for r in range(ranks + 1)]
    return tuple(range(a, b) for a, b in zip(edges, edges[1:]))


# --- one batch on several ranks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """While a rank computes: its `rows` in the whole batch, and the rows that each rank hands in when they gather.

    A borrowed row is in `rows` and in no one's `layout`, so that it counts for the one it belongs to.
    """

    rows: tuple[int, ...]
    layout: tuple[tuple[int, ...], ...]
    whole: int

    @classmethod
    def of(cls, piece: Piece) -> Share | None:
        """The share of a micro-batch; None where a rank has all of it."""
        if len(piece.layout) == 1:
            return None
        start = piece.chunk.start
        return cls(tuple(row - start for row in piece.computed),
                   tuple(tuple(row - start for row in rows) for rows in piece.layout), len(piece.chunk))


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


class LossOf(nn.Module):
    """Model and loss as one module: what DDP and FSDP wrap, so that any loss may use any method of the model."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, str, dict], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, modality: str, batch: dict) -> Tensor:
        return self.loss(self.model, modality, batch)


# --- weights in parts (FSDP) -----------------------------------------------------------------------------------------


def sharded() -> bool:
    """Whether each rank holds a part of every weight, and not all of them."""
    return size() > 1 and os.environ.get(METHOD) == "fsdp"


def shard(network: LossOf, device: torch.device) -> None:
    """Cut the weights of a model into one part a rank: those of a block come together for the time it computes.

    The model's parameters are others from here on. Its blocks are called as modules; all else happens inside the loss.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size(),))
    for part in list(network.modules()):
        for block in getattr(part, "blocks", ()):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def full(value: Tensor) -> Tensor:
    """A part of a weight, or of what the optimiser keeps for it → the whole, on the CPU; every rank must ask."""
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().cpu()


def part_like(value: Tensor, weight: Tensor) -> Tensor:
    """The part of a whole tensor that belongs beside this rank's part of a weight; the tensor itself elsewhere."""
    if not hasattr(weight, "full_tensor") or value.shape != weight.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)


@contextmanager
def meeting(network: nn.Module, last: bool) -> Iterator[None]:
    """Gradients of the ranks meet in the backward pass of the last micro-batch of a step, and not before."""
    if size() == 1:
        yield
    elif sharded():
        network.set_requires_gradient_sync(last)
        yield
    else:
        with nullcontext() if last else network.no_sync():
            yield


# --- one step --------------------------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A micro-batch ready to compute: its weight in the mean over the step, the share it is, its number."""

    batch: dict
    weight: float
    share: Share | None
    number: int


class StepShare:
    """One step as this rank sees it: which samples it loads and which rows of the prepared batch it computes.

    samples: of the step; each brings `repeats` rows. mixes: preparing looks across samples, so that it is done to the
    whole batch on every rank, gathered from what each has loaded; else a rank loads and prepares its own rows only.
    """

    def __init__(self, samples: int, repeats: int, accumulate: int, mixes: bool) -> None:
        self.count, self.repeats, self.accumulate, self.mixes = samples * repeats, repeats, accumulate, mixes
        self.pieces = pieces(self.count, accumulate, rank(), size())
        self.rows = [row for piece in self.pieces for row in piece.computed]
        self.loaders = _shares(range(samples), size())
        if size() == 1:
            self.loads = list(range(samples))
        elif mixes:
            self.loads = list(self.loaders[rank()]) or [0]
        else:
            self.loads = sorted({row // repeats for row in self.rows})

    def prepare(self, batch: dict, prepare: Callable[[dict], dict]) -> dict:
        """What was loaded → the prepared rows of this rank, one micro-batch after another."""
        if size() == 1:
            return prepare(batch)
        batch = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        if self.mixes:
            layout = tuple(tuple(r for i in part for r in self._rows_of(i)) for part in self.loaders)
            with sharing(Share((), layout, self.count)):
                batch = {name: gather_rows(value) for name, value in batch.items()}
            return _rows(prepare(batch), self.rows)
        loaded = [row for sample in self.loads for row in self._rows_of(sample)]
        batch = _rows(batch, [loaded.index(row) for row in self.rows])
        with sharing(Share(tuple(self.rows), (), self.count)):
            return prepare(batch)

    def parts(self, batch: dict) -> list[Part]:
        """Prepared rows → micro-batches."""
        lengths = [len(piece.computed) for piece in self.pieces]
        cut = {name: value.split(lengths) for name, value in batch.items() if isinstance(value, Tensor)}
        return [Part(dict(zip(cut, values)), len(piece.rows) / self.count, Share.of(piece), piece.number)
                for piece, values in zip(self.pieces, zip(*cut.values()))]

    def own(self, batch: dict) -> tuple[Share | None, dict]:
        """The share that this rank's rows are of the whole step, and these rows without borrowed ones."""
        if size() == 1:
            return None, batch
        layout = tuple(tuple(row for piece in pieces(self.count, self.accumulate, r, size()) for row in piece.rows)
                       for r in range(size()))
        places = [i for i, row in enumerate(self.rows) if row in layout[rank()]] or [0]
        return Share(tuple(self.rows[i] for i in places), layout, self.count), _rows(batch, places)

    def _rows_of(self, sample: int) -> range:
        return range(sample * self.repeats, (sample + 1) * self.repeats)


def _rows(batch: dict, rows: Sequence[int]) -> dict:
    return {name: value[list(rows)] if isinstance(value, Tensor) else value for name, value in batch.items()}
