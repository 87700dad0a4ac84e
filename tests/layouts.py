"""The tiny weights in every layout that published sets have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from rayreel.checkpoints.tiny import write_tiny
from rayreel.config.jobs import ModelSpec
from tests.checkpoints import packed

DIT = "model.diffusion_model."


def one_file(folder: Path) -> ModelSpec:
    """The 2.0 set as it is published."""
    return write_tiny(folder)


def generation_2_3(folder: Path) -> ModelSpec:
    """The 2.3 set."""
    return write_tiny(folder, "2.3")


def component_files(folder: Path) -> ModelSpec:
    """One file for each component, the video VAE's without its prefix, as 2.5 is published."""
    spec = write_tiny(folder)
    tensors, metadata = contents(spec)
    parts: dict[str, tuple[str, tuple[str, ...]]] = {
        "transformer": ("diffusion_models", (DIT,)),
        "text_projection": ("text_encoders", ("text_embedding_projection.",)),
        "video_vae": ("vae", ("vae.",)),
        "audio_vae": ("vae", ("audio_vae.", "vocoder.")),
    }
    fields = {}
    for field, (subfolder, prefixes) in parts.items():
        path = folder / subfolder / f"{field}.safetensors"
        path.parent.mkdir(exist_ok=True)
        own = {n.removeprefix("vae."): t for n, t in tensors.items() if n.startswith(prefixes)}
        save_file(own, path, metadata)
        fields[field] = str(path)
    return _without_checkpoint(spec, **fields)


def generation_2_5(folder: Path) -> ModelSpec:
    """A 2.5 transformer with its packed language model, and the convolutional VAE."""
    spec = write_tiny(folder, "2.3")
    tensors, metadata = contents(spec)
    config = json.loads(metadata["config"])
    config["transformer"] |= {"ff_bias": False, "use_keyframes_abs_pos_embedding": True}
    metadata |= {
        "config": json.dumps(config),
        "model_version": "2.5.0",
        "gemma_source_checkpoint": json.dumps({"gemma_version": packed.CONFIG["gemma_version"]}),
    }
    transformer = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(DIT) and not (".ff." in name and "blocks" in name and "bias" in name)
    }
    # The feed-forward layers of the connectors keep their biases.
    transformer |= {n: t for n, t in tensors.items() if "connector" in n}
    transformer[f"{DIT}keyframes_abs_pos_embedding"] = torch.full((1, 128), 0.1)
    parts = {
        "transformer": transformer,
        "video_vae": {
            n.removeprefix("vae."): t for n, t in tensors.items() if n.startswith("vae.")
        },
        "audio_vae": {n: t for n, t in tensors.items() if n.startswith(("audio_vae.", "vocoder."))},
    }
    for name, part in parts.items():
        save_file(part, folder / f"{name}.safetensors", metadata)
    tokenizer = json.loads((Path(spec.gemma) / "tokenizer.json").read_text("utf-8"))
    generator = torch.Generator().manual_seed(0)
    taken = packed.HIDDEN_SIZE * packed.NUM_HIDDEN_STATES
    projection = {
        f"text_embedding_projection.{stream}_aggregate_embed.{leaf}": torch.randn(
            shape, generator=generator
        )
        for stream, width in (("video", 128), ("audio", 64))
        for leaf, shape in (("weight", (width, taken)), ("bias", (width,)))
    }
    gemma = packed.write_packed(
        folder / "text-encoder.safetensors",
        json.dumps(tokenizer | {"post_processor": None}),
        tensors={**projection},
    )
    shutil.rmtree(spec.gemma)
    fields = {name: str(folder / f"{name}.safetensors") for name in parts}
    return _without_checkpoint(spec, gemma=str(gemma), **fields)


def sharded(folder: Path) -> ModelSpec:
    """The checkpoint in three shards with an index."""
    spec = write_tiny(folder)
    tensors, metadata = contents(spec)
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number in range(3):
        shard = f"ltx-2-tiny-{number + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[number::3]}, folder / shard, metadata)
        weight_map |= dict.fromkeys(names[number::3], shard)
    index = folder / "ltx-2-tiny.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return _without_checkpoint(spec, checkpoint=str(index))


def fp8_cast(folder: Path) -> ModelSpec:
    """The linear layers of the blocks in float8 without scales."""
    return _rewritten(folder, lambda name, tensor: {name: tensor.to(torch.float8_e4m3fn)})


def fp8_scaled(folder: Path) -> ModelSpec:
    """The same weights in float8 with a scale for each weight and for its input."""

    def scaled(name: str, weight: Tensor) -> dict[str, Tensor]:
        if not name.endswith(".weight"):
            return {name: weight}
        scale = weight.float().abs().amax() / 448
        return {
            name: (weight.float() / scale).to(torch.float8_e4m3fn),
            f"{name}_scale": scale,
            f"{name.removesuffix('weight')}input_scale": torch.tensor(0.05),
        }

    return _rewritten(folder, scaled)


def video_only(folder: Path) -> ModelSpec:
    """The 2.0 set without what sound needs, and with the connector's name in such files."""
    spec = write_tiny(folder)
    assert spec.checkpoint is not None
    tensors, metadata = contents(spec)
    config = json.loads(metadata["config"])
    for key in ("use_audio_video_cross_attention", "share_ff", "av_cross_ada_norm"):
        del config["transformer"][key]
    del config["audio_vae"], config["vocoder"]
    sound = ("audio", "av_ca", "a2v_ca", "vocoder")
    kept = {
        name.replace("video_embeddings_connector", "embeddings_connector"): tensor
        for name, tensor in tensors.items()
        if not any(part in name.removeprefix("vae.") for part in sound)
    }
    save_file(kept, spec.checkpoint, metadata | {"config": json.dumps(config)})
    return spec


LAYOUTS: dict[str, Callable[[Path], ModelSpec]] = {
    function.__name__: function
    for function in (
        one_file,
        component_files,
        sharded,
        generation_2_3,
        generation_2_5,
        fp8_cast,
        fp8_scaled,
    )
}


def without_audio_encoder(folder: Path) -> ModelSpec:
    """Files that make sound, and cannot read any."""
    spec = write_tiny(folder)
    tensors, metadata = contents(spec)
    kept = {n: t for n, t in tensors.items() if not n.startswith("audio_vae.encoder.")}
    assert spec.checkpoint is not None
    save_file(kept, spec.checkpoint, metadata)
    return spec


def contents(spec: ModelSpec) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a checkpoint."""
    assert spec.checkpoint is not None
    with safe_open(spec.checkpoint, "pt") as file:
        return load_file(spec.checkpoint), dict(file.metadata())


def _rewritten(folder: Path, change: Callable[[str, Tensor], dict[str, Tensor]]) -> ModelSpec:
    spec = write_tiny(folder)
    tensors, metadata = contents(spec)
    layers = (".to_q.", ".to_k.", ".to_v.", ".to_out.0.", "ff.net.0.proj.", "ff.net.2.")
    changed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        quantised = name.startswith(f"{DIT}transformer_blocks.") and any(s in name for s in layers)
        changed |= change(name, tensor) if quantised else {name: tensor}
    assert spec.checkpoint is not None
    save_file(changed, spec.checkpoint, metadata)
    return spec


def _without_checkpoint(spec: ModelSpec, **fields: str) -> ModelSpec:
    assert spec.checkpoint is not None
    Path(spec.checkpoint).unlink()
    return spec.model_copy(update={"checkpoint": None, **fields})
