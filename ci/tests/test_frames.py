"""file → frames: the frame that was asked for, from every back end, or an error that names the file."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from s4d_lib.frames.backends import PyAV, installed_backends
from s4d_lib.frames.index import FilmIndex
from s4d_lib.frames.pictures import reformat
from s4d_lib.frames.reader import UnreadableMedia, open_frames
from s4d_lib.frames.writer import write_mp4

VIDEO_BACKENDS = installed_backends()
KINDS = ["cfr", "vfr", "late", "keys", "mkv", "front"]


def decode_all(path) -> np.ndarray:
    """The oracle: every frame in display order, no seeking."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


# -------------------------------------------------------------------------------- the right frame


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_returns_the_frame_that_was_asked_for(videos, read_number, kind, backend):
    wanted = [7, 2, 29, 7, 0, 13, 14, 15]
    with open_frames(videos[kind], backend) as reader:
        frames = reader.read(wanted)
        assert (len(reader), reader.size, reader.backend) == (30, (48, 64), backend)
    assert frames.dtype == torch.uint8 and frames.shape == (8, 48, 64, 3)
    assert [read_number(frame) for frame in frames] == wanted
    assert np.array_equal(frames.numpy(), decode_all(videos[kind])[wanted]), "back ends differ in bytes"


def test_the_generated_videos_hold_what_makes_seeking_hard(videos):
    def packets(kind):
        with av.open(str(videos[kind])) as container:
            return [(p.pts, p.dts, p.is_keyframe) for p in container.demux(video=0) if p.size]

    for kind in KINDS:
        times = [pts for pts, _, _ in packets(kind)]
        assert times != sorted(times), f"{kind}: no B-frames, display order is file order"
    assert sum(key for *_, key in packets("keys")) > 3
    assert len(set(np.diff(sorted(pts for pts, *_ in packets("vfr"))))) > 2, "the rate is constant after all"
    assert min(pts for pts, *_ in packets("late")) > 0


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
@settings(max_examples=20, deadline=None)
@given(wanted=st.lists(st.integers(0, 29), min_size=1, max_size=12))
def test_any_order_and_any_repeats(videos, backend, wanted):
    with open_frames(videos["keys"], backend) as reader:
        first = reader.read(wanted[:1])
        frames = reader.read(wanted)  # after another read, so that the decoder stands somewhere in the middle
    oracle = decode_all(videos["keys"])
    assert np.array_equal(first.numpy(), oracle[wanted[:1]])
    assert np.array_equal(frames.numpy(), oracle[wanted])


def test_control_seeking_by_time_alone_lands_on_a_key_frame(videos, read_number):
    """Without counting from the key frame to the wanted one, another frame comes back."""
    with av.open(str(videos["keys"])) as container:
        stream = container.streams.video[0]
        container.seek(int(12 * 0.04 / stream.time_base), stream=stream)
        found = next(container.decode(stream)).to_ndarray(format="rgb24")
    assert read_number(found) < 12
    with open_frames(videos["keys"], "pyav") as reader:
        assert read_number(reader.read([12])[0]) == 12


def test_a_seek_that_goes_too_far_is_made_good(videos, read_number, monkeypatch):
    """Some containers' own indices land one key frame late; here all of them do."""
    monkeypatch.setattr(FilmIndex, "key_before", lambda self, index: next((k for k in self.keys if k > index), 0))
    with open_frames(videos["keys"], "pyav") as reader:
        assert [read_number(frame) for frame in reader.read([2, 3, 12])] == [2, 3, 12]


def test_frames_far_apart_are_sought_not_decoded_through(videos, monkeypatch):
    decoded = []
    decode_from = PyAV._decode_from

    def counting(self, key):
        for position, frame in decode_from(self, key):
            decoded.append(position)
            yield position, frame

    monkeypatch.setattr(PyAV, "_decode_from", counting)
    with open_frames(videos["keys"], "pyav") as reader:
        reader.read([0, 1, 28])
    assert len(decoded) < 12, decoded


