"""A server that speaks OpenAI's chat completions, and does first what a test wants to go wrong."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CAPTION = "A red square moves to the right."


def completion(content: str | None, *, finish: str = "stop", **message: Any) -> Response:
    """What a server answers when all is well."""
    return JSONResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "tiny",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, **message},
                    "finish_reason": finish,
                }
            ],
        }
    )


def failure(status: int, message: str = "no") -> Response:
    """A status other than 200, as OpenAI words it; whoever retries need not wait."""
    error = {"message": message, "type": "error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, {"retry-after-ms": "1"})


class CaptionsServer:
    """Answers requests, and keeps them.

    Attributes:
        first: Answers to the first requests, one each; then all is well.
        delay_s: How long each answer takes.
        requests: What was sent: headers, and the body as values.
        most: Requests that were being answered at the same time, at most.
    """

    def __init__(self, first: Sequence[Response] = (), *, delay_s: float = 0.0) -> None:
        self.first = list(first)
        self.delay_s = delay_s
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self.url = ""

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Content of the only message of the last request."""
        ((_, body),) = self.requests[-1:]
        (message,) = body["messages"]
        assert message["role"] == "user"
        parts: list[dict[str, Any]] = message["content"]
        return parts

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        body = json.loads(await request.body())
        return await run_in_threadpool(self._answered, dict(request.headers), body)

    def _answered(self, headers: dict[str, str], body: dict[str, Any]) -> Response:
        with self._lock:
            self.requests.append((headers, body))
            self._now += 1
            self.most = max(self.most, self._now)
            response = self.first.pop(0) if self.first else completion(CAPTION)
        time.sleep(self.delay_s)
        with self._lock:
            self._now -= 1
        return response


@contextmanager
def captions_server(*first: Response, delay_s: float = 0.0) -> Iterator[CaptionsServer]:
    """A server on this machine, at its ``url``."""
    state = CaptionsServer(first, delay_s=delay_s)
    app = Starlette(routes=[Route("/v1/chat/completions", state.answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        state.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            yield state
        finally:
            server.should_exit = True
            thread.join()
