"""cell, method → run     the transfer laboratory: which faces, which training, hundreds of small runs, one record.

A `Cell` holds the dials of an experiment on transfer from stills to clips; a method says how the two tasks are trained.
`config` makes one fine-tuning of them, `run_lab` trains many, `lab_record` keeps what every run said about every test
clip, so that each published interval can be computed again. The plan is chapters/results/protocol_transfer.yaml.
Derived in chapter 08.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.files import RESULTS, write_atomically
from s4d_lib.floors import floors
from s4d_lib.metrics import Scores
from s4d_lib.records import Record, code_state, device_state, peak_memory_mb
from s4d_lib.runs import SHIPPED, Run, read_samples
from s4d_lib.stages import FinetuneConfig, training_split
from s4d_lib.studies import run_grid

if TYPE_CHECKING:
    from s4d_lib.synthetic_faces import FaceRecipe

PROTOCOL = RESULTS / "protocol_transfer.yaml"
ENCODER = SHIPPED.with_name("nano_dual_modal_mae.safetensors")


@dataclass(frozen=True)
class Cell:
    """The dials. Defaults are the centre: where the book's other studies stand."""

    clips: int = 400          # labelled clips
    sequence: float = 0.35    # share of clips whose label needs the order of frames
    init: str = "shipped"     # "shipped": the laboratory's pretrained encoder; "random"
    ratio: float = 1          # still steps a clip step
    noise: str = "default"    # of still labels: "none", "default" (5 % noise, 15 % look-alikes), "heavy" (40, 40)
    shift: str = "photos"     # stills: "photos" (another camera than the clips'), "none" (the clips' camera)
    weight: float = 1.0       # of the loss of stills
    schema: str = "same"      # stills: "same" seven classes as the clips, "merged" four coarse ones, "split" eleven
    size: str = "nano"        # of the network: "nano_narrow", "nano", "nano_wide" (random weights only)

    def __post_init__(self) -> None:
        for name, known in (("init", ("shipped", "random")), ("noise", tuple(NOISE)), ("shift", ("photos", "none")),
                            ("schema", ("same", "merged", "split"))):
            if getattr(self, name) not in known:
                raise Refused(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.size != "nano" and self.init == "shipped":
            raise Refused(f"size={self.size!r} has no pretrained encoder: say init='random'")

    @property
    def name(self) -> str:
        """The dials that differ from the centre, such as "clips=1600 ratio=4"."""
        turned = [f"{f.name}={getattr(self, f.name):g}" if isinstance(getattr(self, f.name), (int, float))
                  else f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return " ".join(turned) or "centre"


NOISE = {"none": (0.0, 0.0), "default": (0.05, 0.15), "heavy": (0.4, 0.4)}  # label noise, look-alikes

_EXPERTS: dict[str, Any] = {"mode": "moae", "experts": 4, "top_k": 2, "capacity_factor": 1.5}
_PAIRED = ("sum", "uncertainty", "famo", "pcgrad", "cagrad", "upgrad")
# method → what it changes in a fine-tuning of both tasks; "longer" multiplies its length
METHODS: dict[str, dict[str, Any]] = {
    "dfer": {"mode": "dfer"},                                    # clips alone, the same clip steps
    "sfer": {"mode": "sfer"},                                    # stills alone, as many steps as clips have
    "joint": {"mode": "joint"},                                  # vanilla: one network, two heads
    "moae_clean": _EXPERTS,
    "moae_reference": _EXPERTS | {"behaviour": "reference"},
    "moae_dfer": _EXPERTS | {"mode": "dfer", "moae_blocks": (2, 3)},  # capacity on clips alone
    "joint_wide": _EXPERTS | {"router": "uniform"},              # every expert for every token: capacity, no choice
    "adapters": _EXPERTS | {"router": "task", "experts": 2, "top_k": 1},
    "joint_separate": {"mode": "joint", "optimizer_states": "separate"},
    "joint_light": {"mode": "joint", "still_weight": 0.1},  # two cheap answers to harm (transfer_harm): little weight,
    "joint_clipped": {"mode": "joint", "clip_norm": 1.0},   # or clipping where nothing else is clipped
    "random_labels": {"mode": "joint", "still_labels": "random"},
    "shuffled_images": {"mode": "joint", "shuffle_stills": True},
    "balanced": {"mode": "joint", "balance": ("image", "clip")},
    "dfer_balanced": {"mode": "dfer", "balance": ("clip",)},
} | {f"paired_{name}": {"mode": "joint", "remedy": name} for name in _PAIRED}
CLASSES = ("Happiness", "Sadness", "Neutral", "Anger", "Surprise", "Disgust", "Fear")
METHODS |= {f"without_{name.lower()}": {"mode": "joint", "leave_out": name} for name in CLASSES}
# the mixture with one thing changed (chapter 09)
ABLATIONS: dict[str, dict[str, Any]] = {
    "no_noise": {"router": "quiet"}, "frozen_router": {"router": "frozen"}, "no_balance": {"balance_coeff": 0.0},
    "strong_balance": {"balance_coeff": 0.1}, "no_capacity_limit": {"capacity_factor": 100.0},
    "tight_capacity": {"capacity_factor": 0.5},
    "experts_1": {"experts": 1, "top_k": 1}, "experts_2": {"experts": 2}, "experts_8": {"experts": 8},
    "experts_16": {"experts": 16}, "top_1": {"top_k": 1}, "top_3": {"top_k": 3}, "top_4": {"top_k": 4},
    "blocks_first": {"moae_blocks": (0, 1)}, "blocks_last": {"moae_blocks": (3,)},
    "blocks_all": {"moae_blocks": (0, 1, 2, 3)},
    "loud_experts": {"expert_spread": 0.077},  # a fresh expert answers as loudly as at the paper's width (chapter 09)
}
METHODS |= {name: _EXPERTS | change for name, change in ABLATIONS.items()}
LENGTHS = (1.5, 2, 3, 5, 10)  # of clips alone, in units
METHODS |= {f"dfer_x{length:g}": {"mode": "dfer", "longer": length} for length in LENGTHS}
METHODS |= {f"{name}_x10": METHODS[name] | {"longer": 10} for name in ("joint", "joint_wide", "moae_clean")}
STILL_COST = 0.5  # of a clip step: 32 stills of 16 tokens beside 16 clips of 64; the record's seconds check it


def as_long(cell: Cell) -> str:
    """Clips alone for as long as the cell's joint run takes in compute, a name in METHODS."""
    return f"dfer_x{1 + STILL_COST * cell.ratio:g}"


def alone(cell: Cell) -> Cell:
    """The cell as clips alone see it: the dials of the stills back at the centre, so that equal runs are run once."""
    return Cell(clips=cell.clips, sequence=cell.sequence, init=cell.init, size=cell.size)


@dataclass(frozen=True)
class Scale:
    """What a tier spends on the laboratory. `unit` = clip steps of one length of training."""

    clips: int              # drawn; a fifth are test clips
    stills: int             # drawn; a fifth are test stills
    epoch: int              # clip steps between two validations
    epochs: int
    batch_clips: int = 16
    batch_stills: int = 32
    seeds: dict[str, int] = field(default_factory=lambda: {"explore": 21, "confirm": 22})  # of the drawn faces

    @property
    def unit(self) -> int:
        return self.epoch * self.epochs


SCALES = {"smoke": Scale(300, 300, 10, 4), "laptop": Scale(4000, 6000, 30, 8),
          "full": Scale(20_000, 30_000, 150, 16)}


def data_folders(cell: Cell, tier: str, phase: str = "explore") -> dict[str, str]:
    """Folders of the cell's stills and clips, drawn now where they are missing. Phases share no face."""
    from s4d_lib.face_files import write_faces
    from s4d_lib.files import data_root

    scale, seed = SCALES[tier], SCALES[tier].seeds[phase]
    # A folder belongs to the dials that shape it: the others stand at the centre.
    recipes = {"stills": faces(Cell(noise=cell.noise, shift=cell.shift)), "clips": faces(Cell(sequence=cell.sequence))}
    stills = data_root() / f"lab-stills-{cell.noise}-{cell.shift}-{scale.stills}-seed{seed}"
    clips = data_root() / f"lab-clips-{cell.sequence:g}-{scale.clips}-seed{seed}"
    write_faces(stills, replace(recipes["stills"], name=f"lab, {cell.noise} noise, {cell.shift} shift"), scale.stills,
                0, seed, frames=("mp4",))
    write_faces(clips, replace(recipes["clips"], name=f"lab, sequence {cell.sequence:g}"), 0, scale.clips, seed,
                frames=("mp4",))
    folders = {"stills": str(stills / "stills"), "clips": str(clips / "clips")}
    if cell.schema == "split":
        folders |= {"stills": str(split_classes(stills / "stills")), "stills_as": "table", "stills_schema": "fine11"}
    return folders


SPLIT = {"Happiness": ("Smile", "Laughter"), "Sadness": ("Sadness", "Grief"), "Surprise": ("Surprise", "Shock"),
         "Anger": ("Annoyance", "Anger")}  # the weaker and the stronger half


def split_classes(stills: Path) -> Path:
    """A table beside drawn stills under eleven classes (schema `fine11`): the folder that it lies in.

    Weak is below the median, over the stills with the same label, of the sum of all drawn action units: another
    laboratory's idea of the same faces. Written once.
    """
    folder = stills / "Manually_Annotated_Images"
    if (folder / "labels.csv").exists():
        return folder
    with np.load(stills / "truth.npz") as truth:
        strength, names = truth["action_units"].sum(1), truth["emotion_names"][truth["labels"]]
        ids, people = truth["ids"].tolist(), truth["identities"].tolist()
    median = {name: np.median(strength[names == name]) for name in np.unique(names)}
    fine = [SPLIT.get(name, (name, name))[int(s >= median[name])] for name, s in zip(names.tolist(), strength)]
    tested = {line.rsplit(" ", 1)[0] for line in (stills / "test_affectnet7.txt").read_text().splitlines()}
    rows = [f"{id},{label},{'test' if id in tested else 'train'},{who}" for id, label, who in zip(ids, fine, people)]
    write_atomically(folder / "labels.csv", "\n".join(["path,label,split,subject", *rows, ""]))
    return folder


def faces(cell: Cell) -> FaceRecipe:
    """How the cell's faces are drawn: clips as tight, aligned crops; stills so too, or looser and partly in grey."""
    from s4d_lib.synthetic_faces import RECIPES

    easy, default = RECIPES["easy"], RECIPES["default"]
    noise, look_alikes = NOISE[cell.noise]
    return replace(
        default, name="lab", size=48,
        still=replace(default.still, label_noise=noise, look_alikes=look_alikes,
                      view=default.still.view if cell.shift == "photos" else easy.clip.view),
        clip=replace(default.clip, sequence=cell.sequence, view=easy.clip.view, frames=(16, 20)))


# How faces are read and varied: without light and colour, because a network this small in a training this short does
# not learn to ignore them (22.6 against 43.0 WAR in the pilot that the protocol lists).
READING: dict[str, Any] = {"local_contrast": True, "augment_stills": "MOVES", "augment_clips": "MOVES"}
LEARNING_RATE = 3e-3  # of every method before tuning; from the prototypes


def config(cell: Cell, method: str, seed: int, tier: str = "laptop", phase: str = "explore",
           **changes: Any) -> FinetuneConfig:
    """One run. Its seed sets the weights, the order of steps and which clips are labelled."""
    from s4d_lib.tiers import FINETUNE

    if method not in METHODS:
        raise Refused(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    scale, change = SCALES[tier], dict(METHODS[method])
    epochs = round(scale.epochs * change.pop("longer", 1))
    wanted = FINETUNE["laptop"] | READING | {
        "size": cell.size, "init": str(ENCODER) if cell.init == "shipped" else None, "epochs": epochs,
        "warmup_epochs": epochs / 10, "validate_every": 1, "clip_steps": scale.epoch, "still_ratio": cell.ratio,
        "still_weight": cell.weight, "still_labels": "merged" if cell.schema == "merged" else "listed",
        "batch_clips": scale.batch_clips, "batch_stills": scale.batch_stills, "train_clips": cell.clips,
        "lr": LEARNING_RATE, "seed": seed, "split_seed": seed,
    } | change | data_folders(cell, tier, phase) | changes
    return FinetuneConfig(name=f"lab_{method}", tier=tier, **wanted)


def run_lab(wanted: Iterable[tuple[Cell, str, int]], tier: str = "laptop", phase: str = "explore", jobs: int = 2,
            root: Path | None = None, **changes: Any) -> dict[tuple[Cell, str, int], Run]:
    """Train or load (cell, method, seed) runs, `jobs` one-thread processes at a time; what finished stays on disk."""
    wanted = list(dict.fromkeys(wanted))
    configs = {f"{number}": config(cell, method, seed, tier, phase, **changes)
               for number, (cell, method, seed) in enumerate(wanted)}
    found = run_grid(configs, None, jobs, root)
    return {one: found[f"{number}"][0] for number, one in enumerate(wanted)}


def lab_floors(cell: Cell, tier: str, phase: str, seed: int) -> dict[str, Scores]:
    """Majority, pixel ridge and random encoder on the samples of one seed of a cell."""
    wanted = config(cell, "dfer", seed, tier, phase)
    train, validation = training_split(wanted, "clip", read_samples(wanted, "clip", "train"))
    split = {"train": train, "validation": validation, "test": read_samples(wanted, "clip", "test")}
    return floors(split, wanted.schema("clip").classes, wanted.size, wanted.stride)


def plan(part: str) -> dict:
    """The part of the committed protocol that a study follows, with its version."""
    import yaml

    text = yaml.safe_load(PROTOCOL.read_text())
    return {"version": text["version"], "file": f"chapters/results/{PROTOCOL.name}", part: text[part]}


# --- one record for many runs --------------------------------------------------------------------------------------


def lab_record(name: str, headline: str, runs: dict[tuple[Cell, str, int], Run], protocol: dict, tier: str = "laptop",
               phase: str = "explore", **more: Any) -> Record:
    """What every run said about every test clip, by cell and method; `answers` and `test_of` read it."""
    cells: dict[str, dict] = {}
    commits = sorted({str(run.record.code["commit"]) for run in runs.values()})  # that the runs were trained under
    tests: dict[str, dict] = {}
    for (cell, method, _), run in runs.items():
        test = f"sequence={cell.sequence:g}"
        entry = cells.setdefault(cell.name, {"factors": asdict(cell), "test": test, "methods": {}})
        row = entry["methods"].setdefault(method, {})
        for key, value in _row(run).items():
            row.setdefault(key, []).append(value)
        if test not in tests and "test_clip" in run.record.results:
            tests[test] = _test(run, Path(data_folders(cell, tier, phase)["clips"]))
    data = {repr(use): use for run in runs.values() for use in run.record.data}  # every set that some run has read
    return Record(
        name=name, kind="study", headline=headline, tier=tier, protocol=protocol, data=list(data.values()),
        config={f"{cell.name}: {method}": run.record.config for (cell, method, _), run in runs.items()},
        results={"tests": tests, "cells": cells, "commits": commits, **more},
        seeds=sorted({seed for _, _, seed in runs}),
        code=code_state(), device=device_state(), wall_seconds=sum(r.record.wall_seconds for r in runs.values()),
        peak_memory_mb=max([peak_memory_mb()] + [r.record.peak_memory_mb for r in runs.values()]))


def _row(run: Run) -> dict[str, Any]:
    found, history = run.record.results, run.record.results["history"]
    row: dict[str, Any] = {"seeds": run.record.seeds[0], "updates": found["updates"],
                           "seconds": round(run.record.wall_seconds, 1), "chosen_epoch": found["chosen_epoch"]}
    saved = np.load(run.folder / "predictions.npz")
    for modality, prefix in (("clip", ""), ("image", "image_")):
        if f"test_{modality}" in found:
            row |= {f"{prefix}{metric}": found[f"test_{modality}"][metric]["value"] for metric in ("war", "uar")}
            row[f"{prefix}recall"] = [round(100 * c, 2) for c in _recall(saved, modality)]
            row[f"{prefix}validation_curve"] = [round(line[f"{modality}_war"], 2) for line in history]
    if "test_clip" in found:
        row["validation_war"] = max(row["validation_curve"])
        predicted = saved["clip_probabilities"].argmax(1).astype(np.uint8)
        row["answers"] = base64.b64encode(predicted.tobytes()).decode()
    return row


def _recall(saved: Any, modality: str) -> list[float]:
    predicted, labels = saved[f"{modality}_probabilities"].argmax(1), saved[f"{modality}_labels"]
    return [float((predicted[labels == c] == c).mean()) if (labels == c).any() else 0.0
            for c in range(saved[f"{modality}_probabilities"].shape[1])]


def _test(run: Run, folder: Path) -> dict[str, Any]:
    """The test clips of a drawn set, with what the truth beside them knows."""
    saved = np.load(run.folder / "predictions.npz")
    with np.load(folder / "truth.npz") as truth:
        kind = dict(zip(truth["ids"].tolist(), truth["kind_names"][truth["kinds"]].tolist()))
    return {"labels": saved["clip_labels"].tolist(), "classes": list(CLASSES),
            "people": np.unique(saved["clip_people"], return_inverse=True)[1].tolist(),
            "order_dependent": [int(kind[id] == "sequence") for id in saved["clip_ids"].tolist()]}


def answers(record: Record, cell: str, method: str) -> np.ndarray:
    """The class each seed's run predicted for every test clip, int64 `[seeds clips]`."""
    coded: Sequence[str] = record.results["cells"][cell]["methods"][method]["answers"]
    return np.stack([np.frombuffer(base64.b64decode(one), np.uint8) for one in coded]).astype(np.int64)


def test_of(record: Record, cell: str) -> dict[str, np.ndarray]:
    """`labels`, `people` and `order_dependent` of the cell's test clips, each `[clips]`."""
    test = record.results["tests"][record.results["cells"][cell]["test"]]
    return {key: np.array(test[key]) for key in ("labels", "people", "order_dependent") if key in test}
