"""A batch as the transformer reads it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rayreel.training.example import Batch, StreamBatch
from rayreel.types import Modality, TextContext


def modalities(
    batch: Batch, contexts: Sequence[TextContext], dtype: torch.dtype
) -> tuple[Modality | None, Modality | None]:
    """Both streams: ``model(*modalities(...))`` predicts their velocities.

    Nothing here depends on values, so the host need not wait for the device.

    Args:
        batch: On the model's device.
        contexts: Of each sample, unbatched, in order.
        dtype: Of the hidden states; noise levels and positions stay float32.

    Raises:
        ValueError: If there is not one context per sample.
    """
    if len(contexts) != len(batch.samples):
        raise ValueError(f"{len(contexts)} texts for {len(batch.samples)} samples")
    return (
        _modality(batch.video, [one.video for one in contexts], dtype),
        _modality(batch.audio, [one.audio for one in contexts], dtype),
    )


def _modality(
    stream: StreamBatch | None, contexts: Sequence[Tensor], dtype: torch.dtype
) -> Modality | None:
    if stream is None:
        return None
    return Modality(
        latent=stream.noisy.to(dtype),
        sigma=stream.sigma,
        timesteps=stream.timesteps[..., None],
        levels=_levels(stream),
        positions=stream.positions,
        context=torch.stack([context.to(dtype) for context in contexts]),
        keyframes_mask=stream.keyframes_mask,
    )


def _levels(stream: StreamBatch) -> Tensor | None:
    """All noise levels that tokens of the stream may have, where those of a sample differ.

    They save the memory of modulation for each token, which backward would need again.
    """
    if stream.timesteps.shape[1] == 1:
        return None
    return torch.cat((stream.sigma.new_zeros(1), stream.sigma)).sort().values
