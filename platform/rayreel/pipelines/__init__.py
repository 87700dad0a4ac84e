"""Requests to latents to clips: what each way of sampling does."""

from rayreel.config.request import PipelineName
from rayreel.pipelines.base import Pipeline
from rayreel.pipelines.distilled import Distilled
from rayreel.pipelines.one_stage import OneStage
from rayreel.pipelines.two_stage import TwoStage

PIPELINE_CLASSES: dict[PipelineName, type[Pipeline]] = {
    "one_stage": OneStage,
    "two_stage": TwoStage,
    "distilled": Distilled,
}

__all__ = ["PIPELINE_CLASSES", "Distilled", "OneStage", "Pipeline", "TwoStage"]
