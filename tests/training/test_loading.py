"""Batches of a worker's passes: in order, read ahead, the same however the work is shared out."""

import threading
import time
from contextlib import closing
from itertools import islice

import pytest
import torch

from rayreel.config.strategies import TextToVideo
from rayreel.config.train import TrainDataSpec
from rayreel.errors import RayreelError
from rayreel.training.dataset import TrainingData
from rayreel.training.example import Batch, StreamBatch
from rayreel.training.loading import Loader
from rayreel.training.order import Order, Position
from tests.training.datasets import tiny_dataset

CLIPS = 10
START = Position()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("dataset")
    tiny_dataset(folder, clips=CLIPS, shapes=((2, 2, 2), (1, 2, 3)), audio=False)
    return TrainingData(str(folder), TextToVideo(audio=False).streams())


def noised(sample, draws) -> Batch:
    """A sample plus noise of its own."""
    tokens = sample.video_latents.float().flatten(1).T[None]
    noise = torch.randn(tokens.shape, generator=draws.of_sample("noise"))
    level = torch.rand(1, generator=draws.of_step("level"))
    stream = StreamBatch(
        noisy=tokens + noise,
        target=noise - tokens,
        loss_mask=torch.ones(tokens.shape[:2]),
        timesteps=level[:, None],
        sigma=level,
        positions=torch.zeros(1, 3, tokens.shape[1], 2),
    )
    return Batch(video=stream, audio=None, texts=(sample.text,), samples=(draws.sample,))


def loader(data, make=noised, *, rank=0, world=1, micro_batch=None, batch_size=4, **spec):
    return Loader(
        data,
        make,
        Order(data.shapes, batch_size, seed=3),
        seed=3,
        spec=TrainDataSpec(**spec),
        rank=rank,
        world=world,
        micro_batch=micro_batch,
    )


def run(loader, number, position=START, step=0):
    """So many steps, and the batches of each."""
    with closing(loader.steps(position, step)) as steps:
        return [(one, list(one.passes)) for one in islice(steps, number)]


def inputs(*runs):
    """What the model reads of each sample that counts, by step and sample."""
    return {
        (step.step, sample): batch.video.noisy[place]
        for steps in runs
        for step, batches in steps
        for batch, weight in batches
        if weight
        for place, sample in enumerate(batch.samples)
    }


def test_steps_come_in_the_order_of_the_dataset(data):
    order = Order(data.shapes, 4, seed=3)
    for (step, batches), (position, samples) in zip(
        run(loader(data), 7), order.steps(START), strict=False
    ):
        assert (step.position, step.samples) == (position, samples)
        assert step.next_position == order.after(position)
        assert step.num_passes == len(batches)
        assert sorted(n for batch, _ in batches for n in batch.samples) == sorted(samples)


@pytest.mark.parametrize(("world", "micro_batch"), [(1, 1), (2, None), (3, 1), (5, 2)])
def test_what_the_model_reads_does_not_depend_on_how_work_is_shared_out(data, world, micro_batch):
    alone = inputs(run(loader(data), 6))
    shared = inputs(
        *(
            run(loader(data, rank=rank, world=world, micro_batch=micro_batch), 6)
            for rank in range(world)
        )
    )
    assert shared.keys() == alone.keys()
    assert all(torch.equal(shared[one], alone[one]) for one in alone)


def test_going_on_gives_what_would_have_come(data):
    whole = run(loader(data), 8)
    last = whole[3][0]
    rest = run(loader(data), 4, last.next_position, last.step + 1)
    expected, found = inputs(whole[4:]), inputs(rest)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[one], expected[one]) for one in expected)


def test_epochs_give_a_sample_other_noise(data):
    found = inputs(run(loader(data), 6))
    of_first = [tokens for (_, sample), tokens in found.items() if sample == 0]
    assert len(of_first) == 2
    assert not torch.equal(*of_first)


@pytest.mark.parametrize("ahead", [1, 3])
def test_as_many_passes_as_allowed_are_read_ahead_across_steps(data, ahead):
    made = []

    def counted(sample, draws):
        made.append(draws.step)
        return noised(sample, draws)

    reading = loader(data, counted, micro_batch=1, batch_size=2, ahead=ahead, loaders=1)
    with closing(reading.steps(START, 0)) as steps:
        first = next(steps)
        next(first.passes)
        _wait_for(lambda: len(made) == 1 + ahead)
        # Of the second step too, although the first is not done.
        assert made == [0, 0, 1, 1][: 1 + ahead]
        time.sleep(0.05)
        assert len(made) == 1 + ahead


def test_an_error_is_raised_where_its_batch_is_asked_for(data):
    bad = Order(data.shapes, 1, seed=3).epoch(0)[2][0]

    def make(sample, draws):
        if draws.sample == bad:
            raise RayreelError("damaged")
        return noised(sample, draws)

    with closing(loader(data, make, batch_size=1).steps(START, 0)) as steps:
        for step in islice(steps, 2):
            assert len(list(step.passes)) == 1
        with pytest.raises(RayreelError, match="damaged") as error:
            next(next(steps).passes)
    assert error.value.__notes__ == [f"sample {bad} of {data.uri}, step 2"]


def test_threads_end_when_nobody_reads_on(data):
    before = set(threading.enumerate())
    steps = loader(data, loaders=3, micro_batch=1).steps(START, 0)
    list(next(steps).passes)
    started = set(threading.enumerate()) - before
    assert started
    steps.close()
    assert not any(thread.is_alive() for thread in started)


def test_passes_that_were_left_out_are_an_error(data):
    with closing(loader(data, micro_batch=1).steps(START, 0)) as steps:
        next(next(steps).passes)
        with pytest.raises(ValueError, match="not all passes of step 0 were taken"):
            next(steps)


def test_samples_of_one_pass_are_one_batch(data):
    whole = Order(data.shapes, 2, seed=3).epoch(0)[0]
    ((_, ((batch, weight),)),) = run(loader(data, batch_size=2), 1)
    assert (batch.samples, weight) == (whole, 1)
    assert len(batch.video.noisy) == len(batch.texts) == 2


def _wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)
