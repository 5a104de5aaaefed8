"""records → steps     which samples meet in which step: a pure function of seed and epoch.

Every step holds one modality (released `ConcatDataset`, strategy `use_one`). Because nothing here depends on what ran
before, a stopped run goes on with exactly the steps that were still to come. Derived in chapters 06 and 08.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from s4d_lib.errors import Refused

MODALITIES = ("image", "clip")


class Step(NamedTuple):
    """One optimiser step: indices into the samples of one modality."""

    modality: str
    indices: tuple[int, ...]


def shuffled(labels: np.ndarray, seed: list[int], balance: bool = False) -> np.ndarray:
    """Indices 0 … n-1 in random order; with `balance`, n draws with replacement, each class equally likely.

    Balancing is what the released code does to AffectNet (`run_class_finetuning.py:272-274`), and there only when it
    runs on more than one GPU; here it is a choice that the record shows.
    """
    rng = np.random.default_rng(seed)
    if not balance:
        return rng.permutation(len(labels))
    weight = 1.0 / np.bincount(labels)[labels]
    return rng.choice(len(labels), size=len(labels), p=weight / weight.sum())


def epoch_plan(
    labels: dict[str, np.ndarray],
    batch: dict[str, int],
    share: dict[str, float],
    seed: int,
    epoch: int,
    drop_last: bool,
    balance: tuple[str, ...] = (),
) -> list[Step]:
    """All steps of one epoch, the modalities in random order.

    labels: modality → labels `[n]` of its samples. share: modality → part of its batches used in an epoch, rounded down
    (released: 1/4 of the video batches in pretraining, where each decoded clip serves four views; 1/2 of the image
    batches in joint fine-tuning). Raises ValueError when a modality has fewer samples than one whole batch.
    """
    steps: list[Step] = []
    for modality, known in labels.items():
        size, n = batch[modality], len(known)
        if n == 0 or (drop_last and n < size):
            raise Refused(f"{n} {modality} samples do not fill one batch of {size}; "
                          "lower the batch size or add data")
        order = shuffled(known, [seed, epoch, MODALITIES.index(modality)], modality in balance)
        batches = [tuple(order[i : i + size].tolist()) for i in range(0, n, size)]
        if drop_last and len(batches[-1]) < size:
            batches.pop()
        steps += [Step(modality, indices) for indices in batches[: max(1, int(share[modality] * len(batches)))]]
    order = np.random.default_rng([seed, epoch, len(MODALITIES)]).permutation(len(steps))
    return [steps[i] for i in order]


def steady_plan(
    labels: dict[str, np.ndarray],
    batch: dict[str, int],
    counts: dict[str, int],
    seed: int,
    epoch: int,
    balance: tuple[str, ...] = (),
    paired: bool = False,
) -> list[Step]:
    """An "epoch" of a fixed number of steps, however many samples there are: the unit of budgets in chapter 08.

    counts: modality → its steps in this epoch. Each modality is an endless row of whole batches, reshuffled at every
    pass through its samples, of which an epoch takes the next few. `paired` puts the modalities in turn, one step of
    each, so that two neighbours make one joint step; else their order is random. ValueError as in `epoch_plan`.
    """
    rows: dict[str, list[Step]] = {}
    for modality, known in labels.items():
        size, a_pass = batch[modality], len(known) // batch[modality]
        if a_pass == 0:
            raise Refused(f"{len(known)} {modality} samples do not fill one batch of {size}; "
                          "lower the batch size or add data")
        first, rows[modality] = epoch * counts[modality], []
        order: dict[int, np.ndarray] = {}
        for number in range(first, first + counts[modality]):
            turn, place = divmod(number, a_pass)
            if turn not in order:
                order[turn] = shuffled(known, [seed, turn, MODALITIES.index(modality)], modality in balance)
            rows[modality].append(Step(modality, tuple(order[turn][place * size : (place + 1) * size].tolist())))
    if paired:
        return [step for together in zip(*rows.values(), strict=True) for step in together]
    steps = [step for row in rows.values() for step in row]
    order = np.random.default_rng([seed, epoch, len(MODALITIES)]).permutation(len(steps))
    return [steps[i] for i in order]


class Mixed(Dataset):
    """Several modalities behind one loader: the key (modality, epoch, indices) picks data set and random draws.

    An item is a whole batch: `batch(indices, epoch)` of a data set that has it, else its items (epoch, index) together.
    """

    def __init__(self, parts: dict[str, Dataset]) -> None:
        self.parts = parts

    def __getitem__(self, key: tuple[str, int, Sequence[int]]) -> dict:
        modality, epoch, indices = key
        part = self.parts[modality]
        batch = (part.batch(indices, epoch) if hasattr(part, "batch") else
                 collate([part[epoch, index] for index in indices]))
        return by_view(batch) if getattr(part, "replicate", 1) > 1 else batch

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())


def keys(steps: list[Step], epoch: int) -> list[tuple[str, int, tuple[int, ...]]]:
    """Steps → what a DataLoader without batches of its own takes as its sampler."""
    return [(step.modality, epoch, step.indices) for step in steps]


def collate(items: list[dict]) -> dict:
    """Samples → batch."""
    return default_collate(items)


def by_view(batch: dict) -> dict:
    """A batch of samples with several views each, `x` `[b views 3 …]` → one of their views, labels and all."""
    views = batch["x"].shape[1]
    return {name: value.flatten(0, 1) if name == "x" else value.repeat_interleave(views)
            for name, value in batch.items()}


class Batches(Dataset):
    """A data set by batches, to be scored: indices → batch whose `x` holds all views one after another.

    `views` says how many each sample has.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> dict:
        batch = self.dataset.batch(indices)
        if self.dataset.sampling != "test":
            return batch | {"views": 1}
        return batch | {"x": batch["x"].flatten(0, 1), "views": batch["x"].shape[1]}

    def __len__(self) -> int:
        return len(self.dataset)


@contextmanager
def seeded(*numbers: int) -> Iterator[np.random.Generator]:
    """Seed torch, numpy and random from these numbers for one step, hand out a generator, and put all states back."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  timm's mixing and RandAugment draw from numpy's global state
    seed_torch(seed)
    try:
        yield np.random.default_rng([*numbers, 1])
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])


def seed_torch(seed: int) -> None:
    """`torch.manual_seed`; without an accelerator only for the CPU, as the whole takes 100 times as long."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
