"""Batches through a transformer, forth and back."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model, write_tiny
from rayreel.conditioning.references import ReferenceVideo
from rayreel.conditioning.replacement import LatentReplacement
from rayreel.config.strategies import Flexible, InContext, TextToVideo
from rayreel.diffusion.denoisers import SimpleDenoiser
from rayreel.diffusion.noisers import add_noise
from rayreel.training.example import Draws
from rayreel.training.forward import modalities
from rayreel.training.geometry import Geometry
from rayreel.training.objective import losses
from rayreel.types import TextContext
from tests.training.samples import FRAME, SIZE, TOKENS, example, maker, normal, sample, together

A2V = Flexible.model_validate({"video": {}, "audio": {"generated": False}})
STRATEGIES = {
    "text": TextToVideo(first_frame=0.5),
    "sound alone": TextToVideo(video=False),
    "reference": InContext(first_frame=0.5),
    "frozen sound": A2V,
}
DRAWS = Draws(seed=0, epoch=0, step=0, sample=0)


@pytest.fixture(scope="module", params=["2.0", "2.3"])
def files(request, tmp_path_factory):
    if request.param == "2.0":
        return ModelFiles(locate_model("tiny"))
    return ModelFiles(write_tiny(tmp_path_factory.mktemp("tiny"), request.param))


@pytest.fixture(scope="module")
def model(files):
    network = networks.transformer(files)
    model = network.outline()
    model.load_state_dict(network.weights(torch.device("cpu"), torch.float32), assign=True)
    return model.train()


@pytest.fixture(scope="module")
def connectors(files):
    network = networks.text_connectors(files)
    model = network.outline()
    model.load_state_dict(network.weights(torch.device("cpu"), torch.float32), assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture
def clip(files):
    """What is read of a dataset that fits the model, by its number."""
    channels, audio = files.video_vae.latent_channels, files.audio_vae
    widths = files.text.video.width, files.text.audio.width

    def made(number):
        video, sound = (normal(number + 500, 4 + number, width) for width in widths)
        features = replace(sample().text, video=video, audio=sound)
        return replace(
            sample(seed=number),
            text=features,
            video_latents=normal(number, channels, *SIZE).bfloat16(),
            reference_latents=normal(number + 100, channels, *SIZE).bfloat16(),
            audio_latents=normal(number + 200, audio.network.z_channels, 6, audio.latent_bins),
        )

    return made


def inputs(batch: Any, contexts: Sequence[TextContext], dtype: torch.dtype = torch.float32) -> Any:
    """Both streams, which are known to be there."""
    return modalities(batch, contexts, dtype)


def costs(model, connectors, batch):
    """Losses of the samples of a batch."""
    video, audio = model(*inputs(batch, connectors(batch.texts)))
    return losses(video, audio, batch).total


def examples(strategy, clip, count=3):
    make = maker(strategy)
    return [make(clip(number), replace(DRAWS, sample=number)) for number in range(count)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_batch_costs_what_its_samples_cost_alone(name, model, connectors, clip):
    ones = examples(STRATEGIES[name], clip)
    with torch.no_grad():
        alone = [costs(model, connectors, one) for one in ones]
        batch = together(ones)
        at_once = costs(model, connectors, batch)
    torch.testing.assert_close(at_once, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STRATEGIES)
def test_weights_get_gradients(name, model, connectors, clip):
    batch = together(examples(STRATEGIES[name], clip))
    model.zero_grad()
    costs(model, connectors, batch).mean().backward()
    block = model.transformer_blocks[0]
    attention = block.audio_attn1 if batch.video is None else block.attn1
    assert attention.to_q.weight.grad.abs().max() > 0
    # Nothing is asked of sound that is context.
    learns_sound = batch.audio is not None and batch.audio.target is not None
    assert (model.audio_proj_out.weight.grad is not None) == learns_sound


def test_the_loss_falls_along_the_gradient(model, connectors, clip):
    batch = together(examples(TextToVideo(first_frame=0.5), clip))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss():
        return costs(model, connectors, batch).mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.zero_grad()
    first = loss()
    first.backward()
    optimizer.step()
    assert loss() < first
    model.load_state_dict(before)


@pytest.mark.parametrize("name", ["text", "reference"])
def test_levels_that_occur_give_the_same_as_one_of_each_token(name, model, connectors, clip):
    batch = together(examples(STRATEGIES[name], clip))
    streams = inputs(batch, connectors(batch.texts))
    assert streams[0].levels is not None
    plain = [stream and replace(stream, levels=None) for stream in streams]
    with torch.no_grad():
        for ours, expected in zip(model(*streams), model(*plain), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_tokens_at_one_level_share_it(clip, connectors):
    batch = together(examples(TextToVideo(first_frame=0), clip))
    video, audio = inputs(batch, connectors(batch.texts), torch.bfloat16)
    assert video.timesteps.shape == audio.timesteps.shape == (3, 1, 1)
    assert video.levels is None
    assert video.latent.dtype == video.context.dtype == torch.bfloat16
    assert video.timesteps.dtype == video.positions.dtype == video.sigma.dtype == torch.float32


def test_texts_are_those_of_the_samples(clip, connectors):
    batch = examples(TextToVideo(), clip, count=1)[0]
    with pytest.raises(ValueError, match="2 texts for 1 samples"):
        inputs(batch, connectors(batch.texts) * 2)


class Recorder:
    """Remembers what it is asked to predict."""

    def __call__(self, video, audio, _perturbations, _memory):
        self.video = video
        return video.latent, audio and audio.latent


def test_training_shows_the_model_what_sampling_does():
    clip = sample(reference_latents=sample((3, 1, 2), seed=5).video_latents)
    batch = example(InContext(first_frame=1), clip, reference_scales=(2, 1))
    clean = clip.video_latents.float()[None]
    target = Geometry().video_target(clip.video_latents, clip.info.fps)
    state = target.initial_state(clean)
    for item in (
        LatentReplacement(latent=clean[:, :, :1]),
        ReferenceVideo(latent=clip.reference_latents[None].float(), downscale_factor=2),
    ):
        state = item.apply(state, target)
    noise = batch.video.target + state.clean_latent
    text, model = TextContext(video=normal(1, 4, 6), audio=normal(2, 4, 6)), Recorder()
    noised = add_noise(state, noise, batch.video.sigma.item())
    SimpleDenoiser(model, text)(noised, None, batch.video.sigma.item(), 0)
    ours, _ = inputs(batch, [text])
    for name in ("sigma", "timesteps", "levels", "positions", "context", "keyframes_mask"):
        torch.testing.assert_close(getattr(ours, name), getattr(model.video, name), msg=name)
    torch.testing.assert_close(ours.latent[:, FRAME:TOKENS], model.video.latent[:, FRAME:TOKENS])
    assert torch.equal(ours.latent[:, :FRAME], model.video.latent[:, :FRAME])
    assert torch.equal(ours.latent[:, TOKENS:], model.video.latent[:, TOKENS:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_losses_on_a_gpu_are_those_of_the_cpu(model, connectors, clip):
    batch, device = together(examples(InContext(first_frame=0.5), clip)), torch.device("cuda")
    with torch.no_grad():
        expected = costs(model, connectors, batch)
        contexts = [
            TextContext(video=one.video.to(device), audio=one.audio.to(device))
            for one in connectors(batch.texts)
        ]
        moved = batch.to(device)
        video, audio = model.to(device)(*inputs(moved, contexts))
        actual = losses(video, audio, moved).total
    model.cpu()
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-3, atol=1e-4)
