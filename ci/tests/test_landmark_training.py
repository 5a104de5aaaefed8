"""lab/landmark_training.py, lab/landmark_scores.py: errors by a slow loop, floors, a short training, our file."""

from __future__ import annotations

import hashlib
import json
from math import hypot, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4d_lib.checkpoints.loading import load_model
from s4d_lib.files import RESULTS
from s4d_lib.lab import landmark_training
from s4d_lib.lab.landmark_scores import (
    ALPHAS,
    RIDGE_PIXELS,
    Located,
    error_by_yaw,
    floor_points,
    following,
    locate,
    movements,
    normalised_mean_error,
    point_errors,
    report,
)
from s4d_lib.lab.landmark_training import LandmarkConfig, conditions, hold_output, start_at, train_landmarks, wing_loss
from s4d_lib.models.landmark_net import LandmarkNet, Slopes, load_landmarks
from s4d_lib.records import Record, read_record
from s4d_lib.synthetic_faces.landmark_faces import REGIONS, DrawnFaces, Variation
from s4d_lib.weights.files import SHIPPED, save_model

# Faces that stay where they are: ten steps show learning, and what varies shows a resume that draws something else.
CALM = Variation(zoom=(1, 1), shift=0, turn=0, flip=0, grey=0.2, blur=0.3, coarse=0.2)
SHORT = LandmarkConfig(name="short", width=0.125, people=12, validation_people=12, test_people=6, floor_people=12,
                       variation=CALM, epochs=2, steps=5, batch=12, lr=5e-3, ema=None, validate_every=1, device="cpu")


# --- error and loss --------------------------------------------------------------------------------------------------


def test_the_normalised_error_is_that_of_a_slow_loop():
    rng = np.random.default_rng(5)
    true, found = (torch.from_numpy(rng.uniform(0, 112, (3, 68, 2))) for _ in range(2))
    sums, counts = dict.fromkeys(REGIONS, 0.0), dict.fromkeys(REGIONS, 0)
    for face, guess in zip(true.tolist(), found.tolist()):
        eyes = hypot(face[36][0] - face[45][0], face[36][1] - face[45][1])
        for name, part in REGIONS.items():
            for i in range(68)[part]:
                sums[name] += 100 * hypot(face[i][0] - guess[i][0], face[i][1] - guess[i][1]) / eyes
                counts[name] += 1
    expected = {"all": sum(sums.values()) / sum(counts.values())} | {name: sums[name] / counts[name] for name in sums}
    assert normalised_mean_error(found, true) == pytest.approx(expected)
    assert sum(counts.values()) == 3 * 68, "regions share no point and leave none out"
    bigger = normalised_mean_error(7 * found, 7 * true, "box")
    assert bigger == pytest.approx(normalised_mean_error(found, true, "box")), "the unit does not matter"
    with pytest.raises(ValueError, match="norm"):
        point_errors(found, true, "pupil")
    with pytest.raises(ValueError, match="68"):
        point_errors(found[:, :5], true)


def test_wing_loss_by_hand():
    joined = 10 - 10 * log(1 + 10 / 2)
    values = {0.0: 0.0, 1.0: 10 * log(1.5), -3.0: 10 * log(2.5), 12.0: 12 - joined, -40.0: 40 - joined}
    for error, expected in values.items():
        assert float(wing_loss(torch.tensor([error]))) == pytest.approx(expected, rel=1e-5)
    below, above = (float(wing_loss(torch.tensor([error]))) for error in (9.9999, 10.0001))
    assert below == pytest.approx(above, abs=1e-3), "joined without a step"


def some_points(count: int, seed: int) -> torch.Tensor:
    return torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(seed))


