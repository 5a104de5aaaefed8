"""words → films     numbered films of every kind, made by ffmpeg, each with the frames that ffmpeg shows of it.

Containers, codecs, groups of pictures, cuts and edit lists, orders of streams, rates, shapes. A frame carries its
number as seven bars in its upper fifth, so that a wrong frame names itself. The truth about a film is what
`ffmpeg -fps_mode passthrough` shows: that many frames, with these pixels.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

FRAMES, HEIGHT, WIDTH, RATE, BITS = 60, 96, 128, 25, 7


def numbered(n: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Frame n, uint8 [h w 3]: bars above (least significant first), a disc that travels below."""
    picture = np.full((height, width, 3), 90, np.uint8)
    bar = width / (BITS + 1)
    for bit in range(BITS):
        picture[: height // 5, int(bit * bar):int((bit + 1) * bar)] = 255 * (n >> bit & 1)
    y, x = np.mgrid[:height, :width]
    picture[(y - 0.6 * height) ** 2 + (x - (0.2 + 0.6 * n / FRAMES) * width) ** 2 < (height / 6) ** 2] = (220, 170, 140)
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a frame [h w 3] carries."""
    height, width = picture.shape[:2]
    bar = width / (BITS + 1)
    return sum(int(picture[int(height * 0.08), int((bit + 0.5) * bar)].mean() > 128) << bit for bit in range(BITS))


class Film(NamedTuple):
    """One film of the matrix: ffmpeg's words between its input and its output; `cut` is copied out of the result."""

    name: str
    words: str                   # encoder and muxer
    cut: str | None = None       # words before -i of a second call that copies packets; None: one call
    copy: str = ""               # words of that second call after its input
    sound: bool = False
    ending: str | None = None    # of the film that is cut, where it differs
    edits: tuple[tuple[float, float], ...] = ()  # (seconds, second in the media or -1: nothing)


X264 = "-c:v libx264 -pix_fmt yuv420p -crf 8"
X265 = "-c:v libx265 -pix_fmt yuv420p -x265-params log-level=error:crf=8"
VP9 = "-c:v libvpx-vp9 -pix_fmt yuv420p -b:v 2M -cpu-used 8"
AV1 = "-c:v libsvtav1 -pix_fmt yuv420p -crf 12 -preset 12 -svtav1-params keyint=24"
MPEG2 = "-c:v mpeg2video -q:v 2"
SOUND = "-map 0:a -map 1:v"

FILMS = (
    # containers and codecs
    Film("h264.mp4", X264),
    Film("h264.mov", X264),
    Film("h264.mkv", X264),
    Film("h264.ts", X264),
    Film("h264.flv", X264),
    Film("h264.avi", X264 + " -bf 0"),
    Film("h264_b.avi", X264),
    Film("h264.3gp", X264),
    Film("h264.m2ts", X264),
    Film("h264_raw.h264", X264),
    Film("h264.mxf", X264),
    Film("h264_fragments.mp4", X264 + " -g 12 -movflags frag_keyframe+empty_moov"),
    Film("h264_front.mp4", X264 + " -movflags +faststart"),
    Film("h264_negative.mp4", X264 + " -movflags negative_cts_offsets"),
    Film("h264_no_edits.mp4", X264 + " -use_editlist 0"),
    Film("h265.mp4", X265),
    Film("h265.mkv", X265),
    Film("h265.ts", X265),
    Film("h265_raw.hevc", X265),
    Film("h265.mov", X265 + " -tag:v hvc1"),
    Film("vp8.webm", "-c:v libvpx -b:v 2M"),
    Film("vp8_altref.webm", "-c:v libvpx -b:v 2M -auto-alt-ref 1 -lag-in-frames 16"),
    Film("vp8.mkv", "-c:v libvpx -b:v 2M"),
    Film("vp9.webm", VP9),
    Film("vp9_altref.webm", VP9 + " -auto-alt-ref 1 -lag-in-frames 25 -g 30"),
    Film("vp9.mp4", VP9),
    Film("av1.mp4", AV1),
    Film("av1.mkv", AV1),
    Film("av1.webm", AV1),
    Film("mpeg2.mov", MPEG2 + " -bf 2 -g 12"),
    Film("mpeg2.mpg", MPEG2 + " -bf 2 -g 12"),
    Film("mpeg2.ts", MPEG2 + " -bf 2 -g 12"),
    Film("mpeg2.mkv", MPEG2 + " -bf 2 -g 12"),
    Film("mpeg2.mxf", MPEG2 + " -bf 2 -g 12"),
    Film("mpeg1.mpg", "-c:v mpeg1video -q:v 2 -bf 2"),
    Film("mpeg4.avi", "-c:v mpeg4 -q:v 2"),
    Film("mpeg4_b.avi", "-c:v mpeg4 -q:v 2 -bf 2"),
    Film("mpeg4_b.mp4", "-c:v mpeg4 -q:v 2 -bf 2"),
    Film("xvid.avi", "-c:v libxvid -q:v 2 -bf 2"),
    Film("msmpeg4.avi", "-c:v msmpeg4 -q:v 2"),
    Film("h263.3gp", "-c:v h263 -q:v 2 -s 128x96"),
    Film("wmv2.wmv", "-c:v wmv2 -q:v 2"),
    Film("flv1.flv", "-c:v flv -q:v 2"),
    Film("theora.ogv", "-c:v libtheora -q:v 9"),
    Film("mjpeg.avi", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
    Film("mjpeg.mov", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
    Film("prores.mov", "-c:v prores -pix_fmt yuv422p10le"),
    Film("ffv1.mkv", "-c:v ffv1 -pix_fmt yuv420p"),
    Film("gif.gif", ""),
    Film("huffyuv.avi", "-c:v huffyuv"),
    Film("png.mov", "-c:v png"),
    # groups of pictures
    Film("gop_open.mp4", X264 + " -x264-params open-gop=1:keyint=20"),
    Film("gop_open.mkv", X264 + " -x264-params open-gop=1:keyint=20"),
    Film("gop_open.ts", X264 + " -x264-params open-gop=1:keyint=20"),
    Film("gop_open.mov", X264 + " -x264-params open-gop=1:keyint=20:bframes=5:b-pyramid=normal"),
    Film("gop_refresh.mp4", X264 + " -x264-params intra-refresh=1:keyint=16"),
    Film("gop_refresh.mkv", X264 + " -x264-params intra-refresh=1:keyint=16"),
    Film("gop_one.mp4", X264 + " -g 250"),
    Film("gop_intra.mp4", X264 + " -g 1"),
    Film("gop_no_b.mp4", X264 + " -bf 0 -g 10"),
    Film("gop_pyramid.mp4", X264 + " -g 15 -x264-params bframes=8:b-pyramid=normal:b-adapt=0"),
    Film("gop_open_h265.mp4", X265 + ":open-gop=1:keyint=20:bframes=4"),
    Film("gop_closed_h265.mkv", X265 + ":open-gop=0:keyint=20"),
    Film("gop_open_mpeg2.mkv", MPEG2 + " -bf 2 -g 9 -flags -cgop"),
    Film("gop_closed_mpeg2.mov", MPEG2 + " -bf 2 -g 12 -flags +cgop -sc_threshold 1000000000"),
    Film("interlaced.mp4", X264 + " -x264-params interlaced=1"),
    Film("interlaced.ts", X264 + " -x264-params interlaced=1:keyint=15"),
    # cuts and edit lists
    Film("cut.mp4", X264, cut="-ss 0.7"),
    Film("cut_b.mov", X264 + " -g 12 -x264-params bframes=5", cut="-ss 1.1"),
    Film("cut_both.mp4", X264, cut="-ss 0.7 -t 1.0"),
    Film("cut.mkv", X264 + " -g 20", cut="-ss 0.9"),
    Film("cut_h265.mp4", X265, cut="-ss 0.7"),
    Film("cut_mpeg4.mp4", "-c:v mpeg4 -q:v 2 -bf 2", cut="-ss 0.7"),
    Film("cut_open.mp4", X264 + " -x264-params open-gop=1:keyint=20", cut="-ss 1.0"),
    Film("cut.ts", X264 + " -g 20", cut="-ss 0.9"),
    Film("cut_from_mkv.mp4", X264 + " -g 20", cut="-ss 0.9", ending="mkv"),
    Film("cut_from_ts.mp4", X264 + " -x264-params open-gop=1:keyint=20", cut="-ss 0.9", ending="ts"),
    Film("cut_sound.mp4", X264, cut="-ss 0.7", sound=True),
    Film("cut_vp9.mp4", VP9 + " -g 20", cut="-ss 1.3"),
    Film("cut_av1.mp4", AV1, cut="-ss 0.5"),
    Film("late.mp4", X264, cut="-itsoffset 0.4"),
    Film("late_sound.mp4", X264, cut="-itsoffset 0.4", sound=True),
    Film("cut_fragments.mp4", X264 + " -g 12", cut="-ss 0.7", copy="-movflags frag_keyframe+empty_moov+delay_moov"),
    Film("edits_two.mp4", X264 + " -g 12", edits=((0.4, 0.2), (0.8, 1.2))),
    Film("edits_late.mov", X264 + " -g 12", edits=((0.4, -1), (1.0, 0.6))),
    Film("edits_gap.mp4", X264 + " -g 12", edits=((0.4, 0.0), (0.4, -1), (0.8, 1.2))),
    Film("edits_again.mp4", X264 + " -g 12", edits=((0.8, 0.4), (0.8, 0.4))),
    Film("edits_back.mp4", X264 + " -g 12", edits=((0.6, 1.4), (0.6, 0.2))),
    Film("edits_no_b.mov", X264 + " -bf 0 -g 30", edits=((0.5, 0.5), (0.5, 1.5))),
    # order of streams
    *(Film(f"sound_first.{e}", X264, sound=True) for e in ("mp4", "mkv", "mov", "ts", "avi")),
    # rates
    Film("rate_30000_1001.mp4", X264 + " -r 30000/1001"),
    Film("rate_slow.mp4", "-r 0.2 " + X264),
    Film("rate_fast.mp4", "-r 240 " + X264),
    Film("rate_variable.mp4", "-vf setpts=N+floor(N/3) -fps_mode passthrough " + X264),
    Film("rate_variable.mkv", "-vf setpts=N+floor(N/7)*5 -fps_mode passthrough " + X264),
    Film("rate_gap.mp4", "-vf setpts=N+gt(N\\,30)*100 -fps_mode passthrough " + X264),
    Film("rate_doubled.avi", "-vf setpts=N+gt(N\\,20)*4 -fps_mode passthrough -enc_time_base 1:25 -c:v mpeg4 -q:v 2"),
    Film("repeat_field.mpg", MPEG2 + " -vf telecine=pattern=23,setfield=tff -flags +ilme+ildct"),
    Film("wrap.ts", X264 + " -g 20 -output_ts_offset 95442"),
    # shape and colour
    Film("turned.mp4", X264, cut="-display_rotation 90"),
    Film("turned_back.mov", X264, cut="-display_rotation 270"),
    Film("upside_down.mp4", X264, cut="-display_rotation 180"),
    Film("mirrored.mp4", X264, cut="-display_hflip"),
    Film("turned.mkv", X264, cut="-display_rotation 90"),
    Film("squeezed.mp4", X264 + " -vf scale=96:96,setsar=4/3"),
    Film("squeezed.mkv", X264 + " -vf scale=96:96,setsar=4/3"),
    Film("full_range.mp4", "-c:v libx264 -pix_fmt yuvj420p -crf 8"),
    Film("bt709.mp4", X264 + " -vf scale=out_color_matrix=bt709 -colorspace bt709 -color_primaries bt709 "
         "-color_trc bt709"),
    Film("ten_bit.mp4", "-c:v libx264 -pix_fmt yuv420p10le -crf 8"),
    Film("rgb.mkv", "-c:v libx264rgb -crf 8"),
    Film("odd_size.mp4", "-vf crop=125:93:0:0 -c:v libx264 -pix_fmt yuv444p -crf 8"),
)


def with_edits(film: bytes, edits: tuple[tuple[float, float], ...]) -> bytes:
    """An MP4 file of one track whose index stands at its end, with this edit list. ISO/IEC 14496-12, 8.6.6."""
    at = {name: film.index(name, film.index(b"moov")) - 4 for name in (b"moov", b"trak", b"edts", b"mvhd", b"mdhd")}
    movie, media = (int.from_bytes(film[at[box] + 20:at[box] + 24], "big") for box in (b"mvhd", b"mdhd"))
    first = int.from_bytes(film[at[b"edts"] + 28:at[b"edts"] + 32], "big")  # what the encoder's delay takes
    starts = [-1 if start < 0 else first + round(start * media) for _, start in edits]
    rows = b"".join(struct.pack(">Iihh", round(edit[0] * movie), start, 1, 0) for edit, start in zip(edits, starts))
    body = struct.pack(">4sII", b"elst", 0, len(edits)) + rows
    edts = struct.pack(">I4sI", len(body) + 12, b"edts", len(body) + 4) + body
    old = int.from_bytes(film[at[b"edts"]:at[b"edts"] + 4], "big")
    out = bytearray(film[:at[b"edts"]] + edts + film[at[b"edts"] + old:])
    for box in (b"moov", b"trak"):
        size = int.from_bytes(out[at[box]:at[box] + 4], "big") + len(edts) - old
        out[at[box]:at[box] + 4] = size.to_bytes(4, "big")
    return bytes(out)


def run(ffmpeg: str, *words: object, stdin: bytes | None = None) -> bytes:
    """What ffmpeg writes to its output; RuntimeError with its words where it fails."""
    done = subprocess.run([ffmpeg, "-y", "-v", "error", *map(str, words)], input=stdin or b"", capture_output=True)
    if done.returncode:
        raise RuntimeError(f"ffmpeg {' '.join(map(str, words))}: {done.stderr.decode()[-500:]}")
    return done.stdout


def make(ffmpeg: str, folder: Path, films: Iterable[Film] = FILMS) -> dict[Path, np.ndarray]:
    """The films, written to `folder`; each with the frames uint8 [t h w 3] that ffmpeg shows of it, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = b"".join(numbered(n).tobytes() for n in range(FRAMES))
    tone = folder / "tone.wav"
    run(ffmpeg, "-f", "lavfi", "-i", f"sine=d={FRAMES / RATE}", tone)
    truth = {}
    for film in films:
        path = folder / film.name
        first = path if film.cut is None else folder / f"source_{path.stem}.{film.ending or path.suffix[1:]}"
        words = film.words.split()
        rate = ["-r", RATE]
        if words[:1] == ["-r"]:
            rate, words = words[:2], words[2:]
        pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", *rate, "-i", "-"]
        inputs = ["-i", tone, *pictures, *SOUND.split()] if film.sound else pictures
        run(ffmpeg, *inputs, *words, "-threads", 1, first, stdin=raw)
        if film.cut is not None:
            maps = ["-map", "0"] if film.sound else []
            run(ffmpeg, *film.cut.split(), "-i", first, *maps, "-c", "copy", *film.copy.split(), path)
            first.unlink()
        if film.edits:
            path.write_bytes(with_edits(path.read_bytes(), film.edits))
        truth[path] = frames_by(ffmpeg, path)
    tone.unlink()
    return truth


def frames_by(ffmpeg: str, path: Path) -> np.ndarray:
    """What ffmpeg shows of a film, uint8 [t h w 3], upright and with square pixels, each frame once."""
    out = run(ffmpeg, "-i", path, "-map", "0:v:0", "-vf", "scale=round(iw*sar):ih", "-fps_mode", "passthrough",
              "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-")
    width, height = map(int, out[3:].split(b"\n", 1)[0].split())
    head = len(b"P6\n%d %d\n255\n" % (width, height))
    return np.frombuffer(out, np.uint8).reshape(-1, head + 3 * width * height)[:, head:].reshape(-1, height, width, 3)
