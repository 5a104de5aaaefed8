"""frames → faces: the eyes come to lie where promised, the same person is followed, nothing is filled in silence."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from s4d_lib.cli.app import app
from s4d_lib.crops import mtcnn as mtcnn_module
from s4d_lib.crops.alignment import FIVE_POINTS, cut_square, eye_places, square_of, to_crop, whole_square
from s4d_lib.crops.cropper import STATES, Crops, FaceCropper, MissingFace
from s4d_lib.crops.detectors import open_detector
from s4d_lib.crops.faces import DetectorMissing, Faces
from s4d_lib.crops.folders import COLUMNS, MANIFEST, Manifest, crop_files, plan
from s4d_lib.frames.reader import open_frames
from s4d_lib.frames.writer import write_mp4
from s4d_lib.synthetic_faces.drawing import make_clips, make_stills
from s4d_lib.synthetic_faces.people import View
from s4d_lib.synthetic_faces.recipes import RECIPES

pytestmark = pytest.mark.slow  # the whole file: left out between two edits

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def mtcnn():
    return open_detector("mtcnn")


@pytest.fixture(scope="module")
def clip():
    """One drawn clip uint8 [t 128 128 3] and the true eye centres [t 2 2]."""
    clips = make_clips(replace(RECIPES["default"], size=128), 1, 3)
    return clips.frames[0], eyes_of(clips.landmarks[0])


def eyes_of(landmarks):
    """68 points [t 68 2] → centres of the eye on the left and on the right of the picture [t 2 2]."""
    return torch.stack([landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)], 1)


def face(x, y, edge, score=0.99, turn=0.0):
    """Box, landmarks, score of a face like FIVE_POINTS on a square around (x, y)."""
    points = (FIVE_POINTS - 0.5) * edge
    turned = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [x - edge / 2, y - edge / 2, x + edge / 2, y + edge / 2], turned + [x, y], score


class Script:
    """A detector that is told what to see: `script(frame number)` lists faces; the number is the frame's first byte."""

    name = "script 1"

    def __init__(self, script):
        self.script, self.looked = script, []

    def __call__(self, frames):
        found = []
        for number in frames[:, 0, 0, 0].tolist():
            self.looked.append(number)
            seen = self.script(number)
            found.append(Faces(torch.tensor([f[0] for f in seen]).view(-1, 4).float(),
                               torch.tensor(np.array([f[1] for f in seen])).view(-1, 5, 2).float(),
                               torch.tensor([f[2] for f in seen]).float()))
        return found


def numbered(count, height=HEIGHT, width=WIDTH):
    """Noise uint8 [t h w 3] whose first pixel is the frame's number."""
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8))
    frames[:, 0, 0, 0] = torch.arange(count)
    return frames


def states(crops):
    return [STATES[state] for state in crops.states]


# -------------------------------------------------------------------------------------------- where faces are


def test_the_astronaut_is_found_where_her_eyes_are(mtcnn):
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut())
    assert photo.shape == (512, 512, 3)
    for frame, scale in ((photo, 1), (photo.repeat_interleave(4, 0).repeat_interleave(4, 1), 4)):
        boxes, points, scores = mtcnn(frame[None])[0]
        assert len(boxes) == 1 and scores[0] > 0.95
        centre = (points[0] + 0.5) / scale - 0.5
        # Middles of the irises, read off the photograph enlarged ten times under a ruled grid; good to 1.5 px.
        assert (centre[:2] - torch.tensor([[202.5, 100.5], [246.5, 103.0]])).abs().max() < 4


def test_pictures_without_a_face_have_none(mtcnn):
    from skimage import data

    for name in ("coffee", "chelsea", "rocket"):
        assert len(mtcnn(torch.from_numpy(getattr(data, name)())[None])[0].scores) == 0
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 128, 160, 3), dtype=np.uint8))
    assert [len(faces.scores) for faces in mtcnn(noise)] == [0, 0]


