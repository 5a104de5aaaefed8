"""Check what MyST wrote: the content of every page, whatever the theme, and the pages of the check rendering.

    python ci/check_site.py BOOK        a folder in which `myst build --html` has run

MyST's own `--strict` lets dead links, missing alternative texts, error outputs and heavy pages pass.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LARGEST = 1_000_000  # bytes of a page's content, of a notebook, of an explorer with its states
ELSEWHERE = re.compile(r"(https?|mailto):")
BARE = re.compile(r"<[\w.]+(\s[^>]*)?>$")  # the repr of an object: no description of a picture
IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
ALT = re.compile(r"""\balt\s*=\s*("[^"]+"|'[^']+')""", re.IGNORECASE)
DISPLAYED = re.compile(r"\]\(([^)\s]+)\)")  # a link in Markdown that a cell displays
BASE = os.environ.get("BASE_URL", "").rstrip("/")
PLOTLY = "application/vnd.plotly.v1+json"


@dataclass
class Page:
    """The content of one page, as MyST wrote it."""

    slug: str
    source: str  # the file it was made from
    size: int
    tree: dict
    files: Path  # the folder that addresses such as /picture.png lead to
    exports: list[dict] = field(default_factory=list)

    def nodes(self, *kinds: str) -> Iterator[dict]:
        return (node for node in walk(self.tree) if not kinds or node.get("type") in kinds)

    def anchors(self) -> set[str]:
        return {node[key] for node in self.nodes() for key in ("html_id", "identifier") if node.get(key)}

    def outputs(self, removed: bool = False) -> Iterator[dict]:
        """What cells displayed; with `removed` also what a tag such as remove-output keeps off the page."""
        nodes = walk(self.tree, enter=lambda node: removed or node.get("visibility") != "remove")
        return (node["jupyter_data"] for node in nodes if node.get("type") == "output" and node.get("jupyter_data"))

    def read(self, given: dict) -> str:
        """An output's text: MyST keeps short ones in the page and long ones in a file."""
        if "content" in given:
            return given["content"]
        return (self.files / given["path"].lstrip("/")).read_text(encoding="utf-8")


def walk(node: dict, enter: Callable[[dict], bool] = lambda node: True) -> Iterator[dict]:
    """A node and all below it; nothing of those that `enter` refuses."""
    if enter(node):
        yield node
        for child in node.get("children") or []:
            yield from walk(child, enter)


def read_pages(site: Path) -> list[Page]:
    pages = []
    for path in sorted((site / "content").glob("**/*.json")):
        text = path.read_text(encoding="utf-8")
        page = json.loads(text)
        slug = path.relative_to(site / "content").with_suffix("").as_posix()
        pages.append(Page(slug, page["location"].lstrip("/"), len(text.encode()), page["mdast"], site / "public",
                          page["frontmatter"].get("exports") or []))
    return pages


# ── one page: yields what is wrong ───────────────────────────────────────────
def no_error_outputs(page: Page) -> Iterator[str]:
    for output in page.outputs(removed=True):
        if output["output_type"] == "error":
            yield f"a cell ended in {output.get('ename')}: {str(output.get('evalue'))[:80]}"


def small_enough(page: Page) -> Iterator[str]:
    if page.size > LARGEST:
        yield f"its content has {page.size:,} bytes; the limit is {LARGEST:,}"
    for node in page.nodes("anywidget"):
        path = page.files / node["esm"].lstrip("/")
        if path.exists() and path.stat().st_size > LARGEST:
            yield f"the explorer {path.name} has {path.stat().st_size:,} bytes; the limit is {LARGEST:,}"


def pictures_are_described(page: Page) -> Iterator[str]:
    """Every picture has words: an image's alt text, the `alt` of the cell that shows it, a figure's layout.meta.alt."""
    for node in page.nodes("image"):
        if not node.get("alt", "").strip():
            yield f"the image {node.get('urlSource') or node['url']} has no alt text"
    for number, output in enumerate(page.outputs(), 1):
        data = output.get("data") or {}
        if PLOTLY in data:
            figure = json.loads(page.read(data[PLOTLY]))
            if not (figure.get("layout", {}).get("meta") or {}).get("alt"):
                yield f"output {number} is a plotly figure without layout.meta.alt"
        elif any(mime.startswith("image/") for mime in data):
            words = page.read(data["text/plain"]) if "text/plain" in data else ""
            if not words.strip() or BARE.match(words.strip()):
                yield f"output {number} is a picture without words ({words.strip()[:40]}); give its cell the option alt"
        elif "text/html" in data and not all(map(ALT.search, IMAGE.findall(page.read(data["text/html"])))):
            yield f"output {number} holds an <img> without alt text"


