"""The fake accelerator's cases, in a process of their own.

PyTorch counts its devices when a process computes its first gradient. A device that is registered later has no queue,
so these cases cannot follow other tests.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("fake_*_cases.py"))


@pytest.mark.spawns
def test_every_step_and_every_planted_fault():
    assert len(CASES) == 2
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    words = ["-m", "pytest", *map(str, CASES), "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run([sys.executable, *words], cwd=HERE.parents[1], capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])
