"""committed notebooks → site     build the book's pages with MyST, judge everything it says, and check what it wrote.

    python ci/build_site.py --check      our plain check rendering, without any network
    python ci/build_site.py              the published look, MyST's book theme, which is fetched
    python ci/build_site.py [--check] --serve 8000

Nothing is executed: pages show the outputs that the notebooks hold. The book is copied to _build/ first, because the
check rendering takes the place where MyST would keep the fetched theme, and pages made from docstrings are not
committed.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import check_site

ROOT = Path(__file__).resolve().parent.parent
THEME = ROOT / "ci" / "check_theme"
PLACE = Path("_build/templates/site/myst/book-theme")  # where MyST looks before it fetches the theme
LEFT_BEHIND = shutil.ignore_patterns(".*", "_build", "build", "data", "runs", "tests", "__pycache__", "*.egg-info")
HARMLESS = [  # what MyST says of a sound book
    re.compile(r"Linking \".*\" to an implicit heading reference"),  # not broken; chapter 13 does so
    re.compile(r'Duplicate identifier in project "[0-9a-f]{12}-\d+"'),  # equal cells of two chapters have equal ids
    re.compile(r"'jupytext' extra keys? ignored"),  # what jupytext --update leaves in a notebook's header
]


def stage(root: Path, into: Path) -> None:
    """A copy of the book without what git ignores, and with the pages that are written from docstrings."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(root, into, ignore=LEFT_BEHIND)
    writer = into / "ci" / "api_pages.py"
    if writer.exists():
        subprocess.run([sys.executable, writer, into / "api"], cwd=into, check=True)


def seed_theme(book: Path) -> None:
    shutil.copytree(THEME, book / PLACE, ignore=shutil.ignore_patterns("__pycache__"))


def complaints(log: str) -> Iterator[str]:
    """The warnings and errors among the lines of a build, each once, without those that are harmless."""
    told = set()
    for line in log.splitlines():
        found = re.match(r"\s*(?:⛔|⚠️|❌)\s*(.*)", line)
        if found and found[1] not in told and not any(one.search(line) for one in HARMLESS):
            told.add(found[1])
            yield found[1].strip()


def run_myst(book: Path) -> tuple[int, str]:
    """MyST's exit code and all it said; without --strict, so that one run tells everything that is wrong."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["myst", "build", "--html"], cwd=book, env=environment, text=True, encoding="utf-8",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800)
    return done.returncode, done.stdout


def build(book: Path) -> list[str]:
    """Build the book in this folder; returns all that is wrong with it, an empty list when nothing is."""
    code, log = run_myst(book)
    html = book / "_build" / "html"
    if "template metadata" in log and "failed" in log:
        return ["the book theme could not be fetched; offline, build with: bash ci/site.sh --check"]
    problems = list(complaints(log)) + check_site.check_content(book / "_build" / "site", book)
    if not (html / "index.html").exists() or code:
        problems.append(f"MyST ended with exit code {code}; its last words:\n" + "\n".join(log.splitlines()[-15:]))
    if (book / PLACE / "render.py").exists() and not problems:  # the book theme's pages are not ours to check
        problems += check_site.check_html(html)
    return problems


def serve(folder: Path, port: int) -> None:
    print(f"http://127.0.0.1:{port}/ (Ctrl-C ends it)")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=folder)
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Build the site from the committed notebooks; nothing is executed.")
    parser.add_argument("--check", action="store_true", help="our plain check rendering, offline")
    parser.add_argument("--serve", type=int, metavar="PORT", help="show the result at this port of this machine")
    chosen = parser.parse_args(arguments)
    name = "site-check" if chosen.check else "site"
    book, into = ROOT / "_build" / f"{name}-source", ROOT / "_build" / name
    stage(ROOT, book)
    if chosen.check:
        seed_theme(book)
    problems = build(book)
    for problem in problems:
        print(f"✗ {problem}")
    if problems:
        print(f"{len(problems)} things are wrong with the site")
        return 1
    shutil.rmtree(into, ignore_errors=True)
    shutil.move(book / "_build" / "html", into)
    print(check_site.weights(book / "_build" / "site", book))
    look = "check rendering (not the published look)" if chosen.check else "book theme"
    print(f"{look}: {into.relative_to(ROOT)}/index.html")
    if chosen.serve:
        serve(into, chosen.serve)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
