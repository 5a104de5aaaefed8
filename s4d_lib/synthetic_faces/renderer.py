"""parameters → pixels     a vectorised painter of procedural faces: any identity, pose, light and action units.

    frames, landmarks = render(face, action_units, size=64)      # u8 [b h w 3], [b 68 2] in pixels

Faces are painted back to front: backdrop, hair behind the head, neck, clothes, ears, skin, beard, features (each in a
window of its own, `features.py`), hair in front, things in the way; then the camera: exposure, warmth, grey, blur,
noise. Head turns are 2.5-D: a pixel looks up the face at a place displaced by the depth of a paraboloid, so features
slide and foreshorten while the outline stays. The same curves give exact landmarks (`geometry.py`).

Everything is elementwise over `[b n]` fields (n = h·w), hence runs on whatever device the parameters live on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s4d_lib.errors import Refused
from s4d_lib.synthetic_faces.features import Window, draw_eye, draw_forehead, draw_mouth, draw_nose
from s4d_lib.synthetic_faces.geometry import PARALLAX, FaceShape, bump, coverage, fourth

RENDERER_VERSION = 1    # raise it whenever the same parameters give other pixels: written data sets name it
CHUNK = 48              # frames painted together: few enough for the processor's cache, enough to hide call overhead


@torch.no_grad()
def render(face: dict[str, Tensor], action_units: Tensor, size: int = 64,
           generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Paint b faces.

    face           named tensors, [b] or [b 3]: `sample_people` | `sample_views` of `people.py`
    action_units   [b u], 0 … about 1.25, columns as ACTION_UNITS
    size           height = width of the frames in pixels, at least 16
    generator      source of the sensor noise (default: a fresh one, seed 0)
    → frames uint8 [b h w 3] and landmarks float32 [b 68 2] as (x, y), pixel centres at integers.
    """
    if size < 16:
        raise Refused(f"size is {size} px; faces need at least 16 px")
    generator = generator or torch.Generator(action_units.device).manual_seed(0)
    frames, landmarks = [], []
    for start in range(0, len(action_units), CHUNK):
        part = slice(start, start + CHUNK)
        shape = FaceShape({name: value[part] for name, value in face.items()}, action_units[part], size)
        canvas = Canvas(shape)
        canvas.paint_scene()
        canvas.paint_features()
        canvas.paint_front()
        frames.append(_photograph(canvas, generator))
        landmarks.append(shape.landmarks())
    return torch.cat(frames), torch.cat(landmarks)


