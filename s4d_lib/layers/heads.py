"""latents → logits     pooling and one head per task.

Images and videos may carry different label sets, so each task has its own linear head on shared features. The
rank of the input decides which one answers. Derived in chapter 07.
"""

from einops import rearrange, reduce
from torch import Tensor, nn

from s4d_lib.errors import Refused

POOLS = ("mean", "positions")
TASK_OF_RANK = {4: "image", 5: "video"}


def pool_latents(latents: Tensor, norm: nn.Module, places: int, pool: str) -> Tensor:
    """Latents `[b n d]` → one normalised feature vector per sample; `places` = h·w tokens of a time slot.

    `mean` (the paper; released `finetune/s4d/videomae.py:585-586, 705-707`): mean over all tokens, then the
    norm: `[b d]`. `positions`: mean over time only, the norm at each place, flattened: `[b (h w d)]`. A tiny
    network trained for minutes cannot yet carry what it knows about the mouth through an average over the
    face; keeping the places spares it that step.
    """
    if pool == "mean":
        return norm(reduce(latents, "b n d -> b d", "mean"))
    still = norm(reduce(latents, "b (t s) d -> b s d", "mean", s=places))
    return rearrange(still, "b s d -> b (s d)")


def task_of(tokens: int, places: int, slots: int, heads: list[str]) -> str:
    """Which head reads `tokens` latents when nobody says: of an image there are `places`, of a clip slots·places.

    A single head reads them all. With several, a clip of one time slot cannot be told from an image.
    """
    if len(heads) == 1:
        return heads[0]
    if slots == 1:
        raise Refused(f"an image and a clip of one time slot both make {places} tokens; say which this is with "
                      "task='image' or task='video'")
    found = {places: "image", slots * places: "video"}.get(tokens)
    if found is None:
        raise Refused(f"this model makes {places} tokens of an image and {slots * places} of a clip, got "
                      f"{tokens}; say which this is with task='image' or task='video'")
    return found


class TaskHeads(nn.ModuleDict):
    """One linear head per task: features `[b f]` → logits `[b classes]`. With no task it is empty."""

    def __init__(self, features: int, classes: dict[str, int]) -> None:
        known = set(TASK_OF_RANK.values())
        counted = all(isinstance(count, int) and count > 0 for count in classes.values())
        if not set(classes) <= known or not counted:
            raise Refused(f"classes maps {sorted(known)} to class counts, got {classes}")
        super().__init__({task: nn.Linear(features, count) for task, count in classes.items()})

    def forward(self, features: Tensor, task: str) -> Tensor:
        if task not in self:
            raise Refused(f"this model has no head for {task} input, only for {', '.join(self)}; "
                          f"give it one with classes={{{task!r}: ...}} or reset_classifier")
        return self[task](features)
