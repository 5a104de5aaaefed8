"""way → megabytes     what one way needs at most, in a fresh process or by the allocator of a GPU.

A process that has measured one way keeps what it freed, so on a CPU every way gets a process of its own, forked from a
small server that has the library imported. What counts is the largest resident memory above what the process had when
it began: weights, optimiser, inputs, activations, and what libraries keep; not what making them took for a moment.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import sys
from collections.abc import Callable
from pathlib import Path

from s4d_lib.bench.timing import Call

PRELOADED = ["torch", "timm.models.beit", "s4d_lib.bench.rows", "s4d_lib.models.classifier",
             "s4d_lib.models.autoencoder"]


def fresh_peak_mb(make: Callable[[], Call], calls: int = 2, threads: int = 1) -> float | None:
    """Most memory in MB of 10⁶ bytes of `make()` and `calls` calls of it, in a new process; None where it failed.

    `make` must be picklable. The first step of a training makes the optimiser's state, the second works with it.
    """
    server = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        server.set_forkserver_preload(PRELOADED)
    ours, theirs = server.Pipe(duplex=False)
    child = server.Process(target=_measure, args=(theirs, make, calls, threads), daemon=True)
    child.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:  # the child ended without a word: killed for want of memory, most likely
        return None
    finally:
        child.join()
        ours.close()


def _measure(to: multiprocessing.connection.Connection, make: Callable[[], Call], calls: int, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    before = _restart_peak()
    call = make()
    _restart_peak()
    for _ in range(calls):
        call()
    to.send((_peak() - before) / 1e6)
    to.close()


def _restart_peak() -> int:
    """Bytes held now; on Linux the peak begins here anew (a process inherits that of the one it was forked from)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return _peak()


def _peak() -> int:
    """Largest resident bytes of this process so far. On Linux the kernel says it of this address space alone."""
    try:
        said = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in said.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def allocated_peak_mb(make: Callable[[], Call], calls: int = 2) -> float:
    """The same on a GPU, in this process: what PyTorch's allocator held at most above what it held before."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    call = make()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(calls):
        call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6
