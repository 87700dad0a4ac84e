"""How many clips of a shape are denoised together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.jobs import ModelSetup, StageName
from rayreel.pipelines.devices import Device
from rayreel.runs.needs import FUSED, Precision, stage_needs
from rayreel.runs.planning.costs import CostBook
from rayreel.runs.planning.shapes import DENOISING, Shape

LARGEST = 8
"""Batches beyond it gain little: the matrices are large enough long before."""

_GIB = 2**30
# Of a device's memory: kernels and the allocator need some beside what is predicted.
_USABLE = 0.9


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
    memory: int,
    book: CostBook,
    devices: Mapping[StageName, str],
    largest: int = LARGEST,
) -> BatchChoice:
    """The fastest of the batch sizes that fit, or the largest where too few were measured.

    Args:
        shape: Of the clips.
        need: Bytes on the device for a batch size.
        memory: Bytes of the device.
        book: What was measured.
        devices: Of the stages, as ``device_label`` says them.
        largest: Size at most.
    """
    if not shape.batched:
        return BatchChoice(size=1, reason="such clips are made one by one")
    usable = int(memory * _USABLE)
    allowed = [size for size in candidates(largest) if need(size) <= usable]
    if not allowed:
        said = f"even one takes {_gib(need(1))}, of {_gib(usable)} that may be used"
        return BatchChoice(size=1, reason=said, fits=False)
    stages = [(stage, devices[stage]) for stage in DENOISING if stage in shape.work]
    known = book.sizes_measured(shape.name, stages)
    measured = {size: known[size] for size in allowed if size in known}
    if len(measured) > 1:
        best = min(measured, key=lambda size: measured[size])
        told = ", ".join(f"{size}: {seconds:.3g} s" for size, seconds in measured.items())
        return BatchChoice(size=best, reason=f"the fastest measured per clip ({told})")
    size = allowed[-1]
    if size == candidates(largest)[-1]:
        return BatchChoice(size=size, reason=f"the largest; takes {_gib(need(size))}")
    return BatchChoice(
        size=size,
        reason=f"the largest that fits: {size} take {_gib(need(size))}, {2 * size} would take "
        f"{_gib(need(2 * size))} of {_gib(usable)}",
    )


def device_bytes(
    setup: ModelSetup,
    files: ModelFiles,
    shape: Shape,
    devices: Mapping[StageName, Device],
    *,
    batch: int,
    placement: Literal["fused", "split"],
) -> dict[str, int]:
    """Bytes on the device of each actor that renders clips of a shape.

    Args:
        setup: Memory policy of the networks.
        files: The model; only headers are read.
        shape: Of the clips.
        devices: Of the stages.
        batch: Clips that are denoised together.
        placement: Whether stages share an actor.

    Returns:
        By stage, or for ``FUSED`` alone. On the CPU, what is kept in the host's memory counts too.
    """
    workers = setup.workers.model_copy(update={"batch_size": batch})
    update = {"placement": placement, "workers": workers, "stages": {}}
    sized = setup.model_copy(update=update)
    names: dict[str, StageName] = {name: name for name in shape.work}
    if placement == "fused":
        # What shares an actor shares a device as a rule; the first one's is what matters then.
        names = {FUSED: next(iter(shape.work))}
    return {
        name: _bytes_of(sized, files, shape, devices[stage], name) for name, stage in names.items()
    }


def _bytes_of(
    setup: ModelSetup, files: ModelFiles, shape: Shape, device: Device, name: str
) -> int:
    precision = Precision(device.name, device.torch_dtype, files.spec.quantization)
    need = stage_needs(setup, files, shape.request, precision)[name]
    return need.device + (need.host if device.name == "cpu" else 0)


def shared_bytes(needs: Mapping[str, int]) -> Iterator[int]:
    """Bytes of the actors that denoise."""
    return (num_bytes for name, num_bytes in needs.items() if name in {FUSED, *DENOISING})


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.3g} GiB"