def test_bins_of_yaw_hold_every_face_once_and_both_sides():
    true, yaw = some_points(5, 0), torch.tensor([-4.9, 5.1, -19.0, 12.0, 0.0]).deg2rad()
    found = true + 0.01 * torch.arange(5)[:, None, None]
    rows = error_by_yaw(Located(found, true, yaw))
    assert [(row["from"], row["to"], row["faces"]) for row in rows] == [(0, 5, 2), (5, 10, 1), (10, 20, 2), (20, 31, 0)]
    by_face = 100 * point_errors(found, true).mean(1)
    assert rows[0]["nme"] == pytest.approx(float(by_face[[0, 4]].mean()))
    assert rows[2]["nme"] == pytest.approx(float(by_face[[2, 3]].mean())) and rows[3]["nme"] is None


def test_a_report_agrees_with_its_parts():
    true = some_points(40, 1)
    found = Located(true + 0.02 * some_points(40, 2), true, torch.linspace(-0.5, 0.5, 40))
    told = report(found)
    by_face = 100 * point_errors(found.found, true).mean(1)
    assert told["nme"]["all"] == pytest.approx(float(by_face.mean())) and told["faces"] == 40
    assert told["low"] < told["nme"]["all"] < told["high"] and told == report(found), "seeded"
    assert told["above_8_percent"] == pytest.approx(float((by_face > 8).float().mean()))
    assert told["first_faces"] == pytest.approx(by_face[:12].tolist(), abs=1e-3)
    assert sum(row["faces"] for row in told["by_yaw"]) == 40


def test_a_damped_face_has_a_slope_below_one():
    true = some_points(30, 3)
    mean, size = true.mean(0), (true[:, 36] - true[:, 45]).norm(dim=-1)
    expected = {"mouth open": (62, 66), "mouth wide": (48, 54)}
    for name, (one, other) in expected.items():
        torch.testing.assert_close(movements(true)[name], (true[:, one] - true[:, other]).norm(dim=-1) / size)
    raised = true.clone()
    raised[:, 17:27, 1] -= 5  # y points down; far above everything else
    assert (movements(raised)["brows up"] > movements(true)["brows up"] + 1).all()
    exact, damped = (following(Located(found, true, torch.zeros(30))) for found in (true, mean.expand_as(true)))
    for name in movements(true):
        assert exact[name] == {"correlation": pytest.approx(1), "slope": pytest.approx(1)}
        assert damped[name]["correlation"] is None and damped[name]["slope"] == pytest.approx(0, abs=1e-6)
    half = true.clone()
    half[:, 66] = (true[:, 62] + true[:, 66]) / 2  # every mouth half as open
    told = following(Located(half, true, torch.zeros(30)))
    assert told["mouth open"] == {"correlation": pytest.approx(1), "slope": pytest.approx(0.5)}
    assert told["mouth wide"] == exact["mouth wide"]


class Listed(torch.utils.data.Dataset):
    """Noise pictures, the points of which are a linear function of their grey pixels."""

    def __init__(self, count: int, seed: int, slope: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, 256, (count, 3, RIDGE_PIXELS, RIDGE_PIXELS), generator=generator, dtype=torch.uint8)
        self.grey = self.x.float().mean(1).flatten(1) / 255
        self.points = 0.3 + slope * (self.grey[:, :136] - 0.5).unflatten(1, (68, 2))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[i], "points": self.points[i], "yaw": torch.tensor(0.1 * i)}


def test_floors_are_those_of_scikit_learn(monkeypatch):
    from sklearn.linear_model import Ridge

    from s4d_lib.lab import landmark_scores

    monkeypatch.setattr(landmark_scores, "to_landmark_size", lambda x: x)  # the pixels as they are
    train, validation, test = Listed(90, 0), Listed(20, 1), Listed(11, 2)
    found = floor_points(train, validation, test)
    x, errors, guesses = train.grey.double(), {}, {}
    centre, spread = x.mean(0), x.std(0) + 1e-3
    for alpha in ALPHAS:
        model = Ridge(alpha).fit(((x - centre) / spread).numpy(), train.points.flatten(1).numpy())
        guesses[alpha], guess = (torch.from_numpy(model.predict(((part.grey.double() - centre) / spread).numpy()))
                                 .unflatten(1, (68, 2)) for part in (test, validation))
        errors[alpha] = normalised_mean_error(guess, validation.points.double())["all"]
    best = guesses[min(errors, key=errors.get)]
    torch.testing.assert_close(found["pixel_ridge"].found, best.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found["mean_face"].found, train.points.mean(0).expand(11, -1, -1))
    for located in found.values():
        assert torch.equal(located.true, test.points)
        torch.testing.assert_close(located.yaw, 0.1 * torch.arange(11))


