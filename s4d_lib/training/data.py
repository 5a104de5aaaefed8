"""config → samples     what a stage reads: its folders, its lists, its split, and how a sample becomes a tensor.

Derived in chapters 06, 07 and 08.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s4d_lib.clips import EVAL, RECIPES
from s4d_lib.datasets.face_dataset import FaceDataset, find_unreadable
from s4d_lib.datasets.labels import schema_named
from s4d_lib.datasets.readers import options_of, read_dataset
from s4d_lib.datasets.samples import Sample, check_samples, few_labels, split_validation
from s4d_lib.errors import Refused
from s4d_lib.progress import say
from s4d_lib.training.configs import Config, FinetuneConfig, geometry

Samples = dict[str, list[Sample]]  # by modality


@dataclass(frozen=True)
class Split:
    """What a fine-tuning learns from, chooses its epoch on and is tested on; `skipped` says what could not be read."""

    train: Samples
    validation: Samples
    test: Samples
    skipped: dict[str, list[str]]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Modality → how many samples each part has."""
        return {m: {"train": len(self.train[m]), "validation": len(self.validation[m]), "test": len(self.test[m])}
                for m in self.train}


def split_data(config: FinetuneConfig) -> Split:
    """The samples of a fine-tuning, read, split and checked; ValueError where test samples are trained on."""
    train, validation, test, skipped = {}, {}, {}, {}
    for m in config.modalities:
        listed, left_out = readable(config, read_samples(config, m, "train"))
        train[m], validation[m] = training_split(config, m, listed)
        test[m], more = readable(config, read_samples(config, m, "test"))
        refuse_leaks(data_folder(config, m), listed, test[m])
        skipped[m] = left_out + more
    return Split(train, validation, test, skipped)


def pretraining_samples(config: Config) -> tuple[Samples, dict[str, list[str]]]:
    """What a pretraining reads and what it had to skip, by modality."""
    found = {m: readable(config, read_samples(config, m, "train")) for m in config.modalities}
    return {m: samples for m, (samples, _) in found.items()}, {m: skipped for m, (_, skipped) in found.items()}


def read_samples(config: Config, modality: str, split: str) -> list[Sample]:
    """The samples a stage finds in its data folders; `groups.csv` beside the lists keeps one person in one split.

    A layout without folds or without a folder of frames to choose has no use for `fold` and `frames`, which always have
    a value. Whoever names a schema or a label base wants it: ValueError where the layout fixes it.
    """
    folder, still = data_folder(config, modality), modality == "image"
    name = config.stills_as if still else config.clips_as
    taken, wanted = options_of(name), {"groups": _groups(folder)}
    said = {"schema": "stills_schema"} if still else {"schema": "clips_schema", "base": "label_base"}
    for option, field in said.items():
        wanted[option] = getattr(config, field)
        if wanted[option] is not None and option not in taken:
            raise Refused(f"the layout {name!r} fixes its labels itself: leave out {field}={wanted[option]!r}")
    if not still and "frames" in taken and (name == "dfew" or config.frames != Config.model_fields["frames"].default):
        wanted["frames"] = config.frames  # its default is DFEW's folder; the other layouts know their own
    if not still and "fold" in taken and name != "table":  # there a split column decides
        wanted["fold"] = getattr(config, "fold", 1)
    found = read_dataset(folder, name, split, **{key: value for key, value in wanted.items() if value is not None})
    return merge_classes(found) if still and getattr(config, "still_labels", None) == "merged" else found


def data_folder(config: Config, modality: str) -> Path:
    """Where the stills or the clips of a configuration lie."""
    folder = config.stills if modality == "image" else config.clips
    if folder is None:
        field = "stills" if modality == "image" else "clips"
        raise Refused(f"configuration {config.name!r} trains on {modality}s but names no folder: set {field}=")
    return Path(folder)


def _groups(folder: Path) -> dict[str, str] | None:
    path = folder / "groups.csv"
    if not path.exists():
        return None
    groups = {}
    for number, line in enumerate(_lines(path)[1:], 2):
        name, mark, group = line.rpartition(",")
        if line.strip() and not (mark and name and group.strip()):
            raise Refused(f"{path}:{number}: {line[:80]!r} is not `id,group`")
        if line.strip() and groups.setdefault(name, group) != group:
            raise Refused(f"{path}:{number}: {name[:80]!r} is in two groups, {groups[name][:40]!r} and {group[:40]!r}")
    return groups


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error


def readable(config: Config, samples: list[Sample]) -> tuple[list[Sample], list[str]]:
    """The samples and what was left out of them: nothing, or, when the configuration says so, what cannot be read."""
    if config.on_unreadable == "raise":
        return samples, []
    bad = {error.path: error for error in find_unreadable(samples, progress=False)}
    skipped = []
    for sample in samples:
        if sample.path in bad:
            say(f"skipped: {bad[sample.path]}")
            skipped.append(f"{sample.id}: {bad[sample.path].reason}")
    return [sample for sample in samples if sample.path not in bad], skipped


def refuse_leaks(folder: Path, listed: list[Sample], test: list[Sample]) -> None:
    """A score on samples that were trained on is no score. Looks at names and files, decodes nothing."""
    problems = check_samples(listed, test)
    if problems:
        raise Refused(f"{folder}: {' '.join(map(str, problems))} `s4d doctor` says more; training was not started")


def views(config: Config, samples: list[Sample], sampling: str, seed: int, **more: object) -> FaceDataset:
    """Samples of one kind as the stage reads them: varied in training, squared and centred in evaluation."""
    training = sampling in ("train", "pretrain")
    recipe = config.augment_stills if samples[0].kind == "image" else config.augment_clips
    side, frames = geometry(config)
    return FaceDataset(
        samples, RECIPES[recipe] if training else EVAL, side, frames,
        config.stride, sampling, seed, cache=config.cache, contrast=config.local_contrast, **more,
    )


def training_split(config: FinetuneConfig, modality: str, listed: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) of one modality: validation is cut off first, then the few labels are drawn from the rest."""
    listed = _relabelled(config, modality, listed)
    train, validation = split_validation(listed, config.validation, config.split_seed)
    count = config.train_clips if modality == "clip" else config.train_stills
    return (few_labels(train, count, config.split_seed) if count else train), validation


def _relabelled(config: FinetuneConfig, modality: str, listed: list[Sample]) -> list[Sample]:
    """What the controls of chapter 08 do to the stills: labels by chance, or one class left out."""
    if modality == "clip":
        return listed
    if config.still_labels == "random":
        order = np.random.default_rng(config.split_seed).permutation(len(listed))
        listed = [replace(sample, label=listed[i].label) for sample, i in zip(listed, order)]
    if config.leave_out is not None:
        without = config.schema("image").label(config.leave_out, "leave_out")
        listed = [sample for sample in listed if sample.label != without]
    return listed


COARSE = {"Happiness": "Positive", "Surprise": "Surprise", "Neutral": "Neutral"}  # all others: Negative


def merge_classes(samples: list[Sample]) -> list[Sample]:
    """Samples under four coarse classes (schema `coarse4`): what a still set with another idea of labels looks like."""
    coarse, fine = schema_named("coarse4"), schema_named(samples[0].schema)
    to = [coarse.classes.index(COARSE.get(name, "Negative")) for name in fine.classes]
    return [replace(sample, label=to[sample.label], schema=coarse.name) for sample in samples]
