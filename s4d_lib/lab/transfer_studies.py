"""cells → studies     the transfer laboratory's studies, each one command: `s4d study transfer_screening`.

Every function trains what chapters/results/protocol_transfer.yaml plans (or loads what is there), and returns one
record with what each run said about each test clip. Training is resumable; the record is written when all runs are in.
Derived in chapters 06, 08, 09 and 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from s4d_lib.lab.cells import ABLATIONS, CLASSES, Cell, alone, as_long
from s4d_lib.lab.foretelling import transfer_measures
from s4d_lib.lab.laboratory import lab_floors, plan, run_lab
from s4d_lib.lab.records import lab_record
from s4d_lib.lab.routing_study import routing_inspection
from s4d_lib.records import Record

# The screening design: a fraction 2^(8-4) of resolution IV. Four factors run through all 16 combinations, the other
# four are products of three of them, so that no main effect is confused with an interaction of two factors.
FACTORS: dict[str, tuple] = {
    "clips": (200, 1600), "sequence": (0.1, 0.8), "init": ("random", "shipped"), "ratio": (1, 4),
    "noise": ("none", "heavy"), "shift": ("none", "photos"), "weight": (0.3, 3.0), "schema": ("same", "merged"),
}
GENERATORS = {"noise": ("sequence", "init", "ratio"), "shift": ("clips", "init", "ratio"),
              "weight": ("clips", "sequence", "init"), "schema": ("clips", "sequence", "ratio")}


def screening_design() -> tuple[list[Cell], np.ndarray]:
    """16 cells and their levels ±1 `[cells factors]`, factors in the order of FACTORS."""
    free = [name for name in FACTORS if name not in GENERATORS]
    rows = []
    for signs in product((-1, 1), repeat=len(free)):
        level = dict(zip(free, signs))
        level |= {name: int(np.prod([level[one] for one in parents])) for name, parents in GENERATORS.items()}
        rows.append([level[name] for name in FACTORS])
    levels = np.array(rows)
    cells = [Cell(**{name: FACTORS[name][(sign + 1) // 2] for name, sign in zip(FACTORS, row)}) for row in rows]
    return cells, levels


def transfer_screening(tier: str = "laptop", seeds: Sequence[int] = (100, 101), jobs: int = 2) -> Record:
    """Which dials move transfer? Joint training and MoAE in 16 cells, clips alone at the same steps and compute."""
    cells, levels = screening_design()
    runs = run_lab([(one, method, seed) for seed in seeds for cell in cells for one, method in (
        (alone(cell), "dfer"), (alone(cell), as_long(cell)), (cell, "joint"), (cell, "moae_clean"))], tier, jobs=jobs)
    return lab_record("transfer_screening", f"{len(cells)} cells of a 2^(8-4) design, {len(runs)} runs", runs,
                      plan("screening"), tier, factors={name: list(two) for name, two in FACTORS.items()},
                      levels=levels.tolist(), design=[cell.name for cell in cells],
                      alone={cell.name: alone(cell).name for cell in cells})


MAP_CLIPS, MAP_WEIGHTS = (200, 600, 1800), (0.1, 0.5, 2.0, 8.0)


def transfer_map(tier: str = "laptop", seeds: Sequence[int] = (110, 111), jobs: int = 2) -> Record:
    """A grid over the weight of the still loss and the number of clips, with heavily mislabelled stills."""
    return _map("transfer_map", tier, seeds, jobs)


def transfer_map_unclipped(tier: str = "laptop", seeds: Sequence[int] = (110, 111, 112, 113, 114),
                           jobs: int = 2) -> Record:
    """The same grid without gradient clipping, which divides the weight of a step out again."""
    return _map("transfer_map_unclipped", tier, seeds, jobs, clip_norm=None)


def _map(name: str, tier: str, seeds: Sequence[int], jobs: int, **changes: Any) -> Record:
    cells = [Cell(clips=clips, weight=weight, noise="heavy") for clips in MAP_CLIPS for weight in MAP_WEIGHTS]
    runs = run_lab([(one, method, seed) for seed in seeds for cell in cells for one, method in (
        (alone(cell), "dfer"), (cell, "joint"), (cell, "moae_clean"))], tier, jobs=jobs, **changes)
    return lab_record(name, f"{len(cells)} cells, {len(runs)} runs", runs, plan("map"), tier,
                      axes={"clips": list(MAP_CLIPS), "weight": list(MAP_WEIGHTS)},
                      grid=[cell.name for cell in cells], alone={cell.name: alone(cell).name for cell in cells})


PAPER_LIKE = Cell(clips=1600, ratio=8)
HEADLINE = ("dfer", "dfer_x3", "dfer_x5", "dfer_x10", "joint", "joint_wide", "moae_clean")


def transfer_confirmatory(tier: str = "laptop", seeds: Sequence[int] = tuple(range(200, 210)), jobs: int = 2) -> Record:
    """The paper's situation, with new faces, a new test set and ten new seeds; nothing is tuned on it."""
    runs = run_lab([(alone(PAPER_LIKE) if method.startswith("dfer") else PAPER_LIKE, method, seed) for seed in seeds
                    for method in HEADLINE], tier, "confirm", jobs)
    return lab_record("transfer_confirmatory", f"{len(runs)} runs of {len(HEADLINE)} methods", runs,
                      plan("confirmatory"), tier, phase="confirm", alone={PAPER_LIKE.name: alone(PAPER_LIKE).name},
                      floors=_floors(PAPER_LIKE, tier, seeds[0]))


