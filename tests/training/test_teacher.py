"""Distillation: an adapter learns to do in one step what the model does in several guided ones."""

from dataclasses import replace

import pytest
import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.train import TrainSpec
from rayreel.errors import SpecError
from rayreel.pipelines.devices import Device
from rayreel.runs.training.opened import check_training
from rayreel.training.contexts import Contexts
from rayreel.training.dataset import TrainingData
from rayreel.training.example import Batch, Draws, StreamBatch, stacked
from rayreel.training.forward import modalities
from rayreel.training.geometry import Geometry
from rayreel.training.model import build_trainable
from rayreel.training.streams import ExampleMaker
from rayreel.training.teacher import teacher_of
from rayreel.training.timesteps import sigma_sampler
from tests.training.datasets import tiny_dataset
from tests.training.runs import losses, train_spec, trained

CPU = Device("cpu", "float32", "as tested")
LEVELS = [1.0, 0.75, 0.25]
PLAIN = {"cfg_scale": 1, "stg_scale": 0, "modality_scale": 1, "rescale_scale": 0}
UNGUIDED = {"video_guidance": PLAIN, "audio_guidance": PLAIN}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("data"))


def distilled(dataset, output, **teacher) -> TrainSpec:
    return train_spec(
        dataset,
        output,
        distillation=teacher,
        timesteps={"sampler": "levels", "levels": LEVELS},
        lora={"rank": 4, "targets": "all"},
    )


class Lesson:
    """A teacher with its model, an adapter that is not at its start, and a batch."""

    def __init__(self, spec: TrainSpec) -> None:
        files = ModelFiles(locate_model("tiny"))
        trainable = build_trainable(files, spec, torch.device("cpu"), torch.float32)
        self.model = trainable.model
        self.set_adapter(0.1)
        self.teacher = teacher_of(spec, files, self.model, CPU)
        streams = spec.strategy.streams()
        data = TrainingData(spec.dataset, streams)
        make = ExampleMaker(streams, Geometry.of(files), sigma_sampler(spec.timesteps))
        self.batch = stacked(
            [make(data.sample(n), Draws(seed=1, epoch=0, step=0, sample=n)) for n in range(8)]
        )
        self.contexts = Contexts(trainable.connectors, torch.float32).of(self.batch)

    @torch.no_grad()
    def set_adapter(self, deviation: float) -> None:
        """What it does to the model; nothing if the deviation is 0."""
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=deviation)

    def taught(self) -> Batch:
        assert self.teacher is not None
        return self.teacher.taught(self.batch, self.contexts)

    def predicted(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            video, audio = self.model(*modalities(batch, self.contexts, torch.float32))
        return video, audio


def streams(batch: Batch) -> tuple[StreamBatch, StreamBatch]:
    assert batch.video is not None
    assert batch.audio is not None
    return batch.video, batch.audio


def target(stream: StreamBatch) -> torch.Tensor:
    assert stream.target is not None
    return stream.target


def test_one_unguided_step_teaches_what_the_model_says_without_its_adapter(dataset, tmp_path):
    lesson = Lesson(distilled(dataset, tmp_path, substeps=1, **UNGUIDED))
    taught = lesson.taught()
    with_adapter = lesson.predicted(lesson.batch)
    lesson.set_adapter(0)
    alone = lesson.predicted(lesson.batch)
    for stream, own, other in zip(streams(taught), alone, with_adapter, strict=True):
        learned = stream.loss_mask.bool()
        assert torch.allclose(target(stream)[learned], own[learned], atol=1e-4)
        assert (own - other).abs().max() > 1e-2, "the adapter does something"


def test_a_taught_step_leads_where_the_teacher_gets_to(dataset, tmp_path):
    """Two small steps from 0.75, by hand: half-way to 0.25, and on."""
    lesson = Lesson(distilled(dataset, tmp_path, substeps=2, **UNGUIDED))
    batch, taught = lesson.batch, lesson.taught()
    (rows,) = torch.where(streams(batch)[0].sigma == 0.75)
    assert len(rows)
    lesson.set_adapter(0)
    here = batch
    for _ in range(2):
        video, audio = map(_moved, streams(here), lesson.predicted(here))
        here = replace(here, video=video, audio=audio)
    for before, after, said in zip(*map(streams, (batch, here, taught)), strict=True):
        velocity = target(said)[rows] * said.loss_mask[rows][..., None]
        assert torch.allclose(before.noisy[rows] - 0.5 * velocity, after.noisy[rows], atol=1e-4)


def _moved(stream: StreamBatch, velocity: torch.Tensor, step: float = 0.25) -> StreamBatch:
    """A stream one step on; what is shown of it stays."""
    sigma = stream.sigma - step
    return replace(
        stream,
        noisy=stream.noisy - step * velocity * stream.loss_mask[..., None],
        sigma=sigma,
        timesteps=(stream.loss_mask * sigma[:, None]).clamp(min=0),
    )


def test_an_adapter_that_does_nothing_has_nothing_to_learn_of_a_teacher_that_does_no_more(
    dataset, tmp_path
):
    spec = distilled(dataset, tmp_path / "plain", substeps=1, **UNGUIDED)
    first, *_ = losses(trained(spec, stop_at=2))
    assert first < 1e-8
    guided = distilled(dataset, tmp_path / "guided", substeps=2)
    metrics = losses(trained(guided))
    assert metrics[0] > 1e-4
    assert metrics[-1] < metrics[0]


def test_a_run_of_a_teacher_goes_on_as_if_it_had_never_stopped(dataset, tmp_path):
    whole = trained(distilled(dataset, tmp_path / "whole", substeps=2))
    spec = distilled(dataset, tmp_path / "stopped", substeps=2)
    trained(spec, stop_at=5)
    assert trained(spec) == whole


@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        ({"video_guidance": {"method": "cgf"}}, "video_guidance.method: 'cgf' is unknown"),
        ({"audio_guidance": {"stg_blocks": [77]}}, "77"),
    ],
)
def test_guidance_that_cannot_be_is_refused_before_anything_is_trained(
    dataset, tmp_path, guidance, said
):
    with pytest.raises(SpecError) as caught:
        check_training(distilled(dataset, tmp_path / "run", **guidance))
    assert str(caught.value).startswith("distillation:")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()