@pytest.mark.parametrize("size", [64, 128, 224])
def test_drawn_faces_are_found_at_several_sizes_and_poses(mtcnn, size):
    recipe = RECIPES["default"]
    recipe = replace(recipe, size=size, still=replace(recipe.still, view=View()))  # turns further than any recipe
    stills = make_stills(recipe, 16, 11)
    truth = eyes_of(stills.landmarks)
    apart = (truth[:, 0] - truth[:, 1]).norm(dim=-1)
    assert (stills.poses.amax(0) - stills.poses.amin(0)).min() > 0.3, "the views hardly differ"
    errors = []
    for number, found in enumerate(mtcnn(stills.frames)):
        if len(found.scores):
            errors.append(float((found.landmarks[0, :2] - truth[number]).norm(dim=-1).mean() / apart[number]))
    assert len(errors) >= 14
    assert np.median(errors) < 0.06
    shifted = float(((truth + apart[:, None, None] * 0.1) - truth).norm(dim=-1).mean() / apart.mean())
    assert shifted > 0.06, "the measure would not notice a tenth of the distance between the eyes"


def test_small_faces_are_found_only_when_asked_for(mtcnn):
    small = make_stills(replace(RECIPES["easy"], size=64), 4, 5).frames
    stage = torch.full((4, 400, 400, 3), 90, dtype=torch.uint8)
    stage[:, 30:94, 300:364] = small
    assert sum(len(f.scores) for f in open_detector(min_face=200)(stage)) == 0
    found = open_detector(min_face=30)(stage)
    assert sum(len(f.scores) == 1 for f in found) >= 3
    middle = torch.cat([f.boxes for f in found]).view(-1, 2, 2).mean(1)
    assert ((middle - torch.tensor([332.0, 62])).abs() < 20).all()


def test_a_frame_is_read_the_same_alone_and_among_others(mtcnn, clip):
    frames = clip[0]
    for alone, among in zip([mtcnn(f[None])[0] for f in frames[:6]], mtcnn(frames)):
        assert len(alone.scores) == len(among.scores)
        assert (alone.landmarks - among.landmarks).abs().max() < 0.03
    twice = mtcnn(frames)
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(twice, mtcnn(frames)))


