"""layers/mixing.py: three ways to one mixture, against a loop over tokens; none but the loop waits for the device."""

import math

import published
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from s4d_lib.checkpoints.convert import Hints, load_released
from s4d_lib.layers import mixing
from s4d_lib.layers.adapters import Adapter, MixtureOfAdapterExperts

WAYS = ("loop", "dense", "padded")  # the last has no meaning where nobody is served, or everybody
N, DIM, E = 23, 12, 5


@pytest.fixture
def forced(monkeypatch):
    """Every mixture is computed in the way that is named."""
    return lambda name: monkeypatch.setattr(mixing, "way", lambda *question: name)


def some_experts(seed: int = 0, dim: int = DIM) -> nn.ModuleList:
    torch.manual_seed(seed)
    experts = nn.ModuleList(Adapter(dim) for _ in range(E))
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.5)
    return experts


def some_routes(k: int, crowd: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Gates and experts `[n k]`; in a crowd everybody wants the same ones, and the last expert has nobody."""
    logits = torch.zeros(N, E) if crowd else torch.randn(N, E).index_fill(1, torch.tensor([E - 1]), -9.0)
    best, indices = logits.topk(k, dim=1)
    return best.softmax(1), indices


def queue(indices: torch.Tensor) -> list[list[int]]:
    """How many earlier tokens chose the same expert, counted one pair at a time."""
    seen = [0] * E
    places = [[0] * indices.shape[1] for _ in range(N)]
    for n in range(N):
        for slot, e in enumerate(indices[n].tolist()):
            places[n][slot] = seen[e]
            seen[e] += 1
    return places


def slow_mix(experts, z, gates, indices, places=math.inf, skip=()):
    """The definition: a token asks its experts one by one, and those that are full say nothing."""
    rows = []
    for n, row in enumerate(queue(indices)):
        answers = [gates[n, slot] * experts[int(indices[n, slot])](z[n])
                   for slot, rank in enumerate(row) if rank < places and (n, slot) not in skip]
        rows.append(sum(answers, torch.zeros(z.shape[1])))
    return torch.stack(rows)


@pytest.mark.parametrize("k, crowd", [(1, False), (2, False), (2, True), (E, True)])
def test_a_rank_is_the_number_of_earlier_tokens(k, crowd):
    _, indices = some_routes(k, crowd)
    assert mixing.ranks(indices, E).tolist() == queue(indices)


@pytest.mark.parametrize("name, k, places, crowd", [
    (name, *case) for name in WAYS for case in ((1, None, False), (2, None, True), (2, 6, False), (2, 6, True),
                                                (3, 1, False), (E, 9, True), (2, 0, False))
    if name != "padded" or case[1]])
def test_every_way_is_the_loop_over_tokens_with_its_gradients(forced, name, k, places, crowd):
    forced(name)
    experts, (gates, indices) = some_experts(), some_routes(k, crowd)
    z, gates, aim = torch.randn(N, DIM, requires_grad=True), gates.requires_grad_(), torch.randn(N, DIM)
    rank = dropped = None
    if places is not None:
        rank = mixing.ranks(indices, E)
        dropped = rank >= places
    leaves = [z, gates, *experts.parameters()]
    got = mixing.mix(experts, z, gates, indices, rank, dropped, places)
    wanted = slow_mix(experts, z, gates, indices, math.inf if places is None else places)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    if places == 0:
        assert (got == 0).all()
        return
    for a, b in zip(*(torch.autograd.grad((y * aim).sum(), leaves, allow_unused=True, materialize_grads=True)
                      for y in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    if places == 6:  # control: who is served matters to the oracle
        assert not torch.allclose(wanted, slow_mix(experts, z, gates, indices), atol=1e-3)


@pytest.mark.parametrize("name", WAYS)
def test_pairs_may_be_dropped_for_reasons_other_than_their_rank(forced, name):
    """As where processes share a batch: the first expert serves nobody here, the others up to six."""
    forced(name)
    experts, (gates, indices), z = some_experts(), some_routes(2), torch.randn(N, DIM)
    rank = mixing.ranks(indices, E)
    dropped = rank >= torch.tensor([0, 6, 6, 6, 6])[indices]
    gone = {(n, slot) for n, slot in dropped.nonzero().tolist()}
    wanted = slow_mix(experts, z, gates, indices, skip=gone)
    torch.testing.assert_close(mixing.mix(experts, z, gates, indices, rank, dropped, 6), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WAYS)
def test_half_precision_gives_the_same_to_its_rounding_and_keeps_the_type(forced, name):
    forced(name)
    experts, (gates, indices), z = some_experts(), some_routes(2), torch.randn(N, DIM)
    rank = mixing.ranks(indices, E)
    with torch.no_grad():
        wanted = mixing.mix(experts, z, gates, indices, rank, rank >= 6, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = mixing.mix(experts, z, gates, indices, rank, rank >= 6, 6)
        half = mixing.mix(experts.bfloat16(), z.bfloat16(), gates, indices, rank, rank >= 6, 6)
    assert got.dtype == torch.float32 and half.dtype == torch.bfloat16
    for y in (got, half.float()):
        torch.testing.assert_close(y, wanted, rtol=0.05, atol=0.1)
    assert not torch.allclose(got, wanted, rtol=1e-5, atol=1e-5), "control: it was computed in half precision"


@pytest.mark.parametrize("name, factor", [*((name, factor) for name in WAYS for factor in (0.5, 1.0)),
                                          ("loop", 100.0), ("dense", 100.0)])
@torch.no_grad()
def test_every_way_answers_as_the_released_model(forced, tmp_path, name, factor):
    state, arrays = published.reference("s4d_finetune_tiny.npz")
    torch.save(published.script_container(state, top_k=2, capacity_factor=factor, input_size=48, num_frames=6),
               tmp_path / "released.pth")
    model = load_released(tmp_path / "released.pth", hints=Hints(heads=4, behaviour="reference"))[0].eval()
    forced(name)
    for task in ("video", "image"):
        torch.testing.assert_close(model(arrays[task]), arrays[f"expect.cf{factor}.{task}_logits"], rtol=1e-5,
                                   atol=1e-5)


# --- no waiting ------------------------------------------------------------------------------------------------------


class Watching(TorchDispatchMode):
    """Refuses what has to know numbers on the host: where the device is another one, each of these waits for it."""

    WAITS = ("_local_scalar_dense", "nonzero", "bincount", "unique", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in self.WAITS):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name, places", [("loop", None), ("loop", 6), ("dense", None), ("dense", 6), ("padded", 6)])
def test_only_the_loop_waits_for_the_device(forced, name, places):
    forced(name)
    experts, (gates, indices) = some_experts(), some_routes(2)
    z = torch.randn(N, DIM, requires_grad=True)

    def step():
        rank = mixing.ranks(indices, E)
        dropped = None if places is None else rank >= places
        with Watching():
            mixing.mix(experts, z, gates, indices, rank, dropped, places).sum().backward()

    if name == "loop":  # the control: the watch sees it
        with pytest.raises(AssertionError, match="waits for the device"):
            step()
    else:
        step()


@pytest.mark.parametrize("behaviour", ["clean", "reference"])
@pytest.mark.parametrize("tokens", [20, 5000])
def test_a_step_of_the_layer_runs_where_there_are_no_numbers(monkeypatch, behaviour, tokens):
    """The device `meta` has shapes and nothing else, so whatever asks for a number fails there."""
    with torch.device("meta"):
        moae = MixtureOfAdapterExperts(768, behaviour=behaviour).train()
        z = torch.empty(2, tokens, 768, requires_grad=True)
    (moae(z).sum() + moae.balance_loss).backward()
    assert z.grad.shape == z.shape and moae.routing.dropped.shape == (2, tokens, 2)
    monkeypatch.setattr(mixing, "way", lambda *question: "loop")
    with pytest.raises((RuntimeError, NotImplementedError)):
        moae(z)


def test_which_way_is_taken(monkeypatch):
    cpu, other = torch.device("cpu"), torch.device("meta")
    for question, wanted in {
        (cpu, 64, 64, 8, None): "dense", (cpu, 800, 768, 8, None): "loop", (cpu, 800, 768, 8, 200): "loop",
        (cpu, 1024, 64, 8, 256): "padded", (cpu, 800, 192, 8, 200): "padded", (cpu, 3, 1024, 8, 0): "loop",
        (other, 64, 64, 8, 16): "dense", (other, 4096, 768, 8, 1024): "dense", (other, 65536, 768, 8, 16384): "padded",
        (other, 65536, 768, 8, None): "dense", (other, 65536, 768, 8, 65536): "dense",
    }.items():
        assert mixing.way(*question) == wanted, question
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert mixing.way(cpu, 800, 768, 8, None) == "dense" and mixing.way(cpu, 800, 768, 8, 200) == "padded"


@pytest.mark.parametrize("backend, behaviour, tokens", [("eager", "clean", 10), ("aot_eager", "reference", 400)])
def test_the_layer_compiles_as_one_graph(backend, behaviour, tokens):
    """Without a break: in training, with noise, capacity and balance loss, and its gradients are those without it."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    moae = MixtureOfAdapterExperts(64, experts=8, top_k=2, capacity_factor=0.7, behaviour=behaviour).train()
    z, found = torch.randn(2, tokens, 64), []
    for layer in (moae, torch.compile(moae, fullgraph=True, backend=backend)):
        moae.zero_grad()
        torch.manual_seed(1)
        out = layer(z)
        (out.square().sum() + moae.balance_loss).backward()
        found.append([out.detach(), moae.routing.dropped, *(p.grad.clone() for p in moae.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert found[0][1].any(), "somebody was turned away"
