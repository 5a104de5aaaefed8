"""runs → reasons     why a task gains or loses by another: gradients, Adam's state, features, use of time, over cells.

One cell of the transfer laboratory, three moments of its joint run (start, a twentieth of the way, end), and four kinds
of measure on faces that no run has trained on. Whether any of them foretells the transfer that was measured is asked in
`foretelling.py`. Derived in chapter 08.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from einops import reduce
from torch import Tensor, nn
from torch.optim import Optimizer

from s4d_lib.analysis.gradients import Batch, Between, Conflict, conflict, task_gradients
from s4d_lib.analysis.interference import Moments, adam_interference, affinity, moments
from s4d_lib.analysis.measuring import measuring
from s4d_lib.analysis.similarity import cka
from s4d_lib.analysis.temporal_use import temporal_use
from s4d_lib.errors import Refused
from s4d_lib.metrics.scores import over_seeds
from s4d_lib.training.configs import FinetuneConfig, Modality

if TYPE_CHECKING:
    from s4d_lib.lab.cells import Cell

EARLY = 0.05   # share of the joint run's steps after which "early" is measured
DRAWS = 5      # two batches a task each
PEOPLE = 200   # shown in the clips of a cell that are measured on: about 800 clips, one of each person for CKA
STILLS = 1000


# --- the samples -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeBatches:
    """Samples outside all training sets, cut so that no person is in two batches.

    batches         "image", "clip" and the control "random" (the clips, their labels dealt anew) → 2·draws batches
    stills, clips   all of them, `[n 3 h w]` and `[n 3 t h w]`
    labels, people  of the clips, `[n]`
    """

    batches: dict[str, list[Batch]]
    stills: Tensor
    clips: Tensor
    labels: Tensor
    people: np.ndarray


def make_probe(stills: Batch, clips: Batch, people: Mapping[str, Sequence] | None = None, draws: int = DRAWS,
               seed: int = 0) -> ProbeBatches:
    """Stills and clips as (x, labels), and who is shown (task → `[n]`; None: everybody once) → ProbeBatches."""
    rng = np.random.default_rng(seed)
    people = {task: np.asarray(known) for task, known in (people or {}).items()}
    parts = {}
    for task, (x, y) in (("image", stills), ("clip", clips)):
        known = people.setdefault(task, np.arange(len(x)))
        if (shown := len(np.unique(known))) < 2 * draws:
            raise Refused(f"{2 * draws} batches without shared people need as many people, the {task}s show {shown}")
        several = np.array_split(rng.permutation(np.unique(known)), 2 * draws)
        parts[task] = [(x[rows], y[rows]) for rows in (torch.from_numpy(np.isin(known, some)) for some in several)]
    # Dealt anew inside each batch: the class counts stay, so agreement with them is agreement without expressions.
    parts["random"] = [(x, y[torch.from_numpy(rng.permutation(len(y)))]) for x, y in parts["clip"]]
    return ProbeBatches(parts, stills[0], clips[0], clips[1], people["clip"])


# --- one model at one moment -----------------------------------------------------------------------------------------


def gradient_agreement(model: nn.Module, probe: ProbeBatches, seed: int = 0) -> dict:
    """`analysis.conflict` in the few numbers that a record keeps: [mean, low, high] over draws, by group.

    {"within": task → group → ceiling, "between": "image | clip" → group → cosine, ratio, corrected}; the control
    "random" stands beside the tasks. Cost: 6·draws backward passes.
    """
    return _compact(conflict(model, probe.batches, seed=seed))


def _compact(measured: Conflict) -> dict:
    within = {task: {group: _interval(ceiling) for group, ceiling in groups.items()}
              for task, groups in measured.within.items()}
    between = {" | ".join(tasks): {group: _compact_pair(pair) for group, pair in groups.items()}
               for tasks, groups in measured.between.items()}
    return {"within": within, "between": between}


def _compact_pair(pair: Between) -> dict:
    return {"cosine": _interval(pair.cosine), "ratio": plain(pair.ratio.value), "corrected": plain(pair.corrected)}


def state_interference(model: nn.Module, optimizer: Optimizer, own: Mapping[str, Moments], probe: ProbeBatches,
                       size: int, seed: int = 0) -> dict:
    """Task → group → {"cosine", "size", "first", "second"} of `adam_interference`, [mean, low, high].

    own: task → Adam's state in a run of that task alone. The gradients are of batches of at most `size` samples, as
    training takes them, one of each probe batch.
    """
    batches = {task: [(x[:size], y[:size]) for x, y in probe.batches[task]] for task in own}
    draws = []
    for number in range(len(next(iter(batches.values())))):
        gradients = task_gradients(model, {task: several[number] for task, several in batches.items()}, seed=seed)
        draws.append(adam_interference(optimizer, model, gradients, own))
    return {task: _over_draws([draw[task] for draw in draws]) for task in own}


def _over_draws(draws: Sequence[Mapping[str, NamedTuple]]) -> dict[str, dict]:
    """Group of weights → field → [mean, low, high] over the draws."""
    return {group: _fields_over([draw[group] for draw in draws]) for group in draws[0]}


def _fields_over(draws: Sequence[NamedTuple]) -> dict[str, list[float | None]]:
    """Field → [mean, low, high] over the draws of one group of weights."""
    return {field: _interval(over_seeds([getattr(draw, field) for draw in draws])) for field in draws[0]._fields}


def lookahead(model: nn.Module, optimizer: Optimizer, probe: ProbeBatches, seed: int = 0) -> dict:
    """"image → clip" → relative fall of the clips' loss after one Adam step of the stills, [mean, low, high]."""
    batches = {task: probe.batches[task] for task in ("image", "clip")}
    falls = affinity(model, batches, optimizer=optimizer, seed=seed)
    return {" → ".join(pair): _interval(value) for pair, value in falls.values.items()}


