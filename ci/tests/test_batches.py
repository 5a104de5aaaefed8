"""clips in memory, varied together: the same clips as one by one, from a table of chances that no order changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomErasing, RandomResizedCrop

from s4d_lib.clips import (
    EVAL,
    FLIPS,
    LIGHT,
    MOVES,
    PAPER_CLIP_PRETRAIN,
    PAPER_CLIP_TRAIN,
    PAPER_STILL_PRETRAIN,
    PAPER_STILL_TRAIN,
    AugmentRecipe,
    MixupCutmix,
    centre_indices,
    pretrain_indices,
    train_indices,
)
from s4d_lib.clips.batches import vary_many
from s4d_lib.clips.chances import CHANCES, chances_of, draw
from s4d_lib.clips.positions import positions_of_many
from s4d_lib.clips.variation import vary
from s4d_lib.datasets import face_dataset
from s4d_lib.datasets.face_dataset import FaceDataset
from s4d_lib.datasets.samples import Sample
from s4d_lib.frames.cache import FrameCache
from s4d_lib.frames.local_contrast import local_contrast, one_channel
from s4d_lib.frames.writer import write_mp4
from s4d_lib.training.plans import seed_torch

GREY_LEVEL = 1 / 255 / 0.224  # one of 255, normalised, at most
CHOOSING = {"eval": EVAL, "moves": MOVES, "flips": FLIPS, "far": AugmentRecipe(shift=0.4, flip=0.5),
            "window": AugmentRecipe(window=(0.2, 0.1, 0.8, 0.8), shift=0.1, flip=0.5),
            "black": replace(MOVES, erase=0.7, erase_mode="black"), "noise": replace(MOVES, erase=0.7)}
RESAMPLING = {"light": LIGHT, "clip_pretrain": PAPER_CLIP_PRETRAIN, "still_pretrain": PAPER_STILL_PRETRAIN,
              "window": AugmentRecipe(window=(0.0, 0.1, 0.7, 0.8), resize=1.0, flip=0.5),
              "far": replace(LIGHT, shift=0.3), "larger": AugmentRecipe(resize=1.2, interpolation="bicubic")}


def pictures(n=24, h=40, w=40, channels=3, seed=0) -> torch.Tensor:
    """Smooth frames `[n c h w]`, as photographs are: a byte of rounding stays a byte."""
    rough = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (n, channels, 7, 7)))
    return torch.nn.functional.interpolate(rough, (h, w), mode="bicubic").round().clamp(0, 255).to(torch.uint8)


def both(frames: torch.Tensor, recipe: AugmentRecipe, size: int, clips: int = 12, t: int = 3, seed: int = 0):
    """The same clips together and one by one."""
    numbers = np.random.default_rng(seed).integers(0, len(frames), (clips, t))
    drawn = draw(recipe, *frames.shape[2:], size, chances_of(seed, np.arange(clips)))
    alone = [vary(frames[torch.from_numpy(row)].permute(0, 2, 3, 1).expand(-1, -1, -1, 3), recipe, size, drawn, i)
             for i, row in enumerate(numbers)]
    return vary_many(frames, numbers, recipe, size, drawn), torch.stack(alone)


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("channels", [1, 3])
def test_where_nothing_is_resampled_clips_are_the_same_to_the_bit(name, channels):
    size = 32 if name == "window" else 40
    together, alone = both(pictures(channels=channels), CHOOSING[name], size)
    assert torch.equal(together, alone) and together.is_contiguous()


@pytest.mark.parametrize("name", RESAMPLING)
@pytest.mark.parametrize(("h", "w", "size"), [(40, 40, 24), (40, 56, 48), (30, 36, 64)])
def test_resampled_clips_differ_by_the_rounding_of_bytes(name, h, w, size):
    """torchvision rounds after each of its passes; ours once. At most three of 255, a third on average."""
    together, alone = both(pictures(h=h, w=w), RESAMPLING[name], size)
    difference = (together - alone).abs() / GREY_LEVEL
    assert difference.max() < 3.05 and difference.mean() < 0.34


def test_control_another_box_or_filter_is_seen():
    frames, numbers = pictures(), np.arange(6).reshape(2, 3)
    drawn = draw(LIGHT, 40, 40, 24, chances_of(1, np.arange(2)))
    right = vary_many(frames, numbers, LIGHT, 24, drawn)
    moved = replace(drawn, box=drawn.box + np.array([1, 0, 0, 0]))
    for wrong in (vary_many(frames, numbers, LIGHT, 24, moved),
                  vary_many(frames, numbers, replace(LIGHT, interpolation="bicubic"), 24, drawn)):
        assert ((right - wrong).abs() / GREY_LEVEL).max() > 6


@pytest.mark.parametrize("recipe", [PAPER_CLIP_TRAIN, PAPER_STILL_TRAIN], ids=["clips", "stills"])
def test_recipes_with_randaugment_go_one_by_one_and_are_the_same(recipe):
    together, alone = both(pictures(n=4, h=36, w=44), recipe, 32, clips=3)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("recipe", [*CHOOSING.values(), *RESAMPLING.values()], ids=[*CHOOSING, *RESAMPLING])
def test_all_frames_of_a_clip_share_what_was_drawn(recipe):
    recipe = replace(recipe, erase_mode="black")
    drawn = draw(recipe, 40, 40, 32, chances_of(3, np.arange(8)))
    x = vary_many(pictures(n=1), np.zeros((8, 4), int), recipe, 32, drawn)
    assert torch.equal(x, x[:, :, :1].expand_as(x))
    if recipe.flip or recipe.shift or recipe.crop_scale:
        assert not torch.equal(x[0], x[1]), "control: two clips do not"


# -------------------------------------------------------------------------------- chances


def test_chances_are_splitmix64():
    """Against whole numbers of Python, and the published first outputs for the state 1234567."""
    mask = 2**64 - 1

    def following(state: int) -> tuple[int, int]:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        return state, z ^ z >> 31

    known, state = [], 1234567
    for _ in range(3):
        state, value = following(state)
        known.append(value)
    assert known == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    _, key = following(5)
    for number in (2, 7):
        key = following((key + number * 0x9E3779B97F4A7C15) & mask)[1]
    expected = []
    for _ in range(4):
        key, value = following(key)
        expected.append((value >> 11) / 2**53)
    assert chances_of(5, np.array(2), np.array([7]), count=4)[0].tolist() == expected


def test_chances_are_even_and_know_nothing_of_their_neighbours():
    table = chances_of(0, np.arange(40)[:, None], np.arange(50))
    assert table.shape == (40, 50, CHANCES) and 0 <= table.min() and table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    for column in (0, 20, CHANCES - 1):  # of one number over clips, epochs and seeds
        assert stats.kstest(table[..., column].ravel(), "uniform").pvalue > 1e-3
    for a, b in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table[..., 1:], table[..., :-1]),
                 (table, chances_of(1, np.arange(40)[:, None], np.arange(50)))):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)
    assert len(np.unique(table)) == table.size
    np.testing.assert_array_equal(chances_of(0, np.array(7), np.array([3, 9])), table[7, [3, 9]])
    assert not np.array_equal(chances_of(2**63 - 1, np.array(0)), chances_of(2**62, np.array(0)))


def torchvision_boxes(kind: str, height: int, width: int, draws: int) -> np.ndarray:
    picture = torch.zeros(3, height, width)
    torch.manual_seed(0)
    if kind == "erase":
        return np.array([RandomErasing.get_params(picture, (0.02, 1 / 3), (0.3, 1 / 0.3), [0.0])[:4]
                         for _ in range(draws)])
    return np.array([RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)])


@pytest.mark.parametrize(("kind", "height", "width"), [("crop", 40, 40), ("crop", 48, 90), ("erase", 48, 48)])
def test_boxes_are_spread_as_torchvisions(kind, height, width):
    """Each number of a box, its area and its shape, by Kolmogorov and Smirnov; a narrower scale would be seen."""
    draws = 3000
    recipe = AugmentRecipe(crop_scale=(0.08, 1.0), erase=1.0)
    drawn = draw(recipe, height, width, 48, chances_of(2, np.arange(draws)))
    ours, theirs = drawn.hole if kind == "erase" else drawn.box, torchvision_boxes(kind, height, width, draws)

    def told(boxes: np.ndarray) -> list[np.ndarray]:
        top, left, h, w = boxes.T
        return [top, left, h, w, h * w, w / h, top + h, left + w]

    for a, b in zip(told(ours), told(theirs)):
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    narrow = draw(replace(recipe, crop_scale=(0.15, 1.0)), height, width, 48, chances_of(2, np.arange(draws))).box
    if kind == "crop":
        assert stats.ks_2samp(told(narrow)[4], told(theirs)[4]).pvalue < 1e-6, "control"


def test_a_crop_that_never_fits_is_the_largest_of_an_allowed_shape():
    drawn = draw(AugmentRecipe(crop_scale=(1.0, 1.0), crop_ratio=(3 / 4, 4 / 3)), 30, 300, 30, np.zeros((1, CHANCES)))
    assert drawn.box.tolist() == [[0, 130, 30, 40]]


def test_flips_moves_and_erasing_come_as_often_as_asked():
    drawn = draw(replace(MOVES, shift=0.1, flip=0.3, erase=0.25), 48, 48, 48, chances_of(4, np.arange(4000)))
    assert abs(drawn.flip.mean() - 0.3) < 0.03 and abs((drawn.hole[:, 2] > 0).mean() - 0.25) < 0.03
    moves, counts = np.unique(drawn.box[:, 0], return_counts=True)
    assert moves.tolist() == list(range(-5, 6)) and counts.min() > 0.8 * 4000 / 11


class Said:
    """A generator that gives the number in a share of its range."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def integers(self, low: int, high: int) -> int:
        return low + int(self.chance * (high - low))


