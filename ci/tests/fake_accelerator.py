"""step → refusal: a device that computes nothing and gives nothing back, so that GPU bugs show without a GPU.

    with FakeAccelerator() as device:           # device.name is "acc"
        model = build().to(device.name)         # shapes, dtypes and devices as ever, no memory, no arithmetic
        with device.step(allowed):              # from here on whatever would wait for the device is an error
            loss = model(x)

It is PyTorch's own place for a device that lives in Python (PrivateUse1), under `FakeTensorMode`. By itself that mode
lets `.cpu()` pass without a word, so `_Guard` stands before it and raises `Waits`:

    copies off the device (`.cpu()`, `.to("cpu")`, `.numpy()`, `copy_` into a CPU tensor)
    numbers read by Python (`.item()`, `float(x)`, `.tolist()`, `if x:`, `torch.equal`)
    shapes that depend on numbers (`nonzero`, `x[mask]`, `unique`, `bincount`)
    tensors of the CPU among those of the device, a single number, which PyTorch lets pass, included
    float64

A copy onto the device is no fault: batches must come. `Dtypes` watches the same step on fake CPU tensors under
autocast, where PyTorch's rules of autocast hold.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "acc"
LIBRARY = "s4d_lib"
aten = torch.ops.aten
READS = {aten._local_scalar_dense.default, aten.item.default, aten.equal.default, aten.is_nonzero.default}
INDEXES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor,
           aten._index_put_impl_.default}
COPIES = {aten.copy_.default, aten._to_copy.default, aten.lift_fresh.default}


class Waits(AssertionError):
    """The step would wait for the device, or mixes devices or dtypes; says which operation and which line."""


class _Backend:
    """What PyTorch asks of a device's module. Not "available": nobody takes it by himself."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers = {"is_available": False, "is_initialized": True, "device_count": 1, "current_device": 0,
                   "_is_in_bad_fork": False, "manual_seed_all": None,
                   "get_amp_supported_dtype": [torch.bfloat16, torch.float16]}
        if name not in answers:
            raise AttributeError(name)
        return lambda *_: answers[name]


def register() -> None:
    """Name the device, once a process."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())


class FakeAccelerator:
    """A context in which every tensor is fake; `.step()` is the stretch of it that must not wait."""

    name = NAME

    def __init__(self) -> None:
        register()
        self.fake, self.guard = FakeTensorMode(allow_non_fake_inputs=True), _Guard()

    def __enter__(self) -> FakeAccelerator:
        self.entered = ExitStack()
        for part in (swapping(), self.fake, self.guard):
            self.entered.enter_context(part)
        return self

    def __exit__(self, *failure: Any) -> None:
        self.entered.close()

    @contextmanager
    def step(self, allowed: Mapping[str, int] | None = None) -> Iterator[_Guard]:
        """Watch from here on. allowed: "file::function" of the library → how often that may wait in this step."""
        self.guard.watching, self.guard.allowed, self.guard.seen = True, dict(allowed or {}), Counter()
        try:
            yield self.guard
        finally:
            self.guard.watching = False


class _Guard(TorchDispatchMode):
    """Looks at every operation before FakeTensorMode does."""

    def __init__(self) -> None:
        super().__init__()
        self.watching = False
        self.allowed: dict[str, int] = {}
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and not (self.watching and args[0].device.type == NAME):
            return cpu_number(func, args[0])
        if not self.watching:
            return func(*args, **kwargs)
        ours = tensors_in((args, kwargs.values()) if kwargs else args)
        kinds = {x.device.type for x in ours}
        on_device = NAME in kinds
        fault = _fault(func, args, ours, kinds) if on_device else ""
        if fault:
            self._refuse_or_count(func, fault)
            if func in READS:
                return True if func is aten.equal.default else _number(args[0])
        try:
            out = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException) as error:
            raise Waits(f"{place()}: {func} needs numbers of the device: {error}") from None
        except RuntimeError as error:
            if "same device" in str(error):
                raise Waits(f"{place()}: {func} mixes devices: {error}") from None
            raise
        for x in tensors_in((out,)):
            self._look_at_answer(func, x, on_device)
        return out

    def _look_at_answer(self, func: Any, x: Tensor, from_device: bool) -> None:
        if x.device.type != NAME:
            if from_device and not _in_optimizer():
                self._refuse_or_count(func, "copies off the device")
        elif x.dtype in (torch.float64, torch.complex128):
            raise Waits(f"{place()}: {func} makes {x.dtype} on the device")

    def _refuse_or_count(self, func: Any, fault: str) -> None:
        where = place()
        key = where.partition(" ")[0]
        self.seen[key] += 1
        if self.seen[key] > self.allowed.get(key, 0):
            raise Waits(f"{where}: {func} {fault}" + (
                f" (allowed {self.allowed[key]} times a step)" if key in self.allowed else ""))


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments or answers of an operation, those in lists too."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)) or type(value).__name__ == "dict_values":
            found += tensors_in(value)
    return found


def _fault(func: Any, args: tuple, tensors: list[Tensor], kinds: set[str]) -> str:
    """What is wrong with an operation before it is done; empty if nothing is."""
    if func in READS:
        return "reads numbers of the device"
    if func in INDEXES and any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]):
        return "indexes with a mask, whose count the device must tell"
    if len(kinds) > 1 and func not in INDEXES and func not in COPIES and not _in_optimizer():
        return f"mixes devices: {[(x.device.type, list(x.shape)) for x in tensors]}"
    return ""


def place() -> str:
    """ "file::function line" of the innermost frame of the library; of the caller where there is none."""
    frame, outermost = sys._getframe(1), ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if LIBRARY in path.parts:
            inside = Path(*path.parts[len(path.parts) - path.parts[::-1].index(LIBRARY):])
            return f"{inside}::{frame.f_code.co_qualname} line {frame.f_lineno}"
        if "site-packages" not in path.parts and path != Path(__file__) and not outermost:
            outermost = f"{path.name}::{frame.f_code.co_qualname} line {frame.f_lineno}"
        frame = frame.f_back
    return outermost


def _in_optimizer() -> bool:
    """PyTorch's optimisers keep the count of steps on the CPU and mean to."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.replace("\\", "/").rpartition("/")[0].endswith("torch/optim"):
            return True
        frame = frame.f_back
    return False


