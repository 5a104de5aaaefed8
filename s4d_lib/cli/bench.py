"""words → table, record     `s4d bench`: how fast this library is beside others on this machine, row by row."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    rows: Annotated[list[str] | None, typer.Option("--rows", help="Words that a row's name holds, such as 'fine-tuning "
                    "clips bf16'; may be repeated. All rows if not given.")] = None,
    size: Annotated[str, typer.Option(help="Of the models: base, large, small, tiny or nano.")] = "base",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[list[str] | None, typer.Option(help="no or bf16; both if not given, where bf16 "
                         "is not slower than float32.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns that are counted; intervals want nine.")] = 9,
    threads: Annotated[int | None, typer.Option(min=1, help="As many as PyTorch takes if not given.")] = None,
    clock: Annotated[str, typer.Option(help="wall, or cpu: processor time, for one thread of a busy machine.")
                     ] = "wall",
    json: Annotated[Path | None, typer.Option(help="The record; every row is written when it is done, and a stopped "
                                              "benchmark goes on.")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="Measure also what stands in the record.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Nano models, batches of two, three turns: a try.")] = False,
    list_rows: Annotated[bool, typer.Option("--list", help="Print the names of the rows and measure nothing.")] = False,
) -> None:
    """Measure this library beside a textbook implementation and transformers: ratios with intervals, memory, equality.

    Ways take turns on the same inputs; a ratio above 1 says that ours is faster. The baselines are found in a clone of
    the repository (ci/benchmarks) and in the extra `transformers`.
    """
    import torch

    from s4d_lib.bench.measuring import measure
    from s4d_lib.bench.rows import Settings, all_rows, chosen
    from s4d_lib.bench.tables import print_record
    from s4d_lib.bench.timing import bf16_is_fast
    from s4d_lib.errors import Refused
    from s4d_lib.files import require_writable
    from s4d_lib.models.sizes import resolve_size
    from s4d_lib.progress import say

    for word, value, known in (("--clock", clock, ("wall", "cpu")), ("--device", device, ("cpu", "cuda")),
                               *(("--precision", one, ("no", "bf16")) for one in precision or ())):
        if value not in known:
            raise Refused(f"{word} is {' or '.join(known)}, not {value!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise Refused("--device cuda: PyTorch finds no GPU here")
    if not precision and not quick and not bf16_is_fast(device):
        precision = ["no"]
        say("bf16 is left out: its products are slower here than those in float32; --precision bf16 measures it "
            "nonetheless")
    settings = Settings("nano" if quick and size == "base" else size, device, tuple(precision or ("no", "bf16")),
                        3 if quick and repeats == 9 else repeats, threads or torch.get_num_threads(), clock, quick)
    resolve_size(settings.size)
    picked = chosen(all_rows(settings), rows or [])
    if list_rows:
        say("\n".join(row.name for row in picked))
        return
    if json is not None:
        require_writable(json)
    try:
        record = measure(picked, settings, json, anew)
    except KeyboardInterrupt:
        say("stopped" + (f"; the rows that were done are in {json}, the same command goes on" if json else ""))
        raise typer.Exit(130) from None
    print_record(record)
    if any("error" in record.results["rows"][row.name] for row in picked):
        raise typer.Exit(1)
