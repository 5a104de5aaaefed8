"""layers/losses.py against slow sums and PyTorch's own cross-entropy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from s4d_lib.layers.losses import load_balance_loss, masked_mse, soft_target_cross_entropy


def test_masked_mse_is_the_mean_over_hidden_tokens():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 2, 5, 7).unbind(0)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 0]], dtype=torch.bool)
    errors = [((prediction[b, n] - target[b, n]) ** 2).mean() for b in range(2) for n in range(5) if mask[b, n]]
    torch.testing.assert_close(masked_mse(prediction, target, mask), sum(errors) / 4)


def test_masked_mse_does_not_see_visible_tokens():
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 2, 5, 7).unbind(0)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[:, 1:3] = True
    loss = masked_mse(prediction, target, mask)
    spoilt = torch.where(mask[..., None], prediction, 99.0)
    assert masked_mse(spoilt, target, mask) == loss
    assert masked_mse(torch.where(mask[..., None], 99.0, prediction), target, mask) != loss


def test_masked_mse_needs_something_hidden_and_float32():
    x = torch.randn(1, 4, 3)
    with pytest.raises(ValueError, match="nothing to reconstruct"):
        masked_mse(x, x, torch.zeros(1, 4, dtype=torch.bool))
    assert masked_mse(x.bfloat16(), x, torch.ones(1, 4, dtype=torch.bool)).dtype == torch.float32


def test_soft_targets_reduce_to_pytorchs_hard_and_smoothed_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7), torch.tensor([0, 3, 6, 1, 3])
    one_hot = F.one_hot(labels, 7).float()
    torch.testing.assert_close(soft_target_cross_entropy(logits, one_hot), F.cross_entropy(logits, labels))
    smooth = one_hot * 0.9 + 0.1 / 7
    torch.testing.assert_close(soft_target_cross_entropy(logits, smooth),
                               F.cross_entropy(logits, labels, label_smoothing=0.1))
    expected = -(smooth * logits.exp().div(logits.exp().sum(1, keepdim=True)).log()).sum(1).mean()
    torch.testing.assert_close(soft_target_cross_entropy(logits, smooth), expected)


def test_soft_targets_refuse_integer_labels():
    with pytest.raises(ValueError, match="one_hot"):
        soft_target_cross_entropy(torch.randn(5, 7), torch.zeros(5, dtype=torch.long))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(experts=st.integers(2, 9), top_k=st.integers(1, 2), seed=st.integers(0, 99))
def test_a_uniform_router_scores_k(experts, top_k, seed):
    torch.manual_seed(seed)
    indices = torch.rand(3, 5, experts).topk(top_k).indices  # any choice: the probabilities are uniform
    assert load_balance_loss(torch.zeros(3, 5, experts), indices).item() == pytest.approx(top_k, rel=1e-5)


def test_a_collapsed_router_scores_e():
    logits = torch.full((3, 7, 5), -50.0)
    logits[..., 2] = 50.0
    assert load_balance_loss(logits, logits.topk(1).indices).item() == pytest.approx(5.0)


def test_clean_balance_is_the_switch_sum_over_the_batch():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5)
    indices = logits.topk(2).indices
    total = 0.0
    for e in range(5):
        chosen = sum(e in row for sample in indices.tolist() for row in sample) / 21
        total += chosen * logits.softmax(-1)[..., e].mean().item()
    assert load_balance_loss(logits, indices).item() == pytest.approx(5 * total, rel=1e-5)


def test_reference_balance_is_the_released_sum_and_has_no_lower_bound():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 5)
    indices = logits.topk(2).indices
    total = 0.0
    for b in range(3):
        for e in range(5):
            f = sum(e in row for row in indices[b].tolist()) / 7
            total += f * logits[b, :, e].mean().item()
    expected = 5**2 * total / (3 * 5)  # E² times the mean over b and e
    assert load_balance_loss(logits, indices, "reference").item() == pytest.approx(expected, rel=1e-5)
    assert load_balance_loss(torch.zeros_like(logits), indices, "reference") == 0
    assert load_balance_loss(logits - 100, indices, "reference") < -100, "raw logits: unbounded below"
    torch.testing.assert_close(load_balance_loss(logits - 100, indices), load_balance_loss(logits, indices),
                               msg="probabilities do not move when all logits do")


def test_balance_gradient_pushes_the_favoured_expert_down():
    logits = torch.zeros(2, 6, 4)
    logits[..., 1] = 0.5
    logits.requires_grad_()
    load_balance_loss(logits, logits.topk(1).indices).backward()
    assert (logits.grad[..., 1] > 0).all() and (logits.grad[..., [0, 2, 3]] < 0).all()
