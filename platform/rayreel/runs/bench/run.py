"""Makes the comparisons of a spec, one after the other."""

from collections.abc import Iterator

import torch

from rayreel.runs.bench.encode_cases import compare_encoding
from rayreel.runs.bench.job_cases import compare_batches, compare_job
from rayreel.runs.bench.load import compare_loading
from rayreel.runs.bench.memory import measure_decode, measure_renders
from rayreel.runs.bench.networks import (
    Line,
    compare_transformers,
    compare_video_decoders,
    compare_vocoders,
)
from rayreel.runs.bench.pipeline import compare_policies, compare_with_diffusers
from rayreel.runs.bench.serving import compare_services
from rayreel.runs.bench.spec import (
    BatchesCase,
    BenchSpec,
    Case,
    DecodeMemoryCase,
    DiffusersLoopCase,
    EncodeClipsCase,
    JobCase,
    LoadCase,
    RenderMemoryCase,
    ResidentCase,
    ServiceCase,
    ShardingCase,
    TextBatchesCase,
    TrainLoopCase,
    TrainPaddingCase,
    TrainScalingCase,
    TransformerCase,
    VideoDecoderCase,
    VocoderCase,
)
from rayreel.runs.bench.timing import surroundings
from rayreel.runs.bench.training_cases import compare_training


def run(spec: BenchSpec) -> Iterator[list[Line]]:
    """Compare.

    Args:
        spec: What to compare.

    Yields:
        For each case its results, in the order of the spec; each holds the fields of the case, what
        was measured, and what else it depends on.

    Raises:
        ValueError: If two networks that are compared do not agree.
    """
    for case in spec.cases:
        torch.manual_seed(0)
        with torch.inference_mode():
            results = _compare(case, spec.seconds)
        yield [{**case.model_dump(), **surroundings(), **result} for result in results]


def _compare(case: Case, seconds: float) -> list[Line]:  # noqa: PLR0912 - one for each kind
    match case:
        case LoadCase():
            lines = compare_loading(case, seconds)
        case TransformerCase():
            lines = [compare_transformers(case, seconds)]
        case VideoDecoderCase():
            lines = [compare_video_decoders(case, seconds)]
        case VocoderCase():
            lines = [compare_vocoders(case, seconds)]
        case DecodeMemoryCase():
            lines = measure_decode(case)
        case RenderMemoryCase():
            lines = [measure_renders(case)]
        case DiffusersLoopCase():
            lines = [compare_with_diffusers(case, seconds)]
        case ResidentCase():
            lines = [compare_policies(case, seconds)]
        case BatchesCase():
            lines = [compare_batches(case, seconds)]
        case TrainLoopCase() | TrainScalingCase() | TrainPaddingCase():
            lines = compare_training(case, seconds)
        case ShardingCase() | TextBatchesCase() | EncodeClipsCase():
            lines = compare_encoding(case, seconds)
        case ServiceCase():
            lines = compare_services(case, seconds)
        case JobCase():
            lines = [compare_job(case, seconds)]
    return lines
