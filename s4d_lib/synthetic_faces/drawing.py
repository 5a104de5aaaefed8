"""recipe → frames     a procedural face laboratory: stills and clips of drawn faces with exact ground truth.

    stills = make_stills(RECIPES["default"], count=300, seed=0)
    clips = make_clips(RECIPES["default"], count=120, seed=0)

A recipe is a frozen dataclass of dials (`dataclasses.replace` turns one). Same recipe and seed, same bytes; and face i
does not depend on how many are asked for, so a longer set begins with the shorter one. Identical arithmetic is
promised on one machine; another processor may round a pixel differently.

Labels name an apparent expression. `emotions` holds what was scripted, `labels` what an annotator wrote: they differ by
label noise and by look-alikes (a talking or resting face labelled as what that one frame resembles).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.synthetic_faces.motion import (
    EMOTIONS,
    MAX_INTENSITY,
    NEUTRAL,
    Script,
    drift,
    expression,
    look_alike,
    resting_face,
    script_clip,
)
from s4d_lib.synthetic_faces.people import View, sample_people, sample_views
from s4d_lib.synthetic_faces.recipes import FaceRecipe
from s4d_lib.synthetic_faces.renderer import render

STILLS, CLIPS = 0, 1        # separate streams of chance
STILL_CHUNK = 48            # stills drawn together
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Stills:
    """n stills: frames u8 [n h w 3]; labels, emotions, identities i64 [n]; look_alike bool [n];
    action_units f32 [n u]; landmarks f32 [n 68 2] in pixels; poses f32 [n 3] (yaw, pitch, roll in radians)."""

    frames: Tensor
    labels: Tensor
    emotions: Tensor
    identities: Tensor
    look_alike: Tensor
    action_units: Tensor
    landmarks: Tensor
    poses: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Clips:
    """n clips, ragged in time: lists of frames u8 [t h w 3], action_units [t u], landmarks [t 68 2], poses [t 3] and
    presence [t 2] (see `synthetic_faces.motion.Script`); tensors labels, emotions, others (−1 = none), identities,
    kinds (index into KINDS) [n] and segments [n 2 2] in seconds."""

    frames: list[Tensor]
    labels: Tensor
    emotions: Tensor
    others: Tensor
    identities: Tensor
    kinds: Tensor
    segments: Tensor
    action_units: list[Tensor]
    landmarks: list[Tensor]
    poses: list[Tensor]
    presence: list[Tensor]
    fps: float

    def __len__(self) -> int:
        return len(self.labels)


def make_stills(recipe: FaceRecipe, count: int, seed: int) -> Stills:
    """`count` stills of a recipe; the first ones of a larger set with the same seed."""
    parts = list(iter_stills(recipe, count, seed))
    return Stills(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Stills)))


def make_clips(recipe: FaceRecipe, count: int, seed: int) -> Clips:
    """`count` clips of a recipe; the first ones of a larger set with the same seed."""
    parts = list(iter_clips(recipe, count, seed))
    def joined(name: str) -> list | Tensor | float:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], list):
            return [item for value in values for item in value]
        return torch.cat(values) if isinstance(values[0], Tensor) else values[0]

    return Clips(*(joined(f.name) for f in fields(Clips)))


def iter_stills(recipe: FaceRecipe, count: int, seed: int) -> Iterator[Stills]:
    """The same stills in chunks of constant memory."""
    _check(count, seed)
    for start in range(0, count, STILL_CHUNK):
        # A chunk is always drawn whole and then cut, which is what makes face i independent of `count`.
        chunk = _still_chunk(recipe, start, seed)
        keep = min(STILL_CHUNK, count - start)
        yield Stills(*(getattr(chunk, f.name)[:keep] for f in fields(Stills)))


def iter_clips(recipe: FaceRecipe, count: int, seed: int) -> Iterator[Clips]:
    """The same clips, one identity at a time."""
    _check(count, seed)
    together = recipe.clip.clips_per_identity
    for identity in range(-(-count // together)):
        yield _identity_clips(recipe, identity, min(together, count - identity * together), seed)


def _check(count: int, seed: int) -> None:
    if count < 1:
        raise Refused(f"count is {count}; ask for at least one face")
    if seed < 0:
        raise Refused(f"seed is {seed}; seeds are whole numbers from 0 on")


def scripted_classes(prior: tuple[float, ...], start: int, count: int, seed: int, stream: int) -> np.ndarray:
    """Classes of items start … start + count: shares follow `prior` closely in every stretch.

    Steps of the golden ratio fill the unit interval evenly, so a small set has its rare classes, the four clips of one
    person show different expressions, and no item needs to know how many follow.
    """
    share = np.asarray(prior, dtype=np.float64)
    if len(share) != len(EMOTIONS) or (share < 0).any() or share.sum() <= 0:
        raise Refused(f"prior {prior} needs {len(EMOTIONS)} shares ≥ 0, not all zero, in the order {EMOTIONS}")
    offset = np.random.default_rng((seed, stream)).random()
    position = (offset + GOLDEN * np.arange(start, start + count)) % 1
    return np.searchsorted(np.cumsum(share / share.sum()), position, side="right").clip(max=len(share) - 1)


def _with_noise(rng: np.random.Generator, labels: np.ndarray, share: float) -> np.ndarray:
    """Replace a share of the labels by another class, as a careless annotator would."""
    wrong = (labels + rng.integers(1, len(EMOTIONS), len(labels))) % len(EMOTIONS)
    return np.where(rng.random(len(labels)) < share, wrong, labels)


def _noise_source(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _still_chunk(recipe: FaceRecipe, start: int, seed: int) -> Stills:
    dials, n = recipe.still, STILL_CHUNK
    rng = np.random.default_rng((seed, STILLS, start))
    emotions = scripted_classes(dials.prior, start, n, seed, STILLS)
    units = expression(rng, emotions, rng.uniform(*dials.intensity, n))
    alike = rng.random(n) < dials.look_alikes
    alike_units, alike_classes = look_alike(rng, n)
    units = np.where(alike[:, None], alike_units, units) + resting_face(rng, n, dials.rest)
    labels = _with_noise(rng, np.where(alike, alike_classes, emotions), dials.label_noise)
    emotions = np.where(alike, NEUTRAL, emotions)
    face = sample_people(rng, n) | sample_views(rng, n, dials.view)
    action_units = torch.from_numpy(units.clip(0, MAX_INTENSITY).astype(np.float32))
    frames, landmarks = render(face, action_units, recipe.size, _noise_source(rng))
    poses = torch.stack([face[name] for name in ("yaw", "pitch", "roll")], dim=1)
    return Stills(frames, torch.from_numpy(labels), torch.from_numpy(emotions), torch.arange(start, start + n),
                  torch.from_numpy(alike), action_units, landmarks, poses)


def _identity_clips(recipe: FaceRecipe, identity: int, keep: int, seed: int) -> Clips:
    dials, n = recipe.clip, recipe.clip.clips_per_identity
    rng = np.random.default_rng((seed, CLIPS, identity))
    person = sample_people(rng, 1)
    rest = resting_face(rng, 1, dials.rest)[0]
    emotions = scripted_classes(dials.prior, identity * n, n, seed, CLIPS)
    labels = _with_noise(rng, emotions, dials.label_noise)
    scripts, faces = [], []
    for emotion in emotions:
        times = np.arange(rng.integers(dials.frames[0], dials.frames[1] + 1)) / dials.fps
        scripts.append(script_clip(rng, int(emotion), times, sequence=dials.sequence, flash=dials.flash,
                                   talk=dials.talk, polite=dials.polite, rest=rest, intensity=dials.intensity))
        faces.append(_filmed(rng, person, times, dials.view))
    face = {name: torch.cat([one[name] for one in faces]) for name in faces[0]}
    units = torch.from_numpy(np.concatenate([script.action_units for script in scripts]).astype(np.float32))
    frames, landmarks = render(face, units, recipe.size, _noise_source(rng))
    poses = torch.stack([face[name] for name in ("yaw", "pitch", "roll")], dim=1)
    lengths = [len(script.action_units) for script in scripts]
    def split(rows: Tensor) -> list[Tensor]:
        return list(rows.split(lengths))[:keep]

    def per_clip(values: list[int] | np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.int64))[:keep]

    return Clips(split(frames), per_clip(labels), per_clip(emotions), per_clip([s.other for s in scripts]),
                 per_clip([identity] * n), per_clip([s.kind for s in scripts]),
                 torch.from_numpy(np.stack([s.segments for s in scripts]).astype(np.float32))[:keep],
                 split(units), split(landmarks), split(poses), _presence(scripts)[:keep], dials.fps)


def _presence(scripts: list[Script]) -> list[Tensor]:
    return [torch.from_numpy(script.presence.astype(np.float32)) for script in scripts]


def _filmed(rng: np.random.Generator, person: dict[str, Tensor], times: np.ndarray, view: View) -> dict[str, Tensor]:
    """One person in one shot: the view holds for the clip, head and gaze wander."""
    frames = len(times)
    shot = person | sample_views(rng, 1, view)
    face = {name: value.expand(frames, *value.shape[1:]).clone() for name, value in shot.items()}
    for name, spread in (("yaw", 0.08), ("pitch", 0.05), ("roll", 0.04), ("shift_x", 0.02), ("shift_y", 0.015),
                         ("gaze_x", 0.2), ("gaze_y", 0.1)):
        face[name] += torch.from_numpy(drift(rng, times, spread * view.drift).astype(np.float32))
    return face
