"""film → index     which pictures of a film are shown, in which order, and whether other decoders count them alike.

Frame i of a file is the i-th picture that a player shows: pictures in the order of their presentation times, without
those that an edit list hides (a phone or `ffmpeg -c copy` cuts a film by telling players where to begin, and leaves the
pictures before the cut in the file). Times stand in the packets, so nothing has to be decoded to know them; where a
container stores none (AVI, transport streams, raw H.264) the film is decoded from its start, and counted.

A decoder with an index of its own (decord, torchcodec) may count otherwise, and a wrong frame looks like a right one.
`FilmIndex.unsure` says why such an index need not be true, or nothing where it provably is.

Derived in chapter 02.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from s4d_lib.errors import Refused
from s4d_lib.frames.impostors import BOXES
from s4d_lib.frames.pictures import require_bearable

if TYPE_CHECKING:
    import av

TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")  # demuxers of containers that store presentation times


class FilmIndex(NamedTuple):
    """The shown pictures of one film; a position in `times` is a frame's number."""

    times: list[int]  # presentation times in ticks of the stream, sorted
    keys: list[int]   # positions of the pictures from which decoding can begin, sorted
    timed: bool       # whether times are there for every picture and no two are equal
    unsure: str       # why an index made otherwise may be wrong; empty where it is provably the same

    def position(self, time: int) -> int:
        """The number of the last picture shown at or before a time; -1 before the first."""
        return bisect_right(self.times, time) - 1

    def key_before(self, position: int) -> int:
        """The key picture at or before a position; 0 where there is none."""
        before = bisect_right(self.keys, position) - 1
        return self.keys[before] if before >= 0 else 0


def open_container(path: Path) -> av.container.InputContainer:
    """A video file, opened by PyAV. A name like http:a.mp4 is a file and not an address, and a play list that calls
    itself a video does not reach the network.
    """
    import av

    return av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})


def moving_pictures(container: av.container.InputContainer) -> av.VideoStream:
    """The stream that a player shows: the default one, or the first; the cover of a song is none.

    Refused where there is none, or where its pictures are too large to be held.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise Refused("it has no video stream")
    stream = max(streams, key=lambda s: bool(s.disposition & Disposition.default))  # the first of equals
    require_bearable(stream.width or 0, stream.height or 0)
    return stream


def index_film(container: av.container.InputContainer, stream: av.VideoStream) -> FilmIndex:
    """The index of a stream, by taking its packets apart once; the container stands at its end afterwards.

    Refused for a film that ends in the middle of a frame.
    """
    packets = [p for p in container.demux(stream) if p.size]
    if any(p.is_corrupt for p in packets):
        raise Refused("it ends in the middle of a frame")
    visible = [p for p in packets if not p.is_discard]
    times = sorted(p.pts for p in visible if p.pts is not None)
    timed = container.format.name in TIMED and len(set(times)) == len(visible)
    film = FilmIndex(times, [], timed, "")
    keys = sorted(film.position(p.pts) for p in visible if p.is_keyframe) if timed else []
    return film._replace(keys=keys, unsure=_unsure(container, stream, packets, timed))


def _unsure(container: av.container.InputContainer, stream: av.VideoStream, packets: list[av.Packet],
            timed: bool) -> str:
    """Why a decoder that makes its own index of these packets may show another frame; nothing where it cannot."""
    if container.format.name not in TIMED:
        return "only MP4, QuickTime and Matroska files store when each picture is shown"
    if hidden := sum(p.is_discard for p in packets):
        return f"it was cut without being encoded again: {hidden} of its pictures are stored and not to be shown"
    if not timed:
        return "two of its pictures have the same time, or none"
    if stream.frames not in (0, len(packets)):
        return f"it announces {stream.frames} pictures and holds {len(packets)}"
    if not packets or not packets[0].is_keyframe:
        return "it does not begin with a whole picture"
    if not _closed(packets):
        return "pictures before a key picture in time stand after it in the file (an open group of pictures)"
    if not all(_whole_picture(bytes(p), stream.codec_context) for p in packets if p.is_keyframe):
        return "its key pictures are not whole (intra refresh, or a recovery point in place of one)"
    return ""


def _closed(packets: list[av.Packet]) -> bool:
    """Whether every key packet lies later than all packets before it and earlier than all after it."""
    latest, earliest = [], []
    for packet in packets:
        latest.append(max(packet.pts, latest[-1] if latest else packet.pts))
    for packet in reversed(packets):
        earliest.append(min(packet.pts, earliest[-1] if earliest else packet.pts))
    earliest.reverse()
    return all(earliest[i] == packet.pts and (i == 0 or latest[i - 1] < packet.pts)
               for i, packet in enumerate(packets) if packet.is_keyframe)


def _whole_picture(data: bytes, codec: av.VideoCodecContext) -> bool:
    """Whether a key packet of H.264 or H.265 holds a picture that needs no other (IDR; IRAP); other codecs mark them
    reliably. ITU-T H.264 table 7-1, H.265 table 7-1; lengths of units as in ISO/IEC 14496-15.
    """
    head = codec.extradata or b""
    if codec.name == "h264":
        size = (head[4] & 3) + 1 if len(head) > 6 and head[0] == 1 else 0
        return bool(size) and any(byte & 31 == 5 for byte in _first_bytes(data, size))
    if codec.name == "hevc":
        size = (head[21] & 3) + 1 if len(head) > 22 and head[0] == 1 else 0
        return bool(size) and any(16 <= byte >> 1 & 63 <= 23 for byte in _first_bytes(data, size))
    return True


def _first_bytes(data: bytes, size: int) -> Iterator[int]:
    """The first byte of each unit in a packet whose units begin with their length in `size` bytes."""
    at = 0
    while at + size < len(data):
        yield data[at + size]
        at += size + int.from_bytes(data[at:at + size], "big")


def repeats_picture(packet: av.Packet) -> bool:
    """Whether a packet says no more than "the same again" (Theora, AVI): no bytes, but a time. PyAV would take it for
    the end of the stream."""
    return not packet.size and packet.dts is not None


def require_whole(path: Path) -> None:
    """Refused if an MP4 or QuickTime file ends before its own boxes do, as after a broken copy."""
    length, start = path.stat().st_size, 0
    with open(path, "rb") as file:
        while start + 8 <= length:
            file.seek(start)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:  # the true size follows in eight bytes
                size = int.from_bytes(header[8:], "big")
            if size < 8 or kind not in BOXES:  # the last box, bytes after it, or another container
                return
            start += size
    if start > length:
        raise Refused(f"the file is cut short: {length} of at least {start} bytes")
