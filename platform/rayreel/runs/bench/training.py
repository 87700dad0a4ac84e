"""Training runs that are timed step by step, and a plain PyTorch loop that learns the same."""

import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.strategies import TextToVideo
from rayreel.config.train import (
    AccelerationSpec,
    OptimizationSpec,
    TrainCheckpointSpec,
    TrainSpec,
)
from rayreel.data.storage import Storage
from rayreel.runs.bench.clip_files import write_clips
from rayreel.runs.bench.encoding import encode_spec, run_encode
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import TrainClipsCase
from rayreel.training.contexts import Contexts
from rayreel.training.dataset import TrainingData
from rayreel.training.example import Draws, stacked
from rayreel.training.forward import modalities
from rayreel.training.geometry import Geometry
from rayreel.training.model import build_trainable
from rayreel.training.order import Order, Position
from rayreel.training.run import TrainJob, train
from rayreel.training.streams import ExampleMaker
from rayreel.training.timesteps import sigma_sampler
from rayreel.training.tracking import read_metrics
from rayreel.types import Modality

_CPU = torch.device("cpu")
_DTYPE = torch.float32


@dataclass(frozen=True)
class TimedSteps:
    """Optimiser steps of a run or a loop, one after the other.

    Attributes:
        losses: Of each.
        seconds: Of each, with everything that is done between it and the one before.
        waits: Seconds of these in which a batch was waited for.
    """

    losses: Sequence[float]
    seconds: Sequence[float]
    waits: Sequence[float]


@dataclass(frozen=True)
class PreparedStep:
    """A step as a loop finds it in memory.

    Attributes:
        inputs: Of the model, texts included.
        targets: Velocities of video and audio, of which all tokens count.
        seconds: That reading and noising its samples took, without their texts.
    """

    inputs: tuple[Modality | None, Modality | None]
    targets: Sequence[Tensor]
    seconds: float


@contextmanager
def encoded(case: TrainClipsCase) -> Iterator[Path]:
    """A dataset of generated clips, encoded by a job as long as the block lasts."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        clips = write_clips(folder / "clips", case.sources, case.clips)
        spec = encode_spec(case, clips, folder)
        run_encode(spec, case.clips)
        yield Path(spec.output)


def train_spec(dataset: Path, output: Path, **values: Any) -> TrainSpec:  # noqa: ANN401 - any JSON
    """A run on this machine's CPUs that leaves a checkpoint at its end alone.

    Args:
        dataset: With video and audio.
        output: Run directory; it may be missing.
        values: What else the spec says; of ``optimization`` and ``acceleration`` some fields.
    """
    return TrainSpec(
        dataset=str(dataset),
        output=str(output),
        # Whatever is not shown counts, so that a plain mean is the same loss.
        strategy=TextToVideo(first_frame=0),
        optimization=OptimizationSpec(schedule="constant", **values.pop("optimization", {})),
        acceleration=AccelerationSpec(
            device="cpu", dtype="float32", **values.pop("acceleration", {})
        ),
        checkpoints=TrainCheckpointSpec(interval=None),
        **values,
    )


def timed_run(spec: TrainSpec) -> TimedSteps:
    """Train a new run in this process, as the command line does."""
    lines: list[Mapping[str, Any]] = []
    ends: list[float] = []

    def told(line: Mapping[str, Any]) -> None:
        ends.append(time.perf_counter())
        lines.append(line)

    with torch.inference_mode(False):
        train(TrainJob(spec=spec), told=told)
    between = [end - before for before, end in pairwise(ends)]
    return TimedSteps(
        losses=[line["loss"] for line in lines],
        seconds=[lines[0]["seconds"], *between],
        waits=[line["wait_seconds"] for line in lines],
    )


def prepared_steps(spec: TrainSpec) -> list[PreparedStep]:
    """All steps of a run in memory, made one after the other in this thread."""
    with torch.inference_mode(False):
        files = ModelFiles(locate_model(spec.model))
        streams = spec.strategy.streams()
        data = TrainingData(spec.dataset, streams)
        make = ExampleMaker(streams, Geometry.of(files), sigma_sampler(spec.timesteps))
        contexts = Contexts(build_trainable(files, spec, _CPU, _DTYPE).connectors, _DTYPE)
        order = Order(data.shapes, spec.optimization.batch_size, spec.seed).steps(Position())
        found = []
        for step, (position, samples) in enumerate(islice(order, spec.optimization.steps)):
            start = time.perf_counter()
            batch = stacked(
                [
                    make(
                        data.sample(number),
                        Draws(seed=spec.seed, epoch=position.epoch, step=step, sample=number),
                    )
                    for number in samples
                ]
            )
            seconds = time.perf_counter() - start
            targets = [
                stream.target
                for stream in (batch.video, batch.audio)
                if stream and stream.target is not None
            ]
            inputs = modalities(batch, contexts.of(batch), _DTYPE)
            found.append(PreparedStep(inputs, targets, seconds))
        return found


def plain_loop(spec: TrainSpec, steps: Sequence[PreparedStep]) -> TimedSteps:
    """Train a new model on steps in memory, as a person would write it down for once."""
    optimization = spec.optimization
    losses, seconds = [], []
    with torch.inference_mode(False):
        files = ModelFiles(locate_model(spec.model))
        model = build_trainable(files, spec, _CPU, _DTYPE).model
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            learning,
            lr=optimization.learning_rate,
            betas=optimization.betas,
            weight_decay=optimization.weight_decay,
        )
        for step in steps:
            start = time.perf_counter()
            video, audio = model(*step.inputs)
            video_target, audio_target = step.targets
            loss = F.mse_loss(video, video_target) + F.mse_loss(audio, audio_target)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(learning, optimization.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - start)
    return TimedSteps(losses, seconds, waits=[0.0] * len(steps))


class Processes:
    """Processes of one thread each that train run after run: they take long to start."""

    def __init__(self, number: int) -> None:
        """Start none yet; whoever is done leaves the context, and they end.

        Args:
            number: That train together, at most.
        """
        # A process keeps its rank: PyTorch remembers of a split tensor which part is its own.
        self._ranks = [
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(number)
        ]

    def train(self, spec: TrainSpec, world: int) -> list[Line]:
        """Train a new run in some of them, which find each other as those of ``torchrun`` do.

        Args:
            spec: Of the run.
            world: How many train it.

        Returns:
            Lines of its metrics, of which times are those of the first process.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        job = TrainJob(spec=spec)
        training = [
            process.submit(_train_as_rank, rank, world, port, job)
            for rank, process in enumerate(self._ranks[:world])
        ]
        for one in training:
            one.result()
        return list(read_metrics(Storage(spec.output)))

    def __enter__(self) -> Self:
        """They start when they are needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them."""
        for process in self._ranks:
            process.shutdown()


def tokens_per_s(lines: Sequence[Mapping[str, Any]]) -> float:
    """Of all processes, in the second half of the steps."""
    counted = lines[math.ceil(len(lines) / 2) :]
    return float(sum(one["tokens"] for one in counted) / sum(one["seconds"] for one in counted))


def _train_as_rank(rank: int, world: int, port: int, job: TrainJob) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    train(job)
