"""frames → clip: the released sampling rules, one drawing per clip, no chance but the generator's."""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from s4d_lib.clips import (
    EVAL,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LIGHT,
    PAPER_CLIP_PRETRAIN,
    PAPER_CLIP_TRAIN,
    PAPER_STILL_PRETRAIN,
    PAPER_STILL_TRAIN,
    AugmentRecipe,
    MixupCutmix,
    augment,
    centre_indices,
    denormalise,
    normalise,
    pretrain_indices,
    test_views,
    train_indices,
    variation,
)

PRESETS = {
    "clip_train": PAPER_CLIP_TRAIN,
    "still_train": PAPER_STILL_TRAIN,
    "clip_pretrain": PAPER_CLIP_PRETRAIN,
    "still_pretrain": PAPER_STILL_PRETRAIN,
    "light": LIGHT,
    "eval": EVAL,
}
every_preset = pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)

lengths = st.integers(1, 300)
clip_lengths = st.integers(1, 24)
strides = st.integers(1, 7)
seeds = st.integers(0, 2**32 - 1)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(t=5, h=40, w=56, seed=0) -> torch.Tensor:
    return torch.from_numpy(generator(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8))


def coordinates(t=3, h=100, w=120) -> torch.Tensor:
    """Frames that say where they were: red holds twice the row, green twice the column."""
    frames = torch.zeros(t, h, w, 3, dtype=torch.uint8)
    frames[..., 0] = 2 * torch.arange(h)[:, None]
    frames[..., 1] = 2 * torch.arange(w)
    return frames


def bytes_of(x: torch.Tensor) -> torch.Tensor:
    """A clip [3 t h w] back in 0..255."""
    return denormalise(x, axis=0) * 255


# -------------------------------------------------------------------------------- which frames


@pytest.mark.parametrize(
    ("n_frames", "stride", "expected"),
    [
        (16, 1, [*range(16)]),
        (64, 4, [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63]),
        (10, 1, [*range(10), 9, 9, 9, 9, 9, 9]),
    ],
)
def test_training_positions_of_short_clips_worked_by_hand(n_frames, stride, expected):
    """The first two numbers of the middle case show the step: 64/15, not 4."""
    assert train_indices(n_frames, 16, stride, generator()) == expected
    assert centre_indices(n_frames, 16, stride) == expected


@given(lengths, clip_lengths, strides, seeds)
def test_training_positions_against_exact_fractions(n_frames, clip_frames, stride, seed):
    positions = train_indices(n_frames, clip_frames, stride, generator(seed))
    window = clip_frames * stride
    if n_frames > window:
        end = int(generator(seed).integers(window, n_frames))
        step = Fraction(window, max(clip_frames - 1, 1))
        exact = [min(end - window + step * i, Fraction(end - 1)) for i in range(clip_frames)]
    else:
        seen = n_frames // stride
        step = Fraction(n_frames, max(seen - 1, 1))
        exact = [step * i for i in range(seen)] + [Fraction(n_frames)] * (clip_frames - seen)
        exact = [min(value, Fraction(n_frames - 1)) for value in exact]
    # Floating point may land a hair under a whole number, as in the released arithmetic.
    assert all(0 <= value - position < 1 + 1e-9 for value, position in zip(exact, positions))
    assert len(positions) == clip_frames


@given(lengths, clip_lengths, strides, seeds)
def test_every_rule_stays_inside_the_video_and_goes_forward(n_frames, clip_frames, stride, seed):
    arguments = n_frames, clip_frames, stride
    found = [train_indices(*arguments, generator(seed)), pretrain_indices(*arguments, generator(seed))]
    found += [centre_indices(*arguments), *test_views(*arguments, segments=1 + seed % 4)]
    for positions in found:
        assert len(positions) == clip_frames and positions == sorted(positions)
        assert 0 <= positions[0] and positions[-1] < n_frames
        assert all(type(position) is int for position in positions)


def test_training_window_reaches_everything_but_the_last_frame():
    found = [train_indices(20, 4, 2, generator(seed)) for seed in range(300)]
    assert {positions[0] for positions in found} == set(range(12))
    assert max(positions[-1] for positions in found) == 18, "the released rule never shows frame 19"
    assert {tuple(np.diff(p)) for p in found} <= {(2, 3, 2), (3, 2, 2), (2, 2, 3), (3, 2, 3), (2, 3, 3)}


