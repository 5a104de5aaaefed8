"""folder → records: lists read as written, splits that leak nothing, items fixed by (seed, epoch, index)."""

from __future__ import annotations

import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit
from torch.utils.data import DataLoader

from s4d_lib.clips import EVAL, LIGHT, PAPER_CLIP_TRAIN, augment, test_views
from s4d_lib.datasets import face_dataset
from s4d_lib.datasets.face_dataset import FaceDataset, find_unreadable
from s4d_lib.datasets.readers import read_dfew
from s4d_lib.datasets.samples import (
    Sample,
    check_one_schema,
    check_samples,
    few_labels,
    split_validation,
    translate_samples,
)
from s4d_lib.datasets.still_readers import read_affectnet
from s4d_lib.frames.cache import FrameCache
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.writer import write_mp4

IDS = ["00001", "00002", "00010", "02522", "16372"]
LABELS = [5, 0, 6, 3, 1]
LENGTHS = [3, 9, 17, 26, 40]


def write_list(root: Path, text: str, split: str = "train", fold: int = 1) -> Path:
    path = root / "annotation" / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    return path


@pytest.fixture(scope="module")
def dfew_source(tmp_path_factory, numbered_frame) -> Path:
    """Five clips of numbered frames in the DFEW layout, as folders of jpg and as mp4."""
    root = tmp_path_factory.mktemp("dfew")
    for id, length in zip(IDS, LENGTHS):
        frames = np.stack([numbered_frame(number) for number in range(length)])
        (root / "clip_jpg" / id).mkdir(parents=True)
        for number, frame in enumerate(frames, 1):
            Image.fromarray(frame).save(root / "clip_jpg" / id / f"{number:05d}.jpg", quality=95)
        (root / "clip_mp4").mkdir(exist_ok=True)
        write_mp4(root / "clip_mp4" / f"{id}.mp4", frames, fps=12.5)
    rows = "".join(f"{id},{label}\n" for id, label in zip(IDS, LABELS))
    write_list(root, "video_name,label\n" + rows)
    return root


@pytest.fixture
def dfew(dfew_source, tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(dfew_source, tmp_path / "dfew"))


@pytest.fixture
def affectnet(tmp_path) -> Path:
    root = tmp_path / "affectnet"
    lines = []
    for number, label in enumerate([0, 6, 3]):
        path = f"{680 + number}/cfa{number}f726_aligned/face_det_000000.bmp"
        (root / "Manually_Annotated_Images" / path).parent.mkdir(parents=True)
        picture = np.full((20, 24, 3), 60 * number, np.uint8)
        Image.fromarray(picture).save(root / "Manually_Annotated_Images" / path)
        lines.append(f"{path} {label}\n")
    (root / "train_affectnet7.txt").write_text("".join(lines))
    return root


def samples_of(labels: list[int], groups: list | None = None) -> list[Sample]:
    groups = groups or [None] * len(labels)
    rows = enumerate(zip(labels, groups))
    return [Sample(f"{i:05d}", Path(f"{i}.mp4"), label, "clip", group) for i, (label, group) in rows]


# -------------------------------------------------------------------------------- DFEW


@pytest.mark.parametrize(("frames", "suffix"), [("clip_jpg", ""), ("clip_mp4", ".mp4")])
def test_dfew_keeps_the_zeros_of_its_ids(dfew_source, frames, suffix):
    samples = read_dfew(dfew_source, "train", frames=frames)
    assert [sample.id for sample in samples] == IDS
    assert [sample.label for sample in samples] == LABELS
    assert [sample.path for sample in samples] == [dfew_source / frames / f"{id}{suffix}" for id in IDS]
    assert {(sample.kind, sample.group) for sample in samples} == {("clip", None)}


def test_dfew_folds_splits_patterns_and_groups(dfew):
    write_list(dfew, "video_name,label\r\n00010,6\r\n\r\n", "test", 3)  # as a spreadsheet would save it
    sample = read_dfew(dfew, "test", 3, frames="clip_mp4", pattern="{id}.mp4", groups={"00010": "Ada"})
    assert sample == [Sample("00010", dfew / "clip_mp4" / "00010.mp4", 6, "clip", "Ada", "dfew")]
    (dfew / "clip_jpg_256").mkdir()
    (dfew / "clip_jpg" / "00010").rename(dfew / "clip_jpg_256" / "00010")
    assert read_dfew(dfew, "test", 3, frames="clip_jpg_256")[0].path.parent.name == "clip_jpg_256"


