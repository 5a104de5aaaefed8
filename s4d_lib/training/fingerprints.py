"""config → fingerprint, record     by what a run is known, and what it says of itself when it is done.

The fingerprint covers the configuration and the content of the data (`content.py`), not the place they lie in, nor by
how many processes it was computed. The record names the protocol beside the published one. Derived in chapters 06 and
07.
"""

from __future__ import annotations

from pathlib import Path

from s4d_lib import distributed
from s4d_lib.datasets.protocols import PROTOCOLS, Protocol, compare
from s4d_lib.errors import Refused
from s4d_lib.files import sha256_of
from s4d_lib.precision import COMPUTES_IN, device_of
from s4d_lib.records import DataUse, Record, code_state, device_state, fingerprint, peak_memory_mb
from s4d_lib.training.configs import Config, FinetuneConfig, geometry
from s4d_lib.training.data import validates_on_list
from s4d_lib.training.later import unused
from s4d_lib.training.state import Progressed
from s4d_lib.weights.files import SHIPPED
from s4d_lib.weights.wheels import FACE_MESH, WHEELS

TEST_VIEWS = ("two temporal views, mean softmax (arXiv 2409.06154v2; released finetune/datasets/kinetics.py:449-464 "
              "and finetune/engine_for_finetuning.py:368-436)")


def run_mark(config: Config, data: dict[str, DataUse]) -> str:
    """The fingerprint of a run: its settings and the content of its data. Not in it: places, and how it is computed.

    Settings that came after the first runs (`later.py`) count where they are used, so that those stay loadable.
    """
    apart = {"stills", "clips", "init", "workers", "cache", "checkpoint_minutes", "landmark_memory"} | unused(config)
    s2d = getattr(config, "system", "s4d") == "s2d"
    apart |= {"landmarks"} if s2d else set()  # like data and `init` it counts by its content, not by its place
    content = [config.model_dump(exclude=apart), [of_data(use) for use in data.values()], _init_hash(config)]
    if s2d:
        content.append(landmarks_hash(config))
    return fingerprint(content)


def of_data(use: DataUse) -> dict:
    """What of a data set counts: its lists, and its frames or what they were drawn from.

    The same faces drawn on another machine may differ by rounding, and are the same data. The third form is that of
    runs before the mark saw the data.
    """
    if use.lists is None:
        return {"name": use.name, "sha256": use.sha256, "counts": {}, "skipped": []}
    return {"lists": use.lists} | ({"drawn": use.drawn} if use.drawn else {"frames": use.sha256})


def _init_hash(config: Config) -> str | None:
    init = getattr(config, "init", None)
    return _weights_hash("init", init_path(init)) if init else None


def require_weights(config: Config) -> None:
    """Refused, before anything is read, where a configuration names weights that are not there."""
    s2d = getattr(config, "system", "s4d") == "s2d" and config.prompts
    init, landmarks = getattr(config, "init", None), config.landmarks if s2d else None
    paths = {"init": init and init_path(init), "landmarks": None if landmarks in (None, "shipped", "random", FACE_MESH)
             else Path(landmarks)}
    for setting, path in paths.items():
        if path is not None and not path.exists():
            raise Refused(f"{setting}: {path} is not there; name a file of weights, or 'shipped'")


def _weights_hash(setting: str, path: Path) -> str:
    """The sha256 of a file of weights, or of those in a folder. Refused, by setting, where there is none."""
    try:
        if not path.is_dir():
            return sha256_of(path)
        parts = sorted(part for part in path.iterdir() if part.suffix in (".safetensors", ".bin", ".pth", ".json"))
        if not parts:
            raise Refused(f"{setting}: {path} is a folder without weights; name a file of weights")
        return fingerprint([(part.name, sha256_of(part)) for part in parts])
    except OSError as error:
        raise Refused(f"{setting}: {path} cannot be read ({error.strerror}); name a file of weights") from error


