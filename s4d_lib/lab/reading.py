"""record → contrasts     what a record of the transfer laboratory says: who gains, by how much, decided or not.

    pair(record, cell, "joint", "converged")           one contrast, with intervals over seeds and test people
    family(record, pairs)                              several, judged together by Holm's rule
    screening_effects(record, "joint", "dfer")         which dials move the difference
    surface(record, ("clips", "ratio"), "joint", "dfer")    the difference over two dials
    matrix_of(record), recalls_of(record)              what chapter 10 asks: emotion by emotion, class by class

Method names are those of `lab.METHODS`, and two more: "converged" is the length of clips-alone training with the
best mean validation WAR in that cell, "same_compute" the one that costs what the joint run costs. A study that keeps
the runs of clips alone once for several cells says so in `results["alone"]`. Derived in chapters 08 and 10.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s4d_lib.analysis.correlation import TransferMatrix, transfer_matrix
from s4d_lib.analysis.two_readings import shared_classes
from s4d_lib.datasets.labels import canonical, schema_named
from s4d_lib.errors import Refused
from s4d_lib.files import RESULTS
from s4d_lib.lab.cells import STILL_COST
from s4d_lib.lab.records import LabRecord, MethodRuns
from s4d_lib.metrics.contrasts import Contrast, contrast, holm, recall_differences, verdict
from s4d_lib.metrics.effects import Effect, Surface, fit_surface, main_effects
from s4d_lib.records import Record, results

ALONE = re.compile(r"dfer|dfer_x[\d.]+|dfer_same_compute")  # clips alone, in different lengths
NEAR = 1.0  # points of validation WAR within which two lengths count as equal


def methods_of(record: Record, cell: str) -> dict[str, MethodRuns]:
    """Every method that can be compared in a cell: its own, and the clips-alone runs that serve it."""
    lab = LabRecord.of(record)
    places = [place for place in dict.fromkeys((lab.alone.get(cell, cell), cell)) if place in lab.cells]
    return {name: runs for place in places for name, runs in lab.cells[place].methods.items()}


def lengths(record: Record, cell: str) -> dict[str, tuple[float, float]]:
    """Clips-alone training by length, shortest first: method → (mean updates, mean validation WAR)."""
    rows = {name: (float(np.mean(runs.each("updates"))), float(np.mean(runs.each("validation_war"))))
            for name, runs in methods_of(record, cell).items() if ALONE.fullmatch(name)}
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
    steps = {name: updates for name, (updates, _) in lengths(record, cell).items()}
    # By length and not by name: one run of clips alone may be the longer one of several ratios of stills.
    wanted = steps.get("dfer", np.inf) * (1 + STILL_COST * LabRecord.of(record).cell(cell).factors["ratio"])
    nearest = min(steps, key=lambda name: abs(steps[name] - wanted), default="dfer")
    return nearest if steps and abs(steps[nearest] / wanted - 1) < 0.05 else "dfer_same_compute"


def has(record: Record, cell: str, *methods: str) -> bool:
    """Whether a cell holds all these methods."""
    there = methods_of(record, cell)
    if not lengths(record, cell) and {"converged", "same_compute"} & set(methods):
        return False
    return all(resolve(record, cell, method) in there for method in methods)


def both(record: Record, cell: str, one: str, other: str) -> tuple[list[int], list[MethodRuns]]:
    """(seeds that two methods share, the two methods); ValueError where one is missing or no seed is shared."""
    there = methods_of(record, cell)
    names = [resolve(record, cell, method) for method in (one, other)]
    if missing := [name for name in names if name not in there]:
        raise Refused(f"cell {cell!r} of {record.name} has no {missing[0]}; it has {', '.join(there)}")
    first, second = (there[name] for name in names)
    common = [seed for seed in first.seeds if seed in second.seeds]
    if not common:
        raise Refused(f"{names[0]} and {names[1]} have no seed in common in cell {cell!r}")
    return common, [first, second]


def pair(record: Record, cell: str, one: str, other: str, metric: str = "war", clips: str = "all",
         draws: int = 10_000) -> Contrast:
    """`one` minus `other` on the cell's test clips, paired by seed. clips: all | order (needs time) | plain."""
    common, methods = both(record, cell, one, other)
    test = LabRecord.of(record).cell(cell).test
    subset = None if clips == "all" else (test.order_dependent == (clips == "order"))
    return contrast(*(runs.answers(common) for runs in methods), test.labels, test.people, metric, subset, draws)


def recalls(record: Record, cell: str, one: str, other: str, draws: int = 10_000) -> dict[str, Contrast]:
    """`one` minus `other` in the recall of every class, uncorrected for their number."""
    common, methods = both(record, cell, one, other)
    test = LabRecord.of(record).cell(cell).test
    rows = [runs.answers(common) for runs in methods]
    return recall_differences(*rows, test.labels, test.people, test.classes, draws)


def values(record: Record, cell: str, one: str, other: str, metric: str = "war") -> np.ndarray:
    """`one` minus `other`, points, one value a common seed."""
    common, methods = both(record, cell, one, other)
    first, second = (dict(zip(runs.seeds, runs.each(metric))) for runs in methods)
    return np.array([first[seed] - second[seed] for seed in common])


# --- several at once -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A contrast as one of a family: Holm's p and the verdict that follows (`metrics.verdict`)."""

    found: Contrast
    p: float
    word: str


def family(record: Record, pairs: Mapping[str, tuple[str, str, str]], metric: str = "war") -> dict[str, Judged]:
    """name → (cell, one, other), judged together; pairs that the record does not hold are left out."""
    return judge({name: pair(record, cell, one, other, metric) for name, (cell, one, other) in pairs.items()
                  if has(record, cell, one, other)})


