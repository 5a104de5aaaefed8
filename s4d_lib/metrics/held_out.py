"""answers of folds → interval     one WAR and one UAR of everything that was held out, over the people in it.

    one = HeldOut.of(labels, answers, ids, people)     what a run said of the samples it was not trained on
    one.as_dict(), HeldOut.from_dict(...)              the same in a record, 17 bytes a sample; names are kept as hashes
    pooled([[fold 1, fold 2, …] of a seed, …])         all folds together, with intervals

The folds of a sweep share most of their training data, so that their scores are not independent and no unbiased
estimate of the variance of their mean exists (Bengio and Grandvalet 2004). People are independent: an interval draws
people anew, with all their clips in whichever fold, and scores what was said of them. It speaks of other people of the
same kind, judged by these models. Seeds are averaged inside a draw.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4d_lib.errors import Refused, require
from s4d_lib.metrics.resampling import resampling
from s4d_lib.metrics.scores import Interval, uar, war


@dataclass(frozen=True)
class HeldOut:
    """labels, answers u8 `[n]`; ids, people u64 `[n]`, hashes of names; `alone` samples name no person."""

    labels: np.ndarray
    answers: np.ndarray
    ids: np.ndarray
    people: np.ndarray
    alone: int

    @classmethod
    def of(cls, labels: Sequence[int], answers: Sequence[int], ids: Sequence[str], people: Sequence[str | None]
           ) -> HeldOut:
        """Classes 0 to 255. Where nobody is named, None, the sample stands for a person of its own."""
        if len({len(labels), len(answers), len(ids), len(people)}) > 1:
            raise ValueError(f"{len(labels)} labels, {len(answers)} answers, {len(ids)} ids, {len(people)} people")
        named = [f"id {id}" if person is None else f"person {person}" for id, person in zip(ids, people)]
        return cls(np.asarray(labels).astype(np.uint8), np.asarray(answers).astype(np.uint8),
                   _hashed([f"id {id}" for id in ids]), _hashed(named), sum(person is None for person in people))

    def as_dict(self) -> dict[str, str | int]:
        """Text for a record."""
        return {name: base64.b64encode(getattr(self, name).astype(kind).tobytes()).decode()
                for name, kind in _KINDS.items()} | {"alone": self.alone}

    @classmethod
    def from_dict(cls, kept: Mapping) -> HeldOut:
        """ValueError for what is none."""
        try:
            parts = {name: np.frombuffer(base64.b64decode(kept[name]), kind) for name, kind in _KINDS.items()}
            found = cls(**parts, alone=int(kept["alone"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"held-out answers that cannot be read ({error}); run it again") from error
        if len({len(part) for part in parts.values()}) > 1:
            raise Refused("held-out answers of different lengths; run it again")
        return found


_KINDS = {"labels": "u1", "answers": "u1", "ids": "<u8", "people": "<u8"}


def _hashed(names: Sequence[str]) -> np.ndarray:
    return np.array([int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest(),
                                    "little") for name in names], dtype=np.uint64)


@dataclass(frozen=True)
class Pooled:
    """Scores of all folds together, in percent."""

    war: Interval
    uar: Interval
    seeds: int
    samples: int  # of one seed
    people: int  # what was drawn; `alone` of them are samples whose person nobody named
    alone: int
    repeated: int  # ids that several folds tested: each time counts
    shared: int  # people whom several folds tested: the other folds trained on them


def pooled(seeds: Sequence[Sequence[HeldOut]], draws: int = 10_000, seed: int = 0) -> Pooled:
    """The folds of every seed → WAR and UAR of what they said together, and 95 % intervals over people.

    Mean over the seeds. Percentiles of a bootstrap over few people are too narrow; they are taken as far out as a
    Student t interval would be (Hesterberg 2015, "What teachers should know about the bootstrap"). A single person
    has no interval: nan. ValueError without any answer.
    """
    require("scipy", "lab")
    from scipy.stats import norm, t

    if not seeds or not all(sum(len(fold.labels) for fold in folds) for folds in seeds):
        raise Refused("no held-out answers to pool")
    everything = [fold for folds in seeds for fold in folds]
    names = np.unique(np.concatenate([fold.people for fold in everything]))
    classes = 1 + max(int(max(fold.labels.max(initial=0), fold.answers.max(initial=0))) for fold in everything)
    tables = np.stack([_by_person(folds, names, classes) for folds in seeds], 1)  # [people seeds c c]
    values = {"war": war(tables.sum(0)).mean(), "uar": uar(tables.sum(0)).mean()}
    drawn: dict[str, list[np.ndarray]] = {"war": [], "uar": []}
    rng, n = np.random.default_rng(seed), len(names)
    for at in range(0, draws, 1000):  # for memory
        weights = resampling(n, min(1000, draws - at), rng)
        stack = (weights @ tables.reshape(n, -1)).reshape(-1, *tables.shape[1:])
        drawn["war"].append(war(stack).mean(1))
        drawn["uar"].append(uar(stack).mean(1))
    tail = 100 * norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1)) if n > 1 else np.nan
    ends = {name: np.percentile(np.concatenate(parts), [tail, 100 - tail]) if n > 1 else (np.nan, np.nan)
            for name, parts in drawn.items()}
    first = seeds[0]
    return Pooled(*(Interval(float(values[name]), *map(float, ends[name])) for name in ("war", "uar")), len(seeds),
                  sum(len(fold.labels) for fold in first), n, sum(fold.alone for fold in first),
                  _in_several([fold.ids for fold in first]), _in_several([fold.people for fold in first]))


def _by_person(folds: Sequence[HeldOut], names: np.ndarray, classes: int) -> np.ndarray:
    """Confusion counts of every person `[people c c]`."""
    person = np.searchsorted(names, np.concatenate([fold.people for fold in folds]))
    labels, answers = (np.concatenate([getattr(fold, part) for fold in folds]).astype(int)
                       for part in ("labels", "answers"))
    place = (person * classes + labels) * classes + answers
    return np.bincount(place, minlength=len(names) * classes**2).reshape(len(names), classes, classes)


def _in_several(folds: Sequence[np.ndarray]) -> int:
    """How many names occur in more than one of these."""
    _, times = np.unique(np.concatenate([np.unique(names) for names in folds]), return_counts=True)
    return int((times > 1).sum())
