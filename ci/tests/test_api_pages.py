"""The library's pages for the site: made from docstrings, linked to chapters both ways, and nothing private on them."""

import json
import shutil
import subprocess
from pathlib import Path

import api_pages
import griffe
import pytest
from toy_chapters import write_chapter

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = {
    "__init__": '"""recipe → record     A toy.\n\n    layers/    clip → loss\n    models/    layers → model\n"""\n',
    "layers/__init__": '"""clip → loss     what models are made of.\n\n    tokens    a → b\n    masks     b → c\n"""\n',
    "layers/__init__.pyi": "from .masks import Score as Score, score as score\n",
    "layers/tokens": '"""a → b     tokens."""\n\n\ndef cut() -> int:\n    """Cut."""\n\n\ndef twice() -> None: ...\n',
    "models/__init__": '"""layers → model     models."""\n',
    "models/folders": '"""c → d     folders."""\n\n\ndef twice() -> None: ...\n',
    "layers/folders": '"""d → e     other folders."""\n\n\ndef twice() -> None: ...\n',
    "layers/masks": '''"""tokens → visible     masks [b n] that hide *most*.

Counts are exact, $n in {1, 2}.

    name   what it is
    ratio  share that is hidden

Derived in chapter 04.
"""
from dataclasses import dataclass
from pathlib import Path

LIMIT = 7
_HIDDEN = 8


@dataclass(frozen=True)
class Score:
    """What was hidden."""

    count: int
    share: float = 0.5

    def text(self) -> str:
        """In words."""

    def _quiet(self): ...


def score(mask: list[bool], ratio: float = 0.25) -> Score:
    """Hide `a_b` and a_b."""


def _private(): ...
''',
    "tools": '"""e → f     tools."""\n\n\ndef use() -> int:\n    """Use."""\n',
}
BIB = "% Every work.\n\n% Masks\n\n@misc{doe2020mask,\n  title = {Masks},\n}\n\n@misc{roe2021,\n  title = {Other},\n}\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    library = tmp_path / "s4d_lib"
    library.mkdir()
    for name, text in LIBRARY.items():
        path = library / (name if name.endswith(".pyi") else f"{name}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    chapters = tmp_path / "chapters"
    write_chapter(chapters, "04_masks", "from s4d_lib.layers import score as hide\nhide([True])")
    write_chapter(chapters, "05_later", "from s4d_lib import layers, tools\nlayers.Score(1)", "print(tools.use())",
                  "from s4d_lib.layers import tokens\ntokens.cut()")
    path = chapters / "05_later.md"
    path.write_text(path.read_text() + "\nAs in [@doe2020mask].\n")
    (chapters / "references.bib").write_text(BIB)
    return tmp_path


def written(book: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in api_pages.write_pages(book / "api", book)}


def test_a_page_for_every_wing_and_every_file_on_the_ground(book: Path) -> None:
    assert set(written(book)) == {
        "lib_layers.md", "lib_models.md", "lib_tools.md", "library.md", "bibliography.md", "labels.json"}


def test_files_stand_in_the_order_of_the_flow_and_wings_in_that_of_the_house(book: Path) -> None:
    pages = written(book)
    places = [pages["lib_layers.md"].index(f"## {name}.py") for name in ("tokens", "masks", "folders")]
    assert places == sorted(places), "as the wing lists them, and what it does not list at the end"
    places = [pages["library.md"].index(text) for text in ("## layers/", "## models/", "## The ground", "tools.py")]
    assert places == sorted(places)


def test_public_entries_alone_with_signatures_and_labels(book: Path) -> None:
    page = written(book)["lib_layers.md"]
    assert "def score(mask: list[bool], ratio: float = 0.25) -> Score" in page
    assert "    count: int\n    share: float = 0.5" in page and "text() -> str" in page and "LIMIT = 7" in page
    assert not any(word in page for word in ("_private", "_quiet", "_HIDDEN", "## Path", "## dataclass", "lazy"))
    labels = {"lib-layers-score", "lib-layers-class-Score", "lib-layers-file-masks", "lib-layers-cut"}
    assert len({label.lower() for label in labels}) == 4, "MyST's labels do not know capitals"
    assert all(f"({label})=" in page for label in labels)


def test_a_label_names_the_file_only_where_two_of_a_wing_hold_the_same_name(book: Path) -> None:
    page = written(book)["lib_layers.md"]
    assert "(lib-layers-tokens-twice)=" in page and "(lib-layers-folders-twice)=" in page


def test_entries_name_the_chapters_that_derive_and_use_them(book: Path) -> None:
    pages = written(book)
    score = pages["lib_layers.md"].split("### score")[1].split("###")[0]
    assert "Derived in [chapter 4](../chapters/04_masks.ipynb)." in score and "chapter 5" not in score
    of_class = pages["lib_layers.md"].split("### Score")[1].split("### score")[0]
    assert "Also used in [chapter 5](../chapters/05_later.ipynb)." in of_class, "through the wing's face"
    assert "Used in [chapter 5](../chapters/05_later.ipynb)." in pages["lib_tools.md"]
    assert "Derived in chapter 04" not in pages["lib_layers.md"], "its own sentence is replaced by the links"


def test_the_link_table_knows_spellings_that_can_mean_one_thing_only(book: Path) -> None:
    table = json.loads(written(book)["labels.json"])
    for spelling in ("layers.score", "masks.score", "layers.masks.score"):
        assert table["mentions"][spelling] == "lib-layers-score"
    assert table["mentions"]["layers/folders.py"] == "lib-layers-file-folders"
    assert not {"folders.py", "folders.twice", "layers.twice"} & set(table["mentions"]), "two files could be meant"
    assert table["chapters"]["04_masks"] == {"layers/masks.py": "lib-layers-file-masks"}
    assert table["chapters"]["05_later"] == {"layers/masks.py": "lib-layers-file-masks", "tools.py": "lib-tools",
                                             "layers/tokens.py": "lib-layers-file-tokens"}
    assert [*table["chapters"]["05_later"]] == ["layers/tokens.py", "layers/masks.py", "tools.py"], "in house order"


def test_docstrings_become_markdown_that_says_the_same(book: Path) -> None:
    page = written(book)["lib_layers.md"]
    assert r"masks \[b n\] that hide \*most\*." in page and r"exact, \$n in \{1, 2\}." in page
    assert "```text\nname   what it is\nratio  share that is hidden\n```" in page
    assert r"Hide `a_b` and a\_b." in page, "code spans stay as they are, prose is escaped"


def test_long_signatures_stand_on_several_lines() -> None:
    parameters = "first: dict[str, tuple[int, int]], second: list[float] | None = None, *, third: str = 'a, b'"
    source = f"def draw({parameters}) -> None: ..."
    with griffe.temporary_visited_module(source) as module:
        lines = api_pages.signature(module["draw"], "def ").splitlines()
    assert lines[1:-1] == ["    first: dict[str, tuple[int, int]],", "    second: list[float] | None = None,", "    *,",
                           "    third: str = 'a, b',"]


def test_the_bibliography_says_who_cites_what(book: Path) -> None:
    text = written(book)["bibliography.md"]
    assert "- {cite:t}`doe2020mask`, *Masks*: [chapter 5](../chapters/05_later.ipynb)\n" in text
    assert "- {cite:t}`roe2021`, *Other*\n" in text and "## Masks" in text and "## Every work" not in text


def test_pages_of_files_that_are_gone_go_too(book: Path) -> None:
    written(book)
    (book / "s4d_lib" / "tools.py").unlink()
    (book / "chapters" / "05_later.md").write_text("# nothing\n")
    assert "lib_tools.md" not in written(book)
    assert not (book / "api" / "lib_tools.md").exists()


def test_every_chapter_that_the_library_names_exists() -> None:
    library = griffe.load("s4d_lib", search_paths=[str(ROOT)], try_relative_path=False, allow_inspection=False)
    stems = [path.stem for path in api_pages.find_chapters(ROOT / "chapters")]
    files = [file for wing in api_pages.read_wings(library) for file in wing.files]
    assert len(files) > 100
    for file in files:
        for sentence in api_pages.DERIVED.findall(file.module.docstring.value):
            words = [word for word in sentence.replace(",", " ").strip(".").split() if word.isdigit() or len(word) == 1]
            named = {stem.split("_")[0] for stem in api_pages.named_chapters(sentence, stems)}
            assert {word.zfill(2) if word.isdigit() else word for word in words} == named, (file.name, sentence)


def test_chapters_and_appendices_may_stand_in_one_sentence() -> None:
    stems = ["06_six", "07_seven", "08_eight", "c_batch"]
    assert api_pages.named_chapters("Derived in chapters 06 and\n08.", stems) == ["06_six", "08_eight"]
    assert api_pages.named_chapters("Explained in chapter 07 and appendix c.", stems) == ["07_seven", "c_batch"]
    assert api_pages.named_chapters("A chapter is read.", stems) == []


def call(name: str, *arguments: object) -> object:
    """What an export of the links plugin returns."""
    plugin = (ROOT / "ci" / "links_plugin.mjs").as_uri()
    result = f"JSON.stringify(m.{name}(...{json.dumps(arguments)}))"
    script = f"import * as m from {json.dumps(plugin)}; console.log({result})"
    done = subprocess.run(["node", "--input-type=module", "-e", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


@needs_node
def test_one_setting_gives_the_repository() -> None:
    set_to = "project:\n  github: https://github.com/someone/book  # ours\n"
    assert call("repository", set_to, {"GITHUB_REPOSITORY": "other/fork"}) == "someone/book"
    assert call("repository", "project:\n  # github: https://github.com/someone/book\n", {}) is None
    assert call("repository", "", {"GITHUB_REPOSITORY": "other/fork"}) == "other/fork"


@needs_node
def test_launch_links_come_from_the_repository() -> None:
    def urls(where: str | None) -> list[str]:
        return [node["url"] for node in call("launchLine", "04_masking", where)["children"] if node["type"] == "link"]

    assert urls(None) == ["04_masking.ipynb", "04_masking.md"]
    binder, colab = urls("someone/book")[2:]
    assert binder.startswith("https://mybinder.org/v2/gh/someone/book/main?urlpath=lab%2Ftree%2Fchapters%2F04_masking.ipynb")
    assert colab == "https://colab.research.google.com/github/someone/book/blob/main/chapters/04_masking.ipynb"


@needs_node
@pytest.mark.parametrize(("mention", "label"), [
    ("layers.score", "score"), ("s4d_lib.layers.masks.score", "score"), ("layers.score()", "score"),
    ("masks.py", "file"), ("layers/masks.py", "file"), ("s4d_lib.layers.masks", "file"),
    ("s4d_lib/layers/masks.py", "file"),
    ("s4d_lib.layers", "wing"), ("masks", None), ("layers", None), ("layers.unknown", None), ("other.score", None),
    ("layers.score.more", None), ("constructor.name", None),
])
def test_what_counts_as_a_mention_of_the_library(mention: str, label: str | None) -> None:
    mentions = {"layers.score": "score", "layers.masks.score": "score", "masks.py": "file", "layers/masks.py": "file",
                "layers/": "wing"}
    assert call("labelOf", mention, mentions) == label