def _number(x: Tensor) -> bool | int | float:
    """What Python gets where it may read: False ends the loops of initialisers, 1 divides."""
    return False if x.dtype is torch.bool else 1.0 if x.dtype.is_floating_point else 1


def cpu_number(func: Any, x: Tensor) -> bool | int | float:
    """A number of the CPU: the true one where the fake tensor knows it, else a stand-in."""
    try:
        return func(x)
    except DataDependentOutputException:
        return _number(x)


@contextmanager
def swapping() -> Iterator[None]:
    """What fake tensors do not do by themselves: be moved as parameters, be handed to numpy, be listed."""
    with ExitStack() as patches:
        forget()
        patches.callback(forget)
        # PyTorch refuses to move a fake parameter that anybody points to weakly, and its fake mode itself does.
        patches.enter_context(mock.patch("torch.utils.swap_tensors", _swap))
        patches.enter_context(mock.patch.object(FakeTensor, "numpy", _numpy))
        patches.enter_context(mock.patch.object(FakeTensor, "tolist", _tolist))
        for name in ("trunc_normal_", "xavier_uniform_", "kaiming_uniform_", "uniform_", "zeros_", "ones_"):
            patches.enter_context(mock.patch(f"torch.nn.init.{name}", lambda x, *_, **__: x))  # no numbers to set
        yield


def forget() -> None:
    """Empty the library's caches: a fake tensor in one of them would outlive its mode."""
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{LIBRARY}."):
            for value in list(vars(module).values()):
                if callable(getattr(value, "cache_clear", None)):
                    value.cache_clear()


def _numpy(x: Tensor, *, force: bool = False) -> np.ndarray:
    if x.device.type == NAME:
        raise Waits(f"{place()}: .numpy() of a tensor on the device")
    return np.ones(tuple(x.shape), dtype=_NUMPY[x.dtype])


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64, torch.float16: np.float16, torch.int64: np.int64,
          torch.int32: np.int32, torch.uint8: np.uint8, torch.bool: np.bool_}


def _tolist(x: Tensor) -> Any:
    """One reading, however many numbers there are."""
    first = x.new_empty(()).item() if x.device.type != NAME else x.flatten()[0].item() if x.numel() else 0
    return np.full(tuple(x.shape), first).tolist()


def _swap(a: Tensor, b: Tensor) -> None:
    """torch.utils.swap_tensors, weak references or not."""
    a.__class__, b.__class__ = b.__class__, a.__class__
    one, other = dict(a.__dict__), dict(b.__dict__)
    for x, state in ((a, other), (b, one)):
        x.__dict__.clear()
        x.__dict__.update(state)
    torch._C._swap_tensor_impl(a, b)
