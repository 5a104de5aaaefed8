"""chance → parameters     who is drawn (identity, in natural colours) and how the camera sees them.

Nobody here exists. Skin runs along one melanin-like line from light to deep, hair from black through brown to blond,
red and grey, irises from brown to blue and grey, clothes and backgrounds are muted: a model that learns from these
faces should find no purple shortcut. Each function draws from a numpy Generator and returns named float32 tensors,
`[b]` per scalar and `[b 3]` per sRGB colour in [0, 1], ready for `synthetic_faces.render`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from s4d_lib.synthetic_faces.geometry import ACTION_UNITS

SKIN = np.array([(243, 209, 187), (231, 188, 160), (219, 170, 138), (190, 138, 103),
                 (150, 102, 72), (116, 77, 55), (90, 60, 46)]) / 255
HAIR = {"black": (30, 25, 24), "dark brown": (55, 39, 31), "brown": (88, 60, 42), "light brown": (128, 93, 63),
        "blond": (192, 158, 108), "red": (138, 70, 40), "grey": (148, 145, 142), "white": (186, 183, 179)}
HAIR_LIGHT_SKIN = (0.14, 0.22, 0.24, 0.15, 0.17, 0.08, 0.0, 0.0)
HAIR_DEEP_SKIN = (0.72, 0.22, 0.06, 0.0, 0.0, 0.0, 0.0, 0.0)
IRIS = np.array([(58, 38, 26), (92, 60, 38), (118, 92, 54), (102, 112, 80), (92, 124, 150), (122, 132, 138)]) / 255
IRIS_LIGHT_SKIN = (0.18, 0.24, 0.16, 0.12, 0.20, 0.10)
IRIS_DEEP_SKIN = (0.70, 0.26, 0.04, 0.0, 0.0, 0.0)

# name: (low, high), uniform; lengths in face units (see geometry.py)
PROPORTIONS = {
    "half_width": (0.555, 0.655), "crown": (0.80, 0.90), "chin": (0.70, 0.80), "jaw": (0.10, 0.34),
    "square": (0.15, 0.50),
    "eye_x": (0.235, 0.280), "eye_y": (-0.125, -0.075), "eye_half_width": (0.108, 0.138),
    "eye_opening": (0.056, 0.080), "eye_tilt": (-0.008, 0.024), "iris_radius": (0.050, 0.060),
    "lid_fold": (0.0, 1.0),
    "brow_y": (-0.165, -0.122), "brow_half_width": (0.128, 0.165), "brow_thickness": (0.014, 0.030),
    "brow_arch": (0.005, 0.045), "brow_tilt": (-0.008, 0.022), "brow_density": (0.55, 0.95),
    "nose_y": (0.165, 0.225), "nose_half_width": (0.078, 0.112), "nose_strength": (0.7, 1.3),
    "mouth_y": (0.385, 0.435), "mouth_half_width": (0.175, 0.228), "lip_upper": (0.024, 0.042),
    "lip_lower": (0.034, 0.054), "mouth_curve": (-0.024, 0.006),
    "hairline": (-0.66, -0.48), "hair_peak": (-0.10, 0.16), "hair_slant": (-0.16, 0.16),
    "hair_volume": (0.035, 0.13), "hair_phase": (0.0, 6.28), "hair_wave": (0.0, 1.0),
    "cheekbone": (0.3, 1.0), "blush": (0.05, 0.5), "neck_half_width": (0.25, 0.33),
}


@dataclass(frozen=True)
class View:
    """How the camera sees a face: the dials of the crop and of the picture quality.

    scale      size of the head in the frame, (low, high); 1 shows head and shoulders, 1.4 is a tight face crop
    shift      standard deviation of the position, in half frames; `centre_y` moves all faces down
    roll, yaw, pitch    standard deviation in radians (cut at two)
    gaze       standard deviation of the gaze, 1 = iris at the corner of the eye
    light      0 = flat and even, 1 = strong side light and uneven exposure
    grey       share of frames without colour
    blur       (low, high) in passes of a 3×3 binomial filter, 0 … 3
    noise      (low, high) standard deviation of sensor noise, 1 = white − black
    occlusion  share of faces partly covered
    drift      clips: how far pose, gaze and position wander within a clip (multiplies natural drift)
    """

    scale: tuple[float, float] = (0.95, 1.35)
    shift: float = 0.09
    centre_y: float = -0.06
    roll: float = 0.14
    yaw: float = 0.26
    pitch: float = 0.13
    gaze: float = 0.30
    light: float = 0.8
    grey: float = 0.0
    blur: tuple[float, float] = (0.0, 1.2)
    noise: tuple[float, float] = (0.0, 0.025)
    occlusion: float = 0.05
    drift: float = 1.0


def _jitter(rng: np.random.Generator, colour: np.ndarray, brightness: float, hue: float) -> np.ndarray:
    """Vary a colour mainly in brightness and only a little in hue, so that natural stays natural."""
    n = len(colour)
    varied = colour * (1 + brightness * rng.uniform(-1, 1, (n, 1)) + hue * rng.uniform(-1, 1, (n, 3)))
    return varied.clip(0, 1)


def _choose(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """One category per row of weights [n k]."""
    edges = np.cumsum(weights, axis=1)
    return (rng.random((len(weights), 1)) * edges[:, -1:] > edges).sum(1)


def muted_colours(rng: np.random.Generator, count: int, value: tuple[float, float] = (0.12, 0.85)) -> np.ndarray:
    """[count 3] colours of low saturation: walls, cloth, out-of-focus rooms."""
    base = rng.uniform(*value, (count, 1))
    warm, green = rng.uniform(-0.16, 0.16, (count, 1)), rng.uniform(-0.05, 0.05, (count, 1))
    return (base * (1 + np.concatenate((warm, green, -warm), axis=1))).clip(0, 1)


def sample_people(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
    """Identities: proportions, colours, hair, age cues, glasses, beard. Named tensors with leading axis `count`."""
    person = {name: rng.uniform(low, high, count) for name, (low, high) in PROPORTIONS.items()}
    tone, age = rng.random(count), rng.random(count) ** 1.8
    person |= _colours(rng, tone, age)
    long = rng.random(count) < 0.45
    beard = ~long & (rng.random(count) < 0.30)
    bald = ~long & (rng.random(count) < 0.06 + 0.22 * age)
    fringe = rng.random(count) < 0.18
    person["age"] = age
    person["hair_length"] = np.where(long, rng.uniform(0.55, 1.25, count), rng.uniform(0.06, 0.24, count))
    person["hair_sides"] = np.where(long, rng.uniform(0.8, 1.4, count), rng.uniform(0.0, 0.6, count))
    person["hair_volume"] = np.where(bald, -0.06, person["hair_volume"])
    person["hairline"] = np.where(bald, rng.uniform(-1.25, -1.0, count), person["hairline"])
    person["hairline"] = np.where(fringe & ~bald, rng.uniform(-0.42, -0.36, count), person["hairline"])
    person["hair_peak"] = np.where(fringe, 0.10 * person["hair_peak"], person["hair_peak"])
    person["sideburns"] = np.where(long, 0.6, rng.uniform(0.0, 0.25, count))
    person["beard"] = beard * rng.uniform(0.25, 0.95, count)
    person["glasses"] = (rng.random(count) < 0.14 + 0.12 * age).astype(float)
    person["asymmetry"] = 0.10 * rng.standard_normal((count, len(ACTION_UNITS))).clip(-2, 2)
    return _tensors(person)


def _colours(rng: np.random.Generator, tone: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    count = len(tone)
    place = tone * (len(SKIN) - 1)
    lower = place.astype(int).clip(max=len(SKIN) - 2)
    share = (place - lower)[:, None]
    skin = _jitter(rng, SKIN[lower] * (1 - share) + SKIN[lower + 1] * share, 0.05, 0.015)
    deep = tone[:, None].clip(0.25, 0.75) * 2 - 0.5
    hair_weights = np.array(HAIR_LIGHT_SKIN) * (1 - deep) + np.array(HAIR_DEEP_SKIN) * deep
    greying = ((age - 0.45).clip(0) * 1.6)[:, None]
    hair_weights = hair_weights * (1 - greying).clip(0.05) + greying * np.array([0, 0, 0, 0, 0, 0, 0.6, 0.4])
    hair = _jitter(rng, np.array(list(HAIR.values()))[_choose(rng, hair_weights)] / 255, 0.18, 0.03)
    iris_weights = np.array(IRIS_LIGHT_SKIN) * (1 - deep) + np.array(IRIS_DEEP_SKIN) * deep
    iris = _jitter(rng, IRIS[_choose(rng, iris_weights)], 0.15, 0.04)
    lip = skin * (np.array([0.86, 0.60, 0.58]) * (1 - tone[:, None]) + np.array([0.86, 0.66, 0.66]) * tone[:, None])
    painted = (rng.random((count, 1)) < 0.15) * rng.uniform(0.3, 0.8, (count, 1))
    lip = lip * (1 - painted) + np.array([0.62, 0.20, 0.24]) * painted
    brow = hair * 0.75 * np.where(hair.mean(1, keepdims=True) > 0.5, 0.75, 1)
    sclera = np.array([0.93, 0.915, 0.90]) * rng.uniform(0.94, 1.02, (count, 1))
    return {"skin": skin, "hair": hair, "iris": iris, "lip": _jitter(rng, lip, 0.06, 0.02), "brow": brow,
            "sclera": sclera.clip(0, 1), "cloth": muted_colours(rng, count),
            "frame": muted_colours(rng, count, (0.05, 0.3))}


def sample_views(rng: np.random.Generator, count: int, view: View) -> dict[str, Tensor]:
    """Camera, light, background and picture quality for `count` frames, as named tensors."""
    def normal(deviation: float) -> np.ndarray:
        return deviation * rng.standard_normal(count).clip(-2, 2)

    direction, strength = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.05, 0.5, count) * view.light
    seen = {
        "yaw": normal(view.yaw), "pitch": normal(view.pitch), "roll": normal(view.roll),
        "gaze_x": normal(view.gaze), "gaze_y": 0.6 * normal(view.gaze),
        "shift_x": normal(view.shift), "shift_y": view.centre_y + normal(view.shift),
        "scale": rng.uniform(*view.scale, count),
        "light_x": np.cos(direction) * strength, "light_y": 0.6 * np.sin(direction) * strength - 0.10,
        "gain": 1 + 0.20 * view.light * rng.uniform(-1, 0.5, count),
        "warmth": 0.05 * view.light * rng.standard_normal(count).clip(-2, 2),
        "grey": (rng.random(count) < view.grey).astype(float),
        "blur": rng.uniform(*view.blur, count), "noise": rng.uniform(*view.noise, count),
        "backdrop_angle": rng.uniform(0, 2 * np.pi, count), "backdrop_x": rng.uniform(-1, 1, count),
        "backdrop_y": rng.uniform(-1, 0.4, count), "backdrop_radius": rng.uniform(0.4, 1.2, count),
        "occluder": (rng.random(count) < view.occlusion).astype(float),
        "occluder_x": rng.uniform(-0.8, 0.8, count), "occluder_y": rng.uniform(0.1, 1.0, count),
        "occluder_radius": rng.uniform(0.14, 0.28, count), "occluder_angle": rng.uniform(-0.8, 0.8, count),
    }
    near, far, spot = (muted_colours(rng, count) for _ in range(3))
    seen |= {"backdrop": near, "backdrop_far": 0.5 * near + 0.5 * far, "backdrop_spot": 0.4 * near + 0.6 * spot,
             "occluder_colour": muted_colours(rng, count)}
    return _tensors(seen)


def _tensors(named: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(value, dtype=np.float32)) for name, value in named.items()}
