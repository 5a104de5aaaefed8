"""The configuration of small S2D runs for the tests."""

from s4d_lib.training.configs import FinetuneConfig


def config(faces, mode="dfer", **more) -> FinetuneConfig:
    settings = {"name": "s", "mode": mode, "system": "s2d", "size": "nano", "stills": str(faces / "stills"),
                "clips": str(faces / "clips"), "frames": "clip_mp4", "stride": 2, "augment_stills": "LIGHT",
                "augment_clips": "LIGHT", "batch_stills": 16, "batch_clips": 6, "validation": 0.2, "epochs": 1,
                "warmup_epochs": 0.2, "device": "cpu", "lr": 1e-3, "landmarks": "random", "cache": True}
    return FinetuneConfig(**settings | more)
