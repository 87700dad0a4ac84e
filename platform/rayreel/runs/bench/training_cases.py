"""Training against a plain loop, on more processes, and on samples of many sizes."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

import torch

from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import (
    AnyTrainCase,
    TrainLoopCase,
    TrainMode,
    TrainPaddingCase,
    TrainScalingCase,
)
from rayreel.runs.bench.timing import Race, difference, threads, turns
from rayreel.runs.bench.training import (
    PreparedStep,
    Processes,
    TimedSteps,
    encoded,
    plain_loop,
    prepared_steps,
    timed_run,
    tokens_per_s,
    train_spec,
)
from rayreel.runs.bench.training_padding import compare_padding

_WORLD = 2


def compare_training(case: AnyTrainCase, seconds: float) -> list[Line]:
    """What a case of training asks for."""
    match case:
        case TrainLoopCase():
            with encoded(case) as dataset:
                lines = compare_with_plain_loop(case, dataset, seconds)
        case TrainScalingCase():
            with encoded(case) as dataset:
                lines = measure_scaling(case, dataset, seconds)
        case TrainPaddingCase():
            lines = compare_padding(case)
    return lines


def compare_with_plain_loop(case: TrainLoopCase, dataset: Path, seconds: float) -> list[Line]:
    """Seconds of an optimiser step, ours and theirs, for each mode.

    Ours reads samples from the dataset while it trains, tells of every step, and follows it. The
    model computes with one thread on either side, as on a worker of one CPU; what reads ahead has
    threads of its own. All steps are alike, and the median of those that are timed is told.

    Args:
        case: What is trained, and how.
        dataset: Of samples of one size, with sound.
        seconds: For each mode.

    Raises:
        ValueError: If both do not come to the same losses.
    """
    first = math.ceil(case.clips / case.samples)
    optimization = {"steps": first * (1 + case.epochs), "batch_size": case.samples}
    with threads(1):
        steps = prepared_steps(train_spec(dataset, dataset, optimization=optimization))
        return [
            _mode_line(mode, dataset, optimization, steps, first, seconds) for mode in case.modes
        ]


def measure_scaling(case: TrainScalingCase, dataset: Path, seconds: float) -> list[Line]:
    """Tokens per second of one process and of two, for each way to share the weights.

    Args:
        case: What is trained, and how.
        dataset: Of samples with sound.
        seconds: For all of them.
    """
    alone: list[float] = []
    together: dict[str, list[float]] = {sharding: [] for sharding in case.shardings}

    def rate(processes: Processes, folder: Path, world: int, sharding: str) -> float:
        spec = train_spec(
            dataset,
            folder / f"{sharding}-{world}",
            mode=case.mode,
            optimization={"steps": case.steps, "batch_size": case.samples * world},
            acceleration={"sharding": sharding},
        )
        return tokens_per_s(processes.train(spec, world))

    with Processes(_WORLD) as processes:
        for _ in turns(seconds):
            with TemporaryDirectory() as name:
                folder = Path(name)
                alone.append(rate(processes, folder, 1, "replicate"))
                for sharding, rates in together.items():
                    rates.append(rate(processes, folder, _WORLD, sharding))
    return [
        {
            "sharding": sharding,
            "threads": 1,
            "processes": _WORLD,
            "tokens_per_s": _digits(max(rates)),
            "baseline": "one process",
            "baseline_tokens_per_s": _digits(max(alone)),
            "scaling": round(max(rates) / max(alone), 3),
            "efficiency": round(max(rates) / max(alone) / _WORLD, 3),
        }
        for sharding, rates in together.items()
    ]


def _mode_line(
    mode: TrainMode,
    dataset: Path,
    optimization: dict[str, int],
    steps: list[PreparedStep],
    first: int,
    seconds: float,
) -> Line:
    """Both by turns; steps of the first epoch are not timed."""
    ours: list[TimedSteps] = []
    theirs: list[TimedSteps] = []
    for _ in turns(seconds):
        with TemporaryDirectory() as name:
            spec = train_spec(dataset, Path(name), mode=mode, optimization=optimization)
            ours.append(timed_run(spec))
            theirs.append(plain_loop(spec, steps))
    found = difference(*(torch.tensor(one[-1].losses) for one in (ours, theirs)))

    def timed(runs: Sequence[TimedSteps]) -> list[float]:
        return [seconds for run in runs for seconds in run.seconds[first:]]

    both = Race(median(timed(ours)), median(timed(theirs)))
    wait = fmean(seconds for run in ours for seconds in run.waits[first:])
    making = fmean(one.seconds for one in steps[first:])
    return {
        "mode": mode,
        "steps": len(timed(ours)),
        "threads": 1,
        "difference": found,
        **both.line("plain PyTorch loop over batches in memory"),
        "overhead": round(both.ours / both.theirs - 1, 4),
        "wait_seconds": _digits(wait),
        "wait_share": round(wait / fmean(timed(ours)), 4),
        "making_seconds": _digits(making),
        "making_share": round(making / both.ours, 4),
        "first_epoch_seconds": _digits(
            median(seconds for run in ours for seconds in run.seconds[:first])
        ),
    }


def _digits(number: float) -> float:
    return float(f"{number:.4g}")
