"""analysis/routing.py against loops over tokens and planted routings; its study and its pictures."""

import json
import math

import numpy as np
import pytest
import torch
from small_moae import GRID, SIZE, B, E, K, build

from s4d_lib.analysis.rerouting import Decision
from s4d_lib.analysis.routing import (
    Routes,
    branch_size,
    entropy,
    expert_information,
    expert_layers,
    expert_load,
    observe,
    sample_load,
    summary,
    token_groups,
    token_load,
)
from s4d_lib.figures import routing
from s4d_lib.lab.routing_study import Probe, inspection, middle_frames, rules_for
from s4d_lib.models.classifier import S4DClassifier


def planted(choice: np.ndarray, grid=(1, 1, 4), experts: int = 3) -> Routes:
    """Routes with one expert a token, `choice` ints `[b blocks n]`."""
    chosen = np.eye(experts, dtype=bool)[choice]
    weights = chosen.astype(np.float32)
    return Routes(tuple(range(choice.shape[1])), grid, weights, weights, chosen, np.zeros_like(chosen))


# --- what is observed ------------------------------------------------------------------------------------------------


def test_routes_are_what_the_routers_said(clips):
    model = build()
    routes = observe(model, clips, batch=3)
    assert routes.blocks == (0, 2) and routes.grid == GRID and routes.experts == E
    assert routes.chosen.shape == (B, 2, 24, E) and (routes.chosen.sum(-1) == K).all() and not routes.dropped.any()
    with torch.no_grad():
        model(clips)
    for place, block in enumerate((0, 2)):
        gates, indices, _ = model.blocks[block].moe_layer.routing
        for b, n in ((0, 0), (3, 11), (6, 23)):
            for gate, e in zip(gates[b, n], indices[b, n]):
                assert routes.chosen[b, place, n, e]
                assert routes.weights[b, place, n, e] == pytest.approx(float(gate), abs=1e-5)
    np.testing.assert_allclose(routes.weights.sum(-1), 1, rtol=1e-5)
    best = routes.probabilities.argmax(-1)
    assert np.take_along_axis(routes.chosen, best[..., None], -1).all(), "the most probable expert is chosen"


def test_observing_leaves_no_trace(clips):
    model = build().train()
    with torch.no_grad():
        model(clips[:2])
    before, chance = model.routing(), torch.random.get_rng_state()
    observe(model, clips, "training")
    assert model.training and all(module.training for module in model.modules())
    assert all(a is b for a, b in zip(before, model.routing())) and torch.equal(chance, torch.random.get_rng_state())
    assert not any(moae.router._forward_hooks for moae in expert_layers(model).values())


def test_training_conditions_bring_noise_and_drops(clips):
    model = build()
    evaluated, training = observe(model, clips), observe(model, clips, "training")
    assert not np.array_equal(evaluated.probabilities, training.probabilities)
    assert training.dropped.any() and (training.chosen[training.dropped]).all()
    assert (training.weights[training.dropped] == 0).all()
    capacity = int(B * 24 * K / E)
    served = (training.chosen & ~training.dropped).sum((0, 2))
    assert (served <= capacity).all()
    assert summary(training)[0]["dropped"] == pytest.approx(training.dropped[:, 0].sum() / (B * 24 * K))
    again = observe(model, clips, "training")
    assert np.array_equal(training.probabilities, again.probabilities), "the same noise again"


@pytest.mark.parametrize("kind, experts, chosen", [("task", 2, 1), ("uniform", E, E), ("frozen", E, K)])
def test_every_kind_of_router_is_observed(kind, experts, chosen, clips, images):
    model = build(router=kind, experts=experts)
    for x in (images, clips):
        assert (observe(model, x).chosen.sum(-1) == chosen).all()


def test_images_and_slots(images, clips):
    model = build()
    assert observe(model, images).grid == (1, 2, 4)
    routes = observe(model, clips)
    second = routes.at_slot(1)
    assert second.grid == (1, 2, 4) and np.array_equal(second.chosen, routes.chosen[:, :, 8:16])
    with pytest.raises(ValueError, match="slots 0 to 2"):
        routes.at_slot(3)


def test_a_model_without_experts_is_refused(clips):
    with pytest.raises(ValueError, match="no block with experts"):
        observe(S4DClassifier(SIZE, {"video": 4}), clips)


