"""Training in several processes: the same run as one process leaves, and what is left of it after any kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
from s2d_runs import config as s2d
from safetensors.torch import load_file
from test_training import finetuning, pretraining, weights

from s4d_lib import distributed
from s4d_lib.layers import adapters
from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.records import read_record
from s4d_lib.training import loop, steps
from s4d_lib.training.data import read_samples, views
from s4d_lib.training.fitting import build_classifier
from s4d_lib.training.launch import Launch, RankLost
from s4d_lib.training.runs import Run, train
from s4d_lib.training.scoring import probabilities
from s4d_lib.training.state import reached

PATIENCE = 300  # seconds; a machine that is busy with other things may take that long to start Python


def alike(one, other, steps=None):
    """Two runs took the same steps and ended in the same weights, but for rounding."""
    a, b = one.losses(), other.losses()
    assert len(a) == len(b) == (steps or len(a)) and np.array_equal(a[:, 0], b[:, 0]), "every step once, in order"
    np.testing.assert_allclose(a[:, 1], b[:, 1], rtol=2e-5)
    ours, theirs = weights(one), weights(other)
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=2e-5)


# --- who computes what -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7, 12])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_row_is_computed_once_and_the_chunks_are_those_of_one_process(count, accumulate, size):
    found = [steps.pieces(count, accumulate, rank, size) for rank in range(size)]
    assert sorted(row for pieces in found for piece in pieces for row in piece.rows) == list(range(count))
    assert len({len(pieces) for pieces in found}) == 1, "ranks meet in every micro-batch, so all need as many"
    assert all(len(piece.computed) > 0 for pieces in found for piece in pieces), "also where no row is left"
    wanted = {tuple(chunk.tolist()) for chunk in torch.arange(count).chunk(accumulate)}
    assert {tuple(piece.chunk) for pieces in found for piece in pieces} == wanted


def test_random_numbers_are_those_of_the_whole_batch():
    dropout = distributed.RowDropout(0.5)
    x = torch.arange(1.0, 31.0).view(6, 5)
    torch.manual_seed(3)
    whole = dropout(x), distributed.draw(lambda n: torch.rand(n, 4), 6)
    for rows in ((0, 1, 2), (3, 4, 5), (4, 1)):
        torch.manual_seed(3)
        with distributed.sharing(distributed.Share(rows, (), 6)):
            torch.testing.assert_close(dropout(x[list(rows)]), whole[0][list(rows)])
            assert torch.equal(distributed.draw(lambda n: torch.rand(n, 4), len(rows)), whole[1][list(rows)])
    torch.manual_seed(3)
    assert not torch.equal(dropout(x[3:]), whole[0][3:]), "control: without the share other numbers are dropped"


# --- the same run ----------------------------------------------------------------------------------------------------


@pytest.mark.spawns
def test_two_processes_make_the_run_of_one(faces, tmp_path):
    """Experts with noise and capacity, mixing, dropout, an average of weights; 6 clips and 11 stills in a step."""
    config = finetuning(faces, "moae", epochs=2, dropout=0.2, ema=0.9, experts=4, batch_stills=11, clip_norm=0.5)
    one = train(config, tmp_path / "one")
    two = train(config, tmp_path / "two", processes=2)
    alike(one, two)
    assert one.folder.name == two.folder.name, "the fingerprint knows nothing of processes"
    assert (one.record.device["processes"], two.record.device["processes"]) == (1, 2)
    for modality in ("image", "clip"):  # 8 clips and 12 stills are tested, which three batches of two ranks share out
        found = two.record.results[f"test_{modality}"]
        assert found["count"] == len(read_samples(config, modality, "test"))
    a, b = (dict(np.load(run.folder / "predictions.npz")) for run in (one, two))
    assert a.keys() == b.keys() and np.array_equal(a["clip_ids"], b["clip_ids"])
    for key in ("clip_labels", "image_labels", "clip_probabilities", "image_probabilities"):
        np.testing.assert_allclose(a[key], b[key], atol=2e-5)
    assert sorted(os.listdir(one.folder)) == sorted(os.listdir(two.folder)), "rank 0 writes what one process writes"


@pytest.mark.spawns
def test_two_nodes_pretrain_as_one_process_does(faces, tmp_path):
    """Two launchers of one rank each, that meet at an address; masks and replicated views; an uneven last batch."""
    config = pretraining(faces, epochs=1, batch_clips=5, accumulate=3)
    one = train(config, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = f"localhost:{free.getsockname()[1]}"
    with ThreadPoolExecutor(2) as pool:
        nodes = [pool.submit(train, config, tmp_path / "two", processes=Launch(1, "ddp", 2, node, meeting))
                 for node in (0, 1)]
    first, second = (node.result() for node in nodes)
    alike(one, first)
    assert first.folder == second.folder and first.record.device["processes"] == 2


@pytest.mark.spawns
def test_two_processes_keep_one_queue_of_anchors(faces, tmp_path):
    """S2D with self-distillation: every rank pushes what all have read, in the order of the batch."""
    config = s2d(faces, sdl=True, prompts=False, epochs=5, sdl_slots=3, dropout=0.2, landmarks=None, accumulate=2)
    one, two = train(config, tmp_path / "one"), train(config, tmp_path / "two", processes=2)
    alike(one, two)
    queue, again = (load_file(run.folder / "sdl.safetensors") for run in (one, two))
    assert torch.equal(queue["pushed"], again["pushed"]) and queue["pushed"].sum() > 0
    torch.testing.assert_close(queue["features"], again["features"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count, size", [(10, 3), (7, 2), (2, 3)])
def test_every_sample_is_evaluated_once_however_uneven_the_shares(faces, monkeypatch, count, size):
    """The ranks played one after the other; the last one is handed what all have found."""
    config = finetuning(faces)
    samples = read_samples(config, "clip", "train")[:count]
    dataset, model = views(config, samples, "test", 0), build_classifier(config)
    alone, labels = probabilities(model, dataset, config)
    seen, handed, get = [], [], type(dataset).batch
    monkeypatch.setattr(type(dataset), "batch", lambda self, rows: seen.extend(rows) or get(self, rows))
    monkeypatch.setattr(distributed, "size", lambda: size)
    monkeypatch.setattr(distributed, "gathered", lambda found: handed.append(found) or list(handed))
    for rank in range(size):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        again, known = probabilities(model, dataset, config)
    assert sorted(seen) == list(range(count))
    np.testing.assert_allclose(again, alone, rtol=1e-4)
    assert np.array_equal(known, labels) and np.array_equal(labels, [sample.label for sample in samples])


def test_what_cannot_be_shared_out_is_refused_before_anything_starts(faces, tmp_path):
    remedy = finetuning(faces, "joint", clip_steps=2, remedy="pcgrad")
    with pytest.raises(ValueError, match="whole batches.*processes=1"):
        train(remedy, tmp_path, processes=2)
    queues = s2d(faces, sdl=True, behaviour="reference", sdl_update_every=1, prompts=False, epochs=5)
    with pytest.raises(ValueError, match="differ between processes"):
        train(queues, tmp_path, processes=2)
    for wrong in ({"processes": 0}, {"nodes": 2}, {"method": "dp"}, {"nodes": 2, "node_rank": 2, "rendezvous": "a:1"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Launch(**wrong)


def test_the_first_tokens_of_the_whole_batch_are_served_whoever_computes_them(monkeypatch):
    """Capacity and balance loss of shares, the other rank's counts handed over; without them both are others."""
    torch.manual_seed(5)
    whole = MixtureOfAdapterExperts(24, experts=3, top_k=2, capacity_factor=0.7)
    z, layout = torch.randn(5, 7, 24), ((0, 1, 2), (3, 4))
    noise = torch.randn(5, 7, 3)
    monkeypatch.setattr(adapters, "draw", lambda make, rows: distributed.own_rows(noise))
    expected, balance, routing = whole(z), whole.balance_loss, whole.routing
    counts = torch.nn.functional.one_hot(routing.indices, 3).sum(dim=(1, 2))
    monkeypatch.setattr(adapters, "gather_rows", lambda own: counts)
    losses = []
    for rows in map(list, layout):
        with distributed.sharing(distributed.Share(tuple(rows), layout, 5)):
            torch.testing.assert_close(whole(z[rows]), expected[rows])
            assert torch.equal(whole.routing.dropped, routing.dropped[rows]) and routing.dropped.any()
            losses.append(whole.balance_loss * len(rows) / 5)
    torch.testing.assert_close(sum(losses), balance)
    monkeypatch.setattr(adapters, "gather_rows", lambda own: own[[0, 1, 1, 0, 1]])
    with distributed.sharing(distributed.Share((3, 4), layout, 5)):
        assert not torch.allclose(whole(z[3:]), expected[3:]), "control: with wrong counts others are served"


