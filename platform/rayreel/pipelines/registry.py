"""Every pipeline by the name that a request gives."""

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.request import RenderRequest
from rayreel.pipelines.audio_to_video import AudioToVideo
from rayreel.pipelines.base import Pipeline
from rayreel.pipelines.choice import choose_pipeline
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.high_quality import HighQuality
from rayreel.pipelines.ic_lora import InContext
from rayreel.pipelines.image import SingleImage
from rayreel.pipelines.keyframes import KeyframeInterpolation
from rayreel.pipelines.one_stage import OneStage
from rayreel.pipelines.retake import RetakeVideo
from rayreel.pipelines.sources import read_sources
from rayreel.pipelines.text_to_audio import TextToAudio
from rayreel.pipelines.two_stage import TwoStage

PIPELINE_CLASSES: dict[str, type[Pipeline]] = {
    "one_stage": OneStage,
    "two_stage": TwoStage,
    "high_quality": HighQuality,
    "distilled": Distilled,
    "ic_lora": InContext,
    "keyframes": KeyframeInterpolation,
    "audio_to_video": AudioToVideo,
    "text_to_audio": TextToAudio,
    "retake": RetakeVideo,
    "image": SingleImage,
}
"""Pipelines by name; adding one takes its class and a line here."""


def pipeline_of(request: RenderRequest) -> type[Pipeline]:
    """The pipeline that a resolved request names."""
    assert request.pipeline is not None, "resolved requests name their pipeline"
    return PIPELINE_CLASSES[request.pipeline]


def pipeline_for(request: RenderRequest, files: ModelFiles) -> type[Pipeline]:
    """The pipeline that a request goes to: the one that it names, or the one that suits it.

    Raises:
        MediaError: If a file of it cannot be read.
        ValueError: If it names an unknown one.
    """
    sourced = read_sources(request, files).request
    name, _ = choose_pipeline(sourced, image_model=files.spec.image_model is not None)
    if name not in PIPELINE_CLASSES:
        raise ValueError(f"pipeline {name!r} is unknown; known: {', '.join(PIPELINE_CLASSES)}")
    return PIPELINE_CLASSES[name]
