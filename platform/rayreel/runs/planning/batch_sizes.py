"""How many clips of a shape are denoised together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import ModelSetup, StageName
from rayreel.pipelines.devices import Device
from rayreel.requests.costs import CostBook
from rayreel.requests.shapes import DENOISING, Shape
from rayreel.runs.needs import FUSED, Precision, stage_needs

LARGEST = 8
"""Batches beyond it gain little: the matrices are large enough long before."""

_GIB = 2**30
USABLE = 0.9
"""Of a device's memory: kernels and the allocator need some beside what is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChoice:
    """A batch size.

    Attributes:
        size: Clips in one call.
        reason: Why, for people.
        fits: Whether it is predicted to fit into the device.
    """

    size: int
    reason: str
    fits: bool = True


def candidates(largest: int = LARGEST) -> list[int]:
    """Powers of two up to a limit."""
    return [2**power for power in range(largest.bit_length()) if 2**power <= largest]


def choose_batch(
    shape: Shape,
    *,
    need: Callable[[int], int],
    memory: float,
    book: CostBook,
    devices: Mapping[StageName, str],
    largest: int = LARGEST,
) -> BatchChoice:
    """The fastest of the batch sizes that fit, or the largest where too few were measured.

    Args:
        shape: Of the clips.
        need: Bytes on the device for a batch size.
        memory: Bytes of the device; infinite where they are not known.
        book: What was measured.
        devices: Of the stages, as ``device_label`` says them.
        largest: Size at most.
    """
    if not shape.batched:
        return BatchChoice(size=1, reason="such clips are made one by one")
    usable, sizes = memory * USABLE, candidates(largest)
    # A larger batch needs more, and what it needs is slow to tell: the largest is asked first.
    size = next((one for one in reversed(sizes) if need(one) <= usable), None)
    if size is None:
        said = f"even one takes {gib(need(1))}, of {gib(usable)} that may be used"
        return BatchChoice(size=1, reason=said, fits=False)
    stages = [(stage, devices[stage]) for stage in DENOISING if stage in shape.work]
    known = book.sizes_measured(shape.name, stages)
    measured = {one: known[one] for one in sizes if one <= size and one in known}
    if len(measured) > 1:
        best = min(measured, key=lambda one: measured[one])
        told = ", ".join(f"{one}: {seconds:.3g} s" for one, seconds in measured.items())
        return BatchChoice(size=best, reason=f"the fastest measured per clip ({told})")
    if size == sizes[-1]:
        return BatchChoice(size=size, reason=f"the largest; takes {gib(need(size))}")
    return BatchChoice(
        size=size,
        reason=f"the largest that fits: {size} take {gib(need(size))}, {2 * size} would take "
        f"{gib(need(2 * size))} of {gib(usable)}",
    )


def device_bytes(
    setup: ModelSetup,
    files: ModelFiles,
    shape: Shape,
    devices: Mapping[StageName, Device],
    batch: int,
) -> dict[str, int]:
    """Bytes on the device of each actor that renders clips of a shape.

    Args:
        setup: Memory policy of the networks.
        files: The model; only headers are read.
        shape: Of the clips.
        devices: Of the stages.
        batch: Clips that are denoised together.

    Returns:
        By stage for actors of their own, texts included, and for ``FUSED`` for one that holds all
        the others. On the CPU, what is kept in the host's memory counts too.
    """
    workers = setup.workers.model_copy(update={"batch_size": batch})
    update: dict[str, Any] = {"placement": "fused", "workers": workers, "stages": {}}
    sized = setup.model_copy(update=update)
    # Stages that share an actor share a device as a rule; the first one's counts.
    placed: dict[str, Device] = {stage: devices[stage] for stage in shape.work}
    placed[FUSED] = next(iter(placed.values()))
    if "stage1" in shape.work:
        placed["text"] = devices["text"]
    needs = {
        device: stage_needs(
            sized,
            files,
            shape.request,
            Precision(device.name, device.torch_dtype, files.spec.quantization),
        )
        for device in set(placed.values())
    }
    return {
        name: needs[device][name].device + (needs[device][name].host if device.name == "cpu" else 0)
        for name, device in placed.items()
    }


def gib(num_bytes: float) -> str:
    """A size for people."""
    return f"{num_bytes / _GIB:.3g} GiB"