def landmarks_hash(config: FinetuneConfig) -> str | None:
    """Checksum of the landmark network's file for the fingerprint of a run; None without prompts."""
    if not config.prompts:
        return None
    if config.landmarks == "random":
        return "random"
    if config.landmarks == FACE_MESH:
        return WHEELS[FACE_MESH].sha256
    path = SHIPPED["landmarks"] if config.landmarks == "shipped" else Path(config.landmarks)
    # Remembered features are rounded, so a run with a memory is another run (models/landmark_memory.py).
    return _weights_hash("landmarks", path) + ("+memory" if config.landmark_memory else "")


def init_path(init: str) -> Path:
    return SHIPPED["encoder"] if init == "shipped" else Path(init)


def finetune_headline(config: FinetuneConfig, outcome: dict) -> str:
    parts = []
    for modality in config.modalities:
        found = outcome[f"test_{modality}"]
        parts.append(f"{'DFER' if modality == 'clip' else 'SFER'} WAR {found['war']['value']:.1f} "
                     f"UAR {found['uar']['value']:.1f}")
    return f"{'S2D ' if config.system == 's2d' else ''}{config.mode}: " + ", ".join(parts)


def run_record(config: Config, kind: str, headline: str, where: Progressed, outcome: dict, data: dict[str, DataUse],
            counts: dict[str, dict[str, int]], skipped: dict[str, list[str]]) -> Record:
    device = device_of(config.device)
    protocol = {"test": TEST_VIEWS}
    if isinstance(config, FinetuneConfig):
        protocol |= {"epoch_rule": config.epoch_rule, "fold": config.fold, "validation": _validation(config),
                     "split_seed": config.split_seed, "select": config.select}
        protocol |= {m: _protocol(config, m) for m in config.modalities}
    return Record(
        name=config.name, kind=kind, headline=headline, tier=config.tier, seeds=[config.seed],
        config=config.model_dump(mode="json", exclude={"stills", "clips", "init"}) | _names(config),
        protocol=protocol if kind == "finetune" else {}, results=outcome,
        data=[data[m].model_copy(update={"counts": counts[m], "skipped": skipped[m]}) for m in counts],
        code=code_state(), wall_seconds=where.seconds,
        device=device_state(device) | {"computed_in": COMPUTES_IN[config.precision]} | distributed.state(),
        peak_memory_mb=peak_memory_mb(device),
    )


def _validation(config: FinetuneConfig) -> float | dict[str, float | str]:
    """The share that was cut off the training list; by modality where the lists have a validation split."""
    of = {m: "listed" if validates_on_list(config, m) else config.validation for m in config.modalities}
    return of if "listed" in of.values() else config.validation


def _protocol(config: FinetuneConfig, modality: str) -> dict:
    """The protocol of this run as an object, and what sets it apart from the published one on the same data set."""
    (side, frames), still = geometry(config), modality == "image"
    name = config.stills_as if still else config.clips_as
    here = Protocol(
        "this run", "this run", name, config.schema(modality).name, None if still else Path(config.frames).name,
        clip_frames=None if still else frames, stride=None if still else config.stride,
        short_clip=None if still else PROTOCOLS["s4d/dfew"].short_clip, image_size=side,
        short_clip_test=None if still else PROTOCOLS["s4d/dfew"].short_clip_test,
        test_views="the whole picture" if still else "2 temporal views, mean softmax", metric="WAR and UAR",
        epoch_rule=config.epoch_rule, oversampling="equal classes" if modality in config.balance else "none",
        source={"all": "the configuration in this record"})
    published = f"{config.system}/{name}"
    differences = compare(PROTOCOLS[published], here) if published in PROTOCOLS else None
    return {**here.as_dict(), "published": published if differences is not None else None, "differences": differences}


def _names(config: Config) -> dict[str, str | None]:
    """The settings that may be absolute paths, without the folders."""
    named = {"init": _init_name(config), "frames": Path(config.frames).name}
    if getattr(config, "system", "s4d") == "s2d" and config.landmarks:
        named["landmarks"] = f"{Path(config.landmarks).name} ({(landmarks_hash(config) or 'unused')[:16]})"
    if getattr(config, "landmark_memory", None):
        named["landmark_memory"] = Path(config.landmark_memory).name
    return named


def _init_name(config: Config) -> str | None:
    """What the run started from, without the folder it lay in."""
    init = getattr(config, "init", None)
    return f"{init_path(init).name} ({_init_hash(config)[:16]})" if init else None

