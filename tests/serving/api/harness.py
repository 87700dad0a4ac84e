"""A service without Ray: the real store, planner and gate, and a dispatcher of a few lines."""

import asyncio
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

import torch

from rayreel.checkpoints.files import ModelFiles
from rayreel.config.serving import QueueSpec, ServeSpec
from rayreel.data.storage import Storage
from rayreel.media.image import write_image
from rayreel.media.mux import write_clip
from rayreel.requests.costs import CostBook
from rayreel.requests.models import checked_model
from rayreel.serving.gate import Auth, FileGate
from rayreel.serving.jobs import Job, Output
from rayreel.serving.load import Load, PoolLoad
from rayreel.serving.planning import Planner
from rayreel.serving.service import Service
from rayreel.serving.store import JobStore
from rayreel.types import Audio, Clip

LEASE = "the-test"


def make_clip(folder: Path, *, sound: bool = True) -> Path:
    path = folder / f"clip-{sound}.mp4"
    frames = (torch.arange(9 * 32 * 64 * 3) % 251).to(torch.uint8).reshape(9, 32, 64, 3)
    tone = torch.sin(torch.arange(18000) / 20).expand(2, -1)
    audio = Audio(waveform=tone.contiguous(), sample_rate_hz=48000) if sound else None
    write_clip(path, Clip(frames=frames, fps=24.0, audio=audio))
    return path


@dataclass
class Worker:
    """Does by hand what a dispatcher does, so that tests see each state."""

    clip: Path
    by_itself: bool = False
    told: list[str] = field(default_factory=list)
    service: Service = field(init=False)

    def queue(self) -> list[Job]:
        return self.service.store.queued(100)

    def take(self) -> list[Job]:
        queued = [job.job_id for job in self.service.store.queued(100)]
        return self.service.store.take(queued, LEASE, time.time())

    def finish(self, job: Job) -> None:
        suffix = "png" if job.kind == "image" else "mp4"
        output = Output(path=f"videos/{job.job_id}.{suffix}", sha256="5" * 64, num_bytes=1)
        with self.service.storage.local_staging(output.path) as staged:
            if suffix == "png":
                write_image(staged, torch.full((32, 64, 3), 90, dtype=torch.uint8))
            else:
                copyfile(self.clip, staged)
        self.service.store.finish(
            LEASE, job.job_id, output, seconds={}, now=time.time(), expires_at=None
        )

    def fail(self, job: Job, *, error: str = "MediaError", message: str = "it broke") -> None:
        self.service.store.fail(
            LEASE, job.job_id, error=error, message=message, seconds={}, now=time.time(),
            expires_at=None,
        )  # fmt: skip

    def work(self) -> None:
        for job in self.take():
            self.finish(job)

    async def wake(self) -> None:
        self.told.append("wake")
        if self.by_itself:
            await asyncio.to_thread(self.work)

    async def cancel(self, job_id: str) -> None:
        self.told.append(f"cancel {job_id}")


@cache
def tiny() -> ModelFiles:
    return checked_model("tiny")


@cache
def empty_database() -> bytes:
    """A database that is up to date; making one takes longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.sqlite"
        store = JobStore(f"sqlite:///{path}")
        store.migrate()
        store.close()
        return path.read_bytes()


def make_service(folder: Path, clip: Path, *, keys: bool = False) -> tuple[Service, Worker]:
    spec = ServeSpec(
        model="tiny",
        output=str(folder),
        queue=QueueSpec(max_jobs=8),
    )
    folder.mkdir(exist_ok=True)
    (folder / "jobs.sqlite").write_bytes(empty_database())
    store, storage = JobStore(spec.database_url), Storage(folder)
    devices = dict.fromkeys(("text", "stage1", "stage2", "decode"), "cpu float32")
    load = Load(
        at=time.time(),
        pools={"fused": PoolLoad(replicas=1, waiting_s=0, running_s=0, jobs=0, idle_s=1)},
    )
    worker = Worker(clip)
    service = Service(
        spec=spec,
        store=store,
        planner=Planner(spec, tiny(), CostBook, devices),  # type: ignore[arg-type]
        storage=storage,
        files=FileGate(storage, spec.uploads),
        auth=Auth(store, keys, secret=b"s" * 32),
        load=lambda: load,
        wake=worker.wake,
        cancel=worker.cancel,
    )
    worker.service = service
    return service, worker
