"""words → calls     the `s4d` command: draw faces, look after data, train, convert, predict, run the book.

Every command imports what it needs when it is called, so that `s4d --help` answers at once. What this library refuses
(an unknown recipe, an unreadable video, a wrong configuration) and what the system does (a file that is not there, a
full disk) is printed in one sentence, with exit code 2; any other error keeps its traceback, because it is a defect and
not an answer.
"""

import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s4d_lib import __version__
from s4d_lib.book_command import book
from s4d_lib.cost_command import cost
from s4d_lib.curves_command import curves
from s4d_lib.errors import Refused

if TYPE_CHECKING:
    from s4d_lib.launch import Launch
    from s4d_lib.runs import Run

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Entry point of the `s4d` command."""
    try:
        app()
    except (ValueError, OSError) as error:
        if not isinstance(error, Refused | OSError) and not _is_of_pydantic(error):
            raise
        print(f"s4d: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


def _is_of_pydantic(error: Exception) -> bool:
    """Whether pydantic raised the error, on behalf of a configuration."""
    return type(error).__module__.startswith("pydantic")


def _one_line(error: Exception) -> str:
    if _is_of_pydantic(error):
        found = [f"{'.'.join(map(str, item['loc'])) or 'configuration'}: {item['msg']}" for item in error.errors()]
        return f"{error.title}: {'; '.join(found)}"
    from s4d_lib.text import printable

    return printable(" ".join(str(error).split()))  # names from lists and files may hold what steers a terminal


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"s4d {__version__}")
        raise typer.Exit


@app.callback()
def s4d(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Static for Dynamic: facial expression recognition in images and videos."""


@app.command()
def faces(
    out: Annotated[Path, typer.Argument(help="Folder to write; made if it is not there.")],
    recipe: Annotated[str, typer.Option(help="How the faces are drawn: easy or default.")] = "default",
    stills: Annotated[int, typer.Option(min=0, help="Number of still images.")] = 1000,
    clips: Annotated[int, typer.Option(min=0, help="Number of video clips.")] = 200,
    seed: Annotated[int, typer.Option(help="The same seed draws the same faces.")] = 0,
    size: Annotated[int | None, typer.Option(help="Edge of a frame in pixels; the recipe's own if not given.")] = None,
    frames: Annotated[str, typer.Option(help="How clips are stored: mp4, jpg or mp4,jpg.")] = "mp4,jpg",
) -> None:
    """Draw synthetic faces with exact ground truth, in the folder layouts of AffectNet and DFEW."""
    from dataclasses import replace

    from s4d_lib.face_files import write_faces
    from s4d_lib.synthetic_faces import RECIPES

    if recipe not in RECIPES:
        raise Refused(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    chosen = RECIPES[recipe] if size is None else replace(RECIPES[recipe], size=size)
    card = write_faces(out, chosen, stills, clips, seed, frames=tuple(frames.split(",")))
    print(f"{out}: {stills} stills and {clips} clips of recipe {recipe}, content {card['content_sha256'][:16]}")


@app.command()
def data(tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "smoke") -> None:
    """Write the synthetic data sets that the chapters read at a tier; what is there already is kept."""
    from s4d_lib.batch import TIERS

    if tier not in TIERS:
        raise Refused(f"unknown tier {tier!r}; the tiers are {', '.join(TIERS)}")
    from s4d_lib.tiers import prepare_data

    prepare_data(tier)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML file: stage (pretrain or finetune) and its settings. Or the word "
                                           "s2d: both stages of S2D on drawn faces.")],
    tier: Annotated[str, typer.Option(help="With s2d: smoke, laptop or full.")] = "smoke",
    retrain: Annotated[bool, typer.Option(help="Throw an earlier run of this configuration away.")] = False,
    processes: Annotated[int | None, typer.Option(help="So many on this node; else one a visible GPU.")] = None,
    method: Annotated[str, typer.Option(help="ddp, or fsdp: each process holds a part of the weights.")] = "ddp",
    nodes: Annotated[int, typer.Option(help="Machines that train together; start this on each of them.")] = 1,
    node_rank: Annotated[int, typer.Option(help="Which of them this is, from 0.")] = 0,
    rendezvous: Annotated[str | None, typer.Option(help="host:port of node 0, with several nodes.")] = None,
) -> None:
    """Train one model, or load the run that this configuration has already left."""
    from s4d_lib.launch import asked_for

    launch = asked_for(processes, method, nodes, node_rank, rendezvous)
    try:
        for run in _train(config, tier, retrain, launch):
            print(f"{run.folder}: {run.record.headline}")
    except KeyboardInterrupt as error:
        print(f"s4d: {str(error) or 'stopped; the same command goes on'}", file=sys.stderr)
        raise typer.Exit(130) from None


