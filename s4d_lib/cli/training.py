"""words → runs     `s4d train`, `study`, `rerun` and `curves`: one training, a recorded study, a run of it again."""

import shlex
import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s4d_lib.cli.list_words import Base, Classes, Columns, Folds, Labels, Listing, Splits, Strip, said
from s4d_lib.errors import Refused

if TYPE_CHECKING:
    from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
    from s4d_lib.training.launch import Launch
    from s4d_lib.training.runs import Run


def train(
    config: Annotated[Path, typer.Argument(help="YAML file: stage (pretrain or finetune) and its settings. Or the word "
                                           "s2d: both stages of S2D on drawn faces.")],
    tier: Annotated[str, typer.Option(help="With s2d: smoke, laptop or full.")] = "smoke",
    retrain: Annotated[bool, typer.Option(help="Throw an earlier run of this configuration away.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every frame again, also those that seem unchanged.")
                      ] = False,
    processes: Annotated[int | None, typer.Option(help="So many on this node; else one a visible GPU.")] = None,
    method: Annotated[str, typer.Option(help="ddp, or fsdp: each process holds a part of the weights.")] = "ddp",
    nodes: Annotated[int, typer.Option(help="Machines that train together; start this on each of them.")] = 1,
    node_rank: Annotated[int, typer.Option(help="Which of them this is, from 0.")] = 0,
    rendezvous: Annotated[str | None, typer.Option(help="host:port of node 0, with several nodes.")] = None,
    listing: Listing = None,
    labels: Labels = None,
    columns: Columns = None,
    strip: Strip = None,
    base: Base = None,
    splits: Splits = None,
    folds: Folds = None,
    classes: Classes = None,
    of: Annotated[str | None, typer.Option(help="Whose lists these words are on: clips or stills.")] = None,
) -> None:
    """Train one model, or load the run that this configuration has already left.

    Words on lists (--listing to --classes) stand in place of those of the file; the same words can stand there, in
    clips_lists: and stills_lists:.
    """
    from s4d_lib.training.launch import asked_for

    launch = asked_for(processes, method, nodes, node_rank, rendezvous)
    words = said(listing=listing, labels=labels, columns=columns, strip=strip, base=base, splits=splits, folds=folds,
                 classes=classes)
    try:
        for run in _train(config, tier, retrain, launch, verify, words, of):
            print(f"{run.folder}: {run.record.headline}")
    except KeyboardInterrupt as error:
        print(f"s4d: {str(error) or 'stopped; the same command goes on'}", file=sys.stderr)
        raise typer.Exit(130) from None


def _train(config: Path, tier: str, retrain: bool, launch: "Launch | None", verify: bool, words: dict[str, Any],
           of: str | None) -> "list[Run]":
    """The runs of a configuration file, or of both stages of S2D."""
    from s4d_lib.training.runs import train as train_or_load

    if str(config) == "s2d":
        if words or of:
            raise Refused(f"s2d trains on drawn faces: leave out {', '.join(f'--{word}' for word in [*words, 'of'])}")
        from s4d_lib.training.tiers import train_s2d

        return list(train_s2d(tier, retrain=retrain, processes=launch, verify=verify))
    return [train_or_load(_configuration(config, words, of), retrain=retrain, processes=launch, verify=verify)]


def _say_lists(settings: dict, words: dict[str, Any], of: str | None) -> None:
    """Put the words of the command line into the settings, for the one kind of data or the one that is named."""
    if of not in (None, "clips", "stills"):
        raise Refused(f"--of must be clips or stills, got {of!r}")
    if not words:
        if of:
            raise Refused(f"--of {of}: say what is to be said of its lists, such as --listing")
        return
    kinds = [part for part in ("clips", "stills") if part in settings]
    if of is None and len(kinds) > 1:
        raise Refused("the configuration names clips and stills: say with --of which of the two lists are meant")
    part = of or (kinds or ["clips"])[0]
    held = settings.get(f"{part}_lists") or {}
    if not isinstance(held, dict):
        raise Refused(f"{part}_lists must hold words such as listing: and base:, got {held!r}")
    settings[f"{part}_lists"] = held | words


