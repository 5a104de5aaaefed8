"""Media as strangers hand them in: mirrored, anamorphic, wrongly named, hostile or endless; each with its remedy."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image
from test_frames import turned
from test_predict import StubCropper, moving, reader, weights, write_video  # noqa: F401
from typer.testing import CliRunner

from s4d_lib.cli.app import app
from s4d_lib.crops import folders
from s4d_lib.crops.cropper import FaceCropper
from s4d_lib.crops.faces import Faces
from s4d_lib.crops.folders import COLUMNS, Manifest, _part_of
from s4d_lib.files import require_writable, write_text
from s4d_lib.frames.backends import PyAV
from s4d_lib.frames.index import repeats_picture
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.streams import find_media, is_image, iter_frames
from s4d_lib.predict import video
from s4d_lib.predict.reports import print_table, to_csv
from s4d_lib.predict.video import predict
from s4d_lib.text import no_formula

ONE = 1 << 16


def first(path, **how):
    return next(iter(iter_frames(path, **how))).frames[0]


@pytest.mark.parametrize("name, matrix, shown", [
    ("left and right", (-ONE, 0, 0, 0, ONE, 0), lambda a: a[:, ::-1]),
    ("top and bottom", (ONE, 0, 0, 0, -ONE, 0), lambda a: a[::-1]),
    ("both, a half turn", (-ONE, 0, 0, 0, -ONE, 0), lambda a: a[::-1, ::-1]),
    ("a quarter turn", (0, -ONE, 0, ONE, 0, 0), np.rot90),
    ("along the diagonal", (0, ONE, 0, ONE, 0, 0), lambda a: a.swapaxes(0, 1)),
])
def test_mirrored_recordings_are_shown_as_players_show_them(tmp_path, name, matrix, shown):
    plain = write_video(tmp_path / "plain.mp4", moving(5))
    path = turned(plain, tmp_path / "turned.mp4", (*matrix, 0, 0, 1 << 30))
    expected = shown(first(plain))
    assert np.array_equal(first(path), expected)
    with open_frames(path) as opened:
        assert np.array_equal(opened.read([0])[0].numpy(), expected), f"{name}: {opened.backend}"


def test_a_packet_that_repeats_a_picture_is_not_the_end():
    packet = av.Packet(0)
    packet.dts = packet.pts = 7
    assert repeats_picture(packet)
    assert not repeats_picture(av.Packet(0)), "control: the packet that ends a stream carries no time"


def test_reading_on_decodes_no_frame_twice(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.avi", moving(40), "mpeg4")
    starts, old = [], PyAV._decode_from
    source = PyAV(path)
    monkeypatch.setattr(PyAV, "_decode_from", lambda self, key: starts.append(key) or old(self, key))
    whole = np.concatenate([source.read(list(range(a, a + 8))) for a in range(0, 40, 8)])
    assert len(starts) == 1
    assert np.array_equal(source.read([3, 3 + 20]), whole[[3, 23]]) and len(starts) == 2, "backwards starts again"
    source.close()


def test_names_are_files_and_never_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", moving(3)).rename(tmp_path / "http:a.mp4")
    assert first("http:a.mp4").shape[2] == 3


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnreadableMedia, match="neither a file nor a directory"):
        open_frames(tmp_path / "pipe.mp4")


def test_links_that_bite_their_tail_do_not_end_a_walk(tmp_path):
    os.symlink("loop.mp4", tmp_path / "loop.mp4")
    (tmp_path / "empty").mkdir()
    write_video(tmp_path / "a.mp4", moving(3))
    found = find_media([tmp_path, tmp_path / "empty"])
    assert tmp_path / "a.mp4" in found.media and found.refused[tmp_path / "empty"].startswith("no video")
    assert not find_media([tmp_path / "empty"]).refused, "alone, it is the caller's error"
    with pytest.raises(ValueError, match="path is empty"):
        find_media([""])


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for frame in moving(4, 48, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    stream = iter_frames(path)
    assert next(iter(stream)).frames.shape[1:3] == (48, 64) and "2:1" in stream.notes[0]


def test_the_rate_is_measured_where_the_container_is_wrong(tmp_path):
    path = tmp_path / "slow.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for number, frame in enumerate(moving(12, 32, 32)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number * 5
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    stream = iter_frames(path)
    list(stream)
    assert stream.fps == pytest.approx(5, rel=0.01)


def test_the_default_of_several_streams_is_read(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(2)]
        for stream, edge in zip(streams, (32, 48)):
            stream.height, stream.width, stream.pix_fmt = edge, edge, "yuv420p"
        streams[0].disposition, streams[1].disposition = 0, av.stream.Disposition.default
        for stream, edge in zip(streams, (32, 48)):
            for frame in moving(4, edge, edge):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    stream = iter_frames(path)
    assert next(iter(stream)).frames.shape[1] == 48 and "stream 1" in stream.notes[0]


def test_a_file_without_its_index_says_that_it_is_cut(tmp_path):
    whole = write_video(tmp_path / "a.mp4", moving(20)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov") - 100])
    with pytest.raises(UnreadableMedia, match="cut short"):
        list(iter_frames(tmp_path / "cut.mp4"))


def test_stills_of_all_kinds_are_stills(tmp_path, reader):  # noqa: F811
    grey = np.linspace(0, 65535, 48 * 40).reshape(40, 48).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    with open_frames(tmp_path / "deep.png") as deep:
        assert np.abs(deep.read([0])[0, ..., 0].numpy().astype(int) - grey // 257).max() <= 1, "not clipped to white"
    picture = Image.fromarray(moving(1)[0])
    picture.save(tmp_path / "a.tif")
    picture.save(tmp_path / "a.webp", save_all=True, append_images=[picture.rotate(90)], duration=100)
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(200))
    found = predict([tmp_path], reader, crop="none")
    assert [one.kind for one in found] == ["image"] * 4 and is_image(tmp_path / "A.TIFF")
    by_name = {os.path.basename(one.path): one for one in found}
    unread = "not a readable image" if importlib.util.find_spec("pillow_heif") else "is a HEIC picture; pip install"
    assert not by_name["a.tif"].error and unread in by_name["a.heic"].error
    assert any("animation of 2" in note for note in by_name["a.webp"].notes)


def test_names_do_no_harm_in_tables_and_terminals(tmp_path, monkeypatch, reader, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    for name in ("=cmd|x.mp4", "@b.mp4", "c\x1b[31m.mp4"):
        write_video(tmp_path / "a.mp4", moving(4)).rename(tmp_path / name)
    (tmp_path / "-bad.mp4").write_bytes(b"")
    found = predict(["=cmd|x.mp4", "@b.mp4", "-bad.mp4", "c\x1b[31m.mp4"], reader, crop="none")
    rows = list(csv.reader(io.StringIO(to_csv(found))))
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+@\t\r")]
    assert {row[0] for row in rows[1:]} == {"./=cmd|x.mp4", "./@b.mp4", "./-bad.mp4", "c\x1b[31m.mp4"}
    assert no_formula("plain") == "plain"
    print_table(found)
    assert "\x1b[31m" not in capsys.readouterr().out


def test_manifests_keep_strange_names(tmp_path):
    rows = [dict.fromkeys(COLUMNS, "") | {"file": name} for name in ("=a.mp4", "b\udcff.mp4", "c.mp4")]
    manifest = Manifest(tmp_path / "crops.csv")
    for row in rows:
        manifest.add(row)
    manifest.tidy()
    assert b"\n=a" not in (tmp_path / "crops.csv").read_bytes()
    assert list(Manifest(tmp_path / "crops.csv").rows) == ["./=a.mp4".removeprefix("./"), "b\udcff.mp4", "c.mp4"]
    assert len(os.fsencode(_part_of(tmp_path / ("n" * 251 + ".mp4")))) < 200, "room for a number and a suffix"


def test_reports_are_tried_before_hours_of_work(tmp_path, monkeypatch, weights):  # noqa: F811
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.csv",):
        with pytest.raises(OSError, match="cannot be written"):
            require_writable(path)
        with pytest.raises(OSError, match="cannot be written"):
            write_text(path, "")
    monkeypatch.setattr(video, "predict", lambda *a, **k: pytest.fail("it began to read"))
    run = CliRunner().invoke(app, ["predict", "a.mp4", "--csv", str(tmp_path / "file" / "a.csv")])
    assert isinstance(run.exception, OSError)


@pytest.mark.parametrize("command, module, work", [
    (["predict", "a.mp4"], video, "predict"),
    (["crop", "a.mp4", "b.mp4"], folders, "crop_files"),
])
def test_interrupted_commands_say_what_is_left(monkeypatch, command, module, work):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, work, stop)
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 130 and "interrupted" in run.stderr


def test_answers_do_not_keep_their_batch(tmp_path, reader):  # noqa: F811
    """A view of one row kept the memory around it in pieces: gigabytes in two hours."""
    kept = []
    queue = video._Queue(reader, video._plan(reader.card, "none", None, None, 2, 1.0, "cpu", "no", None, 0))
    for _ in range(2):
        queue.add(torch.zeros(3, 8, 48, 48), kept.append)
    assert [type(row) for row in kept] == [list, list]


def test_a_device_that_computes_nothing_is_refused(reader):  # noqa: F811
    with pytest.raises(ValueError, match="meta.*choose auto or cpu"):
        predict("a.mp4", reader, device="meta", crop=StubCropper())


class SideBySide:
    """Sees one face, where `at` says."""

    name = "stub"

    def __init__(self, at):
        self.at = at

    def __call__(self, frames):
        return [self.at(frame) for frame in frames]


def face_at(x):
    box = torch.tensor([[x, 10.0, x + 40, 50]])
    points = box[:, None, :2] + 40 * torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    return Faces(box, points, torch.tensor([0.99]))


def test_a_cut_ends_a_track_at_once_and_a_passer_by_does_not():
    dark, bright = np.full((20, 64, 160, 3), 20, np.uint8), np.full((20, 64, 160, 3), 200, np.uint8)
    film = np.concatenate([dark, bright])
    detector = SideBySide(lambda frame: face_at(10.0 if frame[0, 0, 0] < 100 else 100.0))
    seen = FaceCropper(detector, every=3).crop(film, 32)
    assert seen.counts["held"] <= 2 and seen.counts["repeated"] == 0, "only between the last look and the cut"
    assert (seen.boxes[21:, 0] == 100).all() and (seen.boxes[:20, 0] == 10).all()
    film[20:] = 30  # control: the picture stays as it is, so the face that was followed is waited for
    film[20:, 0, 0] = 200
    waited = FaceCropper(detector, every=3).crop(film, 32)
    assert waited.counts["held"] >= 10
