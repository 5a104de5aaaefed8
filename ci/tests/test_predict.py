"""video → timeline: windows against a naive oracle, hard files, calibrated answers, reports, the command."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from io import StringIO
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from s4d_lib.checkpoints.cards import open_model, read_card
from s4d_lib.cli.app import app
from s4d_lib.clips import EVAL, augment, test_views
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.samples import Sample
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.streams import Chunk, find_media, iter_frames
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.predict.reports import print_table, to_csv, to_json
from s4d_lib.predict.timelines import (
    NO_FACE,
    NO_NUMBER,
    STILL,
    TWO_VIEWS,
    WHOLE,
    Judge,
    Prediction,
    judge_clip,
    smooth_in_time,
)
from s4d_lib.predict.video import predict, predict_one
from s4d_lib.predict.windows import Filmstrip, Picture, Shown, sliding_windows, to_input
from s4d_lib.training.scoring import probabilities as predict_run
from s4d_lib.weights.files import SHIPPED, read_metadata, save_model

METADATA = {"schemas": {"image": "affectnet7", "video": "dfew"}, "stride": 2, "temperature": {"image": 1.3, "video": 2},
            "trained_on": "nothing at all", "licence": "CC0-1.0"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny classifier whose heads were made large, so that its answers differ from file to file."""
    torch.manual_seed(0)
    model = S4DClassifier("tiny", moae_blocks="last_half")
    for head in model.head.values():
        torch.nn.init.normal_(head.weight, std=1.5)
    return save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", model, METADATA)


@pytest.fixture(scope="module")
def reader(weights):
    return open_model(weights)


@dataclass
class StubCropper:
    """Takes the frames as they are; a face is seen in the frames whose number, counted in the stream, is `seen`."""

    seen: frozenset[int] = frozenset(range(10_000))
    delay: int = 5

    def stream(self, chunks, size):
        held, count = [], 0
        for chunk in chunks:
            held += list(chunk)
            ready, held = held[: -self.delay], held[-self.delay :]  # answers later, in other portions, as F's does
            if ready:
                yield self._cut(ready, count)
                count += len(ready)
        if held:
            yield self._cut(held, count)

    def _cut(self, frames, start):
        found = torch.tensor([start + i in self.seen for i in range(len(frames))])
        return SimpleNamespace(frames=torch.from_numpy(np.stack(frames)), found=found)


