"""faults → doctor = reader: folders broken at random, and arrangements that people have; both say the same of them."""

from __future__ import annotations

import io
import os
import random
import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

from s4d_lib.clips import EVAL
from s4d_lib.datasets.doctor.diagnosis import diagnose
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.labels import ReaderNote
from s4d_lib.datasets.protocols import EXPECTED
from s4d_lib.datasets.readers import read_dataset
from s4d_lib.datasets.samples import check_samples
from s4d_lib.frames.reader import UnreadableMedia

pytestmark = pytest.mark.slow  # the whole file: left out between two edits

IDS = [f"{number:05d}" for number in range(1, 36)]
LABELS = {id: place // 5 for place, id in enumerate(IDS)}  # every list holds a 0 and a 6


def jpg(size: tuple[int, int] = (16, 12), grey: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (grey, 80, 10)).save(file, "JPEG")
    return file.getvalue()


def listing(root: Path, split: str, fold: int, place: str = "annotation") -> Path:
    return root / place / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv"


def write_lists(root: Path, base: int = 0, place: str = "annotation") -> None:
    for fold in range(1, 6):
        for split in ("train", "test"):
            path = listing(root, split, fold, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("video_name,label\n" + "".join(
                f"{id},{LABELS[id] + base}\n" for n, id in enumerate(IDS) if (n % 5 + 1 == fold) == (split == "test")))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faults")
    write_lists(root)
    for place, id in enumerate(IDS):
        folder = root / "clip_jpg_256" / id
        folder.mkdir(parents=True)
        for number in range(1, 13):
            (folder / f"{number:05d}.jpg").write_bytes(jpg(grey=7 * place))
    return root


@pytest.fixture
def dfew(source, tmp_path, monkeypatch) -> Path:
    monkeypatch.delitem(EXPECTED, "dfew")
    return Path(shutil.copytree(source, tmp_path / "dfew"))


# -------------------------------------------------------------------------------- random faults

ODD_BYTES = (b"", b"<html>403 Forbidden</html>", jpg((12, 12)), jpg()[:-9], b"\x00" * 400)


def break_frame(root: Path, rng: random.Random) -> None:
    (root / "clip_jpg_256" / rng.choice(IDS) / f"{rng.randint(1, 12):05d}.jpg").write_bytes(rng.choice(ODD_BYTES))


def change_frames(root: Path, rng: random.Random) -> None:
    folder = root / "clip_jpg_256" / rng.choice(IDS)
    frames = sorted(folder.glob("*"))
    if not frames:
        return
    what = rng.choice(("unlink", "all", "link", "folder", "litter", "rename", "keep one"))
    frame = rng.choice(frames)
    if what == "litter":
        (folder / rng.choice((".DS_Store", "Thumbs.db", "._00001.jpg"))).write_bytes(b"litter")
    elif what == "rename":
        frame.rename(folder / f"{rng.randint(0, 300)}.JPG")
    elif what in ("all", "keep one"):
        for one in frames[what == "keep one":]:
            one.unlink() if one.is_file() or one.is_symlink() else one.rmdir()
    elif frame.is_file():
        frame.unlink()
        if what == "link":
            frame.symlink_to(rng.choice(("nowhere.jpg", "/etc/hostname", "00001.jpg")))
        elif what == "folder":
            frame.mkdir()


def change_clip(root: Path, rng: random.Random) -> None:
    folder = root / "clip_jpg_256" / rng.choice(IDS)
    if not folder.exists():
        return
    what = rng.choice(("away", "unpadded", "nested", "file", "strange"))
    away = root.parent / f"{folder.name}-{rng.random()}"
    if what == "strange":
        shutil.copytree(folder, folder.with_name("99999"), symlinks=True, dirs_exist_ok=True)
        return
    folder.rename(away)
    if what == "unpadded":
        away.rename(folder.with_name(folder.name.lstrip("0")))
    elif what == "nested":
        folder.mkdir()
        away.rename(folder / folder.name)
    elif what == "file":
        folder.write_bytes(b"no folder")


ROWS = ("00002,0", "2,0", "00001,0", "99998,1", "00004", "00003,7", "00003,-1", "00005,Bored", "00006,Happy", ",", "  ",
        "../x,1", "/etc/passwd,1", "a,b,c", "video_name,label", "\x1b[31mx,2", '"00007,1', "00\x0003,1")  # fmt: skip


def change_list(root: Path, rng: random.Random) -> None:
    path = listing(root, rng.choice(("train", "test")), rng.randint(1, 5))
    data = path.read_bytes()
    row = rng.choice(ROWS).encode()
    path.write_bytes(rng.choice((
        *[data + row + b"\n"] * 3, data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data,
        data.replace(b",", b";"), data.split(b"\n", 1)[-1], data[: len(data) // 2], b"", b"video_name,label\n",
        data.replace(b"\n0000", b"\n"), data + b"caf\xe9,1\n", data.replace(b",6\n", b",7\n").replace(b",0\n", b",1\n"),
    )))  # fmt: skip


def trains(root: Path, options: dict) -> str:
    """What a training stumbles over first, or nothing: the reader, the checks, then every frame."""
    try:
        for fold in range(1, 6):
            both = [read_dataset(root, "dfew", split, fold, **options) for split in ("train", "test")]
            for problem in check_samples(both[0], both[1]) + check_samples(both[1]):
                return str(problem)
            if fold == 1:
                for samples in both:
                    data = FaceDataset(samples, EVAL, 8, 16, 1, "test")
                    for item in range(len(data)):
                        data[item]
    except (UnreadableMedia, ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(60))
def test_what_the_doctor_calls_an_error_stops_a_training_and_nothing_else_does(dfew, seed):
    rng = random.Random(seed)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rng.choice((break_frame, change_frames, change_clip, change_list))(dfew, rng)
    diagnosis = diagnose(dfew, "dfew", deep=True, jobs=2)
    errors = [str(finding) for finding in diagnosis.findings if finding.level == "error"
              and finding.kind not in ("same content in train and test",)]
    options = diagnosis.reading or {"frames": "clip_jpg_256"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReaderNote)
        stopped = trains(dfew, options)
    assert bool(errors) == bool(stopped), (errors, stopped)
    for finding in diagnosis.findings:
        assert str(finding).isprintable() and len(str(finding)) < 2000 and finding.remedy


def test_the_headers_of_frames_that_stand_out_are_read_without_deep(dfew):
    for number, data in ((6, b"<html>403 Forbidden</html>"), (7, jpg((120, 90))), (8, jpg()[:-9])):
        shutil.rmtree(dfew / "clip_jpg_256/00003")
        shutil.copytree(dfew / "clip_jpg_256/00004", dfew / "clip_jpg_256/00003")
        (dfew / f"clip_jpg_256/00003/{number:05d}.jpg").write_bytes(data)
        assert {f.kind for f in diagnose(dfew, "dfew").findings if f.level == "error"} <= {"unreadable", "mixed sizes"}
        assert diagnose(dfew, "dfew").exit_code == 2


# -------------------------------------------------------------------------------- arrangements


def errors_of(root: Path, **options) -> dict[str, object]:
    return {f.kind: f for f in diagnose(root, "dfew", **options).findings if f.level == "error"}


def test_lists_in_one_place_and_frames_in_another(dfew, tmp_path):
    (dfew / "clip_jpg_256").rename(tmp_path / "jpg_256")
    assert "absolute path" in errors_of(dfew)["no frames folder"].remedy
    diagnosis = diagnose(dfew, "dfew", frames=f"{tmp_path}/jpg_256/")
    assert not errors_of(dfew, frames=f"{tmp_path}/jpg_256/")
    assert diagnosis.reading == {"frames": f"{tmp_path}/jpg_256", "base": 0}
    assert trains(dfew, diagnosis.reading) == ""
    (dfew / "clip_jpg_256").symlink_to(tmp_path / "jpg_256")
    found = errors_of(dfew)
    assert list(found) == ["link out of the folder"] and f"--frames {tmp_path}/jpg_256" in found[
        "link out of the folder"].remedy  # fmt: skip
    assert "leads out" in trains(dfew, {"frames": "clip_jpg_256"})


@pytest.mark.parametrize(("named", "lists"), [("..", "dfew"), ("../..", "code/dfew"), ("annotation", "."),
                                              ("annotation/test(single-labeled)", ".")])
def test_a_folder_too_high_or_too_low(dfew, tmp_path, named, lists):
    if lists == "code/dfew":
        (tmp_path / "deep/code").mkdir(parents=True)
        dfew = dfew.rename(tmp_path / "deep/code/dfew")
    given = Path(os.path.normpath(dfew / named))
    remedy = errors_of(given)["no list"].remedy
    assert f"{given / lists if lists != '.' else dfew}" in remedy and "name that folder" in remedy


def test_other_capitals_a_folder_in_a_folder_and_a_linked_root(dfew, tmp_path):
    (tmp_path / "link").symlink_to(dfew)
    assert not errors_of(tmp_path / "link") and trains(tmp_path / "link", {"frames": "clip_jpg_256", "base": 0}) == ""
    (dfew / "clip_jpg_256").rename(dfew / "inner")
    (dfew / "Clip/jpg_256").mkdir(parents=True)
    (dfew / "inner").rename(dfew / "Clip/jpg_256/jpg_256")
    diagnosis = diagnose(dfew, "dfew")
    assert diagnosis.frames.folder == "Clip/jpg_256/jpg_256" and trains(dfew, diagnosis.reading) == ""
    (dfew / "annotation").rename(dfew / "Annotation")
    remedy = errors_of(dfew)["no list"].remedy
    if not (dfew / "annotation").exists():  # the system tells capitals apart
        assert "Annotation/train(single-labeled)/train_set_1.csv: rename it, capitals matter" in remedy


def test_the_official_lists_and_how_to_read_them(dfew, capsys):
    shutil.rmtree(dfew / "annotation")
    write_lists(dfew, base=1, place="EmoLabel_DataSplit")
    diagnosis = diagnose(dfew, "dfew")
    assert diagnosis.reading == {"frames": "clip_jpg_256", "base": 1} and trains(dfew, diagnosis.reading) == ""


@pytest.mark.parametrize("kind", ["header only", "leak", "nested", "pipe"])
def test_what_was_once_overlooked(dfew, kind):
    if kind == "header only":
        listing(dfew, "train", 1).write_text("video_name,label\n")
        assert "has no rows" in errors_of(dfew)["unreadable list"].examples[0]
    elif kind == "leak":  # by the same number without its zeros
        path = listing(dfew, "train", 1)
        path.write_text(path.read_text() + "1,0\n")
        assert list(errors_of(dfew)) == ["in train and test"]
    elif kind == "nested":
        (dfew / "clip_jpg_256/00003").rename(dfew / "00003")
        (dfew / "clip_jpg_256/00003").mkdir()
        (dfew / "00003").rename(dfew / "clip_jpg_256/00003/00003")
        assert errors_of(dfew)["no frames"].examples == ("00003 (but a folder, 00003)",)
    elif hasattr(os, "mkfifo"):
        os.mkfifo(dfew / "clip_jpg_256/00003/00013.jpg")
        assert list(errors_of(dfew)) == ["unreadable"]
