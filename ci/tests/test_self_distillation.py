"""models/self_distillation.py against a slow one of lists and floats; queues, schedule, resuming, ranks; a control."""

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

from s4d_lib.models.self_distillation import AnchorSchedule, EmotionAnchors, collect, gather_ranks, read

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
    return (torch.randn(count, D, generator=generator), 2 * torch.randn(count, C, generator=generator),
            torch.randperm(count, generator=generator) % C)


def filled(behaviour: str = "clean", count: int = 23, **more) -> EmotionAnchors:
    anchors = EmotionAnchors(C, D, S, K, behaviour, **more)
    anchors.push(*batch(count, seed=1))
    return anchors


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
    """Nearest over all classes at once, and an unweighted mean, are other targets."""
    anchors = EmotionAnchors(C, D, S, neighbours=1)
    anchors.push(*batch(23, seed=1))
    features = batch(6, seed=3)[0]
    values = anchors.targets(features).values
    slot, every, unit = anchors.nearest(features)[1], anchors.features.flatten(0, 1), torch.nn.functional.normalize
    jointly = (unit(features, dim=-1) @ unit(every, dim=-1).T).topk(C)
    in_class = (S * torch.arange(C) + slot[..., 0].unsqueeze(0)).view(6, C)
    for weight, index in (jointly, (torch.ones(6, C), in_class)):
        weight = weight.clamp(min=0)[..., None]
        other = (weight * anchors.outputs.flatten(0, 1)[index]).sum(1) / weight.sum(1)
        assert (other - values).abs().max() > 2e-3


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
    assert (values[~known] == 0).all() and (values >= 0).all()
    torch.testing.assert_close(values[known].sum(1), torch.ones(int(known.sum())))


def test_a_target_knows_direction_only():
    anchors = filled()
    features = batch(6, seed=2)[0]
    values = anchors.targets(features).values
    torch.testing.assert_close(anchors.targets(17 * features).values, values)
    torch.testing.assert_close(anchors.targets(features.flip(0)).values, values.flip(0))
    anchors.features *= torch.arange(1, S + 1)[:, None]
    torch.testing.assert_close(anchors.targets(features).values, values)


def test_negative_cosines_count_as_nothing_only_in_clean():
    clean, signed = EmotionAnchors(2, 2, 1, 1), EmotionAnchors(2, 2, 1, 1, "reference")
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
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.3]])
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


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, C - 1), max_size=15), max_size=6))
def test_queues_are_first_in_first_out(labels):
    anchors, kept = EmotionAnchors(C, D, S, K), [deque(maxlen=S) for _ in range(C)]
    for some in labels:
        number = float(anchors.pushed.sum())
        features = torch.arange(number, number + len(some))[:, None].expand(-1, D)
        for value, label in zip(features[:, 0].tolist(), some):
            kept[label].append(value)
        anchors.push(features, torch.zeros(len(some), C), torch.tensor(some, dtype=torch.long))
    for label in range(C):
        features, outputs = anchors.anchors(label)
        assert features[:, 0].tolist() == list(kept[label])
        assert outputs.shape == (len(kept[label]), C)


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
                anchors.push(*batch(6, seed))
            assert torch.equal(resumed.targets(query).values, straight.targets(query).values)
        assert straight.ready and straight.targets(query).known.all()
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
        assert not torch.equal(fresh.targets(query).values, straight.targets(query).values), "the state matters"


def test_ranks_keep_one_queue():
    """Two ranks played one after the other: whatever one pushes, it is handed the rows of both."""
    ranks = batch(9, seed=10), batch(6, seed=11)
    together = [torch.cat(pair) for pair in zip(*ranks)]
    alone = EmotionAnchors(C, D, S, K)
    alone.push(*together)
    for first, mine in ((0, ranks[0]), (9, ranks[1])):
        rows = iter([together[0], together[1].softmax(dim=-1), together[2]])

        def gather(x: Tensor, rows=rows, first=first) -> Tensor:
            everything = next(rows)
            torch.testing.assert_close(everything[first : first + len(x)], x)
            return everything

        anchors = EmotionAnchors(C, D, S, K, gather=gather)
        anchors.push(*mine)
        for name, value in alone.state_dict().items():
            assert torch.equal(value, anchors.state_dict()[name]), name
    assert gather_ranks(together[0]) is together[0], "one process gathers nothing"


