"""Audio VAE, mel front end, resampler and vocoder against the golden vectors."""

from functools import cache

import pytest
import torch
from torch import Tensor

from rayreel.checkpoints.builder import build
from rayreel.checkpoints.keys import (
    AUDIO_DECODER,
    AUDIO_ENCODER,
    VOCODER,
    component_tensors,
)
from rayreel.config.model import AudioVAEConfig, VocoderConfig
from rayreel.models.audio_vae import (
    AudioDecoder,
    AudioEncoder,
    encode_waveform,
    log_mel,
    resample,
    to_stereo,
)
from rayreel.models.audio_vae.mel import LOG_FLOOR, mel_filterbank
from rayreel.models.audio_vae.resample import ROLLOFF, ZERO_CROSSINGS
from rayreel.models.vocoder import decode_audio, make_vocoder
from rayreel.models.vocoder.activation import AntiAliasedSnake, kaiser_sinc
from tests.parity.vectors import Case, cases, weights

AUDIO = "v*/audio.safetensors"
MEL = "common/audio_mel.safetensors"


def audio_config(folder: str) -> AudioVAEConfig:
    return weights(f"{folder}/model.safetensors").section("audio_vae", AudioVAEConfig)


@cache
def audio_vae(folder: str, kind: type[AudioEncoder] | type[AudioDecoder], dtype=torch.float32):
    rules = {AudioEncoder: AUDIO_ENCODER, AudioDecoder: AUDIO_DECODER}[kind]
    tensors = component_tensors(weights(f"{folder}/model.safetensors"), rules)
    return build(lambda: kind(audio_config(folder)), tensors, dtype=dtype)


@cache
def vocoder(folder: str):
    file = weights(f"{folder}/model.safetensors")
    config = file.section("vocoder", VocoderConfig)
    return build(
        lambda: make_vocoder(config), component_tensors(file, VOCODER), dtype=torch.float32
    )


def converting(given: str, result: str):
    """Cases of the audio files by what they take and what they give."""
    return [
        case
        for case in cases(AUDIO)
        if given in case.values[0].inputs and result in case.values[0].out
    ]


@pytest.mark.parametrize("case", converting("mel", "latent"))
def test_encoder(case: Case):
    encoder = audio_vae(case.folder, AudioEncoder)
    case.assert_close(encoder(case.inputs["mel"]), "latent")
    for expected in case.tensors("out64").values():
        precise = audio_vae(case.folder, AudioEncoder, torch.float64)
        case.assert_close(precise(case.inputs["mel"].double()), expected)


@pytest.mark.parametrize("case", converting("latent", "mel"))
def test_decoder(case: Case):
    decoder = audio_vae(case.folder, AudioDecoder)
    case.assert_close(decoder(case.inputs["latent"]), "mel")
    for expected in case.tensors("out64").values():
        precise = audio_vae(case.folder, AudioDecoder, torch.float64)
        case.assert_close(precise(case.inputs["latent"].double()), expected)


@pytest.mark.parametrize("case", cases(AUDIO, "statistics"))
def test_statistics(case: Case):
    statistics = audio_vae(case.folder, AudioEncoder).per_channel_statistics
    case.assert_close(statistics.normalize(case.inputs["x"]), "normalized")
    case.assert_close(statistics.un_normalize(case.inputs["x"]), "un_normalized")


@pytest.mark.parametrize("case", converting("waveform", "latent"))
def test_encode_waveform(case: Case):
    waveform, rate_hz = case.inputs["waveform"], case.options["sampling_rate"]
    config = audio_config(case.folder)
    encoder = audio_vae(case.folder, AudioEncoder)
    assert_log_mel(case, log_mel(resample(waveform, rate_hz, config.sample_rate_hz), config))
    case.assert_close(encode_waveform(encoder, waveform, rate_hz), "latent")


@pytest.mark.parametrize("case", converting("mel", "waveform"))
def test_vocoder(case: Case):
    network = vocoder(case.folder)
    assert network.sample_rate_hz == case.options["output_sampling_rate"]
    case.assert_close(network(case.inputs["mel"]), "waveform")


