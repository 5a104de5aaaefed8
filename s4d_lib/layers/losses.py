"""logits → loss     masked MSE, soft-target cross-entropy, load balance.

All three are computed in float32, whatever precision the model ran in.
"""

from torch import Tensor
from torch.nn import functional as F

from s4d_lib.errors import Refused


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Squared error, mean over the pixels of a tubelet and then over hidden tokens: Σ mask·error / Σ mask.

    Prediction and target `[b n p]`, mask bool `[b n]` → scalar (arXiv 2409.06154; released
    `pretrain/omnivision/losses/mae_loss.py:57-136`).
    """
    hidden = mask.sum()
    if hidden.device.type == "cpu" and hidden == 0:  # an accelerator would be waited for; there the loss is NaN
        raise Refused("the mask hides no token, so there is nothing to reconstruct; raise the mask ratio")
    error = (prediction.float() - target.float()).square().mean(dim=-1)
    return (error * mask).sum() / hidden


def soft_target_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with class probabilities, as Mixup makes them: both `[b classes]` → scalar."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and soft targets {tuple(targets.shape)} must agree; "
                         "turn integer labels into rows with torch.nn.functional.one_hot")
    return F.cross_entropy(logits.float(), targets.float())


def load_balance_loss(logits: Tensor, indices: Tensor, behaviour: str = "clean",
                      chosen_in_batch: Tensor | None = None) -> Tensor:
    """How unevenly a router spreads tokens: its logits `[b n e]` and chosen experts `[b n k]` → scalar.

    `clean` is the Switch loss, e · Σ_e f_e·P_e, with f_e the share of tokens that chose expert e and P_e its
    mean probability, both over the batch: k when the router is uniform, more when it prefers few experts.
    `reference` is the released formula (`finetune/s4d/videomae.py:125-135`): raw logits in place of
    probabilities, and shares per sample. It has no lower bound.

    Where the tokens are a share of a batch, `chosen_in_batch` `[batch e]` counts how often each sample of the whole
    batch chose each expert: f_e is the batch's, and the mean of the shares' losses, by samples, is the batch's loss.
    """
    experts = logits.shape[-1]
    logits = logits.float()
    chosen = F.one_hot(indices, experts).sum(dim=-2).float()  # [b n e], k ones in each row
    if behaviour == "reference":
        return experts * (chosen.mean(dim=1) * logits.mean(dim=1)).sum(dim=-1).mean()
    probability = logits.softmax(dim=-1)
    share = chosen.mean(dim=(0, 1))
    if chosen_in_batch is not None:
        share = chosen_in_batch.sum(dim=0) / (len(chosen_in_batch) * logits.shape[1])
    return experts * (share * probability.mean(dim=(0, 1))).sum()
