"""Write the library's pages for the site: one for every wing of s4d_lib, the bibliography with who cites what, and the
published weights.

    python ci/api_pages.py OUT        OUT is the folder `api` beside chapters/; myst.yml lists it

Nothing here is written by hand. Signatures and docstrings are read by griffe, which imports nothing. The chapter that
derives a file stands in that file's docstring ("Derived in chapter 04."); which chapters use an entry is read from
their code cells. `labels.json` tells `ci/links_plugin.mjs` which names have an entry, so that every mention of one in a
chapter becomes a link back.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import griffe
from weights_page import weights_page

from s4d_lib.batch.chapters import find_chapters, read_chapter

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 88  # longer signatures stand on several lines, as in a narrow window
LONGEST_VALUE = 240  # characters of a constant that are shown
DERIVED = re.compile(r"(?:Derived|Explained)\s+in\s+(?:chapters?|appendix)\s+[\w, \n]+?\.")  # said again, with links
MENTION = re.compile(r"\b(chapters?|appendix|appendices) ((?:\w{1,2}\b(?:, | and (?=\w{1,2}\b))?)+)")
SPECIAL = re.compile(r"([\\*_$\[\]{}<>#@|~])")


@dataclass(frozen=True)
class File:
    """A file of the library: "layers/masking", or "clips" on the ground."""

    name: str
    module: griffe.Module
    entries: dict[str, str]  # public functions and classes → label
    label: str

    @property
    def stem(self) -> str:
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Wing:
    """A folder of the library with its files in the order of the flow; a file on the ground is a wing by itself."""

    name: str
    module: griffe.Module
    files: tuple[File, ...]

    @property
    def label(self) -> str:
        return f"lib-{self.name.replace('/', '-')}"


@dataclass
class Uses:
    """Where the chapters use the library: file name → entry name → chapters. The entry "" is the file itself."""

    found: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))

    def add(self, file: str, entry: str, chapter: str) -> None:
        self.found[file][""].add(chapter)
        self.found[file][entry].add(chapter)

    def of(self, file: str, entry: str = "") -> list[str]:
        return sorted(self.found[file][entry])

    def files(self, chapter: str) -> set[str]:
        """The files that a chapter uses."""
        return {file for file, entries in self.found.items() if chapter in entries[""]}


def read_wings(library: griffe.Module) -> list[Wing]:
    """The wings in the order of the library's own docstring, then the files on the ground."""
    wings = []
    for name, module in sorted(library.members.items()):
        if is_public(name, module) and module.is_module:
            wings += _with_wings_inside(name, module) if module.is_init_module else [
                Wing(name, module, (_file(name, module, "", Counter()),))]
    listed = library.docstring.value if library.docstring else ""
    return sorted(wings, key=lambda wing: (len(wing.files) == 1 and not wing.module.is_init_module,
                                           _place_in(listed, wing.name.split("/")[0]), wing.name))


def _with_wings_inside(name: str, module: griffe.Module) -> list[Wing]:
    modules = {key: member for key, member in module.members.items() if is_public(key, member) and member.is_module}
    spelled = Counter(_spelling(key, member) for one in modules.values() if not one.is_init_module
                      for key, member in one.members.items() if _is_entry(key, member))
    listed = module.docstring.value if module.docstring else ""
    files = [_file(f"{name}/{key}", one, name, spelled) for key, one in modules.items() if not one.is_init_module]
    inside = [wing for key, one in sorted(modules.items()) if one.is_init_module
              for wing in _with_wings_inside(f"{name}/{key}", one)]
    files.sort(key=lambda file: (_place_in(listed, file.stem), file.name))
    return [Wing(name, module, tuple(files)), *inside]


def _place_in(listed: str, name: str) -> int:
    """Where a name begins a line of a docstring's list; at the end if it is not listed."""
    found = re.search(rf"^ *{re.escape(name)}/? ", listed, re.MULTILINE)
    return found.start() if found else len(listed)


def _file(name: str, module: griffe.Module, wing: str, spelled: Counter) -> File:
    """A label names the wing and the entry, not the file, so that links outlive a move within the wing."""
    entries = {}
    for key, member in module.members.items():
        if _is_entry(key, member):
            place = name if not wing or spelled[_spelling(key, member)] > 1 else wing
            entries[key] = f"lib-{place.replace('/', '-')}-{_spelling(key, member)}"
    folder = f"{wing.replace('/', '-')}-file-" if wing else ""
    return File(name, module, entries, f"lib-{folder}{name.rpartition('/')[2]}")


