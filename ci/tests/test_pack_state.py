"""packs in trouble: a full disk, two at once, a source that changed, an edited manifest; and packs as training data."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from inventories import contents
from PIL import Image

from s4d_lib.cli import app
from s4d_lib.clips import EVAL
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.pack import writer
from s4d_lib.datasets.pack.state import held
from s4d_lib.datasets.pack.writer import pack
from s4d_lib.datasets.packed import read_packed, verify
from s4d_lib.datasets.readers import read_dataset
from s4d_lib.datasets.samples import check_samples
from s4d_lib.frames.writer import write_mp4

IDS = ["00001", "00002", "00010", "02522", "16372", "16373", "16374"]


@pytest.fixture
def dfew(tmp_path, numbered_frame) -> Path:
    """Seven clips of 3 to 9 numbered frames, as png and as mp4."""
    root = tmp_path / "dfew"
    for fold in range(1, 6):
        for split in ("train", "test"):
            path = root / "annotation" / f"{split}(single-labeled)" / f"{split}_set_{fold}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("video_name,label\n" + "".join(
                f"{id},{n}\n" for n, id in enumerate(IDS) if (n % 5 + 1 == fold) == (split == "test")))
    (root / "clip_mp4").mkdir()
    for n, id in enumerate(IDS):
        frames = np.stack([numbered_frame(number + 9 * n) for number in range(3 + n)])
        (root / "clip_png" / id).mkdir(parents=True)
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(root / "clip_png" / id / f"{number:05d}.png")
        write_mp4(root / "clip_mp4" / f"{id}.mp4", frames, 25)
    return root


def packed(root: Path, out: Path, **options):
    return pack(root, out, "dfew", **{"frames": "clip_png", "base": 0, "shard_mb": 0.01, **options})


def ids(samples) -> list[str]:
    return [sample.id for sample in samples]


# -------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize("stage", ["member", "rename", "index", "manifest", "mp4"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(dfew, tmp_path, monkeypatch, capsys, stage):
    out, calls = tmp_path / "out", []
    options = {"format": "mp4", "frames": "clip_mp4"} if stage == "mp4" else {}
    packed(dfew, tmp_path / "whole", **options)

    def full_after(function, count):
        def fails(*arguments, **more):
            calls.append(1)
            if len(calls) > count:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **more)

        return fails

    with monkeypatch.context() as patch:
        if stage == "member":
            patch.setattr(tarfile.TarFile, "addfile", full_after(tarfile.TarFile.addfile, 14))
        elif stage == "rename":
            patch.setattr(writer.os, "replace", full_after(writer.os.replace, 6))
        elif stage == "mp4":
            patch.setattr(writer, "write_mp4", full_after(write_mp4, 3))
        else:  # every part writes an index and then the manifest
            patch.setattr(writer, "write_json", full_after(writer.write_json, 2 + (stage == "manifest")))
        told = ["--frames", options.get("frames", "clip_png"), "--format", options.get("format", "tar")]
        words = ["s4d", "pack", dfew, out, "--as", "dfew", "--base", "0", "--shard-mb", "0.01", *told]
        patch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as left:
            app.main()
        error = capsys.readouterr().err
        assert left.value.code == 2 and "Traceback" not in error
        assert f"s4d: {out}: writing stopped (No space left on device)" in error
    packed(dfew, out, **options)
    assert contents(out) == contents(tmp_path / "whole") and verify(out) == []


def test_two_runs_do_not_write_into_one_folder(dfew, tmp_path):
    with held(tmp_path / "out"), pytest.raises(ValueError, match="another run is packing"):
        packed(dfew, tmp_path / "out")
    assert packed(dfew, tmp_path / "out").errors == [], "and the folder is free again"


def test_a_target_that_cannot_be_made(dfew, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="writing stopped"):
        packed(dfew, tmp_path / "file/out")


def test_what_changed_in_the_source_is_packed_again(dfew, tmp_path):
    frame = dfew / "clip_png/16373/00001.png"
    whole = frame.read_bytes()
    frame.write_bytes(b"<html>403</html>")
    first = packed(dfew, tmp_path / "out")
    assert len(first.errors) == 1 and "16373" not in ids(read_packed(tmp_path / "out"))
    frame.write_bytes(whole)
    again = packed(dfew, tmp_path / "out")
    assert again.errors == [] and 0 < again.kept < len(again.manifest["parts"])
    shutil.copy(dfew / "clip_png/02522/00000.png", dfew / "clip_png/16374/00099.png")
    packed(dfew, tmp_path / "out")
    packed(dfew, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("what", ["flipped", "appended", "renamed", "removed", "part gone", "last part gone", "counts"])
def test_verify_finds_damage(dfew, tmp_path, what):
    out = tmp_path / "out"
    packed(dfew, out)
    assert verify(out) == []
    shard, manifest = out / "shard-000001.tar", json.loads((out / "manifest.json").read_text())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    if what == "flipped":
        shard.write_bytes(data)
    elif what == "appended":
        with tarfile.open(shard, "a") as tar:
            tar.add(__file__, "more.png")
    elif what == "renamed":
        shard.rename(out / "shard-000009.tar")
    elif what == "removed":
        shard.unlink()
    elif what == "counts":
        manifest["parts"][0]["samples"] += 1
    else:
        del manifest["parts"][0 if what == "part gone" else -1]
    (out / "manifest.json").write_text(json.dumps(manifest))
    if "gone" in what:
        for look in (verify, read_packed):
            with pytest.raises(ValueError, match="its parts"):
                look(out)
    else:
        (wrong,) = verify(out)
        assert ("000000" if what == "counts" else "shard-000001.tar") in wrong


# -------------------------------------------------------------------------------- packs as training data


@pytest.mark.parametrize("options", [{}, {"frames": "clip_mp4"}, {"format": "mp4", "frames": "clip_mp4"}])
def test_the_reader_packed_gives_what_the_source_gives(dfew, tmp_path, options):
    out = tmp_path / "out"
    packed(dfew, out, **options)
    for split, fold in (("train", 1), ("test", 1), ("test", 5)):
        before = read_dataset(dfew, "dfew", split, fold, frames=options.get("frames", "clip_png"), base=0)
        after = read_dataset(out, "packed", split, fold)
        assert [(s.id, s.label, s.schema, s.kind) for s in after] == [
            (s.id, s.label, s.schema, s.kind) for s in before]  # fmt: skip
    assert ids(read_dataset(out, "packed", "test")) == ids(read_dataset(out, "packed", "test", 1)), "as read_dfew"
    assert read_dataset(out, "packed", "train", schema="dfew")[0].schema == "dfew"
    groups = {id: id[0] for id in IDS}
    assert {s.group for s in read_dataset(out, "packed", "train", groups=groups)} == {"0", "1"}
    for wrong, words in (({"schema": "ferv39k"}, "packed with the labels of dfew, not of ferv39k"),
                         ({"fold": -1}, "from 0"), ({"fold": 0}, "packed are"), ({"fold": 6}, "packed are"),
                         ({"groups": {"00001": "a"}}, "have no group")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_dataset(out, "packed", "train", **wrong)
    with pytest.raises(FileNotFoundError, match="no manifest"):
        read_dataset(dfew, "packed", "train")


def test_fold_1_of_a_pack_without_folds_is_its_split(tmp_path, numbered_frame):
    for n, split in enumerate(("train", "test")):
        (tmp_path / f"caer/{split}/Angry/a").mkdir(parents=True)
        Image.fromarray(numbered_frame(n)).save(tmp_path / f"caer/{split}/Angry/a/1.png")
    pack(tmp_path / "caer", tmp_path / "out", "caer")
    assert len(read_dataset(tmp_path / "out", "packed", "train", 1)) == 1
    with pytest.raises(ValueError, match="packed are"):
        read_dataset(tmp_path / "out", "packed", "train", 2)


def test_packed_samples_pass_the_checks_before_training(dfew, tmp_path):
    packed(dfew, tmp_path / "out")
    train, test = (read_dataset(tmp_path / "out", "packed", split) for split in ("train", "test"))
    assert check_samples(train, test) == []
    short = check_samples(train, test, min_frames=5)
    assert [(p.kind, p.count, p.examples[0]) for p in short] == [("too few frames", 1, "00002 (4 of 5)")]
    assert {p.kind for p in check_samples(train, train[:1])} == {"id in both sets"}
    (tmp_path / "out/shard-000000.tar").unlink()
    assert [p.kind for p in check_samples(read_packed(tmp_path / "out"))] == ["no such file"]
    assert FaceDataset(test[1:], EVAL, 16, 4, 1, "test")[0]["x"].shape[1] == 3
