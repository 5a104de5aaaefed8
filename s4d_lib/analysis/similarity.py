"""latents → similarity     how alike two networks see the same samples: linear CKA, biased, debiased, in minibatches.

Centred kernel alignment compares features of different networks or widths on the same n samples. The usual estimate
grows with width over n, and reaches 1 for unrelated features that are wide enough; the debiased one does not. Derived
in chapter 10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from einops import reduce
from torch import Tensor

from s4d_lib.errors import Refused


def cka(a: Tensor, b: Tensor, debiased: bool = True) -> float:
    """Linear CKA of features a `[n p]` and b `[n q]` of the same n samples: HSIC(a, b) / √(HSIC(a, a) HSIC(b, b)).

    Kornblith et al. 2019; `debiased` uses the unbiased HSIC₁ of Song et al. 2012 (n ≥ 4), after which independent
    features score 0 on average and single values may be negative. Unchanged by orthogonal maps, by one common scale
    and by shifts of either side; not by other linear maps. The rows must be independent samples: frames of one clip
    are not. Computed in double precision with n × n matrices. Raises ValueError when a side is constant.
    """
    meter = CKA(debiased)
    meter.update(a, b)
    return meter.value()


class CKA:
    """CKA over minibatches: mean HSICs first, their ratio last (Nguyen et al. 2021).

    Debiased, the mean over random batches estimates what the whole set gives; biased, it depends on the batch size.
    """

    def __init__(self, debiased: bool = True) -> None:
        self.debiased = debiased
        self.sums, self.batches = torch.zeros(3, dtype=torch.float64), 0

    def update(self, a: Tensor, b: Tensor) -> None:
        """Add one batch of features, a `[n p]` and b `[n q]`."""
        if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
            raise ValueError(f"features must be [n p] and [n q] of the same n samples, got {list(a.shape)} and "
                             f"{list(b.shape)}; pool or flatten tokens first")
        least = 4 if self.debiased else 2
        if len(a) < least:
            raise Refused(f"{len(a)} samples are too few, this estimate needs {least} in a batch")
        hsic: Callable[[Tensor, Tensor], Tensor] = _hsic_unbiased if self.debiased else _hsic_biased
        k, l = (_gram(x) for x in (a, b))
        self.sums += torch.stack([hsic(k, l), hsic(k, k), hsic(l, l)]).cpu()
        self.batches += 1

    def value(self) -> float:
        both, one, other = (self.sums / max(self.batches, 1)).tolist()
        if not (one > 0 and other > 0):
            raise Refused("one side never varies, so nothing can be aligned with it" if self.batches else
                          "no batch was added yet")
        return both / math.sqrt(one * other)


def _gram(x: Tensor) -> Tensor:
    """Features `[n p]` → inner products `[n n]`, of features centred over the batch."""
    x = x.detach().double()
    x = x - reduce(x, "n p -> 1 p", "mean")  # HSIC ignores shifts; taking them out first spares digits
    gram = x @ x.T
    # Rounding in a constant feature must not look like variation.
    return torch.where(gram.abs() > 1e-24 * max(float(x.shape[1]), 1.0), gram, torch.zeros_like(gram))


def _hsic_biased(k: Tensor, l: Tensor) -> Tensor:
    """tr(KHLH) / (n - 1)² of Gram matrices of centred features (Gretton et al. 2005)."""
    return (k * l).sum() / (len(k) - 1) ** 2


def _hsic_unbiased(k: Tensor, l: Tensor) -> Tensor:
    """HSIC₁ (Song et al. 2012, equation 5): a U-statistic, every sample kept away from itself."""
    n = len(k)
    k, l = k - k.diag().diag(), l - l.diag().diag()
    total = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(0) @ l.sum(0)) / (n - 2)
    return total / (n * (n - 3))
