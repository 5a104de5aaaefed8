"""samples → tensors     the data set that a training is fed from, and which of its files cannot be read.

What item i of epoch e holds depends on (seed, e, i) and on nothing else: not on the number of workers, the order of
reading, what was read before or which items are asked for together. Frames are decoded in the process that needs them.
Derived in chapter 02.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4d_lib.clips.batches import vary_many
from s4d_lib.clips.chances import CHANCES, chances_of, draw
from s4d_lib.clips.positions import positions_of_many, test_views
from s4d_lib.clips.recipes import AugmentRecipe
from s4d_lib.clips.variation import vary
from s4d_lib.datasets.samples import Sample, check_one_schema
from s4d_lib.errors import Refused
from s4d_lib.frames.cache import SHARED
from s4d_lib.frames.local_contrast import one_channel
from s4d_lib.frames.reader import UnreadableMedia, open_frames


class FaceDataset(Dataset):
    """Samples as tensors: {"x": float32, "label": int, "index": int}, all of one kind.

    An item is asked for by (epoch, index), or by index alone for epoch 0; a sampler that yields pairs gives
    every epoch its own crops. `x` is [3 h w] for stills and [3 t h w] for clips, with a leading axis of
    views for `sampling="test"` and of `replicate` independent variations of the same decoded frames when
    that is above 1.

    `batch` gives many items at once. `cache=True` keeps decoded files as bytes (a 20-frame 64 px clip takes
    250 kB; `frames/cache.py`) and varies all items of a batch together (`clips/batches.py`); it pays off with
    `num_workers=0`, or with persistent workers, each of which fills a cache of its own. Without it every file is
    decoded when it is asked for, as films that do not fit into memory must be. `contrast` reads every frame
    through `frames/local_contrast.py`.

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
        self._contrast = contrast
        if on_error == "drop":
            self._drop_unreadable()
        self.labels = torch.tensor([sample.label for sample in self.samples])
        self._places = np.full((len(self.samples), 3), -1)  # block, start, length of what the cache keeps

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
        item = self.batch([index], epoch)
        return {"x": item["x"][0], "label": self.samples[index].label, "index": index}

    def batch(self, indices: Sequence[int], epoch: int = 0) -> dict[str, Tensor]:
        """The items of these indices with a leading axis b: what `default_collate` would make of them."""
        asked = np.asarray(indices)
        if (wrong := (asked < 0) | (asked >= len(self))).any():
            raise IndexError(f"sample {asked[wrong][0]} of {len(self)}")
        chances = chances_of(self.seed, np.array(epoch), asked[:, None], np.arange(self.replicate), count=CHANCES + 1)
        if self._cache is None:
            x = torch.stack([self._decoded(index, chances[i]) for i, index in enumerate(asked.tolist())])
        else:
            x = self._kept(asked, chances)
        if self.kind == "image":
            x = x[:, :, :, 0]
        several = self.sampling == "test" or self.replicate > 1
        return {"x": x if several else x[:, 0], "label": self.labels[asked], "index": torch.from_numpy(asked)}

    def _decoded(self, index: int, chances: np.ndarray) -> Tensor:
        """`[views 3 t size size]` of a file that is decoded now; `chances` `[replicate CHANCES + 1]`."""
        with open_frames(self.samples[index].path) as reader:
            positions = self._positions(np.array([len(reader)]), chances[:1, CHANCES])[0]
            films = [self._prepared(reader.read(view)) for view in positions.tolist()]
        drawn = draw(self.recipe, *films[0].shape[1:3], self.size, chances[:, :CHANCES])
        films = [film.expand(-1, -1, -1, 3) for film in films]
        return torch.stack([vary(film, self.recipe, self.size, drawn, i) for film in films
                            for i in range(self.replicate)])

    def _kept(self, asked: np.ndarray, chances: np.ndarray) -> Tensor:
        """`[b views 3 t size size]` of files that the cache keeps, of one block of it after another."""
        blocks = self._blocks(asked)
        number, start, length = self._places[asked].T
        positions = start[:, None, None] + self._positions(length, chances[:, 0, CHANCES])
        views = positions.shape[1] * self.replicate
        found = []
        for one, frames in blocks.items():
            mine = number == one
            # Only one of the two is ever above 1: the views of a test, the replicas of a pretraining.
            clips = positions[mine].repeat(self.replicate, 1).reshape(-1, positions.shape[2])
            drawn = draw(self.recipe, *frames.shape[2:], self.size,
                         chances[mine].repeat(positions.shape[1], 1).reshape(len(clips), -1)[:, :CHANCES])
            found.append((mine, vary_many(frames, clips, self.recipe, self.size, drawn).unflatten(0, (-1, views))))
        if len(found) == 1:
            return found[0][1]
        x = torch.empty(len(asked), *found[0][1].shape[1:])
        for mine, part in found:
            x[torch.from_numpy(mine)] = part
        return x

    def _blocks(self, asked: np.ndarray) -> dict[int, Tensor]:
        """The blocks of the cache in which these samples lie; what it does not keep is decoded now."""
        held = {n: block for n in np.unique(self._places[asked, 0]).tolist()
                if (block := self._cache.block(n)) is not None}
        for index in np.unique(asked[~np.isin(self._places[asked, 0], list(held))]).tolist():
            path, how = self.samples[index].path, "local_contrast" if self._contrast else ""
            place = self._cache.find(path, how)
            if place is None:
                with open_frames(path) as reader:
                    place, block = self._cache.put(path, self._prepared(reader.read(range(len(reader)))), how)
            else:
                block = self._cache.block(place.block)
            held[place.block], self._places[index] = block, place
        return held

    def _prepared(self, frames: np.ndarray | Tensor) -> Tensor:
        """Frames uint8 `[t h w 3]`, or `[t h w 1]` where all channels are equal."""
        return one_channel(frames) if self._contrast else torch.as_tensor(frames)

    def _positions(self, n_frames: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """Frames of each view `[b views t]`, of files that are `n_frames` `[b]` long."""
        if self.kind == "image":
            return np.zeros((len(n_frames), 1, 1), int)
        if self.sampling == "test":
            views = {n: test_views(n, self.clip_frames, self.stride) for n in np.unique(n_frames).tolist()}
            return np.array([views[n] for n in n_frames.tolist()])
        return positions_of_many(self.sampling, n_frames, self.clip_frames, self.stride, chance)[:, None]


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
