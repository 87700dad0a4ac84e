"""The README that weights are published with: what they are, and how they are used and were made.

Nothing in it says where files lie on the machines of the run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from rayreel.checkpoints.library import is_name
from rayreel.config.jobs import ModelSpec
from rayreel.config.train import TrainSpec
from rayreel.data.dataset import DatasetInfo
from rayreel.training.validation import ValidationResult

CARD = "README.md"

# Repositories that published files come from, by the start of their names: the hub links to them.
_REPOSITORIES = {"ltx-2-19b": "Lightricks/LTX-2", "ltx-2.3-22b": "Lightricks/LTX-2.3"}
_IN_DIFFUSERS = ("Lightricks/LTX-2",)
_PIPELINES = {"ic_lora": "LTX2InContextPipeline"}
_MARKUP = re.compile(r"([\\`*_\[\]<>|#~])")


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run as its card tells of it.

    Attributes:
        spec: As it was resolved.
        model: Files of the model that was trained.
        facts: The rest of ``run.json``.
        step: Optimiser steps that the weights have learned from.
        dataset: ``None`` where it cannot be read any more.
        reference_scales: Of the adapter, as in ``Adapter``.
        results: Of validation, those that have clips, and the step that they are of.
    """

    spec: TrainSpec
    model: ModelSpec
    facts: Mapping[str, Any]
    step: int
    dataset: DatasetInfo | None
    reference_scales: tuple[int, int] | None
    results: Sequence[ValidationResult]
    results_step: int | None


def sample_name(result: ValidationResult) -> str:
    """Name that a validation clip is published under."""
    assert result.file is not None, "results without clips are not published"
    return f"samples/{PurePosixPath(result.file).name}"


def model_card(training: Training, *, name: str, weights: str, repository: str | None) -> str:
    """The README as Markdown, with the fields that the hub reads in front.

    Args:
        training: The run.
        name: Title.
        weights: Name of the weights' file, beside the card.
        repository: Where on the hub it will be; ``None`` elsewhere.
    """
    base = _base(training.model)
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["plain"] = _plain
    template = resources.files("rayreel.runs").joinpath("model_card.md.j2").read_text("utf-8")
    return environment.from_string(template).render(
        front=_front(training, base),
        name=name,
        weights=weights,
        folder=repository or ".",
        base=_file_name(training.model),
        base_repository=base,
        diffusers=base if base in _IN_DIFFUSERS else None,
        field="transformer" if training.model.transformer else "checkpoint",
        spec=training.spec,
        own_loras=[PurePosixPath(lora.path).stem for lora in training.model.loras],
        facts=training.facts,
        step=training.step,
        dataset=training.dataset,
        scales=training.reference_scales,
        samples=[(result, sample_name(result)) for result in training.results],
        samples_step=training.results_step,
        pipeline=_PIPELINES.get(training.spec.strategy.name, "LTX2Pipeline"),
        strategy=_strategy(training.spec),
        schedule=_schedule(training.spec),
        adapter_name=name if training.spec.mode == "lora" and is_name(name) else None,
    )


def _front(training: Training, base: str | None) -> str:
    spec = training.spec
    values: dict[str, Any] = {}
    if base:
        values["base_model"] = base
        values["base_model_relation"] = "adapter" if spec.mode == "lora" else "finetune"
    values["pipeline_tag"] = _task(spec)
    values["tags"] = [*(["lora"] if spec.mode == "lora" else []), "ltx-2", "rayreel"]
    if training.results:
        values["widget"] = [
            {"text": result.prompt, "output": {"url": sample_name(result)}}
            for result in training.results
        ]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100).strip()


def _task(spec: TrainSpec) -> str:
    """What the hub calls it."""
    streams = spec.strategy.streams()
    if streams.video is None or not streams.video.generated:
        return "text-to-audio" if streams.video is None else "video-to-audio"
    return "video-to-video" if streams.in_context else "text-to-video"


def _base(model: ModelSpec) -> str | None:
    name = _file_name(model)
    return next((repo for start, repo in _REPOSITORIES.items() if name.startswith(start)), None)


def _file_name(model: ModelSpec) -> str:
    return PurePosixPath(model.transformer or model.checkpoint or "").name


def _strategy(spec: TrainSpec) -> str:
    """The strategy with what it learns and what it is shown."""
    streams = spec.strategy.streams()
    said = []
    for stream, what in (("video", streams.video), ("audio", streams.audio)):
        if what is None:
            continue
        shown = ", ".join(
            f"{one.type} ({one.probability:.0%} of samples)" for one in what.conditions
        )
        kind = "learned" if what.generated else "given"
        said.append(f"{stream} {kind}{f', shown {shown}' if shown else ''}")
    return f"{spec.strategy.name}: {'; '.join(said)}"


def _schedule(spec: TrainSpec) -> str:
    """The rate's course in a phrase."""
    plan = spec.optimization
    own = ", ".join(f"{key} {value:g}" for key, value in plan.schedule_params.items())
    warm = f", {plan.warmup} steps of warm-up" if plan.warmup else ""
    return f"{plan.schedule}{f' ({own})' if own else ''}{warm}"


def _plain(text: str) -> str:
    """Text that means itself in Markdown, in a table too: on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
