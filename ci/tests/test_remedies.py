"""training/remedies.py against closed forms for two tasks, definitions for more, and the plain sum."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from s4d_lib.training.remedies import REMEDIES, Combiner, backward, combine

P = 6
AGGREGATIONS = [name for name, row in REMEDIES.items() if row.kind == "aggregation"]
SCALARISATIONS = [name for name, row in REMEDIES.items() if row.kind == "scalarisation"]


def jacobian(seed: int, tasks: int = 2, width: int = P) -> torch.Tensor:
    scale = torch.logspace(0, 1, tasks, dtype=torch.float64)[:, None]
    return scale * torch.randn(tasks, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conflicting(seed: int = 0) -> torch.Tensor:
    a, b = jacobian(seed)
    b = b - 1.4 * (a @ b) / (a @ a) * a if a @ b > 0 else b
    return torch.stack([a, b])


seeds = given(st.integers(0, 10**6))
few = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("method", REMEDIES)
def test_tasks_that_do_not_differ_get_the_plain_sum(method):
    g = jacobian(0)[0]
    found = combine(torch.stack([g, g]), method, losses=torch.tensor([1.3, 1.3]))
    torch.testing.assert_close(found, 2 * g, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["pcgrad", "upgrad", "gradvac"])
def test_without_conflict_nothing_is_done(method):
    a = jacobian(1)[0]
    both = torch.stack([a, a + 0.1 * jacobian(2)[0]])
    assert float(both[0] @ both[1]) > 0
    torch.testing.assert_close(combine(both, method), both.sum(0))


@seeds
@few
def test_pcgrad_projects_each_onto_the_plane_of_the_other(seed):
    a, b = conflicting(seed)
    expected = (a - (a @ b) / (b @ b) * b) + (b - (a @ b) / (a @ a) * a)
    torch.testing.assert_close(combine(torch.stack([a, b]), "pcgrad"), expected)


@seeds
@few
def test_mgda_is_the_shortest_vector_of_the_segment(seed):
    a, b = jacobian(seed)
    w = float(((b - a) @ b / ((a - b) @ (a - b))).clamp(0, 1))
    torch.testing.assert_close(combine(torch.stack([a, b]), "mgda"), 2 * (w * a + (1 - w) * b), rtol=1e-5, atol=1e-7)


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(2, 5))
@few
def test_upgrad_never_opposes_a_task(seed, tasks, width):
    rows = jacobian(seed, tasks, width)
    found = combine(rows, "upgrad")
    assert (rows @ found >= -1e-8 * rows.norm() ** 2).all()


@seeds
@few
def test_upgrad_for_two_tasks_is_the_sum_of_two_projections(seed):
    """For two opposed rows the dual cone's projection takes out the other row: PCGrad's arithmetic, by geometry."""
    rows = conflicting(seed)
    torch.testing.assert_close(combine(rows, "upgrad"), combine(rows, "pcgrad"))
    parallel = torch.stack([rows[0], -0.5 * rows[0]])
    torch.testing.assert_close(combine(parallel, "upgrad"), torch.zeros(P, dtype=torch.float64))


def test_upgrad_for_three_tasks_is_the_nearest_point_of_the_cone():
    """Each task's own projection against a general solver of the same quadratic programme."""
    from scipy.optimize import minimize

    rows = jacobian(5, 3, 3)
    expected = np.zeros(3)
    for g in rows.numpy():
        expected += minimize(lambda d, g=g: ((d - g) ** 2).sum(), np.zeros(3), method="SLSQP", tol=1e-14,
                             constraints={"type": "ineq", "fun": lambda d: rows.numpy() @ d}).x
    np.testing.assert_allclose(combine(rows, "upgrad").numpy(), expected, atol=1e-4)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.4, 0.9]))
