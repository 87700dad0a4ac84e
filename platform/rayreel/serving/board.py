"""Where a dispatcher tells how busy its pools are, for every process of the cluster.

Ray's own table of keys and values answers in about a millisecond.
"""

import logging
import threading
import time

from pydantic import ValidationError
from ray.exceptions import RayError
from ray.experimental import internal_kv

from rayreel.serving.load import Load

log = logging.getLogger(__name__)

_NAMESPACE = b"rayreel.serving"
# Scaling goes on without an answer; the loops that ask must not stand still for one.
_PATIENCE_S = 1.0
# It is told once a second.
_FRESH_S = 0.5


def publish(application: str, load: Load) -> None:
    """Tell how busy the pools are; what was told before is gone.

    A table that does not answer within a second is logged: whoever reads does without.

    Args:
        application: Name of the Serve application.
        load: Of its pools. Readers take it for new if ``at`` is another than before.
    """
    # Asked itself, as Ray's functions around it cannot be told to give up.
    client = internal_kv.internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    if client is None:
        log.warning("the load of %s is told to nobody: this process has no Ray", application)
        return
    try:
        client.internal_kv_put(
            application.encode(),
            load.model_dump_json().encode(),
            overwrite=True,
            namespace=_NAMESPACE,
            timeout=_PATIENCE_S,
        )
    except RayError as error:
        log.warning("the load of %s could not be told: %s", application, error)


def read(application: str) -> Load | None:
    """What was told last.

    Args:
        application: Name of the Serve application.

    Returns:
        ``None`` where nothing was told, it cannot be read, or Ray is not there or does not answer
        within a second.
    """
    client = internal_kv.internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    if client is None:
        return None
    try:
        told = client.internal_kv_get(
            application.encode(), namespace=_NAMESPACE, timeout=_PATIENCE_S
        )
        return Load.model_validate_json(told) if told else None
    except RayError as error:
        log.warning("the load of %s could not be asked for: %s", application, error)
    except ValidationError as error:
        log.warning("the load of %s is not one: %s", application, error)
    return None


class Reader:
    """What was told last, for threads that ask at every request."""

    def __init__(self, application: str) -> None:
        """Read nothing yet.

        Args:
            application: Name of the Serve application.
        """
        self._application = application
        self._lock = threading.Lock()
        self._load: Load | None = None
        self._read_at = float("-inf")

    def read(self) -> Load | None:
        """As ``read``, or as it was up to half a second ago."""
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_S:
                self._load, self._read_at = read(self._application), time.monotonic()
            return self._load