def _is_entry(name: str, member: griffe.Object | griffe.Alias) -> bool:
    return is_public(name, member) and (member.is_function or member.is_class)


def _spelling(name: str, member: griffe.Object) -> str:
    """Labels do not know capitals, and a file may hold both `Scores` and `scores`."""
    return f"class-{name}" if member.is_class else name


def read_uses(chapters: list[Path], library: griffe.Module) -> Uses:
    """What the chapters' code cells take from the library: names through a wing's face or a file, or `wing.name`."""
    uses = Uses()
    for path in chapters:
        modules: dict[str, str] = {}  # the chapter's word for a wing or a file → its dotted path below the library
        for cell in read_chapter(path).cells:
            for place, name, word in _mentions(cell.source, modules) if cell.cell_type == "code" else ():
                if file := _defined_in(library, place, name):
                    uses.add(*file, path.stem)
                elif word and _module(library, f"{place}.{name}".strip(".")):
                    modules[word] = f"{place}.{name}".strip(".")
    return uses


def _mentions(source: str, modules: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(wing or file, name in it, the cell's word if it is an import) of all that a cell takes from the library."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "s4d_lib":
                yield from ((module.partition(".")[2], name.name, name.asname or name.name) for name in names)
            case ast.Attribute(value=ast.Name(id=word), attr=entry) if word in modules:
                yield modules[word], entry, ""


def _module(library: griffe.Module, place: str) -> griffe.Module | None:
    """The module at "layers.masking", None where there is none."""
    found = library
    for word in filter(None, place.split(".")):
        found = found.members.get(word)
        if found is None or found.is_alias or not found.is_module:
            return None
    return found


def _defined_in(library: griffe.Module, place: str, name: str) -> tuple[str, str] | None:
    """(file, entry) where a name that `place` holds or hands on is defined."""
    module = _module(library, place)
    member = module.members.get(name) if module else None
    if member is None or not member.is_alias and member.is_module:
        return None
    if not member.is_alias:
        return (place.replace(".", "/"), name) if place else None
    inside = member.target_path.removeprefix(f"{library.name}.")
    return _defined_in(library, *inside.rpartition(".")[::2]) if inside != member.target_path else None


def named_chapters(docstring: str, stems: list[str]) -> list[str]:
    """The chapters that a docstring names: "Derived in chapters 06 and 07." → their file stems, in book order."""
    numbers = set()
    for _, named in MENTION.findall(" ".join(docstring.split())):
        numbers |= {number.zfill(2) if number.isdigit() else number for number in re.split(r", | and ", named)}
    return [stem for stem in stems if stem.split("_")[0] in numbers]


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown: prose escaped outside its code spans, indented or aligned lines as they stand."""
    blocks, kind = [], None
    docstring = DERIVED.sub("", docstring)
    for line in docstring.expandtabs().splitlines():
        aligned = line.startswith(" ") or re.search(r"\S {3,}\S", line)
        now = None if not line.strip() else "text" if aligned else "prose"
        if now is None or now != kind:
            blocks.append((now, []))
        blocks[-1][1].append(line)
        kind = now
    parts = []
    for kind, lines in blocks:
        if kind == "text":
            if parts and parts[-1].startswith("```"):  # an empty line inside a table
                parts[-1] = "\n".join([parts[-1].removesuffix("\n```"), "", *lines, "```"])
            else:
                parts.append("\n".join(["```text", *dedent("\n".join(lines)).splitlines(), "```"]))
        elif kind == "prose":
            parts.append(_escaped("\n".join(lines)))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(piece if piece.startswith("`") else SPECIAL.sub(r"\\\1", piece) for piece in pieces)


def signature(function: griffe.Function, prefix: str = "") -> str:
    """`def name(parameters) -> returns`, on one line if it fits."""
    line = f"{prefix}{function.signature()}"
    if len(line) <= WIDTH:
        return line
    head, rest = line.split("(", 1)
    inside, tail = rest.rsplit(")", 1)
    depth, quote, parts = 0, "", [""]
    for letter in inside:
        if letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif not quote:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return "\n".join([f"{head}(", *(f"    {part.strip()}," for part in parts), f"){tail}"])


@dataclass
class Book:
    """What every page needs to know: the chapters with their titles, the uses, and the public entries of each file."""

    titles: dict[str, str]  # file stem → title, in book order
    uses: Uses

    def links(self, stems: list[str]) -> str:
        """Chapters as a list of short links."""
        return ", ".join(f"[{_short(stem)}](../chapters/{stem}.ipynb)" for stem in stems)

    def place(self, file: str, entry: str, derived: list[str]) -> str:
        """One line: which chapter derives this, and which others use it."""
        others = [stem for stem in self.uses.of(file, entry) if stem not in derived]
        parts = [f"Derived in {self.links(derived)}."] if derived else []
        parts += [f"{'Also used' if derived else 'Used'} in {self.links(others)}."] if others else []
        return " ".join(parts) or "No chapter calls it by name; the library does."


def _short(stem: str) -> str:
    """'04_masking' → 'chapter 4', 'c_batch_and_clusters' → 'appendix c'."""
    number = stem.split("_")[0]
    if number.isdigit():
        return f"chapter {int(number)}"
    return f"appendix {number}" if len(number) == 1 else "the first page"


def is_public(name: str, member: griffe.Object | griffe.Alias) -> bool:
    return not name.startswith("_") and not member.is_alias


def entry_lines(book: Book, file: File, name: str, derived: list[str]) -> list[str]:
    """A function or a class: label, heading, signature, docstring, chapters."""
    member = file.module[name]
    lines = [f"({file.entries[name]})=", f"### {name}", ""]
    docstring = member.docstring.value if member.docstring else ""
    if isinstance(member, griffe.Class):
        bases = ", ".join(str(base) for base in member.bases)
        lines += ["```python", f"class {name}({bases})" if bases else f"class {name}"]
        for key, attribute in member.members.items():
            if is_public(key, attribute) and attribute.is_attribute and attribute.annotation is not None:
                value = f" = {attribute.value}" if attribute.value is not None else ""
                lines.append(f"    {key}: {attribute.annotation}{value}")
        lines += ["```", "", as_markdown(docstring), ""]
        for key, method in member.members.items():
            if is_public(key, method) and method.is_function:
                said = as_markdown(method.docstring.value) if method.docstring else ""
                lines += ["```python", signature(method), "```", "", said, ""]
    else:
        lines += ["```python", signature(member, "def "), "```", "", as_markdown(docstring), ""]
    return [*lines, f"*{book.place(file.name, name, derived)}*", ""]


def file_lines(book: Book, file: File, alone: bool) -> list[str]:
    """A file's part of its wing's page, or the whole page: what it is, its entries, its constants."""
    docstring = file.module.docstring.value if file.module.docstring else ""
    derived = named_chapters(docstring, list(book.titles))
    lines = [] if alone else [f"({file.label})=", f"## {file.stem}.py", ""]
    lines += [_arrow(docstring), "",
             as_markdown(docstring.partition("\n")[2].strip("\n")), "", book.place(file.name, "", derived), ""]
    for name in file.entries:
        lines += entry_lines(book, file, name, derived)
    constants = []
    for name, member in file.module.members.items():
        if is_public(name, member) and member.is_attribute and member.value is not None:
            value = str(member.value)
            constants.append(f"{name} = {value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + ' …'}")
    return [*lines, *(["### Constants", "", "```python", *constants, "```", ""] if constants else [])]


def page(book: Book, wing: Wing) -> str:
    """The page of one wing, its files in the order of the flow; of a file on the ground, that file."""
    docstring = wing.module.docstring.value if wing.module.docstring else ""
    arrow, _, what = docstring.split("\n")[0].partition("     ")
    alone = not wing.module.is_init_module
    lines = _head(f"{wing.name}.py" if alone else f"{wing.name}/", wing.label, f"{arrow}: {what.strip()}")
    if not alone:
        lines += [_arrow(docstring), "", *(f"- [{file.stem}.py](#{file.label}): {_arrow(_said(file))}"
                                           for file in wing.files), ""]
    return "\n".join(lines + [line for file in wing.files for line in file_lines(book, file, alone)])


def overview(wings: list[Wing]) -> str:
    """The map of the library: every wing with its files, then the ground that all of them stand on."""
    lines = [*_head("The library", "library"),
             "Every wing of `s4d_lib` is one arrow, and so is every file in it. An import leads to a wing on a lower "
             "floor or to the ground, never up. The pages are made of docstrings and link back to the "
             "chapters.", ""]
    for wing in wings:
        if wing.module.is_init_module:
            lines += [f"## {wing.name}/", "",
                      f"[The page of this wing](#{wing.label}). {_arrow(wing.module.docstring.value)}", "",
                      *(f"- [{file.stem}.py](#{file.label}): {_arrow(_said(file))}" for file in wing.files), ""]
    lines += ["## The ground", ""]
    lines += [f"- [{wing.name}.py](#{wing.files[0].label}): {_arrow(_said(wing.files[0]))}"
              for wing in wings if not wing.module.is_init_module]
    return "\n".join([*lines, ""])


def _said(file: File) -> str:
    return file.module.docstring.value if file.module.docstring else ""


def link_table(wings: list[Wing], uses: Uses, chapters: list[str]) -> dict[str, dict]:
    """What `links_plugin.mjs` asks: which mentions lead to which label, and which files a chapter uses.

    A mention may name the wing, the file or both: `layers.random_mask`, the same behind the file, `layers/masking.py`.
    One that could mean two things, such as a file `folders`, leads nowhere unless the wing is named. The files of a
    chapter stand in the order of the house, from the roof to the ground.
    """
    meant: dict[str, set[str]] = defaultdict(set)
    for wing in wings:
        if wing.module.is_init_module:
            meant[f"{wing.name}/"].add(wing.label)
        for file in wing.files:
            for spelling in {file.name, file.stem}:
                meant[f"{spelling}.py"].add(file.label)
            for name, label in file.entries.items():
                for place in {file.name, file.stem, wing.name}:
                    meant[f"{place.replace('/', '.')}.{name}"].add(label)
    labels = {file.name: file.label for wing in wings for file in wing.files}
    return {"mentions": {spelling: min(found) for spelling, found in sorted(meant.items()) if len(found) == 1},
            "chapters": {stem: {f"{file}.py": labels[file] for file in labels if file in used}
                         for stem in chapters for used in [uses.files(stem)]}}


def _head(title: str, label: str, description: str = "") -> list[str]:
    about = [f"description: {json.dumps(description, ensure_ascii=False)}"] if description else []
    return ["---", f"title: {title}", *about, "---", "", f"({label})=", f"# {title}", ""]


def _arrow(docstring: str) -> str:
    """The first line of a library file's docstring, "a → b     what it is", as Markdown."""
    arrow, _, what = docstring.split("\n")[0].partition("     ")
    return f"**{_escaped(arrow)}** {_escaped(what.strip())}"


def bibliography(book: Book, references: Path, chapters: Path) -> str:
    """Every work of references.bib and the chapters that cite it; the site sets the entries themselves below."""
    lines = [*_head("Bibliography", "bibliography"),
             "Every work that the book cites, with the chapters that do so. The full entries stand at the end.", ""]
    for part in re.split(r"\n(?=[@%])", references.read_text()):
        if part.startswith("% ") and not part.rstrip().endswith("."):
            lines += ["", f"## {part[2:].strip()}", ""]
        elif entry := re.match(r"@\w+\{([\w-]+),", part):
            title = re.search(r"title = \{(.*)\},", part)[1].replace("{", "").replace("}", "")
            citing = [stem for stem in book.titles if f"@{entry[1]}" in (chapters / f"{stem}.md").read_text()]
            cited = f": {book.links(citing)}" if citing else ""
            lines.append(f"- {{cite:t}}`{entry[1]}`, *{_escaped(title)}*{cited}")
    return "\n".join([*lines, ""])


def write_pages(out: Path, root: Path = ROOT) -> list[Path]:
    """Write every page into `out`, and remove pages of wings that are gone; returns what was written."""
    library = griffe.load("s4d_lib", search_paths=[str(root)], try_relative_path=False, allow_inspection=False)
    wings, chapters = read_wings(library), find_chapters(root / "chapters")
    titles = {path.stem: next(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("# "))
              for path in chapters}
    book = Book(titles, read_uses(chapters, library))
    texts = {f"lib_{wing.name.replace('/', '_')}.md": page(book, wing) for wing in wings}
    texts |= {"library.md": overview(wings),
              "labels.json": json.dumps(link_table(wings, book.uses, list(titles)), indent=1)}
    if (references := root / "chapters" / "references.bib").exists():
        texts["bibliography.md"] = bibliography(book, references, root / "chapters")
    if (table := root / "chapters" / "published_weights.yaml").exists():
        texts["weights.md"] = weights_page(table)
    out.mkdir(parents=True, exist_ok=True)
    for stale in set(out.glob("lib_*.md")) - {out / name for name in texts}:
        stale.unlink()
    for name, text in texts.items():
        (out / name).write_text(text)
    return [out / name for name in texts]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("which folder should hold the pages? python ci/api_pages.py api", file=sys.stderr)
        return 2
    written = write_pages(Path(arguments[0]))
    print(f"{len(written)} files in {arguments[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