def study(
    name: Annotated[str, typer.Argument(help="few_labels, transfer_screening ...; a wrong name lists all.")],
    tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "laptop",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; else those of its plan.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for the record; chapters/results if not given.")] = None,
    dataset: Annotated[str, typer.Option(help="Clips of your own: their data set, as in `s4d doctor`.")] = "drawn",
    data_root: Annotated[str, typer.Option(help="The folder of your data set, or the one above it.")] = "",
    fold: Annotated[int, typer.Option(min=0, help="Its test fold.")] = 1,
    schema: Annotated[str | None, typer.Option(help="Its class order; a table needs it, or classes.")] = None,
    listing: Listing = None,
    labels: Labels = None,
    columns: Columns = None,
    strip: Strip = None,
    base: Base = None,
    splits: Splits = None,
    folds: Folds = None,
    classes: Classes = None,
) -> None:
    """Run one of the book's studies and write its record; stopped, it goes on where it was.

    few_labels and four_modes can be run on clips of your own; the record is then written to --out.
    """
    from s4d_lib.lab.catalogue import ALL_STUDIES
    from s4d_lib.records import write_record
    from s4d_lib.training.tiers import on_own_clips

    if name not in ALL_STUDIES:
        raise Refused(f"unknown study {name!r}; there are: {', '.join(ALL_STUDIES)}")
    words = said(listing=listing, labels=labels, columns=columns, strip=strip, base=base, splits=splits, folds=folds,
                 classes=classes)
    data = _own_clips(name, tier, dataset, data_root, fold, words, schema, out)
    own = signature(ALL_STUDIES[name]).parameters["seeds"].default
    chosen = own if seeds is None else own[:seeds] if seeds <= len(own) else range(seeds)
    with on_own_clips(data):
        record = ALL_STUDIES[name](tier, chosen, jobs)
    if data:  # the study itself speaks of the drawn clips that it was written for
        told = {"test": f"one look, fold {fold}", "clips": f"of one's own, as {dataset}"}
        record = record.model_copy(update={"protocol": record.protocol | told})
    print(f"{write_record((out or Path('chapters/results')) / f'{name}.json', record)}: {record.headline}")


def _own_clips(name: str, tier: str, dataset: str, data_root: str, fold: int, words: dict[str, Any],
               schema: str | None, out: Path | None) -> dict[str, Any]:
    """The settings of clips of one's own for a study; none for drawn faces. ValueError where it cannot take them."""
    from s4d_lib.datasets.own_data import DRAWN, data_settings

    if dataset == DRAWN:
        others = {"data-root": data_root, "fold": fold != 1, "schema": schema}
        if asked := [f"--{word}" for word in [*words, *(other for other, given in others.items() if given)]]:
            raise Refused(f"{', '.join(asked)}: say with --dataset and --data-root which clips of your own are meant")
        return {}
    if name not in ("few_labels", "four_modes"):
        raise Refused(f"{name} is about drawn faces, whose truth is known. On clips of your own run few_labels or "
                      "four_modes, `s4d train`, or the comparisons of chapters 07, 09 and 11: s4d book 11 "
                      f"-p dataset={dataset} -p data_root={shlex.quote(data_root) if data_root else 'FOLDER'}")
    if out is None:
        raise Refused("a study on clips of your own is no record of the book: say with --out where it is to be written")
    found = data_settings(tier, dataset, data_root, fold, lists=words)["clip"]
    return found | ({"clips_schema": schema} if schema else {})


def rerun(
    study: Annotated[str, typer.Argument(help="A recorded study of the laboratory, such as transfer_screening.")],
    cell: Annotated[str | None, typer.Option(help="Its cell; else one by chance.")] = None,
    method: Annotated[str | None, typer.Option(help="Its method; else one by chance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Its training seed; else one by chance.")] = None,
) -> None:
    """Train one recorded run again and set it beside its record."""
    from s4d_lib.lab.rerun import rerun as again
    from s4d_lib.records import results

    print(again(results(study), cell, method, seed))


def _configuration(path: Path, words: dict[str, Any], of: str | None) -> "FinetuneConfig | PretrainConfig":
    """The configuration in a YAML file, with what the command line says of its lists. Refused, with file and line,
    for settings that are none.
    """
    from pydantic import ValidationError

    from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
    from s4d_lib.training.settings_file import read_settings

    settings = read_settings(path)
    _say_lists(settings, words, of)
    stage = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}.get(str(settings.get("stage")))
    if stage is None:
        raise Refused(f"{path} must set stage: pretrain or stage: finetune")
    try:
        return stage(**settings)
    except ValidationError as error:
        lines, found = settings.lines, []
        for item in error.errors():
            name = str(item["loc"][0]) if item["loc"] else ""
            where = f"line {lines[name]}: " if name in lines else ""
            found.append(f"{where}{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}")
        raise Refused(f"{path}: {'; '.join(found)}") from error


def curves(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or at work.")],
    tensorboard: Annotated[Path, typer.Option(help="Folder of events to write, for `tensorboard --logdir`.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Turn the curves of a training run (its metrics.jsonl) into TensorBoard's files; the run itself is not touched."""
    from s4d_lib.training.curves import to_tensorboard

    try:
        count = to_tensorboard(run, tensorboard, follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print(f"{tensorboard / run.name}: {count} numbers")