@pytest.mark.parametrize(("clip_frames", "stride"), [(4, 2), (8, 1), (1, 3)])
def test_positions_of_many_films_are_those_of_each(clip_frames, stride):
    lengths = np.array([1, 2, 5, 7, 8, 9, 16, 17, 40, 41, 9, 100])
    for chance in (0.0, 0.3, 0.999):
        many = {rule: positions_of_many(rule, lengths, clip_frames, stride, np.full(len(lengths), chance)).tolist()
                for rule in ("train", "centre", "pretrain")}
        arguments = [(int(n), clip_frames, stride) for n in lengths]
        assert many["train"] == [train_indices(*one, Said(chance)) for one in arguments]
        assert many["pretrain"] == [pretrain_indices(*one, Said(chance)) for one in arguments]
        assert many["centre"] == [centre_indices(*one) for one in arguments]


# -------------------------------------------------------------------------------- faces in memory


LENGTHS = (23, 5, 12, 9, 30)


@pytest.fixture(scope="module")
def films(tmp_path_factory, numbered_frame) -> list[Sample]:
    """Five clips of numbered frames, 48 × 64."""
    root = tmp_path_factory.mktemp("films")
    for number, length in enumerate(LENGTHS):
        write_mp4(root / f"{number}.mp4", np.stack([numbered_frame(i) for i in range(length)]), fps=12.5)
    return [Sample(str(i), root / f"{i}.mp4", i % 3, "clip") for i in range(len(LENGTHS))]


