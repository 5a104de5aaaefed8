"""models/s2d.py against the released model: outputs, key names, what is frozen; and a slow one in other sizes."""

import json
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
from einops import rearrange
from slow_s2d import SMALL, inputs, relative, scrambled, slow_features
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s4d_lib.models.landmark_net import LandmarkNet
from s4d_lib.models.s2d import S2DClassifier

DATA = Path(__file__).parent / "data"
# The tiny model behind the released outputs.
RELEASED = {"frames": 2, "dim": 32, "depth": 3, "heads": 4, "mlp_ratio": 2.0, "landmark_channels": 16,
            "adapter_ratio": 0.5}


def released() -> tuple[S2DClassifier, dict[str, torch.Tensor]]:
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / "s2d_tiny.npz").items()}
    model = S2DClassifier(**RELEASED)
    model.load_state_dict({key.removeprefix("state."): value for key, value in arrays.items() if "state." in key})
    return model.eval(), arrays | {"clip": arrays["clip"].float()}


@torch.no_grad()
def test_the_model_answers_as_released():
    model, arrays = released()
    clip, landmarks = arrays["clip"], arrays["landmarks"]
    assert relative(model(clip, landmarks), arrays["expect.logits"]) < 1e-5
    assert relative(model.features(clip, landmarks), arrays["expect.features"]) < 1e-5
    by_clip = rearrange(landmarks, "(b t) c h w -> b t c h w", t=2)
    assert torch.equal(model(clip, by_clip), model(clip, landmarks))


def no_fovea(model: S2DClassifier) -> None:
    for block in model.prompt_blocks:
        block.fovea = nn.Identity()


def no_adapter(model: S2DClassifier) -> None:
    for block in model.prompt_blocks:
        block.TMA.forward = lambda x, frames: torch.zeros_like(x)


def own_norms(model: S2DClassifier) -> None:
    """Block i with norm i for both streams, as one would have numbered them."""
    def prompt(self, i, patches, told):
        x, block = self.prompt_norms[i](patches), self.prompt_blocks[i]
        told = block(x, self.prompt_norms[i](told), self.grid)
        return patches + told + block.TMA(x, self.frames), told

    model._prompt = MethodType(prompt, model)


def time_before_batch(model: S2DClassifier) -> None:
    for block in model.prompt_blocks:
        def mix(x, frames, adapter=block.TMA, forward=block.TMA.forward):
            swapped = rearrange(x, "(t b) n d -> (b t) n d", t=frames)
            return rearrange(forward(swapped, frames), "(b t) n d -> (t b) n d", t=frames)

        block.TMA.forward = mix


def trunk_epsilon_in_the_adapter(model: S2DClassifier) -> None:
    for block in model.prompt_blocks:
        block.TMA.norm.eps = 1e-6


def default_epsilon_in_the_trunk(model: S2DClassifier) -> None:
    for block in model.blocks:
        block.norm1.eps = block.norm2.eps = 1e-5


def no_time(model: S2DClassifier) -> None:
    model.temporal_embedding.data.zero_()


@pytest.mark.parametrize("change, least", [
    (no_fovea, 0.1), (no_adapter, 0.1), (own_norms, 0.02), (time_before_batch, 0.02), (no_time, 0.02),
    (trunk_epsilon_in_the_adapter, 2e-5), (default_epsilon_in_the_trunk, 2e-5),
])
@torch.no_grad()
def test_the_released_features_tell_variants_apart(change, least):
    model, arrays = released()
    change(model)
    assert relative(model.features(arrays["clip"], arrays["landmarks"]), arrays["expect.features"]) > least


@torch.no_grad()
def test_landmarks_come_clip_by_clip():
    model, arrays = released()
    frame_by_frame = rearrange(arrays["landmarks"], "(b t) c h w -> (t b) c h w", t=2)
    assert relative(model.features(arrays["clip"], frame_by_frame), arrays["expect.features"]) > 0.02


@pytest.mark.parametrize("change", [
    {}, {"image_size": (6, 4), "patch": 2, "frames": 3, "depth": 4}, {"image_size": 6, "patch": 3, "frames": 1},
])
@torch.no_grad()
def test_other_sizes_equal_a_slow_model(change):
    model = scrambled(**change).eval()
    c = model.config
    generator = torch.Generator().manual_seed(2)
    clip = torch.randn(3, 3, c["frames"], *model.image_size, generator=generator)
    landmarks = torch.randn(3, c["frames"], 7, *model.grid, generator=generator)
    weights = {key: value.double() for key, value in model.state_dict().items()}
    numbers = {key: c[key] for key in ("patch", "heads", "temporal_heads", "depth")}
    expected = torch.stack([slow_features(weights, a.double(), b.double(), **numbers) for a, b in zip(clip, landmarks)])
    features = model.features(clip, landmarks)
    assert features.shape == (3, 24) and relative(features, expected.float()) < 1e-5
    logits = expected @ weights["head.fc_cls.weight"].T + weights["head.fc_cls.bias"]
    assert relative(model(clip, landmarks), logits.float()) < 1e-5


