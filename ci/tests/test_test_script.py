"""ci/test.sh with stand-ins for all that it starts: what each way of calling it asks for, in which order."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >> "$FAKE_LOG"
[[ "$*" != "${FAKE_FAILS:-none}"* ]]
"""
ENVIRONMENT = """S4D_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
export PATH="$S4D_ROOT/bin:$PATH"
"""
TOOLS = """need_node() { echo node >> "$FAKE_LOG"; }
need_chromium() { echo chromium >> "$FAKE_LOG"; }
"""


@pytest.fixture
def script(tmp_path):
    """A checkout of one chapter with the real test.sh; call it to run the script."""
    root = tmp_path / "a checkout"
    for folder in ("ci", "bin", "chapters"):
        (root / folder).mkdir(parents=True)
    shutil.copy(ROOT / "ci" / "test.sh", root / "ci")
    (root / "ci" / "environment.sh").write_text(ENVIRONMENT)
    (root / "ci" / "system_tools.sh").write_text(TOOLS)
    for name in ("01_a.md", "01_a.ipynb"):
        (root / "chapters" / name).touch()
    for name in ("python", "ruff", "s4d", "lint-imports"):
        (root / "bin" / name).write_text(STAND_IN)
        (root / "bin" / name).chmod(0o755)

    def run(*words: str, **settings: str) -> tuple[int, list[str], str]:
        """(exit code, what was started, everything printed)"""
        log = tmp_path / "log"
        log.write_text("")
        done = subprocess.run(["bash", str(root / "ci" / "test.sh"), *words], capture_output=True, text=True,
                              env={**os.environ, "FAKE_LOG": str(log), **settings})
        return done.returncode, log.read_text().splitlines(), done.stdout + done.stderr

    return run


def started(asked: list[str], words: str) -> bool:
    return any(words in line for line in asked)


def test_quick_leaves_out_what_is_slow_and_needs_other_programs(script):
    code, asked, said = script("-x", "--quick", "-k", "masking or tokens")
    assert code == 0 and started(asked, "ruff check") and started(asked, "check_environment.py")
    assert started(asked, "check_pairs.py")
    assert not [line for line in asked if line in ("node", "chromium") or "build_site" in line or "s4d data" in line]
    left_out = "not trains and not spawns and not browser and not slow"
    assert asked[-1].startswith(f"python -m pytest ci/tests -m {left_out} -n 2")
    assert asked[-1].endswith(" -x -k masking or tokens") and "nbval" not in asked[-1] and "--quick" not in asked[-1]
    assert "Left out: tests marked trains, spawns or browser" in said


def test_the_whole_run_leaves_nothing_out(script):
    code, asked, _ = script("-k", "masking")
    assert code == 0 and {"node", "chromium"} <= set(asked)
    assert started(asked, "build_site.py --check") and started(asked, "s4d data --tier smoke")
    assert asked[-1].startswith("python -m pytest ci/tests chapters/01_a.ipynb --nbval-lax")
    assert asked[-1].endswith(" -k masking") and " -m not" not in asked[-1]
    assert script()[1][-1].endswith("--dist loadfile --no-loadscope-reorder"), "and no word is needed"


@pytest.mark.parametrize("words", [(), ("--quick",)])
def test_floors_are_checked_where_python_is_new_enough(script, words):
    code, asked, said = script(*words)
    assert code == 0 and started(asked, "lint-imports") and "Not checked" not in said
    code, asked, said = script(*words, FAKE_FAILS="-c import sys")
    assert code == 0 and not started(asked, "lint-imports") and "Not checked: import-linter needs Python 3.11" in said
    code, asked, said = script(*words, FAKE_FAILS="--no-cache")
    assert code == 1 and "lint-imports" in asked[-1] and "floors failed. An import goes up or in a circle" in said


@pytest.mark.parametrize("words", [(), ("--quick",)])
def test_the_first_step_that_fails_is_the_last_and_is_named(script, words):
    code, asked, said = script(*words, FAKE_FAILS="ci/check_environment.py")
    assert code == 1 and "check_environment.py" in asked[-1] and "environment files failed. Bring" in said
    code, asked, _ = script(*words, FAKE_FAILS="-m pytest")
    assert code == 1 and "-m pytest" in asked[-1], "pytest's own answer is the script's"
