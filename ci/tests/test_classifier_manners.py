"""The classifier as a timm model: its halves, its heads, recomputed activations, the balance loss in training."""

import copy
import json

import pytest
import torch
from torch import nn

from s4d_lib.layers import encoder
from s4d_lib.layers.adapters import MixtureOfAdapterExperts
from s4d_lib.models.autoencoder import DualModalEncoder
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

SMALL = Size((10, 15), 8, 5, 2, dim=24, depth=4, heads=2, decoder_dim=18, decoder_depth=1, decoder_heads=3)
GRID = (4, 2, 3)


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(batch, 3, 10, 15), torch.randn(batch, 3, 8, 10, 15)


def lively(size: Size = SMALL, **settings) -> S4DClassifier:
    """A classifier whose experts matter: larger weights than it starts with."""
    torch.manual_seed(0)
    settings = {"classes": {"image": 5, "video": 9}, "moae_blocks": (1, 3), "experts": 5, **settings}
    model = S4DClassifier(size, **settings)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize("pool", ["mean", "positions"])
@torch.no_grad()
def test_the_halves_make_the_whole(pool):
    model = lively(pool=pool).eval()
    for x, tokens, classes in zip(inputs(), (6, 24), (5, 9), strict=True):
        latents = model.forward_features(x)
        assert latents.shape == (2, tokens, 24) == (2, tokens, model.num_features)
        features = model.forward_head(latents, pre_logits=True)
        assert features.shape == (2, model.head_hidden_size)
        assert torch.equal(features, model.features(x))
        assert model.forward_head(latents).shape == (2, classes)
        assert torch.equal(model.forward_head(latents), model(x))


@torch.no_grad()
def test_the_task_can_be_said_and_is_otherwise_read_from_the_tokens():
    model = lively().eval()
    image, clip = inputs()
    as_video = model.forward_head(model.forward_features(image), task="video")
    assert torch.equal(as_video, model.head["video"](model.features(image))) and as_video.shape == (2, 9)
    with pytest.raises(ValueError, match="6 tokens of an image and 24 of a clip, got 12; say which"):
        model.forward_head(model.forward_features(clip)[:, :12])
    lone = lively(classes={"video": 9}).eval()
    assert lone.forward_head(lone.forward_features(clip)[:, :12]).shape == (2, 9), "one head reads all"


@torch.no_grad()
def test_a_clip_of_one_time_slot_looks_like_an_image():
    model = lively(Size(**{**vars(SMALL), "frames": 2})).eval()
    image, _ = inputs()
    clip = torch.stack([image, image], dim=2)
    assert model(image).shape == (2, 5) and model(clip).shape == (2, 9), "the rank of the input still tells"
    with pytest.raises(ValueError, match="both make 6 tokens; say which this is with task="):
        model.forward_head(model.forward_features(clip))
    assert torch.equal(model.forward_head(model.forward_features(clip), task="video"), model(clip))


def test_classes_are_counted_as_timm_does():
    assert lively().num_classes == {"image": 5, "video": 9}
    assert lively(classes={"image": 7, "video": 7}).num_classes == 7
    assert lively(classes={"video": 9}).num_classes == 9
    assert lively(classes={}).num_classes == 0


@pytest.mark.parametrize("given, classes", [
    (11, {"image": 11, "video": 11}), ({"video": 4}, {"video": 4}), (0, {}), ({}, {}),
])
@pytest.mark.parametrize("pool", [None, "avg", "positions"])
def test_heads_can_be_replaced(given, classes, pool):
    model = lively().double()
    trunk = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("head.")}
    old = model.get_classifier()
    model.reset_classifier(given, pool)
    head = model.get_classifier()
    assert head is not old and head is model.head
    assert {task: part.out_features for task, part in head.items()} == classes == model.config["classes"]
    length = 24 * (6 if pool == "positions" else 1)
    assert model.head_hidden_size == length and all(part.in_features == length for part in head.values())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in trunk.items()), "the rest stays"
    for x, task in zip(inputs(), ("image", "video"), strict=True):
        if not classes:
            assert torch.equal(model.eval()(x.double()), model.features(x.double())), "without heads: features"
        elif task in classes:
            assert model(x.double()).shape == (2, classes[task])
    twin = S4DClassifier(**json.loads(json.dumps(model.config)))
    twin.double().load_state_dict(model.state_dict())


