"""Checks a set of weight files without loading it: what is there, and whether it can run here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
import torch

from rayreel.checkpoints.compatibility import text_encoder_warning
from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.kinds import kinds
from rayreel.checkpoints.networks import network_faults
from rayreel.checkpoints.reader import WeightFile
from rayreel.checkpoints.recognise import find_model
from rayreel.checkpoints.text_encoder import TextEncoderFiles
from rayreel.checkpoints.text_generator import TextGeneratorFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import ModelSetup, ModelSpec, StageName
from rayreel.config.request import RenderRequest
from rayreel.errors import CheckpointError, SpecError
from rayreel.pipelines import PIPELINE_CLASSES, pipeline_of
from rayreel.pipelines.choice import GENERAL
from rayreel.pipelines.devices import choose_device, free_memory
from rayreel.pipelines.image import image_faults
from rayreel.pipelines.resolve import resolve
from rayreel.requests.spec import read_model, read_setup
from rayreel.runs.needs import FUSED, PRECISIONS, Need, Precision, stage_needs

_GIB = 2**30


@dataclass
class Diagnosis:
    """What was found.

    Attributes:
        files: A line for each file of the set.
        faults: Why it cannot run anywhere, a line each.
        notes: What is worth knowing, a line each.
        memory: A table of what each stage needs.
        short: What this machine lacks, a line each.
    """

    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    memory: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if it can run here, 1 if this machine is too small for it, 2 if the set is wrong."""
        return 2 if self.faults else 1 if self.short else 0

    def __str__(self) -> str:
        """Sections of lines, those that are empty left out."""
        sections = {
            "files": self.files,
            "wrong": self.faults,
            "note": self.notes,
            "memory, GiB on the device (weights + activations) and on the host": self.memory,
            "too little memory here": self.short,
        }
        lines = [
            line
            for title, entries in sections.items()
            if entries
            for line in (f"{title}:", *(f"  {entry}" for entry in entries))
        ]
        verdict = {
            0: "the set is complete and fits this machine",
            1: "the set is complete; this machine is too small for it as it is configured",
            2: f"the set cannot be used: {len(self.faults)} fault{'s' * (len(self.faults) != 1)}",
        }
        return "\n".join([*lines, verdict[self.exit_code]])


