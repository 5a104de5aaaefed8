"""file → what it is     a file that is not what its name says, told by its first bytes, with what to do about it.

Half of all "invalid data" reports are no damage: a pointer of Git LFS, the page of a log-in form saved as a film, a
recording whose index was never written. The decoders say the same of each; these sentences do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from s4d_lib.frames.endings import IMAGE_SUFFIXES, VIDEO_SUFFIXES

BOXES = tuple(b"ftyp moov mdat free skip wide moof sidx styp mfra uuid meta".split())
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis")
START = 4096


class Impostor(NamedTuple):
    """What a file is instead, and the way out; two halves of one sentence."""

    reason: str
    remedy: str


# First bytes → (kind, name); kinds are "picture", "film" and "other".
STARTS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xd8\xff", "picture", "a JPEG picture"),
    (b"\x89PNG\r\n", "picture", "a PNG picture"),
    (b"II*\0", "picture", "a TIFF picture"),
    (b"MM\0*", "picture", "a TIFF picture"),
    (b"\0\0\0\x0cjP  ", "picture", "a JPEG 2000 picture"),
    (b"GIF8", "film", "a GIF animation"),
    (b"\x1aE\xdf\xa3", "film", "a Matroska or WebM film"),
    (b"OggS", "film", "an Ogg film"),
    (b"FLV\x01", "film", "a Flash film"),
    (b"0&\xb2u\x8ef\xcf\x11", "film", "a Windows Media film"),
    (b"\0\0\x01\xba", "film", "an MPEG film"),
    (b"\0\0\x01\xb3", "film", "an MPEG film"),
    (b"version https://git-lfs", "other", "a pointer of Git LFS and not the file itself"),
    (b"%!PS", "other", "a PostScript program"),
    (b"%PDF", "other", "a PDF document"),
    (b"PK\x03\x04", "other", "a ZIP archive"),
    (b"\x1f\x8b", "other", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "other", "a 7-Zip archive"),
    (b"Rar!", "other", "a RAR archive"),
    (b"BZh", "other", "a bzip2 archive"),
    (b"\xfd7zXZ", "other", "an xz archive"),
    (b"\x93NUMPY", "other", "a NumPy array"),
    (b"ID3", "other", "an MP3 recording, sound without pictures"),
    (b"fLaC", "other", "a FLAC recording, sound without pictures"),
    (b"#EXTM3U", "other", "a play list, which names films and holds none"),
    (b"#EXTINF", "other", "a play list, which names films and holds none"),
)
REMEDIES = {
    "a pointer of Git LFS and not the file itself": "Fetch it with `git lfs pull`",
    "a web page": "The download ended at a page, often a log-in; open it in a browser, and fetch the file anew",
    "an empty file of zeros": "A copy or download was reserved and never filled; fetch it again",
}


def kind_of(start: bytes) -> tuple[str, str]:
    """(kind, what it is) of a file that begins with these bytes; ("unknown", "") if they tell nothing."""
    for magic, kind, name in STARTS:
        if start.startswith(magic):
            return kind, name
    if start[:4] == b"RIFF":
        return {b"WEBP": ("picture", "a WebP picture"), b"AVI ": ("film", "an AVI film"),
                b"WAVE": ("other", "a WAV recording, sound without pictures")}.get(start[8:12], ("unknown", ""))
    if start[4:8] == b"ftyp":
        if start[8:12] in PICTURE_BRANDS:
            return "picture", "a HEIC or AVIF picture"
        if start[8:12] == b"M4A ":
            return "other", "an MPEG-4 recording, sound without pictures"
    if start[4:8] in BOXES:  # ftyp among them
        return "film", "an MP4 or QuickTime film"
    if start[:1] == b"G" and start[188:189] == b"G" and start[376:377] in (b"", b"G"):
        return "film", "an MPEG transport stream"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:256].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")):
        return "other", "a web page"
    if start and not start.strip(b"\0"):
        return "other", "an empty file of zeros"
    return "unknown", ""


def impostor(path: Path) -> Impostor | None:
    """What a file is that its ending does not say, or None where nothing speaks against the name. OSError as `open`."""
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        start = file.read(START)
    kind, name = kind_of(start)
    if kind == "other":
        return Impostor(f"it is {name}", REMEDIES.get(name, "Unpack or replace it"))
    if suffix in IMAGE_SUFFIXES and kind == "film":
        return Impostor(f"it is {name} that is called {suffix}", "Give it the ending of a film, such as .mp4")
    if suffix in VIDEO_SUFFIXES and kind == "picture":
        return Impostor(f"it is {name} that is called {suffix}", "Give it the ending of a picture, such as .jpg")
    if kind == "film" and start[4:8] in BOXES:
        return _unfinished(path)
    return None


def _unfinished(path: Path) -> Impostor | None:
    """MP4 and QuickTime: no index at all, or pictures that are encrypted."""
    boxes, at, movie = set(), 0, b""
    with open(path, "rb") as file:
        for _ in range(10_000):  # a file of empty boxes must not hold us up
            file.seek(at)
            header = file.read(16)
            if len(header) < 8 or header[4:8] not in BOXES:
                break
            size = int.from_bytes(header[:4], "big")
            size = int.from_bytes(header[8:], "big") if size == 1 else size
            boxes.add(header[4:8])
            if header[4:8] == b"moov":
                file.seek(at)
                movie = file.read(min(size or 1 << 26, 1 << 26))
            if size < 8:
                break
            at += size
    if b"mdat" in boxes and not boxes & {b"moov", b"moof"}:
        return Impostor("its index is missing: the file was cut short, or the recording was never finished",
                        "Copy it again, or rebuild the index with a repair program (untrunc, for one)")
    if b"encv" in movie:
        return Impostor("its pictures are encrypted (copy protection)", "Use a copy that may be decoded")
    return None
