"""Requests to latents to clips: what each way of sampling does."""

from rayreel.pipelines.base import Pipeline, PipelineTraits
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.one_stage import OneStage
from rayreel.pipelines.registry import PIPELINE_CLASSES, pipeline_for, pipeline_of
from rayreel.pipelines.two_stage import TwoStage

__all__ = [
    "PIPELINE_CLASSES",
    "Distilled",
    "OneStage",
    "Pipeline",
    "PipelineTraits",
    "TwoStage",
    "pipeline_for",
    "pipeline_of",
]
