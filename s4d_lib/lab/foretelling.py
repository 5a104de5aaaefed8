"""measures → correlation     does any measure of a joint run foretell whether the dynamic task gains?

One number a cell for each measure of `measures.py`, one transfer a cell, and their rank correlation, beside what the
best of so many measures reaches by chance. Derived in chapter 08.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib.errors import require
from s4d_lib.files import runs_root, write_atomically
from s4d_lib.lab.measures import measure_cell, plain
from s4d_lib.records import Record, code_state, device_state, fingerprint, peak_memory_mb, results

if TYPE_CHECKING:
    from s4d_lib.lab.cells import Cell


def _over_groups(measured: dict, when: str, pair: str, field: str) -> list[float]:
    """One value a group of weights, those without a value left out."""
    rows = measured["agreement"][when]["between"][pair].values()
    values = [row[field][0] if isinstance(row[field], list) else row[field] for row in rows]
    return [value for value in values if value is not None]


def _mean(values: Sequence[float | None], least: int = 1) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) >= least else None


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _last(blocks: Mapping[str, float | None]) -> float | None:
    return list(blocks.values())[-1]


# name → (what it is, how it is read from what measure_cell returns); all but the last two are taken early in training
PREDICTORS = {
    "cosine": ("cosine of the two tasks' gradients, mean over groups of weights",
               lambda c: _mean(_over_groups(c, "early", "image | clip", "cosine"))),
    "cosine above chance labels": ("the same, less the cosine of stills with clips whose labels were dealt anew",
                                   lambda c: _difference(_mean(_over_groups(c, "early", "image | clip", "cosine")),
                                                         _mean(_over_groups(c, "early", "image | random", "cosine")))),
    "corrected cosine": ("the cosine with the noise of batches taken out, where the ceilings allow",
                         lambda c: _mean(_over_groups(c, "early", "image | clip", "corrected"))),
    "length ratio": ("length of the stills' gradient over that of the clips', mean of logarithms",
                     lambda c: _mean(np.log(_over_groups(c, "early", "image | clip", "ratio")).tolist())),
    "affinity": ("fall of the clips' loss after a step of the stills",
                 lambda c: c["lookahead"]["image → clip"][0]),
    "affinity, less own": ("the same, less the fall after a step of other clips",
                           lambda c: _difference(c["lookahead"]["image → clip"][0], c["lookahead"]["clip → clip"][0])),
    "Adam turns": ("cosine of the clips' step with the joint state and with its own, mean over groups",
                   lambda c: _mean([row["cosine"][0] for row in c["interference"]["clip"].values()])),
    "Adam shrinks": ("length of that step over the one with its own state, mean over groups",
                     lambda c: _mean([row["size"][0] for row in c["interference"]["clip"].values()])),
    "stills see clips alike": ("CKA of the single tasks' last blocks on clips",
                               lambda c: _last(c["alike"]["early"]["clip"]["dfer | sfer"])),
    "joint sees clips alike": ("CKA of the joint and the clips' own last block on clips",
                               lambda c: _last(c["alike"]["early"]["clip"]["joint | dfer"])),
    "alike at the end": ("CKA of the finished single tasks' last blocks on clips",
                         lambda c: _last(c["alike"]["end"]["clip"]["dfer | sfer"])),
    "use of order": ("points of WAR that the finished clips-alone model loses when frames are shuffled",
                     lambda c: c["time"]["dfer"]["shuffled"]["accuracy"][0]),
}


def predictors(measured: dict) -> dict[str, float | None]:
    """What `measure_cell` returned → one number for each name in PREDICTORS, None where it is undefined."""
    return {name: plain(read(measured), 8) for name, (_, read) in PREDICTORS.items()}


def rank_correlations(measures: Mapping[str, Mapping[str, float | None]], transfer: Mapping[str, float],
                      shuffles: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Cell → measures, cell → transfer in points → the rank correlation of every measure with the transfer.

    {"rho": measure → {value, low, high, cells}, "chance": c}: Spearman over cells with its bootstrap interval over
    cells, and the |ρ| that the best of these measures reaches in one shuffled table of twenty. A measure counts as
    foretelling only beyond both: an interval without 0, and |ρ| above chance. Measures with fewer than five cells are
    left out.
    """
    from s4d_lib.metrics.effects import spearman

    cells = [cell for cell in measures if cell in transfer]
    names = dict.fromkeys(name for cell in cells for name in measures[cell])  # in the order of their first cell
    table, rho = {}, {}
    for name in names:
        pairs = [(measures[cell][name], transfer[cell]) for cell in cells if measures[cell].get(name) is not None]
        if len(pairs) >= 5 and len(set(pairs)) > 1:
            table[name] = pairs
    for name, pairs in table.items():
        x, y = map(np.array, zip(*pairs))
        correlation = spearman(x, y)
        rho[name] = {key: plain(getattr(correlation, key)) for key in ("value", "low", "high")} | {"cells": len(pairs)}
    return {"rho": rho,
            "chance": plain(_best_by_chance([measures[cell] for cell in cells], [transfer[cell] for cell in cells],
                                             list(table), shuffles, seed))}