def block_keys(i: int, d: int, hidden: int, prompt_dim: int) -> dict[str, list[int]]:
    prompt, block = f"prompt_blocks.{i}.", f"blocks.{i}."
    linear = {f"{prompt}TMA.{part}.D_fc1": [hidden, d] for part in ("T_Adapter", "S_Adapter")}
    linear |= {f"{prompt}TMA.{part}.D_fc2": [d, hidden] for part in ("T_Adapter", "S_Adapter")}
    linear |= {f"{prompt}conv0_0": [prompt_dim, d, 1, 1], f"{prompt}conv0_1": [prompt_dim, d, 1, 1],
               f"{prompt}conv1x1": [d, prompt_dim, 1, 1], f"{prompt}TMA.T_Adapter.attn.proj": [hidden, hidden],
               f"{block}attn.qkv": [3 * d, d], f"{block}attn.proj": [d, d], f"{block}mlp.fc1": [4 * d, d],
               f"{block}mlp.fc2": [d, 4 * d]}
    for name in (f"{prompt}TMA.norm", f"prompt_norms.{i}", f"{block}norm1", f"{block}norm2"):
        linear[name] = [d]
    keys = {f"{prompt}fovea.smooth": [1], f"{prompt}TMA.T_Adapter.attn.qkv.weight": [3 * hidden, hidden]}
    for name, shape in linear.items():
        keys |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return keys


def base(**changes) -> S2DClassifier:
    with torch.device("meta"):
        return S2DClassifier(**changes)


def test_the_keys_are_the_released_inventory():
    expected = {"cls_token": [1, 1, 768], "pos_embed": [1, 197, 768], "temporal_embedding": [1, 16, 768],
                "patch_embed.proj.weight": [768, 3, 16, 16], "patch_embed.proj.bias": [768],
                "patch_embed_prompt.proj.weight": [768, 128, 1, 1], "patch_embed_prompt.proj.bias": [768],
                "ln_post.weight": [768], "ln_post.bias": [768], "head.fc_cls.weight": [11, 768],
                "head.fc_cls.bias": [11]}
    for i in range(12):
        expected |= block_keys(i, d=768, hidden=192, prompt_dim=8)
    state = base(num_classes=11).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == expected
    assert len(state) == 419
    own = base(landmark_net=True).state_dict()
    assert len(own) == 419 + 333
    assert {key.removeprefix("landmark_net.") for key in own.keys() - state.keys()} == LandmarkNet().state_dict().keys()


@pytest.mark.parametrize("landmark_net", [False, True])
def test_a_tenth_of_the_parameters_is_trained(landmark_net):
    model = base(landmark_net=landmark_net)
    assert model.freeze_image_model() is model
    total = sum(p.numel() for p in model.parameters())
    assert total == 95_055_571 + (1_007_248 if landmark_net else 0)
    trained: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.partition(".")[0]
            part = part if part != "prompt_blocks" else "TMA" if ".TMA." in name else "MCP"
            trained[part] = trained.get(part, 0) + parameter.numel()
    assert trained == {"TMA": 8_891_136, "MCP": 230_604, "patch_embed_prompt": 99_072, "prompt_norms": 18_432,
                       "temporal_embedding": 12_288, "ln_post": 1_536, "head": 5_383}
    assert sum(trained.values()) == 9_258_451


def test_compute_is_that_of_the_released_s2d():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        base()(torch.empty(1, 3, 16, 224, 224), torch.empty(16, 128, 14, 14))
    assert counter.get_total_flops() / 2e9 == pytest.approx(309.99, abs=0.005)


def test_what_is_frozen_gets_no_gradient():
    model = scrambled().freeze_image_model()
    model(*inputs()).square().sum().backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for name, p in model.named_parameters() if name not in trainable)
    # Released numbering: the last prompt norm belongs to no block.
    assert touched == trainable - {"prompt_norms.2.weight", "prompt_norms.2.bias"}
    whole = scrambled()
    assert {name for name, p in whole.named_parameters() if not p.requires_grad} == {"pos_embed"}


