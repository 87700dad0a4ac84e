"""Whether the files of a model belong together, told from their configurations and headers.

Each network may fit its own file and still not fit the next one. A fault is one line: the file that
is wrong, what it has, and what which other file needs instead.
"""

import json
from collections.abc import Iterator

from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.text_encoder import GEMMA_3, TextEncoderFiles
from rayreel.config.model import (
    AudioVAEConfig,
    TextConfig,
    TransformerConfig,
    UpsamplerConfig,
    VideoVAEConfig,
)
from rayreel.errors import CheckpointError

_SOURCE = "gemma_source_checkpoint"
_NEEDS_GEMMA_3 = "Gemma 3 (google/gemma-3-12b-it-qat-q4_0-unquantized)"
# Files as they are published, by the version that transformers ask for.
_PUBLISHED = {"gemma4-12b-ltx-v1": "gemma4-12b-with-proj-ltx-2.5-bf16.safetensors"}


def text_encoder_fault(transformer: WeightFile, text_encoder: TextEncoderFiles) -> str | None:
    """Why a transformer cannot read what a text encoder writes.

    Their shapes are no help: Gemma 3 and 4 are equally wide and deep.

    Args:
        transformer: Its metadata says what it was trained with.
        text_encoder: Any language model.

    Returns:
        A line, or ``None`` where nothing speaks against it.

    Raises:
        CheckpointError: If the transformer's metadata is broken.
    """
    version = text_encoder.gemma_version
    has = "no gemma_version" if version is None else f"gemma_version {version!r}"
    kind = f"model_type {text_encoder.model_type!r}"
    if _SOURCE in transformer.metadata:
        needed = _source_version(transformer)
        if version == needed:
            return None
        has, needs = f"{kind} with {has}", f"gemma_version {needed!r}"
        if needed in _PUBLISHED:
            needs += f" ({_PUBLISHED[needed]})"
    elif transformer.model_version >= (2, 4) and version is not None:
        needs = f"one without, as its metadata has no {_SOURCE}"
    elif transformer.model_version >= (2, 5) and text_encoder.model_type == GEMMA_3:
        has, needs = kind, f"Gemma 4 ({', '.join(_PUBLISHED.values())})"
    elif transformer.model_version < (2, 4) and text_encoder.model_type != GEMMA_3:
        has, needs = kind, _NEEDS_GEMMA_3
    else:
        return None
    return _misfit(_name(text_encoder), has, transformer, needs)


def text_encoder_warning(transformer: WeightFile, text_encoder: TextEncoderFiles) -> str | None:
    """What cannot be told of a transformer and a text encoder that have no fault; mostly nothing.

    Args:
        transformer: Its metadata says what it was trained with.
        text_encoder: Any language model.
    """
    if (
        _SOURCE in transformer.metadata
        or transformer.model_version < (2, 4)
        or text_encoder.gemma_version is not None
    ):
        return None
    return (
        f"{_name(text_encoder)}: has no gemma_version and {transformer.path.name} names none "
        f"({_SOURCE}), so whether they belong together cannot be told"
    )


def piece_faults(
    *,
    transformer: WeightFile,
    text_encoder: TextEncoderFiles | None,
    text_projection: WeightFile | None,
    video_vae: WeightFile | None,
    audio_vae: WeightFile | None,
    vocoder: WeightFile | None,
    upsampler: WeightFile | None,
) -> list[str]:
    """What keeps the files of a model from working together.

    Args:
        transformer: Transformer and connectors.
        text_encoder: Language model.
        text_projection: Whatever has the projection of the text features, alone or joined.
        video_vae: Video VAE.
        audio_vae: Audio VAE.
        vocoder: Vocoder.
        upsampler: Latent upsampler.

    Returns:
        Lines, none where all fit. Files may be one and the same; those that are ``None`` fit.

    Raises:
        CheckpointError: If the configuration of a file is missing or not supported.
    """
    config = transformer.section("transformer", TransformerConfig)
    faults = list(_connector_faults(transformer, config))
    if text_encoder and (fault := text_encoder_fault(transformer, text_encoder)):
        faults.append(fault)
    elif text_encoder and text_projection:
        faults += _text_width_faults(text_encoder, text_projection)
        faults += _text_length_faults(text_encoder, transformer)
    if text_projection:
        faults += _projection_faults(transformer, text_projection)
    latents = transformer, config.in_channels
    if video_vae:
        channels = video_vae.section("vae", VideoVAEConfig).latent_channels
        faults += _count_faults(video_vae, "latent channels", channels, *latents)
        latents = video_vae, channels
    if upsampler:
        channels = upsampler.section(None, UpsamplerConfig).in_channels
        faults += _count_faults(upsampler, "latent channels", channels, *latents)
    if audio_vae and config.has_audio:
        audio = audio_vae.section("audio_vae", AudioVAEConfig)
        width = audio.network.z_channels * audio.latent_bins
        what = "values per audio latent (channels x bins)"
        faults += _count_faults(audio_vae, what, width, transformer, config.audio_in_channels)
    if audio_vae and vocoder:
        faults += _vocoder_faults(audio_vae, vocoder)
    return faults


