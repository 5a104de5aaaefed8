"""config → samples     what a stage reads: its folders, its lists, its split, and how a sample becomes a tensor.

Derived in chapters 06, 07 and 08.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s4d_lib.clips import EVAL, RECIPES
from s4d_lib.datasets.face_dataset import FaceDataset, find_unreadable
from s4d_lib.datasets.groups import groups_of
from s4d_lib.datasets.labels import schema_named
from s4d_lib.datasets.own_validation import has_validation
from s4d_lib.datasets.readers import folds_of, options_of, read_dataset
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
        named = listed_validation(config, m)
        own, of_validation = readable(config, named)
        if named and not own:
            raise Refused(f"{data_folder(config, m)}: nothing of the listed validation split can be read, such as "
                          f"{of_validation[0]}")
        train[m], validation[m] = training_split(config, m, listed, own)
        test[m], more = readable(config, read_samples(config, m, "test"))
        refuse_leaks(data_folder(config, m), listed, test[m])
        refuse_shared_validation(data_folder(config, m), own, listed, test[m])
        skipped[m] = left_out + of_validation + more
    return Split(train, validation, test, skipped)


def pretraining_samples(config: Config) -> tuple[Samples, dict[str, list[str]]]:
    """What a pretraining reads and what it had to skip, by modality."""
    found = {m: readable(config, read_samples(config, m, "train")) for m in config.modalities}
    return {m: samples for m, (samples, _) in found.items()}, {m: skipped for m, (_, skipped) in found.items()}


def read_samples(config: Config, modality: str, split: str) -> list[Sample]:
    """The samples a stage finds in its data folders; `groups.csv` beside the lists keeps one person in one split.

    ValueError for a setting that the layout has no use for: a schema that it fixes itself, a fold or a folder of frames
    other than the first, which always have a value, where there is nothing to choose from.
    """
    folder, still = data_folder(config, modality), modality == "image"
    part = "stills" if still else "clips"
    name, form = getattr(config, f"{part}_as"), config.lists(modality)
    taken, wanted = options_of(name), {"groups": groups_of(folder), **form.said()}
    wanted["schema"] = getattr(config, f"{part}_schema")
    if wanted["schema"] is not None and "schema" not in taken:
        raise Refused(f"the layout {name!r} fixes its labels itself: leave out {part}_schema={wanted['schema']!r}")
    wanted["frames"] = _frames(config, name, still, "frames" in taken)
    wanted["fold"] = _fold(config, modality, folder)
    found = read_dataset(folder, name, split, **{key: value for key, value in wanted.items() if value is not None})
    return merge_classes(found) if still and getattr(config, "still_labels", None) == "merged" else found


def _frames(config: Config, name: str, still: bool, taken: bool) -> str | None:
    """The folder of frames that the reader is told; None leaves the choice to the layout."""
    field, said = ("stills_frames", config.stills_frames) if still else ("frames", config.frames)
    default = Config.model_fields[field].default
    if not taken and said != default:
        raise Refused(f"the layout {name!r} has no folder of frames to choose: leave out {field}={said!r}")
    # The default of `frames` is DFEW's folder; the other layouts know their own.
    return said if taken and (name == "dfew" or said != default) else None


def _fold(config: Config, modality: str, folder: Path) -> int | None:
    """The fold that the reader is told; None where the data set has no folds. ValueError for one that it has not.

    Beside clips that have the fold, stills without folds are read as they are.
    """
    part = "stills" if modality == "image" else "clips"
    name, fold = getattr(config, f"{part}_as"), getattr(config, "fold", None)
    folds = folds_of(name, folder, config.lists(modality))
    if not folds:
        if fold not in (None, 1) and modality == config.primary:
            raise Refused(f"fold={fold}: {folder} as {name!r} has no folds; leave it out, or say in {part}_lists where "
                          "they stand")
        return None
    if fold is None:  # a pretraining has no test fold; its clips are those of the first
        return folds[0]
    if fold not in folds:
        raise Refused(f"fold={fold}: {folder} as {name!r} has the folds {', '.join(map(str, folds))}")
    return fold


def data_folder(config: Config, modality: str) -> Path:
    """Where the stills or the clips of a configuration lie."""
    folder = config.stills if modality == "image" else config.clips
    if folder is None:
        field = "stills" if modality == "image" else "clips"
        raise Refused(f"configuration {config.name!r} trains on {modality}s but names no folder: set {field}=")
    return Path(folder)


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


def refuse_shared_validation(folder: Path, own: list[Sample], listed: list[Sample], test: list[Sample]) -> None:
    """An epoch that was chosen on what is trained on, or on what is tested, was not chosen."""
    for name, others in (("training", listed), ("test", test)):
        if problems := check_samples(own, others):
            raise Refused(f"{folder}: the listed validation split and the {name} list: {' '.join(map(str, problems))} "
                          "Or set validation_from: train, so that a validation set is cut off the training list")


def views(config: Config, samples: list[Sample], sampling: str, seed: int, **more: object) -> FaceDataset:
    """Samples of one kind as the stage reads them: varied in training, squared and centred in evaluation."""
    training = sampling in ("train", "pretrain")
    recipe = config.augment_stills if samples[0].kind == "image" else config.augment_clips
    side, frames = geometry(config)
    return FaceDataset(
        samples, RECIPES[recipe] if training else EVAL, side, frames,
        config.stride, sampling, seed, cache=config.cache, contrast=config.local_contrast, **more,
    )


def validates_on_list(config: Config, modality: str) -> bool:
    """Whether a fine-tuning chooses its epoch on a validation split that its lists have, and not on a part of train.

    Refused where it is to be and there is none.
    """
    wanted = getattr(config, "validation_from", "train")
    if wanted == "train":
        return False
    folder, name = data_folder(config, modality), config.clips_as if modality == "clip" else config.stills_as
    there = has_validation(name, folder, config.lists(modality), _fold(config, modality, folder))
    if wanted == "list" and not there:
        raise Refused(f"validation_from: list, but {folder} as {name!r} has no validation split; name it in "
                      f"{'clips' if modality == 'clip' else 'stills'}_lists, as in {{splits: {{validation: dev}}}}")
    return there


def listed_validation(config: FinetuneConfig, modality: str) -> list[Sample]:
    """The validation samples that the lists name; none where validation is cut off the training list."""
    if not validates_on_list(config, modality):
        return []
    found = read_samples(config, modality, "validation")
    say(f"{config.name}: the epoch is chosen on the validation split of the {modality} lists, {len(found):,} samples")
    return found


def training_split(config: FinetuneConfig, modality: str, listed: list[Sample], own: list[Sample] | None = None
                   ) -> tuple[list[Sample], list[Sample]]:
    """(train, validation) of one modality: validation is cut off first, then the few labels are drawn from the rest.

    `own` is the validation split that the lists have, read here where it is not given; with one, nothing is cut off.
    """
    own = listed_validation(config, modality) if own is None else own
    listed = _relabelled(config, modality, listed)
    train, validation = (listed, _relabelled(config, modality, own)) if own else split_validation(
        listed, config.validation, config.split_seed)
    count = config.train_clips if modality == "clip" else config.train_stills
    if count and count > len(train):
        raise Refused(f"train_{'clips' if modality == 'clip' else 'stills'}={count}, but {len(train):,} are there to "
                      f"train on in {data_folder(config, modality)}: say fewer, or leave it out to take all")
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