@few
def test_cagrad_is_the_best_worst_case_in_its_ball(seed, c):
    """max over |d - g₀| ≤ c|g₀| of min_i gᵢ·d: no direction in the plane of the two does better."""
    rows = jacobian(seed) * torch.tensor([[8.0], [1.0]])  # of like length: the answer is often inside the segment
    d = combine(rows, Combiner("cagrad", 2, c=c)) * (1 + c) / 2  # in the paper's length
    mean = rows.mean(0)
    assert float((d - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-9) + 1e-12
    basis = torch.linalg.qr(rows.T).Q
    angle = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()]).T @ basis.T
    tried = torch.cat([mean + c * r * mean.norm() * circle for r in (0.5, 1.0)])
    assert float((tried @ rows.T).min(1).values.max()) <= float((rows @ d).min()) + 1e-9 * float(rows.norm() ** 2)
    if c == 0:
        torch.testing.assert_close(d, mean)


def test_cagrad_edges():
    g = jacobian(0)[0]
    for second, expected in ((-g, 0 * g), (-3 * g, 2 / 1.4 * (-g + 0.4 * g)), (0 * g, None)):
        found = combine(torch.stack([g, second]), "cagrad")
        assert torch.isfinite(found).all()
        if expected is not None:
            torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="two tasks"):
        Combiner("cagrad", 3)
    with pytest.raises(ValueError, match="below 1"):
        Combiner("cagrad", 2, c=1.0)


@seeds
@few
def test_imtl_g_projects_equally_on_every_task(seed):
    rows = jacobian(seed, 3)
    found = combine(rows, "imtl_g")
    on = rows @ found / rows.norm(dim=1)
    torch.testing.assert_close(on, on.mean().expand(3), rtol=1e-5, atol=1e-8)


def test_aligned_mtl_is_the_sum_of_equally_long_orthogonal_gradients():
    """The polar factor of the Jacobian, as long as its smallest singular value."""
    rows = jacobian(3)
    u, s, v = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close(combine(rows, "aligned_mtl"), (s.min() * u @ v).sum(0))


def test_gradvac_remembers_and_a_name_forgets():
    both, combiner = conflicting(4), Combiner("gradvac", 2)
    first = combine(both, combiner)
    assert not torch.allclose(first, combine(both, combiner)), "its targets have moved"
    torch.testing.assert_close(combine(both, "gradvac"), first)


def test_uncertainty_weighting_is_its_formula():
    combiner, losses = Combiner("uncertainty", 2), torch.tensor([1.5, 0.25])
    with torch.no_grad():
        combiner.rule.log_var.copy_(torch.tensor([0.3, -0.8]))
    s = combiner.rule.log_var
    torch.testing.assert_close(combiner.scalar(losses), (torch.exp(-s) * losses + s).sum())  # twice ½
    torch.testing.assert_close(combiner.weights(losses=losses), torch.exp(-s.detach()).double())
    # its own optimum: the variance of a task is its loss
    with torch.no_grad():
        combiner.rule.log_var.copy_(losses.log())
    combiner.scalar(losses).backward()
    torch.testing.assert_close(combiner.rule.log_var.grad, torch.zeros(2))


def test_weights_of_the_other_scalarisations():
    losses = torch.tensor([2.0, 0.5])
    torch.testing.assert_close(Combiner("weighted", 2, weights=[0.3, 2.0]).weights(losses=losses),
                               torch.tensor([0.3, 2.0]).double())
    famo = Combiner("famo", 2).weights(losses=losses)  # equal logits: inverse losses, as a convex combination
    torch.testing.assert_close(famo, 2 * torch.tensor([0.2, 0.8]).double(), rtol=1e-6, atol=1e-6)
    dwa = Combiner("dwa", 2)
    for epoch in ([2.0, 1.0], [1.0, 0.9]):
        dwa.weights(losses=torch.tensor(epoch))
        dwa.end_epoch()
    expected = 2 * (torch.tensor([0.5, 0.9]) / 2.0).softmax(0)
    torch.testing.assert_close(dwa.weights(losses=losses), expected.double(), rtol=1e-6, atol=1e-6)


def test_famo_moves_towards_the_task_that_fell_least():
    famo = Combiner("famo", 2)
    before = famo.weights(losses=torch.tensor([1.0, 1.0]))
    famo.after_step(torch.tensor([0.5, 1.0]))
    after = famo.weights(losses=torch.tensor([1.0, 1.0]))
    assert after[1] > before[1] and after[0] < before[0]


