"""What holds for a stage of a job."""

import pytest

from rayreel.config.jobs import RenderSpec


def spec(**fields) -> RenderSpec:
    return RenderSpec.model_validate({"prompts": "list.jsonl", **fields})


def test_stages_take_what_holds_for_all_workers():
    job = spec(workers={"replicas": 3, "dtype": "float32"})
    assert job.stage("stage1") == job.workers


def test_a_stage_overrides_only_what_it_sets():
    job = spec(
        placement="split",
        workers={"replicas": 3, "dtype": "float32"},
        stages={"decode": {"replicas": 1, "gpus": 0.5}},
    )
    decode = job.stage("decode")
    assert (decode.replicas, decode.gpus, decode.dtype) == (1, 0.5, "float32")
    assert job.stage("text") == job.workers


def test_an_exception_without_effect_is_refused():
    assert spec(stages={"decode": {"device": "cpu"}}).stage("decode").device == "cpu"
    with pytest.raises(ValueError, match=r"stages\.decode\.replicas has no effect .* fused"):
        spec(stages={"decode": {"replicas": 2}})
