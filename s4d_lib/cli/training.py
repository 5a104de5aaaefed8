"""words → runs     `s4d train`, `study`, `rerun` and `curves`: one training, a recorded study, a run of it again."""

import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
) -> None:
    """Train one model, or load the run that this configuration has already left."""
    from s4d_lib.training.launch import asked_for

    launch = asked_for(processes, method, nodes, node_rank, rendezvous)
    try:
        for run in _train(config, tier, retrain, launch, verify):
            print(f"{run.folder}: {run.record.headline}")
    except KeyboardInterrupt as error:
        print(f"s4d: {str(error) or 'stopped; the same command goes on'}", file=sys.stderr)
        raise typer.Exit(130) from None


def _train(config: Path, tier: str, retrain: bool, launch: "Launch | None", verify: bool) -> "list[Run]":
    """The runs of a configuration file, or of both stages of S2D."""
    from s4d_lib.training.runs import train as train_or_load

    if str(config) == "s2d":
        from s4d_lib.training.tiers import train_s2d

        return list(train_s2d(tier, retrain=retrain, processes=launch, verify=verify))
    return [train_or_load(_configuration(config), retrain=retrain, processes=launch, verify=verify)]


def study(
    name: Annotated[str, typer.Argument(help="few_labels, transfer_screening ...; a wrong name lists all.")],
    tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "laptop",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; else those of its plan.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the record.")] = Path("chapters/results"),
) -> None:
    """Run one of the book's studies and write its record; stopped, it goes on where it was."""
    from s4d_lib.lab.catalogue import ALL_STUDIES
    from s4d_lib.records import write_record

    if name not in ALL_STUDIES:
        raise Refused(f"unknown study {name!r}; there are: {', '.join(ALL_STUDIES)}")
    own = signature(ALL_STUDIES[name]).parameters["seeds"].default
    record = ALL_STUDIES[name](tier, own if seeds is None else own[:seeds] if seeds <= len(own) else range(seeds), jobs)
    print(f"{write_record(out / f'{name}.json', record)}: {record.headline}")


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


def _configuration(path: Path) -> "FinetuneConfig | PretrainConfig":
    """The configuration in a YAML file. Refused, with file and line, for settings that are none."""
    from pydantic import ValidationError

    from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
    from s4d_lib.training.settings_file import read_settings

    settings = read_settings(path)
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
