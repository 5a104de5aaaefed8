"""config → run     train or load: a folder with the configuration, the steps, the weights and the record.

    <runs>/<name>-<fingerprint>/    config.json  metrics.jsonl  checkpoint.safetensors  model.safetensors
                                    encoder_report.txt, predictions.npz (fine-tuning), sdl.safetensors (its queues)
                                    record.json (written last: its presence means done)

The fingerprint covers the configuration and the content of the data, not the place they lie in. A finished run is
loaded; an unfinished one goes on where it stopped. Derived in chapters 06 and 07.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from s4d_lib import distributed
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.errors import Refused
from s4d_lib.files import Lock, Locked, runs_root
from s4d_lib.progress import say
from s4d_lib.records import DataUse, Record, read_record, write_record
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig, stays_alone
from s4d_lib.training.data import data_use
from s4d_lib.training.fingerprints import run_mark
from s4d_lib.training.fitting import finetune, pretrain
from s4d_lib.training.launch import Launch, run_ranks
from s4d_lib.training.state import read_losses


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    record: Record

    def model(self) -> nn.Module:
        """The trained model, on the CPU, in evaluation mode."""
        return load_model(self.folder / "model.safetensors")

    @property
    def weights(self) -> Path:
        return self.folder / "model.safetensors"

    def losses(self, modality: str | None = None) -> np.ndarray:
        """(update, loss) of every step `[steps 2]`, of one modality or of both."""
        return read_losses(self.folder, modality)


def train(config: PretrainConfig | FinetuneConfig, root: Path | None = None, retrain: bool = False,
          processes: int | Launch | None = None) -> Run:
    """Train, or load the run that this configuration on this data has already left.

    `retrain` throws an earlier run away first. Interrupting keeps every whole step; the same call goes on from there.
    `processes`: how many train together, each with its share of every step, or a `Launch` that says more; None: one a
    visible GPU. However many they are, it is the same run: the numbers differ by rounding, the folder does not.
    When another process is already at this run, this one waits for it.
    """
    data = {modality: data_use(config, modality) for modality in config.modalities}
    mark = run_mark(config, data)
    folder = (root or runs_root()) / f"{config.name}-{mark}"
    if distributed.size() > 1:
        return _train_as_rank(config, data, folder, mark)
    launch = _launch(config, processes)
    if not retrain and (folder / "record.json").exists():
        return Run(folder, read_record(folder / "record.json"))
    label = f"{launch.processes * launch.nodes} processes"
    if launch.node_rank > 0:  # node 0 looks after the folder, which the nodes share
        run_ranks(launch, folder, label)
        return Run(folder, read_record(folder / "record.json"))
    with _alone(folder):
        if retrain and folder.exists():
            shutil.rmtree(folder)
        if (folder / "record.json").exists():  # whoever we waited for has finished it
            return Run(folder, read_record(folder / "record.json"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(config.model_dump_json(indent=1))
        if launch.several:
            run_ranks(launch, folder, label)
        else:
            _train_here(config, data, folder, mark)
    return Run(folder, read_record(folder / "record.json"))


def _train_here(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> None:
    """Train in this process, alone or as one of several; rank 0 leaves the record."""
    record = (pretrain if isinstance(config, PretrainConfig) else finetune)(config, data, folder, mark)
    if record is not None:
        write_record(folder / "record.json", record)
        for left_over in (folder / "checkpoint.safetensors", *folder.glob(".*.tmp")):  # done: nothing is left to resume
            left_over.unlink(missing_ok=True)


def _train_as_rank(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> Run:
    distributed.begin(cpu=config.device == "cpu")
    # The caller holds the run. This is for a caller that was killed: the next one's rank 0 waits until ours has gone.
    with _alone(folder.with_name(f"{folder.name}.rank0")) if distributed.is_first() else nullcontext():
        distributed.barrier()
        if not (folder / "record.json").exists():
            _train_here(config, data, folder, mark)
        distributed.barrier()
    distributed.end()
    return Run(folder, read_record(folder / "record.json"))


def _launch(config: Config, processes: int | Launch | None) -> Launch:
    """What was asked for, or one process a visible GPU; ValueError where this configuration cannot be shared out."""
    why_not, gpus = stays_alone(config), torch.cuda.device_count() if config.device == "auto" else 0
    if processes is None:
        processes = max(1, gpus) if not why_not else 1
    launch = processes if isinstance(processes, Launch) else Launch(processes)
    if gpus and launch.processes > gpus:
        raise Refused(f"{launch.processes} processes need a GPU each and {gpus} are visible; ask for fewer, or set "
                      "device=cpu in the configuration")
    if launch.several and why_not:
        raise Refused(f"{config.name}: {why_not}; train it with processes=1")
    return launch


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The right to train a run, waited for if somebody has it; the system takes it back from whoever dies."""
    lock, told = Lock(folder.parent / ".locks" / folder.name / "lock"), False
    while True:
        try:
            lock.take()
            break
        except Locked:
            if not told:
                say(f"{folder.name}: another process is training this run; waiting for it")
            told = True
            time.sleep(0.5)
    try:
        yield
    finally:
        lock.give_back()
