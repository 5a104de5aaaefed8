"""Small runs of S2D for the tests: their configuration, the two stages, a run that is broken off."""

import pytest

from s4d_lib import training
from s4d_lib.runs import train
from s4d_lib.stages import FinetuneConfig


def config(faces, mode="dfer", **more) -> FinetuneConfig:
    settings = {"name": "s", "mode": mode, "system": "s2d", "size": "nano", "stills": str(faces / "stills"),
                "clips": str(faces / "clips"), "frames": "clip_mp4", "stride": 2, "augment_stills": "LIGHT",
                "augment_clips": "LIGHT", "batch_stills": 16, "batch_clips": 6, "validation": 0.2, "epochs": 1,
                "warmup_epochs": 0.2, "device": "cpu", "lr": 1e-3, "landmarks": "random", "cache": True}
    return FinetuneConfig(**settings | more)


def interrupted(monkeypatch, wanted, root, after):
    """Train, break off between two steps after `after` updates, and train again."""
    step, calls = training._update, []

    def stopping(*args):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return step(*args)

    monkeypatch.setattr(training, "_update", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, root)
    monkeypatch.setattr(training, "_update", step)
    return train(wanted, root)
