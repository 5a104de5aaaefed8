"""words → curves     `s4d curves`: the losses and scores of a run for TensorBoard, once or while it trains."""

from pathlib import Path
from typing import Annotated

import typer

from s4d_lib.errors import Refused


def curves(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or at work.")],
    tensorboard: Annotated[Path, typer.Option(help="Folder of events to write, for `tensorboard --logdir`.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
) -> None:
    """Turn the curves of a training run (its metrics.jsonl) into TensorBoard's files; the run itself is not touched."""
    from s4d_lib.tracking import to_tensorboard

    try:
        count = to_tensorboard(run, tensorboard, follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except ModuleNotFoundError as error:
        raise Refused(str(error)) from error
    print(f"{tensorboard / run.name}: {count} numbers")
