"""Training specs of the LTX-2 trainer become ours, with notes of what they lose on the way."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rayreel.config.base import StrictModel
from rayreel.config.load import parse
from rayreel.config.official_schema import (
    ATTENTION,
    OfficialFlexible,
    OfficialLora,
    OfficialSpec,
    OfficialStream,
    OfficialTextToVideo,
)
from rayreel.config.official_validation import absolute, validation
from rayreel.config.train import (
    AccelerationSpec,
    LoraSpec,
    OptimizationSpec,
    TimestepSpec,
    TrainCheckpointSpec,
    TrainDataSpec,
    TrainSpec,
)
from rayreel.errors import SpecError

_SECTIONS = {"training_strategy", "flow_matching", "hub", "output_dir", "wandb"}
_DTYPES = {"no": "float32", "fp16": "float16", "bf16": "bfloat16", None: "auto"}
_QUANTIZATIONS = {"fp8-quanto": "fp8", "fp8uz-quanto": "fp8"}
# Names of the timestep samplers' parameters, by what they are here.
_TIMESTEPS = {
    "std": "std",
    "eps": "eps",
    "uniform_prob": "uniform_share",
    "min_value": "min",
    "max_value": "max",
}
_CHILD = ".precomputed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A spec in our words.

    Attributes:
        values: For ``TrainSpec``, and for YAML: plain values alone.
        notes: What became another thing, or nothing, and why: a field of the trainer's each.
    """

    values: dict[str, Any]
    notes: tuple[str, ...]


def is_official(values: Mapping[str, Any]) -> bool:
    """Whether a mapping is a spec of the LTX-2 trainer rather than one of ours."""
    model, data = values.get("model"), values.get("data")
    return "dataset" not in values and (
        bool(_SECTIONS & values.keys())
        or (isinstance(model, Mapping) and "model_path" in model)
        or (isinstance(data, Mapping) and "preprocessed_data_root" in data)
    )


def convert(
    values: Mapping[str, Any], *, where: str = "spec", dataset: str | None = None
) -> Converted:
    """Say what a spec of the LTX-2 trainer, of any release, asks for in our words.

    Args:
        values: As read from its YAML.
        where: Its name, for messages.
        dataset: Folder or URI of the dataset that was, or will be, imported from its data; by
            default ``datasets/`` and the name of the data's folder.

    Returns:
        The spec. Relative paths have become absolute ones, from the current folder, where the
        trainer takes them from.

    Raises:
        SpecError: If it is not a spec of that trainer, or asks for what cannot be trained here.
    """
    spec = parse(values, OfficialSpec, where=where)
    if spec.model.text_encoder_path is None:
        raise SpecError(f"{where}: field 'model.text_encoder_path': required here")
    notes: list[str] = []
    found: dict[str, Any] = {
        **_data(spec, dataset, notes),
        "output": absolute(spec.output_dir),
        **_model(spec, notes),
        **_lora(spec, notes),
        "strategy": _strategy(spec, where, notes),
        "timesteps": _timesteps(spec, where, notes),
        "optimization": _optimization(spec, notes),
        "acceleration": _acceleration(spec, notes),
        "checkpoints": _checkpoints(spec, notes),
        "validation": validation(spec, notes),
        "tracking": _tracking(spec),
        "seed": spec.seed,
    }
    if spec.hub.push_to_hub:
        command = f"rayreel publish {shlex.quote(found['output'])} hf://{spec.hub.hub_model_id}"
        notes.append(f"hub.push_to_hub: `{command}` does so, after training")
    found = {field: value for field, value in found.items() if value != {}}
    parse(found, TrainSpec, where=f"{where}, converted")
    return Converted(values=found, notes=tuple(notes))


