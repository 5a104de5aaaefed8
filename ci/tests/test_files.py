"""Files that are whole whatever happens to their writer, a lock that ends with its holder, one table of variables."""

import ast
import hashlib
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from s4d_lib import files
from s4d_lib.files import (
    PACKAGE,
    Lock,
    Locked,
    data_root,
    is_disk_full,
    is_locked,
    replacing,
    runs_root,
    sha256_of,
    write_atomically,
)

# ------------------------------------------------------------------------------------------------- whole files


def write_often(path: str) -> None:
    for letter in "ab" * 100:
        write_atomically(path, letter * 200_000)


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "status.json"
    write_atomically(path, "a" * 200_000)
    writer = multiprocessing.get_context("spawn").Process(target=write_often, args=(str(path),))
    writer.start()
    seen = set()
    while writer.is_alive():
        text = path.read_text()
        seen.add((len(text), len(set(text)), text[0]))
    writer.join()
    assert writer.exitcode == 0
    assert seen and seen <= {(200_000, 1, "a"), (200_000, 1, "b")}, "each time all of one letter"
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_file_written_in_place_is_seen_half(tmp_path):
    """The control: what a reader would find without the mechanism."""
    program = "import os, sys; f = open(sys.argv[1], 'w'); f.write('a' * 10); f.flush(); os._exit(9)"
    path = tmp_path / "status.json"
    path.write_text("b" * 20)
    subprocess.run([sys.executable, "-c", program, path])
    assert path.read_text() == "a" * 10


@pytest.mark.parametrize("content", ["faces · Gesichter", b"\x00\xff"])
def test_text_and_bytes_arrive_as_they_are(tmp_path, content):
    path = write_atomically(tmp_path / "new", content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "labels.csv", "old")
    with pytest.raises(RuntimeError, match="half way"), replacing(path) as part:
        part.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["labels.csv"]

    monkeypatch.setattr(Path, "write_bytes", lambda _, content: open("/dev/full", "wb", buffering=0).write(content))
    with pytest.raises(OSError) as full:
        write_atomically(path, "new")
    assert is_disk_full(full.value) and not is_disk_full(OSError("no room")) and not is_disk_full(ValueError())
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["labels.csv"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    did, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (did.append(os.fstat(file).st_size), sync(file))[1])
    monkeypatch.setattr(files.os, "replace", lambda *names: (did.append("renamed"), replace(*names))[1])
    write_atomically(tmp_path / "weights", b"12345")
    assert did == [5, "renamed"]


def test_what_a_killed_writer_leaves_is_hidden_and_found_by_its_ending(tmp_path):
    program = ("import os, signal, sys; from s4d_lib.files import replacing\n"
               "with replacing(sys.argv[1]) as part:\n"
               "    part.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)")
    path = write_atomically(tmp_path / "record.json", "old")
    done = subprocess.run([sys.executable, "-c", program, path])
    assert done.returncode == -9 and path.read_text() == "old"
    (left,) = tmp_path.glob(".*.tmp")
    assert left.read_text() == "half" and left.name.startswith(".record.json.")


def test_a_name_as_long_as_a_file_system_allows(tmp_path):
    path = write_atomically(tmp_path / ("ü" * 125 + ".json"), "long")  # 255 bytes
    assert path.read_text() == "long" and os.listdir(tmp_path) == [path.name]


def test_the_hash_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one piece
    assert sha256_of(write_atomically(tmp_path / "x", content)) == hashlib.sha256(content).hexdigest()


# ------------------------------------------------------------------------------------------------- the lock

HOLDER = ("import sys, time; from s4d_lib.files import Lock; lock = Lock(sys.argv[1]); lock.take(); "
          "print('has it', flush=True); time.sleep(600)")


@pytest.mark.parametrize("folder", [False, True])
def test_the_system_frees_the_lock_of_a_holder_that_is_killed(tmp_path, folder):
    path = tmp_path if folder else tmp_path / "below" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "has it\n"
    with pytest.raises(Locked, match=f"^{re.escape(str(path))}: somebody packs here; wait for it$"):
        Lock(path, "somebody packs here; wait for it").take()
    assert folder or is_locked(path)
    holder.kill()
    holder.wait()
    assert folder or not is_locked(path)
    with Lock(path), pytest.raises(Locked):
        Lock(path).take()
    Lock(path).take()


def test_looking_at_a_lock_changes_nothing(tmp_path):
    path, lock = tmp_path / "lock", Lock(tmp_path / "lock")
    assert not is_locked(path) and not path.exists()
    lock.take()
    os.utime(path, (1, 1))
    assert is_locked(path) and is_locked(path) and path.stat().st_mtime == 1
    with pytest.raises(Locked):
        Lock(path).take()
    assert is_locked(path), "he who was refused has not let go what the other holds"
    lock.give_back()
    lock.give_back()
    assert not is_locked(path) and path.exists(), "the file stays, or two could hold files of one name"


def test_where_the_file_system_knows_no_locks_nobody_is_refused(tmp_path, monkeypatch):
    def knows_none(*_: object, **__: object) -> bool:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("filelock.lock_descriptor", knows_none)
    with Lock(tmp_path / "lock"), Lock(tmp_path / "lock"):
        assert not is_locked(tmp_path / "lock")


def test_a_lock_that_cannot_be_made_says_why(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError):
        Lock(tmp_path / "file" / "lock").take()


# ------------------------------------------------------------------------------------------------- places


def test_places_follow_their_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("S4D_RUNS", str(tmp_path / "r"))
    monkeypatch.setenv("S4D_DATA", str(tmp_path / "d"))
    assert (runs_root(), data_root()) == (tmp_path / "r", tmp_path / "d")
    monkeypatch.delenv("S4D_RUNS")
    monkeypatch.delenv("S4D_DATA")
    assert (runs_root(), data_root()) == (Path("runs"), PACKAGE.parent / "data")


def test_every_environment_variable_stands_in_the_table():
    table = re.findall(r"^    (S4D_[A-Z_]+)  ", files.__doc__, re.MULTILINE)
    words = [node.value for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    used = {word for word in words if re.fullmatch("S4D_[A-Z_]+", word)}
    assert len(table) == len(set(table)) and used == set(table)
