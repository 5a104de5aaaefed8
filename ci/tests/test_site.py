"""The site's machine on two toy books: a sound one becomes pages; of one with a fault on every page each is named."""

import base64
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

if not shutil.which("node"):
    pytest.skip("no node here, and MyST needs it to build the site", allow_module_level=True)

import build_site
import check_site

ROOT = Path(__file__).resolve().parents[2]
FIGURE = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4]}], "layout": {"meta": {"alt": "A line."}}}
WIDGET = """export default {render({model, el}) { el.innerHTML = "<section class='s4d'></section>"; }};"""
BIB = "@article{known, title={A known paper}, author={Doe, Jane}, year={2020}, journal={Journal}}\n"


def png() -> str:
    """A 2×3 picture, base64, as a cell would store it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([90, 120, 200] * 2) for _ in range(3))
    header = struct.pack(">IIBBBBB", 2, 3, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def shown(*outputs, **metadata):
    """A code cell with these outputs."""
    return new_code_cell("show()", outputs=list(outputs), execution_count=1, metadata=metadata)


def display(**data):
    kinds = {"png": "image/png", "html": "text/html", "markdown": "text/markdown", "plain": "text/plain",
             "plotly": "application/vnd.plotly.v1+json", "view": "application/vnd.jupyter.widget-view+json"}
    return new_output("display_data", {kinds[key]: value for key, value in data.items()})


def write(book: Path, pages: dict[str, list]) -> Path:
    """A book with these chapters: name → cells, a string being a Markdown cell."""
    (book / "chapters").mkdir(parents=True)
    (book / "widgets").mkdir()
    (book / "ci").mkdir()
    shutil.copy(ROOT / "ci" / "notebook_plugin.mjs", book / "ci")
    (book / "widgets" / "toy.mjs").write_text(WIDGET)
    (book / "references.bib").write_text(BIB)
    for name, cells in pages.items():
        cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=cells, metadata=kernel), book / "chapters" / f"{name}.ipynb")
    toc = "\n".join(f"    - file: chapters/{name}.ipynb" for name in pages)
    (book / "myst.yml").write_text(
        "version: 1\nproject:\n  title: Toy\n  license: {content: CC-BY-4.0, code: Apache-2.0}\n"
        f"  bibliography: [references.bib]\n  plugins: [ci/notebook_plugin.mjs]\n  toc:\n{toc}\n"
        "site:\n  template: book-theme\n")
    build_site.seed_theme(book)
    return book


SOUND = {
    "index": ["# Toy\n\nTo [two](02_second.ipynb), to {ref}`eq-one`, {cite:p}`known`.",
              shown(display(markdown="| a | |\n|---|--:|\n| [second](02_second.ipynb#there) | 1 |"))],
    "02_second": [
        "# Second\n\n(there)=\n## A place\n\n```{math}\n:label: eq-one\na^2 + b < c\n```\n\n"
        "```{exercise} Count\n:label: ex-count\nHow many?\n```",
        "```{solution-start} ex-count\n:class: dropdown\n```",
        shown(new_output("stream", text="\x1b[31mseven\x1b[0m <of> them\n", name="stdout"), tags=["hide-input"]),
        "So many.\n\n```{solution-end}\n```\n\n## After\n\nWords.",
        shown(display(png=png(), plain="<PIL.Image.Image image mode=RGB size=2x3>"), alt="Two blue columns",
              caption="Columns, two of them", label="fig-columns"),
        shown(display(plotly=FIGURE)),
        shown(display(html="<img alt='kept from the page' src='x.png'>"), tags=["remove-output"]),
        "```{anywidget} ../widgets/toy.mjs\n{\"dials\": {\"ratio\": 0.9}}\n```"],
}  # fmt: skip
FAULTS = {  # page → (cells, what must be said)
    "index": (["# Faults"], None),
    "a_ref": (["# A\n\nSee {ref}`no-such-label`."], "no-such-label"),
    "b_cite": (["# B\n\n{cite:p}`unknown2020`."], "unknown2020"),
    "c_image": (["# C\n\n![a picture](missing.png)"], "missing.png"),
    "d_link": (["# D\n\n[gone](gone.ipynb)"], "the link to gone.ipynb leads nowhere"),
    "e_error": (["# E", shown(new_output("error", ename="ValueError", evalue="too much", traceback=[]))],
                "a cell ended in ValueError: too much"),
    "f_alt": (["# F", shown(display(png=png(), plain="<PIL.Image.Image image mode=RGB size=2x3>"))],
              "is a picture without words"),
    "g_html": (["# G", shown(display(html="<img src='data:image/png;base64,AA=='>"))], "an <img> without alt text"),
    "h_plotly": (["# H", shown(display(plotly=FIGURE | {"layout": {}}))], "a plotly figure without layout.meta.alt"),
    "i_view": (["# I", shown(display(view={"model_id": "1"}, plain="Slider()"))], "needs a kernel"),
    "j_gate": (["# J\n\n```{exercise} One\n:label: ex-j\nWhat?\n```", "```{solution-start} ex-j\n```", shown()],
               "solution is not closed"),
    "k_math": (["# K\n\n$\\frac{1$"], "could not be set"),
    "l_anchor": (["# L\n\n[there](index.ipynb#nowhere)"], "nowhere"),
    "m_bare": (["# M\n\n![](../picture.png)"], "has no alt text"),
    "n_output_link": (["# N", shown(display(markdown="[x](never.ipynb)"))], "never"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    book = write(tmp_path_factory.mktemp("sound") / "book", SOUND)
    assert build_site.build(book) == []
    return book


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> list[str]:
    book = tmp_path_factory.mktemp("faults") / "book"
    write(book, {name: cells for name, (cells, _) in FAULTS.items()})
    (book / "picture.png").write_bytes(base64.b64decode(png()))
    return build_site.build(book)


def page(book: Path, name: str = "second") -> str:
    return (book / "_build" / "html" / name / "index.html").read_text(encoding="utf-8")


@pytest.mark.spawns
@pytest.mark.parametrize("name", [name for name, (_, words) in FAULTS.items() if words])
def test_a_fault_stops_the_build_and_is_named(problems, name):
    words = FAULTS[name][1]
    assert any(words in problem and f"{name}." in problem for problem in problems), "\n".join(problems)


@pytest.mark.spawns
def test_a_page_without_fault_is_not_blamed(problems):
    assert not [problem for problem in problems if "chapters/index" in problem and "nowhere" not in problem]


@pytest.mark.spawns
def test_solutions_span_cells_and_fold(sound):
    text = page(sound)
    start = text.index("Solution to")
    inside = text[text.rindex("<details", 0, start) : text.index("After")]
    assert "seven" in inside and "So many" in inside and 'class="framed solution"' in inside
    assert "<a " not in inside[: inside.index("</summary>")], "a link in a summary cannot be reached"


@pytest.mark.spawns
def test_outputs_are_shown_as_they_should(sound):
    text = page(sound)
    assert 'alt="Two blue columns"' in text and "PIL.Image" not in text
    assert text.replace("\xa0", " ").count("Figure 1") == 1, "a caption has its number once"
    assert "seven &lt;of&gt; them" in text and "\x1b" not in text
    assert 'aria-label="A line."' in text and "plotly.min.js" in text and "kept from the page" not in text
    assert 'data-module="../build/toy-' in text and "&quot;ratio&quot;:0.9" in text
    assert "<math" in text and "katex-html" not in text
    first = (sound / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    assert 'href="second/#there"' in first, "a link in a displayed table"
    assert 'href="second/#eq-one"' in first and 'id="cite-known"' in first and "plotly.min.js" not in first


@pytest.mark.spawns
def test_everything_beside_the_pages_is_there(sound):
    html = sound / "_build" / "html"
    assert "no such page" in (html / "404.html").read_text(encoding="utf-8")
    records = json.loads((html / "myst.search.json").read_text(encoding="utf-8"))["records"]
    assert {"/", "/second"} <= {record["url"].partition("#")[0] for record in records}
    assert list((html / "build").glob("*.ipynb")), "the notebooks can be downloaded"
    table = check_site.weights(sound / "_build" / "site", sound)
    assert "second" in table and "index" in table


@pytest.mark.spawns
def test_heavy_pages_notebooks_and_explorers_are_refused(sound, monkeypatch):
    monkeypatch.setattr(check_site, "LARGEST", 60)
    wrong = "\n".join(check_site.check_content(sound / "_build" / "site", sound))
    for words in ("its content has", "02_second.ipynb: it has", "the explorer toy-"):
        assert words in wrong


@pytest.mark.spawns
def test_dead_addresses_of_the_rendering_are_found(sound, tmp_path):
    html = tmp_path / "html"
    shutil.copytree(sound / "_build" / "html", html)
    assert check_site.check_html(html) == []
    path = html / "second" / "index.html"
    path.write_text(path.read_text(encoding="utf-8").replace("</main>", "<p id='x'></p><p id='x'></p>"
                    "<img src='../none.png'><a href='../#not'>a</a></main>"), encoding="utf-8")  # fmt: skip
    wrong = "\n".join(check_site.check_html(html))
    for words in ("x stand twice", "no alt text", "../none.png leads nowhere", "no place 'not'"):
        assert words in wrong


def test_an_unknown_node_stops_the_rendering(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "ci" / "check_theme")
    import nodes
    import outputs

    writer = nodes.Writer("toy.ipynb", str)
    assert writer.html([{"type": "paragraph", "children": [{"type": "text", "value": "a < b"}]}]) == "<p>a &lt; b</p>"
    with pytest.raises(outputs.RenderError, match="toy.ipynb.*'mermaid'"):
        writer.html([{"type": "mermaid", "value": "graph"}])


def test_only_what_myst_says_of_a_sound_book_is_passed_over():
    log = """
