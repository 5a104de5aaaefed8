"""folder → run     one of several processes that train together, a program of its own.

The launcher (`launch.py`) starts one a device, and so does `torchrun -m s4d_lib.training.rank FOLDER`. A rank reads its
configuration from the run's folder and leaves its error where the elastic agent looks for it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

from s4d_lib import distributed
from s4d_lib.files import write_atomically
from s4d_lib.training import runs
from s4d_lib.training.configs import FinetuneConfig, PretrainConfig
from s4d_lib.training.launch import ABOVE, STOPPED, stop_without


def rank(folder: Path) -> None:
    """Train the configuration of a run's folder as one of several processes."""
    if ABOVE in os.environ:
        stop_without(int(os.environ[ABOVE]))
    settings = json.loads((folder / "config.json").read_text())
    config = (PretrainConfig if settings["stage"] == "pretrain" else FinetuneConfig)(**settings)
    try:
        with redirect_stdout(sys.stdout if distributed.is_first() else open(os.devnull, "w")):
            runs.train(config, folder.parent)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes as soon as another rank fails; first we say why we did
        _leave(error)
        raise


def _leave(error: Exception) -> None:
    """The error of this rank where the elastic agent looks for it, whole or not at all: half a file would crash it."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    told = {"message": f"{type(error).__name__}: {error}", "timestamp": int(time.time())}
    write_atomically(os.environ["TORCHELASTIC_ERROR_FILE"], json.dumps(told))


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
