"""machine → slots     which GPUs each of several runs at a time may see, and whether the disk has room."""

import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from s4d_lib.batch.chapters import ChapterError
from s4d_lib.files import is_disk_full


def gpu_slots(jobs: int | None, gpus: str | None) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES for each run at a time: `gpus` shared out over `jobs` slots.

    Eight devices and two jobs make two slots of four; one device and three jobs make three slots that share it. "none"
    hides all devices; without `gpus` every run sees what we see. `jobs` is one a device if it is not given, and 2
    without devices. ChapterError for a device named twice, hidden from us, or unknown to the driver.
    """
    if jobs is not None and jobs < 1:
        raise ChapterError(f"jobs must be at least 1, not {jobs}")
    if gpus is None or gpus == "none":
        return ([None] if gpus is None else [""]) * (jobs or 2)
    devices = [device.strip() for device in gpus.split(",")]
    if not all(devices):
        raise ChapterError(f"--gpus takes device numbers such as 0,1 or 'none', not {gpus!r}")
    if len(set(devices)) < len(devices):
        raise ChapterError(f"--gpus {gpus} names a device twice; for two runs on one device, raise --jobs")
    known = _devices_here()
    for device in devices:
        if known is not None and device not in known:
            raise ChapterError(f"--gpus: there is no device {device!r} here; there are: {', '.join(known) or 'none'}")
    return share_out(devices, jobs or len(devices))


def share_out(devices: Sequence[str], slots: int) -> list[str]:
    """Devices → slots, each as CUDA_VISIBLE_DEVICES has it: neighbours together, or one after another where they share.

    >>> share_out(["0", "1", "2"], 2), share_out(["0", "1"], 3)
    (['0,1', '2'], ['0', '1', '0'])
    """
    if slots >= len(devices):
        return [devices[i % len(devices)] for i in range(slots)]
    edges = [math.ceil(i * len(devices) / slots) for i in range(slots + 1)]
    return [",".join(devices[a:b]) for a, b in zip(edges, edges[1:])]


def _devices_here() -> list[str] | None:
    """Names under which devices may be asked for; None where nobody can tell."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:  # a scheduler has given us these and no others
        return [device.strip() for device in visible.split(",") if device.strip()]
    rows = nvidia_smi("index,uuid")
    return None if rows is None else [name for row in rows for name in row]


def nvidia_smi(fields: str) -> list[list[str]] | None:
    """One row a device; None where there is no NVIDIA driver to ask."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [[word.strip() for word in line.split(",")] for line in done.stdout.splitlines()]


def disk_is_full(folder: Path, least: float = 32e6) -> bool:
    """Whether less than `least` bytes are free where the runs go."""
    try:
        return shutil.disk_usage(folder).free < least
    except OSError as error:
        return is_disk_full(error)
