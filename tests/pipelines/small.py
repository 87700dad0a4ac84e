"""The tiny model with short texts, small requests, and an image for them."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import ImageCondition, RenderRequest
from rayreel.pipelines.components import Components
from rayreel.pipelines.devices import Device
from rayreel.pipelines.resolve import resolve
from rayreel.types import seeded_generator

DEVICE = Device("cpu", "float32", "for tests")
PIPELINE_NAMES = ("one_stage", "two_stage", "distilled")


def tiny_components() -> Components:
    """The tiny model; texts of 1024 tokens would take most of the time of a small clip."""
    components = Components("tiny", DEVICE)
    components.text_encoder.tokenizer.length = 128
    return components


def small(**fields: Any) -> RenderRequest:
    """A request for nine small frames."""
    size = {"width": 128, "height": 64, "num_frames": 9, "steps": 2}
    return RenderRequest.model_validate({"prompt": "A fox.", "seed": 1, **size, **fields})


def small_resolved(files: ModelFiles, **fields: Any) -> RenderRequest:
    """The same, with every field set."""
    return resolve(small(**fields), files)


def write_image(folder: Path) -> Path:
    """A picture of another shape than the clips."""
    pixels = torch.randint(256, (80, 120, 3), generator=seeded_generator(0, "image"))
    path = folder / "image.png"
    Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return path


def pinned(path: Path, frame: int = 0, strength: float = 1.0) -> ImageCondition:
    """The picture as a condition, not compressed."""
    return ImageCondition(path=str(path), frame=frame, strength=strength, crf=0)
