"""The drawn faces: geometry against drawing, action units, natural colours, scripts, recipes, reproducibility."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from s4d_lib.figures.pictures import contact_sheet
from s4d_lib.synthetic_faces.drawing import CLIPS, STILL_CHUNK, STILLS, make_clips, make_stills, scripted_classes
from s4d_lib.synthetic_faces.geometry import ACTION_UNITS, AU_INDEX, PARALLAX, FaceShape, bump
from s4d_lib.synthetic_faces.motion import EMOTIONS, KINDS, NEUTRAL, script_clip
from s4d_lib.synthetic_faces.people import View, sample_people, sample_views
from s4d_lib.synthetic_faces.recipes import DFEW_PRIOR, RECIPES
from s4d_lib.synthetic_faces.renderer import render

STUDIO = View(scale=(1.0, 1.0), shift=0, centre_y=0.0, roll=0, yaw=0, pitch=0, gaze=0, light=0, blur=(0, 0),
              noise=(0, 0), occlusion=0)
BLUE = torch.tensor([0.0, 0.0, 1.0])
SMALL = replace(RECIPES["default"], size=16, clip=replace(RECIPES["default"].clip, frames=(3, 5)))


def faces(count: int, seed: int = 0, view: View = STUDIO, **changes: float) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    face = sample_people(rng, count) | sample_views(rng, count, view)
    plain = {"glasses": 0.0, "beard": 0.0, "asymmetry": 0.0, "hairline": -0.6, "hair_peak": 0.0, "hair_slant": 0.0}
    for name, value in (plain | changes).items():
        face[name] = torch.full_like(face[name], value)
    return face


def units(count: int, **active: float) -> torch.Tensor:
    """units(2, au12=1.0) → [2 u]."""
    rows = torch.zeros(count, len(ACTION_UNITS))
    for name, value in active.items():
        rows[:, AU_INDEX[int(name[2:])]] = value
    return rows


def landmarks(face: dict[str, torch.Tensor], rows: torch.Tensor, size: int = 100) -> torch.Tensor:
    return FaceShape(face, rows, size).landmarks()


# ------------------------------------------------------------------------------------------------ shapes and bytes


def test_frames_and_landmarks_have_the_promised_types_and_shapes():
    frames, points = render(faces(3), units(3), size=20)
    assert frames.dtype == torch.uint8 and list(frames.shape) == [3, 20, 20, 3] and frames.is_contiguous()
    assert points.dtype == torch.float32 and list(points.shape) == [3, 68, 2]


def digest(made) -> str:
    total = hashlib.sha256()
    for field in fields(made):
        value = getattr(made, field.name)
        for one in value if isinstance(value, list) else [torch.as_tensor(value)]:
            total.update(one.numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("make", [make_stills, make_clips])
def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(make):
    first = digest(make(SMALL, 5, 7))
    assert first == digest(make(SMALL, 5, 7))
    assert first != digest(make(SMALL, 5, 8))


def test_a_longer_set_begins_with_the_shorter_one():
    few, many = make_stills(SMALL, 5, 3), make_stills(SMALL, STILL_CHUNK + 2, 3)
    for field in fields(few):
        assert torch.equal(getattr(few, field.name), getattr(many, field.name)[:5]), field.name
    short, long = make_clips(SMALL, 3, 3), make_clips(SMALL, 6, 3)
    assert len(short) == 3 and len(long) == 6
    for field in fields(short):
        left, right = getattr(short, field.name), getattr(long, field.name)
        if isinstance(left, list):
            assert all(torch.equal(a, b) for a, b in zip(left, right[:3], strict=True)), field.name
        elif isinstance(left, torch.Tensor):
            torch.testing.assert_close(left, right[:3], rtol=0, atol=0, equal_nan=True)


def test_bad_requests_say_what_is_wrong():
    with pytest.raises(ValueError, match="size is 8"):
        render(faces(1), units(1), size=8)
    with pytest.raises(ValueError, match=r"\[b 21\]"):
        render(faces(1), torch.zeros(1, 19), size=16)
    with pytest.raises(ValueError, match="count is 0"):
        make_stills(SMALL, 0, 0)
    with pytest.raises(ValueError, match="seed is -1"):
        make_clips(SMALL, 1, -1)
    with pytest.raises(ValueError, match="prior"):
        scripted_classes((0.5, 0.5), 0, 3, 0, STILLS)


# ------------------------------------------------------------------------------------------------ geometry


@settings(max_examples=30, deadline=None)
@given(yaw=st.floats(-0.65, 0.65), pitch=st.floats(-0.4, 0.4), roll=st.floats(-1, 1), scale=st.floats(0.7, 1.5),
       u=st.floats(-0.45, 0.45), v=st.floats(-0.5, 0.6))
def test_placing_a_point_and_looking_the_pixel_up_are_inverse(yaw, pitch, roll, scale, u, v):
    face = faces(1, yaw=yaw, pitch=pitch, roll=roll, scale=scale, shift_x=0.1, shift_y=-0.2)
    shape = FaceShape(face, units(1, au27=0.5), size=100)
    px, py = shape.place(torch.tensor([[u]]), torch.tensor([[v]]))
    x, y = shape.to_head((px + 0.5) / 50 - 1, (py + 0.5) / 50 - 1)
    depth = (1 - shape.head_radius(x, y)[0]).clamp(min=0)    # the renderer's own lookup
    assert float(x - PARALLAX * shape.yaw * depth) == pytest.approx(u, abs=1e-3)
    assert float(y - PARALLAX * shape.pitch * depth) == pytest.approx(v, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), height=st.floats(-0.95, 0.95))
def test_the_outline_is_where_the_head_radius_is_one(seed, height):
    shape = FaceShape(faces(1, seed), units(1, au26=0.7), size=100)
    n = torch.tensor([[height]])
    y = n * (shape.chin if height > 0 else shape.crown)
    assert float(shape.head_radius(-shape.outline(n), y)[0]) == pytest.approx(1, abs=1e-4)


def blue_points(frame: torch.Tensor) -> np.ndarray:
    """Positions (x, y) of pixels that are mainly blue."""
    r, g, b = frame.int().unbind(-1)
    y, x = torch.nonzero((b > r + 50) & (b > g + 50), as_tuple=True)
    return torch.stack((x, y), 1).numpy().astype(float)


def span_along(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[float, float]:
    """First and last position of the points along start → end, 0 = start, 1 = end."""
    axis = end - start
    along = (points - start) @ axis / (axis @ axis)
    return along.min(), along.max()


def overlap(points: np.ndarray, outer: np.ndarray, hole: np.ndarray, size: int = 320) -> float:
    """Intersection over union of the polygon `outer` with the points' pixels, their `hole` filled in."""
    def filled(polygon: np.ndarray) -> np.ndarray:
        picture = Image.new("1", (size, size))
        ImageDraw.Draw(picture).polygon([tuple(p) for p in polygon.tolist()], fill=1)
        return np.array(picture)

    drawn, region = filled(hole), filled(outer)
    drawn[tuple(points[:, ::-1].astype(int).T)] = True
    return (region & drawn).sum() / (region | drawn).sum()