def outputs_can_be_shown(page: Page) -> Iterator[str]:
    for number, output in enumerate(page.outputs(), 1):
        kinds = set(output.get("data") or {})
        if kinds & {"application/vnd.jupyter.widget-view+json"} or kinds and not any(
                kind.startswith(("text/", "image/")) or kind == PLOTLY for kind in kinds):
            yield f"output {number} needs a kernel: {', '.join(sorted(kinds))}"


def files_are_there(page: Page) -> Iterator[str]:
    """Pictures and explorers were found and copied."""
    for node in page.nodes("image", "anywidget"):
        url = node.get("url") or node.get("esm")
        if not ELSEWHERE.match(url) and not (page.files / url.lstrip("/")).exists():
            yield f"the file {url} is not there"
        elif ELSEWHERE.match(url):
            yield f"{url} is fetched from elsewhere; keep a copy in the book"


def formulas_are_set(page: Page) -> Iterator[str]:
    for node in page.nodes("math", "inlineMath"):
        if "<math" not in node.get("html", "") or node.get("error"):
            yield f"the formula {node.get('value', '')[:60]!r} could not be set"


def citations_are_known(page: Page) -> Iterator[str]:
    for node in page.nodes("cite"):
        if node.get("error") or not node.get("children"):
            yield f"the citation {node.get('label')!r} is in no bibliography"


ON_A_PAGE: list[Callable[[Page], Iterator[str]]] = [
    no_error_outputs,
    small_enough,
    pictures_are_described,
    outputs_can_be_shown,
    files_are_there,
    formulas_are_set,
    citations_are_known,
]


# ── the whole site ───────────────────────────────────────────────────────────
def links_lead_somewhere(pages: list[Page]) -> Iterator[str]:
    """Links and cross-references within the book: the page, the file and the place on it exist."""
    by_path = {f"/{page.slug}": page for page in pages} | {"/": next((p for p in pages if p.slug == "index"), None)}
    for page in pages:
        for node in page.nodes("link", "linkBlock", "card", "crossReference"):
            url = node.get("url") or ""
            if node["type"] == "crossReference":
                if not node.get("resolved"):
                    yield f"{page.source}: the cross-reference to {node.get('label')!r} leads nowhere"
                    continue
                url += f"#{node['html_id']}" if node.get("html_id") else ""
            if url and not node.get("remote"):
                yield from _dead(page, url, node.get("urlSource") or url, by_path)
        for output in page.outputs():
            for url in DISPLAYED.findall(page.read((output.get("data") or {}).get("text/markdown", {"content": ""}))):
                yield from _dead(page, url.removeprefix(BASE), url, by_path)


def _dead(page: Page, url: str, said: str, by_path: dict[str, Page | None]) -> Iterator[str]:
    """What is wrong with an address on a page: /slug#place of a page, or /name of a file."""
    path, _, anchor = url.partition("#")
    target = by_path.get(path.rstrip("/") or "/") if path else page
    if ELSEWHERE.match(url) or path.startswith("/") and (page.files / path.lstrip("/")).is_file():
        return
    if target is None:
        yield f"{page.source}: the link to {said} leads nowhere"
    elif anchor and anchor not in target.anchors():
        yield f"{page.source}: there is no place {anchor!r} on {target.source}"


def toc_is_built(site: Path, pages: list[Page]) -> Iterator[str]:
    """Every page of the table of contents was built and can be found by the search."""
    if not (site / "config.json").exists():
        return  # MyST stopped before it wrote one, and has said why
    project = json.loads((site / "config.json").read_text(encoding="utf-8"))["projects"][0]
    records = json.loads((site / "myst.search.json").read_text(encoding="utf-8"))["records"]
    found = {record["url"].partition("#")[0].strip("/") for record in records}
    built = {page.slug for page in pages}
    for slug in [project["index"], *(page["slug"] for page in project["pages"] if page.get("slug"))]:
        if slug.replace(".", "/") not in built and slug not in built:
            yield f"{slug}: the page was not built"
        elif slug != project["index"] and slug.replace(".", "/") not in found:
            yield f"{slug}: the search does not know this page"


