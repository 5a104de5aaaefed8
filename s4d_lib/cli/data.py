"""words → folders     `s4d faces`, `data`, `doctor`, `pack`, `crop`: drawing, looking after and cutting out data."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from s4d_lib.cli.list_words import Base, Classes, Columns, Folds, Labels, Listing, Splits, Strip, said
from s4d_lib.errors import Refused


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

    from s4d_lib.synthetic_faces.folders import write_faces
    from s4d_lib.synthetic_faces.recipes import RECIPES

    if recipe not in RECIPES:
        raise Refused(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    chosen = RECIPES[recipe] if size is None else replace(RECIPES[recipe], size=size)
    card = write_faces(out, chosen, stills, clips, seed, frames=tuple(frames.split(",")))
    print(f"{out}: {stills} stills and {clips} clips of recipe {recipe}, content {card['content_sha256'][:16]}")


def data(tier: Annotated[str, typer.Option(help="smoke, laptop or full.")] = "smoke") -> None:
    """Write the synthetic data sets that the chapters read at a tier; what is there already is kept."""
    from s4d_lib.batch.runner import TIERS

    if tier not in TIERS:
        raise Refused(f"unknown tier {tier!r}; the tiers are {', '.join(TIERS)}")
    from s4d_lib.training.tiers import prepare_data

    prepare_data(tier)


def doctor(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the lists and clips.")],
    as_: Annotated[str, typer.Option("--as", help="dfew, ferv39k, mafw, mafw-compound, affectnet7, affectnet8, raf-db, "
                                     "ferplus, sfew, voxceleb2, caer, crema-d, ravdess, folders or table.")],
    fold: Annotated[int | None, typer.Option(min=0, help="Only the lists of this fold.")] = None,
    frames: Annotated[str | None, typer.Option(help="Folder of clips below DIR, or an absolute path.")] = None,
    deep: Annotated[bool, typer.Option(help="Decode whole films and three frames of a folder, find copies.")] = False,
    schema: Annotated[str | None, typer.Option(help="Class order of the lists; a table needs it, or classes.")] = None,
    listing: Listing = None,
    labels: Labels = None,
    columns: Columns = None,
    strip: Strip = None,
    base: Base = None,
    splits: Splits = None,
    folds: Folds = None,
    classes: Classes = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the diagnosis here too.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Folders looked at at a time.")] = 8,
) -> None:
    """Say what a data folder holds, which published protocol it is, what is wrong and what to do.

    Exit code 0: fine; 1: warnings; 2: errors, or the folder cannot be read.
    """
    import json

    from s4d_lib.datasets.doctor.diagnosis import diagnose
    from s4d_lib.datasets.doctor.findings import print_report
    from s4d_lib.files import require_writable, write_text

    if json_:
        require_writable(json_)
    words = said(listing=listing, labels=labels, columns=columns, strip=strip, base=base, splits=splits, folds=folds,
                 classes=classes)
    found = diagnose(folder, as_, fold, frames, deep, schema, jobs, progress=True, **words)
    print_report(found)
    if json_:
        write_text(json_, json.dumps(found.as_dict(), indent=2) + "\n")
    raise typer.Exit(found.exit_code)


def pack(
    source: Annotated[Path | None, typer.Argument(help="Folder that holds the lists and clips.")] = None,
    out: Annotated[Path | None, typer.Argument(help="Folder to write; a stopped run goes on in it.")] = None,
    as_: Annotated[str | None, typer.Option("--as", help="The data set, as in `s4d doctor`.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test; all if not given.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="One fold; all, without copies, if not given.")] = None,
    frames: Annotated[str | None, typer.Option(help="Folder of clips below SRC, or an absolute path.")] = None,
    size: Annotated[int | None, typer.Option(help="Shorter edge in pixels; without it, files are kept.")] = None,
    format: Annotated[str, typer.Option(help="tar (WebDataset shards) or mp4 (one small video per clip).")] = "tar",
    shard_mb: Annotated[float, typer.Option(help="A shard ends with the clip that passes this size.")] = 256,
    quality: Annotated[int | None, typer.Option(help="tar with --size: jpg of 1 to 95, not png; mp4: crf.")] = None,
    schema: Annotated[str | None, typer.Option(help="Class order of the lists; a table needs it, or classes.")] = None,
    listing: Listing = None,
    labels: Labels = None,
    columns: Columns = None,
    strip: Strip = None,
    base: Base = None,
    splits: Splits = None,
    folds: Folds = None,
    classes: Classes = None,
    jobs: Annotated[int, typer.Option(min=1, help="Clips encoded at a time.")] = 2,
    verify: Annotated[Path | None, typer.Option(help="Check the files of a packed folder instead.")] = None,
    deep: Annotated[bool, typer.Option(help="With --verify: decode what was shrunk, too.")] = False,
) -> None:
    """Pack clips into WebDataset shards or small mp4 files, with checksums; exit code 1 for errors."""
    if verify:
        from s4d_lib.datasets.packed import verify as check

        wrong = check(verify, deep)
        print("\n".join(wrong) or f"{verify}: every file is as it was packed")
        raise typer.Exit(bool(wrong))
    if source is None or out is None or as_ is None:
        raise Refused("say SRC OUT --as NAME, or --verify OUT")
    from s4d_lib.datasets.pack.writer import pack as pack_folder
    from s4d_lib.text import printable

    words = said(listing=listing, labels=labels, columns=columns, strip=strip, base=base, splits=splits, folds=folds,
                 classes=classes)
    options = {name: value for name, value in (("frames", frames), ("schema", schema)) if value is not None} | words
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
    from s4d_lib.crops.cropper import FaceCropper
    from s4d_lib.crops.detectors import open_detector
    from s4d_lib.crops.folders import crop_files
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
