"""self_distillation.py against a slow one of lists and floats; queues, schedule, resuming, ranks; and the control."""

import math
import subprocess
import sys
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_s2d import inputs, scrambled
from torch import Tensor

from s4d_lib.self_distillation import AnchorSchedule, EmotionAnchors, collect, gather_ranks, read

C, D, S, K = 5, 24, 4, 3  # axes of different sizes


class SlowAnchors:
    """SDL in lists and double precision, one sample after the other."""

    def __init__(self, classes: int, slots: int, neighbours: int, signed: bool) -> None:
        self.queues = [deque(maxlen=slots) for _ in range(classes)]
        self.neighbours, self.signed = neighbours, signed

    def push(self, features: Tensor, logits: Tensor, labels: Tensor) -> None:
        for feature, row, label in zip(features.tolist(), logits.tolist(), labels.tolist()):
            powers = [math.exp(value - max(row)) for value in row]
            self.queues[label].append((feature, [power / sum(powers) for power in powers]))

    def target(self, feature: list[float]) -> list[float] | None:
        """The soft target of one sample, or None; called only once every queue holds enough."""
        used = []
        for queue in self.queues:
            found = sorted(((cosine(feature, anchor), answer) for anchor, answer in queue), key=lambda pair: -pair[0])
            used += found[: self.neighbours]
        weights = [s if self.signed else max(s, 0.0) for s, _ in used]
        if not self.signed and sum(weights) == 0:
            return None
        return [sum(w * answer[c] for w, (_, answer) in zip(weights, used)) / sum(weights)
                for c in range(len(self.queues))]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b)) / (math.hypot(*a) * math.hypot(*b))


def slow_loss(logits: Tensor, targets: list[list[float] | None], weight: float) -> float:
    total = 0.0
    for row, target in zip(logits.tolist(), targets):
        for value, wanted in zip(row, target or []):
            p = 1 / (1 + math.exp(-value))
            total -= wanted * math.log(p) + (1 - wanted) * math.log(1 - p)
    return weight * total / logits.numel()


def batch(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, logits and labels of so many samples, every class at least once if there is room."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % C
    return (torch.randn(count, D, generator=generator), 2 * torch.randn(count, C, generator=generator),
            labels[torch.randperm(count, generator=generator)])


def filled(behaviour: str = "clean", count: int = 23, **more) -> EmotionAnchors:
    anchors = EmotionAnchors(C, D, S, K, behaviour, **more)
    anchors.push(*batch(count, seed=1))
    return anchors


# ----------------------------------------------------------------------------------------------- targets and loss


@pytest.mark.parametrize("behaviour", ["clean", "reference"])
def test_targets_and_loss_equal_a_slow_computation(behaviour):
    anchors, slow = EmotionAnchors(C, D, S, K, behaviour), SlowAnchors(C, S, K, signed=behaviour == "reference")
    for label in range(C):  # the noise that the reference starts from; nothing in clean
        for feature, answer in zip(*anchors.anchors(label)):
            slow.queues[label].append((feature.tolist(), answer.tolist()))
    for number, count in enumerate((23, 1, 9)):
        anchors.push(*batch(count, seed=number))
        slow.push(*batch(count, seed=number))
        features, logits, _ = batch(7, seed=99)
        # Cosines of random features have both signs and add up to little: away from zero a division is tame.
        features = features + 0.5 * anchors.features.mean(dim=(0, 1))
        expected = [slow.target(row) for row in features.tolist()]
        values, known = anchors.targets(features)
        assert known.all()
        torch.testing.assert_close(values, torch.tensor(expected), rtol=2e-4, atol=1e-5)
        loss = anchors.loss(logits, features, weight=0.3).item()
        assert loss == pytest.approx(slow_loss(logits, expected, 0.3), rel=1e-3)


def test_the_oracle_tells_variants_apart():
    """Nearest over all classes at once, dot products for cosines and unweighted means are other targets."""
    anchors = filled()
    features = batch(6, seed=3)[0]
    values = anchors.targets(features).values
    unit = torch.nn.functional.normalize
    every, answers = anchors.features.flatten(0, 1), anchors.outputs.flatten(0, 1)
    s, slot = (unit(features, dim=-1) @ unit(every, dim=-1).T).topk(C * K)
    jointly = (s[..., None].clamp(min=0) * answers[slot]).sum(1) / s.clamp(min=0).sum(1, keepdim=True)
    assert (jointly - values).abs().max() > 0.01
    s, slot = anchors.nearest(features)
    chosen = anchors.outputs[torch.arange(C)[None, :, None], slot]
    assert (chosen.mean(dim=(1, 2)) - values).abs().max() > 0.01
    dots = torch.einsum("b d, c s d -> b c s", features, anchors.features).topk(K)
    w = dots.values.clamp(min=0)[..., None]
    by_dots = (w * anchors.outputs[torch.arange(C)[None, :, None], dots.indices]).sum((1, 2)) / w.sum((1, 2))
    assert (by_dots - values).abs().max() > 0.01


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, C - 1), max_size=12), max_size=5), st.integers(0, 2**20))
def test_a_clean_target_is_a_mixture_of_probabilities(labels, seed):
    anchors, generator = EmotionAnchors(C, D, S, K), torch.Generator().manual_seed(seed)
    for some in labels:
        count = len(some)
        anchors.push(torch.randn(count, D, generator=generator), torch.randn(count, C, generator=generator),
                     torch.tensor(some, dtype=torch.long))
    times = torch.bincount(torch.tensor(sum(labels, []), dtype=torch.long), minlength=C)
    assert anchors.pushed.tolist() == times.tolist() and anchors.filled.tolist() == times.clamp(max=S).tolist()
    values, known = anchors.targets(torch.randn(6, D, generator=generator))
    assert anchors.ready == bool((times >= K).all()) and not (known.any() and not anchors.ready)
    assert (values[~known] == 0).all()
    assert (values >= 0).all()
    torch.testing.assert_close(values[known].sum(1), torch.ones(int(known.sum())))


