"""An encode job in use: its list and model checked, its ledger read, and nobody else at it."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.buckets import bucket_faults
from rayreel.config.encode import EncodeSpec
from rayreel.data.buckets import scaled_buckets
from rayreel.data.lease import Lease
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.errors import SpecError
from rayreel.media.measures import MEASURES
from rayreel.requests.models import checked_model
from rayreel.runs.encoding.rows import ClipList
from rayreel.runs.opened import open_directory


@dataclass(frozen=True)
class EncodeRun:
    """What is open while a dataset is encoded.

    Attributes:
        spec: The job; its paths are absolute.
        files: Its model.
        rows: Its list.
        storage: Of the dataset.
        ledger: What is finished.
        lease: That nobody else drives it.
    """

    spec: EncodeSpec
    files: ModelFiles
    rows: ClipList
    storage: Storage
    ledger: Ledger
    lease: Lease

    @property
    def store(self) -> Storage:
        """Where scans, captions, texts and latents lie, which jobs may share."""
        return Storage(store_of(self.spec))


def store_of(spec: EncodeSpec) -> str:
    """Folder or URI of a job's records."""
    return spec.store or spec.output


@contextmanager
def open_encode(spec: EncodeSpec) -> Iterator[EncodeRun]:
    """Check a spec, and hold its output until the block ends.

    Args:
        spec: The job; its paths are absolute.

    Raises:
        SpecError: If the spec or the list is wrong, or the output cannot be written.
        CheckpointError: If weight files are.
        RayreelError: If another driver is at work.
    """
    files, rows = check(spec)
    storage = open_directory(spec.output)
    with Lease(storage) as lease:
        yield EncodeRun(spec, files, rows, storage, Ledger(storage), lease)


def check(spec: EncodeSpec) -> tuple[ModelFiles, ClipList]:
    """Check a spec, its model and its list; opens no medium.

    Raises:
        SpecError: If the spec or the list is wrong.
        CheckpointError: If weight files are.
    """
    files = checked_model(spec.model)
    if found := _faults(spec, files):
        raise SpecError("\n".join(found))
    rows = ClipList(spec)
    if rows.has_video and not spec.buckets:
        raise SpecError(
            "field 'buckets': videos are brought to sizes, and none is named; expected some, such "
            "as 768x448x89;768x448x49"
        )
    return files, rows


def _faults(spec: EncodeSpec, files: ModelFiles) -> list[str]:
    factors = files.factors
    time, space = factors.time, factors.height
    found = [
        f"field 'buckets': {fault}" for fault in bucket_faults(spec.buckets, time=time, space=space)
    ]
    for name in spec.filters:
        if name not in MEASURES:
            near = difflib.get_close_matches(name, MEASURES, n=1, cutoff=0.5)
            known = f"nearest is {near[0]!r}" if near else f"known: {', '.join(MEASURES)}"
            found.append(f"field 'filters.{name}': there is no such measure; {known}")
    return [*found, *_reference_faults(spec, time=time, space=space)]


def _reference_faults(spec: EncodeSpec, *, time: int, space: int) -> list[str]:
    """What is wrong with references that are smaller than their targets."""
    divisor, stride = spec.reference.downscale, spec.reference.stride
    found = []
    if divisor > 1 and len(spec.buckets) > 1:
        found.append(
            f"field 'reference.downscale': {divisor} needs a single bucket, as target and "
            f"reference choose theirs on their own; there are {len(spec.buckets)}"
        )
    if divisor > 1:
        try:
            smaller = scaled_buckets(spec.buckets, divisor)
        except ValueError as error:
            return [*found, f"field 'reference.downscale': {error}"]
        found += [
            f"field 'reference.downscale': of references, {fault}"
            for fault in bucket_faults(smaller, time=1, space=space)
        ]
    for bucket in spec.buckets if stride > 1 else ():
        if (bucket.num_frames - 1) % stride or (bucket.num_frames - 1) // stride % time:
            found.append(
                f"field 'reference.stride': {stride} does not fit bucket {bucket}: "
                f"{bucket.num_frames - 1} must be a multiple of {stride} x {time}"
            )
    return found
