"""models/landmark_net.py against the released network; layers/prompts.py against slow loops."""

import json
import zlib
from math import erf, exp, prod, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s4d_lib.layers.prompts import FOVEA_SCALE, Fovea, Prompter, TemporalAdapter
from s4d_lib.models.landmark_net import LandmarkNet

DATA = Path(__file__).parent / "data"
KEYS = json.loads((DATA / "mobilefacenet_keys.json").read_text())


def rule_made(key: str, shape: list[int]) -> torch.Tensor:
    """The weights behind the released outputs: random numbers seeded by the key's name."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        x = 1 + 0.1 * np.abs(x)
    elif key.endswith(("running_mean", "bias")):
        x = 0.05 * x
    elif len(shape) > 1:
        x = x / np.float32(sqrt(prod(shape[1:])))
    else:
        x = 0.25 + 0.05 * x if "prelu" in key else 1 + 0.1 * x
    return torch.from_numpy(x)


def released_network() -> LandmarkNet:
    net = LandmarkNet()
    net.load_state_dict({key: rule_made(key, shape) for key, shape in KEYS.items()})
    return net.eval()


def faces() -> torch.Tensor:
    x = np.random.default_rng(zlib.crc32(b"face")).standard_normal((2, 3, 112, 112))
    return torch.from_numpy(x.astype(np.float32))


@torch.no_grad()
def outputs(net: LandmarkNet) -> dict[str, torch.Tensor]:
    tap = net.features(faces())
    return {"landmarks": net(faces()), "features_sum": tap.sum((2, 3)), "features_corner": tap[:, :, :2, :2]}


def relative_error(actual: dict[str, torch.Tensor]) -> dict[str, float]:
    """Largest difference to the released output, over the largest released number."""
    expected = {key: torch.from_numpy(value) for key, value in np.load(DATA / "mobilefacenet_expect.npz").items()}
    return {key: ((actual[key] - value).abs().max() / value.abs().max()).item() for key, value in expected.items()}


def test_the_network_answers_as_released():
    error = relative_error(outputs(released_network()))
    assert error.keys() == {"landmarks", "features_sum", "features_corner"}
    assert max(error.values()) < 1e-5, error


def without_skips(net: LandmarkNet) -> None:
    for stage in (net.conv_3, net.conv_4, net.conv_5):
        stage.forward = nn.Sequential(*stage.model).forward


def with_relu(net: LandmarkNet) -> None:
    for module in net.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data.zero_()


def batch_statistics(net: LandmarkNet) -> None:
    net.train()


@pytest.mark.parametrize("change", [without_skips, with_relu, batch_statistics])
def test_the_released_maps_tell_variants_apart(change):
    net = released_network()
    change(net)
    error = relative_error(outputs(net))
    assert min(error.values()) > 1e-2, error


def test_keys_and_parameters_are_the_released_inventory():
    with torch.device("meta"):
        net = LandmarkNet()
    state = net.state_dict()
    assert len(state) == 333
    assert {key: list(value.shape) for key, value in state.items()} == KEYS
    assert sum(p.numel() for p in net.parameters()) == 1_007_248
    assert net.config == {}


def test_compute_is_the_released_networks():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        LandmarkNet()(torch.empty(16, 3, 112, 112))
    assert counter.get_total_flops() / 2e9 == pytest.approx(3.54, abs=0.005)
    with torch.device("meta"), FlopCounterMode(display=False) as tap:
        assert LandmarkNet().features(torch.empty(16, 3, 112, 112)).shape == (16, 128, 14, 14)
    assert tap.get_total_flops() < counter.get_total_flops(), "the prompter's features cost less than the points"


def stretch(size: int) -> torch.Tensor:
    """Rows of 112 samples that run from the first of `size` numbers to the last, straight lines between."""
    weights = torch.zeros(112, size)
    for i in range(112):
        place = i * (size - 1) / 111
        left = min(int(place), size - 2)
        weights[i, left], weights[i, left + 1] = left + 1 - place, place - left
    return weights


@torch.no_grad()
def test_other_sizes_are_stretched_corner_to_corner():
    net = released_network()
    frames = torch.randn(2, 3, 40, 70, generator=torch.Generator().manual_seed(0))
    stretched = stretch(40) @ frames @ stretch(70).T
    torch.testing.assert_close(net.features(frames), net.features(stretched), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(frames), net(stretched), rtol=1e-4, atol=1e-4)
    inner = nn.functional.interpolate(frames, (112, 112), mode="bilinear", align_corners=False)
    assert (net.features(inner) - net.features(stretched)).abs().max() > 0.1, "half a pixel off shows"


@pytest.mark.parametrize("shape", [(2, 3, 4, 20, 20), (3, 20, 20), (2, 1, 20, 20)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"reads frames \[b 3 h w\], got shape"):
        LandmarkNet().features(torch.zeros(shape))


# The slow versions below work on nested lists of Python floats (double precision), one number at a time.


def scramble(module: nn.Module, seed: int) -> dict[str, list]:
    """Random parameters, large enough that every one of them matters; also as nested lists."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return {key: value.tolist() for key, value in module.state_dict().items()}


def slow_linear(x: list[float], weight: list, bias: list[float] | None = None) -> list[float]:
    answer = []
    for i, row in enumerate(weight):
        # A 1×1 convolution keeps its weights as [[number]].
        total = sum((w[0][0] if isinstance(w, list) else w) * v for w, v in zip(row, x))
        answer.append(total + (bias[i] if bias else 0.0))
    return answer


def slow_softmax(scores: list[float]) -> list[float]:
    shares = [exp(score - max(scores)) for score in scores]
    return [share / sum(shares) for share in shares]


