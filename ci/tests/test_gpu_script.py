"""ci/gpu.sh: rehearsed on the CPU; the stages' own arithmetic; that it goes on where it was stopped."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("gpu", ROOT / "ci" / "gpu.py")
gpu = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu)


@pytest.mark.spawns
def test_dry_run(tmp_path: Path) -> None:
    """Every check within its tolerance on the CPU, bfloat16 included, and the list of what to commit."""
    done = subprocess.run(["bash", "ci/gpu.sh", "--dry"], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OUT": str(tmp_path), "S4D_PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cp {tmp_path}/step_costs.json chapters/results/step_costs.json" in done.stdout
    found = json.loads((tmp_path / "dry" / "checks.json").read_text())
    assert len(found) == 17 and all(one["holds"] for one in found.values())
    assert any(one["loss_differs"] > 0 for one in found.values()), "bfloat16 differs, or nothing was compared"


def test_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  capsys: pytest.CaptureFixture) -> None:
    made, stop = [], [True]

    def second(call: object) -> dict:
        if stop.pop():
            raise gpu.Later
        return {"holds": False}

    monkeypatch.setattr(gpu, "STAGES", {"first": lambda call: made.append(1) or {"holds": True}, "second": second})
    second.__doc__ = "Is stopped once."
    call = gpu.Call(tmp_path, "cpu", 1)
    assert gpu.go(call, ["first", "second"]) == gpu.ASK_AGAIN
    stop.append(False)
    assert gpu.go(call, ["first", "second"]) == 1, "what does not hold is said"
    assert made == [1] and "does not hold: second" in capsys.readouterr().out


def test_names_missing_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.missing() == []
    version = gpu.importlib.metadata.version

    def without(name: str) -> str:
        if name == "einops":
            raise gpu.importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(gpu.importlib.metadata, "version", without)
    (line,) = gpu.missing()
    assert line.startswith("einops==")


def test_furthest() -> None:
    assert gpu.furthest([1.0, 2.0], [1.0, 2.2]) == pytest.approx(0.1)
    assert gpu.furthest([1.0], [1.0, 2.0]) == float("inf") == gpu.furthest([], [])
