"""S4D written a second time, slowly: the classifier and the masked autoencoder in NumPy, loop by loop.

An oracle for `s4d_lib`, from which it takes nothing. Everything follows arXiv 2409.06154 and the released layout of a
state dict: what the weights tell by their shapes (widths, patch, tubelet, depth, experts) is read there, the rest is
an argument. Samples, tokens, heads and experts are loops; float64 throughout; no router noise.
"""

import math

import numpy as np

Array = np.ndarray
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, for the pixels of the target


def as_state(model) -> dict[str, Array]:
    """The state dict of a torch module in float64."""
    return {key: value.detach().double().numpy() for key, value in model.state_dict().items()}


def classify(state: dict[str, Array], x: Array, heads: int, top_k: int = 2, capacity_factor: float = math.inf,
             grid: tuple[int, int, int] | None = None) -> Array:
    """Images `[b 3 h w]` or clips `[b 3 t h w]` → logits `[b classes]` of their head.

    `grid` numbers the positions as if the tokens lay on it: the wrong ones for a control.
    """
    cut = [tubelets(state["patch_embed.proj.weight"].shape[2:], sample) for sample in x]
    tokens = embed(state, [boxes for boxes, _ in cut], grid or cut[0][1], cut[0][1])
    latents = transform(state, tokens, heads, top_k, capacity_factor)
    task = "image" if x.ndim == 4 else "video"
    logits = []
    for sample in latents:
        mean = sum(sample) / len(sample)
        feature = norm(mean, state["fc_norm.weight"], state["fc_norm.bias"])
        logits.append(state[f"head.{task}.weight"] @ feature + state[f"head.{task}.bias"])
    return np.array(logits)


def reconstruct(state: dict[str, Array], x: Array, mask: Array, heads: int,
                decoder_heads: int) -> tuple[Array, float]:
    """Predictions `[b n p]` of the masked autoencoder and its loss; mask bool `[b n]`, True = hidden."""
    encoder, decoder = part(state, "encoder."), part(state, "decoder.")
    kernel = encoder["patch_embed.proj.weight"].shape[2:]
    predictions, losses = [], []
    for sample, hidden in zip(x, mask, strict=True):
        boxes, grid = tubelets(kernel, sample)
        tokens = embed(encoder, [boxes], grid, grid)[0]
        visible = [token for token, gone in zip(tokens, hidden, strict=True) if not gone]
        visible = iter(transform(encoder, [visible], heads)[0])
        full = []
        for n, gone in enumerate(hidden):
            if gone:
                latent = state["mask_token"][0, 0]
            else:
                latent = norm(next(visible), encoder["norm.weight"], encoder["norm.bias"])
                latent = state["encoder_to_decoder.weight"] @ latent
            full.append(latent + position(n, len(latent)))
        prediction = []
        for latent in transform(decoder, [full], decoder_heads)[0]:
            latent = norm(latent, decoder["norm.weight"], decoder["norm.bias"])
            prediction.append(decoder["head.weight"] @ latent + decoder["head.bias"])
        predictions.append(prediction)
        losses += [((guess - target(box)) ** 2).mean()
                   for guess, box, gone in zip(prediction, boxes, hidden, strict=True) if gone]
    return np.array(predictions), float(np.mean(losses))


