"""Controls: planted faults of a GPU step that the fake accelerator must refuse, and what lets them pass without it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from fake_accelerator import FakeAccelerator, Waits
from fake_dtypes import Dtypes, WrongDtype, fake_cpu
from fake_stages import (
    ALLOWED,
    ANSWERS,
    NoOptimizer,
    Stepper,
    answering,
    batch_of,
    finetuning,
    job_of,
    optimizer_of,
    specks,
    take_step,
)
from torch import Tensor, nn

from s4d_lib.layers import heads, losses
from s4d_lib.models import classifier
from s4d_lib.training import jobs
from s4d_lib.training import loop as training_loop

FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "cpu": lambda x: x + 0 * x.detach().cpu().to(x.device),
    "to cpu": lambda x: x.to("cpu").to(x.device),
    "copy into a CPU tensor": lambda x: x + torch.empty(x.shape).copy_(x.detach()).to(x.device),
    "numpy": lambda x: x + float(x.detach().numpy().mean()),
    "cpu numpy": lambda x: x + float(x.detach().cpu().numpy().mean()),
    "tolist": lambda x: x + x.tolist()[0][0],
    "item": lambda x: x * x.mean().item(),
    "float": lambda x: x * float(x.mean()),
    "int": lambda x: x[: int(x.argmax())],
    "if": lambda x: x if x.sum() > 0 else -x,
    "assert": lambda x: x if torch.isfinite(x).all() else x,
    "any": lambda x: x * any(x[0] > 0),
    "equal": lambda x: x * torch.equal(x, x),
    "allclose": lambda x: x * torch.allclose(x, x),
    "nonzero": lambda x: x + x.nonzero().shape[0],
    "mask": lambda x: x + x[x > 0].sum(),
    "mask written": lambda x: x.clone().index_put_((x > 0,), x.new_ones(()).expand(1)),
    "where of one": lambda x: x + torch.where(x > 0)[0].sum(),
    "masked_select": lambda x: x + x.masked_select(x > 0).sum(),
    "unique": lambda x: x + x.unique().sum(),
    "bincount": lambda x: x + torch.bincount(x.argmax(1)).sum(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.argmax(1), dim=0),
    "slice by a number of the device": lambda x: x[:, : x.argmax()],
    "CPU tensor": lambda x: x + torch.tensor([1.0] * x.shape[1]),
    "CPU number": lambda x: x + torch.tensor(1.0),
    "CPU arange": lambda x: x + torch.arange(x.shape[1]),
    "CPU noise": lambda x: x + torch.randn(x.shape),
    "float64": lambda x: (x * torch.tensor(np.ones(x.shape[1]), device=x.device)).float(),
    "double": lambda x: x.double().float(),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    specks(monkeypatch)


def train(modality: str = "clip", allowed: dict[str, int] = ALLOWED, watched: bool = True, **settings: object) -> None:
    config = finetuning("speck", settings.pop("mode", "joint"), **settings)
    with FakeAccelerator() as device:
        job, loop = job_of(config)
        job.model.to(device.name)
        batch = batch_of(config, modality)
        with device.step(allowed) as guard:
            guard.watching = watched
            take_step(job, loop, modality, batch, Stepper(device.name), NoOptimizer())


def answer(**settings: object) -> None:
    config = finetuning("speck", "joint", **settings)
    with FakeAccelerator() as device:
        model = job_of(config)[0].model.to(device.name).eval()
        with device.step(ANSWERS):
            answering(model, device.name)(batch_of(config, "clip", 1)["x"][0])


def test_without_a_fault() -> None:
    """The steps that the faults below are planted in."""
    train()
    train(mode="moae")
    answer()


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_a_layer(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted where both training and inference pass; the message names the operation's place."""
    whole = heads.pool_latents
    monkeypatch.setattr(classifier, "pool_latents", lambda *given: FAULTS[fault](whole(*given)))
    with pytest.raises(Waits, match=r"models/classifier.py::S4DClassifier._pool line \d+"):
        train()
    with pytest.raises(Waits, match="models/classifier.py"):
        answer()