@pytest.mark.parametrize("case", converting("latent", "waveform"))
def test_decode_audio(case: Case):
    network = vocoder(case.folder)
    waveform = decode_audio(audio_vae(case.folder, AudioDecoder), network, case.inputs["latent"])
    assert network.sample_rate_hz == case.options["sampling_rate"]
    case.assert_close(waveform.squeeze(0), "waveform")


def assert_log_mel(case: Case, actual: Tensor):
    """Bins beside the floor of the logarithm have the tolerance that the index gives in words."""
    expected = case.out["mel"]
    beside_floor = expected < torch.tensor(LOG_FLOOR).log() + 0.5
    case.assert_close(actual.where(~beside_floor, expected), expected)
    case.assert_close(actual, expected, atol=2e-3)


@cache
def front_end() -> AudioVAEConfig:
    """The defaults, with what the stored filterbank and window tell."""
    filterbank = Case(MEL, "filterbank").out
    (n_fft,), (_, bins) = filterbank["window"].shape, filterbank["mel_fb"].shape
    return AudioVAEConfig.model_validate(
        {
            "model": {"params": {"ddconfig": {}}},
            "preprocessing": {
                "stft": {"filter_length": n_fft, "win_length": n_fft},
                "mel": {"n_mel_channels": bins},
            },
        }
    )


@pytest.mark.parametrize("case", cases(MEL, "filterbank"))
def test_filterbank(case: Case):
    config = front_end()
    expected = case.out["mel_fb"]
    actual = mel_filterbank(
        bins=expected.shape[1],
        frequencies=expected.shape[0],
        sample_rate_hz=config.sample_rate_hz,
        min_hz=config.preprocessing.mel.mel_fmin,
        max_hz=config.preprocessing.mel.mel_fmax,
    )
    case.assert_close(actual.float(), expected)
    case.assert_close(torch.hann_window(len(case.out["window"])), "window")


@pytest.mark.parametrize("case", cases(MEL, "sr*"))
def test_log_mel_of_a_resampled_waveform(case: Case):
    config = front_end()
    waveform = resample(
        case.inputs["waveform"], case.options["sampling_rate"], config.sample_rate_hz
    )
    case.assert_close(waveform, case.out.get("resampled", case.inputs["waveform"]))
    assert_log_mel(case, log_mel(waveform, config))


@pytest.mark.parametrize("case", cases(MEL, "kaiser_[0-9]*"))
def test_kaiser_filter(case: Case):
    options = case.options
    actual = kaiser_sinc(options["cutoff"], options["half_width"], options["kernel_size"])
    case.assert_close(actual.float().reshape(1, 1, -1), "filter")


@pytest.mark.parametrize("case", cases(MEL, "hann_upsample_*"))
def test_upsampling_by_a_whole_ratio(case: Case):
    ratio = case.options["ratio"]
    actual = resample(case.inputs["x"], 1, ratio, edges="replicate")
    case.assert_close(actual, "y")
    # The stored filter is the response to an impulse, without the gain.
    centre = -int(-ZERO_CROSSINGS // ROLLOFF)
    impulse = torch.zeros(1, 1, 2 * centre + 1)
    impulse[..., centre] = 1
    response = resample(impulse, 1, ratio, edges="replicate")[..., : 2 * centre * ratio + 1]
    case.assert_close(response / ratio, "filter")


@pytest.mark.parametrize("case", cases(MEL, "kaiser_up*"))
def test_change_of_rate_by_two(case: Case):
    activation = AntiAliasedSnake(case.inputs["x"].shape[1])
    up = activation.upsample(case.inputs["x"])
    case.assert_close(up, "up")
    case.assert_close(activation.downsample(up), "down")


@pytest.mark.parametrize("case", cases(MEL, "snakebeta*"))
def test_snake_activation(case: Case):
    activation = AntiAliasedSnake(case.inputs["x"].shape[1]).requires_grad_(False)
    for name in ("alpha", "beta"):
        activation.act.get_parameter(name).copy_(torch.tensor(case.options[name]))
    case.assert_close(activation.act(case.inputs["x"]), "y")
    case.assert_close(activation(case.inputs["x"]), "antialiased")


@pytest.mark.parametrize("case", cases("common/data_ops.safetensors", "downmix_*"))
def test_downmix(case: Case):
    waveform = case.inputs["waveform"]
    assert waveform.shape[0] == case.options["channels"]
    case.assert_close(to_stereo(waveform[None]), "stereo")
