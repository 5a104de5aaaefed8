"""runs → sweep record     what the points of a sweep say together: scores with intervals over people or seeds.

    record = collect("runs/book/full", "07_single_task_baselines")      reads what the runs left; nothing is run
    print(as_text(record)); draw_sweep(record, "test_clip.uar").show()   (figures/sweeps.py)

A point is one run with its swept parameters. Axes named in `over` (fold, seed) are averaged; every combination of the
others is a row. Where there are several folds, a WAR or UAR is that of the held-out answers of all folds together, and
its interval is over the people in them (`metrics/held_out.py`); the spread of the folds stands beside it and is not
used, since they share most of their training data. Without folds, seeds are the units. Explained in appendix c.
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
from s4d_lib.metrics.held_out import HeldOut, Pooled, pooled
from s4d_lib.metrics.scores import over_seeds, told, uar, war
from s4d_lib.records import Record, code_state

OVER = ("fold", "seed", "split_seed")
INTERVAL = "95 % over each row's unit: people or clips of all folds by bootstrap, runs by Student t; none over folds"


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
                  protocol={"averaged_over": results["averaged"], "interval": INTERVAL},
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
        if isinstance(inside, Mapping) and name != "held_out":
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
    folds = _values(points, "fold") if "fold" in over else []
    by_fold = len(folds) > 1
    row: dict[str, Any] = {"setting": dict(setting), "runs": len(good), "unit": "fold" if by_fold else "run",
                           "missing": [said["point"] for said in points if said not in good], "metrics": {},
                           "pooled": _pooled(good, folds) if by_fold else {}}
    for metric in metrics:
        values = [(said["point"].get("fold"), _number(said, metric)) for said in good]
        values = [(fold, value) for fold, value in values if value is not None]
        if not values:
            continue
        holder, _, score = metric.rpartition(".")
        row["metrics"][metric] = (_of_folds(values, row["pooled"].get(holder, {}), score) if by_fold
                                  else _interval([value for _, value in values]))
    units = {found["unit"] for found in row["metrics"].values()} - {row["unit"]}
    return row | ({"unit": units.pop()} if len(units) == 1 else {})


def _interval(values: list[float]) -> dict[str, Any]:
    """Mean, Student's t interval (None from a single run, which has none), standard deviation, count."""
    found = over_seeds(values)
    single = len(values) < 2
    return {"value": found.value, "low": None if single else found.low, "high": None if single else found.high,
            "sd": None if single else float(np.std(values, ddof=1)), "n": len(values), "unit": "run"}


def _of_folds(values: Sequence[tuple[Any, float]], together: Mapping, score: str) -> dict[str, Any]:
    """(fold, value) of every run → the score of all folds together with its interval, and their spread beside it.

    Where the runs left no held-out answers, or no seed has every fold: the mean of the folds, without an interval.
    """
    by_fold: dict[Any, list[float]] = {}
    for fold, value in values:
        by_fold.setdefault(fold, []).append(value)
    means = [float(np.mean(inside)) for inside in by_fold.values()]
    spread = {"n": len(means), "mean": float(np.mean(means)), "least": min(means), "most": max(means),
              "sd": float(np.std(means, ddof=1)) if len(means) > 1 else None}
    inside = [np.var(one, ddof=1) for one in by_fold.values() if len(one) > 1]
    spread |= {"sd_within": float(np.sqrt(np.mean(inside)))} if inside else {}
    found = together.get(score)
    if not isinstance(found, Mapping):
        return {"value": spread["mean"], "low": None, "high": None, "n": len(means), "unit": "fold", "folds": spread,
                "why": "mean of folds, no interval"}
    return {**found, "n": together["people"], "unit": together["unit"], "folds": spread}


def held_outs(results: Mapping, prefix: str = "") -> Iterator[tuple[str, HeldOut]]:
    """The held-out answers in nested results, by the dotted name of what holds them."""
    for name, inside in results.items():
        if name == "held_out" and isinstance(inside, Mapping):
            yield prefix.rstrip("."), HeldOut.from_dict(inside)
        elif isinstance(inside, Mapping):
            yield from held_outs(inside, f"{prefix}{name}.")