def _train(config: Path, tier: str, retrain: bool, launch: "Launch | None") -> "list[Run]":
    """The runs of a configuration file, or of both stages of S2D."""
    from s4d_lib.runs import train as train_or_load
    from s4d_lib.stages import FinetuneConfig, PretrainConfig

    if str(config) == "s2d":
        from s4d_lib.s2d_stages import train_s2d

        return list(train_s2d(tier, retrain=retrain, processes=launch))
    settings = _settings(config)
    stage = PretrainConfig if settings["stage"] == "pretrain" else FinetuneConfig
    return [train_or_load(stage(**settings), retrain=retrain, processes=launch)]


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="few_labels, transfer_screening ...; a wrong name lists all.")],
    tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "laptop",
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds; else those of its plan.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, one thread each.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder for the record.")] = Path("chapters/results"),
) -> None:
    """Run one of the book's studies and write its record; stopped, it goes on where it was."""
    from s4d_lib.records import write_record
    from s4d_lib.study_names import ALL_STUDIES

    if name not in ALL_STUDIES:
        raise Refused(f"unknown study {name!r}; there are: {', '.join(ALL_STUDIES)}")
    own = signature(ALL_STUDIES[name]).parameters["seeds"].default
    record = ALL_STUDIES[name](tier, own if seeds is None else own[:seeds] if seeds <= len(own) else range(seeds), jobs)
    print(f"{write_record(out / f'{name}.json', record)}: {record.headline}")


@app.command()
def rerun(
    study: Annotated[str, typer.Argument(help="A recorded study of the laboratory, such as transfer_screening.")],
    cell: Annotated[str | None, typer.Option(help="Its cell; else one by chance.")] = None,
    method: Annotated[str | None, typer.Option(help="Its method; else one by chance.")] = None,
    seed: Annotated[int | None, typer.Option(help="Its training seed; else one by chance.")] = None,
) -> None:
    """Train one recorded run again and set it beside its record."""
    from s4d_lib.records import results
    from s4d_lib.rerun import rerun as again

    print(again(results(study), cell, method, seed))


app.command()(book)
app.command()(cost)
app.command()(curves)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A published checkpoint, or a file of this library.")],
    target: Annotated[Path, typer.Argument(help="OUT.safetensors; for the way back, OUT.pth.")],
    as_: Annotated[str | None, typer.Option("--as", help="Layout, if the keys do not tell: s4d, s4d_pretrain, "
                                            "videomae, videomae_pretrain, encoder, omnimae, mae, s2d, landmarks.")
                   ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Edge of the input in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads; one per 64 channels if not given.")] = None,
    decoder_heads: Annotated[int | None, typer.Option(min=1, help="The same for the decoder.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Experts per token.")] = None,
    capacity_factor: Annotated[float | None, typer.Option(help="Room of an expert, 1.0 as released.")] = None,
    behaviour: Annotated[str, typer.Option(help="clean, or reference for the released arithmetic.")] = "clean",
    container: Annotated[str | None, typer.Option(help="Dictionary of the file that holds the weights.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the target if it is there.")] = False,
) -> None:
    """Turn published weights into safetensors that describe their model, or a file of ours into a published layout."""
    from s4d_lib.convert import Hints
    from s4d_lib.convert import convert as convert_file
    from s4d_lib.layouts import LAYOUTS

    hints = Hints(image_size, frames, heads, decoder_heads, top_k, capacity_factor, behaviour, container)
    report = convert_file(source, target, as_ and as_.replace("-", "_"), hints, overwrite)
    print(report)
    print(f"{target}: {target.stat().st_size:,} bytes. Licence of the weights: {LAYOUTS[report.layout].licence}.")


