"""task → ways     rows of the models: training steps and inference, and how far they are from the textbook.

A training step is forward pass, loss, backward pass, AdamW and cleared gradients on resident tensors, the same ones for
every way; ours is what `s4d train` computes (the loss of its job, its optimiser).

Inference is a forward pass without gradients. In bf16 training every way runs under autocast; at inference
transformers has its weights in bf16, as its users have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from s4d_lib.bench.baselines import HuggingFace, at_hand, soft_cross_entropy, textbook_twin
from s4d_lib.bench.timing import Call
from s4d_lib.layers.losses import soft_target_cross_entropy
from s4d_lib.layers.masking import random_mask, split_index
from s4d_lib.models.sizes import Size, resolve_size

Stage = Literal["pretrain", "finetune", "predict"]
CLASSES = 7
BALANCE = 1e-3                               # weight of the balance loss, as a fine-tuning has it
HIDDEN = {"image": 0.9, "clip": 0.95}        # of the paper
NAMES = {"pretrain": "pretraining", "finetune": "fine-tuning", "predict": "inference"}
PRECISIONS = {"no": "float32", "bf16": "bf16"}


@dataclass(frozen=True)
class Task:
    """What every way of a row is asked to do."""

    stage: Stage
    modality: Literal["image", "clip"]
    size: str | Size
    batch: int
    precision: str = "no"      # or "bf16"
    device: str = "cpu"
    experts: bool = False

    @property
    def name(self) -> str:
        words = [NAMES[self.stage], "stills" if self.modality == "image" else "clips"]
        words += ["with experts"] if self.experts else []
        return " ".join([*words, f"batch {self.batch}", PRECISIONS[self.precision]])


def inputs(task: Task) -> dict[str, Tensor]:
    """Random inputs of the right shape on the device: "x", and "mask" `[b n]` or "target" `[b classes]`."""
    s, draw = resolve_size(task.size), torch.Generator().manual_seed(0)
    time = (s.frames,) if task.modality == "clip" else ()
    found = {"x": torch.randn((task.batch, 3, *time, s.height, s.width), generator=draw)}
    if task.stage == "pretrain":
        grid = s.grid if task.modality == "clip" else s.image_grid
        found["mask"] = random_mask(task.batch, grid, HIDDEN[task.modality], draw)
    elif task.stage == "finetune":
        found["target"] = torch.randn((task.batch, CLASSES), generator=draw).softmax(-1)
    resident = {name: value.to(task.device) for name, value in found.items()}
    return resident | ({"drawn": found["mask"]} if "mask" in found else {})  # a training draws masks on the processor


# ---------------------------------------------------------------------------------------------------------- networks


def our_network(task: Task) -> nn.Module:
    from s4d_lib.models.autoencoder import DualModalMAE
    from s4d_lib.models.classifier import S4DClassifier

    torch.manual_seed(0)
    blocks = "last_half" if task.experts else ()
    model = (DualModalMAE(task.size) if task.stage == "pretrain" else
             S4DClassifier(task.size, {"image": CLASSES, "video": CLASSES}, blocks))
    return model.to(task.device).train(task.stage != "predict")


def textbook_network(task: Task) -> nn.Module:
    return textbook_twin(our_network(task))


def hugging_face_network(task: Task) -> nn.Module:
    torch.manual_seed(0)
    half = torch.bfloat16 if (task.stage, task.precision) == ("predict", "bf16") else None
    model = HuggingFace(task.size, None if task.stage == "pretrain" else CLASSES, half)
    return model.to(task.device).train(task.stage != "predict")


NETWORKS = {"ours": our_network, "textbook": textbook_network, "transformers": hugging_face_network}


def loss_and_answer(way: str, model: nn.Module, task: Task, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of a training step, and what the network said: pixels of hidden tokens `[b m p]`, or logits."""
    if task.stage == "pretrain" and way == "ours":
        with torch.no_grad():
            pixels = model(batch["x"], batch["mask"]).prediction  # of all tokens: the slow path
        return loss_of(way, model, task, batch), pixels[batch["mask"]].view(task.batch, -1, pixels.shape[-1])
    if task.stage == "pretrain":
        found = model(batch["x"], batch["mask"])
        return found if way == "textbook" else (found, found)
    logits = model(batch["x"])
    entropy = soft_target_cross_entropy if way == "ours" else soft_cross_entropy
    loss = entropy(logits, batch["target"])
    return (loss + BALANCE * model.balance_loss() if task.experts else loss), logits


