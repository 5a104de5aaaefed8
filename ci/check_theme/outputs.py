"""cell outputs → HTML     text, tables, pictures with alt text, plotly figures; an error output stops the build."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from markdown_it import MarkdownIt

PLOTLY = "application/vnd.plotly.v1+json"
PREFERRED = [PLOTLY, "image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
REGION = 'tabindex="0" role="region" aria-label="output"'  # it may scroll, so the keyboard must reach it
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MARKDOWN = MarkdownIt("commonmark").enable("table")
BASE = os.environ.get("BASE_URL", "").strip("/") + "/" if os.environ.get("BASE_URL", "").strip("/") else ""
HREF = re.compile(r'href="/([^"]*)"')  # notebook_plugin.mjs wrote these, below BASE_URL
PUBLIC = Path()  # where the larger outputs lie; render.py says


class RenderError(Exception):
    """What the check rendering cannot show; the words name the page."""


class Page(Protocol):
    """What an output knows of the page it stands on."""

    name: str                   # its file, for messages
    link: Callable[[str], str]  # an address of MyST's → one that works from this page
    has_plotly: bool            # set by an output that needs the script


def as_json(value: object) -> str:
    """JSON that may stand inside a <script> element or, escaped, in an attribute."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def folded(name: str, inner: str) -> str:
    return f'<details class="fold"><summary>{name}</summary>{inner}</details>'


def content(given: dict) -> str:
    """What an output says: MyST keeps short ones in the page and long ones in a file of their own."""
    return given["content"] if "content" in given else (PUBLIC / given["path"].lstrip("/")).read_text(encoding="utf-8")


def shown(page: Page, output: dict) -> str:
    kind = output["output_type"]
    if kind == "error":
        raise RenderError(f"{page.name}: a cell ended in {output.get('ename')}: {output.get('evalue', '')[:80]}")
    if kind == "stream":
        text = content(output) if "path" in output else output["text"]
        return f'<pre class="stream {output["name"]}" {REGION}>{_terminal(text)}</pre>'
    data = output.get("data") or {}
    for mime in PREFERRED:
        if mime in data:
            return SHOW[mime.split("/")[0] if mime.startswith("image/") else mime](page, data[mime], data)
    if data:
        raise RenderError(f"{page.name}: an output has only the types {', '.join(data)}, which no page can show")
    return ""


def _terminal(text: str) -> str:
    return html.escape(COLOURS.sub("", text), quote=False)


def _plotly(page: Page, given: dict, _: dict) -> str:
    page.has_plotly = True
    figure = json.loads(content(given))
    alt = html.escape((figure.get("layout", {}).get("meta") or {}).get("alt", ""))
    height = figure.get("layout", {}).get("height") or 450  # plotly's own height where a figure names none
    return (f'<div class="chart" role="img" aria-label="{alt}" style="min-height: {height}px">'
            f'<script type="application/json">{as_json(figure)}</script></div>')  # fmt: skip


def _picture(page: Page, given: dict, data: dict) -> str:
    alt = html.escape(content(data["text/plain"])) if "text/plain" in data else ""
    source = page.link(given["path"]) if "path" in given else f"data:{given['content_type']};base64,{given['content']}"
    return f'<img src="{source}" alt="{alt}" loading="lazy">'


def _html(page: Page, given: dict, _: dict) -> str:
    return f'<div class="wide" {REGION}>{content(given)}</div>'


def _markdown(page: Page, given: dict, _: dict) -> str:
    text = MARKDOWN.render(content(given)).replace("<th></th>", "<td></td>")
    text = HREF.sub(lambda found: f'href="{page.link("/" + found[1].removeprefix(BASE))}"', text)
    return f'<div class="wide" {REGION}>{text}</div>'


def _plain(page: Page, given: dict, _: dict) -> str:
    return f'<pre class="stream" {REGION}>{_terminal(content(given))}</pre>'


SHOW = {PLOTLY: _plotly, "image": _picture, "text/html": _html, "text/markdown": _markdown,
        "text/plain": _plain}  # fmt: skip
