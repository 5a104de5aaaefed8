"""Training in several processes: the same run as one process leaves, and what is left of it after any kill."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
from test_training import finetuning, interrupted, pretraining, weights

from s4d_lib import ranks
from s4d_lib.launch import Launch, RankLost
from s4d_lib.run_state import reached
from s4d_lib.runs import read_samples, train


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
    found = [ranks.pieces(count, accumulate, rank, size) for rank in range(size)]
    assert sorted(row for pieces in found for piece in pieces for row in piece.rows) == list(range(count))
    assert len({len(pieces) for pieces in found}) == 1, "ranks meet in every micro-batch, so all need as many"
    assert all(len(piece.computed) > 0 for pieces in found for piece in pieces), "also where no row is left"
    wanted = {tuple(chunk.tolist()) for chunk in torch.arange(count).chunk(accumulate)}
    assert {tuple(piece.chunk) for pieces in found for piece in pieces} == wanted


def test_random_numbers_are_those_of_the_whole_batch():
    dropout = ranks.RowDropout(0.5)
    x = torch.arange(1.0, 31.0).view(6, 5)
    torch.manual_seed(3)
    whole = dropout(x), ranks.draw(lambda n: torch.rand(n, 4), 6)
    for rows in ((0, 1, 2), (3, 4, 5), (4, 1)):
        torch.manual_seed(3)
        with ranks.sharing(ranks.Share(rows, (), 6)):
            torch.testing.assert_close(dropout(x[list(rows)]), whole[0][list(rows)])
            assert torch.equal(ranks.draw(lambda n: torch.rand(n, 4), len(rows)), whole[1][list(rows)])
    torch.manual_seed(3)
    assert not torch.equal(dropout(x[3:]), whole[0][3:]), "control: without the share other numbers are dropped"


# --- the same run ----------------------------------------------------------------------------------------------------


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


# --- what a kill leaves ----------------------------------------------------------------------------------------------


def processes_of(word):
    """Our own descendants whose command holds the word, by rank."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if word in process.cmdline():
                found[int(process.environ().get("RANK", -1))] = process
        except psutil.Error:  # it ended while we looked
            continue
    return found


def stopped(config, root, act, processes=2):
    """Train, `act` once step 2 is in the checkpoint, and return the error; all processes must have ended."""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, config, root, processes=processes)
        while not run.done() and not any((reached(folder) or 0) > 2 for folder in root.glob("*-*")):
            time.sleep(0.05)
        seen = processes_of("s4d_lib.launch")
        act()
        error = run.exception(timeout=120)
    assert len(seen) == 3 and not any(process.is_running() for process in seen.values()), "nobody is left behind"
    assert not list(root.glob("*/record.json")), "nothing is called done that is not"
    return error


@pytest.fixture(scope="module")
def whole(faces, tmp_path_factory):
    """A run of one process that nobody disturbed."""
    config = finetuning(faces, "dfer", epochs=5, dropout=0.1, checkpoint_minutes=1e-6)
    return config, train(config, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_a_rank_leaves_whole_steps_for_any_number_of_processes(whole, tmp_path, victim):
    config, undisturbed = whole
    error = stopped(config, tmp_path, lambda: processes_of("rank")[victim].send_signal(signal.SIGKILL))
    assert isinstance(error, RankLost) and f"rank {victim} of 2 was killed by SIGKILL" in str(error)
    step = reached(next(tmp_path.glob("f-*")))
    assert 2 < step < 20 and f"stands at step {step}" in str(error)
    alike(undisturbed, train(config, tmp_path, processes=1 + victim))


def test_weights_in_parts_are_stopped_and_put_together_again(whole, tmp_path):
    """FSDP: each rank holds a part of every weight; its checkpoint is that of any other run."""
    config, undisturbed = whole
    error = stopped(config, tmp_path, lambda: processes_of("agent")[-1].terminate(), Launch(2, "fsdp"))
    assert "the launcher received SIGTERM" in str(error)
    run = train(config, tmp_path, processes=Launch(2, "fsdp"))
    alike(undisturbed, run)
    assert run.record.device["method"] == "fsdp"


IN_PARTS = """
import os, torch
from torch import distributed as dist, nn
os.environ["S4D_METHOD"] = "fsdp"
from s4d_lib import ranks
ranks.begin(cpu=True)
torch.manual_seed(1)
model = nn.Module()
model.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
model.head = nn.Linear(6, 5)
whole = {name: p.detach().clone() for name, p in model.named_parameters()}
network = ranks.LossOf(model, lambda m, kind, x: m.head(m.blocks[1](m.blocks[0](x))).square().mean())
ranks.shard(network, torch.device("cpu"))
held = sum(p.to_local().numel() for p in network.parameters())
assert ranks.total([held])[0] == sum(p.numel() for p in whole.values()) and held < 70, held  # of 119
for name, p in model.named_parameters():
    assert torch.equal(ranks.full(p), whole[name])
    assert torch.equal(ranks.part_like(whole[name], p).to_local(), p.to_local())
x = torch.arange(24.0).view(4, 6)[2 * ranks.rank():][:2]
network("clip", x).backward()
twin = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5))
twin.load_state_dict({key.replace("blocks.", "").replace("head", "2"): value for key, value in whole.items()})
twin(torch.arange(24.0).view(4, 6)).square().mean().backward()
torch.testing.assert_close(ranks.full(model.head.weight.grad), twin[2].weight.grad)
torch.testing.assert_close(ranks.full(model.blocks[0].weight.grad), twin[0].weight.grad)
ranks.end()
"""


def test_parts_of_weights_and_of_gradients_make_whole_ones(tmp_path):
    (tmp_path / "parts.py").write_text(IN_PARTS)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                           str(tmp_path / "parts.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_sigterm_to_the_launcher_stops_both_ranks_after_one_whole_step(whole, tmp_path, monkeypatch):
    """What one process began, two go on with, are stopped, and one process ends."""
    config, undisturbed = whole
    shutil.rmtree(tmp_path / "f", ignore_errors=True)
    error = stopped(config, tmp_path, lambda: processes_of("agent")[-1].terminate())
    assert isinstance(error, RankLost) and "the launcher received SIGTERM" in str(error)
    alike(undisturbed, interrupted(monkeypatch, config, tmp_path, after=2))
