"""Work that is done every now and then, beside training."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Periodic:
    """Calls a function at an interval, on a thread of its own, until it is stopped.

    What goes wrong is a warning, and is tried again at the next time.
    """

    def __init__(self, name: str, work: Callable[[], None], interval_s: float) -> None:
        """Start.

        Args:
            name: Of the work, for the thread and for warnings.
            work: What is called.
            interval_s: Seconds between calls.
        """
        self._name, self._work, self._interval_s = name, work, interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Wait for a call that is going on; there will be no other."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._interval_s):
            try:
                self._work()
            except Exception:
                # Without this thread nothing would be written until the next checkpoint.
                log.warning("%s failed, and will be tried again", self._name, exc_info=True)
