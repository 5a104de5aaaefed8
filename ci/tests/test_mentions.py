"""Whatever is said of a file or a name of the library, in prose, comments and programs inside strings, is there, and is
spelled in one way: `layers.random_mask` if the wing's face hands it on, else `layers.heads.POOLS`; a file is
`layers/masking.py`, and `masking.py` where it is spoken of in its own wing."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "s4d_lib"
# The released code, which the book cites by its own file names: folders at its roots, and files that are known by name.
THEIRS = ("ft/", "pt/", "S2D/", "finetune/", "pretrain/", "landmark/", "preprocess/", "utils/")
THEIR_FILES = {"SDL.py", "engine_for_finetuning.py", "kinetics.py", "model_finetuning.py", "run_class_finetuning.py",
               "videomae.py"}
ENDINGS = (".py", ".csv", ".json", ".jsonl", ".txt", ".html", ".safetensors", ".npz", ".mjs", ".md")
AS_RECORDED = {("s4d_lib/lab/landmark_training.py", "local_contrast.py")}  # a record stays as it is
LEFT_OUT = {"test_api_pages.py", "test_errors.py", "test_mentions.py",  # libraries made up for a test
            "CHANGELOG.md"}  # names of before, and where each module is; its own test reads it
FILE = re.compile(r"(?<![\w/.<{}*$-])((?:[\w-]+/)*\w+\.py)\b(?!:\d)")  # file:line cites code of others
SPAN = re.compile(r"`+([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?=[`(\s,\[])")
PLAIN = re.compile(r"(?<![\w./`-])([a-z_]\w*(?:\.[A-Za-z_]\w*)+)(?![\w/])")
IMPORT = re.compile(r"\bfrom (s4d_lib(?:\.\w+)*) import (\([^)]*\)|[^\n;\"#]+)")
DOTTED = re.compile(r"(?<![\w./])(?<!from )(s4d_lib(?:\.\w+)+)")


def bound(tree: ast.Module) -> tuple[set[str], set[str]]:
    """(names that a file defines, names that it has, imported ones with them)."""
    own, taken = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            taken |= {(name.asname or name.name).split(".")[0] for name in node.names}
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        own |= {word.id for target in targets if target for word in ast.walk(target) if isinstance(word, ast.Name)}
        own |= {node.name} if hasattr(node, "name") else set()
    return own, own | taken


class Tree:
    """The library as it lies there: "layers/masking" → what it defines, "layers" → what its face hands on."""

    def __init__(self, root: Path = LIBRARY) -> None:
        parsed = {path.relative_to(root).with_suffix("").as_posix(): ast.parse(path.read_text())
                  for path in root.rglob("*.py")}
        self.own = {name: bound(tree)[0] for name, tree in parsed.items()}
        self.has = {name: bound(tree)[1] for name, tree in parsed.items()}
        self.faces = {path.parent.relative_to(root).as_posix(): self._face(path) for path in root.rglob("__init__.py")
                      if path.parent != root}
        self.stems: dict[str, list[str]] = {}
        for name in self.own:
            if "/" in name:
                self.stems.setdefault(name.rpartition("/")[2], []).append(name)
        self.names = set().union(*self.own.values())

    @staticmethod
    def _face(path: Path) -> dict[str, str]:
        stub = path.with_suffix(".pyi")
        tree = ast.parse(stub.read_text()) if stub.exists() else ast.Module([])
        return {name.name: str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)
                for name in node.names}

    def place(self, words: list[str]) -> tuple[str, list[str]] | None:
        """(wing or file, the rest), as much of the words as names a place."""
        for count in range(len(words), 0, -1):
            name = "/".join(words[:count])
            if name in self.own or name in self.faces:
                return name, words[count:]
        return None

    def importable(self, dotted: str) -> bool:
        """Whether Python finds `s4d_lib.x.y`, an attribute of a class not looked into."""
        found = self.place(words := dotted.split(".")[1:])
        if found is None:
            return not words or words[0] in self.has["__init__"] or words[0].startswith("__")
        place, rest = found
        return not rest or rest[0].startswith("__") or rest[0] in (
            self.faces[place] if place in self.faces else self.has[place])

    def said_wrong(self, mention: str, quoted: bool = True) -> str | None:
        """What is wrong with a dotted mention in prose; None for a right one and for what is not of the library."""
        words = mention.split(".")
        if words[0] == "s4d_lib":
            if not quoted:  # a module that is run or imported in an example
                return None
            found = self.place(words[1:])
            return "say it without s4d_lib, a file as wing/file.py" if found else "there is no such place"
        found = self.place(words)
        if found is None:
            [*homes] = (name for name in self.stems.get(words[0], []) if words[1] in self.own[name])
            if homes:
                return f"say {self.spelled(homes[0], words[1])}"
            stranger = quoted and words[0] not in self.stems and words[1] in self.names and words[1].isupper()
            return f"no place of the library is called {words[0]}" if stranger else None
        place, rest = found
        if not rest:
            return f"say {place}.py" if quoted and place in self.own else None
        if place in self.faces:
            return None if rest[0] in self.faces[place] or not quoted else f"{place} hands no {rest[0]} on"
        if rest[0] not in self.own[place]:
            return f"{place}.py defines no {rest[0]}" if quoted and "/" in place else None
        said = self.spelled(place, rest[0])
        return None if said == ".".join([*place.split("/"), rest[0]]) else f"say {said}"

    def spelled(self, file: str, name: str) -> str:
        wing, _, stem = file.rpartition("/")
        return ".".join([*(wing if self.faces.get(wing, {}).get(name) == stem else file).split("/"), name])

    def file_wrong(self, mention: str, where: str) -> str | None:
        """What is wrong with the mention of a Python file in the file `where`."""
        name, here = mention.removesuffix(".py"), Path(where).parent
        if mention.startswith(THEIRS) or mention in THEIR_FILES or (where, mention) in AS_RECORDED:
            return None
        if mention == "s4d_lib/__init__.py" or mention.startswith(("a/", "b/")):  # the face of all; a line of a diff
            return None
        if name.removeprefix("s4d_lib/") in self.own:  # with its wing, or on the ground
            return f"say {mention.removeprefix('s4d_lib/')}" if name.startswith("s4d_lib/") else None
        if (ROOT / mention).exists() or (ROOT / here / mention).exists() or (ROOT / "ci" / mention).exists() or (
                where.startswith("ci/") and any((ROOT / "ci").glob(f"*/{mention}"))):
            return None
        homes = self.stems.get(name.rpartition("/")[2], [])
        return f"say {' or '.join(f'{home}.py' for home in homes)}" if homes else "there is no such file"


TREE = Tree()


def ours(*endings: str) -> list[str]:
    """Files of the repository, by their paths from its root."""
    paths = [*ROOT.glob("*"), *(path for top in ("chapters", "s4d_lib", "widgets", "ci", ".github")
                                for path in (ROOT / top).rglob("*"))]
    left_out = re.compile(r"chapters/results/|ci/tests/data/|.*(/\.|__pycache__|node_modules)")
    names = (path.relative_to(ROOT).as_posix() for path in paths if path.name.endswith(endings))
    return sorted(name for name in names if Path(name).name not in LEFT_OUT and not left_out.match(name))


def prose(name: str) -> Iterator[str]:
    """What a file says to a reader: all of a page; comments and strings of a program, of a test its docstrings."""
    text = (ROOT / name).read_text()
    if not name.endswith(".py"):
        yield text
        return
    if name.startswith("ci/tests/"):
        yield from re.findall(r"^\s*# .*|  # .*", text, re.MULTILINE)
        documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
        yield from (ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, documented))
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield re.sub(r"\{[^{}]*\}", "", token.string) if token.string[0] in "fF" else token.string


def said_wrong(text: str, where: str, tree: Tree = TREE) -> list[str]:
    """Every wrong mention in a text: "`masking.random_mask`: say layers.random_mask"."""
    found = [(span, tree.said_wrong(span)) for span in SPAN.findall(text) if not span.endswith(ENDINGS)]
    if where.endswith(".py"):
        found += [(word, tree.said_wrong(word, quoted=False)) for word in PLAIN.findall(text)]
    found += [(file, tree.file_wrong(file, where)) for file in FILE.findall(text)]
    return sorted({f"{mention}: {what}" for mention, what in found if what})


def imported_wrong(text: str, tree: Tree = TREE) -> list[str]:
    """Names of the library that a program imports, or names in a string, and that are not there."""
    wanted = set(DOTTED.findall(text))
    for place, names in IMPORT.findall(text):
        names = re.sub(r"#.*", "", names.strip("()"))
        wanted |= {f"{place}.{name.split(' as ')[0].strip()}" for name in re.split(r"[,\n]", names) if name.strip()}
    return sorted(name for name in wanted if re.fullmatch(r"[\w.]+", name) and not tree.importable(name))


PAGES = (".md", ".py", ".sh", ".yml", ".toml", ".mjs", ".jinja", ".css", ".js", "Dockerfile", ".def")


@pytest.mark.parametrize("part", ["chapters", "s4d_lib", "widgets", "ci", "."])
def test_every_mention_is_right_and_spelled_in_one_way(part):
    names = [name for name in ours(*PAGES) if name.startswith(f"{part}/") or part == "." and (
        "/" not in name or name.startswith(".github"))]
    assert names
    wrong = {name: found for name in names if (found := sorted({one for text in prose(name)
                                                               for one in said_wrong(text, name)}))}
    assert wrong == {}


def test_every_import_in_a_page_a_script_or_a_string_finds_its_name():
    names = ours(*PAGES)
    assert len(names) > 300
    assert {name: found for name in names if (found := imported_wrong((ROOT / name).read_text()))} == {}


def test_outputs_of_the_chapters_name_what_is_there():
    """What a run printed before a move is not what it prints now."""
    wrong = {}
    for name in ours(".ipynb"):
        cells = json.loads((ROOT / name).read_text())["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        kinds = [{"text": output.get("text", ""), **output.get("data", {})} for output in outputs]
        shown = "\n".join("".join(text) for one in kinds for kind, text in one.items() if kind.startswith("text"))
        if found := sorted({*said_wrong(shown, name), *imported_wrong(shown)}):
            wrong[name] = found
    assert wrong == {}


@pytest.mark.parametrize("said, wrong", [
    ("`layers.random_mask` `layers.heads.POOLS` `clips.EVAL` layers/masking.py `np.zeros` ft/utils/loss.py", []),
    ("`masking.random_mask`", ["masking.random_mask: say layers.random_mask"]),
    ("`layers.masking.random_mask`", ["layers.masking.random_mask: say layers.random_mask"]),
    ("`heads.POOLS(1)`", ["heads.POOLS: say layers.heads.POOLS"]),
    ("`layers.POOLS`", ["layers.POOLS: layers hands no POOLS on"]),
    ("`s4d_lib.layers.masking`", ["s4d_lib.layers.masking: say it without s4d_lib, a file as wing/file.py"]),
    ("`lab_cells.METHODS`", ["lab_cells.METHODS: no place of the library is called lab_cells"]),
    ("as masking.py does, or stages.py", ["masking.py: say layers/masking.py", "stages.py: there is no such file"]),
])
def test_a_wrong_mention_is_seen(said, wrong):
    assert said_wrong(said, "README.md") == wrong
    assert said_wrong("as masking.py does", "s4d_lib/layers/heads.py") == [], "inside its wing the file is enough"


def test_a_wrong_import_is_seen():
    program = "from s4d_lib.runs import train\nfrom s4d_lib.layers import (\n    random_mask,  # kept\n    gone,\n)\n"
    assert imported_wrong(program + "set('s4d_lib.clips.EVAL', 's4d_lib.clips.GONE')") == [
        "s4d_lib.clips.GONE", "s4d_lib.layers.gone", "s4d_lib.runs.train"]
