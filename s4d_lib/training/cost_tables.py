"""tier → table     what the trainings of a tier take on each type of GPU, in rows and in Markdown.

The command's help names `TRAININGS`, so whatever takes seconds to import is imported where it is needed. Explained in
appendix c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from s4d_lib.errors import Refused

if TYPE_CHECKING:
    from s4d_lib.training.configs import Config
    from s4d_lib.training.costs import Cost

TRAININGS = ("pretraining", "sfer", "dfer", "joint", "moae", "s2d_sfer", "s2d_dfer")


def cost_table(trainings: Sequence[str] = TRAININGS, tier: str = "full", dataset: str = "drawn",
               stills: int | None = None, clips: int | None = None, gpu: str | None = None, runs: int = 1) -> dict:
    """{"rows": training → {"samples", "gpus": {gpu → Cost}}, "gpus": names, "runs"}; ValueError for an unknown name."""
    from s4d_lib.training.costs import GPUS, estimate

    for given, known in ((trainings, TRAININGS), ([gpu] if gpu else [], GPUS)):
        if strange := [name for name in given if name not in known]:
            raise Refused(f"no cost is known of {strange[0]!r}; there are: {', '.join(known)}")
    chosen = [gpu] if gpu else list(GPUS)
    rows = {}
    for name in trainings:
        config = configuration(name, tier)
        samples, tested = lengths(name, tier, dataset, stills, clips)
        rows[name] = {"samples": {m: samples[m] for m in config.modalities}, "epochs": config.epochs,
                      "gpus": {each: estimate(config, samples, GPUS[each], tested) for each in chosen}}
    return {"rows": rows, "gpus": chosen, "runs": runs, "tier": tier,
            "drawing": drawing_hours(tier, trainings) if dataset == "drawn" and not (stills or clips) else None}


def drawing_hours(tier: str, trainings: Sequence[str]) -> float | None:
    """Hours of one CPU thread to draw the faces that the trainings read; None below 160 pixels, which is measured."""
    from s4d_lib.training.costs import measured_costs
    from s4d_lib.training.tiers import LABELLED, UNLABELLED

    each = measured_costs().get("reading", {}).get("drawing")
    kinds = {UNLABELLED[tier] if name == "pretraining" else LABELLED[tier] for name in trainings}
    if each is None or {faces.size for faces in kinds} != {160}:
        return None
    return sum(faces.stills * each["image"] + faces.clips * each["clip"] for faces in kinds) / 3600


def configuration(training: str, tier: str) -> Config:
    """The tier's configuration of a training, with folders that are never opened."""
    from s4d_lib.training.tiers import finetuning, pretraining, s2d

    if tier not in ("smoke", "laptop", "full"):
        raise Refused(f"unknown tier {tier!r}; the tiers are smoke, laptop, full")
    nowhere = {"stills": "stills", "clips": "clips"}
    if training == "pretraining":
        return pretraining(tier, **nowhere)
    system, _, mode = training.rpartition("_")
    return s2d(tier, mode, **nowhere) if system else finetuning(tier, mode, **nowhere)


def lengths(training: str, tier: str, dataset: str, stills: int | None, clips: int | None
            ) -> tuple[dict[str, int], dict[str, int]]:
    """(training samples, test samples) by modality. Of drawn labelled faces a fifth is the test."""
    from s4d_lib.datasets.protocols import EXPECTED
    from s4d_lib.training.tiers import LABELLED, UNLABELLED

    faces = (UNLABELLED if training == "pretraining" else LABELLED)[tier]
    drawn = {"image": faces.stills, "clip": faces.clips}
    samples, tested = {m: round(0.8 * n) for m, n in drawn.items()}, {m: round(0.2 * n) for m, n in drawn.items()}
    if training == "pretraining" and dataset != "drawn":
        raise Refused("pretraining has no labelled data set: give --stills and --clips, or name other trainings")
    if dataset != "drawn":
        known = EXPECTED.get(dataset)
        if known is None or known.folds[1].train is None:
            raise Refused(f"how many clips {dataset!r} has is not known here; give --clips (and --stills)")
        samples["clip"], tested["clip"] = known.folds[1].train, known.folds[1].test
    given = {"image": stills, "clip": clips}
    return {m: given[m] or n for m, n in samples.items()}, tested


def as_lines(table: Mapping) -> list[str]:
    """A Markdown table, and below it where its numbers come from."""
    from s4d_lib.training.costs import GPUS, OVERHEAD_MB, UTILISATION

    names = {name: GPUS[name] for name in table["gpus"]}
    head = ["training", "stills", "clips", "epochs", "updates", "PFLOP", *(gpu.name for gpu in names.values())]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for training, row in table["rows"].items():
        costs: dict[str, Cost] = row["gpus"]
        first = next(iter(costs.values()))
        cells = [training, *(f"{row['samples'][m]:,}" if m in row["samples"] else "–" for m in ("image", "clip")),
                 str(row["epochs"]), f"{first.updates:,}", f"{first.petaflop:,.0f}" if first.petaflop >= 10 else
                 f"{first.petaflop:.2g}", *(cell(found, table["runs"]) for found in costs.values())]
        lines.append(f"| {' | '.join(cells)} |")
    each = f"{table['runs']} runs" if table["runs"] > 1 else "one run"
    peaks = "; ".join(f"{gpu.name} {gpu.tflops:g} TFLOPS ({gpu.source})" for gpu in names.values())
    drawn = "" if table["drawing"] is None else (
        f" The faces are drawn once before: {table['drawing']:.0f} h of one CPU thread, measured on a few.")
    return [*lines, "", f"Hours of {each} and GB of one step at the {table['tier']} tier, on one GPU. h: counted, the "
            f"operations of a step over {UTILISATION:.0%} of the published peak, which is assumed; hᵐ: measured steps; "
            "r: bound by reading, measured on one CPU thread a worker. GB: counted tensors, weights and AdamW's state, "
            f"and {OVERHEAD_MB / 1000:g} GB assumed for the rest; ÷k: needs accumulate=k. Peaks: {peaks}.{drawn}"]


def cell(found: Cost, runs: int) -> str:
    """`1.3 h · 12 GB`, with the marks that `as_lines` explains."""
    hours = found.hours * runs
    told = f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.2g}"
    mark = ("ᵐ" if found.basis == "measured" else "") + (" r" if found.bound == "reading" else "")
    if not found.accumulate:
        return f"does not fit ({found.memory_gb:.0f} GB)"
    return f"{told} h{mark} · {found.memory_gb:.0f} GB" + (f" ÷{found.accumulate}" if found.accumulate > 1 else "")
