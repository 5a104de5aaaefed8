"""A classifier of three blocks, two with experts, whose axes all differ: for tests of routing and rerouting."""

import torch

from s4d_lib.analysis.routing import expert_layers
from s4d_lib.models.classifier import S4DClassifier
from s4d_lib.models.sizes import Size

SIZE = Size(image_size=(8, 16), frames=6, patch=4, tubelet=2, dim=12, depth=3, heads=2, decoder_dim=8, decoder_depth=1,
            decoder_heads=2, positions="separable")
E, K, B = 5, 2, 7
GRID = (3, 2, 4)


def build(behaviour: str = "clean", **more) -> S4DClassifier:
    torch.manual_seed(0)
    settings = {"experts": E, "top_k": K, "capacity_factor": 1.0, "behaviour": behaviour} | more
    model = S4DClassifier(SIZE, {"image": 3, "video": 4}, moae_blocks=(0, 2), **settings)
    for moae in expert_layers(model).values():  # large weights, so that a change of the mixture shows in the answers
        for parameter in moae.parameters():
            parameter.data.normal_(std=0.6)
    return model.eval()


def some_clips() -> torch.Tensor:
    return torch.randn(B, 3, 6, 8, 16, generator=torch.Generator().manual_seed(1))


def some_images() -> torch.Tensor:
    return torch.randn(9, 3, 8, 16, generator=torch.Generator().manual_seed(2))
