"""signal → end of a step     a training stops between two steps, so that none is left half applied.

Derived in chapter 06.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s4d_lib import distributed


class Held:
    """Signals that wait for the end of a step: `asked` says whether one came, calling it acts on it."""

    asked = False

    def __call__(self) -> None:
        raise KeyboardInterrupt("stopped after a whole step; start the same run again to go on")


@contextmanager
def between_steps() -> Iterator[Held]:
    """Hold SIGINT and SIGTERM back until the caller asks, so that no step is left half applied.

    A second signal acts at once, but not on one process of several: they stop together, and whoever started them
    repeats himself. Outside the main thread, where Python delivers no signals, nothing changes.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hold(number: int, _frame: object) -> None:
        if held.asked and distributed.size() == 1:
            raise KeyboardInterrupt
        held.asked = True

    for number in before:
        signal.signal(number, hold)
    try:
        yield held
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
