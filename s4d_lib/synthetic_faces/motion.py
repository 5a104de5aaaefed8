"""emotion → action units     EMFACS-like prototypes with natural variety, and how they unfold in time.

Class names follow DFEW's order and mean *apparent* expression: a pattern on a drawn face, not a feeling.
A clip is one of three kinds: `plain` (one episode: onset, apex, offset, possibly cut by the clip's ends), `sequence`
(expression A turns into B and the clip is labelled B: only order tells it from its reversal, labelled A) and `flash`
(a brief strong other expression inside a sustained one, which keeps the label: only duration tells). Speech, polite
smiles, blinks and a resting-face bias run underneath. Prototypes after EMFACS (Friesen & Ekman 1983).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s4d_lib.synthetic_faces.geometry import ACTION_UNITS, AU_INDEX

EMOTIONS = ("Happiness", "Sadness", "Neutral", "Anger", "Surprise", "Disgust", "Fear")
NEUTRAL = EMOTIONS.index("Neutral")
KINDS = ("plain", "sequence", "flash")
MAX_INTENSITY = 1.25

# emotion: (always {unit: weight}, sometimes {unit: (probability, weight)})
PROTOTYPES = {
    "Happiness": ({6: 0.9, 12: 1.0}, {25: (0.6, 0.9), 26: (0.15, 0.4)}),
    "Sadness": ({1: 0.9, 4: 0.6, 15: 0.9}, {17: (0.4, 0.6), 43: (0.25, 0.3)}),
    "Neutral": ({}, {}),
    "Anger": ({4: 1.0, 5: 0.4, 7: 0.7, 23: 0.7}, {24: (0.4, 0.6), 17: (0.3, 0.5), 25: (0.2, 0.4), 10: (0.15, 0.4)}),
    "Surprise": ({1: 1.0, 2: 1.0, 5: 0.8, 25: 0.6, 26: 0.9}, {27: (0.3, 0.5)}),
    "Disgust": ({9: 1.0, 15: 0.5, 16: 0.5}, {10: (0.6, 0.8), 4: (0.3, 0.4), 25: (0.3, 0.4), 17: (0.3, 0.4)}),
    "Fear": ({1: 0.9, 2: 0.6, 4: 0.6, 5: 0.9, 7: 0.3, 20: 0.9, 25: 0.6, 26: 0.3}, {}),
}
# What one frame of a talking or resting face can be taken for.
LOOK_ALIKES = {
    "Happiness": {12: 0.8, 25: 0.4}, "Sadness": {15: 0.8, 17: 0.3},
    "Anger": {4: 0.7, 24: 0.7}, "Surprise": {25: 0.7, 26: 0.8, 2: 0.3},
}
RESTING = {4: 0.6, 15: 0.6, 12: 0.4, 1: 0.5, 7: 0.4, 9: 0.3}
SPEECH = {25: 1.0, 26: 0.8, 18: 0.6, 20: 0.4, 10: 0.25, 17: 0.25}


def _row(units: dict[int, float]) -> np.ndarray:
    row = np.zeros(len(ACTION_UNITS))
    for unit, weight in units.items():
        row[AU_INDEX[unit]] = weight
    return row


ALWAYS = np.stack([_row(PROTOTYPES[name][0]) for name in EMOTIONS])
CHANCE = np.stack([_row({unit: pair[0] for unit, pair in PROTOTYPES[name][1].items()}) for name in EMOTIONS])
SOMETIMES = np.stack([_row({unit: pair[1] for unit, pair in PROTOTYPES[name][1].items()}) for name in EMOTIONS])


def expression(rng: np.random.Generator, emotions: np.ndarray, intensity: np.ndarray,
               dropout: float = 0.06) -> np.ndarray:
    """Action units [n u] of n people showing `emotions` [n]: units drop out, optional ones join, strengths vary."""
    shape = (len(emotions), len(ACTION_UNITS))
    units = ALWAYS[emotions] * (rng.random(shape) > dropout)
    units = units + SOMETIMES[emotions] * (rng.random(shape) < CHANCE[emotions])
    return units * rng.uniform(0.75, 1.20, shape) * np.asarray(intensity)[:, None]


def resting_face(rng: np.random.Generator, count: int, strength: float) -> np.ndarray:
    """Constant bias [n u] of a face at rest: some people look a little stern, sad or amused all the time."""
    shape = (count, len(ACTION_UNITS))
    return (rng.random(shape) < 0.25) * rng.random(shape) * _row(RESTING) * strength


def look_alike(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Talking or resting faces [n u] and the class [n] that one frame of them resembles."""
    names = list(LOOK_ALIKES)
    chosen = rng.integers(len(names), size=count)
    rows = np.stack([_row(LOOK_ALIKES[name]) for name in names])[chosen]
    classes = np.array([EMOTIONS.index(name) for name in names])[chosen]
    return rows * rng.uniform(0.6, 1.1, (count, 1)) * rng.uniform(0.7, 1.2, rows.shape), classes


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class Script:
    """What one clip's face does.

    action_units  [t u]     presence  [t 2] share of its apex that the labelled / the other expression has in each frame
    segments      [2 2]     start and end in seconds of the labelled / the other expression (half of the apex; may lie
                            outside the clip; nan where there is none)
    kind, other   index into KINDS; index into EMOTIONS or −1
    """

    action_units: np.ndarray
    presence: np.ndarray
    segments: np.ndarray
    kind: int
    other: int


