"""front ends + states → widgets/*.mjs     write the complete files that JupyterLab and the site read.

    python -m widgets                      everything again, recorded states included
    python -m widgets router_explorer      one of them
    python -m widgets --code               new front ends around the states that are there
    python -m widgets --check              fail if a committed file is not what its sources give, or a record is newer
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module

from widgets import EXPLORERS
from widgets.explorer import HERE, RECORDED, Explorer, made_from, outdated, recorded

LIMIT = 500_000  # bytes of recorded states an explorer may bring to a page


def bundle(explorer: type[Explorer], states: dict) -> str:
    """One self-contained module: names from Python, shared code, front end, recorded states."""
    from s4d_lib.figures import EXPERT_COLOURS, PALETTE

    kept = json.dumps(states, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(kept.encode()) > LIMIT:
        raise ValueError(f"{explorer.name}: {len(kept.encode())} bytes of states are more than {LIMIT}; record fewer")
    names = {"NAME": explorer.name, "TITLE": explorer.title, "QUESTION": explorer.question, "PALETTE": PALETTE,
             "EXPERTS": EXPERT_COLOURS}
    parts = [f"// Written by `python -m widgets` from front/shared.mjs and front/{explorer.name}.mjs; edit those.",
             *(f"const {name} = {json.dumps(value, ensure_ascii=False)};" for name, value in names.items()),
             f"{RECORDED}{kept};"]
    code = [(HERE / "front" / f"{name}.mjs").read_text(encoding="utf-8") for name in ("shared", explorer.name)]
    return "\n".join(parts) + "\n\n" + "\n".join(code)


def main(wanted: list[str]) -> int:
    """Record and write the named explorers, all of them by default; 0, or 1 if a check fails, or 2 for a wrong word."""
    flags = {word for word in wanted if word.startswith("--")}
    names = [word for word in wanted if word not in flags]
    if unknown := [*(flags - {"--code", "--check"}), *(name for name in names if name not in EXPLORERS.values())]:
        print(f"unknown: {', '.join(unknown)}; there are --code, --check and {', '.join(EXPLORERS.values())}")
        return 2
    wrong = []
    for kind, name in EXPLORERS.items():
        if names and name not in names:
            continue
        explorer, began = getattr(import_module(f"widgets.{name}"), kind), time.perf_counter()
        states = recorded(name) if flags else explorer.record() | {"made_from": made_from(*explorer.sources())}
        text, path = bundle(explorer, states), HERE / f"{name}.mjs"
        if "--check" in flags:
            if path.read_text(encoding="utf-8") != text:
                wrong.append(f"{name} is not what its front end and states give: python -m widgets --code {name}")
            if older := outdated(states, made_from(*explorer.sources())):
                wrong.append(f"{name} shows an older {', '.join(older)}: python -m widgets {name}")
            continue
        path.write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode()) / 1000:.0f} kB, {time.perf_counter() - began:.1f} s")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