def _pooled(good: Sequence[Mapping], folds: Sequence) -> dict[str, dict[str, Any]]:
    """WAR and UAR of all folds put together, over the seeds that have every fold.

    From held-out answers with an interval over people; from confusion matrices alone as numbers. A seed without one of
    the folds is left out: its test set would be another one.
    """
    by_seed: dict[tuple, dict[Any, Mapping]] = {}
    for said in good:
        by_seed.setdefault(_setting(said["point"], ("fold",)), {})[said["point"]["fold"]] = said["results"]
    whole = [list(of_seed.values()) for of_seed in by_seed.values() if set(of_seed) == set(folds)]
    answers = [[dict(held_outs(results)) for results in seed] for seed in whole]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for seed in whole for results in seed for name, _ in confusions(results)):
        matrices = [[dict(confusions(results)).get(name) for results in seed] for seed in whole]
        sums = [np.sum([np.asarray(matrix) for matrix in seed], 0) for seed in matrices if None not in seed]
        if sums:
            found[name] = {"war": float(np.mean([war(one) for one in sums])),
                           "uar": float(np.mean([uar(one) for one in sums])), "seeds": len(sums)}
    for name in dict.fromkeys(name for seed in answers for fold in seed for name in fold):
        said = [[fold[name] for fold in seed] for seed in answers if all(name in fold for fold in seed)]
        if said:
            found[name] = _told_together(pooled(said))
    return found


def _told_together(found: Pooled) -> dict[str, Any]:
    scores = {name: {"value": one.value, **({"low": one.low, "high": one.high} if found.people > 1 else
                                           {"low": None, "high": None, "why": "one person, no interval"})}
              for name, one in (("war", found.war), ("uar", found.uar))}
    return scores | {"seeds": found.seeds, "samples": found.samples, "people": found.people, "alone": found.alone,
                     "repeated": found.repeated, "shared": found.shared,
                     "unit": "clip" if found.alone == found.samples else "person"}


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
    """The sweep as a Markdown table, one row a setting, and below it what stands behind scores of several folds."""
    results = record.results
    names = [name for name in results["axes"] if name not in results["averaged"]]
    head = [*names, *results["metrics"], "units", "missing"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in results["rows"]:
        cells = [str(row["setting"].get(name, "")) for name in names]
        cells += [told(row["metrics"][name]) if name in row["metrics"] else "–" for name in results["metrics"]]
        units = {f"{found['n']} {_PLURAL[found['unit']]}": None for found in row["metrics"].values()}
        cells += [", ".join(units) or "0 runs", str(len(row["missing"]) or "")]
        lines.append(f"| {' | '.join(cells)} |")
    for row in results["rows"]:
        lines += [f"\n{line}" for line in _behind(row)]
    return "\n".join(lines)


_PLURAL = {"run": "runs", "fold": "folds", "person": "people", "clip": "clips"}


def _behind(row: Mapping) -> Iterator[str]:
    """Sentences about the folds of a row: their spread, what was put together, and what is odd about it."""
    where = ", ".join(f"{name}={value}" for name, value in row["setting"].items())
    where = f" ({where})" if where else ""
    for name, found in row["metrics"].items():
        if spread := found.get("folds"):
            sd = f", sd {spread['sd']:.2f}" if spread["sd"] is not None else ""
            yield (f"{name}{where}: {spread['n']} folds lie between {spread['least']:.2f} and {spread['most']:.2f}, "
                   f"mean {spread['mean']:.2f}{sd}. They share training data, so that this spread makes no interval.")
    for name, found in row["pooled"].items():
        if "unit" not in found:
            yield (f"All folds pooled{where}, {name}: WAR {found['war']:.2f}, UAR {found['uar']:.2f}; no interval, "
                   "since the runs left no held-out answers.")
            continue
        drawn = (f"{found['people']:,} clips; nobody says who is shown, and several clips of one person would make the "
                 "interval wider" if found["unit"] == "clip" else f"{found['people']:,} people")
        yield (f"All folds pooled{where}, {name}: WAR {told(found['war'])}, UAR {told(found['uar'])}; 95 % by drawing "
               f"from {drawn}.")
        if found["unit"] == "person" and found["alone"]:
            yield f"{found['alone']:,} clips of {name} name no person and count as people of their own."
        if found["repeated"]:
            yield f"{found['repeated']:,} clips of {name} are in the test of several folds and count each time."
        if found["shared"] and found["unit"] == "person":
            yield (f"{found['shared']:,} people of {name} are in the test of several folds, so that the others may "
                   "have trained on them.")


def _order(value: Any) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))
