"""dials, method → config     the vocabulary of the transfer laboratory: which faces, which training, how long.

A `Cell` holds the dials of an experiment on transfer from stills to clips, a `Method` what it changes in a fine-tuning
of both tasks; `run_config` makes one fine-tuning of them, on faces that are drawn where they are missing. The plan is
chapters/results/protocol_transfer.yaml. Derived in chapter 08.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from s4d_lib.errors import Refused
from s4d_lib.files import write_atomically
from s4d_lib.training.configs import FinetuneConfig, Modality
from s4d_lib.weights.files import SHIPPED

if TYPE_CHECKING:
    from s4d_lib.synthetic_faces.recipes import FaceRecipe



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


# --- methods -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method changes in a fine-tuning of both tasks: settings of `FinetuneConfig`; None leaves one as it is.

    A wrong name is a TypeError where the method is written; a value is checked when its first configuration is made.
    """

    mode: Literal["sfer", "dfer", "joint", "moae"]
    longer: float = 1  # multiplies the length of the training, and is no setting
    # the mixture
    experts: int | None = None
    top_k: int | None = None
    capacity_factor: float | None = None
    behaviour: Literal["clean", "reference"] | None = None
    router: Literal["learned", "quiet", "frozen", "task", "uniform"] | None = None
    moae_blocks: tuple[int, ...] | None = None
    balance_coeff: float | None = None
    expert_spread: float | None = None
    # how two tasks share a step
    optimizer_states: Literal["shared", "separate"] | None = None
    still_weight: float | None = None
    clip_norm: float | None = None
    remedy: str | None = None
    # which samples are seen, and under which labels
    still_labels: Literal["listed", "merged", "random"] | None = None
    shuffle_stills: bool | None = None
    leave_out: str | None = None
    balance: tuple[Modality, ...] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings of a `FinetuneConfig` that the method names, `longer` left out."""
        named = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "longer"}
        return {name: value for name, value in named.items() if value is not None}


CLASSES = ("Happiness", "Sadness", "Neutral", "Anger", "Surprise", "Disgust", "Fear")
LENGTHS = (1.5, 2, 3, 5, 10)  # of clips alone, in units
_JOINT = Method(mode="joint")
_EXPERTS = Method(mode="moae", experts=4, top_k=2, capacity_factor=1.5)
_WIDE = replace(_EXPERTS, router="uniform")  # every expert for every token: capacity, no choice
_PAIRED = ("sum", "uncertainty", "famo", "pcgrad", "cagrad", "upgrad")
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
METHODS: Mapping[str, Method] = {
    "dfer": Method(mode="dfer"),  # clips alone, the same clip steps
    "sfer": Method(mode="sfer"),  # stills alone, as many steps as clips have
    "joint": _JOINT,              # vanilla: one network, two heads
    "moae_clean": _EXPERTS,
    "moae_reference": replace(_EXPERTS, behaviour="reference"),
    "moae_dfer": replace(_EXPERTS, mode="dfer", moae_blocks=(2, 3)),  # capacity on clips alone
    "joint_wide": _WIDE,
    "adapters": replace(_EXPERTS, router="task", experts=2, top_k=1),
    "joint_separate": replace(_JOINT, optimizer_states="separate"),
    "joint_light": replace(_JOINT, still_weight=0.1),  # two cheap answers to harm (transfer_harm): little weight,
    "joint_clipped": replace(_JOINT, clip_norm=1.0),   # or clipping where nothing else is clipped
    "random_labels": replace(_JOINT, still_labels="random"),
    "shuffled_images": replace(_JOINT, shuffle_stills=True),
    "balanced": replace(_JOINT, balance=("image", "clip")),
    "dfer_balanced": Method(mode="dfer", balance=("clip",)),
    **{f"paired_{name}": replace(_JOINT, remedy=name) for name in _PAIRED},
    **{f"without_{name.lower()}": replace(_JOINT, leave_out=name) for name in CLASSES},
    **{name: replace(_EXPERTS, **change) for name, change in ABLATIONS.items()},
    **{f"dfer_x{length:g}": Method(mode="dfer", longer=length) for length in LENGTHS},
    "joint_x10": replace(_JOINT, longer=10),
    "joint_wide_x10": replace(_WIDE, longer=10),
    "moae_clean_x10": replace(_EXPERTS, longer=10),
}
STILL_COST = 0.5  # of a clip step: 32 stills of 16 tokens beside 16 clips of 64; the record's seconds check it


def as_long(cell: Cell) -> str:
    """Clips alone for as long as the cell's joint run takes in compute, a name in METHODS."""
    return f"dfer_x{1 + STILL_COST * cell.ratio:g}"


def alone(cell: Cell) -> Cell:
    """The cell as clips alone see it: the dials of the stills back at the centre, so that equal runs are run once."""
    return Cell(clips=cell.clips, sequence=cell.sequence, init=cell.init, size=cell.size)


# --- scale and data -------------------------------------------------------------------------------------------------


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
    from s4d_lib.files import data_root
    from s4d_lib.synthetic_faces.folders import write_faces

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
    from s4d_lib.synthetic_faces.recipes import RECIPES

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



# --- configurations -------------------------------------------------------------------------------------------------


def method_named(name: str) -> Method:
    """The method of a name; ValueError with the names that there are."""
    if name not in METHODS:
        raise Refused(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    return METHODS[name]


def run_config(cell: Cell, method: str, seed: int, tier: str = "laptop", phase: str = "explore",
               **changes: Any) -> FinetuneConfig:
    """One run, on faces that are drawn now where they are missing."""
    method_named(method)  # a wrong name is refused before anything is drawn
    return config_on(data_folders(cell, tier, phase), cell, method, seed, tier, **changes)


def config_on(folders: Mapping[str, str], cell: Cell, method: str, seed: int, tier: str = "laptop",
              **changes: Any) -> FinetuneConfig:
    """One run on the faces of `folders` (as `data_folders` gives them), which need not be there.

    Its seed sets the weights, the order of steps and which clips are labelled.
    """
    from s4d_lib.training.tiers import FINETUNE

    scale, changed = SCALES[tier], method_named(method)
    epochs = round(scale.epochs * changed.longer)
    settings = FINETUNE["laptop"] | READING | {
        "size": cell.size, "init": str(SHIPPED["nano_encoder"]) if cell.init == "shipped" else None, "epochs": epochs,
        "warmup_epochs": epochs / 10, "validate_every": 1, "clip_steps": scale.epoch, "still_ratio": cell.ratio,
        "still_weight": cell.weight, "still_labels": "merged" if cell.schema == "merged" else "listed",
        "batch_clips": scale.batch_clips, "batch_stills": scale.batch_stills, "train_clips": cell.clips,
        "lr": LEARNING_RATE, "seed": seed, "split_seed": seed,
    } | changed.settings() | dict(folders) | changes
    return FinetuneConfig(name=f"lab_{method}", tier=tier, **settings)