LONG = Cell(clips=1600, ratio=2)


def transfer_long(tier: str = "laptop", seeds: Sequence[int] = tuple(range(240, 250)), jobs: int = 2) -> Record:
    """Both tasks and clips alone, all trained ten units of clip steps: harm at equal clip steps near convergence."""
    methods = ("dfer_x10", "joint_x10", "joint_wide_x10", "moae_clean_x10")
    runs = run_lab([(alone(LONG) if method.startswith("dfer") else LONG, method, seed) for seed in seeds
                    for method in methods], tier, "confirm", jobs)
    return lab_record("transfer_long", f"{len(runs)} runs of {len(methods)} methods", runs, plan("confirmatory"), tier,
                      phase="confirm", alone={LONG.name: alone(LONG).name}, floors=_floors(LONG, tier, seeds[0]))


HARM, RIGHT = Cell(clips=1800, weight=8, noise="heavy"), Cell(clips=1800, weight=8)
HARMED = ("dfer", "dfer_x1.5", "dfer_x3", "joint", "joint_wide", "adapters", "moae_clean", "moae_reference",
          "joint_light")


def transfer_harm(tier: str = "laptop", seeds: Sequence[int] = tuple(range(270, 280)), jobs: int = 2) -> Record:
    """The cell of the unclipped map that lost most, on new faces and seeds: is there harm, and what repairs it?"""
    free = {"tier": tier, "phase": "confirm", "jobs": jobs, "clip_norm": None}
    runs = run_lab([(alone(HARM) if method.startswith("dfer") else HARM, method, seed) for seed in seeds
                    for method in HARMED], **free)
    runs |= run_lab([(HARM, "joint_clipped", seed) for seed in seeds], tier, "confirm", jobs)
    runs |= run_lab([(RIGHT, method, seed) for seed in seeds for method in ("joint", "moae_clean")], **free)
    return lab_record("transfer_harm", f"{len(runs)} runs of {len(HARMED) + 1} methods, two kinds of still labels",
                      runs, plan("harm"), tier, phase="confirm", floors=_floors(HARM, tier, seeds[0]),
                      alone={cell.name: alone(cell).name for cell in (HARM, RIGHT)})


CENTRE = Cell()
COMPARED = ("dfer", "dfer_x1.5", "dfer_x3", "dfer_balanced", "moae_dfer", "sfer", "joint", "joint_separate", "adapters",
            "joint_wide", "moae_clean", "moae_reference", "random_labels", "shuffled_images", "balanced")
TUNED = ("paired_sum", "paired_uncertainty", "paired_famo", "paired_pcgrad", "paired_cagrad", "paired_upgrad")
TUNING_SEEDS = (120, 121)


