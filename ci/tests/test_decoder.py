"""layers/decoder.py against loops: where mask tokens go, how tubelets are cut, what the target is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4d_lib.clips import IMAGENET_MEAN, IMAGENET_STD
from s4d_lib.layers.decoder import normalised_target, paste_prediction, patchify, place_mask_tokens, unpatchify
from s4d_lib.layers.masking import random_mask


def test_latents_return_to_their_places():
    torch.manual_seed(0)
    mask = random_mask(3, (2, 5, 3), 0.7, torch.Generator().manual_seed(0))
    visible, mask_token = torch.randn(3, 9, 4), torch.randn(1, 1, 4)
    full = place_mask_tokens(visible, mask_token, mask)
    assert full.shape == (3, 30, 4)
    for b in range(3):
        rows = iter(visible[b])
        for n in range(30):
            expected = mask_token[0, 0] if mask[b, n] else next(rows)
            assert torch.equal(full[b, n], expected)
    # Control: appending the mask tokens, without returning to places, is another sequence.
    assert not torch.equal(full, torch.cat([visible, mask_token.expand(3, 21, 4)], dim=1))


def test_both_latents_and_mask_token_learn():
    mask = random_mask(2, (2, 3, 3), 0.5)
    visible, mask_token = torch.randn(2, 9, 4, requires_grad=True), torch.zeros(1, 1, 4, requires_grad=True)
    place_mask_tokens(visible, mask_token, mask).sum().backward()
    assert (visible.grad == 1).all() and (mask_token.grad == 18).all()


def test_tubelets_are_cut_in_token_order():
    torch.manual_seed(0)
    clip = torch.randn(2, 3, 4, 6, 15)  # grid 2 × 2 × 5 with tubelets of 2 × 3 × 3
    tubelets = patchify(clip, patch=3, tubelet=2)
    assert tubelets.shape == (2, 20, 3, 18)
    for t in range(2):
        for h in range(2):
            for w in range(5):
                box = clip[:, :, 2 * t: 2 * t + 2, 3 * h: 3 * h + 3, 3 * w: 3 * w + 3]
                assert torch.equal(tubelets[:, t * 10 + h * 5 + w], box.reshape(2, 3, 18))


@settings(deadline=None, derandomize=True, max_examples=25)
@given(grid=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)), patch=st.integers(1, 3),
       tubelet=st.integers(1, 2))
def test_cutting_and_joining_are_inverse(grid, patch, tubelet):
    t, h, w = grid
    clip = torch.arange(2.0 * 3 * t * tubelet * h * w * patch**2).view(2, 3, t * tubelet, h * patch, w * patch)
    assert torch.equal(unpatchify(patchify(clip, patch, tubelet), h * patch, w * patch, patch, tubelet), clip)


def slow_target(x: torch.Tensor, patch: int, correction: int = 1, joint: bool = False) -> torch.Tensor:
    """Target of one clip `[3 t h w]`, tubelets of two frames: per-channel statistics, channel fastest."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels, rows = x.double() * std + mean, []
    for t in range(0, x.shape[1], 2):
        for h in range(0, x.shape[2], patch):
            for w in range(0, x.shape[3], patch):
                box = pixels[:, t: t + 2, h: h + patch, w: w + patch]
                values = [box[:, i, j, k] for i in range(2) for j in range(patch) for k in range(patch)]
                values = torch.stack(values)  # [s 3]
                over = (0, 1) if joint else 0
                spread = (values.var(dim=over, correction=correction) + 1e-6).sqrt()
                rows.append(((values - values.mean(dim=over)) / spread).flatten())
    return torch.stack(rows).float()


def test_the_target_is_normalised_per_channel_of_each_tubelet():
    torch.manual_seed(0)
    clip = torch.randn(3, 4, 6, 15) * 0.5
    target = normalised_target(clip[None], patch=3, tubelet=2)[0]
    torch.testing.assert_close(target, slow_target(clip, 3), rtol=1e-4, atol=1e-4)
    # Controls: biased variance, and one mean for all three colours, are other targets.
    assert not torch.allclose(target, slow_target(clip, 3, correction=0), atol=1e-2)
    assert not torch.allclose(target, slow_target(clip, 3, joint=True), atol=1e-2)


def test_the_variance_is_that_of_pixels_from_zero_to_one():
    torch.manual_seed(0)
    clip = torch.randn(3, 4, 6, 15) * 0.004  # one thousandth of white: the size of √epsilon
    target = normalised_target(clip[None], patch=3, tubelet=2)[0]
    torch.testing.assert_close(target, slow_target(clip, 3), rtol=1e-3, atol=1e-3)


def test_an_images_target_is_that_of_two_equal_frames():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 6, 15)
    clip = torch.stack([image, image], dim=2)
    torch.testing.assert_close(normalised_target(image, 3, 2), normalised_target(clip, 3, 2))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(gain=st.floats(0.5, 2.0), offset=st.floats(-0.5, 0.5))
def test_the_target_does_not_see_brightness_or_contrast(gain, offset):
    torch.manual_seed(0)
    clip = torch.randn(1, 3, 2, 6, 9)
    torch.testing.assert_close(normalised_target(gain * clip + offset, 3, 2), normalised_target(clip, 3, 2),
                               rtol=1e-3, atol=1e-3)


def test_a_flat_tubelet_has_a_finite_target():
    assert normalised_target(torch.full((1, 3, 2, 3, 3), 0.25), 3, 2).abs().max() < 1e-2


def test_epsilon_decides_what_counts_as_noise():
    torch.manual_seed(0)
    noise = torch.rand(1, 3, 2, 3, 3) / 255 / 0.225  # one grey level, as a codec leaves on a flat background
    std = [normalised_target(noise, 3, 2, epsilon).std().item() for epsilon in (1e-6, 1e-2)]
    assert 0.5 < std[0] < 1 and std[1] < 0.02
    face = torch.randn(1, 3, 2, 3, 3)
    assert normalised_target(face, 3, 2, 1e-2).std() > 0.8, "structure stays"


@pytest.mark.parametrize("shape, grid", [((2, 3, 4, 6, 15), (2, 2, 5)), ((2, 3, 6, 15), (1, 2, 5))])
def test_a_perfect_prediction_paints_the_original(shape, grid):
    torch.manual_seed(0)
    std = torch.tensor(IMAGENET_STD).view(3, *[1] * (len(shape) - 2))
    mean = torch.tensor(IMAGENET_MEAN).view(3, *[1] * (len(shape) - 2))
    pixels = torch.rand(shape)
    x, mask = (pixels - mean) / std, random_mask(2, grid, 0.5, torch.Generator().manual_seed(0))
    target = normalised_target(x, 3, 2)
    original = pixels if len(shape) == 5 else torch.stack([pixels, pixels], dim=2)
    painted = paste_prediction(x, target, mask, 3, 2)
    torch.testing.assert_close(painted, original, rtol=0, atol=1e-4)
    wild = paste_prediction(x, 100 * target, mask, 3, 2)
    assert wild.min() >= 0 and wild.max() <= 1, "a bad prediction is still a picture"
    # Only hidden tubelets are painted: a prediction of zeros shows each one's mean colour, and nothing else.
    grey = patchify(paste_prediction(x, torch.zeros_like(target), mask, 3, 2), 3, 2)
    tubelets = patchify(original, 3, 2)
    torch.testing.assert_close(grey[~mask], tubelets[~mask], rtol=0, atol=1e-5)
    expected = tubelets[mask].mean(-1, keepdim=True).expand_as(tubelets[mask])
    torch.testing.assert_close(grey[mask], expected, rtol=0, atol=1e-5)
