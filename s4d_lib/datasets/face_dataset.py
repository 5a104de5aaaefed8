"""samples → tensors     the data set that a training is fed from, and which of its files cannot be read.

What item i of epoch e holds depends on (seed, e, i) and on nothing else: not on the number of workers, the order of
reading or what was read before. Frames are decoded in the process that needs them. Derived in chapter 02.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4d_lib.clips import AugmentRecipe, augment, centre_indices, pretrain_indices, test_views, train_indices
from s4d_lib.datasets.samples import Sample, check_one_schema
from s4d_lib.errors import Refused
from s4d_lib.frames.cache import SHARED
from s4d_lib.frames.local_contrast import local_contrast
from s4d_lib.frames.reader import UnreadableMedia, open_frames


class FaceDataset(Dataset):
    """Samples as tensors: {"x": float32, "label": int, "index": int}, all of one kind.

    An item is asked for by (epoch, index), or by index alone for epoch 0; a sampler that yields pairs gives
    every epoch its own crops. `x` is [3 h w] for stills and [3 t h w] for clips, with a leading axis of
    views for `sampling="test"` and of `replicate` independent variations of the same decoded frames when
    that is above 1.

    `cache=True` keeps decoded files as bytes (a 20-frame 64 px clip takes 250 kB; `frames/cache.py`). It pays
    off with `num_workers=0`, or with persistent workers, each of which fills a cache of its own. `contrast`
    reads every frame through `frames/local_contrast.py`.

    A file that cannot be read raises UnreadableMedia with its path; `on_error="drop"` reads every file once at
    the start, warns, leaves the unreadable ones out and lists them in `.unreadable`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        recipe: AugmentRecipe,
        size: int,
        clip_frames: int = 16,
        stride: int = 4,
        sampling: Literal["train", "pretrain", "centre", "test"] = "train",
        seed: int = 0,
        replicate: int = 1,
        cache: bool = False,
        on_error: Literal["raise", "drop"] = "raise",
        contrast: bool = False,
    ):
        kinds = sorted({sample.kind for sample in samples})
        if len(kinds) != 1:
            raise Refused(f"a FaceDataset holds stills or clips and at least one, got {kinds}")
        # Pretraining looks at no label, so it may read labelled and unlabelled clips together.
        self.schema = None if sampling == "pretrain" else check_one_schema(samples)
        if sampling not in ("train", "pretrain", "centre", "test"):
            raise ValueError(f"sampling must be 'train', 'pretrain', 'centre' or 'test', got {sampling!r}")
        if on_error not in ("raise", "drop"):
            raise ValueError(f"on_error must be 'raise' or 'drop', got {on_error!r}")
        if replicate < 1 or (replicate > 1 and sampling == "test"):
            raise Refused(f"replicate must be at least 1, and 1 for test views; got {replicate}")
        self.samples, self.kind, self.unreadable = list(samples), kinds[0], []
        self.recipe, self.size, self.clip_frames, self.stride = recipe, size, clip_frames, stride
        self.sampling, self.seed, self.replicate = sampling, seed, replicate
        self._cache = SHARED if cache else None
        self._prepare = local_contrast if contrast else torch.as_tensor
        if on_error == "drop":
            self._drop_unreadable()

    def _drop_unreadable(self) -> None:
        self.unreadable = find_unreadable(self.samples)
        bad = {error.path for error in self.unreadable}
        if bad:
            self.samples = [sample for sample in self.samples if sample.path not in bad]
            if not self.samples:
                raise self.unreadable[0]
            listed = "\n  ".join(map(str, self.unreadable))
            warnings.warn(f"{len(bad)} unreadable files left out:\n  {listed}", stacklevel=3)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, epoch, index])
        views = self._views(index, rng)
        clips = [augment(view, self.recipe, self.size, rng) for view in views for _ in range(self.replicate)]
        if self.kind == "image":
            clips = [clip[:, 0] for clip in clips]
        several = self.sampling == "test" or self.replicate > 1
        x = torch.stack(clips) if several else clips[0]
        return {"x": x, "label": self.samples[index].label, "index": index}

    def _views(self, index: int, rng: np.random.Generator) -> list[Tensor]:
        """The chosen frames uint8 [t h w 3] of each view; one view unless sampling is "test"."""
        path = self.samples[index].path
        prepare = self._prepare
        if self._cache is None or (frames := self._cache.get(path, prepare.__name__)) is None:
            with open_frames(path) as reader:
                if self._cache is None:
                    return [prepare(reader.read(positions)) for positions in self._positions(len(reader), rng)]
                self._cache.put(path, frames := prepare(reader.read(range(len(reader)))), prepare.__name__)
        return [frames[positions] for positions in self._positions(len(frames), rng)]

    def _positions(self, n_frames: int, rng: np.random.Generator) -> list[list[int]]:
        if self.kind == "image":
            return [[0]]
        if self.sampling == "test":
            return test_views(n_frames, self.clip_frames, self.stride)
        if self.sampling == "centre":
            return [centre_indices(n_frames, self.clip_frames, self.stride)]
        choose = train_indices if self.sampling == "train" else pretrain_indices
        return [choose(n_frames, self.clip_frames, self.stride, rng)]


def find_unreadable(samples: Iterable[Sample], progress: bool = True) -> list[UnreadableMedia]:
    """Read every frame of every sample once and list the errors; costs an epoch of full decoding."""
    from tqdm import tqdm

    found = []
    for sample in tqdm(samples, desc="reading", unit="file", disable=not progress):
        try:
            with open_frames(sample.path) as reader:
                reader.check()
        except UnreadableMedia as error:
            found.append(error)
    return found