def _source_version(transformer: WeightFile) -> str | None:
    try:
        source = json.loads(transformer.metadata[_SOURCE])
        version = source.get("gemma_version")
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{transformer.path}: metadata {_SOURCE!r} is not a JSON object"
        ) from error
    return None if version is None else str(version)


def _connector_faults(transformer: WeightFile, config: TransformerConfig) -> Iterator[str]:
    """A connector gives what the transformer attends to, or what it projects to that."""
    text = transformer.section("transformer", TextConfig)
    captions = None if config.caption_proj_before_connector else config.caption_channels
    streams = [("video", text.video.width, config.cross_attention_dim)]
    if text.has_audio:
        streams.append(("audio", text.audio.width, config.audio_cross_attention_dim))
    for stream, width, attended in streams:
        what = f"channels from its {stream} connector"
        yield from _count_faults(transformer, what, width, transformer, captions or attended)


def _text_width_faults(
    text_encoder: TextEncoderFiles, text_projection: WeightFile
) -> Iterator[str]:
    hidden, states = text_encoder.hidden_size, text_encoder.num_hidden_states
    for name in _projections(text_projection):
        taken = text_projection.shape(name)[1]
        if hidden * states != taken:
            has = f"{hidden} channels x {states} hidden states = {hidden * states} values per token"
            holder = _holder(text_projection, name)
            yield _misfit(_name(text_encoder), has, holder, f"{taken} ({name})")
            return


def _text_length_faults(text_encoder: TextEncoderFiles, transformer: WeightFile) -> Iterator[str]:
    tokens = text_encoder.prompt_tokens
    registers = transformer.section("transformer", TextConfig).video.num_registers
    if tokens % registers:
        has = f"prompts of {tokens} tokens (model_max_length in tokenizer_config.json)"
        yield _misfit(_name(text_encoder), has, transformer, f"a multiple of {registers}")


def _projection_faults(transformer: WeightFile, text_projection: WeightFile) -> Iterator[str]:
    text = transformer.section("transformer", TextConfig)
    for name in _projections(text_projection):
        is_audio = "audio_aggregate_embed" in name
        if is_audio and not text.has_audio:
            continue
        holder = _holder(text_projection, name)
        width = text.audio.width if is_audio else text.video.width
        given = text_projection.shape(name)[0]
        yield from _count_faults(holder, f"channels from {name}", given, transformer, width)


def _projections(file: WeightFile) -> list[str]:
    """Names of the projections' weights: one or two."""
    start, end = "text_embedding_projection.", "aggregate_embed.weight"
    return [name for name in file.names if name.startswith(start) and name.endswith(end)]


def _holder(file: WeightFile, name: str) -> WeightFile:
    """The one that a tensor is from, of files that are joined."""
    parts = map(WeightFile, file.parts)
    return file if len(file.parts) == 1 else next(part for part in parts if name in part.names)


def _vocoder_faults(audio_vae: WeightFile, vocoder: WeightFile) -> Iterator[str]:
    network = audio_vae.section("audio_vae", AudioVAEConfig)
    rows = network.network.out_ch * network.mel_bins
    # With bandwidth extension the first generator is the one that reads the VAE's spectrograms.
    for name in ("vocoder.vocoder.conv_pre.weight", "vocoder.conv_pre.weight"):
        if name in vocoder.names:
            what = "mel rows as its input (channels x bins)"
            yield from _count_faults(vocoder, what, vocoder.shape(name)[1], audio_vae, rows)


def _count_faults(
    wrong: WeightFile, what: str, has: int, other: WeightFile, needs: int
) -> Iterator[str]:
    if has != needs:
        yield _misfit(wrong.path.name, f"{has} {what}", other, str(needs))


def _misfit(wrong: str, has: str, other: WeightFile, needs: str) -> str:
    return f"{wrong}: {has}, but {other.path.name} needs {needs}"


def _name(text_encoder: TextEncoderFiles) -> str:
    return text_encoder.path.name + ("" if text_encoder.packed else " (folder)")
