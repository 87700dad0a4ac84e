"""Generator of a waveform from a mel spectrogram: HiFi-GAN, or with periodic activations (AMP).

Letters: B batch, S stereo channels, T mel frames, M mel bins, C channels, N samples.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rayreel.config.model import VocoderConfig
from rayreel.models.vocoder.activation import AntiAliasedSnake

STEREO = 2
# Of the mel spectrograms that the published vocoders take; their configs do not say.
MEL_BINS = 64


class ResidualBlock(nn.Module):
    """Pairs of convolutions, the first of each dilated, beside skips."""

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilations: Sequence[int],
        activation: Callable[[int], nn.Module],
    ) -> None:
        """Make the layers.

        Args:
            channels: C.
            kernel_size: Odd.
            dilations: One pair of convolutions each.
            activation: Makes what stands before every convolution, from C.
        """
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            padding = (kernel_size - 1) * dilation // 2
            return nn.Conv1d(channels, channels, kernel_size, padding=padding, dilation=dilation)

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.acts1 = nn.ModuleList(activation(channels) for _ in dilations)
        self.acts2 = nn.ModuleList(activation(channels) for _ in dilations)

    def forward(self, x_BCN: Tensor) -> Tensor:
        """``(B, C, N)`` to the same shape."""
        for act1, conv1, act2, conv2 in zip(
            self.acts1, self.convs1, self.acts2, self.convs2, strict=True
        ):
            x_BCN = conv2(act2(conv1(act1(x_BCN)))).add_(x_BCN)
        return x_BCN


class Generator(nn.Module):
    """Mel spectrogram to waveform by transposed convolutions, each refined by residual blocks.

    Reference:
        Kong et al. 2020, arXiv:2010.05646 (HiFi-GAN); Lee et al. 2022, arXiv:2206.04658 (AMP).
    """

    def __init__(self, config: VocoderConfig.Generator, *, bounded: bool = True) -> None:
        """Make the layers.

        Args:
            config: Of this generator.
            bounded: Whether the waveform is brought into [-1, 1].

        Raises:
            ValueError: If the config asks for an activation that no published file uses.
        """
        super().__init__()
        self.config = config
        self.bounded = bounded
        amp = config.resblock == "AMP1"
        if amp and config.activation != "snakebeta":
            raise ValueError(
                f"activation={config.activation!r} is not supported with AMP1 blocks; "
                "expected 'snakebeta'"
            )

        def activation(channels: int) -> nn.Module:
            return AntiAliasedSnake(channels) if amp else nn.LeakyReLU(0.1)

        widths = [
            config.upsample_initial_channel // 2**stage
            for stage in range(len(config.upsample_rates) + 1)
        ]

        self.conv_pre = nn.Conv1d(STEREO * MEL_BINS, widths[0], 7, padding=3)
        self.act_up = nn.Identity() if amp else nn.LeakyReLU(0.1)
        self.ups = nn.ModuleList(
            nn.ConvTranspose1d(before, after, kernel, rate, padding=(kernel - rate) // 2)
            for before, after, rate, kernel in zip(
                widths[:-1],
                widths[1:],
                config.upsample_rates,
                config.upsample_kernel_sizes,
                strict=True,
            )
        )
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, activation)
            for width in widths[1:]
            for kernel, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            )
        )
        # HiFi-GAN's last slope is the framework's default, not the one of its other activations.
        self.act_post = AntiAliasedSnake(widths[-1]) if amp else nn.LeakyReLU(0.01)
        self.conv_post = nn.Conv1d(widths[-1], STEREO, 7, padding=3, bias=config.use_bias_at_final)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which inputs must have."""
        return self.conv_pre.weight.dtype

    def forward(self, mel_BSTM: Tensor) -> Tensor:
        """Generate.

        Args:
            mel_BSTM: Natural-log mel spectrogram ``(B, 2, T, M)``.

        Returns:
            Waveform ``(B, 2, N)``, N being T times the product of the upsampling rates.
        """
        x = self.conv_pre(mel_BSTM.transpose(2, 3).flatten(1, 2))
        per_stage = len(self.config.resblock_kernel_sizes)
        for stage, up in enumerate(self.ups):
            x = up(self.act_up(x))
            blocks = self.resblocks[stage * per_stage : (stage + 1) * per_stage]
            first, *others = blocks
            total = first(x)
            for block in others:
                total += block(x)
            x = total.div_(per_stage)
        waveform = self.conv_post(self.act_post(x))
        if not self.bounded:
            return waveform
        return waveform.tanh() if self.config.use_tanh_at_final else waveform.clamp(-1, 1)


class Vocoder(Generator):
    """Vocoder of a single generator (2.0).

    Attributes:
        sample_rate_hz: Rate of the waveform.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__(config.generator)
        self.sample_rate_hz = config.sample_rate_hz
