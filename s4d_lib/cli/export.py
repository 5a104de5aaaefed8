"""words → graphs     `s4d export`: a model file as .pt2 and ONNX, with a card beside them."""

from pathlib import Path
from typing import Annotated

import typer

from s4d_lib.cli.models import heads_named


def export(
    model: Annotated[Path, typer.Argument(help="A .safetensors file with a classifier, an encoder or an autoencoder, "
                                          "or a folder that save_pretrained wrote.")],
    folder: Annotated[Path, typer.Argument(help="Where image.pt2, video.pt2, image.onnx, video.onnx and export.json "
                                           "go.")],
    format_: Annotated[list[str] | None, typer.Option("--format", metavar="FORMAT", help="pt2 or onnx; both if not "
                                                      "given.")] = None,
    task: Annotated[list[str] | None, typer.Option(metavar="TASK", help="image or video; every one that the model "
                                                   "has.")] = None,
    behaviour: Annotated[str | None, typer.Option(help="clean: for a file that says reference.")] = None,
    schema: Annotated[list[str] | None, typer.Option(help="Label order the file does not tell: video=dfew.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is there.")] = False,
) -> None:
    """Write a classifier or an encoder as graphs that answer without this library: torch.export (.pt2) and ONNX."""
    from s4d_lib.checkpoints.export import CARD, FORMATS, export_model

    card = export_model(model, folder, format_ or FORMATS, task, behaviour, heads_named(schema), overwrite)
    for name, graph in card["graphs"].items():
        shapes = " → ".join(f"{graph[end]['name']} {graph[end]['shape']}" for end in ("input", "output"))
        print(f"{folder / name}: {graph['bytes']:,} bytes, {shapes}, differs by {graph['difference']:.1e}")
    print(f"{folder / CARD}: classes, pixels, hashes. Licence of the weights: {card['weights']['licence']}.")
