"""figures/landmarks.py, models/landmark_readers.py: points, numbers of the record, other eyes for S2D."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from s4d_lib.clips import normalise
from s4d_lib.figures.base import PALETTE
from s4d_lib.figures.landmarks import ABOVE, BELOW, draw_feature_maps, draw_points, draw_region_errors, telling_channels
from s4d_lib.lab.landmark_scores import Located, report
from s4d_lib.models.landmark_readers import WAVELENGTHS, FilterBank, gabor
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.synthetic_faces.landmark_faces import REGIONS

DIRECTIONS = 8


def a_report(size: float, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(9, 68, 2, generator=generator)
    moved = true + size * torch.randn(9, 68, 2, generator=generator)
    return report(Located(moved, true, torch.linspace(0, 0.33, 9)))


@pytest.fixture(scope="module")
def results() -> dict:
    return {name: a_report(0.01 * n, n) | {"floors": {"mean_face": a_report(0.2, n), "pixel_ridge": a_report(0.1, n)}}
            for n, name in enumerate(("test", "book", "laboratory"), 1)}


# --- figures ---------------------------------------------------------------------------------------------------------


def near(picture: Image.Image, colour: str) -> np.ndarray:
    """Places [k 2], (x, y), of pixels within reach of a colour of the palette (pictures have 256 colours)."""
    away = np.abs(np.asarray(picture.convert("RGB")).astype(int) - ImageColor.getrgb(colour)).max(-1)
    return np.argwhere(away < 12)[:, ::-1]


def test_dots_lie_on_found_points_and_rings_on_true_ones():
    frames = torch.zeros(2, 21, 31, 3, dtype=torch.uint8)  # not square: x and y cannot be confused
    found = torch.tensor([[[0.2, 0.5]], [[0.8, 0.25]]])
    picture = draw_points(frames, found, found + torch.tensor([0.0, 0.4]), scale=4, columns=1)
    assert picture.size == (31 * 4 + 2, 2 * (21 * 4 + 2))
    for face, (x, y) in enumerate(found[:, 0].tolist()):
        place = np.array([(30 * x + 0.5) * 4 - 0.5, (20 * y + 0.5) * 4 - 0.5 + face * (21 * 4 + 2)])
        blue = [p for p in near(picture, PALETTE["pretrained"]) if abs(p[1] - place[1]) < 20]
        np.testing.assert_allclose(np.mean(blue, axis=0), place, atol=1)
        line = [p for p in near(picture, PALETTE["image"]) if abs(p[1] - place[1] - 16) < 18]
        assert len(line) > 20 and np.ptp(np.array(line)[:, 0]) <= 3, "the line goes straight down"
    with pytest.raises(ValueError, match=r"points must be \[2 k 2\]"):
        draw_points(frames, found[:1])


def test_figures_show_the_numbers_of_the_record(results):
    regions = draw_region_errors(results["test"], "t")
    assert [trace.name for trace in regions.data] == ["landmark network", "ridge on pixels", "mean face"]
    assert len({trace.marker.symbol for trace in regions.data}) == 3, "colour never carries meaning alone"
    assert all(list(trace.y) == ["all", *REGIONS] for trace in regions.data)
    for trace, row in zip(regions.data, (results["test"], *(results["test"]["floors"][k] for k in
                                                           ("pixel_ridge", "mean_face")))):
        assert list(trace.x) == pytest.approx([row["nme"][name] for name in ("all", *REGIONS)], abs=0.006)
    assert f"landmark network all {results['test']['nme']['all']:.1f}" in regions.layout.meta["alt"]


def test_channels_that_tell_faces_apart_come_first():
    features = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    features[:, 2] = features[:1, 2]                              # the same for every face, but not in space
    features[:, 4] = torch.linspace(-20, 20, 6)[:, None, None] + features[:, 4]
    order = telling_channels(features, 5)
    assert order[0] == 4 and order[-1] == 2 and sorted(order) == list(range(5))
    assert telling_channels(100 * features, 5) == order, "the size of a channel is no merit"
    with pytest.raises(ValueError, match="two"):
        telling_channels(features[:1], 2)


def test_maps_are_painted_where_a_channel_answers():
    frames = torch.full((2, 27, 41, 3), 90, dtype=torch.uint8)  # two pixels from one place of a map to the next
    features = torch.zeros(2, 3, 14, 21)
    features[0, 1, 3, 15], features[1, 1, 10, 4] = 2.0, -2.0
    picture = draw_feature_maps(frames, features, [1], scale=1)
    assert picture.size == (2 * 43, 2 * (27 + 2 + 12))
    for colour, row, col, face in ((ABOVE, 3, 15, 0), (BELOW, 10, 4, 1)):
        x, y = near(picture, colour).mean(0)
        assert abs(x - (43 + 2 * col)) < 1 and abs(y - (face * 41 + 12 + 2 * row)) < 1
    still = np.asarray(picture.convert("RGB"))[14:38, 2:40]
    assert np.abs(still.astype(int) - 90).max() < 3, "the face itself stands in the first column"
    with pytest.raises(ValueError, match=r"features must be \[2 c gh gw\]"):
        draw_feature_maps(frames, features[0], [1])


# --- other eyes ------------------------------------------------------------------------------------------------------


def grating(wavelength: float, degrees: float) -> torch.Tensor:
    """A wave of black and white `[1 3 112 112]`, normalised; it changes along `degrees` from the x axis."""
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    along = x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees))
    return normalise((0.5 + 0.5 * torch.sin(2 * math.pi * along / wavelength)).expand(1, 3, 112, 112))


@pytest.mark.parametrize("size", range(len(WAVELENGTHS)))
@pytest.mark.parametrize("direction", [0, 3, 6])
def test_a_wave_is_seen_by_the_filters_of_its_own_size_and_direction(size, direction):
    answers = FilterBank()(grating(WAVELENGTHS[size], 180 * direction / DIRECTIONS))[0, :, 4:10, 4:10].mean((1, 2))
    answers = answers.view(len(WAVELENGTHS), 2, 2, DIRECTIONS).sum((1, 2))  # sizes, sign, phase, directions
    best = divmod(int(answers.argmax()), DIRECTIONS)
    assert best == (size, direction)


def test_filters_ignore_flat_light_and_look_both_ways():
    flat = FilterBank()(normalise(torch.full((2, 3, 60, 50), 0.7)))
    assert flat.shape == (2, 128, 14, 14) and flat.abs().max() < 1e-5, "no edge is made where the picture ends"
    assert gabor(6.0, DIRECTIONS).sum((1, 2, 3)).abs().max() < 1e-6
    lighter, darker = (FilterBank()(normalise(sign * 0.3 + 0.5 * torch.ones(1, 3, 112, 112)
                                              + sign * blob())) for sign in (-1.0, 1.0))
    swapped = darker.view(1, len(WAVELENGTHS), 2, -1, 14, 14).flip(2).reshape(lighter.shape)
    torch.testing.assert_close(lighter, swapped, atol=1e-5, rtol=0)


def blob() -> torch.Tensor:
    x = torch.zeros(1, 3, 112, 112)
    x[:, :, 50:58, 44:60] = 0.2
    return x


def s2d(**changes) -> S2DClassifier:
    torch.manual_seed(0)
    model = S2DClassifier(**{"num_classes": 3, "image_size": (32, 48), "frames": 2, "patch": 16, "dim": 24, "depth": 2,
                             "heads": 2, "temporal_heads": 2, "landmark_channels": 128, **changes}).eval()
    for prompter in model.prompt_blocks:  # a fresh prompter says next to nothing
        for part in (prompter.conv0_1, prompter.conv1x1):
            torch.nn.init.normal_(part.weight, std=0.5)
    return model


def test_s2d_reads_through_any_eye():
    clip = torch.randn(2, 3, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    frames = clip.transpose(1, 2).flatten(0, 1)
    bank = FilterBank()
    model = s2d().use_landmarks(bank)
    expected = s2d()(clip, bank(frames))
    torch.testing.assert_close(model(clip), expected)
    assert model.state_dict().keys() == s2d().state_dict().keys(), "a borrowed eye is not part of the model"
    blind = model.use_landmarks(lambda x: torch.zeros(len(x), 128, 14, 14))(clip)
    assert not torch.allclose(blind, expected, atol=1e-3), "control: what the eye sees matters"
    few = s2d(landmark_channels=5).use_landmarks(lambda x: x.new_ones(len(x), 5, 3, 7))
    assert few(clip).shape == (2, 3), "another number of channels, another grid"
    with pytest.raises(ValueError, match="landmarks"):
        model.use_landmarks(lambda x: torch.zeros(len(x), 7, 14, 14))(clip)
