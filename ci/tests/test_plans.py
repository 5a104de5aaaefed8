"""Which samples meet in which step: counts, determinism, balance, seeding."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s4d_lib.training.plans import Batches, Mixed, collate, epoch_plan, keys, seeded, shuffled

LABELS = {"image": np.array([0, 1, 2] * 67), "clip": np.array([0, 1] * 26)}  # 201 stills, 52 clips


def plan(epoch=0, seed=0, drop_last=False, share=None, **more):
    share = share or {"image": 1.0, "clip": 1.0}
    return epoch_plan(LABELS, {"image": 16, "clip": 5}, share, seed, epoch, drop_last, **more)


def test_pretraining_epoch_sees_every_image_and_a_quarter_of_the_clip_batches():
    steps = plan(share={"image": 1.0, "clip": 0.25})
    images = [i for step in steps if step.modality == "image" for i in step.indices]
    assert sorted(images) == list(range(201)), "drop_last is off: the last, short batch counts too"
    assert sum(step.modality == "clip" for step in steps) == 2  # int(0.25 · 11 batches)


def test_fine_tuning_epoch_follows_the_released_counts():
    # As released finetune/s4d/data/concat_dataset.py:65-256 counts them on two GPUs, here one process:
    # DFEW 292 video steps and 2217 image steps an epoch.
    labels = {"image": np.zeros(283_901, int), "clip": np.zeros(9356, int)}
    steps = epoch_plan(labels, {"image": 64, "clip": 32}, {"image": 0.5, "clip": 1.0}, 0, 0, True)
    assert sum(step.modality == "clip" for step in steps) == 292
    assert sum(step.modality == "image" for step in steps) == 2217  # int(0.5 · 4435)
    assert {len(step.indices) for step in steps} == {32, 64}


def test_same_seed_and_epoch_same_plan_and_any_other_differs():
    assert plan() == plan()
    assert len({tuple(p) for p in (plan(), plan(epoch=1), plan(seed=1))}) == 3
    assert plan()[3].modality in ("image", "clip")
    order = [step.modality for step in plan()]
    assert order != sorted(order), "modalities come in random order, not one after the other"


@given(st.integers(0, 1000), st.integers(1, 40))
def test_no_sample_twice_in_an_epoch(seed, size):
    steps = epoch_plan({"clip": LABELS["clip"]}, {"clip": size}, {"clip": 1.0}, seed, 2, True)
    seen = [i for step in steps for i in step.indices]
    assert len(seen) == len(set(seen)) == 52 // size * size


def test_balance_evens_out_the_classes():
    rare = np.array([0] * 900 + [1] * 100)
    balanced = np.bincount(rare[shuffled(rare, [0], balance=True)])
    assert 0.8 < balanced[1] / balanced[0] < 1.25
    assert np.bincount(rare[shuffled(rare, [0])]).tolist() == [900, 100]  # the control: without it, as they are


def test_too_few_samples_is_an_error_that_counts_them():
    with pytest.raises(ValueError, match="52 clip samples do not fill one batch of 60"):
        epoch_plan({"clip": LABELS["clip"]}, {"clip": 60}, {"clip": 1.0}, 0, 0, True)


def test_keys_carry_the_epoch():
    steps = plan()[:2]
    assert keys(steps, 7)[0] == (steps[0].modality, 7, steps[0].indices)


def test_seeded_restores_every_generator():
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    expected = random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    with seeded(1, 2) as rng:
        inside = random.random(), np.random.rand(), torch.rand(1).item(), rng.random()  # noqa: NPY002
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected  # noqa: NPY002
    with seeded(1, 2) as rng:
        assert inside == (random.random(), np.random.rand(), torch.rand(1).item(), rng.random())  # noqa: NPY002
    with seeded(1, 3):
        assert torch.rand(1).item() != inside[2]


class Views:
    """Two views of the numbers asked for, as a data set that has them by batches."""

    replicate, sampling = 2, "test"

    def batch(self, indices, epoch=0):
        x = (torch.tensor(indices) + 10.0 * epoch).view(-1, 1, 1, 1, 1, 1).expand(-1, 2, 3, 4, 5, 6)
        return {"x": x, "label": torch.tensor(indices)}


def test_each_view_of_a_clip_counts_as_a_sample():
    batch = Mixed({"clip": Views()})["clip", 1, (0, 1, 2)]
    assert batch["x"].shape == (6, 3, 4, 5, 6)
    assert batch["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert batch["x"][:, 0, 0, 0, 0].tolist() == [10, 10, 11, 11, 12, 12]


def test_a_data_set_without_batches_gives_its_items_together():
    class Items:
        def __getitem__(self, key):
            epoch, index = key
            return {"x": torch.full((3, 4, 4), float(index)), "label": epoch}

    batch = Mixed({"image": Items()})["image", 4, (2, 0)]
    assert batch["x"][:, 0, 0, 0].tolist() == [2, 0] and batch["label"].tolist() == [4, 4]
    assert torch.equal(batch["x"], collate([Items()[4, 2], Items()[4, 0]])["x"])


def test_views_that_are_scored_stay_together():
    dataset = Views()
    batch = Batches(dataset)[range(3)]
    assert batch["views"] == 2 and batch["x"].unflatten(0, (-1, 2))[:, :, 0, 0, 0, 0].tolist() == [
        [0, 0], [1, 1], [2, 2]]
    dataset.sampling = "centre"
    assert Batches(dataset)[range(1)]["views"] == 1
