"""A service for as long as a command runs."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from rayreel.cluster.connect import connected
from rayreel.config.serving import ServeSpec
from rayreel.errors import ClusterError, SpecError
from rayreel.serving.app import app
from rayreel.serving.loopback import is_loopback
from rayreel.serving.store import JobStore

# For what the dispatcher has to write once time is over.
_LAST_WORDS_S = 15.0

log = logging.getLogger(__name__)


def serve_until_stopped(
    spec: ServeSpec, *, host: str, port: int, ready: Callable[[str], None]
) -> None:
    """Run a service until the process is asked to stop, in the cluster that it joins or starts.

    Args:
        spec: Of the service; its paths are absolute.
        host: Address to listen on.
        port: Likewise.
        ready: Told the address once requests are answered.

    Raises:
        SpecError: If nobody could use it, or everybody.
        CheckpointError: If weight files are missing or damaged.
        ClusterError: If the cluster cannot hold it.
    """
    _check_keys(spec, host)
    stop = threading.Event()
    # Three looks in a row find a proxy dead before a cluster that starts here has another.
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "2")
    with connected():
        # Not before: Ray puts a handler in the place of SIGTERM's that aborts the process.
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: stop.set())
        # Before there is a proxy, which says of all paths that they are not there until they are.
        application = app(spec)
        try:
            serve.start(
                proxy_location=ProxyLocation.HeadOnly,
                http_options=HTTPOptions(host=host, port=port),
                logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
            )
            serve.run(application, name=spec.name, route_prefix="/")
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterError(f"the service does not start: {error}") from error
        ready(f"http://{'localhost' if is_loopback(host) else host}:{port}")
        stop.wait()
        _drain(spec)
        # A cluster of its own ends with this command.
        serve.delete(spec.name)


def _drain(spec: ServeSpec) -> None:
    """Let work finish in all pools; what cannot is queued again when the service ends."""
    handle: Any = serve.get_deployment_handle("dispatcher", spec.name)
    try:
        handle.drain.remote().result(timeout_s=spec.drain_s + _LAST_WORDS_S)
    except (TimeoutError, RayServeException, ray.exceptions.RayError) as error:
        log.warning("nobody waits for what runs: %s", type(error).__name__)


def _check_keys(spec: ServeSpec, host: str) -> None:
    if spec.auth == "keys" or (spec.auth == "auto" and not is_loopback(host)):
        store = JobStore(spec.database_url, retention_s=spec.retention_s)
        store.migrate()
        try:
            found = store.keys()
            if not any(key.revoked_at is None for key in found):
                raise SpecError(
                    f"requests to {host} need an API key, and there is none yet; make one with "
                    "`rayreel keys add NAME`, or listen on 127.0.0.1"
                )
        finally:
            store.close()