def judge(contrasts: Mapping[str, Contrast]) -> dict[str, Judged]:
    """Contrasts, of one record or of several, judged together."""
    adjusted = holm({name: one.p for name, one in contrasts.items()})
    return {name: Judged(one, adjusted[name], verdict(one, adjusted[name])) for name, one in contrasts.items()}


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
    """Main effects of the design's factors on `one` minus `other`, largest first, as `metrics.effects.main_effects`."""
    cells = record.results["design"]
    rows = [values(record, cell, one, other) for cell in cells]
    least = min(map(len, rows))  # a cell that lacks a seed must not weigh less
    apart = record.results.get("alone")
    shared = [apart[cell] for cell in cells] if apart and resolve(record, cells[0], other).startswith("dfer") else None
    return main_effects(np.array(record.results["levels"]), np.stack([row[:least] for row in rows]),
                        list(record.results["factors"]), shared)


def grid(record: Record, factors: Sequence[str], one: str, other: str) -> tuple[np.ndarray, ...]:
    """A dense study as (x `[cells]`, y `[cells]`, values `[cells seeds]`), for cells that hold both methods."""
    lab = LabRecord.of(record)
    cells = [cell for cell in record.results.get("grid", lab.cells) if has(record, cell, one, other)]
    x, y = (np.array([lab.cells[cell].factors[name] for cell in cells], float) for name in factors)
    rows = [values(record, cell, one, other) for cell in cells]
    return x, y, np.stack([row[:min(map(len, rows))] for row in rows])


def surface(record: Record, factors: Sequence[str], one: str, other: str) -> Surface:
    """The smooth difference over two dials, with the band of its zero line (`metrics.effects.fit_surface`)."""
    x, y, differences = grid(record, factors, one, other)
    return fit_surface(x, y, differences, log=tuple(bool((axis > 0).all()) for axis in (x, y)))


# --- emotion by emotion, class by class (chapter 10) -----------------------------------------------------------------

# Methods whose stills or their labels are broken on purpose: their recalls of stills are no ability.
BROKEN = ("without_", "random_labels", "shuffled_images")


def matrix_of(record: Record, cell: str | None = None, baseline: str = "joint") -> TransferMatrix:
    """The matrix of a record of the laboratory (`emotion_transfer`): methods without_<class> beside `baseline`.

    Seeds that one of the methods lacks are left out of all.
    """
    lab = LabRecord.of(record)
    here = lab.cell(cell or next(iter(lab.cells)))
    named = {canonical(name) or name: name for name in here.test.classes}
    left_out = {named[word]: runs for name, runs in here.methods.items() if name.startswith("without_")
                and (word := canonical(name.removeprefix("without_"))) in named}
    if not left_out:
        raise Refused(f"no method of this cell leaves out a class; it holds {', '.join(here.methods)}")
    common = shared_seeds([here.methods[baseline], *left_out.values()])
    answers = {name: left_out[name].answers(common) for name in here.test.classes if name in left_out}
    return transfer_matrix(answers, here.methods[baseline].answers(common), here.test.labels, here.test.people,
                           here.test.classes)


def shared_seeds(methods: Sequence[MethodRuns]) -> list[int]:
    """Seeds that all of these methods have, in rising order."""
    return sorted(set.intersection(*(set(runs.seeds) for runs in methods))) if methods else []


def recalls_of(record: Record, methods: Sequence[str] | None = None,
               still_classes: Sequence[str] = schema_named("affectnet7").classes,
               ) -> tuple[np.ndarray, np.ndarray, list[str], list[int], tuple[str, ...]]:
    """Recalls of stills and of clips [r c] in percent, setting and seed of each run, and the classes.

    Every method in every cell is a setting, if it scored both tasks and is not BROKEN. Methods of one cell share their
    clips: for a record of many cells name one of `methods`. Only seeds that all of these settings have are taken.
    Cells whose stills have other classes than `still_classes` are another question.
    """
    def counts(runs: MethodRuns) -> bool:
        scored = runs.recall is not None and runs.image_recall is not None
        return scored and len(runs.image_recall[0]) == len(still_classes) and not runs.name.startswith(BROKEN) and (
            methods is None or runs.name in methods)

    settings = [(cell, runs) for cell in LabRecord.of(record).cells.values() for runs in cell.methods.values()
                if counts(runs)]
    common = shared_seeds([runs for _, runs in settings])
    stills, clips, names, seeds, classes = [], [], [], [], ()
    for cell, runs in settings:
        classes, columns = shared_classes(still_classes, cell.test.classes)
        for seed in common:
            at = runs.seeds.index(seed)
            stills.append(np.array(runs.image_recall[at])[columns["static"]])
            clips.append(np.array(runs.recall[at])[columns["dynamic"]])
            names.append(f"{runs.cell}, {runs.name}")
            seeds.append(seed)
    return np.array(stills), np.array(clips), names, seeds, classes


# --- committed records ---------------------------------------------------------------------------------------------


class NotRecorded(UserWarning):
    """A study whose record is not there yet."""


def recorded(name: str) -> Record | None:
    """The committed record of a study, or None and a `NotRecorded` warning where it has not been run yet."""
    if not (RESULTS / f"{name}.json").exists():
        warnings.warn(f"{name}: no record yet; `s4d study {name}` makes it, and the chapter shows it when it is run "
                      "again", NotRecorded, stacklevel=2)
        return None
    return results(name)
