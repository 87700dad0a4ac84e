"""What holds for every answer: safe headers, and nothing about ourselves when something breaks."""

import logging
import secrets
import traceback

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayreel.serving.gate import error_response

log = logging.getLogger(__name__)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "no-store",
}
"""Unless an answer has its own: nothing that the service stores may act as a page of its origin."""


class Outside:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            log.info("%s %s: the client went away", scope["method"], scope["path"])
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            name = f"err_{secrets.token_hex(8)}"
            log.error("%s: %s %s: %s", name, scope["method"], scope["path"], _told(error))  # noqa: TRY400 - a traceback's last line may show a prompt
            if started:
                # The server closes the connection, so that nobody takes the answer for whole.
                raise RuntimeError(f"{name}: broke off within the answer") from None
            failed = error_response(
                500,
                f"the service failed at this request; its log has more about {name}",
                code="internal_error",
            )
            await failed(scope, receive, sending)


def _told(error: BaseException) -> str:
    """Where it happened, without the words of the error: those may repeat what a client sent."""
    said = f" ({error})" if isinstance(error, OSError) else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    cause = f"\nfrom {_told(error.__cause__)}" if error.__cause__ else ""
    return f"{type(error).__name__}{said}\n{frames}{cause}"