def test_the_callers_chance_does_not_move():
    state = torch.random.get_rng_state()
    for method in AGGREGATIONS:
        combine(conflicting(), method)
    assert torch.equal(torch.random.get_rng_state(), state)


# --- one joint step ---------------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.unused = nn.Linear(4, 3), nn.Parameter(torch.ones(2))
        self.head = nn.ModuleDict({"image": nn.Linear(3, 2), "video": nn.Linear(3, 5)})

    def losses(self) -> dict[str, torch.Tensor]:
        chance = torch.Generator().manual_seed(1)
        return {task: nn.functional.cross_entropy(head(self.trunk(torch.randn(7, 4, generator=chance)).tanh()),
                                                  torch.arange(7) % head.out_features)
                for task, head in self.head.items()}

    @property
    def shared(self) -> list[nn.Parameter]:
        return [*self.trunk.parameters(), self.unused]

    @property
    def heads(self) -> dict[str, list[nn.Parameter]]:
        return {task: list(head.parameters()) for task, head in self.head.items()}


def by_hand(model: Two) -> tuple[torch.Tensor, dict]:
    rows, own = [], {}
    for task, loss in model.losses().items():
        g = torch.autograd.grad(loss, [*model.trunk.parameters(), *model.head[task].parameters()])
        rows.append(torch.cat([*(part.flatten() for part in g[:2]), torch.zeros(2)]))
        own[task] = g[2:]
    return torch.stack(rows), own


@pytest.mark.parametrize("method", REMEDIES)
def test_backward_fills_the_combined_gradient(method):
    model = Two()
    rows, own = by_hand(model)
    losses = model.losses()
    values = torch.stack([loss.detach() for loss in losses.values()])
    weights = backward(losses, model.shared, model.heads, method)
    found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.shared])
    torch.testing.assert_close(found, combine(rows, method, losses=values), rtol=1e-4, atol=1e-6)
    assert list(weights) == ["image", "video"]
    for number, (task, gradients) in enumerate(own.items()):
        factor = weights[task] if method in SCALARISATIONS else 1.0
        for p, g in zip(model.heads[task], gradients):
            torch.testing.assert_close(p.grad, factor * g, rtol=1e-4, atol=1e-6)
        assert weights[task] == pytest.approx(float(Combiner(method, 2).weights(rows, values)[number]), rel=1e-4)


def test_the_plain_sum_is_loss_backward_and_gradients_add_up():
    model, plain = Two(), Two()
    sum(plain.losses().values()).backward()
    backward(model.losses(), model.shared, model.heads, "sum")
    for p, q in zip(model.trunk.parameters(), plain.trunk.parameters()):
        torch.testing.assert_close(p.grad, q.grad)
    upgrad = Two()
    for _ in range(2):
        backward(upgrad.losses(), upgrad.shared, upgrad.heads, "upgrad")
    once = Two()
    backward(once.losses(), once.shared, once.heads, "upgrad")
    for p, q in zip(upgrad.trunk.parameters(), once.trunk.parameters()):
        torch.testing.assert_close(p.grad, 2 * q.grad)
    torch.testing.assert_close(upgrad.head["video"].weight.grad, 2 * once.head["video"].weight.grad)


def test_uncertainty_learns_its_own_parameters():
    model, combiner = Two(), Combiner("uncertainty", 2)
    backward(model.losses(), model.shared, model.heads, combiner)
    expected = torch.tensor([1 - loss.item() for loss in model.losses().values()])
    torch.testing.assert_close(combiner.rule.log_var.grad, expected)
    assert [name for name, _ in combiner.named_parameters()] == ["rule.log_var"]


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="one of sum"):
        Combiner("nash", 2)
    with pytest.raises(ValueError, match="Jacobian"):
        Combiner("mgda", 2).weights(losses=torch.ones(2))
    with pytest.raises(ValueError, match="reads losses"):
        combine(conflicting(), "famo")
    with pytest.raises(ValueError, match="none below 0"):
        Combiner("weighted", 2, weights=[1.0])
    with pytest.raises(ValueError, match="no settings"):
        Combiner("sum", 2, weights=[1.0, 2.0])
