"""layers/masking.py: exact counts, the shape of each mask, and reproducibility."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4d_lib.layers.masking import frame_mask, random_mask, tube_mask, visible_index

grids = st.tuples(st.integers(2, 6), st.integers(2, 5), st.integers(2, 4))
ratios = st.floats(0.5, 0.95)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(batch=st.integers(1, 5), grid=grids, ratio=ratios, seed=st.integers(0, 99))
def test_counts_are_exact_and_shapes_are_what_the_names_say(batch, grid, ratio, seed):
    t, h, w = grid
    for make, unit, cells in ((random_mask, 1, t * h * w), (frame_mask, h * w, t), (tube_mask, t, h * w)):
        mask = make(batch, grid, ratio, seeded(seed))
        assert mask.shape == (batch, t * h * w) and mask.dtype == torch.bool
        assert (mask.sum(1) == int(ratio * cells) * unit).all(), "every sample hides the same exact number"
        assert torch.equal(mask, make(batch, grid, ratio, seeded(seed))), "one seed, one mask"
    slots = frame_mask(batch, grid, ratio, seeded(seed)).view(batch, t, h * w)
    assert (slots == slots[:, :, :1]).all(), "a frame mask hides a time slot whole or not at all"
    tubes = tube_mask(batch, grid, ratio, seeded(seed)).view(batch, t, h * w)
    assert (tubes == tubes[:, :1]).all(), "a tube hides the same places in every slot"


def test_the_papers_counts():
    image = random_mask(3, (1, 10, 10), 0.90, seeded(0))
    clip = random_mask(3, (8, 10, 10), 0.95, seeded(0))
    assert image.sum(1).tolist() == [90] * 3
    assert clip.sum(1).tolist() == [760] * 3
    tubes = clip.view(3, 8, 100)
    assert not (tubes == tubes[:, :1]).all(), "a random mask is no tube: it leaves neighbours in time to copy from"


def test_samples_and_seeds_differ():
    mask = random_mask(2, (4, 5, 3), 0.5, seeded(0))
    assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(mask, random_mask(2, (4, 5, 3), 0.5, seeded(1)))


def test_every_token_is_hidden_equally_often():
    share = random_mask(4000, (2, 4, 3), 0.75, seeded(0)).float().mean(0)
    # 4000 draws: a standard deviation of 0.007, so 0.04 is out of reach of chance for 24 tokens.
    assert (share - 0.75).abs().max() < 0.04


@pytest.mark.parametrize("make", [random_mask, frame_mask, tube_mask])
@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.5])
def test_an_impossible_ratio_is_refused(make, ratio):
    with pytest.raises(ValueError, match=r"mask ratio must be in \[0, 1\)"):
        make(2, (4, 3, 5), ratio)


def test_a_mask_that_would_hide_nothing_is_refused():
    with pytest.raises(ValueError, match="0 of 1 time slots"):
        frame_mask(2, (1, 5, 3), 0.75)  # an image has one time slot
    assert not random_mask(2, (1, 5, 3), 0.0).any(), "hiding nothing on purpose is allowed"


def test_visible_index_lists_what_the_mask_leaves():
    mask = random_mask(3, (2, 5, 3), 0.7, seeded(3))
    index = visible_index(mask)
    assert index.shape == (3, 9)
    for row, hidden in zip(index, mask, strict=True):
        assert row.tolist() == [n for n in range(30) if not hidden[n]]


@pytest.mark.parametrize("mask, said", [
    (torch.tensor([[True, False, False, False], [True, True, False, True]]), "got 1 to 3"),
    (torch.ones(2, 3, dtype=torch.bool), "hides every token"),
    (torch.zeros(2, 3), "a mask is bool"),
    (torch.zeros(3, dtype=torch.bool), "a mask is bool"),
])
def test_masks_that_no_rectangle_can_hold_are_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        visible_index(mask)
