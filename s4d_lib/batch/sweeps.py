"""runs → sweep record     what the points of a sweep say together: means with intervals over folds and seeds.

    record = collect("runs/book/full", "07_single_task_baselines")      reads what the runs left; nothing is run
    print(as_text(record)); draw_sweep(record, "test_clip.uar").show()   (figures/sweeps.py)

A point is one run with its swept parameters. Axes named in `over` (fold, seed) are averaged; every combination of the
others is a row. Where there are several folds, a fold is the unit: seeds are averaged inside it, and the interval is
Student's t over folds, which share most of their training data, so that it is rather too narrow (Bengio and Grandvalet
2004: no unbiased estimate of that variance exists). Without folds, seeds are the units. Explained in appendix c.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s4d_lib.batch.chapters import ChapterError
from s4d_lib.batch.status import SUCCESS, read_status
from s4d_lib.batch.words import plan_path
from s4d_lib.metrics.scores import over_seeds, told, uar, war
from s4d_lib.records import Record, code_state

OVER = ("fold", "seed", "split_seed")


def read_points(folder: Path | str, chapter: str, axes: Sequence[str] | None = None) -> list[dict]:
    """The status of every point of a chapter's sweep in `<runs>/book/<tier>`, in the order of their values.

    Points of the last call that never ran have the status "not run". `axes` says which sweep is meant, where the folder
    holds several of the chapter; ChapterError if it is needed and missing, or if there is none.
    """
    folder = Path(folder)
    there = [read_status(path.parent) for path in folder.glob(f"{chapter}@*/status.json")]
    there = [said for said in there if said.get("point")]
    kinds = sorted({tuple(said["point"]) for said in there})
    if not kinds or (axes is not None and tuple(axes) not in kinds) or (axes is None and len(kinds) > 1):
        held = "; ".join(", ".join(names) for names in kinds) or "none"
        raise ChapterError(f"{folder}: which sweep of {chapter}? There are: {held}. "
                           "Run one with --sweep, or say axes=[…]")
    names = tuple(axes) if axes is not None else kinds[0]
    found = [said for said in there if tuple(said["point"]) == names]
    plan = plan_path(folder, chapter, names)
    for point in json.loads(plan.read_text()) if plan.exists() else []:
        if all(said["point"] != point for said in found):
            found.append({"point": point, "status": "not run", "cause": "", "results": {}, "seconds": 0.0,
                          "peak_memory_mb": 0.0, "chapter": chapter, "tier": found[0]["tier"], "parameters": point})
    return sorted(found, key=lambda said: [_order(value) for value in said["point"].values()])


def collect(folder: Path | str, chapter: str, over: Sequence[str] = OVER, metrics: Sequence[str] = (),
            axes: Sequence[str] | None = None) -> Record:
    """Read the points of a chapter's sweep and summarise them as a record (kind "study").

    over      the axes to average over; every combination of the others is a row
    metrics   names such as "test_clip.uar"; without any, all that end in war or uar, else the first eight numbers
    axes      the swept parameters that are meant, where the folder holds several sweeps of the chapter

    Runs that did not succeed, or never began, are missing, and a row that misses points says which.
    """
    return summarise(read_points(folder, chapter, axes), over, metrics)


def summarise(points: Sequence[Mapping], over: Sequence[str] = OVER, metrics: Sequence[str] = ()) -> Record:
    """Points, as their status.json has them → record. Every point must sweep the same parameters of one chapter."""
    first = points[0]
    axes = list(first["point"])
    if any(list(said["point"]) != axes or said["chapter"] != first["chapter"] for said in points):
        raise ChapterError(f"the points of one sweep are of one chapter and have the same parameters, here {axes}")
    good = [said for said in points if _is_good(said)]
    versions = {json.dumps(said.get("made_from"), sort_keys=True) for said in good}
    metrics = list(metrics) or _default_metrics(good)
    settings = list(dict.fromkeys(_setting(said["point"], over) for said in points))
    rows = [_row(setting, [said for said in points if _setting(said["point"], over) == setting], over, metrics)
            for setting in settings]
    results = {"axes": {name: _values(points, name) for name in axes}, "averaged": [a for a in axes if a in over],
               "metrics": metrics, "rows": rows, "versions": len(versions),
               "points": [{"point": said["point"], "status": said["cause"] or said["status"],
                           "seconds": said["seconds"], "peak_memory_mb": said["peak_memory_mb"],
                           **{name: _number(said, name) for name in metrics}} for said in points]}
    counted = f"{len(good)} of {len(points)} points of {first['chapter']}"
    if len(versions) > 1:
        counted += f", made by {len(versions)} versions of chapter and library"
    best = _headline(rows, metrics)
    return Record(name=f"sweep_{first['chapter']}", kind="study", tier=first["tier"],
                  headline=f"{counted}: {best}" if best else counted, config=_common(points, axes), results=results,
                  protocol={"averaged_over": results["averaged"], "interval": "95 % Student t over each row's unit"},
                  seeds=[seed for seed in _values(points, "seed") if isinstance(seed, int)], code=code_state(),
                  wall_seconds=sum(said["seconds"] for said in points),
                  peak_memory_mb=max(said["peak_memory_mb"] for said in points))


def _is_good(said: Mapping) -> bool:
    return said["status"] in SUCCESS


def _number(said: Mapping, metric: str) -> float | None:
    return dict(numbers(said["results"])).get(metric) if _is_good(said) else None


def numbers(results: Mapping, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested results, by its dotted name; {"value": 61.2, "low": …} counts as the number 61.2."""
    for name, inside in results.items():
        if isinstance(inside, Mapping):
            if isinstance(inside.get("value"), int | float) and not isinstance(inside["value"], bool):
                inside = inside["value"]
            else:
                yield from numbers(inside, f"{prefix}{name}.")
                continue
        if isinstance(inside, int | float) and not isinstance(inside, bool) and math.isfinite(inside):
            yield f"{prefix}{name}", float(inside)