⚠️  a.ipynb Linking "m1" to an implicit heading reference, best practice is to create an explicit one
⚠️  b.ipynb Duplicate identifier in project "746fa931d7d1-1"
⛔ c.ipynb Cannot find image x.png
⛔ c.ipynb Cannot find image x.png
⚠️  d.ipynb Duplicate identifier in project "fig-one"
Built 4 pages"""
    said = ["c.ipynb Cannot find image x.png", 'd.ipynb Duplicate identifier in project "fig-one"']
    assert list(build_site.complaints(log)) == said


def test_the_copy_leaves_out_what_git_ignores(tmp_path):
    for name in ("chapters/a.md", "chapters/runs/x", "data/x", ".git/x", "runs/x", "widgets/x.mjs", "_build/x"):
        (tmp_path / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / name).write_text("x")
    build_site.stage(tmp_path / "book", tmp_path / "copy")
    left = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert left == {"chapters/a.md", "widgets/x.mjs"}


@pytest.mark.parametrize(("environment", "code", "words"), [
    ({"S4D_NO_BROWSER": "1"}, 0, "NO BROWSER TEST WILL RUN"), ({}, 1, "S4D_NO_BROWSER=1")])  # fmt: skip
def test_a_missing_browser_is_never_passed_over_in_silence(tmp_path, environment, code, words):
    for program in ("bash", "id", "apt-get"):  # a PATH without Chromium; apt-get is there and fails
        (tmp_path / program).symlink_to(shutil.which("false" if program == "apt-get" else program))
    command = f"source {ROOT / 'ci' / 'system_tools.sh'}; need_chromium"
    done = subprocess.run([shutil.which("bash"), "-c", command], capture_output=True, text=True,
                          env={"PATH": str(tmp_path)} | environment)
    assert done.returncode == code and words in done.stdout + done.stderr
