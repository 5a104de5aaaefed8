"""words → points     what stands after -p and --sweep: names with values, and the points that sweeps span."""

import ast
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from s4d_lib.batch.chapters import ChapterError, Value

MOST_POINTS = 10_000


def read_value(word: str) -> Value:
    """A Python literal, else YAML (so that `true` and a bare word work). YAML alone reads 1e-3 as a text."""
    import yaml

    try:
        return ast.literal_eval(word.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise ChapterError(f"{word!r} is neither a Python literal nor YAML: {' '.join(str(error).split())}") from error


def read_setting(words: str, option: str = "-p") -> tuple[str, Value]:
    """`name=value`."""
    name, value = _split(words, option)
    return name, read_value(value)


def read_settings(words: Sequence[str], option: str = "-p") -> dict[str, Value]:
    """Several `name=value`; the same name twice is refused."""
    found: dict[str, Value] = {}
    for word in words:
        name, value = read_setting(word, option)
        if name in found:
            raise ChapterError(f"{option} {name} is given twice: {found[name]!r} and {value!r}")
        found[name] = value
    return found


def read_sweeps(words: Sequence[str]) -> list[dict[str, Value]]:
    """`name=a,b,c` per axis → every combination of their values; one empty point for no axis.

    Commas within brackets or quotes belong to the value: `ratios=[0.5,0.9],[0.75]` has two.
    """
    axes: dict[str, list[Value]] = {}
    count = 1
    for word in words:
        name, values = _split(word, "--sweep")
        if name in axes:
            raise ChapterError(f"--sweep {name} is given twice; list its values in one, separated by commas")
        parts = _at_commas(values)
        count *= len(parts)
        if count > MOST_POINTS:
            raise ChapterError(f"these sweeps have {count:,} points; at most {MOST_POINTS:,} run in one call")
        axes[name] = [read_value(part) for part in parts]
        for i, value in enumerate(axes[name]):
            if value is None:
                raise ChapterError(f"--sweep {word}: value {i + 1} is empty")
            if any(value == other and type(value) is type(other) for other in axes[name][:i]):
                raise ChapterError(f"--sweep {name}: {value!r} is there twice")
    return [dict(zip(axes, values)) for values in product(*axes.values())]


def plan_path(folder: Path | str, chapter: str, axes: Sequence[str]) -> Path:
    """Where the runner notes which points a sweep has, so that those that never ran are known to be missing."""
    return Path(folder) / f"sweep_{chapter}@{','.join(axes)}.plan.json"


def write_plan(folder: Path | str, chapter: str, points: Sequence[Mapping]) -> Path:
    path = plan_path(folder, chapter, list(points[0]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dict(point) for point in points]))
    return path


def _split(words: str, option: str) -> tuple[str, str]:
    name, equals, value = words.partition("=")
    if not equals or not name.strip().isidentifier():
        raise ChapterError(f"{option} takes name=value, not {words!r}")
    return name.strip(), value


def _at_commas(text: str) -> list[str]:
    parts, depth, quote, escaped = [""], 0, "", False
    for c in text:
        if quote:
            quote = "" if c == quote and not escaped else quote
            escaped = c == "\\" and not escaped
        elif c in "\"'":
            quote = c
        elif c in "[({":
            depth += 1
        elif c in "])}":
            depth -= 1
        if c == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return parts
