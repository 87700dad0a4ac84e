"""Whether the service is there, for those who run it."""

import logging
import time

from fastapi import APIRouter, Response

from rayreel.config.serving_api import Health, PoolHealth, Readiness
from rayreel.errors import StorageError
from rayreel.serving.load import PoolLoad
from rayreel.serving.service import Service

log = logging.getLogger(__name__)

_LATELY_S = 30.0


def health_routes(service: Service) -> APIRouter:
    """Routes that need no key."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """This process answers."""
        return Health()

    @router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
    def readyz(response: Response) -> Readiness:
        """Whether jobs are accepted and worked on, and how busy the pools are."""
        try:
            totals = service.store.totals()
        except StorageError as error:
            log.warning("not ready: %s", error)
            totals = None
        load = service.load()
        alive = load is not None and time.time() - load.at < _LATELY_S
        pools = {name: _pool(service, pool) for name, pool in load.pools.items()} if load else {}
        works = bool(pools) and all(pool.status != "starting" for pool in pools.values())
        ready = totals is not None and alive and works
        if not ready:
            response.status_code = 503
        return Readiness(
            status="ready" if ready else "not_ready",
            database=totals is not None,
            dispatcher=alive,
            queued=totals.queued if totals else None,
            running=totals.running if totals else None,
            pools=pools,
        )

    return router


def _pool(service: Service, pool: PoolLoad) -> PoolHealth:
    asleep = service.spec.scaling.idle_s is not None and pool.jobs == 0
    return PoolHealth(
        status="ready" if pool.replicas else "asleep" if asleep else "starting",
        replicas=pool.replicas,
        jobs=pool.jobs,
        waiting_s=pool.waiting_s,
        running_s=pool.running_s,
    )