# --- network ---------------------------------------------------------------------------------------------------------


def test_every_width_hands_on_the_same_features():
    x = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    for width in (0.125, 0.25):
        net = LandmarkNet(width).eval()
        with torch.inference_mode():
            assert net.features(x).shape == (2, 128, 14, 14) and net(x).shape == (2, 136)
        assert net.config == {"width": width}
    assert LandmarkNet().config == {}, "the released layout is described as before"
    for width in (0, 1.5):
        with pytest.raises(ValueError, match="width"):
            LandmarkNet(width)


def test_slopes_are_prelu_with_and_without_gradient():
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    own, torchs = Slopes(5).double(), nn.PReLU(5).double()
    with torch.no_grad():
        own.weight.copy_(torch.tensor([-0.3, 0.0, 0.25, 0.7, 1.2]))
    torchs.load_state_dict(own.state_dict())
    torch.testing.assert_close(own(x), torchs(x))
    with torch.no_grad():
        assert torch.equal(own(x), torchs(x))
    weight = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = (torch.autograd.grad((weight * net(x)).sum(), (x, net.weight)) for net in (own, torchs))
    torch.testing.assert_close(found, expected)


def test_the_output_begins_at_the_mean_face_and_its_norms_leave_the_mean_of_a_batch_free():
    torch.manual_seed(0)
    points = torch.rand(9, 68, 2)
    net, x = start_at(LandmarkNet(0.125), points).train(), torch.randn(4, 3, 112, 112)
    torch.testing.assert_close(net.output_layer.bn.bias.unflatten(0, (68, 2)), points.mean(0))
    away = (hold_output(net)(x).mean(0) - net.output_layer.bn.bias).abs().mean()
    pinned = (net.train()(x).mean(0) - net.output_layer.bn.bias).abs().mean()
    assert pinned < 1e-5 < 1e-3 < away, "batch statistics fix the mean position whatever is seen"
    job, _ = landmark_training.landmark_job(SHORT, Path("nowhere"))
    batch = {"x": torch.randint(0, 256, (4, 3, 112, 112), dtype=torch.uint8), "points": torch.rand(4, 68, 2)}
    ready = job.prepare(batch, np.random.default_rng(0))
    first, second = (job.loss(job.model.train(), "image", {name: v[rows] for name, v in ready.items()})
                     for rows in ([0, 1, 2, 3], [0, 0, 1, 1]))
    assert not job.model.output_layer.training and job.model.conv1.training, "every step of the training holds them"
    assert first.isfinite() and first != second


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> landmark_training.Run:
    return train_landmarks(SHORT, tmp_path_factory.mktemp("runs"))


@pytest.mark.trains
def test_a_few_steps_lower_the_loss_and_leave_a_record(trained):
    losses = trained.losses()[:, 1]
    assert len(losses) == 10 and losses[-3:].mean() < 0.9 * losses[:3].mean(), losses
    record = Record.model_validate(json.loads((trained.folder / "record.json").read_text()))
    assert record.results["test"]["nme"].keys() == {"all", *REGIONS} and record.results["test"]["faces"] == 6
    assert record.results["updates"] == 10
    assert record.data[0].counts == {"train": 12, "validation": 12, "test": 6}
    assert {"test", "book", "laboratory"} <= set(record.results)
    for name in ("test", "book", "laboratory"):
        assert set(record.results[name]["floors"]) == {"mean_face", "pixel_ridge"}
    net = load_model(trained.weights)
    assert isinstance(net, LandmarkNet) and net.config == {"width": 0.125} and not net.training
    assert not (trained.folder / "checkpoint.safetensors").exists()


