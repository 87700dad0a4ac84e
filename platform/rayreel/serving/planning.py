"""What a client asks for, checked and made whole, and what it will cost."""

import difflib
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayreel.checkpoints.files import ModelFiles
from rayreel.checkpoints.library import adapter_names
from rayreel.config.jobs import StageName
from rayreel.config.request import RenderRequest
from rayreel.config.serving import ServeSpec
from rayreel.data.hashing import canonical_json, content_hash
from rayreel.errors import RayreelError
from rayreel.pipelines import pipeline_of
from rayreel.pipelines.phases import batch_key
from rayreel.requests.costs import CostBook, Item
from rayreel.requests.row_files import RowFiles
from rayreel.requests.shapes import shape_of
from rayreel.requests.templates import FaultyRow, Templates

_MOST_SHAPES = 1000
# A step more has no counterpart in `steps`.
_MOST_LEVELS = 1001
_SEEDS = 2**32
_UNKNOWN_S = 10.0
"""What a stage is taken to need as long as nothing like it was measured."""

_FAULT = re.compile(r"field '([^']+)': (.*)", re.DOTALL)
_FILES = frozenset({"images", "references", "soundtrack", "retake", "extend", "loras"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a request.

    Attributes:
        field: Where; empty where it is no single field.
        message: What was expected, what came, and the nearest legal value.
    """

    field: str
    message: str


class RequestRefused(RayreelError):  # noqa: N818 - it is the request that is at fault
    """A request that cannot be done.

    Attributes:
        faults: What is wrong with it; at least one.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A request that can be done.

    Attributes:
        request: With every field set.
        shape: Name of its shape, which costs are known by.
        batch_key: What requests must agree in to be denoised in one batch.
        adapters: Names its set of adapters; empty without any.
        stage_s: Seconds that each of its stages takes, as far as that is known.
        notes: What is otherwise than the client may expect.
    """

    request: RenderRequest
    shape: str
    batch_key: str
    adapters: str
    stage_s: Mapping[StageName, float]
    notes: tuple[str, ...]

    @property
    def cost_s(self) -> float:
        """Seconds that all its stages take together."""
        return sum(self.stage_s.values())


class Planner:
    """Plans requests for one model; for any number of threads."""

    def __init__(
        self,
        spec: ServeSpec,
        files: ModelFiles,
        costs: Callable[[], CostBook],
        devices: Mapping[StageName, str],
    ) -> None:
        """Plan nothing yet.

        Args:
            spec: Of the service; its output is absolute.
            files: Its model.
            costs: What is known of them now.
            devices: Of its stages, as ``device_label`` says them.
        """
        self._spec, self._files, self._costs, self._devices = spec, files, costs, devices
        self._lock = threading.Lock()
        self._templates = self._new_templates()

    def plan(self, body: Mapping[str, Any]) -> Planned:
        """Check a request and fill in what it leaves open.

        Args:
            body: Fields of a ``RenderRequest``; its files have absolute paths, its adapters names,
                and a clip that it goes on from is a finished job.

        Raises:
            RequestRefused: If it is wrong.
        """
        if found := [*_unknown_adapters(body), *self._too_long(body)]:
            raise RequestRefused(found)
        try:
            with self._lock:
                template, own = self._templates_for(body).match(dict(body))
        except FaultyRow as faulty:
            raise RequestRefused([_fault(line) for line in faulty.lines]) from faulty
        # What follows takes as long as the clip is.
        if beyond := list(self._too_large(template.request)):
            raise RequestRefused(beyond)
        seed = secrets.randbelow(_SEEDS) if own.seed is None else own.seed
        request = template.asked(own, seed)
        shape = shape_of(request, self._files)
        return Planned(
            request=request,
            shape=shape.name,
            batch_key=content_hash(repr(batch_key(request))),
            adapters=_adapters(request),
            stage_s=self._stage_s(request),
            notes=(*template.notes, *([template.ignored] if template.ignored else [])),
        )

    def _too_long(self, body: Mapping[str, Any]) -> Iterator[Fault]:
        most = self._spec.requests.max_prompt
        for field in ("prompt", "negative_prompt"):
            text = body.get(field)
            if isinstance(text, str) and len(text) > most:
                yield Fault(field, f"{len(text)} characters; at most {most} are allowed")
        for field in ("sigmas", "stage2_sigmas"):
            levels = body.get(field)
            if isinstance(levels, list | tuple) and len(levels) > _MOST_LEVELS:
                yield Fault(field, f"{len(levels)} noise levels; expected {_MOST_LEVELS} at most")

    def _too_large(self, request: RenderRequest) -> Iterator[Fault]:
        limits = self._spec.requests
        if request.num_frames > limits.max_frames:
            field = "seconds" if request.seconds is not None else "num_frames"
            said = f"{request.num_frames} frames; at most {limits.max_frames} are allowed"
            yield Fault(field, said)
        if request.video and request.width * request.height > limits.max_pixels:
            said = (
                f"{request.width}x{request.height} pixels; at most {limits.max_pixels} are allowed"
            )
            yield Fault("width", said)

    def _templates_for(self, body: Mapping[str, Any]) -> Templates:
        """Files and adapters are looked at anew for each request, as they come and go."""
        if _FILES & body.keys():
            return self._new_templates()
        if len(self._templates.examples) > _MOST_SHAPES:
            self._templates = self._new_templates()
        return self._templates

    def _new_templates(self) -> Templates:
        # No path is relative by now.
        return Templates(self._spec.defaults, self._files, RowFiles("/", self._spec.output))

    def _stage_s(self, request: RenderRequest) -> dict[StageName, float]:
        book, shape = self._costs(), shape_of(request, self._files)
        items: dict[StageName, Item] = {
            stage: Item.clip(stage, shape) for stage in shape.work if stage in self._devices
        }
        if pipeline_of(request).traits.stages and "text" in self._devices:
            items["text"] = Item.text(written=request.enhance)
        found: dict[StageName, float] = {}
        for stage, item in items.items():
            seconds = book.cost(item, self._devices[stage], batch=1).seconds
            found[stage] = _UNKNOWN_S if seconds is None else seconds
        return found


def _unknown_adapters(body: Mapping[str, Any]) -> Iterator[Fault]:
    """Adapters that the library does not have, said without where it is."""
    known = adapter_names()
    loras = body.get("loras")
    for index, lora in enumerate(loras if isinstance(loras, list | tuple) else ()):
        name = lora.get("path") if isinstance(lora, dict) else None
        if isinstance(name, str) and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            said = f"nearest is {near[0]!r}" if near else "there are none yet"
            yield Fault(f"loras.{index}.path", f"{name!r} is no adapter of this service; {said}")


def _adapters(request: RenderRequest) -> str:
    """Short name of a set of adapters; equal for equal ones."""
    if not request.loras:
        return ""
    return content_hash(canonical_json([lora.model_dump() for lora in request.loras]))[:16]


def _fault(line: str) -> Fault:
    found = _FAULT.fullmatch(line)
    return Fault(*found.groups()) if found else Fault("", line)
