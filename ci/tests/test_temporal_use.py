"""analysis/temporal_use.py with classifiers whose use of time is known, and its bootstrap against simple cases."""

import pytest
import torch
from torch import nn

from s4d_lib.analysis.temporal_use import CHANGES, temporal_use
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

N, T, H, W = 24, 5, 2, 3


class Reads(nn.Module):
    """Logits from the brightness of the channels of chosen frames: a classifier whose use of time is known."""

    def __init__(self, frames: list[int]) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(4.0))
        self.frames = frames

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sharpness * x[:, :, self.frames].mean((2, 3, 4))


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    """Channel `first` lights up in the first frame, another in all later ones; the label is the last one's."""
    labels = torch.arange(N) % 3
    clips = torch.zeros(N, 3, T, H, W)
    for i, label in enumerate(labels):
        clips[i, (label + 1) % 3, 0] = 1.0
        clips[i, label, 1:] = 1.0
    return clips, labels


def test_a_model_without_time_does_not_change():
    found = temporal_use(Reads(list(range(T))), *sequences())
    assert list(found) == list(CHANGES)
    for name in ("shuffled", "reversed"):
        assert found[name].accuracy.value == found[name].switched.value == 0
        assert found[name].confidence.value == pytest.approx(0, abs=1e-4)
    assert found["one frame"].accuracy.value == 0 and found["one frame"].confidence.value > 0


def test_a_model_of_the_last_frame_falls_when_time_turns():
    found = temporal_use(Reads([T - 1]), *sequences(), shuffles=40)
    assert found["reversed"].accuracy.value == -100 and found["reversed"].switched.value == 100
    p = torch.tensor([4.0, 0, 0]).softmax(0)
    assert found["reversed"].confidence.value == pytest.approx(100 * float(p[1] - p[0]), abs=1e-4)
    # one order in five puts the first frame last; the true order, one in 120, is never drawn
    assert found["shuffled"].accuracy.value == pytest.approx(-100 * 24 / 119, abs=4)
    assert found["shuffled"].accuracy.low < found["shuffled"].accuracy.value < found["shuffled"].accuracy.high


def test_two_frames_have_one_wrong_order():
    clips, labels = sequences()
    found = temporal_use(Reads([1]), clips[:, :, :2], labels, shuffles=1)
    assert found["shuffled"] == found["reversed"] and found["shuffled"].accuracy.value == -100


def test_which_frame_is_repeated_is_the_callers_choice():
    clips, labels = sequences()
    model = Reads([T - 1])
    assert temporal_use(model, clips, labels)["one frame"].accuracy.value == 0  # the middle one
    assert temporal_use(model, clips, labels, frames=(0,))["one frame"].accuracy.value == -100
    assert temporal_use(model, clips, labels, frames=(0, 1, 2, 3))["one frame"].accuracy.value == -25


def test_the_library_model_is_measured_without_a_trace_and_repeatably():
    size = Size(image_size=(8, 16), frames=4, patch=8, tubelet=2, dim=12, depth=1, heads=2, decoder_dim=8,
                decoder_depth=1, decoder_heads=2, positions="separable")
    torch.manual_seed(0)
    model = S4DClassifier(size, {"image": 3, "video": 5}, dropout=0.5).train()
    clips, labels = torch.randn(9, 3, 4, 8, 16), torch.arange(9) % 5
    chance = torch.random.get_rng_state()
    found = temporal_use(model, clips, labels, batch=4)
    assert temporal_use(model, clips, labels, batch=9)["shuffled"].confidence.value == pytest.approx(
        found["shuffled"].confidence.value, abs=1e-4), "neither dropout nor the batch changes an answer"
    assert model.training and torch.equal(torch.random.get_rng_state(), chance)


def test_bad_input_is_refused():
    clips, labels = sequences()
    with pytest.raises(ValueError, match="no order"):
        temporal_use(Reads([0]), clips[:, :, :1], labels)
    with pytest.raises(ValueError, match="one number"):
        temporal_use(Reads([0]), clips, labels[:-1])
