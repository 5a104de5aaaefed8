"""config → run     train or load: a folder with the configuration, the steps, the weights and the record.

    <runs>/<name>-<fingerprint>/    config.json  metrics.jsonl  checkpoint.safetensors  model.safetensors
                                    encoder_report.txt, predictions.npz (fine-tuning), sdl.safetensors (its queues)
                                    record.json (written last: its presence means done)

The fingerprint covers the configuration and the content of the data, not the place they lie in. A finished run is
loaded; an unfinished one goes on where it stopped. Derived in chapters 06 and 07.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

from s4d_lib import ranks
from s4d_lib.adapters import MixtureOfAdapterExperts
from s4d_lib.checkpoints import load_encoder, load_model, save_model
from s4d_lib.datasets import FaceDataset, Sample, check_samples, find_unreadable
from s4d_lib.errors import Refused
from s4d_lib.files import Lock, Locked, runs_root
from s4d_lib.launch import Launch, run_ranks
from s4d_lib.metrics import score
from s4d_lib.models import S4DClassifier
from s4d_lib.plans import collate_views
from s4d_lib.readers import READERS, read_dataset
from s4d_lib.records import DataUse, Record, read_record, write_record
from s4d_lib.run_records import SHIPPED, finetune_headline, init_path, run_mark, run_record
from s4d_lib.s2d import S2DClassifier
from s4d_lib.s2d_stages import build_s2d, describe_s2d, s2d_job
from s4d_lib.stages import (
    HEAD,
    Config,
    FinetuneConfig,
    PretrainConfig,
    finetune_job,
    merge_classes,
    pretrain_job,
    stays_alone,
    training_split,
    views,
)
from s4d_lib.training import run_job

SHIPPED_CLASSIFIER = SHIPPED.with_name("tiny_s4d_classifier.safetensors")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    record: Record

    def model(self) -> nn.Module:
        """The trained model, on the CPU, in evaluation mode."""
        return load_model(self.folder / "model.safetensors")

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    def losses(self, modality: str | None = None) -> np.ndarray:
        """(update, loss) of every step `[steps 2]`, of one modality or of both."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        kept = [(line["update"], line["loss"]) for line in lines
                if "loss" in line and modality in (None, line["modality"])]
        return np.array(kept).reshape(-1, 2)