def test_a_target_knows_direction_only():
    anchors = filled()
    features, logits, _ = batch(6, seed=2)
    values = anchors.targets(features).values
    torch.testing.assert_close(anchors.targets(17 * features).values, values)
    torch.testing.assert_close(anchors.targets(features.flip(0)).values, values.flip(0))
    anchors.features *= torch.arange(1, S + 1)[:, None]
    torch.testing.assert_close(anchors.targets(features).values, values)


def test_negative_cosines_count_as_nothing_only_in_clean():
    clean, signed = (EmotionAnchors(2, 2, 1, 1, behaviour) for behaviour in ("clean", "reference"))
    along, against = torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 0.0])
    for anchors in (clean, signed):
        anchors.push(torch.stack([along, against]), torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
    p = clean.outputs[0, 0]
    torch.testing.assert_close(clean.targets(along[None]).values[0], p)
    query = torch.tensor([[1.0, 1.0]])
    signed.features[1, 0] = torch.tensor([-1.0, 0.2])  # cosines +.71 and −.55: their sum is small
    assert signed.targets(query).values.max() > 1.5, "with signs a target leaves the range of a probability"
    across = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    values, known = clean.targets(across)
    assert known.tolist() == [False, True] and (values[0] == 0).all()
    logits = torch.randn(2, 2)
    alone = clean.loss(logits[1:], across[1:], 1.0)
    torch.testing.assert_close(clean.loss(logits, across, 1.0), alone / 2, msg="a sample without target counts as 0")


def test_the_loss_moves_logits_towards_the_target_and_nothing_else():
    anchors = filled()
    features, logits, _ = batch(6, seed=4)
    features.requires_grad_()
    logits.requires_grad_()
    loss = anchors.loss(logits, features, weight=0.5)
    loss.backward()
    values = anchors.targets(features.detach()).values
    torch.testing.assert_close(logits.grad, 0.5 * (logits.detach().sigmoid() - values) / logits.numel())
    assert features.grad is None, "no gradient through a target"
    parts = [anchors.loss(a, b, 0.5) * len(a) / 6 for a, b in zip(logits.split(4), features.split(4))]
    torch.testing.assert_close(sum(parts), loss, msg="the parts of a divided batch add up to the whole")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(anchors.loss(logits, features, weight=0.5), loss)
    assert anchors.loss(logits, features, weight=0.0).item() == 0


def test_an_absent_class_is_waited_for_unless_it_is_said_to_be_absent():
    features, logits, labels = batch(40, seed=5)
    kept = labels != 2
    patient, told = EmotionAnchors(C, D, S, K), EmotionAnchors(C, D, S, K, present=[0, 1, 3, 4])
    for anchors in (patient, told):
        anchors.push(features[kept], logits[kept], labels[kept])
    assert not patient.ready and not patient.targets(features).known.any()
    assert patient.loss(logits, features, 1.0).item() == 0
    assert told.ready and told.targets(features).known.any()
    told.push(features[~kept][:1], logits[~kept][:1], labels[~kept][:1])  # one of three: it counts, nothing breaks
    assert told.targets(features).values.isfinite().all()


# ------------------------------------------------------------------------------------------------------- the queues


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, C - 1), max_size=15), max_size=6))
def test_queues_are_first_in_first_out(labels):
    anchors, kept = EmotionAnchors(C, D, S, K), [deque(maxlen=S) for _ in range(C)]
    number = 0.0
    for some in labels:
        features = torch.arange(number, number + len(some))[:, None].expand(-1, D)
        number += len(some)
        for value, label in zip(features[:, 0].tolist(), some):
            kept[label].append(value)
        anchors.push(features, torch.zeros(len(some), C), torch.tensor(some, dtype=torch.long))
    for label in range(C):
        features, outputs = anchors.anchors(label)
        assert features[:, 0].tolist() == list(kept[label])
        assert outputs.shape == (len(kept[label]), C)


