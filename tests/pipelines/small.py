"""The tiny model with short texts, small requests, and an image for them."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.conditions import ImageCondition
from rayreel.config.jobs import MemorySpec
from rayreel.config.request import RenderRequest
from rayreel.models.text.tokenizer import PromptTokenizer
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.choice import GENERAL
from rayreel.pipelines.devices import Device
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.resolve import resolve
from rayreel.types import seeded_generator

DEVICE = Device("cpu", "float32", "for tests")
PIPELINE_NAMES = ("one_stage", "two_stage", "distilled")


def tiny_ledger(memory: MemorySpec | None = None) -> ModelLedger:
    """The tiny model; texts of 1024 tokens would take most of the time of a small clip."""
    ledger = ModelLedger("tiny", DEVICE, memory)
    tokenizer = PromptTokenizer(ledger.files.text_encoder.path, length=128)
    setattr(ledger.files.text_encoder, "tokenizer", lambda: tokenizer)  # noqa: B010 - a method
    return ledger


def with_transformer(ledger: ModelLedger, model: Any) -> ModelLedger:
    """A view that lends a model of the test's own."""
    view = copy.copy(ledger)
    view.transformer = lambda: nullcontext(model)  # type: ignore[method-assign]
    return view


def small(**fields: Any) -> RenderRequest:
    """A request for nine small frames."""
    size = {"width": 128, "height": 64, "num_frames": 9, "steps": 2}
    return RenderRequest.model_validate({"prompt": "A fox.", "seed": 1, **size, **fields})


def small_resolved(files: ModelFiles, **fields: Any) -> RenderRequest:
    """The same, with every field set."""
    return resolved(small(**fields), files)


def resolved(request: RenderRequest, files: ModelFiles) -> RenderRequest:
    """A request with every field set; one that names no pipeline goes to the general one."""
    request = request.model_copy(update={"pipeline": request.pipeline or GENERAL})
    return resolve(request, files, pipeline_of(request))


def distilled(ledger: ModelLedger) -> ModelLedger:
    """The view with the distilled adapter."""
    return ledger.with_loras(*ledger.files.adapters(distilled=True))


def write_image(folder: Path) -> Path:
    """A picture of another shape than the clips."""
    pixels = torch.randint(256, (80, 120, 3), generator=seeded_generator(0, "image"))
    path = folder / "image.png"
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return path


def pinned(path: Path, frame: int = 0, strength: float = 1.0) -> ImageCondition:
    """The picture as a condition, not compressed."""
    return ImageCondition(path=str(path), frame=frame, strength=strength, crf=0)
