"""diffusers' LTX-2 pipeline on the weights of one of our models, and the plain loop over it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline
from torch import Tensor, nn
from transformers import Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from rayreel.checkpoints import networks
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.networks import Network
from rayreel.config.request import RenderRequest
from rayreel.config.sampling import Guidance
from rayreel.diffusion.schedulers import LTX2Scheduler
from rayreel.media.mux import write_clip
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.states import audio_target, request_noise, video_target
from rayreel.runs.bench.oracles import (
    LATENT_STATISTICS,
    connector_name,
    diffusers_audio_vae,
    diffusers_connectors,
    diffusers_transformer,
    diffusers_video_vae,
    diffusers_vocoder,
    give_weights,
    transformer_name,
    video_vae_name,
    vocoder_name,
)
from rayreel.types import Audio, Clip, Latents


def diffusers_pipeline(files: ModelFiles) -> Any:  # noqa: ANN401 - their classes are not typed
    """Their pipeline of one stage, as a person would load it, in float32 on the CPU.

    Args:
        files: Of a model with a Gemma 3 folder, and with sound.

    Returns:
        The pipeline, with a scheduler whose noise levels are those of our ``ltx2``.

    Raises:
        RuntimeError: If our weights are not exactly those that a network of theirs has.
    """
    pipeline: Any = LTX2Pipeline(  # type: ignore[no-untyped-call]
        scheduler=_scheduler(),
        vae=_video_vae(files),
        audio_vae=_audio_vae(files),
        text_encoder=_text_encoder(files.text_encoder.path),
        tokenizer=_tokenizer(files.text_encoder.path),
        connectors=give_weights(
            diffusers_connectors(
                files.text,
                hidden_size=files.text_encoder.hidden_size,
                num_hidden_states=files.text_encoder.num_hidden_states,
            ),
            _weights(networks.embeddings_processor(files)),
            connector_name,
        ),
        transformer=give_weights(
            diffusers_transformer(files.transformer),
            _weights(networks.transformer(files)),
            transformer_name,
        ),
        vocoder=give_weights(
            diffusers_vocoder(files.vocoder), _weights(networks.vocoder(files)), vocoder_name
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_arguments(request: RenderRequest) -> dict[str, Any]:
    """What their pipeline is called with for a resolved request that it can do.

    Raises:
        ValueError: If the request's guidance is more than a push away from the negative prompt.
    """
    video, audio = request.video_guidance, request.audio_guidance
    assert video is not None, "requests are resolved"
    assert audio is not None, "they are guided, with sound"
    for guidance in (video, audio):
        if guidance != Guidance(cfg_scale=guidance.cfg_scale):
            raise ValueError(f"expected guidance by cfg_scale alone, got {guidance!r}")
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "height": request.height,
        "width": request.width,
        "num_frames": request.num_frames,
        "frame_rate": request.fps,
        "num_inference_steps": request.steps,
        "guidance_scale": video.cfg_scale,
        "audio_guidance_scale": audio.cfg_scale,
        # Off; by default they are not.
        **{f"{of}stg_scale": 0.0 for of in ("", "audio_")},
        **{f"{of}modality_scale": 1.0 for of in ("", "audio_")},
        **{f"{of}guidance_rescale": 0.0 for of in ("", "audio_")},
        "return_dict": False,
    }


def initial_noise(ledger: ModelLedger, request: RenderRequest) -> tuple[Tensor, Tensor]:
    """What a request of one stage starts from, as tokens ``(1, T, D)`` of either stream."""
    targets = (
        ("video", video_target(ledger, request, downscale=1)),
        ("audio", audio_target(ledger, request)),
    )
    video, audio = (
        request_noise(request, f"{name}/stage1")(
            target.initial_state(torch.zeros(target.shape.to_tuple())).latent
        )
        for name, target in targets
    )
    return video, audio


@torch.inference_mode()
def denoise_with_diffusers(
    pipeline: Any,  # noqa: ANN401 - as it is made
    request: RenderRequest,
    ledger: ModelLedger,
) -> Latents:
    """Latents that their pipeline makes of our noise.

    Args:
        pipeline: Theirs.
        request: Resolved, with a seed.
        ledger: Of the model whose weights it has.

    Returns:
        Normalised and unbatched, as ours are.
    """
    noise, audio_noise = initial_noise(ledger, request)
    video, audio = pipeline(
        **call_arguments(request), latents=noise, audio_latents=audio_noise, output_type="latent"
    )
    of_video, of_audio = pipeline.vae, pipeline.audio_vae
    mean, std = (x.view(-1, 1, 1, 1) for x in (of_video.latents_mean, of_video.latents_std))
    bins = audio.shape[-1]
    # Theirs are of channels and bins together.
    audio_mean, audio_std = (
        x.view(-1, 1, bins) for x in (of_audio.latents_mean, of_audio.latents_std)
    )
    return Latents(video=(video[0] - mean) / std, audio=(audio[0] - audio_mean) / audio_std)


def render_with_diffusers(
    pipeline: Any,  # noqa: ANN401 - as it is made
    requests: Sequence[RenderRequest],
    folder: Path,
) -> None:
    """The loop that a person writes: one call and one file after the other.

    Args:
        pipeline: Theirs.
        requests: Resolved, with seeds.
        folder: Where ``0.mp4`` and so on go.
    """
    for index, request in enumerate(requests):
        assert request.seed is not None, "requests are resolved"
        frames, waveform = pipeline(
            **call_arguments(request),
            generator=torch.Generator().manual_seed(request.seed),
            output_type="np",
        )
        clip = Clip(
            frames=torch.from_numpy((frames[0] * 255).round().astype("uint8")),
            fps=request.fps,
            audio=Audio(
                waveform=waveform[0].float(),
                sample_rate_hz=pipeline.vocoder.config.output_sampling_rate,
            ),
        )
        write_clip(folder / f"{index}.mp4", clip, crf=request.crf)


def _scheduler() -> FlowMatchEulerDiscreteScheduler:
    ours = LTX2Scheduler()
    return FlowMatchEulerDiscreteScheduler(  # type: ignore[no-untyped-call]
        use_dynamic_shifting=True,
        time_shift_type="exponential",
        shift_terminal=ours.terminal,
        # Equal ones: ours does not follow the number of tokens.
        base_shift=ours.shift,
        max_shift=ours.shift,
    )


def _weights(network: Network[Any]) -> dict[str, Tensor]:
    return network.weights(torch.device("cpu"), torch.float32)


def _video_vae(files: ModelFiles) -> nn.Module:
    config = files.video_vae
    model = diffusers_video_vae(config)
    last = len(config.encoder_blocks) - 1
    for part, network in (
        ("encoder", networks.video_encoder(files)),
        ("decoder", networks.video_decoder(files)),
    ):
        tensors = _without_statistics(_weights(network), model)
        give_weights(
            getattr(model, part),
            tensors,
            partial(_video_vae_name, part, last),
        )
    return model.requires_grad_(False)


def _video_vae_name(part: str, last_down_block: int, name: str) -> str:
    return video_vae_name(f"{part}.{name}", last_down_block)


def _audio_vae(files: ModelFiles) -> nn.Module:
    model: Any = diffusers_audio_vae(files.audio_vae)
    for part, network in (
        (model.encoder, networks.audio_encoder(files)),
        (model.decoder, networks.audio_decoder(files)),
    ):
        give_weights(part, _without_statistics(_weights(network), model))
    result: nn.Module = model.requires_grad_(False)
    return result


def _without_statistics(tensors: dict[str, Tensor], vae: nn.Module) -> dict[str, Tensor]:
    """Hand the statistics of latents to their VAE; what remains is of its encoder or decoder."""
    for theirs, ours in LATENT_STATISTICS.items():
        getattr(vae, theirs).copy_(tensors.pop(ours))
    return tensors


def _text_encoder(folder: Path) -> nn.Module:
    # Annotated as the model alone.
    loaded: Any = Gemma3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    model, info = loaded
    assert isinstance(model, nn.Module)
    if faults := {what: found for what, found in info.items() if found}:
        raise RuntimeError(f"{folder} does not fit {type(model).__name__}: {faults}")
    return model.requires_grad_(False).eval()


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    # Their class for Gemma would take only the vocabulary of the file.
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(folder / "tokenizer.json"),
        padding_side="left",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
