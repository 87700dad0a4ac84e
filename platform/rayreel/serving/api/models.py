"""What requests can ask for: the model, and the adapters of the library."""

import time
from typing import Annotated

from fastapi import APIRouter, Path

from rayreel.checkpoints.library import adapter_names
from rayreel.config.serving_api import ModelList, ModelObject
from rayreel.serving.api.submission import no_such_model
from rayreel.serving.service import Service

_OWNER = "rayreel"


def model_routes(service: Service) -> APIRouter:
    """Routes below ``/v1/models``."""
    router = APIRouter(prefix="/v1/models", tags=["models"])
    created = int(time.time())

    def models() -> tuple[ModelObject, ...]:
        own = service.spec.name
        usual = service.planner.plan({"prompt": "."}).request
        found = [
            ModelObject(
                id=own,
                created=created,
                owned_by=_OWNER,
                size=f"{usual.width}x{usual.height}",
                seconds=round(usual.duration_s, 2),
            )
        ]
        found += [
            ModelObject(id=name, created=created, owned_by=_OWNER, parent=own)
            for name in adapter_names()
            if name != own
        ]
        return tuple(found)

    @router.get("")
    def list_models() -> ModelList:
        """The model of the service, then the adapters of its library."""
        return ModelList(data=models())

    @router.get("/{model}")
    def retrieve_model(
        model: Annotated[str, Path(description="its name")],
    ) -> ModelObject:
        """The model, or an adapter."""
        for one in models():
            if one.id == model:
                return one
        raise no_such_model(service, model)

    return router
