"""The floors: what they reach on data whose answer is known, and that they look at nothing but training samples."""

import numpy as np
import pytest
import torch

from s4d_lib.analysis.floors import (
    floors,
    grey_contrast,
    grey_in_time,
    grey_mean,
    random_encoder,
    random_features,
    read_features,
    read_pictures,
    ridge,
)
from s4d_lib.datasets.labels import SCHEMAS
from s4d_lib.training.data import read_samples, training_split
from s4d_lib.training.tiers import finetuning


def blobs(shift: float, seed: int = 0) -> tuple[dict, dict]:
    """Three classes in 5 dimensions, their means `shift` apart."""
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(0, 3, n) for name, n in (("train", 90), ("validation", 60), ("test", 70))}
    centre = shift * rng.normal(size=(3, 5))
    features = {name: torch.tensor(centre[y] + rng.normal(size=(len(y), 5)), dtype=torch.float32)
                for name, y in labels.items()}
    return features, labels


def test_ridge_finds_what_is_there_and_nothing_where_there_is_nothing():
    features, labels = blobs(shift=4.0)
    found = ridge([features], labels, 3).argmax(1)
    assert (found == labels["test"]).mean() > 0.95
    features, labels = blobs(shift=0.0)
    assert (ridge([features], labels, 3).argmax(1) == labels["test"]).mean() < 0.55  # the control: chance is 1/3


def test_ridge_chooses_the_feature_set_on_validation():
    good, labels = blobs(shift=4.0)
    noise, _ = blobs(shift=0.0)
    assert (ridge([noise, good], labels, 3) == ridge([good], labels, 3)).all()


def test_pixel_features_see_what_their_names_say():
    x = torch.rand(2, 3, 8, 12, 16)
    backwards = x.flip(2)
    torch.testing.assert_close(grey_mean(x), grey_mean(backwards))
    assert not torch.allclose(grey_in_time(x), grey_in_time(backwards)), "order is visible in four parts"
    brighter = grey_contrast(x + 0.5)
    torch.testing.assert_close(grey_contrast(x), brighter, rtol=1e-3, atol=1e-3)
    assert grey_mean(x).shape == (2, 6 * 8)


def test_floors_on_files(faces):
    config = finetuning("smoke", "dfer", stills=str(faces / "stills"), clips=str(faces / "clips"))
    train_set, validation = training_split(config, "clip", read_samples(config, "clip", "train"))
    test = read_samples(config, "clip", "test")
    found = floors({"train": train_set, "validation": validation, "test": test}, SCHEMAS["dfew"].classes, stride=2)
    commonest = np.bincount([sample.label for sample in train_set]).argmax()
    share = 100 * np.mean([sample.label == commonest for sample in test])
    assert found["majority"].war.value == pytest.approx(share)
    assert all(scores.count == len(test) for scores in found.values())
    pictures = read_pictures(test[:2], "tiny", 2)
    assert pictures.shape[:2] == (2, 3)
    once, again, other = (random_features(pictures, random_encoder("tiny", seed)) for seed in (0, 0, 1))
    assert torch.equal(once, again) and not torch.equal(once, other)


def test_features_read_in_batches_are_those_of_all_pictures_at_once(faces):
    config = finetuning("smoke", "dfer", stills=str(faces / "stills"), clips=str(faces / "clips"))
    samples = read_samples(config, "clip", "test")[:5]
    pictures = read_pictures(samples, "tiny", 2)
    views = [grey_mean, grey_in_time, grey_contrast, lambda x: random_features(x, random_encoder("tiny", 0))]
    for found, view in zip(read_features(samples, "tiny", 2, 0, batch=2), views, strict=True):
        torch.testing.assert_close(found, view(pictures), rtol=1e-4, atol=1e-4)
