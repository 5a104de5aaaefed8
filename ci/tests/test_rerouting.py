"""analysis/rerouting.py: rules whose effect on the weights is known, and effects against plain forward passes."""


import numpy as np
import pytest
import torch
from small_moae import B, E, K, build
from torch.nn import functional as F

from s4d_lib.analysis.rerouting import (
    answers_under,
    borrowed,
    effects,
    equal_gates,
    fixed,
    no_experts,
    only,
    probabilities,
    random_experts,
    rerouted,
    silent,
    standard_rules,
    unchanged,
    uniform,
)
from s4d_lib.analysis.routing import observe
from s4d_lib.models.classifier import S4DClassifier

# --- rules -----------------------------------------------------------------------------------------------------------


def slow_branch(model: S4DClassifier, block: int, z: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(z)
    for b, n, e in np.ndindex(*weights.shape):
        out[b, n] += weights[b, n, e] * model.blocks[block].moe_layer.experts[e](z[b, n])
    return out


@torch.no_grad()
def test_a_rule_mixes_the_experts_by_its_weights(clips):
    model, z = build(), torch.randn(2, 24, 12)
    table = torch.rand(2, 24, E)
    with rerouted(model, lambda decision: table):
        torch.testing.assert_close(model.blocks[2].moe_layer(z), slow_branch(model, 2, z, table), rtol=1e-4, atol=1e-4)
    plain = model(clips)
    with rerouted(model, unchanged):
        torch.testing.assert_close(model(clips), plain, rtol=1e-4, atol=1e-5)
    with rerouted(model, no_experts, blocks=(2,)):
        assert (model.blocks[2].moe_layer(z) == 0).all() and model.blocks[0].moe_layer(z).abs().sum() > 0
    torch.testing.assert_close(model(clips), plain, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"\[1\] have no experts"), rerouted(model, unchanged, blocks=(1,)):
        pass


@torch.no_grad()
def test_unchanged_keeps_the_drops_of_the_reference_behaviour(clips):
    model = build("reference")
    torch.manual_seed(5)
    plain = model(clips)
    assert any(routing.dropped.any() for routing in model.routing())
    torch.manual_seed(5)
    with rerouted(model, unchanged):
        torch.testing.assert_close(model(clips), plain, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def seen_weights(model: S4DClassifier, x: torch.Tensor, rule) -> dict[int, torch.Tensor]:
    kept = {}

    def spy(decision):
        kept[decision.block] = rule(decision)
        return kept[decision.block]

    with rerouted(model, spy):
        model(x)
    return kept


def test_what_the_rules_do_to_the_weights(clips):
    model = build()
    before = seen_weights(model, clips, unchanged)[0]
    assert (seen_weights(model, clips, uniform)[0] == 1 / E).all()
    alone = seen_weights(model, clips, only(3))[0]
    assert (alone[..., 3] == 1).all() and alone.sum() == B * 24
    even = seen_weights(model, clips, equal_gates)[0]
    assert torch.equal(even > 0, before > 0) and torch.allclose(even[even > 0], torch.tensor(1 / K))
    hole = seen_weights(model, clips, silent(1))[0]
    assert (hole[..., 1] == 0).all() and torch.equal(hole[..., 2], before[..., 2])
    shuffled = seen_weights(model, clips, random_experts(3))[0]
    torch.testing.assert_close(shuffled.sort(-1).values, before.sort(-1).values)
    assert not torch.equal(shuffled, before)
    torch.testing.assert_close(seen_weights(model, clips, random_experts(3))[0], shuffled)


def test_next_best_equals_a_model_that_never_had_the_expert(clips):
    model = build()
    found = seen_weights(model, clips, silent(1, "next"))[0]
    expected = seen_weights(model, clips, unchanged)
    with torch.no_grad():
        tokens = model.patch_embed(clips) + model.positions
        block = model.blocks[0]
        y = tokens + block.attn(block.norm1(tokens))
        logits = block.moe_layer.router(block.norm2(y))[2]
    logits[..., 1] = -1e9
    best, indices = logits.topk(K)
    slow = torch.zeros_like(found).scatter(-1, indices, F.softmax(best, -1))
    torch.testing.assert_close(found, slow, rtol=1e-4, atol=1e-5)
    untouched = expected[0][..., 1] == 0
    torch.testing.assert_close(found[untouched], expected[0][untouched], rtol=1e-4, atol=1e-5)


def test_fixed_gates_are_means(clips, images):
    model = build()
    own, other = observe(model, clips), observe(model, images)
    flat = seen_weights(model, clips, fixed(own))
    np.testing.assert_allclose(flat[2][3, 5].numpy(), own.weights[:, 1].mean((0, 1)), rtol=1e-4)
    placed = seen_weights(model, clips, fixed(own, by_place=True))
    np.testing.assert_allclose(placed[0][4].numpy(), own.weights[:, 0].mean(0), rtol=1e-4)
    foreign = seen_weights(model, clips, fixed(other, by_place=True))[0][0].unflatten(0, (3, 8))
    for slot in foreign:
        np.testing.assert_allclose(slot.numpy(), other.weights[:, 0].mean(0), rtol=1e-4)
    still = seen_weights(model, images, fixed(own, by_place=True))[0][0]
    np.testing.assert_allclose(still.numpy(), own.weights[:, 0, :8].mean(0), rtol=1e-4)


def test_borrowed_routes_come_from_one_donor_in_all_blocks(clips, images):
    model = build()
    donors = observe(model, images)
    found = {block: w.unflatten(1, (3, 8)) for block, w in seen_weights(model, clips, borrowed(donors, 4)).items()}
    who = [int(np.abs(donors.weights[:, 0] - found[0][b, 0].numpy()).sum((1, 2)).argmin()) for b in range(B)]
    assert len(set(who)) > 1
    for b, donor in enumerate(who):
        for slot in range(3):
            np.testing.assert_array_equal(found[0][b, slot].numpy(), donors.weights[donor, 0])
            np.testing.assert_array_equal(found[2][b, slot].numpy(), donors.weights[donor, 1])


def test_borrowing_ones_own_route_changes_nothing(clips):
    model = build()
    one = clips[:1]
    routes = observe(model, one)
    np.testing.assert_allclose(probabilities(model, one, borrowed(routes)), probabilities(model, one), atol=1e-5)


# --- effects ---------------------------------------------------------------------------------------------------------


def test_effects_are_paired_differences(clips):
    model, labels = build(), np.arange(B) % 4
    found = effects(model, clips, labels, {"unchanged": unchanged, "off": no_experts}, people=np.arange(B) // 2)
    same = found["unchanged"]
    assert same.accuracy.value == same.switched.value == 0 and abs(same.confidence.value) < 1e-3
    with torch.no_grad(), rerouted(model, no_experts):
        off = model(clips).double().softmax(-1).numpy()
    plain = probabilities(model, clips)
    hits = (off.argmax(1) == labels).mean() - (plain.argmax(1) == labels).mean()
    assert found["off"].accuracy.value == pytest.approx(100 * hits)
    assert found["off"].switched.value == pytest.approx(100 * (off.argmax(1) != plain.argmax(1)).mean())
    row = np.arange(B)
    assert found["off"].confidence.value == pytest.approx(100 * (off - plain)[row, labels].mean())
    assert found["off"].confidence.low <= found["off"].confidence.value <= found["off"].confidence.high
    with pytest.raises(ValueError, match="belong together"):
        effects(model, clips, labels[1:], {})


def test_views_of_a_sample_count_by_their_mean(clips):
    model = build()
    two = probabilities(model, clips[:6], views=2, batch=1)
    np.testing.assert_allclose(two, probabilities(model, clips[:6]).reshape(3, 2, 4).mean(1), atol=1e-6)


def test_the_standard_rules_run_on_both_modalities(clips, images):
    model = build()
    routes = {"clip": observe(model, clips), "image": observe(model, images)}
    for own, other, x in (("clip", "image", clips), ("image", "clip", images)):
        rules = standard_rules(model, routes[own], routes[other])
        assert len(rules) == 10 + 3 * E
        given = answers_under(model, x, rules)
        assert all(answer.dtype == np.uint8 and answer.shape == (len(x),) for answer in given.values())
        np.testing.assert_array_equal(given["unchanged"], probabilities(model, x).argmax(1))
