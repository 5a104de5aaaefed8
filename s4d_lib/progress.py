"""steps → one line     progress that behaves in a notebook, a terminal and a log file.

A terminal gets a tqdm bar. A notebook gets a single line that is replaced in place and ends without times, so that a
stored notebook does not change from run to run. A log gets one line every few seconds, never one a step.
"""

from __future__ import annotations

import json
import os
import sys
import time

RELAY = "S4D_RELAY"          # set where another process shows our progress: then every line below is for it
RELAYED = "\x1es4d "         # begins such a line; JSON follows


def in_notebook() -> bool:
    """True inside a Jupyter kernel."""
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell else None
    return instance is not None and hasattr(instance, "kernel")


def say(text: str) -> None:
    """One line for whoever waits, beside all progress: what was loaded, left out or waited for."""
    print(text, flush=True)


class Progress:
    """`with Progress(total, "pretraining") as bar: bar.update(1, loss=0.93)`."""

    def __init__(self, total: int, label: str, done: int = 0, every_seconds: float = 10.0,
                 silent: bool = False) -> None:
        """`silent`: count and show nothing, as one process of several does that leaves speaking to another."""
        self.silent, self.total, self.label, self.done, self.every = silent, total, label, done, every_seconds
        self.note, self.started, self.shown = "", time.monotonic(), 0.0
        self.bar = self.display = None
        self.relay = bool(os.environ.get(RELAY))

    def __enter__(self) -> Progress:
        if self.silent or self.relay:
            return self
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
        if self.silent or self.relay:
            self._tell()
        elif self.bar:
            self.bar.close()
        elif self.display:
            self.display.update(self._line(self._text(timed=False)))
        elif kind is None:
            print(self._text(timed=True), file=sys.stderr, flush=True)

    def update(self, steps: int = 1, note: str | None = None, **values: float) -> None:
        """Count steps; the values, or else a note in words, are shown beside the count."""
        self.done += steps
        self.note = note or "".join(f"  {name} {value:.3f}" for name, value in values.items())
        if self.bar:
            self.bar.set_postfix_str(self.note.strip(), refresh=False)
            self.bar.update(steps)
            return
        now = time.monotonic()
        if now - self.shown >= (0.5 if self.display or self.relay else self.every):
            self.shown = now
            if self.silent or self.relay:
                self._tell()
            elif self.display:
                self.display.update(self._line(self._text(timed=True)))
            else:
                print(self._text(timed=True), file=sys.stderr, flush=True)

    def _tell(self) -> None:
        if not self.silent:
            print(RELAYED + json.dumps([self.label, self.done, self.total, self.note]), flush=True)

    def _text(self, timed: bool) -> str:
        spent = f"  {time.monotonic() - self.started:.0f} s" if timed else ""
        return f"{self.label} {self.done}/{self.total}{self.note}{spent}"
