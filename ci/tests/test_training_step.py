"""The training step's shortcuts: the same numbers as the plain way, without the work that nobody reads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from s4d_lib.clips import denormalise
from s4d_lib.layers import TubeletEmbed, random_mask, split_index
from s4d_lib.layers.decoder import normalised_target, patchify, unpatchify
from s4d_lib.models import DualModalMAE
from s4d_lib.models.sizes import Size
from s4d_lib.training.jobs import hidden_places
from s4d_lib.training.optimizers import adamw

SIZE = Size((32, 48), 6, 8, 2, 24, 2, 2, decoder_dim=16, decoder_depth=2, decoder_heads=2)
SHAPES = {"image": (5, 3, 32, 48), "clip": (2, 3, 6, 32, 48)}
both = pytest.mark.parametrize("modality", SHAPES)


def masked(modality: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    x = torch.randn(SHAPES[modality])
    return x, random_mask(len(x), SIZE.grid if modality == "clip" else SIZE.image_grid, 0.75)


@both
def test_embedding_is_the_convolution(modality):
    x, mask = masked(modality)
    embed = TubeletEmbed((32, 48), 6, 8, 2, 24)
    clip = x if x.ndim == 5 else x[:, :, None].expand(-1, -1, 2, -1, -1)
    expected = F.conv3d(clip, embed.proj.weight, embed.proj.bias, stride=(2, 8, 8)).flatten(2).mT
    torch.testing.assert_close(embed(x), expected)
    visible, _ = split_index(mask)
    kept = expected.gather(1, visible[..., None].expand(-1, -1, 24))
    torch.testing.assert_close(embed(x, visible), kept)
    for made, wanted in ((embed(x), expected), (embed(x, visible), kept)):
        grads = [torch.autograd.grad(out.square().sum(), embed.proj.weight, retain_graph=True)[0]
                 for out in (made, wanted)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_tokens_of_hidden_tubelets_are_not_computed():
    x, mask = masked("clip")
    embed = TubeletEmbed((32, 48), 6, 8, 2, 24)
    visible, hidden = split_index(mask)
    before = embed(x, visible)
    boxes = patchify(x, 8, 2).flatten(2)  # NaN in what nobody reads must not be seen
    poison = torch.zeros(boxes.shape[:2], dtype=torch.bool).scatter(1, hidden, True)
    poisoned = unpatchify(boxes.masked_fill(poison[..., None], torch.nan).unflatten(2, (3, -1)), 32, 48, 8, 2)
    assert torch.isnan(embed(poisoned)).any()
    torch.testing.assert_close(embed(poisoned, visible), before)


@both
@pytest.mark.parametrize("epsilon", [1e-6, 0.01])
def test_target_is_the_slow_one(modality, epsilon):
    x, mask = masked(modality)
    x[0] = x[0] * 1e-3  # a nearly flat sample, where epsilon decides
    boxes = patchify(denormalise(x).double(), 8, 2)
    mean, variance = boxes.mean(-1, keepdim=True), boxes.var(-1, keepdim=True, unbiased=True)
    slow = ((boxes - mean) / (variance + epsilon).sqrt()).mT.flatten(2).float()
    torch.testing.assert_close(normalised_target(x, 8, 2, epsilon), slow, rtol=1e-4, atol=1e-4)
    _, hidden = split_index(mask)
    some, index = normalised_target(x, 8, 2, epsilon, hidden), hidden[..., None].expand(-1, -1, SIZE.pixels)
    assert torch.equal(some, normalised_target(x, 8, 2, epsilon).gather(1, index))


@both
def test_loss_is_that_of_the_whole_forward_pass(modality):
    """Loss and every gradient, in double precision, where the order of sums does not matter."""
    x, mask = masked(modality)
    torch.manual_seed(0)
    model = DualModalMAE(SIZE).double()
    whole = model(x.double(), mask).loss
    short = model.loss(x.double(), *split_index(mask))
    torch.testing.assert_close(short.double(), whole.double(), rtol=1e-6, atol=0)
    weights = list(model.parameters())
    for one, other in zip(torch.autograd.grad(whole, weights), torch.autograd.grad(short, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_fewer_hidden_tokens_are_another_loss_of_the_same_scale():
    x, mask = masked("clip")
    torch.manual_seed(0)
    model = DualModalMAE(SIZE)
    visible, hidden = split_index(mask)
    half = model.loss(x, visible, hidden[:, : hidden.shape[1] // 2])
    whole = model.loss(x, visible, hidden)
    assert half != whole and 0.5 < half / whole < 2


def test_decoder_share_draws_that_many_hidden_tokens():
    torch.manual_seed(0)
    visible, hidden = hidden_places(3, SIZE.grid, 0.75)
    fewer_visible, fewer = hidden_places(3, SIZE.grid, 0.75, 0.5)
    assert fewer.shape == (3, hidden.shape[1] // 2) and fewer_visible.shape == visible.shape
    for seen, painted in zip(fewer_visible.tolist(), fewer.tolist()):
        assert len({*seen, *painted}) == len(seen) + len(painted)  # each once, none of both
    assert len({tuple(sorted(row)) for row in fewer.tolist()}) == 3  # each sample its own


def test_fused_steps_are_adamw():
    torch.manual_seed(0)
    nets = [nn.Linear(7, 5) for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    x = torch.randn(9, 7)
    optimizers = [adamw([{"params": net.parameters(), "weight_decay": 0.1}], 1e-2, (0.9, 0.95), False, plain)
                  for net, plain in zip(nets, (False, True, True))]
    optimizers[2].param_groups[0]["weight_decay"] = 0.0  # the control: another rule gives other weights
    for _ in range(20):
        for net, optimizer in zip(nets, optimizers):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(nets[0].weight, nets[2].weight, rtol=1e-3)
