"""layers/tokens.py against a loop over boxes, PyTorch's own Conv2d, and sinusoids from the math module."""

import math

import pytest
import torch
from torch.nn import functional as F

from s4d_lib.layers.tokens import TubeletEmbed, height_width, pad_image_to_tubelet, position_table, sincos_positions

GRID = (4, 3, 3)  # 8 frames in tubelets of 2, 15 pixels in patches of 5
DIM = 7


@pytest.fixture
def embed() -> TubeletEmbed:
    torch.manual_seed(0)
    return TubeletEmbed(image_size=15, frames=8, patch=5, tubelet=2, dim=DIM)


def test_an_image_becomes_identical_frames():
    image = torch.randn(2, 3, 5, 4)
    clip = pad_image_to_tubelet(image, tubelet=6)
    assert clip.shape == (2, 3, 6, 5, 4)
    assert all(torch.equal(clip[:, :, t], image) for t in range(6))


def test_each_token_is_the_weighted_sum_of_its_own_box(embed):
    clip = torch.randn(2, 3, 8, 15, 15)
    tokens = embed(clip)
    assert tokens.shape == (2, 36, DIM)
    n = 0
    for t in range(4):
        for h in range(3):
            for w in range(3):
                box = clip[:, :, 2 * t: 2 * t + 2, 5 * h: 5 * h + 5, 5 * w: 5 * w + 5]
                expected = torch.einsum("bcthw,dcthw->bd", box, embed.proj.weight) + embed.proj.bias
                torch.testing.assert_close(tokens[:, n], expected, rtol=1e-5, atol=1e-5)
                n += 1


def test_one_box_moves_one_token_in_raster_order(embed):
    clip = torch.zeros(1, 3, 8, 15, 15)
    clip[:, :, 2:4, 10:15, 5:10] = 1.0  # t = 1, h = 2, w = 1
    moved = (embed(clip) - embed(torch.zeros_like(clip))).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 9 + 2 * 3 + 1]


def test_an_image_token_is_a_2d_convolution_with_the_kernel_summed_over_time(embed):
    image = torch.randn(2, 3, 15, 15)
    expected = F.conv2d(image, embed.proj.weight.sum(2), embed.proj.bias, stride=5).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embed(image), expected, rtol=1e-5, atol=1e-5)
    # Control: half of the kernel is not enough, both copies of the image count.
    half = F.conv2d(image, embed.proj.weight[:, :, 0], embed.proj.bias, stride=5).flatten(2).transpose(1, 2)
    assert not torch.allclose(embed(image), half, atol=1e-2)


@pytest.mark.parametrize("shape, said", [
    ((2, 3, 8), "expected images"),
    ((2, 8, 15, 15, 3), "3 colour channels on axis 1"),
    ((2, 1, 15, 15), "3 colour channels on axis 1"),
    ((2, 3, 6, 15, 15), "clips of 8 frames, got 6"),
    ((2, 3, 15, 10), "15×15 pixels, got 15×10"),
    ((2, 3, 8, 16, 15), "15×15 pixels, got 16×15"),
])
def test_a_wrong_input_is_named(embed, shape, said):
    with pytest.raises(ValueError, match=said):
        embed(torch.zeros(shape))


def test_boxes_of_a_wide_clip_are_rows_of_their_own_width():
    torch.manual_seed(0)
    embed = TubeletEmbed((6, 12), frames=4, patch=3, tubelet=2, dim=DIM)  # grid 2 × 2 × 4
    clip = torch.zeros(1, 3, 4, 6, 12)
    clip[:, :, 2:, 3:, 6:9] = 1.0  # t = 1, h = 1, w = 2
    moved = (embed(clip) - embed(torch.zeros_like(clip))).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 8 + 1 * 4 + 2]
    assert embed(clip[:, :, 0]).shape == (1, 8, DIM)
    with pytest.raises(ValueError, match=r"reads 6×12 pixels, got 12×6 \(height × width\)"):
        embed(clip.transpose(3, 4))


def test_a_picture_size_is_a_side_or_height_and_width():
    assert height_width(15) == (15, 15) and height_width([6, 12]) == (6, 12) == height_width((6, 12))
    for wrong in (0, -15, (6,), (6, 12, 3), (6.0, 12), "15"):
        with pytest.raises(ValueError, match="one number of pixels or"):
            height_width(wrong)


def test_padding_refuses_a_clip():
    with pytest.raises(ValueError, match="image batch"):
        pad_image_to_tubelet(torch.zeros(1, 3, 2, 5, 5))


def test_positions_are_the_papers_sinusoid_over_the_flattened_index():
    table = position_table((8, 10, 10), 768, "flat")
    assert table.shape == (800, 768) and table.dtype == torch.float32
    for p in (0, 1, 99, 100, 799):
        for j in (0, 1, 2, 383, 766, 767):
            angle = p / 10000 ** (2 * (j // 2) / 768)
            expected = math.sin(angle) if j % 2 == 0 else math.cos(angle)
            assert table[p, j].item() == pytest.approx(expected, abs=1e-7)


def test_float32_angles_would_be_wrong():
    exact = sincos_positions(torch.arange(800), 768)
    column = torch.arange(768, dtype=torch.float32)
    angle = torch.arange(800.0)[:, None] / 10000.0 ** (2 * (column // 2) / 768)
    single = torch.where(column % 2 == 0, angle.sin(), angle.cos())
    assert exact.dtype == torch.float64
    assert (single - exact).abs().max() > 1e-5, "the reason why the table is computed in float64"


def test_separable_positions_put_one_axis_in_each_part():
    table = position_table(GRID, 20, "separable").view(*GRID, 20)
    time, height, width = table.split((8, 6, 6), dim=-1)
    for t in range(4):
        for h in range(3):
            for w in range(3):
                assert torch.equal(time[t, h, w], time[t, 0, 0])
                assert torch.equal(height[t, h, w], height[0, h, 0])
                assert torch.equal(width[t, h, w], width[0, 0, w])
    torch.testing.assert_close(width[0, 0].double(), sincos_positions(torch.arange(3), 6), atol=1e-6, rtol=0)
    # Control: the flat sinusoid mixes the axes, so two tokens of one column share nothing.
    flat = position_table(GRID, 20, "flat").view(*GRID, 20)
    assert not torch.equal(flat[0, 0, 1, -6:], flat[0, 1, 1, -6:])


def test_positions_of_a_wide_grid_count_its_own_columns():
    flat = position_table((2, 3, 5), 20, "flat").view(2, 3, 5, 20)
    torch.testing.assert_close(flat[1, 2, 4].double(), sincos_positions(torch.tensor([1 * 15 + 2 * 5 + 4]), 20)[0],
                               atol=1e-6, rtol=0)
    separable = position_table((2, 3, 5), 20, "separable").view(2, 3, 5, 20)
    assert torch.equal(separable[1, 2, 4, -12:], torch.cat([separable[0, 2, 0, -12:-6], separable[0, 0, 4, -6:]]))


@pytest.mark.parametrize("kind", ["flat", "separable"])
def test_no_two_tokens_share_a_position(kind):
    table = position_table(GRID, 20, kind)
    assert len(torch.unique(table, dim=0)) == len(table) == 36