def loss_of(way: str, model: nn.Module, task: Task, batch: dict[str, Tensor]) -> Tensor:
    """The loss alone: what a step of training computes."""
    if task.stage == "pretrain" and way == "ours":
        visible, hidden = (places.to(task.device, non_blocking=True) for places in split_index(batch["drawn"]))
        return model.loss(batch["x"], visible, hidden)
    return loss_and_answer(way, model, task, batch)[0]


def autocast(task: Task) -> torch.autocast:
    return torch.autocast(task.device.split(":")[0], dtype=torch.bfloat16, enabled=task.precision == "bf16")


# ---------------------------------------------------------------------------------------------------------- ways


def make(way: str, task: Task) -> Call:
    """A network ready to be called: one step of training, or one answer."""
    model, batch = NETWORKS[way](task), inputs(task)
    if task.stage == "predict":
        return partial(_answer, way, model, task, batch["x"])
    return partial(_step, way, model, task, batch, _optimizer(way, model))


def _step(way: str, model: nn.Module, task: Task, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    with autocast(task):
        loss = loss_of(way, model, task, batch)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _optimizer(way: str, model: nn.Module) -> torch.optim.Optimizer:
    """Ours is the one of the library's training, the others' PyTorch's by default."""
    if way != "ours":
        return torch.optim.AdamW(model.parameters(), lr=1e-5)
    from s4d_lib.training.optimizers import adamw

    return adamw([{"params": list(model.parameters())}], 1e-5, (0.9, 0.999), separate=False, plain=False)


@torch.inference_mode()
def _answer(way: str, model: nn.Module, task: Task, x: Tensor) -> Tensor:
    if way == "transformers":
        return model(x)
    with autocast(task):
        return model(x)


def ways_of(task: Task) -> dict[str, Any]:
    """Ours and what is at hand to stand beside it: transformers reads clips, and has no experts."""
    names = ["ours"] + ["textbook"] * at_hand("textbook")
    if task.modality == "clip" and not task.experts and at_hand("transformers"):
        names.append("transformers")
    return {name: partial(make, name, task) for name in names}


# ---------------------------------------------------------------------------------------------------------- checks


def differences(task: Task) -> dict[str, float]:
    """How far ours is from the textbook with the same weights, inputs and chance: largest absolute differences.

    "answer" of pixels or logits, of a training also "loss" and "gradient"; "scale" is the largest gradient. Of two
    samples at most. Both compute in the precision of the task.
    """
    task = replace(task, batch=min(task.batch, 2))
    model, batch = our_network(task), inputs(task)
    twin = textbook_twin(model)
    if task.stage == "predict":
        a, b = (_answer(way, network, task, batch["x"]).float() for way, network in (("ours", model),
                                                                                   ("textbook", twin)))
        return {"answer": float((a - b).abs().max())}
    losses, answers = [], []
    for way, network in (("ours", model), ("textbook", twin)):
        torch.manual_seed(1)  # the routers' noise
        with autocast(task):
            loss, answer = loss_and_answer(way, network, task, batch)
        loss.backward()
        losses.append(float(loss.detach()))
        answers.append(answer.detach().float())
    theirs = dict(twin.named_parameters())
    apart = [float((p.grad - theirs[name].grad).abs().max()) for name, p in model.named_parameters()
             if p.grad is not None]
    scale = max(float(p.grad.abs().max()) for p in twin.parameters() if p.grad is not None)
    return {"loss": abs(losses[0] - losses[1]), "answer": float((answers[0] - answers[1]).abs().max()),
            "gradient": max(apart), "scale": scale}


def operations(task: Task) -> float:
    """TFLOP of one call: counted for one sample of ours and of the textbook, the fewer of both, times the batch."""
    one = replace(task, batch=1, precision="no", device="cpu")
    return task.batch * min(_counted(way, one) for way in ["ours"] + ["textbook"] * at_hand("textbook"))


@cache
def _counted(way: str, task: Task) -> float:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    call = make(way, task)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted
        call()
    return counter.get_total_flops() / 1e12