def script_clip(rng: np.random.Generator, emotion: int, times: np.ndarray, *, sequence: float, flash: float,
                talk: float, polite: float, rest: np.ndarray, intensity: tuple[float, float]) -> Script:
    """Draw one clip of `emotion` at `times` [t] seconds. `sequence`, `flash`, `talk`, `polite`: probabilities."""
    drawn = rng.random()
    kind = KINDS.index("sequence" if drawn < sequence else "flash" if drawn < sequence + flash else "plain")
    other = int(rng.choice([e for e in range(len(EMOTIONS)) if e not in (emotion, NEUTRAL)])) if kind else -1
    duration = times[-1] + times[1] - times[0]
    presence, segments = _episodes(rng, kind, times, duration)
    strength = rng.uniform(*intensity, 2)
    if kind == KINDS.index("flash"):
        strength[1] = rng.uniform(0.85, 1.1)
    shown = expression(rng, np.array([emotion, max(other, 0)]), strength)
    units = presence @ shown
    if emotion == NEUTRAL and rng.random() < polite:
        units = units + _polite_smile(rng, times, duration)
    if rng.random() < min(1.0, talk * (1.5 if emotion == NEUTRAL else 1.0)):
        units = np.maximum(units, speech(rng, times) * rng.uniform(0.35, 0.9))
    units = units + rest
    blink = AU_INDEX[43]
    units[:, blink] = np.maximum(units[:, blink], blinks(rng, times))
    return Script(units.clip(0, MAX_INTENSITY), presence, segments, kind, other)


def _episodes(rng: np.random.Generator, kind: int, times: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """Presence [t 2] and segments [2 2] of the labelled and of the other expression."""
    segments = np.full((2, 2), np.nan)
    presence = np.zeros((len(times), 2))
    if KINDS[kind] == "sequence":
        turn, width = rng.uniform(0.35, 0.65) * duration, rng.uniform(0.12, 0.30) * duration
        fall = rng.uniform(0.15, 0.4) * duration
        # Half of the sequences fade before the clip ends, so that the last frame alone is no answer.
        end = rng.uniform(0.85, 1.0) * duration if rng.random() < 0.5 else 2 * duration
        start = rng.uniform(0.0, 0.15) * duration if rng.random() < 0.5 else -duration
        rise = smooth_step((times - turn) / width + 0.5)
        presence[:, 0] = rise * (1 - smooth_step((times - end) / fall + 0.5))
        presence[:, 1] = (1 - rise) * smooth_step((times - start) / fall + 0.5)
        segments[:] = (turn, end), (start, turn)
        return presence, segments
    onset, rise = rng.uniform(-0.35, 0.35) * duration, rng.uniform(0.12, 0.40) * duration
    hold, fall = rng.uniform(0.20, 0.60) * duration, rng.uniform(0.15, 0.50) * duration
    if KINDS[kind] == "flash":    # the sustained expression must last, or nothing tells which one the flash is
        onset, hold = rng.uniform(-0.5, 0.0) * duration, duration
    decay = onset + rise + hold
    presence[:, 0] = smooth_step((times - onset) / rise) * (1 - smooth_step((times - decay) / fall))
    segments[0] = onset + rise / 2, decay + fall / 2
    if KINDS[kind] == "flash":
        centre, half = rng.uniform(0.1, 0.9) * duration, rng.uniform(0.10, 0.16)
        flash = smooth_step(1.5 - np.abs(times - centre) / half)
        presence[:, 1] = flash
        presence[:, 0] *= 1 - flash
        segments[1] = centre - half, centre + half
    return presence, segments


def _polite_smile(rng: np.random.Generator, times: np.ndarray, duration: float) -> np.ndarray:
    """A quick smile of the mouth alone (AU 12, no AU 6) in an otherwise neutral clip."""
    centre, half = rng.uniform(0.1, 0.9) * duration, rng.uniform(0.18, 0.32)
    smile = np.exp(-(((times - centre) / half) ** 4)) * rng.uniform(0.4, 0.9)
    return smile[:, None] * _row({12: 1.0, 25: 0.5})


def speech(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Band-limited mouth movement [t u], syllables at about 1–4 Hz."""
    units = np.zeros((len(times), len(ACTION_UNITS)))
    for unit, weight in SPEECH.items():
        rate, phase = rng.uniform(1.0, 2.6), rng.uniform(0, 2 * np.pi, 2)
        turns = 2 * np.pi * rate * times
        wave = 0.5 * np.sin(turns + phase[0]) + 0.35 * np.sin(1.7 * turns + phase[1])
        units[:, AU_INDEX[unit]] = wave.clip(0) * weight
    return units


def blinks(rng: np.random.Generator, times: np.ndarray, per_second: float = 0.35) -> np.ndarray:
    """Lid closure [t]; blinks of about 0.15 s, a random number of them."""
    closed = np.zeros(len(times))
    for centre in rng.uniform(times[0], times[-1], rng.poisson(per_second * (times[-1] - times[0]))):
        closed = np.maximum(closed, np.exp(-(((times - centre) / 0.07) ** 2)))
    return closed


def drift(rng: np.random.Generator, times: np.ndarray, spread: float) -> np.ndarray:
    """A slow wander [t] around 0: a trend and one slow wave, standard deviation about `spread`."""
    middle = times - times.mean()
    trend = middle / max(middle[-1], 1e-6) * rng.standard_normal()
    wave = np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * times + rng.uniform(0, 2 * np.pi)) * rng.standard_normal()
    return spread * (0.7 * trend + 0.6 * (wave - wave.mean()))