def test_new_heads_start_as_the_first_ones_did():
    model = S4DClassifier("tiny", moae_blocks="last_half")
    model.reset_classifier(40)
    for part in model.head.values():
        assert part.weight.std().item() == pytest.approx(0.02, rel=0.1) and (part.bias == 0).all()
    model.reset_classifier(40, "positions")
    assert model.head["image"].weight.std().item() == pytest.approx(0.02 / 6, rel=0.1)  # 6 × 6 places


def test_heads_come_back_for_the_tasks_there_were_or_for_both():
    model = lively(classes={"video": 9})
    model.reset_classifier(4)
    assert model.config["classes"] == {"video": 4}
    model.reset_classifier(0)
    model.reset_classifier(3)
    assert model.config["classes"] == {"image": 3, "video": 3}
    for wrong, said in (((4, "max"), "pool must be one of"), (({"audio": 3},), "classes maps"),
                        ((-1,), "classes maps")):
        before = dict(model.config)
        with pytest.raises(ValueError, match=said):
            model.reset_classifier(*wrong)
        assert model.config == before, "a refused head changes nothing"


def test_timms_layer_decay_and_weight_decay_read_the_model():
    from timm.models import group_parameters

    groups = group_parameters(lively(), lively().group_matcher())
    assert len(groups) == 1 + 4 + 1 and all("head." in name or "fc_norm" in name for name in groups[5])
    assert any("moe_layer" in name for name in groups[4]) and lively().no_weight_decay() == set()


# Recomputed activations -----------------------------------------------------------------------------------------------

def one_step(model: S4DClassifier, recompute: bool, balance: float = 0.3,
             half: bool = False) -> dict[str, torch.Tensor]:
    """Outputs, balance loss and every gradient of a step on an image batch and a clip batch."""
    model.zero_grad(set_to_none=True)
    model.set_grad_checkpointing(recompute)
    torch.manual_seed(7)  # of the router noise and of dropout
    image, clip = (x.clone().requires_grad_() for x in inputs())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        image_logits, first = model(image), model.balance_loss()
        clip_logits, second = model(clip), model.balance_loss()
    kept = [block.moe_layer.routing for block in model.blocks if hasattr(block, "moe_layer")]
    loss = image_logits.square().mean() + clip_logits.square().mean() + balance * (first + second)
    loss.backward()
    after = torch.rand(1)
    assert model.balance_loss() is not None and torch.equal(model.balance_loss(), second)
    for block, routing in zip((b for b in model.blocks if hasattr(b, "moe_layer")), kept, strict=True):
        assert block.moe_layer.routing is routing, "recomputing an earlier batch does not replace the last one's record"
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"image": image_logits, "clip": clip_logits, "first": first, "second": second, "image.grad": image.grad,
            "clip.grad": clip.grad, "random numbers after": after, **gradients}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("behaviour", ["clean", "reference"])
def test_recomputing_changes_no_output_and_no_gradient(behaviour, half):
    model = lively(behaviour=behaviour, capacity_factor=0.7, dropout=0.3).train()
    plain, spared = one_step(model, False, half=half), one_step(model, True, half=half)
    for name, value in plain.items():
        assert (value is None) == (spared[name] is None), name
        if value is not None:
            torch.testing.assert_close(spared[name], value, rtol=0, atol=0, msg=name)
    # The control: the noise matters here, so drawing it anew would show.
    torch.manual_seed(8)
    assert not torch.allclose(model(inputs()[1]), plain["clip"].float(), atol=1e-1 if half else 1e-3)


def test_the_balance_gradient_reaches_the_routers_through_recomputed_blocks_once():
    model = lively().train()
    router = "blocks.3.moe_layer.router.topkroute_linear.weight"
    early = "blocks.0.attn.qkv.weight"
    for recompute in (False, True):
        without, once, twice = (one_step(model, recompute, balance) for balance in (0.0, 1.0, 2.0))
        for name in (router, early):
            added = once[name] - without[name]
            assert added.abs().max() > 1e-5, f"{name} is pushed, before the experts too"
            torch.testing.assert_close(twice[name] - without[name], 2 * added, rtol=1e-3, atol=1e-6)


