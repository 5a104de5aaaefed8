"""weights/files.py: a file of ours whose header was edited is named, before what it describes takes memory."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from s4d_lib.checkpoints.loading import load_model
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size
from s4d_lib.weights.containers import BadCheckpoint
from s4d_lib.weights.files import save_model

pytestmark = pytest.mark.slow  # together a minute: left out between two edits

TINY = Size(16, 4, 8, 2, 16, 2, 2, decoder_dim=2, decoder_depth=1, decoder_heads=1)


def edited(path: Path, change) -> Path:
    """A file of ours with a changed header."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    tensors = load_file(path)
    config = json.loads(header["config"])
    made = change(header, config)
    header["config"] = made if isinstance(made, str) else json.dumps(config)
    save_file(tensors, path, metadata={key: value for key, value in header.items() if value is not None})
    return path


@pytest.mark.parametrize("change", [
    lambda h, c: "{", lambda h, c: "[]", lambda h, c: "7", lambda h, c: "null", lambda h, c: "[" * 100_000,
    lambda h, c: h.update(metadata="{"), lambda h, c: h.update(metadata="[1]"),
    lambda h, c: h.update(metadata='{"missing": 3}'), lambda h, c: h.update(metadata='{"missing": [[1]]}'),
    lambda h, c: c.update(size="giant"), lambda h, c: c.update(size=None), lambda h, c: c["size"].clear(),
    lambda h, c: c.update(strange=1), lambda h, c: c.clear(), lambda h, c: c["size"].update(patch=0),
    lambda h, c: c["size"].update(tubelet=0), lambda h, c: c["size"].update(heads=0),
    lambda h, c: c["size"].update(heads="two"), lambda h, c: c["size"].update(dim=-16),
    lambda h, c: c["size"].update(depth=10**7), lambda h, c: c["size"].update(frames=10**9),
    lambda h, c: c["size"].update(image_size=8 * 10**7), lambda h, c: c["size"].update(dim=10**9),
    lambda h, c: c["size"].update(mlp_ratio=1e12), lambda h, c: c["size"].update(mlp_ratio="4"),
    lambda h, c: c.update(classes={"video": 10**9}), lambda h, c: c.update(classes=[1]),
    lambda h, c: c.update(moae_blocks=[0], experts=10**7), lambda h, c: c.update(moae_blocks=5),
    lambda h, c: c.update(pool={}), lambda h, c: c.update(dropout="much"), lambda h, c: c["size"].update(depth=2.5),
])
@pytest.mark.parametrize("read", [load_model, S4DClassifier.from_pretrained])
def test_an_edited_header_is_named_and_takes_no_memory(tmp_path, change, read):
    torch.manual_seed(0)
    path = save_model(tmp_path / "model.safetensors", S4DClassifier(TINY, {"video": 2}))
    where = path if read is load_model else tmp_path
    assert read(where).size == TINY, "control"
    edited(path, change)
    with pytest.raises(BadCheckpoint) as refused:
        read(where)
    assert str(path) in str(refused.value)


def test_describing_a_model_draws_no_random_number(tmp_path):
    """The model is made twice, first without storage; seeds of recorded runs must give what they gave."""
    torch.manual_seed(0)
    path = save_model(tmp_path / "model.safetensors", S4DClassifier(TINY, {"video": 2}))
    torch.manual_seed(1)
    load_model(path)
    after_loading = torch.rand(1)
    torch.manual_seed(1)
    S4DClassifier(TINY, {"video": 2})
    assert torch.equal(after_loading, torch.rand(1))
