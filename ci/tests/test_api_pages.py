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
    "masks": '''"""tokens → visible     masks [b n] that hide *most*.

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
    "tools": '"""a → b     tools."""\n\n\ndef use() -> int:\n    """Use."""\n',
}
BIB = "% Every work.\n\n% Masks\n\n@misc{doe2020mask,\n  title = {Masks},\n}\n\n@misc{roe2021,\n  title = {Other},\n}\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    library = tmp_path / "s4d_lib"
    library.mkdir()
    (library / "__init__.py").write_text("")
    for name, text in LIBRARY.items():
        (library / f"{name}.py").write_text(text)
    chapters = tmp_path / "chapters"
    write_chapter(chapters, "04_masks", "from s4d_lib.masks import score as hide\nhide([True])")
    write_chapter(chapters, "05_later", "from s4d_lib import masks, tools\nmasks.Score(1)", "print(tools.use())")
    path = chapters / "05_later.md"
    path.write_text(path.read_text() + "\nAs in [@doe2020mask].\n")
    (chapters / "references.bib").write_text(BIB)
    return tmp_path


def written(book: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in api_pages.write_pages(book / "api", book)}


def test_a_page_for_every_file(book: Path) -> None:
    assert set(written(book)) == {"lib_masks.md", "lib_tools.md", "library.md", "bibliography.md", "labels.json"}


def test_public_entries_alone_with_signatures_and_labels(book: Path) -> None:
    pages = written(book)
    page = pages["lib_masks.md"]
    assert "def score(mask: list[bool], ratio: float = 0.25) -> Score" in page
    assert "    count: int\n    share: float = 0.5" in page and "text() -> str" in page and "LIMIT = 7" in page
    assert not any(word in page for word in ("_private", "_quiet", "_HIDDEN", "## Path", "## dataclass"))
    labels = json.loads(pages["labels.json"])["masks"]
    assert set(labels) == {"Score", "score"}
    assert len({label.lower() for label in labels.values()}) == 2, "MyST's labels do not know capitals"
    assert all(f"({label})=" in page for label in labels.values())


def test_entries_name_the_chapters_that_derive_and_use_them(book: Path) -> None:
    pages = written(book)
    score = pages["lib_masks.md"].split("## score")[1].split("##")[0]
    assert "Derived in [chapter 4](../chapters/04_masks.ipynb)." in score and "chapter 5" not in score
    of_class = pages["lib_masks.md"].split("## Score")[1].split("## score")[0]
    assert "Also used in [chapter 5](../chapters/05_later.ipynb)." in of_class
    assert "Used in [chapter 5](../chapters/05_later.ipynb)." in pages["lib_tools.md"]
    assert "Derived in chapter 04" not in pages["lib_masks.md"], "the docstring's own sentence is replaced by the links"
    first, second = pages["library.md"].index("## 04_masks"), pages["library.md"].index("## 05_later")
    assert first < pages["library.md"].index("lib_masks.md") < second < pages["library.md"].index("lib_tools.md")


def test_docstrings_become_markdown_that_says_the_same(book: Path) -> None:
    page = written(book)["lib_masks.md"]
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
    for name, module in library.members.items():
        if module.is_alias or not module.is_module:
            continue
        said = api_pages.DERIVED.findall(module.docstring.value)
        for sentence in said:
            words = [word for word in sentence.replace(",", " ").strip(".").split() if word.isdigit() or len(word) == 1]
            named = {stem.split("_")[0] for stem in api_pages.named_chapters(sentence, stems)}
            assert {word.zfill(2) if word.isdigit() else word for word in words} == named, (name, sentence)


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
    ("masks.score", "lib-masks-score"), ("s4d_lib.masks.Score", "lib-masks-class-Score"), ("masks.py", "lib-masks"),
    ("s4d_lib.masks", "lib-masks"), ("s4d_lib/masks.py", "lib-masks"), ("masks.score()", "lib-masks-score"),
    ("masks", None), ("masks.unknown", None), ("other.score", None), ("masks.score.more", None),
    ("constructor.name", None),
])
def test_what_counts_as_a_mention_of_the_library(mention: str, label: str | None) -> None:
    entries = {"masks": {"score": "lib-masks-score", "Score": "lib-masks-class-Score"}}
    assert call("labelOf", mention, entries) == label


@needs_node
def test_imports_of_a_page_are_found_once_each() -> None:
    code = "from s4d_lib.masks import score\nfrom s4d_lib import tools, other as o\nfrom s4d_lib.masks import Score"
    assert call("imported", code, {"masks": {}, "tools": {}, "other": {}}) == ["masks", "tools", "other"]
    assert call("imported", "import s4d_library.masks", {"masks": {}}) == []
