"""films × ways to read: every way gives the frames that ffmpeg shows, or refuses the film."""

from collections import Counter

import frame_matrix
import numbered_films
import numpy as np
import pytest

from s4d_lib.records import read_record

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg brings the ffmpeg that makes the films")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return numbered_films.make(imageio_ffmpeg.get_ffmpeg_exe(), tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def verdicts(films):
    ways = frame_matrix.routes(every=5)
    return {path.name: {way: frame_matrix.judge(route, path, truth) for way, route in ways.items()}
            for path, truth in films.items()}


def test_no_route_shows_one_wrong_frame_of_a_hundred_films(verdicts):
    wrong = {(film, way): word for film, row in verdicts.items() for way, word in row.items() if "wrong" in word}
    assert not wrong and len(verdicts) >= 100


def test_what_is_read_by_default_reads_them_all(verdicts):
    for way in ("pyav", "stream", "stream, every 7th"):
        assert Counter(row[way] for row in verdicts.values()) == {"right": len(verdicts)}


def test_decord_reads_what_it_reads_rightly_and_says_why_not_the_rest(verdicts):
    words = {film: row.get("decord") for film, row in verdicts.items()}
    if None in words.values():
        pytest.skip("decord has no wheel for this machine")
    assert {words[f"h264.{ending}"] for ending in ("mp4", "mov", "mkv")} == {"right"}
    assert "cut without being encoded again" in words["cut.mp4"] and "open group" in words["mpeg2.mov"]
    assert "intra refresh" in words["gop_open.mkv"] and "not square" in words["squeezed.mp4"]
    assert all(word == "right" or word.startswith("refused: ") for word in words.values())


@pytest.mark.parametrize("name", ["cut.mp4", "mpeg2.mov", "gop_refresh.mp4", "squeezed.mp4", "turned.mkv",
                                  "mirrored.mp4"])
def test_control_decord_left_to_itself_shows_wrong_frames(films, monkeypatch, name):
    pytest.importorskip("decord")
    monkeypatch.setattr("s4d_lib.frames.backends.require_sure", lambda path: None)
    path = next(path for path in films if path.name == name)
    assert frame_matrix.judge(frame_matrix.reader_route("decord"), path, films[path]).startswith("wrong")


def test_the_films_are_what_their_names_say(films):
    """The oracle itself: films that were not cut show every number once, cut ones begin where they were cut."""
    by_name = {path.name: [numbered_films.number_of(frame) for frame in truth] for path, truth in films.items()}
    everything = list(range(numbered_films.FRAMES))
    assert all(by_name[name] == everything for name in ("h264.mp4", "vp9.webm", "av1.mkv", "mpeg2.ts", "wrap.ts"))
    assert by_name["cut.mp4"] == everything[18:] and by_name["edits_back.mp4"] == everything[35:50] + everything[5:20]
    turned = next(truth for path, truth in films.items() if path.name == "turned.mp4")
    assert turned.shape[1:3] == (numbered_films.WIDTH, numbered_films.HEIGHT)


def test_a_frame_that_differs_is_called_wrong():
    truth = np.stack([numbered_films.numbered(n) for n in range(4)])
    assert not frame_matrix.differs(truth, truth)
    assert frame_matrix.differs(truth[[0, 1, 3, 3]], truth) == "wrong: 1 of 4 frames, the first is 2"
    assert "px instead of" in frame_matrix.differs(truth[:, :, 1:], truth)


def test_the_record_is_of_these_films_and_routes(verdicts):
    films = read_record(frame_matrix.RECORD).results["films"]
    assert set(films) == set(verdicts)
    for film, row in verdicts.items():
        assert {way: films[film][way].split(":")[0] for way in row} == {
            way: word.split(":")[0] for way, word in row.items()}
