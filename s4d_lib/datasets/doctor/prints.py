"""frames → print → pairs     what is kept of a clip or picture so that copies of it are found among 100,000 others.

    print_of(frames, length)      digests of the pixels, as they are and mirrored; with `near` small pictures and hashes
    near_pairs(prints, compared)  pairs of which one may be made from the other: encoded again, resized, cropped by 5 %

Equal pixels have equal digests. Near copies go through three sieves, each stricter and dearer than the one before:

    coarse   correlation of 8 × 8 grey pixels, one product of matrices for thousands of pairs
    hash     `imagehash.dhash`, 256 bits: the whole of one against 25 windows of the other, since cutting off 5 % turns
             a quarter of the bits; COPY_BITS may differ
    pixels   correlation of 12 × 12 colour pixels after the window was fitted, to 1.25 % of an edge; of grey ones where
             one of the two pictures has no colour

Each looks at the mirrored picture too. A clip counts as one tall picture of its first, middle and last frame; beside a
picture each of the three counts by itself. Bounds were chosen on drawn people and measured on others
(ci/benchmarks/copies.py).

Derived in chapter 02.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

COLOURLESS = 6  # largest difference between the channels of a pixel of a grey picture, after JPEG
_LUMA = np.tile(np.array([[0.299], [0.587], [0.114]], np.float32), 3)  # colour → grey in all three channels
SMALL, GREY, FLAT = 24, 72, 4.0  # px of the kept picture and of the one that is hashed; grey levels of an empty one
COARSE, COPY_BITS, COPY_PIXELS = 0.85, 48, 0.975
_CUTS = [(0, 0), (0.05, 0), (0, 0.05), (0.025, 0.025), (0.05, 0.05)]  # off the two ends of an axis
WINDOWS = [(left, top, right, bottom) for left, right in _CUTS for top, bottom in _CUTS]
_STEPS = (0, 0.0125, 0.025, 0.0375, 0.05)
_FINE = [(start, end) for start in _STEPS for end in _STEPS]
_FINE_OF = np.array([_FINE.index(cut) for cut in _CUTS])


class Print(NamedTuple):
    """What is kept of one clip or picture."""

    exact: bytes  # digest of the pixels of its frames and of how many it has
    mirrored: bytes  # the same of the mirrored frames
    small: bytes = b""  # u8 [frames SMALL SMALL 3]; empty: near copies are not looked for, or nothing is to be seen
    hashes: bytes = b""  # [frames 26 32]: 256 bits of every window, then of the whole mirrored; empty: no imagehash

    @property
    def frames(self) -> int:
        return len(self.small) // (3 * SMALL * SMALL)

    def frame(self, number: int) -> Print:
        """What is kept of one of the frames, without digests."""
        small, hashes = 3 * SMALL * SMALL, 32 * (len(WINDOWS) + 1)
        return Print(b"", b"", self.small[small * number : small * (number + 1)],
                     self.hashes[hashes * number : hashes * (number + 1)])


class Pair(NamedTuple):
    """Two places in a sequence of prints."""

    a: int
    b: int
    mirrored: bool


def print_of(frames: Sequence[np.ndarray], length: int, near: bool) -> Print:
    """u8 [h w 3] of some frames of a clip of `length` frames, or of a picture → its print."""
    exact, mirrored = (_digest([frame[:, ::step] for frame in frames], length) for step in (1, -1))
    if not near:
        return Print(exact, mirrored)
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    small = np.stack([np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX)) for picture in pictures])
    if small.std((1, 2)).max() < FLAT:  # a black frame is no copy of another black frame
        return Print(exact, mirrored)
    hashes = [_hashes(picture) for picture in pictures] if _can_hash() else []
    return Print(exact, mirrored, small.tobytes(), b"".join(hashes))


@cache
def _can_hash() -> bool:
    return importlib.util.find_spec("imagehash") is not None


def _digest(frames: Sequence[np.ndarray], length: int) -> bytes:
    digest = hashlib.sha256(str(length).encode())
    for frame in frames:
        digest.update(str(frame.shape).encode() + np.ascontiguousarray(frame).tobytes())
    return digest.digest()[:16]


def _hashes(picture) -> bytes:
    """256 bits of every window of a picture, and of the mirrored whole."""
    import imagehash
    from PIL import Image

    grey = picture.convert("L").resize((GREY, GREY), Image.Resampling.LANCZOS)
    turned = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    views = [(grey, window) for window in WINDOWS] + [(turned, WINDOWS[0])]
    return b"".join(np.packbits(imagehash.dhash(_cut(view, window), 16).hash).tobytes() for view, window in views)


def _cut(grey, window: tuple[float, float, float, float]):
    """The 17 × 16 pixels whose neighbours a hash of 16 × 16 compares."""
    from PIL import Image

    left, top, right, bottom = window
    box = (GREY * left, GREY * top, GREY * (1 - right), GREY * (1 - bottom))
    return grey.resize((17, 16), Image.Resampling.LANCZOS, box=box)


# -------------------------------------------------------------------------------- pairs


Compared = Callable[[np.ndarray, np.ndarray], np.ndarray]  # places [r], places [c] → bool [r c], symmetric


def near_pairs(prints: Sequence[Print], compared: Compared, order: Sequence[int] | None = None,
               seen: Callable[[int], object] = lambda rows: None, block: int = 512) -> Iterator[Pair]:
    """Pairs that may be one made from the other, of all prints with as many frames and with hashes.

    compared  which of these places are to be compared with which of those
    order     what prints are sorted by, so that whole blocks that are not compared can be passed over
    seen      told how many more prints were compared with all others
    """
    order = np.zeros(len(prints)) if order is None else np.asarray(order)
    for frames in sorted({one.frames for one in prints if one.hashes}):
        chosen = [i for i, one in enumerate(prints) if one.frames == frames]
        yield from _pairs_of([prints[i] for i in chosen], np.array(chosen), compared, order, seen, block)
    stills = np.array([one.frames == 1 for one in prints], bool)
    if stills.any() and not stills.all():
        single = [(one.frame(k), i) for i, one in enumerate(prints) for k in range(one.frames) if one.hashes]
        beside = lambda a, b: compared(a, b) & (stills[a][:, None] != stills[b])  # noqa: E731
        places = np.array([i for _, i in single])
        yield from dict.fromkeys(_pairs_of([one for one, _ in single], places, beside, 2 * order + stills, None, block))


def _pairs_of(prints: Sequence[Print], places: np.ndarray, compared: Compared, order: np.ndarray,
              seen: Callable[[int], object] | None, block: int) -> Iterator[Pair]:
    """The same of prints with one number of frames, by the places that they are of."""
    sorting = np.argsort(order[places], kind="stable")
    places, kept = places[sorting], _Kept([prints[i] for i in sorting], prints[0].frames)
    for at in range(0, len(places), block):
        rows = np.arange(at, min(at + block, len(places)))
        for beside in range(at, len(places), 4 * block):
            columns = np.arange(beside, min(beside + 4 * block, len(places)))
            wanted = compared(places[rows], places[columns]) & (rows[:, None] < columns)
            if wanted.any():
                for a, b, mirrored in kept.pairs(rows, columns, wanted):
                    yield Pair(*sorted((int(places[a]), int(places[b]))), bool(mirrored))
        if seen is not None:
            seen(len(rows))


class _Kept:
    """Prints of equally many frames as arrays, and the three sieves."""

    def __init__(self, prints: Sequence[Print], frames: int):
        count = len(prints)
        self.small = np.frombuffer(b"".join(one.small for one in prints), np.uint8)
        self.small = self.small.reshape(count, frames, SMALL, SMALL, 3)
        hashes = np.frombuffer(b"".join(one.hashes for one in prints), np.uint8)
        hashes = hashes.reshape(count, frames, len(WINDOWS) + 1, 32).swapaxes(1, 2)
        self.hashes = np.ascontiguousarray(hashes).reshape(count, len(WINDOWS) + 1, 32 * frames).view(np.uint64)
        self.frames = frames
        spread = self.small.max(-1).astype(np.int16) - self.small.min(-1)  # between the channels of a pixel
        self.grey = (spread <= COLOURLESS).all((1, 2, 3))
        self.cut = [self._coarse(cut) for cut in (_CUTS[0], _CUTS[3], _CUTS[4])]
        self.turned = self._coarse(_CUTS[0], -1)

    def pairs(self, rows: np.ndarray, columns: np.ndarray, wanted: np.ndarray, most: int = 20_000
              ) -> Iterator[tuple[int, int, bool]]:
        """(row, column, mirrored) of the `wanted` pairs that pass all three."""
        best, one = np.full(wanted.shape, -1, np.float32), np.empty(wanted.shape, np.float32)
        for whole in (self.cut[0], self.turned):
            for cut in self.cut:
                np.maximum(best, np.matmul(cut[rows], whole[columns].T, out=one), out=best)
                if cut is not self.cut[0]:  # of two wholes it does not matter which is mirrored
                    np.maximum(best, np.matmul(whole[rows], cut[columns].T, out=one), out=best)
        a, b = np.nonzero(wanted & (best >= COARSE))
        for at in range(0, len(a), most):
            yield from self._close(rows[a[at:at + most]], columns[b[at:at + most]])

    def _coarse(self, cut: tuple[float, float], step: int = 1) -> np.ndarray:
        """Unit vectors of 8 × 8 grey pixels a frame `[n 64·frames]`, the cut taken off all sides."""
        across = _averages(8, *cut)
        parts = [self.small[at:at + 4096].mean(-1, dtype=np.float32) for at in range(0, len(self.small), 4096)]
        return np.concatenate([_unit(across @ part[..., ::step] @ across.T) for part in parts])

    def _close(self, a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int, bool]]:
        """The second and third sieve: whose windows lie nearest to the whole of the other, and how well they fit."""
        distances = []  # [4 pairs windows]: b in a, a in b, each as it is and mirrored
        for mirrored in (0, -1):
            for one, other in ((a, b), (b, a)):
                bits = self.hashes[one, :-1] ^ self.hashes[other, mirrored][:, None]
                distances.append(_ones(bits) / self.frames)
        way, window = np.divmod(np.stack(distances, 1).reshape(len(a), -1).argmin(1), len(WINDOWS))
        least = np.stack(distances).min((0, 2))
        for at in np.array_split(np.nonzero(least <= COPY_BITS)[0], 1 + len(a) // 500):
            if not len(at):
                continue
            swap, mirrored = way[at] % 2 == 1, way[at] >= 2
            outer, inner = np.where(swap, b[at], a[at]), np.where(swap, a[at], b[at])
            fit = self._fit(outer, inner, mirrored, window[at])
            yield from zip(a[at][fit >= COPY_PIXELS], b[at][fit >= COPY_PIXELS], mirrored[fit >= COPY_PIXELS])

    def _fit(self, outer: np.ndarray, inner: np.ndarray, mirrored: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Correlation of `inner` with the window of `outer` that fits best, found axis by axis from `window`."""
        whole, across = self.small[outer].astype(np.float32), np.stack([_averages(12, *cut) for cut in _FINE])
        there = self.small[inner]
        there = np.where(mirrored[:, None, None, None, None], there[:, :, :, ::-1], there).astype(np.float32)
        mixed = self.grey[outer] != self.grey[inner]
        whole[mixed], there[mixed] = whole[mixed] @ _LUMA, there[mixed] @ _LUMA
        target = _unit(np.einsum("ij,cfjkl,mk->cfiml", across[0], there, across[0], optimize=True))
        column, row = _FINE_OF[window // len(_CUTS)], _FINE_OF[window % len(_CUTS)]
        for _ in range(2):
            lines = np.einsum("cij,cfjkl->cfikl", across[row], whole, optimize=True)
            found = _correlations(np.einsum("xmk,cfikl->cxfiml", across, lines, optimize=True), target)
            column = found.argmax(1)
            lines = np.einsum("cmk,cfjkl->cfjml", across[column], whole, optimize=True)
            found = _correlations(np.einsum("yij,cfjml->cyfiml", across, lines, optimize=True), target)
            row = found.argmax(1)
        return found.max(1)


def _correlations(views: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Views `[c v …]` and unit vectors `[c d]` → `[c v]`."""
    units = _unit(views.reshape(-1, *views.shape[2:])).reshape(*views.shape[:2], -1)
    return np.einsum("cvd,cd->cv", units, target)


def _unit(pictures: np.ndarray) -> np.ndarray:
    """Pictures `[n …]` → what is left of each without its mean, of length one `[n d]`; zeros for an even one."""
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)


def _averages(size: int, start: float, end: float) -> np.ndarray:
    """A matrix `[size SMALL]` that averages what lies between `start` and 1 - `end` of an axis into `size` pixels."""
    edges = np.linspace(start * SMALL, (1 - end) * SMALL, size + 1)
    pixels = np.arange(SMALL)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shared = np.maximum(shared, 0)
    return (shared / shared.sum(1, keepdims=True)).astype(np.float32)


def _ones(bits: np.ndarray) -> np.ndarray:
    """How many bits are set in the last axis of unsigned 64-bit numbers."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(bits).sum(-1, dtype=np.uint32)
    return np.unpackbits(bits.view(np.uint8), axis=-1).sum(-1, dtype=np.uint32)  # numpy before 2
