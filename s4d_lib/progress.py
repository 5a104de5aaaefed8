"""steps → one line     progress that behaves in a notebook, a terminal and a log file.

A terminal gets a tqdm bar. A notebook gets a single line that is replaced in place and ends without times, so that a
stored notebook does not change from run to run. A log gets one line every few seconds, never one a step.
"""

from __future__ import annotations

import sys
import time


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell else None
    return instance is not None and hasattr(instance, "kernel")


class Progress:
    """`with Progress(total, "pretraining") as bar: bar.update(1, loss=0.93)`."""

    def __init__(self, total: int, label: str, done: int = 0, every_seconds: float = 10.0) -> None:
        self.total, self.label, self.done, self.every = total, label, done, every_seconds
        self.note, self.started, self.shown = "", time.monotonic(), 0.0
        self.bar = self.display = None

    def __enter__(self) -> Progress:
        if in_notebook():
            from IPython.display import TextDisplayObject, display

            class Line(TextDisplayObject):
                def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
                    return {"text/plain": self.data}

            self._line = Line
            self.display = display(Line(self._text(timed=True)), display_id=True)
        elif sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, initial=self.done, desc=self.label, file=sys.stderr, dynamic_ncols=True)
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.bar:
            self.bar.close()
        elif self.display:
            self.display.update(self._line(self._text(timed=False)))
        elif kind is None:
            print(self._text(timed=True), file=sys.stderr, flush=True)

    def update(self, steps: int = 1, **values: float) -> None:
        """Count steps; the values are shown beside the count."""
        self.done += steps
        self.note = "".join(f"  {name} {value:.3f}" for name, value in values.items())
        if self.bar:
            self.bar.set_postfix_str(self.note.strip(), refresh=False)
            self.bar.update(steps)
            return
        now = time.monotonic()
        if now - self.shown >= (0.5 if self.display else self.every):
            self.shown = now
            if self.display:
                self.display.update(self._line(self._text(timed=True)))
            else:
                print(self._text(timed=True), file=sys.stderr, flush=True)

    def _text(self, timed: bool) -> str:
        spent = f"  {time.monotonic() - self.started:.0f} s" if timed else ""
        return f"{self.label} {self.done}/{self.total}{self.note}{spent}"