RANK = """
import sys, torch
from s4d_lib.models.self_distillation import EmotionAnchors, gather_ranks
rank, place, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
rows = torch.arange(3 + 2 * rank) + 10 * rank  # three rows on one rank, five on the other
assert gather_ranks(rows).tolist() == [0, 1, 2, 10, 11, 12, 13, 14]
assert gather_ranks(torch.zeros(2 * rank, 4)).shape == (2, 4)  # one rank has none
generator = torch.Generator().manual_seed(rank)
anchors = EmotionAnchors(2, 3, 4, 1)
anchors.push(torch.randn(len(rows), 3, generator=generator), torch.randn(len(rows), 2, generator=generator), rows % 2)
torch.save(anchors.state_dict(), out)
torch.distributed.destroy_process_group()
"""


@pytest.mark.spawns
def test_two_processes_share_what_they_push(tmp_path):
    outs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    started = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "meet"), str(out)],
                                stderr=subprocess.PIPE, text=True) for rank, out in enumerate(outs)]
    try:
        for process in started:
            said = process.communicate(timeout=300)[1]
            assert process.returncode == 0, said
    finally:  # a rank whose partner failed would wait for it
        for process in started:
            process.kill()
    first, second = (torch.load(out) for out in outs)
    assert first["pushed"].tolist() == [5, 3]
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_released_schedule_never_updates_the_queue():
    released = AnchorSchedule.released()
    assert not any(released.updates(epoch) for epoch in range(100))
    assert [epoch for epoch in range(100) if released.weight(epoch)] == list(range(30, 100)), "the loss is on"
    for epochs in (1, 2, 5, 30, 60, 99, 100):
        assert not any(AnchorSchedule.released(epochs).updates(epoch) for epoch in range(epochs))
    often = AnchorSchedule(update_every=10, behaviour="reference")
    assert [epoch for epoch in range(100) if often.updates(epoch)] == list(range(30, 100, 10))


def test_the_weight_rises_as_released():
    weights = [AnchorSchedule().weight(epoch) for epoch in range(100)]
    assert weights == 30 * [0.0] + 20 * [0.01] + 10 * [0.1] + 20 * [0.5] + 20 * [1.0]
    assert [AnchorSchedule(200).weight(epoch) for epoch in range(0, 200, 2)] == weights
    early = AnchorSchedule(ramp=((10, 0.3), (math.inf, 0.7)))
    assert [early.weight(epoch) for epoch in (9, 20, 21, 99)] == [0, 0, 0.7, 0.7], "silent through epoch 20 in any case"


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 400))
def test_a_clean_schedule_fills_the_queue_before_the_loss_counts(epochs, every):
    schedule = AnchorSchedule(epochs, every)
    updates = [epoch for epoch in range(epochs) if schedule.updates(epoch)]
    counts = [epoch for epoch in range(epochs) if schedule.weight(epoch) > 0]
    assert updates[0] <= counts[0] and updates == list(range(schedule.first, epochs, every))
    assert schedule.position(schedule.first) > 20 >= schedule.position(schedule.first - 1)


@pytest.mark.parametrize("behaviour", ["clean", "reference"])
def test_reading_gives_the_models_own_logits(behaviour):
    model = scrambled(dropout=0.5)
    torch.manual_seed(3)
    expected = model(*inputs())
    torch.manual_seed(3)
    logits, features = read(model, *inputs(), behaviour=behaviour)
    assert torch.equal(logits, expected) and model.dropout.training
    assert (features == 0).any() == (behaviour == "reference"), "half of what the head reads is dropped"
    if behaviour == "clean":
        assert torch.equal(features, model.eval().features(*inputs()))


