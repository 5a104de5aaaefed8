"""analysis/gradients.py, analysis/interference.py: gradients against functional autograd, steps against torch.optim."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from s4d_lib.analysis.gradients import compare, conflict, shared_parameters, task_gradients
from s4d_lib.analysis.interference import Moment, adam_interference, adam_step, affinity, moments
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

SIZE = Size(image_size=(16, 24), frames=4, patch=8, tubelet=2, dim=12, depth=3, heads=2, decoder_dim=8,
            decoder_depth=1, decoder_heads=2, positions="separable")
CLASSES = {"image": 3, "video": 5}


def make(seed: int = 0, **more) -> S4DClassifier:
    torch.manual_seed(seed)
    model = S4DClassifier(SIZE, CLASSES, **({"moae_blocks": (1, 2), "experts": 3, "dropout": 0.3} | more))
    with torch.no_grad():  # larger than the paper's start, so that gradients reach everything
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.train()


def stills(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose class is their brightest colour: something that a gradient can find."""
    chance = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3  # class counts that vary by chance would be a task of their own
    x = torch.randn(count, 3, 16, 24, generator=chance)
    for i, label in enumerate(y):
        x[i, label] += 2.0
    return x, y


def clips(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 4, 16, 24, generator=chance)
    return x, torch.randint(5, (count,), generator=chance)


def both(seed: int = 0) -> dict:
    return {"image": stills(7, seed), "video": clips(5, seed + 100)}


# --- gradients --------------------------------------------------------------------------------------------------------


def test_groups_hold_every_shared_parameter_once_and_no_head():
    model = make()
    groups = shared_parameters(model)
    assert list(groups) == ["embed", "block 0", "block 1", "block 1 router", "block 1 experts", "block 2",
                            "block 2 router", "block 2 experts", "norm"]
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(n for n, _ in model.named_parameters() if not n.startswith("head."))
    assert list(shared_parameters(model, "all")["shared"]) == [
        n for n, _ in model.named_parameters() if not n.startswith("head.")]
    assert set(groups["norm"]) == {"fc_norm.weight", "fc_norm.bias"}


def test_frozen_parameters_leave_and_nothing_to_share_is_refused():
    model = make()
    model.patch_embed.requires_grad_(False)
    assert "embed" not in shared_parameters(model)
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith("head."))
    with pytest.raises(ValueError, match="share nothing"):
        shared_parameters(model)
    with pytest.raises(ValueError, match="'block' or 'all'"):
        shared_parameters(make(), "layer")


def test_gradients_equal_those_of_functional_autograd():
    model, batches = make(), both()
    found = task_gradients(model, batches)
    model.eval()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    for task, (x, y) in batches.items():

        def loss(w, x=x, y=y):
            return -torch.func.functional_call(model, w, (x,)).log_softmax(-1).gather(1, y[:, None]).mean()

        gradients, value = torch.func.grad_and_value(loss)(weights)
        assert found.losses[task] == pytest.approx(float(value), rel=1e-5)
        for name, g in found.named(task).items():
            torch.testing.assert_close(g, gradients[name], rtol=1e-4, atol=1e-6)
        for group, names in found.members.items():
            expected = torch.cat([gradients[name].flatten() for name in names])
            torch.testing.assert_close(found.flat[task][group], expected, rtol=1e-4, atol=1e-6)
    assert found.matrix("block 1").shape == (2, sum(found.shapes[n].numel() for n in found.members["block 1"]))


def test_a_batch_in_chunks_has_the_same_gradient():
    model, batches = make(), both()
    whole, parts = task_gradients(model, batches), task_gradients(model, batches, chunk=3)
    for task in batches:
        assert parts.losses[task] == pytest.approx(whole.losses[task], rel=1e-5)
        for group in whole.groups:
            torch.testing.assert_close(parts.flat[task][group], whole.flat[task][group], rtol=1e-4, atol=1e-6)


def test_measuring_leaves_no_trace():
    """Not in .grad, not in the caller's chance, not in the modes, not in what the routers recorded."""
    model = make(behaviour="reference")
    model.fc_norm.eval()
    kept = torch.ones_like(model.fc_norm.weight)
    model.fc_norm.weight.grad = kept
    model(stills(4, 9)[0])
    routing, balance, chance = model.routing(), model.balance_loss(), torch.random.get_rng_state()
    with torch.no_grad():  # also from inside a validation
        first = task_gradients(model, both())
    assert torch.equal(torch.random.get_rng_state(), chance)
    assert model.fc_norm.weight.grad is kept and all(p.grad is None for n, p in model.named_parameters()
                                                     if n != "fc_norm.weight")
    assert model.training and not model.fc_norm.training and model.dropout.training
    assert all(a is b for a, b in zip(model.routing(), routing)) and torch.equal(model.balance_loss(), balance)
    again, other = task_gradients(model, both()), task_gradients(model, both(), seed=1)
    assert torch.equal(first.matrix("embed"), again.matrix("embed")), "noise is seeded"
    assert not torch.equal(first.matrix("embed"), other.matrix("embed")), "control: released routers are noisy"


