"""Sets of files of the published sizes and layouts that take no disk: all weights are 0."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from rayreel.checkpoints import keys
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelSpec
from rayreel.models.text.language_models import make_gemma, parse_config
from rayreel.models.text.tiny import CONFIG, write_tiny_gemma
from tests.checkpoints.published import shapes
from tests.official import HIDDEN_SIZE, NUM_HIDDEN_STATES, OFFICIAL
from tests.sparse import write_sparse

_RANK = 384
_HOMES: dict[str, keys.Rules] = {
    "transformer": keys.TRANSFORMER,
    "video connector": (("model.diffusion_model.video_embeddings_connector.", ""),),
    "audio connector": (("model.diffusion_model.audio_embeddings_connector.", ""),),
    "text projection": (("text_embedding_projection.", ""),),
    "video encoder": keys.VIDEO_ENCODER,
    "video decoder": keys.VIDEO_DECODER,
    "audio encoder": keys.AUDIO_ENCODER,
    "audio decoder": keys.AUDIO_DECODER,
    "vocoder": keys.VOCODER,
}
_SECTIONS = ("transformer", "vae", "audio_vae", "vocoder")


def write_official(folder: Path, generation: str, *, distilled_lora: bool = False) -> ModelSpec:
    """Write a 2.0 or 2.3 set: one file, upsampler, Gemma folder and perhaps a distilled LoRA."""
    config = OFFICIAL[generation]
    paths = {
        name: folder / f"{name}.safetensors" for name in ("all", "upsampler", "distilled-lora")
    }
    tensors = {
        keys.file_name(name, rules): (shape, "F32" if "scale_shift_table" in name else "BF16")
        for network, rules in _HOMES.items()
        for name, shape in shapes(generation, network).items()
    }
    stated = json.dumps({section: config[section] for section in _SECTIONS})
    write_sparse(paths["all"], tensors, {"config": stated, "model_version": f"{generation}.0"})
    upsampler = {n: (shape, "BF16") for n, shape in shapes(generation, "spatial x2").items()}
    flat = json.dumps(config["upsamplers"]["spatial x2"])
    write_sparse(paths["upsampler"], upsampler, {"config": flat})
    adapter = None
    if distilled_lora:
        write_sparse(paths["distilled-lora"], _lora(shapes(generation, "transformer")), {})
        adapter = AdapterSpec(path=str(paths["distilled-lora"]))
    return ModelSpec(
        checkpoint=str(paths["all"]),
        gemma=str(_write_gemma(folder / "gemma-3-12b")),
        upsampler=str(paths["upsampler"]),
        distilled_lora=adapter,
    )


def _lora(transformer: dict[str, tuple[int, ...]]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Both halves for every linear layer."""
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, shape in transformer.items():
        if name.endswith(".weight") and len(shape) == 2:
            rank = min(_RANK, *shape)
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = (rank, shape[1]), "BF16"
            tensors[f"{module}.lora_B.weight"] = (shape[0], rank), "BF16"
    return tensors


def _write_gemma(folder: Path) -> Path:
    """The language model of 2.0 and 2.3, with the tokenizer of the tiny one."""
    write_tiny_gemma(folder / "tiny", seed=0)
    shutil.move(folder / "tiny" / "tokenizer.json", folder)
    shutil.rmtree(folder / "tiny")
    text: dict[str, Any] = CONFIG["text_config"] | {
        "vocab_size": 262208,
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 15360,
        "num_hidden_layers": NUM_HIDDEN_STATES - 1,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
    }
    config = CONFIG | {"text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = make_gemma(parse_config(json.loads(json.dumps(config))))
    names = model.state_dict()
    rules: keys.Rules = (("language_model.model.", "model."),)
    tensors = {keys.file_name(n, rules): (tuple(t.shape), "BF16") for n, t in names.items()}
    write_sparse(folder / "model.safetensors", tensors, {"format": "pt"})
    TextEncoderFiles(folder).check()
    return folder
