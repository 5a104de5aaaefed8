"""film → positions     which frames a clip is made of, by the released rules.

Positions are frame numbers from 0. Derived in chapter 02.
"""

from __future__ import annotations

import numpy as np

from s4d_lib.errors import Refused


def train_indices(n_frames: int, clip_frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Positions of one random training clip (released `ft/datasets/kinetics.py:588-604`).

    A window of clip_frames * stride frames is placed at random and cut into equal steps from its first to
    its last frame, so the step is window / (clip_frames - 1), a little over `stride`. A shorter video is
    read once in steps of about `stride`, then its last frame is held.
    """
    _check_sampling(n_frames, clip_frames, stride)
    window = clip_frames * stride
    if n_frames <= window:
        return _short_clip(n_frames, clip_frames, stride)
    return _window(np.array(int(rng.integers(window, n_frames))), clip_frames, stride).tolist()


def centre_indices(n_frames: int, clip_frames: int, stride: int) -> list[int]:
    """Positions of the middle training clip: `train_indices` with chance taken out, for validation."""
    _check_sampling(n_frames, clip_frames, stride)
    window = clip_frames * stride
    if n_frames <= window:
        return _short_clip(n_frames, clip_frames, stride)
    return _window(np.array(window + (n_frames - window) // 2), clip_frames, stride).tolist()


def pretrain_indices(n_frames: int, clip_frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """Positions of one pretraining clip, in exact steps (released `pt/data/path_dataset.py:452-487`).

    The start is random; a video shorter than clip_frames * stride starts at 0 and repeats the last position
    that it reaches.
    """
    _check_sampling(n_frames, clip_frames, stride)
    room = n_frames - clip_frames * stride
    start = int(rng.integers(0, room + 1)) if room > 0 else 0
    last = start + (n_frames - 1 - start) // stride * stride
    return [min(start + stride * i, last) for i in range(clip_frames)]


def test_views(n_frames: int, clip_frames: int, stride: int, segments: int = 2) -> list[list[int]]:
    """Positions of the test clips: `segments` windows spread evenly over every stride-th frame.

    Two segments are the first and the last window; one segment is the middle one. Short videos repeat their
    last strided frame, and all their segments are equal.
    """
    _check_sampling(n_frames, clip_frames, stride)
    if segments < 1:
        raise Refused(f"segments must be at least 1, got {segments}")
    strided = list(range(0, n_frames, stride))
    strided += strided[-1:] * (clip_frames - len(strided))
    room = len(strided) - clip_frames
    starts = [room // 2] if segments == 1 else [s * room // (segments - 1) for s in range(segments)]
    return [strided[start : start + clip_frames] for start in starts]


test_views.__test__ = False  # its name makes pytest take it for a test


def positions_of_many(sampling: str, n_frames: np.ndarray, clip_frames: int, stride: int, chance: np.ndarray
                      ) -> np.ndarray:
    """The "train", "centre" or "pretrain" positions `[b clip_frames]` of films of `n_frames` `[b]` frames.

    `chance` `[b]` in [0, 1) stands for the generator: the same rules, each film's window where its chance lies.
    """
    _check_sampling(int(n_frames.min()), clip_frames, stride)
    window = clip_frames * stride
    room = np.maximum(n_frames - window, 0)
    if sampling == "pretrain":
        start = (chance * (room + 1)).astype(int)
        last = start + (n_frames - 1 - start) // stride * stride
        return np.minimum(start[:, None] + stride * np.arange(clip_frames), last[:, None])
    ends = window + (room // 2 if sampling == "centre" else (chance * room).astype(int))
    found = _window(ends, clip_frames, stride)
    for n in np.unique(n_frames[room == 0]):
        found[n_frames == n] = _short_clip(int(n), clip_frames, stride)
    return found


def _window(end: np.ndarray, clip_frames: int, stride: int) -> np.ndarray:
    """`[... clip_frames]` of ends `[...]`."""
    positions = np.linspace(end - clip_frames * stride, end, num=clip_frames, axis=-1)
    return np.minimum(positions, np.expand_dims(end, -1) - 1).astype(int)


def _short_clip(n_frames: int, clip_frames: int, stride: int) -> list[int]:
    seen = n_frames // stride
    positions = np.concatenate([np.linspace(0, n_frames, num=seen), np.full(clip_frames - seen, n_frames)])
    return np.minimum(positions, n_frames - 1).astype(int).tolist()


def _check_sampling(n_frames: int, clip_frames: int, stride: int) -> None:
    for name, value in (("n_frames", n_frames), ("clip_frames", clip_frames), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def spread_indices(length: int, count: int) -> list[int]:
    """`count` positions from the first to the last of `length`, as evenly as whole numbers allow."""
    if length < 1 or count < 1:
        raise ValueError(f"length and count must be at least 1, got {length} and {count}")
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
