"""How many copies the doctor finds, and how often it takes two people for one: what datasets/doctor/prints.py rests on.

    python ci/benchmarks/copies.py [--people 1000] [--size 64] [--recipe default] [--seed 100]

Every drawn still is another person. Copies of each: encoded again as JPEG of 60 to 95, resized to 0.5 to 1.5, cropped
by 5 %, mirrored, without colour, and all of it. Two people count as a false pair as they are drawn, where one of the
two is grey, and where one is a picture and the other a clip that shows its face in one of three frames. Bounds were
chosen on the people of seed 7; another seed is other people.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from s4d_lib.datasets.doctor.prints import Print, near_pairs, print_of
from s4d_lib.synthetic_faces import RECIPES, make_clips, make_stills


def encoded(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(rng.integers(60, 96)))
    return Image.open(file).convert("RGB")


def resized(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.5, 1.5)
    return picture.resize([round(edge * scale) for edge in picture.size], Image.Resampling.BICUBIC)


def cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 % of both edges gone, divided between the two sides by chance."""
    (width, height), (left, top) = picture.size, rng.uniform(0, 0.05, 2)
    return picture.crop([round(v) for v in (width * left, height * top, width * (left + 0.95), height * (top + 0.95))])


def cropped_on_every_side(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = picture.size
    return picture.crop([round(v) for v in (0.05 * width, 0.05 * height, 0.95 * width, 0.95 * height)])


def mirrored(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return encoded(ImageOps.mirror(picture), rng)


def everything(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return encoded(resized(cropped(picture, rng), rng), rng)


def grey(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return encoded(picture.convert("L").convert("RGB"), rng)


def everything_grey(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return everything(picture.convert("L").convert("RGB"), rng)


def everything_mirrored(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return everything(ImageOps.mirror(picture), rng)


COPIES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    one.__name__: one for one in (encoded, resized, cropped, cropped_on_every_side, mirrored, everything,
                                  everything_mirrored, grey, everything_grey)}


def printed(*pictures: Image.Image) -> Print:
    return print_of([np.asarray(picture) for picture in pictures], len(pictures), near=True)


def in_clips(people: int, size: int, recipe: str, seed: int, stills: list[Print]) -> tuple[float, int, int]:
    """(share found of the frames of clips that were saved as pictures, false pairs with `stills`, pairs): each person
    of a clip is another one, of none of the stills.
    """
    rng = np.random.default_rng(seed)
    clips = make_clips(replace(RECIPES[recipe], size=size), people, seed + 1)
    shown = [[Image.fromarray(clip[k].numpy()) for k in (0, (len(clip) - 1) // 2, len(clip) - 1)]
             for clip in clips.frames]
    films = [printed(*three) for three in shown]
    saved = [printed(everything(three[i % 3], rng)) for i, three in enumerate(shown)]
    pairs = near_pairs(films + saved, lambda a, b: (a < people)[:, None] != (b < people))
    found = sum(b - a == people for a, b, _ in pairs) / people
    false = sum(1 for _ in near_pairs(films + stills, lambda a, b: (a < people)[:, None] != (b < people)))
    return found, false, people * len(stills)


def measure(people: int, size: int = 64, recipe: str = "default", seed: int = 100
            ) -> tuple[dict[str, float], dict[str, tuple[int, int]]]:
    """(share of the copies found by kind, (false pairs, pairs of different people) by what is compared)."""
    rng = np.random.default_rng(seed)
    stills = make_stills(replace(RECIPES[recipe], size=size), people, seed)
    assert len(set(stills.identities.tolist())) == people, "every still is another person"
    pictures = [Image.fromarray(frame.numpy()) for frame in stills.frames]
    prints = [printed(picture) for picture in pictures]
    false = {"as drawn": (sum(1 for _ in near_pairs(prints, lambda a, b: np.ones((len(a), len(b)), bool))),
                          people * (people - 1) // 2)}
    both = prints + [printed(grey(picture, rng)) for picture in pictures]
    one_grey = near_pairs(both, lambda a, b: ((a < people)[:, None] != (b < people)) & (
        (a % people)[:, None] != b % people))
    false["one of two grey"] = sum(1 for _ in one_grey), people * (people - 1)
    found = {}
    for name, copy in COPIES.items():
        both = prints + [printed(copy(picture, rng)) for picture in pictures]
        pairs = near_pairs(both, lambda a, b: (a < people)[:, None] != (b < people))
        found[name] = sum(b - a == people for a, b, _ in pairs) / people
    found["frame of a clip"], *false["a picture and a clip"] = in_clips(max(people // 5, 3), size, recipe, seed, prints)
    return found, {name: tuple(counted) for name, counted in false.items()}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--people", type=int, default=1000)
    words.add_argument("--size", type=int, default=64)
    words.add_argument("--recipe", default="default", choices=sorted(RECIPES))
    words.add_argument("--seed", type=int, default=100)
    given, began = words.parse_args(), time.perf_counter()
    found, false = measure(given.people, given.size, given.recipe, given.seed)
    for name, share in found.items():
        print(f"{name:22} {share:7.2%} found")
    for name, (wrong, pairs) in false.items():
        print(f"{name:22} {wrong} false pairs of {pairs:,}: {1e4 * wrong / pairs:.2f} in 10,000")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