@pytest.fixture
def cached(films, monkeypatch):
    """Make data sets of the films with a cache of their own."""
    def make(limit: float = 1e9, **changes) -> FaceDataset:
        monkeypatch.setattr(face_dataset, "SHARED", FrameCache(int(limit)))
        settings = {"recipe": EVAL, "size": 64, "clip_frames": 4, "stride": 2, "seed": 3, "cache": True} | changes
        return FaceDataset(films, **settings)

    return make


@pytest.mark.parametrize("sampling", ["train", "pretrain", "centre", "test"])
@pytest.mark.parametrize("contrast", [False, True])
def test_a_batch_from_memory_is_what_is_decoded(cached, sampling, contrast):
    """Resized only along the height of these clips, 48 to 64, so bytes are rounded once: one of 255."""
    changes = {"sampling": sampling, "contrast": contrast, "recipe": replace(EVAL, flip=0.5)}
    batch = cached(**changes).batch([4, 1, 1, 0], epoch=2)
    decoded = [cached(cache=False, **changes)[2, index]["x"] for index in (4, 1, 1, 0)]
    assert ((batch["x"] - torch.stack(decoded)).abs() / GREY_LEVEL).max() < 1.05
    assert batch["index"].tolist() == [4, 1, 1, 0] and torch.equal(batch["x"][1], batch["x"][2])


@pytest.mark.parametrize("recipe", [MOVES, LIGHT], ids=["choosing", "resampling"])
def test_neither_company_nor_order_changes_an_item(cached, recipe):
    dataset = cached(recipe=recipe, size=48)
    whole = dataset.batch(range(5), epoch=1)["x"]
    for order in ([3], [4, 0], [2, 1, 0, 4, 3]):
        torch.testing.assert_close(dataset.batch(order, epoch=1)["x"], whole[order], rtol=0, atol=GREY_LEVEL * 1.01)
        again = dataset.batch(order, epoch=1)["x"]
        assert torch.equal(again, dataset.batch(order, epoch=1)["x"]), "the same batch is the same to the bit"
    assert not torch.equal(whole, dataset.batch(range(5), epoch=0)["x"])


