"""words → form     the options that say how lists are written, the same for every command that reads lists.

`datasets/list_form.py` says what each means.
"""

from typing import Annotated, Any

import typer

Listing = Annotated[str | None, typer.Option(help="Another list; may hold {split} and {fold}.")]
Labels = Annotated[str | None, typer.Option(help="The array of labels beside a .npy array of names.")]
Columns = Annotated[str | None, typer.Option(help="What columns are called, or their numbers: path=image,label=2.")]
Strip = Annotated[str | None, typer.Option(help="Taken off the start of every name, as /data/of/another/machine/.")]
Base = Annotated[int | None, typer.Option(min=0, max=1, help="What the labels of the lists count from.")]
Splits = Annotated[str | None, typer.Option(help="What the splits are called: test=valid.")]
Folds = Annotated[int | None, typer.Option(min=1, help="How many folds there are.")]
Classes = Annotated[str | None, typer.Option(help="Classes of your own in the order of their labels: pain,no_pain.")]


def said(**words: Any) -> dict[str, Any]:
    """The words that were said, checked, as readers and configurations take them. ValueError for a wrong one."""
    from s4d_lib.datasets.list_form import ListForm

    return ListForm(**{name: value for name, value in words.items() if value is not None}).said()