POSES = {"frontal": {}, "turned": {"yaw": 0.5, "scale": 1.2}, "rolled": {"roll": 0.5, "shift_x": 0.1},
         "raised": {"pitch": -0.3, "yaw": -0.3, "scale": 0.9}}


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("eye", [0, 1])
def test_eye_landmarks_lie_on_the_drawn_eye(pose, eye):
    face = faces(1, seed=4, **POSES[pose])
    face["sclera"], face["iris"] = BLUE[None], BLUE[None]
    frames, points = render(face, units(1, au5=0.6), size=320)
    points = points[0].numpy()
    corners = points[[36, 39] if eye == 0 else [42, 45]]
    blue = blue_points(frames[0])
    width = np.linalg.norm(corners[1] - corners[0])
    blue = blue[np.linalg.norm(blue - corners.mean(0), axis=1) < width]
    first, last = span_along(blue, *corners)
    # The corners are pointed and edged with lashes and the caruncle, so colour ends a little inside them.
    assert -0.04 < first < 0.20 and 0.80 < last < 1.04
    lids = points[[37, 38, 40, 41] if eye == 0 else [43, 44, 46, 47]]
    distance = [np.linalg.norm(blue - lid, axis=1).min() for lid in lids]
    assert max(distance) < 0.09 * width


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("active", [{}, {"au12": 1.0}, {"au27": 1.0, "au25": 1.0}, {"au15": 1.0}])
def test_mouth_landmarks_enclose_the_drawn_lips(pose, active):
    face = faces(1, seed=9, **POSES[pose])
    face["lip"] = BLUE[None]
    frames, points = render(face, units(1, **active), size=320)
    points = points[0].numpy()
    blue = blue_points(frames[0])
    first, last = span_along(blue, points[48], points[54])
    assert first == pytest.approx(0, abs=0.06) and last == pytest.approx(1, abs=0.06)
    width = np.linalg.norm(points[54] - points[48])
    assert max(np.linalg.norm(blue - point, axis=1).min() for point in points[48:68]) < 0.05 * width
    assert overlap(blue, points[48:60], points[60:68]) > 0.7    # chords between the points cut the curves
    if "au27" in active:    # control: the mouth at rest is not where the open mouth is drawn
        rest = landmarks(face, units(1), 320)[0].numpy()
        assert overlap(blue, rest[48:60], rest[60:68]) < 0.6


