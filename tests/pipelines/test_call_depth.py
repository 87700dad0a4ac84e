"""Reading from pipeline to kernel stays short."""

import sys

import pytest

from rayreel.models.attention import scaled_dot_product
from rayreel.pipelines import PIPELINE_CLASSES, Pipeline
from tests.pipelines.small import PIPELINE_NAMES, small

MOST_CALLS = 8


def chains(call):
    """Functions of this package between ``Pipeline.stream``, where all work on a clip comes in, and
    the kernel, outermost first, whenever it is called."""
    found = set()

    def profile(frame, event, _):
        if event != "call" or frame.f_code is not scaled_dot_product.__code__:
            return
        names = []
        while frame and frame.f_code is not Pipeline.stream.__code__:
            if frame.f_globals.get("__name__", "").startswith("rayreel."):
                names.append(frame.f_code.co_qualname)
            frame = frame.f_back
        found.add(tuple(reversed(names)))

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("name", PIPELINE_NAMES)
def test_at_most_eight_calls_lead_from_a_pipeline_to_the_attention_kernel(ledger, name):
    pipeline, request = PIPELINE_CLASSES[name](ledger), small(pipeline=name)
    found = chains(lambda: pipeline(request))
    assert any("Transformer.forward" in chain for chain in found)
    assert not [chain for chain in found if len(chain) > MOST_CALLS]
