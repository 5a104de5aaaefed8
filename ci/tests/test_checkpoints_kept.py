"""state: a checkpoint that was damaged is refused by name, whatever was damaged; a loss that is not finite is told."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from s4d_lib import files
from s4d_lib.errors import Refused
from s4d_lib.training import state
from s4d_lib.training.divergence import Diverged, gradient_norm, is_finite, tell
from s4d_lib.training.loop import Job, Loop, run_job
from s4d_lib.training.plans import Mixed, Step
from s4d_lib.training.state import MetricsLog, Progressed, load_state, reached, save_state

pytestmark = pytest.mark.slow  # together a minute: left out between two edits


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    save_state(tmp_path, "mark", model, None, optimizer, None, Progressed(epoch=1, update=7, history=[{"update": 7}]))

    def load(mark="mark"):
        fresh = torch.nn.Linear(30, 20)
        return load_state(tmp_path, mark, fresh, None, torch.optim.AdamW(fresh.parameters()), None), fresh

    return tmp_path / "checkpoint.safetensors", load, model


def test_a_whole_checkpoint_comes_back(saved):
    _, load, model = saved
    where, fresh = load()
    assert where.update == 7 and torch.equal(fresh.weight, model.weight)


def test_every_flipped_bit_is_seen(saved):
    """A bit in every part of the file: lengths, header, weights, moments of the optimiser."""
    path, load, _ = saved
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 60).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(Refused, match=r"checkpoint\.safetensors: this checkpoint is damaged .*remove it"):
            load()
    path.write_bytes(content)
    assert load()[0].update == 7


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:9], lambda c: c[:-8], lambda c: b"{}",
                                    lambda c: c[:2000] + bytes(500) + c[2500:], lambda c: c + b"more"])
def test_a_cut_or_holed_checkpoint_is_named_and_nobody_counts_its_steps(saved, damage):
    path, load, _ = saved
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Refused, match=r"checkpoint\.safetensors: this checkpoint is damaged"):
        load()
    assert reached(path.parent) in (None, 7)


def test_control_without_the_checksum_other_weights_would_be_taken(saved, monkeypatch):
    path, load, model = saved
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    tensors["model.weight"][0, 0] += 1
    save_file(tensors, path, header)
    with pytest.raises(Refused, match="its checksum differs"):
        load()
    monkeypatch.setattr(state, "checksum", lambda *_: header["sha256"])
    assert not torch.equal(load()[1].weight, model.weight)
    save_file(tensors, path, {name: value for name, value in header.items() if name != "sha256"})
    with pytest.raises(Refused, match="it carries no checksum"):
        load()


def test_a_log_that_lacks_steps_of_the_checkpoint_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"update": i, "loss": 1.0}) + "\n" for i in (1, 2, 3)]
    path.write_bytes((lines[0] + "\xff\n" + lines[2]).encode("latin-1"))
    with pytest.raises(Refused, match=r"metrics\.jsonl: 1 of the 3 steps"):
        MetricsLog(path, 3, validated=set())
    path.write_text("".join(lines))
    MetricsLog(path, 3, validated=set())
    assert path.read_text() == "".join(lines)


def test_what_safetensors_leaves_is_found_and_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    for name in (".tmpYTcw7F", ".x.0123.tmp", ".tmp-of-mine", "weights.tmp", ".tmpYTcw7FG"):
        (tmp_path / name).touch()
    assert {path.name for path in files.leftovers(tmp_path)} == {".tmpYTcw7F", ".x.0123.tmp"}

    import safetensors.torch

    def full(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"No space left.*w\.safetensors") as caught:
        files.save_tensors(tmp_path / "w.safetensors", {"x": torch.zeros(1)})
    assert files.is_disk_full(caught.value)


# --- numbers that are not finite -----------------------------------------------------------------------------------


class Numbers(torch.utils.data.Dataset):
    """Sample i is the number i; the third of every epoch is given by `odd`."""

    replicate = 1

    def __init__(self, odd):
        self.odd = odd
        self.samples = [type("S", (), {"path": f"clips/{i}.mp4"}) for i in range(8)]

    def __getitem__(self, key):
        return {"x": torch.tensor(self.odd if key[1] == 5 else 1.0)}

    def __len__(self):
        return 8


def job(odd, loss):
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    return Job(model=model, groups=[{"params": list(model.parameters())}], betas=(0.9, 0.99), data=Mixed(
        {"clip": Numbers(odd)}), plan=lambda epoch: [Step("clip", (i, i + 1)) for i in (0, 2, 4, 6)],
        prepare=lambda batch, _: batch, loss=loss)


LOSSES = {"loss": (math.nan, lambda model, _, batch: model(batch["x"][:, None]).square().mean(), "the loss became nan"),
          # sqrt has no slope at 0: the loss is a number and its gradient is none
          "gradient": (0.0, lambda model, _, batch: (model(batch["x"][:, None] * 0) * 0 + batch["x"][:, None]
                                                     * model.weight * 0 + (model.weight * batch["x"][:, None])
                                                     .square()).sqrt().mean(), "the gradient became nan")}


@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_that_is_not_finite_is_not_taken_and_the_steps_before_it_are_saved(tmp_path, kind):
    odd, loss, words = LOSSES[kind]
    with pytest.raises(Diverged, match=f"step 2 .*{words}.*clips/4.mp4, clips/5.mp4; the state after 2 steps is saved"):
        run_job(job(odd, loss), Loop(epochs=1, lr=0.1, device="cpu"), tmp_path, "mark")
    assert reached(tmp_path) == 2
    fresh = torch.nn.Linear(1, 1)
    load_state(tmp_path, "mark", fresh, None, torch.optim.AdamW(fresh.parameters()), None)
    assert is_finite(fresh), "somebody can go on from it"
    told = json.loads((tmp_path / "diverged.json").read_text())
    assert told["batch"] == {"clip": ["clips/4.mp4", "clips/5.mp4"]} and told["step"] == 2


def test_weights_that_are_no_longer_finite_are_not_saved_over_good_ones(tmp_path):
    def poisoned(model, _, batch):
        if len(seen) == 2:
            model.weight.data.fill_(math.inf)
        seen.append(1)
        return model(batch["x"][:, None]).square().mean() * 0 + 1

    seen: list[int] = []
    with pytest.raises(Diverged, match="no checkpoint was written before|not finite|became nan"):
        run_job(job(1.0, poisoned), Loop(epochs=1, lr=0.1, device="cpu"), tmp_path, "mark")
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_control_numbers_that_are_finite_train_to_the_end(tmp_path):
    where = run_job(job(1.0, LOSSES["loss"][1]), Loop(epochs=2, lr=0.1, device="cpu"), tmp_path, "mark")
    assert where.update == 8 and not (tmp_path / "diverged.json").exists()


def test_the_norm_of_gradients_is_that_of_all_together():
    model = torch.nn.Linear(2, 1)
    assert float(gradient_norm(model.parameters())) == 0
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert float(gradient_norm(model.parameters())) == 5


def test_all_files_of_a_batch_are_told_and_few_are_said(tmp_path):
    names = [f"{i}.mp4" for i in range(9)]
    said = str(tell(tmp_path, "the loss became inf", 3, 1e-3, {"clip": names}, None))
    assert "0.mp4, 1.mp4, 2.mp4, 3.mp4 and 5 more, listed in" in said and "\n" not in said
    assert json.loads((tmp_path / "diverged.json").read_text())["batch"]["clip"] == names