@pytest.mark.parametrize("fault", ["cpu", "to cpu", "CPU number", "double", "mask written"])
def test_control_without_the_guard(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FakeTensorMode by itself lets these pass: the guard is what refuses them."""
    whole = heads.pool_latents
    monkeypatch.setattr(classifier, "pool_latents", lambda *given: FAULTS[fault](whole(*given)))
    train(watched=False)


@pytest.mark.parametrize("place", ["plain attribute", "module in a list", "buffer made in forward"])
def test_part_left_on_the_cpu(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `.to(device)` does not move."""
    begin, pool = classifier.S4DClassifier.__init__, classifier.S4DClassifier._pool

    def init(self: nn.Module, *given: object, **named: object) -> None:
        begin(self, *given, **named)
        self.scale, self.hidden = torch.ones(self.num_features), [nn.Linear(self.num_features, self.num_features)]

    def planted(self: nn.Module, latents: Tensor) -> Tensor:
        x = pool(self, latents)
        return (x * self.scale if place == "plain attribute" else self.hidden[0](x) if place == "module in a list" else
                x + torch.zeros(x.shape[-1]))

    monkeypatch.setattr(classifier.S4DClassifier, "__init__", init)
    monkeypatch.setattr(classifier.S4DClassifier, "_pool", planted)
    with pytest.raises(Waits, match="mixes devices"):
        train()


@pytest.mark.parametrize("where", ["loss", "prepare", "loop"])
def test_fault_in_the_step(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the model: in the loss, in what a batch is made of, and a second look where one is allowed."""
    if where == "loss":
        monkeypatch.setattr(jobs, "soft_target_cross_entropy",
                            lambda x, y: losses.soft_target_cross_entropy(x, y) * (1 if x.max() > 0 else 1))
    elif where == "prepare":
        whole = jobs.MixupCutmix.__call__
        monkeypatch.setattr(jobs.MixupCutmix, "__call__",
                            lambda self, x, y, rng: whole(self, x, y.cpu().to(y.device), rng))
    else:
        whole = training_loop.gradient_norm
        monkeypatch.setattr(training_loop, "gradient_norm", lambda model: whole(model) + 0)
        train()
        train(allowed=ALLOWED | {"training/loop.py::_update": 1})
        with pytest.raises(Waits, match="_update"):
            train(allowed=ALLOWED | {"training/loop.py::_update": 0})
        return
    with pytest.raises(Waits):
        train()


def narrow(loss: Callable) -> Callable:
    """A loss whose numbers stay as wide as the model made them."""
    return lambda logits, targets: -(logits.log_softmax(-1) * targets.to(logits.dtype)).sum(-1).mean()


DTYPES = {
    "bfloat16 loss": (jobs, "soft_target_cross_entropy", narrow),
    "float64 loss": (jobs, "soft_target_cross_entropy", lambda whole: lambda x, y: whole(x, y).double().float()),
    "float64 features": (classifier, "pool_latents", lambda whole: lambda *given: whole(*given).double().float()),
    "bfloat16 mean": (classifier, "pool_latents",
                      lambda whole: lambda x, norm, *rest: norm(x.bfloat16().mean(1).float())),
}


@pytest.mark.parametrize("fault", DTYPES)
def test_wrong_dtype(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast a step computes in bfloat16 and adds up in float32; nothing is float64."""
    def step() -> None:
        config = finetuning("speck", "dfer")
        with fake_cpu():
            job, loop = job_of(config)
            with Dtypes():
                take_step(job, loop, "clip", batch_of(config, "clip"), Stepper("cpu", torch.bfloat16),
                          optimizer_of(job))

    step()
    module, name, plant = DTYPES[fault]
    monkeypatch.setattr(module, name, plant(getattr(module, name)))
    with pytest.raises(WrongDtype, match=r"line \d+"):
        step()


def test_nothing_fake_stays_behind() -> None:
    """Tensors that the library keeps in caches are real again afterwards."""
    from s4d_lib.frames.local_contrast import local_contrast

    with FakeAccelerator() as device:
        local_contrast(torch.zeros(1, 8, 8, 3, dtype=torch.uint8, device=device.name))
    assert local_contrast(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).float().mean().item() == 128