def test_size_of_the_branch(clips):
    model = build()
    for moae in expert_layers(model).values():
        for expert in moae.experts:  # every expert answers a constant of length 5, so every mixture does
            for parameter in expert.parameters():
                parameter.data.zero_()
            expert.fc2.bias.data[0] = 5.0
    for block in model.blocks:
        block.mlp.fc2.weight.data.zero_()
        block.mlp.fc2.bias.data = torch.eye(12)[1] * 20.0
    assert branch_size(model, clips, batch=3) == pytest.approx({0: 0.25, 2: 0.25})


# --- counts ----------------------------------------------------------------------------------------------------------


def slow_load(routes: Routes, groups: np.ndarray, count: int) -> np.ndarray:
    table = np.zeros((count, len(routes.blocks), routes.experts))
    for b, block, n, e in zip(*routes.chosen.nonzero()):
        table[groups[b, n], block, e] += 1
    return table / np.maximum(table.sum(-1, keepdims=True), 1)


@pytest.mark.parametrize("axis, count", [("time", 3), ("height", 2), ("width", 4), (None, 24)])
def test_loads_by_place_equal_a_loop(axis, count, clips):
    routes = observe(build(), clips)
    groups = token_groups(GRID, axis)
    slow = slow_load(routes, np.broadcast_to(groups, (B, 24)), count)
    np.testing.assert_allclose(expert_load(routes, groups), slow)


def test_loads_by_class_equal_a_loop_and_missing_classes_are_nan(clips):
    routes, labels = observe(build(), clips), np.array([0, 2, 2, 0, 3, 0, 2])
    found = expert_load(routes, labels, 5)
    slow = slow_load(routes, np.broadcast_to(labels[:, None], (B, 24)), 4)
    for c in (0, 2, 3):
        np.testing.assert_allclose(found[c], slow[c])
    assert np.isnan(found[[1, 4]]).all()
    np.testing.assert_allclose(expert_load(routes), sample_load(routes)[:, 0].mean(0))