def train(config: PretrainConfig | FinetuneConfig, root: Path | None = None, retrain: bool = False,
          processes: int | Launch | None = None) -> Run:
    """Train, or load the run that this configuration on this data has already left.

    `retrain` throws an earlier run away first. Interrupting keeps every whole step; the same call goes on from there.
    `processes`: how many train together, each with its share of every step, or a `Launch` that says more; None: one a
    visible GPU. However many they are, it is the same run: the numbers differ by rounding, the folder does not.
    When another process is already at this run, this one waits for it.
    """
    data = {modality: data_use(config, modality) for modality in config.modalities}
    mark = run_mark(config, data)
    folder = (root or runs_root()) / f"{config.name}-{mark}"
    if ranks.size() > 1:
        return _train_as_rank(config, data, folder, mark)
    launch = _launch(config, processes)
    if not retrain and (folder / "record.json").exists():
        return Run(folder, read_record(folder / "record.json"))
    label = f"{launch.processes * launch.nodes} processes"
    if launch.node_rank > 0:  # node 0 looks after the folder, which the nodes share
        run_ranks(launch, folder, label)
        return Run(folder, read_record(folder / "record.json"))
    with _alone(folder):
        if retrain and folder.exists():
            shutil.rmtree(folder)
        if (folder / "record.json").exists():  # whoever we waited for has finished it
            return Run(folder, read_record(folder / "record.json"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config.model_dump_json(indent=1))
        if launch.several:
            run_ranks(launch, folder, label)
        else:
            _train_here(config, data, folder, mark)
    return Run(folder, read_record(folder / "record.json"))


def _train_here(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> None:
    """Train in this process, alone or as one of several; rank 0 leaves the record."""
    record = (_pretrain if isinstance(config, PretrainConfig) else _finetune)(config, data, folder, mark)
    if record is not None:
        write_record(folder / "record.json", record)
        for left_over in (folder / "checkpoint.safetensors", *folder.glob(".*.tmp")):  # done: nothing is left to resume
            left_over.unlink(missing_ok=True)


def _train_as_rank(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> Run:
    ranks.begin(cpu=config.device == "cpu")
    # The caller holds the run. This is for a caller that was killed: the next one's rank 0 waits until ours has gone.
    with _alone(folder.with_name(f"{folder.name}.rank0")) if ranks.is_first() else nullcontext():
        ranks.barrier()
        if not (folder / "record.json").exists():
            _train_here(config, data, folder, mark)
        ranks.barrier()
    ranks.end()
    return Run(folder, read_record(folder / "record.json"))


def _launch(config: Config, processes: int | Launch | None) -> Launch:
    """What was asked for, or one process a visible GPU; ValueError where this configuration cannot be shared out."""
    why_not, gpus = stays_alone(config), torch.cuda.device_count() if config.device == "auto" else 0
    if processes is None:
        processes = max(1, gpus) if not why_not else 1
    launch = processes if isinstance(processes, Launch) else Launch(processes)
    if gpus and launch.processes > gpus:
        raise Refused(f"{launch.processes} processes need a GPU each and {gpus} are visible; ask for fewer, or set "
                      "device=cpu in the configuration")
    if launch.several and why_not:
        raise Refused(f"{config.name}: {why_not}; train it with processes=1")
    return launch


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The right to train a run, waited for if somebody has it; the system takes it back from whoever dies."""
    lock, told = Lock(folder.parent / ".locks" / folder.name / "lock"), False
    while True:
        try:
            lock.take()
            break
        except Locked:
            if not told:
                print(f"{folder.name}: another process is training this run; waiting for it", flush=True)
            told = True
            time.sleep(0.5)
    try:
        yield
    finally:
        lock.give_back()


def data_use(config: Config, modality: str) -> DataUse:
    """Name and content hash of the data a stage reads: from its card if it has one, else from its lists as read."""
    folder = _root(config, modality)
    for place in (folder, folder.parent):
        if (place / "card.json").exists():
            card = json.loads((place / "card.json").read_text())
            return DataUse(name=f"{card['name']} ({folder.name})", sha256=card["content_sha256"])
    digest = hashlib.sha256()
    for split in ("train", "test") if isinstance(config, FinetuneConfig) else ("train",):
        for sample in read_samples(config, modality, split):
            digest.update(f"{split}\t{sample.id}\t{sample.label}\n".encode())
    return DataUse(name=folder.name, sha256=digest.hexdigest())


def read_samples(config: Config, modality: str, split: str) -> list[Sample]:
    """The samples a stage finds in its data folders; `groups.csv` beside the lists keeps one person in one split."""
    folder, still = _root(config, modality), modality == "image"
    name = config.stills_as if still else config.clips_as
    wanted = {"groups": _groups(folder), "schema": config.stills_schema if still else config.clips_schema}
    if not still:
        own_frames = name == "dfew" or config.frames != type(config).model_fields["frames"].default
        wanted |= {"frames": config.frames if own_frames else None, "base": config.label_base,
                   "fold": getattr(config, "fold", 1) if name != "table" else None}  # there a split column decides
    taken = signature(READERS[name]).parameters
    found = read_dataset(folder, name, split, **{key: value for key, value in wanted.items()
                                                 if value is not None and key in taken})
    return merge_classes(found) if still and getattr(config, "still_labels", None) == "merged" else found


def _root(config: Config, modality: str) -> Path:
    folder = config.stills if modality == "image" else config.clips
    if folder is None:
        field = "stills" if modality == "image" else "clips"
        raise Refused(f"configuration {config.name!r} trains on {modality}s but names no folder: set {field}=")
    return Path(folder)


def _groups(folder: Path) -> dict[str, str] | None:
    path = folder / "groups.csv"
    if not path.exists():
        return None
    return dict(line.rsplit(",", 1) for line in path.read_text().splitlines()[1:])


def _readable(config: Config, samples: list[Sample], skipped: list[str]) -> list[Sample]:
    """All samples, or, when the configuration says so, those that can be read; the others are printed and recorded."""
    if config.on_unreadable == "raise":
        return samples
    bad = {error.path: error for error in find_unreadable(samples, progress=False)}
    for sample in samples:
        if sample.path in bad:
            print(f"skipped: {bad[sample.path]}")
            skipped.append(f"{sample.id}: {bad[sample.path].reason}")
    return [sample for sample in samples if sample.path not in bad]


def _refuse_leaks(folder: Path, listed: list[Sample], test: list[Sample]) -> None:
    """A score on samples that were trained on is no score. Looks at names and files, decodes nothing."""
    problems = check_samples(listed, test)
    if problems:
        raise Refused(f"{folder}: {' '.join(map(str, problems))} `s4d doctor` says more; training was not started")


# --- the two stages ------------------------------------------------------------------------------------------------


def _pretrain(config: PretrainConfig, data: dict[str, DataUse], folder: Path, mark: str) -> Record | None:
    skipped: dict[str, list[str]] = {m: [] for m in config.modalities}
    samples = {m: _readable(config, read_samples(config, m, "train"), skipped[m]) for m in config.modalities}
    job, loop = pretrain_job(config, samples)
    where = run_job(job, loop, folder, mark)
    if not ranks.is_first():
        return None
    save_model(folder / "model.safetensors", job.model, {"config": config.model_dump(exclude={"stills", "clips"})})
    losses = {m: _tail_loss(folder, m) for m in config.modalities}
    headline = "masked loss " + ", ".join(f"{m} {value:.3f}" for m, value in losses.items())
    return run_record(config, "pretrain", f"{headline} after {where.update} steps", where, {
        "loss_last_tenth": losses, "updates": where.update,
    }, data, {m: {"train": len(s)} for m, s in samples.items()}, skipped)


def _tail_loss(folder: Path, modality: str) -> float:
    """Mean loss over the last tenth of the steps of one modality; 1.0 is what predicting the mean scores."""
    losses = Run(folder, None).losses(modality)[:, 1]
    return float(losses[-max(1, len(losses) // 10) :].mean())


def _finetune(config: FinetuneConfig, data: dict[str, DataUse], folder: Path, mark: str) -> Record | None:
    skipped: dict[str, list[str]] = {m: [] for m in config.modalities}
    train_set, validation, test, counts = {}, {}, {}, {}
    for m in config.modalities:
        listed = _readable(config, read_samples(config, m, "train"), skipped[m])
        train_set[m], validation[m] = training_split(config, m, listed)
        test[m] = _readable(config, read_samples(config, m, "test"), skipped[m])
        _refuse_leaks(_root(config, m), listed, test[m])
        counts[m] = {"train": len(train_set[m]), "validation": len(validation[m]), "test": len(test[m])}
    model = build_classifier(config, folder / "encoder_report.txt" if ranks.is_first() else None)
    classes = {m: len(config.schema(m)) for m in config.modalities}
    make = s2d_job if config.system == "s2d" else finetune_job
    job, loop = make(config, model, train_set, classes)
    chosen_on = test if config.epoch_rule == "best_on_test" else validation
    job.validate = lambda network: _validation_scores(config, network, chosen_on)
    job.selects = None if config.epoch_rule == "last" else f"{config.primary}_{config.select}"
    said = {"schemas": {HEAD[m]: config.schema(m).name for m in config.modalities}, "stride": config.stride}
    said |= {"local_contrast": True} if config.local_contrast else {}
    said |= describe_s2d(config) if config.system == "s2d" else {}
    job.save_best = lambda network: save_model(folder / "model.safetensors", network, said)
    where = run_job(job, loop, folder, mark)
    if ranks.is_first():
        for name, part in job.keep.items():
            save_file({key: value.cpu() for key, value in part.state_dict().items()}, folder / f"{name}.safetensors")
    model = load_model(folder / "model.safetensors").to(next(job.model.parameters()).device)
    outcome: dict = {"history": where.history, "chosen_epoch": where.best_epoch, "updates": where.update}
    predictions = {}
    for m in config.modalities:
        probabilities, labels = predict(model, views(config, test[m], _test_sampling(m), 0), config)
        outcome[f"test_{m}"] = score(probabilities, labels, config.schema(m).classes).as_dict()
        predictions |= {f"{m}_probabilities": probabilities, f"{m}_labels": labels,
                        f"{m}_ids": np.array([sample.id for sample in test[m]]),
                        f"{m}_people": np.array([sample.group or sample.id for sample in test[m]])}
    if not ranks.is_first():
        return None
    np.savez(folder / "predictions.npz", **predictions)
    return run_record(config, "finetune", finetune_headline(config, outcome), where, outcome, data, counts, skipped)


def build_classifier(config: FinetuneConfig, report_to: Path | None = None) -> S4DClassifier | S2DClassifier:
    """The model of a configuration, with the pretrained encoder in place when one is named.

    One line is printed about what was loaded; the fate of every key goes to `report_to`.
    """
    if config.system == "s2d":
        return build_s2d(config, config.init and init_path(config.init), report_to)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        classes = {HEAD[m]: len(config.schema(m)) for m in config.modalities}
        model = S4DClassifier(config.size, classes, config.expert_blocks, config.experts, config.top_k,
                              config.capacity_factor, config.behaviour, config.pool, config.dropout, config.router)
        with torch.no_grad():  # the models' own spread is 0.02 at every width, which makes narrow experts quiet
            for moae in (part for part in model.modules() if isinstance(part, MixtureOfAdapterExperts)):
                for layer in (layer for expert in moae.experts for layer in (expert.fc1, expert.fc2)):
                    layer.weight.mul_(config.expert_spread / 0.02)
    if config.init:
        report = str(load_encoder(model, init_path(config.init)))
        print(report.splitlines()[0])
        if report_to:
            report_to.write_text(report + "\n")
    return model


def _test_sampling(modality: str) -> str:
    return "centre" if modality == "image" else "test"


def _validation_scores(config: FinetuneConfig, network: nn.Module, sets: dict[str, list[Sample]]) -> dict[str, float]:
    values = {}
    for modality, samples in sets.items():
        probabilities, labels = predict(network, views(config, samples, "centre", 0), config)
        found = score(probabilities, labels, config.schema(modality).classes)
        values |= {f"{modality}_war": found.war.value, f"{modality}_uar": found.uar.value}
    return values


@torch.inference_mode()
def predict(model: nn.Module, dataset: FaceDataset, config: Config, batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities `[n classes]` and labels `[n]`; several views of a clip count by their mean softmax.

    Several processes take the batches in turn, each sample once, and all get all answers.
    """
    if ranks.size() > 1 and getattr(config, "behaviour", "clean") == "clean":
        batch = max(1, min(batch, -(-len(dataset) // ranks.size())))  # no batch mates matter, so all can be busy
    batches = [range(i, min(i + batch, len(dataset))) for i in range(0, len(dataset), batch)]
    batches = batches[ranks.rank() :: ranks.size()]
    device = next(model.parameters()).device
    model.eval()
    found = []
    for own, items in zip(batches, DataLoader(dataset, batch_sampler=batches, num_workers=config.workers,
                                              collate_fn=collate_views)):
        softmax = model(items["x"].to(device)).float().softmax(-1).cpu()
        found.append((own.start, softmax.unflatten(0, (-1, items["views"])).mean(1), items["label"]))
    found = sorted((part for parts in ranks.gathered(found) for part in parts), key=lambda part: part[0])
    _, probabilities, labels = zip(*found)
    return torch.cat(probabilities).double().numpy(), torch.cat(labels).numpy()
