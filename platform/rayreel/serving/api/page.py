"""The page for people, and that of the API's documentation."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_FOLDER = Path(__file__).parents[1] / "page"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# FastAPI's page loads Swagger UI from here, and starts it from a script within the page.
_CDN = "https://cdn.jsdelivr.net"
_DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'unsafe-inline' {_CDN}",
        f"style-src 'unsafe-inline' {_CDN}",
        "img-src 'self' data: https://fastapi.tiangolo.com",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}


class _PageFiles(StaticFiles):
    """Static files under the page's policy."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, its files below ``/page``, and the documentation at ``/docs``."""
    router = APIRouter(include_in_schema=False)

    def index() -> Response:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    router.get("/")(index)
    router.head("/")(index)

    @router.get("/docs")
    def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(openapi_url=f"{root}/openapi.json", title=app.title)
        page.headers["Content-Security-Policy"] = _DOCS_POLICY
        return page

    app.include_router(router)
    app.mount("/page", _PageFiles(directory=_FOLDER), name="page")
