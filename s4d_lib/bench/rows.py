"""settings → rows     name → row, and which rows a word stands for.

A row is some ways of doing the same, ours first. Everything here is said by what can be sent to another process, where
the memory of a way is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from s4d_lib.bench import chores, parts
from s4d_lib.bench.networks import PRECISIONS, Task, differences, operations, ways_of
from s4d_lib.bench.timing import Call
from s4d_lib.errors import Refused
from s4d_lib.models.sizes import resolve_size

# Samples a step, so many that AdamW is a small part of it: [pretraining, fine-tuning, inference].
BATCHES = {"cpu": {"image": (64, 16, 16), "clip": (8, 2, 2)},
           "cuda": {"image": (1024, 256, 512), "clip": (128, 32, 64)}}
SMALL = 2  # and one row each where it is a large part


@dataclass(frozen=True)
class Settings:
    """Of a whole benchmark; a part of the record."""

    size: str = "base"
    device: str = "cpu"
    precisions: tuple[str, ...] = ("no", "bf16")
    repeats: int = 9
    threads: int = 1
    clock: str = "wall"
    quick: bool = False


@dataclass(frozen=True)
class Row:
    """Ways of doing the same, and what is said of it.

    ways        name → what makes a call, "ours" first
    unit        what `amount` of is done in a call
    precision   where given, matrix products of it are timed in the same turns, and `operations` (TFLOP) set against
                them
    compare     largest differences from the slow oracle
    repeats     where fewer than those of the settings will do
    memory      whether it is measured
    whole       what measures the row by itself and returns what is kept, in place of all the above
    rivals      whether the others do the same for others' users; else they are parts or bounds, and count for nothing
    """

    name: str
    ways: Mapping[str, Callable[[], Call]]
    unit: str
    amount: float = 1.0
    precision: str | None = None
    operations: Callable[[], float] | None = None
    compare: Callable[[], dict[str, float]] | None = None
    repeats: int | None = None
    memory: bool = True
    rivals: bool = True
    whole: Callable[[Settings], dict[str, Any]] | None = None


def all_rows(settings: Settings) -> list[Row]:
    """Every row of a benchmark with these settings: models, parts of them, what surrounds them."""
    return [*network_rows(settings), *part_rows(settings), *chore_rows(settings)]


def chosen(rows: Sequence[Row], asked: Sequence[str]) -> list[Row]:
    """Rows whose names hold all the words of one of `asked`, in their own order; all where nothing is asked."""
    if not asked:
        return list(rows)
    found = {text: [row for row in rows if set(text.split()) <= set(row.name.replace(",", "").split())]
             for text in asked}
    for text, some in found.items():
        if not some:
            words = sorted({word for row in rows for word in row.name.replace(",", "").split()})
            raise Refused(f"no row is called {text!r}; a row has all the words given, of: {', '.join(words)}")
    wanted = {row.name for some in found.values() for row in some}
    return [row for row in rows if row.name in wanted]


def network_rows(settings: Settings) -> list[Row]:
    """Training steps and inference, of stills and clips, in each precision, and at a batch of two."""
    found = []
    batches = BATCHES[settings.device.split(":")[0]]
    for precision in settings.precisions:
        for modality in ("image", "clip"):
            sizes = (SMALL, SMALL, SMALL) if settings.quick else batches[modality]
            for stage, batch, experts in (("pretrain", sizes[0], False), ("finetune", sizes[1], False),
                                          ("finetune", sizes[1], True), ("predict", sizes[2], False)):
                found.append(Task(stage, modality, settings.size, batch, precision, settings.device, experts))
        found.append(Task("finetune", "image", settings.size, SMALL, precision, settings.device))
        found.append(Task("finetune", "image", settings.size, SMALL, precision, settings.device, True))
    return [_network_row(task) for task in dict.fromkeys(found)]


def _network_row(task: Task) -> Row:
    unit: Any = "stills" if task.modality == "image" else "clips"
    return Row(task.name, ways_of(task), unit, task.batch, task.precision, partial(operations, task),
               partial(differences, task))


def part_rows(settings: Settings) -> list[Row]:
    """The experts' layer over experts, top-k and tokens; clips in several looks."""
    dim = resolve_size(settings.size).dim
    found = [Row(f"MoAE layer {mixing.name} {PRECISIONS[precision]}", parts.layer_ways(mixing), "tokens",
                 mixing.tokens, compare=partial(parts.layer_differences, mixing))
             for precision in settings.precisions
             for mixing in parts.mixings(dim, settings.device, precision, settings.quick)]
    task = Task("predict", "clip", settings.size, 1 if settings.device == "cpu" else 16, "no", settings.device)
    return [*found, Row(f"test of a clip in {parts.LOOKS} looks float32", parts.looks_ways(task), "clips", task.batch)]


def chore_rows(settings: Settings) -> list[Row]:
    """Reading, detecting, predicting, importing and saving: times, beside parts and bounds."""
    films = chores.FILMS[:1] if settings.quick else chores.FILMS
    batch = SMALL if settings.quick else BATCHES[settings.device.split(":")[0]]["clip"][1]
    task, minutes = Task("finetune", "clip", settings.size, batch, "no", settings.device), 1 if settings.quick else 10
    row = partial(Row, memory=False, rivals=False)
    return [
        *(row(f"decode a clip of {w}x{h} in {n} frames", chores.reading_ways((h, w, n)), "clips")
          for h, w, n in films),
        row(f"loader against step clips batch {batch}", chores.loading_ways(task), "clips", batch),
        *(row(f"detection stills of {side} px", {"ours": partial(chores.detecting_call, side)}, "stills", chores.FACES)
          for side in ((64,) if settings.quick else (160, 224))),
        row(f"predict a film of {minutes} min", chores.predicting_ways(minutes, settings.device), "seconds of film",
            60 * minutes, repeats=3),
        *(Row(f"small steps {kind}", {}, "steps", rivals=False, whole=partial(chores.small_steps, kind))
          for kind in ([] if settings.quick else chores.small_kinds())),  # they draw the data of a study
        row("import s4d_lib", chores.importing_ways(), "imports"),
        *(row(f"checkpoint {what}", chores.checkpoint_ways(what, settings.size), "files", repeats=6)
          for what in ("save", "load")),
    ]