@pytest.mark.parametrize("name", ["x.avi", "x.ts"])  # AVI, transport stream
def test_containers_without_display_times(tmp_path, write_numbered, read_number, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = write_numbered(tmp_path / name, [40 * i for i in range(20)], codec=codec)
    with open_frames(path) as reader:
        assert reader.backend == "pyav" and len(reader) == 20
        assert [read_number(frame) for frame in reader.read([19, 3, 7])] == [19, 3, 7]


@pytest.mark.skipif("decord" not in VIDEO_BACKENDS, reason="decord has no wheel for this machine")
def test_control_decord_alone_returns_neighbours_from_an_avi(tmp_path, write_numbered, read_number):
    import decord

    path = tmp_path / "x.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", {"bf": "2"}
        for number in range(20):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[4:20, [2 + 8 * b + x for b in range(7) if number >> b & 1 for x in range(6)]] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    wanted = [2, 7, 19]
    alone = decord.VideoReader(str(path), num_threads=1).get_batch(wanted).asnumpy()
    assert [read_number(frame) for frame in alone] != wanted
    with open_frames(path) as reader:
        assert [read_number(frame) for frame in reader.read(wanted)] == wanted
    with pytest.raises(UnreadableMedia, match="store when each picture is shown; pyav reads it"):
        len(open_frames(path, "decord"))


def test_frames_per_second(videos, frame_folder):
    for backend in VIDEO_BACKENDS:
        for kind, expected in (("cfr", 25), ("vfr", 18.69)):
            with open_frames(videos[kind], backend) as reader:
                assert reader.fps == pytest.approx(expected, rel=0.02)
    assert open_frames(frame_folder(["1.png"])).fps is None


def turned(path, out, matrix):
    """The same recording with another display matrix in its track header."""
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 4 + 40  # version 0: 40 bytes stand before the matrix
    data[start : start + 36] = struct.pack(">9i", *matrix)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("clockwise", [1, 2, 3])
def test_recordings_made_with_a_turned_phone_stand_upright(videos, tmp_path, clockwise):
    one = 1 << 16
    matrix = {
        1: (0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30),
        2: (-one, 0, 0, 0, -one, 0, 64 * one, 48 * one, 1 << 30),
        3: (0, -one, 0, one, 0, 0, 0, 64 * one, 1 << 30),
    }[clockwise]
    path = turned(videos["cfr"], tmp_path / "turned.mp4", matrix)
    with open_frames(path) as reader:
        frames = reader.read([4, 9])
        assert reader.size == tuple(frames.shape[1:3]) == ((48, 64) if clockwise == 2 else (64, 48))
    expected = np.rot90(decode_all(videos["cfr"])[[4, 9]], -clockwise, axes=(1, 2))
    assert np.array_equal(frames.numpy(), expected)


# -------------------------------------------------------------------------------- folders and images


def test_folder_numbers_sort_as_numbers(frame_folder, read_number):
    names = ["1.png", "2.png", "10.png", "100.png"]
    root = frame_folder(names)
    (root / "notes.txt").write_text("not a frame")
    (root / "._1.png").write_bytes(b"left by a copying machine")
    assert sorted(names) != names, "control: by letters 10 and 100 come before 2"
    with open_frames(root) as reader:
        assert (len(reader), reader.size, reader.backend) == (4, (48, 64), "folder")
        assert [read_number(frame) for frame in reader.read([3, 0, 2, 2])] == [3, 0, 2, 2]


def test_folder_of_padded_jpegs(frame_folder, read_number):
    root = frame_folder([f"{i:05d}.jpg" for i in range(1, 13)])
    with open_frames(root) as reader:
        assert [read_number(frame) for frame in reader.read(range(12))] == list(range(12))


def test_folder_with_frames_of_two_sizes_names_the_odd_one(frame_folder):
    root = frame_folder(["1.png", "2.png"])
    Image.new("RGB", (10, 20)).save(root / "3.png")
    message = r"3\.png is 20x10 px, 1\.png is 48x64 px"
    with open_frames(root) as reader, pytest.raises(UnreadableMedia, match=message):
        reader.read([0, 1, 2])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_image_is_a_clip_of_length_one(tmp_path, mode):
    path = tmp_path / "face.bmp" if mode == "RGB" else tmp_path / "face.png"
    Image.new("RGB", (20, 10), (200, 100, 50)).convert(mode).save(path)
    with open_frames(path) as reader:
        assert (len(reader), reader.size, reader.backend) == (1, (10, 20), "image")
        frames = reader.read([0, 0])
    assert frames.shape == (2, 10, 20, 3)
    if mode in ("RGB", "RGBA"):
        assert frames[0, 0, 0].tolist() == [200, 100, 50]


def test_image_orientation_tag_is_applied(tmp_path):
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).repeat(8 * 8 * 3).reshape(6 * 8, 8, 3))
    tag = Image.Exif()
    tag[0x0112] = 6  # shown turned a quarter clockwise
    picture.save(tmp_path / "turned.png", exif=tag)
    assert open_frames(tmp_path / "turned.png").size == (8, 48)


