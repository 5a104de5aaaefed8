"""runs → inspection     the MoAE inspector on trained runs: who routes where, and what the answers owe to it, by seed.

    inspection(model, probes, classes)     what `analysis/routing.py` says about one model, as plain numbers
    routing_inspection(cell, seeds, ...)   the laboratory's runs of one method: that, and every rule's answers by seed

The answers of a rule are kept like those of a method, so `lab.pair(record, cell, rule, "unchanged")`
gives its effect over seeds and people. Derived in chapter 09.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from s4d_lib.analysis.rerouting import Rule, answers_under, effects, only, silent, standard_rules
from s4d_lib.analysis.routing import (
    Routes,
    branch_size,
    expert_information,
    expert_load,
    observe,
    sample_load,
    summary,
    token_groups,
    token_load,
)
from s4d_lib.lab.cells import Cell, run_config
from s4d_lib.lab.laboratory import plan, run_lab
from s4d_lib.lab.records import encode, lab_record
from s4d_lib.records import Record
from s4d_lib.training.configs import FinetuneConfig
from s4d_lib.training.data import read_samples, training_split, views
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.plans import Batches
from s4d_lib.training.runs import Run

LOOKS = 400  # samples of each modality whose routes are kept; answers are of all test samples


@dataclass(frozen=True)
class Probe:
    """Samples of one modality, ready for the model: x `[(n views) ...]`, labels and people ints `[n]`."""

    x: Tensor
    labels: np.ndarray
    people: np.ndarray
    views: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Probe:
        """The first samples, one view each."""
        x = self.x.unflatten(0, (-1, self.views))[:count, 0]
        return Probe(x, self.labels[:count], self.people[:count])


def probe(config: FinetuneConfig, modality: str, split: Literal["train", "validation", "test"] = "test",
          sampling: str = "centre", limit: int | None = None) -> Probe:
    """Samples of a configuration: its test list, its whole training list, or what of that it keeps for validation.

    sampling="test" gives clips their test views.
    """
    samples = read_samples(config, modality, "test" if split == "test" else "train")
    if split == "validation":
        samples = training_split(config, modality, samples)[1]
    samples = samples[:limit]
    items = views(config, samples, sampling, 0)
    batch = Batches(items)[range(len(items))]
    people = np.unique([sample.group or sample.id for sample in samples], return_inverse=True)[1]
    return Probe(batch["x"], batch["label"].numpy(), people, batch["views"])


def middle_frames(clips: Probe) -> Probe:
    """The middle frame of every clip as a still: the faces of the clips under the rules of stills."""
    one = clips.first(len(clips))
    return replace(one, x=one.x[:, :, one.x.shape[2] // 2])


def inspection(model: nn.Module, probes: Mapping[str, Probe], untrained: nn.Module | None = None,
               draws: int = 200) -> dict[str, Any]:
    """What `analysis/routing.py` says about one model on "clip" and "image" probes, as plain numbers for a record.

    summary      modality → conditions → rows of `analysis.summary`
    load         modality → share of choices `[blocks e]`; by class, time, row and column `[groups blocks e]`
    places       modality → `[n blocks e]`
    information  question → rows of `analysis.routing.expert_information`: modality, modality in slot 0 (the positions
    of a
                 still alone), modality with the clips' own frames as stills, class of clips and of stills
    size         modality → block → length of what the experts add over that of the dense network
    start        the loads and the information about modality of `untrained`, the network before training
    """
    probes = {m: samples.first(LOOKS) for m, samples in probes.items()}
    routes = {m: observe(model, samples.x) for m, samples in probes.items()}
    out: dict[str, Any] = {
        "summary": {m: {"evaluation": summary(routes[m]),
                        "training": summary(observe(model, samples.x, "training", batch=24 if m == "clip" else 48))}
                    for m, samples in probes.items()},
        "load": {m: _loads(one, probes[m].labels) for m, one in routes.items()},
        "places": {m: _round(expert_load(one, token_groups(one.grid))) for m, one in routes.items()},
        "information": _modality_information(model, routes, probes, draws),
        "size": {m: {str(b): size for b, size in branch_size(model, samples.x).items()}
                 for m, samples in probes.items()},
        "blocks": list(routes["clip"].blocks), "grid": list(routes["clip"].grid),
    }
    for m, samples in probes.items():
        rows = expert_information(token_load(routes[m]), samples.labels, routes[m].blocks, samples.people, draws)
        out["information"][f"class, {m}s"] = [row.as_dict() for row in rows]
    if untrained is not None:
        before = {m: observe(untrained, samples.x) for m, samples in probes.items()}
        out["start"] = {"load": {m: {"all": _round(expert_load(one))} for m, one in before.items()},
                        "information": _modality_information(untrained, before, probes, draws)}
    return out


def _loads(routes: Routes, labels: np.ndarray) -> dict[str, list]:
    by = {axis: _round(expert_load(routes, token_groups(routes.grid, axis))) for axis in ("time", "height", "width")}
    return {"all": _round(expert_load(routes)), "class": _round(expert_load(routes, labels))} | by


def _round(values: np.ndarray) -> list:
    return np.where(np.isnan(values), -1, values).round(4).tolist()  # JSON has no nan; -1 marks an empty group


def _modality_information(model: nn.Module, routes: Mapping[str, Routes], probes: Mapping[str, Probe],
                          draws: int) -> dict[str, list[dict]]:
    frames = observe(model, middle_frames(probes["clip"]).x)
    clip, image, blocks = routes["clip"], routes["image"], routes["clip"].blocks
    pairs = {
        "modality": (sample_load(clip), sample_load(image), False),
        "modality, slot 0": (token_load(clip.at_slot(0)), token_load(image), False),
        "same faces, as clip or as still": (token_load(clip.at_slot(0)), token_load(frames), True),
        "still set or frames of clips": (token_load(frames), token_load(image), False),
    }
    information = {}
    for name, (one, other, same_people) in pairs.items():
        labels = np.repeat([0, 1], [len(one), len(other)])
        second = probes["clip"].people if same_people else probes["image"].people + probes["clip"].people.max() + 1
        rows = expert_information(np.concatenate([one, other]), labels, blocks,
                                  np.concatenate([probes["clip"].people, second]), draws)
        information[name] = [row.as_dict() for row in rows]
    return information


def rules_for(model: nn.Module, donors: Mapping[str, Routes], modality: str) -> dict[str, Rule]:
    """The standard rules, and two that mean the same for every seed: the busiest expert (of the donors' last block
    of its own modality) silent, and alone.
    """
    own = donors[modality]
    busiest = int(expert_load(own)[-1].argmax())
    other = next((routes for name, routes in donors.items() if name != modality), None)
    return standard_rules(model, own, other) | {"busiest expert silent": silent(busiest),
                                                "busiest expert only": only(busiest)}


def inspect_run(run: Run, config: FinetuneConfig) -> dict[str, Any]:
    """One run of the laboratory: its inspection, and every rule's answers (clips) and effects (both modalities)."""
    model = run.model()
    donors = {m: observe(model, probe(config, m, "validation", limit=200).x) for m in ("clip", "image")}
    tests = {"clip": probe(config, "clip", sampling="test"), "image": probe(config, "image")}
    outcome = inspection(model, tests, build_classifier(config).eval())
    for m, test in tests.items():
        rules = rules_for(model, donors, m)
        given = effects(model, test.x, test.labels, rules, test.people, test.views)
        outcome[f"{m}_effects"] = {name: effect.as_dict() for name, effect in given.items()}
        if m == "clip":
            kept = {name: rule for name, rule in rules.items() if not name.startswith("expert ")}
            under = answers_under(model, test.x, kept, test.views)
            outcome["answers"] = {name: encode(answers) for name, answers in under.items()}
    return outcome


def routing_inspection(tier: str = "laptop", seeds: Sequence[int] = tuple(range(220, 225)), jobs: int = 2,
                       cell: Cell | None = None, method: str = "moae_clean", phase: str = "confirm",
                       name: str = "routing_inspection") -> Record:
    """Who routes where after training, and what the answers owe to it: `method` in one cell, seed by seed.

    The runs are those of `router_ablations`.
    """
    cell = Cell() if cell is None else cell
    runs = run_lab([(cell, method, seed) for seed in seeds], tier, phase, jobs)
    inspected = [inspect_run(runs[cell, method, seed], run_config(cell, method, seed, tier, phase)) for seed in seeds]
    record = lab_record(name, f"{method} in {cell.name}: the routing of {len(seeds)} seeds", runs, plan("ablations"),
                        tier, phase)
    methods = record.results["cells"][cell.name]["methods"]
    for rule in inspected[0]["answers"]:
        methods[rule] = {"seeds": list(seeds), "answers": [one["answers"][rule] for one in inspected]}
    kept = [{key: value for key, value in one.items() if key != "answers"} for one in inspected]
    return record.model_copy(update={"results": record.results | {"inspections": kept, "inspected": method}})