# --- several models --------------------------------------------------------------------------------------------------


def block_features(model: nn.Module, x: Tensor, chunk: int = 64) -> dict[str, Tensor]:
    """Images or clips → what each block puts out, "block 0" … → `[n (h w d)]`: mean over time, places kept.

    That is what a head with pool="positions" reads of the last block.
    """
    places, kept = model.places, {f"block {i}": [] for i in range(len(model.blocks))}

    def keep(name: str):
        return lambda module, given, out: kept[name].append(
            reduce(out.detach(), "n (t s) d -> n s d", "mean", s=places).flatten(1))

    handles = [block.register_forward_hook(keep(name)) for name, block in zip(kept, model.blocks)]
    try:
        with measuring(model), torch.no_grad():
            for part in x.split(chunk):
                model.encode(part)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in kept.items()}


def alike(models: Mapping[str, nn.Module], x: Tensor) -> dict[str, dict[str, float | None]]:
    """"one | other" → block → debiased linear CKA of the two models' features on the same samples `[n …]`.

    Give one sample a person: CKA takes rows as independent. None where a feature never varies.
    """
    features = {name: block_features(model, x) for name, model in models.items()}
    names = list(features)
    return {f"{a} | {b}": {block: _cka(features[a][block], features[b][block]) for block in features[a]}
            for i, a in enumerate(names) for b in names[i + 1:]}


def _cka(a: Tensor, b: Tensor) -> float | None:
    try:
        return plain(cka(a, b), 8)  # early networks have hardly moved apart: 0.9999 and 0.9998 differ
    except ValueError:
        return None


