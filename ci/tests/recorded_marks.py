"""The fingerprints of every recorded configuration, with fixed stand-ins for data and weights, and of five real runs.

    python ci/tests/recorded_marks.py            # writes data/fingerprints.json; test_fingerprints.py compares with it

Marks of recorded configurations were written when the first records were made, with stand-ins that say nothing of
lists, so they hold the settings fast. The five real runs were written once more, when the mark learned to see labels,
groups and frames. Whoever must write the file again makes every earlier run unfindable.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from s4d_lib.files import RESULTS
from s4d_lib.records import DataUse
from s4d_lib.training.configs import Config, FinetuneConfig, PretrainConfig
from s4d_lib.training.content import data_use
from s4d_lib.training.fingerprints import run_mark

WRITTEN = Path(__file__).parent / "data" / "fingerprints.json"
STAND_IN = {"stills": DataUse(name="stills", sha256="5" * 64), "clips": DataUse(name="clips", sha256="c" * 64)}


def configurations(found: object, place: str = "") -> Iterator[tuple[str, dict]]:
    """(place, settings) of every configuration inside a record's JSON."""
    if isinstance(found, dict) and found.get("stage") in ("pretrain", "finetune"):
        yield place, found
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from configurations(value, f"{place}/{key}")


def rebuilt(settings: dict, folder: Path) -> Config:
    """The configuration; of weights a record keeps names, so a small file with that name as content stands for each."""
    stage = PretrainConfig if settings["stage"] == "pretrain" else FinetuneConfig
    settings = {name: value for name, value in settings.items() if name in stage.model_fields or value is not None}
    for name in ("init", "landmarks"):
        said = settings.get(name)
        if said is not None and name == "landmarks" and said.split(" ")[0] in ("shipped", "random"):
            settings[name] = said.split(" ")[0]
        elif said is not None:
            settings[name] = str(folder / said.replace(" ", "_"))
            Path(settings[name]).write_text(said)
    return stage(**settings)


def recorded(folder: Path) -> dict[str, str]:
    """record/place → fingerprint, for every configuration in the committed records."""
    marks = {}
    for path in sorted(RESULTS.glob("*.json")):
        for place, settings in configurations(json.loads(path.read_text())):
            marks[f"{path.stem}{place}"] = run_mark(rebuilt(settings, folder), STAND_IN)
    return marks


def tables(folder: Path) -> dict[str, object]:
    """Settings that read two small tables with empty files: their content is names and labels, the same everywhere."""
    for kind, ending in (("stills", "jpg"), ("clips", "mp4")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        rows = [(f"{i:02}.{ending}", i % 7, "test" if i % 4 == 0 else "train") for i in range(28)]
        for name, _, _ in rows:
            (folder / kind / name).touch()
        lines = ["path,label,split", *(f"{name},{label},{split}" for name, label, split in rows), ""]
        (folder / kind / "labels.csv").write_text("\n".join(lines))
    return {"stills": str(folder / "stills"), "clips": str(folder / "clips"), "stills_as": "table",
            "clips_as": "table", "stills_schema": "affectnet7", "clips_schema": "dfew", "label_base": 0}


def real(folder: Path) -> dict[str, Config]:
    """Whole configurations with data and weights of their own."""
    small = {"size": "tiny", "stride": 2, "augment_stills": "LIGHT", "augment_clips": "LIGHT"}
    data = tables(folder)
    return {
        "pretraining": PretrainConfig(name="p", **data, **small),
        "moae from the shipped encoder": FinetuneConfig(name="f", mode="moae", init="shipped", **data, **small),
        "s2d, shipped landmarks": FinetuneConfig(name="s", mode="dfer", system="s2d", **data, **small),
        "s2d without prompts": FinetuneConfig(name="s", mode="sfer", system="s2d", prompts=False, **data, **small),
        "s2d, remembered landmarks": FinetuneConfig(name="s", mode="dfer", system="s2d", landmark_memory=str(folder),
                                                    **data, **small),
    }


def mark_of(config: Config) -> str:
    return run_mark(config, {modality: data_use(config, modality) for modality in config.modalities})


def all_marks(folder: Path) -> dict[str, str]:
    return recorded(folder) | {name: mark_of(config) for name, config in real(folder).items()}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        found = all_marks(Path(place))
    WRITTEN.write_text(json.dumps(found, indent=1) + "\n")