# --- what a kill leaves ----------------------------------------------------------------------------------------------


def processes_of(*words):
    """Our own descendants whose command holds one of the words, by rank."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if set(words) & set(process.cmdline()):
                found[int(process.environ().get("RANK", -1))] = process
        except psutil.Error:  # it ended while we looked
            continue
    return found


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def broken_off(monkeypatch, config, root, after):
    """Train in this process and break off between two steps."""
    step, done = loop._update, []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_update", lambda *args: step(*args) if len(done) < after and not done.append(1) else
                      signal.raise_signal(signal.SIGINT) or step(*args))
        train(config, root)


def stopped(config, root, act, processes=2):
    """Train, `act` once step 2 is in the checkpoint, and return the error; all processes must have ended."""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, config, root, processes=processes)
        while not run.done() and not any((reached(folder) or 0) > 2 for folder in root.glob("*-*")):
            time.sleep(0.05)
        seen = processes_of("s4d_lib.training.launch", "s4d_lib.training.rank")
        act()
        error = run.exception(timeout=PATIENCE)
    assert len(seen) == 3
    wait_for(lambda: not any(process.is_running() for process in seen.values()))  # nobody is left behind
    assert not list(root.glob("*/record.json")), "nothing is called done that is not"
    return error


@pytest.fixture(scope="module")
def whole(faces, tmp_path_factory):
    """A run of one process that nobody disturbed."""
    config = finetuning(faces, "dfer", epochs=5, dropout=0.1, checkpoint_minutes=1e-6)
    return config, train(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.spawns
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_a_rank_leaves_whole_steps_for_any_number_of_processes(whole, tmp_path, victim):
    config, undisturbed = whole
    error = stopped(config, tmp_path, lambda: processes_of("s4d_lib.training.rank")[victim].send_signal(signal.SIGKILL))
    assert isinstance(error, RankLost) and f"rank {victim} of 2 was killed by SIGKILL" in str(error)
    step = reached(next(tmp_path.glob("f-*")))
    assert 2 < step < 20 and f"stands at step {step}" in str(error)
    alike(undisturbed, train(config, tmp_path, processes=1 + victim))


@pytest.mark.spawns
def test_torchrun_starts_the_ranks_of_a_folder_as_well(whole, tmp_path):
    _, undisturbed = whole
    folder = tmp_path / undisturbed.folder.name
    folder.mkdir()
    shutil.copyfile(undisturbed.folder / "config.json", folder / "config.json")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
                           "s4d_lib.training.rank", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    run = Run(folder, read_record(folder / "record.json"))
    alike(undisturbed, run)
    assert run.record.device["processes"] == 2


@pytest.mark.spawns
def test_without_their_launcher_the_ranks_stop_by_themselves(whole, tmp_path):
    error = stopped(whole[0], tmp_path, lambda: processes_of("s4d_lib.training.launch")[-1].kill())
    assert isinstance(error, RankLost) and "the launcher was killed by SIGKILL" in str(error)
    assert f"stands at step {reached(next(tmp_path.glob('f-*')))}" in str(error)


@pytest.mark.spawns
def test_weights_in_parts_are_stopped_and_put_together_again(whole, tmp_path):
    """FSDP: each rank holds a part of every weight; its checkpoint is that of any other run."""
    config, undisturbed = whole
    error = stopped(config, tmp_path, lambda: processes_of("s4d_lib.training.launch")[-1].terminate(),
                    Launch(2, "fsdp"))
    assert "the launcher received SIGTERM" in str(error)
    run = train(config, tmp_path, processes=Launch(2, "fsdp"))
    alike(undisturbed, run)
    assert run.record.device["method"] == "fsdp"


IN_PARTS = """
import os, torch
from torch import distributed as dist, nn
os.environ["S4D_METHOD"] = "fsdp"
from s4d_lib import distributed
from s4d_lib.training import steps
distributed.begin(cpu=True)
torch.manual_seed(1)
model = nn.Module()
model.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
model.head = nn.Linear(6, 5)
whole = {name: p.detach().clone() for name, p in model.named_parameters()}
network = steps.LossOf(model, lambda m, kind, x: m.head(m.blocks[1](m.blocks[0](x))).square().mean())
steps.shard(network, torch.device("cpu"))
held = sum(p.to_local().numel() for p in network.parameters())
assert distributed.total([held])[0] == sum(p.numel() for p in whole.values()) and held < 70, held  # of 119
for name, p in model.named_parameters():
    assert torch.equal(steps.full(p), whole[name])
    assert torch.equal(steps.part_like(whole[name], p).to_local(), p.to_local())