def test_dfew_list_with_a_byte_order_mark(dfew):
    write_list(dfew, "\ufeffvideo_name,label\n00001,2\n")
    assert read_dfew(dfew, "train")[0].id == "00001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,id\n00001,2\n", r"train_set_1\.csv:1: expected the header video_name,label, got 'path,id'"),
        ("", "expected the header video_name,label, got ''"),
        ("video_name,label\n", "has no rows"),
        ("video_name,label\n00001,2\n00002\n", r"train_set_1\.csv:3: expected video_name,label, got '00002'"),
        ("video_name,label\n00001,2\n00002,2,3\n", r"train_set_1\.csv:3: expected"),
        ("video_name,label\n00001,7\n", r"train_set_1\.csv:2: label 7 is not in 0\.\.6 \(dfew: Happiness"),
        ("video_name,label\n00001,joy\n", r"train_set_1\.csv:2: label 'joy' is not a whole number and not a class"),
        ("video_name,label\n00001,2\n\n00001,2\n", r"train_set_1\.csv:4: '00001' is already on line 2"),
        ("video_name,label\n../clip_mp4/00001.mp4,2\n", "is not a name inside the data folder"),
        ("video_name,label\n..\\clip_mp4,2\n", "is not a name inside the data folder"),
        ("video_name,label\n/etc/passwd,2\n", "is not a name inside the data folder"),
        ("video_name,label\nC:/secret,2\n", "is not a name inside the data folder"),
        ("video_name,label\n,2\n", "'' is not a name inside the data folder"),
        ("video_name,label\n.,2\n", r"'\.' is not a name inside the data folder"),
    ],
)
def test_dfew_lists_that_are_wrong(dfew, text, message):
    write_list(dfew, text)
    with pytest.raises(ValueError, match=message):
        read_dfew(dfew, "train")


def test_missing_clips_are_counted_and_five_are_named(dfew):
    rows = "".join(f"{number:05d},0\n" for number in range(1, 13))
    write_list(dfew, "video_name,label\n" + rows)
    with pytest.raises(FileNotFoundError) as caught:
        read_dfew(dfew, "train")
    message = str(caught.value)
    assert "9 of 12 files are missing" in message and "train_set_1.csv" in message
    assert [f"{number:05d}" in message for number in (3, 4, 5, 6, 7, 8)] == [True] * 5 + [False]


def test_missing_lists_folders_splits_and_groups(dfew):
    with pytest.raises(FileNotFoundError, match=r"train_set_5\.csv: no such list; .*train_set_1\.csv"):
        read_dfew(dfew, "train", fold=5)
    with pytest.raises(ValueError, match=r"fold=7, but there are 5 folds; say folds="):
        read_dfew(dfew, "train", fold=7)
    with pytest.raises(FileNotFoundError, match=r"clip_jpg_256: no such folder"):
        read_dfew(dfew, "train", frames="clip_jpg_256")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        read_dfew(dfew, "val")
    with pytest.raises(ValueError, match=r"'00002' has no group"):
        read_dfew(dfew, "train", groups={"00001": "Ada"})


# -------------------------------------------------------------------------------- AffectNet


def test_affectnet_list(affectnet):
    samples = read_affectnet(affectnet, "train")
    assert [sample.label for sample in samples] == [0, 6, 3]
    assert samples[1].id == "681/cfa1f726_aligned/face_det_000000.bmp"
    assert samples[1].path == affectnet / "Manually_Annotated_Images" / samples[1].id
    assert {sample.kind for sample in samples} == {"image"}


