"""The deployment that runs the dispatcher: one actor, whose death costs nothing but time."""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from rayreel.cluster.telemetry import Telemetry
from rayreel.config.jobs import StageName
from rayreel.config.serving import ServeSpec
from rayreel.data.ledger import Ledger
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError
from rayreel.logs import setup_logging
from rayreel.requests.models import opened_model
from rayreel.serving import board
from rayreel.serving.actors import ServePool
from rayreel.serving.costs import Costs
from rayreel.serving.dispatch import Dispatcher, DispatchSettings, Event
from rayreel.serving.gate import FileGate
from rayreel.serving.jobs import Job, Output
from rayreel.serving.load import Load
from rayreel.serving.store import JobStore
from rayreel.serving.telemetry import ServiceTelemetry
from rayreel.stages.base import Artifact

# More of one shape in a batch take longer each than they save.
_AUTO_BATCH = 4
_TELL_S = 1.0
_HOUSEKEEPING_S = 10.0
# Lines of the ledger that are in files of their own before they are gathered.
_COMPACT = 1000

log = logging.getLogger(__name__)


class DispatcherActor:
    """Runs the jobs of the queue, and tells how busy the pools are."""

    def __init__(
        self,
        spec: ServeSpec,
        pools: "Mapping[str, tuple[tuple[StageName, ...], DeploymentHandle[Any]]]",
        devices: Mapping[StageName, str],
        telemetry: Telemetry,
    ) -> None:
        """Open the queue.

        Args:
            spec: Of the service; its paths are absolute.
            pools: Stages and handle of each pool, by name, in order.
            devices: Of the stages, as ``device_label`` says them.
            telemetry: Of the service.
        """
        setup_logging(telemetry.logs.level, json=telemetry.logs.json)
        self._spec = spec
        self._telemetry = ServiceTelemetry(telemetry)
        storage = Storage(spec.output)
        self._ledger = Ledger(storage)
        store = Storage(spec.store or spec.output)
        self._costs = Costs(store, opened_model(spec.model), devices)
        self._store = JobStore(spec.database_url, retention_s=spec.retention_s)
        self._store.migrate()
        self._replicas: dict[str, int] = {}
        self._pools = [
            ServePool(name, stages, handle, lambda pool: self._replicas.get(pool, 0))
            for name, (stages, handle) in pools.items()
        ]
        gate = FileGate(storage, spec.uploads)
        size = spec.stage("stage1").batch_size
        settings = DispatchSettings(
            queue=spec.queue,
            batch_size=_AUTO_BATCH if size == "auto" else size,
            retention_s=spec.retention_s,
            keep=lambda job: gate.remove(job.job_id),
            is_done=self._finished,
        )
        self._dispatcher = Dispatcher(self._store, self._pools, settings, told=self._told)
        self._application = serve.get_replica_context().app_name
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin, once."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._dispatcher.run()),
                asyncio.create_task(self._tell()),
                asyncio.create_task(self._keep_house()),
            ]

    async def wake(self) -> None:
        """Look now: there is new work."""
        self._dispatcher.wake()

    async def cancel(self, job_id: str) -> None:
        """Stop a job; the store has been told already."""
        self._dispatcher.cancel(job_id)

    async def drain(self) -> None:
        """Take nothing more, and let what runs finish for as long as it may.

        To be called before the application is deleted: afterwards the pools take nothing more.
        """
        self._draining = True
        await self._dispatcher.stop(self._spec.drain_s)

    async def check_health(self) -> None:
        """Begin if nothing has begun yet.

        Raises:
            RuntimeError: If a part has ended: Serve starts another actor then.
        """
        await self.start()
        for task in self._tasks:
            if task.done() and not self._draining:
                raise RuntimeError(f"the dispatcher has ended: {task}")

    async def __del__(self) -> None:
        """Let what runs finish, and give the rest back."""
        if self._tasks:
            ends = await asyncio.to_thread(is_deleted, self._application)
            await self._dispatcher.stop(self._spec.drain_s, pools_end=ends)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._save)
        self._telemetry.close()
        self._store.close()

    def _told(self, event: Event) -> None:
        self._telemetry.told(event)
        if event.what == "done":
            self._costs.observe(event.job.request, event.seconds)

    def _finished(self, job: Job) -> Output | None:
        entry = self._ledger.find(job.job_id)
        artifact = Artifact.of(entry) if entry else None
        if artifact is None:
            return None
        return Output(path=artifact.path, sha256=artifact.sha256, num_bytes=artifact.num_bytes)

    async def _tell(self) -> None:
        while True:
            try:
                self._replicas = await asyncio.to_thread(replicas_of, self._application)
                load = self._load()
                self._telemetry.load(load)
                await asyncio.to_thread(board.publish, self._spec.name, load)
            except Exception:
                # Whoever scales the pools does without for a while.
                log.warning("the load of the pools was not told", exc_info=True)
            await asyncio.sleep(_TELL_S)

    def _load(self) -> Load:
        load = self._dispatcher.load()
        starts = {pool.name: pool.start_s for pool in self._pools}
        pools = {
            name: pool.model_copy(update={"start_s": starts.get(name, 0.0)})
            for name, pool in load.pools.items()
        }
        return load.model_copy(update={"pools": pools})

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            await asyncio.to_thread(self._save)
            try:
                totals = await asyncio.to_thread(self._store.totals)
                self._telemetry.totals(totals, time.time())
                await asyncio.to_thread(partial(self._ledger.compact, _COMPACT))
            except RayreelError as error:
                log.warning("housekeeping: %s", error)

    def _save(self) -> None:
        try:
            self._costs.save()
        except RayreelError as error:
            log.warning("costs were not saved: %s", error)


def replicas_of(application: str) -> dict[str, int]:
    """Actors of each deployment of an application that are ready."""
    # ``serve.status`` pickles classes to say the same, and keeps this process busy for long.
    client: Any = _get_global_client()
    found = client.get_serve_details()["applications"].get(application)
    if found is None:
        return {}
    return {
        name: sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        for name, deployment in found["deployments"].items()
    }


def is_deleted(application: str) -> bool:
    """Whether an application is about to end, with all its deployments."""
    try:
        found = serve.status().applications.get(application)
    except (RayServeException, RayError):
        return True
    return found is None or found.status == ApplicationStatus.DELETING
