"""frames, crops → sheet     what was found and what was cut, side by side, to look through before trusting it."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from s4d_lib.crops.cropper import STATES, Crops
from s4d_lib.files import replacing

TILE = 160      # height of a frame on the sheet, pixels


class Preview:
    """A sheet of frames with box and eyes, each beside its crop: `add` what is to be seen, then `save`."""

    def __init__(self) -> None:
        self.tiles: list[Image.Image] = []

    def add(self, frame: Tensor, crops: Crops, at: int, label: str) -> None:
        """Frame `at` uint8 [h w 3] of the part of a stream that holds it."""
        row, scale = at - crops.first, TILE / frame.shape[0]
        picture = Image.fromarray(frame.numpy()).resize((max(1, round(frame.shape[1] * scale)), TILE))
        pen = ImageDraw.Draw(picture)
        if not torch.isnan(crops.boxes[row]).any():
            pen.rectangle([(v + 0.5) * scale for v in crops.boxes[row].tolist()], outline="yellow")
            for x, y in crops.landmarks[row, :2].nan_to_num(-9).tolist():
                x, y = (x + 0.5) * scale, (y + 0.5) * scale
                pen.ellipse([x - 3, y - 3, x + 3, y + 3], outline="cyan")
        tile = Image.new("RGB", (picture.width + TILE + 8, TILE + 16), "white")
        tile.paste(picture, (0, 0))
        cut = (crops.index == at).nonzero()
        if len(cut):
            crop = Image.fromarray(crops.frames[int(cut[0, 0])].numpy())
            tile.paste(crop.resize((TILE, TILE)), (picture.width + 4, 0))
        text = f"{label}: {STATES[int(crops.states[row])]}"
        ImageDraw.Draw(tile).text((0, TILE + 2), text[-(tile.width // 6):], fill="black")
        self.tiles.append(tile)

    def save(self, path: Path) -> None:
        """Write the sheet, whole or not at all; the suffix says in which format."""
        width = max(tile.width for tile in self.tiles)
        columns = max(1, min(4, 1600 // width, len(self.tiles)))
        sheet = Image.new("RGB", (columns * width, -(-len(self.tiles) // columns) * (TILE + 16)), "white")
        for number, tile in enumerate(self.tiles):
            sheet.paste(tile, (number % columns * width, number // columns * (TILE + 16)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            sheet.save(part, Image.registered_extensions()[path.suffix.lower()])
