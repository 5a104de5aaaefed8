"""MyST's content → plain pages     the check rendering; `myst build --html` calls it with BUILD_DIRECTORY set.

Each page is a folder with an index.html and links relatively, so the result works at any address. BASE_URL is needed
by 404.html alone, which a server shows at any depth.
"""

import html
import json
import os
import shutil
import sys
from pathlib import Path

import outputs
from nodes import Writer, plain_text
from outputs import RenderError

HERE = Path(__file__).resolve().parent
SHELL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><meta name="description" content="{description}"><link rel="icon" href="data:,">
<link rel="stylesheet" href="{up}_static/style.css">
<script type="module" src="{up}_static/page.mjs"></script>{scripts}</head>
<body data-up="{up}"><a class="skip" href="#main">Skip to the text</a>
<header class="bar"><a class="book" href="{root}">{book}</a>
<span class="notice">check rendering, not the published look</span>
<form role="search" class="search"><label for="search" class="quiet">Search the book</label>
<input id="search" type="search" placeholder="Search" autocomplete="off"><ul id="found" aria-live="polite"></ul></form>
<button id="theme" type="button" aria-pressed="false">Dark</button></header>
<div class="columns"><nav class="toc" aria-label="Chapters">
<details id="contents" open><summary>Contents</summary>{toc}</details></nav>
<main id="main">{body}</main></div>
<footer class="foot">{foot}</footer></body></html>
"""


class Site:
    """What MyST wrote: its configuration, and where everything goes."""

    def __init__(self, built: Path) -> None:
        self.source, self.into = built.parent / "site", built
        config = json.loads((self.source / "config.json").read_text(encoding="utf-8"))
        self.title = config.get("title") or config["projects"][0].get("title", "")
        project = config["projects"][0]
        self.home = project["index"]
        self.license = project.get("license") or {}
        self.pages = [{"slug": self.home, "title": project["title"], "level": 1}, *project["pages"]]
        self.slugs = [page["slug"] for page in self.pages if page.get("slug")]
        written = (path.stem for path in sorted((self.source / "content").glob("*.json")))
        self.hidden = [slug for slug in written if slug not in self.slugs]  # pages that the contents do not list

    def folder(self, slug: str) -> Path:
        return self.into if slug == self.home else self.into / slug.replace(".", "/")

    def up(self, slug: str) -> str:
        """The way from a page to the root of the site."""
        return "" if slug == self.home else "../" * (1 + slug.count("/") + slug.count("."))

    def address(self, slug: str) -> str:
        """The address of a page from the root of the site."""
        return "" if slug == self.home else f"{slug.replace('.', '/')}/"


def linker(site: Site, up: str):
    """A function from MyST's addresses to addresses that work from a page which lies `up` below the root."""
    by_path = {"/" + slug.replace(".", "/"): site.address(slug) for slug in site.slugs + site.hidden} | {"/": ""}

    def link(url: str) -> str:
        path, mark, anchor = url.partition("#")
        if not path.startswith("/"):
            return url
        if path.rstrip("/") in by_path or path == "/":
            return (up + by_path.get(path.rstrip("/") or "/", "") or "./") + mark + anchor
        return f"{up}build{path}{mark}{anchor}"

    return link


def contents(site: Site, here: str, up: str) -> str:
    """The table of contents: parts as words, pages as links, the present page marked."""
    rows = []
    for page in site.pages:
        title = html.escape(page.get("short_title") or page.get("title", ""))
        if not page.get("slug"):
            rows.append(f'<li class="part">{title}</li>')
            continue
        now = ' aria-current="page"' if page["slug"] == here else ""
        rows.append(f'<li><a href="{up}{site.address(page["slug"]) or "./"}"{now}>{title}</a></li>')
    return f"<ul>{''.join(rows)}</ul>"