def notebooks_are_small(book: Path) -> Iterator[str]:
    for path in sorted(book.glob("chapters/*.ipynb")):
        if path.stat().st_size > LARGEST:
            yield f"{path.relative_to(book)}: it has {path.stat().st_size:,} bytes; the limit is {LARGEST:,}"


def check_content(site: Path, book: Path) -> list[str]:
    """All that is wrong with the content of a site (`_build/site`) made from the book in a folder."""
    pages = read_pages(site)
    if not pages:
        return ["MyST wrote no page"]
    wrong = [f"{page.source}: {problem}" for page in pages for check in ON_A_PAGE for problem in check(page)]
    return [*wrong, *links_lead_somewhere(pages), *toc_is_built(site, pages), *notebooks_are_small(book)]


# ── the pages of the check rendering ─────────────────────────────────────────
class Reader(HTMLParser):
    """Collects what a page points to, and the places it can be pointed at."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.urls: list[str] = []
        self.wordless = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(given["id"])
        self.urls += [given[key] for key in ("href", "src", "data-module") if given.get(key)]
        self.wordless += tag == "img" and not given.get("alt")


def check_html(html: Path) -> list[str]:
    """Dead addresses, repeated ids and pictures without words in the pages of a folder."""
    pages, wrong = {}, []
    for path in sorted(html.glob("**/*.html")):
        pages[path] = Reader()
        pages[path].feed(path.read_text(encoding="utf-8"))
    for path, reader in pages.items():
        name = path.relative_to(html).as_posix()
        if twice := sorted({one for one in reader.ids if reader.ids.count(one) > 1}):
            wrong.append(f"{name}: the ids {', '.join(twice)} stand twice")
        if reader.wordless:
            wrong.append(f"{name}: {reader.wordless} pictures have no alt text")
        for url in sorted(set(reader.urls)):
            if ELSEWHERE.match(url) or url.startswith("data:"):
                continue
            where, _, anchor = unquote(url).partition("#")
            if where.startswith("/"):
                target = (html / where.removeprefix(BASE).lstrip("/")).resolve()
            else:
                target = (path.parent / where if where else path).resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                wrong.append(f"{name}: {url} leads nowhere")
            elif anchor and target.suffix == ".html" and anchor not in pages.get(target, reader).ids:
                wrong.append(f"{name}: there is no place {anchor!r} where {url} leads")
    return wrong


# ── weights ──────────────────────────────────────────────────────────────────
def weights(site: Path, book: Path) -> str:
    """What a reader fetches with each page, in kB: content, pictures and figures, explorers; and its notebook.

    The pages of the library, which show no pictures, share one row.
    """
    rows = [f"{'page':<34}{'content':>9}{'pictures':>10}{'explorers':>11}{'sum':>8}{'notebook':>10}   (kB)"]
    pages = sorted(read_pages(site), key=lambda page: page.source)
    library = [page.size for page in pages if page.slug.startswith("lib-")]
    for page in (page for page in pages if not page.slug.startswith("lib-")):
        bring = {node["esm"] for node in page.nodes("anywidget")}
        shown = {node["url"] for node in page.nodes("image")} | {
            given["path"] for output in page.outputs() for given in (output.get("data") or {}).values()
            if isinstance(given, dict) and given.get("path")}  # fmt: skip
        sizes = [page.size, *(sum(_size(page.files, url) for url in urls) for urls in (shown, bring))]
        notebook = book / page.source
        own = f"{notebook.stat().st_size / 1000:.0f}" if notebook.suffix == ".ipynb" and notebook.exists() else ""
        rows.append(f"{page.slug:<34}{sizes[0] / 1000:>9.0f}{sizes[1] / 1000:>10.0f}{sizes[2] / 1000:>11.0f}"
                    f"{sum(sizes) / 1000:>8.0f}{own:>10}")  # fmt: skip
    if library:
        largest = max(library) / 1000
        rows.append(f"{len(library)} pages of the library: {sum(library) / 1000:.0f}, the largest {largest:.0f}")
    return "\n".join(rows)


def _size(files: Path, url: str) -> int:
    path = files / url.lstrip("/")
    return path.stat().st_size if path.is_file() else 0


def main(arguments: list[str]) -> int:
    book = Path(arguments[0])
    problems = check_content(book / "_build" / "site", book)
    for problem in problems:
        print(problem)
    print(weights(book / "_build" / "site", book))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
