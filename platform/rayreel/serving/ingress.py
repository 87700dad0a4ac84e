"""The deployment that answers HTTP requests."""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from rayreel.cluster.telemetry import Telemetry
from rayreel.config.jobs import StageName
from rayreel.config.serving import ServeSpec
from rayreel.data.storage import Storage
from rayreel.logs import setup_logging
from rayreel.requests.models import opened_model
from rayreel.serving import board
from rayreel.serving.api import create_api
from rayreel.serving.costs import Costs
from rayreel.serving.gate import Auth, FileGate, signing_secret
from rayreel.serving.loopback import is_loopback
from rayreel.serving.planning import Planner
from rayreel.serving.service import Service
from rayreel.serving.store import JobStore
from rayreel.serving.telemetry import ServiceTelemetry

# The dispatcher finds out by itself, a little later.
_CALL_S = 2.0

log = logging.getLogger(__name__)


@serve.ingress()
class Ingress:
    """The API, beside the dispatcher that it wakes."""

    def __init__(
        self,
        spec: ServeSpec,
        dispatcher: "DeploymentHandle[Any]",
        devices: Mapping[StageName, str],
        telemetry: Telemetry,
    ) -> None:
        """Open the queue.

        Args:
            spec: Of the service; its paths are absolute.
            dispatcher: Of its jobs.
            devices: Of its stages, as ``device_label`` says them.
            telemetry: Of the service.
        """
        setup_logging(telemetry.logs.level, json=telemetry.logs.json)
        self._dispatcher = dispatcher
        self._calls: set[asyncio.Task[None]] = set()
        storage, files = Storage(spec.output), opened_model(spec.model)
        store = JobStore(spec.database_url, retention_s=spec.retention_s)
        store.migrate()
        costs = Costs(Storage(spec.store or spec.output), files, devices)
        required = keys_required(spec.auth)
        told = ServiceTelemetry(telemetry)
        self._service = Service(
            spec=spec,
            store=store,
            planner=Planner(spec, files, costs.book, devices),
            storage=storage,
            files=FileGate(storage, spec.uploads),
            auth=Auth(store, required, secret=signing_secret(storage), any_host=spec.auth == "off"),
            load=board.Reader(spec.name).read,
            wake=self._wake,
            cancel=self._cancel,
            accepted=told.accepted,
            cancelled=lambda job: told.cancelled(job, time.time()),
            refused=told.metrics.refused,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve asks for the application."""
        return create_api(self._service)

    async def _wake(self) -> None:
        self._call("wake")

    async def _cancel(self, job_id: str) -> None:
        self._call("cancel", job_id)

    def _call(self, method: str, *args: str) -> None:
        """Tell the dispatcher without waiting for it: the client's answer does not depend on it."""
        task = asyncio.create_task(self._told(method, *args))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _told(self, method: str, *args: str) -> None:
        try:
            response = getattr(self._dispatcher, method).remote(*args)
            await asyncio.wait_for(response, _CALL_S)
        except Exception as error:  # noqa: BLE001 - of any kind, it looks by itself
            log.info("the dispatcher does not answer (%s)", type(error).__name__)


def keys_required(auth: str) -> bool:
    """Whether requests need an API key, for a service of the cluster that this process is in.

    Args:
        auth: As of ``ServeSpec``; ``auto`` asks for keys unless Serve listens on the loopback.
    """
    if auth != "auto":
        return auth == "keys"
    # There is no public name for it.
    client: Any = _get_global_client()
    return not is_loopback(str(client.http_config.host))
