"""batch → mixed batch     mixup and CutMix of every sample with its partner, pictures and targets alike."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from s4d_lib.clips.generators import borrowed_generators
from s4d_lib.errors import Refused


class MixupCutmix:
    """Mix every sample with its partner in the reversed batch, pictures and targets alike.

    One λ and, for CutMix, one box for the whole batch and all frames; λ is corrected to the area that was
    really pasted. Targets are smoothed: 1 - s + s/classes on, s/classes off. Defaults are S4D's.
    """

    def __init__(
        self,
        classes: int,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        prob: float = 1.0,
        switch: float = 0.5,
        smoothing: float = 0.1,
    ):
        from timm.data.mixup import Mixup, mixup_target

        self.classes, self.off = classes, prob == 0 or mixup == cutmix == 0
        self._targets = partial(mixup_target, num_classes=classes, smoothing=smoothing)
        self._mix = Mixup(mixup, cutmix, None, prob, switch, "batch", True, smoothing, classes)

    def __call__(self, x: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """x float [b c h w] or [b c t h w] and integer labels [b] to mixed x and targets float [b classes].

        The input is left as it was, and handed back where nothing is mixed (`off`). In an odd batch the middle sample
        is its own partner.
        """
        batch = len(x)
        if x.ndim not in (4, 5) or labels.shape != (batch,):
            shapes = f"{list(x.shape)} and {list(labels.shape)}"
            raise Refused(f"x must be [b c h w] or [b c t h w] and labels [b], got {shapes}")
        # On an accelerator the host would wait here; there a wrong label stops in the kernel that looks it up.
        if labels.device.type == "cpu" and (labels.min() < 0 or labels.max() >= self.classes):
            raise ValueError(f"labels must lie in 0..{self.classes - 1}, got {labels.tolist()}")
        if self.off:
            return x, self._targets(labels)
        middle, odd = batch // 2, batch % 2
        # timm wants an even batch, and mixes in place: a copy, with the middle sample of an odd batch twice.
        order = [*range(middle + odd), *range(middle, batch)]
        with borrowed_generators(rng):
            pictures, targets = self._mix(x[order].flatten(1, -3), labels[order])
        if odd:
            kept = [i for i in range(batch + 1) if i != middle]
            pictures, targets = pictures[kept], targets[kept]
        return pictures.view(x.shape), targets