def test_load_by_gates_is_the_mean_weight(clips):
    routes = observe(build(), clips)
    np.testing.assert_allclose(expert_load(routes, of="gates"), routes.weights.mean((0, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="choices"):
        expert_load(routes, of="votes")


def test_order_of_the_grid_is_the_order_of_the_tokens():
    groups = [token_groups(GRID, axis)[0] for axis in ("time", "height", "width")]
    for n, (t, h, w) in enumerate(np.ndindex(*GRID)):
        assert [g[n] for g in groups] == [t, h, w]


def test_entropy_and_summary_of_known_loads():
    assert entropy(np.array([1.0, 0, 0, 0])) == 0 and entropy(np.full(4, 0.25)) == pytest.approx(2)
    even = planted(np.arange(12).reshape(3, 1, 4) % 3)
    one = planted(np.ones((3, 1, 4), int))
    assert summary(even)[0]["effective_experts"] == pytest.approx(3)
    row = summary(one)[0]
    assert row["effective_experts"] == row["largest_share"] == row["top_gate"] == 1 and row["router_bits"] == 0


# --- information -----------------------------------------------------------------------------------------------------


def test_information_of_planted_routings():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    tells = planted(np.repeat(labels[:, None, None], 4, 2), experts=2)
    by_place = planted(np.broadcast_to(np.arange(4) % 2, (120, 1, 4)), experts=2)
    chance = planted(rng.integers(2, size=(120, 1, 4)), experts=2)
    told = expert_information(sample_load(tells), labels, (0,))[0]
    assert told.bits == pytest.approx(1) and told.ceiling == pytest.approx(1) and told.p == pytest.approx(1 / 501)
    placed = expert_information(token_load(by_place), labels, (0,))[0]
    assert placed.bits == pytest.approx(0, abs=1e-12) and placed.p == 1, "a routing by place says nothing of the label"
    none = expert_information(token_load(chance), labels, (0,))[0]
    assert 0 < none.bits < none.high * 1.5 and none.floor > 0 and none.p > 0.01


def test_information_equals_the_textbook_formula():
    rng = np.random.default_rng(1)
    labels, choice = rng.integers(3, size=200), rng.integers(4, size=(200, 2, 1))
    choice[labels == 1, 0] = 2
    found = expert_information(token_load(planted(choice, (1, 1, 1), 4)), labels, (0, 1), draws=20)
    for block in range(2):
        joint = np.zeros((3, 4))
        np.add.at(joint, (labels, choice[:, block, 0]), 1 / 200)
        outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        bits = sum(p * math.log2(p / q) for p, q in zip(joint.ravel(), outer.ravel()) if p > 0)
        assert found[block].bits == pytest.approx(bits)


def test_a_person_is_one_observation():
    """Ten people with one label each and an expert of their own taste: ignoring people finds what is not there."""
    wrong, right = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        people = np.repeat(np.arange(10), 20)
        labels = (np.arange(10) % 2)[people]
        load = sample_load(planted(rng.integers(3, size=10)[people][:, None, None], (1, 1, 1)))
        wrong += expert_information(load, labels, (0,), draws=60)[0].p < 0.05
        right += expert_information(load, labels, (0,), people, draws=60)[0].p < 0.05
    assert wrong >= 15 and right <= 4, (wrong, right)


def test_labels_within_people_are_shuffled_within_people():
    """Every person shows both labels; the expert follows the person: nothing about the label."""
    people = np.repeat(np.arange(12), 4)
    labels = np.tile([0, 1, 1, 0], 12)
    load = sample_load(planted((people % 3)[:, None, None], (1, 1, 1)))
    assert expert_information(load, labels, (0,), people, draws=50)[0].p == 1
    load = sample_load(planted(labels[:, None, None], (1, 1, 1)))
    assert expert_information(load, labels, (0,), people, draws=50)[0].p == pytest.approx(1 / 51)


def test_loads_and_labels_must_fit():
    with pytest.raises(ValueError, match="expected"):
        expert_information(np.ones((3, 1, 2, 4)), np.zeros(4, int), (0, 1))


# --- the study and its pictures --------------------------------------------------------------------------------------


def test_an_inspection_is_plain_and_asks_every_question(clips, images):
    model = build()
    probes = {"clip": Probe(clips, np.arange(B) % 4, np.arange(B) // 2), "image": Probe(images, np.arange(9) % 3,
                                                                                       np.arange(9))}
    found = json.loads(json.dumps(inspection(model, probes, build(), draws=20), allow_nan=False))
    assert found["blocks"] == [0, 2] and found["grid"] == list(GRID)
    assert np.array(found["load"]["clip"]["class"]).shape == (4, 2, E)
    assert np.array(found["places"]["image"]).shape == (8, 2, E)
    assert all(len(rows) == 2 for rows in found["information"].values())
    assert found["start"]["load"]["clip"]["all"] == found["load"]["clip"]["all"], "the same network before and after"
    assert set(found["size"]["clip"]) == {"0", "2"}


def test_two_views_of_a_clip_are_one_sample(clips):
    two = Probe(clips[:6], np.zeros(3, int), np.arange(3), views=2)
    assert len(two) == 3 and torch.equal(two.first(2).x, clips[[0, 2]])
    assert torch.equal(middle_frames(two).x, clips[:6:2, :, 3])


def test_busiest_expert_is_that_of_the_donors(clips, images):
    model = build()
    donors = {"clip": observe(model, clips), "image": observe(model, images)}
    rules = rules_for(model, donors, "clip")
    busiest = int(donors["clip"].chosen[:, -1].sum((0, 1)).argmax())
    decision = Decision(0, torch.rand(1, 24, E), torch.rand(1, 24, E), K)
    assert rules["busiest expert only"](decision)[..., busiest].all()
    assert not rules["busiest expert silent"](decision)[..., busiest].any()


def test_pictures_are_made_and_described(clips):
    model = build()
    routes = observe(model, clips)
    load = expert_load(routes, np.array([0, 2, 2, 0, 3, 0, 2]), 5)
    information = [one.as_dict() for one in expert_information(sample_load(routes), np.arange(B) % 2, (0, 2), draws=20)]
    effect = {"off": {"value": -1.0, "low": -2.0, "high": 0.5}}
    drawn = [
        routing.draw_loads({"block 0": load[:, 0], "block 2": load[:, 1]}, list("abcde"), "title"),
        routing.draw_places(expert_load(routes, token_groups(GRID)), GRID, (0, 2), "title"),
        routing.draw_information({"class": information}, "title"),
        routing.draw_effects({"clip": effect, "image": effect}, "title"),
        routing.draw_dial({"clips": ([1, 2], [3, 4])}, "title", "dial", "loss", {"ours": 1.5}),
    ]
    assert all(len(figure.layout.meta["alt"]) > 30 and figure.data for figure in drawn)
    assert list(drawn[0].data[0].text[1]) == [""] * E, "an empty class stays white"
    frames = np.zeros((3, 8, 16, 3), np.uint8)
    picture = routing.draw_clip_map(frames, routes.weights[0].argmax(-1).reshape(2, *GRID), scale=1)
    assert picture.size == (3 * 16, 3 * 8)