def test_replicas_are_varied_each_and_lie_together(cached):
    dataset = cached(recipe=LIGHT, size=48, sampling="pretrain", replicate=3)
    x = dataset.batch([2, 0])["x"]
    assert x.shape == (2, 3, 3, 4, 48, 48)
    assert torch.equal(x[0], dataset[2]["x"]) and not torch.equal(x[0, 0], x[0, 1])


def test_data_larger_than_its_memory_is_read_again_and_is_the_same(cached):
    roomy, poor = cached(size=48), cached(limit=150_000, size=48)
    cache = poor._cache
    for order in ([0, 1, 2, 3, 4], [4, 0, 3], [1, 1, 2]):
        assert torch.equal(poor.batch(order)["x"], roomy.batch(order)["x"])
        assert cache.used <= cache.limit
    assert 0 < len(cache.places) < 5 < cache.count, "control: not all of it fits"


def test_frames_of_other_sizes_meet_in_one_batch(cached, monkeypatch):
    """Two blocks of the cache, one batch: each clip is what it is alone."""
    dataset, read = cached(size=48, recipe=MOVES), face_dataset.open_frames

    class Cut:
        def __init__(self, path):
            with read(path) as reader:
                self.frames = reader.read(range(5))[:, :40, : 44 if path.stem == "2" else 64]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __len__(self):
            return len(self.frames)

        def read(self, positions):
            return self.frames[list(positions)]

    monkeypatch.setattr(face_dataset, "open_frames", Cut)
    together = dataset.batch([0, 1, 2, 3, 4])["x"]
    assert len({block.frames.shape[1:] for block in dataset._cache.blocks.values()}) == 2
    for i in range(5):
        torch.testing.assert_close(together[i], dataset[i]["x"], rtol=0, atol=GREY_LEVEL * 1.01)


def test_a_face_of_equal_channels_takes_a_third_of_the_memory(cached):
    plain, grey = cached(), cached(contrast=True)
    for dataset in (plain, grey):
        dataset.batch(range(5))
    assert plain._cache.used == 3 * grey._cache.used
    frames = torch.randint(0, 256, (2, 20, 20, 3), dtype=torch.uint8)
    assert torch.equal(local_contrast(frames), one_channel(frames).expand(-1, -1, -1, 3))


def test_local_contrast_against_windows_cut_by_hand():
    """Means over each pixel's own window, in float64; a value on the verge of two bytes may fall to either."""
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 13, 20, 3), dtype=np.uint8))

    def around(x: np.ndarray) -> np.ndarray:
        return np.array([[x[max(0, i - 4) : i + 5, max(0, j - 4) : j + 5].mean() for j in range(20)]
                         for i in range(13)])

    for frame, found in zip(frames.numpy(), one_channel(frames)[..., 0].numpy()):
        grey = frame.mean(-1) / 255
        high = grey - around(grey)
        expected = np.clip(40 * high / (around(np.sqrt(around(high**2))) + 0.03) + 128, 0, 255)
        assert np.abs(found - expected).max() < 0.5001


def test_a_block_that_a_validation_began_is_filled_by_training(cached):
    dataset = cached()
    with torch.inference_mode():
        dataset.batch([0])
    x = dataset.batch([1, 2, 3])["x"]
    assert len(dataset._cache.blocks) == 1 and not x.is_inference()


def test_a_cache_in_another_process_begins_empty_and_gives_no_number_twice(cached):
    import pickle

    dataset = cached()
    dataset.batch(range(5))
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy._cache.blocks and copy._cache.count == dataset._cache.count > 0
    assert torch.equal(copy.batch([3, 1])["x"], dataset.batch([3, 1])["x"])


# -------------------------------------------------------------------------------- the step


def test_seeding_gives_the_numbers_of_manual_seed():
    torch.manual_seed(11)
    expected = torch.rand(3)
    seed_torch(11)
    assert torch.equal(torch.rand(3), expected)


def test_where_nothing_is_mixed_the_batch_is_handed_back():
    x, labels = torch.rand(5, 3, 2, 4, 4), torch.arange(5)
    mixed, targets = MixupCutmix(5, mixup=0.0, cutmix=0.0, smoothing=0.1)(x, labels, np.random.default_rng(0))
    assert mixed is x
    torch.testing.assert_close(targets, torch.full((5, 5), 0.02) + 0.9 * torch.eye(5))
