"""What a person may write to fine-tune, and what is said of the rest."""

import pytest

from rayreel.config.load import parse
from rayreel.config.strategies import FirstFrame, Reference, StreamSpec
from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError


def spec(**fields):
    return parse({"dataset": "datasets/demo", **fields}, TrainSpec, where="train.yaml")


def refusal(**fields) -> str:
    with pytest.raises(SpecError) as caught:
        spec(**fields)
    return str(caught.value)


def flexible(**streams) -> dict[str, object]:
    return {"name": "flexible", **streams}


def shown(*conditions, **fields) -> dict[str, object]:
    return flexible(video={"conditions": [*conditions], **fields})


def test_a_dataset_is_all_that_is_needed():
    found = spec()
    assert (found.model, found.mode, found.strategy.name) == ("tiny", "lora", "text_to_video")
    assert refusal(dataset=None).startswith("train.yaml: field 'dataset': should be a valid string")


def test_text_to_video_has_one_noise_level_and_shows_some_first_frames():
    streams = spec().strategy.streams()
    assert streams.shared_sigma
    assert streams.video == StreamSpec(conditions=(FirstFrame(probability=0.1),))
    assert streams.audio == StreamSpec()
    assert not streams.in_context


@pytest.mark.parametrize(("kept", "left"), [("video", "audio"), ("audio", "video")])
def test_text_to_video_may_learn_one_stream(kept, left):
    streams = spec(strategy={"name": "text_to_video", left: False, "first_frame": 0})
    found = streams.strategy.streams()
    assert (getattr(found, kept), getattr(found, left)) == (StreamSpec(), None)


def test_an_in_context_adapter_sees_references_and_no_sound():
    streams = spec(strategy={"name": "ic_lora", "first_frame": 0.2}).strategy.streams()
    assert streams.audio is None
    assert streams.in_context
    assert streams.video == StreamSpec(conditions=(FirstFrame(probability=0.2), Reference()))


@pytest.mark.parametrize(("frame", "in_context"), [(0, True), (-1, False)])
def test_what_learns_keyframes_is_no_in_context_adapter(frame, in_context):
    strategy = shown({"type": "reference", "frame": frame})
    assert spec(strategy=strategy).strategy.streams().in_context is in_context


def test_the_flexible_strategy_is_what_is_written():
    strategy = flexible(audio={"generated": False}, video={"conditions": [{"type": "mask"}]})
    streams = spec(strategy=strategy).strategy.streams()
    assert not streams.shared_sigma
    assert spec(strategy=strategy | {"shared_sigma": True}).strategy.streams().shared_sigma
    assert not streams.audio.generated
    assert (streams.video.has_mask, streams.video.has_reference) == (True, False)


def test_prompts_stand_for_rows():
    rows = spec(validation={"rows": ["a fox", {"prompt": "a bear", "seed": 3}]}).validation.rows
    assert [(row.prompt, row.seed) for row in rows] == [("a fox", None), ("a bear", 3)]


@pytest.mark.parametrize(("written", "bounds"), [(0, (0, 0)), (3, (3, 3)), ([1, 4], (1, 4))])
def test_workers_are_a_number_or_a_range(written, bounds):
    assert spec(workers={"num_workers": written}).workers.bounds == bounds


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "full", "acceleration": {"offload": True}},
        {"acceleration": {"quantization": "int8", "sharding": "replicate"}, "workers": {}},
        {"acceleration": {"quantization": "int8"}, "workers": {"num_workers": 1}},
        {"acceleration": {"quantization": "fp8"}, "workers": {"num_workers": 2}},
        {"timesteps": {"sampler": "uniform", "min": 0.2, "max": 0.4}},
        {"timesteps": {"stretched": False, "std": 2}},
        {"optimization": {"steps": 10, "warmup": 9}},
        {"strategy": flexible(audio={"conditions": [{"type": "prefix", "length": 8}]})},
    ],
)
def test_what_goes_together_is_taken(fields):
    assert spec(**fields).model_fields_set == {"dataset", *fields}


