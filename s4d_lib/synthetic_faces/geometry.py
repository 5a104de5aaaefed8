"""parameters → landmarks     how identity, action units and head pose bend the curves of a procedural face.

One set of curves serves two readers. The renderer evaluates them at every pixel (where is this pixel relative to the
lid?), the landmarks are points on the same curves pushed forward through pose and camera, so the 68 points
are exact by construction.

Face coordinates `(u, v)`: u to the viewer's right, v down, origin between the eyes and the nose, one unit = half the
frame at camera scale 1. Sides are the viewer's: 0 = left half of the image, 1 = right half. Every field is `[b n]`
(n pixels or points), every attribute `[b 1]`, every attribute with sides `[b 2]`.

Action units are numbered as in FACS (Ekman & Friesen 1978); 0 = absent, 1 = clearly marked, up to 1.25 = extreme.
Landmarks follow the iBUG 300-W order: jaw 17, brows 5+5, nose 4+5, eyes 6+6, mouth 12 outer + 8 inner.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 23, 24, 25, 26, 27, 43)
AU_INDEX = {unit: column for column, unit in enumerate(ACTION_UNITS)}
MAX_TURN = 0.65     # radians; beyond it the paraboloid of the head would fold over itself
PARALLAX = 0.40     # how far the front of the head travels, in face units per radian
NOSE_DEPTH = 0.10   # how much further the tip of the nose travels


def coverage(distance: Tensor, pixels_per_unit: Tensor, softness: float = 1.0) -> Tensor:
    """Share of a pixel inside a shape, from a signed distance in face units (negative inside); edge `softness` px."""
    return (0.5 - distance * (pixels_per_unit / softness)).clamp_(0, 1)


def bump(q: Tensor) -> Tensor:
    """A soft hill: 1 at q = 0, exactly 0 from q = 1 on. Compact, so that drawing inside a window leaves no seam."""
    return (1 - q).clamp_(min=0).square_()


def fourth(x: Tensor) -> Tensor:
    """x⁴ by two squarings; `x ** 4` calls a general power, twenty times slower."""
    return x.square().square_()


class FaceShape:
    """The curves of b faces, for one vector of action units each.

    face           named tensors, [b] per scalar and [b 3] per colour (see `people.py`)
    action_units   [b u], columns as in ACTION_UNITS
    size           frame height = width in pixels
    """

    def __init__(self, face: dict[str, Tensor], action_units: Tensor, size: int) -> None:
        if action_units.ndim != 2 or action_units.shape[1] != len(ACTION_UNITS):
            raise ValueError(f"action units must be [b {len(ACTION_UNITS)}], got {list(action_units.shape)}")
        self.face, self.size = face, size
        # The two sides of a face never move quite alike: asymmetry makes one stronger as the other weakens.
        side = torch.stack((1 - face["asymmetry"], 1 + face["asymmetry"]), dim=2)
        self._units = action_units[:, :, None] * side
        self.pixels = self.get("scale") * (size / 2)
        self._pose()
        self._head()
        self._eyes_and_brows()
        self._nose()
        self._mouth()

    def get(self, name: str) -> Tensor:
        """A scalar parameter as [b 1]."""
        return self.face[name][:, None]

    def au(self, unit: int) -> Tensor:
        """Intensity of one action unit on each side, [b 2]."""
        return self._units[:, AU_INDEX[unit]]

    def mean_au(self, unit: int) -> Tensor:
        """Intensity of one action unit, mean of the sides, [b 1]."""
        return self.au(unit).mean(1, keepdim=True)

    def _pose(self) -> None:
        self.yaw = self.get("yaw").clamp(-MAX_TURN, MAX_TURN)
        self.pitch = self.get("pitch").clamp(-MAX_TURN, MAX_TURN)
        self.cos = torch.cos(self.get("roll")) / self.get("scale")
        self.sin = torch.sin(self.get("roll")) / self.get("scale")

    def _head(self) -> None:
        au = self.mean_au
        self.jaw_drop = 0.085 * au(26) + 0.17 * au(27) + 0.01 * au(25)
        self.chin = self.get("chin") + 0.70 * self.jaw_drop - 0.012 * au(17)
        self.crown = self.get("crown")
        self.half_width = self.get("half_width") * (1 - 0.02 * au(26) - 0.045 * au(27))
        self.jaw = self.get("jaw")
        self.square = self.get("square")

    def _eyes_and_brows(self) -> None:
        au = self.au
        self.eye_x, self.eye_y = self.get("eye_x"), self.get("eye_y")
        self.eye_half_width, self.eye_tilt = self.get("eye_half_width"), self.get("eye_tilt")
        opening = self.get("eye_opening")
        self.closed = au(43).clamp(max=1)
        narrow = 0.20 * au(4) + 0.30 * au(7) + 0.18 * au(6) + 0.22 * au(9)
        upper = opening * (1 + 0.60 * au(5) - narrow).clamp(min=0.25)
        lower = 0.62 * opening * (1 - 0.50 * au(6) - 0.55 * au(7) - 0.30 * au(9) - 0.12 * au(12) + 0.18 * au(5))
        self.lower_lid_drop = lower.clamp(min=0.0) * (1 - 0.25 * self.closed)
        self.upper_lid_rise = upper * (1 - self.closed) - self.lower_lid_drop * 0.8 * self.closed
        self.brow_x = self.eye_x + 0.008 - 0.040 * au(4)
        self.brow_half_width = self.get("brow_half_width")
        self.brow_y = (self.eye_y + self.get("brow_y") + 0.022 * au(9) + 0.012 * au(6)
                       + 0.034 * au(4) * (1 - 0.5 * au(1)) - 0.045 * au(2) - 0.012 * au(1) - 0.012 * au(5))

    def _nose(self) -> None:
        au = self.mean_au
        self.nose_y = self.get("nose_y") - 0.030 * au(9) - 0.012 * au(10) + 0.07 * self.pitch
        self.nose_half_width = self.get("nose_half_width") * (1 + 0.18 * au(9) + 0.10 * au(10) + 0.06 * au(12))

    def _mouth(self) -> None:
        au = self.au
        mean = self.mean_au
        stretch = (0.27 * au(12) + 0.30 * au(20) + 0.12 * au(14) + 0.05 * au(15)
                   - 0.17 * au(23) - 0.10 * au(24) - 0.42 * au(18) - 0.13 * au(27) - 0.06 * au(26))
        self.mouth_half_width = self.get("mouth_half_width") * (1 + stretch)
        self.mouth_y = self.get("mouth_y") + 0.22 * self.jaw_drop - 0.022 * mean(17) - 0.012 * mean(9)
        parted = mean(25)
        self.gap_up = 0.008 * parted + 0.016 * parted * mean(12) + 0.010 * mean(26) + 0.020 * mean(27)
        self.gap_low = (0.026 * parted + 0.030 * parted * mean(12) + 0.075 * mean(26) + 0.165 * mean(27)
                        + 0.032 * mean(16) - 0.012 * mean(17)).clamp(min=0)
        thin = (1 - 0.50 * mean(23) - 0.62 * mean(24) + 0.40 * mean(18) - 0.14 * mean(12)).clamp(min=0.22)
        self.lip_upper = self.get("lip_upper") * thin * (1 - 0.22 * mean(20))
        self.lip_lower = self.get("lip_lower") * thin * (1 + 0.25 * mean(17) + 0.20 * mean(16) - 0.18 * mean(20))
        # A dropped jaw opens a rounder hole than parted lips do.
        self.roundness = (1.6 * mean(26) + 2.0 * mean(27) + 0.8 * mean(18)).clamp(0, 1)

    # ---------------------------------------------------------------- curves: parameter t along, v across

    def outline(self, n: Tensor) -> Tensor:
        """Half width of the head at height n (−1 crown … 0 … 1 chin)."""
        n2 = n * n
        taper = 1 - self.jaw * n.clamp(min=0).square()
        return self.half_width * taper * (1 - n2 * (1 - self.square + self.square * n2)).clamp(min=0).sqrt()

    def head_radius(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Squared radius of the head (1 on its outline) and the height n."""
        n = y.clamp(min=0) / self.chin + y.clamp(max=0) / self.crown
        n2 = n * n
        across = x / (self.half_width * (1 - self.jaw * n.clamp(min=0).square()))
        return across * across + n2 * (1 - self.square + self.square * n2), n

    def brow(self, t: Tensor, side: int) -> Tensor:
        """Height of the middle of a brow; t from −1 (inner end) to 1 (outer end)."""
        au = {unit: self.au(unit)[:, side : side + 1] for unit in (1, 2, 4)}
        inner, outer = ((1 - t) * 0.5).clamp(0, 1), ((1 + t) * 0.5).clamp(0, 1)
        return (self.brow_y[:, side : side + 1] + self.get("brow_arch") * (t * t - 0.4)
                + self.get("brow_tilt") * t - 0.130 * au[1] * inner * inner
                - 0.070 * au[2] * outer * outer + 0.070 * au[4] * (1 - 0.6 * au[1]) * inner)

    def lids(self, t: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Heights of the upper and the lower lid; t from −1 (inner corner) to 1 (outer corner)."""
        inside = (1 - t * t).clamp(min=0)
        axis = self.eye_y - self.eye_tilt * t
        upper = axis - self.upper_lid_rise[:, side : side + 1] * inside * (1 + 0.18 * t - 0.25 * inside + 0.25)
        lower = axis + self.lower_lid_drop[:, side : side + 1] * inside * (1 + 0.10 * t)
        return torch.minimum(upper, lower), lower

    def nose_shift(self, v: Tensor) -> Tensor:
        """Sideways parallax of the ridge of the nose, growing from the bridge to the tip."""
        down = ((v - self.eye_y) / (self.nose_y - self.eye_y)).clamp(0, 1)
        return NOSE_DEPTH * self.yaw * down * down

    def across(self, unit: int, t: Tensor) -> Tensor:
        """An action unit that fades from its left to its right intensity along the mouth, t in [−1, 1]."""
        left, right = self.au(unit).split(1, dim=1)
        return left + (right - left) * ((t.clamp(-1, 1) + 1) * 0.5)

    def mouth_t(self, u: Tensor) -> Tensor:
        """Position along the mouth, −1 at the left corner, 1 at the right."""
        left, right = self.mouth_half_width.split(1, dim=1)
        return u / torch.where(u < 0, left, right)

    def lips(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heights of upper lip top, upper lip bottom, lower lip top, lower lip bottom, at t in [−1, 1]."""
        t2 = t * t
        inside = (1 - t2).clamp(min=0)
        arch = inside.sqrt()
        middle = (self.mouth_y + self.get("mouth_curve") * (t2 - 0.5)
                  - 0.145 * self.across(12, t) * (t2 - 0.40) + 0.105 * self.across(15, t) * (t2 - 0.30)
                  - 0.030 * self.across(14, t) * t2 + 0.030 * self.mean_au(20) * (t2 - 0.2))
        opening = inside + self.roundness * (arch - inside)
        raised = 0.045 * self.across(10, t) * opening
        upper_in = middle - self.gap_up * opening - raised
        lower_in = middle + self.gap_low * opening
        cupid = 1 - 0.26 / (1 + 44 * t2) + 0.10 * inside
        upper_out = upper_in - self.lip_upper * arch * cupid
        return upper_out, upper_in, lower_in, lower_in + self.lip_lower * arch

    # ---------------------------------------------------------------- pose and camera

    def to_head(self, px: Tensor, py: Tensor) -> tuple[Tensor, Tensor]:
        """Frame coordinates (−1 … 1) → head coordinates: undo shift, roll and scale."""
        x, y = px - self.get("shift_x"), py - self.get("shift_y")
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x

    def place(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Face coordinates → pixel coordinates (pixel centres are integers).

        The drawing maps a pixel at head position p to face position p − turn · depth(p). Forward we look for the
        depth z with depth(face + turn · z) = z; it lies in [0, 1], and halving that interval always finds it.
        """
        ax, ay = PARALLAX * self.yaw, PARALLAX * self.pitch
        low, high = torch.zeros_like(u), torch.ones_like(u)
        for _ in range(14):
            z = (low + high) * 0.5
            deeper = 1 - self.head_radius(u + ax * z, v + ay * z)[0] > z
            low, high = torch.where(deeper, z, low), torch.where(deeper, high, z)
        return self.to_pixels(u + ax * low, v + ay * low)

    def to_pixels(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Head coordinates → pixel coordinates."""
        scale2 = self.get("scale") ** 2
        px = (self.cos * x - self.sin * y) * scale2 + self.get("shift_x")
        py = (self.sin * x + self.cos * y) * scale2 + self.get("shift_y")
        return (px + 1) * (self.size / 2) - 0.5, (py + 1) * (self.size / 2) - 0.5

    # ---------------------------------------------------------------- the 68 points

    def landmarks(self) -> Tensor:
        """[b 68 2] pixel positions (x, y), iBUG order."""
        jaw = torch.stack(self.to_pixels(*self._jaw_points()), dim=2)
        parts = [self._brow_points(0), self._brow_points(1), self._nose_points(),
                 self._eye_points(0), self._eye_points(1), self._mouth_points()]
        u, v = (torch.cat([part[axis] for part in parts], dim=1) for axis in (0, 1))
        return torch.cat((jaw, torch.stack(self.place(u, v), dim=2)), dim=1)

    def _jaw_points(self) -> tuple[Tensor, Tensor]:
        angle = torch.linspace(0, torch.pi, 17, device=self.pixels.device)[None]
        n = (-0.05 + 1.05 * torch.sin(angle)).expand(self.pixels.shape[0], -1)
        y = torch.where(n < 0, n * self.crown, n * self.chin)
        return -torch.cos(angle).sign() * self.outline(n), y

    def _along(self, *positions: float) -> Tensor:
        return self.pixels.new_tensor(positions)[None].expand(self.pixels.shape[0], -1)

    def _brow_points(self, side: int) -> tuple[Tensor, Tensor]:
        t = self._along(1, 0.5, 0, -0.5, -1) if side == 0 else self._along(-1, -0.5, 0, 0.5, 1)
        u = self.brow_x[:, side : side + 1] + self.brow_half_width * t
        return (u if side else -u), self.brow(t, side)

    def _nose_points(self) -> tuple[Tensor, Tensor]:
        ridge = self.eye_y + (self.nose_y - 0.035 - self.eye_y) * self._along(0.05, 0.37, 0.68, 1.0)
        base = self.nose_y + self._along(0.0, 0.026, 0.036, 0.026, 0.0)
        wings = self.nose_half_width * self._along(-0.95, -0.5, 0, 0.5, 0.95)
        v = torch.cat((ridge, base), dim=1)
        return torch.cat((torch.zeros_like(ridge), wings), dim=1) + self.nose_shift(v), v

    def _eye_points(self, side: int) -> tuple[Tensor, Tensor]:
        outer_first = (1, 0.4, -0.4, -1, -0.4, 0.4)
        t = self._along(*outer_first) if side == 0 else self._along(*(-p for p in outer_first))
        upper, lower = self.lids(t, side)
        v = torch.cat((upper[:, :4], lower[:, 4:]), dim=1)
        u = self.eye_x + self.eye_half_width * t
        return (u if side else -u), v

    def _mouth_points(self) -> tuple[Tensor, Tensor]:
        top = self._along(-1, -0.62, -0.22, 0, 0.22, 0.62, 1)
        bottom = self._along(0.62, 0.25, 0, -0.25, -0.62)
        inner_top, inner_bottom = self._along(-0.88, -0.30, 0, 0.30, 0.88), self._along(0.30, 0, -0.30)
        t = torch.cat((top, bottom, inner_top, inner_bottom), dim=1)
        rows = [self.lips(part)[row] for part, row in ((top, 0), (bottom, 3), (inner_top, 1), (inner_bottom, 2))]
        left, right = self.mouth_half_width.split(1, dim=1)
        return t * torch.where(t < 0, left, right), torch.cat(rows, dim=1)
