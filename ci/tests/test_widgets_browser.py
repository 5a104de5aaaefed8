"""The explorers in a real browser, narrow and wide, light and dark, by the keyboard alone; skipped without one."""

import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("S4D_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("no chromium here; name one with S4D_CHROMIUM", allow_module_level=True)

from widgets import EXPLORERS  # noqa: E402

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
HOST = "http://book.test"
PAGE = """<!doctype html><html lang="en" class="{theme}"><meta charset="utf-8"><title>Explorer</title>
<meta name="viewport" content="width=device-width"><body style="margin: 8px"><main id="place"></main>
<script type="module">
import front from "/widgets/{name}.mjs";
const host = document.getElementById("place");
const el = {shadow} ? host.attachShadow({{mode: "open"}}).appendChild(document.createElement("div")) : host;
const state = {{}};
front.render({{el, model: {{get: (key) => state[key], set: (key, value) => {{ state[key] = value; }}, on() {{}},
  save_changes() {{ window.saved = structuredClone(state.dials); }} }} }});
window.ready = true;
</script></body></html>"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM,
                                         args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def opened(browser, name: str, width: int = 1280, theme: str = "light", shadow: bool = False):
    """(page with one explorer on it, list of what went wrong): errors of the console, requests to anywhere else."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    text = PAGE.format(theme=theme, name=name, shadow=str(shadow).lower())

    def answer(route) -> None:
        url = route.request.url
        if url == f"{HOST}/":
            route.fulfill(body=text, content_type="text/html")
        elif url.startswith(f"{HOST}/widgets/"):
            route.fulfill(path=ROOT / url.removeprefix(f"{HOST}/"), content_type="text/javascript")
        elif url == f"{HOST}/favicon.ico":
            route.fulfill(status=204)
        else:
            wrong.append(f"a request to {url}")
            route.abort()

    page.route("**/*", answer)
    page.goto(f"{HOST}/")
    page.wait_for_function("window.ready === true")
    return page, wrong


@pytest.mark.parametrize("name", EXPLORERS.values())
@pytest.mark.parametrize(("width", "theme", "shadow"), [(1280, "light", False), (360, "dark", True)])
def test_an_explorer_stands_and_fits(browser, name, width, theme, shadow):
    page, wrong = opened(browser, name, width, theme, shadow)
    root = page.locator("section.s4d")
    root.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the page"
    over = root.evaluate("""(root) => [...root.querySelectorAll('.view text')].filter((text) => {
        const box = text.getBoundingClientRect(), view = root.querySelector('.view').getBoundingClientRect();
        return box.width && (box.left < view.left - 1 || box.right > view.right + 1);
    }).map((text) => text.textContent)""")
    assert not over, f"cut off: {over}"
    assert root.evaluate("(root) => root.hasAttribute('data-dark')") == (theme == "dark")
    assert len(root.locator(".view [role=img]").first.get_attribute("aria-label")) > 20
    assert not wrong
    page.close()


@pytest.mark.parametrize("name", EXPLORERS.values())
def test_the_keyboard_is_enough(browser, name):
    """Tab reaches every control in order; an arrow key or the space bar turns it, and what is told changes."""
    page, wrong = opened(browser, name)
    controls = page.locator("section.s4d :is(input, select):enabled")
    count, changed = controls.count(), 0
    page.locator("body").press("Tab")
    for place in range(count):
        focused = page.evaluate("document.activeElement.id")
        assert focused == controls.nth(place).get_attribute("id")
        there, back = {"checkbox": ("Space", "Space"), "range": ("ArrowLeft", "ArrowRight")}.get(
            controls.nth(place).get_attribute("type"), ("ArrowDown", "ArrowUp"))
        look = "[document.querySelector('.told').textContent, document.querySelector('.view').innerHTML].join()"
        before = page.evaluate(look)
        for press, undo in ((there, back), (back, there)):  # at an end only one of them moves
            page.keyboard.press(press)
            if page.evaluate(look) != before:
                changed += 1
                page.keyboard.press(undo)  # another control may have been switched on or off meanwhile
                break
        assert page.evaluate("document.activeElement.id") == focused, "focus is lost when the picture changes"
        page.keyboard.press("Tab")
    assert changed == count
    assert page.evaluate("window.saved !== undefined"), "the model was never told"
    assert not wrong
    page.close()


def test_dark_follows_the_page(browser):
    page, _ = opened(browser, "mask_explorer")
    section = page.locator("section.s4d")
    assert not section.evaluate("(root) => root.hasAttribute('data-dark')")
    page.evaluate("document.documentElement.className = 'dark'")
    page.wait_for_function("document.querySelector('section.s4d').hasAttribute('data-dark')")
    page.evaluate("document.body.setAttribute('data-jp-theme-light', 'true')")  # JupyterLab's own word counts first
    page.wait_for_function("!document.querySelector('section.s4d').hasAttribute('data-dark')")
    page.close()


def test_the_page_of_appendix_d_works_as_printed(browser):
    """What the appendix shows as a complete page is one: the explorer stands on it and starts at the given dials."""
    text = (ROOT / "chapters/d_explorers.md").read_text(encoding="utf-8")
    printed = text.split("```html\n")[1].split("```")[0]
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    files = {"/": ("text/html", printed.replace('"tube"', '"frame"').encode()),
             "/mask_explorer.mjs": ("text/javascript", (ROOT / "widgets/mask_explorer.mjs").read_bytes())}
    page.route("**/*", lambda route: route.fulfill(
        **dict(zip(("content_type", "body"), files.get(route.request.url.removeprefix(HOST), ("text/plain", b""))))))
    page.goto(f"{HOST}/")
    page.locator("section.s4d").wait_for()
    assert page.locator("select[id$='-kind']").evaluate("(select) => select.selectedOptions[0].text") == "frame"
    assert not wrong
    page.close()
