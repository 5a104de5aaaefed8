"""words → table     `s4d cost`: what the trainings of a tier take on each type of GPU, and how we know."""

from typing import Annotated

import typer

from s4d_lib.training.cost_tables import TRAININGS, as_lines, cost_table


def cost(
    training: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(TRAININGS)}; all if none is named.")] = None,
    tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "full",
    dataset: Annotated[str, typer.Option(help="drawn, or dfew, ferv39k, mafw: their published counts of clips.")
                       ] = "drawn",
    stills: Annotated[int | None, typer.Option(min=1, help="Training stills, where they are not those.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Training clips, where they are not those.")] = None,
    gpu: Annotated[str | None, typer.Option(help="One type, such as a100; all if not given.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of each: folds times seeds.")] = 1,
) -> None:
    """Expected hours and memory of the book's trainings on a GPU. Nothing is trained; steps are counted beforehand."""
    print("\n".join(as_lines(cost_table(training or TRAININGS, tier, dataset, stills, clips, gpu, runs))))
