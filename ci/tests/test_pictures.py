"""figures/pictures.py and its figures: where frames, masks, grids, points and intervals land on the picture."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

from s4d_lib.clips import normalise, spread_indices
from s4d_lib.figures.base import PALETTE
from s4d_lib.figures.curves import draw_masks
from s4d_lib.figures.intervals import draw_measures
from s4d_lib.figures.maps import draw_action_units, draw_class_shares, draw_grid_maps
from s4d_lib.figures.pictures import filmstrip, hide_tubelets, mark_landmarks, rule_tubelets, sheet, stack, to_frames

GRID = (2, 3, 4)  # tubelets of 2 frames, 4 rows and 5 columns in frames of 12 by 20


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 90, (4, 12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def colour(name: str) -> list[int]:
    return list(ImageColor.getrgb(PALETTE[name]))


def test_what_a_model_reads_comes_back_as_the_same_bytes(frames):
    x = normalise(frames.permute(3, 0, 1, 2).float() / 255, axis=0)
    assert torch.equal(to_frames(x), frames)
    assert torch.equal(to_frames(x[:, 2]), frames[2:3]), "an image is one frame"
    with pytest.raises(ValueError, match="index the batch"):
        to_frames(x[None])


def test_a_filmstrip_runs_from_the_first_to_the_last_frame(frames):
    assert spread_indices(4, 3) in ([0, 2, 3], [0, 1, 3]) and spread_indices(3, 9) == [0, 1, 2]
    frames = frames // 45 * 45  # eight colours, which a picture of 256 keeps exactly
    strip = filmstrip(frames, count=2, scale=1)
    assert strip.size == (2 * 22, 14)
    assert np.array_equal(np.asarray(strip.convert("RGB"))[:12, :20], frames[0]), "left: the first frame"
    assert np.array_equal(np.asarray(strip.convert("RGB"))[:12, 22:42], frames[3]), "right: the last frame"
    assert filmstrip(frames, count=2, scale=1, fps=12.5).height > strip.height, "times take room"


def test_a_sheet_fills_rows_and_few_colours_do_not_show(frames):
    faces = frames.repeat(1, 4, 4, 1)
    page = sheet(faces, columns=3, labels=list("abcd"))
    assert page.mode == "P" and page.size == (3 * 82, 2 * 62)
    fourth = np.asarray(page.convert("RGB"))[62 + 12 : 62 + 60, :80].astype(int)
    assert np.abs(fourth - faces[3].numpy()).mean() < 4, "the fourth face starts the second row"


def test_hidden_tubelets_are_grey_and_all_others_untouched(frames):
    mask = torch.zeros(24, dtype=torch.bool)
    mask[1 * 12 + 2 * 4 + 3] = True  # time slot 1, row 2, column 3
    shown = hide_tubelets(frames, mask, GRID)
    inside = torch.zeros(4, 12, 20, dtype=torch.bool)
    inside[2:4, 8:12, 15:20] = True
    assert (shown[inside] == torch.tensor(colour("hidden"), dtype=torch.uint8)).all()
    assert torch.equal(shown[~inside], frames[~inside])
    with pytest.raises(ValueError, match="one mask value a token"):
        hide_tubelets(frames, mask[:12], GRID)
    with pytest.raises(ValueError, match="cannot be cut"):
        hide_tubelets(frames, mask, (2, 5, 4))


def test_grid_lines_and_the_chosen_tubelet(frames):
    ruled = rule_tubelets(frames, GRID, scale=3, chosen=(1, 2, 3))
    assert ruled.shape == (4, 36, 60, 3)
    assert (ruled[:, 12, :40] == 255).all() and (ruled[:, :20, 15] == 255).all(), "lines lie between tubelets"
    mark = torch.tensor(colour("clip"), dtype=torch.uint8)
    assert (ruled[2:, 24, 47:58] == mark).all(), "the chosen tubelet is framed in both of its frames"
    assert not (ruled[:2] == mark).all(-1).any(), "and in no other"


def test_a_dot_lies_on_its_landmark(frames):
    marked = mark_landmarks(frames, torch.tensor([[[3.0, 7.0]]]).expand(4, 1, 2), scale=5)
    dots = (marked == torch.tensor(colour("pretrained"), dtype=torch.uint8)).all(-1)[0].nonzero().float()
    assert dots.mean(0).tolist() == [37.0, 17.0], "pixel (x, y) = (3, 7) becomes columns 15-19 and rows 35-39"
    with pytest.raises(ValueError, match="one set a frame"):
        mark_landmarks(frames, torch.zeros(1, 68, 2))


def test_stacked_pictures_keep_their_pixels(frames):
    frames = frames // 45 * 45
    strip = filmstrip(frames, count=3, scale=1)
    page = stack({"one": strip, "two": filmstrip(frames, count=2, scale=1)})
    assert page.size == (strip.width, 2 * (14 + 14))
    below = np.asarray(page.convert("RGB"))[14 : 14 + strip.height]
    assert np.array_equal(below, np.asarray(strip.convert("RGB")))


def test_maps_of_the_token_grid_keep_rows_rows_and_put_time_left_to_right():
    values = np.arange(24.0).reshape(GRID)
    drawn = np.array(draw_grid_maps({"one": values, "two": -values}, "title").data[0].z, dtype=float)
    assert drawn.shape == (3, 4 + 1 + 4), "two slots of 3 by 4 and a gap between them"
    assert np.array_equal(drawn[:, :4], values[0]) and np.array_equal(drawn[:, 5:], values[1])
    assert np.isnan(drawn[:, 4]).all()


def test_intervals_reach_as_far_as_they_say_and_may_be_missing():
    point = {"value": 3.0, "low": 1.0, "high": 8.0}
    masks = draw_masks({"tube": {0.5: point}}, "title", "error", reference=1.0)
    line = masks.data[0]
    assert (line.x[0], line.y[0], line.error_y.array[0], line.error_y.arrayminus[0]) == (50, 3, 5, 2)
    assert masks.layout.shapes[0].y0 == 1.0, "the reference is where it is asked for"
    with_one, without = draw_measures({"a": point, "b": {"value": 2.0, "low": None, "high": None}}, "t", "%").data
    assert (with_one.error_x.array[0], with_one.error_x.arrayminus[0]) == (5, 2)
    assert without.error_x.array is None and without.x[0] == 2.0


def test_class_shares_are_of_each_list_and_units_keep_their_rows():
    shares = draw_class_shares({"image: stills": {"a": 1, "b": 3}, "clip: clips": {"a": 5, "b": 5}}, "t").data
    assert [list(bars.y) for bars in shares] == [[25, 75], [50, 50]]
    assert [bars.marker.color for bars in shares] == [PALETTE["image"], PALETTE["clip"]]
    rows = draw_action_units(np.arange(3) / 2, {"AU 1": np.zeros(3), "AU 12": np.ones(3)}, "t").data[0]
    assert list(rows.y) == ["AU 1", "AU 12"] and rows.z[1][2] == 1.0 and rows.x[2] == 1.0