@given(lengths, clip_lengths, strides)
def test_centre_clip_is_the_training_clip_drawn_in_the_middle(n_frames, clip_frames, stride):
    class Middle:
        def integers(self, low, high):
            return (low + high) // 2

    drawn = train_indices(n_frames, clip_frames, stride, Middle())
    assert centre_indices(n_frames, clip_frames, stride) == drawn


@given(lengths, clip_lengths, strides, seeds)
def test_pretraining_positions_by_walking(n_frames, clip_frames, stride, seed):
    positions = pretrain_indices(n_frames, clip_frames, stride, generator(seed))
    walked = [positions[0]]
    while len(walked) < clip_frames:
        walked.append(walked[-1] + stride if walked[-1] + stride < n_frames else walked[-1])
    assert positions == walked
    if n_frames <= clip_frames * stride:
        assert positions[0] == 0


def test_pretraining_starts_are_all_used():
    starts = {pretrain_indices(30, 4, 5, generator(seed))[0] for seed in range(300)}
    assert starts == set(range(11))


@given(lengths, clip_lengths, strides)
def test_two_views_are_the_first_and_the_last_window(n_frames, clip_frames, stride):
    first, last = test_views(n_frames, clip_frames, stride)
    strided = list(range(0, n_frames, stride))
    strided += [strided[-1]] * max(0, clip_frames - len(strided))
    assert (first, last) == (strided[:clip_frames], strided[-clip_frames:])


def test_views_worked_by_hand():
    assert test_views(23, 3, 4, segments=2) == [[0, 4, 8], [12, 16, 20]]
    assert test_views(23, 3, 4, segments=3) == [[0, 4, 8], [4, 8, 12], [12, 16, 20]]
    assert test_views(23, 3, 4, segments=1) == [[4, 8, 12]]
    assert test_views(2, 3, 4) == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("arguments", [(0, 16, 4), (16, 0, 4), (16, 16, 0), (-1, 16, 4)])
def test_sampling_nothing_is_an_error(arguments):
    for choose in (centre_indices, test_views):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            choose(*arguments)
    for choose in (train_indices, pretrain_indices):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            choose(*arguments, generator())
    with pytest.raises(ValueError, match="segments must be at least 1"):
        test_views(16, 16, 4, segments=0)