def use_of_time(model: nn.Module, probe: ProbeBatches, seed: int = 0) -> dict:
    """Change → accuracy, confidence (points) and answers switched (percent), [mean, low, high] over people."""
    t = probe.clips.shape[2]
    rows = temporal_use(model, probe.clips, probe.labels, probe.people, shuffles=2, frames=(t // 2, t - 1), seed=seed)
    return {change: {key: _interval(value) for key, value in vars(row).items()} for change, row in rows.items()}


def one_each(people: np.ndarray) -> np.ndarray:
    """Rows of the first sample of every person."""
    return np.sort(np.unique(people, return_index=True)[1])


# --- a run, stopped on its way ---------------------------------------------------------------------------------------


class _Stop(Exception):
    pass


@dataclass(frozen=True)
class Stopped:
    """A run as it stood after `updates` steps, `counts` of them of each modality.

    The optimiser's learning rates are the peak rates of the run with their layer decay: one yardstick for all moments.
    """

    model: nn.Module
    optimizer: Optimizer
    updates: int
    counts: dict[str, int]


def stop_run(config: FinetuneConfig, steps: int, of: Modality | None = None) -> Stopped:
    """Train the first `steps` steps of a run and stop; with `of`, so many of that modality and what lies between.

    It is the run itself and not a shorter one: the same order of samples, the same schedule over its full length, the
    same chance, up to a step at which the loop is interrupted and leaves its checkpoint, weights and AdamW's state.
    Nothing is validated on the way.
    """
    from s4d_lib.training.data import read_samples, training_split
    from s4d_lib.training.fitting import build_classifier
    from s4d_lib.training.jobs import finetune_job
    from s4d_lib.training.loop import run_job
    from s4d_lib.training.state import load_state

    samples = {m: training_split(config, m, read_samples(config, m, "train"))[0] for m in config.modalities}
    job, loop = finetune_job(config, build_classifier(config), samples,
                             {m: len(config.schema(m)) for m in config.modalities})
    order = [step.modality for epoch in range(loop.epochs) for step in job.plan(epoch)]
    last = steps if of is None else int(np.searchsorted(np.cumsum(np.array(order) == of), steps)) + (steps > 0)
    job.validate, inner, left = None, job.loss, min(last, len(order)) * loop.accumulate

    def loss(*batch: Any) -> Tensor:
        nonlocal left
        if left == 0:
            raise _Stop
        left -= 1
        return inner(*batch)

    job.loss = loss
    with TemporaryDirectory() as folder:
        try:
            run_job(job, loop, Path(folder), "stopped")
        except _Stop:
            pass
        optimizer = torch.optim.AdamW(job.groups, lr=loop.lr, betas=job.betas)
        where = load_state(Path(folder), "stopped", job.model, None, optimizer, None)
    for group in optimizer.param_groups:
        group["lr"] = loop.lr * group.get("lr_scale", 1.0)
    done = order[:where.update]
    return Stopped(job.model.cpu(), optimizer, where.update, {m: done.count(m) for m in config.modalities})


# --- one cell of the laboratory --------------------------------------------------------------------------------------


def measure_cell(cell: Cell, seed: int, tier: str = "laptop", phase: str = "explore", again: int | None = None,
                 draws: int = DRAWS, people: int = PEOPLE, stills: int = STILLS,
                 root: Path | None = None) -> dict[str, Any]:
    """All measures of one seed of a cell, as plain numbers for a record.

    Finished runs (joint, dfer, sfer) are loaded, or trained where they are missing; early ones are made by `stop_run`:
    the joint run after 5 % of its steps, the single runs where they have had as many of their own. `again`: a second
    seed, whose dfer model is the ceiling of CKA. Faces come from the test lists: never trained on, never used to
    choose, and of the cell's own recipe. Adam and lookahead are measured early only, where a state and a learning rate
    exist: at the start there is no state, at the end the rate is 0. About half a minute of one CPU core at nano size,
    when the runs are there.
    """
    from s4d_lib.lab.cells import alone, run_config
    from s4d_lib.training import runs
    from s4d_lib.training.fitting import build_classifier

    configs = {"joint": run_config(cell, "joint", seed, tier, phase),  # in this order their pairs are named
               "dfer": run_config(alone(cell), "dfer", seed, tier, phase),
               "sfer": run_config(cell, "sfer", seed, tier, phase)}
    probe = lab_probe(configs["joint"], draws, people, stills, seed)
    last = {method: runs.train(one, root) for method, one in configs.items()}
    end = {method: run.model() for method, run in last.items()}
    joint = stop_run(configs["joint"], max(2, round(EARLY * last["joint"].record.results["updates"])))
    dfer, sfer = (stop_run(configs[method], max(1, joint.counts[m]), m)
                  for method, m in (("dfer", "clip"), ("sfer", "image")))
    early = {"joint": joint.model, "dfer": dfer.model, "sfer": sfer.model}
    start = build_classifier(configs["joint"])
    own = {"image": moments(sfer.optimizer, sfer.model), "clip": moments(dfer.optimizer, dfer.model)}
    if again is not None:
        end["dfer again"] = runs.train(run_config(alone(cell), "dfer", again, tier, phase), root).model()
    # CKA's cost grows with the square of the samples; twice as many stills as people in clips are plenty.
    rows = {"image": probe.stills[:2 * people], "clip": probe.clips[one_each(probe.people)]}
    return {
        "seed": seed, "steps": {"joint": joint.updates, **joint.counts},
        "agreement": {moment: gradient_agreement(model, probe, seed) for moment, model in
                      (("start", start), ("early", joint.model), ("end", end["joint"]))},
        "interference": state_interference(joint.model, joint.optimizer, own, probe, configs["joint"].batch_clips),
        "lookahead": lookahead(joint.model, joint.optimizer, probe, seed),
        "alike": {"early": {m: alike(early, x) for m, x in rows.items()},
                  "end": {m: alike(end | {"start": start}, x) for m, x in rows.items()}},
        "time": {method: use_of_time(end[method], probe, seed) for method in ("dfer", "joint")},
    }


def lab_probe(config: FinetuneConfig, draws: int = DRAWS, people: int = PEOPLE, stills: int = STILLS,
              seed: int = 0) -> ProbeBatches:
    """The first `stills` people's stills and the first `people` people's clips of a configuration's test lists."""
    from s4d_lib.training.data import read_samples, views

    batch, shown = {}, {}
    for m, most in (("image", stills), ("clip", people)):
        samples = read_samples(config, m, "test")
        names = [sample.group or sample.id for sample in samples]
        chosen = set(list(dict.fromkeys(names))[:most])
        rows = [i for i, name in enumerate(names) if name in chosen]
        data = views(config, [samples[i] for i in rows], "centre", 0)
        items = [data[i] for i in range(len(data))]
        batch[m] = (torch.stack([item["x"] for item in items]), torch.tensor([item["label"] for item in items]))
        shown[m] = np.unique([names[i] for i in rows], return_inverse=True)[1]
    return make_probe(batch["image"], batch["clip"], shown, draws, seed)


# --- numbers for a record --------------------------------------------------------------------------------------------


def plain(value: float | None, digits: int = 4) -> float | None:
    """So many significant digits; None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{digits}g}")


def _interval(value: Any) -> list[float | None]:
    return [plain(number) for number in asdict(value).values()]
