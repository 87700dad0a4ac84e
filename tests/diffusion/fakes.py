"""A model in a few lines, and small states for it."""

from typing import Any

import torch

from rayreel.types import LatentState, TextContext

TOKENS = {"video": 4, "audio": 3}


class FakeModel:
    """Velocities that react to every input; keeps what it was called with."""

    def __init__(self):
        self.calls = []
        self.memories = []

    def __call__(self, video, audio, perturbations, memory):
        self.memories.append(memory)
        self.calls.append((video, audio, perturbations))
        samples = perturbations or [()] * len((video or audio).latent)
        skipped = torch.tensor([float(len(sample)) for sample in samples])[:, None, None]
        return tuple(
            stream
            and torch.sin(stream.latent * (1 + skipped))
            + stream.context.mean(dim=(1, 2), keepdim=True)
            + stream.timesteps
            for stream in (video, audio)
        )


def state(stream, batch=1, seed=0):
    tokens = TOKENS[stream]
    latent = torch.randn(batch, tokens, 2, generator=torch.Generator().manual_seed(seed))
    return LatentState(
        latent=latent,
        clean_latent=torch.zeros_like(latent),
        denoise_mask=torch.ones(batch, tokens, 1),
        positions=torch.zeros(batch, 3 if stream == "video" else 1, tokens, 2),
    )


def prompt(value):
    return TextContext(video=torch.full((5, 3), value), audio=torch.full((5, 2), value))


def row(whole, index):
    """One request of a batched state."""
    tensors = {name: getattr(whole, name) for name in LatentState.__slots__}
    rows: dict[str, Any] = {
        name: tensor if tensor is None else tensor[index : index + 1]
        for name, tensor in tensors.items()
    }
    return LatentState(**rows)
