"""A transformer that has learned nothing yet.

Weights keep signals at their size; what would make the network wrong at first begins at zero: the
last layers, so that it says no velocity, and those that modulate by the noise level.

Reference:
    Peebles and Xie, Scalable Diffusion Models with Transformers, 2023: adaLN-Zero; Chen et al.,
    PixArt-alpha, 2023: tables of the blocks.
"""

import math

import torch
from torch import nn

from rayreel.config.model import TransformerConfig
from rayreel.models.transformer import Transformer


def draw_transformer(config: TransformerConfig, seed: int) -> Transformer:
    """A transformer with random weights, the same for the same seed.

    Args:
        config: Its architecture.
        seed: Decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    network = Transformer(config)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            if name.endswith("proj_out"):
                nn.init.zeros_(module.weight)
            elif "adaln" in name:
                nn.init.normal_(module.weight, std=0.02, generator=generator)
            else:
                nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if "scale_shift_table" in name:
            spread = 1 / math.sqrt(parameter.shape[-1])
            nn.init.normal_(parameter, std=spread, generator=generator)
    return network
