"""datasets/doctor/inventory.py: what one look finds, what only a deep look finds, and that no order matters."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s4d_lib.datasets.doctor.inventory import Clip, Looker, inventory, picture_size, sampled, spread, video_header


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), value, np.uint8)).save(path)
    return path


def look(root: Path, kind: str = "clip", deep: bool = False, jobs: int = 1) -> dict[str, Clip]:
    looker = Looker(root, kind, 1, deep, lambda name: False)
    return {clip.name: clip for clip in inventory(looker, root, jobs)}


@pytest.fixture
def clips(tmp_path) -> Path:
    """Three clips: one sound, one with trouble of every kind, one empty."""
    root = tmp_path / "root"
    for number in range(1, 7):
        picture(root / "sound" / f"{number:05}.png", number)
    for name in ("1.png", "2.png", "10.jpg"):
        picture(root / "odd" / name)
    noise = np.random.default_rng(0).integers(0, 255, (16, 40, 3), np.uint8)
    Image.fromarray(noise).save(root / "odd" / "11.png")  # the largest file, so that a quick look reads it
    (root / "odd" / "12.png").touch()
    (root / "odd" / "13.png").write_bytes(b"no picture")
    (root / "odd" / "14.png").symlink_to(picture(tmp_path / "away.png"))
    (root / "odd" / ".hidden.png").touch()
    (root / "odd" / "inner").mkdir()
    (root / "empty").mkdir()
    return root


def test_a_look_counts_measures_and_names(clips):
    found = look(clips)
    assert found["sound"] == Clip("sound", "folder", 6, (".png",), ((24, 32),))
    odd = found["odd"]
    assert (odd.frames, odd.suffixes, odd.empty) == (6, (".jpg", ".png"), 1)
    assert set(odd.sizes) == {(24, 32), (16, 40)}, "height before width"
    assert odd.examples == ("odd/12.png",) and odd.outside == ("odd/14.png",)
    [bad] = odd.bad
    assert bad.startswith("odd/13.png: is not a readable image (its bytes are none of JPEG,")
    assert (odd.gap, odd.misordered, odd.inner) == ("10 after 2", "2.png", "inner")
    assert found["empty"].frames == 0 and len(found) == 3


def test_only_a_deep_look_reads_every_frame(clips):
    """A frame between the first and the last, of the usual number of bytes, is not among the four that stand out."""
    path = clips / "sound" / "00004.png"
    path.write_bytes(b"x" * path.stat().st_size)
    assert look(clips)["sound"].bad == ()
    [bad] = look(clips, deep=True)["sound"].bad
    assert bad.startswith("sound/00004.png: is not a readable image")


def test_many_at_a_time_find_what_one_finds(clips):
    for number in range(40):
        picture(clips / f"more{number}" / "1.png")
    assert look(clips, deep=True, jobs=4) == look(clips, deep=True) != look(clips)


def test_pictures_without_folders_are_clips_of_their_own(clips):
    found = look(clips, kind="image")
    assert found["sound/00001.png"] == Clip("sound/00001.png", "image", 1, (".png",), ((24, 32),))
    assert found["odd/14.png"].kind == "link" and found["odd/12.png"].empty == 1


@pytest.mark.parametrize("kept, decode, fails", [(1.0, True, False), (0.6, False, True), (0.6, True, True)])
def test_a_picture_that_ends_early_is_noticed_without_being_asked(tmp_path, kept, decode, fails):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"1.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        found = picture_size(str(path), decode)
        assert isinstance(found, str) == fails and (fails or found == (40, 50))
        assert str(tmp_path) not in str(found)


def test_a_video_is_known_by_its_start_and_its_length(tmp_path, videos):
    assert video_header(str(videos["cfr"])) == video_header(str(videos["mkv"])) == ""
    other = tmp_path / "page.mp4"
    other.write_text("<!DOCTYPE html>")
    assert video_header(str(other)) == "it is a web page"
    other.write_text("words")
    assert video_header(str(other)) == "not an MP4 file"
    other.write_bytes(videos["cfr"].read_bytes()[:-900])
    assert video_header(str(other)), "an MP4 says how long it is"
    assert "No such file" in video_header(str(tmp_path / "nothing.mp4"))


def test_a_sample_depends_on_the_names_alone():
    names = [f"clip{number:05}.mp4" for number in range(4000)]
    chosen = {name for name in names if sampled(4000)(name)}
    assert chosen == {name for name in reversed(names) if sampled(4000)(name)} and 32 < len(chosen) < 128
    assert all(map(sampled(5), names[:5])), "a few are all looked at"
    assert spread(names, 4000, 4) == [names[place] for place in (0, 1000, 2000, 3000)]
    assert spread(names[:3], 3) == names[:3]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    (clip,) = look(tmp_path / "nothing").values()
    assert clip.frames == 0 and clip.bad == (f": {os.strerror(2)}",)