@pytest.mark.parametrize(
    "fields",
    [{"mode": "full"}, {"timesteps": {"sampler": "uniform"}}, {"strategy": {"name": "ic_lora"}}],
)
def test_a_resolved_spec_is_read_back(fields):
    found = spec(**fields)
    assert parse(found.model_dump(mode="json"), TrainSpec, where="run.json") == found


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"mode": "full", "lora": {"rank": 4}},
            "mode full trains no adapter; remove lora, or set mode",
        ),
        (
            {"mode": "full", "acceleration": {"quantization": "fp8"}},
            "so none can be fp8; set acceleration.quantization: none, or mode: lora",
        ),
        ({"mode": "full", "strategy": {"name": "ic_lora"}}, "ic_lora trains an adapter; set mode"),
        (
            {"acceleration": {"quantization": "int8"}, "workers": {"num_workers": [1, 2]}},
            "int8 cannot be split over workers; set acceleration.sharding: replicate, or quan",
        ),
        (
            {"acceleration": {"offload": True, "sharding": "replicate"}},
            "acceleration.offload needs acceleration.sharding: full",
        ),
        ({"workers": {"num_workers": [3, 1]}}, "num_workers=(3, 1) is no number of processes"),
        ({"workers": {"num_workers": [0, 2]}}, "expected one from 0, or two such as [1, 4]"),
        ({"workers": {"num_workers": -1}}, "num_workers=-1 is no number of processes"),
        ({"timesteps": {"min": 0.5, "max": 0.2}}, "min=0.5 must be less than max=0.2"),
        (
            {"timesteps": {"sampler": "uniform", "std": 2}},
            "std without effect: sampler uniform has max, min",
        ),
        (
            {"timesteps": {"stretched": False, "uniform_share": 0.3}},
            "uniform_share without effect: sampler shifted_logit_normal, not stretched, has std",
        ),
        ({"timesteps": {"levels": [0.5]}}, "levels without effect"),
        ({"timesteps": {"sampler": "levels"}}, "needs levels, such as"),
        ({"timesteps": {"max": 0.5}}, "max without effect: sampler shifted_logit_normal has eps"),
        (
            {"optimization": {"steps": 10, "warmup": 10}},
            "warmup=10 leaves none of steps=10; expected at most 9",
        ),
        (
            {"strategy": {"name": "text_to_video", "video": False, "audio": False}},
            "learns neither video nor audio; set one of them to true",
        ),
        ({"strategy": flexible()}, "generates neither video nor audio; expected one of them"),
        ({"strategy": shown(generated=False)}, "generates neither video nor audio"),
        (
            {"strategy": flexible(audio={"conditions": [{"type": "first_frame"}]})},
            "audio has no first_frame; expected prefix, suffix, mask, reference",
        ),
        (
            {"strategy": flexible(audio={"conditions": [{"type": "reference", "frame": -1}]})},
            "a reference of sound is pinned to no frame; leave frame -1 out",
        ),
        (
            {"strategy": {**shown({"type": "mask"}, generated=False), "audio": {}}},
            "of conditions it may have references",
        ),
        (
            {"strategy": shown({"type": "reference"}, {"type": "reference"})},
            "expected one, as samples have one reference",
        ),
        (
            {"strategy": shown({"type": "spatial_crop", "region": [0, 9, 8, 9]})},
            "region [0, 9, 8, 9] is empty; expected top, left, bottom, right",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(fields, said):
    assert said in refusal(**fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"optimizaton": {}}, "'optimizaton': unknown; nearest is 'optimization'"),
        ({"lora": {"rnk": 4}}, "'lora.rnk': unknown; nearest is 'rank'"),
        ({"tracking": {"wandb": {"projct": "a"}}}, "'tracking.wandb.projct': unknown; nearest is "),
        ({"validation": {"rows": ["a", {"promt": "b"}]}}, "'validation.rows.1.promt': unknown; ne"),
        ({"strategy": {"name": "t2v"}}, "one of 'text_to_video', 'ic_lora', 'flexible', got 't2v'"),
        ({"strategy": {"audio": True}}, "field 'strategy': 'name' is required"),
        ({"strategy": "ic_lora"}, "'strategy': should be a mapping of fields, got 'ic_lora'"),
        (
            {"strategy": {"name": "ic_lora", "audio": True}},
            "'strategy.audio': unknown; known: name, first_frame",
        ),
        (
            {"strategy": {"name": "flexible", "vidoe": {}}},
            "'strategy.vidoe': unknown; nearest is 'video'",
        ),
        ({"strategy": shown({"type": "prefix"})}, "video.conditions.0.length': required"),
        (
            {"strategy": shown({"type": "suffix", "length": 3, "probabilty": 1})},
            "video.conditions.0.probabilty': unknown; nearest is 'probability'",
        ),
        ({"strategy": shown({"type": "prefx"})}, "'first_frame', 'prefix', 'suffix', "),
        ({"lora": {"rank": 1}}, "'lora.rank': should be greater than or equal to 2, got 1"),
        ({"lora": {"targets": "atention"}}, "'cross_modal' or 'attention' or should be a list"),
        ({"optimization": {"schedule": "cosin"}}, "'polynomial' or 'step', got 'cosin'"),
        ({"optimization": {"betas": [0.9, 2]}}, "'optimization.betas.1': should be less than 1"),
        ({"optimization": {"ema": 1}}, "'optimization.ema': should be less than 1, got 1"),
        ({"validation": {"rows": [" "]}}, "'validation.rows.0.prompt': blank; expected at least"),
        ({"validation": {"interval": 0}}, "'validation.interval': should be greater than or"),
        ({"model": "big"}, "'model': should be 'tiny' or should be a mapping of fields"),
    ],
)
def test_a_misspelt_or_wrong_value_is_told_with_its_place(fields, said):
    assert said in refusal(**fields)


TAUGHT = {"distillation": {}, "timesteps": {"sampler": "levels", "levels": [1.0, 0.5]}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mode": "full"}, "needs mode: lora"),
        ({"timesteps": {}}, "needs timesteps.sampler: levels"),
        ({"strategy": {"name": "ic_lora"}}, "without references along the clip"),
        ({"strategy": flexible(video={}, audio={})}, "strategy.shared_sigma"),
        ({"workers": {"num_workers": 2}}, "acceleration.sharding: replicate"),
    ],
)
def test_what_a_teacher_needs_is_said(fields, said):
    assert said in refusal(**{**TAUGHT, **fields})


def test_a_teacher_takes_what_it_can_teach():
    assert spec(**TAUGHT).distillation.substeps == 4
    assert spec(**TAUGHT, strategy=flexible(video={})).distillation
    replicated = {"workers": {"num_workers": 2}, "acceleration": {"sharding": "replicate"}}
    assert spec(**TAUGHT, **replicated).distillation
