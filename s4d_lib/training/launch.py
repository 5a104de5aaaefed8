"""run → processes     start the ranks of a training, show what they do, and say how they ended.

    caller (notebook, `s4d train`) → launcher (`python -m s4d_lib.training.launch`, PyTorch's elastic agent) → one rank
    a device

A notebook never forks: the ranks are processes of their own, below a launcher of its own, and read their configuration
from the run's folder. Whoever loses the process above asks itself to stop, so none is left behind, and ranks stop
together after a whole step. `torchrun -m s4d_lib.training.rank FOLDER` starts them as well. Derived in appendix c.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from s4d_lib.distributed import METHOD
from s4d_lib.errors import Refused
from s4d_lib.progress import RELAY, RELAYED, Progress, say
from s4d_lib.training.state import reached

RANK = "s4d_lib.training.rank"  # the program that each rank is; it imports this file, and not the other way round
ABOVE = "S4D_ABOVE"  # environment: the process above, without which a launcher or rank stops
STOPPED = 75         # exit code of a rank that was asked to stop, and did so after a whole step
GRACE = 120          # seconds for a step and a checkpoint before a stopping rank is killed
# An error that only says that another rank is gone.
LOST = re.compile(r"(RuntimeError|Dist\w+Error): .*(gloo|nccl|peer|store|connection)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Launch:
    """How many processes train together, and how. Words as in torchrun.

    processes     on this node, one a device
    method        "ddp": each holds the whole model; "fsdp": each holds a part of it (fully_shard)
    nodes, node_rank, rendezvous    several machines: how many, which of them this is (from 0), and host:port of node 0.
                  Every node starts the same call; they share the folder of the runs.
    """

    processes: int = 1
    method: Literal["ddp", "fsdp"] = "ddp"
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str | None = None

    def __post_init__(self) -> None:
        if self.processes < 1 or self.nodes < 1 or not 0 <= self.node_rank < self.nodes:
            raise Refused(f"processes and nodes count from 1, node_rank from 0 to below nodes; got {self}")
        if self.method not in ("ddp", "fsdp"):
            raise Refused(f"method must be ddp or fsdp, got {self.method!r}")
        if self.nodes > 1 and not self.rendezvous:
            raise Refused(f"{self.nodes} nodes need rendezvous=, the host:port of node 0")

    @property
    def several(self) -> bool:
        return self.processes * self.nodes > 1


def asked_for(processes: int | None, method: str = "ddp", nodes: int = 1, node_rank: int = 0,
              rendezvous: str | None = None) -> Launch | None:
    """A launch from what a command line says; None where it says nothing, so that the GPUs decide.

    On several nodes without a number of processes it is one a visible GPU of this node.
    """
    if processes is None and (method, nodes) == ("ddp", 1):
        return None
    if processes is None:
        import torch

        processes = max(1, torch.cuda.device_count())
    return Launch(processes, method, nodes, node_rank, rendezvous)


class RankLost(ChildProcessError):
    """A training in several processes that did not end well; the message says which rank, how, and what is left."""


def run_ranks(launch: Launch, folder: Path, label: str) -> None:
    """Train the configuration in `folder` in several processes, showing their progress here; returns when done.

    RankLost when a rank failed or was killed, KeyboardInterrupt when we were asked to stop. Both leave a checkpoint of
    whole steps, from which any number of processes goes on.
    """
    with tempfile.TemporaryDirectory() as place:
        outcome = Path(place) / "outcome.json"
        said = {"folder": str(folder), "logs": place, "outcome": str(outcome), "id": folder.name, **asdict(launch)}
        process = subprocess.Popen(
            [sys.executable, "-m", "s4d_lib.training.launch", json.dumps(said)], stdout=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, env=_environment(launch), start_new_session=True)  # a notebook's SIGINT is ours
        with _passing_on(process) as signals:
            _show(process, label)
            code = process.wait()
        ended = json.loads(outcome.read_text()) if outcome.exists() else None
    if code == 0:
        return
    stands = _stands(folder)
    if signals:
        raise KeyboardInterrupt(f"stopped; {stands}")
    raise RankLost(f"{_how(ended, code, launch)}; {stands}")


def _environment(launch: Launch) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // launch.processes)
    return {"OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, "PYTHONUNBUFFERED": "1",
            RELAY: "1", METHOD: launch.method, ABOVE: str(os.getpid())}


@contextmanager
def _passing_on(process: subprocess.Popen) -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to the launcher, which stops the ranks after a whole step; a second one kills it."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def pass_on(number: int, _frame: object) -> None:
        signals.append(number)
        if len(signals) == 1:
            process.terminate()
        else:
            process.kill()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(process: subprocess.Popen, label: str) -> None:
    """What rank 0 says until all are gone: its progress as ours, its other lines as they are."""
    bar: Progress | None = None
    for line in process.stdout:
        if not line.startswith(RELAYED):
            say(line.removesuffix("\n"))
            continue
        name, done, total, note = json.loads(line.removeprefix(RELAYED))
        if bar is None:
            bar = Progress(total, f"{name} ({label})", done).__enter__()
        bar.update(done - bar.done, note=note)
    if bar is not None:
        bar.__exit__(None)


def _stands(folder: Path) -> str:
    step = reached(folder)
    return ("there is no checkpoint yet, so the same call starts again" if step is None else
            f"the run stands at step {step}, and the same call goes on from there")


# --- how they ended --------------------------------------------------------------------------------------------------


def _how(ended: Mapping[str, Any] | None, code: int, launch: Launch) -> str:
    """One sentence: which rank, and what happened to it."""
    if ended is None:
        what = f"was killed by {_name(-code)}" if code < 0 else f"ended with exit code {code} before it said why"
        return f"the launcher {what}; the ranks have stopped"
    if "signal" in ended:
        return f"the launcher received {ended['signal']} and stopped the ranks"
    ranks = {int(rank): failure for rank, failure in ended["ranks"].items()}
    rank = min(ranks, key=lambda r: (_order(ranks[r]), r))
    exitcode, message = ranks[rank]["exitcode"], ranks[rank]["message"]
    who = f"rank {rank} of {launch.processes * launch.nodes}"
    if exitcode in (STOPPED, -signal.SIGTERM):
        return "the ranks were asked to stop and did so"
    if exitcode < 0:
        why = ", which the system does when memory runs out" if -exitcode == signal.SIGKILL else ""
        return f"{who} was killed by {_name(-exitcode)}{why}; the others were stopped"
    said = f"exit code {exitcode}" if message in ("", "<NONE>") else message  # the second is PyTorch's word for none
    return f"{who} failed: {said}; the others were stopped"


def _order(failure: Mapping[str, Any]) -> int:
    """Causes before consequences: a kill, an error, an error that only says that a rank is gone, a stop."""
    exitcode = failure["exitcode"]
    if exitcode < 0:
        return 0 if -exitcode != signal.SIGTERM else 3
    if exitcode == STOPPED:
        return 4
    return 2 if LOST.match(failure["message"]) else 1


def _name(number: int) -> str:
    return signal.Signals(number).name


# --- the launcher, a process of its own ------------------------------------------------------------------------------


def agent(said: Mapping[str, Any]) -> int:
    """Start the ranks of this node and wait for them; writes what went wrong to `said["outcome"]`."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # what the agent has to say is said by `_how`
    stop_without(int(os.environ[ABOVE]))
    os.environ[ABOVE] = str(os.getpid())
    one = said["nodes"] == 1
    config = LaunchConfig(
        min_nodes=said["nodes"], max_nodes=said["nodes"], nproc_per_node=said["processes"], run_id=said["id"],
        rdzv_backend="c10d" if one else "static", rdzv_endpoint="localhost:0" if one else said["rendezvous"],
        rdzv_configs={} if one else {"rank": said["node_rank"]}, local_addr="localhost" if one else None,
        max_restarts=0, shutdown_timeout=GRACE,
        # Rank 0 speaks through our output; what the others print, and all errors, go to files.
        logs_specs=DefaultLogsSpecs(said["logs"], {i: Std.ERR if i == 0 and said["node_rank"] == 0 else Std.ALL
                                                   for i in range(said["processes"])}))
    try:
        elastic_launch(config, sys.executable)("-m", RANK, said["folder"])
        return 0
    except ChildFailedError as error:
        found = {"ranks": {rank: {"exitcode": failure.exitcode, "message": _message(failure)}
                           for rank, failure in error.failures.items()}}
    except SignalException as error:
        found = {"signal": error.sigval.name}
    Path(said["outcome"]).write_text(json.dumps(found))
    return 1


def _message(failure: Any) -> str:
    """The error of a rank in one line, such as "ValueError: …"."""
    return str(failure.error_file_data.get("message", "")).strip()


def stop_without(parent: int) -> None:
    """Send ourselves SIGTERM when the process above has gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(agent(json.loads(sys.argv[1])))