# -------------------------------------------------------------------------------- value range


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 5, 6), 1), ((2, 3, 5, 6), 1), ((3, 4, 5, 6), 0)])
def test_normalise_against_torchvision(shape, axis):
    x = torch.rand(shape)
    channels_third_last = x.movedim(axis, -3)
    expected = v2.functional.normalize(channels_third_last, list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.allclose(normalise(x, axis), expected.movedim(-3, axis), atol=1e-6)
    assert torch.allclose(denormalise(normalise(x, axis), axis), x, atol=1e-6)


def test_normalise_refuses_an_axis_that_does_not_hold_three_channels():
    with pytest.raises(ValueError, match=r"axis 1 of \[3, 8, 5, 6\]"):
        normalise(torch.rand(3, 8, 5, 6))


# -------------------------------------------------------------------------------- variation


def test_eval_at_the_stored_size_only_normalises():
    frames = picture(t=5, h=48, w=48)
    expected = normalise(frames.permute(3, 0, 1, 2) / 255, axis=0)
    assert torch.allclose(augment(frames, EVAL, 48, generator()), expected, atol=1e-5)


def test_eval_resizes_to_a_square_like_torchvision():
    frames = picture(t=2, h=40, w=56)
    expected = v2.functional.resize(frames.permute(0, 3, 1, 2), [32, 32], antialias=True).permute(1, 0, 2, 3)
    assert torch.allclose(bytes_of(augment(frames, EVAL, 32, generator())), expected.float(), atol=1e-3)


@every_preset
@pytest.mark.parametrize(("t", "h", "w", "size"), [(5, 40, 56, 32), (1, 64, 48, 64), (3, 32, 32, 32)])
def test_shape_and_type(recipe, t, h, w, size):
    x = augment(picture(t, h, w), recipe, size, generator())
    assert x.shape == (3, t, size, size) and x.dtype == torch.float32 and x.is_contiguous()
    assert x.isfinite().all()


@every_preset
@pytest.mark.parametrize("seed", range(12))
def test_all_frames_get_the_same_treatment(recipe, seed):
    frames = picture(t=1).expand(6, -1, -1, -1)
    x = augment(frames, replace(recipe, erase_mode="black"), 32, generator(seed))
    assert torch.equal(x, x[:, :1].expand_as(x))


def test_control_without_restarting_the_generators_frames_get_different_operations(monkeypatch):
    @contextmanager
    def never_restart(rng):
        yield lambda: None

    frames = picture(t=1).expand(6, -1, -1, -1)
    recipe = AugmentRecipe(resize=1.0, randaugment=PAPER_CLIP_TRAIN.randaugment)
    assert torch.equal(*augment(frames, recipe, 32, generator(1))[:, :2].unbind(1))
    monkeypatch.setattr(variation, "borrowed_generators", never_restart)
    x = augment(frames, recipe, 32, generator(1))
    assert not torch.equal(x, x[:, :1].expand_as(x))


@every_preset
def test_the_generator_decides_and_nothing_else(recipe):
    frames = picture()
    random.seed(1)
    once = augment(frames, recipe, 32, generator(7))
    random.seed(2)
    torch.manual_seed(3)
    np.random.seed(4)  # noqa: NPY002
    assert torch.equal(augment(frames, recipe, 32, generator(7)), once)
    if recipe is not EVAL:
        others = [augment(frames, recipe, 32, generator(seed)) for seed in range(4)]
        assert not all(torch.equal(other, once) for other in others)


def global_states() -> tuple:
    numpy_state = [str(np.asarray(part).tolist()) for part in np.random.get_state()]  # noqa: NPY002
    return random.getstate(), numpy_state, torch.get_rng_state().tolist()


@every_preset
def test_global_generators_are_left_as_they_were(recipe):
    x, labels = torch.rand(4, 3, 2, 8, 8), torch.arange(4)
    before = global_states()
    for seed in range(5):
        augment(picture(), recipe, 32, generator(seed))
    MixupCutmix(4)(x, labels, generator())
    assert global_states() == before


def test_global_generators_are_put_back_after_an_error(monkeypatch):
    def fail(notation):
        def operations(image):
            random.random()
            raise RuntimeError("broken operation")

        return operations

    monkeypatch.setattr(variation, "_rand_augment_operations", fail)
    before = global_states()
    with pytest.raises(RuntimeError, match="broken operation"):
        augment(picture(), PAPER_CLIP_TRAIN, 32, generator())
    assert global_states() == before


def test_the_input_is_left_as_it_was():
    frames = picture(h=32, w=32)
    copy = frames.clone()
    for recipe in PRESETS.values():
        augment(frames, recipe, 32, generator())
    assert torch.equal(frames, copy)


def test_flip_alone_mirrors_columns():
    frames = picture(h=32, w=32)
    plain = augment(frames, EVAL, 32, generator())
    assert torch.equal(augment(frames, replace(EVAL, flip=1.0), 32, generator()), plain.flip(-1))
    sometimes = replace(EVAL, flip=0.3)
    flipped = [not torch.equal(augment(frames, sometimes, 32, generator(seed)), plain) for seed in range(400)]
    assert 0.2 < np.mean(flipped) < 0.4


def crop_box(recipe: AugmentRecipe, seed: int, frames: torch.Tensor) -> tuple[float, float, float, float]:
    """(top, left, height, width) in the frame, read off the coordinates in the picture."""
    x = bytes_of(augment(frames, recipe, 64, generator(seed)))
    rows, columns = x[0, 0, :, 32] / 2, x[1, 0, 32] / 2
    height, width = ((v[48] - v[16]).item() * 2 for v in (rows, columns))  # away from the interpolated border
    middle_row, middle_column = (v[31:33].mean().item() for v in (rows, columns))
    return middle_row - height / 2, middle_column - width / 2, height, width


@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.7, 1.0), (0.9, 1 / 0.9))])
def test_crop_boxes_cover_the_asked_areas_and_shapes(scale, ratio):
    frames = coordinates(h=100, w=120)
    recipe = AugmentRecipe(crop_scale=scale, crop_ratio=ratio)
    boxes = np.array([crop_box(recipe, seed, frames) for seed in range(150)])
    top, left, height, width = boxes.T
    area = height * width / (100 * 120)
    assert scale[0] * 0.8 < area.min() < scale[0] * 1.6 and area.max() < 1.08
    assert ratio[0] * 0.9 < (width / height).min() and (width / height).max() < ratio[1] * 1.1
    assert top.min() > -4 and left.min() > -4
    assert (top + height).max() < 104 and (left + width).max() < 124
    assert top.std() > 2 and left.std() > 2