# -------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
@pytest.mark.parametrize("wanted", [[30], [0, -1], [3, 99, 5]])
def test_index_outside_the_file(videos, backend, wanted):
    message = r"cfr\.mp4: no frame (30|-1|99), it has 30"
    with open_frames(videos["cfr"], backend) as reader, pytest.raises(IndexError, match=message):
        reader.read(wanted)


def test_no_index_at_all(videos):
    with open_frames(videos["cfr"]) as reader, pytest.raises(ValueError, match=r"cfr\.mp4: no frame index"):
        reader.read([])


def _text_as_video(path):
    path = path / "text.mp4"
    path.write_text("these are not the frames\n" * 40)
    return path


def _empty(path):
    (path / "empty.mp4").touch()
    return path / "empty.mp4"


def _sound_only(path):
    with av.open(str(path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path / "sound.mp4"


def _no_frames(path):
    with av.open(str(path / "zero.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path / "zero.mp4"


def _folder_without_images(path):
    (path / "empty_folder").mkdir()
    (path / "empty_folder" / "readme.txt").write_text("no frame here")
    return path / "empty_folder"


def _text_as_image(path):
    (path / "text.png").write_text("not a picture")
    return path / "text.png"


def _missing(path):
    return path / "missing.mp4"


BROKEN = {
    _text_as_video: "Invalid data",
    _empty: "empty .0 bytes.",
    _sound_only: "no video stream",
    _no_frames: "no frames",
    _folder_without_images: "no image",
    _text_as_image: "not a readable image",
    _missing: "no such file",
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_unreadable_media_names_path_reason_and_remedy(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises(UnreadableMedia, match=BROKEN[make]) as caught, open_frames(path) as reader:
        reader.read([0])
    error = caught.value
    assert error.path == path and error.reason and str(path) in str(error)
    assert error.remedy in str(error)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
@pytest.mark.parametrize("make", list(BROKEN)[:4], ids=lambda make: make.__name__)
def test_unreadable_to_each_backend(tmp_path, make, backend):
    with pytest.raises(UnreadableMedia, match=r"\.mp4: "), open_frames(make(tmp_path), backend) as reader:
        reader.read([0])


@pytest.mark.parametrize("backend", ["auto", *VIDEO_BACKENDS])
@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("kind", ["cfr", "front"])
def test_truncated_video(videos, tmp_path, kind, kept, backend):
    """Cut off before the index (cfr) or, with the index in front, in the middle of the pictures."""
    data = videos[kind].read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UnreadableMedia, match=r"cut\.mp4"), open_frames(path, backend) as reader:
        reader.read(range(len(reader)))


@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
def test_video_cut_between_two_frames_is_not_a_shorter_video(videos, tmp_path, backend):
    """Control: the libraries alone read such a file to its end and report fewer frames."""
    with av.open(str(videos["front"])) as container:
        ends = sorted(packet.pos + packet.size for packet in container.demux(video=0) if packet.size)
    path = tmp_path / "cut.mp4"
    path.write_bytes(videos["front"].read_bytes()[: ends[19]])
    assert len(decode_all(path)) == 20
    with pytest.raises(UnreadableMedia, match=r"cut\.mp4: .* cut short: \d+ of at least \d+ bytes"):
        len(open_frames(path, backend))


def test_bytes_after_the_last_box_do_no_harm(videos, tmp_path, read_number):
    for name, tail in (("zeros", bytes(40)), ("text", b"appended by some tool, not a box"), ("byte", b"!")):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(videos["front"].read_bytes() + tail)
        with open_frames(path) as reader:
            assert read_number(reader.read([29])[0]) == 29


def test_truncated_image(tmp_path, frame_folder):
    root = frame_folder(["1.jpg", "2.jpg"])
    data = (root / "2.jpg").read_bytes()
    (root / "2.jpg").write_bytes(data[: len(data) // 2])
    with open_frames(root) as reader:
        assert reader.read([0]).shape[0] == 1
        with pytest.raises(UnreadableMedia, match=r"2\.jpg"):
            reader.read([0, 1])


def test_backend_that_does_not_exist_or_is_not_installed(videos, monkeypatch):
    with pytest.raises(ValueError, match="no back end is called 'opencv'"):
        open_frames(videos["cfr"], "opencv")
    monkeypatch.setattr("s4d_lib.frames.reader.installed_backends", lambda: ["pyav"])
    with pytest.raises(ValueError, match=r"'torchcodec' is not installed; installed here: pyav"):
        open_frames(videos["cfr"], "torchcodec")
    assert open_frames(videos["cfr"]).backend == "pyav"


def test_error_survives_pickling():
    error = UnreadableMedia("a/b.mp4", "it is empty", "Fetch it")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.reason) == (str(error), error.path, error.reason)


# -------------------------------------------------------------------------------- processes, closing


def _numbers_in_child(reader, queue):
    queue.put(reader.read([5, 12]).numpy())


FORKED = """
import multiprocessing, sys
import numpy as np
from s4d_lib.frames import open_frames

def child(reader, queue):
    queue.put(reader.read([5, 12]).numpy())

reader = open_frames(sys.argv[1], sys.argv[2])
before = reader.read([5, 12]).numpy()
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(reader, queue))
process.start()
in_child = queue.get(timeout=60)
process.join(timeout=60)
assert process.exitcode == 0
assert np.array_equal(in_child, before)
assert np.array_equal(reader.read([5, 12]).numpy(), before), "the parent's reader must go on working"
"""


@pytest.mark.spawns
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
def test_a_reader_that_was_used_in_the_parent_works_in_a_forked_child(videos, backend):
    # In a process of its own: what hundreds of other tests leave running here is not what is tested.
    done = subprocess.run([sys.executable, "-c", FORKED, str(videos["keys"]), backend], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.spawns
@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
def test_a_reader_that_was_used_in_the_parent_works_in_a_spawned_child(videos, backend):
    context = multiprocessing.get_context("spawn")
    reader = open_frames(videos["keys"], backend)
    before = reader.read([5, 12]).numpy()
    queue = context.Queue()
    child = context.Process(target=_numbers_in_child, args=(reader, queue))
    child.start()
    in_child = queue.get(timeout=60)
    child.join(timeout=60)
    assert child.exitcode == 0
    assert np.array_equal(in_child, before)
    assert np.array_equal(reader.read([5, 12]).numpy(), before), "the parent's reader must go on working"
    reader.close()


class _HoldsAnOpenReader(torch.utils.data.Dataset):
    def __init__(self, path):
        self.reader = open_frames(path)
        self.reader.read([0])

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.reader.read([index])


def test_workers_may_inherit_an_open_reader(videos, read_number):
    """Sharing the parent's decord decoder with two workers hangs; the inherited reader opens its own."""
    loader = torch.utils.data.DataLoader(_HoldsAnOpenReader(videos["cfr"]), None, num_workers=2, timeout=60)
    assert [read_number(frames[0]) for frames in loader] == list(range(6))


def test_forks_are_heeded_from_the_first_decoder_on_and_not_before(videos, frame_folder):
    """Importing a reader changes nothing in the caller's process; pictures need no care, the second decoder no more."""
    code = """
import os, sys
hooks, register = [], os.register_at_fork
os.register_at_fork = lambda **to: (hooks.append(to["before"].__module__) if "before" in to else None, register(**to))
from s4d_lib.frames import open_frames
for path in [None, *sys.argv[1:]]:
    if path is not None:
        len(open_frames(path))
    print(hooks.count("s4d_lib.frames.reader"), end=" ")
"""
    places = frame_folder(["1.png", "2.png"]), videos["cfr"], videos["cfr"]
    said = subprocess.run([sys.executable, "-c", code, *map(str, places)], capture_output=True, text=True)
    assert said.stdout.split() == ["0", "0", "1", "1"], said.stderr


def test_pickled_reader_opens_its_file_again(videos, read_number):
    with open_frames(videos["cfr"]) as reader:
        reader.read([0])
        copy = pickle.loads(pickle.dumps(reader))
    with copy:
        assert read_number(copy.read([11])[0]) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
@pytest.mark.parametrize("backend", VIDEO_BACKENDS)
def test_leaving_the_block_closes_the_file(videos, tmp_path, backend):
    path = tmp_path / "own.mp4"
    path.write_bytes(videos["cfr"].read_bytes())

    def open_files():
        links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return links.count(os.path.realpath(path))

    with open_frames(path, backend) as reader:
        reader.read([3])
        assert open_files() == 1
    assert open_files() == 0
    with pytest.raises(ValueError, match="closed"):
        reader.read([3])


def test_nothing_is_opened_before_the_first_question(videos, monkeypatch):
    def refuse(path):
        raise AssertionError("opened too early")

    monkeypatch.setattr("s4d_lib.frames.reader.OPENERS", dict.fromkeys(("decord", "pyav", "torchcodec"), refuse))
    reader = open_frames(videos["cfr"])
    with pytest.raises(UnreadableMedia, match="opened too early"):
        len(reader)


# -------------------------------------------------------------------------------- writing


def test_written_video_reads_back(tmp_path, numbered_frame, read_number):
    frames = torch.from_numpy(np.stack([numbered_frame(i) for i in range(9)]))
    write_mp4(tmp_path / "a.mp4", frames, fps=12.5)
    with open_frames(tmp_path / "a.mp4") as reader:
        back = reader.read(range(9))
        assert len(reader) == 9 and reader.fps == pytest.approx(12.5)
    assert [read_number(frame) for frame in back] == list(range(9))
    assert (back.float() - frames).abs().mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"], "a half-written file was left behind"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 47, 64, 3), np.uint8), "even height and width, got 47x64"),
        (np.zeros((2, 48, 64, 3), np.float32), "uint8 .t h w 3., got float32"),
        (np.zeros((48, 64, 3), np.uint8), r"got uint8 \[48, 64, 3\]"),
        (np.zeros((0, 48, 64, 3), np.uint8), r"got uint8 \[0, 48, 64, 3\]"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, message):
    with pytest.raises(ValueError, match=message):
        write_mp4(tmp_path / "a.mp4", frames, fps=25)
    assert list(tmp_path.iterdir()) == []


def test_an_older_pyav_without_threads_still_converts():
    class OldFrame:
        def reformat(self, format, width=None):
            return f"in {format}"

    assert reformat(OldFrame(), "rgb24") == "in rgb24"