def transfer_methods(tier: str = "laptop", seeds: Sequence[int] = tuple(range(210, 215)), jobs: int = 2) -> Record:
    """Every method in one cell; remedies and weights tuned on other seeds with the same number of tries."""
    chosen, tried = {}, {}
    for method in TUNED:
        dial, values = ("still_weight", (0.3, 1.0, 3.0)) if method == "paired_sum" else ("lr", (1.5e-3, 3e-3, 6e-3))
        scores = {value: _validation(run_lab([(CENTRE, method, seed) for seed in TUNING_SEEDS], tier, "confirm", jobs,
                                             **{dial: value})) for value in values}
        tried[method] = {"dial": dial, "validation_war": {f"{value:g}": score for value, score in scores.items()}}
        chosen[method] = {dial: max(scores, key=scores.__getitem__)}
    runs = run_lab([(CENTRE, method, seed) for seed in seeds for method in COMPARED], tier, "confirm", jobs)
    for method in TUNED:
        runs |= run_lab([(CENTRE, method, seed) for seed in seeds], tier, "confirm", jobs, **chosen[method])
    runs |= {(cell, "paired_sum_untuned", seed): run for (cell, _, seed), run in
             run_lab([(CENTRE, "paired_sum", seed) for seed in seeds], tier, "confirm", jobs).items()}
    return lab_record("transfer_methods", f"{len(runs)} runs of {len(COMPARED) + len(TUNED) + 1} methods", runs,
                      plan("methods"), tier, phase="confirm", tuning=tried, floors=_floors(CENTRE, tier, seeds[0]))


def _floors(cell: Cell, tier: str, seed: int) -> dict[str, dict]:
    return {name: scores.as_dict() for name, scores in lab_floors(cell, tier, "confirm", seed).items()}


def _validation(runs: dict) -> float:
    """Mean over seeds of the best validation WAR of a run."""
    return float(np.mean([max(line["clip_war"] for line in run.record.results["history"]) for run in runs.values()]))


def router_ablations(tier: str = "laptop", seeds: Sequence[int] = tuple(range(220, 225)), jobs: int = 2) -> Record:
    """The mixture with one thing changed at a time."""
    methods = ("joint", "joint_wide", "adapters", "moae_clean", "moae_reference", *ABLATIONS)
    runs = run_lab([(CENTRE, method, seed) for seed in seeds for method in methods], tier, "confirm", jobs)
    return lab_record("router_ablations", f"{len(runs)} runs of {len(methods)} variants", runs, plan("ablations"), tier,
                      phase="confirm", changes={name: dict(change) for name, change in ABLATIONS.items()})


def emotion_transfer(tier: str = "laptop", seeds: Sequence[int] = tuple(range(230, 235)), jobs: int = 2) -> Record:
    """Joint training with one class of stills left out: which class of clips misses it?"""
    methods = ("dfer", "joint", *(f"without_{name.lower()}" for name in CLASSES))
    runs = run_lab([(CENTRE, method, seed) for seed in seeds for method in methods], tier, "confirm", jobs)
    return lab_record("emotion_transfer", f"{len(runs)} runs, one class of stills left out of each", runs,
                      plan("emotions"), tier, phase="confirm")


WIDTHS = ("nano_narrow", "nano", "nano_wide")


def transfer_dials(tier: str = "laptop", seeds: Sequence[int] = tuple(range(250, 255)), jobs: int = 2) -> Record:
    """One dial at a time: how wide the network is, and whose idea of the classes the stills carry."""
    cells = [Cell(init="random", size=size) for size in WIDTHS] + [Cell(schema=schema) for schema in
                                                                   ("same", "merged", "split")]
    runs = run_lab([(one, method, seed) for seed in seeds for cell in cells for one, method in (
        (alone(cell), "dfer"), (cell, "joint"), (cell, "moae_clean"))], tier, "confirm", jobs)
    return lab_record("transfer_dials", f"{len(cells)} cells, {len(runs)} runs", runs, plan("dials"), tier,
                      phase="confirm", widths=[cell.name for cell in cells[:3]],
                      schemas=[cell.name for cell in cells[3:]],
                      alone={cell.name: alone(cell).name for cell in cells})


TRANSFER_STUDIES = {study.__name__: study for study in (
    transfer_screening, transfer_map, transfer_map_unclipped, transfer_dials, transfer_confirmatory, transfer_long,
    transfer_harm, transfer_methods, router_ablations, emotion_transfer, transfer_measures, routing_inspection)}