def test_without_parallax_the_landmarks_of_a_turned_head_miss_the_drawing():
    face = faces(1, seed=9, yaw=0.5)
    face["lip"] = BLUE[None]
    blue = blue_points(render(face, units(1), size=320)[0][0]).mean(0)
    exact = landmarks(face, units(1), 320)[0, 48:60].mean(0).numpy()
    flat = landmarks(face | {"yaw": torch.zeros(1)}, units(1), 320)[0, 48:60].mean(0).numpy()
    assert np.linalg.norm(exact - blue) < 3 < 20 < np.linalg.norm(flat - blue)


def test_brow_landmarks_lie_on_the_drawn_brow():
    face = faces(1, seed=2, brow_density=1.0, yaw=0.2)
    face["brow"] = BLUE[None]
    frames, points = render(face, units(1, au1=0.8), size=320)
    blue = blue_points(frames[0])
    assert max(np.linalg.norm(blue - p, axis=1).min() for p in points[0, 17:27].numpy()) < 4


# ------------------------------------------------------------------------------------------------ action units


def mouth_width(p):
    return p[:, 54, 0] - p[:, 48, 0]


def corner_height(p):
    return (p[:, 51, 1] + p[:, 57, 1]) / 2 - (p[:, 48, 1] + p[:, 54, 1]) / 2


def eye_opening(p):
    return p[:, 41, 1] - p[:, 37, 1]


EFFECTS = [    # unit, what is measured, direction
    (1, lambda p: -p[:, 21, 1], 1), (1, lambda p: p[:, 21, 1] - p[:, 17, 1], -1),
    (2, lambda p: -p[:, 17, 1], 1), (2, lambda p: p[:, 17, 1] - p[:, 21, 1], -1),
    (4, lambda p: p[:, 21, 1], 1), (4, lambda p: p[:, 22, 0] - p[:, 21, 0], -1),
    (5, eye_opening, 1), (6, eye_opening, -1), (7, eye_opening, -1), (43, eye_opening, -1),
    (9, lambda p: -p[:, 33, 1], 1), (10, lambda p: -p[:, 51, 1], 1),
    (12, corner_height, 1), (12, mouth_width, 1), (14, mouth_width, 1), (15, corner_height, -1),
    (16, lambda p: p[:, 57, 1], 1), (17, lambda p: -p[:, 57, 1], 1), (18, mouth_width, -1), (20, mouth_width, 1),
    (23, mouth_width, -1), (24, lambda p: p[:, 57, 1] - p[:, 51, 1], -1),
    (25, lambda p: p[:, 66, 1] - p[:, 62, 1], 1), (26, lambda p: p[:, 66, 1] - p[:, 62, 1], 1),
    (27, lambda p: p[:, 8, 1], 1),
]


