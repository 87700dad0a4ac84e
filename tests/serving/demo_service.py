"""A whole service in a thread: HTTP API, queue and dispatcher, and a pool that draws sunsets.

Nothing of it is a stand-in but the networks: requests are planned for the tiny model, and the files
are real MP4 with a picture and sound.
"""

import asyncio
import colorsys
import io
import math
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import torch
import uvicorn
from PIL import Image
from torch import Tensor

from rayreel.config.jobs import StageName
from rayreel.config.request import RenderRequest
from rayreel.config.serving import ServeSpec
from rayreel.data.ledger import Ledger, LedgerEntry, worker_name
from rayreel.data.storage import Storage
from rayreel.media.mux import write_clip
from rayreel.requests.costs import CostBook
from rayreel.requests.models import rendering_model
from rayreel.serving.api import create_api
from rayreel.serving.dispatch import Dispatcher, DispatchSettings
from rayreel.serving.gate import Auth, FileGate, signing_secret
from rayreel.serving.jobs import Job
from rayreel.serving.planning import Planner
from rayreel.serving.pools import Step
from rayreel.serving.service import Service
from rayreel.serving.store import JobStore
from rayreel.stages.base import Artifact, ItemFailure, RenderItem, Result
from rayreel.types import Audio, Clip

_STEPS: dict[StageName, int] = {"text": 0, "stage1": 8, "stage2": 3, "decode": 0}
_RATE_HZ = 48000


class DemoPool:
    """Does all stages of a job, as slowly as it is told.

    Attributes:
        step_s: Seconds that a denoising step takes; may be changed at any time.
    """

    name = "fused"
    stages: tuple[StageName, ...] = tuple(_STEPS)
    replicas = 1

    def __init__(self, storage: Storage, step_s: float) -> None:
        self.step_s = step_s
        self._storage = storage
        self._ledger = Ledger(storage)

    async def work(
        self,
        items: Sequence[RenderItem],
        *,
        adapters: str = "",  # noqa: ARG002 - as of Pool
    ) -> AsyncGenerator[Step | list[Result], None]:
        """Draw clips; a prompt with the word ``broken`` in it fails."""
        previews = await asyncio.to_thread(lambda: [preview(item.request) for item in items])
        pictures = tuple(zip((item.item_id for item in items), previews, strict=True))
        for stage, steps in _STEPS.items():
            for step in range(steps + 1):
                shown = pictures if step else ()
                yield Step(stage=stage, step=step, steps=steps, pictures=shown)
                await asyncio.sleep(self.step_s)
        yield [await asyncio.to_thread(self._draw, item) for item in items]

    def _draw(self, item: RenderItem) -> Result:
        request = item.request
        if "broken" in request.prompt:
            return ItemFailure(
                item_id=item.item_id,
                stage="stage1",
                error="ItemError",
                message="the latents are not finite after step 3",
                seed=request.seed,
                attempt=item.attempt,
                seconds=1.0,
            )
        name = f"videos/{item.item_id}.mp4"
        with self._storage.local_staging(name) as staged:
            write_clip(staged, Clip(frames=sunset(request), fps=request.fps, audio=_tone(request)))
        prompts = (f"{request.prompt} Golden light, slow camera.",) if request.enhance else ()
        output = Artifact(
            path=name, sha256=f"{request.seed:064x}", num_bytes=self._storage.size(name)
        )
        entry = LedgerEntry(
            item_id=item.item_id,
            status="done",
            attempt=item.attempt,
            output=output.path,
            sha256=output.sha256,
            num_bytes=output.num_bytes,
            num_frames=request.num_frames,
            worker=worker_name(),
            finished_at=datetime.now(UTC),
        )
        self._ledger.append(entry)
        return replace(item, output=output, prompts=prompts)


def sunset(request: RenderRequest) -> Tensor:
    """A sun above hills, whose colours are the seed's: ``uint8 (F, H, W, 3)``."""
    generator = torch.Generator().manual_seed(request.seed or 0)
    hue = torch.rand(1, generator=generator).item()
    top = torch.tensor(colorsys.hsv_to_rgb(hue, 0.55, 0.35))
    low = torch.tensor(colorsys.hsv_to_rgb((hue + 0.12) % 1, 0.6, 0.95))
    y = torch.linspace(0, 1, request.height).view(-1, 1, 1)
    x = torch.linspace(0, 1, request.width).view(1, -1, 1)
    wide = request.width / request.height
    frames = []
    for moment in torch.linspace(0, 1, request.num_frames).tolist():
        distance = ((x - 0.3 - 0.4 * moment) * wide) ** 2
        distance = distance + (y - 0.6 + 0.15 * math.sin(3 * moment)) ** 2
        glow = 0.9 * torch.exp(-distance / 0.006) + 0.35 * torch.exp(-distance / 0.05)
        picture = top + (low - top) * y + glow * torch.tensor([1.0, 0.9, 0.7])
        hill = 0.75 + 0.06 * torch.sin(7 * x + 9 * hue) + 0.03 * torch.sin(17 * x + 2 * moment)
        picture = torch.where(y > hill, 0.28 * picture, picture)
        frames.append((255 * picture.clamp(0, 1)).to(torch.uint8))
    return torch.stack(frames)


