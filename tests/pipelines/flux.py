"""A Flux 2 pipeline of diffusers with random weights, small enough to make pictures in tests."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

END = "<|endoftext|>"
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_tiny_flux(folder: Path, *, distilled: bool = False) -> Path:
    """Write a Klein: the variant whose text encoder is a language model and nothing else."""
    vocabulary = {token: i for i, token in enumerate([END, *sorted(_bytes())])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=[], unk_token=END, eos_token=END, pad_token=END
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline: Any = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=AutoencoderKLFlux2(
                # Four levels, as published: 8 pixels per latent position, 16 per token.
                block_out_channels=(4, 4, 4, 4),
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=2,
            ),
            text_encoder=Qwen3ForCausalLM(
                Qwen3Config(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=16,
                    # The 27th hidden state is the last that the pipeline reads.
                    num_hidden_layers=27,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    head_dim=8,
                )
            ),
            tokenizer=tokenizer,
            transformer=Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * 16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            is_distilled=distilled,
        )
    pipeline.save_pretrained(folder)
    return folder


def _bytes() -> list[str]:
    """The characters that stand for bytes."""
    return pre_tokenizers.ByteLevel.alphabet()
