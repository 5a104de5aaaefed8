"""Write the library's pages for the site: one for every file of s4d_lib, and the bibliography with who cites what.

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
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

import griffe

from s4d_lib.chapters import find_chapters, read_chapter

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 88  # longer signatures stand on several lines, as in a narrow window
LONGEST_VALUE = 240  # characters of a constant that are shown
DERIVED = re.compile(r"(?:Derived|Explained)\s+in\s+(?:chapters?|appendix)\s+[\w, \n]+?\.")  # said again, with links
MENTION = re.compile(r"\b(chapters?|appendix|appendices) ((?:\w{1,2}\b(?:, | and (?=\w{1,2}\b))?)+)")
SPECIAL = re.compile(r"([\\*_$\[\]{}<>#@|~])")


@dataclass
class Uses:
    """Where the chapters use the library: file name → entry name → chapters. The entry "" is the file itself."""

    found: dict[str, dict[str, set[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))

    def add(self, file: str, entry: str, chapter: str) -> None:
        self.found[file][""].add(chapter)
        self.found[file][entry].add(chapter)

    def of(self, file: str, entry: str = "") -> list[str]:
        return sorted(self.found[file][entry])


def read_uses(chapters: list[Path], files: set[str]) -> Uses:
    """What the chapters' code cells take from `files`: `from s4d_lib.x import y`, or `x.y` after an import of x."""
    uses = Uses()
    for path in chapters:
        modules = {}  # the chapter's name of a library file → the file
        for cell in read_chapter(path).cells:
            if cell.cell_type != "code":
                continue
            for node in ast.walk(ast.parse(cell.source)):
                match node:
                    case ast.ImportFrom(module="s4d_lib", names=names):
                        modules |= {name.asname or name.name: name.name for name in names if name.name in files}
                        for name in names:
                            if name.name in files:
                                uses.add(name.name, "", path.stem)
                    case ast.ImportFrom(module=str(module), names=names) if module.startswith("s4d_lib."):
                        for name in names:
                            uses.add(module.removeprefix("s4d_lib."), name.name, path.stem)
                    case ast.Attribute(value=ast.Name(id=name), attr=entry) if name in modules:
                        uses.add(modules[name], entry, path.stem)
    return uses


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
    entries: dict[str, dict[str, str]] = field(default_factory=dict)  # file → entry → label

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


def label_of(file: str, name: str, is_class: bool) -> str:
    """Labels do not know capitals, and a file may hold both `Scores` and `scores`."""
    return f"lib-{file}-{'class-' if is_class else ''}{name}"


def entry_lines(book: Book, file: str, name: str, member: griffe.Object, derived: list[str]) -> list[str]:
    """A function or a class: label, heading, signature, docstring, chapters."""
    lines = [f"({book.entries[file][name]})=", f"## {name}", ""]
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
    return [*lines, f"*{book.place(file, name, derived)}*", ""]


def page(book: Book, file: str, module: griffe.Module) -> str:
    """The page of one library file."""
    docstring = module.docstring.value if module.docstring else ""
    first, _, rest = docstring.partition("\n")
    arrow, _, what = first.partition("     ")
    derived = named_chapters(docstring, list(book.titles))
    lines = [*_head(f"{file}.py", f"lib-{file}", f"{arrow}: {what.strip()}"), _arrow(docstring), "",
             as_markdown(rest.strip("\n")), "", book.place(file, "", derived), ""]
    constants = []
    for name, member in module.members.items():
        if is_public(name, member) and member.is_attribute and member.value is not None:
            value = str(member.value)
            constants.append(f"{name} = {value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + ' …'}")
    for name in book.entries[file]:
        lines += entry_lines(book, file, name, module[name], derived)
    if constants:
        lines += ["## Constants", "", "```python", *constants, "```", ""]
    return "\n".join(lines)


def overview(book: Book, library: griffe.Module) -> str:
    """The map of the library: every file once, under the first chapter that derives or uses it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for file in sorted(book.entries):
        docstring = library[file].docstring.value
        homes = named_chapters(docstring, list(book.titles)) or book.uses.of(file)
        groups[homes[0] if homes else ""].append(f"- [{file}.py](lib_{file}.md): {_arrow(docstring)}")
    lines = [*_head("The library", "library"),
             "Every file of `s4d_lib` is one arrow. The files stand under the chapter that derives them, or else under "
             "the first chapter that uses them. The pages are made of docstrings and link back to the chapters.", ""]
    for stem, title in {**book.titles, "": "The machinery behind the commands"}.items():
        if groups[stem]:
            to_chapter = [f"[To the chapter](../chapters/{stem}.ipynb)", ""] if stem else []
            lines += [f"## {title}", "", *to_chapter, *groups[stem], ""]
    return "\n".join(lines)


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
    """Write every page into `out`, and remove pages of files that are gone; returns what was written."""
    library = griffe.load("s4d_lib", search_paths=[str(root)], try_relative_path=False, allow_inspection=False)
    files = {name: module for name, module in sorted(library.members.items())
             if is_public(name, module) and module.is_module}
    chapters = find_chapters(root / "chapters")
    titles = {path.stem: next(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("# "))
              for path in chapters}
    book = Book(titles, read_uses(chapters, set(files)))
    for file, module in files.items():
        book.entries[file] = {name: label_of(file, name, member.is_class) for name, member in module.members.items()
                              if is_public(name, member) and (member.is_function or member.is_class)}
    texts = {f"lib_{file}.md": page(book, file, module) for file, module in files.items()}
    texts |= {"library.md": overview(book, library), "labels.json": json.dumps(book.entries, indent=1)}
    if (references := root / "chapters" / "references.bib").exists():
        texts["bibliography.md"] = bibliography(book, references, root / "chapters")
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
