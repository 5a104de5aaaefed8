"""Written faces: layouts of AffectNet and DFEW, splits, exact truth, atomic and idempotent writing."""

from __future__ import annotations

import csv
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

import s4d_lib.synthetic_faces.folders as face_files
from s4d_lib.datasets.labels import FOLDS
from s4d_lib.datasets.readers import read_dfew
from s4d_lib.datasets.still_readers import read_affectnet
from s4d_lib.synthetic_faces.drawing import make_clips, make_stills
from s4d_lib.synthetic_faces.folders import Truth, write_faces
from s4d_lib.synthetic_faces.motion import EMOTIONS
from s4d_lib.synthetic_faces.recipes import RECIPES

AFFECTNET7 = ["Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger"]  # the data set's own order
RECIPE = replace(RECIPES["default"], name="tiny", size=32,
                 clip=replace(RECIPES["default"].clip, frames=(3, 5), clips_per_identity=2))
STILLS, CLIPS, SEED = 7, 11, 3


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "laboratory"
    write_faces(out, RECIPE, STILLS, CLIPS, SEED, progress=False)
    return out


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def folds(root: Path, split: str) -> list[dict[str, int]]:
    tables = [rows(root / "clips" / "annotation" / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv")
              for fold in range(1, FOLDS + 1)]
    assert all(table[0] == ["video_name", "label"] for table in tables)
    return [{name: int(label) for name, label in table[1:]} for table in tables]


def test_stills_lie_in_affectnet_s_layout_with_their_own_pixels_and_labels(written):
    made = make_stills(RECIPE, STILLS, SEED)
    listed = {}
    for split in ("train", "test"):
        for line in (written / "stills" / f"{split}_affectnet7.txt").read_text().splitlines():
            path, label = line.split(" ")
            listed[path] = int(label)
    truth = np.load(written / "stills" / "truth.npz")
    assert len(listed) == STILLS == len(truth["ids"])
    for number, path in enumerate(truth["ids"]):
        pixels = np.asarray(Image.open(written / "stills" / "Manually_Annotated_Images" / path))
        assert np.array_equal(pixels, made.frames[number].numpy())
        assert AFFECTNET7[listed[str(path)]] == EMOTIONS[int(made.labels[number])]
    assert {Path(path).name for path in listed} == {"face_det_000000.png"}
    assert all(Path(path).parent.name.endswith("_aligned") for path in listed)


def test_clips_are_stored_as_video_and_as_numbered_pictures(written):
    made = make_clips(RECIPE, CLIPS, SEED)
    for number, frames in enumerate(made.frames, 1):
        with av.open(str(written / "clips" / "clip_mp4" / f"{number:05d}.mp4")) as container:
            stream = container.streams.video[0]
            assert float(stream.average_rate) == 12.5 and stream.codec_context.name == "h264"
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        pictures = sorted((written / "clips" / "clip_jpg" / f"{number:05d}").iterdir())
        assert [picture.name for picture in pictures] == [f"{i:05d}.jpg" for i in range(1, len(frames) + 1)]
        stored = np.stack([np.asarray(Image.open(picture)) for picture in pictures])
        for other in (decoded, stored):
            assert other.shape == tuple(frames.shape)
            error = np.mean((other.astype(float) - frames.numpy()) ** 2)
            assert 10 * np.log10(255**2 / error) > 30


def test_five_test_folds_are_disjoint_covering_and_share_nobody(written):
    truth = np.load(written / "clips" / "truth.npz")
    label = dict(zip(truth["ids"].tolist(), truth["labels"].tolist(), strict=True))
    person = dict(zip(truth["ids"].tolist(), truth["identities"].tolist(), strict=True))
    tested, trained = folds(written, "test"), folds(written, "train")
    everyone = [f"{number:05d}" for number in range(1, CLIPS + 1)]
    assert sorted(name for fold in tested for name in fold) == sorted(label) == everyone
    for test, train in zip(tested, trained, strict=True):
        assert test and set(test) | set(train) == set(label) and not set(test) & set(train)
        assert not {person[name] for name in test} & {person[name] for name in train}
        assert all(label[name] == value for name, value in (test | train).items())
    # Control: dealing out clips instead of people would put the same face on both sides.
    names = sorted(label)
    assert {person[name] for name in names[::FOLDS]} & {person[n] for i, n in enumerate(names) if i % FOLDS}


def test_truth_is_the_generator_s_truth(written):
    made = make_clips(RECIPE, CLIPS, SEED)
    truth = np.load(written / "clips" / "truth.npz", allow_pickle=False)
    for name in ("labels", "emotions", "others", "identities", "kinds", "segments"):
        assert np.array_equal(truth[name], getattr(made, name).numpy(), equal_nan=name == "segments"), name
    assert truth["emotion_names"].tolist() == list(EMOTIONS) and len(truth["action_unit_names"]) == 21
    for name in ("action_units", "landmarks", "poses", "presence"):
        for clip, expected in enumerate(getattr(made, name)):
            start, end = truth["offsets"][clip : clip + 2]
            assert np.array_equal(truth[name][start:end], expected.numpy()), name
    assert truth["offsets"][-1] == len(truth["landmarks"])


def test_the_library_s_readers_read_it(written):
    train, test = (read_affectnet(written / "stills", split) for split in ("train", "test"))
    assert len(train) + len(test) == STILLS and len(test) == 1
    for frames in ("clip_jpg", "clip_mp4"):
        clips = [clip for split in ("train", "test") for clip in read_dfew(written / "clips", split, 2, frames)]
        assert len(clips) == CLIPS and all(Path(clip.path).exists() for clip in clips)


def test_the_card_tells_what_it_is(written):
    card = json.loads((written / "card.json").read_text())
    told = [card[key] for key in ("name", "stills", "clips", "seed", "size")]
    assert told == ["tiny", STILLS, CLIPS, SEED, 32]
    assert card["request"]["recipe"]["clip"]["frames"] == [3, 5] and len(card["content_sha256"]) == 64
    assert "CC0" in card["licence"]


def tiny(out: Path, seed: int = 0, **more) -> dict:
    return write_faces(out, replace(RECIPE, size=16), 1, 0, seed, progress=False, **more)


def test_the_hash_follows_the_content_and_only_the_content(tmp_path):
    first, again, other = tiny(tmp_path / "a"), tiny(tmp_path / "b"), tiny(tmp_path / "c", seed=1)
    assert first["content_sha256"] == again["content_sha256"] != other["content_sha256"]


def test_asking_again_changes_nothing_and_asking_for_something_else_is_refused(tmp_path):
    card = tiny(tmp_path / "faces")
    stamp = (tmp_path / "faces" / "card.json").stat().st_mtime_ns
    assert tiny(tmp_path / "faces") == card
    assert (tmp_path / "faces" / "card.json").stat().st_mtime_ns == stamp
    with pytest.raises(FileExistsError, match="seed: 0 there, 1 asked"):
        tiny(tmp_path / "faces", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="no card.json"):
        tiny(tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_a_free_place(tmp_path):
    (tmp_path / "faces").mkdir()
    assert tiny(tmp_path / "faces")["stills"] == 1
    assert (tmp_path / "faces" / "card.json").is_file()


def test_two_writers_at_once_both_end_well(tmp_path, monkeypatch):
    gate, cards = threading.Barrier(2), []
    publish = face_files._publish

    def together(*arguments):
        gate.wait(timeout=60)    # both have built their folder before either is renamed
        return publish(*arguments)

    monkeypatch.setattr(face_files, "_publish", together)
    writers = [threading.Thread(target=lambda: cards.append(tiny(tmp_path / "faces"))) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert len(cards) == 2 and cards[0] == cards[1]
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]


def test_a_failing_writer_leaves_nothing_and_a_killed_one_blocks_nobody(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(face_files, "_still_truth", fail)
        with pytest.raises(RuntimeError, match="disk full"):
            tiny(tmp_path / "faces")
    assert not list(tmp_path.iterdir())
    here = face_files._machine()
    dead = tmp_path / f".faces.{here}.4194999.0123.part" / "stills"           # what a killed writer leaves
    alive = tmp_path / f".faces.{here}.{os.getpid()}.4567.part" / "stills"   # a writer at work
    dead.mkdir(parents=True)
    alive.mkdir(parents=True)
    tiny(tmp_path / "faces")
    assert (tmp_path / "faces" / "card.json").is_file()
    assert not dead.parent.exists() and alive.exists()


def test_a_writer_on_another_machine_lives_by_its_signs_and_not_by_its_process_number(tmp_path):
    """4194999 is nobody's number here, and may well be that of the writer there."""
    lately, long_ago, before = (tmp_path / f".faces.{name}.part" for name in
                                ("another-node.4194999.01", "another-node.4194999.23", "4194999.45"))
    for part in (lately, long_ago, before):
        part.mkdir()
    past = time.time() - face_files.SILENT - 60
    os.utime(long_ago, (past, past))
    tiny(tmp_path / "faces")
    assert lately.exists() and not long_ago.exists()
    assert before.exists()  # of an older version, without the machine: its time decides too
    os.utime(before, (past, past))
    face_files._remove_leftovers(tmp_path / "faces")
    assert not before.exists()


def test_a_writer_gives_signs_of_life_while_it_writes(tmp_path, monkeypatch):
    touched = []
    monkeypatch.setattr(face_files.os, "utime", touched.append)
    tiny(tmp_path / "faces")
    assert touched and {path.name.split(".")[2] for path in touched} == {face_files._machine()}


@pytest.mark.parametrize("kept", ["mp4", "jpg"])
def test_clips_can_be_stored_one_way_only(tmp_path, kept):
    write_faces(tmp_path / "faces", replace(RECIPE, size=16), 0, 10, progress=False, frames=(kept,))
    made = {path.name for path in (tmp_path / "faces" / "clips").iterdir()}
    assert made == {f"clip_{kept}", "annotation", "groups.csv", "truth.npz"}
    assert not (tmp_path / "faces" / "stills").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"recipe": "hard"}, "choose one of"), ({"stills": 0, "clips": 0}, "not both 0"), ({"stills": -1}, "from 0 on"),
    ({"clips": 3}, "at least 17 clips"), ({"frames": ("avi",)}, "avi"), ({"frames": ()}, "choose one or both"),
    ({"recipe": replace(RECIPE, size=33)}, "even size"), ({"clips": 100_000}, "five-digit"),
])
def test_bad_requests_say_what_to_do(tmp_path, change, message):
    request = {"recipe": "easy", "stills": 1, "clips": 0} | change
    with pytest.raises(ValueError, match=message):
        write_faces(tmp_path / "faces", progress=False, **request)
    assert not list(tmp_path.iterdir())


def test_truth_grows_chunk_by_chunk(tmp_path):
    with Truth(tmp_path / "t") as truth:
        truth.add(points=torch.arange(6.0).view(2, 3))
        truth.add(points=torch.arange(6.0, 9.0).view(1, 3), ids=np.array(["a", "b"]))
        assert truth.rows("points") == 3 and truth.rows("nothing") == 0
        with pytest.raises(ValueError, match="do not continue"):
            truth.add(points=torch.zeros(1, 4))
    stored = np.load(tmp_path / "t" / "truth.npz", allow_pickle=False)
    assert np.array_equal(stored["points"], np.arange(9, dtype=np.float32).reshape(3, 3))
    assert stored["ids"].tolist() == ["a", "b"]
    assert [path.name for path in (tmp_path / "t").iterdir()] == ["truth.npz"]


def test_a_disk_without_room_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(face_files, "_build", full)
    with pytest.raises(OSError, match=rf"{tmp_path}/faces: No space left"):
        write_faces(tmp_path / "faces", "default", 1, 20, progress=False)
    assert not list(tmp_path.iterdir()), "and nothing half is left"
