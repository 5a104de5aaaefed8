"""window → window     brush strokes for eyes, brows, forehead, nose and mouth, each inside its own small window.

Drawing an eye over the whole frame would waste ninety-five pixels of a hundred. The renderer therefore cuts a window
around each feature; the strokes below receive it and change its colours in place. Shades (furrows, folds, hollows) are
summed into one field per window and applied once. All hills are compact (`bump`), so windows have no seams.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from s4d_lib.synthetic_faces.geometry import FaceShape, bump, coverage, fourth

SHADOW_TINT = (0.82, 1.0, 1.06)      # shadows on skin lose least red: light bleeds through
MOUTH_DARK = (0.20, 0.07, 0.07)
TONGUE = (0.62, 0.28, 0.28)
TEETH = (0.92, 0.90, 0.85)
LASHES = (0.09, 0.065, 0.055)


@dataclass
class Window:
    """Some pixels of b frames: where they lie on the face, how they are lit, and their colours.

    u, v, light  [b n]     skin   [b n] share of the pixel on the head     index  [b n] flat pixel numbers in the frame
    rgb    [b 3 n], changed by the strokes
    """

    u: Tensor
    v: Tensor
    light: Tensor
    skin: Tensor
    rgb: Tensor
    index: Tensor
    pixels: Tensor

    def cover(self, distance: Tensor, softness: float = 1.0) -> Tensor:
        return coverage(distance, self.pixels, softness)

    def shade(self, amount: Tensor) -> None:
        """Darken skin by `amount` [b n] (negative brightens)."""
        tint = self.rgb.new_tensor(SHADOW_TINT)[None, :, None]
        self.rgb = self.rgb * (1 - amount[:, None] * tint)

    def paint(self, mask: Tensor, colour: Tensor | tuple[float, ...], light: Tensor | None = None) -> None:
        """Blend in a colour ([b 3], [b 3 n] or a triple), multiplied by `light` [b n]."""
        if isinstance(colour, tuple):
            colour = self.rgb.new_tensor(colour)[None]
        if colour.ndim == 2:
            colour = colour[:, :, None]
        if light is not None:
            colour = colour * light[:, None]
        self.rgb = torch.lerp(self.rgb, colour.expand_as(self.rgb), mask[:, None])


# -------------------------------------------------------------------------------------------------- upper face


def draw_forehead(window: Window, shape: FaceShape) -> None:
    """Forehead lines (AU 1, 2, age), frown lines (AU 4) and wrinkles at the root of the nose (AU 9)."""
    u, v = window.u, window.v
    brow = shape.brow_y.mean(1, keepdim=True)
    age = shape.get("age")
    raised = (0.60 * shape.mean_au(1) + 0.55 * shape.mean_au(2)).clamp(max=1.1)
    height = v - (brow - 0.20) - 0.25 * u * u
    lines = (torch.cos(height * 66) * 0.5 + 0.5) * bump((height / 0.16) ** 2 + (u / 0.46) ** 2)
    dark = (0.24 * raised + 0.10 * age * age) * lines
    frown = shape.mean_au(4) + 0.35 * shape.mean_au(9)
    beside = (u.abs() - 0.052) / 0.034
    at_brow = ((v - brow + 0.005) / 0.12) ** 2
    dark = dark + (0.44 * frown + 0.05 * age) * bump(beside**2 + at_brow)
    dark = dark + 0.18 * frown * bump((u / 0.16) ** 2 + at_brow)
    root = v - (shape.eye_y + 0.055)
    creases = torch.cos(root * 80 + u * u * 160) * 0.5 + 0.5
    dark = dark + 0.42 * shape.mean_au(9) * creases * bump((u / 0.13) ** 2 + (root / 0.115) ** 2)
    window.shade(dark)


def draw_eye(window: Window, shape: FaceShape, side: int) -> None:
    """One eye with its lids, lashes, socket, brow and, where worn, half of the glasses."""
    u, v = (window.u if side else -window.u), window.v
    e, below = u - shape.eye_x, v - shape.eye_y
    t = e / shape.eye_half_width
    upper, lower = shape.lids(t, side)
    _shade_socket(window, shape, side, u, e, t, below, upper)
    _paint_eyeball(window, shape, side, e, t, v, upper, lower)
    _paint_brow(window, shape, side, u, v)
    if bool((shape.face["glasses"] > 0).any()):
        _paint_glasses(window, shape, u, e, below)


def _shade_socket(window: Window, shape: FaceShape, side: int, u: Tensor, e: Tensor, t: Tensor, below: Tensor,
                  upper: Tensor) -> None:
    column = slice(side, side + 1)
    au6, au7, age = shape.au(6)[:, column], shape.au(7)[:, column], shape.get("age")
    t2 = t * t
    dark = 0.20 * bump((e / 0.24) ** 2 + ((below + 0.06) / 0.13) ** 2)
    dark = dark + 0.20 * bump(((u - 0.105) / 0.085) ** 2 + ((below + 0.02) / 0.14) ** 2)
    # The cheek pushed up by AU 6 makes a pouch and a fold below the eye; AU 7 tightens the lower lid; age sags it.
    fold = below - 0.082 + 0.035 * t2 + 0.012 * au6
    dark = dark + (0.26 * au6 + 0.08 * au7 + 0.14 * age) * bump((fold / 0.034) ** 2 + (e / 0.17) ** 2)
    dark = dark - 0.10 * au6 * bump(((fold - 0.055) / 0.05) ** 2 + (e / 0.18) ** 2)
    beside = e - shape.eye_half_width - 0.060
    rays = torch.cos(below * 78 + beside * 22 * below.sign()) * 0.5 + 0.5
    dark = dark + (0.30 * au6 + 0.14 * age * age) * rays * bump((beside / 0.085) ** 2 + (below / 0.115) ** 2)
    crease = window.v - upper + (0.022 + 0.020 * shape.get("lid_fold")) * (1.15 - 0.45 * t2)
    dark = dark + (0.16 + 0.20 * shape.get("lid_fold")) * bump((crease / 0.020) ** 2) * bump(fourth(t / 1.25))
    window.shade(dark)


def _paint_eyeball(window: Window, shape: FaceShape, side: int, e: Tensor, t: Tensor, v: Tensor, upper: Tensor,
                   lower: Tensor) -> None:
    within = window.cover((t.abs() - 1) * shape.eye_half_width)
    opening = ((lower - upper) * window.pixels).clamp(0, 1)
    eye = window.cover(torch.maximum(upper - v, v - lower)) * within * opening
    # The upper lid and its lashes throw a shadow on the ball, which also turns away towards its corners.
    lit = window.light.clamp(0.5, 1.1) * (1 - 0.38 * (1 - (v - upper) / 0.035).clamp(0, 1) - 0.22 * t * t)
    window.paint(eye, shape.face["sclera"], lit)
    window.paint(eye * bump(((t + 1.0) / 0.22) ** 2) * 0.7, (0.70, 0.42, 0.40))

    sign = 1 if side else -1
    gaze = shape.get("gaze_x").clamp(-1, 1) * 0.055 - 0.35 * shape.yaw * 0.05
    across, down = e - sign * gaze, v - shape.eye_y - shape.get("gaze_y").clamp(-1, 1) * 0.022 + 0.006
    radius = shape.get("iris_radius")
    r = (across**2 + down**2).sqrt()
    iris = window.cover(r - radius) * eye
    ring = 1.18 - 0.75 * ((r / radius - 0.45) / 0.55).clamp(0, 1).square()
    ring = ring + 0.30 * bump((across / radius) ** 2 + ((down - 0.5 * radius) / radius) ** 2)
    window.paint(iris, shape.face["iris"], ring * lit.clamp(min=0.55))
    window.paint(window.cover(r - 0.46 * radius) * eye * 0.95, (0.03, 0.025, 0.025))
    glint = window.cover(((across - 0.020) ** 2 + (down + 0.020) ** 2).sqrt() - 0.0125)
    window.paint(glint * eye * 0.85, (1.0, 1.0, 1.0))

    reach = window.cover((t.abs() - 1.06) * shape.eye_half_width, 1.5)
    thickness = 0.0085 + 0.0045 * (t + 1).clamp(0, 2)
    window.paint(window.cover((v - upper + 0.004).abs() - thickness) * reach * 0.85, LASHES)
    window.paint(window.cover((v - lower).abs() - 0.006) * reach * 0.30, LASHES)


def _paint_brow(window: Window, shape: FaceShape, side: int, u: Tensor, v: Tensor) -> None:
    t = (u - shape.brow_x[:, side : side + 1]) / shape.brow_half_width
    outer = ((1 + t) * 0.5).clamp(0, 1)
    # AU 4 bunches the inner ends, which is what makes a frown readable from afar.
    thickness = shape.get("brow_thickness") * (1.10 - 0.50 * outer * outer)
    thickness = thickness * (1 - 0.65 * fourth(t)).clamp(min=0.2) * (1 + 0.22 * shape.mean_au(4))
    mask = window.cover((v - shape.brow(t, side)).abs() - thickness, 1.7)
    mask = mask * window.cover((t.abs() - 1) * shape.brow_half_width, 1.6)
    hairs = 0.95 + 0.05 * torch.sin(u * 150 + v * 110)
    window.paint(mask * shape.get("brow_density") * hairs, shape.face["brow"], window.light.clamp(0.6, 1.1))


def _paint_glasses(window: Window, shape: FaceShape, u: Tensor, e: Tensor, below: Tensor) -> None:
    q = (fourth((e - 0.004) / 0.172) + fourth((below - 0.022) / 0.128)).sqrt().sqrt()
    worn = (shape.face["glasses"] > 0).to(u.dtype)[:, None]
    window.paint(window.cover((q - 1) * 0.14) * worn * 0.07, (0.92, 0.95, 1.0))
    rim = window.cover(((q - 1) * 0.14).abs() - 0.0095)
    bridge = window.cover(torch.maximum((below + 0.010).abs() - 0.0085, u - (shape.eye_x - 0.166)))
    temple = window.cover(torch.maximum((below + 0.035).abs() - 0.0075, (shape.eye_x + 0.172) - u)) * window.skin
    window.paint(torch.maximum(rim, torch.maximum(bridge, temple)) * worn * 0.92, shape.face["frame"])


# -------------------------------------------------------------------------------------------------- nose


def draw_nose(window: Window, shape: FaceShape) -> None:
    """Ridge, side planes, tip, wings and nostrils; wider and higher with AU 9 and 10."""
    v = window.v
    u = window.u - shape.nose_shift(v)
    beside, nose_y, wing = u.abs(), shape.nose_y, shape.nose_half_width
    strength = shape.get("nose_strength")
    # The side away from the light, and the side turned away from the camera, is the darker one.
    facing = 1 - 2.2 * shape.get("light_x") * u.sign() - 0.7 * shape.yaw * u.sign()
    dark = -0.11 * bump((u / 0.060) ** 2 + ((v - nose_y + 0.16) / 0.24) ** 2)
    dark = dark - 0.12 * bump((u / 0.075) ** 2 + ((v - nose_y + 0.030) / 0.062) ** 2)
    slope = bump(((beside - 0.062 - 0.25 * (v - nose_y + 0.2) * wing) / 0.052) ** 2 + ((v - nose_y + 0.15) / 0.22) ** 2)
    dark = dark + 0.22 * facing * slope
    dark = dark + 0.34 * bump(((beside - 1.06 * wing) / 0.040) ** 2 + ((v - nose_y + 0.002) / 0.062) ** 2)
    dark = dark + 0.13 * facing * bump(((beside - 0.62 * wing) / 0.035) ** 2 + ((v - nose_y + 0.035) / 0.05) ** 2)
    dark = dark + 0.30 * bump((u / (1.15 * wing)) ** 2 + ((v - nose_y - 0.026) / 0.026) ** 2)
    dark = dark + 0.15 * bump((u / (1.25 * wing)) ** 2 + ((v - nose_y - 0.055) / 0.055) ** 2)
    dark = dark * strength
    nostril = bump(((beside - 0.52 * wing) / 0.044) ** 2 + ((v - nose_y - 0.017 + 0.05 * shape.pitch) / 0.028) ** 2)
    window.shade((dark + 0.62 * nostril).clamp(max=0.85))


# -------------------------------------------------------------------------------------------------- mouth


def draw_mouth(window: Window, shape: FaceShape) -> None:
    """Folds and chin first, then lips, then what is seen between them."""
    t = shape.mouth_t(window.u)
    curves = shape.lips(t)
    _shade_lower_face(window, shape, t, curves[3])
    _paint_lips(window, shape, t, curves)


def _shade_lower_face(window: Window, shape: FaceShape, t: Tensor, lip_edge: Tensor) -> None:
    u, v = window.u, window.v
    beside, age = u.abs(), shape.get("age")
    au = {unit: shape.across(unit, t) for unit in (9, 10, 12, 14, 15, 20)}
    corner = shape.mouth_half_width.mean(1, keepdim=True)
    nose_y, mouth_y, wing = shape.nose_y, shape.mouth_y, shape.nose_half_width
    corner_y = mouth_y - 0.087 * au[12] + 0.073 * au[15]
    # Nasolabial fold: from the wing of the nose to beyond the mouth corner; dark in the fold, bright on the cheek.
    down = ((v - nose_y + 0.03) / (mouth_y - nose_y + 0.05)).clamp(0, 1)
    line = wing * 1.18 + (corner * 1.10 + 0.045 - wing * 1.18) * down * (1.25 - 0.25 * down)
    deep = (0.04 + 0.15 * age + 0.22 * au[12] + 0.27 * au[9] + 0.24 * au[10] + 0.08 * au[20]).clamp(max=0.42)
    reach = bump((v - 0.5 * (nose_y + mouth_y)).square() / (0.62 * (mouth_y - nose_y) + 0.06) ** 2)
    dark = deep * (bump(((beside - line) / 0.050) ** 2) - 0.40 * bump(((beside - line - 0.075) / 0.085) ** 2)) * reach
    dark = dark + 0.09 * bump(((beside - 0.030) / 0.022) ** 2 + ((v - 0.5 * (nose_y + mouth_y) + 0.01) / 0.08) ** 2)
    at_corner = bump(((beside - corner - 0.015) / 0.045) ** 2 + ((v - corner_y) / 0.045) ** 2)
    dark = dark + (0.15 + 0.10 * au[12] + 0.42 * au[14] + 0.12 * au[15]) * at_corner
    sag = bump(((beside - corner + 0.004 - 0.3 * (v - corner_y)) / 0.050) ** 2 + ((v - corner_y - 0.07) / 0.085) ** 2)
    dark = dark + (0.08 * age + 0.18 * au[15] + 0.06 * au[20]) * sag
    dark = dark + 0.26 * bump((u / 0.16) ** 2 + ((v - lip_edge - 0.028) / 0.042) ** 2)
    chin = v - 0.5 * (lip_edge + shape.chin)
    ball = bump((u / 0.15) ** 2 + (chin / 0.085) ** 2)
    pits = torch.cos(u * 58 + 0.6) * torch.cos(chin * 66 + 9 * u) * 0.5 + 0.5
    dark = dark - 0.07 * ball + shape.mean_au(17) * ball * (0.08 + 0.20 * pits)
    window.shade(dark)


def _paint_lips(window: Window, shape: FaceShape, t: Tensor, curves: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    v, (upper_out, upper_in, lower_in, lower_out) = window.v, curves
    half_width = shape.mouth_half_width.mean(1, keepdim=True)
    within = window.cover((t.abs() - 1) * half_width)
    gap = lower_in - upper_in
    line = 0.5 * (upper_in + lower_in)
    lips = window.cover(torch.maximum(upper_out - v, v - lower_out), 1.3) * within
    # The upper lip looks down and is dark, the lower one catches light along its middle.
    thickness = (lower_out - lower_in).clamp(min=0.01)
    shine = bump(((v - lower_in) / thickness - 0.45).square() * 2.2 + (t / 0.75) ** 2)
    relief = 0.84 + (0.16 * (v > line) + 0.20 * shine)
    window.paint(lips * 0.92, shape.face["lip"], window.light.clamp(0.5, 1.2) * relief)

    inside = window.cover(torch.maximum(upper_in - v, v - lower_in)) * within * (gap * window.pixels).clamp(0, 1)
    depth = shape.gap_up + shape.gap_low + 0.045 * shape.mean_au(10) + 0.02
    tongue = bump((t / 0.85) ** 2 + ((v - lower_in) / (0.55 * depth)) ** 2)
    dark = window.rgb.new_tensor(MOUTH_DARK)[None, :, None]
    colour = torch.lerp(dark, window.rgb.new_tensor(TONGUE)[None, :, None], tongue[:, None])
    rounded = 1 - 0.35 * t * t
    seams = 1 - 0.10 * bump((torch.cos(window.u * 88) + 1) * 3)
    upper_teeth = window.cover(v - upper_in - 0.040 * rounded) * bump(fourth(t / 1.02).square())
    shown = 0.35 + (0.65 * shape.mean_au(12) + 0.6 * shape.mean_au(10) + 0.5 * shape.mean_au(20)).clamp(max=0.6)
    lower_shown = (0.75 * shape.mean_au(16) + 0.45 * shape.mean_au(20)).clamp(max=0.85)
    lower_teeth = window.cover(lower_in - 0.026 * rounded - v) * bump(fourth(t / 0.85)) * lower_shown
    teeth = torch.maximum(upper_teeth * shown, lower_teeth)
    shaded = window.rgb.new_tensor(TEETH)[None, :, None] * (seams * (1 - 0.35 * t * t))[:, None]
    colour = torch.lerp(colour.expand_as(window.rgb), shaded, teeth[:, None])
    window.paint(inside, colour, window.light.clamp(0.6, 1.1))
    closed = window.cover((v - line).abs() - 0.0075) * window.cover((t.abs() - 1.02) * half_width) * (1 - inside)
    window.paint(closed * 0.62 * (1 - (gap * window.pixels - 1).clamp(0, 1)), (0.16, 0.06, 0.055))
