"""config → run     train or load: a folder with the configuration, the steps, the weights and the record.

    <runs>/<name>-<fingerprint>/    config.json  metrics.jsonl  checkpoint.safetensors  model.safetensors
                                    encoder_report.txt, predictions.npz (fine-tuning), sdl.safetensors (its queues)
                                    record.json (written last, with the mark and a checksum of each other file)

The fingerprint covers the configuration and the content of the data, not the place they lie in. A finished run is
loaded if its record, its weights and their checksums belong together; an unfinished one goes on where it stopped.
Derived in chapters 06 and 07.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from s4d_lib import distributed
from s4d_lib.checkpoints.loading import load_model
from s4d_lib.errors import Refused
from s4d_lib.files import leftovers, runs_root, sha256_of, waited_for, write_atomically
from s4d_lib.precision import refuse_precision
from s4d_lib.progress import in_notebook, say
from s4d_lib.records import DataUse, Finished, Record, read_record, write_record
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig, stays_alone
from s4d_lib.training.content import data_use
from s4d_lib.training.divergence import KEPT, TOLD
from s4d_lib.training.fingerprints import require_weights, run_mark
from s4d_lib.training.fitting import finetune, pretrain
from s4d_lib.training.launch import Launch, run_ranks
from s4d_lib.training.state import CHECKPOINT, read_losses

RECORD = "record.json"
LEFT = ("model.safetensors", "sdl.safetensors", "half.safetensors", "predictions.npz", "metrics.jsonl")


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
          processes: int | Launch | None = None, verify: bool = False) -> Run:
    """Train, or load the run that this configuration on this data has already left.

    `retrain` throws an earlier run away first. Interrupting keeps every whole step; the same call goes on from there.
    `processes`: how many train together, each with its share of every step, or a `Launch` that says more; None: one a
    visible GPU. However many they are, it is the same run: the numbers differ by rounding, the folder does not.
    When another process is already at this run, this one waits for it. `verify` hashes every frame again, whatever is
    remembered of it. Refused where a finished run is not whole, or the device cannot train in this precision.
    """
    refuse_precision(config.precision, config.device)
    require_weights(config)
    data = {modality: data_use(config, modality, verify, root) for modality in config.modalities}
    mark = run_mark(config, data)
    folder = (root or runs_root()) / f"{config.name}-{mark}"
    if distributed.size() > 1:
        return _train_as_rank(config, data, folder, mark)
    launch = _launch(config, processes)
    if not retrain and (run := finished(folder, mark, data)):
        return run
    label = f"{launch.processes * launch.nodes} processes"
    if launch.node_rank > 0:  # node 0 looks after the folder, which the nodes share
        run_ranks(launch, folder, label)
        return _whole(folder, mark)
    with _alone(folder):
        if retrain and folder.exists():
            shutil.rmtree(folder)
        if run := finished(folder, mark, data):  # whoever we waited for has finished it
            return run
        if not folder.exists():
            _tell_of_others(config, folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.json", config.model_dump_json(indent=1))
        if launch.several:
            run_ranks(launch, folder, label)
        else:
            _train_here(config, data, folder, mark)
    return _whole(folder, mark)


def finished(folder: Path, mark: str, data: Mapping[str, DataUse] | None = None) -> Run | None:
    """The run that a folder holds; None where it holds no record.

    Refused where the record is another run's, or a file is not the one that the run ended with. That it was trained on
    the same faces drawn on another machine is said.
    """
    if not os.path.lexists(folder / RECORD):
        return None
    record, remedy = read_record(folder / RECORD), "train it anew with retrain (`s4d train --retrain`), or remove it"
    said = record.run
    if said is None or said.mark != mark or said.record != record.checksum():
        why = ("it does not say of which run it is" if said is None else f"it is of the run {said.mark}" if
               said.mark != mark else "it was changed after it was written")
        raise Refused(f"{folder / RECORD}: not the record of this run: {why}; {remedy}")
    for name, known in said.files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file() or sha256_of(file) != known:
            state = "is missing" if not file.is_file() else "is not the file that this run ended with"
            raise Refused(f"{file}: {state}; {remedy}")
    for before, now in zip(record.data, (data or {}).values()):
        if before.drawn and before.drawn == now.drawn and before.sha256 != now.sha256:
            say(f"{folder.name}: trained on {before.name} as another machine drew them; here some pixels differ")
    return Run(folder, record)


def leave(folder: Path, record: Record, mark: str) -> None:
    """The record of a run that is done, with its mark and the checksums of what it left; what it resumes from goes."""
    left = {name: sha256_of(folder / name) for name in LEFT if (folder / name).is_file()}
    sealed = record.model_copy(update={"run": Finished(mark=mark, files=left, record=record.checksum())})
    write_record(folder / RECORD, sealed)
    for left_over in (folder / CHECKPOINT, folder / KEPT, folder / TOLD, *leftovers(folder)):
        left_over.unlink(missing_ok=True)


def _whole(folder: Path, mark: str) -> Run:
    run = finished(folder, mark)
    if run is None:
        raise FileNotFoundError(f"{folder / RECORD}: the training has ended and left no record")
    return run


def _tell_of_others(config: Config, folder: Path) -> None:
    """Say that runs of these settings and data folders lie here under another mark, before this one begins anew."""
    if in_notebook():
        return
    asked = config.model_dump(mode="json")
    for other in sorted(folder.parent.glob(f"{config.name}-{'[0-9a-f]' * 16}")):
        try:
            same = json.loads((other / "config.json").read_text()) == asked
        except (OSError, ValueError):
            continue
        if same:
            say(f"{other.name}: the same settings and data folders under another mark: the data has changed since, or "
                "this was trained before the mark saw the data. It stays as it is; training anew")


def _train_here(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> None:
    """Train in this process, alone or as one of several; rank 0 leaves the record."""
    for left_over in leftovers(folder) if distributed.is_first() else ():  # of writers that were killed
        left_over.unlink(missing_ok=True)
    record = (pretrain if isinstance(config, PretrainConfig) else finetune)(config, data, folder, mark)
    if record is not None:
        leave(folder, record, mark)


def _train_as_rank(config: Config, data: dict[str, DataUse], folder: Path, mark: str) -> Run:
    distributed.begin(cpu=config.device == "cpu")
    # The caller holds the run. This is for a caller that was killed: the next one's rank 0 waits until ours has gone.
    with _alone(folder.with_name(f"{folder.name}.rank0")) if distributed.is_first() else nullcontext():
        distributed.barrier()
        if not (folder / RECORD).exists():
            _train_here(config, data, folder, mark)
        distributed.barrier()
    distributed.end()
    return _whole(folder, mark)


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


def _alone(folder: Path) -> AbstractContextManager[None]:
    """The right to train a run, waited for if somebody has it; the system takes it back from whoever dies."""
    return waited_for(folder.parent / ".locks" / folder.name / "lock",
                      lambda: say(f"{folder.name}: another process is training this run; waiting for it"))