def test_a_batch_can_be_differentiated_twice_when_its_graph_is_kept():
    """As methods do that compare the gradients of two losses."""
    model = lively().train()
    weight = model.blocks[3].moe_layer.router.topkroute_linear.weight
    found = {}
    for recompute in (False, True):
        model.set_grad_checkpointing(recompute)
        torch.manual_seed(7)
        logits = model(inputs()[1])
        found[recompute] = [torch.autograd.grad(loss, weight, retain_graph=True)[0]
                            for loss in (logits.square().mean(), model.balance_loss(), logits.square().mean())]
    for plain, spared in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(spared, plain, rtol=0, atol=0)


def kept_bytes(model: S4DClassifier, recompute: bool) -> int:
    """What autograd stores for the backward pass of one batch, parameters aside."""
    model.set_grad_checkpointing(recompute)
    own, seen = {p.data_ptr() for p in model.parameters()}, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            seen[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(inputs(8)[1])
    return sum(seen.values())


def test_recomputing_keeps_less():
    model = lively().train()
    assert kept_bytes(model, True) < 0.5 * kept_bytes(model, False)


def test_records_hold_no_recomputed_graph():
    """Or the experts would keep alive what recomputing had spared."""
    model = lively().train()
    model.set_grad_checkpointing()
    logits = model(inputs()[1])
    moae = model.blocks[3].moe_layer
    recorded = moae.balance_loss
    (logits.sum() + model.balance_loss()).backward()
    assert moae.balance_loss is recorded, "the forward pass's own, whose graph is spent"
    assert copy.deepcopy(model).blocks[3].moe_layer.balance_loss is None


def test_an_encoder_computes_every_block_again_in_the_backward_pass_if_asked_to_and_not_otherwise():
    model, clip, calls = DualModalEncoder(SMALL), inputs()[1], []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    for recompute, forward, both in ((True, 4, 8), (False, 4, 4)):
        calls.clear()
        model.set_grad_checkpointing(recompute)
        loss = model(clip).sum()
        assert len(calls) == forward
        loss.backward()
        assert len(calls) == both


def test_no_block_is_checkpointed_without_gradients(monkeypatch):
    model, calls = DualModalEncoder(SMALL), []
    real = encoder.checkpoint
    monkeypatch.setattr(encoder, "checkpoint", lambda *words, **named: calls.append(1) or real(*words, **named))
    model.set_grad_checkpointing()
    with torch.no_grad():
        model(inputs()[1])
    assert not calls
    model(inputs()[1])
    assert len(calls) == 4, "control: with gradients every block is"


# The loss of fine-tuning -------------------------------------------------------------------------------------------

@pytest.mark.trains
def test_the_balance_loss_of_fine_tuning_reaches_the_router(faces):
    """What the training loop differentiates, and not only what it prints."""
    from s4d_lib.training.data import read_samples
    from s4d_lib.training.fitting import build_classifier
    from s4d_lib.training.jobs import finetune_job
    from s4d_lib.training.tiers import finetuning

    settings = {"stills": str(faces / "stills"), "clips": str(faces / "clips"), "experts": 4}
    config = finetuning("smoke", "moae", **settings)
    model = build_classifier(config).train()
    samples = {m: read_samples(config, m, "train") for m in config.modalities}
    router = next(m for m in model.modules() if isinstance(m, MixtureOfAdapterExperts)).router.topkroute_linear.weight
    torch.manual_seed(0)
    batch = {"x": torch.randn(3, 3, 48, 48), "target": torch.full((3, 7), 1 / 7)}

    def gradient(coefficient: float, behaviour: str) -> torch.Tensor:
        job, _ = finetune_job(config.model_copy(update={"balance_coeff": coefficient, "behaviour": behaviour}), model,
                              samples, {"image": 7, "clip": 7})
        torch.manual_seed(1)
        return torch.autograd.grad(job.loss(model, "image", batch), router)[0]

    torch.manual_seed(1)
    model(batch["x"])
    alone = torch.autograd.grad(model.balance_loss(), router)[0]
    assert alone.abs().max() > 0
    torch.testing.assert_close(gradient(2.0, "clean") - gradient(0.0, "clean"), 2 * alone, rtol=1e-3, atol=1e-6)
    # The control: the released loop drops the loss, and so does the behaviour of that name.
    assert torch.equal(gradient(2.0, "reference"), gradient(0.0, "clean"))
