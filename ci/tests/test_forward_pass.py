"""Whole forward passes of the models against the slow oracle, in every geometry that a Size can have."""

import numpy as np
import pytest
import slow_s4d
import torch

from s4d_lib.layers.masking import random_mask, visible_index
from s4d_lib.models.autoencoder import DualModalMAE
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

REFERENCE = Size(12, 6, 4, 2, dim=12, depth=3, heads=2, decoder_dim=8, decoder_depth=2, decoder_heads=4)
# What changes against the reference, and the grid of a clip.
GEOMETRIES = {
    "as released: a square": ({}, (3, 3, 3)),
    "another picture size": ({"image_size": 20}, (3, 5, 5)),
    "another frame count": ({"frames": 10}, (5, 3, 3)),
    "another patch": ({"patch": 3}, (3, 4, 4)),
    "another tubelet": ({"tubelet": 3}, (2, 3, 3)),
    "a tubelet of one frame": ({"tubelet": 1, "frames": 4}, (4, 3, 3)),
    "wide": ({"image_size": (8, 20)}, (3, 2, 5)),
    "tall, and all of it": ({"image_size": (15, 9), "patch": 3, "tubelet": 4, "frames": 8}, (2, 5, 3)),
}
geometries = pytest.mark.parametrize("changes, grid", GEOMETRIES.values(), ids=GEOMETRIES)


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough for every part to matter, biases and norms included."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")),
                              std=0.5 if parameter.ndim == 1 else 0.7 * parameter[0].numel() ** -0.5)
    return model.eval()


def classifier(changes: dict, **settings) -> S4DClassifier:
    settings = {"moae_blocks": (1, 2), "experts": 3, **settings}
    return lively(S4DClassifier(Size(**{**vars(REFERENCE), **changes}), {"image": 4, "video": 5}, **settings))


def inputs(size: Size, batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"image": torch.randn(batch, 3, size.height, size.width),
            "video": torch.randn(batch, 3, size.frames, size.height, size.width)}


def agree(ours: torch.Tensor, slow: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), slow, rtol=1e-5, atol=1e-5)


@geometries
@torch.no_grad()
def test_the_classifier_is_the_slow_one_in_every_geometry(changes, grid):
    model = classifier(changes)
    assert model.size.grid == grid
    state = slow_s4d.as_state(model)
    for task, x in inputs(model.size).items():
        logits = model(x)
        assert logits.shape == (2, {"image": 4, "video": 5}[task]) and logits.std() > 0.1
        agree(logits, slow_s4d.classify(state, x.numpy(), heads=2))


@torch.no_grad()
def test_the_comparison_would_see_positions_of_another_grid():
    model = classifier({"image_size": (8, 20)})
    state, x = slow_s4d.as_state(model), inputs(model.size)["video"]
    kept = slow_s4d.classify(state, x.numpy(), heads=2, grid=(3, 3, 3))  # the table of the released geometry
    assert np.abs(model(x).numpy() - kept).max() > 1e-2
    turned = slow_s4d.classify(state, x.transpose(3, 4).numpy(), heads=2)
    assert np.abs(model(x).numpy() - turned).max() > 1e-2, "height and width are not the same thing"


@torch.no_grad()
def test_without_experts_it_is_the_plain_transformer():
    model = classifier({"image_size": (8, 12)}, moae_blocks=())
    for x in inputs(model.size).values():
        agree(model(x), slow_s4d.classify(slow_s4d.as_state(model), x.numpy(), heads=2))


def quiet(model: S4DClassifier) -> S4DClassifier:
    """A reference-behaviour model whose noise is too small to be a number: softplus(-200) = 0 in float32."""
    for i in (1, 2):
        noise = model.blocks[i].moe_layer.router.noise_linear
        torch.nn.init.zeros_(noise.weight)
        torch.nn.init.constant_(noise.bias, -200.0)
    return model


@pytest.mark.parametrize("factor", [0.4, 1.0])
@torch.no_grad()
def test_full_experts_turn_away_the_same_tokens(factor):
    model = quiet(classifier({"image_size": (8, 12)}, behaviour="reference", capacity_factor=factor))
    state = slow_s4d.as_state(model)
    for x in inputs(model.size, batch=3).values():
        agree(model(x), slow_s4d.classify(state, x.numpy(), heads=2, capacity_factor=factor))
        assert any(routing.dropped.any() for routing in model.routing())
        roomy = slow_s4d.classify(state, x.numpy(), heads=2)
        assert np.abs(model(x).numpy() - roomy).max() > 1e-3, "the control: with room for all it is another answer"