@pytest.mark.parametrize("freeze", [False, True])
def test_checkpointing_changes_neither_outputs_nor_gradients(freeze):
    answers = []
    for enable in (False, True):
        model = scrambled(dropout=0.5)
        if freeze:
            model.freeze_image_model()
        model.set_grad_checkpointing(enable)
        calls = []
        model.blocks[1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(3)
        logits = model(*inputs())
        logits.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        answers.append((logits, gradients, len(calls)))
    (plain, expected, once), (again, actual, twice) = answers
    assert (once, twice) == (1, 2), "each block runs once more in the backward pass"
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(actual, expected)
    assert len(expected) > 30
    model.set_grad_checkpointing(False)
    assert not model.grad_checkpointing


def test_the_model_with_its_own_landmark_network():
    torch.manual_seed(0)
    model = scrambled(landmark_net=True, landmark_channels=128).freeze_image_model()
    assert model.training and not any(part.training for part in model.landmark_net.modules())
    clip, _ = inputs()
    before = {key: value.clone() for key, value in model.landmark_net.state_dict().items()}
    torch.manual_seed(1)
    logits = model(clip)
    logits.square().sum().backward()
    for key, value in model.landmark_net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None and not p.requires_grad for p in model.landmark_net.parameters())
    features = model.landmark_net.features(rearrange(clip, "b c t h w -> (b t) c h w"))
    model.eval()
    assert torch.equal(model(clip), model(clip, features))
    # Fresh weights shrink the features to thousandths, so the prompts must read them a thousandfold to differ.
    with torch.no_grad():
        model.patch_embed_prompt.proj.weight *= 1000
        assert relative(model(clip, features.flip(0)), model(clip)) > 1e-3


@torch.no_grad()
def test_landmarks_on_another_grid_are_resized():
    model = scrambled().eval()
    clip, _ = inputs()
    fine = torch.randn(8, 7, 4, 9, generator=torch.Generator().manual_seed(4))
    # Twice the rows: halfway between two. Three times the columns: the middle one of three.
    by_hand = (fine[:, :, 0::2, 1::3] + fine[:, :, 1::2, 1::3]) / 2
    torch.testing.assert_close(model(clip, fine), model(clip, by_hand))


@torch.no_grad()
def test_a_prediction_is_the_clips_own():
    model = scrambled().eval()
    clip, landmarks = inputs(3)
    torch.testing.assert_close(model(clip, landmarks)[1:2], model(clip[1:2], landmarks[4:8]))


@torch.no_grad()
def test_time_enters_through_the_embedding():
    model = scrambled().eval()
    clip, landmarks = inputs(1)
    backwards = clip.flip(2), landmarks.flip(0)
    assert relative(model(*backwards), model(clip, landmarks)) > 1e-3
    model.temporal_embedding.zero_()
    torch.testing.assert_close(model(*backwards), model(clip, landmarks))


def test_the_parts_start_as_documented():
    torch.manual_seed(0)
    model = S2DClassifier(dim=192, depth=2, heads=3, image_size=(32, 48), frames=3)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert module.bias is None or (module.bias == 0).all(), name
    assert not any(block.fovea.smooth.item() != 10 for block in model.prompt_blocks)
    positions = model.pos_embed[0]
    assert (positions[0] == 0).all() and len(positions.unique(dim=0)) == 7, "class token and six places, all apart"
    assert torch.equal(positions[1, :96], positions[2, :96]), "one row"
    assert torch.equal(positions[1, 96:], positions[4, 96:]), "one column"
    assert (model.temporal_embedding == 0).all() and 0 < model.cls_token.std() < 0.03


def test_a_zero_start_leaves_the_adapter_out_and_lets_it_learn():
    clip, landmarks = inputs()
    torch.manual_seed(0)
    model = S2DClassifier(**SMALL, tma_init="zero", dropout=0.0)
    with_adapter = model(clip, landmarks)
    weight = model.prompt_blocks[1].TMA.S_Adapter.D_fc2.weight
    with_adapter.square().sum().backward()
    assert weight.grad.abs().sum() > 0
    no_adapter(model)
    torch.testing.assert_close(model(clip, landmarks), with_adapter)
    torch.manual_seed(0)
    # A random map of std 0.02 grows with its width, so the released start shows at the released width.
    drawn = S2DClassifier(**SMALL | {"dim": 768, "adapter_ratio": 0.25}, dropout=0.0)
    started = drawn.forward_features(clip, landmarks)
    no_adapter(drawn)
    assert relative(drawn.forward_features(clip, landmarks), started) > 0.02, "the released start is no identity"
    # With both up-projections at zero, nothing but the last bias would ever learn.
    torch.manual_seed(0)
    stuck = S2DClassifier(**SMALL, tma_init="zero", dropout=0.0)
    for block in stuck.prompt_blocks:
        block.TMA.T_Adapter.D_fc2.weight.data.zero_()
    stuck(clip, landmarks).square().sum().backward()
    learning = {name for name, p in stuck.prompt_blocks[1].TMA.named_parameters() if p.grad.abs().sum() > 0}
    assert learning == {"S_Adapter.D_fc2.bias"}