def slow_fovea(g: list[list[float]], scale: float) -> list[list[float]]:
    """`[place][channel]` → the same: softmax over places, channel by channel."""
    answer = [[0.0] * len(g[0]) for _ in g]
    for c in range(len(g[0])):
        for place, share in enumerate(slow_softmax([scale * row[c] for row in g])):
            answer[place][c] = share * g[place][c]
    return answer


def slow_prompt(w: dict[str, list], x: list[list[float]], prompt: list[list[float]]) -> list[list[float]]:
    seen = slow_fovea([slow_linear(v, w["conv0_0.weight"], w["conv0_0.bias"]) for v in x], w["fovea.smooth"][0])
    told = [slow_linear(v, w["conv0_1.weight"], w["conv0_1.bias"]) for v in prompt]
    return [slow_linear([s + t for s, t in zip(a, b)], w["conv1x1.weight"], w["conv1x1.bias"])
            for a, b in zip(seen, told)]


def gelu(v: float) -> float:
    return 0.5 * v * (1 + erf(v / sqrt(2)))


def slow_attention(w: dict[str, list], tokens: list[list[float]], heads: int) -> list[list[float]]:
    width = len(tokens[0])
    head = width // heads
    qkv = [slow_linear(v, w["T_Adapter.attn.qkv.weight"]) for v in tokens]
    answer = []
    for i in range(len(tokens)):
        mixed = []
        for h in range(heads):
            query = qkv[i][h * head: (h + 1) * head]
            keys = [v[width + h * head: width + (h + 1) * head] for v in qkv]
            share = slow_softmax([sum(a * b for a, b in zip(query, key)) / sqrt(head) for key in keys])
            first = 2 * width + h * head
            mixed += [sum(s * v[c] for s, v in zip(share, qkv)) for c in range(first, first + head)]
        answer.append(slow_linear(mixed, w["T_Adapter.attn.proj.weight"], w["T_Adapter.attn.proj.bias"]))
    return answer


def slow_temporal(w: dict[str, list], tokens: list[list[float]], heads: int) -> list[list[float]]:
    """One place of one clip, `[frame][channel]` → the same."""
    down = [[gelu(v) for v in slow_linear(x, w["T_Adapter.D_fc1.weight"], w["T_Adapter.D_fc1.bias"])] for x in tokens]
    answer = []
    for mixed in slow_attention(w, down, heads):
        x = slow_linear(mixed, w["T_Adapter.D_fc2.weight"], w["T_Adapter.D_fc2.bias"])
        mean = sum(x) / len(x)
        spread = sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
        x = [(v - mean) / spread * a + b for v, a, b in zip(x, w["norm.weight"], w["norm.bias"])]
        x = [gelu(v) for v in slow_linear(x, w["S_Adapter.D_fc1.weight"], w["S_Adapter.D_fc1.bias"])]
        answer.append(slow_linear(x, w["S_Adapter.D_fc2.weight"], w["S_Adapter.D_fc2.bias"]))
    return answer


@torch.no_grad()
def test_the_prompter_equals_a_slow_one():
    prompter = Prompter(dim=6, prompt_dim=4, hidden=3, temporal_heads=1)
    weights = scramble(prompter, seed=0)
    x, prompt = torch.randn(2, 5, 10, 6, generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([slow_prompt(weights, a, b) for a, b in zip(x.tolist(), prompt.tolist())])
    torch.testing.assert_close(prompter(x, prompt, (2, 5)), expected, rtol=1e-5, atol=1e-5)
    # Control: the two streams are not interchangeable, and the fovea is no identity.
    assert (prompter(prompt, x, (2, 5)) - expected).abs().max() > 0.1
    prompter.fovea = nn.Identity()
    assert (prompter(x, prompt, (2, 5)) - expected).abs().max() > 0.1


@torch.no_grad()
def test_the_fovea_turns_from_mean_to_maximum():
    g = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    fovea = Fovea()
    assert fovea.smooth.tolist() == [FOVEA_SCALE] == [10.0]
    fovea.smooth.zero_()
    torch.testing.assert_close(fovea(g), g / 20)
    fovea.smooth.fill_(1e4)
    torch.testing.assert_close(fovea(g), torch.where(g == g.amax((2, 3), keepdim=True), g, 0.0))


@torch.no_grad()
def test_the_temporal_adapter_equals_a_slow_one():
    b, t, n, d, heads = 2, 3, 5, 8, 2
    adapter = TemporalAdapter(d, hidden=6, heads=heads)
    weights = scramble(adapter, seed=0)
    x = torch.randn(b, t, n, d, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros_like(x)
    for clip in range(b):
        for place in range(n):
            expected[clip, :, place] = torch.tensor(slow_temporal(weights, x[clip, :, place].tolist(), heads))
    actual = adapter(x.flatten(0, 1), t).view_as(x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    # Control: read as two frames of three clips, the same tokens give something else.
    assert (adapter(x.flatten(0, 1), b).view_as(x) - expected).abs().max() > 0.1


@torch.no_grad()
def test_a_place_hears_of_itself_in_other_frames_only():
    adapter = TemporalAdapter(8, hidden=6, heads=3)
    scramble(adapter, seed=0)
    x = torch.randn(2, 4, 5, 8, generator=torch.Generator().manual_seed(1))
    before = adapter(x.flatten(0, 1), 4).view_as(x)
    x[1, 2, 3] += 1
    moved = (adapter(x.flatten(0, 1), 4).view_as(x) - before).abs().amax(-1) > 1e-6
    expected = torch.zeros(2, 4, 5, dtype=torch.bool)
    expected[1, :, 3] = True
    assert torch.equal(moved, expected)