@torch.no_grad()
def test_one_and_three_experts_per_token():
    for top_k in (1, 3):
        model = classifier({}, top_k=top_k)
        x = inputs(model.size)["video"]
        agree(model(x), slow_s4d.classify(slow_s4d.as_state(model), x.numpy(), heads=2, top_k=top_k))


@geometries
@torch.no_grad()
def test_the_autoencoder_is_the_slow_one_in_every_geometry(changes, grid):
    model = lively(DualModalMAE(Size(**{**vars(REFERENCE), **changes})))
    state = slow_s4d.as_state(model)
    for task, x in inputs(model.size).items():
        tokens = grid if task == "video" else (1, *grid[1:])
        mask = random_mask(2, tokens, 0.7, torch.Generator().manual_seed(2))
        prediction, loss = slow_s4d.reconstruct(state, x.numpy(), mask.numpy(), heads=2, decoder_heads=4)
        output = model(x, mask)
        agree(output.prediction, prediction)
        assert output.loss.item() == pytest.approx(loss, rel=1e-5)


@torch.no_grad()
def test_the_autoencoders_comparison_would_see_latents_out_of_place():
    model = lively(DualModalMAE(REFERENCE))
    x, mask = inputs(REFERENCE)["video"], random_mask(2, REFERENCE.grid, 0.7, torch.Generator().manual_seed(2))
    shifted = torch.roll(mask, 1, dims=1)
    assert visible_index(shifted).shape == visible_index(mask).shape
    slow, _ = slow_s4d.reconstruct(slow_s4d.as_state(model), x.numpy(), shifted.numpy(), heads=2, decoder_heads=4)
    assert np.abs(model(x, mask).prediction.numpy() - slow).max() > 1e-2


@pytest.mark.parametrize("changes", [{"image_size": (8, 20)}, {"image_size": (20, 8), "frames": 8, "tubelet": 4}])
@torch.no_grad()
def test_a_picture_that_is_not_square_is_put_together_again(changes):
    model = lively(DualModalMAE(Size(**{**vars(REFERENCE), **changes})))
    s = model.size
    std, mean = torch.tensor([[0.229, 0.224, 0.225], [0.485, 0.456, 0.406]]).view(2, 3, 1, 1, 1)
    pixels = torch.rand(2, 3, s.frames, s.height, s.width)
    clip = (pixels - mean) / std
    mask = random_mask(2, s.grid, 0.5, torch.Generator().manual_seed(0))
    picture = model.reconstruct(clip, mask)
    assert picture.shape == pixels.shape and model.patches(clip).shape == (2, mask.shape[1], s.pixels)
    for n in range(mask.shape[1]):
        t, y, x = n // (s.grid[1] * s.grid[2]), n // s.grid[2] % s.grid[1], n % s.grid[2]
        for b in range(2):
            box = (b, slice(None), slice(t * s.tubelet, (t + 1) * s.tubelet), slice(4 * y, 4 * y + 4),
                   slice(4 * x, 4 * x + 4))
            same = torch.allclose(picture[box], pixels[box], atol=1e-5)
            assert same is not bool(mask[b, n]), "visible boxes stay, hidden ones are predicted"


@torch.no_grad()
def test_pooling_by_places_on_a_picture_that_is_not_square():
    model = classifier({"image_size": (8, 20)}, pool="positions")
    clip, image = inputs(model.size)["video"], inputs(model.size)["image"]
    features = model.features(clip)
    assert features.shape == (2, 2 * 5 * 12) == model.features(image).shape
    latents = model.encode(clip).unflatten(1, (3, 2, 5)).mean(1)
    torch.testing.assert_close(features.unflatten(1, (2, 5, 12)), model.fc_norm(latents))
    assert model(clip).shape == (2, 5) and model(image).shape == (2, 4)


def test_weights_pass_between_picture_sizes_but_not_between_patches():
    """What has no formula keeps its shape; positions are computed anew for the grid."""
    state = classifier({}).state_dict()
    classifier({"image_size": (8, 20), "frames": 10}).load_state_dict(state)
    with pytest.raises(RuntimeError, match="patch_embed.proj.weight"):
        classifier({"patch": 3}).load_state_dict(state)