@app.command()
def crop(
    source: Annotated[Path, typer.Argument(help="Video, picture, folder of frames, or folder of these.")],
    out: Annotated[Path, typer.Argument(help="OUT.mp4, OUT.png, or a folder.")],
    size: Annotated[int, typer.Option(min=16, help="Edge of a crop in pixels.")] = 224,
    every: Annotated[int, typer.Option(min=1, help="Look for the face in every k-th frame.")] = 3,
    margin: Annotated[float, typer.Option(min=0, help="Added around the face, as a share of its box.")] = 0.3,
    align: Annotated[bool, typer.Option(help="Turn faces upright by their eyes.")] = True,
    missing: Annotated[str, typer.Option(help="Frames without a face: hold, skip, full or raise.")] = "hold",
    smooth: Annotated[int, typer.Option(min=0, help="Frames to either side over which the box is averaged.")] = 3,
    detector: Annotated[str, typer.Option(help="mtcnn, yunet or mediapipe.")] = "mtcnn",
    model: Annotated[Path | None, typer.Option(help="Model file for yunet or mediapipe.")] = None,
    min_face: Annotated[float | None, typer.Option(help="Smallest face in pixels; a tenth of the frame if not given.")
                        ] = None,
    images: Annotated[bool, typer.Option("--images", help="Take every picture of a folder by itself.")] = False,
    preview: Annotated[Path | None, typer.Option(help="Sheet of frames with boxes and eyes, to write.")] = None,
) -> None:
    """Cut out the face of every frame; finished files are kept, and crops.csv says what was found."""
    from s4d_lib.crop_files import crop_files
    from s4d_lib.crops import FaceCropper
    from s4d_lib.detectors import open_detector
    from s4d_lib.text import printable

    cropper = FaceCropper(open_detector(detector, model, min_face), every, margin, "eyes" if align else "box", missing,
                          smooth)
    try:
        report = crop_files(source, out, size, cropper, images, preview)
    except KeyboardInterrupt:
        print("s4d: interrupted; finished files are kept, and the same command goes on with the rest", file=sys.stderr)
        raise typer.Exit(130) from None
    more = [f"… and {len(report.notes) - 20} more"] if report.notes[20:] else []
    for line in [*report.notes[:20], *more, str(report)]:
        print(printable(line))
    for row in report.failed:
        print(f"s4d: {printable(row['error'])}", file=sys.stderr)
    if report.failed:
        raise typer.Exit(1)


@app.command()
def predict(
    paths: Annotated[list[str], typer.Argument(metavar="VIDEO_OR_IMAGE_OR_FOLDER…", help="Folders: all media inside.")],
    model: Annotated[Path | None, typer.Option(help="A .safetensors file, or a folder that save_pretrained wrote; the "
                                               "model that comes with the library if not given.")] = None,
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
    heads = [words.partition("=") for words in schema or []]
    if strange := [task for task, equals, name in heads if task not in ("image", "video") or not name]:
        raise Refused(f"--schema takes image=NAME or video=NAME, not {strange[0]!r}")
    from s4d_lib import pages, timelines
    from s4d_lib.files import require_writable, write_text
    from s4d_lib.predict import predict as predict_files
    from s4d_lib.streams import find_media

    for out in filter(None, wanted.values()):
        require_writable(out)
    try:
        media = find_media(paths, frame_folders)
        if media.others:
            print(f"left out, being neither video nor image: {media.others}", file=sys.stderr)
        found = predict_files(
            media, model, crop={None: "auto", True: "face", False: "none"}[crop], stride=stride, hop=hop, batch=batch,
            smooth=smooth, device=device, schema={task: name for task, _, name in heads}, abstain=abstain,
            thumbnails=timelines.THUMBNAILS if html else 0, progress=True)
    except KeyboardInterrupt:
        print("s4d: interrupted; no report was written", file=sys.stderr)
        raise typer.Exit(130) from None
    timelines.print_table(found)
    for out, write in ((csv, timelines.to_csv), (json, timelines.to_json), (html, pages.page)):
        if out is not None:
            print(f"{write_text(out, write(found))}: {out.stat().st_size:,} bytes")
    if not all(one.whole for one in found):
        raise typer.Exit(1)


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the lists and clips.")],
    as_: Annotated[str, typer.Option("--as", help="dfew, ferv39k, mafw, mafw-compound, affectnet7, affectnet8, raf-db, "
                                     "ferplus, sfew, voxceleb2, caer or table.")],
    fold: Annotated[int | None, typer.Option(min=1, help="Only the lists of this fold.")] = None,
    frames: Annotated[str | None, typer.Option(help="Folder of clips below DIR, or an absolute path.")] = None,
    deep: Annotated[bool, typer.Option(help="Decode first and last frames, find equal content.")] = False,
    base: Annotated[int | None, typer.Option(min=0, max=1, help="What the labels of the lists count from.")] = None,
    schema: Annotated[str | None, typer.Option(help="Class order of the lists; a table needs it.")] = None,
    listing: Annotated[str | None, typer.Option(help="Another list; may hold {split} and {fold}.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the diagnosis here too.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Folders looked at at a time.")] = 8,
) -> None:
    """Say what a data folder holds, which published protocol it is, what is wrong and what to do.

    Exit code 0: fine; 1: warnings; 2: errors, or the folder cannot be read.
    """
    import json

    from s4d_lib.doctor import diagnose
    from s4d_lib.findings import print_report

    found = diagnose(folder, as_, fold, frames, deep, base, schema, listing, jobs, progress=True)
    print_report(found)
    if json_:
        json_.write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(found.exit_code)