def _best_by_chance(rows: list[Mapping], transfer: list[float], names: list[str], shuffles: int, seed: int) -> float:
    """95th percentile of the largest |ρ| over all measures when the cells' transfer is shuffled among them."""
    require("scipy", "lab")
    from scipy.stats import spearmanr

    rng, best = np.random.default_rng(seed), []
    values = {name: np.array([np.nan if row.get(name) is None else row[name] for row in rows]) for name in names}
    for _ in range(shuffles):
        dealt = rng.permutation(transfer)
        best.append(max(abs(spearmanr(known[~np.isnan(known)], dealt[~np.isnan(known)]).statistic)
                        for known in values.values()))
    return float(np.percentile(best, 95)) if best else math.nan


# --- the study -------------------------------------------------------------------------------------------------------

# transfer → the two methods whose difference in DFER WAR it is; "converged" is the length that validation prefers
TRANSFERS = {"joint - dfer": ("joint", "dfer"), "joint - dfer_converged": ("joint", "converged"),
             "joint - dfer_same_compute": ("joint", "same_compute"), "moae_clean - joint": ("moae_clean", "joint")}


def transfer_measures(tier: str = "laptop", seeds: Sequence[int] = (100,), jobs: int = 2,
                      screening: Record | None = None, root: Path | None = None) -> Record:
    """Measure every cell of a recorded study of the laboratory and ask what foretells the transfer in it.

    The transfers are those of the record (None: the committed screening); the measures are of its own runs of `seeds`
    (loaded, or trained where they are missing), and a cell's value is their mean. Each measured cell stays on disk:
    stopping and starting again measures only what is missing. Exploratory, as the study it reads.
    """
    import time

    from s4d_lib.lab.records import LabRecord

    started, screening = time.monotonic(), screening or results("transfer_screening")
    lab = LabRecord.of(screening)
    cells = {name: lab.cells[name].cell() for name in screening.results.get("design", lab.cells)}
    measured = measure_lab([(cell, seed) for cell in cells.values() for seed in seeds], tier, "explore", jobs, root)
    rows = {name: [measured[cell, seed] for seed in seeds] for name, cell in cells.items()}
    known = {name: _over_seeds([predictors(one) for one in several]) for name, several in rows.items()}
    transfer = {name: transfers(screening, name) for name in cells}
    prediction = {}
    for which in TRANSFERS:
        measured_in = {name: row[which] for name, row in transfer.items() if which in row}
        if len(measured_in) >= 5:
            prediction[which] = rank_correlations(known, measured_in)
    return Record(
        name="transfer_measures", kind="study", headline=_headline(prediction), tier=tier,
        protocol={"exploratory": True, "cells_of": screening.name, "plan": "chapters/results/protocol_transfer.yaml"},
        data=screening.data, seeds=list(seeds), code=code_state(), device=device_state(),
        results={"cells": {name: {"factors": lab.cells[name].factors, "measured": rows[name],
                                  "predictors": known[name], "transfer": transfer[name]} for name in cells},
                 "prediction": prediction, "meaning": {name: text for name, (text, _) in PREDICTORS.items()}},
        wall_seconds=time.monotonic() - started, peak_memory_mb=peak_memory_mb())


def measure_lab(wanted: Sequence[tuple[Cell, int]], tier: str = "laptop", phase: str = "explore", jobs: int = 2,
                root: Path | None = None, **more: Any) -> dict[tuple[Cell, int], dict]:
    """`measure_cell` for many (cell, seed), `jobs` one-thread processes at a time, each kept as JSON under the runs."""
    from s4d_lib.lab.grid import one_thread

    root = root or runs_root()
    root.mkdir(parents=True, exist_ok=True)
    if jobs == 1:
        return {(cell, seed): _measured(cell, seed, tier, phase, root, more) for cell, seed in wanted}
    # spawn, as in lab.grid.run_grid
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        waiting = {one: pool.submit(_measured, *one, tier, phase, root, more) for one in wanted}
        return {one: done.result() for one, done in waiting.items()}


def _measured(cell: Cell, seed: int, tier: str, phase: str, root: Path, more: dict) -> dict:
    from s4d_lib.lab.cells import run_config
    from s4d_lib.training.content import data_use

    one = run_config(cell, "joint", seed, tier, phase)
    read = [data_use(one, m).model_dump() for m in one.modalities]  # other faces or settings, other measures
    path = root / f"measures-{fingerprint([one.model_dump(exclude={'stills', 'clips'}), read, phase, more])}.json"
    if not path.exists():
        measured = measure_cell(cell, seed, tier, phase, root=root, **more)
        write_atomically(path, json.dumps(measured, allow_nan=False))
    return json.loads(path.read_text())


def transfers(record: Record, cell: str) -> dict[str, float]:
    """Those differences of TRANSFERS that a cell of a record holds: points of DFER WAR, mean over common seeds."""
    from s4d_lib.lab.reading import has, values

    return {which: plain(float(values(record, cell, *pair).mean())) for which, pair in TRANSFERS.items()
            if has(record, cell, *pair)}


def _over_seeds(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    known = {name: [row[name] for row in rows if row[name] is not None] for name in rows[0]}
    return {name: plain(float(np.mean(values)), 8) if values else None for name, values in known.items()}


def _headline(prediction: Mapping[str, Mapping]) -> str:
    parts = []
    for which, row in prediction.items():
        best = max(row["rho"], key=lambda name: abs(row["rho"][name]["value"]), default=None)
        if best is not None:
            parts.append(f"{which}: strongest {best}, rho {row['rho'][best]['value']:+.2f} "
                         f"(best of all by chance {row['chance']:.2f})")
    return "; ".join(parts) or "too few cells to correlate"
