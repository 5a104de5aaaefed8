"""clip → tokens → latents → loss     what the models are made of, one idea a file.

    tokens      image as one tubelet, tubelet embedding, positions.
    masking     random, frame and tube masks with exact counts.
    encoder     the shared ViT (timm blocks).
    decoder     mask tokens, light decoder, normalised-pixel target.
    adapters    bottleneck adapter, noisy top-k router, mixture of adapter experts (MoAE).
    mixing      the experts' answers added up: a loop, two large products, or places for each expert.
    prompts     S2D's two additions to an image transformer: a prompter (MCP) and an adapter (TMA).
    heads       pooling and one head per task.
    losses      masked MSE, soft-target cross-entropy, load balance.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