@pytest.mark.parametrize(("unit", "measure", "direction"), EFFECTS)
def test_each_action_unit_moves_what_facs_says(unit, measure, direction):
    face = faces(6, seed=1)
    rest, active = (measure(landmarks(face, units(6, **{f"au{unit}": level}))) for level in (0.0, 1.0))
    assert ((active - rest) * direction > 0.25).all()    # a quarter of a pixel of 100, for every person


def test_every_action_unit_is_visible():
    face = {name: value.expand(len(ACTION_UNITS), *value.shape[1:]) for name, value in faces(1, seed=3).items()}
    rest, active = (render(face, level * torch.eye(len(ACTION_UNITS)), size=64)[0].int() for level in (0, 1))
    changed = (active - rest).abs().amax(-1).flatten(1) > 12
    silent = [unit for unit, count in zip(ACTION_UNITS, changed.sum(1), strict=True) if count < 12]
    assert not silent


def test_asymmetry_makes_one_side_stronger():
    face = faces(1)
    even = landmarks(face, units(1, au12=1.0))[0]
    face["asymmetry"] = face["asymmetry"] + 0.3
    odd = landmarks(face, units(1, au12=1.0))[0]
    assert even[48, 1] == pytest.approx(float(even[54, 1]), abs=1e-3)
    assert odd[54, 1] < odd[48, 1] - 0.5    # the viewer's right corner is pulled higher


def test_windows_leave_no_seam():
    q = torch.tensor([0.0, 0.999, 1.0, 3.0])
    assert bump(q)[0] == 1 and bump(q)[1] < 1e-5 and (bump(q)[2:] == 0).all()


# ------------------------------------------------------------------------------------------------ colours


def test_colours_are_natural():
    face = sample_people(np.random.default_rng(0), 500) | sample_views(np.random.default_rng(1), 500, View())
    r, g, b = face["skin"].unbind(1)
    assert ((r > g) & (g > b)).all()
    assert (r - b < 0.45).all() and r.min() < 0.40 and r.max() > 0.85    # deep to light
    for name in ("hair", "brow"):
        r, g, b = face[name].unbind(1)
        assert ((r >= g - 0.03) & (g >= b - 0.03)).all(), name    # never green, blue or purple
    for name in ("cloth", "backdrop", "backdrop_far", "backdrop_spot", "occluder_colour"):
        spread = face[name].amax(1) - face[name].amin(1)
        assert (spread < 0.36).all(), name
    control = torch.rand(500, 3)    # the same rules reject colours drawn without care
    assert not ((control[:, 0] > control[:, 1]) & (control[:, 1] > control[:, 2])).all()


# ------------------------------------------------------------------------------------------------ scripts


def script(seed: int, emotion: int, **shares: float):
    dials = {"sequence": 0.0, "flash": 0.0, "talk": 0.0, "polite": 0.0, "intensity": (1.0, 1.0)} | shares
    return script_clip(np.random.default_rng(seed), emotion, np.arange(20) / 12.5, rest=np.zeros(len(ACTION_UNITS)),
                       **dials)


@pytest.mark.parametrize("seed", range(8))
def test_a_sequence_ends_in_its_label_and_a_flash_is_brief(seed):
    turned = script(seed, EMOTIONS.index("Anger"), sequence=1.0)
    assert KINDS[turned.kind] == "sequence" and turned.other not in (NEUTRAL, EMOTIONS.index("Anger"))
    half = len(turned.presence) // 3
    assert turned.presence[:half, 1].max() > 0.5 > turned.presence[:half, 0].max()
    assert turned.presence[-half:, 0].max() > 0.9 and turned.presence[-half:, 1].max() < 0.5
    flashed = script(seed, EMOTIONS.index("Sadness"), flash=1.0)
    above = (flashed.presence > 0.5).sum(0)
    assert KINDS[flashed.kind] == "flash" and 1 <= above[1] <= 5 < above[0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sequence=st.sampled_from([0.0, 1.0]), flash=st.sampled_from([0.0, 1.0]))
