"""One process of a training run: puts its parts together, goes on from where it was, and trains."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.tiny import locate_model
from rayreel.config.request import RenderRequest
from rayreel.config.train import TrainSpec
from rayreel.data.storage import Storage
from rayreel.training.checkpoints import Checkpoints
from rayreel.training.contexts import Contexts
from rayreel.training.dataset import TrainingData
from rayreel.training.devices import training_device
from rayreel.training.geometry import Geometry
from rayreel.training.group import joined
from rayreel.training.loading import Loader
from rayreel.training.loop import Work, train_steps
from rayreel.training.milestones import Milestones
from rayreel.training.model import Trainable, build_trainable
from rayreel.training.order import Order
from rayreel.training.parallel import parallelise
from rayreel.training.saving import Saver
from rayreel.training.state import TrainState
from rayreel.training.streams import ExampleMaker
from rayreel.training.teacher import teacher_of
from rayreel.training.timesteps import sigma_sampler
from rayreel.training.tracking import Tracker, trackers_for
from rayreel.training.utilisation import StepFlops, matmul_peak
from rayreel.training.validation import ValidationTask
from rayreel.training.validations import Begin, Validations, begin_here

Told = Callable[[Mapping[str, Any]], None]
"""Given each line of the metrics, on the first process."""


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """A run, as its processes are sent it.

    Attributes:
        spec: With absolute paths.
        requests: Validation clips, by name.
    """

    spec: TrainSpec
    requests: tuple[tuple[str, RenderRequest], ...] = ()


def train(job: TrainJob, *, begin: Begin = begin_here, told: Told = lambda _: None) -> int:
    """Train from the last checkpoint to the last step, as one process of a group or alone.

    Every process of the group calls it; so do ``torchrun`` and ``accelerate launch``.

    Args:
        job: The run; its output is nobody else's meanwhile.
        begin: Begins a validation task; the first process calls it.
        told: Told of every step, on the first process.

    Returns:
        Steps that the run has done by now.

    Raises:
        SpecError: If the spec does not fit dataset, model or machine.
        RayreelError: If a loss is not finite.
        StorageError: If the run directory does not answer.
    """
    spec = job.spec
    device = training_device(spec.acceleration)
    with joined(device.name) as group:
        files = ModelFiles(locate_model(spec.model))
        streams = spec.strategy.streams()
        data = TrainingData(spec.dataset, streams)
        trainable = build_trainable(files, spec, group.device, device.torch_dtype)
        parallelise(trainable.model, spec, group, device.torch_dtype)
        state = TrainState(trainable.model, spec.optimization, group)
        storage = Storage(spec.output)
        checkpoints = Checkpoints(storage, group, spec.checkpoints.keep_last)
        if checkpoints.latest() is not None:
            checkpoints.load(state)
        make = ExampleMaker(
            streams,
            Geometry.of(files),
            sigma_sampler(spec.timesteps),
            reference_scales=data.reference_scales,
        )
        work = Work(
            spec=spec,
            group=group,
            model=trainable.model,
            contexts=Contexts(trainable.connectors, device.torch_dtype),
            teacher=teacher_of(spec, files, trainable.model, device),
            state=state,
            loader=Loader(
                data,
                make,
                Order(data.shapes, spec.optimization.batch_size, spec.seed),
                seed=spec.seed,
                spec=spec.data,
                rank=group.rank,
                world=group.world,
                micro_batch=spec.optimization.micro_batch,
            ),
            device=device,
            flops=_flops(files, spec, trainable, state),
            peak=matmul_peak(group.device, device.torch_dtype),
        )
        saver = Saver(
            spec=spec,
            files=files,
            model=trainable.model,
            storage=storage,
            group=group,
            reference_scales=data.reference_scales if streams.in_context else None,
        )
        try:
            _follow(job, work, checkpoints, saver, begin, told)
        finally:
            # However it ends; other processes may be gone, and would be waited for.
            if group.world == 1:
                checkpoints.finish()
        return state.step


def _follow(
    job: TrainJob, work: Work, checkpoints: Checkpoints, saver: Saver, begin: Begin, told: Told
) -> None:
    """Train, and write, save and show what comes of it."""
    state, first = work.state, work.group.rank == 0
    due = Milestones(job.spec)
    # What the other processes compute is the same: one of them writes it.
    trackers = trackers_for(job.spec, saver.storage, state.step) if first else nullcontext()
    with trackers as tracker:
        validations = _validations(job, work, saver, begin, tracker) if tracker else None

        def rest() -> None:
            """Leave what can be gone on from, or looked at."""
            weights = saver.save(state) if state.step else None
            if due.checkpoint(state.step):
                if tracker:
                    tracker.cut(state.step)
                checkpoints.save(state)
            if validations and due.validation(state.step):
                validations.start(state.step, weights)
            saver.prune(validations.in_use if validations else set())

        if due.validation(state.step):
            rest()
        for line in train_steps(work):
            if tracker:
                tracker.log(line)
                told(line)
            if due.any(state.step):
                rest()
            checkpoints.poll()
            if validations:
                validations.poll()
        checkpoints.finish()
        if validations:
            validations.finish()


def _flops(
    files: ModelFiles, spec: TrainSpec, trainable: Trainable, state: TrainState
) -> StepFlops:
    learning = sum(parameter.numel() for parameter in state.parameters)
    every = sum(parameter.numel() for parameter in trainable.model.parameters())
    share = learning / (every - learning) if spec.mode == "lora" else 0.0
    return StepFlops(config=files.transformer, mode=spec.mode, adapter_share=share)


def _validations(
    job: TrainJob, work: Work, saver: Saver, begin: Begin, tracker: Tracker
) -> Validations:
    spec = job.spec
    task = ValidationTask(
        model=spec.model,
        mode=spec.mode,
        weights=spec.start,
        requests=job.requests,
        output=spec.output,
        step=0,
        device=work.device,
        reference_scales=saver.reference_scales,
    )
    return Validations(
        task=task,
        storage=saver.storage,
        tracker=tracker,
        begin=begin,
        timeout_s=spec.validation.timeout_s,
    )