def confusions(results: Mapping, prefix: str = "") -> Iterator[tuple[str, list[list[int]]]]:
    """Every confusion matrix in nested results, by the dotted name of what holds it."""
    for name, inside in results.items():
        if isinstance(inside, Mapping):
            yield from confusions(inside, f"{prefix}{name}.")
        elif name == "confusion":
            yield prefix.rstrip("."), inside


def _row(setting: tuple, points: Sequence[Mapping], over: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """One combination of the axes that are not averaged: each metric with its interval, and what is missing."""
    good = [said for said in points if _is_good(said)]
    by_fold = "fold" in over and len(_values(points, "fold")) > 1
    row: dict[str, Any] = {"setting": dict(setting), "runs": len(good), "unit": "fold" if by_fold else "run",
                           "missing": [said["point"] for said in points if said not in good], "metrics": {},
                           "pooled": _pooled(good, _values(points, "fold")) if by_fold else {}}
    for metric in metrics:
        units: dict[Any, list[float]] = {}
        for i, said in enumerate(good):
            value = _number(said, metric)
            if value is not None:
                units.setdefault(said["point"]["fold"] if by_fold else i, []).append(value)
        if units:
            row["metrics"][metric] = _interval([float(np.mean(values)) for values in units.values()])
            inside = [np.var(values, ddof=1) for values in units.values() if len(values) > 1]
            if inside:
                row["metrics"][metric]["sd_within_fold"] = float(np.sqrt(np.mean(inside)))
    return row


def _interval(values: list[float]) -> dict[str, Any]:
    """Mean, interval (None from a single unit, which has none), standard deviation, count."""
    found = over_seeds(values)
    single = len(values) < 2
    return {"value": found.value, "low": None if single else found.low, "high": None if single else found.high,
            "sd": None if single else float(np.std(values, ddof=1)), "n": len(values)}


def _pooled(good: Sequence[Mapping], folds: Sequence) -> dict[str, dict[str, float]]:
    """WAR and UAR of the confusion matrices of all folds put together; their mean over the seeds that have every fold.

    A seed without one of the folds is left out: its test set would be another one.
    """
    by_seed: dict[tuple, dict[Any, Mapping]] = {}
    for said in good:
        rest = _setting(said["point"], ("fold",))
        by_seed.setdefault(rest, {})[said["point"]["fold"]] = said
    scores: dict[str, list[tuple[float, float]]] = {}
    for of_seed in by_seed.values():
        if set(of_seed) != set(folds):
            continue
        sums: dict[str, np.ndarray] = {}
        for said in of_seed.values():
            for name, matrix in confusions(said["results"]):
                sums[name] = sums.get(name, 0) + np.asarray(matrix)
        for name, matrix in sums.items():
            scores.setdefault(name, []).append((float(war(matrix)), float(uar(matrix))))
    return {name: {"war": float(np.mean([a for a, _ in found])), "uar": float(np.mean([b for _, b in found])),
                   "seeds": len(found)} for name, found in scores.items()}


def _setting(point: Mapping, over: Sequence[str]) -> tuple:
    return tuple((name, _hashable(value)) for name, value in point.items() if name not in over)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _values(points: Sequence[Mapping], name: str) -> list:
    found: list = []
    for said in points:
        if name in said["point"] and said["point"][name] not in found:
            found.append(said["point"][name])
    return found


def _default_metrics(good: Sequence[Mapping]) -> list[str]:
    names = list(dict.fromkeys(name for said in good for name, _ in numbers(said["results"])))
    return [name for name in names if name.split(".")[-1].lower() in ("war", "uar")] or names[:8]


def _common(points: Sequence[Mapping], axes: Sequence[str]) -> dict[str, Any]:
    """The parameters that all points share."""
    first = points[0]["parameters"]
    return {name: value for name, value in first.items() if name not in axes
            and all(said["parameters"].get(name) == value for said in points)}


def _headline(rows: Sequence[Mapping], metrics: Sequence[str]) -> str:
    wanted = [name for name in metrics if name.lower().endswith("uar")] or list(metrics)
    if not any(name in row["metrics"] for name in wanted[:1] for row in rows):
        return ""
    rows = [row for row in rows if wanted[0] in row["metrics"]]
    best = max(rows, key=lambda row: row["metrics"][wanted[0]]["value"])
    setting = ", ".join(f"{name}={value}" for name, value in best["setting"].items())
    return f"{wanted[0]} {told(best['metrics'][wanted[0]])}" + (f" at best, with {setting}" if setting else "")


def write_sweep(folder: Path | str, chapter: str, axes: Sequence[str] | None = None) -> tuple[Record, list[Path]]:
    """Collect a sweep and leave it beside its runs: the record, a Markdown table, and a page with a figure a metric."""
    from s4d_lib.figures.sweeps import draw_sweep
    from s4d_lib.records import write_record

    record = collect(folder, chapter, axes=axes)
    stem = plan_path(folder, chapter, list(record.results["axes"])).name.removesuffix(".plan.json")
    paths = [write_record(Path(folder) / f"{stem}.json", record), Path(folder) / f"{stem}.md"]
    paths[1].write_text(f"{record.headline}\n\n{as_text(record)}\n", encoding="utf-8")
    metric = next((name for name in record.results["metrics"] if name.lower().endswith("uar")), None)
    if metric or record.results["metrics"]:
        paths.append(Path(folder) / f"{stem}.html")
        draw_sweep(record, metric or "").write_html(paths[-1], include_plotlyjs="directory")
    return record, paths


def as_text(record: Record) -> str:
    """The sweep as a Markdown table, one row a setting."""
    results = record.results
    names = [name for name in results["axes"] if name not in results["averaged"]]
    head = [*names, *results["metrics"], "units", "missing"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in results["rows"]:
        cells = [str(row["setting"].get(name, "")) for name in names]
        cells += [told(row["metrics"][name]) if name in row["metrics"] else "–" for name in results["metrics"]]
        n = max((found["n"] for found in row["metrics"].values()), default=0)
        cells += [f"{n} {row['unit']}s", str(len(row["missing"]) or "")]
        lines.append(f"| {' | '.join(cells)} |")
    for row in results["rows"]:
        for name, found in row["pooled"].items():
            where = ", ".join(f"{k}={v}" for k, v in row["setting"].items())
            lines.append(f"\nAll folds pooled{f' ({where})' if where else ''}, {name}: WAR {found['war']:.2f}, "
                         f"UAR {found['uar']:.2f}")
    return "\n".join(lines)


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
