"""What a run is: the mark sees every label, group and frame; what was hashed once is remembered and can be verified."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from recorded_marks import mark_of, tables

from s4d_lib.errors import Refused
from s4d_lib.files import write_atomically
from s4d_lib.precision import refuse_precision
from s4d_lib.records import DataUse, Finished, Record, read_record, write_record
from s4d_lib.training import hashes, runs
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.content import data_use
from s4d_lib.training.fingerprints import require_weights, run_mark
from s4d_lib.training.hashes import FrameHashes, cache_of

pytestmark = pytest.mark.slow  # together a minute: left out between two edits


@pytest.fixture(autouse=True)
def _own_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("S4D_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def table(tmp_path):
    """Settings of a table of clips whose files differ."""
    settings = tables(tmp_path / "data")
    for file in (tmp_path / "data" / "clips").glob("*.mp4"):
        file.write_text(file.name)
    return FinetuneConfig(name="x", mode="dfer", **settings)


def clips(config):
    return Path(config.clips)


def relabel(folder):
    path = folder / "labels.csv"
    lines = path.read_text().splitlines()
    name, label, split = lines[2].split(",")
    path.write_text("\n".join([*lines[:2], f"{name},{(int(label) + 1) % 7},{split}", *lines[3:], ""]))


def regroup(folder):
    ids = [line.split(",")[0] for line in (folder / "labels.csv").read_text().splitlines()[1:]]
    (folder / "groups.csv").write_text("\n".join(["id,group", *(f"{one},{i // 2}" for i, one in enumerate(ids)), ""]))


def replace_frame(folder):
    (folder / "05.mp4").write_text("another")


def move_to_the_test_list(folder):
    path = folder / "labels.csv"
    path.write_text(path.read_text().replace("05.mp4,5,train", "05.mp4,5,test"))


@pytest.mark.parametrize("change", [relabel, regroup, replace_frame, move_to_the_test_list])
def test_the_mark_sees_labels_groups_splits_and_frames(table, change):
    before = mark_of(table)
    assert mark_of(table) == before
    change(clips(table))
    assert mark_of(table) != before


def test_control_the_mark_does_not_see_where_the_data_lies(table, tmp_path):
    moved = tmp_path / "elsewhere" / "under another name"
    shutil.copytree(clips(table), moved)
    assert mark_of(table.model_copy(update={"clips": str(moved)})) == mark_of(table)
    (moved / "notes.txt").write_text("no frame, in no list")
    assert mark_of(table.model_copy(update={"clips": str(moved)})) == mark_of(table)


# --- drawn faces ---------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(faces, tmp_path):
    shutil.copytree(faces, tmp_path / "faces")
    return tmp_path / "faces"


def of_clips(folder):
    return FinetuneConfig(name="x", mode="dfer", clips=str(folder / "clips"), frames="clip_mp4")


def test_drawn_faces_are_known_by_recipe_seed_and_renderer(drawn):
    use = data_use(of_clips(drawn), "clip")
    assert use.name == "easy (clips)" and use.drawn["seed"] == 3 and use.drawn["renderer"]
    card = json.loads((drawn / "card.json").read_text())
    assert use.sha256 == card["content_sha256"]
    as_elsewhere = use.model_copy(update={"sha256": "0" * 64})
    assert run_mark(of_clips(drawn), {"clip": use}) == run_mark(of_clips(drawn), {"clip": as_elsewhere}), \
        "another machine may round a pixel differently"
    other = use.model_copy(update={"drawn": use.drawn | {"seed": 4}})
    assert run_mark(of_clips(drawn), {"clip": use}) != run_mark(of_clips(drawn), {"clip": other})


@pytest.mark.parametrize("change", ["a frame", "the list of sums", "every label"])
def test_a_card_is_not_believed_unseen(drawn, change, capsys):
    before = mark_of(of_clips(drawn))
    if change == "a frame":
        os.replace(drawn / "clips" / "clip_mp4" / "00003.mp4", drawn / "clips" / "clip_mp4" / "00004.mp4")
        shutil.copy(drawn / "clips" / "clip_mp4" / "00005.mp4", drawn / "clips" / "clip_mp4" / "00003.mp4")
    elif change == "the list of sums":
        (drawn / "frames.sha256").write_text((drawn / "frames.sha256").read_text().replace("a", "b"))
    else:
        for path in drawn.glob("clips/annotation/*/*.csv"):
            head, *lines = path.read_text().split()
            path.write_text("\n".join([head, *(line[:-1] + str((int(line[-1]) + 1) % 7) for line in lines), ""]))
    assert mark_of(of_clips(drawn)) != before
    said = capsys.readouterr().out
    assert ("not those that were drawn, such as" in said) == (change == "a frame")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 3}', "[" * 100_000, '{"name": "x", "content_sha256": null}'])
def test_a_damaged_card_is_named(drawn, text):
    (drawn / "card.json").write_text(text)
    with pytest.raises(Refused, match=r"card\.json: not the card of drawn faces.*draw them again"):
        data_use(of_clips(drawn), "clip")


@pytest.mark.parametrize("line", ["no comma", ",no id", "no group,", "01.mp4,somebody else"])
def test_a_damaged_line_of_groups_is_named_and_blank_ones_are_none(table, line):
    regroup(clips(table))
    path = clips(table) / "groups.csv"
    with_blank = path.read_text() + "\n  \n"
    path.write_text(with_blank)
    before = mark_of(table)
    path.write_text(with_blank + line + "\n")
    with pytest.raises(Refused, match=r"groups\.csv:32: .*(expected id,group|expected an id and its group|has group)"):
        mark_of(table)
    path.write_text(with_blank.rstrip() + "\n")
    assert mark_of(table) == before


# --- hashes that are remembered ------------------------------------------------------------------------------------


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    old = time.time() - 1000
    for i in range(20):
        (folder / f"{i}.jpg").write_bytes(bytes([i]) * 100)
        os.utime(folder / f"{i}.jpg", (old, old))
    return folder


def take(folder, **more):
    with FrameHashes(folder, **more) as known:
        return known.of([str(folder / f"{i}.jpg") for i in range(20)]), known.changed


def test_frames_are_read_once_and_then_known(frames, monkeypatch):
    first, _ = take(frames)
    assert len(set(first)) == 20
    read = []
    monkeypatch.setattr(hashes, "_hash", lambda path: read.append(path) or "0" * 64)
    assert take(frames)[0] == first and read == []
    (frames / "3.jpg").write_bytes(b"new")
    take(frames)
    assert read == [str(frames / "3.jpg")], "size, time or inode of this one have changed"


def test_only_verifying_sees_what_keeps_size_time_and_inode(frames):
    first, _ = take(frames)
    times = os.stat(frames / "3.jpg")
    with open(frames / "3.jpg", "r+b") as file:
        file.write(b"x")
    os.utime(frames / "3.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert take(frames)[0] == first, "control: this is what it costs to be quick"
    verified, changed = take(frames, verify=True)
    assert verified != first and changed == [str(frames / "3.jpg")]
    assert take(frames)[0] == verified, "what was found is kept"


def test_a_file_that_has_just_changed_may_change_again_in_the_same_tick(frames):
    (frames / "3.jpg").write_bytes(b"a")
    first, _ = take(frames)
    times = os.stat(frames / "3.jpg")
    (frames / "3.jpg").write_bytes(b"b")
    os.utime(frames / "3.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert take(frames)[0] != first


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: text.replace(b"100 ", b"200 "),
                                    lambda _: b""])
def test_a_damaged_memory_is_not_believed(frames, damage, capsys):
    first, _ = take(frames)
    cache = cache_of(frames)
    cache.write_bytes(damage(cache.read_bytes()))
    assert take(frames)[0] == first and "damaged; the frames are hashed again" in capsys.readouterr().out


def test_nothing_is_written_into_the_data_and_an_unwritable_memory_stops_nobody(frames, tmp_path, monkeypatch, capsys):
    first, _ = take(frames)
    assert {path.suffix for path in frames.iterdir()} == {".jpg"}
    (tmp_path / "a file").touch()
    assert take(frames, runs=tmp_path / "a file")[0] == first
    assert "cannot be kept" in capsys.readouterr().out


def test_strange_names_and_missing_files(frames):
    odd = [frames / name for name in ("a\nb.jpg", 'q"\t.jpg', os.fsdecode(b"\xff.jpg"), "ü.jpg")]
    for path in odd:
        path.write_text(repr(path.name))
        os.utime(path, (0, 0))
    asked = [*map(str, odd), str(frames / "absent.jpg")]
    for _ in range(2):
        with FrameHashes(frames) as known:
            found = known.of(asked)
        assert len(set(found)) == 5 and found[-1] == "unreadable"


# --- a finished run ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "runs" / "x-0123456789abcdef"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "metrics.jsonl").write_text("")
    (place / "checkpoint.safetensors").touch()
    (place / ".tmpAb12Cd").touch()
    (place / ".model.safetensors.1f.tmp").touch()
    runs.leave(place, Record(name="x", kind="finetune", headline="h", wall_seconds=1, peak_memory_mb=1,
                             results={"war": 33.25, "by": {1: (2, 3)}}), "0123456789abcdef")
    return place


def test_a_finished_run_is_loaded_and_nothing_to_resume_from_is_left(folder):
    assert runs.finished(folder, "0123456789abcdef").record.results["war"] == 33.25
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.jsonl", "model.safetensors", "record.json"]
    assert runs.finished(folder.with_name("other"), "0123456789abcdef") is None


def swap_record(folder, **changes):
    record = read_record(folder / "record.json")
    write_record(folder / "record.json", record.model_copy(update=changes))


@pytest.mark.parametrize("damage, words", [
    (lambda f: (f / "model.safetensors").write_bytes(b"weight"), "model.safetensors: is not the file that this run"),
    (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: is missing"),
    (lambda f: ((f / "model.safetensors").unlink(), (f / "model.safetensors").mkdir()), "safetensors: is missing"),
    (lambda f: (f / "metrics.jsonl").write_text("{}"), "metrics.jsonl: is not the file"),
    (lambda f: swap_record(f, run=None), "does not say of which run"),
    (lambda f: swap_record(f, results={"war": 99.0}), "changed after it was written"),
    (lambda f: swap_record(f, run=Finished(mark="f" * 16, files={}, record="")), "it is of the run ffff"),
    (lambda f: (f / "record.json").write_text("{"), "not a valid record"),
    (lambda f: ((f / "record.json").unlink(), (f / "record.json").mkdir()), "record.json: cannot be read"),
], ids=range(9))
def test_a_finished_run_whose_parts_do_not_belong_together_is_refused(folder, damage, words):
    damage(folder)
    with pytest.raises(Refused, match=words):
        runs.finished(folder, "0123456789abcdef")


def test_the_same_faces_from_another_machine_are_noted_and_not_refused(folder, capsys):
    use = DataUse(name="easy (clips)", sha256="a" * 64, lists="1", drawn={"seed": 3})
    record = read_record(folder / "record.json").model_copy(update={"run": None, "data": [use]})
    runs.leave(folder, record, "0123456789abcdef")
    runs.finished(folder, "0123456789abcdef", {"clip": use})
    assert capsys.readouterr().out == ""
    runs.finished(folder, "0123456789abcdef", {"clip": use.model_copy(update={"sha256": "b" * 64})})
    assert "as another machine drew them" in capsys.readouterr().out


def test_a_run_of_the_same_settings_under_another_mark_is_told_of(table, tmp_path, capsys):
    other = tmp_path / "runs" / "x-fedcba9876543210"
    other.mkdir(parents=True)
    write_atomically(other / "config.json", table.model_dump_json())
    runs._tell_of_others(table, tmp_path / "runs" / "x-0000000000000000")
    assert "x-fedcba9876543210: the same settings and data folders" in capsys.readouterr().out
    runs._tell_of_others(table.model_copy(update={"seed": 5}), tmp_path / "runs" / "x-0000000000000000")
    assert capsys.readouterr().out == ""


# --- what a device cannot do, what is not there --------------------------------------------------------------------


def test_a_precision_that_a_cpu_would_replace_without_a_word_is_refused():
    with pytest.raises(Refused, match="fp16 needs a GPU.*float32.*'bf16'"):
        refuse_precision("fp16", "cpu")
    refuse_precision("bf16", "cpu")
    refuse_precision("no", "cpu")


def test_weights_that_are_not_there_are_refused_by_setting(table, tmp_path):
    with pytest.raises(Refused, match="init: typo.safetensors is not there"):
        require_weights(table.model_copy(update={"init": "typo.safetensors"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="init: .*empty is a folder without weights"):
        run_mark(table.model_copy(update={"init": str(tmp_path / "empty")}), {})
    require_weights(PretrainConfig(name="p"))


def test_of_several_that_begin_together_one_reads_the_frames(frames, monkeypatch):
    from threading import Thread

    inner, read = hashes._hash, []
    monkeypatch.setattr(hashes, "MANY", 5)
    monkeypatch.setattr(hashes, "_hash", lambda path: (time.sleep(0.02), read.append(path), inner(path))[-1])
    found = {}
    workers = [Thread(target=lambda n=n: found.update({n: take(frames)[0]})) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(read) == 20 and found[0] == found[1] == found[2]


def test_a_choice_of_weights_that_was_exchanged_is_refused(tmp_path):
    from s4d_lib.files import sha256_of
    from s4d_lib.training.fitting import _require_chosen
    from s4d_lib.training.state import Progressed

    weights = write_atomically(tmp_path / "model.safetensors", b"epoch 2")
    where = Progressed(best_epoch=2, best_sha256=sha256_of(weights))
    _require_chosen(weights, where)
    weights.write_bytes(b"another")
    with pytest.raises(Refused, match="model.safetensors: not the weights that epoch 2"):
        _require_chosen(weights, where)