def diagnose_model(name: str, overrides: Sequence[str] = ()) -> Diagnosis:
    """Look at every file of a model and at this machine; reads headers alone.

    Args:
        name: ``tiny``, a folder of weight files, a model spec or a render spec.
        overrides: ``key=value`` texts that win over the spec.

    Raises:
        SpecError: If the spec is missing or wrong.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return diagnose(read_model(name, overrides), Diagnosis())
    there = find_model(folder)
    found = Diagnosis(faults=list(map(_one_line, there.faults)), notes=there.notes)
    if "gemma" not in there.fields or not {"checkpoint", "transformer"} & there.fields.keys():
        return found
    # Named by hand, other adapters of the folder would be fused: those that cannot be are wrong.
    loras = tuple(AdapterSpec(path=str(path)) for path in there.loras)
    model = ModelSpec(**there.fields, loras=loras)
    return diagnose(read_setup(model, overrides), found)


def diagnose(setup: ModelSetup, found: Diagnosis) -> Diagnosis:
    """Add to what was found what the files of a model and this machine tell.

    Args:
        setup: The model, by absolute paths, and how it is to be run.
        found: So far.
    """
    named = locate_model(setup.model)
    spec = _usable(named, found)
    found.faults += _pipeline_faults(setup, named)
    if named.image_model:
        found.files.append(f"{'image_model':<15} {named.image_model.folder}")
        found.faults += map(_one_line, image_faults(named.image_model))
    if spec is None:
        return found
    files = ModelFiles(spec)
    for fault in map(_one_line, network_faults(files)):
        # A file that cannot be opened keeps its networks from being made.
        if not any(fault in known for known in found.faults):
            found.faults.append(fault)
    if not found.faults:
        if warning := text_encoder_warning(files.transformer_file, files.text_encoder):
            found.notes.append(warning)
        if why := TextGeneratorFiles(files.text_encoder).cannot_write:
            found.notes.append(f"prompts cannot be enhanced: {why}")
        _measure(setup, files, found)
    return found


def _usable(spec: ModelSpec, found: Diagnosis) -> ModelSpec | None:
    """The spec without what cannot be opened and is not needed; ``None`` without a transformer."""
    broken = set()
    for field_name, path in _files(spec):
        try:
            found.files.append(f"{field_name:<15} {_told(field_name, path)}")
        except CheckpointError as error:
            found.faults.append(f"{field_name}: {_one_line(str(error))}")
            broken.add((field_name, path))
    names = {name for name, _ in broken}
    if ("transformer" if spec.transformer else "checkpoint") in names:
        return None
    return spec.model_copy(
        update={
            **dict.fromkeys(names & {"upsampler", "distilled_lora"}),
            "loras": tuple(lora for lora in spec.loras if ("loras", lora.path) not in broken),
        }
    )


def _files(spec: ModelSpec) -> Iterator[tuple[str, str]]:
    """Every file of a spec, with the field that names it."""
    for name in ModelSpec.model_fields:
        match getattr(spec, name):
            case str(path) if name not in {"folder", "quantization"}:
                yield name, path
            case AdapterSpec(path=path):
                yield name, path
            case tuple(adapters):
                yield from ((name, adapter.path) for adapter in adapters)


def _told(field_name: str, path: str) -> str:
    """A file in a line; raises ``CheckpointError`` if it cannot be opened."""
    if field_name == "gemma":
        encoder = TextEncoderFiles(Path(path))
        file, holds = encoder.file, encoder.model_type or "no model_type"
    else:
        file = WeightFile(Path(path))
        holds = ", ".join(sorted(kinds(file))).replace("_", " ") or "nothing of this model family"
    version = file.metadata.get("model_version")
    stated = f", version {version}" if version else ""
    return f"{path} ({file.num_bytes / _GIB:.3g} GiB{stated}): {holds}"


def _pipeline_faults(setup: ModelSetup, spec: ModelSpec) -> Iterator[str]:
    """What the pipeline that rows take by default lacks."""
    pipeline = setup.defaults.pipeline or GENERAL
    if pipeline not in PIPELINE_CLASSES:
        yield f"defaults.pipeline {pipeline!r} is unknown; known: {', '.join(PIPELINE_CLASSES)}"
        return
    for need in PIPELINE_CLASSES[pipeline].traits.needs:
        if getattr(spec, need) is None:
            yield (
                f"{need}: missing; pipeline {pipeline}, which rows take by default, needs it: "
                f"name it as model.{need}, or set defaults.pipeline"
            )


def _measure(setup: ModelSetup, files: ModelFiles, found: Diagnosis) -> None:
    """Fill in the table of memory, and what this machine lacks."""
    fields = setup.defaults.model_dump(exclude_unset=True)
    audio = files.transformer.has_audio and setup.defaults.audio
    request = RenderRequest.model_validate({"prompt": "any", **fields, "audio": audio})
    request = request.model_copy(update={"pipeline": request.pipeline or GENERAL})
    request = resolve(request, files, pipeline_of(request))
    tables = {p.name: stage_needs(setup, files, request, p) for p in PRECISIONS}
    stages = list(tables[PRECISIONS[0].name])
    widths = [max(map(len, stages)), *([22] * len(tables))]
    rows = [["", *tables], *([s, *(_cell(t[s]) for t in tables.values())] for s in stages)]
    found.memory += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    found.memory.append(
        f"for {request.width}x{request.height}, {request.num_frames} frames, {request.pipeline}; "
        "leave a fifth free for kernels"
    )
    shared = FUSED in stages
    for stage in [FUSED] if shared else stages:
        found.short += _shortage(setup, files, request, stage)


def _cell(need: Need) -> str:
    host = f", {need.host / _GIB:.3g}" if need.host else ""
    return f"{need.weights / _GIB:.3g} + {need.activations / _GIB:.3g}{host}"


def _shortage(
    setup: ModelSetup, files: ModelFiles, request: RenderRequest, stage: str
) -> Iterator[str]:
    """What this machine lacks for a stage, as it is configured."""
    choice = setup.workers if stage == FUSED else setup.stage(cast(StageName, stage))
    try:
        device = choose_device(choice)
    except SpecError as error:
        yield f"{stage}: {error}"
        return
    precision = Precision(device.name, device.torch_dtype, files.spec.quantization)
    need = stage_needs(setup, files, request, precision)[stage]
    free, host = free_memory(torch.device(device.name)), psutil.virtual_memory().available
    # The CPU's memory is the host's.
    wanted = need.device + (need.host if device.name == "cpu" else 0)
    if wanted > free:
        yield (
            f"{stage}: needs {wanted / _GIB:.3g} GiB in {device.dtype} on {device.name}, "
            f"{free / _GIB:.3g} GiB are free"
        )
    elif need.host > host:
        yield (
            f"{stage}: keeps {need.host / _GIB:.3g} GiB of weights in the host's memory, "
            f"{host / _GIB:.3g} GiB are free"
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())
