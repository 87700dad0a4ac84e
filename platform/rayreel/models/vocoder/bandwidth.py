"""Vocoder whose waveform a second generator extends to a higher rate (2.3 and later).

Letters: B batch, S stereo channels, T mel frames, M mel bins, N samples.
"""

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rayreel.config.model import VocoderConfig
from rayreel.models.audio_vae.mel import LOG_FLOOR
from rayreel.models.audio_vae.resample import resample
from rayreel.models.vocoder.generator import Generator


class STFTBases(nn.Module):
    """Stored windowed Fourier bases: real parts first, then imaginary ones."""

    forward_basis: Tensor

    def __init__(self, n_fft: int) -> None:
        """Args: n_fft: Length of the transform."""
        super().__init__()
        shape = (n_fft + 2, 1, n_fft)
        self.register_buffer("forward_basis", torch.zeros(shape))
        # In the files, though nothing transforms back.
        self.register_buffer("inverse_basis", torch.zeros(shape))


class CausalMel(nn.Module):
    """Log-mel spectrogram whose frames end where they are, from stored bases."""

    mel_basis: Tensor

    def __init__(self, config: VocoderConfig.BandwidthExtension) -> None:
        super().__init__()
        self.hop_length = config.hop_length
        self.padding = config.win_size - config.hop_length
        self.register_buffer("mel_basis", torch.zeros(config.num_mels, config.n_fft // 2 + 1))
        self.stft_fn = STFTBases(config.n_fft)

    def forward(self, waveform: Tensor) -> Tensor:
        """Analyse.

        Args:
            waveform: ``(B, S, N)``, N a multiple of the hop length.

        Returns:
            Natural-log mel magnitudes ``(B, S, N / hop_length, M)``.
        """
        padded = F.pad(waveform.flatten(0, 1).unsqueeze(1), (self.padding, 0))
        spectrum = F.conv1d(padded, self.stft_fn.forward_basis, stride=self.hop_length)
        real, imaginary = spectrum.chunk(2, dim=1)
        magnitude = torch.sqrt(real.square() + imaginary.square())
        log_mel = (self.mel_basis @ magnitude).clamp(min=LOG_FLOOR).log().transpose(1, 2)
        return log_mel.reshape(*waveform.shape[:2], *log_mel.shape[1:])


class BandwidthExtendedVocoder(nn.Module):
    """A generator, and a second one that adds the band above it.

    The second generator hears the first one's waveform as a mel spectrogram and predicts what an
    interpolation of that waveform lacks.

    Attributes:
        sample_rate_hz: Rate of the waveform.
    """

    def __init__(self, config: VocoderConfig) -> None:
        """Make the layers.

        Raises:
            ValueError: If the config has no bandwidth extension.
        """
        super().__init__()
        if config.bwe is None:
            raise ValueError("the vocoder's config has no 'bwe' section; it is a plain Vocoder")
        self.config = config.bwe
        self.sample_rate_hz = config.sample_rate_hz
        self.vocoder = Generator(config.generator)
        self.bwe_generator = Generator(config.bwe, bounded=False)
        self.mel_stft = CausalMel(config.bwe)

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: at least float32, whatever its weights are stored in."""
        return torch.promote_types(self.vocoder.dtype, torch.float32)

    def forward(self, mel_BSTM: Tensor) -> Tensor:
        """Generate.

        Args:
            mel_BSTM: Natural-log mel spectrogram ``(B, 2, T, M)``, any floating dtype.

        Returns:
            Waveform ``(B, 2, N)`` in [-1, 1], in ``self.dtype``.
        """
        low = _call(self.vocoder, mel_BSTM.to(self.dtype))
        padded = F.pad(low, (0, -low.shape[-1] % self.config.hop_length))
        residual = _call(self.bwe_generator, _call(self.mel_stft, padded))
        old_rate_hz = self.config.input_sampling_rate
        new_rate_hz = self.config.output_sampling_rate
        skip = resample(padded, old_rate_hz, new_rate_hz, edges="replicate")
        waveform = (residual + skip).clamp(-1, 1)
        return waveform[..., : low.shape[-1] * new_rate_hz // old_rate_hz]


def _call(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module in the dtype of its input.

    Stacked squared sines amplify rounding, so weights stored in bfloat16 are widened first. All
    weights of a module are stored alike.
    """
    if next(chain(module.parameters(), module.buffers())).dtype == x.dtype:
        return module(x)
    stored = chain(module.named_parameters(), module.named_buffers())
    return functional_call(module, {name: tensor.to(x.dtype) for name, tensor in stored}, (x,))
