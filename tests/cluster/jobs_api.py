"""A server that answers as the Jobs API of a Ray head does, with jobs that a test makes up."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from aiohttp import web

TOKEN = "s3cret-token"


@dataclass
class Job:
    """A job: the texts of its log come one by one, then it has its last status.

    Attributes:
        texts: What it writes.
        status: Its last status.
        exit_code: Of its driver.
        cuts: After how many texts each connection to its log breaks off.
        silent: Whether the first connection to its log stays open without a word.
        entrypoint: Its command.
        runtime_env: What it was submitted with.
    """

    texts: list[str] = field(default_factory=list)
    status: str = "SUCCEEDED"
    exit_code: int | None = 0
    cuts: list[int] = field(default_factory=list)
    silent: bool = False
    entrypoint: str = ""
    runtime_env: dict[str, Any] = field(default_factory=dict)


@dataclass
class JobsApi:
    """The server, in a thread of its own."""

    jobs: dict[str, Job] = field(default_factory=dict)
    needs_token: bool = False
    address: str = ""

    def start(self) -> Callable[[], None]:
        """Serve; returns what ends it."""
        loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve() -> None:
            runner = web.AppRunner(self._app())
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()

        def run() -> None:
            loop.create_task(serve())
            loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        ready.wait(10)

        def end() -> None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)

        return end

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{id}", self._one)
        app.router.add_get("/api/jobs/{id}/logs", self._logs)
        app.router.add_get("/api/jobs/{id}/logs/tail", self._tail)
        app.router.add_post("/api/jobs/{id}/stop", self._stop)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if self.needs_token and given != f"Bearer {TOKEN}":
            return web.Response(status=401, text="Unauthorized: Missing authentication token")
        if (name := request.match_info.get("id")) and name not in self.jobs:
            return web.Response(status=404, text=f"Job {name} does not exist")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__})

    def _details(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        known = {"submission_id": name, "status": job.status, "entrypoint": job.entrypoint}
        return {**known, "type": "SUBMISSION", "driver_exit_code": job.exit_code, "message": "why"}

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response([self._details(name) for name in self.jobs])

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = asked["submission_id"]
        self.jobs[name] = Job(
            status="RUNNING",
            entrypoint=asked["entrypoint"],
            runtime_env=asked["runtime_env"],
        )
        return web.json_response({"submission_id": name, "job_id": name})

    async def _one(self, request: web.Request) -> web.Response:
        return web.json_response(self._details(request.match_info["id"]))

    async def _logs(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": "".join(self.jobs[request.match_info["id"]].texts)})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        job = self.jobs[request.match_info["id"]]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if job.silent:
            job.silent = False
            await asyncio.sleep(60)
        cut = job.cuts.pop(0) if job.cuts else None
        for text in job.texts[:cut]:
            await socket.send_str(text)
        if cut is not None:
            await asyncio.sleep(0.1)
            assert request.transport is not None
            request.transport.abort()
        return socket

    async def _stop(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["id"]]
        running, job.status = job.status == "RUNNING", "STOPPED"
        return web.json_response({"stopped": running})