def _needed(
    values: dict[str, Any], kind: type[StrictModel], always: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Values without those that are defaults anyway."""
    fields = kind.model_fields
    return {
        name: value
        for name, value in values.items()
        if name in always or value != fields[name].get_default(call_default_factory=True)
    }


def _data(spec: OfficialSpec, dataset: str | None, notes: list[str]) -> dict[str, Any]:
    root = absolute(spec.data.preprocessed_data_root)
    folder = PurePath(root).parent if PurePath(root).name == _CHILD else PurePath(root)
    uri = absolute(dataset or str(Path("datasets", folder.name)))
    command = f"rayreel import {shlex.quote(root)} -o {shlex.quote(uri)}"
    notes.append(f"data.preprocessed_data_root: `{command}` makes a dataset of it")
    loaders = spec.data.num_dataloader_workers
    if loaders == 0:
        notes.append("data.num_dataloader_workers: 0 is one thread, which reads ahead")
    return {"dataset": uri, "data": _needed({"loaders": max(1, loaders)}, TrainDataSpec)}


def _model(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    model = spec.model
    files = {
        "checkpoint": model.model_path,
        "gemma": model.text_encoder_path,
        "video_vae": model.video_vae_path,
        "audio_vae": model.audio_vae_path,
    }
    found: dict[str, Any] = {
        "model": {field: absolute(path) for field, path in files.items() if path},
        "mode": model.training_mode,
    }
    if path := model.load_checkpoint:
        if path.endswith(".safetensors"):
            found["start"] = absolute(path)
            notes.append("model.load_checkpoint: weights alone; steps are counted from 0")
        else:
            notes.append(
                f"model.load_checkpoint: {path} is a folder; name the file of its last step as "
                "start"
            )
    return found


def _lora(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    if spec.model.training_mode == "full":
        if spec.lora:
            notes.append("lora: not read with model.training_mode full")
        return {}
    lora = spec.lora or OfficialLora()
    targets = lora.target_modules
    found: dict[str, Any] = {"rank": lora.rank, "dropout": lora.dropout}
    found["targets"] = "attention" if {*targets} == {*ATTENTION} else [*targets]
    if lora.alpha != lora.rank:
        found["alpha"] = lora.alpha
        notes.append(
            f"lora.alpha: {lora.alpha} / {lora.rank} is folded into the saved factors; the "
            "trainer's files lose it, so the same strength has another effect"
        )
    return {"lora": _needed(found, LoraSpec, ("rank",))}


def _strategy(spec: OfficialSpec, where: str, notes: list[str]) -> dict[str, Any]:
    strategy = spec.training_strategy
    if isinstance(strategy, OfficialFlexible):
        found: dict[str, Any] = {"name": "flexible"}
        for name in ("video", "audio"):
            if (stream := getattr(strategy, name)) is not None:
                found[name] = _stream(stream, name, where, notes)
        return found
    first_frame = strategy.first_frame_conditioning_p
    if isinstance(strategy, OfficialTextToVideo):
        if strategy.with_audio:
            folder = strategy.audio_latents_dir
            _tell_of_folder("audio_latents_dir", folder, "audio_latents", notes)
        return {
            "name": "text_to_video",
            "audio": strategy.with_audio,
            "first_frame": first_frame,
        }
    folder = strategy.reference_latents_dir
    _tell_of_folder("reference_latents_dir", folder, "reference_latents", notes)
    return {"name": "ic_lora", "first_frame": first_frame}


def _stream(stream: OfficialStream, name: str, where: str, notes: list[str]) -> dict[str, Any]:
    audio = "audio_" if name == "audio" else ""
    _tell_of_folder(f"{name}.latents_dir", stream.latents_dir, f"{audio}latents", notes)
    conditions: list[dict[str, Any]] = []
    for index, one in enumerate(stream.conditions):
        field = f"{name}.conditions.{index}"
        if not stream.is_generated and one.type != "reference":
            notes.append(f"training_strategy.{field}: {one.type} of a clean stream shows nothing")
            continue
        condition: dict[str, Any] = {"type": one.type}
        if one.temporal_boundary is not None:
            condition["length"] = one.temporal_boundary
        if one.spatial_region is not None:
            condition["region"] = [*one.spatial_region]
        if one.mask_dir is not None:
            _tell_of_folder(f"{field}.mask_dir", one.mask_dir, f"{name}_masks", notes)
        if one.latents_dir is not None:
            folder = f"reference_{audio}latents"
            _tell_of_folder(f"{field}.latents_dir", one.latents_dir, folder, notes)
        conditions.append({**condition, "probability": one.probability})
    for kind in ("reference", "mask"):
        if sum(one["type"] == kind for one in conditions) > 1:
            raise SpecError(
                f"{where}: field 'training_strategy.{name}.conditions': samples have one {kind} "
                f"of {name}; expected one condition {kind}"
            )
    return {"generated": stream.is_generated} | ({"conditions": conditions} if conditions else {})


def _tell_of_folder(field: str, given: str, known: str, notes: list[str]) -> None:
    if given != known:
        notes.append(
            f"training_strategy.{field}: an import reads {known}; call {given} so before it"
        )


def _timesteps(spec: OfficialSpec, where: str, notes: list[str]) -> dict[str, Any]:
    flow = spec.flow_matching
    uniform = flow.timestep_sampling_mode == "uniform"
    known = {"min_value", "max_value"} if uniform else {"std", "eps", "uniform_prob"}
    if strange := flow.timestep_sampling_params.keys() - known:
        raise SpecError(
            f"{where}: field 'flow_matching.timestep_sampling_params': "
            f"{', '.join(sorted(strange))} unknown to {flow.timestep_sampling_mode}; known: "
            + ", ".join(sorted(known))
        )
    if spec.validation.is_old and not uniform:
        notes.append(
            "flow_matching: noise levels as from release 2.3 on; 2.0 drew them with what is "
            "timesteps.stretched: false"
        )
    found: dict[str, Any] = {"sampler": flow.timestep_sampling_mode}
    found |= {_TIMESTEPS[name]: value for name, value in flow.timestep_sampling_params.items()}
    return _needed(found, TimestepSpec)


def _optimization(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    given = spec.optimization
    passes = given.gradient_accumulation_steps
    together = given.batch_size * passes
    found: dict[str, Any] = {
        "steps": given.steps,
        "batch_size": together,
        "learning_rate": given.learning_rate,
        "optimizer": given.optimizer_type,
        "max_grad_norm": max(0.0, given.max_grad_norm),
        "schedule": given.scheduler_type,
        "schedule_params": dict(given.scheduler_params),
    }
    if passes > 1:
        found["micro_batch"] = given.batch_size
    notes.append(
        f"optimization.batch_size: {given.batch_size} samples x {passes} passes of one process are "
        f"{together} samples of a step; the trainer takes as many for each of its processes, so "
        "multiply by their number"
    )
    if given.scheduler_type != "constant":
        notes.append(
            "optimization.scheduler_type: takes all steps, whereas with several processes the "
            "trainer's is through after steps / processes"
        )
    if given.optimizer_type == "adamw8bit":
        notes.append("optimization.optimizer_type: adamw8bit is torchao's, not bitsandbytes'")
    return _needed(found, OptimizationSpec, ("steps", "batch_size", "learning_rate", "schedule"))


def _acceleration(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    given = spec.acceleration
    found: dict[str, Any] = {
        "dtype": _DTYPES[given.mixed_precision_mode],
        "checkpoint_activations": spec.optimization.enable_gradient_checkpointing,
        "quantization": "none",
    }
    if given.mixed_precision_mode == "fp16":
        notes.append("acceleration.mixed_precision_mode: fp16 without scaling the loss")
    if given.mixed_precision_mode is None:
        notes.append("acceleration.mixed_precision_mode: null is what suits the device")
    if kind := given.quantization:
        found["quantization"] = _QUANTIZATIONS.get(kind, "int8")
        if kind not in {"int8-quanto", "fp8-quanto"}:
            notes.append(
                f"acceleration.quantization: {kind} is {found['quantization']}, which is nearest"
            )
    if given.load_text_encoder_in_8bit:
        notes.append(
            "acceleration.load_text_encoder_in_8bit: samples have their texts encoded, and "
            "validation loads the text encoder as it is"
        )
    if given.offload_optimizer_during_validation:
        notes.append(
            "acceleration.offload_optimizer_during_validation: validation is a task beside "
            "training; validation.where and acceleration.offload say more"
        )
    return _needed(found, AccelerationSpec)


def _checkpoints(spec: OfficialSpec, notes: list[str]) -> dict[str, Any]:
    given = spec.checkpoints
    if given.no_resume:
        notes.append("checkpoints.no_resume: a run goes on from its own output; name another one")
    if "save_training_state" in given.model_fields_set:
        notes.append(
            f"checkpoints.save_training_state: {given.save_training_state}; checkpoints are whole"
        )
    found = {
        "interval": given.interval,
        "keep_last": max(0, given.keep_last_n),
        "precision": given.precision,
    }
    return _needed(found, TrainCheckpointSpec)


def _tracking(spec: OfficialSpec) -> dict[str, Any]:
    given = spec.wandb
    if not given.enabled:
        return {}
    found: dict[str, Any] = {"project": given.project, "clips": given.log_validation_videos}
    if given.entity:
        found["entity"] = given.entity
    if given.tags:
        found["tags"] = [*given.tags]
    return {"wandb": found}
