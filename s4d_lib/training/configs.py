"""numbers → config     every setting that changes a result, under the names the papers use.

A field that is unknown or of the wrong type is refused with its name. The defaults are the released recipes at base
size (arXiv 2409.06154; numbers in pretrain/omnivision/config and finetune/run.sh); `tiers.py` holds the small ones. A
field that is new is marked with `later`, so that the fingerprints of earlier runs stay. Derived in chapters 06, 07, 08
and 09.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from s4d_lib.clips import RECIPES
from s4d_lib.datasets.folders import LAYOUTS
from s4d_lib.datasets.labels import LabelSchema, schema_named
from s4d_lib.datasets.list_form import ListForm, form_of
from s4d_lib.datasets.readers import READERS, options_of
from s4d_lib.errors import Refused
from s4d_lib.training.later import later
from s4d_lib.training.loop import Loop
from s4d_lib.training.s2d_settings import S2DSettings
from s4d_lib.training.transfer_dials import TransferDials

Modality = Literal["image", "clip"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]   # what torch and numpy both take
Beta = Annotated[float, Field(ge=0, lt=1)]
Lists = Annotated[ListForm, PlainValidator(ListForm.of), PlainSerializer(ListForm.said)]


class Config(BaseModel):
    """What both stages share."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[\w.-]+$", max_length=120, description="names the run folder")
    tier: Literal["smoke", "laptop", "full"] | None = None
    size: str = "base"
    stills: str | None = Field(None, description="folder of the image data set")
    clips: str | None = Field(None, description="folder of the video data set")
    stills_as: str = later("affectnet7", description="its layout, a name in datasets.READERS")
    clips_as: str = later("dfew", description="its layout, a name in datasets.READERS")
    stills_schema: str | None = later(None, description="label order, where the layout fixes none")
    clips_schema: str | None = later(None, description="the same for the video data set")
    label_base: Literal[0, 1] | None = later(None, description="what the video list counts its labels from")
    clips_lists: Lists = later(ListForm(), description="how the lists of the video data set are written: listing, "
                               "labels, columns, strip, base, splits, folds, classes (datasets/list_form.py)")
    stills_lists: Lists = later(ListForm(), description="the same for the image data set")
    stills_frames: str | None = later(None, description="folder of the pictures, where the layout has another")
    frames: str = Field("clip_jpg", description="folder inside `clips` that holds frame folders or videos")
    stride: int = Field(4, ge=1, description="frames between two frames of a clip (released: sr)")
    on_unreadable: Literal["raise", "skip"] = "raise"
    cache: bool = Field(False, description="keep decoded frames in memory")
    local_contrast: bool = later(False, description="read frames through frames/local_contrast.py")
    augment_stills: str = "PAPER_STILL_TRAIN"
    augment_clips: str = "PAPER_CLIP_TRAIN"
    epochs: int = Field(100, ge=1, le=1_000_000)
    batch_stills: int = Field(64, ge=1)
    batch_clips: int = Field(32, ge=1)
    lr: float = Field(4e-5, gt=0, description="peak learning rate")
    final_lr: float = Field(0.0, ge=0)
    warmup_epochs: float = Field(5.0, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient; None: as it is")
    seed: Seed = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulate: int = Field(1, ge=1, description="micro-batches a step is split into, over all processes")
    ema: float | None = Field(None, gt=0, lt=1)
    workers: int = Field(0, ge=0, le=1024)
    device: Literal["auto", "cpu"] = "auto"
    checkpoint_minutes: float = Field(5.0, gt=0)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_a_truth(cls, value: object, about: ValidationInfo) -> object:
        """true is no number: pydantic would take it for 1, and `seed: true` for seed 1."""
        if isinstance(value, bool) and "bool" not in str(cls.model_fields[about.field_name].annotation):
            raise Refused(f"{str(value).lower()} is neither a number nor a word")
        return value

    @model_validator(mode="after")
    def _known_recipes(self) -> Config:
        for name in (self.augment_stills, self.augment_clips):
            if name not in RECIPES:
                raise Refused(f"no augmentation is called {name!r}; there are {', '.join(RECIPES)}")
        for name in (self.stills_as, self.clips_as):
            if name not in READERS:
                raise Refused(f"no reader is called {name!r}; there are {', '.join(READERS)}")
        if self.warmup_epochs >= self.epochs:
            raise Refused(f"warmup_epochs={self.warmup_epochs} leaves nothing of epochs={self.epochs}: the learning "
                          "rate would only rise; set warmup_epochs below epochs (0: none)")
        for modality in ("clip", "image"):
            self.lists(modality)
        if getattr(self, "system", "s4d") == "s4d":
            from s4d_lib.models.sizes import resolve_size

            resolve_size(self.size)
        if len(self.name.encode()) > 200:
            raise Refused(f"name: {len(self.name.encode())} bytes are too many for a folder; use at most 200")
        return self

    def schema(self, modality: str) -> LabelSchema:
        """Class order of one modality: that of its layout, or the one that is named."""
        named, layout = ((self.stills_schema, self.stills_as) if modality == "image" else
                         (self.clips_schema, self.clips_as))
        named = ",".join(self.lists(modality).classes) or named
        if named is None and layout in ("table", "folders", "packed"):
            part = "stills" if modality == "image" else "clips"
            raise Refused(f"the layout {layout!r} fixes no label order: say {part}_schema=, such as dfew, or your own "
                          f"classes in {part}_lists, such as {{classes: [pain, no_pain]}}")
        if modality == "image" and getattr(self, "still_labels", None) == "merged":
            return schema_named("coarse4")
        return schema_named(named or LAYOUTS[layout].schema)

    def lists(self, modality: str) -> ListForm:
        """How the lists of one modality are written. ValueError for what is said twice or has no use in its layout."""
        part = "stills" if modality == "image" else "clips"
        form, layout = getattr(self, f"{part}_lists"), getattr(self, f"{part}_as")
        if modality == "clip" and self.label_base is not None:
            if form.base not in (None, self.label_base):
                raise Refused(f"label_base={self.label_base} and clips_lists: base={form.base}; say one of the two")
            if "base" not in options_of(layout):
                raise Refused(f"the layout {layout!r} fixes its labels itself: leave out label_base={self.label_base}")
            form = replace(form, base=self.label_base)
        if form.classes and getattr(self, f"{part}_schema") is not None:
            raise Refused(f"{part}_schema={getattr(self, f'{part}_schema')!r} and {part}_lists: classes="
                          f"{', '.join(form.classes)}; say one of the two")
        return form_of(layout, form)

    def loop(self, **more: object) -> Loop:
        return Loop(
            epochs=self.epochs, lr=self.lr, final_lr=self.final_lr, warmup_epochs=self.warmup_epochs, seed=self.seed,
            precision=self.precision, accumulate=self.accumulate, clip_norm=self.clip_norm, ema=self.ema,
            workers=self.workers, device=self.device, checkpoint_minutes=self.checkpoint_minutes, **more,
        )


class PretrainConfig(Config):
    """Dual-modal masked pretraining (arXiv 2409.06154 §3; released videomae_base_vox2_affectnet.yaml)."""

    stage: Literal["pretrain"] = "pretrain"
    modalities: tuple[Modality, ...] = ("image", "clip")
    mask_stills: float = Field(0.90, gt=0, lt=1, description="hidden share of an image's tokens")
    mask_clips: float = Field(0.95, gt=0, lt=1, description="hidden share of a clip's tokens")
    replicate: int = Field(4, ge=1, description="views made of one decoded clip; 1/replicate of the clips an epoch")
    target_epsilon: float = Field(1e-6, gt=0, description="added to the variance of a target tubelet")
    decoder_share: float = later(1.0, gt=0, le=1, description="share of the hidden tokens that the decoder paints")
    augment_stills: str = "PAPER_STILL_PRETRAIN"
    augment_clips: str = "PAPER_CLIP_PRETRAIN"
    batch_stills: int = Field(384, ge=1)
    batch_clips: int = Field(96, ge=1)
    lr: float = Field(1.2e-3, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)


class FinetuneConfig(S2DSettings, TransferDials, Config):
    """Fine-tuning for static (SFER) and dynamic (DFER) expression recognition (released finetune/run.sh).

    Beside its own settings it has those of the laboratory and of S2D, which stand with the code that they steer.
    """

    stage: Literal["finetune"] = "finetune"
    mode: Literal["sfer", "dfer", "joint", "moae"] = Field(
        description="sfer: stills alone; dfer: clips alone; joint: both, one shared network; moae: both, with experts"
    )
    init: str | None = Field(None, description="pretrained checkpoint, or 'shipped'; None: random weights")
    fold: int = Field(1, ge=0, description="the test fold, of as many as the data set has")
    validation: float = Field(0.1, gt=0, lt=1, description="share of the training list kept for choosing the epoch")
    split_seed: Seed = Field(0, description="the same validation samples and few labels for every training seed")
    epoch_rule: Literal["best_on_validation", "last", "best_on_test"] = Field(
        "best_on_validation", description="best_on_test is what the released code does; it is recorded as such"
    )
    select: Literal["war", "uar"] = Field("war", description="the validation score that chooses the epoch")
    validate_every: int = Field(1, ge=1)
    train_clips: int | None = Field(None, ge=1, description="few-label run: keep this many labelled clips")
    train_stills: int | None = Field(None, ge=1)
    share_stills: float = Field(0.5, gt=0, le=1, description="released sfer_data_rate: part of the image batches")
    share_clips: float = Field(1.0, gt=0, le=1, description="released dfer_data_rate")
    balance: tuple[Modality, ...] = ()
    pool: Literal["mean", "positions"] = "mean"
    dropout: float = Field(0.0, ge=0, lt=1)
    moae_blocks: tuple[int, ...] | None = Field(None, description="None: the last half in mode moae, else none")
    experts: int = Field(8, ge=1)
    top_k: int = Field(2, ge=1)
    capacity_factor: float = Field(1.0, gt=0)
    behaviour: Literal["clean", "reference"] = Field("clean", description="of the experts, or of S2D's SDL")
    balance_coeff: float = Field(1e-3, ge=0)
    layer_decay: float = Field(0.75, gt=0, le=1)
    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    smoothing: float = Field(0.1, ge=0, lt=1)
    final_lr: float = Field(1.25e-7, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)

    @model_validator(mode="after")
    def _possible_experts(self) -> FinetuneConfig:
        if self.expert_blocks and self.top_k > self.experts:
            raise Refused(f"top_k={self.top_k} of experts={self.experts} cannot be chosen; lower top_k")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        return {"sfer": ("image",), "dfer": ("clip",)}.get(self.mode, ("image", "clip"))

    @property
    def primary(self) -> str:
        """The modality whose validation score chooses the epoch."""
        return "image" if self.mode == "sfer" else "clip"

    @property
    def expert_blocks(self) -> tuple[int, ...] | str:
        if self.moae_blocks is not None:
            return self.moae_blocks
        return "last_half" if self.mode == "moae" else ()


def stays_alone(config: Config) -> str:
    """Why this configuration trains in one process only; empty where it can be shared out."""
    if getattr(config, "remedy", None) is not None:
        return "a remedy weighs the gradients of whole batches"
    if getattr(config, "sdl", False) and config.behaviour == "reference" and config.sdl_update_every:
        return "the released queues of emotion anchors would differ between processes"
    return ""


HEAD = {"image": "image", "clip": "video"}  # modality → released name of its head


def geometry(config: Config) -> tuple[int | tuple[int, int], int]:
    """What the network of a configuration reads: side, or height and width, of a picture; frames of a clip."""
    if getattr(config, "system", "s4d") == "s2d":
        from s4d_lib.models.s2d import S2D_SIZES

        return S2D_SIZES[config.size]["image_size"], S2D_SIZES[config.size]["frames"]
    from s4d_lib.models.sizes import resolve_size

    size = resolve_size(config.size)
    return size.image_size, size.frames