def test_still_recipe_crops_the_output_size_from_a_larger_square():
    frames = coordinates(t=1, h=100, w=120)
    recipe = AugmentRecipe(resize=PAPER_STILL_TRAIN.resize)
    boxes = np.array([crop_box(recipe, seed, frames) for seed in range(60)])
    assert np.allclose(boxes[:, 2], 100 / 1.2, atol=3) and np.allclose(boxes[:, 3], 120 / 1.2, atol=3)
    assert boxes[:, 0].min() < 2 and boxes[:, 0].max() > 100 - 100 / 1.2 - 3


def test_keep_aspect_resizes_the_shorter_edge():
    """Without it a square resize squeezes 120 columns into as many pixels as 60 rows."""
    frames = coordinates(t=1, h=60, w=120)
    kept = crop_box(AugmentRecipe(resize=1.0, keep_aspect=True), 3, frames)
    squeezed = crop_box(AugmentRecipe(resize=1.0), 3, frames)
    assert kept[3] / kept[2] == pytest.approx(1, abs=0.1)
    assert squeezed[3] / squeezed[2] == pytest.approx(2, abs=0.2)


def test_window_keeps_the_named_part():
    frames = coordinates(t=1, h=112, w=112)
    window = (0.0, 32 / 224, 160 / 224, 160 / 224)  # what pretraining keeps of a 224 px frame of VoxCeleb2
    top, left, height, width = crop_box(AugmentRecipe(window=window, resize=1.0), 0, frames)
    assert (top, left, height, width) == pytest.approx((0, 16, 80, 80), abs=2)


def test_shifted_crops_repeat_the_edge():
    """A crop of the whole frame that may move: what comes in is the nearest pixel, never black."""
    frames = coordinates(t=1, h=64, w=64)
    recipe = AugmentRecipe(shift=0.1)
    moved = set()
    for seed in range(40):
        rows = (bytes_of(augment(frames, recipe, 64, generator(seed)))[0, 0, :, 5] / 2).round().int().tolist()
        shift = rows[32] - 32
        assert rows == [min(max(r + shift, 0), 63) for r in range(64)]
        moved.add(shift)
    assert min(moved) < -3 and max(moved) > 3 and max(map(abs, moved)) <= 6


def test_rand_augment_has_the_settings_of_the_papers():
    for recipe, layers, magnitude in ((PAPER_CLIP_TRAIN, 4, 7), (PAPER_STILL_TRAIN, 2, 9)):
        operations = variation._rand_augment_operations(recipe.randaugment)
        assert operations.num_layers == layers and len(operations.ops) == 15
        for op in operations.ops:
            assert (op.prob, op.magnitude, op.magnitude_std, op.magnitude_max) == (0.5, magnitude, 0.5, None)
        assert {"PosterizeIncreasing", "SolarizeIncreasing"} <= {op.name for op in operations.ops}