def test_detectors_that_cannot_be_had_say_so(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no detector is called 'haar'; there are mtcnn, yunet, mediapipe"):
        open_detector("haar")
    with pytest.raises(ValueError, match="mtcnn brings its own weights"):
        open_detector("mtcnn", tmp_path / "x.onnx")
    with pytest.raises(ValueError, match="min_face is 0"):
        open_detector("mtcnn", min_face=0)
    model = tmp_path / "net.onnx"
    model.write_bytes(b"model")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, package in (("yunet", "cv2"), ("mediapipe", "mediapipe")):
        with pytest.raises(DetectorMissing, match=f"{name} needs its model file"):
            open_detector(name, tmp_path / "absent.onnx")
        with pytest.raises(DetectorMissing, match=f"'{package}', which is not installed: pip install"):
            open_detector(name, model)
    with pytest.raises(DetectorMissing, match=r"'mtcnn', which is not installed: pip install 's4d-book\[faces\]'"):
        open_detector()


def test_weights_that_are_not_the_known_ones_are_not_unpickled(monkeypatch):
    monkeypatch.setitem(mtcnn_module.WEIGHTS, "rnet", "0" * 64)
    mtcnn_module._networks.cache_clear()
    with pytest.raises(DetectorMissing, match="rnet.lz4: not the weights of mtcnn 1.0.0"):
        open_detector()(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    mtcnn_module._networks.cache_clear()


@pytest.mark.spawns
def test_mtcnn_loads_nothing_but_its_weights():
    code = ("import sys, torch\nfrom s4d_lib.crops.detectors import open_detector\n"
            "open_detector()(torch.zeros(1, 48, 64, 3, dtype=torch.uint8))\n"
            "print([m for m in ('mtcnn', 'tensorflow', 'cv2', 'onnxruntime') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_yunet_and_mediapipe_answers_are_put_in_our_order(monkeypatch, tmp_path):
    """Stand-ins for the two packages: what they return is written down here as their documentation has it."""
    model = tmp_path / "net.bin"
    model.write_bytes(b"model")
    frames = torch.zeros(2, 60, 80, 3, dtype=torch.uint8)
    frames[..., 2] = 255

    class Network:
        def setInputSize(self, size):
            assert size == (80, 60)

        def detect(self, frame):
            assert frame[0, 0].tolist() == [255, 0, 0], "OpenCV reads blue first"
            small, large = np.arange(15) * 0.1, np.arange(15) + 10.0
            small[14], large[14] = 0.9, 0.8
            return 1, np.stack([large, small]).astype(np.float32)

    def create(path, config, size, least):
        if path.endswith("broken.onnx"):
            raise RuntimeError("cannot parse\nmore")
        return Network()

    cv2 = types.SimpleNamespace(__version__="5", FaceDetectorYN=types.SimpleNamespace(create=create))
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    found = open_detector("yunet", model)(frames)
    assert len(found) == 2 and found[0].boxes.tolist() == [[10, 11, 22, 24]]
    assert found[0].landmarks[0].tolist() == [[14, 15], [16, 17], [18, 19], [20, 21], [22, 23]]

    (tmp_path / "broken.onnx").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"broken.onnx: is no model that YuNet can read \(cannot parse\)"):
        open_detector("yunet", tmp_path / "broken.onnx")

    point = types.SimpleNamespace
    seen = point(bounding_box=point(origin_x=5, origin_y=6, width=20, height=24), categories=[point(score=0.7)],
                 keypoints=[point(x=0.25, y=0.5), point(x=0.5, y=0.5), point(x=0.4, y=0.6), *[point(x=0, y=0)] * 3])
    network = point(detect=lambda picture: point(detections=[seen] if picture.data[0, 0, 2] == 255 else []))
    package = types.ModuleType("mediapipe")
    package.__version__, package.ImageFormat = "1", point(SRGB=1)
    package.Image = lambda image_format, data: point(data=data)
    tasks, python = types.ModuleType("mediapipe.tasks"), types.ModuleType("mediapipe.tasks.python")
    python.BaseOptions = point
    python.vision = point(FaceDetectorOptions=point, FaceDetector=point(create_from_options=lambda options: network))
    for name, module in (("", package), (".tasks", tasks), (".tasks.python", python)):
        monkeypatch.setitem(sys.modules, f"mediapipe{name}", module)
    boxes, points, scores = open_detector("mediapipe", model)(frames)[0]
    assert boxes.tolist() == [[5, 6, 25, 30]] and scores.tolist() == pytest.approx([0.7])
    assert np.allclose(points[0, :3], [[19.5, 29.5], [39.5, 29.5], [31.5, 35.5]])
    assert points[0, 3:].isnan().all()
    assert FaceCropper(open_detector("mediapipe", model), align="points").crop(frames, 32).found.all()


# -------------------------------------------------------------------------------------------- where they are cut


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_the_eyes_come_to_lie_where_promised(margin):
    """Dots at the eyes of a turned face, found again in the crop as the centres of what is bright."""
    size, turn = 96, 0.4
    box, points, _ = face(160.0, 140.0, 100.0, turn=turn)
    frame = np.zeros((300, 340, 3), np.uint8)
    rows, columns = np.mgrid[:300, :340]
    for channel, (x, y) in enumerate(points[:2]):
        frame[..., channel] = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
    square = square_of(np.array(box), points, "eyes", margin)
    crop = cut_square(torch.from_numpy(frame), square, size).double()
    assert square[3] == pytest.approx(turn)
    grid = (torch.arange(size) + 0.5) / size
    for channel, promised in enumerate(eye_places(margin)):
        bright = crop[..., channel] / crop[..., channel].sum()
        seen = float((bright.sum(0) * grid).sum()), float((bright.sum(1) * grid).sum())
        assert seen == pytest.approx(promised, abs=0.003)
    place = to_crop(torch.from_numpy(points), torch.tensor(square).double(), size)
    assert np.allclose((place[:2] + 0.5) / size, eye_places(margin), atol=1e-6)


def test_five_points_are_fitted_and_missing_ones_fall_back():
    box, points, _ = face(60.0, 40.0, 30.0, turn=-0.3)
    assert square_of(np.array(box), points, "points", 0.0) == pytest.approx((60, 40, 30, -0.3))
    moved = points + np.random.default_rng(0).normal(0, 1, (5, 2))
    x, y, edge, turn = square_of(np.array(box), moved, "points", 0.0)
    design = np.zeros((10, 4))  # the oracle: x' = a·u − b·v + tx, y' = b·u + a·v + ty by least squares
    design[:5], design[5:] = [[u, -v, 1, 0] for u, v in FIVE_POINTS], [[v, u, 0, 1] for u, v in FIVE_POINTS]
    a, b, tx, ty = np.linalg.lstsq(design, moved.T.ravel(), rcond=None)[0]
    assert (edge, turn) == pytest.approx((np.hypot(a, b), np.arctan2(b, a)))
    assert (x, y) == pytest.approx((0.5 * (a - b) + tx, 0.5 * (a + b) + ty))
    unknown = points.copy()
    unknown[3:] = np.nan
    assert square_of(np.array(box), unknown, "points") == square_of(np.array(box), points, "eyes")
    assert square_of(np.array(box), np.full((5, 2), np.nan), "eyes", 0.5) == pytest.approx((60, 40, 45, 0))
    profile = points.copy()
    profile[1] = profile[0] + [1, 0]
    assert square_of(np.array(box), profile, "eyes", 0.0)[2] == pytest.approx(21), "one pixel apart, yet no zoom"


def test_cutting_is_exact_and_skips_no_detail():
    frame = numbered(1, 40, 50)[0]
    assert torch.equal(cut_square(frame, (24.5, 19.5, 20.0, 0.0), 20), frame[10:30, 15:35])
    turned = cut_square(frame, (24.5, 19.5, 20.0, np.pi / 2), 20)
    assert torch.equal(turned, torch.rot90(frame[10:30, 15:35], 1, (0, 1))), "a clockwise face is turned back"
    means = frame[:40, 5:45].float().view(10, 4, 10, 4, 3).mean((1, 3))
    assert (cut_square(frame, (24.5, 19.5, 40.0, 0.0), 10).float() - means).abs().max() <= 0.51
    beyond = cut_square(frame, (-30.0, 19.5, 8.0, 0.0), 8)
    assert torch.equal(beyond, frame[16:24, :1].expand(8, 8, 3)), "the outermost pixels go on"
    assert whole_square(40, 50) == (24.5, 19.5, 40.0, 0.0)


def test_aligned_crops_of_a_clip_hold_the_eyes_still(clip, mtcnn):
    frames, truth = clip
    cropper = FaceCropper(mtcnn, margin=0.2, every=2)
    crops = cropper.crop(frames, 112)
    assert crops.frames.shape == (len(frames), 112, 112, 3) and crops.frames.dtype == torch.uint8
    assert crops.found.all() and not crops.notes and crops.share == 1 and crops.first_missing is None
    eyes = (crops.place(truth) + 0.5) / 112
    assert (eyes - torch.tensor(cropper.eyes)).abs().max() < 0.04
    before = FaceCropper(mtcnn, align="box").crop(frames, 112).place(truth)
    assert (before[:, 0, 1] - before[:, 1, 1]).abs().max() > 3 * (112 * (eyes[:, 0, 1] - eyes[:, 1, 1])).abs().mean()


# -------------------------------------------------------------------------------------------- following


def test_the_same_person_is_followed_when_another_comes_nearer():
    def two(number):  # the right one grows, the left one shrinks: they cross in size at frame 10
        return [face(30 + number / 2, 40, 40 - number), face(90, 45, 20 + number)]

    crops = FaceCropper(Script(two), every=1, smooth=0).crop(numbered(21), 32)
    assert torch.allclose(crops.boxes.view(-1, 2, 2).mean(1)[:, 0], 30 + torch.arange(21) / 2)
    control = FaceCropper(Script(lambda number: two(number + 12)), every=1).crop(numbered(3), 32)
    assert control.boxes.view(-1, 2, 2).mean(1)[:, 0].tolist() == [90, 90, 90], "seen from later on, it is the other"


def test_the_largest_sure_face_is_where_it_starts():
    crops = FaceCropper(Script(lambda n: [face(30, 40, 30, 0.95), face(80, 40, 50, 0.85), face(60, 60, 20, 0.99)])
                        ).crop(numbered(1), 32)
    assert crops.boxes[0].tolist() == [15, 25, 45, 55] and crops.scores[0] == pytest.approx(0.95)
    unsure = Script(lambda n: [face(80, 40, 50, 0.7)])
    assert not FaceCropper(unsure).crop(numbered(2), 32).found.any()
    assert FaceCropper(unsure, confident=0.6).crop(numbered(2), 32).found.all()
    unsure.sure = 0.6  # a detector may say itself from where on it is
    assert FaceCropper(unsure).crop(numbered(2), 32).found.all()


def test_between_two_looks_everything_runs_straight():
    script = Script(lambda n: [face(30 + n, 40, 30 + n / 2)])
    crops = FaceCropper(script, every=4, smooth=0).crop(numbered(11), 32)
    assert script.looked == [0, 4, 8, 10]
    assert states(crops) == ["found", *["between"] * 3, "found", *["between"] * 3, "found", "between", "found"]
    every = FaceCropper(Script(script.script), every=1, smooth=0).crop(numbered(11), 32)
    assert torch.allclose(crops.boxes, every.boxes) and torch.allclose(crops.landmarks, every.landmarks, atol=1e-4)
    assert torch.isnan(crops.scores).tolist() == [state != "found" for state in states(crops)]


def test_smoothing_stills_jitter_and_does_not_trail():
    noise = np.random.default_rng(1).normal(0, 2, 60)

    def squares(script, smooth):
        return FaceCropper(Script(script), every=1, smooth=smooth).crop(numbered(60), 16).squares

    def shaky(n):
        return [face(50 + noise[n], 40, 40)]

    shaken, still = (squares(shaky, smooth)[:, 0] for smooth in (0, 4))
    assert still[5:-5].diff().abs().mean() < 0.25 * shaken[5:-5].diff().abs().mean()
    moving = squares(lambda n: [face(30 + n, 40, 40)], 4)
    assert torch.allclose(moving[:, 0].diff(), torch.ones(59), atol=1e-3), "a steady movement is left as it is"


# -------------------------------------------------------------------------------------------- frames without a face


def coming_and_going(number):
    """Nothing, a face from frame 3, gone from 6, another place from 14 on."""
    return [] if number < 3 or 6 <= number < 14 else [face(40 if number < 10 else 85, 45, 30)]


@pytest.mark.parametrize("policy, filled", [("hold", "repeated"), ("full", "whole"), ("skip", "skipped")])
def test_missing_faces_are_filled_as_asked_and_noted(policy, filled):
    frames = numbered(18)
    crops = FaceCropper(Script(coming_and_going), every=1, smooth=0, patience=3, missing=policy).crop(frames, 24)
    early = "skipped" if policy == "skip" else "whole"
    assert states(crops) == [early] * 3 + ["found"] * 3 + ["held"] * 3 + [filled] * 5 + ["found"] * 4
    assert crops.found.tolist() == [state == "found" for state in states(crops)]
    assert crops.boxes.isnan().all(1).tolist() == [state not in ("found", "held") for state in states(crops)]
    assert (crops.share, crops.first_missing, crops.policy) == (7 / 18, 0, policy)
    assert crops.counts == {name: states(crops).count(name) for name in STATES} and sum(crops.counts.values()) == 18
    assert "3 of 18 frames: face lost, cut where it was last (first: frame 6)" in crops.notes
    assert len(crops.notes) == 3 - (policy != "hold")
    assert crops.index.tolist() == [i for i, state in enumerate(states(crops)) if state != "skipped"]
    assert len(crops.frames) == len(crops.index)
    picture = dict(zip(crops.index.tolist(), crops.frames))
    assert torch.equal(picture[7], cut_square(frames[7], tuple(crops.squares[5].tolist()), 24)), "held, its own pixels"
    if policy != "skip":
        assert torch.equal(picture[0], cut_square(frames[0], whole_square(HEIGHT, WIDTH), 24))
        middle = cut_square(frames[10], whole_square(HEIGHT, WIDTH), 24)
        assert torch.equal(picture[10], picture[8] if policy == "hold" else middle)


def test_raise_names_the_frame():
    with pytest.raises(MissingFace, match="frame 0 shows no face"):
        FaceCropper(Script(coming_and_going), missing="raise").crop(numbered(4), 16)
    late = Script(lambda n: coming_and_going(n + 3))
    with pytest.raises(MissingFace, match="frame 5 shows no face"):
        FaceCropper(late, every=1, patience=2, missing="raise").crop(numbered(9), 16)


@pytest.mark.parametrize("policy", ["hold", "full", "skip"])
@pytest.mark.parametrize("every, smooth", [(1, 0), (3, 3), (4, 6)])
def test_a_stream_gives_what_the_whole_gives(policy, every, smooth):
    frames, settings = numbered(18), {"every": every, "smooth": smooth, "patience": 2, "missing": policy}
    whole = FaceCropper(Script(coming_and_going), **settings).crop(frames, 20)
    for lengths in ([1] * 18, [5, 1, 12], [17, 1]):
        parts = list(FaceCropper(Script(coming_and_going), **settings).stream(frames.split(lengths), 20))
        joined = Crops.join(parts)
        assert [part.first for part in parts] == np.cumsum([0] + [len(p) for p in parts])[:-1].tolist()
        for name in ("frames", "index", "found", "boxes", "landmarks", "scores", "squares", "states"):
            assert torch.equal(torch.nan_to_num(getattr(joined, name)), torch.nan_to_num(getattr(whole, name))), name
        assert joined.notes == whole.notes


def test_a_stream_holds_few_frames_and_answers_soon():
    given = []

    def chunks():
        for chunk in numbered(60).split(2):
            given.append(len(chunk))
            yield chunk

    stream = FaceCropper(Script(lambda n: [face(50, 40, 30)]), every=5, smooth=3).stream(chunks(), 16)
    behind = [sum(given) - part.first - len(part) for part in stream]
    assert max(behind) <= 5 + 3 + 2 and len(behind) > 8


def test_bad_input_gets_one_clear_error():
    script = Script(lambda n: [])
    for frames in (torch.zeros(2, 8, 9, 3), torch.zeros(8, 9, 3, dtype=torch.uint8), numbered(3)[:0]):
        with pytest.raises(ValueError, match=r"frames must be uint8 \[t h w 3\] with t ≥ 1, got"):
            FaceCropper(script).crop(frames)
    with pytest.raises(ValueError, match="size is 0 px"):
        FaceCropper(script).crop(numbered(1), 0)
    with pytest.raises(ValueError, match=r"frame 2 is \[90, 60, 3\] and those before are \[90, 120, 3\]"):
        list(FaceCropper(script).stream([numbered(2), numbered(1, width=60)]))
    for name, value in (("every", 0), ("margin", -0.1), ("missing", "guess"), ("align", "nose"), ("confident", 2)):
        with pytest.raises(ValueError, match=f"{name} is"):
            FaceCropper(script, **{name: value})
    with pytest.raises(ValueError, match="no frames were given"):
        Crops.join([])
    with pytest.raises(ValueError, match=r"a detector reads frames uint8 \[b h w 3\]"):
        open_detector()(torch.zeros(1, 3, 8, 9))


# -------------------------------------------------------------------------------------------- the command


def s4d(*words):
    """Run the command in this process: its exit code."""
    return app([str(word) for word in words], standalone_mode=False) or 0


@pytest.fixture
def folder(tmp_path, clip):
    """Two videos, a folder of frames, a video without a face and one that is none."""
    root = tmp_path / "videos"
    (root / "scene" / "frames").mkdir(parents=True)
    write_mp4(root / "scene" / "one.mp4", clip[0][:8], 12)
    lost = clip[0][:16].clone()
    lost[3:] = 90
    write_mp4(root / "lost.mp4", lost, 25)
    for number, frame in enumerate(clip[0][:11].numpy()):
        Image.fromarray(frame).save(root / "scene" / "frames" / f"{number}.png")
    write_mp4(root / "empty.mp4", torch.full((3, 48, 64, 3), 90, dtype=torch.uint8), 12)
    (root / "broken.mp4").write_bytes(b"not a video")
    (root / "notes.txt").write_text("left alone")
    return root


def manifest(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_a_folder_is_cropped_and_bad_files_do_not_stop_it(folder, tmp_path, capsys):
    out = tmp_path / "faces"
    code = s4d("crop", folder, out, "--size", 48, "--every", 2, "--preview", tmp_path / "sheet.jpg")
    assert code == 1, "two of the files could not be cropped"
    said = capsys.readouterr()
    assert "3 of 5 files cropped (0 were there already)" in said.out and "lost.mp4: held for" in said.out
    assert f"s4d: {folder / 'broken.mp4'}: " in said.err and "empty.mp4: no face was found in 3 frames" in said.err
    rows = manifest(out / MANIFEST)
    assert sorted(rows) == ["broken.mp4", "empty.mp4", "lost.mp4", "scene/frames", "scene/one.mp4"]
    one, lost = rows["scene/one.mp4"], rows["lost.mp4"]
    assert (one["frames"], one["found"], one["share"], one["first_missing"]) == ("8", "8", "1.0000", "")
    assert [lost[name] for name in ("frames", "found", "held", "repeated", "error")] == ["16", "3", "10", "3", ""]
    assert one["detector"].startswith("mtcnn 1.0") and one["version"] and one["size"] == "48"
    with open_frames(out / "scene" / "one.mp4") as reader:
        assert (len(reader), reader.size, reader.fps) == (8, (48, 48), 12)
    assert sorted(os.listdir(out / "scene" / "frames")) == [f"{n:05d}.jpg" for n in range(1, 12)]
    assert sorted(os.listdir(out)) == [MANIFEST, "lost.mp4", "scene"], "neither failed targets nor part files"
    assert Image.open(tmp_path / "sheet.jpg").height >= 170


def test_finished_files_are_kept_and_the_rest_is_made(folder, tmp_path, capsys):
    out, cropper = tmp_path / "faces", FaceCropper(every=4)
    (folder / "broken.mp4").unlink()
    (folder / "empty.mp4").unlink()
    crop_files(folder, out, 48, cropper, progress=False)
    one, lost = out / "scene" / "one.mp4", out / "lost.mp4"
    kept = one.stat().st_mtime_ns
    lost.unlink()
    text = (out / MANIFEST).read_text()
    (out / MANIFEST).write_text(text + "scene/one.mp4,8,8,1.0")  # a writer was killed in the middle of a row
    (out / ".lost.mp4.999999999.part").write_bytes(b"left over")
    report = crop_files(folder, out, 48, cropper, progress=False)
    assert (report.kept, len(report.rows), report.failed) == (2, 3, [])
    assert one.stat().st_mtime_ns == kept and lost.exists() and (out / MANIFEST).read_text() == text
    assert sorted(os.listdir(out)) == [MANIFEST, "lost.mp4", "scene"]
    with pytest.raises(ValueError, match="was cropped with other settings"):
        crop_files(folder, out, 48, replace(cropper, margin=0.5), progress=False)
    assert one.stat().st_mtime_ns == kept
    (out / MANIFEST).unlink()
    report = crop_files(folder, out, 48, cropper, progress=False)
    assert len(report.failed) == 3 and "does not know it; move it away" in report.failed[0]["error"]
    assert one.stat().st_mtime_ns == kept, "what is not ours is not overwritten"


def test_single_things_become_what_their_target_is_called(folder, tmp_path, capsys):
    video, still = folder / "scene" / "one.mp4", folder / "scene" / "frames" / "3.png"
    assert s4d("crop", video, tmp_path / "face.mp4", "--size", 32) == 0
    assert s4d("crop", video, tmp_path / "face", "--size", 32, "--no-align", "--preview", tmp_path / "a.png") == 0
    assert s4d("crop", still, tmp_path / "face.png", "--size", 33) == 0
    assert s4d("crop", folder / "scene" / "frames", tmp_path / "frames.mp4", "--size", 32) == 0
    assert s4d("crop", folder / "empty.mp4", tmp_path / "empty.mp4", "--size", 32, "--missing", "full") == 0
    assert s4d("crop", folder / "scene" / "frames", tmp_path / "stills", "--size", 32, "--images") == 0
    lengths = {}
    for name in ("face.mp4", "face", "face.png", "frames.mp4", "empty.mp4"):
        with open_frames(tmp_path / name) as reader:
            lengths[name] = (len(reader), *reader.size)
    assert lengths == {"face.mp4": (8, 32, 32), "face": (8, 32, 32), "face.png": (1, 33, 33),
                       "frames.mp4": (11, 32, 32), "empty.mp4": (3, 32, 32)}
    assert manifest(tmp_path / f"empty.mp4.{MANIFEST}")["empty.mp4"]["whole"] == "3"
    assert len(manifest(tmp_path / "stills" / MANIFEST)) == 11 and (tmp_path / "stills" / "3.png").exists()
    assert s4d("crop", folder / "lost.mp4", tmp_path / "raised.mp4", "--missing", "raise", "--size", 32) == 1
    assert "lost.mp4: frame" in capsys.readouterr().err and not (tmp_path / "raised.mp4").exists()


def test_requests_that_make_no_sense_are_refused_at_once(folder, tmp_path):
    still = folder / "scene" / "frames" / "3.png"
    (folder / "scene" / "one.avi").write_bytes(b"x")
    (tmp_path / "mixed").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "mixed" / "a.jpg")
    (tmp_path / "mixed" / "b.mp4").write_bytes(b"x")
    (tmp_path / "bare").mkdir()
    for source, out, words in (
        (folder / "absent", tmp_path / "o", "no such file or directory"),
        (folder, folder / "scene" / "o", "choose a place outside of it"),
        (folder, tmp_path / "o", "both would become"),
        (still, tmp_path / "o.mp4", "is a picture; name the target .png or .jpg"),
        (folder / "lost.mp4", tmp_path / "o.png", "becomes a video"),
        (tmp_path / "mixed", tmp_path / "o", "holds pictures beside b.mp4"),
        (tmp_path / "bare", tmp_path / "o", "holds no video and no picture"),
    ):
        with pytest.raises(ValueError, match=words):
            plan(source, out)
    (folder / "scene" / "one.avi").unlink()
    with pytest.raises(ValueError, match="size is 33 px"):
        crop_files(folder, tmp_path / "o", 33)
    with pytest.raises(ValueError, match="a preview is a picture"):
        crop_files(folder, tmp_path / "o", 32, preview=tmp_path / "sheet.txt")
    (folder / "link.mp4").symlink_to(tmp_path / "mixed" / "b.mp4")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        plan(folder, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_damaged_manifest_is_named_with_its_line(tmp_path):
    path = tmp_path / "crops.csv"
    rows = [",".join(COLUMNS), ",".join(["a.mp4", *["0"] * (len(COLUMNS) - 1)])]
    path.write_text("\n".join(rows) + "\n")
    assert set(Manifest(path).rows) == {"a.mp4"}
    path.write_text("\n".join([*rows, "x" * 200_000]) + "\n")
    with pytest.raises(ValueError, match=r"crops\.csv:3: not a row of a manifest \(field larger than"):
        Manifest(path)
