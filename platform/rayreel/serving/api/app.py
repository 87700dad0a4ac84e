"""The HTTP API of a service."""

from fastapi import FastAPI

from rayreel.serving.api.errors import add_handlers
from rayreel.serving.api.files import file_routes
from rayreel.serving.api.health import health_routes
from rayreel.serving.api.images import PATIENCE_S, image_routes
from rayreel.serving.api.models import model_routes
from rayreel.serving.api.openapi import ABOUT, describe
from rayreel.serving.api.outside import Outside
from rayreel.serving.api.page import add_page
from rayreel.serving.api.videos import video_routes
from rayreel.serving.api.watch import Watcher
from rayreel.serving.gate import Guard
from rayreel.serving.service import Service


def create_api(service: Service, *, patience_s: float = PATIENCE_S) -> FastAPI:
    """The API of a service, as an ASGI application for one event loop.

    Args:
        service: What it calls.
        patience_s: How long a client may wait for pictures.
    """
    # Without these, a slash too many would be redirected to an address by the Host header.
    app = FastAPI(
        title="RayReel", description=ABOUT, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    watcher = Watcher(service)
    app.include_router(file_routes(service, watcher))
    app.include_router(video_routes(service))
    app.include_router(image_routes(service, watcher, patience_s=patience_s))
    app.include_router(model_routes(service))
    app.include_router(health_routes(service))
    add_page(app)
    add_handlers(app, service.refused)
    describe(app)
    # The last one is outermost.
    app.add_middleware(Guard, auth=service.auth, limits=service.spec.uploads)
    app.add_middleware(Outside)
    return app
