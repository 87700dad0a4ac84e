"""Memory of encode jobs with more and more clips."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from rayreel.runs.bench.clip_files import write_clips
from rayreel.runs.bench.encoding import encode_spec, run_encode
from rayreel.runs.bench.memory import in_own_process
from rayreel.runs.bench.networks import Line
from rayreel.runs.bench.spec import EncodeMemoryCase

_EVERY_S = 0.2
_MIB = 2**20
# Title of the processes of a pool.
_WORKER = "ray::MapWorker"


def measure_encode_memory(case: EncodeMemoryCase) -> list[Line]:
    """Peaks of jobs of ever more clips, each in a process and on a cluster of its own."""
    return [in_own_process(_measured, case, clips) for clips in case.clips]


def _measured(case: EncodeMemoryCase, clips: int) -> Line:
    with TemporaryDirectory() as name:
        dataset = write_clips(Path(name, "clips"), case.sources, clips)
        spec = encode_spec(case, dataset, Path(name, "run")).model_copy(update={"traces": None})
        with _watched() as peaks:
            seconds = run_encode(spec, clips)
    return {"clips": clips, "job_seconds": round(seconds, 1), **asdict(peaks)}


@dataclass
class _Peaks:
    """Most memory at any time, in MiB; pages that processes share count for each of them.

    Attributes:
        driver_mib: Of the process that drives the job.
        worker_mib: Of the largest worker.
        cluster_mib: Of all processes of the cluster beside the driver, together.
    """

    driver_mib: int = 0
    worker_mib: int = 0
    cluster_mib: int = 0

    def look(self, driver: psutil.Process) -> None:
        """Look at a process and those that it has started."""
        sizes: dict[int, int] = {}
        workers = [0]
        for child in driver.children(recursive=True):
            # It may just have ended.
            try:
                size = child.memory_info().rss // _MIB
                title = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
            sizes[child.pid] = size
            workers += [size] if title.startswith(_WORKER) else []
        self.driver_mib = max(self.driver_mib, driver.memory_info().rss // _MIB)
        self.worker_mib = max(self.worker_mib, *workers)
        self.cluster_mib = max(self.cluster_mib, sum(sizes.values()))


@contextmanager
def _watched() -> Iterator[_Peaks]:
    """Watch this process and those that it starts until the block ends."""
    peaks, over, driver = _Peaks(), threading.Event(), psutil.Process()

    def watch() -> None:
        while not over.wait(_EVERY_S):
            peaks.look(driver)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()