@app.command()
def pack(
    source: Annotated[Path | None, typer.Argument(help="Folder that holds the lists and clips.")] = None,
    out: Annotated[Path | None, typer.Argument(help="Folder to write; a stopped run goes on in it.")] = None,
    as_: Annotated[str | None, typer.Option("--as", help="The data set, as in `s4d doctor`.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test; all if not given.")] = None,
    fold: Annotated[int | None, typer.Option(min=1, help="One fold; all, without copies, if not given.")] = None,
    frames: Annotated[str | None, typer.Option(help="Folder of clips below SRC, or an absolute path.")] = None,
    size: Annotated[int | None, typer.Option(help="Shorter edge in pixels; without it, files are kept.")] = None,
    format: Annotated[str, typer.Option(help="tar (WebDataset shards) or mp4 (one small video per clip).")] = "tar",
    shard_mb: Annotated[float, typer.Option(help="A shard ends with the clip that passes this size.")] = 256,
    quality: Annotated[int | None, typer.Option(help="tar with --size: jpg of 1 to 95, not png; mp4: crf.")] = None,
    base: Annotated[int | None, typer.Option(min=0, max=1, help="What the labels of the lists count from.")] = None,
    schema: Annotated[str | None, typer.Option(help="Class order of the lists; a table needs it.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Clips encoded at a time.")] = 2,
    verify: Annotated[Path | None, typer.Option(help="Check the files of a packed folder instead.")] = None,
    deep: Annotated[bool, typer.Option(help="With --verify: decode what was shrunk, too.")] = False,
) -> None:
    """Pack clips into WebDataset shards or small mp4 files, with checksums; exit code 1 for errors."""
    if verify:
        from s4d_lib.packed import verify as check

        wrong = check(verify, deep)
        print("\n".join(wrong) or f"{verify}: every file is as it was packed")
        raise typer.Exit(bool(wrong))
    if source is None or out is None or as_ is None:
        raise Refused("say SRC OUT --as NAME, or --verify OUT")
    from s4d_lib.pack import pack as pack_folder
    from s4d_lib.text import printable

    told = {"frames": frames, "base": base, "schema": schema}
    options = {name: value for name, value in told.items() if value is not None}
    try:
        packed = pack_folder(source, out, as_, split, fold, size, format, shard_mb, quality, jobs, True, **options)
    except KeyboardInterrupt:
        print("s4d: interrupted; the same command goes on where it was", file=sys.stderr)
        raise typer.Exit(130) from None
    for note in packed.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for error in packed.errors:
        print(f"left out: {printable(error)}", file=sys.stderr)
    counts, parts = packed.manifest["counts"], len(packed.manifest["parts"])
    print(f"{out}: {counts['packed']} samples, {parts} parts ({packed.kept} from before), {len(packed.errors)} errors")
    raise typer.Exit(bool(packed.errors))


def _settings(config: Path) -> dict:
    import yaml

    if not config.is_file():
        raise Refused(f"{config}: there is no such file")
    try:
        settings = yaml.safe_load(config.read_text())
    except yaml.YAMLError as error:
        raise Refused(f"{config} is not YAML: {error}") from error
    if not isinstance(settings, dict) or settings.get("stage") not in ("pretrain", "finetune"):
        raise Refused(f"{config} must set stage: pretrain or stage: finetune")
    return settings


if __name__ == "__main__":
    main()
