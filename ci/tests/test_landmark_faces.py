"""synthetic_faces/landmark_faces.py: points that move with their pixels, mirrored numbers, parts that share nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from s4d_lib.frames.local_contrast import local_contrast
from s4d_lib.lab.landmark_scores import normalised_mean_error
from s4d_lib.models.landmark_net import LANDMARK_PIXELS
from s4d_lib.synthetic_faces import landmark_faces
from s4d_lib.synthetic_faces.drawing import make_stills
from s4d_lib.synthetic_faces.folders import write_faces
from s4d_lib.synthetic_faces.geometry import ACTION_UNITS, FaceShape
from s4d_lib.synthetic_faces.landmark_faces import (
    MIRROR,
    PARTS,
    RECIPE,
    REGIONS,
    DrawnFaces,
    StoredFaces,
    Variation,
    move_points,
    through_coarse,
    vary,
)
from s4d_lib.synthetic_faces.people import View, sample_people, sample_views
from s4d_lib.synthetic_faces.recipes import RECIPES

STILL = Variation(zoom=(1, 1), shift=0, turn=0, flip=0, grey=0, blur=0, coarse=0)


def test_drawn_faces_are_as_large_as_the_landmark_network_reads_them():
    assert RECIPE.size == LANDMARK_PIXELS


# --- mirror ----------------------------------------------------------------------------------------------------------


def test_mirroring_twice_changes_nothing_and_keeps_regions():
    assert sorted(MIRROR) == list(range(68))
    assert [MIRROR[MIRROR[i]] for i in range(68)] == list(range(68))
    for part in REGIONS.values():
        numbers = range(68)[part]
        assert {MIRROR[i] for i in numbers} == set(numbers)
    assert [i for i in range(68) if MIRROR[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66], "the middle of a face"


def a_face_and_its_mirror_image(size: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of drawn faces, and of the same faces drawn with every sideways parameter turned round, [9 68 2] px."""
    rng = np.random.default_rng(4)
    face = sample_people(rng, 9) | sample_views(rng, 9, View())
    units = torch.from_numpy(rng.uniform(0, 0.8, (9, len(ACTION_UNITS))).astype(np.float32))
    other = face | {name: -face[name] for name in ("yaw", "roll", "shift_x", "asymmetry")}
    return FaceShape(face, units, size).landmarks(), FaceShape(other, units, size).landmarks()


def flip_points(points: torch.Tensor) -> torch.Tensor:
    maps = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]]).expand(len(points), 2, 3)
    return move_points(points, maps, torch.ones(len(points), dtype=torch.bool))


def test_mirrored_points_are_those_of_a_face_drawn_mirrored():
    here, there = a_face_and_its_mirror_image()
    # The chin, where the half width of the head is the root of a rounding error, is 0.02 px off.
    torch.testing.assert_close(flip_points(here / 89), there / 89, atol=1e-3, rtol=0)


def test_without_the_mirror_map_flipped_faces_are_far_off(monkeypatch):
    here, there = a_face_and_its_mirror_image()
    assert normalised_mean_error(flip_points(here / 89), there / 89)["all"] < 0.1
    monkeypatch.setattr(landmark_faces, "MIRROR", tuple(range(68)))
    wrong = normalised_mean_error(flip_points(here / 89), there / 89)
    assert min(wrong.values()) > 4 and wrong["eyes"] > 50, wrong


# --- variation -------------------------------------------------------------------------------------------------------


