"""Clips that show what weights have learned so far: one task for each step, wherever there is room.

A task knows nothing of the run but where its files lie, and needs no training process.
"""

import gc
import json
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import torch
from safetensors.torch import save_file

from rayreel.checkpoints.tiny import locate_model
from rayreel.config.conditions import AdapterSpec
from rayreel.config.jobs import MemorySpec, ModelChoice, ModelSpec
from rayreel.config.request import RenderRequest
from rayreel.data.sources import local_copy
from rayreel.data.storage import Storage
from rayreel.data.store import RecordStore
from rayreel.errors import StorageError
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.devices import Device, release_memory
from rayreel.pipelines.ledger import ModelLedger
from rayreel.pipelines.output import suffix_of, write_output
from rayreel.pipelines.phases import features, texts_of
from rayreel.pipelines.texts import TextStore

T = TypeVar("T")

FOLDER = "validation"

# The largest networks that are needed once: for texts that no step before has encoded.
_MEMORY = MemorySpec(text_encoder="per_call", enhancer="per_call")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """What became of one row at one step.

    Attributes:
        name: Of the row.
        prompt: As the row has it.
        seed: Of its noise, the same at each step.
        file: Name of the clip in the run directory; ``None`` if it failed.
        error: Why it failed; ``None`` if it did not.
        seconds: That it took.
    """

    name: str
    prompt: str
    seed: int
    file: str | None
    error: str | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ValidationTask:
    """Renders the rows of one step; can be pickled.

    Encoded texts are kept in the run directory, so that later steps need no language model.

    Attributes:
        model: That is trained; its paths are absolute.
        mode: Whether the weights are an adapter of the model, or take the place of its transformer.
        weights: Path or URI of what was saved at this step; ``None``: the model as it is.
        requests: Names and resolved requests.
        output: The run directory.
        step: Optimiser steps that were done.
        device: Where to compute.
        reference_scales: Of references to targets in space and time, where the adapter that is
            trained follows references: weights that are not there yet cannot say so.
        memory: How long networks are held.
    """

    model: ModelChoice
    mode: Literal["lora", "full"]
    weights: str | None
    requests: tuple[tuple[str, RenderRequest], ...]
    output: str
    step: int
    device: Device
    reference_scales: tuple[int, int] | None = None
    memory: MemorySpec = _MEMORY

    def __call__(self) -> tuple[ValidationResult, ...]:
        """Write a clip of each row, and at last the list of all results.

        A row that fails is a result; the others go on.

        Raises:
            CheckpointError: If the weights cannot be used.
            MediaError: If they cannot be read.
            StorageError: If the run directory does not answer.
        """
        storage = Storage(self.output)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="rayreel-validation-")))
            weights = self.weights and str(stack.enter_context(local_copy(self.weights)))
            results = self._results(storage, self._trained(weights, folder))
        # The process may go on training, and wants its memory back; ledgers are in cycles.
        gc.collect()
        release_memory(torch.device(self.device.name))
        write_results(storage, self.step, results)
        return results

    def _results(self, storage: Storage, model: ModelSpec) -> tuple[ValidationResult, ...]:
        ledger = ModelLedger(model, self.device, self.memory)
        texts = TextStore(RecordStore(storage), ledger.files)
        with_relief(ledger, lambda: _encode_texts(ledger, texts, self.requests))
        return tuple(
            self._result(storage, ledger, texts, name, request) for name, request in self.requests
        )

    def _trained(self, weights: str | None, folder: Path) -> ModelSpec:
        """The model with what it has learned."""
        spec = locate_model(self.model)
        if self.mode == "full":
            if weights is None:
                return spec
            # What was saved has the model's own adapters in it.
            replaced = "transformer" if spec.transformer else "checkpoint"
            return spec.model_copy(update={replaced: weights, "loras": ()})
        if weights:
            adapter = AdapterSpec(path=weights)
        elif self.reference_scales:
            adapter = outline_adapter(folder / "outline.safetensors", self.reference_scales)
        else:
            return spec
        return spec.model_copy(update={"loras": (*spec.loras, adapter)})

    def _result(
        self,
        storage: Storage,
        ledger: ModelLedger,
        texts: TextStore,
        name: str,
        request: RenderRequest,
    ) -> ValidationResult:
        start, file, fault = time.monotonic(), clip_name(self.step, name, request), None
        try:
            with_relief(ledger, lambda: _write(storage, file, request, ledger, texts))
        except StorageError:
            raise
        except Exception as error:
            log.warning("step %d: validation row %s failed", self.step, name, exc_info=True)
            traceback.clear_frames(error.__traceback__)
            fault = f"{type(error).__name__}: {error}"
        assert request.seed is not None, "resolved requests have a seed"
        return ValidationResult(
            name=name,
            prompt=request.prompt,
            seed=request.seed,
            file=None if fault else file,
            error=fault,
            seconds=round(time.monotonic() - start, 3),
        )