x = torch.arange(24.0).view(4, 6)[2 * distributed.rank():][:2]
network("clip", x).backward()
twin = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5))
twin.load_state_dict({key.replace("blocks.", "").replace("head", "2"): value for key, value in whole.items()})
twin(torch.arange(24.0).view(4, 6)).square().mean().backward()
torch.testing.assert_close(steps.full(model.head.weight.grad), twin[2].weight.grad)
torch.testing.assert_close(steps.full(model.blocks[0].weight.grad), twin[0].weight.grad)
distributed.end()
"""


@pytest.mark.spawns
def test_parts_of_weights_and_of_gradients_make_whole_ones(tmp_path):
    (tmp_path / "parts.py").write_text(IN_PARTS)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                           str(tmp_path / "parts.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def signalled(settings, folder, number):
    """`s4d train --processes 2` goes on with a run, gets a signal two steps later; what it said and its exit code."""
    at = reached(folder)
    command = subprocess.Popen(
        [sys.executable, "-m", "s4d_lib.cli", "train", str(settings), "--processes", "2"], text=True,
        env={**os.environ, "S4D_RUNS": str(folder.parent)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: reached(folder) > at + 1 or command.poll() is not None)
    below = processes_of("s4d_lib.training.launch", "s4d_lib.training.rank")
    command.send_signal(number)
    said = command.communicate(timeout=PATIENCE)[1]
    wait_for(lambda: not any(process.is_running() for process in below.values()))
    assert len(below) == 3 and at < reached(folder) < 20 and not (folder / "record.json").exists()
    return said, command.returncode


@pytest.mark.spawns
def test_sigterm_and_sigkill_of_the_command(whole, tmp_path, monkeypatch):
    """What one process began two go on with, are asked to stop, go on, lose their caller, and one process ends it."""
    config, undisturbed = whole
    (tmp_path / "config.yaml").write_text(config.model_dump_json())  # JSON is YAML
    with pytest.raises(KeyboardInterrupt):
        broken_off(monkeypatch, config, tmp_path / "runs", after=3)
    folder = next((tmp_path / "runs").glob("f-*"))
    said, code = signalled(tmp_path / "config.yaml", folder, signal.SIGTERM)
    assert code == 130 and f"stands at step {reached(folder)}" in said
    assert signalled(tmp_path / "config.yaml", folder, signal.SIGKILL)[1] == -signal.SIGKILL
    alike(undisturbed, train(config, tmp_path / "runs"))


@pytest.mark.spawns
def test_an_unreadable_file_is_named_by_whoever_finds_it(faces, tmp_path):
    broken = tmp_path / "faces"
    shutil.copytree(faces, broken)
    config = finetuning(broken, validation=0.01, epochs=1)
    victim = read_samples(config, "clip", "train")[0].path
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(RankLost, match=f"rank [01] of 2 failed: UnreadableMedia: .*{victim.name}"):
        train(config, tmp_path / "runs", processes=2)


# --- two callers, one run --------------------------------------------------------------------------------------------

CALLER = """
import sys; from pathlib import Path
from s4d_lib.training.runs import train
from s4d_lib.training.configs import FinetuneConfig
run = train(FinetuneConfig.model_validate_json(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
print("trained to", run.record.results["updates"])
"""


@pytest.mark.spawns
def test_two_callers_of_one_run_train_it_once(faces, tmp_path):
    config = finetuning(faces, epochs=3)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    callers = [subprocess.Popen([sys.executable, "-c", CALLER, str(tmp_path / "config.json"), str(tmp_path / "runs")],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    out = [caller.communicate(timeout=PATIENCE) for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0], out
    steps = train(config, tmp_path / "runs").record.results["updates"]
    assert all(f"trained to {steps}" in said for said, _ in out)
    assert sum("fine-tuning (dfer)" in progress for _, progress in out) == 1, "the other one has trained nothing"


@pytest.mark.spawns
def test_who_comes_second_waits_and_says_so(faces, tmp_path, capsys):
    """The lock of a caller that dies is free at once: the system takes it back."""
    config = finetuning(faces, epochs=1)
    first = train(config, tmp_path)
    (first.folder / "record.json").rename(tmp_path / "kept.json")
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time; from s4d_lib.files import Lock; "
                               "lock = Lock(sys.argv[1]); lock.take(); print('has it', flush=True); time.sleep(600)",
                               str(tmp_path / ".locks" / first.folder.name / "lock")], text=True,
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == "has it\n"
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(train, config, tmp_path)
        said = ""
        while "waiting for it" not in (said := said + capsys.readouterr().out):
            time.sleep(0.05)
        assert not second.done()
        (tmp_path / "kept.json").rename(first.folder / "record.json")
        holder.kill()
        assert second.result(timeout=PATIENCE).folder == first.folder
    assert said.count("waiting for it") == 1