@pytest.mark.trains
def test_the_record_speaks_of_the_file_in_half_precision(trained):
    file, told = trained.folder / "half.safetensors", trained.record.results
    assert told["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["file_bytes"] == file.stat().st_size < 0.7 * trained.weights.stat().st_size
    net, whole = load_landmarks(file), trained.model()
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in net.parameters())
    for name, value in whole.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(net.state_dict()[name], expected), name
    found = locate(net, conditions(SHORT, "test")["test"])
    assert normalised_mean_error(*found[:2]) == pytest.approx(told["test"]["nme"], rel=1e-5)
    assert told["test"]["nme"] != normalised_mean_error(*locate(whole, conditions(SHORT, "test")["test"])[:2])


def test_conditions_draw_other_people_in_other_pictures():
    test, train = conditions(SHORT, "test"), conditions(SHORT, "train")
    assert {name: tuple(faces[0]["x"].shape) for name, faces in test.items()} == {
        "test": (3, 112, 112), "book": (3, 64, 64), "laboratory": (3, 48, 48)}
    grey = test["laboratory"][0]["x"]
    assert torch.equal(grey[0], grey[2]) and not torch.equal(test["book"][0]["x"][0], test["book"][0]["x"][2])
    for name, faces in test.items():
        assert not torch.allclose(faces[0]["points"], train[name][0]["points"])


@pytest.mark.trains
def test_a_stopped_training_ends_in_the_same_network(trained, tmp_path, monkeypatch):
    measure, calls = landmark_training.locate, []

    def stops_after_one_epoch(*words):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return measure(*words)

    monkeypatch.setattr(landmark_training, "locate", stops_after_one_epoch)
    with pytest.raises(KeyboardInterrupt):
        train_landmarks(SHORT, tmp_path)
    assert not list(Path(tmp_path).glob("*/record.json"))
    again = train_landmarks(SHORT, tmp_path)
    whole = trained.model().state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in again.model().state_dict().items())
    assert again.losses().tolist() == trained.losses().tolist()


# --- the shipped file ------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_the_one_in_the_record():
    told = read_record(RESULTS / "landmark_net.json").results
    assert told["file_sha256"] == hashlib.sha256(SHIPPED["landmarks"].read_bytes()).hexdigest()
    faces = DrawnFaces(12, "test")
    errors = 100 * point_errors(*locate(net := load_landmarks(), faces)[:2]).mean(1)
    # Another processor may round a pixel differently, which moves points by far less than this.
    assert errors.tolist() == pytest.approx(told["test"]["first_faces"], abs=0.1)
    for parameter in net.state_dict().values():  # control: the record tells this network from a slightly damaged one
        if parameter.is_floating_point():
            parameter.mul_(1.01)
    worse = 100 * point_errors(*locate(net, faces)[:2]).mean(1)
    assert worse.tolist() != pytest.approx(told["test"]["first_faces"], abs=0.1)


def test_features_of_a_small_picture_are_those_of_the_enlarged_one():
    net, x = load_landmarks(), torch.randn(2, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(x, (112, 112), mode="bilinear", align_corners=True)
    assert torch.equal(net.features(x), net.features(large)) and net.features(x).shape == (2, 128, 14, 14)


def test_only_a_landmark_network_is_loaded_as_one(tmp_path):
    from s4d_lib.models.autoencoder import DualModalEncoder

    save_model(tmp_path / "other.safetensors", DualModalEncoder("nano"))
    with pytest.raises(TypeError, match="DualModalEncoder"):
        load_landmarks(tmp_path / "other.safetensors")
