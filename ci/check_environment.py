"""Check that the three files which describe the environment say the same.

    python ci/check_environment.py

environment.yml holds what pip cannot give and one pip section; pyproject.toml names the packages;
ci/constraints.txt pins each of them. What cannot be checked here is whether conda finds a solution.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PIP_SECTION = ["-c ci/constraints.txt", "-e .[all]"]


def check_conda(text: str) -> Iterator[str]:
    """environment.yml is YAML, its entries are valid conda match specs, its pip section installs the book, pinned."""
    from rattler import MatchSpec
    from rattler.exceptions import InvalidMatchSpecError

    try:
        dependencies = yaml.safe_load(text)["dependencies"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        yield f"environment.yml: no list of dependencies can be read from it: {error!r}"
        return
    for entry in (entry for entry in dependencies if isinstance(entry, str)):
        try:
            MatchSpec(entry, strict=True)
        except InvalidMatchSpecError as error:
            yield f"environment.yml: {entry!r} is not a conda match spec: {error}"
    sections = [entry.get("pip") for entry in dependencies if isinstance(entry, dict)]
    if sections != [PIP_SECTION]:
        yield f"environment.yml: the pip section is {sections}, not {[PIP_SECTION]}"


def check_pins(named: list[str], constraints: str) -> Iterator[str]:
    """Every package that pyproject.toml names is pinned to one version that its own range allows, and no other is."""
    pins = {}
    for line in constraints.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            pins[canonicalize_name(requirement.name)] = requirement
    wanted = {canonicalize_name(Requirement(line).name): Requirement(line) for line in named}
    wanted.pop("s4d-book", None)  # the extra `all` names the other extras
    for name in sorted(wanted.keys() - pins.keys()):
        yield f"ci/constraints.txt: no version of {name} is pinned"
    for name in sorted(pins.keys() - wanted.keys()):
        yield f"ci/constraints.txt: pins {name}, which pyproject.toml does not name"
    for name in sorted(wanted.keys() & pins.keys()):
        exact = [item.version for item in pins[name].specifier if item.operator == "=="]
        if len(exact) != 1 or not wanted[name].specifier.contains(exact[0], prereleases=True):
            yield f"ci/constraints.txt: {pins[name]} does not pin a version within {wanted[name]}"


def check_installed(constraints: str) -> Iterator[str]:
    """What is installed here is what is pinned; a local build such as 2.13.0+cpu counts as its version."""
    for line in constraints.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue  # an optional extra
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{requirement.name} {installed} is installed, but ci/constraints.txt says {requirement.specifier}"


def main() -> int:
    constraints = (ROOT / "ci" / "constraints.txt").read_text()
    problems = [
        *check_conda((ROOT / "environment.yml").read_text()),
        *check_pins(requires("s4d-book") or [], constraints),
        *check_installed(constraints),
    ]
    for problem in problems:
        print(problem)
    if not problems:
        print("environment.yml, pyproject.toml and ci/constraints.txt agree with each other and with what is installed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
