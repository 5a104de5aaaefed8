"""record → contrasts     what a record of the transfer laboratory says: who gains, by how much, decided or not.

    pair(record, cell, "joint", "converged")           one contrast, with intervals over seeds and test people
    family(record, pairs)                              several, judged together by Holm's rule
    screening_effects(record, "joint", "dfer")         which dials move the difference
    surface(record, ("clips", "ratio"), "joint", "dfer")    the difference over two dials

Method names are those of `laboratory.METHODS`, and two more: "converged" is the length of clips-alone training with the
best mean validation WAR in that cell, "same_compute" the one that costs what the joint run costs. A study that keeps
the runs of clips alone once for several cells says so in `results["alone"]`. Derived in chapter 08.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from s4d_lib.contrasts import Contrast, contrast, holm, recall_differences, verdict
from s4d_lib.effects import Effect, Surface, fit_surface, main_effects
from s4d_lib.errors import Refused
from s4d_lib.files import RESULTS
from s4d_lib.laboratory import STILL_COST, answers, test_of
from s4d_lib.records import Record, results

ALONE = re.compile(r"dfer|dfer_x[\d.]+|dfer_same_compute")  # clips alone, in different lengths
NEAR = 1.0  # points of validation WAR within which two lengths count as equal


class Kept(NamedTuple):
    """Where a method's runs are in a record: the cell and the name they are kept under, and their row."""

    cell: str
    name: str
    row: dict[str, Any]


def methods_of(record: Record, cell: str) -> dict[str, Kept]:
    """Every method that can be compared in a cell: its own, and the clips-alone runs that serve it."""
    cells = record.results["cells"]
    serving = record.results.get("alone", {}).get(cell, cell)
    places = [place for place in dict.fromkeys((serving, cell)) if place in cells]
    return {name: Kept(place, name, row) for place in places for name, row in cells[place]["methods"].items()}


def lengths(record: Record, cell: str) -> dict[str, tuple[float, float]]:
    """Clips-alone training by length, shortest first: method → (mean updates, mean validation WAR)."""
    rows = {name: (float(np.mean(row["updates"])), float(np.mean(row["validation_war"])))
            for name, (_, _, row) in methods_of(record, cell).items() if ALONE.fullmatch(name)}
    return dict(sorted(rows.items(), key=lambda item: item[1]))


def converged(record: Record, cell: str) -> tuple[str, bool]:
    """(the length with the best mean validation WAR, whether a neighbour in length is within a point of it)."""
    rows = list(lengths(record, cell).items())
    if not rows:
        raise Refused(f"cell {cell!r} of {record.name} holds no clips-alone run")
    scores = [score for _, (_, score) in rows]
    best = int(np.argmax(scores))
    beside = [scores[i] for i in (best - 1, best + 1) if 0 <= i < len(scores)]
    return rows[best][0], any(scores[best] - score <= NEAR for score in beside)


def resolve(record: Record, cell: str, method: str) -> str:
    """The method that "converged" or "same_compute" stands for in a cell; any other name is itself."""
    if method == "converged":
        return converged(record, cell)[0]
    if method != "same_compute":
        return method
    known = {name: updates for name, (updates, _) in lengths(record, cell).items()}
    # By length and not by name: one run of clips alone may be the longer one of several ratios of stills.
    wanted = known.get("dfer", np.inf) * (1 + STILL_COST * record.results["cells"][cell]["factors"]["ratio"])
    nearest = min(known, key=lambda name: abs(known[name] - wanted), default="dfer")
    return nearest if known and abs(known[nearest] / wanted - 1) < 0.05 else "dfer_same_compute"


def has(record: Record, cell: str, *methods: str) -> bool:
    """Whether a cell holds all these methods."""
    known = methods_of(record, cell)
    if not lengths(record, cell) and {"converged", "same_compute"} & set(methods):
        return False
    return all(resolve(record, cell, method) in known for method in methods)


def both(record: Record, cell: str, one: str, other: str) -> tuple[list[int], list[Kept]]:
    """(seeds that two methods share, the two methods); ValueError where one is missing or no seed is shared."""
    known = methods_of(record, cell)
    names = [resolve(record, cell, method) for method in (one, other)]
    if missing := [name for name in names if name not in known]:
        raise Refused(f"cell {cell!r} of {record.name} has no {missing[0]}; it has {', '.join(known)}")
    kept = [known[name] for name in names]
    common = [seed for seed in kept[0].row["seeds"] if seed in kept[1].row["seeds"]]
    if not common:
        raise Refused(f"{names[0]} and {names[1]} have no seed in common in cell {cell!r}")
    return common, kept


def pair(record: Record, cell: str, one: str, other: str, metric: str = "war", clips: str = "all",
         draws: int = 10_000) -> Contrast:
    """`one` minus `other` on the cell's test clips, paired by seed. clips: all | order (needs time) | plain."""
    common, kept = both(record, cell, one, other)
    test = test_of(record, cell)
    rows = [answers(record, place, name)[[row["seeds"].index(seed) for seed in common]] for place, name, row in kept]
    subset = None if clips == "all" else (np.asarray(test["order_dependent"]) == (clips == "order"))
    return contrast(*rows, test["labels"], test["people"], metric, subset, draws)


