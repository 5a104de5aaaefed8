"""analysis/prompt_maps.py: maps are what passes through the model, and silencing is the model without the part."""

import pytest
import torch
from torch import nn

from s4d_lib.analysis.prompt_maps import prompt_maps, without
from s4d_lib.models.s2d import S2DClassifier

GRID, T, DIM = (2, 3), 4, 16


def network(**changes) -> S2DClassifier:
    torch.manual_seed(0)
    model = S2DClassifier(**{"image_size": (16, 24), "frames": T, "patch": 8, "dim": DIM, "depth": 3, "heads": 2,
                             "temporal_heads": 2, "num_classes": 5} | changes)
    with torch.no_grad():  # fresh weights are so small that nothing would matter
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


@pytest.fixture
def inputs():
    return torch.randn(2, 3, T, 16, 24), torch.randn(2 * T, 128, *GRID)


@torch.no_grad()
def test_maps_of_the_first_block_by_hand(inputs):
    model, (clip, landmarks) = network(), (inputs[0][:1], inputs[1][:T])
    maps = prompt_maps(model, clip, landmarks)
    tokens = model.patch_embed(clip[0].transpose(0, 1))
    z = model.prompt_norms[0](tokens)
    mcp = model.prompt_blocks[0]
    g = torch.einsum("tnd, pd -> tpn", z, mcp.conv0_0.weight[:, :, 0, 0]) + mcp.conv0_0.bias[:, None]
    weight = (mcp.fovea.smooth * g).softmax(-1)
    prompt = mcp(z, model.prompt_norms[0](model.patch_embed_prompt(landmarks)), GRID)
    by_hand = {"fovea": weight.mean(1), "image": (weight * g).norm(dim=1), "prompt": prompt.norm(dim=-1),
               "adapter": mcp.TMA(z, T).norm(dim=-1)}
    for name, wanted in by_hand.items():
        found = torch.from_numpy(getattr(maps, name)[0]).float()
        torch.testing.assert_close(found, wanted.unflatten(1, GRID), msg=lambda m, name=name: f"{name}: {m}")
    assert maps.tokens.shape == (3, T, *GRID) == maps.landmarks.shape
    assert torch.allclose(torch.from_numpy(maps.fovea.sum((2, 3))), torch.ones(3, T, dtype=torch.float64))


def test_loudness_is_what_is_added_over_what_is_there(inputs):
    maps = prompt_maps(network(), inputs[0][:1], inputs[1][:T])
    for i, value in enumerate(maps.loudness("adapter")):
        assert value == pytest.approx(maps.adapter[i].mean() / maps.tokens[i].mean(), rel=1e-3)


def test_an_image_model_has_maps_and_no_adapter():
    model = network(frames=1, temporal=False)
    maps = prompt_maps(model, torch.randn(1, 3, 16, 24), torch.randn(1, 128, *GRID))
    assert maps.prompt.shape == (3, 1, *GRID) and not maps.adapter.any() and maps.prompt.all()


def test_looking_changes_nothing(inputs):
    model = network().train()
    prompt_maps(model, inputs[0][:1], inputs[1][:T])
    assert model.training and not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    with pytest.raises(ValueError, match="one clip with a model that has prompts, got 2 clips"):
        prompt_maps(model, *inputs)
    with pytest.raises(ValueError, match="prompts=False"):
        prompt_maps(network(prompts=False), inputs[0][:1])


def zeroed(model: S2DClassifier, part: str, blocks: range) -> S2DClassifier:
    for i in blocks:
        block = model.prompt_blocks[i]
        for layer in (block.conv1x1,) if part == "prompts" else (block.TMA.S_Adapter.D_fc2,):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


@pytest.mark.parametrize("part", ["prompts", "time"])
@pytest.mark.parametrize("blocks", [None, [1]])
@torch.no_grad()
def test_silence_is_the_model_whose_last_layer_says_nothing(inputs, part, blocks):
    model = network()
    spoken = model(*inputs)
    with without(model, part, blocks=blocks) as hushed:
        silent = hushed(*inputs)
    torch.testing.assert_close(silent, zeroed(network(), part, blocks or range(3))(*inputs))
    assert torch.equal(model(*inputs), spoken), "afterwards the part speaks again"
    assert not torch.allclose(silent, spoken), "control: the part must matter"


@torch.no_grad()
def test_without_time_a_frame_knows_no_other_and_without_prompts_landmarks_do_not_matter(inputs):
    model, (clip, landmarks) = network(), inputs
    other, dark = clip.clone(), torch.zeros_like(landmarks)
    other[:, :, -1] = 0
    for parts, alone in ((("time",), True), ((), False)):
        with without(model, *parts):
            kept = [model.forward_features(x, landmarks)[:, : T - 1] for x in (clip, other)]
        assert torch.equal(*kept) == alone, f"{parts or 'nothing'} silenced: the other frames see the last one or not"
    with without(model, "prompts"):
        assert torch.equal(model(clip, dark), model(clip, landmarks))
    assert not torch.allclose(model(clip, dark), model(clip, landmarks))
    with pytest.raises(ValueError, match="parts are prompts and time, got 'space'"), without(model, "space"):
        pass


@torch.no_grad()
def test_only_the_embedding_of_moments_knows_the_order_of_frames(inputs):
    """Attention over time and a mean over frames treat all orders alike: the claim of chapter 11."""
    model, (clip, landmarks) = network(), inputs
    order = [2, 0, 3, 1]
    mixed = clip[:, :, order], landmarks.unflatten(0, (2, T))[:, order]
    assert not torch.allclose(model(*mixed), model(clip, landmarks), atol=1e-3)
    nn.init.zeros_(model.temporal_embedding)
    torch.testing.assert_close(model(*mixed), model(clip, landmarks), atol=1e-4, rtol=1e-4)