def test_the_head_has_timms_manners():
    torch.manual_seed(0)
    model = S2DClassifier(**SMALL, dropout=0.5)
    clip, landmarks = inputs()
    assert not torch.equal(model(clip, landmarks), model(clip, landmarks)), "dropout while training"
    model.eval()
    latents = model.forward_features(clip, landmarks)
    assert latents.shape == (2, 4, 1 + 6, 24)
    features = model.forward_head(latents, pre_logits=True)
    torch.testing.assert_close(features, torch.stack([latents[:, t, 0] for t in range(4)]).mean(0))
    torch.testing.assert_close(features, model.features(clip, landmarks))
    torch.testing.assert_close(model.forward_head(latents), model(clip, landmarks))
    assert (model.num_classes, model.num_features) == (5, 24)
    assert model.get_classifier() is model.head["fc_cls"] and model.get_classifier().out_features == 5
    model.reset_classifier(11)
    assert model(clip, landmarks).shape == (2, 11) and model.num_classes == model.config["num_classes"] == 11
    assert model.head["fc_cls"].weight.std().item() == pytest.approx(0.02, rel=0.3)
    model.reset_classifier(0)
    torch.testing.assert_close(model(clip, landmarks), features)
    assert not any(key.startswith("head") for key in model.state_dict())
    with pytest.raises(ValueError, match="pools class tokens only"):
        model.reset_classifier(3, global_pool="avg")


@pytest.mark.parametrize("change", [{}, {"image_size": (15, 15), "landmark_net": True, "num_classes": 0}])
def test_the_config_rebuilds_the_model(change):
    model = S2DClassifier(**SMALL | change)
    again = S2DClassifier(**json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert again.image_size == model.image_size == ((15, 15) if change else (10, 15))


def test_layer_decay_sees_prompters_beside_their_blocks():
    from timm.optim import param_groups_layer_decay

    model = S2DClassifier(**SMALL, landmark_net=False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales, decays = {}, {}
    for group in param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5,
                                          no_weight_decay_list=model.no_weight_decay()):
        for parameter in group["params"]:
            scales[names[id(parameter)]] = group["lr_scale"]
            decays[names[id(parameter)]] = group["weight_decay"]
    assert scales.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, scale in scales.items():
        numbers = [int(part) for part in name.split(".") if part.isdecimal()]
        layer = numbers[0] + 1 if numbers else 4 if name.startswith(("head", "ln_post")) else 0
        assert scale == 0.5 ** (4 - layer), name
    assert decays["temporal_embedding"] == decays["cls_token"] == decays["prompt_blocks.1.fovea.smooth"] == 0
    assert decays["prompt_blocks.1.conv0_0.weight"] == 0.05


@pytest.mark.parametrize("clip, landmarks, said", [
    ((2, 3, 10, 15), (8, 7, 2, 3), r"expected clips \[b 3 t h w\], got shape \(2, 3, 10, 15\)"),
    ((2, 4, 3, 10, 15), (8, 7, 2, 3), r"expected clips \[b 3 t h w\]"),
    ((2, 3, 5, 10, 15), (10, 7, 2, 3), "clips of 4 frames, got 5; sample 4 frames or build the model with frames=5"),
    ((2, 3, 4, 15, 10), (8, 7, 2, 3), "reads 10×15 pixels, got 15×10"),
    ((2, 3, 4, 10, 15), None, "no landmark network; pass"),
    ((2, 3, 4, 10, 15), (2, 7, 2, 3), r"= \[8 7 gh gw\] or \[b t c gh gw\] = \[2 4 7 gh gw\], got \[2, 7, 2, 3\]"),
    ((2, 3, 4, 10, 15), (8, 6, 2, 3), r"got \[8, 6, 2, 3\]"),
    ((2, 3, 4, 10, 15), (4, 2, 7, 2, 3), r"got \[4, 2, 7, 2, 3\]"),
    ((2, 3, 4, 10, 15), (8, 136), r"got \[8, 136\]"),
])
def test_wrong_inputs_are_named(clip, landmarks, said):
    model = S2DClassifier(**SMALL)
    with pytest.raises(ValueError, match=said):
        model(torch.zeros(clip), None if landmarks is None else torch.zeros(landmarks))


@pytest.mark.parametrize("change, said", [
    ({"image_size": (10, 12)}, "image width must be a positive multiple of patch, got 12 and 5"),
    ({"image_size": 12}, "image height must be a positive multiple of patch"),
    ({"heads": 5}, "dim must be a positive multiple of heads, got 24 and 5"),
    ({"temporal_heads": 5}, "adapter_ratio · dim must be a positive multiple of temporal_heads, got 12 and 5"),
    ({"adapter_ratio": 0.01}, "adapter_ratio · dim must be a positive multiple of temporal_heads, got 0 and 3"),
    ({"tma_init": "kaiming"}, "tma_init must be one of"),
])
def test_impossible_models_are_named(change, said):
    with pytest.raises(ValueError, match=said):
        S2DClassifier(**SMALL | change)
