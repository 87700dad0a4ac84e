"""A few steps of training without data, so that weights are others than at first."""

from typing import Any

import torch
from torch import Tensor, nn

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.model import TransformerConfig
from rayreel.config.train import TrainSpec
from rayreel.models.transformer import Transformer
from rayreel.training.model import Trainable, build_trainable
from rayreel.types import Modality

CPU = torch.device("cpu")


def spec_of(**fields: Any) -> TrainSpec:
    """A spec of the tiny model, whose dataset is never read."""
    return TrainSpec.model_validate({"dataset": "none", **fields})


def trainable(
    files: ModelFiles | None = None, dtype: torch.dtype = torch.float32, **fields: Any
) -> Trainable:
    files = files or ModelFiles(locate_model("tiny"))
    return build_trainable(files, spec_of(**fields), CPU, dtype)


def noise_streams(
    config: TransformerConfig, dtype: torch.dtype = torch.float32
) -> tuple[Modality | None, Modality | None]:
    """Six video tokens and four of audio, of a network's widths."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to(dtype)

    def stream(tokens: int, channels: int, text: int, axes: int) -> Modality:
        starts = torch.arange(tokens).float().expand(1, axes, tokens)
        return Modality(
            latent=draw(tokens, channels),
            sigma=torch.tensor([0.7]),
            timesteps=torch.full((1, 1, 1), 0.7),
            positions=torch.stack((starts, starts + 1), dim=-1),
            context=draw(5, text),
            keyframes_mask=(torch.arange(tokens) < 2).float().view(1, -1, 1),
        )

    texts = (config.cross_attention_dim, config.audio_cross_attention_dim)
    if not config.caption_proj_before_connector:
        assert config.caption_channels is not None
        texts = (config.caption_channels, config.caption_channels)
    return (
        stream(6, config.in_channels, texts[0], 3) if config.has_video else None,
        stream(4, config.audio_in_channels, texts[1], 1) if config.has_audio else None,
    )


def loss_of(model: Transformer, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of no meaning, but of all that the model predicts."""
    velocities = model(*noise_streams(model.config, dtype))
    return torch.stack([v.float().square().mean() for v in velocities if v is not None]).sum()


def train(model: Transformer, dtype: torch.dtype = torch.float32, steps: int = 3) -> None:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, dtype).backward()
        optimizer.step()


@torch.no_grad()
def change(model: Transformer) -> None:
    """Other weights than at first, for less time than training takes."""
    generator = torch.Generator().manual_seed(0)
    for tensor in learned(model).values():
        tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))


def learned(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
