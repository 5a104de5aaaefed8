"""clips → reliance     does a video classifier use the order of frames: shuffled, reversed, one frame repeated.

A clip classifier can score well and ignore time. Each test changes the time of a clip and nothing else, and asks what
that does to the answer on the same clip. Derived in chapter 10.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn

from s4d_lib.errors import Refused
from s4d_lib.metrics import Interval

Change = Literal["shuffled", "reversed", "one frame"]
CHANGES: tuple[Change, ...] = ("shuffled", "reversed", "one frame")


@dataclass(frozen=True)
class Reliance:
    """One change of time, changed minus unchanged, paired over clips; 95 % bootstrap intervals over clips.

    accuracy    points of WAR; below 0 the model needed what was taken away
    confidence  points of the probability of the true class
    switched    percent of clips whose answer changes
    """

    accuracy: Interval
    confidence: Interval
    switched: Interval

    def as_dict(self) -> dict:
        return asdict(self)


def temporal_use(model: nn.Module, clips: Tensor, labels: Tensor, groups: Tensor | None = None, shuffles: int = 4,
                 frames: tuple[int, ...] | None = None, batch: int = 64, draws: int = 2000,
                 seed: int = 0) -> dict[str, Reliance]:
    """How a classifier's answers change when the time of its clips does.

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
    found = {}
    for name, several in orders.items():
        # One row a clip: change of accuracy, change of confidence, switched, each averaged over the variants.
        change = np.mean([_difference(_answers(model, _reorder(clips, order), labels, batch), truth)
                          for order in several], axis=0)
        found[name] = Reliance(*paired_bootstrap(100 * change, groups, draws, seed))
    return found


def paired_bootstrap(values: np.ndarray, groups: Tensor | None = None, draws: int = 2000, seed: int = 0,
                     ) -> list[Interval]:
    """Means of the columns of values `[n k]` with 95 % percentile intervals, resampling clips or whole groups."""
    kind = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = np.bincount(kind).astype(np.float64)
    sums = np.stack([np.bincount(kind, column) for column in values.T], axis=1)  # [groups k]
    picks = np.random.default_rng(seed).multinomial(len(count), np.full(len(count), 1 / len(count)), size=draws)
    low, high = np.percentile((picks @ sums) / (picks @ count)[:, None], [2.5, 97.5], axis=0)
    return [Interval(float(m), float(l), float(h)) for m, l, h in zip(values.mean(0), low, high)]


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
    from s4d_lib.transfer import measuring

    rows, device = [], next(model.parameters()).device
    with measuring(model), torch.no_grad():
        for x, y in zip(clips.split(batch), torch.as_tensor(labels).cpu().split(batch)):
            p = model(x.to(device)).cpu().double().softmax(-1)
            answer = p.argmax(-1)
            rows.append(torch.stack([(answer == y).double(), p[torch.arange(len(y)), y], answer.double()], dim=1))
    return torch.cat(rows).numpy()
