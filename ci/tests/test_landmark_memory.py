"""models/landmark_memory.py: what was said is said again, to the same frames only; nothing depends on asking."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4d_lib.errors import Refused
from s4d_lib.models.landmark_memory import _open, ask, fingerprint, frame_marks, recall, remember

GRID = (2, 3)


class Eye(nn.Module):
    """A landmark network in small that counts the frames it was asked about."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale, self.asked = nn.Parameter(torch.tensor(scale)), 0

    def features(self, frames):
        self.asked += len(frames)
        return self.scale * F.avg_pool2d(frames, 4).repeat(1, 2, 1, 1)  # [n 3 16 20] → [n 6 4 5]


@pytest.fixture
def frames():
    return torch.randn(7, 3, 16, 20, generator=torch.Generator().manual_seed(0))


def test_without_a_memory_the_network_answers(frames):
    eye = Eye()
    wanted = F.interpolate(eye.features(frames), GRID, mode="bilinear", align_corners=False)
    assert torch.equal(recall(eye, frames, GRID), wanted) and recall(eye, frames, (4, 5)).shape[-2:] == (4, 5)


def test_known_frames_are_not_asked_again_and_the_answers_are_those_of_the_network(tmp_path, frames):
    eye = Eye()
    remember(eye, [frames[:3], frames[2:5]], GRID, tmp_path)
    assert eye.asked == 5, "the frame that both batches hold was asked twice"
    eye.asked = 0
    order = [4, 0, 6, 2, 5]
    found = recall(eye, frames[order], GRID, tmp_path)
    assert eye.asked == 2, "frames 5 and 6 are unknown, the others known"
    assert torch.equal(found, ask(eye, frames[order], GRID).half().float())


def test_an_answer_does_not_depend_on_what_was_remembered(tmp_path, frames):
    eye = Eye()
    remember(eye, [frames[:1]], GRID, tmp_path / "one")
    remember(eye, [frames], GRID, tmp_path / "all")
    few = recall(eye, frames, GRID, tmp_path / "one")
    assert torch.equal(recall(eye, frames, GRID, tmp_path / "none"), few), "an empty memory is a memory"
    assert torch.equal(recall(eye, frames, GRID, tmp_path / "all"), few)
    assert not torch.equal(ask(eye, frames, GRID), few), "control: half precision must be visible, or equality is idle"


def test_a_memory_belongs_to_one_network_and_one_grid(tmp_path, frames):
    eye, other = Eye(), Eye(2.0)
    assert fingerprint(eye) == fingerprint(Eye()) != fingerprint(other)
    remember(eye, [frames], GRID, tmp_path)
    assert torch.equal(recall(other, frames, GRID, tmp_path), ask(other, frames, GRID).half().float())
    assert torch.equal(recall(eye, frames, (4, 5), tmp_path), ask(eye, frames, (4, 5)).half().float())


def test_a_frame_is_known_by_every_byte(frames):
    marks = frame_marks(frames)
    changed = frames.clone()
    changed[3, 1, 5, 7] += 1e-6
    assert (frame_marks(changed) != marks).nonzero()[0].tolist() == [3]
    assert np.array_equal(frame_marks(frames.flip(0)), marks[::-1])
    turned = frames.transpose(2, 3).contiguous().transpose(2, 3)  # the same pictures, other strides
    assert np.array_equal(frame_marks(turned), marks)
    assert not np.isin(frame_marks(frames.flip(-1)), marks).any(), "a mirrored face is another picture"


def test_a_memory_grows_and_a_stopped_call_leaves_it_as_it_was(tmp_path, frames):
    eye = Eye()

    def breaks():
        yield frames[2:4]
        raise KeyboardInterrupt

    remember(eye, [frames[:2]], GRID, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        remember(eye, breaks(), GRID, tmp_path)
    remember(eye, [frames[4:6]], GRID, tmp_path)
    eye.asked = 0
    found = recall(eye, frames, GRID, tmp_path)
    assert eye.asked == 3, "frames 2, 3 and 6 are unknown"
    assert torch.equal(found, ask(eye, frames, GRID).half().float())


@pytest.mark.parametrize("harm", [lambda data: data[:-2], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]])
def test_a_memory_that_was_damaged_is_refused_and_not_believed(tmp_path, frames, harm):
    """A cut file, or one wrong bit: it would be other features under the fingerprint of the right ones."""
    eye = Eye()
    place = remember(eye, [frames], GRID, tmp_path)
    path = place / "features.f16"
    whole = path.read_bytes()
    path.write_bytes(whole + b"a stopped call")
    assert torch.equal(recall(eye, frames, GRID, tmp_path), ask(eye, frames, GRID).half().float())
    path.write_bytes(harm(whole))
    _open.cache_clear()
    with pytest.raises(Refused, match="not the features.*delete"):
        recall(eye, frames, GRID, tmp_path)