def test_one_push_equals_many():
    features, logits, labels = batch(31, seed=6)
    whole, parts = EmotionAnchors(C, D, S, K), EmotionAnchors(C, D, S, K)
    whole.push(features, logits, labels)
    for a, b, c in zip(features.split(7), logits.split(7), labels.split(7)):
        parts.push(a, b, c)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_a_resumed_queue_goes_on_bit_for_bit(tmp_path):
    from safetensors.torch import load_file, save_file

    for behaviour in ("clean", "reference"):
        straight = filled(behaviour, count=7)
        save_file(straight.state_dict(), tmp_path / "anchors.safetensors")
        resumed = EmotionAnchors(C, D, S, K, behaviour, seed=123)
        resumed.load_state_dict(load_file(tmp_path / "anchors.safetensors"))
        fresh = EmotionAnchors(C, D, S, K, behaviour, seed=123)
        query = batch(5, seed=40)[0]
        for seed in (7, 8):
            for anchors in (straight, resumed, fresh):
                anchors.push(*batch(11, seed))
            assert torch.equal(resumed.targets(query).values, straight.targets(query).values)
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
        assert not torch.equal(fresh.features, straight.features), "the state matters"


def test_ranks_keep_one_queue():
    """Two ranks played one after the other: whatever a rank pushes, it gets the rows of both."""
    first, second = batch(9, seed=10), batch(6, seed=11)

    def both(x: Tensor) -> Tensor:  # finds this rank's rows and hands out both ranks'
        i = next(i for i, name in enumerate(("features", "outputs", "labels")) if x.shape == rows[i][0].shape
                 and x.dtype == rows[i][0].dtype and any(torch.equal(x, part) for part in rows[i]))
        return torch.cat(rows[i])

    answers = first[1].softmax(-1), second[1].softmax(-1)
    rows = [(first[0], second[0]), answers, (first[2], second[2])]
    # Shapes of the ranks differ, so `both` is asked with each rank's own rows.
    ranks = []
    for mine in (first, second):
        ordered = [tuple(sorted(pair, key=lambda part: part.shape != own.shape)) for pair, own in zip(rows, mine)]
        anchors = EmotionAnchors(C, D, S, K, gather=lambda x, ordered=ordered: next(
            torch.cat(rows[i]) for i, pair in enumerate(ordered) if x.shape == pair[0].shape and x.dtype == pair[0].dtype))
        anchors.push(*mine)
        ranks.append(anchors)
    alone = EmotionAnchors(C, D, S, K)
    alone.push(*(torch.cat(pair) for pair in zip(first, second)))
    for name, value in alone.state_dict().items():
        assert all(torch.equal(value, rank.state_dict()[name]) for rank in ranks), name
