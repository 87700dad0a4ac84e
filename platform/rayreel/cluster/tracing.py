"""Traces of items, for OpenTelemetry: where and when each of its stages ran.

The id of a trace comes from the run and the item, so that spans which different workers send meet
in one trace. Without a target nothing is kept or sent.
"""

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from rayreel.data.hashing import content_hash
from rayreel.data.ledger import worker_name
from rayreel.errors import SpecError
from rayreel.stages.base import ItemFailure, StageItem

# Spans that wait are lost with their process, which Ray ends without warning.
_DELAY_MS = 500

log = logging.getLogger(__name__)


def tracing_target(
    asked: str | None = None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Where a run sends its traces.

    Args:
        asked: What the spec says: the address of a collector, or a local folder.
        environment: OpenTelemetry's variables count where the spec says nothing.

    Returns:
        A URL that takes OTLP over HTTP, a folder, or ``None`` for no traces.

    Raises:
        SpecError: If the address is of a protocol that is not spoken.
    """
    exact = None if asked else environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    base = asked or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    for address in (exact, base):
        scheme, separator, _ = (address or "").partition("://")
        if separator and scheme not in {"http", "https"}:
            raise SpecError(
                f"traces to {address}: expected http:// or https://, such as "
                "http://localhost:4318, or a local folder"
            )
    if exact or base is None:
        return exact
    return f"{base.rstrip('/')}/v1/traces" if "://" in base else base


class Tracer:
    """Sends the spans of one process.

    How many traces are kept is up to OpenTelemetry's variables: ``traceidratio`` as
    ``OTEL_TRACES_SAMPLER`` with 0.01 as ``OTEL_TRACES_SAMPLER_ARG`` keeps the same hundredth of the
    items on all nodes.
    """

    def __init__(self, run: str, target: str | None) -> None:
        """Connects to nothing yet.

        Args:
            run: Short id of the run.
            target: From ``tracing_target``; ``None`` turns the tracer off.
        """
        self._run = run
        self._worker = worker_name()
        self._ids = _Ids()
        self._collector = _Collector(target) if target and "://" in target else None
        self._provider: TracerProvider | None = None
        if target:
            resource = {"service.name": "rayreel", "service.instance.id": self._worker}
            self._provider = TracerProvider(
                id_generator=self._ids, resource=Resource.create(resource)
            )
            self._provider.add_span_processor(
                BatchSpanProcessor(self._collector, schedule_delay_millis=_DELAY_MS)
                if self._collector
                else _file_processor(Path(target), self._worker)
            )

    def batch(
        self,
        stage: str,
        started_ns: int,
        items: Sequence[StageItem | ItemFailure],
        results: Sequence[StageItem | ItemFailure],
    ) -> None:
        """A batch has just come out of a stage: a span for each item that went in.

        Args:
            stage: Name of the stage.
            started_ns: When it began, by ``time.time_ns``.
            items: What went in; what had failed before has no span.
            results: What came out, in the same order.
        """
        if self._provider is None:
            return
        worked = [
            (item, result)
            for item, result in zip(items, results, strict=True)
            if not isinstance(item, ItemFailure)
        ]
        for item, result in worked:
            about: dict[str, AttributeValue]
            about = {"stage": stage, "batch_size": len(worked), "attempt": item.attempt}
            self._span(stage, started_ns, result, about)

    def item(self, started_ns: int, result: StageItem | ItemFailure) -> None:
        """An item has left the run: the span around those of its stages, sent by the driver.

        Args:
            started_ns: When it was handed to the workers, by ``time.time_ns``.
            result: What became of it.
        """
        if self._provider is not None:
            self._span("item", started_ns, result, {"attempt": result.attempt}, around=True)

    def close(self) -> None:
        """Send what is left; a process that ends without loses what is half a second old."""
        if self._collector:
            self._collector.closing = True
        if self._provider:
            self._provider.shutdown()

    def _span(
        self,
        name: str,
        started_ns: int,
        result: StageItem | ItemFailure,
        about: Mapping[str, AttributeValue],
        *,
        around: bool = False,
    ) -> None:
        assert self._provider is not None
        root = _root(self._run, result.item_id)
        self._ids.wanted = root if around else None
        known = {"run": self._run, "item": result.item_id, "worker": self._worker, **about}
        span = self._provider.get_tracer("rayreel").start_span(
            name,
            # Nothing, or the span around: never what else may be going on in this process.
            context=Context() if around else set_span_in_context(NonRecordingSpan(root), Context()),
            start_time=started_ns,
            attributes={f"rayreel.{key}": value for key, value in known.items()},
        )
        if isinstance(result, ItemFailure):
            span.set_attribute("error.type", result.error)
            span.set_status(StatusCode.ERROR, result.message)
        span.end(time.time_ns())


class _Ids(IdGenerator):
    """Random ids, but for a span whose own are known; not from ``random``, which may be seeded."""

    def __init__(self) -> None:
        self.wanted: SpanContext | None = None

    def generate_trace_id(self) -> int:
        return self.wanted.trace_id if self.wanted else _id(secrets.token_hex(16))

    def generate_span_id(self) -> int:
        return self.wanted.span_id if self.wanted else _id(secrets.token_hex(8))


def _root(run: str, item_id: str) -> SpanContext:
    """Ids of the span around an item, which every process finds by itself."""
    digits = content_hash("trace", run, item_id)
    return SpanContext(
        trace_id=_id(digits),
        span_id=_id(digits[:16]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _id(digits: str) -> int:
    # All zeros mean no id.
    return int(digits, 16) or 1


class _Collector(SpanExporter):
    """Sends spans to a collector, and says once if it does not answer."""

    def __init__(self, target: str) -> None:
        # It warns of every try.
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        self._target = target
        self._inner = OTLPSpanExporter(target)
        self._warned = False
        self._failing = False
        self.closing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.closing and self._failing:
            # It would be waited for again, for every few hundred spans.
            return SpanExportResult.FAILURE
        result = self._inner.export(spans)
        self._failing = result is not SpanExportResult.SUCCESS
        if self._failing and not self._warned:
            self._warned = True
            log.warning("traces do not reach %s; the run goes on without them", self._target)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


def _file_processor(folder: Path, worker: str) -> SpanProcessor:
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"spans-{worker.replace(':', '-')}.jsonl").open("a", encoding="utf-8")
    return SimpleSpanProcessor(_FileExporter(out=file, formatter=_line))


class _FileExporter(ConsoleSpanExporter):
    def shutdown(self) -> None:
        """Close what was opened for it."""
        self.out.close()


def _line(span: ReadableSpan) -> str:
    text: str = span.to_json(indent=None)
    return f"{text}\n"
