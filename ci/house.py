"""imports → picture     the floors of the library, drawn for CONTRIBUTING.md from what its files import.

    python ci/house.py           print the picture (Mermaid)
    python ci/house.py --write   put it into CONTRIBUTING.md

A box is a wing, with the first words of its file: what goes in → what comes out. An arrow says "imports". One that
follows from others (lab → training → layers says lab → layers) is left out, and so are the arrows to the ground, on
which every wing stands.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "CONTRIBUTING.md"
GROUND = 2  # so many of the lowest floors are drawn as one box
BEGIN, END = "<!-- drawn by ci/house.py -->\n", "<!-- end of the picture -->\n"


def floors(root: Path = ROOT) -> list[list[str]]:
    """The wings of every floor, from the highest to the ground, as the contract in pyproject.toml has them."""
    import tomllib

    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [[name.strip() for name in floor.split("|")] for floor in layers]


def arrows(wings: set[str]) -> set[tuple[str, str]]:
    """(wing, wing that it imports), lazy imports included."""
    import grimp

    graph = grimp.build_graph("s4d_lib", cache_dir=None)
    for wing in wings:
        graph.squash_module(f"s4d_lib.{wing}")
    return {(one, other) for one in wings for other in wings
            if graph.direct_import_exists(importer=f"s4d_lib.{one}", imported=f"s4d_lib.{other}")}


def shortest(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that do not follow from two or more others."""
    def reached(start: str) -> set[str]:
        found = {other for one, other in pairs if one == start}
        return found.union(*(reached(one) for one in found))

    return {(one, other) for one, other in pairs
            if not any(other in reached(between) for start, between in pairs if start == one and between != other)}


def what_it_does(wing: str, root: Path = ROOT) -> str:
    """The arrow that a wing's file begins with: "config → run"."""
    path = root / "s4d_lib" / wing
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return re.match(r'"""(.+?) {5}', path.read_text(encoding="utf-8"))[1]


def picture(root: Path = ROOT) -> str:
    """The house as a Mermaid flowchart, floor below floor."""
    every = floors(root)
    upper, ground = every[:-GROUND], [wing for floor in every[-GROUND:] for wing in floor]
    lines = ["```mermaid", "flowchart TD"]
    for number, floor in enumerate(upper):
        boxes = [f'    {wing}["<b>{wing}</b><br/>{what_it_does(wing, root)}"]' for wing in floor]
        lines += [f'  subgraph floor{len(every) - 1 - number}[" "]', *boxes, "  end"]
    lines += [f"  {one} --> {other}" for one, other in sorted(shortest(arrows({w for floor in upper for w in floor})))]
    lines += [f'  ground["<b>the ground</b><br/>{" · ".join(ground)}"]', f"  floor{GROUND} --> ground", "```", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    drawn = picture()
    if arguments != ["--write"]:
        print(drawn)
        return 0
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + drawn + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
