"""models/classifier.py against the released modules: outputs, parameter counts, key names, layer decay."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inventories import shapes
from torch.utils.flop_counter import FlopCounterMode

from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.layers.masking import random_mask
from s4d_lib.models.autoencoder import DualModalMAE, MAEOutput
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

DATA = Path(__file__).parent / "data"
# The tiny models behind the released outputs, and a third one for everything else.
FINETUNE = Size(48, 6, 16, 2, dim=48, depth=4, heads=4, decoder_dim=24, decoder_depth=2, decoder_heads=2)
PRETRAIN = Size(48, 16, 16, 2, dim=48, depth=3, heads=4, decoder_dim=24, decoder_depth=2, decoder_heads=2)
SMALL = Size(15, 8, 5, 2, dim=24, depth=4, heads=2, decoder_dim=18, decoder_depth=1, decoder_heads=3)


def load(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    arrays = {key: torch.from_numpy(value) for key, value in np.load(DATA / name).items()}
    state = {key.removeprefix("state."): value for key, value in arrays.items() if key.startswith("state.")}
    return state, arrays


def released_classifier(capacity_factor: float, **changes) -> tuple[S4DClassifier, dict[str, torch.Tensor]]:
    state, arrays = load("s4d_finetune_tiny.npz")
    settings_ = {"behaviour": "reference", "moae_blocks": (2, 3), **changes}
    model = S4DClassifier(FINETUNE, {"image": 7, "video": 11}, experts=4, capacity_factor=capacity_factor,
                          **settings_)
    model.load_state_dict(state)
    return model.eval(), arrays


@pytest.mark.parametrize("capacity_factor", [0.5, 1.0, 100.0])
@pytest.mark.parametrize("task", ["video", "image"])
@torch.no_grad()
def test_the_classifier_answers_as_released(capacity_factor, task):
    model, arrays = released_classifier(capacity_factor)
    expect = f"expect.cf{capacity_factor}."
    x = arrays[task]
    torch.testing.assert_close(model(x), arrays[f"{expect}{task}_logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.features(x), arrays[f"{expect}{task}_features"],
                               rtol=1e-5, atol=1e-5)
    if task == "video":
        alone = arrays[f"{expect}video_logits_first_alone"]
        torch.testing.assert_close(model(x[:1]), alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_released_answers_tell_reference_and_clean_apart():
    model, arrays = released_classifier(1.0)
    expected = arrays["expect.cf1.0.video_logits"]
    torch.testing.assert_close(model(arrays["video"]), expected, rtol=1e-5, atol=1e-5)
    clean, _ = released_classifier(1.0, behaviour="clean")
    assert not torch.allclose(clean(arrays["video"]), expected, atol=1e-3), "clean drops no token"
    # With room for all tokens and silent noise, the two behaviours are one.
    torch.testing.assert_close(clean(arrays["video"]), arrays["expect.cf100.0.video_logits"],
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["video", "image"])
@torch.no_grad()
def test_the_autoencoder_answers_as_released(task):
    state, arrays = load("s4d_pretrain_tiny.npz")
    model = DualModalMAE(PRETRAIN)
    model.load_state_dict(state)
    output = model(arrays[task], arrays[f"{task}_mask"])
    torch.testing.assert_close(output.prediction, arrays[f"expect.{task}_prediction"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, arrays[f"expect.{task}_loss"], rtol=1e-5, atol=1e-5)


def size_on_paper(make) -> tuple[int, int]:
    """Parameters and state-dict tensors, without memory for either."""
    with torch.device("meta"):
        model = make()
    return sum(p.numel() for p in model.parameters()), len(model.state_dict())


@pytest.mark.parametrize("make, parameters, tensors", [
    (lambda: S4DClassifier("base", moae_blocks="last_half"), 100_513_646, 380),
    (lambda: S4DClassifier("base", {"image": 7, "video": 11}, moae_blocks="last_half"), 100_516_722, 380),
    (lambda: S4DClassifier("base"), 86_237_966, 164),
    (lambda: S4DClassifier("base", moae_blocks="last_half", experts=1, top_k=1), 88_022_426, 212),
    (lambda: S4DClassifier("base", moae_blocks="last_half", experts=2), 89_806_886, 236),
    (lambda: S4DClassifier("base", moae_blocks="last_half", experts=4), 93_375_806, 284),
    (lambda: S4DClassifier("base", moae_blocks="last_half", experts=16), 114_789_326, 572),
    (lambda: S4DClassifier("base", moae_blocks=range(12)), 114_789_326, 596),
    (lambda: S4DClassifier("base", moae_blocks=range(3, 12)), 107_651_486, 488),
    (lambda: S4DClassifier("base", moae_blocks=range(9, 12)), 93_375_806, 272),
    (lambda: S4DClassifier("small", moae_blocks="last_half"), 25_484_270, 380),
    (lambda: S4DClassifier("large", moae_blocks=range(6, 12)), 329_200_750, 536),
    (lambda: DualModalMAE("base"), 94_210_944, 218),
])
def test_parameters_and_tensors_are_counted_as_released(make, parameters, tensors):
    assert size_on_paper(make) == (parameters, tensors)


def test_where_the_parameters_are():
    with torch.device("meta"):
        model, mae = S4DClassifier("base", moae_blocks="last_half"), DualModalMAE("base")
    count = {part: sum(p.numel() for name, p in model.named_parameters() if part in name)
             for part in (".experts.", ".router.")}
    assert count == {".experts.": 14_201_856, ".router.": 73_824}
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in mae.named_children()} == {
        "encoder": 86_227_200, "decoder": 7_688_448, "encoder_to_decoder": 294_912}
    assert mae.mask_token.numel() == 384


EMBED = 768 * 768 / 1e9  # GMACs of one frame of a token's tubelet: 16 × 16 pixels of 3 colours to 768 numbers


# The released models embed both equal frames of an image's tubelet; here their weights are added first.
@pytest.mark.parametrize("shape, released, spared", [((1, 3, 16, 160, 160), 80.69, 0), ((1, 3, 160, 160), 8.80, 100)])
def test_compute_is_the_released_models_but_for_an_images_second_frame(shape, released, spared):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        S4DClassifier("base")(torch.empty(shape))
    assert counter.get_total_flops() / 2e9 == pytest.approx(released - spared * EMBED, abs=0.005)


@pytest.mark.parametrize("tokens, plain, gmacs", [(800, 80.69, 83.58), (100, 8.80, 9.16)])
def test_compute_with_experts_is_the_released_models_when_nothing_is_dropped(tokens, plain, gmacs):
    """Each token costs the router and its two experts the same, so twenty tokens of one block tell it all."""
    moae = MixtureOfAdapterExperts(768, experts=8, top_k=2, capacity_factor=math.inf, behaviour="reference")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        moae(torch.randn(1, 20, 768))
    experts = counter.get_total_flops() / 2e9 / 20 * tokens * 6
    assert plain + experts == pytest.approx(gmacs, abs=0.01)
    # With capacity 1 some experts are full: that is where the released 82.99 and 9.08 come from.
    moae.capacity_factor = 0.5
    with torch.no_grad(), FlopCounterMode(display=False) as limited:
        moae(torch.randn(1, 20, 768))
    assert limited.get_total_flops() < counter.get_total_flops()


# Of the released compute is spared: the embedding of hidden tubelets, and in training the picture of visible ones.
@pytest.mark.parametrize("shape, seen, released, embedded", [
    ((1, 3, 16, 160, 160), 40, 12.48, 2 * 800 - 2 * 40), ((1, 3, 160, 160), 10, 1.77, 2 * 100 - 10)])
def test_compute_of_pretraining_is_the_released_models_but_for_what_nobody_reads(shape, seen, released, embedded):
    tokens = 800 if len(shape) == 5 else 100
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = DualModalMAE("base")
        places = torch.empty(1, tokens, dtype=torch.int64)
        model.loss(torch.empty(shape), places[:, :seen], places[:, seen:])
    painted = seen * 384 * 1536 / 1e9  # the decoder's last map of visible tokens
    assert counter.get_total_flops() / 2e9 == pytest.approx(released - embedded * EMBED - painted, abs=0.005)


def block_keys(prefix: str, dim: int) -> dict[str, list[int]]:
    linear = {"attn.proj": [dim, dim], "mlp.fc1": [4 * dim, dim], "mlp.fc2": [dim, 4 * dim]}
    keys = {"attn.q_bias": [dim], "attn.v_bias": [dim], "attn.qkv.weight": [3 * dim, dim]}
    for name in ("norm1", "norm2"):
        keys |= {f"{name}.weight": [dim], f"{name}.bias": [dim]}
    for name, shape in linear.items():
        keys |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {prefix + key: shape for key, shape in keys.items()}


def test_the_classifiers_keys_are_the_released_inventory():
    expected = {"patch_embed.proj.weight": [768, 3, 2, 16, 16], "patch_embed.proj.bias": [768],
                "fc_norm.weight": [768], "fc_norm.bias": [768], "head.image.weight": [7, 768],
                "head.image.bias": [7], "head.video.weight": [11, 768], "head.video.bias": [11]}
    for i in range(12):
        expected |= block_keys(f"blocks.{i}.", 768)
    for i in range(6, 12):
        moae = f"blocks.{i}.moe_layer."
        for name in ("topkroute_linear", "noise_linear"):
            expected |= {f"{moae}router.{name}.weight": [8, 768], f"{moae}router.{name}.bias": [8]}
        for e in range(8):
            expected |= {f"{moae}experts.{e}.fc1.weight": [192, 768], f"{moae}experts.{e}.fc1.bias": [192],
                         f"{moae}experts.{e}.fc2.weight": [768, 192], f"{moae}experts.{e}.fc2.bias": [768]}
    with torch.device("meta"):
        model = S4DClassifier("base", {"image": 7, "video": 11}, moae_blocks=(6, 7, 8, 9, 10, 11))
    assert shapes(model) == expected


def test_the_autoencoders_keys_are_the_released_inventory():
    expected = {"mask_token": [1, 1, 384], "encoder_to_decoder.weight": [384, 768],
                "encoder.patch_embed.proj.weight": [768, 3, 2, 16, 16], "encoder.patch_embed.proj.bias": [768],
                "decoder.head.weight": [1536, 384], "decoder.head.bias": [1536]}
    for part, dim, depth in (("encoder", 768, 12), ("decoder", 384, 4)):
        expected |= {f"{part}.norm.weight": [dim], f"{part}.norm.bias": [dim]}
        for i in range(depth):
            expected |= block_keys(f"{part}.blocks.{i}.", dim)
    with torch.device("meta"):
        model = DualModalMAE("base")
    assert shapes(model) == expected


def test_layer_decay_scales_are_the_papers():
    from timm.optim import param_groups_layer_decay

    with torch.device("meta"):
        model = S4DClassifier("base", moae_blocks="last_half")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.75):
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen[name] = group["lr_scale"]
            assert group["weight_decay"] == (0.0 if parameter.ndim == 1 else 0.05), name
    assert seen.keys() == dict(model.named_parameters()).keys(), "no parameter is left out"
    for name, scale in seen.items():
        part, _, rest = name.partition(".")
        layer = {"patch_embed": 0, "blocks": 1}.get(part, 13)
        if part == "blocks":
            layer += int(rest.partition(".")[0])
        assert scale == pytest.approx(0.75 ** (13 - layer)), name
    rounded = [round(seen[key], 4) for key in ("patch_embed.proj.bias", "blocks.0.norm1.bias",
                                               "blocks.6.moe_layer.experts.3.fc1.weight",
                                               "blocks.11.moe_layer.router.noise_linear.bias", "head.video.bias")]
    assert rounded == [0.0238, 0.0317, 0.1780, 0.75, 1.0]


def test_the_rank_of_the_input_chooses_the_head():
    model = S4DClassifier(SMALL, {"image": 5, "video": 9})
    assert model(torch.randn(2, 3, 15, 15)).shape == (2, 5)
    assert model(torch.randn(3, 3, 8, 15, 15)).shape == (3, 9)
    video_only = S4DClassifier(SMALL, {"video": 9})
    with pytest.raises(ValueError, match="no head for image input, only for video"):
        video_only(torch.randn(2, 3, 15, 15))


def test_pooling_by_positions_keeps_the_places():
    torch.manual_seed(0)
    model = S4DClassifier(SMALL, {"image": 5, "video": 9}, pool="positions").eval()
    clip = torch.randn(2, 3, 8, 15, 15)
    features = model.features(clip)
    assert features.shape == (2, 9 * 24) and model(clip).shape == (2, 9)
    latents = model.encode(clip).view(2, 4, 9, 24)
    for place in range(9):
        still = torch.stack([latents[:, t, place] for t in range(4)]).mean(0)
        torch.testing.assert_close(features[:, 24 * place: 24 * (place + 1)], model.fc_norm(still))
    # Control: the mean over all tokens is blind to where things are, this is not.
    swapped = latents.flip(2).reshape(2, 36, 24)
    from s4d_lib.layers.heads import pool_latents
    mean = [pool_latents(v, model.fc_norm, 9, "mean") for v in (latents.reshape(2, 36, 24), swapped)]
    torch.testing.assert_close(mean[0], mean[1])
    assert not torch.allclose(pool_latents(swapped, model.fc_norm, 9, "positions"), features)


@settings(deadline=None, derandomize=True, max_examples=10)
@given(mates=st.integers(0, 3), seed=st.integers(0, 99), video=st.booleans())
def test_a_clean_prediction_is_the_samples_own(mates, seed, video):
    torch.manual_seed(seed)
    model = S4DClassifier(SMALL, moae_blocks="last_half", experts=5, capacity_factor=0.5).eval()
    x = torch.randn(mates + 1, 3, 8, 15, 15) if video else torch.randn(mates + 1, 3, 15, 15)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[-1:], model(x[-1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size, blocks", [("tiny", [2, 3]), ("base", [6, 7, 8, 9, 10, 11]),
                                          ("large", list(range(12, 24)))])
def test_the_last_half_depends_on_the_depth(size, blocks):
    with torch.device("meta"):
        model = S4DClassifier(size, moae_blocks="last_half")
    assert model.config["moae_blocks"] == blocks
    assert [i for i, block in enumerate(model.blocks) if hasattr(block, "moe_layer")] == blocks


def test_dropout_thins_the_features_while_training():
    torch.manual_seed(0)
    model, image = S4DClassifier(SMALL, dropout=0.5), torch.randn(2, 3, 15, 15)
    assert not torch.equal(model(image), model(image))
    model.eval()
    torch.testing.assert_close(model(image), model.head["image"](model.features(image)))


def test_routing_and_balance_describe_the_last_forward_pass():
    torch.manual_seed(0)
    model = S4DClassifier(SMALL, moae_blocks=(1, 3), experts=5, top_k=2)
    with pytest.raises(RuntimeError, match="run the model first"):
        model.balance_loss()
    model(torch.randn(2, 3, 8, 15, 15))
    assert [tuple(v.shape) for routing in model.routing() for v in routing] == [(2, 36, 2)] * 6
    model(torch.randn(3, 3, 15, 15))
    assert model.routing()[1].indices.shape == (3, 9, 2)
    assert not any(v.requires_grad for routing in model.routing() for v in routing), "records, cut from the graph"
    total = sum(model.blocks[i].moe_layer.balance_loss for i in (1, 3))
    torch.testing.assert_close(model.balance_loss(), total)
    model.balance_loss().backward()
    assert model.blocks[1].moe_layer.router.topkroute_linear.weight.grad.abs().sum() > 0
    plain = S4DClassifier(SMALL)
    assert plain.balance_loss() == 0 and plain.routing() == []


def test_the_classifier_starts_as_the_released_one():
    torch.manual_seed(0)
    model = S4DClassifier("tiny", moae_blocks="last_half")
    for name, value in model.named_parameters():
        if value.ndim == 2:
            # The relative error of a standard deviation from at least 896 draws is 2.4 %.
            assert value.std().item() == pytest.approx(0.02, rel=0.15), name
        elif "norm" in name and name.endswith("weight"):
            assert (value == 1).all(), name
        elif "patch_embed" not in name and value.ndim == 1:
            assert (value == 0).all(), name
    places = S4DClassifier("tiny", pool="positions").head["video"].weight
    assert places.std().item() == pytest.approx(0.02 / 6, rel=0.05)  # 6 × 6 places


def test_the_autoencoder_starts_as_the_released_one():
    torch.manual_seed(0)
    model = DualModalMAE("tiny")
    for name, value in model.named_parameters():
        if name == "encoder_to_decoder.weight":
            assert value.abs().max() <= 128**-0.5  # PyTorch's default: uniform up to 1/√d
        elif value.ndim == 2:
            assert value.abs().max() <= (6 / sum(value.shape)) ** 0.5, name  # Xavier
            assert value.std().item() == pytest.approx((2 / sum(value.shape)) ** 0.5, rel=0.05), name
    assert 0 < model.mask_token.abs().max() <= 0.02


@pytest.mark.parametrize("shape, grid", [((4, 3, 8, 15, 15), (4, 3, 3)), ((4, 3, 15, 15), (1, 3, 3))])
def test_the_autoencoder_learns_a_batch_by_heart(shape, grid):
    torch.manual_seed(0)
    model, x = DualModalMAE(SMALL), torch.randn(shape)
    mask = random_mask(4, grid, 0.6, torch.Generator().manual_seed(0))
    first = model(x, mask)
    assert first.prediction.shape == (4, mask.shape[1], 150) == model.patches(x).shape
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimiser.zero_grad()
        model(x, mask).loss.backward()
        optimiser.step()
    assert model(x, mask).loss < 0.8 * first.loss


def test_a_reconstruction_shows_visible_tubelets_untouched():
    torch.manual_seed(0)
    model = DualModalMAE(SMALL)
    clip, mask = torch.zeros(2, 3, 8, 15, 15), random_mask(2, (4, 3, 3), 0.6)
    picture = model.reconstruct(clip, mask)
    assert picture.shape == clip.shape and not picture.requires_grad
    mean_colour = torch.tensor([0.485, 0.456, 0.406])  # what a normalised zero looks like
    visible = ~mask.view(2, 4, 3, 3).repeat_interleave(2, 1).repeat_interleave(5, 2).repeat_interleave(5, 3)
    shown = picture.permute(0, 2, 3, 4, 1)[visible]
    torch.testing.assert_close(shown, mean_colour.expand_as(shown))
    assert model.reconstruct(clip[:, :, 0], random_mask(2, (1, 3, 3), 0.6)).shape == (2, 3, 2, 15, 15)


def test_the_target_and_its_picture_share_one_epsilon():
    torch.manual_seed(0)
    clip = torch.randn(1, 3, 8, 15, 15) * 0.1
    fine, coarse = DualModalMAE(SMALL), DualModalMAE(SMALL, target_epsilon=0.01)
    assert fine.config["target_epsilon"] == 1e-6 and coarse.config["target_epsilon"] == 0.01
    assert coarse.patches(clip).std() < 0.5 * fine.patches(clip).std()
    mask = random_mask(1, (4, 3, 3), 0.6)
    target = coarse.patches(clip)
    coarse.forward = lambda x, mask: MAEOutput(target, torch.zeros(()))  # an oracle that predicts perfectly
    picture = coarse.reconstruct(clip, mask)
    std, mean = torch.tensor([[0.229, 0.224, 0.225], [0.485, 0.456, 0.406]]).view(2, 3, 1, 1, 1)
    torch.testing.assert_close(picture, clip * std + mean)


@pytest.mark.parametrize("wrong, said", [
    ({"size": "huge"}, "size must be one of tiny, nano, nano_narrow, nano_wide, small, base, large"),
    ({"pool": "max"}, "pool must be one of"),
    ({"moae_blocks": (4,)}, "block numbers from 0 to 3"),
    ({"moae_blocks": "all"}, "'last_half' or block numbers"),
    ({"classes": {"audio": 3}}, "classes maps"),
    ({"classes": {"video": 0}}, "classes maps"),
    ({"classes": {"video": "7"}}, "classes maps"),
])
def test_a_wrong_argument_of_the_classifier_is_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        S4DClassifier(**{"size": SMALL, **wrong})