class Canvas:
    """Pixels of b frames while they are painted: `rgb` [b 3 n] and the coordinate fields [b n] of the head."""

    def __init__(self, shape: FaceShape) -> None:
        self.shape, self.get, size = shape, shape.get, shape.size
        axis = (torch.arange(size, device=shape.pixels.device) + 0.5) / size * 2 - 1
        self.frame_y, self.frame_x = (grid.reshape(1, -1) for grid in torch.meshgrid(axis, axis, indexing="ij"))
        self.x, self.y = shape.to_head(self.frame_x, self.frame_y)
        self.radius2, self.height = shape.head_radius(self.x, self.y)
        self.depth = (1 - self.radius2).clamp_(min=0)
        self.u = self.x - PARALLAX * shape.yaw * self.depth
        self.v = self.y - PARALLAX * shape.pitch * self.depth
        self.rgb = self._backdrop()

    def cover(self, distance: Tensor, softness: float = 1.0) -> Tensor:
        return coverage(distance, self.shape.pixels, softness)

    def colour(self, name: str) -> Tensor:
        return self.shape.face[name][:, :, None]

    def blend(self, mask: Tensor, colour: Tensor) -> None:
        """Lay a colour [b 3 1] or [b 3 n] over the picture where mask [b n] is 1."""
        self.rgb = torch.lerp(self.rgb, colour.expand_as(self.rgb), mask[:, None])

    def _backdrop(self) -> Tensor:
        x, y = self.frame_x, self.frame_y
        angle = self.get("backdrop_angle")
        along = (0.5 + 0.4 * (torch.cos(angle) * x + torch.sin(angle) * y)).clamp_(0, 1)
        rgb = torch.lerp(self.colour("backdrop"), self.colour("backdrop_far"), along[:, None])
        spot = bump(((x - self.get("backdrop_x")) ** 2 + (y - self.get("backdrop_y")) ** 2)
                    / self.get("backdrop_radius") ** 2)
        return torch.lerp(rgb, self.colour("backdrop_spot").expand_as(rgb), spot[:, None])

    # ---------------------------------------------------------------- scene

    def paint_scene(self) -> None:
        """Everything up to and including bare skin."""
        shape, x, y = self.shape, self.x, self.y
        skin = self.colour("skin")
        shadow = skin * skin.new_tensor((0.60, 0.50, 0.47))[None, :, None]
        self.hair = self._hair_colour()
        self.blend(self._hair_behind(), self.hair)

        neck_width = self.get("neck_half_width") + 0.35 * (y - shape.chin).clamp(min=0) ** 2
        neck = self.cover(torch.maximum(x.abs() - neck_width, 0.45 - y))
        under_chin = ((y - shape.chin - 0.02) / 0.22).clamp(0, 1) * (1 - 0.6 * (x / 0.4) ** 2).clamp(0, 1)
        self.blend(neck, torch.lerp(shadow, skin * 0.94, (0.15 + 0.75 * under_chin)[:, None]))
        shoulders = (x / 1.05) ** 2 + ((y - 1.62) / 0.66) ** 2
        collar = (x / (self.get("neck_half_width") + 0.03)) ** 2 + ((y - 0.92) / 0.19) ** 2
        cloth = self.cover((shoulders - 1) * 0.30) * (1 - self.cover((collar - 1) * 0.12))
        self.blend(cloth, self.colour("cloth") * (1.08 - 0.25 * (shoulders - 0.3).clamp(0, 1))[:, None])

        # The near ear turns into view, the far one hides behind the cheek.
        ear_x = shape.half_width * 0.975 - 0.10 * shape.yaw * x.sign()
        ear = (((x.abs() - ear_x) / 0.085) ** 2 + ((y - 0.03 + 0.10 * shape.pitch) / 0.150) ** 2)
        inner = torch.lerp(skin * 0.95, shadow, bump(ear * 1.6)[:, None] * 0.8)
        self.blend(self.cover((ear.sqrt() - 1) * 0.085), inner)

        self.light = self._light()
        # Deep skin shows form by its sheen where light skin shows it by its shadows.
        sheen = 0.20 * (0.75 - skin.mean(1)).clamp(min=0) * (self.light - 0.70).clamp(min=0)
        lit = shadow + (skin * 1.03 - shadow) * self.light[:, None] + sheen[:, None]
        lit = lit * (1 + self._blush()[:, None] * skin.new_tensor((0.05, -0.10, -0.08))[None, :, None])
        self.on_head = self.cover((self.radius2.sqrt() - 1) * 0.62)
        self.blend(self.on_head, lit)
        self._paint_beard()

    def _light(self) -> Tensor:
        """Brightness of bare skin, 0 = full shadow, 1 = facing the light."""
        shape, u, v = self.shape, self.u, self.v
        side = u / shape.half_width
        light = 0.60 + 0.40 * self.depth.sqrt() + self.get("light_x") * side + self.get("light_y") * self.height
        beside = u.abs()
        cheek = bump(((beside - 0.33) / 0.19) ** 2 + ((v - shape.eye_y - 0.25) / 0.15) ** 2)
        hollow = bump(((beside - 0.43) / 0.20) ** 2 + ((v - 0.42) / 0.26) ** 2)
        raised = 0.35 * shape.mean_au(6) + 0.35 * shape.mean_au(12)
        self._cheek = cheek
        return (light + (0.07 + 0.16 * raised) * cheek - 0.13 * self.get("cheekbone") * hollow).clamp_(0.02, 1.20)

    def _blush(self) -> Tensor:
        return self.get("blush") * self._cheek

    def _hair_colour(self) -> Tensor:
        """Hair with strands and a soft sheen, the same in front of and behind the head so that both join up."""
        x, y, shape = self.x, self.y, self.shape
        strands = torch.sin(x * 46 + 9 * torch.sin(y * 5 + self.get("hair_phase")) * self.get("hair_wave"))
        sheen = bump(((y + 0.72 * shape.crown + 0.5 * x * x - 0.05) / 0.26) ** 2)
        shade = 0.86 + 0.055 * strands + 0.30 * sheen + 0.35 * self.get("light_x") * x - 0.22 * (y - 0.1).clamp(0, 1)
        return (self.colour("hair") * shade[:, None]).clamp(0, 1)

    def _hair_behind(self) -> Tensor:
        # Hair behind the head moves against the turn.
        x, y = self.x + 0.07 * self.shape.yaw, self.y + 0.05 * self.shape.pitch
        volume = self.get("hair_volume")
        sides = 0.6 + (self.get("hair_sides") - 0.6) * (2 * y + 0.5).clamp(0, 1)
        width = self.shape.half_width + 0.01 + volume * sides
        tall = torch.where(y < 0, self.shape.crown + volume, self.get("hair_length"))
        across, along = (x / width) ** 2, (y / tall) ** 2
        # Long hair falls straight: a rounded box below, an ellipse above; both meet at the widest row.
        along = torch.where(y < 0, along, along * along)
        return self.cover(((across + along).sqrt() - 1) * 0.55, 2.0)

    def _paint_beard(self) -> None:
        rows = (self.shape.face["beard"] > 0).nonzero()[:, 0]
        if len(rows) == 0:
            return
        shape = self.shape
        def part(field: Tensor) -> Tensor:
            return field[rows]

        u, v, nose_y, mouth_y = part(self.u), part(self.v), part(shape.nose_y), part(shape.mouth_y)
        beside = u.abs() / part(shape.half_width)
        # Cheek line: high in front of the ears, dipping towards the mouth; moustache below the nose.
        cheek_line = 0.40 - 0.55 * (beside - 0.35).clamp(min=0) + 0.10 * (0.35 - beside).clamp(min=0)
        cheeks = ((v - cheek_line) / 0.10).clamp(0, 1)
        droop = 0.35 * u.abs()
        moustache = bump(fourth(u / (1.30 * part(shape.mouth_half_width).mean(1, keepdim=True)))
                         + fourth((v - droop - 0.45 * nose_y - 0.55 * mouth_y + 0.02) / (0.42 * (mouth_y - nose_y))))
        inside = (1.6 * part(self.depth) / 0.25).clamp(0, 1) * 0.35 + 0.65
        amount = torch.maximum(cheeks * inside, 0.75 * moustache) * part(self.get("beard")) * 0.85
        face_only = coverage((part(self.radius2).sqrt() - 1) * 0.62, part(shape.pixels))
        texture = 0.9 + 0.1 * torch.sin(part(self.x) * 120 + part(self.y) * 170)
        hair = part(self.colour("brow")) * (part(self.light) * texture)[:, None].clamp(0.4, 1.1)
        self.rgb[rows] = torch.lerp(part(self.rgb), hair, (amount * face_only)[:, None])

    # ---------------------------------------------------------------- features

    def paint_features(self) -> None:
        """Cut a window around each feature, let its strokes work there, put it back."""
        shape = self.shape
        brow = shape.brow_y.mean(1, keepdim=True)
        corner = shape.mouth_half_width.max(1, keepdim=True).values
        eye_out, wing = shape.eye_x + 0.27, shape.nose_half_width * 1.15 + 0.05
        highest, lowest = brow - 0.20, shape.eye_y + 0.17
        boxes = [  # left, top, right, bottom in face units
            (-0.46, brow - 0.40, 0.46, shape.eye_y + 0.17),
            (-wing - 0.07, shape.eye_y - 0.06, wing + 0.07, shape.nose_y + 0.12),
            (-corner - 0.17, shape.nose_y - 0.10, corner + 0.17, shape.chin),
            (-eye_out, highest, torch.zeros_like(eye_out), lowest),
            (torch.zeros_like(eye_out), highest, eye_out, lowest),
        ]
        forehead, nose, mouth, left_eye, right_eye = self._spans(boxes)
        for span, draw in ((forehead, draw_forehead), (nose, draw_nose), (mouth, draw_mouth)):
            window = self._cut(*span)
            draw(window, shape)
            self._put_back(window)
        for side, span in enumerate((left_eye, right_eye)):
            window = self._cut(*span)
            draw_eye(window, shape, side)
            self._put_back(window)

    def _spans(self, boxes: list[tuple]) -> list[tuple[Tensor, Tensor, int, int]]:
        """Boxes on the face → (first column [b], first row [b], width, height) in pixels; one size per batch."""
        corners_u, corners_v = [], []
        for left, top, right, bottom in boxes:
            middle = 0.5 * (left + right)
            for u in (left, middle, right):
                for v in (top, bottom):
                    corners_u.append(torch.zeros_like(self.shape.chin) + u)
                    corners_v.append(torch.zeros_like(self.shape.chin) + v)
        px, py = self.shape.place(torch.cat(corners_u, 1), torch.cat(corners_v, 1))
        spans = []
        for box in range(len(boxes)):
            columns = slice(6 * box, 6 * box + 6)
            (x0, width), (y0, height) = (self._span(p[:, columns]) for p in (px, py))
            spans.append((x0, y0, width, height))
        return spans

    def _span(self, points: Tensor) -> tuple[Tensor, int]:
        size = self.shape.size
        low, high = points.amin(1).floor() - 1, points.amax(1).ceil() + 1
        low, high = low.clamp(0, size - 1), high.clamp(0, size - 1)
        extent = int((high - low).max()) + 1
        return low.clamp(max=size - extent).long(), extent

    def _cut(self, x0: Tensor, y0: Tensor, width: int, height: int) -> Window:
        rows = y0[:, None] + torch.arange(height, device=y0.device)
        columns = x0[:, None] + torch.arange(width, device=x0.device)
        index = (rows[:, :, None] * self.shape.size + columns[:, None, :]).flatten(1)
        rgb = self.rgb.gather(2, index[:, None].expand(-1, 3, -1))
        u, v, light, skin = (field.gather(1, index) for field in (self.u, self.v, self.light, self.on_head))
        return Window(u, v, light, skin, rgb, index, self.shape.pixels)

    def _put_back(self, window: Window) -> None:
        self.rgb = self.rgb.scatter_(2, window.index[:, None].expand(-1, 3, -1), window.rgb)

    # ---------------------------------------------------------------- in front

    def paint_front(self) -> None:
        """Hair over the forehead and temples, then whatever hides part of the face."""
        u, v, shape = self.u, self.v, self.shape
        q = (u / (0.97 * shape.half_width)) ** 2
        hairline, peak = self.get("hairline"), self.get("hair_peak")
        fall = self.get("sideburns") - hairline
        line = (hairline + fall * (q * q * q).clamp(max=1.5) - peak * q * (1 - q)
                + self.get("hair_slant") * u
                + 0.018 * self.get("hair_wave") * torch.sin(u * 21 + self.get("hair_phase")))
        on_head = self.cover((self.radius2.sqrt() - 1.02) * 0.62)
        # At the temples the line drops steeply: divide by its slope so that the edge stays equally soft.
        slope = 6 * fall * q * q * u / shape.half_width**2
        self.blend(self.cover((v - line) / (1 + slope * slope).sqrt(), 1.8) * on_head, self.hair)
        rows = (shape.face["occluder"] > 0).nonzero()[:, 0]
        if len(rows):
            self._paint_occluder(rows)

    def _paint_occluder(self, rows: Tensor) -> None:
        def part(name: str) -> Tensor:
            return self.get(name)[rows]

        x, y = self.frame_x - part("occluder_x"), self.frame_y - part("occluder_y")
        cos, sin = torch.cos(part("occluder_angle")), torch.sin(part("occluder_angle"))
        across, along = (cos * x + sin * y) / part("occluder_radius"), (cos * y - sin * x) / part("occluder_radius")
        radius = (fourth(across) + fourth(0.55 * along)).sqrt().sqrt()
        mask = coverage((radius - 1) * part("occluder_radius"), self.shape.size / 2, 1.5)
        colour = self.colour("occluder_colour")[rows] * (1.1 - 0.35 * across.clamp(-1, 1) ** 2)[:, None]
        self.rgb[rows] = torch.lerp(self.rgb[rows], colour, mask[:, None])


