"""The estimate of the connectors' memory against the bytes of live tensors."""

import pytest
import torch
import torch.nn.functional as F

from rayreel.config.model import TextConfig
from rayreel.models import attention
from rayreel.models.memory import text_connectors_bytes
from rayreel.models.text.connector import TextConnectors
from rayreel.types import TextFeatures
from tests.models.test_memory import DTYPES, check, on, peak
from tests.models.tiny import GENERATIONS
from tests.official import OFFICIAL


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("prompts", [2, 12])
def test_text_connectors(generation, dtype, prompts, monkeypatch):
    # Norms store their result alone, as on CUDA; other devices compose them of several steps.
    monkeypatch.setattr(F, "rms_norm", lambda x, *_args, **_named: torch.zeros_like(x))
    # On the meta device the kernel would store the scores.
    monkeypatch.setattr(attention, "scaled_dot_product", lambda q, *_: torch.empty_like(q))
    few = {"connector_num_layers": 2, "audio_connector_num_layers": 2}
    config = TextConfig.model_validate(OFFICIAL[generation]["transformer"] | few)
    connectors = on(lambda: TextConnectors(config), dtype, "meta")
    video, audio = (
        torch.zeros(130, width, dtype=dtype, device="meta")
        for width in (config.video.width, config.audio.width)
    )
    features = [TextFeatures(video=video, audio=audio, length=1024)] * prompts
    estimate = text_connectors_bytes(
        config, prompts=prompts, text_tokens=1024, itemsize=dtype.itemsize
    )
    check(estimate, peak(lambda: connectors(features)))
