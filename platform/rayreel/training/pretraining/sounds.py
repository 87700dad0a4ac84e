"""Sounds of the drawn world as batches, each drawn from the number of its step alone.

Letters: B batch, S stereo channels, T mel frames, M mel bins, N samples.
"""

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rayreel.config.model import AudioVAEConfig
from rayreel.config.pretrain import StretchSpec
from rayreel.models.audio_vae import log_mel, resample
from rayreel.training.pretraining.footage import FPS
from rayreel.world.sampling import sample_scene
from rayreel.world.sound import sound

RATE_HZ = 24000
"""Samples per second of the sounds."""

QUIET = -8.0
"""Natural logarithm of a mel bin's energy, 70 dB below that of a tone, at which it is not heard.

Compressed sound has something else below it.
"""

# Tones that the clips of a model leave out can still be heard: what learns from clips may learn
# them later, but not what hears and plays them.
_NEW = 0.2
# Half of the sounds go on for up to so long before or after what is heard of them.
_LONGER_S = 1.5
# Compressed sound hisses, as a power of ten of full scale.
_HISS = (-5.0, -3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sounds:
    """Stretches of sounds, all of one length.

    Attributes:
        recorded: Natural-log mel spectrograms ``(B, 2, T, M)`` of the sounds with some hiss.
        mel: Of the sounds as they are; no fewer and no more frames than latents stand for.
        waveform: The sounds ``(B, 2, N)``; sample 0 is where mel frame 0 is, and the sound of the
            last mel frame is there to its end.
    """

    recorded: Tensor
    mel: Tensor
    waveform: Tensor


def sounds(rng: Random, stretch: StretchSpec, config: AudioVAEConfig) -> Sounds:
    """Sounds of a step: whole ones, or what is heard of longer ones.

    Args:
        rng: What they depend on.
        stretch: Their number, and how many frames of a clip they last.
        config: Says what a mel spectrogram is.

    Returns:
        All float32.
    """
    drawn = [_stretch(rng, stretch.num_frames / FPS, config) for _ in range(stretch.batch_size)]
    recorded, mel, waveform = (torch.stack(each) for each in zip(*drawn, strict=True))
    return Sounds(recorded=recorded, mel=mel, waveform=waveform)


def _stretch(rng: Random, seconds: float, config: AudioVAEConfig) -> tuple[Tensor, Tensor, Tensor]:
    scene = sample_scene(rng, new=rng.random() < _NEW)
    longer = rng.choice((0.0, rng.uniform(0, _LONGER_S)))
    clean = sound(scene, seconds=seconds + longer, rate=RATE_HZ)
    generator = torch.Generator().manual_seed(rng.getrandbits(60))
    hiss = torch.randn(clean.shape, generator=generator) * 10 ** rng.uniform(*_HISS)
    both = torch.stack([clean + hiss, clean])
    mels = log_mel(resample(both, RATE_HZ, config.sample_rate_hz), config)
    # A causal latent stands for one mel frame, and each one after it for several.
    frames = 1 + config.downsample * int(seconds * config.latents_per_second)
    last = mels.shape[2] - frames
    first = rng.choice((0, last, rng.randint(0, last)))
    hop = RATE_HZ * config.preprocessing.stft.hop_length // config.sample_rate_hz
    # The last mel frame, and rounding between the rates, reach beyond the sound.
    samples = F.pad(clean, (0, 2 * hop))[:, hop * first : hop * (first + frames)]
    recorded, mel = mels[:, :, first : first + frames]
    return recorded, mel, samples


@torch.no_grad()
def begin_at_silence(conv: nn.Conv1d | nn.Conv2d) -> None:
    """Have a first convolution give zeros for a silent spectrogram, which is far from zeros."""
    assert conv.bias is not None, "first convolutions have one"
    conv.bias.copy_(-QUIET * conv.weight.flatten(1).sum(1))