def part(state: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def tubelets(kernel: tuple[int, int, int], sample: Array) -> tuple[list[Array], tuple[int, int, int]]:
    """A clip `[3 t h w]` or image `[3 h w]` cut into boxes `[3 u p p]` in raster order, and their grid."""
    u, p, q = kernel
    if sample.ndim == 3:  # an image stands still for one tubelet
        sample = np.stack([sample] * u, axis=1)
    _, frames, height, width = sample.shape
    boxes = [sample[:, t: t + u, y: y + p, x: x + q].astype(float)
             for t in range(0, frames, u) for y in range(0, height, p) for x in range(0, width, q)]
    return boxes, (frames // u, height // p, width // q)


def position(index: int, dim: int) -> Array:
    """Sinusoid of the flattened token index: sine in even columns, cosine in odd ones."""
    row = np.zeros(dim)
    for j in range(dim):
        angle = index / 10000 ** (2 * (j // 2) / dim)
        row[j] = math.cos(angle) if j % 2 else math.sin(angle)
    return row


def embed(state: dict[str, Array], samples: list[list[Array]], numbered: tuple[int, int, int],
          grid: tuple[int, int, int]) -> list[list[Array]]:
    """Boxes of every sample → tokens with the positions of the grid `numbered` (their own, unless for a control)."""
    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    _, rows, columns = numbered
    out = []
    for boxes in samples:
        tokens = []
        for n, box in enumerate(boxes):
            t, y, x = n // (grid[1] * grid[2]), n // grid[2] % grid[1], n % grid[2]
            index = (t * rows + y) * columns + x
            token = np.array([(weights * box).sum() for weights in kernel]) + bias
            tokens.append(token + position(index, len(token)))
        out.append(tokens)
    return out


def transform(state: dict[str, Array], samples: list[list[Array]], heads: int, top_k: int = 2,
              capacity_factor: float = math.inf) -> list[list[Array]]:
    """All blocks of a state dict over a batch of token lists."""
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    for i in range(depth):
        block = part(state, f"blocks.{i}.")
        samples = [attend(block, tokens, heads) for tokens in samples]
        normed = [[norm(y, block["norm2.weight"], block["norm2.bias"]) for y in tokens] for tokens in samples]
        dense = [[perceptron(part(block, "mlp."), z) for z in tokens] for tokens in normed]
        moae = part(block, "moe_layer.")
        mixed = mixture(moae, normed, top_k, capacity_factor) if moae else [[0.0] * len(ts) for ts in samples]
        samples = [[y + f + m for y, f, m in zip(*three, strict=True)]
                   for three in zip(samples, dense, mixed, strict=True)]
    return samples


def attend(block: dict[str, Array], tokens: list[Array], heads: int) -> list[Array]:
    """Tokens plus global self-attention over their norms. Keys have no bias."""
    dim = len(tokens[0])
    width = dim // heads
    normed = [norm(x, block["norm1.weight"], block["norm1.bias"]) for x in tokens]
    w_q, w_k, w_v = np.split(block["attn.qkv.weight"], 3)
    answers = np.zeros((len(tokens), dim))
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        keys = [w_k[rows] @ z for z in normed]
        values = [w_v[rows] @ z + block["attn.v_bias"][rows] for z in normed]
        for n, z in enumerate(normed):
            query = w_q[rows] @ z + block["attn.q_bias"][rows]
            scores = np.array([query @ key for key in keys]) / math.sqrt(width)
            weights = np.exp(scores - scores.max())
            weights /= weights.sum()
            answers[n, rows] = sum(weight * value for weight, value in zip(weights, values, strict=True))
    return [x + block["attn.proj.weight"] @ answer + block["attn.proj.bias"]
            for x, answer in zip(tokens, answers, strict=True)]


def mixture(moae: dict[str, Array], samples: list[list[Array]], top_k: int,
            capacity_factor: float) -> list[list[Array]]:
    """Mixture of adapter experts, one token of the flattened batch after the other.

    An expert that has served its share C = int(tokens·k/experts · capacity_factor) serves nobody after that, and the
    gate of who came late goes to no other.
    """
    experts = len({key.split(".")[1] for key in moae if key.startswith("experts.")})
    count = sum(map(len, samples))
    capacity = math.inf if math.isinf(capacity_factor) else int(count * top_k / experts * capacity_factor)
    served = [0] * experts
    out = []
    for tokens in samples:
        answers = []
        for z in tokens:
            logits = moae["router.topkroute_linear.weight"] @ z + moae["router.topkroute_linear.bias"]
            chosen = sorted(range(experts), key=lambda e: -logits[e])[:top_k]
            gates = [math.exp(logits[e] - logits[chosen[0]]) for e in chosen]
            answer = np.zeros_like(z)
            for e, gate in zip(chosen, gates, strict=True):
                served[e] += 1
                if served[e] <= capacity:
                    answer += gate / sum(gates) * perceptron(part(moae, f"experts.{e}."), z)
            answers.append(answer)
        out.append(answers)
    return out


def perceptron(weights: dict[str, Array], z: Array) -> Array:
    hidden = weights["fc1.weight"] @ z + weights["fc1.bias"]
    hidden = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
    return weights["fc2.weight"] @ hidden + weights["fc2.bias"]


def norm(x: Array, weight: Array, bias: Array) -> Array:
    mean = sum(x) / len(x)
    variance = sum((x - mean) ** 2) / len(x)
    return (x - mean) / math.sqrt(variance + 1e-6) * weight + bias


def target(box: Array, epsilon: float = 1e-6) -> Array:
    """What to predict of a box `[3 u p p]`: pixels in [0, 1], each channel normalised, channel fastest."""
    channels = []
    for c in range(3):
        pixels = (box[c] * STD[c] + MEAN[c]).ravel()
        variance = sum((pixels - pixels.mean()) ** 2) / (len(pixels) - 1)
        channels.append((pixels - pixels.mean()) / math.sqrt(variance + epsilon))
    return np.stack(channels, axis=1).ravel()