def neighbours(site: Site, slug: str, up: str) -> str:
    if slug in site.hidden:
        return ""
    place, titles = site.slugs.index(slug), {page["slug"]: page["title"] for page in site.pages if page.get("slug")}
    ways = []
    if place:
        before = site.slugs[place - 1]
        ways.append(f'<a rel="prev" href="{up}{site.address(before) or "./"}">← {html.escape(titles[before])}</a>')
    if place + 1 < len(site.slugs):
        after = site.slugs[place + 1]
        ways.append(f'<a rel="next" href="{up}{site.address(after)}">{html.escape(titles[after])} →</a>')
    return f'<nav class="turn" aria-label="Previous and next page">{"".join(ways)}</nav>'


def bibliography(cited: dict) -> str:
    """The references of a page, each where its citations lead. MyST has set them in HTML already."""
    rows = "".join(f'<li id="cite-{html.escape(key)}">{one["html"]}</li>' for key, one in cited.get("data", {}).items())
    return f'<h2 id="references">References</h2><ul class="references">{rows}</ul>' if rows else ""


def page_html(site: Site, slug: str) -> str:
    up = site.up(slug)
    page = json.loads((site.source / "content" / f"{slug}.json").read_text(encoding="utf-8"))
    front, writer = page["frontmatter"], Writer(page["location"].lstrip("/"), linker(site, up))
    text = writer.html(page["mdast"]["children"])
    title = front.get("title") or plain_text(page["mdast"]["children"])[:60]
    files = "".join(f' <a download href="{writer.link(one["url"])}">Download {html.escape(one["filename"])}</a>'
                    for one in front.get("exports") or [] if one.get("url"))  # fmt: skip
    head = "" if front.get("content_includes_title") else f'<h1>{html.escape(title)}</h1><p class="files">{files}</p>'
    notes = "".join(f'<li id="fn-{note["identifier"]}">{writer.inside(note)}</li>' for note in writer.footnotes)
    notes = f"<hr><ol>{notes}</ol>" if notes else ""
    body = head + text + notes + bibliography(page.get("references", {}).get("cite", {})) + neighbours(site, slug, up)
    scripts = f'<script src="{up}_static/plotly.min.js" defer></script>' if writer.has_plotly else ""
    return shell(site, slug, title, body, up, scripts)


def shell(site: Site, slug: str, title: str, body: str, up: str, scripts: str = "") -> str:
    rights = ", ".join(f'{what}: <a href="{one["url"]}">{html.escape(one["id"])}</a>'
                       for what, one in site.license.items() if isinstance(one, dict))  # fmt: skip
    return SHELL.format(
        title=html.escape(f"{title} · {site.title}" if slug != site.home else site.title),
        description=html.escape(f"{title}, a page of {site.title}"),
        book=html.escape(site.title),
        up=up,
        root=up or "./",
        toc=contents(site, slug, up),
        body=body,
        scripts=scripts,
        foot=f"Licence of the {rights}" if rights else "",
    )


def main() -> int:
    site = Site(Path(os.environ["BUILD_DIRECTORY"]))
    outputs.PUBLIC = site.source / "public"
    wrong = []
    for slug in site.slugs + site.hidden:
        try:
            text = page_html(site, slug)
        except RenderError as error:
            wrong.append(str(error))
            continue
        site.folder(slug).mkdir(parents=True, exist_ok=True)
        (site.folder(slug) / "index.html").write_text(text, encoding="utf-8")
    root = os.environ.get("BASE_URL", "").rstrip("/") + "/"
    lost = '<h1>There is no such page</h1><p>It may have been renamed. The contents, the search above and the ' \
        f'<a href="{root}">first page</a> lead on.</p>'
    (site.into / "404.html").write_text(shell(site, "404", "Not found", lost, root), encoding="utf-8")
    copy_files(site)
    for problem in wrong:
        print(f"⛔ {problem}", file=sys.stderr)
    return int(bool(wrong))


def copy_files(site: Site) -> None:
    from plotly.offline import get_plotlyjs

    static = site.into / "_static"
    static.mkdir(exist_ok=True)
    (static / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    for name in ("style.css", "page.mjs"):
        shutil.copy(HERE / name, static)
    shutil.copytree(site.source / "public", site.into / "build", dirs_exist_ok=True)
    for name in ("myst.search.json", "myst.xref.json", "objects.inv"):
        shutil.copy(site.source / name, site.into)


if __name__ == "__main__":
    sys.exit(main())
