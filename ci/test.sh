#!/usr/bin/env bash
# Everything that must hold before a change lands: lint, our own checks, the site built and driven in a browser, unit tests,
# and every chapter run again by nbval.
# The last line printed is pytest's own summary, of the unit tests and the chapters together.
#
#   bash ci/test.sh [further words for pytest, such as -k masking]
#   bash ci/test.sh --quick [...]    between two edits: no site, no chapter, no test that trains, starts processes or browses
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$S4D_ROOT/ci/system_tools.sh"
cd "$S4D_ROOT"
export S4D_RUNS="${S4D_RUNS:-$S4D_ROOT/runs}" # one place for the runs of all chapters, whatever folder a kernel starts in

quick="" words=()
for word in "$@"; do
    if [[ "$word" == --quick ]]; then quick=1; else words+=("$word"); fi
done

step() { # name, remedy, command ...
    local name="$1" remedy="$2"
    shift 2
    printf '\n== %s\n' "$name"
    "$@" || {
        printf '\n%s failed. %s\n' "$name" "$remedy" >&2
        exit 1
    }
}

step "lint" "Most of it is mended by: ruff check --fix ." \
    ruff check --quiet .
if [[ -z "$quick" ]]; then
    step "node and a browser" "Install what is named above." need_node
    step "node and a browser" "Install what is named above." need_chromium
fi
if python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    step "floors" "An import goes up or in a circle; the wings and their floors stand at the end of pyproject.toml." lint-imports --no-cache
else
    printf '\n== floors\nNot checked: import-linter needs Python 3.11, and this is an older one.\n'
fi
step "environment files" "Bring environment.yml, pyproject.toml and ci/constraints.txt into step as said above." \
    python ci/check_environment.py

shopt -s nullglob
texts=(chapters/*.md)
chapters=(chapters/*.ipynb)
if ((${#texts[@]} + ${#chapters[@]})); then
    step "chapter pairs" "Edit the .md, then: .venv/bin/python ci/execute_chapters.py CHAPTER" \
        python ci/check_pairs.py
fi

# What follows is one pytest, so that its summary is the last line printed. `loadfile` keeps the tests of a file, which share
# fixtures, and the cells of a notebook, which share a kernel, together.
if [[ -n "$quick" ]]; then
    printf '\n== quick unit tests\n'
    echo "Left out: tests marked trains, spawns or browser, the chapters and the site; bash ci/test.sh runs them all."
    exec python -m pytest ci/tests -m "not trains and not spawns and not browser and not slow" \
        -n 2 --dist loadfile ${words[@]+"${words[@]}"}
fi

if ((${#texts[@]} + ${#chapters[@]})); then
    step "site" "Each line marked ✗ names a page and what is wrong with it; look at the pages: bash ci/site.sh --check --serve 8000" \
        python ci/build_site.py --check
    export S4D_SITE="$S4D_ROOT/_build/site-check" # the browser tests drive these pages and do not build them again
    step "data for the chapters" "Remove the folder that is named above and run this again." \
        s4d data --tier smoke
fi

# (The odd form of the lists is for the bash of macOS, to which an empty one is unset.)
printf '\n== unit tests and chapters (%d notebooks)\n' "${#chapters[@]}"
echo "To run one test alone: .venv/bin/python -m pytest PATH::NAME. To mend a chapter whose cell fails: edit its .md, then"
echo "write its .ipynb anew with .venv/bin/python ci/execute_chapters.py CHAPTER."
# Three for two cores: a quarter of the time is tests that wait for processes of their own. Their files begin first, in the
# order of ci/tests/conftest.py, which xdist would turn into one by numbers of tests.
exec python -m pytest ci/tests ${chapters[@]+"${chapters[@]}"} --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
    -n 3 --dist loadfile --no-loadscope-reorder ${words[@]+"${words[@]}"}