def preview(request: RenderRequest) -> bytes:
    """A small WebP of the first frame."""
    frame = sunset(request.model_copy(update={"num_frames": 1}))[0]
    picture, data = Image.fromarray(frame.numpy()), io.BytesIO()
    picture.thumbnail((16, 16))
    scale = 160 // max(picture.size)
    size = (scale * picture.width, scale * picture.height)
    picture.resize(size, Image.Resampling.BICUBIC).save(data, "WEBP")
    return data.getvalue()


def _tone(request: RenderRequest) -> Audio | None:
    if not request.audio:
        return None
    times = torch.arange(int(request.duration_s * _RATE_HZ)) / _RATE_HZ
    wave = 0.05 * torch.sin(2 * math.pi * 220 * times)
    return Audio(waveform=wave.expand(2, -1).contiguous(), sample_rate_hz=_RATE_HZ)


class DemoService:
    """What a test holds of a running service.

    Attributes:
        url: Where it answers, without a slash at the end.
        pool: Does its work.
        service: Its parts.
    """

    def __init__(self, url: str, pool: DemoPool, service: Service) -> None:
        self.url, self.pool, self.service = url, pool, service

    def create(self, prompt: str, **fields: Any) -> str:
        """Ask for a small clip over HTTP; the id of its job."""
        body = {"prompt": prompt, "size": "128x128", "num_frames": 9, **fields}
        response = httpx.post(f"{self.url}/v1/videos", json=body, timeout=30)
        response.raise_for_status()
        return str(response.json()["id"])

    def made(self) -> list[Job]:
        """All jobs of nobody's key, newest first."""
        page = self.service.store.list(owner="", limit=100, after=None, ascending=False)
        return [*page.jobs]

    def finish(self, *job_ids: str) -> None:
        """Wait until jobs are finished."""
        deadline = time.monotonic() + 30
        while not all((job := self.service.store.get(one)) and job.finished for one in job_ids):
            assert time.monotonic() < deadline, "the jobs do not end"
            time.sleep(0.02)

    def clear(self) -> None:
        """Have no jobs any more."""
        jobs = self.made()
        for job in jobs:
            self.service.store.ask_cancel(job.job_id)
        self.finish(*(job.job_id for job in jobs))
        for job in jobs:
            self.service.store.delete(job.job_id)


@contextmanager
def demo_service(
    folder: Path, port: int, *, step_s: float = 0.02, keys: bool = False, **spec: Any
) -> Iterator[DemoService]:
    """Run a service until the context ends.

    Args:
        folder: The service directory; a service that ran in it before is gone on from.
        port: Of the loopback address.
        step_s: Seconds of a denoising step.
        keys: Whether requests need an API key, from ``service.store.add_key``.
        spec: Further fields of the ``ServeSpec``.
    """
    serve_spec = ServeSpec(model="tiny", output=str(folder), **spec)
    folder.mkdir(parents=True, exist_ok=True)
    storage = Storage(folder)
    store = JobStore(serve_spec.database_url)
    store.migrate()
    pool = DemoPool(storage, step_s)
    planner = Planner(
        serve_spec, rendering_model("tiny"), CostBook, dict.fromkeys(pool.stages, "demo")
    )
    files = FileGate(storage, serve_spec.uploads)
    running = _Running()
    service = Service(
        spec=serve_spec,
        store=store,
        planner=planner,
        storage=storage,
        files=files,
        auth=Auth(store, keys, secret=signing_secret(storage)),
        load=lambda: running.dispatcher.load() if running.dispatcher else None,
        wake=running.wake,
        cancel=running.cancel,
    )
    settings = DispatchSettings(
        queue=serve_spec.queue,
        batch_size=1,
        retention_s=serve_spec.retention_s,
        keep=lambda job: files.remove(job.job_id),
        is_done=lambda _: None,
    )
    thread = threading.Thread(
        target=lambda: asyncio.run(running.run(service, pool, settings, port)), daemon=True
    )
    thread.start()
    try:
        assert running.ready.wait(30), "the service did not start"
        yield DemoService(f"http://127.0.0.1:{port}", pool, service)
    finally:
        running.server.should_exit = True
        thread.join(30)
        store.close()


class _Running:
    """Server and dispatcher in one event loop."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.dispatcher: Dispatcher | None = None
        self.server: uvicorn.Server

    async def wake(self) -> None:
        assert self.dispatcher is not None
        self.dispatcher.wake()

    async def cancel(self, job_id: str) -> None:
        assert self.dispatcher is not None
        self.dispatcher.cancel(job_id)

    async def run(
        self, service: Service, pool: DemoPool, settings: DispatchSettings, port: int
    ) -> None:
        self.dispatcher = Dispatcher(service.store, [pool], settings)
        config = uvicorn.Config(
            create_api(service), port=port, log_level="error", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        jobs = asyncio.create_task(self.dispatcher.run())
        serving = asyncio.create_task(self.server.serve())
        while not self.server.started and not serving.done():
            await asyncio.sleep(0.01)
        self.ready.set()
        with suppress(asyncio.CancelledError):
            await serving
        await self.dispatcher.stop(0)
        await jobs
