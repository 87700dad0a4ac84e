"""Checkpoints that a run goes on from, written while it trains."""

import logging
import re
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import fsspec
import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from rayreel.data.patience import Patience
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, RayreelError, StorageError
from rayreel.training.checkpoint_files import CheckpointReader, CheckpointWriter
from rayreel.training.group import TIMEOUT, Group
from rayreel.training.state import PROCESS, Progress, TrainState

log = logging.getLogger(__name__)

FOLDER = "checkpoints"

_STEP = re.compile(r"step-(\d{8,})")
_NAMED = 5


class Checkpoints:
    """Checkpoints of one run; all of its processes call every method alike.

    Each is a folder: PyTorch's distributed checkpoint, which any number of processes can load, and
    ``checkpoint.json``, which is written last. A folder without that was never finished.
    """

    def __init__(self, storage: Storage, group: Group, keep_last: int) -> None:
        """Look at nothing yet.

        Args:
            storage: The run directory.
            group: Processes that train.
            keep_last: Checkpoints to keep; 0 keeps all.
        """
        self._storage = storage
        self._group = group
        self._keep_last = keep_last
        # Of their own, as a thread exchanges what is written while the main one trains.
        self._processes = (
            dist.new_group(backend="gloo", timeout=TIMEOUT) if group.world > 1 else None
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._saving: tuple[int, Future[None]] | None = None
        self._newest: int | None = None

    def latest(self) -> int | None:
        """Step of the newest checkpoint, or ``None``; those that were never finished are removed.

        Raises:
            StorageError: If the storage does not answer.
        """
        self.finish()
        newest = None
        if self._group.rank == 0:
            whole = self._steps()
            for step in [step for step, is_whole in whole.items() if not is_whole]:
                log.info("removing the checkpoint of step %d, which was never finished", step)
                self._remove(step)
            newest = max((step for step, is_whole in whole.items() if is_whole), default=None)
        self._newest = self._group.share(newest)
        return self._newest

    def load(self, state: TrainState) -> None:
        """Go on from the newest checkpoint, whatever number of processes has written it.

        Args:
            state: Of a run that has not begun, made from the same spec.

        Raises:
            CheckpointError: If there is none, or it is that of another model or optimiser.
            StorageError: If the storage does not answer.
        """
        step = self.latest()
        if step is None:
            raise CheckpointError(f"no checkpoint in {self._storage.join(FOLDER)} to go on from")
        progress = self._progress(step)
        reader = CheckpointReader(self._storage, _folder(step))
        stored = {
            name: entry
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        tensors = state.tensors()
        _check_names(self._storage.join(_folder(step)), tensors, stored)
        if progress.world == self._group.world:
            for name, entry in stored.items():
                if name.startswith(state.own_prefix):
                    tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        _expect_one_process()
        load(
            tensors,
            storage_reader=reader,
            process_group=self._processes,
            no_dist=self._group.world == 1,
        )
        state.restore(tensors, progress)
        log.info("going on from the checkpoint of step %d", step)

    def save(self, state: TrainState) -> None:
        """Copy a state, and write the copy while training goes on.

        One that is still being written is waited for. A step that has its checkpoint gets no
        second one.

        Raises:
            StorageError: If the one before could not be written.
        """
        self.finish()
        step = state.step
        if step == self._newest:
            return
        writer = CheckpointWriter(self._storage, _folder(step))
        copy = writer.stage(state.tensors() | state.own_tensors())
        _expect_one_process()
        self._saving = step, self._thread.submit(self._write, writer, copy, state.progress)

    def poll(self) -> int | None:
        """Step of a checkpoint that was finished since the last call, if any; never waits.

        Raises:
            StorageError: If it could not be written.
        """
        return self.finish() if self._saving and self._saving[1].done() else None

    def finish(self) -> int | None:
        """Wait for the checkpoint that is being written, if any.

        Returns:
            Its step.

        Raises:
            StorageError: If it could not be written.
        """
        if self._saving is None:
            return None
        step, written = self._saving
        self._saving = None
        written.result()
        self._newest = step
        return step

    def _write(
        self, writer: CheckpointWriter, tensors: dict[str, Tensor], progress: Progress
    ) -> None:
        step = progress.step
        try:
            save(
                tensors,
                storage_writer=writer,
                process_group=self._processes,
                no_dist=self._group.world == 1,
            )
        # It is no ``Exception``, and what went wrong is in it by rank.
        except CheckpointException as error:
            cause = next(iter(error.failures.values()))[0]
            if isinstance(cause, RayreelError):
                raise cause from error
            raise StorageError(
                f"the checkpoint of step {step} cannot be written: {cause}"
            ) from error
        if self._group.rank:
            return
        # All processes have written their parts by now.
        self._storage.write_bytes(_facts(step), progress.model_dump_json().encode())
        self._retire()

    def _retire(self) -> None:
        """Remove checkpoints beyond those to keep, oldest first."""
        if not self._keep_last:
            return
        whole = sorted(step for step, is_whole in self._steps().items() if is_whole)
        for step in whole[: -self._keep_last]:
            self._remove(step)

    def _steps(self) -> dict[int, bool]:
        """Steps that have a folder, and whether they were finished."""
        found = (_STEP.fullmatch(name) for name in _folders(self._storage))
        steps = [int(match[1]) for match in found if match]
        return {step: self._storage.exists(_facts(step)) for step in steps}

    def _remove(self, step: int) -> None:
        # First of all it must not count any more.
        self._storage.remove([_facts(step)])
        if path := self._storage.local_path(_folder(step)):
            shutil.rmtree(path)
        else:
            self._storage.remove(self._storage.names(_folder(step)))

    def _progress(self, step: int) -> Progress:
        try:
            return Progress.model_validate_json(self._storage.read_bytes(_facts(step)))
        except ValidationError as error:
            raise CheckpointError(
                f"{self._storage.join(_facts(step))} is not what a run has written: {error}"
            ) from error


def _folder(step: int) -> str:
    return f"{FOLDER}/step-{step:08d}"


def _facts(step: int) -> str:
    return f"{_folder(step)}/checkpoint.json"


def _folders(storage: Storage) -> list[str]:
    """Names of the folders of checkpoints, finished or not."""
    files, root = fsspec.url_to_fs(storage.join(FOLDER), use_listings_cache=False)

    def listed() -> list[str]:
        try:
            return [info["name"] for info in files.ls(root, detail=True)]
        except FileNotFoundError:
            return []

    found = Patience(storage.uri, storage.patience_s)("listing checkpoints", listed)
    return [name.rstrip("/").rpartition("/")[2] for name in found]


def _check_names(
    folder: str, wanted: Mapping[str, Tensor], stored: Mapping[str, TensorStorageMetadata]
) -> None:
    """Refuse a checkpoint of another model or optimiser."""
    there = {name: entry.size for name, entry in stored.items() if not name.startswith(PROCESS)}
    faults = [f"{name} is missing" for name in wanted if name not in there]
    faults += [f"{name} is not expected" for name in there if name not in wanted]
    faults += [
        f"{name} is {tuple(there[name])}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in there and there[name] != tensor.shape
    ]
    if faults:
        more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise CheckpointError(
            f"{folder} is of a run with other weights or another optimiser: "
            f"{'; '.join(faults[:_NAMED])}{more}. Go on with the spec that it was written with, or "
            "start anew in another output"
        )


def _expect_one_process() -> None:
    """Not to be told that one process is one process; a thread must not change this by itself."""
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable", UserWarning)