def erased(recipe: AugmentRecipe, seed: int, t=4, size=40) -> tuple[torch.Tensor, torch.Tensor]:
    """(clip, mask [h w] of the pixels that differ from the same clip without erasing)."""
    frames = picture(t, size, size).clamp(1, 254)
    x = augment(frames, recipe, size, generator(seed))
    plain = augment(frames, EVAL, size, generator(seed))
    changed = (x != plain).all(0)
    assert (changed == changed[:1]).all(), "the box must be the same in every frame"
    return x, changed[0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mode", ["black", "noise"])
def test_erasing_one_box(seed, mode):
    x, mask = erased(replace(EVAL, erase=1.0, erase_mode=mode), seed)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    height, width = len(rows), len(columns)
    assert mask.sum() == height * width == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    assert 0.015 < height * width / 1600 < 0.36 and 0.25 < height / width < 4
    inside = x[:, :, mask]
    if mode == "black":
        black = -torch.tensor(IMAGENET_MEAN) / torch.tensor(IMAGENET_STD)
        assert torch.allclose(inside, black[:, None, None].expand_as(inside), atol=1e-5)
        assert not torch.allclose(inside, torch.zeros(()), atol=0.5), "control: zero later is grey"
    else:
        assert abs(inside.mean()) < 5 / math.sqrt(inside.numel()) and 0.7 < inside.std() < 1.3
        assert not torch.equal(inside[:, 0], inside[:, 1]), "the noise is drawn for every pixel"


def test_erasing_happens_as_often_as_asked():
    hits = [erased(replace(EVAL, erase=0.25), seed, t=1, size=16)[1].any().item() for seed in range(300)]
    assert 0.17 < np.mean(hits) < 0.34


@pytest.mark.parametrize(
    "frames", [torch.zeros(2, 4, 4, 3), torch.zeros(4, 4, 3).byte(), torch.zeros(0, 4, 4, 3).byte()]
)
def test_augment_refuses_what_is_not_frames(frames):
    with pytest.raises(ValueError, match=r"frames must be uint8 \[t h w 3\], got"):
        augment(frames, EVAL, 4, generator())


def test_recipes_refuse_words_and_probabilities_they_do_not_know():
    with pytest.raises(ValueError, match="erase_mode must be 'noise' or 'black', got 'pixel'"):
        AugmentRecipe(erase_mode="pixel")
    with pytest.raises(ValueError, match="interpolation must be .* got 'nearest'"):
        AugmentRecipe(interpolation="nearest")
    with pytest.raises(ValueError, match="flip must be a probability, got 50"):
        replace(EVAL, flip=50)


# -------------------------------------------------------------------------------- batch mixing


@pytest.mark.parametrize("shape", [(6, 3, 10, 12), (6, 3, 5, 10, 12), (5, 3, 5, 10, 12), (1, 3, 2, 10, 12)])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_mixing_against_a_slow_loop(shape, kind, seed):
    batch, classes, smoothing = shape[0], 7, 0.1
    x, labels = torch.rand(shape, generator=torch.Generator().manual_seed(1)), torch.arange(batch)
    mix = MixupCutmix(classes, mixup=0.8 * (kind == "mixup"), cutmix=1.0 * (kind == "cutmix"))
    mixed, targets = mix(x, labels, generator(seed))
    assert mixed.shape == x.shape and targets.shape == (batch, classes)
    # λ from the first target, whose partner is another class (a batch of one is its own partner)
    off, on = smoothing / classes, 1 - smoothing + smoothing / classes
    lam = ((targets[0, 0] - off) / (on - off)).item() if batch > 1 else 1.0
    pasted = mixed != x
    for i in range(batch):
        partner = batch - 1 - i
        expected = torch.full((classes,), off)
        expected[i] += lam * (on - off)
        expected[partner] += (1 - lam) * (on - off)
        assert torch.allclose(targets[i], expected, atol=1e-5)
        if kind == "mixup":
            assert torch.allclose(mixed[i], lam * x[i] + (1 - lam) * x[partner], atol=1e-5)
        else:
            assert torch.equal(mixed[i], torch.where(pasted[0], x[partner], x[i]))
    if kind == "cutmix":
        box = pasted[0].flatten(0, -3)
        assert (box == box[:1]).all(), "one box for all channels and frames"
        assert 1 - box[0].float().mean() == pytest.approx(lam, abs=1e-5), "λ is the area that stayed"


def test_mixing_switches_between_both_and_can_be_off():
    x, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    kinds = []
    for seed in range(200):
        mixed, _ = MixupCutmix(4)(x, labels, generator(seed))
        kinds.append((mixed == x).any().item())  # CutMix leaves pixels, mixup none
    assert 0.35 < np.mean(kinds) < 0.65
    mixed, targets = MixupCutmix(4, prob=0.0, smoothing=0.2)(x, labels, generator())
    assert torch.equal(mixed, x)
    assert torch.allclose(targets, torch.full((4, 4), 0.05) + 0.8 * torch.eye(4))


def test_mixing_leaves_its_input_and_repeats_itself():
    x, labels = torch.rand(4, 3, 2, 8, 8), torch.arange(4)
    copy = x.clone()
    first, second = (MixupCutmix(4)(x, labels, generator(5)) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(x, copy)


def test_mixing_refuses_labels_and_shapes_that_do_not_fit():
    mix = MixupCutmix(3)
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, got \[0, 3\]"):
        mix(torch.rand(2, 3, 8, 8), torch.tensor([0, 3]), generator())
    with pytest.raises(ValueError, match=r"labels \[b\], got \[2, 3, 8\] and \[2\]"):
        mix(torch.rand(2, 3, 8), torch.tensor([0, 1]), generator())
    with pytest.raises(ValueError, match=r"got \[2, 3, 8, 8\] and \[1\]"):
        mix(torch.rand(2, 3, 8, 8), torch.tensor([0]), generator())