def marked(count: int, side: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Black pictures with one soft red dot at one of 68 random points each."""
    points = torch.from_numpy(rng.uniform(0.3, 0.7, (count, 68, 2)).astype(np.float32))
    which = rng.integers(0, 68, count)
    place = points[range(count), which] * (side - 1)
    axis = torch.arange(side)
    x, y = axis - place[:, 0, None, None], axis[:, None] - place[:, 1, None, None]
    frames = torch.zeros(count, 3, side, side)
    frames[:, 0] = torch.exp(-(x * x + y * y) / 8)
    return frames, points, which


def dots(frames: torch.Tensor) -> torch.Tensor:
    """Centre of the light of each picture, [b 2] pixels."""
    light = frames.sum(1)
    axis = torch.arange(light.shape[-1], dtype=light.dtype)
    sums = torch.stack([(light * axis).sum((1, 2)), (light * axis[:, None]).sum((1, 2))], 1)
    return sums / light.sum((1, 2))[:, None]


@pytest.mark.parametrize("flip, coarse", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_dots_are_found_where_the_points_say(flip, coarse):
    frames, points, which = marked(24, 61, np.random.default_rng(0))
    how = Variation(flip=flip, grey=1, blur=1, turn=0.3, coarse=coarse, contrast=0)
    varied, moved = vary(frames, points, np.random.default_rng(1), how)
    number = np.array(MIRROR)[which] if flip else which
    found, said = dots(varied), moved[range(24), number] * 60
    assert (found - said).norm(dim=1).max() < 0.2, "pixels and points take the same way"
    assert (found - points[range(24), which] * 60).norm(dim=1).mean() > 2, "the pictures have moved"
    torch.testing.assert_close(varied[:, 0], varied[:, 2], msg="grey")


def test_one_seed_gives_one_variation_and_no_variation_gives_the_picture_back():
    frames, points, _ = marked(4, 40, np.random.default_rng(2))
    one, other = (vary(frames, points, np.random.default_rng(3), Variation()) for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    same = vary(frames, points, np.random.default_rng(3), STILL)
    torch.testing.assert_close(same, (frames, points), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="square"):
        vary(frames[:, :, :30], points, np.random.default_rng(3), Variation())


def test_softening_is_the_binomial_filter_of_scipy():
    from scipy.ndimage import convolve

    x = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = [[convolve(channel, kernel, mode="nearest") for channel in one] for one in x.numpy()]
    np.testing.assert_allclose(landmark_faces._soft(x).numpy(), expected, atol=1e-12)


def test_coarse_faces_are_what_a_small_model_reads():
    """At the small size itself a face is only brought up; local contrast is that of the readers, which takes bytes."""
    frames = torch.randint(0, 256, (3, 3, 48, 48), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pictures = local_contrast(frames.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(through_coarse(frames.float() / 255, contrast=True), pictures.float() / 255)
    torch.testing.assert_close(through_coarse(frames.float() / 255, contrast=False), frames.float() / 255)
    large = F.interpolate(frames.float() / 255, (95, 95), mode="bilinear", align_corners=True)
    coarse = through_coarse(large, contrast=False)
    assert coarse.shape == large.shape and coarse.var() < 0.8 * large.var(), "fine detail is gone"


# --- faces -----------------------------------------------------------------------------------------------------------


def test_drawn_faces_come_back_and_parts_share_nobody():
    recipe = replace(RECIPE, size=32)
    train, again = DrawnFaces(60, recipe=recipe), DrawnFaces(60, recipe=recipe)
    assert torch.equal(train[50]["points"], again[(7, 50)]["points"]), "the epoch changes no face"
    assert train[3]["x"].shape == (3, 32, 32) and train[3]["x"].dtype == torch.uint8
    others = [DrawnFaces(60, part, seed, recipe)[3]["points"] for part, seed in
              (("validation", 0), ("test", 0), ("train", 1))]
    kept = [train[3]["points"], *others]
    assert not any(torch.allclose(a, b) for i, a in enumerate(kept) for b in kept[:i])
    stills = make_stills(recipe, 60, train.seed + 1)  # the second chunk has a seed of its own
    item = train[50]
    assert torch.equal(item["x"], stills.frames[2].permute(2, 0, 1)) and item["yaw"] == stills.poses[2, 0]
    torch.testing.assert_close(item["points"], stills.landmarks[2] / 31)
    contrast = DrawnFaces(60, recipe=recipe, contrast=True)[50]
    assert torch.equal(contrast["x"], local_contrast(stills.frames[2:3])[0].permute(2, 0, 1))
    assert torch.equal(contrast["points"], item["points"])


def test_stored_faces_are_the_files_with_their_points(tmp_path):
    recipe = replace(RECIPES["default"], size=32)
    write_faces(tmp_path / "faces", recipe, stills=30, clips=0, seed=2, progress=False)
    parts = {part: StoredFaces(tmp_path / "faces" / "stills", part) for part in PARTS}
    assert [len(part) for part in parts.values()] == [22, 2, 6]
    assert len({name for part in parts.values() for name in part.ids}) == 30
    stills = make_stills(recipe, 30, 2)
    item = parts["test"][1]  # every fifth still is a test still: numbers 4, 9 …
    assert torch.equal(item["x"], stills.frames[9].permute(2, 0, 1))
    torch.testing.assert_close(item["points"], stills.landmarks[9] / 31)
    assert item["yaw"] == stills.poses[9, 0]
