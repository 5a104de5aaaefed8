"""The book in JupyterLab, driven as a reader would: `ci/lab.sh` serves a copy, Chromium opens, runs and turns dials.

Skipped where there is no Chromium, and nowhere else.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import check_pairs
import pytest

from widgets import EXPLORERS
from widgets.explorer import settle

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("S4D_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if not CHROMIUM:
    pytest.skip("no chromium here; name one with S4D_CHROMIUM", allow_module_level=True)

FILES = ["d_explorers.md", "04_masking.ipynb", "01_still_and_moving_faces.md"]  # cheap ones; together all explorers
STEMS = [Path(name).stem for name in FILES]
TOKEN = "reader"
SHOTS = os.environ.get("S4D_SCREENSHOTS")  # a folder for pictures of what the test saw
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
STARTUP = 200  # seconds; a machine with nothing else to do needs a tenth
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
IS_READY = """(path) => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const status = panel?.sessionContext?.session?.kernel?.status;
    return panel?.context?.path === path && panel.context.isReady && status === "idle";
}"""
CELLS = """() => Array.from(jupyterapp.shell.currentWidget.content.model.cells, (cell) => cell.toJSON())"""
IN_KERNEL = """async (code) => {
    const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
    const future = kernel.requestExecute({ code, store_history: false });
    let told = "";
    future.onIOPub = ({ content }) => { told += content.text ?? content.evalue ?? ""; };
    await future.done;
    return told;
}"""
ENDED = "Canceled future"  # JupyterLab's word when a kernel is ended while it was being asked
SCROLL = """async (place) => { await jupyterapp.shell.currentWidget.content.scrollToItem(place, 'center'); }"""
DIALS = """
import json as _json, ipywidgets as _w
from widgets.explorer import Explorer as _E
print(_json.dumps({one.name: one.dials for one in _w.widgets.widget._instances.values() if isinstance(one, _E)}))
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """A copy of three chapters and of what `ci/lab.sh` reads, with the environment of this test in place of .venv."""
    book = tmp_path_factory.mktemp("book")
    (book / "chapters").mkdir()
    for stem in STEMS:
        for kind in ("md", "ipynb"):
            shutil.copy(ROOT / "chapters" / f"{stem}.{kind}", book / "chapters")
    shutil.copy(ROOT / "chapters/jupytext.toml", book / "chapters")
    (book / "ci").mkdir()
    shutil.copy(ROOT / "ci/lab.sh", book / "ci")
    shutil.copytree(ROOT / "ci/jupyter", book / "ci/jupyter")
    (book / "ci/environment.sh").write_text(
        f'S4D_ROOT="{book}"\nexport PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{ROOT}"\n')
    return book