def test_double_weights_give_float32_gradients_and_a_broken_loss_is_named():
    model = make().double()
    x, y = stills(4, 0)
    assert task_gradients(model, {"image": (x.double(), y)}, "all").flat["image"]["shared"].dtype == torch.float32
    with pytest.raises(FloatingPointError, match="image"):
        task_gradients(make(), {"image": (torch.full_like(x, math.nan), y)})


# --- two gradients ----------------------------------------------------------------------------------------------------


def test_identical_tasks_agree_and_a_negated_loss_opposes():
    x, y = stills(6, 0)

    def loss(model, task, x, y):
        return {"same": 1.0, "negated": -2.0}.get(task, 1.0) * F.cross_entropy(model(x), y)

    found = task_gradients(make(), {task: (x, y) for task in ("one", "same", "negated")}, loss=loss)
    for group in found.groups:
        one, same, negated = found.matrix(group)
        assert compare(one, same) == pytest.approx((1, 1, 1, 0))
        assert compare(one, negated) == pytest.approx((-1, 0.5, 0.8, 1))


@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
@settings(max_examples=40, deadline=None)
def test_comparison_of_two_vectors(seed, scale, other):
    a, b = torch.randn(2, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pair, scaled, swapped = compare(a, b), compare(scale * a, other * b), compare(b, a)
    assert scaled.cosine == pytest.approx(pair.cosine) and scaled.opposed == pair.opposed
    assert scaled.ratio == pytest.approx(pair.ratio * scale / other)
    assert swapped.cosine == pytest.approx(pair.cosine) and swapped.similarity == pytest.approx(pair.similarity)
    assert swapped.ratio == pytest.approx(1 / pair.ratio)
    lengths = a.norm(), b.norm()
    assert pair.similarity == pytest.approx(float(2 * lengths[0] * lengths[1] / (a @ a + b @ b)))
    assert compare(scale * a, scale * b).similarity == pytest.approx(pair.similarity)
    assert -1 <= pair.cosine <= 1 and 0 <= pair.similarity <= 1


def test_only_coordinates_where_both_are_not_zero_can_oppose():
    assert compare(torch.tensor([1.0, -1, 0, 3, 2]), torch.tensor([1.0, 1, 5, 0, -2])).opposed == pytest.approx(2 / 3)
    assert math.isnan(compare(torch.zeros(3), torch.ones(3)).cosine)


def several(make_batch, draws: int, start: int, count: int = 12) -> list:
    return [make_batch(count, start + i) for i in range(2 * draws)]


def test_conflict_is_what_the_loops_say():
    model, draws = make(), 3
    batches = {"image": several(stills, draws, 0), "video": several(clips, draws, 50)}
    found = conflict(model, batches)
    g = {task: [task_gradients(model, {task: one}).flat[task]["block 1"] for one in ones]
         for task, ones in batches.items()}

    def cos(a, b):
        return float(F.cosine_similarity(a, b, dim=0))

    ceiling = [cos(g["video"][2 * r], g["video"][2 * r + 1]) for r in range(draws)]
    cross = [(cos(g["image"][2 * r], g["video"][2 * r + 1]) + cos(g["image"][2 * r + 1], g["video"][2 * r])) / 2
             for r in range(draws)]
    assert found.within["video"]["block 1"].value == pytest.approx(sum(ceiling) / draws, abs=1e-5)
    between = found.between["image", "video"]["block 1"]
    assert between.cosine.value == pytest.approx(sum(cross) / draws, abs=1e-5)
    half = 4.302653 * torch.tensor(cross).std().item() / draws**0.5  # Student's t, two degrees of freedom
    assert between.cosine.high - between.cosine.value == pytest.approx(half, rel=1e-3)


def test_order_of_batches_and_of_draws_changes_nothing():
    model, draws = make(), 2
    batches = {"image": several(stills, draws, 0), "video": several(clips, draws, 50)}
    found = conflict(model, batches, "all").as_dict()
    halves = conflict(model, {t: [b[1], b[0], b[3], b[2]] for t, b in batches.items()}, "all").as_dict()
    order = conflict(model, {t: [*b[2:], *b[:2]] for t, b in batches.items()}, "all").as_dict()
    for other in (halves, order):
        ours, theirs = (json.loads(json.dumps(d))["between"]["image | video"]["shared"] for d in (found, other))
        assert ours["cosine"] == pytest.approx(theirs["cosine"], abs=1e-9)
        assert ours["ratio"] == pytest.approx(theirs["ratio"], rel=1e-9)


def test_the_conflict_of_a_task_with_itself_is_its_ceiling():
    batches = several(stills, 4, 0, 48)
    found = conflict(make(moae_blocks=()), {"image": batches, "again": batches})
    for group, between in found.between["image", "again"].items():
        assert between.cosine.value == pytest.approx(found.within["image"][group].value, abs=1e-9)
        assert found.within["image"][group].low > 0.1, "the control needs a task that can be learned"
        assert between.corrected == pytest.approx(1, abs=1e-9)
        assert between.ratio.value == pytest.approx(1)


def test_random_labels_have_no_ceiling():
    """With a head that knows nothing yet, labels by chance ask for nothing that two batches share."""
    model = make(moae_blocks=())
    torch.nn.init.normal_(model.head["image"].weight, std=1e-3)
    torch.nn.init.zeros_(model.head["image"].bias)
    draws = 40  # the vectors are long, but labels can push them in few directions: single cosines scatter widely
    true = [stills(24, i) for i in range(2 * draws)]
    random = [(x, torch.randint(3, y.shape, generator=torch.Generator().manual_seed(i)))
              for i, (x, y) in enumerate(true)]
    found = conflict(model, {"true": true, "random": random}, "all")
    nothing, something = (found.within[task]["shared"] for task in ("random", "true"))
    assert nothing.low < 0 < nothing.high and nothing.high < 0.2 < something.low
    assert found.between["true", "random"]["shared"].corrected is None, "nothing to correct by"


def test_one_draw_has_no_interval_and_uneven_batches_are_refused():
    batches = {"image": several(stills, 1, 0), "video": several(clips, 1, 9)}
    shown = conflict(make(), batches, "all").as_dict()["between"]["image | video"]["shared"]
    assert shown["cosine"]["low"] is None and shown["corrected"] is None
    for broken in ({"image": batches["image"][:1]}, batches | {"image": batches["image"] * 2}, {}):
        with pytest.raises(ValueError, match="even number"):
            conflict(make(), broken)


# --- Adam's state -----------------------------------------------------------------------------------------------------


def train_steps(model, order: str, lr: float = 1e-2) -> torch.optim.AdamW:
    """Two learning rates, as layer decay has them; steps of stills (i) and clips (C)."""
    model.eval()
    norms = [p for n, p in model.named_parameters() if p.ndim == 1]
    rest = [p for n, p in model.named_parameters() if p.ndim != 1]
    optimizer = torch.optim.AdamW([{"params": norms, "lr": lr / 4}, {"params": rest}], lr=lr, betas=(0.8, 0.95),
                                  weight_decay=0.0)
    for number, kind in enumerate(order):
        x, y = stills(6, number) if kind == "i" else clips(6, number)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return optimizer


def test_the_step_is_the_one_that_adamw_takes():
    model = make(moae_blocks=())
    optimizer = train_steps(model, "iCiiC")
    found = task_gradients(model, {"video": clips(6, 77)})
    states, before = moments(optimizer, model), {n: p.detach().clone() for n, p in model.named_parameters()}
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    x, y = clips(6, 77)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    for name, g in found.named("video").items():
        p = model.get_parameter(name)
        step = adam_step(g, states[name], rates[p], (0.8, 0.95), 1e-8)
        torch.testing.assert_close(before[name] + step, p.detach(), rtol=1e-5, atol=1e-6)


def test_interference_is_the_difference_between_two_real_optimisers():
    model = make(moae_blocks=())
    optimizer = train_steps(model, "iCiiCii")
    alone = copy.deepcopy(model)
    alone_optimizer = train_steps(alone, "CC")      # its own state, then the same weights as the joint model
    alone.load_state_dict(model.state_dict())
    gradients = task_gradients(model, {"video": clips(6, 77)})
    found = adam_interference(optimizer, model, gradients, {"video": moments(alone_optimizer, alone)})["video"]
    steps = []
    for network, stepper in ((model, optimizer), (alone, alone_optimizer)):
        before = {n: p.detach().clone() for n, p in network.named_parameters()}
        stepper.zero_grad()
        x, y = clips(6, 77)
        F.cross_entropy(network(x), y).backward()
        stepper.step()
        steps.append({n: p.detach() - before[n] for n, p in network.named_parameters()})
    for group, names in gradients.members.items():
        shared, own = (torch.cat([step[n].flatten() for n in names]) for step in steps)
        assert found[group].cosine == pytest.approx(float(F.cosine_similarity(shared, own, dim=0)), abs=2e-3)
        assert found[group].size == pytest.approx(float(shared.norm() / own.norm()), rel=2e-3)
        assert found[group].cosine < 0.999, "control: stills have left something in the shared state"


def test_unshared_state_does_not_interfere_and_each_half_is_told_apart():
    model = make(moae_blocks=())
    optimizer = train_steps(model, "CCC")
    gradients = task_gradients(model, {"video": clips(6, 77)})
    same = moments(optimizer, model)
    for found in adam_interference(optimizer, model, gradients, {"video": same})["video"].values():
        assert found == pytest.approx((1, 1, 1, 1))
    other_mean = {n: Moment(-s.exp_avg, s.exp_avg_sq, s.step) for n, s in same.items()}
    for found in adam_interference(optimizer, model, gradients, {"video": other_mean})["video"].values():
        assert found.second == pytest.approx(1) and found.first == pytest.approx(found.cosine) and found.first < 0.99


def test_other_optimisers_are_refused():
    model = make()
    gradients = task_gradients(model, both(), "all")
    for wrong in (torch.optim.SGD(model.parameters(), lr=1.0), torch.optim.AdamW(model.parameters(), amsgrad=True)):
        with pytest.raises(ValueError, match="AdamW without amsgrad"):
            adam_interference(wrong, model, gradients, {})
    with pytest.raises(ValueError, match="not among the optimiser"):
        adam_interference(torch.optim.AdamW(make().parameters()), model, gradients, {})


# --- one step ahead ---------------------------------------------------------------------------------------------------


def probes(draws: int) -> dict:
    return {"image": several(stills, draws, 0), "video": several(clips, draws, 50)}


def test_affinity_is_the_fall_of_the_loss_after_a_real_step():
    model, batches, lr = make(moae_blocks=(), dropout=0.0), probes(1), 0.05
    found = affinity(model, batches, lr)
    copied = copy.deepcopy(model).eval()
    (x, y), (px, py) = batches["image"][0], batches["video"][1]
    start = F.cross_entropy(copied(px), py).item()
    F.cross_entropy(copied(x), y).backward()
    with torch.no_grad():
        for name, p in copied.named_parameters():
            if not name.startswith("head."):
                p -= lr * p.grad
    assert found.values["image", "video"].value == pytest.approx(
        1 - F.cross_entropy(copied(px), py).item() / start, abs=1e-6)
    assert found.as_dict()["values"]["image → video"]["low"] is None
    assert affinity(model, batches, 1e-30).values["image", "video"].value == 0, "control: no step, no change"


def test_affinity_with_an_optimiser_takes_its_step_and_leaves_it_alone():
    model = make(moae_blocks=(), dropout=0.0)
    optimizer, batches = train_steps(model, "iCiC"), probes(1)
    kept = copy.deepcopy(optimizer.state_dict())
    found = affinity(model, batches, optimizer=optimizer)
    for one, other in zip(kept["state"].values(), optimizer.state_dict()["state"].values()):
        assert all(torch.equal(one[key], other[key]) for key in one)
    (x, y), (px, py) = batches["image"][0], batches["image"][1]
    heads = {n: p.detach().clone() for n, p in model.named_parameters() if n.startswith("head.")}
    start = F.cross_entropy(model(px), py).item()
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    model.load_state_dict(heads, strict=False)
    assert found.values["image", "image"].value == pytest.approx(1 - F.cross_entropy(model(px), py).item() / start,
                                                                 abs=1e-5)


def test_weights_come_back_bit_for_bit_also_after_an_error():
    model = make(behaviour="reference")
    before, chance = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    affinity(model, probes(2), 0.3)
    calls = []

    def breaks(model, task, x, y):
        calls.append(task)
        if len(calls) > 5:  # two gradients, two losses before, one after: in the middle of a step
            raise RuntimeError("stop")
        return F.cross_entropy(model(x), y)

    with pytest.raises(RuntimeError, match="stop"):
        affinity(model, probes(1), 0.3, loss=breaks)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), chance) and model.training


def test_affinity_tells_help_from_harm():
    """A step on the negated loss of clips harms clips; a step of clips helps other clips that can be learned."""
    batches = several(stills, 4, 0, 48)

    def loss(model, task, x, y):
        return F.cross_entropy(model(x), y) * (-1 if task == "negated" else 1)

    found = affinity(make(moae_blocks=()), {"image": batches, "negated": batches}, 0.02, loss=loss)
    assert found.values["image", "image"].low > 0 and found.values["negated", "image"].high < 0
    with pytest.raises(ValueError, match="learning rate"):
        affinity(make(), probes(1))