def test_segments_are_the_times_above_half(seed, sequence, flash):
    made = script(seed, EMOTIONS.index("Fear"), sequence=sequence, flash=flash)
    times = np.arange(20) / 12.5
    assert np.isnan(made.segments[1]).any() == (made.other < 0)
    column = 1 if made.other >= 0 and KINDS[made.kind] == "flash" else 0
    start, end = made.segments[column]
    inside = (times > start + 0.01) & (times < end - 0.01)
    if KINDS[made.kind] == "flash" or made.other < 0:
        assert (made.presence[inside, column] > 0.45).all()
    assert (made.presence[(times < start - 0.01) | (times > end + 0.01), column] < 0.55).all()


def test_a_plain_expression_shows_and_neutral_stays_at_rest():
    shown = [script(seed, EMOTIONS.index("Happiness")).action_units[:, AU_INDEX[12]].max() for seed in range(20)]
    assert np.mean(np.array(shown) > 0.5) > 0.7
    calm = script(0, NEUTRAL).action_units
    calm[:, AU_INDEX[43]] = 0    # blinks
    assert (calm == 0).all()
    talking = script(0, NEUTRAL, talk=1.0).action_units
    assert talking[:, AU_INDEX[25]].std() > 0.05


# ------------------------------------------------------------------------------------------------ recipes


def test_classes_follow_the_prior_even_in_a_small_set():
    for start in (0, 1000):
        shares = np.bincount(scripted_classes(DFEW_PRIOR, start, 100, 5, CLIPS), minlength=7) / 100
        assert np.abs(shares - np.array(DFEW_PRIOR)).max() < 0.025


def test_labels_differ_from_the_script_only_where_a_dial_says_so():
    easy = replace(RECIPES["easy"], size=16)
    clean = make_stills(easy, 60, 0)
    assert torch.equal(clean.labels, clean.emotions) and not clean.look_alike.any()
    noisy = make_stills(replace(easy, still=replace(easy.still, label_noise=1.0)), 60, 0)
    assert (noisy.labels != noisy.emotions).all()
    alike = make_stills(replace(easy, still=replace(easy.still, look_alikes=1.0)), 60, 0)
    assert (alike.emotions == NEUTRAL).all() and (alike.labels != NEUTRAL).all() and alike.look_alike.all()


def test_clips_carry_their_truth():
    made = make_clips(replace(SMALL, clip=replace(SMALL.clip, sequence=1.0, flash=0.0)), 6, 0)
    assert made.identities.tolist() == [0, 0, 0, 0, 1, 1] and (made.kinds == KINDS.index("sequence")).all()
    assert (made.others != made.emotions).all() and (made.others >= 0).all()
    for pixels, rows, points, poses, presence in zip(made.frames, made.action_units, made.landmarks, made.poses,
                                                     made.presence, strict=True):
        t = len(pixels)
        assert 3 <= t <= 5 and list(pixels.shape) == [t, 16, 16, 3]
        assert [list(x.shape) for x in (rows, points, poses, presence)] == [[t, 21], [t, 68, 2], [t, 3], [t, 2]]
    assert list(made.segments.shape) == [6, 2, 2]
    easy = make_clips(replace(RECIPES["easy"], size=16), 4, 0)
    assert (easy.kinds == KINDS.index("plain")).all() and (easy.others == -1).all()


def test_one_person_keeps_the_same_face_through_a_clip():
    made = make_clips(replace(RECIPES["easy"], size=32), 5, 2)
    assert not torch.equal(made.frames[0], made.frames[1])
    still = made.frames[0][:, 10:14, 10:14].float()    # forehead
    assert still.std(0).mean() < 12


def test_contact_sheet_has_a_cell_for_every_frame():
    sheet = contact_sheet(torch.zeros(5, 16, 20, 3, dtype=torch.uint8), columns=3, scale=2, labels=list("abcde"))
    assert sheet.size == (3 * 42, 2 * (32 + 14))
    assert contact_sheet(torch.zeros(2, 16, 20, 3, dtype=torch.uint8)).size == (2 * 22, 18)
