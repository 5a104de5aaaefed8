"""step → refusal, peak     the same step on fake tensors of the CPU: which numbers it computes in, how much it holds.

Autocast has rules for a CPU and none for a device that lives in Python, so dtypes are looked at here, under bfloat16
autocast: sums, means and softmaxes of the forward pass, and choices between numbers (`topk`), are taken in float32, and
nothing is float64. `Held` adds up the storages that live at a time; nothing is allocated.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fake_accelerator import cpu_number, place, swapping, tensors_in
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

HALF = (torch.bfloat16, torch.float16)
REDUCES = {"sum", "mean", "softmax", "_softmax", "log_softmax", "_log_softmax", "logsumexp", "var", "std", "var_mean",
           "prod", "cumsum", "linalg_vector_norm", "norm", "mse_loss", "nll_loss", "nll_loss_forward", "topk", "argmax",
           "binary_cross_entropy_with_logits", "huber_loss", "smooth_l1_loss", "l1_loss", "cross_entropy_loss"}


class WrongDtype(AssertionError):
    """A number of the step is too wide or too narrow; says which operation and which line."""


class Dtypes(TorchDispatchMode):
    """Refuses float64, and reductions in half precision outside the backward pass.

    answers: functions of the library, as in `fake_accelerator`, that may make float64 of what has left the device.
    """

    def __init__(self, answers: Iterable[str] = ()) -> None:
        super().__init__()
        self.answers = set(answers)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "_local_scalar_dense":
            return cpu_number(func, args[0])
        backward = torch._C._current_graph_task_id() != -1  # biases sum their gradients in the dtype of these
        if name in REDUCES and not backward and isinstance(args[0], Tensor) and args[0].dtype in HALF:
            raise WrongDtype(f"{place()}: {func} of {args[0].dtype} {list(args[0].shape)}")
        out = func(*args, **(kwargs or {}))
        for x in tensors_in((out,)):
            if x.dtype in (torch.float64, torch.complex128) and place().partition(" ")[0] not in self.answers:
                raise WrongDtype(f"{place()}: {func} makes {x.dtype} {list(x.shape)}")
        return out


class Held(TorchDispatchMode):
    """Bytes of all storages that were made and live, and the most there were: `.now`, `.peak`.

    standing: tensors that were there before (weights, what the optimiser keeps, the batch); they do not count.
    """

    def __init__(self, standing: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.living: dict[int, weakref.ref] = {}
        self.standing = {x.untyped_storage()._cdata for x in standing}

    def add(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.living and key not in self.standing:
            self.living[key] = weakref.ref(storage, lambda _: self._gone(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        if self.living.pop(key, None) is not None:
            self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            return cpu_number(func, args[0])
        out = func(*args, **(kwargs or {}))
        for x in tensors_in((out,)):
            self.add(x)
        return out


@contextmanager
def fake_cpu() -> Iterator[FakeTensorMode]:
    """A context in which every tensor is fake, on the CPU; for building too."""
    with swapping(), FakeTensorMode(allow_non_fake_inputs=True) as mode, _Building():
        yield mode


class _Building(TorchDispatchMode):
    """Initialisers look at numbers; they get stand-ins."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense":
            return cpu_number(func, args[0])
        return func(*args, **(kwargs or {}))
