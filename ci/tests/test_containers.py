"""weights/containers.py: what is no checkpoint says so, nothing of a file runs, and nothing in it is lost unnamed."""

import argparse
import os
import random
import shutil
import tarfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from published import script_container
from safetensors.torch import save_file

from s4d_lib.weights.containers import BadCheckpoint, Placeholder, read_contents

STATE = OrderedDict(a=torch.arange(12.0).view(3, 4), b=torch.ones(2, dtype=torch.half), c=torch.tensor(7))
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])


def saved(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(tensors: dict[str, torch.Tensor]) -> bool:
    return tensors.keys() == STATE.keys() and all(torch.equal(tensors[key], STATE[key]) for key in STATE)


@FORMATS
def test_the_container_of_a_training_script_opens(tmp_path, zipped):
    content = script_container(STATE, top_k=3, lr=1e-3, clip_grad=None, betas=[0.9, 0.999])
    contents = read_contents(saved(tmp_path / "checkpoint.pth", content, zipped))
    assert same(contents.tensors) and contents.container == ("model",)
    assert contents.settings == {"top_k": 3, "lr": 1e-3, "nb_classes": 11}
    assert contents.skipped == {"optimizer": "dictionary of 2", "epoch": "int", "scaler": "empty",
                                "args": "an object of the training script, kept out"}


TRACE: list[str] = []  # what code of a checkpoint leaves here, if any runs


class Recorder:
    def __setstate__(self, state: dict) -> None:
        TRACE.append("state")

    def __reduce__(self):
        return build_recorder, (1,), {"depth": 12}


def build_recorder(*_: object) -> Recorder:
    TRACE.append("call")
    return Recorder()


@FORMATS
def test_no_code_of_the_file_runs(tmp_path, zipped):
    content = {"state_dict": STATE, "config": Recorder(), "table": defaultdict(int, {"x": 1}), "lr": np.float64(2)}
    path = saved(tmp_path / "script.pth", content, zipped)
    TRACE.clear()
    contents = read_contents(path)
    assert same(contents.tensors) and TRACE == []
    assert contents.skipped["config"] == "an object of the training script, kept out"
    torch.load(path, weights_only=False)  # control: an ordinary reader runs it
    assert TRACE == ["call", "state"]


class Shell:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Evaluation(Shell):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w')",)


@FORMATS
@pytest.mark.parametrize("attack, name", [(Shell, r"(posix|nt)\.system"), (Evaluation, r"builtins\.eval")])
def test_a_file_that_starts_programs_is_refused_and_starts_none(tmp_path, attack, name, zipped):
    trace = tmp_path / "trace"
    path = saved(tmp_path / "hostile.pth", {"model": STATE, "extra": attack(trace)}, zipped)
    with pytest.raises(BadCheckpoint, match=rf"asks to call {name} when opened.*nothing of it was run"):
        read_contents(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # control: the attack works on an ordinary reader
    assert trace.exists()


@pytest.mark.parametrize("content, container, found", [
    (STATE, None, ()), ({**STATE, "epoch": 3}, None, ()), ({"model": None, "module": STATE}, None, ("module",)),
    ({"model": {"state_dict": STATE}}, None, ("model", "state_dict")),
    ({"model": {"z": torch.ones(1)}, "teacher": STATE}, "teacher", ("teacher",)),
    ({"model_ema": STATE, "epoch": 1}, None, ("model_ema",)),
])
def test_weights_are_found_where_scripts_keep_them(tmp_path, content, container, found):
    contents = read_contents(saved(tmp_path / "file.pth", content), container)
    assert same(contents.tensors) and contents.container == found


@pytest.mark.parametrize("content, said", [
    ([1, 2], "holds a list and no dictionary of tensors"),
    ({"epoch": 3, "model": None}, "no tensors, but epoch, model; name the dictionary with --container"),
    ({}, "no tensors, but nothing"),
    (torch.nn.Linear(2, 2), "a whole pickled object and no dictionary"),
    (torch.ones(2), "holds a Tensor and no dictionary"),
    ({"model": {"a": torch.tensor([1.0, torch.inf])}}, "a holds NaN or infinity"),
])
def test_a_file_without_usable_weights_says_what_it_holds(tmp_path, content, said):
    path = saved(tmp_path / "file.pth", content)
    with pytest.raises(BadCheckpoint, match=said) as refused:
        read_contents(path)
    assert str(path) in str(refused.value)


def test_a_container_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadCheckpoint, match="no 'teacher', but model, epoch"):
        read_contents(saved(tmp_path / "file.pth", {"model": STATE, "epoch": 1}), "teacher")


@pytest.mark.parametrize("content, said", [
    (b"", "the file is empty"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "Git LFS pointer.*git lfs pull"),
    (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"), (b"<html><body>404", "web page"),
    (b'{"error": "Access to model is restricted"}', "JSON text"), (b"\x93NUMPY\x01\x00" + b" " * 90, "NumPy array"),
    (b"\x1f\x8b\x08\x00" + b"x" * 90, "packed archive"), (b"PK\x03\x04" + b"x" * 90, "damaged or truncated"),
    (b"\x80\x02}q\x00", "damaged or truncated"), (b"weights", "not a complete safetensors file"),
])
def test_what_is_no_checkpoint_says_what_it_is(tmp_path, content, said):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match=said) as refused:
        read_contents(path)
    assert refused.value.path == path


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_programs_archives_and_folders_are_told_apart(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(BadCheckpoint, match="TorchScript program"):
        read_contents(tmp_path / "program.pt")
    shutil.make_archive(str(tmp_path / "files"), "zip", root_dir=Path(__file__).parent, base_dir="data")
    with pytest.raises(BadCheckpoint, match="zip archive without weights"):
        read_contents(tmp_path / "files.zip")
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        archive.add(__file__, "code.py")
    with pytest.raises(BadCheckpoint, match="packed archive"):
        read_contents(tmp_path / "files.tar")
    torch.save({"model": STATE, "args": argparse.Namespace()}, tmp_path / "new.pth", pickle_protocol=4)
    with pytest.raises(BadCheckpoint, match="protocol above 2"):
        read_contents(tmp_path / "new.pth")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_contents(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read_contents(tmp_path / "nothing.pth")


@FORMATS
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, zipped, share):
    path = saved(tmp_path / "file.pth", {"model": STATE, "args": argparse.Namespace(top_k=2)}, zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadCheckpoint, match="damaged"):
        read_contents(path)


@FORMATS
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_flipped_bits_never_end_in_another_error(tmp_path, zipped):
    """A flip is refused, or it fell on bytes that hold no weight; only files from before 1.6 carry no checksum."""
    path = saved(tmp_path / "file.pth", script_container(STATE), zipped)
    whole, chance, came_out = path.read_bytes(), random.Random(0), Counter()
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            came_out["unharmed" if same(read_contents(path).tensors) else "other weights"] += 1
        except BadCheckpoint as refused:
            assert refused.path == path
            came_out["refused"] += 1
    assert came_out.total() == 150 and came_out["refused"] > 60 and came_out["unharmed"] > 20, came_out
    assert came_out["other weights"] == 0 if zipped else came_out["other weights"] < 10, came_out
    path.write_bytes(whole)
    assert same(read_contents(path).tensors), "control: the whole file opens"


def test_damaged_weights_in_a_zip_are_noticed(tmp_path):
    big = {"w": torch.arange(4000.0)}
    path = saved(tmp_path / "file.pth", big)
    content = bytearray(path.read_bytes())
    content[content.find(big["w"].numpy().tobytes()) + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="fails its checksum"):
        read_contents(path)
    assert not torch.equal(torch.load(path)["w"], big["w"])  # control: PyTorch alone reads the wrong number


def test_safetensors_open_whatever_the_length_of_their_header(tmp_path):
    for padding in range(600):  # some headers begin with the first byte of a pickle
        save_file(dict(STATE), tmp_path / "file.safetensors", metadata={"x": "y" * padding})
        if (tmp_path / "file.safetensors").read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header of the wanted length was made")
    assert same(read_contents(tmp_path / "file.safetensors").tensors)


def test_a_placeholder_can_do_nothing():
    stand_in = Placeholder(1, word=2)
    stand_in.__setstate__({"depth": 12})
    stand_in.__setstate__((1, 2))
    assert vars(stand_in) == {"depth": 12} and not callable(stand_in)
