"""One process of a run: what it learns does not depend on how it got there."""

import json
from collections import Counter
from concurrent.futures import Future

import pytest
import torch
from safetensors.torch import load_file

from rayreel.checkpoints.tiny import locate_model
from rayreel.config.request import RenderRequest
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.training.run import TrainJob, train
from rayreel.training.validations import Results
from tests.training.datasets import tiny_dataset
from tests.training.processes import in_two_processes
from tests.training.runs import lines, losses, train_spec, trained


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight clips of two shapes."""
    return tiny_dataset(tmp_path_factory.mktemp("data"), shapes=((2, 2, 3), (2, 3, 2)))


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """Spec and metrics of a run that was never interrupted."""
    spec = train_spec(dataset, tmp_path_factory.mktemp("whole"), optimization={"ema": 0.9})
    return spec, trained(spec)


def test_each_sample_comes_once_per_epoch(whole):
    _, metrics = whole
    for epoch in range(3):
        seen = Counter(n for line in metrics if line["epoch"] == epoch for n in line["samples"])
        assert seen == Counter(range(8))


@pytest.mark.parametrize("stop_at", [4, 5])
def test_a_run_that_goes_on_equals_one_that_never_stopped_to_the_bit(whole, tmp_path, stop_at):
    spec, metrics = whole
    again = spec.model_copy(update={"output": str(tmp_path)})
    stopped = trained(again, stop_at=stop_at)
    assert [line["step"] for line in stopped] == [*range(1, stop_at + 1)]
    assert trained(again) == metrics
    last = "weights/step-00000006.safetensors"
    ours, theirs = (load_file(f"{one.output}/{last}") for one in (again, spec))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_batch_learns_the_same_as_its_samples_one_by_one(whole, tmp_path):
    spec, metrics = whole
    single = spec.model_copy(
        update={
            "output": str(tmp_path),
            "optimization": spec.optimization.model_copy(update={"micro_batch": 1}),
        }
    )
    assert losses(trained(single)) == pytest.approx(losses(metrics), rel=1e-4)


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_two_processes_learn_the_same_as_one(dataset, tmp_path, mode):
    steps = {"steps": 20, "learning_rate": 1e-4 if mode == "full" else 1e-3}
    spec = train_spec(
        dataset,
        tmp_path / "two",
        mode=mode,
        optimization=steps,
        checkpoints={"interval": 10, "keep_last": 0},
    )
    in_two_processes(train_job, TrainJob(spec=spec))
    alone = spec.model_copy(update={"output": str(tmp_path / "one")})
    two, one = lines(spec.output), trained(alone)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert [line["samples"] for line in two] == [line["samples"] for line in one]


def train_job(job: TrainJob) -> int:
    return train(job)


def test_a_run_may_go_on_with_another_number_of_processes(dataset, tmp_path):
    spec = train_spec(dataset, tmp_path / "alone")
    metrics = trained(spec)
    changing = spec.model_copy(update={"output": str(tmp_path / "changing")})
    trained(changing, stop_at=4)
    in_two_processes(train_job, TrainJob(spec=changing))
    assert losses(lines(changing.output)) == pytest.approx(losses(metrics), rel=1e-3)


def test_a_loss_that_is_not_finite_ends_the_run_and_spoils_nothing(dataset, tmp_path):
    spec = train_spec(
        dataset,
        tmp_path,
        mode="full",
        optimization={"learning_rate": 1e18, "max_grad_norm": 0, "steps": 4},
        checkpoints={"interval": 1},
    )
    with pytest.raises(RayreelError, match=r"loss of step \d is (nan|inf).*lower optimization"):
        trained(spec)
    step = json.loads(max(tmp_path.glob("checkpoints/*/checkpoint.json")).read_text("utf-8"))[
        "step"
    ]
    assert step == len(lines(spec.output))


def request(**values) -> RenderRequest:
    return RenderRequest(
        prompt="A fox.", width=64, height=64, num_frames=9, steps=1, seed=0, audio=False, **values
    )


@pytest.fixture
def clips():
    """Two rows of a validation, one of which names a file that is not there."""
    lost = {"path": "/nowhere/fox.png", "frame": 0}
    return (
        ("fox", request(pipeline="one_stage")),
        ("lost", request(pipeline="one_stage", images=(lost,))),
    )


def test_clips_show_what_is_learned_and_one_that_fails_costs_itself(dataset, tmp_path, clips):
    spec = train_spec(
        dataset,
        tmp_path,
        optimization={"steps": 2},
        validation={"rows": ["A fox.", "A lost one."], "interval": 2},
    )
    assert train(TrainJob(spec=spec, requests=clips)) == 2
    for step in (0, 2):
        results = json.loads((tmp_path / f"validation/step-{step:08d}.json").read_text("utf-8"))
        assert [one["name"] for one in results] == ["fox", "lost"]
        fox, lost = results
        assert fox["error"] is None
        assert (tmp_path / fox["file"]).stat().st_size > 1000
        assert lost["file"] is None
        assert "fox.png" in lost["error"]


def test_a_validation_that_fails_as_a_whole_is_told_and_training_goes_on(
    dataset, tmp_path, clips, caplog
):
    def begin(task):
        raise_later: Future[Results] = Future()
        raise_later.set_exception(OSError("no such device"))
        return raise_later

    spec = train_spec(dataset, tmp_path, optimization={"steps": 2}, validation={"rows": ["A fox."]})
    assert train(TrainJob(spec=spec, requests=clips[:1]), begin=begin) == 2
    assert "no such device" in caplog.text
    assert "no such device" in Storage(str(tmp_path)).read_text("validation/step-00000002.json")


def test_weights_of_a_stream_that_is_not_trained_stay_as_they_are(dataset, tmp_path):
    spec = train_spec(
        dataset,
        tmp_path,
        mode="full",
        strategy={"name": "text_to_video", "audio": False},
        optimization={"steps": 2, "weight_decay": 0.5},
        checkpoints={"precision": "float32"},
    )
    trained(spec)
    saved = load_file(tmp_path / "weights/step-00000002.safetensors")
    base = load_file(str(locate_model("tiny").checkpoint))
    changed = {
        name for name, tensor in saved.items() if not torch.equal(tensor, base[name].float())
    }
    assert saved.keys() == base.keys()
    assert any(".attn1." in name for name in changed)
    assert not any("audio" in name or "_av_" in name for name in changed)
