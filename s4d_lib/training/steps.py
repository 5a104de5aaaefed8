"""step → rows of this rank     which process computes which samples of a step, and how their gradients meet.

A step is decided for the whole batch, and each process (rank) computes its rows of it; sums over samples are weighted
by the share of rows. `distributed.py` tells the layers which rows these are. Derived in appendix c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s4d_lib.distributed import Share, gather_rows, rank, sharded, sharing, size

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

    @property
    def share(self) -> Share | None:
        """What this micro-batch is of its chunk; None where a rank has all of it."""
        if len(self.layout) == 1:
            return None
        start = self.chunk.start
        return Share(tuple(row - start for row in self.computed),
                     tuple(tuple(row - start for row in rows) for rows in self.layout), len(self.chunk))


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
        return [Part(dict(zip(cut, values)), len(piece.rows) / self.count, piece.share, piece.number)
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


# --- one model on several ranks --------------------------------------------------------------------------------------


class LossOf(nn.Module):
    """Model and loss as one module: what DDP and FSDP wrap, so that any loss may use any method of the model."""

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module, str, dict], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, modality: str, batch: dict) -> Tensor:
        return self.loss(self.model, modality, batch)


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
