"""Size and what is built from one: its spelling, its grid, models that come back from their description."""

import json
from dataclasses import asdict

import pytest
import torch
from inventories import shapes

from s4d_lib.layers.masking import random_mask
from s4d_lib.models.autoencoder import DualModalEncoder, DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import SIZES, Size, resolve_size

SMALL = Size(15, 8, 5, 2, dim=24, depth=4, heads=2, decoder_dim=18, decoder_depth=1, decoder_heads=3)


def test_named_sizes():
    assert resolve_size("base") is SIZES["base"] and resolve_size(SMALL) is SMALL
    assert SIZES["base"].grid == (8, 10, 10) and SIZES["base"].image_grid == (1, 10, 10)
    assert SIZES["base"].pixels == 1536 and SIZES["base"].positions == "flat"
    assert SIZES["tiny"].grid == (4, 6, 6)
    encoder = DualModalMAE("tiny").encoder
    assert 500_000 < sum(p.numel() for p in encoder.parameters()) < 1_000_000


def test_a_size_has_one_spelling_and_survives_json():
    assert Size(**{**vars(SMALL), "image_size": [15, 15]}) == SMALL and SMALL.image_size == 15
    wide = Size(**{**vars(SMALL), "image_size": [10, 20]})
    assert wide.image_size == (10, 20) and (wide.height, wide.width) == (10, 20)
    assert wide.grid == (4, 2, 4) and wide.image_grid == (1, 2, 4) and hash(wide) != hash(SMALL)
    for size in (SMALL, wide):
        assert resolve_size(json.loads(json.dumps(asdict(size)))) == size
    with pytest.raises(TypeError, match="edge"):
        resolve_size({**vars(SMALL), "edge": 3})


@pytest.mark.parametrize("make", [
    lambda size: DualModalMAE(size, target_epsilon=0.01), DualModalEncoder,
    lambda size: S4DClassifier(size, {"video": 3}, (1,), 3, 1, 2.0, "reference", "positions", 0.25),
])
def test_a_model_is_rebuilt_from_its_description(make):
    model = make(Size(**{**vars(SMALL), "image_size": (10, 20)}))
    twin = type(model)(**json.loads(json.dumps(model.config)))
    assert twin.config == model.config and shapes(twin) == shapes(model)


def test_the_encoder_alone_is_the_autoencoders():
    torch.manual_seed(0)
    encoder, mae = DualModalEncoder(SMALL), DualModalMAE(SMALL)
    assert encoder.size == SMALL and shapes(encoder) == shapes(mae.encoder)
    encoder.load_state_dict(mae.encoder.state_dict())
    clip, mask = torch.randn(2, 3, 8, 15, 15), random_mask(2, SMALL.grid, 0.6)
    assert torch.equal(encoder(clip, mask), mae.encoder(clip, mask))
    for name, value in DualModalEncoder("tiny").named_parameters():
        if value.ndim == 2:
            assert value.std().item() == pytest.approx((2 / sum(value.shape)) ** 0.5, rel=0.05), f"{name}: Xavier"


@pytest.mark.parametrize("change, said", [
    ({"patch": 4}, "image_size must be a multiple of patch, got 15 and 4"),
    ({"image_size": (20, 12)}, r"image_size must be a multiple of patch, got \(20, 12\) and 5"),
    ({"image_size": (15,)}, "one number of pixels or"),
    ({"tubelet": 3}, "frames must be a multiple of tubelet"),
    ({"heads": 5}, "dim must be a multiple of heads"),
    ({"decoder_heads": 4}, "decoder_dim must be a multiple of decoder_heads"),
    ({"positions": "learned"}, "positions must be one of"),
])
def test_an_impossible_size_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        Size(**{**vars(SMALL), **change})
