"""What the ``run.json`` of every job says."""

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from rayreel.checkpoints.files import ModelFiles

_PACKAGES = ("rayreel", "torch", "ray", "transformers", "av")


def common_facts(spec: BaseModel, files: ModelFiles) -> dict[str, Any]:
    """When and from what a run was started, and with which versions."""
    return {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": spec.model_dump(mode="json"),
        "model": files.spec.model_dump(mode="json"),
        "model_version": ".".join(map(str, files.transformer_file.model_version)),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
    }
