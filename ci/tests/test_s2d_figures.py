"""Figures of chapter 11: what is drawn is what was measured, and the alt text says it."""

import numpy as np
import pytest
import torch

from s4d_lib.figures.s2d import (
    GLOW,
    draw_loudness,
    draw_parts,
    draw_prompt_maps,
    draw_queues,
    draw_schedule,
    draw_targets,
    glow,
    queue_state,
)
from s4d_lib.models.self_distillation import AnchorSchedule, EmotionAnchors

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), dtype=np.uint8)


def alt(figure):
    return figure.layout.meta["alt"]


def test_glow_lies_on_its_place_and_nowhere_else():
    strength = np.zeros((3, 2, 4))
    strength[1, 0, 2] = 1
    lit = glow(FRAMES, strength)
    assert (lit[1, :8, 12:18] == GLOW).all(), "row 0, column 2 of a grid of 2 by 4 on 16 by 24 pixels"
    dark = lit.copy()
    dark[1, :8, 12:18] = 0
    assert (dark[..., 0] == dark[..., 1]).all() and (dark[..., 1] == dark[..., 2]).all(), "everything else is grey"
    assert np.array_equal(lit[0, ..., 0], np.round(0.75 * FRAMES[0].mean(-1)).astype(np.uint8))
    for wrong in (np.zeros((2, 2, 4)), np.zeros((3, 3, 4))):
        with pytest.raises(ValueError, match="does not lie on frames"):
            glow(FRAMES, wrong)


def test_rows_of_maps_share_one_scale():
    weak, strong = np.full((3, 2, 4), 0.1), np.full((3, 2, 4), 1.0)
    both = np.asarray(draw_prompt_maps(FRAMES, {"weak": weak, "strong": strong}, scale=1).convert("RGB")).astype(int)
    alone = np.asarray(draw_prompt_maps(FRAMES, {"weak": weak}, scale=1).convert("RGB")).astype(int)
    assert both.shape == (3 * (16 + 14), 3 * 24, 3)
    redness = (both[..., 0] - both[..., 2])[[slice(14 + 30 * row, 30 + 30 * row) for row in (1, 2)][0]].mean()
    assert redness < 40 < (alone[..., 0] - alone[..., 2])[44:60].mean(), "alone, the weak map is its own scale"


def test_parts_say_what_is_trained():
    figure = draw_parts({"blocks": {"kept": 900}, "adapters": {"trained": 90}, "head": {"trained": 10}}, "title")
    assert "100 of 1,000 trained" in alt(figure) and "blocks frozen 900" in alt(figure)
    bars = {trace.name: dict(zip(trace.y, trace.x)) for trace in figure.data}
    assert bars == {"trained": {"adapters": 90, "head": 10}, "frozen": {"blocks": 900}}


def test_a_queue_is_drawn_oldest_first_and_empty_slots_stay_empty():
    queue, seen = EmotionAnchors(num_classes=3, dim=2, slots=4), []
    for number in range(6):  # class 1 meets six, class 2 one, class 0 none
        logits = torch.tensor([[0.0, float(number), 0.0]])
        queue.push(torch.randn(1, 2), logits, torch.tensor([1]))
        seen.append(float(logits.softmax(-1)[0, 1]))
    queue.push(torch.randn(1, 2), torch.zeros(1, 3), torch.tensor([2]))
    state = queue_state(queue.outputs.numpy(), queue.filled.numpy(), queue.pushed.numpy())
    assert np.isnan(state[0]).all() and np.isnan(state[2, 1:]).all()
    assert state[1] == pytest.approx(seen[-4:]) and state[2, 0] == pytest.approx(1 / 3)
    for c in range(3):  # the queue's own order
        held = queue.anchors(c)[1][:, c].numpy()
        assert state[c, : len(held)] == pytest.approx(held)
    figure = draw_queues({"before": np.full((3, 4), np.nan), "after": state}, ("a", "b", "c"), "title")
    assert "before: 0 of 12 slots filled; after: 5 of 12" in alt(figure)
    assert figure.data[1].z[0][0] is None and figure.data[1].z[1][3] == pytest.approx(seen[-1], abs=1e-3)


def test_a_schedule_that_never_fills_its_queues_shows_no_mark():
    figure = draw_schedule({"intended": AnchorSchedule(), "shipped": AnchorSchedule.released()}, "title")
    marks = {trace.name: len(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert marks == {"intended: queue filled": 79, "shipped: queue filled": 0}
    assert "shipped: queues are filled in 0 of 100 epochs" in alt(figure)
    lines = {trace.name: list(trace.y) for trace in figure.data if trace.mode == "lines"}
    assert lines["shipped"] == lines["intended"] and lines["shipped"][99] == 1 and lines["shipped"][20] == 0


def test_targets_and_loudness_say_their_numbers():
    figure = draw_targets({"noise": np.full((2, 7), 0.5), "faces": np.eye(7)[:2]}, list("abcdefg"), ["x", "y"], "title")
    assert "noise: 0.50 to 0.50, a row sums to 3.50; faces: 0.00 to 1.00, a row sums to 1.00" in alt(figure)
    assert list(figure.data[0].y) == ["1 x", "2 y"]
    figure = draw_loudness({"prompt": [0.1, 0.25]}, "title")
    assert list(figure.data[0].y) == [10, 25] and "prompt 10 %, 25 %" in alt(figure)