def recalls(record: Record, cell: str, one: str, other: str, draws: int = 10_000) -> dict[str, Contrast]:
    """`one` minus `other` in the recall of every class, uncorrected for their number."""
    common, kept = both(record, cell, one, other)
    test, classes = test_of(record, cell), record.results["tests"][record.results["cells"][cell]["test"]]["classes"]
    rows = [answers(record, place, name)[[row["seeds"].index(seed) for seed in common]] for place, name, row in kept]
    return recall_differences(*rows, test["labels"], test["people"], classes, draws)


def values(record: Record, cell: str, one: str, other: str, metric: str = "war") -> np.ndarray:
    """`one` minus `other`, points, one value a common seed."""
    common, kept = both(record, cell, one, other)
    score = [dict(zip(row["seeds"], row[metric])) for _, _, row in kept]
    return np.array([score[0][seed] - score[1][seed] for seed in common])


# --- several at once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A contrast as one of a family: Holm's p and the verdict that follows (`contrasts.verdict`)."""

    found: Contrast
    p: float
    word: str


def family(record: Record, pairs: Mapping[str, tuple[str, str, str]], metric: str = "war") -> dict[str, Judged]:
    """name → (cell, one, other), judged together; pairs that the record does not hold are left out."""
    found = {name: pair(record, cell, one, other, metric) for name, (cell, one, other) in pairs.items()
             if has(record, cell, one, other)}
    return judge(found)


def judge(found: Mapping[str, Contrast]) -> dict[str, Judged]:
    """Contrasts, of one record or of several, judged together."""
    adjusted = holm({name: value.p for name, value in found.items()})
    return {name: Judged(value, adjusted[name], verdict(value, adjusted[name])) for name, value in found.items()}


def primary(confirmed: Record, long: Record) -> dict[str, Judged]:
    """The plan's primary family, judged together by Holm's rule: "cell: one - other" → contrast, p and word.

    H1, H3 and H4 of protocol_transfer.yaml in the headline cell; H1 and H3 in the long one, at equal clip steps.
    """
    headline = (("joint", "same_compute"), ("joint", "converged"), ("moae_clean", "joint"))
    equal = (("joint_x10", "dfer_x10"), ("moae_clean_x10", "joint_x10"))
    return judge({f"{cell}: {one} - {other}": pair(record, cell, one, other)
                  for record, pairs in ((confirmed, headline), (long, equal)) for cell in record.results["alone"]
                  for one, other in pairs})


CHEAP = ("joint_light", "joint_clipped", "joint_wide", "adapters", "moae_reference")  # other answers to harm


def harm(record: Record) -> tuple[str, dict[str, Judged], dict[str, Judged]]:
    """transfer_harm → (its cell with a harm made on purpose, the planned pair, the cheap answers minus joint training).

    The pair is "joint - dfer", whether there is harm at equal clip steps, and "moae_clean - joint"; Holm over the two,
    and over the five cheap answers. ValueError where the record lacks one of them.
    """
    cell = next(iter(record.results["alone"]))
    asked = {f"{one} - {other}": pair(record, cell, one, other)
             for one, other in (("joint", "dfer"), ("moae_clean", "joint"))}
    return cell, judge(asked), judge({name: pair(record, cell, name, "joint") for name in CHEAP})


def screening_effects(record: Record, one: str, other: str) -> list[Effect]:
    """Main effects of the design's factors on `one` minus `other`, largest first, as `effects.main_effects`."""
    cells = record.results["design"]
    rows = [values(record, cell, one, other) for cell in cells]
    least = min(map(len, rows))  # a cell that lacks a seed must not weigh less
    apart = record.results.get("alone")
    shared = [apart[cell] for cell in cells] if apart and resolve(record, cells[0], other).startswith("dfer") else None
    return main_effects(np.array(record.results["levels"]), np.stack([row[:least] for row in rows]),
                        list(record.results["factors"]), shared)


def grid(record: Record, factors: Sequence[str], one: str, other: str) -> tuple[np.ndarray, ...]:
    """A dense study as (x `[cells]`, y `[cells]`, values `[cells seeds]`), for cells that hold both methods."""
    cells = [cell for cell in record.results.get("grid", record.results["cells"]) if has(record, cell, one, other)]
    x, y = (np.array([record.results["cells"][cell]["factors"][name] for cell in cells], float) for name in factors)
    rows = [values(record, cell, one, other) for cell in cells]
    return x, y, np.stack([row[:min(map(len, rows))] for row in rows])


def surface(record: Record, factors: Sequence[str], one: str, other: str) -> Surface:
    """The smooth difference over two dials, with the band of its zero line (`effects.fit_surface`)."""
    x, y, found = grid(record, factors, one, other)
    return fit_surface(x, y, found, log=tuple(bool((axis > 0).all()) for axis in (x, y)))


def recorded(name: str) -> Record | None:
    """The committed record of a study, or None and a printed line where it has not been run yet."""
    if not (RESULTS / f"{name}.json").exists():
        print(f"{name}: no record yet; `s4d study {name}` makes it, and the chapter shows it when it is run again")
        return None
    return results(name)
