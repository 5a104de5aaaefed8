"""template, values → HTML: escaped, nothing left out in silence, and there in the package that pip builds."""

import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from s4d_lib.predict import pages
from s4d_lib.templating import _environment, fill

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable folder of templates: `package(name=text, …)` writes them and returns its name."""
    folder = tmp_path / "room_of_templates"
    monkeypatch.syspath_prepend(tmp_path)

    def write(**files: str) -> str:
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder.name

    yield write
    _environment.cache_clear()


def test_what_is_put_in_is_text(package):
    room = package(page="<p title='{{ word }}'>{{ word }}</p>")
    assert fill(room, "page", word="<b>'&'</b>") == \
        "<p title='&lt;b&gt;&#39;&amp;&#39;&lt;/b&gt;'>&lt;b&gt;&#39;&amp;&#39;&lt;/b&gt;</p>"


@pytest.mark.parametrize("text", ["{{ word }}", "{{ one.word }}", "{% if word %}{% endif %}", "{{ one.keys().word }}"])
def test_a_name_that_nobody_gave_is_an_error(package, text):
    with pytest.raises(UndefinedError, match="word"):
        fill(package(page=text), "page", one={"worm": 1})
    assert fill(package(page="{{ one.worm }}"), "page", one={"worm": 1}) == "1", "control: a name that is there"


def test_a_page_that_lacks_a_value_is_an_error_too():
    with pytest.raises(UndefinedError, match="title"):
        fill(pages.HERE, "page.html.jinja", version="", about=[], facts={}, entries=[], plotly="")


def test_a_template_that_is_not_there_is_named(package):
    with pytest.raises(TemplateNotFound, match="pag"):
        fill(package(page=""), "pag")


def test_json_cannot_end_its_script(package):
    room = package(page="<script>{{ value | tojson }}</script>")
    filled = fill(room, "page", value={"b": "</script><!--", "a": 1})
    assert filled.count("</script>") == 1 and "<!--" not in filled
    with pytest.raises(ValueError, match="not JSON compliant"):
        fill(room, "page", value=float("nan"))


def test_another_file_is_taken_as_it_is(package):
    room = package(page="<style>{{ as_it_is('css') }}</style>{{ word }}", css="a > b { content: '{{ word }}' }")
    assert fill(room, "page", word="<") == "<style>a > b { content: '{{ word }}' }</style>&lt;"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package as pip builds it, from a copy: building leaves folders behind."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("LICENSES", "s4d_lib", "widgets"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, copy]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.spawns
def test_a_wheel_holds_every_file_of_the_library_and_the_widgets(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for name in ("s4d_lib", "widgets") for path in (ROOT / name).rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    assert held == files, "and nothing else"
    kinds = Counter("".join(Path(name).suffixes) for name in files) | Counter({"typed": "s4d_lib/py.typed" in files})
    for kind in (".pyi", "typed", ".html.jinja", ".css", ".js", ".safetensors", ".mjs"):
        assert kinds[kind], f"control: there is a {kind}"


@pytest.mark.spawns
def test_a_page_is_made_from_the_wheel_alone(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(site := tmp_path / "site")  # which is how pip installs it
    program = f"""
import sys
sys.path.insert(0, {str(site)!r})
import s4d_lib
from s4d_lib.batch.status import ChapterRun
from s4d_lib.batch.table import as_html
print(s4d_lib.__file__)
print(as_html([ChapterRun("01_a", "smoke", "/runs/01_a", {{}}, True, "", headline="a < b", status="done")], "now"))
"""
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    place, page = done.stdout.split("\n", 1)
    assert place.startswith(str(site)) and "<td>a &lt; b</td>" in page and "<td>done</td>" in page
