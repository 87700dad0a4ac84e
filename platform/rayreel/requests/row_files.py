"""The files that the rows of a list name: where they lie, and what tells their content apart."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.library import named_adapter
from rayreel.checkpoints.networks import Shapes, transformer
from rayreel.config.conditions import AdapterSpec, Extension
from rayreel.config.request import RenderRequest
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.errors import CheckpointError, MediaError, RayreelError, SpecError
from rayreel.media.files import open_file
from rayreel.pipelines.chunks import ClipEnd
from rayreel.stages.chunks import latents_at

_PATHS = {"path", "mask", "latents", "run"}


class RowFiles:
    """Files of a list, each looked at once.

    Attributes:
        base: Folder or URI where relative paths start.
        output: Run directory of the job.
    """

    def __init__(self, base: str, output: str) -> None:
        self.base = base
        self.output = output
        self._hashes: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._adapters: set[str] = set()
        self._shapes: Shapes | None = None
        self._runs: dict[str, Ledger] = {}

    def located(self, request: RenderRequest) -> RenderRequest:
        """The request with relative paths taken from the list's folder.

        Raises:
            RayreelError: If it goes on from a clip that its run does not have, or names an adapter
                that the library does not have.
        """

        def absolute(path: str) -> str:
            return path if "://" in path or path.startswith("/") else f"{self.base}/{path}"

        values = request.model_dump(exclude_unset=True)
        for index, lora in enumerate(values.get("loras", ())):
            try:
                lora["path"] = named_adapter(lora["path"])
            except SpecError as error:
                raise RayreelError(f"field 'loras.{index}.path': {error}") from error
        values = _mapped(values, absolute)
        request = RenderRequest.model_validate(values)
        if request.extend is None or request.extend.clip is None:
            return request
        extend = self._clip(request.extend, request.chain.overlap)
        return request.model_copy(update={"extend": extend})

    def faults(self, request: RenderRequest, files: ModelFiles) -> list[str]:
        """Files that cannot be read, and adapters that are none."""
        found = []
        for index, lora in enumerate(request.loras):
            if lora.path not in self._errors and lora.path not in self._adapters:
                self._open_adapter(lora, files)
            if lora.path in self._errors:
                found.append(f"field 'loras.{index}.path': {self._errors[lora.path]}")
        for field, path in _paths(request.model_dump(exclude={"loras"}), ()):
            if path not in self._hashes and path not in self._errors:
                self._read(path)
            if path in self._errors:
                found.append(f"field '{field}': {self._errors[path]}")
        return found

    def identity(self, request: RenderRequest, files: ModelFiles) -> dict[str, Any]:
        """The request as JSON, with what its files hold in place of where they lie."""
        values = request.model_dump(mode="json", exclude={"loras"})
        content: dict[str, Any] = _mapped(values, self._hashes.__getitem__)
        content["loras"] = [files.identity(lora) for lora in request.loras]
        return content

    def _open_adapter(self, lora: AdapterSpec, files: ModelFiles) -> None:
        if "://" in lora.path:
            self._errors[lora.path] = f"{lora.path} is no local file, which adapters are read from"
            return
        try:
            adapter = files.adapter(lora)
            adapter.targets(self._weights(files))
            _ = adapter.reference_scales
        except CheckpointError as error:
            self._errors[lora.path] = str(error)
        else:
            self._adapters.add(lora.path)

    def _weights(self, files: ModelFiles) -> Shapes:
        if self._shapes is None:
            self._shapes = transformer(files).shapes
        return self._shapes

    def _read(self, path: str) -> None:
        try:
            digest = hashlib.blake2b()
            with open_file(path) as file:
                while part := file.read(2**20):
                    digest.update(part)
        except (MediaError, OSError) as error:
            self._errors[path] = str(error)
        else:
            self._hashes[path] = digest.hexdigest()[:32]

    def _clip(self, extend: Extension, overlap: int) -> Extension:
        """The files of a finished clip."""
        run = extend.run or self.output
        try:
            storage = Storage(run)
            entry = self._runs.setdefault(run, Ledger(storage)).find(str(extend.clip))
        except RayreelError:
            raise
        # Each file system has errors of its own.
        except Exception as error:
            raise RayreelError(
                f"field 'extend.run': cannot read {run} ({type(error).__name__}: {error})"
            ) from error
        if entry is None or entry.output is None:
            raise RayreelError(
                f"field 'extend.clip': {run} has no finished clip {extend.clip}; expected an "
                "item_id of its results.parquet"
            )
        backward = extend.direction == "backward"
        end: ClipEnd = "start" if backward else "end"
        values = {
            "path": storage.join(entry.output),
            "latents": latents_at(storage, entry.item_id, end, least=overlap + backward),
            "clip": None,
            "run": None,
        }
        return extend.model_copy(update=values)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - plain JSON
    """The same value with its paths changed."""
    if isinstance(value, dict):
        return {
            key: change(inner)
            if key in _PATHS and isinstance(inner, str)
            else _mapped(inner, change)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_mapped(inner, change) for inner in value]
    return value


def _paths(value: Any, where: tuple[str, ...]) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Paths in a request, with the field that each stands in."""
    inner: dict[Any, Any] = value if isinstance(value, dict) else {}
    if isinstance(value, list | tuple):
        inner = dict(enumerate(value))
    for key, item in inner.items():
        field = (*where, str(key))
        if key in _PATHS and isinstance(item, str):
            yield ".".join(field), item
        else:
            yield from _paths(item, field)