def lab_command(book: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """The words and the environment that start the server without anybody's own settings or old workspaces."""
    own = {"JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
           "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"}
    environment = {key: value for key, value in os.environ.items() if key != "JUPYTER_CONFIG_PATH"}
    environment |= {key: str(book / "own" / key) for key in own} | {"S4D_RUNS": str(book / "runs")}
    return ["bash", str(book / "ci/lab.sh"), *words], environment


@pytest.fixture(scope="module")
def address(book):
    """Where the server of `ci/lab.sh` answers; it is ended with its kernels when the tests are done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, environment = lab_command(book, "04", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
                                     "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
                                     "--expose-app-in-browser")
    log = book / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(words, cwd=book, env=environment, stdout=out, stderr=subprocess.STDOUT)
    address, began = f"http://127.0.0.1:{port}", time.monotonic()
    while True:
        assert server.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < began + STARTUP, f"no answer from the server: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=10).close()
            break
        except OSError:
            time.sleep(0.3)
    yield address
    server.send_signal(signal.SIGINT)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def lab(address):
    """(page with JupyterLab, list of what went wrong): errors on the console, requests to anywhere else."""
    from playwright.sync_api import sync_playwright

    wrong: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM,
                                         args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(1000 * STARTUP)
        page.on("console", lambda message: wrong.append(message.text)
                if message.type == "error" and ENDED not in message.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        ours = (address, address.replace("http", "ws"), "data:", "blob:")

        def asked(for_it) -> None:
            if not for_it.url.startswith(ours):
                wrong.append(f"a request to {for_it.url}")

        page.on("request", asked)
        page.on("websocket", asked)
        page.goto(f"{address}/?token={TOKEN}")  # leads to the page that lab.sh was asked for: chapter 04
        page.wait_for_function(IS_READY, arg="chapters/04_masking.ipynb", polling=200)
        yield page, wrong
        browser.close()


def opened(page, name: str) -> list[dict]:
    """Open a file as a double click does; its cells."""
    page.evaluate("(path) => { jupyterapp.commands.execute('docmanager:open', { path }); }", f"chapters/{name}")
    page.wait_for_function(IS_READY, arg=f"chapters/{name}", polling=200)
    return page.evaluate(CELLS)


def closed(page) -> None:
    """End the kernel of the open chapter and take it away without saving, so that one kernel runs at a time."""
    page.evaluate("""async () => {
        const panel = jupyterapp.shell.currentWidget;
        await panel.sessionContext.shutdown();
        panel.dispose();
    }""")


def shot(page, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS) / f"lab_{name}.png")


def turn_a_dial(page, section) -> None:
    """Press one key on the first dial that can be turned; fail unless picture or sentence change."""
    look = "(root) => root.querySelector('.told').textContent + root.querySelector('.view').innerHTML"
    before = section.evaluate(look)
    controls = section.locator("input[type=range]:enabled, select:enabled")
    for place in range(controls.count()):
        for key in ("ArrowRight", "ArrowLeft"):  # at an end only one of them moves; both turn a list, too
            controls.nth(place).focus()
            page.keyboard.press(key)
            if section.evaluate(look) != before:
                return
    raise AssertionError(f"{section.get_attribute('aria-label')}: no dial changes what is shown")


def in_the_dark(page, section) -> None:
    """The theme of JupyterLab changes, and the explorer with it."""
    for theme, dark in (("JupyterLab Dark", "true"), ("JupyterLab Light", "false")):
        page.evaluate("""async (theme) => {
            await jupyterapp.commands.execute('apputils:change-theme', { theme });
        }""", theme)
        page.wait_for_function("([root, dark]) => String(root.hasAttribute('data-dark')) === dark",
                               arg=[section.element_handle(), dark])
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        shot(page, theme.replace(" ", "_"))


def test_lab_opens_the_page_that_was_asked_for(lab):
    page, wrong = lab
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    assert page.locator(f"{PANEL} h1").first.inner_text().startswith("04")
    assert page.locator(".Toastify__toast, .jp-Dialog").count() == 0, "something pops up"
    assert page.evaluate("jupyterapp.shell.currentWidget.sessionContext.kernelDisplayName").startswith("Python 3")
    shot(page, "start")
    assert not wrong


def test_both_files_of_a_chapter_open_as_the_same_notebook(lab):
    """The .md too, with the outputs that only the .ipynb holds."""
    page, wrong = lab
    one = opened(page, "04_masking.ipynb")
    other = opened(page, "04_masking.md")
    closed(page)
    for what in (lambda cell: (cell["cell_type"], cell["source"]), lambda cell: len(cell.get("outputs", []))):
        assert list(map(what, one)) == list(map(what, other))
    assert any(cell.get("outputs") for cell in other)
    assert not wrong


@pytest.mark.parametrize("name", FILES)
def test_a_chapter_runs_and_its_explorers_react(lab, book, name):
    page, wrong = lab
    opened(page, name)
    page.evaluate("async () => { await jupyterapp.commands.execute('notebook:run-all-cells'); }")
    cells = page.evaluate(CELLS)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "not all cells ran"
    outputs = [output for cell in code for output in cell["outputs"]]
    bad = [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not bad, bad
    places = [place for place, cell in enumerate(cells)
              if any(WIDGET_VIEW in output.get("data", {}) for output in cell.get("outputs", []))]
    assert len(places) == sum("Explorer(" in cell["source"] and "def " not in cell["source"] for cell in code) >= 1
    start, seen = json.loads(page.evaluate(IN_KERNEL, DIALS)), []
    for place in places:
        page.evaluate(SCROLL, place)
        section = page.locator(f'{PANEL} [data-windowed-list-index="{place}"] section.s4d')
        section.scroll_into_view_if_needed()
        turn_a_dial(page, section)
        seen.append(section.get_attribute("aria-label"))
        shot(page, f"{Path(name).stem}_{place}")
    assert len(set(seen)) == len(places)
    heard = json.loads(page.evaluate(IN_KERNEL, DIALS))
    assert len(heard) == len(places)
    for explorer, dials in heard.items():
        assert start[explorer].keys() == settle(explorer, {}).keys()
        assert sum(dials[key] != start[explorer][key] for key in dials) == 1, f"{explorer}: the kernel heard {dials}"
    if name.startswith("d_"):
        assert heard.keys() == set(EXPLORERS.values())
        in_the_dark(page, section)
    closed(page)
    assert not wrong


def test_with_a_kernel_the_face_explorer_draws_what_was_never_recorded(lab):
    """An added action unit is on no recorded sheet: the picture can only have come from the kernel."""
    page, wrong = lab
    cells = opened(page, "01_still_and_moving_faces.ipynb")
    place = next(place for place, cell in enumerate(cells) if "FaceExplorer(live=True)" in cell["source"])
    page.evaluate("""async (place) => {
        const { content } = jupyterapp.shell.currentWidget;
        content.deselectAll();
        content.activeCellIndex = place;
        await jupyterapp.commands.execute('notebook:run-cell');
        await content.scrollToItem(place, 'center');
    }""", place)
    section = page.locator(f'{PANEL} [data-windowed-list-index="{place}"] section.s4d')
    before = section.locator(".view image").first.get_attribute("href")
    section.locator("input[id$='-au4']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("([root, before]) => root.querySelector('.view image').getAttribute('href') !== before",
                           arg=[section.element_handle(), before])
    shot(page, "live")
    closed(page)
    assert not wrong


def test_saving_keeps_the_pair_small_and_equal(lab, book):
    """Ctrl+S writes both files, without the state of the widgets; before it, nothing was written."""
    page, wrong = lab
    for stem in STEMS:
        for kind in ("md", "ipynb"):
            path = book / "chapters" / f"{stem}.{kind}"
            assert path.read_bytes() == (ROOT / "chapters" / path.name).read_bytes(), f"{path.name} was saved unasked"
    cells = opened(page, "d_explorers.md")
    place = next(place for place, cell in enumerate(cells) if "MaskExplorer(" in cell["source"])
    page.evaluate("""async (place) => {
        const { content } = jupyterapp.shell.currentWidget;
        for (const [at, cell] of content.widgets.entries()) {
            if (cell.model.type !== "code" || (at > 8 && at !== place)) continue;
            content.activeCellIndex = at;
            await jupyterapp.commands.execute('notebook:run-cell');
        }
        await jupyterapp.commands.execute('docmanager:save');
    }""", place)
    closed(page)
    chapter = check_pairs.read_pair(book / "chapters/d_explorers.md")
    assert not list(check_pairs.same_cells(chapter))
    assert [cell.source for cell in chapter.text.cells] == [
        cell.source for cell in check_pairs.read_pair(ROOT / "chapters/d_explorers.md").text.cells]
    assert "widgets" not in chapter.notebook.metadata, "the state of the widgets was saved"
    assert WIDGET_VIEW in str(chapter.notebook.cells[place].outputs), "this was not saved after running"
    assert chapter.size <= check_pairs.LARGEST
    assert not wrong


def test_a_chapter_that_is_not_there_is_named(book):
    words, environment = lab_command(book, "99")
    done = subprocess.run(words, cwd=book, env=environment, capture_output=True, text=True)
    known = ", ".join(sorted(STEMS))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"lab: '99' fits 0 chapters; there are: {known}\n", "one sentence, and no server"
