"""clips → reliance     does a video classifier use the order of frames: shuffled, reversed, one frame repeated.

A clip classifier can score well and ignore time. Each test changes the time of a clip and nothing else, and asks what
that does to the answer on the same clip. Derived in chapter 10.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn

from s4d_lib.analysis.measuring import Reliance, measuring
from s4d_lib.errors import Refused
from s4d_lib.metrics.resampling import paired_bootstrap

Change = Literal["shuffled", "reversed", "one frame"]
CHANGES: tuple[Change, ...] = ("shuffled", "reversed", "one frame")


def temporal_use(model: nn.Module, clips: Tensor, labels: Tensor, groups: Tensor | None = None, shuffles: int = 4,
                 frames: tuple[int, ...] | None = None, batch: int = 64, draws: int = 2000,
                 seed: int = 0) -> dict[str, Reliance]:
    """How a classifier's answers change when the time of its clips does: changed minus unchanged, paired over clips.

    clips: `[n 3 t h w]`, ready for the model; labels `[n]`. shuffled: every frame order but the true one equally
    likely, `shuffles` of them for each clip, averaged per clip. reversed: last frame first. one frame: a frame
    repeated t times, averaged over `frames`, by default the middle one; the end of a clip may show more than its
    middle, so name the frames that the question is about. groups `[n]`: what is resampled together, such as people;
    None: clips. Intervals hold for this model, not for another training seed. Frames are shuffled singly, which also
    breaks motion inside a tubelet. Cost: (2 + shuffles + frames) forward passes over the clips.
    """
    n, t = clips.shape[0], clips.shape[2]
    if t < 2:
        raise Refused("a clip of one frame has no order to change")
    if n == 0 or len(labels) != n or (groups is not None and len(groups) != n):
        raise ValueError(f"{n} clips, {len(labels)} labels and {n if groups is None else len(groups)} groups must be "
                         "of one number above 0")
    frames = (t // 2,) if frames is None else frames
    truth = _answers(model, clips, labels, batch)
    orders = {
        "shuffled": _shuffles(n, t, shuffles, seed),
        "reversed": repeat(torch.arange(t).flip(0), "t -> 1 n t", n=n),
        "one frame": repeat(torch.tensor(frames), "k -> k n t", n=n, t=t),
    }
    reliance = {}
    for name, several in orders.items():
        # One row a clip: change of accuracy, change of confidence, switched, each averaged over the variants.
        change = np.mean([_difference(_answers(model, _reorder(clips, order), labels, batch), truth)
                          for order in several], axis=0)
        reliance[name] = Reliance(*paired_bootstrap(100 * change, groups, draws, seed))
    return reliance


def _shuffles(n: int, t: int, shuffles: int, seed: int) -> Tensor:
    """Frame orders `[shuffles n t]`, none of them the true one."""
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.broadcast_to(np.arange(t), (shuffles, n, t)), axis=-1)
    while (true := (orders == np.arange(t)).all(-1)).any():
        orders[true] = rng.permuted(orders[true], axis=-1)
    return torch.from_numpy(orders)


def _reorder(clips: Tensor, order: Tensor) -> Tensor:
    """Clips `[n 3 t h w]` with frame order `[n t]`."""
    n, c, _, h, w = clips.shape
    return clips.gather(2, repeat(order.to(clips.device), "n t -> n c t h w", c=c, h=h, w=w))


def _difference(changed: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rows (correct, confidence, answer) → rows (change of correct, change of confidence, switched)."""
    return np.stack([changed[:, 0] - truth[:, 0], changed[:, 1] - truth[:, 1], changed[:, 2] != truth[:, 2]], axis=1)


def _answers(model: nn.Module, clips: Tensor, labels: Tensor, batch: int) -> np.ndarray:
    """Per clip: 1 if correct, probability of the true class, answer. `[n 3]`, in evaluation mode."""
    rows, device = [], next(model.parameters()).device
    with measuring(model), torch.no_grad():
        for x, y in zip(clips.split(batch), torch.as_tensor(labels).cpu().split(batch)):
            p = model(x.to(device)).cpu().double().softmax(-1)
            answer = p.argmax(-1)
            rows.append(torch.stack([(answer == y).double(), p[torch.arange(len(y)), y], answer.double()], dim=1))
    return torch.cat(rows).numpy()
