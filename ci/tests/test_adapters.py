"""layers/adapters.py against a loop over tokens, and what noise and capacity do to a prediction."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from s4d_lib.layers.adapters import Adapter, MixtureOfAdapterExperts

DIM, EXPERTS, TOP_K = 12, 5, 2


def make(behaviour: str = "clean", capacity_factor: float = 1.0, seed: int = 0,
         top_k: int = TOP_K) -> MixtureOfAdapterExperts:
    torch.manual_seed(seed)
    moae = MixtureOfAdapterExperts(DIM, EXPERTS, top_k, capacity_factor, behaviour)
    for parameter in moae.parameters():
        nn.init.normal_(parameter, std=0.5)
    return moae


def silence(moae: MixtureOfAdapterExperts) -> MixtureOfAdapterExperts:
    """Turn the router noise off through its weights: softplus(-1e4) = 0."""
    nn.init.zeros_(moae.router.noise_linear.weight)
    nn.init.constant_(moae.router.noise_linear.bias, -1e4)
    return moae


def one_token_at_a_time(moae: MixtureOfAdapterExperts, z: torch.Tensor, capacity: float) -> torch.Tensor:
    """The definition: each token asks its experts in turn, and an expert that has served C tokens is full."""
    served, out = [0] * EXPERTS, torch.zeros_like(z)
    for b in range(z.shape[0]):
        for n in range(z.shape[1]):
            logits = moae.router.topkroute_linear(z[b, n])
            chosen = sorted(range(EXPERTS), key=lambda e: -logits[e].item())[:moae.router.top_k]
            total = sum(math.exp(logits[e]) for e in chosen)
            for e in chosen:
                if served[e] < capacity:
                    served[e] += 1
                    expert = moae.experts[e]
                    answer = expert.fc2(F.gelu(expert.fc1(z[b, n])))
                    out[b, n] += math.exp(logits[e]) / total * answer
    return out


def test_an_expert_is_a_bottleneck_without_a_skip():
    expert = Adapter(26)
    assert expert.fc1.weight.shape == (6, 26) and expert.fc2.weight.shape == (26, 6)  # int(26/4) = 6
    nn.init.zeros_(expert.fc2.weight)
    nn.init.zeros_(expert.fc2.bias)
    assert (expert(torch.randn(3, 26)) == 0).all(), "a skip connection would let the input through"


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("capacity_factor", [0.4, 1.0, 100.0])
def test_reference_serves_first_come_first_served(capacity_factor, top_k):
    moae = silence(make("reference", capacity_factor, top_k=top_k)).eval()
    z = torch.randn(3, 7, DIM)
    capacity = int(21 * top_k / EXPERTS * capacity_factor)
    with torch.no_grad():
        out = moae(z)
        torch.testing.assert_close(out, one_token_at_a_time(moae, z, capacity), rtol=1e-4, atol=1e-5)
        if capacity_factor == 1.0:  # control: the capacity rule is not idle here
            assert not torch.allclose(out, one_token_at_a_time(moae, z, math.inf), atol=1e-3)


def test_clean_evaluation_drops_nothing():
    moae, z = make("clean", capacity_factor=0.1).eval(), torch.randn(3, 7, DIM)
    with torch.no_grad():
        torch.testing.assert_close(moae(z), one_token_at_a_time(moae, z, math.inf), rtol=1e-4, atol=1e-5)
    assert not moae.routing.dropped.any()


def test_a_crowd_on_two_experts_serves_the_first_fifty_of_two_hundred_tokens():
    torch.manual_seed(0)
    moae = silence(MixtureOfAdapterExperts(DIM, experts=8, top_k=2, behaviour="reference")).eval()
    nn.init.zeros_(moae.router.topkroute_linear.weight)
    moae.router.topkroute_linear.bias.data = torch.tensor([9.0, 8.0, 0, 0, 0, 0, 0, 0])
    out = moae(torch.randn(2, 100, DIM)).flatten(0, 1)
    assert moae.capacity(200) == 50
    assert (out[:50].abs().sum(1) > 0).all() and (out[50:] == 0).all()
    assert torch.equal(moae.routing.dropped.flatten(0, 1).all(1), torch.arange(200) >= 50)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(batch=st.integers(1, 4), tokens=st.integers(1, 9), capacity_factor=st.floats(0.2, 3.0),
       seed=st.integers(0, 99))
def test_every_pair_is_served_or_reported_as_dropped(batch, tokens, capacity_factor, seed):
    moae = make("reference", capacity_factor, seed)
    moae(torch.randn(batch, tokens, DIM))
    gates, indices, dropped = moae.routing
    assert gates.shape == indices.shape == dropped.shape == (batch, tokens, TOP_K)
    torch.testing.assert_close(gates.sum(-1), torch.ones(batch, tokens))
    assert (gates[..., 0] >= gates[..., 1]).all(), "best first"
    capacity = moae.capacity(batch * tokens)
    for e in range(EXPERTS):
        asked = (indices == e).any(-1).flatten()
        refused = ((indices == e) & dropped).any(-1).flatten()
        assert (asked & ~refused).sum() == min(asked.sum(), capacity)
        first = asked.nonzero().flatten()[:capacity]
        assert not refused[first].any(), "an expert serves the first tokens that ask"


@settings(deadline=None, derandomize=True, max_examples=30)
@given(mates=st.integers(0, 4), place=st.integers(0, 4), seed=st.integers(0, 99))
def test_clean_predictions_do_not_depend_on_batch_mates(mates, place, seed):
    moae = make("clean", capacity_factor=0.5, seed=seed).eval()
    sample, others = torch.randn(1, 6, DIM), torch.randn(mates, 6, DIM)
    place = min(place, mates)
    batch = torch.cat([others[:place], sample, others[place:]])
    with torch.no_grad():
        torch.testing.assert_close(moae(batch)[place], moae(sample)[0], rtol=1e-4, atol=1e-5)


def test_reference_predictions_do_depend_on_batch_mates():
    moae = silence(make("reference", capacity_factor=0.5)).eval()
    sample = torch.randn(1, 6, DIM)
    last = moae(torch.cat([torch.randn(3, 6, DIM), sample]))[3]
    assert not torch.allclose(last, moae(sample)[0], atol=1e-3), "the first come take the places"


def test_when_there_is_noise():
    z = torch.randn(3, 7, DIM)
    for behaviour, training, noisy in (("reference", True, True), ("reference", False, True),
                                       ("clean", True, True), ("clean", False, False)):
        router = make(behaviour).router.train(training)
        first, second = router(z)[2], router(z)[2]
        assert torch.equal(first, second) != noisy, f"{behaviour}, training={training}"


def test_noise_has_the_learned_spread():
    router = make("reference").router
    z = torch.randn(1, 1, DIM)
    torch.manual_seed(1)
    noise = router(z.expand(1, 40_000, DIM))[2][0] - router.topkroute_linear(z)[0]
    spread = F.softplus(router.noise_linear(z))[0, 0]
    # The relative error of a standard deviation from 40 000 draws is 0.35 %.
    torch.testing.assert_close(noise.std(0), spread, rtol=0.02, atol=0)
    assert (noise.mean(0).abs() < 0.03 * spread).all()


def test_routers_and_experts_learn_without_a_balance_loss():
    moae = make("clean").train()
    moae(torch.randn(4, 9, DIM)).square().sum().backward()
    for name, parameter in moae.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_unlimited_capacity_never_drops():
    moae = make("reference", math.inf)
    moae(torch.randn(3, 7, DIM))
    assert not moae.routing.dropped.any()


def test_half_precision_routes_like_float32():
    moae, z = make("clean").eval(), torch.randn(3, 700, DIM)
    with torch.no_grad():
        full = moae(z)
        routed = moae.routing
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = moae(z)
            autocast_logits = moae.router.topkroute_linear(z)
        assert torch.equal(moae.routing.indices, routed.indices)
        torch.testing.assert_close(moae.routing.gates, routed.gates)
        torch.testing.assert_close(half, full, rtol=0.05, atol=0.1)
    # Control: a router under autocast would not have chosen the same experts.
    assert not torch.equal(autocast_logits.topk(TOP_K).indices, routed.indices)


def test_a_model_can_be_copied_between_forward_and_backward():
    moae = make("clean").train()
    moae(torch.randn(2, 5, DIM, requires_grad=True))
    assert moae.balance_loss.requires_grad, "the loss keeps its graph for the training step"
    twin = copy.deepcopy(moae)
    assert twin.balance_loss is None and twin.routing is None and moae.balance_loss is not None
    torch.testing.assert_close(twin.state_dict(), moae.state_dict())


@pytest.mark.parametrize("wrong, said", [
    ({"behaviour": "released"}, "behaviour must be one of"),
    ({"top_k": 6}, "top_k must be from 1"),
    ({"top_k": 0}, "top_k must be from 1"),
    ({"capacity_factor": 0.0}, "capacity_factor must be positive"),
    ({"capacity_factor": math.nan}, "capacity_factor must be positive"),
])
def test_a_wrong_setting_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        MixtureOfAdapterExperts(DIM, **{"experts": EXPERTS, **wrong})