@pytest.mark.parametrize("behaviour", ["clean", "reference"])
def test_anchors_are_collected_without_a_trace(behaviour):
    model = scrambled(dropout=0.5, landmark_net=True, landmark_channels=128, num_classes=C).freeze_image_model()
    model.blocks[1].eval()  # a part that somebody froze stays as it is
    modes = [part.training for part in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    anchors, labels = EmotionAnchors(C, D, S, K, behaviour), torch.tensor([3, 1])
    noise = anchors.outputs.clone()
    collect(anchors, model, labels, inputs()[0])
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not anchors.features.requires_grad
    assert anchors.pushed.tolist() == [0, 1, 0, 1, 0] and torch.equal(anchors.outputs[0], noise[0])
    pushed = anchors.features[labels, 0]
    assert (pushed == 0).any() == (behaviour == "reference"), "reference anchors have been through dropout"
    if behaviour == "clean":
        model.eval()
        torch.testing.assert_close(pushed, model.features(inputs()[0]).detach())
        torch.testing.assert_close(anchors.outputs[labels, 0], model(inputs()[0]).softmax(-1).detach())


class Separable(torch.nn.Module):
    """A classifier with the manners that `read` needs and no training: rows `[b d]` near the centre of their class."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.0)
        self.register_buffer("centres", torch.eye(C, D))

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, latents: Tensor, pre_logits: bool = True) -> Tensor:
        return self.dropout(latents)

    def get_classifier(self):
        return lambda features: 4 * features @ self.centres.T


def run(schedule: AnchorSchedule, anchors: EmotionAnchors) -> tuple[list[Tensor], list[float]]:
    """Targets of a fixed probe, and its unweighted loss, after every epoch of a run that follows the schedule."""
    model, generator = Separable(), torch.Generator().manual_seed(0)
    labels = torch.arange(2 * C) % C

    rows = 0.05 * torch.randn(1 + 2 * schedule.epochs, 2 * C, D, generator=generator) + model.centres[labels]
    probe, targets, losses = rows[-1], [], []
    for epoch in range(schedule.epochs):
        for step in (0, 1):
            if schedule.updates(epoch):
                collect(anchors, model, labels, rows[2 * epoch + step])
        targets.append(anchors.targets(probe).values)
        losses.append(anchors.loss(read(model, probe)[0], probe, 1.0).item())
    return targets, losses


def test_control_without_updates_targets_stay_noise_and_with_them_they_name_the_class():
    """As shipped nothing is ever learned about the samples; one update, and it is. Fails if updating breaks."""
    labels = torch.arange(2 * C) % C
    stuck, noise = run(AnchorSchedule.released(30), EmotionAnchors(C, D, S, K, "reference"))
    assert all(torch.equal(target, stuck[0]) for target in stuck) and len(set(noise)) == 1
    assert 0.3 < stuck[0].mean() < 0.7, "the released noise asks for about one half of every class"
    off, silent = run(AnchorSchedule.released(30), EmotionAnchors(C, D, S, K))
    assert all((target == 0).all() for target in off) and set(silent) == {0.0}, "an empty queue distils nothing"
    for behaviour in ("clean", "reference"):
        schedule = AnchorSchedule(30, 1, behaviour=behaviour)
        targets, losses = run(schedule, EmotionAnchors(C, D, S, K, behaviour))
        assert torch.equal(targets[0], targets[schedule.first - 1]), "silent epochs change nothing"
        assert not torch.equal(targets[schedule.first], targets[0]) and len(set(losses)) > 2
        assert not torch.equal(targets[-1], targets[-2]), "the queue keeps moving"
        assert targets[-1].argmax(dim=1).tolist() == labels.tolist()
        assert targets[-1].gather(1, labels[:, None]).min() > 0.6
        assert (behaviour == "reference" or targets[-1].sum(1).allclose(torch.ones(2 * C)))
    assert (stuck[0].argmax(dim=1) == labels).float().mean() < 0.6


@pytest.mark.parametrize("make, said", [
    (lambda: AnchorSchedule(0), "count from 1, got 0 and 1"),
    (lambda: AnchorSchedule(1), "a run of 1 epochs ends before self-distillation begins"),
    (lambda: AnchorSchedule(ramp=((30, 0.1),)), "the last before infinity"),
    (lambda: EmotionAnchors(C, D, 2, 3), "slots at least neighbours"),
    (lambda: EmotionAnchors(C, D, present=[0, 5]), r"present must name classes from 0 to 4, got \[0, 5\]"),
    (lambda: EmotionAnchors(C, D, behaviour="off"), "behaviour must be one of"),
    (lambda: filled().targets(torch.zeros(2, D + 1)), r"features must be \[b 24\], got \[2, 25\]"),
    (lambda: filled().loss(torch.zeros(2, C), torch.zeros(3, D), 1.0), r"logits must be \[3 5\], got \[2, 5\]"),
    (lambda: filled().push(torch.zeros(2, D), torch.zeros(2, C), torch.zeros(3)), r"\[2, 24\], \[2, 5\] and \[3\]"),
    (lambda: filled().push(torch.zeros(1, D), torch.zeros(1, C), torch.tensor([C])), r"labels must lie in 0..4, got"),
])
def test_impossible_settings_and_wrong_inputs_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
