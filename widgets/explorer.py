"""states → page     the base of every explorer: dials, recorded states, and a still for pages without a kernel.

What an explorer shows is a function of its dials alone, `draw_*(dials)`, so a chapter can print the same picture, and
no later cell needs the widget. Without a kernel the front end moves through recorded states; with one, `compute` may
answer for any dials (`live=True`).
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import html
import io
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from PIL import Image

HERE = Path(__file__).resolve().parent
RECORDED = "const RECORDED = "  # the line of a .mjs that holds what was recorded


@lru_cache
def recorded(name: str) -> dict[str, Any]:
    """What was recorded for an explorer, read from its .mjs; FileNotFoundError says how to make it."""
    path = HERE / f"{name}.mjs"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; write it with: python -m widgets {name}")
    line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(RECORDED))
    return json.loads(line[len(RECORDED):].rstrip(";"))


def front(name: str) -> Path | str:
    """The complete front end of an explorer, or a stand-in until it is written for the first time."""
    path = HERE / f"{name}.mjs"
    return path if path.exists() else "export default {}"


class Explorer(anywidget.AnyWidget):
    """One question, asked through dials.

    name, title, question   of the file, of the heading, and what the reader shall find out
    dials                   key → value, complete; a value not on its dial is refused with a suggestion
    shown                   what the kernel computed for these dials (`compute`), empty without `live`
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    dials = traitlets.Dict().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)
    live = traitlets.Bool(False).tag(sync=True)

    def __init__(self, live: bool = False, **dials: Any) -> None:
        super().__init__(live=live, dials=settle(self.name, dials))

    @traitlets.observe("dials")
    def _answer(self, change: dict) -> None:
        if self.live:
            self.shown = {"dials": self.dials, **self.compute(self.dials)}

    def compute(self, dials: dict[str, Any]) -> dict[str, Any]:
        """What the front end draws for these dials where a kernel is at hand, as JSON."""
        return {}

    @classmethod
    def sources(cls) -> list[str]:
        """Names of the committed records that `record` reads."""
        return []

    @classmethod
    def record(cls) -> dict[str, Any]:
        """Everything the front end needs without a kernel, as JSON: "dials", a list of `dial` rows, and the states."""
        raise NotImplementedError

    def draw(self) -> Any:
        """The plain-Python twin at the current dials: a PIL picture or a plotly figure, its alt text in `alt_of`."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict, dict]:
        """The live view and, beside it, a still with alt text for pages on which no kernel runs."""
        given = super()._repr_mimebundle_()
        view, metadata = given if isinstance(given, tuple) else (given or {}, {})
        drawn = self.draw()
        return {**view, **still(drawn), "text/plain": alt_of(drawn)}, metadata  # repr would hold an address


def dial(key: str, label: str, options: list, value: Any, *, kind: str = "steps", **more: Any) -> dict[str, Any]:
    """A dial: kind "steps" is a slider over `options`, "choice" a list, "flag" a box to tick. `value` is the start.

    more: labels (one per option), unit, wide (a row of its own), live (True: only where a kernel is at hand).
    """
    if value not in options:
        raise ValueError(f"dial {key!r} starts at {value!r}, which is not among its options {options}")
    return {"key": key, "label": label, "kind": kind, "options": options, "value": value, **more}


def settle(name: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """All dials of an explorer: the wanted ones, the others at their start; ValueError for what is not on a dial."""
    specs = {spec["key"]: spec for spec in recorded(name)["dials"]}
    for key, value in wanted.items():
        if key not in specs:
            near = difflib.get_close_matches(key, specs, 1)
            raise ValueError(f"{name} has no dial {key!r}" + (f"; did you mean {near[0]!r}?" if near else
                                                              f"; it has {', '.join(specs)}"))
        if value not in specs[key]["options"]:
            raise ValueError(f"dial {key!r} of {name} has no {value!r}; it has "
                             + ", ".join(map(repr, specs[key]["options"])))
    return {key: wanted.get(key, spec["value"]) for key, spec in specs.items()}


def made_from(*names: str) -> dict[str, str]:
    """Records that states were made from, by name, with a fingerprint of the file: so that a newer record shows."""
    from s4d_lib.files import RESULTS

    return {name: hashlib.sha256((RESULTS / f"{name}.json").read_bytes()).hexdigest()[:16] for name in names}


def outdated(kept: dict[str, Any], present: dict[str, str]) -> list[str]:
    """Records that states should be made from again: those that changed, and those that are there now and were not."""
    return [name for name, mark in present.items() if kept.get("made_from", {}).get(name) != mark]


def still(drawn: Any) -> dict[str, Any]:
    """A picture or figure as output that needs no kernel: an <img> with alt text, or plotly's own form."""
    if isinstance(drawn, Image.Image):
        alt = html.escape(drawn.info.get("alt", ""), quote=True)
        return {"text/html": f'<img alt="{alt}" src="data:image/png;base64,{picture_data(drawn, "PNG")}" '
                             f'width="{drawn.width}" style="max-width: 100%">'}
    return {"application/vnd.plotly.v1+json": json.loads(drawn.to_json())}


def with_alt(picture: Image.Image, alt: str) -> Image.Image:
    """The picture in 256 colours, carrying its alt text."""
    picture = picture.convert("RGB").quantize(256)
    picture.info["alt"] = alt
    return picture


def alt_of(drawn: Any) -> str:
    """The alt text of a picture or figure."""
    return drawn.info["alt"] if isinstance(drawn, Image.Image) else drawn.layout.meta["alt"]


def picture_data(picture: Image.Image, form: str = "WEBP", quality: int = 80) -> str:
    """A picture as base64."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": quality, "method": 6} if form == "WEBP" else {"optimize": True}))
    return base64.b64encode(buffer.getvalue()).decode()


def sheet(frames: Any, columns: int, quality: int = 80) -> dict[str, Any]:
    """Frames u8 `[n h w 3]` as one WebP picture for the front end's `cell`, row by row."""
    import numpy as np

    frames = np.asarray(frames)
    count, height, width, _ = frames.shape
    rows = -(-count // columns)
    padded = np.concatenate([frames, np.zeros((rows * columns - count, height, width, 3), np.uint8)])
    page = padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    return {"data": picture_data(Image.fromarray(page), quality=quality), "columns": columns, "count": count,
            "width": width, "height": height}


def cells(kept: dict[str, Any]) -> Any:
    """The frames of a `sheet`, as kept: u8 `[n h w 3]`."""
    import numpy as np

    page = np.asarray(Image.open(io.BytesIO(base64.b64decode(kept["data"]))).convert("RGB"))
    height, width, columns = kept["height"], kept["width"], kept["columns"]
    rows = page.shape[0] // height
    return page.reshape(rows, height, columns, width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)[: kept["count"]]
