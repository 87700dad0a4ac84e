"""One driver per run directory: a file that says who works there, renewed while it does.

Clocks of other machines count for nothing. A driver that finds another's file watches it: one that
changes is alive, one that does not for long enough is taken over.
"""

import logging
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psutil
from pydantic import AwareDatetime, Field, ValidationError

from rayreel.config.base import StrictModel
from rayreel.data.storage import Storage
from rayreel.errors import RayreelError, StorageError

log = logging.getLogger(__name__)

FILE = "driver.json"

RENEW_S = 5.0
STALE_S = 30.0
"""A lease that is not renewed for this long may be taken over."""

POLL_S = 0.5
SETTLE_S = 1.0
"""Two that take over at once see within this time whose file stayed."""


class Holder(StrictModel):
    """Who works in a run directory."""

    token: str = Field(description="Of this lease.")
    host: str = Field(description="Name of the machine.")
    namespace: str = Field(description="Which processes a process id is among, on this machine.")
    pid: int = Field(description="Process id.")
    started: float = Field(description="Start of the process, by its machine's clock.")
    since: AwareDatetime = Field(description="When the lease was taken.")
    beat: int = Field(default=0, description="How often it has been renewed.")

    def __str__(self) -> str:
        """For people."""
        return f"process {self.pid} on {self.host}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


class Lease:
    """The right to drive a run, as a context.

    Entering waits up to ``STALE_S`` for the verdict on another's lease, and raises ``RayreelError``
    if that one is alive.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        # The thread must not wait for a store longer than it may go without renewing.
        self._impatient = Storage(storage.uri, patience_s=RENEW_S)
        process = psutil.Process()
        self._holder = Holder(
            token=uuid4().hex,
            host=socket.gethostname(),
            namespace=_namespace(),
            pid=process.pid,
            started=process.create_time(),
            since=datetime.now(UTC),
        )
        self._taken_by: Holder | None = None
        self._renewed_at = 0.0
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            RayreelError: If another driver works in the directory.
            StorageError: If the storage does not answer.
        """
        if not self._created():
            self._take_over()
        self._renewed_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back, unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        try:
            if _same(_read(self._storage), self._holder):
                self._storage.remove([FILE])
        except RayreelError:
            # Whoever comes next waits, and finds it stale.
            log.warning("%s is left in %s", FILE, self._storage.uri, exc_info=True)

    def check(self) -> None:
        """Make sure that the lease is still held.

        Costs nothing while renewing works. Where it did not for long enough that another may have
        taken over, this waits for the storage, and looks.

        Raises:
            RayreelError: If another driver has taken over.
            StorageError: If the storage does not answer.
        """
        if self._taken_by is None and time.monotonic() - self._renewed_at > STALE_S:
            self._renew(self._storage)
        if self._taken_by is not None:
            raise RayreelError(
                f"{self._storage.uri} was taken over by {self._taken_by}, as this driver gave no "
                f"sign of life for {STALE_S:.0f} s; this one stops, and nothing is lost"
            )

    def _created(self) -> bool:
        return self._storage.create_bytes(FILE, _data(self._holder))

    def _take_over(self) -> None:
        """Wait until another's lease is gone or stale, and put one's own in its place."""
        watched: Holder | None = None
        watched_since = time.monotonic()
        while not self._created():
            holder = _read(self._storage)
            if holder is None:
                continue
            if watched is None or holder.token != watched.token:
                watched, watched_since = holder, time.monotonic()
                if not _is_gone(holder):
                    log.warning(
                        "%s is held by %s; waiting for up to %.0f s to see whether it still is",
                        self._storage.uri,
                        holder,
                        STALE_S,
                    )
            elif holder.beat != watched.beat:
                raise _held(self._storage, holder)
            if _is_gone(holder) or time.monotonic() - watched_since > STALE_S:
                log.warning("taking %s over from %s", self._storage.uri, holder)
                self._storage.remove([FILE])
                if self._created():
                    break
            time.sleep(POLL_S)
        if watched is not None:
            time.sleep(SETTLE_S)
            now = _read(self._storage)
            if now is None or not _same(now, self._holder):
                raise _held(self._storage, now or watched)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S) and self._taken_by is None:
            try:
                self._renew(self._impatient)
            except StorageError as error:
                log.warning("the lease of %s could not be renewed: %s", self._storage.uri, error)
            except Exception:
                # Without this thread the lease would go stale unseen.
                log.warning("the lease of %s was not renewed", self._storage.uri, exc_info=True)

    def _renew(self, storage: Storage) -> None:
        with self._renewing:
            found = _read(storage)
            if found is not None and not _same(found, self._holder):
                self._taken_by = found
                return
            self._holder = self._holder.model_copy(update={"beat": self._holder.beat + 1})
            # A file that somebody removed by hand is written again.
            storage.write_bytes(FILE, _data(self._holder))
            self._renewed_at = time.monotonic()


def _held(storage: Storage, holder: Holder) -> RayreelError:
    return RayreelError(
        f"another driver works in {storage.uri}: {holder}. Wait until it has finished, or stop it "
        "and run again; one that died is noticed by itself"
    )


def _data(holder: Holder) -> bytes:
    return holder.model_dump_json(indent=1).encode()


def _read(storage: Storage) -> Holder | None:
    found = storage.read_many([FILE], missing_ok=True)
    if not found:
        return None
    try:
        return Holder.model_validate_json(found[FILE])
    except ValidationError as error:
        raise RayreelError(
            f"{storage.join(FILE)} does not say who works in the run; "
            "remove it if nobody does, and run again"
        ) from error


def _same(found: Holder | None, holder: Holder) -> bool:
    return found is not None and found.token == holder.token


def _is_gone(holder: Holder) -> bool:
    """Whether this machine knows that the holder's process has ended."""
    if (holder.host, holder.namespace) != (socket.gethostname(), _namespace()):
        return False
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.started) > 1
    except psutil.NoSuchProcess:
        return True


def _namespace() -> str:
    """Containers may share a host name and not their process ids."""
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if link.is_symlink() else ""