def results_name(step: int) -> str:
    """Name of the list of a step's results in the run directory."""
    return f"{FOLDER}/step-{step:08d}.json"


def write_results(storage: Storage, step: int, results: Sequence[ValidationResult]) -> None:
    """Write the list of a step's results, after their clips."""
    values = [asdict(one) for one in results]
    storage.write_bytes(results_name(step), json.dumps(values, indent=2).encode())


def read_results(storage: Storage, step: int) -> list[ValidationResult]:
    """What ``write_results`` wrote; raises ``FileNotFoundError`` if there is none of this step."""
    values = json.loads(storage.read_bytes(results_name(step)))
    return [ValidationResult(**value) for value in values]


def clip_name(step: int, name: str, request: RenderRequest) -> str:
    """Name of a row's clip, sound or picture in the run directory."""
    return f"{FOLDER}/step-{step:08d}/{name}.{suffix_of(request)}"


def outline_adapter(path: Path, reference_scales: tuple[int, int]) -> AdapterSpec:
    """An adapter without weights that says of references what the trained one will say.

    Args:
        path: Of its file, which is written.
        reference_scales: Target pixels per reference pixel, and target frames per reference frame.
    """
    space, time_scale = map(str, reference_scales)
    metadata = {
        "reference_downscale_factor": space,
        "reference_temporal_scale_factor": time_scale,
    }
    save_file({}, path, metadata)
    return AdapterSpec(path=str(path), strength=0.0)


def _encode_texts(
    ledger: ModelLedger, texts: TextStore, requests: tuple[tuple[str, RenderRequest], ...]
) -> None:
    """Encode what is new, with one load of the language model."""
    denoised = [request for _, request in requests if pipeline_of(request).traits.stages]
    wanted = texts_of(request for request in denoised if not request.enhance)
    known = texts.known(wanted)
    if new := [text for text in wanted if text not in known]:
        with ledger.text_encoder():
            for text in new:
                features(ledger, [text], texts)


def _write(
    storage: Storage, file: str, request: RenderRequest, ledger: ModelLedger, texts: TextStore
) -> None:
    clip = pipeline_of(request)(ledger).stream(request, texts)
    with storage.local_staging(file) as staged:
        write_output(staged, request, clip)


def with_relief(ledger: ModelLedger, work: Callable[[], T]) -> T:
    """Work that is tried again with less of the device's memory, as long as there is a way."""
    while True:
        try:
            return work()
        except (MemoryError, torch.OutOfMemoryError) as error:
            traceback.clear_frames(error.__traceback__)
            said = str(error).partition("\n")[0]
            exhausted = error
        # Behind the block, which keeps the tensors of the failed try alive.
        if (step := ledger.relieve("tiles", "offload")) is None:
            raise exhausted
        log.warning("out of memory (%s); from now on: %s", said, step)