# -------------------------------------------------------------------------------------------------- camera


def _photograph(canvas: Canvas, generator: torch.Generator) -> Tensor:
    """Exposure, warmth, grey, blur and noise; [b 3 n] → uint8 [b h w 3]."""
    get, size = canvas.get, canvas.shape.size
    exposure = get("gain") * (1 + 0.12 * (get("light_x") * canvas.frame_x + get("light_y") * canvas.frame_y))
    warmth = canvas.shape.face["warmth"][:, None] * get("warmth").new_tensor((1.0, 0.1, -1.0))[None]
    rgb = canvas.rgb * exposure[:, None] * (1 + warmth)[:, :, None]
    rgb = rgb - 0.6 * (rgb - 0.7).clamp_(min=0).square_()    # film-like shoulder: highlights fade, not clip
    grey = (canvas.shape.face["grey"] > 0).nonzero()[:, 0]
    if len(grey):
        weights = rgb.new_tensor((0.299, 0.587, 0.114))[None, :, None]
        rgb[grey] = (rgb[grey] * weights).sum(1, keepdim=True).expand(-1, 3, -1)
    rgb = _blur(rgb.unflatten(2, (size, size)), canvas.shape.face["blur"])
    noise = torch.randn(rgb.shape, generator=generator, device=rgb.device)
    rgb.addcmul_(noise, canvas.shape.face["noise"][:, None, None, None])
    return rgb.clamp_(0, 1).mul_(255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _blur(rgb: Tensor, strength: Tensor) -> Tensor:
    """`strength` [b] passes of the filter (1 2 1)/4 along both axes of [b 3 h w]; a fraction is a partial pass."""
    for done in range(int(torch.ceil(strength.max()).clamp(min=0))):
        share = (strength - done).clamp(0, 1)[:, None, None, None]
        soft = rgb
        for axis in (2, 3):
            length = soft.shape[axis]
            middle = soft.narrow(axis, 1, length - 2)
            inner = (soft.narrow(axis, 0, length - 2) + soft.narrow(axis, 2, length - 2) + 2 * middle) * 0.25
            soft = torch.cat((soft.narrow(axis, 0, 1), inner, soft.narrow(axis, length - 1, 1)), dim=axis)
        rgb = torch.lerp(rgb, soft, share)
    return rgb