def test_affectnet_released_list_name_and_names_with_spaces(affectnet):
    folder = affectnet / "Manually_Annotated_Images" / "a folder"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "1.png")
    (affectnet / "test_affectnet7_2w.txt").write_text("a folder/1.png 4\n\n")
    samples = read_affectnet(affectnet, "test", listing="test_affectnet7_2w.txt")
    assert [(sample.id, sample.label) for sample in samples] == [("a folder/1.png", 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("680/cfa0f726_aligned/face_det_000000.bmp\n", r"affectnet7\.txt:1: expected `<relative path>"),
        ("680/cfa0f726_aligned/face_det_000000.bmp 7\n", "label 7 is not in 0..6"),
        ("../train_affectnet7.txt 1\n", "not a name inside"),
        ("\n", "has no rows"),
    ],
)
def test_affectnet_lists_that_are_wrong(affectnet, text, message):
    (affectnet / "train_affectnet7.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_affectnet(affectnet, "train")
    with pytest.raises(FileNotFoundError, match=r"test_affectnet7\.txt: no such list"):
        read_affectnet(affectnet, "test")


# -------------------------------------------------------------------------------- one class order


def test_samples_of_two_class_orders_are_not_mixed(dfew_source, affectnet):
    clips = read_dfew(dfew_source, "train")
    other = [replace(sample, schema="ferv39k") for sample in clips[:2]]
    assert check_one_schema(clips) == "dfew" == FaceDataset(clips, EVAL, 16).schema and check_one_schema([]) is None
    with pytest.raises(ValueError, match=r"dfew \(such as 00001\), ferv39k \(such as 00001\)\..*translate_samples"):
        FaceDataset(clips + other, EVAL, 16)
    with pytest.raises(ValueError, match=r"none stated \(such as 00001\)"):
        check_one_schema(clips + [replace(clips[0], schema=None)])
    assert len(FaceDataset(clips + other, EVAL, 16, sampling="pretrain")) == 7, "pretraining looks at no label"
    joined, dropped = translate_samples(other, "dfew")
    assert len(FaceDataset(clips + joined, EVAL, 16)) == 7 and not dropped
    # 5 and 0 are Sadness and Anger in FERV39K's order.
    assert [(sample.label, sample.schema) for sample in joined] == [(1, "dfew"), (3, "dfew")]
    assert pickle.loads(pickle.dumps(joined)) == joined


def test_classes_without_a_counterpart_are_dropped_only_when_told_to_and_counted():
    samples = [replace(sample, schema="mafw") for sample in samples_of([0, 1, 6, 1, 7])]
    with pytest.raises(ValueError, match=r"Anxiety \(2\), Helplessness \(1\)"):
        translate_samples(samples, "dfew")
    kept, dropped = translate_samples(samples, "dfew", missing="drop")
    assert [(sample.id, sample.label) for sample in kept] == [("00000", 3), ("00002", 0)]
    assert dropped == {"Anxiety": 2, "Helplessness": 1}
    with pytest.raises(ValueError, match="carry no schema"):
        translate_samples(samples_of([0]), "dfew")


# -------------------------------------------------------------------------------- checks before training


def found(samples, *more, **options) -> dict[str, tuple]:
    return {problem.kind: (problem.count, problem.examples) for problem in check_samples(samples, *more, **options)}


def test_sound_samples_have_no_problem(dfew_source):
    samples = read_dfew(dfew_source, "train")
    assert check_samples(samples, min_frames=3, videos=True) == []
    assert check_samples(samples[:3], samples[3:]) == []
    assert found(samples, min_frames=17)["too few frames"] == (2, ("00001 (3 of 17)", "00002 (9 of 17)"))
    videos = read_dfew(dfew_source, "train", frames="clip_mp4")
    assert check_samples(videos, min_frames=17) == [], "videos are opened only when asked for"
    assert found(videos, min_frames=17, videos=True)["too few frames"][0] == 2


def test_every_problem_is_counted_with_examples_and_a_remedy(dfew):
    samples = read_dfew(dfew, "train")
    shutil.rmtree(dfew / "clip_jpg" / "00001")
    for frame in list((dfew / "clip_jpg" / "00002").iterdir()):
        frame.unlink()
    (dfew / "clip_jpg" / "02522" / "00013.jpg").write_bytes(b"")
    (dfew / "clip_mp4" / "00010.mp4").write_bytes(b"")
    (dfew / "clip_mp4" / "00002.mp4").write_bytes(b"no video")
    (dfew / "clip_jpg" / "copy").symlink_to(dfew / "clip_jpg" / "16372")
    samples += [
        replace(samples[3], label=9),
        Sample("copy", dfew / "clip_jpg" / "copy", 1, "clip", None, "dfew"),
        Sample("empty", dfew / "clip_mp4" / "00010.mp4", 1, "clip", None, "ferv39k"),
        Sample("junk", dfew / "clip_mp4" / "00002.mp4", 1, "clip", "Ada"),
    ]
    test = [replace(samples[4], id="other"), replace(samples[3], group="Ada")]
    problems = found(samples, test, videos=True)
    assert {kind: count for kind, (count, _) in problems.items()} == {
        "no such file": 1, "empty file": 1, "empty frame": 2, "no frames": 1, "unreadable": 1, "id twice": 1,
        "same file under two ids": 1, "label outside the schema": 1, "several schemas": 3, "id in both sets": 1,
        "file in both sets": 1, "group in both sets": 1,
    }  # fmt: skip
    assert problems["same file under two ids"][1] == ("copy and 16372",)
    assert problems["file in both sets"][1] == ("other and 16372",)
    assert problems["label outside the schema"][1] == ("02522 (9 of dfew)",)
    (missing,) = [p for p in check_samples(samples) if p.kind == "no such file"]
    assert str(missing).startswith("no such file: 1, such as ") and "Check the data root" in str(missing)


def test_examples_are_few_and_counts_are_whole():
    problems = found(samples_of([0] * 50), examples=2)
    assert problems == {"no such file": (50, ("0.mp4", "1.mp4"))}


# -------------------------------------------------------------------------------- splits


label_lists = st.lists(st.integers(0, 4), min_size=5, max_size=60)


@given(labels=label_lists, fraction=st.floats(0.1, 0.6), seed=st.integers(0, 99))
def test_validation_is_stratified_and_covers(labels, fraction, seed):
    samples = samples_of(labels)
    wanted = min(round(fraction * len(labels)), len(labels) - len(set(labels)))
    if not wanted:
        with pytest.raises(ValueError, match="leaves no validation sample"):
            split_validation(samples, fraction, seed)
        return
    train, validation = split_validation(samples, fraction, seed)
    assert Counter(train) + Counter(validation) == Counter(samples)
    assert split_validation(samples, fraction, seed) == (train, validation)
    for label, count in Counter(labels).items():
        held_out = sum(sample.label == label for sample in validation)
        assert held_out < count, "a class must not leave the training set"
    assert len(validation) == wanted


def test_validation_keeps_proportions():
    _, validation = split_validation(samples_of([0] * 100 + [1] * 50 + [2] * 10), 0.2, 3)
    assert Counter(sample.label for sample in validation) == {0: 20, 1: 10, 2: 2}
    other = split_validation(samples_of([0] * 100 + [1] * 50 + [2] * 10), 0.2, 4)[1]
    assert validation != other


@settings(deadline=None, max_examples=15)
@given(people=st.integers(2, 12), per_person=st.integers(1, 6), seed=st.integers(0, 99))
def test_no_group_is_on_both_sides(people, per_person, seed):
    numbers = range(people * per_person)
    samples = samples_of([i % 3 for i in numbers], [f"p{i % people}" for i in numbers])
    train, validation = split_validation(samples, 0.3, seed)
    assert train and validation
    assert not {sample.group for sample in train} & {sample.group for sample in validation}
    assert Counter(train) + Counter(validation) == Counter(samples)
    assert split_validation(samples, 0.3, seed) == (train, validation)


def test_grouped_validation_stays_near_the_class_proportions():
    """Control: a division that looks at groups only is further from them."""
    rng = np.random.default_rng(0)
    groups = [f"p{i // 4}" for i in range(160)]
    labels = [int(rng.integers(2)) if i // 4 % 2 else 2 for i in range(160)]  # half the people show one class

    def distance(validation):
        held_out = Counter(sample.label for sample in validation)
        return sum(abs(held_out[label] - 0.25 * count) for label, count in Counter(labels).items())

    chosen = distance(split_validation(samples_of(labels, groups), 0.25, 0)[1])
    blind = []
    for seed in range(20):
        people = np.random.default_rng(seed).permutation(40)[:10]
        blind.append(distance([s for s in samples_of(labels, groups) if int(s.group[1:]) in people]))
    assert chosen <= min(blind) + 2 and chosen < np.mean(blind) / 2


@pytest.mark.parametrize("people, fraction, seed", [(2, 0.3, 0), (7, 0.25, 1), (40, 0.2, 2), (41, 0.61, 3)])
def test_groups_are_divided_as_scikit_learn_divides_them(people, fraction, seed):
    chance = np.random.default_rng(seed)
    groups = [f"p{chance.integers(people) if i >= people else i}" for i in range(3 * people)]
    labels = np.concatenate([np.arange(3), chance.integers(3, size=3 * people - 3)])
    draws = GroupShuffleSplit(n_splits=64, test_size=fraction, random_state=seed).split(labels, groups=groups)
    distance = {tuple(out): np.abs(np.bincount(labels[out], minlength=3) - fraction * np.bincount(labels)).sum()
                for _, out in draws}
    _, validation = split_validation(samples_of(labels.tolist(), groups), fraction, seed)
    assert [int(sample.id) for sample in validation] == list(min(distance, key=distance.get))


def test_splits_that_cannot_be_made():
    with pytest.raises(ValueError, match="fraction 0.9 of 2 groups leaves none to train on"):
        split_validation(samples_of([0, 1], ["a", "b"]), 0.9, 0)
    with pytest.raises(ValueError, match="fraction must lie between 0 and 1, got 1.0"):
        split_validation(samples_of([0, 1]), 1.0, 0)
    with pytest.raises(ValueError, match="1 of 2 samples have a group"):
        split_validation(samples_of([0, 1], ["a", None]), 0.5, 0)
    with pytest.raises(ValueError, match="all samples are in one group"):
        split_validation(samples_of([0, 1], ["a", "a"]), 0.5, 0)


@given(labels=label_lists, seed=st.integers(0, 99), data=st.data())
def test_few_labels_are_nested_proportional_and_cover_every_class(labels, seed, data):
    samples = samples_of(labels)
    classes = Counter(labels)
    small = data.draw(st.integers(len(classes), len(labels)))
    large = data.draw(st.integers(small, len(labels)))
    few, more = few_labels(samples, small, seed), few_labels(samples, large, seed)
    assert len(few) == small and few == sorted(few, key=lambda sample: sample.id)
    assert set(few) <= set(more)
    chosen = Counter(sample.label for sample in few)
    assert set(chosen) == set(classes)
    for label, count in classes.items():
        # Rounding costs less than one; the guaranteed first sample of the other classes at most one each.
        assert chosen[label] <= max(1, small * count / len(labels) + 1)
        assert chosen[label] >= small * count / len(labels) - len(classes)


def test_few_labels_worked_by_hand_and_its_limits():
    samples = samples_of([0] * 60 + [1] * 30 + [2] * 9 + [3])
    counted = Counter(sample.label for sample in few_labels(samples, 20, 0))
    assert counted == {0: 11, 1: 6, 2: 2, 3: 1}, "the one sample of class 3 costs class 0 its twelfth"
    assert few_labels(samples, 20, 0) != few_labels(samples, 20, 1)
    for count in (3, 101):
        with pytest.raises(ValueError, match=rf"between 4 \(one per class\) and 100, got {count}"):
            few_labels(samples, count, 0)


# -------------------------------------------------------------------------------- records


def dataset_of(root: Path, frames="clip_jpg", **changes) -> FaceDataset:
    arguments = {"recipe": LIGHT, "size": 32, "clip_frames": 4, "stride": 2, "sampling": "train", "seed": 3}
    return FaceDataset(read_dfew(root, "train", frames=frames), **(arguments | changes))


def test_items_of_clips(dfew_source):
    dataset = dataset_of(dfew_source)
    assert len(dataset) == 5
    for index in range(5):
        item = dataset[index]
        assert item["x"].shape == (3, 4, 32, 32) and item["x"].dtype == torch.float32
        assert (item["label"], item["index"]) == (LABELS[index], index)
    with pytest.raises(IndexError, match="sample 5 of 5"):
        dataset[5]
    assert len(list(dataset)) == 5, "iteration ends"


def test_items_of_stills(affectnet):
    dataset = FaceDataset(read_affectnet(affectnet, "train"), EVAL, 16)
    item = dataset[2]
    with open_frames(dataset.samples[2].path) as reader:
        expected = augment(reader.read([0]), EVAL, 16, np.random.default_rng(0))[:, 0]
    assert item["x"].shape == (3, 16, 16) and torch.equal(item["x"], expected)
    assert FaceDataset(dataset.samples, EVAL, 16, replicate=2)[0]["x"].shape == (2, 3, 16, 16)
    assert FaceDataset(dataset.samples, EVAL, 16, sampling="test")[0]["x"].shape == (1, 3, 16, 16)


@pytest.mark.parametrize("frames", ["clip_jpg", "clip_mp4"])
def test_views_show_the_frames_that_the_rule_names(dfew_source, read_number, frames):
    """At the stored width nothing is resized, so the drawn numbers can be read back from the tensor."""
    dataset = dataset_of(dfew_source, frames, recipe=EVAL, size=64, sampling="test")
    for index, length in enumerate(LENGTHS):
        x = dataset[index]["x"]
        assert x.shape == (2, 3, 4, 64, 64)
        shown = [[_number_in(view[:, t], read_number) for t in range(4)] for view in x]
        assert shown == test_views(length, 4, 2)


def _number_in(x: torch.Tensor, read_number) -> int:
    """The number drawn in a normalised frame [3 64 64] that was stretched from 48 to 64 rows."""
    picture = x.sum(0)[11:21]  # rows 8:16 of the 48
    return read_number((picture[:8, :, None] > 0.6).float().expand(-1, -1, 3).numpy().repeat(3, 0) * 255)


@pytest.mark.parametrize("frames", ["clip_jpg", "clip_mp4"])
@pytest.mark.parametrize("sampling", ["train", "pretrain", "centre", "test"])
def test_items_do_not_depend_on_workers_order_or_cache(dfew_source, frames, sampling):
    keys = [(1, 4), (0, 2), (1, 0), (2, 3), (0, 1), (1, 1)]
    settings = {"sampling": sampling, "recipe": PAPER_CLIP_TRAIN}
    expected = [dataset_of(dfew_source, frames, **settings)[key]["x"] for key in keys]
    for workers in (0, 2):
        dataset, patience = dataset_of(dfew_source, frames, **settings), 60 * (workers > 0)
        loader = DataLoader(dataset, 2, sampler=keys, num_workers=workers, timeout=patience)
        assert torch.equal(torch.cat([batch["x"] for batch in loader]), torch.stack(expected))
    cached = dataset_of(dfew_source, frames, cache=True, **settings)
    for _ in range(2):
        for key, x in reversed(list(zip(keys, expected))):
            assert torch.equal(cached[key]["x"], x)


@pytest.mark.spawns
def test_spawned_workers_return_the_same(dfew_source):
    dataset = dataset_of(dfew_source, "clip_mp4")
    dataset[0]
    loader = DataLoader(dataset, 5, num_workers=1, timeout=90, multiprocessing_context="spawn")
    (batch,) = loader
    assert torch.equal(batch["x"], torch.stack([dataset[i]["x"] for i in range(5)]))


def test_epochs_and_seeds_give_other_crops(dfew_source):
    dataset = dataset_of(dfew_source)
    assert torch.equal(dataset[3]["x"], dataset[0, 3]["x"])
    assert not torch.equal(dataset[0, 3]["x"], dataset[1, 3]["x"])
    assert not torch.equal(dataset[0, 3]["x"], dataset_of(dfew_source, seed=4)[0, 3]["x"])
    twice = FaceDataset([dataset.samples[3]] * 2, LIGHT, 32, 4, 2, "centre")
    assert not torch.equal(twice[0]["x"], twice[1]["x"]), "neighbours must not share their chance"
    still = dataset_of(dfew_source, recipe=EVAL, sampling="centre")
    assert torch.equal(still[0, 3]["x"], still[1, 3]["x"]), "validation must not change from epoch to epoch"


def test_replicas_are_other_crops_of_the_same_frames(dfew_source, monkeypatch):
    dataset = dataset_of(dfew_source, sampling="pretrain", replicate=3)
    opened = []
    monkeypatch.setattr(face_dataset, "open_frames", lambda path: opened.append(path) or open_frames(path))
    x = dataset[3]["x"]
    assert len(opened) == 1, "decoded once"
    assert x.shape == (3, 3, 4, 32, 32)
    assert not torch.equal(x[0], x[1]) and not torch.equal(x[1], x[2])
    plain = dataset_of(dfew_source, recipe=EVAL, sampling="pretrain", replicate=3)[3]["x"]
    assert torch.equal(plain[0], plain[1]), "the frames are the same, only the crops differ"


def test_cache_reads_every_file_once(dfew_source, monkeypatch):
    monkeypatch.setattr(face_dataset, "SHARED", FrameCache(10**9))  # other tests have read these files
    dataset = dataset_of(dfew_source, cache=True)
    opened = []
    monkeypatch.setattr(face_dataset, "open_frames", lambda path: opened.append(path) or open_frames(path))
    for epoch in range(3):
        for index in range(5):
            dataset[epoch, index]
    again = dataset_of(dfew_source, cache=True)
    again[0, 0]
    assert len(opened) == 5, "every data set of the process shares what was decoded"


def test_the_cache_forgets_the_oldest_and_notices_new_files(tmp_path):
    frames = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    cache, paths = FrameCache(2 * frames.nbytes), [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"one")
        cache.put(path, frames)
    assert [cache.find(path) is None for path in paths] == [True, False, False] and cache.used == 2 * frames.nbytes
    assert cache.find(paths[1], "through local contrast") is None, "what was done to the frames is part of the key"
    paths[2].write_bytes(b"another")
    assert cache.find(paths[2]) is None


def test_a_dataset_refuses_what_it_cannot_hold(dfew_source, affectnet):
    clips, stills = read_dfew(dfew_source, "train"), read_affectnet(affectnet, "train")
    with pytest.raises(ValueError, match="stills or clips"):
        FaceDataset(clips + stills, LIGHT, 32)
    with pytest.raises(ValueError, match="at least one"):
        FaceDataset([], LIGHT, 32)
    two_views = {"replicate": 2, "sampling": "test"}
    for wrong in ({"sampling": "all"}, {"on_error": "skip"}, {"replicate": 0}, two_views):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            FaceDataset(clips, LIGHT, 32, **wrong)


# -------------------------------------------------------------------------------- unreadable files


@pytest.fixture
def broken(dfew) -> Path:
    """The second clip is cut short, and a frame in the middle of the fourth one is empty."""
    video = dfew / "clip_mp4" / "00002.mp4"
    video.write_bytes(video.read_bytes()[:900])
    (dfew / "clip_jpg" / "02522" / "00013.jpg").write_bytes(b"")
    return dfew


def test_find_unreadable_lists_them_all(broken):
    (error,) = find_unreadable(read_dfew(broken, "train", frames="clip_mp4"), progress=False)
    assert error.path == broken / "clip_mp4" / "00002.mp4"
    (error,) = find_unreadable(read_dfew(broken, "train"), progress=False)
    assert error.path.name == "02522" and "00013.jpg" in error.reason


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_stops_the_run_and_is_named(broken, workers):
    loader = DataLoader(dataset_of(broken, "clip_mp4"), 2, num_workers=workers, timeout=60 * (workers > 0))
    batches = iter(loader)
    with pytest.raises(UnreadableMedia, match=r"00002\.mp4") as caught:
        list(batches)
    assert "find_unreadable" in str(caught.value)
    assert len(list(batches)) == 2, "the other batches still come (and their workers end at once)"


def test_unreadable_files_are_left_out_only_when_told_to(broken):
    with pytest.warns(UserWarning, match=r"1 unreadable files left out:\n.*00002\.mp4"):
        dataset = dataset_of(broken, "clip_mp4", on_error="drop")
    assert [error.path.name for error in dataset.unreadable] == ["00002.mp4"]
    assert [sample.id for sample in dataset.samples] == [id for id in IDS if id != "00002"]
    assert len(list(dataset)) == 4


def test_nothing_readable_is_an_error_even_when_told_to_drop(broken):
    samples = [s for s in read_dfew(broken, "train", frames="clip_mp4") if s.id == "00002"]
    with pytest.raises(UnreadableMedia, match=r"00002\.mp4"):
        FaceDataset(samples, LIGHT, 32, on_error="drop")


def test_small_folders_are_not_taken_for_broken_ones(dfew_source):
    """The released loader calls a folder broken whose directory entry is under 1024 bytes (xfs, tmpfs)."""
    assert find_unreadable(read_dfew(dfew_source, "train"), progress=False) == []
    assert dataset_of(dfew_source)[0]["label"] == LABELS[0], "and no other sample takes its place"
