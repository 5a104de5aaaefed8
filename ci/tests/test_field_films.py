"""Films and pictures as people have them, through every route: cut, damaged, squeezed, slow, or something else."""

from __future__ import annotations

import csv
import os
import stat
import struct
import zlib

import av
import numbered_films
import numpy as np
import pytest
import torch
from numbered_films import FILMS, FRAMES, number_of
from PIL import Image
from test_predict import StubCropper, reader, weights  # noqa: F401
from test_predict import write_video as write

from s4d_lib.clips import EVAL
from s4d_lib.crops import folders
from s4d_lib.crops.cropper import FaceCropper
from s4d_lib.crops.faces import Faces
from s4d_lib.datasets import FaceDataset, Sample
from s4d_lib.datasets.doctor.inventory import Looker, inventory
from s4d_lib.datasets.face_dataset import find_unreadable
from s4d_lib.datasets.pack.writer import pack
from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from s4d_lib.frames.impostors import impostor
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.streams import iter_frames
from s4d_lib.predict.video import _pace, predict

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg brings the ffmpeg that makes the films")
SHOWN = list(range(18, FRAMES))  # of the film that was cut at 0.7 s


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder with films of the matrix, one of them damaged: a byte changed in each of three of its pictures."""
    folder = tmp_path_factory.mktemp("field")
    chosen = [film for film in FILMS if film.name in ("h264.mp4", "cut.mp4", "squeezed.mp4", "sound_first.mkv")]
    numbered_films.make(imageio_ffmpeg.get_ffmpeg_exe(), folder, chosen)
    data, film = bytearray((folder / "h264.mp4").read_bytes()), av.open(str(folder / "h264.mp4"))
    with film:
        places = [(p.pos, p.size) for p in film.demux(video=0) if p.size]
    for where, size in places[10:13]:
        data[where + size // 2] ^= 0x5A
    (folder / "concealed.mp4").write_bytes(data)
    return folder


class Everywhere:
    """A detector that sees one face, in the middle of every picture."""

    name = "everywhere"

    def __call__(self, frames):
        height, width = frames.shape[1:3]
        box = torch.tensor([[0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]])
        return [Faces(box, torch.full((1, 5, 2), float("nan")), torch.ones(1)) for _ in frames]


# ------------------------------------------------------------------------------------------- one truth, every route


def test_a_film_that_was_cut_is_the_same_film_to_every_route(films, tmp_path, reader):  # noqa: F811
    path = films / "cut.mp4"
    with open_frames(path) as opened:
        assert [number_of(frame.numpy()) for frame in opened.read(range(len(opened)))] == SHOWN
    assert predict([path], reader, crop=StubCropper())[0].frames == len(SHOWN)
    root = tmp_path / "set" / "test" / "Happy"
    root.mkdir(parents=True)
    (root / "a.mp4").write_bytes(path.read_bytes())
    [clip] = list(inventory(Looker(root, "clip", 1, True, lambda name: True), root, 1))
    assert clip.frames == len(SHOWN) and not clip.bad
    item = FaceDataset([Sample("a", path, 0, "clip")], EVAL, 64, 8, 2, sampling="centre")
    assert item[0]["x"].shape[1] == 8
    report = folders.crop_files(path, tmp_path / "out.mp4", size=48, cropper=FaceCropper(Everywhere()), progress=False)
    assert [row["frames"] for row in report.rows] == [str(len(SHOWN))]


def test_pixels_that_are_not_square_are_made_square_by_every_route(films, reader):  # noqa: F811
    path = films / "squeezed.mp4"
    with av.open(str(path)) as film:
        assert film.streams.video[0].width == 96, "stored narrow"
    with open_frames(path) as opened:
        assert opened.size == (96, 128) and "stretched" in opened.notes[0]
        whole = opened.read([7])[0].numpy()
    stream = iter_frames(path)
    assert np.array_equal(next(iter(stream)).frames[7], whole) and "stretched" in stream.notes[0]
    assert any("stretched" in note for note in predict([path], reader, crop="none")[0].notes)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not lend out single cores")
def test_a_film_whose_sound_comes_first_is_read_to_its_end_by_any_number_of_cores(films):
    all_cores = os.sched_getaffinity(0)
    try:
        for cores in (set(list(all_cores)[:1]), all_cores):  # FFmpeg starts a thread for each that it may use
            os.sched_setaffinity(0, cores)
            stream = iter_frames(films / "sound_first.mkv")
            assert sum(len(chunk.index) for chunk in stream) == stream.count == FRAMES and not stream.damage
    finally:
        os.sched_setaffinity(0, all_cores)


# ---------------------------------------------------------------------------------------------------- damage


def test_pictures_that_the_decoder_guessed_are_counted_by_prediction_and_refused_by_training(films, tmp_path):
    path = films / "concealed.mp4"
    stream = iter_frames(path)
    assert sum(len(chunk.index) for chunk in stream) == FRAMES, "prediction takes what is there"
    with av.open(str(path)) as film:
        marked = [i for i, frame in enumerate(film.decode(video=0)) if frame.is_corrupt]
    assert stream.damage == f"{len(marked)} picture{'s' * (len(marked) > 1)} guessed in part by the decoder" and marked
    [error] = find_unreadable([Sample("a", path, 0, "clip")], progress=False)
    assert error.path == path and f"frame {marked[0]} of {FRAMES} is damaged" in error.reason
    with open_frames(path) as opened:
        assert len(opened.read(range(marked[0]))) == marked[0], "what comes before it is whole"
        with pytest.raises(UnreadableMedia, match=rf"frame {marked[-1]} of .* and frame {FRAMES - 1} is built on it"):
            opened.read([FRAMES - 1])
    with open_frames(films / "h264.mp4") as whole:
        whole.check()


def test_doctor_and_pack_name_the_damaged_film_and_go_on(films, tmp_path):
    root = tmp_path / "table"
    root.mkdir()
    for name in ("concealed", "h264"):
        (root / f"{name}.mp4").write_bytes((films / f"{name}.mp4").read_bytes())
    (root / "labels.csv").write_text("path,label\nconcealed.mp4,0\nh264.mp4,1\n")
    result = pack(root, tmp_path / "out", "table", schema="dfew", base=0)
    assert len(result.errors) == 1 and "is damaged" in result.errors[0] and "concealed" in result.errors[0]
    clips = {clip.name: clip for clip in inventory(Looker(root, "clip", 1, True, lambda name: True), root, 1)}
    assert "is damaged" in clips["concealed.mp4"].bad[0] and not clips["h264.mp4"].bad


def test_memory_that_a_table_asks_for_is_no_lack_of_memory(films, monkeypatch):
    """PyAV's MemoryError is Python's too; a film that raises it is unreadable, and the others are read."""
    sample = Sample("a", films / "h264.mp4", 0, "clip")

    def raising(error):
        def refuse(path):
            raise error
        monkeypatch.setitem(__import__("s4d_lib.frames.reader").frames.reader.OPENERS, "pyav", refuse)

    raising(av.error.MemoryError(12, "Cannot allocate memory", "a.mp4"))
    assert "Cannot allocate memory" in find_unreadable([sample], progress=False)[0].reason
    raising(MemoryError())
    with pytest.raises(MemoryError):
        find_unreadable([sample], progress=False)


# ------------------------------------------------------------------------------------------------- impostors


def film_bytes(films):
    return (films / "h264.mp4").read_bytes()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"
IMPOSTORS = {
    "pointer.mp4": (POINTER, "pointer of Git LFS", "git lfs pull"),
    "pointer.png": (POINTER, "pointer of Git LFS", "git lfs pull"),
    "page.mkv": (b"\n <!DOCTYPE html><html>", "web page", "log-in"),
    "page.jpg": (b"<html><body>Sign in", "web page", "log-in"),
    "zeros.avi": (bytes(5000), "zeros", "fetch it again"),
    "archive.mp4": (b"PK\x03\x04" + bytes(50), "ZIP archive", "Unpack"),
    "song.mp4": (b"ID3\x04" + bytes(50), "sound without pictures", "replace"),
    "list.ts": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "play list", "replace"),
    "page.pdf.webm": (b"%PDF-1.7", "PDF", "replace"),
    "drawing.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript", "replace"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_a_file_that_is_something_else_is_named_for_what_it_is(tmp_path, name, reader):  # noqa: F811
    content, what, remedy = IMPOSTORS[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableMedia) as raised:
        len(open_frames(path)) and open_frames(path).read([0])
    assert what in raised.value.reason and remedy in raised.value.remedy
    [answer] = predict([path], reader, crop="none")
    assert what in answer.error and remedy in answer.error and str(path) in answer.error
    assert "find_unreadable" not in answer.error


def test_films_called_pictures_and_pictures_called_films_are_told_apart(films, tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(film_bytes(films))
        assert "film that is called" in impostor(tmp_path / name).reason
    Image.new("RGB", (32, 24)).save(tmp_path / "still.jpg")
    (tmp_path / "still.jpg").rename(tmp_path / "c.mp4")
    assert "JPEG picture that is called .mp4" in impostor(tmp_path / "c.mp4").reason
    Image.new("RGB", (32, 24)).save(tmp_path / "d.webp")
    assert impostor(tmp_path / "d.webp") is None and impostor(films / "h264.mp4") is None


def test_a_recording_that_was_never_finished_and_one_that_is_locked(films, tmp_path):
    whole = film_bytes(films)
    (tmp_path / "no_index.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    assert "never finished" in impostor(tmp_path / "no_index.mp4").reason
    (tmp_path / "locked.mp4").write_bytes(whole.replace(b"avc1", b"encv"))
    assert "encrypted" in impostor(tmp_path / "locked.mp4").reason
    (tmp_path / "empty_boxes.mp4").write_bytes(struct.pack(">I4s", 8, b"free") * 200_000)
    assert impostor(tmp_path / "empty_boxes.mp4") is None, "and soon"


# -------------------------------------------------------------------------------------------------- pictures


def test_no_picture_starts_a_program(tmp_path, monkeypatch):
    """Pillow decides by content and hands PostScript to Ghostscript; here a program of that name would leave a mark."""
    mark, program = tmp_path / "ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho x >> {mark}\necho 10.0\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # what Pillow remembers of an earlier search
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    from s4d_lib.datasets.doctor.inventory import picture_size
    from s4d_lib.frames.pictures import read_image

    with pytest.raises(ValueError):
        read_image(path)
    assert isinstance(picture_size(str(path), decode=True), str) and not mark.exists()
    with pytest.raises(Exception):  # noqa: B017 (whatever becomes of a drawing that was not made)
        Image.open(path).load()
    assert mark.exists(), "control: without a list of formats the program is run"


@pytest.mark.parametrize("ending, kind", [("tiff", "TIFF"), ("jfif", "JPEG"), ("avif", "AVIF"), ("jp2", "JPEG2000"),
                                          ("bmp", "BMP"), ("webp", "WEBP"), ("ppm", "PPM")])
def test_one_table_of_endings_for_readers_prediction_and_doctor(tmp_path, ending, kind, reader):  # noqa: F811
    Image.fromarray(numbered_films.numbered(5)).save(tmp_path / f"a.{ending}", kind)
    assert f".{ending}" in IMAGE_SUFFIXES and not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)
    with open_frames(tmp_path / f"a.{ending}") as opened:
        assert number_of(opened.read([0])[0].numpy()) == 5 and opened.backend == "image"
    [answer] = predict([tmp_path / f"a.{ending}"], reader, crop="none")
    assert answer.kind == "image" and not answer.error
    clips = list(inventory(Looker(tmp_path, "image", 1, True, lambda name: True), tmp_path, 1))
    assert [clip.kind for clip in clips] == ["image"] and not clips[0].bad


def test_pictures_too_large_to_be_held_are_refused_before_they_are_decoded(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 12_000, 12_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        header + struct.pack(">I", zlib.crc32(header[12:])) + bytes(4) + b"IDAT" + bytes(4))
    with pytest.raises(UnreadableMedia, match="12000x12000 px, and more than 134 million pixels"):
        open_frames(tmp_path / "a.png").read([0])
    gif = b"GIF89a" + struct.pack("<HHBBB", 16_000, 16_000, 0, 0, 0)
    picture = b"," + struct.pack("<HHHHB", 0, 0, 16_000, 16_000, 0) + b"\x02\x02L\x01\x00;"
    (tmp_path / "a.gif").write_bytes(gif + picture)
    with pytest.raises(UnreadableMedia, match="16000x16000 px"):
        open_frames(tmp_path / "a.gif").read([0])
    with pytest.raises(UnreadableMedia, match="16000x16000 px"):
        list(iter_frames(tmp_path / "a.gif"))


# ------------------------------------------------------------------------------------------------------ pace


@pytest.mark.parametrize("fps, said", [(0.2, "are 31 of its spans apart"), (1, "are 6.2 of its spans"),
                                       (2, "are 3.1 of its spans"), (12.5, "stride 2 would cover"),
                                       (100, "stride 16 would cover"), (25, "")])
def test_the_note_on_the_pace_of_a_film(fps, said):
    from types import SimpleNamespace

    notes = list(_pace(fps, 4, SimpleNamespace(fps=25, stride=4)))
    assert (said in notes[0] if said else not notes) and len(notes) == bool(said)


def test_a_manifest_of_crops_holds_what_was_done_to_the_pictures(films, tmp_path):
    report = folders.crop_files(films / "squeezed.mp4", tmp_path / "out.mp4", size=48,
                                cropper=FaceCropper(Everywhere()), progress=False)
    assert any("stretched" in note for note in report.notes)
    with open(report.manifest, newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [""]


def test_what_this_library_writes_every_back_end_reads(tmp_path):
    path = write(tmp_path / "a.mp4", np.stack([numbered_films.numbered(n) for n in range(30)]))
    from s4d_lib.frames.backends import installed_backends

    for backend in installed_backends():
        with open_frames(path, backend) as opened:
            assert [number_of(frame.numpy()) for frame in opened.read([29, 3, 17])] == [29, 3, 17]