def write_video(path, frames, codec="libx264", rate=25, pix_fmt="yuv420p", audio=False, **format):
    with av.open(str(path), "w", options=format) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        if codec in ("libx264", "libx265"):
            stream.options = {"crf": "12", "x265-params": "log-level=none"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


# -------------------------------------------------------------------------------- windows


def pictures_of(n, stride=1, fps=25.0):
    return [Picture(i, i / fps, torch.zeros(()), 1.0) for i in range(0, n, stride)]


def oracle(n, length, stride, every):
    """All windows by positions, with every position in hand."""
    strided = list(range(0, n, stride))
    if len(strided) <= length:
        return [strided + strided[-1:] * (length - len(strided))]
    starts = sorted({*range(0, len(strided) - length + 1, every), len(strided) - length})
    return [strided[s : s + length] for s in starts]


@settings(max_examples=150, deadline=None)
@given(n=st.integers(1, 150), length=st.integers(1, 17), stride=st.integers(1, 5), every=st.integers(1, 20))
def test_windows_equal_a_naive_oracle_and_the_protocols_views(n, length, stride, every):
    fps = 8.0  # exact in binary: the hop of `every` pictures is exactly that many seconds
    windows = list(sliding_windows(pictures_of(n, stride, fps), length, every * stride / fps))
    found = [[picture.index for picture in window.pictures] for window in windows]
    assert found == oracle(n, length, stride, every)
    assert [found[0], found[-1]] == test_views(n, length, stride), "first and last window are the two views"
    half = [[p.index for p in w.pictures] for w in sliding_windows(pictures_of(n, stride), length)]
    assert half == oracle(n, length, stride, max(1, length // 2))
    assert windows[-1].real == min(length, len(range(0, n, stride)))


def test_hop_follows_the_clock_where_the_rate_varies():
    times = np.cumsum([0.0, *([0.02] * 40), *([0.2] * 20)])
    pictures = [Picture(i, t, torch.zeros(()), 1.0) for i, t in enumerate(times)]
    starts = [w.pictures[0].second for w in sliding_windows(pictures, 4, 0.3)]
    for k in range(int(times[-4] // 0.3)):
        assert min(t for t in times[:-3] if t >= 0.3 * k - 1e-6) in starts
    assert np.diff(starts[:-1]).min() > 0.09, "control: equal steps of positions would start every 0.02 s"


def test_memory_does_not_grow_with_the_clip():
    """100,000 frames pass; no more than a window, a chunk and the filmstrip stay."""
    import weakref

    alive = most = 0
    chunk = 32

    class Frames(np.ndarray):
        pass

    def gone():
        nonlocal alive
        alive -= 1

    def stream():
        nonlocal alive, most
        for start in range(0, 100_000, chunk):
            frames = np.full((chunk, 4, 6, 3), start % 251, np.uint8).view(Frames)
            weakref.finalize(frames, gone)
            alive += 1
            most = max(most, alive)
            yield Chunk(frames, np.arange(start, start + chunk), np.arange(start, start + chunk) / 25)

    strip = Filmstrip(16)
    shown = Shown(None, (4, 4), strip.look)
    count = sum(1 for _ in sliding_windows(shown.pictures(stream()), 8, 10.0))
    assert count == len(range(0, 100_000 - 7, 250)) + 1
    assert most <= 4, f"{most} chunks of {chunk} frames were alive together"
    seconds = [thumbnail.second for thumbnail in strip.chosen()]
    assert len(seconds) == 16 and len(strip.kept) <= 64
    assert seconds[0] == 0 and 0.6 < np.diff(seconds).min() / np.diff(seconds).max() <= 1


def test_input_is_what_the_datasets_give(numbered_frame):
    frames = torch.from_numpy(np.stack([numbered_frame(i, 50, 70) for i in range(5)]))
    assert torch.equal(to_input(frames, (48, 48)), augment(frames, EVAL, 48, np.random.default_rng(3)))
    assert to_input(frames, (32, 48)).shape == (3, 5, 32, 48)


# -------------------------------------------------------------------------------- equal to a direct evaluation


def test_two_views_equal_the_evaluation_of_a_run(faces, reader):
    """The protocol's dataset and evaluation on the same clips, without crops, temperature and smoothing."""
    paths = sorted((faces / "clips" / "clip_mp4").glob("*.mp4"))[:5]
    samples = [Sample(path.stem, path, 0, "clip") for path in paths]
    dataset = FaceDataset(samples, EVAL, 48, 8, stride=2, sampling="test")
    expected, _ = predict_run(reader.model, dataset, SimpleNamespace(workers=0))
    card = read_card("plain", {"image": 7, "video": 7}, 8, (48, 48), {"schemas": METADATA["schemas"], "stride": 2})
    found = predict(paths, type(reader)(reader.model, card), crop="none", smooth=0)
    assert [p.path for p in found] == list(map(str, paths))
    for prediction, row in zip(found, expected):
        assert np.allclose(prediction.answer.probabilities, row, atol=1e-5)
        w = prediction.windows
        assert np.allclose(w.probabilities[[0, -1]].mean(0), row, atol=1e-5)
        assert np.allclose(prediction.answers[WHOLE].probabilities, w.probabilities.mean(0), atol=1e-6)
        assert np.array_equal(w.smoothed, w.probabilities) and np.isnan(w.face).all()
    assert np.abs(np.diff(expected, axis=0)).max() > 0.01, "control: the clips do not all look the same to the model"


def test_batches_do_not_matter_and_order_is_kept(faces, reader):
    clips = sorted((faces / "clips" / "clip_mp4").glob("*.mp4"))[:3]
    stills = sorted((faces / "stills").rglob("*.png"))[:2] or sorted((faces / "stills").rglob("*.jpg"))[:2]
    paths = [clips[0], stills[0], clips[1], clips[2], stills[1]]
    together = predict(paths, reader, crop=StubCropper(), batch=7, hop=0.16)
    apart = [predict_one(path, reader, crop=StubCropper(), batch=1, hop=0.16) for path in paths]
    assert [p.path for p in together] == list(map(str, paths))
    for a, b in zip(together, apart):
        assert a.kind == b.kind and np.allclose(a.answer.probabilities, b.answer.probabilities, atol=1e-5)
        if a.windows:
            assert np.allclose(a.windows.probabilities, b.windows.probabilities, atol=1e-5)
            assert np.array_equal(a.windows.start_frame, b.windows.start_frame) and len(a.windows) > 1


# -------------------------------------------------------------------------------- answers


def test_temperature_and_thresholds():
    p = np.array([0.6, 0.3, 0.1])
    judge = Judge(("a", "b", "c"), temperature=2.0, abstain_below=0.5)
    tempered = np.sqrt(p) / np.sqrt(p).sum()
    answer = judge.answer(STILL, p[None])
    assert np.allclose(answer.probabilities, tempered)
    assert (answer.best, answer.label) == ("a", None) and answer.reason == "confidence 0.47 below 0.50"
    sure = Judge(("a", "b", "c"), abstain_below=0.5).answer(STILL, p[None])
    assert (sure.label, sure.abstained, round(sure.confidence, 6)) == ("a", False, 0.6)
    assert Judge(("a", "b", "c")).answer(STILL, p[None], NO_FACE).reason == NO_FACE
    assert Judge(("a", "b", "c"), needs_face=False).answer(STILL, p[None], NO_FACE).label == "a"


def test_windows_without_a_face_are_marked_and_do_not_count():
    raw = np.array([[0.9, 0.1], [0.8, 0.2], [0.0, 1.0], [0.7, 0.3]])
    span = {"start": np.arange(4.0), "end": np.arange(4.0) + 2}
    spans = {"start_frame": np.arange(4), "end_frame": np.arange(4), **span}
    judge = Judge(("a", "b"))
    windows, answers = judge_clip(judge, spans, raw, np.array([1, 0.5, 0, 1]), 1.5)
    assert windows.reasons == ("", "", NO_FACE, "") == windows.smoothed_reasons
    assert np.allclose(answers[WHOLE].probabilities, raw[[0, 1, 3]].mean(0))
    assert np.allclose(answers[TWO_VIEWS].probabilities, raw[[0, 3]].mean(0)) and answers[TWO_VIEWS].label == "a"
    assert np.allclose(windows.smoothed[3], raw[3]), "its neighbour has no face"
    assert np.allclose(windows.smoothed[1], (raw[1] + raw[0] / 3) / (4 / 3))
    _, ends = judge_clip(judge, spans, raw, np.array([1, 1, 1, 0.0]), 0)
    assert ends[TWO_VIEWS].reason == "no face in the last window" and ends[WHOLE].label == "a"
    blind, none = judge_clip(judge, spans, raw, np.zeros(4), 1)
    assert {a.reason for a in none.values()} == {NO_FACE} and blind.abstained.all()
    _, unasked = judge_clip(judge, spans, raw, np.full(4, np.nan), 1)
    assert unasked[WHOLE].label == "a"


def test_a_model_that_answers_nan_gives_no_answer_and_its_windows_do_not_count():
    nan = [np.nan, np.nan]
    raw = np.array([[0.9, 0.1], nan, [0.8, 0.2], nan])
    span = {"start": np.arange(4.0), "end": np.arange(4.0) + 2}
    spans = {"start_frame": np.arange(4), "end_frame": np.arange(4), **span}
    judge = Judge(("a", "b"))
    windows, answers = judge_clip(judge, spans, raw, np.ones(4), 1.5)
    assert windows.reasons == ("", NO_NUMBER, "", NO_NUMBER) == windows.smoothed_reasons
    assert np.isfinite(windows.smoothed[[0, 2]]).all()
    assert np.allclose(answers[WHOLE].probabilities, raw[[0, 2]].mean(0)) and answers[WHOLE].label == "a"
    assert answers[TWO_VIEWS].label is None and answers[TWO_VIEWS].reason == NO_NUMBER
    assert answers[TWO_VIEWS].best == "" and answers[TWO_VIEWS].as_dict()["confidence"] is None
    _, none = judge_clip(judge, spans, np.full((4, 2), np.nan), np.zeros(4), 1.5)
    assert {one.reason for one in none.values()} == {NO_NUMBER}
    _, inf = judge_clip(judge, spans, np.full((4, 2), np.inf), np.ones(4), 1.5)
    assert {one.label for one in inf.values()} == {None}
    assert not np.nan < 0.5, "control: why a threshold alone lets it pass"


def test_a_file_about_which_a_model_answers_nan_is_reported(tiny_nan):
    """Eight bits of a shipped model are enough: all weights finite, every answer NaN, and still every report."""
    rows = list(csv.DictReader(io.StringIO(to_csv([tiny_nan]))))
    assert {row["answer"] for row in rows} == {""} and {row["abstained"] for row in rows} == {"True"}
    assert {row["p class 0"] for row in rows} == {""} and all(row["reason"] == NO_NUMBER for row in rows)
    (told,) = json.loads(to_json([tiny_nan]))["files"]
    assert {one["reason"] for one in told["answers"].values()} == {NO_NUMBER}
    assert told["answers"][WHOLE]["probabilities"] == {"class 0": None, "class 1": None}
    assert told["windows"][0]["p class 0"] is None and told["windows"][0]["best"] == ""
    print_table([tiny_nan])


@pytest.fixture
def tiny_nan():
    card = read_card("m", {"video": 2}, 8, (48, 48), {})
    found = Prediction("x.mp4", "clip", card, 25.0, 100, 4.0)
    spans = {"start_frame": np.arange(3), "end_frame": np.arange(3), "start": np.arange(3.0), "end": np.arange(3.0) + 2}
    found.windows, found.answers = judge_clip(Judge(card.classes["video"]), spans, np.full((3, 2), np.nan), np.ones(3),
                                              1.0)
    return found


def test_smoothing_is_a_triangle_in_seconds():
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.uniform(0, 10, 40))
    values = rng.random((40, 3))
    weight = rng.integers(0, 2, 40).astype(float)
    kernel = np.clip(1 - np.abs(seconds[:, None] - seconds) / 1.7, 0, None) * weight
    counted = kernel.sum(1) > 0
    expected = np.where(counted[:, None], kernel @ values / np.maximum(kernel.sum(1, keepdims=True), 1e-12), values)
    assert np.allclose(smooth_in_time(values, seconds, 1.7, weight), expected)
    assert np.array_equal(smooth_in_time(values, seconds, 0), values)
    with pytest.raises(ValueError, match="smooth is -1 s"):
        smooth_in_time(values, seconds, -1)


# -------------------------------------------------------------------------------- what a file says about its model


def test_a_card_has_defaults_and_refuses_nonsense():
    bare = read_card("m", {"video": 3}, 16, (160, 160), {})
    assert bare.classes == {"video": ("class 0", "class 1", "class 2")} and bare.schema("video") == "unknown"
    assert (bare.stride, bare.temperature, bare.abstain_below) == (4, {}, {}) and len(bare.notes) == 2
    told = read_card("m", {"video": 7, "image": 7}, 8, (48, 48), {}, {"video": "dfew"})
    assert told.classes["video"][0] == "Happiness" and told.classes["image"][0] == "class 0"
    one = read_card("m", {"video": 2}, 8, (48, 48), {"class_names": {"video": ["x", "y"]}, "temperature": 1.5})
    assert one.classes["video"] == ("x", "y") and one.temperature == {"video": 1.5}
    for known, schema, message in (
        ({"schemas": {"video": "affectnet8"}}, None, "affectnet8 has 8 classes and the video head 7; .*dfew"),
        ({}, {"video": "nobody"}, "no label schema is called 'nobody'; there are dfew"),
        ({}, {"image": "dfew"}, "m has no image head"),
        ({"stride": 0}, None, "stride to 0"),
        ({"temperature": {"video": -1}}, None, "temperature of video to -1"),
        ({"abstain_below": 2}, None, "abstain_below of video to 2"),
        ({"class_names": {"video": ["x"]}}, None, "lists 1 video classes, the head has 7"),
        ({"schemas": "dfew"}, None, "sets schemas to 'dfew'"),
    ):
        with pytest.raises(ValueError, match=message):
            read_card("m", {"video": 7}, 8, (48, 48), known, schema)


def test_models_come_from_files_folders_and_memory(tmp_path, weights, reader):
    reader.model.metadata = METADATA
    reader.model.save_pretrained(tmp_path / "folder")
    for model in (tmp_path / "folder", reader.model):
        assert open_model(model).card.classes == reader.card.classes
    assert reader.card.licence == "CC0-1.0" and not reader.card.shipped
    torch.save({"model": reader.model.state_dict()}, tmp_path / "released.pth")
    with pytest.raises(ValueError, match="released.pth: .*s4d convert"):
        open_model(tmp_path / "released.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors: there is no such model file"):
        open_model(tmp_path / "nowhere.safetensors")
    save_model(tmp_path / "features.safetensors", S4DClassifier("tiny", {}))
    with pytest.raises(ValueError, match="names no expression"):
        open_model(tmp_path / "features.safetensors")


def test_the_shipped_model_says_what_it_knows():
    card = open_model().card
    assert card.shipped and "drawn" in card.trained_on and card.classes["video"][0] == "Happiness"
    assert card.stride == 2 and card.frames == 8 and card.image_size == (48, 48) and not card.notes


def test_the_first_line_says_on_what_the_network_was_trained(s4d, weights, faces, tmp_path):
    """From the file, whatever it says; before any answer."""
    still = next((faces / "stills").rglob("*.*g"))
    known = {"mine": METADATA, "told": METADATA | {"trained_on": "drawn faces only"}, "mute": {"stride": 2}}
    files = {name: save_model(tmp_path / f"{name}.safetensors", open_model(weights).model, about)
             for name, about in known.items()}
    shipped = read_metadata(SHIPPED["classifier"])["trained_on"].partition(": ")[2]
    assert shipped
    expected = {"": f"model tiny_s4d_classifier: trained on drawn faces (synthetic), not on photographs: {shipped}",
                files["mine"]: "model mine: trained on nothing at all",
                files["told"]: "model told: trained on drawn faces (synthetic), not on photographs",
                files["mute"]: "model mute: on what it was trained is not recorded in the file"}
    for file, line in expected.items():
        _, out, _ = s4d("predict", still, "--no-crop", *(["--model", file] if file else []))
        assert out.splitlines()[0] == line and len(out.splitlines()) > 5
        card = open_model(file or None).card
        assert card.as_dict()["opening"] == card.opening == line and not card.not_ours


def test_a_model_without_the_head_says_so(faces, tmp_path):
    size = Size(image_size=16, frames=4, patch=8, tubelet=2, dim=16, depth=1, heads=2, decoder_dim=8, decoder_depth=1,
                decoder_heads=2)
    still = next((faces / "stills").rglob("*.*g"))
    clip = next((faces / "clips" / "clip_mp4").glob("*.mp4"))
    found = predict([still, clip], S4DClassifier(size, {"video": 3}), crop="none")
    assert "no head for images, only for video input" in found[0].error and not found[1].error
    with pytest.raises(UnreadableMedia, match="no head for images"):
        predict_one(still, S4DClassifier(size, {"video": 3}), crop="none")


# -------------------------------------------------------------------------------- files of all kinds


def moving(count, height=48, width=64):
    ramp = np.arange(width, dtype=np.uint8)
    return [np.stack([np.broadcast_to(ramp * 3 + i, (height, width)).astype(np.uint8)] * 3, -1) for i in range(count)]


def test_streams_give_the_readers_bytes_with_the_containers_times(videos):
    with av.open(str(videos["vfr"])) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    for step, chunk in ((1, 7), (3, 4)):
        stream = iter_frames(videos["vfr"], step, chunk)
        parts = list(stream)
        with open_frames(videos["vfr"]) as reader:
            expected = reader.read(range(0, len(reader), step)).numpy()
        assert np.array_equal(np.concatenate([part.frames for part in parts]), expected)
        assert np.concatenate([part.index for part in parts]).tolist() == list(range(0, 30, step))
        assert np.allclose(np.concatenate([part.seconds for part in parts]), np.array(times)[::step] - times[0])
        assert max(len(part.index) for part in parts) <= chunk
        assert stream.count == 30 and not stream.damage and not stream.notes


def test_each_frame_is_decoded_once(videos, monkeypatch):
    """A long clip is read in time proportional to its length: no seeking, whatever the step."""
    from s4d_lib.frames import streams

    decoded = 0
    frames = streams.Stream._frames

    def counting(self, container, stream):
        nonlocal decoded
        for frame in frames(self, container, stream):
            decoded += 1
            yield frame

    monkeypatch.setattr(streams.Stream, "_frames", counting)
    assert sum(len(part.index) for part in iter_frames(videos["keys"], 4, 2)) == 8
    assert decoded == 30


def test_late_pictures_and_turned_recordings(videos, tmp_path):
    from test_frames import turned

    late = list(iter_frames(videos["late"]))
    assert late[0].seconds[0] == pytest.approx(0, abs=0.05), "a player starts such a file at its first picture"
    one = 1 << 16
    path = turned(videos["cfr"], tmp_path / "turned.mp4", (0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30))
    with open_frames(path) as reader:
        expected = reader.read([0, 5]).numpy()
    found = next(iter(iter_frames(path, 5))).frames[:2]
    assert found.shape == (2, 64, 48, 3) and np.array_equal(found, expected)


def test_ten_bits_odd_sizes_and_a_single_frame(tmp_path, reader):
    deep = write_video(tmp_path / "deep.mp4", moving(9), "libx265" if "libx265" in av.codecs_available else "libx264",
                       pix_fmt="yuv420p10le")
    odd = write_video(tmp_path / "odd.mkv", moving(20, 47, 61), "ffv1", pix_fmt="yuv444p")
    single = write_video(tmp_path / "single.mp4", moving(1))
    found = predict([deep, odd, single], reader, crop="none")
    assert [(p.error, p.damage, p.frames, len(p.windows)) for p in found] == [
        ("", "", 9, 1), ("", "", 20, 2), ("", "", 1, 1)]
    assert found[2].duration == pytest.approx(1 / 25) and "1 picture at stride 2" in found[2].notes[-1]
    assert np.allclose(found[2].answers[TWO_VIEWS].probabilities, found[2].answers[WHOLE].probabilities)
    with av.open(str(deep)) as container:
        assert "10" in container.streams.video[0].format.name, "control: it is a 10-bit file"


def test_a_size_that_changes_on_the_way_starts_the_cropper_again():
    starts = []

    class Counting(StubCropper):
        def stream(self, chunks, size):
            starts.append(size)
            yield from super().stream(chunks, size)

    sizes = ((6, 48), (7, 48), (4, 32))
    chunks = [Chunk(np.stack(moving(k, height)), np.arange(k), np.arange(k) / 25) for k, height in sizes]
    shown = Shown(Counting(), (48, 48), lambda chunk: None)
    assert len(list(shown.pictures(chunks))) == 17 and starts == [48, 48] and shown.looked == shown.faces == 17


def broken(folder, videos):
    """Files that cannot be read, each with a word of its error."""
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video at all, but some words of text\n" * 20)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (folder / "headless.mp4").write_bytes(videos["cfr"].read_bytes()[:2000])  # its index stood at the end
    Image.new("RGB", (30, 30)).save(folder / "half.png")
    (folder / "half.png").write_bytes((folder / "half.png").read_bytes()[:40])
    return {"empty.mp4": "empty", "text.mp4": "Invalid data", "sound.mp4": "no video stream", "headless.mp4": "",
            "half.png": "not a readable image", "gone.mp4": "no such file"}


def test_bad_files_carry_their_errors_and_the_others_go_on(tmp_path, videos, reader):
    expected = broken(tmp_path, videos)
    paths = [tmp_path / name for name in expected]
    found = predict([paths[0], videos["cfr"], *paths[1:]], reader, crop="none")
    assert [bool(p.error) for p in found] == [True, False] + [True] * 5
    for prediction, (name, word) in zip([found[0], *found[2:]], expected.items()):
        assert prediction.error.startswith(str(tmp_path / name)) and word in prediction.error, prediction.error
        assert prediction.answer is None and prediction.windows is None and "\n" not in prediction.error


def test_a_truncated_video_gives_what_is_there_and_says_so(tmp_path, write_numbered, reader):
    path = write_numbered(tmp_path / "long.mp4", [40 * i for i in range(60)], gop=6, movflags="faststart")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    whole, part = predict([path, cut], reader, crop="none")
    assert whole.whole and not part.whole and not part.error
    assert "cut short: its pictures end after" in part.damage and 20 < part.frames < 60
    assert part.answer.label and part.duration == pytest.approx(part.frames / 25, abs=0.05)
    assert part.damage in to_csv([part]) and part.damage in to_json([part])


@pytest.mark.parametrize(("name", "codec", "where", "said"), [
    ("x.mp4", "libx264", slice(0.5, 0.6), r"damaged packets? could not be decoded"),
    ("x.mkv", "mpeg4", slice(0.3, 0.5), r"gap without pictures|cut short"),
    ("x.mkv", "mpeg4", slice(0.6, None), r"cut short: its pictures end after [12]\.\d s of 4\.0 s"),
])
def test_damage_is_noticed_in_other_containers_too(tmp_path, write_numbered, name, codec, where, said):
    format = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_numbered(tmp_path / name, [40 * i for i in range(100)], codec=codec, gop=6, **format)
    whole = iter_frames(path)
    assert sum(len(part.index) for part in whole) == 100
    assert not whole.damage and not whole.notes, "control"
    data = bytearray(path.read_bytes())
    start, stop = int(where.start * len(data)), int((where.stop or 1) * len(data))
    data[start:stop] = bytes(stop - start) if where.stop else b""
    path.write_bytes(data)
    stream = iter_frames(path)
    assert 20 < sum(len(part.index) for part in stream) <= 100
    assert re.search(said, " ".join([stream.damage, *stream.notes])), (stream.damage, stream.notes)


def test_sound_that_outlasts_the_pictures_is_no_damage(tmp_path):
    path = tmp_path / "song.mkv"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for picture in moving(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        for i in range(50):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * i, Fraction(1, 16000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    stream = iter_frames(path)
    assert sum(len(part.index) for part in stream) == 25
    assert not stream.damage and re.search(r"pictures end after 1\.0 s, its sound after 3\.[23]", stream.notes[0])


def test_face_policies(videos, reader):
    seen = frozenset(range(8, 15))
    found = predict_one(videos["cfr"], reader, crop=StubCropper(seen), hop=0.08)
    w = found.windows
    strided = np.isin(np.arange(15), list(seen))
    expected = [strided[s : s + 8].mean() for s in range(8)]
    assert np.allclose(w.face, expected) and w.reasons[0] == NO_FACE and w.reasons[-1] == ""
    assert found.face == pytest.approx(7 / 15) and "a face in 7 of the 15 pictures" in found.notes[-1]
    assert found.answer.reason == "no face in the first window" and found.answers[WHOLE].label
    none = predict_one(videos["cfr"], reader, crop=StubCropper(frozenset()))
    assert none.answer.reason == NO_FACE and none.crop.startswith("middle square") and "--no-crop" in none.notes[-1]
    asked = predict_one(videos["cfr"], reader, crop=StubCropper(frozenset()), abstain=0)
    assert asked.answer.label and asked.windows.face.tolist() == [0.0] * len(asked.windows)


def test_real_faces_are_cropped_by_default_and_asked_for_by_name(tmp_path, faces, reader):
    clip = next((faces / "clips" / "clip_mp4").glob("*.mp4"))
    blank = write_video(tmp_path / "blank.mp4", [np.full((64, 96, 3), 90, np.uint8)] * 8)
    auto, nothing = predict([clip, blank], reader)
    assert auto.crop == "largest face" and auto.face > 0.5
    assert nothing.answer.reason == NO_FACE and not nothing.error
    asked, refused = predict([clip, blank], reader, crop="face")
    assert not asked.error and "no face was found in 4 pictures; --no-crop" in refused.error
    plain = predict_one(clip, reader, crop="none")
    assert plain.face is None and not np.allclose(plain.answer.probabilities, auto.answer.probabilities)


def test_wrong_arguments(videos, reader, tmp_path):
    for how, message in (({"stride": 0}, "stride is 0"), ({"batch": 0}, "batch is 0"), ({"hop": 0}, "hop is 0"),
                         ({"smooth": -1}, "smooth is -1"), ({"abstain": 1.5}, "abstain is 1.5"),
                         ({"crop": "head"}, "crop is 'head'"), ({"device": "abacus"}, "device 'abacus'")):
        with pytest.raises(ValueError, match=message):
            predict(videos["cfr"], reader, **how)
    with pytest.raises(ValueError, match="no video or image there"):
        predict(tmp_path, reader, crop="none")


# -------------------------------------------------------------------------------- folders


def test_folders_stand_for_their_media(tmp_path, videos, frame_folder):
    inside = tmp_path / "in"
    (inside / "b").mkdir(parents=True)
    for name in ("b/10.mp4", "b/9.MP4", "a.png", "notes.txt", ".hidden.mp4"):
        (inside / name).write_bytes(b"x")
    (inside / "out.mp4").symlink_to(videos["cfr"])
    frame_folder(["1.png", "2.png"], folder="in/clip")
    found = find_media([inside, inside / "a.png"])
    names = [str(path.relative_to(inside)) for path in found.media]
    assert names == ["a.png", "b/9.MP4", "b/10.mp4", "clip/1.png", "clip/2.png"] and found.others == 1
    assert [path.name for path in found.refused] == ["out.mp4"]
    assert inside / "clip" in find_media([inside], frame_folders=True).media


def test_a_folder_of_frames_is_one_clip_on_request(frame_folder, reader):
    root = frame_folder([f"{i}.png" for i in range(1, 13)])
    one, = predict(root, reader, crop="none", frame_folders=True)
    assert one.kind == "clip" and one.frames == 12 and "25 a second assumed" in " ".join(one.notes)
    assert len(predict(root, reader, crop="none")) == 12, "control: otherwise every picture stands for itself"


# -------------------------------------------------------------------------------- reports and the command


def test_reports(videos, tmp_path, reader):
    found = predict([videos["cfr"], tmp_path / "gone.mp4"], reader, crop="none", hop=0.2)
    table = pd.read_csv(StringIO(to_csv(found)))
    windows = table[table.part.str.startswith("window")]
    assert len(windows) == len(found[0].windows) and table.part.tolist()[:2] == [TWO_VIEWS, WHOLE]
    assert np.allclose(windows["p Happiness"], found[0].windows.probabilities[:, 0], atol=1e-5)
    assert np.allclose(windows["smooth Fear"], found[0].windows.smoothed[:, 6], atol=1e-5)
    assert table.iloc[-1].part == "error" and "no such file" in table.iloc[-1].note
    document = json.loads(to_json(found))
    assert document["model"]["licence"] == "CC0-1.0" and document["files"][1]["error"]
    first = document["files"][0]
    assert first["classes"][0] == "Happiness" and len(first["windows"]) == len(found[0].windows)
    assert first["answers"]["two views"]["probabilities"].keys() == set(first["classes"])
    assert first["windows"][0]["face_share"] is None


def test_tables_and_windows_are_what_pandas_makes_of_the_rows(videos, frame_folder, tmp_path, reader):
    still = frame_folder(["1.png"]) / "1.png"
    found = predict([videos["cfr"], still, tmp_path / "gone, with a comma.mp4", videos["vfr"]], reader, crop="none")
    table = pd.concat([one.to_frame() for one in found], ignore_index=True)
    assert to_csv(found) == table.to_csv(index=False) and to_csv(found[1:2]) == found[1].to_frame().to_csv(index=False)
    for one in found:
        windows = one.to_frame(answers=False).drop(columns=["path", "kind", "part"])
        assert one.as_dict()["windows"] == windows.astype(object).where(windows.notna(), None).to_dict("records")
    assert table["face_share"].isna().all() and len(table) > 8, "control: there are holes"


def test_the_command(tmp_path, videos, weights):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(videos["cfr"].read_bytes())
    (folder / "notes.txt").write_text("no video")
    outs = [tmp_path / "out" / f"x.{kind}" for kind in ("csv", "json", "html")]
    reports = [words for out in outs for words in (f"--{out.suffix[1:]}", str(out))]
    run = CliRunner().invoke(app, ["predict", str(folder), "--model", str(weights), "--no-crop", *reports])
    assert run.exit_code == 0, run.output
    for word in ("a.mp4", "neither video nor image: 1", "nothing at all", "CC0-1.0", "dfew", "apparent expression",
                 "two views"):
        assert word in run.output
    assert [out.exists() for out in outs] == [True] * 3 and len(list(outs[0].parent.iterdir())) == 3
    (folder / "bad.mp4").write_bytes(b"nonsense")
    run = CliRunner().invoke(app, ["predict", str(folder), "--model", str(weights), "--no-crop", *reports])
    assert run.exit_code == 1 and "bad.mp4" in outs[0].read_text() and "bad.mp4" in outs[2].read_text()
    assert not json.loads(outs[1].read_text())["files"][0]["error"], "the good file is there as well"


@pytest.mark.parametrize(("words", "message"), [
    (["--csv", "clip.mp4"], "needs a file name that ends in .csv"),
    (["--schema", "dfew"], "--schema takes image=NAME or video=NAME"),
    (["--schema", "video=mafw"], "mafw has 11 classes and the video head 7"),
    (["--model", "nowhere.safetensors"], "no such model file"),
    (["--hop", "0"], "hop is 0"),
])
def test_wrong_use_ends_with_2(words, message, videos, weights, monkeypatch, capsys):
    from s4d_lib.cli import app as cli

    arguments = ["s4d", "predict", str(videos["cfr"]), "--no-crop", "--model", str(weights), *words]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and said.count("\n") == 1
