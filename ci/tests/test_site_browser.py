"""The site in a real browser: every page, figure and explorer; by keyboard, narrow and dark; nothing from elsewhere.

It drives the check rendering, which `S4D_SITE` names or which is built here from the committed notebooks.
"""

import functools
import json
import os
import shutil
import threading
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("S4D_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("no chromium here; name one with S4D_CHROMIUM", allow_module_level=True)
if not shutil.which("node"):
    pytest.skip("no node here, and MyST needs it to build the site", allow_module_level=True)

import build_site  # noqa: E402
from axe_playwright_python.base import AXE_FILE_PATH  # noqa: E402

pytestmark = pytest.mark.browser

PATIENCE = 240_000  # ms; a busy machine is no fault of a page
LIVE = "() => document.documentElement.dataset.ready === 'true'"
DRAWN = "() => [...document.querySelectorAll('div.chart, div.anywidget')].every((one) => one.dataset.drawn)"


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    if os.environ.get("S4D_SITE"):
        return Path(os.environ["S4D_SITE"])
    book = tmp_path_factory.mktemp("site") / "book"
    build_site.stage(build_site.ROOT, book)
    build_site.seed_theme(book)
    problems = build_site.build(book)
    assert not problems, "\n".join(problems)
    return book / "_build" / "html"


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")  # plotly's 5 MB come once
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def host(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@dataclass
class Reader:
    """One window for all pages, and what went wrong since it was last sent somewhere."""

    page: object
    host: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = (self.host, "data:", "blob:")
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", lambda one: None if one.url.startswith(own) else self.wrong.append(f"asks {one.url}"))
        self.page.on("response", lambda got: None if got.ok else self.wrong.append(f"{got.status}: {got.url}"))

    def open(self, address: str) -> None:
        """Goes to a page and waits until it is ready."""
        self.wrong.clear()
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.goto(self.host + ("" if address == "." else f"{address}/"))
        self.wait(LIVE)

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition, polling=100)


@pytest.fixture(scope="module")
def reader(host):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM,
                                         args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        page = browser.new_page(color_scheme="light")
        page.set_default_timeout(PATIENCE)
        yield Reader(page, host)
        browser.close()


def pages_of(site: Path) -> list[str]:
    """Addresses of the pages to open: all, but of the hundred alike that are made from docstrings the two largest.

    What those point to is checked without a browser, by check_site.check_html.
    """
    every = [path.parent.relative_to(site).as_posix() for path in site.glob("**/index.html")]
    alike = [address for address in every if address.startswith("lib-")]
    largest = sorted(alike, key=lambda one: (site / one / "index.html").stat().st_size)[-2:]
    return sorted(set(every) - set(alike) | set(largest))


def violations(page, code: bool = False) -> list[str]:
    """What axe-core finds serious or critical on our elements; plotly's own drawing is not ours.

    Thousands of coloured words of code take most of its time; they are looked at where `code` says so.
    """
    page.evaluate(Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    left_out = [[".chart .svg-container"], *([] if code else [["pre.code code"]])]
    return page.evaluate("""async (exclude) => (await axe.run({exclude},
        {resultTypes: ['violations']})).violations
        .filter((one) => ['serious', 'critical'].includes(one.impact))
        .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.target.flat().join(' '))}`)""", left_out)


def too_wide(page) -> list[str]:
    """Elements that stick out of a page which has become wider than the window."""
    return page.evaluate("""() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1
          && !one.closest('.wide, pre, .math, .chart')).slice(0, 3).map((one) => one.outerHTML.slice(0, 120))""")


def test_every_page_stands(site, reader):
    """Loads, draws all there is, fits a wide and a narrow window, passes axe; asks nobody else for anything."""
    bad, figures, page = {}, 0, reader.page
    for address in pages_of(site):
        reader.open(address)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")  # opens what is folded and draws what is far below
        reader.wait(DRAWN)
        figures += page.locator("div.chart .main-svg:first-child").count()
        wrong = [f"no picture: {url}" for url in page.evaluate("""async () => { const all = [...document.images];
            for (const one of all) one.loading = 'eager';
            await Promise.allSettled(all.map((one) => one.decode()));
            return all.filter((one) => !one.naturalWidth).map((one) => one.src); }""")]
        wrong += [f"too wide at 1280 px: {one}" for one in too_wide(page)]
        wrong += violations(page, code=address == "masking")
        page.set_viewport_size({"width": 360, "height": 740})
        wrong += [f"too wide at 360 px: {one}" for one in too_wide(page)]
        if wrong + reader.wrong:
            bad[address] = wrong + reader.wrong
    assert not bad, json.dumps(bad, indent=1, ensure_ascii=False)
    written = [path.read_text(encoding="utf-8") for path in site.glob("**/index.html")]
    assert figures == sum(text.count('<div class="chart"') for text in written)


def test_every_explorer_answers_the_keyboard(site, reader):
    """The first dial of every explorer on every page: with the focus on it, an arrow key changes the picture."""
    tried, told = 0, "(root) => [root.querySelector('.told').textContent, root.querySelector('.view').innerHTML].join()"
    for address in pages_of(site):
        if 'class="anywidget"' not in (site / address / "index.html").read_text(encoding="utf-8"):
            continue
        reader.open(address)
        reader.wait("() => [...document.querySelectorAll('div.anywidget')].every((one) => one.dataset.drawn)")
        for explorer in reader.page.locator("div.anywidget").all():
            section = explorer.locator("section.s4d")
            before = section.evaluate(told)
            explorer.locator("input[type=range]:enabled, select:enabled").first.focus()
            for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
                reader.page.keyboard.press(key)
                if section.evaluate(told) != before:
                    break
            assert section.evaluate(told) != before, f"{address}: no reaction: {section.locator('.title').inner_text()}"
            tried += 1
        assert not reader.wrong, f"{address}: {reader.wrong}"
    assert tried


def test_dark_search_and_the_lost_reader(reader):
    page = reader.page
    reader.open(".")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip", "the first Tab offers to skip to the text"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").press("Enter")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert not violations(page, code=True), "dark"
    page.locator("#search").fill("tubelet")
    with page.expect_navigation():
        page.locator("#found a").first.click()
    reader.wait(LIVE)
    assert "tubelet" in page.locator("main").inner_text().lower()
    assert page.evaluate("document.documentElement.classList.contains('dark')"), "the choice is kept"
    page.locator("#theme").press("Enter")
    page.goto(f"{reader.host}404.html")
    with page.expect_navigation(url=reader.host):
        page.locator("main a", has_text="first page").click()
    assert page.locator("main h1").count() == 1
    assert not reader.wrong
