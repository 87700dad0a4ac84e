"""The stages of a render job after the text, ready to work in a run directory."""

from pathlib import Path
from typing import Any

import pytest

from rayreel.config.jobs import MemorySpec, ModelChoice
from rayreel.stages.base import Stage
from rayreel.stages.decode import DecodeStage
from rayreel.stages.denoise import GenerateStage, RefineStage
from tests.pipelines.small import DEVICE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def stages_in(
    folder: Path, *, model: ModelChoice = "tiny", keep_latents: bool = False
) -> tuple[Stage[Any], ...]:
    memory, output = MemorySpec(), str(folder)
    made: tuple[Stage[Any], ...] = (
        GenerateStage(model, DEVICE, memory, output, output),
        RefineStage(model, DEVICE, memory, output),
        DecodeStage(model, DEVICE, memory, output, keep_latents=keep_latents),
    )
    for stage in made:
        stage.setup()
    return made
